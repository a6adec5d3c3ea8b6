package web

import (
	"context"
	"net/http"

	"switchyard/router"
	"switchyard/router/web/problem"
)

func (a *api) showFleet(req *http.Request) (any, error) {
	p := parameters{Values: req.URL.Query()}
	if err := p.end(); err != nil {
		return nil, err
	}
	return a.fleet(req.Context())
}

// fleet is Nomad's nodes and what they could serve by the rules in force.
func (a *api) fleet(ctx context.Context) (router.Fleet, error) {
	if a.Cluster == nil {
		return router.Fleet{}, problem.New(http.StatusNotFound, "this server knows no nodes")
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	_, _, examples := a.described()
	return a.Cluster.Fleet(ctx, examples), nil
}
