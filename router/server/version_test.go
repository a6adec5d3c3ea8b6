package server_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

const versionRules = `version: 1
scope: has("nomad")
labels: { nomad: {}, old: {} }
rules:
  - { name: old, if: has("old"), jobspec: docker-linux, runner: { scope: organization }, limit: { running: 5 } }
  - { name: linux, jobspec: docker-linux, runner: { scope: organization } }
`

// A fleetYard is a yard in which the runners of the rule old have a version of their own.
type fleetYard struct {
	*yard
	version atomic.Value // string
}

func newFleetYard(t *testing.T, hub githubsim.Config) *fleetYard {
	y := &fleetYard{}
	y.version.Store("2.300.0")
	y.yard = newYard(t, routertest.Config{Rules: versionRules, Network: &network, Hub: hub, Cluster: nomadsim.Config{Run: func(ctx context.Context, task nomadsim.Task) int {
		version := ""
		if strings.Contains(task.Env["NOMAD_META_RUNNER_LABELS"], "old") {
			version = y.version.Load().(string)
		}
		jit := strings.TrimSpace(task.Artifacts["secrets/runner.jit"])
		if jit == "" {
			return 0
		}
		return githubsim.ExitCode(y.GitHub.ConnectAs(ctx, jit, version))
	}}}, inForce("one"))
	return y
}

// inForce sets the hash of the rules with which a server starts.
func inForce(hash string) func(*server.Config) {
	return func(c *server.Config) { c.RulesVersion.Hash = hash }
}

func (y *fleetYard) old(takes time.Duration) int64 {
	y.T.Helper()
	return y.GitHub.Queue(y.T.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"nomad", "old"}, Duration: takes})
}

// called returns how often GitHub was asked for what has this in its path.
func (y *fleetYard) called(path string) (n int) {
	y.T.Helper()
	families, err := y.Metrics.Registry().Gather()
	must(y.T, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "switchyard_github_requests_total" && strings.Contains(fmt.Sprint(m.GetLabel()), path) {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

func (y *fleetYard) trouble(cause router.Cause) (t router.Trouble) {
	for _, t := range y.App.Status(nil).Troubles {
		if t.Cause == cause {
			return t
		}
	}
	return t
}

// heldForVersion awaits a job that waits for newer runners.
func (y *fleetYard) heldForVersion(id int64) router.Job {
	y.T.Helper()
	var j router.Job
	for range 3 * 60 {
		time.Sleep(time.Minute)
		var err error
		j, err = y.Store.Job(y.T.Context(), id)
		must(y.T, err)
		if j.State == router.Held && j.Cause == router.CauseVersion {
			return j
		}
	}
	y.T.Fatalf("job %d is %s (%s): %s", id, j.State, j.Cause, j.Reason)
	return j
}

// GitHub refuses the runners of one rule, or leaves them idle, as they are too old: that rule
// starts two, and then no more until somebody has done something about it.
func TestARuleWhoseRunnersAreTooOldStartsTwoOfThem(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		refused bool
		says    string
	}{
		{"they exit with code 7", true, "ended with exit code 7, as GitHub no longer accepts the runner's version"},
		{"they wait for ever", false, "it gives none to runners of version 2.300.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				y := newFleetYard(t, githubsim.Config{})
				y.GitHub.SetVersion("2.300.0", githubsim.VersionEnd{Jobs: time.Now().Add(-time.Hour), Refused: tt.refused})
				first := y.old(time.Second)
				j := y.heldForVersion(first)
				for _, want := range []string{"rule old starts no more runners", tt.says, "Name a newer runner in the rule or its jobspec", "switchyard jobs retry "} {
					if !strings.Contains(j.Reason, want) {
						t.Errorf("the reason is %q, want %q", j.Reason, want)
					}
				}
				jobs := []int64{first}
				for range 9 {
					jobs = append(jobs, y.old(time.Second))
				}
				other := y.queue(time.Second)
				if j := routertest.AwaitJob(t, y.Store, other, in(router.Completed)); j.Conclusion != "success" {
					t.Errorf("a job of another rule ended as %s", j.Conclusion)
				}
				still := func(after string) {
					t.Helper()
					time.Sleep(3 * time.Hour)
					for _, id := range jobs {
						if j, err := y.Store.Job(t.Context(), id); err != nil || j.State != router.Held || j.Cause != router.CauseVersion {
							t.Errorf("%s, job %d is %s (%s): %s (%v)", after, id, j.State, j.Cause, j.Reason, err)
						}
					}
					if n := len(y.Started()); n != 3 {
						t.Errorf("%s, %d runners were started in all, want two in vain and one of another rule", after, n)
					}
				}
				still("hours later")
				if tr := y.trouble(router.CauseVersion); tr.Jobs != 10 || len(tr.Rules) != 1 || tr.Rules[0] != "old" {
					t.Errorf("the trouble is %+v", tr)
				}
				y.Stop()
				y.Start(hourly, inForce("one"))
				still("after a restart")
				y.App.Reload(routertest.Parse(t, versionRules), router.RulesVersion{Hash: "one"})
				still("after a reload of the same")

				y.version.Store("2.336.0")
				y.App.Reload(routertest.Parse(t, versionRules), router.RulesVersion{Hash: "two"})
				for _, id := range jobs {
					if j := routertest.AwaitJob(t, y.Store, id, in(router.Completed)); j.Conclusion != "success" {
						t.Errorf("job %d ended as %s", id, j.Conclusion)
					}
				}
				if tr := y.trouble(router.CauseVersion); tr.Jobs != 0 {
					t.Errorf("then the trouble is %+v", tr)
				}
			})
		})
	}
}

// Wherever the process ends, the next one knows of the runners before, and starts no row of them.
func TestNoCrashMakesARowOfOldRunners(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 17; n++ { // from the first delivery on: prepare, start, dispatched, claim, configured, online, lost, stop, and again
		for _, after := range []bool{false, true} {
			virtual(t, fmt.Sprintf("step %d, after=%v", n, after), func(t *testing.T) {
				w := routertest.New(t, routertest.Config{Rules: versionRules, Network: &network, Hub: githubsim.Config{FirstID: 1000}})
				w.GitHub.SetVersion("2.336.0", githubsim.VersionEnd{Jobs: time.Now().Add(-time.Hour), Refused: true})
				c := &crash{left: n, after: after}
				w.Start(hourly, inForce("one"), func(cfg *server.Config) {
					cfg.Store, cfg.Nomad, cfg.Grace = crashingStore{w.Store, c}, crashingNomad{cfg.Nomad, c}, time.Millisecond
				})
				id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"nomad", "old"}, Duration: time.Second})
				for range 30 {
					time.Sleep(time.Minute)
					if c.gone() {
						break
					}
				}
				w.Stop()
				w.Start(hourly, inForce("one"))
				time.Sleep(30 * time.Minute) // three times what an idle runner has
				j, err := w.Store.Job(t.Context(), id)
				must(t, err)
				if started := len(w.Started()); j.State != router.Held || j.Cause != router.CauseVersion || started > 3 {
					t.Errorf("it is %s (%s) after %d runners: %s", j.State, j.Cause, started, j.Reason)
				}
			})
		}
	}
}

// Where the rules do not say which runner it is, as on the nodes, an operator says that it is
// another one. If it is not, two more show it.
func TestAnOperatorLetsARuleStartRunnersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newFleetYard(t, githubsim.Config{})
		y.GitHub.SetVersion("2.300.0", githubsim.VersionEnd{Jobs: time.Now().Add(-time.Hour), Refused: true})
		first := y.old(time.Second)
		y.heldForVersion(first)
		second := y.old(time.Second)
		y.heldForVersion(second)
		must(t, y.App.RetryJob(t.Context(), second))
		time.Sleep(time.Hour)
		y.heldForVersion(first)
		y.heldForVersion(second)
		if n := len(y.Started()); n < 4 || n > 6 { // two more in vain, of two jobs at once
			t.Errorf("%d runners were started", n)
		}
		y.version.Store("2.336.0")
		must(t, y.App.RetryJob(t.Context(), first))
		for _, id := range []int64{first, second} {
			if j := routertest.AwaitJob(t, y.Store, id, in(router.Completed)); j.Conclusion != "success" {
				t.Errorf("job %d ended as %s", id, j.Conclusion)
			}
		}
	})
}

// One runner that is too old, such as that of the last node to be updated, stops nothing.
func TestOneOldRunnerStopsNoRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newFleetYard(t, githubsim.Config{})
		y.GitHub.SetVersion("2.300.0", githubsim.VersionEnd{Jobs: time.Now().Add(-time.Hour), Refused: true})
		id := y.old(time.Second)
		routertest.AwaitJob(t, y.Store, id, func(j router.Job) bool { return j.State == router.Retrying && j.Cause == router.CauseVersion })
		y.version.Store("2.336.0")
		if j := routertest.AwaitJob(t, y.Store, id, in(router.Completed)); j.Conclusion != "success" || j.Try != 2 {
			t.Errorf("it ended as %s at try %d", j.Conclusion, j.Try)
		}
	})
}

// GitHub says early when it will give a version no more jobs, and Switchyard passes it on.
func TestTheEndOfAVersionIsToldInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newFleetYard(t, githubsim.Config{})
		const day = 24 * time.Hour
		y.GitHub.SetVersion("2.300.0", githubsim.VersionEnd{Jobs: time.Now().Add(14*day + time.Hour)})
		y.old(30 * day)
		y.queue(30 * day)
		time.Sleep(10 * time.Minute)
		list, err := y.Store.RunnerVersions(t.Context())
		must(t, err)
		if len(list) != 2 || list[0].Rule != "linux" || list[0].Version != "2.336.0" || !list[0].End.First().IsZero() || list[0].Asked.IsZero() ||
			list[1].Rule != "old" || list[1].Version != "2.300.0" || list[1].End.Jobs.IsZero() {
			t.Fatalf("the versions are %+v", list)
		}
		if tr := y.trouble(router.CauseVersionEnds); tr.What != "" {
			t.Errorf("more than 14 days before, there is a trouble: %+v", tr)
		}
		if text := scrape(t, y.App); !strings.Contains(text, `switchyard_runner_version_days_left{rule="old",version="2.300.0"} 14.0`) || strings.Contains(text, `days_left{rule="linux"`) {
			t.Error("the metrics lack the days of rule old, or have some of rule linux")
		}
		time.Sleep(2 * time.Hour)
		tr := y.trouble(router.CauseVersionEnds)
		if tr.Severity != router.Warning || !strings.Contains(tr.Said, "rule old: version 2.300.0 until ") || !strings.Contains(tr.Said, "in 13 days") || strings.Contains(tr.Said, "linux") {
			t.Errorf("13 days before, the trouble is %+v", tr)
		}
		y.GitHub.SetVersion("2.300.0", githubsim.VersionEnd{Jobs: time.Now().Add(day)}) // and soon after, it is asked again
		time.Sleep(day + time.Hour)
		if tr := y.trouble(router.CauseVersionEnds); tr.Severity != router.Critical || !strings.Contains(tr.Said, "which is over") {
			t.Errorf("after it, the trouble is %+v", tr)
		}
		if asked, looked := y.called("/deprecations/"), y.called("GET orgs/{name}/actions/runners"); asked != 4 || looked > asked+32 { // dead runners are looked for each hour
			t.Errorf("in a day GitHub was asked %d times about two versions, and %d times about runners", asked, looked)
		}
	})
}

// Where GitHub does not say, nothing is lost.
func TestAGitHubThatDoesNotSayHowLongAVersionLastsIsNoTrouble(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 404, 409, 422, 500, 502} {
		synctest.Test(t, func(t *testing.T) {
			y := newFleetYard(t, githubsim.Config{})
			y.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: status, Path: "/deprecations/"})
			id := y.old(2 * time.Hour)
			if j := routertest.AwaitJob(t, y.Store, y.queue(time.Second), in(router.Completed)); j.Conclusion != "success" {
				t.Errorf("while GitHub answers %d a job ends as %s", status, j.Conclusion)
			}
			time.Sleep(time.Hour)
			asked := y.called("/deprecations/")
			if most := 4; asked == 0 || asked > most {
				t.Errorf("while GitHub answers %d it is asked %d times in an hour", status, asked)
			}
			if tr := y.App.Status(nil).Troubles; len(tr) != 0 {
				t.Errorf("while GitHub answers %d: %+v", status, tr)
			}
			if j, err := y.Store.Job(t.Context(), id); err != nil || j.State != router.Running {
				t.Errorf("while GitHub answers %d a job is %s (%v)", status, j.State, err)
			}
		})
	}
}
