package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

// admit reports whether the job has a place under its limit.
func (di *Dispatcher) admit(ctx context.Context, j router.Job, d *rules.Decision) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	admitted, err := di.Store.Admit(ctx, j.ID, d, di.Now())
	if errors.Is(err, router.ErrNotWaiting) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("admit job %d under the limit %s: %w", j.ID, d.Limit.Key, err)
	}
	if !admitted {
		di.Log.Info("a limit holds a job", "job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "limit", d.Limit.Key)
	}
	return admitted, nil
}

// Relimit reconsiders the jobs that limits hold whenever limits may have changed: at the
// start, after new rules, and every Sweep in case a change was missed. It runs until ctx
// ends.
func (di *Dispatcher) Relimit(ctx context.Context) error {
	tick := time.NewTicker(di.Sweep)
	defer tick.Stop()
	for {
		n, err := di.Store.Reconsider(ctx, di.Now())
		if err != nil && ctx.Err() == nil {
			di.Log.Warn("cannot reconsider the jobs that limits hold; it will be retried", "err", err, "again_at", di.Now().Add(di.Sweep))
		}
		if n > 0 {
			di.Due.Give()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-di.Limits:
		case <-tick.C:
		}
	}
}
