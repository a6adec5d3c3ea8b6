package nomadtest

import (
	"cmp"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
)

// A Target is a Nomad with one node that contract tests run against.
type Target struct {
	Config *api.Config
	Nomad  *api.Client // for checks, beside the client under test
	Real   bool
	Sim    *nomadsim.Server // nil when Real
}

// Targets runs a test against the real agent, if there is one, and against a simulated one.
func Targets(t *testing.T, config nomadsim.Config, test func(t *testing.T, on Target)) {
	t.Helper()
	t.Run("real", func(t *testing.T) { test(t, Real(t)) })
	t.Run("simulated", func(t *testing.T) {
		test(t, Simulated(t, config))
	})
}

// Real returns the real agent. Without one the test is skipped.
func Real(t *testing.T) Target {
	t.Helper()
	addr := Agent(t)
	if addr == "" {
		t.Skip("no nomad on PATH and no SWITCHYARD_NOMAD_ADDR")
	}
	on := At(t, addr)
	on.Real = true
	return on
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

// At returns the Nomad at an address.
func At(t *testing.T, addr string) Target {
	t.Helper()
	nomad, err := api.NewClient(&api.Config{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nomad.Close)
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

// Request returns a request for the runner gha-77-1.
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

// Fresh returns a request for a new job, which is purged when the test ends.
func (on Target) Fresh(t *testing.T, p router.Placement) router.StartRequest {
	t.Helper()
	r := Request(p)
	r.Job.ID = rand.Int64N(1 << 48)
	r.Job.Try = 1
	r.Runner = router.Runner{ID: r.Job.RunnerID(), JobID: r.Job.ID, Try: 1, Name: r.Job.RunnerID()}
	on.Purge(t, r.Runner.ID)
	return r
}

// Purge purges a job when the test ends.
func (on Target) Purge(t *testing.T, id string) {
	t.Cleanup(func() { _, _, _ = on.Nomad.Jobs().Deregister(id, true, nil) })
}

// Node returns the one node, with its resources.
func (on Target) Node(t *testing.T) *api.NodeListStub {
	t.Helper()
	nodes, _, err := on.Nomad.Nodes().List(&api.QueryOptions{Params: map[string]string{"resources": "true"}})
	if err != nil || len(nodes) != 1 {
		t.Fatalf("nodes: %v, %v; want one", nodes, err)
	}
	return nodes[0]
}

// Deregister stops a job, and purges it if asked to.
func (on Target) Deregister(t *testing.T, id string, purge bool) (evalID string) {
	t.Helper()
	evalID, _, err := on.Nomad.Jobs().Deregister(id, purge, nil)
	if err != nil {
		t.Fatal(err)
	}
	return evalID
}

// Register registers a job as it is.
func (on Target) Register(t *testing.T, j *api.Job) *api.JobRegisterResponse {
	t.Helper()
	resp, _, err := on.Nomad.Jobs().Register(j, nil)
	if err != nil {
		t.Fatalf("register %s: %v", *j.ID, err)
	}
	return resp
}

// Job returns a job as Nomad has it.
func (on Target) Job(t *testing.T, id string) *api.Job {
	t.Helper()
	j, _, err := on.Nomad.Jobs().Info(id, nil)
	if err != nil {
		t.Fatalf("read job %s: %v", id, err)
	}
	return j
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

// Runs waits for a runner to run on its node.
func (on Target) Runs(t *testing.T, client interface {
	Allocation(ctx context.Context, r router.Runner) (router.Allocation, error)
}, r router.Runner) {
	t.Helper()
	Await(t, r.ID+" to run", func() bool {
		a, err := client.Allocation(t.Context(), r)
		return err == nil && a.Status == "running"
	})
}

// Await waits until done, for 5 minutes at most.
func Await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 minutes: %s", what)
		}
	}
}

// Answers maps "METHOD /path" to what a stand-in for Nomad answers, a status and a body
// such as "403 Permission denied"; all else is answered by "", or with 404. The texts are
// those of a real agent, v2.0.6-dev.
type Answers map[string]string

// ServeHTTP answers a request.
func (a Answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, body, _ := strings.Cut(cmp.Or(a[r.Method+" "+r.URL.Path], a[""], "404 "), " ")
	code, _ := strconv.Atoi(status)
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body)
}
