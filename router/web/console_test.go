package web_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// get asks for a page and wants this status.
func (s *server) get(path string, status int) string {
	s.t.Helper()
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8081"+path, nil))
	if rec.Code != status {
		s.t.Fatalf("GET %s = %d, want %d: %s", path, rec.Code, status, rec.Body)
	}
	if got := rec.Header().Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") {
		s.t.Errorf("GET %s has the content policy %q", path, got)
	}
	return rec.Body.String()
}

func TestPagesShowWhatThereIs(t *testing.T) {
	s := serve(t)
	for path, want := range map[string]string{
		"/":       "acme/web · build",
		"/jobs":   "acme/web · build",
		"/jobs/1": "Nomad has its runner, job gha-1-1",
	} {
		if body := s.get(path, http.StatusOK); !strings.Contains(body, want) {
			t.Errorf("GET %s has no %q:\n%s", path, want, body)
		}
	}
	if body := s.get("/jobs/99", http.StatusNotFound); !strings.Contains(body, "not found here") {
		t.Errorf("a job that there is not: %s", body)
	}
}

func TestTheNavigationNamesEachPageOnce(t *testing.T) {
	nav := regexp.MustCompile(`(?s)<nav aria-label="Console">.*?</nav>`).FindString(serve(t).get("/", http.StatusOK))
	var names []string
	for _, m := range regexp.MustCompile(`>([^<]+)</a>`).FindAllStringSubmatch(nav, -1) {
		names = append(names, m[1])
	}
	if got := strings.Join(names, " "); got != "Now Jobs Runners Labels Playground Fleet Usage What if Audit" {
		t.Errorf("the navigation is %s", got)
	}
}
