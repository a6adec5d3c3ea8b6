package router_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/hcl/v2/hclsimple"

	"switchyard/router"
)

const watching = "observability"

// metricNames are the families that a router shows, with the labels of each.
func metricNames(t *testing.T) map[string]map[string]bool {
	t.Helper()
	w := newWorld(t, `
rules:
  - { name: linux, if: has("linux"), jobspec: docker-linux }
  - { name: nowhere, jobspec: docker-linux, constraints: ['${meta.zone} = nowhere'] }
`)
	w.start()
	w.await(w.queue("self-hosted", "linux"), in(router.Completed))
	w.queue("self-hosted") // only now, or the runner would take it
	text := shows(t, w.app, `switchyard_jobs_waiting{reason="no_node_fits",rule="nowhere"} 1`, `switchyard_job_start_seconds_count{rule="linux"} 1`)
	names := map[string]map[string]bool{}
	for s := range series(text) {
		name, labels, _ := strings.Cut(s, "{")
		if names[name] == nil {
			names[name] = map[string]bool{}
		}
		for _, m := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(labels, -1) {
			names[name][m[1]] = true
		}
	}
	return names
}

var (
	metricName = regexp.MustCompile(`\b(?:switchyard|go|process)_\w+(?:\{[^}]*\})?`)
	matcher    = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// checkQuery reports metrics and labels in a query that a router does not show.
func checkQuery(t *testing.T, where, query string, names map[string]map[string]bool) {
	t.Helper()
	all := map[string]bool{"le": true}
	for _, use := range metricName.FindAllString(query, -1) {
		name, labels, _ := strings.Cut(use, "{")
		has, ok := names[name]
		if !ok {
			t.Errorf("%s: there is no metric %s", where, name)
			continue
		}
		maps.Copy(all, has)
		for _, m := range matcher.FindAllStringSubmatch(labels, -1) {
			if !has[m[1]] && m[1] != "job" && m[1] != "instance" {
				t.Errorf("%s: %s has no label %s", where, name, m[1])
			}
		}
	}
	for _, m := range grouping.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			if label = strings.TrimSpace(label); !all[label] {
				t.Errorf("%s: nothing in %s has the label %s", where, query, label)
			}
		}
	}
}

// The alerts, the dashboard and the autoscaler's policy ask for nothing that is
// not shown, and the README lists all of it.
func TestWhatWatchesTakesMetricsThatThereAre(t *testing.T) {
	names := metricNames(t)
	var alerts struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(read(t, "switchyard.rules.yml"), &alerts); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range alerts.Groups {
		for _, r := range g.Rules {
			checkQuery(t, "alert "+r.Alert, r.Expr, names)
			n++
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, "dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	for i, p := range dashboard.Panels {
		for _, target := range p.Targets {
			checkQuery(t, "panel "+p.Title, strings.ReplaceAll(target.Expr, `rule=~"$rule"`, `rule=~".*"`), names)
			n++
		}
		a := p.GridPos
		for _, other := range dashboard.Panels[:i] {
			b := other.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("the panels %s and %s overlap", p.Title, other.Title)
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d queries were found", n)
	}
	readme := string(read(t, "README.md"))
	for name := range names {
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "switchyard_") && !strings.Contains(readme, "`"+name+"`") {
			t.Errorf("the README does not list %s", name)
		}
	}
	for _, m := range regexp.MustCompile("`(switchyard_\\w+)`").FindAllStringSubmatch(readme, -1) {
		if names[m[1]] == nil && names[m[1]+"_bucket"] == nil {
			t.Errorf("the README lists %s, which there is not", m[1])
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(watching, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPromtoolTakesTheAlerts(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here")
	}
	for _, args := range [][]string{{"check", "rules", "switchyard.rules.yml"}, {"test", "rules", "switchyard.rules.test.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = watching
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// The documented policy is one that Nomad Autoscaler reads. The form is that
// of its sdk/policy.go and policy/file/parse.go, at the commit that the README names.
func TestTheAutoscalersPolicyHasItsForm(t *testing.T) {
	type plugin struct {
		Name   string            `hcl:"name,label"`
		Config map[string]string `hcl:",remain"`
	}
	var file struct {
		Policies []struct {
			Name    string `hcl:"name,label"`
			Enabled bool   `hcl:"enabled,optional"`
			Type    string `hcl:"type,optional"`
			Min     int64  `hcl:"min,optional"`
			Max     int64  `hcl:"max"`
			Doc     *struct {
				Cooldown           string `hcl:"cooldown,optional"`
				CooldownOnScaleUp  string `hcl:"cooldown_on_scale_up,optional"`
				EvaluationInterval string `hcl:"evaluation_interval,optional"`
				OnCheckError       string `hcl:"on_check_error,optional"`
				Checks             []struct {
					Name              string  `hcl:"name,label"`
					Group             string  `hcl:"group,optional"`
					Source            string  `hcl:"source,optional"`
					Query             string  `hcl:"query,optional"`
					QueryWindow       string  `hcl:"query_window,optional"`
					QueryWindowOffset string  `hcl:"query_window_offset,optional"`
					OnError           string  `hcl:"on_error,optional"`
					Strategy          *plugin `hcl:"strategy,block"`
				} `hcl:"check,block"`
				Target *plugin `hcl:"target,block"`
			} `hcl:"policy,block"`
		} `hcl:"scaling,block"`
	}
	_, block, ok := strings.Cut(string(read(t, "README.md")), "```hcl\n")
	block, _, closed := strings.Cut(block, "```\n")
	if !ok || !closed {
		t.Fatal("the README has no policy")
	}
	if err := hclsimple.Decode("policy.hcl", []byte(block), nil, &file); err != nil {
		t.Fatal(err)
	}
	p := file.Policies[0]
	if p.Type != "cluster" || !p.Enabled || p.Max <= p.Min {
		t.Errorf("the policy is %+v", p)
	}
	check := p.Doc.Checks[0]
	for _, d := range []string{p.Doc.Cooldown, p.Doc.EvaluationInterval, check.QueryWindow} {
		if _, err := time.ParseDuration(d); err != nil {
			t.Error(err)
		}
	}
	if check.Source != "prometheus" || check.Strategy.Name != "pass-through" {
		t.Errorf("the check takes %s by %s", check.Source, check.Strategy.Name)
	}
	known := []string{"max_scale_up", "max_scale_down"}
	for key := range check.Strategy.Config {
		if !slices.Contains(known, key) {
			t.Errorf("pass-through has no key %s", key)
		}
	}
	known = []string{"aws_asg_name", "node_pool", "node_selector_strategy", "node_purge"}
	for key := range p.Doc.Target.Config {
		if !slices.Contains(known, key) {
			t.Errorf("aws-asg has no key %s", key)
		}
	}
	checkQuery(t, "the policy", check.Query, metricNames(t))
}

// What the policy asks for is one number, and the one that is meant.
func TestTheAutoscalersQueryIsOneNumber(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here")
	}
	_, query, _ := strings.Cut(string(read(t, "README.md")), "<<-EOT\n")
	query, _, _ = strings.Cut(query, "EOT\n")
	test := map[string]any{
		"evaluation_interval": "15s",
		"tests": []any{
			map[string]any{
				"interval": "15s",
				"input_series": []any{
					map[string]any{"series": `switchyard_jobs_running{rule="linux"}`, "values": "5"},
					map[string]any{"series": `switchyard_jobs_waiting{rule="linux",reason="no_node_free"}`, "values": "3"},
					map[string]any{"series": `switchyard_jobs_waiting{rule="linux",reason="starting"}`, "values": "1"},
					map[string]any{"series": `switchyard_jobs_waiting{rule="linux",reason="limit"}`, "values": "100"},
					map[string]any{"series": `switchyard_jobs_waiting{rule="macos",reason="no_node_free"}`, "values": "100"},
				},
				"promql_expr_test": []any{map[string]any{"expr": query, "eval_time": "0s", "exp_samples": []any{map[string]any{"labels": "{}", "value": 3}}}},
			},
			map[string]any{
				"interval":         "15s",
				"input_series":     []any{map[string]any{"series": `switchyard_jobs_waiting{rule="linux",reason="no_node_free"}`, "values": "0"}},
				"promql_expr_test": []any{map[string]any{"expr": query, "eval_time": "0s", "exp_samples": []any{map[string]any{"labels": "{}", "value": 0}}}},
			},
		},
	}
	b, err := yaml.Marshal(test)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "policy.test.yml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}
