package main

import (
	"crypto/rand"
	"crypto/rsa"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/intake"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
)

var pollJobs = flag.Int("poll.jobs", 100, "jobs of TestPolling, in proportion to 1,000 an hour")

// Jobs are served though no request of GitHub's arrives. The log has what that costs. The
// clock is not real.
func TestPolling(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	for name, span := range map[string]time.Duration{
		"spread over the time": time.Duration(*pollJobs) * time.Hour / 1000,
		"all within 10 s":      10 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testPolling(t, *pollJobs, span, key) })
		})
	}
}

func testPolling(t *testing.T, jobs int, span time.Duration, key *rsa.PrivateKey) {
	w := limited(t, chaosRules, key, routertest.Config{
		Cluster: nomadsim.Config{Nodes: chaosFleet()}, New: wired(appParts{polls: []intake.Poll{{Hook: router.Hook{Kind: router.HookApp}}}}),
	})
	w.Deliveries(false)
	w.GitHub.Install("acme")
	w.Start()
	time.Sleep(10 * time.Minute) // nothing happened for a while
	idle := w.GitHub.Traffic().Requests
	if idle > 60 {
		t.Errorf("%d requests in 10 minutes in which nothing happened, want fewer than one each 10 s", idle)
	}
	random := mathrand.New(mathrand.NewPCG(1, 1))
	var queued sync.WaitGroup
	for i := range jobs {
		spec := githubsim.JobSpec{
			Owner: "acme", Repo: fmt.Sprintf("repo-%d", i%10), Private: true, Labels: []string{"self-hosted", "linux"},
			Duration: 20*time.Second + time.Duration(random.Int64N(int64(160*time.Second))),
		}
		when := time.Duration(random.Int64N(int64(span)))
		queued.Go(func() {
			time.Sleep(when)
			w.GitHub.Queue(t.Context(), spec)
		})
	}
	queued.Wait()
	for range 90 {
		counts, err := w.Store.Counts(t.Context())
		must(t, err)
		if counts[router.Completed] == jobs {
			break
		}
		time.Sleep(time.Minute)
	}
	var known, running []time.Duration
	for _, j := range w.GitHub.Jobs() {
		is, err := w.Store.Job(t.Context(), j.ID)
		if err != nil || is.State != router.Completed || j.Conclusion != "success" {
			t.Errorf("job %d is %s (%v) and on GitHub %q", j.ID, is.State, err, j.Conclusion)
			continue
		}
		known, running = append(known, is.ReceivedAt.Sub(j.CreatedAt)), append(running, j.StartedAt.Sub(j.CreatedAt))
	}
	if len(known) == 0 {
		t.Fatal("no job was served")
	}
	for _, d := range w.GitHub.Deliveries() {
		if d.Status == "OK" || d.Redelivery {
			t.Fatalf("a delivery arrived, or was redelivered: %+v", d)
		}
	}
	if over := w.GitHub.Traffic().Over; over > 0 {
		t.Errorf("%d requests were over GitHub's limits", over)
	}
	slices.Sort(known)
	slices.Sort(running)
	at := func(list []time.Duration, percent int) time.Duration {
		return list[len(list)*percent/100].Round(10 * time.Millisecond)
	}
	lists, payloads := 0, 0
	families, err := w.Metrics.Registry().Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			n := int(m.GetCounter().GetValue())
			switch said := fmt.Sprint(m.GetLabel()); {
			case f.GetName() != "switchyard_github_requests_total":
			case strings.Contains(said, "app/hook/deliveries/{id}"):
				payloads += n
			case strings.Contains(said, "app/hook/deliveries"):
				lists += n
			}
		}
	}
	t.Logf("%d jobs within %s: known to Switchyard %s after they were queued at the median, %s at p95, %s at most; they ran after %s, %s, %s",
		jobs, span, at(known, 50), at(known, 95), known[len(known)-1].Round(10*time.Millisecond), at(running, 50), at(running, 95), running[len(running)-1].Round(10*time.Millisecond))
	t.Logf("%d lists and %d payloads, of which %d lists in 10 idle minutes: %.2f requests for each job, beside %.2f others",
		lists, payloads, idle, float64(lists+payloads)/float64(jobs), float64(w.GitHub.Traffic().Requests-lists-payloads)/float64(jobs))
}
