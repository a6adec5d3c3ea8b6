package runners

import (
	"sync"
	"time"

	"switchyard/router"
)

// A limitClock knows for how long this process has seen runners run jobs that have a time
// limit. It uses the monotonic clock. It is safe for concurrent use; the zero value is ready.
type limitClock struct {
	mu   sync.Mutex
	runs map[string]run // by runner ID
}

type run struct {
	job   int64
	since time.Time
	again time.Time // not stopped before; zero: as soon as it is due
}

// see sets Seen of the live runners, and forgets the others.
func (c *limitClock) see(live []router.LiveRunner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, runs := time.Now(), map[string]run{}
	for i := range live {
		l := &live[i]
		if l.State != router.RunnerBusy || l.Serves == 0 || l.TimeLimit == 0 {
			continue
		}
		r := c.runs[l.ID]
		if r.job != l.Serves {
			r = run{job: l.Serves, since: now}
		}
		runs[l.ID], l.Seen = r, now.Sub(r.since)
	}
	c.runs = runs
}

// wait makes due report false for a runner for a while.
func (c *limitClock) wait(id string, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.runs[id]; ok {
		r.again = time.Now().Add(d)
		c.runs[id] = r
	}
}

// due reports whether a runner may be stopped at its time limit.
func (c *limitClock) due(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !time.Now().Before(c.runs[id].again)
}
