package web_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

var description = sync.OnceValues(func() (routers.Router, error) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(api.OpenAPI)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(loader.Context); err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
})

func TestEachDescribedCauseCanBeAskedFor(t *testing.T) {
	var described struct {
		Components struct {
			Schemas struct{ Cause struct{ Enum []router.Cause } }
		}
	}
	must(t, json.Unmarshal(api.OpenAPI, &described))
	if diff := cmp.Diff(described.Components.Schemas.Cause.Enum, append([]router.Cause{""}, router.Causes...)); diff != "" {
		t.Errorf("the causes of jobs (-described +known):\n%s", diff)
	}
}

// app is what the API has done, and to what.
type app struct {
	mu   sync.Mutex
	did  []string
	fail error

	explained atomic.Int32 // how often
}

func (a *app) do(what string, args ...any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.did = append(a.did, strings.TrimSpace(what+" "+fmt.Sprint(args...)))
	return a.fail
}

func (a *app) Status(router.Scope) router.Status {
	return router.Status{Status: "ok", At: t0, Troubles: []router.Trouble{}, Changes: []router.Changed{}, Proof: []router.Proof{}}
}

func (a *app) RulesStatus() router.RulesStatus {
	return router.RulesStatus{RulesVersion: router.RulesVersion{Hash: "abc", LoadedAt: t0, Origin: "start", Files: []string{"rules.yaml"}, Changes: []string{}}, Rules: 2}
}

func (a *app) Explain(router.Job) router.Decision {
	a.explained.Add(1)
	return router.Decision{Outcome: "routed", Rule: "linux", Reason: "it holds", Trace: []rules.Step{{Rule: "linux", Held: true, Why: "it holds"}}}
}

func (a *app) Stopping() <-chan struct{} { return nil }

func (a *app) Rules() *rules.Set { return someRules }

var someRules = func() *rules.Set {
	set, err := rules.Parse("rules.yaml", []byte(`version: 1
labels: { linux: {}, gpu: { devices: [{ name: nvidia/gpu, count: 1 }] } }
rules:
  - { name: forks, if: run.fork, deny: no forks }
  - { name: linux, if: has("linux"), jobspec: docker-linux }
  - { name: all, if: 'not repo.private', deny: no public repositories }
`))
	if err != nil {
		panic(err)
	}
	return set
}()

func (a *app) RetryJob(_ context.Context, id int64) error { return a.do("retry", id) }
func (a *app) CancelJob(_ context.Context, id int64, run bool) error {
	return a.do("cancel", id, " ", run)
}
func (a *app) Sync(_ context.Context, _, repo string) (router.SyncReport, error) {
	return router.SyncReport{Repo: repo, Changed: 3}, a.do("sync", repo)
}
func (a *app) StopRunner(_ context.Context, id string, force bool) error {
	return a.do("stop", id, " ", force)
}

// placeless is a database in which Nomad has no node for any runner.
type placeless struct{ *store.Store }

func (b placeless) Runners(ctx context.Context, jobID int64) ([]router.Runner, error) {
	runners, err := b.Store.Runners(ctx, jobID)
	for i := range runners {
		runners[i].Unplaced = &router.Unplaced{At: t0, Text: "no node has memory left", Pool: "ci", InPool: 3, Evaluated: 3,
			Exhausted: []router.Shortage{{What: "memory", From: "label large", Nodes: 3}}}
	}
	return runners, err
}

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A server is the API over a store with jobs 1 to 5: 1 is dispatched, 2 denied, the others queued.
type server struct {
	t       *testing.T
	handler http.Handler
	app     *app
	log     bytes.Buffer
}

func serve(t *testing.T, change ...func(*web.Config)) *server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	st := storetest.Open(t, path)
	t.Cleanup(func() { _ = st.Close() })
	for id := int64(1); id <= 5; id++ {
		d := router.Delivery{ID: fmt.Sprint(id), Action: "queued", Status: "queued", ReceivedAt: t0.Add(time.Duration(id) * time.Hour), Job: router.Job{
			ID: id, RunID: 7, Attempt: 1, Name: "build", Labels: []string{"linux"},
			Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true},
		}}
		if _, err := st.Receive(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	r := router.Runner{ID: "gha-1-1", JobID: 1, Try: 1, State: router.RunnerDispatched, Name: "gha-1-1", NomadJob: "gha-1-1"}
	d := &router.Decision{Outcome: "routed", Rule: "linux", Reason: "it holds"}
	err := errors.Join(
		st.Prepare(t.Context(), r, [32]byte{1}, t0.Add(6*time.Hour)),
		st.Dispatched(t.Context(), r, [32]byte{1}, d, t0.Add(6*time.Hour)),
		st.Settle(t.Context(), 2, router.Denied, "", "no", &router.Decision{Outcome: "denied", Rule: "no", Reason: "no"}, t0),
	)
	must(t, err)
	s := &server{t: t, app: &app{}}
	c := web.Config{App: s.app, Database: placeless{st}, Logger: slog.New(slog.NewTextHandler(&s.log, nil))}
	for _, f := range change {
		f(&c)
	}
	s.handler = web.Handler(c)
	return s
}

// call asks, holds the answer against the description, and wants this status.
func (s *server) call(method, path string, status int, change ...func(*http.Request)) []byte {
	s.t.Helper()
	req := httptest.NewRequest(method, "http://127.0.0.1:8081"+api.Prefix+path, nil)
	for _, f := range change {
		f(req)
	}
	sent, err := io.ReadAll(req.Body)
	must(s.t, err)
	req.Body = io.NopCloser(bytes.NewReader(sent))
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, req)
	if rec.Code != status {
		s.t.Errorf("%s %s = %d %s, want %d", method, path, rec.Code, rec.Body, status)
	}
	described, err := description()
	must(s.t, err)
	relative := req.Clone(req.Context())
	relative.URL.Host, relative.URL.Scheme = "", ""
	relative.Body = io.NopCloser(bytes.NewReader(sent))
	route, params, err := described.FindRoute(relative)
	if err != nil {
		if rec.Code < 400 {
			s.t.Errorf("%s %s is not described: %v", method, path, err)
		}
		return rec.Body.Bytes()
	}
	in := &openapi3filter.RequestValidationInput{Request: relative, PathParams: params, Route: route, Options: &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
	}}
	if err := openapi3filter.ValidateRequest(req.Context(), in); err != nil && status != http.StatusBadRequest {
		s.t.Errorf("%s %s: the request is not as described: %v", method, path, err)
	}
	err = openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: rec.Code, Header: rec.Header(), Body: io.NopCloser(bytes.NewReader(rec.Body.Bytes())), Options: in.Options,
	})
	if err != nil {
		s.t.Errorf("%s %s: the answer is not as described: %v", method, path, err)
	}
	return rec.Body.Bytes()
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Errorf("decode %s: %v", b, err)
	}
	return v
}

func ids(l api.JobList) (list []int64) {
	for _, j := range l.Jobs {
		list = append(list, j.ID)
	}
	return list
}

func TestJobsAreListedPageByPage(t *testing.T) {
	s := serve(t)
	for query, want := range map[string][]int64{
		"":                                   {5, 4, 3, 2, 1},
		"?state=queued":                      {5, 4, 3},
		"?state=dispatched,denied":           {2, 1},
		"?cause=placing,queued":              {5, 4, 3, 1},
		"?cause=queued&state=denied":         nil,
		"?repo=Acme/web&label=LINUX":         {5, 4, 3, 2, 1},
		"?repo=beta/web":                     nil,
		"?owner=acme&repo=web&rule=linux":    {1},
		"?since=2026-03-01T15:00:00Z":        {5, 4, 3},
		"?until=2026-03-01T14:00:00%2B0":     nil, // no time
		"?until=2026-03-01T15:00:00%2B01:00": {1},
	} {
		if strings.HasSuffix(query, "%2B0") {
			s.call("GET", "/jobs"+query, http.StatusBadRequest)
			continue
		}
		l := decode[api.JobList](t, s.call("GET", "/jobs"+query, http.StatusOK))
		if diff := cmp.Diff(want, ids(l)); diff != "" || l.NextCursor != "" {
			t.Errorf("GET /jobs%s, next %q (-want +got):\n%s", query, l.NextCursor, diff)
		}
	}
	var got []int64
	for cursor, pages := "", 0; ; pages++ {
		path := "/jobs?limit=2"
		if cursor != "" {
			path += "&cursor=" + cursor
		}
		l := decode[api.JobList](t, s.call("GET", path, http.StatusOK))
		got = append(got, ids(l)...)
		if cursor = l.NextCursor; cursor == "" || pages > 3 {
			break
		}
	}
	if diff := cmp.Diff([]int64{5, 4, 3, 2, 1}, got); diff != "" {
		t.Errorf("page by page (-want +got):\n%s", diff)
	}
}

func TestAJobIsShownWithItsWholeStory(t *testing.T) {
	s := serve(t)
	d := decode[api.JobDetail](t, s.call("GET", "/jobs/1", http.StatusOK))
	if d.Job.State != router.Dispatched || d.Job.Rule != "linux" || d.Decision == nil || d.Explanation == nil || len(d.Explanation.Trace) != 1 {
		t.Errorf("got job %+v, decision %+v, explanation %+v", d.Job, d.Decision, d.Explanation)
	}
	if len(d.Runners) != 1 || d.Runners[0].Unplaced == nil || d.Runners[0].Unplaced.Exhausted[0].From != "label large" {
		t.Errorf("got runners %+v, want why the one has no node", d.Runners)
	}
	var lines []string
	for _, e := range d.Timeline {
		lines = append(lines, fmt.Sprintf("%s %s %s %s", e.At.Sub(t0), e.Source, e.Runner, e.State))
	}
	want := []string{"1h0m0s webhook  queued", "6h0m0s router gha-1-1 dispatched", "6h0m0s router gha-1-1 dispatched", "6h0m0s router  dispatched"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	d = decode[api.JobDetail](t, s.call("GET", "/jobs/3", http.StatusOK))
	if d.Decision != nil || d.Job.DueAt == nil || d.Job.DispatchedAt != nil {
		t.Errorf("got an undecided job %+v with decision %v", d.Job, d.Decision)
	}
}

func TestRunnersAreListed(t *testing.T) {
	s := serve(t)
	l := decode[api.RunnerList](t, s.call("GET", "/runners?state=dispatched&limit=1", http.StatusOK))
	if len(l.Runners) != 1 || l.Runners[0].ID != "gha-1-1" || l.NextCursor != "" {
		t.Errorf("got %+v", l)
	}
	for _, query := range []string{"?state=online", "?cursor=1-1"} {
		if l := decode[api.RunnerList](t, s.call("GET", "/runners"+query, http.StatusOK)); len(l.Runners) != 0 {
			t.Errorf("GET /runners%s = %+v, want none", query, l)
		}
	}
}

func TestChangesAreMadeAndAnsweredWithWhatIsThen(t *testing.T) {
	s := serve(t)
	if d := decode[api.JobDetail](t, s.call("POST", "/jobs/2/retry", http.StatusOK)); d.Job.ID != 2 {
		t.Errorf("the retried job is %d", d.Job.ID)
	}
	if d := decode[api.JobDetail](t, s.call("POST", "/jobs/1/cancel", http.StatusOK)); d.Job.ID != 1 {
		t.Errorf("the cancelled job is %d", d.Job.ID)
	}
	s.call("POST", "/jobs/1/cancel?run=true", http.StatusOK)
	s.call("POST", "/runners/gha-1-1/stop", http.StatusOK)
	s.call("POST", "/runners/gha-1-1/stop?force=true", http.StatusOK)
	if r := decode[router.SyncReport](t, s.call("POST", "/sync", http.StatusOK, sends(`{"repo":"acme/web"}`))); r.Repo != "acme/web" || r.Changed != 3 {
		t.Errorf("the report of sync is %+v", r)
	}
	for _, text := range []string{"", `{"repo":"acme"}`, `{"repo":"a/b/c"}`, `{"repos":"acme/web"}`} {
		s.call("POST", "/sync", http.StatusBadRequest, sends(text))
	}
	want := []string{"retry 2", "cancel 1 false", "cancel 1 true", "stop gha-1-1 false", "stop gha-1-1 true", "sync acme/web"}
	if diff := cmp.Diff(want, s.app.did); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		fail   error
		status int
		detail string
	}{
		{&router.ConflictError{Reason: "job 2 has ended"}, http.StatusConflict, "job 2 has ended"},
		{fmt.Errorf("read: %w", router.ErrNotFound), http.StatusNotFound, "not found here, or no longer kept"},
		{errors.New("nomad is away"), http.StatusServiceUnavailable, "it cannot be done now: nomad is away"},
	} {
		s.app.fail = tt.fail
		for _, path := range []string{"/jobs/2/retry", "/jobs/2/cancel", "/runners/gha-1-1/stop"} {
			if p := decode[problem.Details](t, s.call("POST", path, tt.status)); p.Detail != tt.detail || p.Status != tt.status {
				t.Errorf("POST %s with %v = %+v", path, tt.fail, p)
			}
		}
	}
}

func TestWhatIsAskedWrongIsSaid(t *testing.T) {
	s := serve(t)
	for _, tt := range []struct {
		method, path string
		status       int
		detail       string
	}{
		{"GET", "/jobs?state=lost", 400, `state "lost": want one of held, queued, retrying, dispatched, running, completed, ignored, denied, unroutable`},
		{"GET", "/jobs?cause=bad_luck", 400, `cause "bad_luck": want one of approval, limit, siblings, runner_version, queued, nomad, `},
		{"GET", "/jobs?stat=held", 400, `unknown parameter "stat": want state, cause, owner, `},
		{"GET", "/jobs?limit=501", 400, `limit "501": want a number from 1 to 500`},
		{"GET", "/jobs?limit=1&limit=2", 400, `limit is given twice`},
		{"GET", "/jobs?cursor=x", 400, `cursor "x": want a number`},
		{"GET", "/jobs?owner=beta&repo=acme/web", 400, `owner=beta and repo=acme/web name two owners`},
		{"GET", "/jobs?owner=" + strings.Repeat("x", 2000), 400, `owner is longer than 1024 bytes`},
		{"GET", "/jobs?since=yesterday", 400, `since "yesterday": want a time such as 2026-11-01T08:00:00Z`},
		{"GET", "/jobs/x", 400, `job "x": want GitHub's ID of a job, a number`},
		{"GET", "/jobs/0", 400, `job "0": want GitHub's ID of a job, a number`},
		{"GET", "/jobs/1?x=1", 400, `unknown parameter "x"`},
		{"GET", "/jobs/99", 404, `not found here, or no longer kept`},
		{"GET", "/runners?cursor=1", 400, `cursor "1": want the next_cursor of the page before`},
		{"POST", "/runners/gha-1-1/stop?force=yes", 400, `force "yes": want true or false`},
		{"DELETE", "/jobs/1", 405, `DELETE is not for this path`},
		{"GET", "/nothing", 404, `there is no such path; GET /api/v1/openapi.json lists all of them`},
	} {
		p := decode[problem.Details](t, s.call(tt.method, tt.path, tt.status))
		if !strings.HasPrefix(p.Detail, tt.detail) || p.Type != "about:blank" || p.Title != http.StatusText(tt.status) {
			t.Errorf("%s %s = %+v, want detail %s", tt.method, tt.path, p, tt.detail)
		}
	}
	if len(s.app.did) != 0 {
		t.Errorf("done: %v, want nothing", s.app.did)
	}
}

func TestOnlyWhoMayAsksTheAPI(t *testing.T) {
	var token string
	var broken error
	withToken := serve(t, func(c *web.Config) {
		c.Access = func() (*auth.Access, error) {
			return &auth.Access{Tokens: []auth.Token{{Name: "admins", SHA256: sha256.Sum256([]byte(token)), Role: auth.Editor}}}, broken
		}
	})
	bearer := func(v string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", v) }
	}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	token = "the first"
	withToken.call("GET", "/jobs", http.StatusUnauthorized)
	withToken.call("GET", "/openapi.json", http.StatusUnauthorized)
	withToken.call("GET", "/nothing", http.StatusUnauthorized)
	withToken.call("GET", "/jobs", http.StatusUnauthorized, bearer("Bearer the second"))
	withToken.call("GET", "/jobs", http.StatusUnauthorized, bearer("Basic the first"))
	withToken.call("GET", "/jobs", http.StatusUnauthorized, bearer("Bearer "))
	withToken.call("GET", "/jobs", http.StatusOK, bearer("Bearer the first"), host("yard.example"))
	token = "the second" // the file was changed
	withToken.call("GET", "/jobs", http.StatusUnauthorized, bearer("Bearer the first"))
	withToken.call("GET", "/rules", http.StatusOK, bearer("bearer the second"))
	broken = errors.New("token.txt is empty")
	if p := withToken.call("GET", "/jobs", http.StatusInternalServerError, bearer("Bearer the second")); bytes.Contains(p, []byte("token.txt")) || !strings.Contains(withToken.log.String(), "token.txt is empty") {
		t.Errorf("a broken token file: answered %s, logged %s", p, withToken.log.String())
	}

	open := serve(t)
	for name, status := range map[string]int{
		"localhost:8081": 200, "127.0.0.1": 200, "[::1]:8081": 200, "10.1.2.3:8081": 200, "evil.example:8081": 403, "localhost.evil.example": 403, "": 403,
	} {
		open.call("GET", "/openapi.json", status, host(name))
	}
	for site, status := range map[string]int{"same-origin": 200, "none": 200, "cross-site": 403, "same-site": 403} {
		open.call("POST", "/jobs/1/retry", status, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) })
	}
	open.call("POST", "/jobs/1/retry", http.StatusForbidden, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") })
}

// Every path of the code is described, and no other.
func TestTheDescriptionHasEveryPath(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	must(t, err)
	described, routed := map[string]bool{}, map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			described[method+" "+api.Prefix+path] = true
		}
	}
	err = web.Router(web.Config{}).Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := route.GetPathTemplate()
		methods, _ := route.GetMethods()
		if !strings.HasPrefix(path, api.Prefix) {
			return err // the console
		}
		for _, m := range methods {
			routed[m+" "+path] = true
		}
		return err
	})
	must(t, err)
	if diff := cmp.Diff(routed, described); diff != "" {
		t.Errorf("described (+) and not, and the other way round (-):\n%s", diff)
	}
	s := serve(t)
	if got := s.call("GET", "/openapi.json", http.StatusOK); !json.Valid(got) {
		t.Errorf("the description is no JSON: %s", got)
	}
	if got := decode[router.RulesStatus](t, s.call("GET", "/rules", http.StatusOK)); got.Hash != "abc" {
		t.Errorf("rules = %+v", got)
	}
}

// Showing a job decides it once, however often and to whom.
func TestShowingAJobDoesNotDecideItAgain(t *testing.T) {
	s := serve(t)
	for range 3 {
		d := decode[api.JobDetail](t, s.call("GET", "/jobs/1", http.StatusOK))
		if d.Explanation == nil || len(d.Explanation.Trace) != 1 || d.Decision == nil {
			t.Fatalf("explanation %+v, decision %+v", d.Explanation, d.Decision)
		}
		s.get("/jobs/1", http.StatusOK)
	}
	if n := s.app.explained.Load(); n != 1 {
		t.Errorf("the rules in force were asked %d times, want once", n)
	}
}

// must fails the test if there is an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
