package githubsim

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestRunsAreListedByStatus(t *testing.T) {
	s := newSim(t, Config{})
	var runs []string
	for range 3 {
		j, _ := s.Job(s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}}))
		runs = append(runs, fmt.Sprint(j.RunID))
	}
	s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "api"})
	w, _ := s.Job(s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Waiting: true}))
	first, _ := s.Job(s.Jobs()[0].ID)
	if err := s.Cancel(first.ID); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string][]string{
		"status=queued": {runs[2], runs[1]}, "status=waiting": {fmt.Sprint(w.RunID)}, "status=completed": {runs[0]}, "status=in_progress": {},
		"status=cancelled": {runs[0]}, "status=queued&per_page=1&page=2": {runs[1]},
	} {
		_, answer := s.call("GET", "/repos/acme/web/actions/runs?"+query, "")
		if got := names(t, answer.(map[string]any)["workflow_runs"], "id"); !slices.Equal(got, want) {
			t.Errorf("the runs of %s = %v, want %v", query, got, want)
		}
	}
}

func TestInstallationsAndTheirRepositoriesAreListed(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	key := newRSAKey(t)
	s := newSim(t, Config{Token: "t", App: &App{ID: 17, Key: &key.PublicKey}, Now: func() time.Time { return now }})
	for _, name := range []string{"web", "api"} {
		s.AddRepo(Repo{Owner: "acme", Name: name})
		s.AddRepo(Repo{Owner: "beta", Name: name})
	}
	id := s.Install("acme")
	s.Install("beta", "web")
	app := signedJWT(t, key, "RS256", now, nil)
	if _, answer := s.callAs(app, "GET", "/app/installations", ""); len(answer.([]any)) != 2 {
		t.Errorf("the installations = %v, want two", answer)
	}
	_, answer := s.callAs(s.tokenOf(app, id), "GET", "/installation/repositories", "")
	if got := names(t, answer.(map[string]any)["repositories"], "full_name"); !slices.Equal(got, []string{"acme/api", "acme/web"}) {
		t.Errorf("the repositories = %v", got)
	}
	if status, _ := s.call("GET", "/installation/repositories", ""); status != 403 {
		t.Errorf("the repositories of a token = %d, want 403", status)
	}
}
