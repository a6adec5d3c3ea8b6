package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"switchyard/router"
)

// limited has the conditions of the index jobs_limit, word for word.
const limited = `limit_key <> '' AND state IN ('held', 'queued', 'retrying', 'dispatched', 'running')`

// Jobs that have a place under a limit: all from their admission to their end.
const placed = limited + ` AND state <> 'held'`

const (
	hasPlaceSQL = `SELECT 1 FROM jobs WHERE id = ?1 AND limit_key = ?2 AND ` + placed

	countPlacedSQL = `SELECT count(*) FROM jobs WHERE limit_key = ? AND ` + placed

	admitSQL = `UPDATE jobs SET limit_key = ?2 WHERE id = ?1 AND state IN ('queued', 'retrying')`

	holdForLimitSQL = `
UPDATE jobs SET state = 'held', limit_key = ?2, fit = '', cause = 'limit', reason = ?3, decision = ?4, updated_at = ?5
WHERE id = ?1 AND state IN ('queued', 'retrying')`

	// Of the jobs that wait for the place which this one leaves: the oldest one
	// of the repository that has the fewest.
	releaseSQL    = `WITH gone AS (SELECT limit_key AS key FROM jobs WHERE id = ?1 AND limit_key <> ''),` + nextForPlace
	releaseKeySQL = `WITH gone AS (SELECT ?1 AS key),` + nextForPlace

	nextForPlace = `
	counts AS (SELECT host, owner, repo, count(*) AS n FROM jobs, gone WHERE limit_key = key AND ` + placed + ` GROUP BY host, owner, repo)
UPDATE jobs SET state = 'queued', limit_key = '', due_at = ?2, updated_at = ?2, cause = 'queued', reason = 'a place under its limit is free; waits for the router'
WHERE id = (
	SELECT held.id FROM gone
	JOIN (SELECT * FROM jobs WHERE ` + limited + `) held ON held.limit_key = gone.key AND held.state = 'held'
	LEFT JOIN counts ON counts.host = held.host AND counts.owner = held.owner AND counts.repo = held.repo
	ORDER BY coalesce(counts.n, 0), held.received_at, held.id
	LIMIT 1)`

	// GitHub gave the runner of this job to one that waited for a place. That one has the
	// place now, or there would be a runner more than the limit for each of those.
	givePlaceSQL = `
UPDATE jobs SET limit_key = '' WHERE id = ?1 AND state = 'retrying' AND limit_key <> ''
	AND (SELECT count(*) FROM jobs p WHERE p.limit_key = jobs.limit_key AND ` + placed + `) > CAST(decision ->> '$.limit.running' AS BIGINT)`

	releaseAllSQL = `
UPDATE jobs SET state = 'queued', limit_key = '', due_at = ?1, updated_at = ?1, cause = 'queued', reason = 'its limit is checked again'
WHERE state = 'held' AND limit_key <> '' AND cause <> 'siblings'`
)

// Admit implements dispatch.Store.
func (s *dispatchStore) Admit(ctx context.Context, jobID int64, d *router.Decision, now time.Time) (admitted bool, err error) {
	decision, err := asText(d)
	if err != nil {
		return false, err
	}
	key := d.Limit.Key
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		if has, err := found(t, hasPlaceSQL, jobID, key); has || err != nil {
			return has, err
		}
		running := 0
		if err := t.query(into(&running), countPlacedSQL, key); err != nil {
			return false, err
		}
		query, args := admitSQL, []any{jobID, key}
		admitted := running < d.Limit.Running
		if !admitted {
			query, args = holdForLimitSQL, []any{jobID, key, saysLimit(d), decision, millis(now)}
		}
		n, err := t.exec(query, args...)
		if n > 0 || err != nil {
			return admitted, err
		}
		if err := known(t, jobID); err != nil {
			return false, err
		}
		return false, router.ErrNotWaiting
	})
}

// saysLimit returns what a job that gets no place waits for.
func saysLimit(d *router.Decision) string {
	of := ""
	if _, counted, ok := strings.Cut(d.Limit.Key, "|"); ok {
		switch {
		case d.Limit.Per != "label":
			of = fmt.Sprintf(" of %s %s", d.Limit.Per, counted)
		case counted != "":
			of = " with the labels " + counted
		default:
			of = " without known labels"
		}
	}
	return fmt.Sprintf("waits for a place: rule %s runs at most %s%s at a time", d.Rule, router.Count(d.Limit.Running, "job"), of)
}

// Reconsider implements dispatch.Store.
func (s *dispatchStore) Reconsider(ctx context.Context, rules string, now time.Time) (n int, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (int, error) {
		n, err := t.exec(releaseAllSQL, millis(now))
		if err != nil {
			return 0, err
		}
		siblings, err := reconsiderSiblings(t, now)
		if err != nil {
			return 0, err
		}
		outdated, err := t.exec(releaseOutdatedSQL, rules, millis(now))
		return int(n + siblings + outdated), err
	})
}
