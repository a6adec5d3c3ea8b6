package rules

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
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

	maxPrograms    = 30_000  // of a set of files, 3 kB each: those of 10,000 rules with three parts that are no plain question for a label or a fact
	maxAllPatterns = 500_000 // size of all patterns of a set of files, 50 bytes each
)

// Env is what an expression sees: the README's table of envNames is made of
// its fields.
type Env struct {
	Labels []string       `expr:"labels"` // lower case, without doubles
	Param  map[string]any `expr:"param"`  // values of the parameter labels that the job has; nil for the others
	Repo   Repo           `expr:"repo"`
	Job    Job            `expr:"job"`
	Run    Run            `expr:"run"` // in a rule's if only

	runKnown bool
	asked    []string // the job's labels as they came

	spent, limit    int // steps of work so far, and at most; 0: decisionSteps
	text, allLabels int // bytes of the longest text, and of all labels; text 0: not counted yet
}

// A language is what the expressions of one file are compiled with. An
// expression sees no clock.
type language struct {
	config     *conf.Config // what expr.Compile makes anew each time
	typed      *conf.Config // the same where params have types
	vocabulary *vocabulary
	source     file.Source     // of the condition that is taken apart
	mentions   map[string]bool // gets the labels that expressions ask for, lower case
	found      []mention       // those of the last expression that was compiled
	doubts     []doubt         // the same
	asked      map[string]bool // params that any expression asks for
	sees       bool            // an expression may depend on labels that it does not name
	programs   int             // that were compiled
	patterns   int             // size of their patterns, and of those of params
}

// A mention is a label that an expression asks for, and where in its text:
// line from 1, column in runes from 0.
type mention struct {
	label        string
	line, column int
	at           spot // in the file
}

// The optimizer is off: it takes "fails or true" for true, and a condition that
// is taken apart evaluates from left to right.
func newLanguage(v *vocabulary, mentions map[string]bool) *language {
	c := conf.CreateNew()
	for _, option := range []expr.Option{
		expr.Env(Env{}), expr.MaxNodes(maxNodes), expr.Optimize(false),
	} {
		option(c)
	}
	for name := range c.Builtins {
		if !slices.Contains(builtins, name) {
			c.Disabled[name] = true
		}
	}
	for name, f := range bounded {
		expr.Function(name, f.call, f.as)(c)
	}
	for name, f := range labelFunctions {
		expr.Function(name, f, new(func([]string, ...string) bool))(c)
	}
	for name, f := range foldFunctions {
		as := any(new(func(any) any))
		if of := strings.TrimPrefix(name, foldName); bounded[of].as != nil {
			as = bounded[of].as
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
	for _, p := range v.params {
		params[p.name] = types.String
		if p.kind != "string" {
			params[p.name] = types.Int
		}
	}
	env := Env{}
	typed.Env = types.Map{
		"labels": types.TypeOf(env.Labels), "param": params, "repo": types.TypeOf(env.Repo), "job": types.TypeOf(env.Job), "run": types.TypeOf(env.Run),
	}.Nature()
	return &language{config: c, typed: &typed, vocabulary: v, mentions: mentions, asked: map[string]bool{}}
}

// builtins are the functions of the expression library that are taken. They give
// no more than they get: with these, without let, and with no loop in a loop, an
// expression takes time and memory in proportion to its length and the job's.
var builtins = []string{
	"all", "any", "none", "one", "filter", "count", "len", "first", "last",
	"lower", "upper", "trim", "trimPrefix", "trimSuffix", "hasPrefix", "hasSuffix", "indexOf", "lastIndexOf",
	"int", "float", "abs", "ceil", "floor", "round", "min", "max",
}

const (
	maxText  = 4096 // bytes that a function may give
	maxParts = 100  // elements of a list that a function or a range may give
)

// bounded are functions that could give more than they get.
var bounded = map[string]struct {
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
				s, err := asText(e)
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
	"string": {func(a ...any) (any, error) { return asText(a[0]) }, new(func(any) string)},
	"replace": {func(a ...any) (any, error) {
		s, old, with := a[0].(string), a[1].(string), a[2].(string)
		if len(s)+strings.Count(s, old)*(len(with)-len(old)) > maxText {
			return nil, fmt.Errorf("replace gives more than %d bytes", maxText)
		}
		return strings.ReplaceAll(s, old, with), nil
	}, new(func(string, string, string) string)},
}

// labelFunctions take the job's labels before the arguments that the rules file shows.
var labelFunctions = map[string]func(...any) (any, error){
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
	*language
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
				v.refuse(first(a), fmt.Sprintf("unknown name %s: a label stands in quotes: %s(%q)", words.OneLine(first(a).String()), name, said))
			}
		}
		call := &ast.CallNode{Callee: n.Callee, Arguments: append([]ast.Node{&ast.IdentifierNode{Value: "labels"}}, n.Arguments...)}
		ast.Patch(node, call)
	case *ast.VariableDeclaratorNode, *ast.SequenceNode:
		v.refuse(n, "let is not taken: write the value where it is used")
	case *ast.PredicateNode:
		if v.loops++; v.loops > 1 && loops(n.Node) {
			v.refuse(n, "a loop in a loop is not taken: write one without the other")
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
			v.asked[name.Value] = true
		}
		if isID && isName && id.Value == "param" && v.vocabulary.param(name.Value) == nil {
			var names []string
			for _, p := range v.vocabulary.params {
				names = append(names, p.name)
			}
			hint := words.DidYouMean(name.Value, names)
			if len(names) == 0 {
				hint = ": no label has a param"
			}
			v.refuse(n.Property, "unknown param "+words.Quote(name.Value)+hint)
		}
	case *ast.IdentifierNode:
		if n.Value == "run" && !v.run {
			v.refuse(n, "run.… costs a call to GitHub: it stands in the if of a rule only")
		}
		if n.Value == "$env" { // a way around what is asked of the names
			v.refuse(n, "$env is not taken: write labels, param, repo, job or run")
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
	if *v.size += patternSize(s.Value); *v.size > maxMatches {
		v.refuse(n.Right, fmt.Sprintf("the pattern is too large, with what it repeats: at most %d steps are taken", maxMatches))
	}
}

// patternSize is about how many steps a regular expression compiles to: its
// memory, and its time for each character, are in proportion. It is 0 for one
// that does not compile.
func patternSize(s string) int {
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

// checkPattern checks a regular expression that is no part of an expression.
func checkPattern(s string) error {
	if _, err := syntax.Parse(s, syntax.Perl); err != nil {
		return fmt.Errorf("%s is no regular expression: %s", words.Quote(s), words.OneLine(err.Error()))
	}
	if patternSize(s) > maxPattern {
		return fmt.Errorf("%s is too large, with what it repeats: at most %d steps are taken", words.Quote(s), maxPattern)
	}
	return nil
}

// known refuses a function that is not taken.
func (v *visitor) known(n ast.Node, name string) {
	if slices.Contains(builtins, name) || bounded[name].call != nil {
		return
	}
	all := slices.Concat(slices.Collect(maps.Keys(labelFunctions)), slices.Collect(maps.Keys(bounded)), builtins)
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
	return &expressionError{line, column, v.message}
}

func (v *visitor) mention(n ast.Node) {
	if s, ok := n.(*ast.StringNode); ok {
		v.mentions[strings.ToLower(s.Value)] = true
		line, column := v.place(n)
		if code, why := v.noLabel(s.Value); why != "" {
			v.doubt(n, code, "%s", why)
		}
		s.Value = strings.ToLower(s.Value)
		v.found = append(v.found, mention{label: s.Value, line: line, column: column})
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

// see notes whether an expression that asks for the facts may depend on labels
// that it does not name.
func (l *language) see(facts []string) {
	l.sees = l.sees || slices.Contains(facts, labelsName) || slices.Contains(facts, "param")
}

// compile checks an expression and compiles it; run says whether it may ask for
// the run.
func (l *language) compile(source string, run bool, more ...expr.Option) (*code, error) {
	tree, config, err := l.check(source, run, more...)
	if err != nil {
		return nil, err
	}
	program, err := compiler.Compile(tree, config)
	if err != nil {
		return nil, placed(err)
	}
	c := &code{program, weigh(tree.Node)}
	l.programs++
	if l.patterns += c.size(); l.programs > maxPrograms || l.patterns > maxAllPatterns {
		return nil, &expressionError{1, 0, fmt.Sprintf("with this one there are more expressions than are taken, or their patterns are too large together: at most %d parts that are compiled, and patterns of %d steps", maxPrograms, maxAllPatterns)}
	}
	return c, nil
}

// check is the first half of compile. What it recurses on is bounded by the
// length.
func (l *language) check(source string, run bool, more ...expr.Option) (*parser.Tree, *conf.Config, error) {
	if len(source) > maxExpression {
		return nil, nil, &expressionError{1, 0, fmt.Sprintf("the expression has %d bytes; at most %d are taken", len(source), maxExpression)}
	}
	l.found, l.doubts = nil, nil
	v := &visitor{language: l, source: file.NewSource(source), run: run}
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
	e := &expressionError{1, 0, err.Error()}
	var f *file.Error
	if errors.As(err, &f) {
		e = &expressionError{max(f.Line, 1), f.Column, f.Message}
	}
	plain := strings.NewReplacer("interface {}", "any value", "type rules.Repo", "repo", "type rules.Job", "job", "type rules.Run", "run", "rules.Repo", "repo", "rules.Job", "job", "rules.Run", "run").Replace(e.message)
	e.message = words.OneLine(strings.TrimSpace(plain))
	return e
}

var machines = sync.Pool{New: func() any { return new(vm.VM) }}

// evaluate runs a program. Its error is one sentence, and errTooCostly when
// the job has no more steps for it.
func evaluate(c *code, env *Env) (any, error) {
	if err := env.spend(c.steps(env)); err != nil {
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

// A template is a text with ${{ expressions }} in it. Nomad's own ${…} is text.
type template struct {
	source string
	parts  []part
	doubts []doubt // of its expressions
}

type part struct {
	text    string
	program *code    // nil for text
	facts   []string // that the program asks for
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
		program, err := l.compile(after[:end], false)
		if err != nil {
			return nil, shifted(err, source, start)
		}
		for _, d := range l.doubts {
			e := shifted(&expressionError{d.line, d.column, ""}, source, start).(*expressionError)
			d.line, d.column = e.line, e.column
			t.doubts = append(t.doubts, d)
		}
		p := part{program: program}
		if tree, err := parser.Parse(after[:end]); err == nil {
			p.facts = factsOf(tree.Node)
			l.see(p.facts)
		}
		t.parts = append(t.parts, p)
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
			return nil, fmt.Errorf("%w in %s", err, words.OneLine(t.source))
		}
		if v == nil {
			return nil, fmt.Errorf("%s is nil; give a value for that case: ${{ param.x ?? 1 }}", words.OneLine(t.source))
		}
		if s, ok := v.(string); ok && (!words.Printable(s) || strings.Contains(s, "${")) {
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
			return nil, fmt.Errorf("%w in %s", err, words.OneLine(t.source))
		}
		s, err := asText(v)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, words.OneLine(t.source))
		}
		if !words.Printable(s) {
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
	return fmt.Errorf("%s gives %s: a value from an expression must be printable and hold no ${", words.OneLine(source), words.Quote(v))
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
