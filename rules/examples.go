package rules

import (
	"context"
	"fmt"
	"slices"

	"switchyard/rules/internal/cond"
)

// maxExamples bounds how many placements are asked about.
const maxExamples = 2000

// An Example is a placement that a rule can choose, with the labels of a job
// that gets it.
type Example struct {
	Rule      string
	Label     string // what was added to the labels of the rule's plainest job; "" for that job
	Labels    []string
	Placement Placement
}

// Plainest returns, of each rule that places, the placement of the plainest job
// that was found to reach it; a rule for which none is found is left out.
func (s *Set) Plainest() []Example {
	p := newProver(context.Background(), s, cond.DescribeSteps)
	list := []Example{}
	for i := range s.rules {
		if s.rules[i].deny != "" {
			continue
		}
		if f := p.find(i); f != nil {
			if d := p.decide(*f); d.Outcome == Routed {
				list = append(list, Example{d.Rule, "", f.Labels, d.Placement})
			}
		}
	}
	return list
}

// Examples returns placements that the rules can choose: of each rule the one
// of the plainest job that was found to reach it, and its fallbacks; then for
// that job with each label of the vocabulary added, with the least and the most
// of a number. A rule for which no job is found is left out, and so are labels
// when there would be more than 2,000 examples.
func (s *Set) Examples() []Example {
	p := newProver(context.Background(), s, cond.DescribeSteps)
	var list []Example
	plain := map[int]*Facts{}
	for i := range s.rules {
		if s.rules[i].deny != "" || len(list) >= maxExamples {
			continue
		}
		f := p.find(i)
		if f == nil {
			continue
		}
		d := p.decide(*f)
		if d.Outcome != Routed {
			continue
		}
		plain[i] = f
		list = append(list, Example{d.Rule, "", f.Labels, d.Placement})
		for _, fb := range d.Fallback {
			if fb.Reason == "" {
				list = append(list, Example{d.Rule, "", f.Labels, fb.Placement})
			}
		}
	}
	few := len(list)
	for i := range s.rules {
		if plain[i] == nil {
			continue
		}
		for _, lb := range s.vocabulary.all() {
			names := lb.samples()
			if prefix, _ := lb.prefix(); lb.param != nil && lb.param.Kind != "string" {
				names = append(names, fmt.Sprintf("%s%d", prefix, lb.param.Max))
			}
			for _, name := range names {
				f := *plain[i]
				if slices.Contains(f.Labels, name) {
					continue
				}
				f.Labels = append(slices.Clone(f.Labels), name)
				if d := p.decide(f); d.Outcome == Routed && d.Rule == s.rules[i].name {
					list = append(list, Example{d.Rule, name, f.Labels, d.Placement})
				}
				if len(list) > maxExamples || p.over() {
					return list[:few]
				}
			}
		}
	}
	return list
}
