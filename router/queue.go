package router

import (
	"cmp"
	"container/heap"
	"math/rand/v2"
	"slices"
	"time"

	"switchyard/rules"
)

const (
	// UrgencyWorth is for how much longer an older job must have waited to come before one that
	// is a point more urgent.
	UrgencyWorth = 6 * time.Minute

	// LongestOvertaking is how much later a job may have come than one that it gets a place
	// before, under a limit that goes by urgency.
	LongestOvertaking = rules.MaxUrgency * UrgencyWorth

	// NoUrgency is the Urgency of a job whose limit does not go by it.
	NoUrgency = -1
)

// A HeldJob waits for a place under a limit.
type HeldJob struct {
	ID         int64
	Repo       RepoName
	Urgency    int // 0 to rules.MaxUrgency, or NoUrgency
	ReceivedAt time.Time
}

// A RepoName names a repository.
type RepoName struct{ Host, Owner, Name string }

// A PlacedJob has a place under a limit.
type PlacedJob struct {
	Repo  RepoName
	Since time.Time // when its first runner was registered; zero: not yet
}

// A LimitQueue is who has, and who waits for, a place under one limit.
type LimitQueue struct {
	Placed []PlacedJob // since longest first, then those without a runner
	Held   []HeldJob   // in no order
	More   bool        // there are more that wait: nobody's place is known
	Ran    []RanJob    // the newest jobs of the rule that ran and ended
}

// A RanJob is one that ran and ended, by the time since its runner was registered.
type RanJob struct {
	Started time.Duration // until it ran
	Ended   time.Duration // until it left its place
}

// UrgencyOf returns what a job has as its HeldJob.Urgency by its decision.
func UrgencyOf(d *Decision) int {
	if d.Limit == nil || d.Limit.Order != rules.Priority {
		return NoUrgency
	}
	return d.Urgency
}

// A queue hands out the places under a limit in the order in which the store does.
type queue struct {
	lines  []*line
	places map[RepoName]int
}

// A line is the jobs of one repository and one urgency, oldest first.
type line struct {
	repo    RepoName
	urgency int
	jobs    []HeldJob
}

func newQueue(held []HeldJob) *queue {
	q := &queue{places: map[RepoName]int{}}
	type key struct {
		repo    RepoName
		urgency int
	}
	of := map[key]*line{}
	for _, j := range held {
		k := key{j.Repo, j.Urgency}
		if of[k] == nil {
			of[k] = &line{repo: j.Repo, urgency: j.Urgency}
			q.lines = append(q.lines, of[k])
		}
		of[k].jobs = append(of[k].jobs, j)
	}
	for _, l := range q.lines {
		slices.SortFunc(l.jobs, older)
	}
	return q
}

// older compares two jobs by when they came.
func older(a, b HeldJob) int {
	return cmp.Or(a.ReceivedAt.Compare(b.ReceivedAt), cmp.Compare(a.ID, b.ID))
}

// turn returns when the oldest job of a line would have had to come to have the same turn
// without any urgency.
func (l *line) turn() time.Time {
	return l.jobs[0].ReceivedAt.Add(-time.Duration(l.urgency) * UrgencyWorth)
}

// next removes the job that is next, and counts its place; false: none waits.
func (q *queue) next() (HeldJob, bool) {
	q.lines = slices.DeleteFunc(q.lines, func(l *line) bool { return len(l.jobs) == 0 })
	if len(q.lines) == 0 {
		return HeldJob{}, false
	}
	first := slices.MinFunc(q.lines, func(a, b *line) int { return cmp.Or(a.turn().Compare(b.turn()), b.urgency-a.urgency) })
	var others time.Time // the turn of the first of another urgency
	for _, l := range q.lines {
		if l.urgency != first.urgency && (others.IsZero() || l.turn().Before(others)) {
			others = l.turn()
		}
	}
	oldest := first.jobs[0].ReceivedAt
	var best *line
	for _, l := range q.lines {
		late := l.urgency != NoUrgency && l.jobs[0].ReceivedAt.After(oldest.Add(LongestOvertaking)) || !others.IsZero() && l.turn().After(others)
		if l.urgency == first.urgency && !late && (best == nil || q.before(l, best)) {
			best = l
		}
	}
	j := best.jobs[0]
	best.jobs = best.jobs[1:]
	q.places[j.Repo]++
	return j, true
}

// before reports which of two lines of one urgency is first: that of the repository with the
// fewest places, else that of the oldest job.
func (q *queue) before(a, b *line) bool {
	return cmp.Or(q.places[a.repo]-q.places[b.repo], older(a.jobs[0], b.jobs[0])) < 0
}

// maxPlaceSteps bounds the work of finding a job's place.
const maxPlaceSteps = 5_000_000

// Before returns how many jobs get a place before this one does, if no others come and places
// become free in the order in which they were taken; false: it does not wait here, or too
// many do.
func (l *LimitQueue) Before(id int64) (n int, ok bool) {
	if l.More || !slices.ContainsFunc(l.Held, func(j HeldJob) bool { return j.ID == id }) {
		return 0, false
	}
	q := newQueue(l.Held)
	placed := make([]RepoName, 0, len(l.Placed)+len(l.Held))
	for _, p := range l.Placed {
		q.places[p.Repo]++
		placed = append(placed, p.Repo)
	}
	for steps := 0; steps < maxPlaceSteps; steps += len(q.lines) + 1 {
		if n < len(placed) {
			q.places[placed[n]]--
		}
		j, ok := q.next()
		if !ok || j.ID == id {
			return n, ok
		}
		placed = append(placed, j.Repo)
		n++
	}
	return 0, false
}

// An Estimate says when a job will probably start: in one of ten cases before Soonest, in one
// of ten after Latest, and Likely is in the middle. Its JSON form is a contract.
type Estimate struct {
	Soonest time.Time `json:"soonest"`
	Likely  time.Time `json:"likely"`
	Latest  time.Time `json:"latest"`
	Jobs    int       `json:"jobs"` // how many ended jobs it is made from
}

const (
	// EstimateJobs is from how many ended jobs an estimate is made at least, and RanJobs from how
	// many at most.
	EstimateJobs = 20
	RanJobs      = 200

	maxEstimateSteps = 400_000
)

// Estimate estimates when a job starts that as many others get a place before; false: too few
// jobs have ended. It plays the queue through many times, each job for as long as one that
// ended, drawn at random, and always draws the same for the same queue.
func (l *LimitQueue) Estimate(before int, now time.Time) (e Estimate, ok bool) {
	if len(l.Ran) < EstimateJobs {
		return e, false
	}
	lasted := make([]time.Duration, len(l.Ran))
	for i, r := range l.Ran {
		lasted[i] = r.Ended
	}
	slices.Sort(lasted)
	random := rand.New(rand.NewPCG(uint64(before), uint64(len(l.Placed))))
	draw := func(from []time.Duration) time.Duration { return from[random.IntN(len(from))] }
	starts := make([]time.Duration, min(200, max(20, maxEstimateSteps/(before+len(l.Placed)+1))))
	ends := make(durations, 0, max(1, len(l.Placed)))
	for i := range starts {
		ends = ends[:0]
		for _, p := range l.Placed {
			var ran time.Duration
			if !p.Since.IsZero() {
				ran = max(0, now.Sub(p.Since))
			}
			longer := lasted[len(lasted)-afterwards(lasted, ran):]
			if len(longer) == 0 { // than any that ended
				longer, ran = lasted, 0
			}
			ends = append(ends, draw(longer)-ran)
		}
		if len(ends) == 0 { // a place is free
			ends = append(ends, 0)
		}
		heap.Init(&ends)
		for range before {
			ends[0] += draw(lasted)
			heap.Fix(&ends, 0)
		}
		starts[i] = ends[0] + l.Ran[random.IntN(len(l.Ran))].Started
	}
	slices.Sort(starts)
	at := func(tenths int) time.Time { return now.Add(starts[(len(starts)-1)*tenths/10]).Truncate(time.Second) }
	return Estimate{at(1), at(5), at(9), len(l.Ran)}, true
}

// afterwards returns how many of some sorted durations are longer than d.
func afterwards(sorted []time.Duration, d time.Duration) int {
	i, _ := slices.BinarySearch(sorted, d+1)
	return len(sorted) - i
}

// durations is a heap of them, the shortest first.
type durations []time.Duration

func (d durations) Len() int           { return len(d) }
func (d durations) Less(i, j int) bool { return d[i] < d[j] }
func (d durations) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *durations) Push(x any)        { *d = append(*d, x.(time.Duration)) }
func (d *durations) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}
