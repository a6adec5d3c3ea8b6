package store_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"switchyard/router/store"
	"switchyard/router/store/storetest"
)

func TestABackupIsOfADatabaseInUseOrNot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.db")
	s := open(t, path)
	for id := range int64(50) {
		must(t, errOf(s.Receive(t.Context(), storetest.NewDelivery(id+1, "queued", "queued"))))
	}
	backup := func(name string) string {
		t.Helper()
		to := filepath.Join(dir, name)
		must(t, store.Backup(t.Context(), path, to))
		if info, err := os.Stat(to); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
			t.Errorf("the copy is %v, %v; want it for its owner only", info, err)
		}
		return to
	}
	inUse := backup("in-use.db")
	if _, err := s.Receive(t.Context(), storetest.NewDelivery(51, "queued", "queued")); err != nil { // the store is as well as before
		t.Fatal(err)
	}
	must(t, s.Close())
	for to, want := range map[string]int{inUse: 50, backup("idle.db"): 51} {
		c := open(t, to)
		wantQueued(t, c, want)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestABackupOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.db")
	storetest.Create(t, path)
	for to, says := range map[string]string{
		path:                                "there is a file already",
		filepath.Join(dir, "no", "copy.db"): "no such file or directory",
	} {
		if err := store.Backup(t.Context(), path, to); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "write a copy of the database to "+to) {
			t.Errorf("Backup to %s = %v, want %q", to, err, says)
		}
	}
	if err := store.Backup(t.Context(), filepath.Join(dir, "none.db"), filepath.Join(dir, "copy.db")); err == nil {
		t.Error("a database that there is not was copied")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("the directory has %v, %v; want the database alone", files, err)
	}
}
