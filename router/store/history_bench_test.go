package store_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/store/storetest"
	"switchyard/router/usage"
	"switchyard/rules"
)

// BenchmarkHistory is what a long history costs whoever does not ask for it: a new job from its
// delivery to the record of its dispatch, one step of pruning, what is asked again and again, and
// searches that find nothing.
func BenchmarkHistory(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("jobs=%d", n), func(b *testing.B) { benchmarkHistory(b, int64(n)) })
	}
}

func benchmarkHistory(b *testing.B, id int64) {
	path := filepath.Join(b.TempDir(), "x.db")
	storetest.Create(b, path)
	now := time.Now()
	storetest.History(b, path, int(id), 30*24*time.Hour, now)
	s := storetest.Open(b, path)
	defer s.Close()
	team := router.Scope{fmt.Sprintf("owner-%d/*", storetest.HistoryOwners)}
	d := &router.Decision{Outcome: "routed", Rule: "h1", Reason: "rule h1 holds"}
	measure := func(name string, do func(b *testing.B) error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				must(b, do(b))
			}
		})
	}
	measure("receive-and-dispatch", func(b *testing.B) error {
		id++
		q := storetest.NewDelivery(id, "queued", "queued")
		q.ID, q.ReceivedAt = fmt.Sprintf("%08x-cc78-11e3-81ab-4c9367dc0958", uint32(id*2654435761)), now // in no order, as GitHub's
		r := router.Runner{ID: fmt.Sprintf("gha-%d-1", id), JobID: id, Try: 1, Name: fmt.Sprintf("gha-%d-1", id), NomadJob: "x"}
		must(b, errOf(s.Receive(b.Context(), q)))
		must(b, s.Prepare(b.Context(), r, storetest.Token(id), now))
		return s.Dispatched(b.Context(), r, storetest.Token(id), d, now)
	})
	measure("due", func(b *testing.B) error {
		_, _, err := s.Due(b.Context(), now, nil, 256)
		return err
	})
	measure("recheck", func(b *testing.B) error { return errOf(s.Stale(b.Context(), now, 10*time.Minute, 100)) })
	measure("targets", func(b *testing.B) error { return errOf(s.Targets(b.Context(), now.AddDate(0, 0, -2))) })
	measure("live-runners", func(b *testing.B) error { return errOf(s.Live(b.Context())) })
	measure("counts", func(b *testing.B) error { return errOf(s.Counts(b.Context())) })
	for name, f := range map[string]router.JobFilter{
		"label-nobody-has":    {Label: "nobody", Limit: 51},
		"label-all-have":      {Label: "linux", Owner: "nobody", Limit: 51},
		"two-that-many-have":  {Label: "team-7", Rule: "h3", Limit: 51},
		"jobs-of-a-team-none": {Within: team, States: []router.JobState{router.Completed}, Limit: 51},
	} {
		measure(name, func(b *testing.B) error {
			jobs, _, err := s.SearchJobs(b.Context(), f)
			if len(jobs) > 0 {
				b.Errorf("found %d jobs", len(jobs))
			}
			return err
		})
	}
	measure("runners-of-a-team-none", func(b *testing.B) error {
		runners, _, err := s.SearchRunners(b.Context(), router.RunnerFilter{Within: team, Limit: 51})
		if len(runners) > 0 {
			b.Errorf("found %d runners", len(runners))
		}
		return err
	})
	measure("prune", func(b *testing.B) error { // what is older than 28 days; a week's deliveries are kept
		old := now.AddDate(0, 0, -28)
		return errOf(s.Prune(b.Context(), old, old, old, old))
	})
}

// BenchmarkUsage is what it takes to count what the jobs of a month used, all of which ended.
func BenchmarkUsage(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("jobs=%d", n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "x.db")
			storetest.Create(b, path)
			now := time.Now()
			storetest.History(b, path, n, 30*24*time.Hour, now)
			s := storetest.Open(b, path)
			defer s.Close()
			for _, by := range router.UsageBys {
				b.Run("by="+string(by), func(b *testing.B) {
					for b.Loop() {
						r, err := usage.Count(b.Context(), s, router.UsageFilter{By: by, From: now.AddDate(0, 0, -31), Until: now}, rules.Prices{})
						if must(b, err); r.Total.Jobs < n*9/10 {
							b.Fatalf("%d jobs", r.Total.Jobs)
						}
					}
				})
			}
		})
	}
}
