package rules

import (
	"slices"
	"strings"
)

// A world is what is assumed of a job: some atoms of conditions, each true or
// false. No two of them contradict each other.
type world struct {
	assumed []assumption
	steps   int // left before the search gives up
	gaveUp  bool
}

type assumption struct {
	*node
	holds bool
}

// A goal is a node that must come out so.
type goal = assumption

// searchSteps bounds the work of one question: comparisons of atoms, some
// nanoseconds each.
const searchSteps = 20_000

// truth is what is known of a node.
type truth int

const (
	unknown truth = iota
	yes
	no
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

func (t truth) not() truth { return [...]truth{unknown, no, yes}[t] }

// of says what the assumptions make of a node.
func (w *world) of(n *node) truth {
	w.steps--
	switch n.kind {
	case constant:
		return truthOf(n.value)
	case hasLabel, factIs, paramIs, program:
		if n.never || n.always {
			return truthOf(n.always)
		}
	case not:
		return w.of(n.kids[0]).not()
	case and, or:
		decides := truthOf(n.kind == or)
		all := decides.not()
		for _, k := range n.kids {
			switch w.of(k) {
			case decides:
				return decides
			case unknown:
				all = unknown
			}
		}
		return all
	}
	for _, a := range w.assumed {
		w.steps--
		if t := a.implies(n); t != unknown {
			return t
		}
	}
	return unknown
}

// visibilities are those of GitHub, and whether it calls such a repository private.
var visibilities = map[string]bool{"public": false, "private": true, "internal": true}

// implies says what one assumption makes of an atom.
func (a assumption) implies(n *node) truth {
	if a.kind == n.kind && a.name == n.name && a.is == n.is && a.source == n.source ||
		a.kind == n.kind && a.name == n.name && a.is == n.is && a.kind != program && a.kind != hasOnly {
		return truthOf(a.holds)
	}
	if t := a.ofParam(n); t != unknown {
		return t
	}
	if a.name == "repo.private" && n.name == "repo.visibility" {
		if private, known := visibilities[n.is]; known && private != a.holds {
			return no
		}
	}
	if !a.holds {
		return unknown
	}
	switch {
	case a.kind == hasOnly && n.kind == hasLabel && !slices.Contains(a.names, n.name),
		a.kind == hasLabel && n.kind == hasOnly && !slices.Contains(n.names, a.name):
		return no
	case a.kind == hasOnly && n.kind == hasOnly:
		for _, l := range a.names {
			if !slices.Contains(n.names, l) {
				return unknown
			}
		}
		return yes
	case a.name == "repo.visibility" && n.name == "repo.private":
		if private, known := visibilities[a.is]; known {
			return truthOf(private)
		}
	case a.kind != factIs || n.kind != factIs:
		return unknown
	case a.name == n.name:
		return no // it is another text
	case a.name == "repo.full_name":
		owner, name, _ := strings.Cut(a.is, "/")
		switch n.name {
		case "repo.owner":
			return truthOf(n.is == owner)
		case "repo.name":
			return truthOf(n.is == name)
		}
	case n.name == "repo.full_name":
		owner, name, _ := strings.Cut(n.is, "/")
		if a.name == "repo.owner" && a.is != owner || a.name == "repo.name" && a.is != name {
			return no
		}
	}
	return unknown
}

// ofParam says what an assumption about a param makes of another about it.
func (a assumption) ofParam(n *node) truth {
	if a.param == "" || a.param != n.param || a.kind == hasLabel && !a.holds {
		return unknown
	}
	if a.table != nil && n.table != nil {
		t := a.table.implies(truthOf(a.holds), n.table)
		if t == yes && n.kind == hasLabel { // cpu=08 is another label
			t = unknown
		}
		return t
	}
	given := a.holds && (a.kind == hasLabel || a.kind == paramIs || a.kind == hasParam)
	switch {
	case n.kind == hasParam && given:
		return yes
	case (n.kind == paramIs || n.kind == hasLabel) && a.kind == hasParam && !a.holds,
		n.kind == paramIs && given && a.kind != hasParam && a.is != n.is:
		return no
	case n.kind == paramIs && given && a.kind != hasParam:
		return yes
	}
	return unknown
}

// assume adds an assumption about an atom; false when it contradicts another.
func (w *world) assume(a assumption) bool {
	if t := w.of(a.node); t != unknown {
		return t == truthOf(a.holds)
	}
	for _, before := range w.assumed {
		if t := a.implies(before.node); t != unknown && t != truthOf(before.holds) {
			return false
		}
	}
	w.assumed = append(w.assumed, a)
	return true
}

// search looks for worlds in which all goals hold, and calls found for each
// with the assumptions that make it so, until found returns true. It reports
// whether it did. What it does not assume is free: it may be either.
func (w *world) search(goals []goal, found func() bool) bool {
	before := len(w.assumed)
	defer func() { w.assumed = w.assumed[:before] }()
	goals = slices.Clone(goals)
	var open []goal // those with several ways
	for len(goals) > 0 {
		g := goals[0]
		goals = goals[1:]
		if w.steps < 0 {
			w.gaveUp = true
			return false
		}
		switch t := w.of(g.node); {
		case t == truthOf(g.holds):
			continue
		case t != unknown:
			return false
		}
		switch {
		case g.kind == not:
			goals = append(goals, goal{g.kids[0], !g.holds})
		case (g.kind == and || g.kind == or) && g.holds == (g.kind == and):
			for _, k := range g.kids {
				goals = append(goals, goal{k, g.holds})
			}
		case g.kind == and || g.kind == or:
			if way := w.onlyWay(g); way != nil {
				goals = append(goals, goal{way, g.holds})
			} else {
				open = append(open, g)
			}
		case !w.assume(g):
			return false
		}
	}
	open = slices.DeleteFunc(open, func(g goal) bool { return w.of(g.node) == truthOf(g.holds) })
	if len(open) == 0 {
		return found()
	}
	g := open[0]
	for i, k := range g.kids {
		// This part makes it so, and those before do not.
		branch := append(slices.Clone(open[1:]), goal{k, g.holds})
		for _, earlier := range g.kids[:i] {
			branch = append(branch, goal{earlier, !g.holds})
		}
		if w.search(branch, found) {
			return true
		}
	}
	return false
}

// onlyWay is the part that must make the goal so, as the others cannot; nil when
// there are several.
func (w *world) onlyWay(g goal) (way *node) {
	for _, k := range g.kids {
		if w.of(k) != unknown {
			continue
		}
		if way != nil {
			return nil
		}
		way = k
	}
	return way
}

// taken returns the earlier rules that take every job that the goals allow; ok
// is false when they leave one, or when that is not certain.
func (l *linter) taken(before int, goals ...goal) (by []int, ok bool) {
	w := l.world()
	defer l.count(w)
	left := w.search(present(goals), func() bool { return !l.refuted(w, before, &by) })
	slices.Sort(by)
	return slices.Compact(by), !left && !w.gaveUp
}

// refuted reports whether in the world, whatever else is true in it, one of the
// rules before takes the job.
func (s *Set) refuted(w *world, before int, by *[]int) bool {
	var perhaps []goal
	for _, i := range s.candidates(w, before) {
		root := s.rules[i].when.root
		if root == nil {
			*by = append(*by, i)
			return true
		}
		switch w.of(root) {
		case yes:
			*by = append(*by, i)
			return true
		case unknown:
			perhaps = append(perhaps, goal{root, false})
			*by = append(*by, i)
		}
		if w.steps < 0 {
			w.gaveUp = true
			return false
		}
	}
	if len(perhaps) == 0 {
		return false
	}
	// A world in which none of them takes it may bring others into play.
	had := len(w.assumed)
	return !w.search(perhaps, func() bool { return len(w.assumed) == had || !s.refuted(w, before, by) }) && !w.gaveUp
}

// candidates are rules before one that may take a job in the world: those whose
// keys are assumed. Labels and texts that are not assumed may well be absent.
func (s *Set) candidates(w *world, before int) []int {
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
		if k, ok := a.key(); ok && a.holds {
			add(s.found.keyed[k])
			if owner, name, full := strings.Cut(k.is, "/"); full && k.what == "repo.full_name" {
				add(s.found.keyed[key{"repo.owner", owner}])
				add(s.found.keyed[key{"repo.name", name}])
			}
		}
	}
	add(s.found.unkeyed)
	slices.Sort(list)
	return slices.Compact(list)
}

// present drops the goals of conditions that are empty.
func present(goals []goal) []goal {
	return slices.DeleteFunc(slices.Clone(goals), func(g goal) bool { return g.node == nil })
}
