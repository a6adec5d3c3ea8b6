package rules

import (
	"errors"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
	"switchyard/rules/internal/yamlfile"
)

// A valueReader reads single values, and notes every fault with its place.
type valueReader struct {
	*common
	*yamlfile.Reader
}

// at returns where a node stands.
func (r *valueReader) at(n ast.Node) cond.Spot {
	line, column := yamlfile.Place(n)
	return cond.Spot{File: r.File, Line: line, Column: column}
}

// once notes the place of what may be defined once, and reports a second definition.
func (r *valueReader) once(n ast.Node, what string) bool {
	before, there := r.first[what]
	switch {
	case !there:
		r.first[what] = r.at(n)
	case before.File == r.File:
		r.Fault(n, "%s is already defined at line %d", what, before.Line)
	default:
		r.Fault(n, "%s is already defined at %s:%d:%d: define it in one file only", what, before.File, before.Line, before.Column)
	}
	return !there
}

// condition compiles a condition that stands at n.
func (r *valueReader) condition(n ast.Node, what, source string) cond.Condition {
	source = strings.TrimRight(source, "\n")
	if inner, ok := strings.CutPrefix(strings.TrimSpace(source), cond.Opening); ok && strings.HasSuffix(inner, cond.Closing) {
		r.Fault(n, "%s is an expression already: leave ${{ and }} out", what)
		return cond.Condition{}
	}
	c, err := r.lang.Condition(source, what == "if")
	if err != nil {
		r.expressionFault(n, what, err)
	}
	if n == nil {
		return c
	}
	c.At = r.at(n)
	c.Locate(func(line, column int) cond.Spot { return r.within(n, line, column) })
	r.set.doubts = append(r.set.doubts, c.Doubts...)
	return c
}

// within returns the place in the file of one in a scalar's text; see Reader.Within.
func (r *valueReader) within(n ast.Node, line, column int) cond.Spot {
	line, column, _ = r.Within(n, line, column)
	return cond.Spot{File: r.File, Line: line, Column: column}
}

// expressionFault reports an error of an expression in a scalar at its place.
func (r *valueReader) expressionFault(n ast.Node, what string, err error) {
	var e *cond.ExpressionError
	if !errors.As(err, &e) {
		r.Fault(n, "%s: %v", what, err)
		return
	}
	message := e.Message
	if whole := r.CutByComment(n); whole != "" {
		message += ": YAML takes what follows # for a comment: put the expression in single quotes, '" + words.OneLine(strings.ReplaceAll(whole, "'", `"`)) + "'"
	} else if source, ok := yamlfile.Scalar(n); ok {
		if meant := inExpression(source, message); meant != "" {
			message, _, _ = strings.Cut(message, "; there are ")
			message, _, _ = strings.Cut(message, ": a text must be in quotes")
			message += ": " + meant
		}
	}
	line, column, exact := r.Within(n, e.Line, e.Column)
	if !exact {
		r.FaultAt(line, column, "%s: %s (line %d, column %d of the expression; a plain, quoted or | text shows the place)", what, message, e.Line, e.Column+1)
		return
	}
	r.FaultAt(line, column, "%s: %s", what, message)
}

// read reads a value that may be a template.
func read[T any](r *valueReader, n ast.Node, what string, as func(any) (T, error)) value[T] {
	return readText(r, n, what, as, false)
}

// literal reads a value that must not be a template.
func literal[T any](r *valueReader, n ast.Node, what string, as func(any) (T, error)) value[T] {
	v := read(r, n, what, as)
	if v.template != nil {
		r.Fault(n, "%s must be written out, not come from an expression", what)
		v.set = false
	}
	return v
}

// readText reads a value that may be a template, and may be empty when mayBeEmpty says so.
func readText[T any](r *valueReader, n ast.Node, what string, as func(any) (T, error), mayBeEmpty bool) (v value[T]) {
	if n == nil {
		return v
	}
	s, ok := yamlfile.Scalar(n)
	if !ok {
		r.Fault(n, "%s must be a single value, not %s", what, yamlfile.KindOf(n))
		return v
	}
	if strings.TrimSpace(s) == "" && !mayBeEmpty {
		r.Fault(n, "%s must not be empty", what)
		return v
	}
	return readPart(r, n, s, 0, what, as)
}

// readPart reads a value from a scalar's text, which begins at a byte of it.
func readPart[T any](r *valueReader, n ast.Node, text string, from int, what string, as func(any) (T, error)) (v value[T]) {
	var err error
	v.read = as
	if r.lang != nil {
		if v.template, err = r.lang.Template(text, from); err != nil {
			r.expressionFault(n, what, err)
			return value[T]{}
		}
	}
	if v.template == nil {
		if v.literal, err = as(text[from:]); err != nil {
			r.Fault(n, "%s: %v", what, err)
			return value[T]{}
		}
	} else {
		for _, d := range v.template.Doubts {
			d.At = r.within(n, d.Line, d.Column)
			r.set.doubts = append(r.set.doubts, d)
		}
		v.template.Doubts = nil
	}
	v.set = true
	return v
}

// whole reads a whole number between least and most.
func (r *valueReader) whole(n ast.Node, what string, least, most int) (int, bool) {
	s, ok := r.Text(n, what)
	if !ok {
		return 0, false
	}
	v, err := cond.ParseWhole(s)
	if v, err = between(v, err, least, most); err != nil {
		r.Fault(n, "%s: %v", what, err)
		return 0, false
	}
	return v, true
}

// duration reads a time such as 5m, from least to most.
func (r *valueReader) duration(n ast.Node, what string, least, most time.Duration) (time.Duration, bool) {
	s, ok := r.Text(n, what)
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		r.Fault(n, "%s %s is not a duration: write it as 90s, 5m or 1h30m", what, words.Quote(s))
	case d < least || d > most:
		r.Fault(n, "%s %s is not between %s and %s", what, words.Quote(s), Duration(least), Duration(most))
	default:
		return d, true
	}
	return 0, false
}

// list reads a list of at most maxConstraints items.
func (r *valueReader) list(n ast.Node, what string) []ast.Node {
	if n == nil {
		return nil
	}
	items := r.Items(n, what)
	if len(items) > maxConstraints {
		r.Fault(n, "%s has %d entries; the maximum is %d", what, len(items), maxConstraints)
		return nil
	}
	return items
}
