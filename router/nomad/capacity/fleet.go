package capacity

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
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

// Fleet describes the nodes of the client's region and of those that the examples go to, and
// which of them could serve each example. It never fails: it returns what is known, and if that is older than 10 s, what is
// being done about it: RefreshFleet asks Nomad again, or Nomad failed, since when and why.
// It waits 0.2 s for a newer answer, and 2 s for the first one about the nodes or about these
// examples, which are the same while their slice is. The caller must not change what it returns.
//
// It needs node read, and read-job on all namespaces: what runs in a namespace
// without it does not count as used.
func (c *Client) Fleet(ctx context.Context, examples []router.Example) router.Fleet {
	known, wait, done := c.fleet.ask(examples)
	if known.Reading != nil {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		case <-ctx.Done():
		}
		known, _, _ = c.fleet.ask(examples)
	}
	return known
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
	fitted   []router.Example    // what the fits are of
	fits     []router.RuleFleet  // of the known nodes
}

func newFleet() fleet { return fleet{wake: make(chan struct{}, 1), done: make(chan struct{})} }

func same(a, b []router.Example) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// fresh reports whether Nomad need not be asked. f.mu is held.
func (f *fleet) fresh() bool {
	return time.Since(f.asked) < fleetFresh && (f.known == nil || same(f.fitted, f.examples))
}

// ask returns what is known. If that is old, or of other examples, it asks for more: Reading
// is not nil then, done is closed when there is more, and it is worth so long a wait.
func (f *fleet) ask(examples []router.Example) (known router.Fleet, wait time.Duration, done <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.examples = examples
	known = router.Fleet{Problem: f.problem, Nodes: []router.Node{}, Groups: []router.NodeGroup{}, Rules: []router.RuleFleet{}}
	wait = fleetWait
	if m := f.known; m != nil {
		known.At, known.Nodes, known.More, known.Groups = &m.at, m.nodes, m.more, m.groups
	}
	switch {
	case f.known == nil && f.problem == nil, f.known != nil && !same(f.fitted, examples):
		wait = firstWait
	case f.known != nil:
		known.Rules = f.fits
	}
	if f.fresh() {
		return known, 0, nil
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
	known.Reading = new(f.reading)
	return known, wait, f.done
}

// refreshFleet asks Nomad about its nodes and what was asked for last, unless what is known
// of them is new.
func (c *Client) refreshFleet(ctx context.Context) {
	f := &c.fleet
	f.mu.Lock()
	known, fits, fitted, examples := f.known, f.fits, f.fitted, f.examples
	old, fresh := time.Since(f.asked) >= fleetFresh, f.fresh()
	f.mu.Unlock()
	if fresh {
		return // it was asked for while it was found out
	}
	var err error
	if old {
		var found *machines
		if found, err = c.readFleet(ctx, c.regionsOf(examples), c.fleet.reads); err == nil {
			known = found
		}
	}
	if known != nil && (err == nil || !same(fitted, examples)) {
		within, cancel := context.WithTimeout(ctx, fleetTimeout)
		fits, fitted = known.fitAll(within, c, examples), examples
		cancel()
	}
	if ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known, f.fits, f.fitted, f.reading = known, fits, fitted, router.FleetReading{}
	if old {
		f.asked = time.Now()
	}
	switch {
	case err != nil:
		since := f.asked
		if f.problem != nil {
			since = f.problem.Since
		}
		f.problem = &router.FleetProblem{Since: since, Reason: nomad.Printable(err.Error(), maxMessage)}
	case old:
		f.problem = nil
	}
	close(f.done)
	f.done = make(chan struct{})
}

// reads says how far the reading of the nodes is.
func (f *fleet) reads(r router.FleetReading) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reading = r
}

// machines are the nodes as they were at one time. They are not changed.
type machines struct {
	at     time.Time
	failed map[string]error // why the nodes of a region are not there, of those that were asked for; nil: they are
	list   []*machine
	more   int
	nodes  []router.Node
	groups []router.NodeGroup
}

// A machine is one node.
type machine struct {
	*host
	*detail
	region string
	used   usage
	others usage // of that, by what is no runner
	group  int
}

// A usage is how much of a node its allocations use.
type usage struct {
	router.NodeSize
	allocations int
	devices     map[string]int // instances, by model
}

// regionsOf returns the regions that examples go to, in order, with the client's own, "".
func (c *Client) regionsOf(examples []router.Example) []string {
	names := []string{""}
	for _, e := range examples {
		names = append(names, c.Region(e.Placement))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// readFleet asks Nomad for the nodes of regions, of which the client's own is the first, and
// what runs on them; reads is told how far that is there. It fails when that one does; why
// others do is in what it returns.
func (c *Client) readFleet(ctx context.Context, regions []string, reads func(router.FleetReading)) (*machines, error) {
	parts, errs := make([]*machines, len(regions)), make([]error, len(regions))
	var all sync.WaitGroup
	for i, name := range regions {
		told := reads
		if i > 0 {
			told = func(router.FleetReading) {}
		}
		all.Go(func() { parts[i], errs[i] = c.readRegion(ctx, name, told) })
	}
	all.Wait()
	if errs[0] != nil {
		return nil, errs[0]
	}
	found := &machines{at: time.Now().UTC(), failed: map[string]error{}}
	for i, name := range regions {
		if found.failed[name] = errs[i]; errs[i] == nil {
			found.list, found.more = append(found.list, parts[i].list...), found.more+parts[i].more
		}
	}
	found.describe()
	return found, nil
}

// readRegion asks Nomad for the nodes of a region and what runs on them, and says how far it
// is whenever Nomad has answered. It gives up when Nomad leaves one question unanswered.
func (c *Client) readRegion(ctx context.Context, name string, reads func(router.FleetReading)) (found *machines, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	silent := time.AfterFunc(fleetTimeout, func() { cancel(fmt.Errorf("no answer came from Nomad for %v", fleetTimeout)) })
	defer func() {
		silent.Stop()
		if err != nil {
			err = cmp.Or(context.Cause(ctx), err)
		}
		cancel(nil)
	}()
	in, err := c.region(ctx, name, func() { silent.Reset(fleetTimeout) })
	if err != nil {
		return nil, err
	}
	found = &machines{}
	hosts := slices.SortedFunc(slices.Values(in.hosts), func(a, b *host) int {
		return cmp.Or(cmp.Compare(a.pool, b.pool), cmp.Compare(a.name, b.name), cmp.Compare(a.id, b.id))
	})
	if found.more = max(len(hosts)-maxNodes, 0); found.more > 0 {
		hosts = hosts[:maxNodes]
	}
	details, err := in.details.read(ctx, c, hosts, func(known int) {
		silent.Reset(fleetTimeout)
		reads(router.FleetReading{Read: known, Nodes: len(hosts)})
	})
	if err != nil {
		return nil, err
	}
	there := make(map[string]*machine, len(hosts))
	for _, h := range hosts {
		if d := details[h.id]; d != nil {
			there[h.id] = &machine{host: h, detail: d, region: name}
			found.list = append(found.list, there[h.id])
		}
	}
	list := nomad.Call{What: "list allocations", At: nomad.Scope{Namespace: api.AllNamespacesNamespace, Region: name}, Capability: "read-job"}
	query := url.Values{"resources": {"true"}, "filter": {`ClientStatus == "pending" or ClientStatus == "running" or ClientStatus == "unknown"`}}
	_, err = nomad.List(ctx, c.Client, list, "/v1/allocations?"+query.Encode(), func(a *struct {
		NodeID, JobID      string
		AllocatedResources *api.AllocatedResources
	}) {
		if m := there[a.NodeID]; m != nil {
			m.used.add(a.AllocatedResources)
			if !strings.HasPrefix(a.JobID, router.RunnerPrefix) {
				m.others.add(a.AllocatedResources)
			}
		}
	})
	if err != nil {
		return nil, err
	}
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
	type platform struct{ region, os, arch, class, pool string }
	groups := map[platform][]*machine{}
	for _, m := range s.list {
		k := platform{m.region, m.Attributes["kernel.name"], m.Attributes["cpu.arch"], m.class, m.pool}
		groups[k] = append(groups[k], m)
	}
	s.nodes, s.groups = make([]router.Node, 0, len(s.list)), []router.NodeGroup{}
	order := slices.SortedFunc(maps.Keys(groups), func(a, b platform) int {
		return cmp.Or(cmp.Compare(a.region, b.region), cmp.Compare(a.os, b.os), cmp.Compare(a.arch, b.arch), cmp.Compare(a.pool, b.pool), cmp.Compare(a.class, b.class))
	})
	for i, k := range order {
		g := router.NodeGroup{Region: k.region, OS: k.os, Arch: k.arch, Class: k.class, Pool: k.pool, Nodes: len(groups[k])}
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
			ID: m.id, Name: m.name, Region: m.region, Pool: m.pool, Datacenter: m.datacenter, Class: m.class,
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

// fitAll finds the fit of each example. What cannot be found out is the problem of one.
func (s *machines) fitAll(ctx context.Context, c *Client, examples []router.Example) []router.RuleFleet {
	survey := &survey{Client: c}
	fits := make([]router.RuleFleet, len(examples))
	for i, e := range examples {
		r := Route{Rule: e.Rule, Labels: e.Labels, Placement: e.Placement}
		fits[i] = router.RuleFleet{Rule: e.Rule, RunsOn: e.Labels, Cells: []router.FleetCell{}}
		job, problems, err := survey.job(ctx, r)
		switch {
		case err != nil:
			fits[i].Problem = nomad.Printable(err.Error(), maxMessage)
		case problems != nil:
			fits[i].Problem = nomad.Printable(problems[0].say(r), maxMessage)
		case len(job.TaskGroups) != 1:
			fits[i].Problem = fmt.Sprintf("the job has %d groups; only jobs of one group are compared with nodes", len(job.TaskGroups))
		case s.failed[nomad.ScopeOf(job).Region] != nil:
			fits[i].Problem = nomad.Printable(s.failed[nomad.ScopeOf(job).Region].Error(), maxMessage)
		default:
			fits[i].NodeCounts, fits[i].Cells = s.fit(r, job)
		}
	}
	return fits
}
