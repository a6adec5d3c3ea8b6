package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"switchyard/router"
)

// Oldest implements api.Database. It asks for each state alone: its part of the index
// of states is in the order of the IDs, which grow with time, nearly.
func (r reads) Oldest(ctx context.Context, within router.Scope, limit int) (jobs []router.Job, err error) {
	for _, state := range []router.JobState{router.Held, router.Queued, router.Retrying, router.Dispatched} {
		var where condition
		where.and("state = ?", state)
		where.within(within)
		found, err := all(r.querier(ctx), scanJob, `SELECT `+jobColumns+` FROM jobs INDEXED BY jobs_state WHERE `+where.String()+` ORDER BY id LIMIT ?`,
			append(where.args, limit)...)
		if err != nil {
			return nil, fmt.Errorf("find the jobs that wait longest: %w", err)
		}
		jobs = append(jobs, found...)
	}
	slices.SortStableFunc(jobs, func(a, b router.Job) int {
		return cmp.Or(a.ReceivedAt.Compare(b.ReceivedAt), cmp.Compare(a.ID, b.ID))
	})
	return jobs[:min(len(jobs), limit)], nil
}

// Starts implements api.Database. It reads the index alone, and makes one string of
// each rule's name, however many jobs it took.
func (r reads) Starts(ctx context.Context, within router.Scope, since time.Time) (list []router.Start, err error) {
	var where condition
	where.and("running_at <> 0 AND running_at >= ?", millis(since))
	where.within(within)
	names := map[string]string{}
	err = r.querier(ctx)(func(rows *sql.Rows) error {
		var running, received int64
		var rule sql.RawBytes
		if err := rows.Scan(&running, &received, &rule); err != nil {
			return err
		}
		name, ok := names[string(rule)]
		if !ok {
			name = string(rule)
			names[name] = name
		}
		list = append(list, router.Start{At: fromMillis(running), Waited: max(0, time.Duration(running-received)*time.Millisecond), Rule: name})
		return nil
	}, `SELECT running_at, received_at, decision ->> '$.rule' FROM jobs INDEXED BY jobs_started WHERE `+where.String()+` ORDER BY running_at`, where.args...)
	if err != nil {
		return nil, fmt.Errorf("read which jobs started since %v: %w", since, err)
	}
	return list, nil
}
