package cond

import (
	"slices"
	"strings"
)

// A World is what is assumed of a job: some atoms of conditions, each true or
// false. No two of them contradict each other.
type World struct {
	Assumed []assumption
	Steps   int // left before the search gives up
	GaveUp  bool
}

type assumption struct {
	*Node
	Holds bool
}

// A Goal is a node that must come out so.
type Goal = assumption

// That is the goal that a node comes out so.
func That(n *Node, holds bool) Goal { return Goal{n, holds} }

// SearchSteps bounds the work of one question: comparisons of atoms, some
// nanoseconds each.
const SearchSteps = 20_000

// truth is what is known of a node.
type truth int

const (
	Unknown truth = iota
	Yes
	no
)

func truthOf(b bool) truth {
	if b {
		return Yes
	}
	return no
}

func (t truth) not() truth { return [...]truth{Unknown, no, Yes}[t] }

// Of says what the assumptions make of a node.
func (w *World) Of(n *Node) truth {
	w.Steps--
	switch n.Kind {
	case Constant:
		return truthOf(n.Value)
	case HasLabel, factIs, paramIs, Program:
		if n.Never || n.Always {
			return truthOf(n.Always)
		}
	case Not:
		return w.Of(n.Kids[0]).not()
	case And, Or:
		decides := truthOf(n.Kind == Or)
		all := decides.not()
		for _, k := range n.Kids {
			switch w.Of(k) {
			case decides:
				return decides
			case Unknown:
				all = Unknown
			}
		}
		return all
	}
	for _, a := range w.Assumed {
		w.Steps--
		if t := a.implies(n); t != Unknown {
			return t
		}
	}
	return Unknown
}

// visibilities are those of GitHub, and whether it calls such a repository private.
var visibilities = map[string]bool{"public": false, "private": true, "internal": true}

// implies says what one assumption makes of an atom.
func (a assumption) implies(n *Node) truth {
	if a.Kind == n.Kind && a.Name == n.Name && a.is == n.is && a.Source == n.Source ||
		a.Kind == n.Kind && a.Name == n.Name && a.is == n.is && a.Kind != Program && a.Kind != HasOnly {
		return truthOf(a.Holds)
	}
	if t := a.ofParam(n); t != Unknown {
		return t
	}
	if a.Name == "repo.private" && n.Name == "repo.visibility" {
		if private, known := visibilities[n.is]; known && private != a.Holds {
			return no
		}
	}
	if !a.Holds {
		return Unknown
	}
	switch {
	case a.Kind == HasOnly && n.Kind == HasLabel && !slices.Contains(a.Names, n.Name),
		a.Kind == HasLabel && n.Kind == HasOnly && !slices.Contains(n.Names, a.Name):
		return no
	case a.Kind == HasOnly && n.Kind == HasOnly:
		for _, l := range a.Names {
			if !slices.Contains(n.Names, l) {
				return Unknown
			}
		}
		return Yes
	case a.Name == "repo.visibility" && n.Name == "repo.private":
		if private, known := visibilities[a.is]; known {
			return truthOf(private)
		}
	case a.Kind != factIs || n.Kind != factIs:
		return Unknown
	case a.Name == n.Name:
		return no // it is another text
	case a.Name == "repo.full_name":
		owner, name, _ := strings.Cut(a.is, "/")
		switch n.Name {
		case "repo.owner":
			return truthOf(n.is == owner)
		case "repo.name":
			return truthOf(n.is == name)
		}
	case n.Name == "repo.full_name":
		owner, name, _ := strings.Cut(n.is, "/")
		if a.Name == "repo.owner" && a.is != owner || a.Name == "repo.name" && a.is != name {
			return no
		}
	}
	return Unknown
}

// ofParam says what an assumption about a param makes of another about it.
func (a assumption) ofParam(n *Node) truth {
	if a.Param == "" || a.Param != n.Param || a.Kind == HasLabel && !a.Holds {
		return Unknown
	}
	if a.Table != nil && n.Table != nil {
		t := a.Table.implies(truthOf(a.Holds), n.Table)
		if t == Yes && n.Kind == HasLabel { // cpu=08 is another label
			t = Unknown
		}
		return t
	}
	given := a.Holds && (a.Kind == HasLabel || a.Kind == paramIs || a.Kind == HasParam)
	switch {
	case n.Kind == HasParam && given:
		return Yes
	case (n.Kind == paramIs || n.Kind == HasLabel) && a.Kind == HasParam && !a.Holds,
		n.Kind == paramIs && given && a.Kind != HasParam && a.is != n.is:
		return no
	case n.Kind == paramIs && given && a.Kind != HasParam:
		return Yes
	}
	return Unknown
}

// assume adds an assumption about an atom; false when it contradicts another.
func (w *World) assume(a assumption) bool {
	if t := w.Of(a.Node); t != Unknown {
		return t == truthOf(a.Holds)
	}
	for _, before := range w.Assumed {
		if t := a.implies(before.Node); t != Unknown && t != truthOf(before.Holds) {
			return false
		}
	}
	w.Assumed = append(w.Assumed, a)
	return true
}

// Search looks for worlds in which all goals hold, and calls found for each
// with the assumptions that make it so, until found returns true. It reports
// whether it did. What it does not assume is free: it may be either.
func (w *World) Search(goals []Goal, found func() bool) bool {
	before := len(w.Assumed)
	defer func() { w.Assumed = w.Assumed[:before] }()
	goals = slices.Clone(goals)
	var open []Goal // those with several ways
	for len(goals) > 0 {
		g := goals[0]
		goals = goals[1:]
		if w.Steps < 0 {
			w.GaveUp = true
			return false
		}
		switch t := w.Of(g.Node); {
		case t == truthOf(g.Holds):
			continue
		case t != Unknown:
			return false
		}
		switch {
		case g.Kind == Not:
			goals = append(goals, Goal{g.Kids[0], !g.Holds})
		case (g.Kind == And || g.Kind == Or) && g.Holds == (g.Kind == And):
			for _, k := range g.Kids {
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
	open = slices.DeleteFunc(open, func(g Goal) bool { return w.Of(g.Node) == truthOf(g.Holds) })
	if len(open) == 0 {
		return found()
	}
	g := open[0]
	for i, k := range g.Kids {
		// This part makes it so, and those before do not.
		branch := append(slices.Clone(open[1:]), Goal{k, g.Holds})
		for _, earlier := range g.Kids[:i] {
			branch = append(branch, Goal{earlier, !g.Holds})
		}
		if w.Search(branch, found) {
			return true
		}
	}
	return false
}

// onlyWay is the part that must make the goal so, as the others cannot; nil when
// there are several.
func (w *World) onlyWay(g Goal) (way *Node) {
	for _, k := range g.Kids {
		if w.Of(k) != Unknown {
			continue
		}
		if way != nil {
			return nil
		}
		way = k
	}
	return way
}

// Present drops the goals of conditions that are empty.
func Present(goals []Goal) []Goal {
	return slices.DeleteFunc(slices.Clone(goals), func(g Goal) bool { return g.Node == nil })
}

// Text returns the text that a fact is in the world; "" when it is not said.
func (w *World) Text(fact string) string {
	for _, a := range w.Assumed {
		if a.Kind == factIs && a.Name == fact && a.Holds {
			return a.is
		}
	}
	return ""
}

// Flag reports whether a fact is true in the world.
func (w *World) Flag(fact string) bool {
	return slices.ContainsFunc(w.Assumed, func(a assumption) bool { return a.Kind == factHolds && a.Name == fact && a.Holds })
}

// Knows reports whether the world says if a fact is true.
func (w *World) Knows(fact string) bool {
	return slices.ContainsFunc(w.Assumed, func(a assumption) bool { return a.Kind == factHolds && a.Name == fact })
}
