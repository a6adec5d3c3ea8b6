package gh_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/rules"
)

func TestRunnersAreListedPageByPage(t *testing.T) {
	c, _ := simulated(t, githubsim.Config{Token: token})
	for i := range 205 {
		if _, err := c.RunnerConfig(t.Context(), request("organization", fmt.Sprint("r", i), "x")); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.Runners(t.Context(), acme)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range list {
		seen[r.Name] = true
	}
	if len(list) != 205 || len(seen) != 205 {
		t.Errorf("Runners = %d, %d of them different, want 205", len(list), len(seen))
	}
	if r, err := c.Runner(t.Context(), acme, "R204"); err != nil || r.Name != "r204" {
		t.Errorf("Runner = %+v, %v, want r204", r, err)
	}
	if list, err := c.Runners(t.Context(), router.Target{Owner: "acme", Repo: "web"}); err != nil || len(list) != 0 {
		t.Errorf("the repository's runners = %v, %v, want none", list, err)
	}
}

func TestARunnerAtWorkIsLeft(t *testing.T) {
	c, s := simulated(t, githubsim.Config{Token: token})
	target := router.Target{Owner: "acme", Repo: "web"}
	id := s.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}, Duration: time.Hour})
	cfg, err := c.RunnerConfig(t.Context(), request("repository", "r1", "x"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Connect(ctx, string(cfg.JIT)) }()
	for j, _ := s.Job(id); j.Status != "in_progress"; j, _ = s.Job(id) {
		time.Sleep(time.Millisecond)
	}
	if r, err := c.Runner(t.Context(), target, "r1"); err != nil || !cmp.Equal(r, router.GitHubRunner{ID: cfg.GitHubID, Name: "r1", Online: true, Busy: true, Labels: []string{"x"}, Version: "2.336.0"}) {
		t.Errorf("Runner = %+v, %v, want it online and busy", r, err)
	}
	if err := c.RemoveRunner(t.Context(), target, cfg.GitHubID); !errors.Is(err, router.ErrBusy) || !strings.Contains(fmt.Sprint(err), "still running a job") {
		t.Errorf("RemoveRunner = %v, want ErrBusy with GitHub's words", err)
	}
	cancel()
	<-ended
	if err := c.RemoveRunner(t.Context(), target, cfg.GitHubID); err != nil {
		t.Errorf("RemoveRunner after the job = %v, want no error: it is gone", err)
	}
}

func TestARunnerThatWeMayNotSeeIsNotGone(t *testing.T) {
	c, _ := simulated(t, githubsim.Config{Token: token})
	for _, target := range []router.Target{{Owner: "none"}, {Owner: "acme", Repo: "none"}} {
		if err := c.RemoveRunner(t.Context(), target, 1); kind(err) != "fix" {
			t.Errorf("RemoveRunner of %+v = %s: %v, want fix", target, kind(err), err)
		}
		if _, err := c.Runner(t.Context(), target, "r1"); kind(err) != "fix" || errors.Is(err, router.ErrNotFound) {
			t.Errorf("Runner of %+v = %s: %v, want fix", target, kind(err), err)
		}
	}
}

func TestWhatIsGoneCostsAnAppNoLookUp(t *testing.T) {
	a := newAppTest(t, githubsim.Config{}, nil, "acme")
	for range 3 {
		if err := a.client.RemoveRunner(t.Context(), acme, 99); err != nil {
			t.Errorf("RemoveRunner = %v", err)
		}
		if _, err := a.client.Job(t.Context(), rules.Repo{Owner: "acme", Name: "web"}, 99); !errors.Is(err, router.ErrNotFound) {
			t.Errorf("Job = %v, want ErrNotFound", err)
		}
	}
	if n := a.count("GET", "/installation"); n != 1 {
		t.Errorf("the installation was looked up %d times, want once", n)
	}
}

func TestAJobIsReadAsADeliveryWouldSayIt(t *testing.T) {
	c, s := simulated(t, githubsim.Config{Token: token})
	repo := rules.Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true}
	waiting, _ := s.Job(s.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}, Waiting: true}))
	queued, _ := s.Job(s.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Name: strings.Repeat("é", 300), Labels: []string{strings.Repeat("X", 300)}}))
	taken, _ := s.Job(s.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Labels: []string{"y"}}))
	cfg, err := c.RunnerConfig(t.Context(), request("repository", "r1", "y"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Connect(t.Context(), string(cfg.JIT)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		job                                      githubsim.Job
		action, status, name, runner, conclusion string
		label                                    string
	}{
		{waiting, "queued", "waiting", "build", "", "", "x"},
		{queued, "queued", "queued", strings.Repeat("é", 256), "", "", strings.Repeat("X", 257)},
		{taken, "completed", "completed", "build", "r1", "success", "y"},
	} {
		got, err := c.Job(t.Context(), repo, tt.job.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.Job.URL == "" || len(got.Job.SHA) != 40 || got.ReceivedAt.IsZero() {
			t.Errorf("Job %d = %+v, want its page, commit and time", tt.job.ID, got)
		}
		if (got.RunnerID > 0) != (tt.runner != "") {
			t.Errorf("Job %d names runner %q with ID %d", tt.job.ID, tt.runner, got.RunnerID)
		}
		want := router.Delivery{
			Source: router.SourceGitHub, Action: tt.action, Status: tt.status, RunnerID: got.RunnerID, ReceivedAt: got.ReceivedAt,
			Job: router.Job{
				ID: tt.job.ID, RunID: tt.job.RunID, Attempt: 1, Repo: repo, Name: tt.name, Workflow: "CI", Branch: "main", Labels: []string{tt.label},
				URL: got.Job.URL, SHA: got.Job.SHA, RunnerName: tt.runner, Conclusion: tt.conclusion,
			},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Job %d (-want +got):\n%s", tt.job.ID, diff)
		}
	}
}

func TestOddListsOfRunnersAreRefusedWhole(t *testing.T) {
	const one = `{"id": 1, "name": "r1", "status": "online", "busy": false}`
	for _, tt := range []struct{ name, link, body string }{
		{"no ID", "", `{"runners": [` + one + `, {"name": "r2", "status": "online", "busy": false}]}`},
		{"no name", "", `{"runners": [{"id": 2, "status": "online", "busy": false}]}`},
		{"an endless name", "", `{"runners": [{"id": 2, "name": "` + strings.Repeat("r", 300) + `", "status": "online", "busy": false}]}`},
		{"not whether it is busy", "", `{"runners": [{"id": 2, "name": "r2", "status": "online"}]}`},
		{"a page of 101", "", `{"runners": [` + strings.Repeat(one+",", 100) + one + `]}`},
		{"a page that leads to itself", "1", `{"runners": [` + one + `]}`},
		{"a page that leads far away", "9", `{"runners": [` + one + `]}`},
		{"another type", "", `{"runners": {}}`},
		{"HTML", "", `<html>`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if calls++; tt.link != "" {
					w.Header().Set("Link", fmt.Sprintf(`<https://api.github.com%s?page=%s>; rel="next"`, r.URL.Path, tt.link))
				}
				answer(w, 200, tt.body)
			}), nil)
			if list, err := c.Runners(t.Context(), acme); err == nil || list != nil || kind(err) != "retry" {
				t.Errorf("Runners = %v, %s: %v, want retry", list, kind(err), err)
			}
			if calls != 1 {
				t.Errorf("GitHub was asked %d times, want once", calls)
			}
		})
	}
}

func TestAListWithoutAnEndIsLeft(t *testing.T) {
	calls := 0
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		w.Header().Set("Link", fmt.Sprintf(`<https://api.github.com%s?page=%d>; rel="next"`, r.URL.Path, calls+1))
		answer(w, 200, `{"runners": []}`)
	}), nil)
	if _, err := c.Runners(t.Context(), acme); kind(err) != "retry" || calls != 1000 {
		t.Errorf("Runners = %s: %v after %d pages, want retry after 1000", kind(err), err, calls)
	}
}
