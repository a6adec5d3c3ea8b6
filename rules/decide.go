package rules

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A Set is the rules of one or more files. It is immutable and safe for concurrent use.
type Set struct {
	knownLabels
	scope      cond.Condition
	defaults   layer
	rules      []rule
	asked      map[string]bool // params that expressions ask for
	sees       bool            // an expression may depend on labels that it does not name
	facts      map[string]bool // what expressions ask for of repo, job and run
	doubts     []cond.Doubt    // what Lint says of texts and numbers in expressions
	tests      []Test
	index      cond.Index
	timeLimit  time.Duration // of the defaults; 0: none
	unroutable struct {
		after  time.Duration
		action string    // "": none
		at     cond.Spot // of the action
	}
	feedback struct {
		after time.Duration
		kind  string // "": none
	}
	prices Prices
}

// Unroutable returns what happens to a job that stays unroutable, and after how
// long: the action "cancel" cancels its run on GitHub, "" is no action.
func (s *Set) Unroutable() (after time.Duration, action string) {
	return s.unroutable.after, s.unroutable.action
}

// Feedback returns what is written on the commit of a job that waits or gets no
// runner, "check_run" or "commit_status", and after how long; "" is nothing.
func (s *Set) Feedback() (kind string, after time.Duration) {
	return s.feedback.kind, s.feedback.after
}

// Reruns reports whether some rule has jobs that failed run again.
func (s *Set) Reruns() bool {
	return slices.ContainsFunc(s.rules, func(r rule) bool { return r.rerun != nil })
}

// Rules returns the names of the rules, in file order.
func (s *Set) Rules() []string {
	names := make([]string, len(s.rules))
	for i := range s.rules {
		names[i] = s.rules[i].name
	}
	return names
}

// Jobspecs returns the names of the jobspecs that rules use, sorted.
func (s *Set) Jobspecs() []string {
	var names []string
	for i := range s.rules {
		names = append(names, s.rules[i].jobspec)
		for _, f := range s.rules[i].fallback {
			names = append(names, f.jobspec)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(n string) bool { return n == "" })
}

// Regions returns the regions of Nomad that rules, fallbacks, labels and defaults name as
// literals, sorted.
func (s *Set) Regions() []string {
	layers := []*layer{&s.defaults}
	for i := range s.rules {
		layers = append(layers, &s.rules[i].layer)
		for j := range s.rules[i].fallback {
			layers = append(layers, &s.rules[i].fallback[j].layer)
		}
	}
	for _, lb := range s.vocabulary.all() {
		layers = append(layers, &lb.layer)
	}
	var names []string
	for _, l := range layers {
		if v := l.get(regionField); v != nil && v.template == nil {
			names = append(names, v.literal.(string))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// AtRule returns a finding at a rule, "" for none of them.
func (s *Set) AtRule(name, message string) Diagnostic {
	for i := range s.rules {
		if s.rules[i].name == name {
			return found(s.rules[i].at, name, message)
		}
	}
	return Diagnostic{Message: message}
}

// AtLabel returns a finding at the entry of the vocabulary that a label has.
func (s *Set) AtLabel(name, message string) Diagnostic {
	if l, _ := s.vocabulary.find(name); l != nil {
		return found(l.at, "", message)
	}
	return Diagnostic{Message: message}
}

// CheckJobspecs returns a fault for each rule whose jobspec is none of names.
func (s *Set) CheckJobspecs(names []string) Diagnostics {
	var faults Diagnostics
	for i := range s.rules {
		ru := &s.rules[i]
		check := func(name string, at cond.Spot) {
			if name == "" || slices.Contains(names, name) {
				return
			}
			hint := cmp.Or(words.DidYouMean(name, names), "; there are "+strings.Join(names, ", ")+";")
			d := found(at, ru.name, "there is no jobspec "+words.Quote(name)+hint+" your own are those of --jobspecs DIR")
			d.Code = "no-such-jobspec"
			faults = append(faults, d)
		}
		check(ru.jobspec, ru.jobspecAt)
		for _, f := range ru.fallback {
			check(f.jobspec, f.jobspecAt)
		}
	}
	return faults.sort()
}

// Decide returns the decision for a job; the README has the order. The first rule, in file order,
// whose condition holds wins. With trace, the decision says of each rule up to that one whether it
// held and why, and which rule is the nearest when none took the job. Decide does no I/O, never
// fails and never panics on what a stranger wrote; an expression that fails makes the job
// unroutable.
func (s *Set) Decide(f Facts, trace bool) Decision {
	if !trace {
		return s.decide(f, s.first)
	}
	return s.decide(f, func(env *cond.Env, d *Decision) (*rule, error) { return s.scan(env, d, false) })
}

// Explain decides like Decide, with a trace of every rule, also those after the winner.
func (s *Set) Explain(f Facts) Decision {
	return s.decide(f, func(env *cond.Env, d *Decision) (*rule, error) { return s.scan(env, d, true) })
}

// A search returns the first rule whose condition holds, nil for none, or the
// one that ended the search by an error. It may add a trace to the decision.
type search = func(*cond.Env, *Decision) (*rule, error)

// decide returns the decision for a job, whose rule find finds.
func (s *Set) decide(f Facts, find search) Decision {
	d, _ := s.decideWithin(cond.DecisionSteps, f, find)
	return d
}

// decideWithin decides within a limit of steps, and returns how many it took.
func (s *Set) decideWithin(limit int, f Facts, find search) (d Decision, spent int) {
	labels, labelErr := s.expand(f.Labels)
	if f.Cut {
		labelErr = fmt.Errorf("the job's labels have more than %d bytes together", MaxTokenLabels)
	}
	env := newEnv(labels, f)
	env.Limit = limit
	return s.decided(env, labelErr, f, find), env.Spent
}

// decided decides for expanded labels; labelErr is what is wrong with them.
func (s *Set) decided(env *cond.Env, labelErr error, f Facts, find search) Decision {
	d := Decision{Outcome: Unroutable, Labels: env.Labels, Run: f.Run, Placement: nowhere()}
	meanings, unknown, paramErr := s.read(env)

	in, err := s.scope.Holds(env)
	switch {
	case errors.Is(paramErr, cond.ErrTooCostly): // nothing more can be asked
		d.Reason = paramErr.Error()
		return d
	case err != nil:
		d.Reason = "rule error: scope: " + err.Error()
		return d
	case !in:
		d.Outcome, d.Reason = Ignored, "out of scope: "+words.OneLine(s.scope.Source)+" is false"
		if near := s.nearScope(f, env); near != "" {
			d.Reason += "; " + near
		}
		return d
	case labelErr != nil:
		d.Reason = labelErr.Error()
		return d
	case len(unknown) > 0:
		d.Reason = s.unknownLabels(unknown)
		return d
	case paramErr != nil:
		d.Reason = paramErr.Error()
		return d
	}

	winner, err := find(env, &d)
	switch {
	case errors.Is(err, cond.ErrRunUnknown):
		d.Outcome, d.Rule, d.Reason = Undecided, winner.name, fmt.Sprintf("rule %s cannot be decided: %v", winner.name, err)
		return d
	case err != nil:
		d.Rule, d.Reason = winner.name, fmt.Sprintf("rule error: rule %s: %v", winner.name, err)
		return d
	case winner == nil:
		d.Reason = fmt.Sprintf("no rule takes a job with the labels %s", words.QuoteAll(env.Labels))
		return d
	}
	d.Rule = winner.name
	if winner.deny != "" {
		d.Outcome, d.Reason = Denied, winner.deny
		return d
	}
	placement, err := winner.place(&s.defaults, nil, meanings, env)
	if err != nil {
		d.Reason = fmt.Sprintf("rule %s took the job, but it cannot be placed: %v", winner.name, err)
		return d
	}
	urgency, urgent, err := winner.urgency(meanings, env)
	if err != nil {
		d.Reason = fmt.Sprintf("rule %s took the job, but it cannot be put in its order: %v", winner.name, err)
		return d
	}
	d.Outcome, d.Placement = Routed, placement
	d.Limit = winner.limit.of(winner.name, meanings, env)
	if urgent != "" {
		d.Urgency, d.From["urgency"] = urgency, urgent
	}
	switch {
	case winner.timeLimit != 0:
		d.TimeLimit, d.From["time_limit"] = Duration(winner.timeLimit), "rule "+winner.name
	case s.timeLimit != 0:
		d.TimeLimit, d.From["time_limit"] = Duration(s.timeLimit), "defaults"
	}
	d.Rerun = winner.rerun
	d.Fallback = winner.fallbacks(&s.defaults, meanings, env)
	d.Reason = fmt.Sprintf("rule %s runs it with the jobspec %s", winner.name, winner.jobspec)
	if winner.dispatch != "" {
		d.Reason = fmt.Sprintf("rule %s dispatches the Nomad job %s as it is", winner.name, words.OneLine(winner.dispatch))
		if lost := notApplied(meanings); len(lost) > 0 {
			d.Reason += "; what the labels " + words.QuoteAll(lost) + " mean is not applied"
		}
	}
	return d
}

func newEnv(labels []string, f Facts) *cond.Env {
	env := &cond.Env{Labels: labels, Repo: f.Repo, Job: f.Job, Asked: f.Labels}
	env.Repo.Host = cmp.Or(env.Repo.Host, DefaultHost)
	env.Repo.URL = "https://" + env.Repo.Host + "/" + env.Repo.FullName
	if f.Run != nil {
		env.Run, env.RunKnown = *f.Run, true
	}
	return env
}

// first finds the rule by the index.
func (s *Set) first(env *cond.Env, _ *Decision) (*rule, error) {
	var w cond.Walk
	w.Start(&s.index, env)
	for i := w.Next(); i >= 0; i = w.Next() {
		ru := &s.rules[i]
		if err := env.Spend(cond.NodeSteps); err != nil {
			return ru, err
		}
		if held, err := ru.when.Holds(env); held || err != nil {
			return ru, err
		}
	}
	return nil, nil
}

// scan finds the rule that first finds, and fills in the trace up to it, or of all rules. The steps
// that explaining takes do not count as the decision's.
func (s *Set) scan(env *cond.Env, d *Decision, all bool) (winner *rule, end error) {
	winner, end = s.first(env, d)
	why := *env
	why.Spent, why.Limit = 0, cond.TraceSteps
	d.Trace = make([]Step, 0, min(len(s.rules), 1000))
	nearest, after := -1, false
	for i := range s.rules {
		ru := &s.rules[i]
		wins := ru == winner
		var step Step
		if held, err := ru.when.Holds(&why); wins && end != nil {
			step = Step{ru.name, false, ru.when.Why(&why, false, end), true}
		} else if errors.Is(err, cond.ErrTooCostly) {
			step = Step{ru.name, wins, "which part of its condition decides is not shown: explaining it takes too long", false}
		} else {
			step = Step{ru.name, held, ru.when.Why(&why, held, err), err != nil}
		}
		d.Trace = append(d.Trace, step)
		after = after || wins
		switch {
		case after && !all:
			return winner, end
		case winner != nil || ru.deny != "":
			continue
		}
		if missing, cost := ru.when.Root.Missing(&why); why.Spent <= cond.TraceSteps && (nearest < 0 || cost < nearest) {
			nearest, d.Nearest = cost, &Nearest{Rule: ru.name, Missing: missing}
		}
	}
	return winner, end
}
