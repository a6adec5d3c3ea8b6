package cond

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

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
	maxMatches    = 1000 // size of the patterns of one expression, as PatternSize has it
	maxPattern    = 5000 // size of a pattern elsewhere

	MaxPrograms    = 30_000  // of a set of files, 3 kB each: those of 10,000 rules with three parts that are no plain question for a label or a fact
	MaxAllPatterns = 500_000 // size of all patterns of a set of files, 50 bytes each
)

// A Language compiles the expressions of the files of one set. An expression sees no clock.
type Language struct {
	config     *conf.Config // what expr.Compile makes again each time
	typed      *conf.Config // the same where params have types
	vocabulary Vocabulary
	source     file.Source     // of the condition that is taken apart
	mentions   map[string]bool // gets the labels that expressions ask for, lower case
	found      []Mention       // those of the last expression that was compiled
	doubts     []Doubt         // the same
	Asked      map[string]bool // params that any expression asks for
	Sees       bool            // an expression may depend on labels that it does not name
	Facts      map[string]bool // what any expression asks for of repo, job and run: "job.branch", "run" for the whole
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

// param returns the param with a name, nil when there is none.
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
	line, column int
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
	return &Language{config: c, typed: &typed, vocabulary: v, mentions: mentions, Asked: map[string]bool{}, Facts: map[string]bool{}}
}

// A visitor walks an expression once before it is compiled. It passes the labels to the label
// functions, lowers and notes the texts that labels are compared with, and refuses what must not be
// asked for: a param that no label defines, and the run outside conditions.
type visitor struct {
	*Language
	source  file.Source
	run     bool     // run.… may be asked for
	loops   int      // predicates so far, the inner ones before the outer
	sums    int      // + so far
	bad     ast.Node // where it stands
	message string
}

// Visit checks a node; its children come before it.
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
			v.refuse(n.Right, list.Value+" is not a list")
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

// known refuses a function that the language does not have.
func (v *visitor) known(n ast.Node, name string) {
	if slices.Contains(Builtins, name) || Bounded[name].call != nil {
		return
	}
	all := slices.Concat(slices.Collect(maps.Keys(LabelFunctions)), slices.Collect(maps.Keys(Bounded)), Builtins)
	slices.Sort(all)
	v.refuse(n, "there is no function "+words.Quote(name)+cmp.Or(words.DidYouMean(name, all), "; there are "+strings.Join(all, ", ")))
}

// walk calls visit for a node and all within it, each after its children.
func walk(n ast.Node, visit func(*ast.Node)) { ast.Walk(&n, visitFunc(visit)) }

type visitFunc func(*ast.Node)

// Visit calls the function.
func (f visitFunc) Visit(n *ast.Node) { f(n) }

// loops reports whether a predicate is within the node.
func loops(n ast.Node) (found bool) {
	walk(n, func(n *ast.Node) {
		_, is := (*n).(*ast.PredicateNode)
		found = found || is
	})
	return found
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
		v.found = append(v.found, Mention{Label: s.Value, line: line, column: column})
	}
}

func (v *visitor) place(n ast.Node) (line, column int) {
	e := (&file.Error{Location: n.Location()}).Bind(v.source)
	return max(e.Line, 1), e.Column
}

// An ExpressionError is a fault within an expression's text.
type ExpressionError struct {
	Line, Column int // line from 1, column in runes from 0
	Message      string
}

// Error returns the message.
func (e *ExpressionError) Error() string { return e.Message }

// shifted turns an error of a part of text, which begins at a byte of it, into one of the whole
// text.
func shifted(err error, text string, from int) error {
	var e *ExpressionError
	if !errors.As(err, &e) {
		return err
	}
	e.Line, e.Column = shift(text, from, e.Line, e.Column)
	return e
}

// shift returns a place in a part of text, which begins at a byte of it, as one in the whole text.
func shift(text string, from, line, column int) (int, int) {
	begin := strings.LastIndexByte(text[:from], '\n') + 1
	if line == 1 {
		column += utf8.RuneCountInString(text[begin:from])
	}
	return line + strings.Count(text[:from], "\n"), column
}

// see notes the facts of an expression, and whether it may depend on labels that it does not name.
func (l *Language) see(facts []string) {
	for _, f := range facts {
		if of, _, _ := strings.Cut(f, "."); of == "repo" || of == "job" || of == "run" {
			l.Facts[f] = true
		}
	}
	l.Sees = l.Sees || slices.Contains(facts, labelsName) || slices.Contains(facts, "param")
}

// Compile checks an expression and compiles it; run says whether it may ask for the run.
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
		return nil, &ExpressionError{1, 0, fmt.Sprintf("with this one the files exceed a maximum: %d compiled parts of expressions, or patterns of %d steps together", MaxPrograms, MaxAllPatterns)}
	}
	return c, nil
}

// check parses and checks an expression, and makes comparisons with names ones without case. The
// length bounds how deep it recurses.
func (l *Language) check(source string, run bool, more ...expr.Option) (*parser.Tree, *conf.Config, error) {
	if len(source) > maxExpression {
		return nil, nil, &ExpressionError{1, 0, fmt.Sprintf("the expression has %d bytes; the maximum is %d", len(source), maxExpression)}
	}
	l.found, l.doubts = nil, nil
	v := &visitor{Language: l, source: file.NewSource(source), run: run}
	if strings.Contains(source, "matches") {
		if tree, err := parser.Parse(source); err == nil {
			v.patterns(tree.Node)
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
	// What is known of the params was for finding faults: whether a job has them is
	// not. The checker takes what it found a call to give: it is to ask again.
	walk(tree.Node, func(node *ast.Node) {
		if n, ok := (*node).(*ast.CallNode); ok {
			n.SetNature(nature.Nature{})
		}
	})
	(&folder{visitor: v}).of(&tree.Node)
	_, err = checker.Check(tree, &config)
	return tree, &config, placed(err)
}

// placed turns an error of the expression library into an ExpressionError.
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

// Evaluate runs a program. Its error is one sentence, or ErrTooCostly when the job has too few
// steps left.
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
