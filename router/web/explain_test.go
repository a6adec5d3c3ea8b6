package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

func sends(text string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Content-Type", "application/json")
		r.Body = io.NopCloser(strings.NewReader(text))
	}
}

// cluster renders a job as its rule.
type cluster struct{ fail error }

func (c cluster) Render(_ context.Context, j router.Job, d router.Decision) (json.RawMessage, error) {
	return json.RawMessage(`{"Job":"` + d.Rule + `"}`), c.fail
}

func (c cluster) Fleet(_ context.Context, examples []router.Example) router.Fleet {
	f := router.Fleet{
		At: &t0, Nodes: []router.Node{{ID: "a", Name: "a-1", State: "ready", Drivers: []string{"docker"}, Devices: []router.NodeDevice{{Name: "nvidia/gpu/L4", Total: 1}}}},
		Groups: []router.NodeGroup{{OS: "linux", Arch: "amd64", Pool: "default", Nodes: 1, Ready: 1}},
	}
	if c.fail != nil {
		f = router.Fleet{Problem: &router.FleetProblem{Since: t0, Reason: c.fail.Error()}, Nodes: []router.Node{}, Groups: []router.NodeGroup{}, Rules: []router.RuleFleet{}}
	}
	for _, e := range examples {
		f.Rules = append(f.Rules, router.RuleFleet{Rule: e.Rule, RunsOn: e.Labels, NodeCounts: router.NodeCounts{Now: 1}, Cells: []router.FleetCell{{NodeCounts: router.NodeCounts{Now: 1}, Why: []router.FleetReason{}}}})
	}
	return f
}

func TestTheFleetIsShown(t *testing.T) {
	nomad := cluster{}
	s := serve(t, func(c *web.Config) { c.Cluster = &nomad })
	f := decode[router.Fleet](t, s.call("GET", "/fleet", http.StatusOK))
	if len(f.Nodes) != 1 || len(f.Rules) != 1 || f.Rules[0].Rule != "linux" || f.Rules[0].Now != 1 {
		t.Errorf("fleet: %+v", f)
	}
	nomad.fail = errors.New("Nomad is away")
	if f := decode[router.Fleet](t, s.call("GET", "/fleet", http.StatusOK)); f.At != nil || f.Problem.Reason != "Nomad is away" {
		t.Errorf("without Nomad: %+v", f)
	}
	serve(t).call("GET", "/fleet", http.StatusNotFound)
}

func TestARuleIsExplainedForAJobThatMayNeverBe(t *testing.T) {
	away := cluster{}
	s := serve(t, func(c *web.Config) { c.Cluster = &away })
	ask := func(body string) api.Answer {
		t.Helper()
		return decode[api.Answer](t, s.call("POST", "/explain", http.StatusOK, sends(body)))
	}
	const linux = `"repo":"acme/web","labels":["self-hosted","Linux"],"run":{"event":"push"}`
	got := ask(`{` + linux + `}`)
	if d := got.Decision; d.Rule != "linux" || len(d.Trace) != 2 || d.Trace[0].Why == "" || string(got.NomadJob) != "null" || got.NotRendered != "" {
		t.Errorf("got %+v", got)
	}
	if got := ask(`{` + linux + `,"all":true,"render":true}`); len(got.Decision.Trace) != 3 || string(got.NomadJob) != `{"Job":"linux"}` {
		t.Errorf("with every rule and rendered: %+v", got)
	}
	away.fail = errors.New("Nomad is away")
	if got := ask(`{` + linux + `,"render":true}`); got.Decision.Rule != "linux" || string(got.NomadJob) != "null" || got.NotRendered != "Nomad is away" {
		t.Errorf("with Nomad away: %+v", got)
	}
	if got := ask(`{"repo":"acme/web","labels":["self-hosted","linux"],"render":true}`); got.Decision.Outcome != rules.Undecided || got.NotRendered == "" {
		t.Errorf("with a run that is not known: %+v", got)
	}
	if got := ask(`{"repo":"acme/web","labels":["ubuntu-latest"]}`); got.Decision.Outcome != rules.Ignored || got.Decision.Trace == nil {
		t.Errorf("out of scope: %+v, want an empty trace", got)
	}
	if got := ask(`{"repo":"acme/web","labels":["self-hosted","linux"],"run":{"event":"pull_request","fork":true}}`); got.Decision.Rule != "forks" {
		t.Errorf("of a fork: %+v", got)
	}
	if got := ask(`{"job_id":1}`); got.Decision.Labels[0] != "linux" {
		t.Errorf("job 1: %+v", got)
	}
	for body, status := range map[string]int{
		"":                                  400,
		`{"repo":"acme","labels":["a"]}`:    400,
		`{"repo":"acme/web"}`:               400,
		`{"repo":"acme/web","labels":[]} x`: 400,
		`{"repo":"acme/web","labels":[],"visibility":"secret"}`:                400,
		`{"repo":"acme/web","labels":[],"host":"Evil Host"}`:                   400,
		`{"job_id":1,"repo":"acme/web"}`:                                       400,
		`{"job_id":99}`:                                                        404,
		`{"repo":"acme/web","labels":["` + strings.Repeat("x", 70<<10) + `"]}`: 413,
	} {
		if p := decode[problem.Details](t, s.call("POST", "/explain", status, sends(body))); p.Detail == "" {
			t.Errorf("%.60s is answered without a sentence", body)
		}
	}
}

func TestRulesAndLabelsAreListed(t *testing.T) {
	s := serve(t)
	list := decode[api.RuleList](t, s.call("GET", "/rules/list", http.StatusOK))
	if len(list.Rules) != 3 || list.Rules[1].Jobspec != "docker-linux" || list.Rules[0].Deny == "" {
		t.Errorf("rules: %+v", list)
	}
	labels := decode[api.LabelList](t, s.call("GET", "/labels", http.StatusOK))
	if len(labels.Labels) != 3 || labels.Labels[1].Means[0].Value != "1 × nvidia/gpu" || labels.Labels[1].Rules[0].Rule != "linux" {
		t.Errorf("labels: %+v", labels)
	}
	s.call("GET", "/labels?x=1", http.StatusBadRequest)
}
