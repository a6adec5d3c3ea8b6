package router

import (
	"errors"
	"sync"
	"time"
)

const (
	firstWait = 250 * time.Millisecond // doubled with each failure in a row, up to LongestWait

	awayWait = 5 * time.Minute // of jobs that come back as soon as Nomad takes another

	longestFixWait = time.Minute // GitHubFixWait is doubled with each failure, up to this

	// Between two jobs that are retried after GitHub took no registrations: it takes 180
	// a minute (900 points, of which each costs 5).
	comeback = time.Second / 3
)

// LongestWait is the longest wait between two attempts during an outage, and the wait
// for a person who must fix something.
const LongestWait = 30 * time.Second

// GitHubFixWait is added when a person must act on what GitHub said.
const GitHubFixWait = 30 * time.Second

// A Backoff decides when a failed attempt is retried. It is safe for concurrent use,
// and must not be copied.
type Backoff struct {
	Now  func() time.Time // required
	Rand func() float64   // in [0,1); required

	mu   sync.Mutex
	last map[string]time.Time // by RetryAtError.Line: when the last attempt is retried
}

// Retry decides whether an attempt that failed with err is retried (ok), and when.
// Nothing else decides that. failures is how many attempts in a row failed before it. A
// GiveUpError is never retried. A RetryAtError is retried at its time, whatever it
// wraps. Everything else is retried after a growing wait, shortened by up to half at
// random, so that jobs which failed together do not all come back at once.
func (b *Backoff) Retry(err error, failures int) (at time.Time, ok bool) {
	var retryAt *RetryAtError
	wait := LongestWait
	switch {
	case errors.As(err, new(*GiveUpError)):
		return time.Time{}, false
	case errors.As(err, &retryAt):
		// Spread over a second: the limit is the same for every job that hit it.
		return retryAt.At.Add(time.Duration(b.Rand() * float64(time.Second))), true
	case errors.As(err, new(*FixError)): // a person must act
	case errors.As(err, new(*SilentError)): // all such jobs come back as soon as Nomad answers
	case errors.As(err, new(*AwayError)):
		wait = awayWait
	default:
		if failures < 7 { // 250 ms << 7 exceeds LongestWait
			wait = firstWait << max(failures, 0)
		}
	}
	return b.Now().Add(wait - time.Duration(b.Rand()*float64(wait)/2)), true
}

// RetryGitHub is Retry for an attempt that failed because of GitHub. Attempts that wait
// for the same Line are retried one after the other.
func (b *Backoff) RetryGitHub(err error, failures int) (at time.Time, ok bool) {
	if later, ok := errors.AsType[*RetryAtError](err); ok && later.Line != "" {
		return b.Place(later.Line, later.At, b.Now()), true
	}
	at, ok = b.Retry(err, failures)
	if ok && errors.As(err, new(*FixError)) {
		// Each attempt counts against GitHub's rate limit, or costs a Nomad job.
		at = at.Add(min(GitHubFixWait<<min(max(failures, 0), 4), longestFixWait))
	}
	return at, ok
}

// Place returns when an attempt is retried for which GitHub took no registration: at, or
// later if others of its line come before it. They are spread out so that they are
// not all refused again at once, each with a runner on Nomad.
func (b *Backoff) Place(line string, at, now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	for other, last := range b.last {
		if last.Before(now) {
			delete(b.last, other)
		}
	}
	if next := b.last[line].Add(comeback); next.After(at) {
		at = next
	}
	if b.last == nil {
		b.last = map[string]time.Time{}
	}
	b.last[line] = at
	return at
}

// ClockSetBack forgets the places in the lines. Call it when the clock was set back.
func (b *Backoff) ClockSetBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = nil
}
