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
		c.Root = &Node{Kind: Program, Code: p, names: factsOf(tree.Node)}
		c.Root.needRun = asksForRun(c.Root.names)
		l.complete(c.Root, tree.Node)
	}
	c.Root.Source = c.Source
	l.see(factsOf(tree.Node))
	return c, nil
}

// node takes an expression apart. It fails on a part that the library writes in another way than it
// reads it: that part cannot be compiled by itself.
func (l *Language) node(n ast.Node) (made *Node, err error) {
	defer func() {
		if err == nil && made.kids == nil {
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
			return l.join(not, n.Node)
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
			return atom(Node{Kind: factHolds, name: name, flag: flagFacts[name]}), nil
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
	made = &Node{Kind: Program, names: factsOf(n)}
	made.needRun = asksForRun(made.names)
	made.safe = cannotFail(n) && !made.needRun
	if made.Code, err = l.Compile(n.String(), true); err != nil {
		return nil, err
	}
	l.complete(made, n)
	if len(made.names) == 0 { // the same for every job
		if v, err := Evaluate(made.Code, &Env{Limit: loadSteps}); err == nil {
			if b, ok := v.(bool); ok {
				made = &Node{Kind: Constant, Value: b, safe: true}
			}
		}
	}
	return made, nil
}

// placeOf returns where a node begins in the expression: line from 1, column from 0.
func (l *Language) placeOf(n ast.Node) Spot {
	e := (&file.Error{Location: first(n).Location()}).Bind(l.source)
	return Spot{Line: max(e.Line, 1), Column: e.Column}
}

// complete adds to a program where it asks for params, and its result for each value of the only
// param that it depends on.
func (l *Language) complete(made *Node, n ast.Node) {
	alone := ""
	for _, name := range made.names {
		if !strings.HasPrefix(name, "param.") && name != Attempt.Name || alone != "" && alone != name {
			alone = ""
			break
		}
		alone = name
	}
	if slices.ContainsFunc(made.names, func(name string) bool { return strings.HasPrefix(name, "param.") }) {
		walk(n, func(n *ast.Node) {
			if name, ok := strings.CutPrefix(factName(*n), "param."); ok {
				at := l.placeOf(*n)
				made.uses = append(made.uses, Mention{Label: name, line: at.Line, column: at.Column})
			}
		})
	}
	switch alone {
	case "":
	case Attempt.Name:
		made.Param, made.table = alone, l.tableOf(n, made.Code, Attempt)
	default:
		made.Param = strings.TrimPrefix(alone, "param.")
		made.table = l.tableOf(n, made.Code, l.param(made.Param))
	}
	if t := made.table; t != nil {
		made.Never, made.Always = !t.says(yes), !t.says(no) && !t.says(unknown)
		made.safe = made.safe || !t.says(unknown)
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

// join takes the parts of an and, or or not apart. An and within an and becomes one.
func (l *Language) join(k kind, parts ...ast.Node) (*Node, error) {
	var kids []*Node
	for _, p := range parts {
		kid, err := l.node(p)
		if err != nil {
			return nil, err
		}
		if kid.Kind == k && k != not {
			kids = append(kids, kid.kids...)
		} else {
			kids = append(kids, kid)
		}
	}
	return joined(k, kids...), nil
}

// choice takes c ? a : b apart as c and a, or not c and b.
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
	one, err := l.join(And, n.Cond, n.Exp1)
	if err != nil {
		return nil, err
	}
	other, err := l.join(And, not, n.Exp2)
	if err != nil {
		return nil, err
	}
	return joined(Or, one, other), nil
}

// comparison reads "x" in labels, and the comparison of a fact or a param with a value; it returns
// nil for any other.
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
		return compared(n.Operator, right, func(e ast.Node) *Node {
			s, ok := e.(*ast.StringNode)
			if !ok {
				return nil
			}
			value := s.Value
			if nocaseFacts[name] {
				value = strings.ToLower(value)
			}
			_, why := l.never(name, "==", s.Value)
			return atom(Node{Kind: factIs, name: name, is: value, as: s.Value, text: textFacts[name], Source: fmt.Sprintf("%s == %s", name, s), Never: why != "", At: l.placeOf(n)})
		})
	}
	return nil
}

// compared reads ==, != and in with what stands on the right, of which is makes a node, nil for what
// it cannot compare with.
func compared(operator string, right ast.Node, is func(ast.Node) *Node) *Node {
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
		return joined(Or, kids...)
	case operator == "==":
		return is(right)
	case operator == "!=":
		if made := is(right); made != nil {
			return joined(not, made)
		}
	}
	return nil
}

// paramNode reads the comparison of a param with values, and the question whether there is one; it
// returns nil for any other.
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
			return joined(not, l.there(p, left))
		case "!=":
			return l.there(p, left)
		}
	}
	return compared(operator, right, func(e ast.Node) *Node {
		made := Node{Kind: paramIs, name: "param." + name, Param: name, Source: fmt.Sprintf("param.%s == %s", name, e), At: l.placeOf(left)}
		switch e := e.(type) {
		case *ast.StringNode:
			if p.Kind != "string" {
				return nil
			}
			made.is, made.as = strings.ToLower(e.Value), words.Quote(e.Value)
			made.table = isTable(p, slices.IndexFunc(p.OneOf, func(one string) bool { return strings.ToLower(one) == made.is }))
			_, why := l.never(made.name, "==", e.Value)
			made.Never = why != ""
		case *ast.IntegerNode:
			if p.Kind == "string" {
				return nil
			}
			made.is, made.as = strconv.Itoa(e.Value), strconv.Itoa(e.Value)
			made.table = isTable(p, e.Value)
			made.Never = e.Value < p.Min || e.Value > p.Max
		default:
			return nil
		}
		return atom(made)
	})
}

// there returns the node that asks whether a job has the param.
func (l *Language) there(p *Param, at ast.Node) *Node {
	n := HasParam(p)
	n.At = l.placeOf(at)
	return n
}

// label returns the node that asks for a label.
func (l *Language) label(made Node, s *ast.StringNode) *Node {
	made.Kind, made.name = hasLabel, strings.ToLower(s.Value)
	if l == nil { // the names alone are wanted
		return atom(made)
	}
	made.At = l.placeOf(s)
	_, why := l.noLabel(s.Value)
	made.Never = why != ""
	if p, open, _ := l.vocabulary.Find(made.name); p != nil && !made.Never {
		made.Param = p.Name
		switch v, _ := p.Read(open); v := v.(type) {
		case int:
			made.table = isTable(p, v)
		case string:
			made.is = strings.ToLower(v)
			made.table = isTable(p, slices.Index(p.OneOf, v))
		}
	}
	return atom(made)
}

// labelNode reads a call of a label function with literal labels; it returns nil for any other
// call.
func labelNode(n *ast.CallNode) *Node { return (*Language)(nil).labels(n) }

// labels is labelNode that also looks the labels up in the vocabulary.
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
	only := atom(Node{Kind: hasOnly, names: names, Source: n.String()})
	switch {
	case name == "only":
		return only
	case name == "exactly":
		return joined(And, append(kids, only)...)
	case len(kids) == 1:
		return kids[0]
	case name == "has":
		return joined(And, kids...)
	}
	return joined(Or, kids...)
}

// cannotFail reports whether a node that compiles has a value for every job: its facts have types
// and are always there.
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
