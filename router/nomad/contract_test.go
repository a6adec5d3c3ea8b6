package nomad

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// A target is a nomadtest.Target, with what only these tests ask of it.
type target struct{ nomadtest.Target }

func targets(t *testing.T, test func(t *testing.T, on target, client *Client)) {
	t.Helper()
	nomadtest.Targets(t, nomadsim.Config{}, func(t *testing.T, on nomadtest.Target) { test(t, target{on}, newClient(t, on.Config)) })
}

// What Nomad answers is told as it was, compressed or not; only lists are worth that.
func TestAnswersOfNomadAreToldOf(t *testing.T) {
	nomadtest.Targets(t, nomadsim.Config{}, func(t *testing.T, on nomadtest.Target) {
		var mu sync.Mutex
		var told []string
		client := newClient(t, on.Config, func(c *Config) {
			c.Called = func(call string, status int, _ time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, fmt.Sprint(call, " ", status))
			}
		})
		r := on.Start(t, client, on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable}))
		_, _, jobsErr := client.Jobs(t.Context(), "")
		_, _, nodesErr := client.API().Nodes().List(nil)
		_, endedErr := client.Ended(t.Context(), r)
		if err := errors.Join(jobsErr, nodesErr, endedErr, client.Stop(t.Context(), r)); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, want := range []string{"register job 200", "list jobs 200", "list nodes 200", "read job 200", "stop job 200"} {
			if !slices.Contains(told, want) {
				t.Errorf("%s is not told: %q", want, told)
			}
		}
		for _, call := range told {
			if !strings.HasSuffix(call, " 200") {
				t.Errorf("%s is told", call)
			}
		}
	})
}

func TestStartRegistersOnce(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		t.Run("as rendered, and a second time finds the first's token", func(t *testing.T) {
			r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable, Priority: 70})
			r.Placement.Resources.MemoryMB = 64
			got, err := client.Start(t.Context(), r)
			if want := (router.Started{NomadJob: r.Runner.ID, At: router.NomadAt{Namespace: "default"}, ClaimToken: r.ClaimToken}); err != nil || !cmp.Equal(got, want) {
				t.Fatalf("Start = %+v, %v, want %+v", got, err, want)
			}
			job := on.Job(t, r.Runner.ID)
			if job.Meta[MetaClaimToken] != "the-token" || *job.Priority != 70 || *job.TaskGroups[0].Tasks[0].Resources.MemoryMB != 64 {
				t.Errorf("Nomad has another job: %+v", job)
			}
			r.ClaimToken = "another"
			got, err = client.Start(t.Context(), r)
			if want := (router.Started{NomadJob: r.Runner.ID, At: router.NomadAt{Namespace: "default"}, ClaimToken: "the-token", Existed: true}); err != nil || !cmp.Equal(got, want) {
				t.Errorf("Start again = %+v, %v, want %+v", got, err, want)
			}
		})
		t.Run("a service with every leftover becomes a batch job that starts once", func(t *testing.T) {
			r := on.Fresh(t, router.Placement{Jobspec: "full", Namespace: "default", NodePool: "default"})
			on.Start(t, client, r)
			job := on.Job(t, r.Runner.ID)
			group := job.TaskGroups[0]
			once := *job.Type == "batch" && !*job.Stop && *group.Count == 1 && *group.RestartPolicy.Attempts == 0 && *group.RestartPolicy.Mode == "fail" &&
				*group.ReschedulePolicy.Attempts == 0 && !*group.ReschedulePolicy.Unlimited && *group.Tasks[1].RestartPolicy.Attempts == 0
			if !once || job.Periodic != nil || job.ParameterizedJob != nil {
				t.Errorf("Nomad has %+v with group %+v", job, group)
			}
		})
		t.Run("with cores for cpu and cpu for cores", func(t *testing.T) {
			for jobspec, size := range map[string]func(*router.Placement){
				"plain": func(p *router.Placement) { p.Resources.Cores = 1 },
				"cores": func(p *router.Placement) { p.Resources.CPU = 100 },
			} {
				p := router.Placement{Jobspec: jobspec, Constraints: nomadtest.Unplaceable}
				size(&p)
				if _, err := client.Start(t.Context(), on.Fresh(t, p)); err != nil {
					t.Errorf("%s: %v", jobspec, err)
				}
			}
		})
		t.Run("with each built-in jobspec", func(t *testing.T) {
			set, err := jobspecs.Load("")
			if err != nil {
				t.Fatal(err)
			}
			client, err := New(Config{Jobspecs: set, API: on.Config})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range set.Names() {
				p := router.Placement{Jobspec: name, Constraints: nomadtest.Unplaceable, Devices: []router.Device{{Name: "nvidia/gpu", Count: 1}}, NodePool: "default"}
				p.Resources.CPU, p.Resources.MemoryMB, p.Resources.DiskMB = 2000, 4096, 2000
				got, err := client.Start(t.Context(), on.Fresh(t, p))
				if err != nil || len(got.Warnings) != 0 {
					t.Errorf("%s: %+v, %v", name, got, err)
				}
			}
		})
		t.Run("however many race", func(t *testing.T) {
			r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
			tokens, created := race(t, 20, func(i int) (router.Started, error) {
				return client.Start(t.Context(), withToken(r, "token", i))
			})
			stored := on.Job(t, r.Runner.ID).Meta[MetaClaimToken]
			if created != 1 {
				t.Errorf("%d of 20 created a job, want 1", created)
			}
			// Before 2.0.1 Nomad may accept several, and the caller of an earlier one has its token.
			if client.registersOnce(t.Context()) && (len(tokens) != 1 || !tokens[stored]) {
				t.Errorf("tokens %v, want %s", tokens, stored)
			}
			on.agree(t, client, r)
		})
		t.Run("and Ended tells when it is over", func(t *testing.T) {
			r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
			runner := on.Start(t, client, r)
			if got, err := client.Ended(t.Context(), runner); err != nil || got {
				t.Errorf("Ended of a job that waits for a node = %v, %v, want false", got, err)
			}
			for _, purge := range []bool{false, true} {
				on.Deregister(t, runner.ID, purge)
				on.ended(t, client, runner)
			}
		})
		t.Run("a stopped runner still counts", func(t *testing.T) {
			r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
			on.Start(t, client, r)
			on.Deregister(t, r.Runner.ID, false)
			if got, err := client.Start(t.Context(), r); err != nil || !got.Existed {
				t.Errorf("Start = %+v, %v, want an existing job", got, err)
			}
		})
		t.Run("it counts though the placement has become impossible", func(t *testing.T) {
			r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
			on.Start(t, client, r)
			r.Placement.NodePool = "gone"
			if got, err := client.Start(t.Context(), r); err != nil || !got.Existed {
				t.Errorf("Start = %+v, %v, want an existing job", got, err)
			}
		})
		t.Run("someone else's job of the same ID is left alone", func(t *testing.T) {
			r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
			other, err := client.Render(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			other.Meta = map[string]string{"made": "by hand"}
			on.Register(t, other)
			_, err = client.Start(t.Context(), r)
			wantKind(t, err, "fix", "a job with this ID that Switchyard did not make")
			if on.Job(t, r.Runner.ID).Meta["made"] != "by hand" {
				t.Error("the job was changed")
			}
		})
	})
}

// withToken returns the request with a token of its own.
func withToken(r router.StartRequest, name string, i int) router.StartRequest {
	r.ClaimToken = router.Secret(fmt.Sprintf("%s-%d", name, i))
	return r
}

// ended waits until a stopped runner has ended: Nomad settles that after its answer.
func (on target) ended(t *testing.T, client *Client, r router.Runner) {
	t.Helper()
	nomadtest.Await(t, "the end of "+r.ID, func() bool {
		ended, err := client.Ended(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return ended
	})
}

// race calls start n times at once and returns the tokens it got, and how
// many calls made a job.
func race(t *testing.T, n int, start func(i int) (router.Started, error)) (tokens map[string]bool, created int) {
	t.Helper()
	tokens = map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			got, err := start(i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			tokens[string(got.ClaimToken)] = true
			if !got.Existed {
				created++
			}
		})
	}
	wg.Wait()
	return tokens, created
}

func TestStartTakesEveryOperator(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		for _, c := range []router.Constraint{
			{Attribute: "${attr.kernel.name}", Operator: "=", Value: "linux"},
			{Attribute: "${attr.kernel.name}", Operator: "!=", Value: "linux"},
			{Attribute: "${attr.cpu.numcores}", Operator: ">", Value: "1"},
			{Attribute: "${attr.cpu.numcores}", Operator: ">=", Value: "1"},
			{Attribute: "${attr.cpu.numcores}", Operator: "<", Value: "1"},
			{Attribute: "${attr.cpu.numcores}", Operator: "<=", Value: "1"},
			{Attribute: "${attr.kernel.name}", Operator: "regexp", Value: "^(linux|darwin)$"},
			{Attribute: "${attr.nomad.version}", Operator: "version", Value: ">= 1.6, < 9"},
			{Attribute: "${attr.nomad.version}", Operator: "semver", Value: ">= 1.6.0"},
			{Attribute: "${meta.tags}", Operator: "set_contains", Value: "a,b"},
			{Attribute: "${meta.tags}", Operator: "set_contains_all", Value: "a,b"},
			{Attribute: "${meta.tags}", Operator: "set_contains_any", Value: "a,b"},
			{Attribute: "${meta.tags}", Operator: "is_set"},
			{Attribute: "${meta.tags}", Operator: "is_not_set"},
			{Attribute: "${meta.rack}", Operator: "distinct_property", Value: "2"},
			{Attribute: "${meta.rack}", Operator: "distinct_property"},
			{Operator: "distinct_hosts", Value: "true"},
			{Operator: "distinct_hosts"},
		} {
			t.Run(c.Operator+" "+c.Value, func(t *testing.T) {
				r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: append([]router.Constraint{c}, nomadtest.Unplaceable...)})
				on.Start(t, client, r)
				want := &api.Constraint{LTarget: c.Attribute, Operand: c.Operator, RTarget: c.Value}
				if got := on.Job(t, r.Runner.ID).Constraints[0]; !cmp.Equal(got, want) {
					t.Errorf("Nomad has %+v, want %+v", got, want)
				}
			})
		}
	})
}

func TestStartSortsErrors(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		for _, c := range []struct {
			name      string
			placement router.Placement
			fix, want string
		}{
			{"a missing namespace waits for an operator", router.Placement{Namespace: "no-such"}, "create the namespace", `nonexistent namespace "no-such"`},
			{"a missing node pool waits for an operator", router.Placement{NodePool: "no-such"}, "create the node pool", `nonexistent node pool "no-such"`},
			{"a bad pattern is given up", router.Placement{Constraints: []router.Constraint{{Attribute: "${attr.kernel.name}", Operator: "regexp", Value: "("}}}, "", "Regular expression failed to compile"},
			{"an operator that is none is given up", router.Placement{Constraints: []router.Constraint{{Attribute: "${attr.kernel.name}", Operator: "~", Value: "("}}}, "", `Unknown constraint type "~"`},
			{"a priority out of range is given up", router.Placement{Priority: 32000}, "", "[1, 100]"},
		} {
			t.Run(c.name, func(t *testing.T) {
				c.placement.Jobspec = "plain"
				_, err := client.Start(t.Context(), on.Fresh(t, c.placement))
				kind := "give up"
				if c.fix != "" {
					kind = "fix"
				}
				wantKind(t, err, kind, c.want)
				wantKind(t, err, kind, c.fix)
			})
		}
	})
}

func TestStrangersStringsReachNomadInert(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		many := make([]string, 200)
		for i := range many {
			many[i] = fmt.Sprintf("label-%d-%s", i, strings.Repeat("x", 300))
		}
		for _, c := range []struct {
			name   string
			labels []string
			want   string
		}{
			{"spaces and quotes", []string{"two words", `"quoted"`, `back\slash`}, `two words,"quoted",back\slash`},
			{"an interpolation", []string{"${attr.kernel.name}", "%{ if true }"}, "$ {attr.kernel.name},%{ if true }"},
			{"line breaks and NUL", []string{"a\nb\x00c"}, "a b c"},
			{"a comma", []string{"a,b"}, "a b"},
			{"two hundred of three hundred characters", many, labels(many)},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
				r.Job.Labels, r.Job.Name, r.Job.Workflow = c.labels, c.labels[0], c.labels[0]
				on.Start(t, client, r)
				if got := on.Job(t, r.Runner.ID).Meta[metaLabels]; got != c.want {
					t.Errorf("RUNNER_LABELS = %q, want %q", got, c.want)
				}
			})
		}
	})
}

// What a task is given is Nomad's client's work, so a real one is asked.
func TestATaskSeesLabelsAsTheyAre(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		if !on.Real {
			t.Skip("needs tasks that run")
		}
		r := on.Fresh(t, router.Placement{Jobspec: "shell"})
		r.Job.Labels = []string{"${attr.kernel.name}", "${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}", "$${NOMAD_TASK_NAME}"}
		on.Start(t, client, r)
		env := on.output(t, r.Runner.ID)
		want := "$ {attr.kernel.name},$ {NOMAD_META_SWITCHYARD_CLAIM_TOKEN},$$ {NOMAD_TASK_NAME}"
		for _, line := range []string{"NOMAD_META_RUNNER_LABELS=" + want, "LABELS_AGAIN=" + want, "NOMAD_META_SWITCHYARD_CLAIM_TOKEN=the-token"} {
			if !strings.Contains(env, line+"\n") {
				t.Errorf("the task has no %q; its environment:\n%s", line, env)
			}
		}
	})
}

// output waits for the job's one task to end and returns what it wrote.
func (on target) output(t *testing.T, jobID string) string {
	t.Helper()
	var id string
	nomadtest.Await(t, jobID+" to complete", func() bool {
		stubs, _, err := on.Nomad.Jobs().Allocations(jobID, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(stubs) > 0 && stubs[0].ClientStatus == api.AllocClientStatusComplete {
			id = stubs[0].ID
		}
		return id != ""
	})
	alloc, _, err := on.Nomad.Allocations().Info(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := on.Nomad.AllocFS().Cat(alloc, "alloc/logs/runner.stdout.0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func TestDispatch(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		parent := func(t *testing.T, p *api.ParameterizedJobConfig) string {
			t.Helper()
			job, err := client.Render(t.Context(), nomadtest.Request(router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable}))
			if err != nil {
				t.Fatal(err)
			}
			id := fmt.Sprintf("classic-%d", rand.Int64())
			job.ID, job.Meta, job.ParameterizedJob = &id, nil, p
			on.Register(t, job)
			on.Purge(t, id)
			return id
		}
		children := func(t *testing.T, id string) []*api.JobListStub {
			t.Helper()
			all, _, err := on.Nomad.Jobs().List(&api.QueryOptions{Prefix: id + "/"})
			if err != nil {
				t.Fatal(err)
			}
			for _, child := range all {
				on.Purge(t, child.ID)
			}
			return all
		}
		claims := &api.ParameterizedJobConfig{
			MetaRequired: []string{metaRepoURL, MetaClaimToken}, MetaOptional: []string{metaLabels, "THEIR_OWN"},
		}
		t.Run("gives the declared keys, and a second time finds the first's token", func(t *testing.T) {
			id := parent(t, claims)
			r := on.Fresh(t, router.Placement{Dispatch: id})
			first, err := client.Start(t.Context(), r)
			if err != nil || first.Existed || first.ClaimToken != "the-token" || !strings.HasPrefix(first.NomadJob, id+"/dispatch-"+r.Runner.ID) {
				t.Fatalf("Start = %+v, %v", first, err)
			}
			want := map[string]string{metaRepoURL: "https://github.com/acme/web", MetaClaimToken: "the-token", metaLabels: "self-hosted,Linux"}
			if diff := cmp.Diff(want, on.Job(t, first.NomadJob).Meta); diff != "" {
				t.Errorf("child's meta (-want +got):\n%s", diff)
			}
			r.ClaimToken = "another"
			again, err := client.Start(t.Context(), r)
			if want := (router.Started{NomadJob: first.NomadJob, At: first.At, ClaimToken: "the-token", Existed: true}); err != nil || !cmp.Equal(again, want) {
				t.Errorf("Start again = %+v, %v, want %+v", again, err, want)
			}
			if n := len(children(t, id)); n != 1 {
				t.Errorf("%d children, want 1", n)
			}
		})
		t.Run("once, however many race", func(t *testing.T) {
			id := parent(t, claims)
			r := on.Fresh(t, router.Placement{Dispatch: id})
			tokens, created := race(t, 20, func(i int) (router.Started, error) {
				return client.Start(t.Context(), withToken(r, "token", i))
			})
			if n := len(children(t, id)); n != 1 || created != 1 || len(tokens) != 1 {
				t.Errorf("%d children, %d created, tokens %v; want one of each", n, created, tokens)
			}
		})
		t.Run("once, however many processes race", func(t *testing.T) {
			const processes = 8
			var clients [processes]*Client
			for i := range clients {
				clients[i] = newClient(t, on.Config)
			}
			for range 5 {
				id := parent(t, claims)
				r := on.Fresh(t, router.Placement{Dispatch: id})
				var mu sync.Mutex
				jobs := map[string]bool{}
				tokens, created := race(t, processes, func(i int) (router.Started, error) {
					got, err := clients[i].Start(t.Context(), withToken(r, "token", i))
					mu.Lock()
					defer mu.Unlock()
					jobs[got.NomadJob] = true
					return got, err
				})
				var live []string
				for _, child := range children(t, id) {
					if !child.Stop {
						live = append(live, child.ID)
					}
				}
				if len(live) != 1 || len(jobs) != 1 || !jobs[live[0]] || created != 1 || len(tokens) != 1 || !tokens[on.Job(t, live[0]).Meta[MetaClaimToken]] {
					t.Errorf("children %v are not stopped, and Starts named %v, %d created, with tokens %v; want one of each", live, jobs, created, tokens)
				}
			}
		})
		t.Run("a job that does not claim keeps no token", func(t *testing.T) {
			id := parent(t, &api.ParameterizedJobConfig{MetaRequired: []string{metaRepoURL}})
			r := on.Fresh(t, router.Placement{Dispatch: id})
			for range 2 {
				if got, err := client.Start(t.Context(), r); err != nil || got.ClaimToken != r.ClaimToken {
					t.Errorf("Start = %+v, %v", got, err)
				}
			}
			if n := len(children(t, id)); n != 1 {
				t.Errorf("%d children, want 1", n)
			}
		})
		t.Run("gives what the rule says under names of the job's own", func(t *testing.T) {
			id := parent(t, &api.ParameterizedJobConfig{MetaRequired: []string{"REPO_URL"}, MetaOptional: []string{metaOwner, metaLabels}})
			r := on.Fresh(t, router.Placement{Dispatch: id, DispatchMeta: map[string]string{"REPO_URL": "https://github.com/acme/web", metaOwner: "another"}})
			got, err := client.Start(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"REPO_URL": "https://github.com/acme/web", metaOwner: "another", metaLabels: "self-hosted,Linux"}
			if diff := cmp.Diff(want, on.Job(t, got.NomadJob).Meta); diff != "" {
				t.Errorf("child's meta (-want +got):\n%s", diff)
			}
			children(t, id)
		})
		t.Run("a key that it does not take waits for an operator", func(t *testing.T) {
			for _, c := range []struct {
				p    *api.ParameterizedJobConfig
				want string
			}{
				{&api.ParameterizedJobConfig{MetaOptional: []string{"REPO", metaOwner}}, "it does not take the meta keys that the rule gives: REPO_URI, REPO_URL; it takes GH_OWNER, REPO: add them to meta_optional"},
				{&api.ParameterizedJobConfig{}, "it takes none"},
			} {
				r := on.Fresh(t, router.Placement{Dispatch: parent(t, c.p), DispatchMeta: map[string]string{"REPO_URL": "x", "REPO_URI": "x"}})
				_, err := client.Start(t.Context(), r)
				wantKind(t, err, "fix", c.want)
			}
		})
		stopped := parent(t, claims)
		on.Deregister(t, stopped, false)
		plain := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
		on.Start(t, client, plain)
		for _, c := range []struct{ name, id, want string }{
			{"a job that is not there", "no-such", "read job no-such in namespace default: there is none"},
			{"a job that is stopped", stopped, "it is stopped: start it again"},
			{"a job that is not parameterized", plain.Runner.ID, "it is not parameterized"},
			{"a job that requires other meta", parent(t, &api.ParameterizedJobConfig{MetaRequired: []string{metaRunID, "COLOR", "SIZE"}}), "does not have: COLOR, SIZE: make them optional, give them by dispatch meta in the rule"},
			{"a job that requires a payload", parent(t, &api.ParameterizedJobConfig{Payload: "required"}), "it requires a payload"},
		} {
			t.Run(c.name+" waits for an operator", func(t *testing.T) {
				_, err := client.Start(t.Context(), on.Fresh(t, router.Placement{Dispatch: c.id}))
				wantKind(t, err, "fix", c.want)
			})
		}
	})
}

func TestValidate(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		t.Run("a good jobspec has no warnings", func(t *testing.T) {
			if got, err := client.Validate(t.Context(), "plain"); err != nil || len(got) != 0 {
				t.Errorf("Validate = %q, %v", got, err)
			}
		})
		t.Run("a jobspec in a pool that is missing waits for an operator", func(t *testing.T) {
			if !on.Real {
				t.Skip("the simulator validates without looking at node pools")
			}
			_, err := client.Validate(t.Context(), "elsewhere")
			wantKind(t, err, "fix", "create the node pool")
		})
		t.Run("a limit that the cluster does not allow is a warning", func(t *testing.T) {
			if !on.Real {
				t.Skip("the simulator has no memory oversubscription")
			}
			got, err := client.Validate(t.Context(), "burst")
			if err != nil || len(got) != 1 || !strings.Contains(got[0], "oversubscription") {
				t.Errorf("Validate = %q, %v", got, err)
			}
		})
		t.Run("an invalid jobspec is refused in Nomad's words", func(t *testing.T) {
			_, err := client.Validate(t.Context(), "invalid")
			wantKind(t, err, "give up", "minimum MemoryMB value")
		})
	})
}

func TestHCLIsParsedByNomad(t *testing.T) {
	targets(t, func(t *testing.T, on target, _ *Client) {
		if !on.Real {
			t.Skip("the simulator reads no HCL")
		}
		t.Run("once, however many ask", func(t *testing.T) {
			var parses atomic.Int32
			proxy := on.proxy(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.URL.Path == "/v1/jobs/parse" {
					parses.Add(1)
				}
				next.ServeHTTP(w, r)
			})
			client := newClient(t, &api.Config{Address: proxy.URL})
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					job, err := client.Render(t.Context(), nomadtest.Request(router.Placement{Jobspec: "shell"}))
					if err != nil || job.TaskGroups[0].Tasks[0].Config["command"] != "/usr/bin/env" {
						t.Errorf("Render = %+v, %v", job, err)
					}
				})
			}
			wg.Wait()
			if n := parses.Load(); n != 1 {
				t.Errorf("%d parses, want 1", n)
			}
		})
		t.Run("a fault in it is the operator's to mend", func(t *testing.T) {
			_, err := newClient(t, on.Config).Render(t.Context(), nomadtest.Request(router.Placement{Jobspec: "broken"}))
			wantKind(t, err, "fix", "Unsupported argument")
			wantKind(t, err, "fix", "correct the file")
		})
	})
}

// proxy stands between a client and the target.
func (on target) proxy(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, next http.Handler)) *httptest.Server {
	t.Helper()
	u, err := url.Parse(on.Config.Address)
	if err != nil {
		t.Fatal(err)
	}
	next := httputil.NewSingleHostReverseProxy(u)
	next.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, next) }))
	t.Cleanup(proxy.Close)
	return proxy
}

func TestAnOutage(t *testing.T) {
	targets(t, func(t *testing.T, on target, _ *Client) {
		t.Run("a Nomad that is down is worth a retry, and takes the job when it is back", func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := listener.Addr().String()
			_ = listener.Close()
			client := newClient(t, &api.Config{Address: "http://" + addr})
			r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
			_, err = client.Start(t.Context(), r)
			wantKind(t, err, "retry", "connection refused")
			if listener, err = net.Listen("tcp", addr); err != nil {
				t.Skip("another process took the port")
			}
			u, _ := url.Parse(on.Config.Address)
			back := &http.Server{Handler: httputil.NewSingleHostReverseProxy(u)}
			go func() { _ = back.Serve(listener) }()
			t.Cleanup(func() { _ = back.Close() })
			if got, err := client.Start(t.Context(), r); err != nil || got.Existed {
				t.Errorf("Start = %+v, %v", got, err)
			}
		})
		t.Run("a lost answer is found again with its token", func(t *testing.T) {
			lose := true
			proxy := on.proxy(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method != http.MethodPut || !lose {
					next.ServeHTTP(w, r)
					return
				}
				lose = false
				next.ServeHTTP(httptest.NewRecorder(), r)
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.Close()
			})
			client := newClient(t, &api.Config{Address: proxy.URL})
			r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
			_, err := client.Start(t.Context(), r)
			wantKind(t, err, "retry", "EOF")
			r.ClaimToken = "another"
			if got, err := client.Start(t.Context(), r); err != nil || !got.Existed || got.ClaimToken != "the-token" {
				t.Errorf("Start = %+v, %v, want the first job", got, err)
			}
		})
		t.Run("an answer that does not come ends with the context", func(t *testing.T) {
			proxy := on.proxy(t, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			})
			client := newClient(t, &api.Config{Address: proxy.URL})
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := client.Start(ctx, on.Fresh(t, router.Placement{Jobspec: "plain"}))
			wantKind(t, err, "retry", "context deadline exceeded")
		})
	})
}

func TestConnectionsAreKept(t *testing.T) {
	targets(t, func(t *testing.T, on target, _ *Client) {
		var opened atomic.Int32
		u, _ := url.Parse(on.Config.Address)
		next := httputil.NewSingleHostReverseProxy(u)
		next.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
		proxy := httptest.NewUnstartedServer(next)
		proxy.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				opened.Add(1)
			}
		}
		proxy.Start()
		t.Cleanup(proxy.Close)
		client := newClient(t, &api.Config{Address: proxy.URL})
		const senders, each = 32, 5
		var wg sync.WaitGroup
		for range senders {
			wg.Go(func() {
				for range each {
					r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
					for range 2 { // the second reads the job as well
						if _, err := client.Start(t.Context(), r); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		if n := opened.Load(); n > maxConns { // a sender may find its own still on the way back
			t.Errorf("%d senders opened %d connections for %d calls", senders, n, 3*senders*each)
		}
	})
}
