package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"switchyard/router"
)

const (
	recheckBatch = 50   // jobs asked about in one call
	maxChecks    = 1000 // jobs in the queue of CheckWaiting
)

// Recheck asks GitHub about jobs without news for long, because a delivery may be lost for
// good. It skips a GitHub that takes no more requests for now.
func (in *Intake) Recheck(ctx context.Context) error {
	jobs, err := in.Store.Stale(ctx, in.Now(), in.Stale, recheckBatch)
	if err != nil {
		return err
	}
	var errs []error
	refused := map[router.OwnerKey]bool{} // an empty owner: the whole host
	for _, j := range jobs {
		if refused[router.OwnerOf(j.Repo)] || refused[router.OwnerKey{Host: j.Repo.Host}] {
			continue
		}
		_, err := in.Ask(ctx, j)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, new(*router.FixError)):
			refused[router.OwnerOf(j.Repo)] = true // the others' answers would be the same
			errs = append(errs, err)
		case err != nil:
			refused[router.OwnerKey{Host: j.Repo.Host}] = true
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Ask asks GitHub about a known job, records the answer, and reports whether it is news.
func (in *Intake) Ask(ctx context.Context, j router.Job) (changed bool, err error) {
	call, cancel := context.WithTimeout(ctx, router.LoginTimeout)
	defer cancel()
	d, err := in.Says(call, j)
	if _, ok := errors.AsType[*router.RetryAtError](err); ok {
		return false, err // GitHub was not asked, and the question stays due
	}
	if asked := in.Store.Asked(ctx, j.ID, in.Now()); asked != nil || err != nil {
		return false, errors.Join(err, asked)
	}
	return in.Learn(ctx, d)
}

// Says returns what GitHub says about a job now. A job that GitHub no longer knows has
// ended, unless GitHub does not show us its repository: that is a FixError for a day.
func (in *Intake) Says(ctx context.Context, j router.Job) (router.Delivery, error) {
	asked := in.Now()
	d, err := in.GitHub.Job(ctx, j.Repo, j.ID)
	if !errors.Is(err, router.ErrNotFound) {
		d.ReceivedAt = asked
		return d, err
	}
	if j.State == router.Running || in.Clock.Sure().Sub(j.ReceivedAt) <= router.GoneAfter {
		switch sees, err := in.GitHub.Sees(ctx, j.Repo); {
		case err != nil:
			return d, err
		case !sees:
			return d, &router.FixError{
				Fix: "give Switchyard access to the repository, or wait: jobs of a deleted repository are given up after a day",
				Err: fmt.Errorf("read job %d: GitHub does not show %s", j.ID, j.Repo.FullName),
			}
		}
	}
	d = router.Delivery{Source: router.SourceGitHub, Action: "completed", Status: router.StatusGone, Job: j, ReceivedAt: in.Now()}
	d.Job.RunnerName, d.Job.Conclusion = "", ""
	return d, nil
}

// A check is a job to ask GitHub about: whether it may start.
type check struct {
	jobID int64
	late  bool // the job may be Held because its delivery is Late
	run   bool // GitHub is asked about all jobs of its run at once
}

// checkLater has CheckWaiting ask GitHub about a job on its way to a runner of which a
// delivery said that it must not start yet. Such a delivery comes after the one that queued
// the job, or comes late although it was sent before; GitHub knows which. If the queue is
// full the check is left out: GitHub is asked when the job's runner claims.
func (in *Intake) checkLater(c check) {
	select {
	case in.checks <- c:
	default:
	}
}

// CheckWaiting asks GitHub about the jobs of checkLater, until ctx ends.
func (in *Intake) CheckWaiting(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-in.checks:
			ask := in.askIfWaits
			if c.run {
				ask = in.askAboutRun
			}
			err := ask(ctx, c)
			if err != nil && ctx.Err() == nil {
				in.Log.Throttled(slog.LevelWarn, "", "github did not say whether a job waits for an approval; it is asked again when its runner claims", "job_id", c.jobID, "err", err)
			}
		}
	}
}

func (in *Intake) askIfWaits(ctx context.Context, c check) error {
	j, err := in.Store.Job(ctx, c.jobID)
	if err != nil {
		return err
	}
	switch j.State {
	case router.Queued, router.Retrying, router.Dispatched:
	case router.Held:
		if j.Decision == nil && !c.late { // on GitHub already, and not by a limit
			return nil
		}
	default:
		return nil
	}
	_, err = in.Ask(ctx, j)
	return err
}
