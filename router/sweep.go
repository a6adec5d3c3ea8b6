package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	sweepBatch   = 256 // jobs read from the store at once
	sweepCallers = 4   // of Nomad at the same time
)

// sweeps runs a sweep at once and then each Sweep, until ctx ends.
func (w *worker) sweeps(ctx context.Context) error {
	tick := time.NewTicker(w.Sweep)
	defer tick.Stop()
	for {
		if err := w.sweep(ctx); err != nil && ctx.Err() == nil {
			w.Logger.Warn("cannot look up the runners that have no job; the next sweep tries again", "err", err, "again_at", w.Now().Add(w.Sweep))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sweep gives up the runners whose Nomad job ended before GitHub gave them a
// job: nobody would ever hear of them. Their own jobs are tried again.
func (w *worker) sweep(ctx context.Context) error {
	for after := int64(0); ; {
		batch, err := w.Store.Unserved(ctx, after, sweepBatch)
		if err != nil || len(batch) == 0 {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(sweepCallers)
		for _, c := range batch {
			after = c.Job.ID
			g.Go(func() error { return w.lookUp(ctx, c) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
}

// lookUp fails when it makes no sense to look up others: the store fails, or
// Nomad is away.
func (w *worker) lookUp(ctx context.Context, c Claimed) error {
	log := w.Logger.With("job_id", c.Job.ID, "nomad_job", c.Runner.NomadJob)
	nomadCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ended, err := w.Nomad.Ended(nomadCtx, c.Runner)
	var fix *FixError
	var giveUp *GiveUpError
	switch {
	case errors.As(err, &fix), errors.As(err, &giveUp):
		log.Error("cannot look up a runner", "err", err)
		return nil
	case err != nil || !ended:
		return err
	}
	at := w.Now()
	reason := fmt.Sprintf("its Nomad job %s ended before the runner asked for its configuration: can its node reach %s?", c.Runner.NomadJob, w.PublicURL)
	if c.Runner.State == RunnerOnline {
		// It may have had a job after all: GitHub's word of that can be late.
		at = at.Add(w.Doubt)
		reason = fmt.Sprintf("its Nomad job %s ended before GitHub gave the runner a job: nomad job status %[1]s says why", c.Runner.NomadJob)
	}
	storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	lost, err := w.Store.Lost(storeCtx, c.Runner.ID, at, reason, w.Now())
	if err != nil {
		return fmt.Errorf("record lost runner %s: %w", c.Runner.ID, err)
	}
	if lost {
		log.Warn("a runner ended without a job; its own is tried again", "reason", reason, "again_at", at)
		w.nudge()
	}
	return nil
}
