// Package feedback owns what GitHub is told about jobs: a commit shows why its jobs wait or
// were refused, and runs that nothing can serve are cancelled. Server calls it at intervals.
package feedback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/time/rate"

	"switchyard/router"
	"switchyard/router/decide"
	"switchyard/router/intake"
	"switchyard/router/telemetry"
	"switchyard/rules"
)

const (
	feedbackPause = 15 * time.Second // between two notices of one job
	feedbackFix   = 10 * time.Minute // until an attempt that needs a person's fix is repeated
	feedbackAge   = 24 * time.Hour   // older jobs without a notice get none: feedback was turned on later
	maxOwners     = 10_000           // whose rates are remembered
	feedbackBatch = 100              // jobs read from the store at once
	cancelBatch   = 20               // runs cancelled in one pass
	noticePer     = 9 * time.Second  // GitHub takes 500 requests an hour that create content:
	noticeBurst   = 60               // https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api (read 2026-11-24), and 80 a minute
	maxTitle      = 120              // characters; GitHub takes 140 in a status
	maxNotice     = 2000             // characters
	noticeTimeout = 15 * time.Second // for all calls of one notice
	feedbackAsks  = "Switchyard shows here why the job waits for a runner, and updates it. No action is needed."
)

// A Store is what feedback uses of the database.
type Store interface {
	Job(ctx context.Context, id int64) (router.Job, error)

	// NoticesDue returns up to limit jobs whose notice is due by now: first those that have a
	// notice and whose state or reason has changed since; then, unless kind is "", those that
	// have been refused, or have waited, for longer than after, or are run again. Jobs that
	// became known before since are left out.
	NoticesDue(ctx context.Context, kind router.NoticeKind, after time.Duration, since, now time.Time, limit int) ([]router.DueNotice, error)

	// TroubleOf returns the newest trouble of a job that lasts, and the reason that the job
	// had for it; "": it has none. A runner that has been online since before online is one.
	TroubleOf(ctx context.Context, jobID int64, online time.Time) (cause router.Cause, reason string, err error)

	// NoticeStarted records that a job may have a notice from now on.
	NoticeStarted(ctx context.Context, jobID int64, kind router.NoticeKind, now time.Time) error

	// NoticeSent records the notice of a job and its ID. The next one may be sent at again,
	// or, when that is zero, never.
	NoticeSent(ctx context.Context, jobID, id int64, state router.JobState, reason string, again time.Time) error

	// NoticeRejected records that GitHub did not accept a notice. It is retried at again,
	// or, when that is zero, never.
	NoticeRejected(ctx context.Context, jobID int64, again time.Time) error

	// RunsToCancel returns up to limit jobs that became Unroutable between the two times, and
	// whose run was not cancelled and has no Running job: one for each run.
	RunsToCancel(ctx context.Context, old, since time.Time, limit int) ([]router.Job, error)

	// RunCancelled records that a run was cancelled: why is added to the reason of its
	// Unroutable jobs.
	RunCancelled(ctx context.Context, repo router.Repo, runID int64, why string, now time.Time) error

	// RunNotCancelled records that a run is not cancelled for an Unroutable job: why is added
	// to the job's reason.
	RunNotCancelled(ctx context.Context, jobID int64, why string, now time.Time) error
}

// Feedback tells GitHub about jobs. Its exported fields are set before it is used, and
// required. Update and CancelRuns may run at the same time, but each only once.
type Feedback struct {
	Store   Store
	GitHub  router.GitHub
	Intake  *intake.Intake
	Decider *decide.Decider
	Log     *telemetry.Log
	Now     func() time.Time
	Words   func(router.Cause) string // what a status says of jobs that wait because of it; "": it is no trouble
	Spare   time.Duration             // how long a run is spared that has a job which may run

	spared map[int64]time.Time // runs that are not cancelled before then, as they have jobs that may run; used by CancelRuns only

	mu    sync.Mutex
	rates map[router.OwnerKey]*rate.Limiter // of notices on an owner's commits
}

// Update puts notices on commits that say why jobs wait or were refused, if the rules ask for
// that, and updates those that are there.
func (f *Feedback) Update(ctx context.Context) error {
	kind, after := f.Decider.Rules().Feedback()
	list, err := f.Store.NoticesDue(ctx, router.NoticeKind(kind), after, f.Now().Add(-feedbackAge), f.Now(), feedbackBatch)
	if err != nil {
		return err
	}
	var errs []error
	stopped := map[router.OwnerKey]bool{} // the others' answers would be the same
	for _, u := range list {
		owner := router.OwnerOf(u.Job.Repo)
		if stopped[owner] {
			continue
		}
		if !f.rate(owner).AllowN(f.Now(), 1) {
			stopped[owner] = true
			continue
		}
		err := f.send(ctx, u)
		var later *router.RetryAtError
		again := time.Time{}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			continue
		case errors.As(err, new(*router.GiveUpError)):
		case errors.As(err, new(*router.FixError)):
			stopped[owner] = true
			again = f.Now().Add(feedbackFix)
		case errors.As(err, &later):
			stopped[owner] = true
			again = later.At
		default:
			again = f.Now().Add(feedbackPause)
		}
		errs = append(errs, fmt.Errorf("job %d of %s: %w", u.Job.ID, u.Job.Repo.FullName, err), f.Store.NoticeRejected(ctx, u.Job.ID, again))
	}
	return errors.Join(errs...)
}

// rate returns the limiter of notices on an owner's commits.
func (f *Feedback) rate(owner router.OwnerKey) *rate.Limiter {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rates == nil || len(f.rates) >= maxOwners {
		f.rates = map[router.OwnerKey]*rate.Limiter{}
	}
	l := f.rates[owner]
	if l == nil {
		l = rate.NewLimiter(rate.Every(noticePer), noticeBurst)
		f.rates[owner] = l
	}
	return l
}

// send puts the notice of a job on its commit.
func (f *Feedback) send(ctx context.Context, u router.DueNotice) error {
	cause, said, err := f.Store.TroubleOf(ctx, u.Job.ID, f.Now().Add(-router.OnlineAfter))
	if err != nil {
		return err
	}
	if cause == "" {
		cause, said = u.Job.Cause, u.Job.Reason
	}
	n := noticeOf(u.Job, u.Kind, said, f.Words(cause))
	if u.Rerun != "" {
		n.Title = router.Shorten("Run again: "+plain(u.Said), maxTitle-1)
		if !u.Rerun.Over() {
			n.State = router.NoticeWaits
		}
	}
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	id := u.ID
	switch {
	case !u.Begun:
		if err := f.Store.NoticeStarted(ctx, u.Job.ID, u.Kind, f.Now()); err != nil {
			return err
		}
	case id == 0 && u.Kind == router.NoticeCheckRun:
		var err error
		if id, err = f.GitHub.FindNotice(ctx, n); err != nil {
			return err
		}
		if id == 0 && n.State == router.NoticeOver {
			return f.Store.NoticeSent(ctx, u.Job.ID, 0, u.Job.State, u.Job.Reason, time.Time{})
		}
	}
	id, err = f.GitHub.Notice(ctx, n, id)
	if err != nil {
		return err
	}
	again := f.Now().Add(feedbackPause)
	if n.State == router.NoticeOver {
		again = time.Time{}
	}
	return f.Store.NoticeSent(ctx, u.Job.ID, id, u.Job.State, u.Job.Reason, again)
}

// noticeOf returns the notice for a job's commit. If the job waits, said is why, and words
// are what a status says of such jobs; "": nothing.
func noticeOf(j router.Job, kind router.NoticeKind, said, words string) router.Notice {
	n := router.Notice{
		Kind: kind, Repo: j.Repo, SHA: j.SHA, JobID: j.ID, URL: j.URL,
		Name: "switchyard / " + router.Cut(plain(j.Name), maxTitle-20),
	}
	reason := plain(j.Reason)
	var title string
	switch j.State {
	case router.Running, router.Completed, router.Ignored:
		n.State, title = router.NoticeOver, "A runner has the job"
		if j.State != router.Running {
			title = "The job is over"
		}
	case router.Denied, router.Unroutable:
		n.State, title = router.NoticeRefused, "No runner: "+reason
	default:
		n.State, title = router.NoticeWaits, "Waits: "+plain(said)
	}
	n.Title = title
	if router.Cut(title, maxTitle) != title {
		n.Title = router.Cut(title, maxTitle-1) + "…"
	}
	n.Text = "The job is `" + string(j.State) + "`:\n\n" + inert(reason)
	if d := j.Decision; d != nil && d.Rule != "" {
		n.Text += "\n\nThe rule that decided it:\n\n" + inert(d.Rule)
	}
	if n.State == router.NoticeWaits {
		if words != "" {
			n.Text += "\n\nSwitchyard's status says of the jobs that wait because of this:\n\n" + inert(words)
			if said = plain(said); said != reason {
				n.Text += "\n\nWhat happened last:\n\n" + inert(said)
			}
		}
		n.Text += "\n\n" + feedbackAsks
	}
	return n
}

// plain returns s as one line of visible characters.
func plain(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }), " ")
}

// inert returns a line as a block of code in Markdown, in which nothing has a meaning: no
// link, no mention of anybody, no HTML. The block is made by indenting, so that no number
// of back quotes ends it.
func inert(line string) string { return "    " + router.Cut(line, maxNotice) }

// CancelRuns cancels runs that have had an unroutable job for longer than the rules allow. A
// run with a running job is not cancelled before that has ended. Nor is a run whose job has a
// label that the rules do not know: other runners may be meant for it.
func (f *Feedback) CancelRuns(ctx context.Context) error {
	after, action := f.Decider.Rules().Unroutable()
	if action != "cancel" {
		return nil
	}
	if f.spared == nil {
		f.spared = map[int64]time.Time{}
	}
	maps.DeleteFunc(f.spared, func(_ int64, until time.Time) bool { return !f.Now().Before(until) })
	jobs, err := f.Store.RunsToCancel(ctx, f.Now().Add(-after-router.GoneAfter), f.Now().Add(-after), cancelBatch+len(f.spared))
	if err != nil {
		return err
	}
	jobs = slices.DeleteFunc(jobs, func(j router.Job) bool { _, spared := f.spared[j.RunID]; return spared })
	var errs []error
	refused := map[string]bool{} // hosts
	for _, j := range jobs {
		if refused[j.Repo.Host] {
			continue
		}
		err := f.cancelRun(ctx, j, after)
		if err != nil {
			errs = append(errs, fmt.Errorf("job %d of %s: %w", j.ID, j.Repo.FullName, err))
		}
		refused[j.Repo.Host] = errors.As(err, new(*router.FixError)) || errors.As(err, new(*router.RetryAtError)) // the others' answers would be the same
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// cancelRun cancels the run of a job, unless GitHub says that the job is no longer queued, or
// the run has a job that runs, or may run. A run whose jobs GitHub does not list may have
// such a job, and is spared, too.
func (f *Feedback) cancelRun(ctx context.Context, j router.Job, after time.Duration) error {
	if _, err := f.Intake.Ask(ctx, j); err != nil {
		return err
	}
	j, err := f.Store.Job(ctx, j.ID)
	if err != nil || j.State != router.Unroutable {
		return err
	}
	set := f.Decider.Rules()
	if !set.Knows(j.Labels) {
		f.Log.Info("did not cancel a run, as its job has a label that the rules do not know; other runners may serve it", "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName)
		return f.Store.RunNotCancelled(ctx, j.ID, "its run is not cancelled, as other runners on GitHub may have its labels", f.Now())
	}
	call, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	listed, servable := 0, int64(0)
	err = f.GitHub.RunJobs(call, j.Repo, j.RunID, func(d router.Delivery) error {
		listed++
		if d.Action == "completed" {
			return nil
		}
		k, err := f.Store.Job(ctx, d.Job.ID)
		if err != nil && !errors.Is(err, router.ErrNotFound) {
			return err
		}
		if d.Action == "in_progress" || k.State != router.Unroutable && k.State != router.Denied || !set.Knows(k.Labels) {
			servable = d.Job.ID
		}
		return nil
	})
	if err != nil {
		return err
	}
	if listed == 0 {
		f.Log.Throttled(slog.LevelWarn, "", "did not cancel a run yet, as github lists none of its jobs; check that it exists and may be read", "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName)
		f.spared[j.RunID] = f.Now().Add(f.Spare)
		return nil
	}
	if servable != 0 {
		f.Log.Info("did not cancel a run yet, as another of its jobs runs or may run", "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName, "other", servable)
		f.spared[j.RunID] = f.Now().Add(f.Spare)
		return nil
	}
	why := fmt.Sprintf("its run is cancelled, after %s", rules.Duration(after))
	err = f.GitHub.CancelRun(call, j.Repo, j.RunID)
	if _, ok := errors.AsType[*router.GiveUpError](err); ok {
		why = "GitHub does not cancel its run: " + err.Error()
	} else if err != nil {
		return err
	}
	f.Log.Info("cancelled a run, as nothing can serve its job", "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName)
	return f.Store.RunCancelled(ctx, j.Repo, j.RunID, why, f.Now())
}
