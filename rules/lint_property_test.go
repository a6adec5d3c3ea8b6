package rules

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"switchyard/rules/internal/cond"
)

// A universe small enough to ask Decide about every job in it. Of each fact it
// has the values that the drawn rules name, and one that they do not.
var (
	allLabels = []string{"linux", "gpu", "cpu=4", "cpu=16", "x64"}
	allRepos  = []Repo{
		{Owner: "acme", Name: "web", FullName: "acme/web"}, {Owner: "acme", Name: "api", FullName: "acme/api"},
		{Owner: "else", Name: "web", FullName: "else/web"}, {Owner: "third", Name: "web", FullName: "third/web"},
	}
	allBranches = []string{"main", "dev"}
	allRuns     = []Run{
		{Event: "push", Actor: "a"}, {Event: "pull_request", Actor: "a"}, {Event: "schedule", Actor: "a"},
		{Event: "push", Actor: "a", Fork: true}, {Event: "pull_request", Actor: "a", Fork: true}, {Event: "schedule", Actor: "a", Fork: true},
	}
)

func universe(attempts ...int) (jobs []Facts) {
	for set := range 1 << len(allLabels) {
		labels := []string{"self-hosted"}
		for i, l := range allLabels {
			if set>>i&1 == 1 {
				labels = append(labels, l)
			}
		}
		for _, repo := range allRepos {
			for _, visibility := range []string{"public", "private"} {
				repo.Visibility, repo.Private = visibility, visibility != "public"
				for _, branch := range allBranches {
					for i := range allRuns {
						for _, attempt := range attempts {
							jobs = append(jobs, Facts{Labels: labels, Repo: repo, Job: Job{Name: "build", Branch: branch, Attempt: attempt}, Run: &allRuns[i]})
						}
					}
				}
			}
		}
	}
	return jobs
}

func drawFrom(t *rapid.T, from ...string) string { return rapid.SampledFrom(from).Draw(t, "") }

// drawNested makes a condition that may be nested. For some jobs it fails.
func drawNested(t *rapid.T, depth int) string {
	if depth > 0 && rapid.IntRange(0, 2).Draw(t, "nest") > 0 {
		a, b := drawNested(t, depth-1), drawNested(t, depth-1)
		return drawFrom(t, "("+a+" and "+b+")", "("+a+" and "+b+")", "("+a+" or "+b+")", "not ("+a+")")
	}
	l, m := drawFrom(t, allLabels...), drawFrom(t, allLabels...)
	return drawFrom(t,
		`has("`+l+`")`, `has("`+l+`")`, `"`+l+`" in labels`, `"`+l+`" not in labels`, `not has("`+l+`")`, `has("`+l+`", "`+m+`")`, `hasAny("`+l+`", "`+m+`")`,
		`only("self-hosted", "`+l+`", "`+m+`")`, `exactly("self-hosted", "`+l+`")`, `exactly("self-hosted")`, `any(labels, # == "`+l+`")`, `len(labels) > 2`,
		`repo.owner == "acme"`, `repo.owner != "acme"`, `repo.owner in ["acme", "else"]`, `repo.full_name == "acme/web"`, `repo.full_name in ["acme/web", "else/web"]`, `repo.name == "web"`,
		`repo.private`, `not repo.private`, `repo.visibility == "public"`, `repo.visibility != "public"`, `job.branch == "main"`, `job.branch != "main"`,
		`run.fork`, `run.event == "push"`, `run.event in ["push", "schedule"]`, `run.event startsWith "pull"`,
		`param.cpu > 8`, `(param.cpu ?? 1) > 8`, `param.zone == "A"`, `true`, `false`,
		`param.cpu == 4`, `param.cpu != nil`, `param.cpu == nil`, `"cpu" in param`, `param.cpu in [4, 16]`, `param.cpu < 6`, `(param.cpu ?? 20) <= 16`, `(param.cpu ?? 4) % 5 == 1`, `param.zone != "a"`,
		`(param.cpu != nil ? param.cpu : 1) > 5`, `(has("cpu=16") ? param.cpu > 4 : false)`, `(repo.private ? has("cpu=4") : run.fork)`, `(param.cpu == nil ? has("gpu") : param.cpu > 4)`, `any(labels, # startsWith "cpu=")`, `param.cpu > 16`, `(param.cpu ?? 4) < 4`, `param.cpu * 2 > 40`, `has("cpu=64")`, `param.cpu in [4, 64]`,
		`repo.owner == "Acme"`, `repo.full_name in ["ACME/web", "else/WEB"]`, `repo.owner == "acme/web"`, `repo.visibility == "secret"`, `run.event in ["Push", "pullrequest"]`, `(param.cpu ?? job.attempt) > 8`, `job.attempt == 0`, `job.attempt >= 1`,
	)
}

// drawSet makes a file of a few rules with what lint looks at.
func drawSet(t *rapid.T) string {
	var b strings.Builder
	b.WriteString("version: 1\n")
	b.WriteString(drawFrom(t, "", "", "", "scope: has(\"self-hosted\") and (not has(\"gpu\") or repo.private)\n", "scope: has(\"self-hosted\") and repo.owner == \"acme\"\n", "scope: has(\"self-hosted\") and param.cpu > 8\n"))
	b.WriteString("labels:\n  self-hosted: {}\n")
	b.WriteString("  linux: " + drawFrom(t, "{}", "{}", "{ constraints: ['${attr.kernel.name} = linux'] }", "{ node_pool: big }") + "\n")
	b.WriteString("  gpu: " + drawFrom(t, "{}", "{ devices: [nvidia/gpu] }", "{ resources: { memory: 4000 } }", "{ resources: { cores: 2 } }", "{ node_pool: big }") + "\n")
	b.WriteString("  x64: " + drawFrom(t, "{}", "{ constraints: ['${attr.cpu.arch} = amd64'] }", "{ resources: { cpu: 3000 } }") + "\n")
	b.WriteString("  \"cpu=*\": { param: { name: cpu, type: int, min: 4, max: 16 }" + drawFrom(t, "", ", resources: { cores: '${{ param.cpu }}' }", ", resources: { cpu: '${{ 17000 - param.cpu * 1000 }}' }", ", constraints: ['${meta.cpu} = ${{ param.cpu }}']") + " }\n")
	b.WriteString("  \"zone=*\": { param: { name: zone, type: string, one_of: [A] }" + drawFrom(t, "", ", node_pool: 'zone-${{ param.zone }}'") + " }\n")
	b.WriteString(drawFrom(t, "", "", "  \"run-*\": {}\n"))
	b.WriteString(drawFrom(t, "", "", "defaults: { constraints: ['${attr.cpu.arch} = arm64'] }\n", "defaults: { resources: { cpu: 2000 }, max: { cpu: 1000 } }\n", "defaults: { resources: { memory: 1000 }, max: { memory: 2000, cores: 8 } }\n"))
	b.WriteString("rules:\n")
	for i := range rapid.IntRange(1, 6).Draw(t, "rules") {
		fmt.Fprintf(&b, "  - { name: r%d%s", i, drawFrom(t, "", ", if: '"+drawNested(t, 2)+"'", ", if: '"+drawNested(t, 2)+"'", ", if: '"+drawNested(t, 3)+"'"))
		switch rapid.IntRange(0, 5).Draw(t, "how") {
		case 0:
			b.WriteString(", deny: no }\n")
			continue
		case 1:
			b.WriteString(", dispatch: runner }\n")
			continue
		}
		b.WriteString(", jobspec: " + drawFrom(t, "j", "k"))
		b.WriteString(drawFrom(t, "", "", ", node_pool: big", ", node_pool: '${{ repo.name }}'", ", task: { env: { N: '${{ len(labels) }}' } }"))
		b.WriteString(drawFrom(t, "", "", ", constraints: ['${attr.kernel.name} = linux']", ", constraints: ['${attr.cpu.arch} = amd64', '${attr.cpu.arch} = arm64']", ", constraints: ['${meta.cpu} = 16']", ", constraints: ['${attr.cpu.arch} = ${{ repo.owner }}']"))
		b.WriteString(drawFrom(t, "", "", ", resources: { cpu: 2000 }", ", resources: { cores: 2 }", ", resources: { memory: 3000 }"))
		b.WriteString(drawFrom(t, "", "", ", max: { cpu: 1500 }", ", max: { memory: 2000 }", ", max: { cores: 1 }"))
		b.WriteString(drawFrom(t, "", "", ", runner: { scope: organization }", ", limit: { running: 2, per: label }"))
		var fallback []string
		for n := range rapid.IntRange(0, 2).Draw(t, "fallbacks") {
			fallback = append(fallback, fmt.Sprintf("{ after: %dm%s%s }", n+1,
				drawFrom(t, "", ", jobspec: k"),
				drawFrom(t, "", ", node_pool: big", ", node_pool: web", ", constraints: ['${attr.kernel.name} = linux']", ", constraints: ['${attr.cpu.arch} = acme']", ", constraints: ['${attr.cpu.arch} = amd64', '${attr.cpu.arch} = arm64']", ", resources: { cpu: 2000 }", ", resources: { cores: 2 }")))
		}
		if fallback != nil {
			b.WriteString(", fallback: [" + strings.Join(fallback, ", ") + "]")
		}
		b.WriteString(" }\n")
	}
	return b.String()
}

var lintSpecs = []Jobspec{{Name: "j", Driver: "docker"}, {Name: "k", Constraints: []Constraint{{Attribute: "${attr.kernel.name}", Operator: "=", Value: "darwin"}}}}

// A lintCase is a file and what becomes of each job of the universe.
type lintCase struct {
	*Set
	jobs []Facts
	made []Decision
}

// won are the jobs that a rule takes, placed or not.
func (c *lintCase) won(rule string) (at []int) {
	for i, d := range c.made {
		if d.Rule == rule && d.Outcome != Undecided && !strings.HasPrefix(d.Reason, "rule error") {
			at = append(at, i)
		}
	}
	return at
}

func (c *lintCase) rule(name string) *rule {
	return &c.rules[slices.Index(c.Rules(), name)]
}

// holding counts the jobs for which a condition holds and for which it fails, of
// those whose labels agree with each other: no rule takes the others.
func (c *lintCase) holding(when *cond.Condition) (held, failed []int) {
	for i, f := range c.jobs {
		env := newEnv(f.Labels, f)
		if _, _, err := c.read(env); err != nil {
			continue
		}
		switch is, err := when.Holds(env); {
		case err != nil:
			failed = append(failed, i)
		case is:
			held = append(held, i)
		}
	}
	return held, failed
}

// agreeing counts the jobs whose labels agree with each other.
func (c *lintCase) agreeing() (n int) {
	for _, f := range c.jobs {
		if _, _, err := c.read(newEnv(f.Labels, f)); err == nil {
			n++
		}
	}
	return n
}

var (
	ruleNames  = regexp.MustCompile(`\br\d+\b`)
	fallbackNo = regexp.MustCompile(`fallback (\d+)`)
	quoted     = regexp.MustCompile(`^(?:label|no job can use the label) "([^"]*)"`)
)

// refuted says which job shows that a finding is false; "" when none does.
func (c *lintCase) refuted(d Diagnostic) string {
	show := func(i int) string {
		f := c.jobs[i]
		return fmt.Sprintf("%q %+v %q %+v: %s %s: %s %+v", f.Labels, f.Repo, f.Job.Branch, *f.Run, c.made[i].Outcome, c.made[i].Rule, c.made[i].Reason, c.made[i].Placement)
	}
	first := func(at []int) string {
		if len(at) == 0 {
			return ""
		}
		return show(at[0])
	}
	when := &c.scope
	if d.Rule != "" {
		when = &c.rule(d.Rule).when
	}
	switch d.Code {
	case "never-wins":
		if at := c.won(d.Rule); len(at) > 0 {
			return show(at[0])
		}
		taken := map[int]bool{}
		for _, name := range ruleNames.FindAllString(d.Message, -1)[1:] {
			held, failed := c.holding(&c.rule(name).when)
			for _, i := range append(held, failed...) {
				taken[i] = true
			}
		}
		in, _ := c.holding(&c.scope)
		held, _ := c.holding(when)
		for _, i := range held {
			if _, inScope := slices.BinarySearch(in, i); inScope && !taken[i] {
				return show(i)
			}
		}
	case "always-false", "always-true":
		held, failed := c.holding(when)
		switch {
		case strings.HasPrefix(d.Message, "the part"):
		case d.Code == "always-false":
			return first(held)
		case len(held) < c.agreeing():
			return fmt.Sprintf("%d of %d jobs, fails for %d: %s", len(held), len(c.jobs), len(failed), first(failed))
		}
	case cond.ImpossibleValue:
		said, _, inText := strings.Cut(d.Message, " holds for no job: ")
		if !inText {
			return "" // of a label, or of a text in a list
		}
		l := cond.NewLanguage(&c.vocabulary, map[string]bool{})
		code, err := l.Compile(said, true)
		if err != nil {
			return err.Error()
		}
		for i, f := range c.jobs {
			env := newEnv(f.Labels, f)
			_, _, _ = c.read(env)
			if held, _ := cond.Evaluate(code, env); held == true {
				return show(i)
			}
		}
	case cond.AbsentParam:
		if _, failed := c.holding(when); len(failed) > 0 {
			return ""
		}
		more := *c // the universe has no zone
		more.jobs = slices.Clone(c.jobs)
		for i := range more.jobs {
			more.jobs[i].Labels = append(slices.Clone(more.jobs[i].Labels), "zone=a")
		}
		if _, failed := more.holding(when); len(failed) == 0 {
			return "it fails for no job"
		}
	case "public-token":
		if !slices.ContainsFunc(c.won(d.Rule), func(i int) bool { return !c.jobs[i].Repo.Private && c.made[i].Runner.Registration == "token" }) {
			return "no such job"
		}
	case "bare-self-hosted":
		if !slices.ContainsFunc(c.won(d.Rule), func(i int) bool { return len(c.jobs[i].Labels) == 1 }) {
			return "no such job"
		}
	case "unusable-label":
		of := quoted.FindStringSubmatch(d.Message)[1]
		for i, f := range c.jobs {
			if c.made[i].Outcome == Routed && slices.ContainsFunc(f.Labels, func(name string) bool {
				l, _ := c.vocabulary.find(name)
				return l != nil && l.pattern == of
			}) {
				return show(i)
			}
		}
	case "ignored-label":
		of := quoted.FindStringSubmatch(d.Message)[1]
		for i, f := range c.jobs {
			if slices.ContainsFunc(f.Labels, func(name string) bool { l, _ := c.vocabulary.find(name); return l.pattern == of }) {
				continue
			}
			more := f
			more.Labels = append(slices.Clone(f.Labels), strings.Replace(of, "*", map[string]string{"cpu=*": "7", "zone=*": "a"}[of], 1))
			a, b := c.made[i], c.decide(more, c.first)
			if a.Outcome != b.Outcome || a.Rule != b.Rule || !reflect.DeepEqual(a.Placement, b.Placement) || !reflect.DeepEqual(a.Limit, b.Limit) || !reflect.DeepEqual(a.Fallback, b.Fallback) {
				return fmt.Sprintf("%s\nwith the label: %+v", show(i), b)
			}
		}
	case "runner-theft":
		names := ruleNames.FindAllString(d.Message, -1)
		for _, i := range c.won(names[0]) {
			a := &c.made[i]
			for _, j := range c.won(names[1]) {
				b := &c.made[j]
				if a.Outcome == Routed && b.Outcome == Routed && !slices.ContainsFunc(b.Labels, func(l string) bool { return !slices.Contains(a.Labels, l) }) &&
					(c.jobs[i].Repo == c.jobs[j].Repo || a.Runner.Scope == "organization" && c.jobs[i].Repo.Owner == c.jobs[j].Repo.Owner) &&
					!sameRequest(a.Placement, b.Placement) {
					return ""
				}
			}
		}
		return "no such pair of jobs"
	case "contradictory-constraints":
		for _, i := range c.won(d.Rule) {
			if c.made[i].Outcome != Routed {
				continue
			}
			n := fallbackNo.FindStringSubmatch(d.Message)
			if n == nil {
				return show(i)
			}
			if at, _ := strconv.Atoi(n[1]); c.made[i].Fallback[at-1].Reason == "" {
				return show(i)
			}
		}
	case "max-below-default":
		what := strings.Fields(d.Message[strings.Index(d.Message, "max "):])[1]
		for i, f := range c.jobs {
			if c.made[i].Rule == "" || len(f.Labels) > 1 && slices.ContainsFunc(f.Labels, func(name string) bool {
				l, _ := c.vocabulary.find(name)
				return l.layer.get(cores) != nil || l.layer.get(cpu) != nil || l.layer.get(memory) != nil
			}) {
				continue
			}
			ru := c.rule(c.made[i].Rule)
			if own := c.sizes(&ru.layer, what); d.Rule == "" && own || d.Rule != "" && ru.name != d.Rule {
				continue
			}
			if c.made[i].Outcome == Routed && c.made[i].Dispatch == "" {
				return show(i)
			}
		}
	case "fallback-no-change":
		n, _ := strconv.Atoi(fallbackNo.FindStringSubmatch(d.Message)[1])
		for _, i := range c.won(d.Rule) {
			if c.made[i].Outcome != Routed {
				continue
			}
			before, is := Fallback{Placement: c.made[i].Placement}, c.made[i].Fallback[n-1]
			if n > 1 {
				before = c.made[i].Fallback[n-2]
			}
			if before.Reason == "" != (is.Reason == "") || !sameRequest(before.Placement, is.Placement) {
				return show(i)
			}
		}
	case "driver-ruled-out": // of the rule's own placement, or of one fallback
		spec := lintSpecs[slices.IndexFunc(lintSpecs, func(j Jobspec) bool { return strings.Contains(d.Message, "jobspec "+j.Name+" ") })]
		needs := append(slices.Clone(spec.Constraints), Constraint{Attribute: "${attr.driver." + spec.Driver + "}", Operator: "=", Value: "1"})
		for n := range 1 + len(c.rule(d.Rule).fallback) {
			if !slices.ContainsFunc(c.won(d.Rule), func(i int) bool {
				p := c.made[i].Placement
				if n > 0 && c.made[i].Outcome == Routed {
					p = c.made[i].Fallback[n-1].Placement
				}
				_, _, out := contradiction(append(needs, p.Constraints...))
				return p.Jobspec != "" && (p.Jobspec != spec.Name || !out)
			}) {
				return ""
			}
		}
		return "each of its placements fits the jobspec for some job"
	}
	return ""
}

// sizes reports whether a rule says itself how much of a size its jobs get, or may get.
func (c *lintCase) sizes(l *layer, what string) bool {
	switch what {
	case "cpu", "cores":
		return l.get(cpu) != nil || l.get(cores) != nil || l.limit(cpu).most != 0
	}
	return l.get(memory) != nil || l.limit(memory).most != 0
}

// Lint claims only what it can prove: each claim is held against all jobs. The rules that it misses
// ask for what only a program can tell, such as len(labels) or a param: without those it missed 13
// of 1,612, and most of them could win for a repository that this universe does not have.
func TestEveryFindingOfLintIsTrue(t *testing.T) {
	first, retried := universe(1), universe(1, 9)
	found := map[string]int{}
	sets, dead, missed := 0, 0, 0
	var example string
	rapid.Check(t, func(t *rapid.T) {
		src := drawSet(t)
		s, err := Parse("rules.yaml", []byte(src))
		if err != nil {
			t.Skip(err)
		}
		jobs := first
		if strings.Contains(src, "job.attempt") {
			jobs = retried
		}
		c := lintCase{s, jobs, make([]Decision, len(jobs))}
		for i, f := range jobs {
			c.made[i] = s.decide(f, s.first)
		}
		said := map[string]bool{}
		for _, d := range s.Lint(t.Context(), lintSpecs) {
			found[d.Code]++
			said[d.Rule] = said[d.Rule] || d.Code == "never-wins" || d.Code == "always-false"
			if why := c.refuted(d); why != "" {
				t.Fatalf("%s\nis not true: %s\n%s", d, why, src)
			}
		}
		sets++
		for _, ru := range s.Rules() {
			if len(c.won(ru)) > 0 || said[""] {
				continue
			}
			dead++
			if !said[ru] {
				missed++
				example = ru + " of\n" + src
			}
		}
	})
	t.Logf("%d sets, findings %v; of %d rules that win no job lint does not name %d, such as %s", sets, found, dead, missed, example)
}
