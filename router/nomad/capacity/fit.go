package capacity

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/feasible"
	"switchyard/router/nomad"
)

// A demand is what one group of a job asks of a node.
type demand struct {
	job         *api.Job
	group       *api.TaskGroup
	constraints []*api.Constraint // of the job, the group and its tasks
	sizes       []size

	said map[string]string // by filtered, by what filters a node
}

func demandOf(job *api.Job, g *api.TaskGroup) *demand {
	d := &demand{job, g, slices.Concat(job.Constraints, g.Constraints), sizes(g), map[string]string{}}
	for _, t := range g.Tasks {
		d.constraints = append(d.constraints, t.Constraints...)
	}
	return d
}

// filtered says why a node cannot serve the demand, whatever its size; "" when it can. The
// route is the same in all calls.
func (d *demand) filtered(r Route, n *api.Node) string {
	if pool := poolOf(d.job); pool != api.NodePoolAll && n.NodePool != pool {
		return d.once("pool", func() string { return fmt.Sprintf("is in another pool than %s%s", pool, r.from("node_pool")) })
	}
	if in := datacentersOf(d.job); !feasible.InDatacenters(in, n.Datacenter) {
		return d.once("datacenter", func() string {
			return fmt.Sprintf("is in another datacenter than %s%s", strings.Join(in, ", "), r.from("datacenters"))
		})
	}
	if broken := feasible.Broken(n, d.constraints); broken != "" {
		return d.once(broken, func() string { return "lacks " + d.lacks(r, broken) })
	}
	for _, c := range d.constraints {
		if _, ok := feasible.Target(n, c.LTarget); c.Operand == "distinct_property" && !ok {
			return "lacks " + c.LTarget
		}
	}
	for _, t := range d.group.Tasks {
		if !works(n.Drivers[t.Driver]) {
			return "lacks " + d.lacks(r, "missing drivers")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.group.Volumes)) {
		v := d.group.Volumes[name]
		if v.Type != "host" {
			continue
		}
		if have := n.HostVolumes[v.Source]; have == nil || have.ReadOnly && !v.ReadOnly {
			return fmt.Sprintf("lacks the host volume %s (%s)", v.Source, r.source())
		}
	}
	if !feasible.HasDevices(n, d.group) {
		return "lacks " + d.lacks(r, "missing devices")
	}
	return ""
}

// once returns what say returned for the first node that was filtered so.
func (d *demand) once(what string, say func() string) string {
	if d.said[what] == "" {
		d.said[what] = say()
	}
	return d.said[what]
}

// lacks names what filtered a node, in Nomad's words, as what the node lacks, and
// where that comes from.
func (d *demand) lacks(r Route, what string) string {
	switch what {
	case "missing drivers":
		drivers := map[string]bool{}
		for _, t := range d.group.Tasks {
			drivers[t.Driver] = true
		}
		return fmt.Sprintf("the driver %s in working order (%s)", strings.Join(slices.Sorted(maps.Keys(drivers)), " and "), r.source())
	case "missing devices":
		var devices []string
		for _, device := range devicesOf(d.group) {
			text := fmt.Sprintf("%d %s", *device.Count, device.Name)
			for _, c := range device.Constraints {
				text += fmt.Sprintf(" with %s %s %s", c.LTarget, c.Operand, c.RTarget)
			}
			devices = append(devices, text+r.deviceFrom(device.Name))
		}
		return strings.Join(devices, " and ")
	}
	origins := d.origins(r, what)
	if origins == "" {
		return "what it needs, in Nomad's words: " + what
	}
	return fmt.Sprintf("%s (%s)", strings.TrimSpace(what), origins)
}

// origins returns where a constraint in Nomad's words comes from; "" when it is not known.
func (d *demand) origins(r Route, what string) string {
	var all []string
	for _, c := range r.Placement.Constraints {
		if what == fmt.Sprintf("%s %s %s", c.Attribute, c.Operator, c.Value) && c.From != "" && !slices.Contains(all, c.From) {
			all = append(all, c.From)
		}
	}
	own := func(c *api.Constraint) bool { return what == fmt.Sprintf("%s %s %s", c.LTarget, c.Operand, c.RTarget) }
	if all == nil && slices.ContainsFunc(d.constraints, own) {
		return r.source()
	}
	return strings.Join(all, ", ")
}

// fit counts the nodes by whether they could serve a job of one group.
func (s *machines) fit(r Route, job *api.Job) (all router.NodeCounts, cells []router.FleetCell) {
	cells = make([]router.FleetCell, len(s.groups))
	why := make([]map[string]int, len(cells))
	for i := range cells {
		why[i] = map[string]int{}
	}
	f := newFitting(r, job)
	region := nomad.ScopeOf(job).Region
	for _, m := range s.list {
		if m.region != region {
			continue
		}
		cell := &cells[m.group]
		verdict, reason := f.of(m)
		verdict.count(&all)
		verdict.count(&cell.NodeCounts)
		if reason != "" {
			why[m.group][reason]++
		}
	}
	for i := range cells {
		cells[i].Why = []router.FleetReason{}
		for _, text := range byCount(why[i]) {
			if len(cells[i].Why) < maxReasons {
				cells[i].Why = append(cells[i].Why, router.FleetReason{Text: nomad.Printable(text, maxMessage), Nodes: why[i][text]})
			}
		}
	}
	return all, cells
}

// A verdict is whether a node could serve a job.
type verdict int

const (
	fitsNever verdict = iota
	fitsAway          // were it in service
	fitsIdle          // were it idle
	fitsNow
)

func (v verdict) count(in *router.NodeCounts) {
	*[...]*int{fitsNever: &in.Never, fitsAway: &in.Away, fitsIdle: &in.Idle, fitsNow: &in.Now}[v]++
}

// A fitting compares nodes with one job. Its answers are those of Nomad's scheduler
// (scheduler/feasible and AllocsFit in nomad/structs, Nomad 2.0) as far as they do not
// depend on ports, storage plugins, quotas and what Nomad itself adds to a job.
type fitting struct {
	*demand
	route  Route
	asks   []string         // the sizes, in words
	unique bool             // a constraint is about what is unique to a node
	kinds  map[*kind]string // what filters nodes of a kind
}

// newFitting returns the fitting of a job of one group.
func newFitting(r Route, job *api.Job) *fitting {
	f := &fitting{demand: demandOf(job, job.TaskGroups[0]), route: r, kinds: map[*kind]string{}}
	for _, s := range f.sizes {
		f.asks = append(f.asks, s.show(s.ask)+s.from(r))
	}
	f.unique = slices.ContainsFunc(f.constraints, feasible.Unique) || slices.ContainsFunc(devicesOf(f.group), func(d *api.RequestedDevice) bool {
		return slices.ContainsFunc(d.Constraints, func(c *api.Constraint) bool { return c.LTarget == "${device.ids}" || c.RTarget == "${device.ids}" })
	})
	return f
}

// of returns whether a node could serve the job, and why not now; "" when it can.
func (f *fitting) of(m *machine) (verdict, string) {
	why, known := f.kinds[m.kind]
	switch {
	case f.unique:
		why = f.filtered(f.route, m.node(m.host))
	case !known:
		why = f.filtered(f.route, &m.kind.Node)
		f.kinds[m.kind] = why
	}
	if why != "" {
		return fitsNever, why
	}
	if why := f.tooSmall(m, usage{}, "is too small for "); why != "" {
		return fitsNever, why
	}
	if m.out != "" {
		return fitsAway, "is " + m.out
	}
	if why := f.tooSmall(m, m.used, "has no room now for "); why != "" {
		return fitsIdle, why
	}
	return fitsNow, ""
}

// tooSmall says what of the job does not fit on a node of which so much is used; "" when all does.
func (f *fitting) tooSmall(m *machine, used usage, say string) string {
	if most := m.NodeMaxAllocs; most > 0 && used.allocations >= most {
		return fmt.Sprintf("%sanother allocation: it takes %d", say, most)
	}
	total := m.total()
	perCore := total.CPU
	if m.cores > 0 {
		perCore = m.cpu.all / m.cores // what Nomad counts for a reserved core
	}
	asked := 0 // MHz
	for _, s := range f.sizes {
		switch s.of {
		case "cpu":
			asked += s.ask
		case "cores":
			asked += s.ask * perCore
		}
	}
	noCPU := asked > total.CPU-used.CPU
	for i, s := range f.sizes {
		var short bool
		switch s.of {
		case "cores":
			short = noCPU || s.ask > total.Cores-used.Cores
		case "cpu":
			short = noCPU
		case "memory":
			short = s.ask > total.MemoryMB-used.MemoryMB
		case "disk":
			short = s.ask > total.DiskMB-used.DiskMB
		}
		if short {
			return say + f.asks[i]
		}
	}
	var taken map[string]int
	for _, d := range devicesOf(f.group) {
		i := slices.IndexFunc(m.devices, func(have *api.NodeDeviceResource) bool {
			name := model(have)
			return feasible.Suits(have, d) && feasible.Healthy(have)-used.devices[name]-taken[name] >= int(*d.Count)
		})
		if i < 0 {
			return fmt.Sprintf("%s%d %s of one model%s", say, *d.Count, d.Name, f.route.deviceFrom(d.Name))
		}
		if taken == nil {
			taken = map[string]int{}
		}
		taken[model(m.devices[i])] += int(*d.Count)
	}
	return ""
}
