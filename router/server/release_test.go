package server_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/server"
)

// unrendered is a Nomad that fails, and is not asked for the runner of the first job, whose
// jobspec is at fault.
type unrendered struct {
	*cluster
	asked *atomic.Int64
	fail  func(context.Context) error
}

func (n unrendered) Start(ctx context.Context, r router.StartRequest) (router.Started, error) {
	if r.Job.ID == 1 {
		return router.Started{}, &router.FixError{Fix: "add it", Err: &router.JobspecError{Err: errors.New("there is no jobspec")}}
	}
	n.asked.Add(1)
	return router.Started{}, n.fail(ctx)
}

// A job that fails before Nomad is asked says nothing about Nomad.
func TestAJobspecAtFaultEndsNoOutage(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(context.Context) error{
		"Nomad is away":   func(context.Context) error { return errors.New("connection refused") },
		"Nomad is silent": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		virtual(t, name, func(t *testing.T) {
			n := unrendered{&cluster{}, new(atomic.Int64), fail}
			r := start(t, openStore(t), n.cluster, &hub{}, func(c *server.Config) { c.Nomad, c.Tick = n, 5*time.Second })
			for id := int64(1); id <= 50; id++ {
				r.deliver(delivery(id, "queued", "self-hosted", "linux"))
			}
			time.Sleep(time.Minute)
			before := n.asked.Load()
			time.Sleep(5 * time.Minute)
			if asked := n.asked.Load() - before; asked > 5*60/10 {
				t.Errorf("in 5 minutes Nomad was asked for %d runners, want one at a time", asked)
			}
		})
	}
}

// releasingStore makes ten jobs due at a time.
type releasingStore struct {
	Store
	calls  *atomic.Int64
	before func(ctx context.Context, call int64) error
}

func (s releasingStore) RetryNow(ctx context.Context, region string, cause router.Cause, limit int, now time.Time) (int, error) {
	const batch = 10
	if limit < batch {
		return s.Store.RetryNow(ctx, region, cause, limit, now)
	}
	if err := s.before(ctx, s.calls.Add(1)); err != nil {
		return 0, err
	}
	n, err := s.Store.RetryNow(ctx, region, cause, batch, now)
	if n == batch {
		n = limit
	}
	return n, err
}

// All jobs that waited for Nomad are sent when it is back, however the database does.
func TestASlowDatabaseLeavesNoJobWaitingAfterAnOutage(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(context.Context, int64) error{
		"each batch takes 4 s": func(ctx context.Context, _ int64) error {
			router.Pause(ctx, 4*time.Second)
			return ctx.Err()
		},
		"one fails": func(_ context.Context, call int64) error {
			if call == 3 { // the first is at the start
				return errors.New("database is locked")
			}
			return nil
		},
	} {
		virtual(t, name, func(t *testing.T) {
			const jobs = 35
			var down atomic.Bool
			down.Store(true)
			n := &cluster{fail: func(int) error {
				if down.Load() {
					return errors.New("connection refused")
				}
				return nil
			}}
			st := releasingStore{openStore(t), new(atomic.Int64), before}
			r := start(t, st, n, &hub{}, func(c *server.Config) { c.Tick = 5 * time.Second })
			for id := int64(1); id <= jobs; id++ {
				r.deliver(delivery(id, "queued", "self-hosted", "linux"))
			}
			time.Sleep(time.Minute)
			down.Store(false)
			back := time.Now()
			for id := int64(1); id <= jobs; id++ {
				r.await(id, in(router.Dispatched))
			}
			if took := time.Since(back); took > 40*time.Second {
				t.Errorf("the last job is sent %s after Nomad is back", took)
			}
		})
	}
}
