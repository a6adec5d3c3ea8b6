package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
)

// fill stores jobs from an ID on.
func fill(t testing.TB, s *Store, from, n int) {
	t.Helper()
	err := s.writer.change(t.Context(), router.SourceWebhook, func(x *tx) error {
		for id := from; id < from+n; id++ {
			d := router.Delivery{ID: fmt.Sprintf("guid-%d", id), Action: "queued", Status: "queued", ReceivedAt: time.Now(), Job: router.Job{
				ID: int64(id), RunID: 1, Attempt: 1, Name: "build", Labels: []string{"self-hosted", "linux"}, Repo: router.Repo{Owner: "acme", Name: "web"},
			}}
			if _, err := receive(x, d); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err)
}

// filled makes a database file with some jobs, and closes it.
func filled(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	s, err := Open(t.Context(), path)
	must(t, err)
	fill(t, s, 1, 200)
	must(t, s.Close())
	return path
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// overwrite writes into a file that is there, from its start.
func overwrite(t testing.TB, path string, b []byte) {
	t.Helper()
	must(t, os.WriteFile(path, b, 0o600))
}

// root returns the page, from 0, at which a table or index begins.
func root(t testing.TB, path, name string) (page int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	must(t, db.QueryRowContext(t.Context(), "SELECT rootpage FROM sqlite_schema WHERE name = ?", name).Scan(&page))
	return page - 1
}

const pageSize = 4096

var damages = map[string]func(t *testing.T, path string, b []byte) []byte{
	"pages of noise": func(_ *testing.T, _ string, b []byte) []byte {
		noise := rand.New(rand.NewPCG(1, 2))
		for at := 4 * pageSize; at < len(b); at += 7 * pageSize {
			for i := range pageSize {
				b[at+i] = byte(noise.Uint32())
			}
		}
		return b
	},
	"a page of zeros": func(t *testing.T, path string, b []byte) []byte {
		clear(b[root(t, path, "jobs")*pageSize:][:pageSize])
		return b
	},
	"cut short": func(_ *testing.T, _ string, b []byte) []byte { return b[:len(b)/2/pageSize*pageSize] },
	"cut within a page": func(_ *testing.T, _ string, b []byte) []byte {
		return b[:len(b)-3*pageSize/2]
	},
	"an index that lacks what is due": func(t *testing.T, path string, _ []byte) []byte {
		db, err := sql.Open("sqlite", path)
		must(t, err)
		defer db.Close()
		for _, query := range []string{
			"PRAGMA writable_schema = 1",
			"UPDATE sqlite_schema SET sql = 'CREATE INDEX jobs_due ON jobs (due_at, id) WHERE state IN (''held'')' WHERE name = 'jobs_due'",
			"PRAGMA writable_schema = RESET",
			"REINDEX jobs_due",
			"PRAGMA writable_schema = 1",
			"UPDATE sqlite_schema SET sql = 'CREATE INDEX jobs_due ON jobs (due_at, id) WHERE state IN (''queued'', ''retrying'')' WHERE name = 'jobs_due'",
		} {
			if _, err := db.Exec(query); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		must(t, db.Close())
		return readFile(t, path)
	},
}

func TestADamagedDatabaseIsNotTakenIntoUse(t *testing.T) {
	for name, spoil := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filled(t)
			overwrite(t, path, spoil(t, path, readFile(t, path)))
			s, err := Open(t.Context(), path, CheckAll)
			if err == nil {
				s.Close()
				t.Fatal("Open took it")
			}
			var fix *router.FixError
			if !errors.As(err, &fix) || !strings.Contains(err.Error(), "it is damaged (") || !strings.Contains(err.Error(), "restore a copy") || len(err.Error()) > 700 {
				t.Errorf("Open = %v, want that it is damaged, and what to do", err)
			}
		})
	}
}

func TestASoundDatabaseIsFoundToBeWhole(t *testing.T) {
	s, err := Open(t.Context(), filled(t))
	must(t, err)
	defer s.Close()
	if !s.Whole() {
		t.Error("there was no time to check a small database")
	}
}

// What the check had no time for is found when it is met, and then nothing is
// taken any more: who is answered 202 must be served.
func TestDamageThatIsMetFailsTheStore(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"a page": func(t *testing.T, path string) {
			b := readFile(t, path)
			clear(b[root(t, path, "jobs_due")*pageSize:][:pageSize])
			overwrite(t, path, b)
		},
		"JSON": func(t *testing.T, path string) {
			db, err := sql.Open("sqlite", path)
			must(t, err)
			defer db.Close()
			must(t, errOf(db.Exec(`UPDATE jobs SET labels = '["self-hosted' WHERE id = 7`)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filled(t)
			// By what is read every few seconds.
			met := func(s *Store) error { _, _, err := s.Due(t.Context(), time.Now(), nil, 256); return err }
			s, err := Open(t.Context(), path)
			must(t, err)
			must(t, met(s))
			must(t, s.Close())
			spoil(t, path)
			s, err = Open(t.Context(), path, func(s *Store) { s.bound = time.Nanosecond })
			must(t, err)
			defer s.Close()
			if s.Whole() {
				t.Error("the check had no time, and says that it saw all")
			}
			wantFailed(t, met(s), "the database is damaged: ", "stop Switchyard, then restore a copy")
			wantFailed(t, s.SetMark(t.Context(), "ready", "now"), "the database is damaged: ", "")
			_, err = s.Receive(t.Context(), router.Delivery{})
			wantFailed(t, err, "the database is damaged: ", "")
		})
	}
}

func wantFailed(t *testing.T, err error, says, fix string) {
	t.Helper()
	var f *router.FixError
	if !errors.As(err, &f) || !strings.Contains(err.Error(), says) || !strings.Contains(f.Fix, fix) {
		t.Errorf("got error %v, want a *router.FixError with %q and %q", err, says, fix)
	}
}

// seize are ways to take the file away from under a store, by its path.
var seize = map[string]struct {
	do   func(t *testing.T, path string)
	says string
}{
	"removed": {func(t *testing.T, path string) { remove(t, path) }, " was removed"},
	"removed with all beside it": {func(t *testing.T, path string) {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			remove(t, path+suffix)
		}
	}, " was removed"},
	"its directory was": {func(t *testing.T, path string) {
		must(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+"-gone"))
		t.Cleanup(func() { _ = os.Rename(filepath.Dir(path)+"-gone", filepath.Dir(path)) })
	}, " was removed"},
	"its log was removed": {func(t *testing.T, path string) { remove(t, path+"-wal") }, "-wal was removed"},
	"replaced": {func(t *testing.T, path string) {
		overwrite(t, path+".new", readFile(t, path))
		must(t, os.Rename(path+".new", path))
	}, " was replaced"},
	"cut to nothing":        {func(t *testing.T, path string) { truncate(t, path, 0) }, "was cut short by another program"},
	"cut to a page":         {func(t *testing.T, path string) { truncate(t, path, pageSize) }, "was cut short by another program"},
	"its log cut short":     {func(t *testing.T, path string) { truncate(t, path+"-wal", 32) }, "was cut short by another program"},
	"an older copy over it": {func(t *testing.T, path string) { overwrite(t, path, readFile(t, path+".copy")) }, "by another program"},
	"bytes over it": {func(t *testing.T, path string) {
		b := readFile(t, path)
		b[len(b)-1]++
		overwrite(t, path, b)
	}, "was overwritten by another program"},
}

func remove(t *testing.T, path string) {
	t.Helper()
	must(t, os.Remove(path))
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	must(t, os.Truncate(path, size))
}

func TestAFileThatIsTakenAwayIsMissedWithinTwoSeconds(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows keeps an open file from it")
	}
	for name, taken := range seize {
		t.Run(name, func(t *testing.T) {
			path := filled(t)
			overwrite(t, path+".copy", readFile(t, path))
			opened := func(t *testing.T) *Store {
				s, err := Open(context.WithoutCancel(t.Context()), path)
				must(t, err)
				fill(t, s, 1000, 20)
				return s
			}
			synctest.Test(t, func(t *testing.T) {
				s := opened(t)
				defer s.Close()
				time.Sleep(time.Minute + watchEvery/2) // not as it looks
				if _, err := s.Counts(t.Context()); err != nil {
					t.Fatalf("before: %v", err)
				}
				taken.do(t, path)
				time.Sleep(2 * time.Second)
				_, err := s.Counts(t.Context())
				wantFailed(t, err, taken.says, "Switchyard")
			})
		})
	}
}

// Nothing is answered 202 that is written into a file which is gone.
func TestAChangeIsNotMadeInAFileThatIsTakenAway(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows keeps an open file from it")
	}
	s := openTemp(t)
	fill(t, s, 1, 1)
	remove(t, s.path)
	wantFailed(t, s.SetMark(t.Context(), "ready", "now"), s.path+" was removed", "restart Switchyard")
	// It stays failed, as what is there now is another file.
	overwrite(t, s.path, nil)
	wantFailed(t, s.SetMark(t.Context(), "ready", "now"), s.path+" was removed", "restart Switchyard")
}

// Who replicates the database with SQLite's own means is no danger to it.
func TestAnotherWriterThatKeepsToSQLitesWaysIsLeftAlone(t *testing.T) {
	s := openTemp(t)
	fill(t, s, 1, 50)
	other, err := sql.Open("sqlite", s.path)
	must(t, err)
	defer other.Close()
	for i, query := range []string{
		"PRAGMA wal_checkpoint(PASSIVE)",
		"CREATE TABLE seq (id INTEGER PRIMARY KEY) STRICT",
		"INSERT INTO seq VALUES (1)",
		"PRAGMA wal_checkpoint(TRUNCATE)",
	} {
		must(t, errOf(other.Exec(query)))
		if e := s.writer.fault.err(); e != nil {
			t.Fatal(e)
		}
		fill(t, s, 100*(i+1), 10)
	}
	must(t, other.Close())
	fill(t, s, 1000, 2000) // with a checkpoint of its own
	fill(t, s, 5000, 1)
}

func TestTheLockIsOfTheFile(t *testing.T) {
	path := filled(t)
	other := filepath.Join(t.TempDir(), "other.db")
	links := map[string]func(string, string) error{"symbolic": os.Symlink}
	if runtime.GOOS == "linux" {
		links["hard"] = os.Link
	}
	for name, link := range links {
		t.Run(name, func(t *testing.T) {
			if err := link(path, other); err != nil {
				t.Skip(err)
			}
			defer os.Remove(other)
			for _, names := range [][2]string{{path, other}, {other, path}} {
				s, err := Open(t.Context(), names[0])
				must(t, err)
				if again, err := Open(t.Context(), names[1], func(s *Store) { s.patience = 0 }); !errors.Is(err, errInUse) {
					t.Errorf("Open by the other name = %v, want %v", err, errInUse)
					if err == nil {
						again.Close()
					}
				}
				must(t, s.Close())
			}
		})
	}
}

// The log is beside the file itself, so a link does not make it look unused.
func TestAReaderByALinkReadsTheLog(t *testing.T) {
	s := openTemp(t)
	fill(t, s, 1, 3)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(s.path, link); err != nil {
		t.Skip(err)
	}
	r, err := OpenReadOnly(t.Context(), link)
	must(t, err)
	defer r.Close()
	if _, err := r.Job(t.Context(), 3); err != nil {
		t.Errorf("Job(3) = %v", err)
	}
}
