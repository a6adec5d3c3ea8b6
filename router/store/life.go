package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"switchyard/router"
)

// claimRefused is the condition for a runner whose claim was refused.
const claimRefused = `cause = 'claim_refused'`

// liveSelect reads a router.LiveRunner: a runner without what only people
// read, the job that it was started for, and the one that it runs.
const liveSelect = `
SELECT r.id, r.job_id, r.try, r.state, r.name, r.github_id, r.nomad_job, r.namespace, r.region,
	r.state_at, r.created_at, r.fit, r.target, r.placed_at, r.ended_at, r.own, r.end_words, r.exit_code, r.rule, r.rules, r.unplaced IS NOT NULL,
	iif(r.` + claimRefused + `, r.cause_text, ''),
	j.state, j.try = r.try AND j.state IN ('queued', 'retrying', 'dispatched'), j.failures,
	coalesce(s.id, 0), coalesce(s.running_at, 0), coalesce(s.time_limit, 0), r.kept_until
FROM runners r JOIN jobs j ON j.id = r.job_id
	LEFT JOIN jobs s ON r.state = 'busy' AND s.state = 'running' AND s.runner_name = r.name AND ` + mayServe + ` `

func scanLive(rows *sql.Rows, r *router.LiveRunner) error {
	var stateAt, created, placed, ended, since, limit, kept int64
	var target string
	err := rows.Scan(&r.ID, &r.JobID, &r.Try, &r.State, &r.Name, &r.GitHubID, &r.NomadJob, &r.NomadAt.Namespace, &r.NomadAt.Region,
		&stateAt, &created, &r.Fit, &target, &placed, &ended, &r.Own, &r.EndWords, &r.ExitCode, &r.Rule, &r.Rules, &r.Explained, &r.Refused,
		&r.JobState, &r.Needed, &r.Failures, &r.Serves, &since, &limit, &kept)
	if err != nil {
		return err
	}
	r.StateAt, r.CreatedAt, r.PlacedAt, r.EndedAt = fromMillis(stateAt), fromMillis(created), fromMillis(placed), fromMillis(ended)
	r.ServesSince, r.TimeLimit, r.KeptUntil = fromMillis(since), time.Duration(limit)*time.Millisecond, fromMillis(kept)
	if target != "" {
		if err := json.Unmarshal([]byte(target), &r.Target); err != nil {
			return fmt.Errorf("decode the target of runner %s: %w", r.ID, err)
		}
	}
	return nil
}

// The conditions are those of the indexes runners_live and runners_open, and of
// a job that was left without a runner while one was taken from it.
const liveSQL = liveSelect + `WHERE r.ended_at = 0
UNION ALL ` + liveSelect + `WHERE r.ended_at <> 0 AND r.state IN ('dispatched', 'claimed', 'online', 'busy')
UNION ALL ` + liveSelect + `WHERE j.state = 'dispatched' AND r.try = j.try AND r.ended_at <> 0 AND r.state IN ('finished', 'lost', 'stopped')`

// Live implements runners.Store.
func (s *runnerStore) Live(ctx context.Context) ([]router.LiveRunner, error) {
	return list(s.querier(ctx), "read live runners", scanLive, liveSQL)
}

const (
	// An event can overtake the record of the registration: the runner then
	// has no Nomad job yet, but its ID is that of the event's, or in it.
	seenRunnerSQL = `
SELECT id FROM runners WHERE nomad_job = ?1 AND nomad_job <> '' AND namespace = ?2 AND region = ?4
UNION ALL SELECT id FROM runners WHERE id = ?3 AND nomad_job = '' AND region = ?4
LIMIT 1`

	placedSQL = `
UPDATE runners SET placed_at = ?2, node = ?3, unplaced = NULL, updated_at = ?4,
	cause = iif(state = 'dispatched' AND NOT ` + claimRefused + `, '', cause),
	reason = iif(state = 'dispatched' AND NOT ` + claimRefused + `, 'Nomad placed it on node ' || ?3, reason)
WHERE id = ?1 AND placed_at = 0 RETURNING iif(` + claimRefused + `, '', state), job_id, try`

	jobReasonSQL = `
UPDATE jobs SET cause = ` + causeOfRunner + `, reason = ?3, updated_at = ?4 WHERE id = ?1 AND try = ?2 AND state = 'dispatched'`

	// For a job whose reason says so already, or says more.
	startingSQL = `UPDATE jobs SET cause = 'starting' WHERE id = ?1 AND try = ?2 AND state = 'dispatched' AND cause <> 'starting'`

	startedSQL = `
UPDATE runners SET updated_at = ?2, cause = '',
	reason = 'its task runs on node ' || ?3 || iif(own, ': it brings its own registration', ', and has not asked for its configuration')
WHERE id = ?1 AND state = 'dispatched' AND ended_at = 0 RETURNING job_id, try, own`

	// Nomad may restart a runner that brings its own registration, as its jobspec says.
	startsAnewSQL = `UPDATE runners SET ended_at = 0, end_words = '', exit_code = 0, updated_at = ?3 WHERE id = ?1 AND own AND ended_at <> 0 AND ended_at < ?2`

	// A busy runner without a running job in the database has finished its job.
	runnerEndedSQL = `
UPDATE runners AS r SET ended_at = ?2, updated_at = ?3,
	state = iif(state = 'busy' AND NOT EXISTS (
		SELECT 1 FROM jobs s, jobs j WHERE s.state = 'running' AND s.runner_name = r.name AND j.id = r.job_id AND ` + mayServe + `), 'finished', state),
	cause = iif(?4 = '' OR state IN ('finished', 'lost', 'stopped') OR ` + claimRefused + `, cause, ''),
	reason = iif(?4 = '', reason, iif(state IN ('finished', 'lost', 'stopped') OR ` + claimRefused + `, reason || '; then ' || ?4, ?4)),
	end_words = ?5, exit_code = ?6
WHERE id = ?1 AND ended_at = 0`

	// The end may be known already, but not how it came.
	endWordsSQL = `
UPDATE runners SET end_words = ?2, exit_code = ?4, updated_at = ?3, reason = reason || '; its Nomad job ended: ' || ?2
WHERE id = ?1 AND ended_at <> 0 AND end_words = '' AND ?2 <> ''`

	// The job that waits for a runner says at once that it has ended.
	endedJobSQL = `
UPDATE jobs SET cause = ` + causeOfRunner + `, reason = ?2, updated_at = ?3
WHERE (id, try) = (SELECT job_id, try FROM runners WHERE id = ?1 AND ended_at <> 0 AND state IN ('dispatched', 'claimed', 'online'))
	AND state = 'dispatched'`

	// It has its configuration, so the next runner will probably end likewise.
	diedSQL = `
INSERT INTO troubles (job_id, cause, since, what)
SELECT j.id, 'died', ?3, ?2 FROM runners r JOIN jobs j ON j.id = r.job_id AND j.try = r.try
WHERE r.id = ?1 AND r.state IN ('claimed', 'online') AND r.ended_at <> 0 AND NOT r.own AND j.state = 'dispatched'
ON CONFLICT (job_id, cause) DO UPDATE SET what = excluded.what`

	// It was online for so long that GitHub gave it nothing.
	idledSQL = `
INSERT INTO troubles (job_id, cause, since, what)
SELECT j.id, 'no_job', r.state_at, ?2 FROM runners r JOIN jobs j ON j.id = r.job_id AND j.try = r.try
WHERE r.id = ?1 AND r.state = 'online' AND r.state_at <= ?3 AND j.state = 'dispatched'
ON CONFLICT (job_id, cause) DO NOTHING`

	// GitHub takes minutes to notice, and does not say why. A reason that says more stays.
	endedRunningSQL = `
UPDATE jobs AS s SET updated_at = ?3, cause = 'runner_ended', reason = '` + whileItRan + `' || ?2
WHERE s.state = 'running' AND s.runner_name = (SELECT name FROM runners WHERE id = ?1 AND state = 'busy') AND s.cause = 'running'
	AND EXISTS (SELECT 1 FROM runners r JOIN jobs j ON j.id = r.job_id WHERE r.id = ?1 AND ` + mayServe + `)`

	// A runner that is told to stop may end its job itself, and GitHub then reports the
	// end first. A runner that is only slow to leave is stopped later than this.
	endedBeforeSQL = `
UPDATE jobs AS s SET updated_at = ?3, cause = 'runner_ended', reason = s.reason || '; ` + whileItRan + `' || ?2
WHERE s.id = (SELECT ended_job FROM runners WHERE id = ?1 AND state = 'finished')
	AND s.state = 'completed' AND s.conclusion <> 'success' AND s.completed_at > ?4 AND s.cause <> 'runner_ended'`

	// What is known of its end stays.
	lossSQL = `UPDATE runners SET loss = ?2 WHERE id = ?1 AND (ended_at = 0 OR end_words = '')`

	unknownSQL = `
UPDATE runners SET cause = 'disconnected', loss = ?4, reason = ?2, updated_at = ?3
WHERE id = ?1 AND ended_at = 0 AND state IN ('dispatched', 'claimed', 'online', 'busy') RETURNING job_id, try`

	// The node has reconnected, and Nomad reports the allocation as it is.
	knownAgainSQL = `
UPDATE runners SET cause = '', loss = '', reason = 'its node ' || ?2 || ' is connected again', updated_at = ?3
WHERE id = ?1 AND ended_at = 0 AND cause = 'disconnected' RETURNING job_id, try`

	runningReasonSQL = `
UPDATE jobs AS s SET cause = 'running', reason = '` + runsOn + `' || s.runner_name || ?2, updated_at = ?3
WHERE s.state = 'running' AND s.runner_name = (SELECT name FROM runners WHERE id = ?1) AND s.cause = 'running'
	AND EXISTS (SELECT 1 FROM runners r JOIN jobs j ON j.id = r.job_id WHERE r.id = ?1 AND ` + mayServe + `)`

	claimedOnceSQL = `SELECT 1 FROM runners WHERE id = ? AND NOT own AND state <> 'dispatched' AND (github_id <> 0 OR target <> '')`

	runnerReasonSQL = `UPDATE runners SET cause = '', reason = ?2, updated_at = ?3 WHERE id = ?1`

	liveOneSQL = liveSelect + `WHERE r.id = ?`
)

// RecordNomadEvents implements runners.Store.
func (s *runnerStore) RecordNomadEvents(ctx context.Context, events []router.NomadEvent, now time.Time) (seen []router.SeenRunner, err error) {
	return changed(ctx, s.db, router.SourceNomad, func(t *tx) (seen []router.SeenRunner, err error) {
		last := map[string]int{} // places in seen
		for _, e := range events {
			var id string
			err := t.query(into(&id), seenRunnerSQL, e.Job, e.At.Namespace, runnerIn(e.Job), e.At.Region)
			if err != nil {
				return nil, err
			}
			if id == "" && router.IsWarm(e.Job) {
				if err := seeWarm(t, e, now); err != nil {
					return nil, err
				}
			}
			if id == "" {
				continue
			}
			if err := see(t, id, e, now); err != nil {
				return nil, fmt.Errorf("record that runner %s is %s: %w", id, e.Kind, err)
			}
			at, known := last[id]
			if !known {
				at = len(seen)
				last[id] = at
				seen = append(seen, router.SeenRunner{LiveRunner: router.LiveRunner{Runner: router.Runner{ID: id}}})
			}
			seen[at].Event = e
		}
		for i := range seen {
			if err := one(t.query, scanLive, &seen[i].LiveRunner, liveOneSQL, seen[i].ID); err != nil {
				return nil, err
			}
		}
		return seen, nil
	})
}

// runnerIn returns the ID of the runner that a Nomad job belongs to: its own, or that of
// the dispatch, as of "parent/dispatch-gha-1-1-1700000000-0123abcd".
func runnerIn(nomadJob string) string {
	_, child, dispatched := strings.Cut(nomadJob, "/dispatch-")
	parts := strings.Split(child, "-")
	if !dispatched || len(parts) < 3 {
		return nomadJob
	}
	return strings.Join(parts[:3], "-")
}

// endedBefore is how long before its runner's end a job may have ended because of that.
const endedBefore = time.Minute

// How reasons begin.
const (
	runsOn     = "runs on "                                // of a running job
	whileItRan = "while it had the job, its runner ended " // of one whose runner was killed
)

func see(t *tx, id string, e router.NomadEvent, now time.Time) error {
	at := millis(now)
	if ms := millis(e.Time); 0 < ms && ms < at {
		at = ms // clocks differ: nothing happens later than now
	}
	if e.Again { // a runner's token is good once, so after its claim another allocation comes to nothing
		claimed, err := found(t, claimedOnceSQL, id)
		if err != nil || claimed {
			return err
		}
	}
	node := e.Node
	if node == "" {
		node = "without a name"
	}
	switch e.Kind {
	case router.NomadPlaced, router.NomadStarted:
		if err := gotNode(t, id, node, at, now); err != nil {
			return err
		}
		if _, err := t.exec(startsAnewSQL, id, at, millis(now)); err != nil {
			return err
		}
		if e.Kind == router.NomadStarted {
			if err := knownAgain(t, id, node, now); err != nil {
				return err
			}
			if err := started(t, id, node, now); err != nil {
				return err
			}
		}
		return presumeLate(t, id, now)
	case router.NomadEnded:
		if e.Node != "" {
			if err := gotNode(t, id, node, at, now); err != nil {
				return err
			}
		}
		if _, err := t.exec(lossSQL, id, e.Loss); err != nil {
			return err
		}
		if _, err := t.exec(runnerEndedSQL, id, at, millis(now), words("its Nomad job ended", e.Text), e.Text, e.Code); err != nil {
			return err
		}
		if _, err := t.exec(endWordsSQL, id, e.Text, millis(now), e.Code); err != nil {
			return err
		}
		if e.End != "" && e.End != router.EndComplete { // that it ended by itself says nothing of its job
			how := "on node " + node + ": " + e.Text
			if _, err := t.exec(endedRunningSQL, id, how, millis(now)); err != nil {
				return err
			}
			if e.End != router.EndFailed {
				if _, err := t.exec(endedBeforeSQL, id, how, millis(now), at-endedBefore.Milliseconds()); err != nil {
					return err
				}
				if err := wantRerun(t, id, fromMillis(at).Add(-endedBefore), now); err != nil {
					return err
				}
			}
		}
		before := "before GitHub gave it a job"
		var refused string
		err := t.query(into(&refused), `SELECT cause_text FROM runners WHERE id = ? AND `+claimRefused, id)
		if err != nil {
			return err
		}
		if refused != "" {
			before = "as " + refused
		}
		said := words("its runner "+id+" ended on node "+node+" "+before, e.Text)
		if _, err = t.exec(endedJobSQL, id, said, millis(now)); err != nil || e.End == "" || e.End == router.EndComplete {
			return err
		}
		if _, err = t.exec(diedSQL, id, said, millis(now)); err != nil {
			return err
		}
		_, err = t.exec(idledSQL, id, said, millis(now.Add(-router.OnlineAfter)))
		return err
	case router.NomadUnknown:
		if err := unknown(t, id, node, e.Loss, now); err != nil {
			return err
		}
		return wantRerun(t, id, now.Add(-endedBefore), now)
	case router.NomadStopped:
		// With a node, the end of its allocation follows.
		var placedAt int64
		var state router.RunnerState
		err := t.query(into(&placedAt, &state), `SELECT placed_at, state FROM runners WHERE id = ?`, id)
		if err != nil {
			return err
		}
		said := "its Nomad job was " + cmp.Or(e.Text, "stopped")
		switch {
		case placedAt == 0:
			_, err = t.exec(runnerEndedSQL, id, at, millis(now), said, e.Text, 0)
		case state == router.RunnerDispatched:
			_, err = t.exec(runnerReasonSQL, id, said, millis(now))
		}
		return err
	}
	return nil // NomadWaits: RecordUnplaced says why
}

func words(what, text string) string {
	if text == "" {
		return what
	}
	return what + ": " + text
}

func gotNode(t *tx, id, node string, at int64, now time.Time) error {
	var r router.Runner
	err := t.query(into(&r.State, &r.JobID, &r.Try), placedSQL, id, at, node, millis(now))
	switch {
	case err != nil || r.JobID == 0:
	case r.State == router.RunnerDispatched:
		_, err = t.exec(jobReasonSQL, r.JobID, r.Try, fmt.Sprintf("its runner %s starts on node %s", id, node), millis(now))
	default:
		_, err = t.exec(startingSQL, r.JobID, r.Try)
	}
	return err
}

// started records that a task of a runner runs.
func started(t *tx, id, node string, now time.Time) error {
	var r router.Runner
	err := t.query(into(&r.JobID, &r.Try, &r.Own), startedSQL, id, millis(now), node)
	if err == nil && r.Own {
		reason := fmt.Sprintf("its runner %s runs on node %s: it brings its own registration, and GitHub has not said that a runner has the job", id, node)
		_, err = t.exec(jobReasonSQL, r.JobID, r.Try, reason, millis(now))
	}
	return err
}

// unknown records that a runner's node is disconnected.
func unknown(t *tx, id, node string, loss router.Loss, now time.Time) error {
	why := fmt.Sprintf("its node is disconnected from Nomad: its state on node %s is unknown until that reconnects or Nomad gives up on it", node)
	r, err := t.runnerOf(id, unknownSQL, why, millis(now), loss)
	if err != nil || r.JobID == 0 {
		return err
	}
	if _, err := t.exec(jobReasonSQL, r.JobID, r.Try, fmt.Sprintf("the node of its runner %s, %s, is disconnected from Nomad", id, node), millis(now)); err != nil {
		return err
	}
	_, err = t.exec(runningReasonSQL, id, fmt.Sprintf(", whose node %s is disconnected from Nomad", node), millis(now))
	return err
}

// knownAgain undoes unknown.
func knownAgain(t *tx, id, node string, now time.Time) error {
	var r router.Runner
	err := t.query(into(&r.JobID, &r.Try), knownAgainSQL, id, node, millis(now))
	if err != nil || r.JobID == 0 {
		return err
	}
	if _, err := t.exec(jobReasonSQL, r.JobID, r.Try, fmt.Sprintf("the node of its runner %s, %s, is connected to Nomad again", id, node), millis(now)); err != nil {
		return err
	}
	_, err = t.exec(runningReasonSQL, id, "", millis(now))
	return err
}

const (
	recordUnplacedSQL = `
UPDATE runners SET unplaced = ?2, cause = '', reason = ?3, updated_at = ?4
WHERE id = ?1 AND state = 'dispatched' AND placed_at = 0 AND ended_at = 0 RETURNING job_id, try`

	jobUnplacedSQL = `
UPDATE jobs SET updated_at = ?4, cause = ` + causeOfRunner + `, reason = ?3 ||
	iif(fallback_at > 0, '; falls back at ' || strftime('%Y-%m-%dT%H:%M:%SZ', fallback_at / 1000, 'unixepoch'), '')
WHERE id = ?1 AND try = ?2 AND state = 'dispatched'`
)

// whyUnplaced says why a runner has no node; whose is "it" or "its runner".
func whyUnplaced(u router.Unplaced, whose string) string {
	if u.Never {
		return u.Text // says that itself
	}
	return "Nomad has no node for " + whose + ": " + u.Text
}

// RecordUnplaced implements runners.Store.
func (s *runnerStore) RecordUnplaced(ctx context.Context, runnerIDs []string, u router.Unplaced, now time.Time) error {
	unplaced, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return s.writer.change(ctx, router.SourceNomad, func(t *tx) error {
		for _, id := range runnerIDs {
			var r router.Runner
			err := t.query(into(&r.JobID, &r.Try), recordUnplacedSQL, id, string(unplaced), whyUnplaced(u, "it"), millis(now))
			if err == nil && r.JobID != 0 {
				_, err = t.exec(jobUnplacedSQL, r.JobID, r.Try, whyUnplaced(u, "its runner"), millis(now))
			}
			if err != nil {
				return fmt.Errorf("record why runner %s has no node: %w", id, err)
			}
		}
		return nil
	})
}

const (
	unevaluatedSQL = `
SELECT ` + runnerColumns + ` FROM runners r INDEXED BY runners_live
WHERE state = 'dispatched' AND ended_at = 0 AND nomad_job <> '' AND placed_at = 0 AND unplaced IS NULL AND updated_at <= ?1 LIMIT ?2`

	recordUnevaluatedSQL = `
UPDATE runners SET cause = '', reason = ?2, updated_at = ?3
WHERE id = ?1 AND state = 'dispatched' AND placed_at = 0 AND ended_at = 0 AND unplaced IS NULL RETURNING job_id, try`
)

// Unevaluated implements runners.Store.
func (s *runnerStore) Unevaluated(ctx context.Context, before time.Time, limit int) ([]router.Runner, error) {
	return list(s.querier(ctx), "read the runners that Nomad has not evaluated", scanRunner, unevaluatedSQL, millis(before), limit)
}

// RecordUnevaluated implements runners.Store.
func (s *runnerStore) RecordUnevaluated(ctx context.Context, runnerIDs []string, why string, now time.Time) error {
	return s.writer.change(ctx, router.SourceNomad, func(t *tx) error {
		for _, id := range runnerIDs {
			var r router.Runner
			err := t.query(into(&r.JobID, &r.Try), recordUnevaluatedSQL, id, why, millis(now))
			if err == nil && r.JobID != 0 {
				_, err = t.exec(jobReasonSQL, r.JobID, r.Try, "waits for its runner "+id+": "+why, millis(now))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Ended implements runners.Store.
func (s *runnerStore) Ended(ctx context.Context, runnerIDs []string, now time.Time) error {
	return s.writer.change(ctx, router.SourceNomad, func(t *tx) error {
		for _, id := range runnerIDs {
			if _, err := t.exec(runnerEndedSQL, id, millis(now), millis(now), "", "", 0); err != nil {
				return fmt.Errorf("record that runner %s ended: %w", id, err)
			}
		}
		return nil
	})
}

// Both take the conditions of the index jobs_fallback.
const (
	fallbackDueSQL = `
SELECT ` + jobColumns + ` FROM jobs INDEXED BY jobs_fallback
WHERE fallback_at <> 0 AND state = 'dispatched' AND fallback_at <= ?1 AND EXISTS (
	SELECT 1 FROM runners r WHERE r.job_id = jobs.id AND r.try = jobs.try AND ` + waitsForNode + `)
ORDER BY fallback_at LIMIT ?2`

	fallbackNextSQL = `
SELECT fallback_at FROM jobs INDEXED BY jobs_fallback
WHERE fallback_at <> 0 AND state = 'dispatched' AND fallback_at > ?1
ORDER BY fallback_at LIMIT 1`

	waitsForNode = `r.state = 'dispatched' AND r.nomad_job <> '' AND r.placed_at = 0 AND r.ended_at = 0`

	waitingRunnerSQL = `SELECT ` + runnerColumns + ` FROM runners r WHERE job_id = ? AND try = ? AND ` + waitsForNode
)

// FallbacksDue implements runners.Store.
func (s *runnerStore) FallbacksDue(ctx context.Context, now time.Time, limit int) (due []router.Claimed, next time.Time, err error) {
	q := s.querier(ctx)
	jobs, err := all(q, scanJob, fallbackDueSQL, millis(now), limit)
	for _, j := range jobs {
		c := router.Claimed{Job: j, Needed: true}
		if err == nil {
			err = one(q, scanRunner, &c.Runner, waitingRunnerSQL, j.ID, j.Try)
		}
		if c.Runner.ID != "" { // else it went on between the two readings
			due = append(due, c)
		}
	}
	var at int64
	if err == nil {
		err = q(into(&at), fallbackNextSQL, millis(now))
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read the fallbacks that are due: %w", err)
	}
	return due, fromMillis(at), nil
}

const (
	stopForFallbackSQL = `
UPDATE runners SET state = 'stopped', updated_at = ?2, cause = '', reason = ?3
WHERE id = ?1 AND state = 'dispatched' AND placed_at = 0
	AND EXISTS (SELECT 1 FROM jobs j WHERE j.id = runners.job_id AND j.try = runners.try AND j.state = 'dispatched' AND j.fallback < ?4)
RETURNING job_id, try`

	fallBackSQL = `UPDATE jobs SET fallback = ?2, fallback_at = 0, fit = '', cause = 'replaced', reason = ?3, updated_at = ?4 WHERE id = ?1`
)

// FallBack implements runners.Store.
func (s *runnerStore) FallBack(ctx context.Context, runnerID string, fallback int, reason string, now time.Time) (ok bool, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		r, err := t.runnerOf(runnerID, stopForFallbackSQL, millis(now), reason, fallback)
		if err != nil || r.JobID == 0 {
			return false, err
		}
		_, err = t.exec(fallBackSQL, r.JobID, fallback, reason, millis(now))
		return true, err
	})
}

const endedTrySQL = `SELECT job_id, try FROM runners WHERE id = ? AND state IN ('finished', 'lost', 'stopped')`

// Requeue implements runners.Store.
func (s *runnerStore) Requeue(ctx context.Context, runnerID, reason string, now time.Time) (ok bool, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		r, err := t.runnerOf(runnerID, endedTrySQL)
		if err != nil || r.JobID == 0 {
			return false, err
		}
		n, err := t.exec(requeueSQL, r.JobID, r.Try, millis(now), reason, router.CauseReplaced)
		return n > 0, err
	})
}

const (
	setRunnerReasonSQL = `UPDATE runners SET cause = '', reason = ?2, updated_at = ?3 WHERE id = ?1 RETURNING name, job_id >> 48`

	setRunningReasonSQL = `UPDATE jobs SET cause = '', reason = ?2, updated_at = ?3 WHERE state = 'running' AND runner_name = ?1 AND id >> 48 = ?4`
)

// SetReason implements runners.Store.
func (s *runnerStore) SetReason(ctx context.Context, runnerID, reason string, now time.Time) error {
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		var name string
		var instance int64
		err := t.query(into(&name, &instance), setRunnerReasonSQL, runnerID, reason, millis(now))
		if err != nil {
			return err
		}
		if name == "" {
			return router.ErrNotFound
		}
		_, err = t.exec(setRunningReasonSQL, name, reason, millis(now), instance)
		return err
	})
}

// ?1 is a JSON array of the IDs of runners, each with that of its job.
const unknownRunnersSQL = `
SELECT value ->> '$.runner', EXISTS (SELECT 1 FROM jobs WHERE id = CAST(value ->> '$.job' AS BIGINT)) FROM json_each(?1)
WHERE NOT EXISTS (SELECT 1 FROM runners WHERE id = value ->> '$.runner')`

// UnknownRunners implements runners.Store.
func (s *runnerStore) UnknownRunners(ctx context.Context, runnerIDs []string) (map[string]bool, error) {
	type id struct {
		Runner string `json:"runner"`
		Job    int64  `json:"job"`
	}
	ids := make([]id, len(runnerIDs))
	for i, runnerID := range runnerIDs {
		jobID, _, _ := router.ParseRunnerID(runnerID)
		ids[i] = id{runnerID, jobID}
	}
	of, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	jobKnown := map[string]bool{}
	err = s.querier(ctx)(func(rows *sql.Rows) error {
		id, known := "", false
		err := rows.Scan(&id, &known)
		jobKnown[id] = known
		return err
	}, unknownRunnersSQL, string(of))
	if err != nil {
		return nil, fmt.Errorf("look for runners that are not known: %w", err)
	}
	return jobKnown, nil
}

const clearEndedSQL = `
UPDATE runners SET ended_at = 0, updated_at = ?3, reason = reason || '; and Nomad started it again'
WHERE id = ?1 AND ended_at <> 0 AND ended_at < ?2 AND state IN ('finished', 'lost', 'stopped') AND nomad_job = ?4 AND namespace = ?5 AND region = ?6`

// ClearEnded implements runners.Store.
func (s *runnerStore) ClearEnded(ctx context.Context, jobs []router.NomadJob, before, now time.Time) (revived int, err error) {
	return changed(ctx, s.db, router.SourceNomad, func(t *tx) (revived int, err error) {
		for _, j := range jobs {
			n, err := t.exec(clearEndedSQL, j.RunnerID, millis(before), millis(now), j.ID, j.At.Namespace, j.At.Region)
			if err != nil {
				return 0, fmt.Errorf("record that runner %s did not end: %w", j.RunnerID, err)
			}
			revived += int(n)
		}
		return revived, nil
	})
}

const (
	adoptRunnerSQL = `
INSERT INTO runners (id, job_id, try, state, name, github_id, nomad_job, namespace, region, target, reason, created_at, updated_at, state_at, fit, own)
SELECT ?1, id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'found on Nomad: it was started before the database was lost', ?11, ?11, ?11, fit, ?12 FROM jobs WHERE id = ?2
ON CONFLICT DO NOTHING`

	adoptedFitSQL = `UPDATE jobs SET fit = ?2 WHERE id = ?1 AND fit <> ?2 AND state IN ('queued', 'retrying')`

	adoptedTrySQL = `
UPDATE jobs SET try = ?2, updated_at = ?3, cause = iif(state = 'queued', 'queued', iif(state = 'retrying', 'runner', ?4)),
	reason = 'its runner was found on Nomad; waits for the router'
WHERE id = ?1 AND try < ?2 AND ` + waits
)

// Adopt implements runners.Store.
func (s *runnerStore) Adopt(ctx context.Context, r router.Runner, tokenHash [32]byte, now time.Time) (ok bool, err error) {
	target, err := json.Marshal(r.Target)
	if err != nil {
		return false, err
	}
	return changed(ctx, s.db, router.SourceNomad, func(t *tx) (bool, error) {
		if err := known(t, r.JobID); err != nil {
			return false, err
		}
		n, err := t.exec(adoptRunnerSQL, r.ID, r.JobID, r.Try, r.State, r.Name, r.GitHubID, r.NomadJob, r.NomadAt.Namespace, r.NomadAt.Region, string(target), millis(now), r.Own)
		if err != nil || n == 0 {
			return false, err
		}
		if _, err := t.exec(insertClaimSQL, tokenHash[:], r.ID); err != nil {
			return false, err
		}
		if r.Fit != "" {
			if _, err := t.exec(adoptedFitSQL, r.JobID, r.Fit); err != nil {
				return false, err
			}
		}
		cause := router.CausePlacing
		if r.State != router.RunnerDispatched {
			cause = router.CauseStarting
		}
		_, err = t.exec(adoptedTrySQL, r.JobID, r.Try, millis(now), cause)
		return true, err
	})
}

const registeredSQL = `
UPDATE runners SET state = ?2, name = ?3, github_id = ?4, target = ?5, cause = '', reason = 'GitHub knows it: it was registered before the database was lost', updated_at = ?6
WHERE id = ?1 AND state = 'dispatched'`

// RecordRegistered implements dispatch.Store.
func (s *runnerStore) RecordRegistered(ctx context.Context, r router.Runner, now time.Time) error {
	target, err := json.Marshal(r.Target)
	if err != nil {
		return err
	}
	return s.writer.change(ctx, router.SourceGitHub, func(t *tx) error {
		return t.moveRunner(r.ID, registeredSQL, r.State, r.Name, r.GitHubID, string(target), millis(now))
	})
}

// Runners are found by their jobs: those that have not ended, and those that did a day before or later.
const targetsSQL = `
SELECT DISTINCT target FROM (
	SELECT id AS of FROM jobs INDEXED BY jobs_state WHERE state IN ('held', 'queued', 'retrying', 'dispatched', 'running')
	UNION ALL SELECT id FROM jobs INDEXED BY jobs_completed
		WHERE state IN ('completed', 'ignored', 'denied', 'unroutable') AND updated_at >= ?1 - 24 * 3600000
) AS recent CROSS JOIN runners ON job_id = of WHERE github_id <> 0 AND target <> '' AND updated_at >= ?1`

// Targets implements runners.StrayStore.
func (s *runnerStore) Targets(ctx context.Context, since time.Time) (targets []router.Target, err error) {
	return list(s.querier(ctx), "read where runners are registered", func(rows *sql.Rows, t *router.Target) error {
		var text []byte
		if err := rows.Scan(&text); err != nil {
			return err
		}
		return json.Unmarshal(text, t)
	}, targetsSQL, millis(since))
}

const namedSQL = `SELECT ` + runnerColumns + ` FROM runners WHERE name = ?`

// RunnerNamed implements runners.StrayStore.
func (s *runnerStore) RunnerNamed(ctx context.Context, name string) (r router.Runner, err error) {
	return only(s.querier(ctx), "read runner "+name, scanRunner, namedSQL, name)
}
