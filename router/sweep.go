package router

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	sweepBatch   = 256 // runners read from the store at once
	sweepCallers = 4   // of Nomad at the same time
)

// sweeps runs a sweep at once and then each Sweep, until ctx ends.
func (w *worker) sweeps(ctx context.Context) error {
	tick := time.NewTicker(w.Sweep)
	defer tick.Stop()
	for {
		if err := w.sweep(ctx); err != nil && ctx.Err() == nil {
			w.Logger.Warn("cannot look up the runners that have not claimed; the next sweep tries again", "err", err, "again_at", w.Now().Add(w.Sweep))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sweep gives up the runners whose Nomad job ended before they asked for their
// configuration, as when the claim was not to be reached: nobody would ever
// hear of them. Their jobs are tried again.
func (w *worker) sweep(ctx context.Context) error {
	for after := int64(0); ; {
		batch, err := w.Store.Unclaimed(ctx, after, sweepBatch)
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

func (w *worker) lookUp(ctx context.Context, c Claimed) error {
	if c.Job.Decision == nil {
		return nil
	}
	nomadCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ended, err := w.Nomad.Ended(nomadCtx, c.Runner, c.Job.Decision.Placement)
	if err != nil || !ended {
		return err
	}
	storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	reason := fmt.Sprintf("its Nomad job %s ended before the runner asked for its configuration: can its node reach %s?", c.Runner.NomadJob, w.PublicURL)
	if err := w.Store.Lost(storeCtx, c.Runner.ID, w.Now(), reason, w.Now()); err != nil {
		return fmt.Errorf("record lost runner %s: %w", c.Runner.ID, err)
	}
	w.Logger.Warn("a runner ended before it asked for its configuration; the job is tried again: can its node reach the public URL?",
		"job_id", c.Job.ID, "nomad_job", c.Runner.NomadJob, "public_url", w.PublicURL)
	w.nudge()
	return nil
}
