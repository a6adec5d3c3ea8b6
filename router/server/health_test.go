package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/router/telemetry"
	"switchyard/rules"
)

// readyz asks until the answer is as ok wants it.
func readyz(t *testing.T, app *server.App, what string, ok func(code int, r server.Readiness) bool) server.Readiness {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := httpClient.Get("http://" + app.AdminAddr() + "/readyz")
		must(t, err)
		var r server.Readiness
		err = json.NewDecoder(resp.Body).Decode(&r)
		resp.Body.Close()
		must(t, err)
		if ok(resp.StatusCode, r) {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s; /readyz is %d %+v", what, resp.StatusCode, r)
		}
	}
}

// is returns the check of a name.
func is(t *testing.T, r server.Readiness, name string) server.Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no check %s: %+v", name, r.Checks)
	return server.Check{}
}

// full is a store whose disk is full, that does not answer, or whose file is gone.
type full struct {
	Store
	disk, mute, gone atomic.Bool
}

func (f *full) SetMark(ctx context.Context, name, value string) error {
	if f.disk.Load() {
		return errors.New("database or disk is full (13)")
	}
	return f.Store.SetMark(ctx, name, value)
}

func (f *full) Writable(ctx context.Context) error {
	if f.disk.Load() {
		return errors.New("database or disk is full (13)")
	}
	if f.gone.Load() {
		return fmt.Errorf("write a mark: %w", &router.FixError{Fix: "restart Switchyard", Err: errors.New("the database file x.db was removed")})
	}
	return f.Store.Writable(ctx)
}

func (f *full) Receive(ctx context.Context, d router.Delivery) (bool, error) {
	if f.disk.Load() {
		return false, errors.New("database or disk is full (13)")
	}
	return f.Store.Receive(ctx, d)
}

func (f *full) Counts(ctx context.Context) (map[router.JobState]int, error) {
	if f.mute.Load() {
		return nil, errors.New("disk I/O error")
	}
	return f.Store.Counts(ctx)
}

func TestOnlyTheStoreMakesARouterNotReady(t *testing.T) {
	bubble(t, testOnlyTheStoreMakesARouterNotReady)
}
func testOnlyTheStoreMakesARouterNotReady(t *testing.T) {
	f := &full{Store: openStore(t)}
	count := telemetry.NewMetrics()
	r := start(t, f, &cluster{}, &hub{}, func(c *server.Config) { c.Metrics = count })
	fine := func(code int, r server.Readiness) bool { return code == http.StatusOK && r.Status == "ok" }
	readyz(t, r.App, "all is well", fine)

	for what, flag := range map[string]*atomic.Bool{"disk is full": &f.disk, "does not answer": &f.mute, "the database failed: the database file x.db was removed: restart Switchyard": &f.gone} {
		flag.Store(true)
		got := readyz(t, r.App, what, func(code int, r server.Readiness) bool { return code == http.StatusServiceUnavailable })
		if c := is(t, got, "store"); got.Status != "not ready" || c.Status != "failed" || !strings.Contains(c.Reason, what) || c.Since.IsZero() || got.Reason != c.Reason {
			t.Errorf("%s: %+v", what, got)
		}
		flag.Store(false)
		readyz(t, r.App, "it is well again", fine)
	}

	// What all replicas would suffer together is told, and no more.
	for _, bad := range []struct {
		check  string
		status int
		called func(string, int, time.Duration)
		says   string
	}{
		{"nomad", 0, count.Nomad.Called, "Nomad cannot be reached"},
		{"nomad", 403, count.Nomad.Called, "Nomad does not permit (403): read job"},
		{"github", 401, count.GitHub.Called, "GitHub refuses the login"},
		{"github", 503, count.GitHub.Called, "GitHub answers 503"},
	} {
		bad.called("read job", bad.status, time.Millisecond)
		got := readyz(t, r.App, bad.says, func(code int, r server.Readiness) bool { return r.Status == "degraded" && code == http.StatusOK })
		if c := is(t, got, bad.check); c.Status != "warning" || !strings.Contains(c.Reason, bad.says) || c.Since.IsZero() {
			t.Errorf("%s: %+v", bad.says, c)
		}
		bad.called("read job", 200, time.Millisecond)
		readyz(t, r.App, "it is well again", fine)
	}
	count.Nomad.Called("register job", 500, time.Millisecond) // a job that Nomad refuses
	r.App.RefuseRules(router.RefusedRules{Reason: "rules.yaml:1:1: no"})
	got := readyz(t, r.App, "the rules are refused", func(code int, r server.Readiness) bool { return r.Status == "degraded" && code == http.StatusOK })
	if c := is(t, got, "rules"); c.Status != "warning" || !strings.Contains(c.Reason, "rules.yaml:1:1") {
		t.Errorf("the rules are %+v", c)
	}
	if c := is(t, got, "nomad"); c.Status != "ok" {
		t.Errorf("a job that Nomad refuses makes it %+v", c)
	}
}

// unhurried is a GitHub whose repositories take their time.
type unhurried struct {
	*hub
	gate chan struct{}
}

func (s unhurried) Repositories(ctx context.Context, each func(rules.Repo) error) error {
	select {
	case <-s.gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestAFirstLookIsToldOf(t *testing.T) { bubble(t, testAFirstLookIsToldOf) }
func testAFirstLookIsToldOf(t *testing.T) {
	h := unhurried{&hub{}, make(chan struct{})}
	r := start(t, openStore(t), &cluster{}, h.hub, func(c *server.Config) { c.GitHub = h })
	got := readyz(t, r.App, "the first sync", func(code int, r server.Readiness) bool { return code == http.StatusOK && r.Status == "degraded" })
	if c := is(t, got, "first_look"); c.Status != "warning" {
		t.Errorf("the first sync is %+v", c)
	}
	close(h.gate)
	readyz(t, r.App, "its end", func(_ int, r server.Readiness) bool { return r.Status == "ok" })
}

func TestANomadWithoutALeaderIsToldOf(t *testing.T) {
	bubble(t, testANomadWithoutALeaderIsToldOf)
}
func testANomadWithoutALeaderIsToldOf(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start(quick)
	readyz(t, w.App, "all is well", func(_ int, r server.Readiness) bool { return r.Status == "ok" })
	w.Nomad.SetFault(nomadsim.NoLeader, 0)
	got := readyz(t, w.App, "Nomad has no leader", func(code int, r server.Readiness) bool { return code == http.StatusOK && r.Status == "degraded" })
	if c := is(t, got, "nomad"); !strings.HasPrefix(c.Reason, "Nomad answers 500: ") { // what is asked first is not certain
		t.Errorf("Nomad is %+v", c)
	}
	w.Nomad.SetFault(nomadsim.Healthy, 0)
	readyz(t, w.App, "all is well again", func(_ int, r server.Readiness) bool { return r.Status == "ok" })
}
