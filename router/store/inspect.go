package store

import (
	"context"
	"fmt"
	"time"
)

// An Inspection says what is in a database.
type Inspection struct {
	Name           string // for people
	Engine         string // SQLite or PostgreSQL, with its version
	Schema         int64  // the version of its schema
	Size           int64  // bytes
	Jobs, Runners  int
	Oldest, Newest time.Time // the jobs received first and last; zero: there are none
	Wrong          []string  // what should not be so, for people
}

// wrongs are things that no change leaves behind. Each query counts them.
var wrongs = []struct{ what, query string }{
	{"jobs that are dispatched without a runner for their try",
		`SELECT count(*) FROM jobs WHERE state = 'dispatched' AND NOT EXISTS (SELECT 1 FROM runners r WHERE r.job_id = jobs.id AND r.try = jobs.try)`},
	{"runners whose job is missing", `SELECT count(*) FROM runners WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job_id)`},
	{"claim tokens whose runner is missing", `SELECT count(*) FROM claims WHERE NOT EXISTS (SELECT 1 FROM runners WHERE runners.id = runner_id)`},
	{"tokens to verify a job whose runner is missing", `SELECT count(*) FROM verifications WHERE NOT EXISTS (SELECT 1 FROM runners WHERE runners.id = runner_id)`},
	{"jobs without a line in their timeline", `SELECT count(*) FROM jobs WHERE NOT EXISTS (SELECT 1 FROM events WHERE job_id = jobs.id)`},
	{"jobs that wait under a limit and have no key of it", `SELECT count(*) FROM jobs WHERE state = 'held' AND cause = 'limit' AND limit_key = ''`},
}

// Inspect reads all of the database with this name, a file or a URL, which no server may use.
// It brings the schema up to date first, as a server's start does.
func Inspect(ctx context.Context, name string) (in Inspection, err error) {
	if err := exists(name); err != nil {
		return in, err
	}
	s, err := Open(ctx, name, Alone, CheckAll)
	if err != nil {
		return in, err
	}
	defer s.Close()
	in.Name = s.path
	version, engine := "SELECT sqlite_version()", "SQLite "
	if s.postgres != nil {
		version, engine = "SHOW server_version", "PostgreSQL "
	}
	q := s.querier(ctx)
	var oldest, newest int64
	for _, one := range []struct {
		query string
		to    []any
	}{
		{version, []any{&in.Engine}},
		{"SELECT max(version_id) FROM goose_db_version", []any{&in.Schema}},
		{"SELECT count(*), coalesce(min(received_at), 0), coalesce(max(received_at), 0) FROM jobs", []any{&in.Jobs, &oldest, &newest}},
		{"SELECT count(*) FROM runners", []any{&in.Runners}},
	} {
		if err := q(into(one.to...), one.query); err != nil {
			return in, err
		}
	}
	in.Engine, in.Oldest, in.Newest = engine+in.Engine, fromMillis(oldest), fromMillis(newest)
	if in.Size, _, err = s.Size(); err != nil {
		return in, err
	}
	for _, w := range wrongs {
		var n int
		if err := q(into(&n), w.query); err != nil {
			return in, err
		}
		if n > 0 {
			in.Wrong = append(in.Wrong, fmt.Sprintf("%d %s", n, w.what))
		}
	}
	return in, nil
}
