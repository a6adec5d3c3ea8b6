package cond

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// nocaseFacts are the facts that GitHub compares without case. The names of jobs, workflows and
// branches have case.
var nocaseFacts = map[string]bool{
	"repo.host": true, "repo.owner": true, "repo.name": true, "repo.full_name": true, "repo.url": true, "repo.visibility": true,
	"job.sender": true, "run.actor": true, "run.event": true,
}

// A shape is what is known of a value before there is a job.
type shape struct {
	nocase bool // it is compared without case: a name, or made of one; of a list, its elements are
	lower  bool // it is lower case already
	label  bool // it is one of the job's labels, or a list of them

	source string     // the fact, the param or the label that it is; "" for what is made of them
	also   []ast.Node // what it is when the job has no such param
}

// A folder walks an expression after the visitor and before it is compiled. It makes comparisons
// with names ones without case, and notes the labels that the expression asks for.
type folder struct {
	*visitor
	element []shape // of the lists that are looped over
}

// The functions that a folder inserts. No expression can name them.
const (
	foldName = "any case: "
	foldAny  = foldName + "lower"
)

var foldFunctions = map[string]func(...any) (any, error){
	foldAny: func(a ...any) (any, error) { return lowered(a[0]), nil },
	foldName + "trimPrefix": func(a ...any) (any, error) {
		s, prefix := a[0].(string), anyCase(a[1].(string))
		if at := prefix.FindStringIndex(s); at != nil && at[0] == 0 {
			s = s[at[1]:]
		}
		return s, nil
	},
	foldName + "trimSuffix": func(a ...any) (any, error) {
		s := a[0].(string)
		if all := anyCase(a[1].(string)).FindAllStringIndex(s, -1); all != nil && all[len(all)-1][1] == len(s) {
			s = s[:all[len(all)-1][0]]
		}
		return s, nil
	},
	foldName + "split": func(a ...any) (any, error) {
		s, sep := a[0].(string), a[1].(string)
		return Bounded["split"].call(anyCase(sep).ReplaceAllLiteralString(s, sep), sep)
	},
	foldName + "replace": func(a ...any) (any, error) {
		s, old := a[0].(string), a[1].(string)
		return Bounded["replace"].call(anyCase(old).ReplaceAllLiteralString(s, old), old, a[2])
	},
}

// anyCase returns a pattern that finds a text in any case.
func anyCase(s string) *regexp.Regexp { return regexp.MustCompile("(?i)" + regexp.QuoteMeta(s)) }

// lowered returns a text, the texts of a list, or the keys of a mapping in lower case.
func lowered(v any) any {
	switch v := v.(type) {
	case string:
		return strings.ToLower(v)
	case []string:
		list := make([]string, len(v))
		for i, s := range v {
			list[i] = strings.ToLower(s)
		}
		return list
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = lowered(e)
		}
		return list
	case map[string]any:
		all := make(map[string]any, len(v))
		for k, e := range v {
			all[strings.ToLower(k)] = e
		}
		return all
	}
	return v
}

// comparisons are the operators and functions that compare one text with another.
var comparisons = []string{"==", "!=", "<", "<=", ">", ">=", "in", "contains", "startsWith", "endsWith", "hasPrefix", "hasSuffix", "indexOf", "lastIndexOf"}

// of returns the shape of a node, and changes the comparisons in it.
func (f *folder) of(at *ast.Node) (s shape) {
	switch n := (*at).(type) {
	case *ast.StringNode:
		return shape{lower: n.Value == strings.ToLower(n.Value)}
	case *ast.IdentifierNode:
		if isLabels(n) {
			return shape{nocase: true, lower: true, label: true, source: asLabel}
		}
	case *ast.PointerNode:
		if n.Name == "" && len(f.element) > 0 {
			return f.element[len(f.element)-1]
		}
	case *ast.PredicateNode:
		f.of(&n.Node)
	case *ast.ChainNode:
		return f.of(&n.Node)
	case *ast.UnaryNode:
		f.of(&n.Node)
	case *ast.SliceNode:
		for _, end := range []*ast.Node{&n.From, &n.To} {
			if *end != nil {
				f.of(end)
			}
		}
		s = f.of(&n.Node)
		if s.label = s.label && isLabels(n.Node); !s.label { // a part of a text is another
			s.source = ""
		}
		return s
	case *ast.MemberNode:
		return f.member(n)
	case *ast.BinaryNode:
		return f.binary(n)
	case *ast.ConditionalNode:
		f.of(&n.Cond)
		return f.of(&n.Exp1).or(f.of(&n.Exp2))
	case *ast.ArrayNode:
		return f.all(n.Nodes)
	case *ast.MapNode:
		return f.all(n.Pairs)
	case *ast.PairNode:
		f.of(&n.Key)
		return f.of(&n.Value)
	case *ast.BuiltinNode:
		if len(n.Arguments) > 0 {
			return f.call(at, n.Name, n.Arguments)
		}
	case *ast.CallNode:
		id, ok := n.Callee.(*ast.IdentifierNode)
		switch {
		case labelCall(n) != "":
			f.all(n.Arguments)
			for _, a := range n.Arguments[1:] {
				f.mention(a)
			}
		case ok && len(n.Arguments) > 0:
			return f.call(at, id.Value, n.Arguments)
		}
	}
	return shape{}
}

// or returns what is known of a value that is either.
func (s shape) or(t shape) shape {
	return shape{nocase: s.nocase || t.nocase, lower: s.lower && t.lower, label: s.label && t.label}
}

func (f *folder) all(nodes []ast.Node) (s shape) {
	for i := range nodes {
		if one := f.of(&nodes[i]); i == 0 {
			s = one
		} else {
			s = s.or(one)
		}
	}
	return s
}

func (f *folder) member(n *ast.MemberNode) shape {
	if name := factName(n); name != "" {
		p := f.param(strings.TrimPrefix(name, "param."))
		if !strings.HasPrefix(name, "param.") || p == nil {
			return shape{nocase: nocaseFacts[name], source: name}
		}
		return shape{nocase: p.Kind == "string", lower: p.Pattern != nil, source: name}
	}
	if id, ok := n.Node.(*ast.IdentifierNode); ok && id.Value == "param" { // by a name that is made up
		f.of(&n.Property)
		return shape{nocase: true}
	}
	s := f.of(&n.Node)
	if _, written := n.Property.(*ast.StringNode); written {
		return s
	}
	if key := f.of(&n.Property); key.nocase {
		f.fold(&n.Node, s)
		f.fold(&n.Property, key)
	}
	return s
}

func (f *folder) binary(n *ast.BinaryNode) shape {
	left, right := f.of(&n.Left), f.of(&n.Right)
	switch {
	case n.Operator == "+":
		s := left.or(right)
		s.label = false
		return s
	case n.Operator == "??":
		s := left.or(right)
		if isWritten(n.Right) {
			s.source, s.also = left.source, append(left.also, n.Right)
		}
		return s
	case n.Operator == "matches":
		if s, ok := n.Right.(*ast.StringNode); ok {
			f.judgePattern(n, left, s)
			if !left.nocase {
				break
			}
			s.Value = "(?i)" + s.Value
		}
	case slices.Contains(comparisons, n.Operator):
		f.compare(n, &n.Left, &n.Right, left, right, n.Operator)
	}
	return shape{}
}

// compare makes a comparison with a name one without case, and notes a literal label.
func (f *folder) compare(n ast.Node, a, b *ast.Node, left, right shape, operator string) {
	if slices.Contains([]string{"==", "!=", "in"}, operator) {
		if left.label {
			f.note(*b)
		}
		if right.label {
			f.note(*a)
		}
	}
	f.judge(n, *a, left, operator, *b)
	if to, ok := mirrored[operator]; ok || operator == "==" || operator == "!=" {
		f.judge(n, *b, right, cmp.Or(to, operator), *a)
	}
	if left.nocase || right.nocase {
		f.fold(a, left)
		f.fold(b, right)
	}
}

// note notes the labels that something is compared with.
func (f *folder) note(n ast.Node) {
	if list, ok := n.(*ast.ArrayNode); ok {
		for _, e := range list.Nodes {
			f.mention(e)
		}
		return
	}
	f.mention(n)
}

// call returns the shape of a call of one of the language's functions.
func (f *folder) call(at *ast.Node, name string, args []ast.Node) shape {
	first := f.of(&args[0])
	f.element = append(f.element, first)
	rest := make([]shape, len(args)-1)
	for i := range rest {
		rest[i] = f.of(&args[1+i])
	}
	f.element = f.element[:len(f.element)-1]
	switch name {
	case "lower", "upper": // whoever writes it does not care for the case
		return shape{nocase: true, lower: name == "lower", source: first.source, also: first.also}
	case "filter", "first", "last", "string", "trim":
		first.label = first.label && name != "trim" && name != "string"
		return first
	case "hasPrefix", "hasSuffix", "indexOf", "lastIndexOf":
		if len(args) > 1 {
			f.compare(*at, &args[0], &args[1], first, rest[0], name)
		}
	case "join":
		first.label, first.source = false, ""
		return first
	case "trimPrefix", "trimSuffix", "split", "replace":
		first.label, first.source = false, ""
		if len(args) > 1 && (first.nocase || rest[0].nocase) {
			if s, written := args[1].(*ast.StringNode); !written || strings.ToLower(s.Value) != strings.ToUpper(s.Value) {
				f.put(at, foldName+name, args)
			}
		}
		if name == "replace" && len(rest) > 1 {
			first = first.or(rest[1])
		}
		return first
	}
	return shape{}
}

// fold makes the texts of a node lower case.
func (f *folder) fold(at *ast.Node, s shape) {
	switch n := (*at).(type) {
	case *ast.StringNode:
		n.Value = strings.ToLower(n.Value)
	case *ast.ArrayNode:
		for i := range n.Nodes {
			f.fold(&n.Nodes[i], shape{})
		}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NilNode:
	default:
		if !s.lower {
			f.put(at, foldAny, []ast.Node{n})
		}
	}
}

// put replaces a node by a call.
func (f *folder) put(at *ast.Node, name string, args []ast.Node) {
	ast.Patch(at, &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: args})
}
