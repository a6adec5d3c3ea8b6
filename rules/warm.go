package rules

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"strings"
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

// Says says for people whether a job with a decision of the same rules may take a warm runner at a
// time, and if not, why; "": its rule keeps none.
func (p *WarmPlan) Says(d *Decision, at time.Time) string {
	if d.Outcome != Routed {
		return ""
	}
	idle, unlike, none := -1, []string(nil), ""
	for _, w := range p.At(at) {
		switch {
		case w.Rule != d.Rule:
		case w.Why != "":
			none = cmp.Or(none, w.Why)
		case reflect.DeepEqual(w.Placement.ForWarm(), d.Placement.ForWarm()):
			idle = max(idle, w.Idle)
		default:
			if differs := w.Placement.ForWarm().Changes(d.Placement.ForWarm()); unlike == nil || len(differs) < len(unlike) {
				unlike = differs
			}
		}
	}
	own := neverWarm(d.Placement)
	switch {
	case idle < 0 && unlike == nil && none == "":
		return ""
	case idle > 0:
		return fmt.Sprintf("rule %s keeps %d warm at this time, and this job may take one that is there", d.Rule, idle)
	case idle == 0:
		return fmt.Sprintf("rule %s keeps warm runners that this job could take, but none at this time", d.Rule)
	case own != "":
		return fmt.Sprintf("rule %s keeps warm runners, and this job takes none: %s", d.Rule, own)
	case unlike == nil:
		return fmt.Sprintf("rule %s is to keep warm runners, and there are none: %s", d.Rule, none)
	case len(unlike) == 1 && unlike[0] == "the same":
		return fmt.Sprintf("rule %s keeps warm runners, and this job takes none: the same is asked for by other labels", d.Rule)
	}
	more := ""
	if n := len(unlike) - maxUnlike; n > 0 {
		unlike, more = unlike[:maxUnlike], fmt.Sprintf(", and %d more", n)
	}
	return fmt.Sprintf("rule %s keeps warm runners, and this job takes none, as it differs from them: %s%s", d.Rule, strings.Join(unlike, ", "), more)
}

// maxUnlike is how many differences are named.
const maxUnlike = 5

// ForWarm returns a placement without what may differ between a warm runner and the job that takes
// it: what is said only when the runner is registered on GitHub, and where its single values come from.
func (p Placement) ForWarm() Placement {
	p.From = nil
	p.Runner = Runner{Registration: p.Runner.Registration, Verify: p.Runner.Verify}
	return p
}

// neverWarm says why a runner of a placement cannot wait for a job; "": it can.
func neverWarm(p Placement) string {
	switch {
	case p.Runner.Registration != "jit":
		return fmt.Sprintf("its runner has registration: %s, and a runner waits for a job only with jit", p.Runner.Registration)
	case p.Runner.Verify:
		return "its runner has verify, and asks about one job from its start"
	case p.Debug.Keep != "":
		return "its runner has debug.keep, and so stays for one job"
	}
	return ""
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
	}
	return d, neverWarm(d.Placement)
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
