package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"switchyard/router"
	"switchyard/rules"
)

const (
	maxSenders   = 64  // they, as many who decide and maxDecided leave room in a batch
	maxDecided   = 100 // decided jobs that wait for a sender
	maxTokens    = 10_000
	dueLeast     = 64               // of those that are handed out before others are read, when more are due
	dueBatch     = 256              // jobs read from the store at once
	startTimeout = 30 * time.Second // for one runner's whole talk with Nomad
	storeTimeout = 10 * time.Second // for one write of the worker
	storePause   = time.Second      // after the store failed
)

// A worker takes due jobs from the store, decides them, and starts their
// runners. There is one per store.
type worker struct {
	*Config
	wake    chan struct{}   // size 1; a hint that a job may be due
	relimit chan struct{}   // size 1; a hint that limits may have changed
	anew    chan struct{}   // size 1; a hint that the rules have changed
	spare   chan struct{}   // size 1; a hint that looked has jobs
	doubted chan doubt      // size maxDoubted; see mayWait
	jobs    chan router.Job // to those who decide; unbuffered, so that few jobs wait here while they change in the store
	decided chan sending    // size maxDecided; to the senders

	running limitClock
	beganAt time.Time         // when this process began, by the clock
	began   time.Time         // and by the time that passes
	unseen  atomic.Int64      // when Nomad was last seen not to look at runners, by the time that passes, in nanoseconds
	silence silence           // of Nomad
	sending map[int64]sending // jobs that Nomad is asked for; guarded by mu

	listings chan []router.NomadJob // size 1; from follow, to be compared with the books
	again    chan time.Time         // size 1; a hint that the books are worth comparing then
	why      asker
	ended    chan router.LiveRunner // size maxEnded; those that ends sees to
	foreign  map[nomadKey]bool      // those on Nomad that are not ours, though their ID is a runner's; guarded by mu

	live atomic.Pointer[liveRules]

	mu      sync.Mutex
	inHand  map[int64]*router.Decision // jobs handed to a sender, or about to be; nil until decided
	tokens  map[string]router.Secret   // by runner ID: tokens of attempts that failed, used again so that hashes do not pile up
	looked  map[int64]bool             // jobs whose runners may be left over; 0: all
	started map[string]bool            // runners that Nomad is being asked for; true: left over meanwhile

	runs     runs // those looked up
	refusals refusals
	throttle logThrottle

	lostAnswers lostAnswers
	rosters     rosters
	queues      queues
	earlier     earlier

	spared map[int64]time.Time // runs that are not cancelled before then, as they have jobs that may run; used by cancels only

	full      chan router.Target // size maxFull; see crowded
	strayTurn int                // sweeps since all strays were looked at; used by strays only

	hooks    sweeps
	latest   time.Time // when the store had last recorded anything, at the start; zero: never
	compares bool      // what GitHub delivered is compared with the store at the start: it is not new

	told map[router.OwnerKey]*rate.Limiter // what an owner's commits may be told; guarded by mu
}

// run hands out due jobs until ctx ends, then waits for those in hand: for
// Grace at most, after which they are cut off, to be taken up by the next
// process.
func (w *worker) run(ctx context.Context) error {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var deciders, senders sync.WaitGroup
	for range w.Senders {
		deciders.Go(func() {
			for j := range w.jobs {
				w.decideOne(hard, j)
			}
		})
		senders.Go(func() {
			for s := range w.decided {
				w.send(hard, s)
			}
		})
	}
	w.earlier.wait(ctx)
	w.feed(ctx)
	close(w.jobs)
	stop := time.AfterFunc(w.Grace, cut)
	defer stop.Stop()
	deciders.Wait()
	close(w.decided)
	senders.Wait()
	return nil
}

// feed reads due jobs and hands them to the senders until ctx ends.
func (w *worker) feed(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := w.Tick
		// Jobs in hand are still due in the store, so room is left for them.
		due, next, err := w.Store.Due(ctx, w.Now(), dueBatch)
		switch {
		case err != nil && ctx.Err() == nil:
			w.logThrottled(w.Logger, slog.LevelError, "", "cannot read due jobs from the store", "err", err, "fix", router.StoreFix(err))
			wait = storePause
		case !next.IsZero():
			wait = min(wait, max(next.Sub(w.Now()), 0))
		}
		more := !next.IsZero() && !next.After(w.Now())
		given := 0
	handing:
		for _, j := range due {
			if more && given >= dueLeast {
				select {
				case <-w.wake: // there may be another owner's job, whose turn is before the rest
					break handing
				default:
				}
			}
			if !w.take(j.ID) {
				continue
			}
			given++
			select {
			case w.jobs <- j:
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
		case <-w.wake:
		case <-timer.C:
		}
	}
}

// take marks a job as in hand; false when it is already.
func (w *worker) take(id int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, taken := w.inHand[id]; taken {
		return false
	}
	w.inHand[id] = nil
	return true
}

func (w *worker) release(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.inHand, id)
	delete(w.sending, id)
}

// A sending is a decided job on its way to Nomad.
type sending struct {
	job      router.Job
	decision *rules.Decision
	since    time.Time // when Nomad was asked, by the time that passes; zero: not yet
	said     bool      // that Nomad does not answer
}

// decideOne carries one job as far as it goes without Nomad: to its end when no
// runner will serve it, else to the senders, whom the others do not wait for.
func (w *worker) decideOne(ctx context.Context, j router.Job) {
	s, err := w.settled(ctx, j)
	if err == nil && s.decision != nil {
		select {
		case w.decided <- s:
			return
		case <-ctx.Done():
		}
	}
	defer w.release(j.ID)
	w.cannotWrite(ctx, j.ID, err)
}

// settled decides a job, and writes down what comes of it unless that is for a
// sender. Its errors are the store's.
func (w *worker) settled(ctx context.Context, j router.Job) (sending, error) {
	j, err := w.takeUp(ctx, j)
	if err != nil {
		return sending{}, err
	}
	deciding, s := w.span(ctx, j, "decide", w.Now())
	d, err := w.decide(deciding, j)
	s.with("rule", d.Rule).with("outcome", string(d.Outcome)).end(w.Now(), err)
	if err != nil {
		return sending{}, w.undecided(ctx, j, d, err)
	}
	w.Metrics.decided(j, &d)
	if seen := router.SeenLabels(j.Labels); slices.Equal(d.Labels, seen[:min(len(d.Labels), len(seen))]) {
		d.Labels = nil // the job has them; the store gives them back
	}
	w.hold(j.ID, &d)
	log := w.Logger.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule)
	switch d.Outcome {
	case rules.Ignored:
		return sending{}, w.settle(ctx, j.ID, router.Ignored, d.Reason, &d)
	case rules.Denied:
		log.Info("job denied", "reason", d.Reason)
		return sending{}, w.settle(ctx, j.ID, router.Denied, d.Reason, &d)
	case rules.Unroutable:
		log.Info("job unroutable", "reason", d.Reason)
		return sending{}, w.settle(ctx, j.ID, router.Unroutable, d.Reason, &d)
	}
	if d.Limit != nil {
		admitted, err := w.admit(ctx, j, &d)
		if err != nil || !admitted {
			return sending{}, err
		}
	}
	return sending{job: j, decision: &d}, nil
}

// cannotWrite sees to an error of the store's, if there is one. The job is still
// due: do not spin on it.
func (w *worker) cannotWrite(ctx context.Context, jobID int64, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	w.logThrottled(w.Logger, slog.LevelError, "", "cannot write a job's state", "job_id", jobID, "err", err, "fix", router.StoreFix(err))
	select {
	case <-ctx.Done():
	case <-time.After(storePause):
	}
}

// send carries a decided job to a registered Nomad job, or to its next attempt.
func (w *worker) send(ctx context.Context, s sending) {
	defer w.release(s.job.ID)
	if err := w.silence.refuses(); err != nil {
		w.cannotWrite(ctx, s.job.ID, w.wait(ctx, s.job, s.decision, err))
		return
	}
	w.cannotWrite(ctx, s.job.ID, w.carry(ctx, s.job, s.decision))
}

// carry does the work of send; its errors are the store's.
func (w *worker) carry(ctx context.Context, j router.Job, d *rules.Decision) error {
	log := w.Logger.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule)
	own := !w.Nomad.Claims(j.Placement(d))
	var later *router.RetryAtError
	if err := w.ready(ctx, j, j.Placement(d).Runner, own); errors.As(err, &later) {
		w.logThrottled(log, slog.LevelInfo, d.Rule, "github takes no runner for a job yet", "err", err, "again_at", later.At)
		if later.Failing {
			return w.retry(ctx, j.ID, causeGitHub, later.At, fmt.Sprintf(router.SaysNoRunner+": %v", err), d)
		}
		return w.retry(ctx, j.ID, causeGitHubLimit, later.At, fmt.Sprintf(router.SaysGitHubLimit+": %v", err), d)
	}
	r := router.Runner{ID: j.RunnerID(), JobID: j.ID, Try: j.Try, State: router.RunnerDispatched, Name: j.RunnerID(), Fit: j.Fit(d), Own: own}
	token := w.token(r.ID)
	storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := w.Store.Prepare(storeCtx, r, hash(token), w.Now())
	if errors.Is(err, router.ErrNotWaiting) {
		return nil // it was cancelled, or another runner took it
	}
	if err != nil {
		return fmt.Errorf("prepare runner %s: %w", r.ID, err)
	}
	w.starts(r.ID)
	defer w.hasStarted(r.ID)
	w.mu.Lock()
	w.sending[j.ID] = sending{job: j, decision: d, since: time.Now()}
	w.mu.Unlock()
	began := w.Now()
	registering, s := w.span(ctx, j, "register", began)
	started, err := w.start(registering, router.StartRequest{
		Runner: r, Job: j, Rule: d.Rule, Placement: j.Placement(d),
		ClaimURL: w.PublicURL + ClaimPath, ClaimToken: token,
	})
	s.with("rule", d.Rule).with("nomad_job", r.ID).end(w.Now(), err)
	if ctx.Err() != nil {
		return nil // cut off: whatever Nomad did, the next process finds it
	}
	if err != nil {
		return w.failed(ctx, j, r, token, d, err)
	}
	for _, warning := range started.Warnings {
		log.Warn("nomad warns about a job", "nomad_job", started.NomadJob, "warning", warning)
	}
	if started.Existed && started.ClaimToken != token && !r.Own {
		// An earlier process started it, and an earlier database may have known more.
		found := r
		err := w.recognize(ctx, &found, router.TargetOf(j.Repo, d.Runner))
		if err == nil && found.State != router.RunnerDispatched {
			err = w.Store.Found(ctx, found, w.Now())
		}
		if err != nil {
			at, ok := w.retryAt(err, j.Failures)
			if !ok {
				at = w.Now().Add(longestWait)
			}
			w.keep(r.ID, token)
			return w.retry(ctx, j.ID, causeGitHub, at, fmt.Sprintf(router.SaysUnknown+" %s already, and GitHub did not say yet whether it is registered: %v", r.ID, err), d)
		}
	}
	r.NomadJob, r.NomadAt = started.NomadJob, started.At
	storeCtx, cancel = context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := w.Store.Dispatched(storeCtx, r, hash(started.ClaimToken), d, w.Now()); err != nil {
		w.keep(r.ID, token)
		return fmt.Errorf("record runner %s: %w", r.ID, err)
	}
	if started.Existed {
		w.lookAgain(w.Now()) // it may have ended before anybody could tell
	}
	if j.DispatchedAt.IsZero() {
		lasted(w.Metrics.registered, j, d, w.Now())
	}
	if strings.HasPrefix(j.Reason, router.SaysRefused) { // Nomad has changed its mind, so the others may have a chance
		w.hasten(ctx, router.SaysRefused, -1)
	}
	log.Info("job dispatched", "nomad_job", r.NomadJob, "existed", started.Existed, "took", w.Now().Sub(began))
	return nil
}

func (w *worker) start(ctx context.Context, r router.StartRequest) (started router.Started, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = w.silence.ask(ctx, func(ctx context.Context) error {
		started, err = w.Nomad.Start(ctx, r)
		return err
	})
	return started, err
}

// failed records that a runner could not be started.
func (w *worker) failed(ctx context.Context, j router.Job, r router.Runner, token router.Secret, d *rules.Decision, cause error) error {
	log := w.Logger.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "nomad_job", r.ID, "err", cause)
	if d, _ := w.silence.length(); d > 0 && ranOut(cause) {
		cause = &silentError{d}
	}
	at, again := w.backoff().Retry(cause, j.Failures)
	if !again {
		return w.refusedByNomad(ctx, j, r, token, d, cause)
	}
	var fix *router.FixError
	if errors.As(cause, &fix) {
		w.logThrottled(log, slog.LevelError, d.Rule, "job waits for a change of configuration", "fix", fix.Fix, "again_at", at)
	} else if silent := (*silentError)(nil); !errors.As(cause, &silent) { // which is said once, for all jobs
		w.logThrottled(log, slog.LevelWarn, d.Rule, "nomad could not take the job; it will be tried again", "again_at", at)
	}
	w.keep(r.ID, token)
	return w.retry(ctx, j.ID, causeNomad, at, fmt.Sprintf(router.SaysNomad+": %v", cause), d)
}

// wait records that a job waits for Nomad, which was not asked for it.
func (w *worker) wait(ctx context.Context, j router.Job, d *rules.Decision, cause error) error {
	at, _ := w.backoff().Retry(cause, j.Failures)
	return w.retry(ctx, j.ID, causeNomad, at, fmt.Sprintf(router.SaysNomad+": %v", cause), d)
}

func (w *worker) retry(ctx context.Context, jobID int64, cause string, at time.Time, reason string, d *rules.Decision) error {
	w.Metrics.retried(cause)
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := w.Store.Retry(ctx, jobID, at, reason, d, w.Now()); err != nil {
		return fmt.Errorf("record that job %d is tried again: %w", jobID, err)
	}
	w.nudge() // its due time may come before the tick
	return nil
}

func (w *worker) settle(ctx context.Context, jobID int64, to router.JobState, reason string, d *rules.Decision) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := w.Store.Settle(ctx, jobID, to, reason, d, w.Now()); err != nil {
		return fmt.Errorf("settle job %d as %s: %w", jobID, to, err)
	}
	if d.Limit != nil {
		w.nudge() // another job may have its place now
	}
	return nil
}

// nudge makes feed look at the store soon.
func (w *worker) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// token returns a runner's claim token: the one of an earlier attempt that
// may have reached Nomad after all, else a new one.
func (w *worker) token(runnerID string) router.Secret {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t, ok := w.tokens[runnerID]; ok {
		delete(w.tokens, runnerID)
		return t
	}
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program first
	return router.Secret(base64.RawURLEncoding.EncodeToString(b[:]))
}

func (w *worker) keep(runnerID string, token router.Secret) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tokens) >= maxTokens { // those of jobs that were never tried again
		clear(w.tokens)
	}
	w.tokens[runnerID] = token
}

// starts marks a runner as being started, until hasStarted.
func (w *worker) starts(runnerID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started[runnerID] = false
}

func (w *worker) hasStarted(runnerID string) {
	w.mu.Lock()
	leftOver := w.started[runnerID]
	delete(w.started, runnerID)
	w.mu.Unlock()
	if leftOver {
		w.look(0)
	}
}

// beingStarted reports whether a runner that is left over is being started:
// leftovers looks again after that.
func (w *worker) beingStarted(runnerID string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.started[runnerID]
	if ok {
		w.started[runnerID] = true
	}
	return ok
}

func hash(token router.Secret) [32]byte { return sha256.Sum256([]byte(token)) }

// hostOf is the host of the instance that an ID is of; "" when it is not
// configured, or the GitHub is the only one and has no name.
func (w *worker) hostOf(id int64) string {
	for _, in := range w.GitHub.Instances() {
		if in.Number == router.InstanceOf(id) {
			return in.Host
		}
	}
	return ""
}

// instance finds one by its host; "" is the first.
func (w *worker) instance(host string) (in router.Instance, ok bool) {
	for _, in := range w.GitHub.Instances() {
		if in.Host == host || host == "" && in.Number == 0 {
			return in, true
		}
	}
	return router.Instance{}, host == ""
}
