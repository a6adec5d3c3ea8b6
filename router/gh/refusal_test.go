package gh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/rules"
)

// methods are those of the client that ask GitHub, each with an answer that it
// takes, and where a refusal of it differs from what most have.
var methods = []struct {
	name string
	call func(context.Context, *gh.Client) error
	good string         // the body of the answer to its last request
	code int            // its status
	kind map[int]string // where GitHub itself says so
}{
	{"RunnerConfig", func(ctx context.Context, c *gh.Client) error {
		_, err := c.RunnerConfig(ctx, request("organization", "gha-1", "x"))
		return err
	}, `{"runner": {"id": 1}, "encoded_jit_config": "abc"}`, 201, map[int]string{409: "name taken"}},
	{"RegistrationToken", func(ctx context.Context, c *gh.Client) error {
		_, err := c.RegistrationToken(ctx, request("organization", "gha-1", "x"))
		return err
	}, `{"token": "T", "expires_at": "2100-01-01T00:00:00Z"}`, 201, nil},
	{"RegistrationToken for a group", func(ctx context.Context, c *gh.Client) error {
		r := request("organization", "gha-1", "x")
		r.Runner.Group = "7"
		_, err := c.RegistrationToken(ctx, r)
		return err
	}, `{"id": 7, "name": "iron", "token": "T", "expires_at": "2100-01-01T00:00:00Z"}`, 200, nil},
	{"RunnerConfig for a group by its name", func(ctx context.Context, c *gh.Client) error {
		_, err := c.RunnerConfig(ctx, inGroup("iron", "gha-1"))
		return err
	}, `{"runner_groups": [{"id": 7, "name": "iron"}], "runner": {"id": 1}, "encoded_jit_config": "abc"}`, 201, map[int]string{400: "fix", 422: "fix"}},
	{"Run", func(ctx context.Context, c *gh.Client) error {
		_, err := c.Run(ctx, rules.Repo{Owner: "acme", Name: "web"}, 7)
		return err
	}, `{"id": 7, "event": "push", "actor": {"login": "mona"}, "repository": {"id": 1}, "head_repository": {"id": 1}}`, 200, nil},
	{"Job", func(ctx context.Context, c *gh.Client) error {
		_, err := c.Job(ctx, rules.Repo{Owner: "acme", Name: "web"}, 7)
		return err
	}, `{"id": 7, "run_id": 6, "status": "queued", "name": "build", "labels": ["x"]}`, 200, map[int]string{404: "not found"}},
	{"Runner", func(ctx context.Context, c *gh.Client) error {
		_, err := c.Runner(ctx, acme, "r1")
		return err
	}, `{"total_count": 1, "runners": [{"id": 1, "name": "r1", "status": "online", "busy": false}]}`, 200, nil},
	{"Runners", func(ctx context.Context, c *gh.Client) error {
		_, err := c.Runners(ctx, acme)
		return err
	}, `{"total_count": 1, "runners": [{"id": 1, "name": "r1", "status": "online", "busy": false}]}`, 200, nil},
	{"GroupAccess", func(ctx context.Context, c *gh.Client) error {
		_, err := c.GroupAccess(ctx, acme, "iron", router.Repo{Owner: "acme", Name: "web", Private: true})
		return err
	}, `{"total_count": 1, "runner_groups": [{"id": 7, "name": "iron"}]}`, 200, map[int]string{400: "fix", 422: "fix"}},
	{"VersionEnd", func(ctx context.Context, c *gh.Client) error {
		_, err := c.VersionEnd(ctx, acme, "2.336.0")
		return err
	}, `{"runner_version": "2.336.0", "runtime_deprecates_at": null}`, 200, map[int]string{404: "not found"}},
	{"RemoveRunner", func(ctx context.Context, c *gh.Client) error { return c.RemoveRunner(ctx, acme, 1) }, "", 204, map[int]string{422: "busy"}},
	{"Deliveries", func(ctx context.Context, c *gh.Client) error {
		_, _, err := c.Deliveries(ctx, aHook, "")
		return err
	}, `[{"id": 1, "guid": "g", "delivered_at": "2026-11-25T12:00:00Z", "status": "OK", "event": "workflow_job", "action": "queued"}]`, 200, map[int]string{404: "not found"}},
	{"Redeliver", func(ctx context.Context, c *gh.Client) error { return c.Redeliver(ctx, aHook, 1) }, "", 202, map[int]string{404: "give up"}},
	{"Unfinished", func(ctx context.Context, c *gh.Client) error {
		_, err := c.Unfinished(ctx, acmeWeb, 9, func(router.Delivery) error { return nil })
		return err
	}, `{"total_count": 0, "workflow_runs": []}`, 200, nil},
	{"RunJobs", func(ctx context.Context, c *gh.Client) error {
		return c.RunJobs(ctx, acmeWeb, 7, func(router.Delivery) error { return nil })
	}, `{"total_count": 0, "jobs": []}`, 200, map[int]string{404: "none"}},
	{"Notice", func(ctx context.Context, c *gh.Client) error {
		_, err := c.Notice(ctx, router.Notice{Kind: router.NoticeCommitStatus, Repo: acmeWeb, SHA: "ab", Name: "n", State: router.NoticeWaits, Title: "t", Text: "t"}, 0)
		return err
	}, "", 201, nil},
	{"Variable", func(ctx context.Context, c *gh.Client) error {
		_, err := c.Variable(ctx, router.Variable{Owner: "acme", Repo: "web", Name: "RUNNER"})
		return err
	}, `{"name": "RUNNER", "value": "\"linux\"", "created_at": "2026-11-25T12:00:00Z", "updated_at": "2026-11-25T12:00:00Z"}`, 200, map[int]string{404: "not found"}},
	{"SetVariable", func(ctx context.Context, c *gh.Client) error {
		return c.SetVariable(ctx, router.Variable{Owner: "acme", Name: "RUNNER"}, "")
	}, "", 204, map[int]string{404: "not found"}},
	{"CancelRun", func(ctx context.Context, c *gh.Client) error { return c.CancelRun(ctx, acmeWeb, 7) }, "", 202, map[int]string{409: "none"}},
	{"RunState", func(ctx context.Context, c *gh.Client) error {
		_, err := c.RunState(ctx, acmeWeb, 7)
		return err
	}, `{"id": 7, "run_attempt": 1, "status": "completed", "conclusion": "failure", "event": "push"}`, 200, map[int]string{404: "not found"}},
	{"RerunJob", func(ctx context.Context, c *gh.Client) error { return c.RerunJob(ctx, acmeWeb, 7) }, "", 201, nil},
}

var aHook = router.Hook{Kind: router.HookRepository, ID: 5, Owner: "acme", Repo: "web"}

// kindOf is as kind, with what these methods have besides.
func kindOf(err error) string {
	switch {
	case err == nil:
		return "none"
	case errors.Is(err, router.ErrNotFound):
		return "not found"
	case errors.Is(err, router.ErrBusy):
		return "busy"
	}
	return kind(err)
}

func TestEveryMethodSortsEveryRefusal(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	const secondary = `{"message": "You have exceeded a secondary rate limit.", "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`
	gone := map[string]string{
		"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Resource": "core",
		"X-RateLimit-Reset": fmt.Sprint(now.Add(20 * time.Minute).Unix()),
	}
	for _, tt := range []struct {
		name    string
		status  int
		headers map[string]string
		body    string
		kind    string
		at      time.Duration // from now, for retry at
	}{
		{"a 403 for a secondary limit", 403, map[string]string{"Retry-After": "30"}, secondary, "retry at", 30 * time.Second},
		{"a 403 for a secondary limit without a time", 403, nil, secondary, "retry at", time.Minute},
		{"a 429 with Retry-After", 429, map[string]string{"Retry-After": "90"}, secondary, "retry at", 90 * time.Second},
		{"a 429 that says nothing", 429, nil, "slow down", "retry at", time.Minute},
		{"a 429 with requests left", 429, map[string]string{"X-RateLimit-Remaining": "4000", "X-RateLimit-Reset": gone["X-RateLimit-Reset"]}, secondary, "retry at", time.Minute},
		{"a 429 that asks for a year", 429, map[string]string{"Retry-After": "31536000"}, "", "retry at", time.Hour},
		{"a 429 with a negative Retry-After", 429, map[string]string{"Retry-After": "-5"}, "", "retry at", time.Minute},
		{"a 403 with Retry-After alone", 403, map[string]string{"Retry-After": "45"}, "{}", "retry at", 45 * time.Second},
		{"a 403 for the primary limit", 403, gone, `{"message": "API rate limit exceeded"}`, "retry at", 20 * time.Minute},
		{"a 429 for the primary limit", 429, gone, `{"message": "API rate limit exceeded"}`, "retry at", 20 * time.Minute},
		{"a 400", 400, nil, `{"message": "Problems parsing JSON"}`, "give up", 0},
		{"a 401", 401, nil, `{"message": "Bad credentials"}`, "fix", 0},
		{"a 403 for a permission", 403, map[string]string{"X-RateLimit-Remaining": "4000"}, `{"message": "Resource not accessible by personal access token"}`, "fix", 0},
		{"a 404", 404, nil, `{"message": "Not Found"}`, "fix", 0},
		{"a 409", 409, nil, `{"message": "Conflict"}`, "retry", 0},
		{"a 422", 422, nil, `{"message": "Validation Failed"}`, "give up", 0},
		{"a 500", 500, nil, `{"message": "Server Error"}`, "retry", 0},
		{"a 502 of HTML", 502, nil, "<html><body>Unicorn!\x1b[31m</body></html>", "retry", 0},
		{"a 503", 503, nil, `{"message": "Service unavailable"}`, "retry", 0},
		{"a 404 of HTML", 404, nil, "<html>", "fix", 0},
		{"a 500 of 2 MB", 500, nil, `{"message": "` + strings.Repeat("A", 2<<20) + `"}`, "retry", 0},
	} {
		for _, m := range methods {
			t.Run(tt.name+" to "+m.name, func(t *testing.T) {
				var calls atomic.Int32
				c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					calls.Add(1)
					for k, v := range tt.headers {
						w.Header().Set(k, v)
					}
					answer(w, tt.status, tt.body)
				}), func(cfg *gh.Config) { cfg.Now = func() time.Time { return now } })
				err := m.call(t.Context(), c)
				if calls.Load() != 1 && !(m.name == "RemoveRunner" && tt.status == 404) {
					t.Errorf("GitHub was asked %d times, want 1", calls.Load())
				}
				want := tt.kind
				if k, ok := m.kind[tt.status]; ok && tt.body != "<html>" {
					want = k
				}
				if kindOf(err) != want {
					t.Fatalf("%s: %v, want %s", kindOf(err), err, want)
				}
				if err == nil {
					return
				}
				harmless(t, err)
				var later *router.RetryAtError
				if tt.kind == "retry at" && errors.As(err, &later) && !later.At.Equal(now.Add(tt.at)) {
					t.Errorf("At = %s, want %s", later.At, now.Add(tt.at))
				}
			})
		}
	}
}

func TestEveryMethodTakesNoAnswerForAnotherOne(t *testing.T) {
	for _, m := range methods {
		for _, tt := range []struct {
			name   string
			answer func(w http.ResponseWriter, r *http.Request)
			ok     bool
			none   bool // it matters only to those that read a body
		}{
			{"a good answer", func(w http.ResponseWriter, _ *http.Request) { send(w, m.code, m.good) }, true, true},
			{"HTML", func(w http.ResponseWriter, _ *http.Request) { send(w, m.code, "<html>") }, false, false},
			{"nothing", func(w http.ResponseWriter, _ *http.Request) { send(w, m.code, "") }, false, false},
			{"null", func(w http.ResponseWriter, _ *http.Request) { send(w, m.code, "null") }, false, false},
			{"an empty object", func(w http.ResponseWriter, _ *http.Request) { send(w, m.code, "{}") }, false, false},
			{"the ID alone", func(w http.ResponseWriter, _ *http.Request) { send(w, m.code, `{"id": 7, "runner": {"id": 1}}`) }, false, false},
			{"a list", func(w http.ResponseWriter, _ *http.Request) { send(w, m.code, "[]") }, false, false},
			{"numbers for words and words for numbers", func(w http.ResponseWriter, _ *http.Request) {
				send(w, m.code, `{"id": "7", "token": 7, "runner": "x", "runners": 7, "encoded_jit_config": 7, "event": 7, "labels": "x"}`)
			}, false, false},
			{"half a body", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(len(m.good)))
				w.WriteHeader(m.code)
				_, _ = io.WriteString(w, m.good[:len(m.good)/2])
			}, false, false},
			{"a body over the bound", func(w http.ResponseWriter, _ *http.Request) {
				send(w, m.code, strings.Replace(m.good, "{", `{"more": "`+strings.Repeat("A", 2<<20)+`", `, 1))
			}, false, false},
			{"a connection that ends", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, true},
			{"silence", func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // else the server does not see that the client left
				<-r.Context().Done()
			}, false, true},
		} {
			if m.good == "" && !tt.none || m.name == "Deliveries" && (tt.name == "a list" || tt.name == "nothing") { // to go-github, both are a list of none
				continue
			}
			t.Run(tt.name+" to "+m.name, func(t *testing.T) {
				c := client(t, http.HandlerFunc(tt.answer), func(cfg *gh.Config) {
					if tt.name == "silence" {
						cfg.Timeout = 20 * time.Millisecond
					}
				})
				err := m.call(t.Context(), c)
				if tt.ok {
					if err != nil {
						t.Errorf("error = %v, want none", err)
					}
					return
				}
				if m.name == "Runner" && errors.Is(err, router.ErrNotFound) {
					t.Fatalf("%v: what GitHub did not say was taken for an absence", err)
				}
				if kindOf(err) != "retry" {
					t.Errorf("%s: %v, want retry", kindOf(err), err)
				}
				harmless(t, err)
			})
		}
	}
}

func send(w http.ResponseWriter, status int, body string) {
	if body == "" {
		w.WriteHeader(status)
		return
	}
	answer(w, status, body)
}
