package capacity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"switchyard/router"
	"switchyard/router/feasible"
	"switchyard/router/nomad"
)

const (
	fleetFresh   = 10 * time.Second // how long an answer about the nodes is used
	fleetTimeout = 10 * time.Second // for asking again
	maxNodes     = 5000             // nodes that are described
	nodesAtOnce  = 16               // nodes that are read at the same time
	maxReasons   = 3                // reasons of one cell
)

// Fleet describes the nodes of the client's region, and which of them could serve each
// example. It never fails: when Nomad does not answer it returns what is known, and why
// and since when there is nothing newer. Nomad is asked at most every 10 s, by one caller
// at a time; the others get what is known, or wait for the first answer. A node's
// attributes are read when it changes. The caller must not change what it returns.
//
// It needs node read, and read-job on all namespaces: what runs in a namespace
// without it does not count as used.
func (c *Client) Fleet(ctx context.Context, examples []router.Example) router.Fleet {
	known, problem := c.nodes.now(ctx, c.readNodes)
	if known == nil {
		return router.Fleet{Problem: problem, Nodes: []router.Node{}, Groups: []router.NodeGroup{}, Rules: []router.RuleFleet{}}
	}
	fleet := router.Fleet{At: &known.at, Problem: problem, Nodes: known.nodes, More: known.more, Groups: known.groups}
	fleet.Rules = known.fitAll(ctx, c, examples)
	return fleet
}

// A cache has what is known about the nodes. Its zero value is empty.
type cache struct {
	turn sync.Mutex // held by the caller that asks Nomad; guards read

	mu      sync.Mutex
	asked   time.Time // when Nomad last answered, or failed to
	known   *machines // nil: it never answered
	problem *router.FleetProblem

	read map[string]*machine // attributes by node ID
}

// machines are the nodes as they were at one time.
type machines struct {
	at     time.Time
	list   []*machine
	more   int
	nodes  []router.Node
	groups []router.NodeGroup

	mu   sync.Mutex // guards the fits, which are found once
	of   *router.Example
	fits []router.RuleFleet
}

// A machine is one node.
type machine struct {
	*api.Node
	stub  *api.NodeListStub // newer than the node where Nomad's servers decide
	class [32]byte          // equal for nodes that no constraint tells apart
	used  usage
	group int
}

// A usage is how much of a node its allocations use.
type usage struct {
	router.NodeSize
	allocations int
	devices     map[string]int // instances, by model
}

// now returns what is known, and calls read if that is too old.
func (b *cache) now(ctx context.Context, read func(context.Context, map[string]*machine) (*machines, error)) (*machines, *router.FleetProblem) {
	known, problem, fresh := b.last()
	if fresh {
		return known, problem
	}
	if known == nil && problem == nil {
		b.turn.Lock() // there is nothing to return yet
	} else if !b.turn.TryLock() {
		return known, problem
	}
	defer b.turn.Unlock()
	if known, problem, fresh = b.last(); fresh {
		return known, problem
	}
	within, cancel := context.WithTimeout(ctx, fleetTimeout)
	defer cancel()
	if b.read == nil {
		b.read = map[string]*machine{}
	}
	found, err := read(within, b.read)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.known, b.problem, b.asked = found, nil, time.Now()
	case ctx.Err() != nil: // the caller went away: the next one asks again
		if b.known == nil && b.problem == nil {
			return nil, &router.FleetProblem{Since: time.Now(), Reason: "Nomad was not asked yet"}
		}
	default:
		b.asked = time.Now()
		since := b.asked
		if b.problem != nil {
			since = b.problem.Since
		}
		b.problem = &router.FleetProblem{Since: since, Reason: nomad.Printable(err.Error(), maxMessage)}
	}
	return b.known, b.problem
}

func (b *cache) last() (known *machines, problem *router.FleetProblem, fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known, b.problem, time.Since(b.asked) < fleetFresh
}

// readNodes asks Nomad for its nodes and what runs on them. read has the nodes that
// are already known.
func (c *Client) readNodes(ctx context.Context, read map[string]*machine) (*machines, error) {
	stubs, _, err := c.API().Nodes().List(nomad.Scope{}.Read(ctx))
	if err != nil {
		return nil, nomad.Call{What: "list nodes", Capability: nomad.NodeRead}.Classify(err)
	}
	found := &machines{at: time.Now().UTC()}
	slices.SortFunc(stubs, func(a, b *api.NodeListStub) int {
		return cmp.Or(cmp.Compare(a.NodePool, b.NodePool), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	if found.more = max(len(stubs)-maxNodes, 0); found.more > 0 {
		stubs = stubs[:maxNodes]
	}
	var mu sync.Mutex // for the maps
	there := map[string]*machine{}
	all, within := errgroup.WithContext(ctx)
	all.SetLimit(nodesAtOnce)
	var changed []*api.NodeListStub
	for _, stub := range stubs {
		if m := read[stub.ID]; m != nil && m.ModifyIndex == stub.ModifyIndex {
			there[stub.ID] = &machine{Node: m.Node, class: m.class, stub: stub}
		} else {
			changed = append(changed, stub)
		}
	}
	for _, stub := range changed {
		all.Go(func() error {
			node, _, err := c.API().Nodes().Info(stub.ID, nomad.Scope{}.Read(within))
			if nomad.Status(err) == http.StatusNotFound {
				return nil // gone since
			}
			if err != nil {
				return nomad.Call{What: "read node " + stub.Name, Capability: nomad.NodeRead}.Classify(err)
			}
			m := newMachine(node)
			m.stub = stub
			mu.Lock()
			defer mu.Unlock()
			there[stub.ID], read[stub.ID] = m, m // kept even if another read fails
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	maps.DeleteFunc(read, func(id string, _ *machine) bool { return there[id] == nil })
	list := nomad.Scope{Namespace: api.AllNamespacesNamespace}.Read(ctx)
	list.Params = map[string]string{"resources": "true"}
	list.Filter = `ClientStatus == "pending" or ClientStatus == "running" or ClientStatus == "unknown"`
	allocations, _, err := c.API().Allocations().List(list)
	if err != nil {
		return nil, nomad.Call{What: "list allocations", At: nomad.Scope{Namespace: api.AllNamespacesNamespace}, Capability: "read-job"}.Classify(err)
	}
	for _, a := range allocations {
		if m := there[a.NodeID]; m != nil {
			m.used.add(a.AllocatedResources)
		}
	}
	for _, stub := range stubs {
		if m := there[stub.ID]; m != nil {
			found.list = append(found.list, m)
		}
	}
	found.describe()
	return found, nil
}

// newMachine keeps what the scheduler considers.
func newMachine(n *api.Node) *machine {
	n.NodeResources = cmp.Or(n.NodeResources, &api.NodeResources{})
	n.ReservedResources = cmp.Or(n.ReservedResources, &api.NodeReservedResources{})
	n.Events, n.Links, n.DrainStrategy, n.LastDrain, n.Resources, n.Reserved = nil, nil, nil, nil, nil, nil
	more := []any{n.HostVolumes}
	for _, name := range slices.Sorted(maps.Keys(n.Drivers)) {
		more = append(more, name, works(n.Drivers[name]))
	}
	for _, d := range n.NodeResources.Devices {
		more = append(more, feasible.Healthy(d))
	}
	return &machine{Node: n, class: sha256.Sum256([]byte(feasible.Class(n, more...)))}
}

func works(d *api.DriverInfo) bool { return d != nil && d.Detected && d.Healthy }

func (u *usage) add(r *api.AllocatedResources) {
	u.allocations++
	if r == nil {
		return
	}
	u.DiskMB += int(r.Shared.DiskMB)
	for _, t := range r.Tasks {
		if t == nil {
			continue
		}
		u.CPU += int(t.Cpu.CpuShares)
		u.Cores += len(t.Cpu.ReservedCores)
		u.MemoryMB += int(t.Memory.MemoryMB)
		for _, d := range t.Devices {
			if u.devices == nil {
				u.devices = map[string]int{}
			}
			u.devices[d.Vendor+"/"+d.Type+"/"+d.Name] += len(d.DeviceIDs)
		}
	}
}

func model(d *api.NodeDeviceResource) string { return d.Vendor + "/" + d.Type + "/" + d.Name }

// total returns what a node has for allocations.
func (m *machine) total() router.NodeSize {
	r, held := m.NodeResources, m.ReservedResources
	return router.NodeSize{
		CPU: int(r.Cpu.CpuShares - int64(held.Cpu.CpuShares)), Cores: len(r.Cpu.ReservableCpuCores),
		MemoryMB: int(r.Memory.MemoryMB - int64(held.Memory.MemoryMB)), DiskMB: int(r.Disk.DiskMB - int64(held.Disk.DiskMB)),
	}
}

// describe fills in the nodes and groups of router.Fleet.
func (s *machines) describe() {
	type alike struct{ os, arch, class, pool string }
	groups := map[alike][]*machine{}
	for _, m := range s.list {
		k := alike{m.Attributes["kernel.name"], m.Attributes["cpu.arch"], m.NodeClass, m.NodePool}
		groups[k] = append(groups[k], m)
	}
	s.nodes, s.groups = []router.Node{}, []router.NodeGroup{}
	order := slices.SortedFunc(maps.Keys(groups), func(a, b alike) int {
		return cmp.Or(cmp.Compare(a.os, b.os), cmp.Compare(a.arch, b.arch), cmp.Compare(a.pool, b.pool), cmp.Compare(a.class, b.class))
	})
	for i, k := range order {
		g := router.NodeGroup{OS: k.os, Arch: k.arch, Class: k.class, Pool: k.pool, Nodes: len(groups[k])}
		for _, m := range groups[k] {
			m.group = i
			if outOfService(m.stub) == "" {
				g.Ready++
				g.Total, g.Used = sum(g.Total, m.total()), sum(g.Used, m.used.NodeSize)
			}
		}
		s.groups = append(s.groups, g)
	}
	for _, m := range s.list {
		n := router.Node{
			ID: m.ID, Name: m.Name, Pool: m.NodePool, Datacenter: m.Datacenter, Class: m.NodeClass,
			OS: m.Attributes["kernel.name"], Arch: m.Attributes["cpu.arch"], State: cmp.Or(outOfService(m.stub), "ready"),
			Group: m.group, Drivers: []string{}, Devices: []router.NodeDevice{}, Total: m.total(), Used: m.used.NodeSize, Running: m.used.allocations,
		}
		for _, name := range slices.Sorted(maps.Keys(m.Drivers)) {
			if works(m.Drivers[name]) {
				n.Drivers = append(n.Drivers, name)
			}
		}
		for _, d := range m.NodeResources.Devices {
			n.Devices = append(n.Devices, router.NodeDevice{Name: model(d), Total: feasible.Healthy(d), Used: m.used.devices[model(d)]})
		}
		s.nodes = append(s.nodes, n)
	}
}

func sum(a, b router.NodeSize) router.NodeSize {
	return router.NodeSize{CPU: a.CPU + b.CPU, Cores: a.Cores + b.Cores, MemoryMB: a.MemoryMB + b.MemoryMB, DiskMB: a.DiskMB + b.DiskMB}
}

// fitAll finds the fit of each example, once for the same list of them.
func (s *machines) fitAll(ctx context.Context, c *Client, examples []router.Example) []router.RuleFleet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(examples) == 0 {
		return []router.RuleFleet{}
	}
	if s.of == &examples[0] && len(s.fits) == len(examples) {
		return s.fits
	}
	survey := &survey{Client: c}
	fits := make([]router.RuleFleet, len(examples))
	whole := true
	for i, e := range examples {
		r := Route{Rule: e.Rule, Labels: e.Labels, Placement: e.Placement}
		fits[i] = router.RuleFleet{Rule: e.Rule, RunsOn: e.Labels, Cells: []router.FleetCell{}}
		job, problems, err := survey.job(ctx, r)
		switch {
		case err != nil:
			fits[i].Problem, whole = nomad.Printable(err.Error(), maxMessage), false // the next call asks again
		case problems != nil:
			fits[i].Problem = nomad.Printable(problems[0].say(r), maxMessage)
		case len(job.TaskGroups) != 1:
			fits[i].Problem = fmt.Sprintf("the job has %d groups; only jobs of one group are compared with nodes", len(job.TaskGroups))
		case nomad.ScopeOf(job).Region != "":
			fits[i].Problem = fmt.Sprintf("it runs in region %s, and these nodes are in another", nomad.ScopeOf(job).Region)
		default:
			fits[i].NodeCounts, fits[i].Cells = s.fit(r, job)
		}
	}
	if whole {
		s.of, s.fits = &examples[0], fits
	}
	return fits
}
