package store_test

import (
	"flag"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"switchyard/router/store"
	"switchyard/router/store/storetest"
)

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	must(t, err)
	return s
}

func openTemp(t testing.TB) *store.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "switchyard.db")
	s := storetest.Open(t, path)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSQLiteIsAStore(t *testing.T) {
	t.Parallel()
	changes := store.NewRecorder()
	t.Cleanup(func() { changes.Check(t) })
	storetest.Run(t, func(t testing.TB) storetest.Store {
		s := openTemp(t)
		changes.Watch(t, s)
		return s
	})
}

// Properties are checked on 40 cases, other ones in each run; -rapid.checks has more. Tests
// that wait for PostgreSQL do so beside others.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "40", "test.parallel": "4"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// must fails the test if there is an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// errOf returns the error of a call whose other result does not matter.
func errOf[T any](_ T, err error) error { return err }
