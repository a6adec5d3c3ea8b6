package server

import (
	"context"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

// clockStep is the difference from which a clock counts as set; smaller ones are the usual
// adjustments.
const clockStep = 2 * time.Second

// A clock corrects what would be late after the machine's clock was set back.
type clock struct {
	store   Store
	log     *telemetry.Log
	now     func() time.Time
	tick    time.Duration
	setBack func() // makes everything that waits due again
}

// before finds out whether the machine's clock was set back while no process ran. It is called
// before anything is written.
func (c *clock) before(ctx context.Context) error {
	newest, err := c.store.Changes(ctx, -1, 1)
	if err != nil {
		return err
	}
	if len(newest) > 0 && newest[0].At.After(c.now().Add(clockStep)) {
		c.rewind(ctx, newest[0].At.Sub(c.now()))
	}
	return nil
}

// watch finds out whether the machine's clock is set back, until ctx ends: what waits in the
// database would be late by as much.
func (c *clock) watch(ctx context.Context) error {
	tick := time.NewTicker(c.tick)
	defer tick.Stop()
	last, since := c.now().Round(0), time.Now() // Round removes the monotonic reading
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, passed := c.now().Round(0), time.Since(since)
		step := now.Sub(last) - passed
		last, since = now, since.Add(passed)
		switch {
		case step < -clockStep:
			c.rewind(ctx, -step)
		case step > clockStep:
			c.log.Warn("the clock was set forward, or the machine slept", "by", step.Round(time.Second))
		}
	}
}

// rewind corrects what would be late because the clock was set back.
func (c *clock) rewind(ctx context.Context, by time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	n, err := c.store.Rewind(ctx, c.now())
	if err != nil {
		c.log.Error("the clock was set back, and jobs that wait are late by as much, as the database cannot be written: check its disk", "by", by.Round(time.Second), "err", err)
		return
	}
	c.log.Warn("the clock was set back; jobs and runners that would be late are due now", "by", by.Round(time.Second), "jobs_and_runners", n)
	c.setBack()
}
