package decide

import (
	"maps"
	"slices"
	"sync"

	"switchyard/router"
)

// InHand holds the jobs that this process works on, and their decisions. The zero value is
// empty. It is safe for concurrent use.
type InHand struct {
	mu   sync.Mutex
	jobs map[int64]*router.Decision // nil until decided
	gone map[int64]bool             // released since Read
}

// Clear removes all jobs. Nobody may work on any.
func (h *InHand) Clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.jobs, h.gone = nil, nil
}

// Read is called before the jobs are read that Take is then called for. It returns those
// that are in hand, which need not be read.
func (h *InHand) Read() []int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.gone)
	return slices.Collect(maps.Keys(h.jobs))
}

// Take adds a job as it was read; false when it is already there, or was since Read:
// it is not as it was read then.
func (h *InHand) Take(jobID int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, taken := h.jobs[jobID]; taken || h.gone[jobID] {
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
	if h.gone == nil {
		h.gone = map[int64]bool{}
	}
	h.gone[jobID] = true
}
