package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/server"
)

// A Nomad that takes jobs and evaluates none does not say so: runner, job and
// /readyz do.
func TestAPausedEvaluationBrokerIsToldOf(t *testing.T) {
	bubble(t, testAPausedEvaluationBrokerIsToldOf)
}
func testAPausedEvaluationBrokerIsToldOf(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start(slowly)
	pause := func(on bool) {
		t.Helper()
		if _, _, err := w.API.Operator().SchedulerSetConfiguration(&api.SchedulerConfiguration{PauseEvalBroker: on}, nil); err != nil {
			t.Fatal(err)
		}
	}
	pause(true)
	began := time.Now()
	id := w.Queue("self-hosted", "linux")
	j := w.Await(id, func(j router.Job) bool { return strings.Contains(j.Reason, "has not evaluated") })
	if took := time.Since(began); took < 30*time.Second || took > 45*time.Second || j.State != router.Dispatched {
		t.Errorf("after %v it is %s", took, j.State)
	}
	if !strings.Contains(j.Reason, "Nomad has not evaluated it for 30s: its evaluation broker is paused") || !strings.HasPrefix(w.Runners(id)[0].Reason, "Nomad has not evaluated") {
		t.Errorf("the job says %q, its runner %q", j.Reason, w.Runners(id)[0].Reason)
	}
	got := readyz(t, w.App, "nothing is evaluated", func(code int, r server.Readiness) bool { return r.Status == "degraded" && code == http.StatusOK })
	if c := is(t, got, "nomad"); !strings.Contains(c.Reason, "does not evaluate them") {
		t.Errorf("/readyz says %+v", c)
	}
	shows(t, w.App, `switchyard_jobs_waiting{reason="placing",rule="linux"} 1`) // and not that nodes are busy
	time.Sleep(5 * time.Minute)
	if line, err := w.Store.Timeline(t.Context(), id); err != nil || len(line) > 14 {
		t.Errorf("the timeline has %d events, %v", len(line), err)
	}
	pause(false)
	w.Await(id, in(router.Completed))
	readyz(t, w.App, "all is well again", func(_ int, r server.Readiness) bool { return r.Status == "ok" })
}
