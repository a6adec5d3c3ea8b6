package router

import (
	"errors"
	"sync"
	"time"

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
	last map[Target]time.Time // when the last one comes back
}

// place is at, or later when others come back before.
func (q *queues) place(t Target, at, now time.Time) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	for other, last := range q.last {
		if last.Before(now) {
			delete(q.last, other)
		}
	}
	if next := q.last[t].Add(comeback); next.After(at) {
		at = next
	}
	if q.last == nil {
		q.last = map[Target]time.Time{}
	}
	q.last[t] = at
	return at
}

// reset is for when the clock was set back.
func (q *queues) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = nil
}

// ready fails with a *RetryAtError when a runner for the job could not be
// registered on GitHub if it started now, or its GitHub is not configured. Those that register themselves cost
// GitHub nothing that it counts.
func (w *worker) ready(j Job, r rules.Runner) error {
	t, now := TargetOf(j.Repo, r), w.Now()
	err := w.GitHub.Ready(t)
	var fix *FixError
	if errors.As(err, &fix) {
		return &RetryAtError{At: now.Add(githubFixWait), Err: err}
	}
	var later *RetryAtError
	if r.Registration == "token" || !errors.As(err, &later) || later.At.Before(now.Add(soon)) {
		return nil // what else is wrong the claim says
	}
	return &RetryAtError{At: w.queues.place(t, later.At, now), Err: later.Err}
}
