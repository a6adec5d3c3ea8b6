package capacity

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
	"switchyard/rules"
)

// A metered Nomad counts what it is asked and what it answers.
type metered struct {
	*Client
	sim                           *nomadsim.Server
	requests, lists, reads, bytes atomic.Int64
}

func meteredNomad(b *testing.B, nodes int) *metered {
	b.Helper()
	sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.LargeFleet(nodes)})
	b.Cleanup(sim.Close)
	m := &metered{sim: sim}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.requests.Add(1)
		switch {
		case r.URL.Path == "/v1/nodes" && !r.URL.Query().Has("per_page"):
			m.lists.Add(1)
		case len(r.URL.Path) == len("/v1/node/")+36:
			m.reads.Add(1)
		}
		r.Header.Del("Accept-Encoding") // so that bytes are those that are read
		sim.ServeHTTP(&counting{w, &m.bytes}, r)
	}))
	b.Cleanup(server.Close)
	m.Client = newClient(b, &api.Config{Address: server.URL})
	return m
}

type counting struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// measure reports for each turn of the benchmark what Nomad was asked, the CPU time, that
// of the simulated Nomad included, and what is kept in memory afterwards for all turns.
func (m *metered) measure(b *testing.B, turn func()) {
	heap := func() uint64 {
		var s runtime.MemStats
		for range 3 { // so that pools are empty, too
			runtime.GC()
		}
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before, spent := heap(), cpu()
	requests, lists, reads, bytes := m.requests.Load(), m.lists.Load(), m.reads.Load(), m.bytes.Load()
	for b.Loop() {
		turn()
	}
	n := float64(b.N)
	b.ReportMetric(float64((cpu()-spent).Milliseconds())/n, "cpu-ms/op")
	b.ReportMetric(float64(m.requests.Load()-requests)/n, "requests/op")
	b.ReportMetric(float64(m.lists.Load()-lists)/n, "lists/op")
	b.ReportMetric(float64(m.reads.Load()-reads)/n, "node-reads/op")
	b.ReportMetric(float64(m.bytes.Load()-bytes)/1e6/n, "MB-read/op")
	b.ReportMetric(max(0, float64(heap())-float64(before))/1e6, "MB-kept")
}

// gone is the context of somebody who does not wait.
func gone(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// fleets runs a benchmark for fleets of all sizes.
func fleets(b *testing.B, run func(b *testing.B, nodes int)) {
	for _, nodes := range []int{100, 1000, 6100} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) { run(b, nodes) })
	}
}

// What the Fleet page asks for: all nodes for the first time, again when nothing has
// changed, and what is known while that is new; with a hundred rules.
func BenchmarkFleet(b *testing.B) {
	var examples []router.Example
	for i := range 100 {
		examples = append(examples, router.Example{Rule: fmt.Sprint(i), Placement: ask("r", pool("ci"), router.Constraint{Attribute: "${attr.cpu.numcores}", Operator: ">=", Value: fmt.Sprint(i)}, coresOf(1+i%20)).Placement})
	}
	fleets(b, func(b *testing.B, nodes int) {
		m := meteredNomad(b, nodes)
		look := func(b *testing.B) {
			if f := m.Fleet(b.Context(), examples); f.Problem != nil || f.Reading != nil || len(f.Nodes) != nodes || f.Rules[0].Now == 0 {
				b.Fatalf("%d nodes, %+v, %+v", len(f.Nodes), f.Problem, f.Reading)
			}
		}
		m.Fleet(gone(b), examples) // it is told of the rules
		for _, state := range []string{"cold", "warm"} {
			b.Run(state, func(b *testing.B) {
				m.measure(b, func() {
					m.fleet.asked = time.Time{}
					if state == "cold" {
						m.fleet.known, m.regions.of = nil, nil
					}
					m.refreshFleet(b.Context())
					look(b)
				})
			})
		}
		b.Run("known", func(b *testing.B) { m.measure(b, func() { look(b) }) })
	})
}

// Why runners have no node, with how many nodes fall out at what: a first one, and a crowd
// of a hundred that ask for the same, of which nobody has put those alike together.
func BenchmarkUnplaced(b *testing.B) {
	fleets(b, func(b *testing.B, nodes int) {
		m := meteredNomad(b, nodes)
		jobs := make([]router.Job, 100)
		runners := make([]router.Runner, len(jobs))
		for i := range jobs {
			r := nomadtest.Request(ask("linux", pool("ci"), arm, memoryOf(48<<10), router.Constraint{Attribute: "${meta.zone}", Operator: "=", Value: "nowhere", From: "rule linux"}).Placement)
			r.Job.ID, r.Job.Try = int64(1000+i), 1
			r.Runner = router.Runner{ID: r.Job.RunnerID(), JobID: r.Job.ID, Try: 1, Name: r.Job.RunnerID()}
			started, err := m.Start(b.Context(), r)
			if err != nil {
				b.Fatal(err)
			}
			r.Runner.NomadJob, r.Runner.NomadAt = started.NomadJob, started.At
			jobs[i], runners[i] = placed(r, "linux"), r.Runner
		}
		for _, c := range []struct {
			name  string
			crowd int
		}{{"cold", 1}, {"warm", 1}, {"changed", 1}, {"crowd=100", len(jobs)}} {
			b.Run(c.name, func(b *testing.B) {
				turns := 0
				m.measure(b, func() {
					switch {
					case c.name == "changed": // one node
						turns++
						if err := m.sim.SetEligible("linux-00000", turns%2 == 0); err != nil {
							b.Fatal(err)
						}
					case c.name != "warm":
						m.regions.of = nil
					}
					for i := range c.crowd {
						u, err := m.Unplaced(b.Context(), jobs[i], runners[i])
						if err != nil || u == nil || !u.Never {
							b.Fatalf("%+v, %v", u, err)
						}
					}
				})
			})
		}
	})
}

// What check --nomad asks about thirty rules that find nodes.
func BenchmarkCheckRules(b *testing.B) {
	var text strings.Builder
	text.WriteString("version: 1\nlabels: { self-hosted: {}, small: {}, large: { resources: { memory: 8GiB } }")
	for i := range 30 {
		fmt.Fprintf(&text, ", team-%d: {}", i)
	}
	text.WriteString(" }\nrules:\n")
	for i := range 30 {
		fmt.Fprintf(&text, "  - { name: team-%d, if: has(\"team-%d\"), jobspec: plain, node_pool: ci, resources: { cores: %d } }\n", i, i, 1+i%6)
	}
	set, err := rules.Parse("rules.yaml", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	fleets(b, func(b *testing.B, nodes int) {
		m := meteredNomad(b, nodes)
		m.measure(b, func() {
			m.regions.of = nil
			if _, err := m.CheckRules(b.Context(), set); err != nil {
				b.Fatal(err)
			}
		})
	})
}
