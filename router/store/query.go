package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"switchyard/router"
)

// FindJobs implements router.Store.
func (s *Store) FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error) {
	return findJobs(s.querier(ctx), f)
}

// FindRunners implements router.Store.
func (s *Store) FindRunners(ctx context.Context, f router.RunnerFilter) ([]router.Runner, error) {
	return findRunners(s.querier(ctx), f)
}

const runnerSQL = `SELECT ` + runnerColumns + ` FROM runners WHERE id = ?`

// Runner implements router.Store.
func (s *Store) Runner(ctx context.Context, id string) (router.Runner, error) {
	return oneRunner(s.querier(ctx), id)
}

func oneRunner(q querier, id string) (r router.Runner, err error) {
	if err := one(q, scanRunner, &r, runnerSQL, id); err != nil {
		return router.Runner{}, fmt.Errorf("read runner %s: %w", id, err)
	}
	if r.ID == "" {
		return router.Runner{}, router.ErrNotFound
	}
	return r, nil
}

// A condition is a part of WHERE, with its arguments.
type condition struct {
	sql  []string
	args []any
}

func (c *condition) and(sql string, args ...any) {
	c.sql, c.args = append(c.sql, sql), append(c.args, args...)
}

func (c *condition) String() string { return strings.Join(c.sql, " AND ") }

// within is that a job is of a scope.
func (c *condition) within(s router.Scope) {
	if s == nil {
		return
	}
	some, args := []string{"false"}, []any(nil)
	for _, pattern := range s {
		host, owner, name := router.SplitScope(pattern)
		sql := "owner = ? COLLATE NOCASE"
		args = append(args, owner)
		if name != "*" {
			sql, args = sql+" AND repo = ? COLLATE NOCASE", append(args, name)
		}
		if host != "" {
			sql, args = sql+" AND host = ? COLLATE NOCASE", append(args, host)
		}
		some = append(some, sql)
	}
	c.and("("+strings.Join(some, " OR ")+")", args...)
}

// likely takes from a pattern of LIKE what it means by some characters.
var likely = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")

// findJobs asks for each state alone, as an index is in the order of the IDs
// within one state only.
func findJobs(q querier, f router.JobFilter) ([]router.Job, error) {
	var where condition
	where.and("true")
	if f.Before != 0 {
		where.and("id < ?", f.Before)
	}
	if f.Host != "" {
		where.and("host = ?", f.Host)
	}
	if f.Owner != "" {
		where.and("owner = ? COLLATE NOCASE", f.Owner)
	}
	if f.Repo != "" {
		where.and("repo = ? COLLATE NOCASE", f.Repo)
	}
	if f.Rule != "" {
		where.and("decision IS NOT NULL AND decision ->> '$.rule' = ?", f.Rule)
	}
	if f.Label != "" {
		// What holds no such text is not taken apart.
		if b, err := json.Marshal(f.Label); err == nil {
			where.and("labels LIKE ? ESCAPE '!'", "%"+likely.Replace(string(b))+"%")
		}
		where.and("EXISTS (SELECT 1 FROM json_each(labels) WHERE value = ? COLLATE NOCASE)", f.Label)
	}
	where.within(f.Within)
	// The first conditions are for the index of times: IDs grow with them, nearly.
	if !f.Since.IsZero() {
		where.and("id >= (SELECT min(+id) FROM jobs WHERE received_at >= ?)", millis(f.Since))
		where.and("+received_at >= ?", millis(f.Since))
	}
	if !f.Until.IsZero() {
		where.and("id <= (SELECT max(id) FROM jobs WHERE received_at < ?)", millis(f.Until))
		where.and("+received_at < ?", millis(f.Until))
	}
	states := f.States
	if len(states) == 0 {
		states = []router.JobState{""}
	}
	var jobs []router.Job
	for _, state := range states {
		query, args := `SELECT `+jobColumns+` FROM jobs WHERE `+where.String(), slices.Clone(where.args)
		if state != "" {
			query, args = query+` AND state = ?`, append(args, state)
		}
		found, err := all(q, scanJob, query+` ORDER BY id DESC LIMIT ?`, append(args, f.Limit)...)
		if err != nil {
			return nil, fmt.Errorf("find jobs: %w", err)
		}
		jobs = append(jobs, found...)
	}
	slices.SortFunc(jobs, func(a, b router.Job) int { return cmp.Compare(b.ID, a.ID) })
	return jobs[:min(len(jobs), f.Limit)], nil
}

// findRunners asks for each state alone, by the index that has few others.
func findRunners(q querier, f router.RunnerFilter) (runners []router.Runner, err error) {
	states := []string{"runners WHERE true"}
	if len(f.States) > 0 {
		states = nil
	}
	for _, s := range f.States {
		switch s {
		case router.RunnerLost, router.RunnerStopped:
			states = append(states, "runners INDEXED BY runners_given_up WHERE state IN ('lost', 'stopped') AND state = '"+string(s)+"'")
		case router.RunnerFinished:
			states = append(states, "runners WHERE state = 'finished'")
		default:
			states = append(states, "runners INDEXED BY runners_live WHERE ended_at = 0 AND state = '"+string(s)+"'",
				"runners INDEXED BY runners_open WHERE ended_at <> 0 AND state IN ('dispatched', 'claimed', 'online', 'busy') AND state = '"+string(s)+"'")
		}
	}
	var where condition
	where.and("true")
	if f.BeforeJob != 0 {
		where.and("(job_id, try) < (?, ?)", f.BeforeJob, f.BeforeTry)
	}
	for _, state := range states {
		query, args := `SELECT `+runnerColumns+` FROM `+state+` AND `+where.String(), slices.Clone(where.args)
		if f.Within != nil {
			var jobs condition
			jobs.within(f.Within)
			query, args = query+` AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job_id AND `+jobs.String()+`)`, append(args, jobs.args...)
		}
		found, err := all(q, scanRunner, query+` ORDER BY job_id DESC, try DESC LIMIT ?`, append(args, f.Limit)...)
		if err != nil {
			return nil, fmt.Errorf("find runners: %w", err)
		}
		runners = append(runners, found...)
	}
	slices.SortFunc(runners, func(a, b router.Runner) int { return cmp.Or(cmp.Compare(b.JobID, a.JobID), cmp.Compare(b.Try, a.Try)) })
	return runners[:min(len(runners), f.Limit)], nil
}

// FindJobs is as that of router.Store, and so are the others below.
func (r *Reader) FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error) {
	return trusted(r, func() ([]router.Job, error) { return findJobs(reader(ctx, r.db), f) })
}

// FindRunners returns the runners that f looks for.
func (r *Reader) FindRunners(ctx context.Context, f router.RunnerFilter) ([]router.Runner, error) {
	return trusted(r, func() ([]router.Runner, error) { return findRunners(reader(ctx, r.db), f) })
}

// Job returns one job; router.ErrNotFound when it is not known.
func (r *Reader) Job(ctx context.Context, id int64) (router.Job, error) {
	return trusted(r, func() (router.Job, error) { return oneJob(reader(ctx, r.db), id) })
}

// Runner returns one runner.
func (r *Reader) Runner(ctx context.Context, id string) (router.Runner, error) {
	return trusted(r, func() (router.Runner, error) { return oneRunner(reader(ctx, r.db), id) })
}

// Runners returns the runners that are or were meant for a job, by try.
func (r *Reader) Runners(ctx context.Context, jobID int64) ([]router.Runner, error) {
	return trusted(r, func() ([]router.Runner, error) { return runnersOf(reader(ctx, r.db), jobID) })
}

// Timeline returns what happened to a job and to the runners meant for it, oldest first.
func (r *Reader) Timeline(ctx context.Context, jobID int64) ([]router.Event, error) {
	return trusted(r, func() ([]router.Event, error) { return timelineOf(reader(ctx, r.db), jobID) })
}

// Changes returns what changed after the one with this ID.
func (r *Reader) Changes(ctx context.Context, after int64, limit int) ([]router.Change, error) {
	return trusted(r, func() ([]router.Change, error) { return changes(reader(ctx, r.db), after, limit) })
}

// trusted returns what was read, unless a process has begun to write the file meanwhile.
func trusted[T any](r *Reader, read func() (T, error)) (T, error) {
	v, err := read()
	if used := r.unused(); used != nil {
		var none T
		return none, fmt.Errorf("read %s: %w", r.path, used)
	}
	return v, err
}
