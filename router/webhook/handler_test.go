package webhook_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"switchyard/router"
	"switchyard/router/webhook"
)

const (
	secret    = "It's a Secret to Everybody" // GitHub's own example
	oldSecret = "the one before it, on its way out"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A hook is a handler with what it stored and logged.
type hook struct {
	http.Handler
	got []router.Delivery
	err error // what storing answers
	log bytes.Buffer
}

func newHook(t testing.TB, change ...func(*webhook.Config)) *hook {
	t.Helper()
	h := &hook{}
	cfg := webhook.Config{
		Secrets: []router.Secret{secret, oldSecret},
		Logger:  slog.New(slog.NewTextHandler(&h.log, nil)),
		Now:     func() time.Time { return now },
	}
	for _, c := range change {
		c(&cfg)
	}
	handler, err := webhook.Handler(cfg, func(_ context.Context, d router.Delivery) error {
		if h.err == nil {
			h.got = append(h.got, d)
		}
		return h.err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Handler = handler
	return h
}

func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// request is a delivery as GitHub sends it.
func request(body string) *http.Request { return signedBy(secret, body) }

func signedBy(secret, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhooks/github", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-GitHub-Event", "workflow_job")
	r.Header.Set("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
	r.Header.Set("X-Hub-Signature-256", sign(secret, []byte(body)))
	return r
}

func (h *hook) send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func (h *hook) storedNothing(t *testing.T) {
	t.Helper()
	if len(h.got) != 0 {
		t.Errorf("stored %+v", h.got)
	}
}

func want(t *testing.T, w *httptest.ResponseRecorder, status int, text string) {
	t.Helper()
	if w.Code != status || !strings.Contains(w.Body.String(), text) {
		t.Errorf("got %d %q, want %d and %q", w.Code, w.Body, status, text)
	}
	if w.Code >= 400 && (strings.Count(w.Body.String(), "\n") != 1 || w.Body.Len() > 600) {
		t.Errorf("the answer is not one short sentence: %q", w.Body)
	}
}

const queued = `{
  "action": "queued",
  "workflow_job": {
    "id": 29679449526, "run_id": 10000000001, "run_attempt": 3, "status": "queued", "conclusion": null,
    "name": "build (linux)", "labels": ["self-hosted", "Linux", "cpu=8"],
    "runner_name": null, "workflow_name": "CI", "head_branch": "main",
    "html_url": "https://github.com/acme/web/actions/runs/10000000001/job/29679449526",
    "something_new": {"a": [1, 2]}
  },
  "repository": {"name": "web", "full_name": "acme/web", "private": true, "visibility": "internal", "fork": true, "owner": {"login": "acme"}},
  "sender": {"login": "octocat"}
}`

func queuedDelivery() router.Delivery {
	d := router.Delivery{
		ID: "72d3162e-cc78-11e3-81ab-4c9367dc0958", Action: "queued", Status: "queued", ReceivedAt: now,
		Job: router.Job{
			ID: 29679449526, RunID: 10000000001, Attempt: 3,
			Name: "build (linux)", Workflow: "CI", Branch: "main", Sender: "octocat",
			Labels: []string{"self-hosted", "Linux", "cpu=8"},
			URL:    "https://github.com/acme/web/actions/runs/10000000001/job/29679449526",
		},
	}
	d.Job.Repo = router.Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "internal", Fork: true}
	return d
}

func TestASignedDeliveryIsStoredBeforeItIsAccepted(t *testing.T) {
	h := newHook(t)
	w := h.send(request(queued))
	want(t, w, http.StatusAccepted, "")
	if diff := cmp.Diff([]router.Delivery{queuedDelivery()}, h.got, cmpopts.IgnoreFields(router.Delivery{}, "Digest")); diff != "" {
		t.Errorf("stored (+), want (-):\n%s", diff)
	}
	if !strings.Contains(h.log.String(), `msg="delivery stored" delivery_id=72d3162e-cc78-11e3-81ab-4c9367dc0958 job_id=29679449526`) {
		t.Errorf("log is %s", &h.log)
	}
}

func TestADeliverySaysByWhichWebhookItCame(t *testing.T) {
	for _, tt := range []struct {
		kind, id string
		want     router.Hook
	}{
		{"integration", "17", router.Hook{Kind: router.HookApp}},
		{"organization", "17", router.Hook{Kind: router.HookOrganization, ID: 17, Owner: "acme"}},
		{"repository", "17", router.Hook{Kind: router.HookRepository, ID: 17, Owner: "acme", Repo: "web"}},
		{"repository", "0", router.Hook{}},
		{"organization", "1/../2", router.Hook{}},
		{"business", "17", router.Hook{}},
		{"", "", router.Hook{}},
	} {
		h := newHook(t)
		r := request(queued)
		r.Header.Set("X-GitHub-Hook-Installation-Target-Type", tt.kind)
		r.Header.Set("X-GitHub-Hook-ID", tt.id)
		want(t, h.send(r), http.StatusAccepted, "")
		if got := h.got[0].Hook; got != tt.want {
			t.Errorf("the hook of %q %q is %+v, want %+v", tt.kind, tt.id, got, tt.want)
		}
	}
}

func TestEitherSecretIsGood(t *testing.T) {
	h := newHook(t)
	for _, s := range []string{secret, oldSecret} {
		want(t, h.send(signedBy(s, queued)), http.StatusAccepted, "")
	}
	one := newHook(t, func(c *webhook.Config) { c.Secrets = c.Secrets[:1] })
	want(t, one.send(signedBy(oldSecret, queued)), http.StatusUnauthorized, "the signature is wrong")
}

// The example of https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries (2026-11-24).
func TestGitHubsExampleOfASignature(t *testing.T) {
	h := newHook(t)
	r := request("Hello, World!")
	r.Header.Set("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
	want(t, h.send(r), http.StatusBadRequest, "not JSON") // signed well, so it is read
	r = request("Hello, World?")
	r.Header.Set("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
	want(t, h.send(r), http.StatusUnauthorized, "the signature is wrong")
}

func TestPingIsAnsweredAndOtherEventsAreNotKept(t *testing.T) {
	h := newHook(t)
	for event, status := range map[string]int{"ping": http.StatusOK, "push": http.StatusNoContent, "workflow_run": http.StatusNoContent, "new_event": http.StatusNoContent} {
		r := request(`{"zen": "Keep it logically awesome."}`)
		r.Header.Set("X-GitHub-Event", event)
		w := h.send(r)
		want(t, w, status, "")
		if event == "ping" && w.Body.String() != `{"status":"ok"}`+"\n" {
			t.Errorf("ping is answered %q", w.Body)
		}
		r = signedBy("somebody else's secret", "{}")
		r.Header.Set("X-GitHub-Event", event)
		want(t, h.send(r), http.StatusUnauthorized, "")
	}
	want(t, h.send(request(`{"action": "new_action"}`)), http.StatusNoContent, "")
	h.storedNothing(t)
}

func TestBadRequests(t *testing.T) {
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Del(name)
			if value != "" {
				r.Header.Set(name, value)
			}
		}
	}
	const sig = "X-Hub-Signature-256"
	good := strings.TrimPrefix(sign(secret, []byte(queued)), "sha256=")
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		status int
		text   string
	}{
		{"GET", func(r *http.Request) { r.Method = http.MethodGet }, 405, "POST"},
		{"form encoding", header("Content-Type", "application/x-www-form-urlencoded"), 415, "set the webhook's content type to application/json"},
		{"no content type", header("Content-Type", ""), 415, "application/json"},
		{"a content type that cannot be read", header("Content-Type", "application/json; ="), 415, "application/json"},
		{"no event", header("X-GitHub-Event", ""), 400, "X-GitHub-Event is missing"},
		{"an event with a space", header("X-GitHub-Event", "workflow job"), 400, "X-GitHub-Event"},
		{"no delivery ID", header("X-GitHub-Delivery", ""), 400, "X-GitHub-Delivery is missing"},
		{"a long delivery ID", header("X-GitHub-Delivery", strings.Repeat("a", 129)), 400, "X-GitHub-Delivery"},
		{"a delivery ID with a line break", header("X-GitHub-Delivery", "a\nb"), 400, "X-GitHub-Delivery"},
		{"no signature", header(sig, ""), 401, "X-Hub-Signature-256 is missing"},
		{"only a SHA-1 signature", func(r *http.Request) {
			r.Header.Del(sig)
			r.Header.Set("X-Hub-Signature", "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6")
		}, 401, "SHA-256 signature (X-Hub-Signature-256) is required"},
		{"a SHA-1 digest in the SHA-256 header", header(sig, "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6"), 401, "sha256= and 64"},
		{"a good digest without its prefix", header(sig, good), 401, "sha256= and 64"},
		{"a good digest with another prefix", header(sig, "sha512="+good), 401, "sha256= and 64"},
		{"a digest that is too short", header(sig, "sha256="+good[:62]), 401, "sha256= and 64"},
		{"a digest that is too long", header(sig, "sha256="+good+"00"), 401, "sha256= and 64"},
		{"a digest that is not hexadecimal", header(sig, "sha256="+good[:63]+"g"), 401, "sha256= and 64"},
		{"a signature by another secret", header(sig, sign("somebody else's secret", []byte(queued))), 401, "the signature is wrong"},
		{"a signature by the empty secret", header(sig, sign("", []byte(queued))), 401, "the signature is wrong"},
		{"a length over the limit", func(r *http.Request) { r.ContentLength = 25<<20 + 1; r.Body = unread{t} }, 413, "more than 26214400 bytes"},
		{"a body that ends early", func(r *http.Request) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(queued[:99]), failing{}))
		}, 400, "ended early"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHook(t)
			r := request(queued)
			tt.change(r)
			want(t, h.send(r), tt.status, tt.text)
			h.storedNothing(t)
		})
	}
}

// unread fails a test that reads it.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func (u unread) Close() error { return nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestContentTypeMayHaveParameters(t *testing.T) {
	h := newHook(t)
	r := request(queued)
	r.Header.Set("Content-Type", "application/JSON; charset=utf-8")
	want(t, h.send(r), http.StatusAccepted, "")
}

func TestABodyOverTheLimitIsRefusedWhateverItsLengthSays(t *testing.T) {
	h := newHook(t, func(c *webhook.Config) { c.MaxBytes = 1000 })
	for _, length := range []int64{-1, 10} {
		r := request(queued + strings.Repeat(" ", 1000))
		r.ContentLength = length
		want(t, h.send(r), http.StatusRequestEntityTooLarge, "more than 1000 bytes")
	}
	h.storedNothing(t)
}

func TestAFailureToStoreIsLoggedAndNotShown(t *testing.T) {
	h := newHook(t)
	h.err = errors.New("disk /var/lib is full")
	w := h.send(request(queued))
	want(t, w, http.StatusServiceUnavailable, "could not be stored")
	if strings.Contains(w.Body.String(), "disk") || w.Header().Get("Retry-After") == "" {
		t.Errorf("answered %v %q", w.Header(), w.Body)
	}
	if log := h.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "disk /var/lib is full") {
		t.Errorf("log is %s", log)
	}
	h.err = nil
	want(t, h.send(request(queued)), http.StatusAccepted, "")
}

func TestStrangersCannotFloodTheLog(t *testing.T) {
	h := newHook(t)
	for i := range 100 {
		r := signedBy("somebody else's secret", queued)
		r.Header.Set("X-GitHub-Delivery", fmt.Sprintf("forged-%d-level=ERROR", i))
		h.send(r)
		h.send(httptest.NewRequest(http.MethodPost, "/webhooks/github", strings.NewReader("junk")))
	}
	if n := strings.Count(h.log.String(), "\n"); n != 1 {
		t.Errorf("200 requests without a good signature made %d lines, want 1:\n%s", n, &h.log)
	}
	h.send(request(`{"action": "queued", "workflow_job": []}`))
	if log := h.log.String(); strings.Count(log, "\n") != 2 || !strings.Contains(log, "workflow_job must be an object") {
		t.Errorf("a signed delivery that is refused is not logged:\n%s", log)
	}
}

func TestSecretsAreChecked(t *testing.T) {
	for _, tt := range []struct {
		name    string
		secrets []router.Secret
		text    string
	}{
		{"none", nil, "got 0 secrets"},
		{"three", []router.Secret{secret, oldSecret, secret}, "got 3 secrets"},
		{"an empty one", []router.Secret{""}, "secret 1 has 0 bytes"},
		{"a short one", []router.Secret{secret, "123456789012345"}, "secret 2 has 15 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := webhook.Handler(webhook.Config{Secrets: tt.secrets}, nil)
			if err == nil || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "1234") {
				t.Errorf("got error %v, want %q and no secret", err, tt.text)
			}
		})
	}
}

// GitHub gives up an answer after 10 s. A database that is stuck gets half of that.
func TestADeliveryThatCannotBeStoredIsAnsweredInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := webhook.Handler(webhook.Config{Secrets: []router.Secret{secret}, Logger: slog.New(slog.DiscardHandler)}, func(ctx context.Context, _ router.Delivery) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request(queued))
		want(t, w, http.StatusServiceUnavailable, "could not be stored")
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it is answered after %v", took)
		}
	})
}
