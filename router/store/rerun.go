package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchyard/router"
)

const (
	rerunPause = 5 * time.Second // from the end of a job to the first look at its run
	rerunMark  = "; run again: " // in a job's reason, before what is said of its rerun
	maxRerun   = 400             // characters of that
)

const (
	// The job that failed with a runner that was lost, or had been.
	lostJobSQL = `
SELECT s.id, r.loss FROM runners r JOIN jobs s ON s.id = r.ended_job
WHERE r.id = ?1 AND r.loss <> '' AND r.state = 'finished' AND s.state = 'completed' AND s.conclusion = 'failure' AND s.completed_at > ?2
	AND NOT EXISTS (SELECT 1 FROM reruns WHERE job_id = s.id)`

	rerunsOfSQL = `SELECT count(*) FROM reruns WHERE run_id = ?1 AND name = ?2 AND (state <> 'dropped' OR asked_at <> 0)`

	insertRerunSQL = `
INSERT INTO reruns (job_id, run_id, name, loss, state, said, asked_at, tries, due_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, ?7)
ON CONFLICT (job_id) DO NOTHING`

	rerunReasonSQL = `UPDATE jobs SET reason = ?2, cause = 'runner_ended', updated_at = ?3 WHERE id = ?1 AND state = 'completed' AND reason <> ?2`

	// The run may have completed, as no other job of it is known to be left.
	rerunSoonerSQL = `
UPDATE reruns SET due_at = ?2 WHERE run_id = ?1 AND state = 'waits' AND due_at > ?2
	AND NOT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_state WHERE run_id = ?1 AND state IN ('held', 'queued', 'retrying', 'dispatched', 'running'))`
)

// wantRerun records that the job which failed with a runner is run again, if its rule wants
// that for what became of the runner, and it failed after since.
func wantRerun(t *tx, runnerID string, since, now time.Time) error {
	var jobID int64
	var loss router.Loss
	err := t.query(into(&jobID, &loss), lostJobSQL, runnerID, millis(since))
	if err != nil || jobID == 0 {
		return err
	}
	var j router.Job
	err = one(t.query, scanJob, &j, jobSQL, jobID)
	if err != nil || j.Decision == nil || j.Decision.Rerun == nil || !slices.Contains(j.Decision.Rerun.When, string(loss)) {
		return err
	}
	before, times := 0, j.Decision.Rerun.Times
	if err := t.query(into(&before), rerunsOfSQL, j.RunID, j.Name); err != nil {
		return err
	}
	state, said, due := router.RerunWaits, "waits for its run to complete, as "+loss.Words(), any(millis(now.Add(rerunPause)))
	if before >= times {
		state, said, due = router.RerunDropped, fmt.Sprintf("no, as it was before, and its rule allows %d", times), nil
	}
	if _, err := t.exec(insertRerunSQL, j.ID, j.RunID, j.Name, loss, state, said, due); err != nil {
		return fmt.Errorf("record that job %d is run again: %w", j.ID, err)
	}
	return sayRerun(t, j.ID, said, now)
}

const dueRerunsSQL = `
SELECT ` + jobColumns + `, loss, rerun_state, rerun_asked, tries FROM jobs
JOIN (SELECT job_id, loss, state AS rerun_state, asked_at AS rerun_asked, tries, due_at AS rerun_due
	FROM reruns WHERE due_at IS NOT NULL AND due_at <= ?1 ORDER BY due_at, job_id LIMIT ?2) AS f ON job_id = id
ORDER BY rerun_due, id`

// RerunsDue implements rerun.Store.
func (s *rerunStore) RerunsDue(ctx context.Context, now time.Time, limit int) ([]router.Rerun, error) {
	return list(s.querier(ctx), "read the jobs to run again", func(rows *sql.Rows, r *router.Rerun) error {
		var asked int64
		err := scanJobAnd(rows, &r.Job, &r.Loss, &r.State, &asked, &r.Tries)
		r.Asked = fromMillis(asked)
		return err
	}, dueRerunsSQL, millis(now), limit)
}

const setRerunSQL = `
UPDATE reruns SET state = ?2, said = ?3, due_at = ?4, tries = tries + 1, asked_at = iif(?5 > 0, ?5, asked_at)
WHERE job_id = ?1 AND state IN ('waits', 'asked') RETURNING job_id, tries`

// AskRerun implements rerun.Store.
func (s *rerunStore) AskRerun(ctx context.Context, jobID int64, said string, again, now time.Time) (ok bool, err error) {
	return s.setRerun(ctx, jobID, router.RerunAsked, said, millis(again), millis(now), now)
}

// SetRerun implements rerun.Store.
func (s *rerunStore) SetRerun(ctx context.Context, jobID int64, to router.RerunState, said string, again, now time.Time) error {
	_, err := s.setRerun(ctx, jobID, to, said, orNever(again), 0, now)
	return err
}

func (s *rerunStore) setRerun(ctx context.Context, jobID int64, to router.RerunState, said string, due any, asked int64, now time.Time) (ok bool, err error) {
	said = router.Shorten(said, maxRerun)
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		var id int64
		var tries int
		if err := t.query(into(&id, &tries), setRerunSQL, jobID, to, said, due, asked); err != nil || id == 0 {
			return false, err
		}
		return true, sayRerun(t, jobID, said, now)
	})
}

// sayRerun says in the reason of a job what becomes of its rerun. Its notice is due then.
func sayRerun(t *tx, jobID int64, said string, now time.Time) error {
	var reason string
	if err := t.query(into(&reason), `SELECT reason FROM jobs WHERE id = ?`, jobID); err != nil {
		return err
	}
	reason, _, _ = strings.Cut(reason, rerunMark)
	if _, err := t.exec(rerunReasonSQL, jobID, reason+rerunMark+said, millis(now)); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE feedback SET due_at = ?2 WHERE job_id = ?1 AND due_at IS NULL`, jobID, millis(now))
	return err
}
