package storetest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
)

// Create puts a new SQLite database at path, as store.Open makes it of a missing
// file. It costs a copy: the migrations, each of which waits for the disk, run
// once in a process.
func Create(t testing.TB, path string) {
	t.Helper()
	db, err := empty()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, db, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Name returns the name of a new, empty database for a test of more than the store: that of a
// SQLite file, or the URL of a PostgreSQL database if SWITCHYARD_TEST_DB is postgres.
func Name(t testing.TB) string {
	t.Helper()
	if os.Getenv("SWITCHYARD_TEST_DB") == "postgres" {
		return postgrestest.URL(t)
	}
	return filepath.Join(t.TempDir(), "test.db")
}

// Open opens the database with this name, a new one if the file is missing, and does not
// wait for the disk. Who opens it closes it.
func Open(t testing.TB, path string) *store.Store {
	t.Helper()
	if _, err := os.Stat(path); err != nil && !store.IsPostgres(path) {
		Create(t, path)
	}
	s, err := store.Open(t.Context(), path, store.Unsynced)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// empty returns the content of a new database.
var empty = sync.OnceValues(func() (db []byte, err error) {
	dir, err := os.MkdirTemp("", "storetest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "empty.db")
	s, err := store.Open(context.Background(), path, store.Unsynced)
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})
