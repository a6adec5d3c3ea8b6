package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"switchyard/router"
	"switchyard/router/nomadsim"
)

// A week of a large organization's jobs, most of them by day, on a fleet of 6,100 nodes.
func BenchmarkSimulate(b *testing.B) {
	for _, size := range []struct{ jobs, nodes int }{{10_000, 610}, {100_000, 6100}} {
		b.Run(fmt.Sprintf("jobs=%d/nodes=%d", size.jobs, size.nodes), func(b *testing.B) {
			set := load(b, `
version: 1
scope: 'true'
labels:
  linux: {}
  arm64: { constraints: ['${attr.cpu.arch} = arm64'] }
  gpu: { devices: [nvidia/gpu], resources: { memory: 24GiB } }
  macos: {}
  windows: {}
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 32 }, resources: { cores: '${{ param.cpu }}' } }
defaults: { resources: { cpu: 2000, memory: 4GiB } }
rules:
  - { name: macos, if: has("macos"), jobspec: shell, node_pool: macs, constraints: ['${attr.kernel.name} = darwin'] }
  - { name: windows, if: has("windows"), jobspec: shell, node_pool: ci, constraints: ['${attr.kernel.name} = windows'], limit: { running: 20, per: repo } }
  - { name: gpu, if: has("gpu"), jobspec: shell, node_pool: gpu }
  - { name: linux, if: has("linux"), jobspec: shell, node_pool: ci, constraints: ['${attr.kernel.name} = linux'], affinities: [{ attribute: '${node.class}', value: spot, weight: 50 }] }
`)
			random := rand.New(rand.NewPCG(1, 2))
			const week = 7 * 24 * 3600
			kinds := [][]string{{"linux"}, {"linux"}, {"linux", "cpu=4"}, {"linux", "cpu=16"}, {"linux", "arm64"}, {"linux", "arm64", "cpu=8"}, {"gpu"}, {"macos"}, {"windows"}, {"windows", "cpu=8"}}
			jobs := make([]router.PastJob, size.jobs)
			for i := range jobs {
				at := random.Float64() * week / 20 // as busy as twenty such weeks
				at += 3 * 3600 * math.Sin(at/24/3600*2*math.Pi) / (2 * math.Pi)
				jobs[i] = past(int64(i+1), at, 60+3000*random.ExpFloat64(), fmt.Sprint("acme/r", random.IntN(300)), kinds[random.IntN(len(kinds))]...)
			}
			nodes := nomadsim.LargeFleet(size.nodes)
			b.ReportAllocs()
			for b.Loop() {
				r, err := Run(b.Context(), Config{Rules: set, Nodes: nodes, Render: render, Advise: 2}, all(jobs))
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(r.Jobs), "jobs")
				b.ReportMetric(r.Total.Node.P95, "p95-node-s")
			}
		})
	}
}
