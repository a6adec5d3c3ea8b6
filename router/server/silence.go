package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

const (
	// silentAfter is for how long Nomad may leave everything that it is asked without
	// an answer, until it counts as silent. It answers in milliseconds, also with an
	// error; without a leader it takes 5.1 s for one (tried on v2.0.6-dev).
	silentAfter = 5 * time.Second

	askSilent    = 10 * time.Second // for the one request at a time that a silent Nomad is asked
	silenceTick  = time.Second      // how often the worker sees whether Nomad is silent
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
	if d < silentAfter {
		d = 0
	}
	return d, len(s.asked) == 0
}

// refuses is a *silentError while Nomad is silent and owes an answer already.
func (s *silence) refuses() error {
	if d, idle := s.length(); d > 0 && !idle {
		return &silentError{d}
	}
	return nil
}

// ask asks Nomad for a runner, unless it refuses.
func (s *silence) ask(ctx context.Context, do func(context.Context) error) error {
	q := &question{time.Now()}
	s.mu.Lock()
	if first := s.begun(); !first.IsZero() && q.at.Sub(first) >= silentAfter {
		if len(s.asked) > 0 {
			s.mu.Unlock()
			return &silentError{q.at.Sub(first)}
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

// silences sees to the jobs that a silent Nomad keeps waiting, until ctx ends: they
// are to be tried again later, and say why. While it is silent it is asked for one
// runner at a time; as soon as it answers, all of them are tried again.
func (w *worker) silences(ctx context.Context) error {
	tick := time.NewTicker(silenceTick)
	defer tick.Stop()
	silent, pause, next := false, silenceTick, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d, idle := w.silence.length()
		switch {
		case d > 0:
			if !silent {
				silent, pause, next = true, silenceTick, time.Now()
				w.Logger.Error("nomad takes requests and does not answer: is it overloaded, or is something between that holds them up? jobs wait", "silent_for", d)
			}
			w.setAside(ctx, d)
			if now := time.Now(); idle && !now.Before(next) {
				if w.hasten(ctx, router.SaysNomad, 1) == 0 {
					w.silence.forget()
				}
				pause = min(2*pause, longestProbe)
				next = now.Add(pause)
			}
		case silent:
			silent = false
			w.Logger.Info("nomad answers again")
			w.hasten(ctx, router.SaysNomad, -1)
		}
	}
}

// setAside has the jobs wait that a silent Nomad has been asked for, or that wait
// for a sender.
func (w *worker) setAside(ctx context.Context, silentFor time.Duration) {
	w.mu.Lock()
	var asked []sending
	for id, s := range w.sending {
		if time.Since(s.since) >= silentAfter && !s.said {
			s.said = true
			w.sending[id] = s
			asked = append(asked, s)
		}
	}
	w.mu.Unlock()
	err := &silentError{silentFor}
	for _, s := range asked {
		if err := w.wait(ctx, s.job, s.decision, err); err != nil {
			w.cannotWrite(ctx, s.job.ID, err)
		}
	}
	for {
		select {
		case s, ok := <-w.decided:
			if !ok {
				return
			}
			w.cannotWrite(ctx, s.job.ID, w.wait(ctx, s.job, s.decision, err))
			w.release(s.job.ID)
		default:
			return
		}
	}
}

// hasten has up to limit jobs tried again at once that are Retrying with a reason
// which begins so; -1: all of them. It returns how many, -1 when the store does not say.
func (w *worker) hasten(ctx context.Context, reason string, limit int) (n int) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	n, err := w.Store.Hasten(ctx, reason, limit, w.Now())
	if err != nil && ctx.Err() == nil {
		w.Logger.Warn("cannot have jobs tried again at once; each is when it is due", "err", err)
		return -1
	}
	if n > 0 {
		w.nudge()
	}
	return n
}

// A silentError says that Nomad was not asked, as it does not answer.
type silentError struct{ d time.Duration }

func (e *silentError) Error() string { return "it " + saysSilent(e.d) }

// saysSilent says for how long Nomad has been silent.
func saysSilent(d time.Duration) string { return "has not answered for " + coarse(d) }

// coarse is a duration in steps, so that a job's reason that has it changes, and the
// job's time line grows, ever less often.
func coarse(d time.Duration) string {
	step := silentAfter
	for _, more := range []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute} {
		if d >= more {
			step = more
		}
	}
	if d >= time.Hour {
		step = d.Truncate(time.Hour)
	}
	return rules.Duration(step).String()
}
