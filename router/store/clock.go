package store

import (
	"context"
	"time"

	"switchyard/router"
)

const (
	rewindJobsSQL = `
UPDATE jobs SET
	due_at = iif(updated_at > ?1, min(due_at, ?1), due_at),
	fallback_at = iif(fallback_at > 0 AND dispatched_at > ?1, ?1 + fallback_at - dispatched_at, fallback_at),
	received_at = min(received_at, ?1), asked_at = min(asked_at, ?1), queued_at = min(queued_at, ?1),
	dispatched_at = min(dispatched_at, ?1), running_at = min(running_at, ?1), updated_at = min(updated_at, ?1)
WHERE state IN ('held', 'queued', 'retrying', 'dispatched', 'running')
	AND max(received_at, asked_at, queued_at, dispatched_at, running_at, updated_at) > ?1`

	rewindRunnersSQL = `
UPDATE runners SET
	state_at = min(state_at, ?1), placed_at = min(placed_at, ?1), ended_at = min(ended_at, ?1), updated_at = min(updated_at, ?1)
WHERE (ended_at = 0 OR state IN ('dispatched', 'claimed', 'online', 'busy') OR ended_at > ?1)
	AND max(state_at, placed_at, ended_at, updated_at) > ?1`

	rewindRedeliveriesSQL = `UPDATE redeliveries SET due_at = ?1 WHERE due_at > ?1`
	rewindFeedbackSQL     = `UPDATE feedback SET due_at = ?1 WHERE due_at > ?1`
	rewindOverflowsSQL    = `UPDATE overflows SET since = min(since, ?1), state_at = min(state_at, ?1) WHERE max(since, state_at) > ?1`
	rewindRerunsSQL       = `UPDATE reruns SET due_at = ?1 + 60000 WHERE due_at > ?1 + 60000` // an answer of GitHub may be on its way
)

// Rewind implements server.Store.
func (s *Store) Rewind(ctx context.Context, now time.Time) (n int, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (n int, err error) {
		for i, query := range []string{rewindJobsSQL, rewindRunnersSQL, rewindRedeliveriesSQL, rewindFeedbackSQL, rewindOverflowsSQL, rewindRerunsSQL} {
			rewound, err := t.exec(query, millis(now))
			if err != nil {
				return 0, err
			}
			if i < 2 { // jobs and runners
				n += int(rewound)
			}
		}
		return n, nil
	})
}
