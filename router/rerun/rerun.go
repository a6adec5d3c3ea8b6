// Package rerun owns the jobs that failed through nobody's fault: when their rules want it,
// GitHub is asked to run them again. Server calls it at intervals.
package rerun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

const (
	batch     = 50               // reruns that are due, in one pass
	firstWait = 10 * time.Second // between two looks at a run, doubled with each
	lastWait  = 10 * time.Minute // up to this
	timeout   = 15 * time.Second // of all calls about one job

	// lost is how long an answer may be lost before GitHub is asked again: by then its newest
	// attempt shows whether it did what it was asked, and no request is under way.
	lost = time.Minute

	waitsFor = 72 * time.Hour // for a run to complete
	fixFor   = 24 * time.Hour // for a person to fix what GitHub refuses
)

// A Store is what package rerun uses of the database.
type Store interface {
	// RerunsDue returns up to limit reruns that are due by now, the longest due first.
	RerunsDue(ctx context.Context, now time.Time, limit int) ([]router.Rerun, error)

	// AskRerun records that GitHub is about to be asked to run a job again, and may have been
	// from now on; it is looked at again at again. It reports false, and changes nothing, when
	// the rerun is over.
	AskRerun(ctx context.Context, jobID int64, said string, again, now time.Time) (ok bool, err error)

	// SetRerun records what becomes of a rerun that is not over, and says it in the job's
	// reason. It is looked at again at again; zero: never.
	SetRerun(ctx context.Context, jobID int64, to router.RerunState, said string, again, now time.Time) error
}

// Reruns asks GitHub to run jobs again. Its fields are set before it is used, and required.
type Reruns struct {
	Store   Store
	GitHub  router.GitHub
	Log     *telemetry.Log
	Metrics *telemetry.Metrics
	Now     func() time.Time
}

// Ask looks at the runs of jobs that are to be run again, and asks GitHub to do so for those
// whose run has completed. Only one process may call it at a time, and only once at a time.
func (r *Reruns) Ask(ctx context.Context) error {
	due, err := r.Store.RerunsDue(ctx, r.Now(), batch)
	if err != nil {
		return err
	}
	var errs []error
	refused := map[router.OwnerKey]bool{} // the others' answers would be the same
	for _, again := range due {
		owner := router.OwnerOf(again.Job.Repo)
		if refused[owner] {
			continue
		}
		err := r.ask(ctx, again)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue
		}
		at, why := r.Now().Add(wait(again.Tries)), "waits, as "+err.Error()
		if known := again.Asked.Add(lost); again.State == router.RerunAsked && at.Before(known) {
			at = known
		}
		var fix *router.FixError
		if later, ok := errors.AsType[*router.RetryAtError](err); ok {
			at, refused[owner] = later.At, true
			why = "waits until GitHub takes requests again"
		} else if errors.As(err, &fix) {
			at, refused[owner] = r.Now().Add(min(time.Minute<<min(again.Tries, 6), time.Hour)), true
			r.Log.Throttled(slog.LevelError, again.Job.Repo.FullName, "github does not let a job be run again that lost its runner", "job_id", again.Job.ID, "repo", again.Job.Repo.FullName, "fix", fix.Fix, "err", fix.Err)
			if r.Now().Sub(again.Job.CompletedAt) > fixFor {
				errs = append(errs, r.over(ctx, again, router.RerunDropped, "no, as "+err.Error()))
				continue
			}
		}
		errs = append(errs, fmt.Errorf("job %d of %s: %w", again.Job.ID, again.Job.Repo.FullName, err), r.Store.SetRerun(ctx, again.Job.ID, again.State, why, at, r.Now()))
	}
	return errors.Join(errs...)
}

// wait returns the time between two looks at a run, after so many.
func wait(tries int) time.Duration { return min(firstWait<<min(tries, 10), lastWait) }

// ask looks at the run of one job, and asks GitHub to run the job again if it is time.
func (r *Reruns) ask(ctx context.Context, again router.Rerun) error {
	ctx, cancel := context.WithTimeout(ctx, timeout) // before GitHub is asked: no request outlives it
	defer cancel()
	j := again.Job
	run, err := r.GitHub.RunState(ctx, j.Repo, j.RunID)
	if errors.Is(err, router.ErrNotFound) {
		return r.gone(ctx, again)
	}
	if err != nil {
		return err
	}
	id := j.ID
	if run.Attempt > j.Attempt {
		newest, ran, err := r.newest(ctx, j)
		switch {
		case err != nil:
			return err
		case ran && again.State == router.RerunAsked: // by us, or by somebody meanwhile
			return r.over(ctx, again, router.RerunDone, fmt.Sprintf("since attempt %d of its run", run.Attempt))
		case ran:
			return r.over(ctx, again, router.RerunDropped, fmt.Sprintf("no, as somebody has run it again, in attempt %d of its run", run.Attempt))
		}
		id = newest
	}
	switch {
	case run.Event == "merge_group":
		return r.over(ctx, again, router.RerunDropped, "no, as its run is of a merge queue, which goes on without it")
	case !run.Completed && r.Now().Sub(j.CompletedAt) > waitsFor:
		return r.over(ctx, again, router.RerunDropped, "no, as its run has not completed for three days")
	case !run.Completed:
		return r.Store.SetRerun(ctx, j.ID, again.State, "waits for its run to complete, as "+again.Loss.Words(), r.Now().Add(wait(again.Tries)), r.Now())
	case run.Conclusion == "cancelled":
		return r.over(ctx, again, router.RerunDropped, "no, as its run was cancelled")
	case strings.HasPrefix(run.Event, "pull_request") && !run.Open:
		return r.over(ctx, again, router.RerunDropped, "no, as GitHub lists no open pull request for its run: it is closed, or comes from a fork")
	}
	said := "GitHub is asked, as " + again.Loss.Words()
	if ok, err := r.Store.AskRerun(ctx, j.ID, said, r.Now().Add(lost), r.Now()); err != nil || !ok {
		return err
	}
	err = r.GitHub.RerunJob(ctx, j.Repo, id)
	switch {
	case err == nil:
		return r.over(ctx, again, router.RerunDone, fmt.Sprintf("since attempt %d of its run, as %s", run.Attempt+1, again.Loss.Words()))
	case errors.Is(err, router.ErrRunning): // for another job
		return r.Store.SetRerun(ctx, j.ID, router.RerunWaits, "waits for its run to complete, as "+again.Loss.Words(), r.Now().Add(wait(again.Tries)), r.Now())
	case errors.As(err, new(*router.GiveUpError)):
		return r.over(ctx, again, router.RerunDropped, "no, as "+err.Error())
	case errors.As(err, new(*router.UnansweredError)):
		r.Log.Warn("github may run a job again, as its answer is lost; its run is looked at before it is asked again", "job_id", j.ID, "repo", j.Repo.FullName, "err", err)
		return nil // AskRerun has said when
	}
	return err
}

// newest returns the ID that a job has in the newest attempt of its run, and whether it ran
// again since it failed. An attempt has copies of the jobs that are not run again.
func (r *Reruns) newest(ctx context.Context, j router.Job) (id int64, ran bool, err error) {
	copied, listed := false, 0
	id = j.ID
	err = r.GitHub.RunJobs(ctx, j.Repo, j.RunID, func(d router.Delivery) error {
		switch listed++; {
		case d.Job.Name != j.Name:
		case d.Action == "completed" && d.Job.RunnerName == j.RunnerName:
			id, copied = d.Job.ID, true
		default:
			ran = true
		}
		return nil
	})
	if err == nil && listed == 0 {
		err = errors.New("GitHub lists no jobs of its run")
	}
	return id, ran && !copied, err
}

// gone handles a job whose run GitHub does not show.
func (r *Reruns) gone(ctx context.Context, again router.Rerun) error {
	sees, err := r.GitHub.Sees(ctx, again.Job.Repo)
	switch {
	case err != nil:
		return err
	case sees:
		return r.over(ctx, again, router.RerunDropped, "no, as GitHub no longer knows its run")
	}
	return &router.FixError{
		Fix: "give Switchyard the permissions Actions (write) on the repository",
		Err: fmt.Errorf("GitHub does not show %s", again.Job.Repo.FullName),
	}
}

// over records that nothing is left to do.
func (r *Reruns) over(ctx context.Context, again router.Rerun, state router.RerunState, said string) error {
	if err := r.Store.SetRerun(ctx, again.Job.ID, state, said, time.Time{}, r.Now()); err != nil {
		return err
	}
	r.Metrics.Rerun(again.Loss, state)
	r.Log.Info("a job that lost its runner is "+map[bool]string{true: "run again", false: "not run again"}[state == router.RerunDone], "job_id", again.Job.ID, "run_id", again.Job.RunID, "repo", again.Job.Repo.FullName, "loss", again.Loss, "reason", said)
	return nil
}
