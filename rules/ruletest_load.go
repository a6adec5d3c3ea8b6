package rules

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/words"
	"switchyard/rules/internal/yamlfile"
)

const (
	maxTests    = 10_000
	maxTestName = 200      // characters
	none        = "(none)" // for people: nothing is set
)

// ParseTests reads a file of tests: version: 1 and tests, as in a rules file.
// The error is a Diagnostics with every fault that was found.
func ParseTests(file string, src []byte) ([]Test, error) {
	r := &yamlfile.Reader{File: file, Src: string(src)}
	var tests []Test
	if root := r.Tree(new(yamlfile.Volume)); root != nil {
		if f := r.Fields(root, "a file of tests", "version", "tests"); f != nil {
			checkVersion(r, root, f, "a file of tests")
			if _, ok := f["tests"]; !ok {
				r.Fault(root, "tests is missing: list at least one test")
			}
			tests = readTests(r, f["tests"])
		}
	}
	if faults := sorted(r); faults != nil {
		return nil, faults
	}
	return tests, nil
}

// ownTests reads the tests of a rules file, when the rules of all files are known.
func (r *loader) ownTests() {
	tests := readTests(r.Reader, r.sections["tests"])
	r.set.tests = append(r.set.tests, tests...)
	for _, d := range r.set.CheckTests(tests) {
		r.FaultAt(d.Line, d.Column, "%s", d.Message)
	}
}

// readTests reads the section tests, which does not depend on the others.
func readTests(r *yamlfile.Reader, n ast.Node) []Test {
	if n == nil {
		return nil
	}
	l := &testLoader{placementReader{valueReader{&common{}, r}}} // no language: what is expected is written out
	items := l.Items(n, "tests")
	if len(items) > maxTests {
		l.Fault(n, "tests has %d entries; the maximum is %d", len(items), maxTests)
		return nil
	}
	lines := map[string]int{}
	tests := make([]Test, 0, len(items))
	for _, item := range items {
		if l.Full() {
			break
		}
		tests = append(tests, l.test(item, lines))
	}
	return tests
}

// A testLoader reads tests.
type testLoader struct{ placementReader }

func (r *testLoader) test(n ast.Node, lines map[string]int) Test {
	t := Test{File: r.File}
	t.Line, t.Column = yamlfile.Place(n)
	f := r.Fields(n, "a test", "name", "labels", "repo", "job", "run", "expect")
	if f == nil {
		return t
	}
	if v, ok := f["name"]; !ok {
		r.Fault(n, "a test needs a name")
	} else if s, ok := r.Text(v, "test name"); ok {
		switch before, there := lines[s]; {
		case !words.Printable(s) || utf8.RuneCountInString(s) > maxTestName:
			r.Fault(v, "test name %s must be printable and have at most %d characters", words.Quote(s), maxTestName)
		case there:
			r.Fault(v, "test %s is already defined at line %d", words.Quote(s), before)
		}
		t.Name, lines[s] = s, t.Line
	}
	if v, ok := f["labels"]; !ok {
		r.Fault(n, "a test needs labels: the job's runs-on, such as [self-hosted, linux]")
	} else if _, null := v.(*ast.NullNode); null {
		r.Fault(v, "labels must be a list, not nothing")
	} else {
		for _, i := range r.list(v, "labels") {
			t.Facts.Labels = append(t.Facts.Labels, r.word(i, "a label"))
		}
	}
	t.Facts.Repo = r.repo(f["repo"])
	t.Facts.Job.Attempt = 1
	if v, ok := f["job"]; ok {
		jf := r.Fields(v, "job", "name", "workflow", "branch", "attempt", "sender")
		j := &t.Facts.Job
		j.Name, j.Workflow = r.word(jf["name"], "job name"), r.word(jf["workflow"], "job workflow")
		j.Branch, j.Sender = r.word(jf["branch"], "job branch"), r.word(jf["sender"], "job sender")
		if v, ok := jf["attempt"]; ok {
			j.Attempt, _ = r.whole(v, "job attempt", 1, math.MaxInt32)
		}
	}
	if v, ok := f["run"]; ok {
		rf := r.Fields(v, "run", "event", "fork", "actor")
		t.Facts.Run = &Run{Event: r.word(rf["event"], "run event"), Actor: r.word(rf["actor"], "run actor")}
		r.boolean(rf["fork"], "run fork", &t.Facts.Run.Fork)
	}
	if v, ok := f["expect"]; ok {
		t.expect = r.expectations(v)
	} else {
		r.Fault(n, "a test needs expect: any part of the decision, such as { rule: linux }")
	}
	return t
}

// word reads a text that may be empty, "" when n is nil.
func (r *testLoader) word(n ast.Node, what string) string {
	return readText(&r.valueReader, n, what, anyText, true).literal
}

func (r *testLoader) boolean(n ast.Node, what string, to *bool) {
	if b, ok := n.(*ast.BoolNode); ok {
		*to = b.Value
	} else if n != nil {
		r.Fault(n, "%s must be true or false", what)
	}
}

var host = regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]+)?$`)

// IsHost reports whether s is as Repo.Host is: lower case, with a port if need be.
func IsHost(s string) bool { return host.MatchString(s) }

var fullName = regexp.MustCompile(`^[^/\s]+/[^/\s]+$`)

// repo reads a repository; it is private unless it says otherwise.
func (r *testLoader) repo(n ast.Node) Repo {
	repo := Repo{Private: true, Visibility: "private"}
	f := map[string]ast.Node{"full_name": n}
	if _, short := yamlfile.Scalar(n); n != nil && !short {
		f = r.Fields(n, "repo", "host", "owner", "name", "full_name", "private", "visibility", "fork")
	}
	if v := f["full_name"]; v != nil {
		for _, k := range presentKeys(f, "owner", "name") {
			r.Fault(f[k], "repo has full_name already: leave %s out", k)
		}
		if s, ok := r.Text(v, "repo"); ok && !fullName.MatchString(s) {
			r.Fault(v, "repo %s: want OWNER/NAME", words.Quote(s))
		} else if ok {
			repo.FullName = s
			repo.Owner, repo.Name, _ = strings.Cut(s, "/")
		}
	} else if repo.Owner, repo.Name = r.word(f["owner"], "repo owner"), r.word(f["name"], "repo name"); repo.Owner != "" && repo.Name != "" {
		repo.FullName = repo.Owner + "/" + repo.Name
	}
	if r.boolean(f["private"], "repo private", &repo.Private); !repo.Private {
		repo.Visibility = "public"
	}
	if v, ok := f["visibility"]; ok {
		known := []string{"private", "internal", "public"}
		_, said := f["private"]
		s, ok := r.Text(v, "repo visibility")
		switch public := s == "public"; {
		case !ok:
		case !slices.Contains(known, s):
			r.Fault(v, "repo visibility %s: want private, internal or public%s", words.Quote(s), words.DidYouMean(s, known))
		case said && public == repo.Private:
			r.Fault(v, "repo visibility is %s, but private is %v", s, repo.Private)
		default:
			repo.Private, repo.Visibility = !public, s
		}
	}
	r.boolean(f["fork"], "repo fork", &repo.Fork)
	if v, ok := f["host"]; ok {
		if s, ok := r.Text(v, "repo host"); ok && !IsHost(s) {
			r.Fault(v, "repo host %s: want a host such as github.example.com, in lower case", words.Quote(s))
		} else if ok {
			repo.Host = s
		}
	}
	return repo
}

// expectations reads what is expected of a decision.
func (r *testLoader) expectations(n ast.Node) []expectation {
	faults := len(r.Faults)
	f := r.some(n, "expect", append([]string{"outcome", "rule", "reason", "labels", "limit", "urgency", "time_limit", "rerun", "fallback"}, placementParts...)...)
	e := expected{r: r}
	if v, ok := f["outcome"]; ok {
		outcomes := []string{string(Routed), string(Ignored), string(Denied), string(Unroutable), string(Undecided)}
		s, ok := r.Text(v, "outcome")
		if ok && !slices.Contains(outcomes, s) {
			r.Fault(v, "outcome %s: want one of %s%s", words.Quote(s), strings.Join(outcomes, ", "), words.DidYouMean(s, outcomes))
		}
		addValue(&e, v, "outcome", s, strings.Clone, func(d *Decision) string { return string(d.Outcome) })
	}
	e.text(f["rule"], "rule", func(d *Decision) string { return d.Rule })
	e.reason(f["reason"])
	addList(&e, f["labels"], "labels", func(n ast.Node) (string, bool) {
		s, ok := r.Text(n, "a label")
		return strings.ToLower(s), ok
	}, func(d *Decision) []string { return d.Labels }, equal, showLabel)
	before := len(e.list)
	e.placement(f)
	e.limit(f["limit"])
	e.number(f["urgency"], "urgency", boxed(wholeBetween(1, MaxUrgency)), func(n any) string { return fmt.Sprint(n) }, func(d *Decision) int { return d.Urgency })
	if v, ok := f["time_limit"]; ok {
		if want, ok := r.duration(v, "time_limit", 0, maxRunning); ok {
			addValue(&e, v, "time_limit", Duration(want), Duration.String, func(d *Decision) Duration { return d.TimeLimit })
		}
	}
	e.rerun(f["rerun"])
	for _, i := range r.list(f["fallback"], "fallback") {
		e.fallback(i)
	}
	for i := before; i < len(e.list); i++ {
		p := &e.list[i]
		p.places = p.want != none || p.what != "jobspec" && p.what != "dispatch" // which no other job has
	}
	if len(e.list) == 0 && len(r.Faults) == faults && len(f) > 0 {
		r.Fault(n, "expect checks nothing: what it names is empty; name a part of the decision, such as { rule: linux }")
	}
	return e.list
}

// expected collects expectations.
type expected struct {
	r    *testLoader
	list []expectation
}

func (e *expected) add(n ast.Node, what, want string, compare func(*Decision) (string, bool)) {
	line, column := yamlfile.Place(n)
	e.list = append(e.list, expectation{what: what, line: line, column: column, want: want, compare: compare})
}

// addValue adds that get gives want.
func addValue[T comparable](e *expected, n ast.Node, what string, want T, show func(T) string, get func(*Decision) T) {
	named := func(v T) string {
		var zero T
		if v == zero {
			return none
		}
		return show(v)
	}
	e.add(n, what, named(want), func(d *Decision) (string, bool) { got := get(d); return named(got), got == want })
}

// text adds that get gives the text at n, if there is one. An empty text is none.
func (e *expected) text(n ast.Node, what string, get func(*Decision) string) {
	if v := readText(&e.r.valueReader, n, what, anyText, true); v.set {
		addValue(e, n, what, v.literal, strings.Clone, get)
	}
}

// reason adds that the reason contains the text at n, if there is one. An empty text is none.
func (e *expected) reason(n ast.Node) {
	v := readText(&e.r.valueReader, n, "reason", anyText, true)
	if !v.set {
		return
	}
	want := none
	if v.literal != "" {
		want = "contains " + v.literal
	}
	e.add(n, "reason", want, func(d *Decision) (string, bool) {
		return cmp.Or(d.Reason, none), d.Reason == v.literal || v.literal != "" && strings.Contains(d.Reason, v.literal)
	})
}

// group adds that the runner registers in the group at n. 0 is none.
func (e *expected) group(n ast.Node) {
	v := readText(&e.r.valueReader, n, runnerGroup.name(), func(v any) (string, error) {
		if v == "0" || v == "" {
			return "", nil
		}
		return readGroup(v)
	}, true)
	if v.set {
		addValue(e, n, runnerGroup.name(), v.literal, strings.Clone, func(d *Decision) string { return runnerGroup.text(&d.Placement) })
	}
}

// number adds that get gives the number at n, if there is one. 0 is none.
func (e *expected) number(n ast.Node, what string, as func(any) (any, error), show func(any) string, get func(*Decision) int) {
	v := readText(&e.r.valueReader, n, what, func(v any) (any, error) {
		if v == "0" {
			return 0, nil
		}
		return as(v)
	}, false)
	if v.set {
		addValue(e, n, what, v.literal.(int), func(n int) string { return show(n) }, get)
	}
}

// addList adds what a list must hold: a list says what it contains, a mapping
// also what it does not, or exactly what it is.
func addList[T any](e *expected, n ast.Node, what string, read func(ast.Node) (T, bool), get func(*Decision) []T, same func(want, got T) bool, show func(T) string) {
	if n == nil {
		return
	}
	var f map[string]ast.Node
	switch n.(type) {
	case *ast.SequenceNode:
		f = map[string]ast.Node{"contains": n}
	case *ast.MappingNode, *ast.MappingValueNode:
		f = e.r.some(n, what, "contains", "exactly", "not")
	default:
		e.r.Fault(n, "%s must be a list, or a mapping with contains, exactly or not, but it is %s", what, yamlfile.KindOf(n))
	}
	showAll := func(list []T) string {
		texts := make([]string, len(list))
		for i, v := range list {
			texts[i] = show(v)
		}
		return cmp.Or(strings.Join(texts, ", "), none)
	}
	for _, how := range presentKeys(f, "contains", "exactly", "not") {
		at := f[how]
		items := e.r.list(at, what)
		if items != nil && len(items) == 0 && how != "exactly" {
			e.r.Fault(at, "%s: an empty list has no effect; write { exactly: [] } for none", what)
		}
		var wants []T
		for _, i := range items {
			if v, ok := read(i); ok {
				wants = append(wants, v)
			}
		}
		e.add(at, what, how+" "+showAll(wants), func(d *Decision) (string, bool) {
			got := get(d)
			has := func(want T) bool {
				return slices.ContainsFunc(got, func(g T) bool { return same(want, g) })
			}
			ok := true
			for _, w := range wants {
				ok = ok && has(w) == (how != "not")
			}
			if how == "exactly" {
				ok = ok && len(got) == len(wants)
				for _, g := range got {
					ok = ok && slices.ContainsFunc(wants, func(w T) bool { return same(w, g) })
				}
			}
			return showAll(got), ok
		})
	}
}

func equal(a, b string) bool { return a == b }

// placement adds what is expected of a placement.
func (e *expected) placement(f map[string]ast.Node) {
	for _, field := range placementFields {
		if n, ok := f[field.key]; ok {
			e.field(field, n)
		}
	}
}

func (e *expected) field(f *field, n ast.Node) {
	switch {
	case f.list != nil:
		f.list.expect(e, n)
	case f.fields != nil:
		entries := e.r.some(n, f.key, keysOf(f.fields)...)
		for _, sub := range f.fields {
			if n, ok := entries[sub.key]; ok {
				e.field(sub, n)
			}
		}
	case f == runnerGroup:
		e.group(n)
	case f == runnerVerify:
		e.text(n, f.name(), func(d *Decision) string { return strconv.FormatBool(d.Runner.Verify) })
	case f.kind == aString:
		e.text(n, f.name(), func(d *Decision) string { return f.text(&d.Placement) })
	default:
		e.number(n, f.name(), f.read, f.show, func(d *Decision) int { return f.number(&d.Placement) })
	}
}

// some reads a mapping with known keys, of which there must be one.
func (r *testLoader) some(n ast.Node, what string, known ...string) map[string]ast.Node {
	before := len(r.Faults)
	f := r.Fields(n, what, known...)
	if len(f) == 0 && len(r.Faults) == before {
		r.Fault(n, "%s is empty: name one of %s", what, strings.Join(known, ", "))
	}
	return f
}

// constraint returns the constraint of a literal.
func (c constraintSpec) constraint() Constraint {
	return Constraint{c.attribute, c.operator, c.value.literal, ""}
}

func sameConstraint(want, got Constraint) bool {
	want.From = got.From
	return want == got
}

// wantDevice reads a device; without a count any will do.
func (r *testLoader) wantDevice(n ast.Node) (Device, bool) {
	d, ok := r.device(n)
	want := Device{Name: d.name.literal}
	for _, c := range d.constraints {
		want.Constraints = append(want.Constraints, c.constraint())
	}
	if _, short := yamlfile.Scalar(n); ok && !short && slices.ContainsFunc(r.Pairs(n, "device"), func(p yamlfile.Pair) bool { return p.Key == "count" }) {
		want.Count = d.count.literal
	}
	return want, ok
}

func sameDevice(want, got Device) bool {
	if want.Name != got.Name || want.Count != 0 && want.Count != got.Count {
		return false
	}
	for _, c := range want.Constraints {
		if !slices.ContainsFunc(got.Constraints, func(g Constraint) bool { return sameConstraint(c, g) }) {
			return false
		}
	}
	return true
}

func showDevice(d Device) string {
	s := d.Name
	if d.Count != 0 {
		s = fmt.Sprintf("%d × %s", d.Count, d.Name)
	}
	for _, c := range d.Constraints {
		s += fmt.Sprintf(" (%s)", c)
	}
	return s
}

func (e *expected) taskEnv(n ast.Node) {
	for _, p := range e.r.Pairs(n, "task env") {
		if v := readText(&e.r.valueReader, p.Value, "task env "+p.Key, anyText, true); v.set {
			addEntry(e, p, "task.env.", v.literal, strconv.Quote, func(d *Decision) map[string]string { return d.Task.Env })
		}
	}
}

// addEntry adds that an entry of a mapping has the value want.
func addEntry[T any](e *expected, p yamlfile.Pair, prefix string, want T, show func(T) string, get func(*Decision) map[string]T) {
	e.add(p.Value, prefix+p.Key, show(want), func(d *Decision) (string, bool) {
		got, there := get(d)[p.Key]
		if !there {
			return none, false
		}
		return show(got), reflect.DeepEqual(got, want)
	})
}

func (e *expected) taskConfig(n ast.Node) {
	for _, p := range e.r.Pairs(n, "task config") {
		tree, ok := e.r.json(p.Value, "task config "+p.Key)
		if !ok {
			continue
		}
		want, _ := (&merger{}).json(tree) // nothing in it comes from an expression
		addEntry(e, p, "task.config.", want, showJSON, func(d *Decision) map[string]any { return d.Task.Config })
	}
}

func (e *expected) limit(n ast.Node) {
	if n == nil {
		return
	}
	f := e.r.some(n, "limit", "running", "per", "key", "order")
	of := func(d *Decision) Limit {
		if d.Limit == nil {
			return Limit{}
		}
		return *d.Limit
	}
	e.number(f["running"], "limit.running", boxed(wholeBetween(1, math.MaxInt32)), func(n any) string { return fmt.Sprint(n) }, func(d *Decision) int { return of(d).Running })
	e.text(f["per"], "limit.per", func(d *Decision) string { return of(d).Per })
	e.text(f["key"], "limit.key", func(d *Decision) string { return of(d).Key })
	e.text(f["order"], "limit.order", func(d *Decision) string {
		if d.Limit == nil {
			return ""
		}
		return cmp.Or(d.Limit.Order, limitOrders[0])
	})
}

func (e *expected) rerun(n ast.Node) {
	if n == nil {
		return
	}
	f := e.r.some(n, "rerun", "when", "times")
	of := func(d *Decision) Rerun {
		if d.Rerun == nil {
			return Rerun{}
		}
		return *d.Rerun
	}
	addList(e, f["when"], "rerun.when", func(n ast.Node) (string, bool) { return e.r.Text(n, "rerun when") },
		func(d *Decision) []string { return of(d).When }, equal, strings.Clone)
	e.number(f["times"], "rerun.times", boxed(wholeBetween(1, maxReruns)), func(n any) string { return fmt.Sprint(n) }, func(d *Decision) int { return of(d).Times })
}

// fallback adds what is expected of the fallback after some time.
func (e *expected) fallback(n ast.Node) {
	f := e.r.Fields(n, "fallback", append([]string{"after", "reason"}, placementParts...)...)
	if f == nil {
		return
	}
	v, ok := f["after"]
	if !ok {
		e.r.Fault(n, "an expected fallback needs after: which one it is, such as 5m")
		return
	}
	text, ok := e.r.Text(v, "after")
	after, err := time.ParseDuration(text)
	if ok && err != nil {
		e.r.Fault(v, "after %s is not a duration: write it as 90s, 5m or 1h30m", words.Quote(text))
	}
	if err != nil {
		return
	}
	what := "fallback " + Duration(after).String()
	find := func(d *Decision) *Fallback {
		if i := slices.IndexFunc(d.Fallback, func(f Fallback) bool { return f.After == Duration(after) }); i >= 0 {
			return &d.Fallback[i]
		}
		return nil
	}
	e.add(v, what, "there is one", func(d *Decision) (string, bool) { return none, find(d) != nil })
	parts := expected{r: e.r}
	parts.reason(f["reason"])
	parts.placement(f)
	for _, p := range parts.list {
		compare := p.compare
		p.what = what + "." + p.what
		p.compare = func(d *Decision) (string, bool) {
			got := find(d)
			if got == nil { // said once, above
				return "", true
			}
			return compare(&Decision{Placement: got.Placement, Reason: got.Reason})
		}
		e.list = append(e.list, p)
	}
}
