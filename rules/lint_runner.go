package rules

import (
	"slices"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// cancelled reports that action cancel may cancel runs whose jobs are meant for other runners: a
// job that asks only for what every stack has is in scope.
func (l *runnerCheck) cancelled() {
	if l.unroutable.action == "" {
		return
	}
	known := slices.DeleteFunc(slices.Clone(ofAnyStack), func(name string) bool { return !l.Knows([]string{name}) })
	if len(known) == 0 {
		return
	}
	var asks []*cond.Node
	for _, name := range known {
		asks = append(asks, cond.Has(name))
	}
	if !l.possible(cond.That(l.scope.Root, true), cond.That(cond.AnyOf(asks...), true), cond.That(cond.Only(known...), true)) {
		return
	}
	l.add("cancel-other-runners", l.unroutable.at, "",
		"action cancel may cancel runs whose jobs are meant for other runners on the same GitHub: a job with no labels but %s is in scope, whoever it is meant for; let scope ask for a label of your own, such as has(\"nomad\"), or leave unroutable out",
		words.QuoteAll(known))
}

// A runnerCheck checks that what the rules rely on is so: GitHub gives a job to
// any runner that has all of its labels and that its repository may use.
type runnerCheck struct{ linter }

// ofAnyStack are the labels that runners of every kind have: GitHub's own defaults for self-hosted
// runners.
var ofAnyStack = []string{"self-hosted", "linux", "windows", "macos", "x86", "x64", "arm", "arm64"}

// denied reports rules that deny jobs which GitHub may still give to a runner of another job, one
// that registers for more than its repository.
func (l *runnerCheck) denied() {
	const maxTries = 20_000
	type shared struct {
		rule int
		Facts
		Runner
	}
	var runners []shared
	for i, f := range l.shown {
		// GitHub's Default group, 1, is open to all repositories until someone says otherwise; another was made to be narrower.
		if d, ok := l.placed(i, f); ok && d.Runner.Scope != "repository" && d.Runner.Group.Open() {
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
			no, yes := l.decide(job), l.decide(other)
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

// theft reports rules whose runners GitHub may give the jobs of another: it gives a job to any
// runner that has all of the job's labels. A file with compound labels has the remedy already. A
// label such as run-1 is none: it keeps its job away from other runners, not other jobs away from
// its runner.
func (l *runnerCheck) theft() {
	if l.compound.prefix != "" {
		return
	}
	hint := ""
	for _, lb := range l.vocabulary.prefixes {
		if lb.param == nil && lb.pattern != "*" {
			hint = "; a label like " + lb.pattern + " helps only where every job has one"
		}
	}
	type witness struct {
		rule int
		*Facts
		Decision
	}
	var placing []witness
	byLabel := map[string][]int{} // a label of each witness, to find subsets by
	for i, f := range l.shown {
		d, ok := l.placed(i, f)
		if !ok {
			continue
		}
		least := ""
		for _, name := range d.Labels {
			if name != "self-hosted" || len(d.Labels) == 1 {
				least = name
			}
		}
		byLabel[least] = append(byLabel[least], len(placing))
		placing = append(placing, witness{i, f, d})
	}
	left := maxThefts
	for _, thief := range placing { // its runner is taken by a job of another rule
		pairs := 0
	search:
		for _, name := range thief.Decision.Labels {
			for _, at := range byLabel[name] {
				other := placing[at]
				if pairs++; pairs > 100 || left == 0 {
					break search
				}
				left--
				if other.rule == thief.rule || !l.stealable(other.Facts, thief.Facts, other.Decision, thief.Decision) {
					continue
				}
				l.add("runner-theft", l.rules[thief.rule].at, l.rules[thief.rule].name,
					"a runner for %s (rule %s) has all labels of a job with %s (rule %s): GitHub may give it that job%s; write a compound, so that jobs can ask for a compound label alone, or give one of the rules a runner group of its own",
					words.QuoteAll(thief.Facts.Labels), l.rules[thief.rule].name, words.QuoteAll(other.Facts.Labels), l.rules[other.rule].name, hint)
				break search
			}
		}
	}
}

// maxThefts is how many pairs of jobs theft compares, each by some decisions. In a file with
// thousands of rules it compares those of the first ones.
const maxThefts = 10_000

// stealable reports whether the job may get the runner that was started for another, and would
// itself have been given a different one.
func (l *runnerCheck) stealable(job, runner *Facts, jobDecision, runnerDecision Decision) bool {
	for _, name := range jobDecision.Labels {
		if !slices.Contains(runnerDecision.Labels, name) {
			return false
		}
	}
	other := func(a, b Decision) bool {
		a.Runner.Registration = b.Runner.Registration // the same runner in the end
		return a.Outcome == Routed && b.Outcome == Routed && a.Rule == jobDecision.Rule && b.Rule == runnerDecision.Rule &&
			a.Runner.Group == b.Runner.Group && !sameRequest(a.Placement, b.Placement)
	}
	// A runner serves its repository, its owner or its enterprise: can both jobs be there?
	for _, repo := range []Repo{job.Repo, runner.Repo} {
		one, two := *job, *runner
		one.Repo, two.Repo = repo, repo
		if other(l.decide(one), l.decide(two)) {
			return true
		}
	}
	reaches := job.Repo.Owner == runner.Repo.Owner && runnerDecision.Runner.Scope == "organization" || runnerDecision.Runner.Scope == "enterprise"
	return reaches && other(jobDecision, runnerDecision)
}
