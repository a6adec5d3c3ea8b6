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

// admitSibling reports whether the job has a place among those of its run. For one that has
// none, GitHub is asked whether it hands out its like at all.
func (di *Dispatcher) admitSibling(ctx context.Context, j router.Job, d *rules.Decision) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	admitted, err := di.Store.AdmitSibling(ctx, j, d, di.Now())
	if errors.Is(err, router.ErrNotWaiting) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("admit job %d among those of its run: %w", j.ID, err)
	}
	if !admitted {
		di.Log.Info("a job waits for others of its run", "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName, "rule", d.Rule)
		di.Intake.AskAboutRun(j.ID)
	}
	return admitted, nil
}

// askFirst holds a job until GitHub has said whether it may start. Its error is the store's.
func (di *Dispatcher) askFirst(ctx context.Context, j router.Job) error {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	held, err := di.Store.HoldToAsk(ctx, j.ID, di.Now())
	if err != nil {
		return fmt.Errorf("hold job %d to ask github about it: %w", j.ID, err)
	}
	if held {
		di.Intake.AskAboutRun(j.ID)
	}
	return nil
}

// Relimit reconsiders the jobs that limits, or old runners, hold whenever the rules may have
// changed: at the start, after new rules, and every Sweep in case a change was missed. It runs until ctx
// ends.
func (di *Dispatcher) Relimit(ctx context.Context) error {
	tick := time.NewTicker(di.Sweep)
	defer tick.Stop()
	for {
		n, err := di.Store.Reconsider(ctx, di.Decider.Version(), di.Now())
		if err != nil && ctx.Err() == nil {
			di.Log.Warn("cannot reconsider the jobs that limits and old runners hold; it will be retried", "err", err, "again_at", di.Now().Add(di.Sweep))
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
