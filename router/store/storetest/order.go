package storetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"switchyard/router"
	"switchyard/rules"
)

// urgent returns the decision about a job of an urgency under a limit that goes by it.
func urgent(running, urgency int) *router.Decision {
	d := limited(running, "linux")
	d.Limit.Order, d.Urgency = rules.Priority, urgency
	return d
}

// ofRepo returns the delivery of a job that a repository queued some time after T0.
func ofRepo(id int64, repo string, after time.Duration) router.Delivery {
	d := queued(id)
	d.Job.Repo.Name, d.Job.Repo.FullName, d.ReceivedAt = repo, "acme/"+repo, T0.Add(after)
	return d
}

var orderTests = []test{
	{"the most urgent job is next, unless a less urgent one has waited for longer than that is worth", func(t *testing.T, f *fixture) {
		add := func(id int64, urgency int, after time.Duration) {
			f.receive(ofRepo(id, "web", after))
			if got := f.admit(id, urgent(1, urgency)); got != (id == 1) {
				t.Fatalf("job %d is admitted: %t", id, got)
			}
		}
		next := func(id int64) {
			t.Helper()
			f.receive(completed(f.in(router.Queued)[0], "", "success"))
			wantDiff(t, f.in(router.Queued), []int64{id})
			if !f.admit(id, urgent(1, 0)) {
				t.Errorf("job %d does not get the place that it was given", id)
			}
		}
		add(1, 0, 0)
		add(2, 0, 0)
		add(3, 10, time.Hour) // as 2
		add(4, 9, 54*time.Minute+time.Millisecond)
		add(5, 0, -time.Millisecond)
		add(6, rules.MaxUrgency, 24*time.Hour)
		for _, id := range []int64{5, 3, 2, 4, 6} {
			next(id)
		}
	}},
	{"a free place is for whom is next, not for whom comes", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3, 4)
		f.admit(1, urgent(1, 0))
		f.admit(2, urgent(1, 5))
		f.admit(3, urgent(1, 50))
		if !f.reorder(2, urgent(2, 5)) || !f.reorder(3, urgent(2, 50)) {
			t.Fatal("a job that waits has no new decision")
		}
		if f.admit(4, urgent(2, 1)) {
			t.Error("a job that has just come is admitted, and more urgent ones wait")
		}
		wantDiff(t, f.in(router.Queued), []int64{1, 3})
		f.receive(completed(1, "", "success"))
		f.receive(completed(3, "", "success"))
		wantDiff(t, f.in(router.Queued), []int64{2, 4})
		f.receive(completed(2, "", "success"))
		f.queue(5)
		if !f.admit(5, urgent(2, 0)) {
			t.Error("a free place for which nobody waits is not given")
		}
	}},
	{"a limit that has become lower is kept as places become free", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3, 4, 5)
		for id := range int64(5) {
			f.admit(id+1, urgent(3, 0))
		}
		f.reorder(4, urgent(1, 0))
		f.reorder(5, urgent(1, 0))
		for _, id := range []int64{2, 3} {
			f.receive(completed(id, "", "success"))
			f.wantState(4, router.Held)
		}
		f.receive(completed(5, "", "cancelled")) // which had none
		f.wantState(4, router.Held)
		f.receive(completed(1, "", "success"))
		f.wantState(4, router.Queued)
	}},
	{"a job that comes when a place is free gets it if it is next itself", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3)
		f.admit(1, urgent(1, 0))
		f.admit(2, urgent(1, 5))
		f.reorder(2, urgent(2, 5))
		if !f.admit(3, urgent(2, 6)) {
			t.Error("the most urgent job is not admitted")
		}
		f.wantState(2, router.Held)
	}},
	{"the queue of a limit", func(t *testing.T, f *fixture) {
		for id := range int64(3) {
			f.receive(ofRepo(id+1, "web", time.Duration(id)*time.Second))
		}
		f.receive(ofRepo(4, "api", time.Minute))
		f.admit(1, urgent(2, 0))
		r := f.dispatchWith(1, urgent(2, 0), T0)
		for id := range int64(3) {
			f.admit(id+2, urgent(2, int(id)))
		}
		done := completed(1, r.Name, "success")
		done.ReceivedAt = T0.Add(time.Hour)
		begun := inProgress(1, r.Name)
		begun.ReceivedAt = T0.Add(time.Minute)
		f.claim(r)
		f.must(f.Configured(f.ctx(), r.ID, r.Name, 9, target, T0))
		f.receive(begun)
		repo := func(name string) router.RepoName { return router.RepoName{Owner: "acme", Name: name} }
		l, err := f.LimitQueue(f.ctx(), "linux", "linux")
		f.must(err)
		slices.SortFunc(l.Held, func(a, b router.HeldJob) int { return cmp.Compare(a.ID, b.ID) })
		wantDiff(t, l, router.LimitQueue{
			Placed: []router.PlacedJob{{Repo: repo("web"), Since: T0}, {Repo: repo("web")}},
			Held:   []router.HeldJob{{ID: 3, Repo: repo("web"), Urgency: 1, ReceivedAt: T0.Add(2 * time.Second)}, {ID: 4, Repo: repo("api"), Urgency: 2, ReceivedAt: T0.Add(time.Minute)}},
		})
		f.receive(done)
		l, err = f.LimitQueue(f.ctx(), "linux", "linux")
		f.must(err)
		wantDiff(t, l.Ran, []router.RanJob{{Started: time.Minute, Ended: time.Hour}})
		other, err := f.LimitQueue(f.ctx(), "macos", "macos")
		f.must(err)
		wantDiff(t, other, router.LimitQueue{})
	}},
}

func (f *fixture) reorder(jobID int64, d *router.Decision) bool {
	f.t.Helper()
	done, err := f.Reorder(f.ctx(), jobID, d, T0)
	f.must(err)
	return done
}

type orderedJob struct {
	id      int64
	repo    string
	urgency int
	came    time.Duration // after T0
}

// A oneCase is a test for what ends with a case of a property.
type oneCase struct {
	testing.TB
	rt *rapid.T
}

func (c oneCase) Cleanup(f func()) { c.rt.Cleanup(f) }

// order checks, for jobs of any urgencies, repositories and ages that come, end and are cancelled
// in any order, who gets each place.
func order(t *testing.T, open func(testing.TB) Store) {
	rapid.Check(t, func(rt *rapid.T) {
		f := &fixture{Store: open(oneCase{t, rt}), t: t}
		places := rapid.IntRange(1, 4).Draw(rt, "places")
		byUrgency := rapid.Bool().Draw(rt, "by urgency")
		decide := func(j orderedJob) *router.Decision {
			if byUrgency {
				return urgent(places, j.urgency)
			}
			return limited(places, "linux")
		}
		held, placed := map[int64]orderedJob{}, map[int64]orderedJob{}
		var last int64
		begins := func() { // whoever is Queued has got a place, and only one has
			t.Helper()
			var began []int64
			for _, id := range f.in(router.Queued) {
				if _, had := placed[id]; !had {
					began = append(began, id)
				}
			}
			if free := places - len(placed); len(began) > free || len(began) == 0 && free > 0 && len(held) > 0 {
				rt.Fatalf("%v get %d free places, and %d wait", began, free, len(held))
			}
			for _, id := range began {
				y := held[id]
				rt.Logf("next is %+v of %v", y, slices.Collect(maps.Values(held)))
				if !f.admit(id, decide(y)) {
					rt.Fatalf("job %d does not get the place that it was given", id)
				}
				count := map[string]int{}
				for _, p := range placed {
					count[p.repo]++
				}
				delete(held, id)
				for _, x := range held {
					if why := wrongly(x, y, held, count, byUrgency); why != "" {
						rt.Fatalf("%+v gets a place before %+v: %s", y, x, why)
					}
				}
				placed[id] = y
			}
		}
		steps := rapid.IntRange(10, 60).Draw(rt, "steps")
		for range steps {
			switch do := rapid.IntRange(0, 9).Draw(rt, "do"); {
			case do < 6:
				last++
				j := orderedJob{
					last, fmt.Sprint("r", rapid.IntRange(0, 3).Draw(rt, "repo")), rapid.SampledFrom([]int{0, 0, 1, 10, 50, 100}).Draw(rt, "urgency"),
					time.Duration(rapid.SampledFrom([]int{0, 1, 6, 60, 61, 300, 599, 600, 601, 1200}).Draw(rt, "minute"))*time.Minute + time.Duration(rapid.IntRange(0, 2).Draw(rt, "ms"))*time.Millisecond,
				}
				f.receive(ofRepo(j.id, j.repo, j.came))
				if f.admit(j.id, decide(j)) {
					if placed[j.id] = j; len(held) > 0 {
						rt.Fatalf("job %d is admitted, and %d wait", j.id, len(held))
					}
				} else {
					held[j.id] = j
				}
			case do < 9 && len(placed) > 0:
				id := rapid.SampledFrom(slices.Sorted(maps.Keys(placed))).Draw(rt, "ends")
				delete(placed, id)
				f.receive(completed(id, "", "success"))
			case len(held) > 0:
				id := rapid.SampledFrom(slices.Sorted(maps.Keys(held))).Draw(rt, "is cancelled")
				delete(held, id)
				f.receive(completed(id, "", "cancelled"))
			}
			begins()
			if len(placed) > places {
				rt.Fatalf("%d jobs have %d places", len(placed), places)
			}
		}
		// What is told of the queue is what happens, if the place that is taken for longest is the next.
		for len(held) > 0 {
			l, err := f.LimitQueue(f.ctx(), "linux", "linux")
			f.must(err)
			ids := slices.Sorted(maps.Keys(placed)) // none has a runner: by ID
			first := int64(0)
			for _, j := range l.Held {
				if n, ok := l.Before(j.ID); !ok {
					rt.Fatalf("the place of job %d is not known", j.ID)
				} else if n == 0 {
					first = j.ID
				}
			}
			delete(placed, ids[0])
			f.receive(completed(ids[0], "", "success"))
			begins()
			if _, ok := placed[first]; !ok {
				rt.Fatalf("job %d is said to be next, and is not", first)
			}
		}
	})
}

// wrongly returns why a job y must not get a place before x, which waits with others, by what the
// documentation promises; "": it may. places are those that each repository has.
func wrongly(x, y orderedJob, others map[int64]orderedJob, places map[string]int, byUrgency bool) string {
	turn := func(j orderedJob) time.Duration {
		if !byUrgency {
			return j.came
		}
		return j.came - time.Duration(j.urgency)*6*time.Minute
	}
	switch {
	case byUrgency && y.came > x.came+10*time.Hour:
		return "it came more than 10 hours later"
	case byUrgency && x.urgency != y.urgency && turn(y) > turn(x):
		return "its urgency is not worth so much"
	case byUrgency && x.urgency != y.urgency:
		return ""
	case y.came > x.came && places[y.repo] >= places[x.repo]:
		return "it came later, and its repository has no fewer places"
	case places[y.repo] <= places[x.repo]:
		return ""
	}
	for _, z := range append(slices.Collect(maps.Values(others)), y) { // x has fewer places: is it its turn?
		if byUrgency && (z.urgency != x.urgency && turn(z) < turn(x) || z.urgency == x.urgency && x.came > z.came+10*time.Hour) {
			return ""
		}
	}
	return "its repository has more places"
}
