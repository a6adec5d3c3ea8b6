package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"switchyard/router"
)

// ofOneCrowd has the conditions of the index jobs_crowd, word for word.
const ofOneCrowd = `p.crowd <> '' AND p.state IN ('held', 'queued', 'retrying', 'dispatched', 'running')`

// Siblings are the jobs of one crowd: see router.Job.Crowd. A row of the table crowds says how
// many of them may have a place, which is a runner or the way to one. While one waits for a
// place, its limit_key is the crowd's name.
const (
	ofCrowd = ` (SELECT count(*) FROM jobs p WHERE p.crowd = j.crowd AND ` + ofOneCrowd + ` AND `

	crowdColumns = `SELECT j.id, j.crowd, j.fit <> '', j.limit_key, coalesce(c.width, 0), coalesce(c.capped, 0), coalesce(c.updated_at, 0), coalesce(k.width, 0), coalesce(k.capped, 0),` +
		ofCrowd + takesPlace + `),` + ofCrowd + `p.state IN ('queued', 'retrying') AND p.fit = ''),` +
		ofCrowd + runs + `),` + ofCrowd + runs + ` AND p.fit IN ('', j.fit))
FROM jobs j `

	takesPlace = `(p.state = 'running' OR p.state IN ('queued', 'retrying', 'dispatched') AND p.fit <> '')`

	// Nomad may say that its runner has ended before GitHub's delivery arrives.
	runs = `p.state = 'running' AND NOT EXISTS (SELECT 1 FROM runners r WHERE r.name = p.runner_name AND r.ended_at <> 0)`

	kindOfCrowd = `LEFT JOIN crowds k ON k.key = substr(j.crowd, 1, 32) WHERE j.id = ?1`

	// Of a job that waits for a runner, or for the job that its runner is to get.
	crowdSQL = crowdColumns + `LEFT JOIN crowds c ON c.key = j.crowd ` + kindOfCrowd + ` AND j.` + waits

	// Of a crowd in which jobs wait, or have waited, for others; of most jobs there is none.
	waitingCrowdSQL = crowdColumns + `JOIN crowds c ON c.key = j.crowd ` + kindOfCrowd

	admitSiblingSQL = `UPDATE jobs SET fit = ?2 WHERE id = ?1 AND state IN ('queued', 'retrying')`

	holdSiblingSQL = `
UPDATE jobs SET state = 'held', limit_key = crowd, fit = '', cause = 'siblings', reason = ?2, decision = ?3, updated_at = ?4
WHERE id = ?1 AND state IN ('queued', 'retrying')`

	// One whose runner GitHub left idle.
	holdIdleSQL = `
UPDATE jobs SET state = 'held', limit_key = crowd, fit = '', cause = 'siblings', reason = ?3, try = try + 1, failures = failures + 1, updated_at = ?4
WHERE id = ?1 AND try = ?2 AND state IN ('queued', 'retrying', 'dispatched')`

	releaseSiblingsSQL = `
UPDATE jobs SET state = 'queued', limit_key = '', due_at = ?2, updated_at = ?2, cause = 'queued', reason = 'it is next of the jobs of its run; waits for the router'
WHERE id IN (SELECT id FROM jobs WHERE ` + limited + ` AND limit_key = ?1 AND state = 'held' ORDER BY received_at, id LIMIT ?3)`

	// GitHub gave the runner of this job to a sibling that waited for a place, and that has it now.
	giveSiblingPlaceSQL = `
UPDATE jobs SET fit = '' WHERE id = ?1 AND state = 'retrying' AND EXISTS (SELECT 1 FROM crowds c WHERE c.key = jobs.crowd
	AND c.width < (SELECT count(*) FROM jobs p WHERE p.crowd = jobs.crowd AND ` + ofOneCrowd + ` AND ` + takesPlace + `))`

	setCrowdSQL = `
INSERT INTO crowds (key, width, capped, held, updated_at) VALUES (?1, ?2, ?3, 0, ?4)
ON CONFLICT (key) DO UPDATE SET width = excluded.width, capped = excluded.capped, updated_at = excluded.updated_at`

	heldBackSQL = `
INSERT INTO crowds (key, width, capped, held, updated_at) VALUES (?1, 0, 0, 1, ?2)
ON CONFLICT (key) DO UPDATE SET held = 1, updated_at = excluded.updated_at`

	// One job of each crowd in which some wait.
	heldCrowdsSQL = `SELECT min(id) FROM jobs WHERE state = 'held' AND cause = 'siblings' GROUP BY limit_key`

	holdToAskSQL = `
UPDATE jobs SET state = 'held', cause = 'approval', reason = ?2, fit = '', wary = 2, updated_at = ?3
WHERE id = ?1 AND state = 'queued' AND wary = 1`
)

// After so long in which none of its jobs has ended, a capped crowd gets one more place: it
// may have been something else that left a runner idle.
const capFor = 2 * time.Hour

// A crowd is what is known of the siblings of a job.
type crowd struct {
	jobID     int64
	key       string
	placed    bool   // the job has a place
	limit     string // its place under its rule's limit
	width     int    // 0: none of them has waited for another
	capped    int
	updatedAt int64
	kindWidth int // of its kind
	kindCap   int
	places    int // taken
	next      int // released, and not decided yet
	running   int
	mates     int // running, with the same kind of runner
}

func crowdOf(t *tx, query string, jobID int64) (c crowd, err error) {
	err = t.query(func(rows *sql.Rows) error {
		return rows.Scan(&c.jobID, &c.key, &c.placed, &c.limit, &c.width, &c.capped, &c.updatedAt, &c.kindWidth, &c.kindCap, &c.places, &c.next, &c.running, &c.mates)
	}, query, jobID)
	return c, err
}

// release lets as many siblings go on as there are free places, and returns how many.
func (c crowd) release(t *tx, now int64) (released int64, err error) {
	free := c.width - c.places - c.next
	if c.key == "" || free <= 0 {
		return 0, nil
	}
	released, err = t.exec(releaseSiblingsSQL, c.key, now, free)
	if released > 0 {
		_, err = t.exec(setCrowdSQL, c.key, c.width, c.capped, now)
	}
	return released, err
}

// nextSibling lets a sibling of a job go on that has left its place.
func nextSibling(t *tx, jobID, now int64) error {
	c, err := crowdOf(t, waitingCrowdSQL, jobID)
	if err == nil {
		_, err = c.release(t, now)
	}
	if err != nil {
		return fmt.Errorf("release a sibling of job %d: %w", jobID, err)
	}
	return nil
}

// widen gives a job's siblings more places as more of them run at the same time: FirstSiblings
// for each, from so many on. Short jobs may never fill more places at once. If GitHub handed out
// no more in a run before, it is one more place at first, once all that have one run.
func widen(t *tx, jobID, now int64) error {
	c, err := crowdOf(t, waitingCrowdSQL, jobID)
	if err != nil || c.key == "" || c.capped != 0 || c.running < router.FirstSiblings {
		return err
	}
	shown := router.FirstSiblings * c.running
	switch {
	case c.kindCap != 0 && c.width <= c.kindWidth && c.running >= c.width:
		c.width++
	case c.kindCap != 0 && c.width <= c.kindWidth, shown <= c.width:
		return nil
	default:
		c.width = shown
		if _, err := t.exec(setCrowdSQL, router.KindOf(c.key), max(c.kindWidth, c.width), 0, now); err != nil {
			return err
		}
	}
	if _, err := t.exec(setCrowdSQL, c.key, c.width, 0, now); err != nil {
		return err
	}
	_, err = c.release(t, now)
	return err
}

// AdmitSibling implements dispatch.Store.
func (s *dispatchStore) AdmitSibling(ctx context.Context, j router.Job, d *router.Decision, now time.Time) (admitted bool, err error) {
	decision, err := asText(d)
	if err != nil {
		return false, err
	}
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		c, err := crowdOf(t, crowdSQL, j.ID)
		if err != nil {
			return false, err
		}
		first := c.width == 0
		switch {
		case c.jobID == 0:
			if err := known(t, j.ID); err != nil {
				return false, err
			}
			return false, router.ErrNotWaiting
		case c.key == "" || c.placed:
			return true, nil
		case !first:
		case c.kindWidth > 0:
			c.width = max(c.kindWidth, router.FirstSiblings)
		case j.Matrix():
			c.width = router.FirstSiblings
		default:
			return true, nil
		}
		query, args := admitSiblingSQL, []any{j.ID, j.Fit(d)}
		admitted := c.places < c.width
		if !admitted {
			query, args = holdSiblingSQL, []any{j.ID, c.says(), decision, millis(now)}
		}
		n, err := t.exec(query, args...)
		switch {
		case err == nil && n == 0:
			return false, router.ErrNotWaiting
		case err != nil || admitted:
			return admitted, err
		}
		if first {
			if _, err := t.exec(setCrowdSQL, c.key, c.width, 0, millis(now)); err != nil {
				return false, err
			}
		}
		return false, c.leaveLimit(t, millis(now))
	})
}

// says returns what a sibling that gets no place waits for.
func (c crowd) says() string {
	if c.capped != 0 {
		return fmt.Sprintf("waits for others of its run: GitHub hands out its jobs one after another (max-parallel?), %d at a time; it gets a runner when another ends", c.width)
	}
	return fmt.Sprintf("waits for others of its run: %s are enough for now, as GitHub may hand out the jobs of a matrix one after another (max-parallel); it gets one when these run, or when another ends",
		router.Count(c.width, "runner"))
}

// leaveLimit gives the job's place under its rule's limit to another.
func (c crowd) leaveLimit(t *tx, now int64) error {
	if c.limit == "" {
		return nil
	}
	_, err := t.exec(releaseKeySQL, c.limit, now)
	return err
}

// holdIdle holds a job whose runner GitHub left idle while siblings of it run: it waits until
// one of them ends, and so do others of its run, now and next time.
func holdIdle(t *tx, r router.Runner, reason string, now int64) (held bool, err error) {
	c, err := crowdOf(t, crowdSQL, r.JobID)
	if err != nil || c.key == "" || c.mates == 0 {
		return false, err
	}
	n, err := t.exec(holdIdleSQL, r.JobID, r.Try, reason+"; others of its run run: GitHub may hand them out one after another, and it gets another runner when one ends", now)
	if err != nil || n == 0 {
		return false, err
	}
	if _, err := t.exec(setCrowdSQL, c.key, c.running, 1, now); err != nil {
		return false, err
	}
	if _, err := t.exec(setCrowdSQL, router.KindOf(c.key), max(c.running, router.FirstSiblings), 1, now); err != nil {
		return false, err
	}
	return true, c.leaveLimit(t, now)
}

// reconsiderSiblings gives the free places of all crowds, in case one was missed, and one more
// to those that were capped long ago.
func reconsiderSiblings(t *tx, now time.Time) (released int64, err error) {
	jobs, err := all(t.query, func(rows *sql.Rows, id *int64) error { return rows.Scan(id) }, heldCrowdsSQL)
	for _, id := range jobs {
		c, err := crowdOf(t, waitingCrowdSQL, id)
		if err == nil && c.capped != 0 && !now.Before(fromMillis(c.updatedAt).Add(capFor)) {
			c.width++
			_, err = t.exec(setCrowdSQL, c.key, c.width, 1, millis(now))
		}
		if err != nil {
			return released, err
		}
		n, err := c.release(t, millis(now))
		if released += n; err != nil {
			return released, err
		}
	}
	return released, err
}

// HoldToAsk implements dispatch.Store.
func (s *dispatchStore) HoldToAsk(ctx context.Context, jobID int64, now time.Time) (held bool, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		return t.moveJob(jobID, holdToAskSQL, "GitHub is asked whether it may start: it deploys to an environment, or GitHub has held such a job back before", millis(now))
	})
}
