package store

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"switchyard/router"
	"switchyard/router/store/postgrestest"
)

// The database ends the connection after a change was made and before it is committed.
func TestAChangeThatIsNotCommittedFailsAndTheNextOneDoesNot(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), postgrestest.URL(t))
	must(t, err)
	defer func() { must(t, s.Close()) }()
	err = s.writer.change(t.Context(), router.SourceRouter, func(tx *tx) error {
		_, err := tx.exec(setMarkSQL, "a", "1")
		postgrestest.Exec(t, "SELECT pg_terminate_backend("+strings.Fields(s.writer.backend)[0]+")")
		return err
	})
	if err == nil {
		t.Error("a change whose transaction was ended is said to be made")
	}
	must(t, s.SetMark(t.Context(), "b", "2"))
	for name, want := range map[string]string{"a": "", "b": "2"} {
		if got, err := s.Mark(t.Context(), name); got != want || err != nil {
			t.Errorf("mark %s = %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestASchemaOfAnotherProgramIsRefusedAndOneThatWasBegunIsNot(t *testing.T) {
	url := postgrestest.URL(t)
	p, err := parsePostgres(url)
	must(t, err)
	db := p.open(1, false)
	defer db.Close()
	_, _, err = postgresSchema(t.Context(), db) // makes the table of versions, as a start does that ends there
	must(t, err)
	s, err := Open(t.Context(), url)
	must(t, err)
	must(t, s.Close())

	other := postgrestest.URL(t)
	p, err = parsePostgres(other)
	must(t, err)
	theirs := p.open(1, false)
	defer theirs.Close()
	_, err = theirs.ExecContext(t.Context(), "CREATE TABLE theirs (id int)")
	must(t, err)
	if _, err := Open(t.Context(), other); err == nil || !strings.Contains(err.Error(), "tables of another program") {
		t.Errorf("a schema with another program's table: %v", err)
	}
}

func TestStatementsAsPostgreSQLTakesThem(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT a FROM jobs INDEXED BY jobs_due WHERE b = ? AND c = ?5 AND d = ?":      "SELECT a FROM jobs WHERE b = $1::bigint AND c = $5 AND d = $6::boolean",
		"WHERE owner = ? COLLATE NOCASE AND +host = ? COLLATE NOCASE":                  `WHERE lower(owner) = lower($1::bigint) AND lower(host) = lower($2::text COLLATE "C")`,
		"SELECT max(a), max(b, min(c, 2)), min(max(a, (b)), 3) FROM t":                 "SELECT max(a), greatest(b, least(c, 2)), least(greatest(a, (b)), 3) FROM t",
		"j.decision ->> '$.rule', u ->> '$.away', d ->> '$.limit.running'":             "rule_of(j.decision), u::json ->> 'away', d::json #>> '{limit,running}'",
		"SELECT coalesce(min(+id), 0) FROM (a) CROSS JOIN b ON (c) WHERE +cause = 'x'": "SELECT coalesce(min(+id), 0) FROM (a) JOIN b ON (c) WHERE cause = 'x'",
	} {
		if got := postgresText(query, []any{int64(1), "x", []byte{1}, router.Queued, nil, true}); got != want {
			t.Errorf("%s\nbecame %s\nwant   %s", query, got, want)
		}
	}
}

// A database that crashes gives another transaction the number of one of which it has nothing.
func TestATransactionWhoseNumberIsUsedAgainIsNotCommitted(t *testing.T) {
	t.Parallel()
	cluster := postgrestest.NewCluster(t)
	s, err := Open(t.Context(), cluster.URL)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	for again := false; !again; { // now and then the database has written something of it
		err = s.writer.change(t.Context(), router.SourceRouter, func(tx *tx) error {
			_, err := tx.exec(setMarkSQL, "a", "1")
			ours, parsed := strconv.Atoi(s.writer.id)
			must(t, parsed)
			cluster.Restart(t)
			conn, connected := pgx.Connect(t.Context(), cluster.URL)
			must(t, connected)
			defer conn.Close(t.Context())
			for id := 0; id < ours; again = id == ours {
				must(t, conn.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&id))
			}
			return err
		})
		if got, _ := s.Mark(t.Context(), "a"); err == nil || got != "" {
			t.Fatalf("the change is said to be made, %v, and it is %q", err, got)
		}
	}
}

// While the database is slow the first of many changes does not wait for the last.
func TestASlowTransactionTakesNoMoreChanges(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), postgrestest.URL(t))
	must(t, err)
	defer func() { must(t, s.Close()) }()
	release, begun, answered := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	change := func(do func()) {
		if err := s.writer.change(t.Context(), router.SourceRouter, func(*tx) error {
			do()
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	all.Go(func() {
		change(func() {
			close(begun)
			<-release
		})
	})
	<-begun
	all.Go(func() {
		change(func() { time.Sleep(changeFor + changeFor/10) })
		close(answered)
	})
	for len(s.writer.ops) < 1 {
		time.Sleep(time.Millisecond)
	}
	all.Go(func() {
		change(func() {
			select {
			case <-answered:
			case <-time.After(4 * time.Second): // PostgreSQL ends an idle transaction after 5
				t.Error("the second change was begun before the first was answered")
			}
		})
	})
	for len(s.writer.ops) < 2 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	all.Wait()
}

// A connection may lead to a server that takes changes no longer, while others can be made to
// one that does.
func TestAConnectionThatIsReadOnlyIsGivenUp(t *testing.T) {
	s, err := Open(t.Context(), postgrestest.URL(t))
	must(t, err)
	defer func() { must(t, s.Close()) }()
	must(t, s.SetMark(t.Context(), "a", "1"))
	backend := func() (pid int) {
		must(t, s.writer.change(t.Context(), router.SourceRouter, func(tx *tx) error {
			return tx.query(into(&pid), "SELECT pg_backend_pid()")
		}))
		return pid
	}
	before := backend()
	for _, statement := range []string{
		`CREATE FUNCTION standby() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'cannot execute INSERT in a read-only transaction' USING ERRCODE = '25006'; END $$`,
		`CREATE TRIGGER standby BEFORE INSERT ON marks FOR EACH ROW EXECUTE FUNCTION standby()`,
	} {
		_, err := s.write.ExecContext(t.Context(), statement)
		must(t, err)
	}
	for _, err := range []error{s.SetMark(t.Context(), "a", "2"), s.Writable(t.Context())} {
		if fix, ok := errors.AsType[*router.FixError](err); !ok || fix.Fix != fixReadOnly {
			t.Errorf("a read-only server is said to be: %v", err)
		}
	}
	if after := backend(); after == before {
		t.Error("the writer keeps a connection that is read-only")
	}
}

// The database does not end a copy whose source takes its time.
func TestACopyMayTakeItsTime(t *testing.T) {
	t.Parallel()
	source, err := Open(t.Context(), filepath.Join(t.TempDir(), "s.db"), Alone)
	must(t, err)
	defer func() { must(t, source.Close()) }()
	must(t, source.SetMark(t.Context(), "a", "1"))
	target, err := Open(t.Context(), postgrestest.URL(t), Alone)
	must(t, err)
	defer func() { must(t, target.Close()) }()
	var idle string
	said := func(string, int64) {
		must(t, target.writer.conn.QueryRowContext(t.Context(), "SHOW idle_in_transaction_session_timeout").Scan(&idle))
	}
	if _, err := target.fill(t.Context(), source, said); err != nil || idle != "0" {
		t.Errorf("%v; a transaction may be idle for %q", err, idle)
	}
}
