package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"switchyard/router"
)

// What is counted together: the expressions are those of the index jobs_ended.
var usageGroups = map[router.UsageBy]string{
	router.ByRepo:      usageRepo,
	router.ByOwner:     usageHost + `owner`,
	router.ByRule:      `decision ->> '$.rule'`,
	router.ByLabel:     `''`,
	router.ByNodeClass: `''`,
	router.ByWorkflow:  usageRepo + ` || ': ' || workflow`,
}

const (
	usageHost = `iif(host = '', '', host || '/') || `
	usageRepo = usageHost + `owner || '/' || repo`

	// It reads the index alone, whose order is that of the time.
	usedSQL = ` FROM jobs INDEXED BY jobs_ended WHERE completed_at <> 0 AND completed_at >= ? AND completed_at < ? AND `

	usedOrder = ` ORDER BY completed_at`

	// Only runners that were given up had a node and no job, and they are few.
	unusedSQL = ` FROM runners r INDEXED BY runners_given_up CROSS JOIN jobs ON jobs.id = r.job_id
WHERE r.state IN ('lost', 'stopped') AND r.placed_at <> 0 AND r.ended_at >= ? AND r.ended_at < ? AND `

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
	err := u.q(jobs, `SELECT completed_at, received_at, running_at, substr(runner_name, 1, 4), fit, id, `+group+usedSQL+where.String()+usedOrder, args...)
	if err != nil {
		return fmt.Errorf("read what jobs used: %w", err)
	}
	runners := func(rows *sql.Rows) error {
		if err := u.runner(rows); err != nil {
			return err
		}
		return each(&u.used)
	}
	if err := u.q(runners, `SELECT r.placed_at, r.ended_at, iif(r.fit = '', jobs.fit, r.fit), jobs.id, `+group+unusedSQL+where.String(), args...); err != nil {
		return fmt.Errorf("read what unused runners took: %w", err)
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
	names [3]sql.RawBytes
	group string
}

func (u *usageReader) job(rows *sql.Rows) error {
	var completed, received, running, id int64
	runner, fit, group := &u.names[0], &u.names[1], &u.names[2]
	if err := rows.Scan(&completed, &received, &running, runner, fit, &id, group); err != nil {
		return err
	}
	u.used = router.Used{Group: u.named(*group), EndedAt: fromMillis(completed), Started: running != 0}
	took := completed
	if u.used.Started {
		took = min(running, completed)
		u.used.Held = time.Duration(completed-took) * time.Millisecond
	}
	u.used.Queued = time.Duration(max(0, took-received)) * time.Millisecond
	ours := string(*runner) == router.RunnerPrefix
	mayBeOurs := len(*runner) > 0 && len(*fit) > 0 // one was started for the job
	if !ours && !mayBeOurs && u.by != router.ByLabel && u.by != router.ByNodeClass {
		return nil
	}
	err := u.ask(*fit, id)
	u.used.Reserved = u.used.Asked != nil && (ours || mayBeOurs && u.used.Asked.Own)
	return err
}

func (u *usageReader) runner(rows *sql.Rows) error {
	var placed, ended, id int64
	fit, group := &u.names[1], &u.names[2]
	if err := rows.Scan(&placed, &ended, fit, &id, group); err != nil {
		return err
	}
	u.used = router.Used{Unused: true, Group: u.named(*group), EndedAt: fromMillis(ended), Reserved: true, Held: time.Duration(max(0, ended-placed)) * time.Millisecond}
	return u.ask(*fit, id)
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
