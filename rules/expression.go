package rules

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

const (
	maxExpression = 4096 // bytes
	maxNodes      = 500
)

// Env is what an expression sees: the README's table of variables is made of
// its fields.
type Env struct {
	Labels []string       `expr:"labels"` // lower case, without doubles
	Param  map[string]any `expr:"param"`  // values of the parameter labels that the job has; nil for the others
	Repo   Repo           `expr:"repo"`
	Job    Job            `expr:"job"`
}

// A language is what the expressions of one file are compiled with. An
// expression sees no clock.
type language struct {
	options []expr.Option
	params  []string // names that labels define
}

func newLanguage(params []string) *language {
	l := &language{params: params, options: []expr.Option{
		expr.Env(Env{}), expr.MaxNodes(maxNodes), expr.DisableBuiltin("now"), expr.Patch(labelPatch{}),
	}}
	for name, f := range labelFunctions {
		l.options = append(l.options, expr.Function(name, f, new(func([]string, ...string) bool)))
	}
	return l
}

// labelFunctions take the job's labels before the arguments that the rules file shows.
var labelFunctions = map[string]func(...any) (any, error){
	"has": func(a ...any) (any, error) { // all of these
		labels, want := labelArguments(a)
		return !slices.ContainsFunc(want, func(l string) bool { return !slices.Contains(labels, l) }), nil
	},
	"hasAny": func(a ...any) (any, error) {
		labels, want := labelArguments(a)
		return slices.ContainsFunc(want, func(l string) bool { return slices.Contains(labels, l) }), nil
	},
	"only": func(a ...any) (any, error) { // nothing but these
		labels, want := labelArguments(a)
		return !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(want, l) }), nil
	},
	"exactly": func(a ...any) (any, error) { // these and nothing else
		labels, want := labelArguments(a)
		return !slices.ContainsFunc(want, func(l string) bool { return !slices.Contains(labels, l) }) &&
			!slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(want, l) }), nil
	},
}

func labelArguments(args []any) (labels, want []string) {
	labels, _ = args[0].([]string)
	for _, a := range args[1:] {
		s, _ := a.(string)
		want = append(want, strings.ToLower(s))
	}
	return labels, want
}

// labelPatch hands the labels to the label functions, and lowers the literals
// that labels are compared with.
type labelPatch struct{}

func (labelPatch) Visit(node *ast.Node) {
	if c, name := labelCall(*node); c != nil {
		if len(c.Arguments) > 0 && isLabels(c.Arguments[0]) {
			return // done already
		}
		args := append([]ast.Node{&ast.IdentifierNode{Value: "labels"}}, c.Arguments...)
		call := &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: args}
		call.SetLocation(c.Location())
		ast.Patch(node, call)
		return
	}
	if b, ok := (*node).(*ast.BinaryNode); ok && b.Operator == "in" && isLabels(b.Right) {
		if s, ok := b.Left.(*ast.StringNode); ok {
			s.Value = strings.ToLower(s.Value)
		}
	}
}

func isLabels(n ast.Node) bool {
	id, ok := n.(*ast.IdentifierNode)
	return ok && id.Value == "labels"
}

// labelCall returns the call of a label function, nil for any other node.
func labelCall(n ast.Node) (*ast.CallNode, string) {
	c, ok := n.(*ast.CallNode)
	if !ok {
		return nil, ""
	}
	id, ok := c.Callee.(*ast.IdentifierNode)
	if !ok || labelFunctions[id.Value] == nil {
		return nil, ""
	}
	return c, id.Value
}

// An expressionError is a fault within an expression's text.
type expressionError struct {
	line, column int // line from 1, column in runes from 0
	message      string
}

func (e *expressionError) Error() string { return e.message }

// compile checks an expression and compiles it.
func (l *language) compile(source string, more ...expr.Option) (*vm.Program, error) {
	if len(source) > maxExpression {
		return nil, &expressionError{1, 0, fmt.Sprintf("the expression has %d bytes; at most %d are taken", len(source), maxExpression)}
	}
	if at := tooDeep(source); at >= 0 {
		return nil, &expressionError{1, at, fmt.Sprintf("more than %d brackets or signs within each other", maxDepth)}
	}
	program, err := expr.Compile(source, append(slices.Clone(l.options), more...)...)
	if err != nil {
		return nil, placed(err)
	}
	tree, err := parser.Parse(source)
	if err != nil {
		return nil, placed(err)
	}
	v := &paramNames{known: l.params}
	ast.Walk(&tree.Node, v)
	if v.unknown == nil {
		return program, nil
	}
	e := (&file.Error{Location: v.unknown.Location()}).Bind(file.NewSource(source))
	hint := didYouMean(v.name, l.params)
	if len(l.params) == 0 {
		hint = ": no label has a param"
	}
	return nil, &expressionError{e.Line, e.Column, "unknown param " + quote(v.name) + hint}
}

// tooDeep bounds what the expression parser recurses on; -1 is fine.
func tooDeep(source string) int {
	depth, signs := 0, 0
	for i, c := range source {
		switch c {
		case '(', '[', '{', '?':
			depth++
		case ')', ']', '}':
			depth = max(depth-1, 0)
		}
		switch c {
		case '!', '-', '+':
			signs++
		case ' ', '\t', '\n':
		default:
			signs = 0
		}
		if depth > maxDepth || signs > maxDepth {
			return i
		}
	}
	return -1
}

// placed turns an error of the expression library into our own.
func placed(err error) error {
	var f *file.Error
	if errors.As(err, &f) {
		return &expressionError{max(f.Line, 1), f.Column, oneLine(f.Message)}
	}
	return &expressionError{1, 0, oneLine(err.Error())}
}

// paramNames finds a param that no label defines.
type paramNames struct {
	known   []string
	unknown ast.Node
	name    string
}

func (v *paramNames) Visit(node *ast.Node) {
	m, ok := (*node).(*ast.MemberNode)
	if !ok || v.unknown != nil {
		return
	}
	id, isID := m.Node.(*ast.IdentifierNode)
	name, isName := m.Property.(*ast.StringNode)
	if isID && isName && id.Value == "param" && !slices.Contains(v.known, name.Value) {
		v.unknown, v.name = m.Property, name.Value
	}
}

var machines = sync.Pool{New: func() any { return new(vm.VM) }}

// evaluate runs a program. Its error is one sentence.
func evaluate(p *vm.Program, env *Env) (any, error) {
	m := machines.Get().(*vm.VM)
	defer machines.Put(m)
	v, err := m.Run(p, env)
	if err != nil {
		return nil, placed(err)
	}
	return v, nil
}

// A condition is an expression taken apart at its outermost "and", so that it
// can say which part failed. Parts that only ask for labels need no program.
// The zero condition holds.
type condition struct {
	source string
	terms  []term
}

// A term is one part of a condition: a question about labels, or a program.
type term struct {
	source  string
	all     []string // every one of these labels
	none    []string // none of these
	any     []string // at least one of these
	program *vm.Program
}

// condition compiles a condition and adds the labels that it mentions to
// mentions.
func (l *language) condition(source string, mentions map[string]bool) (condition, error) {
	whole, err := l.compile(source, expr.AsBool(), expr.WarnOnAny())
	if err != nil {
		return condition{}, err
	}
	tree, err := parser.Parse(source)
	if err != nil {
		return condition{}, placed(err)
	}
	ast.Walk(&tree.Node, mentioned(mentions))
	c := condition{source: strings.TrimSpace(source)}
	for _, n := range conjuncts(tree.Node) {
		t, native := labelTerm(n)
		t.source = n.String()
		if !native {
			if t.program, err = l.compile(t.source, expr.AsBool()); err != nil {
				// It does not stand alone, as with "let": keep it whole.
				return condition{source: c.source, terms: []term{{source: c.source, program: whole}}}, nil
			}
		}
		c.terms = append(c.terms, t)
	}
	return c, nil
}

// conjuncts takes a && b && c apart.
func conjuncts(n ast.Node) []ast.Node {
	if b, ok := n.(*ast.BinaryNode); ok && (b.Operator == "&&" || b.Operator == "and") {
		return append(conjuncts(b.Left), conjuncts(b.Right)...)
	}
	return []ast.Node{n}
}

// labelTerm reads a node that only asks for labels by their names.
func labelTerm(n ast.Node) (term, bool) {
	if u, ok := n.(*ast.UnaryNode); ok && (u.Operator == "!" || u.Operator == "not") {
		t, ok := labelTerm(u.Node)
		switch {
		case !ok:
		case t.any != nil:
			return term{none: t.any}, true
		case len(t.all) == 1:
			return term{none: t.all}, true
		}
		return term{}, false
	}
	if b, ok := n.(*ast.BinaryNode); ok && b.Operator == "in" && isLabels(b.Right) {
		if s, ok := b.Left.(*ast.StringNode); ok {
			return term{all: []string{strings.ToLower(s.Value)}}, true
		}
	}
	c, name := labelCall(n)
	if c == nil || name != "has" && name != "hasAny" || len(c.Arguments) == 0 {
		return term{}, false
	}
	var names []string
	for _, a := range c.Arguments {
		s, ok := a.(*ast.StringNode)
		if !ok {
			return term{}, false
		}
		names = append(names, strings.ToLower(s.Value))
	}
	if name == "has" {
		return term{all: names}, true
	}
	return term{any: names}, true
}

// mentioned collects the labels that an expression compares labels with.
type mentioned map[string]bool

func (m mentioned) Visit(node *ast.Node) {
	add := func(n ast.Node) {
		switch s := n.(type) {
		case *ast.StringNode:
			m[strings.ToLower(s.Value)] = true
		case *ast.ArrayNode:
			for _, e := range s.Nodes {
				m.Visit(&e)
				if s, ok := e.(*ast.StringNode); ok {
					m[strings.ToLower(s.Value)] = true
				}
			}
		}
	}
	switch n := (*node).(type) {
	case *ast.BinaryNode:
		if n.Operator == "in" && isLabels(n.Right) {
			add(n.Left)
		}
		if _, ok := n.Left.(*ast.PointerNode); ok && (n.Operator == "==" || n.Operator == "in") {
			add(n.Right) // any(labels, # == "gpu")
		}
	case *ast.CallNode:
		if c, _ := labelCall(n); c != nil {
			for _, a := range c.Arguments {
				add(a)
			}
		}
	}
}

// holds reports whether the condition holds, and why as a sentence's end. An
// error is one of an expression.
func (c *condition) holds(env *Env, trace bool) (held bool, why string, err error) {
	for i := range c.terms {
		t := &c.terms[i]
		if t.program == nil {
			if missing := t.failing(env.Labels); missing != "" {
				if trace {
					why = t.why(missing)
				}
				return false, why, nil
			}
			continue
		}
		v, err := evaluate(t.program, env)
		if err != nil {
			return false, "", fmt.Errorf("%w in %s", err, oneLine(t.source))
		}
		if v != true {
			if trace {
				why = "false: " + oneLine(t.source)
			}
			return false, why, nil
		}
	}
	if trace {
		why = "it has no condition"
		if c.source != "" {
			why = "true: " + oneLine(c.source)
		}
	}
	return true, why, nil
}

// failing returns a label for which the term does not hold, "" if it does.
func (t *term) failing(labels []string) string {
	for _, l := range t.all {
		if !slices.Contains(labels, l) {
			return l
		}
	}
	for _, l := range t.none {
		if slices.Contains(labels, l) {
			return l
		}
	}
	if t.any != nil && !slices.ContainsFunc(t.any, func(l string) bool { return slices.Contains(labels, l) }) {
		return t.any[0]
	}
	return ""
}

func (t *term) why(failing string) string {
	switch {
	case t.none != nil:
		return "the job has the label " + quote(failing)
	case len(t.any) > 1:
		return "the job has none of the labels " + quoteAll(t.any)
	}
	return "the job lacks the label " + quote(failing)
}

// needs returns labels without which the condition cannot hold, nor fail: they
// are asked for before anything that could.
func (c *condition) needs() []string {
	var need []string
	for _, t := range c.terms {
		if t.program != nil {
			break
		}
		need = append(need, t.all...)
	}
	return need
}

// A template is a text with ${{ expressions }} in it. Nomad's own ${…} is text.
type template struct {
	source string
	parts  []part
}

type part struct {
	text    string
	program *vm.Program // nil for text
}

const opening, closing = "${{", "}}"

// template compiles a text; nil when no expression is in it.
func (l *language) template(source string) (*template, error) {
	if !strings.Contains(source, opening) {
		return nil, nil
	}
	t := &template{source: source}
	for rest := source; rest != ""; {
		before, after, found := strings.Cut(rest, opening)
		if before != "" {
			t.parts = append(t.parts, part{text: before})
		}
		if !found {
			break
		}
		start := len(source) - len(after)
		end := closingAt(after)
		if end < 0 {
			line, column := position(source, start-len(opening))
			return nil, &expressionError{line, column, opening + " is not closed by " + closing}
		}
		program, err := l.compile(after[:end])
		if err != nil {
			var e *expressionError
			errors.As(err, &e)
			line, column := position(source, start)
			if e.line == 1 {
				e.column += column
			}
			e.line += line - 1
			return nil, e
		}
		t.parts = append(t.parts, part{program: program})
		rest = after[end+len(closing):]
	}
	return t, nil
}

// closingAt finds the end of an expression: the first }} outside a string.
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
		case strings.HasPrefix(s[i:], closing):
			return i
		}
	}
	return -1
}

// position is the line, from 1, and the column in runes, from 0, of a byte.
func position(s string, at int) (line, column int) {
	line = 1 + strings.Count(s[:at], "\n")
	begin := strings.LastIndexByte(s[:at], '\n') + 1
	return line, len([]rune(s[begin:at]))
}

// value evaluates the template: to any value when it is one expression alone,
// else to a string. What comes out of expressions may be a stranger's: it must
// be printable and make no interpolation of Nomad's.
func (t *template) value(env *Env) (any, error) {
	if len(t.parts) == 1 {
		v, err := evaluate(t.parts[0].program, env)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, oneLine(t.source))
		}
		if v == nil {
			return nil, fmt.Errorf("%s is nil; give a value for that case: ${{ param.x ?? 1 }}", oneLine(t.source))
		}
		if s, ok := v.(string); ok && (!printable(s) || strings.Contains(s, "${")) {
			return nil, unsafeValue(t.source, s)
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
		v, err := evaluate(p.program, env)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, oneLine(t.source))
		}
		s, err := asText(v)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, oneLine(t.source))
		}
		if !printable(s) {
			return nil, unsafeValue(t.source, s)
		}
		out.WriteString(s)
	}
	if s := out.String(); strings.Count(s, "${") != ours {
		return nil, unsafeValue(t.source, s)
	}
	return out.String(), nil
}

func unsafeValue(source, v string) error {
	return fmt.Errorf("%s gives %s: a value from an expression must be printable and hold no ${", oneLine(source), quote(v))
}

// asText writes a single value as text.
func asText(v any) (string, error) {
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
