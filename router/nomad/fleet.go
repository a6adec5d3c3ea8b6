package nomad

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"switchyard/router/feasible"
)

const (
	nodeID   = "${node.unique.id}"
	nodeRead = `node { policy = "read" }` // the capability

	maxAside = 50 // nodes out of service that are read one by one
	maxNames = 5  // of nodes, pools or datacenters in a message
)

// A fleet is the nodes of a region, as they were when they were read.
type fleet struct {
	nodes []*api.NodeListStub
	aside map[string]*api.Node // more about nodes that are not in service, the first maxAside, by ID
}

// fleet reads the nodes of a region once.
func (s *survey) fleet(ctx context.Context, region string) (*fleet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.fleets[region]; f != nil {
		return f, nil
	}
	query := scope{Region: region}.read(ctx)
	query.Params = map[string]string{"resources": "true"}
	read := call{what: "list nodes", capability: nodeRead}
	if region != "" {
		read.what += " of region " + region
	}
	nodes, _, err := s.api.Nodes().List(query)
	if err != nil {
		return nil, read.sorted(err)
	}
	f := &fleet{nodes: nodes, aside: map[string]*api.Node{}}
	for _, n := range nodes {
		if n.NodeResources == nil {
			n.NodeResources = &api.NodeResources{}
		}
		if n.ReservedResources == nil {
			n.ReservedResources = &api.NodeReservedResources{}
		}
		if inService(n) || len(f.aside) == maxAside {
			continue
		}
		node, _, err := s.api.Nodes().Info(n.ID, scope{Region: region}.read(ctx))
		switch {
		case status(err) == http.StatusNotFound: // gone since
		case err != nil:
			read.what = "read node " + n.Name
			return nil, read.sorted(err)
		default:
			f.aside[n.ID] = node
		}
	}
	s.fleets[region] = f
	return f, nil
}

func inService(n *api.NodeListStub) bool { return outOfService(n) == "" }

// outOfService says why Nomad places nothing on a node.
func outOfService(n *api.NodeListStub) string {
	switch {
	case n.Status != "ready":
		return n.Status // down, disconnected, initializing
	case n.Drain:
		return "draining"
	case n.SchedulingEligibility != "eligible":
		return "ineligible"
	}
	return ""
}

// noPool is that there is no node pool of a name. f is nil when the nodes are
// not known.
func (f *fleet) noPool(name string) problem {
	pools := map[string]bool{}
	if f != nil {
		for _, n := range f.nodes {
			pools[n.NodePool] = true
		}
	}
	return problem{code: NoSuchPool, say: func(r Route) string {
		return fmt.Sprintf("there is no node pool %q%s; the nodes are in %s", name, from(r, "node_pool"), names(pools))
	}}
}

func (f *fleet) pool(job *api.Job) (in []*api.NodeListStub) {
	for _, n := range f.nodes {
		if pool := poolOf(job); pool == api.NodePoolAll || n.NodePool == pool {
			in = append(in, n)
		}
	}
	return in
}

// poolOf and datacentersOf give what Nomad gives a job that says nothing.
func poolOf(job *api.Job) string {
	if job.NodePool == nil || *job.NodePool == "" {
		return api.NodePoolDefault
	}
	return *job.NodePool
}

func datacentersOf(job *api.Job) []string {
	if len(job.Datacenters) == 0 {
		return []string{"*"}
	}
	return job.Datacenters
}

// datacenters are those of nodes.
func datacenters(nodes []*api.NodeListStub) map[string]bool {
	all := map[string]bool{}
	for _, n := range nodes {
		all[n.Datacenter] = true
	}
	return all
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return glob(p, name) })
}

// glob is Nomad's: * stands for any text, and nothing else is special.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return s == pattern
	}
	last := len(parts) - 1
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1:last] {
		if _, s, ok = strings.Cut(s, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(s, parts[last])
}

// unknownDatacenters are a job's datacenters that no node is in, in a pool
// that has nodes. They are only a warning while the job has others.
func (f *fleet) unknownDatacenters(job *api.Job) []problem {
	nodes := f.pool(job)
	if len(nodes) == 0 {
		return nil
	}
	have := datacenters(nodes)
	var unknown []string
	for _, pattern := range datacentersOf(job) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(have)), func(name string) bool { return glob(pattern, name) }) {
			unknown = append(unknown, pattern)
		}
	}
	if unknown == nil {
		return nil
	}
	pool := poolName(job)
	return []problem{{NoSuchDatacenter, len(unknown) < len(datacentersOf(job)), func(r Route) string {
		return fmt.Sprintf("no node%s is in datacenter %s%s; its nodes are in %s", pool, strings.Join(unknown, " or "), from(r, "datacenters"), names(have))
	}}}
}

// poolName is " in pool …", or nothing for all of them.
func poolName(job *api.Job) string {
	if pool := poolOf(job); pool != api.NodePoolAll {
		return fmt.Sprintf(" in pool %q", pool)
	}
	return ""
}

// names lists some of a set.
func names(set map[string]bool) string {
	all := slices.Sorted(maps.Keys(set))
	switch n := len(all) - maxNames; {
	case len(all) == 0:
		return "none"
	case n > 0:
		all = append(all[:maxNames], fmt.Sprintf("%d more", n))
	}
	return strings.Join(all, ", ")
}

// A size is one dimension of what a group asks of a node.
type size struct {
	of   string // cores, cpu, memory, disk; "" for a device
	ask  int
	have func(*api.NodeListStub) int // of an idle node
	show func(int) string
	from func(Route) string
}

// sizes are what a group asks for, in the order in which people look: the
// least that Nomad may count (AllocatedResources.Comparable in nomad/structs,
// v2.0.6-dev, read 2026-11-24).
func sizes(g *api.TaskGroup) []size {
	most := func(of func(*api.Resources) *int) int { return largest(g, of) }
	cpu, memory, disk := most(func(r *api.Resources) *int { return r.CPU }), most(func(r *api.Resources) *int { return r.MemoryMB }), 0
	if g.EphemeralDisk != nil && g.EphemeralDisk.SizeMB != nil {
		disk = *g.EphemeralDisk.SizeMB
	}
	all := []size{
		{
			of: "cores", ask: most(func(r *api.Resources) *int { return r.Cores }), show: cores,
			have: func(n *api.NodeListStub) int { return left(int(n.NodeResources.Cpu.TotalCpuCores), 0) },
			from: func(r Route) string { return from(r, "resources.cores") },
		},
		{
			of: "cpu", ask: cpu, show: func(n int) string { return fmt.Sprintf("%d MHz of CPU", n) },
			have: func(n *api.NodeListStub) int {
				return left(int(n.NodeResources.Cpu.CpuShares), int(n.ReservedResources.Cpu.CpuShares))
			},
			from: func(r Route) string { return partly(r, "resources.cpu", r.Placement.Resources.CPU, cpu) },
		},
		{
			of: "memory", ask: memory, show: mebibytes(memory, "memory"),
			have: func(n *api.NodeListStub) int {
				return left(int(n.NodeResources.Memory.MemoryMB), int(n.ReservedResources.Memory.MemoryMB))
			},
			from: func(r Route) string { return partly(r, "resources.memory_mb", r.Placement.Resources.MemoryMB, memory) },
		},
		{
			of: "disk", ask: disk, show: mebibytes(disk, "disk"),
			have: func(n *api.NodeListStub) int {
				return left(int(n.NodeResources.Disk.DiskMB), int(n.ReservedResources.Disk.DiskMB))
			},
			from: func(r Route) string { return from(r, "resources.disk_mb") },
		},
	}
	for _, d := range devicesOf(g) {
		all = append(all, size{
			ask: int(*d.Count), show: func(n int) string { return fmt.Sprintf("%d %s of one model", n, d.Name) },
			have: func(n *api.NodeListStub) int {
				most := 0 // Nomad takes all from one model
				for _, have := range n.NodeResources.Devices {
					if feasible.Named(have, d.Name) {
						most = max(most, feasible.Healthy(have))
					}
				}
				return most
			},
			from: func(r Route) string { return deviceFrom(r, d.Name) },
		})
	}
	return slices.DeleteFunc(all, func(s size) bool { return s.ask == 0 })
}

// partly is the origin of a size of which the placement says a part.
func partly(r Route, path string, own, all int) string {
	if own == 0 || own == all {
		return from(r, path)
	}
	return strings.TrimSuffix(from(r, path), ")") + " and the other tasks of " + source(r) + ")"
}

// left is what is left of a total. Nomad reports none of what it could not
// find out.
func left(total, reserved int) int {
	if total == 0 {
		return math.MaxInt
	}
	return total - reserved
}

// largest is the most that the tasks of a group use at the same time.
func largest(g *api.TaskGroup, of func(*api.Resources) *int) int {
	var before, main, after int
	for _, t := range g.Tasks {
		if t.Resources == nil || of(t.Resources) == nil {
			continue
		}
		n, hook := *of(t.Resources), ""
		if t.Lifecycle != nil {
			hook = t.Lifecycle.Hook
		}
		switch hook {
		case api.TaskLifecycleHookPrestart:
			before += n
			if t.Lifecycle.Sidecar {
				main += n
			}
		case api.TaskLifecycleHookPoststop:
			after += n
		default:
			main += n
		}
	}
	return max(before, main, after)
}

func devicesOf(g *api.TaskGroup) (all []*api.RequestedDevice) {
	for _, t := range g.Tasks {
		if t.Resources == nil {
			continue
		}
		for _, d := range t.Resources.Devices {
			if d.Count == nil {
				d.Count = new(uint64(1))
			}
			all = append(all, d)
		}
	}
	return all
}

func cores(n int) string {
	if n == 1 {
		return "1 core"
	}
	return fmt.Sprintf("%d cores", n)
}

// mebibytes shows sizes in the unit that suits what is asked for.
func mebibytes(ask int, of string) func(int) string {
	if ask%1024 != 0 {
		return func(n int) string { return fmt.Sprintf("%d MiB of %s", n, of) }
	}
	return func(n int) string {
		if n%1024 == 0 {
			return fmt.Sprintf("%d GiB of %s", n/1024, of)
		}
		return fmt.Sprintf("%.1f GiB of %s", math.Floor(float64(n)/1024*10)/10, of) // never more than there is
	}
}

// fits reports whether a node with nothing on it is large enough.
func fits(n *api.NodeListStub, sizes []size) bool {
	return !slices.ContainsFunc(sizes, func(s size) bool { return s.have(n) < s.ask })
}

// wouldDo reports whether a node would certainly run a group if it were in
// service and idle. It knows the common constraints, and doubts the rest.
func (f *fleet) wouldDo(n *api.NodeListStub, job *api.Job, g *api.TaskGroup, sizes []size) bool {
	node := f.aside[n.ID]
	if node == nil || !fits(n, sizes) || slices.ContainsFunc(devicesOf(g), func(d *api.RequestedDevice) bool { return len(d.Constraints) > 0 }) {
		return false
	}
	all := slices.Concat(job.Constraints, g.Constraints)
	for _, t := range g.Tasks {
		if d := node.Drivers[t.Driver]; d == nil || !d.Detected {
			return false
		}
		all = append(all, t.Constraints...)
	}
	return !slices.ContainsFunc(all, func(c *api.Constraint) bool { return !surelyHolds(c, node) })
}

func surelyHolds(c *api.Constraint, n *api.Node) bool {
	value, ok := attribute(c.LTarget, n)
	same := ok && value == c.RTarget
	if strings.HasPrefix(c.RTarget, "${") {
		return false
	}
	switch c.Operand {
	case "=", "==", "is":
		return same
	case "!=", "not":
		return !same
	case "is_set":
		return ok
	case "is_not_set":
		return !ok
	case "regexp":
		re, err := regexp.Compile(c.RTarget)
		return ok && err == nil && re.MatchString(value)
	}
	return false
}

// attribute is a constraint's target on a node.
func attribute(target string, n *api.Node) (value string, ok bool) {
	name := strings.TrimSuffix(target, "}")
	switch name {
	case "${node.unique.id":
		return n.ID, true
	case "${node.unique.name":
		return n.Name, true
	case "${node.datacenter":
		return n.Datacenter, true
	case "${node.class":
		return n.NodeClass, true
	case "${node.pool":
		return n.NodePool, true
	}
	if attr, is := strings.CutPrefix(name, "${attr."); is {
		value, ok = n.Attributes[attr]
	} else if meta, is := strings.CutPrefix(name, "${meta."); is {
		value, ok = n.Meta[meta]
	}
	return value, ok
}
