package rules

import (
	"cmp"
	"slices"
	"strings"

	"switchyard/rules/internal/cond"
)

// taken returns the earlier rules that take every job that the goals allow; ok
// is false when they leave one, or when that is not certain.
func (l *linter) taken(before int, goals ...cond.Goal) (by []int, ok bool) {
	w := l.world()
	defer l.count(w)
	left := w.Search(cond.Present(goals), func() bool { return !l.refuted(w, before, &by) })
	slices.Sort(by)
	return slices.Compact(by), !left && !w.GaveUp
}

// refuted reports whether in the world, whatever else is true in it, one of the
// rules before takes the job.
func (s *Set) refuted(w *cond.World, before int, by *[]int) bool {
	var perhaps []cond.Goal
	for _, i := range s.candidates(w, before) {
		root := s.rules[i].when.Root
		if root == nil {
			*by = append(*by, i)
			return true
		}
		switch w.Of(root) {
		case cond.Yes:
			*by = append(*by, i)
			return true
		case cond.Unknown:
			perhaps = append(perhaps, cond.That(root, false))
			*by = append(*by, i)
		}
		if w.Steps < 0 {
			w.GaveUp = true
			return false
		}
	}
	if len(perhaps) == 0 {
		return false
	}
	// A world in which none of them takes it may bring others into play.
	had := len(w.Assumed)
	return !w.Search(perhaps, func() bool { return len(w.Assumed) == had || !s.refuted(w, before, by) }) && !w.GaveUp
}

// candidates are rules before one that may take a job in the world: those whose
// keys are assumed. Labels and texts that are not assumed may well be absent.
func (s *Set) candidates(w *cond.World, before int) []int {
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
	for _, a := range w.Assumed {
		if k, ok := a.Key(); ok && a.Holds {
			add(s.found.Keyed[k])
			if owner, name, full := strings.Cut(k.Is, "/"); full && k.What == "repo.full_name" {
				add(s.found.Keyed[cond.Key{What: "repo.owner", Is: owner}])
				add(s.found.Keyed[cond.Key{What: "repo.name", Is: name}])
			}
		}
	}
	add(s.found.Unkeyed)
	slices.Sort(list)
	return slices.Compact(list)
}

// jobOf is a job as a world has it, and plain where it says nothing.
func jobOf(w *cond.World) Facts {
	owner, name := cmp.Or(w.Text("repo.owner"), "acme"), cmp.Or(w.Text("repo.name"), "web")
	if full := w.Text("repo.full_name"); full != "" {
		owner, name, _ = strings.Cut(full, "/")
	}
	f := Facts{
		Repo: Repo{Host: w.Text("repo.host"), Owner: owner, Name: name, FullName: owner + "/" + name, Fork: w.Flag("repo.fork")},
		Job: Job{
			Name: cmp.Or(w.Text("job.name"), "build"), Workflow: cmp.Or(w.Text("job.workflow"), "CI"),
			Branch: cmp.Or(w.Text("job.branch"), "main"), Sender: cmp.Or(w.Text("job.sender"), "octocat"), Attempt: 1,
		},
		Run: &Run{Event: cmp.Or(w.Text("run.event"), "push"), Actor: cmp.Or(w.Text("run.actor"), "octocat"), Fork: w.Flag("run.fork")},
	}
	for _, a := range w.Assumed {
		if a.Kind == cond.HasLabel && a.Holds {
			f.Labels = append(f.Labels, a.Name)
		}
	}
	return f
}
