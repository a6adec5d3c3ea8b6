package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"switchyard/router"
)

//go:embed postgres/*.sql
var postgresMigrations embed.FS

const (
	// All changes are made one after the other, by whoever holds this lock, so that what a
	// change reads stays as it is until it is committed; readers wait for nobody.
	changesLock = applicationID

	// Who serves from the database shares this one; who needs it alone has it alone.
	serverLock = changesLock + 1

	// The leader of the replicas holds this one. All are those of a schema, as others may have
	// a Switchyard of their own.
	leaderLock = serverLock + 1

	connectTimeout = 3 * time.Second  // to each server that the URL names, unless that says otherwise
	pingAfter      = time.Second      // for which a connection has done nothing
	pingTimeout    = 2 * time.Second  // of one before it is used again: others can be made
	beginTimeout   = 10 * time.Second // to connect to any of them; and for others to finish their changes
	changeTimeout  = 4 * time.Second  // of a statement of a change
	changeFor      = time.Second      // no more changes are begun in a transaction, so that the first need not wait for the last if the database is slow
	resolveFor     = 4 * time.Second  // how long the writer asks what became of a transaction whose commit was cut off
)

// IsPostgres reports whether the name of a database is that of one in PostgreSQL: a URL.
func IsPostgres(name string) bool {
	return strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://")
}

// A postgres makes connections to a PostgreSQL database.
type postgres struct {
	url    string
	config *pgx.ConnConfig
	name   string // for people: without the password
	texts  texts
}

// parsePostgres reads a URL of libpq's form; what it lacks comes from the environment
// (PGHOST, PGPASSWORD, PGSSLMODE and the like) and the password file.
func parsePostgres(url string) (*postgres, error) {
	config, err := postgresConfig(url)
	if err != nil {
		return nil, err // without the password: https://pkg.go.dev/github.com/jackc/pgx/v5/pgconn#ParseConfigError
	}
	return &postgres{url: url, config: config, name: fmt.Sprintf("%s on %s", config.Database, config.Host)}, nil
}

func postgresConfig(url string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "switchyard"
	}
	if config.ValidateConnect == nil { // of several servers, not a standby
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	if config.ConnectTimeout == 0 { // of several servers, the first may be gone without a word
		config.ConnectTimeout = connectTimeout
	}
	return config, nil
}

// fresh returns how to make the next connection: the password, or a certificate, may have been
// replaced.
func (p *postgres) fresh() *pgx.ConnConfig {
	config, err := postgresConfig(p.url)
	if err != nil { // while a file is being replaced
		return p.config.Copy()
	}
	return config
}

// neverCancel has a connection that is given up not ask the database to cancel what it does,
// which pgx does by dialling once more: a commit that waits for a standby would end its wait
// and count as committed. What is left of the connection is ended by endBackend.
func neverCancel(c *pgx.ConnConfig) {
	dial, connected := c.DialFunc, false
	c.AfterConnect = func(context.Context, *pgconn.PgConn) error {
		connected = true
		return nil
	}
	c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if connected {
			return nil, errors.New("nothing is cancelled")
		}
		return dial(ctx, network, addr)
	}
}

// open returns a pool of connections, of which n at most are open.
func (p *postgres) open(n int, readOnly bool) *sql.DB {
	set := "SET jit = off; SET idle_in_transaction_session_timeout = '15s'; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
	if !readOnly { // its statements find rows by their keys, and planning each costs as much as running it
		set += "; SET plan_cache_mode = force_generic_plan"
	}
	if readOnly {
		set += "; SET default_transaction_read_only = on"
	}
	db := stdlib.OpenDB(*p.config, stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		*c = *p.fresh()
		if !readOnly {
			neverCancel(c)
		}
		return nil
	}), stdlib.OptionShouldPing(func(ctx context.Context, c stdlib.ShouldPingParams) bool {
		if c.IdleDuration < pingAfter {
			return false
		}
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		return c.Conn.Ping(ctx) != nil // pinged again it fails at once, and is closed
	}), stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.PgConn().Exec(ctx, set).ReadAll()
		return err
	}))
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db
}

// postgresSchema is schema for PostgreSQL.
func postgresSchema(ctx context.Context, db *sql.DB) (p *goose.Provider, old bool, err error) {
	return versions(ctx, db, goose.DialectPostgres, postgresMigrations, "postgres")
}

// migratePostgres brings the schema up to date, of which conn has a connection. Meanwhile
// nobody makes changes.
func migratePostgres(ctx context.Context, db *sql.DB, conn *sql.Conn) error {
	const locks = "($1, hashtext(current_schema()))"
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock"+locks, changesLock); err != nil {
		return err
	}
	err := checkPostgres(ctx, conn)
	if err == nil {
		var p *goose.Provider
		if p, _, err = postgresSchema(ctx, db); err == nil {
			_, err = p.Up(ctx)
		}
	}
	_, unlocked := conn.ExecContext(ctx, "SELECT pg_advisory_unlock"+locks, changesLock)
	if err := errors.Join(err, unlocked); err != nil {
		return fmt.Errorf("bring its schema up to date: %w", err)
	}
	return nil
}

// checkPostgres refuses a database that is neither empty nor Switchyard's. It does not ask
// information_schema, which fails if a table of any schema is dropped meanwhile.
func checkPostgres(ctx context.Context, conn *sql.Conn) error {
	var encoding string
	var tables, ours int
	err := conn.QueryRowContext(ctx, `
SELECT current_setting('server_encoding'), count(*), count(*) FILTER (WHERE relname IN ('jobs', 'runners', 'deliveries'))
FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = current_schema() AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relname <> 'goose_db_version'`).Scan(&encoding, &tables, &ours)
	switch {
	case err != nil:
		return err
	case encoding != "UTF8":
		return fmt.Errorf("its encoding is %s: make it with the encoding UTF8", encoding)
	case tables > 0 && ours < 3:
		return errors.New("it has tables of another program; give Switchyard a database, or a schema, of its own")
	}
	return nil
}

var (
	onlySQLite   = regexp.MustCompile(` (INDEXED BY \w+|NOT INDEXED)`)
	eachOf       = regexp.MustCompile(`(?s)ON id IN \((SELECT n\.id .*)\)$`)
	crossJoin    = regexp.MustCompile(`CROSS JOIN`)
	noCase       = regexp.MustCompile(`([^\s(]+) = (\?\d*|[a-z.]+) COLLATE NOCASE`)
	ruleOf       = regexp.MustCompile(`\b((?:\w+\.)?decision) ->> '\$\.rule'`)
	fieldOf      = regexp.MustCompile(` ->> '\$\.([a-z]+)'`)
	innerFieldOf = regexp.MustCompile(` ->> '\$\.([a-z]+)\.([a-z]+)'`)
	unaryPlus    = regexp.MustCompile(`([\s(])\+(host\b|owner\b|repo\b|state\b|cause\b|\()`) // of text
	extreme      = regexp.MustCompile(`\b(min|max)\(`)
	placeholder  = regexp.MustCompile(`\?\d*`)
)

// postgresText returns a statement of this package, which is written for SQLite, as
// PostgreSQL takes it. Each argument is given its type, as that does not always follow
// from where it stands; NULL has none.
func postgresText(query string, args []any) string {
	query = onlySQLite.ReplaceAllString(query, "")
	query = eachOf.ReplaceAllString(query, "ON id = ANY (ARRAY($1))") // else it goes through all jobs for each
	query = crossJoin.ReplaceAllString(query, "JOIN")
	query = noCase.ReplaceAllString(query, "lower($1) = lower($2)")
	query = ruleOf.ReplaceAllString(query, "rule_of($1)")
	query = fieldOf.ReplaceAllString(query, "::json ->> '$1'")
	query = innerFieldOf.ReplaceAllString(query, "::json #>> '{$1,$2}'")
	query = unaryPlus.ReplaceAllString(query, "$1$2")
	query = extremes(query)
	last := 0 // one without a number follows the highest before it
	return placeholder.ReplaceAllStringFunc(query, func(p string) string {
		n, err := strconv.Atoi(p[1:])
		if err != nil {
			n = last + 1
		}
		last = max(last, n)
		return "$" + strconv.Itoa(n) + postgresTypes[kindOf(args[n-1])]
	})
}

var postgresTypes = []string{"", "::bigint", `::text COLLATE "C"`, "::boolean", "::bytea"}

// kindOf returns the place of an argument's type in postgresTypes.
func kindOf(arg any) int {
	if arg == nil {
		return 0
	}
	switch reflect.TypeOf(arg).Kind() {
	case reflect.String:
		return 2
	case reflect.Bool:
		return 3
	case reflect.Slice:
		return 4
	default:
		return 1
	}
}

// extremes writes the min and max of several values, which SQLite tells from those of
// several rows by that, as least and greatest.
func extremes(query string) string {
	var b strings.Builder
	last := 0
	for _, at := range extreme.FindAllStringIndex(query, -1) {
		depth, several := 0, false
		for _, c := range query[at[1]:] {
			if c == ')' && depth == 0 {
				break
			}
			switch c {
			case '(':
				depth++
			case ')':
				depth--
			case ',':
				several = several || depth == 0
			}
		}
		if several {
			b.WriteString(query[last:at[0]])
			b.WriteString(map[string]string{"min(": "least(", "max(": "greatest("}[query[at[0]:at[1]]])
			last = at[1]
		}
	}
	b.WriteString(query[last:])
	return b.String()
}

// texts remembers what postgresText returned. It is safe for concurrent use.
type texts struct {
	mu sync.Mutex
	of map[textKey]string
}

type textKey struct {
	query string
	kinds string // of the arguments
}

// adapt returns a statement and its arguments as PostgreSQL takes them.
func (t *texts) adapt(query string, args []any) (string, []any) {
	return t.text(query, args), clean(args)
}

// clean returns arguments in which no string has a NUL or a byte that is not UTF-8, and no
// JSON an escaped NUL: PostgreSQL takes none of them, and a stranger may send one.
func clean(args []any) []any {
	for i, a := range args {
		v := reflect.ValueOf(a)
		if v.Kind() != reflect.String || utf8.ValidString(v.String()) && !strings.Contains(v.String(), "\x00") && !strings.Contains(v.String(), `\u0000`) {
			continue
		}
		args = slices.Clone(args)
		text := strings.ToValidUTF8(strings.ReplaceAll(v.String(), "\x00", "\ufffd"), "\ufffd")
		for escapedNUL.MatchString(text) { // matches do not overlap
			text = escapedNUL.ReplaceAllString(text, `$1\ufffd`)
		}
		args[i] = text
	}
	return args
}

// escapedNUL is one in JSON, after backslashes that escape each other.
var escapedNUL = regexp.MustCompile(`((?:^|[^\\])(?:\\\\)*)\\u0000`)

func (t *texts) text(query string, args []any) string {
	kinds := make([]byte, len(args))
	for i, a := range args {
		kinds[i] = byte(kindOf(a))
	}
	key := textKey{query, string(kinds)}
	t.mu.Lock()
	defer t.mu.Unlock()
	text, ok := t.of[key]
	if !ok {
		text = postgresText(query, args)
		if t.of == nil || len(t.of) >= 10*maxStmts {
			t.of = map[textKey]string{}
		}
		t.of[key] = text
	}
	return text
}

// openPostgres is open for PostgreSQL.
func openPostgres(ctx context.Context, url string, options ...Option) (_ *Store, err error) {
	p, err := parsePostgres(url)
	if err != nil {
		return nil, err
	}
	s := newStore(p.name)
	for _, o := range options {
		o(s)
	}
	s.postgres = p
	defer func() {
		if err != nil {
			err = errors.Join(p.fault(err), s.Close())
		}
	}()
	s.write = p.open(2, false) // the second is for migrations, and to ask what became of a transaction
	s.read, s.asked = p.readers(), &Reader{path: p.name, db: p.readers()}
	s.reads.querier, s.asked.reads.querier = p.guard(s.read), p.guard(s.asked.db)
	s.whole = true
	w := newWriter(s.write, nil)
	w.postgres, w.adapt, w.alone = p, p.texts.adapt, s.alone
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	err = migratePostgres(ctx, s.write, w.conn)
	if err == nil {
		_, err = w.conn.ExecContext(ctx, "DELETE FROM commits WHERE at < now() - interval '1 day'") // of processes that are gone
	}
	if err != nil {
		w.disconnect()
		return nil, err
	}
	s.writer = w
	go w.run()
	return s, nil
}

const fixRights = "let Switchyard's role connect to its database, and make it the owner of the schema that is first in its search_path"

// claimServer makes sure, for as long as the connection lasts, that nobody needs the database
// alone, or that no other Switchyard uses it. It waits for one that is about to end.
func claimServer(ctx context.Context, conn *sql.Conn, alone bool) error {
	lock := "SELECT pg_try_advisory_lock_shared($1, hashtext(current_schema()))"
	if alone {
		lock = "SELECT pg_try_advisory_lock($1, hashtext(current_schema()))"
	}
	for waited := time.Duration(0); ; waited += lockPause {
		var ours sql.NullBool
		err := conn.QueryRowContext(ctx, lock, serverLock).Scan(&ours)
		if err == nil && !ours.Valid { // current_schema() is NULL
			err = &router.FixError{Fix: fixRights, Err: errors.New("its role may use no schema of its search_path")}
		}
		if err != nil || ours.Bool {
			return err
		}
		if waited >= 3*lockPatience || !router.Pause(ctx, lockPause) {
			return errInUse
		}
	}
}

// endBackend ends what is left of a connection of ours, which the database may not have
// noticed the end of. It leaves one that waits for a standby to have what it committed: ended,
// that would count as committed, though a failover may lose it.
const endBackend = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid || ' ' || backend_start = $1 AND wait_event IS DISTINCT FROM 'SyncRep'"

// connect takes a connection, unless the writer has one.
func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	conn, err := w.db.Conn(ctx)
	if err == nil && w.postgres != nil {
		if w.backend != "" {
			_, _ = conn.ExecContext(ctx, endBackend, w.backend)
		}
		err = claimServer(ctx, conn, w.alone)
		if err == nil {
			err = conn.QueryRowContext(ctx, "SELECT pid || ' ' || backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&w.backend)
		}
		if err != nil {
			err = errors.Join(err, conn.Close())
		}
	}
	if err != nil {
		return err
	}
	w.conn = conn
	return nil
}

// reconnect is connect, for beginTimeout at most.
func (w *writer) reconnect() error {
	ctx, cancel := context.WithTimeout(context.Background(), beginTimeout)
	defer cancel()
	return w.connect(ctx)
}

// disconnect gives up a connection that may be in any state.
func (w *writer) disconnect() {
	if w.conn == nil {
		return
	}
	_ = w.conn.Raw(func(c any) error {
		if c, ok := c.(*stdlib.Conn); ok {
			_ = c.Conn().PgConn().Conn().Close() // nothing is said to the other side, which may not hear
		}
		return driver.ErrBadConn
	})
	for _, s := range w.stmts {
		_ = s.Close()
	}
	clear(w.stmts)
	_ = w.conn.Close()
	w.conn = nil
}

// became finds out what became of a transaction whose commit was cut off: nil, it was committed.
// Its number alone does not tell: after a crash, or a failover, another may have it.
func (w *writer) became(id string, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), resolveFor)
	defer cancel()
	_, _ = w.db.ExecContext(ctx, endBackend, w.backend) // else it may be in progress for long
	for {
		var status sql.NullString
		var ours bool
		asked := w.db.QueryRowContext(ctx, "SELECT pg_xact_status($1::xid8)", id).Scan(&status)
		ended := status.String == "committed" || status.String == "aborted"
		if asked == nil && ended { // only now, as a statement sees what was committed before it
			asked = w.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM commits WHERE writer = $1 AND xact = $2)", w.name, id).Scan(&ours)
		}
		switch {
		case asked == nil && ours:
			return nil
		case asked == nil && ended:
			return fmt.Errorf("commit: %w", err)
		case asked == nil && !status.Valid, !router.Pause(ctx, 50*time.Millisecond):
			return fmt.Errorf("commit, and nobody knows what became of it: %w", err)
		}
	}
}

// fault returns what an error of the database's means to whoever can mend it; err if that
// is nothing.
func (p *postgres) fault(err error) error {
	e, answered := errors.AsType[*pgconn.PgError](err)
	slow := errors.Is(err, context.DeadlineExceeded)
	if errors.As(err, new(*router.FixError)) || !answered && !slow && !brokenConn(err) {
		return err
	}
	fix := "check that PostgreSQL runs, and that it can be reached from here"
	switch {
	case errors.Is(err, pgconn.ErrStandbyConnection), errors.Is(err, pgconn.ErrReadOnlyConnection):
		fix = fixReadOnly
	case slow && !answered && !errors.As(err, new(*pgconn.ConnectError)):
		fix = "check why PostgreSQL does not answer in time: what it is busy with, and the network between"
	case answered: // https://www.postgresql.org/docs/current/errcodes-appendix.html (read 2026-11-30)
		switch {
		case e.Code == "53100":
			fix = "free space on the disk of the PostgreSQL server"
		case e.Code == "53300":
			fix = "let PostgreSQL take more connections: each Switchyard needs eleven (max_connections, or the limit of its role)"
		case e.Code == readOnlyCode:
			fix = fixReadOnly
		case e.Code == "42501":
			fix = fixRights
		case e.Code == "3D000":
			fix = "create the database, or name another"
		case strings.HasPrefix(e.Code, "28"):
			fix = "check the role and its password"
		case strings.HasPrefix(e.Code, "57P"), strings.HasPrefix(e.Code, "08"):
		default:
			return err
		}
	}
	return &router.FixError{Fix: fix, Err: fmt.Errorf("PostgreSQL (%s): %w", p.name, err)}
}

// A server that is read-only refuses changes with this code.
const readOnlyCode = "25006"

const fixReadOnly = "promote a standby, or name the server that takes changes: this one is read-only"

// openReadOnlyPostgres is openReadOnly for PostgreSQL.
func openReadOnlyPostgres(ctx context.Context, url string) (_ *Reader, err error) {
	p, err := parsePostgres(url)
	if err != nil {
		return nil, err
	}
	r := &Reader{path: p.name, db: p.readers()}
	r.reads.querier = p.guard(r.db)
	defer func() {
		if err != nil {
			err = errors.Join(p.fault(err), r.Close())
		}
	}()
	has := false
	if err := r.db.QueryRowContext(ctx, "SELECT to_regclass('goose_db_version') IS NOT NULL").Scan(&has); err != nil {
		return nil, err
	}
	if !has {
		return nil, errors.New("it is empty; name a database that serve has used")
	}
	_, old, err := postgresSchema(ctx, r.db.DB)
	if err == nil && old {
		err = errOldSchema
	}
	return r, err
}

// guard returns the queriers of a pool, whose errors say what to do.
func (p *postgres) guard(from *pool) func(context.Context) querier {
	return func(ctx context.Context) querier {
		q := from.querier(ctx)
		return func(scan func(*sql.Rows) error, query string, args ...any) error {
			return p.fault(q(scan, query, args...))
		}
	}
}

// readers returns connections that only read.
func (p *postgres) readers() *pool {
	read := newPool(p.open(readers, true))
	read.adapt = p.texts.adapt
	return read
}

// brokenConn reports whether an error says that there is no connection, or none any longer.
func brokenConn(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(e.Code, "57P") // the server stops, or starts
	}
	return errors.As(err, new(*pgconn.ConnectError)) || errors.As(err, new(net.Error)) && !errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		err != nil && pgconn.SafeToRetry(err)
}
