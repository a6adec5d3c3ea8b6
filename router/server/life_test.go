package server_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
	"switchyard/rules"
)

const machine = `
version: 1
labels: { self-hosted: {}, linux: {} }
`

// newWorld makes one with one Linux node, without a router.
func newWorld(t *testing.T, rulesYAML string) *routertest.World {
	t.Helper()
	return routertest.New(t, routertest.Config{
		Rules: machine + rulesYAML, Network: &network, Hub: githubsim.Config{FirstID: 1000, Groups: map[int64]string{1: "Default", 7: "gpu"}},
	})
}

const plainRule = `
rules:
  - name: linux
    jobspec: docker-linux
`

func TestAPlacementAndAnEndAreOnTheTimeline(t *testing.T) {
	bubble(t, testAPlacementAndAnEndAreOnTheTimeline)
}
func testAPlacementAndAnEndAreOnTheTimeline(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start()
	id := w.Queue("self-hosted", "linux")
	w.Await(id, in(router.Completed))
	eventually(t, "the runner's Nomad job ended", func() bool { return !w.Runners(id)[0].EndedAt.IsZero() })
	r := w.Runners(id)[0]
	if r.Node != "node-1" || r.PlacedAt.IsZero() || r.State != router.RunnerFinished {
		t.Errorf("the runner is %+v, want it finished on node-1", r)
	}
	line, err := w.Store.Timeline(t.Context(), id)
	must(t, err)
	said := map[router.Source]bool{}
	for _, e := range line {
		said[e.Source] = true
	}
	if !said[router.SourceNomad] || !said[router.SourceWebhook] || !said[router.SourceRunner] {
		t.Errorf("the timeline has the sources %v, want Nomad, the webhook and the runner: %+v", said, line)
	}
}

// Each runner fails before it claims: at once, and with Nomad's words.
func TestARunnerThatFailsIsReplacedAtOnce(t *testing.T) {
	bubble(t, testARunnerThatFailsIsReplacedAtOnce)
}
func testARunnerThatFailsIsReplacedAtOnce(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start(func(c *server.Config) { c.PublicURL = "http://127.0.0.1:1" }) // where nobody is
	id := w.Queue("self-hosted", "linux")
	w.Await(id, func(j router.Job) bool { return j.Try >= 3 })
	first := w.Runners(id)[0]
	if first.State != router.RunnerLost || !strings.Contains(first.Reason, "its runner did not ask http://127.0.0.1:1 for its configuration") || !strings.Contains(first.Reason, ": failed") {
		t.Errorf("the first runner is %s: %s; want it lost, with Nomad's words", first.State, first.Reason)
	}
}

const fallbackRule = `
rules:
  - name: linux
    jobspec: docker-linux
    constraints: ['${meta.zone} = nowhere']
    fallback:
      - { after: 1s, constraints: ['${attr.kernel.name} = linux'] }
`

func TestARunnerWithoutANodeFallsBack(t *testing.T) {
	bubble(t, testARunnerWithoutANodeFallsBack)
}
func testARunnerWithoutANodeFallsBack(t *testing.T) {
	w := newWorld(t, fallbackRule)
	w.Start()
	id := w.Queue("self-hosted", "linux")
	j := w.Await(id, func(j router.Job) bool { return strings.Contains(j.Reason, "no node") })
	if !strings.Contains(j.Reason, "; falls back at ") {
		t.Errorf("reason = %q, want why it waits, and until when", j.Reason)
	}
	j = w.Await(id, in(router.Completed))
	if j.Fallback != 1 || j.Try != 2 {
		t.Errorf("it was served with fallback %d at try %d, want 1 and 2", j.Fallback, j.Try)
	}
	list := w.Runners(id)
	if len(list) != 2 || list[0].State != router.RunnerStopped || !w.Gone(list[0].NomadJob) {
		t.Errorf("runners %+v, want the first stopped, on Nomad too", list)
	}
	if got := w.Started(); len(got) != 1 || got[0] != list[1].NomadJob {
		t.Errorf("started %v, want the second alone", got)
	}
}

const limitRule = `
rules:
  - name: linux
    jobspec: docker-linux
    time_limit: 1m
`

// quick has the router doubt soon.
func quick(c *server.Config) {
	c.Sweep, c.Doubt, c.Idle = 20*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond
}

func TestAJobIsStoppedAtItsTimeLimit(t *testing.T) { bubble(t, testAJobIsStoppedAtItsTimeLimit) }
func testAJobIsStoppedAtItsTimeLimit(t *testing.T) {
	w := newWorld(t, limitRule)
	w.Start(slowly, func(c *server.Config) { c.Sweep, c.Doubt = 5*time.Second, 4*time.Second })
	id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Hour})
	w.Await(id, in(router.Running))
	time.Sleep(time.Minute)
	w.Await(id, in(router.Completed))
	eventually(t, "the runner's Nomad job ended", func() bool { return w.Gone(w.Runners(id)[0].NomadJob) })
	line, err := w.Store.Timeline(t.Context(), id)
	must(t, err)
	said := map[bool]bool{} // of the job's, of the runner's
	for _, e := range line {
		if strings.Contains(e.What, "ran for longer than its rule's time limit of 1m") {
			said[e.RunnerID != ""] = true
		}
	}
	if !said[false] || !said[true] {
		t.Errorf("the timelines do not say why: %+v", line)
	}
}

func TestAJobWhoseEndGotLostIsAskedFor(t *testing.T) {
	bubble(t, testAJobWhoseEndGotLostIsAskedFor)
}
func testAJobWhoseEndGotLostIsAskedFor(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start(func(c *server.Config) {
		quick(c)
		c.Idle = time.Hour // however slow the machine is, its runner is in time
	})
	id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: 300 * time.Millisecond})
	w.Await(id, in(router.Running))
	w.Deliveries(false)
	if j := w.Await(id, in(router.Completed)); j.Conclusion != "success" || j.Try != 1 {
		t.Errorf("it ended as %q at try %d, want success at the first", j.Conclusion, j.Try)
	}
}

// A runner that is configured and alive, but that GitHub does not know.
func TestAGhostIsReplaced(t *testing.T) { bubble(t, testAGhostIsReplaced) }
func testAGhostIsReplaced(t *testing.T) {
	w := newWorld(t, plainRule)
	ghost := true
	w.Run = func(ctx context.Context, task nomadsim.Task) int {
		if ghost = ghost && task.JobID == "gha-1001-1"; ghost {
			<-ctx.Done()
			return 1
		}
		return w.Connect(ctx, task)
	}
	w.Start(quick)
	id := w.Queue("self-hosted", "linux")
	awaitOnline(w, id)
	r := w.Runners(id)[0]
	must(t, w.Hub.RemoveRunner(t.Context(), r.Target, r.GitHubID))
	w.Await(id, in(router.Completed))
	list := w.Runners(id)
	stopped := list[0].State == router.RunnerStopped && strings.Contains(list[0].Reason, "GitHub no longer knows it")
	lost := list[0].State == router.RunnerLost && strings.Contains(list[0].Reason, "ended before GitHub gave the runner a job: killed: its Nomad job was stopped") // Nomad said so first
	if !stopped && !lost || !w.Gone(list[0].NomadJob) {
		t.Errorf("the ghost is %s: %s; want it stopped, on Nomad too", list[0].State, list[0].Reason)
	}
}

// awaitOnline waits until the first runner of a job is online.
func awaitOnline(w *routertest.World, id int64) {
	w.T.Helper()
	eventually(w.T, "its runner is online", func() bool {
		list := w.Runners(id)
		return len(list) > 0 && list[0].State == router.RunnerOnline
	})
}

// Its job was cancelled, and nobody said so.
func TestAnIdleRunnerIsRemoved(t *testing.T) { bubble(t, testAnIdleRunnerIsRemoved) }
func testAnIdleRunnerIsRemoved(t *testing.T) {
	w := newWorld(t, plainRule)
	connect := make(chan struct{})
	w.Run = func(ctx context.Context, task nomadsim.Task) int {
		<-connect
		_ = w.GitHub.Connect(ctx, strings.TrimSpace(task.Artifacts["secrets/runner.jit"]))
		return 0
	}
	w.Start(quick)
	id := w.Queue("self-hosted", "linux")
	awaitOnline(w, id)
	w.Deliveries(false)
	must(t, w.GitHub.Cancel(id))
	close(connect)
	w.Await(id, in(router.Completed))
	eventually(t, "the runner is stopped", func() bool {
		r := w.Runners(id)[0]
		return r.State == router.RunnerStopped && w.Gone(r.NomadJob)
	})
	if list := w.Runners(id); len(list) != 1 {
		t.Errorf("runners %+v, want one", list)
	}
}

// haltingNomad fails to stop, at first.
type haltingNomad struct {
	router.Nomad
	mu    sync.Mutex
	fails int
	log   []string
}

func (n *haltingNomad) note(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = append(n.log, what)
}

func (n *haltingNomad) Stop(ctx context.Context, r router.Runner) error {
	n.mu.Lock()
	n.fails--
	failing := n.fails >= 0
	n.mu.Unlock()
	if failing {
		return context.DeadlineExceeded
	}
	n.note("stop " + r.ID)
	return n.Nomad.Stop(ctx, r)
}

func (n *haltingNomad) Start(ctx context.Context, r router.StartRequest) (router.Started, error) {
	n.note("start " + r.Runner.ID)
	return n.Nomad.Start(ctx, r)
}

func TestAFallbackStartsWhenTheFirstRunnerIsStopped(t *testing.T) {
	bubble(t, testAFallbackStartsWhenTheFirstRunnerIsStopped)
}
func testAFallbackStartsWhenTheFirstRunnerIsStopped(t *testing.T) {
	w := newWorld(t, fallbackRule)
	n := &haltingNomad{Nomad: w.Client, fails: 3}
	w.Start(quick, func(c *server.Config) { c.Nomad = n })
	id := w.Queue("self-hosted", "linux")
	w.Await(id, in(router.Completed))
	n.mu.Lock()
	defer n.mu.Unlock()
	first, second := "gha-"+strconv.FormatInt(id, 10)+"-1", "gha-"+strconv.FormatInt(id, 10)+"-2"
	if diff := cmp.Diff([]string{"start " + first, "stop " + first, "start " + second}, n.log); diff != "" {
		t.Errorf("Nomad was asked for (-want +got):\n%s", diff)
	}
}

const onlyOneRule = `
rules:
  - name: linux
    jobspec: docker-linux
    resources: { cores: 64 }
`

// One job runs and another waits for its node when the database is deleted.
func TestWithTheDatabaseDeletedRunnersAreTakenUp(t *testing.T) {
	bubble(t, testWithTheDatabaseDeletedRunnersAreTakenUp)
}
func testWithTheDatabaseDeletedRunnersAreTakenUp(t *testing.T) {
	w := newWorld(t, onlyOneRule)
	end := make(chan struct{})
	w.Run = func(ctx context.Context, task nomadsim.Task) int {
		if task.JobID == "gha-1001-1" {
			go func() { <-end; _ = w.GitHub.Cancel(1001) }()
		}
		return w.Connect(ctx, task)
	}
	w.Start()
	runs := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Hour})
	w.Await(runs, in(router.Running))
	waits := w.Queue("self-hosted", "linux")
	w.Await(waits, func(j router.Job) bool { return strings.Contains(j.Reason, "no node") })
	name := w.Runners(runs)[0].Name
	w.Stop()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(w.Database + suffix)
	}

	w.Start(func(c *server.Config) { c.Sweep = 50 * time.Millisecond })
	for _, d := range w.GitHub.Deliveries() { // as a full sync with GitHub finds them
		must(t, errOf(w.GitHub.Redeliver(d.ID)))
	}
	w.Await(runs, in(router.Running))
	w.Await(waits, in(router.Dispatched))
	eventually(t, "the busy runner is known", func() bool {
		list := w.Runners(runs)
		return len(list) == 1 && list[0].State == router.RunnerBusy && list[0].Name == name
	})
	close(end)
	if j := w.Await(waits, in(router.Completed)); j.Try != 1 || j.Conclusion != "success" {
		t.Errorf("the one that waited ended as %q at try %d, want success at the first", j.Conclusion, j.Try)
	}
	w.Await(runs, in(router.Completed))
	if got := w.Started(); len(got) != 2 {
		t.Errorf("started %v, want one runner each", got)
	}
	eventually(t, "both runners are known to have ended", func() bool {
		one, other := w.Runners(runs), w.Runners(waits)
		return len(one) == 1 && !one[0].EndedAt.IsZero() && len(other) == 1 && !other[0].EndedAt.IsZero()
	})
}

// Another router may share the Nomad.
func TestAnotherRoutersRunnersAreLeftAlone(t *testing.T) {
	bubble(t, testAnotherRoutersRunnersAreLeftAlone)
}
func testAnotherRoutersRunnersAreLeftAlone(t *testing.T) {
	w := newWorld(t, onlyOneRule)
	w.Start()
	id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Hour})
	w.Await(id, in(router.Running))
	mine := w.Store
	other := newWorld(t, onlyOneRule)
	other.Client = w.Client
	n := &haltingNomad{Nomad: w.Client}
	other.Start(quick, func(c *server.Config) { c.Nomad = n })
	probe := other.Queue("ubuntu-latest")
	other.Await(probe, in(router.Ignored))
	time.Sleep(3 * time.Second) // some passes; that nothing happens is what is wanted
	if unknown, err := other.Store.UnknownRunners(t.Context(), []string{"gha-1001-1"}); err != nil || len(unknown) != 1 {
		t.Errorf("the other router took up a runner: %v, %v", unknown, err)
	}
	if j, err := mine.Job(t.Context(), id); err != nil || j.State != router.Running {
		t.Errorf("the job is %s, %v", j.State, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.log) != 0 {
		t.Errorf("the other router did %v", n.log)
	}
}

// stubbornGitHub does not remove a runner at first.
type stubbornGitHub struct {
	router.GitHub
	fails atomic.Int32
}

func (g *stubbornGitHub) RemoveRunner(ctx context.Context, t router.Target, id int64) error {
	if g.fails.Add(-1) >= 0 {
		return errors.New("502 Bad Gateway")
	}
	return g.GitHub.RemoveRunner(ctx, t, id)
}

func TestDeadRunnersAreRemovedFromGitHub(t *testing.T) {
	bubble(t, testDeadRunnersAreRemovedFromGitHub)
}
func testDeadRunnersAreRemovedFromGitHub(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Run = func(ctx context.Context, task nomadsim.Task) int {
		if task.JobID == "gha-1001-1" {
			return 1 // configured, and never seen
		}
		return w.Connect(ctx, task)
	}
	g := &stubbornGitHub{GitHub: w.Hub}
	g.fails.Store(1)
	w.Start(quick, func(c *server.Config) { c.GitHub = g })
	at := router.Target{Owner: "acme", Repo: "web"}
	id := w.Queue("self-hosted", "linux")
	// One is another's; of the other GitHub answered 502 and yet made it.
	for _, name := range []string{"gha-9-2-abcdef", "gha-1001-1-abcdef"} {
		if _, err := w.Hub.RunnerConfig(t.Context(), router.ConfigRequest{
			Repo: rules.Repo{Owner: "acme", Name: "web"}, Runner: rules.Runner{Scope: "repository", Group: "1"}, Name: name, Labels: []string{"self-hosted", "none"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	w.Await(id, in(router.Completed))
	name := w.Runners(id)[0].Name
	for _, name := range []string{name, "gha-1001-1-abcdef"} {
		eventually(t, "the dead runner "+name+" is gone from GitHub", func() bool {
			_, err := w.Hub.Runner(t.Context(), at, name)
			return errors.Is(err, router.ErrNotFound)
		})
	}
	if _, err := w.Hub.Runner(t.Context(), at, "gha-9-2-abcdef"); err != nil {
		t.Errorf("another's offline runner: %v, want it left alone", err)
	}
}

// askedNomad counts how often it is asked why a runner waits.
type askedNomad struct {
	router.Nomad
	asked atomic.Int32
}

func (n *askedNomad) Unplaced(ctx context.Context, j router.Job, r router.Runner) (*router.Unplaced, error) {
	n.asked.Add(1)
	return n.Nomad.Unplaced(ctx, j, r)
}

func TestACrowdThatWaitsIsExplainedByFewQuestions(t *testing.T) {
	bubble(t, testACrowdThatWaitsIsExplainedByFewQuestions)
}
func testACrowdThatWaitsIsExplainedByFewQuestions(t *testing.T) {
	w := routertest.New(t, routertest.Config{Network: &network, Rules: `
version: 1
labels: { self-hosted: {}, linux: {}, "run-*": {} }
rules:
  - name: linux
    jobspec: docker-linux
    constraints: ['${meta.zone} = nowhere']
`})
	n := &askedNomad{Nomad: w.Client}
	w.Start(func(c *server.Config) { c.Nomad = n })
	const jobs = 200
	ids := make([]int64, jobs)
	for i := range ids {
		ids[i] = w.Queue("self-hosted", "linux", fmt.Sprintf("run-%d", i)) // which asks nothing of Nomad
	}
	for _, id := range ids {
		j := w.Await(id, func(j router.Job) bool { return strings.Contains(j.Reason, "no node") })
		if !strings.Contains(j.Reason, "${meta.zone} = nowhere") {
			t.Fatalf("reason = %q, want the constraint", j.Reason)
		}
		if u := w.Runners(id)[0].Unplaced; u == nil || !u.Never {
			t.Fatalf("job %d waits because of %+v, want what says that it would for ever", id, u)
		}
	}
	if asked := n.asked.Load(); asked > jobs/4 {
		t.Errorf("Nomad was asked %d times about %d runners that ask the same of it", asked, jobs)
	}
}

// Nomad starts what it lost with a node again, if need be when there is a node
// again: but the runner's job has another one by then.
func TestARunnerThatIsLostWithItsNodeIsNotStartedAgain(t *testing.T) {
	for name, fails := range map[string]int{"Nomad is asked at once": 0, "Nomad could not be asked": 1} {
		virtual(t, name, func(t *testing.T) {
			w := newWorld(t, plainRule)
			w.Run = func(ctx context.Context, _ nomadsim.Task) int {
				<-ctx.Done() // configured, and never seen on GitHub
				return 1
			}
			n := &haltingNomad{Nomad: w.Client, fails: fails}
			var later atomic.Int64
			w.Start(quick, func(c *server.Config) {
				c.Nomad, c.Idle = n, time.Hour
				c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
			})
			id := w.Queue("self-hosted", "linux")
			awaitOnline(w, id)
			must(t, w.Nomad.FailNode("node-1"))
			w.Await(id, func(j router.Job) bool { return j.Try == 2 && j.State == router.Dispatched })
			if fails > 0 {
				eventually(t, "Nomad was asked to stop it", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.fails <= 0 })
				later.Store(int64(2 * time.Minute))
			}
			first := w.Runners(id)[0]
			eventually(t, "the first runner's Nomad job is stopped", func() bool { return w.Gone(first.NomadJob) })
			if first.State != router.RunnerLost || w.Gone(w.Runners(id)[1].NomadJob) {
				t.Errorf("runners are %+v, want the first lost and the second waiting", w.Runners(id))
			}
		})
	}
}
