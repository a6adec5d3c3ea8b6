package storetest

import (
	"testing"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

var causeTests = []test{
	{"a job has a cause in each state that it waits in", func(t *testing.T, f *fixture) {
		want := func(id int64, state router.JobState, cause router.Cause) {
			t.Helper()
			if j := f.wantState(id, state); j.Cause != cause {
				t.Errorf("job %d is %s by %q (%s), want %q", id, state, j.Cause, j.Reason, cause)
			}
		}
		f.receive(NewDelivery(1, "waiting", "waiting"))
		want(1, router.Held, router.CauseApproval)
		f.receive(queued(1))
		want(1, router.Queued, router.CauseQueued)
		for _, cause := range []router.Cause{router.CauseNomad, router.CauseRefused, router.CauseGitHub, router.CauseGitHubLimit} {
			f.must(f.Retry(f.ctx(), 1, T0, cause, "no", decision(), T0))
			want(1, router.Retrying, cause)
		}
		r := f.dispatch(1)
		want(1, router.Dispatched, router.CausePlacing)
		f.must(f.RecordUnplaced(f.ctx(), []string{r.ID}, router.Unplaced{Text: "full"}, T0))
		want(1, router.Dispatched, router.CauseNoNodeFree)
		f.must(f.RecordUnplaced(f.ctx(), []string{r.ID}, router.Unplaced{Text: "too big", Never: true}, T0))
		want(1, router.Dispatched, router.CauseNoNodeFits)
		f.saw(T0, event(r, router.NomadPlaced, T0, "node-1", ""))
		want(1, router.Dispatched, router.CauseStarting)
		f.lost(r.ID, T0, "its node died", T0)
		want(1, router.Retrying, router.CauseRunner)
		r = f.dispatch(1)
		f.claim(r)                                                // before Nomad's event came
		want(1, router.Dispatched, router.CauseStarting)          // as it has a node
		f.must(f.Configured(f.ctx(), r.ID, "one", 9, target, T0)) // says more of it
		want(1, router.Dispatched, router.CauseStarting)
		f.must(errOf(f.Lost(f.ctx(), r.ID, T0.Add(time.Minute), router.CauseNoJob, "idle", T0)))
		want(1, router.Retrying, router.CauseNoJob)
		f.must(f.Settle(f.ctx(), 1, router.Unroutable, router.CauseRefused, "no", nil, T0))
		want(1, router.Unroutable, router.CauseRefused)
		f.must(errOf(f.Redecide(f.ctx(), 1, router.SourceRouter, "again", T0)))
		want(1, router.Queued, router.CauseQueued)

		limited := decision()
		limited.Limit = &rules.Limit{Key: "linux/acme", Running: 0, Per: "owner"}
		f.must(errOf(f.Admit(f.ctx(), 1, limited, T0)))
		want(1, router.Held, router.CauseLimit)
		f.must(errOf(f.Reconsider(f.ctx(), T0)))
		want(1, router.Queued, router.CauseQueued)

		open, err := f.OpenJobs(f.ctx(), nil)
		f.must(err)
		if len(open) != 1 || open[0].State != router.Queued || open[0].Cause != router.CauseQueued || open[0].Jobs != 1 {
			t.Errorf("open are %+v", open)
		}
	}},
	{"a job whose runner ended under it says so, whichever is known first", func(t *testing.T, f *fixture) {
		for id, first := range map[int64]string{1: "Nomad", 2: "GitHub", 3: "an operator"} {
			f.receive(queued(id))
			r, name := f.online(id)
			f.saw(T0, event(r, router.NomadPlaced, T0, "node-1", ""))
			f.receive(inProgress(id, name))
			if j := f.wantState(id, router.Running); j.Cause != router.CauseRunning {
				t.Errorf("a running job has the cause %q", j.Cause)
			}
			want := router.CauseRunnerEnded
			switch first {
			case "GitHub":
				f.receive(completed(id, name, "failure"))
			case "an operator": // whose reason stays
				f.must(f.SetReason(f.ctx(), r.ID, "it is stopped at its time limit", T0))
				want = ""
			}
			f.saw(T0, event(r, router.NomadEnded, T0, "node-1", "killed: its node is drained"))
			f.receive(completed(id, name, "failure"))
			if j := f.wantState(id, router.Completed); j.Cause != want {
				t.Errorf("%s first: the cause is %q (%s), want %q", first, j.Cause, j.Reason, want)
			}
		}
		for _, causes := range [][]router.Cause{{router.CauseRunnerEnded}, {router.CauseLimit, router.CauseRunnerEnded}} {
			if jobs, err := f.FindJobs(f.ctx(), router.JobFilter{Causes: causes, Limit: 9}); err != nil || len(jobs) != 2 || jobs[0].ID != 2 || jobs[1].ID != 1 {
				t.Errorf("jobs by the causes %v: %+v, %v, want 2 and 1", causes, jobs, err)
			}
		}
	}},
}
