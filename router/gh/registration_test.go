package gh_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/gh"
)

func TestARegistrationTokenIsSharedUntilItNearlyExpires(t *testing.T) {
	var mu sync.Mutex
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var asked, groups atomic.Int32
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "POST /orgs/acme/actions/runners/registration-token":
			mu.Lock()
			defer mu.Unlock()
			answer(w, 201, fmt.Sprintf(`{"token": "T%d", "expires_at": %q}`, asked.Add(1), now.Add(time.Hour).Format(time.RFC3339)))
		case "GET /orgs/acme/actions/runner-groups/7":
			groups.Add(1)
			answer(w, 200, `{"id": 7, "name": "big iron"}`)
		default:
			t.Errorf("GitHub was asked %s %s", r.Method, r.URL.Path)
			http.NotFound(w, r)
		}
	}), func(cfg *gh.Config) {
		cfg.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	ask := func(want router.Secret) {
		t.Helper()
		req := request("organization", "gha-1-1", "self-hosted", "linux")
		req.Runner.Group = "7"
		got, err := c.RegistrationToken(t.Context(), req)
		if err != nil {
			t.Errorf("RegistrationToken = %v", err)
			return
		}
		if string(got.Token) != string(want) || got.Group != "big iron" || !strings.HasSuffix(got.URL, "/acme") || !got.Expires.After(now) {
			t.Errorf("RegistrationToken = %q of group %q at %s, want %q of big iron at …/acme", string(got.Token), got.Group, got.URL, string(want))
		}
	}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { ask("T1") })
	}
	wg.Wait()
	now = now.Add(45 * time.Minute)
	ask("T1")
	now = now.Add(time.Second)
	ask("T2")
	if asked.Load() != 2 || groups.Load() != 1 {
		t.Errorf("GitHub was asked for %d tokens and %d groups, want 2 and 1", asked.Load(), groups.Load())
	}
}

func TestWhatConfigShWouldReadOtherwiseIsRefused(t *testing.T) {
	c := client(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("GitHub was asked: %s", r.URL.Path) }), nil)
	for _, labels := range [][]string{nil, {""}, {"self-hosted", "a,b"}, {" a"}, {"a\n"}} {
		if _, err := c.RegistrationToken(t.Context(), request("organization", "gha-1", labels...)); kind(err) != "give up" {
			t.Errorf("RegistrationToken with the labels %q = %s: %v, want give up", labels, kind(err), err)
		}
	}
	req := request("repository", "gha-1", "x")
	req.Runner.Group = "7"
	if _, err := c.RegistrationToken(t.Context(), req); kind(err) != "give up" {
		t.Errorf("RegistrationToken with a repository's runner group = %s: %v, want give up", kind(err), err)
	}
}

func TestARegistrationIsAtThePageOfItsTarget(t *testing.T) {
	for _, tt := range []struct{ base, scope, want string }{
		{"", "repository", "https://github.com/acme/web"},
		{"", "organization", "https://github.com/acme"},
		{"https://api.tenant.ghe.com", "organization", "https://tenant.ghe.com/acme"},
		{"https://github.acme.example/api/v3", "repository", "https://github.acme.example/acme/web"},
		{"https://api.acme.example/git/api/v3/", "organization", "https://api.acme.example/git/acme"},
	} {
		c, err := gh.New(gh.Config{Token: gh.StaticToken(token), BaseURL: tt.base, HTTPClient: &http.Client{Transport: answers(func(*http.Request) (int, string) {
			return 201, `{"token": "T", "expires_at": "2100-01-01T00:00:00Z"}`
		})}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.RegistrationToken(t.Context(), request(tt.scope, "gha-1", "x"))
		if err != nil {
			t.Fatal(err)
		}
		want := router.Registration{Token: "T", URL: tt.want, Expires: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s at %q (-want +got):\n%s", tt.scope, tt.base, diff)
		}
	}
}

// answers is a GitHub without a network.
type answers func(*http.Request) (status int, body string)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	status, body := f(r)
	answer(rec, status, body)
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}
