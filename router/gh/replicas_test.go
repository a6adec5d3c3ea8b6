package gh_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
)

// spend makes calls until one is kept back, and returns how many were made, and that error.
func spend(call func() error) (n int, err error) {
	for ; err == nil && n < 1000; n++ {
		err = call()
	}
	return n - 1, err
}

func TestAReplicaTakesItsPartOfEachLimit(t *testing.T) {
	for name, c := range map[string]struct {
		limits gh.Limits
		call   func(a *appTest, t *testing.T) error
		says   string
		want   map[int]int // calls until one is kept back, by replicas
	}{
		"the points of a claim": {
			gh.Limits{Points: 95}, func(a *appTest, t *testing.T) error { return a.claim(t.Context(), "acme", "") },
			"95 points a minute at POST orgs/{name}/actions/runners/generate-jitconfig (31 for each of 3 replicas)",
			map[int]int{0: 19, 1: 19, 3: 6, 100: 1},
		},
		"the points of all else": {
			gh.Limits{Points: 95}, func(a *appTest, t *testing.T) error { _, err := a.client.Runners(t.Context(), acme); return err },
			"95 points a minute at GET orgs/{name}/actions/runners (31 for each of 3 replicas)",
			map[int]int{0: 48, 1: 48, 3: 16, 100: 1},
		},
		"registrations": {
			gh.Limits{Registrations: 11}, func(a *appTest, t *testing.T) error { return a.claim(t.Context(), "acme", "") },
			"11 registrations of runners in 5 minutes in organization acme (3 for each of 3 replicas)",
			map[int]int{0: 11, 1: 11, 3: 3, 100: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for n, want := range c.want {
				synctest.Test(t, func(t *testing.T) {
					a := newAppTest(t, githubsim.Config{}, func(cfg *gh.Config) { cfg.Limits = c.limits }, "acme")
					a.client.Share(n)
					made, err := spend(func() error { return c.call(a, t) })
					if made != want {
						t.Errorf("one of %d replicas made %d calls, want %d", n, made, want)
					}
					if n == 3 {
						wantLater(t, err, time.Now().Add(map[bool]time.Duration{true: 5*time.Minute + 5*time.Second, false: 61 * time.Second}[c.limits.Registrations > 0]), c.says)
					}
					a.client.Share(1) // what was spent stays spent
					if more, _ := spend(func() error { return c.call(a, t) }); made+more != c.want[1] {
						t.Errorf("alone again after %d calls it made %d, want %d in all", made, more, c.want[1])
					}
				})
			}
		})
	}
}

func TestAReplicaHasItsPartOfTheRequestsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, func(c *gh.Config) { c.Limits = gh.Limits{Concurrent: 12, Points: -1} }, "acme")
		a.want("acme", "", "none") // has the token
		a.mu.Lock()
		a.instead = func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}
		a.mu.Unlock()
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, c := range []struct{ replicas, underWay int }{{100, 1}, {3, 4}, {1, 12}} {
			a.client.Share(c.replicas)
			for range 15 {
				wg.Go(func() { _ = a.claim(t.Context(), "acme", "") })
			}
			time.Sleep(time.Second) // some wait in place
			if got := a.client.Budget()[1].InFlight; got != c.underWay {
				t.Errorf("one of %d replicas has %d requests under way, want %d", c.replicas, got, c.underWay)
			}
		}
	})
}

// overTheWire returns what other replicas read of a Blocked.
func overTheWire(t *testing.T, blocked map[string]time.Time) (read map[string]time.Time) {
	t.Helper()
	text, err := json.Marshal(blocked)
	if err == nil {
		err = json.Unmarshal(text, &read)
	}
	if err != nil {
		t.Fatal(err)
	}
	return read
}

func TestReplicasKeepToWhatGitHubToldOneOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, nil, "beta")
		installation := a.Install("acme")
		used, fresh := a.replica(nil), a.replica(nil)
		a.want("acme", "web", "none")
		used.want("acme", "web", "none")
		if got := a.client.Blocked(); len(got) != 0 {
			t.Errorf("Blocked = %v at first, want nothing", got)
		}

		until := time.Now().Add(20 * time.Minute)
		a.SetFaults(githubsim.Faults{LimitedUntil: until, Secondary: true})
		a.want("acme", "web", "retry at")
		a.SetFaults(githubsim.Faults{})
		blocked := overTheWire(t, a.client.Blocked())
		login := fmt.Sprintf("github.com/app/17/installation/%d", installation)
		if at := blocked[login]; len(blocked) != 1 || at.Sub(until).Abs() > time.Second {
			t.Fatalf("Blocked = %v, want %s until %s", blocked, login, until)
		}
		for name, other := range map[string]*appTest{"one that used it": used, "one that did not": fresh} {
			other.client.Block(blocked)
			if diff := cmp.Diff(blocked, overTheWire(t, other.client.Blocked())); diff != "" {
				t.Errorf("%s: Blocked (-told +got):\n%s", name, diff)
			}
			before := other.count("")
			wantLater(t, other.claim(t.Context(), "acme", "web"), until, "rate limit is reached")
			_, err := other.client.Runners(t.Context(), acme)
			wantLater(t, err, until, "rate limit is reached")
			wantLater(t, other.client.Admit(t.Context(), in(acme)), until, "rate limit is reached")
			if asked := other.count("") - other.count("/installation") - before; asked > 0 {
				t.Errorf("%s: GitHub was asked %d times by a login that it blocked", name, asked)
			}
			if got := other.client.Budget(); !got[len(got)-1].BlockedUntil.Equal(blocked[login]) {
				t.Errorf("%s: Budget = %+v, want it blocked", name, got)
			}
			other.want("beta", "web", "none") // another installation
		}
		fresh.client.Block(map[string]time.Time{login: time.Now().Add(time.Minute)}) // shortens nothing
		wantLater(t, fresh.claim(t.Context(), "acme", "web"), until, "rate limit is reached")
		time.Sleep(time.Until(until) + time.Second)
		used.want("acme", "web", "none")
		fresh.want("acme", "web", "none")
		if got := fresh.client.Blocked(); len(got) != 0 {
			t.Errorf("Blocked = %v in the end, want nothing", got)
		}
	})
}

func TestABlockIsOfOneTokenAtOneGitHub(t *testing.T) {
	limited := true
	answers := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if limited {
			w.Header().Set("Retry-After", "600")
			answer(w, 429, `{"message": "slow down"}`)
			return
		}
		answer(w, 200, `{"total_count": 0, "runners": []}`)
	})
	own := "first"
	var config gh.Config
	told := client(t, answers, func(c *gh.Config) {
		c.Token = gh.StaticToken("first")
		config = *c
	})
	_, err := told.Runners(t.Context(), acme)
	wantLater(t, err, time.Now().Add(10*time.Minute), "rate limit")
	limited = false

	config.Token = func() (router.Secret, error) { return router.Secret(own), nil }
	same, err := gh.New(config)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := client(t, answers, func(c *gh.Config) { c.Token = gh.StaticToken("first") })
	both := gh.NewInstances(elsewhere)
	if err := both.Add(1, same); err != nil {
		t.Fatal(err)
	}
	both.Block(told.Blocked())
	if diff := cmp.Diff(told.Blocked(), both.Blocked()); diff != "" {
		t.Errorf("Blocked (-told +got):\n%s", diff)
	}
	for login := range both.Blocked() {
		if strings.Contains(login, "first") {
			t.Errorf("%s tells the token", login)
		}
	}
	_, err = same.Runners(t.Context(), acme)
	wantLater(t, err, time.Now().Add(10*time.Minute), "rate limit")
	if _, err := elsewhere.Runners(t.Context(), acme); err != nil {
		t.Errorf("Runners of another GitHub = %v", err)
	}
	own = "second"
	if _, err := same.Runners(t.Context(), acme); err != nil {
		t.Errorf("Runners with another token = %v", err)
	}
}

func TestABlockIsOfKnownFormAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, nil)
		now := time.Now()
		soon := now.Add(time.Minute)
		blocks := map[string]time.Time{
			"": soon, "github.com": soon, "github.com/": soon, "github.com/app/x": soon, "github.com/app/17/installation/": soon, "github.com/app/17/other/2": soon,
			"github.com/token/0123": soon, "github.com/token/0123456789ABCDEF": soon, "ghe.example/app/17": soon, "github.com/app/17\n": soon,
			"github.com/app/" + strings.Repeat("1", 99): soon, "github.com/app/1": now, "github.com/app/2": {},
		}
		a.client.Block(blocks)
		a.client.Block(nil)
		if got := a.client.Blocked(); len(got) != 0 {
			t.Errorf("Blocked = %v, want nothing", got)
		}
		a.client.Block(map[string]time.Time{"github.com/app/17": now.Add(1000 * time.Hour), "github.com/token/0123456789abcdef": soon})
		want := map[string]time.Time{"github.com/app/17": now.Add(time.Hour), "github.com/token/0123456789abcdef": soon}
		if diff := cmp.Diff(want, a.client.Blocked()); diff != "" {
			t.Errorf("Blocked (-want +got):\n%s", diff)
		}
		for i := range 1000 {
			a.client.Block(map[string]time.Time{fmt.Sprintf("github.com/app/1/installation/%d", i): soon})
		}
		one := "github.com/token/0000000000000000"
		a.client.Block(map[string]time.Time{one: now.Add(time.Hour)})
		if got := a.client.Blocked(); len(got) != 256 || !got[one].IsZero() {
			t.Errorf("%d logins are blocked, want 256; and one more until %s, want none", len(got), got[one])
		}
		// GitHub's own word always counts.
		a.client = a.replica(nil).client
		for i := range 1000 {
			a.client.Block(map[string]time.Time{fmt.Sprintf("github.com/app/1/installation/%d", i): soon})
		}
		until := now.Add(30 * time.Minute)
		a.Install("acme")
		a.SetFaults(githubsim.Faults{LimitedUntil: until, Secondary: true})
		wantLater(t, a.claim(t.Context(), "acme", ""), until, "rate limit")
		if got := a.client.Blocked(); len(got) != 256 || got["github.com/app/17"].Sub(until).Abs() > time.Second {
			t.Errorf("%d logins are blocked, the App until %s; want 256 and %s", len(got), got["github.com/app/17"], until)
		}
	})
}
