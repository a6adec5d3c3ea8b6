package store

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"

	"switchyard/router"
)

// beforeCauses is the schema whose rows tell causes by how their reasons begin.
const beforeCauses = 12

// An earlier version left these rows.
func TestCausesAreFilledInFromTheReasonsOfEarlierVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := sql.Open("sqlite", dsn(path, nil))
	must(t, err)
	dir, err := fs.Sub(migrations, "migrations")
	must(t, err)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	must(t, err)
	must(t, errOf(p.UpTo(t.Context(), beforeCauses)))
	exec := func(query string, args ...any) {
		t.Helper()
		must(t, errOf(db.ExecContext(t.Context(), query, args...)))
	}
	type row struct {
		state  router.JobState
		reason string
		want   router.Cause
		runner string // columns of its runner that are not as for one that was just registered
	}
	jobs := []row{
		{router.Held, "waits for an approval on GitHub", router.CauseApproval, ""},
		{router.Held, "waits for a place: rule linux has at most 2 per owner, and 2 for acme", router.CauseLimit, ""},
		{router.Queued, "waits for the router to decide it", router.CauseQueued, ""},
		{router.Retrying, "Nomad could not take the job yet: no leader", router.CauseNomad, ""},
		{router.Retrying, "Nomad refuses the job: no such driver; it is asked again with growing waits", router.CauseRefused, ""},
		{router.Retrying, "GitHub takes no runner for it now: acme has 10000", router.CauseGitHubLimit, ""},
		{router.Retrying, "no runner is started for it now: the App is suspended", router.CauseGitHub, ""},
		{router.Retrying, "GitHub did not say what started the run yet: 502", router.CauseGitHub, ""},
		{router.Retrying, "ask GitHub for a runner configuration: 502", router.CauseGitHub, ""},
		{router.Retrying, "Nomad has its runner gha-1-1 already, and GitHub did not say yet whether it is registered: 502", router.CauseGitHub, ""},
		{router.Retrying, "GitHub gave its runner no job in 10m, and keeps the job queued: the usual causes; it gets another at noon", router.CauseNoJob, ""},
		{router.Retrying, "its Nomad job gha-1-1 ended", router.CauseRunner, ""},
		{router.Dispatched, "Nomad has its runner, job gha-1-1, which has not started yet", router.CausePlacing, "created_at = 1"},
		{router.Dispatched, "Nomad has no node for its runner: full", router.CauseNoNodeFree, `unplaced = '{"never": false}'`},
		{router.Dispatched, "Nomad has no node for its runner: too big", router.CauseNoNodeFits, `unplaced = '{"never": true}'`},
		{router.Dispatched, "its runner gha-1-1 starts on node a", router.CauseStarting, "placed_at = 1"},
		{router.Dispatched, "its runner one has started", router.CauseStarting, "state = 'online'"},
		{router.Running, "runs on one, whose node a is disconnected from Nomad", router.CauseRunning, "state = 'busy', reason = 'its node is disconnected from Nomad: nobody knows how it is'"},
		{router.Running, "while it had the job, its runner ended on node a: lost", router.CauseRunnerEnded, ""},
		{router.Running, "stopped at its time limit of 1h", "", ""},
		{router.Completed, "ended on GitHub: failure; while it had the job, its runner ended on node a: lost", router.CauseRunnerEnded, "state = 'finished', reason = 'its job 21 ended; then its Nomad job ended: killed'"},
		{router.Completed, "ended on GitHub: success", "", "state = 'finished', reason = 'job 22 ended on x, presumably this one'"},
		{router.Unroutable, "Nomad refuses the job, for its label zone=x: no", router.CauseRefused, ""},
		{router.Unroutable, "no rule holds", "", "state = 'lost', reason = 'GitHub gave its runner no job in 10m: the usual causes; it gets another at noon; then its Nomad job ended'"},
		{router.Denied, "forks get no runner", "", "reason = 'its claim was refused: not from its node; of that Nomad; then its Nomad job ended'"},
	}
	for i, j := range jobs {
		id, key := i+1, ""
		if j.want == router.CauseLimit {
			key = "linux|acme"
		}
		exec(`INSERT INTO jobs (id, run_id, attempt, owner, repo, private, visibility, fork, name, workflow, branch, sender, labels, url,
			state, reason, try, failures, due_at, received_at, updated_at, runner_name, conclusion, limit_key)
			VALUES (?1, 1, 1, 'acme', 'web', 1, '', 0, '', '', '', '', '[]', '', ?2, ?3, 1, 0, 0, 0, 0, '', '', ?4)`, id, j.state, j.reason, key)
		if j.runner != "" {
			exec(`INSERT INTO runners (id, job_id, try, state, name, github_id, nomad_job, namespace, region, created_at, updated_at)
				VALUES (?1, ?1, 1, 'dispatched', ?1, 0, '', '', '', 0, 0)`, id)
			exec(`UPDATE runners SET `+j.runner+` WHERE id = ?1`, id)
		}
	}
	must(t, db.Close())

	s, err := Open(t.Context(), path)
	must(t, err)
	defer s.Close()
	for i, want := range jobs {
		if j, err := s.Job(t.Context(), int64(i+1)); err != nil || j.Cause != want.want || j.Reason != want.reason {
			t.Errorf("a %s job: %q has the cause %q (%v), want %q", want.state, j.Reason, j.Cause, err, want.want)
		}
	}
	for id, want := range map[int]string{
		13: "||0", 18: "disconnected||0", 21: "||21", 22: "||0",
		24: "no_job|GitHub gave its runner no job in 10m: the usual causes|0",
		25: "claim_refused|its claim was refused: not from its node; of that Nomad|0",
	} {
		var got string
		if err := s.read.QueryRowContext(t.Context(), `SELECT cause || '|' || cause_text || '|' || ended_job FROM runners WHERE job_id = ?`, id).Scan(&got); err != nil || got != want {
			t.Errorf("the runner of job %d: %q, %v, want %q", id, got, err, want)
		}
	}
}
