package storetest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"switchyard/router"
)

// admitSibling admits a job among those of its run, and reports whether it has a place.
func (f *fixture) admitSibling(jobID int64, now time.Time) bool {
	f.t.Helper()
	admitted, err := f.AdmitSibling(f.ctx(), f.job(jobID), decision(), now)
	f.must(err)
	return admitted
}

// admitted queues jobs of a run, and returns those that have a place.
func (f *fixture) admitted(run int64, ids ...int64) (placed []int64) {
	f.t.Helper()
	for _, id := range ids {
		d := queued(id)
		d.Job.RunID = run
		f.receive(d)
		if f.admitSibling(id, T0) {
			placed = append(placed, id)
		}
	}
	return placed
}

// starts says that a job of a run runs on a runner that is not ours.
func (f *fixture) starts(run int64, ids ...int64) {
	f.t.Helper()
	for _, id := range ids {
		d := inProgress(id, "")
		d.Job.RunID = run
		f.receive(d)
	}
}

func (f *fixture) in(state router.JobState) (ids []int64) {
	f.t.Helper()
	ids = f.ids(f.FindJobs(f.ctx(), router.JobFilter{States: []router.JobState{state}, Limit: 1000}))
	slices.Sort(ids)
	return ids
}

// idles says that GitHub gave the runner of a job nothing.
func (f *fixture) idles(jobID int64, now time.Time) {
	f.t.Helper()
	r, _ := f.online(jobID)
	lost, err := f.Lost(f.ctx(), router.Runner{ID: r.ID}, now.Add(time.Minute), router.CauseNoJob, "idle", now)
	f.must(err)
	if !lost {
		f.t.Fatalf("runner %s is not lost", r.ID)
	}
}

func siblings(from, to int64) (ids []int64) {
	for id := from; id <= to; id++ {
		ids = append(ids, id)
	}
	return ids
}

var siblingTests = []test{
	{"a few jobs of a matrix get a place, and the next when one ends", func(t *testing.T, f *fixture) {
		wantDiff(t, f.admitted(7, siblings(1, 5)...), []int64{1, 2, 3})
		j := f.wantState(4, router.Held)
		if j.Cause != router.CauseSiblings || !strings.Contains(j.Reason, "3 runners are enough for now") {
			t.Errorf("%s: %s", j.Cause, j.Reason)
		}
		f.must(f.Retry(f.ctx(), 1, T0, router.CauseNomad, "later", nil, T0))
		if !f.admitSibling(1, T0) {
			t.Error("a job lost its place")
		}
		wantDiff(t, f.admitted(8, 11), []int64{11}) // another run
		d := completed(1, "", "cancelled")
		d.ReceivedAt = T0.Add(time.Minute)
		f.receive(d)
		if j := f.wantState(4, router.Queued); !j.DueAt.Equal(d.ReceivedAt) {
			t.Errorf("due at %v, want %v", j.DueAt, d.ReceivedAt)
		}
		f.wantState(5, router.Held)
		f.receive(completed(2, "", "cancelled"))
		f.wantState(5, router.Queued)
		if !f.admitSibling(4, T0) || !f.admitSibling(5, T0) {
			t.Error("the places that became free are not given")
		}
		wantErr(t, errOf(f.AdmitSibling(f.ctx(), f.job(1), decision(), T0)), router.ErrNotWaiting)
	}},
	{"every way out of a place gives it to the next", func(t *testing.T, f *fixture) {
		wantDiff(t, f.admitted(7, siblings(1, 8)...), []int64{1, 2, 3})
		f.must(f.Settle(f.ctx(), 1, router.Unroutable, "", "no", decision(), T0))
		f.wantState(4, router.Queued)
		f.must(errOf(f.Cancel(f.ctx(), 2, "no", T0)))
		f.wantState(5, router.Queued)
		d := NewDelivery(3, "queued", "waiting")
		d.ID, d.Source = "", router.SourceGitHub
		f.receive(d)
		f.wantState(3, router.Held)
		f.wantState(6, router.Queued)
		f.must(errOf(f.Cancel(f.ctx(), 7, "no", T0))) // it had none
		wantDiff(t, f.in(router.Held), []int64{3, 8})
	}},
	{"a matrix gets three places for each job that runs, once three do, and the next time at once", func(t *testing.T, f *fixture) {
		f.admitted(7, siblings(1, 20)...)
		f.starts(7, 1, 2)
		wantDiff(t, f.in(router.Held), siblings(4, 20))
		f.starts(7, 3)
		wantDiff(t, f.in(router.Held), siblings(10, 20))
		f.receive(completed(1, "", "success")) // so short that never nine run
		wantDiff(t, f.in(router.Held), siblings(11, 20))
		f.starts(7, 4, 5)
		wantDiff(t, f.in(router.Held), siblings(14, 20))
		wantDiff(t, len(f.admitted(8, siblings(101, 120)...)), 12)
	}},
	{"a job whose runner is idle while its siblings run waits until one ends", func(t *testing.T, f *fixture) {
		f.admitted(7, siblings(1, 6)...)
		f.starts(7, 1)
		f.idles(2, T0)
		f.idles(3, T0)
		j := f.wantState(2, router.Held)
		if j.Cause != router.CauseSiblings || j.Try != 2 || !strings.Contains(j.Reason, "idle; others of its run run") {
			t.Errorf("%s at try %d: %s", j.Cause, j.Try, j.Reason)
		}
		for _, id := range []int64{1, 2, 3, 4, 5} { // one after another
			wantDiff(t, f.in(router.Running), []int64{id})
			wantDiff(t, f.in(router.Held), siblings(id+1, 6))
			f.receive(completed(id, "", "success"))
			wantDiff(t, f.in(router.Queued), []int64{id + 1})
			if !f.admitSibling(id+1, T0) {
				t.Errorf("job %d gets no place", id+1)
			}
			f.starts(7, id+1)
		}
		// Next time it begins with as many as a small run.
		wantDiff(t, f.admitted(8, siblings(101, 106)...), siblings(101, 103))
		f.starts(8, siblings(101, 103)...) // one more is tried
		wantDiff(t, f.in(router.Held), []int64{105, 106})
		f.admitSibling(104, T0)
		f.starts(8, 104) // and GitHub hands that out, too
		wantDiff(t, f.in(router.Held), []int64(nil))
	}},
	{"jobs with names of their own wait for one another only if GitHub left the runner of one idle", func(t *testing.T, f *fixture) {
		names := func(id int64, name string, run int64) {
			d := queued(id)
			d.Job.Name, d.Job.RunID = name, run
			f.receive(d)
		}
		for id, name := range map[int64]string{1: "one", 2: "two", 3: "three", 4: "four"} {
			names(id, name, 7)
			f.dispatch(id)
		}
		d := inProgress(1, "")
		d.Job.Name = "one"
		f.receive(d)
		r := f.runner(2)
		f.claim(r)
		f.must(errOf(f.Lost(f.ctx(), router.Runner{ID: r.ID}, T0, router.CauseNoJob, "idle", T0)))
		f.wantState(2, router.Held)
		f.wantState(3, router.Dispatched)
		for id := int64(11); id <= 14; id++ {
			names(id, "x", 8)
			if j := f.job(id); j.Wary != router.WaryOfSiblings || f.admitSibling(id, T0) != (id < 14) {
				t.Errorf("job %d is wary of %d, and %s", id, j.Wary, f.job(id).State)
			}
		}
	}},
	{"a runner that is idle while nothing of its run runs is not held", func(t *testing.T, f *fixture) {
		f.admitted(7, 1, 2)
		f.starts(8, 9)
		f.idles(1, T0)
		f.wantState(1, router.Retrying)
	}},
	{"an end also ends the wait of a job of the run that was idle for another reason", func(t *testing.T, f *fixture) {
		f.admitted(7, 1)
		f.starts(7, 1)
		d := queued(2)
		d.Job.Labels = []string{"other"}
		f.receive(d)
		f.idles(2, T0.Add(time.Hour))
		d = completed(1, "", "success")
		d.ReceivedAt = T0.Add(time.Minute)
		f.receive(d)
		if j := f.wantState(2, router.Retrying); !j.DueAt.Equal(d.ReceivedAt) {
			t.Errorf("due at %v, want %v", j.DueAt, d.ReceivedAt)
		}
	}},
	{"a job whose runner goes to a sibling that waits gives it that place", func(t *testing.T, f *fixture) {
		f.admitted(7, siblings(1, 5)...)
		_, name := f.online(1)
		f.receive(inProgress(5, name))
		f.wantState(1, router.Retrying)
		if f.admitSibling(1, T0) {
			t.Error("four jobs have a place")
		}
		f.receive(completed(5, name, "success"))
		wantDiff(t, f.in(router.Queued), []int64{1, 2, 3}) // 2 and 3 have places
		f.wantState(4, router.Held)
	}},
	{"a sibling that waits has no place under its rule's limit", func(t *testing.T, f *fixture) {
		f.admitted(7, siblings(1, 3)...)
		d := limited(1, "linux")
		other := queued(9)
		other.Job.RunID = 9
		f.queue(4)
		f.receive(other)
		if !f.admit(4, d) || f.admit(9, d) {
			t.Fatal("the limit of 1 is not kept")
		}
		admitted, err := f.AdmitSibling(f.ctx(), f.job(4), d, T0)
		if f.must(err); admitted {
			t.Fatal("four jobs have a place")
		}
		f.wantState(9, router.Queued)
	}},
	{"a crowd that is capped gets one more place when none of it has ended for hours", func(t *testing.T, f *fixture) {
		f.admitted(7, siblings(1, 5)...)
		f.starts(7, 1)
		f.idles(2, T0)
		f.idles(3, T0)
		reconsidered := func(at time.Duration, want int) {
			t.Helper()
			n, err := f.Reconsider(f.ctx(), "", T0.Add(at))
			if f.must(err); n != want {
				t.Errorf("after %v, %d jobs go on; want %d", at, n, want)
			}
		}
		reconsidered(time.Hour, 0)
		reconsidered(2*time.Hour, 1)
		wantDiff(t, f.in(router.Queued), []int64{2})
		f.admitSibling(2, T0)
		reconsidered(3*time.Hour, 0)
	}},
	{"GitHub is asked first about a job that deploys, and about those of which it held one back", func(t *testing.T, f *fixture) {
		d := queued(1)
		d.Deploys = true
		f.receive(d)
		f.queue(2)
		for id, want := range map[int64]bool{1: true, 2: false} {
			if held, err := f.HoldToAsk(f.ctx(), id, T0); held != want || err != nil {
				t.Errorf("job %d is held %t (%v), want %t", id, held, err, want)
			}
		}
		if j := f.wantState(1, router.Held); j.Cause != router.CauseApproval || !strings.Contains(j.Reason, "GitHub is asked whether it may start") {
			t.Errorf("%s: %s", j.Cause, j.Reason)
		}
		says := func(id int64, status string) {
			d := NewDelivery(id, "queued", status)
			d.ID, d.Source = "", router.SourceGitHub
			f.receive(d)
		}
		says(1, "queued")
		if j := f.wantState(1, router.Queued); j.Wary != router.WaryOfSiblings {
			t.Errorf("it is wary of %d", j.Wary)
		}
		says(2, "pending")
		f.wantState(2, router.Held)
		other := queued(4)
		other.Job.Workflow = "other"
		f.receive(other)
		f.queue(3)
		if a, b := f.job(3).Wary, f.job(4).Wary; a != router.WaryOfGitHub || b != 0 {
			t.Errorf("they are wary of %d and %d", a, b)
		}
		wantErr(t, errOf(f.HoldToAsk(f.ctx(), 99, T0)), router.ErrNotFound)
		// Nobody needs that for ever.
		f.must(errOf(f.Prune(f.ctx(), T0.Add(time.Minute), T0, T0, T0)))
		f.queue(5)
		if j := f.job(5); j.Wary != 0 {
			t.Errorf("it is wary of %d", j.Wary)
		}
	}},
}
