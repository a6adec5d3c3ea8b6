package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
	"switchyard/router/store/storetest"
)

func TestPostgreSQLIsAStore(t *testing.T) {
	t.Parallel()
	pool := postgrestest.NewPool(t, func(url string) error {
		s, err := store.Open(context.Background(), url)
		if err != nil {
			return err
		}
		return s.Close()
	})
	storetest.Run(t, func(t testing.TB) storetest.Store {
		s, err := store.Open(t.Context(), pool.URL(t))
		must(t, err)
		t.Cleanup(func() { must(t, s.Close()) })
		return s
	})
}

// The README's statements make a role that may do no more than it must, and that is enough.
func TestTheRoleOfTheREADMEIsEnough(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(postgrestest.URL(t))
	must(t, err)
	readme, err := os.ReadFile("README.md")
	must(t, err)
	_, statements, ok := strings.Cut(string(readme), "```sql\n")
	statements, _, closed := strings.Cut(statements, "```\n")
	if !ok || !closed {
		t.Fatal("the README has no statements")
	}
	name := "readme_" + u.User.Username()
	statements = strings.NewReplacer("switchyard", name, "…", "s3cret").Replace(statements)
	database := ""
	t.Cleanup(func() {
		postgrestest.Exec(t, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		postgrestest.Exec(t, "DROP ROLE IF EXISTS "+name)
	})
	for statement := range strings.Lines(statements) {
		if connect, ok := strings.CutPrefix(statement, `\connect `); ok {
			database = strings.TrimSpace(connect)
			continue
		}
		postgrestest.ExecIn(t, database, statement)
	}
	q := u.Query()
	q.Del("search_path")
	of := func(role string) string {
		u.User, u.Path, u.RawQuery = url.UserPassword(role, "s3cret"), "/"+name, q.Encode()
		return u.String()
	}
	s, err := store.Open(t.Context(), of(name))
	must(t, err)
	must(t, errOf(s.Receive(t.Context(), storetest.NewDelivery(1, "queued", "queued"))))
	must(t, s.Close())
	postgrestest.ExecIn(t, name, fmt.Sprintf("SELECT FROM %[1]s.jobs; DROP OWNED BY %[1]s", name))

	// Each with the right that the one before lacked.
	for _, step := range []struct{ lacks, rights string }{
		{"CONNECT", "REVOKE ALL ON SCHEMA public FROM PUBLIC"},
		{"a schema", "GRANT CONNECT ON DATABASE NAME TO NAME"},
		{"CREATE in its schema", "GRANT USAGE ON SCHEMA public TO NAME"},
	} {
		postgrestest.ExecIn(t, name, strings.ReplaceAll(step.rights, "NAME", name))
		_, err = store.Open(t.Context(), of(name))
		if fix, ok := errors.AsType[*router.FixError](err); !ok || !strings.Contains(fix.Fix, "make it the owner of the schema") {
			t.Errorf("without %s: %v", step.lacks, err)
		}
	}
}

func openPostgres(t *testing.T, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// received reports whether a job is in the database, asked by a connection of its own.
func received(t *testing.T, s *store.Store, id int64) bool {
	t.Helper()
	_, err := s.Job(t.Context(), id)
	if err != nil && !errors.Is(err, router.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func TestAConnectionThatIsCutLosesAndDoublesNothing(t *testing.T) {
	proxy := postgrestest.NewProxy(t, postgrestest.URL(t))
	s := openPostgres(t, proxy.URL)
	queue := func(id int64) error {
		return errOf(s.Receive(t.Context(), storetest.NewDelivery(id, "queued", "queued")))
	}
	must(t, queue(1))
	proxy.Cut() // while nothing is being written
	must(t, queue(2))
	proxy.CutNextCommit() // what became of it is found out
	must(t, queue(3))
	for id := int64(1); id <= 3; id++ {
		if !received(t, s, id) {
			t.Errorf("job %d is not in the database, though its delivery was taken", id)
		}
		if line, err := s.Timeline(t.Context(), id); err != nil || len(line) != 1 {
			t.Errorf("job %d has the timeline %v, %v, want one event", id, line, err)
		}
	}

	proxy.Refuse(true)
	if err := queue(4); err == nil {
		t.Error("a delivery was taken while the database is away")
	}
	if err := s.Writable(t.Context()); err == nil {
		t.Error("the database can be written while it is away")
	}
	proxy.Refuse(false)
	if received(t, s, 4) {
		t.Error("a delivery that was refused is in the database")
	}
	must(t, queue(4)) // at once
	must(t, s.Writable(t.Context()))
}

// A NUL is in no text of PostgreSQL's, and a stranger may send one anywhere.
func TestANULLosesNoDelivery(t *testing.T) {
	s := openPostgres(t, postgrestest.URL(t))
	d := storetest.NewDelivery(1, "queued", "queued")
	d.Job.Name, d.Job.Labels = "a\x00b", []string{"\x00\x00", `c:\u0000`, "x\\\x00"}
	must(t, errOf(s.Receive(t.Context(), d)))
	j, err := s.Job(t.Context(), 1)
	must(t, err)
	want := []string{"\ufffd\ufffd", `c:\u0000`, "x\\\ufffd"}
	if j.Name != "a\ufffdb" || !slices.Equal(j.Labels, want) {
		t.Errorf("name %q, labels %q, want %q", j.Name, j.Labels, want)
	}
}

// An error names the database, and no secret.
func TestAnErrorOfPostgreSQLHasNoPassword(t *testing.T) {
	postgrestest.URL(t)
	for _, url := range []string{
		"postgres://u:s3cret@127.0.0.1:1/db", "postgres://u:s3cret@127.0.0.1:x/db", "postgres://u:s3cret@127.0.0.1/db?sslmode=no", "postgres://u:s3cret@/db?host=/missing",
	} {
		_, err := store.Open(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// A commit that waits for a standby is not there yet: ended, it would be, and be lost by a
// failover all the same.
func TestWhatNoStandbyHasIsNotTaken(t *testing.T) {
	t.Parallel()
	primary := postgrestest.NewCluster(t)
	standby := primary.Standby(t)
	s := openPostgres(t, primary.URL)
	queue := func() (bool, error) { return s.Receive(t.Context(), storetest.NewDelivery(1, "queued", "queued")) }
	standby.Stop(t)
	if _, err := queue(); err == nil {
		t.Error("a delivery was taken that no standby has")
	}
	standby.Restart(t)
	eventually(t, "the delivery is taken when it is sent again", func() bool {
		_, err := queue()
		return err == nil
	})
	if line, err := s.Timeline(t.Context(), 1); err != nil || len(line) != 1 {
		t.Errorf("the job has the timeline %v, %v, want one event", line, err)
	}
}
