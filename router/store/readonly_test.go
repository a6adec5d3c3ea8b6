package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
)

func openReadOnly(t *testing.T, path string) *store.Reader {
	t.Helper()
	r, err := store.OpenReadOnly(t.Context(), path)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func recorded(t *testing.T, r *store.Reader, since time.Time) (jobs []store.Recorded) {
	t.Helper()
	for j, err := range r.Jobs(t.Context(), since) {
		must(t, err)
		jobs = append(jobs, j)
	}
	return jobs
}

// listing is the names, sizes and times of the files beside path.
func listing(t *testing.T, path string) (files []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		files = append(files, info.Name()+" "+info.ModTime().String())
	}
	return files
}

func TestRecordedJobsAreReadWhetherAServerRunsOrNot(t *testing.T) {
	t.Parallel()
	const n = 1203 // some pages
	path := filepath.Join(t.TempDir(), "a b%20?mode=rw#x.db")
	s := open(t, path)
	var want []store.Recorded
	for id := range int64(n) {
		d := storetest.NewDelivery(n-id, "queued", "queued") // the newest first
		d.ReceivedAt = storetest.T0.Add(time.Duration(n-id) * time.Second)
		must(t, errOf(s.Receive(t.Context(), d)))
		d.Job.ReceivedAt = d.ReceivedAt
		want = append([]store.Recorded{{Job: d.Job, QueuedAt: d.ReceivedAt}}, want...)
	}
	decision := router.Decision{Outcome: "denied", Reason: "no", Run: &router.Run{Event: "pull_request", Fork: true}}
	must(t, s.Settle(t.Context(), 7, router.Denied, "", "no", &decision, storetest.T0))
	want[6].Outcome, want[6].Run = "denied", decision.Run

	for _, state := range []string{"in use", "closed"} {
		t.Run(state, func(t *testing.T) {
			if state == "closed" {
				must(t, s.Close())
			}
			before := listing(t, path)
			r := openReadOnly(t, path)
			if diff := cmp.Diff(want, recorded(t, r, time.Time{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want[1000:], recorded(t, r, want[1000].Job.ReceivedAt)); diff != "" {
				t.Errorf("since the 1001st (-want +got):\n%s", diff)
			}
			for range r.Jobs(t.Context(), time.Time{}) {
				break
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(before, listing(t, path)); diff != "" {
				t.Errorf("files were changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestAServerThatStartsMeanwhileIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	must(t, open(t, path).Close())
	r := openReadOnly(t, path)
	want := func() {
		t.Helper()
		for _, err := range r.Jobs(t.Context(), time.Time{}) {
			if err == nil || err.Error() != "read jobs: a process began to use the file meanwhile; try again" {
				t.Errorf("got %v", err)
			}
			return
		}
		t.Error("it was not noticed")
	}
	s := open(t, path)
	want()
	must(t, errOf(s.Receive(t.Context(), storetest.NewDelivery(1, "queued", "queued"))))
	must(t, s.Close())
	want() // its log is gone again
}

// A log that a crash left is read, too.
func TestRecordedJobsAreReadAfterACrash(t *testing.T) {
	dir, crashed := t.TempDir(), filepath.Join(t.TempDir(), "x.db")
	s := open(t, filepath.Join(dir, "x.db"))
	defer s.Close()
	must(t, errOf(s.Receive(t.Context(), storetest.NewDelivery(1, "queued", "queued"))))
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, "x.db"+suffix))
		must(t, err)
		must(t, os.WriteFile(crashed+suffix, b, 0o600))
	}
	if jobs := recorded(t, openReadOnly(t, crashed), time.Time{}); len(jobs) != 1 {
		t.Errorf("got %d jobs, want 1", len(jobs))
	}
}

func TestOpenReadOnlyRefusesWhatItCannotRead(t *testing.T) {
	ours := func(query string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			must(t, open(t, path).Close())
			execute(t, path, query)
		}
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"a missing file", func(*testing.T, string) {}, ""}, // in the system's words
		{"a directory", func(t *testing.T, path string) {
			must(t, os.Mkdir(path, 0o700))
		}, "it is not a file"},
		{"an empty file", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, nil, 0o600))
		}, "it is empty; name a file that serve has used"},
		{"a text file", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("no database\n", 99)), 0o600))
		}, "it is not a database"},
		{"another program's database", func(t *testing.T, path string) { execute(t, path, "CREATE TABLE jobs (id)") }, "it is another program's SQLite database"},
		{"a newer version's database", ours("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)"), "it was written by a newer version of Switchyard"},
		{"an older version's database", ours("DELETE FROM goose_db_version WHERE version_id > 0"), "its schema is of an older version of Switchyard; let this version's serve open it once"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.db")
			tt.make(t, path)
			before, _ := os.ReadFile(path)
			r, err := store.OpenReadOnly(t.Context(), path)
			if err == nil {
				r.Close()
				t.Fatal("OpenReadOnly took it")
			}
			if got := err.Error(); !strings.HasPrefix(got, "open database "+path+": "+tt.want) {
				t.Errorf("got error %q, want %q", got, tt.want)
			}
			if after, _ := os.ReadFile(path); string(before) != string(after) {
				t.Error("the file was changed")
			}
		})
	}
}
