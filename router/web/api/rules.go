package api

import (
	"context"
	"net/http"
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
}

// RulesInfo describes the labels and rules in force, with the simplest job of each
// rule. What it returns must not be changed.
func (a *API) RulesInfo() ([]rules.LabelInfo, []rules.RuleInfo, []router.Example) {
	set, d := a.config.App.Rules(), &a.rules
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of != set {
		d.of, d.labels, d.rules, d.examples = set, set.Vocabulary(), set.RuleList(), set.Plainest()
	}
	return d.labels, d.rules, d.examples
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
