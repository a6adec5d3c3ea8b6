// Package routertest owns the world around a router under test: a simulated GitHub, a
// simulated Nomad, the real clients of both, a database, and the network between them, in
// memory or the machine's. It works inside testing/synctest and outside. Tests of the
// server and of the command use it.
package routertest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
	"switchyard/router/telemetry"
	"switchyard/router/testnet"
	"switchyard/router/webhook"
	"switchyard/rules"
)

// Secret signs the deliveries of the simulated GitHub.
const Secret = "0123456789abcdef"

// A Config says what a world is made of. All but Rules is optional.
type Config struct {
	Rules    string       // the rules file that the router starts with
	Network  *testnet.Net // nil: one in memory, of its own
	Logger   *slog.Logger // nil: the router logs to the test's output, and the clients do not log
	Store    server.Store // nil: a SQLite database of its own, opened by each Start
	Database string       // path of that; "": in a directory of its own
	Jobspecs string       // directory of the operator's jobspecs; "": the built-in ones alone

	// GitHub and Nomad replace the simulators and clients, which are then nil.
	GitHub router.GitHub
	Nomad  router.Nomad
	// Hub is the simulated GitHub. Without an App it has an organization's webhook, unless it says otherwise; the
	// URL, the secret and the client of deliveries are the world's.
	Hub githubsim.Config
	// Client is the client of the simulated GitHub, without its URL and network. Without
	// an App it has a token.
	Client gh.Config
	// Cluster is the simulated Nomad. Without nodes it has one, node-1, which runs
	// Linux; without Run its tasks do what a runner does.
	Cluster nomadsim.Config
	// Front, if not nil, wraps the simulated Nomad.
	Front func(http.Handler) http.Handler
	// Agent is the URL of a real Nomad in place of the simulated one, if not "", and
	// Dial connects to it, if not nil.
	Agent string
	Dial  func(ctx context.Context, network, addr string) (net.Conn, error)

	// New wires the router; nil: server.New.
	New func(*World, server.Config) (*server.App, error)
}

// A World is a router between GitHub and Nomad. Its methods fail its test, and are
// safe for concurrent use.
type World struct {
	T         testing.TB
	Net       *testnet.Net
	GitHub    *githubsim.Server
	Nomad     *nomadsim.Server
	Hub       *gh.Client       // of that GitHub
	Client    *capacity.Client // of that Nomad
	API       *api.Client      // of that Nomad
	NomadURL  string
	GitHubURL string // of the simulated one
	Database  string // its name
	Addr      string // where the router listens, from the first Start on; in memory, before
	Rules     *rules.Set
	Metrics   *telemetry.Metrics
	App       *server.App  // the last one that was started
	Store     *store.Store // of that; nil when the Config had one
	// Receive is what the webhook calls for each delivery.
	Receive func(context.Context, router.Delivery) error
	Stop    func() // of the router and its database; nil while there is none
	// Run is what the runners' Nomad tasks do; nil: what a runner does. It is set before they start.
	Run func(context.Context, nomadsim.Task) int
	// Again is until a warm runner asks again whose claim failed; 0: 5 s. It is set before they start.
	Again time.Duration

	config Config

	mu      sync.Mutex
	alter   func(http.Header)
	starts  []string // Nomad jobs that started a task
	deliver bool     // false: what GitHub sends gets lost
}

// New starts a world without a router. It ends with the test.
func New(t testing.TB, c Config) *World {
	t.Helper()
	w := &World{
		T: t, Net: c.Network, Rules: Parse(t, c.Rules), Metrics: telemetry.NewMetrics(), Database: c.Database,
		config: c, deliver: true, Run: c.Cluster.Run,
	}
	if w.Database == "" {
		w.Database = storetest.Name(t)
	}
	if w.Net == nil {
		w.Net = new(testnet.Net)
	}
	w.Addr = w.Net.Free() // the router keeps its address when it is started again
	if c.GitHub == nil {
		w.newGitHub(c.Hub, c.Client)
	}
	if c.Nomad == nil {
		w.NewNomad(c.Cluster)
	}
	return w
}

// Parse reads a rules file.
func Parse(t testing.TB, text string) *rules.Set {
	t.Helper()
	set, err := rules.Parse("rules.yaml", []byte(text))
	Must(t, err)
	return set
}

func (w *World) newGitHub(sim githubsim.Config, client gh.Config) {
	t := w.T
	t.Helper()
	door := w.Net.Serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		open := w.deliver
		w.mu.Unlock()
		if !open {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		w.forward(rw, r)
	}))
	if sim.App == nil {
		sim.Hook = cmp.Or(sim.Hook, githubsim.OrganizationHook)
		client.Token = gh.StaticToken("ghs_x")
	}
	sim.WebhookURL, sim.Secret, sim.Client = door+"/webhooks/github", Secret, w.Net.Client()
	w.GitHub = githubsim.New(sim)
	t.Cleanup(w.GitHub.Close)
	w.GitHubURL = w.Net.Serve(t, w.GitHub)
	client.BaseURL, client.HTTPClient = w.GitHubURL, w.Net.Client()
	client.Called, client.Calling = w.Metrics.GitHub.Called, w.Metrics.GitHub.Calling
	t.Cleanup(client.HTTPClient.CloseIdleConnections)
	var err error
	w.Hub, err = gh.New(client)
	Must(t, err)
}

// NewNomad gives the world another Nomad, from the next Start on.
func (w *World) NewNomad(c nomadsim.Config) {
	t := w.T
	t.Helper()
	if w.NomadURL = w.config.Agent; w.NomadURL == "" {
		w.Nomad = w.newCluster(c, "node-1")
		front := http.Handler(w.Nomad)
		if w.config.Front != nil {
			front = w.config.Front(front)
		}
		w.NomadURL = w.Net.Serve(t, front)
	}
	specs, err := jobspecs.Load(w.config.Jobspecs)
	Must(t, err)
	log, dial := cmp.Or(w.config.Logger, slog.New(slog.DiscardHandler)), w.config.Dial
	if dial == nil {
		dial = w.Net.Dial
	}
	if to := dial; w.config.Agent != "" { // it lives on, and its connections with it
		dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := to(ctx, network, addr)
			if err == nil {
				t.Cleanup(func() { _ = conn.Close() })
			}
			return conn, err
		}
	}
	cluster, err := nomad.New(nomad.Config{Jobspecs: specs, Logger: log, API: &api.Config{Address: w.NomadURL}, Dial: dial, Called: w.Metrics.Nomad.Called, Calling: w.Metrics.Nomad.Calling})
	Must(t, err)
	w.Client = capacity.New(cluster)
	client := &http.Client{Transport: &http.Transport{DialContext: dial}}
	t.Cleanup(client.CloseIdleConnections)
	w.API, err = api.NewClient(&api.Config{Address: w.NomadURL, HttpClient: client})
	Must(t, err)
}

func (w *World) newCluster(c nomadsim.Config, node string) *nomadsim.Server {
	if c.Nodes == nil {
		c.Nodes = []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: node, Kernel: "linux", Arch: "amd64", Cores: 64, MemoryMB: 256 << 10})}
	}
	c.Run, c.Namespaces, c.Client = w.task, []string{"elsewhere"}, w.Net.Client()
	sim := nomadsim.New(c)
	w.T.Cleanup(sim.Close)
	return sim
}

// Region federates the simulated Nomad with another region, which has one node if the
// configuration has none: NAME-1.
func (w *World) Region(c nomadsim.Config) *nomadsim.Server {
	w.T.Helper()
	sim := w.newCluster(c, c.Region+"-1")
	w.Nomad.Join(sim)
	return sim
}

func (w *World) task(ctx context.Context, t nomadsim.Task) int {
	w.mu.Lock()
	w.starts = append(w.starts, t.JobID)
	w.mu.Unlock()
	if w.Run == nil {
		return w.Connect(ctx, t)
	}
	return w.Run(ctx, t)
}

// Connect does what the task of a runner that claims does: it serves one job, and returns its exit code.
func (w *World) Connect(ctx context.Context, t nomadsim.Task) int {
	jit := strings.TrimSpace(t.Artifacts["secrets/runner.jit"])
	if jit == "" && t.Env["NOMAD_META_SWITCHYARD_WARM"] == "true" {
		var ok bool
		if jit, ok = w.wait(ctx, t); !ok {
			return 1
		}
	}
	if jit == "" {
		return 0
	}
	return githubsim.ExitCode(w.GitHub.Connect(ctx, jit))
}

// wait waits at the claim, as the script of a built-in jobspec does; false: it was refused.
func (w *World) wait(ctx context.Context, t nomadsim.Task) (jit string, ok bool) {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.Env["NOMAD_META_SWITCHYARD_CLAIM_URL"]+"?wait", nil)
		if err != nil {
			return "", false
		}
		req.Header.Set("Authorization", "Bearer "+t.Env["NOMAD_META_SWITCHYARD_CLAIM_TOKEN"])
		status, body := 0, ""
		if resp, err := w.Net.Once().Do(req); err == nil {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil {
				status, body = resp.StatusCode, string(b)
			}
		}
		switch status {
		case http.StatusOK:
			return strings.TrimSpace(body), true
		case http.StatusAccepted:
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
			return "", false
		default:
			if !router.Pause(ctx, cmp.Or(w.Again, 5*time.Second)) {
				return "", false
			}
		}
		if ctx.Err() != nil {
			return "", false
		}
	}
}

func (w *World) forward(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	addr := w.Addr
	w.mu.Unlock()
	req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+addr+r.URL.Path, r.Body)
	if err != nil {
		w.T.Error(err)
		return
	}
	w.mu.Lock()
	if w.alter != nil {
		w.alter(r.Header)
	}
	w.mu.Unlock()
	req.Header, req.ContentLength = r.Header, r.ContentLength // a body of no known length is one of few at a time
	resp, err := w.Net.Once().Do(req)
	if err != nil {
		rw.WriteHeader(http.StatusBadGateway)
		return
	}
	resp.Body.Close()
	rw.WriteHeader(resp.StatusCode)
}

// Deliveries sets whether GitHub's deliveries arrive.
func (w *World) Deliveries(arrive bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deliver = arrive
}

// Alter has the headers of GitHub's deliveries changed on their way from now on; nil: no longer.
func (w *World) Alter(change func(http.Header)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alter = change
}

// Started returns the Nomad jobs that started a task, in order.
func (w *World) Started() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.starts...)
}

// Start runs a router, after change, until the test or w.Stop ends it. Its Tick is 1 s in a bubble
// of testing/synctest, and 20 ms outside.
func (w *World) Start(change ...func(*server.Config)) {
	t := w.T
	t.Helper()
	log := cmp.Or(w.config.Logger, slog.New(slog.NewTextHandler(t.Output(), nil)))
	c := server.Config{
		Store: w.config.Store, Nomad: w.config.Nomad, GitHub: w.config.GitHub, Rules: w.Rules,
		Webhook: func(receive func(context.Context, router.Delivery) error) (http.Handler, error) {
			w.Receive = receive
			return webhook.Handler(webhook.Config{Secrets: []router.Secret{Secret}, Logger: log, Counted: w.Metrics.Delivered}, receive)
		},
		Listen: w.Addr, AdminListen: "127.0.0.1:0", NetListen: w.Net.Listen, Metrics: w.Metrics, Logger: log, Tick: 20 * time.Millisecond,
	}
	if time.Now().Year() == 2000 { // in a bubble, where minutes pass at once, and each tick reads the database
		c.Tick = time.Second
	}
	if c.Nomad == nil {
		c.Nomad = w.Client
	}
	if c.GitHub == nil {
		c.GitHub = w.Hub
	}
	closes := func() error { return nil }
	if c.Store == nil {
		w.Store = storetest.Open(t, w.Database)
		c.Store, closes = w.Store, w.Store.Close
	}
	for _, f := range change {
		f(&c)
	}
	wire := w.config.New
	if wire == nil {
		wire = func(_ *World, c server.Config) (*server.App, error) { return server.New(c) }
	}
	app, err := wire(w, c)
	Must(t, err)
	w.mu.Lock()
	w.App, w.Addr = app, app.Addr()
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	w.Stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if err := closes(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.Stop)
}

// Queue queues a job of one second with these labels on GitHub.
func (w *World) Queue(labels ...string) int64 {
	w.T.Helper()
	return w.GitHub.Queue(w.T.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: labels, Duration: time.Second})
}

// Await waits until ok holds for a job in the database.
func (w *World) Await(id int64, ok func(router.Job) bool) router.Job {
	w.T.Helper()
	return AwaitJob(w.T, w.Store, id, ok)
}

// Runners returns the runners of a job, by try.
func (w *World) Runners(id int64) []router.Runner {
	w.T.Helper()
	list, err := w.Store.Runners(w.T.Context(), id)
	Must(w.T, err)
	return list
}

// Gone reports whether a Nomad job has ended.
func (w *World) Gone(id string) bool {
	j, _, err := w.API.Jobs().Info(id, nil)
	return err != nil || *j.Status == "dead"
}

// Claim asks the router for a runner's configuration, as its allocation would.
func (w *World) Claim(token router.Secret) (status int, body string) {
	w.T.Helper()
	req, err := http.NewRequestWithContext(w.T.Context(), http.MethodGet, "http://"+w.App.Addr()+router.ClaimPath, nil)
	Must(w.T, err)
	req.Header.Set("Authorization", "Bearer "+string(token))
	resp, err := w.Net.Once().Do(req)
	Must(w.T, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	Must(w.T, err)
	return resp.StatusCode, string(b)
}

// AwaitJob waits until ok holds for a job in st.
func AwaitJob(t testing.TB, st interface {
	Job(context.Context, int64) (router.Job, error)
	Timeline(context.Context, int64) ([]router.Event, error)
}, id int64, ok func(router.Job) bool,
) (j router.Job) {
	t.Helper()
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("job %d is %s (%q), err %v", id, j.State, j.Reason, err)
			events, _ := st.Timeline(context.WithoutCancel(t.Context()), id)
			for _, e := range events {
				t.Logf("%+v", e)
			}
		}
	}()
	Eventually(t, fmt.Sprintf("the expected state of job %d", id), func() bool {
		j, err = st.Job(t.Context(), id)
		return err == nil && ok(j)
	})
	return j
}

// Must fails the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// In returns the condition that a job is in this state.
func In(s router.JobState) func(router.Job) bool {
	return func(j router.Job) bool { return j.State == s }
}

// Eventually polls until ok, at growing intervals, and fails the test after a minute.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	pause, deadline := 2*time.Millisecond, time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(pause)
		pause = min(pause*5/4, 50*time.Millisecond)
	}
}
