package cond

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"

	"switchyard/rules/internal/words"
)

// envNames are the names that an expression sees besides the functions; all but
// the first have fields.
var envNames = []string{"labels", "param", "repo", "job", "run"}

// names refuses names that stand for nothing.
func (v *visitor) names(root ast.Node) {
	f := nameFinder{mends: map[ast.Node]string{}}
	ast.Walk(&root, &f)
	for _, n := range f.found {
		id := n.(*ast.IdentifierNode)
		if slices.Contains(envNames, id.Value) {
			continue
		}
		switch {
		case f.mends[n] != "" && len(words.Nearest(id.Value, envNames, 1)) == 0:
			v.refuse(n, fmt.Sprintf("unknown name %s: a text must be in quotes: %q", words.OneLine(id.Value), f.mends[n]))
		case v.config.Functions[id.Value] != nil || v.config.Builtins[id.Value] != nil:
			v.refuse(n, fmt.Sprintf("%s is a function: write %s(…)", id.Value, id.Value))
		default:
			v.refuse(n, "unknown name "+words.OneLine(id.Value)+words.DidYouMean(id.Value, envNames))
		}
	}
}

// A nameFinder finds the names that are not called, and texts that lack their quotes.
type nameFinder struct {
	found []ast.Node
	mends map[ast.Node]string
}

// Visit collects the names of a node; its children come before it.
func (f *nameFinder) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		f.found = append(f.found, n)
	case *ast.CallNode:
		f.found = slices.DeleteFunc(f.found, func(found ast.Node) bool { return found == n.Callee })
		for _, a := range n.Arguments {
			f.mend(a)
		}
	case *ast.BuiltinNode:
		for _, a := range n.Arguments {
			f.mend(a)
		}
	case *ast.ArrayNode:
		for _, e := range n.Nodes {
			f.mend(e)
		}
	case *ast.BinaryNode:
		if slices.Contains(comparisons, n.Operator) || n.Operator == "??" || n.Operator == "+" {
			f.mend(n.Left)
			f.mend(n.Right)
		}
	}
}

func (f *nameFinder) mend(n ast.Node) {
	if said := unquoted(n); said != "" {
		f.mends[first(n)] = said
	}
}

// unquoted returns what a text without its quotes says, such as self-hosted; "" for any other node.
func unquoted(n ast.Node) string {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		if !slices.Contains(envNames, n.Value) && LabelFunctions[n.Value] == nil {
			return n.Value
		}
	case *ast.BinaryNode:
		if n.Operator == "-" || n.Operator == "/" {
			left, right := unquoted(n.Left), cmp.Or(unquoted(n.Right), number(n.Right))
			if left != "" && right != "" {
				return left + n.Operator + right
			}
		}
	case *ast.MemberNode:
		property, written := n.Property.(*ast.StringNode)
		if root := unquoted(n.Node); written && root != "" && len(words.Nearest(root, envNames, 1)) == 0 {
			return root + "." + property.Value
		}
	}
	return ""
}

// number writes a literal number, "" for another node.
func number(n ast.Node) string {
	switch n := n.(type) {
	case *ast.IntegerNode:
		return strconv.Itoa(n.Value)
	case *ast.FloatNode:
		return strconv.FormatFloat(n.Value, 'f', -1, 64)
	}
	return ""
}

// first returns the part that a node begins with.
func first(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.BinaryNode:
		return first(n.Left)
	case *ast.MemberNode:
		return first(n.Node)
	case *ast.ChainNode:
		return first(n.Node)
	case *ast.SliceNode:
		return first(n.Node)
	case *ast.ConditionalNode:
		return first(n.Cond)
	case *ast.CallNode:
		return first(n.Callee)
	}
	return n
}

// mismatches is a visitor that refuses comparisons of values of different types, as the checker
// found them: they would hold for no job, or fail.
type mismatches struct{ *visitor }

// Visit checks a node; its children come before it.
func (m mismatches) Visit(node *ast.Node) {
	if not, ok := (*node).(*ast.UnaryNode); ok && (not.Operator == "not" || not.Operator == "!") {
		m.flag(not.Node, fmt.Sprintf("compare it with one, within brackets: not (%s == …)", words.OneLine(not.Node.String())))
	}
	if call, ok := (*node).(*ast.CallNode); ok && labelCall(call) != "" {
		for _, a := range call.Arguments[1:] {
			if nt := a.Nature(); typeOf(a) != aText && !nt.IsUnknown(&m.typed.NtCache) {
				m.refuse(a, fmt.Sprintf("%s takes labels, each a text: write %s(%q)", labelCall(call), labelCall(call), cmp.Or(number(a), "linux")))
			}
		}
	}
	n, ok := (*node).(*ast.BinaryNode)
	if ok && n.Operator == "??" && isWritten(n.Right) {
		if is, other := typeOf(n.Left), typeOf(n.Right); is != "" && is != other {
			m.refuse(n.Right, fmt.Sprintf("%s is %s, and %s is %s: the value after ?? must have the same type", shown(n.Left), is, shown(n.Right), other))
		}
	}
	if ok && slices.Contains([]string{"and", "&&", "or", "||"}, n.Operator) {
		m.flag(n.Left, "compare it with one")
		m.flag(n.Right, "compare it with one")
	}
	if !ok || !slices.Contains(comparisons, n.Operator) && n.Operator != "matches" {
		return
	}
	if list, ok := n.Right.(*ast.ArrayNode); ok && n.Operator == "in" {
		for _, e := range list.Nodes {
			m.compare(n, n.Left, e)
		}
		return
	}
	m.compare(n, n.Left, n.Right)
	m.compare(n, n.Right, n.Left)
}

// flag refuses a part of a condition that is neither true nor false.
func (m mismatches) flag(n ast.Node, mend string) {
	if is := typeOf(n); is == aNumber || is == aText {
		m.refuse(first(n), fmt.Sprintf("%s is %s, not true or false: %s", shown(n), is, mend))
	}
}

// compare refuses the comparison of a value with a literal of another type.
func (m mismatches) compare(n *ast.BinaryNode, value, written ast.Node) {
	is, with := typeOf(value), typeOf(written)
	if is == "" || with == "" || isWritten(value) || !isWritten(written) {
		return
	}
	text := slices.Contains([]string{"contains", "startsWith", "endsWith", "matches"}, n.Operator)
	if is == with && (!text || is == aText) {
		return
	}
	what := shown(value)
	unit, mend := "", ""
	s, _ := written.(*ast.StringNode)
	switch {
	case text && is == aNumber:
		mend = "compare it by ==, < and the like"
	case is == aNumber && s != nil:
		if p := m.param(strings.TrimPrefix(paramIn(value), "param.")); p != nil && p.Kind == "size" {
			unit = " of MiB"
			if n, err := ParseSize(s.Value); err == nil {
				mend = fmt.Sprintf("write %d", n)
			}
		} else if n, err := strconv.Atoi(strings.TrimSpace(s.Value)); err == nil {
			mend = fmt.Sprintf("write %d", n)
		}
	case is == aText && with == aNumber && slices.Contains([]string{"==", "!=", "in"}, n.Operator):
		mend = fmt.Sprintf("write %q", number(written))
	case is == aFlag:
		mend = fmt.Sprintf("write %s, or not %s", what, what)
	}
	if mend == "" {
		mend = "never " + words.OneLine(written.String())
	}
	m.refuse(written, fmt.Sprintf("%s is %s%s: %s", what, is, unit, mend))
}

// shown writes a node as the file has it: without the labels that a label function is passed.
func shown(n ast.Node) string {
	s := n.String()
	for name := range LabelFunctions {
		s = strings.ReplaceAll(s, name+"(labels, ", name+"(")
	}
	return words.OneLine(s)
}

const (
	aNumber = "a number"
	aText   = "a text"
	aFlag   = "true or false"
)

// typeOf returns the type of a checked node; "" when it is not known, or none of these.
func typeOf(n ast.Node) string {
	switch nt := n.Nature(); {
	case nt.IsNumber():
		return aNumber
	case nt.IsString():
		return aText
	case nt.IsBool():
		return aFlag
	}
	return ""
}

func isWritten(n ast.Node) bool {
	switch n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return true
	}
	return false
}

// paramIn returns the param that a node gives, such as param.cpu of param.cpu ?? 1; "" when there
// is none.
func paramIn(n ast.Node) string {
	switch n := n.(type) {
	case *ast.BinaryNode:
		if n.Operator == "??" {
			return paramIn(n.Left)
		}
	case *ast.ChainNode:
		return paramIn(n.Node)
	}
	if name := factName(n); strings.HasPrefix(name, "param.") {
		return name
	}
	return ""
}
