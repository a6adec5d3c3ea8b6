package gh_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"switchyard/router"
	"switchyard/router/gh"
)

func TestAnInstanceIsFoundByHostAndByID(t *testing.T) {
	asked := map[string][]string{} // paths by name
	client := func(name string) *gh.Client {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked[name] = append(asked[name], r.URL.Path)
			w.Header().Set("Content-Type", "application/json")
			switch {
			case strings.HasSuffix(r.URL.Path, "/actions/jobs/7"):
				_, _ = w.Write([]byte(`{"id": 7, "run_id": 70, "status": "queued", "name": "build", "labels": ["linux"]}`))
			default:
				http.Error(w, `{"message": "no"}`, http.StatusForbidden)
			}
		}))
		t.Cleanup(server.Close)
		c, err := gh.New(gh.Config{Token: gh.StaticToken("t"), BaseURL: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, second := client("first"), client("second")
	g := gh.NewInstances(first)
	if err := g.Add(3, second); err != nil {
		t.Fatal(err)
	}
	for number, want := range map[int64]string{0: "want 1 to 31", 32: "want 1 to 31", 4: "listed twice"} {
		if err := g.Add(number, second); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Add(%d) = %v, want %q", number, err, want)
		}
	}
	if err := g.Add(3, client("third")); err == nil || !strings.Contains(err.Error(), "both have number 3") {
		t.Errorf("Add of a number that is taken = %v", err)
	}

	in := router.Instance{Number: 3, Host: second.Host()}
	repo := router.Repo{Host: in.Host, Owner: "acme", Name: "web", FullName: "acme/web"}
	d, err := g.Job(t.Context(), repo, in.ID(7))
	if err != nil || d.Job.ID != in.ID(7) || d.Job.RunID != in.ID(70) || d.Job.Repo.Host != in.Host || len(asked["first"]) > 0 {
		t.Errorf("Job = %+v, err %v, the first was asked %v; want the second's, with its IDs", d.Job, err, asked["first"])
	}
	// One recorded before there were others has no host.
	d, err = g.Job(t.Context(), router.Repo{Owner: "acme", Name: "web"}, 7)
	if err != nil || d.Job.ID != 7 || d.Job.Repo.Host != first.Host() || len(asked["second"]) != 1 {
		t.Errorf("Job = %+v, err %v; want the first's", d.Job, err)
	}
	_, err = g.Runners(t.Context(), router.Target{Host: in.Host, Owner: "acme"})
	if err == nil || !strings.HasPrefix(err.Error(), in.Host+": ") || len(asked["second"]) != 2 {
		t.Errorf("Runners = %v, want the second's refusal", err)
	}
	for what, err := range map[string]error{
		"a host":   g.Admit(t.Context(), router.Admission{Target: router.Target{Host: "gone.example", Owner: "acme"}}),
		"a number": g.CancelRun(t.Context(), repo, router.Instance{Number: 9}.ID(1)),
	} {
		if _, ok := errors.AsType[*router.FixError](err); !ok || !strings.Contains(err.Error(), "is not configured any more") {
			t.Errorf("%s that is not configured = %v, want what to fix", what, err)
		}
	}
}

func TestTheHostIsThatOfTheSite(t *testing.T) {
	for url, want := range map[string]string{
		"": "github.com", "https://api.github.com/": "github.com", "https://api.acme.ghe.com/": "acme.ghe.com",
		"https://GHE.example:8443/api/v3/": "ghe.example:8443",
	} {
		c, err := gh.New(gh.Config{Token: gh.StaticToken("t"), BaseURL: url})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Host(); got != want {
			t.Errorf("the host of %q is %q, want %q", url, got, want)
		}
	}
}
