package storetest

import (
	"testing"
	"time"

	"switchyard/router"
)

var operatorTests = []test{
	{"a job is decided again from where no runner serves it, with a try whose runner never was", func(t *testing.T, f *fixture) {
		again := func(id int64) bool {
			done, err := f.Redecide(f.ctx(), id, router.SourceOperator, "an operator says so", T0.Add(time.Hour))
			f.must(err)
			return done
		}
		for id, state := range map[int64]router.JobState{1: router.Ignored, 2: router.Denied, 3: router.Unroutable} {
			f.receive(queued(id))
			f.must(f.Settle(f.ctx(), id, state, "", "no", decision(), T0))
			if j := f.job(id); !again(id) {
				t.Errorf("a job that is %s was not put back", j.State)
			}
			if j := f.wantState(id, router.Queued); j.Try != 1 || !j.DueAt.Equal(T0.Add(time.Hour)) || j.Reason != "an operator says so" {
				t.Errorf("job %d is at try %d, due at %s: %s", id, j.Try, j.DueAt, j.Reason)
			}
		}
		f.receive(queued(4))
		f.prepare(4) // Nomad was asked, and refused it
		f.must(f.Settle(f.ctx(), 4, router.Unroutable, "", "no", decision(), T0))
		again(4)
		if j := f.wantState(4, router.Queued); j.Try != 1 {
			t.Errorf("a job that Nomad never had is at try %d", j.Try)
		}
		f.receive(queued(5))
		r := f.dispatch(5)
		if again(5) {
			t.Error("a dispatched job was decided again")
		}
		f.claim(r)
		f.lost(r.ID, T0, "GitHub refuses it", T0)
		f.must(f.Settle(f.ctx(), 5, router.Unroutable, "", "no", decision(), T0))
		again(5)
		if j := f.wantState(5, router.Queued); j.Try != 2 {
			t.Errorf("a job whose first runner was lost is at try %d", j.Try)
		}
		for id, d := range map[int64]router.Delivery{6: inProgress(6, "x"), 7: completed(7, "", "cancelled"), 8: NewDelivery(8, "waiting", "waiting")} {
			f.receive(d)
			if again(id) {
				t.Errorf("job %d was decided again", id)
			}
		}
		wantErr(t, errOf(f.Redecide(f.ctx(), 99, router.SourceOperator, "x", T0)), router.ErrNotFound)
	}},
	{"a cancelled job leaves its place to another", func(t *testing.T, f *fixture) {
		d := decision()
		d.Limit = &router.Limit{Running: 1, Per: "rule", Key: "linux"}
		for id := int64(1); id <= 3; id++ {
			f.receive(queued(id))
			f.must(errOf(f.Admit(f.ctx(), id, d, T0)))
		}
		cancel := func(id int64) {
			t.Helper()
			done, err := f.Cancel(f.ctx(), id, "cancelled", T0)
			f.must(err)
			if !done {
				t.Errorf("job %d was not cancelled", id)
			}
			f.wantState(id, router.Denied)
		}
		cancel(2) // it had none
		f.wantState(3, router.Held)
		cancel(1)
		f.wantState(3, router.Queued)
		admitted, err := f.Admit(f.ctx(), 3, d, T0)
		f.must(err)
		if !admitted {
			t.Error("there is no place for job 3")
		}
		// Taken up again, job 1 has no place of old.
		f.must(errOf(f.Redecide(f.ctx(), 1, router.SourceOperator, "again", T0)))
		if admitted, err = f.Admit(f.ctx(), 1, d, T0); admitted || err != nil {
			t.Errorf("job 1 has a place: %t, %v", admitted, err)
		}
		f.receive(inProgress(3, "x"))
		if done, err := f.Cancel(f.ctx(), 3, "cancelled", T0); done || err != nil {
			t.Errorf("a running job was cancelled: %t, %v", done, err)
		}
		wantErr(t, errOf(f.Cancel(f.ctx(), 99, "x", T0)), router.ErrNotFound)
	}},
	{"a runner has a note of an operator until it ends", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		f.must(f.Note(f.ctx(), r.ID, "an operator stops it", T0))
		events, err := f.Timeline(f.ctx(), 1)
		f.must(err)
		if e := events[len(events)-1]; e.Source != router.SourceOperator || e.RunnerID != r.ID || e.What != "an operator stops it" {
			t.Errorf("the last line is %+v", e)
		}
		f.lost(r.ID, T0, "gone", T0)
		f.must(f.Note(f.ctx(), r.ID, "too late", T0))
		got, err := f.Runner(f.ctx(), r.ID)
		f.must(err)
		if got.Reason != "gone" || got.State != router.RunnerLost {
			t.Errorf("the runner is %s: %s", got.State, got.Reason)
		}
		wantErr(t, f.Note(f.ctx(), "none", "x", T0), router.ErrNotFound)
		wantErr(t, errOf(f.Runner(f.ctx(), "none")), router.ErrNotFound)
	}},
}
