package rules

import (
	"fmt"
	"strings"
	"testing"

	"switchyard/rules/internal/cond"
)

// manyRules is a file of n rules as a platform team writes them: teams by
// label, repositories by name, branches, sizes, and one for the rest.
func manyRules(n int) string {
	var b strings.Builder
	b.WriteString(`version: 1
labels:
  self-hosted: {}
  linux: {}
  x64: { constraints: ['${attr.cpu.arch} = amd64'] }
  gpu: { devices: [{ name: nvidia/gpu }] }
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 32 }, resources: { cores: '${{ param.cpu }}' } }
  "team-*": {}
defaults: { datacenters: ['*'], node_pool: ci, resources: { cpu: 2000, memory: 4GiB }, max: { cores: 32, memory: 64GiB } }
rules:
  - { name: public, if: not repo.private, deny: no public repositories }
`)
	for i := 1; i < n-1; i++ {
		condition := []string{
			fmt.Sprintf(`has("linux", "team-%d")`, i),
			fmt.Sprintf(`"team-%d" in labels and "gpu" in labels`, i),
			fmt.Sprintf(`repo.full_name == "acme/service-%d" and "linux" in labels`, i),
			fmt.Sprintf(`job.branch startsWith "release/" and has("linux", "team-%d")`, i),
			fmt.Sprintf(`has("linux", "team-%d") and (param.cpu ?? 1) > 8`, i),
		}[i%5]
		fmt.Fprintf(&b, "  - name: rule-%d\n    if: '%s'\n    jobspec: docker-linux\n    constraints: ['${meta.team} = team-%d']\n    resources: { memory: 8GiB }\n", i, condition, i)
	}
	fmt.Fprintf(&b, "  - name: rule-%d\n    if: has(\"linux\")\n    jobspec: docker-linux\n    constraints: ['${attr.kernel.name} = linux']\n", n-1)
	return b.String()
}

// BenchmarkDecide decides a job that the last rule takes and one that none takes, by the index and
// by asking every rule in turn (the same compiled conditions).
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		s := parse(b, manyRules(n))
		for _, bb := range []struct {
			name   string
			find   func(*cond.Env, *Decision) (*rule, error)
			labels string
			want   Outcome
		}{
			{"match=last/by=index", s.first, "linux x64 gpu cpu=8", Routed},
			{"match=last/by=scan", linear(s), "linux x64 gpu cpu=8", Routed},
			{"match=none/by=index", s.first, "x64 gpu cpu=8", Unroutable},
			{"match=none/by=scan", linear(s), "x64 gpu cpu=8", Unroutable},
		} {
			b.Run(fmt.Sprintf("rules=%d/%s", n, bb.name), func(b *testing.B) {
				f := job(strings.Fields(bb.labels)...)
				b.ReportAllocs()
				for b.Loop() {
					if d := s.decide(f, bb.find); d.Outcome != bb.want {
						b.Fatalf("%s: %s", d.Outcome, d.Reason)
					}
				}
			})
		}
	}
}

// BenchmarkCheck is what check does: load and lint.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			src := manyRules(n)
			b.ReportAllocs()
			for b.Loop() {
				parse(b, src).Lint(b.Context(), someJobspecs)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			src := []byte(manyRules(n))
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse("rules.yaml", src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
