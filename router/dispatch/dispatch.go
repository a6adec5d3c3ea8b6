// Package dispatch owns the way from a due job to its registered Nomad job: it takes due
// jobs in turn by owner, has them decided, keeps to their limits, waits while GitHub would
// not register their runners, and retries after failures. Server runs its loops; nobody
// else calls it.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/router/decide"
	"switchyard/router/intake"
	"switchyard/router/runners"
	"switchyard/router/telemetry"
	"switchyard/rules"
)

const (
	maxDecided = 100         // decided jobs that wait for a sender
	dueBatch   = 64          // due jobs read from the store at once
	storePause = time.Second // after the store failed
)

// MaxSenders is the most Senders of a Dispatcher.
const MaxSenders = 64

// A Store is what dispatch uses of the database.
type Store interface {
	// Due returns up to limit Queued or Retrying jobs whose DueAt has come, without those in
	// except, which are IDs, and when the next one falls due (zero: none known). The jobs are
	// in turn by owner, then by repository; within a repository those that have been due
	// longest come first. When more jobs are due than limit, each owner gets an equal share,
	// the owner whose turn was last comes last, and next is not after now.
	Due(ctx context.Context, now time.Time, except []int64, limit int) (jobs []router.Job, next time.Time, err error)

	// Settle ends a job that is still Queued or Retrying as Ignored, Denied or Unroutable.
	Settle(ctx context.Context, jobID int64, to router.JobState, cause router.Cause, reason string, d *router.Decision, now time.Time) error

	// Admit gives a Queued or Retrying job a place under its decision's limit, and takes one
	// that it has under another; a nil limit has places for all. The job keeps the place
	// until it ends. If no place is free, or others are to have it first, the job becomes Held
	// until it gets one; the order is that of router.LimitQueue. A job that is no longer Queued
	// or Retrying is ErrNotWaiting.
	Admit(ctx context.Context, jobID int64, d *router.Decision, now time.Time) (admitted bool, err error)

	// AdmitSibling gives a Queued or Retrying job that is a Matrix, or Wary, a place among the
	// jobs of its run that GitHub may hand out one after another, its Crowd. The job keeps it
	// until it ends. If so many have one as GitHub has handed out at a time, or FirstSiblings
	// of a matrix as long as that is not known, the job becomes Held until these run, or one
	// ends. A job that is no longer Queued or Retrying is ErrNotWaiting.
	AdmitSibling(ctx context.Context, j router.Job, d *router.Decision, now time.Time) (admitted bool, err error)

	// HoldToAsk makes a Queued job that is WaryOfGitHub Held, and WaryOfSiblings: GitHub is to
	// be asked about it. It reports whether it did so.
	HoldToAsk(ctx context.Context, jobID int64, now time.Time) (held bool, err error)

	// Reorder records a new decision about a job that waits for a place under a limit. If the
	// decision is nil or has no limit, the job becomes Queued and due at once. It reports
	// whether it did so: not when the job waits no longer.
	Reorder(ctx context.Context, jobID int64, d *router.Decision, now time.Time) (bool, error)

	// Reconsider makes jobs Queued and due at once: some of those for which a place under their
	// limit is free, those for which there is a place among their siblings, and those of
	// HoldOutdated whose rule may start runners by these rules and jobspecs. It returns how
	// many they were; 0: there are no more.
	Reconsider(ctx context.Context, rules string, now time.Time) (int, error)

	// Prepare records a runner, and whether it brings its own registration, before Nomad is
	// asked for it, and lets the holder of the token with this SHA-256 hash claim it. It may
	// be called again with the same hash or another: all of them are valid until
	// Dispatched. A job that is no longer Queued or Retrying, or not due, is ErrNotWaiting. If
	// two runners that the same rule started by the same rules and jobspecs, as r says, were
	// Lost for CauseVersion, it is an *OutdatedError.
	Prepare(ctx context.Context, r router.Runner, tokenHash [32]byte, now time.Time) error

	// TakeWarm gives a job a warm runner of its rule and of this WarmFit, if there is one, as
	// the runner r, and records all that Prepare and Dispatched do: in one change, so that
	// no two jobs get one runner. The zero WarmRunner is none. Its errors are those of Prepare.
	TakeWarm(ctx context.Context, r router.Runner, fit string, d *router.Decision, now time.Time) (router.WarmRunner, error)

	// Verifies lets the holder of the token with this SHA-256 hash ask whether the runner may
	// serve the job that GitHub gave it. It may be called again.
	Verifies(ctx context.Context, runnerID string, tokenHash [32]byte, now time.Time) error

	// HoldOutdated makes a job that is still Queued or Retrying Held, without a place under a
	// limit, until Reconsider.
	HoldOutdated(ctx context.Context, jobID int64, reason string, d *router.Decision, now time.Time) error

	// Dispatched records that Nomad has the runner, whose token has this hash; the runner's
	// other hashes become invalid. The job moves on from Queued or Retrying; if it has
	// already gone further it stays there.
	Dispatched(ctx context.Context, r router.Runner, tokenHash [32]byte, d *router.Decision, now time.Time) error

	// Retry moves a job that is still Queued or Retrying to Retrying, due at at. A nil d
	// leaves its decision as it is.
	Retry(ctx context.Context, jobID int64, at time.Time, cause router.Cause, reason string, d *router.Decision, now time.Time) error

	// RetryNow makes up to limit Retrying jobs with this cause due at once, or all if limit
	// is negative, resets their failure counts, and returns how many they were. Those that
	// were due first come first. They are those whose runner was prepared in a region of
	// Nomad, or not at all in the client's own, or AnyRegion.
	RetryNow(ctx context.Context, region string, cause router.Cause, limit int, now time.Time) (int, error)

	// RecordRegistered records that GitHub knows a runner that is Dispatched in the
	// database: its state in r, its name and ID on GitHub, and its target.
	RecordRegistered(ctx context.Context, r router.Runner, now time.Time) error

	// FindJobs returns the jobs that a filter selects, newest first; of several GitHubs, those
	// of one after the other: by ID, the highest first.
	FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error)

	// Redecide moves a job that was decided, waits for a place under a limit, or is
	// Retrying, to Queued, due at once, with a new try. by says who asked for it. It
	// reports whether it did so: not when the job is in another state.
	Redecide(ctx context.Context, jobID int64, by router.Source, reason string, now time.Time) (bool, error)
}

// A Dispatcher takes due jobs from the database, has them decided, and starts their
// runners. One per database runs. It is made by New and safe for concurrent use; its
// exported fields are set before, and are required.
type Dispatcher struct {
	Store   Store
	Nomad   router.Nomad
	GitHub  router.GitHub
	Intake  *intake.Intake
	Decider *decide.Decider
	InHand  *decide.InHand
	First   *intake.FirstSync
	Runners *runners.Runners
	Log     *telemetry.Log
	Metrics *telemetry.Metrics
	Traces  *telemetry.Traces // nil: nobody follows
	Backoff *router.Backoff
	Now     func() time.Time
	Rand    func() float64 // in [0,1)

	Due      router.Hint     // received and given: a job may be due
	Limits   router.Hint     // received: limits may have changed
	NewRules router.Hint     // received: the rules have changed
	Compare  router.TimeHint // given: when to compare the database with Nomad

	WarmTaken func(router.WarmRunner) // one was taken

	PublicURL string        // where runners claim
	Senders   int           // Nomad jobs registered at the same time
	Tick      time.Duration // how often due jobs are read though no hint came
	Sweep     time.Duration // how often held jobs are decided again though no hint came
	Grace     time.Duration // how long a stop waits for work under way

	jobs    chan router.Job // to the deciders; unbuffered, so that few jobs wait here while the database changes
	senders sync.WaitGroup
	tokens  tokens

	mu      sync.Mutex
	lanes   map[string]*lane  // by region
	sending map[int64]sending // jobs whose runners Nomad is being asked for
}

// A lane has the decided jobs of one region of Nomad, whose senders wait for no other region.
type lane struct {
	region  string
	decided chan sending // size maxDecided; to the senders
	silence silence      // of the region
	outage  outage       // likewise
	watch   watch        // WatchNomad's
}

// New returns a Dispatcher whose exported fields are those of di.
func New(di *Dispatcher) *Dispatcher {
	di.Restart()
	return di
}

// Restart forgets what is only known while this process leads, and makes di ready to Run once
// more. None of its loops may run.
func (di *Dispatcher) Restart() {
	di.jobs = make(chan router.Job)
	di.InHand.Clear()
	di.mu.Lock()
	defer di.mu.Unlock()
	di.sending, di.lanes = map[int64]sending{}, map[string]*lane{}
	di.tokens.reset()
}

// lane returns the lane of a region, whose senders it starts at first. It is called by the
// deciders.
func (di *Dispatcher) lane(ctx context.Context, region string) *lane {
	di.mu.Lock()
	defer di.mu.Unlock()
	l := di.lanes[region]
	if l == nil {
		l = &lane{region: region, decided: make(chan sending, maxDecided)}
		di.lanes[region] = l
		for range di.Senders {
			di.senders.Go(func() {
				for s := range l.decided {
					di.send(ctx, l, s)
				}
			})
		}
	}
	return l
}

// allLanes returns the lanes, by region.
func (di *Dispatcher) allLanes() (all []*lane) {
	di.mu.Lock()
	defer di.mu.Unlock()
	for _, region := range slices.Sorted(maps.Keys(di.lanes)) {
		all = append(all, di.lanes[region])
	}
	return all
}

// SilentFor returns how long Nomad has answered no request to a region, of several the one
// that has been silent for longest, and which that is; 0: it answers.
func (di *Dispatcher) SilentFor() (d time.Duration, region string) {
	for _, l := range di.allLanes() {
		if silent, _ := l.silence.length(); silent > d {
			d, region = silent, l.region
		}
	}
	return d, region
}

// Run hands out due jobs until ctx ends, then waits for those in hand, for Grace at most.
// After that they are cut off; the next process takes them up.
func (di *Dispatcher) Run(ctx context.Context) error {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var deciders sync.WaitGroup
	for range di.Senders {
		deciders.Go(func() {
			for j := range di.jobs {
				di.decideOne(hard, j)
			}
		})
	}
	di.First.Wait(ctx)
	di.feed(ctx)
	close(di.jobs)
	stop := time.AfterFunc(di.Grace, cut)
	defer stop.Stop()
	deciders.Wait()
	for _, l := range di.allLanes() {
		close(l.decided)
	}
	di.senders.Wait()
	return nil
}

// feed reads due jobs and hands them to the deciders until ctx ends.
func (di *Dispatcher) feed(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := di.Tick
		due, next, err := di.Store.Due(ctx, di.Now(), di.InHand.Read(), dueBatch)
		switch {
		case err != nil && ctx.Err() == nil:
			di.Log.Throttled(slog.LevelError, "", "cannot read due jobs from the database", "err", err, "fix", router.StoreFix(err))
			wait = storePause
		case !next.IsZero():
			wait = min(wait, max(next.Sub(di.Now()), 0))
		}
		more := !next.IsZero() && !next.After(di.Now())
		given := 0
		for _, j := range due {
			if !di.InHand.Take(j.ID) {
				continue
			}
			given++
			select {
			case di.jobs <- j:
			case <-ctx.Done():
				return
			}
		}
		if given > 0 && more {
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-di.Due:
		case <-timer.C:
		}
	}
}

func (di *Dispatcher) release(id int64) {
	di.mu.Lock()
	defer di.mu.Unlock()
	di.InHand.Release(id)
	delete(di.sending, id)
}

// A sending is a decided job on its way to Nomad.
type sending struct {
	job      router.Job
	decision *rules.Decision
	region   string
	since    time.Time // when Nomad was asked, by the monotonic clock; zero: not yet
	silent   bool      // the job waits in the database because Nomad does not answer
}

// decideOne takes a job as far as possible without Nomad: to its end when no runner will
// serve it, else to the senders.
func (di *Dispatcher) decideOne(ctx context.Context, j router.Job) {
	s, err := di.decide(ctx, j)
	if err == nil && s.decision != nil {
		region := di.Nomad.Region(j.Placement(s.decision))
		cause := di.Runners.Knows(region)
		if cause == nil {
			l := di.lane(ctx, region)
			if cause = l.err(); cause == nil {
				select {
				case l.decided <- s:
					return
				case <-ctx.Done():
				}
			}
		}
		if ctx.Err() == nil {
			err = di.wait(ctx, s.job, s.decision, cause)
		}
	}
	defer di.release(j.ID)
	di.pauseOnError(ctx, j.ID, err)
}

// decide decides a job and returns it if it is for a sender; else it records the outcome
// and returns a zero sending. Its errors are the store's.
func (di *Dispatcher) decide(ctx context.Context, j router.Job) (sending, error) {
	j, err := di.Runners.Adopt(ctx, j)
	if err != nil {
		return sending{}, di.notAdopted(ctx, j, err)
	}
	deciding, s := di.Traces.Span(ctx, j, "decide", di.Now())
	d, err := di.Decider.Decide(deciding, j)
	s.With("rule", d.Rule).With("outcome", string(d.Outcome)).Finish(di.Now(), err)
	if err != nil {
		return sending{}, di.undecided(ctx, j, d, err)
	}
	di.Metrics.Decided(j, &d)
	withoutLabels(j, &d)
	di.InHand.Decided(j.ID, &d)
	log := di.Log.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule)
	switch d.Outcome {
	case rules.Ignored:
		return sending{}, di.settle(ctx, j.ID, router.Ignored, "", d.Reason, &d)
	case rules.Denied:
		log.Info("job denied", "reason", d.Reason)
		return sending{}, di.settle(ctx, j.ID, router.Denied, "", d.Reason, &d)
	case rules.Unroutable:
		log.Info("job unroutable", "reason", d.Reason)
		return sending{}, di.settle(ctx, j.ID, router.Unroutable, "", d.Reason, &d)
	}
	if j.Wary == router.WaryOfGitHub && j.State == router.Queued {
		return sending{}, di.askFirst(ctx, j)
	}
	if d.Limit != nil || j.Decision != nil && j.Decision.Limit != nil {
		admitted, err := di.admit(ctx, j, &d)
		if err != nil || !admitted {
			return sending{}, err
		}
	}
	if j.Matrix() || j.Wary != 0 {
		admitted, err := di.admitSibling(ctx, j, &d)
		if err != nil || !admitted {
			return sending{}, err
		}
	}
	return sending{job: j, decision: &d}, nil
}

// withoutLabels removes a job's labels from its decision: the store gives them back.
func withoutLabels(j router.Job, d *rules.Decision) {
	if seen := router.SeenLabels(j.Labels); slices.Equal(d.Labels, seen[:min(len(d.Labels), len(seen))]) {
		d.Labels = nil
	}
}

// pauseOnError logs an error of the store, if there is one, and waits a moment: the job is
// still due and would be taken again at once.
func (di *Dispatcher) pauseOnError(ctx context.Context, jobID int64, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	di.Log.Throttled(slog.LevelError, "", "cannot record the state of a job", "job_id", jobID, "err", err, "fix", router.StoreFix(err))
	router.Pause(ctx, storePause)
}

// send registers the runner of a decided job on Nomad, or schedules its next attempt.
func (di *Dispatcher) send(ctx context.Context, l *lane, s sending) {
	defer di.release(s.job.ID)
	if err := l.err(); err != nil {
		di.pauseOnError(ctx, s.job.ID, di.wait(ctx, s.job, s.decision, err))
		return
	}
	if j := s.job; j.Cause == router.CauseNomad && j.Failures > 0 && l.outage.away() {
		at, _ := di.Backoff.Retry(&router.AwayError{Err: errors.New(j.Reason)}, j.Failures)
		di.pauseOnError(ctx, j.ID, di.retry(ctx, j.ID, j.Cause, at, j.Reason, nil))
		return
	}
	di.pauseOnError(ctx, s.job.ID, di.register(ctx, l, s.job, s.decision))
}

// register does the work of send. Its errors are the store's.
func (di *Dispatcher) register(ctx context.Context, l *lane, j router.Job, d *rules.Decision) error {
	log := di.Log.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule)
	if found, ok := di.Runners.Adopted(j.RunnerID()); ok {
		return di.registered(ctx, j, router.Runner{ID: j.RunnerID(), JobID: j.ID, Try: j.Try}, di.Now(), found, d)
	}
	own := !di.Nomad.Claims(j.Placement(d))
	var later *router.RetryAtError
	if err := di.ready(ctx, j, j.Placement(d).Runner, own); errors.As(err, &later) {
		log.Throttled(slog.LevelInfo, d.Rule, "github accepts no runner for a job at the moment", "err", err, "again_at", later.At)
		reason := fmt.Sprintf("GitHub accepts no runner for it at the moment: %v", err)
		if later.Failing {
			reason = fmt.Sprintf("%v; no runner is started meanwhile", err)
		}
		return di.retry(ctx, j.ID, githubCause(err), later.At, reason, d)
	}
	r := router.Runner{
		ID: j.RunnerID(), JobID: j.ID, Try: j.Try, State: router.RunnerDispatched, Name: j.RunnerID(), NomadAt: router.NomadAt{Region: l.region},
		Fit: j.Fit(d), Own: own, Rule: d.Rule, Rules: di.Decider.Version(), Keep: j.Placement(d).Debug.KeepFor(),
	}
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	taken, err := di.takeWarm(storeCtx, j, r, d)
	if taken {
		return nil
	}
	token := router.Secret("")
	if err == nil {
		token = di.tokens.take(r.ID)
		err = di.Store.Prepare(storeCtx, r, token.Hash(), di.Now())
	}
	if errors.Is(err, router.ErrNotWaiting) {
		return nil // it was cancelled, or another runner took it
	}
	if old, ok := errors.AsType[*router.OutdatedError](err); ok {
		return di.holdOutdated(ctx, j, d, old)
	}
	if err != nil {
		return fmt.Errorf("prepare runner %s: %w", r.ID, err)
	}
	if err := di.verifies(storeCtx, j, r.ID, token, d); err != nil {
		return err
	}
	di.Runners.Starts(r.ID)
	defer di.Runners.HasStarted(r.ID)
	di.mu.Lock()
	di.sending[j.ID] = sending{job: j, decision: d, region: l.region, since: time.Now()}
	di.mu.Unlock()
	began := di.Now()
	registering, s := di.Traces.Span(ctx, j, "register", began)
	request := router.StartRequest{
		Runner: r, Job: j, Rule: d.Rule, Placement: j.Placement(d),
		ClaimURL: di.PublicURL + router.ClaimPath, ClaimToken: token,
	}
	if request.Placement.Runner.Verify {
		request.VerifyURL, request.VerifyToken = di.PublicURL+router.VerifyPath, token.Verification()
	}
	started, err := di.start(registering, l, request)
	s.With("rule", d.Rule).With("nomad_job", r.ID).Finish(di.Now(), err)
	if ctx.Err() != nil {
		return nil // cut off: whatever Nomad did, the next process finds it
	}
	if err != nil {
		return di.failed(ctx, l, j, r, token, d, err)
	}
	for _, warning := range started.Warnings {
		log.Throttled(slog.LevelWarn, d.Rule+"\x00"+warning, "nomad warns about a job", "nomad_job", started.NomadJob, "warning", warning)
	}
	if started.Existed && started.ClaimToken != token && !r.Own {
		// An earlier process registered it, and its database may have known more.
		found := r
		err := di.Runners.Recognize(ctx, &found, router.TargetOf(j.Repo, d.Runner))
		if err == nil && found.State != router.RunnerDispatched {
			err = di.Store.RecordRegistered(ctx, found, di.Now())
		}
		if err != nil {
			at, ok := di.Backoff.RetryGitHub(err, j.Failures)
			if !ok {
				at = di.Now().Add(router.LongestWait)
			}
			di.tokens.keep(r.ID, token)
			return di.retry(ctx, j.ID, router.CauseGitHub, at, fmt.Sprintf("Nomad already has its runner %s, and GitHub has not said yet whether that is registered: %v", r.ID, err), d)
		}
	}
	if err := di.registered(ctx, j, r, began, started, d); err != nil {
		di.tokens.keep(r.ID, token)
		return err
	}
	return nil
}

// registered records that Nomad has a job's runner. Its error is the store's.
func (di *Dispatcher) registered(ctx context.Context, j router.Job, r router.Runner, began time.Time, started router.Started, d *rules.Decision) error {
	r.NomadJob, r.NomadAt = started.NomadJob, started.At
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	if err := di.Store.Dispatched(storeCtx, r, started.ClaimToken.Hash(), d, di.Now()); err != nil {
		return fmt.Errorf("record runner %s: %w", r.ID, err)
	}
	if started.Existed {
		if err := di.verifies(storeCtx, j, r.ID, started.ClaimToken, d); err != nil {
			return err
		}
		di.Compare.At(di.Now()) // it may have ended before its events were followed
	}
	if j.DispatchedAt.IsZero() {
		di.Metrics.Registered(j, d, di.Now())
	}
	if j.Cause == router.CauseRefused { // Nomad accepts this one now, so it may accept the others
		di.retryNow(ctx, router.AnyRegion, router.CauseRefused, -1)
	}
	di.Log.Info("job dispatched", "job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "nomad_job", r.NomadJob, "existed", started.Existed, "took", di.Now().Sub(began))
	return nil
}

// verifies records the token by which a runner asks whether it may serve its job, if its rule
// says so. Its error is the store's.
func (di *Dispatcher) verifies(ctx context.Context, j router.Job, runnerID string, claimToken router.Secret, d *rules.Decision) error {
	if !j.Placement(d).Runner.Verify {
		return nil
	}
	if err := di.Store.Verifies(ctx, runnerID, claimToken.Verification().Hash(), di.Now()); err != nil {
		return fmt.Errorf("record that runner %s verifies its job: %w", runnerID, err)
	}
	return nil
}

func (di *Dispatcher) start(ctx context.Context, l *lane, r router.StartRequest) (started router.Started, err error) {
	ctx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	err = l.silence.ask(ctx, func(ctx context.Context) error {
		started, err = di.Nomad.Start(ctx, r)
		return err
	})
	if silent, ok := errors.AsType[*router.SilentError](err); ok {
		silent.Region = l.region
	}
	l.outage.saw(r.Job.ID, err)
	return started, err
}

// failed records that a runner could not be started.
func (di *Dispatcher) failed(ctx context.Context, l *lane, j router.Job, r router.Runner, token router.Secret, d *rules.Decision, cause error) error {
	log := di.Log.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "nomad_job", r.ID, "err", cause)
	if d, _ := l.silence.length(); d > 0 && timedOut(cause) {
		cause = &router.SilentError{For: d, Region: l.region}
	}
	if failing(cause) && l.outage.away() {
		cause = &router.AwayError{Err: cause}
	}
	at, again := di.Backoff.Retry(cause, j.Failures)
	if !again {
		return di.refusedByNomad(ctx, j, r, token, d, cause)
	}
	if fix, ok := errors.AsType[*router.FixError](cause); ok {
		log.Throttled(slog.LevelError, d.Rule, "a job waits until somebody changes the configuration", "fix", fix.Fix, "again_at", at)
	} else if silent := (*router.SilentError)(nil); !errors.As(cause, &silent) { // WatchNomad logs that once for all jobs
		log.Throttled(slog.LevelWarn, d.Rule, "nomad could not take a job; it will be retried", "again_at", at)
	}
	di.tokens.keep(r.ID, token)
	return di.retry(ctx, j.ID, nomadCause(cause), at, fmt.Sprintf("Nomad could not take the job yet: %v", cause), d)
}

// nomadCause and githubCause return the cause of a job that the other side did not serve.
func nomadCause(err error) router.Cause {
	switch {
	case errors.As(err, new(*router.SilentError)):
		return router.CauseSilent
	case errors.As(err, new(*router.FixError)):
		return router.CauseRefused
	}
	return router.CauseNomad
}

func githubCause(err error) router.Cause {
	later, ok := errors.AsType[*router.RetryAtError](err)
	switch {
	case ok && !later.Failing:
		return router.CauseGitHubLimit
	case errors.As(err, new(*router.FixError)):
		return router.CauseGitHubRefused
	}
	return router.CauseGitHub
}

// notAdopted records that a job waits because Nomad has a runner for it that cannot be
// adopted yet. Its error is the store's.
func (di *Dispatcher) notAdopted(ctx context.Context, j router.Job, cause error) error {
	if ctx.Err() != nil {
		return nil // cut off: the next process finds the runner
	}
	retry, why := di.Backoff.Retry, nomadCause(cause)
	if errors.As(cause, new(*runners.GitHubError)) {
		retry, why = di.Backoff.RetryGitHub, githubCause(cause)
	}
	at, ok := retry(cause, j.Failures)
	if !ok {
		at = di.Now().Add(router.LongestWait)
	}
	return di.retry(ctx, j.ID, why, at, fmt.Sprintf("Nomad has a runner for it, which could not be adopted yet: %v", cause), nil)
}

// wait records that a job waits for Nomad, which was not asked for this one.
func (di *Dispatcher) wait(ctx context.Context, j router.Job, d *rules.Decision, cause error) error {
	at, _ := di.Backoff.Retry(cause, j.Failures)
	return di.retry(ctx, j.ID, nomadCause(cause), at, fmt.Sprintf("Nomad could not take the job yet: %v", cause), d)
}

func (di *Dispatcher) retry(ctx context.Context, jobID int64, cause router.Cause, at time.Time, reason string, d *rules.Decision) error {
	di.Metrics.Retried(cause)
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	if err := di.Store.Retry(ctx, jobID, at, cause, reason, d, di.Now()); err != nil {
		return fmt.Errorf("record that job %d is retried: %w", jobID, err)
	}
	di.Due.Give() // its due time may come before the tick
	return nil
}

func (di *Dispatcher) settle(ctx context.Context, jobID int64, to router.JobState, cause router.Cause, reason string, d *rules.Decision) error {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	if err := di.Store.Settle(ctx, jobID, to, cause, reason, d, di.Now()); err != nil {
		return fmt.Errorf("settle job %d as %s: %w", jobID, to, err)
	}
	if d.Limit != nil {
		di.Due.Give() // another job may have its place now
	}
	return nil
}
