package githubsim

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"switchyard/router/githubsim/githubtest"

	"github.com/google/go-cmp/cmp"
)

// ask makes a request without a network.
func ask(t *testing.T, s *Server, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	githubtest.Contract(t, s).ServeHTTP(w, newRequest(method, path, body))
	return w
}

func newRequest(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

// register makes a just-in-time runner in acme/web with its name as its label.
func register(t *testing.T, s *Server, name string) string {
	t.Helper()
	w := ask(t, s, "POST", "/repos/acme/web/actions/runners/generate-jitconfig", fmt.Sprintf(`{"name": %q, "runner_group_id": 1, "labels": [%[1]q]}`, name))
	if w.Code != 201 {
		t.Fatalf("generate-jitconfig for %s = %d %s", name, w.Code, w.Body)
	}
	return decode(t, w.Body.Bytes())["encoded_jit_config"].(string)
}

func newServer(t *testing.T, cfg Config) *Server {
	s := New(cfg)
	t.Cleanup(s.Close)
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	return s
}

func TestErrorsComeBySeedAndSomeAreLate(t *testing.T) {
	story := func(seed uint64, other bool) (codes []int, runners int) {
		s := newServer(t, Config{})
		s.SetFaults(Faults{ErrorRate: 0.3, Seed: seed})
		for i := range 100 {
			if other { // comes between, and changes nothing
				ask(t, s, "GET", "/orgs/acme/actions/runners", "")
			}
			body := fmt.Sprintf(`{"name": "r%d", "runner_group_id": 1, "labels": ["x"]}`, i)
			codes = append(codes, ask(t, s, "POST", "/repos/acme/web/actions/runners/generate-jitconfig", body).Code)
		}
		return codes, len(s.runners)
	}
	first, runners := story(1, false)
	again, _ := story(1, true)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the same seed ends otherwise:\n%s", diff)
	}
	if second, _ := story(2, false); cmp.Equal(first, second) {
		t.Error("another seed ends the same")
	}
	count := map[int]int{}
	for _, c := range first {
		count[c]++
	}
	if count[500] == 0 || count[502] == 0 || count[503] == 0 || count[201] < 50 || count[201] > 90 {
		t.Errorf("answers by status = %v, want about 70 of 201 and each error", count)
	}
	if runners <= count[201] || runners >= 100 {
		t.Errorf("%d runners and %d answers that say so, want more runners as some errors come after the fact", runners, count[201])
	}
}

func TestAMinuteOfRateLimiting(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		secondary bool
		codes     [2]int
		header    string
		want      string
	}{
		{false, [2]int{403, 403}, "X-RateLimit-Reset", fmt.Sprint(now.Add(time.Minute).Unix())},
		{true, [2]int{403, 429}, "Retry-After", "61"},
	} {
		s := newServer(t, Config{Now: func() time.Time { return now }})
		s.SetFaults(Faults{LimitedUntil: now.Add(time.Minute), Secondary: tt.secondary})
		for i := range 2 {
			w := ask(t, s, "GET", "/orgs/acme/actions/runners", "")
			if w.Code != tt.codes[i] || w.Header().Get(tt.header) != tt.want {
				t.Errorf("secondary %t: request %d = %d with %v, want %d with %s: %s", tt.secondary, i, w.Code, w.Header(), tt.codes[i], tt.header, tt.want)
			}
		}
		now = now.Add(time.Minute)
		if w := ask(t, s, "GET", "/orgs/acme/actions/runners", ""); w.Code != 200 {
			t.Errorf("secondary %t: a minute later = %d, want 200", tt.secondary, w.Code)
		}
		now = now.Add(-time.Minute)
		if got, want := s.Traffic(), (Traffic{Requests: 3, Faults: 2}); got != want {
			t.Errorf("Traffic = %+v, want %+v", got, want)
		}
	}
}

func TestSecondaryLimitsAreOfAnEndpointAndAPlace(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	s := newServer(t, Config{Points: 10, Registrations: 3, Now: func() time.Time { return now }})
	s.AddRepo(Repo{Owner: "acme", Name: "api"})
	n := 0
	jit := func(path string, want int) {
		t.Helper()
		n++
		body := fmt.Sprintf(`{"name": "r%d", "runner_group_id": 1, "labels": ["x"]}`, n)
		if w := ask(t, s, "POST", path+"/actions/runners/generate-jitconfig", body); w.Code != want {
			t.Errorf("registration %d in %s = %d, want %d", n, path, w.Code, want)
		}
	}
	jit("/repos/acme/web", 201)
	jit("/repos/acme/api", 201) // the endpoint is the same
	jit("/repos/acme/web", 403)
	jit("/orgs/acme", 201)
	now = now.Add(time.Minute)
	jit("/repos/acme/web", 201)
	jit("/repos/ACME/web", 201)
	now = now.Add(time.Minute)
	jit("/repos/acme/web", 403) // three in five minutes
	jit("/repos/acme/api", 201)
	now = now.Add(3 * time.Minute)
	jit("/repos/acme/web", 201)
	if got := s.Traffic(); got.Over != 2 || got.Requests != 9 {
		t.Errorf("Traffic = %+v, want 2 of 9 over", got)
	}
}
