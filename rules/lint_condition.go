package rules

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"switchyard/rules/internal/words"
)

// parts reports parts of a condition that say the same for every job.
func (l *linter) parts(c *condition, what, rule string) {
	doubted := len(c.doubts) > 0
	c.root.each(func(n *node) {
		switch {
		case n.kind == constant:
			l.add(fmt.Sprintf("always-%v", n.value), c.at, rule, "the part %s of %s is %v for every job; mend it, or take it out", words.OneLine(n.source), what, n.value)
		case doubted:
		case n.kind == program && n.always:
			l.add("always-true", n.at, rule, "the part %s of %s is true for every job; mend it, or take it out", words.OneLine(n.written()), what)
		case n.kind == and && n != c.root && !l.possible(goal{n, true}):
			l.add("always-false", n.at, rule, "the part %s of %s is true for no job; mend it, or take it out", words.OneLine(n.written()), what)
		case n.kind == or && n != c.root && n.sure() && !l.possible(goal{n, false}):
			l.add("always-true", n.at, rule, "the part %s of %s is true for every job; mend it, or take it out", words.OneLine(n.written()), what)
		}
	})
}

// written writes the node as an expression.
func (n *node) written() string {
	if n.source != "" || len(n.kids) == 0 {
		return n.source
	}
	var parts []string
	for _, k := range n.kids {
		part := k.written()
		if len(k.kids) > 1 {
			part = "(" + part + ")"
		}
		parts = append(parts, part)
	}
	switch n.kind {
	case not:
		return "not " + parts[0]
	case or:
		return strings.Join(parts, " or ")
	}
	return strings.Join(parts, " and ")
}

// hopeless reports programs that are true for no value of the param that they
// ask for; true when there is one.
func (l *linter) hopeless(c *condition, rule string) (found bool) {
	if len(c.doubts) > 0 {
		return true // it is said already
	}
	c.root.each(func(n *node) {
		if n.kind == program && n.never {
			found = true
			of := "param." + n.param
			if n.param == attempt.name {
				of = n.param
			}
			l.add(impossibleValue, n.at, rule, "%s holds for no job: it does for no value of %s", words.OneLine(n.written()), of)
		}
	})
	return found
}

// absent reports where a condition asks for a param without asking whether the
// job has it: it fails for a job that does not. given is what is true of the
// jobs that reach it, and taken whether others take those of the goals. found is
// true when it reported one.
func (l *linter) absent(c *condition, what, rule string, given []goal, taken func([]goal) bool) (found bool) {
	said := map[string]bool{}
	var visit func(n *node, path []goal)
	visit = func(n *node, path []goal) {
		switch n.kind {
		case and, or:
			for _, k := range n.kids {
				visit(k, path)
				path = append(slices.Clip(path), goal{k, n.kind == and})
			}
		case not:
			visit(n.kids[0], path)
		case program:
			for _, u := range n.uses {
				p := l.vocabulary.param(u.label)
				if p == nil || said[u.label] || !l.failsWithout(n, p) || l.guarded(p, path) {
					continue
				}
				goals := append(slices.Clone(path), goal{hasParamNode(p), false})
				if !l.possible(goals...) || taken(goals) {
					continue
				}
				said[u.label] = true
				l.add(absentParam, u.at, rule, "%s fails for a job without %s: param.%s is nil then; write (param.%s ?? %s), or ask before it whether it is there: param.%s != nil and …",
					what, l.family(p), p.name, p.name, p.plain(), p.name)
			}
		}
	}
	if c.root != nil {
		visit(c.root, given)
	}
	return len(said) > 0
}

func hasParamNode(p *param) *node {
	return atom(node{kind: hasParam, name: "param." + p.name, param: p.name, table: thereTable(p), source: "param." + p.name + " != nil"})
}

// family is the label that a param is the value of, such as cpu=*.
func (l *linter) family(p *param) string {
	for _, lb := range l.vocabulary.prefixes {
		if lb.param == p {
			return "the label " + words.Quote(lb.pattern)
		}
	}
	return "the param"
}

// plain is a value to put in a param's place.
func (p *param) plain() string {
	switch {
	case p.kind != "string":
		return "0"
	}
	return `""`
}

// failsWithout reports whether a program fails for some job that lacks the param.
func (l *linter) failsWithout(n *node, p *param) bool {
	if n.table != nil {
		return n.table.none == unknown
	}
	return slices.ContainsFunc(l.without(p), func(env *Env) bool {
		_, err := l.holds(n, env)
		return err != nil && !errors.Is(err, errTooCostly)
	})
}

// guarded reports whether a part that comes before lets no job through that
// lacks the param: one that only looks at labels and params, such as
// any(labels, # startsWith "cpu=").
func (l *linter) guarded(p *param, path []goal) bool {
	return slices.ContainsFunc(path, func(g goal) bool {
		return g.node != nil && g.opaque(p) && !slices.ContainsFunc(l.without(p), func(env *Env) bool {
			held, err := l.holds(g.node, env)
			return err == nil && held == g.holds || errors.Is(err, errTooCostly)
		})
	})
}

// holds is node.holds for a job that is asked about more than once.
func (l *linter) holds(n *node, env *Env) (bool, error) {
	env.spent, env.limit = 0, min(decisionSteps, max(l.left, 1))
	held, err := n.holds(env)
	l.left -= env.spent
	return held, err
}

// opaque reports whether parts of a node can only be asked, and ask for nothing
// but labels and params, such as this one.
func (n *node) opaque(p *param) bool {
	asks, only := false, true
	n.each(func(k *node) {
		switch k.kind {
		case program:
			asks = asks || slices.ContainsFunc(k.names, func(f string) bool {
				return f == labelsName || strings.HasPrefix(f, "label ") || f == "param."+p.name
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

// without are some jobs that lack a param: plain ones, and ones with every other
// label and param of the vocabulary.
func (l *linter) without(p *param) (envs []*Env) {
	if l.lacking[p] != nil {
		return l.lacking[p]
	}
	few, many := []string{"self-hosted"}, []string{"self-hosted"}
	least, most := map[string]any{}, map[string]any{}
	for _, lb := range l.vocabulary.all() {
		if lb.param == p || lb.pattern == "self-hosted" {
			continue
		}
		if len(many) >= MaxLabels || !l.spend(100) { // as many as a job may have
			break
		}
		for i, one := range lb.examples() {
			one = strings.ToLower(one)
			if i == 0 {
				many = append(many, one)
			}
			if _, open := l.vocabulary.find(one); lb.param != nil {
				v, _ := lb.param.read(open)
				most[lb.param.name] = v
				if i == 0 {
					least[lb.param.name] = v
				}
			}
		}
	}
	for _, m := range slices.Sorted(maps.Keys(l.mentions)) {
		if len(many) >= MaxLabels {
			break
		}
		if lb, _ := l.vocabulary.find(m); (lb == nil || lb.param != p) && !slices.Contains(many, m) {
			many = append(many, m)
		}
	}
	for i := range 3 * 8 {
		labels, params := few, map[string]any(nil)
		switch i / 8 {
		case 1:
			labels, params = many, least
		case 2:
			labels, params = many, most
		}
		env := newEnv(labels, Facts{
			Repo: Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: i&1 == 0, Visibility: []string{"private", "public"}[i&1], Fork: i&2 != 0},
			Job:  Job{Name: "build", Workflow: "CI", Branch: "main", Attempt: 1 + i>>2&1, Sender: "octocat"},
			Run:  &Run{Event: "push", Actor: "octocat", Fork: i&2 != 0},
		})
		env.Param = params
		envs = append(envs, env)
	}
	if l.lacking == nil {
		l.lacking = map[*param][]*Env{}
	}
	l.lacking[p] = envs
	return envs
}
