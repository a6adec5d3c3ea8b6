package cond

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/parser"

	"switchyard/rules/internal/words"
)

// A Template is a text with ${{ expressions }} in it. Nomad's own ${…} is text.
type Template struct {
	Source string
	parts  []part
	Doubts []Doubt // of its expressions
}

type part struct {
	text    string
	program *code    // nil for text
	facts   []string // that the program asks for
}

const Opening, Closing = "${{", "}}"

// Template compiles a text from a byte of it on; nil when no expression is in
// that. The places of errors and of doubts are those in the whole text.
func (l *Language) Template(text string, from int) (*Template, error) {
	if !strings.Contains(text[from:], Opening) {
		return nil, nil
	}
	t := &Template{Source: text[from:]}
	for rest := t.Source; rest != ""; {
		before, after, found := strings.Cut(rest, Opening)
		if before != "" {
			t.parts = append(t.parts, part{text: before})
		}
		if !found {
			break
		}
		start := len(text) - len(after)
		end := closingAt(after)
		fault := ""
		if i := strings.LastIndex(before, "${"); end < 0 {
			fault = Opening + " is not closed by " + Closing
		} else if i >= 0 && !strings.Contains(before[i:], "}") {
			fault = "an expression is not allowed within ${…}: write out what Nomad interpolates"
		}
		if fault != "" {
			return nil, shifted(&ExpressionError{1, 0, fault}, text, start-len(Opening))
		}
		program, err := l.Compile(after[:end], false)
		if err != nil {
			return nil, shifted(err, text, start)
		}
		for _, d := range l.doubts {
			d.Line, d.Column = shift(text, start, d.Line, d.Column)
			t.Doubts = append(t.Doubts, d)
		}
		p := part{program: program}
		if tree, err := parser.Parse(after[:end]); err == nil {
			p.facts = factsOf(tree.Node)
			l.see(p.facts)
		}
		t.parts = append(t.parts, p)
		rest = after[end+len(Closing):]
	}
	return t, nil
}

// closingAt returns where an expression ends: at the first }} outside a string.
func closingAt(s string) int {
	quoted := byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted != 0 && c == '\\' && quoted != '`':
			i++
		case quoted != 0:
			if c == quoted {
				quoted = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quoted = c
		case strings.HasPrefix(s[i:], Closing):
			return i
		}
	}
	return -1
}

// Value evaluates the template: to any value when it is one expression alone,
// else to a string. What comes out of expressions may be a stranger's: it must
// be printable and make no interpolation of Nomad's.
func (t *Template) Value(env *Env) (any, error) {
	if len(t.parts) == 1 {
		v, err := Evaluate(t.parts[0].program, env)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, words.OneLine(t.Source))
		}
		if v == nil {
			return nil, fmt.Errorf("%s is nil; give a value for that case: ${{ param.x ?? 1 }}", words.OneLine(t.Source))
		}
		if s, ok := v.(string); ok && (!words.Printable(s) || strings.Contains(s, "${")) {
			return nil, unsafeValue(t.Source, s)
		}
		return v, nil
	}
	var out strings.Builder
	ours := 0 // interpolations that the text itself has
	for _, p := range t.parts {
		if p.program == nil {
			ours += strings.Count(p.text, "${")
			out.WriteString(p.text)
			continue
		}
		v, err := Evaluate(p.program, env)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, words.OneLine(t.Source))
		}
		s, err := AsText(v)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, words.OneLine(t.Source))
		}
		if !words.Printable(s) {
			return nil, unsafeValue(t.Source, s)
		}
		out.WriteString(s)
	}
	if s := out.String(); strings.Count(s, "${") != ours {
		return nil, unsafeValue(t.Source, s)
	}
	return out.String(), nil
}

func unsafeValue(source, v string) error {
	return fmt.Errorf("%s gives %s: a value from an expression must be printable and hold no ${", words.OneLine(source), words.Quote(v))
}

// AsText writes a single value as text.
func AsText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case nil:
		return "", errors.New("nil has no text; give a value for that case: ${{ param.x ?? 1 }}")
	}
	return "", fmt.Errorf("a %T has no text: want a string, a number or a boolean", v)
}

// IsParam reports whether the template is the value of the param, unchanged.
func (t *Template) IsParam(p *Param) bool {
	inner := strings.TrimSuffix(strings.TrimPrefix(t.Source, Opening), Closing)
	return p != nil && strings.TrimSpace(inner) == "param."+p.Name
}

// DependsOnly reports whether the template depends on nothing of the job but
// the param, which may be nil.
func (t *Template) DependsOnly(on *Param) bool {
	for _, p := range t.parts {
		if slices.ContainsFunc(p.facts, func(f string) bool { return on == nil || f != "param."+on.Name }) {
			return false
		}
	}
	return true
}

// Kind returns "list" or "mapping" for a template of one expression that gives one, and ""
// otherwise.
func (t *Template) Kind() string {
	if len(t.parts) != 1 || t.parts[0].program == nil {
		return ""
	}
	of := t.parts[0].program.Node().Type()
	if of == nil {
		return ""
	}
	switch of.Kind() {
	case reflect.Slice, reflect.Array:
		return "list"
	case reflect.Map, reflect.Struct:
		return "mapping"
	}
	return ""
}
