package store_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
)

// How long a delivery waits while history is deleted as fast as it goes,
// without the pauses of the App.
func BenchmarkReceiveWhilePruning(b *testing.B) {
	const jobs = 5000
	s := openTemp(b)
	var wg sync.WaitGroup
	todo := make(chan int64)
	for range 64 {
		wg.Go(func() {
			for id := range todo {
				d := &router.Decision{Outcome: "routed", Rule: "linux", Reason: "rule linux holds"}
				r := router.Runner{ID: fmt.Sprintf("gha-%d-1", id), JobID: id, Try: 1, Name: fmt.Sprintf("gha-%d-1", id), NomadJob: "x"}
				done := storetest.NewDelivery(id, "completed", "completed")
				done.Job.RunnerName = r.Name
				for _, err := range []error{
					receive(b, s, storetest.NewDelivery(id, "queued", "queued")),
					s.Prepare(b.Context(), r, storetest.Token(id), storetest.T0),
					s.Dispatched(b.Context(), r, storetest.Token(id), d, storetest.T0),
					receive(b, s, done),
				} {
					if err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	for id := int64(1); id <= jobs; id++ {
		todo <- id
	}
	close(todo)
	wg.Wait()

	ended := storetest.T0.Add(time.Hour)
	var steps []time.Duration
	var stop = make(chan struct{})
	wg.Go(func() {
		for {
			began := time.Now()
			n, err := s.Prune(b.Context(), ended, ended, ended, ended)
			if err != nil {
				b.Error(err)
			}
			if n > 0 {
				steps = append(steps, time.Since(began))
			}
			select {
			case <-stop:
				return
			default:
			}
			if n == 0 {
				return
			}
		}
	})
	var waits []time.Duration
	id := int64(jobs)
	for b.Loop() {
		id++
		d := storetest.NewDelivery(id, "queued", "queued")
		d.ReceivedAt = ended
		began := time.Now()
		must(b, receive(b, s, d))
		waits = append(waits, time.Since(began))
	}
	close(stop)
	wg.Wait()
	for name, l := range map[string][]time.Duration{"step": steps, "delivery": waits} {
		if len(l) > 0 {
			slices.Sort(l)
			b.ReportMetric(float64(l[len(l)*99/100].Microseconds())/1000, name+"-p99-ms")
			b.ReportMetric(float64(l[len(l)/2].Microseconds())/1000, name+"-p50-ms")
		}
	}
	b.ReportMetric(float64(len(steps)), "steps")
}

func receive(b *testing.B, s *store.Store, d router.Delivery) error {
	_, err := s.Receive(b.Context(), d)
	return err
}
