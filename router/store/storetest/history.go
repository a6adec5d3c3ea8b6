package storetest

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the database that History writes

	"switchyard/router"
	"switchyard/rules"
)

const (
	historyRules = 12   // hNN is the rule of job NN modulo this
	historyOpen  = 1000 // of the newest jobs one in two has not ended
)

// historySQL writes all jobs in one go. Of twenty jobs one was denied; the
// others waited for up to ten minutes, and one in three hundred for an hour.
const historySQL = `
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1),
a (i, received, waits, open, state) AS (
	SELECT i, ?2 - (?1 - i) * ?3 / ?1, iif(i % 300 = 0, 3600000, 1000 + (i * 7919) % 600000 / (1 + i % 9)), i > ?1 - ?4 AND i % 2 = 0,
		CASE WHEN i > ?1 - ?4 AND i % 2 = 0 THEN
			CASE i / 2 % 5 WHEN 0 THEN 'queued' WHEN 1 THEN 'retrying' WHEN 2 THEN 'held' WHEN 3 THEN 'dispatched' ELSE 'running' END
		WHEN i % 20 = 0 THEN 'denied' ELSE 'completed' END
	FROM n)
INSERT INTO jobs (id, run_id, attempt, owner, repo, private, visibility, fork, name, workflow, branch, sender, labels, url,
	state, reason, decision, try, failures, due_at, received_at, updated_at, runner_name, conclusion, dispatched_at, running_at, completed_at, fit)
SELECT i, i / 4 + 1, 1, 'owner-' || (i % 7), 'repository-' || (i % 40), 1, 'private', 0, 'build and test (ubuntu, 1.26, ' || (i % 30) || ')', 'CI', 'main', 'octocat',
	k.labels, 'https://github.com/owner-' || i % 7 || '/repository-' || i % 40 || '/actions/runs/' || (i / 4 + 1) || '/job/' || i,
	state, CASE state WHEN 'completed' THEN 'GitHub says that it ended' WHEN 'denied' THEN 'rule h0 denies it'
		WHEN 'retrying' THEN 'Nomad could not take the job yet: connection refused' WHEN 'held' THEN 'waits for one of the 10 places of linux'
		ELSE 'Nomad has its runner, job gha-' || i || '-1' END,
	iif(state = 'queued', NULL, k.decision), 1, 0, ?2 + 60000, received, ?2, iif(state IN ('completed', 'running'), 'gha-' || i || '-1', ''),
	CASE WHEN state <> 'completed' THEN '' WHEN i % 11 = 0 THEN 'failure' ELSE 'success' END,
	iif(state IN ('completed', 'running', 'dispatched'), received + 40, 0), iif(state IN ('completed', 'running'), received + waits, 0),
	iif(state = 'completed', received + waits + 120000, 0), 'f' || (i % 12)
FROM a JOIN kinds k ON k.kind = i % 12`

const historyRunnersSQL = `
INSERT INTO runners (id, job_id, try, state, name, github_id, nomad_job, namespace, region, created_at, updated_at, reason, state_at, placed_at, node, unplaced, ended_at)
SELECT 'gha-' || id || '-1', id, 1, CASE state WHEN 'completed' THEN 'finished' WHEN 'running' THEN 'busy' ELSE 'dispatched' END, 'gha-' || id || '-1', id, 'gha-' || id || '-1', 'default', 'global',
	dispatched_at, updated_at, 'as its job', updated_at, iif(state <> 'dispatched', dispatched_at + 500, 0), iif(state <> 'dispatched', 'node-' || (id % 50), ''),
	iif(state = 'dispatched', ?1, NULL), completed_at
FROM jobs WHERE dispatched_at <> 0`

const historyEventsSQL = `
INSERT INTO events (at, job_id, source, state, what) SELECT dispatched_at, id, 'router', 'dispatched', 'Nomad has its runner, job gha-' || id || '-1' FROM jobs WHERE dispatched_at <> 0;
INSERT INTO events (at, runner_id, source, state, what) SELECT placed_at, id, 'nomad', 'dispatched', 'Nomad placed it on ' || node FROM runners WHERE placed_at <> 0;
INSERT INTO events (at, runner_id, source, state, what) SELECT placed_at + 900, id, 'runner', 'claimed', 'it asked for its configuration' FROM runners WHERE placed_at <> 0;
INSERT INTO events (at, job_id, source, state, what) SELECT running_at, id, 'webhook', 'running', 'runner ' || runner_name || ' has it' FROM jobs WHERE running_at <> 0;
INSERT INTO events (at, job_id, source, state, what) SELECT completed_at, id, 'webhook', 'completed', 'GitHub says that it ended' FROM jobs WHERE completed_at <> 0;`

// History fills the database file at path, which a store made and may have
// open, with jobs 1 to n of the time from end-over to end, each with its runner
// and events. Of the newest, 500 have not ended.
func History(t testing.TB, path string, n int, over time.Duration, end time.Time) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String()+"?_pragma=busy_timeout(5000)")
	must(err)
	defer db.Close()
	ctx := t.Context()
	tx, err := db.BeginTx(ctx, nil)
	must(err)
	defer func() { _ = tx.Rollback() }()
	exec := func(query string, args ...any) {
		t.Helper()
		_, err := tx.ExecContext(ctx, query, args...)
		must(err)
	}
	exec(`CREATE TEMP TABLE kinds (kind INTEGER PRIMARY KEY, labels TEXT, decision TEXT)`)
	for i := range historyRules {
		labels := []string{"self-hosted", "linux", fmt.Sprintf("team-%d", i)}
		d := router.Decision{Outcome: rules.Routed, Rule: fmt.Sprintf("h%d", i), Reason: fmt.Sprintf("rule h%d holds", i), Labels: labels}
		if i == 0 || i == 4 || i == 8 { // those of the denied jobs, and others
			d.Rule = "h0"
		}
		d.Jobspec, d.NodePool = "docker-linux", "ci"
		d.Constraints = []router.Constraint{{Attribute: "${attr.cpu.arch}", Operator: "=", Value: "amd64", From: "label linux"}}
		d.Resources.MemoryMB, d.Resources.CPU = 4096, 2000
		d.From = map[string]string{"jobspec": "rule " + d.Rule, "node_pool": "defaults", "resources.cpu": "defaults", "resources.memory": "label linux"}
		l, err := json.Marshal(labels)
		must(err)
		j, err := json.Marshal(d)
		must(err)
		exec(`INSERT INTO kinds VALUES (?, ?, ?)`, i, string(l), string(j))
	}
	exec(historySQL, n, end.UnixMilli(), over.Milliseconds(), historyOpen)
	u, err := json.Marshal(router.Unplaced{At: end, Text: "no node has memory left", Pool: "ci", InPool: 50, Evaluated: 50,
		Filtered:  []router.Shortage{{What: "${attr.cpu.arch} = amd64", From: "label linux", Nodes: 20}},
		Exhausted: []router.Shortage{{What: "memory", From: "label linux", Nodes: 30}}})
	must(err)
	exec(historyRunnersSQL, string(u))
	exec(historyEventsSQL)
	must(tx.Commit())
}
