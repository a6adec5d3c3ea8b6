package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
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

const firstID = 1_000_000 // after those of the past

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
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) { benchmarkRegistration(b, senders, 0, nil) })
	}
}

// BenchmarkReplicas is the same on SQLite, and on PostgreSQL with one replica and more. They
// share the process, too. SWITCHYARD_POSTGRES names a PostgreSQL that waits for the disk; the
// one that is started without it does not.
func BenchmarkReplicas(b *testing.B) {
	for _, senders := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("sqlite/senders=%d", senders), func(b *testing.B) { benchmarkRegistration(b, senders, 0, nil) })
		for _, replicas := range []int{1, 2, 3} {
			b.Run(fmt.Sprintf("postgres/replicas=%d/senders=%d", replicas, senders), func(b *testing.B) {
				benchmarkReplicas(b, postgrestest.URL(b), replicas, senders, 0, nil)
			})
		}
	}
}

// BenchmarkFailOver measures how long no runner is started when the leader of three replicas
// is killed, and when it is stopped: from then until a delivery that is sent at once to
// another is registered on the simulated Nomad.
func BenchmarkFailOver(b *testing.B) {
	for how, end := range map[string]func(*process){"killed": (*process).kill, "stopped": func(p *process) { _ = p.cmd.Process.Signal(os.Interrupt) }} {
		b.Run(how, func(b *testing.B) {
			r := newReplicas(b, 3, postgrestest.URL(b))
			var took []time.Duration
			for range b.N {
				r.registered(r.queue())
				leader := r.leader()
				r.front.set(r.without(leader)...)
				time.Sleep(time.Duration(rand.Int64N(int64(time.Second)))) // anywhere between two looks
				began := time.Now()
				end(leader)
				r.registered(r.queue())
				took = append(took, time.Since(began))
				leader.kill()
				leader.start()
				r.front.set(r.all...)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
			b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "max-ms")
		})
	}
}

// BenchmarkRegistrationWatched is the same at 20 deliveries a second, while so
// many have the page Now open, each of which follows the stream and gets the
// page again as its script does. They share the CPUs, too.
func BenchmarkRegistrationWatched(b *testing.B) {
	for _, views := range []int{0, 100} {
		b.Run(fmt.Sprintf("views=%d", views), func(b *testing.B) {
			benchmarkRegistration(b, 1, 50*time.Millisecond, func(ctx context.Context, admin string, wg *sync.WaitGroup) {
				viewers := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: views}}
				for range views {
					wg.Go(func() { view(ctx, viewers, admin) })
				}
			})
		})
	}
}

// BenchmarkRegistrationQueried is the same with a long history, while clients
// ask the API one question after the other, each of which finds nothing.
func BenchmarkRegistrationQueried(b *testing.B) {
	const jobs = 300_000
	long := filepath.Join(b.TempDir(), "past.db") // filled once
	past(b, long, jobs)
	copied := func(b *testing.B, path string) {
		file, err := os.ReadFile(long)
		if err == nil {
			err = os.WriteFile(path, file, 0o600)
		}
		must(b, err)
	}
	for _, clients := range []int{0, 8} {
		b.Run(fmt.Sprintf("jobs=%d/clients=%d", jobs, clients), func(b *testing.B) {
			var answers [600]atomic.Int64
			benchmarkRegistration(b, 1, 50*time.Millisecond, func(ctx context.Context, admin string, wg *sync.WaitGroup) {
				client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
				for range clients {
					wg.Go(func() {
						for ctx.Err() == nil {
							if resp, err := fetch(ctx, client, admin+"/api/v1/jobs?label=x"); err == nil {
								_, _ = io.Copy(io.Discard, resp.Body)
								_ = resp.Body.Close()
								answers[resp.StatusCode].Add(1)
							}
						}
					})
				}
			}, copied)
			for status := range answers {
				if n := answers[status].Load(); n > 0 {
					b.ReportMetric(float64(n)/b.Elapsed().Seconds(), fmt.Sprintf("status-%d/s", status))
				}
			}
		})
	}
}

// past fills a database with the jobs of days gone by, as many as n.
func past(b *testing.B, path string, n int) {
	st, err := store.Open(b.Context(), path)
	if err == nil {
		err = st.Close()
	}
	must(b, err)
	db, err := sql.Open("sqlite", path+"?_pragma=synchronous(OFF)")
	must(b, err)
	defer db.Close()
	_, err = db.ExecContext(b.Context(), `
WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < ?1)
INSERT INTO jobs (id, run_id, attempt, owner, repo, private, visibility, fork, name, workflow, branch, sender, labels, url,
	state, reason, decision, try, failures, due_at, received_at, updated_at, runner_name, conclusion)
SELECT id, id / 4, 1, 'acme', 'repo-' || id % 200, 1, 'private', 0, 'build', 'CI', 'main', 'octocat', '["self-hosted","linux","x64"]', 'https://github.com/acme/web',
	'completed', 'ended on GitHub: success', json_object('outcome', 'routed', 'rule', 'linux', 'reason', 'rule linux runs it', 'pad', printf('%.1000c', '-')),
	1, 0, ?2, ?2, ?2, 'gha-' || id || '-1', 'success' FROM n`, n, time.Now().Add(-48*time.Hour).UnixMilli())
	must(b, err)
}

func fetch(ctx context.Context, client *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}

// view has a page open until ctx ends.
func view(ctx context.Context, client *http.Client, admin string) {
	stream, err := fetch(ctx, client, admin+"/api/v1/events")
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
		if page, err := fetch(ctx, client, admin+"/"); err == nil {
			_, _ = io.Copy(io.Discard, page.Body)
			_ = page.Body.Close()
		}
	}
}

// benchmarkRegistration sends b.N deliveries. busy, if not nil, begins what happens
// beside them until its context ends; before is called with the database's path.
func benchmarkRegistration(b *testing.B, senders int, every time.Duration, busy func(ctx context.Context, admin string, wg *sync.WaitGroup), before ...func(*testing.B, string)) {
	path := filepath.Join(b.TempDir(), "bench.db")
	for _, do := range before {
		do(b, path)
	}
	benchmarkReplicas(b, path, 1, senders, every, busy)
}

// benchmarkReplicas is benchmarkRegistration with replicas on a database, to which deliveries
// are sent in turn.
func benchmarkReplicas(b *testing.B, database string, replicas, senders int, every time.Duration, busy func(ctx context.Context, admin string, wg *sync.WaitGroup)) {
	sim := nomadsim.New(nomadsim.Config{})
	defer sim.Close()
	seen := &arrivals{Handler: sim, at: map[string]time.Time{}}
	cluster := httptest.NewServer(seen)
	defer cluster.Close()

	discard := slog.New(slog.NewJSONHandler(io.Discard, nil))
	specs, err := jobspecs.Load("")
	must(b, err)
	set, err := rules.Parse("rules.example.yaml", demoRules)
	must(b, err)
	client, err := nomad.New(nomad.Config{Jobspecs: specs, Logger: discard, API: &api.Config{Address: cluster.URL}})
	must(b, err)
	github, err := gh.New(gh.Config{Token: gh.StaticToken("t")})
	must(b, err)
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var urls []string
	var app *server.App
	for range replicas {
		st, err := store.Open(b.Context(), database)
		must(b, err)
		config := server.Config{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Logger: discard}
		if len(urls) > 0 {
			config.PublicURL = strings.TrimSuffix(urls[0], "/webhooks/github")
		}
		app, err = newApp(appParts{store: st, nomad: capacity.New(client), github: github, rules: set, secrets: []router.Secret{testSecret}}, config)
		must(b, err)
		urls = append(urls, "http://"+app.Addr()+"/webhooks/github")
		running.Go(func() {
			defer st.Close()
			if err := app.Run(ctx); err != nil {
				b.Error(err)
			}
		})
		for st.Shared() && len(app.Replicas()) < len(urls) { // it is one of them
			time.Sleep(time.Millisecond)
		}
	}

	var watching sync.WaitGroup
	defer watching.Wait()
	watched, unwatch := context.WithCancel(ctx)
	defer unwatch()
	if busy != nil {
		busy(watched, "http://"+app.AdminAddr(), &watching)
	}

	transport := &http.Transport{MaxIdleConnsPerHost: senders}
	defer transport.CloseIdleConnections()
	sender := &http.Client{Transport: transport}
	sent, answered := make([]time.Time, b.N), make([]time.Time, b.N)
	bodies := make([][]byte, b.N)
	for i := range bodies {
		bodies[i] = payload(firstID+int64(i), "self-hosted", "linux", "x64")
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
				if status := send(ctx, sender, urls[i%int64(replicas)], fmt.Sprintf("%08x-guid", uint32(i*2654435761)), bodies[i]); status != http.StatusAccepted {
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
		arrived[i] = seen.at[fmt.Sprintf("gha-%d-1", firstID+int64(i))].Sub(sent[i])
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
