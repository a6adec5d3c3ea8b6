package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"switchyard/router"
)

var statsTests = []test{
	{"what waits longest, what started and what is open are told within a scope", func(t *testing.T, f *fixture) {
		at := func(id int64) time.Time { return T0.Add(-time.Duration(id) * time.Minute) } // the newest came first
		for id := int64(1); id <= 5; id++ {
			d := queued(id)
			d.ReceivedAt = at(id)
			if id > 3 {
				d.Job.Repo.Owner, d.Job.Repo.FullName = "Beta", "Beta/web"
			}
			f.receive(d)
		}
		f.dispatch(2)
		for _, id := range []int64{3, 5} {
			r := f.dispatch(id)
			runs := NewDelivery(id, "in_progress", "in_progress")
			runs.Job.RunnerName, runs.ReceivedAt = r.Name, at(id).Add(time.Duration(id)*time.Second)
			if id > 3 {
				runs.Job.Repo.Owner, runs.Job.Repo.FullName = "Beta", "Beta/web"
			}
			f.receive(runs)
		}
		f.must(f.Settle(f.ctx(), 1, router.Denied, "", "no", nil, at(1)))
		told := func(within router.Scope, limit int, since time.Time) string {
			t.Helper()
			oldest, err := f.Oldest(f.ctx(), within, limit)
			f.must(err)
			starts, err := f.Starts(f.ctx(), within, since)
			f.must(err)
			open, err := f.OpenJobs(f.ctx(), within)
			f.must(err)
			var b strings.Builder
			for _, j := range oldest {
				fmt.Fprint(&b, j.ID, " ")
			}
			for _, s := range starts {
				fmt.Fprint(&b, "· ", s.Rule, " ", s.Waited, " at ", s.At.Sub(T0), " ")
			}
			n := 0
			for _, o := range open {
				n += o.Jobs
			}
			fmt.Fprint(&b, "· ", n, " open")
			return b.String()
		}
		repos := func(within router.Scope, limit int) (told []string) {
			t.Helper()
			list, err := f.OpenRepos(f.ctx(), within, limit)
			f.must(err)
			for _, r := range list {
				told = append(told, fmt.Sprint(r.Repo.FullName, " ", r.Waiting, r.Placing, r.Starting, r.Running, " ", r.Oldest.Sub(T0)))
			}
			return told
		}
		for _, tt := range []struct {
			within router.Scope
			limit  int
			want   []string
		}{
			{nil, 9, []string{"Beta/web 1 0 0 1 -4m0s", "acme/web 0 1 0 1 -2m0s"}},
			{nil, 1, []string{"Beta/web 1 0 0 1 -4m0s"}},
			{router.Scope{"ACME/*"}, 9, []string{"acme/web 0 1 0 1 -2m0s"}},
			{router.Scope{}, 9, nil},
		} {
			wantDiff(t, repos(tt.within, tt.limit), tt.want)
		}
		rule := f.job(3).Decision.Rule
		five, three := "· "+rule+" 5s at -4m55s ", "· "+rule+" 3s at -2m57s "
		for _, tt := range []struct {
			within router.Scope
			limit  int
			since  time.Time
			want   string
		}{
			{nil, 9, T0.Add(-time.Hour), "4 2 " + five + three + "· 4 open"},
			{nil, 1, T0.Add(-4 * time.Minute), "4 " + three + "· 4 open"},
			{router.Scope{"beta/*"}, 9, T0.Add(-time.Hour), "4 " + five + "· 2 open"},
			{router.Scope{}, 9, T0.Add(-time.Hour), "· 0 open"},
		} {
			if got := told(tt.within, tt.limit, tt.since); got != tt.want {
				t.Errorf("within %v, %d, since %v: %s, want %s", tt.within, tt.limit, tt.since, got, tt.want)
			}
		}
	}},
}
