package storetest

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
)

var claimTests = []test{
	{"a token is good once", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		c := f.claim(r)
		want := r
		want.State = router.RunnerClaimed
		wantDiff(t, c, router.Claimed{Runner: want, Job: f.job(1), Needed: true})
		wantDiff(t, f.runner(1), want)
		c, err := f.Claim(f.ctx(), Token(r.ID), T0)
		wantErr(t, err, router.ErrClaimed)
		if c.Needed {
			t.Error("a used token says that a runner is needed")
		}
	}},
	{"100 claims with one token find it good once", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		var needed atomic.Int32
		atOnce(100, func(int) {
			c, err := f.Claim(f.ctx(), Token(r.ID), T0)
			switch {
			case err == nil && c.Needed:
				needed.Add(1)
			case !errors.Is(err, router.ErrClaimed):
				t.Errorf("got error %v, want %v", err, router.ErrClaimed)
			}
		})
		if n := needed.Load(); n != 1 {
			t.Errorf("%d claims were good, want 1", n)
		}
	}},
	{"an unknown token is not found", func(t *testing.T, f *fixture) {
		wantErr(t, errOf(f.Claim(f.ctx(), Token("guess"), T0)), router.ErrNotFound)
	}},
	{"a claim may overtake the record of its registration", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.prepare(1)
		if !f.claim(r).Needed {
			t.Fatal("no runner is needed for a queued job")
		}
		r.NomadJob = r.ID
		f.must(f.Dispatched(f.ctx(), r, Token(r.ID), decision(), T0))
		f.wantState(1, router.Dispatched)
		f.wantRunner(1, r.ID, router.RunnerClaimed)
	}},
	{"a retrying job needs its runner too, if Nomad took it after all", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.prepare(1)
		f.must(f.Retry(f.ctx(), 1, T0.Add(time.Minute), router.CauseNomad, "timeout", nil, T0))
		if !f.claim(r).Needed {
			t.Error("no runner is needed for a retrying job")
		}
	}},
	{"a job that runs or ended needs no runner, and the token is spent", func(t *testing.T, f *fixture) {
		for i, d := range []router.Delivery{inProgress(1, "elsewhere"), completed(2, "", "cancelled")} {
			id := int64(i + 1)
			f.receive(queued(id))
			r := f.dispatch(id)
			f.receive(d)
			if c := f.claim(r); c.Needed || c.Runner.State != router.RunnerStopped || c.Job.ID != id {
				t.Errorf("got %+v", c)
			}
			f.wantRunner(id, r.ID, router.RunnerStopped)
			wantErr(t, errOf(f.Claim(f.ctx(), Token(r.ID), T0)), router.ErrClaimed)
		}
	}},
	{"a look-up of a token returns what a claim would find, and spends nothing", func(t *testing.T, f *fixture) {
		wantErr(t, errOf(f.Claimant(f.ctx(), Token("guess"))), router.ErrNotFound)
		r := f.dispatchNew(1)
		for range 2 {
			c, err := f.Claimant(f.ctx(), Token(r.ID))
			f.must(err)
			wantDiff(t, c, router.Claimed{Runner: r, Job: f.job(1), Needed: true})
		}
		f.receive(completed(1, "", "cancelled"))
		if c, err := f.Claimant(f.ctx(), Token(r.ID)); c.Needed || c.Job.ID != 1 || err != nil {
			t.Errorf("got %+v, %v", c, err)
		}
		f.claim(r)
		wantErr(t, errOf(f.Claimant(f.ctx(), Token(r.ID))), router.ErrClaimed)
	}},
	{"a runner whose job needs none serves the oldest of equal fit that has none", func(t *testing.T, f *fixture) {
		for id, at := range map[int64]time.Duration{1: 0, 2: 3, 3: 2, 4: 1, 5: 0} {
			d := queued(id)
			d.ReceivedAt = T0.Add((at - 4) * time.Second)
			if id == 5 {
				d.Job.Labels = []string{"self-hosted"}
			}
			f.receive(d)
		}
		r := f.dispatch(1)
		f.dispatch(4) // the oldest, but its own has started
		claimed := f.dispatch(2)
		f.lost(claimed.ID, T0.Add(time.Minute), "Nomad lost it", T0)
		gone := f.dispatch(3)
		f.lost(gone.ID, T0.Add(time.Hour), "Nomad lost it", T0)
		f.dispatch(5) // asks for other labels
		f.receive(inProgress(1, "another"))
		c, err := f.Claimant(f.ctx(), Token(r.ID))
		f.must(err)
		if !c.Needed || c.Job.ID != 3 {
			t.Errorf("the claimant is for job %d, needed: %v", c.Job.ID, c.Needed)
		}
		if c := f.claim(r); !c.Needed || c.Job.ID != 3 || c.Job.State != router.Dispatched || c.Runner.JobID != 3 || c.Runner.Try != 2 {
			t.Errorf("the claim got %+v", c)
		}
		f.wantRunner(3, r.ID, router.RunnerClaimed)
		f.wantState(3, router.Dispatched)
		wantErr(t, f.Prepare(f.ctx(), f.newRunner(3), Token("x"), T0.Add(time.Hour)), router.ErrNotWaiting)
		f.lost(r.ID, T0, "GitHub is away", T0)
		if j := f.wantState(3, router.Retrying); j.Try != 3 {
			t.Errorf("got try %d", j.Try)
		}
	}},
	{"a runner that starts takes the place of one that has not", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3)
		r, second := f.dispatch(1), f.dispatch(2)
		f.online(3)
		f.receive(completed(1, "", "cancelled"))
		if c := f.claim(r); !c.Needed || c.Job.ID != 2 {
			t.Fatalf("the claim got %+v", c)
		}
		f.wantRunner(2, r.ID, router.RunnerClaimed)
		f.wantRunner(1, second.ID, router.RunnerDispatched)
		if c := f.claim(second); c.Needed {
			t.Errorf("the runner left over is needed: %+v", c)
		}
	}},
	{"all prepared tokens are good, whichever Nomad was said to have, and one claim spends them", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.newRunner(1)
		for _, token := range []string{"first", "second", "third"} {
			f.must(f.Prepare(f.ctx(), r, Token(token), T0))
		}
		f.must(f.Dispatched(f.ctx(), r, Token("first"), decision(), T0))
		f.must(f.Dispatched(f.ctx(), r, Token("second"), decision(), T0)) // two processes were told that Nomad had taken theirs
		c, err := f.Claim(f.ctx(), Token("third"), T0)
		if err != nil || !c.Needed || c.Runner.ID != r.ID {
			t.Errorf("got %+v, %v", c, err)
		}
		for _, token := range []string{"first", "second", "third"} {
			wantErr(t, errOf(f.Claim(f.ctx(), Token(token), T0)), router.ErrClaimed)
		}
	}},
	{"either prepared token claims, but only one of them", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.newRunner(1)
		for _, token := range []string{"first", "second"} {
			f.must(f.Prepare(f.ctx(), r, Token(token), T0))
		}
		if c, err := f.Claim(f.ctx(), Token("second"), T0); err != nil || !c.Needed {
			t.Errorf("got %+v, %v", c, err)
		}
		wantErr(t, errOf(f.Claim(f.ctx(), Token("first"), T0)), router.ErrClaimed)
	}},
	{"a token that only Nomad still had becomes good", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.prepare(1)
		f.must(f.Dispatched(f.ctx(), r, Token("from before the database was lost"), decision(), T0))
		c, err := f.Claim(f.ctx(), Token("from before the database was lost"), T0)
		if err != nil || !c.Needed {
			t.Errorf("got %+v, %v", c, err)
		}
	}},
	{"a lost runner's job gets the next try, and its old token is spent", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		f.claim(r)
		f.lost(r.ID, T0, "GitHub answered 502", T0)
		j := f.wantState(1, router.Retrying)
		if j.Try != 2 || j.Failures != 1 || j.Reason != "GitHub answered 502" || !j.DueAt.Equal(T0) {
			t.Errorf("got try %d, %d failures, %q, due at %v", j.Try, j.Failures, j.Reason, j.DueAt)
		}
		f.wantRunner(1, r.ID, router.RunnerLost)
		wantErr(t, errOf(f.Claim(f.ctx(), Token(r.ID), T0)), router.ErrClaimed)
		f.lost(r.ID, T0, "again", T0) // changes nothing
		if j := f.job(1); j.Try != 2 {
			t.Errorf("losing it twice made it try %d", j.Try)
		}
		next := f.dispatch(1)
		if next.ID != "gha-1-2" || !f.claim(next).Needed {
			t.Errorf("the next runner is %+v", next)
		}
	}},
	{"the runner of an earlier try is not needed", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		first := f.dispatch(1)
		f.lost(first.ID, T0, "it never came", T0)
		f.dispatch(1)
		wantErr(t, errOf(f.Claim(f.ctx(), Token(first.ID), T0)), router.ErrClaimed)
		f.must(f.Dispatched(f.ctx(), first, Token(first.ID), decision(), T0)) // recorded late
		if j := f.wantState(1, router.Dispatched); j.Try != 2 {
			t.Errorf("got try %d, want 2", j.Try)
		}
	}},
	{"losing the runner of a job that ended changes no job", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		f.claim(r)
		f.receive(completed(1, "", "cancelled"))
		f.lost(r.ID, T0, "x", T0)
		f.wantState(1, router.Completed)
		f.wantRunner(1, r.ID, router.RunnerLost)
	}},
	{"a runner that has left the state in which it was to be given up is not lost", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		f.claim(r) // after a comparison with Nomad read it as dispatched
		if lost, err := f.Lost(f.ctx(), router.Runner{ID: r.ID, State: router.RunnerDispatched}, T0, router.CauseRunner, "it never claimed", T0); lost || err != nil {
			t.Errorf("Lost = %v, %v", lost, err)
		}
		f.wantState(1, router.Dispatched)
		f.wantRunner(1, r.ID, router.RunnerClaimed)
		if lost, err := f.Lost(f.ctx(), router.Runner{ID: r.ID, State: router.RunnerClaimed}, T0, router.CauseRunner, "it ended", T0); !lost || err != nil {
			t.Errorf("Lost = %v, %v", lost, err)
		}
	}},
	{"an online runner can be lost, a busy one cannot", func(t *testing.T, f *fixture) {
		f.queue(1, 2)
		online, _ := f.online(1)
		busy, name := f.online(2)
		f.receive(inProgress(2, name))
		if !f.lost(online.ID, T0.Add(time.Minute), "its Nomad job ended", T0) || f.lost(busy.ID, T0, "x", T0) {
			t.Error("Lost reports the wrong ones")
		}
		if j := f.wantState(1, router.Retrying); j.Try != 2 || !j.DueAt.Equal(T0.Add(time.Minute)) {
			t.Errorf("got try %d, due at %v", j.Try, j.DueAt)
		}
		f.wantState(2, router.Running)
	}},
	{"a job that is not due is not prepared", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		f.must(f.Retry(f.ctx(), 1, T0.Add(time.Minute), router.CauseNomad, "Nomad is away", decision(), T0))
		wantErr(t, f.Prepare(f.ctx(), f.newRunner(1), Token("x"), T0), router.ErrNotWaiting)
		f.must(f.Prepare(f.ctx(), f.newRunner(1), Token("x"), T0.Add(time.Minute)))
	}},
	{"Recover gives up what was claimed and not configured", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3, 4, 5)
		f.dispatch(1) // not claimed
		f.claim(f.dispatch(2))
		f.claim(f.prepare(3)) // crashed before Dispatched
		f.online(4)
		doubtful := f.dispatch(5) // crashed while it was answered
		f.claim(doubtful)
		f.must(f.Configured(f.ctx(), doubtful.ID, "doubtful", 99, target, T0))
		n, err := f.Recover(f.ctx(), T0.Add(time.Second), T0.Add(time.Minute), T0.Add(time.Second))
		f.must(err)
		if n != 3 {
			t.Errorf("Recover gave up %d runners, want 3", n)
		}
		if j := f.wantState(5, router.Retrying); j.Try != 2 || !j.DueAt.Equal(T0.Add(time.Minute)) {
			t.Errorf("job 5: got try %d, due at %v", j.Try, j.DueAt)
		}
		f.receive(inProgress(5, "doubtful")) // it lives after all
		f.wantState(5, router.Running)
		f.wantState(1, router.Dispatched)
		for _, id := range []int64{2, 3} {
			if j := f.wantState(id, router.Retrying); j.Try != 2 || !j.DueAt.Equal(T0.Add(time.Second)) {
				t.Errorf("job %d: got try %d, due at %v", id, j.Try, j.DueAt)
			}
		}
		f.wantState(4, router.Dispatched)
		if n, err := f.Recover(f.ctx(), T0, T0, T0); n != 0 || err != nil {
			t.Errorf("a second Recover gave up %d, %v", n, err)
		}
	}},
}
