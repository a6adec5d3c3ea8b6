package server_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/simulate"
)

const busyRules = `
scope: 'true'
rules:
  - { name: limited, if: has("limited"), jobspec: docker-linux, resources: { cpu: 2000, memory: 32GiB }, limit: { running: 2, per: rule } }
  - { name: large, if: has("large"), jobspec: docker-linux, resources: { cpu: 2000, memory: 150GiB } }
  - { name: linux, jobspec: docker-linux, resources: { cpu: 2000, memory: 64GiB } }
`

// A run of the router on a node without room for all jobs is replayed from the database. Each
// rule's waits are those that were seen, within a tenth of a second.
func TestARecordedRunIsReplayedAsItWas(t *testing.T) {
	bubble(t, testARecordedRunIsReplayedAsItWas)
}
func testARecordedRunIsReplayedAsItWas(t *testing.T) {
	w := newWorld(t, busyRules)
	w.Start()
	random := rand.New(rand.NewPCG(1, 2))
	var ids []int64
	for range 60 {
		kind := []string{"linux", "linux", "large", "limited"}[random.IntN(4)]
		repo := []string{"web", "api"}[random.IntN(2)]
		ids = append(ids, w.GitHub.Queue(t.Context(), githubsim.JobSpec{
			Owner: "acme", Repo: repo, Private: true, Labels: []string{kind}, Duration: time.Duration(2000+random.IntN(20_000)) * time.Millisecond,
		}))
		time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
	}
	for _, id := range ids {
		w.Await(id, in(router.Completed))
		eventually(t, "the runner's Nomad job ended", func() bool { return !w.Runners(id)[len(w.Runners(id))-1].EndedAt.IsZero() })
	}
	nodes, out, err := w.Client.Nodes(t.Context())
	if err != nil || len(nodes) != 1 || out != 0 {
		t.Fatalf("%d nodes, %d out of service, %v", len(nodes), out, err)
	}
	r, err := simulate.Run(t.Context(), simulate.Config{Rules: w.Rules, Nodes: nodes, Render: w.Client.JobOf}, func(yield func(router.PastJob, error) bool) {
		for j, err := range w.Store.History(t.Context(), time.Time{}) {
			if !yield(j.Past(), err) {
				return
			}
		}
	})
	must(t, err)
	if r.Jobs != len(ids) || len(r.Rules) != 3 {
		t.Fatalf("simulated %d jobs of %d rules, left out %v; want %d of 3", r.Jobs, len(r.Rules), r.LeftOut, len(ids))
	}
	waited := 0
	for _, row := range append(r.Rules, r.Total) {
		t.Logf("%s: seen %+v, simulated %+v", row.Rule, row.Recorded, row.Queue)
		seen, got := row.Recorded, row.Queue
		for _, v := range [][2]float64{{seen.Mean, got.Mean}, {seen.P50, got.P50}, {seen.P95, got.P95}, {seen.Max, got.Max}} {
			if math.Abs(v[0]-v[1]) > 0.1 {
				t.Errorf("rule %q: %.3f s were seen, %.3f s simulated", row.Rule, v[0], v[1])
			}
		}
		if seen.P95 > 3 {
			waited++
		}
	}
	if waited < 3 {
		t.Errorf("jobs of %d rules waited: there was room for all", waited)
	}
}
