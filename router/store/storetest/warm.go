package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"switchyard/router"
)

// addWarm adds a warm runner of rule linux and this fit, which Nomad has.
func (f *fixture) addWarm(id, fit string) router.WarmRunner {
	f.t.Helper()
	w := router.WarmRunner{ID: router.WarmPrefix + id, Rule: "linux", Fit: fit, Asked: &router.Asked{MilliCPU: 2000}, NomadAt: router.NomadAt{Namespace: "ci"}}
	f.must(f.AddWarm(f.ctx(), w, Token(id), T0))
	f.must(f.WarmRegistered(f.ctx(), w.ID, w.NomadAt, Token(id)))
	return w
}

func (f *fixture) warmSaw(w router.WarmRunner, kind router.NomadEventKind) {
	f.t.Helper()
	_, err := f.RecordNomadEvents(f.ctx(), []router.NomadEvent{{Job: w.ID, At: w.NomadAt, Kind: kind, Node: "node-1", Text: "it said so"}}, T0)
	f.must(err)
}

func (f *fixture) wantWarm(w router.WarmRunner, want router.WarmState) router.WarmRunner {
	f.t.Helper()
	all, err := f.WarmRunners(f.ctx())
	f.must(err)
	i := slices.IndexFunc(all, func(one router.WarmRunner) bool { return one.ID == w.ID })
	switch {
	case i < 0 && want != router.WarmEnded && want != router.WarmTaken:
		f.t.Fatalf("warm runner %s is gone, want it %s", w.ID, want)
	case i < 0:
		return w
	case all[i].State != want || all[i].Reason == "":
		f.t.Fatalf("warm runner %s is %s (%q), want %s", w.ID, all[i].State, all[i].Reason, want)
	}
	return all[i]
}

func (f *fixture) take(jobID int64, fit string) (router.WarmRunner, error) {
	r := f.newRunner(jobID)
	r.Rule, r.Rules = "linux", "v1"
	return f.TakeWarm(f.ctx(), r, fit, decision(), T0.Add(time.Minute))
}

var warmTests = []test{
	{"a warm runner is wasted from its node until a job takes it, or it ends", func(t *testing.T, f *fixture) {
		f.queue(1)
		taken, stopped, never := f.addWarm("aaaa", "fit"), f.addWarm("bbbb", "fit"), f.addWarm("cccc", "fit")
		f.warmSaw(taken, router.NomadPlaced)
		f.warmSaw(stopped, router.NomadPlaced)
		f.must(f.WarmReady(f.ctx(), taken.ID, T0))
		f.must(errOf(f.take(1, "fit"))) // a minute later
		f.must(errOf(f.StopWarm(f.ctx(), stopped.ID, false, "not wanted", T0.Add(time.Hour))))
		f.must(errOf(f.StopWarm(f.ctx(), never.ID, false, "not wanted", T0.Add(time.Hour))))
		held := func(within router.Scope) (all []time.Duration) {
			filter := router.UsageFilter{By: router.ByRule, Within: within, From: T0, Until: T0.Add(24 * time.Hour)}
			f.must(f.Usage(f.ctx(), filter, func(u *router.Used) error {
				if u.Unused && u.Group == "linux" && u.Asked.MilliCPU == 2000 {
					all = append(all, u.Held)
				}
				return nil
			}))
			slices.Sort(all)
			return all
		}
		wantDiff(t, held(nil), []time.Duration{time.Minute, time.Hour})
		wantDiff(t, held(router.Scope{}), []time.Duration(nil))
	}},
	{"a warm runner that came to the claim before Nomad said so has its node, too", func(t *testing.T, f *fixture) {
		w := f.addWarm("aaaa", "fit")
		f.must(f.WarmReady(f.ctx(), w.ID, T0))
		f.warmSaw(w, router.NomadPlaced)
		if got := f.wantWarm(w, router.WarmReady); got.Node != "node-1" || !got.PlacedAt.Equal(T0) || got.Reason != "it waits at the claim for a job" {
			t.Errorf("the warm runner is %+v", got)
		}
	}},
	{"a job takes a warm runner of its rule and placement, which is its runner then", func(t *testing.T, f *fixture) {
		f.queue(1)
		preparing, other, ready := f.addWarm("aaaa", "fit"), f.addWarm("bbbb", "another"), f.addWarm("cccc", "fit")
		if got, err := f.take(1, "fit"); got.ID != "" || err != nil {
			t.Fatalf("one that has no node is taken: %+v, %v", got, err)
		}
		for _, w := range []router.WarmRunner{preparing, other, ready} {
			f.warmSaw(w, router.NomadPlaced)
		}
		f.must(f.WarmReady(f.ctx(), ready.ID, T0))
		if w := f.wantWarm(ready, router.WarmReady); w.Node != "node-1" || w.PlacedAt.IsZero() || w.ReadyAt.IsZero() || w.Asked.MilliCPU != 2000 || !w.Registered {
			t.Errorf("the warm runner is %+v", w)
		}
		got, err := f.take(1, "fit")
		f.must(err)
		if got.ID != ready.ID || got.State != router.WarmTaken || got.JobID != 1 {
			t.Errorf("the job takes %+v, want %s, which waits", got, ready.ID)
		}
		f.wantState(1, router.Dispatched)
		r := f.wantRunner(1, "gha-1-1", router.RunnerDispatched)
		if r.NomadJob != ready.ID || r.NomadAt.Namespace != "ci" || r.Node != "node-1" || r.PlacedAt.IsZero() {
			t.Errorf("its runner is %+v", r)
		}
		if w, err := f.WarmOf(f.ctx(), Token("cccc")); err != nil || w.State != router.WarmTaken || w.EndedAt.IsZero() {
			t.Errorf("the warm runner is %+v, %v", w, err)
		}
		if stopped, err := f.StopWarm(f.ctx(), ready.ID, true, "x", T0); stopped || err != nil {
			t.Errorf("one that a job has is stopped: %v", err)
		}
		c, err := f.Claim(f.ctx(), Token("cccc"), T0)
		f.must(err)
		if !c.Needed || c.Runner.ID != "gha-1-1" || c.Job.ID != 1 {
			t.Errorf("its claim gets %+v", c)
		}
		if _, err := f.Claim(f.ctx(), Token("cccc"), T0); !errors.Is(err, router.ErrClaimed) {
			t.Errorf("its second claim: %v", err)
		}
		// Nomad's events are those of the job's runner now.
		f.warmSaw(ready, router.NomadEnded)
		if r := f.wantRunner(1, "gha-1-1", router.RunnerClaimed); r.EndedAt.IsZero() {
			t.Error("the end of its Nomad job is not that of the runner")
		}

		f.queue(2)
		if got, err := f.take(2, "fit"); got.ID != preparing.ID || err != nil {
			t.Errorf("the next job takes %+v (%v), want %s, which prepares itself", got, err, preparing.ID)
		}
		f.queue(3)
		if got, err := f.take(3, "fit"); got.ID != "" || err != nil {
			t.Errorf("the third job takes %+v (%v), want none", got, err)
		}
		f.wantState(3, router.Queued)
	}},
	{"no job takes a warm runner twice, or two of them", func(t *testing.T, f *fixture) {
		w := f.addWarm("aaaa", "fit")
		f.warmSaw(w, router.NomadPlaced)
		f.queue(1, 2, 3, 4)
		taken := make([]string, 4)
		atOnce(4, func(i int) {
			if got, err := f.take(int64(i+1), "fit"); err == nil {
				taken[i] = got.ID
			}
		})
		slices.Sort(taken)
		wantDiff(t, taken, []string{"", "", "", w.ID})

		more := f.addWarm("bbbb", "fit")
		f.warmSaw(more, router.NomadPlaced)
		f.queue(5)
		f.must(f.Prepare(f.ctx(), f.newRunner(5), Token("gha-5-1"), T0)) // Nomad may have that one
		if got, err := f.take(5, "fit"); got.ID != "" || err != nil {
			t.Errorf("a job that has a runner takes %+v (%v)", got, err)
		}
		f.must(f.Settle(f.ctx(), 5, router.Denied, "", "no", decision(), T0))
		f.wantWarm(more, router.WarmStarting)
		f.queue(6)
		f.must(f.Settle(f.ctx(), 6, router.Denied, "", "no", decision(), T0))
		if _, err := f.take(6, "fit"); !errors.Is(err, router.ErrNotWaiting) {
			t.Errorf("a job that waits for nothing takes one: %v", err)
		}
		f.wantWarm(more, router.WarmStarting)
	}},
	{"a warm runner that ended, has no node or is stopped is not taken", func(t *testing.T, f *fixture) {
		f.queue(1)
		for i, kind := range []router.NomadEventKind{router.NomadEnded, router.NomadUnknown, router.NomadStopped} {
			w := f.addWarm(string(rune('a'+i)), "fit")
			f.warmSaw(w, router.NomadPlaced)
			f.warmSaw(w, kind)
			f.must(f.WarmReady(f.ctx(), w.ID, T0)) // too late
			f.wantWarm(w, router.WarmStopped)
		}
		crowded := f.addWarm("x", "fit")
		f.warmSaw(crowded, router.NomadWaits)
		f.wantWarm(crowded, router.WarmStopped)
		f.must(f.EndWarm(f.ctx(), crowded.ID))
		f.wantWarm(crowded, router.WarmEnded)
		stopped := f.addWarm("y", "fit")
		f.warmSaw(stopped, router.NomadPlaced)
		if ok, err := f.StopWarm(f.ctx(), stopped.ID, false, "not wanted", T0); !ok || err != nil {
			t.Errorf("it is not stopped: %v", err)
		}
		if got, err := f.take(1, "fit"); got.ID != "" || err != nil {
			t.Errorf("the job takes %+v, %v", got, err)
		}
	}},
	{"a warm runner that is doubted is neither taken nor stopped, until it comes to the claim", func(t *testing.T, f *fixture) {
		f.queue(1)
		w, placing := f.addWarm("a", "fit"), f.addWarm("b", "fit")
		f.warmSaw(w, router.NomadPlaced)
		f.must(f.WarmReady(f.ctx(), w.ID, T0))
		f.must(f.DoubtWarm(f.ctx()))
		if ids, err := f.NoLongerWarm(f.ctx(), []string{w.ID}); err != nil || len(ids) != 1 {
			t.Errorf("its claim is not told: %v, %v", ids, err)
		}
		if got, err := f.take(1, "fit"); got.ID != "" || err != nil {
			t.Errorf("it is taken: %+v, %v", got, err)
		}
		if ok, err := f.StopWarm(f.ctx(), w.ID, false, "x", T0); ok || err != nil {
			t.Errorf("it is stopped: %v", err)
		}
		if ok, err := f.StopWarm(f.ctx(), placing.ID, false, "x", T0); !ok || err != nil {
			t.Errorf("one without a node, which nobody can have taken, is not stopped: %v", err)
		}
		f.must(f.WarmReady(f.ctx(), w.ID, T0.Add(time.Hour)))
		if ids, err := f.NoLongerWarm(f.ctx(), []string{w.ID, "gha-warm-zz"}); err != nil || !slices.Equal(ids, []string{"gha-warm-zz"}) {
			t.Errorf("those that no longer wait are %v, %v", ids, err)
		}
		if got := f.wantWarm(w, router.WarmReady); !got.ReadyAt.Equal(T0) {
			t.Errorf("it has been ready since %s", got.ReadyAt)
		}
		if got, err := f.take(1, "fit"); got.ID != w.ID || err != nil {
			t.Errorf("it is not taken: %+v, %v", got, err)
		}
		if n, err := f.RunnersOf(f.ctx(), "linux"); n != 1 || err != nil {
			t.Errorf("the rule has %d runners, %v", n, err)
		}
	}},
}
