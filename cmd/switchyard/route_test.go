package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// eachNomad runs a test against the simulated Nomad and, when there is one,
// against a real agent.
func eachNomad(t *testing.T, test func(t *testing.T, addr string)) {
	t.Run("simulated", func(t *testing.T) {
		sim := nomadsim.New(nomadsim.Config{})
		t.Cleanup(sim.Close)
		srv := httptest.NewServer(sim)
		t.Cleanup(srv.Close)
		test(t, srv.URL)
	})
	t.Run("real", func(t *testing.T) {
		addr := nomadtest.Agent(t)
		if addr == "" {
			t.Skip("no nomad on PATH and no SWITCHYARD_NOMAD_ADDR")
		}
		test(t, addr)
	})
}

// A signed delivery, sent 20 times at once, becomes one Nomad job: the one that
// explain shows.
func TestADeliveryBecomesTheOneJobThatExplainShows(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the stop at the end is a signal that Windows does not have")
	}
	eachNomad(t, func(t *testing.T, addr string) {
		id := time.Now().UnixMilli() * 100 // a real agent may live through many runs
		name := fmt.Sprintf("gha-%d-1", id)
		client, err := api.NewClient(&api.Config{Address: addr})
		must(t, err)
		t.Cleanup(func() { _, _, _ = client.Jobs().Deregister(name, true, nil) })
		p := newProcess(t, addr, waitsOnGitHub(t))
		p.start()

		body := payload(id, "self-hosted", "linux", "x64")
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				// The half of them are one delivery, the others tell of the same job.
				if status := send(t.Context(), http.DefaultClient, p.url, fmt.Sprint("guid-", max(i-10, 0)), body); status != http.StatusAccepted {
					t.Errorf("delivery %d was answered %d, want 202", i, status)
				}
			})
		}
		wg.Wait()
		var got *api.Job
		for deadline := time.Now().Add(5 * time.Minute); got == nil; time.Sleep(20 * time.Millisecond) {
			if got, _, err = client.Jobs().Info(name, nil); err != nil && time.Now().After(deadline) {
				t.Fatalf("Nomad has no job %s: %v; the log:\n%s", name, err, p.log.String())
			}
		}
		p.stop()
		stubs, _, err := client.Jobs().PrefixList(fmt.Sprintf("gha-%d", id))
		if err != nil || len(stubs) != 1 || *got.Version != 0 {
			t.Errorf("Nomad has %d jobs of this delivery (%v), version %d; want one of version 0", len(stubs), err, *got.Version)
		}

		dir := t.TempDir()
		file := filepath.Join(dir, "delivery.json")
		rulesFile := filepath.Join(dir, "rules.yaml")
		for path, text := range map[string][]byte{file: body, rulesFile: demoRules} {
			must(t, os.WriteFile(path, text, 0o600))
		}
		var stdout, stderr bytes.Buffer
		url := strings.TrimSuffix(p.url, "/webhooks/github")
		if code := run(t.Context(), []string{"explain", "--rules", rulesFile, "--payload", file, "--render", "json", "--public-url", url}, nil, &stdout, &stderr); code != exitYes {
			t.Fatalf("explain ended with %d: %s", code, stderr.String())
		}
		var shown struct{ Job *api.Job }
		must(t, json.Unmarshal(stdout.Bytes(), &shown))
		for _, j := range []*api.Job{got, shown.Job} {
			if j.Meta["SWITCHYARD_CLAIM_TOKEN"] == "" {
				t.Errorf("job %s has no claim token", *j.ID)
			}
			j.Meta["SWITCHYARD_CLAIM_TOKEN"] = "" // new in each job
		}
		type asked struct {
			ID, Name, Type          string
			Datacenters             []string
			Priority, CPU, MemoryMB int
			Constraints             []*api.Constraint // Nomad adds its own to the group's, such as for kill_signal
			Affinities              []*api.Affinity
			Meta                    map[string]string
		}
		of := func(j *api.Job) asked {
			task := j.TaskGroups[0].Tasks[0]
			return asked{*j.ID, *j.Name, *j.Type, j.Datacenters, *j.Priority, *task.Resources.CPU, *task.Resources.MemoryMB,
				j.Constraints, j.Affinities, j.Meta}
		}
		if diff := cmp.Diff(of(shown.Job), of(got)); diff != "" {
			t.Errorf("the registered job is not what explain shows (-explain +registered):\n%s", diff)
		}
	})
}

// On a real agent the demo's runners are this program: they fetch their claims
// through Nomad's own artifacts.
func TestTheDemoRunsOnARealNomad(t *testing.T) {
	addr := nomadtest.Agent(t)
	if addr == "" {
		t.Skip("no nomad on PATH and no SWITCHYARD_NOMAD_ADDR")
	}
	program, err := exec.LookPath("switchyard") // testscript puts the test's own program there
	must(t, err)
	cmd := exec.CommandContext(t.Context(), program, "demo", "--once")
	cmd.Env = append(os.Environ(), "NOMAD_ADDR="+addr)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("[self-hosted, linux, x64] → rule linux")) || !bytes.Contains(out, []byte("→ success")) {
		t.Errorf("demo --once: %v\n%s", err, out)
	}
}
