package simulate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"switchyard/router/feasible"
)

// A fleet is nodes as the demands of a plan see them. It is not changed by simulating.
type fleet struct {
	classes []class
	groups  []platform // of the classes
}

// A platform is what Group names.
type platform struct{ os, arch, class, pool string }

// A class is nodes that are the same to all demands.
type class struct {
	node    *api.Node // one of them
	idle    feasible.Amount
	group   int
	nodes   int
	suits   []bool    // which demands may run there, if there is room
	likes   []float64 // how much each demand likes them, as feasible.Likes
	devices int
}

// newFleet sorts nodes into classes.
func newFleet(nodes []*api.Node, demands []*demand) *fleet {
	f := &fleet{}
	unique := slices.ContainsFunc(demands, func(d *demand) bool { return d.unique })
	type sight struct {
		suits []bool
		likes []float64
		text  string
	}
	seen := map[string]*sight{} // by all that constraints see of a node
	classOf := map[string]int{}
	groupOf := map[platform]int{}
	for _, n := range nodes {
		more := []any{n.Drivers, n.HostVolumes}
		if unique {
			more = append(more, n.ID, n.Name, n.Attributes, n.Meta)
		}
		common := feasible.Class(n, more...)
		s := seen[common]
		if s == nil {
			s = &sight{}
			for _, d := range demands {
				suits := d.problem == "" && d.lacks(n) == ""
				s.suits, s.likes = append(s.suits, suits), append(s.likes, 0)
				if suits {
					s.likes[len(s.likes)-1] = feasible.Likes(n, d.job, d.group)
				}
			}
			s.text = fmt.Sprint(s.suits, s.likes)
			seen[common] = s
		}
		idle := feasible.Idle(n)
		group := platform{n.Attributes["kernel.name"], n.Attributes["cpu.arch"], n.NodeClass, n.NodePool}
		if _, ok := groupOf[group]; !ok {
			groupOf[group] = len(f.groups)
			f.groups = append(f.groups, group)
		}
		r := n.NodeResources
		var devices []string
		for _, d := range r.Devices {
			devices = append(devices, fmt.Sprint(d.Vendor, "/", d.Type, "/", d.Name, attributesText(d.Attributes)))
		}
		key := fmt.Sprint(group, idle, r.Cpu.CpuShares, r.Cpu.TotalCpuCores, r.Memory.MemoryMB, devices, s.text)
		at, ok := classOf[key]
		if !ok {
			at = len(f.classes)
			classOf[key] = at
			c := class{node: n, idle: idle, group: groupOf[group], suits: s.suits, likes: s.likes}
			for _, d := range idle.Devices {
				c.devices += d
			}
			f.classes = append(f.classes, c)
		}
		f.classes[at].nodes++
	}
	return f
}

func attributesText(all map[string]*api.Attribute) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, " %s=%s", name, all[name])
	}
	return b.String()
}

// counts returns how many nodes there are of each class.
func (f *fleet) counts() []int {
	counts := make([]int, len(f.classes))
	for i := range f.classes {
		counts[i] = f.classes[i].nodes
	}
	return counts
}

// lacks returns what keeps a node from ever serving the demand, in Nomad's words; "": nothing.
func (d *demand) lacks(n *api.Node) string {
	switch {
	case n.NodePool != *d.job.NodePool && *d.job.NodePool != api.NodePoolAll:
		return "it is in another pool than " + *d.job.NodePool
	case !feasible.Candidate(n, d.job):
		return "it is in another datacenter than " + strings.Join(d.job.Datacenters, ", ")
	}
	if why := feasible.Filtered(n, d.job, d.group); why != "" {
		return "it lacks " + why
	}
	for _, name := range slices.Sorted(maps.Keys(d.group.Volumes)) {
		v := d.group.Volumes[name]
		if v.Type != "host" {
			continue
		}
		if have := n.HostVolumes[v.Source]; have == nil || have.ReadOnly && !v.ReadOnly {
			return "it lacks the host volume " + v.Source
		}
	}
	if _, short := feasible.Take(n, feasible.Idle(n), d.group); short != "" {
		return "it is too small: " + short
	}
	return ""
}

// lacks returns what the nodes lack for those jobs that never had one, most nodes first.
func (p *plan) lacks(nodes []*api.Node, jobs []int, o *outcome) []string {
	demands := map[int32]bool{}
	for _, i := range jobs {
		if o.placed[i] < 0 {
			demands[p.jobs[i].demand] = true
		}
	}
	count := map[string]int{}
	for _, d := range slices.Sorted(maps.Keys(demands))[:1] {
		for _, n := range nodes {
			if why := p.demands[d].lacks(n); why != "" {
				count[strings.TrimPrefix(why, "it ")]++
			}
		}
	}
	why := []string{}
	for _, text := range slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) }) {
		why = append(why, fmt.Sprintf("%d of %d nodes: %s", count[text], len(nodes), text))
	}
	return why[:min(len(why), maxWhy)]
}

// report tells what the groups were used for, by platform, pool and class.
func (f *fleet) report(o *outcome) []Group {
	type capacity struct{ cpu, memory, devices float64 }
	groups := make([]Group, len(f.groups))
	have, used := make([]capacity, len(groups)), make([]capacity, len(groups))
	for i, g := range f.groups {
		groups[i] = Group{OS: g.os, Arch: g.arch, Class: g.class, Pool: g.pool, AtOnce: o.atOnce[i]}
	}
	for i := range f.classes {
		c := &f.classes[i]
		g, u := &groups[c.group], &o.used[i]
		g.Nodes += o.counts[i]
		g.Used += u.nodes
		g.Jobs += u.jobs
		n := float64(o.counts[i]) * float64(o.end)
		h, t := &have[c.group], &used[c.group]
		h.cpu, h.memory, h.devices = h.cpu+n*float64(c.idle.CPU), h.memory+n*float64(c.idle.MemoryMB), h.devices+n*float64(c.devices)
		t.cpu, t.memory, t.devices = t.cpu+u.cpu, t.memory+u.memory, t.devices+u.devices
	}
	share := func(used, have float64) float64 {
		if have == 0 {
			return 0
		}
		return min(1, float64(int64(used/have*1e4+0.5))/1e4)
	}
	for i := range groups {
		groups[i].CPU, groups[i].Memory, groups[i].Devices = share(used[i].cpu, have[i].cpu), share(used[i].memory, have[i].memory), share(used[i].devices, have[i].devices)
	}
	slices.SortStableFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.OS, b.OS), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Class, b.Class))
	})
	return groups
}
