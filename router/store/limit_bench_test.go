package store_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
	"switchyard/router/store/storetest"
)

// BenchmarkNext is what the end of a job costs the store while 10,000 others wait for a place
// under its limit: the delivery, and the choice of the next.
func BenchmarkNext(b *testing.B) {
	const held, places = 10_000, 100
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		for _, repos := range []int64{1, 100, held} {
			b.Run(fmt.Sprintf("%s/repos=%d", engine, repos), func(b *testing.B) {
				var s *store.Store
				if engine == "SQLite" {
					s = openTemp(b)
				} else {
					var err error
					s, err = store.Open(b.Context(), postgrestest.URL(b))
					must(b, err)
					b.Cleanup(func() { must(b, s.Close()) })
				}
				d := &router.Decision{Outcome: "routed", Rule: "linux", Reason: "it holds", Limit: &router.Limit{Running: places, Per: "rule", Key: "linux"}}
				d.Jobspec = "docker-linux"
				admit := func(id int64) {
					j := storetest.NewDelivery(id, "queued", "queued")
					j.Job.Repo.Name = fmt.Sprint("repo-", id%repos)
					j.Job.Repo.FullName = "acme/" + j.Job.Repo.Name
					j.ReceivedAt = storetest.T0.Add(time.Duration(id) * time.Second)
					of := *d
					if err := receive(b, s, j); err != nil {
						b.Error(err)
					}
					if _, err := s.Admit(b.Context(), id, &of, j.ReceivedAt); err != nil {
						b.Error(err)
					}
				}
				var all sync.WaitGroup
				todo := make(chan int64)
				for range 64 {
					all.Go(func() {
						for id := range todo {
							admit(id)
						}
					})
				}
				for id := int64(1); id <= held+places; id++ {
					todo <- id
				}
				close(todo)
				all.Wait()
				next := int64(held + places)
				placed, err := s.FindJobs(b.Context(), router.JobFilter{States: []router.JobState{router.Queued}, Limit: places})
				if err != nil || len(placed) != places {
					b.Fatalf("%d jobs have a place, %v", len(placed), err)
				}
				b.ResetTimer()
				for b.Loop() {
					end := storetest.NewDelivery(placed[0].ID, "completed", "completed")
					must(b, receive(b, s, end))
					b.StopTimer()
					now, _, err := s.Due(b.Context(), storetest.T0.Add(1000*time.Hour), nil, places)
					must(b, err)
					for _, j := range now {
						_, err := s.Admit(b.Context(), j.ID, d, storetest.T0)
						must(b, err)
					}
					next++
					admit(next)
					if placed = now; len(placed) == 0 {
						b.Fatal("nobody is next")
					}
					b.StartTimer()
				}
			})
		}
	}
}
