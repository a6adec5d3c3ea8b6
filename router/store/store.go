package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"switchyard/router"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	applicationID = 0x53775964 // as in the first migration
	readers       = 4          // read-only connections of the router, and as many of operators

	lockPatience = time.Second // for a process that is about to end
	lockPause    = 50 * time.Millisecond
)

var (
	errClosed = errors.New("the store is closed") // what a Store answers after Close
	errInUse  = errors.New("another switchyard uses it: stop that first, or name another database")
)

// A Store is the database in one SQLite file, or in PostgreSQL. Its methods are those of its parts,
// which are named for the packages that use them. It is safe for concurrent use. A
// file is one process's, and Open refuses it to a second.
type Store struct {
	*db
	intakeStore
	dispatchStore
	claimStore
	runnerStore
	noticeStore
	rerunStore

	counted  counted
	demands  demands
	path     string
	patience time.Duration // with another process that has the file
	lock     *sql.DB       // of the side file; nil: not held
	locked   *os.File      // the file itself; nil: not locked
	bound    time.Duration // of the check for damage; 0: none
	whole    bool          // the check was made, and to its end
	sync     string        // PRAGMA synchronous
	write    *sql.DB       // one connection, held by the writer
	read     *pool
	asked    *Reader   // for operators
	postgres *postgres // nil: the database is a file
	alone    bool      // nobody else may use that
	close    sync.Once
}

// A db is what the parts of a Store share.
type db struct {
	reads
	writer *writer
}

// reads are the methods that a Store and a Reader have.
type reads struct {
	querier func(context.Context) querier
}

type (
	intakeStore   struct{ *db }
	dispatchStore struct {
		*db
		turn turnOf
	}
	claimStore  struct{ *db }
	runnerStore struct{ *db }
	noticeStore struct{ *db }
	rerunStore  struct{ *db }
)

// Open opens the database file at path and brings its schema up to date; a path that is
// the URL of a PostgreSQL database opens that, see IsPostgres, which several processes
// may have open. A missing file is created, readable by its owner only; its directory must
// exist. It fails, and changes nothing, when the file is not a database, is
// another program's, was written by a newer version of Switchyard, or is open
// already, here or in another process. SQLite keeps two more files beside it
// while it is open, path-wal and path-shm; path-lock, which is empty, stays. The
// caller must call Close.
//
// A file that is damaged is refused, too, as far as that shows in a while; see
// Whole. One that turns out to be so later, or is removed, replaced or overwritten,
// is used no more: all methods then fail with a *router.FixError.
func Open(ctx context.Context, path string, options ...Option) (*Store, error) {
	if IsPostgres(path) {
		s, err := openPostgres(ctx, path, options...)
		if err != nil {
			return nil, fmt.Errorf("open the database in PostgreSQL: %w", err)
		}
		return s, nil
	}
	s, err := open(ctx, path, options...)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	return s, nil
}

// An Option changes how Open opens.
type Option func(*Store)

// Alone has Open refuse a PostgreSQL database that another Switchyard has open, which then
// cannot open it either.
func Alone(s *Store) { s.alone = true }

// CheckAll has Open look for damage in all of the file, however long that takes.
func CheckAll(s *Store) { s.bound = 0 }

// Unsynced has the store not wait for the disk: a crash of the machine, other than one
// of the process, may lose what was committed, or damage the file. It is for tests.
func Unsynced(s *Store) { s.sync = "OFF" }

// Whole reports whether Open had the time to look for damage in all of the file.
func (s *Store) Whole() bool { return s.whole }

func open(ctx context.Context, path string, options ...Option) (_ *Store, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := touch(abs); err != nil {
		return nil, err
	}
	// By its own name, as SQLite has it: the log and the lock are beside that.
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, err
	}
	s := newStore(abs)
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if _, err := os.Stat(abs + "-wal"); err == nil { // a clean end leaves none
		s.bound = checkUnclean
	}
	for _, o := range options {
		o(s)
	}
	for waited := time.Duration(0); ; waited += lockPause {
		if s.locked, err = lockFile(abs); !errors.Is(err, errInUse) || waited >= s.patience {
			break
		}
		time.Sleep(lockPause)
	}
	if err != nil {
		return nil, err
	}
	// What savepoints need to roll back is of this process only, and need not be
	// in a file.
	if s.write, err = sql.Open("sqlite", dsn(abs, nil,
		"busy_timeout(5000)", "foreign_keys(1)", "synchronous("+s.sync+")", "fullfsync(1)", "cache_size(-4096)", "temp_store(MEMORY)")); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	if _, err := check(ctx, s.write); err != nil {
		return nil, err
	}
	// Only now that the file is known to be ours.
	if s.lock, err = lock(ctx, abs, s.patience); err != nil {
		return nil, err
	}
	// The limit cuts the log back after a burst.
	for _, pragma := range []string{"PRAGMA journal_mode = WAL", "PRAGMA journal_size_limit = 67108864"} {
		if _, err := s.write.ExecContext(ctx, pragma); err != nil {
			return nil, explain(err)
		}
	}
	if s.whole, err = whole(ctx, s.write, s.bound); err != nil {
		return nil, err
	}
	if err := migrate(ctx, s.write); err != nil {
		return nil, explain(err)
	}
	if s.read, err = openReaders(abs); err != nil {
		return nil, err
	}
	s.asked = &Reader{path: abs}
	if s.asked.db, err = openReaders(abs); err != nil {
		return nil, err
	}
	s.reads.querier = func(ctx context.Context) querier { return s.writer.fault.guard(s.read.querier(ctx)) }
	s.asked.reads.querier = func(ctx context.Context) querier { return s.writer.fault.guard(s.asked.db.querier(ctx)) }
	file, err := watch(abs)
	if err != nil {
		return nil, err
	}
	if s.writer, err = startWriter(ctx, s.write, file); err != nil {
		return nil, errors.Join(explain(err), file.close())
	}
	return s, nil
}

// newStore returns a Store that is not open.
func newStore(path string) *Store {
	d := &db{}
	return &Store{
		db: d, intakeStore: intakeStore{d}, dispatchStore: dispatchStore{db: d}, claimStore: claimStore{d}, runnerStore: runnerStore{d}, noticeStore: noticeStore{d}, rerunStore: rerunStore{d},
		path: path, bound: checkClean, patience: lockPatience, sync: "FULL", counted: counted{many: countedJobs},
	}
}

// openReaders opens connections that only read.
func openReaders(path string) (*pool, error) {
	db, err := sql.Open("sqlite", dsn(path, url.Values{"mode": {"ro"}}, "busy_timeout(5000)", "query_only(1)", "cache_size(-1024)"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(readers)
	db.SetMaxIdleConns(readers)
	return newPool(db), nil
}

// Reader returns what operators' questions are answered from. It has connections of
// its own, so that the router waits for none of them, and is closed with the Store.
func (s *Store) Reader() *Reader { return s.asked }

// Close lets the changes that were begun finish, refuses the others, and
// closes the file. Only the first call does anything.
func (s *Store) Close() (err error) {
	s.close.Do(func() { err = s.shut() })
	return err
}

func (s *Store) shut() error {
	var errs []error
	if s.writer != nil {
		errs = append(errs, s.writer.stop())
	}
	// The readers first: the last connection to close folds the log into the
	// file, and a read-only one cannot.
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.asked != nil && s.asked.db != nil {
		errs = append(errs, s.asked.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.file.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.locked != nil {
		errs = append(errs, s.locked.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}

// lock keeps other processes from opening the database: with one writer in
// each, both would take up the same jobs. SQLite locks a file beside it, in the
// way of each system, and the system lets go of it when this process ends. The
// readers of the database do not ask for it.
func lock(ctx context.Context, path string, patience time.Duration) (_ *sql.DB, err error) {
	path += "-lock"
	if err := touch(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", dsn(path, nil, fmt.Sprintf("busy_timeout(%d)", patience.Milliseconds())))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	// Held by the one connection, which is never given another thing to do.
	if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		_ = db.Close()
		if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == sqlitelib.SQLITE_BUSY {
			return nil, errInUse
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return db, nil
}

// touch makes sure that path is a file that can be written, and creates it
// with a mode that SQLite's own creation would not give it.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	var pathErr *fs.PathError
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("its directory does not exist; create %s", filepath.Dir(path))
	case errors.As(err, &pathErr):
		return fmt.Errorf("it must be a file that this user can write: %w", pathErr.Err)
	}
	return err
}

// dsn makes a data source name of an absolute path, as a URI so that every
// character of the path is safe.
func dsn(path string, params url.Values, pragmas ...string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // file:///C:/…
	}
	q := url.Values{"_pragma": pragmas}
	maps.Copy(q, params)
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// check refuses a file that is not an empty database or one of Switchyard's, and reports
// whether it is empty. It only reads.
func check(ctx context.Context, db *sql.DB) (empty bool, err error) {
	var id, tables int
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return false, explain(err)
	}
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return false, explain(err)
	}
	if tables > 0 && id != applicationID {
		return false, errors.New("it is another program's SQLite database; name a file of Switchyard's own")
	}
	return id != applicationID, nil
}

// migrate brings the schema up to date.
func migrate(ctx context.Context, db *sql.DB) error {
	p, _, err := schema(ctx, db)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring its schema up to date: %w", err)
	}
	return nil
}

// schema reports whether the schema is older than this version's, and refuses
// a newer one.
func schema(ctx context.Context, db *sql.DB) (p *goose.Provider, old bool, err error) {
	return versions(ctx, db, goose.DialectSQLite3, migrations, "migrations")
}

// versions is schema for a dialect, whose migrations are in a folder of files.
func versions(ctx context.Context, db *sql.DB, dialect goose.Dialect, files fs.FS, folder string) (p *goose.Provider, old bool, err error) {
	dir, err := fs.Sub(files, folder)
	if err != nil {
		return nil, false, err
	}
	p, err = goose.NewProvider(dialect, db, dir, goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, false, err
	}
	has, knows, err := p.GetVersions(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("read its schema version: %w", err)
	}
	if has > knows {
		return nil, false, fmt.Errorf("it was written by a newer version of Switchyard (schema %d, this version knows %d); run that version, or name another database", has, knows)
	}
	return p, has < knows, nil
}

// explain adds what to do to SQLite's error for a file that it cannot use.
func explain(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff { // the primary result code
	case sqlitelib.SQLITE_NOTADB:
		return fmt.Errorf("it is not a database; move it away, or name another file: %w", err)
	case sqlitelib.SQLITE_CORRUPT:
		return &router.FixError{Fix: fixDamaged, Err: fmt.Errorf("it is damaged (%w)", err)}
	case sqlitelib.SQLITE_BUSY, sqlitelib.SQLITE_LOCKED:
		return fmt.Errorf("another process uses it; stop that first: %w", err)
	case sqlitelib.SQLITE_READONLY, sqlitelib.SQLITE_CANTOPEN:
		return fmt.Errorf("SQLite must be able to write it and to make files beside it: %w", err)
	}
	return err
}
