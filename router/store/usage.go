package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"switchyard/router"
)

// usageGroups are the names of what is counted together, of columns and expressions of the index
// jobs_ended.
var usageGroups = map[router.UsageBy]string{
	router.ByRepo:      usageRepo,
	router.ByOwner:     usageHost + `owner`,
	router.ByRule:      `coalesce(decision ->> '$.rule', '')`,
	router.ByLabel:     `''`,
	router.ByNodeClass: `''`,
	router.ByWorkflow:  usageRepo + ` || ': ' || workflow`,
}

const (
	usageHost = `iif(host = '', '', host || '/') || `
	usageRepo = usageHost + `owner || '/' || repo`

	// Whose runner it was, its fit and the group are one text: SQLite's driver takes as long for a
	// text as for several numbers.
	usedColumns = `completed_at, received_at, running_at, id, iif(substr(runner_name, 1, 4) = 'gha-', 'o', iif(substr(runner_name, 1, 4) = '', 'n', 't')) || fit || ':' || `

	// It reads the index alone, whose order is that of the time.
	usedSQL = ` FROM jobs INDEXED BY jobs_ended WHERE completed_at <> 0 AND completed_at >= ? AND completed_at < ? AND `

	usedOrder = ` ORDER BY completed_at`

	// Only runners that were given up had a node and no job, and they are few.
	unusedSQL = ` FROM runners r INDEXED BY runners_given_up CROSS JOIN jobs ON jobs.id = r.job_id
WHERE r.state IN ('lost', 'stopped') AND r.placed_at <> 0 AND r.ended_at >= ? AND r.ended_at < ? AND `

	// Until a job took them, or they ended.
	warmUsedSQL = `SELECT placed_at, ended_at, rule, asked FROM warm INDEXED BY warm_ended WHERE ended_at <> 0 AND ended_at >= ? AND ended_at < ? AND placed_at <> 0`

	firstEndedSQL = `SELECT completed_at FROM jobs INDEXED BY jobs_ended WHERE completed_at <> 0 ORDER BY completed_at LIMIT 1`
)

// keptAsked is how many kinds of jobs are remembered: labels that differ in each run make as
// many as there are runs.
const keptAsked = 10_000

// Usage implements api.Database.
func (r reads) Usage(ctx context.Context, f router.UsageFilter, each func(*router.Used) error) error {
	u := usageReader{q: r.querier(ctx), by: f.By, asked: map[string]*router.Asked{}}
	group, ok := usageGroups[f.By]
	if !ok {
		return fmt.Errorf("usage by %q is not known", f.By)
	}
	var where condition
	where.within(f.Within)
	where.and("true")
	args := append([]any{millis(f.From), millis(f.Until)}, where.args...)
	jobs := func(rows *sql.Rows) error {
		if err := u.job(rows); err != nil {
			return err
		}
		return each(&u.used)
	}
	err := u.q(jobs, `SELECT `+usedColumns+group+usedSQL+where.String()+usedOrder, args...)
	if err != nil {
		return fmt.Errorf("read what jobs used: %w", err)
	}
	runners := func(rows *sql.Rows) error {
		if err := u.runner(rows); err != nil {
			return err
		}
		return each(&u.used)
	}
	if err := u.q(runners, `SELECT r.placed_at, r.ended_at, jobs.id, iif(r.fit = '', jobs.fit, r.fit) || ':' || `+group+unusedSQL+where.String(), args...); err != nil {
		return fmt.Errorf("read what unused runners took: %w", err)
	}
	if f.Within != nil { // a warm runner is nobody's before a job takes it
		return nil
	}
	warm := func(rows *sql.Rows) error {
		if err := u.warm(rows); err != nil {
			return err
		}
		return each(&u.used)
	}
	if err := u.q(warm, warmUsedSQL, millis(f.From), millis(f.Until)); err != nil {
		return fmt.Errorf("read what warm runners took: %w", err)
	}
	return nil
}

// FirstEnded implements api.Database.
func (r reads) FirstEnded(ctx context.Context) (time.Time, error) {
	var first int64
	if err := r.querier(ctx)(into(&first), firstEndedSQL); err != nil {
		return time.Time{}, fmt.Errorf("read when the first job ended: %w", err)
	}
	return fromMillis(first), nil
}

// A usageReader reads rows into used.
type usageReader struct {
	q     querier
	by    router.UsageBy
	used  router.Used
	asked map[string]*router.Asked // by fit
	text  sql.RawBytes
	group string
}

func (u *usageReader) job(rows *sql.Rows) error {
	var completed, received, running, id int64
	if err := rows.Scan(&completed, &received, &running, &id, &u.text); err != nil {
		return err
	}
	whose := u.text[0]
	fit, group, _ := bytes.Cut(u.text[1:], []byte(":"))
	u.used = router.Used{Group: u.named(group), EndedAt: fromMillis(completed), Started: running != 0}
	took := completed
	if u.used.Started {
		took = min(running, completed)
		u.used.Held = time.Duration(completed-took) * time.Millisecond
	}
	u.used.Queued = time.Duration(max(0, took-received)) * time.Millisecond
	ours := whose == 'o'
	mayBeOurs := whose == 't' && len(fit) > 0 // one was started for the job
	if !ours && !mayBeOurs && u.by != router.ByLabel && u.by != router.ByNodeClass {
		return nil
	}
	err := u.ask(fit, id)
	u.used.Reserved = u.used.Asked != nil && (ours || mayBeOurs && u.used.Asked.Own)
	return err
}

func (u *usageReader) runner(rows *sql.Rows) error {
	var placed, ended, id int64
	if err := rows.Scan(&placed, &ended, &id, &u.text); err != nil {
		return err
	}
	fit, group, _ := bytes.Cut(u.text, []byte(":"))
	u.used = router.Used{Unused: true, Group: u.named(group), EndedAt: fromMillis(ended), Reserved: true, Held: time.Duration(max(0, ended-placed)) * time.Millisecond}
	return u.ask(fit, id)
}

func (u *usageReader) warm(rows *sql.Rows) error {
	var placed, ended int64
	var rule, asked string
	if err := rows.Scan(&placed, &ended, &rule, &asked); err != nil {
		return err
	}
	u.used = router.Used{Unused: true, EndedAt: fromMillis(ended), Reserved: true, Held: time.Duration(max(0, ended-placed)) * time.Millisecond}
	if u.by == router.ByRule {
		u.used.Group = rule
	}
	return json.Unmarshal([]byte(asked), &u.used.Asked)
}

// named returns a group's name; one that is that of the row before is the same string.
func (u *usageReader) named(group []byte) string {
	if u.group != string(group) {
		u.group = string(group)
	}
	return u.group
}

// ask finds out what the runner of a job reserves, once for all jobs of equal fit.
func (u *usageReader) ask(fit []byte, jobID int64) error {
	if u.used.Asked = u.asked[string(fit)]; u.used.Asked != nil {
		return nil
	}
	key := string(fit)                          // before the next statement
	u.used.Asked = &router.Asked{Unsized: true} // the job may be deleted meanwhile
	err := u.q(func(rows *sql.Rows) error {
		var j router.Job
		if err := scanJob(rows, &j); err != nil {
			return err
		}
		u.used.Asked = router.AskedBy(j)
		return nil
	}, jobSQL, jobID)
	if err != nil || key == "" {
		return err
	}
	if len(u.asked) >= keptAsked {
		clear(u.asked)
	}
	u.asked[key] = u.used.Asked
	return nil
}
