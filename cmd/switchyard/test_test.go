package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/rules"
)

// hostile is what could break out of a format.
const hostile = "]]></failure>\x00\x1b[2J\ufffe\xff\u202e <&\"'> 100%, %0A\r\n::error::x"

func hostileReport() rules.TestReport {
	bad := rules.TestResult{
		Test:     rules.Test{Name: hostile, File: hostile, Line: 1, Column: 2},
		Failures: []rules.TestFailure{{What: hostile, Line: 3, Column: 4, Expected: hostile, Got: hostile}, {What: "rule", Line: 5, Column: 6, Expected: "a", Got: "b"}},
		Decision: rules.Decision{Outcome: rules.Unroutable, Reason: hostile, Labels: []string{hostile}, Trace: []rules.Step{{Rule: hostile, Why: hostile}}},
	}
	good := rules.TestResult{Test: rules.Test{Name: "good", File: "b.yaml"}, Passed: true}
	return rules.TestReport{Passed: 1, Failed: 1, Tests: []rules.TestResult{bad, good}, Coverage: &rules.Coverage{Rules: 1, MissedRules: []rules.Missed{{Name: hostile, File: hostile}}}}
}

func TestJUnitIsXMLWhateverIsInIt(t *testing.T) {
	var b bytes.Buffer
	must(t, (testFlags{}).junit(&b, hostileReport()))
	var elements []string
	for dec := xml.NewDecoder(bytes.NewReader(b.Bytes())); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		if e, ok := token.(xml.StartElement); ok {
			s := e.Name.Local
			for _, a := range e.Attr {
				if a.Name.Local == "tests" || a.Name.Local == "failures" {
					s += fmt.Sprintf(" %s=%s", a.Name.Local, a.Value)
				}
			}
			elements = append(elements, s)
		}
	}
	want := []string{"testsuites tests=2 failures=1", "testsuite tests=1 failures=1", "testcase", "failure", "testsuite tests=1 failures=0", "testcase", "system-out"}
	if d := cmp.Diff(want, elements); d != "" {
		t.Errorf("elements (-want +got):\n%s\n%s", d, b.String())
	}
}

func TestNothingBreaksOutOfAWorkflowCommand(t *testing.T) {
	var b strings.Builder
	must(t, (testFlags{}).github(&b, hostileReport()))
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 4 || strings.Contains(b.String(), "\r") {
		t.Fatalf("%d lines, want two errors, a warning and the summary:\n%s", len(lines), b.String())
	}
	for i, line := range lines[:3] {
		properties, text, ok := strings.Cut(strings.TrimPrefix(line, "::"), "::")
		if !ok || strings.Count(properties, "=") != 4 || strings.Count(properties, ",") != 3 {
			t.Errorf("line %d has not four properties: %s", i+1, line)
		}
		unescaped := strings.NewReplacer("%25", "%", "%0D", "\r", "%0A", "\n").Replace(text)
		if i == 0 && unescaped != fmt.Sprintf("%s\nexpected  %[1]s\ngot       %[1]s", hostile) {
			t.Errorf("the text is %q", unescaped)
		}
	}
}
