package capacity

import (
	"net/http"
	"testing"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router/nomad"
	"switchyard/router/testnet"
)

// newClient makes a client with the jobspecs of package nomad's tests.
func newClient(t testing.TB, config *api.Config, change ...func(*nomad.Config)) *Client {
	t.Helper()
	set, err := jobspecs.Load("../testdata/jobspecs")
	if err != nil {
		t.Fatal(err)
	}
	made := nomad.Config{Jobspecs: set, API: config}
	for _, f := range change {
		f(&made)
	}
	c, err := nomad.New(made)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.API().Close) // an agent takes no more than 100 connections from one address
	return New(c)
}

// answered is a Client of a Nomad in memory that answers so.
func answered(t testing.TB, h http.Handler) *Client {
	t.Helper()
	var on testnet.Net
	return newClient(t, &api.Config{Address: on.Serve(t, h)}, func(c *nomad.Config) { c.Dial = on.Dial })
}
