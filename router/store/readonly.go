package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"switchyard/router"
)

// A Reader reads the database of a Switchyard, which may be running. It is
// safe for concurrent use.
type Reader struct {
	reads
	db   *pool
	path string
	idle os.FileInfo // the file as it was found, when no process used it; else nil
}

// OpenReadOnly opens the database file at path and changes nothing in it. It
// fails when the file is missing, is no database of Switchyard, or has another
// schema than this version's. The caller must call Close.
func OpenReadOnly(ctx context.Context, path string) (*Reader, error) {
	if IsPostgres(path) {
		r, err := openReadOnlyPostgres(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("open the database in PostgreSQL: %w", err)
		}
		return r, nil
	}
	r, err := openReadOnly(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	return r, nil
}

func openReadOnly(ctx context.Context, path string) (_ *Reader, err error) {
	r := &Reader{}
	if r.path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	// By its own name: the log beside that shows whether it is in use.
	own, err := filepath.EvalSymlinks(r.path)
	var info os.FileInfo
	if err == nil {
		r.path = own
		info, err = os.Stat(own)
	}
	var pathErr *fs.PathError
	switch {
	case errors.As(err, &pathErr):
		return nil, pathErr.Err
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	}
	params := url.Values{"mode": {"ro"}}
	if !r.logged() {
		// SQLite would make a log even to read, and leave it there.
		r.idle = info
		params.Set("immutable", "1")
	}
	db, err := sql.Open("sqlite", dsn(r.path, params, "busy_timeout(5000)", "query_only(1)"))
	if err != nil {
		return nil, err
	}
	r.db = newPool(db)
	r.reads.querier = func(ctx context.Context) querier { return r.trusted(r.db.querier(ctx)) }
	if err := r.check(ctx); err != nil {
		_ = r.db.Close()
		return nil, err
	}
	return r, nil
}

// check refuses a file that Jobs could not read.
func (r *Reader) check(ctx context.Context) error {
	empty, err := check(ctx, r.db.DB)
	if err != nil {
		return err
	}
	if empty {
		return errors.New("it is empty; name a file that serve has used")
	}
	_, old, err := schema(ctx, r.db.DB)
	if old {
		return errOldSchema
	}
	return err
}

var errOldSchema = errors.New("its schema is of an older version of Switchyard; let this version's serve open it once, or export its jobs with that version")

// logged reports whether the file has a log beside it: a process uses it, or
// the last one did not end well.
func (r *Reader) logged() bool {
	_, err := os.Stat(r.path + "-wal")
	return err == nil
}

// unused fails when a process has begun to write the file that was idle.
func (r *Reader) unused() error {
	if r.idle == nil {
		return nil
	}
	info, err := os.Stat(r.path)
	if err != nil {
		return err
	}
	if r.logged() || info.Size() != r.idle.Size() || !info.ModTime().Equal(r.idle.ModTime()) {
		return errors.New("a process began to use the file meanwhile; try again")
	}
	return nil
}

// trusted has a querier fail when a process has begun to write the file meanwhile:
// what was read then is not to be trusted.
func (r *Reader) trusted(q querier) querier {
	return func(scan func(*sql.Rows) error, query string, args ...any) error {
		err := q(scan, query, args...)
		if used := r.unused(); used != nil {
			return used
		}
		return err
	}
}

// Close closes the file.
func (r *Reader) Close() error { return r.db.Close() }

// A Recorded is a job as a history has it.
type Recorded struct {
	Job     router.Job  // GitHub's part of it, and ReceivedAt; of Jobs and History also RunningAt and CompletedAt; the rest is zero
	Outcome string      // what the rules said of it, as in router.Decision; "" until decided
	Run     *router.Run // nil: no rule asked for it

	// Of Jobs and History, as in router.PastJob.
	QueuedAt, PlacedAt, EndedAt time.Time
}

// Past returns the job as rules and other programs see it.
func (r Recorded) Past() router.PastJob {
	p := router.PastJob{
		RunID: router.GitHubID(r.Job.RunID), Outcome: r.Outcome,
		ReceivedAt: r.Job.ReceivedAt, PlacedAt: r.PlacedAt, RunningAt: r.Job.RunningAt, CompletedAt: r.Job.CompletedAt, EndedAt: r.EndedAt,
	}
	p.ID, p.Facts = router.GitHubID(r.Job.ID), r.Job.Facts()
	p.Run = r.Run
	if r.QueuedAt.After(p.ReceivedAt) {
		p.QueuedAt = r.QueuedAt
	}
	return p
}

const jobsPage = 500

// The decision is not taken whole: to decode it takes longer than all the rest. It begins with
// the outcome, and few have a run.
const recordedColumns = `id, run_id, attempt, host, owner, repo, private, visibility, fork, name, workflow, branch, sender, labels, url,
	received_at, coalesce(substr(decision, 13, instr(substr(decision, 13, 20), '"') - 1), ''), iif(instr(decision, '"run":') > 0, decision ->> '$.run', NULL)`

// pastColumns are those with when the job ran.
const pastColumns = recordedColumns + `, running_at, completed_at,
	coalesce((SELECT min(e.at) FROM events e WHERE e.job_id = jobs.id AND e.state = 'queued'), 0),
	coalesce((SELECT r.placed_at FROM runners r WHERE r.name = jobs.runner_name), 0),
	coalesce((SELECT r.ended_at FROM runners r WHERE r.name = jobs.runner_name), 0)`

const pastSQL = `SELECT ` + pastColumns + ` FROM jobs WHERE id > ?1 AND received_at >= ?2 ORDER BY id LIMIT ?3`

func scanPast(rows *sql.Rows, r *Recorded) error {
	var running, completed, queued, placed, ended int64
	err := scanRecordedAnd(rows, r, &running, &completed, &queued, &placed, &ended)
	r.Job.RunningAt, r.Job.CompletedAt = fromMillis(running), fromMillis(completed)
	r.QueuedAt, r.PlacedAt, r.EndedAt = fromMillis(queued), fromMillis(placed), fromMillis(ended)
	return err
}

func scanRecorded(rows *sql.Rows, r *Recorded) error { return scanRecordedAnd(rows, r) }

// scanRecordedAnd reads recordedColumns and what a query has besides.
func scanRecordedAnd(rows *sql.Rows, r *Recorded, besides ...any) error {
	j := &r.Job
	var labels string
	var run sql.NullString
	var received int64
	err := rows.Scan(append([]any{&j.ID, &j.RunID, &j.Attempt, &j.Repo.Host, &j.Repo.Owner, &j.Repo.Name, &j.Repo.Private, &j.Repo.Visibility, &j.Repo.Fork,
		&j.Name, &j.Workflow, &j.Branch, &j.Sender, &labels, &j.URL, &received, &r.Outcome, &run}, besides...)...)
	if err != nil {
		return err
	}
	if run.Valid {
		if err := json.Unmarshal([]byte(run.String), &r.Run); err != nil {
			return fmt.Errorf("decode the run of job %d: %w", j.ID, err)
		}
	}
	j.Repo.FullName = j.Repo.Owner + "/" + j.Repo.Name
	j.ReceivedAt = fromMillis(received)
	if err := json.Unmarshal([]byte(labels), &j.Labels); err != nil {
		return fmt.Errorf("decode the labels of job %d: %w", j.ID, err)
	}
	return nil
}

// Jobs goes through the jobs that were received at since or later (the zero
// time: all), oldest first: by GitHub's ID, which grows. It reads a page at a
// time, so that a slow caller holds nothing up, and ends after an error.
func (r *Reader) Jobs(ctx context.Context, since time.Time) iter.Seq2[Recorded, error] {
	return recorded(0, func(after int64) ([]Recorded, error) {
		return all(r.querier(ctx), scanPast, pastSQL, after, millis(since), jobsPage)
	})
}

// recorded goes through pages of jobs; page reads the one that follows a job's ID, the first from.
func recorded(from int64, page func(last int64) ([]Recorded, error)) iter.Seq2[Recorded, error] {
	return func(yield func(Recorded, error) bool) {
		for last := from; ; {
			jobs, err := page(last)
			if err != nil {
				yield(Recorded{}, fmt.Errorf("read jobs: %w", err))
				return
			}
			for _, job := range jobs {
				if !yield(job, nil) {
					return
				}
			}
			if len(jobs) < jobsPage {
				return
			}
			last = jobs[len(jobs)-1].Job.ID
		}
	}
}
