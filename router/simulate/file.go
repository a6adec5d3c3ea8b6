package simulate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/nomad/api"

	"switchyard/router/feasible"
	"switchyard/rules"
)

const (
	// MaxNodes bounds the nodes of a fleet.
	MaxNodes = 100_000

	mhzPerCore  = 2500 // unless a file says something else
	defaultDisk = 500 << 10
)

// A fleetFile is the content of a fleet file.
type fleetFile struct {
	Nodes []fileNodes `yaml:"nodes"`
}

// fileNodes are nodes that are alike.
type fileNodes struct {
	Name       string            `yaml:"name,omitempty"`  // of the one, or what the names of all begin with
	Count      *int              `yaml:"count,omitempty"` // of nodes; nil: 1
	Names      []string          `yaml:"names,omitempty"` // of all, instead of the two
	OS         string            `yaml:"os"`              // kernel.name
	Arch       string            `yaml:"arch"`            // cpu.arch
	Class      string            `yaml:"class,omitempty"`
	Pool       string            `yaml:"pool,omitempty"`       // "": default
	Datacenter string            `yaml:"datacenter,omitempty"` // "": dc1
	Cores      int               `yaml:"cores"`
	Reservable *int              `yaml:"reservable_cores,omitempty"` // of the cores; nil: all
	CPU        int               `yaml:"cpu,omitempty"`              // MHz of all cores; 0: 2500 of each
	Memory     mebibytes         `yaml:"memory"`
	Disk       mebibytes         `yaml:"disk,omitempty"` // 0: 500 GiB
	Reserved   *fileReserved     `yaml:"reserved,omitempty"`
	Devices    []fileDevice      `yaml:"devices,omitempty"`
	Drivers    []string          `yaml:"drivers"` // nil: raw_exec, and docker on Linux
	Volumes    []fileVolume      `yaml:"host_volumes,omitempty"`
	Meta       map[string]string `yaml:"meta,omitempty"`
	Attributes map[string]string `yaml:"attributes,omitempty"` // besides OS and Arch
}

// fileReserved is what of a node is not for runners.
type fileReserved struct {
	CPU    int       `yaml:"cpu,omitempty"`
	Memory mebibytes `yaml:"memory,omitempty"`
	Disk   mebibytes `yaml:"disk,omitempty"`
}

type fileDevice struct {
	Name       string            `yaml:"name"` // vendor/type/model
	Count      *int              `yaml:"count,omitempty"`
	Attributes map[string]string `yaml:"attributes,omitempty"`
}

type fileVolume struct {
	Name     string `yaml:"name"`
	ReadOnly bool   `yaml:"read_only,omitempty"`
}

// mebibytes is a size in MiB, written 64GiB, 512MiB, or as a number of MiB.
type mebibytes int

// UnmarshalYAML implements yaml.BytesUnmarshaler.
func (m *mebibytes) UnmarshalYAML(src []byte) error {
	text, factor := strings.Trim(strings.TrimSpace(string(src)), `"'`), 1
	for unit, f := range map[string]int{"MiB": 1, "GiB": 1 << 10, "TiB": 1 << 20} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			text, factor = strings.TrimSpace(number), f
		}
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 || n > 1<<31/int64(factor) {
		return fmt.Errorf("%s is no size: want such as 64GiB, 512MiB or 512", bytes.TrimSpace(src))
	}
	*m = mebibytes(int(n) * factor)
	return nil
}

// MarshalYAML implements yaml.BytesMarshaler.
func (m mebibytes) MarshalYAML() ([]byte, error) {
	if m%1024 == 0 {
		return fmt.Appendf(nil, "%dGiB", m/1024), nil
	}
	return fmt.Appendf(nil, "%dMiB", int(m)), nil
}

// ReadFleet reads a fleet file. The error calls it by name; it is rules.Diagnostics if
// something in the file is wrong.
func ReadFleet(name string, src []byte) ([]*api.Node, error) {
	var f fleetFile
	err := yaml.NewDecoder(bytes.NewReader(src), yaml.Strict()).Decode(&f)
	if err != nil && !errors.Is(err, io.EOF) { // that of an empty file
		d := rules.Diagnostic{File: name, Line: 1, Column: 1, Message: err.Error()}
		if at, ok := errors.AsType[yaml.Error](err); ok && at.GetToken() != nil {
			p := at.GetToken().Position
			d.Line, d.Column, d.Message = p.Line, p.Column, at.GetMessage()
		}
		return nil, rules.Diagnostics{d}
	}
	var nodes []*api.Node
	for i := range f.Nodes {
		n := &f.Nodes[i]
		names, err := n.names(i)
		if err == nil && len(nodes)+len(names) > MaxNodes {
			err = fmt.Errorf("there are more than %d nodes", MaxNodes)
		}
		var one *api.Node
		if err == nil {
			one, err = n.node()
		}
		if err != nil {
			d := rules.Diagnostic{File: name, Line: 1, Column: 1, Message: fmt.Sprintf("nodes[%d]: %v", i, err)}
			if at, pathErr := yaml.PathString(fmt.Sprintf("$.nodes[%d]", i)); pathErr == nil {
				if node, readErr := at.ReadNode(bytes.NewReader(src)); readErr == nil {
					d.Line, d.Column = node.GetToken().Position.Line, node.GetToken().Position.Column
				}
			}
			return nil, rules.Diagnostics{d}
		}
		for _, name := range names {
			n := *one
			n.ID, n.Name = name, name
			nodes = append(nodes, &n)
		}
	}
	if len(nodes) == 0 {
		return nil, rules.Diagnostics{{File: name, Line: 1, Column: 1, Message: "it has no nodes: want such as nodes: [{ name: linux, count: 4, os: linux, arch: amd64, cores: 16, memory: 64GiB }]"}}
	}
	seen := map[string]bool{}
	for _, n := range nodes {
		if seen[n.Name] {
			return nil, rules.Diagnostics{{File: name, Line: 1, Column: 1, Message: fmt.Sprintf("two nodes are called %q", n.Name)}}
		}
		seen[n.Name] = true
	}
	return nodes, nil
}

// names returns the names of the nodes.
func (n *fileNodes) names(i int) ([]string, error) {
	switch {
	case len(n.Names) > 0 && (n.Name != "" || n.Count != nil):
		return nil, errors.New("names takes the place of name and count")
	case len(n.Names) > 0:
		return n.Names, nil
	case n.Count == nil:
		return []string{cmp.Or(n.Name, fmt.Sprintf("node-%d", i+1))}, nil
	case *n.Count < 0 || *n.Count > MaxNodes:
		return nil, fmt.Errorf("count %d: want a number from 0 to %d", *n.Count, MaxNodes)
	}
	names := make([]string, *n.Count)
	for k := range names {
		names[k] = fmt.Sprintf("%s-%d", cmp.Or(n.Name, fmt.Sprintf("node-%d", i+1)), k+1)
	}
	return names, nil
}

// node returns one of the nodes, without a name.
func (n *fileNodes) node() (*api.Node, error) {
	reservable := n.Cores
	if n.Reservable != nil {
		reservable = *n.Reservable
	}
	switch {
	case n.OS == "" || n.Arch == "":
		return nil, errors.New("os and arch are missing: want such as os: linux, arch: amd64")
	case n.Cores < 1 || n.Cores > 1<<14:
		return nil, fmt.Errorf("cores %d: want a number from 1 to %d", n.Cores, 1<<14)
	case reservable < 0 || reservable > n.Cores:
		return nil, fmt.Errorf("reservable_cores %d: want a number from 0 to cores", reservable)
	case n.Memory < 1:
		return nil, errors.New("memory is missing: want such as memory: 64GiB")
	case n.CPU < 0:
		return nil, fmt.Errorf("cpu %d: want MHz", n.CPU)
	}
	drivers := n.Drivers
	if drivers == nil {
		drivers = []string{"raw_exec"}
		if n.OS == "linux" {
			drivers = append(drivers, "docker")
		}
	}
	cpu := cmp.Or(n.CPU, n.Cores*mhzPerCore)
	node := &api.Node{
		Datacenter: cmp.Or(n.Datacenter, "dc1"), NodeClass: n.Class, NodePool: cmp.Or(n.Pool, api.NodePoolDefault), Status: "ready", SchedulingEligibility: "eligible",
		Attributes: map[string]string{"cpu.numcores": strconv.Itoa(n.Cores), "cpu.totalcompute": strconv.Itoa(cpu)}, Meta: n.Meta, Drivers: map[string]*api.DriverInfo{}, HostVolumes: map[string]*api.HostVolumeInfo{},
		NodeResources: &api.NodeResources{
			Cpu:    api.NodeCpuResources{CpuShares: int64(cpu), TotalCpuCores: uint16(n.Cores)},
			Memory: api.NodeMemoryResources{MemoryMB: int64(n.Memory)}, Disk: api.NodeDiskResources{DiskMB: int64(cmp.Or(n.Disk, defaultDisk))},
		},
		ReservedResources: &api.NodeReservedResources{},
	}
	for i := range reservable {
		node.NodeResources.Cpu.ReservableCpuCores = append(node.NodeResources.Cpu.ReservableCpuCores, uint16(i))
	}
	if r := n.Reserved; r != nil {
		node.ReservedResources.Cpu.CpuShares = uint64(max(0, r.CPU))
		node.ReservedResources.Memory.MemoryMB, node.ReservedResources.Disk.DiskMB = uint64(r.Memory), uint64(r.Disk)
	}
	for _, name := range drivers {
		node.Drivers[name] = &api.DriverInfo{Detected: true, Healthy: true}
		node.Attributes["driver."+name] = "1"
	}
	for _, v := range n.Volumes {
		node.HostVolumes[v.Name] = &api.HostVolumeInfo{ReadOnly: v.ReadOnly}
	}
	maps.Copy(node.Attributes, n.Attributes)
	node.Attributes["kernel.name"], node.Attributes["cpu.arch"] = n.OS, n.Arch
	for _, d := range n.Devices {
		name := strings.SplitN(d.Name, "/", 3)
		count := 1
		if d.Count != nil {
			count = *d.Count
		}
		if len(name) != 3 || count < 0 || count > 1<<12 {
			return nil, fmt.Errorf("device %q, %d of it: want vendor/type/model, such as nvidia/gpu/L4, and a count of at most %d", d.Name, count, 1<<12)
		}
		device := &api.NodeDeviceResource{Vendor: name[0], Type: name[1], Name: name[2], Attributes: map[string]*api.Attribute{}}
		for key, text := range d.Attributes {
			device.Attributes[key] = feasible.ReadAttribute(text)
		}
		for i := range count {
			device.Instances = append(device.Instances, &api.NodeDevice{ID: strconv.Itoa(i), Healthy: true})
		}
		node.NodeResources.Devices = append(node.NodeResources.Devices, device)
	}
	return node, nil
}

// WriteFleet writes a fleet file of nodes. What is unique to a node is left out, other than
// its name, so that nodes that are alike stand together.
func WriteFleet(nodes []*api.Node) ([]byte, error) {
	var f fleetFile
	known := map[string]int{}
	for _, n := range nodes {
		alike := fileOf(n)
		key, err := yaml.Marshal(alike)
		if err != nil {
			return nil, err
		}
		at, ok := known[string(key)]
		if !ok {
			at = len(f.Nodes)
			known[string(key)] = at
			f.Nodes = append(f.Nodes, alike)
		}
		f.Nodes[at].Names = append(f.Nodes[at].Names, n.Name)
	}
	return yaml.MarshalWithOptions(f, yaml.IndentSequence(true), yaml.Indent(2))
}

// fileOf returns what a fleet file says of a node, without its name.
func fileOf(n *api.Node) fileNodes {
	r := n.NodeResources
	f := fileNodes{
		OS: n.Attributes["kernel.name"], Arch: n.Attributes["cpu.arch"], Class: n.NodeClass, Pool: n.NodePool, Datacenter: n.Datacenter,
		Cores: max(1, int(r.Cpu.TotalCpuCores)), CPU: int(r.Cpu.CpuShares), Memory: mebibytes(r.Memory.MemoryMB), Disk: mebibytes(r.Disk.DiskMB),
		Drivers: []string{}, Meta: map[string]string{}, Attributes: map[string]string{},
	}
	if free := len(r.Cpu.ReservableCpuCores); free != f.Cores {
		f.Reservable = &free
	}
	if kept := n.ReservedResources; kept != nil && (kept.Cpu.CpuShares > 0 || kept.Memory.MemoryMB > 0 || kept.Disk.DiskMB > 0) {
		f.Reserved = &fileReserved{int(kept.Cpu.CpuShares), mebibytes(kept.Memory.MemoryMB), mebibytes(kept.Disk.DiskMB)}
	}
	for _, name := range slices.Sorted(maps.Keys(n.Drivers)) {
		if d := n.Drivers[name]; d.Detected && d.Healthy {
			f.Drivers = append(f.Drivers, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.HostVolumes)) {
		f.Volumes = append(f.Volumes, fileVolume{name, n.HostVolumes[name].ReadOnly})
	}
	common := func(to, from map[string]string) {
		for key, value := range from {
			if !strings.HasPrefix(key, "unique.") {
				to[key] = value
			}
		}
	}
	common(f.Meta, n.Meta)
	common(f.Attributes, n.Attributes)
	delete(f.Attributes, "kernel.name")
	delete(f.Attributes, "cpu.arch")
	for _, d := range r.Devices {
		device := fileDevice{Name: d.Vendor + "/" + d.Type + "/" + d.Name, Count: new(feasible.Healthy(d)), Attributes: map[string]string{}}
		for key, value := range d.Attributes {
			device.Attributes[key] = value.String()
		}
		f.Devices = append(f.Devices, device)
	}
	return f
}
