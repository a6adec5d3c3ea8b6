package cond

import (
	"slices"
	"strings"
)

// A World is what is assumed of a job: atoms of conditions, each true or false, that do not
// contradict each other.
type World struct {
	assumed []assumption
	Steps   int // left before the search gives up
	gaveUp  bool
}

type assumption struct {
	*Node
	Holds bool
}

// A Goal is a node and the result that it must have.
type Goal = assumption

// That returns the goal that a node is so.
func That(n *Node, holds bool) Goal { return Goal{n, holds} }

// SearchSteps bounds the work of one question: comparisons of atoms, some nanoseconds each.
const SearchSteps = 20_000

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

// of returns what follows from the assumptions for a node.
func (w *World) of(n *Node) truth {
	w.Steps--
	switch n.Kind {
	case Constant:
		return truthOf(n.Value)
	case hasLabel, factIs, paramIs, Program:
		if n.Never || n.Always {
			return truthOf(n.Always)
		}
	case not:
		return w.of(n.kids[0]).not()
	case And, Or:
		decides := truthOf(n.Kind == Or)
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
		w.Steps--
		if t := a.implies(n); t != unknown {
			return t
		}
	}
	return unknown
}

// visibilities are those of GitHub, and whether it calls such a repository private.
var visibilities = map[string]bool{"public": false, "private": true, "internal": true}

// implies returns what follows from one assumption for an atom.
func (a assumption) implies(n *Node) truth {
	if a.Kind == n.Kind && a.name == n.name && a.is == n.is && (a.Source == n.Source || a.Kind != Program && a.Kind != hasOnly) {
		return truthOf(a.Holds)
	}
	if t := a.ofParam(n); t != unknown {
		return t
	}
	if a.name == "repo.private" && n.name == "repo.visibility" {
		if private, known := visibilities[n.is]; known && private != a.Holds {
			return no
		}
	}
	if !a.Holds {
		return unknown
	}
	switch {
	case a.Kind == hasOnly && n.Kind == hasLabel && !slices.Contains(a.names, n.name),
		a.Kind == hasLabel && n.Kind == hasOnly && !slices.Contains(n.names, a.name):
		return no
	case a.Kind == hasOnly && n.Kind == hasOnly:
		if within(a.names, n.names) {
			return yes
		}
		return unknown
	case a.name == "repo.visibility" && n.name == "repo.private":
		if private, known := visibilities[a.is]; known {
			return truthOf(private)
		}
	case a.Kind != factIs || n.Kind != factIs:
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

// ofParam returns what follows from an assumption about a param for another about it.
func (a assumption) ofParam(n *Node) truth {
	if a.Param == "" || a.Param != n.Param || a.Kind == hasLabel && !a.Holds {
		return unknown
	}
	if a.table != nil && n.table != nil {
		t := a.table.implies(truthOf(a.Holds), n.table)
		if t == yes && n.Kind == hasLabel { // cpu=08 is another label
			t = unknown
		}
		return t
	}
	given := a.Holds && (a.Kind == hasLabel || a.Kind == paramIs || a.Kind == hasParam)
	switch {
	case n.Kind == hasParam && given:
		return yes
	case (n.Kind == paramIs || n.Kind == hasLabel) && a.Kind == hasParam && !a.Holds,
		n.Kind == paramIs && given && a.Kind != hasParam && a.is != n.is:
		return no
	case n.Kind == paramIs && given && a.Kind != hasParam:
		return yes
	}
	return unknown
}

// assume adds an assumption about an atom; false when it contradicts another.
func (w *World) assume(a assumption) bool {
	if t := w.of(a.Node); t != unknown {
		return t == truthOf(a.Holds)
	}
	for _, before := range w.assumed {
		if t := a.implies(before.Node); t != unknown && t != truthOf(before.Holds) {
			return false
		}
	}
	w.assumed = append(w.assumed, a)
	return true
}

// Search looks for worlds in which all goals hold, and calls found for each
// with the assumptions that make it so, until found returns true. It reports
// whether it did. What it does not assume is free: it may be either.
func (w *World) Search(goals []Goal, found func() bool) bool {
	before := len(w.assumed)
	defer func() { w.assumed = w.assumed[:before] }()
	goals = slices.Clone(goals)
	var open []Goal // those with several ways
	for len(goals) > 0 {
		g := goals[0]
		goals = goals[1:]
		if g.Node == nil { // of a condition that is empty
			continue
		}
		if w.Steps < 0 {
			w.gaveUp = true
			return false
		}
		switch t := w.of(g.Node); {
		case t == truthOf(g.Holds):
			continue
		case t != unknown:
			return false
		}
		switch {
		case g.Kind == not:
			goals = append(goals, Goal{g.kids[0], !g.Holds})
		case (g.Kind == And || g.Kind == Or) && g.Holds == (g.Kind == And):
			for _, k := range g.kids {
				goals = append(goals, Goal{k, g.Holds})
			}
		case g.Kind == And || g.Kind == Or:
			if way := w.onlyWay(g); way != nil {
				goals = append(goals, Goal{way, g.Holds})
			} else {
				open = append(open, g)
			}
		case !w.assume(g):
			return false
		}
	}
	open = slices.DeleteFunc(open, func(g Goal) bool { return w.of(g.Node) == truthOf(g.Holds) })
	if len(open) == 0 {
		return found()
	}
	g := open[0]
	for i, k := range g.kids {
		// This part makes it so, and those before do not.
		branch := append(slices.Clone(open[1:]), Goal{k, g.Holds})
		for _, earlier := range g.kids[:i] {
			branch = append(branch, Goal{earlier, !g.Holds})
		}
		if w.Search(branch, found) {
			return true
		}
	}
	return false
}

// onlyWay returns the part that must make the goal so, as the others cannot; nil when there are
// several.
func (w *World) onlyWay(g Goal) (way *Node) {
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

// Possible reports whether all goals may hold for one job. It says false only when that is certain.
func (w *World) Possible(goals []Goal) bool {
	return w.Search(goals, func() bool { return true }) || w.gaveUp
}

// Labels returns the labels that the job has in the world.
func (w *World) Labels() (labels []string) {
	for _, a := range w.assumed {
		if a.Kind == hasLabel && a.Holds {
			labels = append(labels, a.name)
		}
	}
	return labels
}

// Text returns the text that a fact is in the world; "" when it is not said.
func (w *World) Text(fact string) string {
	for _, a := range w.assumed {
		if a.Kind == factIs && a.name == fact && a.Holds {
			return a.is
		}
	}
	return ""
}

// Flag reports whether a fact is true in the world.
func (w *World) Flag(fact string) bool {
	return slices.ContainsFunc(w.assumed, func(a assumption) bool { return a.Kind == factHolds && a.name == fact && a.Holds })
}

// Knows reports whether the world says if a fact is true.
func (w *World) Knows(fact string) bool {
	return slices.ContainsFunc(w.assumed, func(a assumption) bool { return a.Kind == factHolds && a.name == fact })
}
