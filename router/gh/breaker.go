package gh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

// How long failing logins are kept back. A probe is one small request, so that a login is
// used again within seconds, and a GitHub that is down gets six requests a minute. A trial
// is a runner that is started on Nomad.
const (
	failuresInARow = 3           // that trip a breaker: single ones may be chance, as GitHub answers 5xx now and then
	firstProbe     = time.Second // doubled with each probe that fails
	lastProbe      = 10 * time.Second
	probeTimeout   = 5 * time.Second // GitHub answers the smallest request in less, or is down

	firstTrial   = time.Second      // of a login whose registrations fail, as above
	lastTrial    = time.Minute      // ten runners in ten minutes
	trialTime    = 15 * time.Second // until another runner is tried, if the first does not claim
	firstRefusal = 30 * time.Second // of a place whose registrations GitHub refuses: a person must act
	lastRefusal  = 90 * time.Second

	provenFor  = 10 * time.Second // how long a good answer counts
	unknownFor = time.Minute      // after a probe of a login that GitHub never answered, before the next: a claim will tell
	maxTrusted = 10               // runners started on trust, until GitHub has answered
	maxPlaces  = 10_000           // places whose refusals are remembered
)

// A breaker is a circuit breaker. It trips after some failures in a row, and resets
// when one try, after a growing wait, succeeds. The zero value has not tripped.
type breaker struct {
	// Some request had an answer, if only a 5xx. Without one, that GitHub cannot be
	// reached says little about the login: runners are then kept back only when
	// registrations fail.
	answered atomic.Bool

	mu       sync.Mutex
	failures int       // in a row
	since    time.Time // of the first of them
	cause    error     // what it said
	wait     time.Duration
	next     time.Time // of the next try; zero: it has not tripped
	trying   bool      // a probe is under way
	trial    bool      // a runner was let through, and nothing is known of it yet
	good     time.Time // the last good answer; zero: none yet
	unproven int       // runners started since
	unknown  time.Time // until then, whether GitHub answers is not asked
}

// passed records a good answer.
func (b *breaker) passed(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.wait, b.next, b.trial, b.cause = 0, 0, time.Time{}, false, nil
	b.good, b.unproven = now, 0
	b.answered.Store(true)
}

// hurry makes the next try due now.
func (b *breaker) hurry(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.next) {
		b.next = now
	}
}

// failed records a failure; the breaker trips after most in a row. Failures of
// requests that were under way when it tripped do not lengthen its wait.
func (b *breaker) failed(err error, most int, first, last time.Duration, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures == 0 {
		b.since, b.cause = now, err
	}
	b.failures++
	if b.failures < most || b.trying || now.Before(b.next) && !b.trial {
		return
	}
	b.trial = false
	b.delay(first, last, now)
}

func (b *breaker) delay(first, last time.Duration, now time.Time) {
	b.wait = min(max(2*b.wait, first), last)
	b.next = now.Add(b.wait)
}

// A failure is why a breaker has tripped.
type failure struct {
	at    time.Time // of the next try
	due   bool      // it is due
	since time.Time
	cause error
}

// error returns the error for a line of waiting runners, by what has failed.
func (f failure) error(line, what string) error {
	err := fmt.Errorf("%w (%s since %s)", f.cause, what, f.since.UTC().Format(time.RFC3339))
	return &router.RetryAtError{At: f.at, Line: line, Failing: true, Err: err}
}

// state returns the failure, and whether the breaker has tripped.
func (b *breaker) state(now time.Time) (f failure, tripped bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f = failure{b.next, !now.Before(b.next) && !b.trying, b.since, b.cause}
	if b.trying {
		f.at = now.Add(firstProbe)
	}
	return f, !b.next.IsZero()
}

// try takes the one try that is due; false when none is due, or another caller has it.
func (b *breaker) try(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next.IsZero() || now.Before(b.next) || b.trying {
		return false
	}
	b.trying = true
	return true
}

// tried ends a try. After one that failed, with err, the next one waits longer.
func (b *breaker) tried(err error, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	if err != nil {
		if b.failures == 0 { // others have succeeded since
			b.since, b.cause = now, err
		}
		b.failures++
		b.delay(firstProbe, lastProbe, now)
	}
}

// start lets one runner through, and no other for trialTime, when a try is due; false:
// not yet. A breaker that has not tripped lets all through.
func (b *breaker) start(now time.Time) (f failure, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.next) {
		return failure{at: b.next, since: b.since, cause: b.cause}, false
	}
	if !b.next.IsZero() {
		b.next, b.trial = now.Add(trialTime), true
	}
	return failure{}, true
}

// trust counts a runner that is started; false when so many were started since the
// last good answer that GitHub must be asked first.
func (b *breaker) trust(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.good.Add(provenFor)) || now.Before(b.unknown) {
		return true
	}
	b.unproven++
	return b.unproven <= maxTrusted
}

// leave stops callers from asking for a while whether GitHub answers.
func (b *breaker) leave(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unknown = now.Add(unknownFor)
}

// heard records a classified error in the session's breaker.
func (s *session) heard(sorted error, resp *github.Response, now time.Time) {
	code := status(resp)
	if code != 0 {
		s.calls.answered.Store(true)
	}
	switch {
	case errors.As(sorted, new(*router.RetryAtError)) && code == 0, errors.Is(sorted, context.Canceled):
		// GitHub was not asked, or the caller went away.
	case code == http.StatusUnauthorized, errors.As(sorted, new(*loginError)):
		s.calls.failed(sorted, 1, firstProbe, lastProbe, now)
	case code < http.StatusMultipleChoices || code >= http.StatusInternalServerError:
		s.calls.failed(sorted, failuresInARow, firstProbe, lastProbe, now)
	default:
		s.calls.passed(now)
	}
}

// failing returns the error for a login that is not used until at.
func (c *caller) failing(s *session, f failure) error {
	return f.error(c.Host()+" "+s.login, "GitHub has failed for "+s.login)
}

// reach returns nil unless the session's breaker has tripped. If a probe is due, one
// caller makes it, and it may reset the breaker. Otherwise reach fails with a
// *router.RetryAtError; for a claim it first waits some seconds for a reset.
func (c *caller) reach(ctx context.Context, s *session) error {
	for left := patience; ; {
		now := c.now()
		f, tripped := s.calls.state(now)
		if !tripped {
			return nil
		}
		if f.due && s.calls.try(now) {
			err := c.ping(ctx, s, c.timeout)
			if s.calls.tried(err, c.now()); err == nil {
				s.registers.hurry(c.now())
			}
			continue
		}
		if !router.IsForClaim(ctx) || !pause(ctx, max(f.at.Sub(now), inFlightPause), &left) {
			return c.failing(s, f)
		}
	}
}

// ping makes the smallest request of a session, even if the caller goes away. GitHub
// does not count it against a primary limit, and any answer is good:
// https://docs.github.com/en/rest/rate-limit/rate-limit (read 2026-11-29).
func (c *caller) ping(ctx context.Context, s *session, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(withAsked(context.WithoutCancel(ctx), asked{priority: claim}), timeout)
	defer cancel()
	if s.refresh != nil {
		if err := s.refresh(ctx); err != nil {
			return err
		}
	}
	var found map[string]any
	resp, err := send(ctx, s.api, http.MethodGet, s.probe, nil, &found)
	if err == nil {
		s.calls.passed(c.now())
		return nil
	}
	doing := "ask whether it answers"
	if s.app == nil && s.probe == "app" {
		_, err = c.app.sorted(err, resp, doing)
	} else {
		err = s.sorted(err, resp, call{doing: doing, mayBeGone: true}, c.now())
	}
	if errors.As(err, new(*loginError)) {
		return err
	}
	if code := status(resp); code >= http.StatusMultipleChoices && code < http.StatusInternalServerError && code != http.StatusUnauthorized {
		return nil // as an Enterprise Server without rate limits answers
	}
	return err
}

// prove asks GitHub once for all callers that start runners on trust.
func (c *caller) prove(ctx context.Context, s *session) error {
	if err := s.probing.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.probing.Release(1)
	if f, tripped := s.calls.state(c.now()); tripped {
		return c.failing(s, f)
	}
	if s.calls.trust(c.now()) {
		return nil
	}
	err := c.ping(ctx, s, probeTimeout)
	if err == nil || errors.As(err, new(*router.RetryAtError)) {
		return err
	}
	if !s.calls.answered.Load() {
		s.calls.leave(c.now())
		return nil
	}
	s.calls.failed(err, 1, firstProbe, lastProbe, c.now())
	f, tripped := s.calls.state(c.now())
	if !tripped { // another request has succeeded since
		return nil
	}
	return c.failing(s, f)
}

// A place is a target and runner group: GitHub may refuse the registrations of one
// group only.
type place struct {
	target
	group router.RunnerGroup
}

// places has the breakers of places whose registrations GitHub refused. The zero value
// is ready.
type places struct {
	mu sync.Mutex
	by map[place]*breaker
}

func (p *places) of(at place) *breaker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.by[at]
}

func (p *places) refused(at place, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil || len(p.by) >= maxPlaces {
		p.by = map[place]*breaker{}
	}
	if p.by[at] == nil {
		p.by[at] = &breaker{}
	}
	p.by[at].failed(err, 1, firstRefusal, lastRefusal, now)
}

func (p *places) passed(at place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.by, at)
}

// refusing returns the error for a place whose registrations GitHub refuses.
func (c *registrar) refusing(p place, f failure) error {
	return f.error(fmt.Sprint(c.Host(), " ", p), fmt.Sprintf("GitHub has refused the runners of %s", p.target))
}

// registeredIn records how a registration ended, and returns its error: an error that
// keeps others back says until when.
func (c *registrar) registeredIn(p place, err error) error {
	now, logins := c.now(), c.logins(p.target)
	failed := func() {
		for _, s := range logins {
			s.registers.failed(err, failuresInARow, firstTrial, lastTrial, now)
		}
	}
	var later *router.RetryAtError
	switch {
	case errors.As(err, &later): // GitHub was not asked
		if n := len(logins); later.Failing && n > 0 && !logins[n-1].calls.answered.Load() {
			failed() // Admit keeps no runner back before
		}
		return err
	case errors.Is(err, context.Canceled):
		return err
	case err == nil, errors.Is(err, router.ErrNameTaken):
		c.places.passed(p)
		if c.app != nil {
			c.app.session.registers.passed(now)
		}
		for _, s := range logins {
			s.registers.passed(now)
		}
		return err
	case errors.As(err, new(*router.GiveUpError)):
		return err // it is about the job
	case errors.As(err, new(*loginError)), errors.As(err, new(*oddRefusal)):
	case errors.As(err, new(*router.FixError)):
		c.places.refused(p, err, now)
	default:
		failed()
	}
	if held := c.held(p, false, now); errors.As(held, &later) {
		return &router.RetryAtError{At: later.At, Line: later.Line, Failing: true, Err: err}
	}
	return err
}

// held returns a *router.RetryAtError while no runner may be started in a place. own: a
// runner that brings its own registration.
func (c *registrar) held(p place, own bool, now time.Time) error {
	for _, s := range c.logins(p.target) {
		if f, tripped := s.calls.state(now); tripped && !f.due && s.calls.answered.Load() {
			return c.failing(s, f)
		}
		if f, tripped := s.registers.state(now); tripped && !f.due && !own {
			return c.failing(s, f)
		}
	}
	if b := c.places.of(p); b != nil && !own {
		if f, tripped := b.state(now); tripped && !f.due {
			return c.refusing(p, f)
		}
	}
	return nil
}

// logins returns the known sessions that a registration in t needs.
func (c *caller) logins(t target) []*session {
	s := c.known(t)
	switch {
	case c.app == nil && s == nil:
		return nil
	case c.app == nil:
		return []*session{s}
	case s == nil:
		return []*session{c.app.session}
	case !s.fresh(c.now()):
		return []*session{c.app.session, s}
	}
	return []*session{s}
}

// Admit implements router.GitHub.
func (c *registrar) Admit(ctx context.Context, a router.Admission) error {
	t, err := pathOf(a.Target)
	if err != nil {
		return &router.GiveUpError{Err: err}
	}
	p := place{t.lower(), a.Group}
	if c.app == nil {
		if _, err := c.tokenSession(); err != nil {
			return &router.RetryAtError{At: c.now().Add(lastProbe), Line: c.Host() + " no token", Failing: true, Err: err}
		}
	}
	logins := c.logins(t)
	for _, s := range logins {
		if err := c.reach(ctx, s); err != nil && s.calls.answered.Load() {
			return err
		}
	}
	if err := c.held(p, a.Own, c.now()); err != nil {
		return err
	}
	if !a.Own {
		if err := c.hasGroup(ctx, p); err != nil {
			return err
		}
	}
	// What is due is tried by this runner alone.
	now := c.now()
	for _, s := range logins {
		if f, ok := s.registers.start(now); !ok && !a.Own {
			return c.failing(s, f)
		}
	}
	if b := c.places.of(p); b != nil && !a.Own {
		if f, ok := b.start(now); !ok {
			return c.refusing(p, f)
		}
	}
	// After the breakers: a runner that has to wait for room for a moment only is started.
	if err := c.room(t); err != nil {
		return err
	}
	for _, s := range logins {
		if !s.calls.trust(now) {
			if err := c.prove(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}
