package cond

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"

	"switchyard/rules/internal/words"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// The work of a decision and of Lint is counted in steps of about 10 ns on a machine of 2024. They
// are counted before the work is done, for the worst case of the job's texts, so that a slow or
// busy machine decides the same job in the same way.
const (
	DecisionSteps = 5_000_000     // of one decision: 50 ms; a file of 10,000 plain rules takes less than a tenth
	TraceSteps    = DecisionSteps // of saying why, beside that
	loadSteps     = 100_000       // of one expression that has the same value for every job, when it is loaded
	DescribeSteps = 100_000_000   // of what is said of the rules in force, each of its parts: 1 s
	LintSteps     = 300_000_000   // of all findings of a file: 3 s; a file of 10,000 rules takes a third

	NodeSteps = 5  // of one operator or function of an expression
	textShare = 32 // bytes of a text that a function goes through in a step
)

// ErrTooCostly is the error of a decision that would take more than its steps.
var ErrTooCostly = errors.New("deciding this job takes too long: more than 50 ms of patterns and loops over its labels and texts; simplify the patterns of this rule and of those before it")

// Spend counts steps of work that is about to be done. When it returns ErrTooCostly, the work must
// not be done.
func (e *Env) Spend(steps int) error {
	limit := e.Limit
	if limit == 0 {
		limit = DecisionSteps
	}
	if e.Spent += steps; e.Spent > limit || e.Spent < 0 {
		e.Spent = max(e.Spent, limit+1) // it stays so
		return ErrTooCostly
	}
	return nil
}

// longest returns the length of the longest text that the job has, in bytes.
func (e *Env) longest() int {
	if e.text == 0 {
		e.text = max(1, len(e.Repo.FullName), len(e.Repo.URL), len(e.Repo.Visibility), len(e.Job.Name), len(e.Job.Workflow), len(e.Job.Branch), len(e.Job.Sender), len(e.Run.Event), len(e.Run.Actor))
		for _, l := range e.Labels {
			e.text = max(e.text, len(l))
			e.allLabels += len(l)
		}
	}
	return e.text
}

// Largest returns the job that is the most expensive for an expression: with as many labels as a
// job may have, each as long as it may be. Other texts are shorter in practice.
func Largest() *Env {
	return &Env{Labels: make([]string, MaxLabels), text: MaxLabelLength, allLabels: MaxLabels * MaxLabelLength}
}

// A code is a compiled expression and what it costs.
type code struct {
	*vm.Program
	weight
}

// A weight is what an expression costs, apart from what depends on the job.
type weight struct {
	nodes    int // operators, functions and values
	turns    int // of its loops at least; 0: it has none
	patterns int // steps for each character of a text that is matched
	labels   int // the same of patterns that each of the job's labels is held against
	parts    int // and of those that each part of a text is

	written         int // bytes of the texts that are written out
	sums            int // + that may put texts together
	joins, replaces bool
}

// Steps returns the most steps that evaluating takes for a job.
func (w *weight) Steps(e *Env) int {
	text, turns := w.longest(e), 1
	if w.turns > 0 {
		turns = max(w.turns, len(e.Labels))
	}
	return turns*(w.nodes*(NodeSteps+len(e.Labels)/4+text/textShare)+w.patterns*text) + w.labels*e.allLabels + w.parts*text
}

// Size returns the size of all patterns.
func (w *weight) Size() int { return w.patterns + w.labels + w.parts }

// longest returns the length of the longest text that the expression sees or makes, in bytes.
func (w *weight) longest(e *Env) int {
	longest := max(e.longest(), w.written)
	made := 0
	if w.sums > 0 {
		made = w.written + (1+w.sums)*e.longest()
	}
	if w.joins {
		made += e.allLabels + len(e.Labels)*w.written
	}
	if w.replaces {
		made = maxText
	}
	return max(longest, min(made, (1+w.sums)*maxText))
}

// weigh returns what an expression costs.
func weigh(root ast.Node) weight {
	w := weigher{}
	ast.Walk(&root, &w)
	return w.weight
}

type weigher struct{ weight }

// Visit adds the cost of a node; its children come before it.
func (w *weigher) Visit(node *ast.Node) {
	w.nodes++
	switch n := (*node).(type) {
	case *ast.StringNode:
		w.written += len(n.Value)
	case *ast.PredicateNode:
		w.turns = max(w.turns, 1)
	case *ast.BuiltinNode:
		if len(n.Arguments) > 0 && slices.ContainsFunc(n.Arguments[1:], func(a ast.Node) bool { _, is := a.(*ast.PredicateNode); return is }) {
			w.over(n.Arguments[0])
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "+":
			w.sums++
		case "matches":
			w.matches(n)
		}
	case *ast.CallNode:
		id, ok := n.Callee.(*ast.IdentifierNode)
		if !ok {
			break
		}
		switch name := strings.TrimPrefix(id.Value, foldName); {
		case name == "join":
			w.joins = true
		case name == "replace":
			w.replaces = true
		}
		if strings.HasPrefix(id.Value, foldName) && id.Value != foldAny { // it compiles its second argument
			if s, ok := n.Arguments[1].(*ast.StringNode); ok {
				w.nodes += 100 + 4*len(s.Value)
			} else {
				w.nodes, w.patterns = w.nodes+100, w.patterns+20
			}
		}
	}
}

func (w *weigher) matches(n *ast.BinaryNode) {
	s, ok := n.Right.(*ast.StringNode)
	if !ok {
		return // it is refused
	}
	w.written -= len(s.Value)
	if p, ok := n.Left.(*ast.PointerNode); ok && p.Name == "" {
		w.labels += PatternSize(s.Value) // if the loop is over others, over sees to it
	} else {
		w.patterns += PatternSize(s.Value)
	}
}

// over notes what a loop goes over. Its predicate was visited before.
func (w *weigher) over(list ast.Node) {
	switch n := list.(type) {
	case *ast.IdentifierNode:
		if isLabels(n) {
			return
		}
	case *ast.BuiltinNode:
		if n.Name == "filter" && len(n.Arguments) > 0 {
			w.over(n.Arguments[0])
			return
		}
	case *ast.ArrayNode:
		w.turns = max(w.turns, len(n.Nodes))
	case *ast.CallNode:
		if id, ok := n.Callee.(*ast.IdentifierNode); ok && strings.TrimPrefix(id.Value, foldName) == "split" {
			w.turns = max(w.turns, maxParts+1)
			w.parts, w.labels = w.parts+w.labels, 0
			return
		}
	}
	w.turns = max(w.turns, maxParts+1)
	w.patterns, w.labels = w.patterns+w.labels, 0
}

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
