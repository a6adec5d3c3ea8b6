package server_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

// BenchmarkCrowd is a crowd of a hundred jobs that no node fits and that differ in a label
// of their run alone, from GitHub's delivery until each says why it waits. Nomad is asked
// for one registration each; what is beyond that explains them. The CPU time is that of the
// simulated GitHub and Nomad, too; MB-heap is Switchyard's own at the end, about.
func BenchmarkCrowd(b *testing.B) {
	const jobs = 100
	for _, nodes := range []int{100, 1000, 6100} {
		b.Run(fmt.Sprintf("nodes=%d/jobs=%d", nodes, jobs), func(b *testing.B) {
			var requests, lists, reads, plans, bytes atomic.Int64
			fleet := nomadsim.LargeFleet(nodes)
			before := heap()
			w := routertest.New(b, routertest.Config{
				Logger: slog.New(slog.DiscardHandler),
				Rules: `
version: 1
labels: { self-hosted: {}, linux: {}, "run-*": {} }
rules:
  - name: linux
    jobspec: docker-linux
    node_pool: ci
    constraints: ['${meta.zone} = nowhere']
`,
				Cluster: nomadsim.Config{Nodes: fleet},
				Front: func(sim http.Handler) http.Handler {
					return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						if strings.HasPrefix(r.URL.Path, "/v1/event/") {
							sim.ServeHTTP(rw, r)
							return
						}
						requests.Add(1)
						switch {
						case r.URL.Path == "/v1/nodes" && !r.URL.Query().Has("per_page"):
							lists.Add(1)
						case strings.HasPrefix(r.URL.Path, "/v1/node/"):
							reads.Add(1)
						case strings.HasSuffix(r.URL.Path, "/plan"):
							plans.Add(1)
						}
						r.Header.Del("Accept-Encoding") // so that bytes are those that are read
						sim.ServeHTTP(&meteredWriter{rw, &bytes}, r)
					})
				},
			})
			w.Start(func(c *server.Config) { c.Tick = 0 })
			spent := cpuTime(b)
			run := 0
			for b.Loop() {
				ids := make([]int64, jobs)
				for i := range ids {
					run++
					ids[i] = w.Queue("self-hosted", "linux", fmt.Sprintf("run-%d", run))
				}
				for _, id := range ids {
					w.Await(id, func(j router.Job) bool { return strings.Contains(j.Reason, "no node") })
				}
			}
			n := float64(b.N)
			b.ReportMetric(float64((cpuTime(b)-spent).Milliseconds())/n, "cpu-ms/op")
			for unit, count := range map[string]*atomic.Int64{"requests/op": &requests, "lists/op": &lists, "node-reads/op": &reads, "plans/op": &plans} {
				b.ReportMetric(float64(count.Load())/n, unit)
			}
			b.ReportMetric(float64(bytes.Load())/1e6/n, "MB-read/op")
			b.ReportMetric(max(0, float64(heap())-float64(before))/1e6, "MB-heap")
			w.Stop()
		})
	}
}

type meteredWriter struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (c *meteredWriter) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// heap returns how many bytes are in use.
func heap() uint64 {
	for range 3 { // so that pools are empty, too
		runtime.GC()
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
