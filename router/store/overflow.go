package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"switchyard/router"
)

const (
	overflowsSQL = `
SELECT host, owner, repo, variable, rule, to_value, back_value, state, why, since, state_at, calm FROM overflows ORDER BY since, host, owner, repo, variable`

	putOverflowSQL = `
INSERT INTO overflows (host, owner, repo, variable, rule, to_value, back_value, state, why, since, state_at, calm)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
ON CONFLICT (host, owner, repo, variable) DO UPDATE SET
	rule = excluded.rule, to_value = excluded.to_value, back_value = excluded.back_value, state = excluded.state, why = excluded.why,
	since = excluded.since, state_at = excluded.state_at, calm = excluded.calm`

	endOverflowSQL = `DELETE FROM overflows WHERE host = ?1 AND owner = ?2 AND repo = ?3 AND variable = ?4`
)

// Overflows implements overflow.Store.
func (s *Store) Overflows(ctx context.Context) ([]router.Overflow, error) {
	return list(s.querier(ctx), "read which variables are set", func(rows *sql.Rows, o *router.Overflow) error {
		var since, at, calm int64
		err := rows.Scan(&o.Host, &o.Owner, &o.Repo, &o.Name, &o.Rule, &o.To, &o.Back, &o.State, &o.Why, &since, &at, &calm)
		o.Since, o.At, o.Calm = fromMillis(since), fromMillis(at), time.Duration(calm)*time.Millisecond
		return err
	}, overflowsSQL)
}

// RecordOverflow implements overflow.Store.
func (s *Store) RecordOverflow(ctx context.Context, o router.Overflow, a router.Audit) error {
	err := s.writer.change(ctx, router.SourceRouter, func(t *tx) (err error) {
		if o.State == "" {
			_, err = t.exec(endOverflowSQL, o.Host, o.Owner, o.Repo, o.Name)
		} else {
			_, err = t.exec(putOverflowSQL, o.Host, o.Owner, o.Repo, o.Name, o.Rule, o.To, o.Back, o.State, o.Why, millis(o.Since), millis(o.At), o.Calm.Milliseconds())
		}
		if err == nil && a.Did != "" {
			_, err = t.exec(auditSQL, millis(a.At), a.Who, a.By, a.From, a.Did, a.What, a.Result)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("record that %s is %q: %w", o.Variable, o.State, err)
	}
	return nil
}

// waitsSQL reads the jobs that wait for a runner, or have one. A job waits since GitHub queued it
// last: before, it may have kept it back. It reads the troubles only of jobs that wait.
const waitsSQL = `
SELECT rule, host, owner, repo,
	coalesce(min(since) FILTER (WHERE since > 0 AND no_node = 0), 0), coalesce(min(no_node) FILTER (WHERE no_node > 0), 0),
	coalesce(min(nomad) FILTER (WHERE nomad > 0), 0), sum(served)
FROM (
	SELECT ` + ruleSQL + ` AS rule, j.host, j.owner, j.repo, iif(j.cause IN ('starting', 'no_node_free'), 1, 0) AS served,
		max(j.received_at, coalesce((SELECT max(e.at) FROM events e WHERE e.job_id = j.id AND e.state = 'queued' AND e.source IN ('webhook', 'github')), 0)) AS since,
		coalesce((SELECT min(t.since) FROM troubles t WHERE t.job_id = j.id AND t.cause IN ('no_node_fits', 'out_of_service')), 0) AS no_node,
		coalesce((SELECT min(t.since) FROM troubles t WHERE t.job_id = j.id AND t.cause IN ('nomad', 'silent')), 0) AS nomad
	FROM jobs j INDEXED BY jobs_state
	WHERE j.state IN ('held', 'queued', 'retrying', 'dispatched') AND (j.state <> 'held' OR j.cause IN ('limit', 'runner_version')) AND j.cause <> 'no_job'
UNION ALL
	SELECT ` + ruleSQL + `, j.host, j.owner, j.repo, 1, 0, 0, 0 FROM jobs j INDEXED BY jobs_state WHERE j.state = 'running'
) AS j WHERE rule <> '' GROUP BY 1, 2, 3, 4 ORDER BY 5, 1, 2, 3, 4`

// Waits implements overflow.Store.
func (s *Store) Waits(ctx context.Context) ([]router.RuleWait, error) {
	return list(s.querier(ctx), "read how long jobs wait", func(rows *sql.Rows, w *router.RuleWait) error {
		var oldest, noNode, nomad int64
		err := rows.Scan(&w.Rule, &w.Repo.Host, &w.Repo.Owner, &w.Repo.Name, &oldest, &noNode, &nomad, &w.Served)
		w.Repo.FullName = w.Repo.Owner + "/" + w.Repo.Name
		w.Oldest, w.NoNode, w.Nomad = fromMillis(oldest), fromMillis(noNode), fromMillis(nomad)
		return err
	}, waitsSQL)
}
