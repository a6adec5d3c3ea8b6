package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/nomad"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/testnet"
	"switchyard/router/webhook"
	"switchyard/rules"
)

// firstStep is the Nomad job and the rules of the first step of rules/coming-from.md.
func firstStep(t *testing.T) (hcl, yaml string) {
	t.Helper()
	page, err := os.ReadFile("../../rules/coming-from.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind, after string) string {
		_, rest, _ := strings.Cut(string(page), after)
		m := regexp.MustCompile("(?s)```" + kind + "\n(.*?)```").FindStringSubmatch(rest)
		if m == nil {
			t.Fatalf("coming-from.md has no %s after %q", kind, after)
		}
		return m[1]
	}
	return block("hcl", "# Coming from"), block("yaml", "### First step")
}

// A yard is a router between a simulated GitHub and a Nomad whose runners bring
// their own registration, under a name of their own.
type yard struct {
	t      *testing.T
	github *githubsim.Server
	hub    *gh.Client
	nomad  *nomad.Client
	api    *api.Client
	store  *store.Store
	app    *server.App
	stop   func() // of the router

	listen func(network, addr string) (net.Listener, error)
	addr   string
	db     string
	set    *rules.Set
	starts func(task nomadsim.Task) error // what a task's driver says; nil: nothing
	names  atomic.Int64                   // of runners
	lists  atomic.Int64                   // listings of Nomad jobs
}

type yardConfig struct {
	nomadURL string
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	serve    func(http.Handler) string
	listen   func(network, addr string) (net.Listener, error)
	rules    string
	specs    string // directory; "": none
	change   func(*server.Config)
}

func newYard(t *testing.T, c yardConfig) *yard {
	t.Helper()
	y := &yard{t: t, listen: c.listen, db: filepath.Join(t.TempDir(), "yard.db")}
	set, err := rules.Parse("rules.yaml", []byte(c.rules))
	if err != nil {
		t.Fatal(err)
	}
	y.set = set
	free, err := c.listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	y.addr = free.Addr().String()
	_ = free.Close()
	client := func() *http.Client {
		h := &http.Client{Transport: &http.Transport{DialContext: c.dial}}
		t.Cleanup(h.CloseIdleConnections)
		return h
	}
	y.github = githubsim.New(githubsim.Config{
		Hook: githubsim.OrganizationHook, WebhookURL: "http://" + y.addr + "/webhooks/github", Secret: "0123456789abcdef", FirstID: 1000, Client: client(),
	})
	if y.hub, err = gh.New(gh.Config{Token: gh.StaticToken("ghs_x"), BaseURL: c.serve(y.github), HTTPClient: client()}); err != nil {
		t.Fatal(err)
	}
	specs, err := jobspecs.Load(c.specs)
	if err != nil {
		t.Fatal(err)
	}
	config := &api.Config{Address: c.nomadURL}
	if y.nomad, err = nomad.New(nomad.Config{Jobspecs: specs, Logger: slog.New(slog.DiscardHandler), API: config, Dial: c.dial, Called: y.called}); err != nil {
		t.Fatal(err)
	}
	if y.api, err = api.NewClient(&api.Config{Address: c.nomadURL, HttpClient: client()}); err != nil {
		t.Fatal(err)
	}
	y.start(c.change)
	t.Cleanup(func() {
		y.github.Close()
		y.stop()
	})
	return y
}

func (y *yard) called(call string, _ int, _ time.Duration) {
	if call == "list jobs" {
		y.lists.Add(1)
	}
}

// start starts a router, with the database that is there.
func (y *yard) start(change func(*server.Config)) {
	t := y.t
	t.Helper()
	st, err := store.Open(t.Context(), y.db)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c := server.Config{
		Store: st, Nomad: y.nomad, GitHub: y.hub, Rules: y.set, Listen: y.addr, AdminListen: "127.0.0.1:0", NetListen: y.listen, Logger: log,
		Tick: 2 * time.Minute, Feedback: time.Hour, // hours are cheap
		Webhook: func(receive func(context.Context, router.Delivery) error) (http.Handler, error) {
			return webhook.Handler(webhook.Config{Secrets: []router.Secret{"0123456789abcdef"}, Logger: log}, receive)
		},
	}
	if change != nil {
		change(&c)
	}
	app, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	y.store, y.app = st, app
	y.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}

// connect does what a runner does, from config.sh with a token of its own to the
// end of its job. It gives it a name that nobody knows.
func (y *yard) connect(ctx context.Context, labels ...string) error {
	reg, err := y.hub.RegistrationToken(ctx, router.ConfigRequest{Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web"}, Runner: rules.Runner{Scope: "repository", Group: 1}, Labels: labels})
	if err != nil {
		return err
	}
	config, err := y.github.Register(githubsim.Registration{
		URL: reg.URL, Token: string(reg.Token), Name: fmt.Sprintf("github-runner-x7k%d", y.names.Add(1)), Labels: labels,
	})
	if err != nil {
		return err
	}
	return y.github.Connect(ctx, config)
}

func (y *yard) queue(label string, takes time.Duration) int64 {
	y.t.Helper()
	return y.github.Queue(y.t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{label}, Duration: takes})
}

func (y *yard) runners(id int64) []router.Runner {
	y.t.Helper()
	list, err := y.store.Runners(y.t.Context(), id)
	if err != nil {
		y.t.Fatal(err)
	}
	return list
}

// runner awaits the first runner of a job as ok wants it.
func (y *yard) runner(id int64, what string, ok func(router.Runner) bool) (r router.Runner) {
	y.t.Helper()
	eventually(y.t, what, func() bool {
		list := y.runners(id)
		if len(list) > 0 {
			r = list[0]
		}
		return len(list) > 0 && ok(r)
	})
	return r
}

func (y *yard) status(nomadJob string) string {
	y.t.Helper()
	j, _, err := y.api.Jobs().Info(nomadJob, nil)
	if err != nil {
		y.t.Fatal(err)
	}
	return *j.Status
}

// unclaimed fails when the time lines of a job speak of a claim that never comes.
func (y *yard) unclaimed(id int64) {
	y.t.Helper()
	line, err := y.store.Timeline(y.t.Context(), id)
	if err != nil {
		y.t.Fatal(err)
	}
	said := ""
	for _, e := range line {
		said += e.What + "\n"
	}
	if strings.Contains(said, "claim") || strings.Contains(said, "configuration") || !strings.Contains(said, "brings its own registration") {
		y.t.Errorf("the time line says:\n%s", said)
	}
}

// newVirtualYard is a yard with a simulated Nomad, in virtual time. run is the task of
// each runner.
func newVirtualYard(t *testing.T, rulesYAML, specs string, run func(ctx context.Context, y *yard, task nomadsim.Task) int) (*yard, *nomadsim.Server) {
	t.Helper()
	net := new(testnet.Net)
	var y *yard
	sim := nomadsim.New(nomadsim.Config{
		Nodes:  []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: "node-1", Kernel: "linux", Arch: "amd64", Cores: 64, MemoryMB: 256 << 10})},
		Client: net.Client(),
		Run:    func(ctx context.Context, task nomadsim.Task) int { return run(ctx, y, task) },
		Start: func(_ context.Context, task nomadsim.Task) error {
			if y.starts == nil {
				return nil
			}
			return y.starts(task)
		},
	})
	t.Cleanup(sim.Close)
	serve := func(h http.Handler) string { return net.Serve(t, h) }
	y = newYard(t, yardConfig{nomadURL: serve(sim), dial: net.Dial, serve: serve, listen: net.Listen, rules: rulesYAML, specs: specs})
	return y, sim
}

// classic is a parameterized job as coming-from.md has it, for any driver.
func classic(driver string, config map[string]any) *api.Job {
	task := api.NewTask("runner", driver)
	task.Config = config
	group := api.NewTaskGroup("runner", 1).AddTask(task)
	job := api.NewBatchJob("github_runner", "github_runner", "global", 50).AddTaskGroup(group)
	job.Datacenters = []string{"*"}
	job.ParameterizedJob = &api.ParameterizedJobConfig{MetaRequired: []string{"GH_REPO_URL"}}
	return job
}

// ownSpec is a jobspec of an operator without the claim.
func ownSpec(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	err := os.WriteFile(filepath.Join(dir, "own.nomad.json"), []byte(`{"ID": "own", "Type": "batch", "TaskGroups": [
		{"Name": "g", "Tasks": [{"Name": "runner", "Driver": "raw_exec", "Config": {"command": "/opt/runner/start"}}]}]}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The ways to a runner that brings its own registration.
var ownWays = []struct {
	name  string
	rules func(t *testing.T) string
	specs func(t *testing.T) string
}{
	{"the first step of coming-from.md", func(t *testing.T) string { _, y := firstStep(t); return y }, func(*testing.T) string { return "" }},
	{"a jobspec without the claim", func(*testing.T) string {
		return "version: 1\nscope: has(\"nomad\")\nrules:\n  - { name: own, jobspec: own, time_limit: 1h }\n"
	}, ownSpec},
}

// eachOwn runs a test in virtual time for each of the ways. A runner starts when
// it is let, and is stopped by nobody unless stops says so.
func eachOwn(t *testing.T, run func(ctx context.Context, y *yard, task nomadsim.Task) int, test func(t *testing.T, y *yard, sim *nomadsim.Server)) {
	for _, way := range ownWays {
		t.Run(way.name, func(t *testing.T) {
			yaml, specs := way.rules(t), way.specs(t)
			synctest.Test(t, func(t *testing.T) {
				y, sim := newVirtualYard(t, yaml, specs, run)
				if _, _, err := y.api.Jobs().Register(classic("docker", nil), nil); err != nil {
					t.Fatal(err)
				}
				test(t, y, sim)
			})
		})
	}
}

func TestARunnerOfItsOwnRegistrationIsLetBe(t *testing.T) {
	let := make(chan struct{}, 1)
	var interrupted, starts atomic.Int64
	run := func(ctx context.Context, y *yard, _ nomadsim.Task) int {
		starts.Add(1)
		for {
			select {
			case <-ctx.Done():
				interrupted.Add(1)
				return 130
			case <-time.After(time.Second):
			}
			if len(let) > 0 {
				<-let
				break
			}
		}
		if err := y.connect(ctx, "nomad"); err != nil {
			y.t.Error(err)
			return 1
		}
		time.Sleep(time.Minute) // to clean up
		return 0
	}
	eachOwn(t, run, func(t *testing.T, y *yard, _ *nomadsim.Server) {
		interrupted.Store(0)
		starts.Store(0)
		id := y.queue("nomad", 100*time.Minute)
		r := y.runner(id, "its task runs", func(r router.Runner) bool { return strings.Contains(r.Reason, "its task runs") })
		alive := func(when string, state router.RunnerState) {
			t.Helper()
			list := y.runners(id)
			if len(list) != 1 || list[0].State != state || y.status(r.NomadJob) != "running" || interrupted.Load() != 0 || starts.Load() != 1 {
				t.Fatalf("%s: runners %+v, %d started, %d stopped; want the one %s", when, list, starts.Load(), interrupted.Load(), state)
			}
		}
		time.Sleep(2 * time.Hour)
		alive("after hours without a job", router.RunnerDispatched)
		let <- struct{}{}
		awaitJob(t, y.store, id, in(router.Running))
		time.Sleep(90 * time.Minute) // past the time limit, if there is one
		alive("while GitHub says that the job runs", router.RunnerBusy)
		time.Sleep(10 * time.Minute)
		awaitJob(t, y.store, id, in(router.Completed))
		y.runner(id, "its Nomad job ended", func(r router.Runner) bool { return !r.EndedAt.IsZero() })
		time.Sleep(30 * time.Minute)
		list := y.runners(id)
		if len(list) != 1 || list[0].State != router.RunnerFinished || interrupted.Load() != 0 || starts.Load() != 1 {
			t.Errorf("runners %+v, %d started, %d stopped; want one that finished", list, starts.Load(), interrupted.Load())
		}
		if j, _ := y.github.Job(id); j.Conclusion != "success" {
			t.Errorf("the job ended as %q", j.Conclusion)
		}
		y.unclaimed(id)
	})
}

// stays is a runner that waits until it is stopped, which interrupted counts.
func stays(interrupted *atomic.Int64) func(context.Context, *yard, nomadsim.Task) int {
	return func(ctx context.Context, _ *yard, _ nomadsim.Task) int {
		<-ctx.Done()
		interrupted.Add(1)
		return 130
	}
}

func TestOfACancelledJobOnlyARunnerThatHasNotStartedIsStopped(t *testing.T) {
	var interrupted atomic.Int64
	eachOwn(t, stays(&interrupted), func(t *testing.T, y *yard, _ *nomadsim.Server) {
		interrupted.Store(0)
		id := y.queue("nomad", time.Minute)
		started := y.runner(id, "its task runs", func(r router.Runner) bool { return strings.Contains(r.Reason, "its task runs") })
		filler := classic("docker", nil)
		filler.ID, filler.ParameterizedJob = new("filler"), nil
		filler.TaskGroups[0].Tasks[0].Resources = &api.Resources{MemoryMB: new(256<<10 - 500)}
		if _, _, err := y.api.Jobs().Register(filler, nil); err != nil {
			t.Fatal(err)
		}
		other := y.queue("nomad", time.Minute)
		waits := y.runner(other, "it waits for a node", func(r router.Runner) bool { return r.Unplaced != nil })
		for _, j := range []int64{id, other} {
			if err := y.github.Cancel(j); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		if y.status(started.NomadJob) != "running" || interrupted.Load() != 0 || y.status(waits.NomadJob) != "dead" {
			t.Errorf("the one that runs is %s, the other %s; %d interrupted", y.status(started.NomadJob), y.status(waits.NomadJob), interrupted.Load())
		}
		if got := y.runners(other)[0]; got.State != router.RunnerStopped || got.EndedAt.IsZero() {
			t.Errorf("the one that waited is %+v, want it stopped", got)
		}

		// Not by an operator either, but by force.
		var conflict *router.ConflictError
		if err := y.app.StopRunner(t.Context(), started.ID, false); !errors.As(err, &conflict) || !strings.Contains(conflict.Reason, "its own registration") {
			t.Errorf("StopRunner = %v, want a conflict", err)
		}
		if err := y.app.StopRunner(t.Context(), started.ID, true); err != nil {
			t.Error(err)
		}
		y.runner(id, "it is stopped", func(r router.Runner) bool { return !r.EndedAt.IsZero() && r.State.Final() })
	})
}

func TestARunnerOfItsOwnRegistrationThatEndsWithoutTheJobIsReplaced(t *testing.T) {
	var starts atomic.Int64
	run := func(ctx context.Context, y *yard, _ nomadsim.Task) int {
		if starts.Add(1) < 3 {
			return 7
		}
		if err := y.connect(ctx, "nomad"); err != nil {
			return 1
		}
		return 0
	}
	eachOwn(t, run, func(t *testing.T, y *yard, _ *nomadsim.Server) {
		starts.Store(0)
		id := y.queue("nomad", time.Minute)
		time.Sleep(5 * time.Minute)
		j := awaitJob(t, y.store, id, in(router.Completed))
		if list := y.runners(id); j.Try != 3 || len(list) != 3 || list[0].State != router.RunnerLost || list[2].State != router.RunnerFinished {
			t.Errorf("it was served at try %d, by %+v", j.Try, list)
		}
		line, err := y.store.Timeline(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(line, func(e router.Event) bool {
			return e.JobID == id && e.State == string(router.Retrying) && strings.Contains(e.What, "Exit Code: 7") && strings.Contains(e.What, "brings its own registration")
		}) {
			t.Errorf("the time line does not say why: %+v", line)
		}
		y.unclaimed(id)
	})
}

// GitHub gives each of two jobs to the runner that was started for the other.
func TestRunnersOfTheirOwnRegistrationMayChangeJobs(t *testing.T) {
	var starts, interrupted atomic.Int64
	run := func(ctx context.Context, y *yard, _ nomadsim.Task) int {
		if starts.Add(1) == 1 { // the first one is slow
			time.Sleep(10 * time.Minute)
		}
		if err := y.connect(ctx, "nomad"); err != nil {
			interrupted.Add(1)
			return 1
		}
		return 0
	}
	eachOwn(t, run, func(t *testing.T, y *yard, _ *nomadsim.Server) {
		starts.Store(0)
		interrupted.Store(0)
		one := y.queue("nomad", 20*time.Minute)
		y.runner(one, "its task runs", func(r router.Runner) bool { return strings.Contains(r.Reason, "its task runs") })
		other := y.queue("nomad", time.Hour)
		time.Sleep(2 * time.Hour)
		for _, id := range []int64{one, other} {
			j := awaitJob(t, y.store, id, in(router.Completed))
			if list := y.runners(id); j.Try != 1 || j.Conclusion != "success" || len(list) != 1 || list[0].State != router.RunnerFinished || list[0].EndedAt.IsZero() {
				t.Errorf("job %d ended as %q at try %d, with %+v", id, j.Conclusion, j.Try, list)
			}
		}
		if starts.Load() != 2 || interrupted.Load() != 0 {
			t.Errorf("%d started, %d were interrupted", starts.Load(), interrupted.Load())
		}
	})
}

func TestWithTheDatabaseDeletedRunnersOfTheirOwnRegistrationAreTakenUp(t *testing.T) {
	var starts, interrupted atomic.Int64
	run := func(ctx context.Context, y *yard, _ nomadsim.Task) int {
		starts.Add(1)
		if err := y.connect(ctx, "nomad"); err != nil {
			interrupted.Add(1)
			return 1
		}
		return 0
	}
	eachOwn(t, run, func(t *testing.T, y *yard, _ *nomadsim.Server) {
		starts.Store(0)
		interrupted.Store(0)
		id := y.queue("nomad", 2*time.Hour)
		awaitJob(t, y.store, id, in(router.Running))
		was := y.runner(id, "it is busy", func(r router.Runner) bool { return r.State == router.RunnerBusy })
		y.stop()
		for _, suffix := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(y.db + suffix)
		}
		y.start(nil)
		for _, d := range y.github.Deliveries() { // as a full look at GitHub finds them
			if _, err := y.github.Redeliver(d.ID); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		got := y.runner(id, "it is known again", func(r router.Runner) bool { return r.State == router.RunnerBusy })
		if !got.Own || got.NomadJob != was.NomadJob {
			t.Errorf("the runner is %+v, and was %+v", got, was)
		}
		time.Sleep(2 * time.Hour)
		awaitJob(t, y.store, id, in(router.Completed))
		if list := y.runners(id); len(list) != 1 || list[0].State != router.RunnerFinished || list[0].EndedAt.IsZero() || starts.Load() != 1 || interrupted.Load() != 0 {
			t.Errorf("runners %+v, %d started, %d interrupted", list, starts.Load(), interrupted.Load())
		}
	})
}

// The first step on a real Nomad, when there is one, with the job as the page has
// it but for its driver and its secret.
func TestTheFirstStepOnARealNomad(t *testing.T) {
	addr := nomadtest.Agent(t)
	if addr == "" {
		t.Skip("no nomad on PATH")
	}
	serve := func(h http.Handler) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	var mu sync.Mutex
	var conns []net.Conn // to the agent, which outlives the test
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			conns = append(conns, c)
		}
		return c, err
	}
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	hcl, yaml := firstStep(t)
	y := newYard(t, yardConfig{
		nomadURL: addr, dial: dial, serve: serve, listen: net.Listen, rules: yaml,
		change: func(c *server.Config) { // what would be done after minutes and hours is done at once
			c.Tick, c.Sweep, c.Doubt, c.Idle = 20*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond, time.Millisecond
		},
	})
	job, err := y.api.Jobs().ParseHCL(hcl, true)
	if err != nil {
		t.Fatal(err)
	}
	ends := filepath.Join(t.TempDir(), "ends")
	task := job.TaskGroups[0].Tasks[0]
	task.Driver, task.Templates = "raw_exec", nil
	task.Config = map[string]any{"command": "/bin/sh", "args": []string{"-c", "until test -e " + ends + "; do sleep 0.1; done"}}
	task.Resources.CPU, task.Resources.MemoryMB = new(50), new(32)
	if _, _, err := y.api.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	purge := func(id string) {
		t.Cleanup(func() { _, _, _ = y.api.Jobs().Deregister(id, true, nil) })
	}
	purge(*job.ID)

	id := y.queue("nomad", 2*time.Second)
	r := y.runner(id, "its task runs", func(r router.Runner) bool { return strings.Contains(r.Reason, "its task runs") })
	purge(r.NomadJob)
	swept := func(what string) { // in some passes
		t.Helper()
		for now, want := y.lists.Load(), y.lists.Load()+10; now < want; now = y.lists.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		if list := y.runners(id); len(list) != 1 || y.status(r.NomadJob) != "running" {
			t.Fatalf("%s: runners %+v, want the one, which runs", what, list)
		}
	}
	swept("waits for a job")
	done := make(chan error, 1)
	go func() { done <- y.connect(t.Context(), "nomad") }()
	awaitJob(t, y.store, id, in(router.Running))
	y.runner(id, "it is presumed to have the job", func(r router.Runner) bool { return r.State == router.RunnerBusy })
	swept("has the job")
	if err := <-done; err != nil {
		t.Error(err)
	}
	awaitJob(t, y.store, id, in(router.Completed))
	swept("its job has ended")
	if err := os.WriteFile(ends, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	last := y.runner(id, "its end is known", func(r router.Runner) bool { return !r.EndedAt.IsZero() })
	children, _, err := y.api.Jobs().List(&api.QueryOptions{Prefix: *job.ID + "/"})
	if err != nil || len(children) != 1 || len(y.runners(id)) != 1 || last.State != router.RunnerFinished {
		t.Errorf("Nomad has %d children, %v; the runner is %+v", len(children), err, last)
	}
	y.unclaimed(id)
}
