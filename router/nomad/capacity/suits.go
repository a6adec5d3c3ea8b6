package capacity

import (
	"context"
	"slices"

	"switchyard/router"
	"switchyard/router/nomad"
)

// Suits implements router.Nomad. It needs node read.
func (c *Client) Suits(ctx context.Context, rule string, p router.Placement, nodes []string) (suiting []string, err error) {
	s := &survey{Client: c, regions: map[string]*region{}}
	route := Route{Rule: rule, Placement: p}
	job, problems, err := s.job(ctx, route)
	if err != nil || problems != nil || len(job.TaskGroups) == 0 {
		return nil, err
	}
	in, err := s.region(ctx, nomad.ScopeOf(job).Region)
	if err != nil {
		return nil, err
	}
	var hosts []*host
	for _, h := range in.hosts {
		if slices.Contains(nodes, h.name) {
			hosts = append(hosts, h)
		}
	}
	would, _, err := in.wouldDo(ctx, c, hosts, demandOf(job, job.TaskGroups[0]))
	if err != nil {
		return nil, err
	}
	for h, suits := range would {
		if suits {
			suiting = append(suiting, h.name)
		}
	}
	slices.Sort(suiting)
	return suiting, nil
}
