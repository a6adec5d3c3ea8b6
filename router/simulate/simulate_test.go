package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"
	"pgregory.net/rapid"

	"switchyard/router"
	"switchyard/router/feasible"
	"switchyard/rules"
)

var t0 = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

func load(t interface {
	rapid.TB
	Context() context.Context
}, text string) *rules.Set {
	t.Helper()
	set, err := rules.Load(t.Context(), rules.File{Name: "rules.yaml", Source: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func fleetOf(t testing.TB, text string) []*api.Node {
	t.Helper()
	nodes, err := ReadFleet("fleet.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

// render lays as much of a placement over an empty jobspec as matters here.
func render(_ context.Context, r router.StartRequest) (*api.Job, error) {
	p := r.Placement
	job := api.NewBatchJob(r.Runner.ID, r.Runner.ID, "global", p.Priority)
	for _, c := range p.Constraints {
		job.Constrain(api.NewConstraint(c.Attribute, c.Operator, c.Value))
	}
	for _, a := range p.Affinities {
		job.AddAffinity(api.NewAffinity(a.Attribute, a.Operator, a.Value, int8(a.Weight)))
	}
	if p.NodePool != "" {
		job.NodePool = &p.NodePool
	}
	job.Datacenters = p.Datacenters
	task := api.NewTask("runner", "raw_exec")
	task.Resources = &api.Resources{MemoryMB: &p.Resources.MemoryMB}
	if p.Resources.Cores > 0 {
		task.Resources.Cores = &p.Resources.Cores
	} else if p.Resources.CPU > 0 {
		task.Resources.CPU = &p.Resources.CPU
	}
	for _, d := range p.Devices {
		task.Resources.Devices = append(task.Resources.Devices, &api.RequestedDevice{Name: d.Name, Count: new(uint64(d.Count))})
	}
	return job.AddTaskGroup(api.NewTaskGroup("runner", 1).AddTask(task)), nil
}

// past is a job that comes at a second, and whose runner starts at once and runs for so many.
func past(id int64, at, takes float64, repo string, labels ...string) router.PastJob {
	when := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
	j := router.PastJob{RunID: id, ReceivedAt: when(at), PlacedAt: when(at), RunningAt: when(at), CompletedAt: when(at + takes), EndedAt: when(at + takes)}
	j.ID, j.Labels = id, labels
	owner, name, _ := strings.Cut(repo, "/")
	j.Repo = router.Repo{Owner: owner, Name: name, FullName: repo, Private: true}
	return j
}

func all(jobs []router.PastJob) iter.Seq2[router.PastJob, error] {
	return func(yield func(router.PastJob, error) bool) {
		for _, j := range jobs {
			if !yield(j, nil) {
				return
			}
		}
	}
}

func simulated(t testing.TB, c Config, jobs ...router.PastJob) Report {
	t.Helper()
	c.Render = render
	r, err := Run(t.Context(), c, all(jobs))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const shop = `
version: 1
scope: 'true'
labels: { linux: {}, large: { resources: { memory: 6GiB } }, gpu: { devices: [nvidia/gpu] }, urgent: {} }
defaults: { resources: { memory: 2GiB } }
rules:
  - { name: urgent, if: has("urgent"), jobspec: shell, priority: 90 }
  - { name: limited, if: has("gpu"), jobspec: shell, limit: { running: 2, per: rule } }
  - { name: linux, if: has("linux"), jobspec: shell, fallback: [{ after: 5m, node_pool: spare }] }
`

func row(t *testing.T, r Report, rule string) Row {
	t.Helper()
	i := slices.IndexFunc(r.Rules, func(w Row) bool { return w.Rule == rule })
	if i < 0 {
		t.Fatalf("no row of %s in %+v", rule, r.Rules)
	}
	return r.Rules[i]
}

func TestJobsWaitForANodeInTheirOrder(t *testing.T) {
	c := Config{Rules: load(t, shop), Nodes: fleetOf(t, `nodes: [{ os: linux, arch: amd64, cores: 8, memory: 8GiB }]`)}
	r := simulated(t, c,
		past(1, 0, 100, "a/a", "linux", "large"), // 6 of 8 GiB until 100
		past(2, 10, 100, "a/a", "linux", "large"),
		past(3, 20, 10, "a/a", "linux"),           // fits beside the first, overtakes the second
		past(4, 22, 200, "a/a", "linux"),          // waits until 80, for the urgent one
		past(5, 23, 50, "a/a", "linux", "urgent"), // waits until 30
		past(6, 200.5, 5, "a/a", "linux", "large"),
	)
	if diff := cmp.Diff(Waits{Mean: (90 + 58) / 5., P50: 0, P95: 58, P99: 58, Max: 90}, row(t, r, "linux").Node); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if w := row(t, r, "urgent"); w.Node.Max != 7 {
		t.Errorf("the urgent one waited %+v", w.Node)
	}
	if r.Until != t0.Add(280*time.Second) {
		t.Errorf("it ends at %v", r.Until)
	}
}

func TestALimitPassesPlacesOnByRepository(t *testing.T) {
	c := Config{Rules: load(t, shop), Nodes: fleetOf(t, `nodes: [{ os: linux, arch: amd64, cores: 64, memory: 99GiB, devices: [{ name: nvidia/gpu/L4, count: 9 }] }]`)}
	r := simulated(t, c,
		past(1, 0, 100, "a/a", "gpu"), past(2, 1, 150, "a/a", "gpu"),
		past(3, 2, 100, "a/a", "gpu"), past(4, 3, 10, "b/b", "gpu"), // at 100 the first place is b's, which has none
	)
	w := row(t, r, "limited")
	if w.Limit.Max != 110-2 || w.Node.Max != 0 || w.Limit.P50 != 0 {
		t.Errorf("waited %+v for a place and %+v for a node", w.Limit, w.Node)
	}
}

func TestAnAffinityDrawsJobsToItsNodes(t *testing.T) {
	c := Config{Nodes: fleetOf(t, `nodes: [{ os: linux, arch: amd64, cores: 8, memory: 8GiB }, { os: linux, arch: amd64, class: spot, cores: 64, memory: 99GiB }]`)}
	for affinity, want := range map[string]string{"": "", "affinities: [{ attribute: '${node.class}', value: spot, weight: 50 }]": "spot"} { // else the smaller node, which is fuller then
		c.Rules = load(t, "version: 1\nscope: 'true'\nlabels: { linux: {} }\ndefaults: { resources: { memory: 2GiB } }\nrules:\n  - name: linux\n    jobspec: shell\n    "+affinity+"\n")
		for _, g := range simulated(t, c, past(1, 0, 10, "a/a", "linux")).Groups {
			if (g.Jobs == 1) != (g.Class == want) {
				t.Errorf("with %q, %d jobs ran on class %q", affinity, g.Jobs, g.Class)
			}
		}
	}
}

func TestALimitThatGoesByUrgencyServesTheMostUrgentFirst(t *testing.T) {
	c := Config{Nodes: fleetOf(t, `nodes: [{ os: linux, arch: amd64, cores: 64, memory: 99GiB }]`), Rules: load(t, `
version: 1
scope: 'true'
labels: { linux: {}, urgent: { urgency: 50 } }
rules: [{ name: all, jobspec: shell, limit: { running: 1, per: rule, order: priority } }]
`)}
	r := simulated(t, c, past(1, 0, 100, "a/a", "linux"), past(2, 1, 10, "a/a", "linux"), past(3, 2, 10, "b/b", "linux"), past(4, 50, 10, "a/a", "urgent"))
	if w := row(t, r, "all"); w.Limit.Max != 118 || w.Limit.P50 != 50 { // of 0, 50 for the urgent one, 119 or 118, and 109 or 108
		t.Errorf("waited %+v for a place", w.Limit)
	}
}

func TestAFallbackTakesEffectInItsTime(t *testing.T) {
	c := Config{Rules: load(t, shop), Nodes: fleetOf(t, `nodes: [{ os: linux, arch: amd64, cores: 8, memory: 2GiB }, { os: linux, arch: amd64, cores: 8, memory: 2GiB, pool: spare }]`)}
	r := simulated(t, c, past(1, 0, 1000, "a/a", "linux"), past(2, 10, 10, "a/a", "linux"), past(3, 700, 400, "a/a", "linux"))
	c.Nodes = c.Nodes[:1] // without any for the fallback
	if w := row(t, simulated(t, c, past(1, 0, 1000, "a/a", "linux"), past(2, 10, 10, "a/a", "linux")), "linux"); w.Never != 1 || w.Jobs != 1 {
		t.Errorf("a fallback without nodes: %+v", w)
	}
	if w := row(t, r, "linux"); w.FellBack != 1 || w.Node.P50 != 300 || w.Node.Max != 300 { // the third has a node at 1000, by both
		t.Errorf("%+v", w)
	}
}

func TestWhatIsLeftOutIsCounted(t *testing.T) {
	c := Config{Rules: load(t, shop), Nodes: fleetOf(t, `nodes: [{ os: linux, arch: amd64, cores: 8, memory: 4GiB }]`)}
	never, open := past(1, 0, 10, "a/a", "linux"), past(2, 0, 10, "a/a", "linux")
	never.RunningAt, open.CompletedAt = time.Time{}, time.Time{}
	r := simulated(t, c, never, open, past(3, 0, 10, "a/a", "windows"), past(4, 0, 10, "a/a", "linux", "large"), past(5, 0, 10, "a/a", "linux"))
	want := []LeftOut{{"never ran", 1}, {"not known when it ended", 1}, {"unroutable", 1}}
	if diff := cmp.Diff(want, r.LeftOut); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if w := row(t, r, "linux"); w.Never != 1 || w.Jobs != 1 || !slices.Equal(w.Why, []string{"1 of 1 nodes: is too small: memory"}) {
		t.Errorf("%+v", w)
	}
	if r.Groups[0].Used != 1 || r.Groups[0].CPU != 0.005 || r.Groups[0].Memory != 0.5 {
		t.Errorf("%+v", r.Groups)
	}
}

func TestAJobOnAWarmRunnerHadNoStart(t *testing.T) {
	c := Config{Rules: load(t, shop), Nodes: fleetOf(t, `nodes: [{ os: linux, arch: amd64, cores: 8, memory: 4GiB }]`)}
	j := past(1, 3600, 10, "a/a", "linux")
	j.PlacedAt = t0
	if w := row(t, simulated(t, c, j), "linux"); w.Start.Max != 0 || w.Queue.Max != 0 {
		t.Errorf("it took %+v to start", w.Start)
	}
}

func TestAScaleAddsCopiesOfRuns(t *testing.T) {
	c := Config{Rules: load(t, shop), Nodes: fleetOf(t, `nodes: [{ os: linux, arch: amd64, cores: 8, memory: 99GiB }]`)}
	var jobs []router.PastJob
	for i := range int64(40) {
		j := past(i+1, float64(i), 10, "a/a", "linux")
		j.RunID = i/2 + 1
		jobs = append(jobs, j)
	}
	for scale, want := range map[float64]int{0.5: 20, 1: 40, 1.5: 60, 3: 120} {
		c.Scale = scale
		if r := simulated(t, c, jobs...); r.Jobs != want || scale > 1 && r.Until.Sub(r.From) < 5*time.Minute {
			t.Errorf("x%g has %d jobs until %v, want %d", scale, r.Jobs, r.Until, want)
		}
	}
}

// world is a history and a fleet that rapid makes up.
type madeUp struct {
	nodes []*api.Node
	jobs  []router.PastJob
}

// makeUp makes up jobs of several pools. If they are alike, all jobs of a pool ask for the same.
func makeUp(t *rapid.T, alike bool) (w madeUp, set string) {
	set = "version: 1\nscope: 'true'\nlabels: { small: {}, large: { resources: { cpu: 3000, memory: 3GiB } }, urgent: {}, p0: {}, p1: {}, any: {} }\ndefaults: { resources: { cpu: 1000, memory: 1GiB } }\nrules:\n"
	if !alike {
		set += "  - { name: urgent, if: has(\"urgent\"), jobspec: shell, priority: 80, node_pool: p0, limit: { running: 3, per: repo } }\n" +
			"  - { name: any, if: has(\"any\"), jobspec: shell, node_pool: all, affinities: [{ attribute: '${node.class}', value: liked, weight: 50 }] }\n"
	}
	set += "  - { name: p0, if: has(\"p0\"), jobspec: shell, node_pool: p0 }\n  - { name: p1, if: has(\"p1\"), jobspec: shell, node_pool: p1, resources: { memory: 2GiB } }\n"
	for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
		w.nodes = append(w.nodes, drawNode(t, i))
	}
	at := 0.0
	for i := range rapid.IntRange(1, 60).Draw(t, "jobs") {
		at += float64(rapid.IntRange(0, 20).Draw(t, "pause"))
		labels := []string{rapid.SampledFrom([]string{"p0", "p1"}).Draw(t, "pool")}
		if !alike {
			labels = append(labels, rapid.SampledFrom([]string{"small", "small", "large", "urgent", "any"}).Draw(t, "kind"))
		}
		w.jobs = append(w.jobs, past(int64(i+1), at, float64(rapid.IntRange(1, 200).Draw(t, "takes")), rapid.SampledFrom([]string{"a/a", "a/b", "c/c"}).Draw(t, "repo"), labels...))
	}
	return w, set
}

func drawNode(t *rapid.T, i int) *api.Node {
	size := rapid.IntRange(1, 5).Draw(t, "size")
	f := fileNodes{
		OS: "linux", Arch: "amd64", Pool: rapid.SampledFrom([]string{"p0", "p1"}).Draw(t, "of"), Class: rapid.SampledFrom([]string{"", "liked"}).Draw(t, "class"),
		Cores: size, CPU: 1000 * size, Memory: mebibytes(1024 * rapid.IntRange(1, 5).Draw(t, "memory")),
	}
	n, err := f.node()
	if err != nil {
		t.Fatal(err)
	}
	n.ID, n.Name = fmt.Sprint("n", i), fmt.Sprint("n", i)
	return n
}

func outcomeOf(t *rapid.T, set *rules.Set, nodes []*api.Node, jobs []router.PastJob) (*plan, *fleet, *outcome) {
	c := Config{Rules: set, Nodes: nodes, Render: render, Scale: 1, Progress: func(Progress) {}}
	p, err := newPlan(t.Context(), c, all(jobs))
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(nodes, p.demands)
	o, err := simulate(t.Context(), p, f, f.counts(), func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return p, f, o
}

// Where jobs that share nodes ask for the same, at the same priority and without limits, no
// job waits longer when there are more nodes.
func TestMoreNodesNeverRaiseAWaitWhereJobsAreAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, text := makeUp(t, true)
		set := load(t, text)
		p, _, before := outcomeOf(t, set, w.nodes, w.jobs)
		more := slices.Clone(w.nodes)
		for range rapid.IntRange(1, 3).Draw(t, "more") {
			more = append(more, drawNode(t, len(more)))
		}
		_, _, after := outcomeOf(t, set, more, w.jobs)
		for i := range p.jobs {
			if before.placed[i] >= 0 && (after.placed[i] < 0 || after.placed[i] > before.placed[i]) {
				t.Fatalf("job %d had a node at %d, and with more nodes at %d", p.jobs[i].id, before.placed[i], after.placed[i])
			}
		}
	})
}

// The documentation's exception: with two nodes, jobs of a low priority start before a burst
// of urgent ones, which then wait for them.
func TestMoreNodesMayRaiseTheMeanWaitWithPriorities(t *testing.T) {
	c := Config{Rules: load(t, shop)}
	var jobs []router.PastJob
	for i := range int64(5) {
		jobs = append(jobs, past(i+1, 0, 10, "a/a", "linux", "large", "urgent"))
	}
	jobs = append(jobs, past(6, 1, 1000, "a/a", "linux", "large"), past(7, 1, 1000, "a/a", "linux", "large"))
	for i := range int64(100) {
		jobs = append(jobs, past(i+8, 49, 0.1, "a/a", "linux", "large", "urgent"))
	}
	mean := func(nodes int) float64 {
		c.Nodes = fleetOf(t, fmt.Sprintf("nodes: [{ count: %d, os: linux, arch: amd64, cores: 8, memory: 8GiB }]", nodes))
		return simulated(t, c, jobs...).Total.Node.Mean
	}
	if one, two, three := mean(1), mean(2), mean(3); two < 10*one || three >= one {
		t.Errorf("the mean wait is %v s with one node, %v s with two and %v s with three", one, two, three)
	}
}

// Whatever jobs ask for: no node is ever overcommitted, no limit exceeded, no job waits while a
// node has room for it, and a second simulation is the same.
func TestThePolicyHoldsAtEachMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, text := makeUp(t, false)
		set := load(t, text)
		p, f, o := outcomeOf(t, set, w.nodes, w.jobs)
		_, _, again := outcomeOf(t, set, w.nodes, w.jobs)
		if diff := cmp.Diff(o.placed, again.placed); diff != "" {
			t.Fatalf("a second simulation differs: %s", diff)
		}
		for i := range p.jobs {
			if o.placed[i] >= 0 {
				checkMoment(t, p, f, o, o.placed[i])
				checkMoment(t, p, f, o, o.placed[i]+p.jobs[i].start+p.jobs[i].run+p.jobs[i].tail)
			}
		}
	})
}

// checkMoment checks what holds after all that happens at a moment.
func checkMoment(t *rapid.T, p *plan, f *fleet, o *outcome, at int64) {
	left := make([]feasible.Amount, len(o.classes))
	for i, c := range o.classes {
		left[i] = f.classes[c].idle
	}
	type place struct{ limit, repo int32 }
	places := map[place]int{}
	for i := range p.jobs {
		j := &p.jobs[i]
		ends := o.placed[i] + j.start + j.run
		if o.placed[i] < 0 || o.admitted[i] > at {
			continue
		}
		if j.limit >= 0 && ends > at {
			if places[place{j.limit, j.repo}]++; places[place{j.limit, j.repo}] > p.limits[j.limit] {
				t.Fatalf("at %d a repository has more places than its limit", at)
			}
		}
		if n := o.node[i]; o.placed[i] <= at && ends+j.tail > at {
			class := &f.classes[o.classes[n]]
			take, short := feasible.Take(class.node, left[n], p.demands[o.as[i]].group)
			if short != "" || !class.suits[o.as[i]] {
				t.Fatalf("at %d job %d has a node that has no room for it: %s", at, j.id, short)
			}
			left[n] = left[n].Plus(-1, take)
		}
	}
	for i := range p.jobs {
		j := &p.jobs[i]
		if o.placed[i] < 0 || o.admitted[i] > at || o.placed[i] <= at {
			continue
		}
		for n, c := range o.classes {
			if _, short := feasible.Take(f.classes[c].node, left[n], p.demands[o.as[i]].group); short == "" && f.classes[c].suits[o.as[i]] {
				t.Fatalf("at %d job %d waits although a node has room for it", at, j.id)
			}
		}
	}
}

func TestAFleetFileIsWrittenAndReadTheSame(t *testing.T) {
	const text = `nodes:
  - { name: linux, count: 2, os: linux, arch: amd64, cores: 16, memory: 64GiB, meta: { zone: a } }
  - { names: [g, h], os: linux, arch: amd64, class: gpu, pool: ci, datacenter: tokyo, cores: 32, reservable_cores: 30, cpu: 96000, memory: 1000, disk: 1TiB,
      reserved: { cpu: 2000, memory: 4GiB }, drivers: [docker], host_volumes: [{ name: cache, read_only: true }], devices: [{ name: nvidia/gpu/L4, count: 2, attributes: { memory: 24 GiB } }], attributes: { os.name: debian } }
`
	nodes := fleetOf(t, text)
	written, err := WriteFleet(nodes)
	if err != nil {
		t.Fatal(err)
	}
	again := fleetOf(t, string(written))
	asText := func(nodes []*api.Node) string {
		for _, n := range nodes {
			n.NodeResources.Cpu.ReservableCpuCores = n.NodeResources.Cpu.ReservableCpuCores[:len(n.NodeResources.Cpu.ReservableCpuCores):len(n.NodeResources.Cpu.ReservableCpuCores)]
		}
		b, err := json.MarshalIndent(nodes, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if diff := cmp.Diff(asText(nodes), asText(again)); diff != "" {
		t.Errorf("%s\n(-want +got):\n%s", written, diff)
	}
	if got := nodes[2]; got.Name != "g" || got.NodePool != "ci" || len(got.NodeResources.Devices[0].Instances) != 2 || got.NodeResources.Memory.MemoryMB != 1000 {
		t.Errorf("read %+v", got)
	}
}

func TestAFaultOfAFleetFileHasItsPlace(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "f.yaml:1:1: it has no nodes",
		"nodes: []":               "f.yaml:1:1: it has no nodes",
		"nodes:\n  - { nme: x }":  "f.yaml:2:7: unknown field \"nme\"",
		"nodes:\n  - { name: x }": "os and arch are missing",
		"nodes: [{ os: linux, arch: amd64, cores: 1, memory: lots }]":                      "lots is no size",
		"nodes: [{ os: linux, arch: amd64, cores: 0, memory: 1GiB }]":                      "cores 0: want a number from 1",
		"nodes: [{ os: linux, arch: amd64, cores: 1, memory: 1GiB, count: 1000000 }]":      "count 1000000: want",
		"nodes: [{ os: linux, arch: amd64, cores: 1, memory: 1GiB, names: [a], count: 1}]": "names takes the place of name and count",
		"nodes: [{ os: linux, arch: amd64, cores: 1, memory: 1GiB, names: [a, a] }]":       `two nodes are called "a"`,
		"nodes: [{ os: linux, arch: a, cores: 1, memory: 1GiB, devices: [{ name: gpu }]}]": "want vendor/type/model",
	} {
		_, err := ReadFleet("f.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestNodesThatWouldHelpOrCouldGoAreFound(t *testing.T) {
	c := Config{Rules: load(t, shop), Advise: 2, Nodes: fleetOf(t, `nodes:
  - { name: small, count: 12, os: linux, arch: amd64, cores: 8, memory: 8GiB, pool: spare }
  - { name: main, count: 3, os: linux, arch: amd64, cores: 8, memory: 8GiB }
`)}
	var jobs []router.PastJob // eight at a time: three nodes run six of them
	for i := range int64(80) {
		jobs = append(jobs, past(i+1, float64(i/8*200), 180, "a/a", "linux", "urgent"))
		jobs[i].Labels = append(jobs[i].Labels, "large")
	}
	r := simulated(t, c, jobs...)
	want := []Advice{
		{More: 4, Like: "main-1", OS: "linux", Arch: "amd64", Pool: "default", Rule: "urgent", Before: 2700, After: 200},
		{More: -12, Unused: 12, OS: "linux", Arch: "amd64", Pool: "spare"},
	}
	if diff := cmp.Diff(want, r.Advice); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
