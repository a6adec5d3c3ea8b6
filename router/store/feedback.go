package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"switchyard/router"
)

const (
	// Jobs whose notice is out of date, those that run or ended first.
	changedNoticesSQL = `
SELECT ` + jobColumns + `, said_kind, said_id, coalesce(rerun_state, ''), coalesce(rerun_said, '') FROM jobs
JOIN (SELECT job_id, kind AS said_kind, github_id AS said_id, state AS said_state, said FROM feedback WHERE due_at IS NOT NULL AND due_at <= ?1) AS f
	ON job_id = id
LEFT JOIN ` + rerunSaid + ` ON rerun_job = id
WHERE said_state <> state OR said <> reason
ORDER BY state NOT IN ('running', 'completed'), id LIMIT ?2`

	// Jobs that have no notice. One that is not decided may be somebody else's.
	newNoticesSQL = `
SELECT ` + jobColumns + `, '', 0, '', '' FROM jobs
WHERE sha <> '' AND decision IS NOT NULL AND received_at >= ?2
	AND (state IN ('held', 'queued', 'retrying', 'dispatched') AND received_at <= ?1 OR state IN ('denied', 'unroutable'))
	AND NOT EXISTS (SELECT 1 FROM feedback WHERE job_id = jobs.id)
ORDER BY id LIMIT ?3`

	// Jobs that are run again, likewise.
	rerunNoticesSQL = `
SELECT ` + jobColumns + `, '', 0, rerun_state, rerun_said FROM jobs JOIN ` + rerunSaid + ` ON rerun_job = id
WHERE sha <> '' AND received_at >= ?1 AND NOT EXISTS (SELECT 1 FROM feedback WHERE job_id = jobs.id)
ORDER BY id LIMIT ?2`

	rerunSaid = `(SELECT job_id AS rerun_job, state AS rerun_state, said AS rerun_said FROM reruns) AS r`
)

// NoticesDue implements feedback.Store.
func (s *noticeStore) NoticesDue(ctx context.Context, kind router.NoticeKind, after time.Duration, since, now time.Time, limit int) ([]router.DueNotice, error) {
	list, err := s.unsaid(ctx, true, changedNoticesSQL, millis(now), limit)
	if err == nil && kind != "" && len(list) < limit {
		var fresh []router.DueNotice
		fresh, err = s.unsaid(ctx, false, newNoticesSQL, millis(now.Add(-after)), millis(since), limit-len(list))
		if err == nil && len(list)+len(fresh) < limit {
			var again []router.DueNotice
			again, err = s.unsaid(ctx, false, rerunNoticesSQL, millis(since), limit-len(list)-len(fresh))
			fresh = append(fresh, again...)
		}
		for _, u := range fresh {
			u.Kind = kind
			list = append(list, u)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the jobs that need a notice: %w", err)
	}
	return list, nil
}

func (s *noticeStore) unsaid(ctx context.Context, begun bool, query string, args ...any) ([]router.DueNotice, error) {
	return all(s.querier(ctx), func(rows *sql.Rows, u *router.DueNotice) error {
		u.Begun = begun
		return scanJobAnd(rows, &u.Job, &u.Kind, &u.ID, &u.Rerun, &u.Said)
	}, query, args...)
}

// A trouble with no_job is that of a runner which was online.
const troubleOfSQL = `
SELECT cause, what FROM (
	SELECT iif(cause = 'no_job', 'online', cause) AS cause, what, since FROM troubles WHERE job_id = ?1
UNION ALL
	SELECT 'online', j.reason, r.state_at FROM runners r JOIN jobs j ON j.id = r.job_id AND j.try = r.try AND j.state = 'dispatched'
	WHERE r.job_id = ?1 AND r.ended_at = 0 AND r.state = 'online' AND r.state_at <= ?2
) AS t ORDER BY since DESC, cause LIMIT 1`

// TroubleOf implements feedback.Store.
func (s *noticeStore) TroubleOf(ctx context.Context, jobID int64, online time.Time) (cause router.Cause, reason string, err error) {
	err = s.querier(ctx)(into(&cause, &reason), troubleOfSQL, jobID, millis(online))
	if err != nil {
		return "", "", fmt.Errorf("read what keeps job %d from its runner: %w", jobID, err)
	}
	return cause, reason, nil
}

const noticeStartedSQL = `
INSERT INTO feedback (job_id, kind, github_id, state, said, due_at) VALUES (?1, ?2, 0, '', '', ?3)
ON CONFLICT (job_id) DO NOTHING`

// NoticeStarted implements feedback.Store.
func (s *noticeStore) NoticeStarted(ctx context.Context, jobID int64, kind router.NoticeKind, now time.Time) error {
	return s.exec(ctx, router.SourceRouter, noticeStartedSQL, jobID, kind, millis(now))
}

const (
	noticeSentSQL     = `UPDATE feedback SET github_id = ?2, state = ?3, said = ?4, due_at = ?5 WHERE job_id = ?1`
	noticeRejectedSQL = `UPDATE feedback SET due_at = ?2 WHERE job_id = ?1`
)

// NoticeSent implements feedback.Store.
func (s *noticeStore) NoticeSent(ctx context.Context, jobID, id int64, state router.JobState, reason string, again time.Time) error {
	return s.exec(ctx, router.SourceRouter, noticeSentSQL, jobID, id, state, reason, orNever(again))
}

// NoticeRejected implements feedback.Store.
func (s *noticeStore) NoticeRejected(ctx context.Context, jobID int64, again time.Time) error {
	return s.exec(ctx, router.SourceRouter, noticeRejectedSQL, jobID, orNever(again))
}

// orNever returns a time as it is stored in a due_at column: NULL for the zero time.
func orNever(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return millis(at)
}

const (
	runsToCancelSQL = `
SELECT ` + jobColumns + ` FROM jobs WHERE id IN (
	SELECT min(id) FROM jobs
	WHERE state = 'unroutable' AND cancelled_at = 0 AND updated_at BETWEEN ?2 AND ?1
		AND run_id NOT IN (SELECT run_id FROM jobs WHERE state = 'running')
	GROUP BY run_id)
ORDER BY id LIMIT ?3`

	runCancelledSQL = `
UPDATE jobs SET cancelled_at = ?4, updated_at = ?4, reason = reason || '; ' || ?5
WHERE run_id = ?3 AND owner = ?1 AND repo = ?2 AND state = 'unroutable' AND cancelled_at = 0`
)

const runNotCancelledSQL = `
UPDATE jobs SET cancelled_at = ?3, updated_at = ?3, reason = reason || '; ' || ?2
WHERE id = ?1 AND state = 'unroutable' AND cancelled_at = 0`

// RunNotCancelled implements feedback.Store.
func (s *noticeStore) RunNotCancelled(ctx context.Context, jobID int64, why string, now time.Time) error {
	return s.exec(ctx, router.SourceRouter, runNotCancelledSQL, jobID, why, millis(now))
}

// RunsToCancel implements feedback.Store.
func (s *noticeStore) RunsToCancel(ctx context.Context, old, since time.Time, limit int) ([]router.Job, error) {
	return list(s.querier(ctx), "read the jobs that nothing can serve", scanJob, runsToCancelSQL, millis(since), millis(old), limit)
}

// RunCancelled implements feedback.Store.
func (s *noticeStore) RunCancelled(ctx context.Context, repo router.Repo, runID int64, why string, now time.Time) error {
	return s.exec(ctx, router.SourceRouter, runCancelledSQL, repo.Owner, repo.Name, runID, millis(now), why)
}
