package rules

import (
	"context"
	"slices"
	"strconv"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
	"switchyard/rules/internal/yamlfile"
)

// A Test is an example of a job, and what the rules must make of it. It is immutable and safe for
// concurrent use. Its JSON form, and that of the report, is a contract.
type Test struct {
	Name   string `json:"name"` // one of its kind in its file
	File   string `json:"file"`
	Line   int    `json:"line"` // where it begins, as the next one from 1
	Column int    `json:"column"`
	Facts  Facts  `json:"facts"`
	expect []expectation
}

// An expectation is one thing that a test says of the decision.
type expectation struct {
	what         string // "rule", "resources.memory", "fallback 5m.node_pool"
	line, column int
	want         string
	places       bool                                  // only a routed job has it
	compare      func(*Decision) (got string, ok bool) // got is for people
}

// A TestReport is the result of tests.
type TestReport struct {
	Passed   int          `json:"passed"`
	Failed   int          `json:"failed"`
	Skipped  int          `json:"skipped,omitempty"` // those that there was no time for; Tests does not have them
	Tests    []TestResult `json:"tests"`             // in the order they were given
	Coverage *Coverage    `json:"coverage,omitempty"`
}

// A TestResult is the result of one test.
type TestResult struct {
	Test
	Passed   bool          `json:"passed"`
	Failures []TestFailure `json:"failures"` // in the order of the decision; empty when it passed
	Decision Decision      `json:"decision"` // with the trace when it failed, until the traces have 10,000 steps
}

// A TestFailure is one part of a decision that is not what the test says. The texts are printable.
type TestFailure struct {
	What     string `json:"what"` // "rule", "resources.memory", "task.env.FOO"
	Line     int    `json:"line"` // of what was expected
	Column   int    `json:"column"`
	Expected string `json:"expected"`
	Got      string `json:"got"`
}

// Coverage says what no test reaches. A test reaches the rule that takes or
// denies its job, and then the entries of the vocabulary that the job's labels
// name; a job that no rule takes, or that cannot be placed, reaches nothing.
type Coverage struct {
	Rules        int      `json:"rules"`         // how many there are
	Labels       int      `json:"labels"`        // entries of the vocabulary
	MissedRules  []Missed `json:"missed_rules"`  // in the order of the files, as the next
	MissedLabels []Missed `json:"missed_labels"` // as in the vocabulary: "cpu=*"
}

// Missed is a rule or label that no test reaches, and where it stands.
type Missed struct {
	Name   string `json:"name"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// Tests returns the tests that stand in the rules files, in their order.
func (s *Set) Tests() []Test { return slices.Clone(s.tests) }

// maxTraced is the most steps in the traces of a report, each a few hundred bytes.
const maxTraced = 10_000

// Test decides the job of each test and compares. The report has the coverage
// of all of them together. It ends with ctx.
func (s *Set) Test(ctx context.Context, tests []Test) TestReport {
	report := TestReport{Tests: make([]TestResult, 0, len(tests))}
	traced := 0
	rules, labels := map[string]bool{}, map[*label]bool{}
	denies := make(map[string]bool, len(s.rules))
	for i := range s.rules {
		denies[s.rules[i].name] = s.rules[i].deny != ""
	}
	for i, t := range tests {
		if ctx.Err() != nil {
			report.Skipped = len(tests) - i
			break
		}
		d := s.Decide(t.Facts, false) // as the server does it
		failures := t.failures(&d)
		if e, ok := t.implied(denies); ok && string(d.Outcome) != e.want {
			failures = slices.Insert(failures, 0, TestFailure{e.what, e.line, e.column, e.want, string(d.Outcome)})
		}
		if len(failures) == 0 {
			report.Passed++
		} else {
			report.Failed++
			if traced < maxTraced {
				d = s.Decide(t.Facts, true)
				traced += len(d.Trace)
			}
		}
		report.Tests = append(report.Tests, TestResult{t, len(failures) == 0, failures, d})
		if d.Outcome != Routed && d.Outcome != Denied {
			continue
		}
		rules[d.Rule] = true
		for _, name := range d.Labels {
			if l, _ := s.vocabulary.find(name); l != nil {
				labels[l] = true
			}
		}
	}

	c := Coverage{Rules: len(s.rules), MissedRules: []Missed{}, MissedLabels: []Missed{}}
	for i := range s.rules {
		if ru := &s.rules[i]; !rules[ru.name] {
			c.MissedRules = append(c.MissedRules, missed(ru.name, ru.at))
		}
	}
	for _, l := range s.vocabulary.all() {
		c.Labels++
		if !labels[l] {
			c.MissedLabels = append(c.MissedLabels, missed(l.pattern, l.at))
		}
	}
	report.Coverage = &c
	return report
}

func missed(name string, at cond.Spot) Missed { return Missed{name, at.File, at.Line, at.Column} }

// implied returns the outcome that a test expects without saying so: it names a rule that denies,
// or one that does not, or something that only a routed job has. denies has every rule.
func (t *Test) implied(denies map[string]bool) (e expectation, ok bool) {
	find := func(what string) *expectation {
		if i := slices.IndexFunc(t.expect, func(e expectation) bool { return e.what == what }); i >= 0 {
			return &t.expect[i]
		}
		return nil
	}
	if find("outcome") != nil {
		return e, false
	}
	at, want := find("rule"), Routed
	if at == nil {
		i := slices.IndexFunc(t.expect, func(e expectation) bool { return e.places })
		if i < 0 {
			return e, false
		}
		at = &t.expect[i]
	} else if does, found := denies[at.want]; !found {
		return e, false // none is expected, or there is no such rule
	} else if does {
		want = Denied
	}
	return expectation{what: "outcome", line: at.line, column: at.column, want: string(want)}, true
}

// failures compares a decision with what the test expects.
func (t *Test) failures(d *Decision) []TestFailure {
	failures := []TestFailure{}
	for _, e := range t.expect {
		if got, ok := e.compare(d); !ok {
			failures = append(failures, TestFailure{escaped(e.what), e.line, e.column, escaped(e.want), escaped(got)})
		}
	}
	return failures
}

// escaped writes what is not printable as Go does.
func escaped(s string) string {
	if words.Printable(s) {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// CheckTests returns a fault for each test that expects a rule that does not
// exist. Tests in the rules files themselves are checked when they load.
func (s *Set) CheckTests(tests []Test) Diagnostics {
	if len(s.rules) == 0 { // a fault of its own
		return nil
	}
	names := s.Rules()
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	var faults Diagnostics
	for _, t := range tests {
		if len(faults) > yamlfile.MaxFaults {
			break
		}
		for _, e := range t.expect {
			if e.what != "rule" || e.want == none || there[e.want] {
				continue
			}
			message := "expect: there is no rule " + words.Quote(e.want)
			if len(faults) < 100 { // more of them are no misspellings, and looking takes long
				message += words.DidYouMean(e.want, names)
			}
			faults = append(faults, Diagnostic{File: t.File, Line: e.line, Column: e.column, Message: message})
		}
	}
	return faults.sort().cut()
}
