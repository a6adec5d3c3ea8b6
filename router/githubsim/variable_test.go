package githubsim

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestVariablesOfOrganizationsAndRepositories(t *testing.T) {
	s := newSim(t, Config{})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/orgs/acme/actions/variables", `{"name": "linux_runner", "value": "\"linux\"", "visibility": "all"}`, http.StatusCreated},
		{"POST", "/orgs/acme/actions/variables", `{"name": "LINUX_RUNNER", "value": "x", "visibility": "all"}`, http.StatusConflict},
		{"POST", "/orgs/acme/actions/variables", `{"name": "OTHER", "value": "x"}`, http.StatusUnprocessableEntity},
		{"POST", "/repos/acme/web/actions/variables", `{"name": "GITHUB_X", "value": "x"}`, http.StatusUnprocessableEntity},
		{"POST", "/repos/acme/web/actions/variables", `{"name": "A-B", "value": "x"}`, http.StatusUnprocessableEntity},
		{"POST", "/repos/acme/web/actions/variables", `{`, http.StatusBadRequest},
		{"POST", "/repos/acme/web/actions/variables", `{"name": "A", "value": "1"}`, http.StatusCreated},
		{"POST", "/repos/acme/web/actions/variables", `{"name": "B", "value": "2"}`, http.StatusCreated},
		{"GET", "/repos/acme/web/actions/variables/c", "", http.StatusNotFound},
		{"GET", "/repos/acme/none/actions/variables/a", "", http.StatusNotFound},
		{"GET", "/orgs/acme/actions/variables/Linux_Runner", "", http.StatusOK},
		{"PATCH", "/repos/acme/web/actions/variables/a", `{"value": "3"}`, http.StatusNoContent},
		{"PATCH", "/repos/acme/web/actions/variables/a", `{"name": "b"}`, http.StatusConflict},
		{"PATCH", "/repos/acme/web/actions/variables/c", `{"value": "3"}`, http.StatusNotFound},
		{"PATCH", "/orgs/acme/actions/variables/linux_runner", `{"visibility": "some"}`, http.StatusUnprocessableEntity},
		{"PATCH", "/orgs/acme/actions/variables/linux_runner", `{"visibility": "selected"}`, http.StatusNoContent},
		{"GET", "/orgs/acme/actions/variables", "", http.StatusOK},
		{"DELETE", "/repos/acme/web/actions/variables/b", "", http.StatusNoContent},
		{"DELETE", "/repos/acme/web/actions/variables/b", "", http.StatusNotFound},
	} {
		if status, answer := s.call(c.method, c.path, c.body); status != c.want {
			t.Errorf("%s %s %s = %d %v, want %d", c.method, c.path, c.body, status, answer, c.want)
		}
	}
	_, list := s.call("GET", "/repos/acme/web/actions/variables?per_page=5", "")
	if got := names(t, list.(map[string]any)["variables"], "name"); !slices.Equal(got, []string{"A"}) {
		t.Errorf("the repository has %v", got)
	}
}

// As on GitHub, a repository's variable hides one of its organization.
func TestAWorkflowReadsItsRepositorysVariableFirst(t *testing.T) {
	s := newSim(t, Config{})
	s.SetVariable("acme", "", "RUNNER", "organization")
	s.SetVariable("acme", "web", "RUNNER", "first")
	s.SetVariable("Acme", "Web", "runner", "repository")
	got := []string{s.Variable("acme", "web", "runner"), s.Variable("acme", "api", "RUNNER"), s.Variable("beta", "web", "RUNNER")}
	s.RemoveVariable("acme", "web", "RUNNER")
	got = append(got, s.Variable("acme", "web", "RUNNER"))
	if want := []string{"repository", "organization", "", "organization"}; !slices.Equal(got, want) {
		t.Errorf("vars.RUNNER is %q, want %q", strings.Join(got, ","), want)
	}
}
