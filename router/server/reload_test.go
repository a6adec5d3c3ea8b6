package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/rules"
)

// namedRules is a set of one rule, named as its jobspec, with a runner group.
func namedRules(t *testing.T, name string, group int) *rules.Set {
	t.Helper()
	set, err := rules.Parse(name+".yaml", fmt.Appendf(nil, `
version: 1
labels: { self-hosted: {}, linux: {} }
rules:
  - { name: %s, if: has("linux"), jobspec: %s, runner: { scope: organization, group: %d } }
`, name, name, group))
	must(t, err)
	return set
}

func TestAJobInHandKeepsItsDecision(t *testing.T) { bubble(t, testAJobInHandKeepsItsDecision) }
func testAJobInHandKeepsItsDecision(t *testing.T) {
	var r *running
	nomad := &cluster{within: func(req router.StartRequest) {
		if req.Job.ID != 1 {
			return
		}
		r.App.Reload(namedRules(t, "new", 9), router.RulesVersion{Hash: "new"})
		// The claim overtakes the record of the registration.
		if status, body := r.Claim(req.ClaimToken); status != http.StatusOK || body == "" {
			t.Errorf("claim = %d %q, want 200 and a configuration", status, body)
		}
	}}
	r = start(t, openStore(t), nomad, &hub{})
	r.deliver(delivery(1, "queued", "self-hosted", "linux"))
	if j := r.await(1, in(router.Dispatched)); j.Decision.Rule != "linux" {
		t.Errorf("the job in hand was decided by rule %q, want the old one", j.Decision.Rule)
	}
	if asks := r.hub.asked(); len(asks) != 1 || asks[0].Runner.Group != "7" {
		t.Errorf("GitHub was asked for %+v, want one runner in the old rule's group 7", asks)
	}
	r.deliver(delivery(2, "queued", "self-hosted", "linux"))
	if j := r.await(2, in(router.Dispatched)); j.Decision.Rule != "new" {
		t.Errorf("the next job was decided by rule %q, want the new one", j.Decision.Rule)
	}
}

func TestAJobWhoseRunIsLookedUpKeepsItsRules(t *testing.T) {
	bubble(t, testAJobWhoseRunIsLookedUpKeepsItsRules)
}
func testAJobWhoseRunIsLookedUpKeepsItsRules(t *testing.T) {
	var r *running
	h := &hub{run: func(n int, id int64) (rules.Run, error) {
		r.App.Reload(namedRules(t, "new", 9), router.RulesVersion{})
		return forks(n, id)
	}}
	r = start(t, openStore(t), &cluster{}, h, forkRules(t))
	r.deliver(ofRun(delivery(1, "queued", "self-hosted", "linux"), 8))
	if j := r.await(1, func(j router.Job) bool { return j.Decision != nil }); j.Decision.Rule != "no-forks" {
		t.Errorf("the job was decided by rule %q, want that of the rules that asked for its run", j.Decision.Rule)
	}
}

// Each job is decided by one set as a whole, and each status is of one set.
func TestReloadsUnderLoadAreAtomic(t *testing.T) {
	const jobs = 100
	r := start(t, openStore(t), &cluster{}, &hub{})
	a, b := namedRules(t, "a", 1), namedRules(t, "b", 2)
	r.App.Reload(a, router.RulesVersion{Hash: "a", Files: []string{"a"}})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	until := func(f func()) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f()
					time.Sleep(100 * time.Microsecond) // there is something to reload for
				}
			}
		})
	}
	until(func() {
		r.App.Reload(b, router.RulesVersion{Hash: "b", Files: []string{"b"}})
		r.App.RefuseRules(router.RefusedRules{Hash: "b refused"})
		r.App.Reload(a, router.RulesVersion{Hash: "a", Files: []string{"a"}})
		r.App.RefuseRules(router.RefusedRules{Hash: "a refused"})
	})
	until(func() {
		s := r.App.RulesStatus()
		if s.Files[0] != s.Hash || s.Error != nil && s.Error.Hash != s.Hash+" refused" {
			t.Errorf("a status of two versions: %+v with error %+v", s, s.Error)
		}
	})
	for id := int64(1); id <= jobs; id++ {
		r.deliver(delivery(id, "queued", "self-hosted", "linux"))
	}
	for id := int64(1); id <= jobs; id++ {
		j := r.await(id, in(router.Dispatched))
		asked, _ := r.nomad.job(j.RunnerID())
		d := j.Decision
		if asked.Rule != d.Rule || asked.Placement.Jobspec != d.Rule || d.Runner.Group != map[string]rules.RunnerGroup{"a": "1", "b": "2"}[d.Rule] {
			t.Errorf("job %d: rule %q on Nomad with jobspec %q, and %q in group %s in the database; want all of one set",
				id, asked.Rule, asked.Placement.Jobspec, d.Rule, d.Runner.Group)
		}
	}
	close(stop)
	wg.Wait()
}

func TestTheAdminListenerSaysWhichRulesAreInForce(t *testing.T) {
	bubble(t, testTheAdminListenerSaysWhichRulesAreInForce)
}
func testTheAdminListenerSaysWhichRulesAreInForce(t *testing.T) {
	var mu sync.Mutex
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	pass := func(d time.Duration) time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
		return now
	}
	began := now
	r := start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) {
		c.Now = func() time.Time { return pass(0) }
		c.RulesVersion = router.RulesVersion{Hash: "h1", Files: []string{"rules.yaml"}}
	})
	get := func(path string) string {
		t.Helper()
		resp, err := httpClient.Get("http://" + r.App.AdminAddr() + path)
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("GET %s = %d, %v: %s", path, resp.StatusCode, err, body)
		}
		return string(body)
	}
	check := func(want router.RulesStatus, metrics ...string) {
		t.Helper()
		var ready struct{ Rules router.RulesStatus }
		var alone router.RulesStatus
		must(t, json.Unmarshal([]byte(get("/readyz")), &ready))
		must(t, json.Unmarshal([]byte(get(router.RulesPath)), &alone))
		for path, got := range map[string]router.RulesStatus{"/readyz": ready.Rules, router.RulesPath: alone} {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
		text := get("/metrics")
		for _, line := range metrics {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("/metrics lacks %s:\n%s", line, text)
			}
		}
	}

	status := router.RulesStatus{Rules: 2, RulesVersion: router.RulesVersion{
		Hash: "h1", LoadedAt: began, Origin: "start", Files: []string{"rules.yaml"}, Changes: []string{},
	}}
	check(status,
		`switchyard_rules_info{hash="h1"} 1`, `switchyard_rules_loaded_timestamp_seconds 1.7955216e+09`,
		`switchyard_rules_reloads_total{result="ok"} 0`, `switchyard_rules_reloads_total{result="refused"} 0`,
		`switchyard_rules_reload_failed 0`)

	since := pass(time.Minute)
	r.App.RefuseRules(router.RefusedRules{Hash: "h2", Origin: "file changed", Reason: "it is bad"})
	pass(time.Minute)
	faults := rules.Diagnostics{{File: "rules.yaml", Line: 3, Column: 5, Message: "worse"}}
	r.App.RefuseRules(router.RefusedRules{Hash: "h3", Origin: "SIGHUP", Reason: "1 fault", Diagnostics: faults})
	status.Error = &router.RefusedRules{Hash: "h3", Origin: "SIGHUP", Since: since, Reason: "1 fault", Diagnostics: faults}
	check(status, `switchyard_rules_info{hash="h1"} 1`, `switchyard_rules_reloads_total{result="refused"} 2`, `switchyard_rules_reload_failed 1`)

	r.App.KeepRules()
	status.Error = nil
	check(status, `switchyard_rules_reloads_total{result="refused"} 2`, `switchyard_rules_reload_failed 0`)

	r.App.RefuseRules(router.RefusedRules{Hash: "h2"})
	loaded := pass(time.Minute)
	r.App.Reload(namedRules(t, "new", 1), router.RulesVersion{Hash: "h4", Origin: "file changed", Files: []string{"new.yaml"}})
	check(router.RulesStatus{Rules: 1, RulesVersion: router.RulesVersion{
		Hash: "h4", LoadedAt: loaded, Origin: "file changed", Files: []string{"new.yaml"}, Changes: []string{},
	}}, `switchyard_rules_info{hash="h4"} 1`, `switchyard_rules_reloads_total{result="ok"} 1`, `switchyard_rules_reload_failed 0`)
	if text := get("/metrics"); strings.Contains(text, "h1") {
		t.Errorf("/metrics still names the old rules:\n%s", text)
	}
}
