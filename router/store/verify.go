package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"switchyard/router"
)

const (
	insertVerificationSQL = `
INSERT INTO verifications (token_hash, runner_id, asked, refusal) VALUES (?, ?, '', '')
ON CONFLICT (token_hash) DO NOTHING`

	verificationSQL = `
SELECT v.asked, v.refusal, v.runner_id, r.job_id, r.state, r.name, r.fit, r.rule FROM verifications v JOIN runners r ON r.id = v.runner_id WHERE v.token_hash = ?`

	// The first answer stays.
	verifiedSQL = `UPDATE verifications SET asked = ?2, refusal = ?3 WHERE token_hash = ?1 AND asked = ''`

	jobsOfRunSQL = `
SELECT ` + jobColumns + ` FROM jobs INDEXED BY jobs_run
WHERE run_id = ? AND state IN ('held', 'queued', 'retrying', 'dispatched', 'running', 'denied', 'unroutable') ORDER BY id LIMIT 1000`
)

// Verifies implements dispatch.Store.
func (s *claimStore) Verifies(ctx context.Context, runnerID string, tokenHash [32]byte, _ time.Time) error {
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		_, err := t.exec(insertVerificationSQL, tokenHash[:], runnerID)
		return err
	})
}

func scanVerification(rows *sql.Rows, v *router.Verification) error {
	r := &v.Runner
	return rows.Scan(&v.Asked, &v.Refusal, &r.ID, &r.JobID, &r.State, &r.Name, &r.Fit, &r.Rule)
}

// verification returns what the holder of a token may ask, and was told.
func verification(q querier, tokenHash [32]byte) (v router.Verification, err error) {
	err = one(q, scanVerification, &v, verificationSQL, tokenHash[:])
	if err == nil && v.Runner.ID == "" {
		err = router.ErrNotFound
	}
	return v, err
}

// Verification implements claim.Store.
func (s *claimStore) Verification(ctx context.Context, tokenHash [32]byte) (v router.Verification, err error) {
	if v, err = verification(s.querier(ctx), tokenHash); err != nil {
		return v, fmt.Errorf("read the holder of a token: %w", err)
	}
	return v, nil
}

// Verified implements claim.Store.
func (s *claimStore) Verified(ctx context.Context, tokenHash [32]byte, asked, refusal string, now time.Time) (v router.Verification, err error) {
	return changed(ctx, s.db, router.SourceRunner, func(t *tx) (router.Verification, error) {
		n, err := t.exec(verifiedSQL, tokenHash[:], asked, refusal)
		if err != nil {
			return v, err
		}
		v, err := verification(t.query, tokenHash)
		if err != nil || n == 0 || refusal == "" {
			return v, err
		}
		if _, err := t.exec(runnerReasonSQL, v.Runner.ID, "it ends its job: "+refusal, millis(now)); err != nil {
			return v, err
		}
		_, err = t.exec(auditSQL, millis(now), "GitHub", "", "", "gave a runner a job that its rule may not serve", "runners/"+v.Runner.ID, refusal)
		return v, err
	})
}

// JobsOfRun implements claim.Store.
func (s *claimStore) JobsOfRun(ctx context.Context, runID int64) ([]router.Job, error) {
	return list(s.querier(ctx), fmt.Sprintf("read the jobs of run %d", runID), scanJob, jobsOfRunSQL, runID)
}

const (
	keepableSQL = `
SELECT keep, nomad_job, namespace, region FROM runners
WHERE id = ? AND keep > 0 AND kept_until = 0 AND ended_at = 0 AND state = 'finished' AND nomad_job <> ''`

	keepSQL = `UPDATE runners SET kept_until = ?2, cause = '', reason = ?3, updated_at = ?4 WHERE id = ?1`

	unkeptSQL = `
SELECT ` + runnerColumns + ` FROM runners INDEXED BY runners_unkept
WHERE state = 'finished' AND ended_at = 0 AND keep > 0 AND kept_until = 0`
)

// keep records, in its reason and in the audit trail, that a runner stays because its job
// failed, if its placement says so.
func keep(t *tx, runnerID string, jobID, now int64) error {
	var wait int64
	var r router.Runner
	err := t.query(into(&wait, &r.NomadJob, &r.NomadAt.Namespace, &r.NomadAt.Region), keepableSQL, runnerID)
	if err != nil || wait == 0 {
		return err
	}
	until := now + wait
	why := fmt.Sprintf("its job %d failed; it stays until %s: %s", jobID, fromMillis(until).Format(time.RFC3339), shell(r))
	if _, err := t.exec(keepSQL, runnerID, until, why, now); err != nil {
		return err
	}
	_, err = t.exec(auditSQL, now, "Switchyard", "", "", "kept the runner of a failed job", "runners/"+runnerID, why)
	return err
}

// shell returns the command that opens a shell in a runner.
func shell(r router.Runner) string {
	at := ""
	if r.NomadAt.Region != "" {
		at += " -region " + r.NomadAt.Region
	}
	if r.NomadAt.Namespace != "" {
		at += " -namespace " + r.NomadAt.Namespace
	}
	return "nomad alloc exec" + at + " -task runner -job " + r.NomadJob + " /bin/bash"
}

// Unkept implements runners.Store.
func (s *claimStore) Unkept(ctx context.Context) ([]router.Runner, error) {
	return list(s.querier(ctx), "read the runners whose job did not fail", scanRunner, unkeptSQL)
}
