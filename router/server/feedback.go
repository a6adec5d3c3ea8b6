package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/time/rate"

	"switchyard/router"
	"switchyard/rules"
)

const (
	feedbackPause = 15 * time.Second // between two changes of what is said of a job
	feedbackFix   = 10 * time.Minute // until what a person must mend is tried again
	feedbackAge   = 24 * time.Hour   // of a job of which nothing was said: feedback is new then
	feedbackBatch = 100              // jobs read from the store at once
	cancelBatch   = 20               // runs cancelled in one pass
	noticePer     = 9 * time.Second  // GitHub takes 500 an hour of what makes content:
	noticeBurst   = 60               // https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api (read 2026-11-24), and 80 a minute
	maxTitle      = 120              // characters, of a status GitHub takes 140
	maxNotice     = 2000             // characters
	noticeTimeout = 15 * time.Second // for one job's
	feedbackAsks  = "Switchyard says here why the job waits for a runner, as it changes. Nothing needs to pass."
)

// feedback says on their commits why jobs wait or were refused, if the rules
// have it so, and what was said before when it changes.
func (a *App) feedback(ctx context.Context) error {
	kind, after := a.live.Load().set.Feedback()
	list, err := a.Store.Unsaid(ctx, router.NoticeKind(kind), after, a.Now().Add(-feedbackAge), a.Now(), feedbackBatch)
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
		if !a.notices(owner).AllowN(a.Now(), 1) {
			stopped[owner] = true
			continue
		}
		err := a.say(ctx, u)
		var giveUp *router.GiveUpError
		var fix *router.FixError
		var later *router.RetryAtError
		again := time.Time{}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			continue
		case errors.As(err, &giveUp):
		case errors.As(err, &fix):
			stopped[owner] = true
			again = a.Now().Add(feedbackFix)
		case errors.As(err, &later):
			stopped[owner] = true
			again = later.At
		default:
			again = a.Now().Add(feedbackPause)
		}
		errs = append(errs, fmt.Errorf("job %d of %s: %w", u.Job.ID, u.Job.Repo.FullName, err), a.Store.Unsayable(ctx, u.Job.ID, again))
	}
	return errors.Join(errs...)
}

// notices is what an owner's commits may be told.
func (a *App) notices(owner router.OwnerKey) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told == nil || len(a.told) >= maxHooks {
		a.told = map[router.OwnerKey]*rate.Limiter{}
	}
	l := a.told[owner]
	if l == nil {
		l = rate.NewLimiter(rate.Every(noticePer), noticeBurst)
		a.told[owner] = l
	}
	return l
}

// say puts on a job's commit what the books say of it.
func (a *App) say(ctx context.Context, u router.Unsaid) error {
	n := noticeOf(u.Job, u.Kind)
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	id := u.ID
	switch {
	case !u.Begun:
		if err := a.Store.Saying(ctx, u.Job.ID, u.Kind, a.Now()); err != nil {
			return err
		}
	case id == 0 && u.Kind == router.NoticeCheckRun:
		var err error
		if id, err = a.GitHub.FindNotice(ctx, n); err != nil {
			return err
		}
		if id == 0 && n.State == router.NoticeOver {
			return a.Store.Said(ctx, u.Job.ID, 0, u.Job.State, u.Job.Reason, time.Time{})
		}
	}
	id, err := a.GitHub.Notice(ctx, n, id)
	if err != nil {
		return err
	}
	again := a.Now().Add(feedbackPause)
	if n.State == router.NoticeOver {
		again = time.Time{}
	}
	return a.Store.Said(ctx, u.Job.ID, id, u.Job.State, u.Job.Reason, again)
}

// noticeOf says what a job's commit is told of it.
func noticeOf(j router.Job, kind router.NoticeKind) router.Notice {
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
		n.State, title = router.NoticeWaits, "Waits: "+reason
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
		n.Text += "\n\n" + feedbackAsks
	}
	return n
}

// plain is s as one line of what can be seen.
func plain(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }), " ")
}

// inert is one line as a block of code in Markdown, in which nothing has a
// meaning: no link, no mention of anybody, no HTML. The line is indented by
// us, so that no number of back quotes ends the block.
func inert(line string) string { return "    " + router.Cut(line, maxNotice) }

// cancels cancels the runs whose jobs nothing can serve for longer than the
// rules say. A job that runs is not cut off for it: the run is cancelled when
// that has ended. Nor is a job with a label that the rules do not know: the
// runners that it is meant for may be somebody else's.
func (a *App) cancels(ctx context.Context) error {
	after, action := a.live.Load().set.Unroutable()
	if action != "cancel" {
		return nil
	}
	maps.DeleteFunc(a.spared, func(_ int64, until time.Time) bool { return !a.Now().Before(until) })
	jobs, err := a.Store.Unservable(ctx, a.Now().Add(-after-goneAfter), a.Now().Add(-after), cancelBatch+len(a.spared))
	if err != nil {
		return err
	}
	jobs = slices.DeleteFunc(jobs, func(j router.Job) bool { _, spared := a.spared[j.RunID]; return spared })
	var errs []error
	refused := map[string]bool{} // hosts
	for _, j := range jobs {
		if refused[j.Repo.Host] {
			continue
		}
		err := a.cancelRun(ctx, j, after)
		if err != nil {
			errs = append(errs, fmt.Errorf("job %d of %s: %w", j.ID, j.Repo.FullName, err))
		}
		var fix *router.FixError
		var later *router.RetryAtError
		refused[j.Repo.Host] = errors.As(err, &fix) || errors.As(err, &later) // the others' answers would be the same
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// cancelRun cancels the run of a job, unless GitHub says that something else
// became of the job meanwhile, or that the run has a job which runs, or may yet.
// A run of which GitHub lists no job may have such a one, and is spared likewise.
func (a *App) cancelRun(ctx context.Context, j router.Job, after time.Duration) error {
	if _, err := a.ask(ctx, j); err != nil {
		return err
	}
	j, err := a.Store.Job(ctx, j.ID)
	if err != nil || j.State != router.Unroutable {
		return err
	}
	set := a.Rules()
	if !set.Knows(j.Labels) {
		a.Logger.Info("a run is not cancelled, as its job has a label that the rules do not know; other runners may serve it", "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName)
		return a.Store.LeftAlone(ctx, j.ID, "its run is not cancelled, as other runners of its GitHub may know its labels", a.Now())
	}
	call, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	listed, servable := 0, int64(0)
	err = a.GitHub.RunJobs(call, j.Repo, j.RunID, func(d router.Delivery) error {
		listed++
		if d.Action == "completed" {
			return nil
		}
		k, err := a.Store.Job(ctx, d.Job.ID)
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
		a.Logger.Warn("a run is not cancelled yet, as GitHub lists no jobs of it; check that the run exists and may be read", "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName)
		a.spared[j.RunID] = a.Now().Add(a.Recheck)
		return nil
	}
	if servable != 0 {
		a.Logger.Info("a run is not cancelled yet, as it has a job that runs or may", "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName, "other", servable)
		a.spared[j.RunID] = a.Now().Add(a.Recheck)
		return nil
	}
	why := fmt.Sprintf("its run is cancelled, after %s", rules.Duration(after))
	err = a.GitHub.CancelRun(call, j.Repo, j.RunID)
	var giveUp *router.GiveUpError
	if errors.As(err, &giveUp) {
		why = "GitHub does not cancel its run: " + err.Error()
	} else if err != nil {
		return err
	}
	a.Logger.Info("run cancelled, as nothing can serve its job", "job_id", j.ID, "run_id", j.RunID, "repo", j.Repo.FullName)
	return a.Store.Cancelled(ctx, j.Repo, j.RunID, why, a.Now())
}
