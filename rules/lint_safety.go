package rules

import (
	"fmt"
	"slices"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// ofAnyStack are the labels that runners of every stack have: GitHub's own
// defaults for self-hosted runners.
var ofAnyStack = []string{"self-hosted", "linux", "windows", "macos", "x86", "x64", "arm", "arm64"}

// safety checks that what the file relies on is so: GitHub gives a job to any
// runner that has all of its labels and that its repository may use.
func (l *linter) safety() {
	l.cancelled()
	l.denied()
	l.bounds()
	l.empty()
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
	var asks []*cond.Node
	for _, name := range known {
		asks = append(asks, cond.Atom(cond.Node{Kind: cond.HasLabel, Name: name}))
	}
	only := cond.Atom(cond.Node{Kind: cond.HasOnly, Names: known, Source: "only(" + words.QuoteAll(known) + ")"})
	if !l.possible(cond.That(l.scope.Root, true), cond.That(cond.Joined(cond.Or, asks...), true), cond.That(only, true)) {
		return
	}
	l.add("cancel-other-runners", l.unroutable.at, "",
		"action cancel may cancel runs whose jobs are meant for other runners on the same GitHub: a job with no labels but %s is in scope, whoever it is meant for; let scope ask for a label of your own, such as has(\"nomad\"), or leave unroutable out",
		words.QuoteAll(known))
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
		if d := l.decide(*f); d.Outcome == Routed && d.Runner.Scope != "repository" && d.Runner.Group == 1 {
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

// bounds checks that max bounds what labels ask for: by each size that they ask
// for, and with no more asked for than it lets through.
func (l *linter) bounds() {
	const mhzOfACore = 1000 // at least: no server has slower ones
	sized := slices.DeleteFunc(l.vocabulary.all(), func(lb *label) bool {
		return lb.layer.get(cpu) == nil && lb.layer.get(cores) == nil && lb.layer.get(memoryMax) == nil
	})
	seen := map[string]bool{}
	for i := range l.rules {
		ru := &l.rules[i]
		if ru.deny != "" || ru.dispatch != "" {
			continue
		}
		var all []limit
		for _, size := range sizes {
			all = append(all, l.most(ru, size))
		}
		key := fmt.Sprint(all)
		if seen[key] {
			continue
		}
		seen[key] = true
		mhz, whole, reserved, most := l.most(ru, cpu), l.most(ru, cores), l.most(ru, memory), l.most(ru, memoryMax)
		if !l.spend(5 * len(sized)) {
			return
		}
		for _, lb := range sized {
			asksMHz, fixedMHz := lb.asks(cpu)
			asksCores, literal := lb.asks(cores)
			asksMax, _ := lb.asks(memoryMax)
			switch {
			case mhz.most != 0 && whole.most == 0 && lb.layer.get(cores) != nil && (!literal || asksCores*mhzOfACore > mhz.most):
				l.unbounded(mhz, cores, lb)
			case whole.most != 0 && mhz.most == 0 && !fixedMHz && asksMHz > whole.most*mhzOfACore:
				l.unbounded(whole, cpu, lb)
			case reserved.most != 0 && most.most == 0 && asksMax > reserved.most:
				l.unbounded(reserved, memoryMax, lb)
			}
		}
	}
}

func (l *linter) unbounded(limit limit, lacks *field, lb *label) {
	l.add("unbounded-size", limit.at, "", "max %s (%s) does not bound what the label %s asks for, %s: add %s to max", limit.key, limit.from, words.Quote(lb.pattern), lacks.key, lacks.key)
}

// asks is the most that a label asks for of a size; literal when it is written
// out. It is 0 when that cannot be told.
func (lb *label) asks(size *field) (most int, literal bool) {
	switch s := lb.layer.get(size); {
	case s == nil:
		return 0, false
	case s.template == nil:
		return s.literal.(int), true
	case s.template.IsParam(lb.param):
		return lb.param.Max, false
	}
	return 0, false
}

// empty reports patterns by which the label of a param is known without a value.
func (l *linter) empty() {
	for _, lb := range l.vocabulary.prefixes {
		if lb.param == nil {
			continue
		}
		if !l.spend(len(l.vocabulary.prefixes)) {
			return
		}
		prefix, _ := lb.prefix()
		if wide, _ := l.vocabulary.find(prefix); wide != nil && wide.param == nil {
			l.add("empty-value", wide.at, "", "the pattern %s makes the label %s known without a value and without a meaning, so a job that forgets the value is served anyway; name the labels that you mean, such as \"run-*\"",
				words.Quote(wide.pattern), words.Quote(prefix))
			return
		}
	}
}
