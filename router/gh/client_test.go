package gh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/githubsim/githubtest"
	"switchyard/rules"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "ghs_very_secret"

// client returns a Client of a server that answers with h.
func client(t *testing.T, h http.Handler, change func(*gh.Config)) *gh.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	cfg := gh.Config{Token: gh.StaticToken(token), BaseURL: server.URL, HTTPClient: server.Client()}
	if change != nil {
		change(&cfg)
	}
	c, err := gh.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// simulated returns a Client of a simulated GitHub that knows acme/web.
func simulated(t *testing.T, cfg githubsim.Config) (*gh.Client, *githubsim.Server) {
	t.Helper()
	s := githubsim.New(cfg)
	t.Cleanup(s.Close)
	s.AddRepo(githubsim.Repo{Owner: "acme", Name: "web"})
	return client(t, githubtest.Contract(t, s), nil), s
}

func request(scope, name string, labels ...string) router.ConfigRequest {
	return router.ConfigRequest{
		Repo:   rules.Repo{Owner: "acme", Name: "web"},
		Runner: rules.Runner{Scope: scope, Group: "1"},
		Name:   name,
		Labels: labels,
	}
}

func TestAConfiguredRunnerTakesTheJobInItsScope(t *testing.T) {
	for _, scope := range []string{"repository", "organization"} {
		t.Run(scope, func(t *testing.T) {
			c, s := simulated(t, githubsim.Config{Token: token})
			id := s.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Labels: []string{"self-hosted", "gpu"}})
			cfg, err := c.RunnerConfig(t.Context(), request(scope, "gha-1-1-abc", "self-hosted", "gpu"))
			if err != nil {
				t.Fatalf("RunnerConfig: %v", err)
			}
			if err := s.Connect(t.Context(), string(cfg.JIT)); err != nil {
				t.Fatalf("Connect: %v", err)
			}
			if j, _ := s.Job(id); j.RunnerName != "gha-1-1-abc" || j.RunnerID != cfg.GitHubID {
				t.Errorf("the job's runner is %s (%d), want gha-1-1-abc (%d)", j.RunnerName, j.RunnerID, cfg.GitHubID)
			}
		})
	}
}

func TestTheRequestIsGitHubs(t *testing.T) {
	for _, tt := range []struct{ scope, path string }{
		{"repository", "/api/v3/repos/acme/web/actions/runners/generate-jitconfig"},
		{"organization", "/api/v3/orgs/acme/actions/runners/generate-jitconfig"},
	} {
		t.Run(tt.scope, func(t *testing.T) {
			var got struct {
				Path, Auth string
				Body       map[string]any
			}
			c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got.Path, got.Auth = r.URL.Path, r.Header.Get("Authorization")
				_ = json.NewDecoder(r.Body).Decode(&got.Body)
				answer(w, http.StatusCreated, `{"runner": {"id": 23}, "encoded_jit_config": "eyJ9"}`)
			}), func(cfg *gh.Config) { cfg.BaseURL += "/api/v3" })
			req := request(tt.scope, "gha-1-1", "Self-Hosted", "a, b", "${x}")
			req.Runner.Group = "7"
			cfg, err := c.RunnerConfig(t.Context(), req)
			if err != nil {
				t.Fatalf("RunnerConfig: %v", err)
			}
			if diff := cmp.Diff(router.RunnerConfig{GitHubID: 23, JIT: "eyJ9"}, cfg); diff != "" {
				t.Errorf("RunnerConfig (-want +got):\n%s", diff)
			}
			if got.Path != tt.path || got.Auth != "Bearer "+token {
				t.Errorf("path %s with %q, want %s with the token", got.Path, got.Auth, tt.path)
			}
			want := map[string]any{
				"name": "gha-1-1", "runner_group_id": 7.0, "work_folder": "_work", "labels": []any{"Self-Hosted", "a, b", "${x}"},
			}
			if diff := cmp.Diff(want, got.Body); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// harmless checks that an error is a short line without secrets.
func harmless(t *testing.T, err error) {
	t.Helper()
	if s := fmt.Sprint(err); len(s) > 600 || strings.ContainsAny(s, "\n\x1b") || strings.Contains(s, "ghs_") || strings.Contains(s, "eyJ") {
		t.Errorf("the error is not a short line without secrets: %.700q", s)
	}
}

// kind is the way that router.Retry sees an error.
func kind(err error) string {
	var fix *router.FixError
	switch {
	case err == nil:
		return "none"
	case errors.Is(err, router.ErrNameTaken):
		return "name taken"
	case errors.As(err, new(*router.GiveUpError)):
		return "give up"
	case errors.As(err, &fix):
		return "fix"
	case errors.As(err, new(*router.RetryAtError)):
		return "retry at"
	}
	return "retry"
}

func TestAnswersOfTheSimulatedGitHubAreSorted(t *testing.T) {
	change := func(f func(*router.ConfigRequest)) router.ConfigRequest {
		r := request("repository", "taken", "x")
		f(&r)
		return r
	}
	for _, tt := range []struct {
		name, token string
		req         router.ConfigRequest
		kind, says  string
	}{
		{"a taken name", token, request("repository", "taken", "x"), "name taken", "name taken already exists"},
		{"a wrong token", "other", request("repository", "new", "x"), "fix", "valid"},
		{"an unknown repository", token, change(func(r *router.ConfigRequest) { r.Repo.Name = "none" }),
			"fix", "Administration (write) on acme/none"},
		{"an unknown organization", token, change(func(r *router.ConfigRequest) { r.Repo.Owner, r.Runner.Scope = "none", "organization" }),
			"fix", "Self-hosted runners (write) on none"},
		{"an unknown runner group", token, change(func(r *router.ConfigRequest) { r.Runner.Group = "99" }), "fix", "runner group"},
		{"no labels", token, request("repository", "new"), "give up", "labels"},
		{"a blank label", token, request("repository", "new", " "), "give up", "blank"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := githubsim.New(githubsim.Config{Token: token})
			t.Cleanup(s.Close)
			s.AddRepo(githubsim.Repo{Owner: "acme", Name: "web"})
			c := client(t, s, func(cfg *gh.Config) {
				first := true // registers the name; the rest is with the test's token
				cfg.Token = func() (router.Secret, error) {
					if first {
						first = false
						return token, nil
					}
					return router.Secret(tt.token), nil
				}
			})
			if _, err := c.RunnerConfig(t.Context(), request("repository", "taken", "x")); err != nil {
				t.Fatal(err)
			}
			_, err := c.RunnerConfig(t.Context(), tt.req)
			if kind(err) != tt.kind || !strings.Contains(fmt.Sprint(err), tt.says) {
				t.Errorf("RunnerConfig = %s: %v, want %s with %q", kind(err), err, tt.kind, tt.says)
			}
		})
	}
}

func TestOddAnswersAreSorted(t *testing.T) {
	for _, tt := range []struct {
		name    string
		status  int
		headers map[string]string
		body    string
		kind    string
	}{
		{"a 422 with plain faults", 422, nil, `{"message": "Validation Failed", "errors": ["Labels can't be blank."]}`, "give up"},
		{"a 422 with structured faults", 422, nil, `{"message": "Validation Failed", "errors": [{"resource": "Runner", "field": "labels", "code": "invalid"}]}`, "give up"},
		{"a 201 without a configuration", 201, nil, `{"runner": {"id": 1}, "encoded_jit_config": ""}`, "retry"},
		{"a 201 without a body", 201, nil, "", "retry"},
		{"a 201 without a runner", 201, nil, `{"encoded_jit_config": "abc"}`, "retry"},
		{"a 201 with a configuration of two lines", 201, nil, `{"runner": {"id": 1}, "encoded_jit_config": "abc\ndef"}`, "retry"},
		{"a 201 of HTML", 201, nil, "<html>", "retry"},
		{"a 201 of the wrong type", 201, nil, `{"runner": {"id": "one"}, "encoded_jit_config": 5}`, "retry"},
		{"a 201 of 2 MB", 201, nil, `{"runner": {"id": 1}, "encoded_jit_config": "` + strings.Repeat("A", 2<<20) + `"}`, "retry"},
		{"a 202", 202, nil, "{}", "retry"},
		{"a 301 to elsewhere", 301, map[string]string{"Location": "http://127.0.0.1:1/"}, "", "retry"},
		{"a 307 to elsewhere", 307, map[string]string{"Location": "http://127.0.0.1:1/"}, "", "retry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int32
			c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				for k, v := range tt.headers {
					w.Header().Set(k, v)
				}
				answer(w, tt.status, tt.body)
			}), nil)
			_, err := c.RunnerConfig(t.Context(), request("repository", "gha-1", "x"))
			if kind(err) != tt.kind {
				t.Fatalf("RunnerConfig = %s: %v, want %s", kind(err), err, tt.kind)
			}
			harmless(t, err)
			if calls.Load() != 1 {
				t.Errorf("GitHub was asked %d times, want 1", calls.Load())
			}
		})
	}
}

func TestGitHubsOwnWordsAreShown(t *testing.T) {
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 422, `{"message": "Validation Failed", "errors": ["Labels \u001b[31mcan't be blank.", {"resource": "Runner", "field": "name", "code": "invalid"}]}`)
	}), nil)
	_, err := c.RunnerConfig(t.Context(), request("organization", "gha-1", "x"))
	want := "register a runner in organization acme: GitHub answered 422 (Validation Failed; Labels  [31mcan't be blank.; Runner name invalid)"
	if fmt.Sprint(err) != want {
		t.Errorf("RunnerConfig = %v, want %s", err, want)
	}
}

func TestALimitHoldsRequestsBackUntilItEndsOrTheTokenChanges(t *testing.T) {
	for _, status := range []int{403, 429} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			now := time.Now()
			var calls atomic.Int32
			current := router.Secret("one")
			c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if calls.Add(1) > 1 {
					answer(w, 201, `{"runner": {"id": 1}, "encoded_jit_config": "abc"}`)
					return
				}
				w.Header().Set("Retry-After", "120")
				answer(w, status, `{}`)
			}), func(cfg *gh.Config) {
				cfg.Now = func() time.Time { return now }
				cfg.Token = func() (router.Secret, error) { return current, nil }
			})
			want := func(when, want string) {
				t.Helper()
				_, err := c.RunnerConfig(t.Context(), request("repository", "gha-1", "x"))
				if got := fmt.Sprint(kind(err), ", call ", calls.Load()); got != want {
					t.Errorf("%s: %s, want %s", when, got, want)
				}
			}
			want("at the limit", "retry at, call 1")
			now = now.Add(119 * time.Second)
			want("a second before its end", "retry at, call 1")
			current = "two"
			want("with another token", "none, call 2")
			current = "one"
			now = now.Add(time.Second)
			want("after its end", "none, call 3")
		})
	}
}

func TestThePrimaryLimitOfTheSimulatedGitHubIsKept(t *testing.T) {
	c, _ := simulated(t, githubsim.Config{RateLimit: 1})
	if _, err := c.RunnerConfig(t.Context(), request("repository", "one", "x")); err != nil {
		t.Fatal(err)
	}
	// go-github knows from the first answer that none remains, and asks nobody.
	_, err := c.RunnerConfig(t.Context(), request("repository", "two", "x"))
	if retryAt, ok := errors.AsType[*router.RetryAtError](err); !ok || time.Until(retryAt.At) < 50*time.Minute {
		t.Errorf("RunnerConfig = %v, want a *router.RetryAtError for the end of the hour", err)
	}
}

func TestASlowGitHubIsLeftAtTheTimeout(t *testing.T) {
	release := make(chan struct{})
	c := client(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}), func(cfg *gh.Config) { cfg.Timeout = 20 * time.Millisecond })
	t.Cleanup(func() { close(release) })
	_, err := c.RunnerConfig(t.Context(), request("repository", "gha-1", "x"))
	if kind(err) != "retry" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("RunnerConfig = %s: %v, want retry: deadline exceeded", kind(err), err)
	}
}

func TestARefusedConnectionIsRetried(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	c, err := gh.New(gh.Config{Token: gh.StaticToken(token), BaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RunnerConfig(t.Context(), request("repository", "gha-1", "x")); kind(err) != "retry" {
		t.Errorf("RunnerConfig = %s: %v, want retry", kind(err), err)
	}
}

func TestARedirectWithinGitHubKeepsThePost(t *testing.T) {
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/repos/") {
			http.Redirect(w, r, "/repositories/1/actions/runners/generate-jitconfig", http.StatusTemporaryRedirect)
			return
		}
		if body, _ := io.ReadAll(r.Body); r.Method != http.MethodPost || r.Header.Get("Authorization") == "" || len(body) == 0 {
			t.Errorf("redirected as %s with %q and %d bytes, want the POST as it was", r.Method, r.Header.Get("Authorization"), len(body))
		}
		answer(w, 201, `{"runner": {"id": 1}, "encoded_jit_config": "abc"}`)
	}), nil)
	if _, err := c.RunnerConfig(t.Context(), request("repository", "gha-1", "x")); err != nil {
		t.Errorf("RunnerConfig = %v", err)
	}
}

func TestTheTokenNeverGoesToAnotherHost(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("another host got %s %s with %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}))
	t.Cleanup(other.Close)
	for _, status := range []int{301, 302, 307, 308} {
		c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, status)
		}), nil)
		if _, err := c.RunnerConfig(t.Context(), request("repository", "gha-1", "x")); kind(err) != "retry" {
			t.Errorf("RunnerConfig after %d = %s: %v, want retry", status, kind(err), err)
		}
	}
}

func TestARunIsReadAsTheRulesSeeIt(t *testing.T) {
	job := githubsim.JobSpec{Owner: "acme", Repo: "web", Sender: "mona"}
	push := rules.Run{Event: "push", Actor: "mona"}
	for _, tt := range []struct {
		name   string
		change func(*githubsim.JobSpec)
		want   rules.Run
	}{
		{"a push", func(*githubsim.JobSpec) {}, push},
		{"a push to a repository that is itself a fork", func(j *githubsim.JobSpec) { j.Fork = true }, push},
		{"a pull request from a branch", func(j *githubsim.JobSpec) { j.Event = "pull_request" }, rules.Run{Event: "pull_request", Actor: "mona"}},
		{"a pull request from a fork, run again by someone else",
			func(j *githubsim.JobSpec) { j.Event, j.Actor, j.Head = "pull_request", "stranger", "stranger" },
			rules.Run{Event: "pull_request", Fork: true, Actor: "stranger"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, s := simulated(t, githubsim.Config{Token: token})
			spec := job
			tt.change(&spec)
			j, _ := s.Job(s.Queue(t.Context(), spec))
			got, err := c.Run(t.Context(), rules.Repo{Owner: "Acme", Name: "web"}, j.RunID)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Run (-want +got):\n%s", diff)
			}
			if n := s.RunReads(j.RunID); n != 1 {
				t.Errorf("GitHub was asked %d times, want once", n)
			}
		})
	}
}

func TestWhatARunsAnswerLeavesOpenIsNeverFalse(t *testing.T) {
	const whole = `{"id": 7, "event": "pull_request", "actor": {"login": "mona"}, "repository": {"id": 1}, "head_repository": {"id": 1}}`
	for _, tt := range []struct {
		name, old, new string // one change of the whole answer
		fork           bool
		says           string // "": no error
	}{
		{"the whole answer", "", "", false, ""},
		{"another repository", `"head_repository": {"id": 1}`, `"head_repository": {"id": 2}`, true, ""},
		{"a deleted repository", `"head_repository": {"id": 1}`, `"head_repository": null`, true, ""},
		{"a deleted repository of any event", `pull_request", "actor": {"login": "mona"}, "repository": {"id": 1}, "head_repository": {"id": 1}`, `push", "actor": {"login": "mona"}, "repository": {"id": 1}`, true, ""},
		{"a head repository without its ID", `"head_repository": {"id": 1}`, `"head_repository": {}`, false, "which repository"},
		{"no repository", `"repository": {"id": 1}, "head_repository": {"id": 1}`, `"head_repository": null`, false, "which repository"},
		{"no actor", `{"login": "mona"}`, "null", false, "who started"},
		{"no event", `"pull_request"`, `""`, false, "which event"},
		{"another run", `"id": 7`, `"id": 8`, false, "another run"},
		{"nothing", whole, "{}", false, "another run"},
		{"HTML", whole, "<html>", false, "read run 7 of acme/web"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answer(w, 200, strings.Replace(whole, tt.old, tt.new, 1))
			}), nil)
			got, err := c.Run(t.Context(), rules.Repo{Owner: "acme", Name: "web"}, 7)
			if tt.says != "" {
				if kind(err) != "retry" || !strings.Contains(fmt.Sprint(err), tt.says) {
					t.Errorf("Run = %+v, %s: %v, want retry with %q", got, kind(err), err, tt.says)
				}
				return
			}
			if err != nil || got.Fork != tt.fork {
				t.Errorf("Run = %+v, %v, want fork %t", got, err, tt.fork)
			}
		})
	}
}

func TestRefusalsOfARunAreSorted(t *testing.T) {
	for _, tt := range []struct {
		name       string
		status     int
		kind, says string
	}{
		{"a run that is not shown", 404, "fix", "permission Actions (read) on acme/web, and check that the run exists"},
		{"a missing permission", 403, "fix", "permission Actions (read) on acme/web"},
		{"a bad token", 401, "fix", "valid"},
		{"a limit", 429, "retry at", "rate limit"},
		{"an outage", 502, "retry", "read run 7 of acme/web: GitHub answered 502"},
		{"a conflict", 409, "retry", "GitHub answered 409"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, tt.status, "{}") }), nil)
			_, err := c.Run(t.Context(), rules.Repo{Owner: "acme", Name: "web"}, 7)
			if kind(err) != tt.kind || !strings.Contains(fmt.Sprint(err), tt.says) || errors.Is(err, router.ErrNameTaken) {
				t.Errorf("Run = %s: %v, want %s with %q", kind(err), err, tt.kind, tt.says)
			}
			if tt.kind == "retry at" {
				if _, err := c.RunnerConfig(t.Context(), request("repository", "gha-1", "x")); kind(err) != tt.kind {
					t.Errorf("RunnerConfig after it = %v, want it held back too", err)
				}
			}
		})
	}
}

func TestAStrangersNamesNeverReachAURL(t *testing.T) {
	c := client(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("GitHub was asked: %s", r.URL)
	}), nil)
	for _, name := range []string{"", ".", "..", "a/b", "a?b", "a%2fb", "a#b", "ä", "a b", strings.Repeat("x", 101)} {
		for _, scope := range []string{"repository", "organization"} {
			req := request(scope, "gha-1", "x")
			req.Repo.Owner = name
			if _, err := c.RunnerConfig(t.Context(), req); kind(err) != "give up" {
				t.Errorf("RunnerConfig for owner %q = %v, want a *router.GiveUpError", name, err)
			}
		}
		for _, repo := range []rules.Repo{{Owner: name, Name: "web"}, {Owner: "acme", Name: name}} {
			if _, err := c.Run(t.Context(), repo, 7); kind(err) != "give up" {
				t.Errorf("Run in %q/%q = %v, want a *router.GiveUpError", repo.Owner, repo.Name, err)
			}
		}
		req := request("repository", "gha-1", "x")
		req.Repo.Name = name
		if _, err := c.RunnerConfig(t.Context(), req); kind(err) != "give up" {
			t.Errorf("RunnerConfig for repository %q = %v, want a *router.GiveUpError", name, err)
		}
	}
	if _, err := c.RunnerConfig(t.Context(), request("planet", "gha-1", "x")); kind(err) != "give up" {
		t.Errorf("RunnerConfig for scope planet = %v, want a *router.GiveUpError", err)
	}
}

func TestNewRefusesAWrongConfig(t *testing.T) {
	good := gh.StaticToken(token)
	for _, tt := range []struct {
		name string
		cfg  gh.Config
		says string // "": it is taken
	}{
		{"neither token nor App", gh.Config{}, "is required"},
		{"both", gh.Config{Token: good, App: &gh.App{ID: 1, Key: key}}, "is required"},
		{"an App", gh.Config{App: &gh.App{ID: 1, Key: key}}, ""},
		{"an App without an ID", gh.Config{App: &gh.App{Key: key}}, "its ID"},
		{"an App without a key", gh.Config{App: &gh.App{ID: 1}}, "its private key"},
		{"github.com", gh.Config{Token: good}, ""},
		{"an Enterprise Server", gh.Config{Token: good, BaseURL: "https://github.acme.example/api/v3/"}, ""},
		{"data residency", gh.Config{Token: good, BaseURL: "https://api.acme.ghe.com/"}, ""},
		{"the pages of data residency", gh.Config{Token: good, BaseURL: "https://acme.ghe.com/"}, "https://api.acme.ghe.com/"},
		{"a loopback address in clear", gh.Config{Token: good, BaseURL: "http://[::1]:8080"}, ""},
		{"another address in clear", gh.Config{Token: good, BaseURL: "http://github.acme.example/api/v3/"}, "use https"},
		{"no scheme", gh.Config{Token: good, BaseURL: "github.acme.example"}, "https://HOST"},
		{"another scheme", gh.Config{Token: good, BaseURL: "ftp://github.acme.example"}, "https://HOST"},
		{"a password in the URL", gh.Config{Token: good, BaseURL: "https://u:hunter2@github.acme.example"}, "alone"},
		{"a query", gh.Config{Token: good, BaseURL: "https://github.acme.example/?x=y"}, "alone"},
		{"no URL", gh.Config{Token: good, BaseURL: "https://%zz"}, "base URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := gh.New(tt.cfg)
			if tt.says == "" {
				if err != nil {
					t.Errorf("New = %v, want no error", err)
				}
				return
			}
			if s := fmt.Sprint(err); !strings.Contains(s, tt.says) || strings.Contains(s, "hunter2") {
				t.Errorf("New = %v, want an error with %q", err, tt.says)
			}
		})
	}
}

func TestTokenFileIsReadEachTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	read := gh.TokenFile(path)
	for _, tt := range []struct{ name, content, want, says string }{
		{"a token", "ghp_one", "ghp_one", ""},
		{"a rotated one with white space around it", " ghp_two\r\n", "ghp_two", ""},
		{"nothing", " \n", "", "is empty"},
		{"two words", "ghp_one ghp_two", "", "one token and nothing else"},
		{"binary", "ghp\x00one", "", "one token and nothing else"},
		{"far too much", strings.Repeat("ghp_one", 1000), "", "larger than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := read()
			if string(got) != tt.want || (err == nil) != (tt.says == "") {
				t.Fatalf("TokenFile = %q, %v, want %q and %q", string(got), err, tt.want, tt.says)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "ghp")) {
				t.Errorf("TokenFile = %v, want an error with %q, without the content", err, tt.says)
			}
		})
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o604); err != nil {
			t.Fatal(err)
		}
		if _, err := read(); err == nil || !strings.Contains(err.Error(), "everybody may read or write it (mode 0604): chmod o= "+path) {
			t.Errorf("TokenFile of a file that everybody may read = %v", err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	c := client(t, http.NotFoundHandler(), func(cfg *gh.Config) { cfg.Token = read })
	_, err := c.RunnerConfig(t.Context(), request("repository", "gha-1", "x"))
	if kind(err) != "fix" || !strings.Contains(err.Error(), path) {
		t.Errorf("RunnerConfig without the file = %v, want a *router.FixError that names it", err)
	}
}

func TestConcurrentRequestsShareTheClient(t *testing.T) {
	c, _ := simulated(t, githubsim.Config{Token: token})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if _, err := c.RunnerConfig(t.Context(), request("repository", fmt.Sprint("gha-", i), "x")); err != nil {
				t.Errorf("RunnerConfig %d = %v", i, err)
			}
		})
	}
	wg.Wait()
}
