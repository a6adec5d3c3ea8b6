package router_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/rules"
)

// crowd is a Nomad with a listing of many runners.
type crowd struct {
	*cluster
	list     []router.NomadJob
	listings int
}

func (c *crowd) Jobs(context.Context) ([]router.NomadJob, uint64, error) {
	c.listings++
	return c.list, 1, nil
}

// BenchmarkPass compares the books of ten thousand live runners, all in order,
// with Nomad: a tenth waits for a node, a tenth is idle, and the others are
// busy. sys-MB is all that the process took.
func BenchmarkPass(b *testing.B) {
	const runners = 10_000
	b.Run(fmt.Sprintf("runners=%d", runners), func(b *testing.B) {
		st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "bench.db"))
		if err != nil {
			b.Fatal(err)
		}
		defer st.Close()
		set, err := rules.Parse("rules.yaml", []byte(testRules))
		if err != nil {
			b.Fatal(err)
		}
		c := &crowd{cluster: &cluster{}}
		app, err := router.New(router.Config{
			Store: st, Nomad: c, GitHub: &hub{}, Rules: set, Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
			Webhook: func(func(context.Context, router.Delivery) error) (http.Handler, error) {
				return http.NotFoundHandler(), nil
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		defer app.Close()
		c.list = populate(b, st, set, runners)

		var after runtime.MemStats
		c.listings = 0
		b.ReportAllocs()
		for b.Loop() {
			if err := app.Pass(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(c.listings)/float64(b.N), "listings/op")
		b.ReportMetric(float64(after.Sys)/(1<<20), "sys-MB")
	})
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
			_, err = st.NomadSaw(ctx, []router.NomadEvent{{Job: r.ID, At: r.NomadAt, Kind: router.NomadPlaced, Node: "node-1", Time: now}}, now)
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
