package runners

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

// fallbackLoop replaces runners that wait for a node by their job's next fallback when that
// is due, until ctx ends.
func (rs *Runners) fallbackLoop(ctx context.Context) error {
	for {
		wait := rs.Tick
		due, next, err := rs.Store.FallbacksDue(ctx, rs.Now(), fallbackBatch)
		if err != nil && ctx.Err() == nil {
			rs.Log.Throttled(slog.LevelError, "", "cannot read the fallbacks that are due from the database", "err", err, "fix", router.StoreFix(err))
		}
		if !next.IsZero() {
			wait = min(wait, max(next.Sub(rs.Now()), 0))
		}
		for _, c := range due {
			if err := rs.fallBack(ctx, c); err != nil && ctx.Err() == nil {
				rs.Log.Throttled(slog.LevelWarn, "", "cannot replace a runner that waits for a node by a fallback; it will be retried", "job_id", c.Job.ID, "nomad_job", c.Runner.NomadJob, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// fallBack replaces a runner that waits for a node. The database comes first, so that the
// runner can no longer claim; then its Nomad job is stopped; only then is its job retried.
// If this is cut off, a pass of the reconciler finishes it.
func (rs *Runners) fallBack(ctx context.Context, c router.Claimed) error {
	j, r := c.Job, router.LiveRunner{Runner: c.Runner}
	n, after, ok := router.NextFallback(j.Decision, j.Fallback)
	if !ok {
		return nil
	}
	nomadCtx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	reason := fmt.Sprintf("Nomad had no node for %s within %s: fallback %d of rule %s replaces it", r.ID, rules.Duration(after), n, j.Decision.Rule)
	away := false
	switch _, err := rs.Nomad.Allocation(nomadCtx, r.Runner); {
	case err == nil:
		return rs.reconciler.recordPlaced(ctx, r) // the event is under way, or was missed
	case errors.Is(err, router.ErrNotFound):
	case r.Own || r.NomadAt.Region == "":
		return err
	default: // if it has a node there, its claim is refused from now on
		away = true
		reason = fmt.Sprintf("region %s does not say whether %s has a node, %s after it was registered: fallback %d of rule %s replaces it", r.NomadAt.Region, r.ID, rules.Duration(after), n, j.Decision.Rule)
	}
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	ok, err := rs.Store.FallBack(storeCtx, r.ID, n, reason, rs.Now())
	if err != nil || !ok {
		return err
	}
	rs.Log.Info("a job falls back", "job_id", j.ID, "rule", j.Decision.Rule, "nomad_job", r.NomadJob, "fallback", n)
	if err := rs.StopJob(ctx, r.Runner); err != nil {
		rs.Compare.At(rs.Now())
		if !away { // else it is stopped when its region is back
			return err
		}
	}
	return rs.reconciler.requeue(ctx, r, reason)
}
