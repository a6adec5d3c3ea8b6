package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"switchyard/router"
)

// limited has the conditions of the index jobs_limit, word for word.
const limited = `limit_key <> '' AND state IN ('held', 'queued', 'retrying', 'dispatched', 'running')`

// Jobs that have a place under a limit: all from their admission to their end.
const placed = limited + ` AND state <> 'held'`

// Jobs that wait for one. These are the conditions of the index jobs_next, word for word.
const waitsForPlace = `state = 'held' AND cause = 'limit'`

const (
	placeUnderSQL = `SELECT limit_key FROM jobs WHERE id = ?1 AND ` + placed

	countPlacedSQL = `SELECT count(*) FROM jobs WHERE limit_key = ? AND ` + placed

	someoneWaitsSQL = `SELECT 1 FROM jobs INDEXED BY jobs_next WHERE limit_key = ? AND ` + waitsForPlace + ` LIMIT 1`

	admitSQL = `UPDATE jobs SET limit_key = ?2, urgency = ?3 WHERE id = ?1 AND state IN ('queued', 'retrying')`

	holdForLimitSQL = `
UPDATE jobs SET state = 'held', limit_key = ?2, urgency = ?3, fit = '', cause = 'limit', reason = ?4, decision = ?5, updated_at = ?6
WHERE id = ?1 AND state IN ('queued', 'retrying')`

	// The next job for a place under the limit of this one, if one is free. It has that from now on.
	releaseSQL    = `WITH RECURSIVE gone AS (SELECT limit_key AS key FROM jobs WHERE id = ?1 AND limit_key <> ''),` + nextForPlace
	releaseKeySQL = `WITH RECURSIVE gone AS (SELECT ?1 AS key),` + nextForPlace

	// The order is that of router.LimitQueue. A turn is when a job would have had to come to have it
	// without any urgency: each point is worth 360,000 ms. Of each urgency turns has the oldest
	// job. The urgency of the first turn is served, up to the turns of the others, or 36,000,000 ms
	// after its oldest. Of these jobs the oldest of a repository without a place is next, which is
	// found at once if there is one, else the oldest of that with the fewest.
	nextForPlace = `
	counts AS (SELECT host, owner, repo, count(*) AS n FROM jobs WHERE limit_key = (SELECT key FROM gone) AND ` + placed + ` GROUP BY host, owner, repo),
	turns (id, urgency, at) AS (
		SELECT * FROM (SELECT id, urgency, received_at FROM jobs INDEXED BY jobs_next
			WHERE limit_key = (SELECT key FROM gone) AND ` + waitsForPlace + ` ORDER BY urgency, received_at, id LIMIT 1) AS first
		UNION ALL
		SELECT j.id, j.urgency, j.received_at FROM turns t CROSS JOIN jobs j ON j.id = (SELECT n.id FROM jobs n INDEXED BY jobs_next
			WHERE n.limit_key = (SELECT key FROM gone) AND n.state = 'held' AND n.cause = 'limit' AND n.urgency > t.urgency
			ORDER BY n.urgency, n.received_at, n.id LIMIT 1)),
	served AS (
		SELECT urgency, min(iif(urgency < 0, 9000000000000000000, at + 36000000), coalesce((SELECT min(o.at - o.urgency * 360000) FROM turns o
			WHERE o.urgency <> t.urgency) + urgency * 360000, 9000000000000000000)) AS until
		FROM turns t ORDER BY at - urgency * 360000, urgency DESC LIMIT 1)
UPDATE jobs SET state = 'queued', due_at = ?2, updated_at = ?2, cause = 'queued', reason = 'a place under its limit is free; waits for the router'
WHERE id = coalesce((SELECT held.id FROM ` + heldServed + ` WHERE c.n IS NULL ORDER BY held.received_at, held.id LIMIT 1),
	(SELECT held.id FROM ` + heldServed + ` ORDER BY c.n, held.received_at, held.id LIMIT 1))
AND (SELECT coalesce(sum(n), 0) FROM counts) < CAST(decision ->> '$.limit.running' AS BIGINT)`

	heldServed = `(SELECT id, host, owner, repo, received_at FROM jobs INDEXED BY jobs_next
	WHERE limit_key = (SELECT key FROM gone) AND ` + waitsForPlace + ` AND urgency = (SELECT urgency FROM served) AND received_at <= (SELECT until FROM served)) AS held
	LEFT JOIN counts c ON c.host = held.host AND c.owner = held.owner AND c.repo = held.repo`

	// GitHub gave the runner of this job to one that waited for a place. That one has the
	// place now, or there would be a runner more than the limit for each of those.
	givePlaceSQL = `
UPDATE jobs SET limit_key = '' WHERE id = ?1 AND state = 'retrying' AND limit_key <> ''
	AND (SELECT count(*) FROM jobs p WHERE p.limit_key = jobs.limit_key AND ` + placed + `) > CAST(decision ->> '$.limit.running' AS BIGINT)`

	reorderSQL = `
UPDATE jobs SET limit_key = ?2, urgency = ?3, cause = 'limit', reason = ?4, decision = ?5, updated_at = ?6
WHERE id = ?1 AND ` + waitsForPlace

	releaseHeldSQL = `
UPDATE jobs SET state = 'queued', limit_key = '', due_at = ?2, updated_at = ?2, cause = 'queued', reason = 'the rules have changed: it is decided again'
WHERE id = ?1 AND ` + waitsForPlace

	// The limits under which jobs wait.
	waitedForSQL = `SELECT limit_key FROM jobs INDEXED BY jobs_next WHERE ` + waitsForPlace + ` GROUP BY limit_key`
)

// Each place that Reconsider gives takes a moment, in which nothing else can change.
const placesAtOnce = 20

// Admit implements dispatch.Store.
func (s *dispatchStore) Admit(ctx context.Context, jobID int64, d *router.Decision, now time.Time) (admitted bool, err error) {
	decision, err := asText(d)
	if err != nil {
		return false, err
	}
	key, most := "", 0
	if d.Limit != nil {
		key, most = d.Limit.Key, d.Limit.Running
	}
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		var had string
		if err := t.query(into(&had), placeUnderSQL, jobID); err != nil || key != "" && had == key {
			return err == nil, err
		}
		running, waits, urgency := 0, false, router.UrgencyOf(d)
		if key != "" {
			err := t.query(into(&running), countPlacedSQL, key)
			if err == nil {
				waits, err = found(t, someoneWaitsSQL, key)
			}
			if err != nil {
				return false, err
			}
		}
		query, args := admitSQL, []any{jobID, key, urgency}
		admitted := key == "" || running < most && !waits
		if !admitted {
			query, args = holdForLimitSQL, []any{jobID, key, urgency, saysLimit(d), decision, millis(now)}
		}
		n, err := t.exec(query, args...)
		if err != nil {
			return false, err
		}
		if n == 0 {
			if err := known(t, jobID); err != nil {
				return false, err
			}
			return false, router.ErrNotWaiting
		}
		if had != "" { // the rules have changed
			if _, err := t.exec(releaseKeySQL, had, millis(now)); err != nil {
				return false, err
			}
		}
		if admitted || running >= most {
			return admitted, nil
		}
		if _, err := t.exec(releaseKeySQL, key, millis(now)); err != nil { // the free place is for the one that is next
			return false, err
		}
		return found(t, placeUnderSQL, jobID)
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

// Reorder implements dispatch.Store.
func (s *dispatchStore) Reorder(ctx context.Context, jobID int64, d *router.Decision, now time.Time) (done bool, err error) {
	decision, err := asText(d)
	if err != nil {
		return false, err
	}
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		if d == nil || d.Limit == nil {
			return t.moveJob(jobID, releaseHeldSQL, millis(now))
		}
		return t.moveJob(jobID, reorderSQL, d.Limit.Key, router.UrgencyOf(d), saysLimit(d), decision, millis(now))
	})
}

// Reconsider implements dispatch.Store.
func (s *dispatchStore) Reconsider(ctx context.Context, rules string, now time.Time) (n int, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (int, error) {
		n, err := givePlaces(t, placesAtOnce, millis(now))
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

// givePlaces gives up to most of the free places of all limits.
func givePlaces(t *tx, most, now int64) (given int64, err error) {
	keys, err := all(t.query, func(rows *sql.Rows, key *string) error { return rows.Scan(key) }, waitedForSQL)
	for _, key := range keys {
		for n := int64(1); n > 0 && given < most; given += n {
			if n, err = t.exec(releaseKeySQL, key, now); err != nil {
				return given, fmt.Errorf("give a place under the limit %s: %w", key, err)
			}
		}
	}
	return given, err
}

const (
	heldUnderSQL = `
SELECT id, host, owner, repo, urgency, received_at FROM jobs INDEXED BY jobs_next WHERE limit_key = ?1 AND ` + waitsForPlace + ` LIMIT ?2`

	placedUnderSQL = `
SELECT host, owner, repo, dispatched_at FROM jobs WHERE limit_key = ?1 AND ` + placed + ` ORDER BY dispatched_at = 0, dispatched_at, id LIMIT ?2`

	// Of the newest jobs of a rule, most may wait.
	ranSQL = `
SELECT running_at - dispatched_at, completed_at - dispatched_at FROM (
	SELECT state, dispatched_at, running_at, completed_at FROM jobs INDEXED BY jobs_rule
	WHERE decision ->> '$.rule' = ?1 AND decision IS NOT NULL ORDER BY id DESC LIMIT ?2) AS newest
WHERE state = 'completed' AND dispatched_at > 0 AND running_at >= dispatched_at AND completed_at >= running_at LIMIT ?3`

	queueLength = 20_000 // of these a job's place can be told
)

// LimitQueue implements api.Database.
func (r reads) LimitQueue(ctx context.Context, key, rule string) (l router.LimitQueue, err error) {
	q := r.querier(ctx)
	scanRepo := func(of *router.RepoName) []any { return []any{&of.Host, &of.Owner, &of.Name} }
	l.Held, err = all(q, func(rows *sql.Rows, j *router.HeldJob) error {
		var at int64
		err := rows.Scan(append(append([]any{&j.ID}, scanRepo(&j.Repo)...), &j.Urgency, &at)...)
		j.ReceivedAt = fromMillis(at)
		return err
	}, heldUnderSQL, key, queueLength+1)
	if err == nil {
		l.Placed, err = all(q, func(rows *sql.Rows, p *router.PlacedJob) error {
			var since int64
			err := rows.Scan(append(scanRepo(&p.Repo), &since)...)
			p.Since = fromMillis(since)
			return err
		}, placedUnderSQL, key, queueLength)
	}
	if err == nil {
		l.Ran, err = all(q, func(rows *sql.Rows, j *router.RanJob) error {
			var started, ended int64
			err := rows.Scan(&started, &ended)
			j.Started, j.Ended = time.Duration(started)*time.Millisecond, time.Duration(ended)*time.Millisecond
			return err
		}, ranSQL, rule, searched, router.RanJobs)
	}
	if err != nil {
		return router.LimitQueue{}, fmt.Errorf("read who waits under the limit %s: %w", key, err)
	}
	l.More = len(l.Held) > queueLength
	return l, nil
}
