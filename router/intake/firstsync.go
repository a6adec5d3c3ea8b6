package intake

import (
	"context"
	"sync"
	"time"
)

const firstWait = 5 * time.Second // for what an earlier database knew

// A FirstSync is the full sync that is due at the start, when the database is new
// or too old. The zero value is none. It is safe for concurrent use.
type FirstSync struct {
	mu      sync.Mutex
	looking bool
	passed  chan struct{} // closed after the first comparison with Nomad, if that is waited for; else nil
	done    bool          // the sync is over, and the next comparison is the last to wait for
}

// Begin is for when a full sync is due. At the start jobs wait for the first
// comparison with Nomad.
func (e *FirstSync) Begin(start bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looking, e.done = true, false
	if start {
		e.passed = make(chan struct{})
	}
}

// End is for when the sync is over.
func (e *FirstSync) End() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done = true
}

// UnderWay reports whether the sync goes on.
func (e *FirstSync) UnderWay() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.looking && !e.done
}

// Settling reports whether runners may become known soon: until the first
// comparison with Nomad after the sync.
func (e *FirstSync) Settling() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.looking
}

// Compared is for after each comparison with Nomad.
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
		e.looking = false
	}
}

// Wait returns after the first comparison, or when it is late: Nomad may be away.
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
