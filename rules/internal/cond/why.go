package cond

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"switchyard/rules/internal/words"
)

// Why explains why the condition holds, or does not; the text ends a sentence.
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

const labelsName = "labels"

func namesOf(kids []*Node) []string {
	var names []string
	for _, k := range kids {
		if k.Kind == hasLabel {
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

// because explains the node's result for the job, by the smallest part that decides it and the
// value of that.
func (n *Node) because(env *Env, held bool) string {
	switch n.Kind {
	case And, Or:
		if held == (n.Kind == Or) { // one part decides
			for _, k := range n.kids {
				if is, err := k.Holds(env); is == held && err == nil {
					return k.because(env, held)
				}
			}
		}
		if same := n.sameFact(); same != "" && !held {
			if same == labelsName {
				return "the job has none of the labels " + words.QuoteAll(namesOf(n.kids))
			}
			if n.kids[0].Kind == paramIs {
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
		if n.Kind == paramIs && !held {
			v += ", not " + n.as
		}
		return n.name + " is " + v
	case Constant:
		return fmt.Sprintf("it says %v", held)
	}
	why := fmt.Sprintf("%v: %s", held, words.OneLine(n.Source))
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

// sameFact returns the fact, or labelsName, that all parts of an or ask for; "" when they differ.
func (n *Node) sameFact() string {
	if n.Kind != Or {
		return ""
	}
	name := func(k *Node) string {
		switch k.Kind {
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

// Missing returns the parts that do not hold, as because explains them, of the cheapest way to make
// the node hold; cost is their number. It leaves out parts that fail: they cost more than any other
// way.
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
		for _, k := range n.kids {
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
		for _, k := range n.kids {
			if some, c := k.Missing(env); c < cost {
				parts, cost = some, c
			}
		}
		return parts, cost
	}
	return []string{n.because(env, false)}, 1
}

// Written writes the node as an expression.
func (n *Node) Written() string {
	if n.Source != "" || len(n.kids) == 0 {
		return n.Source
	}
	var parts []string
	for _, k := range n.kids {
		part := k.Written()
		if len(k.kids) > 1 {
			part = "(" + part + ")"
		}
		parts = append(parts, part)
	}
	switch n.Kind {
	case not:
		return "not " + parts[0]
	case Or:
		return strings.Join(parts, " or ")
	}
	return strings.Join(parts, " and ")
}
