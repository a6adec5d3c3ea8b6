package rules

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"switchyard/rules/internal/cond"
)

// A Record is one recorded job. Its JSON form is a contract.
type Record struct {
	ID int64 `json:"id,omitempty"` // GitHub's workflow_job.id; 0: not known
	Facts
}

// A Comparison says what a change of the rules does to recorded jobs. Its JSON form is a contract.
type Comparison struct {
	Jobs    int `json:"jobs"`    // compared
	Changed int `json:"changed"` // of these
	// Undecided jobs reach, by either file, a rule that asks for run.… while
	// their record does not say it. They are compared as far as that.
	Undecided int     `json:"undecided"`
	Groups    []Group `json:"groups"`    // the largest first
	Ungrouped int     `json:"ungrouped"` // changed jobs in no group: there are too many ways of change
}

// A Group is the jobs that change in one way.
type Group struct {
	Count    int          `json:"count"`
	Rule     string       `json:"rule"`     // the rule that now takes or denies all of them; "" when they have several or none
	Changes  []Change     `json:"changes"`  // at least one
	Examples []ChangedJob `json:"examples"` // the first recorded, up to 3
}

// A Change is one part of a decision that differs.
type Change struct {
	Part string `json:"part"` // its JSON path in a decision: "outcome", "constraints", "resources.memory_mb", "task.env.FOO", "fallback.5m.node_pool"
	Old  string `json:"old"`  // "": not set. Of a list, one entry that went …
	New  string `json:"new"`  // … or one that came
}

// A ChangedJob is one job of a group.
type ChangedJob struct {
	ID     int64    `json:"id,omitempty"` // 0: not known
	Repo   string   `json:"repo"`         // owner/name
	Job    string   `json:"job"`
	Labels []string `json:"labels"` // up to MaxLabels, as is each text cut to MaxLabelLength
	Reason string   `json:"reason"` // of the new decision
}

const (
	maxGroups     = 1000 // that a comparison keeps
	groupExamples = 3    // of a group

	// Jobs that are alike to both files are decided once: at most so many different ones are kept.
	maxAlike = 20_000
)

// Compare decides each job by both files and groups those whose outcome, rule, or anything asked of
// Nomad differs. Neither reasons, nor where a value came from, nor the order of a list count. It
// ends at the first error of jobs, and returns that; when ctx ends, it returns the comparison of
// the jobs so far, with the error of ctx. It decides on all processors, and jobs that differ in
// nothing that either file asks for only once; its memory does not grow with the number of jobs.
func Compare(ctx context.Context, before, after *Set, jobs iter.Seq2[Record, error]) (Comparison, error) {
	c := newComparer(before, after)
	err := c.compare(ctx, jobs)
	return c.Comparison, err
}

func newComparer(before, after *Set) *comparer {
	c := &comparer{before: before, after: after, groups: map[string]int{}, alike: map[[sha256.Size]byte]*difference{}, facts: maps.Clone(before.facts)}
	if c.facts == nil {
		c.facts = map[string]bool{}
	}
	maps.Copy(c.facts, after.facts)
	c.Groups = []Group{}
	return c
}

func (c *comparer) compare(ctx context.Context, jobs iter.Seq2[Record, error]) error {
	batch := make([]compared, 0, 256)
	for job, err := range jobs {
		switch {
		case ctx.Err() != nil:
		case err != nil:
			c.Comparison = Comparison{}
			return err
		default:
			batch = append(batch, compared{job: job})
		}
		if len(batch) == cap(batch) {
			c.add(ctx, batch)
			batch = batch[:0]
		}
		if ctx.Err() != nil {
			break
		}
	}
	c.add(ctx, batch)
	slices.SortStableFunc(c.Groups, func(a, b Group) int { return b.Count - a.Count })
	return ctx.Err()
}

// A compared is one job and what changes for it.
type compared struct {
	job   Record
	own   bool // it is decided itself
	steps int  // that this may take, so that others may be like it
	*difference
}

// A difference is what changes for a job, and for all that are alike.
type difference struct {
	rule, reason string // of the new decision
	undecided    bool
	done         bool // it was decided
	alone        bool // it took so many steps that a job that is alike may take too many
	changes      []Change
}

type comparer struct {
	before, after *Set
	facts         map[string]bool                   // what either asks for
	alike         map[[sha256.Size]byte]*difference // by the facts of the jobs
	decided       int                               // jobs that were decided; the others are like one of them
	groups        map[string]int                    // indexes of Groups, by what changes
	Comparison
}

// key returns a hash of what a job has in common with those that are decided alike, and how many
// steps a decision may take that is one for all of them; 0: it is decided by itself.
func (c *comparer) key(f *Facts) (key [sha256.Size]byte, steps int) {
	env := newEnv(f.Labels, *f)
	return sha256.Sum256(fmt.Appendf(nil, "%t %q %s", f.Cut, f.Labels, env.Values(c.facts))), env.Alike()
}

// add decides the jobs at once, and then counts them in their order. Those that
// are not decided when ctx ends are not counted.
func (c *comparer) add(ctx context.Context, batch []compared) {
	if ctx.Err() != nil {
		return
	}
	todo := make([]*compared, 0, len(batch))
	decide := func(j *compared) {
		j.difference, j.own = &difference{}, true
		todo = append(todo, j)
	}
	for i := range batch { // one of those that are alike
		j := &batch[i]
		var key [sha256.Size]byte
		key, j.steps = c.key(&j.job.Facts)
		if j.difference = c.alike[key]; j.difference != nil && j.steps > 0 {
			continue
		}
		decide(j)
		if j.steps > 0 && len(c.alike) < maxAlike {
			c.alike[key] = j.difference
		}
	}
	c.decide(ctx, todo)
	todo = todo[:0]
	for i := range batch {
		if j := &batch[i]; j.alone && !j.own {
			decide(j)
		}
	}
	c.decide(ctx, todo)
	for i := range batch {
		if batch[i].done {
			c.count(&batch[i])
		}
	}
}

// decide decides jobs on all processors.
func (c *comparer) decide(ctx context.Context, todo []*compared) {
	var wg sync.WaitGroup
	share := len(todo)/runtime.GOMAXPROCS(0) + 1
	for part := range slices.Chunk(todo, share) {
		wg.Go(func() {
			var was, is Decision // once for all: they are large, and the table takes their address
			var before, after int
			for _, j := range part {
				if ctx.Err() != nil {
					return
				}
				j.done = true
				was, before = c.before.decideWithin(cond.DecisionSteps, j.job.Facts, c.before.first)
				is, after = c.after.decideWithin(cond.DecisionSteps, j.job.Facts, c.after.first)
				j.alone = max(before, after) > j.steps
				j.rule, j.reason, j.changes = is.Rule, is.Reason, changed(&was, &is)
				j.undecided = was.Outcome == Undecided || is.Outcome == Undecided
			}
		})
	}
	wg.Wait()
	for _, j := range todo {
		if j.done {
			c.decided++
		}
	}
}

func (c *comparer) count(j *compared) {
	c.Jobs++
	if j.undecided {
		c.Undecided++
	}
	if len(j.changes) == 0 {
		return
	}
	c.Changed++
	key := fmt.Sprintf("%q", j.changes)
	i, ok := c.groups[key]
	switch {
	case ok:
	case len(c.Groups) == maxGroups:
		c.Ungrouped++
		return
	default:
		i = len(c.Groups)
		c.groups[key] = i
		c.Groups = append(c.Groups, Group{Rule: j.rule, Changes: j.changes})
	}
	g := &c.Groups[i]
	g.Count++
	if g.Rule != j.rule {
		g.Rule = ""
	}
	if len(g.Examples) < groupExamples {
		g.Examples = append(g.Examples, j.job.example(j.reason))
	}
}

func (r *Record) example(reason string) ChangedJob {
	e := ChangedJob{ID: r.ID, Repo: cut(r.Repo.FullName), Job: cut(r.Job.Name), Labels: []string{}, Reason: cut(reason)}
	for _, l := range r.Labels[:min(len(r.Labels), MaxLabels)] {
		e.Labels = append(e.Labels, cut(l))
	}
	return e
}

// cut shortens s to MaxLabelLength.
func cut(s string) string {
	n := 0
	for i := range s {
		if n == MaxLabelLength {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// changed returns what differs between two decisions of one job. A job that is
// not routed asks for nothing: then only outcome and rule are compared.
func changed(was, is *Decision) []Change {
	var d differences
	d.single("outcome", string(was.Outcome), string(is.Outcome))
	d.single("rule", was.Rule, is.Rule)
	if was.Outcome != Routed || is.Outcome != Routed {
		return d.found
	}
	d.placement(&was.Placement, &is.Placement)
	d.single("limit", was.Limit.text(), is.Limit.text())
	d.single("urgency", numberOrNone(was.Urgency), numberOrNone(is.Urgency))
	d.single("time_limit", was.TimeLimit.orNone(), is.TimeLimit.orNone())
	d.single("rerun", was.Rerun.text(), is.Rerun.text())
	d.fallbacks(was.Fallback, is.Fallback)
	return d.found
}

// differences collects the parts that differ.
type differences struct {
	prefix string // of the parts' paths
	found  []Change
}

func (d *differences) single(part, was, is string) {
	if was != is {
		d.found = append(d.found, Change{d.prefix + part, was, is})
	}
}

// compareLists compares the entries of two lists, in whatever order they are.
func compareLists[T any](d *differences, part string, was, is []T, text func(T) string) {
	for len(was) > 0 && len(is) > 0 && text(was[0]) == text(is[0]) {
		was, is = was[1:], is[1:]
	}
	if len(was) == 0 && len(is) == 0 {
		return
	}
	more := map[string]int{} // how many of an entry came; below 0, how many went
	for _, e := range was {
		more[text(e)]--
	}
	for _, e := range is {
		more[text(e)]++
	}
	entries := slices.Sorted(maps.Keys(more))
	for _, e := range entries {
		for range -more[e] {
			d.single(part, e, "")
		}
	}
	for _, e := range entries {
		for range more[e] {
			d.single(part, "", e)
		}
	}
}

func (d *differences) placement(was, is *Placement) {
	each(placementFields, func(f *field) {
		switch {
		case f.list != nil:
			f.list.compare(d, was, is)
		case f.of != nil && (f.kind == aString || f.number(was) != f.number(is)):
			d.single(f.path, f.text(was), f.text(is))
		}
	})
}

// entries compares two maps. A text is never "", which stands for no entry.
func entries[V any](d *differences, prefix string, was, is map[string]V, text func(V) string) {
	if reflect.DeepEqual(was, is) {
		return
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(was)), maps.Keys(is))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		var a, b string
		if v, ok := was[name]; ok {
			a = text(v)
		}
		if v, ok := is[name]; ok {
			b = text(v)
		}
		d.single(prefix+name, a, b)
	}
}

// fallbacks compares the fallbacks that come after the same time. What changes
// in them as it does in the placement itself is not said again.
func (d *differences) fallbacks(was, is []Fallback) {
	if len(was) == 0 && len(is) == 0 {
		return
	}
	compareLists(d, "fallback", was, is, Fallback.text)
	for i := range was {
		j := slices.IndexFunc(is, func(f Fallback) bool { return f.After == was[i].After })
		if j < 0 || was[i].Reason != "" || is[j].Reason != "" {
			continue
		}
		var inside differences
		inside.placement(&was[i].Placement, &is[j].Placement)
		for _, c := range inside.found {
			if !slices.Contains(d.found, c) {
				d.single("fallback."+was[i].After.String()+"."+c.Part, c.Old, c.New)
			}
		}
	}
}

// The texts of entries, as people write them in a rules file.

// String writes the affinity as people do.
func (a Affinity) String() string {
	return a.Attribute + " " + a.Operator + " " + a.Value + ", weight " + strconv.Itoa(a.Weight)
}

func (d Device) text() string {
	text := strconv.Itoa(d.Count) + " " + d.Name
	within := make([]string, len(d.Constraints))
	for i, c := range d.Constraints {
		within[i] = c.String()
	}
	slices.Sort(within)
	for _, c := range within {
		text += ", " + c
	}
	return text
}

// text writes the limit without its key, which names the rule and the job.
func (l *Limit) text() string {
	if l == nil {
		return ""
	}
	text := fmt.Sprintf("%d running per %s", l.Running, l.Per)
	if l.Order != "" {
		text += ", order " + l.Order
	}
	return text
}

// numberOrNone writes a number, and 0 as "".
func numberOrNone(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func (r *Rerun) text() string {
	if r == nil {
		return ""
	}
	return r.String()
}

// orNone writes the duration, and 0 as "".
func (d Duration) orNone() string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func (f Fallback) text() string {
	text := "after " + f.After.String()
	if f.Reason != "" {
		text += ", left out"
	}
	return text
}
