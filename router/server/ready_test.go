package server_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/rules"
)

// While GitHub takes no registrations, Nomad is asked for no runner; then the
// jobs come one after the other, and keep the places that they have.
func TestNoRunnerStartsThatGitHubWouldNotTake(t *testing.T) {
	synctest.Test(t, testNoRunnerStartsThatGitHubWouldNotTake)
}
func testNoRunnerStartsThatGitHubWouldNotTake(t *testing.T) {
	set, err := rules.Parse("rules.yaml", []byte("version: 1\nlabels: { self-hosted: {}, linux: {} }\nrules: [{ name: linux, jobspec: docker-linux, limit: { running: 3 }, runner: { scope: organization } }]\n"))
	must(t, err)
	var mu sync.Mutex
	var ahead time.Duration
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(ahead) }
	until := time.Now().Add(time.Hour)
	h := &hub{ready: func(to router.Target) error {
		if to != (router.Target{Owner: "acme"}) {
			t.Errorf("asked about %+v", to)
		}
		if clock().Before(until) {
			return &router.RetryAtError{At: until, Err: errors.New("a limit is reached")}
		}
		return nil
	}}
	r := start(t, openStore(t), &cluster{}, h, func(c *server.Config) { c.Rules, c.Now = set, clock })
	var due []time.Time
	for id := int64(1); id <= 3; id++ {
		r.deliver(delivery(id, "queued", "self-hosted", "linux"))
		j := r.await(id, in(router.Retrying))
		if !strings.Contains(j.Reason, "GitHub accepts no runner for it at the moment: a limit is reached") || j.Try != 1 || j.Decision == nil {
			t.Errorf("job %d has the reason %q, try %d, decision %v", id, j.Reason, j.Try, j.Decision)
		}
		due = append(due, j.DueAt)
	}
	r.deliver(delivery(4, "queued", "self-hosted", "linux"))
	if j := r.await(4, in(router.Held)); !strings.Contains(j.Reason, "at most 3 per rule, and 3") {
		t.Errorf("job 4: %q", j.Reason)
	}
	for i, at := range due {
		if at.Before(until.Truncate(time.Millisecond)) || i > 0 && at.Sub(due[i-1]) < 300*time.Millisecond {
			t.Errorf("they come back at %v, want one after the other from %v on", due, until)
		}
	}
	if n := r.nomad.count(); n != 0 {
		t.Errorf("Nomad has %d jobs, want none yet", n)
	}
	mu.Lock()
	ahead = time.Hour + time.Minute
	mu.Unlock()
	for id := int64(1); id <= 3; id++ {
		r.await(id, in(router.Dispatched))
	}
}
