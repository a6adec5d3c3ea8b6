package rules

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTheVocabularyIsDescribed(t *testing.T) {
	set, err := Parse("rules.yaml", []byte(`version: 1
labels:
  linux: {}
  gpu: { devices: [{ name: nvidia/gpu, count: 1 }] }
  "cpu=*":
    param: { name: cpu, type: int, min: 2, max: 32 }
    resources: { cores: '${{ param.cpu }}' }
  "memory=*":
    param: { name: memory, type: size, min: 512MiB, max: 4GiB }
    resources: { memory: '${{ param.memory }}' }
  "os=*":
    param: { name: os, type: string, pattern: '[0-9]+' }
    constraints: ['${attr.os.version} = ${{ param.os }}']
  "zone=*":
    param: { name: zone, type: string, one_of: [a, b] }
    constraints: ['${meta.zone} = ${{ param.zone }}', '${meta.ci} is_set']
    node_pool: ci
  "run-*": {}
  mac: {}
defaults: { max: { cores: 16 } }
rules:
  - { name: no-mac, if: has("mac"), deny: there are no Macs }
  - { name: linux, if: has("linux"), jobspec: docker-linux }
  - { name: beta, if: has("beta") and not has("gpu"), jobspec: docker-linux }
`))
	if err != nil {
		t.Fatal(err)
	}
	both := func(labels ...string) []LabelRule {
		return []LabelRule{
			{Rule: "linux", RunsOn: append([]string{"self-hosted", "linux"}, labels...)},
			{Rule: "beta", RunsOn: append([]string{"self-hosted", "beta"}, labels...)},
		}
	}
	none, means := []string{}, func(pairs ...string) []Meaning {
		list := []Meaning{}
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, Meaning{What: pairs[i], Value: pairs[i+1]})
		}
		return list
	}
	want := []LabelInfo{
		{Name: "linux", Vocabulary: true, Means: means(), Examples: []string{"linux"}, Rules: both()[:1]},
		{Name: "gpu", Vocabulary: true, Means: means("device", "1 × nvidia/gpu"), Examples: []string{"gpu"}, Rules: both("gpu")[:1]},
		{
			Name: "cpu=*", Vocabulary: true, Param: &ParamInfo{Name: "cpu", Type: "int", Least: "2", Most: "32", OneOf: none},
			Means: means("cores", "${{ param.cpu }}"), Examples: []string{"cpu=2", "cpu=32"}, Rules: both("cpu=2"),
		},
		{
			Name: "memory=*", Vocabulary: true, Param: &ParamInfo{Name: "memory", Type: "size", Least: "512MiB", Most: "4GiB", OneOf: none},
			Means: means("memory", "${{ param.memory }}"), Examples: []string{"memory=512MiB", "memory=4GiB"}, Rules: both("memory=512MiB"),
		},
		{
			Name: "os=*", Vocabulary: true, Param: &ParamInfo{Name: "os", Type: "string", OneOf: none, Pattern: "[0-9]+"},
			Means: means("constraint", "${attr.os.version} = ${{ param.os }}"), Examples: []string{"os=1"}, Rules: both("os=1"),
		},
		{
			Name: "zone=*", Vocabulary: true, Param: &ParamInfo{Name: "zone", Type: "string", OneOf: []string{"a", "b"}},
			Means:    means("constraint", "${meta.zone} = ${{ param.zone }}", "constraint", "${meta.ci} is_set", "node pool", "ci"),
			Examples: []string{"zone=a", "zone=b"}, Rules: both("zone=a"),
		},
		{Name: "run-*", Vocabulary: true, Means: means(), Examples: []string{"run-1"}, Rules: both("run-1")},
		{Name: "mac", Vocabulary: true, Means: means(), Examples: []string{"mac"}, Rules: []LabelRule{}},
		{Name: "beta", Means: means(), Examples: []string{"beta"}, Rules: []LabelRule{
			{Rule: "linux", RunsOn: []string{"self-hosted", "linux", "beta"}}, {Rule: "beta", RunsOn: []string{"self-hosted", "beta"}},
		}},
		{Name: "self-hosted", Means: means(), Examples: []string{"self-hosted"}, Rules: both()},
	}
	got := set.Vocabulary()
	same(t, want, got, "Vocabulary()")
	for _, lb := range got { // each example is one that a rule takes, as it is said
		for _, r := range lb.Rules {
			f := Facts{Labels: r.RunsOn, Repo: Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "private"}}
			if d := set.Decide(f, false); d.Rule != r.Rule || d.Outcome != Routed {
				t.Errorf("label %s: %v is %s by rule %q, want rule %q", lb.Name, r.RunsOn, d.Outcome, d.Rule, r.Rule)
			}
		}
	}
	var plainest []string
	for _, e := range set.Plainest() {
		plainest = append(plainest, e.Rule+" "+strings.Join(e.Labels, ",")+" "+e.Placement.Jobspec)
	}
	same(t, []string{"linux self-hosted,linux docker-linux", "beta self-hosted,beta docker-linux"}, plainest, "Plainest()")
	list := set.RuleList()
	wantRules := []RuleInfo{
		{Name: "no-mac", Condition: `has("mac")`, Deny: "there are no Macs", RunsOn: []string{"self-hosted", "mac"}, File: "rules.yaml", Line: 22},
		{Name: "linux", Condition: `has("linux")`, Jobspec: "docker-linux", RunsOn: []string{"self-hosted", "linux"}, File: "rules.yaml", Line: 23},
		{Name: "beta", Condition: `has("beta") and not has("gpu")`, Jobspec: "docker-linux", RunsOn: []string{"self-hosted", "beta"}, File: "rules.yaml", Line: 24},
	}
	same(t, wantRules, list, "RuleList()")
}

// Nothing in the descriptions is null in JSON but a param.
func TestTheExamplesVocabularyHasNoNulls(t *testing.T) {
	src := readFile(t, "../rules.example.yaml")
	set, err := Parse("rules.example.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	for _, lb := range set.Vocabulary() {
		if lb.Means == nil || lb.Examples == nil || lb.Rules == nil || len(lb.Rules) == 0 {
			b, _ := json.Marshal(lb)
			t.Errorf("the example's label %s is %s, want lists and a rule that takes it", lb.Name, b)
		}
	}
}

func TestAJobsLabelsNameEntries(t *testing.T) {
	set, err := Parse("rules.yaml", []byte(`version: 1
compound: { prefix: 'yard=', separator: '/' }
labels: { self-hosted: {}, linux: {}, "run-*": {}, "cpu=*": { param: { name: cpu, type: int, min: 1, max: 4 }, resources: { cores: '${{ param.cpu }}' } } }
rules: [{ name: linux, if: 'has("linux") and not has("beta")', jobspec: docker-linux }]
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ labels, entries, unknown []string }{
		{[]string{"Linux", "LINUX ", "run-1", "run-2"}, []string{"linux", "run-*"}, nil},
		{[]string{"yard=7/linux/cpu=99/beta"}, []string{"self-hosted", "linux", "cpu=*", "beta"}, nil},
		{[]string{"linus", "cpu", "\x1b[31m", ""}, nil, []string{"linus", "cpu"}},
		{nil, nil, nil},
	} {
		entries, unknown := set.Named(tt.labels)
		same(t, [][]string{tt.entries, tt.unknown}, [][]string{entries, unknown}, "Named(%q)", tt.labels)
	}
	for label, want := range map[string][]string{"linus": {"linux"}, "Ubuntu": {"linux"}, "zzzzzz": nil} {
		same(t, want, set.Nearest(label), "Nearest(%q)", label)
	}
}

func TestLabelsThatTheRulesKnow(t *testing.T) {
	parse := func(text string) *Set {
		t.Helper()
		set, err := Parse("rules.yaml", []byte("version: 1\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	set := parse(`
compound: { prefix: 'yard=', separator: '/' }
labels: { linux: {}, "run-*": {}, "cpu=*": { param: { name: cpu, type: int, min: 1, max: 32 }, resources: { cores: '${{ param.cpu }}' } } }
rules:
  - { name: linux, if: has("linux") and not has("beta"), jobspec: docker-linux }
`)
	open := parse(`
labels: { linux: {}, "*": {} }
rules:
  - { name: linux, if: has("linux") and not has("beta"), jobspec: docker-linux }
`)
	for _, c := range []struct {
		name   string
		set    *Set
		labels []string
		want   bool
	}{
		{"the vocabulary and the scope have them, in any case", set, []string{"Self-Hosted", " LINUX "}, true},
		{"a condition asks for one", set, []string{"self-hosted", "beta"}, true},
		{"a pattern has one", set, []string{"self-hosted", "run-17"}, true},
		{"a value out of its bounds", set, []string{"self-hosted", "cpu=64"}, true},
		{"the parts of a compound label", set, []string{"yard=17/linux/cpu=8"}, true},
		{"a part of a compound label that nobody knows", set, []string{"yard=17/linux/cpus=8"}, false},
		{"one label of another stack", set, []string{"self-hosted", "linux", "arc-runner-set"}, false},
		{"two labels in one text", set, []string{"self-hosted", "self-hosted, linux"}, false},
		{"no labels, as of a job that asks for a group", set, nil, false},
		{"an empty label", set, []string{"self-hosted", " "}, false},
		{"one that cannot be printed", set, []string{"self-hosted", "li\x1bnux"}, false},
		{"one that is too long", set, []string{"self-hosted", "run-" + strings.Repeat("1", 300)}, false},
		{"too many", set, make([]string, 101), false},
		{"any label at all is no name", open, []string{"self-hosted", "arc-runner-set"}, false},
		{"a name beside any label at all", open, []string{"self-hosted", "linux", "beta"}, true},
	} {
		if got := c.set.Knows(c.labels); got != c.want {
			t.Errorf("%s: Knows(%q) = %v, want %v", c.name, c.labels, got, c.want)
		}
	}
}
