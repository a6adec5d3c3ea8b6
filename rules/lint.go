package rules

import (
	"context"
	"fmt"
	"slices"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/yamlfile"
)

// A Jobspec is what Lint knows of a jobspec.
type Jobspec struct {
	Name        string
	Driver      string       // of the runner task; "" when not known
	Constraints []Constraint // of the job, its group and its task
	NoClaim     bool         // nothing in it fetches the claim: its runner brings its own registration
	NoWait      bool         // its runner does not wait at the claim for a job
	NoVerify    bool         // nothing in it asks whether its runner may serve a job
}

// A lintCode is one kind of finding; the README's table lists them.
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
	{"no-verify", true, "`verify: true` with a jobspec that has no hook which asks", "add the hook as the built-in jobspecs have it, or leave `verify` out"},
	{"claim-unused", true, "`registration: own` with a jobspec that fetches the claim", "leave `registration` out, or name another jobspec"},
	{"rerun-unused", true, "`rerun` with a jobspec whose runner brings its own registration, so that nobody knows which job it had", "leave `rerun` out, or fetch the claim"},
	{"urgency-unused", true, "`urgency` in a rule whose jobs do not wait by urgency", "add `limit: { running: …, order: priority }`, or leave `urgency` out"},
	{"max-below-default", true, "a `max` below the size that a job gets without asking: the rule can place no such job", "raise `max`, or lower the size"},
	{"fallback-no-change", true, "a fallback that asks for the same as before", "change something in it, such as `node_pool`"},
	{"overflow-to-itself", true, "an `overflow` whose `to` are labels of a job that the same rule takes", "write labels of other runners, such as `'\"ubuntu-latest\"'`"},
	{"warm-unused", true, "`warm` for jobs that the rule does not take, with a jobspec that does not wait at the claim, or with another registration than `jit`: no job gets such a runner", "correct its `labels`, name another jobspec, or leave `warm` out"},
	{"no-group", true, "a rule that takes jobs without labels, as `runs-on: { group: … }` makes them, and names no runner group", "add `runner: { scope: organization, group: NAME }`, or ask for a label"},
	{"costly-pattern", true, "patterns that make deciding a job with many long labels take more than 50 ms, which makes it unroutable", "shorten what the pattern repeats, or ask for a label before it"},
	{"not-checked", true, "a file that takes too long to check, with what was not checked", "simplify its conditions, or check its parts one by one"},
	{"repository-group", false, "a runner group for runners of a repository, which has none", "add `scope: organization`, or leave `group` out"},
	{"contradictory-constraints", false, "two constraints that no node can satisfy together", "remove one of them"},
	{"no-such-jobspec", false, "a jobspec that does not exist", "correct the name, or give the directory of your own by `--jobspecs`"},
	{"driver-ruled-out", false, "constraints that rule out every node that the jobspec can run on", "choose another jobspec, or remove the constraint"},
}

// Warnings returns the codes of the findings that are warnings.
func Warnings() (codes []string) {
	for _, c := range lintCodes {
		if c.warning {
			codes = append(codes, c.code)
		}
	}
	return codes
}

// Lint reports likely mistakes in rules that load, and jobspecs that do not exist. Each finding has
// a code; warnings are marked. It reports only what it can prove, and so may miss some. When the
// file takes too much work, or ctx ends, a finding says what was left out.
func (s *Set) Lint(ctx context.Context, jobspecs []Jobspec) Diagnostics {
	return lint(ctx, s, jobspecs, cond.LintSteps)
}

func lint(ctx context.Context, s *Set, jobspecs []Jobspec, steps int) Diagnostics {
	l := linter{newProver(ctx, s, steps), &report{}, make([]*Facts, len(s.rules))}
	doubtful := map[cond.Spot]bool{}
	for _, d := range s.doubts {
		doubtful[d.At] = true
		l.add(d.Code, d.At, d.Rule, "%s", d.Message)
	}
	conditions := &conditionCheck{linter: l}
	if conditions.scope() {
		return l.list.sort() // whatever else there is to say, it takes no job
	}
	conditions.costly()
	rules := ruleCheck{conditionCheck: conditions, doubtful: doubtful}
	placements := placementCheck{l, jobspecs}
	each := func(leftOut string, check func(i int)) {
		for i := range s.rules {
			if l.over() {
				l.leftOut(s.rules[i].at, fmt.Sprintf(leftOut, s.rules[i].name))
				return
			}
			check(i)
		}
	}
	each("the rules from %s on against those before them", rules.check)
	each("what the rules from %s on ask of Nomad", placements.check)
	labels, runners := labelCheck{l}, runnerCheck{l}
	labels.check()
	runners.theft()
	runners.cancelled()
	runners.denied()
	labels.bounds()
	labels.empty()
	placements.claims()
	if l.over() {
		l.leftOut(s.rules[0].at, "how labels and the runners of other rules affect jobs")
	}
	var names []string
	for _, j := range jobspecs {
		names = append(names, j.Name)
	}
	found := append(l.list, s.CheckJobspecs(names)...).sort()
	return found[:min(len(found), yamlfile.MaxFaults)]
}

// A linter has what each check of Lint needs: the questions that it can ask of
// the rules, the list that its findings go to, and the jobs that were found.
type linter struct {
	*prover
	*report
	shown []*Facts // by rule, a job that it takes; nil where none was found
}

// A report collects what the checks find.
type report struct {
	list   Diagnostics
	unsaid bool // something was left out
}

// add adds a finding, and returns it for what the caller has to add.
func (r *report) add(code string, at cond.Spot, rule, format string, args ...any) *Diagnostic {
	if len(r.list) >= yamlfile.MaxFaults {
		return new(Diagnostic)
	}
	i := slices.IndexFunc(lintCodes, func(c lintCode) bool { return c.code == code })
	d := found(at, rule, fmt.Sprintf(format, args...))
	d.Code, d.Warning = code, lintCodes[i].warning
	r.list = append(r.list, d)
	return &r.list[len(r.list)-1]
}

// leftOut reports, once, what is left out, and from where on.
func (r *report) leftOut(at cond.Spot, what string) {
	if !r.unsaid {
		r.unsaid = true
		r.add("not-checked", at, "", "checking the file takes too long; not checked: %s, and what comes after; simplify its conditions, or check its parts one by one", what)
	}
}
