package server_test

import (
	"context"
	"database/sql"
	"net/http"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/server"
)

// While nothing happens, the database is not written, however often somebody asks whether all
// is well: jobs run, and their runners live.
func TestAnIdleServerWritesNothing(t *testing.T) { bubble(t, testAnIdleServerWritesNothing) }

func testAnIdleServerWritesNothing(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start()
	for range 10 {
		w.Await(w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Hour}), in(router.Running))
	}
	time.Sleep(5 * time.Minute)

	db, err := sql.Open("sqlite", w.Database)
	must(t, err)
	defer db.Close()
	conn, err := db.Conn(t.Context())
	must(t, err)
	defer conn.Close()
	version := func() (v int) { // differs when another connection has changed something
		t.Helper()
		must(t, conn.QueryRowContext(t.Context(), "PRAGMA data_version").Scan(&v))
		return v
	}
	before := version()
	for range 12 {
		readyz(t, w.App, "all is well", func(code int, r server.Readiness) bool { return code == http.StatusOK && r.Status == "ok" })
		time.Sleep(5 * time.Second)
	}
	if version() != before {
		t.Error("something was written in a minute")
	}
	if live, err := w.Store.LiveRunners(t.Context()); err != nil || live[router.RunnerBusy] != 10 {
		t.Errorf("runners that live: %v, %v; want 10 with a job", live, err)
	}
	must(t, w.Store.SetMark(context.Background(), "x", "y"))
	if version() == before {
		t.Error("what is written does not show")
	}
}
