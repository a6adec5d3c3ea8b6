package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Set is one loaded rules file. It is immutable and safe for concurrent use.
type Set struct {
	file       string
	scope      condition
	compound   compound
	vocabulary vocabulary
	defaults   layer
	rules      []rule
	mentions   map[string]bool // labels that expressions ask for, lower case

	keyed   map[key][]int // rules by what their condition cannot hold without
	unkeyed []int         // the others; both in file order
}

// index files each rule under the key that the fewest rules share.
func (s *Set) index() {
	uses := map[key]int{}
	for i := range s.rules {
		for _, k := range s.rules[i].when.needs() {
			uses[k]++
		}
	}
	s.keyed = map[key][]int{}
	for i := range s.rules {
		need := s.rules[i].when.needs()
		if len(need) == 0 {
			s.unkeyed = append(s.unkeyed, i)
			continue
		}
		k := slices.MinFunc(need, func(a, b key) int { return uses[a] - uses[b] })
		s.keyed[k] = append(s.keyed[k], i)
	}
}

// candidates returns the rules that could hold for the job, in file order.
func (s *Set) candidates(env *Env) []int {
	list := slices.Clone(s.unkeyed)
	for _, l := range env.Labels {
		list = append(list, s.keyed[key{"label", l}]...)
	}
	for _, f := range []string{"owner", "name", "full_name"} {
		is, _ := env.Repo.field(f)
		list = append(list, s.keyed[key{f, is}]...)
	}
	slices.Sort(list)
	return list
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
		if n := s.rules[i].jobspec; n != "" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// CheckJobspecs returns a fault for each rule whose jobspec is none of names.
func (s *Set) CheckJobspecs(names []string) Diagnostics {
	var faults Diagnostics
	for i := range s.rules {
		ru := &s.rules[i]
		if ru.jobspec == "" || slices.Contains(names, ru.jobspec) {
			continue
		}
		hint := cmp.Or(didYouMean(ru.jobspec, names), "; there are "+strings.Join(names, ", "))
		faults = append(faults, Diagnostic{
			File: s.file, Line: ru.jobspecLine, Column: ru.jobspecColumn, Rule: ru.name,
			Message: "there is no jobspec " + quote(ru.jobspec) + hint,
		})
	}
	return faults.sort()
}

// Decide says what the rules file makes of a job: see the README for the
// order. The first rule, in file order, whose condition holds wins. With
// trace, the decision says of each rule up to that one whether it held and
// why. Decide does no I/O, never fails and never panics on what a stranger
// wrote; an expression that fails makes the job unroutable.
func (s *Set) Decide(f Facts, trace bool) Decision {
	labels, labelErr := s.compound.expand(f.Labels)
	d := Decision{Outcome: Unroutable, Labels: labels, Placement: nowhere()}
	env := &Env{Labels: labels, Repo: f.Repo, Job: f.Job}
	meanings, unknown, paramErr := s.read(env)

	in, _, err := s.scope.holds(env, false)
	switch {
	case err != nil:
		d.Reason = "rule error: scope: " + err.Error()
		return d
	case !in:
		d.Outcome, d.Reason = Ignored, "out of scope: "+oneLine(s.scope.source)+" is false"
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

	winner, err := s.first(env, trace, &d.Trace)
	switch {
	case err != nil:
		d.Rule, d.Reason = winner.name, fmt.Sprintf("rule error: rule %s: %v", winner.name, err)
		return d
	case winner == nil:
		d.Reason = fmt.Sprintf("no rule takes a job with the labels %s", quoteAll(labels))
		return d
	}
	d.Rule = winner.name
	if winner.deny != "" {
		d.Outcome, d.Reason = Denied, winner.deny
		return d
	}
	placement, err := s.place(winner, meanings, env)
	if err != nil {
		d.Reason = fmt.Sprintf("rule %s took the job, but it cannot be placed: %v", winner.name, err)
		return d
	}
	d.Outcome, d.Placement = Routed, placement
	d.Reason = fmt.Sprintf("rule %s runs it by the jobspec %s", winner.name, winner.jobspec)
	if winner.dispatch != "" {
		d.Reason = fmt.Sprintf("rule %s dispatches the Nomad job %s as it is", winner.name, oneLine(winner.dispatch))
		if lost := notApplied(meanings); len(lost) > 0 {
			d.Reason += "; what the labels " + quoteAll(lost) + " mean is not applied"
		}
	}
	return d
}

// first returns the first rule that holds; with an error, the one that failed.
func (s *Set) first(env *Env, trace bool, steps *[]Step) (*rule, error) {
	try := func(i int) (*rule, error) {
		ru := &s.rules[i]
		held, why, err := ru.when.holds(env, trace)
		if err != nil {
			why = "error: " + err.Error()
		}
		if trace {
			*steps = append(*steps, Step{ru.name, held, why})
		}
		if held || err != nil {
			return ru, err
		}
		return nil, nil
	}
	if trace { // the rules that the index leaves out have their reasons, too
		for i := range s.rules {
			if ru, err := try(i); ru != nil {
				return ru, err
			}
		}
		return nil, nil
	}
	for _, i := range s.candidates(env) {
		if ru, err := try(i); ru != nil {
			return ru, err
		}
	}
	return nil, nil
}

// A meaning is an entry of the vocabulary that one of the job's labels names.
type meaning struct {
	*label
	as string // the job's label
}

// read finds what the labels mean, in vocabulary order, and fills in the
// params. unknown are those that neither the vocabulary nor a condition knows.
func (s *Set) read(env *Env) (meanings []meaning, unknown []string, err error) {
	meanings = make([]meaning, 0, len(env.Labels))
	said := map[string]string{}
	for _, name := range env.Labels {
		l, open := s.vocabulary.find(name)
		if l == nil {
			if !s.mentions[name] {
				unknown = append(unknown, name)
			}
			continue
		}
		if l.param != nil {
			v, e := l.param.read(open)
			switch before, twice := said[l.param.name]; {
			case e != nil:
				err = cmp.Or(err, fmt.Errorf("label %s: %w", quote(name), e))
				continue
			case twice && env.Param[l.param.name] != v:
				err = cmp.Or(err, fmt.Errorf("labels %s and %s both set %s: a job has one of them", quote(before), quote(name), l.param.name))
				continue
			}
			if env.Param == nil {
				env.Param = map[string]any{}
			}
			env.Param[l.param.name], said[l.param.name] = v, name
		}
		if !slices.ContainsFunc(meanings, func(m meaning) bool { return m.label == l }) {
			meanings = append(meanings, meaning{l, name})
		}
	}
	slices.SortFunc(meanings, func(a, b meaning) int { return a.order - b.order })
	return meanings, unknown, err
}

// unknownLabels names the labels, with the nearest known ones.
func (s *Set) unknownLabels(unknown []string) string {
	known := make([]string, 0, len(s.vocabulary.exact)+len(s.vocabulary.prefixes)+len(s.mentions))
	for l := range s.vocabulary.exact {
		known = append(known, l)
	}
	for _, l := range s.vocabulary.prefixes {
		known = append(known, l.pattern)
	}
	for l := range s.mentions {
		known = append(known, l)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	var said []string
	for i, l := range unknown {
		if i == 3 {
			said = append(said, fmt.Sprintf("%d more", len(unknown)-i))
			break
		}
		hint, name := "", strings.TrimSuffix(l, "=")
		if near := nearest(l, known, 2); slices.Contains(known, name+"=*") {
			hint = " (it needs a value: " + name + "=…)"
		} else if len(near) > 0 {
			hint = " (did you mean " + strings.Join(near, " or ") + "?)"
		}
		said = append(said, quote(l)+hint)
	}
	what := "unknown label "
	if len(unknown) > 1 {
		what = "unknown labels "
	}
	return what + strings.Join(said, ", ") + ": neither the vocabulary nor a rule knows it"
}

// place merges what the winner and the labels ask for.
func (s *Set) place(winner *rule, meanings []meaning, env *Env) (Placement, error) {
	m := merger{env: env, p: nowhere()}
	m.p.From = map[string]string{}
	ruleFrom := "rule " + winner.name
	if winner.dispatch != "" {
		m.p.Dispatch, m.p.From["dispatch"] = winner.dispatch, ruleFrom
	} else {
		m.p.Jobspec, m.p.From["jobspec"] = winner.jobspec, ruleFrom
	}
	if err := m.add(&s.defaults, "defaults"); err != nil {
		return Placement{}, err
	}
	if err := m.add(&winner.layer, ruleFrom); err != nil {
		return Placement{}, err
	}
	for _, l := range meanings {
		if err := m.add(&l.layer, labelOrigin+l.as); err != nil {
			return Placement{}, err
		}
	}
	most, rule := s.defaults.max, winner.layer.max
	most.cpu, most.cores = cmp.Or(rule.cpu, most.cpu), cmp.Or(rule.cores, most.cores)
	most.memory, most.memoryMax = cmp.Or(rule.memory, most.memory), cmp.Or(rule.memoryMax, most.memoryMax)
	most.disk = cmp.Or(rule.disk, most.disk)
	if err := m.finish(most); err != nil {
		return Placement{}, err
	}
	return m.p, nil
}

// notApplied are the labels whose placement a dispatched job does not get.
func notApplied(meanings []meaning) []string {
	var lost []string
	for _, l := range meanings {
		if !l.layer.empty() {
			lost = append(lost, l.as)
		}
	}
	return lost
}
