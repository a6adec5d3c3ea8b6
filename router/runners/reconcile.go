package runners

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"switchyard/router"
	"switchyard/rules"
)

const (
	passCallers  = 4               // calls of Nomad and GitHub at the same time
	settling     = time.Minute     // what this process has under way has ended by then
	leaving      = 2 * time.Minute // the process of a finished runner has ended by then
	maxConfirm   = 1000            // runners missing from a listing that are looked up in one pass
	maxWorkflows = 300             // characters of the workflows of a runner group in a reason
)

// A mending is what must be done about a runner.
type mending string

// The mendings. Each can be repeated, because a pass may be cut off.
const (
	nothing      mending = ""
	confirmEnd   mending = "look up"       // the listing lacks it: Nomad is asked about this runner
	recordEnd    mending = "record end"    // its Nomad job ended
	recordPlaced mending = "record placed" // Nomad gave it a node
	askWhy       mending = "ask why"       // Nomad has no node for it: Nomad is asked why
	loseRunner   mending = "lose"          // it ended without a job: its own job gets a new runner
	retireRunner mending = "retire"        // it is removed from GitHub, then stopped on Nomad
	requeueJob   mending = "requeue"       // it is over: the job that waits for it gets a new runner
	askRunner    mending = "ask runner"    // GitHub is asked whether it has a job
	askJob       mending = "ask job"       // GitHub is asked about the job that it ran
	askLost      mending = "ask, or lose"  // GitHub is asked whether it had its job after all; if not it is lost
	stopRunner   mending = "stop"          // past its job's time limit
	closeRunner  mending = "close"         // it ended, and no job waits for it
)

// A policy decides what to do about runners. It has no state.
type policy struct {
	doubt, idle, sweep time.Duration // as in Runners
	publicURL          string
}

// mend compares a runner with its Nomad job and returns what to do, why (for people), and
// if there is nothing to do now, when to compare again (zero: at the next sweep). on is nil
// when a listing that is newer than the database's record of the runner lacks its job.
// said is what Nomad said about its end.
func (p *policy) mend(r router.LiveRunner, on *router.NomadJob, said string, now time.Time) (what mending, why string, again time.Time) {
	if r.Own {
		return p.mendOwn(r, on, cmp.Or(said, r.EndWords), now)
	}
	registered := r.NomadJob != "" || on != nil
	ended := !r.EndedAt.IsZero() || on != nil && on.Status == "dead"
	gone := registered && on == nil && r.EndedAt.IsZero()
	waiting := on != nil && on.Waiting && r.PlacedAt.IsZero()
	after := func(since time.Time, wait time.Duration, what mending, why string) (mending, string, time.Time) {
		return after(now, since, wait, what, why)
	}
	if said = cmp.Or(said, r.EndWords); said != "" {
		said = ": " + said
	}

	switch r.State {
	case router.RunnerDispatched:
		switch {
		case !registered: // dispatch is registering it
		case gone:
			return confirmEnd, "", again
		case ended:
			if r.Refused != "" {
				return loseRunner, fmt.Sprintf("its Nomad job %s ended, as %s", r.NomadJob, r.Refused), again
			}
			return loseRunner, fmt.Sprintf("its runner did not ask %s for its configuration before its Nomad job %s ended%s: can its node reach that address?", p.publicURL, r.NomadJob, said), again
		case !r.Needed: // a leftover
		case waiting:
			return askWhy, "", again
		case r.PlacedAt.IsZero():
			return recordPlaced, "", again
		case r.Refused != "":
			return after(r.PlacedAt, p.idle, retireRunner, r.Refused)
		default:
			return after(r.PlacedAt, p.idle, retireRunner, fmt.Sprintf("it has had a node since %s without asking for its configuration: does its jobspec fetch the claim?", r.PlacedAt.Format(time.RFC3339)))
		}

	case router.RunnerClaimed: // by a claim that is answered now, or that failed with the store
		switch {
		case now.Before(r.StateAt.Add(settling)):
			return nothing, "", r.StateAt.Add(settling)
		case gone:
			return confirmEnd, "", again
		case ended && r.GitHubID == 0:
			return loseRunner, fmt.Sprintf("its Nomad job %s ended while the runner was configured%s", r.NomadJob, said), again
		case ended && r.EndedAt.IsZero():
			return recordEnd, "", again
		case ended:
			return after(r.EndedAt, p.doubt, askLost, fmt.Sprintf("its Nomad job %s ended while the runner was configured%s", r.NomadJob, said))
		case r.GitHubID == 0:
			return after(r.StateAt, p.doubt, retireRunner, "it never got its configuration")
		default:
			return after(r.StateAt, p.doubt, askRunner, "")
		}

	case router.RunnerOnline:
		switch {
		case gone:
			return confirmEnd, "", again
		case ended && r.EndedAt.IsZero():
			return recordEnd, "", again
		case ended: // it may have had a job after all: the delivery can be late
			return after(r.EndedAt, p.doubt, askLost, endedIdle(r, said))
		default:
			return after(r.StateAt, p.idle, askRunner, "")
		}

	case router.RunnerBusy:
		switch {
		case gone:
			return confirmEnd, "", again
		case ended && r.EndedAt.IsZero():
			return recordEnd, "", again
		case ended:
			return after(r.EndedAt, p.doubt, askJob, "")
		case r.Serves != 0 && r.TimeLimit > 0:
			return pastLimit(r, now)
		}

	default: // finished, lost or stopped
		switch {
		case registered && !gone && !ended && !r.KeptUntil.IsZero():
			return after(r.KeptUntil, leaving, retireRunner, "it was kept for long enough, but its Nomad job still runs")
		case registered && !gone && !ended:
			wait := leaving
			if r.State != router.RunnerFinished {
				if wait = 0; r.OnGitHub() && r.State == router.RunnerLost {
					wait = p.doubt // it is given time to show itself
				}
			}
			return after(r.StateAt, wait, retireRunner, fmt.Sprintf("it is %s, but its Nomad job still runs", r.State))
		case r.Needed && r.JobState == router.Dispatched && (ended || !registered):
			return requeueJob, "its runner " + r.ID + " was stopped; it gets a new one", again
		case gone:
			return confirmEnd, "", again
		case ended && r.EndedAt.IsZero():
			return recordEnd, "", again
		case !registered:
			return after(r.StateAt, leaving, recordEnd, "")
		}
	}
	return nothing, "", again
}

// after returns what and why once wait has passed since since, and until then nothing and
// when that will be.
func after(now, since time.Time, wait time.Duration, what mending, why string) (mending, string, time.Time) {
	if at := since.Add(wait); now.Before(at) {
		return nothing, "", at
	}
	return what, why, time.Time{}
}

// mendOwn is mend for a runner that brings its own registration. Only its Nomad job says
// whether it is alive: when an allocation ends, Nomad starts another if the jobspec says
// so. Nothing stops it while it may run, except the time limit of a job that GitHub says it
// has.
func (p *policy) mendOwn(r router.LiveRunner, on *router.NomadJob, said string, now time.Time) (what mending, why string, again time.Time) {
	if said != "" {
		said = ": " + said
	}
	waits := r.State == router.RunnerDispatched || r.State == router.RunnerClaimed || r.State == router.RunnerOnline
	registered := r.NomadJob != "" || on != nil
	dead := on != nil && on.Status == "dead" || on == nil && !r.EndedAt.IsZero()
	switch {
	case !registered && !dead && !r.State.Final(): // dispatch is registering it
		return nothing, "", again
	case r.State.Final() && r.Needed && r.JobState == router.Dispatched && (dead || !registered):
		return requeueJob, "its runner " + r.ID + " was stopped; it gets a new one", again
	case !registered && !dead:
		return after(now, r.StateAt, leaving, recordEnd, "")
	case !dead && on == nil:
		return confirmEnd, "", again
	case dead && waits && r.Needed:
		return askLost, fmt.Sprintf("its Nomad job %s ended, but GitHub still has the job queued%s: its runner brings its own registration, so read its output: nomad alloc logs -job %s", r.NomadJob, said, r.NomadJob), again
	case dead && waits:
		return closeRunner, "its Nomad job ended" + said, again
	case dead && r.EndedAt.IsZero():
		return recordEnd, "", again
	case dead && r.State == router.RunnerBusy:
		return after(now, r.EndedAt, p.doubt, askJob, "")
	case !dead && waits && r.PlacedAt.IsZero() && on.Status == "running": // it may have its own job, or another one
		return recordPlaced, "", again
	case dead || waits && !r.Needed: // it is over, or a leftover
		return nothing, "", again
	case waits && on.Waiting && r.PlacedAt.IsZero():
		return askWhy, "", again
	case waits && r.PlacedAt.IsZero():
		return recordPlaced, "", again
	case r.State == router.RunnerBusy && r.Serves != 0 && r.TimeLimit > 0:
		return pastLimit(r, now)
	case r.State == router.RunnerStopped: // before it ran
		return retireRunner, r.ID + " is stopped, but its Nomad job still runs", again
	}
	return nothing, "", again
}

// pastLimit returns what to do about a runner whose job has a time limit. It is due by
// either clock; stopLate finds out whether that is right.
func pastLimit(r router.LiveRunner, now time.Time) (what mending, why string, again time.Time) {
	if r.Seen >= r.TimeLimit {
		return stopRunner, late(r), time.Time{}
	}
	return after(now, r.ServesSince, r.TimeLimit, stopRunner, late(r))
}

// late returns why a runner past its job's time limit is stopped.
func late(r router.LiveRunner) string {
	return fmt.Sprintf("stopped, as job %d ran for longer than its rule's time limit of %s", r.Serves, rules.Duration(r.TimeLimit))
}

// endedIdle returns why a runner is given up that ended after it got its configuration.
func endedIdle(r router.LiveRunner, said string) string {
	return fmt.Sprintf("its Nomad job %s ended before GitHub gave the runner a job%s", r.NomadJob, said)
}

// pause returns the shortest time between two passes that no listing asks for.
func (p *policy) pause() time.Duration { return min(p.sweep, p.doubt/4) }

// A reconciler compares the database with Nomad and does what that calls for.
type reconciler struct {
	r       *Runners
	running limitClock
}

// reconcile compares the database with Nomad until ctx ends: with each listing that follow
// made, every Sweep, and when a mending becomes due.
func (c *reconciler) reconcile(ctx context.Context) error {
	next, last := c.r.Now().Add(c.r.Sweep), time.Time{}
	for {
		var err error
		if now := c.r.Now(); last.After(now) || next.Sub(now) > c.r.Sweep { // the clock was set back
			last, next = now, now.Add(min(next.Sub(now), c.r.Sweep))
		}
		timer := time.NewTimer(next.Sub(c.r.Now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case at := <-c.r.Compare:
			timer.Stop()
			if soonest := last.Add(c.r.policy.pause()); at.Before(soonest) {
				at = soonest
			}
			if at.Before(next) {
				next = at
			}
			continue
		case <-c.r.follower.regions.listings:
			timer.Stop()
			made := c.r.follower.regions.take()
			err = c.pass(ctx, &made, &next)
		case <-timer.C:
			err = c.pass(ctx, nil, &next)
		}
		last = c.r.Now()
		if err != nil && ctx.Err() == nil {
			c.r.Log.Throttled(slog.LevelWarn, "", "cannot compare the database with nomad; the next sweep tries again", "err", err, "again_at", next)
		}
	}
}

// pass compares the live runners with a listing of the regions that they are in (nil: it
// makes one of all), does what must be done, and sets next to when the next pass is due.
func (c *reconciler) pass(ctx context.Context, made *listing, next *time.Time) error {
	began, regions := c.r.Now(), c.r.follower.regions
	if made == nil || len(made.regions) >= len(regions.names()) {
		*next = began.Add(c.r.Sweep)
	}
	storeCtx, cancel := context.WithTimeout(ctx, router.ListTimeout)
	defer cancel()
	live, err := c.r.Store.Live(storeCtx)
	if err != nil {
		return err
	}
	in := map[string]bool{}
	for i := range live {
		in[live[i].NomadAt.Region] = true
	}
	regions.want(began, slices.Collect(maps.Keys(in))...)
	var unlisted error
	if made == nil { // made after the database was read, so that no registration is missed
		var all listing
		if all, unlisted = c.r.follower.listAll(ctx); len(all.regions) == 0 {
			return unlisted
		}
		made = &all
	}
	c.r.Listed(ctx, made.jobs)
	c.running.see(live)
	todo, again := c.r.policy.compare(live, made, began)
	if !again.IsZero() && again.Before(*next) {
		*next = again
	}
	soonest := began.Add(c.r.policy.pause())
	if next.Before(soonest) {
		*next = soonest
	}
	orphaned, more, err := c.r.adopter.note(ctx, live, made) // first, as dispatch waits for it
	if err != nil {
		return err
	}
	regions.note(made)
	if err := c.doAll(ctx, todo); err != nil {
		return err
	}
	all, err := c.r.adopter.adoptAll(ctx, orphaned)
	if all && made.regions[""] {
		c.r.First.Compared()
	}
	if (more || !all) && soonest.Before(*next) {
		*next = soonest
	}
	return errors.Join(err, unlisted)
}

// A nomadKey identifies a Nomad job.
type nomadKey struct {
	id string
	at router.NomadAt
}

// A task is a runner and what is to be done about it.
type task struct {
	runner router.LiveRunner
	what   mending
	why    string
}

// compare returns what must be done about the runners in the regions of a listing, and when those must be compared
// again for which it is too early (zero: none).
func (p *policy) compare(live []router.LiveRunner, l *listing, now time.Time) (todo []task, again time.Time) {
	listed := make(map[nomadKey]*router.NomadJob, len(l.jobs))
	named := make(map[nomadKey]*router.NomadJob, len(l.jobs)) // by the runner's ID, in any namespace
	for i := range l.jobs {
		j := &l.jobs[i]
		listed[nomadKey{j.ID, j.At}] = j
		of := nomadKey{j.RunnerID, router.NomadAt{Region: j.At.Region}}
		if known := named[of]; known == nil || known.Status == "dead" {
			named[of] = j
		}
	}
	confirm := 0
	for _, r := range live {
		if !l.regions[r.NomadAt.Region] {
			continue
		}
		on := named[nomadKey{r.ID, router.NomadAt{Region: r.NomadAt.Region}}]
		if r.NomadJob != "" {
			on = listed[nomadKey{r.NomadJob, r.NomadAt}]
		}
		if on != nil && r.NomadJob == "" {
			r.NomadJob, r.NomadAt = on.ID, on.At
		}
		what, why, later := p.mend(r, on, "", now)
		if what == recordEnd && !r.State.Final() {
			later = now.Add(p.doubt)
		}
		if !later.IsZero() && (again.IsZero() || later.Before(again)) {
			again = later
		}
		if what == confirmEnd {
			if confirm++; confirm > maxConfirm {
				continue
			}
		}
		if what != nothing {
			todo = append(todo, task{r, what, why})
		}
	}
	return todo, again
}

// doAll does the tasks of a pass. If one fails it is logged and left to the next pass; if
// the store fails the rest is, too.
func (c *reconciler) doAll(ctx context.Context, todo []task) error {
	var ended []string
	var rest []task
	fits := map[string]bool{}
	for _, t := range todo {
		switch {
		case t.what == recordEnd && !hadJob(t.runner):
			ended = append(ended, t.runner.ID)
		case t.what == askWhy:
			if fits[t.runner.Fit] || len(fits) < whyFits {
				fits[t.runner.Fit] = true
				c.r.follower.why.add(t.runner)
			}
		default:
			rest = append(rest, t)
		}
	}
	for len(ended) > 0 {
		n := min(len(ended), eventBatch)
		if err := c.r.Store.Ended(ctx, ended[:n], c.r.Now()); err != nil {
			return err
		}
		ended = ended[n:]
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(passCallers)
	for _, t := range rest {
		g.Go(func() error {
			err := c.act(ctx, t.runner, t.what, t.why)
			if err == nil || errors.Is(err, router.ErrBusy) || ctx.Err() != nil {
				return ctx.Err()
			}
			c.r.Log.Throttled(slog.LevelWarn, string(t.what), "cannot bring a runner in step with nomad; the next sweep tries again", "job_id", t.runner.JobID, "nomad_job", t.runner.NomadJob, "what", string(t.what), "err", err)
			return nil
		})
	}
	return g.Wait()
}

// act does one thing about a runner.
func (c *reconciler) act(ctx context.Context, r router.LiveRunner, what mending, why string) error {
	log := c.r.Log.With("job_id", r.JobID, "nomad_job", r.NomadJob)
	switch what {
	case confirmEnd:
		_, err := c.confirm(ctx, r)
		return err
	case recordPlaced:
		return c.recordPlaced(ctx, r)
	case recordEnd:
		return c.recordEnd(ctx, r)
	case retireRunner:
		if err := c.r.Retire(ctx, r.Runner, why); err != nil {
			return err
		}
		return c.requeue(ctx, r, "its runner "+r.ID+" was stopped; it gets a new one")
	case requeueJob:
		return c.requeue(ctx, r, why)
	case askRunner:
		return c.askRunner(ctx, r)
	case askJob:
		return c.askJob(ctx, r)
	case stopRunner:
		return c.stopLate(ctx, r, why)
	case closeRunner:
		_, err := c.r.stopped(ctx, r.Runner, why)
		return err
	case askLost:
		if r.Needed {
			j, err := c.r.Store.Job(ctx, r.JobID)
			if err != nil {
				return err
			}
			changed, err := c.r.Intake.Ask(ctx, j)
			var fix *router.FixError
			switch {
			case errors.As(err, &fix) && c.r.Now().Before(r.EndedAt.Add(c.r.Doubt)):
				return err // the job's delivery may be on its way
			case errors.As(err, &fix): // the fix may take days: the job gets a new runner all the same
				log.Throttled(slog.LevelError, "", "cannot find out whether a runner that ended had its job", "fix", fix.Fix, "err", err)
			case err != nil || changed:
				return err // if the news was not about the runner, the next pass continues
			}
		}
		switch err := c.r.Unregister(ctx, r.Runner); {
		case errors.Is(err, router.ErrBusy): // it has another job, whose delivery will say so
			return nil
		case err != nil:
			log.Throttled(slog.LevelWarn, "", "cannot remove a runner that ended from GitHub; it is removed later", "err", err)
		}
		return c.act(ctx, r, loseRunner, why)
	case loseRunner:
		at, _ := c.r.Backoff.Retry(errors.New(why), r.Failures)
		storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		defer cancel()
		cause := router.CauseRunner
		if r.GitHubID != 0 || r.State == router.RunnerOnline {
			cause = router.CauseDied
		}
		if cause == router.CauseDied && !r.Own && c.exitCode(ctx, r) == exitOutdated {
			cause, why = router.CauseVersion, fmt.Sprintf("its runner %s ended with exit code %d, as GitHub no longer accepts the runner's version", r.ID, exitOutdated)
		}
		lost, err := c.r.Store.Lost(storeCtx, r.Runner, at, cause, why, c.r.Now())
		if err != nil {
			return fmt.Errorf("record lost runner %s: %w", r.ID, err)
		}
		if !lost {
			return nil
		}
		c.r.Metrics.Retried(cause)
		c.r.warnOf(ctx, r.Runner, "a runner ended without a job; its own job is retried", "reason", why, "again_at", at)
		c.r.Due.Give()
		// Nomad replaces what it loses with a node, whatever the jobspec says.
		if err = c.r.Unregister(ctx, r.Runner); err == nil {
			err = c.r.StopJob(ctx, r.Runner)
		}
		if err != nil && !errors.Is(err, router.ErrBusy) {
			log.Throttled(slog.LevelWarn, "", "cannot stop a runner that is lost; a sweep tries again if nomad starts it again", "err", err)
		}
	}
	return nil
}

// exitCode returns the exit code of a runner that has ended. If nobody followed Nomad's events
// then, Nomad is asked; 0: it does not say.
func (c *reconciler) exitCode(ctx context.Context, r router.LiveRunner) int {
	if r.ExitCode != 0 || r.EndWords != "" {
		return r.ExitCode
	}
	ctx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	e, err := c.r.Nomad.End(ctx, r.Runner)
	if err != nil {
		return 0
	}
	return e.Code
}

// confirm asks Nomad about a runner that a listing lacks: its job may be in a namespace that
// is not listed. If it is gone or has ended, confirm does what that requires.
func (c *reconciler) confirm(ctx context.Context, r router.LiveRunner) (ended bool, err error) {
	nomadCtx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	if ended, err = c.r.Nomad.Ended(nomadCtx, r.Runner); err != nil || !ended {
		return ended, err
	}
	what, why, _ := c.r.policy.mend(r, &router.NomadJob{ID: r.NomadJob, At: r.NomadAt, Status: "dead"}, "", c.r.Now())
	return true, c.act(ctx, r, what, why)
}

// hadJob reports whether GitHub may have a job fail with the runner's end.
func hadJob(r router.LiveRunner) bool {
	return r.NomadJob != "" && (r.State == router.RunnerBusy || r.State == router.RunnerFinished)
}

// recordEnd records that a runner ended whose end was missed, and how if it matters.
func (c *reconciler) recordEnd(ctx context.Context, r router.LiveRunner) error {
	if hadJob(r) {
		nomadCtx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
		defer cancel()
		switch e, err := c.r.Nomad.End(nomadCtx, r.Runner); {
		case err == nil:
			return c.r.follower.record(ctx, []router.NomadEvent{e})
		case !errors.Is(err, router.ErrNotFound) && !errors.As(err, new(*router.FixError)):
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	return c.r.Store.Ended(ctx, []string{r.ID}, c.r.Now())
}

// recordPlaced records the node of a runner whose placement was missed.
func (c *reconciler) recordPlaced(ctx context.Context, r router.LiveRunner) error {
	nomadCtx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	a, err := c.r.Nomad.Allocation(nomadCtx, r.Runner)
	if errors.Is(err, router.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.r.follower.record(ctx, []router.NomadEvent{{Job: r.NomadJob, At: r.NomadAt, Kind: router.NomadPlaced, Time: a.Created, Node: a.Node}})
}

// requeue gives the job that waits for an ended runner a new one, if a job does.
func (c *reconciler) requeue(ctx context.Context, r router.LiveRunner, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	again, err := c.r.Store.Requeue(ctx, r.ID, reason, c.r.Now())
	if err != nil {
		return fmt.Errorf("record that the job of runner %s is retried: %w", r.ID, err)
	}
	if again {
		c.r.Metrics.Retried(router.CauseRunner)
		c.r.Due.Give()
	}
	return nil
}

// askRunner asks GitHub about a runner that should have a job by now.
func (c *reconciler) askRunner(ctx context.Context, r router.LiveRunner) error {
	j, err := c.r.Store.Job(ctx, r.JobID)
	if err != nil {
		return err
	}
	if r.Target == (router.Target{}) {
		if j.Decision == nil {
			return nil
		}
		r.Target = router.TargetOf(j.Repo, j.Decision.Runner)
	}
	// Its own job first: most likely it has, or had, that one.
	if r.Needed {
		if changed, err := c.r.Intake.Ask(ctx, j); err != nil || changed {
			return err
		}
	}
	githubCtx, cancel := context.WithTimeout(ctx, router.GitHubTimeout)
	defer cancel()
	found, err := c.r.GitHub.Runner(githubCtx, r.Target, r.Name)
	reason := fmt.Sprintf("it has waited for a job since %s", r.StateAt.Format(time.RFC3339))
	switch {
	case errors.Is(err, router.ErrNotFound):
		reason = "GitHub no longer knows it"
	case err != nil:
		return err
	case found.Busy:
		return nil // its job's delivery, or the recheck of that job, will say which
	default:
		if r.GitHubID = found.ID; r.Needed && j.Decision != nil {
			if found.Version != "" {
				if err := c.r.Versions.saw(ctx, router.Runner{ID: r.ID, Rule: j.Decision.Rule, Rules: r.Rules, Target: r.Target}, found.Version); err != nil {
					return err
				}
			}
			return c.giveUpIdle(ctx, r, j, found)
		}
	}
	return c.act(ctx, r, retireRunner, reason)
}

const (
	firstIdleWait   = 10 * time.Minute // doubled with each runner in a row that GitHub gives nothing
	longestIdleWait = 2 * time.Hour
)

// giveUpIdle ends a runner that GitHub gives no job, although its own job is queued there.
// The next runner will probably get none either, so the job waits longer each time, unless
// its state changes, and its reason says what GitHub knows. That is recorded before the
// Nomad job is stopped, or its end would be taken for the cause; the runner may also end by
// itself once GitHub no longer knows it.
func (c *reconciler) giveUpIdle(ctx context.Context, r router.LiveRunner, j router.Job, found router.GitHubRunner) error {
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	before, err := c.r.Store.IdleRunners(storeCtx, j.ID)
	if err != nil {
		return fmt.Errorf("read how many runners of job %d got no job: %w", j.ID, err)
	}
	cause, wait := router.CauseNoJob, min(firstIdleWait<<min(r.Failures, before, 10), longestIdleWait)
	why := fmt.Sprintf("GitHub gave its runner no job in %s, although the job is still queued: ", rules.Duration(c.r.Idle))
	if since, is := c.r.Versions.outdated(ctx, r.Target, found.Version); is && found.Online {
		cause, wait = router.CauseVersion, 0
		why += fmt.Sprintf("since %s it gives none to runners of version %s, such as %s", since.Format(time.RFC3339), found.Version, r.ID)
	} else {
		why += c.idleBecause(ctx, r.Runner, j, found)
	}
	defer c.r.giveUp(r.ID)()
	if err := c.r.Unregister(ctx, r.Runner); err != nil {
		return err
	}
	at := c.r.Now().Add(wait)
	storeCtx, cancel = context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	lost, err := c.r.Store.Lost(storeCtx, router.Runner{ID: r.ID}, at, cause, why, c.r.Now())
	if err != nil {
		return fmt.Errorf("record runner %s, which got no job: %w", r.ID, err)
	}
	if lost {
		c.r.Metrics.Retried(cause)
		c.r.warnOf(ctx, r.Runner, "github gives a runner no job although its own is queued; the job is retried later", "reason", why, "again_at", at)
		c.r.Due.Give()
	}
	return c.r.StopJob(ctx, r.Runner)
}

// idleBecause returns why GitHub gave a runner no job, as far as GitHub tells: it has just
// said that the runner is idle, and that the job waits neither for an approval nor for
// others of its concurrency group. A runner that cannot be removed for long is not asked
// about its group again: that may be what keeps the login from being used.
func (c *reconciler) idleBecause(ctx context.Context, r router.Runner, j router.Job, found router.GitHubRunner) string {
	if !found.Online {
		return "the runner has not come online there: can its node reach GitHub, and does the runner's output say more?"
	}
	for _, l := range j.Labels {
		if !slices.ContainsFunc(found.Labels, func(has string) bool { return strings.EqualFold(has, l) }) {
			return fmt.Sprintf("the runner lacks the job's label %q there, and has the labels %s", l, strings.Join(found.Labels, ", "))
		}
	}
	const rest = "the runner has the job's labels, and the job waits for no approval and for no others of its concurrency group, so GitHub may hold it back by the max-parallel of its matrix"
	if r.Target.Repo != "" {
		return rest + fmt.Sprintf(", or not let %s use self-hosted runners (Settings, Actions, General, Runners)", j.Repo.FullName)
	}
	group := j.Placement(j.Decision).Runner.Group
	ctx, cancel := context.WithTimeout(ctx, router.GitHubTimeout)
	defer cancel()
	usual := fmt.Sprintf("the usual causes are that runner group %s does not allow %s or its workflow (Settings, Actions, Runner groups), or that the matrix of the job has a max-parallel", group, j.Repo.FullName)
	if c.r.Now().After(r.StateAt.Add(2 * c.r.Idle)) {
		return usual
	}
	access, err := c.r.GitHub.GroupAccess(ctx, r.Target, group, j.Repo)
	switch {
	case err != nil:
		return fmt.Sprintf("%s; GitHub did not say whether the group allows it: %v", usual, err)
	case access.Refusal != "":
		return access.Refusal
	case access.Workflows != nil:
		return fmt.Sprintf("runner group %s takes only jobs of the workflows %s: allow that of the job (Settings, Actions, Runner groups, %s), or name another group in the rule",
			access.Group, router.Shorten(strings.Join(access.Workflows, ", "), maxWorkflows), access.Group)
	case len(j.Labels) == 0:
		return fmt.Sprintf("the job asks for a runner group alone, and GitHub does not say for which: the runner is in %s, which allows %s", access.Group, j.Repo.FullName)
	}
	return fmt.Sprintf("runner group %s allows %s, %s, or the job asks for another group", access.Group, j.Repo.FullName, rest)
}

// askJob asks GitHub about the job that a runner ran which is gone.
func (c *reconciler) askJob(ctx context.Context, r router.LiveRunner) error {
	if r.Serves == 0 {
		return nil
	}
	j, err := c.r.Store.Job(ctx, r.Serves)
	if err != nil {
		return err
	}
	_, err = c.r.Intake.Ask(ctx, j)
	return err
}

// stopLate stops a runner whose job runs for too long. Nothing else here ends a running
// job. The clock may have been set since the job began, so GitHub's own clock decides, or,
// if GitHub cannot say, how long this process has seen the job run. GitHub notices the end
// by itself.
func (c *reconciler) stopLate(ctx context.Context, r router.LiveRunner, why string) error {
	if !c.running.due(r.ID) {
		return nil
	}
	log := c.r.Log.With("job_id", r.Serves, "nomad_job", r.NomadJob, "limit", rules.Duration(r.TimeLimit))
	j, err := c.r.Store.Job(ctx, r.Serves)
	if err != nil {
		return err
	}
	githubCtx, cancel := context.WithTimeout(ctx, router.LoginTimeout)
	d, err := c.r.Intake.Says(githubCtx, j)
	cancel()
	ran := d.RunsFor
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && d.Action != "in_progress":
		_, err = c.r.Intake.Learn(ctx, d)
		return err
	case err != nil || ran == 0:
		ran = r.Seen
		log.Info("github does not say for how long a job has run; the time that this process has seen it run counts", "seen", ran, "err", err)
	}
	if left := r.TimeLimit - ran; left > 0 {
		log.Throttled(slog.LevelWarn, "", "a job is not past its time limit, although this machine's clock says so: check whether that was set", "ran", ran)
		c.running.wait(r.ID, left)
		c.r.Compare.At(c.r.Now().Add(left))
		return nil
	}
	log.Warn("a job is stopped at its time limit", "ran", ran)
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	if err := c.r.Store.SetReason(storeCtx, r.ID, why, c.r.Now()); err != nil {
		return fmt.Errorf("record why runner %s is stopped: %w", r.ID, err)
	}
	return c.r.StopJob(ctx, r.Runner)
}
