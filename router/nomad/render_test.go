package nomad

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomadsim/nomadtest"
	"switchyard/router/testnet"
	"switchyard/rules"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// newClient makes a client with the jobspecs of testdata.
func newClient(t testing.TB, config *api.Config, change ...func(*Config)) *Client {
	t.Helper()
	set, err := jobspecs.Load("testdata/jobspecs")
	if err != nil {
		t.Fatal(err)
	}
	made := Config{Jobspecs: set, API: config}
	for _, f := range change {
		f(&made)
	}
	c, err := New(made)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.api.Close) // an agent takes no more than 100 connections from one address
	return c
}

// virtual runs a subtest on a clock of its own, which moves on when all it started waits.
func virtual(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// answered is a Client of a Nomad in memory that answers so, for tests with a clock of their own.
func answered(t *testing.T, h http.Handler, change ...func(*Config)) *Client {
	t.Helper()
	var on testnet.Net
	return newClient(t, &api.Config{Address: on.Serve(t, h)}, append(change, func(c *Config) { c.Dial = on.Dial })...)
}

// nowhere is the configuration of a client that must not call.
func nowhere() *api.Config { return &api.Config{Address: "http://127.0.0.1:1"} }

func TestRender(t *testing.T) {
	everything := router.Placement{
		Jobspec: "full",
		Constraints: []router.Constraint{
			{Attribute: "${attr.cpu.arch}", Operator: "=", Value: "amd64", From: "label x64"},
			{Attribute: "", Operator: "distinct_hosts", Value: "true", From: "defaults"},
		},
		Affinities: []router.Affinity{{Attribute: "${node.class}", Operator: "=", Value: "spot", Weight: -50, From: "rule linux"}},
		Devices: []router.Device{
			{Name: "nvidia/gpu", Count: 2, Constraints: []router.Constraint{{Attribute: "${device.attr.memory}", Operator: ">=", Value: "8 GiB"}}},
			{Name: "fpga", Count: 1},
		},
		NodePool:    "ci",
		Datacenters: []string{"tokyo-a", "tokyo-b"},
		Namespace:   "runners",
		Priority:    70,
	}
	everything.Resources.CPU, everything.Resources.MemoryMB, everything.Resources.DiskMB = 8000, 4096, 900
	everything.Task.Env = map[string]string{"LEVEL": "2", "NEW": "${node.unique.name}"}
	everything.Task.Config = map[string]any{"image": "runner:2", "ulimit": map[string]any{"nofile": "2048:4096"}}
	cores := router.Placement{Jobspec: "full"}
	cores.Resources.Cores, cores.Resources.MemoryMaxMB = 2, 3000
	cpu := router.Placement{Jobspec: "cores"}
	cpu.Resources.CPU = 500
	strangers := nomadtest.Request(router.Placement{Jobspec: "plain"})
	strangers.Job.Name = "x\x00${NOMAD_TOKEN}\n" + strings.Repeat("y", 300)
	strangers.Job.Workflow = "$${attr.kernel.name}\x1b[31m\u202e"
	strangers.Job.Labels = []string{"with space", `"quoted"`, "a,b", "${attr.kernel.name}", "line\nbreak", strings.Repeat("l", 300), "日本"}
	strangers.Job.URL = "javascript:alert(1)"
	for _, c := range []struct {
		name    string
		request router.StartRequest
	}{
		{"nothing laid over a plain jobspec", nomadtest.Request(router.Placement{Jobspec: "plain"})},
		{"nothing laid over a full one leaves a one-shot batch job", nomadtest.Request(router.Placement{Jobspec: "full"})},
		{"everything laid over", nomadtest.Request(everything)},
		{"cores replace cpu", nomadtest.Request(cores)},
		{"cpu replaces cores", nomadtest.Request(cpu)},
		{"strangers' strings are inert", strangers},
	} {
		t.Run(c.name, func(t *testing.T) {
			job, err := newClient(t, nowhere()).Render(t.Context(), c.request)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, job)
		})
	}
}

// golden compares a job, without its empty fields, with the file named after the test.
func golden(t *testing.T, job *api.Job) {
	t.Helper()
	data, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	enc := json.NewEncoder(&got)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(pruned(tree)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata/render", strings.Map(func(c rune) rune {
		if c == '\'' {
			return -1
		}
		return c
	}, strings.TrimPrefix(t.Name(), "TestRender/"))+".json")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("rendered job differs from %s (-want +got):\n%s", file, diff)
	}
}

// pruned leaves out what is null or empty: it says nothing and changes with
// the version of the API package.
func pruned(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if value = pruned(value); value == nil || value == "" {
				delete(v, key)
			}
		}
	case []any:
		for i := range v {
			v[i] = pruned(v[i])
		}
	}
	return v
}

func TestRenderRefusesWhatItCannotRender(t *testing.T) {
	for _, c := range []struct{ name, jobspec, want string }{
		{"a jobspec that is not there", "none", `there is no jobspec "none": add it to the jobspecs, or correct the rule`},
		{"two groups", "two-groups", "two-groups.nomad.json: it has 2 groups, want 1: leave one group"},
		{"two tasks and no mark", "unmarked", "unmarked.nomad.json: it has 2 tasks, and none is marked as the runner: leave one group, and mark one of its tasks"},
		{"two marks", "marked-twice", "marked-twice.nomad.json: two tasks are marked as the runner"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := newClient(t, nowhere()).Render(t.Context(), nomadtest.Request(router.Placement{Jobspec: c.jobspec}))
			wantKind(t, err, "fix", c.want)
		})
	}
	t.Run("a dispatch has nothing to render", func(t *testing.T) {
		_, err := newClient(t, nowhere()).Render(t.Context(), nomadtest.Request(router.Placement{Dispatch: "classic"}))
		if err == nil || !strings.Contains(err.Error(), "rule linux dispatches the Nomad job classic as it is") {
			t.Errorf("Render = %v", err)
		}
	})
}

func TestRenderedJobsShareNothing(t *testing.T) {
	client := newClient(t, nowhere())
	p := router.Placement{Jobspec: "full", Datacenters: []string{"a"}, Priority: 50}
	p.Resources.DiskMB = 500
	first, err := client.Render(t.Context(), nomadtest.Request(p))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(first)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			job, err := client.Render(t.Context(), nomadtest.Request(p))
			if err != nil {
				t.Error(err)
				return
			}
			job.Meta["OWN"] = "changed"
			job.Datacenters[0] = "changed"
			*job.Priority = 1
			job.UI.Links[0].URL = "changed"
			group := job.TaskGroups[0]
			*group.EphemeralDisk.SizeMB = 1
			task := group.Tasks[1]
			task.Env["OWN"] = "changed"
			task.Config["args"].([]any)[0] = "changed"
			*task.Resources.Devices[0].Count = 9
			task.Artifacts[0].GetterHeaders["Authorization"] = "changed"
		})
	}
	wg.Wait()
	again, err := client.Render(t.Context(), nomadtest.Request(p))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := json.Marshal(again); !bytes.Equal(got, want) {
		t.Errorf("changing rendered jobs changed the next one:\n%s", cmp.Diff(string(want), string(got)))
	}
}

func TestJobMeta(t *testing.T) {
	meta := func(change func(*router.StartRequest)) map[string]string {
		r := nomadtest.Request(router.Placement{})
		change(&r)
		return jobMeta(r)
	}
	t.Run("the repository's address is on the job's own server", func(t *testing.T) {
		got := meta(func(r *router.StartRequest) { r.Job.URL = "https://ghe.example:8443/acme/web/actions/runs/7/job/77" })
		if want := "https://ghe.example:8443/acme/web"; got[metaRepoURL] != want {
			t.Errorf("GH_REPO_URL = %q, want %q", got[metaRepoURL], want)
		}
	})
	t.Run("without a job address it is on github.com", func(t *testing.T) {
		got := meta(func(r *router.StartRequest) { r.Job.URL = "" })
		if want := "https://github.com/acme/web"; got[metaRepoURL] != want {
			t.Errorf("GH_REPO_URL = %q, want %q", got[metaRepoURL], want)
		}
	})
	t.Run("the runner registers on that server with what the placement says", func(t *testing.T) {
		for want, runner := range map[string]rules.Runner{
			"jit https://ghe.example:8443/acme/web":           {},
			"token https://ghe.example:8443/acme":             {Scope: "organization", Registration: "token"},
			"jit https://ghe.example:8443/enterprises/a-corp": {Scope: "enterprise", Enterprise: "a-corp", Registration: "jit"},
		} {
			got := meta(func(r *router.StartRequest) {
				r.Job.URL = "https://ghe.example:8443/acme/web/actions/runs/7/job/77"
				r.Job.Repo.Owner, r.Job.Repo.Name = "acme", "web"
				r.Placement.Runner = runner
			})
			if got := got[metaRegistration] + " " + got[metaRunnerURL]; got != want {
				t.Errorf("SWITCHYARD_REGISTRATION and RUNNER_URL = %q, want %q", got, want)
			}
		}
	})
	t.Run("two hundred long labels are cut between labels", func(t *testing.T) {
		got := meta(func(r *router.StartRequest) {
			r.Job.Labels = nil
			for range 200 {
				r.Job.Labels = append(r.Job.Labels, strings.Repeat("é", 300))
			}
		})[metaLabels]
		each := strings.Split(got, ",")
		last := each[len(each)-1]
		if len(got) > maxLabels || len(each) < 2 || last != each[0] {
			t.Errorf("%d bytes in %d labels, the last %q", len(got), len(each), last)
		}
	})
}

func FuzzLabels(f *testing.F) {
	for _, s := range []string{"${a}", "$${a}", "$\x00{a}", "$\n{a}", "${${a}}", "$,{a}", "$\xff{a}", "\u202e$\u202e{", strings.Repeat("$", 300) + "{"} {
		f.Add(s, "{a}")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		got := labels([]string{a, b})
		if strings.Contains(got, "${") || strings.Count(got, ",") > 1 || Printable(got, maxLabels) != got || len(got) > maxLabels {
			t.Errorf("labels(%q, %q) = %q", a, b, got)
		}
	})
}
