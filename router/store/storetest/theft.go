package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"switchyard/router"
)

// A world is a GitHub and a Nomad in memory, and the steps of the router
// between them and a store, each of which any other may come between. A step
// reports whether there was anything to do. A theft
// is that GitHub gives a runner a job other than the one which the database means
// the runner for at that moment. A death is that Nomad ends a runner without a job.
type world struct {
	*fixture
	rt   *rapid.T
	base int64
	now  time.Time

	jobs    map[int64]*hubJob
	runners map[string]*hubRunner // those registered on GitHub, by name
	nomad   map[string]*nomadJob  // by the runner's ID
	mail    []router.Delivery     // on its way
	hand    []func()              // what the router has begun and not ended
	started int
	thefts  int
	deaths  int
	holds   int // jobs that were to wait for an approval after they were queued
}

type hubJob struct {
	labels    []string
	state     string // queued, waiting, in_progress or completed
	runner    string
	approvals int
	cancelled bool
}

type hubRunner struct {
	id     string // the runner's
	labels []string
	job    int64 // 0: idle
}

type nomadJob struct {
	over     bool // stopped or ended
	starting bool // it has asked for its claim
}

// thefts checks that whatever jobs runners take from each other, whichever
// deliveries are lost, doubled or late, whenever runners claim and jobs are
// cancelled, held for an approval or approved: once GitHub has said for every
// job where it stands, each is served or cancelled, no runner is left, and no
// more were started than there were jobs, thefts, deaths and holds.
func thefts(t *testing.T, open func(testing.TB) Store) {
	s := open(t)
	var base int64
	rapid.Check(t, func(rt *rapid.T) { // other cases in each run; -rapid.checks has more of them
		base += 100
		w := &world{
			fixture: &fixture{Store: s, t: rt}, rt: rt, base: base, now: T0,
			jobs: map[int64]*hubJob{}, runners: map[string]*hubRunner{}, nomad: map[string]*nomadJob{},
		}
		steps := []func() bool{w.arrive, w.arrive, w.deliver, w.deliver, w.deliver, w.dispatch, w.dispatch, w.goOnWith, w.goOnWith, w.goOnWith,
			w.startOne, w.startOne, w.assign, w.assign, w.finish, w.cancel, w.die, w.leftovers, w.leftovers, w.protect, w.approve, w.recheck}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(steps)-1), 20, 120).Draw(rt, "steps") {
			w.now = w.now.Add(time.Second)
			steps[i]()
		}
		w.settle()
	})
}

func draw[T any](w *world, what string, list []T) T {
	return list[rapid.IntRange(0, len(list)-1).Draw(w.rt, what)]
}

// arrive queues a job on GitHub; its labels are some of three.
func (w *world) arrive() bool {
	if len(w.jobs) == 8 {
		return false
	}
	id := w.base + int64(len(w.jobs)) + 1
	labels := []string{"self-hosted"}
	for i, bits := 0, rapid.IntRange(0, 3).Draw(w.rt, "labels"); i < 2; i++ {
		if bits>>i&1 == 1 {
			labels = append(labels, string(rune('a'+i)))
		}
	}
	w.jobs[id] = &hubJob{labels: labels, state: "queued"}
	w.send(id)
	return true
}

// says returns what GitHub says of a job now.
func (w *world) says(id int64) router.Delivery {
	j := w.jobs[id]
	d := NewDelivery(id, j.state, j.state)
	d.ID, d.Source, d.ReceivedAt = "", router.SourceGitHub, w.now
	d.Job.Labels, d.Job.RunnerName = j.labels, j.runner
	d.Job.Repo.Name = fmt.Sprint("r", w.base)
	d.Job.Repo.FullName = d.Job.Repo.Owner + "/" + d.Job.Repo.Name
	if j.state == "waiting" {
		d.Action = "queued"
	}
	if j.cancelled {
		d.Job.Conclusion = "cancelled"
	}
	return d
}

// send has GitHub report a job, once, twice, or never.
func (w *world) send(id int64) {
	d := w.says(id)
	if d.Status == "waiting" {
		d.Action = "waiting"
	}
	d.ID, d.Source = fmt.Sprint(id, d.Action, w.jobs[id].approvals), router.SourceWebhook
	for range rapid.SampledFrom([]int{0, 1, 1, 1, 1, 2}).Draw(w.rt, "copies") {
		w.mail = append(w.mail, d)
	}
}

// deliver takes any delivery that is on its way.
func (w *world) deliver() bool {
	if len(w.mail) == 0 {
		return false
	}
	i := rapid.IntRange(0, len(w.mail)-1).Draw(w.rt, "delivery")
	d := w.mail[i]
	w.mail = slices.Delete(w.mail, i, i+1)
	d.ReceivedAt = w.now
	if !w.receive(d) && d.Waits() {
		w.look(d.Job.ID)
	}
	return true
}

// look has the router ask GitHub about a job; the answer comes later.
func (w *world) look(id int64) {
	answer := w.says(id)
	w.later(func() { w.receive(answer) })
}

// recheck has the router ask about any job.
func (w *world) recheck() bool {
	if len(w.jobs) == 0 {
		return false
	}
	w.look(draw(w, "asked about", slices.Sorted(maps.Keys(w.jobs))))
	return true
}

// protect has a queued job wait for an approval, and approve gives one.
func (w *world) protect() bool {
	queued := w.in("queued")
	if len(queued) == 0 {
		return false
	}
	id := draw(w, "protected", queued)
	w.jobs[id].state = "waiting"
	w.holds++
	w.send(id)
	return true
}

func (w *world) approve() bool {
	waiting := w.in("waiting")
	if len(waiting) == 0 {
		return false
	}
	id := draw(w, "approved", waiting)
	w.jobs[id].state = "queued"
	w.jobs[id].approvals++
	w.send(id)
	return true
}

// ids of jobs on GitHub in a state, in order.
func (w *world) in(state string) (ids []int64) {
	for id, j := range w.jobs {
		if j.state == state {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// later puts what the router does next among what it has in hand.
func (w *world) later(do func()) { w.hand = append(w.hand, do) }

func (w *world) goOnWith() bool {
	if len(w.hand) == 0 {
		return false
	}
	i := rapid.IntRange(0, len(w.hand)-1).Draw(w.rt, "in hand")
	do := w.hand[i]
	w.hand = slices.Delete(w.hand, i, i+1)
	do()
	return true
}

// dispatch has the worker read a due job: then it prepares a runner, has Nomad
// register it, and records that.
func (w *world) dispatch() bool {
	due, _, err := w.Due(w.ctx(), w.now, nil, 1000)
	w.must(err)
	due = slices.DeleteFunc(due, func(j router.Job) bool { return w.jobs[j.ID] == nil })
	if len(due) == 0 {
		return false
	}
	j := draw(w, "due", due)
	d := decision()
	r := router.Runner{ID: j.RunnerID(), JobID: j.ID, Try: j.Try, State: router.RunnerDispatched, Name: j.RunnerID(), Fit: j.Fit(d)}
	w.later(func() {
		err := w.Prepare(w.ctx(), r, Token(r.ID), w.now)
		if errors.Is(err, router.ErrNotWaiting) {
			return
		}
		w.must(err)
		w.later(func() {
			if w.nomad[r.ID] == nil {
				w.nomad[r.ID] = &nomadJob{}
				w.started++
			}
			w.later(func() {
				r.NomadJob = r.ID
				w.must(w.Dispatched(w.ctx(), r, Token(r.ID), d, w.now))
			})
		})
	})
	return true
}

// startOne has Nomad start a runner, which claims.
func (w *world) startOne() bool {
	var ready []string
	for id, n := range w.nomad {
		if !n.over && !n.starting {
			ready = append(ready, id)
		}
	}
	if len(ready) == 0 {
		return false
	}
	slices.Sort(ready)
	id := draw(w, "starting", ready)
	w.nomad[id].starting = true
	w.later(func() { w.ask(id) })
	return true
}

// ask is the claim until its token is spent.
func (w *world) ask(id string) {
	for {
		c, err := w.Claimant(w.ctx(), Token(id))
		if w.nomad[id].over || errors.Is(err, router.ErrClaimed) {
			w.nomad[id].over = true
			return
		}
		w.must(err)
		if !c.Needed || w.jobs[c.Job.ID].state == "queued" || !w.receive(w.says(c.Job.ID)) {
			break
		}
	}
	w.later(func() {
		c, err := w.Claim(w.ctx(), Token(id), w.now)
		if errors.Is(err, router.ErrClaimed) || err == nil && !c.Needed {
			w.nomad[id].over = true
			return
		}
		w.must(err)
		w.later(func() { // GitHub registers it
			name := id + "-abc"
			if !w.nomad[id].over {
				w.runners[name] = &hubRunner{id: id, labels: w.jobs[c.Job.ID].labels}
			}
			w.later(func() {
				w.must(w.Configured(w.ctx(), id, name, 99, router.Target{Owner: "acme", Repo: fmt.Sprint("r", w.base)}, w.now))
				w.must(w.Online(w.ctx(), id, w.now))
			})
		})
	})
}

// assign has GitHub give an idle runner a job whose labels it covers. Only one
// that has its configuration is there to take it.
func (w *world) assign() bool {
	type pair struct {
		name string
		id   int64
	}
	var pairs []pair
	known := w.stored()
	for name, r := range w.runners {
		if r.job != 0 || w.nomad[r.id].over || known[r.id].GitHubID == 0 {
			continue
		}
		for _, id := range w.in("queued") {
			if !slices.ContainsFunc(w.jobs[id].labels, func(l string) bool { return !slices.Contains(r.labels, l) }) {
				pairs = append(pairs, pair{name, id})
			}
		}
	}
	if len(pairs) == 0 {
		return false
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.id, b.id)) })
	p := draw(w, "given", pairs)
	r, j := w.runners[p.name], w.jobs[p.id]
	if known[r.id].JobID != p.id {
		w.thefts++
	}
	r.job, j.state, j.runner = p.id, "in_progress", p.name
	w.send(p.id)
	return true
}

// stored returns the runners of the database, by ID.
func (w *world) stored() map[string]router.Runner {
	known := map[string]router.Runner{}
	for jobID := range w.jobs {
		list, err := w.Runners(w.ctx(), jobID)
		if !errors.Is(err, router.ErrNotFound) {
			w.must(err)
		}
		for _, r := range list {
			known[r.ID] = r
		}
	}
	return known
}

// finish ends a job that runs, and with it its runner.
func (w *world) finish() bool {
	running := w.in("in_progress")
	if len(running) == 0 {
		return false
	}
	id := draw(w, "finished", running)
	j := w.jobs[id]
	j.state = "completed"
	w.nomad[w.runners[j.runner].id].over = true
	delete(w.runners, j.runner)
	w.send(id)
	return true
}

func (w *world) cancel() bool {
	queued := append(w.in("queued"), w.in("waiting")...)
	if len(queued) == 0 {
		return false
	}
	id := draw(w, "cancelled", queued)
	w.jobs[id].state, w.jobs[id].cancelled = "completed", true
	w.send(id)
	return true
}

// die has Nomad end a runner that has no job, which is recorded; its own
// job is tried again later.
func (w *world) die() bool {
	idle := map[string]string{} // names on GitHub
	for id, n := range w.nomad {
		if !n.over {
			idle[id] = ""
		}
	}
	for name, r := range w.runners {
		if idle[r.id] = name; r.job != 0 {
			delete(idle, r.id)
		}
	}
	if len(idle) == 0 {
		return false
	}
	id := draw(w, "dies", slices.Sorted(maps.Keys(idle)))
	w.nomad[id].over = true
	delete(w.runners, idle[id])
	w.deaths++
	w.later(func() {
		_, err := w.Lost(w.ctx(), router.Runner{ID: id}, w.now.Add(10*time.Second), router.CauseRunner, "its Nomad job ended", w.now)
		w.must(err)
	})
	return true
}

// leftovers has the worker read the runners that no job waits for: then it uses
// each for another job, or retires it.
func (w *world) leftovers() bool {
	list, err := w.Leftovers(w.ctx(), 0)
	w.must(err)
	for _, r := range list {
		if w.jobs[r.JobID] == nil {
			continue
		}
		w.later(func() {
			jobID, err := w.Reuse(w.ctx(), r.ID, w.now)
			w.must(err)
			inHand := r.NomadJob == "" && w.nomad[r.ID] == nil || r.NomadJob == "" && !w.nomad[r.ID].over
			if jobID != 0 || r.State == router.RunnerClaimed || inHand {
				return
			}
			w.later(func() { w.retire(r) })
		})
	}
	return false
}

func (w *world) retire(r router.Runner) {
	stopped := func() bool {
		ok, err := w.Stopped(w.ctx(), r, "no job needs it any more", w.now)
		w.must(err)
		return ok
	}
	if r.State == router.RunnerDispatched {
		if stopped() {
			w.nomad[r.ID].over = true
		}
		return
	}
	if on := w.runners[r.Name]; on != nil {
		if on.job != 0 {
			return // 422
		}
		delete(w.runners, r.Name)
	}
	w.nomad[r.ID].over = true
	w.later(func() { stopped() })
}

// settle lets everything that is on its way arrive, and GitHub say where each
// job stands, until all is quiet.
func (w *world) settle() {
	for round := 0; ; round++ {
		w.now = w.now.Add(time.Second)
		for len(w.hand) > 0 {
			w.goOnWith()
		}
		for len(w.mail) > 0 {
			w.deliver()
		}
		for _, id := range slices.Sorted(maps.Keys(w.jobs)) {
			w.receive(w.says(id))
		}
		for w.approve() {
		}
		quiet := len(w.in("queued"))+len(w.in("in_progress")) == 0
		for _, n := range w.nomad {
			quiet = quiet && n.over
		}
		if quiet {
			break
		}
		if round == 200 {
			w.rt.Fatalf("it does not end: %s", w)
		}
		for _, do := range []func() bool{w.leftovers, w.dispatch, w.startOne, w.assign, w.finish} {
			for more := do(); more; more = do() {
				for len(w.hand) > 0 {
					w.goOnWith()
				}
			}
		}
	}
	for id := range w.jobs {
		w.wantState(id, router.Completed)
		if j := w.jobs[id]; !j.cancelled && j.runner == "" {
			w.rt.Fatalf("job %d was neither served nor cancelled: %s", id, w)
		}
		list, err := w.Runners(w.ctx(), id)
		w.must(err)
		for _, r := range list {
			if slices.Contains([]router.RunnerState{router.RunnerClaimed, router.RunnerOnline, router.RunnerBusy}, r.State) {
				w.rt.Fatalf("runner %s is %s for ever: %s", r.ID, r.State, w)
			}
		}
	}
	if len(w.runners) > 0 {
		w.rt.Fatalf("GitHub keeps idle runners: %s", w)
	}
	if w.started > len(w.jobs)+w.thefts+w.deaths+2*w.holds { // a late delivery of what was before costs one more
		w.rt.Fatalf("%d runners were started for %d jobs, %d thefts, %d deaths and %d holds: %s", w.started, len(w.jobs), w.thefts, w.deaths, w.holds, w)
	}
}

// String is what a failure is understood by.
func (w *world) String() string {
	s := fmt.Sprintf("%d started, %d thefts", w.started, w.thefts)
	for _, id := range slices.Sorted(maps.Keys(w.jobs)) {
		j := w.jobs[id]
		s += fmt.Sprintf("\njob %d %v is %s by %q", id, j.labels, j.state, j.runner)
		events, err := w.Timeline(w.ctx(), id)
		w.must(err)
		for _, e := range events {
			s += fmt.Sprintf("\n    %s %s %s %s: %s", e.At.Format(time.TimeOnly), e.RunnerID, e.Source, e.State, e.What)
		}
	}
	for id, n := range w.nomad {
		s += fmt.Sprintf("\n%s: %+v", id, *n)
	}
	return s
}
