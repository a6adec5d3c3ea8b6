package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
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

const (
	ours   = `["self-hosted","linux"]`
	hosted = `"ubuntu-latest"`

	overflowRule = `
rules:
  - name: linux
    jobspec: docker-linux
    overflow: { after: 10m, variable: LINUX_RUNNER, to: '"ubuntu-latest"', back: '["self-hosted","linux"]' }
`
)

// An overflowWorld has one node, whose jobs last as long as they want.
type overflowWorld struct {
	*routertest.World
	t *testing.T
}

// newOverflowWorld starts with the variable of organization acme at back.
func newOverflowWorld(t *testing.T, change ...func(*routertest.Config)) *overflowWorld {
	c := routertest.Config{
		Rules: machine + overflowRule, Network: &network, Hub: githubsim.Config{FirstID: 1000},
		Cluster: nomadsim.Config{Nodes: []*api.Node{
			nomadsim.NewNode(nomadsim.Machine{Name: "node-1", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 4 << 10}),
		}},
	}
	for _, f := range change {
		f(&c)
	}
	w := &overflowWorld{routertest.New(t, c), t}
	w.GitHub.AddRepo(githubsim.Repo{Owner: "acme", Name: "web", Private: true})
	w.GitHub.SetVariable("acme", "", "LINUX_RUNNER", ours)
	return w
}

// run queues a job as a workflow does that has runs-on: ${{ fromJSON(vars.LINUX_RUNNER) }}.
func (w *overflowWorld) run(repo string, lasts time.Duration) int64 {
	w.t.Helper()
	value := w.GitHub.Variable("acme", repo, "LINUX_RUNNER")
	var labels []string
	if json.Unmarshal([]byte(value), &labels) != nil {
		var one string
		must(w.t, json.Unmarshal([]byte(value), &one))
		labels = []string{one}
	}
	return w.GitHub.Queue(w.t.Context(), githubsim.JobSpec{Owner: "acme", Repo: repo, Private: true, Labels: labels, Duration: lasts})
}

// fill gives the nodes all that they can run, and returns the job that waits.
func (w *overflowWorld) fill(repo string, lasts time.Duration) (waits int64) {
	w.t.Helper()
	for {
		id := w.run(repo, lasts)
		j := w.Await(id, func(j router.Job) bool { return j.State == router.Running || j.Cause == router.CauseNoNodeFree })
		if j.State != router.Running {
			return id
		}
	}
}

// value is what a workflow of a repository of acme reads.
func (w *overflowWorld) value(repo string) string {
	return w.GitHub.Variable("acme", repo, "LINUX_RUNNER")
}

// await waits until a workflow of a repository reads a value, at most for a while.
func (w *overflowWorld) await(repo, want string, most time.Duration) {
	w.t.Helper()
	for began := time.Now(); w.value(repo) != want; time.Sleep(time.Second) {
		if time.Since(began) > most {
			w.t.Fatalf("after %s %s still reads %s, want %s", most, repo, w.value(repo), want)
		}
	}
}

// holds checks that a workflow of a repository reads a value for as long as this.
func (w *overflowWorld) holds(repo, want string, long time.Duration) {
	w.t.Helper()
	for began := time.Now(); time.Since(began) < long; time.Sleep(5 * time.Second) {
		if got := w.value(repo); got != want {
			w.t.Fatalf("after %s %s reads %s, want %s", time.Since(began), repo, got, want)
		}
	}
}

// trouble returns the trouble with a cause; zero: there is none.
func (w *overflowWorld) trouble(cause router.Cause) router.Trouble {
	time.Sleep(2 * time.Second) // in which an older answer may be shown
	list := w.App.Status(nil).Troubles
	if i := slices.IndexFunc(list, func(t router.Trouble) bool { return t.Cause == cause }); i >= 0 {
		return list[i]
	}
	return router.Trouble{}
}

// audits returns what the audit trail has of variables, the oldest first.
func (w *overflowWorld) audits() (all []string) {
	list, err := w.Store.Audits(w.t.Context(), 0, 100)
	must(w.t, err)
	for _, a := range list {
		if a.Did == "overflow" {
			all = append(all, a.What+" "+a.Result)
		}
	}
	slices.Reverse(all)
	return all
}

// The story of the documentation: a fleet is full, new jobs go to GitHub's own runners, and come
// back when there is room.
func TestNewJobsRunElsewhereWhileARulesJobsWaitTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverflowWorld(t)
		w.Start(hourly)
		w.fill("web", 20*time.Minute)
		w.holds("web", ours, 9*time.Minute)
		w.await("web", hosted, 2*time.Minute)

		if j := w.run("web", time.Minute); w.Await(j, func(router.Job) bool { return true }).State != router.Ignored {
			w.Await(j, in(router.Ignored))
		}
		if s := w.trouble(router.CauseOverflow); s.Severity != router.Info || !strings.Contains(s.What, `new jobs of rule linux run elsewhere: LINUX_RUNNER is "ubuntu-latest"`) ||
			!strings.Contains(s.Said, "organization acme: a job has waited for 10m") {
			t.Errorf("Now shows %+v", s)
		}
		if s := w.App.Status(router.Scope{"beta/*"}); slices.ContainsFunc(s.Troubles, func(t router.Trouble) bool { return t.Cause == router.CauseOverflow }) {
			t.Error("somebody of another organization sees it")
		}
		if s := w.App.Status(router.Scope{"acme/api"}); !slices.ContainsFunc(s.Troubles, func(t router.Trouble) bool { return t.Cause == router.CauseOverflow }) {
			t.Error("somebody of the organization does not see it")
		}
		w.await("web", ours, 30*time.Minute) // the jobs have ended by then
		want := []string{
			`variable LINUX_RUNNER of organization acme rule linux: set to "ubuntu-latest": a job has waited for 10m`,
			`variable LINUX_RUNNER of organization acme rule linux: set back to ["self-hosted","linux"]: there is room again`,
		}
		if got := w.audits(); !slices.Equal(got, want) {
			t.Errorf("the audit trail has %q, want %q", got, want)
		}
		if s := w.trouble(router.CauseOverflow); s.Cause != "" {
			t.Errorf("Now still shows %+v", s)
		}
		time.Sleep(2 * time.Hour)
		if rows, err := w.Store.Overflows(t.Context()); err != nil || len(rows) != 0 {
			t.Errorf("it is remembered as %+v, %v", rows, err)
		}
	})
}

// A fleet that is away is not waited for; when it is back, so are the jobs.
func TestNewJobsRunElsewhereWhileTheFleetIsAway(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		away, back func(w *overflowWorld)
		why        string
	}{
		"no node": {
			func(w *overflowWorld) { must(w.t, w.Nomad.FailNode("node-1")) },
			func(w *overflowWorld) { must(w.t, w.Nomad.RestoreNode("node-1")) },
			"no node could serve a job for 1m",
		},
		"Nomad is silent": {
			func(w *overflowWorld) { w.Nomad.SetFault(nomadsim.Silent, 0) },
			func(w *overflowWorld) { w.Nomad.SetFault("", 0) },
			"Nomad has taken no runner for 1m",
		},
	} {
		virtual(t, name, func(t *testing.T) {
			w := newOverflowWorld(t)
			w.Start(hourly)
			tt.away(w)
			waits := w.run("web", time.Second)
			w.await("web", hosted, 3*time.Minute)
			if s := w.trouble(router.CauseOverflow); !strings.Contains(s.Said, tt.why) {
				t.Errorf("Now shows %+v, want %s", s, tt.why)
			}
			w.holds("web", hosted, 30*time.Minute)
			tt.back(w)
			w.Await(waits, in(router.Completed))
			w.await("web", ours, 7*time.Minute)
		})
	}
}

// A job that asks for what no node has does not send those of all others away.
func TestAJobThatNoNodeFitsDoesNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverflowWorld(t, func(c *routertest.Config) {
			c.Rules = strings.Replace(c.Rules, "linux: {}", "linux: {}, moon: { constraints: ['${meta.moon} is_set'] }", 1)
		})
		w.Start(hourly)
		w.Await(w.run("web", 2*time.Hour), in(router.Running))
		w.Await(w.Queue("self-hosted", "linux", "moon"), func(j router.Job) bool { return j.Cause == router.CauseNoNodeFits })
		w.holds("web", ours, time.Hour)
	})
}

// Somebody who changes the variable has the last word until the overflow is over.
func TestAVariableThatSomebodyChangesIsTheirs(t *testing.T) {
	t.Parallel()
	for name, theirs := range map[string]string{"to something else": `"large-runner"`, "back": ours, "to what is no JSON": "x\x1b[2J" + strings.Repeat("y", 10_000)} {
		virtual(t, name, func(t *testing.T) {
			w := newOverflowWorld(t)
			w.Start(hourly)
			w.fill("web", 40*time.Minute)
			w.await("web", hosted, 12*time.Minute)
			w.GitHub.SetVariable("acme", "", "LINUX_RUNNER", theirs)
			w.holds("web", theirs, 20*time.Minute)
			s := w.trouble(router.CauseOverflowLeft)
			if s.Severity != router.Info || !strings.Contains(s.Said, "somebody has set it to") || len(s.Said) > 300 || strings.ContainsRune(s.Said, '\x1b') {
				t.Errorf("Now shows %+v", s)
			}
			w.holds("web", theirs, 30*time.Minute)
			if s := w.trouble(router.CauseOverflowLeft); s.Cause != "" {
				t.Errorf("when no job waits any more, Now shows %+v", s)
			}
			if rows, err := w.Store.Overflows(t.Context()); err != nil || len(rows) != 0 {
				t.Errorf("it is remembered as %+v, %v", rows, err)
			}
		})
	}
}

// A variable that is not what the rule says it is, is not touched, whatever it is.
func TestAVariableThatIsNotBackIsNotSet(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ value, says string }{
		"another":         {`"large-runner"`, `it is "large-runner", and not what the rule says`},
		"the one already": {` "ubuntu-latest" `, "so it is not set back either"},
	} {
		virtual(t, name, func(t *testing.T) {
			w := newOverflowWorld(t)
			w.Start(hourly)
			w.fill("web", 30*time.Minute)
			w.GitHub.SetVariable("acme", "", "LINUX_RUNNER", tt.value)
			time.Sleep(11 * time.Minute)
			if s := w.trouble(router.CauseOverflowLeft); s.Severity != router.Info || !strings.Contains(s.Said, tt.says) || !strings.Contains(s.Fix, "set it to "+ours) {
				t.Errorf("Now shows %+v", s)
			}
			before := w.GitHub.Traffic().Requests
			w.holds("web", tt.value, 10*time.Minute)
			if n := w.GitHub.Traffic().Requests - before; n > 20 {
				t.Errorf("GitHub was asked %d times in ten minutes", n)
			}
			w.GitHub.SetVariable("acme", "", "LINUX_RUNNER", "[ \"self-hosted\", \"linux\" ]") // back, with blanks
			w.await("web", hosted, 6*time.Minute)
			w.await("web", ours, time.Hour)
		})
	}
}

// A variable is never made, and it is said which one is missing.
func TestAVariableThatIsMissingIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverflowWorld(t)
		w.Start(hourly)
		w.fill("web", 40*time.Minute)
		w.GitHub.RemoveVariable("acme", "", "LINUX_RUNNER")
		time.Sleep(12 * time.Minute)
		s := w.trouble(router.CauseOverflowFails)
		if s.Severity != router.Warning || !strings.Contains(s.Said, "there is no such variable") || !strings.Contains(s.Fix, "gh variable set LINUX_RUNNER --org acme --visibility all --body '"+ours+"'") {
			t.Errorf("Now shows %+v", s)
		}
		w.holds("web", "", 10*time.Minute)
		w.GitHub.SetVariable("acme", "web", "LINUX_RUNNER", ours)
		w.await("web", hosted, 6*time.Minute)
		w.GitHub.RemoveVariable("acme", "web", "LINUX_RUNNER") // and while it is set
		w.holds("web", "", time.Hour)
		if rows, err := w.Store.Overflows(t.Context()); err != nil || len(rows) != 0 {
			t.Errorf("it is remembered as %+v, %v", rows, err)
		}
	})
}

// The variable of a repository hides its organization's, as it does for workflows.
func TestTheVariableIsTheOneThatWorkflowsRead(t *testing.T) {
	t.Parallel()
	for scope, want := range map[string]struct{ web, api string }{
		"": {hosted, ours}, ", scope: repository": {hosted, ours}, ", scope: organization": {ours, hosted},
	} {
		virtual(t, "scope"+scope, func(t *testing.T) {
			w := newOverflowWorld(t, func(c *routertest.Config) {
				c.Rules = strings.Replace(c.Rules, "{ after: 10m", "{ after: 10m"+scope, 1)
			})
			w.GitHub.SetVariable("acme", "web", "linux_runner", ours)
			w.Start(hourly)
			w.fill("web", 30*time.Minute)
			time.Sleep(12 * time.Minute)
			if web, api := w.value("web"), w.value("api"); web != want.web || api != want.api {
				t.Errorf("web reads %s and api %s, want %s and %s", web, api, want.web, want.api)
			}
			if rows, err := w.Store.Overflows(t.Context()); err != nil || len(rows) != 1 {
				t.Errorf("set are %+v, %v", rows, err)
			}
			time.Sleep(time.Hour)
			if web, api := w.value("web"), w.value("api"); web != ours || api != ours {
				t.Errorf("afterwards web reads %s and api %s", web, api)
			}
		})
	}
}

// One variable of an organization serves all repositories whose workflows read it.
func TestAnOrganizationsVariableIsSetOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverflowWorld(t)
		w.Start(hourly)
		w.fill("web", 30*time.Minute)
		for i := range 30 {
			w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: fmt.Sprint("lib-", i), Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Minute})
		}
		w.await("web", hosted, 12*time.Minute)
		time.Sleep(5 * time.Minute)
		if rows, err := w.Store.Overflows(t.Context()); err != nil || len(rows) != 1 || len(w.audits()) != 1 {
			t.Errorf("set are %+v, %v; the audit trail has %q", rows, err, w.audits())
		}
		w.await("web", ours, 5*time.Hour)
	})
}

// A rule that no longer names the variable leaves nothing behind, whether it is running or not.
func TestAVariableThatNoRuleNamesIsSetBack(t *testing.T) {
	t.Parallel()
	for name, running := range map[string]bool{"while it runs": true, "while it does not": false} {
		virtual(t, name, func(t *testing.T) {
			w := newOverflowWorld(t)
			c := &crash{}
			w.Start(hourly, c.overflow)
			w.fill("web", 2*time.Hour)
			w.await("web", hosted, 12*time.Minute)
			without := routertest.Parse(t, machine+plainRule)
			if running {
				w.App.Reload(without, router.RulesVersion{})
			} else {
				w.kill(c)
				w.Rules = without
				w.Start(hourly)
			}
			w.await("web", ours, time.Minute)
			if got := w.audits(); !strings.HasSuffix(got[len(got)-1], "set back to "+ours+": no rule in force sets it") {
				t.Errorf("the audit trail has %q", got)
			}
			w.holds("web", ours, 30*time.Minute)
		})
	}
}

// overflow has the process end at a step of what it does about variables.
func (c *crash) overflow(config *server.Config) {
	config.Store, config.GitHub = overflowStore{config.Store, c}, overflowHub{config.GitHub, c}
}

type overflowStore struct {
	server.Store
	*crash
}

func (s overflowStore) RecordOverflow(ctx context.Context, o router.Overflow, a router.Audit) error {
	return s.step(func() error { return s.Store.RecordOverflow(ctx, o, a) })
}

type overflowHub struct {
	router.GitHub
	*crash
}

func (h overflowHub) Variable(ctx context.Context, v router.Variable) (value string, err error) {
	err = h.step(func() error { value, err = h.GitHub.Variable(ctx, v); return err })
	return value, err
}

func (h overflowHub) SetVariable(ctx context.Context, v router.Variable, value string) error {
	return h.step(func() error { return h.GitHub.SetVariable(ctx, v, value) })
}

// kill ends the server as kill -9 does.
func (w *overflowWorld) kill(c *crash) {
	c.mu.Lock()
	c.dead = true
	c.mu.Unlock()
	w.Stop()
}

// Wherever the process is killed, the next one goes on: the variable is set while jobs wait, and not
// for ever.
func TestAKilledServerLeavesNoVariableSet(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for step := 1; ; step++ {
			last := false
			virtual(t, fmt.Sprintf("step %d, after it: %v", step, after), func(t *testing.T) {
				w := newOverflowWorld(t)
				c := &crash{left: step, after: after}
				w.Start(hourly, c.overflow)
				waits := w.fill("web", 15*time.Minute)
				for began := time.Now(); !c.gone() && time.Since(began) < 2*time.Hour; {
					time.Sleep(5 * time.Second)
				}
				if last = !c.gone(); last {
					return
				}
				time.Sleep(time.Minute)
				w.kill(c)
				w.Start(hourly)
				if j, err := w.Store.Job(t.Context(), waits); err == nil && j.State == router.Dispatched {
					w.await("web", hosted, time.Minute)
				}
				w.await("web", ours, 2*time.Hour)
				w.holds("web", ours, 10*time.Minute)
				if rows, err := w.Store.Overflows(t.Context()); err != nil || slices.ContainsFunc(rows, func(o router.Overflow) bool { return o.State.On() }) {
					t.Errorf("it is remembered as %+v, %v", rows, err)
				}
			})
			if last || t.Failed() {
				if step < 8 {
					t.Errorf("there were %d steps", step)
				}
				break
			}
		}
	}
}

// A clean stop sets it back; the next start sets it again if jobs still wait.
func TestACleanStopSetsAVariableBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverflowWorld(t)
		w.Start(hourly)
		w.fill("web", 2*time.Hour)
		w.await("web", hosted, 12*time.Minute)
		w.Stop()
		if got := w.value("web"); got != ours {
			t.Fatalf("after a stop the variable is %s", got)
		}
		w.Start(hourly)
		w.await("web", hosted, time.Minute)
		if rows, err := w.Store.Overflows(t.Context()); err != nil || len(rows) != 1 || rows[0].Calm != 5*time.Minute {
			t.Errorf("a stop counts as having been set back for lack of need: %+v, %v", rows, err)
		}

		// GitHub does not answer: the stop takes no longer than it may, and the next start goes on.
		w.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: 500, Path: "/actions/variables"})
		began := time.Now()
		w.Stop()
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("the stop took %s", took)
		}
		w.GitHub.SetFaults(githubsim.Faults{})
		w.Start(hourly)
		w.holds("web", hosted, 10*time.Minute) // as jobs still wait
		w.await("web", ours, 5*time.Hour)
	})
}

// leads are replicas of which this one leads, as long as it runs.
type leads struct{ others func() []router.Replica }

func (l leads) Tell(context.Context, string) error { return nil }

func (l leads) Join(ctx context.Context, m router.Member) error {
	ended := make(chan error, 1)
	go func() { ended <- m.Lead(ctx) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		self := m.Facts()
		self.Self, self.Leads = true, true
		m.Seen(append(l.others(), self))
		select {
		case <-ended:
			return nil
		case <-tick.C:
		}
	}
}

// A replica that stops leaves the variable to the others, if there are any then.
func TestAReplicaThatStopsLeavesAVariableToTheOthers(t *testing.T) {
	t.Parallel()
	for name, alone := range map[string]bool{"others stay": false, "it is the last": true} {
		virtual(t, name, func(t *testing.T) {
			w := newOverflowWorld(t)
			var gone atomic.Bool
			w.Start(hourly, func(c *server.Config) {
				c.Replicas, c.Name = leads{func() []router.Replica {
					if gone.Load() {
						return nil
					}
					return []router.Replica{{Name: "other"}}
				}}, "this"
			})
			w.fill("web", 30*time.Minute)
			w.await("web", hosted, 12*time.Minute)
			gone.Store(alone) // they stop just as this one does
			w.Stop()
			if got := w.value("web"); (got == ours) != alone {
				t.Fatalf("after the stop the variable is %s", got)
			}
			w.Start(hourly) // as another leader
			w.await("web", hosted, time.Minute)
			w.await("web", ours, time.Hour)
		})
	}
}

// A leader that only loses the lead leaves the variable to the next.
func TestALeaderThatNoLongerLeadsLeavesAVariableAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverflowWorld(t)
		o := &others{joined: make(chan router.Member, 1), told: make(chan string, 1000)}
		w.Start(hourly, func(c *server.Config) { c.Replicas, c.Name = o, "this" })
		m := <-o.joined
		term := func(do func()) {
			ctx, end := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- m.Lead(ctx) }()
			do()
			end()
			must(t, <-ended)
		}
		term(func() {
			w.fill("web", 30*time.Minute)
			w.await("web", hosted, 12*time.Minute)
		})
		w.holds("web", hosted, time.Minute)
		if s := w.trouble(router.CauseOverflow); s.Cause != "" {
			t.Errorf("without a leader Now shows %+v", s)
		}
		term(func() {
			w.holds("web", hosted, 10*time.Minute)
			w.await("web", ours, 2*time.Hour)
		})
	})
}

// What the leader knows shows on the other replicas.
func TestAllReplicasShowWhatOverflows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverflowWorld(t)
		o := &others{joined: make(chan router.Member, 1), told: make(chan string, 100)}
		w.Start(hourly, func(c *server.Config) { c.Replicas, c.Name = o, "this" })
		m := <-o.joined
		m.Seen([]router.Replica{{Name: "this", Self: true}, {Name: "other", Leads: true, Leading: &router.Leading{Epoch: 3, Overflows: []router.OverflowStatus{{
			Overflow: router.Overflow{Variable: router.Variable{Owner: "acme", Name: "LINUX_RUNNER"}, Rule: "linux", To: hosted, State: router.OverflowSet, Why: "a job has waited for 10m"},
		}}}}})
		if s := w.trouble(router.CauseOverflow); !strings.Contains(s.Said, "a job has waited") {
			t.Errorf("Now shows %+v", s)
		}
	})
}

// Whatever GitHub answers costs time alone, and says what to do.
func TestAGitHubThatDoesNotSetAVariableIsAskedAgain(t *testing.T) {
	t.Parallel()
	for _, status := range []int{0, 403, 409, 422, 429, 500} { // 0: 500, HTML and 503 by turns, of which half are carried out
		virtual(t, fmt.Sprint(status), func(t *testing.T) {
			w := newOverflowWorld(t)
			w.Start(hourly)
			w.fill("web", 25*time.Minute)
			fails := githubsim.Faults{ErrorRate: 1, Status: status, Path: "/actions/variables"}
			w.GitHub.SetFaults(fails)
			time.Sleep(12 * time.Minute)
			s := w.trouble(router.CauseOverflowFails)
			if s.Severity != router.Warning || s.Fix == "" || !strings.Contains(s.Said, "acme") || status == 403 && !strings.Contains(s.Fix, "Variables (read)") {
				t.Errorf("Now shows %+v", s)
			}
			w.GitHub.SetFaults(githubsim.Faults{})
			w.await("web", hosted, 10*time.Minute)
			w.GitHub.SetFaults(fails)
			time.Sleep(time.Hour)
			if s := w.trouble(router.CauseOverflowFails); w.value("web") == hosted && s.Severity != router.Warning {
				t.Errorf("while it is not set back, Now shows %+v", s)
			}
			w.GitHub.SetFaults(githubsim.Faults{})
			w.await("web", ours, 10*time.Minute)
		})
	}
}

// Each time that it is set again soon, there must be room for longer.
func TestAVariableDoesNotFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOverflowWorld(t)
		w.Start(hourly)
		changes, last, calm := 0, ours, []time.Duration{}
		for began := time.Now(); time.Since(began) < 8*time.Hour; time.Sleep(time.Minute) {
			v := w.value("web")
			if v != last {
				last, changes = v, changes+1
				if rows, err := w.Store.Overflows(t.Context()); v == hosted && err == nil && len(rows) == 1 {
					calm = append(calm, rows[0].Calm)
				}
			}
			if v == ours { // more than the node can run
				w.run("web", 5*time.Minute)
			}
		}
		if len(calm) < 3 || calm[0] != 5*time.Minute || calm[1] != 10*time.Minute || calm[2] != 20*time.Minute || changes > 14 {
			t.Errorf("it was changed %d times in eight hours, and set until there was room for %v", changes, calm)
		}
	})
}
