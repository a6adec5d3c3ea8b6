package rules

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/expr-lang/expr"
	"github.com/google/go-cmp/cmp"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// checkDecision checks what is true of every decision.
func checkDecision(t tester, d Decision) {
	t.Helper()
	switch d.Outcome {
	case Routed, Ignored, Denied, Unroutable, Undecided:
	default:
		t.Errorf("outcome is %q", d.Outcome)
	}
	if d.Reason == "" || !words.Printable(d.Reason) {
		t.Errorf("reason %q is empty or not printable", d.Reason)
	}
	if len(d.Labels) > MaxLabels {
		t.Errorf("%d labels", len(d.Labels))
	}
	for _, l := range d.Labels {
		if !words.Printable(l) || l != strings.ToLower(l) || utf8.RuneCountInString(l) > MaxLabelLength {
			t.Errorf("label %q", l)
		}
	}
	for _, c := range d.Constraints {
		if !words.Printable(c.Value) || operators[c.Operator].canonical != c.Operator || c.From == "" {
			t.Errorf("constraint %+v", c)
		}
	}
	if (d.Outcome == Routed) != (d.Jobspec != "" || d.Dispatch != "") {
		t.Errorf("%s to the jobspec %q or the Nomad job %q", d.Outcome, d.Jobspec, d.Dispatch)
	}
}

// inTime fails a made-up input that took longer than it may. The seeds, which
// every run of the tests has, may take as long as a slow machine does.
func inTime(t *testing.T, what string, since time.Time, limit time.Duration) {
	t.Helper()
	if took := time.Since(since); took > limit && flag.Lookup("test.fuzz").Value.String() != "" {
		t.Errorf("%s took %v", what, took)
	}
}

// FuzzParse checks that no file makes Parse panic or run for long, that faults
// have places within the file, and that what is good decides.
func FuzzParse(f *testing.F) {
	text := readFile(f, "../rules.example.yaml")
	f.Add(text)
	f.Add([]byte(someVocabulary + "  - { name: r, jobspec: j, if: 'has(\"linux\") and param.cpu > 1' }\n"))
	for _, s := range []string{
		"", "~", "\ufeffversion: 1\r\n", "version: 1\nrules: [{ name: r, jobspec: j }]\n",
		"version: 1\nrules:\n- name: r\n  if: |2-\n      a\n     b\n  deny: >\n    x\n\n    y\n",
		"? a\n: b\n? [c]\n: {d}\n", "a: &x [*x]\n<<: *x\n!t b: c\n", "%YAML 1.2\n---\na: b\n...\n---\n", "a: \"\\u0000\\x1b\\\n  b\"\n",
		"- - - [[{{a: b}}]]\n", "version: 1\nlabels: { 'a=*': { param: { name: a, type: string, pattern: '(' } } }\n",
		"version: 1\nscope: '${{'\ncompound: { prefix: '=' }\ndefaults: { max: { cores: 99999999999999999999 } }\n",
		"version: 1\nrules:\n- name: r\n  jobspec: j\n  task: { config: { a: [0x7fffffffffffffffff, .inf, .nan, 1e999, 0b1, 0o7] } }\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		start := time.Now()
		s, err := Parse("f.yaml", src)
		inTime(t, "Parse", start, 2*time.Second)
		if err == nil {
			checkDecision(t, s.Decide(job("linux", "cpu=4"), true))
			for _, d := range s.Lint(t.Context(), nil) {
				if d.Line < 1 || d.Column < 1 || d.File != "f.yaml" || d.Code == "" {
					t.Errorf("finding %+v", d)
				}
			}
			inTime(t, "Lint", start, 5*time.Second)
			return
		}
		var ds Diagnostics
		if !errors.As(err, &ds) || len(ds) == 0 || s != nil {
			t.Fatalf("Parse returned %v and a %T", s, err)
		}
		lines := strings.Split(string(src), "\n")
		for _, d := range ds {
			if d.Line < 1 || d.Line > len(lines) || d.Column < 1 || d.Column > utf8.RuneCountInString(lines[d.Line-1])+2 {
				t.Errorf("%s: the place is not in the file", d)
			}
			if d.Message == "" || !words.Printable(d.Message) {
				t.Errorf("message %q is empty or not printable", d.Message)
			}
			d.Excerpt(src)
		}
	})
}

func FuzzDecide(f *testing.F) {
	s := example(f)
	for _, l := range []string{
		"self-hosted\nlinux\nx64", "SELF-HOSTED\nmacOS", "yard=1/linux/gpus=2/cpu=8\nself-hosted", "self-hosted\nlinux\ncpu=4\nCPU=5",
		"self-hosted\nlinux\nmemory=99999999999TiB\ndisk=1.5GiB", "self-hosted\nrun-${{ x }}\nzone=Tokyo-A", "", "self-hosted\n\n \n\x00\n\xff\n\u202e",
	} {
		f.Add(l, "acme", "web", "release/1", true)
	}
	f.Fuzz(func(t *testing.T, labels, owner, name, branch string, private bool) {
		facts := Facts{Labels: strings.Split(labels, "\n"), Job: Job{Name: name, Branch: branch},
			Repo: Repo{Owner: owner, Name: name, FullName: owner + "/" + name, Private: private}}
		d := s.Decide(facts, false)
		checkDecision(t, d)
		explained := s.Decide(facts, true)
		explained.Trace, explained.Nearest = nil, nil
		if diff := cmp.Diff(d, explained); diff != "" {
			t.Errorf("the trace changed the decision (-without +with):\n%s", diff)
		}
	})
}

// FuzzLabelParam checks that what a stranger writes after the = is within the
// bounds of the rules file, or refused, and reaches a constraint as one value.
func FuzzLabelParam(f *testing.F) {
	s := parse(f, `version: 1
labels:
  self-hosted: {}
  "int=*": { param: { name: int, type: int, min: -5, max: 32 }, task: { env: { A: 'x${{ param.int }}' } } }
  "size=*": { param: { name: size, type: size, min: 1GiB, max: 1TiB }, resources: { memory: '${{ param.size }}' } }
  "text=*": { param: { name: text, type: string, pattern: '.*' }, constraints: ['${meta.a} = ${{ param.text }}'] }
rules: [{ name: r, jobspec: j }]
`)
	for _, v := range []string{"1", "-5", "33", "007", "1GiB", "1tib", "a b", "${attr.x}", "$", "a\nb", "= x", "٤", "99999999999999999999", "!= b", "'\"`", "\xff"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		for _, label := range []string{"int=", "size=", "text="} {
			d := s.Decide(job(label+v), false)
			checkDecision(t, d)
			if d.Outcome != Routed {
				continue
			}
			switch label {
			case "int=":
				var n int
				if _, err := fmt.Sscanf(d.Task.Env["A"], "x%d", &n); err != nil || n < -5 || n > 32 {
					t.Errorf("int=%q gives %q", v, d.Task.Env["A"])
				}
			case "size=":
				if d.Resources.MemoryMB < 1<<10 || d.Resources.MemoryMB > 1<<20 {
					t.Errorf("size=%q gives %d MiB", v, d.Resources.MemoryMB)
				}
			case "text=":
				want := Constraint{"${meta.a}", "=", strings.TrimSpace(strings.ToLower(v)), "label " + d.Labels[1]}
				if len(d.Constraints) != 1 || strings.TrimSpace(d.Constraints[0].Value) != want.Value || strings.Contains(want.Value, "${") {
					t.Errorf("text=%q gives %v, want %v", v, d.Constraints, want)
				}
			}
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"10", "512MiB", "16gib", "2047TiB", "2147483647", "1GB", "-1", "0x10", "1e3", "9999999999999999999999MiB", " 1", "1 GiB", "٤"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		mib, err := cond.ParseSize(s)
		if err != nil {
			if !words.Printable(err.Error()) {
				t.Errorf("cond.ParseSize(%q): %q is not printable", s, err)
			}
			return
		}
		if mib < cond.LeastMiB || mib > cond.MostMiB {
			t.Errorf("cond.ParseSize(%q) = %d", s, mib)
		}
		if again, err := cond.ParseSize(cond.FormatMiB(mib)); again != mib || err != nil {
			t.Errorf("cond.ParseSize(%q) = %d, but %s is %d, %v", s, mib, cond.FormatMiB(mib), again, err)
		}
	})
}

// FuzzCondition checks that an expression, taken apart, means what it means to
// the expression library as a whole.
func FuzzCondition(f *testing.F) {
	for _, s := range []string{
		`has("a") and not hasAny("b", 'c') and "d" not in labels`, `repo.owner == "acme" && repo.private and job.attempt > 1`,
		`let x = 1.5; x > 1 and has("a")`, `any(labels, # startsWith "x") and (param.cpu ?? 0) >= 4`, `true and (repo.fork ? has("a") : !has("a"))`,
		`job.name matches "^a\\d" and len(labels) in 1..3`, `{"a": [1, 2.0]}.a[1] == 2 and b"x" == b"x"`, `labels | filter(# != "a") | len() > 0 and 2 ** 3 ** 2 > -1`,
		`(true or false) and not (true and false)`, `has("é", "\u00e9\n") and job?.name?.x == nil`, `if has("a") { true } else { false }`, `run.event == "push" and 0x1F == 31 and 1_0 == 1e1`,
	} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, source string, private bool) {
		start := time.Now()
		l := cond.NewLanguage(&vocabulary{params: []*cond.Param{{Name: "cpu", Kind: "int", Min: 1, Max: 8}}}, map[string]bool{})
		c, err := l.Condition(source, true)
		if err != nil {
			return
		}
		whole, err := l.Compile(source, true, expr.AsBool())
		if err != nil {
			t.Fatal(err)
		}
		facts := job("a", "cpu=8")
		env := &cond.Env{Labels: facts.Labels, Param: map[string]any{"cpu": 8}, Repo: facts.Repo, Job: facts.Job, Run: Run{Event: "push"}, RunKnown: true}
		env.Repo.Private = private
		held, err := c.Holds(env)
		v, wholeErr := cond.Evaluate(whole, env)
		if (err != nil) != (wholeErr != nil) || err == nil && held != v {
			t.Errorf("in parts: %v (%s), %v; as a whole: %v, %v", held, c.Why(env, held, err), err, v, wholeErr)
		}
		inTime(t, "it", start, 2*time.Second)
	})
}
