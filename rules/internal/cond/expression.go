package cond

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/checker/nature"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"switchyard/rules/internal/words"
)

const (
	maxExpression = 4096 // bytes
	maxNodes      = 500
	maxSums       = 20   // of +, which may put long texts together
	maxMatches    = 1000 // size of the patterns of one expression, as patternSize has it
	maxPattern    = 5000 // size of a pattern elsewhere

	MaxPrograms    = 30_000  // of a set of files, 3 kB each: those of 10,000 rules with three parts that are no plain question for a label or a fact
	MaxAllPatterns = 500_000 // size of all patterns of a set of files, 50 bytes each
)

// A Language is what the expressions of one file are compiled with. An
// expression sees no clock.
type Language struct {
	config     *conf.Config // what expr.Compile makes anew each time
	typed      *conf.Config // the same where params have types
	vocabulary Vocabulary
	source     file.Source     // of the condition that is taken apart
	mentions   map[string]bool // gets the labels that expressions ask for, lower case
	found      []Mention       // those of the last expression that was compiled
	doubts     []Doubt         // the same
	Asked      map[string]bool // params that any expression asks for
	Sees       bool            // an expression may depend on labels that it does not name
	Programs   int             // that were compiled
	Patterns   int             // size of their patterns, and of those of params
}

// A Vocabulary says what labels a rules file defines.
type Vocabulary interface {
	// Find reports whether a lower-case label is known, and returns its param, nil
	// when it has none, with the text that its pattern leaves open.
	Find(label string) (p *Param, open string, known bool)
	// All returns the params of all labels in the order of the file.
	All() []*Param
}

// param finds a param by its name; nil when there is none.
func (l *Language) param(name string) *Param {
	for _, p := range l.vocabulary.All() {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// A Mention is a label that an expression asks for, and where in its text:
// line from 1, column in runes from 0.
type Mention struct {
	Label        string
	Line, Column int
	At           Spot // in the file
}

// NewLanguage returns the language of the files whose vocabulary it is; mentions
// gets the labels that expressions ask for. The optimizer is off: it takes "fails or true" for true, and a condition that
// is taken apart evaluates from left to right.
func NewLanguage(v Vocabulary, mentions map[string]bool) *Language {
	c := conf.CreateNew()
	for _, option := range []expr.Option{
		expr.Env(Env{}), expr.MaxNodes(maxNodes), expr.Optimize(false),
	} {
		option(c)
	}
	for name := range c.Builtins {
		if !slices.Contains(Builtins, name) {
			c.Disabled[name] = true
		}
	}
	for name, f := range Bounded {
		expr.Function(name, f.call, f.as)(c)
	}
	for name, f := range LabelFunctions {
		expr.Function(name, f, new(func([]string, ...string) bool))(c)
	}
	for name, f := range foldFunctions {
		as := any(new(func(any) any))
		if of := strings.TrimPrefix(name, foldName); Bounded[of].as != nil {
			as = Bounded[of].as
		} else if name != foldAny {
			as = new(func(string, string) string)
		}
		expr.Function(name, f, as)(c)
	}
	for name := range c.Disabled {
		delete(c.Builtins, name)
	}
	c.Check()
	typed := *c
	params := types.Map{types.Extra: types.Any}
	for _, p := range v.All() {
		params[p.Name] = types.String
		if p.Kind != "string" {
			params[p.Name] = types.Int
		}
	}
	env := Env{}
	typed.Env = types.Map{
		"labels": types.TypeOf(env.Labels), "param": params, "repo": types.TypeOf(env.Repo), "job": types.TypeOf(env.Job), "run": types.TypeOf(env.Run),
	}.Nature()
	return &Language{config: c, typed: &typed, vocabulary: v, mentions: mentions, Asked: map[string]bool{}}
}

// Builtins are the functions of the expression library that are taken. They give
// no more than they get: with these, without let, and with no loop in a loop, an
// expression takes time and memory in proportion to its length and the job's.
var Builtins = []string{
	"all", "any", "none", "one", "filter", "count", "len", "first", "last",
	"lower", "upper", "trim", "trimPrefix", "trimSuffix", "hasPrefix", "hasSuffix", "indexOf", "lastIndexOf",
	"int", "float", "abs", "ceil", "floor", "round", "min", "max",
}

const (
	maxText  = 4096 // bytes that a function may give
	maxParts = 100  // elements of a list that a function or a range may give
)

// Bounded are functions that could give more than they get.
var Bounded = map[string]struct {
	call func(...any) (any, error)
	as   any // new(func type)
}{
	"split": {func(a ...any) (any, error) {
		parts := strings.SplitN(a[0].(string), a[1].(string), maxParts+1)
		if len(parts) > maxParts {
			return nil, fmt.Errorf("split gives more than %d texts", maxParts)
		}
		return parts, nil
	}, new(func(string, string) []string)},
	"join": {func(a ...any) (any, error) {
		list, sep := []string{}, ""
		switch l := a[0].(type) {
		case []string:
			list = l
		case []any: // what filter gives
			for _, e := range l {
				s, err := AsText(e)
				if err != nil {
					return nil, err
				}
				list = append(list, s)
			}
		default:
			return nil, fmt.Errorf("join takes a list, not a %T", l)
		}
		if len(a) > 1 {
			sep = a[1].(string)
		}
		size := 0
		for _, s := range list {
			size += len(s) + len(sep)
		}
		if size > maxText+len(sep) {
			return nil, fmt.Errorf("join gives more than %d bytes", maxText)
		}
		return strings.Join(list, sep), nil
	}, new(func(any, ...string) string)},
	"string": {func(a ...any) (any, error) { return AsText(a[0]) }, new(func(any) string)},
	"replace": {func(a ...any) (any, error) {
		s, old, with := a[0].(string), a[1].(string), a[2].(string)
		if len(s)+strings.Count(s, old)*(len(with)-len(old)) > maxText {
			return nil, fmt.Errorf("replace gives more than %d bytes", maxText)
		}
		return strings.ReplaceAll(s, old, with), nil
	}, new(func(string, string, string) string)},
}

// LabelFunctions take the job's labels before the arguments that the rules file shows.
var LabelFunctions = map[string]func(...any) (any, error){
	"has": func(a ...any) (any, error) { // all of these
		labels, want, err := labelArguments(a)
		return !slices.ContainsFunc(want, func(l string) bool { return !slices.Contains(labels, l) }), err
	},
	"hasAny": func(a ...any) (any, error) {
		labels, want, err := labelArguments(a)
		return slices.ContainsFunc(want, func(l string) bool { return slices.Contains(labels, l) }), err
	},
	"only": func(a ...any) (any, error) { // nothing but these
		labels, want, err := labelArguments(a)
		return !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(want, l) }), err
	},
	"exactly": func(a ...any) (any, error) { // these and nothing else
		labels, want, err := labelArguments(a)
		return !slices.ContainsFunc(want, func(l string) bool { return !slices.Contains(labels, l) }) &&
			!slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(want, l) }), err
	},
}

func labelArguments(args []any) (labels, want []string, err error) {
	labels, _ = args[0].([]string)
	for _, a := range args[1:] {
		s, ok := a.(string)
		if !ok {
			return nil, nil, errors.New("a label function takes texts, and one of them is " + strings.Trim(fmt.Sprintf("%T", a), "<>"))
		}
		want = append(want, strings.ToLower(s))
	}
	return labels, want, nil
}

// A visitor walks an expression once before it is compiled. It hands the labels
// to the label functions, lowers the texts that labels are compared with and
// notes them, and finds what must not be asked for: a param that no label
// defines, and the run, but in a condition.
type visitor struct {
	*Language
	source  file.Source
	run     bool     // run.… may be asked for
	loops   int      // predicates so far, the inner ones before the outer
	sums    int      // + so far
	bad     ast.Node // where it stands
	message string
}

// Visit is called for a node after its children.
func (v *visitor) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.BuiltinNode:
		v.known(n, n.Name)
	case *ast.CallNode:
		name := labelCall(n)
		if id, ok := n.Callee.(*ast.IdentifierNode); ok && name == "" {
			v.known(n, id.Value)
		}
		if name == "" {
			return
		}
		if len(n.Arguments) == 0 {
			v.refuse(n, fmt.Sprintf("%s asks for no label: write %s(%q)", name, name, "linux"))
		}
		for _, a := range n.Arguments {
			if said := unquoted(a); said != "" {
				v.refuse(first(a), fmt.Sprintf("unknown name %s: a label must be in quotes: %s(%q)", words.OneLine(first(a).String()), name, said))
			}
		}
		call := &ast.CallNode{Callee: n.Callee, Arguments: append([]ast.Node{&ast.IdentifierNode{Value: "labels"}}, n.Arguments...)}
		ast.Patch(node, call)
	case *ast.VariableDeclaratorNode, *ast.SequenceNode:
		v.refuse(n, "let is not supported: write the value where it is used")
	case *ast.PredicateNode:
		if v.loops++; v.loops > 1 && loops(n.Node) {
			v.refuse(n, "nested loops are not supported: use one loop")
		}
	case *ast.BinaryNode:
		if n.Operator == ".." {
			from, isFrom := n.Left.(*ast.IntegerNode)
			to, isTo := n.Right.(*ast.IntegerNode)
			if !isFrom || !isTo || to.Value-from.Value > maxParts {
				v.refuse(n, fmt.Sprintf("a range goes from one number to another, of at most %d: write 1..9", maxParts))
			}
		}
		if n.Operator == "+" {
			if v.sums++; v.sums > maxSums {
				v.refuse(n, fmt.Sprintf("an expression has at most %d of +", maxSums))
			}
		}
		list, _ := n.Right.(*ast.IdentifierNode)
		switch {
		case n.Operator != "in" || list == nil || !slices.Contains(envNames, list.Value):
		case list.Value != "param" && list.Value != "labels":
			v.refuse(n.Right, list.Value+" is no list")
		}
	case *ast.MemberNode:
		id, isID := n.Node.(*ast.IdentifierNode)
		name, isName := n.Property.(*ast.StringNode)
		if isID && isName && id.Value == "param" {
			v.Asked[name.Value] = true
		}
		if isID && isName && id.Value == "param" && v.param(name.Value) == nil {
			var names []string
			for _, p := range v.vocabulary.All() {
				names = append(names, p.Name)
			}
			hint := words.DidYouMean(name.Value, names)
			if len(names) == 0 {
				hint = ": no label has a param"
			}
			v.refuse(n.Property, "unknown param "+words.Quote(name.Value)+hint)
		}
	case *ast.IdentifierNode:
		if n.Value == "run" && !v.run {
			v.refuse(n, "run.… costs a call to GitHub: it is allowed only in the if of a rule")
		}
		if n.Value == "$env" { // a way around what is asked of the names
			v.refuse(n, "$env is not supported: write labels, param, repo, job or run")
		}
	}
}

// patterns is a visitor of regular expressions, before the library compiles them.
type patterns struct {
	*visitor
	size *int // so far
}

// Visit is called for a node after its children.
func (v patterns) Visit(node *ast.Node) {
	n, ok := (*node).(*ast.BinaryNode)
	if !ok || n.Operator != "matches" {
		return
	}
	s, ok := n.Right.(*ast.StringNode)
	if !ok {
		v.refuse(n.Right, "matches takes a pattern that is written out")
		return
	}
	if *v.size += PatternSize(s.Value); *v.size > maxMatches {
		v.refuse(n.Right, fmt.Sprintf("the pattern is too large, with what it repeats: the maximum is %d steps", maxMatches))
	}
}

// PatternSize is about how many steps a regular expression compiles to: its
// memory, and its time for each character, are in proportion. It is 0 for one
// that does not compile.
func PatternSize(s string) int {
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return 0
	}
	return steps(re)
}

func steps(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n += steps(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}

// CheckPattern checks a regular expression that is no part of an expression.
func CheckPattern(s string) error {
	if _, err := syntax.Parse(s, syntax.Perl); err != nil {
		return fmt.Errorf("%s is not a regular expression: %s", words.Quote(s), words.OneLine(err.Error()))
	}
	if PatternSize(s) > maxPattern {
		return fmt.Errorf("%s is too large, with what it repeats: the maximum is %d steps", words.Quote(s), maxPattern)
	}
	return nil
}

// known refuses a function that is not taken.
func (v *visitor) known(n ast.Node, name string) {
	if slices.Contains(Builtins, name) || Bounded[name].call != nil {
		return
	}
	all := slices.Concat(slices.Collect(maps.Keys(LabelFunctions)), slices.Collect(maps.Keys(Bounded)), Builtins)
	slices.Sort(all)
	v.refuse(n, "there is no function "+words.Quote(name)+cmp.Or(words.DidYouMean(name, all), "; there are "+strings.Join(all, ", ")))
}

// loops reports whether a predicate is within the node.
func loops(n ast.Node) bool {
	var f loopFinder
	ast.Walk(&n, &f)
	return f.found
}

type loopFinder struct{ found bool }

// Visit is called for a node after its children.
func (f *loopFinder) Visit(n *ast.Node) {
	_, is := (*n).(*ast.PredicateNode)
	f.found = f.found || is
}

func (v *visitor) refuse(n ast.Node, message string) {
	if v.bad == nil {
		v.bad, v.message = n, message
	}
}

func (v *visitor) fault() error {
	line, column := v.place(v.bad)
	return &ExpressionError{line, column, v.message}
}

func (v *visitor) mention(n ast.Node) {
	if s, ok := n.(*ast.StringNode); ok {
		v.mentions[strings.ToLower(s.Value)] = true
		line, column := v.place(n)
		if code, why := v.noLabel(s.Value); why != "" {
			v.doubt(n, code, "%s", why)
		}
		s.Value = strings.ToLower(s.Value)
		v.found = append(v.found, Mention{Label: s.Value, Line: line, Column: column})
	}
}

func (v *visitor) place(n ast.Node) (line, column int) {
	e := (&file.Error{Location: n.Location()}).Bind(v.source)
	return max(e.Line, 1), e.Column
}

func isLabels(n ast.Node) bool {
	id, ok := n.(*ast.IdentifierNode)
	return ok && id.Value == "labels"
}

// labelCall returns the name of the label function that a node calls, "" for
// any other node.
func labelCall(n ast.Node) string {
	if c, ok := n.(*ast.CallNode); ok {
		if id, ok := c.Callee.(*ast.IdentifierNode); ok && LabelFunctions[id.Value] != nil {
			return id.Value
		}
	}
	return ""
}

// An ExpressionError is a fault within an expression's text.
type ExpressionError struct {
	Line, Column int // line from 1, column in runes from 0
	Message      string
}

// Error returns the message.
func (e *ExpressionError) Error() string { return e.Message }

// Shifted is an error of a part of text, which begins at a byte of it, as one
// of the whole text.
func Shifted(err error, text string, from int) error {
	var e *ExpressionError
	if !errors.As(err, &e) {
		return err
	}
	line, column := position(text, from)
	if e.Line == 1 {
		e.Column += column
	}
	e.Line += line - 1
	return e
}

// see notes whether an expression that asks for the facts may depend on labels
// that it does not name.
func (l *Language) see(facts []string) {
	l.Sees = l.Sees || slices.Contains(facts, labelsName) || slices.Contains(facts, "param")
}

// Compile checks an expression and compiles it; run says whether it may ask for
// the run.
func (l *Language) Compile(source string, run bool, more ...expr.Option) (*code, error) {
	tree, config, err := l.check(source, run, more...)
	if err != nil {
		return nil, err
	}
	program, err := compiler.Compile(tree, config)
	if err != nil {
		return nil, placed(err)
	}
	c := &code{program, weigh(tree.Node)}
	l.Programs++
	if l.Patterns += c.Size(); l.Programs > MaxPrograms || l.Patterns > MaxAllPatterns {
		return nil, &ExpressionError{1, 0, fmt.Sprintf("with this one there are more expressions than are taken, or their patterns are too large together: at most %d parts that are compiled, and patterns of %d steps", MaxPrograms, MaxAllPatterns)}
	}
	return c, nil
}

// check is the first half of compile. What it recurses on is bounded by the
// length.
func (l *Language) check(source string, run bool, more ...expr.Option) (*parser.Tree, *conf.Config, error) {
	if len(source) > maxExpression {
		return nil, nil, &ExpressionError{1, 0, fmt.Sprintf("the expression has %d bytes; the maximum is %d", len(source), maxExpression)}
	}
	l.found, l.doubts = nil, nil
	v := &visitor{Language: l, source: file.NewSource(source), run: run}
	if strings.Contains(source, "matches") {
		if tree, err := parser.Parse(source); err == nil {
			ast.Walk(&tree.Node, patterns{v, new(int)})
		}
		if v.bad != nil {
			return nil, nil, v.fault()
		}
	}
	typed, config := *l.typed, *l.config
	for _, option := range more {
		option(&typed)
		option(&config)
	}
	tree, err := parser.ParseWithConfig(source, &typed)
	if err != nil {
		return nil, nil, placed(err)
	}
	ast.Walk(&tree.Node, v)
	if v.bad == nil {
		v.names(tree.Node)
	}
	if v.bad != nil {
		return nil, nil, v.fault()
	}
	_, err = checker.Check(tree, &typed)
	ast.Walk(&tree.Node, mismatches{v})
	if v.bad != nil {
		return nil, nil, v.fault()
	}
	if err != nil {
		return nil, nil, placed(err)
	}
	// What is known of the params was for finding faults: whether a job has them is not.
	ast.Walk(&tree.Node, untyped{})
	(&folder{visitor: v}).of(&tree.Node)
	_, err = checker.Check(tree, &config)
	return tree, &config, placed(err)
}

// untyped is a visitor that has the checker ask again what a call gives: it
// takes what it found once.
type untyped struct{}

// Visit is called for a node after its children.
func (untyped) Visit(node *ast.Node) {
	if n, ok := (*node).(*ast.CallNode); ok {
		n.SetNature(nature.Nature{})
	}
}

// placed turns an error of the expression library into our own.
func placed(err error) error {
	if err == nil {
		return nil
	}
	e := &ExpressionError{1, 0, err.Error()}
	var f *file.Error
	if errors.As(err, &f) {
		e = &ExpressionError{max(f.Line, 1), f.Column, f.Message}
	}
	plain := strings.NewReplacer("interface {}", "any value", "type cond.Repo", "repo", "type cond.Job", "job", "type cond.Run", "run", "cond.Repo", "repo", "cond.Job", "job", "cond.Run", "run").Replace(e.Message)
	e.Message = words.OneLine(strings.TrimSpace(plain))
	return e
}

var machines = sync.Pool{New: func() any { return new(vm.VM) }}

// Evaluate runs a program. Its error is one sentence, and errTooCostly when
// the job has no more steps for it.
func Evaluate(c *code, env *Env) (any, error) {
	if err := env.Spend(c.Steps(env)); err != nil {
		return nil, err
	}
	m := machines.Get().(*vm.VM)
	defer machines.Put(m)
	v, err := m.Run(c.Program, env)
	if err != nil {
		return nil, placed(err)
	}
	return v, nil
}

// A Template is a text with ${{ expressions }} in it. Nomad's own ${…} is text.
type Template struct {
	Source string
	Parts  []part
	Doubts []Doubt // of its expressions
}

type part struct {
	text    string
	program *code    // nil for text
	Facts   []string // that the program asks for
}

const Opening, Closing = "${{", "}}"

// Template compiles a text; nil when no expression is in it.
func (l *Language) Template(source string) (*Template, error) {
	if !strings.Contains(source, Opening) {
		return nil, nil
	}
	t := &Template{Source: source}
	for rest := source; rest != ""; {
		before, after, found := strings.Cut(rest, Opening)
		if before != "" {
			t.Parts = append(t.Parts, part{text: before})
		}
		if !found {
			break
		}
		start := len(source) - len(after)
		end := closingAt(after)
		fault := ""
		if i := strings.LastIndex(before, "${"); end < 0 {
			fault = Opening + " is not closed by " + Closing
		} else if i >= 0 && !strings.Contains(before[i:], "}") {
			fault = "an expression is not allowed within ${…}: write out what Nomad interpolates"
		}
		if fault != "" {
			return nil, Shifted(&ExpressionError{1, 0, fault}, source, start-len(Opening))
		}
		program, err := l.Compile(after[:end], false)
		if err != nil {
			return nil, Shifted(err, source, start)
		}
		for _, d := range l.doubts {
			e := Shifted(&ExpressionError{d.Line, d.Column, ""}, source, start).(*ExpressionError)
			d.Line, d.Column = e.Line, e.Column
			t.Doubts = append(t.Doubts, d)
		}
		p := part{program: program}
		if tree, err := parser.Parse(after[:end]); err == nil {
			p.Facts = factsOf(tree.Node)
			l.see(p.Facts)
		}
		t.Parts = append(t.Parts, p)
		rest = after[end+len(Closing):]
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
		case strings.HasPrefix(s[i:], Closing):
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

// Value evaluates the template: to any value when it is one expression alone,
// else to a string. What comes out of expressions may be a stranger's: it must
// be printable and make no interpolation of Nomad's.
func (t *Template) Value(env *Env) (any, error) {
	if len(t.Parts) == 1 {
		v, err := Evaluate(t.Parts[0].program, env)
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
	for _, p := range t.Parts {
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

// IsParam reports whether the template is the value of the param as it is.
func (t *Template) IsParam(p *Param) bool {
	inner := strings.TrimSuffix(strings.TrimPrefix(t.Source, Opening), Closing)
	return p != nil && strings.TrimSpace(inner) == "param."+p.Name
}

// Kind is what a template of one expression gives when that can be no text:
// "list" or "mapping"; else "".
func (t *Template) Kind() string {
	if len(t.Parts) != 1 || t.Parts[0].program == nil {
		return ""
	}
	of := t.Parts[0].program.Node().Type()
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
