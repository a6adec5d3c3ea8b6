package router

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	strayEvery = 12                 // sweeps
	strayKept  = 2 * 24 * time.Hour // GitHub itself drops a single-use runner that is offline for a day: https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/remove-runners (read 2026-11-24)
)

// strays removes the runners from GitHub that ended and are offline there still.
// Only those that the books know by their ID on GitHub, and as ended, are touched.
func (w *worker) strays(ctx context.Context) error {
	targets, err := w.Store.Targets(ctx, w.Now().Add(-strayKept))
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range targets {
		err := w.straysOf(ctx, t)
		var later *RetryAtError
		if errors.As(err, &later) || ctx.Err() != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (w *worker) straysOf(ctx context.Context, t Target) error {
	listCtx, cancel := context.WithTimeout(ctx, rosterTimeout)
	defer cancel()
	list, err := w.GitHub.Runners(listCtx, t)
	if err != nil {
		return fmt.Errorf("list the runners of %s on GitHub: %w", t.Owner, err)
	}
	for _, g := range list {
		if g.Online || g.Busy {
			continue
		}
		r, err := w.Store.RunnerNamed(ctx, g.Name)
		switch {
		case errors.Is(err, ErrNotFound):
			continue // another's
		case err != nil:
			return err
		case r.GitHubID != g.ID || r.Target != t || r.EndedAt.IsZero():
			continue
		case r.State != RunnerFinished && r.State != RunnerLost && r.State != RunnerStopped:
			continue
		}
		if err := w.unregister(ctx, r); errors.Is(err, ErrBusy) {
			continue
		} else if err != nil {
			return err
		}
		w.Logger.Info("a runner that ended was removed from GitHub", "nomad_job", r.ID, "runner", r.Name)
	}
	return nil
}
