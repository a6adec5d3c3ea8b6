package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
	"switchyard/rules"
)

func version(n int, source string) router.KeptRules {
	return router.KeptRules{
		At: time.UnixMilli(int64(n)).UTC(), Hash: fmt.Sprint("hash", n), Who: "ada", Origin: "applied", Note: "why",
		Files: []rules.File{{Name: "rules.yaml", Source: []byte(source)}},
	}
}

func TestVersionsOfTheRulesAreKept(t *testing.T) {
	t.Parallel()
	st := storetest.Open(t, filepath.Join(t.TempDir(), "x.db"))
	defer st.Close()
	keep := func(v router.KeptRules, want int64) {
		t.Helper()
		if id, err := st.KeepRules(t.Context(), v); id != want || err != nil {
			t.Fatalf("KeepRules = %d, %v, want %d", id, err, want)
		}
	}
	keep(version(1, "a\xff\r\n"), 1)
	keep(version(1, "a\xff\r\n"), 1) // the same again
	keep(version(2, "b"), 2)
	keep(version(1, "a\xff\r\n"), 3) // put back
	want := version(1, "a\xff\r\n")
	want.ID = 3
	got, err := st.RulesVersion(t.Context(), 3)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("RulesVersion: %v (-want +got):\n%s", err, diff)
	}
	if _, err := st.RulesVersion(t.Context(), 9); !errors.Is(err, router.ErrNotFound) {
		t.Errorf("a version that there is not: %v", err)
	}

	for n := int64(4); n <= 210; n++ {
		keep(version(int(n), "x"), n)
	}
	list, err := st.RulesVersions(t.Context())
	if err != nil || len(list) != 200 || list[0].ID != 210 || list[199].ID != 11 || list[0].Files != nil {
		t.Errorf("after 210 versions %d are listed, %v", len(list), err)
	}
	// 48 MiB are 64 MiB in base64: the others must go.
	keep(version(211, strings.Repeat("x", 48<<20)), 211)
	if list, err = st.RulesVersions(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("beside a large one %d versions are kept, %v", len(list), err)
	}
}

// Of many who keep versions after the same one, one does.
func TestOneOfManyKeepsRulesAfterAVersion(t *testing.T) {
	name := storetest.Name(t)
	st := storetest.Open(t, name)
	defer st.Close()
	stores := []*store.Store{st}
	if st.Shared() {
		other := storetest.Open(t, name)
		defer other.Close()
		stores = append(stores, other)
	}
	must(t, st.KeepRulesAfter(t.Context(), 0, version(1, "a")))
	must(t, st.KeepRulesAfter(t.Context(), 1, version(1, "a"))) // the same again
	if err := st.KeepRulesAfter(t.Context(), 0, version(2, "b")); !errors.Is(err, router.ErrRulesChanged) {
		t.Errorf("after one that is not the newest: %v", err)
	}
	const many = 10
	errs := make([]error, many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			errs[i] = stores[i%len(stores)].KeepRulesAfter(t.Context(), 1, version(2, "b"), version(10+i, "c"))
		})
	}
	all.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case !errors.Is(err, router.ErrRulesChanged):
			t.Errorf("%d: %v", i, err)
		}
	}
	kept, err := st.RulesVersions(t.Context())
	if err != nil || len(kept) != 3 || kept[1].Hash != "hash2" || kept[0].Hash != fmt.Sprint("hash", 10+won) {
		t.Errorf("%d won, and these are kept: %+v, %v", won, kept, err)
	}
}

// However often editors apply rules, the files that they began with are known.
func TestTheFilesBelowWhatWasAppliedAreKept(t *testing.T) {
	st := storetest.Open(t, storetest.Name(t))
	defer st.Close()
	began := version(1, "x")
	began.Origin = "start"
	must(t, errOf(st.KeepRules(t.Context(), began)))
	for n := 2; n <= 205; n++ {
		must(t, errOf(st.KeepRules(t.Context(), version(n, "x"))))
	}
	kept, err := st.RulesVersions(t.Context())
	if err != nil || len(kept) != 201 || kept[199].ID != 6 || kept[200].ID != 1 {
		t.Fatalf("%d versions are listed, %v", len(kept), err)
	}
}

func TestRecentJobsAreThoseOfTheScope(t *testing.T) {
	st := storetest.Open(t, filepath.Join(t.TempDir(), "x.db"))
	defer st.Close()
	began := time.UnixMilli(1e12).UTC()
	for id := int64(1); id <= 1203; id++ { // more than two pages
		owner := []string{"acme", "beta"}[id%2]
		_, err := st.Receive(t.Context(), router.Delivery{
			ID: fmt.Sprint(id), Action: "queued", Status: "queued", ReceivedAt: began.Add(time.Duration(id) * time.Second),
			Job: router.Job{ID: id, RunID: 7, Attempt: 1, Labels: []string{"linux"}, Repo: router.Repo{Owner: owner, Name: "web", FullName: owner + "/web"}},
		})
		must(t, err)
	}
	for _, tt := range []struct {
		since       time.Time
		within      router.Scope
		jobs        int
		first, last int64
	}{
		{time.Time{}, nil, 1203, 1203, 1},
		{began.Add(1000 * time.Second), nil, 204, 1203, 1000},
		{began, router.Scope{"acme/*"}, 601, 1202, 2},
		{began, router.Scope{}, 0, 0, 0},
		{began.Add(time.Hour), nil, 0, 0, 0},
	} {
		var ids []int64
		for j, err := range st.Recent(t.Context(), tt.since, tt.within) {
			must(t, err)
			ids = append(ids, j.Job.ID)
		}
		if len(ids) != tt.jobs || tt.jobs > 0 && (ids[0] != tt.first || ids[len(ids)-1] != tt.last) {
			t.Errorf("Recent(%v, %v) gave %d jobs, want %d from %d to %d", tt.since, tt.within, len(ids), tt.jobs, tt.first, tt.last)
		}
	}
}
