package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"switchyard/router"
)

var dispatchTests = []test{
	{"due jobs come longest due first, then the time of the next", func(t *testing.T, f *fixture) {
		for i, after := range []time.Duration{3, 1, 2, 9} {
			d := queued(int64(i + 1))
			d.ReceivedAt = T0.Add(after * time.Second)
			f.receive(d)
		}
		f.must(f.Retry(f.ctx(), 2, T0.Add(7*time.Second), router.CauseNomad, "later", nil, T0)) // from 1 s to 7 s

		check := func(at time.Duration, limit int, want []int64, wantNext time.Duration) {
			t.Helper()
			due, next, err := f.Due(f.ctx(), T0.Add(at*time.Second), nil, limit)
			wantDiff(t, f.ids(due, err), want)
			if wantNext == 0 && !next.IsZero() || wantNext != 0 && !next.Equal(T0.Add(wantNext*time.Second)) {
				t.Errorf("got next %v, want T0 + %d s", next, wantNext)
			}
		}
		check(1, 9, nil, 2)
		check(2, 9, []int64{3}, 3)
		check(5, 9, []int64{3, 1}, 7)
		check(5, 1, []int64{3}, 3)
		check(9, 9, []int64{3, 1, 2, 4}, 0)
	}},
	{"due jobs are taken in turn by owner, then by repository", func(t *testing.T, f *fixture) {
		id := int64(0)
		add := func(n int, host, owner, repo string) {
			for range n {
				id++
				d := queued(id)
				d.Job.Repo.Host, d.Job.Repo.Owner, d.Job.Repo.Name = host, owner, repo
				d.ReceivedAt = T0.Add(time.Duration(id) * time.Millisecond)
				f.receive(d)
			}
		}
		add(40, "", "acme", "app")
		add(3, "", "acme", "web")
		add(2, "", "beta", "app")
		add(1, "ghe.example", "acme", "app")
		for i := range 30 {
			add(1, "", "crowd", fmt.Sprintf("repo-%02d", i))
		}
		var later []router.Job
		for batch := 0; ; batch++ {
			due, next, err := f.Due(f.ctx(), T0.Add(time.Minute), nil, 8)
			f.must(err)
			if len(due) == 0 {
				break
			}
			if batch == 0 {
				got := map[string]int{}
				for _, j := range due {
					got[j.Repo.Host+j.Repo.FullName]++
				}
				// One of the other host has no second, which the oldest job gets.
				wantDiff(t, got, map[string]int{"acme/app": 2, "acme/web": 1, "beta/app": 2, "ghe.exampleacme/app": 1, "crowd/repo-00": 1, "crowd/repo-01": 1})
			}
			if len(later) < 5*8 && next.IsZero() || next.After(T0.Add(time.Minute)) {
				t.Fatalf("after batch %d the next is due at %v, though there are more", batch, next)
			}
			for _, j := range due {
				f.must(f.Settle(f.ctx(), j.ID, router.Denied, "", "no", nil, T0))
			}
			later = append(later, due...)
		}
		if len(later) != int(id) {
			t.Errorf("%d jobs were due, want %d", len(later), id)
		}
		// Within one repository they stay in their order.
		last := map[string]int64{}
		for _, j := range later {
			if k := j.Repo.Host + j.Repo.FullName; last[k] > j.ID {
				t.Errorf("job %d of %s comes after %d", j.ID, k, last[k])
			} else {
				last[k] = j.ID
			}
		}
	}},
	{"of more owners than are read at once, all have their turn", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 40; id++ {
			d := queued(id)
			d.Job.Repo.Owner = fmt.Sprintf("owner-%02d", id%20)
			f.receive(d)
		}
		seen := map[string]bool{}
		for range 4 { // of 5 each, and nothing becomes of them
			due, _, err := f.Due(f.ctx(), T0, nil, 5)
			f.must(err)
			for _, j := range due {
				seen[j.Repo.Owner] = true
			}
		}
		if len(seen) != 20 {
			t.Errorf("%d of 20 owners had a turn", len(seen))
		}
	}},
	{"jobs in hand are left out of those that are due", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 6; id++ {
			d := queued(id)
			d.Job.Repo.Owner = []string{"acme", "beta"}[id%2]
			f.receive(d)
		}
		for _, tt := range []struct {
			except []int64
			limit  int
			want   []int64
			more   bool
		}{
			{[]int64{1, 3}, 9, []int64{2, 4, 5, 6}, false},
			{[]int64{1, 3, 7}, 4, []int64{2, 4, 5, 6}, false},
			{[]int64{1, 3}, 2, []int64{2, 5}, true}, // one of each owner
			{[]int64{1, 2, 3, 4, 5}, 2, []int64{6}, false},
			{[]int64{1, 2, 3, 4, 5, 6}, 9, nil, false},
		} {
			due, next, err := f.Due(f.ctx(), T0, tt.except, tt.limit)
			f.must(err)
			var got []int64
			for _, j := range due {
				got = append(got, j.ID)
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) || next.IsZero() == tt.more {
				t.Errorf("%d of those but %v: %v, next at %v; want %v, more: %v", tt.limit, tt.except, got, next, tt.want, tt.more)
			}
		}
	}},
	{"a job is settled with its decision, once", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		f.must(f.Settle(f.ctx(), 1, router.Denied, "", "no public repositories", decision(), T0.Add(time.Second)))
		f.must(f.Settle(f.ctx(), 1, router.Unroutable, "", "too late", nil, T0.Add(time.Minute)))
		j := f.wantState(1, router.Denied)
		wantDiff(t, j.Decision, decision())
		if j.Reason != "no public repositories" || !j.UpdatedAt.Equal(T0.Add(time.Second)) {
			t.Errorf("got reason %q at %v", j.Reason, j.UpdatedAt)
		}
		if f.Settle(f.ctx(), 1, router.Running, "", "x", nil, T0) == nil {
			t.Error("Settle took a state that is not a decided end")
		}
	}},
	{"what is not known is not found", func(t *testing.T, f *fixture) {
		ctx, r := f.ctx(), router.Runner{ID: "gha-1-1", JobID: 1, Try: 1}
		wantErr(t, errOf(f.Job(ctx, 1)), router.ErrNotFound)
		wantErr(t, f.Settle(ctx, 1, router.Denied, "", "x", nil, T0), router.ErrNotFound)
		wantErr(t, f.Retry(ctx, 1, T0, router.CauseNomad, "x", nil, T0), router.ErrNotFound)
		wantErr(t, f.Prepare(ctx, r, Token("x"), T0), router.ErrNotFound)
		wantErr(t, f.Dispatched(ctx, r, Token("x"), nil, T0), router.ErrNotFound)
		wantErr(t, f.Configured(ctx, r.ID, "x", 1, router.Target{}, T0), router.ErrNotFound)
		wantErr(t, errOf(f.Lost(ctx, router.Runner{ID: r.ID}, T0, router.CauseRunner, "x", T0)), router.ErrNotFound)
	}},
	{"each retry counts a failure and keeps the decision it is not given", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		f.must(f.Retry(f.ctx(), 1, T0.Add(time.Second), router.CauseNomad, "no leader", decision(), T0))
		f.must(f.Retry(f.ctx(), 1, T0.Add(time.Minute), router.CauseNomad, "connection refused", nil, T0))
		j := f.wantState(1, router.Retrying)
		if j.Failures != 2 || j.Try != 1 || j.Reason != "connection refused" || !j.DueAt.Equal(T0.Add(time.Minute)) {
			t.Errorf("got %d failures, try %d, %q, due at %v", j.Failures, j.Try, j.Reason, j.DueAt)
		}
		wantDiff(t, j.Decision, decision())
	}},
	{"a dispatched job is not due and keeps its failures until it runs", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		f.must(f.Retry(f.ctx(), 1, T0, router.CauseNomad, "no leader", nil, T0))
		r := f.dispatch(1)
		j := f.wantState(1, router.Dispatched)
		wantDiff(t, j.Decision, decision())
		if j.Failures != 1 {
			t.Errorf("got %d failures, want 1", j.Failures)
		}
		if due, next, _ := f.Due(f.ctx(), T0.Add(time.Hour), nil, 9); len(due) != 0 || !next.IsZero() {
			t.Errorf("got %d due, next %v", len(due), next)
		}
		wantDiff(t, f.runner(1), r)
		f.must(f.Retry(f.ctx(), 1, T0, router.CauseNomad, "late", nil, T0)) // changes nothing
		f.wantState(1, router.Dispatched)
	}},
	{"those that wait for one thing can be had due at once, the first of them first", func(t *testing.T, f *fixture) {
		for id, reason := range map[int64]string{1: "Nomad is away: a", 2: "Nomad is away: b", 3: "GitHub is away", 4: "Nomad is away: c"} {
			cause := router.CauseNomad
			if id == 3 {
				cause = router.CauseGitHub
			}
			f.receive(queued(id))
			f.must(f.Retry(f.ctx(), id, T0.Add(time.Duration(id)*time.Hour), cause, reason, nil, T0))
		}
		now := T0.Add(time.Minute)
		for _, c := range []struct{ limit, n int }{{1, 1}, {-1, 2}, {-1, 0}} {
			if n, err := f.RetryNow(f.ctx(), router.AnyRegion, router.CauseNomad, c.limit, now); n != c.n || err != nil {
				t.Errorf("RetryNow up to %d = %d, %v, want %d", c.limit, n, err, c.n)
			}
			if j := f.wantState(1, router.Retrying); !j.DueAt.Equal(now) || j.Failures != 0 || j.Reason != "Nomad is away: a" {
				t.Errorf("the first is due at %v after %d failures: %s", j.DueAt, j.Failures, j.Reason)
			}
		}
		if j := f.wantState(3, router.Retrying); !j.DueAt.Equal(T0.Add(3*time.Hour)) || j.Failures != 1 {
			t.Errorf("another is due at %v after %d failures", j.DueAt, j.Failures)
		}
	}},
	{"jobs whose runners were prepared in a region are due at once", func(t *testing.T, f *fixture) {
		f.queue(1, 2)
		f.prepare(2)
		for id := int64(1); id <= 2; id++ {
			f.must(f.Retry(f.ctx(), id, T0.Add(time.Hour), router.CauseNomad, "Nomad is away", nil, T0))
		}
		for _, c := range []struct {
			region string
			n      int
			due    [2]bool
		}{{"osaka", 0, [2]bool{}}, {tokyo.Region, 1, [2]bool{false, true}}, {"", 1, [2]bool{true, true}}} {
			n, err := f.RetryNow(f.ctx(), c.region, router.CauseNomad, 9, T0)
			if due := [2]bool{f.job(1).DueAt.Equal(T0), f.job(2).DueAt.Equal(T0)}; n != c.n || err != nil || due != c.due {
				t.Errorf("RetryNow in region %q = %d, %v, due %v; want %d, %v", c.region, n, err, due, c.n, c.due)
			}
		}
	}},
	{"what waits by a clock that was ahead is due when it is set back", func(t *testing.T, f *fixture) {
		ahead, now := T0.Add(time.Hour), T0.Add(time.Minute)
		f.queue(1, 2, 3)
		f.must(f.Retry(f.ctx(), 1, ahead.Add(30*time.Second), router.CauseNomad, "Nomad is away", nil, ahead))
		f.must(f.Retry(f.ctx(), 2, now.Add(10*time.Minute), router.CauseNomad, "Nomad refuses it", nil, T0)) // by the clock as it is
		r := f.dispatch(3)
		f.saw(ahead, event(r, router.NomadPlaced, ahead, "node-1", ""))
		f.must(f.Asked(f.ctx(), 3, ahead))
		for _, want := range []int{3, 0} {
			if n, err := f.Rewind(f.ctx(), now); n != want || err != nil {
				t.Errorf("Rewind = %d, %v, want %d", n, err, want)
			}
		}
		if j := f.wantState(1, router.Retrying); !j.DueAt.Equal(now) || !j.UpdatedAt.Equal(now) || j.Reason != "Nomad is away" {
			t.Errorf("job 1 is due at %v, changed at %v: %s", j.DueAt, j.UpdatedAt, j.Reason)
		}
		if j := f.wantState(2, router.Retrying); !j.DueAt.Equal(now.Add(10 * time.Minute)) {
			t.Errorf("job 2 is due at %v, as it was", j.DueAt)
		}
		if j, r := f.wantState(3, router.Dispatched), f.wantRunner(3, r.ID, router.RunnerDispatched); !j.AskedAt.Equal(now) || !r.PlacedAt.Equal(now) {
			t.Errorf("job 3 was asked about at %v, its runner placed at %v", j.AskedAt, r.PlacedAt)
		}
	}},
	{"only a job that waits is prepared, and only its current try", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.newRunner(1)
		r.Try, r.ID = 2, "gha-1-2"
		wantErr(t, f.Prepare(f.ctx(), r, Token(1), T0), router.ErrNotWaiting)
		f.dispatch(1)
		wantErr(t, f.Prepare(f.ctx(), f.newRunner(1), Token(1), T0), router.ErrNotWaiting)
		f.receive(completed(2, "", "cancelled"))
		wantErr(t, f.Prepare(f.ctx(), f.newRunner(2), Token(2), T0), router.ErrNotWaiting)
	}},
	{"a try has one runner", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.prepare(1)
		f.must(f.Prepare(f.ctx(), r, Token(r.ID), T0)) // again, as after a crash
		other := r
		other.ID, other.Name = "another", "another"
		if f.Prepare(f.ctx(), other, Token("another"), T0) == nil {
			t.Error("the same try got a second runner")
		}
		wantErr(t, errOf(f.Claim(f.ctx(), Token("another"), T0)), router.ErrNotFound)
	}},
	{"a job that ran before its dispatch was recorded stays running, with its decision", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.prepare(1)
		f.receive(inProgress(1, "somebody's runner"))
		r.NomadJob = "dispatched-elsewhere"
		f.must(f.Dispatched(f.ctx(), r, Token(r.ID), decision(), T0))
		wantDiff(t, f.wantState(1, router.Running).Decision, decision())
		wantDiff(t, f.runner(1), r)
	}},
}

var listTests = []test{
	{"jobs are listed newest first, by state or all", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3, 4)
		f.dispatch(2)
		f.receive(completed(3, "", "success"))
		ids := func(limit int, states ...router.JobState) []int64 {
			return f.ids(f.FindJobs(f.ctx(), router.JobFilter{States: states, Limit: limit}))
		}
		wantDiff(t, ids(9), []int64{4, 3, 2, 1})
		wantDiff(t, ids(2), []int64{4, 3})
		wantDiff(t, ids(9, router.Queued), []int64{4, 1})
		wantDiff(t, ids(9, router.Completed, router.Dispatched), []int64{3, 2})
		wantDiff(t, ids(9, router.Held), []int64(nil))
		wantDiff(t, ids(9, "' OR 1=1 --"), []int64(nil))
	}},
	{"jobs are counted by state", func(t *testing.T, f *fixture) {
		counts, err := f.Counts(f.ctx())
		f.must(err)
		wantDiff(t, counts, map[router.JobState]int{})
		f.queue(1, 2)
		f.receive(completed(3, "", "success"))
		counts, err = f.Counts(f.ctx())
		f.must(err)
		wantDiff(t, counts, map[router.JobState]int{router.Queued: 2, router.Completed: 1})
	}},
}
