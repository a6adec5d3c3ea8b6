package dispatch

import (
	"sync"

	"switchyard/router"
)

const maxTokens = 10_000 // remembered

// tokens keeps the claim tokens of attempts that failed, by runner ID. They are used again,
// so that hashes do not pile up. It is safe for concurrent use.
type tokens struct {
	mu sync.Mutex
	of map[string]router.Secret
}

func (t *tokens) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of = map[string]router.Secret{}
}

// take returns a claim token for a runner: that of an earlier attempt, which may have
// reached Nomad after all, else a new one.
func (t *tokens) take(runnerID string) router.Secret {
	t.mu.Lock()
	defer t.mu.Unlock()
	if token, ok := t.of[runnerID]; ok {
		delete(t.of, runnerID)
		return token
	}
	return router.NewClaimToken()
}

// keep keeps the token of an attempt that failed.
func (t *tokens) keep(runnerID string, token router.Secret) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.of) >= maxTokens { // those of jobs that were never tried again
		clear(t.of)
	}
	t.of[runnerID] = token
}
