package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// records are jobs with the IDs 1, 2, …
func records(jobs ...Facts) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for i, f := range jobs {
			if !yield(Record{ID: int64(i + 1), Facts: f}, nil) {
				return
			}
		}
	}
}

func compare(t tester, before, after *Set, jobs ...Facts) Comparison {
	t.Helper()
	c, err := Compare(context.Background(), before, after, records(jobs...))
	if err != nil {
		t.Fatalf("Compare: %v", err)
	}
	return c
}

// Each case changes one thing in this file, of which one job is decided.
func TestEachKindOfChangeIsFound(t *testing.T) {
	const src = `version: 1
labels:
  self-hosted: {}
  linux: {}
  gpu: { devices: [{ name: nvidia/gpu, constraints: ['${device.model} = A', '${device.attr.memory} >= 8GiB'] }] }
defaults: { datacenters: [dc1, dc2], node_pool: ci, namespace: ci, priority: 50, resources: { cpu: 2000, memory: 4GiB, memory_max: 8GiB, disk: 1GiB } }
rules:
  - name: linux
    if: has("linux")
    jobspec: docker-linux
    constraints: ['${attr.kernel.name} = linux', '${meta.a} = 1']
    affinities: [{ attribute: '${node.class}', value: spot, weight: 50 }]
    task: { env: { A: '1', B: '' }, config: { image: 'x:1', mounts: [a, { b: [1, 2.5, true] }] } }
    runner: { scope: organization, group: 7 }
    limit: { running: 10, per: owner }
    fallback: [{ after: 5m, node_pool: od }, { after: 1h, node_pool: all }]
`
	for _, tt := range []struct {
		name, from, to string
		want           []Change
	}{
		{"nothing", "", "", nil},
		{"a comment", "version: 1", "version: 1 # first", nil},
		{"the order of constraints", "'${attr.kernel.name} = linux', '${meta.a} = 1'", "'${meta.a} = 1', '${attr.kernel.name} = linux'", nil},
		{"the order of datacenters", "[dc1, dc2]", "[dc2, dc1]", nil},
		{"the order within a device", "'${device.model} = A', '${device.attr.memory} >= 8GiB'", "'${device.attr.memory} >= 8GiB', '${device.model} = A'", nil},
		{"the spelling of an operator", "kernel.name} = linux", "kernel.name} == linux", nil},
		{"where a value comes from", "jobspec: docker-linux", "jobspec: docker-linux\n    node_pool: ci", nil},
		{"where a constraint comes from", "linux: {}", "linux: { constraints: ['${attr.kernel.name} = linux'] }", nil},

		{"outcome", src[strings.Index(src, "    jobspec:"):], "    deny: no\n", []Change{{"outcome", "routed", "denied"}}},
		{"the reason alone", "if: has(\"linux\")", "if: has(\"linux\") # all", nil},
		{"outcome and rule", "if: has(\"linux\")", "if: has(\"linux\") and repo.owner == \"other\"", []Change{{"outcome", "routed", "unroutable"}, {"rule", "linux", ""}}},
		{"scope", "version: 1", "version: 1\nscope: 'false'", []Change{{"outcome", "routed", "ignored"}, {"rule", "linux", ""}}},
		{"the rule's name", "name: linux", "name: tux", []Change{{"rule", "linux", "tux"}}},
		{"jobspec", "jobspec: docker-linux", "jobspec: shell", []Change{{"jobspec", "docker-linux", "shell"}}},
		{"a constraint that comes", "'${meta.a} = 1']", "'${meta.a} = 1', '${meta.rack} is_set']", []Change{{"constraints", "", "${meta.rack} is_set"}}},
		{"a constraint that goes", "'${attr.kernel.name} = linux', ", "", []Change{{"constraints", "${attr.kernel.name} = linux", ""}}},
		{"a constraint's value", "kernel.name} = linux", "kernel.name} = darwin", []Change{{"constraints", "${attr.kernel.name} = linux", ""}, {"constraints", "", "${attr.kernel.name} = darwin"}}},
		{"an affinity's weight", "weight: 50", "weight: -1", []Change{{"affinities", "${node.class} = spot, weight 50", ""}, {"affinities", "", "${node.class} = spot, weight -1"}}},
		{"a device's count", "name: nvidia/gpu,", "name: nvidia/gpu, count: 2,", []Change{
			{"devices", "1 nvidia/gpu, ${device.attr.memory} >= 8GiB, ${device.model} = A", ""}, {"devices", "", "2 nvidia/gpu, ${device.attr.memory} >= 8GiB, ${device.model} = A"}}},
		{"cpu in place of cores", "cpu: 2000", "cores: 2", []Change{{"resources.cpu", "2000", ""}, {"resources.cores", "", "2"}}},
		{"memory", "memory: 4GiB", "memory: 5GiB", []Change{{"resources.memory_mb", "4096", "5120"}}},
		{"memory_max", "memory_max: 8GiB", "memory_max: 9GiB", []Change{{"resources.memory_max_mb", "8192", "9216"}}},
		{"disk", ", disk: 1GiB", "", []Change{{"resources.disk_mb", "1024", ""}}},
		{"node pool", "node_pool: ci", "node_pool: od", []Change{{"node_pool", "ci", "od"}}},
		{"datacenters", "[dc1, dc2]", "[dc2, dc3]", []Change{{"datacenters", "dc1", ""}, {"datacenters", "", "dc3"}}},
		{"namespace", "namespace: ci, ", "", []Change{{"namespace", "ci", ""}}},
		{"region", "namespace: ci, ", "namespace: ci, region: osaka, ", []Change{{"region", "", "osaka"}}},
		{"priority", "priority: 50", "priority: 60", []Change{{"priority", "50", "60"}}},
		{"task env", "{ A: '1', B: '' }", "{ A: '2', C: 'x y' }", []Change{{"task.env.A", `"1"`, `"2"`}, {"task.env.B", `""`, ""}, {"task.env.C", "", `"x y"`}}},
		{"task config", "x:1', mounts: [a, { b: [1, 2.5, true] }]", "x:2', mounts: [a, { b: [1, 2.5, false] }]", []Change{
			{"task.config.image", `"x:1"`, `"x:2"`}, {"task.config.mounts", `["a",{"b":[1,2.5,true]}]`, `["a",{"b":[1,2.5,false]}]`}}},
		{"how the runner registers", "scope: organization, group: 7", "scope: repository", []Change{{"runner.scope", "organization", "repository"}, {"runner.group", "7", "1"}}},
		{"by what", "scope: organization, group: 7", "scope: enterprise, enterprise: acme, group: 7, registration: token", []Change{{"runner.scope", "organization", "enterprise"}, {"runner.enterprise", "", "acme"}, {"runner.registration", "jit", "token"}}},
		{"a time limit that comes", "limit: {", "time_limit: 6h\n    limit: {", []Change{{"time_limit", "", "6h"}}},
		{"a rerun that comes", "limit: {", "rerun: { when: [drained, node_lost], times: 2 }\n    limit: {", []Change{{"rerun", "", "up to 2 times, if node_lost or drained"}}},
		{"limit", "running: 10, per: owner", "running: 9, per: repo", []Change{{"limit", "10 running per owner", "9 running per repo"}}},
		{"an order and an urgency", "per: owner }", "per: owner, order: priority }\n    urgency: 7", []Change{{"limit", "10 running per owner", "10 running per owner, order priority"}, {"urgency", "", "7"}}},
		{"a fallback that comes", "pool: all }]", "pool: all }, { after: 2h, priority: 90 }]", []Change{{"fallback", "", "after 2h"}}},
		{"a fallback at another time", "after: 5m", "after: 90s", []Change{{"fallback", "after 5m", ""}, {"fallback", "", "after 1m30s"}}},
		{"a fallback that goes elsewhere", "node_pool: all", "node_pool: any", []Change{{"fallback.1h.node_pool", "all", "any"}}},
		{"a condition on a run that is not known", "if: has(\"linux\")", "if: has(\"linux\") and not run.fork", []Change{{"outcome", "routed", "undecided"}}},
		{"dispatch", src[strings.Index(src, "    jobspec:"):], "    dispatch: classic\n    limit: { running: 10, per: owner }\n", []Change{{"jobspec", "docker-linux", ""}, {"dispatch", "", "classic"},
			{"constraints", "${attr.kernel.name} = linux", ""}, {"constraints", "${meta.a} = 1", ""},
			{"affinities", "${node.class} = spot, weight 50", ""}, {"devices", "1 nvidia/gpu, ${device.attr.memory} >= 8GiB, ${device.model} = A", ""},
			{"resources.cpu", "2000", ""}, {"resources.memory_mb", "4096", ""}, {"resources.memory_max_mb", "8192", ""}, {"resources.disk_mb", "1024", ""},
			{"node_pool", "ci", ""}, {"datacenters", "dc1", ""}, {"datacenters", "dc2", ""}, {"priority", "50", ""}, {"task.env.A", `"1"`, ""}, {"task.env.B", `""`, ""},
			{"task.config.image", `"x:1"`, ""}, {"task.config.mounts", `["a",{"b":[1,2.5,true]}]`, ""}, {"runner.scope", "organization", "repository"}, {"runner.group", "7", "1"},
			{"fallback", "after 1h", ""}, {"fallback", "after 5m", ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(src, tt.from) {
				t.Fatalf("the file has no %q", tt.from)
			}
			before, after := parse(t, src), parse(t, strings.Replace(src, tt.from, tt.to, 1))
			f := job("linux", "gpu")
			is := after.Decide(f, false)
			want := Comparison{Jobs: 1, Groups: []Group{}}
			if is.Outcome == Undecided {
				want.Undecided = 1
			}
			if tt.want != nil {
				want.Changed = 1
				want.Groups = []Group{{Count: 1, Rule: is.Rule, Changes: tt.want, Examples: []ChangedJob{{ID: 1, Repo: "acme/web", Job: "build", Labels: f.Labels, Reason: is.Reason}}}}
			}
			same(t, want, compare(t, before, after, f), "Compare")
		})
	}
}

// What no single change of that file shows.
func TestWhatDecisionsDifferIn(t *testing.T) {
	decision := func(change func(*Decision)) *Decision {
		fallback := func(after Duration, pool string) Fallback {
			f := Fallback{After: after, Placement: nowhere()}
			f.NodePool = pool
			return f
		}
		d := &Decision{Outcome: Routed, Rule: "linux", Placement: nowhere(), Limit: &Limit{Running: 10, Per: "owner", Key: "linux|acme"}}
		d.Fallback = []Fallback{fallback(Duration(5*time.Minute), "od"), fallback(Duration(time.Hour), "all")}
		change(d)
		return d
	}
	for _, tt := range []struct {
		name   string
		change func(*Decision)
		want   []Change
	}{
		{"whom a limit counts with follows from the rule and the job", func(d *Decision) { d.Limit.Key = "tux/acme" }, nil},
		{"a fallback is left out", func(d *Decision) {
			d.Fallback[0] = Fallback{After: 5 * Duration(time.Minute), Placement: nowhere(), Reason: "over the most"}
		}, []Change{{"fallback", "after 5m", ""}, {"fallback", "", "after 5m, left out"}}},
		{"fallbacks change with the placement", func(d *Decision) {
			d.Priority, d.Fallback[0].Priority, d.Fallback[1].Priority = 70, 70, 80
		}, []Change{{"priority", "", "70"}, {"fallback.1h.priority", "", "80"}}},
		{"a job that is not routed asks for nothing", func(d *Decision) { *d = Decision{Outcome: Unroutable, Rule: "linux"} }, []Change{{"outcome", "routed", "unroutable"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			same(t, tt.want, changed(decision(func(*Decision) {}), decision(tt.change)), "changes")
		})
	}
	a, b := &Decision{Outcome: Denied, Rule: "a", Reason: "b"}, &Decision{Outcome: Denied, Rule: "a", Reason: "c"}
	if got := changed(a, b); got != nil {
		t.Errorf("a reason alone is a change: %v", got)
	}
}

func TestJobsThatChangeAlikeAreOneGroup(t *testing.T) {
	const src = `version: 1
labels: { self-hosted: {}, linux: {}, macos: {}, "cpu=*": { param: { name: cpu, type: int, min: 1, max: 32 }, resources: { cores: '${{ param.cpu }}' } } }
defaults: { node_pool: ci }
rules:
  - { name: macos, if: has("macos"), jobspec: mac }
  - { name: big, if: has("linux") and param.cpu > 6, jobspec: docker-linux }
  - { name: linux, if: has("linux"), jobspec: docker-linux }
`
	before := parse(t, src)
	after := parse(t, strings.NewReplacer("jobspec: mac", "deny: no macs", "node_pool: ci", "node_pool: ci2", "max: 32", "max: 8").Replace(src))
	jobs := []Facts{job("macos"), job("macos", "linux"), {Labels: []string{"ubuntu-latest"}}, job("nonsense")}
	for i := range 10 {
		f := job("linux", fmt.Sprintf("cpu=%d", i+1))
		f.Job.Name = fmt.Sprint("build ", i)
		jobs = append(jobs, f)
	}
	got := compare(t, before, after, jobs...)
	shape := []string{fmt.Sprintf("%d of %d", got.Changed, got.Jobs)}
	for _, g := range got.Groups {
		ids := []int64{}
		for _, e := range g.Examples {
			ids = append(ids, e.ID)
		}
		shape = append(shape, fmt.Sprintf("%d of rule %q such as %v: %v", g.Count, g.Rule, ids, g.Changes))
	}
	want := []string{
		"12 of 14",
		`8 of rule "" such as [5 6 7]: [{node_pool ci ci2}]`,
		`2 of rule "macos" such as [1 2]: [{outcome routed denied}]`,
		`2 of rule "" such as [13 14]: [{outcome routed unroutable} {rule big }]`,
	}
	same(t, want, shape, "JSON")
}

func TestGroupsAndExamplesAreBounded(t *testing.T) {
	const src = "version: 1\nlabels: { '*': {} }\nrules: [{ name: all, jobspec: j, task: { env: { NAME: '%s${{ job.name }}' } } }]\n"
	before, after := parse(t, fmt.Sprintf(src, "")), parse(t, fmt.Sprintf(src, "x"))
	var jobs []Facts
	for i := range maxGroups + 50 {
		f := job(strings.Repeat("ü", 300))
		f.Labels = append(f.Labels[:1], strings.Repeat("a", 200))
		f.Job.Name = fmt.Sprint(i)
		jobs = append(jobs, f, f)
	}
	got := compare(t, before, after, jobs...)
	if got.Changed != len(jobs) || len(got.Groups) != maxGroups || got.Ungrouped != 100 {
		t.Errorf("%d changed, %d groups, %d in none; want %d, %d and 100", got.Changed, len(got.Groups), got.Ungrouped, len(jobs), maxGroups)
	}
	r := Record{Facts: Facts{Labels: make([]string, 1000)}}
	r.Labels[0], r.Job.Name = strings.Repeat("ü", 300), strings.Repeat("ü", MaxLabelLength)
	if e := r.example(""); len(e.Labels) != MaxLabels || e.Labels[0] != strings.Repeat("ü", MaxLabelLength)+"…" || e.Job != r.Job.Name {
		t.Errorf("an example has %d labels, the first is %q, the job %q", len(e.Labels), e.Labels[0], e.Job)
	}
}

func TestCompareEndsAtAnError(t *testing.T) {
	boom := errors.New("boom")
	s := parse(t, "version: 1\nrules: [{ name: all, jobspec: j }]\n")
	_, err := Compare(t.Context(), s, s, func(yield func(Record, error) bool) {
		if yield(Record{}, nil) && yield(Record{}, boom) {
			t.Error("it went on")
		}
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v, want %v", err, boom)
	}
}

func TestAFileDoesNotDifferFromItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src := someVocabulary + strings.Join(drawRules(t), "")
		jobs := rapid.SliceOfN(rapid.Custom(drawJob), 1, 5).Draw(t, "jobs")
		got := compare(t, parse(t, src), parse(t, src), jobs...)
		got.Undecided = 0
		if diff := cmp.Diff(Comparison{Jobs: len(jobs), Groups: []Group{}}, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestTheFormOfARecordAndOfAComparison(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want string
	}{
		{Record{ID: 1, Facts: Facts{Labels: []string{"a"}}}, `{"id":1,"labels":["a"],"repo":{"owner":"","name":"","full_name":"","private":false,"visibility":"","fork":false},"job":{"name":"","workflow":"","branch":"","attempt":0,"sender":""}}`},
		{Comparison{Jobs: 2, Changed: 1, Groups: []Group{{Count: 1, Changes: []Change{{"rule", "a", "b"}}, Examples: []ChangedJob{{ID: 1, Labels: []string{}}}}}},
			`{"jobs":2,"changed":1,"undecided":0,"groups":[{"count":1,"rule":"","changes":[{"part":"rule","old":"a","new":"b"}],"examples":[{"id":1,"repo":"","job":"","labels":[],"reason":""}]}],"ungrouped":0}`},
	} {
		got, err := json.Marshal(tt.v)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// BenchmarkCompare compares files of 100 rules over jobs of a mix: teams,
// services, sizes, the rest, and some that nobody takes. One rule differs.
func BenchmarkCompare(b *testing.B) {
	src := manyRules(100)
	before, after := parse(b, src), parse(b, strings.Replace(src, "'${meta.team} = team-7'", "'${meta.team} = seven'", 1))
	const n = 100_000
	jobs := func(yield func(Record, error) bool) {
		for i := range n {
			f := job("linux", "x64", fmt.Sprint("team-", i%120))
			switch i % 7 {
			case 0:
				f = job("linux", "gpu", "cpu=8")
			case 1:
				f.Repo.Name, f.Repo.FullName = fmt.Sprint("service-", i%100), fmt.Sprint("acme/service-", i%100)
			case 2:
				f.Job.Branch = "release/1"
			case 3:
				f = Facts{Labels: []string{"ubuntu-latest"}}
			}
			if !yield(Record{ID: int64(i), Facts: f}, nil) {
				return
			}
		}
	}
	b.Run(fmt.Sprintf("jobs=%d", n), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c, err := Compare(b.Context(), before, after, jobs)
			if err != nil || c.Jobs != n || c.Changed == 0 || len(c.Groups) != 1 {
				b.Fatalf("%d of %d changed in %d groups, %v", c.Changed, c.Jobs, len(c.Groups), err)
			}
		}
	})
}

// What neither file asks for makes no job another.
func TestJobsThatAreAlikeAreDecidedOnce(t *testing.T) {
	before := parse(t, "version: 1\nlabels: { linux: {}, gpu: {} }\nrules:\n  - { name: main, if: 'job.branch == \"main\" and has(\"linux\")', jobspec: a }\n  - { name: rest, jobspec: a }\n")
	after := parse(t, "version: 1\nlabels: { linux: {}, gpu: {} }\nrules:\n  - { name: main, if: 'job.branch == \"main\" and has(\"linux\")', jobspec: b }\n  - { name: rest, if: repo.owner != \"x\", jobspec: a }\n")
	const n = 3000
	jobs := func(yield func(Record, error) bool) {
		for i := range n {
			f := job([]string{"linux", "gpu"}[i%2])
			f.Repo.Name, f.Job.Name, f.Job.Workflow, f.Job.Sender, f.Job.Attempt = fmt.Sprint("r", i), fmt.Sprint("build ", i), fmt.Sprint("w", i%9), fmt.Sprint("s", i%7), i
			f.Run = &Run{Actor: fmt.Sprint(i)}
			f.Job.Branch, f.Repo.Owner = []string{"main", "other"}[i/2%2], []string{"x", "acme", "ACME"}[i%3]
			if i == 5 {
				f.Job.Sender = strings.Repeat("s", 300)
			}
			if !yield(Record{ID: int64(i + 1), Facts: f}, nil) {
				return
			}
		}
	}
	c := newComparer(before, after)
	if err := c.compare(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	if c.decided != 2*2*3+1 { // labels, branches and owners; and the one with a long text
		t.Errorf("%d of %d jobs were decided, want 13", c.decided, c.Jobs)
	}
	one := newComparer(before, after)
	one.facts = map[string]bool{"repo": true, "job": true, "run": true} // all are different
	if err := one.compare(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one.Comparison, c.Comparison); diff != "" || one.decided != n || c.Changed == 0 {
		t.Errorf("%d were decided, %d change (-each by itself +once):\n%s", one.decided, c.Changed, diff)
	}

	const plain = "version: 1\nlabels: { linux: {}, gpu: {} }\nrules: [{ name: all, jobspec: a }]\n"
	c = newComparer(parse(t, plain), parse(t, strings.Replace(plain, "jobspec: a", "jobspec: a, task: { env: { NAME: '${{ job.workflow }}' } }", 1)))
	if err := c.compare(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	if c.Changed != n || len(c.Groups) != 9 { // one for each workflow
		t.Errorf("a template alone asks for a fact: %d change in %d groups", c.Changed, len(c.Groups))
	}
}

// What a decision costs depends on the longest text of a job, which nobody need ask for. One that
// another job might not afford is its own.
func TestJobsThatAreAlikeAffordTheSame(t *testing.T) {
	src := costlyRules(130, `repo.full_name matches "(a?b?a?b?){80}c%d"`)
	before, after := parse(t, src), parse(t, strings.Replace(src, "has(\"linux\"), jobspec: j", "has(\"linux\"), jobspec: other", 1))
	short, long := job("linux"), job("linux")
	long.Job.Name = strings.Repeat("n", MaxLabelLength)
	for _, jobs := range [][]Facts{{short, long}, {long, short}} {
		if c := compare(t, before, after, jobs...); c.Changed != 1 || c.Groups[0].Examples[0].Job != short.Job.Name {
			t.Errorf("%d of %d change; want the one with short texts: %+v", c.Changed, c.Jobs, c.Groups)
		}
	}
}

// What is kept of jobs is small, whatever they are.
func TestAComparisonKeepsNoLabels(t *testing.T) {
	s := parse(t, "version: 1\nlabels: { '*': {} }\nrules: [{ name: all, if: has(\"x\"), jobspec: j }]\n")
	c := newComparer(s, s)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const jobs, label = 2000, 200
	before := heap()
	err := c.compare(t.Context(), func(yield func(Record, error) bool) {
		for i := range jobs {
			f := job()
			for j := range 40 {
				f.Labels = append(f.Labels, fmt.Sprintf("%d-%s%d", i, strings.Repeat("a", label), j))
			}
			if !yield(Record{Facts: f}, nil) {
				return
			}
		}
	})
	if err != nil || len(c.alike) != jobs {
		t.Fatalf("%d kinds of jobs, %v", len(c.alike), err)
	}
	if kept := (heap() - before) / jobs; kept > 10*label {
		t.Errorf("%d bytes are kept of a job", kept)
	}
	runtime.KeepAlive(c)
}
