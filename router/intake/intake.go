// Package intake owns what GitHub says about jobs: deliveries, those that got lost and are
// redelivered, answers to questions about one job, and syncs of whole repositories. The
// webhook's handler gives it deliveries; claims, runners, feedback and operators have it
// ask GitHub about a job.
package intake

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

// A Store is what intake uses of the database.
type Store interface {
	// Receive records a delivery and what it says about its job, and reports whether that
	// changed anything: not if the delivery or the fact is known. It takes deliveries in any
	// order; a job's state only moves forward.
	//
	// The same bytes are one delivery, whatever its ID; a limited number of its IDs is
	// recorded. An unknown job whose delivery is Late is Held until GitHub, asked, says that
	// it is queued.
	//
	// An answer of GitHub's, which is a Delivery without ID, that Waits moves a Queued,
	// Retrying or Dispatched job to Held, unless a delivery that came after GitHub was asked
	// says that the job is queued. A delivery that Waits does not, because it may be an old
	// one that comes late: ask GitHub in that case.
	Receive(ctx context.Context, d router.Delivery) (changed bool, err error)

	// Overruled returns a sentence about a job that was Denied, Unroutable or Ignored and
	// that one of our runners took all the same; "" for any other job.
	Overruled(ctx context.Context, jobID int64) (string, error)

	// RunnerNamed returns the runner with this name on GitHub.
	RunnerNamed(ctx context.Context, name string) (router.Runner, error)

	// Job returns one job.
	Job(ctx context.Context, id int64) (router.Job, error)

	// Runner returns one runner.
	Runner(ctx context.Context, id string) (router.Runner, error)

	// Stale returns up to limit jobs that GitHub should be asked about, those first that it
	// was asked about longest ago. These are jobs that wait for a runner, once the last news
	// and the last question are older than unserved; running jobs after six times as long;
	// and jobs that are Held on GitHub after a tenth of it. The time between two questions
	// about a job grows to half of its age, or of the time that it has been Held there, and
	// to 36 times unserved at most.
	Stale(ctx context.Context, now time.Time, unserved time.Duration, limit int) ([]router.Job, error)

	// Asked records that GitHub was asked about a job, whatever the answer.
	Asked(ctx context.Context, jobID int64, now time.Time) error
}

// An Intake takes what GitHub says about jobs. It is made by New and safe for concurrent
// use; its exported fields are set before, and are required unless they say otherwise.
type Intake struct {
	Store    Store
	GitHub   router.GitHub
	Sweeper  *Sweeper
	Log      *telemetry.Log
	Metrics  *telemetry.Metrics
	Traces   *telemetry.Traces // nil: no traces
	Clock    *router.Clock
	Now      func() time.Time
	Stale    time.Duration   // after how long GitHub is asked about a job that nobody serves
	Due      router.Hint     // given when a job may be due
	Leftover *router.JobHint // given the jobs that changed

	checks chan check // size maxChecks; jobs to ask GitHub about
	looks  looks
}

// New returns an Intake with the exported fields of in.
func New(in Intake) *Intake {
	in.checks = make(chan check, maxChecks)
	return &in
}

// Receive takes a delivery, and reports whether it was news.
func (in *Intake) Receive(ctx context.Context, d router.Delivery) (changed bool, err error) {
	changed, err = in.Learn(ctx, d)
	switch {
	case err != nil:
		in.Metrics.Delivered(router.DeliveryNotStored)
		in.Sweeper.StoreRefused()
		return false, fmt.Errorf("store delivery %s: %w", d.ID, err)
	case changed:
		in.Metrics.Delivered(router.DeliveryStored)
	default:
		in.Metrics.Delivered(router.DeliveryKnown)
	}
	if d.Late() || d.Waits() && !changed {
		in.checkLater(check{jobID: d.Job.ID, late: d.Late()})
	}
	if err := in.Sweeper.RecordHook(ctx, d.Hook); err != nil {
		in.Log.Throttled(slog.LevelWarn, "", "cannot record a webhook; its next delivery tries again", "err", err)
	}
	return changed, nil
}

// Learn records what GitHub says about a job, and gives the hints if it is news.
func (in *Intake) Learn(ctx context.Context, d router.Delivery) (changed bool, err error) {
	changed, err = in.Record(ctx, d)
	if changed {
		in.Due.Give()
	}
	if changed && (d.Action != "queued" || d.Waits()) { // a job that is queued needs its runner
		in.Leftover.Of(d.Job.ID)
	}
	return changed, err
}

// Record is Learn without the hints.
func (in *Intake) Record(ctx context.Context, d router.Delivery) (changed bool, err error) {
	runner, refused := in.ourRunner(ctx, d), in.refused(ctx, d)
	changed, err = in.Store.Receive(ctx, d)
	if changed {
		in.begun(ctx, d, runner)
		in.overruled(ctx, d, refused)
	}
	in.Traces.Delivery(ctx, d, err)
	if in.Traces != nil && changed && d.Action == "completed" {
		if j, err := in.Store.Job(ctx, d.Job.ID); err == nil {
			in.Traces.Ended(ctx, j)
		}
	}
	return changed, err
}

// ourRunner returns the runner of ours that, by a delivery, has begun a job, as the database
// has it before; zero: none.
func (in *Intake) ourRunner(ctx context.Context, d router.Delivery) router.Runner {
	if d.Action != "in_progress" || !strings.HasPrefix(d.Job.RunnerName, router.RunnerPrefix) {
		return router.Runner{}
	}
	r, err := in.Store.RunnerNamed(ctx, d.Job.RunnerName)
	if err != nil || d.RunnerID != 0 && r.GitHubID != 0 && d.RunnerID != r.GitHubID {
		return router.Runner{} // an error matters only to the metrics; or it is somebody else's with a name of ours
	}
	return r
}

// begun counts a job that a runner has begun; runner is what ourRunner returned.
func (in *Intake) begun(ctx context.Context, d router.Delivery, runner router.Runner) {
	if d.Action != "in_progress" {
		return
	}
	j, err := in.Store.Job(ctx, d.Job.ID)
	if err != nil || j.RunningAt.IsZero() {
		return
	}
	if j.Decision != nil && j.State == router.Running {
		in.Metrics.Started(j)
	}
	if runner.ID == "" || runner.JobID == j.ID || runner.State == router.RunnerBusy {
		return
	}
	if now, err := in.Store.Runner(ctx, runner.ID); err == nil && now.State == router.RunnerBusy {
		in.Metrics.Stolen()
		in.Log.Info("github gave a runner to another job than it was started for", "job_id", j.ID, "instead_of", runner.JobID, "nomad_job", runner.NomadJob, "runner", runner.Name)
	}
}

// refused returns the state in which a job was refused that, by a delivery, a runner has or
// had; "" when it was not refused, or this is known already.
func (in *Intake) refused(ctx context.Context, d router.Delivery) router.JobState {
	if d.Job.RunnerName == "" {
		return ""
	}
	j, err := in.Store.Job(ctx, d.Job.ID)
	if err != nil || j.State != router.Denied && j.State != router.Unroutable && j.State != router.Ignored {
		return "" // an error matters only to the metrics and the log
	}
	if why, err := in.Store.Overruled(ctx, j.ID); err != nil || why != "" {
		return ""
	}
	return j.State
}

// overruled counts and logs a refused job, if one of our runners took it.
func (in *Intake) overruled(ctx context.Context, d router.Delivery, refused router.JobState) {
	if refused == "" {
		return
	}
	why, err := in.Store.Overruled(ctx, d.Job.ID)
	if err != nil || why == "" {
		return
	}
	in.Metrics.Overruled(refused)
	in.Log.Throttled(slog.LevelWarn, string(refused)+d.Job.Repo.FullName, "github gave one of our runners to a job that was refused", "job_id", d.Job.ID, "repo", d.Job.Repo.FullName, "runner", d.Job.RunnerName, "reason", why)
}
