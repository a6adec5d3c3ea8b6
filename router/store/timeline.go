package store

import (
	"context"
	"database/sql"
	"fmt"

	"switchyard/router"
)

const timelineSQL = `
SELECT at, coalesce(job_id, 0), coalesce(runner_id, ''), source, state, what FROM events
WHERE job_id = ?1 OR runner_id IN (SELECT id FROM runners WHERE job_id = ?1)
ORDER BY id`

// Timeline implements router.Store.
func (s *Store) Timeline(ctx context.Context, jobID int64) ([]router.Event, error) {
	return timelineOf(ctx, s.read, jobID)
}

func timelineOf(ctx context.Context, db *sql.DB, jobID int64) ([]router.Event, error) {
	var events []router.Event
	rows, err := db.QueryContext(ctx, timelineSQL, jobID)
	if err == nil {
		err = each(rows, func(rows *sql.Rows) error {
			var e router.Event
			var at int64
			err := rows.Scan(&at, &e.JobID, &e.RunnerID, &e.Source, &e.State, &e.What)
			e.At = fromMillis(at)
			events = append(events, e)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the time line of job %d: %w", jobID, err)
	}
	return events, nil
}

// Mark implements router.Store.
func (s *Store) Mark(ctx context.Context, name string) (value string, err error) {
	rows, err := s.read.QueryContext(ctx, `SELECT value FROM marks WHERE name = ?`, name)
	if err == nil {
		err = each(rows, func(rows *sql.Rows) error { return rows.Scan(&value) })
	}
	if err != nil {
		return "", fmt.Errorf("read mark %s: %w", name, err)
	}
	return value, nil
}

const setMarkSQL = `INSERT INTO marks (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`

// SetMark implements router.Store.
func (s *Store) SetMark(ctx context.Context, name, value string) error {
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		_, err := t.exec(setMarkSQL, name, value)
		return err
	})
}
