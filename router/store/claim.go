package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"switchyard/router"
)

// waits is the condition for a job that needs a runner and that none has taken. A
// runner may claim before its registration is recorded, so Queued and Retrying count.
const waits = `state IN ('queued', 'retrying', 'dispatched')`

const (
	claimantSQL = `
SELECT ` + runnerColumns + ` FROM runners WHERE id = (SELECT runner_id FROM claims WHERE token_hash = ?)`

	needsSQL = `SELECT 1 FROM jobs WHERE id = ? AND try = ? AND ` + waits

	// A job is Dispatched only while its try has a runner.
	withoutRunnerSQL = `
SELECT id, try, '', 0 FROM jobs INDEXED BY jobs_fit
WHERE fit = ?1 AND fit <> '' AND state IN ('queued', 'retrying')
	AND NOT EXISTS (SELECT 1 FROM runners q WHERE q.job_id = jobs.id AND q.try = jobs.try)
ORDER BY received_at, id LIMIT 1`

	withoutClaimSQL = `
SELECT j.id, j.try, q.id, q.try FROM jobs j INDEXED BY jobs_fit JOIN runners q ON q.job_id = j.id AND q.try = j.try
WHERE j.fit = ?1 AND j.fit <> '' AND j.` + waits + ` AND q.state = 'dispatched'
ORDER BY q.placed_at > 0, j.received_at, j.id LIMIT 1`

	// A runner that claims is followed like any other, whatever its rule says.
	claimRunnerSQL = `
UPDATE runners SET state = ?2, updated_at = ?3, cause = iif(ended_at = 0, '', cause), reason = iif(ended_at = 0, ?4, reason), own = false
WHERE id = ?1 AND state = 'dispatched'`
)

// A place is a job that a runner may serve, and the runner that would have to make room.
type place struct {
	jobID int64 // 0: there is none
	try   int
	other router.Runner // ID and Try; "" when nobody has the place
}

// needs returns the place of the job that a starting runner is to serve: its own
// job if that waits, else the oldest of equal fit, those without a runner before
// those whose runner has not claimed yet.
func needs(q querier, r router.Runner) (p place, err error) {
	own := false
	err = q(func(*sql.Rows) error { own = true; return nil }, needsSQL, r.JobID, r.Try)
	if err != nil || own {
		return place{jobID: r.JobID, try: r.Try}, err
	}
	for _, query := range []string{withoutRunnerSQL, withoutClaimSQL} {
		if p.jobID == 0 && err == nil {
			err = q(p.scan, query, r.Fit)
		}
	}
	return p, err
}

func (p *place) scan(rows *sql.Rows) error {
	return rows.Scan(&p.jobID, &p.try, &p.other.ID, &p.other.Try)
}

// Claimant implements claim.Store. It writes nothing, as anybody may call it as
// often as they like.
func (s *claimStore) Claimant(ctx context.Context, tokenHash [32]byte) (c router.Claimed, err error) {
	if c, _, err = claimant(s.querier(ctx), tokenHash); err != nil {
		return c, fmt.Errorf("read the holder of a claim token: %w", err)
	}
	return c, nil
}

// claimant returns the holder of a token, its job, and the place that it would
// have. It fails with ErrNotFound, or with ErrClaimed and the runner and its job.
func claimant(q querier, tokenHash [32]byte) (c router.Claimed, p place, err error) {
	err = one(q, scanRunner, &c.Runner, claimantSQL, tokenHash[:])
	if err == nil && c.Runner.ID == "" {
		err = router.ErrNotFound
	}
	if err != nil {
		return c, p, err
	}
	used := c.Runner.State != router.RunnerDispatched
	jobID := c.Runner.JobID
	if !used {
		if p, err = needs(q, c.Runner); err != nil {
			return c, p, err
		}
		if c.Needed = p.jobID != 0; c.Needed {
			jobID = p.jobID
		}
	}
	err = one(q, scanJob, &c.Job, jobSQL, jobID)
	if err == nil && used {
		err = router.ErrClaimed
	}
	return c, p, err
}

// Claim implements claim.Store.
func (s *claimStore) Claim(ctx context.Context, tokenHash [32]byte, now time.Time) (c router.Claimed, err error) {
	err = s.writer.change(ctx, router.SourceRunner, func(t *tx) error {
		var p place
		var err error
		if c, p, err = claimant(t.query, tokenHash); err != nil {
			return err
		}
		c.Runner.State, c.Runner.Reason = router.RunnerStopped, "it has started, and no job needs it"
		if c.Needed {
			c.Runner.State, c.Runner.Reason = router.RunnerClaimed, "it has started and asked for its configuration"
			if p.jobID != c.Runner.JobID {
				c.Runner.Reason += fmt.Sprintf(", for job %d, as job %d needs no runner", p.jobID, c.Runner.JobID)
				if err := bind(t, &c.Runner, p, now); err != nil {
					return err
				}
				if err := one(t.query, scanJob, &c.Job, jobSQL, p.jobID); err != nil {
					return err
				}
			}
		}
		if _, err = t.exec(claimRunnerSQL, c.Runner.ID, c.Runner.State, millis(now), c.Runner.Reason); err != nil || !c.Needed {
			return err
		}
		n, err := t.exec(startingSQL, p.jobID, p.try)
		if n > 0 {
			c.Job.Cause = router.CauseStarting
		}
		return err
	})
	if err != nil {
		c.Needed = false
	}
	return c, err
}

const (
	bindSQL = `UPDATE runners SET job_id = ?2, try = ?3 WHERE id = ?1`

	jobBoundSQL = `
UPDATE jobs SET state = 'dispatched', cause = ` + causeOfRunner + `, reason = ?3, updated_at = ?4, dispatched_at = iif(dispatched_at = 0, ?4, dispatched_at)
WHERE id = ?1 AND try = ?2 AND ` + waits

	// The job may wait again one day, and the ID of its next runner must be free then.
	vacateSQL = `UPDATE jobs SET try = try + 1 WHERE id = ?1 AND try = ?2 AND state IN ('held', 'denied', 'unroutable')`
)

// bind moves runner r to another place, where it serves another job. A runner that
// has that place is left over: it gets r's, for which no job waits.
func bind(t *tx, r *router.Runner, p place, now time.Time) error {
	reason := fmt.Sprintf("runner %s serves it, which job %d no longer needs", r.ID, r.JobID)
	if err := swap(t, *r, p); err != nil {
		return err
	}
	if _, err := t.exec(vacateSQL, r.JobID, r.Try); err != nil {
		return err
	}
	r.JobID, r.Try = p.jobID, p.try
	_, err := t.exec(jobBoundSQL, p.jobID, p.try, reason, millis(now))
	return err
}

// swap gives r the place p, and its own place to the runner that has p, if any.
func swap(t *tx, r router.Runner, p place) error {
	moves := []router.Runner{
		{ID: r.ID, JobID: p.jobID, Try: -p.try}, // out of the way: (job_id, try) is unique
		{ID: p.other.ID, JobID: r.JobID, Try: r.Try},
		{ID: r.ID, JobID: p.jobID, Try: p.try},
	}
	if p.other.ID == "" {
		moves = moves[2:]
	}
	for _, b := range moves {
		if _, err := t.exec(bindSQL, b.ID, b.JobID, b.Try); err != nil {
			return err
		}
	}
	return nil
}

// leftover is the condition for a runner that may be starting or idle and that no
// job waits for.
const leftover = `r.ended_at = 0 AND r.state IN ('dispatched', 'claimed', 'online')
	AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = r.job_id AND jobs.try = r.try AND jobs.` + waits + `)`

const (
	leftoversSQL = `SELECT ` + runnerColumns + ` FROM runners r INDEXED BY runners_live WHERE ` + leftover

	leftoversOfSQL = `SELECT ` + runnerColumns + ` FROM runners r WHERE job_id = ? AND ` + leftover

	// A runner that is not registered on Nomad cannot serve another job, as whoever
	// registers it has only its own job in hand. One that brings its own registration
	// may have a job once it has a node.
	reusableSQL = `SELECT ` + runnerColumns + ` FROM runners r WHERE id = ? AND nomad_job <> '' AND (NOT own OR placed_at = 0) AND ` + leftover
)

// Leftovers implements runners.Store.
func (s *claimStore) Leftovers(ctx context.Context, jobID int64) (list []router.Runner, err error) {
	query, args := leftoversSQL, []any{}
	if jobID != 0 {
		query, args = leftoversOfSQL, []any{jobID}
	}
	if list, err = all(s.querier(ctx), scanRunner, query, args...); err != nil {
		return nil, fmt.Errorf("read the runners that no job waits for: %w", err)
	}
	return list, nil
}

// Reuse implements runners.Store.
func (s *claimStore) Reuse(ctx context.Context, runnerID string, now time.Time) (jobID int64, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (int64, error) {
		var r router.Runner
		if err := one(t.query, scanRunner, &r, reusableSQL, runnerID); err != nil || r.ID == "" {
			return 0, err
		}
		var p place
		if err := t.query(p.scan, withoutRunnerSQL, r.Fit); err != nil || p.jobID == 0 {
			return 0, err
		}
		reason := fmt.Sprintf("it is for job %d now, as job %d needs no runner", p.jobID, r.JobID)
		if err := bind(t, &r, p, now); err != nil {
			return 0, err
		}
		_, err := t.exec(runnerReasonSQL, r.ID, reason, millis(now))
		return p.jobID, err
	})
}

// Why GitHub may have given the runner before this one no job, if that is why it was given up.
const idleBeforeSQL = `SELECT cause_text FROM runners WHERE job_id = ?1 AND try = ?2 - 1 AND state = 'lost' AND cause = 'no_job'`

// The reason of a runner that has ended stays: it says how.
const configuredSQL = `
UPDATE runners SET name = ?2, github_id = ?3, target = ?5, updated_at = ?4, cause = iif(ended_at = 0, '', cause), reason = iif(ended_at = 0, 'GitHub knows it as ' || ?2, reason)
WHERE id = ?1 RETURNING job_id, try, ended_at`

const refusedClaimSQL = `
UPDATE runners SET cause = 'claim_refused', cause_text = ?2, reason = ?2, updated_at = ?3 WHERE id = ?1 AND state = 'dispatched' AND ended_at = 0 AND reason <> ?2 RETURNING job_id, try`

// ClaimRefused implements claim.Store.
func (s *claimStore) ClaimRefused(ctx context.Context, runnerID, why string, now time.Time) error {
	return s.writer.change(ctx, router.SourceRunner, func(t *tx) error {
		r, err := t.runnerOf(runnerID, refusedClaimSQL, why, millis(now))
		if err != nil || r.JobID == 0 {
			return err
		}
		_, err = t.exec(jobReasonSQL, r.JobID, r.Try, "its runner "+runnerID+" has started, but "+why, millis(now))
		return err
	})
}

// Configured implements claim.Store.
func (s *claimStore) Configured(ctx context.Context, runnerID, name string, gitHubID int64, at router.Target, now time.Time) error {
	target, err := json.Marshal(at)
	if err != nil {
		return err
	}
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		var r router.Runner
		var ended int64
		err := t.query(into(&r.JobID, &r.Try, &ended),
			configuredSQL, runnerID, name, gitHubID, millis(now), string(target))
		if err != nil {
			return err
		}
		if r.JobID == 0 {
			return router.ErrNotFound
		}
		if ended != 0 {
			return nil
		}
		reason := fmt.Sprintf("its runner %s has started; GitHub has not given it the job yet", name)
		var before string
		err = t.query(into(&before), idleBeforeSQL, r.JobID, r.Try)
		if before != "" {
			reason += ". To the one before it: " + before
		}
		if err == nil {
			_, err = t.exec(jobReasonSQL, r.JobID, r.Try, reason, millis(now))
		}
		return err
	})
}

const runnerOnlineSQL = `
UPDATE runners SET state = 'online', updated_at = ?2, cause = iif(ended_at = 0, '', cause), reason = iif(ended_at = 0, 'it has its configuration and waits for a job', reason)
WHERE id = ?1 AND state = 'claimed'`

// Online implements claim.Store.
func (s *claimStore) Online(ctx context.Context, runnerID string, now time.Time) error {
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		return t.moveRunner(runnerID, runnerOnlineSQL, millis(now))
	})
}

// knownRunner returns router.ErrNotFound for a runner that is not known.
func knownRunner(t *tx, id string) error {
	ok, err := found(t, isRunnerSQL, id)
	if err == nil && !ok {
		err = router.ErrNotFound
	}
	return err
}

const (
	runnerLostSQL = `
UPDATE runners SET state = 'lost', updated_at = ?2, cause = ?4, cause_text = ?3, reason = ?3
WHERE id = ?1 AND ?5 IN ('', state) AND state IN ('dispatched', 'claimed', 'online') RETURNING job_id, try`

	retryAfterLossSQL = `
UPDATE jobs SET state = 'retrying', try = try + 1, failures = failures + 1, due_at = ?3, cause = ?6, reason = ?4, updated_at = ?5
WHERE id = ?1 AND try = ?2 AND ` + waits

	isRunnerSQL = `SELECT 1 FROM runners WHERE id = ?`

	claimedSQL = `SELECT id, github_id FROM runners WHERE state = 'claimed' AND state_at <= ?`
)

// Lost implements runners.Store. A runner that GitHub gave a job meanwhile, or
// that ended, is left as it is.
func (s *claimStore) Lost(ctx context.Context, r router.Runner, at time.Time, cause router.Cause, reason string, now time.Time) (lost bool, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) { return lose(t, r, at, cause, reason, now) })
}

func lose(t *tx, given router.Runner, at time.Time, cause router.Cause, reason string, now time.Time) (lost bool, err error) {
	r, err := t.runnerOf(given.ID, runnerLostSQL, millis(now), reason, cause, given.State)
	if err != nil || r.JobID == 0 {
		return false, err
	}
	if cause == router.CauseNoJob {
		if held, err := holdIdle(t, r, reason, millis(now)); held || err != nil {
			return held, err
		}
		reason += fmt.Sprintf("; it gets another at %s, or at once by switchyard jobs retry %d", at.UTC().Format(time.RFC3339), r.JobID)
	}
	_, err = t.exec(retryAfterLossSQL, r.JobID, r.Try, millis(at), reason, millis(now), cause)
	return true, err
}

const (
	runnerStoppedSQL = `
UPDATE runners SET state = 'stopped', updated_at = ?3, cause = '', reason = ?4
WHERE id = ?1 AND state = ?2 AND nomad_job = ?5 AND state IN ('dispatched', 'claimed', 'online') RETURNING job_id, try`

	requeueSQL = `
UPDATE jobs SET state = 'retrying', try = try + 1, due_at = ?3, updated_at = ?3, cause = ?5, reason = ?4
WHERE id = ?1 AND try = ?2 AND ` + waits
)

// Stopped implements runners.Store.
func (s *claimStore) Stopped(ctx context.Context, r router.Runner, reason string, now time.Time) (stopped bool, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		was, err := t.runnerOf(r.ID, runnerStoppedSQL, r.State, millis(now), reason, r.NomadJob)
		if err != nil || was.JobID == 0 {
			return false, err
		}
		if _, err := t.exec(vacateSQL, was.JobID, was.Try); err != nil {
			return false, err
		}
		_, err = t.exec(requeueSQL, was.JobID, was.Try, millis(now), "it gets a new runner, as "+r.ID+" was stopped: "+reason, router.CauseReplaced)
		return true, err
	})
}

const idleRunnersSQL = `SELECT count(*) FROM runners WHERE job_id = ? AND state = 'lost' AND cause = 'no_job'`

// IdleRunners implements runners.Store.
func (s *claimStore) IdleRunners(ctx context.Context, jobID int64) (n int, err error) {
	err = s.querier(ctx)(into(&n), idleRunnersSQL, jobID)
	return n, err
}

// Recover implements server.Store.
func (s *claimStore) Recover(ctx context.Context, until, doubt, now time.Time) (n int, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (int, error) {
		claimed, err := all(t.query, func(rows *sql.Rows, r *router.Runner) error { return rows.Scan(&r.ID, &r.GitHubID) }, claimedSQL, millis(until))
		if err != nil {
			return 0, err
		}
		for _, r := range claimed {
			at, reason := now, "the router ended while it configured the runner"
			if r.GitHubID != 0 {
				at, reason = doubt, "the router ended while it answered the runner, which may have started: it is given time to show itself"
			}
			if _, err := lose(t, r, at, router.CauseRunner, reason, now); err != nil {
				return 0, err
			}
		}
		return len(claimed), nil
	})
}
