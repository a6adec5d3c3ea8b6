package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/rules"
)

// crowd is a Nomad with a listing of many runners, which the real client reads.
type crowd struct {
	*cluster
	client   *nomad.Client
	answer   []byte
	listings int
}

func (c *crowd) Jobs(ctx context.Context, region string) ([]router.NomadJob, uint64, error) {
	return c.client.Jobs(ctx, region)
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.listings++
	w.Header().Set("X-Nomad-Index", "1")
	_, _ = w.Write(c.answer)
}

// listing is Nomad's answer with these jobs; it has more than a kilobyte on each, as the real one has.
func listing(b *testing.B, jobs []router.NomadJob) []byte {
	stubs := make([]*api.JobListStub, len(jobs))
	for i, j := range jobs {
		groups := api.TaskGroupSummary{Running: 1}
		if j.Waiting {
			groups = api.TaskGroupSummary{Queued: 1}
		}
		stubs[i] = &api.JobListStub{
			ID: j.ID, Name: "acme/web · build", Namespace: j.At.Namespace, Type: "batch", Status: j.Status, Priority: 50, Datacenters: []string{"*"},
			SubmitTime: j.Submitted.UnixNano(), JobSummary: &api.JobSummary{JobID: j.ID, Namespace: j.At.Namespace, Summary: map[string]api.TaskGroupSummary{"runner": groups}},
			Meta: map[string]string{
				"SWITCHYARD_CLAIM_URL": "http://10.0.0.5:8080/runner/v1/claim", "SWITCHYARD_CLAIM_TOKEN": strings.Repeat("t", 43), "SWITCHYARD_RULE": "linux",
				"RUNNER_NAME": j.ID, "RUNNER_LABELS": "self-hosted,linux", "RUNNER_URL": "https://github.com/acme/web", "GH_REPO_URL": "https://github.com/acme/web",
				"GH_REPOSITORY": j.Repo, "GH_OWNER": "acme", "GH_JOB_ID": fmt.Sprint(j.JobID), "GH_RUN_ID": fmt.Sprint(j.RunID), "GH_RUN_ATTEMPT": "1", "GH_WORKFLOW": "CI",
			},
		}
	}
	answer, err := json.Marshal(stubs)
	must(b, err)
	return answer
}

// BenchmarkPass compares the database of so many live runners, all in order,
// with Nomad's answer: a tenth waits for a node, a tenth is idle, and the others
// are busy. sys-MB is all that the process took, the answer itself included.
func BenchmarkPass(b *testing.B) {
	for _, runners := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("runners=%d", runners), func(b *testing.B) { benchmarkPass(b, runners) })
	}
}

func benchmarkPass(b *testing.B, runners int) {
	st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "bench.db"))
	must(b, err)
	defer st.Close()
	set, err := rules.Parse("rules.yaml", []byte(testRules))
	must(b, err)
	c := &crowd{cluster: &cluster{}}
	agent := httptest.NewServer(c)
	defer agent.Close()
	specs, err := jobspecs.Load("")
	must(b, err)
	c.client, err = nomad.New(nomad.Config{Jobspecs: specs, API: &api.Config{Address: agent.URL}})
	must(b, err)
	app, err := server.New(server.Config{
		Store: st, Nomad: c, GitHub: &hub{}, Rules: set, Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		Webhook: func(func(context.Context, router.Delivery) error) (http.Handler, error) {
			return http.NotFoundHandler(), nil
		},
	})
	must(b, err)
	defer app.Close()
	c.answer = listing(b, populate(b, st, set, runners))

	var after runtime.MemStats
	c.listings = 0
	b.ReportAllocs()
	for b.Loop() {
		must(b, app.Pass(b.Context()))
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(c.listings)/float64(b.N), "listings/op")
	b.ReportMetric(float64(len(c.answer))/(1<<20), "answer-MB")
	b.ReportMetric(float64(after.Sys)/(1<<20), "sys-MB")
}

// populate fills a store, and returns the listing that goes with it.
func populate(b *testing.B, st *store.Store, set *rules.Set, n int) []router.NomadJob {
	now := time.Now()
	list := make([]router.NomadJob, n)
	var wg sync.WaitGroup
	room := make(chan struct{}, 256) // so that many share a commit
	must := func(err error) {
		if err != nil {
			b.Error(err)
		}
	}
	for i := range n {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			ctx, id := b.Context(), int64(i+1)
			d := delivery(id, "queued", "self-hosted", "linux")
			d.ReceivedAt = now
			_, err := st.Receive(ctx, d)
			must(err)
			decision := set.Decide(d.Job.Facts(), false)
			j := d.Job
			j.Try = 1
			r := router.Runner{ID: j.RunnerID(), JobID: id, Try: 1, Name: j.RunnerID(), Fit: fmt.Sprint(i % 40)}
			hash := [32]byte{byte(i), byte(i >> 8), 1}
			must(st.Prepare(ctx, r, hash, now))
			r.NomadJob, r.NomadAt = r.ID, router.NomadAt{Namespace: "default"}
			must(st.Dispatched(ctx, r, hash, &decision, now))
			list[i] = router.NomadJob{
				ID: r.ID, RunnerID: r.ID, At: r.NomadAt, Status: "running", JobID: id, RunID: j.RunID, Attempt: 1, Repo: "acme/web", Submitted: now,
			}
			if i%10 == 0 {
				list[i].Status, list[i].Waiting = "pending", true
				return
			}
			_, err = st.RecordNomadEvents(ctx, []router.NomadEvent{{Job: r.ID, At: r.NomadAt, Kind: router.NomadPlaced, Node: "node-1", Time: now}}, now)
			must(err)
			_, err = st.Claim(ctx, hash, now)
			must(err)
			name := r.ID + "-abcdef"
			must(st.Configured(ctx, r.ID, name, id, router.Target{Owner: "acme"}, now))
			must(st.Online(ctx, r.ID, now))
			if i%10 > 1 {
				d.ID, d.Action, d.Status, d.Job.RunnerName = d.ID+"-2", "in_progress", "in_progress", name
				_, err := st.Receive(ctx, d)
				must(err)
			}
		})
	}
	wg.Wait()
	return list
}
