package nomadsim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call asks a server without a network, so that it works under synctest.
func call(t testing.TB, s *Server, method, path string, body, into any) int {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, path, bytes.NewReader(b)))
	if into != nil && w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatalf("%s %s answered %s: %v", method, path, w.Body, err)
		}
	} else if into != nil {
		t.Fatalf("%s %s answered %d %s", method, path, w.Code, w.Body)
	}
	return w.Code
}

// A change makes another job of the plain one.
type edit = func(*api.Job)

// plain is a job for one task of a driver.
func plain(id, driver string, edits ...edit) *api.Job {
	j := api.NewBatchJob(id, id, api.GlobalRegion, 50)
	g := api.NewTaskGroup("g", 1)
	g.AddTask(api.NewTask("t", driver).Require(&api.Resources{CPU: new(1000), MemoryMB: new(1024)}))
	j.AddTaskGroup(g)
	for _, e := range edits {
		e(j)
	}
	return j
}

func where(l, operand, r string) edit {
	return func(j *api.Job) { j.Constrain(api.NewConstraint(l, operand, r)) }
}

func like(l, r string, weight int8) edit {
	return func(j *api.Job) { j.AddAffinity(api.NewAffinity(l, "=", r, weight)) }
}

func ask(change func(*api.Resources)) edit {
	return func(j *api.Job) { change(j.TaskGroups[0].Tasks[0].Resources) }
}

func gpus(n uint64, constraints ...*api.Constraint) edit {
	return ask(func(r *api.Resources) {
		r.Devices = []*api.RequestedDevice{{Name: "nvidia/gpu", Count: &n, Constraints: constraints}}
	})
}

func register(t testing.TB, s *Server, j *api.Job) {
	t.Helper()
	call(t, s, "PUT", "/v1/jobs", api.JobRegisterRequest{Job: j}, &api.JobRegisterResponse{})
}

// on is the name of the node that a job's newest allocation is on; "" without.
func on(t testing.TB, s *Server, id string) string {
	t.Helper()
	var list []api.AllocationListStub
	call(t, s, "GET", "/v1/job/"+id+"/allocations", nil, &list)
	if len(list) == 0 {
		return ""
	}
	return list[0].NodeName
}

func latest(s *Server) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index
}

// hold is a Run that waits until the task is stopped.
func hold(ctx context.Context, _ Task) int {
	<-ctx.Done()
	return 0
}

func TestJobsFindTheNodesThatSuitThem(t *testing.T) {
	const kernel, arch = "${attr.kernel.name}", "${attr.cpu.arch}"
	memory := func(operand, value string) *api.Constraint {
		return api.NewConstraint("${device.attr.memory}", operand, value)
	}
	for _, c := range []struct {
		name  string
		job   *api.Job
		nodes []string // that may be chosen
	}{
		{"a mac of either kind", plain("j", "raw_exec", where(kernel, "=", "darwin")), []string{"mac-1", "mac-2"}},
		{"an Apple chip", plain("j", "raw_exec", where(kernel, "=", "darwin"), where(arch, "=", "arm64")), []string{"mac-1"}},
		{"windows", plain("j", "raw_exec", where(kernel, "=", "windows"), where("${meta.switchyard_runner_dir}", "is_set", "")), []string{"windows-1", "windows-arm-1"}},
		{"docker is on linux", plain("j", "docker", where(arch, "=", "arm64")), []string{"linux-arm-1"}},
		{"docker is not on macs", plain("j", "docker", where(kernel, "=", "darwin")), nil},
		{"a zone", plain("j", "docker", where("${meta.zone}", "=", "tokyo-b")), []string{"linux-2"}},
		{"a name", plain("j", "docker", where("${node.unique.name}", "regexp", "^linux-2$")), []string{"linux-2"}},
		{"an affinity", plain("j", "docker", like("${node.class}", "spot", 50)), []string{"linux-2"}},
		{"the heavier affinity", plain("j", "docker", like("${node.class}", "spot", 20), like(arch, "arm64", 80)), []string{"linux-arm-1"}},
		{"an anti-affinity", plain("j", "docker", where(arch, "=", "amd64"), like("${node.class}", "gpu", -100), like("${node.class}", "spot", -100)), []string{"linux-1"}},
		{"a GPU", plain("j", "docker", gpus(1)), []string{"linux-gpu-1"}},
		{"both GPUs", plain("j", "docker", gpus(2)), []string{"linux-gpu-1"}},
		{"more GPUs than there are", plain("j", "docker", gpus(3)), nil},
		{"a GPU of a type", plain("j", "docker", ask(func(r *api.Resources) { r.Devices = []*api.RequestedDevice{{Name: "gpu", Count: new(uint64(1))}} })), []string{"linux-gpu-1"}},
		{"a GPU of a model", plain("j", "docker", ask(func(r *api.Resources) {
			r.Devices = []*api.RequestedDevice{{Name: "nvidia/gpu/L4", Count: new(uint64(1))}}
		})), []string{"linux-gpu-1"}},
		{"a GPU of another model", plain("j", "docker", ask(func(r *api.Resources) {
			r.Devices = []*api.RequestedDevice{{Name: "nvidia/gpu/H100", Count: new(uint64(1))}}
		})), nil},
		{"enough GPU memory, in another unit", plain("j", "docker", gpus(1, memory(">=", "24000 MiB"))), []string{"linux-gpu-1"}},
		{"too little GPU memory", plain("j", "docker", gpus(1, memory(">", "24 GiB"))), nil},
		{"16 cores", plain("j", "docker", ask(func(r *api.Resources) { r.CPU, r.Cores = nil, new(17) })), []string{"linux-arm-1", "linux-gpu-1"}},
		{"much memory", plain("j", "docker", ask(func(r *api.Resources) { r.MemoryMB = new(100 << 10) })), []string{"linux-gpu-1"}},
		{"a datacenter pattern", plain("j", "docker", func(j *api.Job) { j.Datacenters = []string{"d*1"} }), []string{"linux-1", "linux-2", "linux-arm-1", "linux-gpu-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New(Config{Nodes: MixedFleet(), Run: hold})
			defer s.Close()
			register(t, s, c.job)
			if got := on(t, s, "j"); c.nodes == nil && got != "" || c.nodes != nil && !slices.Contains(c.nodes, got) {
				t.Errorf("it is on %q, want one of %q", got, c.nodes)
			}
		})
	}
}

func TestPoolsAndDatacenters(t *testing.T) {
	nodes := []*api.Node{
		NewNode(Machine{Name: "a", Kernel: "linux", Arch: "amd64", Cores: 1, MemoryMB: 2048, Pool: "ci", Datacenter: "west-1"}),
		NewNode(Machine{Name: "b", Kernel: "linux", Arch: "amd64", Cores: 1, MemoryMB: 2048, Datacenter: "east-1"}),
	}
	for _, c := range []struct{ pool, datacenter, want string }{
		{"ci", "*", "a"}, {"default", "*", "b"}, {"all", "west-*", "a"}, {"all", "*st-1", "a"}, {"all", "e*t-1", "b"},
		{"ci", "east-1", ""}, {"ci", "west-?", ""}, {"all", "west", ""}, {"all", "*-2", ""},
	} {
		s := New(Config{Nodes: nodes, Run: hold})
		register(t, s, plain("j", "docker", func(j *api.Job) { j.NodePool, j.Datacenters = &c.pool, []string{c.datacenter} }))
		if got := on(t, s, "j"); got != c.want {
			t.Errorf("a job for pool %s and datacenter %s is on %q, want %q", c.pool, c.datacenter, got, c.want)
		}
		s.Close()
	}
}

// Nomad does not look twice at nodes that constraints cannot tell apart.
func TestNodesOfOneClassAreCheckedOnce(t *testing.T) {
	var nodes []*api.Node
	for i, class := range []string{"spot", "spot", "", ""} {
		nodes = append(nodes, NewNode(Machine{Name: fmt.Sprint("n", i), Kernel: "linux", Arch: "amd64", Cores: 2, MemoryMB: 4096, Class: class}))
	}
	s := New(Config{Nodes: nodes})
	defer s.Close()
	for _, c := range []struct {
		name string
		edit edit
		want api.AllocationMetric
	}{
		{"a constraint", where("${attr.cpu.arch}", "=", "arm64"), api.AllocationMetric{
			NodesFiltered: 4, ConstraintFiltered: map[string]int{"${attr.cpu.arch} = arm64": 2, "computed class ineligible": 2}, ClassFiltered: map[string]int{"spot": 2},
		}},
		{"a constraint on what is unique", where("${attr.unique.hostname}", "=", "x"), api.AllocationMetric{
			NodesFiltered: 4, ConstraintFiltered: map[string]int{"${attr.unique.hostname} = x": 4}, ClassFiltered: map[string]int{"spot": 2},
		}},
		{"a device", gpus(1), api.AllocationMetric{
			NodesFiltered: 4, ConstraintFiltered: map[string]int{"missing devices": 2, "computed class ineligible": 2}, ClassFiltered: map[string]int{"spot": 2},
		}},
		{"a size", ask(func(r *api.Resources) { r.MemoryMB = new(5000) }), api.AllocationMetric{
			NodesExhausted: 4, DimensionExhausted: map[string]int{"memory": 4}, ClassExhausted: map[string]int{"spot": 2},
			ResourcesExhausted: map[string]*api.Resources{"t": {CPU: new(0), MemoryMB: new(5000)}},
		}},
		{"another class", where("${node.class}", "=", "spot"), api.AllocationMetric{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var plan api.JobPlanResponse
			call(t, s, "PUT", "/v1/job/j/plan", api.JobPlanRequest{Job: plain("j", "docker", c.edit)}, &plan)
			if c.want.NodesFiltered+c.want.NodesExhausted == 0 {
				if plan.FailedTGAllocs != nil {
					t.Errorf("no node: %+v", plan.FailedTGAllocs["g"])
				}
				return
			}
			c.want.NodesEvaluated, c.want.NodesInPool, c.want.NodePool, c.want.NodesAvailable = 4, 4, "default", map[string]int{"dc1": 4}
			if diff := cmp.Diff(&c.want, plan.FailedTGAllocs["g"]); diff != "" {
				t.Errorf("metrics (-want +got):\n%s", diff)
			}
		})
	}
}

// What waits gets the room that it fits, in the order of priority and age,
// and does not keep smaller jobs from what it does not fit.
func TestAFullFleetIsAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := []*api.Node{
			NewNode(Machine{Name: "linux", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 8 << 10, GPUs: 1}),
			NewNode(Machine{Name: "mac", Kernel: "darwin", Arch: "arm64", Cores: 4, MemoryMB: 8 << 10}),
		}
		s := New(Config{Nodes: nodes, Run: hold})
		defer s.Close()
		stop := func(id string) {
			t.Helper()
			call(t, s, "DELETE", "/v1/job/"+id, nil, &api.JobDeregisterResponse{})
			synctest.Wait()
		}
		kernel := func(k string) edit { return where("${attr.kernel.name}", "=", k) }
		memory := func(gb int) edit { return ask(func(r *api.Resources) { r.MemoryMB = new(gb << 10) }) }
		priority := func(p int) edit { return func(j *api.Job) { j.Priority = &p } }
		want := func(when string, want map[string]string) {
			t.Helper()
			synctest.Wait()
			got := map[string]string{}
			for id := range want {
				got[id] = on(t, s, id)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		register(t, s, plain("first", "raw_exec", kernel("linux"), memory(6)))
		register(t, s, plain("mac", "raw_exec", kernel("darwin"), memory(8)))
		register(t, s, plain("gpu", "raw_exec", gpus(1)))
		register(t, s, plain("gpu-2", "raw_exec", gpus(1)))
		register(t, s, plain("old", "raw_exec", kernel("linux"), memory(6)))
		register(t, s, plain("urgent", "raw_exec", kernel("linux"), memory(6), priority(80)))
		register(t, s, plain("young", "raw_exec", kernel("linux"), memory(6)))
		register(t, s, plain("either", "raw_exec", memory(8), priority(10)))
		want("at first", map[string]string{"first": "linux", "mac": "mac", "gpu": "linux", "gpu-2": "", "old": "", "urgent": "", "young": "", "either": ""})
		stop("mac")
		want("without mac", map[string]string{"either": "mac", "urgent": "", "gpu-2": ""})
		stop("gpu")
		want("without gpu", map[string]string{"gpu-2": "linux", "urgent": ""})
		stop("first")
		want("without first", map[string]string{"urgent": "linux", "old": "", "young": ""})
		stop("old") // while it waits
		stop("urgent")
		want("without urgent and old", map[string]string{"old": "", "young": "linux"})
		if len(s.waiting) != 0 {
			t.Errorf("%d queues are left, want none", len(s.waiting))
		}
		for _, id := range []string{"young", "gpu-2", "either"} {
			stop(id)
		}
		for _, n := range s.nodes {
			if n.left.CPU != int(n.NodeResources.Cpu.CpuShares) || n.left.Cores != 4 || n.left.MemoryMB != 8<<10 || n.left.DiskMB != int(n.NodeResources.Disk.DiskMB) {
				t.Errorf("the idle node %s has %d MHz, %d cores, %d MB and %d MB of disk left", n.Name, n.left.CPU, n.left.Cores, n.left.MemoryMB, n.left.DiskMB)
			}
		}
	})
}

func TestAGroupsTasksStandAndFallTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Nodes: MixedFleet(), Run: func(ctx context.Context, task Task) int {
			if task.Name == "t" {
				time.Sleep(time.Minute)
				return 4
			}
			return hold(ctx, task)
		}})
		defer s.Close()
		register(t, s, plain("j", "docker", func(j *api.Job) { j.TaskGroups[0].AddTask(api.NewTask("log", "docker")) }))
		synctest.Wait()
		time.Sleep(2 * time.Minute)
		var list []api.AllocationListStub
		call(t, s, "GET", "/v1/job/j/allocations", nil, &list)
		if list[0].ClientStatus != "failed" || !list[0].TaskStates["t"].Failed || list[0].TaskStates["log"].Failed {
			t.Errorf("allocation %s with %+v and %+v; want it failed by t alone", list[0].ClientStatus, list[0].TaskStates["t"], list[0].TaskStates["log"])
		}
		var types []string
		for _, e := range list[0].TaskStates["log"].Events {
			types = append(types, e.Type)
		}
		if want := []string{"Received", "Task Setup", "Started", "Sibling Task Failed", "Killing", "Terminated", "Killed"}; !cmp.Equal(types, want) {
			t.Errorf("events of log: %q, want %q", types, want)
		}
	})
}

func TestATaskSeesItsNodeAndJob(t *testing.T) {
	tasks := make(chan Task, 1)
	s := New(Config{Nodes: MixedFleet(), Run: func(_ context.Context, t Task) int { tasks <- t; return 0 }})
	defer s.Close()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "for "+r.Header.Get("X-For"))
	}))
	defer origin.Close()
	register(t, s, plain("j", "raw_exec", where("${attr.kernel.name}", "=", "windows"), where("${attr.cpu.arch}", "=", "amd64"), func(j *api.Job) {
		j.SetMeta("GH_OWNER", "acme")
		task := j.TaskGroups[0].Tasks[0]
		task.Env = map[string]string{"DIR": "${meta.switchyard_runner_dir}", "WHO": "${NOMAD_META_GH_OWNER}", "ODD": "${no_such} ${ $ {"}
		task.Artifacts = []*api.TaskArtifact{{GetterSource: &origin.URL, RelativeDest: new("secrets/runner.jit"), GetterHeaders: map[string]string{"X-For": "${WHO}"}}}
	}))
	got := <-tasks
	if got.Node.Name != "windows-1" || got.JobID != "j" || got.Name != "t" || got.AllocID == "" {
		t.Errorf("task %s of %s on %s", got.Name, got.JobID, got.Node.Name)
	}
	maps.DeleteFunc(got.Env, func(k, _ string) bool { return strings.HasPrefix(k, "NOMAD_") })
	if diff := cmp.Diff(map[string]string{"DIR": `C:\actions-runner`, "WHO": "acme", "ODD": "${no_such} ${ $ {"}, got.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"secrets/runner.jit": "for acme"}, got.Artifacts); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		defer s.Close()
		for _, c := range []struct {
			fault  Fault
			status int
		}{{NoLeader, 500}, {Busy, 429}, {Healthy, 200}} {
			s.SetFault(c.fault, 5*time.Second)
			began := time.Now()
			if got := call(t, s, "GET", "/v1/jobs", nil, nil); got != c.status || time.Since(began) != 5*time.Second {
				t.Errorf("%q answered %d after %v, want %d after 5s", c.fault, got, time.Since(began), c.status)
			}
		}
		s.SetFault(Refusing, 0)
		defer func() {
			if r := recover(); r != http.ErrAbortHandler {
				t.Errorf("a refusing server panics with %v, want http.ErrAbortHandler", r)
			}
		}()
		call(t, s, "GET", "/v1/jobs", nil, nil)
	})
}

// What happens is what a real agent of v2.0.6-dev did when one of its two
// clients was killed and came back (tried by hand, 2026-11-25).
func TestANodeDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := []*api.Node{
			NewNode(Machine{Name: "a", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 4 << 10}),
			NewNode(Machine{Name: "b", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 4 << 10}),
		}
		s := New(Config{Nodes: nodes, Run: hold})
		defer s.Close()
		large := ask(func(r *api.Resources) { r.MemoryMB = new(3 << 10) })
		register(t, s, plain("first", "raw_exec", large))
		died := on(t, s, "first")
		other := map[string]string{"a": "b", "b": "a"}[died]
		synctest.Wait()
		since := latest(s) + 1
		if err := s.FailNode(died); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := on(t, s, "first"); got != other {
			t.Errorf("it runs on %q, want %q", got, other)
		}
		var allocs []*api.AllocationListStub
		call(t, s, "GET", "/v1/job/first/allocations", nil, &allocs)
		if len(allocs) != 2 || allocs[1].ClientStatus != "lost" || allocs[1].DesiredStatus != "stop" || allocs[1].DesiredDescription != "alloc is lost since its node is down" {
			t.Errorf("allocations %+v", allocs)
		}
		if a := s.allocs[allocs[0].ID]; a.PreviousAllocation != allocs[1].ID {
			t.Errorf("the new one is instead of %q", a.PreviousAllocation)
		}
		var told []string
		for _, e := range s.events {
			if e.index >= since && len(told) < 6 {
				text := e.topic + " " + e.kind
				if a, ok := e.payload["Allocation"].(*api.Allocation); ok {
					text += " " + a.ClientStatus
				}
				told = append(told, text)
			}
		}
		want := []string{
			"Node NodeStreamEvent", "Evaluation EvaluationUpdated", "Evaluation PlanResult", "Allocation PlanResult pending",
			"Allocation PlanResult lost", "Evaluation EvaluationUpdated",
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}

		// With no node left it waits, until one is back.
		if err := s.FailNode(other); err != nil {
			t.Fatal(err)
		}
		var j api.Job
		if call(t, s, "GET", "/v1/job/first", nil, &j); *j.Status != "pending" {
			t.Errorf("without a node it is %s", *j.Status)
		}
		if err := s.RestoreNode(died); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := on(t, s, "first"); got != died {
			t.Errorf("it runs on %q, want %q", got, died)
		}
		call(t, s, "GET", "/v1/job/first/allocations", nil, &allocs)
		if old := allocs[len(allocs)-1]; len(allocs) != 3 || old.ClientStatus != "complete" || old.DesiredStatus != "stop" {
			t.Errorf("allocations %+v", allocs)
		}
		// What was lost holds nothing any more.
		register(t, s, plain("second", "raw_exec", large))
		if err := s.RestoreNode(other); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := on(t, s, "second"); got != other {
			t.Errorf("the second runs on %q, want %q", got, other)
		}
		if err := s.FailNode("no-such"); err == nil {
			t.Error("a node that is not there fails")
		}
	})
}

func TestSilenceAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		defer s.Close()
		register(t, s, plain("first", "raw_exec"))
		answered := make(chan int, 1)
		s.SetFault(Silent, 0)
		go func() { answered <- call(t, s, "GET", "/v1/jobs", nil, nil) }()
		time.Sleep(time.Hour)
		if len(answered) > 0 {
			t.Error("a silent server answers")
		}
		s.SetFault(Healthy, 0)
		if got := <-answered; got != 200 {
			t.Errorf("afterwards it answers %d", got)
		}

		index := latest(s)
		ended := make(chan int, 2)
		for _, path := range []string{"/v1/event/stream?index=1", "/v1/jobs?index=100000"} {
			go func() { ended <- call(t, s, "GET", path, nil, nil) }()
		}
		synctest.Wait()
		if len(ended) > 0 {
			t.Fatal("a stream ends by itself")
		}
		s.Restart()
		<-ended
		<-ended
		if len(s.events) != 0 || latest(s) <= index {
			t.Errorf("after a restart at %d there are %d events, and the index is %d", index, len(s.events), latest(s))
		}
		register(t, s, plain("second", "raw_exec"))
		if len(s.events) == 0 || s.events[0].index <= index {
			t.Errorf("events go on with %+v", s.events)
		}
		var j api.Job
		if got := call(t, s, "GET", "/v1/job/first", nil, &j); got != 200 {
			t.Errorf("the first job is answered with %d", got)
		}
	})
}

func TestCloseEndsAllThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Nodes: MixedFleet(), Run: hold})
		for i := range 50 { // more than have room
			register(t, s, plain(fmt.Sprint("j", i), "raw_exec", ask(func(r *api.Resources) { r.MemoryMB = new(16 << 10) })))
		}
		var ended sync.WaitGroup
		for _, path := range []string{"/v1/event/stream", "/v1/jobs?index=1000000"} {
			ended.Go(func() { call(t, s, "GET", path, nil, nil) })
		}
		synctest.Wait()
		s.Close()
		ended.Wait()
		if len(s.waiting) == 0 {
			t.Error("nothing waits any more, want that nothing is placed while it closes")
		}
		if got := call(t, s, "PUT", "/v1/jobs", api.JobRegisterRequest{Job: plain("late", "raw_exec")}, nil); got != 500 {
			t.Errorf("a closed server answers a registration with %d, want 500", got)
		}
	})
}

func TestTenThousandJobs(t *testing.T) {
	const jobs = 10_000
	var mu sync.Mutex
	ran, all := map[string]int{}, make(chan struct{})
	s := New(Config{Nodes: MixedFleet(), Run: func(_ context.Context, t Task) int {
		mu.Lock()
		defer mu.Unlock()
		ran[t.JobID]++
		if len(ran) == jobs && ran[t.JobID] == 1 {
			close(all)
		}
		return 0
	}})
	defer s.Close()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < jobs; i += 8 {
				kernel := []string{"linux", "darwin", "windows"}[i%3]
				register(t, s, plain(fmt.Sprint("j", i), "raw_exec", where("${attr.kernel.name}", "=", kernel), func(j *api.Job) { j.SetMeta("n", fmt.Sprint(i)) }))
			}
		})
	}
	wg.Wait()
	<-all
	mu.Lock()
	defer mu.Unlock()
	for id, n := range ran {
		if n != 1 {
			t.Errorf("job %s ran %d times", id, n)
		}
	}
}

func TestValidationNamesEveryFault(t *testing.T) {
	s := New(Config{Nodes: MixedFleet()})
	defer s.Close()
	var resp api.JobValidateResponse
	call(t, s, "PUT", "/v1/validate/job", api.JobValidateRequest{Job: plain("a b", "", func(j *api.Job) { j.NodePool = new("x") })}, &resp)
	want := []string{
		`job "a b" is in nonexistent node pool "x"`, "Job ID contains a space",
		"Task group g validation failed: 1 error occurred:\n\t* Task t validation failed: 1 error occurred:\n\t* Missing task driver\n\n\n\n",
	}
	if diff := cmp.Diff(want, resp.ValidationErrors); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// The simulator must not be what a measurement of the router measures.
func BenchmarkRegister(b *testing.B) {
	for _, c := range []struct {
		name  string
		nodes []*api.Node
	}{{"waiting", nil}, {"nodes=8", MixedFleet()}} {
		b.Run(c.name, func(b *testing.B) {
			s := New(Config{Nodes: c.nodes})
			defer s.Close()
			var n int
			for b.Loop() {
				n++
				register(b, s, plain(fmt.Sprint("j", n), "raw_exec", where("${attr.kernel.name}", "=", "linux")))
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}
