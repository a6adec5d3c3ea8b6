package runners

import (
	"testing"
	"time"

	"switchyard/router"
)

// What each of the ways in which a runner and its Nomad job can stand to each
// other calls for.
func TestMend(t *testing.T) {
	c := &policy{idle: 10 * time.Minute, doubt: 2 * time.Minute, publicURL: "http://router"}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	runs := &router.NomadJob{ID: "gha-1-1", RunnerID: "gha-1-1", Status: "running"}
	waits := &router.NomadJob{ID: "gha-1-1", RunnerID: "gha-1-1", Status: "pending", Waiting: true}
	dead := &router.NomadJob{ID: "gha-1-1", RunnerID: "gha-1-1", Status: "dead"}
	// r is a runner that came into its state so long ago.
	r := func(state router.RunnerState, since time.Duration, change ...func(*router.LiveRunner)) router.LiveRunner {
		l := router.LiveRunner{
			Runner:   router.Runner{ID: "gha-1-1", JobID: 1, Try: 1, State: state, StateAt: ago(since), NomadJob: "gha-1-1", Name: "gha-1-1"},
			JobState: router.Dispatched, Needed: state == router.RunnerDispatched || state == router.RunnerClaimed || state == router.RunnerOnline,
		}
		for _, f := range change {
			f(&l)
		}
		return l
	}
	unregistered := func(l *router.LiveRunner) { l.NomadJob = "" }
	leftover := func(l *router.LiveRunner) { l.Needed = false }
	needed := func(l *router.LiveRunner) { l.Needed = true }
	onGitHub := func(l *router.LiveRunner) { l.GitHubID = 7 }
	placed := func(d time.Duration) func(*router.LiveRunner) {
		return func(l *router.LiveRunner) { l.PlacedAt = ago(d) }
	}
	ended := func(d time.Duration) func(*router.LiveRunner) {
		return func(l *router.LiveRunner) { l.EndedAt = ago(d) }
	}
	own := func(l *router.LiveRunner) { l.Own = true }
	serves := func(d, limit time.Duration) func(*router.LiveRunner) {
		return func(l *router.LiveRunner) { l.Serves, l.ServesSince, l.TimeLimit = 1, ago(d), limit }
	}

	for _, tt := range []struct {
		name  string
		r     router.LiveRunner
		on    *router.NomadJob
		want  mending
		again time.Duration // from now; 0: at the next sweep
	}{
		{"one that is being registered is left to the worker", r(router.RunnerDispatched, time.Hour, unregistered), nil, nothing, 0},
		{"one that waits for a node is asked why", r(router.RunnerDispatched, time.Hour), waits, askWhy, 0},
		{"one that nobody needs is left to those who offer it", r(router.RunnerDispatched, time.Hour, leftover), waits, nothing, 0},
		{"a placement that was missed is recorded", r(router.RunnerDispatched, time.Second), runs, recordPlaced, 0},
		{"one that starts has time to claim", r(router.RunnerDispatched, time.Hour, placed(4*time.Minute)), runs, nothing, 6 * time.Minute},
		{"one that never claims is replaced", r(router.RunnerDispatched, time.Hour, placed(10*time.Minute)), runs, retireRunner, 0},
		{"one that ended unclaimed is lost", r(router.RunnerDispatched, time.Second), dead, loseRunner, 0},
		{"one that the listing does not show is looked up", r(router.RunnerDispatched, time.Second), nil, confirmEnd, 0},

		{"a claim that is being answered is left alone", r(router.RunnerClaimed, 10*time.Second), runs, nothing, 50 * time.Second},
		{"even when the runner is gone", r(router.RunnerClaimed, 10*time.Second), dead, nothing, 50 * time.Second},
		{"one that ended while it was configured is lost", r(router.RunnerClaimed, time.Minute), dead, loseRunner, 0},
		{"unless GitHub knows it: its end is recorded", r(router.RunnerClaimed, time.Minute, onGitHub), dead, recordEnd, 0},
		{"and GitHub is asked", r(router.RunnerClaimed, time.Minute, onGitHub, ended(2*time.Minute)), dead, askLost, 0},
		{"one whose configuration never came is replaced", r(router.RunnerClaimed, 2*time.Minute), runs, retireRunner, 0},
		{"one whose configuration may have come is looked for", r(router.RunnerClaimed, 2*time.Minute, onGitHub), runs, askRunner, 0},

		{"an online one has time to get a job", r(router.RunnerOnline, 9*time.Minute, onGitHub), runs, nothing, time.Minute},
		{"then GitHub is asked", r(router.RunnerOnline, 10*time.Minute, onGitHub), runs, askRunner, 0},
		{"the end of an online one is recorded", r(router.RunnerOnline, time.Second, onGitHub), dead, recordEnd, 0},
		{"GitHub has time to say that it had a job", r(router.RunnerOnline, time.Hour, onGitHub, ended(time.Minute)), nil, nothing, time.Minute},
		{"then it is asked, and the runner is lost", r(router.RunnerOnline, time.Hour, onGitHub, ended(2*time.Minute)), dead, askLost, 0},

		{"a busy one is left alone, however long it takes", r(router.RunnerBusy, 100*time.Hour, serves(100*time.Hour, 0)), runs, nothing, 0},
		{"even when its own job waits", r(router.RunnerBusy, 100*time.Hour, needed), runs, nothing, 0},
		{"but for its rule's time limit", r(router.RunnerBusy, time.Hour, serves(50*time.Minute, time.Hour)), runs, nothing, 10 * time.Minute},
		{"at which it is stopped", r(router.RunnerBusy, time.Hour, serves(time.Hour, time.Hour)), runs, stopRunner, 0},
		{"the end of a busy one is recorded", r(router.RunnerBusy, time.Hour, serves(time.Hour, 0)), dead, recordEnd, 0},
		{"GitHub has time to say that its job ended", r(router.RunnerBusy, time.Hour, serves(time.Hour, 0), ended(time.Minute)), dead, nothing, time.Minute},
		{"then it is asked", r(router.RunnerBusy, time.Hour, serves(time.Hour, 0), ended(2*time.Minute)), dead, askJob, 0},
		{"one past its time limit that ended is not stopped", r(router.RunnerBusy, time.Hour, serves(time.Hour, time.Minute), ended(2*time.Minute)), dead, askJob, 0},

		{"a finished one has time to leave", r(router.RunnerFinished, time.Minute, onGitHub), runs, nothing, time.Minute},
		{"then it is removed", r(router.RunnerFinished, 2*time.Minute, onGitHub), runs, retireRunner, 0},
		{"a stopped one is removed at once", r(router.RunnerStopped, 0, onGitHub), waits, retireRunner, 0},
		{"a lost one that GitHub never knew, too", r(router.RunnerLost, 0), runs, retireRunner, 0},
		{"one that it knows has time to show itself", r(router.RunnerLost, time.Minute, onGitHub), runs, nothing, time.Minute},
		{"the end of a finished one is recorded", r(router.RunnerFinished, time.Second), dead, recordEnd, 0},
		{"of one that is gone, too, when Nomad says so", r(router.RunnerFinished, time.Second), nil, confirmEnd, 0},
		{"nothing is left of one that never was on Nomad", r(router.RunnerStopped, 2*time.Minute, unregistered), nil, recordEnd, 0},
		{"a registration may be under way", r(router.RunnerStopped, time.Minute, unregistered), nil, nothing, time.Minute},
		{"it is found all the same", r(router.RunnerStopped, time.Minute, unregistered), waits, retireRunner, 0},

		{"a job waits until its stopped runner is", r(router.RunnerStopped, 0, needed), waits, retireRunner, 0},
		{"then it goes on", r(router.RunnerStopped, 0, needed, ended(time.Second)), nil, requeueJob, 0},
		{"then it goes on, as the listing says", r(router.RunnerStopped, 0, needed), dead, requeueJob, 0},

		{"one of its own registration is never taken for one that does not claim", r(router.RunnerDispatched, 100*time.Hour, own, placed(100*time.Hour)), runs, nothing, 0},
		{"nor for one whose allocation ended, as Nomad starts another", r(router.RunnerDispatched, time.Hour, own, placed(time.Hour), ended(time.Hour)), runs, nothing, 0},
		{"one that waits for a node is asked why, too", r(router.RunnerDispatched, time.Hour, own), waits, askWhy, 0},
		{"and its placement is recorded", r(router.RunnerDispatched, time.Hour, own), runs, recordPlaced, 0},
		{"even when its job waits no more, as it may have that", r(router.RunnerDispatched, time.Hour, own, leftover), runs, recordPlaced, 0},
		{"its worker is at it", r(router.RunnerDispatched, time.Hour, own, unregistered), nil, nothing, 0},
		{"one that no job waits for is left alone", r(router.RunnerDispatched, time.Hour, own, leftover, placed(time.Hour)), runs, nothing, 0},
		{"and closed when it ended", r(router.RunnerDispatched, time.Hour, own, leftover, placed(time.Hour)), dead, closeRunner, 0},
		{"when it ended and its job waits, GitHub is asked at once", r(router.RunnerDispatched, time.Second, own, placed(time.Second), ended(0)), dead, askLost, 0},
		{"one that the listing does not show is looked up, too", r(router.RunnerDispatched, time.Hour, own), nil, confirmEnd, 0},
		{"a busy one is left alone", r(router.RunnerBusy, 100*time.Hour, own), runs, nothing, 0},
		{"but for the time limit of a job that GitHub says it has", r(router.RunnerBusy, time.Hour, own, serves(time.Hour, time.Hour)), runs, stopRunner, 0},
		{"a finished one ends by itself", r(router.RunnerFinished, 100*time.Hour, own), runs, nothing, 0},
		{"its end is recorded", r(router.RunnerFinished, time.Hour, own), dead, recordEnd, 0},
		{"one that was stopped before it ran is stopped on Nomad", r(router.RunnerStopped, 0, own), waits, retireRunner, 0},
		{"then the job that waits for it goes on", r(router.RunnerStopped, 0, own, needed), dead, requeueJob, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			what, why, again := c.mend(tt.r, tt.on, "", now)
			var at time.Time
			if tt.again != 0 {
				at = now.Add(tt.again)
			}
			if what != tt.want || !again.Equal(at) {
				t.Errorf("mend = %q, again at %v; want %q, again at %v", what, again, tt.want, at)
			}
			if (what == loseRunner || what == retireRunner || what == stopRunner || what == requeueJob) && why == "" {
				t.Errorf("%s has no reason", what)
			}
		})
	}
}
