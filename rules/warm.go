package rules

import (
	"context"
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A Warm is how many runners of a placement are kept that wait for a job.
type Warm struct {
	Rule      string
	Labels    []string  // of a job that gets such a runner
	Placement Placement // of that job
	Idle      int       // how many wait; 0: none, at this time
	Max       int       // no more are started while the rule has so many runners, these included; 0: no bound
	Why       string    // why there are none; "": there may be
}

// A WarmPlan is the warm runners that the rules ask for, at any time. It is immutable and safe for
// concurrent use.
type WarmPlan struct{ all []plannedWarm }

type plannedWarm struct {
	Warm
	when schedule
}

// At returns what is kept at a time, an element for each entry, in their order.
func (p *WarmPlan) At(t time.Time) []Warm {
	list := make([]Warm, len(p.all))
	for i := range p.all {
		list[i] = p.all[i].Warm
		if !p.all[i].when.holds(t) {
			list[i].Idle = 0
		}
	}
	return list
}

// HasWarm reports whether a rule asks for warm runners.
func (s *Set) HasWarm(rule string) bool {
	for i := range s.rules {
		if s.rules[i].name == rule {
			return len(s.rules[i].warm) > 0
		}
	}
	return false
}

// WarmPlan returns the warm runners that the rules ask for. It takes as long as finding a job for
// each of these rules: keep the answer.
func (s *Set) WarmPlan() *WarmPlan {
	plan := &WarmPlan{}
	p := newProver(context.Background(), s, cond.DescribeSteps)
	for i := range s.rules {
		ru := &s.rules[i]
		if len(ru.warm) == 0 {
			continue
		}
		plain := p.find(i)
		for n := range ru.warm {
			spec := &ru.warm[n]
			w := plannedWarm{Warm: Warm{Rule: ru.name, Labels: spec.labels, Idle: spec.idle, Max: spec.most}, when: spec.when}
			d, why := p.warm(i, plain, spec)
			if w.Why = why; why == "" {
				w.Placement = d.Placement
				w.Labels = d.Labels
			}
			plan.all = append(plan.all, w)
		}
	}
	return plan
}

// warm decides the job that the runners of an entry of rule i are for; plain is one that the rule
// takes, nil: none was found. why says why there is none.
func (p *prover) warm(i int, plain *Facts, spec *warmSpec) (d Decision, why string) {
	if plain == nil {
		return d, "no job was found that this rule takes, so nobody knows what its warm runners are to be"
	}
	f := *plain
	if spec.labels != nil {
		f.Labels = spec.labels
	}
	d = p.decide(f)
	name := p.rules[i].name
	switch {
	case d.Outcome != Routed || d.Rule != name:
		if spec.labels == nil {
			return d, "the plainest job that this rule takes has no placement: " + d.Reason
		}
		return d, fmt.Sprintf("rule %s does not take a job with the labels %s: %s", name, words.QuoteAll(f.Labels), d.Reason)
	case d.Runner.Registration != "jit":
		return d, fmt.Sprintf("the runners of this rule have registration: %s, and a runner waits for a job only with jit", d.Runner.Registration)
	}
	return d, ""
}

// A warmSpec is an entry of a rule's warm.
type warmSpec struct {
	at     cond.Spot
	idle   int
	most   int // 0: no bound
	when   schedule
	labels []string // nil: those of the plainest job that the rule takes
}

const (
	maxWarm        = 1000 // runners of an entry
	maxWarmEntries = 20   // of a rule
)

// warm reads the warm runners of a rule: one entry, or a list of them.
func (r *ruleReader) warm(n ast.Node) []warmSpec {
	items := []ast.Node{n}
	if list, ok := n.(*ast.SequenceNode); ok {
		items = list.Values
		if len(items) == 0 || len(items) > maxWarmEntries {
			r.Fault(n, "warm must list 1 to %d entries", maxWarmEntries)
			return nil
		}
	}
	var all []warmSpec
	for _, item := range items {
		f := r.Fields(item, "warm", "idle", "max", "when", "labels")
		if f == nil {
			continue
		}
		w := warmSpec{at: r.at(item)}
		if v, ok := f["idle"]; !ok {
			r.Fault(item, `warm needs idle, how many runners wait for a job, as in { idle: 2, max: 6, when: "Mon-Fri 07:00-19:00 Asia/Tokyo" }`)
		} else {
			w.idle, _ = r.whole(v, "warm idle", 1, maxWarm)
		}
		if v, ok := f["max"]; ok {
			if most, ok := r.whole(v, "warm max", 1, maxWarm); ok && most < w.idle {
				r.Fault(v, "warm max %d is less than idle %d", most, w.idle)
			} else {
				w.most = most
			}
		}
		if v, ok := f["when"]; ok {
			w.when = literal(&r.valueReader, v, "warm when", asSchedule).literal
		}
		if v, ok := f["labels"]; ok {
			w.labels = r.warmLabels(v)
		}
		all = append(all, w)
	}
	return all
}

func (r *ruleReader) warmLabels(n ast.Node) []string {
	items := r.Items(n, "warm labels")
	if items != nil && len(items) == 0 || len(items) > MaxLabels {
		r.Fault(n, "warm labels must list 1 to %d labels", MaxLabels)
		return nil
	}
	var labels []string
	for _, item := range items {
		if s, ok := r.Text(item, "warm labels"); ok {
			labels = append(labels, s)
		}
	}
	return labels
}
