package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"switchyard/router"
)

// Demand implements server.Store.
func (r reads) Demand(ctx context.Context, within router.Scope, since time.Time) ([]router.Demand, error) {
	var where condition
	// By the IDs, which grow with time, nearly: the jobs lie in their order.
	where.and("id >= (SELECT min(+id) FROM jobs WHERE received_at >= ?)", millis(since))
	where.and("+received_at >= ?", millis(since))
	where.and("state <> 'ignored'")
	where.within(within)
	list, at := []router.Demand{}, map[string]int{}
	err := r.querier(ctx)(func(rows *sql.Rows) error {
		var labels sql.RawBytes
		var received, running int64
		if err := rows.Scan(&labels, &received, &running); err != nil {
			return err
		}
		i, ok := at[string(labels)]
		if !ok {
			i = len(list)
			at[string(labels)] = i
			list = append(list, router.Demand{})
			if err := json.Unmarshal(labels, &list[i].Labels); err != nil {
				return err
			}
		}
		list[i].Jobs++
		if running != 0 {
			list[i].Waits = append(list[i].Waits, max(0, time.Duration(running-received)*time.Millisecond))
		}
		return nil
	}, `SELECT labels, received_at, running_at FROM jobs NOT INDEXED WHERE `+where.String(), where.args...)
	if err != nil {
		return nil, fmt.Errorf("read what jobs asked for: %w", err)
	}
	return list, nil
}
