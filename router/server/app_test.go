package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"switchyard/router"
	"switchyard/router/routertest"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
	"switchyard/router/testnet"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/rules"
)

// A Store is all that an App and the console use of the database.
type Store interface {
	server.Store
	api.Database
}

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // many small programs, one after the other
	goleak.VerifyTestMain(m)
}

// network is where the routers of these tests listen, and what they call; httpClient asks on it.
var (
	network    testnet.Net
	httpClient = &http.Client{Transport: &http.Transport{DialContext: network.Dial, DisableKeepAlives: true, DisableCompression: true}}
)

// bubble runs a test beside others, on a clock of its own, which moves on when all it
// started waits. No test that runs a program is among these: until a child has begun, it
// keeps the locks of the databases that are open.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// virtual runs a subtest on a clock of its own, which moves on when all it started waits.
func virtual(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

var (
	in         = routertest.In
	eventually = routertest.Eventually
	must       = routertest.Must
)

const testRules = `
version: 1
labels:
  self-hosted: {}
  linux: {}
rules:
  - name: no-forks
    if: repo.fork
    deny: forks get no runner
  - name: linux
    if: has("linux")
    jobspec: docker-linux
    runner: { scope: organization, group: 7 }
`

// cluster is a Nomad that registers once and keeps what it was first asked.
// fail, when set, is asked before each registration; before is called within one.
type cluster struct {
	mu     sync.Mutex
	jobs   map[string]router.StartRequest
	starts int
	fail   func(n int) error
	within func(router.StartRequest)
	dead   map[string]bool                                // Nomad jobs that ended
	hidden string                                         // one that cannot be looked up
	placed func(router.Runner) (router.Allocation, error) // nil: each has a node, and starts
}

func (c *cluster) Ended(_ context.Context, r router.Runner) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.NomadJob == c.hidden {
		return false, &router.FixError{Fix: "show it", Err: errors.New("permission denied")}
	}
	return c.dead[r.NomadJob], nil
}

func (c *cluster) Start(_ context.Context, r router.StartRequest) (router.Started, error) {
	c.mu.Lock()
	c.starts++
	n, fail := c.starts, c.fail
	c.mu.Unlock()
	if fail != nil {
		if err := fail(n); err != nil {
			return router.Started{}, err
		}
	}
	if c.within != nil {
		c.within(r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jobs == nil {
		c.jobs = map[string]router.StartRequest{}
	}
	first, existed := c.jobs[r.Runner.ID]
	if !existed {
		first = r
		c.jobs[r.Runner.ID] = r
	}
	return router.Started{NomadJob: r.Runner.ID, ClaimToken: first.ClaimToken, Existed: existed}, nil
}

func (c *cluster) Stop(_ context.Context, r router.Runner) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead == nil {
		c.dead = map[string]bool{}
	}
	c.dead[r.NomadJob] = true
	return nil
}

func (c *cluster) Jobs(context.Context, string) (list []router.NomadJob, index uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, r := range c.jobs {
		status := "running"
		if c.dead[id] {
			status = "dead"
		}
		list = append(list, router.NomadJob{ID: id, RunnerID: id, Status: status, JobID: r.Job.ID, RunID: r.Job.RunID, Attempt: r.Job.Attempt, Repo: r.Job.Repo.FullName})
	}
	return list, 1, nil
}

func (c *cluster) Follow(ctx context.Context, _ string, _ uint64, _ func(router.NomadEvent) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func (c *cluster) Allocation(_ context.Context, r router.Runner) (router.Allocation, error) {
	if c.placed != nil {
		return c.placed(r)
	}
	return router.Allocation{ID: "a-" + r.ID, Status: "pending", Desired: "run", Node: "one", NodeAddr: "127.0.0.1"}, nil
}

func (c *cluster) End(context.Context, router.Runner) (router.NomadEvent, error) {
	return router.NomadEvent{}, router.ErrNotFound
}

func (c *cluster) Home(context.Context, router.Placement) (router.NomadAt, error) {
	return router.NomadAt{}, nil
}

func (*cluster) Region(p router.Placement) string { return p.Region }

func (c *cluster) Claims(p router.Placement) bool { return p.Dispatch == "" }

func (c *cluster) Suits(context.Context, string, router.Placement, []string) ([]string, error) {
	return nil, nil
}

func (c *cluster) Waits(router.Placement) (string, bool) { return "", false }

func (c *cluster) ClaimOf(_ context.Context, j router.NomadJob) (string, router.Secret, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.jobs[j.ID]
	if !ok {
		return "", "", false, router.ErrNotFound
	}
	return r.ClaimURL, r.ClaimToken, !c.Claims(r.Placement), nil
}

func (c *cluster) Unplaced(context.Context, router.Job, router.Runner) (*router.Unplaced, error) {
	return nil, nil
}

func (c *cluster) end(nomadJobs ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = map[string]bool{}
	for _, id := range nomadJobs {
		c.dead[id] = true
	}
}

func (c *cluster) ended(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead[id]
}

func (c *cluster) job(id string) (router.StartRequest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.jobs[id]
	return r, ok
}

func (c *cluster) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.jobs)
}

// hub is a GitHub that hands out configurations, and knows runs.
type hub struct {
	post
	index
	board
	router.Variables // nil: it is not asked for any
	mu               sync.Mutex
	asks             []router.ConfigRequest
	fail             func(n int) error
	runs             int                                      // how often one was looked up
	run              func(n int, id int64) (rules.Run, error) // the nth sync-up

	ready   func(router.Target) error               // nil: at any time
	job     func(id int64) (router.Delivery, error) // nil: every job is queued
	busy    map[int64]bool                          // runners that have a job
	removed []int64                                 // runners that were taken off
}

func (h *hub) Run(_ context.Context, _ router.Repo, id int64) (rules.Run, error) {
	h.mu.Lock()
	h.runs++
	n := h.runs
	h.mu.Unlock()
	return h.run(n, id)
}

func (h *hub) RegistrationToken(_ context.Context, r router.ConfigRequest) (router.Registration, error) {
	return router.Registration{
		Token: "registration-token", URL: "https://github.com/" + r.Repo.Owner + "/" + r.Repo.Name, Expires: time.Now().Add(time.Hour),
	}, nil
}

func (h *hub) Instances() []router.Instance { return nil }

func (h *hub) Admit(_ context.Context, a router.Admission) error {
	if h.ready != nil {
		return h.ready(a.Target)
	}
	return nil
}

func (h *hub) Job(_ context.Context, repo rules.Repo, id int64) (router.Delivery, error) {
	if h.job != nil {
		return h.job(id)
	}
	return router.Delivery{
		Source: router.SourceGitHub, Action: "queued", Status: "queued", ReceivedAt: time.Now(),
		Job: router.Job{ID: id, RunID: id * 10, Attempt: 1, Name: "build", Repo: repo},
	}, nil
}

func (h *hub) Runner(context.Context, router.Target, string) (router.GitHubRunner, error) {
	return router.GitHubRunner{}, router.ErrNotFound
}

func (h *hub) Runners(context.Context, router.Target) ([]router.GitHubRunner, error) { return nil, nil }

func (h *hub) GroupAccess(context.Context, router.Target, router.RunnerGroup, router.Repo) (router.GroupAccess, error) {
	return router.GroupAccess{}, errors.New("not asked here")
}

func (h *hub) VersionEnd(context.Context, router.Target, router.RunnerVersion) (router.VersionEnd, error) {
	return router.VersionEnd{}, router.ErrNotFound
}

func (h *hub) RemoveRunner(_ context.Context, _ router.Target, id int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy[id] {
		return router.ErrBusy
	}
	h.removed = append(h.removed, id)
	return nil
}

func (h *hub) lost() []int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.removed)
}

func (h *hub) lookedUp() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.runs
}

func (h *hub) RunnerConfig(_ context.Context, r router.ConfigRequest) (router.RunnerConfig, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asks = append(h.asks, r)
	if h.fail != nil {
		if err := h.fail(len(h.asks)); err != nil {
			return router.RunnerConfig{}, err
		}
	}
	return router.RunnerConfig{GitHubID: int64(len(h.asks)), JIT: router.Secret("jit-for-" + r.Name)}, nil
}

func (h *hub) asked() []router.ConfigRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]router.ConfigRequest(nil), h.asks...)
}

// A running router between stand-ins, over a store that outlives it.
type running struct {
	*routertest.World
	store Store
	nomad *cluster
	hub   *hub
}

// start runs a router over st until the test, or Stop, ends it.
func start(t testing.TB, st Store, nomad *cluster, h *hub, change ...func(*server.Config)) *running {
	t.Helper()
	r := &running{routertest.New(t, routertest.Config{
		Rules: testRules, Network: &network, Logger: slog.New(slog.DiscardHandler), Store: st, Nomad: nomad, GitHub: h,
	}), st, nomad, h}
	r.Start(append([]func(*server.Config){func(c *server.Config) {
		c.API = func(a *server.App) http.Handler { return web.Handler(web.Config{App: a, Database: st}) }
		c.Rand = func() float64 { return 0.99 }
	}}, change...)...)
	if time.Now().Year() == 2000 { // in a bubble: the first sync ends before it could ask about jobs that come later
		synctest.Wait()
	}
	return r
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	st := storetest.Open(t, storetest.Name(t))
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func delivery(id int64, action string, labels ...string) router.Delivery {
	status := map[string]string{"queued": "queued", "in_progress": "in_progress", "completed": "completed"}[action]
	return router.Delivery{
		ID: fmt.Sprintf("%s-%d", action, id), Action: action, Status: status, ReceivedAt: time.Now(),
		Job: router.Job{
			ID: id, RunID: id * 10, Attempt: 1, Name: "build", Labels: labels,
			Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true},
		},
	}
}

func (r *running) deliver(d router.Delivery) {
	r.T.Helper()
	if err := r.Receive(r.T.Context(), d); err != nil {
		r.T.Fatalf("receive %s: %v", d.ID, err)
	}
}

// dispatch delivers that a job is queued, waits until it is dispatched, and returns what
// Nomad was asked for.
func (r *running) dispatch(id int64) router.StartRequest {
	r.T.Helper()
	r.deliver(delivery(id, "queued", "self-hosted", "linux"))
	j := r.await(id, in(router.Dispatched))
	got, _ := r.nomad.job(j.RunnerID())
	return got
}

// await waits until the store has the job as ok wants it.
func (r *running) await(id int64, ok func(router.Job) bool) router.Job {
	r.T.Helper()
	return routertest.AwaitJob(r.T, r.store, id, ok)
}

func TestAQueuedJobGetsOneRunner(t *testing.T) { bubble(t, testAQueuedJobGetsOneRunner) }
func testAQueuedJobGetsOneRunner(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	d := delivery(1, "queued", "self-hosted", "Linux")
	for range 3 {
		r.deliver(d)
	}
	j := r.await(1, in(router.Dispatched))
	if j.Decision == nil || j.Decision.Rule != "linux" || j.Reason == "" {
		t.Errorf("job has decision %+v and reason %q, want rule linux and a reason", j.Decision, j.Reason)
	}
	got, ok := r.nomad.job("gha-1-1")
	if !ok || r.nomad.starts != 1 {
		t.Fatalf("Nomad was asked %d times, want once for gha-1-1", r.nomad.starts)
	}
	if want := "http://" + r.App.Addr() + router.ClaimPath; got.ClaimURL != want {
		t.Errorf("claim URL = %q, want %q", got.ClaimURL, want)
	}

	status, body := r.Claim(got.ClaimToken)
	asks := r.hub.asked()
	if len(asks) != 1 || status != http.StatusOK || body != "jit-for-"+asks[0].Name {
		t.Fatalf("claim = %d %q after %d questions to GitHub, want 200 and the configuration", status, body, len(asks))
	}
	want := router.ConfigRequest{
		Repo: d.Job.Repo, Runner: rules.Runner{Scope: "organization", Group: "7", Registration: "jit"},
		Name: asks[0].Name, Labels: []string{"self-hosted", "Linux"},
	}
	if diff := cmp.Diff(want, asks[0]); diff != "" {
		t.Errorf("GitHub was asked (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(asks[0].Name, "gha-1-1-") {
		t.Errorf("runner name = %q, want it to begin with gha-1-1-", asks[0].Name)
	}
	if status, body = r.Claim(got.ClaimToken); status != http.StatusGone || strings.Contains(body, "jit") {
		t.Errorf("second claim = %d %q, want 410", status, body)
	}
}

func TestJobsThatNoRunnerWillServe(t *testing.T) { bubble(t, testJobsThatNoRunnerWillServe) }
func testJobsThatNoRunnerWillServe(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	fork := delivery(3, "queued", "self-hosted", "linux")
	fork.Job.Repo.Fork = true
	for id, tc := range map[int64]struct {
		d    router.Delivery
		want router.JobState
	}{
		1: {delivery(1, "queued", "ubuntu-latest"), router.Ignored},
		2: {delivery(2, "queued", "self-hosted", "linx"), router.Unroutable},
		3: {fork, router.Denied},
	} {
		r.deliver(tc.d)
		if j := r.await(id, in(tc.want)); j.Reason == "" || j.Decision == nil {
			t.Errorf("job %d: reason %q, decision %v, want both", id, j.Reason, j.Decision)
		}
	}
	if n := r.nomad.count(); n != 0 {
		t.Errorf("Nomad has %d jobs, want none", n)
	}
}

func TestAnOutageOfNomadLosesNothing(t *testing.T) { bubble(t, testAnOutageOfNomadLosesNothing) }
func testAnOutageOfNomadLosesNothing(t *testing.T) {
	nomad := &cluster{fail: func(n int) error {
		if n <= 3 {
			return errors.New("connection refused")
		}
		return nil
	}}
	r := start(t, openStore(t), nomad, &hub{})
	r.deliver(delivery(1, "queued", "self-hosted", "linux"))
	j := r.await(1, in(router.Retrying))
	if !strings.Contains(j.Reason, "connection refused") || j.Failures == 0 || j.DueAt.IsZero() {
		t.Errorf("while Nomad is away: reason %q, %d failures, due %v; want the cause, a count and a time", j.Reason, j.Failures, j.DueAt)
	}
	r.await(1, in(router.Dispatched))
	got, _ := nomad.job("gha-1-1")
	if status, _ := r.Claim(got.ClaimToken); status != http.StatusOK {
		t.Errorf("claim = %d, want 200", status)
	}
}

func TestClaimsThatGetNoConfiguration(t *testing.T) {
	virtual(t, "an unknown token is refused", func(t *testing.T) {
		r := start(t, openStore(t), &cluster{}, &hub{})
		for _, token := range []router.Secret{"", "nope", router.Secret(strings.Repeat("x", 1000))} {
			if status, _ := r.Claim(token); status != http.StatusUnauthorized {
				t.Errorf("claim with %d bytes = %d, want 401", len(token), status)
			}
		}
	})
	virtual(t, "a job cancelled meanwhile needs no runner", func(t *testing.T) {
		r := start(t, openStore(t), &cluster{}, &hub{})
		r.dispatch(1)
		r.deliver(delivery(1, "completed", "self-hosted", "linux"))
		got, _ := r.nomad.job("gha-1-1")
		if status, body := r.Claim(got.ClaimToken); status != http.StatusOK || body != "" {
			t.Errorf("claim = %d %q, want an empty 200", status, body)
		}
		if asks := r.hub.asked(); len(asks) != 0 {
			t.Errorf("GitHub was asked %d times, want never", len(asks))
		}
	})
	virtual(t, "a job that ended before it was heard of starts nothing", func(t *testing.T) {
		r := start(t, openStore(t), &cluster{}, &hub{})
		r.deliver(delivery(1, "completed", "self-hosted", "linux"))
		r.deliver(delivery(1, "queued", "self-hosted", "linux"))
		r.deliver(delivery(2, "queued", "self-hosted", "linux")) // the worker has looked when this one is through
		r.await(2, in(router.Dispatched))
		if _, ok := r.nomad.job("gha-1-1"); ok {
			t.Error("a completed job was given a runner")
		}
	})
	virtual(t, "when GitHub is away the job is tried again with a new runner", func(t *testing.T) {
		h := &hub{fail: func(n int) error {
			if n == 1 {
				return errors.New("502 Bad Gateway")
			}
			return nil
		}}
		r := start(t, openStore(t), &cluster{}, h)
		first := r.dispatch(1)
		if status, body := r.Claim(first.ClaimToken); status != http.StatusServiceUnavailable || !strings.Contains(body, "is retried") {
			t.Errorf("claim = %d %q, want a 503 that says what comes", status, body)
		}
		r.await(1, func(j router.Job) bool { return j.State == router.Dispatched && j.Try == 2 })
		second, ok := r.nomad.job("gha-1-2")
		if !ok {
			t.Fatal("no second runner")
		}
		if status, _ := r.Claim(first.ClaimToken); status != http.StatusGone {
			t.Errorf("claim of the lost runner = %d, want 410", status)
		}
		if status, body := r.Claim(second.ClaimToken); status != http.StatusOK || body == "" {
			t.Errorf("claim of the new runner = %d %q, want 200 and a configuration", status, body)
		}
	})
	virtual(t, "a taken name is replaced", func(t *testing.T) {
		h := &hub{fail: func(n int) error {
			if n == 1 {
				return fmt.Errorf("jit: %w", router.ErrNameTaken)
			}
			return nil
		}}
		r := start(t, openStore(t), &cluster{}, h)
		got := r.dispatch(1)
		status, _ := r.Claim(got.ClaimToken)
		asks := h.asked()
		if status != http.StatusOK || len(asks) != 2 || asks[0].Name == asks[1].Name {
			t.Errorf("claim = %d after asking for %v, want 200 after two names", status, asks)
		}
	})
	virtual(t, "a runner that GitHub refuses for good ends the job with the reason", func(t *testing.T) {
		h := &hub{fail: func(int) error { return &router.GiveUpError{Err: errors.New("422 labels are bad")} }}
		r := start(t, openStore(t), &cluster{}, h)
		got := r.dispatch(1)
		r.Claim(got.ClaimToken)
		if j := r.await(1, in(router.Unroutable)); !strings.Contains(j.Reason, "labels are bad") {
			t.Errorf("reason = %q, want GitHub's", j.Reason)
		}
	})
}

// The runner that found nobody to claim from leaves no trace but on Nomad.
func TestARunnerThatEndedUnclaimedIsReplaced(t *testing.T) {
	bubble(t, testARunnerThatEndedUnclaimedIsReplaced)
}
func testARunnerThatEndedUnclaimedIsReplaced(t *testing.T) {
	nomad := &cluster{dead: map[string]bool{"gha-2-1": true}, hidden: "gha-1-1"}
	r := start(t, openStore(t), nomad, &hub{}, func(c *server.Config) { c.Sweep = 10 * time.Millisecond })
	r.deliver(delivery(1, "queued", "self-hosted", "linux")) // looked up first, in vain
	r.await(1, in(router.Dispatched))
	r.deliver(delivery(2, "queued", "self-hosted", "linux"))
	r.await(2, func(j router.Job) bool { return j.State == router.Dispatched && j.Try == 2 })
	first, _ := nomad.job("gha-2-1")
	if status, _ := r.Claim(first.ClaimToken); status != http.StatusGone {
		t.Errorf("claim of the ended runner = %d, want 410", status)
	}
	second, _ := nomad.job("gha-2-2")
	if status, body := r.Claim(second.ClaimToken); status != http.StatusOK || body == "" {
		t.Errorf("claim of its replacement = %d %q, want 200 and a configuration", status, body)
	}
}

// An image that cannot be pulled ends a runner after its claim.
func TestARunnerThatEndedConfiguredIsReplaced(t *testing.T) {
	bubble(t, testARunnerThatEndedConfiguredIsReplaced)
}
func testARunnerThatEndedConfiguredIsReplaced(t *testing.T) {
	nomad := &cluster{}
	r := start(t, openStore(t), nomad, &hub{}, func(c *server.Config) {
		c.Sweep, c.Doubt = 10*time.Millisecond, 200*time.Millisecond
	})
	for id := int64(1); id <= 2; id++ {
		r.dispatch(id)
		first, _ := nomad.job(fmt.Sprintf("gha-%d-1", id))
		if status, _ := r.Claim(first.ClaimToken); status != http.StatusOK {
			t.Fatalf("claim = %d, want 200", status)
		}
	}
	nomad.end("gha-1-1", "gha-2-1")
	j := r.await(1, in(router.Retrying))
	if !strings.Contains(j.Reason, "before GitHub gave the runner a job") {
		t.Errorf("reason = %q, want it to say what happened", j.Reason)
	}
	// The second had a job: GitHub says so late.
	late := delivery(2, "in_progress", "self-hosted", "linux")
	late.Job.RunnerName = r.hub.asked()[1].Name
	r.deliver(late)
	r.await(1, func(j router.Job) bool { return j.State == router.Dispatched && j.Try == 2 })
	if j := r.await(2, in(router.Running)); j.Try > 2 || nomad.count() != 3 {
		t.Errorf("job 2 is at try %d, and Nomad has %d jobs; want 3", j.Try, nomad.count())
	}
}

// A fast node may start the runner before the registration is recorded here.
func TestAClaimMayOvertakeTheRecordOfItsRegistration(t *testing.T) {
	bubble(t, testAClaimMayOvertakeTheRecordOfItsRegistration)
}
func testAClaimMayOvertakeTheRecordOfItsRegistration(t *testing.T) {
	var r *running
	var status int
	nomad := &cluster{within: func(req router.StartRequest) { status, _ = r.Claim(req.ClaimToken) }}
	r = start(t, openStore(t), nomad, &hub{})
	r.dispatch(1)
	if status != http.StatusOK {
		t.Errorf("early claim = %d, want 200", status)
	}
	if scope := r.hub.asked()[0].Runner.Scope; scope != "organization" {
		t.Errorf("early claim registered at scope %q, want the rule's, organization", scope)
	}
}

func TestConcurrentClaimsGetOneConfiguration(t *testing.T) {
	bubble(t, testConcurrentClaimsGetOneConfiguration)
}
func testConcurrentClaimsGetOneConfiguration(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	got := r.dispatch(1)
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 10 {
		wg.Go(func() {
			status, _ := r.Claim(got.ClaimToken)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	}
	wg.Wait()
	if statuses[http.StatusOK] != 1 || statuses[http.StatusGone] != 9 || len(r.hub.asked()) != 1 {
		t.Errorf("10 claims gave %v and %d questions to GitHub, want one 200, nine 410, one question", statuses, len(r.hub.asked()))
	}
}

func TestAStopFinishesWhatIsInHand(t *testing.T) { bubble(t, testAStopFinishesWhatIsInHand) }
func testAStopFinishesWhatIsInHand(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	nomad := &cluster{within: func(router.StartRequest) { close(entered); <-leave }}
	st := openStore(t)
	r := start(t, st, nomad, &hub{})
	r.deliver(delivery(1, "queued", "self-hosted", "linux"))
	<-entered
	stopped := make(chan struct{})
	go func() { r.Stop(); close(stopped) }()
	select {
	case <-stopped:
		t.Fatal("the router stopped with a registration in hand")
	case <-time.After(50 * time.Millisecond):
	}
	close(leave)
	<-stopped
	if j, err := st.Job(t.Context(), 1); err != nil || j.State != router.Dispatched {
		t.Errorf("job is %s, err %v, want dispatched", j.State, err)
	}
}

func TestTheListenersServeWhatIsTheirs(t *testing.T) {
	bubble(t, testTheListenersServeWhatIsTheirs)
}
func testTheListenersServeWhatIsTheirs(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	for _, tc := range []struct {
		url  string
		want int
	}{
		{"http://" + r.App.AdminAddr() + "/healthz", http.StatusOK},
		{"http://" + r.App.AdminAddr() + "/readyz", http.StatusOK},
		{"http://" + r.App.AdminAddr() + router.ClaimPath, http.StatusNotFound},
		{"http://" + r.App.Addr() + "/healthz", http.StatusNotFound},
		{"http://" + r.App.Addr() + "/", http.StatusNotFound},
		{"http://" + r.App.Addr() + "/webhooks/github", http.StatusMethodNotAllowed},
	} {
		resp, err := httpClient.Get(tc.url)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("GET %s = %d, want %d", tc.url, resp.StatusCode, tc.want)
		}
	}
}

// errOf returns the error of a call whose other result does not matter.
func errOf[T any](_ T, err error) error { return err }
