package rules

import (
	"sync"
	"testing"
	"time"
)

func TestFilesMergeInTheirOrder(t *testing.T) {
	s, err := Load(t.Context(),
		File{"10-platform.yaml", []byte("version: 1\nlabels: { linux: {}, 'cpu=*': { param: { name: cpu, type: int, min: 1, max: 8 }, resources: { cores: '${{ param.cpu }}' } } }\ndefaults: { node_pool: ci }\n")},
		File{"20-web.yaml", []byte("version: 1\nlabels: { web: { constraints: ['${meta.team} = web'] } }\nrules: [{ name: web, if: has(\"web\") and (param.cpu ?? 1) < 4, jobspec: a }]\n")},
		File{"30-rest.yaml", []byte("version: 1\nrules: [{ name: rest, if: has(\"linux\"), jobspec: b }]\n")},
	)
	if err != nil {
		t.Fatal(err)
	}
	same(t, []string{"web", "rest"}, s.Rules(), "Rules")
	d := s.Decide(job("web", "linux", "cpu=2"), false)
	if d.Rule != "web" || d.NodePool != "ci" || d.Resources.Cores != 2 || len(d.Constraints) != 1 {
		t.Errorf("Decide = %+v", d)
	}
	if d := s.Decide(job("web", "linux", "cpu=4"), false); d.Rule != "rest" {
		t.Errorf("Decide = %+v, want rule rest", d)
	}
}

func TestConflictsBetweenFilesNameBothPlaces(t *testing.T) {
	_, err := Load(t.Context(),
		File{"a.yaml", []byte("version: 1\nscope: 'true'\nlabels:\n  gpu: {}\n  'x=*': { param: { name: x, type: int, min: 1, max: 2 } }\ndefaults: {}\nrules: [{ name: r, jobspec: j }]\n")},
		File{"b.yaml", []byte("version: 1\nscope: 'true'\nlabels:\n  GPU: {}\n  'y=*': { param: { name: x, type: int, min: 1, max: 2 } }\ndefaults: {}\nrules: [{ name: r, jobspec: j }]\n")},
		File{"c.yaml", []byte("rules: []\n")},
	)
	want := `b.yaml:2:8: scope is already defined at a.yaml:2:8: define it in one file only
b.yaml:4:3: label gpu is already defined at a.yaml:4:3: define it in one file only
b.yaml:5:27: param "x" is defined by another label already
b.yaml:6:11: defaults is already defined at a.yaml:6:11: define it in one file only
b.yaml:7:17: rule r is already defined at a.yaml:7:17: define it in one file only
c.yaml:1:1: version is missing: a rules file begins with version: 1
c.yaml:1:8: rules is empty: list at least one rule`
	if err == nil {
		t.Fatal("no conflicts")
	}
	same(t, want, err.Error(), "faults")
}

func TestADecisionHasTheLimitAndTheFallbacksOfItsRule(t *testing.T) {
	s := parse(t, `version: 1
labels: { self-hosted: {}, linux: {}, arm64: { constraints: ['${attr.cpu.arch} = arm64'] }, large: { resources: { memory: 8GiB } }, "run-*": {}, "n=*": { param: { name: n, type: int, min: 1, max: 9 } } }
defaults: { node_pool: ci, resources: { memory: 4GiB }, max: { memory: 10GiB } }
rules:
  - name: owner
    if: job.name == "owner"
    jobspec: j
    limit: { running: 3, per: owner }
  - name: label
    if: job.name == "label"
    jobspec: j
    limit: { running: 2, per: label }
  - name: r
    jobspec: j
    constraints: ['${meta.disk} = ssd', '${attr.kernel.name} = linux']
    resources: { cpu: 4000 }
    limit: { running: 1 }
    fallback:
      - { after: 5m, node_pool: on-demand }
      - { after: 10m, constraints: ['${attr.kernel.name} = linux', '${attr.cpu.arch} = amd64'], resources: { cores: 2, memory: 2GiB }, jobspec: k }
`)
	f := job("linux", "arm64", "large", "run-77", "n=3")
	f.Job.Name = "owner"
	same(t, &Limit{Running: 3, Per: "owner", Key: "owner|acme"}, s.Decide(f, false).Limit, "limit per owner")
	elsewhere := f
	elsewhere.Repo.Host = "ghe.example"
	same(t, &Limit{Running: 3, Per: "owner", Key: "owner|ghe.example/acme"}, s.Decide(elsewhere, false).Limit, "limit per owner on another GitHub")
	f.Job.Name = "label"
	same(t, &Limit{Running: 2, Per: "label", Key: "label|self-hosted,linux,arm64,large,run-*,n=3"}, s.Decide(f, false).Limit, "limit per label")
	f.Job.Name = ""
	got := s.Decide(f, false)
	same(t, &Limit{Running: 1, Per: "rule", Key: "r"}, got.Limit, "limit")
	if len(got.Fallback) != 2 {
		t.Fatalf("fallbacks = %+v", got.Fallback)
	}
	first, second := got.Fallback[0], got.Fallback[1]
	want := got.Placement
	want.NodePool, want.From = "on-demand", first.From
	same(t, Fallback{After: 5 * Duration(time.Minute), Placement: want}, first, "the first fallback differs in more than the pool")
	if from := first.From["node_pool"]; from != "rule r, fallback 1" {
		t.Errorf("its pool comes from %q", from)
	}
	if second.After != Duration(10*time.Minute) || second.Reason == "" || second.Jobspec != "" {
		t.Errorf("the second fallback contradicts the label arm64, but is %+v", second)
	}
	f.Labels = []string{"self-hosted", "large"}
	second = s.Decide(f, false).Fallback[1]
	if second.Jobspec != "k" || second.Resources.CPU != 0 || second.Resources.Cores != 2 || second.Resources.MemoryMB != 8192 || len(second.Constraints) != 2 || second.NodePool != "ci" {
		t.Errorf("the second fallback takes the place of what the rule says: %+v", second)
	}
}

func TestTheRunIsAskedForOnlyWhenItDecides(t *testing.T) {
	s := parse(t, `version: 1
rules:
  - { name: forks, if: 'has("linux") and run.fork', deny: no forks }
  - { name: pulls, if: 'has("linux") and run.event startsWith "pull_request" and run.actor != "bot"', jobspec: j }
  - { name: rest, jobspec: k }
`)
	for _, tt := range []struct {
		labels string
		run    *Run
		want   string
	}{
		{"", nil, "routed rest"},
		{"linux", nil, "undecided forks"},
		{"linux", &Run{Event: "push"}, "routed rest"},
		{"linux", &Run{Event: "pull_request", Fork: true}, "denied forks"},
		{"linux", &Run{Event: "pull_request_target", Actor: "a"}, "routed pulls"},
		{"linux", &Run{Event: "pull_request", Actor: "bot"}, "routed rest"},
	} {
		f := job()
		if tt.labels != "" {
			f.Labels = append(f.Labels, tt.labels)
		}
		f.Run = tt.run
		for _, trace := range []bool{false, true} {
			d := s.Decide(f, trace)
			if got := string(d.Outcome) + " " + d.Rule; got != tt.want {
				t.Errorf("Decide(%v, run %+v) = %s (%s), want %s", f.Labels, tt.run, got, d.Reason, tt.want)
			}
		}
	}
}

func TestWhatThereIsOneOfStandsInOneOfTheFiles(t *testing.T) {
	rule := func(name string) string { return "rules: [{ name: " + name + ", jobspec: j }]\n" }
	const unroutable, feedback = "unroutable: { after: 10m, action: cancel }\n", "feedback: { kind: commit_status, after: 1m }\n"
	s, err := Load(t.Context(), File{"a.yaml", []byte("version: 1\n" + unroutable + rule("a"))}, File{"b.yaml", []byte("version: 1\n" + feedback + rule("b"))})
	if err != nil {
		t.Fatal(err)
	}
	if after, action := s.Unroutable(); after != 10*time.Minute || action != "cancel" {
		t.Errorf("Unroutable = %s, %q", after, action)
	}
	if kind, after := s.Feedback(); after != time.Minute || kind != "commit_status" {
		t.Errorf("Feedback = %q, %s", kind, after)
	}
	s = parse(t, "version: 1\nfeedback: { kind: check_run }\n"+rule("a"))
	if kind, after := s.Feedback(); after != 30*time.Second || kind != "check_run" {
		t.Errorf("Feedback without a time = %q, %s", kind, after)
	}
	if after, action := s.Unroutable(); after != 0 || action != "" {
		t.Errorf("Unroutable that is not there = %s, %q", after, action)
	}
	_, err = Load(t.Context(), File{"a.yaml", []byte("version: 1\n" + unroutable + feedback + rule("a"))}, File{"b.yaml", []byte("version: 1\n" + unroutable + feedback + rule("b"))})
	want := "b.yaml:2:13: unroutable is already defined at a.yaml:2:13: define it in one file only\nb.yaml:3:11: feedback is already defined at a.yaml:3:11: define it in one file only"
	if err == nil || err.Error() != want {
		t.Errorf("both in two files: %v, want %s", err, want)
	}
	// What a rule needs may stand in another file.
	if _, err := Load(t.Context(), File{"a.yaml", []byte("version: 1\nrules: [{ name: a, jobspec: j, runner: { scope: enterprise } }]\n")}, File{"b.yaml", []byte("version: 1\ndefaults: { runner: { enterprise: acme } }\n" + rule("b"))}); err != nil {
		t.Error(err)
	}
}

// The server reloads rules while the console checks others.
func TestFilesLoadAtTheSameTime(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		for _, src := range []string{
			"version: 1\nlabels: { 'cpu=*': { param: { name: cpu, type: int, min: 1, max: 8 } } }\nrules: [{ name: r, jobspec: j }]\n",
			"version: 1\ndefaults: { max: { cpu: 2000 }, time_limit: 1h }\nrules: [{ name: r, jobspec: j, fallback: [{ after: 5m }] }]\n",
		} {
			wg.Go(func() {
				if _, err := Parse("rules.yaml", []byte(src)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
}

func TestADecisionSaysHowUrgentTheJobIs(t *testing.T) {
	s := parse(t, `version: 1
labels: { self-hosted: {}, linux: {}, hotfix: { urgency: 50 }, later: { urgency: 0 }, "urgency=*": { param: { name: urgency, type: int, min: 0, max: 200 }, urgency: '${{ param.urgency }}' } }
rules:
  - name: any
    if: job.name == "any"
    jobspec: j
    limit: { running: 2, order: fair }
  - name: classic
    if: job.name == "classic"
    dispatch: { job: classic }
    limit: { running: 2, order: priority }
    urgency: 3
  - name: linux
    jobspec: j
    limit: { running: 2, order: priority }
    urgency: '${{ job.branch == "main" ? 10 : 0 }}'
    fallback: [{ after: 5m, node_pool: on-demand }]
`)
	for _, tt := range []struct {
		job, branch string
		labels      []string
		urgency     int
		from        string
	}{
		{"", "topic", nil, 0, "rule linux"},
		{"", "main", nil, 10, "rule linux"},
		{"", "main", []string{"later"}, 10, "rule linux"},
		{"", "main", []string{"urgency=9", "hotfix"}, 50, "label hotfix"},
		{"", "main", []string{"urgency=51", "hotfix"}, 51, "label urgency=51"},
		{"any", "main", nil, 0, ""},
		{"any", "main", []string{"hotfix"}, 50, "label hotfix"},
		{"classic", "main", []string{"urgency=9"}, 9, "label urgency=9"},
	} {
		f := job(append([]string{"linux"}, tt.labels...)...)
		f.Job.Name, f.Job.Branch = tt.job, tt.branch
		d := s.Decide(f, false)
		if d.Outcome != Routed || d.Urgency != tt.urgency || d.From["urgency"] != tt.from {
			t.Errorf("%+v: got %d from %q, %s", tt, d.Urgency, d.From["urgency"], d.Reason)
		}
		if want := (tt.job != "any"); (d.Limit.Order == Priority) != want {
			t.Errorf("%+v: the order is %q", tt, d.Limit.Order)
		}
	}
	if d := s.Decide(job("linux", "urgency=101"), false); d.Outcome != Unroutable ||
		d.Reason != "rule linux took the job, but it cannot be put in its order: label urgency=101: urgency: ${{ param.urgency }} gives an invalid value: 101 is not between 0 and 100" {
		t.Errorf("an urgency out of bounds: %s, %s", d.Outcome, d.Reason)
	}
}
