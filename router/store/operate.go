package store

import (
	"context"
	"time"

	"switchyard/router"
)

const (
	// A try that has, or had, a Nomad job cannot be used again: its ID is taken.
	tryIsTaken = `EXISTS (SELECT 1 FROM runners r WHERE r.job_id = jobs.id AND r.try = jobs.try AND (r.state <> 'dispatched' OR r.nomad_job <> ''))`

	redecideSQL = `
UPDATE jobs SET state = 'queued', cause = 'queued', reason = ?2, due_at = ?3, updated_at = ?3, failures = 0, cancelled_at = 0,
	try = try + iif(` + tryIsTaken + `, 1, 0),
	limit_key = iif(state IN ('queued', 'retrying'), limit_key, ''),
	fit = iif(state IN ('queued', 'retrying'), fit, ''),
	fallback = iif(state IN ('queued', 'retrying'), fallback, 0),
	dispatched_at = iif(state IN ('queued', 'retrying'), dispatched_at, 0)
WHERE id = ?1 AND (state IN ('queued', 'retrying', 'ignored', 'denied', 'unroutable') OR state = 'held' AND limit_key <> '')`

	cancelSQL = `
UPDATE jobs SET state = 'denied', cause = '', reason = ?2, updated_at = ?3
WHERE id = ?1 AND state IN ('held', 'queued', 'retrying', 'dispatched', 'unroutable')`

	noteLiveSQL = `
UPDATE runners SET cause = '', reason = ?2, updated_at = ?3
WHERE id = ?1 AND state IN ('dispatched', 'claimed', 'online', 'busy')`
)

// Redecide implements dispatch.Store.
func (s *dispatchStore) Redecide(ctx context.Context, jobID int64, by router.Source, reason string, now time.Time) (done bool, err error) {
	return changed(ctx, s.db, by, func(t *tx) (bool, error) { return t.moveJob(jobID, redecideSQL, reason, millis(now)) })
}

// Cancel implements operate.Store. The place that the job had under a limit is
// another's.
func (s *dispatchStore) Cancel(ctx context.Context, jobID int64, reason string, now time.Time) (done bool, err error) {
	return changed(ctx, s.db, router.SourceOperator, func(t *tx) (bool, error) {
		waits, err := found(t, waitsForPlaceSQL, jobID) // and so has none to leave
		if err != nil {
			return false, err
		}
		done, err := t.moveJob(jobID, cancelSQL, reason, millis(now))
		if done && !waits {
			_, err = t.exec(releaseSQL, jobID, millis(now))
		}
		if done && err == nil {
			err = nextSibling(t, jobID, millis(now))
		}
		return done, err
	})
}

const waitsForPlaceSQL = `SELECT 1 FROM jobs WHERE id = ? AND state = 'held' AND limit_key <> ''`

// Note implements operate.Store.
func (s *dispatchStore) Note(ctx context.Context, runnerID, reason string, now time.Time) error {
	return s.writer.change(ctx, router.SourceOperator, func(t *tx) error {
		return t.moveRunner(runnerID, noteLiveSQL, reason, millis(now))
	})
}
