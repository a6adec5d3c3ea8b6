package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"switchyard/router"
)

const (
	deliverySQL = `
INSERT INTO deliveries (id, job_id, action, received_at, digest) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING`

	copiesSQL = `SELECT count(*) FROM deliveries WHERE digest = ?`

	// A delivery that is not recorded has arrived all the same.
	arrivedTwiceSQL = `DELETE FROM redeliveries WHERE guid = ?`

	// So many deliveries of the same bytes are recorded: an App, an organization and
	// a repository may each have a webhook here.
	maxCopies = 4
)

// insertJobSQL inserts a job; what follows it says what becomes of one that is known.
const insertJobSQL = `
INSERT INTO jobs (id, run_id, attempt, owner, repo, private, visibility, fork, name, workflow, branch, sender, labels, url,
	state, reason, try, failures, due_at, received_at, updated_at, runner_name, conclusion, sha, host, cause, running_at, completed_at, queued_at, crowd, wary)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, 1, 0, ?17, ?17, ?17, ?18, ?19, ?20, ?21, ?22,
	iif(?15 = 'running', ?17, 0), iif(?15 = 'completed', ?17, 0), iif(?15 = 'queued', ?17, 0), ?23,
	iif(?15 = 'queued' AND EXISTS (SELECT 1 FROM crowds WHERE key = ?25 AND held <> 0), 1,
		iif(?15 = 'queued' AND EXISTS (SELECT 1 FROM crowds WHERE key = substr(?23, 1, 32) AND capped <> 0), 2, ?24)))
ON CONFLICT (id) DO `

// One statement for each thing that GitHub says of a job. Running and Completed
// insert a job that is not known as well: deliveries come in any order, and a
// queued one that comes last must find nothing left to do. Ignored jobs are
// somebody else's and stay as they are.
const (
	receiveWaitingSQL = insertJobSQL + `NOTHING`

	// It will be decided again, and loses its place under a limit.
	holdForGitHubSQL = `
UPDATE jobs SET state = 'held', cause = 'approval', reason = ?2, updated_at = ?3,
	decision = NULL, limit_key = '', fit = '', failures = 0, fallback = 0, fallback_at = 0, dispatched_at = 0
WHERE id = ?1 AND queued_at <= ?3
	AND (state IN ('queued', 'retrying', 'dispatched') OR state = 'held' AND (limit_key <> '' OR reason <> ?2))`

	placeSQL = `SELECT limit_key FROM jobs WHERE id = ? AND limit_key <> '' AND state IN ('queued', 'retrying', 'dispatched')`

	receiveQueuedSQL = insertJobSQL + `UPDATE
	SET state = excluded.state, cause = excluded.cause, reason = excluded.reason, due_at = excluded.due_at, updated_at = excluded.updated_at,
		queued_at = excluded.queued_at, try = jobs.try + iif(` + tryIsTaken + `, 1, 0)
	WHERE jobs.state = 'held' AND jobs.limit_key = '' AND jobs.cause <> 'runner_version'`

	// GitHub may hold jobs of a run back until another ends, as max-parallel does, and calls
	// them queued all the same: then the next of them need not wait for its next runner.
	nextSiblingSQL = `
UPDATE jobs SET due_at = ?2, updated_at = ?2 WHERE id = (
	SELECT id FROM jobs INDEXED BY jobs_no_job
	WHERE run_id = ?1 AND cause = 'no_job' AND state = 'retrying' AND due_at > ?2 ORDER BY due_at, id LIMIT 1)`

	stillQueuedSQL = `UPDATE jobs SET queued_at = ?2 WHERE id = ?1 AND queued_at < ?2`

	receiveRunningSQL = insertJobSQL + `UPDATE
	SET state = excluded.state, cause = excluded.cause, reason = excluded.reason, updated_at = excluded.updated_at,
		runner_name = excluded.runner_name, failures = 0, running_at = excluded.updated_at,
		limit_key = iif(jobs.limit_key = jobs.crowd, '', jobs.limit_key)
	WHERE jobs.state IN ('held', 'queued', 'retrying', 'dispatched', 'denied', 'unroutable')`

	receiveCompletedSQL = insertJobSQL + `UPDATE
	SET state = excluded.state, updated_at = excluded.updated_at,
		reason = excluded.reason || iif(jobs.overruled = '', '', '; ' || jobs.overruled)
			|| iif(excluded.conclusion <> 'success' AND jobs.cause = 'runner_ended', '; ' || jobs.reason, ''),
		cause = iif(excluded.conclusion <> 'success' AND jobs.cause = 'runner_ended', jobs.cause, ''),
		runner_name = iif(excluded.runner_name <> '', excluded.runner_name, jobs.runner_name), conclusion = excluded.conclusion,
		completed_at = excluded.updated_at, limit_key = iif(jobs.limit_key = jobs.crowd, '', jobs.limit_key)
	WHERE jobs.state IN ('held', 'queued', 'retrying', 'dispatched', 'running', 'denied', 'unroutable')`
)

// Receive implements intake.Store. A runner serves whichever job GitHub gives
// it: the one that the delivery names becomes busy or finished, and if it was meant
// for another job, that job gets a runner in its place; see replace. A runner of
// that name with another ID on GitHub is somebody else's.
func (s *intakeStore) Receive(ctx context.Context, d router.Delivery) (bool, error) {
	return changed(ctx, s.db, cmp.Or(d.Source, router.SourceWebhook), func(t *tx) (bool, error) { return receive(t, d) })
}

func receive(t *tx, d router.Delivery) (changed bool, err error) {
	now := millis(d.ReceivedAt)
	if d.ID != "" {
		copies := 0
		var digest any // NULL
		if d.Digest != "" {
			digest = []byte(d.Digest)
			if err := t.query(into(&copies), copiesSQL, digest); err != nil {
				return false, err
			}
		}
		if copies >= maxCopies {
			_, err := t.exec(arrivedTwiceSQL, d.ID)
			return false, err
		}
		if n, err := t.exec(deliverySQL, d.ID, d.Job.ID, d.Action, now, digest); n == 0 || copies > 0 || err != nil {
			return false, err
		}
	}
	var query string
	var state router.JobState
	var cause router.Cause
	var reason string
	runnerName, conclusion := "", ""
	switch {
	case d.Waits():
		query, state, cause, reason = receiveWaitingSQL, router.Held, router.CauseApproval, heldReason(d.Status)
	case d.Late():
		query, state, cause, reason = receiveWaitingSQL, router.Held, router.CauseApproval, "GitHub is asked whether it still queues it: the delivery that says so is of a job of "+d.CreatedAt.UTC().Format(time.DateOnly)
	case d.Action == "queued":
		query, state, cause, reason = receiveQueuedSQL, router.Queued, router.CauseQueued, "waits for the router to decide it"
	case d.Action == "in_progress":
		query, state, cause, reason = receiveRunningSQL, router.Running, router.CauseRunning, runsOn+orUnnamed(d.Job.RunnerName)
		runnerName = d.Job.RunnerName
	case d.Action == "completed":
		query, state, reason = receiveCompletedSQL, router.Completed, "ended on GitHub"
		runnerName, conclusion = d.Job.RunnerName, d.Job.Conclusion
		if d.Status == router.StatusGone {
			reason = "GitHub no longer knows it"
		}
		if conclusion != "" {
			reason += ": " + conclusion
		}
	default:
		return false, fmt.Errorf("unknown action %q", d.Action)
	}
	j := d.Job
	labels, err := json.Marshal(j.Labels)
	if err != nil {
		return false, err
	}
	if runnerName != "" && d.RunnerID != 0 {
		other, err := found(t, namesakeSQL, runnerName, d.RunnerID)
		if err != nil {
			return false, err
		}
		if other {
			runnerName = ""
		}
	}
	crowd, kind, wary := j.Crowd(), j.Kind(), router.Wary(0)
	if d.Deploys {
		wary = router.WaryOfGitHub
	}
	refused, err := refusedAs(t, j.ID, runnerName)
	if err != nil {
		return false, err
	}
	n, err := t.exec(query,
		j.ID, j.RunID, j.Attempt, j.Repo.Owner, j.Repo.Name, j.Repo.Private, j.Repo.Visibility, j.Repo.Fork,
		j.Name, j.Workflow, j.Branch, j.Sender, string(labels), j.URL,
		state, reason, now, runnerName, conclusion, j.SHA, j.Repo.Host, cause, crowd, int(wary), kind)
	if err != nil {
		return false, err
	}
	changed = n > 0
	switch {
	case changed:
	case state == router.Held && d.ID == "":
		if changed, err = holdBack(t, j.ID, reason, now); changed && err == nil {
			_, err = t.exec(heldBackSQL, kind, now)
		}
		if err != nil {
			return false, err
		}
	case state == router.Queued:
		if _, err := t.exec(stillQueuedSQL, j.ID, now); err != nil {
			return false, err
		}
	}
	if changed && state == router.Completed {
		if _, err := t.exec(releaseSQL, j.ID, now); err != nil {
			return false, fmt.Errorf("release a job that waits for the place of job %d: %w", j.ID, err)
		}
		if _, err := t.exec(nextSiblingSQL, j.RunID, now); err != nil {
			return false, fmt.Errorf("retry a job of the run of job %d: %w", j.ID, err)
		}
		if err := nextSibling(t, j.ID, now); err != nil {
			return false, err
		}
		if _, err := t.exec(rerunSoonerSQL, j.RunID, now+rerunPause.Milliseconds()); err != nil {
			return false, fmt.Errorf("look sooner at the run of job %d: %w", j.ID, err)
		}
	}
	if changed && state == router.Running {
		if err := widen(t, j.ID, now); err != nil {
			return false, fmt.Errorf("release siblings of job %d: %w", j.ID, err)
		}
	}
	if runnerName != "" {
		moved, err := moveRunner(t, runnerName, j.ID, state, now)
		if err == nil && moved.ID != "" && refused.State != "" {
			err = overrule(t, refused, moved, runnerName, now)
		}
		if err == nil && moved.ID != "" && (conclusion == "failure" || conclusion == "timed_out") {
			err = keep(t, moved.ID, j.ID, now)
		}
		if err == nil && moved.ID != "" && state == router.Completed {
			err = wantRerun(t, moved.ID, time.Time{}, d.ReceivedAt)
		}
		if err != nil || moved.ID != "" {
			return true, err
		}
		ours, err := found(t, ourNameSQL, runnerName)
		if err != nil || ours {
			return changed, err
		}
	}
	if state == router.Running || state == router.Completed {
		moved, err := presume(t, j.ID, d.Job.RunnerName, state, now)
		return changed || moved, err
	}
	return changed, nil
}

// holdBack puts a job that waits for a runner into Held, which is what GitHub
// answered when it was asked at asked.
func holdBack(t *tx, jobID int64, reason string, asked int64) (held bool, err error) {
	key := ""
	if err := t.query(into(&key), placeSQL, jobID); err != nil {
		return false, err
	}
	n, err := t.exec(holdForGitHubSQL, jobID, reason, asked)
	if n > 0 && err == nil {
		err = nextSibling(t, jobID, asked)
	}
	if err != nil || n == 0 || key == "" {
		return n > 0, err
	}
	if _, err := t.exec(releaseKeySQL, key, asked); err != nil {
		return false, fmt.Errorf("release a job that waits for the place of job %d: %w", jobID, err)
	}
	return true, nil
}

const (
	ourNameSQL = `SELECT 1 FROM runners WHERE name = ?`

	// One that had no node when the job was taken was not the one that took it.
	presumedBusySQL = `
UPDATE runners SET state = iif(ended_at = 0, 'busy', 'finished'), updated_at = ?3, cause = '',
	reason = 'job ' || ?1 || ' runs on ' || ?2 || ', presumably this one: it brings its own registration'
WHERE job_id = ?1 AND try = (SELECT try FROM jobs WHERE id = ?1) AND own AND state = 'dispatched' AND placed_at <> 0`

	// A job that ended without a runner was cancelled before it had one.
	presumedFinishedSQL = `
UPDATE runners SET state = 'finished', updated_at = ?3, cause = '',
	reason = 'job ' || ?1 || ' ended on ' || ?2 || ', presumably this one: it brings its own registration, and ends by itself'
WHERE job_id = ?1 AND try = (SELECT try FROM jobs WHERE id = ?1) AND own
	AND (state = 'busy' OR state = 'dispatched' AND placed_at <> 0 AND ?4)
	AND NOT EXISTS (SELECT 1 FROM jobs s WHERE s.state = 'running' AND s.runner_name = runners.name)`

	presumeLateSQL = `
SELECT j.id, j.runner_name, j.state FROM runners r JOIN jobs j ON j.id = r.job_id AND j.try = r.try
WHERE r.id = ? AND r.own AND r.state = 'dispatched'
	AND (j.state = 'running' AND r.placed_at <= j.running_at OR j.state = 'completed' AND j.runner_name <> '' AND r.placed_at <= j.completed_at)
	AND NOT EXISTS (SELECT 1 FROM runners o WHERE o.name = j.runner_name)`
)

// presume records that the runner which was started for a job has it, or has
// finished it. It is for runners that bring their own registration, whose names on
// GitHub are not known here, and it is a guess, as another such runner may have the job.
func presume(t *tx, jobID int64, name string, to router.JobState, now int64) (moved bool, err error) {
	query, args := presumedBusySQL, []any{jobID, orUnnamed(name), now}
	if to == router.Completed {
		query, args = presumedFinishedSQL, append(args, name != "")
	}
	n, err := t.exec(query, args...)
	return n > 0, err
}

// presumeLate does the same for a runner when Nomad's news that it was placed comes
// after GitHub's that its job was taken.
func presumeLate(t *tx, id string, now time.Time) error {
	var jobID int64
	var name string
	var state router.JobState
	err := t.query(into(&jobID, &name, &state), presumeLateSQL, id)
	if err == nil && jobID != 0 {
		_, err = presume(t, jobID, name, state, millis(now))
	}
	return err
}

func heldReason(status string) string {
	switch status {
	case "waiting":
		return "waits for an approval on GitHub"
	case "pending":
		return "waits on GitHub for others of its concurrency group or matrix"
	}
	return fmt.Sprintf("waits on GitHub, where its status is %q", status)
}

func orUnnamed(runner string) string {
	if runner == "" {
		return "a runner that GitHub does not name"
	}
	return runner
}

// Whether the name of a runner of ours is another's on GitHub: anyone who may register
// a runner there may give it any free name.
const namesakeSQL = `SELECT 1 FROM runners WHERE name = ?1 AND github_id NOT IN (0, ?2)`

// States only move forward: a runner that was given up stays so.
const (
	servesSQL = `EXISTS (SELECT 1 FROM jobs s, jobs j WHERE s.id = ?3 AND j.id = r.job_id AND ` + mayServe + `)`

	runnerBusySQL = `
UPDATE runners AS r SET state = 'busy', updated_at = ?2, cause = '', reason = 'GitHub gave it job ' || ?3
WHERE name = ?1 AND state IN ('dispatched', 'claimed', 'online') AND ` + servesSQL + `
RETURNING id, job_id, try, target`

	runnerFinishedSQL = `
UPDATE runners AS r SET state = 'finished', updated_at = ?2, ended_job = ?3, cause = '', reason = 'its job ' || ?3 || ' ended'
WHERE name = ?1 AND state IN ('dispatched', 'claimed', 'online', 'busy') AND ` + servesSQL + `
RETURNING id, job_id, try, target`
)

// moveRunner records that the runner with this name was given the job, or has
// ended it, and returns it as it was meant before. Most names in a busy
// organization are not ours; that is no error.
func moveRunner(t *tx, name string, jobID int64, to router.JobState, now int64) (r router.Runner, err error) {
	query := runnerBusySQL
	if to == router.Completed {
		query = runnerFinishedSQL
	}
	target := ""
	err = t.query(func(rows *sql.Rows) error {
		return rows.Scan(&r.ID, &r.JobID, &r.Try, &target)
	}, query, name, now, jobID)
	if err == nil && target != "" {
		err = json.Unmarshal([]byte(target), &r.Target)
	}
	if err != nil || r.ID == "" || r.JobID == jobID {
		return r, err
	}
	return r, replace(t, r, name, jobID, now)
}

const (
	refusedSQL = `SELECT id, state, reason FROM jobs WHERE id = ? AND state IN ('denied', 'unroutable', 'ignored') AND overruled = ''`

	overruleSQL = `
UPDATE jobs SET overruled = ?2, updated_at = ?3, cause = iif(state = 'completed', cause, ''), reason = iif(state = 'completed', reason || '; ' || ?2, ?2)
WHERE id = ?1`
)

// refusedAs returns the state and reason of a job that was refused; zero: it was not.
func refusedAs(t *tx, jobID int64, runnerName string) (j router.Job, err error) {
	if runnerName != "" {
		err = t.query(into(&j.ID, &j.State, &j.Reason), refusedSQL, jobID)
	}
	return j, err
}

// overrule records, in its reason and in the audit trail, that a runner of ours has
// a job that was refused here.
func overrule(t *tx, refused router.Job, r router.Runner, name string, now int64) error {
	whose, instead := "a repository's", "a compound label"
	switch {
	case r.Target.Enterprise != "":
		whose, instead = "an enterprise's", "repository scope, a runner group or a compound label"
	case r.Target.Repo == "":
		whose, instead = "an organization's", "repository scope, a runner group or a compound label"
	}
	meant := fmt.Sprintf("started for job %d", r.JobID)
	if r.JobID == refused.ID {
		meant = "started for it before"
	}
	why := fmt.Sprintf("%s, but runner %s, %s, took it: GitHub gives %s runner to any job whose labels it has; keep jobs apart by %s; it was %s as: %s",
		refused.State, name, meant, whose, instead, refused.State, refused.Reason)
	if _, err := t.exec(overruleSQL, refused.ID, why, now); err != nil {
		return err
	}
	_, err := t.exec(auditSQL, now, "GitHub", "", "", "ran a job that was "+string(refused.State), fmt.Sprintf("jobs/%d", refused.ID), why)
	return err
}

// Overruled implements intake.Store.
func (s *intakeStore) Overruled(ctx context.Context, jobID int64) (why string, err error) {
	err = s.querier(ctx)(into(&why), `SELECT overruled FROM jobs WHERE id = ?`, jobID)
	if err != nil {
		return "", fmt.Errorf("read what GitHub did with job %d: %w", jobID, err)
	}
	return why, nil
}

// The runner that was meant for the job which is served now, if it is still
// free, and if GitHub may give it the other job as well.
const freeRunnerSQL = `
SELECT r.id, r.try FROM runners r JOIN jobs served ON served.id = r.job_id AND served.try = r.try JOIN jobs short ON short.id = ?2
WHERE r.job_id = ?1 AND (r.state IN ('claimed', 'online') OR r.state = 'dispatched' AND r.nomad_job <> '') AND served.fit = short.fit AND short.fit <> ''`

// replace sees to the job that runner r was started for when r serves another. If
// the served job had a runner coming and both jobs are of equal fit, the two runners
// change places; so a crowd of equal jobs, whose runners GitHub shuffles as it
// likes, needs no more runners than it has jobs. Otherwise the job that came away
// empty is retried with a new runner, and one that was coming for the served job is
// left over.
func replace(t *tx, r router.Runner, name string, served, now int64) error {
	short, err := found(t, needsSQL, r.JobID, r.Try)
	if err != nil || !short {
		return err
	}
	free := place{jobID: served}
	err = t.query(into(&free.other.ID, &free.try), freeRunnerSQL, served, r.JobID)
	if err != nil {
		return err
	}
	if free.other.ID == "" {
		_, err := t.exec(requeueSQL, r.JobID, r.Try, now,
			fmt.Sprintf("its runner %s was given job %d by GitHub; it gets a new one", name, served), router.CauseReplaced)
		if err == nil {
			_, err = t.exec(givePlaceSQL, r.JobID)
		}
		if err == nil {
			_, err = t.exec(giveSiblingPlaceSQL, r.JobID)
		}
		return err
	}
	if err := swap(t, r, free); err != nil {
		return err
	}
	_, err = t.exec(jobReasonSQL, r.JobID, r.Try,
		fmt.Sprintf("its runner %s was given job %d by GitHub; it gets runner %s instead", name, served, free.other.ID), now)
	return err
}

// found reports whether a query has a row.
func found(t *tx, query string, args ...any) (ok bool, err error) {
	err = t.query(func(*sql.Rows) error { ok = true; return nil }, query, args...)
	return ok, err
}

// known returns router.ErrNotFound for a job that is not known.
func known(t *tx, jobID int64) error {
	ok, err := found(t, `SELECT 1 FROM jobs WHERE id = ?`, jobID)
	if err == nil && !ok {
		err = router.ErrNotFound
	}
	return err
}

// millis returns a time as it is stored; 0 for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// asText returns a decision as it is stored; NULL for nil.
func asText(d *router.Decision) (any, error) {
	if d == nil {
		return nil, nil
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode the decision: %w", err)
	}
	return string(b), nil
}
