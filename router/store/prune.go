package store

import (
	"context"
	"database/sql"
	"time"

	"switchyard/router"
)

const (
	pruneRows = 100 // about, in one transaction: what waits for it waits some milliseconds
	pruneJobs = 20  // looked at in one
)

const (
	prunableSQL = `
SELECT id FROM jobs INDEXED BY jobs_completed
WHERE state IN ('completed', 'ignored', 'denied', 'unroutable')` + prunable

	prunableForeignSQL = `
SELECT id FROM jobs INDEXED BY jobs_foreign
WHERE state IN ('ignored', 'denied')` + prunable

	prunable = ` AND updated_at < ?1
	AND NOT EXISTS (SELECT 1 FROM runners r WHERE r.job_id = jobs.id
		AND (r.state IN ('dispatched', 'claimed', 'online', 'busy') OR r.ended_at = 0 AND r.nomad_job <> '' AND jobs.updated_at >= ?3))
ORDER BY updated_at LIMIT ?2`

	pruneEventsSQL = `DELETE FROM events WHERE id IN (SELECT id FROM events WHERE job_id = ?1 LIMIT ?2)`

	pruneRunnerEventsSQL = `
DELETE FROM events WHERE id IN (
	SELECT e.id FROM runners r JOIN events e ON e.runner_id = r.id WHERE r.job_id = ?1 LIMIT ?2)`

	pruneClaimsSQL = `DELETE FROM claims WHERE runner_id IN (SELECT id FROM runners WHERE job_id = ?1)`

	pruneVerificationsSQL = `DELETE FROM verifications WHERE runner_id IN (SELECT id FROM runners WHERE job_id = ?1)`

	pruneRunnersSQL = `DELETE FROM runners WHERE job_id = ?1`

	pruneFeedbackSQL = `DELETE FROM feedback WHERE job_id = ?1`

	pruneRerunSQL = `DELETE FROM reruns WHERE job_id = ?1`

	pruneJobSQL = `DELETE FROM jobs WHERE id = ?1`

	pruneAuditSQL = `DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 ORDER BY id LIMIT ?2)`

	pruneCrowdsSQL = `DELETE FROM crowds WHERE key IN (SELECT key FROM crowds WHERE updated_at < ?1 LIMIT ?2)`

	pruneDeliveriesSQL = `DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE received_at < ?1 LIMIT ?2)`
)

const anyPrunableSQL = `SELECT EXISTS (` + prunableSQL + `) OR EXISTS (SELECT 1 FROM deliveries WHERE received_at < ?4) OR EXISTS (SELECT 1 FROM audit WHERE at < ?1) OR EXISTS (SELECT 1 FROM crowds WHERE updated_at < ?1)
	OR EXISTS (SELECT 1 FROM warm WHERE ended_at <> 0 AND ended_at < ?1 AND state IN ('taken', 'ended'))`

const anyForeignSQL = `SELECT EXISTS (` + prunableForeignSQL + `)`

// Prune implements server.Store.
func (s *Store) Prune(ctx context.Context, ended, foreign, unseen, delivered time.Time) (rows int, err error) {
	// Mostly there is nothing to do, which must not cost a write.
	var some bool
	if err := s.querier(ctx)(into(&some), anyPrunableSQL, millis(ended), 1, millis(unseen), millis(delivered)); err != nil {
		return 0, err
	}
	if !some {
		if err := s.querier(ctx)(into(&some), anyForeignSQL, millis(foreign), 1, millis(unseen)); err != nil || !some {
			return 0, err
		}
	}
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (rows int, err error) {
		scan := func(rows *sql.Rows, id *int64) error { return rows.Scan(id) }
		jobs, err := all(t.query, scan, prunableForeignSQL, millis(foreign), pruneJobs, millis(unseen))
		if err == nil && len(jobs) == 0 {
			jobs, err = all(t.query, scan, prunableSQL, millis(ended), pruneJobs, millis(unseen))
		}
		if err != nil {
			return 0, err
		}
		// A job goes last, and only when all of it is gone: a step may end anywhere.
		for _, id := range jobs {
			for _, query := range []string{pruneEventsSQL, pruneRunnerEventsSQL} {
				n, err := t.exec(query, id, pruneRows-rows)
				if rows += int(n); err != nil || rows >= pruneRows {
					return rows, err
				}
			}
			for _, query := range []string{pruneClaimsSQL, pruneVerificationsSQL, pruneRunnersSQL, pruneFeedbackSQL, pruneRerunSQL, pruneJobSQL} {
				n, err := t.exec(query, id)
				if rows += int(n); err != nil {
					return 0, err
				}
			}
			if rows >= pruneRows {
				return rows, nil
			}
		}
		for query, before := range map[string]time.Time{pruneDeliveriesSQL: delivered, pruneAuditSQL: ended, pruneCrowdsSQL: ended, pruneWarmSQL: ended} {
			n, err := t.exec(query, millis(before), pruneRows-rows)
			if rows += int(n); err != nil {
				return 0, err
			}
		}
		return rows, nil
	})
}
