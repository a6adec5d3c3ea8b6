package server_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/intake"
	"switchyard/router/routertest"
	"switchyard/router/server"
	"switchyard/router/webhook"
)

var appKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 1024) // the least, as each request is signed with it
	if err != nil {
		panic(err)
	}
	return key
})

var appPoll = intake.Poll{Hook: router.Hook{Kind: router.HookApp}}

// appWorld returns a world with an App, whose webhook points at something that answers 502
// and is no Switchyard.
func appWorld(t *testing.T, hub githubsim.Config) *routertest.World {
	t.Helper()
	hub.FirstID, hub.App = 1000, &githubsim.App{ID: 17, Key: &appKey().PublicKey}
	w := routertest.New(t, routertest.Config{
		Rules: machine + plainRule, Network: &network, Hub: hub,
		Client: gh.Config{App: &gh.App{ID: 17, Key: func() (*rsa.PrivateKey, error) { return appKey(), nil }}},
	})
	w.Deliveries(false)
	w.GitHub.Install("acme")
	return w
}

// polls has a router read the deliveries of webhooks, and receive none.
func polls(all ...intake.Poll) func(*server.Config) {
	return func(c *server.Config) {
		c.Polls, c.Decode, c.Webhook = all, webhook.Decode, nil
		c.Tick, c.Feedback = time.Minute, time.Hour // some tests last for days
	}
}

// wantServed checks that each job was served well, by one runner, and that nothing was
// delivered.
func wantServed(t *testing.T, w *routertest.World, ids []int64) {
	t.Helper()
	for _, id := range ids {
		w.Await(id, in(router.Completed))
		if j, _ := w.GitHub.Job(id); j.Conclusion != "success" {
			t.Errorf("job %d ended on GitHub as %q, want success", id, j.Conclusion)
		}
	}
	if started := w.Started(); len(started) != len(ids) {
		t.Errorf("%d runners were started for %d jobs: %v", len(started), len(ids), started)
	}
	for _, d := range w.GitHub.Deliveries() {
		if d.Status == "OK" || d.Redelivery {
			t.Errorf("a delivery reached Switchyard, or was redelivered: %+v", d)
		}
	}
}

// No request of GitHub's reaches Switchyard, and jobs are served.
func TestJobsAreServedWithoutAWebhook(t *testing.T) {
	t.Parallel()
	acme := router.Hook{Kind: router.HookOrganization, ID: githubsim.HookID("acme", ""), Owner: "acme"}
	web := router.Hook{Kind: router.HookRepository, ID: githubsim.HookID("acme", "web"), Owner: "acme", Repo: "web"}
	appKey() // not in a bubble
	for name, tt := range map[string]struct {
		world func(t *testing.T) *routertest.World
		poll  intake.Poll
	}{
		"an App":       {func(t *testing.T) *routertest.World { return appWorld(t, githubsim.Config{}) }, appPoll},
		"organization": {func(t *testing.T) *routertest.World { return newWorld(t, plainRule) }, intake.Poll{Hook: acme}},
		"repository": {func(t *testing.T) *routertest.World {
			w := routertest.New(t, routertest.Config{Rules: machine + plainRule, Network: &network, Hub: githubsim.Config{FirstID: 1000, Hook: githubsim.RepositoryHook}})
			return w
		}, intake.Poll{Hook: web}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := tt.world(t)
				w.Deliveries(false)
				w.Start(polls(tt.poll))
				resp, err := httpClient.Post("http://"+w.App.Addr()+"/webhooks/github", "application/json", strings.NewReader("{}"))
				must(t, err)
				resp.Body.Close()
				if resp.StatusCode != http.StatusNotFound {
					t.Errorf("a delivery is answered %s, want 404: there is no webhook", resp.Status)
				}
				var ids []int64
				for range 20 {
					ids = append(ids, w.Queue("self-hosted", "linux"))
					time.Sleep(3 * time.Second)
				}
				wantServed(t, w, ids)
				for _, id := range ids {
					if j := w.Await(id, in(router.Completed)); j.RunningAt.Sub(j.ReceivedAt) > 30*time.Second || j.Conclusion != "success" {
						t.Errorf("job %d ran after %s and ended as %q", id, j.RunningAt.Sub(j.ReceivedAt), j.Conclusion)
					}
				}
			})
		})
	}
}

// What is received is not read, and what is read is not received again.
func TestBothIntakesAreOneDeliveryEach(t *testing.T) {
	appKey()
	bubble(t, testBothIntakesAreOneDeliveryEach)
}
func testBothIntakesAreOneDeliveryEach(t *testing.T) {
	w := appWorld(t, githubsim.Config{})
	w.Deliveries(true)
	w.GitHub.SetDeliveryFaults(githubsim.DeliveryFaults{Lost: 0.4, Doubled: 0.2, Late: 0.3, LateBy: 20 * time.Second, Seed: 3})
	w.Start(func(c *server.Config) { c.Polls, c.Decode = []intake.Poll{appPoll}, webhook.Decode })
	var ids []int64
	for range 40 {
		ids = append(ids, w.Queue("self-hosted", "linux"))
		time.Sleep(2 * time.Second)
	}
	for _, id := range ids {
		w.Await(id, in(router.Completed))
	}
	must(t, w.GitHub.Flush(t.Context()))
	time.Sleep(3 * time.Minute)
	guids, lost := map[string]bool{}, map[string]bool{}
	for _, d := range w.GitHub.Deliveries() {
		guids[d.GUID] = true
		if d.Status != "OK" {
			lost[d.GUID] = true
		}
		if d.Redelivery {
			t.Errorf("GitHub was asked to redeliver %s, want it to be read", d.GUID)
		}
	}
	all := slices.Sorted(func(yield func(string) bool) {
		for id := range guids {
			if !yield(id) {
				return
			}
		}
	})
	if missing, err := w.Store.Unrecorded(t.Context(), all); err != nil || len(missing) > 0 {
		t.Errorf("%d of %d deliveries are not recorded: %v, %v", len(missing), len(all), missing, err)
	}
	if n := payloads(w); n == 0 || n > len(lost) {
		t.Errorf("%d deliveries were read, want at most the %d that were lost", n, len(lost))
	}
}

// payloads returns how many deliveries were read, one by one.
func payloads(w *routertest.World) (n int) {
	families, err := w.Metrics.Registry().Gather()
	must(w.T, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			call := ""
			for _, l := range m.GetLabel() {
				if l.GetName() == "call" {
					call = l.GetValue()
				}
			}
			if f.GetName() == "switchyard_github_requests_total" && strings.HasSuffix(call, "/deliveries/{id}") {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

// A restart in the middle loses nothing, and does nothing twice.
func TestReadingGoesOnWhereItEnded(t *testing.T) {
	appKey()
	bubble(t, testReadingGoesOnWhereItEnded)
}
func testReadingGoesOnWhereItEnded(t *testing.T) {
	w := appWorld(t, githubsim.Config{})
	w.Start(polls(appPoll))
	var ids []int64
	for i := range 60 {
		ids = append(ids, w.Queue("self-hosted", "linux"))
		time.Sleep(1700 * time.Millisecond)
		if i%7 == 3 {
			w.Stop()
			if i%2 == 0 {
				time.Sleep(40 * time.Minute)
			}
			w.Start(polls(appPoll))
		}
	}
	wantServed(t, w, ids)
	time.Sleep(10 * time.Minute)
	deliveries := len(w.GitHub.Deliveries())
	if n := payloads(w); n < deliveries || n > deliveries+2*8*8 { // what is under way at a stop is read again
		t.Errorf("%d deliveries were read, want each of %d once", n, deliveries)
	}
	n := payloads(w)
	w.Stop()
	w.Start(polls(appPoll))
	time.Sleep(time.Minute)
	if again := payloads(w) - n; again > 0 {
		t.Errorf("after a restart %d deliveries were read again", again)
	}
}

// GitHub lists deliveries for three days. What is older is found by a full sync.
func TestAfterThreeDaysAwayTheRepositoriesAreSynced(t *testing.T) {
	t.Parallel()
	appKey()
	t.Run("Switchyard was down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := appWorld(t, githubsim.Config{})
			w.Start(polls(appPoll))
			wantServed(t, w, []int64{w.Queue("self-hosted", "linux")})
			time.Sleep(time.Minute)
			w.Stop()
			id := w.Queue("self-hosted", "linux")
			time.Sleep(73 * time.Hour)
			w.Start(polls(appPoll))
			w.Await(id, in(router.Completed))
			if n := len(w.Started()); n != 2 {
				t.Errorf("%d runners were started for 2 jobs", n)
			}
		})
	})
	t.Run("GitHub refused the list", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := appWorld(t, githubsim.Config{})
			var ahead atomic.Int64
			w.Start(polls(appPoll), func(c *server.Config) {
				c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			})
			wantServed(t, w, []int64{w.Queue("self-hosted", "linux")})
			time.Sleep(2 * time.Minute)
			w.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: http.StatusNotFound, Path: "/app/hook/deliveries"})
			id := w.Queue("self-hosted", "linux")
			time.Sleep(30 * time.Minute)
			if _, err := w.Store.Job(t.Context(), id); err == nil {
				t.Fatal("the job is known: GitHub did not refuse")
			}
			wantTrouble(t, w, router.CausePollFails, "does not list the deliveries of the App's webhook")
			ahead.Store(int64(73 * time.Hour)) // three days take a minute to simulate
			w.GitHub.ForgetDeliveries()
			w.GitHub.SetFaults(githubsim.Faults{})
			w.Await(id, in(router.Completed))
			wantNoTrouble(t, w, router.CausePollFails)
		})
	})
	t.Run("nothing happened", func(t *testing.T) { // no sync, as its time was not lost
		synctest.Test(t, func(t *testing.T) {
			w := appWorld(t, githubsim.Config{})
			w.Start(polls(appPoll))
			wantServed(t, w, []int64{w.Queue("self-hosted", "linux")})
			time.Sleep(6 * time.Hour)
			hooks, err := w.Store.Hooks(t.Context())
			must(t, err)
			if ago := time.Since(hooks[0].Swept); ago > 90*time.Minute {
				t.Errorf("deliveries were read up to %s ago, want little more than the hour that a new webhook begins with", ago)
			}
			if s := w.App.Status(nil); slices.ContainsFunc(s.Troubles, func(t router.Trouble) bool { return t.Cause == router.CauseFirstSync }) {
				t.Error("a sync is under way")
			}
		})
	})
}

func trouble(w *routertest.World, cause router.Cause) (found router.Trouble, ok bool) {
	for _, one := range w.App.Status(nil).Troubles {
		if one.Cause == cause {
			return one, true
		}
	}
	return router.Trouble{}, false
}

func wantTrouble(t *testing.T, w *routertest.World, cause router.Cause, says string) {
	t.Helper()
	eventually(t, string(cause), func() bool { _, ok := trouble(w, cause); return ok })
	if got, _ := trouble(w, cause); !strings.Contains(got.What, says) {
		t.Errorf("%s says %q, want %q in it", cause, got.What, says)
	}
}

func wantNoTrouble(t *testing.T, w *routertest.World, cause router.Cause) {
	t.Helper()
	eventually(t, "no "+string(cause), func() bool { _, ok := trouble(w, cause); return !ok })
}

// When GitHub's limit is nearly used up, deliveries are read less often, claims keep their
// part, and the status says for how many jobs an hour it is enough.
func TestReadingKeepsToGitHubsLimit(t *testing.T) {
	appKey()
	bubble(t, testReadingKeepsToGitHubsLimit)
}
func testReadingKeepsToGitHubsLimit(t *testing.T) {
	w := appWorld(t, githubsim.Config{RateLimit: 300})
	w.Start(polls(appPoll))
	var ids []int64
	for range 120 { // in an hour
		ids = append(ids, w.Queue("self-hosted", "linux"))
		time.Sleep(30 * time.Second)
		if len(ids) == 117 {
			wantTrouble(t, w, router.CausePollLimit, "and GitHub takes 285, which is enough for about ")
			said, _ := trouble(w, router.CausePollLimit)
			t.Log(said.What)
		}
	}
	for _, id := range ids {
		for range 4 * 60 {
			if j, err := w.Store.Job(t.Context(), id); err == nil && j.State == router.Completed {
				break
			}
			time.Sleep(time.Minute)
		}
		w.Await(id, in(router.Completed))
	}
	if over := w.GitHub.Traffic().Over; over > 0 {
		t.Errorf("%d requests were over GitHub's limits", over)
	}
	if n := len(w.Started()); n != len(ids) {
		t.Errorf("%d runners were started for %d jobs", n, len(ids))
	}
	time.Sleep(2 * time.Hour)
	wantNoTrouble(t, w, router.CausePollLimit)
}

// Whatever GitHub answers, it costs time, and no job.
func TestRefusalsCostTimeAndNoJob(t *testing.T) {
	t.Parallel()
	appKey()
	for name, f := range map[string]githubsim.Faults{
		"403":               {ErrorRate: 1, Status: http.StatusForbidden},
		"404":               {ErrorRate: 1, Status: http.StatusNotFound},
		"422":               {ErrorRate: 1, Status: http.StatusUnprocessableEntity},
		"500":               {ErrorRate: 1, Status: http.StatusInternalServerError},
		"HTML":              {ErrorRate: 1, Status: http.StatusBadGateway},
		"some":              {ErrorRate: 0.4, Seed: 1},
		"a primary limit":   {LimitedUntil: time.Unix(1, 0)},
		"a secondary limit": {LimitedUntil: time.Unix(1, 0), Secondary: true}, // 403 and 429
	} {
		for _, path := range []string{"/app/hook/deliveries", "/app/hook/deliveries/"} {
			if !f.LimitedUntil.IsZero() && path != "/app/hook/deliveries" {
				continue // it has no path
			}
			t.Run(fmt.Sprintf("%s at %s", name, path), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := appWorld(t, githubsim.Config{})
					w.Start(polls(appPoll))
					ids := []int64{w.Queue("self-hosted", "linux")}
					w.Await(ids[0], in(router.Completed))
					f.Path = path
					if !f.LimitedUntil.IsZero() {
						f.LimitedUntil = time.Now().Add(7 * time.Minute)
					}
					w.GitHub.SetFaults(f)
					for range 5 {
						ids = append(ids, w.Queue("self-hosted", "linux"))
						time.Sleep(time.Minute)
					}
					time.Sleep(3 * time.Minute)
					asked := w.GitHub.Traffic().Requests
					time.Sleep(5 * time.Minute)
					if n := w.GitHub.Traffic().Requests - asked; n > 400 {
						t.Errorf("%d requests in 5 minutes, want few while GitHub refuses them", n)
					}
					w.GitHub.SetFaults(githubsim.Faults{})
					time.Sleep(12 * time.Minute)
					wantServed(t, w, ids)
				})
			})
		}
	}
}

// GitHub lists a delivery when it knows the outcome, so after others that it made later.
func TestDeliveriesThatAreListedLateAreRead(t *testing.T) {
	appKey()
	bubble(t, testDeliveriesThatAreListedLateAreRead)
}
func testDeliveriesThatAreListedLateAreRead(t *testing.T) {
	w := appWorld(t, githubsim.Config{})
	w.GitHub.SetDeliveryFaults(githubsim.DeliveryFaults{Late: 0.5, LateBy: 15 * time.Minute, Seed: 1})
	w.Start(polls(appPoll))
	var ids []int64
	for range 60 {
		ids = append(ids, w.Queue("self-hosted", "linux"))
		time.Sleep(30 * time.Second)
	}
	time.Sleep(30 * time.Minute)
	wantServed(t, w, ids)
}

// What makes no sense is refused once, and keeps nothing else back; what strangers wrote is
// bounded.
func TestDeliveriesThatAreReadAreChecked(t *testing.T) {
	appKey()
	bubble(t, testDeliveriesThatAreReadAreChecked)
}
func testDeliveriesThatAreReadAreChecked(t *testing.T) {
	w := appWorld(t, githubsim.Config{})
	var refused atomic.Int64
	w.Start(polls(appPoll), func(c *server.Config) {
		c.Decode = func(body []byte) (router.Delivery, error) {
			if strings.Contains(string(body), "nonsense") {
				refused.Add(1)
				return router.Delivery{}, errors.New("workflow_job.id is missing")
			}
			return webhook.Decode(body)
		}
	})
	spec := githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Second}
	time.Sleep(time.Minute) // the first sync would find it
	spec.Name = "nonsense"
	bad := w.GitHub.Queue(t.Context(), spec)
	must(t, w.GitHub.Flush(t.Context()))
	time.Sleep(time.Minute)
	must(t, w.GitHub.Cancel(bad))
	spec.Name = strings.Repeat("long", 10_000)
	long := w.GitHub.Queue(t.Context(), spec)
	if j := w.Await(long, in(router.Completed)); len([]rune(j.Name)) > router.MaxText {
		t.Errorf("a name has %d characters, want %d at most", len([]rune(j.Name)), router.MaxText)
	}
	time.Sleep(time.Hour)
	if n := refused.Load(); n != 2 {
		t.Errorf("two deliveries were refused %d times", n)
	}
	if _, err := w.Store.Job(t.Context(), bad); err == nil {
		t.Error("the job of a refused delivery is known")
	}
}

// Of several replicas, the leader reads deliveries, from where the one before it ended, and the
// others say what it says.
func TestOnlyTheLeaderReadsDeliveries(t *testing.T) {
	appKey()
	bubble(t, testOnlyTheLeaderReadsDeliveries)
}
func testOnlyTheLeaderReadsDeliveries(t *testing.T) {
	w := appWorld(t, githubsim.Config{})
	o := &others{joined: make(chan router.Member, 1), told: make(chan string, 1000)}
	w.Start(polls(appPoll), func(c *server.Config) { c.Replicas, c.Name = o, "this" })
	m := <-o.joined
	var ids []int64
	for range 2 { // terms
		ids = append(ids, w.Queue("self-hosted", "linux"))
		before := w.GitHub.Traffic().Requests
		time.Sleep(time.Minute)
		if n := w.GitHub.Traffic().Requests - before; n > 0 {
			t.Errorf("%d requests were made without leading", n)
		}
		ctx, end := context.WithCancel(router.WithTerm(t.Context(), 0))
		ended := make(chan error, 1)
		go func() { ended <- m.Lead(ctx) }()
		w.Await(ids[len(ids)-1], in(router.Completed))
		shows(t, w.App, `switchyard_poll_pending{webhook="the App's webhook"} 0`)
		end()
		if err := <-ended; err != nil {
			t.Errorf("its term ended with %v", err)
		}
	}
	wantServed(t, w, ids)
	failing := router.Polling{Hook: "the App's webhook", Failing: "no such App", FailingSince: time.Now().Add(-time.Hour)}
	m.Seen([]router.Replica{{Name: "this", Self: true}, {Name: "other", Leads: true, Leading: &router.Leading{Epoch: 3, Polls: []router.Polling{failing}}}})
	wantTrouble(t, w, router.CausePollFails, "does not list the deliveries of the App's webhook")
}
