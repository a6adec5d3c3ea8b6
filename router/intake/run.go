package intake

import (
	"context"
	"errors"
	"time"

	"switchyard/router"
)

const (
	maxLooks  = 20                     // runs of which answers are kept
	lookPause = 30 * time.Second       // after GitHub did not answer about a run
	gathering = 200 * time.Millisecond // before it is asked: others of the run may come
)

// A look is what GitHub said about the jobs of a run.
type look struct {
	asked time.Time
	err   error                     // it did not answer
	jobs  map[int64]router.Delivery // by ID
}

// looks has the last look at each run. Only CheckWaiting uses it. The zero value is ready.
type looks map[int64]look

// AskAboutRun has CheckWaiting ask GitHub whether a job that is Held may start: others of its
// run that are asked about soon share the answer. If the queue is full, the next recheck of
// the job asks.
func (in *Intake) AskAboutRun(jobID int64) { in.checkLater(check{jobID: jobID, run: true}) }

// askAboutRun records what GitHub says about a job that is Held and has not been let go since.
func (in *Intake) askAboutRun(ctx context.Context, c check) error {
	j, err := in.Store.Job(ctx, c.jobID)
	if err != nil || j.State != router.Held {
		return err
	}
	l := in.looks[j.RunID]
	now := in.Now()
	if l.asked.Before(j.UpdatedAt) && (l.err == nil || now.Sub(l.asked) > lookPause) {
		router.Pause(ctx, gathering)
		now = in.Now()
		l = look{asked: now, jobs: map[int64]router.Delivery{}}
		within, cancel := context.WithTimeout(router.ForJobs(ctx), router.LoginTimeout)
		l.err = in.GitHub.RunJobs(within, j.Repo, j.RunID, func(d router.Delivery) error {
			l.jobs[d.Job.ID] = d
			return nil
		})
		cancel()
		if in.looks == nil || len(in.looks) >= maxLooks {
			in.looks = looks{}
		}
		in.looks[j.RunID] = l
		err = l.err // said once for all of the run
	}
	if later, limited := errors.AsType[*router.RetryAtError](l.err); limited && !later.Failing {
		// What is left of GitHub's limit is for claims, which ask about their job.
		_, err := in.Learn(ctx, router.Delivery{Source: router.SourceGitHub, Action: "queued", Status: "queued", Job: j, ReceivedAt: now})
		return err
	}
	if d, ok := l.jobs[j.ID]; ok && !l.asked.Before(j.UpdatedAt) {
		_, err = in.Learn(ctx, d)
	}
	return err
}
