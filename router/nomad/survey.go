package nomad

import (
	"context"
	"errors"

	"switchyard/router"
)

// A Route is one placement that the rules can choose.
type Route struct {
	Rule      string
	Labels    []string // those of an example job
	Placement router.Placement
}

// A Finding is what the cluster says against a route, or against several
// alike. Code is one of no-such-namespace, no-such-pool, no-such-datacenter,
// no-such-job, jobspec-refused, nomad-warns, no-node and not-asked.
type Finding struct {
	Routes  []int  // indices into what Survey was given, ascending; never empty
	Code    string // what kind of finding it is
	Warning bool   // the routes can work all the same
	Message string // one line for people
}

// Survey asks the cluster, as it is now, what it has against routes.
func (c *Client) Survey(ctx context.Context, routes []Route) ([]Finding, error) {
	return nil, errors.New("survey: not built yet")
}
