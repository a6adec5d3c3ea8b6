package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"switchyard/router"
)

const (
	// How long Open looks for damage. Who restarts a server waits for it, so it is
	// short after a clean end: 100,000 jobs, some 70 MiB, take about 1.5 s. After
	// any other end damage is likelier; what GitHub sends meanwhile is redelivered.
	checkClean   = 2 * time.Second
	checkUnclean = 20 * time.Second

	watchEvery = 1500 * time.Millisecond // how often the file is compared with the one that was opened, beside each change

	maxFinding = 200 // bytes of SQLite's words for damage
)

const (
	fixDamaged  = "restore a copy, or move the file and those beside it (-wal, -shm) away and start again: GitHub is asked for what is missing"
	fixRunning  = "stop Switchyard, then " + fixDamaged
	fixRemoved  = "restart Switchyard, which begins an empty database and asks GitHub and Nomad for what there is, or stop it and restore a copy"
	fixReplaced = "restart Switchyard, which checks and takes the file that is there now"
)

// whole reports whether SQLite finds the database sound. It is false, without
// an error, when that takes longer than within (0: no bound). The first pass finds
// pages that make no sense, the second indexes that lack rows of their tables.
func whole(ctx context.Context, db *sql.DB, within time.Duration) (bool, error) {
	check := ctx
	if within > 0 {
		var cancel context.CancelFunc
		check, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	for _, pragma := range []string{"PRAGMA quick_check(1)", "PRAGMA integrity_check(1)"} {
		var found string
		err := db.QueryRowContext(check, pragma).Scan(&found)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case check.Err() != nil:
			return false, nil
		case err != nil:
			return false, explain(err)
		case found != "ok":
			return false, damage(found)
		}
	}
	return true, nil
}

// damage returns the error for a file in which SQLite finds a fault.
func damage(found string) error {
	found = strings.Join(strings.Fields(found), " ")
	return &router.FixError{Fix: fixDamaged, Err: fmt.Errorf("it is damaged (%s)", router.Cut(found, maxFinding))}
}

// A fault is what makes a database unusable until the next start; the zero
// fault is none. The first one stays.
type fault struct {
	first atomic.Pointer[router.FixError]
}

// err returns the fault, or nil.
func (f *fault) err() error {
	if e := f.first.Load(); e != nil {
		return e
	}
	return nil
}

// note keeps an error that says that the database is damaged. It returns the fault
// if there is one, else err.
func (f *fault) note(err error) error {
	if damaged(err) {
		f.first.CompareAndSwap(nil, &router.FixError{Fix: fixRunning, Err: fmt.Errorf("the database is damaged: %w", err)})
	}
	if err != nil && f.err() != nil {
		return f.err()
	}
	return err
}

// damaged reports whether SQLite, or what a row holds, says that the file is not
// as it was written: all JSON in it is the store's own.
func damaged(err error) bool {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff { // the primary result code
		case sqlitelib.SQLITE_CORRUPT, sqlitelib.SQLITE_NOTADB:
			return true
		}
		return strings.Contains(e.Error(), "malformed JSON")
	}
	var syntax *json.SyntaxError
	return errors.As(err, &syntax)
}

// guard returns a querier that fails with the fault, and notes one that q finds.
func (f *fault) guard(q querier) querier {
	return func(scan func(*sql.Rows) error, query string, args ...any) error {
		if err := f.err(); err != nil {
			return err
		}
		return f.note(q(scan, query, args...))
	}
}

// A watched file is the database file and its log as they were opened, and as
// they were when nothing was being written. It is used by one goroutine.
type watched struct {
	path      string
	file, log os.FileInfo // log is nil when there was none
	shm       *os.File    // the index of the log; nil: not read

	// Of the time when the last change was made, unless busy: what has changed since
	// was not written by this store.
	busy              bool
	lastFile, lastLog os.FileInfo
	lastIndex         logIndex
}

// A logIndex is what changes in the -shm file with each commit and each
// checkpoint, by any process: https://www.sqlite.org/walformat.html#walidxfmt (read 2026-11-29).
type logIndex struct {
	head           [96]byte
	copied, copies [4]byte // frames of the log in the file, and that a checkpoint has begun to copy there
}

// watch looks at a file that SQLite has open and nobody writes.
func watch(path string) (*watched, error) {
	w := &watched{path: path}
	var err error
	if w.file, err = os.Stat(path); err != nil {
		return nil, err
	}
	if w.log, err = os.Stat(path + "-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// It stays open as long as SQLite has the file: the system takes a process's locks
	// on a file when any handle of it is closed. Windows would keep SQLite from
	// removing it at the end.
	if runtime.GOOS != "windows" {
		if w.shm, err = os.Open(path + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	w.rest()
	return w, nil
}

// rest notes how the files are while nothing is being written.
func (w *watched) rest() {
	file, err := os.Stat(w.path)
	log, err2 := os.Stat(w.path + "-wal")
	index, err3 := w.index()
	w.busy = errors.Join(err, err2, err3) != nil
	w.lastFile, w.lastLog, w.lastIndex = file, log, index
}

// index reads the index of the log. It fails while a checkpoint is under way.
func (w *watched) index() (i logIndex, err error) {
	if w.shm == nil {
		return i, fs.ErrNotExist
	}
	var b [132]byte
	_, err = w.shm.ReadAt(b[:], 0)
	i.head, i.copied, i.copies = [96]byte(b[:96]), [4]byte(b[96:100]), [4]byte(b[128:132])
	if err == nil && i.copied != i.copies {
		err = errors.New("a checkpoint is under way")
	}
	return i, err
}

// changed returns why the files are not those that were opened, or nil. Another
// program may write the database the way SQLite does, as one that replicates it
// does: that shows in the index of the log.
func (w *watched) changed() *router.FixError {
	file, e := w.same(w.path, w.file)
	if e != nil {
		return e
	}
	var log os.FileInfo
	if w.log != nil {
		if log, e = w.same(w.path+"-wal", w.log); e != nil {
			return e
		}
	}
	if w.busy || log == nil || sameContent(file, w.lastFile) && sameContent(log, w.lastLog) {
		return nil
	}
	if index, err := w.index(); err != nil || index != w.lastIndex {
		return nil
	}
	what := "was overwritten by another program"
	if file.Size() < w.lastFile.Size() || log.Size() < w.lastLog.Size() {
		what = "was cut short by another program"
	}
	return &router.FixError{Fix: fixRunning, Err: fmt.Errorf("the database file %s, or its log beside it, %s", w.path, what)}
}

func (w *watched) same(path string, opened os.FileInfo) (os.FileInfo, *router.FixError) {
	now, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &router.FixError{Fix: fixRemoved, Err: fmt.Errorf("the database file %s was removed", path)}
	case err != nil:
		return nil, &router.FixError{Fix: "make it readable and restart Switchyard", Err: fmt.Errorf("look at the database file: %w", err)}
	case !os.SameFile(now, opened):
		return nil, &router.FixError{Fix: fixReplaced, Err: fmt.Errorf("the database file %s was replaced", path)}
	}
	return now, nil
}

func sameContent(a, b os.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (w *watched) close() error {
	if w == nil || w.shm == nil {
		return nil
	}
	return w.shm.Close()
}
