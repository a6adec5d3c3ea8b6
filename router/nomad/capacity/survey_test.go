package capacity

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"
	"pgregory.net/rapid"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// A cluster is a simulated one, with a client, and another beside it.
type cluster struct {
	*Client
	nomadtest.Target
	plans atomic.Int32 // that were asked for
}

func newCluster(t *testing.T, config nomadsim.Config) *cluster {
	t.Helper()
	on := new(cluster)
	sim := nomadsim.New(config)
	t.Cleanup(sim.Close)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/plan") {
			on.plans.Add(1)
		}
		sim.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	on.Target = nomadtest.At(t, server.URL)
	on.Sim = sim
	on.Client = newClient(t, on.Config)
	return on
}

// ask makes a route of jobspec plain. A part is a constraint, a device or what
// sets something, with its origin.
func ask(rule string, parts ...any) Route {
	r := Route{Rule: rule, Placement: router.Placement{Jobspec: "plain", From: map[string]string{}}}
	for _, part := range parts {
		switch part := part.(type) {
		case router.Constraint:
			r.Placement.Constraints = append(r.Placement.Constraints, part)
		case router.Device:
			r.Placement.Devices = append(r.Placement.Devices, part)
		case func(*router.Placement):
			part(&r.Placement)
		}
	}
	return r
}

func equal(attribute, value, from string) router.Constraint {
	return router.Constraint{Attribute: attribute, Operator: "=", Value: value, From: from}
}

func gpus(n int) router.Device { return router.Device{Name: "nvidia/gpu", Count: n, From: "label gpu"} }

func coresOf(n int) func(*router.Placement) {
	return func(p *router.Placement) {
		p.Resources.Cores, p.From["resources.cores"] = n, fmt.Sprintf("label cpu=%d", n)
	}
}

func memoryOf(mib int) func(*router.Placement) {
	return func(p *router.Placement) { p.Resources.MemoryMB, p.From["resources.memory_mb"] = mib, "defaults" }
}

func pool(name string) func(*router.Placement) {
	return func(p *router.Placement) { p.NodePool, p.From["node_pool"] = name, "defaults" }
}

func jobspec(name string) func(*router.Placement) {
	return func(p *router.Placement) { p.Jobspec = name }
}

func in(datacenters ...string) func(*router.Placement) {
	return func(p *router.Placement) { p.Datacenters, p.From["datacenters"] = datacenters, "rule r" }
}

var (
	linux  = equal("${attr.kernel.name}", "linux", "rule linux")
	darwin = equal("${attr.kernel.name}", "darwin", "rule macos")
	arm    = equal("${attr.cpu.arch}", "arm64", "label arm64")
)

func TestSurveyOfAMixedFleet(t *testing.T) {
	nodes := append(nomadsim.MixedFleet(),
		nomadsim.NewNode(nomadsim.Machine{Name: "ci-1", Kernel: "linux", Arch: "amd64", Cores: 8, MemoryMB: 64 << 10, Pool: "ci", Datacenter: "tokyo-a"}),
		nomadsim.NewNode(nomadsim.Machine{Name: "ci-2", Kernel: "linux", Arch: "amd64", Cores: 8, MemoryMB: 64 << 10, Pool: "ci", Datacenter: "tokyo-a"}),
		nomadsim.NewNode(nomadsim.Machine{Name: "ci-3", Kernel: "linux", Arch: "arm64", Cores: 32, MemoryMB: 16 << 10, Pool: "ci", Datacenter: "tokyo-b", GPUs: 1}),
		nomadsim.NewNode(nomadsim.Machine{Name: "mac-9", Kernel: "darwin", Arch: "arm64", Cores: 8, MemoryMB: 16 << 10, Pool: "ci", Datacenter: "tokyo-b"}),
		nomadsim.NewNode(nomadsim.Machine{Name: "old-1", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 8 << 10, Pool: "old"}),
	)
	nodes[len(nodes)-2].Status = "down"
	old := nodes[len(nodes)-1]
	old.Drain, old.SchedulingEligibility = true, "ineligible"
	nodes[0].ReservedResources.Memory.MemoryMB = 1 << 10
	on := newCluster(t, nomadsim.Config{Nodes: nodes, Namespaces: []string{"ci"}})
	for _, job := range []string{"classic", "picky", "claims", "simple"} {
		j := api.NewBatchJob(job, job, "global", 50)
		j.AddTaskGroup(api.NewTaskGroup("g", 3).AddTask(api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true")))
		switch job {
		case "classic":
			j.ParameterizedJob = &api.ParameterizedJobConfig{}
		case "claims":
			j.ParameterizedJob = &api.ParameterizedJobConfig{}
			j.TaskGroups[0].Tasks[0].Artifacts = []*api.TaskArtifact{{GetterSource: new("${NOMAD_META_SWITCHYARD_CLAIM_URL}")}}
		case "picky":
			j.ParameterizedJob = &api.ParameterizedJobConfig{}
			j.Constrain(api.NewConstraint("${attr.kernel.name}", "=", "vax"))
		default:
			j.Constrain(api.NewConstraint("${attr.kernel.name}", "=", "vax"))
		}
		on.Register(t, j)
	}
	if _, err := on.Nomad.NodePools().Register(&api.NodePool{Name: "bare"}, nil); err != nil {
		t.Fatal(err)
	}
	dispatch := func(job, namespace string) Route {
		return Route{Rule: "classic", Placement: router.Placement{Dispatch: job, Namespace: namespace}}
	}

	for _, c := range []struct {
		name  string
		route Route
		want  []string // as told has them
	}{
		{"a dispatch that fits", dispatch("classic", ""), nil},
		{"a dispatch with a key that the job does not take", Route{Rule: "classic", Placement: router.Placement{Dispatch: "classic", DispatchMeta: map[string]string{"REPO_URL": "x"}}}, []string{
			`no-such-job: dispatch job classic in namespace default: it does not take the meta keys that the rule gives: REPO_URL; it takes none: ` +
				`add them to meta_optional of the job, or correct dispatch meta in the rule`,
		}},
		{"a dispatched job that claims what it is not given", dispatch("claims", ""), []string{
			`claim-undeclared: warning: job claims fetches the claim, but does not declare SWITCHYARD_CLAIM_URL and SWITCHYARD_CLAIM_TOKEN: ` +
				`add them to its meta_optional, or let its runner register itself`,
		}},
		{"a route that fits", ask("linux", linux, gpus(2), coresOf(32)), nil},
		{"a constraint that no node satisfies, of nodes that are alike", ask("sun", equal("${attr.kernel.name}", "sunos", "rule sun"), pool("ci")), []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "ci", 3 lack ${attr.kernel.name} = sunos (rule sun); out of service: 1 down`,
		}},
		{"two constraints, each with its nodes", ask("linux", linux, arm, gpus(1)), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 4 lack ${attr.kernel.name} = linux (rule linux); ` +
				`3 lack ${attr.cpu.arch} = arm64 (label arm64); 1 lacks 1 nvidia/gpu (label gpu)`,
		}},
		{"more devices than any node has", ask("linux", linux, gpus(3), in("dc*")), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default" and in dc*, 4 lack ${attr.kernel.name} = linux (rule linux); 4 lack 3 nvidia/gpu (label gpu)`,
		}},
		{"what the rule asks for and what the jobspec does", ask("windows", equal("${attr.kernel.name}", "windows", "rule windows"), pool("default"), func(p *router.Placement) {
			p.Jobspec, p.Namespace = "full", "default"
		}), []string{
			`jobspec-warns: warning: jobspec full: Nomad warns: Memory oversubscription is not enabled; Task "g.runner" memory_max value will be ignored. ` +
				`Update the Scheduler Configuration to allow oversubscription.`,
			`no-node: no node can serve it: of 8 nodes in service in pool "default" and in dc1, 4 lack ${attr.kernel.name} = linux (jobspec full); ` +
				`4 lack ${attr.kernel.name} = windows (rule windows)`,
		}},
		{"devices that nodes alike have not", ask("linux", gpus(2), pool("ci")), []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "ci", 3 lack 2 nvidia/gpu (label gpu); out of service: 1 down`,
		}},
		{"a driver that is missing", ask("macos", jobspec("docker"), darwin), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 6 lack ${attr.kernel.name} = darwin (rule macos); ` +
				`2 lack the driver docker in working order (jobspec docker)`,
		}},
		{"more than the largest node", ask("linux", linux, coresOf(64)), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 4 lack ${attr.kernel.name} = linux (rule linux); ` +
				`4 are too small even when idle: at most 32 cores, and it asks for 64 cores (label cpu=64)`,
		}},
		{"more than the nodes have that satisfy the constraints", ask("linux", equal("${attr.cpu.arch}", "amd64", "label x64"), pool("ci"), coresOf(16)), []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "ci", 1 lacks ${attr.cpu.arch} = amd64 (label x64); ` +
				`2 are too small even when idle: at most 8 cores, and it asks for 16 cores (label cpu=16); out of service: 1 down`,
		}},
		{"sizes that only different nodes have", ask("linux", pool("ci"), coresOf(16), memoryOf(48<<10)), []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "ci", 3 lack 16 cores (label cpu=16) and 48 GiB of memory (defaults) together, even when idle; out of service: 1 down`,
		}},
		{"all but what a node holds back", ask("linux", memoryOf(64<<10), equal("${node.unique.name}", "linux-1", "rule r")), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 4 lack ${node.unique.name} = linux-1 (rule r); ` +
				`4 are too small even when idle: at most 63 GiB of memory, and it asks for 64 GiB of memory (defaults)`,
		}},
		{"a constraint that only a node that is down satisfies", ask("macos", darwin, pool("ci")), []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "ci", 3 lack ${attr.kernel.name} = darwin (rule macos); nodes out of service that could: mac-9 (down)`,
		}},
		{"a pool of a draining node", ask("linux", linux, pool("old")), []string{
			`empty-pool: warning: no node can serve it now: none in pool "old" is in service; nodes out of service that could: old-1 (draining)`,
		}},
		{"a pool without nodes", ask("linux", pool("bare"), in("osaka")), []string{`empty-pool: warning: no node can serve it now: there is none in pool "bare" (defaults); a pool that scales from zero may be empty`}},
		{"all pools", ask("linux", pool("all"), equal("${attr.kernel.name}", "sunos", "rule sun"), in("dc1", "tokyo-*")), []string{
			`no-node: no node can serve it: of 11 nodes in service in dc1, tokyo-*, 11 lack ${attr.kernel.name} = sunos (rule sun); out of service: 1 down, 1 draining`,
		}},
		{"a pool that is not there", ask("linux", pool("cii")), []string{
			`no-such-pool: there is no node pool "cii" (defaults); the nodes are in ci, default, old`,
		}},
		{"a pool that is the jobspec's own", ask("linux", jobspec("elsewhere")), []string{
			`no-such-pool: there is no node pool "no-such" (jobspec elsewhere); the nodes are in ci, default, old`,
		}},
		{"a namespace that is not there", ask("linux", func(p *router.Placement) { p.Namespace, p.From["namespace"] = "cl", "defaults" }), []string{
			`no-such-namespace: there is no namespace "cl" (defaults): create it, or correct it in the rule, the jobspec or NOMAD_NAMESPACE`,
		}},
		{"a namespace and a pool that are not there", ask("linux", pool("no"), func(p *router.Placement) { p.Namespace = "cl" }), []string{
			`no-such-namespace: there is no namespace "cl" (jobspec plain): create it, or correct it in the rule, the jobspec or NOMAD_NAMESPACE`,
			`no-such-pool: there is no node pool "no" (defaults); the nodes are in ci, default, old`,
		}},
		{"datacenters that are not there", ask("linux", pool("ci"), in("osaka-*", "dc1")), []string{
			`no-such-datacenter: no node in pool "ci" is in datacenter osaka-* or dc1 (rule r); its nodes are in tokyo-a, tokyo-b`,
		}},
		{"a datacenter that is not there, beside one that is", ask("linux", pool("ci"), in("tokyo-*", "osaka")), []string{
			`no-such-datacenter: warning: no node in pool "ci" is in datacenter osaka (rule r); its nodes are in tokyo-a, tokyo-b`,
		}},
		{"a jobspec that is refused", ask("linux", jobspec("invalid")), []string{
			`jobspec-refused: jobspec invalid: Nomad refuses it: Task group g validation failed: Task t validation failed: minimum MemoryMB value is 10; got 1`,
		}},
		{"a jobspec with two groups", ask("linux", jobspec("two-groups")), []string{
			`jobspec-refused: jobspec ../testdata/jobspecs/two-groups.nomad.json: it has 2 groups, want 1: ` +
				`leave one group, and mark one of its tasks with meta { switchyard = "runner" } if it has several`,
		}},
		{"a jobspec that is not there", ask("linux", jobspec("no-such")), []string{
			`jobspec-refused: there is no jobspec "no-such": add it to the jobspecs, or correct the rule`,
		}},
		{"a jobspec that Nomad warns of", ask("linux", jobspec("burst")), []string{
			`jobspec-warns: warning: jobspec burst: Nomad warns: Memory oversubscription is not enabled; Task "g.t" memory_max value will be ignored. ` +
				`Update the Scheduler Configuration to allow oversubscription.`,
		}},
		{"a parameterized job that fits", dispatch("classic", ""), nil},
		{"a parameterized job that no node can serve", dispatch("picky", ""), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 8 lack ${attr.kernel.name} = vax (job picky)`,
		}},
		{"a job that is not parameterized", dispatch("simple", ""), []string{
			`no-such-job: dispatch job simple in namespace default: it is not parameterized: name a parameterized job, or use jobspec instead of dispatch`,
		}},
		{"a job that is not there", dispatch("classic", "ci"), []string{
			`no-such-job: read job classic in namespace ci: there is none: register the parameterized job, or correct the rule's dispatch or namespace`,
		}},
		{"a job in a namespace that is not there", dispatch("classic", "cl"), []string{
			`no-such-namespace: there is no namespace "cl" (job classic): create it, or correct it in the rule, the jobspec or NOMAD_NAMESPACE`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, told(surveyed(t, on.Client, c.route))); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
	if jobs, _, err := on.Nomad.Jobs().List(nil); err != nil || len(jobs) != 4 {
		t.Errorf("Survey left jobs behind: %d, %v, want 4", len(jobs), err)
	}
}

// until has tasks run until their test ends.
func until(ctx context.Context, _ nomadsim.Task) int {
	<-ctx.Done()
	return 0
}

func TestSurveyIsPatientWithAFullFleet(t *testing.T) {
	gpu := nomadsim.NewNode(nomadsim.Machine{Name: "gpu", Kernel: "linux", Arch: "amd64", Cores: 8, MemoryMB: 16 << 10, GPUs: 2})
	other, amd := *gpu.NodeResources.Devices[0], *gpu.NodeResources.Devices[0]
	other.Name, other.Instances = "T4", other.Instances[:1]
	amd.Vendor, amd.Instances = "amd", slices.Repeat(amd.Instances, 2)
	gpu.NodeResources.Devices = append(gpu.NodeResources.Devices, &other, &amd)
	on := newCluster(t, nomadsim.Config{Run: until, Nodes: []*api.Node{
		nomadsim.NewNode(nomadsim.Machine{Name: "large", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 32 << 10}),
		nomadsim.NewNode(nomadsim.Machine{Name: "small", Kernel: "linux", Arch: "arm64", Cores: 4, MemoryMB: 8 << 10}),
		gpu,
	}})
	fill := api.NewBatchJob("fill", "fill", "global", 50)
	for _, on := range []string{"large", "gpu"} {
		task := api.NewTask("t", "raw_exec").Require(&api.Resources{CPU: new(100), MemoryMB: new(8 << 10)})
		if on == "gpu" {
			task.Resources.Devices = []*api.RequestedDevice{{Name: "nvidia/gpu/L4", Count: new(uint64(2))}}
		}
		fill.AddTaskGroup(api.NewTaskGroup(on, 1).AddTask(task).Constrain(api.NewConstraint("${node.unique.name}", "=", on)))
	}
	on.Register(t, fill)
	for _, c := range []struct {
		name  string
		route Route
		plans int32
		want  []string
	}{
		{"that has room", ask("r", memoryOf(24<<10)), 1, nil},
		{"of which more nodes are in use than are too small", ask("r", memoryOf(32<<10)), 1, nil},
		{"whose large nodes of the kind are in use", ask("r", memoryOf(15<<10), equal("${node.unique.name}", "gpu", "rule r")), 2, nil},
		{"whose devices are in use", ask("r", gpus(2)), 2, nil},
		{"whose large nodes are of another kind", ask("r", memoryOf(16<<10), arm), 2, []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "default", 2 lack ${attr.cpu.arch} = arm64 (label arm64); ` +
				`1 is too small even when idle: at most 8 GiB of memory, and it asks for 16 GiB of memory (defaults)`,
		}},
		{"whose devices are of two models", ask("r", gpus(3)), 1, []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "default", 2 lack 3 nvidia/gpu (label gpu); ` +
				`1 is too small even when idle: at most 2 nvidia/gpu of one model, and it asks for 3 nvidia/gpu of one model (label gpu)`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			on.plans.Store(0)
			if diff := cmp.Diff(c.want, told(surveyed(t, on.Client, c.route))); diff != "" || on.plans.Load() != c.plans {
				t.Errorf("%d plans, want %d; findings (-want +got):\n%s", on.plans.Load(), c.plans, diff)
			}
		})
	}
}

// However busy a fleet is, Survey has something against a route exactly when
// the same fleet would not run it with nothing else to do.
func TestSurveySaysWhatAnIdleFleetDoes(t *testing.T) {
	machine := rapid.Custom(func(t *rapid.T) *api.Node {
		n := nomadsim.NewNode(nomadsim.Machine{
			Kernel: rapid.SampledFrom([]string{"linux", "darwin"}).Draw(t, "kernel"), Arch: rapid.SampledFrom([]string{"amd64", "arm64"}).Draw(t, "arch"),
			Cores: rapid.SampledFrom([]int{2, 4, 8}).Draw(t, "cores"), MemoryMB: rapid.SampledFrom([]int{2048, 4096, 8192}).Draw(t, "memory"),
			GPUs: rapid.IntRange(0, 2).Draw(t, "gpus"), Datacenter: rapid.SampledFrom([]string{"dc1", "dc2"}).Draw(t, "datacenter"),
			Name: "n" + rapid.StringMatching(`[0-9]{9}`).Draw(t, "name"),
		})
		n.ReservedResources.Memory.MemoryMB = uint64(rapid.SampledFrom([]int{0, 1024}).Draw(t, "reserved"))
		n.Status = rapid.SampledFrom([]string{"ready", "ready", "ready", "down"}).Draw(t, "status")
		return n
	})
	rapid.Check(t, func(rt *rapid.T) {
		nodes := rapid.SliceOfNDistinct(machine, 1, 6, func(n *api.Node) string { return n.Name }).Draw(rt, "nodes")
		var routes []Route
		for range rapid.IntRange(1, 6).Draw(rt, "routes") {
			r := ask("r", memoryOf(rapid.SampledFrom([]int{1024, 2048, 3072, 4096, 8192}).Draw(rt, "asked memory")), in("dc*"))
			if rapid.Bool().Draw(rt, "on linux") {
				r.Placement.Constraints = append(r.Placement.Constraints, linux)
			}
			if rapid.Bool().Draw(rt, "on arm64") {
				r.Placement.Constraints = append(r.Placement.Constraints, arm)
			}
			if n := rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(rt, "asked gpus"); n > 0 {
				r.Placement.Devices = []router.Device{gpus(n)}
			}
			if n := rapid.SampledFrom([]int{0, 2, 4, 8}).Draw(rt, "asked cores"); n > 0 {
				r.Placement.Resources.Cores = n
			}
			if rapid.Bool().Draw(rt, "in dc2") {
				r.Placement.Datacenters = []string{"dc2"}
			}
			routes = append(routes, r)
		}
		idle := newCluster(t, nomadsim.Config{Nodes: copies(nodes)})
		on := newCluster(t, nomadsim.Config{Nodes: copies(nodes), Run: until})
		for i := range rapid.IntRange(0, 8).Draw(rt, "busy") {
			job := api.NewBatchJob(fmt.Sprint("busy", i), "busy", "global", 50)
			task := api.NewTask("t", "raw_exec").Require(&api.Resources{Cores: new(rapid.IntRange(1, 4).Draw(rt, "busy cores")), MemoryMB: new(1024)})
			job.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(task))
			on.Register(t, job)
		}
		got, err := on.Survey(context.Background(), routes)
		if err != nil {
			rt.Fatal(err)
		}
		for i, r := range routes {
			against := slices.ContainsFunc(got, func(f Finding) bool { return slices.Contains(f.Routes, i) })
			job, err := idle.Render(context.Background(), router.StartRequest{Runner: router.Runner{ID: "x"}, Placement: r.Placement})
			if err != nil {
				rt.Fatal(err)
			}
			job.TaskGroups[0].Constrain(api.NewConstraint("${node.unique.id}", "is_set", ""))
			plan, _, err := idle.Nomad.Jobs().Plan(job, false, nil)
			if err != nil {
				rt.Fatal(err)
			}
			if against != (plan.FailedTGAllocs != nil) {
				rt.Errorf("route %d of an idle fleet fails: %t; Survey found %q", i, plan.FailedTGAllocs != nil, told(got))
			}
		}
	})
}

// copies keeps simulated clusters from sharing nodes.
func copies(nodes []*api.Node) []*api.Node {
	all := make([]*api.Node, len(nodes))
	for i, n := range nodes {
		c := *n
		all[i] = &c
	}
	return all
}

func TestSurveyAsksOnceForRoutesThatAskForTheSame(t *testing.T) {
	on := newCluster(t, nomadsim.Config{Nodes: nomadsim.MixedFleet()})
	sun, elsewhere := equal("${attr.kernel.name}", "sunos", "rule sun"), equal("${attr.kernel.name}", "sunos", "label sun")
	fits := ask("linux", linux)
	fits.Placement.Task.Env = map[string]string{"A": "B"}
	got := surveyed(t, on.Client, ask("linux", linux), ask("sun", sun), ask("label", elsewhere), fits, ask("again", sun))
	message := func(from string) string {
		return `no node can serve it: of 8 nodes in service in pool "default", 8 lack ${attr.kernel.name} = sunos (` + from + `)`
	}
	want := []Finding{{Routes: []int{1, 4}, Code: NoNode, Message: message("rule sun")}, {Routes: []int{2}, Code: NoNode, Message: message("label sun")}}
	if diff := cmp.Diff(want, got); diff != "" || on.plans.Load() != 2 {
		t.Errorf("%d plans, want 2; findings (-want +got):\n%s", on.plans.Load(), diff)
	}

	on.plans.Store(0)
	var many []Route
	for i := range maxAsks + 2 {
		many = append(many, ask("linux", memoryOf(100+i)), ask("again", memoryOf(100+i)))
	}
	got = surveyed(t, on.Client, many...)
	want = []Finding{{
		Routes: []int{1000, 1001, 1002, 1003}, Code: NotAsked, Warning: true,
		Message: "the cluster was asked about 500 of 502 different placements, and not about this one",
	}}
	if diff := cmp.Diff(want, got); diff != "" || on.plans.Load() != maxAsks {
		t.Errorf("%d plans, want %d; findings (-want +got):\n%s", on.plans.Load(), maxAsks, diff)
	}
}

func TestSurveySaysWhenItCouldNotTell(t *testing.T) {
	const (
		nodes    = "GET /v1/nodes"
		plan     = "PUT /v1/job/gha-0-0/plan"
		validate = "PUT /v1/validate/job"
		parse    = "PUT /v1/jobs/parse"
		parent   = "GET /v1/job/classic"
	)
	var (
		denied = "403 Permission denied"
		none   = "200 []"
	)
	for _, c := range []struct {
		name    string
		route   Route
		answers nomadtest.Answers
		want    string
	}{
		{"no node read", ask("r"), nomadtest.Answers{nodes: denied}, `list nodes: Nomad answered 403: Permission denied: set NOMAD_TOKEN to a token that has node { policy = "read" }`},
		{"no submit-job", ask("r"), nomadtest.Answers{nodes: none, plan: denied},
			"plan a job of jobspec plain in namespace default: Nomad answered 403: Permission denied: set NOMAD_TOKEN to a token that has submit-job on namespace default"},
		{"no read-job for a verdict", ask("r"), nomadtest.Answers{nodes: none, plan: "500 bad", validate: denied},
			"validate a job of jobspec plain in namespace default: Nomad answered 403: Permission denied: set NOMAD_TOKEN to a token that has read-job on namespace default"},
		{"no parse-job", ask("r", jobspec("shell")), nomadtest.Answers{nodes: none, parse: denied}, "a token that has parse-job on namespace default"},
		{"no read-job for what is dispatched", Route{Placement: router.Placement{Dispatch: "classic"}}, nomadtest.Answers{nodes: none, parent: denied},
			"read job classic in namespace default: Nomad answered 403: Permission denied: set NOMAD_TOKEN to a token that has read-job on namespace default"},
		{"a job that cannot be asked for", Route{Placement: router.Placement{Dispatch: "classic"}}, nomadtest.Answers{nodes: none, parent: "400 bad"},
			"read job classic in namespace default: Nomad answered 400: bad"},
		{"no leader", ask("r"), nomadtest.Answers{"": "500 No cluster leader"}, "list nodes: Nomad answered 500: No cluster leader"},
		{"trouble with a job that is valid", ask("r"), nomadtest.Answers{nodes: none, plan: "500 rpc error", validate: "200 {}"},
			"plan a job of jobspec plain in namespace default: Nomad answered 500: rpc error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := answered(t, c.answers).Survey(t.Context(), []Route{c.route})
			if strings.HasPrefix(c.want, "list nodes: ") {
				if err == nil || !strings.Contains(err.Error(), c.want) || got != nil {
					t.Errorf("Survey = %v, %v\nwant error %s", got, err, c.want)
				}
				return
			}
			if err != nil || len(got) != 1 || got[0].Code != CannotTell || got[0].Warning || !strings.Contains(got[0].Message, c.want) {
				t.Errorf("Survey = %v, %v\nwant the finding %s", got, err, c.want)
			}
		})
	}
	t.Run("nothing there", func(t *testing.T) {
		if _, err := newClient(t, &api.Config{Address: "http://127.0.0.1:1"}).Survey(t.Context(), []Route{ask("r")}); err == nil || !strings.Contains(err.Error(), "list nodes: ") {
			t.Errorf("Survey of nothing = %v, want an error", err)
		}
	})
}

// One route that Nomad says nothing of keeps it from no other.
func TestSurveyGoesOn(t *testing.T) {
	sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet(), Namespaces: []string{"secret"}})
	defer sim.Close()
	client := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch query := r.URL.Query(); {
		case query.Get("region") == "mars":
			http.Error(w, "No path to region", http.StatusInternalServerError)
		case query.Get("namespace") == "secret":
			http.Error(w, "Permission denied", http.StatusForbidden)
		default:
			sim.ServeHTTP(w, r)
		}
	}))
	got := surveyed(t, client,
		ask("a", jobspec("region")), ask("b", func(p *router.Placement) { p.Namespace = "secret" }), ask("c", pool("cii")), ask("d"),
		ask("e", equal("${attr.kernel.name}", "sunos", "rule e")), ask("f", jobspec("region"), linux),
	)
	want := []string{
		`no-such-region: there is no region "mars": Nomad knows global (jobspec region): correct it, or join its servers (nomad server join)`,
		`cannot-tell: jobspec plain: plan a job of jobspec plain in namespace secret: Nomad answered 403: Permission denied: set NOMAD_TOKEN to a token that has submit-job on namespace secret`,
		`no-such-pool: there is no node pool "cii" (defaults); the nodes are in default`,
		`no-node: no node can serve it: of 8 nodes in service in pool "default", 8 lack ${attr.kernel.name} = sunos (rule e)`,
	}
	if diff := cmp.Diff(want, told(got)); diff != "" || !slices.Equal(got[0].Routes, []int{0, 5}) {
		t.Errorf("findings of %v (-want +got):\n%s", got[0].Routes, diff)
	}
}

func TestSurveyOfOneNode(t *testing.T) {
	nomadtest.Targets(t, nomadsim.Config{}, func(t *testing.T, on nomadtest.Target) {
		client := newClient(t, on.Config)
		const none = `no-node: no node can serve it: of 1 node in service in pool "default", `
		for _, c := range []struct {
			name  string
			route Route
			want  []string // starts
		}{
			{"that does", ask("r", equal("${node.unique.name}", on.Node(t).Name, "rule r"), memoryOf(64)), nil},
			{"that lacks an attribute", ask("r", equal("${attr.kernel.name}", "vax", "rule r"), equal("${attr.kernel.name}", "cray", "label cray")), []string{none + "1 lacks ${attr.kernel.name} = vax (rule r)"}},
			{"that lacks a device", ask("r", gpus(1)), []string{none + "1 lacks 1 nvidia/gpu (label gpu)"}},
			{"with too little memory", ask("r", memoryOf(10<<20)), []string{none + "1 is too small even when idle: at most "}},
			{"with too few cores", ask("r", coresOf(1000)), []string{none + "1 is too small even when idle: at most "}},
			{"in another datacenter", ask("r", in("dc2", "tokyo-*")), []string{`no-such-datacenter: no node in pool "default" is in datacenter dc2 or tokyo-* (rule r); its nodes are in dc1`}},
			{"in another pool", ask("r", jobspec("elsewhere")), []string{`no-such-pool: there is no node pool "no-such" (jobspec elsewhere); the nodes are in default`}},
			{"without the namespace", ask("r", jobspec("full"), pool("default")), []string{
				`no-such-namespace: there is no namespace "ci": create it`,
			}},
			{"of which a jobspec asks what is invalid", ask("r", jobspec("invalid")), []string{"jobspec-refused: jobspec invalid: Nomad refuses it: Task group g validation failed: Task t validation failed: minimum MemoryMB value is 10; got 1"}},
			{"of which a jobspec asks what it ignores", ask("r", jobspec("burst")), []string{"jobspec-warns: warning: jobspec burst: Nomad warns: Memory oversubscription is not enabled"}},
			{"that cannot read a jobspec", ask("r", jobspec("broken")), []string{"jobspec-refused: parse jobspec ../testdata/jobspecs/broken.nomad.hcl in namespace default: Nomad answered 400: Failed to parse job: "}},
			{"without the parameterized job", Route{Placement: router.Placement{Dispatch: "no-such"}}, []string{"no-such-job: read job no-such in namespace default: there is none"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				got := surveyed(t, client, c.route)
				starts := func(want, got string) bool { return strings.HasPrefix(got, want) }
				if !slices.EqualFunc(c.want, told(got), starts) {
					t.Errorf("findings %q\nwant     %q", told(got), c.want)
				}
			})
		}
	})
}

func surveyed(t *testing.T, c *Client, routes ...Route) []Finding {
	t.Helper()
	found, err := c.Survey(t.Context(), routes)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func told(findings []Finding) (list []string) {
	for _, f := range findings {
		warning := ""
		if f.Warning {
			warning = "warning: "
		}
		list = append(list, f.Code+": "+warning+f.Message)
	}
	return list
}

// What runs in the client's own region needs no list of another, also when a jobspec names it
// or Nomad has filled it in.
func TestTheClientsOwnRegionByName(t *testing.T) {
	sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
	defer sim.Close()
	c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Has("region"):
			t.Errorf("%s asks for region %s", r.URL.Path, r.URL.Query().Get("region"))
		case r.URL.Path == "/v1/agent/members":
			fmt.Fprint(w, `{"ServerRegion":"mars"}`)
			return
		case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/job/"):
			answer := httptest.NewRecorder()
			sim.ServeHTTP(answer, r)
			maps.Copy(w.Header(), answer.Header())
			w.WriteHeader(answer.Code)
			_, _ = strings.NewReplacer(`"Region":"global"`, `"Region":"mars"`).WriteString(w, answer.Body.String())
			return
		}
		sim.ServeHTTP(w, r)
	}))
	parent := api.NewBatchJob("classic", "classic", "global", 50)
	parent.ParameterizedJob = &api.ParameterizedJobConfig{}
	parent.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true")))
	if _, _, err := c.API().Jobs().Register(parent, nil); err != nil {
		t.Fatal(err)
	}
	routes := []Route{ask("named", jobspec("region")), {Rule: "filled in", Placement: router.Placement{Dispatch: "classic"}}}
	if found, err := c.Survey(t.Context(), routes); err != nil || found != nil {
		t.Errorf("Survey = %v, %v", found, err)
	}
	var examples []router.Example
	for _, r := range routes {
		examples = append(examples, router.Example{Rule: r.Rule, Placement: r.Placement})
	}
	c.Fleet(gone(t), examples)
	c.refreshFleet(t.Context())
	for _, r := range c.Fleet(t.Context(), examples).Rules {
		if r.Problem != "" || r.Now == 0 {
			t.Errorf("rule %s has %d nodes now, %s", r.Rule, r.Now, r.Problem)
		}
	}
	waits := nomadtest.Request(ask("filled in", equal("${attr.kernel.name}", "sunos", "rule sun")).Placement)
	if _, err := c.Start(t.Context(), waits); err != nil {
		t.Fatal(err)
	}
	if u, err := c.Unplaced(t.Context(), placed(waits, "sun"), waits.Runner); err != nil || u == nil || !u.Never {
		t.Errorf("Unplaced = %+v, %v", u, err)
	}
}

// Whether another region is joined costs no list of its nodes.
func TestWhetherARegionIsJoinedCostsNoList(t *testing.T) {
	sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
	defer sim.Close()
	asked := false
	c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if r.URL.Path == "/v1/nodes" && query.Get("region") == "mars" {
			asked = true
			if !query.Has("per_page") {
				t.Error("its nodes are listed")
			}
		}
		query.Del("region")
		r.URL.RawQuery = query.Encode()
		sim.ServeHTTP(w, r)
	}))
	if found, err := c.Survey(t.Context(), []Route{ask("a", jobspec("region"))}); err != nil || found != nil || !asked {
		t.Errorf("Survey = %v, %v, and asked for the region: %t", found, err, asked)
	}
}
