//go:build unix

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
)

// BenchmarkIdle measures a server with ten running jobs, of which nothing is heard, while so
// many have the page Now open: its CPU in percent of a core, and in how many of the seconds the
// database was written. One time is a second; the simulators and the clients of the pages
// share the process, so their CPU is in it.
func BenchmarkIdle(b *testing.B) {
	for _, views := range []int{0, 100} {
		b.Run(fmt.Sprintf("views=%d", views), func(b *testing.B) {
			y := newYard(b, yardConfig{})
			for range 10 {
				y.queue(githubsim.JobSpec{Labels: []string{"self-hosted", "linux", "x64"}, Duration: 24 * time.Hour}, router.Running)
			}
			ctx, leave := context.WithCancel(b.Context())
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: views}}
			var viewers sync.WaitGroup
			defer viewers.Wait()
			defer leave()
			for range views {
				viewers.Go(func() { view(ctx, client, y.console) })
			}
			time.Sleep(15 * time.Second) // until all is settled
			cpu := func() time.Duration {
				var u syscall.Rusage
				must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
				return time.Duration(u.Utime.Nano() + u.Stime.Nano())
			}
			database := func() (s string) {
				for _, name := range []string{y.Database, y.Database + "-wal"} {
					if info, err := os.Stat(name); err == nil {
						s += fmt.Sprint(info.Size(), info.ModTime().UnixNano(), " ")
					}
				}
				return s
			}
			written, was, before := 0, database(), cpu()
			b.ResetTimer()
			for range b.N {
				time.Sleep(time.Second)
				if now := database(); now != was {
					written++
					was = now
				}
			}
			b.ReportMetric(100*(cpu()-before).Seconds()/b.Elapsed().Seconds(), "%-of-a-core")
			b.ReportMetric(float64(written), "seconds-written")
			b.ReportMetric(0, "ns/op")
		})
	}
}
