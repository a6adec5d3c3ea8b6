package store_test

import (
	"fmt"
	"sync"
	"testing"

	"switchyard/router"
	"switchyard/router/store/storetest"
)

// BenchmarkOpenJobs is what a scrape costs the store: a history of 2,000 jobs,
// and 2,000 that wait on Nomad, which is many.
func BenchmarkOpenJobs(b *testing.B) {
	const history, waiting = 2_000, 2_000
	s := openTemp(b)
	placement := router.Placement{Jobspec: "docker-linux"}
	for i := range 40 {
		placement.Constraints = append(placement.Constraints, router.Constraint{Attribute: fmt.Sprintf("${meta.zone-%d}", i), Operator: "=", Value: "tokyo"})
	}
	var wg sync.WaitGroup
	todo := make(chan int64)
	for range 64 {
		wg.Go(func() {
			for id := range todo {
				d := &router.Decision{Outcome: "routed", Rule: fmt.Sprintf("rule-%d", id%50), Reason: "it holds", Placement: placement}
				r := router.Runner{ID: fmt.Sprintf("gha-%d-1", id), JobID: id, Try: 1, Name: fmt.Sprintf("gha-%d-1", id), NomadJob: "x"}
				steps := []error{
					receive(b, s, storetest.NewDelivery(id, "queued", "queued")),
					s.Prepare(b.Context(), r, storetest.Token(id), storetest.T0),
					s.Dispatched(b.Context(), r, storetest.Token(id), d, storetest.T0),
				}
				if id <= history {
					done := storetest.NewDelivery(id, "completed", "completed")
					done.Job.RunnerName = r.Name
					steps = append(steps, receive(b, s, done), s.Ended(b.Context(), []string{r.ID}, storetest.T0))
				}
				for _, err := range steps {
					if err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	for id := int64(1); id <= history+waiting; id++ {
		todo <- id
	}
	close(todo)
	wg.Wait()
	b.ResetTimer()
	for b.Loop() {
		open, err := s.OpenJobs(b.Context(), nil)
		if err != nil || len(open) != 50 {
			b.Fatalf("%d groups, %v", len(open), err)
		}
		must(b, errOf(s.LiveRunners(b.Context())))
	}
}

// BenchmarkNodeDemand is what a scrape costs the store when 10,000 jobs wait for a node: the first
// one, when no two of them ask for the same labels, and each later one.
func BenchmarkNodeDemand(b *testing.B) {
	const waiting = 10_000
	s := openTemp(b)
	d := &router.Decision{Outcome: "routed", Rule: "linux", Reason: "it holds"}
	d.NodePool, d.Resources.CPU = "ci", 500
	for i := range 10 {
		d.Constraints = append(d.Constraints, router.Constraint{Attribute: fmt.Sprintf("${meta.zone-%d}", i), Operator: "=", Value: "tokyo", From: "rule linux"})
	}
	var wg sync.WaitGroup
	todo := make(chan int64)
	for range 64 {
		wg.Go(func() {
			for id := range todo {
				q := storetest.NewDelivery(id, "queued", "queued")
				q.Job.Labels = []string{"self-hosted", fmt.Sprintf("run-%d", id)}
				r := router.Runner{ID: fmt.Sprintf("gha-%d-1", id), JobID: id, Try: 1, Name: fmt.Sprintf("gha-%d-1", id), NomadJob: "x", Fit: q.Job.Fit(d)}
				for _, err := range []error{
					receive(b, s, q),
					s.Prepare(b.Context(), r, storetest.Token(id), storetest.T0),
					s.Dispatched(b.Context(), r, storetest.Token(id), d, storetest.T0),
				} {
					if err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	for id := int64(1); id <= waiting; id++ {
		todo <- id
	}
	close(todo)
	wg.Wait()
	count := func(b *testing.B) {
		all, err := s.NodeDemand(b.Context())
		if err != nil || len(all) != 1 || all[0].Runners != waiting || all[0].CPU != 500*waiting {
			b.Fatalf("%+v, %v", all, err)
		}
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			s.ForgetDemand()
			count(b)
		}
	})
	b.Run("later", func(b *testing.B) {
		count(b)
		for b.Loop() {
			count(b)
		}
	})
}

// BenchmarkTroubles is what an outage costs whoever asks what is wrong: 20,000 jobs of 500
// repositories that Nomad did not take, in each of two causes.
func BenchmarkTroubles(b *testing.B) {
	const waiting = 20_000
	s := openTemp(b)
	d := &router.Decision{Outcome: "routed", Rule: "linux", Reason: "it holds"}
	var wg sync.WaitGroup
	todo := make(chan int64)
	for range 64 {
		wg.Go(func() {
			for id := range todo {
				q := storetest.NewDelivery(id, "queued", "queued")
				q.Job.Repo.Name = fmt.Sprintf("repo-%d", id%500)
				q.Job.Repo.FullName = q.Job.Repo.Owner + "/" + q.Job.Repo.Name
				steps := []error{
					receive(b, s, q),
					s.Retry(b.Context(), id, storetest.T0, router.CauseNomad, "Nomad could not take the job yet", d, storetest.T0),
					s.Retry(b.Context(), id, storetest.T0, router.CauseGitHub, "GitHub did not answer", d, storetest.T0),
				}
				for _, err := range steps {
					if err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	for id := int64(1); id <= waiting; id++ {
		todo <- id
	}
	close(todo)
	wg.Wait()
	b.ResetTimer()
	for b.Loop() {
		list, err := s.Troubles(b.Context(), nil, storetest.T0, storetest.T0, 20)
		if err != nil || len(list) != 1000 {
			b.Fatalf("%d groups, %v", len(list), err)
		}
	}
}
