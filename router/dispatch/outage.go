package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"switchyard/router"
)

const (
	awayAfter  = 10 * time.Second // of nothing but failures
	allAtOnce  = time.Minute      // between two times that all of them are retried
	retryBatch = 500              // jobs made due in one transaction, which others wait for
)

// An outage knows whether Nomad is away: it fails all requests for runners at once, as it
// does when it is down or has no leader. Then it gets new jobs, and from time to time one of
// those that it has failed. It uses the monotonic clock. The zero value is ready. It is safe
// for concurrent use.
type outage struct {
	mu      sync.Mutex
	since   time.Time     // of the first failure after the last request that did not fail; zero: none
	job     int64         // that it failed then
	several bool          // it has failed others since
	probed  time.Time     // when one that waits was tried last
	pause   time.Duration // until the next one
	over    bool          // it was away, and those that wait are to be retried
	retried time.Time     // when that was done last
}

func (o *outage) away() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.isAway()
}

func (o *outage) isAway() bool { return o.several && time.Since(o.since) >= awayAfter }

// saw takes the error of a request for a job's runner; nil: Nomad took it.
func (o *outage) saw(jobID int64, err error) {
	if timedOut(err) || unasked(err) || errors.As(err, new(*router.SilentError)) {
		return // no answer
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !failing(err):
		o.over = o.over || o.isAway()
		o.since, o.several, o.pause = time.Time{}, false, 0
	case o.since.IsZero():
		o.since, o.job = time.Now(), jobID
	default:
		o.several = o.several || o.job != jobID
	}
}

// probe reports whether one of the jobs that wait is to be retried now.
func (o *outage) probe() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.isAway() || time.Since(o.probed) < o.pause {
		return false
	}
	o.probed, o.pause = time.Now(), min(max(2*o.pause, silenceTick), longestProbe)
	return true
}

// back reports whether all jobs that wait are to be retried now.
func (o *outage) back() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over || o.isAway() || time.Since(o.retried) < allAtOnce {
		return false
	}
	o.over, o.retried = false, time.Now()
	return true
}

// unasked reports whether Nomad may not have been asked: the caller went away, or the job's
// jobspec cannot be rendered.
func unasked(err error) bool {
	return errors.Is(err, context.Canceled) || errors.As(err, new(*router.FixError)) && errors.As(err, new(*router.JobspecError))
}

// failing reports whether an answer of Nomad's is a failure that may hit any job.
func failing(err error) bool {
	return err != nil && nomadCause(err) == router.CauseNomad && !errors.As(err, new(*router.GiveUpError)) && !errors.As(err, new(*router.RetryAtError))
}
