package cond

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"switchyard/rules/internal/words"
)

// A Condition is a boolean expression, taken apart as far as possible: so an index finds it, it can
// say which part failed, and it can be compared with others. The zero condition holds.
type Condition struct {
	Source string
	Root   *Node // nil: always true
	At     Spot
	Labels []Mention
	Doubts []Doubt
}

// Holds reports whether the condition holds. An error comes from an expression, or is
// ErrRunUnknown.
func (c *Condition) Holds(env *Env) (bool, error) {
	if c.Root == nil {
		return true, nil
	}
	return c.Root.Holds(env)
}

// Locate notes where the parts of the condition stand in the file; at turns a
// line and a column of its text, from 1 and from 0, into that.
func (c *Condition) Locate(at func(line, column int) Spot) {
	for i := range c.Doubts {
		d := &c.Doubts[i]
		d.At = at(d.Line, d.Column)
	}
	locate := func(list []Mention) {
		for i := range list {
			list[i].At = at(list[i].line, list[i].column)
		}
	}
	locate(c.Labels)
	c.Root.Each(func(part *Node) {
		part.At = at(max(part.At.Line, 1), part.At.Column)
		locate(part.uses)
	})
}

// ErrRunUnknown is the error of a condition that asks for a run which was not looked up. Decide
// branches on it.
var ErrRunUnknown = errors.New("it asks for run.…, and the run was not looked up")

// A Node is a part of a condition.
type Node struct {
	Kind   kind
	Source string
	kids   []*Node // of and, or and not

	name          string    // of a label or a fact, such as "repo.owner"
	is            string    // the text that the fact is compared with; lower case when that has none
	as            string    // is as it was written
	Value         bool      // of a constant
	names         []string  // of only: the labels that may be there. Of a program: the facts that it asks for
	Param         string    // the param that it depends on alone, or job.attempt; "" when there is none
	table         *table    // what it is for each value of that; nil when that is not known
	uses          []Mention // of a program: where it asks for a param
	At            Spot      // where it begins; before the file is known by line and column of the expression
	Never, Always bool      // it holds for no job, for every job
	Code          *code     // of a program
	text          func(*Env) string
	flag          func(*Env) bool

	safe    bool // it has a value for every job: nothing in it can fail
	needRun bool // it asks for the run itself
}

// Sure reports whether nothing in the node can fail once the run is known.
func (n *Node) Sure() bool {
	return (n.Kind != Program || n.safe) && !slices.ContainsFunc(n.kids, func(k *Node) bool { return !k.Sure() })
}

// Each calls do for the node and all parts of it.
func (n *Node) Each(do func(*Node)) {
	if n == nil {
		return
	}
	do(n)
	for _, k := range n.kids {
		k.Each(do)
	}
}

// EachUse calls do for every place where a program asks for a param, with what
// is true of the jobs that reach it; given is true of all.
func (n *Node) EachUse(given []Goal, do func(program *Node, use Mention, path []Goal)) {
	if n == nil {
		return
	}
	switch n.Kind {
	case And, Or:
		for _, k := range n.kids {
			k.EachUse(given, do)
			given = append(slices.Clip(given), That(k, n.Kind == And))
		}
	case not:
		n.kids[0].EachUse(given, do)
	case Program:
		for _, u := range n.uses {
			do(n, u, given)
		}
	}
}

// FailsWithout reports whether a program fails for a job without the param that
// it depends on alone; known is false when that cannot be told.
func (n *Node) FailsWithout() (fails, known bool) {
	return n.table != nil && n.table.none == unknown, n.table != nil
}

// Opaque reports whether the node has programs that ask for labels or for this param, and asks for
// nothing but labels and params.
func (n *Node) Opaque(p *Param) bool {
	asks, only := false, true
	n.Each(func(k *Node) {
		switch k.Kind {
		case Program:
			asks = asks || slices.ContainsFunc(k.names, func(f string) bool {
				return f == labelsName || strings.HasPrefix(f, "label ") || f == "param."+p.Name
			})
			only = only && !slices.ContainsFunc(k.names, func(f string) bool {
				return f != labelsName && !strings.HasPrefix(f, "label ") && !strings.HasPrefix(f, "param.")
			})
		case factIs, factHolds:
			only = false
		}
	})
	return asks && only
}

// Tied reports whether a program among the goals asks for something that another part of them asks
// for as well: together they may be impossible, and no world says so.
func Tied(goals []Goal) bool {
	asked := map[string]int{} // how many parts ask for it
	var programs []*Node
	for _, g := range goals {
		g.Each(func(n *Node) {
			if n.Kind == Program && n.table == nil {
				programs = append(programs, n)
			}
			for _, subject := range n.subjects() {
				asked[subject]++
			}
		})
	}
	return slices.ContainsFunc(programs, func(n *Node) bool {
		return slices.ContainsFunc(n.subjects(), func(subject string) bool { return asked[subject] > 1 })
	})
}

// subjects returns what an atom asks for: the labels, of which the params are part, the repository,
// or another fact.
func (n *Node) subjects() (all []string) {
	of := func(name string) string {
		switch {
		case name == labelsName, strings.HasPrefix(name, "label "), strings.HasPrefix(name, "param."):
			return labelsName
		case strings.HasPrefix(name, "repo."):
			return "repo"
		}
		return name
	}
	switch n.Kind {
	case hasLabel, hasOnly, paramIs, hasParam:
		return []string{labelsName}
	case factIs, factHolds:
		return []string{of(n.name)}
	case Program:
		for _, name := range n.names {
			all = append(all, of(name))
		}
		slices.Sort(all)
		all = slices.Compact(all)
	}
	return all
}

type kind int

const (
	And kind = iota
	Or
	not
	hasLabel  // the job has the label name
	hasOnly   // the job has no label but names
	factIs    // the fact name is the text
	factHolds // the fact name is true
	paramIs   // the job's param is the text or the number
	hasParam  // the job has the param
	Constant
	Program
)

// Holds evaluates the node as the expression library would: from left to right, and no further than
// needed.
func (n *Node) Holds(env *Env) (bool, error) {
	if n.needRun && !env.RunKnown {
		return false, ErrRunUnknown
	}
	switch n.Kind {
	case And, Or:
		for _, k := range n.kids {
			if held, err := k.Holds(env); held == (n.Kind == Or) || err != nil {
				return held, err
			}
		}
		return n.Kind == And, nil
	case not:
		held, err := n.kids[0].Holds(env)
		return !held && err == nil, err
	}
	if n.Kind != Program {
		if err := env.Spend(1 + (1+len(n.names))*len(env.Labels)/8); err != nil {
			return false, err
		}
	}
	switch n.Kind {
	case hasLabel:
		return slices.Contains(env.Labels, n.name), nil
	case hasOnly:
		return n.other(env) == "", nil
	case factIs:
		return factText(n.name, env) == n.is, nil
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
	case hasParam:
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

// other returns the first label that only does not allow.
func (n *Node) other(env *Env) string {
	for _, l := range env.Labels {
		if !slices.Contains(n.names, l) {
			return l
		}
	}
	return ""
}

// joined returns an and, or or not of nodes.
func joined(k kind, kids ...*Node) *Node {
	return &Node{Kind: k, kids: kids, safe: !slices.ContainsFunc(kids, func(k *Node) bool { return !k.safe })}
}

// atom completes a node that is taken apart no further.
func atom(n Node) *Node {
	n.needRun = strings.HasPrefix(n.name, "run.") && n.Kind != hasLabel
	n.safe = !n.needRun
	return &n
}

// Has returns the part that asks for a label, in lower case.
func Has(label string) *Node { return atom(Node{Kind: hasLabel, name: label}) }

// AnyOf returns what holds when one of the parts does.
func AnyOf(parts ...*Node) *Node { return joined(Or, parts...) }

// Only returns the part that holds for a job with no labels but these.
func Only(labels ...string) *Node {
	return atom(Node{Kind: hasOnly, names: labels, Source: "only(" + words.QuoteAll(labels) + ")"})
}

// HasParam returns the part that asks whether a job has a param.
func HasParam(p *Param) *Node {
	return atom(Node{Kind: hasParam, name: "param." + p.Name, Param: p.Name, table: thereTable(p), Source: "param." + p.Name + " != nil"})
}
