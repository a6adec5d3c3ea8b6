package rules

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/yamlfile"
)

// costlyRules are n rules with a pattern that takes long for long labels, and one for the rest.
func costlyRules(n int, pattern string) string {
	var b strings.Builder
	b.WriteString("version: 1\nlabels: { self-hosted: {}, linux: {}, 'run-*': {} }\nrules:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - { name: r%d, jobspec: j, if: '"+pattern+"' }\n", i, i)
	}
	b.WriteString("  - { name: linux, if: has(\"linux\"), jobspec: j }\n")
	return b.String()
}

// longLabels are as many labels as a job may have, each nearly as long as it may be.
func longLabels() []string {
	labels := []string{"linux"}
	for i := range MaxLabels - 2 {
		labels = append(labels, fmt.Sprintf("run-%s%d", strings.Repeat("ab", 110), i))
	}
	return labels
}

// A job for which the rules take too long gets no runner, and the rule is said;
// other jobs are routed by the same rules.
func TestADecisionHasABudget(t *testing.T) {
	const limit = cond.DecisionSteps / 50 // so that fewer rules do
	for name, tt := range map[string]struct{ rules, want string }{
		"patterns over the labels":         {costlyRules(20, `any(labels, # matches "(a?b?a?b?){80}c%d")`), "rule r0"},
		"patterns that are each within it": {costlyRules(40, `any(labels, # matches "a?b?%d")`), "rule r"},
		"patterns over a text":             {costlyRules(60, `job.name matches "(a?b?a?b?){80}c%d"`), "rule r"},
		"patterns over parts of a text":    {costlyRules(20, `any(split(job.name, "b"), # matches "(a?b?a?b?){80}c%d")`), "rule r"},
		"patterns over texts put together": {costlyRules(40, `join(labels, "-") matches "(a?b?a?b?){80}c%d"`), "rule r"},
		"functions in a loop":              {costlyRules(200, `any(labels, upper(trim(lower(#))) contains "x%d")`), "rule r"},
		"texts taken out in any case":      {costlyRules(60, `any(labels, trimPrefix(#, "run-ab") == "%d")`), "rule r"},
		"a pattern of a param":             {strings.Replace(costlyRules(1, `has("x%d")`), "'run-*': {}", `'run-*': { param: { name: run, type: string, pattern: "([ab]?){1000}[0-9]*" } }`, 1), `label "run-`},
	} {
		t.Run(name, func(t *testing.T) {
			s := parse(t, tt.rules)
			f := job(longLabels()...)
			f.Job.Name = strings.Repeat("ab", 110)
			d, spent := s.decideWithin(limit, f, s.first)
			if d.Outcome != Unroutable || !strings.Contains(d.Reason, tt.want) || !strings.Contains(d.Reason, "takes too long") {
				t.Errorf("a job with long labels is %s: %s", d.Outcome, d.Reason)
			}
			if strings.HasPrefix(tt.want, "rule") && d.Rule == "" {
				t.Errorf("the decision names no rule: %s", d.Reason)
			}
			if spent < limit {
				t.Errorf("it took %d steps, and was given %d", spent, limit)
			}
			again, _ := s.decideWithin(limit, f, func(env *cond.Env, d *Decision) (*rule, error) { return s.scan(env, d, false) })
			again.Trace, again.Nearest = nil, nil
			if diff := cmp.Diff(d, again); diff != "" {
				t.Errorf("the trace changed the decision (-without +with):\n%s", diff)
			}
			short := job("linux")
			if d, spent := s.decideWithin(cond.DecisionSteps, short, s.first); d.Rule != "linux" || spent > cond.DecisionSteps/2 {
				t.Errorf("a job with short labels is %s after %d steps: %s", d.Outcome, spent, d.Reason)
			}
		})
	}
}

// Files of honest size are far from what a decision may take.
func TestManyRulesAreWithinTheBudget(t *testing.T) {
	s := parse(t, manyRules(2000))
	f := job("linux", "x64", "gpu", "cpu=8")
	if d, spent := s.decideWithin(cond.DecisionSteps, f, linear(s)); d.Outcome != Routed || spent > cond.DecisionSteps/50 {
		t.Errorf("all of 2000 rules take %d of %d steps: %s", spent, cond.DecisionSteps, d.Reason)
	}
}

// To say why takes no longer than to decide.
func TestATraceHasABudget(t *testing.T) {
	s := parse(t, strings.Replace(costlyRules(40, `any(labels, # matches "(a?b?){20}c%d")`), "rules:\n", "rules:\n  - { name: first, if: has(\"linux\"), jobspec: j }\n", 1))
	d := s.Explain(job(longLabels()...))
	if d.Rule != "first" || len(d.Trace) != len(s.rules) {
		t.Fatalf("rule %q, and a trace of %d rules", d.Rule, len(d.Trace))
	}
	if said := d.Trace[1].Why; !strings.HasPrefix(said, "false: ") {
		t.Errorf("the second rule: %s", said)
	}
	if said := d.Trace[30].Why; !strings.Contains(said, "takes too long") {
		t.Errorf("the thirtieth rule: %s", said)
	}
}

// What is loaded, tested and compared ends when nobody waits for it any more.
func TestALookEndsWithItsContext(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	src := manyRules(10)
	if _, err := Load(ended, File{"rules.yaml", []byte(src)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Load returned %v", err)
	}
	s := parse(t, src+"tests:\n  - { name: a, labels: [linux], repo: acme/web, expect: { rule: rule-9 } }\n")
	if r := s.Test(ended, s.Tests()); r.Skipped != 1 || r.Passed+r.Failed+len(r.Tests) != 0 {
		t.Errorf("Test reported %+v", r)
	}
	within, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, err := Compare(within, s, s, func(yield func(Record, error) bool) {
		for i := range 1000 {
			if i == 600 {
				cancel()
			}
			if !yield(Record{Facts: job("linux")}, nil) {
				return
			}
		}
	})
	if !errors.Is(err, context.Canceled) || c.Jobs != 512 {
		t.Errorf("Compare counted %d jobs: %v", c.Jobs, err)
	}
}

// Of many failed tests only the first have a trace: each has a step for each rule.
func TestTheTracesOfFailedTestsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(costlyRules(999, `job.name == "%d"`) + "tests:\n")
	for i := range 30 {
		fmt.Fprintf(&b, "  - { name: t%d, labels: [self-hosted, linux], repo: acme/web, expect: { rule: r1 } }\n", i)
	}
	s := parse(t, b.String())
	r, steps := s.Test(t.Context(), s.Tests()), 0
	for _, test := range r.Tests {
		steps += len(test.Decision.Trace)
	}
	if r.Failed != 30 || len(r.Tests[9].Decision.Trace) != 1000 || steps != maxTraced {
		t.Errorf("%d tests failed, and their traces have %d steps", r.Failed, steps)
	}
}

// Nobody reads thousands of faults, and looking for them takes time.
func TestFaultsAreBounded(t *testing.T) {
	for name, src := range map[string]string{
		"directives":    strings.Repeat("%YAML 1.2\n", 5000),
		"tags":          "version: 1\n" + numbered("k%d: !!str x\n"),
		"unknown keys":  "version: 1\n" + numbered("k%d: x\n"),
		"rules":         "version: 1\nrules:\n" + strings.Repeat("- x\n", 5000),
		"tests":         "version: 1\nrules: [{ name: a, jobspec: j }]\ntests:\n" + numbered("- { name: t%d, labels: [a], expect: { rule: b } }\n"),
		"expressions":   "version: 1\nrules:\n" + numbered("- { name: r%d, jobspec: j, if: nonsense }\n"),
		"labels":        "version: 1\nrules: [{ name: a, jobspec: j }]\nlabels:\n" + numbered("  l%d: { nonsense: 1 }\n"),
		"several files": "version: 1\nrules:\n" + strings.Repeat("- x\n", 600),
	} {
		t.Run(name, func(t *testing.T) {
			files := []File{{"a.yaml", []byte(src)}}
			if name == "several files" {
				files = append(files, File{"b.yaml", []byte(src)})
			}
			_, err := Load(t.Context(), files...)
			var faults Diagnostics
			if !errors.As(err, &faults) || len(faults) != yamlfile.MaxFaults+1 || !strings.Contains(faults[yamlfile.MaxFaults].Message, "there are more than 1000 faults") {
				t.Errorf("%d faults, the last %v", len(faults), faults[max(len(faults)-1, 0):])
			}
		})
	}
}

func numbered(format string) string {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// What is compiled for a set of files has one bound.
func TestExpressionsHaveABoundTogether(t *testing.T) {
	v := &vocabulary{}
	l := cond.NewLanguage(v, map[string]bool{})
	l.Patterns = cond.MaxAllPatterns - 10
	if _, err := l.Condition(`job.name matches "ab"`, true); err != nil {
		t.Error(err)
	}
	if _, err := l.Condition(`job.name matches "a{10}"`, true); err == nil || !strings.Contains(err.Error(), "the files exceed a maximum") {
		t.Errorf("more patterns than are taken: %v", err)
	}
	l = cond.NewLanguage(v, map[string]bool{})
	l.Programs = cond.MaxPrograms
	if _, err := l.Condition(`job.name startsWith "ab"`, true); err == nil || !strings.Contains(err.Error(), "the files exceed a maximum") {
		t.Errorf("more expressions than are taken: %v", err)
	}
}
