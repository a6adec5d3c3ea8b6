package server_test

import (
	"context"
	"errors"
	"fmt"
	"net"
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

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
	"switchyard/router/routertest"
	"switchyard/router/server"
	"switchyard/router/testnet"
	"switchyard/rules"
)

// firstStep is the Nomad job and the rules of the first step of rules/coming-from.md.
func firstStep(t *testing.T) (hcl, yaml string) {
	t.Helper()
	page, err := os.ReadFile("../../rules/coming-from.md")
	must(t, err)
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

// A yard is a world whose runners bring their own registration, under a name of their own.
type yard struct {
	*routertest.World
	names atomic.Int64 // of runners
}

func newYard(t *testing.T, c routertest.Config, change ...func(*server.Config)) *yard {
	t.Helper()
	c.Hub.FirstID = 1000
	y := &yard{World: routertest.New(t, c)}
	y.Start(append([]func(*server.Config){hourly}, change...)...)
	return y
}

func hourly(c *server.Config) { c.Tick, c.Feedback = 2*time.Minute, time.Hour } // hours are cheap

// connect does what a runner does, from config.sh with a token of its own to the
// end of its job. It gives it a name that nobody knows.
func (y *yard) connect(ctx context.Context, labels ...string) error {
	reg, err := y.Hub.RegistrationToken(ctx, router.ConfigRequest{Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web"}, Runner: rules.Runner{Scope: "repository", Group: "1"}, Labels: labels})
	if err != nil {
		return err
	}
	config, err := y.GitHub.Register(githubsim.Registration{
		URL: reg.URL, Token: string(reg.Token), Name: fmt.Sprintf("github-runner-x7k%d", y.names.Add(1)), Labels: labels,
	})
	if err != nil {
		return err
	}
	return y.GitHub.Connect(ctx, config)
}

func (y *yard) queue(takes time.Duration) int64 {
	y.T.Helper()
	return y.GitHub.Queue(y.T.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"nomad"}, Duration: takes})
}

// runner awaits the first runner of a job as ok wants it.
func (y *yard) runner(id int64, what string, ok func(router.Runner) bool) (r router.Runner) {
	y.T.Helper()
	nomadtest.Await(y.T, what, func() bool {
		list := y.Runners(id)
		if len(list) > 0 {
			r = list[0]
		}
		return len(list) > 0 && r.NomadJob != "" && ok(r) // an event may overtake the record of the registration
	})
	return r
}

func (y *yard) status(nomadJob string) string {
	y.T.Helper()
	j, _, err := y.API.Jobs().Info(nomadJob, nil)
	must(y.T, err)
	return *j.Status
}

// unclaimed fails when the timelines of a job speak of a claim that never comes.
func (y *yard) unclaimed(id int64) {
	y.T.Helper()
	line, err := y.Store.Timeline(y.T.Context(), id)
	must(y.T, err)
	said := ""
	for _, e := range line {
		said += e.What + "\n"
	}
	if strings.Contains(said, "claim") || strings.Contains(said, "configuration") || !strings.Contains(said, "brings its own registration") {
		y.T.Errorf("the timeline says:\n%s", said)
	}
}

// newVirtualYard is a yard with a simulated Nomad. run is the task of each runner.
func newVirtualYard(t *testing.T, rulesYAML, specs string, run func(ctx context.Context, y *yard, task nomadsim.Task) int) *yard {
	t.Helper()
	y := newYard(t, routertest.Config{Rules: rulesYAML, Jobspecs: specs})
	y.Run = func(ctx context.Context, task nomadsim.Task) int { return run(ctx, y, task) }
	return y
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
	must(t, err)
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
func eachOwn(t *testing.T, run func(ctx context.Context, y *yard, task nomadsim.Task) int, test func(t *testing.T, y *yard)) {
	for _, way := range ownWays {
		t.Run(way.name, func(t *testing.T) {
			yaml, specs := way.rules(t), way.specs(t)
			synctest.Test(t, func(t *testing.T) {
				y := newVirtualYard(t, yaml, specs, run)
				if _, _, err := y.API.Jobs().Register(classic("docker", nil), nil); err != nil {
					t.Fatal(err)
				}
				test(t, y)
			})
		})
	}
}

func TestARunnerOfItsOwnRegistrationIsLeftAlone(t *testing.T) {
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
			y.T.Error(err)
			return 1
		}
		time.Sleep(time.Minute) // to clean up
		return 0
	}
	eachOwn(t, run, func(t *testing.T, y *yard) {
		interrupted.Store(0)
		starts.Store(0)
		id := y.queue(100 * time.Minute)
		r := y.runner(id, "its task runs", func(r router.Runner) bool { return strings.Contains(r.Reason, "its task runs") })
		alive := func(when string, state router.RunnerState) {
			t.Helper()
			list := y.Runners(id)
			if len(list) != 1 || list[0].State != state || y.status(r.NomadJob) != "running" || interrupted.Load() != 0 || starts.Load() != 1 {
				t.Fatalf("%s: runners %+v, %d started, %d stopped; want the one %s", when, list, starts.Load(), interrupted.Load(), state)
			}
		}
		time.Sleep(2 * time.Hour)
		alive("after hours without a job", router.RunnerDispatched)
		let <- struct{}{}
		routertest.AwaitJob(t, y.Store, id, in(router.Running))
		time.Sleep(90 * time.Minute) // past the time limit, if there is one
		alive("while GitHub says that the job runs", router.RunnerBusy)
		time.Sleep(10 * time.Minute)
		routertest.AwaitJob(t, y.Store, id, in(router.Completed))
		y.runner(id, "its Nomad job ended", func(r router.Runner) bool { return !r.EndedAt.IsZero() })
		time.Sleep(30 * time.Minute)
		list := y.Runners(id)
		if len(list) != 1 || list[0].State != router.RunnerFinished || interrupted.Load() != 0 || starts.Load() != 1 {
			t.Errorf("runners %+v, %d started, %d stopped; want one that finished", list, starts.Load(), interrupted.Load())
		}
		if j, _ := y.GitHub.Job(id); j.Conclusion != "success" {
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
	eachOwn(t, stays(&interrupted), func(t *testing.T, y *yard) {
		interrupted.Store(0)
		id := y.queue(time.Minute)
		started := y.runner(id, "its task runs", func(r router.Runner) bool { return strings.Contains(r.Reason, "its task runs") })
		filler := classic("docker", nil)
		filler.ID, filler.ParameterizedJob = new("filler"), nil
		filler.TaskGroups[0].Tasks[0].Resources = &api.Resources{MemoryMB: new(256<<10 - 500)}
		if _, _, err := y.API.Jobs().Register(filler, nil); err != nil {
			t.Fatal(err)
		}
		other := y.queue(time.Minute)
		waits := y.runner(other, "it waits for a node", func(r router.Runner) bool { return r.Unplaced != nil })
		for _, j := range []int64{id, other} {
			must(t, y.GitHub.Cancel(j))
		}
		time.Sleep(2 * time.Hour)
		if y.status(started.NomadJob) != "running" || interrupted.Load() != 0 || y.status(waits.NomadJob) != "dead" {
			t.Errorf("the one that runs is %s, the other %s; %d interrupted", y.status(started.NomadJob), y.status(waits.NomadJob), interrupted.Load())
		}
		if got := y.Runners(other)[0]; got.State != router.RunnerStopped || got.EndedAt.IsZero() {
			t.Errorf("the one that waited is %+v, want it stopped", got)
		}

		// Not by an operator either, but by force.
		var conflict *router.ConflictError
		if err := y.App.StopRunner(t.Context(), started.ID, false); !errors.As(err, &conflict) || !strings.Contains(conflict.Reason, "its own registration") {
			t.Errorf("StopRunner = %v, want a conflict", err)
		}
		if err := y.App.StopRunner(t.Context(), started.ID, true); err != nil {
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
	eachOwn(t, run, func(t *testing.T, y *yard) {
		starts.Store(0)
		id := y.queue(time.Minute)
		time.Sleep(5 * time.Minute)
		j := routertest.AwaitJob(t, y.Store, id, in(router.Completed))
		if list := y.Runners(id); j.Try != 3 || len(list) != 3 || list[0].State != router.RunnerLost || list[2].State != router.RunnerFinished {
			t.Errorf("it was served at try %d, by %+v", j.Try, list)
		}
		line, err := y.Store.Timeline(t.Context(), id)
		must(t, err)
		if !slices.ContainsFunc(line, func(e router.Event) bool {
			return e.JobID == id && e.State == string(router.Retrying) && strings.Contains(e.What, "Exit Code: 7") && strings.Contains(e.What, "brings its own registration")
		}) {
			t.Errorf("the timeline does not say why: %+v", line)
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
	eachOwn(t, run, func(t *testing.T, y *yard) {
		starts.Store(0)
		interrupted.Store(0)
		one := y.queue(20 * time.Minute)
		y.runner(one, "its task runs", func(r router.Runner) bool { return strings.Contains(r.Reason, "its task runs") })
		other := y.queue(time.Hour)
		time.Sleep(2 * time.Hour)
		for _, id := range []int64{one, other} {
			j := routertest.AwaitJob(t, y.Store, id, in(router.Completed))
			if list := y.Runners(id); j.Try != 1 || j.Conclusion != "success" || len(list) != 1 || list[0].State != router.RunnerFinished || list[0].EndedAt.IsZero() {
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
	eachOwn(t, run, func(t *testing.T, y *yard) {
		starts.Store(0)
		interrupted.Store(0)
		id := y.queue(2 * time.Hour)
		routertest.AwaitJob(t, y.Store, id, in(router.Running))
		was := y.runner(id, "it is busy", func(r router.Runner) bool { return r.State == router.RunnerBusy })
		y.Stop()
		for _, suffix := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(y.Database + suffix)
		}
		y.Start(hourly)
		for _, d := range y.GitHub.Deliveries() { // as a full sync with GitHub finds them
			must(t, errOf(y.GitHub.Redeliver(d.ID)))
		}
		time.Sleep(time.Hour)
		got := y.runner(id, "it is known again", func(r router.Runner) bool { return r.State == router.RunnerBusy })
		if !got.Own || got.NomadJob != was.NomadJob {
			t.Errorf("the runner is %+v, and was %+v", got, was)
		}
		time.Sleep(2 * time.Hour)
		routertest.AwaitJob(t, y.Store, id, in(router.Completed))
		if list := y.Runners(id); len(list) != 1 || list[0].State != router.RunnerFinished || list[0].EndedAt.IsZero() || starts.Load() != 1 || interrupted.Load() != 0 {
			t.Errorf("runners %+v, %d started, %d interrupted", list, starts.Load(), interrupted.Load())
		}
	})
}

// listingNomad counts how often its jobs are listed.
type listingNomad struct {
	router.Nomad
	lists atomic.Int64
}

func (n *listingNomad) Jobs(ctx context.Context, region string) ([]router.NomadJob, uint64, error) {
	n.lists.Add(1)
	return n.Nomad.Jobs(ctx, region)
}

// The first step on a real Nomad, when there is one, with the job as the page has
// it but for its driver and its secret.
func TestTheFirstStepOnARealNomad(t *testing.T) {
	addr := nomadtest.Agent(t)
	if addr == "" {
		t.Skip("no nomad on PATH")
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
	var n *listingNomad
	y := newYard(t, routertest.Config{Agent: addr, Dial: dial, Network: &testnet.Net{Loopback: true}, Rules: yaml}, func(c *server.Config) {
		n = &listingNomad{Nomad: c.Nomad}
		c.Nomad = n
		// What would be done after minutes and hours is done at once.
		c.Tick, c.Sweep, c.Doubt, c.Idle = 20*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond, time.Millisecond
	})
	job, err := y.API.Jobs().ParseHCL(hcl, true)
	must(t, err)
	ends := filepath.Join(t.TempDir(), "ends")
	task := job.TaskGroups[0].Tasks[0]
	task.Driver, task.Templates = "raw_exec", nil
	task.Config = map[string]any{"command": "/bin/sh", "args": []string{"-c", "until test -e " + ends + "; do sleep 0.1; done"}}
	task.Resources.CPU, task.Resources.MemoryMB = new(50), new(32)
	if _, _, err := y.API.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	purge := func(id string) {
		t.Cleanup(func() { _, _, _ = y.API.Jobs().Deregister(id, true, nil) })
	}
	purge(*job.ID)

	id := y.queue(2 * time.Second)
	r := y.runner(id, "its task runs", func(r router.Runner) bool { return strings.Contains(r.Reason, "its task runs") })
	purge(r.NomadJob)
	swept := func(what string) { // in some passes
		t.Helper()
		for want := n.lists.Load() + 10; n.lists.Load() < want; {
			time.Sleep(10 * time.Millisecond)
		}
		if list := y.Runners(id); len(list) != 1 || y.status(r.NomadJob) != "running" {
			t.Fatalf("%s: runners %+v, want the one, which runs", what, list)
		}
	}
	swept("waits for a job")
	done := make(chan error, 1)
	go func() { done <- y.connect(t.Context(), "nomad") }()
	routertest.AwaitJob(t, y.Store, id, in(router.Running))
	y.runner(id, "it is presumed to have the job", func(r router.Runner) bool { return r.State == router.RunnerBusy })
	swept("has the job")
	if err := <-done; err != nil {
		t.Error(err)
	}
	routertest.AwaitJob(t, y.Store, id, in(router.Completed))
	swept("its job has ended")
	must(t, os.WriteFile(ends, nil, 0o600))
	last := y.runner(id, "its end is known", func(r router.Runner) bool { return !r.EndedAt.IsZero() })
	children, _, err := y.API.Jobs().List(&api.QueryOptions{Prefix: *job.ID + "/"})
	if err != nil || len(children) != 1 || len(y.Runners(id)) != 1 || last.State != router.RunnerFinished {
		t.Errorf("Nomad has %d children, %v; the runner is %+v", len(children), err, last)
	}
	y.unclaimed(id)
}
