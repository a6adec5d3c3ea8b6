package rules

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/rules/internal/cond"
)

// tester is what a test, a fuzz target and a property have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// same reports how got differs from want; what says what they are.
func same(t tester, want, got any, what string, args ...any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", fmt.Sprintf(what, args...), d)
	}
}

// readFile returns a file, which must be there.
func readFile(t tester, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return text
}

// linear is a search that asks every rule in turn.
func linear(s *Set) search {
	return func(env *cond.Env, _ *Decision) (*rule, error) {
		for i := range s.rules {
			if held, err := s.rules[i].when.Holds(env); held || err != nil {
				return &s.rules[i], err
			}
		}
		return nil, nil
	}
}

// parse loads a rules file that must be good.
func parse(t tester, src string) *Set {
	t.Helper()
	s, err := Parse("rules.yaml", []byte(src))
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, src)
	}
	checkValid(t, src)
	return s
}

// job is one of acme/web's with these labels besides self-hosted.
func job(labels ...string) Facts {
	return Facts{
		Labels: append([]string{"self-hosted"}, labels...),
		Repo:   Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "private"},
		Job:    Job{Name: "build", Workflow: "CI", Branch: "main", Attempt: 1, Sender: "octocat"},
	}
}

func TestTheDecisionIsMadeInOrder(t *testing.T) {
	const src = `version: 1
compound: { prefix: 'Yard=', separator: '/' }
labels:
  self-hosted: {}
  linux: {}
  gpu: {}
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 32 } }
  "memory=*": { param: { name: memory, type: size, min: 1GiB, max: 64GiB } }
  "zone=*": { param: { name: zone, type: string, one_of: [Tokyo-A, tokyo-b] } }
  "tag=*": { param: { name: tag, type: string, pattern: '[a-z]{1,4}' } }
  "run-*": {}
rules:
  - name: public
    if: not repo.private
    deny: no public repositories
  - name: gpu
    if: has("linux", "gpu")
    jobspec: gpu
  - name: big
    if: has("linux") and param.cpu > 16
    jobspec: big
  - name: linux
    if: '"linux" in labels'
    jobspec: linux
  - name: linux-again
    if: has("Linux")
    jobspec: other
  - name: named-in-a-rule
    if: has("special")
    jobspec: special
`
	s := parse(t, src)
	public := job("linux", "nonsense")
	public.Repo.Private = false
	knownPublic := job("linux")
	knownPublic.Repo.Private = false
	many := slices.Repeat([]string{"self-hosted"}, 200)
	for i := range many {
		many[i] += fmt.Sprint(i)
	}
	for _, tt := range []struct {
		name    string
		facts   Facts
		outcome Outcome
		rule    string
		reason  string
		labels  []string // nil: not looked at
	}{
		{"labels are lowered, trimmed and there once", job(" Linux ", "LINUX", "gpu", "GPU"), Routed, "gpu", "rule gpu runs it with the jobspec gpu", []string{"self-hosted", "linux", "gpu"}},
		{"a compound label is taken apart", Facts{Labels: []string{"YARD=1234/Linux/ gpu"}, Repo: Repo{Private: true}}, Routed, "gpu", "rule gpu runs it with the jobspec gpu", []string{"self-hosted", "linux", "gpu"}},
		{"a compound label stands beside others", job("yard=1/linux", "cpu=4"), Routed, "linux", "rule linux runs it with the jobspec linux", []string{"self-hosted", "linux", "cpu=4"}},
		{"a compound label needs its unique part", job("yard=/linux"), Unroutable, "", `compound label "yard=/linux" begins with no unique part: write yard=ID/linux`, nil},
		{"a compound label has no empty part", job("yard=1//linux"), Unroutable, "", `compound label "yard=1//linux" has an empty part`, nil},

		{"out of scope is ignored whatever the labels are", Facts{Labels: []string{"ubuntu-latest", "\x00", ""}}, Ignored, "", `out of scope: "self-hosted" in labels is false`, []string{"ubuntu-latest"}},
		{"no labels are out of scope", Facts{}, Ignored, "", `out of scope: "self-hosted" in labels is false`, []string{}},
		{"out of scope comes before a denial", Facts{Labels: []string{"linux"}}, Ignored, "", `out of scope: "self-hosted" in labels is false`, nil},

		{"an unknown label comes before a denial", public, Unroutable, "", `unknown label "nonsense": neither the vocabulary nor a rule knows it`, nil},
		{"an unknown label has the nearest known ones", job("linx", "gpus", "quite-different"), Unroutable, "", `unknown labels "linx" (did you mean linux?), "gpus" (did you mean gpu?), "quite-different": neither the vocabulary nor a rule knows them`, nil},
		{"a param without its value is told so", job("cpu"), Unroutable, "", `unknown label "cpu" (it needs a value: cpu=…): neither the vocabulary nor a rule knows it`, nil},
		{"a prefix by itself is not the label", job("run-"), Unroutable, "", `unknown label "run-" (did you mean run-*?): neither the vocabulary nor a rule knows it`, nil},
		{"many unknown labels are counted", job("aaaa", "bbbb", "cccc", "dddd", "eeee"), Unroutable, "", `unknown labels "aaaa", "bbbb", "cccc", 2 more: neither the vocabulary nor a rule knows them`, nil},
		{"a label that only a rule asks for is known", job("special"), Routed, "named-in-a-rule", "rule named-in-a-rule runs it with the jobspec special", nil},

		{"a denial ends it", knownPublic, Denied, "public", "no public repositories", nil},
		{"the first rule that holds wins", job("linux", "cpu=17"), Routed, "big", "rule big runs it with the jobspec big", nil},
		{"a later one takes what it leaves", job("linux", "cpu=16"), Routed, "linux", "rule linux runs it with the jobspec linux", nil},
		{"an expression that fails is never false", job("linux"), Unroutable, "big", "rule error: rule big: invalid operation: <nil> > int in param.cpu > 16", nil},
		{"no rule holds", job("gpu", "run-1"), Unroutable, "", `no rule takes a job with the labels "self-hosted", "gpu", "run-1"`, nil},

		{"an int out of bounds", job("linux", "cpu=33"), Unroutable, "", `label "cpu=33": 33 is not between 1 and 32`, nil},
		{"an int that is none", job("linux", "cpu=2x"), Unroutable, "", `label "cpu=2x": "2x" is not a whole number`, nil},
		{"an int that is huge", job("linux", "cpu=99999999999999999999"), Unroutable, "", `label "cpu=99999999999999999999": "99999999999999999999" is too large`, nil},
		{"a size out of bounds", job("linux", "memory=128GiB"), Unroutable, "", `label "memory=128gib": 128GiB is not between 1GiB and 64GiB`, nil},
		{"a size that reads two ways", job("linux", "memory=8GB"), Unroutable, "", `label "memory=8gb": size "8gb" is ambiguous: write 8GiB`, nil},
		{"a text that is none of a list", job("linux", "zone=tokyo-c"), Unroutable, "", `label "zone=tokyo-c": "tokyo-c" is none of "Tokyo-A", "tokyo-b"; did you mean Tokyo-A?`, nil},
		{"a text that does not match", job("linux", "tag=a b"), Unroutable, "", `label "tag=a b": "a b" does not match [a-z]{1,4}`, nil},
		{"two labels that set one param", job("linux", "cpu=2", "CPU=3"), Unroutable, "", `labels "cpu=2" and "cpu=3" both set cpu: a job has one of them`, nil},
		{"two labels that say one value twice", job("linux", "gpu", "cpu=2", "cpu=02", "memory=2GiB", "memory=2048"), Routed, "gpu", "rule gpu runs it with the jobspec gpu", nil},

		{"an empty label", job("linux", " "), Unroutable, "", "the job has an empty label", nil},
		{"a label with a line break", job("a\nlinux"), Unroutable, "", `label "a\nlinux" holds a character that cannot be printed`, []string{"self-hosted"}},
		{"a label that turns text around", job("run-\u202elinux"), Unroutable, "", `label "run-\u202elinux" holds a character that cannot be printed`, nil},
		{"a label that is not UTF-8", job("run-\xff"), Unroutable, "", `label "run-\xff" holds a character that cannot be printed`, nil},
		{"a label with spaces, commas, quotes and ${}", job(`run-a b,'c' "d" ${attr.x} ${{ e }}`, "linux", "gpu"), Routed, "gpu", "rule gpu runs it with the jobspec gpu", nil},
		{"a label of 300 characters", job("run-" + strings.Repeat("x", 296)), Unroutable, "", `label "run-` + strings.Repeat("x", 56) + `"… is longer than 256 characters`, nil},
		{"a label of 256 characters of four bytes", job("run-"+strings.Repeat("😀", 252), "linux", "gpu"), Routed, "gpu", "rule gpu runs it with the jobspec gpu", nil},
		{"200 labels", job(many...), Unroutable, "", "the job has more than 100 labels", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := s.Decide(tt.facts, false)
			type decision struct {
				Outcome      Outcome
				Rule, Reason string
			}
			same(t, decision{tt.outcome, tt.rule, tt.reason}, decision{got.Outcome, got.Rule, got.Reason}, "decision")
			if tt.labels != nil {
				same(t, tt.labels, got.Labels, "labels")
			}
			if got.Outcome != Routed {
				same(t, nowhere(), got.Placement, "the placement of a job that is not routed")
			}
		})
	}
}

func TestTheScope(t *testing.T) {
	const rest = "\nlabels: { self-hosted: {}, 'cpu=*': { param: { name: cpu, type: int, min: 1, max: 9 } } }\nrules: [{ name: r, jobspec: j }]\n"
	for _, tt := range []struct {
		name, scope string
		labels      []string
		want        string
	}{
		{"may be any expression", `scope: repo.owner == "acme" and only("self-hosted")`, nil, "routed"},
		{"leaves the rest alone", `scope: repo.owner == "other"`, nil, "ignored"},
		{"sees params", `scope: param.cpu == 3`, []string{"cpu=3"}, "routed"},
		{"sees no param that was not asked for", `scope: param.cpu == 3`, nil, "ignored"},
		{"that fails is said", `scope: param.cpu > 3`, nil, "unroutable rule error: scope: invalid operation: <nil> > int in param.cpu > 3"},
		{"makes the labels known that it asks for", `scope: '"self-hosted" in labels or "x" in labels'`, []string{"x"}, "routed"},
		{"is self-hosted when left out", ``, []string{"x"}, `unroutable unknown label "x": neither the vocabulary nor a rule knows it`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := parse(t, "version: 1\n"+tt.scope+rest).Decide(job(tt.labels...), false)
			got := string(d.Outcome)
			if d.Outcome == Unroutable {
				got += " " + d.Reason
			}
			if got != tt.want {
				t.Errorf("Decide = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTheTraceSaysOfEachRuleWhetherItHeldAndWhy(t *testing.T) {
	s := parse(t, `version: 1
labels: { "*": {}, "cpu=*": { param: { name: cpu, type: int, min: 1, max: 9 } } }
rules:
  - { name: label, if: '"a" in labels', jobspec: j }
  - { name: labels, if: 'has("linux", "b")', jobspec: j }
  - { name: any, if: 'hasAny("a", "b")', jobspec: j }
  - { name: one-of-any, if: 'hasAny("a")', jobspec: j }
  - { name: not, if: 'not has("linux")', jobspec: j }
  - { name: not-any, if: '!hasAny("a", "linux")', jobspec: j }
  - { name: repository, if: 'has("linux") and repo.owner == "other"', jobspec: j }
  - { name: part, if: 'has("linux") and (job.attempt > 1 or repo.fork) and has("a")', jobspec: j }
  - { name: whole, if: '1.0 == 2 and has("linux")', jobspec: j }
  - { name: nil, if: '(param.cpu ?? 0) > 2', jobspec: j }
  - { name: error, if: 'has("fail") and param.cpu + 1 > 2', jobspec: j }
  - { name: holds, if: ' has("linux") and repo.private ', jobspec: j }
  - { name: never-reached, jobspec: j }
`)
	want := []Step{
		{"label", false, `the job lacks the label "a"`, false},
		{"labels", false, `the job lacks the label "b"`, false},
		{"any", false, `the job has none of the labels "a", "b"`, false},
		{"one-of-any", false, `the job lacks the label "a"`, false},
		{"not", false, `the job has the label "linux"`, false},
		{"not-any", false, `the job has the label "linux"`, false},
		{"repository", false, `repo.owner is "acme", not "other"`, false},
		{"part", false, `false: job.attempt > 1, where job.attempt is 1, and repo.fork is false`, false},
		{"whole", false, `false: 1.0 == 2 and has("linux")`, false},
		{"nil", false, `false: (param.cpu ?? 0) > 2, where param.cpu is not asked for`, false},
		{"error", false, `the job lacks the label "fail"`, false},
		{"holds", true, `true: has("linux") and repo.private`, false},
	}
	same(t, want, s.Decide(job("linux"), true).Trace, "trace")
	want = append(want[:10], Step{"error", false, `error: invalid operation: <nil> + int in param.cpu + 1 > 2`, true})
	same(t, want, s.Decide(job("linux", "fail"), true).Trace, "trace with an error")
	if got := s.Decide(job("linux"), false).Trace; got != nil {
		t.Errorf("trace that nobody asked for = %v, want nil", got)
	}
	if got := parse(t, "version: 1\nlabels: { self-hosted: {} }\nrules: [{ name: r, jobspec: j }]\n").Decide(job(), true).Trace; !cmp.Equal(got, []Step{{"r", true, "it has no condition", false}}) {
		t.Errorf("trace of a rule without a condition = %v", got)
	}
}

func TestConditions(t *testing.T) {
	const vocabulary = `version: 1
labels:
  "*": {}
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 64 } }
  "memory=*": { param: { name: memory, type: size, min: 10, max: 1TiB } }
  "zone=*": { param: { name: zone, type: string, one_of: [Tokyo-A] } }
rules:
  - name: r
    jobspec: j
    if: >
      `
	for _, tt := range []struct {
		condition string
		labels    []string // besides self-hosted
		want      string   // the outcome, and with an error the reason
	}{
		{`"LINUX" in labels`, []string{"Linux"}, "routed"},
		{`"linux" not in labels`, []string{"Linux"}, "unroutable"},
		{`has("a", "B")`, []string{"b", "A", "c"}, "routed"},
		{`has("a", "b")`, []string{"a"}, "unroutable"},
		{`hasAny("A", "b")`, []string{"a"}, "routed"},
		{`hasAny("a", "b")`, []string{"c"}, "unroutable"},
		{`only("SELF-HOSTED", "a", "b")`, []string{"a"}, "routed"},
		{`only("self-hosted", "a", "b")`, []string{"a", "c"}, "unroutable"},
		{`exactly("self-hosted", "A")`, []string{"a"}, "routed"},
		{`exactly("self-hosted", "a")`, []string{"a", "b"}, "unroutable"},
		{`exactly("self-hosted", "a", "b")`, []string{"a"}, "unroutable"},
		{`not has("a")`, []string{"b"}, "routed"},
		{`not has("a", "b")`, []string{"a"}, "routed"},
		{`not hasAny("a", "b")`, []string{"b"}, "unroutable"},
		{`not (has("a") or has("b"))`, nil, "routed"},
		{`has("a" + "b")`, []string{"ab"}, "routed"},
		{`has(job.name)`, []string{"build"}, "routed"},
		{`any(labels, # == "GPU")`, []string{"gpu"}, "routed"},
		{`any(labels, # in ["GPU", "tpu"])`, []string{"gpu"}, "routed"},
		{`any(labels, # startsWith "gpu-")`, []string{"gpu-h100"}, "routed"},
		{`len(labels) == 2`, []string{"a"}, "routed"},
		{`param.cpu == 8`, []string{"cpu=08"}, "routed"},
		{`param.cpu == nil`, nil, "routed"},
		{`param.memory == 2048`, []string{"memory=2GiB"}, "routed"},
		{`param.zone == "Tokyo-A"`, []string{"ZONE=TOKYO-A"}, "routed"},
		{`param.cpu > 1`, nil, "rule error: rule r: invalid operation: <nil> > int in param.cpu > 1"},
		{`has("a") and param[trim("cpu")]`, []string{"a", "cpu=8"}, "rule error: rule r: param[trim(\"cpu\")] is int, not true or false"},
		{`has("a") or param[trim("cpu")]`, nil, "rule error: rule r: param[trim(\"cpu\")] is nil, not true or false"},
		{`has(param.zone)`, nil, "rule error: rule r: a label function takes texts, and one of them is nil in has(param.zone)"},
		{`has("zone=" + (param.zone ?? "b"))`, []string{"zone=tokyo-a"}, "routed"},
		{`labels[7] == "a"`, nil, "rule error: rule r: index out of range: 7 (array length is 1) in labels[7] == \"a\""},
		{`any(split(job.workflow, "-"), # == "CI")`, nil, "routed"},
		{`any(filter(labels, # != "A"), # == "B")`, []string{"a", "b"}, "routed"},
		{`string(job.attempt) + string(repo.private) + string(1.5) == "1true1.5"`, nil, "routed"},
		{`string(labels) == ""`, nil, "rule error: rule r: a []string has no text: want a string, a number or a boolean in string(labels) == \"\""},
		{`job.attempt in 1..3`, nil, "routed"},
		{`join(filter(labels, # != "a"), "+") == "self-hosted+b"`, []string{"a", "b"}, "routed"},
		{`split(repo.full_name, "/")[1] == "web" and join(split("a.b", "."), "-") == "a-b" and join(labels) == "self-hosted"`, nil, "routed"},
		{`replace("a.b.c", ".", "-") == "a-b-c" and lower(upper("a")) == "a" and count(labels, # endsWith "d") == 1`, nil, "routed"},
		{`len(replace(join(labels), "", join(labels))) > 0`, []string{strings.Repeat("x", 200)}, "rule error: rule r: replace gives more than 4096 bytes in len(replace(join(labels), \"\", join(labels))) > 0"},
		{`len(split(join(labels), "")) > 0`, []string{strings.Repeat("x", 200)}, "rule error: rule r: split gives more than 100 texts in len(split(join(labels), \"\")) > 0"},
		{`repo.full_name == "acme/web" and repo.owner == "acme" and repo.name == "web" and repo.private and repo.visibility == "private" and not repo.fork`, nil, "routed"},
		{`repo.host == "github.com"`, nil, "routed"},
		{`job.name == "build" and job.workflow == "CI" and job.branch == "main" and job.attempt == 1 and job.sender == "octocat"`, nil, "routed"},
		{`1.0 == 1 and has("a")`, []string{"a"}, "routed"},
	} {
		t.Run(tt.condition, func(t *testing.T) {
			d := parse(t, vocabulary+tt.condition+"\n").Decide(job(tt.labels...), false)
			got := string(d.Outcome)
			if strings.HasPrefix(d.Reason, "rule error") {
				got = d.Reason
			}
			if got != tt.want {
				t.Errorf("Decide = %s (%s), want %s", got, d.Reason, tt.want)
			}
		})
	}
}

// A part of a condition that is compiled by itself must mean what it meant in
// the whole: "1.0" is written as "1" by the library, so it stays whole.
func TestPartsThatTheLibraryWritesDifferentlyStayWhole(t *testing.T) {
	c, err := cond.NewLanguage(&vocabulary{}, map[string]bool{}).Condition(`has("a") and 1.0 == 1`, false)
	if err != nil || c.Root.Kind != cond.Program {
		t.Errorf("condition is %+v (%v), want the whole as one program", c.Root, err)
	}
}

// What could loop, or give more than it gets, is not compiled.
func TestExpressionsThatCouldRunAwayAreRefused(t *testing.T) {
	for expression, want := range map[string]string{
		`let a = job.name + job.name; a == ""`:                    "let is not supported: write the value where it is used",
		`true; false`:                                             "let is not supported: write the value where it is used",
		`all(labels, any(labels, # == "a"))`:                      "nested loops are not supported: use one loop",
		`all(labels, {any(labels, {# == "a"})})`:                  "nested loops are not supported: use one loop",
		`len(1..1000000) > 1`:                                     "a range goes from one number to another, of at most 100: write 1..9",
		`job.attempt in 1..job.attempt`:                           "a range goes from one number to another, of at most 100: write 1..9",
		`reduce(labels, #acc + #acc, "a") == ""`:                  `there is no function "reduce"`,
		`labels | map(# + #) | len() > 1`:                         `there is no function "map"; did you mean max?`,
		`repeat(job.name, 1000000) == ""`:                         `there is no function "repeat"`,
		`now().Year() > 2000`:                                     `there is no function "now"`,
		`date("2026-01-01").Year() > 1`:                           `there is no function "date"`,
		`timezone("UTC") != nil`:                                  `there is no function "timezone"`,
		`fromJSON(job.name).x == 1`:                               `there is no function "fromJSON"`,
		`$env.run.fork`:                                           "$env is not supported: write labels, param, repo, job or run",
		`runKnown`:                                                "unknown name runKnown",
		`sortBy(labels, #)[0] == "a"`:                             `there is no function "sortBy"`,
		`job.name matches job.branch`:                             "matches takes a pattern that is written out",
		`job.name matches "(a?){1000}"`:                           "the pattern is too large, with what it repeats: the maximum is 1000 steps",
		`"Private" in repo`:                                       "repo is not a list",
		`job.name` + strings.Repeat(" + job.name", 21) + ` == ""`: "an expression has at most 20 of +",
	} {
		_, err := cond.NewLanguage(&vocabulary{}, map[string]bool{}).Condition(expression, true)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", expression, err, want)
		}
	}
	if _, err := cond.NewLanguage(&vocabulary{}, map[string]bool{}).Template("x-${{ run.event }}", 0); err == nil || err.Error() != "run.… costs a call to GitHub: it is allowed only in the if of a rule" {
		t.Errorf("run in a value: %v", err)
	}
	if err := cond.CheckPattern("(a?){1000}(b?){1000}"); err == nil || !strings.HasSuffix(err.Error(), " is too large, with what it repeats: the maximum is 5000 steps") {
		t.Errorf("a large pattern: %v", err)
	}
	nested := func(depth int) (bytes uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := cond.NewLanguage(&vocabulary{}, map[string]bool{}).Condition("len("+strings.Repeat("[", depth)+"1"+strings.Repeat("]", depth)+") > 1", false); err != nil {
			t.Errorf("lists within %d lists: %v", depth, err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if half, whole := nested(200), nested(400); whole > 4*half { // they took the cube of their depth
		t.Errorf("lists of twice the depth took %d bytes after %d, want at most four times as much", whole, half)
	}
}

func TestJobspecsOfTheRules(t *testing.T) {
	s := parse(t, `version: 1
rules:
  - { name: c, jobspec: docker-linux }
  - { name: b, jobspec: docker-linx }
  - { name: a, dispatch: x }
  - { name: d, deny: no, if: 'false' }
`)
	same(t, []string{"c", "b", "a", "d"}, s.Rules(), "Rules")
	same(t, []string{"docker-linux", "docker-linx"}, s.Jobspecs(), "Jobspecs")
	want := Diagnostics{{File: "rules.yaml", Line: 4, Column: 25, Rule: "b", Code: "no-such-jobspec", Message: `there is no jobspec "docker-linx"; did you mean docker-linux? your own are those of --jobspecs DIR`}}
	same(t, want, s.CheckJobspecs([]string{"docker-linux", "raw-exec-macos"}), "CheckJobspecs")
	if got := s.CheckJobspecs(s.Jobspecs()); got != nil {
		t.Errorf("CheckJobspecs with all of them = %v, want nil", got)
	}
}

// The JSON form of a decision is a contract: it is stored, and commands print it.
func TestTheJSONOfADecision(t *testing.T) {
	s := parse(t, `version: 1
labels: { self-hosted: {}, gpu: { devices: [nvidia/gpu] } }
defaults: { resources: { cpu: 2000, memory: 4GiB } }
rules: [{ name: r, jobspec: j, constraints: ['${attr.kernel.name} = linux'], task: { config: { n: 2, m: '${{ 1 + 1 }}' } } }]
`)
	d := s.Decide(job("gpu"), true)
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	want := []string{"affinities", "constraints", "datacenters", "devices", "dispatch", "from", "jobspec", "labels", "namespace",
		"node_pool", "outcome", "priority", "reason", "resources", "rule", "runner", "task", "trace"}
	same(t, want, slices.Sorted(maps.Keys(keys)), "keys")
	var again Decision
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(d, again); d != "" {
		t.Errorf("a decision that was stored and read (-before +after):\n%s", d)
	}
}

func TestARuleThatIsSwitchedOffIsNotTheNearest(t *testing.T) {
	s := parse(t, "version: 1\nlabels: { self-hosted: {}, linux: {}, gpu: {} }\nrules:\n  - { name: off, if: false and has(\"linux\"), jobspec: a }\n  - { name: on, if: 'has(\"linux\", \"gpu\")', jobspec: a }\n")
	if got := s.Decide(job(), true).Nearest; got.Rule != "on" || len(got.Missing) != 2 {
		t.Errorf("the nearest is %+v, want on with two labels missing", got)
	}
}
