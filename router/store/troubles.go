package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"switchyard/router"
)

const (
	// Jobs in trouble by what they have in common. One whose runner has waited for a node for
	// a while does not wait for GitHub. Those whose runner is online, and has no
	// job after a while, are found here; those whose runners GitHub gave nothing before
	// count likewise. The newest job of each group has the highest ID.
	troublesSQL = `
SELECT cause, rule, host, owner, repo, count(*), min(since), max(id) FROM (
	SELECT iif(t.cause = 'no_job', 'online', t.cause) AS cause, ` + ruleSQL + ` AS rule, j.host, j.owner, j.repo, t.since, j.id
	FROM troubles t CROSS JOIN jobs j ON j.id = t.job_id
	WHERE NOT (t.cause IN ('github', 'github_refused', 'github_limit') AND j.state = 'dispatched'
		AND EXISTS (SELECT 1 FROM runners r WHERE r.job_id = j.id AND r.try = j.try AND r.placed_at = 0 AND r.created_at <= ?1))
UNION ALL
	SELECT 'online', ` + ruleSQL + `, j.host, j.owner, j.repo, r.state_at, j.id
	FROM runners r INDEXED BY runners_live CROSS JOIN jobs j ON j.id = r.job_id AND j.try = r.try AND j.state = 'dispatched'
	WHERE r.ended_at = 0 AND r.state = 'online' AND r.state_at <= ?1
		AND NOT EXISTS (SELECT 1 FROM troubles t WHERE t.job_id = j.id AND t.cause = 'no_job')
UNION ALL
	SELECT 'unroutable', '', j.host, j.owner, j.repo, j.updated_at, j.id
	FROM jobs j INDEXED BY jobs_state WHERE j.state = 'unroutable' AND j.received_at >= ?2
UNION ALL
	SELECT j.cause, ` + ruleSQL + `, j.host, j.owner, j.repo, j.updated_at, j.id
	FROM jobs j INDEXED BY jobs_state WHERE j.state = 'held' AND j.cause IN ('limit', 'runner_version')
) AS j WHERE `

	troublesGroups = ` GROUP BY 1, 2, 3, 4, 5 ORDER BY count(*) DESC, max(id) DESC`

	troubleExampleSQL = `
SELECT j.labels, coalesce((SELECT t.what FROM troubles t WHERE t.job_id = j.id AND t.cause IN (?2, iif(?2 = 'online', 'no_job', ''))), j.reason)
FROM jobs j WHERE j.id = ?1`
)

// Troubles implements health.Store.
func (r reads) Troubles(ctx context.Context, within router.Scope, online, since time.Time, examples int) ([]router.JobTrouble, error) {
	if within != nil && len(within) == 0 {
		return nil, nil
	}
	var where condition
	where.and("true")
	where.within(within)
	query := r.querier(ctx)
	found, err := all(query, func(rows *sql.Rows, t *router.JobTrouble) error {
		var began int64
		err := rows.Scan(&t.Cause, &t.Rule, &t.Repo.Host, &t.Repo.Owner, &t.Repo.Name, &t.Jobs, &began, &t.Newest)
		t.Since, t.Repo.FullName = fromMillis(began), t.Repo.Owner+"/"+t.Repo.Name
		return err
	}, troublesSQL+where.String()+troublesGroups, append([]any{millis(online), millis(since)}, where.args...)...)
	left := map[router.Cause]int{}
	for i := range found {
		t := &found[i]
		if left[t.Cause]++; err != nil || left[t.Cause] > examples {
			continue
		}
		var labels string
		err = query(into(&labels, &t.Reason), troubleExampleSQL, t.Newest, t.Cause)
		if err == nil && labels != "" {
			err = json.Unmarshal([]byte(labels), &t.Labels)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read what keeps jobs from their runners: %w", err)
	}
	return slices.Clip(found), nil
}

// The repositories with places under a limit that jobs wait for. The conditions are those of
// the index jobs_limit.
const limitHoldersSQL = `
SELECT limit_key, host, owner, repo, count(*) FILTER (WHERE state <> 'held'), count(*) FILTER (WHERE state = 'held'), sum(count(*) FILTER (WHERE state <> 'held')) OVER (PARTITION BY limit_key) FROM jobs
WHERE ` + limited + ` AND limit_key IN (SELECT limit_key FROM jobs WHERE ` + limited + ` AND state = 'held' AND cause = 'limit')
GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 6 DESC LIMIT 100`

// LimitHolders implements health.Store.
func (s *Store) LimitHolders(ctx context.Context) ([]router.LimitHolder, error) {
	return list(s.querier(ctx), "read who has the places under limits", func(rows *sql.Rows, h *router.LimitHolder) error {
		err := rows.Scan(&h.Key, &h.Repo.Host, &h.Repo.Owner, &h.Repo.Name, &h.Jobs, &h.Waiting, &h.Places)
		h.Repo.FullName = h.Repo.Owner + "/" + h.Repo.Name
		return err
	}, limitHoldersSQL)
}

// Received implements health.Store.
func (s *Store) Received(ctx context.Context, from, until time.Time) (jobs int, oldest time.Time, err error) {
	var first int64
	err = s.querier(ctx)(into(&jobs, &first), `SELECT (SELECT count(*) FROM jobs WHERE received_at >= ?1 AND received_at < ?2), coalesce((SELECT min(received_at) FROM jobs), 0)`,
		millis(from), millis(until))
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("count the jobs received from %v to %v: %w", from, until, err)
	}
	return jobs, fromMillis(first), nil
}

// Disk implements health.Store.
func (s *Store) Disk() (d router.Disk, err error) {
	main, wal, err := s.Size()
	if err != nil {
		return router.Disk{Path: s.path}, err
	}
	d = router.Disk{Path: s.path, Used: main + wal}
	if s.postgres == nil { // else its disk is another machine's
		d.Free, d.Total, err = diskSpace(filepath.Dir(s.path))
	}
	return d, err
}
