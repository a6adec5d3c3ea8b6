package rules

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
	"switchyard/rules/internal/yamlfile"
)

// A Jobspec is what Lint knows of a jobspec.
type Jobspec struct {
	Name        string
	Driver      string       // of the runner task; "" when not known
	Constraints []Constraint // of the job, its group and its task
	NoClaim     bool         // nothing in it fetches the claim: its runner brings its own registration
}

// A lintCode names one kind of finding. The README's table is made of them.
type lintCode struct {
	code    string
	warning bool
	what    string
	remedy  string
}

// lintCodes are all kinds of findings.
var lintCodes = []lintCode{
	{"never-wins", true, "earlier rules take every job that this rule could take", "move it up, narrow the earlier rules, or remove it"},
	{"always-false", true, "a condition, or a part of one, that is true for no job; a fault in a rule that denies", "fix or remove it"},
	{"always-true", true, "a condition, or a part of one, that is true for every job", "fix it, or remove it if that is intended"},
	{cond.ImpossibleValue, false, "a comparison with a value that never occurs: `repo.visibility == \"secret\"`, `param.cpu > 32` of at most 32, `repo.owner == \"acme/web\"`, `has(\"cpu=64\")`", "correct it, or remove the comparison"},
	{cond.PatternLiteral, false, "a `*` in a text that is compared literally: `has(\"run-*\")`, `repo.owner == \"acme-*\"`", "write `any(labels, # startsWith \"run-\")`, `param.cpu != nil`, `startsWith` or `matches`"},
	{cond.AbsentParam, false, "a condition that fails for every job without a certain label: `param.cpu > 4` for a job that asks for no `cpu=…`", "write `(param.cpu ?? 0) > 4`, or `param.cpu != nil and param.cpu > 4`"},
	{"bare-self-hosted", true, "a rule that takes jobs with no label but `self-hosted`, such as any job that forgot its labels", "ask for the label of a platform, too: `has(\"linux\")`"},
	{"unknown-label", true, "a condition asks for a label that the vocabulary does not have", "add it to `labels`, or correct its spelling"},
	{"ignored-label", true, "a label without a meaning that no condition asks for", "give it a meaning, ask for it in a rule, or remove it"},
	{"unusable-label", true, "a label that no rule can place a job with", "write a rule that takes it, fix the constraint or the `max` that is named, or remove it"},
	{"runner-theft", true, "GitHub may give jobs of one rule to the runners of another, which have all of their labels", "write a `compound`, for jobs that ask for a compound label alone, or give one of the rules a runner group of its own"},
	{"deny-open-runner", true, "a rule denies jobs that GitHub may give to a runner of another rule, which registers for a whole organization or enterprise", "leave `runner: { scope }` at `repository`, or name a runner group that only the right repositories may use"},
	{"unbounded-size", true, "a label asks for a size that `max` does not bound, beside one that it does: `cores` beside `cpu`, `memory_max` beside `memory`", "add it to `max`"},
	{"empty-value", true, "a pattern such as `\"*\"` that makes `cpu=`, without a value, a known label that means nothing", "name the labels that are meant, such as `\"run-*\"`"},
	{"cancel-other-runners", true, "`unroutable: { action: cancel }` with a scope that includes jobs that may be meant for other runners", "let `scope` ask for a label of your own"},
	{"public-token", true, "runners of public repositories that are given a registration token: anyone who obtains it, for example through a pull request, can add runners of their own for an hour", "refuse public repositories by a rule above, or leave out `registration: token`"},
	{"no-claim", true, "a jobspec that does not fetch the claim, in a rule that does not say `registration: own`", "fetch the claim, or write `runner: { registration: own }` in the rule; `registration: jit` if the image fetches it by itself"},
	{"claim-unused", true, "`registration: own` with a jobspec that fetches the claim", "leave `registration` out, or name another jobspec"},
	{"max-below-default", true, "a `max` below the size that a job gets without asking: the rule can place no such job", "raise `max`, or lower the size"},
	{"fallback-no-change", true, "a fallback that asks for the same as before", "change something in it, such as `node_pool`"},
	{"no-group", true, "a rule that takes jobs without labels, as `runs-on: { group: … }` makes them, and names no runner group", "add `runner: { scope: organization, group: ID }`, or ask for a label"},
	{"costly-pattern", true, "patterns that make deciding a job with many long labels take more than 50 ms, which makes it unroutable", "shorten what the pattern repeats, or ask for a label before it"},
	{"not-checked", true, "a file that takes too long to check, with what was not checked", "simplify its conditions, or check its parts one by one"},
	{"repository-group", false, "a runner group for runners of a repository, which has none", "add `scope: organization`, or leave `group` out"},
	{"contradictory-constraints", false, "two constraints that no node can satisfy together", "remove one of them"},
	{"no-such-jobspec", false, "a jobspec that does not exist", "correct the name, or give the directory of your own by `--jobspecs`"},
	{"driver-ruled-out", false, "constraints that rule out every node that the jobspec can run on", "choose another jobspec, or remove the constraint"},
}

// Warnings returns the codes of findings that are warnings.
func Warnings() (codes []string) {
	for _, c := range lintCodes {
		if c.warning {
			codes = append(codes, c.code)
		}
	}
	return codes
}

// Lint finds likely mistakes in rules that load, and jobspecs that do
// not exist. Each finding has a code; warnings are marked. It claims only what
// it can prove, and so may miss some; what is left out, as the file takes too
// much work or ctx ends, is a finding itself.
func (s *Set) Lint(ctx context.Context, jobspecs []Jobspec) Diagnostics {
	return s.lint(ctx, jobspecs, cond.LintSteps)
}

func (s *Set) lint(ctx context.Context, jobspecs []Jobspec, steps int) Diagnostics {
	l := newLinter(ctx, s, steps)
	l.jobspecs, l.shown, l.doubtful = jobspecs, make([]*Facts, len(s.rules)), map[cond.Spot]bool{}
	for _, d := range s.doubts {
		l.doubtful[d.At] = true
		l.add(d.Code, d.At, d.Rule, "%s", d.Message)
	}
	fails := l.absent(&s.scope, "scope", "", nil, func([]cond.Goal) bool { return false })
	if l.dead(&s.scope, "scope", "", fails, false) {
		return l.found.sort() // whatever else there is to say, it takes no job
	}
	l.costly()
	for i := range s.rules {
		if l.over() {
			l.leftOut(s.rules[i].at, fmt.Sprintf("the rules from %s on are not compared with those before", s.rules[i].name))
			break
		}
		l.rule(i)
	}
	for i := range s.rules {
		if l.over() {
			l.leftOut(s.rules[i].at, fmt.Sprintf("what the rules from %s on ask of Nomad", s.rules[i].name))
			break
		}
		l.placement(i)
		l.groups(i)
	}
	l.labels()
	l.theft()
	l.safety()
	l.claims()
	if l.over() {
		l.leftOut(s.rules[0].at, "what labels and runners of other rules make of a job")
	}
	var names []string
	for _, j := range jobspecs {
		names = append(names, j.Name)
	}
	l.found = append(l.found, s.CheckJobspecs(names)...).sort()
	return l.found[:min(len(l.found), yamlfile.MaxFaults)]
}

type linter struct {
	*Set
	done     <-chan struct{} // closed when nobody waits for it any more
	left     int             // steps
	jobspecs []Jobspec
	found    Diagnostics
	shown    []*Facts // a job that each rule takes, as far as one was found
	lacking  map[*cond.Param][]*cond.Env
	doubtful map[cond.Spot]bool // where there is a doubt
	names    []string           // of the labels without a *, sorted; nil: not yet
	unsaid   bool               // something was left out
}

func newLinter(ctx context.Context, s *Set, steps int) *linter {
	return &linter{Set: s, done: ctx.Done(), left: steps}
}

// over reports whether no more is to be done.
func (l *linter) over() bool {
	select {
	case <-l.done:
		l.left = 0
	default:
	}
	return l.left <= 0
}

// spend counts steps, and reports whether there were so many left.
func (l *linter) spend(steps int) bool {
	l.left -= steps
	return !l.over()
}

// decide is Set.decide, of which the steps are counted. When none are left the
// decision is Unroutable.
func (l *linter) decide(f Facts) Decision {
	if !l.spend(100 + len(f.Labels)*(10+len(l.vocabulary.prefixes)/4)) {
		return Decision{Outcome: Unroutable, Reason: cond.ErrTooCostly.Error()}
	}
	d, spent := l.decideWithin(min(cond.DecisionSteps, l.left), f, l.first)
	l.left -= spent
	return d
}

// possible reports whether a job may exist for which the goals hold. It says
// false only when it is certain.
func (l *linter) possible(goals ...cond.Goal) bool {
	w := l.world()
	defer l.count(w)
	return w.Search(cond.Present(goals), func() bool { return true }) || w.GaveUp
}

// world is one that may take as many steps as there are left.
func (l *linter) world() *cond.World {
	return &cond.World{Steps: min(cond.SearchSteps, max(l.left, 0))}
}

// count counts the steps of a world.
func (l *linter) count(w *cond.World) { l.left -= cond.SearchSteps - w.Steps }

// leftOut says once what is left out, from where on.
func (l *linter) leftOut(at cond.Spot, what string) {
	if !l.unsaid {
		l.unsaid = true
		l.add("not-checked", at, "", "checking the file takes too long: not checked are %s, and what comes after; simplify its conditions, or check its parts one by one", what)
	}
}

// costly reports patterns with which deciding a job can take too long.
func (l *linter) costly() {
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
	see(&l.scope, "")
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

// longPattern is from what size on patterns are looked at by costly. Whole files of shorter ones are in use.
const longPattern = 100

func (l *linter) add(code string, at cond.Spot, rule, format string, args ...any) {
	if len(l.found) >= yamlfile.MaxFaults {
		return
	}
	i := slices.IndexFunc(lintCodes, func(c lintCode) bool { return c.code == code })
	d := found(at, rule, fmt.Sprintf(format, args...))
	d.Code, d.Warning = code, lintCodes[i].warning
	l.found = append(l.found, d)
}

// dead reports a condition, or a part of it, that says the same for every job;
// true when no job can meet it. said is true when something is said of it
// already, denies when a rule denies by it: then it is a fault.
func (l *linter) dead(c *cond.Condition, what, rule string, said, denies bool) bool {
	if c.Root == nil || c.At == (cond.Spot{}) {
		return false
	}
	said = l.hopeless(c, rule) || said
	switch {
	case !l.possible(cond.That(c.Root, true)):
		if said {
			return true // and why
		}
		l.add("always-false", c.At, rule, "%s is true for no job: %s; fix or remove it", what, words.OneLine(c.Source))
		l.found[len(l.found)-1].Warning = !denies || c.Root.Kind == cond.Constant // that is switched off on purpose
		return true
	case c.Root.Kind == cond.Constant && c.Source == "true": // said on purpose
	case !l.possible(cond.That(c.Root, false)) && c.Root.Sure() && !said:
		l.add("always-true", c.At, rule, "%s is true for every job: %s; remove it if that is intended", what, words.OneLine(c.Source))
	default:
		l.parts(c, what, rule)
	}
	return false
}

// rule checks one rule's condition against those before it.
func (l *linter) rule(i int) {
	ru := &l.rules[i]
	for _, m := range ru.when.Labels {
		if l.doubtful[m.At] {
			continue
		}
		if p := l.compound.prefix; p != "" && strings.HasPrefix(m.Label, p) {
			l.add(cond.ImpossibleValue, m.At, ru.name, "no job has the label %s: a compound label is taken apart: ask for its parts", words.Quote(m.Label))
			continue
		}
		if found, _ := l.vocabulary.find(m.Label); found == nil && l.vocabulary.size > 0 && m.Label != "self-hosted" {
			hint := ""
			if lb := l.vocabulary.exactly(m.Label + "=*"); lb != nil {
				hint = fmt.Sprintf("; it has %s, with a value: %s=…", lb.pattern, m.Label)
			} else if near, _ := words.Meant(m.Label, l.exactNames(), 1); len(near) > 0 {
				hint = "; did you mean " + near[0] + "?"
			}
			l.add("unknown-label", m.At, ru.name, "the vocabulary has no label %s%s; add it to labels, so that its meaning is said once", words.Quote(m.Label), hint)
		}
	}
	fails := l.absent(&ru.when, "if", ru.name, []cond.Goal{cond.That(l.scope.Root, true)}, func(goals []cond.Goal) bool {
		_, ok := l.taken(i, goals...)
		return ok
	})
	if l.dead(&ru.when, "if", ru.name, fails, ru.deny != "") {
		return
	}
	goals := []cond.Goal{cond.That(l.scope.Root, true), cond.That(ru.when.Root, true)}
	if !l.possible(goals...) {
		l.add("never-wins", ru.at, ru.name, "rule %s takes no job: what it asks for is out of scope", ru.name)
		return
	}
	if by, ok := l.taken(i, goals...); ok {
		for _, one := range by { // the whole list only when no rule does it alone
			if root := l.rules[one].when.Root; root == nil || !l.possible(append(goals, cond.That(root, false))...) {
				by = []int{one}
				break
			}
		}
		var said []string
		for _, one := range by {
			said = append(said, l.rules[one].seen(ru.at.File))
		}
		what, verb := "rule ", " takes"
		if len(by) > 1 {
			what, verb = "the rules ", " together take"
		}
		l.add("never-wins", ru.at, ru.name, "rule %s takes no job: %s%s%s every job that it could; move it up or remove it", ru.name, what, strings.Join(said, ", "), verb)
		return
	}
	l.shown[i] = l.find(i)
	if ru.deny == "" {
		l.bare(i)
		l.publicToken(i)
	}
}

// exactNames are the labels without a *, sorted.
func (l *linter) exactNames() []string {
	if l.names == nil {
		l.names = slices.Sorted(maps.Keys(l.vocabulary.exact))
	}
	return l.names
}

// publicToken reports a rule that takes a job of a public repository and has
// its runner register itself.
func (l *linter) publicToken(i int) {
	ru := &l.rules[i]
	if l.shown[i] == nil {
		return
	}
	f := *l.shown[i]
	f.Repo.Private, f.Repo.Visibility = false, "public"
	if d := l.decide(f); d.Rule == ru.name && d.Outcome == Routed && d.Runner.Registration == "token" {
		l.add("public-token", ru.at, ru.name, "rule %s gives runners of public repositories a registration token, with which anyone who obtains it can add runners of their own: refuse public repositories by a rule above, or leave registration: token out", ru.name)
	}
}

// seen names the rule for people who look at a file.
func (ru *rule) seen(file string) string {
	if ru.at.File != file {
		return fmt.Sprintf("%s (%s:%d)", ru.name, ru.at.File, ru.at.Line)
	}
	return fmt.Sprintf("%s (line %d)", ru.name, ru.at.Line)
}

// bare reports a rule that takes a job with no label but self-hosted.
func (l *linter) bare(i int) {
	ru := &l.rules[i]
	only := cond.Atom(cond.Node{Kind: cond.HasOnly, Names: []string{"self-hosted"}, Source: `only("self-hosted")`})
	has := cond.Atom(cond.Node{Kind: cond.HasLabel, Name: "self-hosted"})
	if f := l.find(i, cond.That(only, true), cond.That(has, true)); f != nil {
		at := ru.at
		if ru.when.Root != nil {
			at = ru.when.At
		}
		l.add("bare-self-hosted", at, ru.name, "rule %s takes jobs that ask for nothing but self-hosted: ask for a platform's label too, such as has(\"linux\")", ru.name)
	}
}

// find looks for a job that rule i takes and for which the goals hold. Deciding
// it for real is what proves it.
func (l *linter) find(i int, more ...cond.Goal) (found *Facts) {
	goals := append([]cond.Goal{cond.That(l.scope.Root, true), cond.That(l.rules[i].when.Root, true)}, more...)
	w := l.world()
	defer l.count(w)
	tries := 0
	w.Search(cond.Present(goals), func() bool {
		tries++
		f := jobOf(w)
		for _, visibility := range []string{"private", "public"} {
			f.Repo.Visibility = cmp.Or(w.Text("repo.visibility"), visibility)
			f.Repo.Private = f.Repo.Visibility != "public"
			if w.Knows("repo.private") && f.Repo.Private != w.Flag("repo.private") {
				continue
			}
			d := l.decide(f)
			if d.Rule == l.rules[i].name && d.Outcome != Undecided && !strings.HasPrefix(d.Reason, "rule error") && l.meets(f, more) {
				found = &f
				return true
			}
		}
		return tries > 20 || l.over()
	})
	return found
}

func (l *linter) meets(f Facts, goals []cond.Goal) bool {
	labels, _ := l.expand(f.Labels)
	env := newEnv(labels, f)
	defer func() { l.left -= env.Spent }()
	return !slices.ContainsFunc(goals, func(g cond.Goal) bool {
		held, err := g.Node.Holds(env)
		return err != nil || held != g.Holds
	})
}

// A stated constraint is one that is written out, and where.
type stated struct {
	Constraint
	at cond.Spot
}

// stated are the constraints of a layer whose values are the same for every job.
func (l *layer) stated(from string) []stated {
	var list []stated
	for _, c := range l.constraints {
		if c.value.template == nil {
			list = append(list, stated{Constraint{c.attribute, c.operator, c.value.literal, from}, c.at})
		}
	}
	return list
}

// clash returns the first two that no node can satisfy together.
func (l *linter) clash(list []stated) (a, b stated, found bool) {
	for i, b := range list {
		cost := 1 + i/4
		if b.Operator == "regexp" {
			cost += 20 * (50 + cond.PatternSize(b.Value))
		}
		if !l.spend(cost) {
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

// placement checks what a rule asks for.
func (l *linter) placement(i int) {
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
			l.add("fallback-no-change", fb.at, ru.name, "fallback %d of rule %s asks for what was asked for before; change something in it, such as node_pool", n+1, ru.name)
		}
	}
}

// idle reports whether fallback n of a rule changes nothing for any job: what it
// sets, and what it takes the place of, is written out and the same. f is a job
// of the rule.
func (l *linter) idle(ru *rule, n int, f Facts) bool {
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
	labels, _ := l.expand(f.Labels)
	env := newEnv(labels, f)
	_, _, _ = l.read(env) // for the params
	a, errA := l.place(ru, before, nil, env)
	b, errB := l.place(ru, is, nil, env)
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

// sameRequest reports whether two placements ask Nomad for the same, wherever
// it came from.
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

// constraints checks constraints with each other and with a jobspec's: of a
// rule, or of its fallback (nil: none).
func (l *linter) constraints(ru *rule, fb *fallback, all []stated, jobspec string, at cond.Spot) {
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

// limits checks that what a job of the rule gets without asking is within max.
func (l *linter) limits(ru *rule) {
	for _, f := range sizes {
		size, limit, from := ru.layer.get(f), l.most(ru, f), "rule "+ru.name
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

// labels checks the vocabulary.
func (l *linter) labels() {
	// Any label may change a decision then: by an expression, or by what a job is counted under.
	counts := l.sees || slices.ContainsFunc(l.rules, func(ru rule) bool { return ru.limit != nil && ru.limit.per == "label" })
	for _, lb := range l.vocabulary.all() {
		if l.over() {
			l.leftOut(lb.at, "the labels from "+words.Quote(lb.pattern)+" on")
			return
		}
		_, open := lb.prefix()
		if a, b, found := l.clash(lb.layer.stated("label " + lb.pattern)); found {
			l.add("contradictory-constraints", b.at, "", "no node can satisfy both %s and %s of the label %s; remove one of them", a, b, words.Quote(lb.pattern))
			continue
		}
		switch {
		case counts || lb.pattern == "self-hosted" || open && lb.param == nil:
		case l.asksFor(lb) || lb.param != nil && l.asked[lb.param.Name]:
		case reflect.DeepEqual(lb.layer, layer{}):
			l.add("ignored-label", lb.at, "", "label %s changes nothing: no rule asks for it, and it has no meaning; give it one, or remove it", words.Quote(lb.pattern))
			continue
		}
		if why := l.unusable(lb); why != "" {
			l.add("unusable-label", lb.at, "", "no job can use the label %s: %s", words.Quote(lb.pattern), why)
		}
	}
}

// asksFor reports whether an expression names a label of the entry.
func (l *linter) asksFor(lb *label) bool {
	prefix, open := lb.prefix()
	if !open {
		return l.mentions[lb.pattern]
	}
	l.left -= len(l.mentions)
	for m := range l.mentions {
		if strings.HasPrefix(m, prefix) {
			return true
		}
	}
	return false
}

// unusable says why no rule can place a job with the label, "" when one may.
func (l *linter) unusable(lb *label) string {
	if c := l.compound; c.prefix != "" && strings.HasPrefix(lb.pattern, c.prefix) {
		return "it begins with the compound prefix " + words.Quote(c.prefix) + ", so it is always taken apart; rename it"
	}
	if l.asksFor(lb) && slices.ContainsFunc(l.rules, func(ru rule) bool { // refused on purpose
		return ru.deny != "" && slices.ContainsFunc(ru.when.Labels, func(m cond.Mention) bool {
			found, _ := l.vocabulary.find(m.Label)
			return found == lb
		})
	}) {
		return ""
	}
	why := ""
	names, all := l.trials(lb)
	for _, name := range names {
		env := newEnv([]string{name}, Facts{})
		if found, _ := l.vocabulary.find(name); found != lb {
			continue // it means something else
		}
		if _, _, err := l.read(env); err != nil {
			continue // no job may have it
		}
		has := cond.That(cond.Atom(cond.Node{Kind: cond.HasLabel, Name: name}), true)
		taken := false
		for i := range l.rules {
			ru := &l.rules[i]
			if !l.spend(50) {
				return ""
			}
			if ru.deny != "" || !l.possible(cond.That(l.scope.Root, true), cond.That(ru.when.Root, true), has) {
				continue
			}
			taken = true
			reason := l.misfit(ru, lb, env, all)
			if reason == "" {
				return ""
			}
			why = cmp.Or(why, reason)
		}
		if !taken {
			why = cmp.Or(why, "no rule takes a job that has it; write a rule for it, or remove it")
		}
	}
	return why
}

// trials are labels of the entry by which to tell whether any can be used: all
// of them if they are few; or else those that conditions ask for, and from the
// least value on up to one that none asks for.
func (l *linter) trials(lb *label) (names []string, all bool) {
	const few = 64
	p := lb.param
	if p == nil || p.Kind == "string" {
		return lb.samples(), true
	}
	prefix, _ := lb.prefix()
	for m := range l.mentions {
		if strings.HasPrefix(m, prefix) {
			names = append(names, m)
		}
	}
	slices.Sort(names)
	all = p.Max-p.Min < few
	for n := p.Min; n <= p.Max; n++ {
		name := fmt.Sprintf("%s%d", prefix, n)
		names = append(names, name)
		if l.mentions[name] { // the same value, in a way that none asks for
			names = append(names, fmt.Sprintf("%s%012d", prefix, n))
		}
		if !all {
			break
		}
	}
	return names, all
}

// misfit says why a rule cannot place a job with the label; "" when it may. all
// says that each value of a param is tried, not the least alone.
func (l *linter) misfit(ru *rule, lb *label, env *cond.Env, all bool) string {
	if ru.dispatch != "" {
		return ""
	}
	l.left -= env.Spent
	env.Spent = 0
	list := append(l.defaults.stated("defaults"), ru.layer.stated("rule "+ru.name)...)
	for _, c := range lb.layer.constraints {
		if v, ok := fixed(&c.value, lb, env); ok && (all || c.value.template == nil) {
			list = append(list, stated{Constraint{c.attribute, c.operator, v, "label"}, c.at})
		}
	}
	if a, b, found := l.clash(list); found {
		if b.From != "label" {
			return "" // the rule's own fault
		}
		return fmt.Sprintf("with rule %s no node can satisfy both %s (%s) and %s (%s); fix one of them", ru.name, a, a.From, b, b.From)
	}
	for _, f := range sizes {
		size, limit := lb.layer.get(f), l.most(ru, f)
		if size == nil || !all && size.template != nil && !size.template.IsParam(lb.param) {
			continue // a greater value may ask for less
		}
		if n, ok := fixed(&size.value, lb, env); ok && limit.most != 0 && n.(int) > limit.most {
			return fmt.Sprintf("its %s, %s, exceeds the maximum that rule %s allows, %s (%s); raise max or lower it", f.key, f.show(n), ru.name, f.show(limit.most), limit.from)
		}
	}
	return ""
}

// fixed is the value of a label's setting when it depends on nothing but the
// label's own param.
func fixed[T any](v *value[T], lb *label, env *cond.Env) (got T, ok bool) {
	if !v.set {
		return got, false
	}
	if v.template != nil {
		for _, p := range v.template.Parts {
			if slices.ContainsFunc(p.Facts, func(f string) bool { return lb.param == nil || f != "param."+lb.param.Name }) {
				return got, false
			}
		}
	}
	got, err := v.get(env)
	return got, err == nil
}

// samples are labels that the entry stands for: the least of a number, each of
// a list; none when they cannot be told.
func (lb *label) samples() []string {
	prefix, open := lb.prefix()
	switch {
	case !open:
		return []string{lb.pattern}
	case lb.param == nil:
		return nil
	case lb.param.Kind == "int":
		return []string{fmt.Sprintf("%s%d", prefix, lb.param.Min)}
	case lb.param.Kind == "size":
		return []string{fmt.Sprintf("%s%d", prefix, lb.param.Min)}
	}
	var list []string
	for _, one := range lb.param.OneOf {
		list = append(list, prefix+strings.ToLower(one))
	}
	return list
}

// theft finds rules whose runners GitHub may give the jobs of another: it gives
// a job to any runner that has all of the job's labels. With compound labels the
// file has the remedy already. A label such as run-1 is none: it keeps its job
// from the runners of others, not others from its runner.
func (l *linter) theft() {
	if l.compound.prefix != "" {
		return
	}
	hint := ""
	for _, lb := range l.vocabulary.prefixes {
		if lb.param == nil && lb.pattern != "*" {
			hint = "; a label like " + lb.pattern + " helps only where every job has one"
		}
	}
	type witness struct {
		rule int
		*Facts
		Decision
	}
	var placing []witness
	byLabel := map[string][]int{} // a label of each witness, to find subsets by
	for i, f := range l.shown {
		if f == nil || l.rules[i].deny != "" {
			continue
		}
		d := l.decide(*f)
		if d.Outcome != Routed {
			continue
		}
		least := ""
		for _, name := range d.Labels {
			if name != "self-hosted" || len(d.Labels) == 1 {
				least = name
			}
		}
		byLabel[least] = append(byLabel[least], len(placing))
		placing = append(placing, witness{i, f, d})
	}
	left := maxThefts
	for _, thief := range placing { // its runner is taken by a job of another rule
		pairs := 0
	search:
		for _, name := range thief.Decision.Labels {
			for _, at := range byLabel[name] {
				other := placing[at]
				if pairs++; pairs > 100 || left == 0 {
					break search
				}
				left--
				if other.rule == thief.rule || !l.stealable(other.Facts, thief.Facts, other.Decision, thief.Decision) {
					continue
				}
				l.add("runner-theft", l.rules[thief.rule].at, l.rules[thief.rule].name,
					"a runner for %s (rule %s) has all labels of a job with %s (rule %s): GitHub may give it that job%s; write a compound, so that jobs can ask for a compound label alone, or give one of the rules a runner group of its own",
					words.QuoteAll(thief.Facts.Labels), l.rules[thief.rule].name, words.QuoteAll(other.Facts.Labels), l.rules[other.rule].name, hint)
				break search
			}
		}
	}
}

// maxThefts bounds the pairs of jobs that theft compares, some decisions each. In a
// file with thousands of rules it compares those of the first ones.
const maxThefts = 10_000

// stealable reports whether the job may get the runner that was started for
// another, and would not have been given such a runner itself.
func (l *linter) stealable(job, runner *Facts, jobDecision, runnerDecision Decision) bool {
	for _, name := range jobDecision.Labels {
		if !slices.Contains(runnerDecision.Labels, name) {
			return false
		}
	}
	other := func(a, b Decision) bool {
		a.Runner.Registration = b.Runner.Registration // the same runner in the end
		return a.Outcome == Routed && b.Outcome == Routed && a.Rule == jobDecision.Rule && b.Rule == runnerDecision.Rule &&
			a.Runner.Group == b.Runner.Group && !sameRequest(a.Placement, b.Placement)
	}
	// A runner serves its repository, its owner or its enterprise: can both jobs be there?
	for _, repo := range []Repo{job.Repo, runner.Repo} {
		one, two := *job, *runner
		one.Repo, two.Repo = repo, repo
		if other(l.decide(one), l.decide(two)) {
			return true
		}
	}
	reaches := job.Repo.Owner == runner.Repo.Owner && runnerDecision.Runner.Scope == "organization" || runnerDecision.Runner.Scope == "enterprise"
	return reaches && other(jobDecision, runnerDecision)
}
