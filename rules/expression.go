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
	options  []expr.Option
	params   []string        // names that labels define
	mentions map[string]bool // gets the labels that expressions ask for, lower case
}

func newLanguage(params []string, mentions map[string]bool) *language {
	l := &language{params: params, mentions: mentions, options: []expr.Option{
		expr.Env(Env{}), expr.MaxNodes(maxNodes), expr.DisableBuiltin("now"), expr.DisableBuiltin("repeat"),
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

// A visitor walks an expression once before it is compiled. It hands the labels
// to the label functions, lowers the texts that labels are compared with and
// notes them, and finds a param that no label defines.
type visitor struct {
	*language
	unknown ast.Node // where the param's name stands
	name    string
}

// Visit is called for a node after its children.
func (v *visitor) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.CallNode:
		name := labelCall(n)
		if name == "" {
			return
		}
		for _, a := range n.Arguments {
			v.mention(a)
		}
		call := &ast.CallNode{Callee: n.Callee, Arguments: append([]ast.Node{&ast.IdentifierNode{Value: "labels"}}, n.Arguments...)}
		ast.Patch(node, call)
	case *ast.BinaryNode:
		_, element := n.Left.(*ast.PointerNode) // any(labels, # == "gpu")
		switch {
		case n.Operator == "in" && isLabels(n.Right):
			v.mention(n.Left)
		case element && n.Operator == "==":
			v.mention(n.Right)
		case element && n.Operator == "in":
			if list, ok := n.Right.(*ast.ArrayNode); ok {
				for _, e := range list.Nodes {
					v.mention(e)
				}
			}
		}
	case *ast.MemberNode:
		id, isID := n.Node.(*ast.IdentifierNode)
		name, isName := n.Property.(*ast.StringNode)
		if v.unknown == nil && isID && isName && id.Value == "param" && !slices.Contains(v.params, name.Value) {
			v.unknown, v.name = n.Property, name.Value
		}
	}
}

func (v *visitor) mention(n ast.Node) {
	if s, ok := n.(*ast.StringNode); ok {
		s.Value = strings.ToLower(s.Value)
		v.mentions[s.Value] = true
	}
}

func isLabels(n ast.Node) bool {
	id, ok := n.(*ast.IdentifierNode)
	return ok && id.Value == "labels"
}

// labelCall returns the name of the label function that a node calls, "" for
// any other node.
func labelCall(n ast.Node) string {
	if c, ok := n.(*ast.CallNode); ok {
		if id, ok := c.Callee.(*ast.IdentifierNode); ok && labelFunctions[id.Value] != nil {
			return id.Value
		}
	}
	return ""
}

// An expressionError is a fault within an expression's text.
type expressionError struct {
	line, column int // line from 1, column in runes from 0
	message      string
}

func (e *expressionError) Error() string { return e.message }

// shifted is an error of a part of text, which begins at a byte of it, as one
// of the whole text.
func shifted(err error, text string, from int) error {
	var e *expressionError
	if !errors.As(err, &e) {
		return err
	}
	line, column := position(text, from)
	if e.line == 1 {
		e.column += column
	}
	e.line += line - 1
	return e
}

// compile checks an expression and compiles it. What it recurses on is bounded
// by the length.
func (l *language) compile(source string, more ...expr.Option) (*vm.Program, error) {
	if len(source) > maxExpression {
		return nil, &expressionError{1, 0, fmt.Sprintf("the expression has %d bytes; at most %d are taken", len(source), maxExpression)}
	}
	v := &visitor{language: l}
	program, err := expr.Compile(source, slices.Concat(l.options, more, []expr.Option{expr.Patch(v)})...)
	if v.unknown == nil {
		return program, placed(err)
	}
	e := (&file.Error{Location: v.unknown.Location()}).Bind(file.NewSource(source))
	hint := didYouMean(v.name, l.params)
	if len(l.params) == 0 {
		hint = ": no label has a param"
	}
	return nil, &expressionError{e.Line, e.Column, "unknown param " + quote(v.name) + hint}
}

// placed turns an error of the expression library into our own.
func placed(err error) error {
	if err == nil {
		return nil
	}
	e := &expressionError{1, 0, err.Error()}
	var f *file.Error
	if errors.As(err, &f) {
		e = &expressionError{max(f.Line, 1), f.Column, f.Message}
	}
	plain := strings.NewReplacer("interface {}", "any value", "type rules.Repo", "repo", "type rules.Job", "job").Replace(e.message)
	e.message = oneLine(strings.TrimSpace(plain))
	return e
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
// can say which part failed. Parts that only ask for labels, or for what the
// repository is, need no program. The zero condition holds.
type condition struct {
	source string
	terms  []term
}

// A term is one part of a condition: a question about labels or the
// repository, or a program.
type term struct {
	source  string
	all     []string // every one of these labels
	none    []string // none of these
	any     []string // at least one of these
	repo    string   // this field of the repository ...
	is      string   // ... has this value
	program *vm.Program
	safe    bool // the program cannot fail
}

// condition compiles a condition.
func (l *language) condition(source string) (condition, error) {
	whole, err := l.compile(source, expr.AsBool(), expr.WarnOnAny())
	if err != nil {
		return condition{}, err
	}
	tree, err := parser.Parse(source)
	if err != nil {
		return condition{}, placed(err)
	}
	c := condition{source: strings.TrimSpace(source)}
	for _, n := range conjuncts(tree.Node) {
		t, native := nativeTerm(n)
		t.source = n.String()
		if !native {
			t.safe = cannotFail(n)
			if t.program, err = l.part(n); err != nil {
				return condition{source: c.source, terms: []term{{source: c.source, program: whole}}}, nil
			}
		}
		c.terms = append(c.terms, t)
	}
	return c, nil
}

// part compiles a part of a condition by itself. It fails on one that does not
// stand alone, as with "let", or that the library does not write as it read it.
func (l *language) part(n ast.Node) (*vm.Program, error) {
	again, err := parser.Parse(n.String())
	if err != nil {
		return nil, placed(err)
	}
	if ast.Dump(again.Node) != ast.Dump(n) {
		return nil, errors.New("written differently")
	}
	return l.compile(n.String(), expr.AsBool())
}

// conjuncts takes a && b && c apart.
func conjuncts(n ast.Node) []ast.Node {
	if b, ok := n.(*ast.BinaryNode); ok && (b.Operator == "&&" || b.Operator == "and") {
		return append(conjuncts(b.Left), conjuncts(b.Right)...)
	}
	return []ast.Node{n}
}

// nativeTerm reads a node that only asks for labels by their names, or for the
// owner, name or full name of the repository.
func nativeTerm(n ast.Node) (t term, ok bool) {
	switch n := n.(type) {
	case *ast.UnaryNode:
		t, ok := nativeTerm(n.Node)
		if !ok || n.Operator != "!" && n.Operator != "not" {
			return term{}, false
		}
		if t.any != nil {
			return term{none: t.any}, true
		}
		return term{none: t.all}, len(t.all) == 1
	case *ast.BinaryNode:
		s, isString := n.Right.(*ast.StringNode)
		if isString && n.Operator == "==" {
			m, isMember := n.Left.(*ast.MemberNode)
			if !isMember || !isFact(m, "repo") {
				return t, false
			}
			t.repo, t.is = m.Property.(*ast.StringNode).Value, s.Value
			_, ok := (&Repo{}).field(t.repo)
			return t, ok
		}
		if s, ok := n.Left.(*ast.StringNode); ok && n.Operator == "in" && isLabels(n.Right) {
			return term{all: []string{strings.ToLower(s.Value)}}, true
		}
	case *ast.CallNode:
		name := labelCall(n)
		if name != "has" && name != "hasAny" || len(n.Arguments) == 0 {
			return t, false
		}
		var names []string
		for _, a := range n.Arguments {
			s, ok := a.(*ast.StringNode)
			if !ok {
				return t, false
			}
			names = append(names, strings.ToLower(s.Value))
		}
		if name == "has" {
			return term{all: names}, true
		}
		return term{any: names}, true
	}
	return t, false
}

// isFact reports whether a node is a field of what (repo or job).
func isFact(n *ast.MemberNode, what ...string) bool {
	id, isID := n.Node.(*ast.IdentifierNode)
	_, isName := n.Property.(*ast.StringNode)
	return isID && isName && slices.Contains(what, id.Value)
}

// field returns a field that rules are found by.
func (r *Repo) field(name string) (v string, ok bool) {
	switch name {
	case "owner":
		return r.Owner, true
	case "name":
		return r.Name, true
	case "full_name":
		return r.FullName, true
	}
	return "", false
}

// cannotFail reports whether a node that compiles has a value for every job:
// the facts that it is made of have types, and are always there.
func cannotFail(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.BoolNode:
		return true
	case *ast.IdentifierNode:
		return isLabels(n)
	case *ast.MemberNode:
		return isFact(n, "repo", "job")
	case *ast.UnaryNode:
		return cannotFail(n.Node)
	case *ast.BinaryNode:
		operators := []string{"==", "!=", "<", "<=", ">", ">=", "&&", "and", "||", "or", "in", "contains", "startsWith", "endsWith"}
		return slices.Contains(operators, n.Operator) && cannotFail(n.Left) && cannotFail(n.Right)
	case *ast.CallNode:
		return labelCall(n) != "" && !slices.ContainsFunc(n.Arguments, func(a ast.Node) bool { return !cannotFail(a) })
	}
	return false
}

// holds reports whether the condition holds, and why as a sentence's end. An
// error is one of an expression.
func (c *condition) holds(env *Env, trace bool) (held bool, why string, err error) {
	for i := range c.terms {
		t := &c.terms[i]
		if t.program == nil {
			if fails, label := t.fails(env); fails {
				if trace {
					why = t.why(label, env)
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

// fails reports whether a term without a program does not hold, and the label
// that decides it.
func (t *term) fails(env *Env) (fails bool, label string) {
	for _, l := range t.all {
		if !slices.Contains(env.Labels, l) {
			return true, l
		}
	}
	for _, l := range t.none {
		if slices.Contains(env.Labels, l) {
			return true, l
		}
	}
	if t.any != nil {
		return !slices.ContainsFunc(t.any, func(l string) bool { return slices.Contains(env.Labels, l) }), t.any[0]
	}
	is, _ := env.Repo.field(t.repo)
	return is != t.is, ""
}

func (t *term) why(label string, env *Env) string {
	is, isRepo := env.Repo.field(t.repo)
	switch {
	case isRepo:
		return fmt.Sprintf("repo.%s is %s, not %s", t.repo, quote(is), quote(t.is))
	case t.none != nil:
		return "the job has the label " + quote(label)
	case len(t.any) > 1:
		return "the job has none of the labels " + quoteAll(t.any)
	}
	return "the job lacks the label " + quote(label)
}

// A key is what a condition needs: a label, or a value of a field of the
// repository.
type key struct{ what, is string }

// needs returns keys without which the condition can neither hold nor fail:
// nothing that could fail comes before them.
func (c *condition) needs() []key {
	var need []key
	for _, t := range c.terms {
		for _, l := range t.all {
			need = append(need, key{"label", l})
		}
		if t.repo != "" {
			need = append(need, key{t.repo, t.is})
		}
		if t.program != nil && !t.safe {
			break
		}
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
		fault := ""
		if i := strings.LastIndex(before, "${"); end < 0 {
			fault = opening + " is not closed by " + closing
		} else if i >= 0 && !strings.Contains(before[i:], "}") {
			fault = "an expression must not stand within ${…}: what Nomad puts in there is written out"
		}
		if fault != "" {
			return nil, shifted(&expressionError{1, 0, fault}, source, start-len(opening))
		}
		program, err := l.compile(after[:end])
		if err != nil {
			return nil, shifted(err, source, start)
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
