package gh_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
)

// held checks that no runner is admitted in a place, as GitHub fails.
func (a *appTest) held(t router.Target, says string) {
	a.t.Helper()
	err := a.client.Admit(a.t.Context(), in(t))
	if later, ok := errors.AsType[*router.RetryAtError](err); !ok || !later.Failing || later.Line == "" || !strings.Contains(err.Error(), says) {
		a.t.Errorf("Admit = %v, want it held, with %q", err, says)
	}
}

func (a *appTest) admitted(t router.Target) {
	a.t.Helper()
	if err := a.client.Admit(a.t.Context(), in(t)); err != nil {
		a.t.Errorf("Admit = %v, want none", err)
	}
}

// Whatever way a login fails, it is left alone but for a probe, and others go on.
func TestALoginThatFailsIsProbed(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){
		"500": func(r *http.Request) (*http.Response, error) { return made(r, 500, nil, `{"message": "no"}`), nil },
		"401": func(r *http.Request) (*http.Response, error) {
			return made(r, 401, nil, `{"message": "Bad credentials"}`), nil
		},
		"a cut connection":  func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
		"a page of HTML":    func(r *http.Request) (*http.Response, error) { return made(r, 201, nil, "<html>"), nil },
		"silence":           func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() },
		"a body that stops": func(r *http.Request) (*http.Response, error) { return made(r, 201, nil, `{"runner": {`), nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAppTest(t, githubsim.Config{}, nil, "acme", "beta")
				a.want("acme", "", "none")
				a.want("beta", "", "none")
				a.instead = func(r *http.Request) (*http.Response, error) {
					if strings.HasPrefix(r.URL.Path, "/orgs/acme/") || r.URL.Path == "/rate_limit" || name == "401" && (strings.HasSuffix(r.URL.Path, "/access_tokens") || r.URL.Path == "/app") {
						return answer(r)
					}
					return nil, nil
				}
				for range 3 {
					if err := a.claim(t.Context(), "acme", ""); err == nil {
						t.Fatal("a claim succeeds")
					}
				}
				asked := a.count("")
				for range 100 {
					a.held(acme, "GitHub has failed for ")
				}
				if n := a.count("") - asked; n > 2 {
					t.Errorf("GitHub was asked %d times for runners that wait, want one probe at most", n)
				}
				a.admitted(router.Target{Owner: "beta"})
				a.want("beta", "", "none")

				began, asked := time.Now(), a.count("")
				for time.Since(began) < 10*time.Minute {
					a.held(acme, "GitHub has failed for ")
					time.Sleep(300 * time.Millisecond)
				}
				if n := a.count("") - asked; n < 20 || n > 130 { // a probe that logs in first is two
					t.Errorf("GitHub was asked %d times in ten minutes, want it every 10 s", n)
				}
				a.instead = nil
				time.Sleep(11 * time.Second)
				a.admitted(acme)
				a.want("acme", "", "none")
				a.admitted(acme)
			})
		})
	}
}

// A runner may start when there will be room for it in a moment, but not while its
// registration would fail: then hundreds would start at once.
func TestALimitDoesNotHideThatRegistrationsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, func(cfg *gh.Config) { cfg.Limits.Points = 15 }, "acme")
		a.SetFaults(githubsim.Faults{ErrorRate: 1, Status: 503, Path: "generate-jitconfig"})
		for range 3 { // five points each
			_ = a.claim(t.Context(), "acme", "")
		}
		a.held(acme, "GitHub has failed for installation")
	})
}

// Registrations that fail while all else is answered are tried by one runner at a time.
func TestRegistrationsThatFailAreTriedByOneRunnerAtATime(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		says   string
		most   int // starts in ten minutes, each of which fails
		within time.Duration
	}{
		"GitHub fails":   {503, "GitHub has failed for installation", 20, time.Minute},
		"GitHub refuses": {403, "GitHub has refused the runners of organization acme since", 8, 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAppTest(t, githubsim.Config{}, nil, "acme")
				a.want("acme", "", "none")
				a.SetFaults(githubsim.Faults{ErrorRate: 1, Status: tt.status, Path: "generate-jitconfig"})
				for range 3 {
					_ = a.claim(t.Context(), "acme", "")
					if _, err := a.client.Runners(t.Context(), acme); err != nil {
						t.Fatal(err)
					}
				}
				a.held(acme, tt.says)
				starts := 0
				for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(time.Second) {
					if a.client.Admit(t.Context(), in(acme)) == nil {
						starts++
						a.held(acme, tt.says) // one at a time
						_ = a.claim(t.Context(), "acme", "")
					}
				}
				if starts < 3 || starts > tt.most {
					t.Errorf("%d runners were started in ten minutes, want 3 to %d", starts, tt.most)
				}
				if tt.status == http.StatusForbidden {
					a.admitted(router.Target{Owner: "acme", Repo: "web"}) // another place
				}
				a.SetFaults(githubsim.Faults{})
				time.Sleep(tt.within)
				a.admitted(acme)
				a.held(acme, tt.says)
				a.want("acme", "", "none")
				a.admitted(acme)
			})
		})
	}
}

// Before a crowd of runners is started, GitHub shows that it is there: once for all.
func TestGitHubIsAskedBeforeMoreRunnersAreStartedOnTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, nil, "acme")
		a.want("acme", "", "none")
		time.Sleep(time.Minute)
		asked := a.count("")
		for range 1000 {
			a.admitted(acme)
		}
		if n := a.count("") - asked; n != 1 || a.count("GET /rate_limit") != 1 {
			t.Errorf("GitHub was asked %d times before 1000 runners, want once", n)
		}
		time.Sleep(time.Minute)
		a.SetFaults(githubsim.Faults{ErrorRate: 1})
		admitted := 0
		for range 1000 {
			if a.client.Admit(t.Context(), in(acme)) == nil {
				admitted++
			}
		}
		if admitted != 10 {
			t.Errorf("%d runners were started while GitHub fails, want 10", admitted)
		}
	})
}

// A GitHub that never answered yet keeps no runner back before a claim has failed.
func TestAGitHubThatWasNeverReachedIsNotHeldAgainstAnybody(t *testing.T) {
	synctest.Test(t, testAGitHubThatWasNeverReachedIsNotHeldAgainstAnybody)
}
func testAGitHubThatWasNeverReachedIsNotHeldAgainstAnybody(t *testing.T) {
	c, err := gh.New(gh.Config{Token: gh.StaticToken("t"), HTTPClient: &http.Client{Transport: never{}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if err := c.Admit(t.Context(), in(acme)); err != nil {
			t.Fatalf("Admit = %v", err)
		}
	}
	for range 3 {
		_, _ = c.RunnerConfig(t.Context(), request("organization", "gha-1", "x"))
	}
	if err := c.Admit(t.Context(), in(acme)); err == nil {
		t.Error("a runner is admitted after three registrations in a row have failed")
	}
}

type never struct{}

func (never) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("connection refused")
}

// A token that is replaced is good at once, and one that cannot be read starts nothing.
func TestATokenThatIsReplacedIsGoodAtOnce(t *testing.T) {
	s := githubsim.New(githubsim.Config{Token: "new"})
	t.Cleanup(s.Close)
	s.AddRepo(githubsim.Repo{Owner: "acme", Name: "web"})
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	c := client(t, s, func(cfg *gh.Config) { cfg.Token = gh.TokenFile(file) })
	if _, err := c.RunnerConfig(t.Context(), request("organization", "gha-1", "x")); kind(err) != "fix" {
		t.Fatalf("RunnerConfig with a bad token = %v", err)
	}
	var later *router.RetryAtError
	if err := c.Admit(t.Context(), in(acme)); !errors.As(err, &later) || !strings.Contains(err.Error(), "give Switchyard a valid GitHub token") {
		t.Errorf("Admit with a bad token = %v, want it held, with what to do", err)
	}
	write("")
	if err := c.Admit(t.Context(), in(acme)); !errors.As(err, &later) || !later.Failing || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("Admit without a token = %v, want it held", err)
	}
	write("new")
	if err := c.Admit(t.Context(), in(acme)); err != nil {
		t.Errorf("Admit with a new token = %v", err)
	}
}
