package server_test

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/routertest"
	"switchyard/router/server"
	"switchyard/rules"
)

// While GitHub takes no registrations, Nomad is asked for no runner; then the
// jobs come one after the other, and keep the places that they have.
func TestNoRunnerStartsThatGitHubWouldNotTake(t *testing.T) {
	bubble(t, testNoRunnerStartsThatGitHubWouldNotTake)
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
	if j := r.await(4, in(router.Held)); !strings.Contains(j.Reason, "runs at most 3 jobs at a time") {
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

// Whoever asks for /readyz may know of no single job: which repository it is of, what it asks
// for, or what is said of it; nor who changed the rules.
func TestReadinessNamesNoRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nomad := &cluster{fail: func(int) error { return errors.New("connection refused by acme") }}
		r := start(t, openStore(t), nomad, &hub{}, func(c *server.Config) { c.Tick = time.Second })
		r.App.Reload(routertest.Parse(t, testRules), router.RulesVersion{Origin: "applied", Who: "ada", Changes: []string{"rules.yaml: line 9: `acme`"}})
		r.deliver(delivery(1, "queued", "self-hosted", "linux"))
		r.deliver(delivery(2, "queued", "self-hosted", "linx"))
		r.await(1, in(router.Retrying))
		r.await(2, in(router.Unroutable))
		time.Sleep(time.Minute)
		if list := r.App.Status(nil).Troubles; !has(list, router.CauseNomad) || !has(list, router.CauseUnroutable) {
			t.Fatalf("the troubles are %s", shown(list))
		}
		resp, err := httpClient.Get("http://" + r.App.AdminAddr() + "/readyz")
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		if text := string(body); !strings.Contains(text, `"nomad"`) || !strings.Contains(text, `"unroutable"`) {
			t.Errorf("it does not say what is wrong: %s", text)
		}
		for _, name := range []string{"acme", "web", "linx", "build", "ada"} {
			if strings.Contains(string(body), name) {
				t.Errorf("it names %s: %s", name, body)
			}
		}
	})
}
