package web_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/rules"
)

// Jobs 3 to 5 of the server: one has the only place, and two wait for it.
func queue(t *testing.T, ran int) *server {
	return serve(t, func(c *web.Config) {
		st := c.Database.(placeless).Store
		c.Now, c.App = func() time.Time { return t0.Add(time.Hour) }, busyApp{c.App.(*app)}
		for id := int64(1); id <= int64(ran); id++ {
			d := &router.Decision{Outcome: rules.Routed, Rule: "busy", Reason: "it holds"}
			r := router.Runner{ID: "r" + strings.Repeat("x", int(id)), JobID: 100 + id, Try: 1, NomadJob: "n"}
			r.Name = r.ID
			j := router.Delivery{Action: "queued", Status: "queued", ReceivedAt: t0, Job: router.Job{ID: r.JobID, RunID: 9, Attempt: 1, Labels: []string{"linux"}, Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web"}}}
			ends := j
			ends.Action, ends.Status, ends.ReceivedAt = "completed", "completed", t0.Add(10*time.Minute)
			begins := j
			begins.Action, begins.Status, begins.ReceivedAt = "in_progress", "in_progress", t0.Add(time.Minute)
			for _, err := range []error{
				errOf(st.Receive(t.Context(), j)), st.Prepare(t.Context(), r, [32]byte{byte(id)}, t0), st.Dispatched(t.Context(), r, [32]byte{byte(id)}, d, t0),
				errOf(st.Receive(t.Context(), begins)), errOf(st.Receive(t.Context(), ends)),
			} {
				must(t, err)
			}
		}
		for id := int64(3); id <= 5; id++ {
			d := &router.Decision{Outcome: rules.Routed, Rule: "busy", Reason: "it holds", Urgency: int(id-3) * 20, Limit: &router.Limit{Running: 1, Per: "rule", Key: "busy", Order: rules.Priority}}
			must(t, errOf(st.Admit(t.Context(), id, d, t0)))
		}
	})
}

// busyApp has rules in force by which all jobs have that limit.
type busyApp struct{ *app }

func (busyApp) Rules() *rules.Set {
	set, err := rules.Parse("rules.yaml", []byte("version: 1\nscope: 'true'\nlabels: { linux: {}, self-hosted: {}, 'cpu=*': {} }\nrules: [{ name: busy, jobspec: docker-linux, limit: { running: 1, order: priority }, urgency: 100 }]\n"))
	if err != nil {
		panic(err)
	}
	return set
}

func errOf[T any](_ T, err error) error { return err }

func TestAJobThatWaitsForAPlaceSaysWhichAndWhenItStarts(t *testing.T) {
	s := queue(t, router.EstimateJobs)
	got := decode[api.JobDetail](t, s.call("GET", "/jobs/4", http.StatusOK)).Queue
	if got == nil || got.Limit != "busy" || got.Order != rules.Priority || got.Urgency != 20 || got.Taken != 1 || got.Waiting != 2 || got.Place != 2 ||
		got.NoEstimate != "" || got.Estimate == nil || got.Estimate.Jobs != router.EstimateJobs || !got.Estimate.Likely.Equal(t0.Add(81*time.Minute)) {
		t.Errorf("job 4 stands at %+v, %+v", got, got.Estimate)
	}
	if q := decode[api.JobDetail](t, s.call("GET", "/jobs/3", http.StatusOK)).Queue; q != nil {
		t.Errorf("a job that has a place waits at %+v", q)
	}
	s.wantText("/jobs/4", http.StatusOK, "Queue: place 2 of 2 that wait under the limit busy, with urgency 20; 1 of 1 places are taken.",
		"Starts: in about 21m, and in 8 of 10 cases in 21m to 21m, as the last 20 jobs of its rule ran; later if others come that go before it.")

	explain := func(body string) *api.Queue {
		return decode[api.Answer](t, s.call("POST", "/explain", http.StatusOK, sends(body))).Queue
	}
	got = explain(`{"repo": "acme/web", "labels": ["linux"], "queue": true}`)
	if got == nil || got.Urgency != rules.MaxUrgency || got.Waiting != 3 || got.Place != 1 || got.Estimate == nil || !got.Estimate.Likely.Equal(t0.Add(71*time.Minute)) {
		t.Errorf("a job that comes now would stand at %+v", got)
	}
	if got := explain(`{"job_id": 4, "queue": true}`); got == nil || got.Place != 2 || got.Waiting != 2 {
		t.Errorf("job 4 stands at %+v", got)
	}
	if got := explain(`{"repo": "acme/web", "labels": ["linux"]}`); got != nil {
		t.Errorf("nobody asked for %+v", got)
	}

	few := queue(t, 3)
	got = decode[api.JobDetail](t, few.call("GET", "/jobs/5", http.StatusOK)).Queue
	if got == nil || got.Place != 1 || got.Estimate != nil || got.NoEstimate != "only 3 jobs of rule busy ran here and ended, and 20 are needed" {
		t.Errorf("job 5 stands at %+v", got)
	}
}
