package capacity

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/feasible"
)

// A size is one dimension of what a group asks of a node.
type size struct {
	of   string // cores, cpu, memory, disk; "" for a device
	ask  int
	have func(*host) int // of an idle node
	show func(int) string
	from func(Route) string
}

// sizes returns what a group asks for, in the order in which people look: the
// least that Nomad may count (AllocatedResources.Comparable in nomad/structs,
// v2.0.6-dev, read 2026-11-24).
func sizes(g *api.TaskGroup) (all []size) {
	add := func(of string, ask int, show func(int) string, have func(*host) int, from func(Route) string) {
		if ask != 0 {
			all = append(all, size{of, ask, have, show, from})
		}
	}
	cores := feasible.Largest(g, func(r *api.Resources) *int { return r.Cores })
	add("cores", cores, func(n int) string { return router.Count(n, "core") },
		func(h *host) int { return amount{all: h.cores}.left() },
		func(r Route) string { return r.from("resources.cores") })
	cpu := feasible.Largest(g, func(r *api.Resources) *int { return r.CPU })
	add("cpu", cpu, func(n int) string { return fmt.Sprintf("%d MHz of CPU", n) },
		func(h *host) int { return h.cpu.left() },
		func(r Route) string { return partly(r, "resources.cpu", r.Placement.Resources.CPU, cpu) })
	memory := feasible.Largest(g, func(r *api.Resources) *int { return r.MemoryMB })
	add("memory", memory, mebibytes(memory, "memory"),
		func(h *host) int { return h.memory.left() },
		func(r Route) string { return partly(r, "resources.memory_mb", r.Placement.Resources.MemoryMB, memory) })
	if g.EphemeralDisk != nil && g.EphemeralDisk.SizeMB != nil {
		disk := *g.EphemeralDisk.SizeMB
		add("disk", disk, mebibytes(disk, "disk"),
			func(h *host) int { return h.disk.left() },
			func(r Route) string { return r.from("resources.disk_mb") })
	}
	for _, d := range devicesOf(g) {
		add("", int(*d.Count), func(n int) string { return fmt.Sprintf("%d %s of one model", n, d.Name) },
			func(h *host) (most int) { // Nomad takes all from one model
				for _, have := range h.devices {
					if feasible.Named(have, d.Name) { // whatever its constraints
						most = max(most, feasible.Healthy(have))
					}
				}
				return most
			},
			func(r Route) string { return r.deviceFrom(d.Name) })
	}
	return all
}

// partly returns the origin of a size of which the placement says a part.
func partly(r Route, path string, own, all int) string {
	if own == 0 || own == all {
		return r.from(path)
	}
	return strings.TrimSuffix(r.from(path), ")") + " and the other tasks of " + r.source() + ")"
}

// left returns what a node has for allocations. Nomad reports 0 for what it could not find
// out.
func (a amount) left() int {
	if a.all == 0 {
		return math.MaxInt
	}
	return a.all - a.kept
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

// mebibytes returns what shows sizes in the unit that suits what is asked for.
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
func fits(h *host, sizes []size) bool {
	return !slices.ContainsFunc(sizes, func(s size) bool { return s.have(h) < s.ask })
}
