package rules

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheRulesSayWhereTheirJobsOverflow(t *testing.T) {
	set, err := Parse("rules.yaml", []byte(`version: 1
rules:
  - name: gpu
    if: has("gpu")
    jobspec: j
    overflow: { after: 90s, variable: gpu_runner, scope: organization, to: '["hosted","gpu"]', back: '["self-hosted","gpu"]' }
  - { name: plain, if: has("plain"), jobspec: j }
  - { name: linux, if: has("linux"), dispatch: d, overflow: { after: 24h, variable: LINUX_RUNNER, to: '"ubuntu-latest"', back: ' ["self-hosted", "linux"] ' } }
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Overflow{
		{"gpu", 90 * time.Second, "gpu_runner", "organization", `["hosted","gpu"]`, `["self-hosted","gpu"]`},
		{"linux", 24 * time.Hour, "LINUX_RUNNER", "", `"ubuntu-latest"`, ` ["self-hosted", "linux"] `},
	}
	if got := set.Overflows(); !slices.Equal(got, want) {
		t.Errorf("Overflows() = %+v, want %+v", got, want)
	}
}

// One of them would take what the other sets for somebody else's.
func TestTwoRulesThatSetOneVariableOtherwiseAreAFault(t *testing.T) {
	rule := func(name, overflow string) string {
		return "  - { name: " + name + ", jobspec: j, if: has(\"" + name + "\"), overflow: { after: 5m, " + overflow + " } }\n"
	}
	head, first := "version: 1\nrules:\n", rule("a", `variable: RUNNER, to: '"u"', back: '"l"'`)
	for other, want := range map[string]string{
		`variable: runner, to: '"u"', back: '"l"'`:                      "",
		`variable: OTHER, to: '"x"', back: '"l"'`:                       "",
		`variable: runner, to: '"x"', back: '"l"'`:                      "overflow to differs from that of rule a (line 3), which sets the same variable runner",
		`variable: RUNNER, to: '"u"', back: '"x"'`:                      "overflow back differs",
		`variable: RUNNER, to: '"u"', back: '"l"', scope: organization`: "overflow scope differs",
	} {
		_, err := Parse("rules.yaml", []byte(head+first+rule("b", other)))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "rules.yaml:4:")) {
			t.Errorf("%s: %v, want %q", other, err, want)
		}
	}
}

func TestTheValueOfAVariableSaysItsLabels(t *testing.T) {
	for value, want := range map[string][]string{
		`"ubuntu-latest"`: {"ubuntu-latest"}, ` ["self-hosted", "linux"] `: {"self-hosted", "linux"}, `[]`: nil,
	} {
		if got, ok := RunsOn(value); !ok || !slices.Equal(got, want) {
			t.Errorf("RunsOn(%s) = %q, %v, want %q", value, got, ok, want)
		}
	}
	for _, value := range []string{``, `ubuntu-latest`, `null`, `5`, `{}`, `["a",null]`, `["a"`, `[["a"]]`, `"a" "b"`} {
		if got, ok := RunsOn(value); ok {
			t.Errorf("RunsOn(%s) = %q, want none", value, got)
		}
	}
}
