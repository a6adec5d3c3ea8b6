package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"time"

	"switchyard/router"
)

// ruleSQL selects the rule's name from a decision, which begins with outcome and rule. To
// parse all of it for that, some kilobytes, takes ten times as long. A name has at
// most 128 characters, and none that JSON writes otherwise.
const ruleSQL = `coalesce(substr(j.decision, instr(substr(j.decision, 1, 40), '"rule":"') + 8,
	instr(substr(j.decision, instr(substr(j.decision, 1, 40), '"rule":"') + 8, 130), '"') - 1), '')`

// openJobsSQL reads the jobs that have not ended, and no others.
const openJobsSQL = `
SELECT ` + ruleSQL + `, j.state, j.cause, count(*), min(j.received_at)
FROM jobs j INDEXED BY jobs_state WHERE j.state IN ('held', 'queued', 'retrying', 'dispatched', 'running')`

const openJobsGroups = ` GROUP BY 1, 2, 3`

// OpenJobs implements telemetry.Counter.
func (r reads) OpenJobs(ctx context.Context, within router.Scope) ([]router.OpenJobs, error) {
	var where condition
	where.and("true")
	where.within(within)
	return list(r.querier(ctx), "count the jobs that wait or run", func(rows *sql.Rows, o *router.OpenJobs) error {
		var oldest int64
		err := rows.Scan(&o.Rule, &o.State, &o.Cause, &o.Jobs, &oldest)
		o.Oldest = fromMillis(oldest)
		return err
	}, openJobsSQL+" AND "+where.String()+openJobsGroups, where.args...)
}

// openReposSQL reads the jobs that have not ended, and no others.
const (
	openReposSQL = `
SELECT host, owner, repo, count(*) FILTER (WHERE state IN ('held', 'queued', 'retrying')), count(*) FILTER (WHERE state = 'dispatched' AND cause <> 'starting'),
	count(*) FILTER (WHERE state = 'dispatched' AND cause = 'starting'), count(*) FILTER (WHERE state = 'running'),
	coalesce(min(received_at) FILTER (WHERE state <> 'running'), 0)
FROM jobs INDEXED BY jobs_state WHERE state IN ('held', 'queued', 'retrying', 'dispatched', 'running') AND `

	openReposGroups = ` GROUP BY 1, 2, 3 ORDER BY count(*) DESC, 4 DESC, 1, 2, 3 LIMIT ?`
)

// OpenRepos implements api.Database.
func (r reads) OpenRepos(ctx context.Context, within router.Scope, limit int) ([]router.RepoJobs, error) {
	var where condition
	where.and("true")
	where.within(within)
	return list(r.querier(ctx), "count the jobs of repositories", func(rows *sql.Rows, o *router.RepoJobs) error {
		var oldest int64
		err := rows.Scan(&o.Repo.Host, &o.Repo.Owner, &o.Repo.Name, &o.Waiting, &o.Placing, &o.Starting, &o.Running, &oldest)
		o.Repo.FullName, o.Oldest = o.Repo.Owner+"/"+o.Repo.Name, fromMillis(oldest)
		return err
	}, openReposSQL+where.String()+openReposGroups, append(where.args, limit)...)
}

const liveRunnersSQL = `SELECT state, count(*) FROM runners WHERE ended_at = 0 GROUP BY state`

// LiveRunners implements telemetry.Counter. States without runners are left out.
func (s *Store) LiveRunners(ctx context.Context) (map[router.RunnerState]int, error) {
	return countBy[router.RunnerState](s.querier(ctx), "count runners", liveRunnersSQL)
}

const sizeTimeout = 2 * time.Second // PostgreSQL reads the sizes of files

// Size implements telemetry.Counter.
func (s *Store) Size() (main, wal int64, err error) {
	if s.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), sizeTimeout)
		defer cancel()
		err = s.read.QueryRowContext(ctx, "SELECT pg_database_size(current_database())").Scan(&main)
		return main, 0, err
	}
	file, err := os.Stat(s.path)
	if err != nil {
		return 0, 0, err
	}
	log, err := os.Stat(s.path + "-wal")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return file.Size(), 0, nil
	case err != nil:
		return 0, 0, err
	}
	return file.Size(), log.Size(), nil
}
