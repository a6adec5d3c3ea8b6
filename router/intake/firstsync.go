package intake

import (
	"context"
	"sync"
	"time"

	"switchyard/router"
)

const firstWait = 5 * time.Second // for Nomad's first listing

// A FirstSync is the full sync that is due at the start when the database is new or too old.
// Whether or not it is due, jobs wait for the first listing of Nomad, because the database
// may be a copy that lacks runners. It is made by NewFirstSync and safe for concurrent use.
type FirstSync struct {
	mu       sync.Mutex
	listed   chan struct{}     // closed when the runners on Nomad are known
	settling bool              // until the first comparison with Nomad after the sync
	jobs     []router.NomadJob // of Listed, if the sync is due
	done     bool              // the sync is over, and the next comparison is the last to wait for
}

// NewFirstSync returns a FirstSync that is not due.
func NewFirstSync() *FirstSync { return &FirstSync{listed: make(chan struct{})} }

// Restart makes it as NewFirstSync does: this process becomes the leader.
func (e *FirstSync) Restart() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listed, e.settling, e.jobs, e.done = make(chan struct{}), false, nil, false
}

// Show makes UnderWay and Settling say what the leader says, while another process leads.
func (e *FirstSync) Show(underWay, settling bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settling, e.done = settling, !underWay
}

// Begin says that a full sync is due.
func (e *FirstSync) Begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settling, e.done = true, false
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

// Listed says that those runners of a listing that the database lacks have been noted, so
// that no other is started for their jobs. It ends Wait.
func (e *FirstSync) Listed(jobs []router.NomadJob) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.listed:
	default:
		if e.settling {
			e.jobs = jobs
		}
		close(e.listed)
	}
}

// Jobs returns the listing of the first Listed, once, for which it waits a few seconds; nil:
// there is none.
func (e *FirstSync) Jobs(ctx context.Context) (jobs []router.NomadJob) {
	e.Wait(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	jobs, e.jobs = e.jobs, nil
	return jobs
}

// Compared says that the database was compared with Nomad.
func (e *FirstSync) Compared() {
	e.Listed(nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done {
		e.settling = false
	}
}

// Wait waits until the runners on Nomad are known, but only for a few seconds, because Nomad
// may be down.
func (e *FirstSync) Wait(ctx context.Context) {
	e.mu.Lock()
	listed := e.listed
	e.mu.Unlock()
	select {
	case <-listed:
	case <-ctx.Done():
	case <-time.After(firstWait):
	}
}
