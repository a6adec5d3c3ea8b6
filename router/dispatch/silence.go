package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"switchyard/router"
)

const (
	probeTimeout = 10 * time.Second // of the one request at a time that a silent Nomad is sent
	silenceTick  = time.Second      // how often WatchNomad checks whether Nomad is silent
	longestProbe = 15 * time.Second // between two such requests; silenceTick at first, then doubled
)

// silence knows for how long Nomad has not answered requests for runners. Only a request
// that timed out counts as unanswered: a connection that is refused or cut fails at once
// and delays nobody. It uses the monotonic clock. The zero value is ready. It is safe for
// concurrent use.
type silence struct {
	mu    sync.Mutex
	asked map[*question]bool // without an answer yet
	last  time.Time          // when an answer came
	since time.Time          // when the first request was sent that timed out since then; zero: none did
}

// A question is a request for a runner.
type question struct{ at time.Time }

// begun returns since when Nomad has answered nothing; zero: it owes no answer. s.mu is held.
func (s *silence) begun() time.Time {
	first := s.since
	for q := range s.asked {
		if first.IsZero() || q.at.Before(first) {
			first = q.at
		}
	}
	if !first.IsZero() && first.Before(s.last) {
		first = s.last
	}
	return first
}

// length returns for how long Nomad has been silent; 0: it is not. idle means that no
// request is under way.
func (s *silence) length() (d time.Duration, idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := s.begun(); !first.IsZero() {
		d = time.Since(first)
	}
	if d < router.SilentAfter {
		d = 0
	}
	return d, len(s.asked) == 0
}

// err returns a *router.SilentError while Nomad is silent and a request is under way.
func (s *silence) err() error {
	if d, idle := s.length(); d > 0 && !idle {
		return &router.SilentError{For: d}
	}
	return nil
}

// ask sends Nomad a request for a runner, unless err says that it is silent.
func (s *silence) ask(ctx context.Context, do func(context.Context) error) error {
	q := &question{time.Now()}
	s.mu.Lock()
	if first := s.begun(); !first.IsZero() && q.at.Sub(first) >= router.SilentAfter {
		if len(s.asked) > 0 {
			s.mu.Unlock()
			return &router.SilentError{For: q.at.Sub(first)}
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, probeTimeout)
		defer cancel()
	}
	if s.asked == nil {
		s.asked = map[*question]bool{}
	}
	s.asked[q] = true
	s.mu.Unlock()
	err := do(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.asked, q)
	switch {
	case !timedOut(err):
		if !unasked(err) {
			s.last, s.since = time.Now(), time.Time{}
		}
	case !q.at.Before(s.last) && (s.since.IsZero() || q.at.Before(s.since)):
		s.since = q.at
	}
	return err
}

// forget ends the silence. Call it when nobody waits for an answer any longer.
func (s *silence) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Time{}
}

// timedOut reports whether a request failed because it timed out.
func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// err returns a *router.SilentError while the region is silent and a request is under way.
func (l *lane) err() error {
	err := l.silence.err()
	if silent, ok := errors.AsType[*router.SilentError](err); ok {
		silent.Region = l.region
	}
	return err
}

// A watch is what WatchNomad remembers of a region.
type watch struct {
	silent bool
	retry  []router.Cause // all jobs with these causes, at once
	pause  time.Duration
	next   time.Time
}

// WatchNomad takes care of the jobs that a silent Nomad keeps waiting, until ctx ends: they
// move to Retrying, and say why. While a region of Nomad is silent it is asked for one runner
// at a time; as soon as it answers, all those jobs are retried. Those that wait for a region
// that is away are retried in the same way.
func (di *Dispatcher) WatchNomad(ctx context.Context) error {
	first := []router.Cause{router.CauseNomad} // an earlier process may have parked some
	tick := time.NewTicker(silenceTick)
	defer tick.Stop()
	asked := time.Time{}
	var asking sync.WaitGroup
	defer asking.Wait()
	for {
		first = slices.DeleteFunc(first, func(c router.Cause) bool { return di.retryNow(ctx, router.AnyRegion, c, -1) >= 0 })
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		lanes := di.allLanes()
		for _, l := range lanes {
			if silent := di.watch(ctx, l, len(lanes) == 1); silent && time.Since(asked) >= longestProbe {
				asked = time.Now()
				asking.Go(func() { di.askGitHub(ctx) })
			}
		}
	}
}

// watch does the work of WatchNomad for a region, and reports whether that is silent.
func (di *Dispatcher) watch(ctx context.Context, l *lane, only bool) (silent bool) {
	w, log, of := &l.watch, di.Log, l.region
	if only {
		of = router.AnyRegion
	} else {
		log = di.Log.With("region", l.region)
	}
	d, idle := l.silence.length()
	switch {
	case d > 0:
		if !w.silent {
			w.silent, w.pause, w.next = true, silenceTick, time.Now()
			log.Error("nomad accepts requests but does not answer them, so jobs wait: check whether its servers are overloaded, or a proxy on the way to them", "silent_for", d)
		}
		di.postpone(ctx, l, d)
		if now := time.Now(); idle && !now.Before(w.next) {
			if di.retryNow(ctx, of, router.CauseSilent, 1) == 0 && di.retryNow(ctx, of, router.CauseNomad, 1) == 0 {
				l.silence.forget()
			}
			w.pause = min(2*w.pause, longestProbe)
			w.next = now.Add(w.pause)
		}
	case w.silent:
		w.silent = false
		log.Info("nomad answers again")
		w.retry = []router.Cause{router.CauseSilent, router.CauseNomad}
	case l.outage.back():
		log.Info("nomad takes jobs again")
		w.retry = append(w.retry, router.CauseNomad)
	case l.outage.probe():
		di.retryNow(ctx, of, router.CauseNomad, 1)
	}
	w.retry = slices.DeleteFunc(w.retry, func(c router.Cause) bool { return di.retryNow(ctx, router.AnyRegion, c, -1) >= 0 })
	return d > 0
}

// askGitHub asks each GitHub about its newest job that is retried while Nomad is silent: nothing
// else asks GitHub then, so nobody would know that it fails as well.
func (di *Dispatcher) askGitHub(ctx context.Context) {
	f := router.JobFilter{States: []router.JobState{router.Retrying}, Limit: 1}
	for more := true; more; more = f.Before > 0 {
		asking, cancel := context.WithTimeout(ctx, router.GitHubTimeout)
		jobs, err := di.Store.FindJobs(asking, f)
		f.Before = 0
		if err == nil && len(jobs) > 0 {
			f.Before = router.FirstID(jobs[0].ID)
			_, err = di.Intake.Ask(asking, jobs[0])
		}
		if err != nil && asking.Err() == nil {
			di.Log.Throttled(slog.LevelWarn, "", "github did not say whether a job still waits, while nomad does not answer", "err", err)
		}
		cancel()
	}
}

// postpone moves the jobs to Retrying that a silent Nomad has been asked for, or that wait
// for a sender.
func (di *Dispatcher) postpone(ctx context.Context, l *lane, silentFor time.Duration) {
	di.mu.Lock()
	var asked []sending
	for id, s := range di.sending {
		if s.region == l.region && time.Since(s.since) >= router.SilentAfter && !s.silent {
			s.silent = true
			di.sending[id] = s
			asked = append(asked, s)
		}
	}
	di.mu.Unlock()
	err := &router.SilentError{For: silentFor, Region: l.region}
	for _, s := range asked {
		if err := di.wait(ctx, s.job, s.decision, err); err != nil {
			di.pauseOnError(ctx, s.job.ID, err)
		}
	}
	for {
		select {
		case s, ok := <-l.decided:
			if !ok {
				return
			}
			di.pauseOnError(ctx, s.job.ID, di.wait(ctx, s.job, s.decision, err))
			di.release(s.job.ID)
		default:
			return
		}
	}
}

// retryNow has up to limit jobs of a region with this cause retried at once; -1: all of them. It
// returns how many, and -1 when the store fails or ctx ends.
func (di *Dispatcher) retryNow(ctx context.Context, region string, cause router.Cause, limit int) (n int) {
	all := limit < 0
	if all {
		limit = retryBatch
	}
	for now := di.Now(); ; {
		storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		some, err := di.Store.RetryNow(storeCtx, region, cause, limit, now)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				di.Log.Throttled(slog.LevelWarn, "", "cannot retry waiting jobs at once; each is retried when it is due", "err", err)
			}
			return -1
		}
		if some > 0 {
			di.Due.Give()
		}
		if n += some; !all || some < limit {
			return n
		}
	}
}
