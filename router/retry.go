package router

import (
	"errors"
	"sync"
	"time"
)

// The back-off of an outage: firstWait doubles with each failure in a row up
// to longestWait. fixWait is for faults that wait for a person.
const (
	firstWait   = 250 * time.Millisecond
	longestWait = 30 * time.Second
	fixWait     = 30 * time.Second

	longestFixWait = 5 * time.Minute // the longest GitHubFixWait, doubled with each failure

	// Between two jobs that come back after GitHub took no registrations: it
	// takes 180 a minute (900 points, of which each costs 5).
	comeback = time.Second / 3
)

// LongestWait is the longest that a Backoff has an outage's attempts wait.
const LongestWait = longestWait

// GitHubFixWait is on top of the back-off, when a person must act on what GitHub said.
const GitHubFixWait = 2 * time.Minute

// A Backoff decides when a failed attempt is made again. The zero value lacks Now
// and Rand. It is safe for concurrent use, and not to be copied.
type Backoff struct {
	Now  func() time.Time // required
	Rand func() float64   // in [0,1); required

	mu   sync.Mutex
	last map[string]time.Time // by RetryAtError.Line: when the last one comes back
}

// Retry is the one place that says whether an attempt that ended in err is
// made again, and when. failures is how many ended badly in a row before it.
// A GiveUpError is never retried (ok is false). A RetryAtError is retried at
// its time, whatever it wraps; everything else after a wait that grows, with up to half of it
// taken off at random, so that jobs which failed together do not all come back
// at once.
func (b *Backoff) Retry(err error, failures int) (at time.Time, ok bool) {
	var giveUp *GiveUpError
	var fix *FixError
	var retryAt *RetryAtError
	var silent *SilentError
	wait := longestWait
	switch {
	case errors.As(err, &giveUp):
		return time.Time{}, false
	case errors.As(err, &retryAt):
		// Spread over a second: the limit is the same for every job that hit it.
		return retryAt.At.Add(time.Duration(b.Rand() * float64(time.Second))), true
	case errors.As(err, &fix):
		wait = fixWait
	case errors.As(err, &silent): // all such jobs come back as soon as Nomad answers
	default:
		if failures < 7 { // 250 ms << 7 is past longestWait
			wait = firstWait << max(failures, 0)
		}
	}
	return b.Now().Add(wait - time.Duration(b.Rand()*float64(wait)/2)), true
}

// RetryGitHub says when what GitHub did not do is tried again, and whether: those that
// wait for the same come back one after the other.
func (b *Backoff) RetryGitHub(err error, failures int) (at time.Time, ok bool) {
	if later, ok := errors.AsType[*RetryAtError](err); ok && later.Line != "" {
		return b.Place(later.Line, later.At, b.Now()), true
	}
	at, ok = b.Retry(err, failures)
	var fix *FixError
	if ok && errors.As(err, &fix) {
		// Each attempt counts against GitHub's rate limit, or costs a Nomad job.
		at = at.Add(min(GitHubFixWait<<min(max(failures, 0), 4), longestFixWait))
	}
	return at, ok
}

// Place returns when the next of those comes back for which GitHub took no
// registrations: at, or later when others of its line come back before. They come one after the
// other, so that they are not refused all together again, with a runner on Nomad each.
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

// ClockSetBack is for when the clock was set back.
func (b *Backoff) ClockSetBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = nil
}
