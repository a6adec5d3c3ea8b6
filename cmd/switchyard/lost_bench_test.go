package main

import (
	"context"
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
	defer sim.Close()
	seen := &arrivals{Handler: sim, at: map[string]time.Time{}}
	cluster := httptest.NewServer(seen)
	defer cluster.Close()
	hub := githubsim.New(githubsim.Config{Hook: githubsim.OrganizationHook, RateLimit: 1 << 20})
	defer hub.Close()
	asked, answers := &calls{of: map[string]int{}}, &calls{of: map[string]int{}}
	octocat := httptest.NewServer(hub)
	defer octocat.Close()

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

	st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "bench.db"))
	must(b, err)
	defer st.Close()
	app, err := newApp(appParts{store: st, nomad: capacity.New(client), github: github, rules: set, secrets: []router.Secret{testSecret}},
		server.Config{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Logger: discard, PublicURL: publicURL})
	must(b, err)
	ctx, stop := context.WithCancel(b.Context())
	asked.take()
	cpu := cpuTime()
	b.ResetTimer()
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()

	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	sender := &http.Client{Transport: transport}
	seen.left.Add(b.N)
	sent := make([]time.Time, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				sent[i] = time.Now()
				if status := send(ctx, sender, "http://"+app.Addr()+"/webhooks/github", fmt.Sprintf("%08x-guid", uint32(i*2654435761)), payload(firstID+i, labels...)); status != http.StatusAccepted {
					b.Errorf("answered %d", status)
				}
			}
		})
	}
	wg.Wait()
	seen.left.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "registrations/s")
	for {
		counts, err := st.Counts(ctx)
		must(b, err)
		if counts[router.Dispatched] == lost+b.N {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(b.Elapsed().Seconds(), "all-s")
	b.ReportMetric(float64((cpuTime() - cpu).Milliseconds()), "cpu-ms")
	arrived := make([]time.Duration, b.N)
	for i := range sent {
		arrived[i] = seen.at[fmt.Sprintf("gha-%d-1", firstID+int64(i))].Sub(sent[i])
	}
	report(b, arrived, "registration")
	requests := asked.take()
	for _, call := range slices.Sorted(maps.Keys(requests)) {
		b.Logf("%d of Nomad: %s", requests[call], call)
	}
	requests = answers.take()
	for _, call := range slices.Sorted(maps.Keys(requests)) {
		b.Logf("%d of GitHub: %s", requests[call], call)
	}
}
