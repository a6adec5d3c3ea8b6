package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"switchyard/rules/internal/words"
)

func TestTheTestsOfTheExamplePassAndReachEverything(t *testing.T) {
	s := example(t)
	report := s.Test(t.Context(), s.Tests())
	for _, r := range report.Tests {
		if !r.Passed {
			t.Errorf("%s: %+v", r.Name, r.Failures)
		}
	}
	if c := report.Coverage; report.Passed == 0 || c.Rules == 0 || c.Labels == 0 || len(c.MissedRules)+len(c.MissedLabels) > 0 {
		t.Errorf("%d passed, coverage %+v", report.Passed, c)
	}
}

func TestTheTestsOfTheREADMEPass(t *testing.T) {
	text := readFile(t, "README.md")
	ran := 0
	for _, b := range yamlBlocks(string(text)) {
		if !strings.Contains(b, "\ntests:") {
			continue
		}
		s := parse(t, b)
		for _, r := range s.Test(t.Context(), s.Tests()).Tests {
			ran++
			if !r.Passed {
				t.Errorf("%s: %+v", r.Name, r.Failures)
			}
		}
	}
	if ran == 0 {
		t.Error("the README shows no tests")
	}
}

// As in TestFaultsAreReportedAtTheirPlaces, § marks the places.
func TestFaultsInTestsAreReportedAtTheirPlaces(t *testing.T) {
	// expects makes a row about what a test expects.
	expects := func(expect string) string {
		return "tests: [{ name: a, labels: [], expect: " + expect + " }]\n"
	}
	for _, tt := range []struct {
		name, tests string
		want        []string
	}{
		{"tests that are no list", "tests: §{}\n", []string{`tests must be a list, not a mapping`}},
		{"a test that is no mapping", "tests: [§linux]\n", []string{`a test must be a mapping, not a text`}},
		{"a test that says nothing", "tests:\n  - §§§{}\n", []string{
			`a test needs a name`, `a test needs expect: any part of the decision, such as { rule: linux }`, `a test needs labels: the job's runs-on, such as [self-hosted, linux]`}},
		{"unknown keys at every level", `tests:
  - name: a
    §lables: []
    labels: []
    repo: { §fullname: acme/web }
    job: { §brnch: main }
    run: { §evnt: push }
    expect:
      §rul: linux
      constraints: { §contain: [] }
      resources: { §mem: 4GiB, memory: 4GiB }
      task: { §environment: {}, env: { A: b } }
      runner: { §groups: 1, group: 1 }
      limit: { §run: 1, running: 1 }
      devices: [{ name: gpu, §cnt: 1 }]
      fallback: [{ after: 5m, §nodepool: spot }]
`, []string{
			`unknown key "lables" in a test; did you mean labels?`,
			`unknown key "fullname" in repo; did you mean full_name?`,
			`unknown key "brnch" in job; did you mean branch?`,
			`unknown key "evnt" in run; did you mean event?`,
			`unknown key "rul" in expect; did you mean rule?`,
			`unknown key "contain" in constraints; did you mean contains?`,
			`unknown key "mem" in resources; it takes cpu, cores, memory, memory_max, disk`,
			`unknown key "environment" in task; it takes env, config`,
			`unknown key "groups" in runner; did you mean group?`,
			`unknown key "run" in limit; it takes running, per, key, order`,
			`unknown key "cnt" in device; it takes name, count, constraints`,
			`unknown key "nodepool" in fallback; did you mean node_pool?`,
		}},
		{"names that are there twice or cannot be shown", "tests:\n" +
			"  - { name: a, labels: [], expect: { rule: linux } }\n  - { name: §a, labels: [], expect: { rule: linux } }\n" +
			"  - { name: §\"\\e[2J\", labels: [], expect: { rule: linux } }\n  - { name: §'', labels: [], expect: { rule: linux } }\n", []string{
			`test "a" is already defined at line 3`, `test name "\x1b[2J" must be printable and have at most 200 characters`, `test name must not be empty`}},
		{"labels", "tests:\n  - { name: a, labels: §linux, expect: { rule: linux } }\n  - { name: b, labels: §~, expect: { rule: linux } }\n  - { name: c, labels: [§[]], expect: { rule: linux } }\n",
			[]string{`labels must be a list, not a text: write [linux]`, `labels must be a list, not nothing`, `a label must be a single value, not a list`}},
		{"repositories", `tests:
  - { name: a, labels: [], repo: §acme, expect: { rule: linux } }
  - { name: b, labels: [], repo: { full_name: §a/b/c, owner: §a }, expect: { rule: linux } }
  - { name: c, labels: [], repo: { visibility: §privat, private: §yes, fork: §[] }, expect: { rule: linux } }
  - { name: d, labels: [], repo: { visibility: §public, private: true }, expect: { rule: linux } }
  - { name: e, labels: [], repo: §[], expect: { rule: linux } }
  - { name: f, labels: [], repo: { host: §'https://ghe.example/' }, expect: { rule: linux } }
`, []string{
			`repo "acme": want OWNER/NAME`, `repo "a/b/c": want OWNER/NAME`, `repo has full_name already: leave owner out`,
			`repo visibility "privat": want private, internal or public; did you mean private?`, `repo private must be true or false`, `repo fork must be true or false`,
			`repo visibility is public, but private is true`, `repo must be a mapping, not a list`,
			`repo host "https://ghe.example/": want a host such as github.example.com, in lower case`}},
		{"the job and the run", "tests: [{ name: a, labels: [], job: { attempt: §0, branch: §[] }, run: { fork: §1 }, expect: { rule: linux } }]\n", []string{
			`job attempt: 0 is not between 1 and 2147483647`, `job branch must be a single value, not a list`, `run fork must be true or false`}},

		{"an empty expect", expects("§{}"), []string{`expect is empty: name one of outcome, rule, reason, labels, limit, urgency, time_limit, rerun, fallback, jobspec, dispatch, constraints, affinities, devices, resources, node_pool, datacenters, namespace, region, priority, task, runner, debug`}},
		{"an expect that is a text", expects("§linux"), []string{`expect must be a mapping, not a text`}},
		{"an outcome that there is not", expects("{ outcome: §route }"), []string{`outcome "route": want one of routed, ignored, denied, unroutable, undecided; did you mean routed?`}},
		{"an outcome that is a list", expects("{ outcome: §[] }"), []string{`outcome must be a text, not a list`}},
		{"a rule that there is not", expects("{ rule: §linus }"), []string{`expect: there is no rule "linus"; did you mean linux?`}},
		{"parts without a value", expects("{ rule: §~, reason: §~, constraints: §~, resources: §~, limit: §~, task: §{} }"), []string{
			`rule must be a single value, not nothing`, `reason must be a single value, not nothing`, `constraints must be a list, or a mapping with contains, exactly or not, but it is nothing`,
			`resources is empty: name one of cpu, cores, memory, memory_max, disk`, `limit is empty: name one of running, per, key, order`, `task is empty: name one of env, config`}},
		{"empty lists that say nothing", expects("{ labels: §[], devices: { not: §[] }, datacenters: { exactly: [] } }"), []string{
			`labels: an empty list has no effect; write { exactly: [] } for none`, `devices: an empty list has no effect; write { exactly: [] } for none`}},
		{"parts that are empty", expects("§{ fallback: [], task: { env: {} } }"), []string{
			`expect checks nothing: what it names is empty; name a part of the decision, such as { rule: linux }`}},
		{"constraints", expects("{ constraints: { contains: [§'${cpu.arch} = amd64'], exactly: [§'${attr.cpu.arch} ~ amd64'], not: [{ attribute: §[] }] } }"), []string{
			`attribute "${cpu.arch}" is not a node attribute: write ${attr.NAME}, ${meta.NAME}, or ${node.NAME} with class, pool, datacenter, unique.id or unique.name`,
			`unknown operator "~"; did you mean <?`, `attribute of a constraint must be a text, not a list`}},
		{"affinities and devices", expects("{ affinities: [§{ attribute: '${node.class}', value: a }], devices: [§a/b/c/d, { name: gpu, count: §0 }] }"), []string{
			`an affinity needs a weight from -100 to 100, not 0`, `device: "a/b/c/d" is not a valid device: write type, vendor/type or vendor/type/model, such as nvidia/gpu`, `device count: 0 is not between 1 and 128`}},
		{"sizes", expects("{ resources: { memory: §16GB, cpu: §two, cores: §-1 }, priority: §101 }"), []string{
			`resources.memory: size "16GB" is ambiguous: write 16GiB`,
			`resources.cpu: "two" is not a CPU size: write MHz as a whole number, such as 2000; whole cores go to cores`,
			`resources.cores: -1 is not between 1 and 4096`, `priority: 101 is not between 1 and 100`}},
		{"the task", expects("{ task: { env: §[], config: { a: §.inf } } }"), []string{`task env must be a mapping, not a list`, `task config a: a number is not a valid value in a task's config`}},
		{"fallbacks", expects("{ fallback: [§{ node_pool: spot }, { after: §soon }, §spot] }"), []string{
			`an expected fallback needs after: which one it is, such as 5m`, `after "soon" is not a duration: write it as 90s, 5m or 1h30m`, `fallback must be a mapping, not a text`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkFaults(t, "version: 1\n"+tt.tests+"rules: [{ name: linux, jobspec: j }]\n", tt.want)
		})
	}

	t.Run("faults of the rules hide none of the tests, and make none", func(t *testing.T) {
		checkFaults(t, "version: 1\nrules: §{}\ntests: [{ name: a, labels: [], expect: { rule: any, priority: §x } }]\n",
			[]string{`rules must be a list, not a mapping`, `priority: "x" is not a whole number`})
	})
}

func TestAFileOfTests(t *testing.T) {
	const one = "tests: [{ name: a, labels: [linux], expect: { rule: linus, constraints: ['${meta.a} = ${{ b }}'] } }]\n"
	for _, tt := range []struct{ name, src, want string }{
		{"is empty", "", "t.test.yaml:1:1: the file is empty: a rules file begins with version: 1"},
		{"is a list", "[]\n", "t.test.yaml:1:1: a file of tests must be a mapping, not a list"},
		{"has no tests and no version", "{}\n", "t.test.yaml:1:1: tests is missing: list at least one test\nt.test.yaml:1:1: version is missing: a file of tests begins with version: 1"},
		{"has a later version", "version: 2\n" + one, `t.test.yaml:1:10: version "2" is not one that this Switchyard reads: write version: 1`},
		{"has rules", "version: 1\nrules: []\n" + one, `t.test.yaml:2:1: unknown key "rules" in a file of tests; it takes version, tests`},
		{"has too many tests", "version: 1\ntests:\n" + strings.Repeat("- a\n", maxTests+1), "t.test.yaml:3:1: tests has 10001 entries; the maximum is 10000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tests, err := ParseTests("t.test.yaml", []byte(tt.src))
			if got := fmt.Sprint(err); got != tt.want || tests != nil {
				t.Errorf("ParseTests = %v, %s; want %s", tests, got, tt.want)
			}
		})
	}
	t.Run("is checked against the rules by CheckTests", func(t *testing.T) {
		tests, err := ParseTests("t.test.yaml", []byte("version: 1\n"+one))
		if err != nil {
			t.Fatal(err)
		}
		got := parse(t, "version: 1\nrules: [{ name: linux, jobspec: j }]\n").CheckTests(tests)
		if want := `t.test.yaml:2:53: expect: there is no rule "linus"; did you mean linux?`; got.Error() != want {
			t.Errorf("CheckTests = %v, want %s", got, want)
		}
	})
}

func TestTheFactsOfATest(t *testing.T) {
	for _, tt := range []struct {
		name, facts string
		want        Facts
	}{
		{"a repository by its name is private", "repo: acme/web", Facts{Repo: Repo{Host: "", Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "private", Fork: false, URL: ""}}},
		{"one on another GitHub", "repo: { host: 'ghe.example:8443', full_name: acme/web }", Facts{Repo: Repo{Host: "ghe.example:8443", Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "private", Fork: false, URL: ""}}},
		{"so is none", "", Facts{Repo: Repo{Private: true, Visibility: "private"}}},
		{"owner and name make the full name", "repo: { owner: acme, name: web, fork: true }", Facts{Repo: Repo{Host: "", Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "private", Fork: true, URL: ""}}},
		{"an owner alone makes none", "repo: { owner: acme }", Facts{Repo: Repo{Owner: "acme", Private: true, Visibility: "private"}}},
		{"one that is not private is public", "repo: { full_name: acme/web, private: false }", Facts{Repo: Repo{Host: "", Owner: "acme", Name: "web", FullName: "acme/web", Private: false, Visibility: "public", Fork: false, URL: ""}}},
		{"one that is public is not private", "repo: { visibility: public }", Facts{Repo: Repo{Visibility: "public"}}},
		{"an internal one is private", "repo: { visibility: internal, private: true }", Facts{Repo: Repo{Private: true, Visibility: "internal"}}},
		{"a job and a run", "job: { name: build, workflow: CI, branch: main, attempt: 2, sender: octocat }, run: { event: push, fork: true, actor: hubot }", Facts{
			Repo: Repo{Private: true, Visibility: "private"}, Job: Job{Name: "build", Workflow: "CI", Branch: "main", Attempt: 2, Sender: "octocat"}, Run: &Run{Event: "push", Fork: true, Actor: "hubot"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tests, err := ParseTests("t.test.yaml", []byte("version: 1\ntests:\n  - { name: a, labels: [Linux, ' x', ''], expect: { rule: a }, "+tt.facts+" }\n"))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Labels = []string{"Linux", " x", ""}
			if tt.want.Job.Attempt == 0 {
				tt.want.Job.Attempt = 1
			}
			same(t, tt.want, tests[0].Facts, "facts")
		})
	}
}

// everything is a decision with something in each part.
func everything() Decision {
	place := func() Placement {
		return Placement{
			Jobspec: "docker-linux", Dispatch: "runner",
			Constraints: []Constraint{{"${attr.cpu.arch}", "=", "amd64", "label x64"}, {"${meta.rack}", "is_set", "", "rule r"}},
			Affinities:  []Affinity{{"${node.class}", "=", "spot", 50, "rule r"}},
			Devices:     []Device{{"nvidia/gpu", 2, []Constraint{{"${device.model}", "=", "T4", "label gpu"}}, "label gpu"}},
			Resources:   Resources{2000, 2, 4096, 8192, 1024},
			NodePool:    "ci", Datacenters: []string{"dc1", "dc-*"}, Namespace: "runners", Priority: 50,
			Task:   Task{Env: map[string]string{"A": "${{ b }}", "E": ""}, Config: map[string]any{"image": "x", "ports": []any{1.5, true, map[string]any{"a": "b"}}}},
			Runner: Runner{"enterprise", "acme", "7", "token", true},
			Debug:  Debug{"30m"},
		}
	}
	return Decision{
		Outcome: Routed, Rule: "r", Reason: "rule r runs it", Labels: []string{"self-hosted", "linux"}, Placement: place(),
		Limit: &Limit{Running: 10, Per: "owner", Key: "r/acme", Order: Priority}, Urgency: 10, TimeLimit: Duration(6 * time.Hour), Rerun: &Rerun{[]string{"node_lost"}, 2},
		Fallback: []Fallback{{After: 90 * Duration(time.Second), Placement: place()}, {After: Duration(time.Hour), Reason: "over the most"}},
	}
}

// testOf makes a test that expects all that a decision says.
func testOf(t tester, d Decision) Test {
	t.Helper()
	type object = map[string]any
	exactly := func(list any) object { return object{"exactly": list} }
	placement := func(p Placement) object {
		constraints := func(list []Constraint) []any {
			out := []any{}
			for i, c := range list {
				if i%2 == 0 {
					out = append(out, c.String())
				} else {
					out = append(out, object{"attribute": c.Attribute, "operator": c.Operator, "value": c.Value})
				}
			}
			return out
		}
		affinities, devices := []any{}, []any{}
		for _, a := range p.Affinities {
			affinities = append(affinities, object{"attribute": a.Attribute, "operator": a.Operator, "value": a.Value, "weight": a.Weight})
		}
		for _, d := range p.Devices {
			devices = append(devices, object{"name": d.Name, "count": d.Count, "constraints": constraints(d.Constraints)})
		}
		r := p.Resources
		return object{
			"jobspec": p.Jobspec, "dispatch": p.Dispatch, "node_pool": p.NodePool, "namespace": p.Namespace, "region": p.Region, "priority": p.Priority,
			"constraints": exactly(constraints(p.Constraints)), "affinities": exactly(affinities), "devices": exactly(devices), "datacenters": exactly(append([]string{}, p.Datacenters...)),
			"resources": object{"cpu": r.CPU, "cores": r.Cores, "memory": r.MemoryMB, "memory_max": r.MemoryMaxMB, "disk": r.DiskMB},
			"task":      object{"env": p.Task.Env, "config": p.Task.Config},
			"runner":    object{"scope": p.Runner.Scope, "enterprise": p.Runner.Enterprise, "group": p.Runner.Group, "registration": p.Runner.Registration, "verify": p.Runner.Verify},
			"debug":     object{"keep": p.Debug.Keep},
		}
	}
	expect := placement(d.Placement)
	expect["outcome"], expect["rule"], expect["reason"], expect["labels"] = d.Outcome, d.Rule, d.Reason, exactly(d.Labels)
	if d.Limit != nil {
		expect["limit"] = d.Limit
	}
	expect["time_limit"], expect["urgency"] = d.TimeLimit.String(), d.Urgency
	if d.Rerun != nil {
		expect["rerun"] = object{"when": exactly(d.Rerun.When), "times": d.Rerun.Times}
	}
	fallbacks := []any{}
	for _, f := range d.Fallback {
		o := placement(f.Placement)
		o["after"], o["reason"] = f.After.String(), f.Reason
		fallbacks = append(fallbacks, o)
	}
	if len(fallbacks) > 0 {
		expect["fallback"] = fallbacks
	}
	text, err := json.MarshalIndent(object{"version": 1, "tests": []any{object{"name": "all of it", "labels": d.Labels, "expect": expect}}}, "", "  ")
	if err != nil {
		t.Fatalf("%v", err)
	}
	tests, err := ParseTests("t.test.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return tests[0]
}

// Each part of a decision can be expected, and is compared: whatever field of
// it changes, the test fails, and names it.
func TestEveryPartOfADecisionIsCompared(t *testing.T) {
	d := everything()
	test := testOf(t, d)
	if failures := test.failures(&d); len(failures) > 0 {
		t.Fatalf("a test that expects what was decided fails: %+v", failures)
	}
	changed := 0
	check := func(path string) {
		changed++
		failures := test.failures(&d)
		if len(failures) != 1 {
			t.Errorf("with %s changed there are the failures %+v, want one", path, failures)
			return
		}
		f := failures[0]
		if f.Expected == f.Got || f.Expected == "" || f.Got == "" || f.Line < 2 {
			t.Errorf("with %s changed: %+v", path, f)
		}
	}
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		before := reflect.New(v.Type()).Elem()
		before.Set(v)
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				name := v.Type().Field(i).Name
				if name != "From" && name != "Trace" && name != "Nearest" && name != "Run" { // what explains, not what is decided
					walk(v.Field(i), path+"."+name)
				}
			}
			return
		case reflect.Pointer:
			walk(v.Elem(), path)
			return
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
			}
			if !strings.Contains(path, "Devices[") && path != ".Fallback" { // of these, what is expected is only contained
				v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
				check(path + " longer")
			}
			if before.Len() == 0 || path == ".Fallback" {
				v.Set(before)
				return
			}
			v.Set(reflect.Zero(v.Type()))
		case reflect.Map:
			for _, k := range v.MapKeys() {
				was := v.MapIndex(k)
				if v.Type().Elem().Kind() == reflect.String {
					v.SetMapIndex(k, reflect.ValueOf("other"))
				} else {
					v.SetMapIndex(k, reflect.ValueOf([]any{"other"}))
				}
				check(path + "." + k.String())
				v.SetMapIndex(k, reflect.Value{})
				check(path + "." + k.String() + " gone")
				v.SetMapIndex(k, was)
			}
			return
		case reflect.String:
			v.SetString("other")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int, reflect.Int64:
			v.SetInt(v.Int() + 1)
		default:
			t.Fatalf("%s is a %s", path, v.Type())
		}
		check(path)
		v.Set(before)
	}
	walk(reflect.ValueOf(&d).Elem(), "")
	if changed < 60 {
		t.Errorf("%d changes were made", changed)
	}
}

// What a list of expectations contains, exactly is, or does not hold.
func TestListsOfExpectations(t *testing.T) {
	const rules = `version: 1
labels: { gpu: { devices: [{ name: nvidia/gpu, count: 2, constraints: ['${device.model} = T4'] }] } }
rules:
  - name: linux
    jobspec: docker-linux
    constraints: ['${attr.kernel.name} is linux', '${meta.rack} is_set']
    affinities: [{ attribute: '${node.class}', value: spot, weight: 50 }]
    datacenters: [a, b]
    limit: { running: 2, per: owner }
    task: { config: { args: ["\u202e"] } }
    fallback: [{ after: 5m, node_pool: spot }, { after: 1h, resources: { memory: 8GiB } }]
defaults: { max: { memory: 4GiB } }
`
	for _, tt := range []struct{ expect, want string }{
		{`constraints: ['${attr.kernel.name} == linux']`, ""},
		{`constraints: ['${attr.kernel.name} = linux', '${meta.rack} = a']`, "constraints: expected contains ${attr.kernel.name} = linux, ${meta.rack} = a, got ${attr.kernel.name} = linux, ${meta.rack} is_set"},
		{`constraints: { exactly: ['${attr.kernel.name} = linux'] }`, "constraints: expected exactly ${attr.kernel.name} = linux, got ${attr.kernel.name} = linux, ${meta.rack} is_set"},
		{`constraints: { exactly: ['${meta.rack} is_set', { attribute: '${attr.kernel.name}', value: linux }] }`, ""},
		{`constraints: { exactly: ['${meta.rack} is_set', '${meta.rack} is_set'] }`, "constraints: expected exactly ${meta.rack} is_set, ${meta.rack} is_set, got ${attr.kernel.name} = linux, ${meta.rack} is_set"},
		{`constraints: { exactly: ['${meta.rack} is_set', '${meta.rack} is_set', '${attr.kernel.name} = linux'] }`, "constraints: expected exactly ${meta.rack} is_set, ${meta.rack} is_set, ${attr.kernel.name} = linux, got ${attr.kernel.name} = linux, ${meta.rack} is_set"},
		{`constraints: { exactly: [] }`, "constraints: expected exactly (none), got ${attr.kernel.name} = linux, ${meta.rack} is_set"},
		{`constraints: { not: ['${meta.rack} = a', '${meta.zone} = a'] }`, ""},
		{`constraints: { contains: ['${meta.rack} is_set'], not: ['${meta.rack} is_set', '${meta.zone} = a'] }`, "constraints: expected not ${meta.rack} is_set, ${meta.zone} = a, got ${attr.kernel.name} = linux, ${meta.rack} is_set"},
		{`affinities: [{ attribute: '${node.class}', value: spot, weight: 49 }]`, "affinities: expected contains ${node.class} = spot, weight 49, got ${node.class} = spot, weight 50"},
		{`devices: [nvidia/gpu]`, ""},
		{`devices: { exactly: [{ name: nvidia/gpu, constraints: ['${device.model} = T4'] }] }`, ""},
		{`devices: [{ name: nvidia/gpu, count: 1 }]`, "devices: expected contains 1 × nvidia/gpu, got 2 × nvidia/gpu (${device.model} = T4)"},
		{`devices: [{ name: nvidia/gpu, constraints: ['${device.model} = A100'] }]`, "devices: expected contains nvidia/gpu (${device.model} = A100), got 2 × nvidia/gpu (${device.model} = T4)"},
		{`devices: { not: [nvidia/gpu] }`, "devices: expected not nvidia/gpu, got 2 × nvidia/gpu (${device.model} = T4)"},
		{`datacenters: [b]`, ""},
		{`datacenters: { exactly: [b] }`, "datacenters: expected exactly b, got a, b"},
		{`labels: [GPU]`, ""},
		{`labels: { not: [gpu] }`, "labels: expected not gpu, got self-hosted, gpu"},
		{`reason: with the jobspec docker`, ""},
		{`reason: by the jobspec podman`, "reason: expected contains by the jobspec podman, got rule linux runs it with the jobspec docker-linux"},
		{`rule: ''`, "rule: expected (none), got linux"},
		{`dispatch: '', node_pool: '', resources: { memory: 0 }, priority: 0`, ""},
		{`resources: { memory: 4GiB, cores: 2 }`, "resources.cores: expected 2, got (none); resources.memory: expected 4GiB, got (none)"},
		{`limit: { running: 2, per: owner, key: linux|acme }`, ""},
		{`limit: { order: fair }, urgency: 0`, ""},
		{`limit: { order: priority }, urgency: 10`, "limit.order: expected priority, got fair; urgency: expected 10, got (none)"},
		{`limit: { running: 3, key: linux }`, "limit.running: expected 3, got 2; limit.key: expected linux, got linux|acme"},
		{`fallback: [{ after: 300s, node_pool: spot, reason: '', constraints: ['${meta.rack} is_set'] }, { after: 60m, jobspec: '' }]`, ""},
		{`fallback: [{ after: 5m, node_pool: ci }, { after: 6m, node_pool: spot }]`, "fallback 5m.node_pool: expected ci, got spot; fallback 6m: expected there is one, got (none)"},
		{`fallback: [{ after: 1h, reason: exceeds the maximum }]`, ""},
		{`fallback: [{ after: 1h, reason: '' }]`, "fallback 1h.reason: expected (none), got memory 8GiB (rule linux, fallback 2) exceeds the maximum of 4GiB (defaults)"},
		{`task: { env: { A: "\e[2J" } }`, `task.env.A: expected "\x1b[2J", got (none)`},
		{`task: { config: { args: [] } }`, `task.config.args: expected [], got [\"\u202e\"]`},
		{`node_pool: "\u202e"`, `node_pool: expected \u202e, got (none)`},
	} {
		t.Run(tt.expect, func(t *testing.T) {
			s := parse(t, rules+"tests: [{ name: a, labels: [self-hosted, gpu], repo: acme/web, expect: { "+tt.expect+" } }]\n")
			var got []string
			for _, f := range s.Test(t.Context(), s.Tests()).Tests[0].Failures {
				got = append(got, fmt.Sprintf("%s: expected %s, got %s", f.What, f.Expected, f.Got))
			}
			if got := strings.Join(got, "; "); got != tt.want {
				t.Errorf("failures:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

func TestCoverage(t *testing.T) {
	const src = `version: 1
labels: { z: {}, self-hosted: {}, a: {}, 'cpu=*': { param: { name: cpu, type: int, min: 1, max: 8 }, resources: { cores: '${{ param.cpu }}' } }, 'run-*': {}, b: {} }
defaults: { max: { cores: 4 } }
rules:
  - { name: no, if: '"b" in labels', deny: no }
  - { name: fails, if: '"run-1" in labels and labels[9] == "x"', jobspec: j }
  - { name: r, if: '"a" in labels', jobspec: j }
  - { name: too-much, if: '"cpu=8" in labels', jobspec: j }
tests:
`
	for _, tt := range []struct {
		name, labels      string
		rules, vocabulary []string
	}{
		{"a job that is placed reaches its rule and labels", "[self-hosted, a, cpu=2]", []string{"no", "fails", "too-much"}, []string{"z", "run-*", "b"}},
		{"so does one that is denied", "[self-hosted, B, Z]", []string{"fails", "r", "too-much"}, []string{"a", "cpu=*", "run-*"}},
		{"one that is ignored reaches nothing", "[a]", []string{"no", "fails", "r", "too-much"}, []string{"z", "self-hosted", "a", "cpu=*", "run-*", "b"}},
		{"nor does one whose rule fails", "[self-hosted, run-1]", []string{"no", "fails", "r", "too-much"}, []string{"z", "self-hosted", "a", "cpu=*", "run-*", "b"}},
		{"nor does one that cannot be placed", "[self-hosted, cpu=8]", []string{"no", "fails", "r", "too-much"}, []string{"z", "self-hosted", "a", "cpu=*", "run-*", "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := parse(t, src+"  - { name: t, labels: "+tt.labels+", expect: { priority: 0 } }\n")
			c := s.Test(t.Context(), s.Tests()).Coverage
			names := func(list []Missed) (names []string) {
				for _, m := range list {
					names = append(names, m.Name)
				}
				return names
			}
			if d := cmp.Diff([][]string{tt.rules, tt.vocabulary}, [][]string{names(c.MissedRules), names(c.MissedLabels)}); d != "" || c.Rules != 4 || c.Labels != 6 {
				t.Errorf("of %d rules and %d labels are missed (-want +got):\n%s", c.Rules, c.Labels, d)
			}
			if got, want := c.MissedRules[len(c.MissedRules)-1], (Missed{"too-much", "rules.yaml", 8, 5}); got != want {
				t.Errorf("the last missed rule is %v, want %v", got, want)
			}
		})
	}
}

func TestTestsOfSeveralFiles(t *testing.T) {
	a := File{"a.yaml", []byte("version: 1\ntests: [{ name: t, labels: [self-hosted], expect: { rule: second } }]\n")}
	b := File{"b.yaml", []byte("version: 1\nrules: [{ name: second, jobspec: j }]\ntests: [{ name: t, labels: [], expect: { outcome: ignored } }]\n")}
	s, err := Load(t.Context(), a, b)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Test(t.Context(), s.Tests()); r.Passed != 2 || r.Tests[0].File != "a.yaml" || r.Tests[1].File != "b.yaml" {
		t.Errorf("report: %+v", r)
	}
	b.Source = []byte("version: 1\nrules: [{ name: first, jobspec: j, x: y }]\n")
	_, err = Load(t.Context(), a, b)
	want := `a.yaml:2:59: expect: there is no rule "second"` + "\n" + `b.yaml:2:36: unknown key "x" in a rule; it takes `
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("faults: %v, want %s…", err, want)
	}
}

// A run that a test does not give is not looked up.
func TestARuleThatAsksForTheRun(t *testing.T) {
	s := parse(t, `version: 1
rules: [{ name: no-forks, if: run.fork, deny: forks get no runner }, { name: all, jobspec: j }]
tests:
  - { name: a, labels: [self-hosted], run: { event: pull_request, fork: true }, expect: { outcome: denied } }
  - { name: b, labels: [self-hosted], run: { event: push }, expect: { rule: all } }
  - { name: c, labels: [self-hosted], expect: { outcome: undecided } }
`)
	if r := s.Test(t.Context(), s.Tests()); r.Failed > 0 {
		t.Errorf("report: %+v", r)
	}
}

// The trace is there when it helps, and what is decided is what Decide says.
func TestAResultHasTheTraceWhenItFailed(t *testing.T) {
	s := parse(t, `version: 1
rules: [{ name: a, if: '"x" in labels', jobspec: j }, { name: b, jobspec: j }]
tests:
  - { name: good, labels: [self-hosted], expect: { rule: b } }
  - { name: bad, labels: [self-hosted], expect: { rule: a } }
`)
	report := s.Test(t.Context(), s.Tests())
	good, bad := report.Tests[0], report.Tests[1]
	if report.Passed != 1 || report.Failed != 1 || !good.Passed || bad.Passed {
		t.Errorf("report: %+v", report)
	}
	if good.Decision.Trace != nil || len(bad.Decision.Trace) != 2 {
		t.Errorf("traces: %v and %v", good.Decision.Trace, bad.Decision.Trace)
	}
	same(t, []TestFailure{{"rule", 5, 57, "a", "b"}}, bad.Failures, "failures")
}

// A test that expects all of what was decided passes.
func TestWhatWasDecidedCanBeExpected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := parse(t, someVocabulary+strings.Join(drawRules(t), ""))
		f := drawJob(t)
		d := s.Decide(f, false)
		test := testOf(t, d)
		test.Facts = f
		if report := s.Test(t.Context(), []Test{test}); report.Passed != 1 {
			t.Fatalf("%+v", report.Tests[0].Failures)
		}
		if faults := s.CheckTests([]Test{test}); faults != nil {
			t.Fatal(faults)
		}
	})
}

// FuzzParseTests checks that no file of tests makes anything panic or run for
// long, and that faults have places within the file.
func FuzzParseTests(f *testing.F) {
	text := readFile(f, "../rules.example.yaml")
	_, tests, _ := strings.Cut(string(text), "\ntests:")
	f.Add([]byte("version: 1\ntests:" + tests))
	for _, s := range []string{
		"", "tests: ~", "version: 1\ntests: [~, [], {}, { expect: ~ }]\n",
		"version: 1\ntests: [{ name: a, labels: [a, ''], repo: {}, run: {}, expect: { labels: { exactly: [], not: [a] }, task: { env: { a: '' }, config: { a: [1, { b: ~ }] } } } }]\n",
		"version: 1\ntests: [{ name: a, labels: [self-hosted, linux], expect: { fallback: [{ after: -1h, constraints: [distinct_hosts], devices: [{ name: a/b, count: 3 }] }], limit: { running: 1, key: '' } } }]\n",
	} {
		f.Add([]byte(s))
	}
	rules := example(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		start := time.Now()
		tests, err := ParseTests("t.test.yaml", src)
		if err == nil {
			report := rules.Test(t.Context(), tests)
			if report.Passed+report.Failed != len(tests) {
				t.Errorf("%d passed and %d failed of %d", report.Passed, report.Failed, len(tests))
			}
			for _, r := range report.Tests {
				for _, f := range r.Failures {
					if !words.Printable(f.What+f.Expected+f.Got) || f.Got == "" {
						t.Errorf("failure %+v", f)
					}
				}
			}
		}
		inTime(t, "ParseTests and Test", start, 2*time.Second)
		var ds Diagnostics
		if err != nil && (!errors.As(err, &ds) || len(ds) == 0 || tests != nil) {
			t.Fatalf("ParseTests returned %v and %v", tests, err)
		}
		lines := strings.Split(string(src), "\n")
		for _, d := range ds {
			if d.Line < 1 || d.Line > len(lines) || d.Column < 1 || d.Column > utf8.RuneCountInString(lines[d.Line-1])+2 {
				t.Errorf("%s: the place is not in the file", d)
			}
			if !words.Printable(d.Message) {
				t.Errorf("message %q is not printable", d.Message)
			}
		}
	})
}

// Without outcome, a test expects that of the rule that it names, and routed
// when it names what only a routed job has.
func TestWhatATestExpectsWithoutSayingSo(t *testing.T) {
	const file = `version: 1
compound: { prefix: 'yard=', separator: '/' }
labels:
  self-hosted: {}
  linux: {}
  xl: { resources: { memory: 64GiB } }
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 8 } }
defaults: { max: { memory: 32GiB } }
rules:
  - { name: no-public, if: not repo.private, deny: no }
  - { name: asks, if: has("asks") and run.event == "push", jobspec: j }
  - { name: no-forks, if: has("forks") and run.fork, deny: no }
  - { name: fails, if: has("fails") and int(job.name) > 1, deny: no }
  - { name: linux, if: has("linux"), jobspec: j }
  - { name: classic, if: has("classic"), dispatch: j }
`
	for _, tt := range []struct {
		name, labels, more, expect string
		want                       string // what failed: place, what was expected, what was got
	}{
		{"a rule that places", "linux", "", "{ rule: linux }", ""},
		{"a rule whose placement exceeds the maximum", "linux, xl", "", "{ rule: §linux }", "routed unroutable"},
		{"a rule that a label with a bad value never reaches", "linux, cpu=9", "", "{ reason: is not between, rule: '' }", ""},
		{"a rule of a job that is not placed on purpose", "linux, xl", "", "{ rule: linux, outcome: unroutable, reason: exceeds the maximum }", ""},
		{"a rule that cannot tell without the run", "asks", "", "{ rule: §asks }", "routed undecided"},
		{"a denial", "linux", "repo: { private: false }, ", "{ rule: no-public }", ""},
		{"a denial that cannot tell without the run", "forks", "", "{ rule: §no-forks }", "denied undecided"},
		{"a denial whose condition fails", "fails", "", "{ rule: §fails }", "denied unroutable"},
		{"no rule", "nothing", "", "{ rule: '' }", ""},
		{"no rule, and no part of a placement", "nothing", "", "{ rule: '', node_pool: '' }", ""},
		{"a reason alone", "linux, xl", "", "{ reason: exceeds the maximum }", ""},
		{"labels alone", "linux, xl", "", "{ labels: [xl] }", ""},
		{"no jobspec", "linux, xl", "", "{ jobspec: '', dispatch: '' }", ""},
		{"no jobspec for one that is dispatched", "classic", "", "{ dispatch: j, jobspec: '' }", ""},
		{"no devices", "linux", "", "{ devices: { exactly: [] } }", ""},
		{"no devices of a job that gets no runner", "linux, xl", "", "{ devices: { exactly: §[] } }", "routed unroutable"},
		{"constraints that must not be there", "linux, xl", "", "{ constraints: { not: §['${meta.a} = b'] } }", "routed unroutable"},
		{"no size", "linux, xl", "", "{ resources: { cpu: §0 } }", "routed unroutable"},
		{"the jobspec's own pool", "linux, xl", "", "{ node_pool: §'' }", "routed unroutable"},
		{"no priority of its own", "linux, xl", "", "{ priority: §0 }", "routed unroutable"},
		{"no limit", "linux, xl", "", "{ limit: { running: §0 } }", "routed unroutable"},
		{"no urgency", "linux, xl", "", "{ urgency: §0 }", "routed unroutable"},
		{"no rerun", "linux, xl", "", "{ rerun: { times: §0 } }", "routed unroutable"},
		{"no limit of its time", "linux, xl", "", "{ time_limit: §0s }", "routed unroutable"},
		{"no enterprise", "linux, xl", "", "{ runner: { enterprise: §'' } }", "routed unroutable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := file + "tests:\n  - { name: a, labels: [self-hosted, " + tt.labels + "], " + tt.more + "expect: " + tt.expect + " }\n"
			before, _, _ := strings.Cut(src, "§")
			s := parse(t, strings.ReplaceAll(src, "§", ""))
			report := s.Test(t.Context(), s.Tests())
			want := []TestFailure{}
			if tt.want != "" {
				expected, got, _ := strings.Cut(tt.want, " ")
				want = append(want, TestFailure{"outcome", strings.Count(before, "\n") + 1, len(before) - strings.LastIndex(before, "\n"), expected, got})
			}
			if d := cmp.Diff(want, report.Tests[0].Failures); d != "" || report.Failed != len(want) {
				t.Errorf("%d failed (-want +got):\n%s", report.Failed, d)
			}
			if reached := len(report.Coverage.MissedRules) < 6; reached != (report.Tests[0].Decision.Outcome == Routed || report.Tests[0].Decision.Outcome == Denied) {
				t.Errorf("%s, but the rules that are missed are %v", report.Tests[0].Decision.Outcome, report.Coverage.MissedRules)
			}
		})
	}
}
