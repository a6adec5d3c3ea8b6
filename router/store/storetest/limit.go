package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"switchyard/router"
)

func limited(running int, key string) *router.Decision {
	d := decision()
	d.Limit = &router.Limit{Running: running, Per: "rule", Key: key}
	return d
}

func (f *fixture) admit(jobID int64, d *router.Decision) bool {
	f.t.Helper()
	admitted, err := f.Admit(f.ctx(), jobID, d, T0)
	f.must(err)
	return admitted
}

var limitTests = []test{
	{"a job over the limit is held, until one that has a place ends", func(t *testing.T, f *fixture) {
		for id := range int64(4) {
			f.receive(queued(id + 1))
		}
		if !f.admit(1, limited(2, "linux")) || !f.admit(2, limited(2, "linux")) || f.admit(3, limited(2, "linux")) {
			t.Fatal("the limit of 2 is not kept")
		}
		if !f.admit(1, limited(1, "linux")) {
			t.Error("a job lost its place")
		}
		if !f.admit(4, limited(2, "macos")) {
			t.Error("another key is limited, too")
		}
		j := f.wantState(3, router.Held)
		if want := "waits for a place: rule linux runs at most 2 jobs at a time"; j.Reason != want {
			t.Errorf("reason %q, want %q", j.Reason, want)
		}
		wantDiff(t, j.Decision, limited(2, "linux"))
		f.receive(completed(4, "", "success")) // another key's place
		f.wantState(3, router.Held)
		d := completed(1, "", "cancelled")
		d.ReceivedAt = T0.Add(time.Minute)
		f.receive(d)
		j = f.wantState(3, router.Queued)
		if !j.DueAt.Equal(d.ReceivedAt) {
			t.Errorf("due at %v, want %v", j.DueAt, d.ReceivedAt)
		}
		if !f.admit(3, limited(2, "linux")) {
			t.Error("the place that became free is not given")
		}
	}},
	{"a job whose runner goes to one that waits for a place gives it that place", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 3; id++ {
			f.receive(queued(id))
		}
		d := limited(1, "linux")
		if !f.admit(1, d) || f.admit(2, d) || f.admit(3, d) {
			t.Fatal("the limit of 1 is not kept")
		}
		r := f.dispatchWith(1, d, T0)
		f.claim(r)
		f.must(f.Configured(f.ctx(), r.ID, "one", 9, target, T0))
		f.must(f.Online(f.ctx(), r.ID, T0))
		f.receive(inProgress(2, "one"))
		f.wantState(1, router.Retrying)
		if f.admit(1, d) {
			t.Error("two jobs have a place")
		}
		f.receive(completed(2, "one", "success"))
		f.wantState(1, router.Queued)
		f.wantState(3, router.Held)
		if !f.admit(1, d) {
			t.Error("the place that became free is not given")
		}
	}},
	{"the oldest job of the repository with the fewest places is next", func(t *testing.T, f *fixture) {
		receive := func(id int64, repo string, after time.Duration) {
			d := queued(id)
			d.Job.Repo.Name, d.Job.Repo.FullName, d.ReceivedAt = repo, "acme/"+repo, T0.Add(after*time.Second)
			f.receive(d)
		}
		receive(1, "web", 0)
		receive(2, "web", 1)
		receive(3, "web", 2) // the oldest that waits
		receive(4, "api", 4)
		receive(5, "api", 3)
		for id, want := range map[int64]bool{1: true, 2: true} {
			if f.admit(id, limited(2, "k")) != want {
				t.Fatalf("job %d", id)
			}
		}
		for _, id := range []int64{3, 4, 5} {
			if f.admit(id, limited(2, "k")) {
				t.Fatalf("job %d is over the limit", id)
			}
		}
		f.receive(completed(1, "", "success"))
		f.wantState(5, router.Queued) // web has a place still, api none
		f.wantState(3, router.Held)
		f.admit(5, limited(2, "k"))
		f.receive(completed(2, "", "success"))
		f.wantState(3, router.Queued) // now web has none
		f.wantState(4, router.Held)
	}},
	{"a place is given back by a job that no runner will serve", func(t *testing.T, f *fixture) {
		f.queue(1, 2)
		f.admit(1, limited(1, "k"))
		f.admit(2, limited(1, "k"))
		f.must(f.Settle(f.ctx(), 1, router.Unroutable, "", "no", nil, T0))
		f.wantState(2, router.Queued)
	}},
	{"held jobs get the places that a changed limit leaves", func(t *testing.T, f *fixture) {
		for id := range int64(4) {
			f.receive(queued(id + 1))
		}
		waiting := NewDelivery(5, "waiting", "waiting") // held by GitHub, not by a limit
		f.receive(waiting)
		f.admit(1, limited(1, "k"))
		for id := range int64(3) {
			f.admit(id+2, limited(1, "k"))
		}
		reconsider := func(want int) {
			t.Helper()
			if n, err := f.Reconsider(f.ctx(), "", T0); n != want || err != nil {
				t.Errorf("Reconsider = %d, %v, want %d", n, err, want)
			}
		}
		reorder := func(id int64, d *router.Decision, want bool) {
			t.Helper()
			if done, err := f.Reorder(f.ctx(), id, d, T0); done != want || err != nil {
				t.Errorf("Reorder(%d) = %t, %v, want %t", id, done, err, want)
			}
		}
		reconsider(0)
		for id := range int64(3) {
			reorder(id+2, limited(3, "k"), true)
		}
		reorder(1, limited(3, "k"), false)
		reorder(5, limited(3, "k"), false)
		wantErr(t, errOf(f.Reorder(f.ctx(), 99, limited(3, "k"), T0)), router.ErrNotFound)
		if want, j := "waits for a place: rule linux runs at most 3 jobs at a time", f.wantState(4, router.Held); j.Reason != want {
			t.Errorf("reason %q, want %q", j.Reason, want)
		}
		reconsider(2)
		f.wantState(2, router.Queued)
		f.wantState(3, router.Queued)
		f.wantState(4, router.Held)
		reconsider(0)
		f.receive(queued(6)) // takes nobody's place
		if f.admit(6, limited(3, "k")) || !f.admit(3, limited(3, "k")) || !f.admit(2, limited(3, "k")) {
			t.Error("the places that were given are not kept")
		}
		reorder(4, nil, true)
		if j := f.wantState(4, router.Queued); j.Reason != "the rules have changed: it is decided again" {
			t.Errorf("reason %q", j.Reason)
		}
		f.wantState(5, router.Held)
	}},
	{"a job whose limit has changed gives its place to another", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3, 4)
		f.admit(1, limited(1, "a"))
		f.admit(2, limited(1, "a"))
		f.admit(3, limited(1, "a"))
		if !f.admit(1, limited(1, "b")) {
			t.Error("it gets no place under the new limit")
		}
		f.wantState(2, router.Queued)
		f.wantState(3, router.Held)
		if !f.admit(2, decision()) { // has none any longer
			t.Error("a job without a limit gets no place")
		}
		f.wantState(3, router.Queued)
		if f.admit(4, limited(1, "b")) {
			t.Error("the limit of 1 is not kept")
		}
	}},
	{"what is over or unknown is not admitted", func(t *testing.T, f *fixture) {
		wantErr(t, errOf(f.Admit(f.ctx(), 1, limited(1, "k"), T0)), router.ErrNotFound)
		f.receive(queued(1))
		f.receive(completed(1, "", "cancelled"))
		wantErr(t, errOf(f.Admit(f.ctx(), 1, limited(1, "k"), T0)), router.ErrNotWaiting)
		// A job that was cancelled while it was held takes nothing with it.
		f.queue(2, 3)
		f.admit(2, limited(1, "k"))
		f.admit(3, limited(1, "k"))
		f.receive(completed(3, "", "cancelled"))
		f.wantState(3, router.Completed)
	}},
	{"never more jobs have a place than the limit, and each gets one", func(t *testing.T, f *fixture) {
		const jobs, most = 60, 3
		r := rand.New(rand.NewPCG(1, 2))
		for id := range int64(jobs) {
			d := queued(id + 1)
			d.Job.Repo.Name = fmt.Sprintf("r%d", id%4)
			f.receive(d)
		}
		placed, ended := map[int64]bool{}, map[int64]bool{}
		for range 10_000 {
			if len(ended) == jobs {
				return
			}
			id := 1 + r.Int64N(jobs)
			switch {
			case placed[id] && r.IntN(3) == 0:
				f.receive(completed(id, "", "success"))
				delete(placed, id)
				ended[id] = true
			case !placed[id] && !ended[id]:
				admitted, err := f.Admit(f.ctx(), id, limited(most, "k"), T0)
				if err != nil && !errors.Is(err, router.ErrNotWaiting) {
					t.Fatal(err)
				}
				if admitted {
					placed[id] = true
				}
			}
			if len(placed) > most {
				t.Fatalf("%d jobs have a place under a limit of %d", len(placed), most)
			}
		}
		t.Errorf("%d of %d jobs got a place", len(ended), jobs)
	}},
}
