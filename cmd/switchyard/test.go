package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/rulebook"
	"switchyard/rules"
)

type testFlags struct {
	format, specDir   string
	coverage, verbose bool
}

// testWriters has the function that prints a report in each format.
var testWriters = map[string]func(testFlags, io.Writer, rules.TestReport) error{
	"text": testFlags.text, "json": testFlags.json, "junit": testFlags.junit, "github": testFlags.github,
}

func testCommand() *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use:   "test FILE...",
		Short: "Run the tests of a rules file",
		Long: `Test runs the tests in a rules file, in the given *.test.yaml files, and in the
one beside the rules file (rules.test.yaml for rules.yaml; all those in a
directory of rules): it decides their jobs and compares the decisions with what
they expect.

With --coverage it also shows what no test reaches. A test reaches the rule that
takes or denies its job, and then the labels that the job has.

Exit codes: 0, all passed, whatever they reach; 1, a test failed; 2, could not
tell, because a file has faults or there are no tests.`,
		Example: "  switchyard test --coverage rules.example.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.test(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.format, "format", "text", "text, json, junit or github")
	fl.BoolVar(&f.coverage, "coverage", false, "also list the rules and labels that no test reaches")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "also list the tests that pass, in text")
	jobspecsFlag(fl, &f.specDir, "`directory` of your own jobspecs, besides the built-in ones")
	return cmd
}

func (f testFlags) test(ctx context.Context, stdout, stderr io.Writer, args []string) error {
	write, ok := testWriters[f.format]
	if !ok {
		return fmt.Errorf("--format %q: want text, json, junit or github", f.format)
	}
	testFiles, rulesFiles := []string{}, []string{}
	for _, a := range args {
		if a = filepath.Clean(a); rulebook.IsTests(a) {
			testFiles = append(testFiles, a)
		} else {
			rulesFiles = append(rulesFiles, a)
		}
	}
	if len(rulesFiles) != 1 {
		return fmt.Errorf("want one rules file and any number of *.test.yaml, got %s; for example: switchyard test rules.example.yaml", router.Count(len(rulesFiles), "rules file"))
	}
	path := rulesFiles[0]
	beside, err := rulebook.TestsBeside(path)
	if err != nil {
		return fmt.Errorf("look for tests: %w", err)
	}

	set, _, err := loadRules(ctx, stderr, path, f.specDir)
	faulty := errors.Is(err, errNo)
	if err != nil && !faulty {
		return err
	}
	var tests []rules.Test
	if set != nil {
		tests = set.Tests()
	}
	files, err := rulebook.ReadFiles(ctx, testFiles)
	if err != nil {
		return fmt.Errorf("read the tests: %w", err)
	}
	more, err := rulebook.ReadPlain(slices.DeleteFunc(beside, func(name string) bool { return slices.Contains(testFiles, name) }))
	faults, err := rulebook.Faults(err)
	if err != nil {
		return fmt.Errorf("read the tests: %w", err)
	}
	if len(faults) > 0 {
		writeFindings(stderr, nil, faults)
		faulty = true
	}
	files = append(files, more...)
	slices.SortFunc(files, func(a, b rules.File) int { return strings.Compare(a.Name, b.Name) })
	files = slices.CompactFunc(files, func(a, b rules.File) bool { return a.Name == b.Name })
	for _, file := range files {
		more, faults := rulebook.ParseTests(set, file)
		writeFindings(stderr, []rules.File{file}, faults)
		if len(faults) > 0 {
			fmt.Fprintf(stderr, "%s: %s\n", file.Name, router.Count(len(faults), "fault"))
			faulty = true
		}
		tests = append(tests, more...)
	}
	switch {
	case faulty:
		return &exitError{code: exitUnknown} // the faults are printed; no test was run
	case len(tests) == 0:
		return fmt.Errorf("%s has no tests: add a tests section, or a file of tests named *.test.yaml", path)
	}
	report := set.Test(ctx, tests)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("run the tests: %w", err)
	}
	if !f.coverage {
		report.Coverage = nil
	}
	if err := write(f, stdout, report); err != nil {
		return err
	}
	if report.Failed > 0 {
		return errNo
	}
	return nil
}

func (f testFlags) text(w io.Writer, report rules.TestReport) error {
	for _, t := range report.Tests {
		if !t.Passed {
			fmt.Fprintf(w, "FAIL  %s\n%s\n", t.Name, indent(failureText(t)))
		} else if f.verbose {
			fmt.Fprintf(w, "ok    %s\n", t.Name)
		}
	}
	_, err := fmt.Fprintln(w, summary(report))
	for _, missed := range missedBy(report) {
		_, err = fmt.Fprintf(w, "  %s\n", missed)
	}
	return err
}

// failureText returns what a test expected and got, each with its place, and the
// decision.
func failureText(t rules.TestResult) string {
	var b bytes.Buffer
	for _, f := range t.Failures {
		fmt.Fprintf(&b, "%s:%d:%d: %s\n  expected  %s\n  got       %s\n", t.File, f.Line, f.Column, f.What, f.Expected, f.Got)
	}
	b.WriteByte('\n')
	_ = writeDecision(&b, t.Decision) // to memory
	return b.String()
}

// indent indents the lines of a text, except empty ones.
func indent(text string) string {
	return regexp.MustCompile(`(?m)^.`).ReplaceAllString(text, "  $0")
}

func summary(report rules.TestReport) string {
	s := fmt.Sprintf("%s passed, %d failed", router.Count(report.Passed, "test"), report.Failed)
	if c := report.Coverage; c != nil {
		s += fmt.Sprintf("; they reach %d of %s and %d of %s",
			c.Rules-len(c.MissedRules), router.Count(c.Rules, "rule"), c.Labels-len(c.MissedLabels), router.Count(c.Labels, "label"))
	}
	return s
}

// missedBy returns what no test reaches; nil without coverage.
func missedBy(report rules.TestReport) (missed rules.Diagnostics) {
	if report.Coverage == nil {
		return nil
	}
	add := func(kind string, list []rules.Missed) {
		for _, m := range list {
			missed = append(missed, rules.Diagnostic{File: m.File, Line: m.Line, Column: m.Column, Message: "no test reaches the " + kind + " " + m.Name})
		}
	}
	add("rule", report.Coverage.MissedRules)
	add("label", report.Coverage.MissedLabels)
	return missed
}

func (testFlags) json(w io.Writer, report rules.TestReport) error {
	return writeJSON(w, report)
}

// junit prints the XML that GitLab, Jenkins and the usual GitHub actions read as
// test results. There is no standard but what they have in common
// (https://github.com/testmoapp/junitxml, read 2026-11). Tests take no time.
func (testFlags) junit(w io.Writer, report rules.TestReport) error {
	type failure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
	type testCase struct {
		Class   string   `xml:"classname,attr"`
		Name    string   `xml:"name,attr"`
		File    string   `xml:"file,attr"`
		Line    int      `xml:"line,attr"`
		Time    int      `xml:"time,attr"`
		Failure *failure `xml:"failure"`
	}
	type counts struct {
		Name     string `xml:"name,attr"`
		Tests    int    `xml:"tests,attr"`
		Failures int    `xml:"failures,attr"`
		Errors   int    `xml:"errors,attr"`
		Skipped  int    `xml:"skipped,attr"`
		Time     int    `xml:"time,attr"`
	}
	type suite struct {
		counts
		Cases []testCase `xml:"testcase"`
		Out   string     `xml:"system-out,omitempty"`
	}
	doc := struct {
		XMLName struct{} `xml:"testsuites"`
		counts
		Suites []suite `xml:"testsuite"`
	}{counts: counts{Name: "switchyard", Tests: len(report.Tests), Failures: report.Failed}}
	for i, t := range report.Tests {
		if i == 0 || t.File != report.Tests[i-1].File {
			doc.Suites = append(doc.Suites, suite{counts: counts{Name: t.File}})
		}
		s := &doc.Suites[len(doc.Suites)-1]
		c := testCase{Class: t.File, Name: t.Name, File: t.File, Line: t.Line}
		s.Tests++
		if !t.Passed {
			s.Failures++
			var short []string
			for _, f := range t.Failures {
				short = append(short, fmt.Sprintf("%s: expected %s, got %s", f.What, f.Expected, f.Got))
			}
			c.Failure = &failure{Message: strings.Join(short, "; "), Type: "expectation", Text: failureText(t)}
		}
		s.Cases = append(s.Cases, c)
	}
	if last := len(doc.Suites) - 1; report.Coverage != nil {
		doc.Suites[last].Out = summary(report) + "\n" + missedBy(report).Error()
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// github prints annotations.
func (testFlags) github(w io.Writer, report rules.TestReport) error {
	var errs []error
	for _, t := range report.Tests {
		for _, f := range t.Failures {
			message := fmt.Sprintf("%s\nexpected  %s\ngot       %s", f.What, f.Expected, f.Got)
			errs = append(errs, annotate(w, "error", t.File, f.Line, f.Column, "rule test: "+t.Name, message))
		}
	}
	for _, m := range missedBy(report) {
		errs = append(errs, annotate(w, "warning", m.File, m.Line, m.Column, "rule test coverage", m.Message))
	}
	_, err := fmt.Fprintln(w, summary(report))
	return errors.Join(append(errs, err)...)
}
