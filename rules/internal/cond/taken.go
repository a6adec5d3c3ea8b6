package cond

import (
	"slices"
	"strings"
)

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
