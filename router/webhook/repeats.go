package webhook

import "sync"

const (
	// Of the same signed bytes, so many are stored, as the store records: an App, an
	// organization and a repository may each have a webhook here.
	maxCopies = 4

	keptRepeats = 4096 // kept at least, of those that came last; twice as many at most
)

// repeats counts how often the same signed bytes were stored, so that somebody who saw a
// delivery once cannot get it stored and logged again and again. The zero value is ready;
// it is safe for concurrent use.
type repeats struct {
	mu          sync.Mutex
	now, before map[string]int // by digest; now becomes before when it is full
}

// count returns how often bytes with this digest were stored.
func (r *repeats) count(digest string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.now[digest], r.before[digest])
}

// stored counts one more.
func (r *repeats) stored(digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := max(r.now[digest], r.before[digest]) + 1
	if len(r.now) >= keptRepeats || r.now == nil {
		r.now, r.before = map[string]int{}, r.now
	}
	r.now[digest] = n
}
