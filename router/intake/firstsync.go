package intake

import (
	"context"
	"sync"
	"time"
)

const firstWait = 5 * time.Second // for what an earlier database knew

// A FirstSync is the full sync that is due at the start when the database is new or too old.
// The zero value is not due. It is safe for concurrent use.
type FirstSync struct {
	mu       sync.Mutex
	settling bool          // until the first comparison with Nomad after the sync
	passed   chan struct{} // closed after the first comparison with Nomad; nil: nobody waits for that
	done     bool          // the sync is over, and the next comparison is the last to wait for
}

// Begin says that a full sync is due. With start, jobs wait for the first comparison with
// Nomad.
func (e *FirstSync) Begin(start bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settling, e.done = true, false
	if start {
		e.passed = make(chan struct{})
	}
}

// End says that the sync is over.
func (e *FirstSync) End() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done = true
}

// UnderWay reports whether the sync is due or under way.
func (e *FirstSync) UnderWay() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.settling && !e.done
}

// Settling reports whether runners may become known soon: until the first comparison with
// Nomad after the sync.
func (e *FirstSync) Settling() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.settling
}

// Compared says that the database was compared with Nomad.
func (e *FirstSync) Compared() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.passed != nil {
		select {
		case <-e.passed:
		default:
			close(e.passed)
		}
	}
	if e.done {
		e.settling = false
	}
}

// Wait waits for the first comparison, but only for a few seconds, because Nomad may be down.
func (e *FirstSync) Wait(ctx context.Context) {
	if e.passed == nil {
		return
	}
	select {
	case <-e.passed:
	case <-ctx.Done():
	case <-time.After(firstWait):
	}
}
