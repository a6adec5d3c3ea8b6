package cond

import (
	"fmt"
	"regexp/syntax"

	"github.com/expr-lang/expr/ast"

	"switchyard/rules/internal/words"
)

// patterns checks the regular expressions of an expression, before the library compiles them.
func (v *visitor) patterns(root ast.Node) {
	size := 0
	walk(root, func(node *ast.Node) {
		n, ok := (*node).(*ast.BinaryNode)
		if !ok || n.Operator != "matches" {
			return
		}
		s, ok := n.Right.(*ast.StringNode)
		if !ok {
			v.refuse(n.Right, "matches takes a pattern that is written out")
			return
		}
		if size += PatternSize(s.Value); size > maxMatches {
			v.refuse(n.Right, fmt.Sprintf("the pattern is too large, with what it repeats: the maximum is %d steps", maxMatches))
		}
	})
}

// PatternSize returns about how many steps a regular expression compiles to, to which its memory
// and its time for each character are proportional. It is 0 for one that does not compile.
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

// CheckPattern checks a regular expression that stands outside an expression.
func CheckPattern(s string) error {
	if _, err := syntax.Parse(s, syntax.Perl); err != nil {
		return fmt.Errorf("%s is not a regular expression: %s", words.Quote(s), words.OneLine(err.Error()))
	}
	if PatternSize(s) > maxPattern {
		return fmt.Errorf("%s is too large, with what it repeats: the maximum is %d steps", words.Quote(s), maxPattern)
	}
	return nil
}
