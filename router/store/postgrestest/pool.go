package postgrestest

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A Pool lends schemas with tables in them: to put these into each costs many times what it
// takes to empty them. It is safe for concurrent use.
type Pool struct {
	t    testing.TB
	fill func(url string) error

	mu    sync.Mutex
	admin *pgx.Conn
	free  []string // URLs
}

// NewPool returns a Pool whose schemas are as fill leaves the empty one at a URL. It ends with
// the test, whose subtests it is for. It skips or fails as URL does.
func NewPool(t testing.TB, fill func(url string) error) *Pool {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), superuser(t).String())
	if err != nil {
		t.Fatal(err)
	}
	p := &Pool{t: t, fill: fill, admin: admin}
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	return p
}

// URL returns the URL of a schema that nobody else has before the test ends, and of a role as
// that of the function URL.
func (p *Pool) URL(t testing.TB) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var lent string
	if last := len(p.free) - 1; last >= 0 {
		lent = p.free[last]
		p.free = p.free[:last]
	} else {
		lent = URL(p.t)
		if err := p.fill(lent); err != nil {
			t.Fatal(err)
		}
		name := schema(lent)
		p.exec(t, fmt.Sprintf("CREATE SCHEMA %s_first", name), name, `
EXECUTE format('CREATE TABLE %1$s_first.%2$I AS TABLE %1$s.%2$I', name, relation)`)
		p.t.Cleanup(func() { Exec(p.t, fmt.Sprintf("DROP SCHEMA %s_first CASCADE", name)) })
	}
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.exec(t, "SET session_replication_role = replica", schema(lent), `
EXECUTE format('DELETE FROM %1$s.%2$I', name, relation);
EXECUTE format('INSERT INTO %1$s.%2$I TABLE %1$s_first.%2$I', name, relation)`)
		p.free = append(p.free, lent)
	})
	return lent
}

// exec runs a statement, and others for each table of a schema, whose sequences begin again.
func (p *Pool) exec(t testing.TB, first, name, each string) {
	t.Helper()
	if _, err := p.admin.Exec(context.Background(), fmt.Sprintf(`%s; DO $$
DECLARE
	name TEXT := '%s';
	relation TEXT;
BEGIN
	FOR relation IN SELECT relname FROM pg_class WHERE relnamespace = name::regnamespace AND relkind = 'r' LOOP
		%s;
	END LOOP;
	FOR relation IN SELECT relname FROM pg_class WHERE relnamespace = name::regnamespace AND relkind = 'S' LOOP
		EXECUTE format('ALTER SEQUENCE %%s.%%I RESTART', name, relation);
	END LOOP;
END $$`, first, name, each)); err != nil {
		t.Errorf("schema %s: %v", name, err)
	}
}

// schema returns the name of the schema of a URL's.
func schema(lent string) string {
	u, err := url.Parse(lent)
	if err != nil {
		panic(err)
	}
	return u.User.Username()
}
