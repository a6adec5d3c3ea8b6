package server

import (
	"errors"
	"switchyard/router"
	"time"
)

// The back-off of an outage: firstWait doubles with each failure in a row up
// to longestWait. fixWait is for faults that wait for a person.
const (
	firstWait   = 250 * time.Millisecond
	longestWait = 30 * time.Second
	fixWait     = 30 * time.Second
)

// A backoff decides when a failed attempt is made again.
type backoff struct {
	now  func() time.Time
	rand func() float64 // in [0,1)
}

// Retry is the one place that says whether an attempt that ended in err is
// made again, and when. failures is how many ended badly in a row before it.
// A GiveUpError is never retried (ok is false). A RetryAtError is retried at
// its time, whatever it wraps; everything else after a wait that grows, with up to half of it
// taken off at random, so that jobs which failed together do not all come back
// at once.
func (b backoff) Retry(err error, failures int) (at time.Time, ok bool) {
	var giveUp *router.GiveUpError
	var fix *router.FixError
	var retryAt *router.RetryAtError
	var silent *silentError
	wait := longestWait
	switch {
	case errors.As(err, &giveUp):
		return time.Time{}, false
	case errors.As(err, &retryAt):
		// Spread over a second: the limit is the same for every job that hit it.
		return retryAt.At.Add(time.Duration(b.rand() * float64(time.Second))), true
	case errors.As(err, &fix):
		wait = fixWait
	case errors.As(err, &silent): // all such jobs come back as soon as Nomad answers
	default:
		if failures < 7 { // 250 ms << 7 is past longestWait
			wait = firstWait << max(failures, 0)
		}
	}
	return b.now().Add(wait - time.Duration(b.rand()*float64(wait)/2)), true
}
