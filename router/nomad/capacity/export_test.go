package capacity

import (
	"testing"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/feasible"
	"switchyard/router/nomadsim"
)

// Nodes are those in service, less what others than runners use of them.
func TestNodesAreWhatRunnersMayUse(t *testing.T) {
	nodes := nomadsim.MixedFleet()
	nodes[1].SchedulingEligibility = "ineligible"
	nodes[3].NodeResources.Devices[0].Instances[1].Healthy = false
	nodes[0].ReservedResources.Memory.MemoryMB = 1 << 10
	on := newCluster(t, nomadsim.Config{Nodes: nodes, Run: until})
	hog := func(id, name string) *api.Job {
		j := api.NewBatchJob(id, id, "global", 50).Constrain(api.NewConstraint("${node.unique.name}", "=", name))
		task := api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true")
		task.Require(&api.Resources{Cores: new(3), MemoryMB: new(4 << 10)})
		if name == "linux-gpu-1" {
			task.Resources.Devices = []*api.RequestedDevice{{Name: "gpu", Count: new(uint64(1))}}
		}
		return j.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(task))
	}
	for _, j := range []*api.Job{hog("web", "linux-1"), hog(router.RunnerPrefix+"1-1", "linux-1"), hog("train", "linux-gpu-1")} {
		if _, _, err := on.Nomad.Jobs().Register(j, nil); err != nil {
			t.Fatal(err)
		}
	}
	got, out, err := newClient(t, on.Config).Nodes(t.Context())
	if err != nil || out != 1 || len(got) != len(nodes)-1 {
		t.Fatalf("%d nodes, %d out of service, %v", len(got), out, err)
	}
	for _, n := range got {
		of := map[string]*api.Node{}
		for _, n := range nodes {
			of[n.Name] = n
		}
		want := feasible.Idle(of[n.Name])
		if n.Name == "linux-1" || n.Name == "linux-gpu-1" {
			want.CPU, want.Cores, want.MemoryMB, want.DiskMB = want.CPU-3*2500, want.Cores-3, want.MemoryMB-4<<10, want.DiskMB-300
		}
		if n.Name == "linux-gpu-1" {
			want.Devices[0] = 0
		}
		have := feasible.Idle(n)
		if have.CPU != want.CPU || have.Cores != want.Cores || have.MemoryMB != want.MemoryMB || have.DiskMB != want.DiskMB || len(have.Devices) != len(want.Devices) || len(have.Devices) == 1 && have.Devices[0] != want.Devices[0] {
			t.Errorf("%s has %+v, want %+v", n.Name, have, want)
		}
		if n.Attributes["kernel.name"] != of[n.Name].Attributes["kernel.name"] || !n.Drivers["raw_exec"].Healthy {
			t.Errorf("%s: %+v", n.Name, n)
		}
	}
}
