package nomadsim

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/hashicorp/go-version"
	"github.com/hashicorp/nomad/api"
	"regexp"
)

// A Machine describes a node in the few words that tell nodes apart.
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
			"cpu.totalcompute": strconv.Itoa(m.Cores * mhz), "nomad.version": "2.0.0",
			"os.name":         map[string]string{"linux": "debian", "darwin": "darwin", "windows": "Microsoft Windows Server 2025"}[m.Kernel],
			"os.signals":      "SIGINT,SIGKILL,SIGTERM,SIGQUIT,SIGHUP",
			"unique.hostname": m.Name,
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
	for k, v := range m.Meta {
		n.Meta[k] = v
	}
	for _, d := range drivers {
		n.Drivers[d] = &api.DriverInfo{Detected: true, Healthy: true, HealthDescription: "Healthy"}
		n.Attributes["driver."+d] = "1"
	}
	if m.GPUs > 0 {
		gpu := &api.NodeDeviceResource{
			Vendor: "nvidia", Type: "gpu", Name: "L4",
			Attributes: map[string]*api.Attribute{"memory": {IntVal: ptr(int64(24)), Unit: "GiB"}, "cuda_cores": {IntVal: ptr(int64(7424))}},
		}
		for i := range m.GPUs {
			gpu.Instances = append(gpu.Instances, &api.NodeDevice{ID: m.Name + "-gpu-" + strconv.Itoa(i), Healthy: true})
		}
		n.NodeResources.Devices = []*api.NodeDeviceResource{gpu}
	}
	return n
}

// MixedFleet is a small fleet of all three systems and both architectures.
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

// node is a node and what is left of it, guarded by Server.mu.
type node struct {
	*api.Node
	cpu, cores, memory, disk int
	devices                  []int // free instances, in the order of NodeResources.Devices
}

func (s *Server) addNode(n *api.Node) {
	r := n.NodeResources
	have := &node{
		Node: n, cpu: int(r.Cpu.CpuShares), cores: len(r.Cpu.ReservableCpuCores),
		memory: int(r.Memory.MemoryMB), disk: int(r.Disk.DiskMB),
	}
	for _, d := range r.Devices {
		have.devices = append(have.devices, healthy(d))
	}
	n.CreateIndex, n.ModifyIndex = s.index, s.index
	s.nodes = append(s.nodes, have)
	s.publish(s.index, event{topic: "Node", kind: "NodeRegistration", key: n.ID, name: "Node", payload: n})
}

func healthy(d *api.NodeDeviceResource) (n int) {
	for _, i := range d.Instances {
		if i.Healthy {
			n++
		}
	}
	return n
}

// resolve returns what a constraint's target is on a node.
func (n *node) resolve(target string) (string, bool) {
	if !strings.HasPrefix(target, "${") {
		return target, true
	}
	name := strings.TrimSuffix(strings.TrimPrefix(target, "${"), "}")
	switch name {
	case "node.unique.id":
		return n.ID, true
	case "node.unique.name":
		return n.Name, true
	case "node.datacenter":
		return n.Datacenter, true
	case "node.class":
		return n.NodeClass, true
	case "node.pool":
		return n.NodePool, true
	}
	if attr, ok := strings.CutPrefix(name, "attr."); ok {
		v, found := n.Attributes[attr]
		return v, found
	}
	if meta, ok := strings.CutPrefix(name, "meta."); ok {
		v, found := n.Meta[meta]
		return v, found
	}
	return "", false
}

// holds reports whether left, as found on a node, stands to right as the
// operator says. What is not there equals nothing, so != holds for it.
func holds(operator, left string, leftFound bool, right string, rightFound bool) bool {
	both := leftFound && rightFound
	switch operator {
	case "=", "==", "is":
		return both && left == right
	case "!=", "not":
		return left != right || leftFound != rightFound
	case "is_set":
		return leftFound
	case "is_not_set":
		return !leftFound
	case "<", "<=", ">", ">=":
		return both && ordered(operator, left, right)
	case "version":
		return both && versionHolds(left, right)
	case "semver":
		return both && semverHolds(left, right)
	case "regexp":
		re, err := regexp.Compile(right)
		return both && err == nil && re.MatchString(left)
	case "set_contains", "set_contains_all":
		return both && !slices.ContainsFunc(set(right), func(v string) bool { return !slices.Contains(set(left), v) })
	case "set_contains_any":
		return both && slices.ContainsFunc(set(right), func(v string) bool { return slices.Contains(set(left), v) })
	case "distinct_hosts", "distinct_property":
		return true // one allocation is distinct
	}
	return false
}

func set(s string) []string {
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// ordered compares as integers, else as floats, else as text.
func ordered(operator, left, right string) bool {
	var c int
	l, lerr := strconv.ParseInt(left, 10, 64)
	r, rerr := strconv.ParseInt(right, 10, 64)
	lf, lferr := strconv.ParseFloat(left, 64)
	rf, rferr := strconv.ParseFloat(right, 64)
	switch {
	case lerr == nil && rerr == nil:
		c = cmp.Compare(l, r)
	case lferr == nil && rferr == nil:
		c = cmp.Compare(lf, rf)
	default:
		c = cmp.Compare(left, right)
	}
	return inOrder(operator, c)
}

func inOrder(operator string, c int) bool {
	switch operator {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	default:
		return c >= 0
	}
}

// versionHolds is go-version's reading: a constraint without a pre-release
// takes no version that has one.
func versionHolds(left, right string) bool {
	v, err := version.NewVersion(left)
	if err != nil {
		return false
	}
	c, err := version.NewConstraint(right)
	return err == nil && c.Check(v)
}

var semverTerm = regexp.MustCompile(`^\s*(=|!=|>|<|>=|<=|~>)?\s*(\S+)\s*$`)

// semverHolds orders pre-releases before their release and takes them.
func semverHolds(left, right string) bool {
	v, err := version.NewSemver(left)
	if err != nil {
		return false
	}
	for _, term := range strings.Split(right, ",") {
		m := semverTerm.FindStringSubmatch(term)
		if m == nil {
			return false
		}
		want, err := version.NewVersion(m[2])
		if err != nil {
			return false
		}
		c := v.Compare(want)
		ok := false
		switch m[1] {
		case "", "=":
			ok = c == 0
		case "!=":
			ok = c != 0
		case "~>":
			ok = versionHolds(v.Core().String(), "~> "+m[2]) && c >= 0
		default:
			ok = inOrder(m[1], c)
		}
		if !ok {
			return false
		}
	}
	return true
}

// matches reports whether a device is one that a request's name means: type,
// vendor/type or vendor/type/model.
func matches(d *api.NodeDeviceResource, name string) bool {
	switch p := strings.SplitN(name, "/", 3); len(p) {
	case 1:
		return d.Type == p[0]
	case 2:
		return d.Vendor == p[0] && d.Type == p[1]
	default:
		return d.Vendor == p[0] && d.Type == p[1] && d.Name == p[2]
	}
}

// deviceHolds reports whether a device satisfies a request's constraints.
func deviceHolds(d *api.NodeDeviceResource, constraints []*api.Constraint) bool {
	resolve := func(target string) (string, *api.Attribute, bool) {
		if !strings.HasPrefix(target, "${") {
			return target, nil, true
		}
		switch name := strings.TrimSuffix(strings.TrimPrefix(target, "${device."), "}"); name {
		case "model":
			return d.Name, nil, true
		case "vendor":
			return d.Vendor, nil, true
		case "type":
			return d.Type, nil, true
		case "ids":
			var ids []string
			for _, i := range d.Instances {
				ids = append(ids, i.ID)
			}
			return strings.Join(ids, ","), nil, true
		default:
			a := d.Attributes[strings.TrimPrefix(name, "attr.")]
			if a == nil {
				return "", nil, false
			}
			return a.String(), a, true
		}
	}
	for _, c := range constraints {
		l, _, lok := resolve(c.LTarget)
		r, _, rok := resolve(c.RTarget)
		if ln, lunit := quantity(l); lunit != "" {
			if rn, runit := quantity(r); runit != "" { // both in bytes
				l, r = strconv.FormatFloat(ln, 'f', -1, 64), strconv.FormatFloat(rn, 'f', -1, 64)
			}
		}
		if !holds(c.Operand, l, lok, r, rok) {
			return false
		}
	}
	return true
}

var units = map[string]float64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}

// quantity reads a number with a unit of memory; unit is "" when it is none.
func quantity(s string) (bytes float64, unit string) {
	s = strings.TrimSpace(s)
	for u, factor := range units {
		if n, ok := strings.CutSuffix(s, u); ok {
			if f, err := strconv.ParseFloat(strings.TrimSpace(n), 64); err == nil {
				return f * factor, u
			}
		}
	}
	return 0, ""
}

func (s *Server) listNodes(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []*api.NodeListStub{}
	for _, n := range s.nodes {
		if !strings.HasPrefix(n.ID, r.URL.Query().Get("prefix")) {
			continue
		}
		list = append(list, &api.NodeListStub{
			ID: n.ID, Name: n.Name, Datacenter: n.Datacenter, NodeClass: n.NodeClass, NodePool: n.NodePool, Version: n.Attributes["nomad.version"],
			Status: n.Status, SchedulingEligibility: n.SchedulingEligibility, Drivers: n.Drivers,
			NodeResources: n.NodeResources, ReservedResources: n.ReservedResources, CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
		})
	}
	return list, nil
}

func (s *Server) getNode(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n.ID == pathID(r) {
			return n.Node, nil
		}
	}
	return nil, notFound("node not found")
}

func (s *Server) listPools(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{"all", "default"}
	for _, n := range s.nodes {
		names = append(names, n.NodePool)
	}
	slices.Sort(names)
	list := []*api.NodePool{}
	for _, name := range slices.Compact(names) {
		list = append(list, &api.NodePool{Name: name})
	}
	return list, nil
}
