// Package operate owns what people do to jobs and runners: retry, cancel and stop. The
// console, the API and the commands call it.
package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"switchyard/router"
	"switchyard/router/runners"
	"switchyard/router/telemetry"
)

func conflict(format string, args ...any) error {
	return &router.ConflictError{Reason: fmt.Sprintf(format, args...)}
}

// A Store is what operators use of the database.
type Store interface {
	Job(ctx context.Context, id int64) (router.Job, error)

	Runner(ctx context.Context, id string) (router.Runner, error)

	// Runners returns the runners that are or were meant for a job, by try.
	Runners(ctx context.Context, jobID int64) ([]router.Runner, error)

	Redecide(ctx context.Context, jobID int64, by router.Source, reason string, now time.Time) (bool, error)

	// Resume lets a rule start runners although some of its earlier ones got no job because of
	// their version: it makes the jobs that wait for that Queued, and returns how many they
	// were.
	Resume(ctx context.Context, rule, reason string, now time.Time) (int, error)

	// Cancel ends a job as Denied that has no runner with a configuration from GitHub. It
	// reports whether it did.
	Cancel(ctx context.Context, jobID int64, reason string, now time.Time) (bool, error)

	// Note gives a runner that has not ended a new reason, with an operator as its source.
	Note(ctx context.Context, runnerID, reason string, now time.Time) error
}

// An Operator does what people ask for; router.Operator(ctx) is who. It is safe for
// concurrent use; its fields are set before, and are required.
type Operator struct {
	Store   Store
	GitHub  router.GitHub
	Runners *runners.Runners
	Log     *telemetry.Log
	Now     func() time.Time
	Due     router.Hint // given when a job may be due
}

// RetryJob decides a job again, or gives it a new runner when its own has not claimed yet. For
// a job that waits for newer runners, all jobs of its rule that do so are retried. It fails with ErrNotFound or a *ConflictError.
func (o *Operator) RetryJob(ctx context.Context, id int64) error {
	j, err := o.Store.Job(ctx, id)
	if err != nil {
		return err
	}
	switch j.State {
	case router.Running:
		return conflict("job %d runs on %s", id, j.RunnerName)
	case router.Completed:
		return conflict("job %d has ended; re-run it on GitHub", id)
	case router.Dispatched:
		r, err := o.runnerOf(ctx, j)
		if err != nil {
			return err
		}
		if r.State.Final() { // as with a fallback that is due; a new one now would be two
			return conflict("job %d gets a new runner as soon as Nomad has stopped %s", id, r.ID)
		}
		if r.State != router.RunnerDispatched {
			return conflict("runner %s of job %d is already %s; stop the runner instead", r.ID, id, r.State)
		}
		err = o.stopRunner(ctx, r, router.Operator(ctx)+" asked for a new one")
		if errors.Is(err, router.ErrBusy) {
			return conflict("runner %s of job %d brings its own registration and runs, so it may have a job; stop the runner instead", r.ID, id)
		}
		return err
	}
	if err := o.clear(ctx, j); err != nil {
		return err
	}
	if j.State == router.Held && j.Cause == router.CauseVersion && j.Decision != nil {
		return o.resume(ctx, j)
	}
	done, err := o.Store.Redecide(ctx, id, router.SourceOperator, router.Operator(ctx)+" asked to decide it again", o.Now())
	switch {
	case err != nil:
		return err
	case !done && j.State == router.Held:
		return conflict("job %d %s", id, j.Reason)
	case !done:
		return conflict("job %d has changed in the meantime; try again", id)
	}
	o.Due.Give()
	return nil
}

// resume lets the rule of a job, which waits for newer runners, start some again.
func (o *Operator) resume(ctx context.Context, j router.Job) error {
	n, err := o.Store.Resume(ctx, j.Decision.Rule, router.Operator(ctx)+" lets its rule start runners again", o.Now())
	switch {
	case err != nil:
		return err
	case n == 0:
		return conflict("job %d has changed in the meantime; try again", j.ID)
	}
	o.Log.Info("an operator lets a rule start runners again", "who", router.Operator(ctx), "rule", j.Decision.Rule, "jobs", n)
	o.Due.Give()
	return nil
}

// clear stops those runners of a job that were given up but may still run.
func (o *Operator) clear(ctx context.Context, j router.Job) error {
	runners, err := o.Store.Runners(ctx, j.ID)
	if err != nil {
		return err
	}
	for _, r := range runners {
		if r.State != router.RunnerLost && r.State != router.RunnerStopped || !r.EndedAt.IsZero() || r.Own {
			continue // one that brings its own registration ends by itself
		}
		err := o.Runners.Retire(ctx, r, r.Reason)
		if errors.Is(err, router.ErrBusy) {
			return conflict("runner %s, which was started for job %d, has a job from GitHub", r.Name, j.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// CancelJob ends a job that, by the database, has no runner with a configuration, and stops a
// runner that was meant for it and has not claimed. GitHub keeps the job queued, unless run
// says that its workflow run is cancelled as well: with all its jobs, running ones included.
// It fails with ErrNotFound or a *ConflictError.
func (o *Operator) CancelJob(ctx context.Context, id int64, run bool) error {
	j, err := o.Store.Job(ctx, id)
	if err != nil {
		return err
	}
	if j.State != router.Running || !run {
		if err := o.cancel(ctx, j); err != nil {
			return err
		}
	}
	if !run {
		return nil
	}
	if j.State == router.Running {
		if err := o.noteCancel(ctx, j); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, router.GitHubTimeout)
	defer cancel()
	if err := o.GitHub.CancelRun(ctx, j.Repo, j.RunID); err != nil {
		if j.State != router.Running {
			return fmt.Errorf("the job no longer gets a runner, but its run was not cancelled: %w", err)
		}
		return err
	}
	o.Log.Info("an operator cancelled a run", "who", router.Operator(ctx), "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName)
	return nil
}

// noteCancel records on the timeline of a running job who cancels its run: GitHub, which
// reports its end, does not say so.
func (o *Operator) noteCancel(ctx context.Context, j router.Job) error {
	runners, err := o.Store.Runners(ctx, j.ID)
	if err != nil {
		return err
	}
	for _, r := range runners {
		if r.Name == j.RunnerName {
			return o.Store.Note(ctx, r.ID, router.Operator(ctx)+" cancels the run of its job", o.Now())
		}
	}
	return nil // another job's runner, or not one of ours, runs it
}

func (o *Operator) cancel(ctx context.Context, j router.Job) error {
	id := j.ID
	done, err := o.Store.Cancel(ctx, id, router.Operator(ctx)+" cancelled it: it gets no runner", o.Now())
	switch {
	case err != nil:
		return err
	case done:
		o.Due.Give() // another job may take its place now
	case j.State == router.Running:
		return conflict("job %d runs on %s; cancel its run on GitHub", id, j.RunnerName)
	case j.State != router.Denied: // it may have been cancelled before, and its runner not stopped
		return conflict("job %d is %s", id, j.State)
	}
	r, err := o.runnerOf(ctx, j)
	if errors.As(err, new(*router.ConflictError)) || err == nil && r.State != router.RunnerDispatched {
		return nil
	}
	if err != nil {
		return err
	}
	err = o.stopRunner(ctx, r, router.Operator(ctx)+" cancelled its job")
	if r.Own && errors.Is(err, router.ErrBusy) {
		return nil // it may have another job, and ends by itself
	}
	return err
}

// StopRunner ends a runner that has no job; with force also one that has a job, which then
// fails. It fails with ErrNotFound or a *ConflictError.
func (o *Operator) StopRunner(ctx context.Context, id string, force bool) error {
	r, err := o.Store.Runner(ctx, id)
	if err != nil {
		return err
	}
	busy := "runner %s has a job; with force it is stopped, and the job fails"
	if r.Own {
		busy = "runner %s brings its own registration and runs, so it may have a job; with force it is stopped, and such a job fails"
	}
	switch r.State {
	case router.RunnerBusy:
		if !force {
			return conflict(busy, r.Name)
		}
		return o.kill(ctx, r)
	case router.RunnerFinished, router.RunnerLost, router.RunnerStopped:
		if !r.EndedAt.IsZero() {
			return conflict("runner %s has ended: %s", r.Name, r.Reason)
		}
		if r.Own && !force {
			return conflict(busy, r.Name)
		}
		return o.Runners.StopJob(ctx, r)
	}
	err = o.stopRunner(ctx, r, router.Operator(ctx)+" stopped it")
	switch {
	case !errors.Is(err, router.ErrBusy):
		return err
	case !force:
		return conflict(busy, r.Name)
	}
	return o.kill(ctx, r)
}

// kill stops a runner's Nomad job although it has a job. The database changes when Nomad and
// GitHub say that they ended.
func (o *Operator) kill(ctx context.Context, r router.Runner) error {
	if err := o.Store.Note(ctx, r.ID, router.Operator(ctx)+" stops it, although it has a job", o.Now()); err != nil {
		return err
	}
	o.Log.Warn("an operator stops a busy runner", "job_id", r.JobID, "nomad_job", r.ID, "runner", r.Name)
	return o.Runners.StopJob(ctx, r)
}

// stopRunner retires a runner, and records on its timeline who asked for that.
func (o *Operator) stopRunner(ctx context.Context, r router.Runner, reason string) error {
	if err := o.Store.Note(ctx, r.ID, reason, o.Now()); err != nil {
		return err
	}
	return o.Runners.Retire(ctx, r, reason)
}

// runnerOf returns the runner of a job's current try; a *ConflictError when there is none.
func (o *Operator) runnerOf(ctx context.Context, j router.Job) (router.Runner, error) {
	runners, err := o.Store.Runners(ctx, j.ID)
	if err != nil {
		return router.Runner{}, err
	}
	i := slices.IndexFunc(runners, func(r router.Runner) bool { return r.Try == j.Try })
	if i < 0 {
		return router.Runner{}, conflict("job %d has no runner at the moment", j.ID)
	}
	return runners[i], nil
}
