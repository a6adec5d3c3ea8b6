package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/nomad"
	"switchyard/router/nomadsim"
	"switchyard/router/store"
	"switchyard/rules"
)

// idsIn reads the IDs of a listing of Nomad jobs.
func idsIn(body []byte) []string {
	var stubs []api.JobListStub
	if err := json.Unmarshal(body, &stubs); err != nil {
		panic(err)
	}
	ids := make([]string, len(stubs))
	for i := range stubs {
		ids[i] = stubs[i].ID
	}
	return ids
}

// arrivals notes when the registration of each Nomad job arrives at Nomad.
type arrivals struct {
	http.Handler
	mu   sync.Mutex
	at   map[string]time.Time
	left sync.WaitGroup
}

func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/jobs" && r.Method != http.MethodGet {
		now := time.Now()
		body, _ := io.ReadAll(r.Body)
		var reg struct{ Job struct{ ID string } }
		_ = json.Unmarshal(body, &reg)
		r.Body = io.NopCloser(bytes.NewReader(body))
		a.mu.Lock()
		_, again := a.at[reg.Job.ID]
		if !again {
			a.at[reg.Job.ID] = now
		}
		a.mu.Unlock()
		if !again {
			defer a.left.Done()
		}
	}
	a.Handler.ServeHTTP(w, r)
}

// BenchmarkRegistration measures the way of a signed delivery through the
// whole router: from the sender's request to the moment its registration
// arrives at the simulated Nomad. Sender, router and simulator share the
// process and its CPUs.
func BenchmarkRegistration(b *testing.B) {
	for _, senders := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) { benchmarkRegistration(b, senders, 0, 0) })
	}
}

// BenchmarkRegistrationWatched is the same at 20 deliveries a second, while so
// many have the page Now open, each of which follows the stream and gets the
// page anew as its script does. They share the CPUs, too.
func BenchmarkRegistrationWatched(b *testing.B) {
	for _, views := range []int{0, 100} {
		b.Run(fmt.Sprintf("views=%d", views), func(b *testing.B) { benchmarkRegistration(b, 1, views, 50*time.Millisecond) })
	}
}

// view has a page open until ctx ends.
func view(ctx context.Context, client *http.Client, admin string) {
	get := func(path string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+path, nil)
		if err != nil {
			return nil, err
		}
		return client.Do(req)
	}
	stream, err := get("/api/v1/events")
	if err != nil {
		return
	}
	defer stream.Body.Close()
	var last time.Time
	for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
		if !bytes.HasPrefix(lines.Bytes(), []byte("event:")) || time.Since(last) < 2*time.Second {
			continue
		}
		last = time.Now()
		if page, err := get("/"); err == nil {
			_, _ = io.Copy(io.Discard, page.Body)
			_ = page.Body.Close()
		}
	}
}

func benchmarkRegistration(b *testing.B, senders, views int, every time.Duration) {
	sim := nomadsim.New(nomadsim.Config{})
	defer sim.Close()
	seen := &arrivals{Handler: sim, at: map[string]time.Time{}}
	cluster := httptest.NewServer(seen)
	defer cluster.Close()

	discard := slog.New(slog.NewJSONHandler(io.Discard, nil))
	specs, err := jobspecs.Load("")
	if err != nil {
		b.Fatal(err)
	}
	set, err := rules.Parse("rules.example.yaml", demoRules)
	if err != nil {
		b.Fatal(err)
	}
	client, err := nomad.New(nomad.Config{Jobspecs: specs, Logger: discard, API: &api.Config{Address: cluster.URL}})
	if err != nil {
		b.Fatal(err)
	}
	github, err := gh.New(gh.Config{Token: gh.StaticToken("t")})
	if err != nil {
		b.Fatal(err)
	}
	st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "bench.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	app, err := newApp(appParts{store: st, nomad: client, github: github, rules: set, secrets: []router.Secret{testSecret}},
		router.Config{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Logger: discard})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()

	var watching sync.WaitGroup
	defer watching.Wait()
	watched, unwatch := context.WithCancel(ctx)
	defer unwatch()
	viewers := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: views}}
	defer viewers.CloseIdleConnections()
	for range views {
		watching.Go(func() { view(watched, viewers, "http://"+app.AdminAddr()) })
	}

	url := "http://" + app.Addr() + "/webhooks/github"
	transport := &http.Transport{MaxIdleConnsPerHost: senders}
	defer transport.CloseIdleConnections()
	sender := &http.Client{Transport: transport}
	sent, answered := make([]time.Time, b.N), make([]time.Time, b.N)
	bodies := make([][]byte, b.N)
	for i := range bodies {
		bodies[i] = payload(int64(i)+1, "self-hosted", "linux", "x64")
	}
	seen.left.Add(b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range senders {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(b.N) {
					return
				}
				time.Sleep(every)
				sent[i] = time.Now()
				if status := send(ctx, sender, url, fmt.Sprintf("%08x-guid", uint32(i*2654435761)), bodies[i]); status != http.StatusAccepted {
					b.Errorf("answered %d", status)
				}
				answered[i] = time.Now()
			}
		})
	}
	wg.Wait()
	accepted := b.Elapsed()
	seen.left.Wait()
	b.StopTimer()

	answers, arrived := make([]time.Duration, b.N), make([]time.Duration, b.N)
	for i := range sent {
		answers[i] = answered[i].Sub(sent[i])
		arrived[i] = seen.at[fmt.Sprintf("gha-%d-1", i+1)].Sub(sent[i])
	}
	b.ReportMetric(float64(b.N)/accepted.Seconds(), "answers/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "registrations/s")
	report(b, answers, "answer")
	report(b, arrived, "registration")
}

func report(b *testing.B, took []time.Duration, what string) {
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(ms(took[len(took)/2]), what+"-p50-ms")
	b.ReportMetric(ms(took[len(took)*99/100]), what+"-p99-ms")
}

// BenchmarkResident measures the memory of the program with 10,000 jobs that
// are registered and not ended.
func BenchmarkResident(b *testing.B) {
	const jobs = 10_000
	b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
		for range b.N {
			sim := nomadsim.New(nomadsim.Config{})
			count := &registrations{Handler: sim}
			cluster := httptest.NewServer(count)
			p := newProcess(b, cluster.URL, "http://127.0.0.1:1")
			p.start()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
			var next atomic.Int64
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for id := next.Add(1); id <= jobs; id = next.Add(1) {
						if status := send(b.Context(), client, p.url, fmt.Sprint(id), payload(id, "self-hosted", "linux", "x64")); status != http.StatusAccepted {
							b.Errorf("answered %d", status)
						}
					}
				})
			}
			wg.Wait()
			for count.taken.Load() < jobs && !b.Failed() {
				time.Sleep(10 * time.Millisecond)
			}
			mb, err := residentMB(p.cmd.Process.Pid)
			if err != nil {
				b.Skip(err)
			}
			b.ReportMetric(mb, "resident-MB")
			p.stop()
			cluster.Close()
			sim.Close()
		}
	})
}
