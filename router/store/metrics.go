package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
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

const (
	// It reads the runners that may be alive, and no others. Those of equal fit ask for the same.
	liveDemandSQL = `
SELECT iif(r.fit = '', 'job ' || r.job_id, r.fit), ` + runnerCause + `, r.region, count(*), max(r.job_id)
FROM runners r INDEXED BY runners_live WHERE r.ended_at = 0 AND r.state IN ('dispatched', 'claimed', 'online', 'busy') AND r.nomad_job <> '' GROUP BY 1, 2, 3`

	demandedSQL = `
SELECT ` + jobColumns + ` FROM (SELECT value AS of FROM json_each(?1)) AS asked CROSS JOIN jobs ON id = CAST(asked.of AS BIGINT)`
)

// A demands remembers what runners ask for, by fit: a decision has some kilobytes.
type demands struct {
	mu  sync.Mutex
	one map[string]router.NodeDemand // of each fit that a live runner had when they were last counted
}

// NodeDemand implements telemetry.Counter.
func (s *Store) NodeDemand(ctx context.Context) ([]router.NodeDemand, error) {
	type group struct {
		fit     string
		cause   router.Cause
		region  string
		runners int
		job     int64
	}
	s.demands.mu.Lock()
	defer s.demands.mu.Unlock()
	groups, err := list(s.querier(ctx), "count what runners ask for", func(rows *sql.Rows, g *group) error {
		return rows.Scan(&g.fit, &g.cause, &g.region, &g.runners, &g.job)
	}, liveDemandSQL)
	if err != nil {
		return nil, err
	}
	known, asked := map[string]router.NodeDemand{}, []int64{}
	for _, g := range groups {
		if one, ok := s.demands.one[g.fit]; ok {
			known[g.fit] = one
		} else {
			asked = append(asked, g.job)
		}
	}
	ofJob, err := s.demanded(ctx, asked, known)
	s.demands.one = known // so that the next time goes on where this one ended, if it took too long
	if err != nil {
		return nil, fmt.Errorf("read what runners ask for: %w", err)
	}
	type key struct {
		region, pool, class string
		cause               router.Cause
	}
	var all []router.NodeDemand
	at := map[key]int{}
	for _, g := range groups {
		one, ok := known[g.fit]
		if !ok {
			one = ofJob[g.job]
		}
		k := key{g.region, one.NodePool, one.NodeClass, g.cause}
		i, ok := at[k]
		if !ok {
			i = len(all)
			at[k] = i
			all = append(all, router.NodeDemand{Region: k.region, NodePool: k.pool, NodeClass: k.class, Cause: k.cause})
		}
		all[i].Add(one, g.runners)
	}
	return all, nil
}

// demanded reads what the runners of jobs ask for. It adds to known what runners of a job's fit do.
func (s *Store) demanded(ctx context.Context, jobs []int64, known map[string]router.NodeDemand) (map[int64]router.NodeDemand, error) {
	of := make(map[int64]router.NodeDemand, len(jobs))
	if len(jobs) == 0 {
		return of, nil
	}
	ids, err := json.Marshal(jobs)
	if err != nil {
		return nil, err
	}
	for _, id := range jobs {
		of[id] = router.NodeDemand{Runners: 1} // it may be deleted meanwhile
	}
	return of, s.querier(ctx)(func(rows *sql.Rows) error {
		var j router.Job
		if err := scanJob(rows, &j); err != nil {
			return err
		}
		of[j.ID] = router.NodeDemandOf(j)
		if j.Decision != nil {
			known[j.Fit(j.Decision)] = of[j.ID] // which may be another than that of its runner, if it was decided anew
		}
		return nil
	}, demandedSQL, string(ids))
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
