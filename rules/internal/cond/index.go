package cond

import (
	"slices"
	"strings"
)

// A key is what a job has that a rule may need: a label, or a text of a fact.
type key struct{ what, is string }

// An Index finds the rules that could take a job. Each rule is filed under keys
// of which it needs at least one: without any of them its condition is false,
// and nothing in it fails or asks for the run.
type Index struct {
	root    func(i int) *Node // the condition of a rule
	keyed   map[key][]int32
	facts   []string // that keys are of
	unkeyed []int32  // rules that need no key. All lists are in file order
}

// NewIndex files n rules under the keys that the fewest of them share; root returns the condition
// of each.
func NewIndex(n int, root func(i int) *Node) Index {
	uses := map[key]int{}
	last := map[key]int{}
	for i := range n {
		root(i).keys(func(k key) {
			if last[k] != i+1 { // once for each rule
				last[k] = i + 1
				uses[k]++
			}
		})
	}
	x := Index{root: root, keyed: map[key][]int32{}}
	facts := map[string]bool{}
	for i := range n {
		keys, ok := root(i).needs(true, uses)
		if !ok {
			x.unkeyed = append(x.unkeyed, int32(i))
		}
		for _, k := range keys {
			list := x.keyed[k]
			if len(list) == 0 || list[len(list)-1] != int32(i) {
				x.keyed[k] = append(list, int32(i))
			}
			if k.what != labelsName && !facts[k.what] {
				facts[k.what] = true
				x.facts = append(x.facts, k.what)
			}
		}
	}
	return x
}

func cost(keys []key, uses map[key]int) int {
	n := 0
	for _, k := range keys {
		n += uses[k]
	}
	return n
}

// A Walk visits the rules that could take a job, in file order.
type Walk struct {
	lists [24][]int32 // so many without an allocation
	open  [][]int32
}

// Start begins the walk for a job.
func (w *Walk) Start(x *Index, env *Env) {
	w.open = w.lists[:0]
	w.add(x.unkeyed)
	for _, l := range env.Labels {
		w.add(x.keyed[key{labelsName, l}])
	}
	for _, f := range x.facts {
		w.add(x.keyed[key{f, factText(f, env)}])
	}
}

func (w *Walk) add(list []int32) {
	if len(list) > 0 {
		w.open = append(w.open, list)
	}
}

// Next returns the next rule, -1 at the end.
func (w *Walk) Next() int {
	least := int32(-1)
	for _, l := range w.open {
		if least < 0 || l[0] < least {
			least = l[0]
		}
	}
	for i := 0; i < len(w.open); i++ {
		if w.open[i][0] != least {
			continue
		}
		if w.open[i] = w.open[i][1:]; len(w.open[i]) == 0 {
			w.open = slices.Delete(w.open, i, i+1)
			i--
		}
	}
	return int(least)
}

// key returns what an atom asks for.
func (n *Node) key() (k key, ok bool) {
	switch n.Kind {
	case hasLabel:
		return key{labelsName, n.name}, true
	case factIs:
		return key{n.name, n.is}, !n.needRun
	}
	return key{}, false
}

// keys calls use with the key of every atom.
func (n *Node) keys(use func(key)) {
	n.Each(func(n *Node) {
		if k, ok := n.key(); ok {
			use(k)
		}
	})
}

// needs returns keys of which a job must have one for the node to be anything but !want: without
// any it neither is want, nor fails, nor asks for the run. Of several ways it takes the one whose
// keys are used the least. ok is false when there is none; with ok and no keys, no job will do.
func (n *Node) needs(want bool, uses map[key]int) (keys []key, ok bool) {
	if n == nil {
		return nil, false
	}
	better := func(some []key) {
		if !ok || cost(some, uses) < cost(keys, uses) {
			keys, ok = some, true
		}
	}
	switch n.Kind {
	case not:
		return n.kids[0].needs(!want, uses)
	case And, Or:
		if want == (n.Kind == And) { // all parts must be so: any one will do, if nothing before it fails
			for _, k := range n.kids {
				if some, can := k.needs(want, uses); can {
					better(some)
				}
				if !k.safe {
					break
				}
			}
			return keys, ok
		}
		// Each part can make it so: what all of them need, or one key of each.
		for _, k := range n.must(want) {
			better([]key{k})
		}
		var all []key
		for _, k := range n.kids {
			more, can := k.needs(want, uses)
			if !can {
				return keys, ok
			}
			all = append(all, more...)
		}
		better(all)
		return keys, ok
	case Constant:
		return nil, n.Value != want
	}
	if k, has := n.key(); has && want {
		return []key{k}, true
	}
	return nil, false
}

// must returns keys each of which a job must have; see needs.
func (n *Node) must(want bool) (keys []key) {
	switch n.Kind {
	case not:
		return n.kids[0].must(!want)
	case And, Or:
		for i, k := range n.kids {
			more := k.must(want)
			switch {
			case want == (n.Kind == And):
				keys = append(keys, more...)
				if !k.safe {
					return keys
				}
			case i == 0:
				keys = more
			default:
				keys = slices.DeleteFunc(keys, func(k key) bool { return !slices.Contains(more, k) })
			}
		}
		return keys
	}
	if k, has := n.key(); has && want {
		return []key{k}
	}
	return nil
}

// Taken returns the rules before one that take every job for which the goals
// hold; ok is false when they leave one, or when that is not certain.
func (x *Index) Taken(w *World, before int, goals []Goal) (by []int, ok bool) {
	left := w.Search(goals, func() bool { return !x.refuted(w, before, &by) })
	slices.Sort(by)
	return slices.Compact(by), !left && !w.gaveUp
}

// refuted reports whether in the world, whatever else is true in it, one of the
// rules before takes the job.
func (x *Index) refuted(w *World, before int, by *[]int) bool {
	var perhaps []Goal
	for _, i := range x.candidates(w, before) {
		root := x.root(i)
		if root == nil {
			*by = append(*by, i)
			return true
		}
		switch w.of(root) {
		case yes:
			*by = append(*by, i)
			return true
		case unknown:
			perhaps = append(perhaps, That(root, false))
			*by = append(*by, i)
		}
		if w.Steps < 0 {
			w.gaveUp = true
			return false
		}
	}
	if len(perhaps) == 0 {
		return false
	}
	// A world in which none of them takes it may bring others into play.
	had := len(w.assumed)
	return !w.Search(perhaps, func() bool { return len(w.assumed) == had || !x.refuted(w, before, by) }) && !w.gaveUp
}

// candidates returns rules before one that may take a job in the world: those
// whose keys are assumed. Labels and texts that are not assumed may well be absent.
func (x *Index) candidates(w *World, before int) []int {
	const most = 100
	var list []int
	add := func(rules []int32) {
		for _, i := range rules {
			if int(i) >= before || len(list) == most {
				return
			}
			list = append(list, int(i))
		}
	}
	for _, a := range w.assumed {
		if k, ok := a.key(); ok && a.Holds {
			add(x.keyed[k])
			if owner, name, full := strings.Cut(k.is, "/"); full && k.what == "repo.full_name" {
				add(x.keyed[key{"repo.owner", owner}])
				add(x.keyed[key{"repo.name", name}])
			}
		}
	}
	add(x.unkeyed)
	slices.Sort(list)
	return slices.Compact(list)
}
