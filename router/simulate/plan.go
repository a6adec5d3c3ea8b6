package simulate

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/feasible"
	"switchyard/rules"
)

const (
	runnerID   = "gha-0-0"        // of rendered jobs. Tries count from 1, so that no runner ever has it
	spread     = 30 * time.Minute // within which the copies of a run come after it
	progress   = 2048             // jobs between two calls of Progress
	maxWhy     = 3                // of what nodes lack
	maxMessage = 300              // characters of a reason
)

// A plan is all that does not depend on the fleet. It is not changed by simulating.
type plan struct {
	first   time.Time // when the first job came
	jobs    []job     // in the order in which they come
	demands []*demand
	limits  []int // the most jobs at once, of each key
	rules   []string
	repos   []router.RepoName

	left map[string]int // jobs that are left out, by why
}

// A job is one to simulate. Times are milliseconds, and instants are those after plan.first.
type job struct {
	at        int64 // when it comes
	start     int64 // from its node until a runner takes it
	run       int64 // from there to its end
	tail      int64 // from there until the node is free
	recorded  int64 // how long it waited
	id        int64
	repo      int32
	rule      int32
	demand    int32
	limit     int32 // -1: none
	urgency   int32 // as in router.HeldJob
	fallbacks []fallback
}

// A fallback is what a job asks for when it has no node for so long after it was registered.
type fallback struct {
	after  int64
	demand int32
}

// A demand is what some jobs ask of a node.
type demand struct {
	job      *api.Job
	group    *api.TaskGroup
	priority int
	unique   bool   // a constraint is about what is unique to a node
	problem  string // why it is not known; "": it is
}

// errTooMany is the error of a history that is too long.
var errTooMany = fmt.Errorf("there are more than %d jobs: simulate fewer days, or a smaller scale", MaxJobs)

// newPlan decides the recorded jobs.
func newPlan(ctx context.Context, c Config, jobs iter.Seq2[router.PastJob, error]) (*plan, error) {
	p := &planner{Config: c, plan: &plan{left: map[string]int{}}, demandOf: map[string]int32{}, limitOf: map[string]int32{}, ruleOf: map[string]int32{}, repoOf: map[string]int32{}}
	n := 0
	for past, err := range jobs {
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := p.add(ctx, &past); err != nil {
			return nil, err
		}
		if n++; n%progress == 0 {
			c.Progress(Progress{Doing: "deciding", Done: n})
		}
	}
	return p.plan, p.finish()
}

type planner struct {
	Config
	*plan
	past                              []decided
	demandOf, limitOf, ruleOf, repoOf map[string]int32
}

// A decided is a job before its times are relative.
type decided struct {
	job
	queued  time.Time
	runID   int64
	started bool // start is known
}

// add decides a job.
func (p *planner) add(ctx context.Context, past *router.PastJob) error {
	d := p.Rules.Decide(past.Facts, false)
	if why := leaves(past, &d); why != "" {
		p.left[why]++
		return nil
	}
	if len(p.past) >= MaxJobs {
		return errTooMany
	}
	j := decided{queued: past.ReceivedAt, runID: past.RunID, job: job{id: past.ID, limit: -1}}
	if past.QueuedAt.After(j.queued) {
		j.queued = past.QueuedAt
	}
	ms := func(from, to time.Time) int64 { return max(0, to.Sub(from).Milliseconds()) }
	j.recorded, j.run = ms(j.queued, past.RunningAt), ms(past.RunningAt, past.CompletedAt)
	if !past.PlacedAt.Before(j.queued) && !past.PlacedAt.After(past.RunningAt) { // else its runner was warm, or another job's
		j.start, j.started = ms(past.PlacedAt, past.RunningAt), true
	}
	if !past.EndedAt.IsZero() {
		j.tail = ms(past.CompletedAt, past.EndedAt)
	}
	var err error
	if j.demand, err = p.demand(ctx, past, d.Rule, d.Placement); err != nil {
		return err
	}
	if problem := p.demands[j.demand].problem; problem != "" {
		p.left[problem]++
		return nil
	}
	for n := 0; ; {
		after, ok := time.Duration(0), false
		if n, after, ok = router.NextFallback(&d, n); !ok {
			break
		}
		to, err := p.demand(ctx, past, d.Rule, d.Fallback[n-1].Placement)
		if err != nil {
			return err
		}
		if p.demands[to].problem == "" {
			j.fallbacks = append(j.fallbacks, fallback{after.Milliseconds(), to})
		}
	}
	if l := d.Limit; l != nil {
		known := len(p.limitOf)
		if j.limit = numbered(p.limitOf, l.Key); int(j.limit) == known {
			p.limits = append(p.limits, l.Running)
		}
	}
	known := len(p.ruleOf)
	if j.rule = numbered(p.ruleOf, d.Rule); int(j.rule) == known {
		p.rules = append(p.rules, d.Rule)
	}
	known = len(p.repoOf)
	if j.repo = numbered(p.repoOf, past.Repo.Host+"/"+past.Repo.FullName); int(j.repo) == known {
		p.repos = append(p.repos, router.RepoName{Host: past.Repo.Host, Owner: past.Repo.Owner, Name: past.Repo.Name})
	}
	j.urgency = int32(router.UrgencyOf(&d))
	p.past = append(p.past, j)
	return nil
}

// numbered returns the number of a name, from 0.
func numbered(of map[string]int32, name string) int32 {
	n, ok := of[name]
	if !ok {
		n = int32(len(of))
		of[strings.Clone(name)] = n
	}
	return n
}

// leaves says why a job is left out; "": it is not.
func leaves(past *router.PastJob, d *rules.Decision) string {
	switch d.Outcome {
	case rules.Routed:
	case rules.Undecided:
		return "undecided: the history lacks what a rule asks about the run"
	default:
		return string(d.Outcome)
	}
	switch {
	case past.ReceivedAt.IsZero():
		return "not known when it came"
	case past.RunningAt.IsZero():
		return "never ran"
	case past.CompletedAt.IsZero():
		return "not known when it ended"
	}
	return ""
}

// demand returns the number of what a placement asks of a node.
func (p *planner) demand(ctx context.Context, past *router.PastJob, rule string, placement router.Placement) (int32, error) {
	ask := placement
	ask.Task, ask.Runner, ask.DispatchMeta, ask.From = rules.Task{}, rules.Runner{}, nil, nil
	key, err := json.Marshal(ask)
	if err != nil {
		return 0, err
	}
	if n, ok := p.demandOf[string(key)]; ok {
		return n, nil
	}
	d := &demand{}
	job, err := p.Render(ctx, router.StartRequest{
		Job: router.Job{Repo: past.Repo, Labels: past.Labels}, Runner: router.Runner{ID: runnerID, Name: runnerID}, Rule: rule, Placement: placement,
	})
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err != nil:
		d.problem = router.Shorten(router.OneLine(err.Error()), maxMessage)
	case len(job.TaskGroups) != 1:
		d.problem = fmt.Sprintf("jobspec %s has %d groups", placement.Jobspec, len(job.TaskGroups))
	default:
		d.of(job)
	}
	n := int32(len(p.demands))
	p.demands = append(p.demands, d)
	p.demandOf[string(key)] = n
	return n, nil
}

// of fills in a demand from its job, and in the job what Nomad fills in.
func (d *demand) of(job *api.Job) {
	if job.Priority != nil && *job.Priority == 0 {
		job.Priority = nil
	}
	job.Canonicalize()
	if *job.NodePool == "" {
		*job.NodePool = api.NodePoolDefault
	}
	if len(job.Datacenters) == 0 {
		job.Datacenters = []string{"*"}
	}
	d.job, d.group, d.priority = job, job.TaskGroups[0], *job.Priority
	d.unique = slices.ContainsFunc(slices.Concat(job.Constraints, feasible.GroupConstraints(d.group)), feasible.Unique)
}

// finish scales the jobs, and puts them in order.
func (p *planner) finish() error {
	usual := p.usualStart()
	runs := map[string][]int{}
	slices.SortFunc(p.past, func(a, b decided) int { return cmp.Or(a.queued.Compare(b.queued), cmp.Compare(a.id, b.id)) })
	var order []string
	for i := range p.past {
		j := &p.past[i]
		if !j.started {
			j.start = min(usual[j.rule], j.recorded)
		}
		run := "job " + strconv.FormatInt(j.id, 10)
		if j.runID != 0 {
			run = "run " + strconv.FormatInt(j.runID, 10)
		}
		if j.id == 0 && j.runID == 0 {
			run = "line " + strconv.Itoa(i)
		}
		if runs[run] == nil {
			order = append(order, run)
		}
		runs[run] = append(runs[run], i)
	}
	if len(p.past) == 0 {
		return nil
	}
	p.first = p.past[0].queued
	for i, run := range order {
		copies := int(float64(i+1)*p.Scale) - int(float64(i)*p.Scale)
		if len(p.jobs)+copies*len(runs[run]) > MaxJobs {
			return errTooMany
		}
		for n := range copies {
			for _, i := range runs[run] {
				j := p.past[i].job
				j.at = p.past[i].queued.Sub(p.first).Milliseconds() + later(run, n)
				p.jobs = append(p.jobs, j)
			}
		}
	}
	slices.SortStableFunc(p.jobs, func(a, b job) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id)) })
	return nil
}

// later returns how many milliseconds after a run its nth copy comes.
func later(run string, n int) int64 {
	if n == 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write(binary.AppendVarint([]byte(run), int64(n)))
	return int64(h.Sum64() % uint64(spread.Milliseconds()))
}

// usualStart returns the median of the start-ups that are known, of each rule.
func (p *planner) usualStart() []int64 {
	known := make([][]int64, len(p.rules))
	for _, j := range p.past {
		if j.started {
			known[j.rule] = append(known[j.rule], j.start)
		}
	}
	usual := make([]int64, len(p.rules))
	for i, all := range known {
		if len(all) > 0 {
			slices.Sort(all)
			usual[i] = all[(len(all)-1)/2]
		}
	}
	return usual
}

func (p *plan) leftOut() []LeftOut {
	all := []LeftOut{}
	for _, why := range slices.Sorted(maps.Keys(p.left)) {
		all = append(all, LeftOut{why, p.left[why]})
	}
	slices.SortStableFunc(all, func(a, b LeftOut) int { return cmp.Compare(b.Jobs, a.Jobs) })
	return all
}

// leftOutText says what the history had instead of jobs to simulate.
func (p *plan) leftOutText() string {
	var parts []string
	for _, l := range p.leftOut() {
		parts = append(parts, fmt.Sprintf("%s: %s", router.Count(l.Jobs, "job"), l.Why))
	}
	if parts == nil {
		return "it is empty"
	}
	return strings.Join(parts[:min(len(parts), maxWhy)], "; ")
}
