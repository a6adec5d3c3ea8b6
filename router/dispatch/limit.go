package dispatch

import (
	"bytes"
	"context"
	"encoding/json"
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
		return false, fmt.Errorf("admit job %d under its limit: %w", j.ID, err)
	}
	if !admitted {
		di.Log.Info("a limit holds a job", "job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "limit", d.Limit.Key)
		di.Due.Give() // another may have got a place before it
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

// Relimit decides the jobs again that limits hold, whenever the rules may have changed, and gives
// free places: at the start, after new rules, and every Sweep in case a change was missed. It
// runs until ctx ends.
func (di *Dispatcher) Relimit(ctx context.Context) error {
	tick := time.NewTicker(di.Sweep)
	defer tick.Stop()
	for {
		if err := di.relimit(ctx); err != nil && ctx.Err() == nil {
			di.Log.Warn("cannot reconsider the jobs that limits and old runners hold; it will be retried", "err", err, "again_at", di.Now().Add(di.Sweep))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-di.Limits:
		case <-tick.C:
		}
	}
}

// relimit decides the jobs that limits hold while they stay held: whoever gets a place meanwhile
// is the one who is next. Its error is the store's.
func (di *Dispatcher) relimit(ctx context.Context) error {
	f := router.JobFilter{States: []router.JobState{router.Held}, Causes: []router.Cause{router.CauseLimit}, Limit: redecideBatch}
	for more := true; more; {
		jobs, err := di.Store.FindJobs(ctx, f)
		if err != nil {
			return err
		}
		more = len(jobs) == redecideBatch
		for _, j := range jobs {
			f.Before = j.ID
			if err := di.reorder(ctx, j); err != nil {
				return err
			}
		}
	}
	for {
		n, err := di.Store.Reconsider(ctx, di.Decider.Version(), di.Now())
		if n > 0 {
			di.Due.Give()
		}
		if n == 0 || err != nil {
			return err
		}
	}
}

// reorder decides a job that a limit holds, and records what has changed.
func (di *Dispatcher) reorder(ctx context.Context, j router.Job) error {
	facts := j.Facts()
	if j.Decision != nil {
		facts.Run = j.Decision.Run
	}
	d := di.Decider.Rules().Decide(facts, false)
	if d.Outcome != rules.Routed || d.Limit == nil { // it is decided in the usual way
		d = rules.Decision{}
	} else if same, err := sameDecision(j.Decision, &d); same || err != nil {
		return err
	}
	withoutLabels(j, &d)
	done, err := di.Store.Reorder(ctx, j.ID, &d, di.Now())
	if done && d.Limit == nil {
		di.Due.Give()
	}
	if errors.Is(err, router.ErrNotFound) {
		return nil
	}
	return err
}

// sameDecision reports whether two decisions are stored alike.
func sameDecision(a, b *rules.Decision) (bool, error) {
	one, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	other, err := json.Marshal(b)
	return bytes.Equal(one, other), err
}
