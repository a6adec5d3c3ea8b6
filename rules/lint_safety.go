package rules

import (
	"slices"
)

// ofAnyStack are the labels that runners of every stack have: GitHub's own
// defaults for self-hosted runners.
var ofAnyStack = []string{"self-hosted", "linux", "windows", "macos", "x86", "x64", "arm", "arm64"}

// safety checks that what the file relies on is so: GitHub gives a job to any
// runner that has all of its labels and that its repository may use.
func (l *linter) safety() {
	l.cancelled()
	l.denied()
}

// cancelled reports that runs are cancelled which may be those of other runners:
// a job that asks for nothing but what every stack has is in scope.
func (l *linter) cancelled() {
	if l.unroutable.action == "" {
		return
	}
	known := slices.DeleteFunc(slices.Clone(ofAnyStack), func(name string) bool { return !l.Knows([]string{name}) })
	if len(known) == 0 {
		return
	}
	var asks []*node
	for _, name := range known {
		asks = append(asks, atom(node{kind: hasLabel, name: name}))
	}
	only := atom(node{kind: hasOnly, names: known, source: "only(" + quoteAll(known) + ")"})
	if !possible(goal{l.scope.root, true}, goal{joined(or, asks...), true}, goal{only, true}) {
		return
	}
	l.add("cancel-other-runners", l.unroutable.at, "",
		"action cancel may cancel runs of jobs that other runners of the same GitHub are there for: a job with no labels but %s is in scope, whoever it is meant for; let scope ask for a label of your own, such as has(\"nomad\"), or leave unroutable out",
		quoteAll(known))
}

// denied reports rules that deny jobs which GitHub may give to a runner of
// another job all the same: one that registers for more than its repository.
func (l *linter) denied() {
	const maxTries = 20_000
	type shared struct {
		rule int
		Facts
		Runner
	}
	var runners []shared
	for i, f := range l.shown {
		if f == nil || l.rules[i].deny != "" {
			continue
		}
		// GitHub's Default group, 1, is open to all repositories until someone says otherwise; another was made to be narrower.
		if d := l.decide(*f, l.first); d.Outcome == Routed && d.Runner.Scope != "repository" && d.Runner.Group == 1 {
			runners = append(runners, shared{i, *f, d.Runner})
		}
	}
	tries := 0
	for i, f := range l.shown {
		ru := &l.rules[i]
		if f == nil || ru.deny == "" {
			continue
		}
		for _, r := range runners {
			if tries++; tries > maxTries {
				return
			}
			job, other := *f, r.Facts
			job.Labels = other.Labels
			if r.Scope == "organization" {
				other.Repo.Host, other.Repo.Owner, other.Repo.FullName = job.Repo.Host, job.Repo.Owner, job.Repo.Owner+"/"+other.Repo.Name
			}
			no, yes := l.decide(job, l.first), l.decide(other, l.first)
			if no.Outcome != Denied || no.Rule != ru.name || yes.Outcome != Routed || yes.Rule != l.rules[r.rule].name || yes.Runner != r.Runner {
				continue
			}
			l.add("deny-open-runner", ru.at, ru.name,
				"rule %s starts no runner for the jobs that it denies, but GitHub may give them one of rule %s, which registers for the whole %s: register it for the repository alone, or in a runner group that only the right repositories may use (runner: { group: … })",
				ru.name, l.rules[r.rule].name, r.Scope)
			break
		}
	}
}
