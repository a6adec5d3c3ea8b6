package rules

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A rule is a condition and what follows when it holds.
type rule struct {
	at       cond.Spot
	name     string
	when     cond.Condition
	deny     string // "" when the rule places
	jobspec  string
	dispatch string
	meta     []envSpec // of the dispatch
	layer    layer
	limit    *limitSpec
	rerun    *Rerun
	fallback []fallback
	overflow *overflowSpec // nil: none
	warm     []warmSpec

	timeLimit time.Duration // 0: that of the defaults
	jobspecAt cond.Spot
	rerunAt   cond.Spot
	urgencyAt cond.Spot
}

// place merges what the defaults, the rule, one of its fallbacks (nil: none) and the labels ask
// for. When its runner could not be registered, what it asks for comes with the error.
func (ru *rule) place(defaults *layer, instead *fallback, meanings []meaning, env *cond.Env) (Placement, error) {
	m := merger{env: env, p: nowhere()}
	m.p.From = map[string]string{}
	ruleFrom := "rule " + ru.name
	own := ru.layer
	if ru.dispatch != "" {
		m.p.Dispatch, m.p.From["dispatch"] = ru.dispatch, ruleFrom
		if err := m.dispatchMeta(ru.meta, ruleFrom); err != nil {
			return Placement{}, err
		}
	} else {
		m.p.Jobspec, m.p.From["jobspec"] = ru.jobspec, ruleFrom
	}
	if instead != nil {
		own = own.without(&instead.layer)
		if instead.jobspec != "" {
			m.p.Jobspec, m.p.From["jobspec"] = instead.jobspec, instead.from
		}
	}
	if err := m.add(defaults, "defaults"); err != nil {
		return Placement{}, err
	}
	if err := m.add(&own, ruleFrom); err != nil {
		return Placement{}, err
	}
	if instead != nil {
		if err := m.add(&instead.layer, instead.from); err != nil {
			return Placement{}, err
		}
	}
	for _, l := range meanings {
		if err := m.add(&l.layer, labelOrigin+l.as); err != nil {
			return Placement{}, err
		}
	}
	if err := env.Spend(len(m.p.Constraints) * len(m.p.Constraints) / 8); err != nil { // they are compared with each other
		return Placement{}, err
	}
	if err := m.finish(func(size *field) limit { return ru.most(defaults, size) }); err != nil {
		return Placement{}, err
	}
	return m.p, registrable(env.Asked, &m.p)
}

// most returns the maximum of a size for jobs of the rule: its own, or else that of the defaults.
func (ru *rule) most(defaults *layer, size *field) limit {
	if own := ru.layer.limit(size); own.most != 0 {
		return own
	}
	return defaults.limit(size)
}

// fallbacks returns the placements to try when the rule's own is not placed.
func (ru *rule) fallbacks(defaults *layer, meanings []meaning, env *cond.Env) []Fallback {
	var list []Fallback
	for i := range ru.fallback {
		f := &ru.fallback[i]
		p, err := ru.place(defaults, f, meanings, env)
		out := Fallback{After: Duration(f.after), Placement: p}
		if err != nil {
			out.Placement, out.Reason = nowhere(), err.Error()
		}
		list = append(list, out)
	}
	return list
}

// notApplied returns the labels whose placement a dispatched job does not get.
func notApplied(meanings []meaning) []string {
	var lost []string
	for _, l := range meanings {
		if !l.layer.empty() {
			lost = append(lost, l.as)
		}
	}
	return lost
}

// A limitSpec is a rule's limit of jobs that run at once; nil is none.
type limitSpec struct {
	running int
	per     string
	order   string // "": fair
}

// of returns the limit of one job of a rule.
func (l *limitSpec) of(rule string, meanings []meaning, env *cond.Env) *Limit {
	if l == nil {
		return nil
	}
	key := rule // has no "|" in it
	host := ""  // as owners elsewhere may have the same name
	if env.Repo.Host != DefaultHost {
		host = env.Repo.Host + "/"
	}
	switch l.per {
	case "owner":
		key += "|" + host + env.Repo.Owner
	case "repo":
		key += "|" + host + env.Repo.FullName
	case "label":
		// The labels that mean something, in the vocabulary's order. Those of a
		// pattern without a param are unique to a job: they count as the pattern.
		var names []string
		for _, m := range meanings {
			name := m.as
			if _, open := m.prefix(); open && m.param == nil {
				name = m.pattern
			}
			names = append(names, name)
		}
		key += "|" + strings.Join(names, ",")
	}
	return &Limit{Running: l.running, Per: l.per, Key: key, Order: l.order}
}

// rerunWhen are the reasons why a job can be run again.
var rerunWhen = []string{"node_lost", "preempted", "drained"}

// String returns when a job is run again, and how often.
func (r *Rerun) String() string {
	times := "once"
	if r.Times > 1 {
		times = fmt.Sprintf("up to %d times", r.Times)
	}
	return times + ", if " + strings.Join(r.When, " or ")
}

// urgency returns how urgent a job is, and who says so: of the rule and the labels the one that
// says the most. from is "" when none of them says anything.
func (ru *rule) urgency(meanings []meaning, env *cond.Env) (most int, from string, err error) {
	ask := func(l *layer, by string) {
		if !l.urgency.set || err != nil {
			return
		}
		n, e := l.urgency.get(env)
		switch {
		case e != nil:
			err = fmt.Errorf("%s: urgency: %w", by, e)
		case from == "" || n > most:
			most, from = n, by
		}
	}
	ask(&ru.layer, "rule "+ru.name)
	for _, m := range meanings {
		ask(&m.layer, labelOrigin+m.as)
	}
	return most, from, err
}

// limitOrders are the ways to choose the next job; the first when none is named.
var limitOrders = []string{"fair", Priority}

// limitPer are the ways to count.
var limitPer = []string{"rule", "owner", "repo", "label"}

// A fallback replaces a rule's own settings while Nomad cannot place the runner.
type fallback struct {
	at      cond.Spot
	from    string // "rule linux, fallback 1"
	after   time.Duration
	jobspec string // "": the rule's
	layer   layer

	jobspecAt cond.Spot
}

// MaxTokenLabels is the most bytes of labels, with a comma between two, of a runner that registers
// itself: it gets them in its environment.
const MaxTokenLabels = 8 << 10

// registrable returns why GitHub would not register a runner for a job with these labels, as they
// came, or would give it no such job; nil when it may. A dispatched job brings its own
// registration.
func registrable(labels []string, p *Placement) error {
	r := p.Runner
	switch {
	case p.Dispatch != "":
		return nil
	case r.Scope == "repository" && r.Group != DefaultGroup:
		return fmt.Errorf("runner group %s (%s) is one of an organization, and runners of a repository (runner.scope: %s) are in none: add scope: organization, or leave the group out", r.Group, p.From["runner.group"], p.From["runner.scope"])
	case r.Scope == "repository" && len(labels) == 0:
		return errors.New("a job without labels asks for a runner group alone, and runners of a repository are in none: give its rule runner: { scope: organization, group: NAME }")
	case r.Registration == "token":
		return tokenLabels(labels)
	}
	return nil
}

// tokenLabels refuses labels that cannot be passed by config.sh --labels, which splits at commas,
// nor by job meta, in which Nomad interpolates ${…}.
func tokenLabels(labels []string) error {
	all := 0
	for _, l := range labels {
		if strings.Contains(l, ",") || strings.Contains(l, "${") || strings.TrimSpace(l) != l {
			return fmt.Errorf("label %s cannot be given to a runner that registers itself (registration: token), as config.sh splits labels at commas and Nomad interpolates ${…}: use registration: jit for it", words.Quote(l))
		}
		all += len(l) + 1
	}
	if all > MaxTokenLabels {
		return fmt.Errorf("the labels have %d bytes together, and a runner that registers itself (registration: token) can be given %d: use registration: jit", all, MaxTokenLabels)
	}
	return nil
}
