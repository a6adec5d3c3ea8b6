package nomadsim

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"github.com/hashicorp/nomad/api"

	"switchyard/router/feasible"
)

// A Machine describes a node by what distinguishes nodes.
type Machine struct {
	Name       string
	Kernel     string // linux, darwin or windows
	Arch       string // amd64 or arm64
	Cores      int    // of 2,500 MHz
	MemoryMB   int
	GPUs       int    // of nvidia/gpu
	Class      string // node class; "": none
	Pool       string // node pool; "": default
	Datacenter string // "": dc1
	Meta       map[string]string
}

// runnerDir is where the built-in raw_exec jobspecs look for the runner.
const runnerDir = "switchyard_runner_dir"

const mhz = 2500 // of a core

// NewNode makes a node of a machine, with the drivers that its system has:
// docker and raw_exec on Linux, raw_exec elsewhere.
func NewNode(m Machine) *api.Node {
	drivers := []string{"raw_exec"}
	if m.Kernel == "linux" {
		drivers = append(drivers, "docker")
	}
	n := &api.Node{
		ID:   uuid.NewSHA1(uuid.Nil, []byte(m.Name)).String(),
		Name: m.Name, Datacenter: cmp.Or(m.Datacenter, "dc1"), NodeClass: m.Class, NodePool: cmp.Or(m.Pool, "default"),
		Status: "ready", SchedulingEligibility: "eligible", HTTPAddr: "127.0.0.1:4646",
		Attributes: map[string]string{
			"kernel.name": m.Kernel, "cpu.arch": m.Arch, "cpu.numcores": strconv.Itoa(m.Cores),
			"cpu.totalcompute": strconv.Itoa(m.Cores * mhz), "nomad.version": release,
			"os.name":         map[string]string{"linux": "debian", "darwin": "darwin", "windows": "Microsoft Windows Server 2025"}[m.Kernel],
			"os.signals":      "SIGINT,SIGKILL,SIGTERM,SIGQUIT,SIGHUP",
			"unique.hostname": m.Name, "unique.network.ip-address": "127.0.0.1",
		},
		Meta:    map[string]string{},
		Drivers: map[string]*api.DriverInfo{},
		NodeResources: &api.NodeResources{
			Cpu:    api.NodeCpuResources{CpuShares: int64(m.Cores * mhz), TotalCpuCores: uint16(m.Cores)},
			Memory: api.NodeMemoryResources{MemoryMB: int64(m.MemoryMB)},
			Disk:   api.NodeDiskResources{DiskMB: 500_000},
		},
		ReservedResources: &api.NodeReservedResources{},
	}
	for i := range m.Cores {
		n.NodeResources.Cpu.ReservableCpuCores = append(n.NodeResources.Cpu.ReservableCpuCores, uint16(i))
	}
	if m.Kernel != "linux" {
		n.Meta[runnerDir] = map[string]string{"darwin": "/opt/actions-runner", "windows": `C:\actions-runner`}[m.Kernel]
	}
	maps.Copy(n.Meta, m.Meta)
	for _, d := range drivers {
		n.Drivers[d] = &api.DriverInfo{Detected: true, Healthy: true, HealthDescription: "Healthy"}
		n.Attributes["driver."+d] = "1"
	}
	if m.GPUs > 0 {
		gpu := &api.NodeDeviceResource{
			Vendor: "nvidia", Type: "gpu", Name: "L4",
			Attributes: map[string]*api.Attribute{"memory": {IntVal: new(int64(24)), Unit: "GiB"}, "cuda_cores": {IntVal: new(int64(7424))}},
		}
		for i := range m.GPUs {
			gpu.Instances = append(gpu.Instances, &api.NodeDevice{ID: m.Name + "-gpu-" + strconv.Itoa(i), Healthy: true})
		}
		n.NodeResources.Devices = []*api.NodeDeviceResource{gpu}
	}
	return n
}

// MixedFleet returns a small fleet of all three systems and both architectures.
func MixedFleet() []*api.Node {
	var nodes []*api.Node
	for _, m := range []Machine{
		{Name: "linux-1", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10, Meta: map[string]string{"zone": "tokyo-a"}},
		{Name: "linux-2", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10, Class: "spot", Meta: map[string]string{"zone": "tokyo-b"}},
		{Name: "linux-arm-1", Kernel: "linux", Arch: "arm64", Cores: 32, MemoryMB: 64 << 10, Meta: map[string]string{"zone": "tokyo-a"}},
		{Name: "linux-gpu-1", Kernel: "linux", Arch: "amd64", Cores: 32, MemoryMB: 128 << 10, GPUs: 2, Class: "gpu", Meta: map[string]string{"zone": "tokyo-a"}},
		{Name: "mac-1", Kernel: "darwin", Arch: "arm64", Cores: 10, MemoryMB: 32 << 10},
		{Name: "mac-2", Kernel: "darwin", Arch: "amd64", Cores: 8, MemoryMB: 32 << 10},
		{Name: "windows-1", Kernel: "windows", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10},
		{Name: "windows-arm-1", Kernel: "windows", Arch: "arm64", Cores: 12, MemoryMB: 32 << 10},
	} {
		nodes = append(nodes, NewNode(m))
	}
	return nodes
}

// A node is a node and its free resources, guarded by cluster.mu.
type node struct {
	*api.Node
	class string // the same for nodes that constraints cannot distinguish
	left  feasible.Amount
}

func (s *cluster) addNode(n *api.Node) {
	have := &node{Node: n, class: feasible.Class(n), left: feasible.Idle(n)}
	c := s.change("NodeRegistration")
	n.CreateIndex, n.ModifyIndex, s.ofNodes = c.index, c.index, c.index
	s.nodes = append(s.nodes, have)
	s.pools[n.NodePool] = true
	c.publish(event{topic: "Node", key: n.ID, payload: map[string]any{"Node": n}})
}

// FailNode takes a node down, as after missed heartbeats: its allocations are lost, and
// Nomad replaces each or lets the job wait. It fails when there is no such node.
func (s *Server) FailNode(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.turn(name, func(n *api.Node) { n.Status = "down" })
	if err != nil {
		return err
	}
	jobs := map[*job]bool{}
	for _, a := range s.allocs {
		if a.node == n && a.live() {
			a.lost = true
			a.cancel()
			jobs[s.jobs[key{a.Namespace, a.JobID}]] = true
		}
	}
	for _, j := range slices.SortedFunc(maps.Keys(jobs), before) {
		s.change("EvaluationUpdated").evaluate(j, "node-update", *j.Type)
	}
	return nil
}

// RestoreNode brings a failed node back. Its lost allocations stay lost. It fails when
// there is no such node.
func (s *Server) RestoreNode(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.turn(name, func(n *api.Node) { n.Status = "ready" })
	if err != nil {
		return err
	}
	older := func(a, b *alloc) int {
		return cmp.Or(cmp.Compare(a.CreateIndex, b.CreateIndex), cmp.Compare(a.Name, b.Name))
	}
	for _, a := range slices.SortedFunc(maps.Values(s.allocs), older) {
		if a.node == n && a.ClientStatus == "lost" {
			s.change("AllocationUpdated").update(a, func(a *api.Allocation) {
				a.ClientStatus, a.ClientDescription = "complete", "All tasks have completed"
			})
		}
	}
	s.freed(n)
	return nil
}

// SetEligible makes a node eligible for new allocations, or ineligible, as nomad node
// eligibility does. It fails when there is no such node.
func (s *Server) SetEligible(name string, eligible bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.turn(name, func(n *api.Node) {
		n.SchedulingEligibility = map[bool]string{true: "eligible", false: "ineligible"}[eligible]
	})
	if err == nil {
		s.freed(n)
	}
	return err
}

// turn changes a node. s.mu is held.
func (s *cluster) turn(name string, change func(*api.Node)) (*node, error) {
	i := slices.IndexFunc(s.nodes, func(n *node) bool { return n.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("nomadsim: there is no node %q", name)
	}
	n := s.nodes[i]
	c := s.change("NodeStreamEvent")
	changed := *n.Node // what was given out stays as it was
	change(&changed)
	changed.ModifyIndex, s.ofNodes = c.index, c.index
	n.Node = &changed
	c.publish(event{topic: "Node", key: n.ID, payload: map[string]any{"Node": n.Node}})
	return n, nil
}

func (s clusterAPI) listNodes(h http.Header, r *http.Request) (any, error) {
	list := []*api.NodeListStub{}
	for _, n := range s.nodes {
		if !listed(r, "", n.ID) {
			continue
		}
		stub := &api.NodeListStub{
			Address: "127.0.0.1", ID: n.ID, Name: n.Name, Datacenter: n.Datacenter, NodeClass: n.NodeClass, NodePool: n.NodePool,
			Version: n.Attributes["nomad.version"], Status: n.Status, Drain: n.Drain, SchedulingEligibility: n.SchedulingEligibility, Drivers: n.Drivers,
			CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
		}
		if r.URL.Query().Get("resources") == "true" {
			stub.NodeResources, stub.ReservedResources = n.NodeResources, n.ReservedResources
		}
		list = append(list, stub)
	}
	h.Set("X-Nomad-Index", strconv.FormatUint(max(s.ofNodes, 1), 10))
	return page(r, h, list, func(n *api.NodeListStub) string { return n.ID })
}

func (s clusterAPI) getNode(_ http.Header, r *http.Request) (any, error) {
	id := pathID(r)
	if err := checkID(id, "node"); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		if n.ID == id {
			return n.Node, nil
		}
	}
	return nil, notFound("node not found")
}

func (s clusterAPI) listPools(h http.Header, r *http.Request) (any, error) {
	list := []*api.NodePool{}
	for name := range s.pools {
		if listed(r, "", name) {
			list = append(list, &api.NodePool{Name: name})
		}
	}
	return page(r, h, list, func(p *api.NodePool) string { return p.Name })
}

func (s clusterAPI) getPool(_ http.Header, r *http.Request) (any, error) {
	if name := pathID(r); s.pools[name] {
		return &api.NodePool{Name: name}, nil
	}
	return nil, notFound("node pool not found")
}

// putPool creates a node pool unless it exists. Only the name is kept.
func (s clusterAPI) putPool(_ http.Header, r *http.Request) (any, error) {
	var pool api.NodePool
	if err := decode(r, &pool); err != nil {
		return nil, err
	}
	s.pools[pool.Name] = true
	return nil, nil
}
