package storetest

import (
	"slices"
	"strings"
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
		f.must(errOf(f.Lost(f.ctx(), router.Runner{ID: r.ID}, T0.Add(time.Minute), router.CauseNoJob, "idle", T0)))
		want(1, router.Retrying, router.CauseNoJob)
		if n, err := f.IdleRunners(f.ctx(), 1); n != 1 || err != nil {
			t.Errorf("%d runners got no job (%v), want one: the others were lost otherwise", n, err)
		}
		f.must(f.Settle(f.ctx(), 1, router.Unroutable, router.CauseRefused, "no", nil, T0))
		want(1, router.Unroutable, router.CauseRefused)
		f.must(errOf(f.Redecide(f.ctx(), 1, router.SourceRouter, "again", T0)))
		want(1, router.Queued, router.CauseQueued)

		limited := decision()
		limited.Limit = &rules.Limit{Key: "linux/acme", Running: 0, Per: "owner"}
		f.must(errOf(f.Admit(f.ctx(), 1, limited, T0)))
		want(1, router.Held, router.CauseLimit)
		f.must(errOf(f.Reorder(f.ctx(), 1, nil, T0)))
		want(1, router.Queued, router.CauseQueued)

		open, err := f.OpenJobs(f.ctx(), nil)
		f.must(err)
		if len(open) != 1 || open[0].State != router.Queued || open[0].Cause != router.CauseQueued || open[0].Jobs != 1 {
			t.Errorf("open are %+v", open)
		}
	}},
	{"a trouble lasts until its opposite was seen", func(t *testing.T, f *fixture) {
		now := T0
		later := func() time.Time { now = now.Add(time.Minute); return now }
		// The troubles of job 1, as they are now.
		want := func(after string, causes ...router.Cause) {
			t.Helper()
			list, err := f.Troubles(f.ctx(), nil, T0, T0, 10)
			f.must(err)
			got := []router.Cause{}
			for _, g := range list {
				if g.Jobs != 1 || g.Newest != 1 || g.Repo.FullName != "acme/web" || g.Reason == "" || len(g.Labels) != 3 || g.Since.Before(T0) {
					t.Errorf("after %s: %+v", after, g)
				}
				got = append(got, g.Cause)
			}
			slices.Sort(got)
			slices.Sort(causes)
			if !slices.Equal(got, causes) {
				t.Errorf("after %s, the troubles are %v, want %v", after, got, causes)
			}
		}
		retry := func(cause router.Cause) { f.must(f.Retry(f.ctx(), 1, T0, cause, "no", decision(), later())) }
		f.receive(queued(1))
		want("the delivery")
		retry(router.CauseNomad)
		retry(router.CauseSilent)
		retry(router.CauseRefused)
		want("three refusals", router.CauseNomad, router.CauseSilent, router.CauseRefused)
		retry(router.CauseGitHub)
		retry(router.CauseGitHubRefused)
		retry(router.CauseGitHubLimit)
		r := f.dispatch(1)
		github := []router.Cause{router.CauseGitHub, router.CauseGitHubRefused, router.CauseGitHubLimit}
		if list, err := f.Troubles(f.ctx(), nil, T0.Add(-time.Second), T0, 10); err != nil || len(list) != len(github) {
			t.Errorf("after Nomad took its runner, the troubles are %+v (%v)", list, err)
		}
		want("its runner has waited for a node for a while")
		f.must(f.RecordUnplaced(f.ctx(), []string{r.ID}, router.Unplaced{Text: "too big", Never: true}, later()))
		want("no node fits", router.CauseNoNodeFits)
		f.must(f.RecordUnplaced(f.ctx(), []string{r.ID}, router.Unplaced{Text: "ineligible", Never: true, Away: true}, later()))
		want("nodes are out of service", router.CauseOutOfService)
		f.lost(r.ID, T0, "its node died", later())
		want("the runner was lost", append(github, router.CauseOutOfService, router.CauseRunner)...)
		r = f.dispatch(1)
		f.saw(T0, event(r, router.NomadPlaced, T0, "node-1", ""))
		want("the next has a node", append(github, router.CauseRunner)...)
		f.claim(r)
		f.must(f.Configured(f.ctx(), r.ID, "one", 9, target, later()))
		f.must(f.Online(f.ctx(), r.ID, T0))
		want("it is online", router.CauseOnline) // and has been since before now
		for since, is := range map[time.Time]router.Cause{T0: router.CauseOnline, T0.Add(-time.Second): ""} {
			if cause, why, err := f.TroubleOf(f.ctx(), 1, since); err != nil || cause != is || (why == "") != (is == "") {
				t.Errorf("online since %v: %q, %q (%v)", since, cause, why, err)
			}
		}
		end := event(r, router.NomadEnded, T0, "node-1", "exit code 127")
		end.End = router.EndFailed
		f.saw(later(), end)
		want("it ended", router.CauseDied, router.CauseOnline)
		_, err := f.Lost(f.ctx(), router.Runner{ID: r.ID}, T0, router.CauseNoJob, "idle", later())
		f.must(err)
		r = f.dispatch(1)
		f.claim(r)
		f.must(f.Configured(f.ctx(), r.ID, "two", 10, target, later()))
		f.must(f.Online(f.ctx(), r.ID, later()))
		want("the next is online", router.CauseDied, router.CauseOnline)
		if cause, why, err := f.TroubleOf(f.ctx(), 1, T0); err != nil || cause != router.CauseDied || !strings.Contains(why, "127") {
			t.Errorf("the newest is %s, %q (%v)", cause, why, err)
		}
		f.receive(inProgress(1, "two"))
		want("the job runs")
		if cause, why, err := f.TroubleOf(f.ctx(), 1, T0); err != nil || cause != "" || why != "" {
			t.Errorf("the newest is %s, %q (%v)", cause, why, err)
		}
	}},
	{"what nothing serves, and what waits for a place, is among the troubles", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 3; id++ {
			f.receive(queued(id))
		}
		f.must(f.Settle(f.ctx(), 1, router.Unroutable, "", "no rule", nil, T0))
		limited := decision()
		limited.Limit = &rules.Limit{Key: "linux/acme", Running: 1, Per: "owner"}
		for id := int64(2); id <= 3; id++ {
			_, err := f.Admit(f.ctx(), id, limited, T0)
			f.must(err)
		}
		list, err := f.Troubles(f.ctx(), router.Scope{"acme/web"}, T0, T0, 10)
		f.must(err)
		if len(list) != 2 || list[0].Cause != router.CauseLimit && list[1].Cause != router.CauseLimit || list[0].Cause != router.CauseUnroutable && list[1].Cause != router.CauseUnroutable {
			t.Errorf("the troubles are %+v", list)
		}
		for what, none := range map[string]struct {
			within router.Scope
			since  time.Time
		}{"another repository": {router.Scope{"acme/api"}, T0}, "nobody": {router.Scope{}, T0}} {
			if list, err := f.Troubles(f.ctx(), none.within, T0, none.since, 10); err != nil || len(list) != 0 {
				t.Errorf("of %s, the troubles are %+v (%v)", what, list, err)
			}
		}
		if list, err := f.Troubles(f.ctx(), nil, T0, T0.Add(time.Hour), 10); err != nil || len(list) != 1 {
			t.Errorf("an hour later, the troubles are %+v (%v)", list, err)
		}
		holders, err := f.LimitHolders(f.ctx())
		f.must(err)
		if len(holders) != 1 || holders[0].Key != "linux/acme" || holders[0].Jobs != 1 || holders[0].Waiting != 1 || holders[0].Repo.FullName != "acme/web" {
			t.Errorf("the holders are %+v", holders)
		}
		if n, oldest, err := f.Received(f.ctx(), T0, T0.Add(time.Millisecond)); n != 3 || !oldest.Equal(T0) || err != nil {
			t.Errorf("%d jobs were received, the first at %v (%v)", n, oldest, err)
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
