package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"switchyard/router"
)

// maxBatch bounds how many changes share a transaction, and so how long the
// first of them waits for the others to be made.
const maxBatch = 256

// gathering is how long a batch waits for more changes when the last one had more than
// gatherAfter: those who waited for that come back at about the same time, and a commit costs the
// same for one of them as for all. Fewer lose more by the wait than they gain.
const (
	gathering   = 500 * time.Microsecond
	gatherAfter = 8
)

// A writer makes all changes, in one goroutine on one connection.
type writer struct {
	db       *sql.DB
	conn     *sql.Conn                                      // nil: it was lost
	backend  string                                         // that of the last connection, in PostgreSQL
	postgres *postgres                                      // nil: the database is a file
	adapt    func(query string, args []any) (string, []any) // as the database takes them; nil: as they are
	alone    bool                                           // no other process may use the database
	name     string                                         // in the table of commits, in PostgreSQL
	id       string                                         // of the transaction in hand, in PostgreSQL
	epoch    int64                                          // likewise: of the leader, from the first change of the transaction on
	stmts    map[string]*sql.Stmt                           // by SQL text; used by the goroutine only
	ops      chan *op
	file     *watched // used by the goroutine only
	fault    fault
	wrote    bool         // the last transaction did; used by the goroutine only
	fine     atomic.Int64 // when one that wrote was last committed, in Unix milliseconds; 0: one has failed since, or there was none
	refused  atomic.Pointer[refusal]
	source   router.Source      // in the table of that name; "" when not known; used by the goroutine only
	ran      func(query string) // called after each statement of a change; nil but in a test; used by the goroutine only
	closing  chan struct{}      // closed by stop
	stopped  chan struct{}      // closed when the goroutine has ended

	told atomic.Pointer[func(changes int, took time.Duration)] // see OnCommit; nil: nobody is
}

// An op is one change that a caller waits for.
type op struct {
	from  router.Source
	term  int64 // the leader's in which the change may be made; 0: any
	do    func(*tx) error
	state atomic.Int32
	err   error         // of do or of the commit; set before done is closed
	done  chan struct{} // closed when the change is durable, or has failed
}

// A refusal is an error by which PostgreSQL refused one change and not the transaction, such
// as that the disk has no room for one more page.
type refusal struct {
	err error // a *router.FixError
	at  time.Time
}

// The states of an op: the one that moves it away from opWaiting owns it.
const (
	opWaiting   = iota
	opBegun     // by the writer: the caller waits for the result
	opAbandoned // by its caller: the writer skips it
)

// startWriter takes db's connection and starts the goroutine; stop ends it.
func startWriter(ctx context.Context, db *sql.DB, file *watched) (*writer, error) {
	w := newWriter(db, file)
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	go w.run()
	return w, nil
}

func newWriter(db *sql.DB, file *watched) *writer {
	return &writer{
		db:      db,
		name:    rand.Text(),
		stmts:   map[string]*sql.Stmt{},
		file:    file,
		ops:     make(chan *op, maxBatch),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
}

// stop ends the goroutine after the batch in hand and gives the connection back.
func (w *writer) stop() error {
	close(w.closing)
	<-w.stopped
	if w.postgres != nil { // it need not be there to be left
		w.disconnect()
		return nil
	}
	var errs []error
	for _, s := range w.stmts {
		errs = append(errs, s.Close())
	}
	if w.conn != nil {
		errs = append(errs, w.conn.Close())
	}
	return errors.Join(errs...)
}

// change makes one change, of which from is the source in timelines, and returns
// when it is durable. do may be called twice, when another change fails beside it.
// If ctx ends before the change is begun it is not made and the error is ctx's;
// once begun, it is waited for, so that the caller always learns what became of it.
func (w *writer) change(ctx context.Context, from router.Source, do func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := &op{from: from, term: router.Term(ctx), do: do, done: make(chan struct{})}
	select {
	case w.ops <- o:
	case <-ctx.Done():
		return w.late(ctx)
	case <-w.stopped:
		return errClosed
	}
	var cause error
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		cause = w.late(ctx)
	case <-w.stopped:
		cause = errClosed
	}
	if o.state.CompareAndSwap(opWaiting, opAbandoned) {
		return cause
	}
	<-o.done
	return o.err
}

// late returns the error of a change that was not begun in time.
func (w *writer) late(ctx context.Context) error {
	if w.postgres == nil {
		return ctx.Err()
	}
	return w.postgres.fault(ctx.Err())
}

func (w *writer) run() {
	defer close(w.stopped)
	batch := make([]*op, 0, maxBatch)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.closing:
			return
		case <-tick.C:
			w.watch()
		case o := <-w.ops:
			if len(batch) > gatherAfter { // the last one
				time.Sleep(gathering)
			}
			batch = w.gather(append(batch[:0], o))
			for rest := batch; len(rest) > 0; {
				w.watch()
				batch, rest = w.commit(rest)
			}
			n := len(batch)
			clear(batch[:cap(batch)])
			batch = batch[:n]
			if w.file == nil {
				continue
			}
			if w.file.busy = len(w.ops) > 0; !w.file.busy {
				w.file.rest()
			}
		}
	}
}

// watch looks at whether the file is still the one that was opened.
func (w *writer) watch() {
	if w.file == nil || w.fault.err() != nil {
		return
	}
	if e := w.file.changed(); e != nil {
		w.fault.first.CompareAndSwap(nil, e)
	}
}

// gather adds the ops that are waiting.
func (w *writer) gather(batch []*op) []*op {
	for len(batch) < maxBatch {
		select {
		case o := <-w.ops:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// commit makes the changes of a batch in one transaction and answers them. One that
// fails spoils no other. If the transaction itself fails, all of them fail: what they saw
// of each other never came to be. It returns them with those that came meanwhile, and those
// that another transaction must make.
func (w *writer) commit(batch []*op) (all, rest []*op) {
	note := w.fault.note
	if w.postgres != nil {
		note = w.postgres.fault
	}
	began := time.Now()
	batch, err := w.transaction(batch)
	err = note(err)
	if told := w.told.Load(); told != nil && err == nil {
		(*told)(len(batch), time.Since(began))
	}
	switch {
	case err != nil:
		w.fine.Store(0)
	case w.wrote: // SQLite writes nothing for one that changes nothing, so that is no sign
		w.fine.Store(time.Now().UnixMilli())
	}
	for _, o := range batch {
		switch o.state.Load() {
		case opAbandoned:
			continue
		case opWaiting:
			rest = append(rest, o)
			continue
		}
		if o.err = note(o.err); err != nil {
			o.err = err
		} else if w.postgres != nil && errors.As(o.err, new(*router.FixError)) {
			w.refused.Store(&refusal{o.err, time.Now()})
			if e, ok := errors.AsType[*pgconn.PgError](o.err); ok && e.Code == readOnlyCode { // the server is another's standby now
				w.disconnect()
			}
		}
		close(o.done)
	}
	return batch, rest
}

// transaction returns the batch with the changes that came while it was made.
func (w *writer) transaction(batch []*op) (all []*op, err error) {
	if err := w.fault.err(); err != nil {
		return batch, w.failed(batch, err)
	}
	err = w.try(&batch, false)
	if errors.Is(err, errSpoilt) {
		err = w.try(&batch, true)
	}
	return batch, err
}

// errSpoilt says that a change failed that had written something.
var errSpoilt = errors.New("a change of the batch failed")

// try makes the changes of a batch, each in a savepoint of its own if apart is set. Without
// it, a change that fails after it wrote something is errSpoilt. Few do, and SQLite copies
// each page that a savepoint changes. Changes that come before the last of the batch is made
// are added to it: to wait for the next commit would take them longer.
func (w *writer) try(all *[]*op, apart bool) (err error) {
	batch := *all
	t := &tx{w: w, patience: changeTimeout}
	if err := w.begin(t, batch[0].from); err != nil {
		return w.failed(batch, fmt.Errorf("begin: %w", err))
	}
	defer func() {
		if err != nil {
			// Fails when SQLite has rolled back by itself, which is as good.
			if w.conn != nil {
				if _, err := t.exec("ROLLBACK"); err != nil && w.postgres != nil {
					w.disconnect()
				}
			}
			w.source = ""
			err = w.failed(*all, err)
		}
	}()
	// Their callers wait for all of them, so that their order is free.
	switches := func(o *op) int {
		if o.from == w.source {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(batch, func(a, b *op) int { return cmp.Or(cmp.Compare(switches(a), switches(b)), cmp.Compare(a.from, b.from)) })
	w.wrote = false
	began := time.Now()
	for i := 0; ; i++ {
		if i == len(*all) && !apart {
			*all = w.gather(*all)
		}
		if i == len(*all) {
			break
		}
		o := (*all)[i]
		if w.postgres != nil && time.Since(began) > changeFor && o.state.Load() == opWaiting {
			continue
		}
		if !o.state.CompareAndSwap(opWaiting, opBegun) && o.state.Load() == opAbandoned {
			continue
		}
		if o.from != w.source {
			if err := w.setSource(t, o.from); err != nil {
				return fmt.Errorf("set the source: %w", err)
			}
			w.source = o.from
		}
		if o.term != 0 && o.term != w.epoch {
			o.err = router.ErrNotLeader
			continue
		}
		if apart {
			if _, err := t.exec("SAVEPOINT change"); err != nil {
				return fmt.Errorf("set a savepoint: %w", err)
			}
		}
		t.wrote = false
		o.err = o.do(t)
		w.wrote = w.wrote || t.wrote && o.err == nil
		switch {
		case o.err != nil && apart:
			if _, err := t.exec("ROLLBACK TO change"); err != nil {
				return fmt.Errorf("%w (and roll back to the savepoint: %w)", o.err, err)
			}
		case o.err != nil && w.postgres != nil && errors.Is(o.err, context.DeadlineExceeded): // whoever waits would do so as long again
			return o.err
		case o.err != nil && t.wrote:
			return errSpoilt
		}
		if apart {
			if _, err := t.exec("RELEASE change"); err != nil {
				return fmt.Errorf("release a savepoint: %w", err)
			}
		}
	}
	return w.end(t)
}

// begin begins a transaction. In PostgreSQL it waits until nobody else makes changes, and from
// is the source of the first.
func (w *writer) begin(t *tx, from router.Source) error {
	if w.postgres == nil {
		_, err := t.exec("BEGIN IMMEDIATE")
		return err
	}
	w.source, w.id = "", ""
	for try := 0; ; try++ {
		err := w.reconnect()
		if err == nil {
			_, err = t.exec("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE")
		}
		if err == nil {
			t.patience = beginTimeout
			err = w.setSource(t, from)
			t.patience = changeTimeout
		}
		if err == nil {
			w.source = from
			return nil
		}
		w.disconnect()
		if try == 2 || !brokenConn(err) { // else it was cut off while nothing was being written, as the pool's others may have been
			return err
		}
	}
}

// setSource says who makes the changes that follow. In PostgreSQL it also notes the transaction,
// for became, and waits until nobody else makes changes.
func (w *writer) setSource(t *tx, from router.Source) error {
	if w.postgres == nil {
		_, err := t.exec("UPDATE source SET name = ?", from)
		return err
	}
	return t.query(into(new(any), new(any), &w.id, &w.epoch), `
WITH noted AS (
	INSERT INTO commits (writer, xact, at) VALUES (?3, pg_current_xact_id()::text, now())
	ON CONFLICT (writer) DO UPDATE SET xact = excluded.xact, at = excluded.at WHERE commits.xact <> excluded.xact
)
SELECT pg_advisory_xact_lock(CAST(?1 AS int), hashtext(current_schema()))::text, set_config('switchyard.source', ?2, true), pg_current_xact_id()::text, leader_epoch()`, changesLock, from, w.name)
}

// end commits a transaction.
func (w *writer) end(t *tx) error {
	_, err := t.exec("COMMIT")
	switch {
	case err == nil:
		return nil
	case w.postgres == nil || w.id == "":
		return fmt.Errorf("commit: %w", err)
	}
	w.disconnect()
	return w.became(w.id, err)
}

// failed marks the ops that were not begun as begun, so that they are answered with
// the others, and returns err.
func (w *writer) failed(batch []*op, err error) error {
	for _, o := range batch {
		o.state.CompareAndSwap(opWaiting, opBegun)
	}
	return err
}

// A tx is the transaction of the batch in hand, as a change sees it. It has no
// context: a change that was begun is finished.
type tx struct {
	w        *writer
	wrote    bool          // the change in hand may have
	patience time.Duration // with a statement, in PostgreSQL
}

// bounded returns a context for a statement. SQLite's ends with it; PostgreSQL's may be on
// the other side of a network that swallows it.
func (t *tx) bounded() (context.Context, context.CancelFunc) {
	if t.w.postgres == nil {
		return context.Background(), func() {}
	}
	return context.WithTimeout(context.Background(), t.patience)
}

// stmt returns the statement of a query, and the arguments as that takes them.
func (t *tx) stmt(ctx context.Context, query string, args []any) (*sql.Stmt, []any, error) {
	if t.w.adapt != nil {
		query, args = t.w.adapt(query, args)
	}
	if s, ok := t.w.stmts[query]; ok {
		return s, args, nil
	}
	s, err := t.w.conn.PrepareContext(ctx, query)
	if err != nil {
		t.wrote = true // PostgreSQL has aborted the transaction
		return nil, nil, err
	}
	t.w.stmts[query] = s
	return s, args, nil
}

// exec runs a statement, which must be a constant, and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) (changed int64, err error) {
	ctx, cancel := t.bounded()
	defer cancel()
	s, args, err := t.stmt(ctx, query, args)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(ctx, args...)
	if err == nil {
		changed, err = res.RowsAffected()
	}
	t.wrote = t.wrote || changed > 0 || err != nil // the database may have rolled back
	if err == nil && t.w.ran != nil {
		t.w.ran(query)
	}
	return changed, err
}

// moveJob runs a statement that changes the job with this ID, its first argument,
// and reports whether it did. A job that is not known is router.ErrNotFound.
func (t *tx) moveJob(id int64, query string, args ...any) (moved bool, err error) {
	n, err := t.exec(query, append([]any{id}, args...)...)
	if n == 0 && err == nil {
		err = known(t, id)
	}
	return n > 0, err
}

// moveRunner does the same for a runner.
func (t *tx) moveRunner(id, query string, args ...any) error {
	n, err := t.exec(query, append([]any{id}, args...)...)
	if n == 0 && err == nil {
		err = knownRunner(t, id)
	}
	return err
}

// runnerOf runs a statement that changes the runner with this ID, its first argument, and
// returns the job and the try that it is for; 0 when it changed nothing. A runner that is not
// known is router.ErrNotFound.
func (t *tx) runnerOf(id, query string, args ...any) (r router.Runner, err error) {
	err = t.query(into(&r.JobID, &r.Try), query, append([]any{id}, args...)...)
	if err == nil && r.JobID == 0 {
		err = knownRunner(t, id)
	}
	return r, err
}

// query calls scan for each row of a statement, which must be a constant.
func (t *tx) query(scan func(*sql.Rows) error, query string, args ...any) error {
	ctx, cancel := t.bounded()
	defer cancel()
	s, args, err := t.stmt(ctx, query, args)
	if err != nil {
		return err
	}
	changes := !strings.HasPrefix(strings.TrimSpace(query), "SELECT") // the rows that it returns
	rows, err := s.QueryContext(ctx, args...)
	if err == nil {
		err = each(rows, func(row *sql.Rows) error {
			t.wrote = t.wrote || changes
			return scan(row)
		})
	}
	t.wrote = t.wrote || err != nil // the database may have rolled back
	if t.w.ran != nil && err == nil {
		t.w.ran(query)
	}
	return err
}

// each calls scan for each row and closes rows.
func each(rows *sql.Rows, scan func(*sql.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// A querier calls scan for each row of a statement: (*tx).query, or a reader's.
type querier func(scan func(*sql.Rows) error, query string, args ...any) error

// into reads the columns of a row into variables.
func into(dest ...any) func(*sql.Rows) error {
	return func(rows *sql.Rows) error { return rows.Scan(dest...) }
}

// exec makes a change that is one statement.
func (d *db) exec(ctx context.Context, from router.Source, query string, args ...any) error {
	return d.writer.change(ctx, from, func(t *tx) error {
		_, err := t.exec(query, args...)
		return err
	})
}

// changed makes one change and returns what do returns; nothing if the change fails.
func changed[T any](ctx context.Context, d *db, from router.Source, do func(*tx) (T, error)) (v T, err error) {
	err = d.writer.change(ctx, from, func(t *tx) (err error) {
		v, err = do(t)
		return err
	})
	if err != nil {
		return *new(T), err
	}
	return v, nil
}

// list returns the same as all, and adds what was being done to its error.
func list[T any](q querier, doing string, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	rows, err := all(q, scan, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return rows, nil
}

// all returns what scan reads of each row; nil when there is none.
func all[T any](q querier, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	var list []T
	err := q(func(rows *sql.Rows) error {
		var v T
		err := scan(rows, &v)
		list = append(list, v)
		return err
	}, query, args...)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// only returns the row of a query that has one at most, or router.ErrNotFound; doing is for
// other errors.
func only[T any](q querier, doing string, scan func(*sql.Rows, *T) error, query string, args ...any) (v T, err error) {
	rows, err := list(q, doing, scan, query, args...)
	if err == nil && len(rows) == 0 {
		err = router.ErrNotFound
	}
	if err != nil {
		return v, err
	}
	return rows[0], nil
}

// countBy returns how many of what a query counts are in each state; the states of none are
// left out.
func countBy[State ~string](q querier, doing, query string) (map[State]int, error) {
	counts := map[State]int{}
	err := q(func(rows *sql.Rows) error {
		var state State
		var n int
		err := rows.Scan(&state, &n)
		counts[state] = n
		return err
	}, query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return counts, nil
}

// one reads the row of a query that has one at most into v.
func one[T any](q querier, scan func(*sql.Rows, *T) error, v *T, query string, args ...any) error {
	return q(func(rows *sql.Rows) error { return scan(rows, v) }, query, args...)
}
