package server

import (
	"context"
	"errors"
	"fmt"
	"switchyard/router"
	"time"
)

const githubTimeout = 15 * time.Second // for one call that nobody waits for

// retire ends a runner that has nothing to do, as r was read from the store.
// GitHub loses it first, so that it cannot be given a job any more; ErrBusy if
// it has one, or may have, as one that brings its own registration and runs:
// nothing is stopped then. A runner that left r's state meanwhile
// is let be, or seen to by whoever moved it. If its job still waits, it gets a
// new runner. Called again, it goes on where it failed or was cut off.
func (w *worker) retire(ctx context.Context, r router.Runner, reason string) error {
	if r.Own {
		runs, err := w.mayRun(ctx, r)
		if err != nil {
			return err
		}
		if runs {
			return router.ErrBusy
		}
	}
	// Only one that has claimed can be on GitHub. Until then the books say who
	// comes first, a claim or this; what Nomad has then is ended by the books.
	unclaimed := r.State == router.RunnerDispatched
	if unclaimed {
		stopped, err := w.stopped(ctx, r, reason)
		if err != nil || !stopped {
			return err
		}
	}
	if at := r.StateAt.Add(w.Doubt); r.State == router.RunnerClaimed && !r.OnGitHub() && w.Now().Before(at) {
		return &router.RetryAtError{At: at, Err: fmt.Errorf("runner %s is being given its configuration", r.ID)}
	}
	if err := w.unregister(ctx, r); err != nil {
		return err
	}
	if err := w.stopJob(ctx, r); err != nil {
		return err
	}
	if unclaimed {
		return nil
	}
	_, err := w.stopped(ctx, r, reason)
	return err
}

// mayRun reports whether a runner's task runs, or did: from then on GitHub may
// know it.
func (w *worker) mayRun(ctx context.Context, r router.Runner) (bool, error) {
	if r.NomadJob == "" {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	a, err := w.Nomad.Allocation(ctx, r)
	if errors.Is(err, router.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask Nomad whether runner %s has started: %w", r.ID, err)
	}
	return a.Status != "pending", nil
}

// unregister takes a runner off GitHub, if it was ever put there. One that
// registered itself by a token is known by its name alone.
func (w *worker) unregister(ctx context.Context, r router.Runner) error {
	if !r.OnGitHub() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, githubTimeout)
	defer cancel()
	id := r.GitHubID
	if id == 0 {
		found, err := w.GitHub.Runner(ctx, r.Target, r.Name)
		if errors.Is(err, router.ErrNotFound) {
			if at := r.StateAt.Add(w.Doubt); r.State == router.RunnerOnline && r.EndedAt.IsZero() && w.Now().Before(at) {
				return &router.RetryAtError{At: at, Err: fmt.Errorf("runner %s may be about to register itself", r.Name)}
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("find runner %s on GitHub: %w", r.Name, err)
		}
		id = found.ID
	}
	if err := w.GitHub.RemoveRunner(ctx, r.Target, id); err != nil {
		return fmt.Errorf("remove runner %s from GitHub: %w", r.Name, err)
	}
	return nil
}

// stopJob stops a runner's Nomad job. One that is not registered, as far as the
// books know, has none: its claim finds nothing to do.
func (w *worker) stopJob(ctx context.Context, r router.Runner) error {
	if r.NomadJob == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := w.Nomad.Stop(ctx, r); err != nil {
		return fmt.Errorf("stop runner %s on Nomad: %w", r.ID, err)
	}
	return nil
}

func (w *worker) stopped(ctx context.Context, r router.Runner, reason string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stopped, err := w.Store.Stopped(ctx, r, reason, w.Now())
	if err != nil {
		return false, fmt.Errorf("record that runner %s is stopped: %w", r.ID, err)
	}
	if stopped {
		w.Logger.Info("runner stopped", "job_id", r.JobID, "nomad_job", r.ID, "reason", reason)
		w.nudge() // its job may want another
	}
	return stopped, nil
}
