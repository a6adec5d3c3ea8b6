package nomad

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
)

const (
	membersWithin = 5 * time.Second  // for the question which regions there are: a registration waits for it
	homeRetry     = 10 * time.Second // after an answer that did not say which the agent's own is
	maxServers    = 5                // of a region, in an error
)

// A NoRegionError says that there is no such region; capacity branches on it.
type NoRegionError struct {
	Region string
	Others []string // that there are
}

func (e *NoRegionError) Error() string {
	return fmt.Sprintf("there is no region %q: Nomad knows %s", e.Region, strings.Join(e.Others, ", "))
}

var errAway = errors.New("the region is away, as Nomad reaches none of its servers")

// A home knows the name of the client's own region.
type home struct {
	mu    sync.Mutex
	name  string    // "": not known yet
	asked time.Time // when Nomad failed to say
}

// known returns the name of the client's own region; "": not known.
func (h *home) known() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.name
}

// homeRegion returns the name of the client's own region, for which it asks Nomad once; "":
// Nomad does not say.
func (c *Client) homeRegion(ctx context.Context) string {
	h := &c.home
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.name != "" || !h.asked.IsZero() && time.Since(h.asked) < homeRetry {
		return h.name
	}
	if members, err := c.members(ctx); err == nil {
		h.name = members.ServerRegion
	} else if ctx.Err() == nil {
		h.asked = time.Now()
	}
	return h.name
}

// members asks the agent for the servers of all regions that it has met.
func (c *Client) members(ctx context.Context) (*api.ServerMembers, error) {
	ctx, cancel := context.WithTimeout(ctx, membersWithin)
	defer cancel()
	return c.api.Agent().MembersOpts(Scope{}.Read(ctx))
}

// regionOf returns the region of the runners of a placement whose jobspec names one, or ""
// or nil; "": the client's own, by whatever name. "global" in a jobspec is what Nomad fills
// in where it says nothing.
func (c *Client) regionOf(ctx context.Context, p router.Placement, named *string) string {
	name := p.Region
	if name == "" && named != nil && *named != api.GlobalRegion {
		name = *named
	}
	if name == "" || name == c.homeRegion(ctx) {
		return ""
	}
	return name
}

// Region implements router.Nomad.
func (c *Client) Region(p router.Placement) string {
	name := p.Region
	if name == "" && p.Dispatch == "" {
		name = c.jobspecRegion(p.Jobspec)
	}
	if name == "" || name == c.home.known() {
		return ""
	}
	return name
}

// jobspecRegion returns the region that a jobspec names, if it has been parsed.
func (c *Client) jobspecRegion(name string) string {
	spec, ok := c.jobspecs.Load().Get(name)
	if !ok {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	region, known := c.regions[spec.Hash]
	if known {
		return region
	}
	parsed := spec.Parsed
	if parsed == nil {
		parsed = c.parsed[spec.Hash]
	}
	var job struct{ Region string }
	if parsed == nil || json.Unmarshal(parsed, &job) != nil {
		return ""
	}
	if job.Region == api.GlobalRegion {
		job.Region = ""
	}
	c.regions[spec.Hash] = job.Region
	return job.Region
}

// Classify is Call.Classify, and tells a region that is away from one that does not exist:
// Nomad has no path to either (2.0.5, tried 2026-11-30). The agent's list of servers still has
// those that failed or left, for a day.
func (c *Client) Classify(ctx context.Context, call Call, err error) error {
	if call.At.Region == "" || !NoRegion(err) {
		return call.Classify(err)
	}
	members, asking := c.members(ctx)
	if asking != nil {
		return fmt.Errorf("%s: Nomad answered: %s; it does not say which regions it knows: %w", call, words(err), Call{What: "list Nomad's servers", Capability: NodeRead}.Classify(asking))
	}
	regions, servers := map[string]bool{}, []string{}
	for _, m := range members.Members {
		if region := m.Tags["region"]; region == call.At.Region {
			servers = append(servers, Printable(m.Name, maxValue)+" is "+Printable(m.Status, maxValue))
		} else if m.Status == "alive" {
			regions[Printable(region, maxValue)] = true
		}
	}
	if len(servers) > 0 {
		slices.Sort(servers)
		return fmt.Errorf("%s: %w: %s", call, errAway, strings.Join(servers[:min(len(servers), maxServers)], ", "))
	}
	return &router.FixError{
		Fix: "correct the region in the rule or jobspec, or join its servers (nomad server join)",
		Err: fmt.Errorf("%s: %w", call, &NoRegionError{call.At.Region, slices.Sorted(maps.Keys(regions))}),
	}
}
