package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"switchyard/router"
)

// The conditions are those of the indexes jobs_due and jobs_turn, word for word.
// Left to itself SQLite takes the index of states and sorts. The jobs that are left out are
// a JSON array; of them no row is read.
const (
	dueSQL = `
SELECT ` + jobColumns + ` FROM jobs INDEXED BY jobs_due WHERE state IN ('queued', 'retrying') AND due_at <= ?1
	AND id NOT IN (SELECT CAST(value AS BIGINT) FROM json_each(?2))
ORDER BY due_at, id LIMIT ?3`

	dueNextSQL = `
SELECT due_at FROM jobs INDEXED BY jobs_due WHERE state IN ('queued', 'retrying') AND due_at > ?
ORDER BY due_at LIMIT 1`

	// The one at an offset, in their order.
	dueAfterSQL = `
SELECT due_at FROM jobs INDEXED BY jobs_due WHERE state IN ('queued', 'retrying')
	AND id NOT IN (SELECT CAST(value AS BIGINT) FROM json_each(?1))
ORDER BY due_at, id LIMIT 1 OFFSET ?2`

	// Each step finds the next owner that has a job: SQLite skips the jobs of one.
	dueOwnersSQL = `
WITH RECURSIVE turn (id, host, owner) AS (
	SELECT * FROM (SELECT id, host, owner FROM jobs INDEXED BY jobs_turn
		WHERE state IN ('queued', 'retrying') AND (host, owner) > (?1, ?2) ORDER BY host, owner LIMIT 1) AS first
	UNION ALL
	SELECT j.id, j.host, j.owner FROM turn t CROSS JOIN jobs j ON j.id = coalesce(
		(SELECT n.id FROM jobs n INDEXED BY jobs_turn
			WHERE n.state IN ('queued', 'retrying') AND n.host = t.host AND n.owner > t.owner ORDER BY n.owner LIMIT 1),
		(SELECT n.id FROM jobs n INDEXED BY jobs_turn
			WHERE n.state IN ('queued', 'retrying') AND n.host > t.host ORDER BY n.host, n.owner LIMIT 1)))
SELECT host, owner FROM turn LIMIT ?3`

	// Likewise the repositories of an owner, each with the time at which its first job is due.
	dueReposSQL = `
WITH RECURSIVE turn (id, repo, due_at) AS (
	SELECT * FROM (SELECT id, repo, due_at FROM jobs INDEXED BY jobs_turn
		WHERE state IN ('queued', 'retrying') AND host = ?1 AND owner = ?2 AND repo > ?3 ORDER BY repo, due_at, id LIMIT 1) AS first
	UNION ALL
	SELECT j.id, j.repo, j.due_at FROM turn t CROSS JOIN jobs j ON j.id = (SELECT n.id FROM jobs n INDEXED BY jobs_turn
		WHERE n.state IN ('queued', 'retrying') AND n.host = ?1 AND n.owner = ?2 AND n.repo > t.repo ORDER BY n.repo, n.due_at, n.id LIMIT 1))
SELECT repo, due_at FROM turn LIMIT ?4`

	// As many of each of some repositories, which are a JSON array.
	dueOfReposSQL = `
SELECT ` + jobColumns + ` FROM (SELECT value AS of FROM json_each(?3)) AS repos CROSS JOIN jobs ON id IN (SELECT n.id FROM jobs n INDEXED BY jobs_turn
	WHERE n.state IN ('queued', 'retrying') AND n.host = ?1 AND n.owner = ?2 AND n.repo = of AND n.due_at <= ?4
		AND n.id NOT IN (SELECT CAST(value AS BIGINT) FROM json_each(?6))
	ORDER BY n.due_at, n.id LIMIT ?5)`

	// So many repositories of an owner are read to find one that has a due job: most have.
	turnRepos = 1000
)

// A turnOf holds whose turn it is after a batch of due jobs. The zero value is ready.
type turnOf struct {
	mu    sync.Mutex
	owner ownerOf            // the last one of the batch before
	repo  map[ownerOf]string // the last one of each
}

type ownerOf struct{ host, name string }

// Due implements dispatch.Store.
func (s *dispatchStore) Due(ctx context.Context, now time.Time, except []int64, limit int) (due []router.Job, next time.Time, err error) {
	q := s.querier(ctx)
	out, err := json.Marshal(append([]int64{}, except...)) // never null, of which nothing is not in
	if err != nil {
		return nil, time.Time{}, err
	}
	var after int64
	scan := into(&after)
	err = q(scan, dueAfterSQL, string(out), limit)
	more := after != 0 && after <= millis(now)
	if err == nil && more {
		due, err = s.dueInTurn(q, now, string(out), limit)
	}
	if err == nil && len(due) < limit {
		due, err = dueInOrder(q, due, now, string(out), limit)
	}
	if err == nil && !more {
		after = 0
		err = q(scan, dueNextSQL, millis(now))
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read due jobs: %w", err)
	}
	return spread(due), fromMillis(after), nil
}

// dueInOrder adds the jobs that are due for longest until there are limit.
func dueInOrder(q querier, due []router.Job, now time.Time, except string, limit int) ([]router.Job, error) {
	have := map[int64]bool{}
	for _, j := range due {
		have[j.ID] = true
	}
	longest, err := all(q, scanJob, dueSQL, millis(now), except, limit)
	for _, j := range longest {
		if len(due) < limit && !have[j.ID] {
			due = append(due, j)
		}
	}
	return due, err
}

// dueInTurn reads due jobs of which there are more than limit: of each owner as
// many, and of each of its repositories, beginning after the one that was last. An
// owner with many jobs so holds up none with few.
func (s *dispatchStore) dueInTurn(q querier, now time.Time, except string, limit int) (due []router.Job, err error) {
	s.turn.mu.Lock()
	defer s.turn.mu.Unlock()
	owners, err := all(q, func(rows *sql.Rows, o *ownerOf) error { return rows.Scan(&o.host, &o.name) }, dueOwnersSQL, s.turn.owner.host, s.turn.owner.name, limit)
	if err == nil && len(owners) < limit && s.turn.owner != (ownerOf{}) { // from the first on, up to where it began
		var first []ownerOf
		first, err = all(q, func(rows *sql.Rows, o *ownerOf) error { return rows.Scan(&o.host, &o.name) }, dueOwnersSQL, "", "", limit-len(owners))
		seen := map[ownerOf]bool{}
		for _, o := range owners {
			seen[o] = true
		}
		for _, o := range first {
			if !seen[o] {
				owners = append(owners, o)
			}
		}
	}
	if err != nil || len(owners) == 0 {
		return nil, err
	}
	repos := map[ownerOf]string{}
	share := (limit + len(owners) - 1) / len(owners)
	for _, o := range owners {
		some, last, err := s.dueOf(q, o, s.turn.repo[o], now, except, share)
		if err != nil {
			return nil, err
		}
		due, repos[o] = append(due, some...), last
	}
	// All that were read are handed out, up to the limit.
	if len(due) > limit {
		due = spread(due)[:limit]
	}
	s.turn.owner, s.turn.repo = owners[len(owners)-1], repos
	return due, nil
}

// dueOf reads up to n due jobs of an owner, of each of its repositories as many,
// beginning after the repository last, and returns which was last then.
func (s *dispatchStore) dueOf(q querier, o ownerOf, last string, now time.Time, except string, n int) (due []router.Job, _ string, err error) {
	type first struct {
		repo string
		due  int64
	}
	scan := func(rows *sql.Rows, f *first) error { return rows.Scan(&f.repo, &f.due) }
	repos, err := all(q, scan, dueReposSQL, o.host, o.name, last, turnRepos)
	if err == nil && last != "" && len(repos) < turnRepos {
		var begin []first
		begin, err = all(q, scan, dueReposSQL, o.host, o.name, "", turnRepos-len(repos))
		for _, f := range begin {
			if f.repo <= last {
				repos = append(repos, f)
			}
		}
	}
	if err != nil {
		return nil, "", err
	}
	var ready []string
	for _, f := range repos {
		if f.due <= millis(now) && len(ready) < n {
			ready = append(ready, f.repo)
		}
	}
	if len(ready) == 0 && len(repos) == turnRepos {
		last = repos[turnRepos-1].repo // others may have one
	}
	if len(ready) == 0 {
		return nil, last, nil
	}
	of, err := json.Marshal(ready)
	if err != nil {
		return nil, "", err
	}
	due, err = all(q, scanJob, dueOfReposSQL, o.host, o.name, string(of), millis(now), (n+len(ready)-1)/len(ready), except)
	if err != nil {
		return nil, "", err
	}
	return inTurn(due, func(j router.Job) any { return j.Repo.Name }, inOrder)[:min(len(due), n)], ready[len(ready)-1], nil
}

// spread puts jobs in turn by owner, then by repository, and leaves those of one
// repository in their order.
func spread(due []router.Job) []router.Job {
	return inTurn(due, func(j router.Job) any { return ownerOf{j.Repo.Host, j.Repo.Owner} }, func(of []router.Job) []router.Job {
		return inTurn(of, func(j router.Job) any { return j.Repo.Name }, inOrder)
	})
}

func inOrder(jobs []router.Job) []router.Job {
	slices.SortFunc(jobs, func(a, b router.Job) int { return cmp.Or(a.DueAt.Compare(b.DueAt), cmp.Compare(a.ID, b.ID)) })
	return jobs
}

// inTurn takes one job of each group after the other, as within puts it.
func inTurn(jobs []router.Job, key func(router.Job) any, within func([]router.Job) []router.Job) []router.Job {
	var keys []any
	groups := map[any][]router.Job{}
	for _, j := range jobs {
		k := key(j)
		if groups[k] == nil {
			keys = append(keys, k)
		}
		groups[k] = append(groups[k], j)
	}
	for k := range groups {
		groups[k] = within(groups[k])
	}
	turned := make([]router.Job, 0, len(jobs))
	for i := 0; len(turned) < len(jobs); i++ {
		for _, k := range keys {
			if i < len(groups[k]) {
				turned = append(turned, groups[k][i])
			}
		}
	}
	return turned
}
