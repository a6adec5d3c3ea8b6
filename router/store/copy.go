package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"os"
	"slices"
	"strings"
	"time"

	"switchyard/router"
)

// A copiedTable is a table as Copy copies it.
type copiedTable struct {
	name    string
	key     []string // in whose order its rows are read
	columns []string // all of them
	flags   []string // those that are true or false
}

// copiedTables are all tables, each after those that it refers to. What triggers would write
// is copied, too.
var copiedTables = []copiedTable{
	{"jobs", []string{"id"}, []string{
		"id", "run_id", "attempt", "owner", "repo", "private", "visibility", "fork", "name", "workflow", "branch", "sender", "labels", "url",
		"state", "reason", "decision", "try", "failures", "due_at", "received_at", "updated_at", "runner_name", "conclusion", "limit_key", "host",
		"sha", "fit", "fallback", "dispatched_at", "running_at", "completed_at", "asked_at", "fallback_at", "time_limit", "cancelled_at",
		"queued_at", "overruled", "cause", "crowd", "wary", "urgency",
	}, []string{"private", "fork"}},
	{"runners", []string{"id"}, []string{
		"id", "job_id", "try", "state", "name", "github_id", "nomad_job", "namespace", "region", "created_at", "updated_at", "reason", "state_at",
		"fit", "target", "placed_at", "node", "unplaced", "ended_at", "own", "end_words", "cause", "cause_text", "ended_job", "rule", "rules", "version", "exit_code", "loss", "keep", "kept_until",
	}, []string{"own"}},
	{"claims", []string{"token_hash"}, []string{"token_hash", "runner_id"}, nil},
	{"verifications", []string{"token_hash"}, []string{"token_hash", "runner_id", "asked", "refusal"}, nil},
	{"deliveries", []string{"id"}, []string{"id", "job_id", "action", "received_at", "digest"}, nil},
	{"events", []string{"id"}, []string{"id", "at", "job_id", "runner_id", "source", "state", "what"}, nil},
	{"marks", []string{"name"}, []string{"name", "value"}, nil},
	{"hooks", []string{"kind", "id"}, []string{"kind", "id", "owner", "repo", "swept", "newest", "cursor", "heard_at", "proved"}, []string{"proved"}},
	{"redeliveries", []string{"guid"}, []string{"guid", "hook_kind", "hook_id", "delivery_id", "sent_at", "tries", "due_at", "action"}, nil},
	{"feedback", []string{"job_id"}, []string{"job_id", "kind", "github_id", "state", "said", "due_at"}, nil},
	{"reruns", []string{"job_id"}, []string{"job_id", "run_id", "name", "loss", "state", "said", "asked_at", "tries", "due_at"}, nil},
	{"audit", []string{"id"}, []string{"id", "at", "who", "did", "what", "result", "login", "address"}, nil},
	{"rules_versions", []string{"id"}, []string{"id", "at", "hash", "who", "origin", "note", "files"}, nil},
	{"job_labels", []string{"label", "job_id"}, []string{"label", "job_id"}, nil},
	{"crowds", []string{"key"}, []string{"key", "width", "capped", "held", "updated_at"}, nil},
	{"troubles", []string{"job_id", "cause"}, []string{"job_id", "cause", "since", "what"}, nil},
	{"warm", []string{"id"}, []string{
		"id", "rule", "fit", "state", "reason", "token_hash", "namespace", "region", "registered", "doubted", "node", "asked", "created_at", "placed_at", "ready_at", "ended_at", "job_id",
	}, []string{"registered", "doubted"}},
	{"overflows", []string{"host", "owner", "repo", "variable"}, []string{
		"host", "owner", "repo", "variable", "rule", "to_value", "back_value", "state", "why", "since", "state_at", "calm",
	}, nil},
}

const copiedRows = 500 // are read, and written to PostgreSQL, at a time

// A Copied says how much of a table was copied.
type Copied struct {
	Table string
	Rows  int64
	Hash  string // SHA-256 of the rows, in hexadecimal; of equal rows it is the same in every database
}

// Copy copies all of the database named from, a file or a URL, to the one named to, which
// must have no rows; a missing file is created. No server may use either of them. The schema
// of from is brought up to date first. The copy is one transaction: when Copy fails, or the process ends, to is as empty as before. What was
// written is read again and compared. said, which may be nil, is called now and then, with
// how many rows of a table were written.
func Copy(ctx context.Context, from, to string, said func(table string, rows int64)) (copied []Copied, err error) {
	if err := exists(from); err != nil {
		return nil, err
	}
	source, err := Open(ctx, from, Alone)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := Open(ctx, to, Alone)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if said == nil {
		said = func(string, int64) {}
	}
	if copied, err = target.fill(ctx, source, said); err != nil {
		return nil, fmt.Errorf("copy %s to %s: %w", source.path, target.path, err)
	}
	return copied, nil
}

// copyPatience is how long a statement of a copy may take in PostgreSQL: nobody waits for it.
const copyPatience = 10 * time.Minute

// fill does the work of Copy.
func (s *Store) fill(ctx context.Context, source *Store, said func(table string, rows int64)) (copied []Copied, err error) {
	var failed error
	err = s.writer.change(ctx, router.SourceOperator, func(t *tx) error {
		if failed != nil { // the writer makes the change again, to know whether it is this one that fails
			return failed
		}
		t.patience = copyPatience
		if s.postgres != nil {
			_, failed = t.exec("SET LOCAL idle_in_transaction_session_timeout = 0") // the source may take its time
		}
		if failed == nil {
			copied, failed = copyAll(ctx, source.querier(ctx), t, said)
		}
		return failed
	})
	if err == nil && s.postgres != nil {
		_, err = s.write.ExecContext(ctx, "ANALYZE") // without it plans are guesses for a while
	}
	return copied, err
}

func copyAll(ctx context.Context, from querier, t *tx, said func(table string, rows int64)) (copied []Copied, err error) {
	for _, c := range copiedTables {
		if some, err := found(t, "SELECT 1 FROM "+c.name+" LIMIT 1"); some || err != nil {
			return nil, cmp.Or(err, fmt.Errorf("the target has rows in table %s: name an empty database", c.name))
		}
	}
	restore, err := t.withoutTriggers()
	if err != nil {
		return nil, err
	}
	for _, c := range copiedTables {
		written, err := c.copy(ctx, from, t, said)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", c.name, err)
		}
		again := sha256.New()
		if err := c.each(ctx, t.query, func(rows [][]any) error { return sum(again, rows) }); err != nil {
			return nil, fmt.Errorf("read table %s again: %w", c.name, err)
		}
		if hash := hex.EncodeToString(again.Sum(nil)); hash != written.Hash {
			return nil, fmt.Errorf("table %s: what was written is not what was read (SHA-256 %s, want %s)", c.name, hash, written.Hash)
		}
		copied = append(copied, written)
	}
	return copied, restore()
}

// copy copies the rows of a table.
func (c copiedTable) copy(ctx context.Context, from querier, t *tx, said func(table string, rows int64)) (Copied, error) {
	columns := strings.Join(c.columns, ", ")
	one := "INSERT INTO " + c.name + " (" + columns + ") VALUES (?" + strings.Repeat(", ?", len(c.columns)-1) + ")"
	many := "INSERT INTO " + c.name + " (" + columns + ") SELECT " + columns + " FROM json_populate_recordset(NULL::" + c.name + ", ?::json)"
	written, read := Copied{Table: c.name}, sha256.New()
	err := c.each(ctx, from, func(rows [][]any) error {
		for i := range rows {
			rows[i] = clean(rows[i])
		}
		written.Rows += int64(len(rows))
		said(c.name, written.Rows)
		if err := sum(read, rows); err != nil {
			return err
		}
		if t.w.postgres == nil {
			for _, row := range rows {
				if _, err := t.exec(one, row...); err != nil {
					return err
				}
			}
			return nil
		}
		text, err := c.json(rows)
		if err == nil {
			_, err = t.exec(many, text)
		}
		return err
	})
	written.Hash = hex.EncodeToString(read.Sum(nil))
	return written, err
}

// each calls do for the rows of a table, some at a time, in the order of its key. The values
// of a row are those of SQLite: int64, string, []byte or nil.
func (c copiedTable) each(ctx context.Context, q querier, do func(rows [][]any) error) error {
	first := "SELECT " + strings.Join(c.columns, ", ") + " FROM " + c.name
	key := strings.Join(c.key, ", ")
	last := " ORDER BY " + key + " LIMIT ?"
	next := first + " WHERE (" + key + ") > (?" + strings.Repeat(", ?", len(c.key)-1) + ")" + last
	for query, after := first+last, []any(nil); ; query = next {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows, err := all(q, c.scan, query, append(after, copiedRows)...)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := do(rows); err != nil {
			return err
		}
		after = nil
		for _, name := range c.key {
			after = append(after, rows[len(rows)-1][slices.Index(c.columns, name)])
		}
	}
}

func (c copiedTable) scan(rows *sql.Rows, row *[]any) error {
	*row = make([]any, len(c.columns))
	to := make([]any, len(c.columns))
	for i := range to {
		to[i] = &(*row)[i]
	}
	if err := rows.Scan(to...); err != nil {
		return err
	}
	for i, v := range *row {
		switch b, is := v.(bool); {
		case is && !b:
			(*row)[i] = int64(0)
		case is:
			(*row)[i] = int64(1)
		}
	}
	return nil
}

// json returns rows as a JSON array of objects that PostgreSQL makes rows of.
func (c copiedTable) json(rows [][]any) (string, error) {
	objects := make([]map[string]any, len(rows))
	for i, row := range rows {
		objects[i] = map[string]any{}
		for k, name := range c.columns {
			v := row[k]
			if b, ok := v.([]byte); ok {
				v = `\x` + hex.EncodeToString(b)
			}
			if slices.Contains(c.flags, name) {
				v = v == int64(1)
			}
			objects[i][name] = v
		}
	}
	text, err := json.Marshal(objects)
	return string(text), err
}

// sum adds rows to a hash.
func sum(h hash.Hash, rows [][]any) error {
	e := json.NewEncoder(h)
	for _, row := range rows {
		if err := e.Encode(row); err != nil {
			return err
		}
	}
	return nil
}

// withoutTriggers has the rest of a transaction run without triggers, until restore is called,
// which also has new rows numbered after the last.
func (t *tx) withoutTriggers() (restore func() error, err error) {
	if t.w.postgres != nil {
		return func() error {
			for _, table := range []string{"events", "audit"} {
				if err := t.query(into(new(any)), "SELECT setval(pg_get_serial_sequence('"+table+"', 'id'), coalesce((SELECT max(id) FROM "+table+"), 0) + 1, false)"); err != nil {
					return err
				}
			}
			return t.switchTriggers("ENABLE")
		}, t.switchTriggers("DISABLE")
	}
	type trigger struct{ name, sql string }
	triggers, err := all(t.query, func(rows *sql.Rows, t *trigger) error { return rows.Scan(&t.name, &t.sql) },
		"SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
	for _, one := range triggers {
		if err == nil {
			_, err = t.exec("DROP TRIGGER " + one.name)
		}
	}
	return func() error {
		for _, one := range triggers {
			if _, err := t.exec(one.sql); err != nil {
				return err
			}
		}
		return nil
	}, err
}

func (t *tx) switchTriggers(how string) error {
	for _, table := range []string{"jobs", "runners"} {
		if _, err := t.exec("ALTER TABLE " + table + " " + how + " TRIGGER USER"); err != nil {
			return err
		}
	}
	return nil
}

// exists fails when the database with this name is a file that is missing.
func exists(name string) error {
	if IsPostgres(name) {
		return nil
	}
	if _, err := os.Stat(name); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	return nil
}
