package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"switchyard/router"
)

const settleSQL = `
UPDATE jobs SET state = ?2, cause = ?3, reason = ?4, decision = coalesce(?5, decision), updated_at = ?6
WHERE id = ?1 AND state IN ('queued', 'retrying')`

// Settle implements dispatch.Store. A job that went further meanwhile is left as it is.
func (s *dispatchStore) Settle(ctx context.Context, jobID int64, to router.JobState, cause router.Cause, reason string, d *router.Decision, now time.Time) error {
	if to != router.Ignored && to != router.Denied && to != router.Unroutable {
		return fmt.Errorf("settle job %d: it cannot be settled as %q", jobID, to)
	}
	decision, err := asText(d)
	if err != nil {
		return err
	}
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		settled, err := t.moveJob(jobID, settleSQL, to, cause, reason, decision, millis(now))
		if settled {
			_, err = t.exec(releaseSQL, jobID, millis(now))
		}
		if settled && err == nil {
			err = nextSibling(t, jobID, millis(now))
		}
		return err
	})
}

const retrySQL = `
UPDATE jobs SET state = 'retrying', failures = failures + 1, due_at = ?2, cause = ?3, reason = ?4, decision = coalesce(?5, decision), updated_at = ?6
WHERE id = ?1 AND state IN ('queued', 'retrying')`

// Retry implements dispatch.Store. A job that went further meanwhile is left as it is.
func (s *dispatchStore) Retry(ctx context.Context, jobID int64, at time.Time, cause router.Cause, reason string, d *router.Decision, now time.Time) error {
	decision, err := asText(d)
	if err != nil {
		return err
	}
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		_, err := t.moveJob(jobID, retrySQL, millis(at), cause, reason, decision, millis(now))
		return err
	})
}

const retryNowSQL = `
UPDATE jobs SET due_at = ?3, failures = 0, updated_at = ?3 WHERE id IN (
	SELECT id FROM jobs INDEXED BY jobs_due
	WHERE state IN ('queued', 'retrying') AND state = 'retrying' AND due_at > ?3 AND cause = ?1
		AND (?4 = '*' OR ?4 = coalesce((SELECT r.region FROM runners r WHERE r.job_id = jobs.id AND r.try = jobs.try), ''))
	ORDER BY due_at, id LIMIT ?2)`

// RetryNow implements dispatch.Store.
func (s *dispatchStore) RetryNow(ctx context.Context, region string, cause router.Cause, limit int, now time.Time) (n int, err error) {
	if limit < 0 {
		limit = math.MaxInt
	}
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (int, error) {
		n, err := t.exec(retryNowSQL, cause, limit, millis(now), region)
		return int(n), err
	})
}

// runnerCause selects what a live runner waits for: starting, if it has a node.
const runnerCause = `iif(r.state <> 'dispatched' OR r.placed_at <> 0, 'starting', iif(r.unplaced IS NULL, 'placing',
	iif(r.unplaced ->> '$.away', 'out_of_service', iif(r.unplaced ->> '$.never', 'no_node_fits', 'no_node_free'))))`

// causeOfRunner selects the cause of a Dispatched job: what its runner waits for.
const causeOfRunner = `coalesce((SELECT ` + runnerCause + ` FROM runners r WHERE r.job_id = jobs.id AND r.try = jobs.try), 'starting')`

const (
	insertRunnerSQL = `
INSERT INTO runners (id, job_id, try, state, name, github_id, nomad_job, namespace, region, created_at, updated_at, state_at, fit, own, rule, rules, keep)
VALUES (?1, ?2, ?3, 'dispatched', ?4, 0, '', '', ?10, ?5, ?5, ?5, ?6, ?7, ?8, ?9, ?11)
ON CONFLICT (id) DO UPDATE SET own = runners.own OR excluded.own, rule = excluded.rule, rules = excluded.rules, keep = excluded.keep,
	region = iif(runners.nomad_job = '', excluded.region, runners.region) WHERE runners.state = 'dispatched'`

	// It changes nothing unless the job waits for this try, and its rule may start a runner.
	prepareJobSQL = `
UPDATE jobs SET fit = ?2 WHERE id = ?1 AND try = ?3 AND state IN ('queued', 'retrying') AND due_at <= ?4 AND ` + mayStart

	insertClaimSQL = `
INSERT INTO claims (token_hash, runner_id) VALUES (?, ?)
ON CONFLICT (token_hash) DO NOTHING`
)

// Prepare implements dispatch.Store. A runner for a try that is not the job's
// current one, or that is not due, is ErrNotWaiting as well: the caller read the
// job before it moved on.
func (s *dispatchStore) Prepare(ctx context.Context, r router.Runner, tokenHash [32]byte, now time.Time) error {
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		waits, err := t.moveJob(r.JobID, prepareJobSQL, r.Fit, r.Try, millis(now), r.Rule, r.Rules)
		if err == nil && !waits {
			err = cmp.Or(mayNotStart(t, r), router.ErrNotWaiting)
		}
		if err != nil {
			return err
		}
		if _, err := t.exec(insertRunnerSQL, r.ID, r.JobID, r.Try, r.Name, millis(now), r.Fit, r.Own, r.Rule, r.Rules, r.NomadAt.Region, r.Keep.Milliseconds()); err != nil {
			return fmt.Errorf("add runner %s: %w", r.ID, err)
		}
		_, err = t.exec(insertClaimSQL, tokenHash[:], r.ID)
		return err
	})
}

const (
	toDispatchSQL = `
SELECT r.state, iif(r.placed_at = 0, '', r.node), coalesce(r.unplaced, ''), EXISTS (SELECT 1 FROM claims WHERE token_hash = ?2)
FROM runners r WHERE r.id = ?1`

	wasDispatchedSQL = `SELECT fallback, dispatched_at FROM jobs WHERE id = ?1`

	nomadJobSQL = `
UPDATE runners SET nomad_job = ?2, namespace = ?3, region = ?4, updated_at = ?5,
	cause = iif(state = 'dispatched' AND placed_at = 0 AND ended_at = 0, '', cause),
	reason = iif(state = 'dispatched' AND placed_at = 0 AND ended_at = 0 AND unplaced IS NULL, 'Nomad has it and will find it a node', reason)
WHERE id = ?1`

	dispatchedSQL = `
UPDATE jobs SET state = 'dispatched', cause = ` + causeOfRunner + `, reason = ?3, decision = coalesce(?4, decision), updated_at = ?5,
	dispatched_at = ?6, fallback_at = ?7, time_limit = ?8
WHERE id = ?1 AND try = ?2 AND state IN ('queued', 'retrying')`

	// A job that its runner took before this was recorded keeps its state. Its
	// decision is recorded all the same.
	decisionSQL = `UPDATE jobs SET decision = ?2, time_limit = ?3 WHERE id = ?1 AND decision IS NULL`
)

// Dispatched implements dispatch.Store. The token's hash is accepted even if it was
// never prepared here: Nomad has it, and an earlier database may have been lost.
// Those that were prepared stay valid: before 2.0.1, Nomad may still accept a
// registration that another process sent, and that runner claims with its token.
// One claim uses up all of them.
func (s *dispatchStore) Dispatched(ctx context.Context, r router.Runner, tokenHash [32]byte, d *router.Decision, now time.Time) error {
	decision, err := asText(d)
	if err != nil {
		return err
	}
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		var state router.RunnerState
		var node string
		var unplaced string
		var prepared bool
		err := t.query(into(&state, &node, &unplaced, &prepared), toDispatchSQL, r.ID, tokenHash[:])
		if err != nil {
			return err
		}
		if state == "" {
			return router.ErrNotFound
		}
		if _, err := t.exec(nomadJobSQL, r.ID, r.NomadJob, r.NomadAt.Namespace, r.NomadAt.Region, millis(now)); err != nil {
			return err
		}
		if !prepared {
			if _, err := t.exec(insertClaimSQL, tokenHash[:], r.ID); err != nil {
				return err
			}
		}
		reason := fmt.Sprintf("Nomad has its runner, job %s, which has not started yet", r.NomadJob)
		switch { // what Nomad's events, or a claim, said before
		case state != router.RunnerDispatched:
			reason = fmt.Sprintf("its runner, Nomad job %s, has started", r.NomadJob)
		case node != "":
			reason = fmt.Sprintf("its runner %s starts on node %s", r.ID, node)
		}
		if err := dispatched(t, r, d, decision, reason, now); err != nil || unplaced == "" {
			return err
		}
		var u router.Unplaced // which was found before this was recorded
		if err := json.Unmarshal([]byte(unplaced), &u); err != nil {
			return err
		}
		_, err = t.exec(jobUnplacedSQL, r.JobID, r.Try, whyUnplaced(u, "its runner"), millis(now))
		return err
	})
}

// dispatched records that a job has its runner. If it has already gone further it stays there.
func dispatched(t *tx, r router.Runner, d *router.Decision, decision any, reason string, now time.Time) error {
	var fallback int
	var first int64
	if err := t.query(into(&fallback, &first), wasDispatchedSQL, r.JobID); err != nil {
		return err
	}
	first = cmp.Or(first, millis(now))
	var fallbackAt, limit int64
	if d != nil {
		limit = time.Duration(d.TimeLimit).Milliseconds()
		if _, after, ok := router.NextFallback(d, fallback); ok {
			fallbackAt = first + after.Milliseconds()
		}
	}
	n, err := t.exec(dispatchedSQL, r.JobID, r.Try, reason, decision, millis(now), first, fallbackAt, limit)
	if err == nil && n == 0 && decision != nil {
		_, err = t.exec(decisionSQL, r.JobID, decision, limit)
	}
	return err
}
