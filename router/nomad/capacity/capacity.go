// Package capacity owns what Nomad's nodes can run: which nodes there are, which of
// them could serve each rule, what the cluster has against a placement, and why a runner
// has no node. The console asks for the fleet, `switchyard check --nomad` for the
// survey, and package runners why a runner waits.
package capacity

import (
	"cmp"
	"slices"

	"switchyard/router"
	"switchyard/router/nomad"
)

// A Client is a nomad.Client that also answers for the nodes; it implements all of
// router.Nomad. It is safe for concurrent use.
type Client struct {
	*nomad.Client
	fleet   fleet
	regions regions
}

// New returns a Client of the same Nomad. It makes no request.
func New(c *nomad.Client) *Client { return &Client{Client: c, fleet: newFleet()} }

// A Route is one placement that the rules can choose.
type Route struct {
	Rule      string
	Labels    []string // of an example job
	Placement router.Placement
}

// source names what a route takes from elsewhere: a jobspec, or a job on Nomad.
func (r Route) source() string {
	if r.Placement.Dispatch != "" {
		return "job " + r.Placement.Dispatch
	}
	if r.Placement.Jobspec == "" {
		return "its jobspec" // which is not known
	}
	return "jobspec " + r.Placement.Jobspec
}

// from returns the origin of a single value of a route, in brackets.
func (r Route) from(path string) string {
	return " (" + cmp.Or(r.Placement.From[path], r.source()) + ")"
}

// deviceFrom returns the origin of a device of a route, in brackets.
func (r Route) deviceFrom(name string) string {
	i := slices.IndexFunc(r.Placement.Devices, func(d router.Device) bool { return d.Name == name && d.From != "" })
	if i < 0 {
		return " (" + r.source() + ")"
	}
	return " (" + r.Placement.Devices[i].From + ")"
}
