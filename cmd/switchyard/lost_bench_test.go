package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/rules"
)

// calls counts requests by what they ask for.
type calls struct {
	mu sync.Mutex
	of map[string]int
}

func (c *calls) add(call string, _ int, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[call]++
}

// take returns the counts, and begins anew.
func (c *calls) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.of
	c.of = map[string]int{}
	return of
}

// log logs the counts, and begins anew.
func (c *calls) log(b *testing.B, what string) {
	of := c.take()
	for _, call := range slices.Sorted(maps.Keys(of)) {
		b.Logf("%d %s: %s", of[call], what, call)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRegistrationAfterLoss measures the registrations of new jobs after
// the database was lost, while the router takes up so many runners that wait
// on Nomad for jobs that GitHub still queues. 8 senders, router and simulators
// share the process and its CPUs. The benchmark ends when both are done.
func BenchmarkRegistrationAfterLoss(b *testing.B) {
	for _, runners := range []int{0, 5000} {
		b.Run(fmt.Sprintf("runners=%d", runners), func(b *testing.B) { benchmarkLoss(b, runners) })
	}
}

func benchmarkLoss(b *testing.B, lost int) {
	const publicURL = "http://router.test"
	sim := nomadsim.New(nomadsim.Config{})
	b.Cleanup(sim.Close)
	seen := &arrivals{Handler: sim, at: map[string]time.Time{}}
	cluster := httptest.NewServer(seen)
	b.Cleanup(cluster.Close)
	hub := githubsim.New(githubsim.Config{Hook: githubsim.OrganizationHook, RateLimit: 1 << 20})
	b.Cleanup(hub.Close)
	asked, answers := &calls{of: map[string]int{}}, &calls{of: map[string]int{}}
	octocat := httptest.NewServer(hub)
	b.Cleanup(octocat.Close)

	discard := slog.New(slog.NewJSONHandler(io.Discard, nil))
	specs, err := jobspecs.Load("")
	must(b, err)
	set, err := rules.Parse("rules.example.yaml", demoRules)
	must(b, err)
	client, err := nomad.New(nomad.Config{Jobspecs: specs, Logger: discard, API: &api.Config{Address: cluster.URL}, Called: asked.add})
	must(b, err)
	github, err := gh.New(gh.Config{Token: gh.StaticToken("t"), BaseURL: octocat.URL, Called: answers.add})
	must(b, err)
	labels := []string{"self-hosted", "linux", "x64"}
	var run int64
	seen.left.Add(lost)
	for i := range lost {
		if i%100 == 0 {
			run = 0
		}
		id := hub.Queue(b.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: labels, RunID: run})
		queued, _ := hub.Job(id)
		run = queued.RunID
		j := router.Job{ID: id, RunID: run, Attempt: 1, Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true}, Name: "build", Labels: labels, Try: 1}
		d := set.Decide(j.Facts(), false)
		_, err := client.Start(b.Context(), router.StartRequest{
			Runner: router.Runner{ID: j.RunnerID(), Name: j.RunnerID()}, Job: j, Rule: d.Rule, Placement: j.Placement(&d),
			ClaimURL: publicURL + router.ClaimPath, ClaimToken: router.NewClaimToken(),
		})
		must(b, err)
	}

	asked.take()
	cpu := cpuTime()
	seen.left.Add(b.N)
	b.ResetTimer()
	st, url := benchRouter(b, client, github, set, publicURL)
	sent := sendAll(b, url, labels...)
	seen.left.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "registrations/s")
	counts, err := st.Counts(b.Context())
	must(b, err)
	b.ReportMetric(float64(max(counts[router.Dispatched]-b.N, 0)), "taken-up-beside")
	b.ReportMetric(float64((cpuTime() - cpu).Milliseconds()), "cpu-ms-beside")
	awaitCount(b, st, router.Dispatched, lost+b.N)
	b.StopTimer()
	b.ReportMetric(b.Elapsed().Seconds(), "all-s")
	b.ReportMetric(float64((cpuTime() - cpu).Milliseconds()), "cpu-ms")
	arrived := make([]time.Duration, b.N)
	for i := range sent {
		arrived[i] = seen.at[fmt.Sprintf("gha-%d-1", firstID+int64(i))].Sub(sent[i])
	}
	report(b, arrived, "registration")
	asked.log(b, "of Nomad")
	answers.log(b, "of GitHub")
}

// benchRouter runs a router with a new database until the benchmark ends, and returns that
// and where deliveries go.
func benchRouter(b *testing.B, client *nomad.Client, github router.GitHub, set *rules.Set, publicURL string) (st *store.Store, url string) {
	st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "bench.db"))
	must(b, err)
	app, err := newApp(appParts{store: st, nomad: capacity.New(client), github: github, rules: set, secrets: []router.Secret{testSecret}},
		server.Config{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), PublicURL: publicURL})
	must(b, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, st.Close()); err != nil {
			b.Error(err)
		}
	})
	return st, "http://" + app.Addr() + "/webhooks/github"
}

// sendAll sends b.N deliveries of new jobs by 8 senders, and returns when it did.
func sendAll(b *testing.B, url string, labels ...string) []time.Time {
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	sender := &http.Client{Transport: transport}
	sent := make([]time.Time, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				sent[i] = time.Now()
				if status := send(b.Context(), sender, url, fmt.Sprintf("%08x-guid", uint32(i*2654435761)), payload(firstID+i, labels...)); status != http.StatusAccepted {
					b.Errorf("answered %d", status)
				}
			}
		})
	}
	wg.Wait()
	return sent
}

// awaitCount waits until so many jobs are in a state.
func awaitCount(b *testing.B, st *store.Store, state router.JobState, n int) {
	for {
		counts, err := st.Counts(b.Context())
		must(b, err)
		if counts[state] == n {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// BenchmarkRegistrationAfterOutage measures how the jobs that came while Nomad
// had no leader are registered once it has one, and what they cost until then:
// CPU and requests in half a minute, after all of them have waited for as long.
// With -benchtime 10000x it is ten thousand jobs; the newest comes when Nomad is back.
func BenchmarkRegistrationAfterOutage(b *testing.B) {
	sim := nomadsim.New(nomadsim.Config{})
	b.Cleanup(sim.Close)
	seen := &arrivals{Handler: sim, at: map[string]time.Time{}}
	var down atomic.Bool
	cluster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			http.Error(w, "No cluster leader", http.StatusInternalServerError)
			return
		}
		seen.ServeHTTP(w, r)
	}))
	b.Cleanup(cluster.Close)
	specs, err := jobspecs.Load("")
	must(b, err)
	set, err := rules.Parse("rules.example.yaml", demoRules)
	must(b, err)
	asked := &calls{of: map[string]int{}}
	client, err := nomad.New(nomad.Config{Jobspecs: specs, Logger: slog.New(slog.DiscardHandler), API: &api.Config{Address: cluster.URL}, Called: asked.add})
	must(b, err)
	github, err := gh.New(gh.Config{Token: gh.StaticToken("t")})
	must(b, err)
	st, url := benchRouter(b, client, github, set, "")
	labels := []string{"self-hosted", "linux", "x64"}
	down.Store(true)
	began := time.Now()
	sendAll(b, url, labels...)
	answers := float64(b.N) / time.Since(began).Seconds()
	awaitCount(b, st, router.Retrying, b.N)
	time.Sleep(30 * time.Second)
	asked.take()
	cpu := cpuTime()
	time.Sleep(30 * time.Second)
	away := cpuTime() - cpu
	asked.log(b, "of Nomad in 30 s away")

	seen.left.Add(b.N + 1)
	b.ResetTimer()
	down.Store(false)
	back, newest := time.Now(), firstID+int64(b.N)
	if status := send(b.Context(), http.DefaultClient, url, "newest", payload(newest, labels...)); status != http.StatusAccepted {
		b.Errorf("answered %d", status)
	}
	b.ReportMetric(float64(time.Since(back).Milliseconds()), "newest-answer-ms")
	seen.left.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "registrations/s")
	awaitCount(b, st, router.Dispatched, b.N+1)
	b.StopTimer()
	b.ReportMetric(answers, "answers/s")
	b.ReportMetric(float64(away.Milliseconds()), "away-cpu-ms")
	b.ReportMetric(float64(seen.at[fmt.Sprintf("gha-%d-1", newest)].Sub(back).Milliseconds()), "newest-registration-ms")
	asked.log(b, "of Nomad afterwards")
}
