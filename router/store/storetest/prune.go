package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"switchyard/router"
)

var pruneTests = []test{
	{"what ended long ago is forgotten, and nothing else", func(t *testing.T, f *fixture) {
		day := 24 * time.Hour
		ends := func(id int64, at time.Time) {
			f.receive(queued(id))
			_, name := f.online(id)
			d := completed(id, name, "success")
			d.ReceivedAt = at
			f.receive(d)
		}
		ends(1, T0)          // long ago
		ends(2, T0.Add(day)) // not so
		f.receive(queued(3))
		f.must(f.Settle(f.ctx(), 3, router.Denied, "", "no", decision(), T0)) // with no runner
		f.receive(queued(4))                                                  // still waits
		f.receive(queued(5))
		f.dispatch(5)
		f.receive(completed(5, "", "cancelled")) // its runner may live

		prune := func(ended, delivered time.Time) (rows int) {
			for {
				n, err := f.Prune(f.ctx(), ended, ended, ended, delivered)
				f.must(err)
				if n == 0 {
					return rows
				}
				rows += n
			}
		}
		prune(T0.Add(time.Hour), T0)
		for id, want := range map[int64]bool{1: false, 2: true, 3: false, 4: true, 5: true} {
			if _, err := f.Job(f.ctx(), id); (err == nil) != want {
				t.Errorf("job %d: %v, want it kept: %t", id, err, want)
			}
			events, err := f.Timeline(f.ctx(), id)
			f.must(err)
			runners, err := f.Runners(f.ctx(), id)
			f.must(err)
			if !want && len(events)+len(runners) > 0 {
				t.Errorf("of job %d there are %d events and %d runners left", id, len(events), len(runners))
			}
		}
		if _, err := f.Claim(f.ctx(), Token("gha-1-1"), T0); err == nil {
			t.Error("the token of a forgotten runner is known")
		}
		// A delivery that comes again is known until it is forgotten.
		again := queued(1)
		if f.receive(again) {
			t.Error("a doubled delivery brought a forgotten job back")
		}
		if rows := prune(T0, T0.Add(time.Hour)); rows == 0 {
			t.Error("no delivery was forgotten")
		}
		if !f.receive(again) {
			t.Error("a delivery that was forgotten is known")
		}
	}},
	{"what is not ours is forgotten sooner", func(t *testing.T, f *fixture) {
		for id, state := range map[int64]router.JobState{1: router.Ignored, 2: router.Denied, 3: router.Unroutable} {
			f.receive(queued(id))
			f.must(f.Settle(f.ctx(), id, state, "", "no", nil, T0))
		}
		for rows := 1; rows > 0; {
			var err error
			rows, err = f.Prune(f.ctx(), T0, T0.Add(time.Hour), T0, T0)
			f.must(err)
		}
		counts, err := f.Counts(f.ctx())
		f.must(err)
		wantDiff(t, counts, map[router.JobState]int{router.Unroutable: 1})
	}},
	{"what has a Nomad job that was not seen to end is kept for longer", func(t *testing.T, f *fixture) {
		for _, id := range []int64{1, 2} {
			f.receive(queued(id))
			_, name := f.online(id)
			f.receive(completed(id, name, "success"))
		}
		r := f.runner(1)
		f.saw(T0, event(r, router.NomadEnded, T0, "", ""))
		kept := func(unseen time.Time) (ids []int64) {
			for rows := 1; rows > 0; {
				var err error
				rows, err = f.Prune(f.ctx(), T0.Add(time.Hour), T0.Add(time.Hour), unseen, T0)
				f.must(err)
			}
			for _, id := range []int64{1, 2} {
				if _, err := f.Job(f.ctx(), id); err == nil {
					ids = append(ids, id)
				}
			}
			return ids
		}
		if ids := kept(T0); !slices.Equal(ids, []int64{2}) {
			t.Errorf("kept are %v, want job 2 only: Nomad may still run its job", ids)
		}
		if ids := kept(T0.Add(time.Hour)); len(ids) != 0 {
			t.Errorf("kept are %v, want none: it was long ago", ids)
		}
	}},
	{"a step is small, however much there is", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		for i := range 1200 { // it was tried all day
			f.must(f.Retry(f.ctx(), 1, T0, router.CauseNomad, fmt.Sprint("try ", i), nil, T0))
		}
		f.receive(completed(1, "", "cancelled"))
		steps, rows := 0, 0
		for {
			n, err := f.Prune(f.ctx(), T0.Add(time.Hour), T0.Add(time.Hour), T0.Add(time.Hour), T0)
			f.must(err)
			if n == 0 {
				break
			}
			if n > 200 {
				t.Errorf("step %d deleted %d rows", steps, n)
			}
			steps, rows = steps+1, rows+n
		}
		if _, err := f.Job(f.ctx(), 1); err == nil || steps < 10 || rows < 1200 {
			t.Errorf("after %d steps, %d rows: %v", steps, rows, err)
		}
	}},
}
