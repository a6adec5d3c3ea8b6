package cond

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// Builtins are the functions of the expression library that are available. Their results are no
// larger than their arguments: with these, without let and without nested loops, time and memory
// are proportional to the expression's length and the job's.
var Builtins = []string{
	"all", "any", "none", "one", "filter", "count", "len", "first", "last",
	"lower", "upper", "trim", "trimPrefix", "trimSuffix", "hasPrefix", "hasSuffix", "indexOf", "lastIndexOf",
	"int", "float", "abs", "ceil", "floor", "round", "min", "max",
}

const (
	maxText  = 4096 // bytes that a function may give
	maxParts = 100  // elements of a list that a function or a range may give
)

// Bounded are functions whose results could be larger than their arguments.
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
	"has": labelFunction(func(labels, want []string) bool { return within(want, labels) }),
	"hasAny": labelFunction(func(labels, want []string) bool {
		return slices.ContainsFunc(want, func(l string) bool { return slices.Contains(labels, l) })
	}),
	"only":    labelFunction(within),
	"exactly": labelFunction(func(labels, want []string) bool { return within(want, labels) && within(labels, want) }),
}

// within reports whether a list has nothing that another has not.
func within(list, other []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !slices.Contains(other, s) })
}

func labelFunction(holds func(labels, want []string) bool) func(...any) (any, error) {
	return func(args ...any) (any, error) {
		labels, _ := args[0].([]string)
		var want []string
		for _, a := range args[1:] {
			s, ok := a.(string)
			if !ok {
				return nil, errors.New("a label function takes texts, and one of them is " + strings.Trim(fmt.Sprintf("%T", a), "<>"))
			}
			want = append(want, strings.ToLower(s))
		}
		return holds(labels, want), nil
	}
}

func isLabels(n ast.Node) bool {
	id, ok := n.(*ast.IdentifierNode)
	return ok && id.Value == "labels"
}

// labelCall returns the name of the label function that a node calls, "" for any other node.
func labelCall(n ast.Node) string {
	if c, ok := n.(*ast.CallNode); ok {
		if id, ok := c.Callee.(*ast.IdentifierNode); ok && LabelFunctions[id.Value] != nil {
			return id.Value
		}
	}
	return ""
}
