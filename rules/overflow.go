package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
	"switchyard/rules/internal/yamlfile"
)

// An Overflow says which Actions variable is set while a rule cannot serve its jobs, so that new
// jobs whose workflows read it run elsewhere.
type Overflow struct {
	Rule     string
	After    time.Duration // that a job waits, until the variable is set
	Variable string        // its name, which GitHub compares without case
	Scope    string        // of the variable: repository or organization; "": the one that workflows of the repository read
	To, Back string        // its values meanwhile and otherwise: JSON, each a text or a list of texts
}

// Overflows returns the overflows of the rules, in their order.
func (s *Set) Overflows() []Overflow {
	var all []Overflow
	for i := range s.rules {
		if o := s.rules[i].overflow; o != nil {
			one := o.Overflow
			one.Rule = s.rules[i].name
			all = append(all, one)
		}
	}
	return all
}

// An overflowSpec is the overflow of a rule, with its places.
type overflowSpec struct {
	Overflow
	at   map[string]cond.Spot // of the values, by key
	runs []string             // the labels of To
}

const (
	leastOverflow   = time.Minute
	maxVariableName = 100 // characters
)

// variableName matches what GitHub takes for the name of an Actions variable, but for its
// own prefix: https://docs.github.com/en/actions/reference/workflows-and-actions/variables (read 2026-11-30).
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// asVariable reads the name of an Actions variable.
func asVariable(v any) (string, error) {
	s, err := cond.AsText(v)
	switch {
	case err != nil:
		return "", err
	case len(s) > maxVariableName || !variableName.MatchString(s):
		return "", errors.New(words.Quote(s) + " is not the name of an Actions variable: write letters, digits and _, without a digit at its start, at most 100")
	case strings.HasPrefix(strings.ToUpper(s), "GITHUB_"):
		return "", errors.New(words.Quote(s) + " is not the name of an Actions variable, as GitHub keeps those that start with GITHUB_")
	}
	return s, nil
}

// runsOnJSON reads the value of a variable as runs-on: ${{ fromJSON(vars.NAME) }} does.
func runsOnJSON(v any) ([]string, error) {
	const want = `it is read by fromJSON, so write JSON, a text or a list of texts: '"ubuntu-latest"' or '["self-hosted","linux"]'`
	s, err := cond.AsText(v)
	if err != nil {
		return nil, err
	}
	labels, ok := RunsOn(s)
	switch {
	case !ok:
		return nil, errors.New(words.Quote(s) + ": " + want)
	case len(labels) == 0 || len(labels) > MaxLabels:
		return nil, errors.New(words.Quote(s) + ": name 1 to 100 labels")
	case slices.ContainsFunc(labels, func(l string) bool {
		return strings.TrimSpace(l) == "" || len([]rune(l)) > MaxLabelLength || !words.Printable(l)
	}):
		return nil, errors.New(words.Quote(s) + ": each label is 1 to 256 printable characters")
	}
	return labels, nil
}

// RunsOn returns the labels of a variable's value that is JSON, a text or a list of texts; false:
// it is something else.
func RunsOn(value string) (labels []string, ok bool) {
	var read any
	_ = json.Unmarshal([]byte(value), &read) // nil, if it is not JSON
	list, ok := read.([]any)
	if !ok {
		list = []any{read}
	}
	for _, l := range list {
		text, ok := l.(string)
		if !ok {
			return nil, false
		}
		labels = append(labels, text)
	}
	return labels, true
}

// overflow reads the overflow of a rule; nil: it has faults.
func (r *ruleReader) overflow(n ast.Node) *overflowSpec {
	f := r.Fields(n, "overflow", "after", "variable", "scope", "to", "back")
	if f == nil {
		return nil
	}
	before := len(r.Faults)
	o := &overflowSpec{at: map[string]cond.Spot{}}
	for _, k := range []string{"after", "variable", "to", "back"} {
		if f[k] == nil {
			r.Fault(n, `overflow needs %s, as in { after: 10m, variable: LINUX_RUNNER, to: '"ubuntu-latest"', back: '["self-hosted","linux"]' }`, k)
			return nil
		}
		o.at[k] = r.at(f[k])
	}
	o.After, _ = r.duration(f["after"], "overflow after", leastOverflow, maxQueued)
	o.Variable = literal(&r.valueReader, f["variable"], "overflow variable", asVariable).literal
	if v, ok := f["scope"]; ok {
		o.Scope = literal(&r.valueReader, v, "overflow scope", oneOf("repository", "organization")).literal
		o.at["scope"] = r.at(v)
	}
	value := func(k string, to *string) []string {
		labels := literal(&r.valueReader, f[k], "overflow "+k, runsOnJSON).literal
		*to, _ = yamlfile.Scalar(f[k])
		return labels
	}
	o.runs = value("to", &o.To)
	if back := value("back", &o.Back); len(back) > 0 && slices.Equal(back, o.runs) {
		r.Fault(f["back"], "overflow back is the same as to: write what workflows read while the rule serves their jobs")
	}
	if len(r.Faults) > before {
		return nil
	}
	return o
}

// overflows reports overflows in the file that set the variable of an earlier rule otherwise: what
// one of them sets, the other would take for somebody else's.
func (r *loader) overflows() {
	first := map[string]*rule{}
	for i := range r.set.rules {
		ru := &r.set.rules[i]
		if ru.overflow == nil {
			continue
		}
		o, name := ru.overflow, strings.ToUpper(ru.overflow.Variable)
		earlier := first[name]
		if earlier == nil {
			first[name] = ru
			continue
		}
		for _, part := range []struct{ key, was, is string }{
			{"scope", earlier.overflow.Scope, o.Scope}, {"to", earlier.overflow.To, o.To}, {"back", earlier.overflow.Back, o.Back},
		} {
			at, there := o.at[part.key]
			if !there {
				at = o.at["variable"]
			}
			if part.was != part.is && at.File == r.File {
				r.Faults = append(r.Faults, yamlfile.Fault{
					Line: at.Line, Column: at.Column, Rule: ru.name,
					Message: fmt.Sprintf("overflow %s differs from that of rule %s, which sets the same variable %s: write the same, or name another variable", part.key, earlier.seen(r.File), o.Variable),
				})
			}
		}
	}
}
