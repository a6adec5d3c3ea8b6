package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"switchyard/router"
)

const (
	recheckBatch = 50   // jobs asked about in one pass
	maxDoubted   = 1000 // jobs that GitHub is to be asked about at once
)

// Recheck asks GitHub about jobs of which we have not heard for long: a
// delivery may be lost for good. It leaves out a GitHub that takes no more for now.
func (in *Intake) Recheck(ctx context.Context) error {
	jobs, err := in.Store.Stale(ctx, in.Now(), in.Stale, recheckBatch)
	if err != nil {
		return err
	}
	var errs []error
	refused := map[router.OwnerKey]bool{} // or, of no owner, all of a host
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

// Ask asks GitHub about a job that is known, takes what it says, and reports
// whether that is news.
func (in *Intake) Ask(ctx context.Context, j router.Job) (changed bool, err error) {
	call, cancel := context.WithTimeout(ctx, router.LoginTimeout)
	defer cancel()
	d, err := in.Says(call, j)
	if _, ok := errors.AsType[*router.RetryAtError](err); ok {
		return false, err // it was not asked, and stays due
	}
	if asked := in.Store.Asked(ctx, j.ID, in.Now()); asked != nil || err != nil {
		return false, errors.Join(err, asked)
	}
	return in.Learn(ctx, d)
}

// Says is what GitHub says of a job now. One that it does not know any more has
// ended, unless GitHub does not let us see its repository, which is a FixError
// for a day.
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
				Fix: "give Switchyard access to the repository, or wait: a job of one that is deleted is given up after a day",
				Err: fmt.Errorf("read job %d: GitHub does not show %s", j.ID, j.Repo.FullName),
			}
		}
	}
	d = router.Delivery{Source: router.SourceGitHub, Action: "completed", Status: router.StatusGone, Job: j, ReceivedAt: in.Now()}
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
func (in *Intake) mayWait(d doubt) {
	select {
	case in.doubted <- d:
	default:
	}
}

// CheckDoubts asks GitHub about the jobs that mayWait was told of, until ctx ends.
func (in *Intake) CheckDoubts(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-in.doubted:
			err := in.askIfWaits(ctx, d)
			if err != nil && ctx.Err() == nil {
				in.Log.Throttled(slog.LevelWarn, "", "github did not say whether a job waits for an approval; it is asked again when its runner claims", "job_id", d.jobID, "err", err)
			}
		}
	}
}

func (in *Intake) askIfWaits(ctx context.Context, d doubt) error {
	j, err := in.Store.Job(ctx, d.jobID)
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
	_, err = in.Ask(ctx, j)
	return err
}
