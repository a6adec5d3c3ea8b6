package server_test

import (
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/rules"
)

// orderRules have one place, for the branches that are named the most urgent ones.
func orderRules(t *testing.T, running, urgency string) *rules.Set {
	t.Helper()
	set, err := rules.Parse("rules.yaml", []byte("version: 1\nlabels: { self-hosted: {}, hotfix: { urgency: 50 } }\n"+
		"rules: [{ name: linux, jobspec: docker-linux, limit: { running: "+running+", order: priority }, urgency: '"+urgency+"' }]\n"))
	must(t, err)
	return set
}

func TestTheMostUrgentHeldJobIsNext(t *testing.T) { bubble(t, testTheMostUrgentHeldJobIsNext) }
func testTheMostUrgentHeldJobIsNext(t *testing.T) {
	nomad := &cluster{}
	main := `${{ job.branch == "main" ? 10 : 0 }}`
	r := start(t, openStore(t), nomad, &hub{}, func(c *server.Config) { c.Rules = orderRules(t, "1", main) })
	comes := func(id int64, branch string, labels ...string) {
		d := delivery(id, "queued", append([]string{"self-hosted"}, labels...)...)
		d.Job.Branch = branch
		r.deliver(d)
		r.await(id, startedOrHeld)
		time.Sleep(time.Minute)
	}
	ends := func(id, next int64) {
		t.Helper()
		r.deliver(delivery(id, "completed", "self-hosted"))
		r.await(next, in(router.Dispatched))
	}
	held := func(ids ...int64) {
		t.Helper()
		for _, id := range ids {
			r.await(id, in(router.Held))
		}
	}
	comes(1, "topic")
	comes(2, "topic")
	comes(3, "main")
	comes(4, "main", "hotfix")
	comes(5, "next")
	comes(6, "next")
	held(2, 3, 4, 5, 6)
	ends(1, 4)
	ends(4, 3)
	held(2, 5, 6)

	// New rules change who is urgent, and those who wait stay where they are meanwhile.
	r.App.Reload(orderRules(t, "1", `${{ job.branch == "next" ? 100 : 0 }}`), router.RulesVersion{})
	synctest.Wait()
	held(2, 5, 6)
	if j := r.await(5, in(router.Held)); j.Decision.Urgency != 100 {
		t.Errorf("the urgency of a job that waits is %d by new rules, want 100", j.Decision.Urgency)
	}
	ends(3, 5)

	// A job that is decided again keeps its age.
	must(t, r.App.RetryJob(t.Context(), 6))
	r.await(6, startedOrHeld)
	comes(7, "next")
	ends(5, 6)
	held(2, 7)

	// More places go to the most urgent.
	comes(8, "topic", "hotfix")
	comes(9, "topic")
	r.App.Reload(orderRules(t, "3", main), router.RulesVersion{})
	r.await(8, in(router.Dispatched))
	r.await(2, in(router.Dispatched))
	synctest.Wait()
	held(7, 9)
	if n := nomad.count(); n != 7 {
		t.Errorf("Nomad was asked for %d jobs, want 7: each that got a place", n)
	}
}

// Rules that have no limit any longer let all go on, and those that deny a job end its wait.
func TestHeldJobsAreDecidedByNewRules(t *testing.T) {
	bubble(t, testHeldJobsAreDecidedByNewRules)
}
func testHeldJobsAreDecidedByNewRules(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) { c.Rules = orderRules(t, "1", "1") })
	for id := int64(1); id <= 3; id++ {
		d := delivery(id, "queued", "self-hosted")
		d.Job.Branch = map[bool]string{true: "bad"}[id == 3]
		r.deliver(d)
		r.await(id, startedOrHeld)
	}
	set, err := rules.Parse("rules.yaml", []byte("version: 1\nrules: [{ name: bad, if: 'job.branch == \"bad\"', deny: no }, { name: linux, jobspec: docker-linux }]\n"))
	must(t, err)
	r.App.Reload(set, router.RulesVersion{})
	r.await(2, in(router.Dispatched))
	r.await(3, in(router.Denied))
}
