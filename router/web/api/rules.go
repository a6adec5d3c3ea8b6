package api

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"switchyard/router"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

// A LabelList is the labels that the rules in force know.
type LabelList struct {
	Labels []rules.LabelInfo `json:"labels"`
}

// A RuleList is the rules in force, in their order.
type RuleList struct {
	Rules []rules.RuleInfo `json:"rules"`
}

// rulesInfo keeps the descriptions of the rules in force, which take some
// decisions to make. The zero value is ready.
type rulesInfo struct {
	mu       sync.Mutex
	of       *rules.Set
	labels   []rules.LabelInfo
	rules    []rules.RuleInfo
	examples []router.Example
	warm     *rules.WarmPlan
}

// RulesInfo describes the labels and rules in force, with the simplest job of each
// rule. What it returns must not be changed.
func (a *API) RulesInfo() ([]rules.LabelInfo, []rules.RuleInfo, []router.Example) {
	d := a.ofRules()
	defer d.mu.Unlock()
	return d.labels, d.rules, d.examples
}

// warmPlan returns the warm runners that the rules in force ask for.
func (a *API) warmPlan() *rules.WarmPlan {
	d := a.ofRules()
	defer d.mu.Unlock()
	return d.warm
}

// ofRules returns the descriptions of the rules in force, locked.
func (a *API) ofRules() *rulesInfo {
	set, d := a.config.App.Rules(), &a.rules
	d.mu.Lock()
	if d.of != set {
		d.of, d.labels, d.rules, d.examples, d.warm = set, set.Vocabulary(), set.RuleList(), set.Plainest(), set.WarmPlan()
	}
	return d
}

// A WarmCount is how many warm runners of a rule no job has taken, and how many it asks for now.
type WarmCount struct {
	Rule                    string
	Ready, Starting, Wanted int
}

// Warm counts the warm runners of each rule that keeps some, in the order of the rules.
func (a *API) Warm(ctx context.Context) (all []WarmCount, list []router.WarmRunner, err error) {
	if list, err = a.Database.WarmRunners(ctx); err != nil {
		return nil, nil, err
	}
	of := func(rule string) *WarmCount {
		i := slices.IndexFunc(all, func(c WarmCount) bool { return c.Rule == rule })
		if i < 0 {
			i, all = len(all), append(all, WarmCount{Rule: rule})
		}
		return &all[i]
	}
	counted := map[string]int{} // by what is counted once, as package warm does
	for _, w := range a.warmPlan().At(a.config.Now()) {
		if w.Why != "" {
			continue
		}
		fit := w.Rule + "\n" + router.WarmFit(w.Placement, "")
		of(w.Rule).Wanted += max(0, w.Idle-counted[fit])
		counted[fit] = max(counted[fit], w.Idle)
	}
	for _, w := range list {
		switch c := of(w.Rule); w.State {
		case router.WarmReady:
			c.Ready++
		case router.WarmStarting:
			c.Starting++
		}
	}
	return all, list, nil
}

// Fleet returns Nomad's nodes and which rules they could serve.
func (a *API) Fleet(ctx context.Context) (router.Fleet, error) {
	if a.config.Cluster == nil {
		return router.Fleet{}, problem.New(http.StatusNotFound, "this server has no Nomad cluster")
	}
	ctx, cancel := context.WithTimeout(ctx, ReadTimeout)
	defer cancel()
	_, _, examples := a.RulesInfo()
	return a.config.Cluster.Fleet(ctx, examples), nil
}
