package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

const fallbackBatch = 64 // jobs read from the store at once

// fallbacks has the runners that wait for a node give way to their job's next
// fallback when it is due, until ctx ends.
func (w *worker) fallbacks(ctx context.Context) error {
	for {
		wait := w.Tick
		due, next, err := w.Store.FallbacksDue(ctx, w.Now(), fallbackBatch)
		if err != nil && ctx.Err() == nil {
			w.logThrottled(w.Logger, slog.LevelError, "", "cannot read the fallbacks that are due from the store", "err", err, "fix", router.StoreFix(err))
		}
		if !next.IsZero() {
			wait = min(wait, max(next.Sub(w.Now()), 0))
		}
		for _, c := range due {
			if err := w.fallBack(ctx, c); err != nil && ctx.Err() == nil {
				w.logThrottled(w.Logger, slog.LevelWarn, "", "cannot replace a runner that waits for a node; it is tried again", "job_id", c.Job.ID, "nomad_job", c.Runner.NomadJob, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// fallBack replaces a runner that waits for a node. The books come first, so
// that it cannot claim any more; then Nomad; and only when it is stopped there
// the job goes on. A pass finishes what is cut off.
func (w *worker) fallBack(ctx context.Context, c router.Claimed) error {
	j, r := c.Job, router.LiveRunner{Runner: c.Runner}
	n, after, ok := router.NextFallback(j.Decision, j.Fallback)
	if !ok {
		return nil
	}
	nomadCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	switch _, err := w.Nomad.Allocation(nomadCtx, r.Runner); {
	case err == nil:
		return w.recordPlaced(ctx, r) // the event is under way, or was missed
	case !errors.Is(err, router.ErrNotFound):
		return err
	}
	reason := fmt.Sprintf("Nomad had no node for %s within %s: fallback %d of rule %s takes its place", r.ID, rules.Duration(after), n, j.Decision.Rule)
	storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	ok, err := w.Store.FallBack(storeCtx, r.ID, n, reason, w.Now())
	if err != nil || !ok {
		return err
	}
	w.Logger.Info("job falls back", "job_id", j.ID, "rule", j.Decision.Rule, "nomad_job", r.NomadJob, "fallback", n)
	if err := w.stopJob(ctx, r.Runner); err != nil {
		w.lookAgain(w.Now())
		return err
	}
	return w.goOn(ctx, r, reason)
}
