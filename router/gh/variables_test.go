package gh_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"switchyard/router"
	"switchyard/router/githubsim"
)

var (
	ofWeb  = router.Variable{Owner: "acme", Repo: "web", Name: "LINUX_RUNNER"}
	ofAcme = router.Variable{Owner: "acme", Name: "Linux_Runner"}
)

func TestAVariableIsReadAndSet(t *testing.T) {
	a := newAppTest(t, githubsim.Config{App: &githubsim.App{ID: appID, Permissions: map[string]string{
		"actions_variables": "write", "organization_actions_variables": "write", "metadata": "read",
	}}}, nil, "acme")
	a.SetVariable("acme", "", "LINUX_RUNNER", `"linux"`)
	a.SetVariable("acme", "web", "LINUX_RUNNER", `"web"`)
	for v, want := range map[router.Variable]string{ofWeb: `"web"`, ofAcme: `"linux"`} {
		if got, err := a.client.Variable(t.Context(), v); got != want || err != nil {
			t.Errorf("Variable(%v) = %s, %v, want %s", v, got, err, want)
		}
		if err := a.client.SetVariable(t.Context(), v, `["a","b"]`); err != nil {
			t.Errorf("SetVariable(%v): %v", v, err)
		}
		if got, err := a.client.Variable(t.Context(), v); got != `["a","b"]` || err != nil {
			t.Errorf("Variable(%v) = %s, %v after it was set", v, got, err)
		}
	}
	other := router.Variable{Owner: "acme", Repo: "api", Name: "OTHER"}
	if _, err := a.client.Variable(t.Context(), other); !errors.Is(err, router.ErrNotFound) {
		t.Errorf("Variable of one that is missing: %v", err)
	}
	if err := a.client.SetVariable(t.Context(), other, "x"); !errors.Is(err, router.ErrNotFound) {
		t.Errorf("SetVariable of one that is missing: %v; it must not be made", err)
	}
	if n := a.count("GET /repos/acme/web/installation") + a.count("GET /orgs/acme/installation") + a.count("GET /repos/acme/api/installation"); n != 1 {
		t.Errorf("the installation was looked up %d times: a variable that is missing says nothing of it", n)
	}
}

// The reason names the one permission that is needed, and for whom.
func TestAVariableThatMayNotBeReadNamesThePermission(t *testing.T) {
	a := newAppTest(t, githubsim.Config{}, nil, "acme") // which has no permission for variables
	a.SetVariable("acme", "", "LINUX_RUNNER", `"linux"`)
	for v, want := range map[router.Variable]string{
		ofWeb:  "repository permission Variables (read) on acme/web",
		ofAcme: "organization permission Variables (read) on acme",
	} {
		_, err := a.client.Variable(t.Context(), v)
		fix, ok := errors.AsType[*router.FixError](err)
		if !ok || !strings.Contains(fix.Fix, want) {
			t.Errorf("Variable(%v): %v, want a fix with %q", v, err, want)
		}
		err = a.client.SetVariable(t.Context(), v, "x")
		if fix, ok = errors.AsType[*router.FixError](err); !ok || !strings.Contains(fix.Fix, strings.Replace(want, "read", "write", 1)) {
			t.Errorf("SetVariable(%v): %v", v, err)
		}
	}
	for _, v := range []router.Variable{{Owner: "acme/x", Name: "A"}, {Owner: "acme", Repo: "..", Name: "A"}} {
		if _, err := a.client.Variable(t.Context(), v); !errors.As(err, new(*router.GiveUpError)) {
			t.Errorf("Variable(%v): %v, want a *router.GiveUpError", v, err)
		}
	}
}

// An answer that is not GitHub's changes nothing.
func TestAnAnswerThatIsNoVariableIsAnError(t *testing.T) {
	a := newAppTest(t, githubsim.Config{}, nil, "acme")
	for _, body := range []string{`{}`, `{"name":"A"}`, `{"name":"A","value":5}`, `[]`, `<html>`, `{"name":"A","value":"` + strings.Repeat("x", 49<<10) + `"}`} {
		a.instead = func(req *http.Request) (*http.Response, error) {
			if !strings.Contains(req.URL.Path, "/variables/") {
				return nil, nil
			}
			rec := httptest.NewRecorder()
			rec.WriteHeader(http.StatusOK)
			_, _ = rec.WriteString(body)
			return rec.Result(), nil
		}
		if v, err := a.client.Variable(t.Context(), ofWeb); err == nil {
			t.Errorf("%.20s: Variable = %.20q, want an error", body, v)
		}
		a = newAppTest(t, githubsim.Config{}, nil, "acme") // as three such answers in a row end all calls
	}
}
