package feasible

import (
	"math"
	"slices"

	"github.com/hashicorp/nomad/api"
)

// An Amount is how much of a node something takes, or how much of it is left.
type Amount struct {
	CPU      int // MHz
	Cores    int // reserved
	MemoryMB int // MiB
	DiskMB   int
	Devices  []int // instances, in the order of the node's devices
}

// Idle returns what a node has for allocations.
func Idle(n *api.Node) Amount {
	r := n.NodeResources
	a := Amount{CPU: int(r.Cpu.CpuShares), Cores: len(r.Cpu.ReservableCpuCores), MemoryMB: int(r.Memory.MemoryMB), DiskMB: int(r.Disk.DiskMB), Devices: make([]int, len(r.Devices))}
	if kept := n.ReservedResources; kept != nil {
		a.CPU -= int(kept.Cpu.CpuShares)
		a.MemoryMB -= int(kept.Memory.MemoryMB)
		a.DiskMB -= int(kept.Disk.DiskMB)
	}
	for i, d := range r.Devices {
		a.Devices[i] = Healthy(d)
	}
	return a
}

// Plus returns the amount with so many times another one more. It shares nothing with either.
func (a Amount) Plus(times int, b Amount) Amount {
	a.CPU += times * b.CPU
	a.Cores += times * b.Cores
	a.MemoryMB += times * b.MemoryMB
	a.DiskMB += times * b.DiskMB
	a.Devices = slices.Clone(a.Devices)
	for i, d := range b.Devices {
		a.Devices[i] += times * d
	}
	return a
}

// Candidate reports whether a node is in the pool and one of the datacenters of a job, which
// Nomad has filled in.
func Candidate(n *api.Node, j *api.Job) bool {
	return (*j.NodePool == api.NodePoolAll || n.NodePool == *j.NodePool) && InDatacenters(j.Datacenters, n.Datacenter)
}

// Filtered returns what keeps a node from ever running a group of a job, in Nomad's words;
// "": nothing does, but the node may be too small or too full.
func Filtered(n *api.Node, j *api.Job, g *api.TaskGroup) string {
	if why := Broken(n, j.Constraints); why != "" {
		return why
	}
	for _, t := range g.Tasks {
		if d := n.Drivers[t.Driver]; d == nil || !d.Detected || !d.Healthy {
			return "missing drivers"
		}
	}
	if why := Broken(n, GroupConstraints(g)); why != "" {
		return why
	}
	if !HasDevices(n, g) {
		return "missing devices"
	}
	return ""
}

// GroupConstraints returns the constraints of a group and its tasks.
func GroupConstraints(g *api.TaskGroup) []*api.Constraint {
	all := slices.Clone(g.Constraints)
	for _, t := range g.Tasks {
		all = append(all, t.Constraints...)
	}
	return all
}

// Take returns what a group, whose sizes Nomad has filled in, takes of a node that has so
// much left; or else what is exhausted, in Nomad's words.
func Take(n *api.Node, left Amount, g *api.TaskGroup) (take Amount, exhausted string) {
	have := n.NodeResources
	take.Devices = make([]int, len(have.Devices))
	for _, t := range g.Tasks {
		for _, ask := range t.Resources.Devices {
			free := -1
			for i, d := range have.Devices {
				if Suits(d, ask) && left.Devices[i]-take.Devices[i] >= int(*ask.Count) {
					free = i
					break
				}
			}
			if free < 0 {
				return take, "devices: no devices match request"
			}
			take.Devices[free] += int(*ask.Count)
		}
	}
	if take.Cores = Largest(g, func(r *api.Resources) *int { return r.Cores }); take.Cores > left.Cores {
		return take, "cores"
	}
	perCore := int(have.Cpu.CpuShares) / max(int(have.Cpu.TotalCpuCores), 1)
	take.CPU = Largest(g, func(r *api.Resources) *int {
		cpu := 0
		if r.CPU != nil {
			cpu = *r.CPU
		}
		if r.Cores != nil {
			cpu += *r.Cores * perCore
		}
		return &cpu
	})
	take.MemoryMB = Largest(g, func(r *api.Resources) *int { return r.MemoryMB })
	take.DiskMB = *g.EphemeralDisk.SizeMB
	switch {
	case take.CPU > left.CPU:
		return take, "cpu"
	case take.MemoryMB > left.MemoryMB:
		return take, "memory"
	case take.DiskMB > left.DiskMB:
		return take, "disk"
	}
	return take, ""
}

// Largest returns the most that the tasks of a group use at the same time
// (AllocatedResources.Comparable in nomad/structs, v2.0.6-dev, read 2026-11-24).
func Largest(g *api.TaskGroup, of func(*api.Resources) *int) int {
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

// BinPack returns how full a node that has so much left becomes, from 0 to 1: Nomad's score
// with its default algorithm.
func BinPack(n *api.Node, left, take Amount) float64 {
	free := func(total int64, left, take int) float64 { return float64(left-take) / float64(max(total, 1)) }
	r := n.NodeResources
	fit := 20 - math.Pow(10, free(r.Cpu.CpuShares, left.CPU, take.CPU)) - math.Pow(10, free(r.Memory.MemoryMB, left.MemoryMB, take.MemoryMB))
	return min(max(fit, 0), 18) / 18
}

// Likes returns how far a node has what a job and its group have affinities for, from -1 to
// 1. Nomad takes the mean of it and the other scores of the node; 0 does not count.
func Likes(n *api.Node, j *api.Job, g *api.TaskGroup) float64 {
	affinities := slices.Concat(j.Affinities, g.Affinities)
	for _, t := range g.Tasks {
		affinities = append(affinities, t.Affinities...)
	}
	likes, total := 0.0, 0.0
	for _, a := range affinities {
		l, lok := Target(n, a.LTarget)
		r, rok := Target(n, a.RTarget)
		total += math.Abs(float64(*a.Weight))
		if Holds(a.Operand, l, lok, r, rok) {
			likes += float64(*a.Weight)
		}
	}
	if likes == 0 {
		return 0
	}
	return likes / total
}
