package store_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
	"switchyard/router/store/storetest"
	"switchyard/rules"
)

// live fills a database with some of everything.
func live(t *testing.T, s *store.Store) {
	t.Helper()
	now := storetest.T0
	for id := int64(1); id <= 1200; id++ { // more than are copied at a time
		d := storetest.NewDelivery(id, "queued", "queued")
		d.Digest = fmt.Sprintf("%032d", id)
		d.Job.Labels = []string{"self-hosted", "a'b\"c\\u0000", "größe\x00", "Linux"}
		must(t, errOf(s.Receive(t.Context(), d)))
	}
	for id := int64(1); id <= 3; id++ {
		j, err := s.Job(t.Context(), id)
		must(t, err)
		r := router.Runner{ID: j.RunnerID(), JobID: id, Try: 1, Name: j.RunnerID(), Fit: "f", NomadJob: j.RunnerID(), Own: id == 3}
		must(t, s.Prepare(t.Context(), r, [32]byte{byte(id)}, now))
		must(t, s.Dispatched(t.Context(), r, [32]byte{byte(id)}, &router.Decision{Outcome: "routed", Rule: "linux", Rerun: &rules.Rerun{When: []string{"drained"}, Times: 1}}, now))
	}
	must(t, errOf(s.Claim(t.Context(), [32]byte{1}, now)))
	storetest.Lose(t, s, 2, router.LossDrained, now)
	must(t, s.Audit(t.Context(), router.Audit{At: now, Who: "vera", Did: "retry", What: "jobs/1", Result: "ok"}))
	must(t, errOf(s.KeepRules(t.Context(), router.KeptRules{At: now, Hash: "h", Origin: "start"})))
	must(t, errOf(s.RecordHook(t.Context(), router.Hook{Kind: router.HookRepository, ID: 7, Owner: "acme", Repo: "web"}, now, now)))
	must(t, s.NoticeStarted(t.Context(), 1, router.NoticeCheckRun, now))
	must(t, s.SetMark(t.Context(), "first look", "done"))
	must(t, s.RecordOverflow(t.Context(), router.Overflow{
		Variable: router.Variable{Owner: "acme", Name: "LINUX_RUNNER"}, Rule: "linux", To: "a", Back: "b", State: router.OverflowSet, Why: "no room", Since: now, At: now,
	}, router.Audit{}))
	must(t, s.Verifies(t.Context(), "gha-1-1", [32]byte{9}, now))
	must(t, s.AddWarm(t.Context(), router.WarmRunner{ID: "gha-warm-1", Rule: "linux", Fit: "f", State: router.WarmStarting}, [32]byte{8}, now))
	waits := storetest.NewDelivery(4, "queued", "waiting")
	waits.ID = ""
	must(t, errOf(s.Receive(t.Context(), waits)))
}

func TestADatabaseIsCopiedToPostgreSQLAndBack(t *testing.T) {
	t.Parallel()
	url, dir := postgrestest.URL(t), t.TempDir()
	first, second := filepath.Join(dir, "first.db"), filepath.Join(dir, "second.db")
	s := storetest.Open(t, first)
	live(t, s)
	must(t, s.Close())

	there, err := store.Copy(t.Context(), first, url, nil)
	must(t, err)
	back, err := store.Copy(t.Context(), url, second, nil)
	must(t, err)
	if diff := cmp.Diff(there, back); diff != "" {
		t.Errorf("copied to PostgreSQL (-) and back (+):\n%s", diff)
	}
	empty := slices.DeleteFunc(slices.Clone(there), func(c store.Copied) bool { return c.Rows != 0 })
	if len(empty) > 3 { // redeliveries, troubles, overflows
		t.Errorf("these tables had no rows: %v", empty)
	}

	// It goes on from there: what triggers write is written again, and numbered after the rest.
	for _, name := range []string{url, second} {
		s, err := store.Open(t.Context(), name)
		must(t, err)
		before, err := s.Timeline(t.Context(), 5)
		must(t, err)
		must(t, errOf(s.Receive(t.Context(), storetest.NewDelivery(5, "in_progress", "in_progress"))))
		after, err := s.Timeline(t.Context(), 5)
		must(t, err)
		if len(before) != 1 || len(after) != 2 {
			t.Errorf("%s: the timeline of a job has %d events, then %d; want 1, then 2", name, len(before), len(after))
		}
		jobs, err := s.FindJobs(t.Context(), router.JobFilter{Label: "linux", Limit: 2000})
		must(t, err)
		if len(jobs) != 1200 {
			t.Errorf("%s: %d jobs have the label linux, want 1200", name, len(jobs))
		}
		must(t, s.Close())
	}
}

func TestADatabaseIsCopiedAsAWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	url, dir := postgrestest.URL(t), t.TempDir()
	from, to := filepath.Join(dir, "from.db"), filepath.Join(dir, "to.db")
	s := storetest.Open(t, from)
	must(t, errOf(s.Receive(t.Context(), storetest.NewDelivery(1, "queued", "queued"))))
	if _, err := store.Copy(t.Context(), from, url, nil); err == nil || !strings.Contains(err.Error(), "another switchyard uses it") {
		t.Errorf("the copy of a database that is in use: %v", err)
	}
	must(t, s.Close())

	if _, err := store.Copy(t.Context(), filepath.Join(dir, "missing.db"), url, nil); err == nil {
		t.Error("a missing database was copied")
	}
	for _, target := range []string{url, to} {
		must(t, errOf(store.Copy(t.Context(), from, target, nil)))
		if _, err := store.Copy(t.Context(), from, target, nil); err == nil || !strings.Contains(err.Error(), "has rows") {
			t.Errorf("a copy to %s, which has rows: %v", target, err)
		}
	}
}
