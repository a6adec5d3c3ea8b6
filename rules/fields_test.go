package rules

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestTheTableHasEveryFieldOfAPlacement(t *testing.T) {
	var want, got []string
	var walk func(reflect.Type, string)
	walk = func(in reflect.Type, prefix string) {
		for f := range in.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Type.Kind() == reflect.Struct:
				walk(f.Type, prefix+name+".")
			case name != "from":
				want = append(want, prefix+name)
			}
		}
	}
	walk(reflect.TypeFor[Placement](), "")
	each(placementFields, func(f *field) {
		if f.fields == nil {
			got = append(got, f.path)
		}
	})
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("the table is not the placement, in its order (-placement +table):\n%s", d)
	}
}

// A file that sets a field to its example shows whether all readers of the
// table follow it. A field that is added is tried without a line here.
func TestEveryReaderFollowsTheTable(t *testing.T) {
	each(placementFields, func(f *field) {
		if f.fields != nil || f.target {
			return
		}
		t.Run(f.name(), func(t *testing.T) {
			value := f.example
			if f.words != nil {
				value = f.words[1] // not what is so by itself
			}
			section := func(value string) string {
				value = f.key + ": " + value
				switch f.name() { // it needs another
				case "runner.enterprise":
					value += ", scope: enterprise"
				case "runner.group":
					value += ", scope: organization"
				}
				if f.section != nil {
					value = f.section.key + ": { " + value + " }"
				}
				return value
			}
			const head = "version: 1\n"
			rule := func(more string) string {
				return head + "rules:\n  - { name: r, jobspec: j" + more + " }\n"
			}
			with, without := parse(t, rule(", "+section(value))), parse(t, rule(""))
			d := with.Decide(job(), false)
			if f.of != nil && (f.text(&d.Placement) == "" || d.From[f.path] != "rule r") {
				t.Errorf("the rule's %s gives %q from %q", value, f.text(&d.Placement), d.From[f.path])
			}
			set := strings.Join(outline(d), "; ")

			comparison, err := Compare(t.Context(), without, with, records(job()))
			if err != nil || len(comparison.Groups) != 1 || !slices.ContainsFunc(comparison.Groups[0].Changes, func(c Change) bool { return strings.HasPrefix(c.Part, f.path) }) {
				t.Errorf("the comparison with a file without it is %+v, %v", comparison, err)
			}

			label := parse(t, head+"labels: { l: { "+section(value)+" } }\nrules: [{ name: r, jobspec: j }]\n")
			if got := strings.Join(outline(label.Decide(job("l"), false)), "; "); got != strings.ReplaceAll(set, "(rule r)", "(label l)") {
				t.Errorf("the label gives %s, and the rule %s", got, set)
			}
			if means := label.Vocabulary()[0].Means; len(means) == 0 {
				t.Error("the vocabulary does not say what the label means")
			}
			if what := d.Rows(); len(what) <= len(without.Decide(job(), false).Rows()) && f.section == nil {
				t.Errorf("the rows for people are %v", what)
			}

			tests := "tests: [{ name: t, labels: [self-hosted], repo: acme/web, expect: { " + section(strings.ReplaceAll(value, "${{ repo.full_name }}", "acme/web")) + " } }]\n"
			if report := parse(t, rule(", "+section(value))+tests).Test(t.Context(), parse(t, rule(", "+section(value))+tests).Tests()); report.Failed != 0 || report.Passed != 1 {
				t.Errorf("a test of the file itself fails: %+v", report.Tests[0].Failures)
			}
			if report := with.Test(t.Context(), parse(t, rule("")+tests).Tests()); report.Passed != 1 {
				t.Errorf("the same test of another file fails: %+v", report)
			}
			if report := without.Test(t.Context(), parse(t, rule("")+tests).Tests()); report.Failed != 1 {
				t.Errorf("the test passes without the field: %+v", report)
			}

			if f.maxExample == "" {
				return
			}
			limited := parse(t, head+"defaults: { max: { "+f.key+": "+value+" } }\nlabels: { l: { resources: { "+f.key+": "+f.maxExample+" } } }\nrules: [{ name: r, jobspec: j }]\n")
			if d := limited.Decide(job("l"), false); d.Outcome != Unroutable || !strings.Contains(d.Reason, f.key+" "+f.show(mustRead(t, f, f.maxExample))) {
				t.Errorf("above max: %s, %s", d.Outcome, d.Reason)
			}
		})
	})
}

func mustRead(t *testing.T, f *field, text string) any {
	v, err := f.read(text)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", f.name(), err))
	}
	return v
}
