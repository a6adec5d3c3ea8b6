package capacity

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

func TestTasksThatDoNotRunTogetherAreNotAddedUp(t *testing.T) {
	task := func(memory int, hook string, sidecar bool) *api.Task {
		t := api.NewTask(hook, "raw_exec").Require(&api.Resources{MemoryMB: &memory})
		if hook != "" {
			t.Lifecycle = &api.TaskLifecycle{Hook: hook, Sidecar: sidecar}
		}
		return t
	}
	for _, c := range []struct {
		name  string
		tasks []*api.Task
		want  int
	}{
		{"two at once", []*api.Task{task(100, "", false), task(10, "", false)}, 110},
		{"a sidecar and one before", []*api.Task{task(100, "", false), task(10, "prestart", true), task(50, "prestart", false)}, 110},
		{"a large one before", []*api.Task{task(100, "", false), task(200, "prestart", false)}, 200},
		{"a large one after", []*api.Task{task(100, "", false), task(10, "poststart", false), task(300, "poststop", false)}, 300},
		{"one that says nothing", []*api.Task{api.NewTask("t", "raw_exec")}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := 0
			for _, s := range sizes(&api.TaskGroup{Tasks: c.tasks}) {
				got = s.ask
			}
			if got != c.want {
				t.Errorf("memory %d, want %d", got, c.want)
			}
		})
	}
}

// keep returns what is kept of nodes that were listed and read, of the last one first.
func keep(t testing.TB, nodes ...*api.Node) (h *host, known *details) {
	t.Helper()
	d := newDetails("")
	for _, n := range nodes {
		text, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		var stub listed
		var read readNode
		if err := errors.Join(json.Unmarshal(text, &stub), json.Unmarshal(text, &read)); err != nil {
			t.Fatal(err)
		}
		h = stub.host(texts{})
		d.keep(&read)
	}
	return h, &d
}

// A node that is out of service is named only when it could serve the job.
func TestNodesThatWouldDo(t *testing.T) {
	n := nomadsim.NewNode(nomadsim.Machine{Name: "mac-1", Kernel: "darwin", Arch: "arm64", Cores: 8, MemoryMB: 1024, Class: "mini", Meta: map[string]string{"zone": "a"}, GPUs: 1})
	h, known := keep(t, n)
	in := &region{details: known}
	for _, c := range []struct {
		name   string
		change func(*api.Job, *api.Task)
		want   bool
	}{
		{"a plain job", func(*api.Job, *api.Task) {}, true},
		{"constraints that hold", func(j *api.Job, t *api.Task) {
			for _, c := range [][3]string{
				{"${attr.kernel.name}", "=", "darwin"}, {"${meta.zone}", "!=", "b"}, {"${meta.zone}", "is_set", ""}, {"${meta.no}", "is_not_set", ""},
				{"${attr.cpu.arch}", "regexp", "^arm"}, {"${node.class}", "=", "mini"}, {"${node.pool}", "=", "default"}, {"${node.datacenter}", "=", "dc1"},
				{"${node.unique.name}", "=", "mac-1"}, {nodeID, "is_set", ""}, {"${meta.no}", "!=", "x"},
			} {
				j.Constrain(api.NewConstraint(c[0], c[1], c[2]))
			}
		}, true},
		{"a job's constraint that does not hold", func(j *api.Job, _ *api.Task) {
			j.Constrain(api.NewConstraint("${attr.kernel.name}", "=", "linux"))
		}, false},
		{"a task's constraint that does not hold", func(_ *api.Job, t *api.Task) { t.Constrain(api.NewConstraint("${meta.no}", "is_set", "")) }, false},
		{"a version that it has", func(j *api.Job, _ *api.Task) {
			j.Constrain(api.NewConstraint("${attr.nomad.version}", "version", ">= 1.0"))
		}, true},
		{"a version that it lacks", func(j *api.Job, _ *api.Task) {
			j.Constrain(api.NewConstraint("${attr.nomad.version}", "version", "< 1.0"))
		}, false},
		{"two attributes that differ as they should", func(j *api.Job, _ *api.Task) {
			j.Constrain(api.NewConstraint("${attr.kernel.name}", "!=", "${meta.zone}"))
		}, true},
		{"two attributes that differ and should not", func(j *api.Job, _ *api.Task) {
			j.Constrain(api.NewConstraint("${attr.kernel.name}", "=", "${meta.zone}"))
		}, false},
		{"another driver", func(_ *api.Job, t *api.Task) { t.Driver = "docker" }, false},
		{"more memory", func(_ *api.Job, t *api.Task) { t.Resources.MemoryMB = new(2048) }, false},
		{"a device", func(_ *api.Job, t *api.Task) { t.Resources.Devices = []*api.RequestedDevice{{Name: "gpu"}} }, true},
		{"a device whose constraint holds", func(_ *api.Job, t *api.Task) {
			t.Resources.Devices = []*api.RequestedDevice{{Name: "gpu", Constraints: []*api.Constraint{{LTarget: "${device.model}", Operand: "is_set"}}}}
		}, true},
		{"a device whose constraint does not hold", func(_ *api.Job, t *api.Task) {
			t.Resources.Devices = []*api.RequestedDevice{{Name: "gpu", Constraints: []*api.Constraint{{LTarget: "${device.model}", Operand: "is_not_set"}}}}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := api.NewTask("t", "raw_exec").Require(&api.Resources{MemoryMB: new(100)})
			group := api.NewTaskGroup("g", 1).AddTask(task)
			job := api.NewBatchJob("j", "j", "global", 50).AddTaskGroup(group)
			c.change(job, task)
			if got, _, err := in.wouldDo(t.Context(), nil, []*host{h}, demandOf(job, group)); err != nil || got[h] != c.want {
				t.Errorf("wouldDo = %t, %v, want %t", got[h], err, c.want)
			}
		})
	}
}

// Volumes come and go with what runs, and so do other reasons that the nodes
// are not to blame for.
func TestSurveyLeavesOutWhatPasses(t *testing.T) {
	for _, metric := range []string{
		`{"NodesEvaluated":1,"NodesFiltered":1,"ConstraintFiltered":{"CSI volume data has exhausted its available writer claims":1}}`,
		`{"NodesEvaluated":1,"QuotaExhausted":["memory"]}`,
		`{"NodesEvaluated":0}`, // the node has come since
		`{"NodesEvaluated":1,"NodesExhausted":1,"DimensionExhausted":{"network: reserved port collision api=80":1}}`,
	} {
		got, err := answered(t, nomadtest.Answers{
			"GET /v1/nodes":            `200 [{"ID":"a","Name":"a","NodePool":"default","Datacenter":"dc1","Status":"ready","SchedulingEligibility":"eligible"}]`,
			"PUT /v1/job/gha-0-0/plan": `200 {"FailedTGAllocs":{"runner":` + metric + `}}`,
		}).Survey(t.Context(), []Route{{Placement: router.Placement{Jobspec: "plain"}}})
		if err != nil || got != nil {
			t.Errorf("with %s Survey = %v, %v, want nothing", metric, got, err)
		}
	}
}

// Of many nodes out of service those are read that are not known yet, some for each answer,
// until one has looked at all.
func TestNodesOutOfServiceAreLookedAtBitByBit(t *testing.T) {
	machine := func(i int, arch, status string) *api.Node {
		n := nomadsim.NewNode(nomadsim.Machine{Name: fmt.Sprint("node-", i), Kernel: "linux", Arch: arch, Cores: 4, MemoryMB: 8 << 10})
		n.ID, n.Status = fmt.Sprintf("%08d-0000-0000-0000-000000000000", i), status // in this order
		return n
	}
	nodes := []*api.Node{machine(0, "arm64", "down"), machine(1, "arm64", "down"), machine(2, "amd64", "ready")}
	for i := range 2 * maxAside {
		nodes = append(nodes, machine(3+i, "amd64", "down"))
	}
	c, _, asked := counted(t, nodes)
	r := nomadtest.Request(ask("arm", arm).Placement)
	if _, err := c.Start(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"; out of service: 102 down; 52 nodes out of service were not looked at",
		"; out of service: 102 down; 2 nodes out of service were not looked at",
		"; nodes out of service that could: node-0 (down), node-1 (down)",
		"; nodes out of service that could: node-0 (down), node-1 (down)",
	} {
		u, err := c.Unplaced(t.Context(), placed(r, "arm"), r.Runner)
		if err != nil || u == nil || !u.Never || u.Away != (i > 1) || !strings.HasSuffix(u.Text, want) {
			t.Errorf("answer %d: %+v, %v, want %s", i, u, err, want)
		}
	}
	if got, want := asked(), "1 full and 0 short lists, 3 checks, 102 reads, 3 plans"; got != want {
		t.Errorf("they cost %s, want %s", got, want)
	}
}

// A host volume may come to be ready, or free, while the nodes stay the same.
func TestThatAHostVolumeIsMissingIsNotKept(t *testing.T) {
	for _, c := range []struct {
		mode  string
		never bool
	}{{"", true}, {"single-node-writer", true}, {"single-node-single-writer", false}} {
		plans := 0
		answers := nomadtest.Answers{
			"GET /v1/job/gha-1-1/evaluations": `200 [{"Status":"blocked"}]`,
			"GET /v1/job/gha-1-1": `200 {"ID":"gha-1-1","Namespace":"default","TaskGroups":[{"Name":"g","Tasks":[{"Name":"t","Driver":"raw_exec"}],
				"Volumes":{"cache":{"Type":"host","Source":"cache","AccessMode":"` + c.mode + `"}}}]}`,
			"GET /v1/nodes":            `200 [{"ID":"a","Name":"a","NodePool":"default","Datacenter":"dc1","Status":"ready","SchedulingEligibility":"eligible"}]`,
			"PUT /v1/job/gha-0-0/plan": `200 {"FailedTGAllocs":{"g":{"NodesEvaluated":1,"NodesFiltered":1,"ConstraintFiltered":{"missing compatible host volumes":1}}}}`,
		}
		client := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/plan") {
				plans++
			}
			answers.ServeHTTP(w, r)
		}))
		for range 2 {
			u, err := client.Unplaced(t.Context(), router.Job{}, router.Runner{ID: "gha-1-1", NomadJob: "gha-1-1"})
			if err != nil || u == nil || u.Never != c.never || !strings.Contains(u.Text, "host volumes") {
				t.Errorf("mode %q: %+v, %v, want never %t", c.mode, u, err, c.never)
			}
		}
		if plans != 2 {
			t.Errorf("mode %q: %d plans, want one for each answer", c.mode, plans)
		}
	}
}

func TestNodesAmongOthersAreToldApartByTheirIDs(t *testing.T) {
	var nodes, others []*host
	for i, n := range nomadsim.LargeFleet(6100) {
		h := &host{id: n.ID}
		if i%3 == 0 {
			others = append(others, h)
		} else {
			nodes = append(nodes, h)
		}
	}
	text := among(nodes, others)
	if len(text) > 20_000 {
		t.Errorf("it takes %d bytes to tell %d nodes from %d others", len(text), len(nodes), len(others))
	}
	matches := regexp.MustCompile(text)
	for want, hosts := range map[bool][]*host{true: nodes, false: others} {
		for _, h := range hosts {
			if matches.MatchString(h.id) != want {
				t.Fatalf("of %s it says %t", h.id, !want)
			}
		}
	}
	one, two := &host{id: "a"}, &host{id: "ab"} // no IDs of Nomad, which are of one length
	if got := among([]*host{two}, []*host{one}); got != "^(ab)" {
		t.Errorf("among = %s, want ^(ab)", got)
	}
}
