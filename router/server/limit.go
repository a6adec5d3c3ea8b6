package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

// admit reports whether the job has a place under its limit.
func (w *worker) admit(ctx context.Context, j router.Job, d *rules.Decision) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	admitted, err := w.Store.Admit(ctx, j.ID, d, w.Now())
	if errors.Is(err, router.ErrNotWaiting) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("admit job %d under the limit %s: %w", j.ID, d.Limit.Key, err)
	}
	if !admitted {
		w.Logger.Info("job held by a limit", "job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "limit", d.Limit.Key)
	}
	return admitted, nil
}

// relimits looks at held jobs anew when limits may have changed: at once, after
// new rules, and each Sweep in case a change was missed.
func (w *worker) relimits(ctx context.Context) error {
	tick := time.NewTicker(w.Sweep)
	defer tick.Stop()
	for {
		n, err := w.Store.Reconsider(ctx, w.Now())
		if err != nil && ctx.Err() == nil {
			w.Logger.Warn("cannot look at the jobs that limits hold; the next sweep tries again", "err", err, "again_at", w.Now().Add(w.Sweep))
		}
		if n > 0 {
			w.nudge()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.relimit:
		case <-tick.C:
		}
	}
}
