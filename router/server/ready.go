package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

const (
	// Between two jobs that come back after GitHub took no registrations: it
	// takes 180 a minute (900 points, of which each costs 5).
	comeback = time.Second / 3

	soon = 5 * time.Second // a claim waits for so long
)

// queues say when jobs come back for which GitHub took no registrations: one
// after the other, so that they are not refused all together again, with a
// runner on Nomad each. It is safe for concurrent use; the zero value is ready.
type queues struct {
	mu   sync.Mutex
	last map[string]time.Time // by RetryAtError.Line: when the last one comes back
}

// place is at, or later when others come back before.
func (q *queues) place(line string, at, now time.Time) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	for other, last := range q.last {
		if last.Before(now) {
			delete(q.last, other)
		}
	}
	if next := q.last[line].Add(comeback); next.After(at) {
		at = next
	}
	if q.last == nil {
		q.last = map[string]time.Time{}
	}
	q.last[line] = at
	return at
}

// reset is for when the clock was set back.
func (q *queues) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = nil
}

// ready fails with a *RetryAtError when a runner for the job could not be
// registered on GitHub if it started now, or its GitHub is not configured. Those
// that register themselves cost GitHub nothing that it counts.
func (w *worker) ready(ctx context.Context, j router.Job, r rules.Runner, own bool) error {
	t, now := router.TargetOf(j.Repo, r), w.Now()
	err := w.GitHub.Admit(ctx, router.Admission{Target: t, Group: r.Group, Own: own})
	var fix *router.FixError
	var later *router.RetryAtError
	switch {
	case errors.As(err, &later) && !later.Failing && (r.Registration == "token" || later.At.Before(now.Add(soon))):
		return nil
	case errors.As(err, &later):
		return &router.RetryAtError{At: w.queues.place(cmp.Or(later.Line, fmt.Sprint(t)), later.At, now), Failing: later.Failing, Err: later.Err}
	case errors.As(err, &fix):
		return &router.RetryAtError{At: now.Add(githubFixWait), Failing: true, Err: err}
	}
	return nil // what else is wrong the claim says
}

// retryAt says when what GitHub did not do is tried again, and whether: those that
// wait for the same come back one after the other.
func (w *worker) retryAt(err error, failures int) (at time.Time, ok bool) {
	var later *router.RetryAtError
	if errors.As(err, &later) && later.Line != "" {
		return w.queues.place(later.Line, later.At, w.Now()), true
	}
	at, ok = w.backoff().Retry(err, failures)
	var fix *router.FixError
	if ok && errors.As(err, &fix) {
		// Each attempt counts against GitHub's rate limit, or costs a Nomad job.
		at = at.Add(min(githubFixWait<<min(max(failures, 0), 4), longestFixWait))
	}
	return at, ok
}
