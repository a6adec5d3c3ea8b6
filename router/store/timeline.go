package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"switchyard/router"
)

const timelineSQL = `
SELECT at, coalesce(job_id, 0), coalesce(runner_id, ''), source, state, what FROM events
WHERE id IN (SELECT id FROM events WHERE job_id = ?1
	UNION ALL SELECT e.id FROM runners r JOIN events e ON e.runner_id = r.id WHERE r.job_id = ?1)
ORDER BY id`

// Timeline implements server.Store.
func (r reads) Timeline(ctx context.Context, jobID int64) ([]router.Event, error) {
	return list(r.querier(ctx), fmt.Sprintf("read the timeline of job %d", jobID), func(rows *sql.Rows, e *router.Event) error {
		var at int64
		err := rows.Scan(&at, &e.JobID, &e.RunnerID, &e.Source, &e.State, &e.What)
		e.At = fromMillis(at)
		return err
	}, timelineSQL, jobID)
}

const changesSQL = `
SELECT e.id, e.at, j.id, coalesce(e.runner_id, ''), e.source, e.state, e.what, j.host, j.owner, j.repo
FROM events e LEFT JOIN runners r ON r.id = e.runner_id JOIN jobs j ON j.id = coalesce(e.job_id, r.job_id)
WHERE e.id > CASE WHEN ?1 < 0 THEN coalesce((
	SELECT e.id - 1 FROM events e LEFT JOIN runners r ON r.id = e.runner_id JOIN jobs j ON j.id = coalesce(e.job_id, r.job_id)
	ORDER BY e.id DESC LIMIT 1), 0) ELSE ?1 END
ORDER BY e.id LIMIT ?2`

// Changes implements server.Store.
func (r reads) Changes(ctx context.Context, after int64, limit int) ([]router.Change, error) {
	return list(r.querier(ctx), fmt.Sprintf("read changes after %d", after), func(rows *sql.Rows, c *router.Change) error {
		var at int64
		err := rows.Scan(&c.ID, &at, &c.JobID, &c.RunnerID, &c.Source, &c.State, &c.What, &c.Repo.Host, &c.Repo.Owner, &c.Repo.Name)
		c.At, c.Repo.FullName = fromMillis(at), c.Repo.Owner+"/"+c.Repo.Name
		return err
	}, changesSQL, after, limit)
}

const markSQL = `SELECT value FROM marks WHERE name = ?`

// Mark implements runners.Store.
func (s *Store) Mark(ctx context.Context, name string) (value string, err error) {
	err = s.querier(ctx)(into(&value), markSQL, name)
	if err != nil {
		return "", fmt.Errorf("read mark %s: %w", name, err)
	}
	return value, nil
}

const setMarkSQL = `INSERT INTO marks (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`

// SetMark implements intake.SyncStore.
func (s *Store) SetMark(ctx context.Context, name, value string) error {
	return s.exec(ctx, router.SourceRouter, setMarkSQL, name, value)
}

// writableFor is how long after a change it is known that changes can be made. A disk that
// fills must show within minutes, and a server that is idle must not write in most of them.
const writableFor = 5 * time.Minute

// refusedFor is how long the database counts as not writable when it has refused a change:
// another one, of fewer bytes, may be made all the while.
const refusedFor = 5 * time.Second

// Writable implements health.Store. It writes only if nothing else did for writableFor, or
// the last change failed.
func (s *Store) Writable(ctx context.Context) error {
	if err := s.writer.fault.err(); err != nil {
		return err
	}
	if r := s.writer.refused.Load(); r != nil && time.Since(r.at) < refusedFor {
		return r.err
	}
	if time.Since(time.UnixMilli(s.writer.fine.Load())) < writableFor {
		return nil
	}
	return s.SetMark(ctx, "ready", time.Now().UTC().Format(time.RFC3339))
}

// KeepNumbers records the number of each GitHub. It fails if one was another host's before,
// because the IDs in the database contain it.
func (s *Store) KeepNumbers(ctx context.Context, all []router.Instance) error {
	for _, in := range all {
		if in.Number == 0 {
			continue
		}
		mark := fmt.Sprintf("github %d", in.Number)
		host, err := s.Mark(ctx, mark)
		switch {
		case err != nil:
			return err
		case host != "" && host != in.Host:
			return fmt.Errorf("number %d was that of %s, whose jobs are in the database: give %s another", in.Number, host, in.Host)
		case host == "":
			err = s.SetMark(ctx, mark, in.Host)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
