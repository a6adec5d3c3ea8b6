package capacity

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"

	"switchyard/router/feasible"
	"switchyard/router/nomad"
)

const (
	nodeID   = "${node.unique.id}"
	maxAside = 50 // nodes out of service that are read one by one
	maxNames = 5  // of nodes, pools or datacenters in a message
)

// A region is the nodes of one region, as they were when they were read. It is not changed.
type region struct {
	nodes []*api.NodeListStub
	aside map[string]*api.Node // nodes out of service in full, the first maxAside, by ID
}

// regions keeps the nodes of each region until Nomad's index of its nodes changes: with
// thousands of nodes a list is megabytes, and all who ask at the same time share one.
type regions struct {
	mu sync.Mutex
	of map[string]*keptRegion
}

type keptRegion struct {
	turn   chan struct{} // size 1; whoever has sent to it may ask Nomad, and use the rest
	region *region       // nil: none was read
	index  uint64        // of the list
}

// region returns the nodes of a region, the same ones within a survey.
func (s *survey) region(ctx context.Context, name string) (*region, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.regions[name]; r != nil {
		return r, nil
	}
	r, err := s.Client.region(ctx, name)
	if err == nil {
		s.regions[name] = r
	}
	return r, err
}

// region returns the nodes of a region, those that are kept if they are still right. It
// waits for others who ask for them, but not after ctx has ended.
func (c *Client) region(ctx context.Context, name string) (*region, error) {
	c.regions.mu.Lock()
	if c.regions.of == nil {
		c.regions.of = map[string]*keptRegion{}
	}
	if c.regions.of[name] == nil {
		c.regions.of[name] = &keptRegion{turn: make(chan struct{}, 1)}
	}
	kept := c.regions.of[name]
	c.regions.mu.Unlock()

	select {
	case kept.turn <- struct{}{}:
		defer func() { <-kept.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	read := nomad.Call{What: "list nodes", Capability: nomad.NodeRead}
	if name != "" {
		read.What += " of region " + name
	}
	if kept.region != nil {
		query := nomad.Scope{Region: name}.Read(ctx)
		query.PerPage = 1
		_, meta, err := c.API().Nodes().List(query)
		if err != nil {
			return nil, read.Classify(err)
		}
		if meta.LastIndex == kept.index {
			return kept.region, nil
		}
	}
	r, index, err := c.readRegion(ctx, name, read)
	if err == nil {
		kept.region, kept.index = r, index
	}
	return r, err
}

// readRegion lists the nodes of a region, and returns Nomad's index of the list.
func (c *Client) readRegion(ctx context.Context, name string, read nomad.Call) (_ *region, index uint64, err error) {
	query := nomad.Scope{Region: name}.Read(ctx)
	query.Params = map[string]string{"resources": "true"}
	nodes, meta, err := c.API().Nodes().List(query)
	if err != nil {
		return nil, 0, read.Classify(err)
	}
	r := &region{nodes: nodes, aside: map[string]*api.Node{}}
	for _, n := range nodes {
		n.NodeResources = cmp.Or(n.NodeResources, &api.NodeResources{})
		n.ReservedResources = cmp.Or(n.ReservedResources, &api.NodeReservedResources{})
		if outOfService(n) == "" || len(r.aside) == maxAside {
			continue
		}
		node, _, err := c.API().Nodes().Info(n.ID, nomad.Scope{Region: name}.Read(ctx))
		switch {
		case nomad.Status(err) == http.StatusNotFound: // gone since
		case err != nil:
			read.What = "read node " + n.Name
			return nil, 0, read.Classify(err)
		default:
			node.NodeResources = cmp.Or(node.NodeResources, &api.NodeResources{})
			r.aside[n.ID] = node
		}
	}
	return r, meta.LastIndex, nil
}

// outOfService says why Nomad places nothing on a node; "" when it does.
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

// noPool returns the problem that no node pool has this name. r is nil when the nodes are
// unknown.
func (r *region) noPool(name string) problem {
	pools := map[string]bool{}
	if r != nil {
		for _, n := range r.nodes {
			pools[n.NodePool] = true
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
func (r *region) pool(job *api.Job) (in []*api.NodeListStub) {
	for _, n := range r.nodes {
		if pool := poolOf(job); pool == api.NodePoolAll || n.NodePool == pool {
			in = append(in, n)
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
	nodes := r.pool(job)
	if len(nodes) == 0 {
		return nil
	}
	have := map[string]bool{}
	for _, n := range nodes {
		have[n.Datacenter] = true
	}
	var unknown []string
	for _, pattern := range datacentersOf(job) {
		if !slices.ContainsFunc(nodes, func(n *api.NodeListStub) bool { return feasible.InDatacenters([]string{pattern}, n.Datacenter) }) {
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

// wouldDo reports whether a node that is out of service could serve a demand if it
// were in service and idle.
func (r *region) wouldDo(n *api.NodeListStub, d *demand) bool {
	node := r.aside[n.ID]
	return node != nil && fits(n, d.sizes) && d.filtered(Route{}, node) == ""
}
