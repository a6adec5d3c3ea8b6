package decide

import (
	"sync"

	"switchyard/router"
)

// InHand holds the jobs that this process works on, and their decisions. The zero value is
// empty. It is safe for concurrent use.
type InHand struct {
	mu   sync.Mutex
	jobs map[int64]*router.Decision // nil until decided
}

// Take adds a job; false when it is already there.
func (h *InHand) Take(jobID int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, taken := h.jobs[jobID]; taken {
		return false
	}
	if h.jobs == nil {
		h.jobs = map[int64]*router.Decision{}
	}
	h.jobs[jobID] = nil
	return true
}

// Decided sets the decision of a job that was taken.
func (h *InHand) Decided(jobID int64, d *router.Decision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.jobs[jobID] = d
}

// Decision returns the decision of a job; nil when it has none yet, or is not in hand, as
// after the process that decided it ended.
func (h *InHand) Decision(jobID int64) *router.Decision {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.jobs[jobID]
}

// Release removes a job.
func (h *InHand) Release(jobID int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.jobs, jobID)
}
