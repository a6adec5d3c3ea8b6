package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A ruleCheck checks the condition of each rule against those of the rules before.
type ruleCheck struct {
	*conditionCheck
	doubtful map[cond.Spot]bool // where there is a doubt, so that no label is reported twice
	exact    []string           // what exactNames found; nil: not yet
}

// check checks one rule's condition, and looks for a job that the rule takes.
func (l *ruleCheck) check(i int) {
	ru := &l.rules[i]
	l.unknownLabels(ru)
	inScope := cond.That(l.Set.scope.Root, true)
	fails := l.absent(&ru.when, "if", ru.name, []cond.Goal{inScope}, func(goals []cond.Goal) bool {
		_, ok := l.taken(i, goals...)
		return ok
	})
	if l.dead(&ru.when, "if", ru.name, fails, ru.deny != "") || l.neverWins(i, inScope, cond.That(ru.when.Root, true)) {
		return
	}
	l.shown[i] = l.find(i)
	if ru.layer.urgency.set && (ru.limit == nil || ru.limit.order != Priority) {
		l.add("urgency-unused", ru.urgencyAt, ru.name, "urgency has no effect: jobs of rule %s do not wait by urgency; add limit: { running: …, order: priority }, or leave urgency out", ru.name)
	}
	if ru.deny == "" {
		l.bare(i)
		l.publicToken(i)
		l.overflow(i)
		for n := range ru.warm {
			if _, why := l.warm(i, l.shown[i], &ru.warm[n]); why != "" {
				l.add("warm-unused", ru.warm[n].at, ru.name, "warm has no effect: %s", why)
			}
		}
	}
}

// unknownLabels reports labels that the condition asks for and no job has.
func (l *ruleCheck) unknownLabels(ru *rule) {
	for _, m := range ru.when.Labels {
		if l.doubtful[m.At] {
			continue
		}
		if p := l.compound.prefix; p != "" && strings.HasPrefix(m.Label, p) {
			l.add(cond.ImpossibleValue, m.At, ru.name, "no job has the label %s: compound labels are expanded: ask for its parts", words.Quote(m.Label))
			continue
		}
		if found, _ := l.vocabulary.find(m.Label); found == nil && l.vocabulary.size > 0 && m.Label != "self-hosted" {
			hint := ""
			if lb := l.vocabulary.exactly(m.Label + "=*"); lb != nil {
				hint = fmt.Sprintf("; it has %s, with a value: %s=…", lb.pattern, m.Label)
			} else if near, _ := words.Meant(m.Label, l.exactNames(), 1); len(near) > 0 {
				hint = "; did you mean " + near[0] + "?"
			}
			l.add("unknown-label", m.At, ru.name, "the vocabulary has no label %s%s; add it to labels, so that its meaning is written once", words.Quote(m.Label), hint)
		}
	}
}

// neverWins reports a rule for which the ones before, or the scope, leave no job.
func (l *ruleCheck) neverWins(i int, goals ...cond.Goal) bool {
	ru := &l.rules[i]
	if !l.possible(goals...) {
		l.add("never-wins", ru.at, ru.name, "rule %s takes no job: what it asks for is out of scope", ru.name)
		return true
	}
	by, ok := l.taken(i, goals...)
	if !ok {
		return false
	}
	for _, one := range by { // the whole list only when no rule does it alone
		if root := l.rules[one].when.Root; root == nil || !l.possible(append(goals, cond.That(root, false))...) {
			by = []int{one}
			break
		}
	}
	var said []string
	for _, one := range by {
		said = append(said, l.rules[one].seen(ru.at.File))
	}
	what, verb := "rule ", " takes"
	if len(by) > 1 {
		what, verb = "the rules ", " together take"
	}
	l.add("never-wins", ru.at, ru.name, "rule %s takes no job: %s%s%s every job that it could; move it up or remove it", ru.name, what, strings.Join(said, ", "), verb)
	return true
}

// seen names the rule for somebody who looks at a file.
func (ru *rule) seen(file string) string {
	if ru.at.File != file {
		return fmt.Sprintf("%s (%s:%d)", ru.name, ru.at.File, ru.at.Line)
	}
	return fmt.Sprintf("%s (line %d)", ru.name, ru.at.Line)
}

// exactNames returns the labels without a *, sorted.
func (l *ruleCheck) exactNames() []string {
	if l.exact == nil {
		l.exact = slices.Sorted(maps.Keys(l.vocabulary.exact))
	}
	return l.exact
}

// bare reports a rule that takes a job with no label but self-hosted.
func (l *ruleCheck) bare(i int) {
	ru := &l.rules[i]
	if f := l.find(i, cond.That(cond.Only("self-hosted"), true), cond.That(cond.Has("self-hosted"), true)); f != nil {
		at := ru.at
		if ru.when.Root != nil {
			at = ru.when.At
		}
		l.add("bare-self-hosted", at, ru.name, "rule %s takes jobs that ask for nothing but self-hosted: ask for a platform's label too, such as has(\"linux\")", ru.name)
	}
}

// publicToken reports a rule that gives the runner of a job of a public repository a registration
// token.
func (l *ruleCheck) publicToken(i int) {
	ru := &l.rules[i]
	if l.shown[i] == nil {
		return
	}
	f := *l.shown[i]
	f.Repo.Private, f.Repo.Visibility = false, "public"
	if d := l.decide(f); d.Rule == ru.name && d.Outcome == Routed && d.Runner.Registration == "token" {
		l.add("public-token", ru.at, ru.name, "rule %s gives runners of public repositories a registration token, with which anyone who obtains it can add runners of their own: refuse public repositories by a rule above, or leave registration: token out", ru.name)
	}
}

// overflow reports a rule that takes the jobs which its overflow is to send elsewhere.
func (l *ruleCheck) overflow(i int) {
	ru := &l.rules[i]
	if l.shown[i] == nil || ru.overflow == nil {
		return
	}
	f := *l.shown[i]
	f.Labels = ru.overflow.runs
	if d := l.decide(f); d.Rule == ru.name {
		l.add("overflow-to-itself", ru.overflow.at["to"], ru.name, "rule %s takes jobs that ask for %s, which its overflow is to send elsewhere: write labels of other runners", ru.name, words.QuoteAll(f.Labels))
	}
}
