package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

const rerunRules = `
rules:
  - { name: linux, jobspec: docker-linux, rerun: { when: [node_lost, preempted, drained] } }
`

func patiently(c *server.Config) { c.Tick, c.Feedback = 2*time.Minute, 20*time.Second } // hours are cheap

// long is a job that runs until something ends it.
func long(spec githubsim.JobSpec) githubsim.JobSpec {
	spec.Owner, spec.Repo, spec.Private, spec.Labels, spec.Duration = "acme", "web", true, []string{"self-hosted", "linux"}, 100*time.Hour
	return spec
}

// started queues a long job and waits until it runs.
func started(w *routertest.World, spec githubsim.JobSpec) int64 {
	w.T.Helper()
	id := w.GitHub.Queue(w.T.Context(), long(spec))
	w.Await(id, in(router.Running))
	return id
}

func loseNode(w *routertest.World, _ int64) error {
	if err := w.Nomad.FailNode("node-1"); err != nil {
		return err
	}
	return w.Nomad.RestoreNode("node-1")
}

func drain(w *routertest.World, _ int64) error {
	if err := w.Nomad.DrainNode("node-1"); err != nil {
		return err
	}
	return w.Nomad.SetEligible("node-1", true)
}

func preempt(w *routertest.World, id int64) error {
	list, err := w.Store.Runners(w.T.Context(), id)
	if err != nil {
		return err
	}
	return w.Nomad.Preempt(list[len(list)-1].NomadJob)
}

// endedSaying returns the condition that a job is completed and its reason says this.
func endedSaying(what string) func(router.Job) bool {
	return func(j router.Job) bool { return j.State == router.Completed && strings.Contains(j.Reason, what) }
}

// attempts returns the jobs that GitHub has queued in each attempt of a run, without copies.
func attempts(w *routertest.World, runID int64) map[int][]int64 {
	byAttempt := map[int][]int64{}
	for _, j := range w.GitHub.Jobs() {
		if _, err := w.Store.Job(w.T.Context(), j.ID); err == nil && j.RunID == runID {
			byAttempt[j.Attempt] = append(byAttempt[j.Attempt], j.ID)
		}
	}
	return byAttempt
}

// second waits for the second attempt of a job's run, and returns the one job in it.
func second(w *routertest.World, id int64) int64 {
	w.T.Helper()
	j, err := w.Store.Job(w.T.Context(), id)
	must(w.T, err)
	var all map[int][]int64
	eventually(w.T, "the job is run again", func() bool { all = attempts(w, j.RunID); return len(all[2]) > 0 })
	if len(all[2]) != 1 {
		w.T.Fatalf("attempt 2 has the jobs %v, want one", all[2])
	}
	return all[2][0]
}

func TestAJobThatLosesItsRunnerIsRunAgainOnce(t *testing.T) {
	t.Parallel()
	for loss, lose := range map[router.Loss]func(*routertest.World, int64) error{
		router.LossNode: loseNode, router.LossDrained: drain, router.LossPreempted: preempt,
	} {
		virtual(t, string(loss), func(t *testing.T) {
			w := newWorld(t, rerunRules)
			w.Start(patiently)
			id := started(w, githubsim.JobSpec{})
			must(t, lose(w, id))
			if j := w.Await(id, endedSaying("; run again: waits for its run to complete, as "+loss.Words())); j.Cause != router.CauseRunnerEnded {
				t.Errorf("its cause is %q", j.Cause)
			}
			again := second(w, id)
			j := w.Await(id, endedSaying("; run again: since attempt 2 of its run, as "+loss.Words()))
			if strings.Count(j.Reason, "run again") != 1 {
				t.Errorf("its reason is %q", j.Reason)
			}
			w.Await(again, in(router.Running))
			must(t, lose(w, again))
			w.Await(again, endedSaying("; run again: no, as it was before, and its rule allows 1"))
			time.Sleep(time.Hour)
			if all := attempts(w, j.RunID); len(all) != 2 || w.GitHub.RunReads(j.RunID) != 1 {
				t.Errorf("the attempts are %v, after %d looks at the run; want two after one", all, w.GitHub.RunReads(j.RunID))
			}
			if got := scrape(t, w.App); !strings.Contains(got, fmt.Sprintf(`switchyard_reruns_total{loss=%q,outcome="done"} 1`, loss)) {
				t.Errorf("the metrics do not count it")
			}
			line, err := w.Store.Timeline(t.Context(), id)
			must(t, err)
			for _, what := range []string{"waits for its run to complete", "GitHub is asked", "since attempt 2"} {
				if !said(line, false, "; run again: "+what) {
					t.Errorf("the timeline does not say %q: %+v", what, line)
				}
			}
		})
	}
}

// GitHub refuses it as long as another job of the run is not completed.
func TestAJobIsRunAgainWhenItsRunHasCompleted(t *testing.T) {
	bubble(t, testAJobIsRunAgainWhenItsRunHasCompleted)
}
func testAJobIsRunAgainWhenItsRunHasCompleted(t *testing.T) {
	w := newWorld(t, rerunRules)
	w.Start(patiently)
	id := started(w, githubsim.JobSpec{Name: "build"})
	j := w.Await(id, in(router.Running))
	other := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"ubuntu-latest"}, RunID: j.RunID, Name: "hosted", Hosted: true, Duration: 5 * time.Hour})
	must(t, preempt(w, id))
	w.Await(id, endedSaying("run again: waits for its run"))
	time.Sleep(4 * time.Hour)
	if all, reads := attempts(w, j.RunID), w.GitHub.RunReads(j.RunID); len(all) != 1 || reads > 40 {
		t.Errorf("after 4 hours the attempts are %v, after %d looks at the run; want one, and few", all, reads)
	}
	time.Sleep(2 * time.Hour)
	w.Await(second(w, id), in(router.Running))
	if got := scrape(t, w.App); strings.Contains(got, `call="POST repos/{owner}/{repo}/actions/jobs/{id}/rerun",code="403"`) {
		t.Error("GitHub was asked before the run had completed")
	}
	if o, _ := w.GitHub.Job(other); o.Conclusion != "success" {
		t.Errorf("the other job ended as %q", o.Conclusion)
	}
}

// The last job of a run that ends is known here, so nobody waits for the next look.
func TestTheEndOfTheLastJobOfARunHastensARerun(t *testing.T) {
	bubble(t, testTheEndOfTheLastJobOfARunHastensARerun)
}
func testTheEndOfTheLastJobOfARunHastensARerun(t *testing.T) {
	w := newWorld(t, rerunRules)
	w.Start(patiently)
	id := started(w, githubsim.JobSpec{Name: "build"})
	j := w.Await(id, in(router.Running))
	other := started(w, githubsim.JobSpec{Name: "test", RunID: j.RunID})
	must(t, preempt(w, id))
	w.Await(id, endedSaying("run again: waits for its run"))
	time.Sleep(5 * time.Hour)
	must(t, w.GitHub.Cancel(other)) // its run is cancelled, too
	w.Await(id, endedSaying("run again: no, as its run was cancelled"))
	o := w.Await(other, in(router.Completed))
	if again, err := w.Store.Job(t.Context(), id); err != nil || again.UpdatedAt.Sub(o.CompletedAt) > time.Minute {
		t.Errorf("it says so %s after the last job ended, want some seconds (%v)", again.UpdatedAt.Sub(o.CompletedAt), err)
	}
}

// Several jobs of a run on one node: one attempt after the other, each with the newest IDs.
func TestTwoJobsOfARunAreRunAgainOneAfterTheOther(t *testing.T) {
	bubble(t, testTwoJobsOfARunAreRunAgain)
}
func testTwoJobsOfARunAreRunAgain(t *testing.T) {
	w := newWorld(t, rerunRules)
	w.Start(patiently)
	first := started(w, githubsim.JobSpec{Name: "build (1)"})
	j := w.Await(first, in(router.Running))
	other := started(w, githubsim.JobSpec{Name: "build (2)", RunID: j.RunID})
	must(t, loseNode(w, 0))
	w.Await(first, endedSaying("run again: waits"))
	w.Await(other, endedSaying("run again: waits"))
	again := second(w, first)
	w.Await(again, in(router.Running))
	must(t, w.GitHub.Finish(again, "success"))
	third := int64(0)
	for range 60 {
		time.Sleep(time.Minute)
		if all := attempts(w, j.RunID)[3]; len(all) > 0 {
			third = all[0]
			break
		}
	}
	w.Await(third, in(router.Running))
	w.Await(first, endedSaying("since attempt 2"))
	w.Await(other, endedSaying("since attempt 3"))
}

func TestWhichJobsAreNotRunAgain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rules string
		spec  githubsim.JobSpec
		lose  func(w *routertest.World, id int64) error
		want  string // in the reason; "": nothing is said of it
	}{
		"one that fails by itself": {lose: func(w *routertest.World, id int64) error { return w.GitHub.Finish(id, "failure") }},
		"one that is cancelled as its node is lost": {lose: func(w *routertest.World, id int64) error {
			return errors.Join(w.GitHub.Cancel(id), loseNode(w, id))
		}},
		"one whose allocation somebody stopped": {lose: func(w *routertest.World, id int64) error {
			list, _, err := w.API.Jobs().Allocations(w.Runners(id)[0].NomadJob, false, nil)
			if err == nil {
				_, err = w.API.Allocations().Stop(&api.Allocation{ID: list[0].ID}, nil)
			}
			return err
		}},
		"one whose Nomad job somebody stopped": {lose: func(w *routertest.World, id int64) error {
			_, _, err := w.API.Jobs().Deregister(w.Runners(id)[0].NomadJob, false, nil)
			return err
		}},
		"one whose rule does not want it":           {rules: strings.Replace(rerunRules, ", rerun: { when: [node_lost, preempted, drained] }", "", 1), lose: loseNode},
		"one whose rule wants it for another loss":  {rules: strings.Replace(rerunRules, "node_lost, preempted, drained", "drained", 1), lose: loseNode},
		"one of a merge group":                      {spec: githubsim.JobSpec{Event: "merge_group"}, lose: loseNode, want: "no, as its run is of a merge queue"},
		"one of a closed pull request":              {spec: githubsim.JobSpec{Event: "pull_request", Closed: true}, lose: loseNode, want: "no, as GitHub lists no open pull request"},
		"one of a pull request of a fork":           {spec: githubsim.JobSpec{Event: "pull_request_target", Head: "stranger"}, lose: loseNode, want: "no, as GitHub lists no open pull request"},
		"one that somebody has run again meanwhile": {lose: func(w *routertest.World, id int64) error { return errors.Join(loseNode(w, id), byHand(w, id)) }, want: "no, as somebody has run it again, in attempt 2"},
		"one whose run was deleted": {lose: func(w *routertest.World, id int64) error {
			j := w.Await(id, in(router.Running))
			err := loseNode(w, id)
			w.Await(id, in(router.Completed))
			w.GitHub.DeleteRun(j.RunID)
			return err
		}, want: "no, as GitHub no longer knows its run"},
	} {
		virtual(t, name, func(t *testing.T) {
			if tc.rules == "" {
				tc.rules = rerunRules
			}
			w := newWorld(t, tc.rules)
			w.Start(patiently)
			id := started(w, tc.spec)
			must(t, tc.lose(w, id))
			j := w.Await(id, endedSaying(tc.want))
			time.Sleep(time.Hour)
			j, err := w.Store.Job(t.Context(), j.ID)
			must(t, err)
			if strings.Contains(j.Reason, "run again") != (tc.want != "") || !strings.Contains(j.Reason, tc.want) {
				t.Errorf("its reason is %q, want %q", j.Reason, tc.want)
			}
			if got := scrape(t, w.App); strings.Contains(got, `actions/jobs/{id}/rerun"`) {
				t.Error("GitHub was asked to run it again")
			}
		})
	}
}

// byHand runs a job again as somebody does on GitHub, once it has ended there.
func byHand(w *routertest.World, id int64) error {
	for range 100 {
		if j, _ := w.GitHub.Job(id); j.Status == "completed" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return w.GitHub.RerunJob(id)
}

// A pull request that is open is worth it.
func TestAJobOfAnOpenPullRequestIsRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, rerunRules)
		w.Start(patiently)
		id := started(w, githubsim.JobSpec{Event: "pull_request"})
		must(t, loseNode(w, id))
		w.Await(second(w, id), in(router.Running))
	})
}

// The events that say what became of the runner were sent while nobody listened.
func TestARunnerLostWhileWeWereDownCounts(t *testing.T) {
	t.Parallel()
	for loss, lose := range map[router.Loss]func(*routertest.World, int64) error{router.LossNode: loseNode, router.LossDrained: drain, router.LossPreempted: preempt} {
		virtual(t, string(loss), func(t *testing.T) {
			w := newWorld(t, rerunRules)
			w.Start(patiently)
			id := started(w, githubsim.JobSpec{})
			nomadJob := w.Runners(id)[0].NomadJob
			w.Stop()
			if loss == router.LossPreempted {
				must(t, w.Nomad.Preempt(nomadJob))
			} else {
				must(t, lose(w, id))
			}
			must(t, w.GitHub.Flush(t.Context()))
			time.Sleep(time.Minute)
			for range 300 { // events that Nomad no longer has
				must(t, w.Nomad.SetEligible("node-1", true))
			}
			w.Start(patiently)
			w.Await(second(w, id), in(router.Running))
		})
	}
}

// answers is a GitHub whose answers to reruns get lost, or that is not asked at all, as the
// process ended before.
type answers struct {
	router.GitHub
	asked *atomic.Int64
	lost  *atomic.Bool // the request is made, and its answer lost
	never *atomic.Bool // it is not made
}

func (g answers) RerunJob(ctx context.Context, repo router.Repo, jobID int64) error {
	g.asked.Add(1)
	if g.never.Load() {
		return &router.UnansweredError{Err: errors.New("the process ended")}
	}
	err := g.GitHub.RerunJob(ctx, repo, jobID)
	if err == nil && g.lost.Load() {
		return &router.UnansweredError{Err: errors.New("502")}
	}
	return err
}

func TestAJobIsNotRunAgainTwiceWhoeverEndsInBetween(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		lost, never bool
		asked       int64
	}{
		"before GitHub is asked":         {never: true, asked: 2},
		"before its answer comes":        {lost: true, asked: 1},
		"after its answer, and restarts": {asked: 1},
	} {
		for _, restart := range []bool{true, false} {
			virtual(t, fmt.Sprintf("%s, restart %t", name, restart), func(t *testing.T) {
				w := newWorld(t, rerunRules)
				g := answers{asked: new(atomic.Int64), lost: new(atomic.Bool), never: new(atomic.Bool)}
				with := func(c *server.Config) { g.GitHub = c.GitHub; c.GitHub = g }
				g.lost.Store(tc.lost)
				g.never.Store(tc.never)
				w.Start(with, patiently)
				id := started(w, githubsim.JobSpec{})
				must(t, loseNode(w, id))
				eventually(t, "GitHub is asked", func() bool { return g.asked.Load() == 1 })
				if restart {
					w.Stop()
				}
				g.lost.Store(false)
				g.never.Store(false)
				if restart {
					w.Start(with, patiently)
				}
				time.Sleep(10 * time.Minute)
				again := second(w, id)
				j := w.Await(id, endedSaying("run again: since attempt 2 of its run"))
				w.Await(again, in(router.Running))
				must(t, w.GitHub.Finish(again, "failure"))
				time.Sleep(time.Hour)
				if all := attempts(w, j.RunID); len(all) != 2 || g.asked.Load() != tc.asked {
					t.Errorf("the attempts are %v, and GitHub was asked %d times, want 2 and %d", all, g.asked.Load(), tc.asked)
				}
			})
		}
	}
}

// GitHub fails, or limits requests: nothing is lost but time.
func TestARerunWaitsForGitHub(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]githubsim.Faults{
		"errors":           {ErrorRate: 1, Path: "/rerun", Seed: 3},
		"pages of HTML":    {ErrorRate: 1, Status: 502, Path: "/rerun"},
		"conflicts":        {ErrorRate: 1, Status: 409, Path: "/rerun"},
		"no run":           {ErrorRate: 1, Status: 500, Path: "/actions/runs/"},
		"a rate limit":     {LimitedUntil: time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC)},
		"a secondary one":  {LimitedUntil: time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC), Secondary: true},
		"no authorization": {ErrorRate: 1, Status: 401, Path: "/rerun"},
	} {
		virtual(t, name, func(t *testing.T) {
			w := newWorld(t, rerunRules)
			w.Start(patiently)
			id := started(w, githubsim.JobSpec{})
			w.GitHub.SetFaults(f)
			must(t, loseNode(w, id))
			j := w.Await(id, endedSaying("; run again: "))
			time.Sleep(50 * time.Minute)
			w.GitHub.SetFaults(githubsim.Faults{})
			time.Sleep(time.Hour)
			again := second(w, id)
			w.Await(again, in(router.Running))
			w.Await(id, endedSaying("run again: since attempt 2"))
			if all := attempts(w, j.RunID); len(all) != 2 {
				t.Errorf("the attempts are %v, want two", all)
			}
		})
	}
}

// A missing permission is named, asked for less and less often, and given up after a day.
func TestAMissingPermissionForARerunIsNamed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 404} {
		virtual(t, fmt.Sprint(status), func(t *testing.T) {
			w := newWorld(t, rerunRules)
			g := answers{asked: new(atomic.Int64), lost: new(atomic.Bool), never: new(atomic.Bool)}
			w.Start(patiently, func(c *server.Config) { g.GitHub = c.GitHub; c.GitHub, c.Feedback = g, time.Minute })
			id := started(w, githubsim.JobSpec{})
			w.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: status, Path: "/rerun"})
			must(t, loseNode(w, id))
			w.Await(id, func(j router.Job) bool {
				return endedSaying("; run again: waits, as ")(j) && strings.Contains(j.Reason, "the repository permission Actions (write) on acme/web")
			})
			if status != 403 {
				return
			}
			time.Sleep(30 * time.Hour)
			w.Await(id, func(j router.Job) bool {
				return endedSaying("; run again: no, as ")(j) && strings.Contains(j.Reason, "the repository permission Actions (write) on acme/web")
			})
			if n := g.asked.Load(); n > 40 {
				t.Errorf("GitHub was asked %d times in a day", n)
			}
		})
	}
}

// What is refused for good is not asked for again.
func TestARerunThatGitHubRefusesIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, rerunRules)
		g := answers{asked: new(atomic.Int64), lost: new(atomic.Bool), never: new(atomic.Bool)}
		w.Start(patiently, func(c *server.Config) { g.GitHub = c.GitHub; c.GitHub = g })
		id := started(w, githubsim.JobSpec{})
		w.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: 422, Path: "/rerun"})
		must(t, loseNode(w, id))
		w.Await(id, endedSaying("; run again: no, as run job "))
		time.Sleep(time.Hour)
		if n := g.asked.Load(); n != 1 {
			t.Errorf("GitHub was asked %d times, want once", n)
		}
	})
}

// The commit says so, until GitHub has taken the request.
func TestACommitSaysThatAJobIsRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "feedback: { kind: commit_status, after: 1h }\n"+rerunRules)
		w.Start(patiently)
		id := started(w, githubsim.JobSpec{})
		w.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: 409, Path: "/rerun"})
		must(t, loseNode(w, id))
		says := func(state, words string) func() bool {
			return func() bool {
				all := w.GitHub.CommitStatuses()
				return len(all) > 0 && all[len(all)-1].State == state && strings.Contains(all[len(all)-1].Description, words)
			}
		}
		eventually(t, "the commit says that it waits", says("pending", "Run again: waits"))
		w.GitHub.SetFaults(githubsim.Faults{})
		time.Sleep(2 * time.Minute)
		eventually(t, "the commit says that it runs again", says("success", "Run again: since attempt 2 of its run, as its runner's node was lost"))
	})
}
