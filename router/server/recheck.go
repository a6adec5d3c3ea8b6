package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"switchyard/router"
	"time"
)

const (
	recheckBatch = 50             // jobs asked about in one pass
	maxDoubted   = 1000           // jobs that GitHub is to be asked about at once
	goneAfter    = 24 * time.Hour // GitHub ends a job that is queued for longer: https://docs.github.com/en/actions/reference/limits (read 2026-11-24)
)

// recheck asks GitHub about jobs of which we have not heard for long: a
// delivery may be lost for good. It leaves out a GitHub that takes no more for now.
func (a *App) recheck(ctx context.Context) error {
	jobs, err := a.Store.Stale(ctx, a.Now(), a.Recheck, recheckBatch)
	if err != nil {
		return err
	}
	var errs []error
	refused := map[router.OwnerKey]bool{} // or, of no owner, all of a host
	for _, j := range jobs {
		if refused[router.OwnerOf(j.Repo)] || refused[router.OwnerKey{Host: j.Repo.Host}] {
			continue
		}
		_, err := a.ask(ctx, j)
		var fix *router.FixError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &fix):
			refused[router.OwnerOf(j.Repo)] = true // the others' answers would be the same
			errs = append(errs, err)
		case err != nil:
			refused[router.OwnerKey{Host: j.Repo.Host}] = true
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ask asks GitHub about a job that is known, takes what it says, and reports
// whether that is news.
func (w *worker) ask(ctx context.Context, j router.Job) (changed bool, err error) {
	call, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	d, err := w.said(call, j)
	var later *router.RetryAtError
	if errors.As(err, &later) {
		return false, err // it was not asked, and stays due
	}
	if asked := w.Store.Asked(ctx, j.ID, w.Now()); asked != nil || err != nil {
		return false, errors.Join(err, asked)
	}
	return w.learn(ctx, d)
}

// said is what GitHub says of a job now. One that it does not know any more has
// ended, unless GitHub does not let us see its repository, which is a FixError
// for a day.
func (w *worker) said(ctx context.Context, j router.Job) (router.Delivery, error) {
	asked := w.Now()
	d, err := w.GitHub.Job(ctx, j.Repo, j.ID)
	if !errors.Is(err, router.ErrNotFound) {
		d.ReceivedAt = asked
		return d, err
	}
	if j.State == router.Running || w.sureNow().Sub(j.ReceivedAt) <= goneAfter {
		switch sees, err := w.GitHub.Sees(ctx, j.Repo); {
		case err != nil:
			return d, err
		case !sees:
			return d, &router.FixError{
				Fix: "give Switchyard access to the repository, or wait: a job of one that is deleted is given up after a day",
				Err: fmt.Errorf("read job %d: GitHub does not show %s", j.ID, j.Repo.FullName),
			}
		}
	}
	d = router.Delivery{Source: router.SourceGitHub, Action: "completed", Status: router.StatusGone, Job: j, ReceivedAt: w.Now()}
	d.Job.RunnerName, d.Job.Conclusion = "", ""
	return d, nil
}

// A doubt is about a job of which GitHub is to say whether it may start.
type doubt struct {
	jobID int64
	late  bool // it may be held for a delivery that came Late
}

// mayWait has doubts ask GitHub about a job that is on its way to a runner,
// and of which a delivery said that it must not start yet. Such a delivery comes after
// the one that had the job queued, or before and late: GitHub knows. One that
// is left out, as too many are waited for, is asked about when its runner claims.
func (w *worker) mayWait(d doubt) {
	select {
	case w.doubted <- d:
	default:
	}
}

// doubts asks GitHub about the jobs that mayWait was told of, until ctx ends.
func (w *worker) doubts(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-w.doubted:
			err := w.askIfWaits(ctx, d)
			if err != nil && ctx.Err() == nil {
				w.logThrottled(w.Logger, slog.LevelWarn, "", "github did not say whether a job waits for an approval; it is asked again when its runner claims", "job_id", d.jobID, "err", err)
			}
		}
	}
}

func (w *worker) askIfWaits(ctx context.Context, d doubt) error {
	j, err := w.Store.Job(ctx, d.jobID)
	if err != nil {
		return err
	}
	switch j.State {
	case router.Queued, router.Retrying, router.Dispatched:
	case router.Held:
		if j.Decision == nil && !d.late { // on GitHub already, and not by a limit
			return nil
		}
	default:
		return nil
	}
	_, err = w.ask(ctx, j)
	return err
}
