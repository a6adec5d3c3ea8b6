package rules

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A LabelInfo says what a label means and which rules take it. Its JSON form is a contract. Texts
// are as in the rules file: ${{ … }} is not filled in.
type LabelInfo struct {
	Name       string      `json:"name"`       // lower case: "gpu", "cpu=*", "run-*"
	Vocabulary bool        `json:"vocabulary"` // false: only conditions ask for it
	Param      *ParamInfo  `json:"param"`      // nil: what stands for the * means nothing, or there is none
	Means      []Meaning   `json:"means"`      // what it adds to a placement; empty: nothing
	Examples   []string    `json:"examples"`   // labels that a job can ask for; empty when none could be thought of
	Rules      []LabelRule `json:"rules"`      // that were found to take a job with it, in file order
}

// A ParamInfo is the value in a label such as cpu=8.
type ParamInfo struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`    // int, size or string
	Least   string   `json:"least"`   // of an int or a size: "1", "512MiB"; "" of a string
	Most    string   `json:"most"`    // the same
	OneOf   []string `json:"one_of"`  // of a string; empty when it has a pattern
	Pattern string   `json:"pattern"` // of a string; "" when it is one of a few
}

// A Meaning is one thing that a label asks Nomad or GitHub for.
type Meaning struct {
	What  string `json:"what"` // constraint, affinity, device, cpu, cores, memory, memory max, disk, node pool, …
	Value string `json:"value"`
}

// A LabelRule is a rule that takes a job with a label.
type LabelRule struct {
	Rule   string   `json:"rule"`
	RunsOn []string `json:"runs_on"` // the labels of such a job
}

// A RuleInfo describes one rule for people. Its JSON form is a contract.
type RuleInfo struct {
	Name      string   `json:"name"`
	Condition string   `json:"condition"` // as it is written; "": the rule takes every job
	Deny      string   `json:"deny"`      // the reason that it denies with; "": it places
	Jobspec   string   `json:"jobspec"`   // one of the two is set for a rule that places
	Dispatch  string   `json:"dispatch"`
	RunsOn    []string `json:"runs_on"` // the labels of the plainest job that was found to get it; empty: none was
	File      string   `json:"file"`
	Line      int      `json:"line"`
}

// RuleList describes the rules in file order.
func (s *Set) RuleList() []RuleInfo {
	p := newProver(context.Background(), s, cond.DescribeSteps)
	list := make([]RuleInfo, len(s.rules))
	for i := range s.rules {
		ru := &s.rules[i]
		list[i] = RuleInfo{
			Name: ru.name, Condition: ru.when.Source, Deny: ru.deny, Jobspec: ru.jobspec, Dispatch: ru.dispatch,
			RunsOn: []string{}, File: ru.at.File, Line: ru.at.Line,
		}
		if f := p.find(i); f != nil {
			list[i].RunsOn = f.Labels
		}
	}
	return list
}

// Vocabulary describes the labels of the vocabulary in file order, then those that only conditions
// ask for, by name. The rules of a label are those that still take their plainest job when it asks
// for the label too; a job with more labels, or of another repository, may go elsewhere. Rules past
// 20,000 such tries are left out. Each try takes a decision: keep the answer.
func (s *Set) Vocabulary() []LabelInfo {
	list := []LabelInfo{}
	for _, lb := range s.vocabulary.all() {
		list = append(list, LabelInfo{Name: lb.pattern, Vocabulary: true, Param: infoOf(lb.param), Means: lb.layer.means(), Examples: lb.examples()})
	}
	var mentioned []string
	for name := range s.mentions {
		if lb, _ := s.vocabulary.find(name); lb == nil {
			mentioned = append(mentioned, name)
		}
	}
	slices.Sort(mentioned)
	for _, name := range mentioned {
		list = append(list, LabelInfo{Name: name, Means: []Meaning{}, Examples: []string{name}})
	}
	for i := range list {
		list[i].Rules = []LabelRule{}
	}
	const maxTries = 20_000
	p := newProver(context.Background(), s, cond.DescribeSteps)
	tries := 0
	for i := range s.rules {
		if s.rules[i].deny != "" || tries+len(list) > maxTries || p.over() {
			continue
		}
		f := p.find(i)
		if f == nil {
			continue
		}
		for n := range list {
			tries++
			if runsOn, ok := p.takes(i, *f, &list[n]); ok {
				list[n].Rules = append(list[n].Rules, LabelRule{s.rules[i].name, runsOn})
			}
		}
	}
	return list
}

// takes reports whether rule i places a job that is like f and has the label.
func (p *prover) takes(i int, f Facts, lb *LabelInfo) (runsOn []string, ok bool) {
	for _, example := range lb.Examples {
		job := f
		if !slices.Contains(f.Labels, example) {
			job.Labels = append(slices.Clone(f.Labels), example)
		}
		if d := p.decide(job); d.Outcome == Routed && d.Rule == p.rules[i].name {
			return job.Labels, true
		}
	}
	return nil, false
}

func infoOf(p *cond.Param) *ParamInfo {
	if p == nil {
		return nil
	}
	in := &ParamInfo{Name: p.Name, Type: p.Kind, OneOf: append([]string{}, p.OneOf...), Pattern: p.PatternAs}
	switch p.Kind {
	case "int":
		in.Least, in.Most = strconv.Itoa(p.Min), strconv.Itoa(p.Max)
	case "size":
		in.Least, in.Most = cond.FormatMiB(p.Min), cond.FormatMiB(p.Max)
	}
	return in
}

// examples returns labels with this entry's meaning, as people would write them.
func (lb *label) examples() []string {
	prefix, open := lb.prefix()
	if !open {
		return []string{lb.pattern}
	}
	var values []string
	switch p := lb.param; {
	case p == nil:
		values = []string{"1"}
	case p.Kind == "int":
		values = []string{strconv.Itoa(p.Min), strconv.Itoa(p.Max)}
	case p.Kind == "size":
		values = []string{cond.FormatMiB(p.Min), cond.FormatMiB(p.Max)}
	case p.Pattern == nil:
		values = p.OneOf
	default:
		for _, v := range []string{"1", "a", "1.0", "main", "a-1", "1.0.0"} {
			if p.Pattern.MatchString(v) {
				values = []string{v}
				break
			}
		}
	}
	list := []string{}
	for _, v := range slices.Compact(slices.Clone(values)) {
		list = append(list, prefix+v)
	}
	return list
}

// means returns what a layer adds, in the words of `switchyard explain`.
func (l *layer) means() []Meaning {
	list := []Meaning{}
	add := func(what, value string) {
		if value = strings.TrimSpace(value); value != "" {
			list = append(list, Meaning{what, words.OneLine(value)})
		}
	}
	each(placementFields, func(f *field) {
		if s := l.get(f); s != nil {
			add(f.word, s.value.text(f.show))
		} else if f.list != nil && !f.target {
			f.list.means(l, add)
		}
	})
	add("urgency", l.urgency.text(strconv.Itoa))
	return list
}

// text writes a constraint as it stands in the file.
func (c *constraintSpec) text() string {
	return strings.TrimSpace(c.attribute + " " + c.operator + " " + c.value.text(nil))
}

// text writes a value for people: "" when it is not set, the template when it is one. show may be
// nil for texts.
func (v *value[T]) text(show func(T) string) string {
	switch {
	case !v.set:
		return ""
	case v.template != nil:
		return v.template.Source
	case show != nil:
		return show(v.literal)
	}
	return fmt.Sprint(v.literal)
}

// maxExamples bounds how many placements are asked about.
const maxExamples = 2000

// An Example is a placement that a rule can choose, with the labels of a job that gets it.
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
		f := p.find(i)
		if d, ok := p.placed(i, f); ok {
			list = append(list, Example{d.Rule, "", f.Labels, d.Placement})
		}
	}
	return list
}

// Examples returns placements that the rules can choose: of each rule the one of the plainest job
// that was found to reach it, and its fallbacks; then for that job with each label of the
// vocabulary added, with the least and the most of a number. A rule for which no job is found is
// left out, and so are labels when there would be more than 2,000 examples.
func (s *Set) Examples() []Example {
	p := newProver(context.Background(), s, cond.DescribeSteps)
	var list []Example
	plain := map[int]*Facts{}
	for i := range s.rules {
		if s.rules[i].deny != "" || len(list) >= maxExamples {
			continue
		}
		f := p.find(i)
		d, ok := p.placed(i, f)
		if !ok {
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
