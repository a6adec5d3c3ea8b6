package nomadtest

import (
	"context"
	"math/rand/v2"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
)

// A Target is a Nomad with one node that contract tests run against.
type Target struct {
	Config *api.Config
	Nomad  *api.Client // to look at it from beside
	Real   bool
	Sim    *nomadsim.Server // nil when Real
}

// Targets runs a test against the real agent, if there is one, and against a simulated one.
func Targets(t *testing.T, test func(t *testing.T, on Target)) {
	t.Helper()
	t.Run("real", func(t *testing.T) {
		addr := Agent(t)
		if addr == "" {
			t.Skip("no nomad on PATH and no SWITCHYARD_NOMAD_ADDR")
		}
		on := At(t, addr)
		on.Real = true
		test(t, on)
	})
	t.Run("simulated", func(t *testing.T) {
		test(t, Simulated(t, nomadsim.Config{}))
	})
}

// Simulated starts a simulated Nomad for one test. Without nodes it has one like this
// machine, and its tasks run runScript if the configuration does not say otherwise.
func Simulated(t *testing.T, config nomadsim.Config) Target {
	t.Helper()
	if config.Nodes == nil {
		config.Nodes = []*api.Node{nomadsim.NewNode(nomadsim.Machine{
			Name: "vm", Kernel: runtime.GOOS, Arch: runtime.GOARCH, Cores: 2, MemoryMB: 4096,
		})}
	}
	if config.Run == nil {
		config.Run = runScript
	}
	sim := nomadsim.New(config)
	t.Cleanup(sim.Close)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	on := At(t, server.URL)
	on.Sim = sim
	return on
}

// At is the Nomad at an address.
func At(t *testing.T, addr string) Target {
	t.Helper()
	nomad, err := api.NewClient(&api.Config{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	return Target{Config: &api.Config{Address: addr}, Nomad: nomad}
}

// runScript does in the simulator what the jobspecs script and claim of the tests do.
func runScript(ctx context.Context, t nomadsim.Task) int {
	if jit, ok := t.Artifacts["secrets/runner.jit"]; ok && jit != t.Env["WANT"] {
		return 1
	}
	if seconds, _ := strconv.Atoi(t.Env["WAIT"]); seconds > 0 {
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-ctx.Done():
			return 130
		}
	}
	code, _ := strconv.Atoi(t.Env["EXIT"])
	return code
}

// Request asks for the runner gha-77-1.
func Request(p router.Placement) router.StartRequest {
	return router.StartRequest{
		Runner: router.Runner{ID: "gha-77-1", JobID: 77, Try: 1, Name: "gha-77-1"},
		Job: router.Job{
			ID: 77, RunID: 7, Attempt: 2, Name: "build", Workflow: "CI",
			Repo:   router.Repo{Owner: "acme", Name: "web", FullName: "acme/web"},
			Labels: []string{"self-hosted", "Linux"},
			URL:    "https://github.com/acme/web/actions/runs/7/job/77",
		},
		Rule:       "linux",
		Placement:  p,
		ClaimURL:   "https://switchyard.example/runner/v1/claim",
		ClaimToken: "the-token",
	}
}

// Fresh asks for a job that no test asked for before; what becomes of it is purged
// in the end.
func (on Target) Fresh(t *testing.T, p router.Placement) router.StartRequest {
	t.Helper()
	r := Request(p)
	r.Job.ID = rand.Int64N(1 << 48)
	r.Job.Try = 1
	r.Runner = router.Runner{ID: r.Job.RunnerID(), JobID: r.Job.ID, Try: 1, Name: r.Job.RunnerID()}
	on.Purge(t, r.Runner.ID)
	return r
}

// Purge has a job purged when the test ends.
func (on Target) Purge(t *testing.T, id string) {
	t.Cleanup(func() { _, _, _ = on.Nomad.Jobs().Deregister(id, true, nil) })
}

// Unplaceable keeps jobs from running where the test is about their registration.
var Unplaceable = []router.Constraint{{Attribute: "${meta.no_such}", Operator: "is_set"}}

// Start starts a runner and returns it as the database has it.
func (on Target) Start(t *testing.T, client interface {
	Start(ctx context.Context, r router.StartRequest) (router.Started, error)
}, r router.StartRequest) router.Runner {
	t.Helper()
	started, err := client.Start(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.Runner.NomadJob, r.Runner.NomadAt = started.NomadJob, started.At
	return r.Runner
}

// Runs waits for a runner to have a node, up to a minute.
func (on Target) Runs(t *testing.T, client interface {
	Allocation(ctx context.Context, r router.Runner) (router.Allocation, error)
}, r router.Runner) bool {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if a, err := client.Allocation(t.Context(), r); err == nil && a.Status == "running" {
			return true
		}
	}
	return false
}
