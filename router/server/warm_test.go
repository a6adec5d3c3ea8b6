package server_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

const warmRule = `
rules:
  - name: linux
    jobspec: docker-linux
    warm: { idle: 1 }
`

// awaitWarm waits until so many warm runners wait at the claim, and returns them.
func awaitWarm(w *routertest.World, n int) (ready []router.WarmRunner) {
	w.T.Helper()
	eventually(w.T, "so many warm runners wait", func() bool {
		all, err := w.Store.WarmRunners(w.T.Context())
		must(w.T, err)
		ready = nil
		for _, one := range all {
			if one.State == router.WarmReady && !one.Doubted {
				ready = append(ready, one)
			}
		}
		return len(ready) == n
	})
	return ready
}

// prepares has the tasks of runners take 20 s until they ask for their configuration.
func prepares(w *routertest.World) {
	w.Run = func(ctx context.Context, task nomadsim.Task) int {
		time.Sleep(20 * time.Second)
		return w.Connect(ctx, task)
	}
}

// A job gets a warm runner at once, and another one is started behind it.
func TestAJobGetsAWarmRunner(t *testing.T) { bubble(t, testAJobGetsAWarmRunner) }
func testAJobGetsAWarmRunner(t *testing.T) {
	w := newWorld(t, warmRule)
	prepares(w)
	w.Start()
	first := awaitWarm(w, 1)[0]
	if got := w.GitHub.Runners(); len(got) != 0 {
		t.Errorf("GitHub knows %v before there is a job", got)
	}
	time.Sleep(2 * time.Minute) // its claim is a long poll, which it repeats
	if again := awaitWarm(w, 1)[0]; again.ID != first.ID {
		t.Errorf("later %s waits, want %s", again.ID, first.ID)
	}

	began := time.Now()
	id := w.Queue("self-hosted", "linux")
	w.Await(id, in(router.Running))
	if took := time.Since(began); took >= 20*time.Second {
		t.Errorf("the job runs after %s, as if its runner had been started for it", took)
	}
	runners := w.Runners(id)
	if len(runners) != 1 || runners[0].NomadJob != first.ID || !router.IsNameOf(runners[0].Name, runners[0].ID) {
		t.Errorf("the job has the runners %+v, want the warm one", runners)
	}
	if second := awaitWarm(w, 1)[0]; second.ID == first.ID {
		t.Error("no other runner is started behind it")
	}
	w.Await(id, in(router.Completed))
	eventually(t, "the runner's Nomad job ended", func() bool { return !w.Runners(id)[0].EndedAt.IsZero() })
	if n := len(w.Started()); n != 2 {
		t.Errorf("%d Nomad jobs were started, want 2", n)
	}
}

// While a new database is filled, the token of a warm runner is known as well as any.
func TestAWarmRunnerOfANewDatabase(t *testing.T) { bubble(t, testAWarmRunnerOfANewDatabase) }
func testAWarmRunnerOfANewDatabase(t *testing.T) {
	w := newWorld(t, warmRule)
	w.Start()
	began := time.Now()
	awaitWarm(w, 1)
	if took := time.Since(began); took >= 5*time.Second {
		t.Errorf("it came to the claim after %s", took)
	}
}

// When the rules change what a warm runner is, another takes its place; when they keep none, it is stopped.
func TestWarmRunnersFollowTheRules(t *testing.T) { bubble(t, testWarmRunnersFollowTheRules) }
func testWarmRunnersFollowTheRules(t *testing.T) {
	w := newWorld(t, warmRule)
	w.Start()
	first := awaitWarm(w, 1)[0]
	reload := func(rule string) { w.App.Reload(routertest.Parse(t, machine+rule), router.RulesVersion{Hash: rule}) }
	reload(warmRule + "    time_limit: 1h\n") // which is not a matter of its placement
	time.Sleep(time.Minute)
	if got := awaitWarm(w, 1)[0]; got.ID != first.ID {
		t.Error("a warm runner is replaced by its equal")
	}
	reload(warmRule + "    resources: { memory: 8GiB }\n")
	eventually(t, "the first one is gone", func() bool { return w.Gone(first.ID) })
	second := awaitWarm(w, 1)[0]
	if second.ID == first.ID || second.Asked.MemoryMB != 8<<10 {
		t.Errorf("now %+v waits", second)
	}
	id := w.Queue("self-hosted", "linux")
	w.Await(id, in(router.Completed))
	if got := w.Runners(id)[0].NomadJob; got != second.ID {
		t.Errorf("the job ran on %s, want %s", got, second.ID)
	}
	reload(plainRule)
	eventually(t, "none is left", func() bool { return len(left(w)) == 0 })
}

// left returns the Nomad jobs of ours that have not ended.
func left(w *routertest.World) (ids []string) {
	w.T.Helper()
	list, _, err := w.API.Jobs().PrefixList("gha-")
	must(w.T, err)
	for _, j := range list {
		if j.Status != "dead" {
			ids = append(ids, j.ID)
		}
	}
	return ids
}

// The clock of the tests begins on a Saturday, at midnight UTC.
func TestWarmRunnersKeepTheirHours(t *testing.T) { bubble(t, testWarmRunnersKeepTheirHours) }
func testWarmRunnersKeepTheirHours(t *testing.T) {
	w := newWorld(t, `
rules:
  - name: linux
    jobspec: docker-linux
    warm:
      - { idle: 1, when: "Sat 00:10-00:20" }
      - { idle: 2, when: "00:15-00:25" }
`)
	w.Start(func(c *server.Config) { c.Tick = time.Second })
	for _, tt := range []struct {
		after time.Duration
		want  int
	}{{time.Minute, 0}, {10 * time.Minute, 1}, {5 * time.Minute, 2}, {5 * time.Minute, 2}, {5 * time.Minute, 0}} {
		time.Sleep(tt.after)
		if got := awaitWarm(w, tt.want); len(got) != tt.want || len(left(w)) != tt.want {
			t.Errorf("at %s %d wait, and Nomad has %v", time.Now().UTC().Format(time.TimeOnly), len(got), left(w))
		}
	}
}

// A runner that Nomad does not stop at first held its node once.
func TestAWarmRunnersHoursAreCountedOnce(t *testing.T) {
	bubble(t, testAWarmRunnersHoursAreCountedOnce)
}
func testAWarmRunnersHoursAreCountedOnce(t *testing.T) {
	var away atomic.Bool
	w := routertest.New(t, routertest.Config{
		Rules: machine + "rules:\n  - { name: linux, jobspec: docker-linux, warm: { idle: 1, when: \"00:00-00:10\" } }\n", Network: &network,
		Front: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if away.Load() && r.Method == http.MethodDelete {
					http.Error(rw, "no leader", http.StatusInternalServerError)
					return
				}
				next.ServeHTTP(rw, r)
			})
		},
	})
	w.Start(func(c *server.Config) { c.Tick = time.Second })
	awaitWarm(w, 1)
	away.Store(true)
	time.Sleep(20 * time.Minute)
	away.Store(false)
	eventually(t, "its Nomad job is stopped", func() bool { return len(left(w)) == 0 })
	time.Sleep(time.Minute)
	m := regexp.MustCompile(`switchyard_warm_held_seconds_total\{rule="linux"\} (\S+)`).FindStringSubmatch(scrape(t, w.App))
	if m == nil {
		t.Fatal("nothing is counted")
	}
	if held, err := strconv.ParseFloat(m[1], 64); err != nil || held < 500 || held > 601 {
		t.Errorf("it held its node for %s s, want 10 minutes", m[1])
	}
}

// As many runners as max, and no more, are there while jobs run; free ones are stopped never too late.
func TestWarmRunnersKeepToTheirMax(t *testing.T) { bubble(t, testWarmRunnersKeepToTheirMax) }
func testWarmRunnersKeepToTheirMax(t *testing.T) {
	w := newWorld(t, `
rules:
  - name: linux
    jobspec: docker-linux
    warm: { idle: 2, max: 3 }
`)
	w.Start()
	awaitWarm(w, 2)
	var ids []int64
	for range 2 {
		id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Minute})
		w.Await(id, in(router.Running))
		ids = append(ids, id)
	}
	awaitWarm(w, 1)
	time.Sleep(30 * time.Second)
	if got := left(w); len(got) != 3 {
		t.Errorf("Nomad has %v, want 3", got)
	}
	for _, id := range ids {
		w.Await(id, in(router.Completed))
	}
	awaitWarm(w, 2)
}

// A warm runner leaves a node that drains, and another is started elsewhere.
func TestAWarmRunnerLeavesANodeThatDrains(t *testing.T) {
	bubble(t, testAWarmRunnerLeavesANodeThatDrains)
}
func testAWarmRunnerLeavesANodeThatDrains(t *testing.T) {
	node := func(name string) *api.Node {
		return nomadsim.NewNode(nomadsim.Machine{Name: name, Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 8 << 10})
	}
	w := routertest.New(t, routertest.Config{Network: &network, Cluster: nomadsim.Config{Nodes: []*api.Node{node("a"), node("b")}}, Rules: machine + warmRule})
	w.Start()
	first := awaitWarm(w, 1)[0]
	must(t, w.Nomad.DrainNode(first.Node))
	eventually(t, "it has ended", func() bool { return w.Gone(first.ID) })
	if second := awaitWarm(w, 1)[0]; second.Node == first.Node {
		t.Errorf("another was started on node %s", second.Node)
	}
	eventually(t, "one is left", func() bool { return len(left(w)) == 1 })
}

// longestPause is the longest that package warm waits until it starts another.
const longestPause = 10 * time.Minute

// Warm runners that fail are started less and less often, and Now says which, why, and what to do,
// until that is over.
func TestWarmRunnersThatKeepFailingAreATrouble(t *testing.T) {
	t.Parallel()
	node := func(memory int) nomadsim.Config {
		return nomadsim.Config{Nodes: []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: "a", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: memory})}}
	}
	const rule = "rules:\n  - { name: linux, jobspec: docker-linux, warm: { idle: 2 }, resources: { memory: 2GiB } }\n"
	var refuses atomic.Bool
	for _, tt := range []struct {
		name           string
		cluster        nomadsim.Config
		rules          string
		run            func(w *routertest.World) func(context.Context, nomadsim.Task) int // nil: it runs well
		refuse         bool
		least, most    int // that Nomad is asked for in 20 minutes
		cause          router.Cause
		what, said, do string
		mended         string // by which rules; "": by those
	}{
		{
			"they end", node(8 << 10), rule, func(*routertest.World) func(context.Context, nomadsim.Task) int {
				return func(context.Context, nomadsim.Task) int { return 1 }
			}, false,
			8, 18, router.CauseWarmFails, "warm runners of rule linux keep failing", "rule linux: its Nomad job ended before a job took it: ", "nomad job status gha-warm-", "",
		},
		{
			"they come to the claim, and end", node(8 << 10), rule, func(w *routertest.World) func(context.Context, nomadsim.Task) int {
				return func(ctx context.Context, task nomadsim.Task) int {
					ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
					defer cancel()
					w.Connect(ctx, task)
					return 1
				}
			}, false,
			8, 18, router.CauseWarmFails, "warm runners of rule linux keep failing", "rule linux: its Nomad job ended before a job took it: ", "correct the jobspec", "",
		},
		{
			"Nomad refuses them", node(8 << 10), rule, nil, true,
			8, 18, router.CauseWarmFails, "warm runners of rule linux keep failing", "rule linux: Nomad could not take it: ", "submit-job", "",
		},
		{
			"no node fits", node(8 << 10), rule[:len(rule)-3] + ", constraints: ['${meta.zone} = nowhere'] }\n", nil, false,
			8, 18, router.CauseWarmFails, "warm runners of rule linux keep failing", "meta.zone", "add a node that fits", rule,
		},
		{
			"the nodes are full", node(3 << 10), rule, nil, false,
			8, 18, router.CauseWarmNoRoom, "no node is free for the warm runners of rule linux", "rule linux: Nomad has no node for it: ", "keep fewer", strings.Replace(rule, "idle: 2", "idle: 1", 1),
		},
		{
			"they verify their job", node(8 << 10), rule[:len(rule)-3] + ", runner: { verify: true } }\n", nil, false,
			0, 0, router.CauseWarmFails, "warm runners of rule linux keep failing", "rule linux: its runner has verify", "correct the labels of warm", rule,
		},
	} {
		virtual(t, tt.name, func(t *testing.T) {
			var asked atomic.Int32
			w := routertest.New(t, routertest.Config{Rules: machine + tt.rules, Network: &network, Cluster: tt.cluster, Front: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPut && r.URL.Path == "/v1/jobs" {
						if asked.Add(1); refuses.Load() {
							http.Error(rw, "Permission denied", http.StatusForbidden)
							return
						}
					}
					next.ServeHTTP(rw, r)
				})
			}})
			trouble := func() router.Trouble {
				time.Sleep(2 * time.Second) // in which an older answer may be shown
				for _, tr := range w.App.Status(nil).Troubles {
					if tr.Cause == router.CauseWarmFails || tr.Cause == router.CauseWarmNoRoom {
						return tr
					}
				}
				return router.Trouble{}
			}
			if tt.run != nil {
				w.Run = tt.run(w)
			}
			refuses.Store(tt.refuse)
			w.Start(func(c *server.Config) { c.Tick = time.Second })
			time.Sleep(20 * time.Minute)
			if n := int(asked.Load()); n < tt.least || n > tt.most {
				t.Errorf("%d were asked for in 20 minutes, want %d to %d", n, tt.least, tt.most)
			}
			tr := trouble()
			if tr.Cause != tt.cause || !strings.HasPrefix(tr.What, tt.what) || !strings.Contains(tr.Said, tt.said) || !strings.Contains(tr.Fix, tt.do) || len(tr.Rules) != 1 || tr.Rules[0] != "linux" {
				t.Errorf("the trouble is %+v", tr)
			}
			shows(t, w.App, `switchyard_trouble{cause="`+string(tt.cause)+`",repository="",rule="linux"} 1`)
			w.Run = nil
			refuses.Store(false)
			mended := cmp.Or(tt.mended, tt.rules)
			if tt.mended != "" {
				w.App.Reload(routertest.Parse(t, machine+mended), router.RulesVersion{Hash: "mended"})
			}
			time.Sleep(longestPause)
			awaitWarm(w, 1+strings.Count(mended, "idle: 2"))
			time.Sleep(2 * time.Minute)
			if tr := trouble(); tr.Cause != "" {
				t.Errorf("when all wait the trouble is still %+v", tr)
			}
		})
	}
}

// Whom it is not the leader's turn to serve sees the same.
func TestAllReplicasShowWarmRunnersThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, warmRule)
		o := &others{joined: make(chan router.Member, 1), told: make(chan string, 100)}
		w.Start(func(c *server.Config) { c.Replicas, c.Name = o, "this" })
		m := <-o.joined
		m.Seen([]router.Replica{{Name: "this", Self: true}, {Name: "other", Leads: true, Leading: &router.Leading{Epoch: 3, Warm: []router.WarmTrouble{{Rule: "linux", Since: time.Now(), Why: "its image is gone"}}}}})
		time.Sleep(2 * time.Second)
		if s := w.App.Status(nil); !slices.ContainsFunc(s.Troubles, func(t router.Trouble) bool {
			return t.Cause == router.CauseWarmFails && strings.Contains(t.Said, "its image is gone")
		}) {
			t.Errorf("the status is %+v", s)
		}
	})
}

// A job that waits for a node which warm runners hold has it within 2 s; those on other nodes stay.
func TestWarmRunnersMakeRoom(t *testing.T) { bubble(t, testWarmRunnersMakeRoom) }
func testWarmRunnersMakeRoom(t *testing.T) {
	node := func(name, class string) *api.Node {
		return nomadsim.NewNode(nomadsim.Machine{Name: name, Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 8 << 10, Class: class})
	}
	w := routertest.New(t, routertest.Config{
		Network: &network, Cluster: nomadsim.Config{Nodes: []*api.Node{node("small", "small"), node("gpu", "gpu")}}, Rules: `
version: 1
labels: { self-hosted: {}, linux: {}, gpu: {}, large: { resources: { memory: 7GiB } } }
defaults: { resources: { cpu: 500, memory: 2GiB } }
rules:
  - name: gpu
    if: has("gpu")
    jobspec: docker-linux
    constraints: ['${node.class} = gpu']
    warm: { idle: 1 }
  - name: linux
    jobspec: docker-linux
    constraints: ['${node.class} = small']
    warm: { idle: 2 }
`})
	w.Start()
	ready := awaitWarm(w, 3)
	began := time.Now()
	id := w.Queue("self-hosted", "linux", "large")
	w.Await(id, in(router.Running))
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it waited %s for a node that warm runners held", took)
	}
	if got := w.Runners(id)[0].Node; got != "small" {
		t.Errorf("it runs on node %s", got)
	}
	for _, one := range ready {
		if gone := w.Gone(one.ID); gone != (one.Node == "small") {
			t.Errorf("the warm runner on node %s is stopped: %t", one.Node, gone)
		}
	}
	w.Await(id, in(router.Completed))
	time.Sleep(time.Minute) // then others take their places
	awaitWarm(w, 3)
}

// While the process ends at any step, no job takes a runner of another, and none is left behind.
func TestNoCrashLosesAWarmRunner(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 12; n++ {
		for _, after := range []bool{false, true} {
			virtual(t, fmt.Sprintf("step %d, after=%v", n, after), func(t *testing.T) {
				w := newWorld(t, warmRule)
				prepares(w)
				c := &crash{left: n, after: after}
				w.Start(func(cfg *server.Config) {
					cfg.Store, cfg.Nomad, cfg.Grace = warmCrash{crashingStore{w.Store, c}}, crashingNomad{w.Client, c}, time.Millisecond
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				id := int64(0)
				for ctx.Err() == nil && !c.gone() {
					if id == 0 && len(w.Started()) > 0 {
						time.Sleep(21 * time.Second) // it is ready, or the process has ended
						id = w.Queue("self-hosted", "linux")
					}
					time.Sleep(100 * time.Millisecond)
				}
				w.Stop()
				w.Start(func(cfg *server.Config) { cfg.Tick, cfg.Doubt = 5*time.Second, time.Second })
				if id == 0 {
					id = w.Queue("self-hosted", "linux")
				}
				if _, err := w.Store.Job(t.Context(), id); errors.Is(err, router.ErrNotFound) { // its delivery was refused, and the webhook is not known yet
					must(t, w.GitHub.Cancel(id))
				} else {
					time.Sleep(5 * time.Minute) // in which what is in doubt is found out
					w.Await(id, in(router.Completed))
				}
				ready := awaitWarm(w, 1)[0]
				for _, r := range w.Runners(id) {
					if r.NomadJob == ready.ID {
						t.Errorf("runner %s of a job that ended waits for another", r.NomadJob)
					}
				}
				eventually(t, "only the warm runner is left", func() bool { ids := left(w); return len(ids) == 1 && ids[0] == awaitWarm(w, 1)[0].ID })
				if got := w.GitHub.Runners(); len(got) != 0 {
					t.Errorf("GitHub has %+v", got)
				}
			})
		}
	}
}

// A warmCrash ends at steps of warm runners, too.
type warmCrash struct{ crashingStore }

func (s warmCrash) AddWarm(ctx context.Context, w router.WarmRunner, h [32]byte, now time.Time) error {
	return s.step(func() error { return s.Store.AddWarm(ctx, w, h, now) })
}

func (s warmCrash) WarmRegistered(ctx context.Context, id string, at router.NomadAt, h [32]byte) error {
	return s.step(func() error { return s.Store.WarmRegistered(ctx, id, at, h) })
}

func (s warmCrash) WarmReady(ctx context.Context, id string, now time.Time) error {
	return s.step(func() error { return s.Store.WarmReady(ctx, id, now) })
}

func (s warmCrash) StopWarm(ctx context.Context, id string, gone bool, reason string, now time.Time) (ok bool, err error) {
	err = s.step(func() error { ok, err = s.Store.StopWarm(ctx, id, gone, reason, now); return err })
	return ok, err
}

func (s warmCrash) EndWarm(ctx context.Context, id string) error {
	return s.step(func() error { return s.Store.EndWarm(ctx, id) })
}

func (s warmCrash) TakeWarm(ctx context.Context, r router.Runner, fit string, d *router.Decision, now time.Time) (w router.WarmRunner, err error) {
	err = s.step(func() error { w, err = s.Store.TakeWarm(ctx, r, fit, d, now); return err })
	if errors.Is(err, errCrashed) {
		return router.WarmRunner{}, err
	}
	return w, err
}
