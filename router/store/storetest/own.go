package storetest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"switchyard/router"
)

const stranger = "github-runner-x7k2" // a name that nothing here knows

// dispatchOwn is dispatchNew with a runner that brings its own registration.
func (f *fixture) dispatchOwn(jobID int64) router.Runner {
	f.t.Helper()
	f.receive(queued(jobID))
	r := f.newRunner(jobID)
	r.Own = true
	f.must(f.Prepare(f.ctx(), r, Token(r.ID), T0))
	r.NomadJob, r.NomadAt = "classic/dispatch-"+r.ID+"-1-0abc", tokyo
	f.must(f.Dispatched(f.ctx(), r, Token(r.ID), decision(), T0))
	return r
}

// at returns a delivery at a time.
func at(when time.Duration, d router.Delivery) router.Delivery {
	d.ReceivedAt = after(when)
	return d
}

// What Nomad says of a failure is not hidden by a claim that was on its way.
var failureTests = []test{
	{"in whatever order a claim and the failure come, the reasons have Nomad's words", func(t *testing.T, f *fixture) {
		const words = "failed: manifest unknown"
		id := int64(0)
		for failsAfter := range 4 { // steps of the claim
			for _, known := range []bool{false, true} { // that it ended, without words
				id++
				f.receive(queued(id))
				r := f.dispatch(id)
				fail := func() {
					if known {
						f.must(f.Ended(f.ctx(), []string{r.ID}, after(time.Second)))
					}
					f.saw(after(2*time.Second), event(r, router.NomadPlaced, after(time.Second), "node-1", ""), event(r, router.NomadEnded, after(2*time.Second), "node-1", words))
				}
				steps := []func(){
					func() { f.claim(r) },
					func() { f.must(f.Configured(f.ctx(), r.ID, r.ID+"-abc", 100+id, target, T0)) },
					func() { f.must(f.Online(f.ctx(), r.ID, T0)) },
				}
				for i, step := range steps {
					if i == failsAfter {
						fail()
					}
					step()
				}
				if failsAfter == len(steps) {
					fail()
				}
				got := f.wantRunner(id, r.ID, router.RunnerOnline)
				if !strings.Contains(got.Reason, words) || got.EndWords != words || got.EndedAt.IsZero() || f.live()[r.ID].EndWords != words {
					t.Errorf("failed before step %d of the claim, known %v: the runner's reason is %q, its end %q", failsAfter, known, got.Reason, got.EndWords)
				}
				if j := f.job(id); !strings.Contains(j.Reason, words) {
					t.Errorf("failed before step %d of the claim, known %v: the job's reason is %q", failsAfter, known, j.Reason)
				}
			}
		}
	}},
}

var ownTests = []test{
	{"one is known by that, and says so", func(t *testing.T, f *fixture) {
		r := f.dispatchOwn(1)
		f.saw(after(2*time.Second), event(r, router.NomadPlaced, after(time.Second), "node-1", ""), event(r, router.NomadStarted, after(time.Second), "node-1", ""))
		got := f.wantRunner(1, r.ID, router.RunnerDispatched)
		if !got.Own || !f.live()[r.ID].Own || !strings.Contains(got.Reason, "brings its own registration") || !strings.Contains(f.job(1).Reason, "brings its own registration") {
			t.Errorf("the runner is %+v, and the reason of its job %q", got, f.job(1).Reason)
		}
	}},
	{"under an unknown name it is presumed to have its job, and to have ended it", func(t *testing.T, f *fixture) {
		r := f.dispatchOwn(1)
		f.saw(after(time.Second), event(r, router.NomadPlaced, after(time.Second), "node-1", ""))
		f.receive(at(2*time.Second, inProgress(1, stranger)))
		got := f.wantRunner(1, r.ID, router.RunnerBusy)
		if j := f.wantState(1, router.Running); j.RunnerName != stranger || !strings.Contains(got.Reason, "presumably") || got.Name != r.ID {
			t.Errorf("the job runs on %q, and the runner is %+v", j.RunnerName, got)
		}
		if l := f.live()[r.ID]; l.Serves != 0 || l.Needed {
			t.Errorf("it is live as %+v, want no job that a time limit could be of", l)
		}
		f.receive(at(time.Minute, completed(1, stranger, "success")))
		f.wantRunner(1, r.ID, router.RunnerFinished)
		if _, ok := f.live()[r.ID]; !ok {
			t.Error("it is not live while its Nomad job is")
		}
	}},
	{"one without a node when its job was taken has not taken it", func(t *testing.T, f *fixture) {
		r := f.dispatchOwn(1)
		f.receive(at(2*time.Second, inProgress(1, stranger)))
		f.saw(after(9*time.Second), event(r, router.NomadPlaced, after(8*time.Second), "node-1", ""))
		f.wantRunner(1, r.ID, router.RunnerDispatched)
		if left, err := f.Leftovers(f.ctx(), 1); err != nil || len(left) != 1 {
			t.Errorf("leftovers %+v, %v; want the one", left, err)
		}
	}},
	{"nor one whose job was cancelled before it had a runner", func(t *testing.T, f *fixture) {
		r := f.dispatchOwn(1)
		f.saw(after(time.Second), event(r, router.NomadStarted, after(time.Second), "node-1", ""))
		f.receive(at(2*time.Second, completed(1, "", "cancelled")))
		f.wantRunner(1, r.ID, router.RunnerDispatched)
	}},
	{"nor one whose job another runner of ours has", func(t *testing.T, f *fixture) {
		r := f.dispatchOwn(1)
		f.receive(queued(2))
		_, name := f.online(2)
		f.saw(after(time.Second), event(r, router.NomadStarted, after(time.Second), "node-1", ""))
		f.receive(at(2*time.Second, inProgress(2, name)))
		f.receive(at(3*time.Second, inProgress(1, name)))
		f.wantRunner(1, r.ID, router.RunnerDispatched)
	}},
	{"an event can overtake the record of its dispatch", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.newRunner(1)
		r.Own = true
		f.must(f.Prepare(f.ctx(), r, Token(r.ID), T0))
		r.NomadJob = "classic/dispatch-" + r.ID + "-1-0abc"
		f.saw(after(time.Second), event(r, router.NomadPlaced, after(time.Second), "node-1", ""))
		if got := f.wantRunner(1, r.ID, router.RunnerDispatched); got.Node != "node-1" {
			t.Errorf("it is on %q", got.Node)
		}
	}},
	{"by its known name it is bound for certain", func(t *testing.T, f *fixture) {
		r := f.dispatchOwn(1)
		f.receive(at(2*time.Second, inProgress(1, r.ID)))
		f.wantRunner(1, r.ID, router.RunnerBusy)
		if l := f.live()[r.ID]; l.Serves != 1 {
			t.Errorf("it is live as %+v, want it to serve job 1", l)
		}
	}},
	{"by its known name it can have another job, and its own is tried again", func(t *testing.T, f *fixture) {
		r := f.dispatchOwn(1)
		f.receive(queued(2))
		f.receive(at(2*time.Second, inProgress(2, r.ID)))
		f.wantRunner(1, r.ID, router.RunnerBusy)
		if j := f.wantState(1, router.Retrying); j.Try != 2 {
			t.Errorf("job 1 is at try %d, want 2", j.Try)
		}
	}},
	{"one that claims after all is as any other", func(t *testing.T, f *fixture) {
		r := f.dispatchOwn(1)
		f.claim(r)
		if got := f.wantRunner(1, r.ID, router.RunnerClaimed); got.Own {
			t.Error("it brings its own registration still")
		}
	}},
	{"one that may have a job is for no other, and one without a node may be", func(t *testing.T, f *fixture) {
		f.receive(queued(9)) // waits without a runner
		f.lost(f.dispatch(9).ID, T0, "x", T0)
		reuse := func(id int64, placed bool) int64 {
			r := f.dispatchOwn(id)
			if placed {
				f.saw(after(time.Second), event(r, router.NomadPlaced, after(time.Second), "node-1", ""))
			}
			f.receive(at(2*time.Second, completed(id, "", "cancelled")))
			jobID, err := f.Reuse(f.ctx(), r.ID, after(3*time.Second))
			f.must(err)
			return jobID
		}
		if got := reuse(1, true); got != 0 {
			t.Errorf("one that may have a job is for job %d", got)
		}
		if got := reuse(2, false); got != 9 {
			t.Errorf("one without a node is for job %d, want 9", got)
		}
	}},
	{"Nomad may start it again", func(t *testing.T, f *fixture) {
		r := f.dispatchOwn(1)
		f.saw(after(9*time.Second), event(r, router.NomadEnded, after(5*time.Second), "node-1", "failed: exit code 7"))
		if got := f.wantRunner(1, r.ID, router.RunnerDispatched); got.EndWords != "failed: exit code 7" {
			t.Errorf("it ended as %q", got.EndWords)
		}
		f.saw(after(9*time.Second), event(r, router.NomadPlaced, after(4*time.Second), "node-1", "")) // late
		if got := f.wantRunner(1, r.ID, router.RunnerDispatched); got.EndedAt.IsZero() {
			t.Error("a late event took its end back")
		}
		f.saw(after(9*time.Second), event(r, router.NomadPlaced, after(6*time.Second), "node-2", ""))
		if got := f.wantRunner(1, r.ID, router.RunnerDispatched); !got.EndedAt.IsZero() || got.EndWords != "" {
			t.Errorf("it is started again, and ended at %v: %s", got.EndedAt, got.EndWords)
		}
	}},
	{"it is adopted as one", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.newRunner(1)
		r.Own, r.NomadJob = true, "classic/dispatch-gha-1-1-1-0abc"
		if ok, err := f.Adopt(f.ctx(), r, Token("nobody's"), T0); !ok || err != nil {
			t.Fatalf("Adopt = %v, %v", ok, err)
		}
		if got := f.wantRunner(1, r.ID, router.RunnerDispatched); !got.Own {
			t.Error("it is none")
		}
	}},
	{"in whatever order Nomad and GitHub speak, it has finished its job", func(t *testing.T, f *fixture) {
		id := int64(0)
		var orders func(done, left []int)
		orders = func(done, left []int) {
			if len(left) > 0 {
				for i := range left {
					orders(append(slices.Clone(done), left[i]), slices.Delete(slices.Clone(left), i, i+1))
				}
				return
			}
			id++
			r := f.dispatchOwn(id)
			now := after(time.Minute)
			steps := []func(){
				func() { f.saw(now, event(r, router.NomadPlaced, after(time.Second), "node-1", "")) },
				func() { f.saw(now, event(r, router.NomadStarted, after(2*time.Second), "node-1", "")) },
				func() { f.receive(at(3*time.Second, inProgress(id, stranger))) },
				func() { f.saw(now, event(r, router.NomadEnded, after(9*time.Second), "node-1", "complete")) },
				func() { f.receive(at(10*time.Second, completed(id, stranger, "success"))) },
			}
			for _, i := range done {
				steps[i]()
			}
			j, rs := f.job(id), f.runner(id)
			if j.State != router.Completed || j.Try != 1 || rs.State != router.RunnerFinished || rs.EndedAt.IsZero() {
				t.Fatalf("in the order %v: job %s at try %d, runner %s, ended at %v: %s", done, j.State, j.Try, rs.State, rs.EndedAt, rs.Reason)
			}
		}
		orders(nil, []int{0, 1, 2, 3, 4})
	}},
}
