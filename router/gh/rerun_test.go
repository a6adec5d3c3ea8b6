package gh_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
)

func TestAJobIsRunAgain(t *testing.T) {
	c, s := simulated(t, githubsim.Config{Token: token})
	id := s.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Event: "pull_request"})
	j, _ := s.Job(id)
	if run, err := c.RunState(t.Context(), acmeWeb, j.RunID); err != nil || run != (router.RunState{Attempt: 1, Event: "pull_request", Open: true}) {
		t.Errorf("RunState = %+v, %v", run, err)
	}
	if err := c.RerunJob(t.Context(), acmeWeb, id); !errors.Is(err, router.ErrRunning) {
		t.Errorf("RerunJob while the run goes on = %v", err)
	}
	if err := s.Cancel(id); err != nil {
		t.Fatal(err)
	}
	if run, err := c.RunState(t.Context(), acmeWeb, j.RunID); err != nil || run != (router.RunState{Attempt: 1, Completed: true, Conclusion: "cancelled", Event: "pull_request", Open: true}) {
		t.Errorf("RunState = %+v, %v", run, err)
	}
	if err := c.RerunJob(t.Context(), acmeWeb, id); err != nil {
		t.Errorf("RerunJob = %v", err)
	}
	if run, err := c.RunState(t.Context(), acmeWeb, j.RunID); err != nil || run.Attempt != 2 || run.Completed {
		t.Errorf("RunState = %+v, %v", run, err)
	}
	if err := c.RerunJob(t.Context(), acmeWeb, id); !errors.Is(err, router.ErrRunning) {
		t.Errorf("RerunJob while attempt 2 goes on = %v", err)
	}
	for _, other := range s.Jobs() {
		if other.Attempt == 2 {
			if err := s.Cancel(other.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.RerunJob(t.Context(), acmeWeb, id); kind(err) != "give up" {
		t.Errorf("RerunJob of attempt 1 = %v, want give up", err)
	}
	if err := c.RerunJob(t.Context(), acmeWeb, 999); kind(err) != "fix" || !strings.Contains(err.Error(), "Actions (write)") {
		t.Errorf("RerunJob of another = %v, want fix", err)
	}
	if _, err := c.RunState(t.Context(), acmeWeb, 999); !errors.Is(err, router.ErrNotFound) {
		t.Errorf("RunState of another = %v", err)
	}
	a := checksApp(t, map[string]string{"actions": "read"})
	id = a.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web"})
	if err := a.client.RerunJob(t.Context(), acmeWeb, id); kind(err) != "fix" || !strings.Contains(err.Error(), "Actions (write)") {
		t.Errorf("RerunJob without the permission = %v, want fix", err)
	}
}

// Whoever asks must know whether GitHub may have done it.
func TestARerunMayBeUnanswered(t *testing.T) {
	for status, want := range map[int]bool{201: false, 403: false, 404: false, 409: false, 422: false, 429: false, 500: true, 502: true} {
		c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, status, "{}") }), func(*gh.Config) {})
		err := c.RerunJob(t.Context(), acmeWeb, 7)
		if got := errors.As(err, new(*router.UnansweredError)); got != want {
			t.Errorf("%d: %v, unanswered %t, want %t", status, err, got, want)
		}
	}
	c := client(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), func(cfg *gh.Config) { cfg.Timeout = time.Second })
	if err := c.RerunJob(t.Context(), acmeWeb, 7); !errors.As(err, new(*router.UnansweredError)) {
		t.Errorf("a connection that is cut: %v", err)
	}
}

// An answer that lacks something is none.
func TestARunStateIsWhole(t *testing.T) {
	const good = `{"id": 7, "run_attempt": 1, "status": "completed", "event": "push"}`
	for _, part := range []string{`"id": 7`, `"run_attempt": 1`, `"status": "completed"`, `"event": "push"`} {
		key, _, _ := strings.Cut(part, ":")
		c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 200, strings.Replace(good, part, key+": null", 1))
		}), func(*gh.Config) {})
		if run, err := c.RunState(t.Context(), acmeWeb, 7); err == nil {
			t.Errorf("without %s it is %+v", key, run)
		}
	}
}
