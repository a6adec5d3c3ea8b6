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
	historyOpen  = 1000  // of the newest jobs one in two has not ended
	historyTimed = 5000  // of the newest jobs have all of their timelines; the others have none
	historyKinds = 240   // label sets: HistoryRules by the sizes of a runner
	historySizes = 20    // label sets of one rule
	historyRepos = 1_500 // of HistoryOwners together

	HistoryRules  = historyKinds / historySizes // rules h0 to h11 took the jobs; each has a label team-N of its own
	HistoryOwners = 30                          // owner-0, which has half of the jobs, to owner-29; owner-30 has one in a hundred, all denied
)

// historyNumbersSQL and historySQL write all jobs. Of twenty jobs one was denied; the
// others waited for up to ten minutes, and one in three hundred for an hour.
// Numbers that are multiplied by a prime come in no order.
const historyNumbersSQL = `
CREATE TEMP TABLE numbers AS
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
SELECT i, iif(i % 20 = 0, i / 20 % 20, i * 7919 % 240) AS kind, iif(i % 100 = 0, 30, iif(i * 7919 % 2, 0, i * 104729 % 30)) AS owner, i * 15485863 % 1500 AS repo,
	?2 - (?1 - i) * ?3 / ?1 AS received, iif(i % 300 = 0, 3600000, 1000 + (i * 7919) % 600000 / (1 + i % 9)) AS waits,
	CASE WHEN i > ?1 - ?4 AND i % 2 = 0 THEN
		CASE i / 2 % 5 WHEN 0 THEN 'queued' WHEN 1 THEN 'retrying' WHEN 2 THEN 'held' WHEN 3 THEN 'dispatched' ELSE 'running' END
	WHEN i % 20 = 0 THEN 'denied' ELSE 'completed' END AS state
FROM n`

const historySQL = `
INSERT INTO jobs (id, run_id, attempt, owner, repo, private, visibility, fork, name, workflow, branch, sender, labels, url,
	state, reason, decision, try, failures, due_at, received_at, updated_at, runner_name, conclusion, dispatched_at, running_at, completed_at, fit)
SELECT i, i / 4 + 1, 1, 'owner-' || owner, 'repository-' || repo, 1, 'private', 0, 'build and test (ubuntu, 1.26, ' || (i % 30) || ')', 'CI',
	iif(i % 3, 'feature-' || (i / 40), 'main'), 'octocat-' || (i * 31 % 800),
	k.labels, 'https://github.com/owner-' || owner || '/repository-' || repo || '/actions/runs/' || (i / 4 + 1) || '/job/' || i,
	state, CASE state WHEN 'completed' THEN 'GitHub says that it ended' WHEN 'denied' THEN 'rule h0 denies it'
		WHEN 'retrying' THEN 'Nomad could not take the job yet: connection refused' WHEN 'held' THEN 'waits for one of the 10 places of linux'
		ELSE 'Nomad has its runner, job gha-' || i || '-1' END,
	iif(state = 'queued', NULL, k.decision), 1, 0, ?1 + 60000, received, iif(state = 'completed', received + waits + 120000, iif(state = 'denied', received + 10, ?1)),
	iif(state IN ('completed', 'running'), 'gha-' || i || '-1', ''),
	CASE WHEN state <> 'completed' THEN '' WHEN i % 11 = 0 THEN 'failure' ELSE 'success' END,
	iif(state IN ('completed', 'running', 'dispatched'), received + 40, 0), iif(state IN ('completed', 'running'), received + waits, 0),
	iif(state = 'completed', received + waits + 120000, 0), 'f' || n.kind
FROM numbers n CROSS JOIN kinds k ON k.kind = n.kind`

const historyLabelsSQL = `
INSERT INTO job_labels (label, job_id) SELECT label, i FROM numbers n CROSS JOIN kind_labels k ON k.kind = n.kind ORDER BY 1, 2`

const historyRunnersSQL = `
INSERT INTO runners (id, job_id, try, state, name, github_id, nomad_job, namespace, region, created_at, updated_at, reason, state_at, placed_at, node, unplaced, ended_at)
SELECT 'gha-' || id || '-1', id, 1, CASE state WHEN 'completed' THEN iif(id % 50 = 7, 'lost', 'finished') WHEN 'running' THEN 'busy' ELSE 'dispatched' END, 'gha-' || id || '-1', id, 'gha-' || id || '-1', 'default', 'global',
	dispatched_at, updated_at, 'as its job', updated_at, iif(state <> 'dispatched', dispatched_at + 500, 0), iif(state <> 'dispatched', 'node-' || (id % 50), ''),
	iif(state = 'dispatched', ?1, NULL), completed_at
FROM jobs WHERE dispatched_at <> 0 ORDER BY 1`

// Three deliveries of each job of the last week, as long as they are kept.
const historyDeliveriesSQL = `
INSERT INTO deliveries (id, job_id, action, received_at, digest)
SELECT lower(hex(randomblob(18))), i, column1, received, randomblob(32) FROM (VALUES ('queued'), ('in_progress'), ('completed')) CROSS JOIN numbers
WHERE received > ?1 - 7 * 24 * 3600000 ORDER BY 1`

const historyEventsSQL = `
INSERT INTO events (at, job_id, source, state, what) SELECT received_at, id, 'webhook', 'queued', 'waits for the router to decide it' FROM jobs WHERE id > ?1;
INSERT INTO events (at, runner_id, source, state, what) SELECT created_at, id, 'router', 'dispatched', 'Nomad is asked for it' FROM runners WHERE job_id > ?1;
INSERT INTO events (at, job_id, source, state, what) SELECT dispatched_at, id, 'router', 'dispatched', 'Nomad has its runner, job gha-' || id || '-1' FROM jobs WHERE id > ?1 AND dispatched_at <> 0;
INSERT INTO events (at, runner_id, source, state, what) SELECT placed_at, id, 'nomad', 'dispatched', 'Nomad placed it on ' || node FROM runners WHERE job_id > ?1 AND placed_at <> 0;
INSERT INTO events (at, runner_id, source, state, what) SELECT placed_at + 900, id, 'runner', 'claimed', 'it asked for its configuration' FROM runners WHERE job_id > ?1 AND placed_at <> 0;
INSERT INTO events (at, job_id, source, state, what) SELECT running_at, id, 'webhook', 'running', 'runner ' || runner_name || ' has it' FROM jobs WHERE id > ?1 AND running_at <> 0;
INSERT INTO events (at, job_id, source, state, what) SELECT completed_at, id, 'webhook', 'completed', 'GitHub says that it ended' FROM jobs WHERE id > ?1 AND completed_at <> 0;`

// History fills the database file at path, which a store made and closed, with jobs 1 to n of the time from end-over to end, each with its runner.
// The newest 5,000 have events, those before have none: a page reads one job's, and they are
// most of a database. Of the newest, 500 have not ended. A million jobs take 1.6 GB and 80 s of a processor.
func History(t testing.TB, path string, n int, over time.Duration, end time.Time) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String()+"?_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)&_pragma=cache_size(-200000)&_pragma=temp_store(MEMORY)")
	must(err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	ctx := t.Context()
	tx, err := db.BeginTx(ctx, nil)
	must(err)
	defer func() { _ = tx.Rollback() }()
	exec := func(query string, args ...any) {
		t.Helper()
		_, err := tx.ExecContext(ctx, query, args...)
		must(err)
	}
	// Indexes are made faster of all rows than row by row. Triggers would write what is written here.
	rows, err := tx.QueryContext(ctx, `SELECT type, name, sql FROM sqlite_schema WHERE type IN ('index', 'trigger') AND sql IS NOT NULL`)
	must(err)
	var drop, again []string
	for rows.Next() {
		var kind, name, made string
		must(rows.Scan(&kind, &name, &made))
		drop, again = append(drop, "DROP "+kind+" "+name), append(again, made)
	}
	must(rows.Err())
	for _, one := range drop {
		exec(one)
	}

	exec(`CREATE TEMP TABLE kinds (kind INTEGER PRIMARY KEY, labels TEXT, decision TEXT)`)
	exec(`CREATE TEMP TABLE kind_labels (kind INTEGER, label TEXT, PRIMARY KEY (kind, label)) WITHOUT ROWID`)
	for i := range historyKinds {
		team := i / historySizes
		labels := []string{"self-hosted", "linux", fmt.Sprintf("team-%d", team), fmt.Sprintf("cpu=%d", i%historySizes+1)}
		d := router.Decision{Outcome: rules.Routed, Rule: fmt.Sprintf("h%d", team), Reason: fmt.Sprintf("rule h%d holds", team), Labels: labels}
		d.Jobspec, d.NodePool = "docker-linux", "ci"
		d.Constraints = []router.Constraint{{Attribute: "${attr.cpu.arch}", Operator: "=", Value: "amd64", From: "label linux"}}
		d.Resources.MemoryMB, d.Resources.CPU = 4096, 2000
		d.From = map[string]string{"jobspec": "rule " + d.Rule, "node_pool": "defaults", "resources.cpu": "defaults", "resources.memory": "label linux"}
		l, err := json.Marshal(labels)
		must(err)
		j, err := json.Marshal(d)
		must(err)
		exec(`INSERT INTO kinds VALUES (?, ?, ?)`, i, string(l), string(j))
		exec(`INSERT INTO kind_labels SELECT ?, value FROM json_each(?)`, i, string(l))
	}
	exec(historyNumbersSQL, n, end.UnixMilli(), over.Milliseconds(), historyOpen)
	exec(historySQL, end.UnixMilli())
	exec(historyLabelsSQL)
	u, err := json.Marshal(router.Unplaced{At: end, Text: "no node has memory left", Pool: "ci", InPool: 50, Evaluated: 50,
		Filtered:  []router.Shortage{{What: "${attr.cpu.arch} = amd64", From: "label linux", Nodes: 20}},
		Exhausted: []router.Shortage{{What: "memory", From: "label linux", Nodes: 30}}})
	must(err)
	exec(historyRunnersSQL, string(u))
	exec(historyDeliveriesSQL, end.UnixMilli())
	exec(historyEventsSQL, n-historyTimed)
	for _, made := range again {
		exec(made)
	}
	must(tx.Commit())
}
