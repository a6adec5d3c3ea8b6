package cond

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"

	"switchyard/rules/internal/words"
)

// A Condition is a boolean expression, taken apart as far as it can be, so that
// it can be found by an index, say which part failed, and be compared with
// others. The zero condition holds.
type Condition struct {
	Source string
	Root   *Node // nil: always true
	At     Spot
	Labels []Mention
	Doubts []Doubt
}

// Holds reports whether the condition holds. An error is one of an expression,
// or errRunUnknown.
func (c *Condition) Holds(env *Env) (bool, error) {
	if c.Root == nil {
		return true, nil
	}
	return c.Root.Holds(env)
}

// Why says in a sentence's end why the condition holds, or does not.
func (c *Condition) Why(env *Env, held bool, err error) string {
	switch {
	case errors.Is(err, ErrRunUnknown):
		return err.Error()
	case err != nil:
		return "error: " + err.Error()
	case c.Root == nil:
		return "it has no condition"
	case held:
		return "true: " + words.OneLine(c.Source)
	}
	return c.Root.because(env, false)
}

// ErrRunUnknown is what a condition gives that asks for a run which was not
// looked up. Decide branches on it.
var ErrRunUnknown = errors.New("it asks for run.…, and the run was not looked up")

// A Node is a part of a condition.
type Node struct {
	Kind   kind
	Source string
	Kids   []*Node // of and, or and not

	Name          string    // of a label or a fact, such as "repo.owner"
	is            string    // the text that the fact is compared with; lower case when that has none
	as            string    // is as it was written
	Value         bool      // of a constant
	Names         []string  // of only: the labels that may be there. Of a program: the facts that it asks for
	Param         string    // the param that it depends on alone, or job.attempt; "" when there is none
	Table         *table    // what it is for each value of that; nil when that is not known
	Uses          []Mention // of a program: where it asks for a param
	At            Spot      // where it begins; before the file is known by line and column of the expression
	Never, Always bool      // it holds for no job, for every job
	Code          *code     // of a program
	text          func(*Env) string
	flag          func(*Env) bool

	safe    bool // it has a value for every job: nothing in it can fail
	needRun bool // it asks for the run itself
}

type kind int

const (
	And kind = iota
	Or
	Not
	HasLabel  // the job has the label name
	HasOnly   // the job has no label but names
	factIs    // the fact name is the text
	factHolds // the fact name is true
	paramIs   // the job's param is the text or the number
	HasParam  // the job has the param
	Constant
	Program
)

// textFacts and flagFacts are the facts that conditions are taken apart to.
var textFacts = map[string]func(*Env) string{
	"repo.host":       func(e *Env) string { return e.Repo.Host },
	"repo.owner":      func(e *Env) string { return e.Repo.Owner },
	"repo.name":       func(e *Env) string { return e.Repo.Name },
	"repo.full_name":  func(e *Env) string { return e.Repo.FullName },
	"repo.url":        func(e *Env) string { return e.Repo.URL },
	"repo.visibility": func(e *Env) string { return e.Repo.Visibility },
	"job.name":        func(e *Env) string { return e.Job.Name },
	"job.workflow":    func(e *Env) string { return e.Job.Workflow },
	"job.branch":      func(e *Env) string { return e.Job.Branch },
	"job.sender":      func(e *Env) string { return e.Job.Sender },
	"run.event":       func(e *Env) string { return e.Run.Event },
	"run.actor":       func(e *Env) string { return e.Run.Actor },
}

var flagFacts = map[string]func(*Env) bool{
	"repo.private": func(e *Env) bool { return e.Repo.Private },
	"repo.fork":    func(e *Env) bool { return e.Repo.Fork },
	"run.fork":     func(e *Env) bool { return e.Run.Fork },
}

// factText is a fact as it is compared with others.
func factText(name string, env *Env) string {
	s := textFacts[name](env)
	if nocaseFacts[name] {
		s = strings.ToLower(s)
	}
	return s
}

// Condition compiles a condition; run says whether it may ask for the run.
func (l *Language) Condition(source string, run bool) (Condition, error) {
	if _, _, err := l.check(source, run, expr.AsBool(), expr.WarnOnAny()); err != nil {
		return Condition{}, err
	}
	c := Condition{Source: strings.TrimSpace(source), Labels: l.found, Doubts: l.doubts}
	l.source = file.NewSource(source)
	tree, err := parser.Parse(source)
	if err != nil {
		return Condition{}, placed(err)
	}
	if c.Root, err = l.node(tree.Node); err != nil {
		p, err := l.Compile(source, run)
		if err != nil {
			return Condition{}, err
		}
		c.Root = &Node{Kind: Program, Code: p, Names: factsOf(tree.Node)}
		c.Root.needRun = asksForRun(c.Root.Names)
		l.complete(c.Root, tree.Node)
	}
	c.Root.Source = c.Source
	l.see(factsOf(tree.Node))
	return c, nil
}

// node takes an expression apart. It fails on a part that the library does not
// write as it read it: that part cannot be compiled by itself.
func (l *Language) node(n ast.Node) (made *Node, err error) {
	defer func() {
		if err == nil && made.Kids == nil {
			made.Source = n.String()
		}
		if err == nil && made.At == (Spot{}) {
			made.At = l.placeOf(n)
		}
	}()
	switch n := n.(type) {
	case *ast.BoolNode:
		return &Node{Kind: Constant, Value: n.Value, safe: true}, nil
	case *ast.UnaryNode:
		if n.Operator == "!" || n.Operator == "not" {
			return l.join(Not, n.Node)
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "&&", "and":
			return l.join(And, n.Left, n.Right)
		case "||", "or":
			return l.join(Or, n.Left, n.Right)
		}
		if made := l.comparison(n); made != nil {
			return made, nil
		}
	case *ast.ConditionalNode: // this and that, or else the other
		return l.choice(n)
	case *ast.MemberNode:
		if name := factName(n); flagFacts[name] != nil {
			return Atom(Node{Kind: factHolds, Name: name, flag: flagFacts[name]}), nil
		}
	case *ast.CallNode:
		if made := l.labels(n); made != nil {
			return made, nil
		}
	}
	again, err := parser.Parse(n.String())
	if err != nil {
		return nil, placed(err)
	}
	if !same(reflect.ValueOf(again.Node), reflect.ValueOf(n)) {
		return nil, errors.New("written differently")
	}
	made = &Node{Kind: Program, Names: factsOf(n)}
	made.needRun = asksForRun(made.Names)
	made.safe = cannotFail(n) && !made.needRun
	if made.Code, err = l.Compile(n.String(), true); err != nil {
		return nil, err
	}
	l.complete(made, n)
	if len(made.Names) == 0 { // the same for every job
		if v, err := Evaluate(made.Code, &Env{Limit: loadSteps}); err == nil {
			if b, ok := v.(bool); ok {
				made = &Node{Kind: Constant, Value: b, safe: true}
			}
		}
	}
	return made, nil
}

// placeOf is where a node begins in the expression: line from 1, column from 0.
func (l *Language) placeOf(n ast.Node) Spot {
	e := (&file.Error{Location: first(n).Location()}).Bind(l.source)
	return Spot{Line: max(e.Line, 1), Column: e.Column}
}

// complete notes of a program where it asks for params, and what it is for each
// value of the one that it depends on alone.
func (l *Language) complete(made *Node, n ast.Node) {
	alone := ""
	for _, name := range made.Names {
		if !strings.HasPrefix(name, "param.") && name != Attempt.Name || alone != "" && alone != name {
			alone = ""
			break
		}
		alone = name
	}
	if slices.ContainsFunc(made.Names, func(name string) bool { return strings.HasPrefix(name, "param.") }) {
		ast.Walk(&n, useFinder{l, made})
	}
	switch alone {
	case "":
	case Attempt.Name:
		made.Param, made.Table = alone, l.tableOf(n, made.Code, Attempt)
	default:
		made.Param = strings.TrimPrefix(alone, "param.")
		made.Table = l.tableOf(n, made.Code, l.param(made.Param))
	}
	if t := made.Table; t != nil {
		made.Never, made.Always = !t.says(Yes), !t.says(no) && !t.says(Unknown)
		made.safe = made.safe || !t.says(Unknown)
	}
}

// A useFinder is a visitor that notes where a program asks for params.
type useFinder struct {
	*Language
	made *Node
}

// Visit is called for a node after its children.
func (f useFinder) Visit(n *ast.Node) {
	if name, ok := strings.CutPrefix(factName(*n), "param."); ok {
		at := f.placeOf(*n)
		f.made.Uses = append(f.made.Uses, Mention{Label: name, Line: at.Line, Column: at.Column})
	}
}

// same reports whether two expressions are the same, wherever they stand.
func same(a, b reflect.Value) bool {
	switch {
	case a.Kind() != b.Kind() || !a.IsValid() || a.Type() != b.Type():
		return !a.IsValid() && !b.IsValid()
	case a.Kind() == reflect.Interface || a.Kind() == reflect.Pointer:
		return same(a.Elem(), b.Elem())
	case a.Kind() == reflect.Slice:
		for i := range min(a.Len(), b.Len()) {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return a.Len() == b.Len()
	case a.Kind() == reflect.Struct:
		for i := range a.NumField() {
			if a.Type().Field(i).IsExported() && !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
	return a.Equal(b)
}

func (l *Language) join(k kind, parts ...ast.Node) (*Node, error) {
	var kids []*Node
	for _, p := range parts {
		kid, err := l.node(p)
		if err != nil {
			return nil, err
		}
		if kid.Kind == k && k != Not {
			kids = append(kids, kid.Kids...)
		} else {
			kids = append(kids, kid)
		}
	}
	return Joined(k, kids...), nil
}

// choice takes c ? a : b apart as c and a or not c and b.
func (l *Language) choice(n *ast.ConditionalNode) (*Node, error) {
	not := &ast.UnaryNode{Operator: "not", Node: n.Cond}
	not.SetLocation(first(n.Cond).Location())
	this, thisWritten := n.Exp1.(*ast.BoolNode)
	that, thatWritten := n.Exp2.(*ast.BoolNode)
	switch {
	case thisWritten && thatWritten && this.Value != that.Value:
		if this.Value {
			return l.node(n.Cond)
		}
		return l.node(not)
	case thisWritten && this.Value:
		return l.join(Or, n.Cond, n.Exp2)
	case thisWritten:
		return l.join(And, not, n.Exp2)
	case thatWritten && that.Value:
		return l.join(Or, not, n.Exp1)
	case thatWritten:
		return l.join(And, n.Cond, n.Exp1)
	}
	return l.either(n, not)
}

// either is choice when no part is written out.
func (l *Language) either(n *ast.ConditionalNode, not ast.Node) (*Node, error) {
	this, err := l.join(And, n.Cond, n.Exp1)
	if err != nil {
		return nil, err
	}
	other, err := l.join(And, not, n.Exp2)
	if err != nil {
		return nil, err
	}
	return Joined(Or, this, other), nil
}

// Joined returns an and, or or not of nodes.
func Joined(k kind, kids ...*Node) *Node {
	return &Node{Kind: k, Kids: kids, safe: !slices.ContainsFunc(kids, func(k *Node) bool { return !k.safe })}
}

// Atom completes a node that is taken apart no further.
func Atom(n Node) *Node {
	n.needRun = strings.HasPrefix(n.Name, "run.") && n.Kind != HasLabel
	n.safe = !n.needRun
	return &n
}

// comparison reads "x" in labels, and values compared with facts or params; nil
// when it is another comparison.
func (l *Language) comparison(n *ast.BinaryNode) *Node {
	left, right := n.Left, n.Right
	if factName(left) == "" && (n.Operator == "==" || n.Operator == "!=") {
		left, right = right, left
	}
	if made := l.paramNode(n.Operator, left, right); made != nil {
		return made
	}
	switch left := left.(type) {
	case *ast.StringNode:
		if n.Operator == "in" && isLabels(right) {
			return l.label(Node{}, left)
		}
	case *ast.MemberNode:
		name := factName(left)
		if textFacts[name] == nil {
			return nil
		}
		is := func(s *ast.StringNode) *Node {
			value := s.Value
			if nocaseFacts[name] {
				value = strings.ToLower(value)
			}
			_, why := l.never(name, "==", s.Value)
			return Atom(Node{Kind: factIs, Name: name, is: value, as: s.Value, text: textFacts[name], Source: fmt.Sprintf("%s == %s", name, s), Never: why != "", At: l.placeOf(n)})
		}
		switch right := right.(type) {
		case *ast.StringNode:
			switch n.Operator {
			case "==":
				return is(right)
			case "!=":
				return Joined(Not, is(right))
			}
		case *ast.ArrayNode:
			var kids []*Node
			for _, e := range right.Nodes {
				s, isString := e.(*ast.StringNode)
				if !isString {
					return nil
				}
				kids = append(kids, is(s))
			}
			if n.Operator == "in" && len(kids) > 0 {
				return Joined(Or, kids...)
			}
		}
	}
	return nil
}

// paramNode reads what compares a param with values that are written out, or
// asks whether there is one; nil when it is another comparison.
func (l *Language) paramNode(operator string, left, right ast.Node) *Node {
	if s, ok := left.(*ast.StringNode); ok && operator == "in" { // "cpu" in param
		id, isID := right.(*ast.IdentifierNode)
		if p := l.param(s.Value); isID && id.Value == "param" && p != nil {
			return l.there(p, left)
		}
		return nil
	}
	name, ok := strings.CutPrefix(factName(left), "param.")
	p := l.param(name)
	if !ok || p == nil {
		return nil
	}
	if _, isNil := right.(*ast.NilNode); isNil {
		switch operator {
		case "==":
			return Joined(Not, l.there(p, left))
		case "!=":
			return l.there(p, left)
		}
	}
	is := func(e ast.Node) *Node {
		made := Node{Kind: paramIs, Name: "param." + name, Param: name, Source: fmt.Sprintf("param.%s == %s", name, e), At: l.placeOf(left)}
		switch e := e.(type) {
		case *ast.StringNode:
			if p.Kind != "string" {
				return nil
			}
			made.is, made.as = strings.ToLower(e.Value), words.Quote(e.Value)
			made.Table = isTable(p, slices.IndexFunc(p.OneOf, func(one string) bool { return strings.ToLower(one) == made.is }))
			_, why := l.never(made.Name, "==", e.Value)
			made.Never = why != ""
		case *ast.IntegerNode:
			if p.Kind == "string" {
				return nil
			}
			made.is, made.as = strconv.Itoa(e.Value), strconv.Itoa(e.Value)
			made.Table = isTable(p, e.Value)
			made.Never = e.Value < p.Min || e.Value > p.Max
		default:
			return nil
		}
		return Atom(made)
	}
	switch list, isList := right.(*ast.ArrayNode); {
	case operator == "in" && isList && len(list.Nodes) > 0:
		var kids []*Node
		for _, e := range list.Nodes {
			kid := is(e)
			if kid == nil {
				return nil
			}
			kids = append(kids, kid)
		}
		return Joined(Or, kids...)
	case operator == "==":
		return is(right)
	case operator == "!=":
		if made := is(right); made != nil {
			return Joined(Not, made)
		}
	}
	return nil
}

// there asks whether a job has the param.
func (l *Language) there(p *Param, at ast.Node) *Node {
	return Atom(Node{Kind: HasParam, Name: "param." + p.Name, Param: p.Name, Table: ThereTable(p), Source: "param." + p.Name + " != nil", At: l.placeOf(at)})
}

// label asks for a label that is written out.
func (l *Language) label(made Node, s *ast.StringNode) *Node {
	made.Kind, made.Name = HasLabel, strings.ToLower(s.Value)
	if l == nil { // the names alone are wanted
		return Atom(made)
	}
	made.At = l.placeOf(s)
	_, why := l.noLabel(s.Value)
	made.Never = why != ""
	if p, open, _ := l.vocabulary.Find(made.Name); p != nil && !made.Never {
		made.Param = p.Name
		switch v, _ := p.Read(open); v := v.(type) {
		case int:
			made.Table = isTable(p, v)
		case string:
			made.is = strings.ToLower(v)
			made.Table = isTable(p, slices.Index(p.OneOf, v))
		}
	}
	return Atom(made)
}

// labelNode reads a call of a label function with labels that are written out;
// nil when it is another call.
func labelNode(n *ast.CallNode) *Node { return (*Language)(nil).labels(n) }

// labels is labelNode with what the vocabulary says of the labels.
func (lang *Language) labels(n *ast.CallNode) *Node {
	name := labelCall(n)
	if name == "" || len(n.Arguments) == 0 {
		return nil
	}
	var names []string
	var kids []*Node
	for _, a := range n.Arguments {
		s, ok := a.(*ast.StringNode)
		if !ok {
			return nil
		}
		l := strings.ToLower(s.Value)
		names = append(names, l)
		kids = append(kids, lang.label(Node{Source: fmt.Sprintf("has(%s)", s)}, s))
	}
	only := Atom(Node{Kind: HasOnly, Names: names, Source: n.String()})
	switch {
	case name == "only":
		return only
	case name == "exactly":
		return Joined(And, append(kids, only)...)
	case len(kids) == 1:
		return kids[0]
	case name == "has":
		return Joined(And, kids...)
	}
	return Joined(Or, kids...)
}

// factName is "repo.owner" for that node, "" for one that is no field of a fact.
func factName(n ast.Node) string {
	m, ok := n.(*ast.MemberNode)
	if !ok {
		return ""
	}
	id, isID := m.Node.(*ast.IdentifierNode)
	name, isName := m.Property.(*ast.StringNode)
	if !isID || !isName || !slices.Contains([]string{"repo", "job", "run", "param"}, id.Value) {
		return ""
	}
	return id.Value + "." + name.Value
}

// factsOf are the facts that an expression asks for, in its order: "repo.owner",
// "param.cpu", "label gpu" for one that is written out, "labels" for any;
// "repo" for one that is not asked by a field.
func factsOf(n ast.Node) []string {
	var f factFinder
	ast.Walk(&n, &f)
	return f.names
}

type factFinder struct{ names []string }

// Visit is called for a node after its children.
func (f *factFinder) Visit(n *ast.Node) {
	name := factName(*n)
	in, _ := (*n).(*ast.BinaryNode)
	written, _ := (*n).(*ast.CallNode)
	switch id, isID := (*n).(*ast.IdentifierNode); {
	case name != "": // its identifier came before
		f.names = f.names[:len(f.names)-1]
	case isID && slices.Contains([]string{"repo", "job", "run", "param", "labels"}, id.Value):
		name = id.Value
	case in != nil && in.Operator == "in" && isLabels(in.Right):
		if l, ok := in.Left.(*ast.StringNode); ok {
			f.names[len(f.names)-1] = "label " + strings.ToLower(l.Value)
		}
	case written != nil && labelCall(written) != "":
		name = labelsName
		if made := labelNode(written); made != nil {
			var has []string
			made.keys(func(k Key) { has = append(has, "label "+k.Is) })
			only := false
			made.Each(func(k *Node) { only = only || k.Kind == HasOnly })
			if len(has) == len(written.Arguments) && !only {
				f.names = append(f.names, has...)
				name = ""
			}
		}
	}
	if name != "" {
		f.names = append(f.names, name)
	}
}

func asksForRun(facts []string) bool {
	return slices.ContainsFunc(facts, func(f string) bool { return f == "run" || strings.HasPrefix(f, "run.") })
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
		name := factName(n)
		return name != "" && !strings.HasPrefix(name, "param.")
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

// Holds evaluates the node as the expression library would: from left to right,
// and no further than needed.
func (n *Node) Holds(env *Env) (bool, error) {
	if n.needRun && !env.RunKnown {
		return false, ErrRunUnknown
	}
	switch n.Kind {
	case And, Or:
		for _, k := range n.Kids {
			if held, err := k.Holds(env); held == (n.Kind == Or) || err != nil {
				return held, err
			}
		}
		return n.Kind == And, nil
	case Not:
		held, err := n.Kids[0].Holds(env)
		return !held && err == nil, err
	}
	if n.Kind != Program {
		if err := env.Spend(1 + (1+len(n.Names))*len(env.Labels)/8); err != nil {
			return false, err
		}
	}
	switch n.Kind {
	case HasLabel:
		return slices.Contains(env.Labels, n.Name), nil
	case HasOnly:
		return n.other(env) == "", nil
	case factIs:
		return factText(n.Name, env) == n.is, nil
	case factHolds:
		return n.flag(env), nil
	case paramIs:
		switch v := env.Param[n.Param].(type) {
		case int:
			return strconv.Itoa(v) == n.is, nil
		case string:
			return strings.ToLower(v) == n.is, nil
		}
		return false, nil
	case HasParam:
		return env.Param[n.Param] != nil, nil
	case Constant:
		return n.Value, nil
	}
	v, err := Evaluate(n.Code, env)
	if errors.Is(err, ErrTooCostly) {
		return false, err
	}
	if err != nil {
		return false, fmt.Errorf("%w in %s", err, words.OneLine(n.Source))
	}
	held, ok := v.(bool) // the library would take nil for false
	if !ok {
		return false, fmt.Errorf("%s is %s, not true or false", words.OneLine(n.Source), strings.Trim(fmt.Sprintf("%T", v), "<>"))
	}
	return held, nil
}

// other is the first label that is not among those of only.
func (n *Node) other(env *Env) string {
	for _, l := range env.Labels {
		if !slices.Contains(n.Names, l) {
			return l
		}
	}
	return ""
}

// because says why the node is what it is for the job: the smallest part that
// decides it, and the value that did.
func (n *Node) because(env *Env, held bool) string {
	switch n.Kind {
	case And, Or:
		if held == (n.Kind == Or) { // one part decides
			for _, k := range n.Kids {
				if is, err := k.Holds(env); is == held && err == nil {
					return k.because(env, held)
				}
			}
		}
		if same := n.sameFact(); same != "" && !held {
			if same == labelsName {
				return "the job has none of the labels " + words.QuoteAll(namesOf(n.Kids))
			}
			if n.Kids[0].Kind == paramIs {
				v, _ := env.show(same)
				return words.OneLine(fmt.Sprintf("%s is %s, none of %s", same, v, strings.Join(namesOf(n.Kids), ", ")))
			}
			return fmt.Sprintf("%s is %s, none of %s", same, words.Quote(n.Kids[0].text(env)), words.QuoteAll(namesOf(n.Kids)))
		}
		var all []string
		for _, k := range n.Kids {
			all = append(all, k.because(env, held))
		}
		return words.OneLine(strings.Join(slices.Compact(all), ", and "))
	case Not:
		return n.Kids[0].because(env, !held)
	case HasLabel:
		if held {
			return "the job has the label " + words.Quote(n.Name)
		}
		return "the job lacks the label " + words.Quote(n.Name)
	case HasOnly:
		if held {
			return "the job has no label but " + words.QuoteAll(n.Names)
		}
		return fmt.Sprintf("the job has the label %s besides %s", words.Quote(n.other(env)), words.QuoteAll(n.Names))
	case factIs:
		if held {
			return fmt.Sprintf("%s is %s", n.Name, words.Quote(n.text(env)))
		}
		return fmt.Sprintf("%s is %s, not %s", n.Name, words.Quote(n.text(env)), words.Quote(n.as))
	case factHolds:
		return fmt.Sprintf("%s is %v", n.Name, held)
	case paramIs, HasParam:
		v, _ := env.show(n.Name)
		if n.Kind == paramIs && !held {
			v += ", not " + n.as
		}
		return n.Name + " is " + v
	case Constant:
		return fmt.Sprintf("it says %v", held)
	}
	why := fmt.Sprintf("%v: %s", held, words.OneLine(n.Source))
	for i, f := range slices.Compact(slices.Sorted(slices.Values(n.Names))) {
		if i == 3 {
			break
		}
		if v, ok := env.show(f); ok {
			why += [...]string{", where ", " and ", " and "}[i] + f + " is " + v
		}
	}
	return why
}

const labelsName = "labels"

// sameFact is the fact, or labelsName, that all parts of an "or" ask for; "" when they
// differ.
func (n *Node) sameFact() string {
	if n.Kind != Or {
		return ""
	}
	name := func(k *Node) string {
		switch k.Kind {
		case HasLabel:
			return labelsName
		case factIs, paramIs:
			return k.Name
		}
		return ""
	}
	first := name(n.Kids[0])
	for _, k := range n.Kids {
		if name(k) != first {
			return ""
		}
	}
	return first
}

func namesOf(kids []*Node) []string {
	var names []string
	for _, k := range kids {
		if k.Kind == HasLabel {
			names = append(names, k.Name)
		} else {
			names = append(names, k.as)
		}
	}
	return names
}

// show writes the value of a fact for people.
func (e *Env) show(fact string) (string, bool) {
	if f := textFacts[fact]; f != nil {
		return words.Quote(f(e)), true
	}
	if f := flagFacts[fact]; f != nil {
		return fmt.Sprint(f(e)), true
	}
	if fact == "job.attempt" {
		return fmt.Sprint(e.Job.Attempt), true
	}
	if name, ok := strings.CutPrefix(fact, "param."); ok {
		switch v := e.Param[name].(type) {
		case nil:
			return "not asked for", true
		case string:
			return words.Quote(v), true
		default:
			return fmt.Sprint(v), true
		}
	}
	return "", false
}

// Missing are the parts that do not hold, as because says them, of the cheapest
// way to make the node hold; cost is their number. Parts that fail are left out
// and cost more than any other way.
func (n *Node) Missing(env *Env) (parts []string, cost int) {
	const never = 1000
	if n == nil {
		return nil, 0
	}
	held, err := n.Holds(env)
	switch {
	case err == nil && held:
		return nil, 0
	case n.Kind == And:
		for _, k := range n.Kids {
			more, c := k.Missing(env)
			parts, cost = append(parts, more...), cost+c
		}
		return parts, cost
	case err != nil:
		return nil, never
	case n.Kind == Constant:
		return []string{n.because(env, false)}, never
	case n.Kind == Or && n.sameFact() == "":
		cost = never
		for _, k := range n.Kids {
			if some, c := k.Missing(env); c < cost {
				parts, cost = some, c
			}
		}
		return parts, cost
	}
	return []string{n.because(env, false)}, 1
}

// Sure reports whether nothing in the node can fail once the run is known.
func (n *Node) Sure() bool {
	return (n.Kind != Program || n.safe) && !slices.ContainsFunc(n.Kids, func(k *Node) bool { return !k.Sure() })
}

// Each calls do for the node and all parts of it.
func (n *Node) Each(do func(*Node)) {
	if n == nil {
		return
	}
	do(n)
	for _, k := range n.Kids {
		k.Each(do)
	}
}

// Written writes the node as an expression.
func (n *Node) Written() string {
	if n.Source != "" || len(n.Kids) == 0 {
		return n.Source
	}
	var parts []string
	for _, k := range n.Kids {
		part := k.Written()
		if len(k.Kids) > 1 {
			part = "(" + part + ")"
		}
		parts = append(parts, part)
	}
	switch n.Kind {
	case Not:
		return "not " + parts[0]
	case Or:
		return strings.Join(parts, " or ")
	}
	return strings.Join(parts, " and ")
}

// Opaque reports whether parts of a node can only be asked, and ask for nothing
// but labels and params, such as this one.
func (n *Node) Opaque(p *Param) bool {
	asks, only := false, true
	n.Each(func(k *Node) {
		switch k.Kind {
		case Program:
			asks = asks || slices.ContainsFunc(k.Names, func(f string) bool {
				return f == labelsName || strings.HasPrefix(f, "label ") || f == "param."+p.Name
			})
			only = only && !slices.ContainsFunc(k.Names, func(f string) bool {
				return f != labelsName && !strings.HasPrefix(f, "label ") && !strings.HasPrefix(f, "param.")
			})
		case factIs, factHolds:
			only = false
		}
	})
	return asks && only
}
