package server

import (
	"context"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

// clockStep is by how much the clock is off when it was set; less is how it is kept
// right all the time.
const clockStep = 2 * time.Second

// A clock sees to what would be late when the machine's is set back.
type clock struct {
	store   Store
	log     *telemetry.Log
	now     func() time.Time
	tick    time.Duration
	setBack func() // has everything that waits looked at again
}

// before sees whether the machine's clock was set back while no process ran. It
// is called before anything is written.
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

// watch sees whether the machine's clock is set back, until ctx ends: what is in the
// database as due after a wait would be due late by as much.
func (c *clock) watch(ctx context.Context) error {
	tick := time.NewTicker(c.tick)
	defer tick.Stop()
	last, since := c.now().Round(0), time.Now() // Round takes off the time that passes, which is not set
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

// rewind sees to what would be late, as the clock was set back.
func (c *clock) rewind(ctx context.Context, by time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	n, err := c.store.Rewind(ctx, c.now())
	if err != nil {
		c.log.Error("the clock was set back, and what waits in the database is late by as much; is its disk healthy?", "by", by.Round(time.Second), "err", err)
		return
	}
	c.log.Warn("the clock was set back; what was due later by it is due now", "by", by.Round(time.Second), "jobs_and_runners", n)
	c.setBack()
}
