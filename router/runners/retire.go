package runners

import (
	"context"
	"errors"
	"fmt"

	"switchyard/router"
)

// Retire ends a runner that has nothing to do; r is the runner as read from the store.
// It is removed from GitHub first, so that it cannot be given a job any more. Retire fails
// with ErrBusy and stops nothing when the runner has a job, or may have one because it
// brings its own registration and runs. A runner that has left r's state in the meantime is
// left to whoever moved it. If its job still waits, the job gets a new runner. Calling
// Retire again continues where it failed or was cut off.
func (rs *Runners) Retire(ctx context.Context, r router.Runner, reason string) error {
	if r.Own {
		runs, err := rs.mayRun(ctx, r)
		if err != nil {
			return err
		}
		if runs {
			return router.ErrBusy
		}
	}
	// Only a runner that has claimed can be on GitHub. Until then the database decides
	// whether a claim comes first or this; if this does, the Nomad job is stopped as that
	// of a stopped runner.
	unclaimed := r.State == router.RunnerDispatched
	if unclaimed {
		stopped, err := rs.stopped(ctx, r, reason)
		if err != nil || !stopped {
			return err
		}
	}
	if at := r.StateAt.Add(rs.Doubt); r.State == router.RunnerClaimed && !r.OnGitHub() && rs.Now().Before(at) {
		return &router.RetryAtError{At: at, Err: fmt.Errorf("runner %s is being given its configuration", r.ID)}
	}
	if err := rs.Unregister(ctx, r); err != nil {
		return err
	}
	if err := rs.StopJob(ctx, r); err != nil {
		return err
	}
	if unclaimed {
		return nil
	}
	_, err := rs.stopped(ctx, r, reason)
	return err
}

// mayRun reports whether a runner's task runs, or did: from then on GitHub may know it.
func (rs *Runners) mayRun(ctx context.Context, r router.Runner) (bool, error) {
	if r.NomadJob == "" {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	a, err := rs.Nomad.Allocation(ctx, r)
	if errors.Is(err, router.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask Nomad whether runner %s has started: %w", r.ID, err)
	}
	return a.Status != "pending", nil
}

// Unregister removes a runner from GitHub, if it was ever registered there. One that
// registered itself by a token is found by its name.
func (rs *Runners) Unregister(ctx context.Context, r router.Runner) error {
	if !r.OnGitHub() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, router.GitHubTimeout)
	defer cancel()
	id := r.GitHubID
	if id == 0 {
		found, err := rs.GitHub.Runner(ctx, r.Target, r.Name)
		if errors.Is(err, router.ErrNotFound) {
			if at := r.StateAt.Add(rs.Doubt); r.State == router.RunnerOnline && r.EndedAt.IsZero() && rs.Now().Before(at) {
				return &router.RetryAtError{At: at, Err: fmt.Errorf("runner %s may be about to register itself", r.Name)}
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("find runner %s on GitHub: %w", r.Name, err)
		}
		id = found.ID
	}
	if err := rs.GitHub.RemoveRunner(ctx, r.Target, id); err != nil {
		return fmt.Errorf("remove runner %s from GitHub: %w", r.Name, err)
	}
	return nil
}

// StopJob stops a runner's Nomad job. It does nothing if the database has no registration
// of it: its claim will find that it is not needed.
func (rs *Runners) StopJob(ctx context.Context, r router.Runner) error {
	if r.NomadJob == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	if err := rs.Nomad.Stop(ctx, r); err != nil {
		return fmt.Errorf("stop runner %s on Nomad: %w", r.ID, err)
	}
	return nil
}

func (rs *Runners) stopped(ctx context.Context, r router.Runner, reason string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	stopped, err := rs.Store.Stopped(ctx, r, reason, rs.Now())
	if err != nil {
		return false, fmt.Errorf("record that runner %s is stopped: %w", r.ID, err)
	}
	if stopped {
		rs.Log.Info("runner stopped", "job_id", r.JobID, "nomad_job", r.ID, "reason", reason)
		rs.Due.Give() // its job may need another
	}
	return stopped, nil
}
