package capacity

import (
	"context"
	"slices"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
)

// unknownAmount stands for what Nomad could not find out about a node, and reports as 0: it
// counts as large enough.
const unknownAmount = 1 << 30

// Nodes returns the nodes in service of the client's region, by pool and name, as far as it
// matters to which jobs could run there, and how many others there are. What runs on a node
// and is no runner of Switchyard's counts as reserved. It asks Nomad, and needs what Fleet
// needs.
func (c *Client) Nodes(ctx context.Context) (nodes []*api.Node, out int, err error) {
	all, err := c.readFleet(ctx, []string{""}, func(router.FleetReading) {})
	if err != nil {
		return nil, 0, err
	}
	for _, m := range all.list {
		if m.out != "" {
			out++
			continue
		}
		nodes = append(nodes, m.export())
	}
	return nodes, out + all.more, nil
}

// export returns the node of a machine, less what others than runners use of it.
func (m *machine) export() *api.Node {
	n := m.node(m.host)
	all := func(a amount) int64 {
		if a.all == 0 {
			return unknownAmount
		}
		return int64(a.all)
	}
	n.NodeResources.Cpu = api.NodeCpuResources{CpuShares: all(m.cpu), TotalCpuCores: uint16(min(m.cores, 1<<16-1))}
	n.NodeResources.Memory.MemoryMB, n.NodeResources.Disk.DiskMB = all(m.memory), all(m.disk)
	for i := range max(0, m.reservable-m.others.Cores) {
		n.NodeResources.Cpu.ReservableCpuCores = append(n.NodeResources.Cpu.ReservableCpuCores, uint16(i))
	}
	n.ReservedResources = &api.NodeReservedResources{}
	n.ReservedResources.Cpu.CpuShares = uint64(max(0, m.cpu.kept+m.others.CPU))
	n.ReservedResources.Memory.MemoryMB, n.ReservedResources.Disk.DiskMB = uint64(max(0, m.memory.kept+m.others.MemoryMB)), uint64(max(0, m.disk.kept+m.others.DiskMB))
	n.NodeResources.Devices = slices.Clone(n.NodeResources.Devices)
	for i, d := range n.NodeResources.Devices {
		taken := m.others.devices[model(d)]
		free := *d
		free.Instances = slices.DeleteFunc(slices.Clone(d.Instances), func(one *api.NodeDevice) bool {
			if one.Healthy && taken > 0 {
				taken--
				return true
			}
			return !one.Healthy
		})
		n.NodeResources.Devices[i] = &free
	}
	return n
}
