package store_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router/store/storetest"
)

// BenchmarkReceive measures one delivery of a new job from the call to the
// moment it is on disk.
func BenchmarkReceive(b *testing.B) {
	for _, senders := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) {
			s := openTemp(b)
			took := make([]time.Duration, b.N)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range senders {
				wg.Go(func() {
					for {
						i := next.Add(1) - 1
						if i >= int64(b.N) {
							return
						}
						d := storetest.NewDelivery(i+1, "queued", "queued")
						d.ID = fmt.Sprintf("%08x-cc78-11e3-81ab-4c9367dc0958", uint32(i*2654435761)) // in no order, as GitHub's
						began := time.Now()
						if _, err := s.Receive(b.Context(), d); err != nil {
							b.Error(err)
							return
						}
						took[i] = time.Since(began)
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			slices.Sort(took)
			ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
			b.ReportMetric(ms(took[b.N/2]), "p50-ms")
			b.ReportMetric(ms(took[b.N*99/100]), "p99-ms")
		})
	}
}
