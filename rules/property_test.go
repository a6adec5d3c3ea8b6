package rules

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/expr-lang/expr"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"switchyard/rules/internal/cond"
)

// Few words, so that rules and jobs meet.
var (
	someLabels = []string{"linux", "macos", "gpu", "large", "cpu=4", "cpu=16", "zone=a", "run-1"}
	someOwners = []string{"acme", "other", "ACME", "Other"}
)

const someVocabulary = `version: 1
labels:
  self-hosted: {}
  linux: { constraints: ['${attr.kernel.name} = linux'] }
  macos: { constraints: ['${attr.kernel.name} = darwin'] }
  gpu: { devices: [{ name: nvidia/gpu, count: '${{ hasAny("large") ? 2 : 1 }}' }] }
  large: { resources: { cpu: 8000, memory: 16GiB }, task: { env: { SIZE: large } } }
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 32 }, resources: { cores: '${{ param.cpu }}' } }
  "zone=*": { param: { name: zone, type: string, one_of: [A] }, node_pool: 'zone-${{ param.zone }}' }
  "run-*": {}
defaults: { resources: { cpu: 1000 }, max: { cores: 12 } }
rules:
`

// drawCondition makes a condition. For some jobs it fails.
func drawCondition(t *rapid.T) string {
	var parts []string
	for range rapid.IntRange(1, 4).Draw(t, "parts") {
		var labels []string
		for _, l := range rapid.SliceOfN(rapid.SampledFrom(someLabels), 1, 3).Draw(t, "labels") {
			labels = append(labels, fmt.Sprintf("%q", l))
		}
		list := strings.Join(labels, ", ")
		parts = append(parts, rapid.SampledFrom([]string{
			labels[0] + " in labels", labels[0] + " not in labels",
			"has(" + list + ")", "hasAny(" + list + ")", "not hasAny(" + list + ")", "not has(" + list + ")",
			`only("self-hosted", ` + list + ")", "any(labels, # in [" + list + "])", "(has(" + labels[0] + ") or has(" + labels[len(labels)-1] + "))",
			`repo.owner == "acme"`, `repo.owner != "acme"`, `repo.full_name == "other/web"`, "repo.private", "not repo.private", `job.branch startsWith "ma"`,
			"param.cpu > 8", `run.event == "push"`, "not run.fork", `run.actor in ["a", "b"]`, `run.event startsWith "pull"`, `not (has("gpu") and repo.private)`,
			`repo.owner in ["acme", "else"]`, `(has("gpu") and repo.private or has("gpu", "large"))`, `exactly("self-hosted", ` + list + ")", "true", "false", "not (param.cpu > 8 or " + labels[0] + " in labels)",
			`(param.cpu ?? 1.0) > 8`, `param.zone == "A"`, "labels[2] == " + labels[0],
			`(repo.private ? has("gpu") : param.cpu > 8)`, `(param.cpu != nil ? param.cpu > 8 : run.fork)`, `(has("gpu") ? repo.private : has("large") ? false : true)`,
			`repo.owner == "ACME"`, `repo.owner != "Other"`, `"Acme" == repo.owner`, `repo.owner in ["Acme", "ELSE"]`, `repo.owner not in ["OTHER"]`, `repo.full_name == "ACME/Web"`, `repo.owner startsWith "AC"`,
			`not (repo.full_name in ["Other/WEB", "x/y"])`, `repo.owner matches "^ACME$"`, `lower(repo.owner) == "Acme"`, `upper(repo.owner) in ["acme"]`, `repo.owner + "/web" == "Acme/WEB"`,
			"upper(" + labels[0] + ") in labels", "any(labels, # == upper(" + labels[0] + "))", `param.zone == "a"`, `param.zone in ["A", "b"]`, `run.event == "PUSH"`, `{"ACME": 1}[repo.owner] == 1`,
		}).Draw(t, "part"))
	}
	return strings.Join(parts, rapid.SampledFrom([]string{" and ", " && ", " or "}).Draw(t, "join"))
}

func drawRules(t *rapid.T) []string {
	rules := make([]string, rapid.IntRange(1, 12).Draw(t, "rules"))
	for i := range rules {
		rules[i] = fmt.Sprintf("  - { name: r%d, %s, if: '%s' }\n", i, rapid.SampledFrom([]string{"jobspec: j", "jobspec: k", "deny: no"}).Draw(t, "how"), drawCondition(t))
	}
	return rules
}

func drawJob(t *rapid.T) Facts {
	f := job(rapid.SliceOfDistinct(rapid.SampledFrom(someLabels), rapid.ID).Draw(t, "job")...)
	f.Repo.Owner = rapid.SampledFrom(someOwners).Draw(t, "owner")
	f.Repo.FullName = f.Repo.Owner + "/web"
	f.Repo.Private = rapid.Bool().Draw(t, "private")
	if rapid.Bool().Draw(t, "run known") {
		f.Run = &Run{Event: rapid.SampledFrom([]string{"push", "pull_request"}).Draw(t, "event"), Fork: rapid.Bool().Draw(t, "fork"), Actor: "b"}
	}
	return f
}

// The first rule that holds by itself is the one that wins among others.
func TestTheFirstMatchWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, f := drawRules(t), drawJob(t)
		got := parse(t, someVocabulary+strings.Join(rules, "")).Decide(f, false)
		for _, r := range rules {
			alone := parse(t, someVocabulary+r).Decide(f, false)
			if alone.Rule == "" {
				continue
			}
			if d := cmp.Diff(alone, got); d != "" {
				t.Fatalf("the first rule that holds or fails decides otherwise among the others (-alone +among others):\n%s", d)
			}
			return
		}
		if got.Rule != "" {
			t.Fatalf("rule %s took a job that no rule takes by itself", got.Rule)
		}
	})
}

func TestALaterRuleNeverChangesAnEarlierMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, f := drawRules(t), drawJob(t)
		before := parse(t, someVocabulary+strings.Join(rules[:len(rules)-1], "")+"  - { name: last, if: 'false', jobspec: j }\n").Decide(f, false)
		after := parse(t, someVocabulary+strings.Join(rules, "")).Decide(f, false)
		if before.Rule == "" {
			return
		}
		if d := cmp.Diff(before, after); d != "" {
			t.Fatalf("a later rule changed the decision (-before +after):\n%s", d)
		}
	})
}

// Without a trace the index chooses which rules are asked: it must change nothing.
func TestExplainingAgreesWithDeciding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, f := drawRules(t), drawJob(t)
		s := parse(t, someVocabulary+strings.Join(rules, ""))
		decided, explained := s.Decide(f, false), s.Decide(f, true)
		trace := explained.Trace
		explained.Trace, explained.Nearest = nil, nil
		if d := cmp.Diff(decided, explained); d != "" {
			t.Fatalf("the trace changed the decision (-without +with):\n%s", d)
		}
		for i, step := range trace {
			if last := i == len(trace)-1; step.Held != (last && decided.Rule != "" && decided.Outcome != Undecided && !strings.HasPrefix(decided.Reason, "rule error")) {
				t.Fatalf("step %d of %d says that %s held = %v, but the decision is %q", i+1, len(trace), step.Rule, step.Held, decided.Reason)
			}
			if step.Why == "" {
				t.Fatalf("rule %s has no reason", step.Rule)
			}
		}
	})
}

// The index leaves rules out: what it finds is what the plain scan finds.
func TestTheIndexFindsWhatTheScanFinds(t *testing.T) {
	const jobs = 1000 // of each of rapid's rule sets
	rapid.Check(t, func(t *rapid.T) {
		s := parse(t, someVocabulary+strings.Join(drawRules(t), ""))
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range jobs {
			f := someJob(r)
			found := s.decide(f, s.first)
			scanned := s.decide(f, linear(s))
			if found.Outcome != scanned.Outcome || found.Rule != scanned.Rule || found.Reason != scanned.Reason {
				t.Fatalf("%+v\nby the index: %s %s: %s\nby a scan:    %s %s: %s", f, found.Outcome, found.Rule, found.Reason, scanned.Outcome, scanned.Rule, scanned.Reason)
			}
		}
	})
}

// someJob is drawJob without rapid, which is slow.
func someJob(r *rand.Rand) Facts {
	f := job()
	for _, i := range r.Perm(len(someLabels))[:r.IntN(len(someLabels)+1)] {
		f.Labels = append(f.Labels, someLabels[i])
	}
	f.Repo.Owner = someOwners[r.IntN(len(someOwners))]
	f.Repo.FullName = f.Repo.Owner + "/web"
	f.Repo.Private = r.IntN(2) == 0
	if r.IntN(2) == 0 {
		f.Run = &Run{Event: []string{"push", "pull_request"}[r.IntN(2)], Fork: r.IntN(2) == 0, Actor: "b"}
	}
	return f
}

// A condition is taken apart, and some parts are answered without a program:
// that must mean what the whole means to the expression library.
func TestAConditionInPartsMeansTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		source, f := drawCondition(t), drawJob(t)
		s := parse(t, someVocabulary+"  - { name: r, jobspec: j, if: '"+source+"' }\n")
		l := cond.NewLanguage(&s.vocabulary, map[string]bool{})
		whole, err := l.Compile(source, true, expr.AsBool())
		if err != nil {
			t.Fatal(err)
		}
		env := &cond.Env{Labels: f.Labels, Repo: f.Repo, Job: f.Job, Run: Run{Event: "push", Actor: "a"}, RunKnown: true}
		if _, _, err := s.read(env); err != nil {
			return
		}
		held, err := s.rules[0].when.Holds(env)
		v, wholeErr := cond.Evaluate(whole, env)
		if (err != nil) != (wholeErr != nil) || err == nil && held != v {
			t.Fatalf("in parts: %v, %v; as a whole: %v, %v", held, err, v, wholeErr)
		}
	})
}

func TestTheOrderOfLabelsAndTheCaseOfNamesDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := slices.DeleteFunc(drawRules(t), func(r string) bool { return strings.Contains(r, "labels[2]") })
		if len(rules) == 0 {
			return
		}
		f := drawJob(t)
		s := parse(t, someVocabulary+strings.Join(rules, ""))
		other := f
		other.Labels = rapid.Permutation(f.Labels).Draw(t, "order")
		for i, l := range other.Labels {
			other.Labels[i] = rapid.SampledFrom([]string{l, strings.ToUpper(l), " " + l}).Draw(t, "case")
		}
		for _, name := range []*string{&other.Repo.Owner, &other.Repo.Name, &other.Repo.FullName} {
			*name = rapid.SampledFrom([]string{*name, strings.ToUpper(*name), strings.ToLower(*name)}).Draw(t, "case")
		}
		a, b := s.Decide(f, false), s.Decide(other, false)
		slices.Sort(a.Labels)
		slices.Sort(b.Labels)
		if strings.Contains(a.Reason, "labels") { // a reason lists labels as they came
			a.Reason, b.Reason = "", ""
		}
		if d := cmp.Diff(a, b); d != "" {
			t.Fatalf("%q and %q are decided differently:\n%s", f.Labels, other.Labels, d)
		}
	})
}

func TestALabelNeverLowersASize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, f := parse(t, someVocabulary+strings.Join(drawRules(t), "")), drawJob(t)
		more := f
		more.Labels = append(slices.Clone(f.Labels), rapid.SampledFrom(someLabels).Draw(t, "label"))
		a, b := s.Decide(f, false), s.Decide(more, false)
		if a.Outcome != Routed || b.Outcome != Routed || a.Rule != b.Rule {
			return
		}
		if a.Resources.Cores > 0 && b.Resources.Cores < a.Resources.Cores || a.Resources.CPU > b.Resources.CPU && b.Resources.Cores == 0 ||
			b.Resources.MemoryMB < a.Resources.MemoryMB || b.Resources.DiskMB < a.Resources.DiskMB || b.Resources.MemoryMaxMB < a.Resources.MemoryMaxMB {
			t.Fatalf("%q: %+v\n%q: %+v", f.Labels, a.Resources, more.Labels, b.Resources)
		}
		for _, d := range a.Devices {
			if !slices.ContainsFunc(b.Devices, func(e Device) bool { return e.Name == d.Name && e.Count >= d.Count }) {
				t.Fatalf("%q: %+v\n%q: %+v", f.Labels, a.Devices, more.Labels, b.Devices)
			}
		}
	})
}

func TestNoAcceptedDecisionExceedsMax(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := func(name string) int { return rapid.IntRange(100, 20_000).Draw(t, name) }
		src := fmt.Sprintf(`version: 1
labels:
  self-hosted: {}
  gpu: { resources: { cpu: %d, memory: %d } }
  large: { resources: { disk: %d, memory_max: %d } }
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 32 }, resources: { cores: '${{ param.cpu }}', memory: '${{ param.cpu * 1000 }}' } }
defaults: { resources: { memory: %d }, max: { cpu: 8000, cores: 12, memory: 10000, memory_max: 12000, disk: 9000 } }
rules:
  - { name: a, if: has("gpu"), jobspec: j, max: { memory: 5000, cores: 4 }, fallback: [{ after: 1m, resources: { memory: %d } }] }
  - { name: b, jobspec: j, resources: { disk: %d } }
`, size("cpu"), size("memory"), size("disk"), size("memory max"), size("default"), size("fallback"), size("rule"))
		d := parse(t, src).Decide(job(rapid.SliceOfDistinct(rapid.SampledFrom([]string{"gpu", "large", "cpu=4", "cpu=16"}), rapid.ID).Draw(t, "job")...), false)
		most := map[string]Resources{"a": {8000, 4, 5000, 12000, 9000}, "b": {8000, 12, 10000, 12000, 9000}}[d.Rule]
		placements := []Placement{d.Placement}
		for _, f := range d.Fallback {
			placements = append(placements, f.Placement)
		}
		for _, p := range placements {
			r := p.Resources
			if r.CPU > most.CPU || r.Cores > most.Cores || r.MemoryMB > most.MemoryMB || r.MemoryMaxMB > most.MemoryMaxMB || r.DiskMB > most.DiskMB {
				t.Fatalf("%+v exceeds %+v", r, most)
			}
		}
	})
}

func TestEveryValueOfADecisionHasASource(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, f := drawRules(t), drawJob(t)
		d := parse(t, someVocabulary+strings.Join(rules, "")).Decide(f, false)
		sources := slices.Collect(maps.Values(d.From))
		for _, c := range d.Constraints {
			sources = append(sources, c.From)
		}
		for _, dev := range d.Devices {
			sources = append(sources, dev.From)
		}
		for _, from := range sources {
			label, isLabel := strings.CutPrefix(from, "label ")
			if from != "defaults" && from != "built in" && from != "rule "+d.Rule && !(isLabel && slices.Contains(d.Labels, label)) {
				t.Fatalf("a value comes from %q, with the rule %s and the labels %q", from, d.Rule, d.Labels)
			}
		}
		for _, line := range outline(d) {
			if strings.HasSuffix(line, "(nowhere)") {
				t.Fatal(line)
			}
		}
	})
}

func TestDecideTakesWhateverAStrangerWrites(t *testing.T) {
	s := example(t)
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"self-hosted", "linux", "yard=1/linux", "yard=//", "cpu=", "cpu=-1", "memory=1GiB", "zone=", "run-${x}", "run-*", "*", "gpus=*"}))
		d := s.Decide(Facts{
			Labels: rapid.SliceOf(word).Draw(t, "labels"),
			Repo:   Repo{Owner: word.Draw(t, "owner"), Name: word.Draw(t, "name"), Private: true},
			Job:    Job{Name: word.Draw(t, "job"), Branch: word.Draw(t, "branch")},
		}, rapid.Bool().Draw(t, "trace"))
		checkDecision(t, d)
	})
}
