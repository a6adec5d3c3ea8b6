package simulate

import (
	"cmp"
	"context"
	"math"
	"time"

	"switchyard/router"
	"switchyard/router/feasible"
)

// An outcome is what became of the jobs of a plan. Times are as in the plan.
type outcome struct {
	counts   []int   // nodes of each class
	admitted []int64 // when each job had a place under its limit
	placed   []int64 // when each had a node; -1: none could serve it
	fell     []uint8 // to which fallback, from 1; 0: to none
	as       []int32 // the demand of each, or of its fallback
	node     []int32 // which node each had
	classes  []int   // of the nodes
	busyFor  []int64 // how long each node had jobs; of several at once the sum
	end      int64   // when the last job ended
	used     []use   // of the classes
	atOnce   []int   // the most nodes of each group that had a job at the same time
}

// A use is what the jobs used of a class: amounts times milliseconds.
type use struct {
	nodes, jobs          int
	cpu, memory, devices float64
}

// A queued is a job that waits for a node since it was registered as the seq-th.
type queued struct {
	job int32
	seq int64
}

// A waiting is a list of jobs of one demand, in the order in which they are placed.
type waiting struct {
	jobs []queued
	gone int // of the first ones
}

// A bucket is the nodes of a class that have the same left.
type bucket struct {
	class int
	left  feasible.Amount
	nodes []int32
	at    int   // in class.live; -1: it has no node
	fits  []fit // by demand; nil: none is known
}

// A fit is how a demand fits the nodes of a bucket.
type fit struct {
	score float64         // 0: not known; below none: it does not fit
	take  feasible.Amount // what it takes of one
	to    *bucket         // where the node is then; nil: not known
}

const none = -10.0

// A shape is an Amount as a key.
type shape struct {
	cpu, cores, memory, disk int
	devices                  string
}

func shapeOf(a feasible.Amount) shape {
	d := make([]byte, 0, 2*len(a.Devices))
	for _, n := range a.Devices {
		d = append(d, byte(n), byte(n>>8))
	}
	return shape{a.CPU, a.Cores, a.MemoryMB, a.DiskMB, string(d)}
}

// A world is one simulation.
type world struct {
	*plan
	*outcome
	fleet *fleet

	now     int64
	seq     int64
	events  events
	buckets []map[shape]*bucket // by class
	live    [][]*bucket         // those with nodes, by class
	suit    [][]int             // the classes for each demand
	nodes   []*bucket           // in which each node is
	within  []int               // and at which place
	runs    []int               // how many jobs each node has
	busy    []int               // nodes of each group that have a job

	waiting []waiting         // by demand
	active  []int32           // demands for which jobs wait
	seqOf   []int64           // of a job that waits for a node; 0: it does not
	takes   []feasible.Amount // what each job that has a node takes of it

	placedOf []int // jobs with a place under each limit
	places   []router.Places
}

// simulate gives each job of a plan a node, of so many of each class, and calls each now and
// then with how many jobs have come.
func simulate(ctx context.Context, p *plan, f *fleet, counts []int, each func(done int)) (*outcome, error) {
	n := len(p.jobs)
	w := &world{
		plan: p, fleet: f,
		outcome: &outcome{
			counts: counts, admitted: make([]int64, n), placed: make([]int64, n), fell: make([]uint8, n), as: make([]int32, n), node: make([]int32, n),
			used: make([]use, len(f.classes)), atOnce: make([]int, len(f.groups)),
		},
		waiting: make([]waiting, len(p.demands)), seqOf: make([]int64, n), takes: make([]feasible.Amount, n),
		placedOf: make([]int, len(p.limits)), places: make([]router.Places, len(p.limits)), busy: make([]int, len(f.groups)),
	}
	w.build()
	for i := range w.placed {
		w.placed[i] = -1
	}
	next := 0
	for next < n || len(w.events) > 0 {
		if len(w.events) > 0 && (next == n || w.events[0].at <= p.jobs[next].at) {
			w.take(w.events.pop())
			continue
		}
		w.now = p.jobs[next].at
		w.arrive(int32(next))
		if next++; next%progress == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			each(next)
		}
	}
	for i, b := range w.nodes {
		if w.busyFor[i] > 0 {
			w.used[b.class].nodes++
		}
	}
	return w.outcome, nil
}

// build makes the idle nodes.
func (w *world) build() {
	w.buckets, w.live = make([]map[shape]*bucket, len(w.counts)), make([][]*bucket, len(w.counts))
	for c, n := range w.counts {
		w.buckets[c] = map[shape]*bucket{}
		b := w.bucket(c, w.fleet.classes[c].idle)
		for range n {
			id := int32(len(w.nodes))
			w.classes, w.busyFor = append(w.classes, c), append(w.busyFor, 0)
			w.nodes, w.within, w.runs = append(w.nodes, nil), append(w.within, 0), append(w.runs, 0)
			w.enter(b, id)
		}
	}
	w.suit = make([][]int, len(w.demands))
	for d := range w.demands {
		for c := range w.counts {
			if w.counts[c] > 0 && w.fleet.classes[c].suits[d] {
				w.suit[d] = append(w.suit[d], c)
			}
		}
	}
}

// arrive takes a job that comes now.
func (w *world) arrive(i int32) {
	j := &w.jobs[i]
	w.as[i] = j.demand
	never := len(w.suit[j.demand]) == 0
	for _, f := range j.fallbacks {
		never = never && len(w.suit[f.demand]) == 0
	}
	if never {
		return
	}
	if j.limit >= 0 {
		if w.placedOf[j.limit] >= w.limits[j.limit] {
			w.places[j.limit].Wait(router.HeldJob{ID: int64(i), Repo: w.repos[j.repo], Urgency: int(j.urgency), ReceivedAt: w.plan.first.Add(time.Duration(j.at) * time.Millisecond)})
			return
		}
		w.places[j.limit].Take(w.repos[j.repo])
		w.placedOf[j.limit]++
	}
	w.admit(i)
}

// release gives the place of a job that ended to the one that is next.
func (w *world) release(i int32) {
	j := &w.jobs[i]
	w.places[j.limit].Leave(w.repos[j.repo])
	if next, ok := w.places[j.limit].Next(); ok {
		w.admit(int32(next.ID))
	} else {
		w.placedOf[j.limit]--
	}
}

// admit registers a job.
func (w *world) admit(i int32) {
	w.admitted[i] = w.now
	if w.register(i); w.seqOf[i] == 0 {
		return
	}
	for n, f := range w.jobs[i].fallbacks[:min(len(w.jobs[i].fallbacks), math.MaxUint8)] {
		w.events.push(event{w.now + f.after, fallsBack, i, uint8(n + 1)})
	}
}

// register places a job, or lets it wait.
func (w *world) register(i int32) {
	d := w.as[i]
	if b := w.choose(d); b != nil {
		w.place(i, b, b.nodes[len(b.nodes)-1])
		return
	}
	w.seq++
	w.seqOf[i] = w.seq
	q := &w.waiting[d]
	if q.gone == len(q.jobs) {
		q.jobs, q.gone = q.jobs[:0], 0
		w.active = append(w.active, d)
	}
	q.jobs = append(q.jobs, queued{i, w.seq})
}

// choose returns the nodes that suit a demand best; nil: none has room.
func (w *world) choose(d int32) (best *bucket) {
	top := none
	for _, c := range w.suit[d] {
		for _, b := range w.live[c] {
			if f := w.fit(b, d); f.score > top {
				best, top = b, f.score
			}
		}
	}
	return best
}

// fit returns how a demand fits the nodes of a bucket.
func (w *world) fit(b *bucket, d int32) *fit {
	if b.fits == nil {
		b.fits = make([]fit, len(w.demands))
	}
	f := &b.fits[d]
	if f.score != 0 {
		return f
	}
	of, c := w.demands[d], &w.fleet.classes[b.class]
	take, short := feasible.Take(c.node, b.left, of.group)
	if !c.suits[d] || short != "" {
		f.score = none
		return f
	}
	f.take, f.score = take, feasible.BinPack(c.node, b.left, take)
	if likes := c.likes[d]; likes != 0 {
		f.score = (f.score + likes) / 2
	}
	if f.score == 0 {
		f.score = math.SmallestNonzeroFloat64
	}
	return f
}

// place gives a job a node, which is the last one of its bucket, or one that was just freed.
func (w *world) place(i int32, b *bucket, node int32) {
	f := w.fit(b, w.as[i])
	w.seqOf[i], w.placed[i] = 0, w.now
	w.node[i], w.takes[i] = node, f.take
	if f.to == nil {
		f.to = w.bucket(b.class, b.left.Plus(-1, f.take))
	}
	to := f.to // leaving may forget f
	w.leave(node)
	w.enter(to, node)
	g := w.fleet.classes[b.class].group
	if w.runs[node]++; w.runs[node] == 1 {
		w.busy[g]++
		w.atOnce[g] = max(w.atOnce[g], w.busy[g])
	}
	w.used[b.class].jobs++
	j := &w.jobs[i]
	ends := w.now + j.start + j.run
	w.end = max(w.end, ends)
	if j.limit >= 0 {
		w.events.push(event{ends, completes, i, 0})
	}
	w.events.push(event{ends + j.tail, frees, i, 0})
}

// take handles an event.
func (w *world) take(e event) {
	w.now = e.at
	switch e.what {
	case completes:
		w.release(e.job)
	case frees:
		w.free(e.job)
	case fallsBack:
		if w.seqOf[e.job] != 0 {
			w.fell[e.job] = e.fallback
			w.as[e.job] = w.jobs[e.job].fallbacks[e.fallback-1].demand
			w.register(e.job)
		}
	}
}

// free ends what a job has of its node, and offers the node to those that wait.
func (w *world) free(i int32) {
	node, take := w.node[i], w.takes[i]
	w.takes[i] = feasible.Amount{}
	b := w.nodes[node]
	c := &w.fleet.classes[b.class]
	held, u := float64(w.now-w.placed[i]), &w.used[b.class]
	w.busyFor[node] += w.now - w.placed[i] + 1 // not 0
	u.cpu += float64(take.CPU) * held
	u.memory += float64(take.MemoryMB) * held
	for _, n := range take.Devices {
		u.devices += float64(n) * held
	}
	if w.runs[node]--; w.runs[node] == 0 {
		w.busy[c.group]--
	}
	w.leave(node)
	w.enter(w.bucket(b.class, b.left.Plus(1, take)), node)
	for {
		b := w.nodes[node]
		var next *queued
		var of int32
		for n := 0; n < len(w.active); n++ {
			d := w.active[n]
			q := w.first(d)
			if q == nil { // nobody waits any more
				w.active[n] = w.active[len(w.active)-1]
				w.active = w.active[:len(w.active)-1]
				n--
				continue
			}
			if next != nil && cmp.Or(cmp.Compare(w.demands[of].priority, w.demands[d].priority), cmp.Compare(q.seq, next.seq)) > 0 {
				continue
			}
			if w.fit(b, d).score > none {
				next, of = q, d
			}
		}
		if next == nil {
			return
		}
		w.place(next.job, b, node)
	}
}

// first returns the first job that waits for a demand; nil: none does.
func (w *world) first(d int32) *queued {
	q := &w.waiting[d]
	for ; q.gone < len(q.jobs); q.gone++ {
		if at := &q.jobs[q.gone]; w.seqOf[at.job] == at.seq {
			return at
		}
	}
	q.jobs, q.gone = q.jobs[:0], 0
	return nil
}

// bucket returns the bucket of the nodes of a class that have so much left.
func (w *world) bucket(class int, left feasible.Amount) *bucket {
	s := shapeOf(left)
	b := w.buckets[class][s]
	if b == nil {
		b = &bucket{class: class, left: left, at: -1}
		w.buckets[class][s] = b
	}
	return b
}

// enter puts a node into a bucket.
func (w *world) enter(b *bucket, node int32) {
	w.nodes[node], w.within[node] = b, len(b.nodes)
	b.nodes = append(b.nodes, node)
	if b.at < 0 {
		b.at = len(w.live[b.class])
		w.live[b.class] = append(w.live[b.class], b)
	}
}

// leave takes a node out of its bucket, and forgets what fits a bucket without nodes.
func (w *world) leave(node int32) {
	b := w.nodes[node]
	last := len(b.nodes) - 1
	at := w.within[node]
	b.nodes[at] = b.nodes[last]
	w.within[b.nodes[at]] = at
	b.nodes = b.nodes[:last]
	if last > 0 {
		return
	}
	live := w.live[b.class]
	moved := live[len(live)-1]
	live[b.at], moved.at = moved, b.at
	w.live[b.class] = live[:len(live)-1]
	b.at, b.fits, b.nodes = -1, nil, nil
}

// What happens.
const (
	completes = iota // a job ended; its place under a limit is free
	frees            // its node is
	fallsBack        // it has waited so long for a node
)

// An event is something that happens to a job.
type event struct {
	at       int64
	what     int
	job      int32
	fallback uint8
}

func (a event) before(b event) bool {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.what, b.what), cmp.Compare(a.job, b.job), cmp.Compare(a.fallback, b.fallback)) < 0
}

// events is a heap, the next event first.
type events []event

func (h *events) push(e event) {
	*h = append(*h, e)
	s := *h
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !s[i].before(s[up]) {
			break
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

func (h *events) pop() event {
	s := *h
	first, last := s[0], len(s)-1
	s[0] = s[last]
	s = s[:last]
	*h = s
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			break
		}
		if down+1 < last && s[down+1].before(s[down]) {
			down++
		}
		if !s[down].before(s[i]) {
			break
		}
		s[i], s[down] = s[down], s[i]
		i = down
	}
	return first
}
