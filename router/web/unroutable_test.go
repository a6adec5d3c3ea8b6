package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/web"
)

// mended is an app whose rules serve gpu by now, and not gpus.
type mended struct{ *app }

func (mended) Status(router.Scope) router.Status {
	return router.Status{Status: "ok", At: t0, Troubles: []router.Trouble{{Cause: router.CauseUnroutable, Severity: router.Info, Since: t0, What: "jobs: nothing serves what they ask for", Jobs: 4}}}
}

func (mended) Explain(j router.Job) router.Decision {
	if slices.Contains(j.Labels, "gpu") {
		return router.Decision{Outcome: "routed", Rule: "gpu"}
	}
	return router.Decision{Outcome: "unroutable"}
}

// unserved makes jobs 11 and 12 of acme/ml for gpu, 13 of it for gpus, 14 of acme/web for gpu, and 15 that was unroutable two days ago.
func unserved(t *testing.T, c *web.Config) {
	st := c.Database.(placeless).Store
	for id, job := range map[int64]struct {
		repo, label string
		ago         time.Duration
	}{11: {"ml", "gpu", time.Hour}, 12: {"ml", "gpu", time.Minute}, 13: {"ml", "<b>gpus", time.Minute}, 14: {"web", "gpu", time.Minute}, 15: {"ml", "gpu", 48 * time.Hour}} {
		settleUnroutable(t, st, id, job.repo, job.label, t0.Add(-job.ago))
	}
	c.Now = func() time.Time { return t0 }
}

func settleUnroutable(t *testing.T, st *store.Store, id int64, repo, label string, at time.Time) {
	t.Helper()
	_, err := st.Receive(t.Context(), router.Delivery{ID: fmt.Sprint("u", id), Action: "queued", Status: "queued", ReceivedAt: at, Job: router.Job{
		ID: id, RunID: 7, Attempt: 1, Name: "build", Labels: []string{"linux", label}, Repo: router.Repo{Owner: "acme", Name: repo, FullName: "acme/" + repo, Private: true},
	}})
	must(t, err)
	reason := "no rule takes it: " + strings.Repeat("long ", 100) + "end"
	must(t, st.Settle(t.Context(), id, router.Unroutable, "", reason, &router.Decision{Outcome: "unroutable", Reason: reason}, at))
}

func TestUnroutableJobsAreShownByRepositoryAndLabels(t *testing.T) {
	var c web.Config
	s := serve(t, func(served *web.Config) {
		served.App = mended{&app{}}
		unserved(t, served)
		c = *served
	})
	body := s.get("/", http.StatusOK)
	for want, times := range map[string]int{
		`<bdi>acme/ml</bdi>: <a href="/jobs/12">2 jobs</a> <span class="soft nowrap">for 1 h</span>`: 1,
		`<bdi>acme/ml</bdi>: <a href="/jobs/13">1 job</a>`:                                           1,
		`<bdi>acme/web</bdi>: <a href="/jobs/14">1 job</a>`:                                          1,
		`the rules in force would route it now`:                                                      2,
		`<input type="hidden" name="like" value="12">`:                                               1,
		`>Retry all that the rules in force would route</button>`:                                    1,
		`&lt;b&gt;gpus`: 1, "long end</div>": 3, "<b>gpus": 0, `/jobs/15"`: 0,
	} {
		if n := strings.Count(body, want); n != times {
			t.Errorf("Now has %q %d times, want %d: %s", want, n, times, body)
		}
	}
	if body := web.PageFor(c, "/", router.Scope{"acme/web"}); strings.Contains(body, "acme/ml") || strings.Contains(body, "/unroutable/retry") || !strings.Contains(body, `/jobs/14"`) {
		t.Errorf("a viewer of acme/web sees: %s", body)
	}
}

// crowded is a database with unroutable jobs, the highest ID first.
type crowded struct {
	placeless
	jobs []router.Job
}

func (b crowded) FindJobs(_ context.Context, f router.JobFilter) (found []router.Job, err error) {
	for _, j := range b.jobs {
		if (f.Before == 0 || j.ID < f.Before) && len(found) < f.Limit {
			found = append(found, j)
		}
	}
	return found, nil
}

// All IDs of one GitHub are higher than those of another.
func TestManyUnroutableJobsHideNoneOfAnotherGitHub(t *testing.T) {
	s := serve(t, func(c *web.Config) {
		var jobs []router.Job
		for i := range int64(1000) {
			in, at, repo := router.Instance{Number: 2}, t0.Add(-time.Hour), fmt.Sprint("many", i%50)
			switch {
			case i == 999:
				in, at, repo = router.Instance{}, t0.Add(-time.Minute), "first"
			case i >= 600:
				in, at, repo = router.Instance{Number: 1}, t0.Add(-2*time.Minute), "second"
			}
			jobs = append(jobs, router.Job{
				ID: in.ID(1000 - i), State: router.Unroutable, ReceivedAt: at, UpdatedAt: at, Labels: []string{"gpu"}, Repo: router.Repo{Owner: "acme", Name: repo, FullName: "acme/" + repo},
			})
		}
		c.App, c.Database, c.Now = mended{&app{}}, crowded{c.Database.(placeless), jobs}, func() time.Time { return t0 }
	})
	body := s.get("/", http.StatusOK)
	first, second := strings.Index(body, `<bdi>acme/first</bdi>: <a href="/jobs/1">1 job</a>`), strings.Index(body, `<bdi>acme/second</bdi>: <a href="/jobs/281474976711056">199 jobs</a>`)
	if first < 0 || second < first {
		t.Errorf("the newest groups, of the first and the second GitHub, are at %d and %d: %s", first, second, body)
	}
}

func TestUnroutableJobsAreRetriedTogether(t *testing.T) {
	a := &app{}
	var trail *store.Store
	s := serve(t, func(served *web.Config) {
		served.App = mended{a}
		unserved(t, served)
		trail = served.Database.(placeless).Store
		served.Audit = trail
	})
	for _, tt := range []struct {
		form   url.Values
		status int
		want   []string
	}{
		{nil, http.StatusSeeOther, []string{"retry 14", "retry 12", "retry 11"}},
		{url.Values{"like": {"11"}}, http.StatusSeeOther, []string{"retry 12", "retry 11"}},
		{url.Values{"like": {"13"}}, http.StatusSeeOther, []string{"retry 13"}},
		{url.Values{"like": {"3"}}, http.StatusConflict, nil}, // it is not unroutable
		{url.Values{"like": {"99"}}, http.StatusNotFound, nil},
		{url.Values{"like": {"x"}}, http.StatusBadRequest, nil},
	} {
		a.did = nil
		s.submit("/unroutable/retry", tt.form, tt.status)
		if diff := cmp.Diff(tt.want, a.did); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.form, diff)
		}
	}
	audits, err := trail.Audits(t.Context(), 0, 100)
	must(t, err)
	var kept []string
	for _, at := range audits {
		kept = append(kept, strings.Join([]string{at.Did, at.What, at.Result}, ", "))
	}
	for _, want := range []string{
		"retry, unroutable jobs: those that the rules in force would route; 3 jobs retried, ok", "retry, unroutable jobs: those like jobs/11 of acme/ml; 2 jobs retried, ok",
	} {
		if !slices.Contains(kept, want) {
			t.Errorf("the audit trail has no %q: %q", want, kept)
		}
	}
	a.did, a.fail = nil, &router.ConflictError{Reason: "it has changed"}
	s.submit("/unroutable/retry", nil, http.StatusConflict)
	if len(a.did) != 3 {
		t.Errorf("one that has changed keeps others from a retry: %v", a.did)
	}
}

func TestNowCountsTheJobsOfRepositories(t *testing.T) {
	var c web.Config
	s := serve(t, func(served *web.Config) {
		served.Now = func() time.Time { return t0.Add(7 * time.Hour) }
		c = *served
	})
	want := `<bdi>acme/web</bdi></a></td><td data-name="Waiting" class="n">3</td><td data-name="Placing" class="n">1</td><td data-name="Starting" class="n">0</td>` +
		`<td data-name="Running" class="n">0</td><td data-name="Longest wait" class="n">6 h</td>`
	s.wantText("/", http.StatusOK, "<h2>By repository</h2>", want)
	if body := web.PageFor(c, "/", router.Scope{"beta/*"}); strings.Contains(body, "acme/web") {
		t.Errorf("somebody else sees acme/web: %s", body)
	}
}
