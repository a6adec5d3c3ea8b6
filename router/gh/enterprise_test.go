package gh_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/githubsim/githubtest"
	"switchyard/rules"
)

func TestATokenServesAllScopes(t *testing.T) {
	for _, tt := range []struct {
		target router.Target
		runner rules.Runner
	}{
		{router.Target{Owner: "acme", Repo: "web"}, rules.Runner{Scope: "repository", Group: "1"}},
		{router.Target{Owner: "acme"}, rules.Runner{Scope: "organization", Group: "7"}},
		{router.Target{Enterprise: "big-corp"}, rules.Runner{Scope: "enterprise", Enterprise: "big-corp", Group: "7"}},
	} {
		t.Run(tt.runner.Scope, func(t *testing.T) {
			s := githubsim.New(githubsim.Config{Token: token, Enterprise: "big-corp", Groups: map[int64]string{1: "Default", 7: "big iron"}})
			t.Cleanup(s.Close)
			c := client(t, githubtest.Contract(t, s), nil)
			job := githubsim.JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}}
			first := s.Queue(t.Context(), job)
			req := router.ConfigRequest{Repo: rules.Repo{Owner: "acme", Name: "web"}, Runner: tt.runner, Labels: []string{"x"}}
			if got := router.TargetOf(req.Repo, req.Runner); got != tt.target {
				t.Fatalf("TargetOf = %+v, want %+v", got, tt.target)
			}

			req.Name = "one"
			cfg, err := c.RunnerConfig(t.Context(), req)
			if err != nil {
				t.Fatalf("RunnerConfig: %v", err)
			}
			want := router.GitHubRunner{ID: cfg.GitHubID, Name: "one", Labels: []string{"x"}}
			found, err := c.Runner(t.Context(), tt.target, "one")
			if err != nil || !cmp.Equal(found, want) {
				t.Errorf("Runner = %+v, %v, want %+v", found, err, want)
			}
			if err := s.Connect(t.Context(), string(cfg.JIT)); err != nil {
				t.Fatalf("Connect: %v", err)
			}
			if j, _ := s.Job(first); j.RunnerName != "one" {
				t.Errorf("the job was run by %q, want one", j.RunnerName)
			}
			if _, err := c.Runner(t.Context(), tt.target, "one"); !errors.Is(err, router.ErrNotFound) {
				t.Errorf("Runner after its job = %v, want ErrNotFound", err)
			}

			reg, err := c.RegistrationToken(t.Context(), req)
			if err != nil {
				t.Fatalf("RegistrationToken: %v", err)
			}
			made := githubsim.Registration{URL: reg.URL, Token: string(reg.Token), Name: "two", Group: reg.Group, Labels: req.Labels}
			if _, err := s.Register(made); err != nil {
				t.Fatalf("Register: %v", err)
			}
			list, err := c.Runners(t.Context(), tt.target)
			if err != nil || len(list) != 1 || list[0].Name != "two" || list[0].Online || list[0].Busy {
				t.Fatalf("Runners = %+v, %v, want two, offline", list, err)
			}
			if err := c.RemoveRunner(t.Context(), tt.target, list[0].ID); err != nil {
				t.Errorf("RemoveRunner = %v", err)
			}
			if err := c.RemoveRunner(t.Context(), tt.target, list[0].ID); err != nil {
				t.Errorf("RemoveRunner again = %v, want no error", err)
			}
			list, err = c.Runners(t.Context(), tt.target)
			if err != nil || len(list) != 0 {
				t.Errorf("Runners in the end = %+v, %v, want none", list, err)
			}
			if diff := cmp.Diff(0, s.Traffic().Over); diff != "" {
				t.Errorf("requests over a limit: %s", diff)
			}
		})
	}
}

func TestAnAppHasNoEnterprise(t *testing.T) {
	a := newAppTest(t, githubsim.Config{Enterprise: "big-corp"}, nil, "acme")
	req := request("enterprise", "gha-1", "x")
	req.Runner.Enterprise = "big-corp"
	_, err := a.client.RunnerConfig(t.Context(), req)
	if fix, ok := errors.AsType[*router.FixError](err); !ok || fix.Fix != "log in with a GitHub token that has the scope manage_runners:enterprise, which an owner of the enterprise big-corp can give" {
		t.Errorf("RunnerConfig = %v, want a *router.FixError that asks for a token", err)
	}
	if n := a.count(""); n != 0 {
		t.Errorf("GitHub was asked %d times, want none", n)
	}
}

func TestAnEnterpriseHasAName(t *testing.T) {
	c := client(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("GitHub was asked: %s", r.URL.Path) }), nil)
	for _, name := range []string{"", "..", "a/b", "a b"} {
		req := request("enterprise", "gha-1", "x")
		req.Runner.Enterprise = name
		if _, err := c.RunnerConfig(t.Context(), req); kind(err) != "give up" {
			t.Errorf("RunnerConfig in enterprise %q = %s: %v, want give up", name, kind(err), err)
		}
	}
}
