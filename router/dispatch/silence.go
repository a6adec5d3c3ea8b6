package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"switchyard/router"
)

const (
	askSilent    = 10 * time.Second // for the one request at a time that a silent Nomad is asked
	silenceTick  = time.Second      // how often it is seen whether Nomad is silent
	longestProbe = 15 * time.Second // between two such requests; from silenceTick on, doubled
)

// silence knows for how long Nomad has not answered when it was asked for runners.
// Only a request that ran out of time is unanswered: a connection that is refused or
// cut says so at once, and costs nobody's time. It goes by the time that passes, not
// by the clock, which may be set. The zero value is ready. It is safe for concurrent use.
type silence struct {
	mu    sync.Mutex
	asked map[*question]bool // without an answer yet
	last  time.Time          // when an answer came
	since time.Time          // when the first of those that ran out of time since then was asked; zero: none did
}

// A question is that for a runner.
type question struct{ at time.Time }

// begun is since when nothing that Nomad was asked has been answered; zero: it
// owes no answer. s.mu is held.
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

// length is for how long Nomad has been silent; 0: it is not. Idle means that it is
// asked nothing at the moment.
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

// refuses is a *router.SilentError while Nomad is silent and owes an answer already.
func (s *silence) refuses() error {
	if d, idle := s.length(); d > 0 && !idle {
		return &router.SilentError{For: d}
	}
	return nil
}

// ask asks Nomad for a runner, unless it refuses.
func (s *silence) ask(ctx context.Context, do func(context.Context) error) error {
	q := &question{time.Now()}
	s.mu.Lock()
	if first := s.begun(); !first.IsZero() && q.at.Sub(first) >= router.SilentAfter {
		if len(s.asked) > 0 {
			s.mu.Unlock()
			return &router.SilentError{For: q.at.Sub(first)}
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askSilent)
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
	case !ranOut(err):
		if !errors.Is(err, context.Canceled) { // else whoever asked went away
			s.last, s.since = time.Now(), time.Time{}
		}
	case !q.at.Before(s.last) && (s.since.IsZero() || q.at.Before(s.since)):
		s.since = q.at
	}
	return err
}

// forget is for when nobody waits for an answer any more.
func (s *silence) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Time{}
}

// ranOut reports whether an error is that of a request which ran out of time.
func ranOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// WatchNomad sees to the jobs that a silent Nomad keeps waiting, until ctx ends: they
// are to be tried again later, and say why. While it is silent it is asked for one
// runner at a time; as soon as it answers, all of them are tried again.
func (di *Dispatcher) WatchNomad(ctx context.Context) error {
	tick := time.NewTicker(silenceTick)
	defer tick.Stop()
	silent, pause, next := false, silenceTick, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d, idle := di.silence.length()
		switch {
		case d > 0:
			if !silent {
				silent, pause, next = true, silenceTick, time.Now()
				di.Log.Error("nomad takes requests and does not answer: is it overloaded, or is something between that holds them up? jobs wait", "silent_for", d)
			}
			di.setAside(ctx, d)
			if now := time.Now(); idle && !now.Before(next) {
				if di.retryNow(ctx, router.CauseNomad, 1) == 0 {
					di.silence.forget()
				}
				pause = min(2*pause, longestProbe)
				next = now.Add(pause)
			}
		case silent:
			silent = false
			di.Log.Info("nomad answers again")
			di.retryNow(ctx, router.CauseNomad, -1)
		}
	}
}

// setAside has the jobs wait that a silent Nomad has been asked for, or that wait
// for a sender.
func (di *Dispatcher) setAside(ctx context.Context, silentFor time.Duration) {
	di.mu.Lock()
	var asked []sending
	for id, s := range di.sending {
		if time.Since(s.since) >= router.SilentAfter && !s.said {
			s.said = true
			di.sending[id] = s
			asked = append(asked, s)
		}
	}
	di.mu.Unlock()
	err := &router.SilentError{For: silentFor}
	for _, s := range asked {
		if err := di.wait(ctx, s.job, s.decision, err); err != nil {
			di.cannotWrite(ctx, s.job.ID, err)
		}
	}
	for {
		select {
		case s, ok := <-di.decided:
			if !ok {
				return
			}
			di.cannotWrite(ctx, s.job.ID, di.wait(ctx, s.job, s.decision, err))
			di.release(s.job.ID)
		default:
			return
		}
	}
}

// retryNow has up to limit jobs tried again at once that are Retrying for this
// cause; -1: all of them. It returns how many, -1 when the store does not say.
func (di *Dispatcher) retryNow(ctx context.Context, cause router.Cause, limit int) (n int) {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	n, err := di.Store.RetryNow(ctx, cause, limit, di.Now())
	if err != nil && ctx.Err() == nil {
		di.Log.Warn("cannot have jobs tried again at once; each is when it is due", "err", err)
		return -1
	}
	if n > 0 {
		di.Due.Give()
	}
	return n
}
