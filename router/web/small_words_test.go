package web_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/api"
)

// A runner that Nomad has not taken, as while it is away, is not called dispatched.
func TestARunnerThatNomadHasNotTakenIsNotDispatched(t *testing.T) {
	s := serve(t, func(c *web.Config) {
		st := c.Database.(placeless)
		r := router.Runner{ID: "gha-3-1", JobID: 3, Try: 1, State: router.RunnerDispatched, Name: "gha-3-1"}
		must(t, st.Prepare(t.Context(), r, [32]byte{3}, t0.Add(6*time.Hour)))
		must(t, st.Retry(t.Context(), 3, t0.Add(8*time.Hour), router.CauseNomad, "Nomad could not take the job yet: no", nil, t0.Add(7*time.Hour)))
	})
	const registering, dispatched = `<span class="state is-dispatched">registering</span>`, `<span class="state is-dispatched">dispatched</span>`
	s.wantText("/jobs/3", http.StatusOK, registering)
	s.wantText("/jobs/1", http.StatusOK, dispatched)
	s.wantText("/runners", http.StatusOK, registering, dispatched)
}

// One job is no half of one.
func TestTheQueueTimeOfOneJob(t *testing.T) {
	for jobs, want := range map[int]string{1: "<small>of the one job that started</small>", 0: "<small>no job started</small>", 3: "median of 3 jobs"} {
		c := history(t, 1)
		c.Database = started{c.Database, jobs}
		if body := getPage(t, web.Handler(c), "/").Body.String(); strings.Count(body, want) != 2 {
			t.Errorf("Now after %d jobs has no %q:\n%s", jobs, want, body)
		}
	}
}

// started is a database in which so many jobs started within the hour.
type started struct {
	api.Database
	jobs int
}

func (s started) Starts(context.Context, router.Scope, time.Time) (all []router.Start, err error) {
	for range s.jobs {
		all = append(all, router.Start{At: time.Now(), Waited: 979 * time.Millisecond})
	}
	return all, nil
}
