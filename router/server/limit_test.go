package server_test

import (
	"testing"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/rules"
)

func limitRules(t *testing.T, running string) *rules.Set {
	t.Helper()
	set, err := rules.Parse("rules.yaml", []byte("version: 1\nrules: [{ name: linux, jobspec: docker-linux, limit: { running: "+running+" } }]\n"))
	must(t, err)
	return set
}

func TestALimitHoldsJobsUntilOthersEnd(t *testing.T) {
	bubble(t, testALimitHoldsJobsUntilOthersEnd)
}
func testALimitHoldsJobsUntilOthersEnd(t *testing.T) {
	nomad := &cluster{}
	r := start(t, openStore(t), nomad, &hub{}, func(c *server.Config) { c.Rules = limitRules(t, "2") })
	for id := int64(1); id <= 5; id++ {
		r.deliver(delivery(id, "queued", "self-hosted"))
		r.await(id, startedOrHeld)
	}
	var held []int64
	for id := int64(1); id <= 5; id++ {
		if r.await(id, startedOrHeld).State == router.Held {
			held = append(held, id)
		}
	}
	if len(held) != 3 || nomad.count() != 2 {
		t.Fatalf("jobs %v are held, and Nomad has %d, want 3 and 2", held, nomad.count())
	}
	// A place that becomes free is taken at once by the oldest.
	r.deliver(delivery(1, "completed", "self-hosted"))
	r.await(held[0], in(router.Dispatched))
	if n := nomad.count(); n != 3 {
		t.Errorf("Nomad was asked for %d jobs, want 3", n)
	}
	// New rules with a higher limit let the others go.
	r.App.Reload(limitRules(t, "9"), router.RulesVersion{})
	r.await(held[1], in(router.Dispatched))
	r.await(held[2], in(router.Dispatched))
}

func TestHeldJobsAreLookedAtAgainAfterAStart(t *testing.T) {
	bubble(t, testHeldJobsAreLookedAtAgainAfterAStart)
}
func testHeldJobsAreLookedAtAgainAfterAStart(t *testing.T) {
	st, nomad := openStore(t), &cluster{}
	r := start(t, st, nomad, &hub{}, func(c *server.Config) { c.Rules = limitRules(t, "1") })
	for id := int64(1); id <= 2; id++ {
		r.deliver(delivery(id, "queued", "self-hosted"))
		r.await(id, startedOrHeld)
	}
	r.Stop()
	again := start(t, st, nomad, &hub{}, func(c *server.Config) { c.Rules = limitRules(t, "2") })
	again.await(1, in(router.Dispatched))
	again.await(2, in(router.Dispatched))
}

// startedOrHeld is a job that was dispatched, or that its limit holds.
func startedOrHeld(j router.Job) bool { return j.State == router.Dispatched || j.State == router.Held }
