package gh_test

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/rules"
)

var acme = router.Target{Owner: "acme"}

// in is a runner in the default group of a place.
func in(t router.Target) router.Admission { return router.Admission{Target: t, Group: "1"} }

// wantLater checks that a request is kept back until at, within the second.
func wantLater(t *testing.T, err error, at time.Time, says string) {
	t.Helper()
	if later, ok := errors.AsType[*router.RetryAtError](err); !ok || later.At.Sub(at).Abs() > 2*time.Second || !strings.Contains(err.Error(), says) {
		t.Errorf("error = %v, want a *router.RetryAtError at %s with %q", err, at, says)
	}
}

func TestClaimsGetWhatOthersLeaveOfThePrimaryLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{RateLimit: 101}, nil, "acme")
		a.want("acme", "", "none") // leaves 100
		reset := time.Now().Add(time.Hour)
		run := a.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web"}) - 1
		calls := map[string]func() error{
			"Runners": func() error { _, err := a.client.Runners(t.Context(), acme); return err },
			"Job": func() error {
				_, err := a.client.Job(t.Context(), rules.Repo{Owner: "acme", Name: "web"}, run+1)
				return err
			},
			"RemoveRunner": func() error { return a.client.RemoveRunner(t.Context(), acme, 999) },
			"Run": func() error {
				_, err := a.client.Run(t.Context(), rules.Repo{Owner: "acme", Name: "web"}, run)
				return err
			},
			"Job for a claim": func() error {
				_, err := a.client.Job(router.ForClaim(t.Context()), rules.Repo{Owner: "acme", Name: "web"}, run+1)
				return err
			},
			"RunnerConfig": func() error { return a.claim(t.Context(), "acme", "") },
		}
		spend := func(name string, want int) {
			t.Helper()
			for i := range want {
				if err := calls[name](); err != nil {
					t.Fatalf("%s %d of %d = %v", name, i+1, want, err)
				}
			}
		}
		spend("Runners", 80)
		for _, name := range []string{"Runners", "Job", "RemoveRunner"} {
			wantLater(t, calls[name](), reset, "what is left of GitHub's rate limit (core, 20 of 101) is kept for claims")
		}
		spend("Run", 15)
		wantLater(t, calls["Run"](), reset, "is kept for claims")
		spend("Job for a claim", 2)
		if err := a.client.Admit(t.Context(), in(acme)); err != nil {
			t.Errorf("Ready with 3 requests left = %v", err)
		}
		spend("RunnerConfig", 3)
		asked := a.count("")
		wantLater(t, calls["RunnerConfig"](), reset, "GitHub's rate limit (core, 101 an hour) is reached")
		wantLater(t, a.client.Admit(t.Context(), in(acme)), reset, "is reached")
		if n := a.count("") - asked; n != 0 {
			t.Errorf("GitHub was asked %d times beyond its limit", n)
		}
		time.Sleep(time.Hour)
		spend("RunnerConfig", 1)
		spend("Runners", 79)
	})
}

func TestClaimsGetWhatOthersLeaveOfAnEndpointsPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{RateLimit: 1e6}, nil, "acme")
		began := time.Now()
		for i := range 450 {
			if _, err := a.client.Runners(t.Context(), acme); err != nil {
				t.Fatalf("Runners %d = %v", i+1, err)
			}
		}
		_, err := a.client.Runners(t.Context(), acme)
		wantLater(t, err, began.Add(61*time.Second), "no more than 900 points a minute at GET orgs/{name}/actions/runners")
		a.want("acme", "", "none") // another endpoint
		for i := range 450 {
			if _, err := a.client.Runners(router.ForClaim(t.Context()), acme); err != nil {
				t.Fatalf("Runners for a claim %d = %v", i+1, err)
			}
		}
		_, err = a.client.Runners(router.ForClaim(t.Context()), acme)
		wantLater(t, err, began.Add(61*time.Second), "900 points")

		time.Sleep(57 * time.Second) // some seconds before the minute is over
		if _, err = a.client.Runners(t.Context(), acme); err == nil {
			t.Error("Runners did not leave the rest of the minute to claims")
		}
		if _, err = a.client.Runners(router.ForClaim(t.Context()), acme); err != nil {
			t.Errorf("Runners for a claim, which waits in place = %v", err)
		}
		if waited := time.Since(began); waited < time.Minute || waited > 62*time.Second {
			t.Errorf("the claim waited until %s after the beginning, want a minute", waited)
		}
	})
}

func TestRegistrationsAreCountedByTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, func(c *gh.Config) { c.Limits.Registrations = 3 }, "acme")
		began := time.Now()
		for range 3 {
			a.want("acme", "", "none")
			time.Sleep(time.Minute)
		}
		asked := a.count("")
		again := began.Add(5*time.Minute + 5*time.Second)
		wantLater(t, a.claim(t.Context(), "Acme", ""), again, "no more than 3 registrations of runners in 5 minutes in organization Acme")
		wantLater(t, a.client.Admit(t.Context(), in(acme)), again, "3 registrations")
		if n := a.count("") - asked; n != 0 {
			t.Errorf("GitHub was asked %d times beyond its limit", n)
		}
		a.want("acme", "web", "none") // another target
		if err := a.client.Admit(t.Context(), in(router.Target{Owner: "acme", Repo: "web"})); err != nil {
			t.Errorf("Ready of another target = %v", err)
		}
		time.Sleep(time.Until(again))
		if err := a.client.Admit(t.Context(), in(acme)); err != nil {
			t.Errorf("Ready after five minutes = %v", err)
		}
		a.want("acme", "", "none")
	})
}

func TestNoMoreRequestsAreUnderWayThanGitHubTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, func(c *gh.Config) { c.Limits.Concurrent = 4 }, "acme")
		a.want("acme", "", "none") // has the token
		release := make(chan struct{})
		a.mu.Lock()
		a.instead = func(req *http.Request) (*http.Response, error) {
			select {
			case <-release:
			case <-req.Context().Done():
				return nil, req.Context().Err()
			}
			return nil, nil
		}
		a.mu.Unlock()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := a.client.Runners(t.Context(), acme); err != nil {
					t.Errorf("Runners = %v", err)
				}
			})
		}
		synctest.Wait()
		_, err := a.client.Runners(t.Context(), acme)
		wantLater(t, err, time.Now().Add(time.Second), "under way")
		for range 3 { // the third waits in place
			wg.Go(func() {
				if err := a.claim(t.Context(), "acme", ""); err != nil {
					t.Errorf("RunnerConfig = %v", err)
				}
			})
		}
		time.Sleep(time.Second)
		if got := a.client.Budget()[1].InFlight; got != 4 {
			t.Errorf("%d requests are under way, want 4", got)
		}
		close(release)
		wg.Wait()
		if got := a.client.Budget()[1].InFlight; got != 0 {
			t.Errorf("%d requests are under way in the end, want 0", got)
		}
	})
}

func TestAClaimDoesNotWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, func(c *gh.Config) { c.Limits.Points = 5 }, "acme")
		a.want("acme", "", "none")
		time.Sleep(58 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := a.claim(ctx, "acme", ""); kind(err) != "retry at" {
			t.Errorf("RunnerConfig = %v, want a *router.RetryAtError", err)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the claim waited for %s, want no time as its own is too short", waited)
		}
	})
}

func TestALimitOfOneResourceLeavesTheOthers(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	asked := 0
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("X-RateLimit-Limit", "100")
		w.Header().Set("X-RateLimit-Reset", fmt.Sprint(now.Add(time.Minute).Unix()))
		if strings.HasSuffix(r.URL.Path, "/generate-jitconfig") {
			w.Header().Set("X-RateLimit-Resource", "actions_runner_registration")
			w.Header().Set("X-RateLimit-Remaining", "0")
			answer(w, 403, `{"message": "API rate limit exceeded"}`)
			return
		}
		w.Header().Set("X-RateLimit-Resource", "core")
		w.Header().Set("X-RateLimit-Remaining", "90")
		answer(w, 200, `{"total_count": 0, "runners": []}`)
	}), func(cfg *gh.Config) { cfg.Now = func() time.Time { return now } })
	for range 2 {
		_, err := c.RunnerConfig(t.Context(), request("organization", "gha-1", "x"))
		wantLater(t, err, now.Add(time.Minute), "is reached")
	}
	if asked != 1 {
		t.Errorf("GitHub was asked %d times, want once", asked)
	}
	if _, err := c.Runners(t.Context(), acme); err != nil {
		t.Errorf("Runners = %v, want no error: that limit is another", err)
	}
	wantLater(t, c.Admit(t.Context(), in(acme)), now.Add(time.Minute), "actions_runner_registration")
	now = now.Add(time.Minute)
	if err := c.Admit(t.Context(), in(acme)); err != nil {
		t.Errorf("Ready after a minute = %v", err)
	}
}

func TestNoAnswersHeadersHoldRequestsBackForLong(t *testing.T) {
	for _, h := range [][3]string{ // limit, remaining, reset
		{"5000", "0", "99999999999"}, {"5000", "-1", "1764072000"}, {"0", "0", "99999999999"}, {"-5", "0", "x"},
		{"1e9", "", ""}, {"99999999999999999999", "1", "1"}, {"5", "9", "99999999999"}, {"5000", "0", "-99999999999"},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newAppTest(t, githubsim.Config{}, nil, "acme")
			odd := http.Header{"X-Ratelimit-Limit": {h[0]}, "X-Ratelimit-Remaining": {h[1]}, "X-Ratelimit-Reset": {h[2]}, "X-Ratelimit-Resource": {strings.Repeat("core", 100)}}
			a.instead = func(req *http.Request) (*http.Response, error) {
				if !strings.HasSuffix(req.URL.Path, "/runners") {
					return nil, nil
				}
				return &http.Response{StatusCode: 200, Header: odd, Body: http.NoBody, Request: req}, nil
			}
			_, _ = a.client.Runners(t.Context(), acme)
			odd.Set("X-RateLimit-Resource", "core")
			_, _ = a.client.Runners(t.Context(), acme)
			time.Sleep(time.Hour)
			if err := a.client.Admit(t.Context(), in(acme)); err != nil {
				t.Errorf("Ready an hour after %v = %v", h, err)
			}
		})
	}
}

func TestTheBudgetIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{RateLimit: 50}, nil)
		id := a.Install("acme")
		if got := len(a.client.Budget()); got != 1 {
			t.Errorf("at first there are %d budgets, want the App's alone", got)
		}
		a.want("acme", "web", "none")
		got := a.client.Budget()
		if len(got) != 2 || got[0].Login != "the GitHub App 17" || got[1].Login != fmt.Sprintf("installation %d of the GitHub App 17", id) {
			t.Fatalf("Budget = %+v, want those of the App and its installation", got)
		}
		want := router.RateLimit{Resource: "core", Limit: 50, Remaining: 49, Reset: time.Now().Add(time.Hour).Truncate(time.Second)}
		if len(got[1].Limits) != 1 || !got[1].Limits[0].Reset.Equal(want.Reset) || got[1].Limits[0].Remaining != want.Remaining || got[1].Limits[0].Limit != want.Limit {
			t.Errorf("Limits = %+v, want %+v", got[1].Limits, want)
		}
	})
}

func TestWhateverIsAskedNoLimitOfGitHubsIsReached(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			limits := gh.Limits{Points: 60, Registrations: 25}
			change := func(c *gh.Config) { c.Limits = limits }
			primary := 400
			if seed%2 == 1 {
				primary = 1e6 // that of several replicas is known from answers alone
			}
			a := newAppTest(t, githubsim.Config{RateLimit: primary, Points: limits.Points, Registrations: limits.Registrations}, change)
			a.api = a.Server // unchecked, as there are thousands of requests
			a.Install("acme")
			replicas := []*appTest{a}
			if seed%2 == 1 {
				replicas = append(replicas, a.replica(change), a.replica(change))
			}
			for _, r := range replicas {
				r.client.Share(len(replicas))
				r.want("acme", "web", "none") // the primary limit is known from the first answer on
			}
			chance := mathrand.New(mathrand.NewPCG(seed, 0))
			var done, later atomic.Int32
			var wg sync.WaitGroup
			for range 1000 {
				time.Sleep(time.Duration(chance.IntN(8)) * unit(chance))
				what, claim := chance.IntN(5), chance.IntN(2) == 0
				a := replicas[chance.IntN(len(replicas))]
				wg.Go(func() {
					ctx, err := t.Context(), error(nil)
					if claim {
						ctx = router.ForClaim(ctx)
					}
					switch what {
					case 0:
						err = a.claim(ctx, "acme", "web")
					case 1:
						err = a.claim(ctx, "Acme", "api")
					case 2:
						_, err = a.client.Runners(ctx, acme)
					case 3:
						err = a.client.RemoveRunner(ctx, acme, 1<<40)
					case 4:
						_, err = a.client.RegistrationToken(ctx, request("organization", "gha-1", "x"))
					}
					switch kind(err) {
					case "none":
						done.Add(1)
					case "retry at":
						later.Add(1)
					default:
						t.Errorf("seed %d: request %d = %v", seed, what, err)
					}
				})
			}
			wg.Wait()
			if got := a.Traffic(); got.Over != 0 {
				t.Errorf("seed %d: GitHub refused %d of %d requests as over a limit", seed, got.Over, got.Requests)
			}
			if done.Load() < 200 || later.Load() < 100 {
				t.Errorf("seed %d: %d requests were made and %d kept back, want many of both", seed, done.Load(), later.Load())
			}
		})
	}
}

// unit is now and then a longer unit of time.
func unit(r *mathrand.Rand) time.Duration {
	if r.IntN(20) == 0 {
		return 10 * time.Second
	}
	return 100 * time.Millisecond
}

// A refused request is over when its answer has been read, although go-github
// does not close it.
func TestRefusalsAreNotUnderWayForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, func(cfg *gh.Config) { cfg.Limits.Concurrent = 4 }, "acme")
		a.want("acme", "", "none")
		a.SetFaults(githubsim.Faults{ErrorRate: 1})
		for range 10 {
			if err := a.claim(t.Context(), "acme", ""); err == nil {
				t.Fatal("a claim succeeds, though GitHub fails")
			}
		}
		a.SetFaults(githubsim.Faults{})
		time.Sleep(time.Minute) // until it is asked again
		a.want("acme", "", "none")

		a.instead = func(r *http.Request) (*http.Response, error) {
			return made(r, 500, nil, strings.Repeat("A", 2<<20)), nil // more than is read
		}
		for range 10 {
			if err := a.claim(t.Context(), "acme", ""); err == nil {
				t.Fatal("a claim succeeds, though GitHub fails")
			}
		}
		if got := a.client.Budget()[1].InFlight; got != 0 {
			t.Errorf("%d requests are under way in the end, want 0", got)
		}
	})
}

// GitHub refused because of a limit that ends long before the one it reported.
func TestTheLastWordOnALimitCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, nil, "acme")
		a.want("acme", "", "none")
		a.SetFaults(githubsim.Faults{LimitedUntil: time.Now().Add(time.Minute)})
		wantLater(t, a.claim(t.Context(), "acme", ""), time.Now().Add(time.Minute), "rate limit")
		time.Sleep(2 * time.Minute)
		a.SetFaults(githubsim.Faults{})
		a.want("acme", "", "none")
	})
}
