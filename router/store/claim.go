package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"switchyard/router"
)

const (
	hasTokenSQL = `SELECT 1 FROM claims WHERE token_hash = ?`

	claimantSQL = `
SELECT ` + runnerColumns + ` FROM runners WHERE id = (SELECT runner_id FROM claims WHERE token_hash = ?)`

	// A registration may still be on its way into the books when its runner
	// claims already, so Queued and Retrying count.
	needsSQL = `SELECT 1 FROM jobs WHERE id = ? AND try = ? AND state IN ('queued', 'retrying', 'dispatched')`

	runnerStateSQL = `UPDATE runners SET state = ?2, updated_at = ?3, reason = ?4 WHERE id = ?1`
)

// Claim implements router.Store. The job is the one that the runner is meant
// for at present.
func (s *Store) Claim(ctx context.Context, tokenHash [32]byte, now time.Time) (c router.Claimed, err error) {
	// Strangers can ask this as often as they like: it must not cost a write.
	var one int
	err = s.hasStmt.QueryRowContext(ctx, tokenHash[:]).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return c, router.ErrNotFound
	}
	if err != nil {
		return c, err
	}
	err = s.writer.change(ctx, router.SourceRunner, func(t *tx) error {
		err := t.query(func(rows *sql.Rows) error { return scanRunner(rows, &c.Runner) }, claimantSQL, tokenHash[:])
		if err != nil {
			return err
		}
		if c.Runner.ID == "" {
			return router.ErrNotFound // dropped by Dispatched since
		}
		if err := t.query(func(rows *sql.Rows) error { return scanJob(rows, &c.Job) }, jobSQL, c.Runner.JobID); err != nil {
			return err
		}
		if c.Runner.State != router.RunnerDispatched {
			return router.ErrClaimed
		}
		if c.Needed, err = found(t, needsSQL, c.Runner.JobID, c.Runner.Try); err != nil {
			return err
		}
		c.Runner.State, c.Runner.Reason = router.RunnerStopped, "it has started, and no job needs it"
		if c.Needed {
			c.Runner.State, c.Runner.Reason = router.RunnerClaimed, "it has started and asked for its configuration"
		}
		_, err = t.exec(runnerStateSQL, c.Runner.ID, c.Runner.State, millis(now), c.Runner.Reason)
		return err
	})
	if err != nil {
		c.Needed = false
	}
	return c, err
}

const (
	configuredSQL = `
UPDATE runners SET name = ?2, github_id = ?3, target = ?5, updated_at = ?4, reason = 'GitHub knows it as ' || ?2
WHERE id = ?1 RETURNING job_id, try`

	readyReasonSQL = `UPDATE jobs SET reason = ?3, updated_at = ?4 WHERE id = ?1 AND try = ?2 AND state = 'dispatched'`
)

// Configured implements router.Store.
func (s *Store) Configured(ctx context.Context, runnerID, name string, gitHubID int64, at router.Target, now time.Time) error {
	target, err := json.Marshal(at)
	if err != nil {
		return err
	}
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		var r router.Runner
		err := t.query(func(rows *sql.Rows) error { return rows.Scan(&r.JobID, &r.Try) },
			configuredSQL, runnerID, name, gitHubID, millis(now), string(target))
		if err != nil {
			return err
		}
		if r.JobID == 0 {
			return router.ErrNotFound
		}
		_, err = t.exec(readyReasonSQL, r.JobID, r.Try, fmt.Sprintf("its runner %s has started; GitHub has not given it the job yet", name), millis(now))
		return err
	})
}

const onlineSQL = `UPDATE runners SET state = 'online', updated_at = ?2, reason = 'it has its configuration and waits for a job' WHERE id = ?1 AND state = 'claimed'`

// Online implements router.Store.
func (s *Store) Online(ctx context.Context, runnerID string, now time.Time) error {
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		moved, err := t.exec(onlineSQL, runnerID, millis(now))
		if err != nil || moved > 0 {
			return err
		}
		return knownRunner(t, runnerID)
	})
}

// knownRunner is nil for a runner that is known, else ErrNotFound.
func knownRunner(t *tx, id string) error {
	ok, err := found(t, isRunnerSQL, id)
	if err == nil && !ok {
		err = router.ErrNotFound
	}
	return err
}

const (
	lostSQL = `
UPDATE runners SET state = 'lost', updated_at = ?2, reason = ?3
WHERE id = ?1 AND state IN ('dispatched', 'claimed', 'online') RETURNING job_id, try`

	tryAgainSQL = `
UPDATE jobs SET state = 'retrying', try = try + 1, failures = failures + 1, due_at = ?3, reason = ?4, updated_at = ?5
WHERE id = ?1 AND try = ?2 AND state IN ('queued', 'retrying', 'dispatched')`

	isRunnerSQL = `SELECT 1 FROM runners WHERE id = ?`

	claimedSQL = `SELECT id, github_id FROM runners WHERE state = 'claimed'`
)

// Lost implements router.Store. A runner that GitHub gave a job meanwhile, or
// that ended, is left as it is.
func (s *Store) Lost(ctx context.Context, runnerID string, at time.Time, reason string, now time.Time) (lost bool, err error) {
	err = s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		lost, err = lose(t, runnerID, at, reason, now)
		return err
	})
	return lost && err == nil, err
}

func lose(t *tx, runnerID string, at time.Time, reason string, now time.Time) (lost bool, err error) {
	var r router.Runner
	err = t.query(func(rows *sql.Rows) error { return rows.Scan(&r.JobID, &r.Try) }, lostSQL, runnerID, millis(now), reason)
	if err != nil {
		return false, err
	}
	if r.JobID == 0 {
		return false, knownRunner(t, runnerID)
	}
	_, err = t.exec(tryAgainSQL, r.JobID, r.Try, millis(at), reason, millis(now))
	return true, err
}

const (
	stoppedSQL = `
UPDATE runners SET state = 'stopped', updated_at = ?3, reason = ?4
WHERE id = ?1 AND state = ?2 AND state IN ('dispatched', 'claimed', 'online') RETURNING job_id, try`

	goOnSQL = `
UPDATE jobs SET state = 'retrying', try = try + 1, due_at = ?3, updated_at = ?3, reason = ?4
WHERE id = ?1 AND try = ?2 AND state IN ('queued', 'retrying', 'dispatched')`
)

// Stopped implements router.Store.
func (s *Store) Stopped(ctx context.Context, r router.Runner, reason string, now time.Time) (stopped bool, err error) {
	err = s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		var was router.Runner
		err := t.query(func(rows *sql.Rows) error {
			stopped = true
			return rows.Scan(&was.JobID, &was.Try)
		}, stoppedSQL, r.ID, r.State, millis(now), reason)
		if err != nil {
			return err
		}
		if !stopped {
			return knownRunner(t, r.ID)
		}
		_, err = t.exec(goOnSQL, was.JobID, was.Try, millis(now), "it gets a new runner, as "+r.ID+" was stopped: "+reason)
		return err
	})
	return stopped && err == nil, err
}

// Recover implements router.Store.
func (s *Store) Recover(ctx context.Context, now, doubt time.Time) (n int, err error) {
	err = s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		var claimed []router.Runner
		err := t.query(func(rows *sql.Rows) error {
			var r router.Runner
			err := rows.Scan(&r.ID, &r.GitHubID)
			claimed = append(claimed, r)
			return err
		}, claimedSQL)
		if err != nil {
			return err
		}
		n = len(claimed)
		for _, r := range claimed {
			at, reason := now, "the router ended while it configured the runner"
			if r.GitHubID != 0 {
				at, reason = doubt, "the router ended while it answered the runner, which may have started: it is given time to show itself"
			}
			if _, err := lose(t, r.ID, at, reason, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
