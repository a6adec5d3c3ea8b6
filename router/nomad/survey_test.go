package nomad

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
)

// onFleet is a client of a simulated cluster, and a client beside it.
func onFleet(t *testing.T, config nomadsim.Config) (*Client, *api.Client) {
	t.Helper()
	sim := nomadsim.New(config)
	t.Cleanup(sim.Close)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	on := newTarget(t, server.URL, false)
	return newClient(t, on.config), on.nomad
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
	client, beside := onFleet(t, nomadsim.Config{Nodes: nodes, Namespaces: []string{"ci"}})
	for _, job := range []string{"classic", "picky", "simple"} {
		j := api.NewBatchJob(job, job, "global", 50)
		j.AddTaskGroup(api.NewTaskGroup("g", 3).AddTask(api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true")))
		switch job {
		case "classic":
			j.ParameterizedJob = &api.ParameterizedJobConfig{}
		case "picky":
			j.ParameterizedJob = &api.ParameterizedJobConfig{}
			j.Constrain(api.NewConstraint("${attr.kernel.name}", "=", "vax"))
		default:
			j.Constrain(api.NewConstraint("${attr.kernel.name}", "=", "vax"))
		}
		if _, _, err := beside.Jobs().Register(j, nil); err != nil {
			t.Fatal(err)
		}
	}
	dispatch := func(job, namespace string) Route {
		return Route{Rule: "classic", Placement: router.Placement{Dispatch: job, Namespace: namespace}}
	}

	for _, c := range []struct {
		name  string
		route Route
		want  []string // code: message
	}{
		{"a route that fits", ask("linux", linux, gpus(2), coresOf(32)), nil},
		{"a constraint that no node satisfies, of nodes that are alike", ask("sun", equal("${attr.kernel.name}", "sunos", "rule sun"), pool("ci")), []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "ci", 3 have not ${attr.kernel.name} = sunos (rule sun); out of service are 1 down`,
		}},
		{"two constraints, each with its nodes", ask("linux", linux, arm, gpus(1)), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 4 have not ${attr.kernel.name} = linux (rule linux); ` +
				`3 have not ${attr.cpu.arch} = arm64 (label arm64); 1 has not 1 nvidia/gpu (label gpu)`,
		}},
		{"more devices than any node has", ask("linux", linux, gpus(3), in("dc*")), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default" and in dc*, 4 have not ${attr.kernel.name} = linux (rule linux); 4 have not 3 nvidia/gpu (label gpu)`,
		}},
		{"what the rule asks for and what the jobspec does", ask("windows", equal("${attr.kernel.name}", "windows", "rule windows"), pool("default"), func(p *router.Placement) {
			p.Jobspec, p.Namespace = "full", "default"
		}), []string{
			`jobspec-warns: warning: jobspec full: Nomad warns: Memory oversubscription is not enabled; Task "g.runner" memory_max value will be ignored. ` +
				`Update the Scheduler Configuration to allow oversubscription.`,
			`no-node: no node can serve it: of 8 nodes in service in pool "default" and in dc1, 4 have not ${attr.kernel.name} = linux (jobspec full); ` +
				`4 have not ${attr.kernel.name} = windows (rule windows)`,
		}},
		{"a driver that is missing", ask("macos", func(p *router.Placement) { p.Jobspec = "docker" }, darwin), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 6 have not ${attr.kernel.name} = darwin (rule macos); ` +
				`2 have not the driver docker in working order (jobspec docker)`,
		}},
		{"more than the largest node", ask("linux", linux, coresOf(64)), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 4 have not ${attr.kernel.name} = linux (rule linux); ` +
				`4 have not enough even when idle: at most 32 cores, and it asks for 64 cores (label cpu=64)`,
		}},
		{"more than the nodes have that satisfy the constraints", ask("linux", equal("${attr.cpu.arch}", "amd64", "label x64"), pool("ci"), coresOf(16)), []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "ci", 1 has not ${attr.cpu.arch} = amd64 (label x64); ` +
				`2 have not enough even when idle: at most 8 cores, and it asks for 16 cores (label cpu=16); out of service are 1 down`,
		}},
		{"sizes that only different nodes have", ask("linux", pool("ci"), coresOf(16), memoryOf(48<<10)), []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "ci", 3 have not 16 cores (label cpu=16) and 48 GiB of memory (defaults) together, even when idle; out of service are 1 down`,
		}},
		{"all but what a node holds back", ask("linux", memoryOf(64<<10), equal("${node.unique.name}", "linux-1", "rule r")), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 4 have not ${node.unique.name} = linux-1 (rule r); ` +
				`4 have not enough even when idle: at most 63 GiB of memory, and it asks for 64 GiB of memory (defaults)`,
		}},
		{"a constraint that only a node that is down satisfies", ask("macos", darwin, pool("ci")), []string{
			`no-node: no node can serve it: of 3 nodes in service in pool "ci", 3 have not ${attr.kernel.name} = darwin (rule macos); only out of service is one that could: mac-9, which is down`,
		}},
		{"a pool of a draining node", ask("linux", linux, pool("old")), []string{
			`no-node: no node can serve it: none in pool "old" is in service; only out of service is one that could: old-1, which is draining`,
		}},
		{"a pool that is not there", ask("linux", pool("cii")), []string{
			`no-such-pool: there is no node pool "cii" (defaults); the nodes are in ci, default, old`,
		}},
		{"a pool that is the jobspec's own", ask("linux", func(p *router.Placement) { p.Jobspec = "elsewhere" }), []string{
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
		{"a jobspec that is refused", ask("linux", func(p *router.Placement) { p.Jobspec = "invalid" }), []string{
			`jobspec-refused: jobspec invalid: Nomad refuses it: Task group g validation failed: Task t validation failed: minimum MemoryMB value is 10; got 1`,
		}},
		{"a jobspec with two groups", ask("linux", func(p *router.Placement) { p.Jobspec = "two-groups" }), []string{
			`jobspec-refused: jobspec testdata/jobspecs/two-groups.nomad.json: it has 2 groups, want 1: ` +
				`leave one group, and mark one of its tasks with meta { switchyard = "runner" } if it has several`,
		}},
		{"a jobspec that is not there", ask("linux", func(p *router.Placement) { p.Jobspec = "no-such" }), []string{
			`jobspec-refused: there is no jobspec "no-such": add it to the jobspecs, or correct the rule`,
		}},
		{"a jobspec that Nomad warns of", ask("linux", func(p *router.Placement) { p.Jobspec = "burst" }), []string{
			`jobspec-warns: warning: jobspec burst: Nomad warns: Memory oversubscription is not enabled; Task "g.t" memory_max value will be ignored. ` +
				`Update the Scheduler Configuration to allow oversubscription.`,
		}},
		{"a parameterized job that fits", dispatch("classic", ""), nil},
		{"a parameterized job that no node can serve", dispatch("picky", ""), []string{
			`no-node: no node can serve it: of 8 nodes in service in pool "default", 8 have not ${attr.kernel.name} = vax (job picky)`,
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
			got, err := client.Survey(t.Context(), []Route{c.route})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, told(got)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
	if jobs, _, err := beside.Jobs().List(nil); err != nil || len(jobs) != 3 {
		t.Errorf("Survey left jobs behind: %d, %v, want 3", len(jobs), err)
	}
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
