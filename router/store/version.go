package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"switchyard/router"
)

// outdated is the condition for a runner that GitHub gave no job because of its version. It is
// that of the index runners_outdated, word for word.
const outdated = `cause = 'runner_version'`

const (
	// So many are started in vain by a rule until it starts no more.
	mayStart = `(SELECT count(*) FROM runners WHERE rule = ?5 AND rules = ?6 AND ` + outdated + `) < 2`

	outdatedSQL = `
SELECT cause_text FROM runners WHERE rule = ?1 AND rules = ?2 AND ` + outdated + ` ORDER BY updated_at DESC, id LIMIT 2`

	holdOutdatedSQL = `
UPDATE jobs SET state = 'held', limit_key = '', fit = '', failures = 0, cause = 'runner_version', reason = ?2, decision = coalesce(?3, decision), updated_at = ?4
WHERE id = ?1 AND state IN ('queued', 'retrying')`

	// Other rules or jobspecs may name newer runners.
	releaseOutdatedSQL = `
UPDATE jobs AS j SET state = 'queued', due_at = ?2, updated_at = ?2, cause = 'queued', reason = 'the rules or jobspecs have changed: its rule may start runners again'
WHERE j.state = 'held' AND j.cause = 'runner_version'
	AND (SELECT count(*) FROM runners r WHERE r.rule = ` + ruleSQL + ` AND r.rules = ?1 AND r.cause = 'runner_version') < 2`

	forgetOutdatedSQL = `UPDATE runners SET rules = '' WHERE rule = ?1 AND ` + outdated

	resumeSQL = `
UPDATE jobs AS j SET state = 'queued', due_at = ?3, updated_at = ?3, cause = 'queued', reason = ?2
WHERE j.state = 'held' AND j.cause = 'runner_version' AND ` + ruleSQL + ` = ?1`

	runnerVersionSQL = `UPDATE runners SET version = ?2 WHERE id = ?1 AND version <> ?2`

	unversionedSQL = `
SELECT r.id, r.name, r.target, ` + ruleSQL + `, r.rules
FROM runners r INDEXED BY runners_live JOIN jobs j ON j.id = r.job_id
WHERE r.ended_at = 0 AND r.state IN ('online', 'busy') AND NOT r.own AND r.version = '' AND r.target <> '' AND r.rules IN ('', ?3)
	AND ` + ruleSQL + ` NOT IN (SELECT value FROM json_each(?1))
ORDER BY r.state = 'busy' DESC, r.state_at DESC LIMIT ?2`
)

// mayNotStart returns the *router.OutdatedError of a rule that starts no more runners; nil: it
// may.
func mayNotStart(t *tx, r router.Runner) error {
	said, err := all(t.query, func(rows *sql.Rows, s *string) error { return rows.Scan(s) }, outdatedSQL, r.Rule, r.Rules)
	if err == nil && len(said) == 2 {
		err = &router.OutdatedError{Said: said[0]}
	}
	return err
}

// HoldOutdated implements dispatch.Store. A job that went further meanwhile is left as it is.
func (s *dispatchStore) HoldOutdated(ctx context.Context, jobID int64, reason string, d *router.Decision, now time.Time) error {
	decision, err := asText(d)
	if err != nil {
		return err
	}
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		key := ""
		if err := t.query(into(&key), placeSQL, jobID); err != nil {
			return err
		}
		held, err := t.moveJob(jobID, holdOutdatedSQL, reason, decision, millis(now))
		if held {
			err = nextSibling(t, jobID, millis(now))
		}
		if held && key != "" && err == nil {
			_, err = t.exec(releaseKeySQL, key, millis(now))
		}
		return err
	})
}

// Resume implements operate.Store.
func (s *dispatchStore) Resume(ctx context.Context, rule, reason string, now time.Time) (n int, err error) {
	return changed(ctx, s.db, router.SourceOperator, func(t *tx) (int, error) {
		if _, err := t.exec(forgetOutdatedSQL, rule); err != nil {
			return 0, err
		}
		n, err := t.exec(resumeSQL, rule, reason, millis(now))
		return int(n), err
	})
}

// SetRunnerVersion implements runners.VersionStore.
func (s *runnerStore) SetRunnerVersion(ctx context.Context, runnerID string, v router.RunnerVersion) error {
	return s.exec(ctx, router.SourceGitHub, runnerVersionSQL, runnerID, string(v))
}

// Unversioned implements runners.VersionStore.
func (s *runnerStore) Unversioned(ctx context.Context, rules string, except []string, limit int) ([]router.Runner, error) {
	known, err := json.Marshal(append([]string{}, except...))
	if err != nil {
		return nil, err
	}
	return list(s.querier(ctx), "list the runners whose version is not known", func(rows *sql.Rows, r *router.Runner) error {
		var target string
		err := rows.Scan(&r.ID, &r.Name, &target, &r.Rule, &r.Rules)
		if err == nil {
			err = json.Unmarshal([]byte(target), &r.Target)
		}
		return err
	}, unversionedSQL, string(known), limit, rules)
}

// versionsMark is the name of the mark that has the versions of the rules' runners.
const versionsMark = "runner versions"

// RunnerVersions implements runners.VersionStore.
func (r reads) RunnerVersions(ctx context.Context) (found []router.RuleVersion, err error) {
	var text string
	err = r.querier(ctx)(into(&text), markSQL, versionsMark)
	if err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &found)
	}
	if err != nil {
		return nil, fmt.Errorf("read the versions of the runners: %w", err)
	}
	return found, nil
}

// SetRunnerVersions implements runners.VersionStore.
func (s *Store) SetRunnerVersions(ctx context.Context, all []router.RuleVersion) error {
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return s.SetMark(ctx, versionsMark, string(text))
}
