package capacity

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"switchyard/router"
	"switchyard/router/feasible"
	"switchyard/router/nomad"
)

const (
	nodeID      = "${node.unique.id}"
	nodesAtOnce = 16   // nodes that are read at the same time
	maxChanged  = 50   // nodes that are read rather than listed with the others
	maxAside    = 50   // nodes out of service that are read for one answer, beside those that are known
	maxNames    = 5    // of nodes, pools or datacenters in a message
	maxNever    = 1000 // reasons that are kept why jobs can never have a node
)

// A region is the nodes of one region, as they were when they were listed.
type region struct {
	hosts   []*host
	details *details

	mu    sync.Mutex
	never map[[sha256.Size]byte]*router.Unplaced // why jobs can never have one of them, by question; not changed
}

// A host is what the list says of a node, as far as it is used: thousands of them are kept.
type host struct {
	id, name, pool, datacenter, class string

	out   string // why Nomad places nothing on it: down, draining, ineligible, …; "": it is in service
	index uint64 // Nomad's, of its last change

	*resources
}

// The resources of a node. They are not changed.
type resources struct {
	cores, reservable int // of its CPU; those that a job can reserve
	cpu, memory, disk amount
	devices           []*api.NodeDeviceResource
}

// An amount is how much a node has of something, in MHz or MiB, and what it keeps of that for itself.
type amount struct{ all, kept int }

// A listed node is one as Nomad lists it.
type listed struct {
	ID, Name, NodePool, Datacenter, NodeClass string
	Status, SchedulingEligibility             string

	Drain       bool
	ModifyIndex uint64

	has
}

// has is what Nomad says a node has, if it is asked for resources.
type has struct {
	NodeResources struct {
		Cpu     api.NodeCpuResources //nolint:revive // Nomad's name
		Memory  api.NodeMemoryResources
		Disk    api.NodeDiskResources
		Devices []*api.NodeDeviceResource
	}
	ReservedResources api.NodeReservedResources
}

// host returns what is kept of a node. common has the texts that many nodes share, once.
func (n *listed) host(common texts) *host {
	return &host{
		id: n.ID, name: n.Name, pool: common.of(n.NodePool), datacenter: common.of(n.Datacenter), class: common.of(n.NodeClass),
		out: common.of(n.outOfService()), index: n.ModifyIndex, resources: n.resources(),
	}
}

func (n *has) resources() *resources {
	have, kept := &n.NodeResources, &n.ReservedResources
	return &resources{
		cores: int(have.Cpu.TotalCpuCores), reservable: len(have.Cpu.ReservableCpuCores),
		cpu:     amount{int(have.Cpu.CpuShares), int(kept.Cpu.CpuShares)},
		memory:  amount{int(have.Memory.MemoryMB), int(kept.Memory.MemoryMB)},
		disk:    amount{int(have.Disk.DiskMB), int(kept.Disk.DiskMB)},
		devices: have.Devices,
	}
}

// outOfService says why Nomad places nothing on a node; "" when it does.
func (n *listed) outOfService() string {
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

// total returns what a node has for allocations.
func (h *host) total() router.NodeSize {
	return router.NodeSize{CPU: h.cpu.all - h.cpu.kept, Cores: h.reservable, MemoryMB: h.memory.all - h.memory.kept, DiskMB: h.disk.all - h.disk.kept}
}

// texts has each of several texts once.
type texts map[string]string

func (t texts) of(s string) string {
	if known, ok := t[s]; ok {
		return known
	}
	t[s] = s
	return s
}

// regions keeps the nodes of each region: with thousands of nodes a list is megabytes, and
// all who ask at the same time share one. While Nomad's index of its nodes stays, none has
// changed. A change of the index says less: it also grows whenever a client reports on its
// allocations (UpdateAllocsFromClient in nomad/state, v1.8.0 and v2.0.5, read 2026-11-30).
type regions struct {
	mu sync.Mutex
	of map[string]*keptRegion
}

func (c *Client) keptRegion(name string) *keptRegion {
	c.regions.mu.Lock()
	defer c.regions.mu.Unlock()
	if c.regions.of == nil {
		c.regions.of = map[string]*keptRegion{}
	}
	if c.regions.of[name] == nil {
		c.regions.of[name] = &keptRegion{turn: semaphore.NewWeighted(1), details: newDetails(name)}
	}
	return c.regions.of[name]
}

func listNodes(region string) nomad.Call {
	return nomad.Call{What: "list nodes", At: nomad.Scope{Region: region}, Capability: nomad.NodeRead}
}

// nodesIndex returns Nomad's index of the nodes of a region, for a call that lists them.
func (c *Client) nodesIndex(ctx context.Context, list nomad.Call) (uint64, error) {
	query := list.At.Read(ctx)
	query.PerPage = 1
	_, meta, err := c.API().Nodes().List(query)
	if err != nil {
		return 0, c.Classify(ctx, list, err)
	}
	return meta.LastIndex, nil
}

type keptRegion struct {
	turn  *semaphore.Weighted // of who asks Nomad, and uses the rest
	last  *region             // that was read; nil: none
	index uint64              // Nomad's, when that was the state of the nodes
	asked time.Time           // when Nomad was asked for that index

	details details
}

// region returns the nodes of a region, the same ones within a survey.
func (s *survey) region(ctx context.Context, name string) (*region, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.regions[name]; r != nil {
		return r, nil
	}
	r, err := s.Client.region(ctx, name, func() {})
	if err == nil {
		s.regions[name] = r
	}
	return r, err
}

// region returns the nodes of a region, those that are kept if they are still right; the same
// region is the same nodes. It waits for others who ask for them, but not after ctx has ended, and
// calls heard when it has done so, and whenever Nomad has answered and is asked again.
func (c *Client) region(ctx context.Context, name string, heard func()) (*region, error) {
	kept, began := c.keptRegion(name), time.Now()
	if err := kept.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer kept.turn.Release(1)
	heard()
	if kept.asked.After(began) {
		return kept.last, nil // somebody else asked meanwhile
	}
	read, asked := listNodes(name), time.Now()
	if kept.last != nil {
		index, err := c.nodesIndex(ctx, read)
		if err != nil {
			return nil, err
		}
		if index == kept.index {
			kept.asked = asked
			return kept.last, nil
		}
		heard()
	}
	hosts, index, err := kept.list(ctx, c, read, heard)
	if err != nil {
		return nil, err
	}
	kept.index, kept.asked = index, asked
	if kept.last == nil || !slices.Equal(hosts, kept.last.hosts) {
		kept.details.forget(hosts)
		kept.last = &region{hosts: hosts, details: &kept.details, never: map[[sha256.Size]byte]*router.Unplaced{}}
	}
	return kept.last, nil
}

// list lists the nodes of a region, and returns Nomad's index of the list. Those that have
// not changed are the ones that are kept. Its turn is taken.
func (k *keptRegion) list(ctx context.Context, c *Client, read nomad.Call, heard func()) (hosts []*host, index uint64, err error) {
	common := texts{}
	if k.last != nil { // few nodes change at a time: those are read, and the list is a third as long without resources
		before := make(map[string]*host, len(k.last.hosts))
		for _, h := range k.last.hosts {
			before[h.id] = h
		}
		var changed []*host
		index, err = nomad.List(ctx, c.Client, read, "/v1/nodes", func(n *listed) {
			h := before[n.ID]
			if h == nil || h.index != n.ModifyIndex {
				h = n.host(common)
				changed = append(changed, h)
			}
			hosts = append(hosts, h)
		})
		if err != nil {
			return nil, 0, err
		}
		heard()
		if len(changed) <= maxChanged {
			details, err := k.details.read(ctx, c, changed, func(int) { heard() })
			for _, h := range changed {
				if d := details[h.id]; d != nil {
					h.resources = d.resources
				}
			}
			gone := func(h *host) bool { return before[h.id] != h && details[h.id] == nil } // since it was listed
			return slices.DeleteFunc(hosts, gone), index, err
		}
		hosts = nil
	}
	index, err = nomad.List(ctx, c.Client, read, "/v1/nodes?resources=true", func(n *listed) { hosts = append(hosts, n.host(common)) })
	return hosts, index, err
}

// details are what the list does not say of the nodes of a region. Each node is read when
// somebody asks for it, and again when it has changed.
type details struct {
	at   nomad.Scope
	turn *semaphore.Weighted // of who reads nodes out of service: the next one finds them

	mu     sync.Mutex
	of     map[string]*detail // by node ID
	kinds  map[[sha256.Size]byte]*kind
	common texts // that several kinds may share
}

// A detail is what constraints see of one node.
type detail struct {
	*kind
	resources        *resources
	index            uint64            // Nomad's, of the node's last change when it was read
	attributes, meta map[string]string // those that are unique to it
}

// A kind is what nodes have in common that no constraint tells apart, unless it is about
// what is unique to one. It is not changed.
type kind struct {
	api.Node // of one of them, without what is unique to it

	drivers []string // that work, sorted
}

// A readNode is a node as Nomad shows it, as far as it is used.
type readNode struct {
	ID, Name, NodePool, Datacenter, NodeClass string

	Attributes, Meta map[string]string
	Drivers          map[string]struct{ Detected, Healthy bool }
	HostVolumes      map[string]struct{ ReadOnly bool }
	NodeMaxAllocs    int
	ModifyIndex      uint64

	has
}

func newDetails(region string) details {
	return details{at: nomad.Scope{Region: region}, turn: semaphore.NewWeighted(1), of: map[string]*detail{}, kinds: map[[sha256.Size]byte]*kind{}, common: texts{}}
}

// forget drops what is known of nodes that are gone, and kinds without a node.
func (d *details) forget(hosts []*host) {
	there := make(map[string]bool, len(hosts))
	for _, h := range hosts {
		there[h.id] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.common = texts{}
	used := map[*kind]bool{}
	for id, known := range d.of {
		if there[id] {
			used[known.kind] = true
		} else {
			delete(d.of, id)
		}
	}
	maps.DeleteFunc(d.kinds, func(_ [sha256.Size]byte, k *kind) bool { return !used[k] })
}

// known returns the details of nodes that need not be read, by ID, and the other nodes.
func (d *details) known(hosts []*host) (found map[string]*detail, missing []*host) {
	found = make(map[string]*detail, len(hosts))
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range hosts {
		if known := d.of[h.id]; known != nil && known.index == h.index {
			found[h.id] = known
		} else {
			missing = append(missing, h)
		}
	}
	return found, missing
}

// read returns the details of nodes, by ID; those that are gone have none. It asks Nomad for
// those that are new or have changed, and calls each after each of them
// and at first, with how many are known so far.
func (d *details) read(ctx context.Context, c *Client, hosts []*host, each func(known int)) (map[string]*detail, error) {
	found, missing := d.known(hosts)
	done := len(found)
	each(done)
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(nodesAtOnce)
	for _, h := range missing {
		all.Go(func() error {
			var n readNode
			_, err := c.API().Raw().Query("/v1/node/"+h.id, &n, d.at.Read(ctx))
			if err != nil && nomad.Status(err) != http.StatusNotFound { // gone since
				return c.Classify(ctx, nomad.Call{What: "read node " + h.name, At: d.at, Capability: nomad.NodeRead}, err)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if err == nil {
				found[h.id] = d.keep(&n) // even if another read fails
			}
			done++
			each(done)
			return nil
		})
	}
	return found, all.Wait()
}

// keep keeps what constraints see of a node. d.mu is held.
func (d *details) keep(n *readNode) *detail {
	one := &detail{index: n.ModifyIndex, resources: n.resources()}
	k := &kind{Node: api.Node{
		Datacenter: n.Datacenter, NodeClass: n.NodeClass, NodePool: n.NodePool, NodeMaxAllocs: n.NodeMaxAllocs,
		Drivers: map[string]*api.DriverInfo{}, HostVolumes: map[string]*api.HostVolumeInfo{}, NodeResources: &api.NodeResources{Devices: n.NodeResources.Devices},
	}, drivers: []string{}}
	k.Attributes, one.attributes = d.common.split(n.Attributes)
	k.Meta, one.meta = d.common.split(n.Meta)
	for name, driver := range n.Drivers {
		if driver.Detected && driver.Healthy {
			k.Drivers[name] = working
			k.drivers = append(k.drivers, name)
		}
	}
	slices.Sort(k.drivers)
	for name, v := range n.HostVolumes {
		k.HostVolumes[name] = &api.HostVolumeInfo{ReadOnly: v.ReadOnly}
	}
	more := []any{k.NodeMaxAllocs, k.HostVolumes, k.drivers}
	for _, device := range n.NodeResources.Devices {
		more = append(more, feasible.Healthy(device))
	}
	class := sha256.Sum256([]byte(feasible.Class(&k.Node, more...)))
	if one.kind = d.kinds[class]; one.kind == nil {
		one.kind, d.kinds[class] = k, k
	}
	d.of[n.ID] = one
	return one
}

// split returns what nodes have in common of their attributes or meta, and what is unique to one.
func (t texts) split(all map[string]string) (common, unique map[string]string) {
	common, unique = make(map[string]string, len(all)), map[string]string{}
	for key, value := range all {
		if strings.HasPrefix(key, "unique.") {
			unique[t.of(key)] = value
		} else {
			common[t.of(key)] = t.of(value)
		}
	}
	return common, unique
}

// working is a driver that works, as far as that is looked at.
var working = &api.DriverInfo{Detected: true, Healthy: true}

func works(d *api.DriverInfo) bool { return d != nil && d.Detected && d.Healthy }

// node returns all that constraints see of a node.
func (d *detail) node(h *host) *api.Node {
	n := d.kind.Node
	n.ID, n.Name, n.NodeResources = h.id, h.name, &api.NodeResources{Devices: h.devices}
	n.Attributes, n.Meta = maps.Clone(n.Attributes), maps.Clone(n.Meta)
	maps.Copy(n.Attributes, d.attributes)
	maps.Copy(n.Meta, d.meta)
	return &n
}

// noPool returns the problem that no node pool has this name. r is nil when the nodes are
// unknown.
func (r *region) noPool(name string) problem {
	pools := map[string]bool{}
	if r != nil {
		for _, h := range r.hosts {
			pools[h.pool] = true
		}
	}
	return problem{code: NoSuchPool, say: func(r Route) string {
		text := fmt.Sprintf("there is no node pool %q%s", name, r.from("node_pool"))
		if len(pools) > 0 {
			text += "; the nodes are in " + names(pools)
		}
		return text
	}}
}

// pool returns the nodes in a job's node pool.
func (r *region) pool(job *api.Job) (in []*host) {
	pool := poolOf(job)
	for _, h := range r.hosts {
		if pool == api.NodePoolAll || h.pool == pool {
			in = append(in, h)
		}
	}
	return in
}

// poolOf returns a job's node pool, as Nomad fills it in.
func poolOf(job *api.Job) string {
	if job.NodePool == nil || *job.NodePool == "" {
		return api.NodePoolDefault
	}
	return *job.NodePool
}

// datacentersOf returns a job's datacenters, as Nomad fills them in.
func datacentersOf(job *api.Job) []string {
	if len(job.Datacenters) == 0 {
		return []string{"*"}
	}
	return job.Datacenters
}

// unknownDatacenters returns the problem that no node of a job's pool is in some of its
// datacenters, if the pool has nodes. It is only a warning while nodes are in others.
func (r *region) unknownDatacenters(job *api.Job) []problem {
	have := map[string]bool{}
	for _, h := range r.pool(job) {
		have[h.datacenter] = true
	}
	if len(have) == 0 {
		return nil
	}
	var unknown []string
	for _, pattern := range datacentersOf(job) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(have)), func(name string) bool { return feasible.InDatacenters([]string{pattern}, name) }) {
			unknown = append(unknown, pattern)
		}
	}
	if unknown == nil {
		return nil
	}
	pool := poolName(job)
	return []problem{{code: NoSuchDatacenter, warning: len(unknown) < len(datacentersOf(job)), say: func(r Route) string {
		return fmt.Sprintf("no node%s is in datacenter %s%s; its nodes are in %s", pool, strings.Join(unknown, " or "), r.from("datacenters"), names(have))
	}}}
}

// poolName returns " in pool …", or "" for all of them.
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

// wouldDo returns the nodes of those out of service that could serve a demand if they were
// in service and idle. It reads at most maxAside, and returns how many it did not look at.
func (r *region) wouldDo(ctx context.Context, c *Client, out []*host, d *demand) (would map[*host]bool, unread int, err error) {
	out = slices.DeleteFunc(slices.Clone(out), func(h *host) bool { return !fits(h, d.sizes) })
	if len(out) == 0 {
		return nil, 0, nil
	}
	if err := r.details.turn.Acquire(ctx, 1); err != nil {
		return nil, 0, err
	}
	defer r.details.turn.Release(1)
	known, missing := r.details.known(out)
	unread = max(len(missing)-maxAside, 0)
	read, err := r.details.read(ctx, c, missing[unread:], func(int) {})
	if err != nil {
		return nil, 0, err
	}
	maps.Copy(known, read)
	would = map[*host]bool{}
	for _, h := range out {
		would[h] = known[h.id] != nil && d.filtered(Route{}, known[h.id].node(h)) == ""
	}
	return would, unread, nil
}
