package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"switchyard/router"
)

// FindJobs implements dispatch.Store.
func (r reads) FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error) {
	return newest(r.querier(ctx), scanJob, jobColumns, func(j router.Job) int64 { return j.ID }, f)
}

const runnerSQL = `SELECT ` + runnerColumns + ` FROM runners WHERE id = ?`

// Runner implements runners.Store.
func (r reads) Runner(ctx context.Context, id string) (router.Runner, error) {
	return only(r.querier(ctx), "read runner "+id, scanRunner, runnerSQL, id)
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

// within adds that a job is of a scope.
func (c *condition) within(s router.Scope) {
	if s == nil {
		return
	}
	some, args := []string{"false"}, []any(nil)
	for _, pattern := range s {
		sql, of := scoped(pattern)
		some, args = append(some, sql), append(args, of...)
	}
	c.and("("+strings.Join(some, " OR ")+")", args...)
}

// scoped returns the condition for a job that one pattern of a scope covers.
func scoped(pattern string) (sql string, args []any) {
	host, owner, name := router.SplitScope(pattern)
	sql, args = "owner = ? COLLATE NOCASE", []any{owner}
	if name != "*" {
		sql, args = sql+" AND repo = ? COLLATE NOCASE", append(args, name)
	}
	if host != "" {
		sql, args = sql+" AND +host = ? COLLATE NOCASE", append(args, host)
	}
	return sql, args
}

const (
	// A scope of more patterns is asked for in several statements: SQLite joins 500 selects at most.
	scopePatterns = 100

	// job_labels has the first characters of a label, by which few others begin.
	labelKey = 64
)

// fewStates are those in which there are few jobs, mostly.
var fewStates = []router.JobState{router.Held, router.Queued, router.Retrying, router.Dispatched, router.Running, router.Denied, router.Unroutable}

// newest reads columns of the jobs of a filter. It asks for each state alone, and
// for each pattern of a scope, as an index is in the order of the IDs within one
// of them only.
func newest[T any](q querier, scan func(*sql.Rows, *T) error, columns string, id func(T) int64, f router.JobFilter) ([]T, error) {
	states := f.States
	switch {
	case len(states) > 0:
	case len(f.Causes) > 0:
		states = router.JobStates
	default:
		states = []router.JobState{""}
	}
	jobs, err := union(q, scan, `SELECT `+columns+` FROM jobs`, "id DESC", f.Within, f.Limit, states,
		func(state router.JobState, pattern string) (string, []any) { return idsOf(f, state, pattern) },
		func(a, b T) int { return cmp.Compare(id(b), id(a)) })
	if err != nil {
		return nil, fmt.Errorf("find jobs: %w", err)
	}
	return jobs, nil
}

// union reads up to limit rows, in an order, of several sources and within each pattern of a
// scope; everything is one pattern, "". idsOf selects the IDs of one source and pattern: the
// IDs come first, as SQLite ends no statement that is past its first row. compare is the order;
// 0: the same row, of two patterns.
func union[T, S any](q querier, scan func(*sql.Rows, *T) error, selects, order string, within router.Scope, limit int, sources []S, idsOf func(source S, pattern string) (string, []any), compare func(a, b T) int) (rows []T, err error) {
	patterns := []string(within)
	if within == nil {
		patterns = []string{""}
	}
	for _, source := range sources {
		for some := range slices.Chunk(patterns, scopePatterns) {
			var of []string
			var args []any
			for _, pattern := range some {
				sql, with := idsOf(source, pattern)
				of, args = append(of, "SELECT id FROM ("+sql+")"), append(args, with...)
			}
			found, err := all(q, scan, selects+` WHERE id IN (`+strings.Join(of, " UNION ALL ")+`) ORDER BY `+order+` LIMIT ?`, append(args, limit)...)
			if err != nil {
				return nil, err
			}
			rows = append(rows, found...)
		}
	}
	slices.SortFunc(rows, compare)
	rows = slices.CompactFunc(rows, func(a, b T) bool { return compare(a, b) == 0 })
	return rows[:min(len(rows), limit)], nil
}

// idsOf selects the IDs of the newest jobs of a filter in one state ("": any)
// and within one pattern ("": everything). The first condition that there is of
// those below, in their order, says which index is read: SQLite would take any,
// as it does not know how many jobs each has.
func idsOf(f router.JobFilter, state router.JobState, pattern string) (query string, args []any) {
	from, key := "jobs", ""
	var where condition
	// by adds a condition; the + keeps SQLite from its index unless it is the first.
	by := func(name, sql string, with ...any) {
		if key == "" {
			key = name
		} else {
			sql = "+" + sql
		}
		where.and(sql, with...)
	}
	few := slices.Contains(fewStates, state)
	if pattern != "" {
		sql, with := scoped(pattern)
		by("scope", sql, with...)
	}
	if f.Repo != "" {
		by("repo", "repo = ? COLLATE NOCASE", f.Repo)
	}
	if f.Owner != "" && key == "repo" {
		where.and("owner = ? COLLATE NOCASE", f.Owner)
	}
	if few {
		by("state", "state = ?", state)
	}
	if len(f.Causes) > 0 {
		if !few {
			by("cause", "cause = 'runner_ended'") // in the states of most jobs, the only one
		}
		var causes []any
		for _, c := range f.Causes {
			causes = append(causes, c)
		}
		where.and("+cause IN (?"+strings.Repeat(", ?", len(causes)-1)+")", causes...)
	}
	if f.Label != "" {
		const has = "label = lower(substr(?, 1, %d))"
		if key == "" {
			key, from = "label", "job_labels CROSS JOIN jobs ON id = job_id"
			where.and(fmt.Sprintf(has, labelKey), f.Label)
		} else {
			where.and(fmt.Sprintf("EXISTS (SELECT 1 FROM job_labels WHERE "+has+" AND job_id = id)", labelKey), f.Label)
		}
		if len(f.Label) > labelKey {
			where.and("EXISTS (SELECT 1 FROM json_each(labels) WHERE value = ? COLLATE NOCASE)", f.Label)
		}
	}
	if f.Rule != "" {
		where.and("decision IS NOT NULL")
		by("rule", "(decision ->> '$.rule') = ?", f.Rule)
	}
	if f.Owner != "" && key != "repo" {
		by("owner", "owner = ? COLLATE NOCASE", f.Owner)
	}
	if f.Host != "" {
		by("host", "host = ?", f.Host)
	}
	if state != "" && !few {
		by("state", "state = ?", state)
	}
	id := "id"
	if key == "label" {
		id = "job_id"
	}
	where.and("true")
	if f.Before != 0 {
		where.and(id+" < ?", f.Before)
	}
	// The first conditions are for the index of times: IDs grow with them, nearly.
	if !f.Since.IsZero() {
		where.and(id+" >= (SELECT min(+id) FROM jobs WHERE received_at >= ?)", millis(f.Since))
		where.and("+received_at >= ?", millis(f.Since))
	}
	if !f.Until.IsZero() {
		where.and(id+" <= (SELECT max(+id) FROM jobs WHERE received_at < ?)", millis(f.Until))
		where.and("+received_at < ?", millis(f.Until))
	}
	return "SELECT " + id + " AS id FROM " + from + " WHERE " + where.String() + " ORDER BY " + id + " DESC LIMIT ?", append(where.args, f.Limit)
}

// FindRunners implements server.Store. It asks for each state alone, by the index
// that has few others. Of the states that most runners are in, those of a scope are
// found by its jobs.
func (r reads) FindRunners(ctx context.Context, f router.RunnerFilter) (runners []router.Runner, err error) {
	type source struct {
		from, where string
		many        bool
	}
	states := []source{{"runners", "true", true}}
	if len(f.States) > 0 {
		states = nil
	}
	for _, s := range f.States {
		is := " AND state = '" + string(s) + "'"
		switch s {
		case router.RunnerLost, router.RunnerStopped:
			states = append(states, source{"runners INDEXED BY runners_given_up", "state IN ('lost', 'stopped')" + is, false})
		case router.RunnerFinished:
			states = append(states, source{"runners", "state = 'finished'", true})
		default:
			states = append(states, source{"runners INDEXED BY runners_live", "ended_at = 0" + is, false},
				source{"runners INDEXED BY runners_open", "ended_at <> 0 AND state IN ('dispatched', 'claimed', 'online', 'busy')" + is, false})
		}
	}
	runners, err = union(r.querier(ctx), scanRunner, `SELECT `+runnerColumns+` FROM runners`, "job_id DESC, try DESC", f.Within, f.Limit, states, func(state source, pattern string) (string, []any) {
		from, order := state.from, "job_id"
		var where condition
		where.and(state.where)
		if f.BeforeJob != 0 {
			where.and("(job_id, try) < (?, ?)", f.BeforeJob, f.BeforeTry)
		}
		if pattern != "" {
			sql, with := scoped(pattern)
			if state.many {
				from, order = "(SELECT id AS of, owner, repo, host FROM jobs) CROSS JOIN "+from+" ON job_id = of", "of"
				if f.BeforeJob != 0 {
					where.and("of <= ?", f.BeforeJob)
				}
				where.and(sql, with...)
			} else {
				where.and("EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job_id AND "+sql+")", with...)
			}
		}
		return "SELECT runners.id FROM " + from + " WHERE " + where.String() + " ORDER BY " + order + " DESC, try DESC LIMIT ?", append(where.args, f.Limit)
	}, func(a, b router.Runner) int { return cmp.Or(cmp.Compare(b.JobID, a.JobID), cmp.Compare(b.Try, a.Try)) })
	if err != nil {
		return nil, fmt.Errorf("find runners: %w", err)
	}
	return runners, nil
}
