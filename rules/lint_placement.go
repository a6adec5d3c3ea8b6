package rules

import (
	"cmp"
	"reflect"
	"slices"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A placementCheck checks what rules ask Nomad for, and their jobspecs.
type placementCheck struct {
	linter
	jobspecs []Jobspec
}

// check checks what a rule asks for.
func (l *placementCheck) check(i int) {
	ru := &l.rules[i]
	if ru.deny != "" || ru.dispatch != "" {
		return
	}
	from := "rule " + ru.name
	all := append(l.defaults.stated("defaults"), ru.layer.stated(from)...)
	l.constraints(ru, nil, all, ru.jobspec, ru.jobspecAt)
	l.limits(ru)
	for n := range ru.fallback {
		fb := &ru.fallback[n]
		own := ru.layer.without(&fb.layer)
		all := append(append(l.defaults.stated("defaults"), own.stated(from)...), fb.layer.stated(fb.from)...)
		if fb.layer.constraints != nil || fb.jobspec != "" {
			l.constraints(ru, fb, all, cmp.Or(fb.jobspec, ru.jobspec), cmp.Or(fb.jobspecAt, fb.at))
		}
		if l.shown[i] != nil && l.idle(ru, n, *l.shown[i]) {
			l.add("fallback-no-change", fb.at, ru.name, "fallback %d of rule %s asks for the same placement as before; change something in it, such as node_pool", n+1, ru.name)
		}
	}
	l.groups(ru, l.shown[i])
}

// constraints checks the constraints of a rule, or of its fallback (nil: none), against each other
// and against the jobspec's.
func (l *placementCheck) constraints(ru *rule, fb *fallback, all []stated, jobspec string, at cond.Spot) {
	if a, b, found := l.clash(all); found {
		what := "every job of the rule is unroutable"
		switch {
		case fb != nil && b.From != fb.from:
			return // the rule's own fault
		case fb != nil:
			what = "the fallback is never used"
		}
		l.add("contradictory-constraints", b.at, ru.name, "no node can satisfy both %s (%s) and %s (%s): %s; remove one of them", a, a.From, b, b.From, what)
		return
	}
	i := slices.IndexFunc(l.jobspecs, func(j Jobspec) bool { return j.Name == jobspec })
	if i < 0 {
		return
	}
	spec := l.jobspecs[i]
	var needs []stated
	if spec.Driver != "" {
		needs = append(needs, stated{Constraint: Constraint{"${attr.driver." + spec.Driver + "}", "=", "1", "the driver " + spec.Driver}})
	}
	for _, c := range spec.Constraints {
		c.From = "the jobspec itself"
		needs = append(needs, stated{Constraint: c})
	}
	for _, c := range all {
		if !l.spend(10 * (1 + len(needs))) {
			return
		}
		for _, need := range needs {
			if _, _, found := contradiction([]Constraint{need.Constraint, c.Constraint}); found {
				where := at
				if c.From != "defaults" {
					where = c.at
				}
				l.add("driver-ruled-out", where, ru.name, "jobspec %s can run on no node: it needs %s (%s), but %s asks for %s; choose another jobspec or remove the constraint", jobspec, need, need.From, c.From, c)
				return
			}
		}
	}
}

// limits reports a max below what a job of the rule gets without asking.
func (l *placementCheck) limits(ru *rule) {
	for _, f := range sizes {
		size, limit, from := ru.layer.get(f), ru.most(&l.defaults, f), "rule "+ru.name
		if size == nil {
			size, from = l.defaults.get(f), "defaults"
			if f == cpu && ru.layer.get(cores) != nil || f == cores && ru.layer.get(cpu) != nil {
				continue // it takes the other's place
			}
		}
		if !size.isLiteral() || limit.most == 0 || size.literal.(int) <= limit.most {
			continue
		}
		rule, who := ru.name, "rule "+ru.name+": "
		if from == "defaults" && limit.from == "defaults" {
			rule, who = "", ""
		}
		l.add("max-below-default", limit.at, rule, "%smax %s %s (%s) is below what a job gets without asking, %s (%s): no such job can be placed; raise max or lower the size", who, f.key, f.show(limit.most), limit.from, f.show(size.literal), from)
	}
}

// idle reports whether fallback n of a rule changes nothing for any job: what it sets and what it
// replaces are literals, and the same. f is a job of the rule.
func (l *placementCheck) idle(ru *rule, n int, f Facts) bool {
	is := &ru.fallback[n]
	before := &fallback{}
	if n > 0 {
		before = &ru.fallback[n-1]
	}
	var layers []reflect.Value
	all := []*layer{&is.layer, &before.layer, &ru.layer, &l.defaults}
	for _, one := range all {
		layers = append(layers, reflect.ValueOf(one).Elem())
	}
	for _, f := range singles {
		if (is.layer.get(f) != nil || before.layer.get(f) != nil) && slices.ContainsFunc(all, func(l *layer) bool { s := l.get(f); return s != nil && s.template != nil }) {
			return false
		}
	}
	for i := range layers[0].NumField() {
		if layers[0].Field(i).Type() == reflect.TypeFor[[]setting]() {
			continue
		}
		sets := !layers[0].Field(i).IsZero() || !layers[1].Field(i).IsZero()
		if sets && slices.ContainsFunc(layers, func(one reflect.Value) bool { return evaluated(one.Field(i)) }) {
			return false
		}
	}
	env, _ := l.meant(f)
	a, errA := ru.place(&l.defaults, before, nil, env)
	b, errB := ru.place(&l.defaults, is, nil, env)
	l.left -= 500 + env.Spent
	return errA == nil && errB == nil && sameRequest(a, b)
}

// evaluated reports whether a part of a layer comes from an expression.
func evaluated(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return v.Type() == reflect.TypeFor[*cond.Template]() && !v.IsNil()
	case reflect.Struct:
		for i := range v.NumField() {
			if evaluated(v.Field(i)) {
				return true
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if evaluated(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for e := v.MapRange(); e.Next(); {
			if evaluated(e.Value()) {
				return true
			}
		}
	case reflect.Interface:
		return evaluated(v.Elem())
	}
	return false
}

// sameRequest reports whether two placements ask Nomad for the same, wherever it came from.
func sameRequest(a, b Placement) bool {
	plain := func(p Placement) Placement {
		p.From = nil
		p.Constraints, p.Affinities, p.Devices = slices.Clone(p.Constraints), slices.Clone(p.Affinities), slices.Clone(p.Devices)
		for i := range p.Constraints {
			p.Constraints[i].From = ""
		}
		for i := range p.Affinities {
			p.Affinities[i].From = ""
		}
		for i := range p.Devices {
			p.Devices[i].From = ""
		}
		return p
	}
	return reflect.DeepEqual(plain(a), plain(b))
}

// groups reports a rule whose runners cannot be registered in the runner group that it names, or
// that takes jobs without labels and names none.
// shown is a job that it takes, nil when none is known.
func (l *placementCheck) groups(ru *rule, shown *Facts) {
	if shown != nil {
		if p, err := l.merged(ru, *shown); err != nil && p.Runner.Scope == "repository" && p.Runner.Group != DefaultGroup {
			l.add("repository-group", ru.at, ru.name, "no runner of rule %s can be registered: %v", ru.name, err)
			return
		}
	}
	plain := Facts{Repo: Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "private"}, Run: &Run{Event: "push", Actor: "octocat"}}
	for _, f := range []*Facts{&plain, shown} {
		if f == nil {
			continue
		}
		unlabelled := *f
		unlabelled.Labels = nil
		if d := l.decide(unlabelled); !d.by(ru.name) {
			continue
		}
		if p, _ := l.merged(ru, unlabelled); p.Runner.Scope == "repository" || p.From["runner.group"] == builtIn {
			l.add("no-group", cmp.Or(ru.when.At, ru.at), ru.name, "rule %s takes jobs without labels, which ask for a runner group alone (runs-on: { group: … }), and names no group: add runner: { scope: organization, group: NAME }, or ask for a label", ru.name)
			return
		}
	}
}

// merged returns the placement of a job that the rule takes, and what is wrong with it.
func (l *placementCheck) merged(ru *rule, f Facts) (Placement, error) {
	env, meanings := l.meant(f)
	return ru.place(&l.defaults, nil, meanings, env)
}

// claims reports rules whose jobspec does not fetch the claim although they do not say
// registration: own, and the other way round.
func (l *placementCheck) claims() {
	for i := range l.rules {
		ru := &l.rules[i]
		check := func(name string, at cond.Spot, own *layer) {
			k := slices.IndexFunc(l.jobspecs, func(j Jobspec) bool { return j.Name == name })
			if k < 0 {
				return
			}
			said := own.get(runnerRegistration)
			ours := said != nil
			if !ours {
				said = l.defaults.get(runnerRegistration)
			}
			means := said.isLiteral() && said.literal == "own"
			switch {
			case l.jobspecs[k].NoClaim && !ours && !means:
				l.add("no-claim", at, ru.name,
					"the jobspec %s does not fetch the claim, so its runner brings its own registration: it registers before anybody knows whether its job still waits, it may have any name, so only its Nomad job is followed, and it keeps running when its job is cancelled; fetch the claim as the built-in jobspecs do, or write runner: { registration: own } if this is intended",
					words.Quote(name))
			case !l.jobspecs[k].NoClaim && means:
				l.add("claim-unused", at, ru.name,
					"registration is own, and the jobspec %s fetches the claim: leave registration out, or name a jobspec whose runner brings its own registration", words.Quote(name))
			}
			if len(ru.warm) > 0 && at == ru.jobspecAt && l.jobspecs[k].NoWait {
				l.add("warm-unused", ru.warm[0].at, ru.name,
					"warm has no effect: the jobspec %s does not wait at the claim for a job; have it wait as docker-linux does, or leave warm out", words.Quote(name))
			}
			verify := cmp.Or(own.get(runnerVerify), l.defaults.get(runnerVerify))
			if verify.isLiteral() && verify.literal == "true" && l.jobspecs[k].NoVerify {
				l.add("no-verify", at, ru.name,
					"the rule says verify, and the jobspec %s does not ask whether its runner may serve a job: add the hook as the built-in jobspecs have it, or leave verify out", words.Quote(name))
			}
			if ru.rerun != nil && l.jobspecs[k].NoClaim {
				l.add("rerun-unused", ru.rerunAt, ru.name,
					"rerun has no effect on jobs that the jobspec %s runs: its runner brings its own registration, and may have any name on GitHub; leave rerun out, or fetch the claim", words.Quote(name))
			}
		}
		check(ru.jobspec, ru.jobspecAt, &ru.layer)
		for j := range ru.fallback {
			f := &ru.fallback[j]
			if f.jobspec != "" {
				own := ru.layer.without(&f.layer)
				if s := f.layer.get(runnerRegistration); s != nil {
					own.settings = []setting{*s}
				}
				check(f.jobspec, f.jobspecAt, &own)
			}
		}
	}
}
