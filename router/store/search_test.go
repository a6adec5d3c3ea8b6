package store_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/store/storetest"
)

// A search ends, however long the history, and the pages together have all that there is.
func TestASearchLooksAtSoMuchAtATime(t *testing.T) {
	const jobs = 25_000
	path := filepath.Join(t.TempDir(), "x.db")
	storetest.Create(t, path)
	end := time.Now()
	storetest.History(t, path, jobs, 30*24*time.Hour, end)
	s := storetest.Open(t, path)
	defer s.Close()
	every, err := s.FindJobs(t.Context(), router.JobFilter{Limit: jobs})
	must(t, err)
	team := router.Scope{fmt.Sprintf("owner-%d/*", storetest.HistoryOwners)}

	for _, tt := range []struct {
		name  string
		f     router.JobFilter
		bound bool // the first page does not look at all
	}{
		{"two that many have", router.JobFilter{Label: "linux", Rule: "h0"}, true},
		{"what many and what few have", router.JobFilter{Label: "linux", Rule: "h3"}, false},
		{"what nobody has", router.JobFilter{Label: "linux", Owner: "nobody"}, false},
		{"one that many have", router.JobFilter{Label: "team-7"}, false},
		{"few by a time", router.JobFilter{Label: "linux", Since: end.Add(-time.Hour)}, false},
		{"many by a time", router.JobFilter{Owner: "owner-0", Since: end.AddDate(0, 0, -20), Until: end.AddDate(0, 0, -17)}, false},
		{"before a time", router.JobFilter{Until: end.AddDate(0, 0, -29)}, false},
		{"a state of many", router.JobFilter{States: []router.JobState{router.Completed}, Label: "linux", Rule: "h0"}, true},
		{"of a team", router.JobFilter{Within: team, States: []router.JobState{router.Completed}, Label: "linux"}, false},
		{"causes", router.JobFilter{Causes: []router.Cause{router.CauseRunnerEnded}, Label: "linux", Rule: "h0"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Limit = jobs
			var want []router.Job
			for _, j := range every {
				if has(tt.f, j) {
					want = append(want, j)
				}
			}
			var found []router.Job
			for pages := 1; ; pages++ {
				some, from, err := s.SearchJobs(t.Context(), tt.f)
				must(t, err)
				found = append(found, some...)
				if pages == 1 && (from != 0) != tt.bound {
					t.Errorf("the first page looks from job %d on", from)
				}
				if from == 0 {
					break
				}
				tt.f.Before = from
			}
			if ids(found) != ids(want) {
				t.Errorf("%d jobs, want %d", len(found), len(want))
			}
		})
	}
	s.LookAt(5000)
	for _, tt := range []struct {
		name  string
		f     router.RunnerFilter
		pages int
	}{
		{"all of an owner", router.RunnerFilter{Within: router.Scope{"owner-0/*"}}, 3},
		{"finished of an owner", router.RunnerFilter{Within: router.Scope{"owner-0/*"}, States: []router.RunnerState{router.RunnerFinished}}, 3},
		{"all of an owner and a team", router.RunnerFilter{Within: append(router.Scope{"owner-0/*"}, team...)}, 3},
		{"none of an owner on another GitHub", router.RunnerFilter{Within: router.Scope{"ghe.example/owner-0/*"}}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Limit = jobs
			want, from, err := s.Reader().SearchRunners(t.Context(), tt.f)
			if err != nil || from != 0 {
				t.Fatalf("%d runners from %d on, %v", len(want), from, err)
			}
			var found []router.Runner
			pages := 0
			for from := int64(-1); from != 0; pages++ {
				var some []router.Runner
				some, from, err = s.SearchRunners(t.Context(), tt.f)
				must(t, err)
				found = append(found, some...)
				tt.f.BeforeJob = from
			}
			if !slices.EqualFunc(found, want, func(a, b router.Runner) bool { return a.ID == b.ID }) || pages != tt.pages {
				t.Errorf("%d runners on %d pages, want %d on %d", len(found), pages, len(want), tt.pages)
			}
		})
	}
	for name, f := range map[string]router.RunnerFilter{
		"none of a team":      {Within: team},
		"none lost of a team": {Within: team, States: []router.RunnerState{router.RunnerLost}},
		"lost of an owner":    {Within: router.Scope{"owner-0/*"}, States: []router.RunnerState{router.RunnerLost}},
	} {
		f.Limit = jobs
		runners, from, err := s.SearchRunners(t.Context(), f)
		if err != nil || from != 0 || (len(runners) > 0) != (name == "lost of an owner") {
			t.Errorf("%s: %d runners from %d on, %v", name, len(runners), from, err)
		}
	}
}

// has reports whether a filter selects a job of storetest.History.
func has(f router.JobFilter, j router.Job) bool {
	return (f.Label == "" || slices.Contains(j.Labels, f.Label)) && (f.Rule == "" || j.Decision != nil && j.Decision.Rule == f.Rule) &&
		(f.Owner == "" || j.Repo.Owner == f.Owner) && !j.ReceivedAt.Before(f.Since) && (f.Until.IsZero() || j.ReceivedAt.Before(f.Until)) &&
		(f.States == nil || slices.Contains(f.States, j.State)) && (f.Causes == nil || slices.Contains(f.Causes, j.Cause)) && f.Within.Has(j.Repo)
}

func ids(jobs []router.Job) string {
	var all []int64
	for _, j := range jobs {
		all = append(all, j.ID)
	}
	return fmt.Sprint(all)
}

// Of a long history only what has not ended is counted each time.
func TestALongHistoryIsCountedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		storetest.Create(t, path)
		storetest.History(t, path, 5100, 30*24*time.Hour, time.Now())
		s := storetest.Open(t, path)
		defer s.Close()
		s.CountUpTo(5000)
		count := func() map[router.JobState]int {
			t.Helper()
			counts, err := s.Counts(t.Context())
			must(t, err)
			return counts
		}
		before := count()
		d := storetest.NewDelivery(5100, "completed", "completed") // it was queued, or waits otherwise
		d.ReceivedAt = time.Now()
		_, err := s.Receive(t.Context(), d)
		must(t, err)
		d = storetest.NewDelivery(5101, "queued", "queued")
		d.ReceivedAt = time.Now()
		_, err = s.Receive(t.Context(), d)
		must(t, err)
		open := func(counts map[router.JobState]int) (n int) {
			for _, state := range []router.JobState{router.Held, router.Queued, router.Retrying, router.Dispatched, router.Running} {
				n += counts[state]
			}
			return n
		}
		if soon := count(); open(soon) != open(before) || soon[router.Completed] != before[router.Completed] || soon[router.Denied] != before[router.Denied] {
			t.Errorf("at once %v, after %v", soon, before)
		}
		time.Sleep(time.Minute)
		if later := count(); open(later) != open(before) || later[router.Completed] != before[router.Completed]+1 {
			t.Errorf("after a minute %v, after %v", later, before)
		}
	})
}

// Whether the database can be written is mostly known.
func TestWhetherItCanBeWrittenIsWrittenRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, filepath.Join(t.TempDir(), "x.db"))
		defer s.Close()
		marked := func() string {
			t.Helper()
			must(t, s.Writable(t.Context()))
			mark, err := s.Mark(t.Context(), "ready")
			must(t, err)
			return mark
		}
		first := marked()
		time.Sleep(4 * time.Minute)
		if first == "" || marked() != first {
			t.Errorf("marked %q, then %q", first, marked())
		}
		must(t, s.SetMark(t.Context(), "other", "x"))
		time.Sleep(4 * time.Minute)
		if marked() != first {
			t.Error("it is tried although something was written")
		}
		_, err := s.Reconsider(t.Context(), "", time.Now()) // of no job
		must(t, err)
		must(t, s.RecordUnplaced(t.Context(), []string{"nobody"}, router.Unplaced{}, time.Now()))
		time.Sleep(time.Minute)
		if marked() == first {
			t.Error("it is not tried after five minutes in which nothing was written")
		}
	})
}
