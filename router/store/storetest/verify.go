package storetest

import (
	"errors"
	"testing"
	"time"

	"switchyard/router"
)

var verifyTests = []test{
	{"the first answer to a runner's question stays", func(t *testing.T, f *fixture) {
		f.queue(1)
		r := f.newRunner(1)
		r.Rule, r.Rules = "linux", "v1"
		f.must(f.Prepare(f.ctx(), r, Token(r.ID), T0))
		hash := Token("verify")
		for range 2 { // a registration is tried again
			f.must(f.Verifies(f.ctx(), r.ID, hash, T0))
		}
		v, err := f.Verification(f.ctx(), hash)
		f.must(err)
		want := router.Verification{Runner: router.Runner{ID: r.ID, JobID: 1, State: router.RunnerDispatched, Name: r.Name, Fit: r.Fit, Rule: "linux"}}
		wantDiff(t, v, want)
		want.Asked, want.Refusal = "acme/open 7 1", "it is denied"
		for _, answer := range []string{"it is denied", ""} {
			v, err = f.Verified(f.ctx(), hash, "acme/open 7 1", answer, T0)
			f.must(err)
			wantDiff(t, v, want)
		}
		v, err = f.Verified(f.ctx(), hash, "acme/web 8 1", "", T0)
		f.must(err)
		wantDiff(t, v, want)
		if got := f.runner(1); got.Reason != "it ends its job: it is denied" {
			t.Errorf("the runner's reason is %q", got.Reason)
		}
		trail, err := f.Audits(f.ctx(), 0, 10)
		f.must(err)
		if len(trail) != 1 || trail[0].Who != "GitHub" || trail[0].What != "runners/"+r.ID || trail[0].Result != "it is denied" {
			t.Errorf("the audit trail has %+v, want the refusal once", trail)
		}
		if _, err := f.Verification(f.ctx(), Token("guess")); !errors.Is(err, router.ErrNotFound) {
			t.Errorf("an unknown token: %v", err)
		}
	}},
	{"the jobs of a run that a runner may have", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3)
		other := queued(4)
		other.Job.RunID = 8
		f.receive(other)
		f.receive(completed(2, "x", "success"))
		f.must(f.Settle(f.ctx(), 3, router.Denied, "", "no", decision(), T0))
		if got := f.ids(f.JobsOfRun(f.ctx(), 7)); len(got) != 2 || got[0] != 1 || got[1] != 3 {
			t.Errorf("jobs %v of run 7, want 1 and 3", got)
		}
	}},
	{"the runner of a failed job is kept, and no other", func(t *testing.T, f *fixture) {
		end := func(id int64, keep time.Duration, conclusion string) router.Runner {
			f.queue(id)
			r := f.newRunner(id)
			r.Keep = keep
			f.must(f.Prepare(f.ctx(), r, Token(r.ID), T0))
			r.NomadJob, r.NomadAt = r.ID, router.NomadAt{Namespace: "ci", Region: "tokyo"}
			f.must(f.Dispatched(f.ctx(), r, Token(r.ID), decision(), T0))
			f.claim(r)
			f.must(f.Configured(f.ctx(), r.ID, r.ID+"-abc", 99, target, T0))
			f.must(f.Online(f.ctx(), r.ID, T0))
			f.receive(inProgress(id, r.ID+"-abc"))
			f.receive(completed(id, r.ID+"-abc", conclusion))
			return f.runner(id)
		}
		bad, late, good, cancelled, plain := end(1, time.Hour, "failure"), end(2, time.Hour, "timed_out"), end(3, time.Hour, "success"), end(4, time.Hour, "cancelled"), end(5, 0, "failure")
		const reason = "its job 1 failed; it stays until 2026-03-01T13:00:00Z: nomad alloc exec -region tokyo -namespace ci -task runner -job gha-1-1 /bin/bash"
		if bad.Reason != reason {
			t.Errorf("reason %q, want %q", bad.Reason, reason)
		}
		live := f.live()
		for r, want := range map[string]time.Time{bad.ID: T0.Add(time.Hour), late.ID: T0.Add(time.Hour), good.ID: {}, cancelled.ID: {}, plain.ID: {}} {
			if got := live[r].KeptUntil; !got.Equal(want) {
				t.Errorf("%s is kept until %v, want %v", r, got, want)
			}
		}
		unkept, err := f.Unkept(f.ctx())
		f.must(err)
		var ids []string
		for _, r := range unkept {
			ids = append(ids, r.ID)
		}
		if len(ids) != 2 || ids[0] != good.ID || ids[1] != cancelled.ID {
			t.Errorf("%v need not stay, want %s and %s", ids, good.ID, cancelled.ID)
		}
		f.must(f.Ended(f.ctx(), []string{good.ID, cancelled.ID}, T0))
		if unkept, err := f.Unkept(f.ctx()); err != nil || len(unkept) != 0 {
			t.Errorf("%v need not stay after their end, %v", unkept, err)
		}
		trail, err := f.Audits(f.ctx(), 0, 10)
		f.must(err)
		if len(trail) != 2 || trail[1].What != "runners/"+bad.ID || trail[1].Result != reason {
			t.Errorf("the audit trail has %+v", trail)
		}
		f.receive(completed(1, bad.Name, "failure")) // again
		if again := f.runner(1); again.Reason != reason {
			t.Errorf("told again, its reason is %q", again.Reason)
		}
	}},
}
