package store_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
)

func TestOpenMakesAFileForItsOwnerOnly(t *testing.T) {
	// What has a meaning in a URI must not have one in a path.
	path := filepath.Join(t.TempDir(), "a b%20?mode=ro#x.db")
	if runtime.GOOS == "windows" {
		path = filepath.Join(t.TempDir(), "a b%20#x.db")
	}
	s := open(t, path)
	defer s.Close()
	must(t, errOf(s.Receive(t.Context(), storetest.NewDelivery(1, "queued", "queued"))))
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(p)
		must(t, err)
		if runtime.GOOS != "windows" && info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", p, info.Mode())
		}
	}
}

func TestOpenRefusesWhatItCannotUse(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string) (path string)
		want string
	}{
		{"a missing directory", func(t *testing.T, dir string) string {
			return filepath.Join(dir, "missing", "x.db")
		}, "its directory does not exist; create "},
		{"a directory", func(t *testing.T, dir string) string { return dir }, "it must be a file that this user can write: is a directory"},
		{"a file in place of the directory", func(t *testing.T, dir string) string {
			file := filepath.Join(dir, "file")
			must(t, os.WriteFile(file, nil, 0o600))
			return filepath.Join(file, "x.db")
		}, "it must be a file that this user can write: not a directory"},
		{"a text file", func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "x.db")
			must(t, os.WriteFile(path, []byte(strings.Repeat("rules: are not a database\n", 99)), 0o600))
			return path
		}, "it is not a database; move it away, or name another file"},
		{"another program's database", func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "x.db")
			execute(t, path, "CREATE TABLE bookmarks (url)")
			return path
		}, "it is another program's SQLite database"},
		{"a newer version's database", func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "x.db")
			must(t, open(t, path).Close())
			execute(t, path, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
			return path
		}, "it was written by a newer version of Switchyard (schema 9999, this version knows "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(tt.want, "this user can write") {
				t.Skip("the system's words differ")
			}
			path := tt.make(t, t.TempDir())
			before, _ := os.ReadFile(path)
			s, err := store.Open(t.Context(), path)
			if err == nil {
				s.Close()
				t.Fatal("Open took it")
			}
			if got := err.Error(); !strings.HasPrefix(got, "open database "+path+": ") || !strings.Contains(got, tt.want) {
				t.Errorf("got error %q, want %q", got, tt.want)
			}
			if after, _ := os.ReadFile(path); string(before) != string(after) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestOpenRefusesAFileThatCannotBeWritten(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root writes everything")
	}
	path := filepath.Join(t.TempDir(), "x.db")
	must(t, os.WriteFile(path, nil, 0o400))
	if _, err := store.Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("got error %v", err)
	}
}

func TestWhatWasStoredIsThereAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s := open(t, path)
	must(t, errOf(s.Receive(t.Context(), storetest.NewDelivery(1, "queued", "queued"))))
	must(t, s.Close())
	if _, err := s.Receive(t.Context(), storetest.NewDelivery(2, "queued", "queued")); err == nil || !strings.Contains(err.Error(), "the store is closed") {
		t.Errorf("a closed store answers %v", err)
	}
	s = open(t, path)
	defer s.Close()
	wantQueued(t, s, 1)
}

func TestALogThatWasNotFoldedInIsRead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "x.db"))
	defer s.Close()
	for id := range int64(50) {
		must(t, errOf(s.Receive(t.Context(), storetest.NewDelivery(id+1, "queued", "queued"))))
	}
	// As the disk is at this moment, without the index of the log, which a
	// crash leaves worthless.
	crashed := filepath.Join(t.TempDir(), "x.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, "x.db"+suffix))
		must(t, err)
		if suffix == "-wal" && len(b) == 0 {
			t.Fatal("the log is empty: the test shows nothing")
		}
		must(t, os.WriteFile(crashed+suffix, b, 0o600))
	}
	again := open(t, crashed)
	defer again.Close()
	wantQueued(t, again, 50)
}

func wantQueued(t *testing.T, s *store.Store, want int) {
	t.Helper()
	counts, err := s.Counts(t.Context())
	must(t, err)
	if counts[router.Queued] != want {
		t.Errorf("got %v, want %d queued", counts, want)
	}
}

// execute runs a statement on a file, as another program would.
func execute(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	must(t, errOf(db.Exec(query)))
}

// A second store on one file would take up the same jobs.
func TestAFileIsOpenOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	for range 2 { // the lock goes with the store
		s := open(t, path)
		if again, err := store.Open(t.Context(), path); err == nil {
			again.Close()
			t.Error("it was opened twice")
		} else if want := "open database " + path + ": another switchyard uses it: stop that first, or name another database"; err.Error() != want {
			t.Errorf("got error %q, want %q", err, want)
		}
		if _, err := s.Receive(t.Context(), storetest.NewDelivery(1, "queued", "queued")); err != nil {
			t.Errorf("the first store does not work any more: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
