package rules

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A conditionCheck checks conditions, each by itself.
type conditionCheck struct {
	linter
	lacking map[*cond.Param][]*cond.Env // what without found
}

// scope checks the scope; it returns true when no job is in it.
func (l *conditionCheck) scope() bool {
	scope := &l.Set.scope
	fails := l.absent(scope, "scope", "", nil, func([]cond.Goal) bool { return false })
	return l.dead(scope, "scope", "", fails, false)
}

// parts reports parts of a condition with the same result for every job.
func (l *conditionCheck) parts(c *cond.Condition, what, rule string) {
	doubted := len(c.Doubts) > 0
	c.Root.Each(func(n *cond.Node) {
		switch {
		case n.Kind == cond.Constant:
			l.add(fmt.Sprintf("always-%v", n.Value), c.At, rule, "the part %s of %s is %v for every job; fix or remove it", words.OneLine(n.Source), what, n.Value)
		case doubted:
		case n.Kind == cond.Program && n.Always:
			l.add("always-true", n.At, rule, "the part %s of %s is true for every job; fix or remove it", words.OneLine(n.Written()), what)
		case n.Kind == cond.And && n != c.Root && !l.possible(cond.That(n, true)):
			l.add("always-false", n.At, rule, "the part %s of %s is true for no job; fix or remove it", words.OneLine(n.Written()), what)
		case n.Kind == cond.Or && n != c.Root && n.Sure() && !l.possible(cond.That(n, false)):
			l.add("always-true", n.At, rule, "the part %s of %s is true for every job; fix or remove it", words.OneLine(n.Written()), what)
		}
	})
}

// hopeless reports programs that hold for no value of the param that they ask for; it returns true
// when there is one.
func (l *conditionCheck) hopeless(c *cond.Condition, rule string) (found bool) {
	if len(c.Doubts) > 0 {
		return true // it is said already
	}
	c.Root.Each(func(n *cond.Node) {
		if n.Kind == cond.Program && n.Never {
			found = true
			of := "param." + n.Param
			if n.Param == cond.Attempt.Name {
				of = n.Param
			}
			l.add(cond.ImpossibleValue, n.At, rule, "%s holds for no job: no value of %s makes it true", words.OneLine(n.Written()), of)
		}
	})
	return found
}

// absent reports where a condition asks for a param without asking whether the job has it, and so
// fails for a job without it. given is true of the jobs that reach it; taken reports whether other
// rules take the jobs of the goals. It returns true when it reported something.
func (l *conditionCheck) absent(c *cond.Condition, what, rule string, given []cond.Goal, taken func([]cond.Goal) bool) (found bool) {
	said := map[string]bool{}
	c.Root.EachUse(given, func(n *cond.Node, u cond.Mention, path []cond.Goal) {
		p := l.vocabulary.param(u.Label)
		if p == nil || said[u.Label] || !l.failsWithout(n, p) || l.guarded(p, path) {
			return
		}
		goals := append(slices.Clone(path), cond.That(cond.HasParam(p), false))
		if !l.possible(goals...) || cond.Tied(goals) && !l.failing(n, p, goals) || taken(goals) {
			return
		}
		said[u.Label] = true
		l.add(cond.AbsentParam, u.At, rule, "%s fails for a job without %s: param.%s is nil then; write (param.%s ?? %s), or ask before it whether it is there: param.%s != nil and …",
			what, l.vocabulary.family(p), p.Name, p.Name, plain(p), p.Name)
	})
	return len(said) > 0
}

// family names the label whose value a param is, such as cpu=*.
func (v *vocabulary) family(p *cond.Param) string {
	for _, lb := range v.prefixes {
		if lb.param == p {
			return "the label " + words.Quote(lb.pattern)
		}
	}
	return "the param"
}

// plain returns a value to put in a param's place.
func plain(p *cond.Param) string {
	if p.Kind != "string" {
		return "0"
	}
	return `""`
}

// failsWithout reports whether a program fails for some job without the param.
func (l *conditionCheck) failsWithout(n *cond.Node, p *cond.Param) bool {
	if fails, known := n.FailsWithout(); known {
		return fails
	}
	return slices.ContainsFunc(l.without(p), func(env *cond.Env) bool {
		_, err := l.holds(n, env)
		return err != nil && !errors.Is(err, cond.ErrTooCostly)
	})
}

// guarded reports whether an earlier part excludes every job without the param: one that only asks
// for labels and params, such as any(labels, # startsWith "cpu=").
func (l *conditionCheck) guarded(p *cond.Param, path []cond.Goal) bool {
	return slices.ContainsFunc(path, func(g cond.Goal) bool {
		return g.Node != nil && g.Opaque(p) && !slices.ContainsFunc(l.without(p), func(env *cond.Env) bool {
			held, err := l.holds(g.Node, env)
			return err == nil && held == g.Holds || errors.Is(err, cond.ErrTooCostly)
		})
	})
}

// failing reports whether it finds a job without the param for which the goals hold and the program
// fails.
func (l *conditionCheck) failing(n *cond.Node, p *cond.Param, goals []cond.Goal) bool {
	fails := func(env *cond.Env) bool {
		for _, g := range goals {
			if held, err := l.holds(g.Node, env); err != nil || held != g.Holds {
				return false
			}
		}
		_, err := l.holds(n, env)
		return err != nil && !errors.Is(err, cond.ErrTooCostly)
	}
	if slices.ContainsFunc(l.without(p), fails) {
		return true
	}
	w, found, tries := l.world(), false, 0
	defer l.count(w)
	w.Search(goals, func() bool {
		f := jobOf(w)
		env := newEnv(f.Labels, f)
		_, _, err := l.read(env)
		found = err == nil && fails(env)
		tries++
		return found || tries > 20 || l.over()
	})
	return found
}

// without returns some jobs without a param: plain ones, and ones with every other label and param
// of the vocabulary.
func (l *conditionCheck) without(p *cond.Param) (envs []*cond.Env) {
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
				v, _ := lb.param.Read(open)
				most[lb.param.Name] = v
				if i == 0 {
					least[lb.param.Name] = v
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
		l.lacking = map[*cond.Param][]*cond.Env{}
	}
	l.lacking[p] = envs
	return envs
}

// costly reports patterns that can make deciding a job take too long.
func (l *conditionCheck) costly() {
	job, all := cond.Largest(), 0
	type part struct {
		*cond.Node
		rule  string
		steps int
	}
	var large []part
	see := func(c *cond.Condition, rule string) {
		c.Root.Each(func(n *cond.Node) {
			if n.Code == nil || n.Code.Size() < longPattern {
				return
			}
			steps := n.Code.Steps(job)
			large, all = append(large, part{n, rule, steps}), all+steps
		})
	}
	see(&l.Set.scope, "")
	for i := range l.rules {
		see(&l.rules[i].when, l.rules[i].name)
	}
	if all <= cond.DecisionSteps {
		return
	}
	for _, p := range large {
		what := "with the other long patterns "
		if p.steps > cond.DecisionSteps {
			what = ""
		}
		l.add("costly-pattern", p.At, p.rule, "a job with %d labels of %d characters would take %s%d times as long to decide as it may, and get no runner; shorten what the pattern repeats, or let a condition before it ask for a label",
			MaxLabels, MaxLabelLength, what, max(p.steps, all*min(1, len(what)))/cond.DecisionSteps+1)
	}
}

// longPattern is the size from which costly counts a pattern. Whole files of shorter ones are in
// use.
const longPattern = 100

// dead reports a condition, or a part of it, with the same result for every job; it returns true
// when no job can meet it. said is true when another finding says so already; denies when a rule
// denies by it, which makes it a fault.
func (l *conditionCheck) dead(c *cond.Condition, what, rule string, said, denies bool) bool {
	if c.Root == nil || c.At == (cond.Spot{}) {
		return false
	}
	said = l.hopeless(c, rule) || said
	switch {
	case !l.possible(cond.That(c.Root, true)):
		if said {
			return true // and why
		}
		d := l.add("always-false", c.At, rule, "%s is true for no job: %s; fix or remove it", what, words.OneLine(c.Source))
		d.Warning = !denies || c.Root.Kind == cond.Constant // that is switched off on purpose
		return true
	case c.Root.Kind == cond.Constant && c.Source == "true": // said on purpose
	case !l.possible(cond.That(c.Root, false)) && c.Root.Sure() && !said:
		l.add("always-true", c.At, rule, "%s is true for every job: %s; remove it if that is intended", what, words.OneLine(c.Source))
	default:
		l.parts(c, what, rule)
	}
	return false
}
