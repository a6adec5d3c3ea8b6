package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim/nomadtest"
	"switchyard/router/routertest"
	"switchyard/router/server"
	"switchyard/router/testnet"
)

// fileRunner claims, hands its configuration to the test by a file, and ends when the test
// says so by another.
const fileRunner = `
job "runner" {
  type = "batch"
  group "runner" {
    task "runner" {
      driver = "raw_exec"
      artifact {
        source      = "${NOMAD_META_SWITCHYARD_CLAIM_URL}"
        destination = "secrets/runner.jit"
        mode        = "file"
        headers {
          Authorization = "Bearer ${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}"
        }
      }
      config {
        command = "/bin/sh"
        args    = ["-c", "cp $NOMAD_SECRETS_DIR/runner.jit DROP/$NOMAD_JOB_ID.new; mv DROP/$NOMAD_JOB_ID.new DROP/$NOMAD_JOB_ID.jit; until test -e DROP/$NOMAD_JOB_ID.end; do sleep 0.1; done"]
      }
      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
`

// Two federated regions of a real Nomad: jobs run in both, through the agent of one. While the
// other is stopped its jobs wait, and those of the first go on; then they are served.
func TestTwoRegionsOfARealNomad(t *testing.T) {
	regions := nomadtest.Regions(t, "osaka", "tokyo")
	if regions == nil {
		t.Skip("no nomad on PATH")
	}
	dir, specs := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(specs, "file.nomad.hcl"), []byte(strings.ReplaceAll(fileRunner, "DROP", dir)), 0o600))
	w := routertest.New(t, routertest.Config{
		Agent: regions[0].Addr, Network: &testnet.Net{Loopback: true}, Jobspecs: specs, Hub: githubsim.Config{FirstID: 1000},
		Rules: machine + `
rules:
  - { name: tokyo, if: 'has("tokyo")', jobspec: file, region: tokyo }
  - { name: osaka, if: 'has("osaka")', jobspec: file, region: osaka }
  - { name: linux, if: 'has("linux")', jobspec: file }
`,
	})
	w.Start(func(c *server.Config) { c.Sweep = 5 * time.Second })
	ended := make(chan struct{})
	t.Cleanup(func() { <-ended })
	go func() { // the runners' other half
		defer close(ended)
		for t.Context().Err() == nil {
			found, _ := filepath.Glob(filepath.Join(dir, "*.jit"))
			for _, name := range found {
				jit, err := os.ReadFile(name)
				if err == nil {
					err = os.Remove(name)
				}
				if err != nil {
					t.Error(err)
					return
				}
				go func() {
					if err := w.GitHub.Connect(t.Context(), strings.TrimSpace(string(jit))); err != nil && t.Context().Err() == nil {
						t.Errorf("%s: %v", name, err)
					}
					_ = os.WriteFile(strings.TrimSuffix(name, ".jit")+".end", nil, 0o600)
				}()
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()

	serves := func(id int64, region string) {
		t.Helper()
		nomadtest.Await(t, "a job is completed", func() bool {
			j, err := w.Store.Job(t.Context(), id)
			return err == nil && j.State == router.Completed
		})
		nomadtest.Await(t, "the end of its runner is known", func() bool { return !w.Runners(id)[0].EndedAt.IsZero() })
		r := w.Runners(id)[len(w.Runners(id))-1]
		if r.NomadAt.Region != region || r.Node == "" {
			t.Errorf("the runner of job %d is in region %q on node %q, want region %q", id, r.NomadAt.Region, r.Node, region)
		}
		if _, _, err := w.API.Jobs().Info(r.NomadJob, &api.QueryOptions{Region: region}); err != nil {
			t.Errorf("its Nomad job: %v", err)
		}
	}
	there, here, byName := w.Queue("self-hosted", "tokyo"), w.Queue("self-hosted", "linux"), w.Queue("self-hosted", "osaka")
	serves(there, "tokyo")
	serves(here, "")
	serves(byName, "")

	regions[1].Stop()
	waits := w.Queue("self-hosted", "tokyo")
	nomadtest.Await(t, "its job waits", func() bool {
		j, err := w.Store.Job(t.Context(), waits)
		return err == nil && j.State == router.Retrying && strings.Contains(j.Reason, "region tokyo")
	})
	for range 5 {
		serves(w.Queue("self-hosted", "linux"), "")
	}
	if _, _, err := w.API.Jobs().List(&api.QueryOptions{Region: "tokyo"}); err == nil {
		t.Error("the region that is stopped answers")
	}
	if j, err := w.Store.Job(t.Context(), waits); err != nil || j.State != router.Retrying {
		t.Errorf("the job of the region that is stopped is %s, %v", j.State, err)
	} else {
		t.Logf("the job says: %s", j.Reason)
	}
	regions[1].Start(t)
	serves(waits, "tokyo")
	serves(w.Queue("self-hosted", "tokyo"), "tokyo")
}
