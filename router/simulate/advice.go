package simulate

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const (
	slow       = 30_000 // milliseconds for a node, of the 95th percentile of a rule, from which nodes are added
	enough     = 10     // more nodes are enough when that is so many times shorter
	mostMore   = 256    // nodes that are added
	mostSlow   = 3      // rules for which nodes are added: those that wait most in total
	mostGroups = 5      // groups that are made smaller: those with the most nodes
	bearable   = 10_000 // milliseconds, or a tenth, that a rule's 95th percentile may rise when nodes go
)

// Advice is nodes that would help, or that could go. Each is alone: the rest of the fleet
// stays as it is.
type Advice struct {
	More int    `json:"more"` // nodes; below 0: so many could go
	Like string `json:"like"` // the name of a node that those to add are like; "": nodes could go
	OS   string `json:"os"`   // of the group, as is the rest
	Arch string `json:"arch"`
	Pool string `json:"pool"`

	Class  string `json:"class"`
	Unused int    `json:"unused"` // of those that could go: they had no job at any time

	// How long the jobs of a rule wait, the 95th percentile in seconds: of the rule that the
	// nodes help, or of that which waits longer without them. "": none does.
	Rule   string  `json:"rule"`
	Before float64 `json:"before"`
	After  float64 `json:"after"`
}

// An advisor tries fleets.
type advisor struct {
	*plan
	fleet  *fleet
	base   *outcome
	byRule [][]int
	before []int64 // 95th percentile of the queue times of each rule
	tried  func()
}

// advise finds nodes that would help, and nodes that could go.
func (p *plan) advise(ctx context.Context, c Config, f *fleet, base *outcome, byRule [][]int) ([]Advice, error) {
	var tried atomic.Int64
	progress := make(chan struct{}, 1)
	a := &advisor{plan: p, fleet: f, base: base, byRule: byRule, tried: func() {
		tried.Add(1)
		select {
		case progress <- struct{}{}:
		default:
		}
	}}
	for r := range p.rules {
		a.before = append(a.before, a.p95(base, r))
	}
	var found [mostSlow + mostGroups]*Advice
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(c.Advise)
	done := make(chan error, 1)
	go func() {
		for i, r := range a.slowest() {
			all.Go(func() (err error) {
				found[i], err = a.add(ctx, r)
				return err
			})
		}
		for i, g := range a.largest() {
			all.Go(func() (err error) {
				found[mostSlow+i], err = a.remove(ctx, g)
				return err
			})
		}
		done <- all.Wait()
	}()
	for {
		select {
		case <-progress:
			c.Progress(Progress{Doing: "trying other fleets", Done: int(tried.Load()) * len(p.jobs)})
			continue
		case err := <-done:
			if err != nil {
				return nil, err
			}
		}
		break
	}
	advice := []Advice{}
	for _, one := range found {
		if one != nil {
			advice = append(advice, *one)
		}
	}
	return advice, nil
}

// try simulates other numbers of nodes.
func (a *advisor) try(ctx context.Context, counts []int) (*outcome, error) {
	defer a.tried()
	return simulate(ctx, a.plan, a.fleet, counts, func(int) {})
}

// p95 returns the 95th percentile of the queue times of a rule.
func (a *advisor) p95(o *outcome, rule int) int64 {
	return quantile95(a.byRule[rule], func(i int) (int64, bool) { return o.placed[i] + a.jobs[i].start - a.jobs[i].at, o.placed[i] >= 0 })
}

// nodeP95 returns that of the time for a node alone.
func (a *advisor) nodeP95(o *outcome, rule int) int64 {
	return quantile95(a.byRule[rule], func(i int) (int64, bool) { return o.placed[i] - o.admitted[i], o.placed[i] >= 0 })
}

func quantile95(jobs []int, of func(int) (int64, bool)) int64 {
	var all []int64
	for _, i := range jobs {
		if ms, ok := of(i); ok {
			all = append(all, ms)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[(len(all)-1)*95/100]
}

// slowest returns the rules whose jobs wait longest for a node.
func (a *advisor) slowest() (slowest []int) {
	total := map[int]int64{}
	for r := range a.rules {
		if a.nodeP95(a.base, r) < slow {
			continue
		}
		slowest = append(slowest, r)
		for _, i := range a.byRule[r] {
			if a.base.placed[i] >= 0 {
				total[r] += a.base.placed[i] - a.base.admitted[i]
			}
		}
	}
	slices.SortStableFunc(slowest, func(x, y int) int { return cmp.Compare(total[y], total[x]) })
	return slowest[:min(len(slowest), mostSlow)]
}

// add finds the fewest nodes that make a rule's wait for a node short enough, or else those
// that were tried last. They are like most of those on which its jobs run that had to wait.
func (a *advisor) add(ctx context.Context, rule int) (*Advice, error) {
	ran := map[int]int{}
	for _, i := range a.byRule[rule] {
		if o := a.base; o.placed[i] > o.admitted[i] {
			ran[o.classes[o.node[i]]]++
		}
	}
	class := slices.SortedFunc(maps.Keys(ran), func(x, y int) int { return cmp.Or(cmp.Compare(ran[y], ran[x]), cmp.Compare(x, y)) })[0]
	want := a.nodeP95(a.base, rule) / enough
	after := map[int]int64{}
	helps := func(more int) (bool, error) {
		counts := slices.Clone(a.base.counts)
		counts[class] += more
		o, err := a.try(ctx, counts)
		if err != nil {
			return false, err
		}
		after[more] = a.p95(o, rule)
		return a.nodeP95(o, rule) <= want, nil
	}
	few, many := 0, 1
	for ; ; few, many = many, 2*many {
		ok, err := helps(many)
		if err != nil {
			return nil, err
		}
		if ok {
			break
		}
		if many >= mostMore {
			few = many
			break
		}
	}
	for many-few > 1 {
		half := (few + many) / 2
		ok, err := helps(half)
		if err != nil {
			return nil, err
		}
		if ok {
			many = half
		} else {
			few = half
		}
	}
	if after[many] >= a.before[rule] {
		return nil, nil
	}
	n := a.fleet.advice(a.fleet.classes[class].group)
	n.More, n.Like, n.Rule, n.Before, n.After = many, a.fleet.classes[class].node.Name, a.rules[rule], seconds(a.before[rule]), seconds(after[many])
	return n, nil
}

// advice returns the Advice for a group of nodes.
func (f *fleet) advice(group int) *Advice {
	g := f.groups[group]
	return &Advice{OS: g.os, Arch: g.arch, Class: g.class, Pool: g.pool}
}

func seconds(ms int64) float64 { return float64(ms) / 1000 }

// largest returns the groups that have the most nodes.
func (a *advisor) largest() []int {
	nodes := make([]int, len(a.fleet.groups))
	all := make([]int, len(nodes))
	for i, c := range a.fleet.classes {
		nodes[c.group] += a.base.counts[i]
	}
	for g := range all {
		all[g] = g
	}
	slices.SortStableFunc(all, func(x, y int) int { return cmp.Compare(nodes[y], nodes[x]) })
	return all[:min(len(all), mostGroups)]
}

// remove finds the most nodes of a group that could go: those that had the least to do. Those
// that had nothing to do change nothing.
func (a *advisor) remove(ctx context.Context, group int) (*Advice, error) {
	var nodes []int
	unused := 0
	for i, c := range a.base.classes {
		if a.fleet.classes[c].group == group {
			nodes = append(nodes, i)
			if a.base.busyFor[i] == 0 {
				unused++
			}
		}
	}
	slices.SortStableFunc(nodes, func(x, y int) int { return cmp.Compare(a.base.busyFor[x], a.base.busyFor[y]) })
	worst := map[int]int{} // the rule that waits longer by most
	after := map[int]int64{}
	bear := func(less int) (bool, error) {
		counts := slices.Clone(a.base.counts)
		for _, i := range nodes[:less] {
			counts[a.base.classes[i]]--
		}
		o, err := a.try(ctx, counts)
		if err != nil {
			return false, err
		}
		for i := range o.placed {
			if o.placed[i] < 0 && a.base.placed[i] >= 0 {
				return false, nil
			}
		}
		worst[less] = -1
		for r, before := range a.before {
			now := a.p95(o, r)
			if now-before > max(bearable, before/10) {
				return false, nil
			}
			if at := worst[less]; now > before && (at < 0 || now-before > after[less]-a.before[at]) {
				worst[less], after[less] = r, now
			}
		}
		return true, nil
	}
	few, many := unused, len(nodes)+1 // that many can go; those cannot
	worst[few] = -1
	for many-few > 1 {
		half := (few + many) / 2
		ok, err := bear(half)
		if err != nil {
			return nil, err
		}
		if ok {
			few = half
		} else {
			many = half
		}
	}
	if few == 0 {
		return nil, nil
	}
	n := a.fleet.advice(group)
	n.More, n.Unused = -few, unused
	if r := worst[few]; r >= 0 {
		n.Rule, n.Before, n.After = a.rules[r], seconds(a.before[r]), seconds(after[few])
	}
	return n, nil
}
