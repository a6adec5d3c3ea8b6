package githubsim

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"switchyard/router/githubsim/githubtest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A hook is a webhook receiver that keeps what it got.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	status int // answered; 0: 202
	got    []received
}

type received struct {
	header http.Header
	body   []byte
}

func newHook(t *testing.T) *hook {
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the test ends while it is sent; one that waits for it misses it
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got = append(h.got, received{r.Header, body})
		if h.status != 0 {
			w.WriteHeader(h.status)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) answer(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status = status
}

func (h *hook) received() []received {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]received(nil), h.got...)
}

// story is what the deliveries say, one line each.
func (h *hook) story(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, r := range h.received() {
		var p struct {
			Action string `json:"action"`
			Job    struct {
				Status     string  `json:"status"`
				Conclusion *string `json:"conclusion"`
				Runner     *string `json:"runner_name"`
			} `json:"workflow_job"`
		}
		if err := json.Unmarshal(r.body, &p); err != nil {
			t.Fatal(err)
		}
		line := p.Action + ": " + p.Job.Status
		if p.Job.Conclusion != nil {
			line += " " + *p.Job.Conclusion
		}
		if p.Job.Runner != nil {
			line += " by " + *p.Job.Runner
		}
		lines = append(lines, line)
	}
	return lines
}

// A sim is a Server whose REST API is checked against the contract.
type sim struct {
	*Server
	api  http.Handler
	hook *hook
	t    *testing.T
}

func newSim(t *testing.T, cfg Config) *sim {
	t.Helper()
	h := newHook(t)
	if cfg.WebhookURL == "" {
		cfg.WebhookURL = h.URL
	}
	s := New(cfg)
	t.Cleanup(s.Close)
	return &sim{Server: s, api: githubtest.Contract(t, s), hook: h, t: t}
}

// call makes a request and decodes its answer.
func (s *sim) call(method, path, body string) (status int, answer any) {
	s.t.Helper()
	return s.callAs(s.cfg.Token, method, path, body)
}

// callAs calls with a bearer token, or with none.
func (s *sim) callAs(token, method, path, body string) (status int, answer any) {
	s.t.Helper()
	r := newRequest(method, path, body)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.api.ServeHTTP(w, r)
	if w.Code != http.StatusNoContent {
		if err := json.NewDecoder(w.Body).Decode(&answer); err != nil {
			s.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return w.Code, answer
}

// jit registers a runner and returns its configuration.
func (s *sim) jit(path, name string, labels ...string) string {
	s.t.Helper()
	l, _ := json.Marshal(labels)
	status, answer := s.call("POST", path+"/actions/runners/generate-jitconfig", fmt.Sprintf(`{"name": %q, "runner_group_id": 1, "labels": %s}`, name, l))
	if status != http.StatusCreated {
		s.t.Fatalf("generate-jitconfig for %s in %s = %d %v, want 201", name, path, status, answer)
	}
	return answer.(map[string]any)["encoded_jit_config"].(string)
}

func (s *sim) flush() {
	s.t.Helper()
	if err := s.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func TestAQueuedJobIsRunByTheRunnerThatCoversIt(t *testing.T) {
	s := newSim(t, Config{Secret: "s3cret", Token: "t"})
	id := s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Labels: []string{"Self-Hosted", "linux"}})
	jit := s.jit("/repos/acme/web", "gha-1", "self-hosted", "LINUX", "x64")
	if err := s.Connect(t.Context(), jit); err != nil {
		t.Fatalf("Connect: %v", err)
	}
	s.flush()

	want := []string{"queued: queued", "in_progress: in_progress by gha-1", "completed: completed success by gha-1"}
	if diff := cmp.Diff(want, s.hook.story(t)); diff != "" {
		t.Errorf("deliveries (-want +got):\n%s", diff)
	}
	schema := hookSchema(t)
	for _, r := range s.hook.received() {
		checkPayload(t, schema, r.body)
		sum256, sum1 := Sign("s3cret", r.body)
		for header, want := range map[string]string{
			"X-Hub-Signature-256": sum256, "X-Hub-Signature": sum1, "X-Github-Event": "workflow_job", "Content-Type": "application/json",
		} {
			if got := r.header.Get(header); got != want {
				t.Errorf("%s = %q, want %q", header, got, want)
			}
		}
		if agent := r.header.Get("User-Agent"); !strings.HasPrefix(agent, "GitHub-Hookshot/") {
			t.Errorf("User-Agent = %q, want GitHub-Hookshot/…", agent)
		}
	}
	if j, _ := s.Job(id); j.Status != "completed" || j.Conclusion != "success" || j.RunnerName != "gha-1" {
		t.Errorf("Job(%d) = %+v, want completed by gha-1 with success", id, j)
	}
	if status, _ := s.call("GET", fmt.Sprintf("/repos/acme/web/actions/jobs/%d", id), ""); status != http.StatusOK {
		t.Errorf("GET the job = %d, want 200", status)
	}
	if _, runners := s.call("GET", "/repos/acme/web/actions/runners", ""); runners.(map[string]any)["total_count"] != 0.0 {
		t.Errorf("runners after the job = %v, want none: they are ephemeral", runners)
	}
	if err := s.Connect(t.Context(), jit); !errors.Is(err, ErrUsedJIT) {
		t.Errorf("a second Connect = %v, want ErrUsedJIT", err)
	}
}

func TestSignIsGitHubs(t *testing.T) {
	// https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries (read 2026-11-24)
	got, _ := Sign("It's a Secret to Everybody", []byte("Hello, World!"))
	if want := "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"; got != want {
		t.Errorf("Sign = %s, want %s", got, want)
	}
}

func TestAConfigurationHasTheShapeOfGitHubs(t *testing.T) {
	s := newSim(t, Config{})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	raw, err := base64.StdEncoding.DecodeString(s.jit("/orgs/acme", "one", "x"))
	if err != nil {
		t.Fatal(err)
	}
	var files map[string][]byte // encoding/json takes the inner base64 off
	if err := json.Unmarshal(raw, &files); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".runner", ".credentials", ".credentials_rsaparams"} {
		if !json.Valid(files[name]) {
			t.Errorf("file %s = %q, want JSON", name, files[name])
		}
	}
}
