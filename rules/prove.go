package rules

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"switchyard/rules/internal/cond"
)

// A prover answers questions about the jobs that a set of rules can get, within a number of steps.
// What it claims is certain.
type prover struct {
	*Set
	done <-chan struct{} // closed when nobody waits for it any more
	left int             // steps
}

func newProver(ctx context.Context, s *Set, steps int) *prover {
	return &prover{Set: s, done: ctx.Done(), left: steps}
}

// over reports whether no steps are left, or nobody waits any more.
func (p *prover) over() bool {
	select {
	case <-p.done:
		p.left = 0
	default:
	}
	return p.left <= 0
}

// spend takes steps, and reports whether some are left.
func (p *prover) spend(steps int) bool {
	p.left -= steps
	return !p.over()
}

// decide is Set.decide that spends the steps left. When there are none the decision is Unroutable.
func (p *prover) decide(f Facts) Decision {
	if !p.spend(100 + len(f.Labels)*(10+len(p.vocabulary.prefixes)/4)) {
		return Decision{Outcome: Unroutable, Reason: cond.ErrTooCostly.Error()}
	}
	d, spent := p.decideWithin(min(cond.DecisionSteps, p.left), f, p.first)
	p.left -= spent
	return d
}

// world returns a world with as many steps as are left for one question.
func (p *prover) world() *cond.World {
	return &cond.World{Steps: min(cond.SearchSteps, max(p.left, 0))}
}

// count takes the steps that a world used.
func (p *prover) count(w *cond.World) { p.left -= cond.SearchSteps - w.Steps }

// possible reports whether a job may exist for which the goals hold. It is false only when that is
// certain.
func (p *prover) possible(goals ...cond.Goal) bool {
	w := p.world()
	defer p.count(w)
	return w.Possible(goals)
}

// taken returns the earlier rules that take every job that the goals allow; ok
// is false when they leave one, or when that is not certain.
func (p *prover) taken(before int, goals ...cond.Goal) (by []int, ok bool) {
	w := p.world()
	defer p.count(w)
	return p.index.Taken(w, before, goals)
}

// find returns a job that rule i takes and for which the goals hold, nil when it finds none.
// Deciding the job proves it.
func (p *prover) find(i int, more ...cond.Goal) (found *Facts) {
	goals := append([]cond.Goal{cond.That(p.scope.Root, true), cond.That(p.rules[i].when.Root, true)}, more...)
	w := p.world()
	defer p.count(w)
	tries := 0
	w.Search(goals, func() bool {
		tries++
		f := jobOf(w)
		for _, visibility := range []string{"private", "public"} {
			f.Repo.Visibility = cmp.Or(w.Text("repo.visibility"), visibility)
			f.Repo.Private = f.Repo.Visibility != "public"
			if w.Knows("repo.private") && f.Repo.Private != w.Flag("repo.private") {
				continue
			}
			if d := p.decide(f); d.by(p.rules[i].name) && p.meets(f, more) {
				found = &f
				return true
			}
		}
		return tries > 20 || p.over()
	})
	return found
}

// placed decides a job that rule i takes; ok is false when it places none, or f is nil.
func (p *prover) placed(i int, f *Facts) (d Decision, ok bool) {
	if f == nil || p.rules[i].deny != "" {
		return d, false
	}
	d = p.decide(*f)
	return d, d.Outcome == Routed
}

// jobOf returns the job of a world, with plain values where the world leaves them open.
func jobOf(w *cond.World) Facts {
	owner, name := cmp.Or(w.Text("repo.owner"), "acme"), cmp.Or(w.Text("repo.name"), "web")
	if full := w.Text("repo.full_name"); full != "" {
		owner, name, _ = strings.Cut(full, "/")
	}
	return Facts{
		Labels: w.Labels(),
		Repo:   Repo{Host: w.Text("repo.host"), Owner: owner, Name: name, FullName: owner + "/" + name, Fork: w.Flag("repo.fork")},
		Job: Job{
			Name: cmp.Or(w.Text("job.name"), "build"), Workflow: cmp.Or(w.Text("job.workflow"), "CI"),
			Branch: cmp.Or(w.Text("job.branch"), "main"), Sender: cmp.Or(w.Text("job.sender"), "octocat"), Attempt: 1,
		},
		Run: &Run{Event: cmp.Or(w.Text("run.event"), "push"), Actor: cmp.Or(w.Text("run.actor"), "octocat"), Fork: w.Flag("run.fork")},
	}
}

// meets reports whether the goals hold for a job.
func (p *prover) meets(f Facts, goals []cond.Goal) bool {
	labels, _ := p.expand(f.Labels)
	env := newEnv(labels, f)
	defer func() { p.left -= env.Spent }()
	return !slices.ContainsFunc(goals, func(g cond.Goal) bool {
		held, err := g.Node.Holds(env)
		return err != nil || held != g.Holds
	})
}

// holds evaluates a node for a job that is asked about more than once.
func (p *prover) holds(n *cond.Node, env *cond.Env) (bool, error) {
	env.Spent, env.Limit = 0, min(cond.DecisionSteps, max(p.left, 1))
	held, err := n.Holds(env)
	p.left -= env.Spent
	return held, err
}

// A stated constraint is a literal one, and where it stands.
type stated struct {
	Constraint
	at cond.Spot
}

// stated returns the constraints of a layer whose values are the same for every job.
func (l *layer) stated(from string) []stated {
	var list []stated
	for _, c := range l.constraints {
		if c.value.template == nil {
			list = append(list, stated{Constraint{c.attribute, c.operator, c.value.literal, from}, c.at})
		}
	}
	return list
}

// clash returns the first two constraints that no node can satisfy together.
func (p *prover) clash(list []stated) (a, b stated, found bool) {
	for i, b := range list {
		cost := 1 + i/4
		if b.Operator == "regexp" {
			cost += 20 * (50 + cond.PatternSize(b.Value))
		}
		if !p.spend(cost) {
			break
		}
		for _, a := range list[:i] {
			if _, _, found := contradiction([]Constraint{a.Constraint, b.Constraint}); found {
				return a, b, true
			}
		}
	}
	return a, b, false
}
