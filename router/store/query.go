package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strings"

	"switchyard/router"
)

// FindJobs implements dispatch.Store. It reads until it has found enough, or all.
func (r reads) FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error) {
	s := search{q: r.querier(ctx), f: f}
	return newest(&s, scanJob, jobColumns, func(j router.Job) int64 { return j.ID })
}

// SearchJobs implements api.Database.
func (r reads) SearchJobs(ctx context.Context, f router.JobFilter) (jobs []router.Job, from int64, err error) {
	s := search{q: r.querier(ctx), f: f}
	if err := s.bound(); err != nil {
		return nil, 0, fmt.Errorf("find jobs: %w", err)
	}
	jobs, err = newest(&s, scanJob, jobColumns, func(j router.Job) int64 { return j.ID })
	return jobs, s.from, err
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

	// An index that has fewer jobs of what is asked for is read whole.
	fewJobs = 2000

	// Otherwise a search looks at this many of an index, those with the highest IDs.
	searched = 20_000
)

// fewStates are those in which there are few jobs, mostly.
var fewStates = []router.JobState{router.Held, router.Queued, router.Retrying, router.Dispatched, router.Running, router.Denied, router.Unroutable}

// A search is for the jobs of a filter.
type search struct {
	q     querier
	f     router.JobFilter
	from  int64           // only these IDs and higher ones
	sizes map[string]bool // whether an index has few jobs of what is asked for, by the condition
	times *[2]int64       // the IDs that the times of the filter bound; nil: not asked yet
}

// states are those that are asked for one by one; "" is any.
func (s *search) states() []router.JobState {
	switch {
	case len(s.f.States) > 0:
		return s.f.States
	case len(s.f.Causes) > 0:
		return router.JobStates
	}
	return []router.JobState{""}
}

// newest reads columns of the jobs of a search. It asks for each state alone, and
// for each pattern of a scope, as an index is in the order of the IDs within one
// of them only.
func newest[T any](s *search, scan func(*sql.Rows, *T) error, columns string, id func(T) int64) ([]T, error) {
	jobs, err := union(s.q, scan, `SELECT `+columns+` FROM jobs`, "id DESC", s.f.Within, s.f.Limit, s.states(), s.idsOf,
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
func union[T, S any](q querier, scan func(*sql.Rows, *T) error, selects, order string, within router.Scope, limit int, sources []S, idsOf func(source S, pattern string) (string, []any, error), compare func(a, b T) int) (rows []T, err error) {
	for _, source := range sources {
		for some := range slices.Chunk(patternsOf(within), scopePatterns) {
			var of []string
			var args []any
			for _, pattern := range some {
				sql, with, err := idsOf(source, pattern)
				if err != nil {
					return nil, err
				}
				of, args = append(of, "SELECT id FROM ("+sql+") AS few"), append(args, with...)
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

// An indexed condition is one for which there is an index, in the order of the IDs.
type indexed struct {
	sql    string // with a ~ before each of its columns: as a + it keeps SQLite from the index
	args   []any
	other  string    // in place of sql when another index is read; "": the same
	rest   condition // what else is asked for by it
	label  bool      // the index is job_labels
	sorted bool      // the index is in another order
}

// conditions are those of a filter in one state ("": any) and within one pattern ("":
// everything): those for which there is an index, beginning with the one that has the
// fewest jobs, mostly, and the others.
func (s *search) conditions(state router.JobState, pattern string) (by []indexed, others condition) {
	f := s.f
	add := func(sql string, args ...any) { by = append(by, indexed{sql: sql, args: args}) }
	few := slices.Contains(fewStates, state)
	if pattern != "" {
		host, owner, name := router.SplitScope(pattern)
		if name == "*" {
			add("~owner = ? COLLATE NOCASE", owner)
		} else {
			add("~repo = ? COLLATE NOCASE AND ~owner = ? COLLATE NOCASE", name, owner)
		}
		if host != "" {
			by[0].rest.and("host = ? COLLATE NOCASE", host)
		}
	}
	switch {
	case f.Repo != "" && f.Owner != "":
		add("~repo = ? COLLATE NOCASE AND ~owner = ? COLLATE NOCASE", f.Repo, f.Owner)
	case f.Repo != "":
		add("~repo = ? COLLATE NOCASE", f.Repo)
	}
	if few {
		add("~state = ?", state)
	}
	if len(f.Causes) > 0 {
		if !few {
			add("~cause = 'runner_ended'") // in the states of most jobs, the only one
		}
		var causes []any
		for _, c := range f.Causes {
			causes = append(causes, c)
		}
		others.and("+cause IN (?"+strings.Repeat(", ?", len(causes)-1)+")", causes...)
	}
	if f.Label != "" {
		add(fmt.Sprintf("label = lower(substr(?, 1, %d))", labelKey), f.Label)
		one := &by[len(by)-1]
		if one.label = true; len(f.Label) >= labelKey {
			one.rest.and("EXISTS (SELECT 1 FROM json_each(labels) WHERE value = ? COLLATE NOCASE)", f.Label)
		}
	}
	if f.Rule != "" {
		add("~(decision ->> '$.rule') = ? AND decision IS NOT NULL", f.Rule)
		by[len(by)-1].other = strings.ReplaceAll(ruleSQL, "j.decision", "decision") + " = ?"
	}
	if f.Owner != "" && f.Repo == "" {
		add("~owner = ? COLLATE NOCASE", f.Owner)
	}
	if f.Host != "" {
		add("~host = ?", f.Host)
	}
	if !f.Since.IsZero() || !f.Until.IsZero() {
		until := int64(math.MaxInt64)
		if !f.Until.IsZero() {
			until = millis(f.Until) - 1
		}
		add("~received_at BETWEEN ? AND ?", millis(f.Since), until)
		by[len(by)-1].sorted = true
	}
	if state != "" && !few {
		add("~state = ?", state)
	}
	return by, others
}

// key returns which of the conditions' indexes is read: the first with few jobs, else the
// first that is in the order of the IDs; -1: none. SQLite would take any, as it does not know
// how many jobs each has.
func (s *search) key(by []indexed) (key int, few bool, err error) {
	for i, c := range by {
		if len(by) == 1 && !c.sorted {
			return 0, false, nil
		}
		if few, err := s.few(c); few || err != nil {
			return i, true, err
		}
	}
	return slices.IndexFunc(by, func(c indexed) bool { return !c.sorted }), false, nil
}

// few reports whether the index of a condition has few jobs.
func (s *search) few(c indexed) (few bool, err error) {
	known := fmt.Sprint(c.sql, c.args)
	if few, ok := s.sizes[known]; ok {
		return few, nil
	}
	n := 0
	if err := s.q(into(&n), "SELECT count(*) FROM (SELECT 1 FROM "+c.from()+" WHERE "+c.with("")+" LIMIT ?) AS few", append(c.args, fewJobs)...); err != nil {
		return false, err
	}
	if s.sizes == nil {
		s.sizes = map[string]bool{}
	}
	s.sizes[known] = n < fewJobs
	return n < fewJobs, nil
}

func (c indexed) with(plus string) string { return strings.ReplaceAll(c.sql, "~", plus) }

// from returns what has the index.
func (c indexed) from() string {
	switch {
	case c.label:
		return "job_labels"
	case c.sorted:
		return "jobs INDEXED BY jobs_received"
	}
	return "jobs"
}

// idsOf selects the highest IDs of the jobs of a filter in one state ("": any)
// and within one pattern ("": everything).
func (s *search) idsOf(state router.JobState, pattern string) (query string, args []any, err error) {
	by, where := s.conditions(state, pattern)
	key, few, err := s.key(by)
	if err != nil {
		return "", nil, err
	}
	from, id := "jobs", "id"
	for i, c := range by {
		switch {
		case i == key:
			where.and(c.with(""), c.args...)
			if from = c.from(); c.label {
				from, id = "job_labels CROSS JOIN jobs ON id = job_id", "job_id"
			}
		case c.label:
			where.and("EXISTS (SELECT 1 FROM job_labels WHERE "+c.sql+" AND job_id = id)", c.args...)
		default:
			where.and(cmp.Or(c.other, c.with("+")), c.args...)
		}
		if c.rest.sql != nil {
			where.and(c.rest.String(), c.rest.args...)
		}
	}
	where.and("true")
	if err := s.within(&where, id, few); err != nil {
		return "", nil, err
	}
	return "SELECT " + id + " AS id FROM " + from + " WHERE " + where.String() + " ORDER BY " + id + " DESC LIMIT ?", append(where.args, s.f.Limit), nil
}

// within adds which IDs are looked at, by one bound each way: of several SQLite takes any. IDs
// grow with time, nearly: if many jobs are looked at, the times of the filter bound them.
func (s *search) within(where *condition, id string, few bool) error {
	low, high := s.from, int64(math.MaxInt64)
	if s.f.Before != 0 {
		high = s.f.Before - 1
	}
	if !few && (!s.f.Since.IsZero() || !s.f.Until.IsZero()) {
		if s.times == nil {
			s.times = &[2]int64{0, math.MaxInt64}
			if !s.f.Since.IsZero() {
				if err := s.q(into(&s.times[0]), "SELECT coalesce(min(+id), 0) FROM jobs WHERE received_at >= ?", millis(s.f.Since)); err != nil {
					return err
				}
			}
			if !s.f.Until.IsZero() {
				if err := s.q(into(&s.times[1]), "SELECT coalesce(max(+id), 0) FROM jobs WHERE received_at < ?", millis(s.f.Until)); err != nil {
					return err
				}
			}
		}
		low, high = max(low, s.times[0]), min(high, s.times[1])
	}
	if low != 0 {
		where.and(id+" >= ?", low)
	}
	if high != math.MaxInt64 {
		where.and(id+" <= ?", high)
	}
	return nil
}

// bound has the search look at so many jobs of each index, at most, that it does not find all of.
func (s *search) bound() error {
	from := int64(0)
	for _, state := range s.states() {
		for _, pattern := range patternsOf(s.f.Within) {
			by, others := s.conditions(state, pattern)
			key, few, err := s.key(by)
			if err != nil {
				return err
			}
			if few || others.sql == nil && (len(by) == 0 || len(by) == 1 && by[0].rest.sql == nil && !by[0].sorted) {
				continue
			}
			c, id := indexed{sql: "true"}, "id"
			if key >= 0 {
				c = by[key]
			}
			if c.label {
				id = "job_id"
			}
			var where condition
			where.and(c.with(""), c.args...)
			if err := s.within(&where, id, false); err != nil {
				return err
			}
			last, err := beyond(s.q, id+" FROM "+c.from()+" WHERE "+where.String()+" ORDER BY "+id+" DESC", where.args)
			if err != nil {
				return err
			}
			from = max(from, last)
		}
	}
	s.from = from
	return nil
}

// patternsOf are the patterns that are asked for one by one; "" is everything.
func patternsOf(within router.Scope) []string {
	if within == nil {
		return []string{""}
	}
	return within
}

// beyond returns the ID to which so many jobs of an index are looked at; 0: it has no more.
func beyond(q querier, selects string, args []any) (last int64, err error) {
	err = q(into(&last), "SELECT "+selects+" LIMIT 1 OFFSET ?", append(args, searched)...)
	return last, err
}

// A runnerSource has the runners of a state.
type runnerSource struct {
	from, where string
	many        bool // those of a scope are found by its jobs
}

// SearchRunners implements api.Database. It asks for each state alone, by the index that has
// few others. Of the states that many runners are in, it looks at so many jobs of each pattern,
// at most.
func (r reads) SearchRunners(ctx context.Context, f router.RunnerFilter) (runners []router.Runner, from int64, err error) {
	q := r.querier(ctx)
	defer func() {
		if err != nil {
			err = fmt.Errorf("find runners: %w", err)
		}
	}()
	states := []runnerSource{{"runners", "true", true}}
	if len(f.States) > 0 {
		states = nil
	}
	for _, s := range f.States {
		is := " AND state = '" + string(s) + "'"
		switch s {
		case router.RunnerLost, router.RunnerStopped:
			source := runnerSource{"runners INDEXED BY runners_given_up", "state IN ('lost', 'stopped')" + is, false}
			n := 0
			if err := q(into(&n), "SELECT count(*) FROM (SELECT 1 FROM "+source.from+" WHERE "+source.where+" LIMIT ?) AS few", fewJobs); err != nil {
				return nil, 0, err
			}
			if n == fewJobs && f.Within != nil {
				source.from, source.many = "runners", true
			}
			states = append(states, source)
		case router.RunnerFinished:
			states = append(states, runnerSource{"runners", "state = 'finished'", true})
		default:
			states = append(states, runnerSource{"runners INDEXED BY runners_live", "ended_at = 0" + is, false},
				runnerSource{"runners INDEXED BY runners_open", "ended_at <> 0 AND state IN ('dispatched', 'claimed', 'online', 'busy')" + is, false})
		}
	}
	if slices.ContainsFunc(states, func(s runnerSource) bool { return s.many }) {
		for _, pattern := range f.Within {
			var where condition
			_, owner, name := router.SplitScope(pattern) // the index has no host
			sql, with := scoped(owner + "/" + name)
			where.and(sql, with...)
			if f.BeforeJob != 0 {
				where.and("id <= ?", f.BeforeJob)
			}
			last, err := beyond(q, "id FROM jobs WHERE "+where.String()+" ORDER BY id DESC", where.args)
			if err != nil {
				return nil, 0, err
			}
			from = max(from, last)
		}
	}
	runners, err = union(q, scanRunner, `SELECT `+runnerColumns+` FROM runners`, "job_id DESC, try DESC", f.Within, f.Limit, states, func(state runnerSource, pattern string) (string, []any, error) {
		table, order := state.from, "job_id"
		var where condition
		where.and(state.where)
		if f.BeforeJob != 0 {
			where.and("(job_id, try) < (?, ?)", f.BeforeJob, f.BeforeTry)
		}
		if from != 0 {
			where.and("job_id >= ?", from)
		}
		if pattern != "" {
			sql, with := scoped(pattern)
			if state.many {
				table, order = "(SELECT id AS of, owner, repo, host FROM jobs) AS j CROSS JOIN "+table+" ON job_id = of", "of"
				if f.BeforeJob != 0 {
					where.and("of <= ?", f.BeforeJob)
				}
				if from != 0 {
					where.and("of >= ?", from)
				}
				where.and(sql, with...)
			} else {
				where.and("EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job_id AND "+sql+")", with...)
			}
		}
		return "SELECT runners.id FROM " + table + " WHERE " + where.String() + " ORDER BY " + order + " DESC, try DESC LIMIT ?", append(where.args, f.Limit), nil
	}, func(a, b router.Runner) int { return cmp.Or(cmp.Compare(b.JobID, a.JobID), cmp.Compare(b.Try, a.Try)) })
	return runners, from, err
}
