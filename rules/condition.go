package rules

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

// A condition is a boolean expression, taken apart as far as it can be, so that
// it can be found by an index, say which part failed, and be compared with
// others. The zero condition holds.
type condition struct {
	source string
	root   *node // nil: always true
	at     spot
	labels []mention
	doubts []doubt
}

// holds reports whether the condition holds. An error is one of an expression,
// or errRunUnknown.
func (c *condition) holds(env *Env) (bool, error) {
	if c.root == nil {
		return true, nil
	}
	return c.root.holds(env)
}

// why says in a sentence's end why the condition holds, or does not.
func (c *condition) why(env *Env, held bool, err error) string {
	switch {
	case errors.Is(err, errRunUnknown):
		return err.Error()
	case err != nil:
		return "error: " + err.Error()
	case c.root == nil:
		return "it has no condition"
	case held:
		return "true: " + words.OneLine(c.source)
	}
	return c.root.because(env, false)
}

// errRunUnknown is what a condition gives that asks for a run which was not
// looked up. Decide branches on it.
var errRunUnknown = errors.New("it asks for run.…, and the run was not looked up")

// A node is a part of a condition.
type node struct {
	kind   kind
	source string
	kids   []*node // of and, or and not

	name          string    // of a label or a fact, such as "repo.owner"
	is            string    // the text that the fact is compared with; lower case when that has none
	as            string    // is as it was written
	value         bool      // of a constant
	names         []string  // of only: the labels that may be there. Of a program: the facts that it asks for
	param         string    // the param that it depends on alone, or job.attempt; "" when there is none
	table         *table    // what it is for each value of that; nil when that is not known
	uses          []mention // of a program: where it asks for a param
	at            spot      // where it begins; before the file is known by line and column of the expression
	never, always bool      // it holds for no job, for every job
	code          *code     // of a program
	text          func(*Env) string
	flag          func(*Env) bool

	safe    bool // it has a value for every job: nothing in it can fail
	needRun bool // it asks for the run itself
}

type kind int

const (
	and kind = iota
	or
	not
	hasLabel  // the job has the label name
	hasOnly   // the job has no label but names
	factIs    // the fact name is the text
	factHolds // the fact name is true
	paramIs   // the job's param is the text or the number
	hasParam  // the job has the param
	constant
	program
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

// condition compiles a condition; run says whether it may ask for the run.
func (l *language) condition(source string, run bool) (condition, error) {
	if _, _, err := l.check(source, run, expr.AsBool(), expr.WarnOnAny()); err != nil {
		return condition{}, err
	}
	c := condition{source: strings.TrimSpace(source), labels: l.found, doubts: l.doubts}
	l.source = file.NewSource(source)
	tree, err := parser.Parse(source)
	if err != nil {
		return condition{}, placed(err)
	}
	if c.root, err = l.node(tree.Node); err != nil {
		p, err := l.compile(source, run)
		if err != nil {
			return condition{}, err
		}
		c.root = &node{kind: program, code: p, names: factsOf(tree.Node)}
		c.root.needRun = asksForRun(c.root.names)
		l.complete(c.root, tree.Node)
	}
	c.root.source = c.source
	l.see(factsOf(tree.Node))
	return c, nil
}

// node takes an expression apart. It fails on a part that the library does not
// write as it read it: that part cannot be compiled by itself.
func (l *language) node(n ast.Node) (made *node, err error) {
	defer func() {
		if err == nil && made.kids == nil {
			made.source = n.String()
		}
		if err == nil && made.at == (spot{}) {
			made.at = l.placeOf(n)
		}
	}()
	switch n := n.(type) {
	case *ast.BoolNode:
		return &node{kind: constant, value: n.Value, safe: true}, nil
	case *ast.UnaryNode:
		if n.Operator == "!" || n.Operator == "not" {
			return l.join(not, n.Node)
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "&&", "and":
			return l.join(and, n.Left, n.Right)
		case "||", "or":
			return l.join(or, n.Left, n.Right)
		}
		if made := l.comparison(n); made != nil {
			return made, nil
		}
	case *ast.ConditionalNode: // this and that, or else the other
		return l.choice(n)
	case *ast.MemberNode:
		if name := factName(n); flagFacts[name] != nil {
			return atom(node{kind: factHolds, name: name, flag: flagFacts[name]}), nil
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
	made = &node{kind: program, names: factsOf(n)}
	made.needRun = asksForRun(made.names)
	made.safe = cannotFail(n) && !made.needRun
	if made.code, err = l.compile(n.String(), true); err != nil {
		return nil, err
	}
	l.complete(made, n)
	if len(made.names) == 0 { // the same for every job
		if v, err := evaluate(made.code, &Env{limit: loadSteps}); err == nil {
			if b, ok := v.(bool); ok {
				made = &node{kind: constant, value: b, safe: true}
			}
		}
	}
	return made, nil
}

// placeOf is where a node begins in the expression: line from 1, column from 0.
func (l *language) placeOf(n ast.Node) spot {
	e := (&file.Error{Location: first(n).Location()}).Bind(l.source)
	return spot{line: max(e.Line, 1), column: e.Column}
}

// complete notes of a program where it asks for params, and what it is for each
// value of the one that it depends on alone.
func (l *language) complete(made *node, n ast.Node) {
	alone := ""
	for _, name := range made.names {
		if !strings.HasPrefix(name, "param.") && name != attempt.name || alone != "" && alone != name {
			alone = ""
			break
		}
		alone = name
	}
	if slices.ContainsFunc(made.names, func(name string) bool { return strings.HasPrefix(name, "param.") }) {
		ast.Walk(&n, useFinder{l, made})
	}
	switch alone {
	case "":
	case attempt.name:
		made.param, made.table = alone, l.tableOf(n, made.code, attempt)
	default:
		made.param = strings.TrimPrefix(alone, "param.")
		made.table = l.tableOf(n, made.code, l.vocabulary.param(made.param))
	}
	if t := made.table; t != nil {
		made.never, made.always = !t.says(yes), !t.says(no) && !t.says(unknown)
		made.safe = made.safe || !t.says(unknown)
	}
}

// A useFinder is a visitor that notes where a program asks for params.
type useFinder struct {
	*language
	made *node
}

// Visit is called for a node after its children.
func (f useFinder) Visit(n *ast.Node) {
	if name, ok := strings.CutPrefix(factName(*n), "param."); ok {
		at := f.placeOf(*n)
		f.made.uses = append(f.made.uses, mention{label: name, line: at.line, column: at.column})
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

func (l *language) join(k kind, parts ...ast.Node) (*node, error) {
	var kids []*node
	for _, p := range parts {
		kid, err := l.node(p)
		if err != nil {
			return nil, err
		}
		if kid.kind == k && k != not {
			kids = append(kids, kid.kids...)
		} else {
			kids = append(kids, kid)
		}
	}
	return joined(k, kids...), nil
}

// choice takes c ? a : b apart as c and a or not c and b.
func (l *language) choice(n *ast.ConditionalNode) (*node, error) {
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
		return l.join(or, n.Cond, n.Exp2)
	case thisWritten:
		return l.join(and, not, n.Exp2)
	case thatWritten && that.Value:
		return l.join(or, not, n.Exp1)
	case thatWritten:
		return l.join(and, n.Cond, n.Exp1)
	}
	return l.either(n, not)
}

// either is choice when no part is written out.
func (l *language) either(n *ast.ConditionalNode, not ast.Node) (*node, error) {
	this, err := l.join(and, n.Cond, n.Exp1)
	if err != nil {
		return nil, err
	}
	other, err := l.join(and, not, n.Exp2)
	if err != nil {
		return nil, err
	}
	return joined(or, this, other), nil
}

func joined(k kind, kids ...*node) *node {
	return &node{kind: k, kids: kids, safe: !slices.ContainsFunc(kids, func(k *node) bool { return !k.safe })}
}

// atom completes a node that is taken apart no further.
func atom(n node) *node {
	n.needRun = strings.HasPrefix(n.name, "run.") && n.kind != hasLabel
	n.safe = !n.needRun
	return &n
}

// comparison reads "x" in labels, and values compared with facts or params; nil
// when it is another comparison.
func (l *language) comparison(n *ast.BinaryNode) *node {
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
			return l.label(node{}, left)
		}
	case *ast.MemberNode:
		name := factName(left)
		if textFacts[name] == nil {
			return nil
		}
		is := func(s *ast.StringNode) *node {
			value := s.Value
			if nocaseFacts[name] {
				value = strings.ToLower(value)
			}
			_, why := l.never(name, "==", s.Value)
			return atom(node{kind: factIs, name: name, is: value, as: s.Value, text: textFacts[name], source: fmt.Sprintf("%s == %s", name, s), never: why != "", at: l.placeOf(n)})
		}
		switch right := right.(type) {
		case *ast.StringNode:
			switch n.Operator {
			case "==":
				return is(right)
			case "!=":
				return joined(not, is(right))
			}
		case *ast.ArrayNode:
			var kids []*node
			for _, e := range right.Nodes {
				s, isString := e.(*ast.StringNode)
				if !isString {
					return nil
				}
				kids = append(kids, is(s))
			}
			if n.Operator == "in" && len(kids) > 0 {
				return joined(or, kids...)
			}
		}
	}
	return nil
}

// paramNode reads what compares a param with values that are written out, or
// asks whether there is one; nil when it is another comparison.
func (l *language) paramNode(operator string, left, right ast.Node) *node {
	if s, ok := left.(*ast.StringNode); ok && operator == "in" { // "cpu" in param
		id, isID := right.(*ast.IdentifierNode)
		if p := l.vocabulary.param(s.Value); isID && id.Value == "param" && p != nil {
			return l.there(p, left)
		}
		return nil
	}
	name, ok := strings.CutPrefix(factName(left), "param.")
	p := l.vocabulary.param(name)
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
	is := func(e ast.Node) *node {
		made := node{kind: paramIs, name: "param." + name, param: name, source: fmt.Sprintf("param.%s == %s", name, e), at: l.placeOf(left)}
		switch e := e.(type) {
		case *ast.StringNode:
			if p.kind != "string" {
				return nil
			}
			made.is, made.as = strings.ToLower(e.Value), words.Quote(e.Value)
			made.table = isTable(p, slices.IndexFunc(p.oneOf, func(one string) bool { return strings.ToLower(one) == made.is }))
			_, why := l.never(made.name, "==", e.Value)
			made.never = why != ""
		case *ast.IntegerNode:
			if p.kind == "string" {
				return nil
			}
			made.is, made.as = strconv.Itoa(e.Value), strconv.Itoa(e.Value)
			made.table = isTable(p, e.Value)
			made.never = e.Value < p.min || e.Value > p.max
		default:
			return nil
		}
		return atom(made)
	}
	switch list, isList := right.(*ast.ArrayNode); {
	case operator == "in" && isList && len(list.Nodes) > 0:
		var kids []*node
		for _, e := range list.Nodes {
			kid := is(e)
			if kid == nil {
				return nil
			}
			kids = append(kids, kid)
		}
		return joined(or, kids...)
	case operator == "==":
		return is(right)
	case operator == "!=":
		if made := is(right); made != nil {
			return joined(not, made)
		}
	}
	return nil
}

// there asks whether a job has the param.
func (l *language) there(p *param, at ast.Node) *node {
	return atom(node{kind: hasParam, name: "param." + p.name, param: p.name, table: thereTable(p), source: "param." + p.name + " != nil", at: l.placeOf(at)})
}

// label asks for a label that is written out.
func (l *language) label(made node, s *ast.StringNode) *node {
	made.kind, made.name = hasLabel, strings.ToLower(s.Value)
	if l == nil { // the names alone are wanted
		return atom(made)
	}
	made.at = l.placeOf(s)
	_, why := l.noLabel(s.Value)
	made.never = why != ""
	if lb, open := l.vocabulary.find(made.name); lb != nil && lb.param != nil && !made.never {
		made.param = lb.param.name
		switch v, _ := lb.param.read(open); v := v.(type) {
		case int:
			made.table = isTable(lb.param, v)
		case string:
			made.is = strings.ToLower(v)
			made.table = isTable(lb.param, slices.Index(lb.param.oneOf, v))
		}
	}
	return atom(made)
}

// labelNode reads a call of a label function with labels that are written out;
// nil when it is another call.
func labelNode(n *ast.CallNode) *node { return (*language)(nil).labels(n) }

// labels is labelNode with what the vocabulary says of the labels.
func (lang *language) labels(n *ast.CallNode) *node {
	name := labelCall(n)
	if name == "" || len(n.Arguments) == 0 {
		return nil
	}
	var names []string
	var kids []*node
	for _, a := range n.Arguments {
		s, ok := a.(*ast.StringNode)
		if !ok {
			return nil
		}
		l := strings.ToLower(s.Value)
		names = append(names, l)
		kids = append(kids, lang.label(node{source: fmt.Sprintf("has(%s)", s)}, s))
	}
	only := atom(node{kind: hasOnly, names: names, source: n.String()})
	switch {
	case name == "only":
		return only
	case name == "exactly":
		return joined(and, append(kids, only)...)
	case len(kids) == 1:
		return kids[0]
	case name == "has":
		return joined(and, kids...)
	}
	return joined(or, kids...)
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
			made.keys(func(k key) { has = append(has, "label "+k.is) })
			only := false
			made.each(func(k *node) { only = only || k.kind == hasOnly })
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

// holds evaluates the node as the expression library would: from left to right,
// and no further than needed.
func (n *node) holds(env *Env) (bool, error) {
	if n.needRun && !env.runKnown {
		return false, errRunUnknown
	}
	switch n.kind {
	case and, or:
		for _, k := range n.kids {
			if held, err := k.holds(env); held == (n.kind == or) || err != nil {
				return held, err
			}
		}
		return n.kind == and, nil
	case not:
		held, err := n.kids[0].holds(env)
		return !held && err == nil, err
	}
	if n.kind != program {
		if err := env.spend(1 + (1+len(n.names))*len(env.Labels)/8); err != nil {
			return false, err
		}
	}
	switch n.kind {
	case hasLabel:
		return slices.Contains(env.Labels, n.name), nil
	case hasOnly:
		return n.other(env) == "", nil
	case factIs:
		return factText(n.name, env) == n.is, nil
	case factHolds:
		return n.flag(env), nil
	case paramIs:
		switch v := env.Param[n.param].(type) {
		case int:
			return strconv.Itoa(v) == n.is, nil
		case string:
			return strings.ToLower(v) == n.is, nil
		}
		return false, nil
	case hasParam:
		return env.Param[n.param] != nil, nil
	case constant:
		return n.value, nil
	}
	v, err := evaluate(n.code, env)
	if errors.Is(err, errTooCostly) {
		return false, err
	}
	if err != nil {
		return false, fmt.Errorf("%w in %s", err, words.OneLine(n.source))
	}
	held, ok := v.(bool) // the library would take nil for false
	if !ok {
		return false, fmt.Errorf("%s is %s, not true or false", words.OneLine(n.source), strings.Trim(fmt.Sprintf("%T", v), "<>"))
	}
	return held, nil
}

// other is the first label that is not among those of only.
func (n *node) other(env *Env) string {
	for _, l := range env.Labels {
		if !slices.Contains(n.names, l) {
			return l
		}
	}
	return ""
}

// because says why the node is what it is for the job: the smallest part that
// decides it, and the value that did.
func (n *node) because(env *Env, held bool) string {
	switch n.kind {
	case and, or:
		if held == (n.kind == or) { // one part decides
			for _, k := range n.kids {
				if is, err := k.holds(env); is == held && err == nil {
					return k.because(env, held)
				}
			}
		}
		if same := n.sameFact(); same != "" && !held {
			if same == labelsName {
				return "the job has none of the labels " + words.QuoteAll(namesOf(n.kids))
			}
			if n.kids[0].kind == paramIs {
				v, _ := env.show(same)
				return words.OneLine(fmt.Sprintf("%s is %s, none of %s", same, v, strings.Join(namesOf(n.kids), ", ")))
			}
			return fmt.Sprintf("%s is %s, none of %s", same, words.Quote(n.kids[0].text(env)), words.QuoteAll(namesOf(n.kids)))
		}
		var all []string
		for _, k := range n.kids {
			all = append(all, k.because(env, held))
		}
		return words.OneLine(strings.Join(slices.Compact(all), ", and "))
	case not:
		return n.kids[0].because(env, !held)
	case hasLabel:
		if held {
			return "the job has the label " + words.Quote(n.name)
		}
		return "the job lacks the label " + words.Quote(n.name)
	case hasOnly:
		if held {
			return "the job has no label but " + words.QuoteAll(n.names)
		}
		return fmt.Sprintf("the job has the label %s besides %s", words.Quote(n.other(env)), words.QuoteAll(n.names))
	case factIs:
		if held {
			return fmt.Sprintf("%s is %s", n.name, words.Quote(n.text(env)))
		}
		return fmt.Sprintf("%s is %s, not %s", n.name, words.Quote(n.text(env)), words.Quote(n.as))
	case factHolds:
		return fmt.Sprintf("%s is %v", n.name, held)
	case paramIs, hasParam:
		v, _ := env.show(n.name)
		if n.kind == paramIs && !held {
			v += ", not " + n.as
		}
		return n.name + " is " + v
	case constant:
		return fmt.Sprintf("it says %v", held)
	}
	why := fmt.Sprintf("%v: %s", held, words.OneLine(n.source))
	for i, f := range slices.Compact(slices.Sorted(slices.Values(n.names))) {
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
func (n *node) sameFact() string {
	if n.kind != or {
		return ""
	}
	name := func(k *node) string {
		switch k.kind {
		case hasLabel:
			return labelsName
		case factIs, paramIs:
			return k.name
		}
		return ""
	}
	first := name(n.kids[0])
	for _, k := range n.kids {
		if name(k) != first {
			return ""
		}
	}
	return first
}

func namesOf(kids []*node) []string {
	var names []string
	for _, k := range kids {
		if k.kind == hasLabel {
			names = append(names, k.name)
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

// missing are the parts that do not hold, as because says them, of the cheapest
// way to make the node hold; cost is their number. Parts that fail are left out
// and cost more than any other way.
func (n *node) missing(env *Env) (parts []string, cost int) {
	const never = 1000
	if n == nil {
		return nil, 0
	}
	held, err := n.holds(env)
	switch {
	case err == nil && held:
		return nil, 0
	case n.kind == and:
		for _, k := range n.kids {
			more, c := k.missing(env)
			parts, cost = append(parts, more...), cost+c
		}
		return parts, cost
	case err != nil:
		return nil, never
	case n.kind == constant:
		return []string{n.because(env, false)}, never
	case n.kind == or && n.sameFact() == "":
		cost = never
		for _, k := range n.kids {
			if some, c := k.missing(env); c < cost {
				parts, cost = some, c
			}
		}
		return parts, cost
	}
	return []string{n.because(env, false)}, 1
}

// sure reports whether nothing in the node can fail once the run is known.
func (n *node) sure() bool {
	return (n.kind != program || n.safe) && !slices.ContainsFunc(n.kids, func(k *node) bool { return !k.sure() })
}

// each calls do for the node and all parts of it.
func (n *node) each(do func(*node)) {
	if n == nil {
		return
	}
	do(n)
	for _, k := range n.kids {
		k.each(do)
	}
}
