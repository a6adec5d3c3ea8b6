package server_test

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
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsimple"

	"switchyard/router"
	"switchyard/router/intake"
	"switchyard/router/server"
	"switchyard/router/webhook"
	"switchyard/rules"
)

const watching = "../observability"

// metricNames are the families that a router shows, with the labels of each.
func metricNames(t *testing.T) map[string]map[string]bool {
	t.Helper()
	names := map[string]map[string]bool{}
	virtual(t, "metrics", func(t *testing.T) { addMetricNames(t, names) })
	return names
}

func addMetricNames(t *testing.T, names map[string]map[string]bool) {
	w := newWorld(t, `
rules:
  - { name: linux, if: has("linux"), jobspec: docker-linux, overflow: { after: 10m, variable: RUNNER, to: '"hosted"', back: '"linux"' }, warm: { idle: 1 } }
  - { name: nowhere, jobspec: docker-linux, constraints: ['${meta.zone} = nowhere'], devices: [nvidia/gpu] }
`)
	w.Start(func(c *server.Config) {
		c.Polls, c.Decode = []intake.Poll{{Hook: router.Hook{Kind: router.HookOrganization, ID: 1, Owner: "acme"}}}, webhook.Decode
	})
	w.Await(w.Queue("self-hosted", "linux"), in(router.Completed))
	must(t, w.Store.SetRunnerVersions(t.Context(), []router.RuleVersion{{Rule: "linux", Version: "2.336.0", End: router.VersionEnd{Jobs: time.Now()}}}))
	w.Queue("self-hosted") // only now, or the runner would take it
	text := shows(t, w.App, `switchyard_jobs_waiting{reason="no_node_fits",rule="nowhere"} 1`, `switchyard_job_start_seconds_count{rule="linux"} 1`, `switchyard_trouble{`, `switchyard_demand_devices{`, `switchyard_poll_pending{`, `switchyard_overflow_changes_total{`, `switchyard_overflow_variables{`, `switchyard_runner_version_days_left{`,
		`switchyard_warm_runners{rule="linux",state="ready"} 1`, `switchyard_warm_jobs_total{`, `switchyard_warm_held_seconds_total{`)
	for s := range series(text) {
		name, labels, _ := strings.Cut(s, "{")
		if names[name] == nil {
			names[name] = map[string]bool{}
		}
		for _, m := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(labels, -1) {
			names[name][m[1]] = true
		}
	}
}

var (
	metricName = regexp.MustCompile(`\b(?:switchyard|go|process)_\w+(?:\{[^}]*\})?`)
	matcher    = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// checkQuery reports metrics and labels in a query that a router does not show.
func checkQuery(t *testing.T, where, query string, names map[string]map[string]bool) {
	t.Helper()
	all := map[string]bool{"le": true, "instance": true}
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
	must(t, yaml.Unmarshal(read(t, "switchyard.rules.yml"), &alerts))
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
	must(t, json.Unmarshal(read(t, "dashboard.json"), &dashboard))
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
	must(t, err)
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

// hclBlock decodes the README's HCL whose first line is the comment "# name".
func hclBlock(t *testing.T, name string, into any) {
	t.Helper()
	_, block, ok := strings.Cut(string(read(t, "README.md")), "```hcl\n# "+name+"\n")
	block, _, closed := strings.Cut(block, "```\n")
	if !ok || !closed {
		t.Fatalf("the README has no %s", name)
	}
	must(t, hclsimple.Decode(name, []byte(block), nil, into))
}

// A scaling is a policy in the form of Nomad Autoscaler's sdk/policy.go and
// policy/file/parse.go, at the release that the README names.
type scaling struct {
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
			Name              string         `hcl:"name,label"`
			Group             string         `hcl:"group,optional"`
			Source            string         `hcl:"source,optional"`
			Query             string         `hcl:"query,optional"`
			QueryWindow       string         `hcl:"query_window,optional"`
			QueryWindowOffset string         `hcl:"query_window_offset,optional"`
			OnError           string         `hcl:"on_error,optional"`
			Strategy          *scalingPlugin `hcl:"strategy,block"`
		} `hcl:"check,block"`
		Target *scalingPlugin `hcl:"target,block"`
	} `hcl:"policy,block"`
}

type scalingPlugin struct {
	Name   string            `hcl:"name,label"`
	Config map[string]string `hcl:",remain"`
}

func scalings(t *testing.T) []scaling {
	t.Helper()
	var file struct {
		Policies []scaling `hcl:"scaling,block"`
	}
	hclBlock(t, "policies/ci.hcl", &file)
	return file.Policies
}

// Every file of the documented autoscaler has the form in which it is read, and
// they go together: the jobs of each rule of the page ask for the pool and class of
// a policy, by plugins that the agent loads.
func TestTheAutoscalersFilesHaveTheirForm(t *testing.T) {
	readme := string(read(t, "README.md"))
	if n := strings.Count(readme, "```hcl\n"); n != 4 {
		t.Errorf("the README has %d blocks of HCL, and 4 are checked here", n)
	}

	// agent/config/config.go: what it takes of each block, as far as it is used here.
	type plugin struct {
		Name   string            `hcl:"name,label"`
		Driver string            `hcl:"driver"`
		Config map[string]string `hcl:"config,optional"`
	}
	var agent struct {
		HTTP struct {
			Port int `hcl:"bind_port,optional"`
		} `hcl:"http,block"`
		Policy struct {
			Dir     string `hcl:"dir,optional"`
			Sources []struct {
				Name    string `hcl:"name,label"`
				Enabled bool   `hcl:"enabled,optional"`
			} `hcl:"source,block"`
		} `hcl:"policy,block"`
		APMs       []plugin `hcl:"apm,block"`
		Strategies []plugin `hcl:"strategy,block"`
		Targets    []plugin `hcl:"target,block"`
	}
	hclBlock(t, "autoscaler.hcl", &agent)
	loaded := map[string]bool{}
	for kind, plugins := range map[string][]plugin{"apm": agent.APMs, "strategy": agent.Strategies, "target": agent.Targets} {
		for _, p := range plugins {
			loaded[kind+" "+p.Name] = true
			if p.Name != p.Driver {
				t.Errorf("%s %s is loaded from %s", kind, p.Name, p.Driver)
			}
		}
	}
	if agent.Policy.Dir != "policies" {
		t.Errorf("the agent reads its policies from %q", agent.Policy.Dir)
	}

	_, block, _ := strings.Cut(readme, "```yaml\nversion: 1\n")
	block, _, _ = strings.Cut(block, "```\n")
	set, err := rules.Parse("rules.yaml", []byte("version: 1\n"+block))
	must(t, err)
	asked := map[string]string{} // node pools and classes, by the rule that takes the job
	for _, labels := range [][]string{{"self-hosted", "linux", "cpu=8"}, {"self-hosted", "linux", "gpu"}} {
		d := set.Decide(rules.Facts{Labels: labels, Repo: rules.Repo{Owner: "acme", Name: "web", Private: true}}, false)
		demand := router.NodeDemandOf(router.Job{Decision: &d})
		asked[d.Rule] = demand.NodePool + " " + demand.NodeClass
		if demand.MemoryMB == 0 || demand.CPU+demand.Cores == 0 {
			t.Errorf("the rule %s has no size: %+v", d.Rule, demand)
		}
	}
	if d := cmp.Diff(map[string]string{"linux": "ci linux", "gpu": "ci gpu"}, asked); d != "" {
		t.Errorf("what the page's rules ask for (-want +got):\n%s", d)
	}

	names, scaled := metricNames(t), map[string]bool{}
	keys := map[string][]string{
		"pass-through": {"max_scale_up", "max_scale_down"},
		"aws-asg":      {"aws_asg_name", "node_pool", "node_class", "node_selector_strategy", "node_drain_deadline", "node_purge"},
	}
	known := func(p string, used *scalingPlugin) {
		for key := range used.Config {
			if !slices.Contains(keys[used.Name], key) {
				t.Errorf("%s: %s has no key %s", p, used.Name, key)
			}
		}
	}
	for _, p := range scalings(t) {
		if p.Type != "cluster" || !p.Enabled || p.Max <= p.Min || len(p.Doc.Checks) < 2 {
			t.Errorf("the policy is %+v", p)
		}
		target := p.Doc.Target
		group := target.Config["node_pool"] + " " + target.Config["node_class"]
		scaled[group] = true
		for _, d := range []string{p.Doc.Cooldown, p.Doc.EvaluationInterval, target.Config["node_drain_deadline"]} {
			if _, err := time.ParseDuration(d); err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
		}
		known(p.Name, target)
		if !loaded["target "+target.Name] {
			t.Errorf("%s wants the target %s, which the agent does not load", p.Name, target.Name)
		}
		for _, check := range p.Doc.Checks {
			if _, err := time.ParseDuration(check.QueryWindow); err != nil {
				t.Errorf("%s %s: %v", p.Name, check.Name, err)
			}
			known(p.Name, check.Strategy)
			if !loaded["apm "+check.Source] || !loaded["strategy "+check.Strategy.Name] {
				t.Errorf("%s %s wants %s and %s, of which the agent does not load one", p.Name, check.Name, check.Source, check.Strategy.Name)
			}
			of := regexp.MustCompile(`\{node_pool="(\w+)", node_class="(\w+)"`).FindAllStringSubmatch(check.Query, -1)
			for _, m := range of {
				if m[1]+" "+m[2] != group {
					t.Errorf("%s scales %s by what is asked for of %s %s", p.Name, group, m[1], m[2])
				}
			}
			if len(of) == 0 {
				t.Errorf("%s %s asks for no node pool and class", p.Name, check.Name)
			}
			checkQuery(t, "the policy "+p.Name, check.Query, names)
		}
	}
	for rule, group := range asked {
		if !scaled[group] {
			t.Errorf("no policy scales for the rule %s", rule)
		}
	}

	var token struct {
		Namespaces []struct {
			Name         string   `hcl:"name,label"`
			Capabilities []string `hcl:"capabilities"`
		} `hcl:"namespace,block"`
		Node struct {
			Policy string `hcl:"policy"`
		} `hcl:"node,block"`
	}
	hclBlock(t, "autoscaler.policy.hcl", &token)
	if len(token.Namespaces) != 1 || token.Namespaces[0].Name != "*" || !slices.Contains(token.Namespaces[0].Capabilities, "read-job") || token.Node.Policy != "write" {
		t.Errorf("by the token's policy %+v a busy node may look empty, or none can be drained", token)
	}

	var jobs struct {
		Job struct {
			Name string   `hcl:"name,label"`
			Body hcl.Body `hcl:",remain"` // Nomad's
		} `hcl:"job,block"`
	}
	hclBlock(t, "autoscaler.nomad.hcl", &jobs)
}

// The autoscaler's job is one that Nomad takes, with the files of the page.
func TestNomadTakesTheAutoscalersJob(t *testing.T) {
	nomad, err := exec.LookPath("nomad")
	if err != nil {
		t.Skip("nomad is not here")
	}
	dir := t.TempDir()
	readme := string(read(t, "README.md"))
	for _, m := range regexp.MustCompile("(?s)```hcl\n# (\\S+)\n(.*?)```").FindAllStringSubmatch(readme, -1) {
		path := filepath.Join(dir, m[1])
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(m[2]), 0o600))
	}
	cmd := exec.CommandContext(t.Context(), nomad, "job", "run", "-output", "autoscaler.nomad.hcl") // parses, and asks no server
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("nomad job run -output: %v\n%s", err, out)
	}
	for _, want := range []string{"bind_port", `scaling \"ci-gpu\"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the job has not %s in it:\n%s", want, out)
		}
	}
}

// What the policies ask for is one number each, the one that is meant, and the
// most of the last five minutes.
func TestTheAutoscalersQueriesAreOneNumber(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here")
	}
	var tests []any
	// gives says how many nodes a query of a class asks for.
	gives := func(class, check string, nodes any, series ...string) {
		query := ""
		for _, p := range scalings(t) {
			for _, c := range p.Doc.Checks {
				if p.Name == "ci-"+class && c.Name == check {
					query = c.Query
				}
			}
		}
		input := []any{map[string]any{"series": `switchyard_demand_runners{region="",node_pool="",node_class="",state="placed"}`, "values": "0x10"}}
		if nodes == nil {
			input = nil
		}
		for _, s := range series {
			name, values, _ := strings.Cut(s, " ")
			input = append(input, map[string]any{"series": "switchyard_demand_" + name, "values": values})
		}
		samples := []any{}
		if nodes != nil {
			samples = append(samples, map[string]any{"labels": "{}", "value": nodes})
		}
		tests = append(tests, map[string]any{
			"interval":         "1m",
			"input_series":     input,
			"promql_expr_test": []any{map[string]any{"expr": query, "eval_time": "10m", "exp_samples": samples}},
		})
	}
	of := func(class, state string) string {
		return `node_pool="ci",node_class="` + class + `",state="` + state + `"}`
	}
	gpus := `devices{device="nvidia/gpu",`
	for _, all := range []struct{ class, check string }{{"linux", "cpu"}, {"linux", "memory"}, {"gpu", "gpus"}, {"gpu", "cpu"}, {"gpu", "memory"}} {
		gives(all.class, all.check, 0)
		gives(all.class, all.check, nil) // Switchyard is down
	}
	for _, class := range []string{"linux", "gpu"} {
		other := map[string]string{"linux": "gpu", "gpu": "linux"}[class]
		gives(class, "cpu", 3, // 36 cores of 16, and 24,000 MHz of 48,000
			`cores{`+of(class, "placed")+` 30x10`, `cores{`+of(class, "placing")+` 6x10`, `cores{`+of(other, "placed")+` 900x10`,
			`cpu_mhz{`+of(class, "no_node_fits")+` 20000x10`, `cpu_mhz{`+of(class, "no_node_free")+` 4000x10`, `cpu_mhz{`+of(other, "placed")+` 900000x10`)
		gives(class, "memory", 2, `memory_bytes{`+of(class, "placed")+` 64424509440x10`, `memory_bytes{`+of(class, "no_node_fits")+` 1x10`, `memory_bytes{`+of(other, "placed")+` 900000000000x10`)
		gives(class, "memory", 1, `memory_bytes{`+of(class, "placed")+` 0 0 0 0 0 0 1 0 0 0 0`) // 4 minutes ago
		gives(class, "memory", 0, `memory_bytes{`+of(class, "placed")+` 0 0 0 0 1 0 0 0 0 0 0`) // 6 minutes ago
	}
	gives("gpu", "gpus", 3, gpus+of("gpu", "placed")+` 1x10`, gpus+of("gpu", "no_node_fits")+` 2x10`, gpus+of("linux", "placed")+` 9x10`)
	b, err := yaml.Marshal(map[string]any{"evaluation_interval": "15s", "tests": tests})
	must(t, err)
	path := filepath.Join(t.TempDir(), "policy.test.yml")
	must(t, os.WriteFile(path, b, 0o600))
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}
