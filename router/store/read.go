package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"switchyard/router"
)

const jobColumns = `id, run_id, attempt, host, owner, repo, private, visibility, fork, name, workflow, branch, sender, labels, url,
	state, cause, reason, decision, try, failures, due_at, received_at, updated_at, runner_name, conclusion,
	sha, fallback, dispatched_at, running_at, completed_at, asked_at, wary`

// scanJob reads jobColumns.
func scanJob(rows *sql.Rows, j *router.Job) error { return scanJobAnd(rows, j) }

// scanJobAnd reads jobColumns and what a query has besides.
func scanJobAnd(rows *sql.Rows, j *router.Job, besides ...any) error {
	var labels string
	var decision sql.NullString
	var due, received, updated, dispatched, running, completed, asked int64
	err := rows.Scan(append([]any{&j.ID, &j.RunID, &j.Attempt, &j.Repo.Host, &j.Repo.Owner, &j.Repo.Name, &j.Repo.Private, &j.Repo.Visibility, &j.Repo.Fork,
		&j.Name, &j.Workflow, &j.Branch, &j.Sender, &labels, &j.URL,
		&j.State, &j.Cause, &j.Reason, &decision, &j.Try, &j.Failures, &due, &received, &updated, &j.RunnerName, &j.Conclusion,
		&j.SHA, &j.Fallback, &dispatched, &running, &completed, &asked, &j.Wary}, besides...)...)
	if err != nil {
		return err
	}
	j.Repo.FullName = j.Repo.Owner + "/" + j.Repo.Name
	j.DueAt, j.ReceivedAt, j.UpdatedAt = fromMillis(due), fromMillis(received), fromMillis(updated)
	j.DispatchedAt, j.RunningAt, j.CompletedAt, j.AskedAt = fromMillis(dispatched), fromMillis(running), fromMillis(completed), fromMillis(asked)
	if err := json.Unmarshal([]byte(labels), &j.Labels); err != nil {
		return fmt.Errorf("decode the labels of job %d: %w", j.ID, err)
	}
	if decision.Valid {
		if err := json.Unmarshal([]byte(decision.String), &j.Decision); err != nil {
			return fmt.Errorf("decode the decision of job %d: %w", j.ID, err)
		}
		if j.Decision != nil && j.Decision.Labels == nil {
			j.Decision.Labels = router.SeenLabels(j.Labels)
		}
	}
	return nil
}

const runnerColumns = `id, job_id, try, state, name, github_id, nomad_job, namespace, region,
	reason, state_at, created_at, fit, target, placed_at, node, unplaced, ended_at, own, end_words, version`

func scanRunner(rows *sql.Rows, r *router.Runner) error {
	var stateAt, created, placed, ended int64
	var target string
	var unplaced sql.NullString
	err := rows.Scan(&r.ID, &r.JobID, &r.Try, &r.State, &r.Name, &r.GitHubID, &r.NomadJob, &r.NomadAt.Namespace, &r.NomadAt.Region,
		&r.Reason, &stateAt, &created, &r.Fit, &target, &placed, &r.Node, &unplaced, &ended, &r.Own, &r.EndWords, &r.Version)
	if err != nil {
		return err
	}
	r.StateAt, r.CreatedAt, r.PlacedAt, r.EndedAt = fromMillis(stateAt), fromMillis(created), fromMillis(placed), fromMillis(ended)
	if target != "" {
		if err := json.Unmarshal([]byte(target), &r.Target); err != nil {
			return fmt.Errorf("decode the target of runner %s: %w", r.ID, err)
		}
	}
	if unplaced.Valid {
		if err := json.Unmarshal([]byte(unplaced.String), &r.Unplaced); err != nil {
			return fmt.Errorf("decode why runner %s has no node: %w", r.ID, err)
		}
	}
	return nil
}

const jobSQL = `SELECT ` + jobColumns + ` FROM jobs WHERE id = ?`

// Job implements runners.Store.
func (r reads) Job(ctx context.Context, id int64) (router.Job, error) {
	return only(r.querier(ctx), "read job "+strconv.FormatInt(id, 10), scanJob, jobSQL, id)
}

// mayServe says of a runner r that was started for job j whether GitHub can
// have given it job s. Its name alone does not say: another instance, or anyone
// in a repository of theirs, may have a runner of that name.
const mayServe = `(s.id >> 48 = j.id >> 48 AND (nullif(r.target, '') ->> '$.enterprise' IS NOT NULL
	OR lower(coalesce(nullif(r.target, '') ->> '$.owner', j.owner)) = lower(s.owner)
		AND lower(coalesce(nullif(r.target, '') ->> '$.repo', s.repo)) = lower(s.repo)))`

const (
	countsSQL = `SELECT state, count(*) FROM jobs GROUP BY state`

	// Of the states in which there are few jobs, mostly.
	openCountsSQL = `SELECT state, count(*) FROM jobs WHERE state IN ('held', 'queued', 'retrying', 'dispatched', 'running', 'unroutable') GROUP BY state`

	// So many jobs are counted whenever somebody asks. If there are more, those that are Completed,
	// Ignored and Denied are counted again after settledFor.
	countedJobs = 50_000
	settledFor  = time.Minute
)

// counted keeps how many jobs are in each state.
type counted struct {
	many int // more jobs than this are not counted each time

	mu     sync.Mutex
	counts map[router.JobState]int
	until  time.Time // until then those are shown that change no more, mostly
}

// Counts implements intake.SyncStore. States without jobs are left out.
func (s *Store) Counts(ctx context.Context) (map[router.JobState]int, error) {
	c := &s.counted
	c.mu.Lock()
	defer c.mu.Unlock()
	if !time.Now().Before(c.until) {
		counts, err := countBy[router.JobState](s.querier(ctx), "count jobs", countsSQL)
		if err != nil {
			return nil, err
		}
		jobs := 0
		for _, n := range counts {
			jobs += n
		}
		if jobs > c.many {
			c.counts, c.until = counts, time.Now().Add(settledFor)
		}
		return maps.Clone(counts), nil
	}
	counts, err := countBy[router.JobState](s.querier(ctx), "count jobs", openCountsSQL)
	for _, state := range []router.JobState{router.Completed, router.Ignored, router.Denied} {
		if n := c.counts[state]; n > 0 && err == nil {
			counts[state] = n
		}
	}
	return counts, err
}

const runnersSQL = `SELECT ` + runnerColumns + ` FROM runners WHERE job_id = ? ORDER BY try`

// Runners implements operate.Store. They are none for a job that is not known.
func (r reads) Runners(ctx context.Context, jobID int64) ([]router.Runner, error) {
	return list(r.querier(ctx), fmt.Sprintf("list the runners of job %d", jobID), scanRunner, runnersSQL, jobID)
}
