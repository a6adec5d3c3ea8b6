package capacity

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/feasible"
	"switchyard/router/nomad"
)

const (
	fleetFresh   = 10 * time.Second       // how long an answer about the nodes is used
	fleetWait    = 200 * time.Millisecond // for a newer answer, when there is one already
	firstWait    = 2 * time.Second        // for the first one
	fleetTimeout = 10 * time.Second       // for one answer of Nomad's
	maxNodes     = 20_000                 // nodes that are described
	maxReasons   = 3                      // reasons of one cell
)

// Fleet describes the nodes of the client's region, and which of them could serve each
// example. It never fails: it returns what is known, and if that is older than 10 s, what is
// being done about it: RefreshFleet asks Nomad again, or Nomad failed, since when and why.
// It waits 0.2 s for a newer answer, and 2 s for the first one. The caller must not change
// what it returns.
//
// It needs node read, and read-job on all namespaces: what runs in a namespace
// without it does not count as used.
func (c *Client) Fleet(ctx context.Context, examples []router.Example) router.Fleet {
	known, problem, reading, done := c.fleet.ask(examples)
	if reading != nil {
		wait := fleetWait
		if known == nil && problem == nil {
			wait = firstWait
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		case <-ctx.Done():
		}
		known, problem, reading, _ = c.fleet.ask(examples)
	}
	if known == nil {
		return router.Fleet{Problem: problem, Reading: reading, Nodes: []router.Node{}, Groups: []router.NodeGroup{}, Rules: []router.RuleFleet{}}
	}
	fleet := router.Fleet{At: &known.at, Problem: problem, Reading: reading, Nodes: known.nodes, More: known.more, Groups: known.groups}
	fleet.Rules = known.fitAll(ctx, c, examples)
	return fleet
}

// RefreshFleet asks Nomad about its nodes when somebody wants to see them, at most every
// 10 s, until ctx ends. It returns nil then.
func (c *Client) RefreshFleet(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.fleet.wake:
			c.refreshFleet(ctx)
		}
	}
}

// A fleet has what is known about the nodes.
type fleet struct {
	wake chan struct{} // size 1; somebody wants to know

	mu       sync.Mutex
	asked    time.Time // when Nomad last answered, or failed to
	known    *machines // nil: it never answered
	problem  *router.FleetProblem
	reading  router.FleetReading // of what is being read
	done     chan struct{}       // closed when that is over
	examples []router.Example    // what was asked for last
}

func newFleet() fleet { return fleet{wake: make(chan struct{}, 1), done: make(chan struct{})} }

// ask returns what is known. If that is old it asks for more; reading is not nil then, and
// done is closed when there is more.
func (f *fleet) ask(examples []router.Example) (known *machines, problem *router.FleetProblem, reading *router.FleetReading, done <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.examples = examples
	if time.Since(f.asked) < fleetFresh {
		return f.known, f.problem, nil, nil
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return f.known, f.problem, new(f.reading), f.done
}

// refreshFleet asks Nomad about its nodes unless what is known is new. It gives up when
// Nomad leaves one question unanswered.
func (c *Client) refreshFleet(ctx context.Context) {
	f := &c.fleet
	f.mu.Lock()
	fresh, examples := time.Since(f.asked) < fleetFresh, f.examples
	f.mu.Unlock()
	if fresh {
		return // it was asked for while it was found out
	}
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(fleetTimeout, func() { cancel(fmt.Errorf("Nomad did not answer for %v", fleetTimeout)) })
	defer silent.Stop()
	found, err := c.readFleet(within, func(read, of int) {
		silent.Reset(fleetTimeout)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.reading = router.FleetReading{Read: read, Nodes: of}
	})
	if err == nil {
		found.fitAll(within, c, examples)
	}
	if ctx.Err() != nil {
		return
	}
	if cause := context.Cause(within); cause != nil {
		err = cause
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.reading = time.Now(), router.FleetReading{}
	if err == nil {
		f.known, f.problem = found, nil
	} else {
		since := f.asked
		if f.problem != nil {
			since = f.problem.Since
		}
		f.problem = &router.FleetProblem{Since: since, Reason: nomad.Printable(err.Error(), maxMessage)}
	}
	close(f.done)
	f.done = make(chan struct{})
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
	*host
	*detail
	used  usage
	group int
}

// A usage is how much of a node its allocations use.
type usage struct {
	router.NodeSize
	allocations int
	devices     map[string]int // instances, by model
}

// readFleet asks Nomad for its nodes and what runs on them. Progress is called with how
// many of the nodes were read, whenever Nomad has answered.
func (c *Client) readFleet(ctx context.Context, progress func(read, of int)) (*machines, error) {
	in, err := c.region(ctx, "")
	if err != nil {
		return nil, err
	}
	found := &machines{at: time.Now().UTC()}
	hosts := slices.SortedFunc(slices.Values(in.hosts), func(a, b *host) int {
		return cmp.Or(cmp.Compare(a.pool, b.pool), cmp.Compare(a.name, b.name), cmp.Compare(a.id, b.id))
	})
	if found.more = max(len(hosts)-maxNodes, 0); found.more > 0 {
		hosts = hosts[:maxNodes]
	}
	details, err := in.details.read(ctx, c, hosts, func(known int) { progress(known, len(hosts)) })
	if err != nil {
		return nil, err
	}
	there := make(map[string]*machine, len(hosts))
	for _, h := range hosts {
		if d := details[h.id]; d != nil {
			there[h.id] = &machine{host: h, detail: d}
			found.list = append(found.list, there[h.id])
		}
	}
	list := nomad.Call{What: "list allocations", At: nomad.Scope{Namespace: api.AllNamespacesNamespace}, Capability: "read-job"}
	query := url.Values{"resources": {"true"}, "filter": {`ClientStatus == "pending" or ClientStatus == "running" or ClientStatus == "unknown"`}}
	_, err = nomad.List(ctx, c.Client, list, "/v1/allocations?"+query.Encode(), func(a *struct {
		NodeID             string
		AllocatedResources *api.AllocatedResources
	}) {
		if m := there[a.NodeID]; m != nil {
			m.used.add(a.AllocatedResources)
		}
	})
	if err != nil {
		return nil, err
	}
	found.describe()
	return found, nil
}

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

// describe fills in the nodes and groups of router.Fleet.
func (s *machines) describe() {
	type alike struct{ os, arch, class, pool string }
	groups := map[alike][]*machine{}
	for _, m := range s.list {
		k := alike{m.Attributes["kernel.name"], m.Attributes["cpu.arch"], m.class, m.pool}
		groups[k] = append(groups[k], m)
	}
	s.nodes, s.groups = make([]router.Node, 0, len(s.list)), []router.NodeGroup{}
	order := slices.SortedFunc(maps.Keys(groups), func(a, b alike) int {
		return cmp.Or(cmp.Compare(a.os, b.os), cmp.Compare(a.arch, b.arch), cmp.Compare(a.pool, b.pool), cmp.Compare(a.class, b.class))
	})
	for i, k := range order {
		g := router.NodeGroup{OS: k.os, Arch: k.arch, Class: k.class, Pool: k.pool, Nodes: len(groups[k])}
		for _, m := range groups[k] {
			m.group = i
			if m.out == "" {
				g.Ready++
				g.Total, g.Used = sum(g.Total, m.total()), sum(g.Used, m.used.NodeSize)
			}
		}
		s.groups = append(s.groups, g)
	}
	for _, m := range s.list {
		n := router.Node{
			ID: m.id, Name: m.name, Pool: m.pool, Datacenter: m.datacenter, Class: m.class,
			OS: m.Attributes["kernel.name"], Arch: m.Attributes["cpu.arch"], State: cmp.Or(m.out, "ready"),
			Group: m.group, Drivers: m.drivers, Devices: []router.NodeDevice{}, Total: m.total(), Used: m.used.NodeSize, Running: m.used.allocations,
		}
		for _, d := range m.devices {
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
