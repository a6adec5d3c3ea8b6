package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"switchyard/router"
)

var runnerTests = []test{
	{"a runner is busy with its job, then finished", func(t *testing.T, f *fixture) {
		r, name := f.onlineNew(1)
		got := f.wantRunner(1, r.ID, router.RunnerOnline)
		if got.Name != name || got.GitHubID != 99 {
			t.Errorf("got name %q, ID %d", got.Name, got.GitHubID)
		}
		f.receive(inProgress(1, name))
		f.wantRunner(1, r.ID, router.RunnerBusy)
		f.receive(completed(1, name, "success"))
		f.wantRunner(1, r.ID, router.RunnerFinished)
		if f.wantState(1, router.Completed).RunnerName != name {
			t.Error("the job lost its runner's name")
		}
	}},
	{"another runner of the same name is somebody else's", func(t *testing.T, f *fixture) {
		of := func(d router.Delivery, runner int64) router.Delivery { d.RunnerID = runner; return d }
		r, name := f.onlineNew(1)
		f.receive(of(inProgress(2, name), 100))
		f.wantRunner(1, r.ID, router.RunnerOnline)
		if j := f.wantState(2, router.Running); j.RunnerName != "" {
			t.Errorf("job 2 has the runner %q in the database", j.RunnerName)
		}
		f.receive(of(completed(2, name, "success"), 100))
		f.wantRunner(1, r.ID, router.RunnerOnline)
		f.wantState(1, router.Dispatched)
		f.receive(of(inProgress(1, name), 99))
		f.wantRunner(1, r.ID, router.RunnerBusy)
		f.receive(of(completed(1, name, "success"), 99))
		f.wantRunner(1, r.ID, router.RunnerFinished)
	}},
	{"a job that was refused and that one of our runners serves says so, once", func(t *testing.T, f *fixture) {
		states := map[int64]router.JobState{2: router.Denied, 3: router.Unroutable, 4: router.Ignored, 5: router.Denied}
		f.receive(queued(1))
		for id, state := range states {
			f.receive(queued(id))
			f.must(f.Settle(f.ctx(), id, state, "", "forks get no runner", nil, T0))
		}
		for id := int64(2); id <= 5; id++ {
			r := f.dispatch(1)
			f.claim(r)
			name := r.ID + "-abc"
			f.must(f.Configured(f.ctx(), r.ID, name, 99, router.Target{Owner: "acme"}, T0))
			f.must(f.Online(f.ctx(), r.ID, T0))
			want := fmt.Sprintf("%s, but runner %s, started for job 1, took it: GitHub gives an organization's runner to any job whose labels it has; "+
				"keep jobs apart by repository scope, a runner group or a compound label; it was %s as: forks get no runner", states[id], name, states[id])
			if id != 5 { // of which completed comes first
				f.receive(inProgress(id, name))
				again := inProgress(id, name)
				again.ID = fmt.Sprint(id, "from a second hook")
				f.receive(again)
				if j := f.job(id); j.Reason != want || (j.State == router.Ignored) != (id == 4) {
					t.Errorf("job %d is %s: %s", id, j.State, j.Reason)
				}
			}
			f.receive(completed(id, name, "success"))
			if id != 4 {
				want = "ended on GitHub: success; " + want
			}
			if j := f.job(id); j.Reason != want {
				t.Errorf("job %d ended: %s; want %s", id, j.Reason, want)
			}
			if why, err := f.Overruled(f.ctx(), id); err != nil || !strings.HasSuffix(want, why) || why == "" {
				t.Errorf("job %d: %q, %v", id, why, err)
			}
			f.wantState(1, router.Retrying)
		}
		audits, err := f.Audits(f.ctx(), 0, 10)
		f.must(err)
		if len(audits) != 4 || audits[3].Who != "GitHub" || audits[3].Did != "ran a job that was denied" || audits[3].What != "jobs/2" || !strings.Contains(audits[3].Result, "started for job 1") {
			t.Errorf("the audit trail is %+v", audits)
		}
		if why, err := f.Overruled(f.ctx(), 1); why != "" || err != nil {
			t.Errorf("job 1: %q, %v", why, err)
		}
	}},
	{"a job that was refused and runs elsewhere, or ended without a runner, says nothing of ours", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 2; id++ {
			f.receive(queued(id))
			f.must(f.Settle(f.ctx(), id, router.Denied, "", "no", nil, T0))
		}
		f.receive(inProgress(1, "somebody's"))
		f.receive(completed(2, "", "cancelled"))
		audits, err := f.Audits(f.ctx(), 0, 10)
		f.must(err)
		if f.job(1).Reason != "runs on somebody's" || f.job(2).Reason != "ended on GitHub: cancelled" || len(audits) != 0 {
			t.Errorf("got %q, %q, %+v", f.job(1).Reason, f.job(2).Reason, audits)
		}
	}},
	{"a configured runner remembers where it is registered", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r, _ := f.online(1)
		wantDiff(t, f.wantRunner(1, r.ID, router.RunnerOnline).Target, target)
	}},
	{"a stopped runner's job gets another, if it waits for it", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3)
		waits := f.dispatch(1)
		idle, name := f.online(2)
		f.receive(inProgress(2, "another"))
		busy, busyName := f.online(3)
		f.receive(inProgress(3, busyName))
		for _, tt := range []struct {
			r    router.Runner
			in   router.RunnerState
			want bool
		}{
			{waits, router.RunnerOnline, false}, // it is not
			{waits, router.RunnerDispatched, true},
			{waits, router.RunnerDispatched, false},
			{idle, router.RunnerOnline, true},
			{busy, router.RunnerOnline, false},
			{busy, router.RunnerBusy, false},
		} {
			tt.r.State = tt.in
			stopped, err := f.Stopped(f.ctx(), tt.r, "nothing to do", T0)
			f.must(err)
			if stopped != tt.want {
				t.Errorf("stopping %s in %s = %v, want %v", tt.r.ID, tt.in, stopped, tt.want)
			}
		}
		f.wantRunner(1, waits.ID, router.RunnerStopped)
		if j := f.wantState(1, router.Retrying); j.Try != 2 || j.Failures != 0 || !j.DueAt.Equal(T0) {
			t.Errorf("got try %d, %d failures, due at %v", j.Try, j.Failures, j.DueAt)
		}
		f.wantRunner(2, idle.ID, router.RunnerStopped)
		f.wantState(2, router.Running)
		f.wantRunner(3, busy.ID, router.RunnerBusy)
		f.receive(completed(2, name, "success")) // it had a job after all: it stays stopped
		f.wantRunner(2, idle.ID, router.RunnerStopped)
		wantErr(t, errOf(f.Stopped(f.ctx(), router.Runner{ID: "gha-9-1", State: router.RunnerOnline}, "x", T0)), router.ErrNotFound)
		wantErr(t, errOf(f.Claim(f.ctx(), Token(waits.ID), T0)), router.ErrClaimed)
	}},
	{"leftovers are the runners that no job waits for", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3, 4, 5, 6, 7)
		cancelled := f.dispatch(1)
		f.receive(completed(1, "", "cancelled"))
		online, _ := f.online(2)
		f.receive(inProgress(2, "another"))
		f.dispatch(3)
		_, busy := f.online(4)
		f.receive(inProgress(4, busy))
		claimed := f.dispatch(5)
		f.claim(claimed)
		f.receive(completed(5, "", "cancelled"))
		lost := f.dispatch(6)
		f.lost(lost.ID, T0, "x", T0)
		prepared := f.prepare(7)
		f.must(f.Settle(f.ctx(), 7, router.Unroutable, "", "Nomad refuses it", nil, T0))
		ids := func(of int64) (ids []string) {
			list, err := f.Leftovers(f.ctx(), of)
			f.must(err)
			for _, r := range list {
				ids = append(ids, r.ID)
			}
			slices.Sort(ids)
			return ids
		}
		wantDiff(t, ids(0), []string{cancelled.ID, online.ID, claimed.ID, prepared.ID})
		wantDiff(t, ids(2), []string{online.ID})
		wantDiff(t, ids(3), []string(nil))
	}},
	{"a leftover is used again for the oldest job of equal fit without a runner", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 5; id++ {
			d := queued(id)
			d.ReceivedAt = T0.Add(-time.Duration(id) * time.Second)
			if id == 5 {
				d.Job.Labels = []string{"self-hosted"}
			}
			f.receive(d)
		}
		left, name := f.online(1)
		for id := int64(2); id <= 5; id++ {
			f.lost(f.dispatch(id).ID, T0.Add(time.Minute), "x", T0)
		}
		f.must(f.Prepare(f.ctx(), f.newRunner(4), Token("4"), T0.Add(time.Minute))) // is about to have one
		reuse := func(id string, want int64) {
			t.Helper()
			got, err := f.Reuse(f.ctx(), id, T0)
			f.must(err)
			if got != want {
				t.Errorf("runner %s is used for job %d, want %d", id, got, want)
			}
		}
		reuse(left.ID, 0) // its own job waits for it
		f.receive(inProgress(1, "another"))
		reuse(left.ID, 3)
		reuse(left.ID, 0)
		f.wantRunner(3, left.ID, router.RunnerOnline)
		if j := f.wantState(3, router.Dispatched); j.Try != 2 {
			t.Errorf("got try %d", j.Try)
		}
		wantErr(t, f.Prepare(f.ctx(), f.newRunner(3), Token("3"), T0.Add(time.Minute)), router.ErrNotWaiting)
		f.receive(inProgress(3, name))
		f.wantRunner(3, left.ID, router.RunnerBusy)
		reuse("gha-77-1", 0)
	}},
	{"a job of elsewhere that names our runner has not got it", func(t *testing.T, f *fixture) {
		of := func(d router.Delivery, owner, repo string) router.Delivery {
			d.ID += owner + repo
			d.Job.Repo.Owner, d.Job.Repo.Name, d.Job.Repo.FullName = owner, repo, owner+"/"+repo
			return d
		}
		f.queue(1, 2)
		online, name := f.online(1) // in acme/web
		waits := f.dispatch(2)      // its name can be guessed
		f.receive(of(inProgress(11, name), "acme", "other"))
		f.receive(of(inProgress(12, name), "evil", "web"))
		f.receive(of(completed(13, name, "success"), "evil", "web"))
		f.receive(of(inProgress(14, waits.ID), "evil", "web"))
		f.wantRunner(1, online.ID, router.RunnerOnline)
		f.wantRunner(2, waits.ID, router.RunnerDispatched)
		f.wantState(1, router.Dispatched)
		f.wantState(2, router.Dispatched)

		f.receive(of(inProgress(1, name), "Acme", "Web"))
		f.wantRunner(1, online.ID, router.RunnerBusy)
		if r := f.live()[online.ID]; r.Serves != 1 {
			t.Errorf("it serves job %d, want 1: the limit of another's would stop it", r.Serves)
		}
		f.receive(of(completed(12, name, "success"), "evil", "web"))
		f.wantRunner(1, online.ID, router.RunnerBusy)
		f.receive(completed(1, name, "success"))
		f.receive(of(inProgress(15, name), "evil", "web"))
		f.must(f.Ended(f.ctx(), []string{online.ID}, T0))
		f.wantRunner(1, online.ID, router.RunnerFinished)
	}},
	{"a runner of an organization can have any job of it, of an enterprise any at all", func(t *testing.T, f *fixture) {
		for id, at := range []router.Target{{Owner: "acme"}, {Enterprise: "big"}} {
			id := int64(id + 1)
			f.receive(queued(id))
			r, name := f.online(id)
			f.must(f.Configured(f.ctx(), r.ID, name, 99, at, T0))
			d := inProgress(id+10, name)
			d.Job.Repo.Name = "other"
			if at.Owner == "" {
				d.Job.Repo.Owner = "someone"
			}
			f.receive(d)
			f.wantRunner(id, r.ID, router.RunnerBusy)
			if r := f.live()[r.ID]; r.Serves != id+10 {
				t.Errorf("it serves job %d, want %d", r.Serves, id+10)
			}
		}
	}},
	{"where runners are registered is told while their jobs are open, and for a while after", func(t *testing.T, f *fixture) {
		f.onlineNew(1)
		_, name := f.onlineNew(2)
		f.receive(completed(2, name, "success"))
		r, name := f.onlineNew(3)
		f.must(f.Configured(f.ctx(), r.ID, name, 99, router.Target{Owner: "acme"}, T0))
		f.lost(r.ID, T0, "x", T0)
		f.dispatchNew(4) // registered nowhere
		for since, want := range map[time.Duration]int{-time.Hour: 2, time.Hour: 0} {
			if targets, err := f.Targets(f.ctx(), T0.Add(since)); err != nil || len(targets) != want {
				t.Errorf("since %v: %v, %v; want %d", since, targets, err, want)
			}
		}
		f.receive(completed(1, "", "cancelled"))
		f.receive(completed(3, "", "cancelled"))
		if targets, err := f.Targets(f.ctx(), T0); err != nil || len(targets) != 2 {
			t.Errorf("after their jobs: %v, %v; want 2", targets, err)
		}
	}},
	{"a leftover that Nomad may never get is used for no other job", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		left := f.prepare(1) // its registration is under way, or was cut off
		f.receive(completed(1, "", "cancelled"))
		f.receive(queued(2))
		f.lost(f.dispatch(2).ID, T0, "x", T0)
		reuse := func(want int64) {
			t.Helper()
			got, err := f.Reuse(f.ctx(), left.ID, T0)
			f.must(err)
			if got != want {
				t.Errorf("it is used for job %d, want %d", got, want)
			}
		}
		reuse(0)
		f.wantState(2, router.Retrying)
		left.NomadJob = left.ID
		f.must(f.Dispatched(f.ctx(), left, Token(left.ID), decision(), T0))
		reuse(2)
	}},
	{"a job that may wait again has a place for its next runner", func(t *testing.T, f *fixture) {
		f.queue(1, 2)
		stopped, used := f.prepare(1), f.prepare(2)
		for id := int64(1); id <= 2; id++ {
			f.must(f.Settle(f.ctx(), id, router.Unroutable, "", "Nomad refuses it", nil, T0))
		}
		f.receive(queued(3))
		f.lost(f.dispatch(3).ID, T0, "x", T0)
		f.must(errOf(f.Stopped(f.ctx(), stopped, "nothing to do", T0)))
		used.NomadJob = used.ID
		f.must(f.Dispatched(f.ctx(), used, Token(used.ID), decision(), T0))
		f.must(errOf(f.Reuse(f.ctx(), used.ID, T0)))
		for id := int64(1); id <= 2; id++ {
			if j := f.wantState(id, router.Unroutable); j.Try != 2 {
				t.Errorf("job %d is at try %d, want 2", id, j.Try)
			}
		}
	}},
	{"completed that overtakes in_progress finishes the runner", func(t *testing.T, f *fixture) {
		r, name := f.onlineNew(1)
		f.receive(completed(1, name, "success"))
		f.receive(inProgress(1, name))
		f.wantRunner(1, r.ID, router.RunnerFinished)
	}},
	{"runners of equal jobs change places when GitHub swaps them", func(t *testing.T, f *fixture) {
		f.queue(1, 2)
		first, name := f.online(1)
		second := f.dispatch(2)
		f.receive(inProgress(2, name))

		f.wantRunner(2, first.ID, router.RunnerBusy)
		f.wantRunner(1, second.ID, router.RunnerDispatched)
		f.wantState(1, router.Dispatched)
		c := f.claim(second)
		if !c.Needed || c.Job.ID != 1 {
			t.Errorf("the second runner's claim got %+v, want it for job 1", c)
		}
		// The second runner fails: it is job 1 that is tried again.
		f.lost(second.ID, T0, "x", T0)
		if j := f.wantState(1, router.Retrying); j.RunnerID() != "gha-1-2" {
			t.Errorf("the next runner would be %s", j.RunnerID())
		}
		f.receive(completed(2, name, "success"))
		f.wantRunner(2, first.ID, router.RunnerFinished)
	}},
	{"a runner that Nomad may never get takes nobody's place", func(t *testing.T, f *fixture) {
		f.queue(1, 2)
		_, name := f.online(1)
		second := f.prepare(2) // its registration is under way, or fails
		f.receive(inProgress(2, name))
		if j := f.wantState(1, router.Retrying); j.Try != 2 {
			t.Errorf("got try %d, want a runner of its own", j.Try)
		}
		second.NomadJob = second.ID
		f.must(f.Dispatched(f.ctx(), second, Token(second.ID), decision(), T0))
		f.wantState(2, router.Running)
		f.receive(completed(1, "", "cancelled")) // which it could serve
		if f.claim(second).Needed {
			t.Error("the second job runs, yet its runner is needed")
		}
	}},
	{"a job whose runner went to a job of another kind gets a new one", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		small := queued(2)
		small.Job.Labels = []string{"self-hosted"}
		f.receive(small)
		_, name := f.online(1)
		second := f.dispatch(2)
		if !f.receive(inProgress(2, name)) {
			t.Error("in_progress changed nothing")
		}
		if j := f.wantState(1, router.Retrying); j.Try != 2 || j.Failures != 0 || !j.DueAt.Equal(T0) {
			t.Errorf("got try %d, %d failures, due at %v", j.Try, j.Failures, j.DueAt)
		}
		if f.claim(second).Needed {
			t.Error("the second job runs, yet its runner is needed")
		}
		f.receive(completed(2, name, "success"))
		if j := f.job(1); j.Try != 2 {
			t.Errorf("completed made it try %d, want 2", j.Try)
		}
	}},
	{"a job whose runner went to a job that nobody knew gets a new one", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		_, name := f.online(1)
		f.receive(inProgress(77, name))
		f.wantState(1, router.Retrying)
		f.wantState(77, router.Running)
	}},
	{"a job whose runner went to an ignored job gets a new one", func(t *testing.T, f *fixture) {
		f.queue(1, 2)
		f.must(f.Settle(f.ctx(), 2, router.Ignored, "", "out of scope", nil, T0))
		r, name := f.online(1)
		if !f.receive(inProgress(2, name)) {
			t.Error("in_progress changed nothing")
		}
		f.wantRunner(1, r.ID, router.RunnerBusy)
		f.wantState(1, router.Retrying)
		f.wantState(2, router.Ignored)
	}},
	{"a name that is not ours moves no runner", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		f.receive(inProgress(2, "GitHub Actions 5"))
		f.wantRunner(1, r.ID, router.RunnerDispatched)
		f.wantState(1, router.Dispatched)
	}},
	{"a name that another GitHub says moves none of this one's", func(t *testing.T, f *fixture) {
		r, name := f.onlineNew(1)
		in := router.Instance{Number: 1, Host: "ghe.example"}
		there := inProgress(in.ID(1), name)
		there.Job.Repo.Host = in.Host
		f.receive(there)
		f.wantRunner(1, r.ID, router.RunnerOnline)
		f.wantState(1, router.Dispatched)
		f.must(f.SetReason(f.ctx(), r.ID, "it waits", T0))
		if j := f.wantState(in.ID(1), router.Running); j.Repo.Host != in.Host || j.Reason == "it waits" {
			t.Errorf("job %d on %q runs: %s", j.ID, j.Repo.Host, j.Reason)
		}
		for n, want := range []int{1, 1, 0} {
			open, err := f.Open(f.ctx(), int64(n), "Acme", "web")
			f.must(err)
			if len(open) != want {
				t.Errorf("GitHub %d has %d open jobs, want %d", n, len(open), want)
			}
		}
	}},
}

// anyShuffle checks that whichever of its runners GitHub gives a job, and in
// whatever order it says so, each of the others is left with a runner that is
// coming, or is due for one.
func anyShuffle(t *testing.T, open func(testing.TB) Store) {
	s := open(t)
	var base int64
	rapid.Check(t, func(rt *rapid.T) {
		f := &fixture{Store: s, t: rt}
		n := rapid.IntRange(2, 4).Draw(rt, "jobs")
		base += 10
		names := make([]string, n)
		for i := range n {
			id := base + int64(i)
			d := queued(id)
			if rapid.Bool().Draw(rt, "of another kind") {
				d.Job.Labels = []string{"self-hosted"}
			}
			f.receive(d)
			_, names[i] = f.online(id)
		}
		served := rapid.Permutation(indexes(n)).Draw(rt, "jobs in the order they are served")
		by := rapid.Permutation(indexes(n)).Draw(rt, "by the runners of")
		k := rapid.IntRange(1, n).Draw(rt, "served")
		var events []router.Delivery
		for i := range k {
			id, name := base+int64(served[i]), names[by[i]]
			events = append(events, inProgress(id, name))
			if rapid.Bool().Draw(rt, "ends") {
				events = append(events, completed(id, name, "success"))
			}
		}
		for _, d := range rapid.Permutation(events).Draw(rt, "order") {
			f.receive(d)
		}
		for i := range n {
			id := base + int64(i)
			j := f.job(id)
			runners, err := f.Runners(f.ctx(), id)
			f.must(err)
			coming := false
			for _, r := range runners {
				coming = coming || r.Try == j.Try && (r.State == router.RunnerClaimed || r.State == router.RunnerOnline)
			}
			switch j.State {
			case router.Running, router.Completed, router.Retrying:
			case router.Dispatched:
				if !coming {
					rt.Fatalf("job %d is dispatched (%s), but no runner is coming: %+v", id, j.Reason, runners)
				}
			default:
				rt.Fatalf("job %d is %s (%s)", id, j.State, j.Reason)
			}
		}
		// Leave nothing for the next round to trip over.
		for i := range n {
			f.receive(completed(base+int64(i), fmt.Sprint("end ", base, i), "success"))
		}
	})
}

func indexes(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
