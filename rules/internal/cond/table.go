package cond

import (
	"math"
	"slices"
	"sort"

	"github.com/expr-lang/expr/ast"
)

// A table is the result of a part of a condition for each value of the only param that it depends
// on: yes, no, or unknown where it fails. The values of a text are numbered as in one_of.
type table struct {
	none  truth // for a job without the param
	steps []step
}

// A step is the result from a value on, up to the next step.
type step struct {
	from int
	is   truth
}

// Attempt is job.attempt, a number that every job has, as a param.
var Attempt = &Param{Name: "job.attempt", Kind: "int", Min: 1, Max: math.MaxInt32}

// maxTable bounds the values that are tried one by one.
const maxTable = 256

// tableOf returns the result of a program for each value of the only param that it depends on; nil
// when it cannot tell.
func (l *Language) tableOf(n ast.Node, code *code, p *Param) *table {
	low, high, ok := p.values()
	if !ok {
		return nil
	}
	var points []int
	if breaks, ok := breaksOf(n); ok && p.Kind != "string" { // between these it says the same
		points = append(points, low)
		for _, at := range breaks {
			if at > low && at <= high {
				points = append(points, at)
			}
		}
		slices.Sort(points)
	} else if high-low < maxTable {
		for v := low; v <= high; v++ {
			points = append(points, v)
		}
	} else {
		return nil
	}
	ask := func(v any) truth {
		env := Env{Limit: loadSteps}
		switch n, _ := v.(int); {
		case p == Attempt:
			env.Job.Attempt = n
		case v != nil:
			env.Param = map[string]any{p.Name: v}
		}
		got, err := Evaluate(code, &env)
		if is, flag := got.(bool); err == nil && flag {
			return truthOf(is)
		}
		return unknown
	}
	t := &table{}
	for _, v := range slices.Compact(points) {
		value := any(v)
		if p.Kind == "string" {
			value = p.OneOf[v]
		}
		t.add(v, ask(value))
	}
	if t.none = t.steps[0].is; p != Attempt {
		t.none = ask(nil)
	}
	return t
}

// add adds the result from a value on.
func (t *table) add(from int, is truth) {
	if len(t.steps) == 0 || t.steps[len(t.steps)-1].is != is {
		t.steps = append(t.steps, step{from, is})
	}
}

// isTable returns the table of "the param is this value".
func isTable(p *Param, v int) *table {
	low, high, ok := p.values()
	if !ok {
		return nil
	}
	t := &table{none: no}
	for _, from := range []int{low, v, v + 1} {
		if from >= low && from <= high {
			t.add(from, truthOf(from == v))
		}
	}
	return t
}

// thereTable returns the table of "a job has the param".
func thereTable(p *Param) *table {
	low, _, ok := p.values()
	if !ok {
		return nil
	}
	return &table{none: no, steps: []step{{low, yes}}}
}

// at returns the result for a value.
func (t *table) at(v int) truth {
	i := sort.Search(len(t.steps), func(i int) bool { return t.steps[i].from > v })
	if i == 0 {
		return unknown
	}
	return t.steps[i-1].is
}

// implies returns the other table's result for all values for which this one has the assumed one:
// yes, no for never yes, unknown for either.
func (t *table) implies(assumed truth, other *table) truth {
	some, never, always := false, true, true
	see := func(mine, its truth) {
		if mine != assumed {
			return
		}
		some = true
		never = never && its != yes
		always = always && its == yes
	}
	see(t.none, other.none)
	for _, s := range t.steps {
		see(s.is, other.at(s.from))
	}
	for _, s := range other.steps {
		see(t.at(s.from), s.is)
	}
	switch {
	case !some:
		return unknown
	case always:
		return yes
	case never:
		return no
	}
	return unknown
}

// says reports whether some value has this result, or a job without one.
func (t *table) says(is truth) bool {
	return t.none == is || slices.ContainsFunc(t.steps, func(s step) bool { return s.is == is })
}

// breaksOf returns the numbers at which an expression may change; ok is false when
// it does more than to compare a param with them.
func breaksOf(n ast.Node) (at []int, ok bool) {
	add := func(v float64) {
		for _, v := range []float64{v, -v} {
			if math.Abs(v) < math.MaxInt32 {
				at = append(at, int(math.Floor(v)), int(math.Floor(v))+1, int(math.Ceil(v)))
			}
		}
	}
	ok = true
	walk(n, func(node *ast.Node) {
		switch n := (*node).(type) {
		case *ast.IntegerNode:
			add(float64(n.Value))
		case *ast.FloatNode:
			add(n.Value)
		case *ast.NilNode, *ast.BoolNode, *ast.StringNode, *ast.MemberNode, *ast.IdentifierNode, *ast.ArrayNode, *ast.ChainNode, *ast.UnaryNode:
		case *ast.BinaryNode:
			ok = ok && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">=", "in", "and", "&&", "or", "||", "??"}, n.Operator)
		default:
			ok = false
		}
	})
	return at, ok
}
