package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"switchyard/router"
)

var queryTests = []test{
	{"what jobs asked for is counted by labels, with how long they waited", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 6; id++ {
			d := queued(id)
			d.ReceivedAt = T0.Add(time.Duration(id) * time.Minute)
			d.Job.Labels = []string{"linux", "GPU"}
			if id > 4 {
				d.Job.Labels, d.Job.Repo.Owner = []string{"macos"}, "beta"
			}
			f.receive(d)
		}
		f.must(f.Settle(f.ctx(), 6, router.Ignored, "", "no", &router.Decision{Outcome: "ignored", Reason: "no"}, T0.Add(time.Hour)))
		d := queued(2)
		d.ID, d.Action, d.Status, d.ReceivedAt, d.Job.RunnerName = "2 runs", "in_progress", "in_progress", T0.Add(2*time.Minute+30*time.Second), "one"
		f.receive(d)
		demand := func(within router.Scope, since time.Duration) string {
			t.Helper()
			list, err := f.Demand(f.ctx(), within, T0.Add(since))
			f.must(err)
			var said []string
			for _, a := range list {
				said = append(said, fmt.Sprint(a.Labels, a.Jobs, a.Waits))
			}
			slices.Sort(said)
			return strings.Join(said, " ")
		}
		for _, tt := range []struct {
			within router.Scope
			since  time.Duration
			want   string
		}{
			{nil, 0, "[linux GPU] 4 [30s] [macos] 1 []"},
			{nil, 3 * time.Minute, "[linux GPU] 2 [] [macos] 1 []"},
			{nil, time.Hour, ""},
			{router.Scope{"BETA/*"}, 0, "[macos] 1 []"},
			{router.Scope{}, 0, ""},
		} {
			if got := demand(tt.within, tt.since); got != tt.want {
				t.Errorf("demand within %v since %v: %s, want %s", tt.within, tt.since, got, tt.want)
			}
		}
	}},
	{"jobs are found by what is asked for, newest first, page by page", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 12; id++ {
			d := queued(id)
			d.ReceivedAt = T0.Add(time.Duration(id) * time.Minute)
			if id%2 == 0 {
				d.Job.Repo.Owner, d.Job.Repo.Name = "Beta", "App"
			}
			if id%3 == 0 {
				d.Job.Labels = append(d.Job.Labels, "GPU")
			}
			if id == 5 || id == 7 {
				d.Job.Labels = append(d.Job.Labels, strings.Repeat("l", 64)+map[int64]string{5: "ong", 7: "onger"}[id])
			}
			f.receive(d)
			if id > 6 {
				denied := &router.Decision{Outcome: "denied", Rule: "no", Reason: "no"}
				f.must(f.Settle(f.ctx(), id, router.Denied, "", "no", denied, d.ReceivedAt))
			}
		}
		gone := completed(99, "", "cancelled")
		gone.Job.Labels, gone.ReceivedAt = []string{"Gone"}, T0.Add(-time.Hour)
		f.receive(gone)
		if list, err := f.FindJobs(f.ctx(), router.JobFilter{Label: "gone", Limit: 9}); err != nil || len(list) != 1 {
			t.Errorf("by a label that one job has: %+v, %v", list, err)
		}
		f.must(errOf(f.Prune(f.ctx(), T0, T0, T0, T0)))
		for name, tt := range map[string]struct {
			f    router.JobFilter
			want string
		}{
			"all":                             {router.JobFilter{}, "12 11 10 9 8 7 6 5 4 3 2 1"},
			"a state":                         {router.JobFilter{States: []router.JobState{router.Queued}}, "6 5 4 3 2 1"},
			"two states":                      {router.JobFilter{States: []router.JobState{router.Queued, router.Denied}, Before: 9}, "8 7 6 5 4 3 2 1"},
			"a cause":                         {router.JobFilter{Causes: []router.Cause{router.CauseQueued}}, "6 5 4 3 2 1"},
			"a cause in other states":         {router.JobFilter{Causes: []router.Cause{router.CauseQueued}, States: []router.JobState{router.Denied, router.Completed}}, ""},
			"an owner":                        {router.JobFilter{Owner: "beta"}, "12 10 8 6 4 2"},
			"a repository":                    {router.JobFilter{Owner: "ACME", Repo: "WEB"}, "11 9 7 5 3 1"},
			"another owner's":                 {router.JobFilter{Owner: "acme", Repo: "app"}, ""},
			"a rule":                          {router.JobFilter{Rule: "no"}, "12 11 10 9 8 7"},
			"a label":                         {router.JobFilter{Label: "gpu"}, "12 9 6 3"},
			"since":                           {router.JobFilter{Since: T0.Add(10 * time.Minute)}, "12 11 10"},
			"until":                           {router.JobFilter{Until: T0.Add(3 * time.Minute)}, "2 1"},
			"since the future":                {router.JobFilter{Since: T0.Add(time.Hour)}, ""},
			"a label that is long":            {router.JobFilter{Label: strings.Repeat("L", 64) + "ong"}, "5"},
			"a label that others begin with":  {router.JobFilter{Label: strings.Repeat("L", 64)}, ""},
			"the label of a job that is gone": {router.JobFilter{Label: "gone"}, ""},
			"a scope":                         {router.JobFilter{Within: router.Scope{"beta/app"}}, "12 10 8 6 4 2"},
			"a wide scope":                    {router.JobFilter{Within: router.Scope{"Acme/*", "beta/APP", "beta/*"}, Before: 10}, "9 8 7 6 5 4 3 2 1"},
			"no scope":                        {router.JobFilter{Within: router.Scope{}}, ""},
			"a scope and label":               {router.JobFilter{Within: router.Scope{"acme/*", "no/body"}, Label: "gpu", States: []router.JobState{router.Queued, router.Denied}}, "9 3"},
			"another host's":                  {router.JobFilter{Within: router.Scope{"ghe.example/acme/*"}}, ""},
			"a state and label":               {router.JobFilter{States: []router.JobState{router.Denied}, Label: "gpu", Owner: "beta"}, "12"},
		} {
			wantPages(t, name, tt.want, func(limit int) func() (ids []string) {
				page := tt.f
				page.Limit = limit
				return func() (ids []string) {
					jobs, err := f.FindJobs(f.ctx(), page)
					f.must(err)
					for _, j := range jobs {
						ids, page.Before = append(ids, fmt.Sprint(j.ID)), j.ID
					}
					return ids
				}
			})
		}
	}},
	{"runners are found by state, newest first, page by page", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 3; id++ {
			f.receive(queued(id))
			f.online(id)
		}
		f.must(errOf(f.Lost(f.ctx(), router.Runner{ID: "gha-2-1"}, T0, router.CauseRunner, "gone", T0)))
		f.online(2)
		for name, tt := range map[string]struct {
			states []router.RunnerState
			want   string
		}{
			"all":    {nil, "gha-3-1 gha-2-2 gha-2-1 gha-1-1"},
			"online": {[]router.RunnerState{router.RunnerOnline, router.RunnerBusy}, "gha-3-1 gha-2-2 gha-1-1"},
			"lost":   {[]router.RunnerState{router.RunnerLost}, "gha-2-1"},

			"all of a scope":    {nil, "gha-3-1 gha-2-2 gha-2-1 gha-1-1"},
			"online of a scope": {[]router.RunnerState{router.RunnerOnline, router.RunnerFinished, router.RunnerLost}, "gha-3-1 gha-2-2 gha-2-1 gha-1-1"},
		} {
			wantPages(t, name, tt.want, func(limit int) func() (ids []string) {
				page := router.RunnerFilter{States: tt.states, Limit: limit}
				if strings.HasSuffix(name, "scope") {
					page.Within = router.Scope{"ACME/web", "acme/*", "beta/*"}
				}
				return func() (ids []string) {
					runners, _, err := f.SearchRunners(f.ctx(), page)
					f.must(err)
					for _, r := range runners {
						ids, page.BeforeJob, page.BeforeTry = append(ids, r.ID), r.JobID, r.Try
					}
					return ids
				}
			})
		}
	}},
}

// wantPages checks what a filter finds, in pages of several sizes; pages returns a function
// that reads the next page of one size.
func wantPages(t *testing.T, name, want string, pages func(limit int) (next func() []string)) {
	t.Helper()
	for _, limit := range []int{1, 2, 5, 100} {
		var got []string
		for next := pages(limit); ; {
			ids := next()
			if got = append(got, ids...); len(ids) < limit {
				break
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s, %d a page: got %s, want %s", name, limit, got, want)
		}
	}
}
