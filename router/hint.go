package router

import (
	"sync"
	"time"
)

// A Hint tells its receiver that there may be work. A hint that is given while
// another waits is dropped: a lost hint costs a tick, never a job. It is made by
// NewHint and safe for concurrent use.
type Hint chan struct{}

// NewHint returns a hint that has not been given.
func NewHint() Hint { return make(Hint, 1) }

// Give gives the hint.
func (h Hint) Give() {
	select {
	case h <- struct{}{}:
	default:
	}
}

// A TimeHint asks for a comparison with Nomad at a certain time. A hint that is given
// while another waits is dropped. It is made by make(TimeHint, 1) and safe for
// concurrent use.
type TimeHint chan time.Time

// At asks for a comparison at t.
func (h TimeHint) At(t time.Time) {
	select {
	case h <- t:
	default:
	}
}

const maxHintedJobs = 1000 // with more of them, a JobHint stands for all jobs

// A JobHint collects jobs whose runners may be left over. It is made by NewJobHint
// and safe for concurrent use.
type JobHint struct {
	C <-chan struct{} // receives when there is something to Take

	given Hint
	mu    sync.Mutex
	jobs  map[int64]bool
}

// NewJobHint returns a hint that names no job.
func NewJobHint() *JobHint {
	given := NewHint()
	return &JobHint{C: given, given: given, jobs: map[int64]bool{}}
}

// Of adds a job; 0 means all jobs.
func (h *JobHint) Of(jobID int64) {
	h.mu.Lock()
	if len(h.jobs) >= maxHintedJobs {
		jobID = 0
	}
	h.jobs[jobID] = true
	h.mu.Unlock()
	h.given.Give()
}

// Take returns the jobs that were added since the last call; 0 alone means all jobs.
func (h *JobHint) Take() (jobs []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.jobs {
		jobs = append(jobs, id)
	}
	if h.jobs[0] {
		jobs = []int64{0}
	}
	clear(h.jobs)
	return jobs
}
