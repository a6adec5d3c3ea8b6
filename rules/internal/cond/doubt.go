package cond

import (
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"

	"switchyard/rules/internal/words"
)

// A Doubt is a finding about a text or a number in an expression, which Lint
// reports: line from 1, column in runes from 0, and then the place in the file.
type Doubt struct {
	Code, Message string
	Line, Column  int
	At            Spot
	Rule          string
}

// Codes of doubts.
const (
	ImpossibleValue = "impossible-value"
	PatternLiteral  = "pattern-literal"
)

// doubt notes a finding at a node.
func (v *visitor) doubt(n ast.Node, code, format string, args ...any) {
	line, column := v.place(n)
	v.doubts = append(v.doubts, Doubt{Code: code, Message: fmt.Sprintf(format, args...), Line: line, Column: column})
}

// asLabel is the source of a shape that is a label of the job.
const asLabel = "label"

// mirrored has the operator for exchanged sides.
var mirrored = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<="}

// judge notes texts and numbers that a value is compared with and never is.
func (f *folder) judge(whole, value ast.Node, s shape, operator string, written ast.Node) {
	if s.source == "" {
		return
	}
	if list, ok := written.(*ast.ArrayNode); ok && operator == "in" {
		if len(list.Nodes) == 0 {
			f.doubt(list, ImpossibleValue, "%s holds for no job: nothing is in an empty list", shown(whole))
		}
		for _, e := range list.Nodes {
			f.judge(whole, value, s, "in", e)
		}
		return
	}
	add := func(code, why string) {
		switch operator {
		case "in":
			f.doubt(written, code, "%s is never %s: %s", words.OneLine(value.String()), words.OneLine(written.String()), why)
		case "!=":
			f.doubt(written, code, "%s holds for every job: %s", shown(whole), why)
		case "indexOf", "lastIndexOf":
			f.doubt(written, code, "%s is -1 for every job: %s", shown(whole), why)
		default:
			f.doubt(written, code, "%s holds for no job: %s", shown(whole), why)
		}
	}
	switch n := written.(type) {
	case *ast.NilNode:
		if !strings.HasPrefix(s.source, "param.") && s.source != asLabel {
			add(ImpossibleValue, s.source+" is never nil")
		}
	case *ast.StringNode:
		if s.source == asLabel && slices.Contains([]string{"==", "!=", "in"}, operator) {
			return // it is noted as a label
		}
		if code, why := f.never(s.source, operator, n.Value); why != "" && !slices.ContainsFunc(s.also, func(a ast.Node) bool {
			is, text := a.(*ast.StringNode)
			return !text || holdsFor(operator, is.Value, n.Value)
		}) {
			add(code, why)
		}
	case *ast.IntegerNode, *ast.FloatNode:
		low, high, ok := f.bounds(s.source)
		with, _ := strconv.ParseFloat(number(written), 64)
		if p := f.param(strings.TrimPrefix(s.source, "param.")); p != nil && p.Kind == "size" && with > 0 && with < float64(p.Min) && len(s.also) == 0 {
			f.doubt(written, ImpossibleValue, "%s is a number of MiB, from %d to %d, and never %s: %sGiB are %.0f", s.source, low, high, number(written), number(written), with*1024)
			return
		}
		if !ok || !outOfBounds(operator, with, float64(low), float64(high)) || slices.ContainsFunc(s.also, func(a ast.Node) bool {
			is, err := strconv.ParseFloat(number(a), 64)
			return err != nil || !outOfBounds(operator, with, is, is)
		}) {
			return
		}
		why := fmt.Sprintf("%s is a whole number from %d to %d", s.source, low, high)
		if high == math.MaxInt32 {
			why = fmt.Sprintf("%s is a whole number from %d", s.source, low)
		}
		add(ImpossibleValue, why)
	}
}

// bounds returns the least and the greatest value of a param, or of job.attempt.
func (l *Language) bounds(source string) (low, high int, ok bool) {
	p := l.param(strings.TrimPrefix(source, "param."))
	if source == Attempt.Name {
		p = Attempt
	}
	if p == nil || p.Kind == "string" {
		return 0, 0, false
	}
	return p.Min, p.Max, true
}

// outOfBounds reports whether no whole number from low to high compares so with another; for !=,
// whether each does.
func outOfBounds(operator string, with, low, high float64) bool {
	switch operator {
	case "==", "!=", "in":
		return with < low || with > high || with != math.Trunc(with) && low != high
	case "<":
		return low >= with
	case "<=":
		return low > with
	case ">":
		return high <= with
	case ">=":
		return high < with
	}
	return false
}

// holdsFor compares two texts as an operator does, without case.
func holdsFor(operator, value, with string) bool {
	value, with = strings.ToLower(value), strings.ToLower(with)
	switch operator {
	case "startsWith", "hasPrefix":
		return strings.HasPrefix(value, with)
	case "endsWith", "hasSuffix":
		return strings.HasSuffix(value, with)
	case "contains", "indexOf", "lastIndexOf":
		return strings.Contains(value, with)
	case "==", "!=", "in":
		return value == with
	}
	return true
}

// events are those that start runs: docs.github.com, "Events that trigger workflows", read
// 2026-11-29, with removed ones and the one that GitHub starts by itself.
var events = []string{
	"branch_protection_rule", "check_run", "check_suite", "create", "delete", "deployment", "deployment_status", "discussion", "discussion_comment", "dynamic", "fork", "gollum",
	"image_version", "issue_comment", "issues", "label", "member", "merge_group", "milestone", "page_build", "project", "project_card", "project_column", "projects_v2_item", "public",
	"pull_request", "pull_request_comment", "pull_request_review", "pull_request_review_comment", "pull_request_target", "push", "registry_package", "release",
	"repository_dispatch", "schedule", "status", "watch", "workflow_call", "workflow_dispatch", "workflow_run", "",
}

// What names are made of: docs.github.com on user names and repositories, and
// git's check-ref-format, read 2026-11.
var (
	notInOwner  = regexp.MustCompile(`[^A-Za-z0-9_-]`)
	notInLogin  = regexp.MustCompile(`[^A-Za-z0-9_\[\]-]`)
	notInName   = regexp.MustCompile(`[^A-Za-z0-9._-]`)
	notInHost   = regexp.MustCompile(`[^A-Za-z0-9.:_-]`)
	notInBranch = regexp.MustCompile(`[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^/`)
)

// judgePattern notes texts in a regular expression that a value never has.
func (f *folder) judgePattern(whole *ast.BinaryNode, s shape, written *ast.StringNode) {
	if s.source == "" || len(s.also) > 0 || strings.HasPrefix(s.source, "param.") {
		return
	}
	re, err := syntax.Parse(written.Value, syntax.Perl)
	if err != nil {
		return
	}
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	is := func(i int, op syntax.Op) bool { return i >= 0 && i < len(parts) && parts[i].Op == op }
	for i, p := range parts {
		if p.Op != syntax.OpLiteral {
			continue
		}
		operator := "contains"
		switch begins, ends := is(i-1, syntax.OpBeginText), is(i+1, syntax.OpEndText); {
		case begins && ends && i == 1 && len(parts) == 3:
			operator = "=="
		case begins:
			operator = "startsWith"
		case ends:
			operator = "endsWith"
		}
		if _, why := f.never(s.source, operator, string(p.Rune)); why != "" {
			f.doubt(written, ImpossibleValue, "%s holds for no job: %s", shown(whole), why)
			return
		}
	}
}

// never returns why a fact, a param or a label never compares so with a text; "" when it may.
func (l *Language) never(source, operator, s string) (code, why string) {
	whole := slices.Contains([]string{"==", "!=", "in"}, operator)
	if !whole && (s == "" || holdsFor(operator, "", "x")) { // < and the like
		return "", ""
	}
	begin, _, _ := strings.Cut(s, "*")
	wildcard := func() (code, why string) {
		return PatternLiteral, fmt.Sprintf("* is no wildcard here: write %s startsWith %q, or matches with a regular expression", source, begin)
	}
	odd := func(not *regexp.Regexp, of string) (code, why string) {
		switch {
		case s == "":
			return ImpossibleValue, source + " is never empty"
		case !not.MatchString(s):
			return "", ""
		case strings.Contains(s, "*"):
			return wildcard()
		case strings.Contains(s, "/") && source != "repo.host":
			return ImpossibleValue, fmt.Sprintf("%s has no /, which repo.full_name has: owner/name", source)
		}
		return ImpossibleValue, fmt.Sprintf("%s has only %s", source, of)
	}
	oneOf := func(all []string) (code, why string) {
		if slices.ContainsFunc(all, func(one string) bool { return holdsFor(operator, one, s) }) {
			return "", ""
		}
		shown := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == "" })
		hint := ""
		if whole {
			hint = words.DidYouMean(s, shown)
		}
		if strings.Contains(s, "*") {
			return PatternLiteral, fmt.Sprintf("* is no wildcard here: write %s startsWith …, or matches with a regular expression", source)
		}
		return ImpossibleValue, fmt.Sprintf("%s is one of %s%s", source, words.QuoteAll(shown), hint)
	}
	switch source {
	case "repo.owner":
		return odd(notInOwner, "letters, digits and -")
	case "job.sender", "run.actor":
		return odd(notInLogin, "letters, digits and -, as octocat or dependabot[bot]")
	case "repo.name":
		return odd(notInName, "letters, digits and ._-")
	case "repo.host":
		return odd(notInHost, "letters, digits, - and dots, as in github.com")
	case "repo.full_name":
		owner, name, full := strings.Cut(s, "/")
		switch {
		case strings.Contains(s, "*"):
			return wildcard()
		case whole && !full:
			return ImpossibleValue, "repo.full_name is owner/name: compare repo.name or repo.owner with it"
		case whole && (owner == "" || name == ""), strings.Contains(name, "/"), full && notInOwner.MatchString(owner), notInName.MatchString(name), notInName.MatchString(owner):
			return ImpossibleValue, "repo.full_name is owner/name"
		}
	case "repo.visibility":
		return oneOf([]string{"public", "private", "internal", ""})
	case "run.event":
		code, why = oneOf(events)
		if code == ImpossibleValue {
			why = "GitHub has no such event"
			if whole {
				why += words.DidYouMean(s, events[:len(events)-1])
			}
		}
		return code, why
	case "job.branch":
		switch {
		case strings.Contains(s, "*"):
			return wildcard()
		case notInBranch.MatchString(s) && (whole || s != "/"), whole && strings.HasSuffix(s, "/"):
			return ImpossibleValue, "no branch can have that name"
		case strings.HasPrefix(s, "refs/") && operator != "contains" && operator != "endsWith":
			return ImpossibleValue, "job.branch is the name alone, as main"
		}
	case asLabel:
		if strings.Contains(s, "*") {
			return PatternLiteral, fmt.Sprintf("* is no wildcard here: write startsWith %q", begin)
		}
	default:
		p := l.param(strings.TrimPrefix(source, "param."))
		switch {
		case p == nil || p.Kind != "string":
		case p.Pattern == nil:
			return oneOf(p.OneOf)
		case whole && !p.Pattern.MatchString(strings.ToLower(s)):
			return ImpossibleValue, fmt.Sprintf("%s matches %s", source, p.PatternAs)
		}
	}
	return "", ""
}

// noLabel returns why no job has a label; "" when one may.
func (l *Language) noLabel(s string) (code, why string) {
	name := strings.ToLower(s)
	param, open, isKnown := l.vocabulary.Find(name)
	switch {
	case strings.TrimSpace(s) == "":
		return ImpossibleValue, "no job has an empty label"
	case strings.TrimSpace(s) != s:
		return ImpossibleValue, fmt.Sprintf("no job has the label %s: spaces around a label are removed: write %q", words.Quote(s), strings.TrimSpace(s))
	case !words.Printable(s) || len([]rune(s)) > MaxLabelLength:
		return ImpossibleValue, fmt.Sprintf("no job has the label %s: a label is printable, and has at most %d characters", words.Quote(s), MaxLabelLength)
	case strings.Contains(s, "*"):
		begin, _, _ := strings.Cut(s, "*")
		mend := fmt.Sprintf("any(labels, # startsWith %q)", begin)
		if param != nil {
			mend = fmt.Sprintf("param.%s != nil", param.Name)
		}
		return PatternLiteral, fmt.Sprintf("%s is a pattern, and one label is meant here: to ask for any of them, write %s", words.Quote(s), mend)
	case param != nil:
		if _, err := param.Read(open); err != nil {
			return ImpossibleValue, fmt.Sprintf("no job with the label %s gets a runner: %v", words.Quote(s), err)
		}
	case !isKnown && strings.ContainsAny(s, ", "):
		parts := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
		known := true
		for i, p := range parts {
			_, _, found := l.vocabulary.Find(strings.ToLower(p))
			known = known && found
			parts[i] = strconv.Quote(p)
		}
		if known || strings.Contains(s, ",") {
			return ImpossibleValue, fmt.Sprintf("%s is one label: write each by itself, as in has(%s)", words.Quote(s), strings.Join(parts, ", "))
		}
	}
	return "", ""
}

const AbsentParam = "absent-param"
