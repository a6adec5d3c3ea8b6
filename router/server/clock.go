package server

import (
	"context"
	"switchyard/router"
	"sync"
	"time"
)

// clockStep is by how much the clock is off when it was set; less is how it is kept
// right all the time.
const clockStep = 2 * time.Second

// sureNow is the latest time that it can be: what the clock says, unless it was set
// forward since this process began. What cannot be undone goes by it.
func (w *worker) sureNow() time.Time {
	now := w.Now()
	if w.beganAt.IsZero() {
		return now
	}
	if latest := w.beganAt.Add(time.Since(w.began)); latest.Before(now) {
		return latest
	}
	return now
}

// clockBefore sees whether the machine's clock was set back while no process ran. It
// is called before anything is written.
func (w *worker) clockBefore(ctx context.Context) error {
	newest, err := w.Store.Changes(ctx, -1, 1)
	if err != nil {
		return err
	}
	if len(newest) > 0 && newest[0].At.After(w.Now().Add(clockStep)) {
		w.rewind(ctx, newest[0].At.Sub(w.Now()))
	}
	return nil
}

// clock sees whether the machine's clock is set back, until ctx ends: what is in the
// database as due after a wait would be due late by as much.
func (w *worker) clock(ctx context.Context) error {
	tick := time.NewTicker(w.Tick)
	defer tick.Stop()
	last, since := w.Now().Round(0), time.Now() // Round takes off the time that passes, which is not set
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, passed := w.Now().Round(0), time.Since(since)
		step := now.Sub(last) - passed
		last, since = now, since.Add(passed)
		switch {
		case step < -clockStep:
			w.rewind(ctx, -step)
		case step > clockStep:
			w.Logger.Warn("the clock was set forward, or the machine slept", "by", step.Round(time.Second))
		}
	}
}

// rewind sees to what would be late, as the clock was set back.
func (w *worker) rewind(ctx context.Context, by time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	w.queues.reset()
	n, err := w.Store.Rewind(ctx, w.Now())
	if err != nil {
		w.Logger.Error("the clock was set back, and what waits in the database is late by as much; is its disk healthy?", "by", by.Round(time.Second), "err", err)
		return
	}
	w.Logger.Warn("the clock was set back; what was due later by it is due now", "by", by.Round(time.Second), "jobs_and_runners", n)
	w.nudge()
	w.look(0)
	w.lookAgain(w.Now())
}

// A limitClock knows since when this process has seen runners run jobs that have a
// time limit. It goes by the time that passes. It is safe for concurrent use; the zero
// value is ready.
type limitClock struct {
	mu   sync.Mutex
	runs map[string]run // by runner ID
}

type run struct {
	job   int64
	since time.Time
	again time.Time // when it is looked at again; zero: when it is due
}

// see sets Seen of the runners that are live, and forgets the others.
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

// wait has a runner not be looked at for a while.
func (c *limitClock) wait(id string, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.runs[id]; ok {
		r.again = time.Now().Add(d)
		c.runs[id] = r
	}
}

// due reports whether a runner may be looked at.
func (c *limitClock) due(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !time.Now().Before(c.runs[id].again)
}
