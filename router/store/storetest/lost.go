package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"switchyard/router"
)

var lostTests = []test{
	{"a hook is known once, and keeps its name and how far it was swept", func(t *testing.T, f *fixture) {
		org := router.Hook{Kind: router.HookOrganization, ID: 7, Owner: "acme"}
		other := org
		other.Owner = "acme-2"
		saw := func(h router.Hook, after time.Duration, want bool) {
			t.Helper()
			if known := f.sawHook(h, T0.Add(after)); known != want {
				t.Errorf("RecordHook(%s) = %t, want %t", h, known, want)
			}
		}
		saw(org, 0, true)
		saw(router.Hook{Kind: router.HookApp}, time.Second, true)
		saw(other, time.Hour, false)
		org.Owner = "Acme" // GitHub compares names without case
		saw(org, time.Minute, true)
		org.Owner = "acme"
		saw(org, time.Second, true) // late
		f.must(f.Swept(f.ctx(), router.HookSweep{Hook: org, Swept: T0, Newest: T0.Add(time.Minute), Cursor: "c", Proved: true}, nil, T0))
		got, err := f.Hooks(f.ctx())
		f.must(err)
		wantDiff(t, got, []router.HookSweep{
			{Hook: router.Hook{Kind: router.HookApp}, Swept: T0.Add(time.Second), Heard: T0.Add(time.Second)},
			{Hook: org, Swept: T0, Newest: T0.Add(time.Minute), Cursor: "c", Heard: T0.Add(time.Minute), Proved: true},
		})
		f.must(f.ForgetHook(f.ctx(), org))
		saw(other, time.Hour, true) // now it may be so
	}},
	{"hooks that only headers tell of are few for each repository, and the App's stays", func(t *testing.T, f *fixture) {
		f.sawHook(router.Hook{Kind: router.HookApp}, T0)
		repo := func(id int64, name string) router.Hook {
			return router.Hook{Kind: router.HookRepository, ID: id, Owner: "acme", Repo: name}
		}
		real := repo(1, "web")
		f.sawHook(real, T0)
		f.must(f.Swept(f.ctx(), router.HookSweep{Hook: real, Swept: T0, Proved: true}, nil, T0))
		taken := 0
		for id := int64(100); id < 120; id++ {
			if f.sawHook(repo(id, "web"), T0) {
				taken++
			}
		}
		if taken != router.MaxUnprovedHooks {
			t.Errorf("%d hooks of one repository were taken up, want %d", taken, router.MaxUnprovedHooks)
		}
		if !f.sawHook(repo(300, "api"), T0) || !f.sawHook(router.Hook{Kind: router.HookOrganization, ID: 301, Owner: "acme"}, T0) {
			t.Error("those of one repository keep out another's")
		}
	}},
	{"deliveries that are not recorded are told from the others", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		d := queued(2)
		d.ID = `it's "odd"`
		f.receive(d)
		got, err := f.Unrecorded(f.ctx(), []string{"new", queued(1).ID, d.ID, "other"})
		f.must(err)
		slices.Sort(got)
		wantDiff(t, got, []string{"new", "other"})
		if got, err := f.Unrecorded(f.ctx(), []string{}); err != nil || len(got) > 0 {
			t.Errorf("Unrecorded of none = %v, %v", got, err)
		}
	}},
	{"what is known is as old as the last delivery, or the last change", func(t *testing.T, f *fixture) {
		latest := func(want time.Time) {
			t.Helper()
			at, err := f.Latest(f.ctx())
			f.must(err)
			if !at.Equal(want) {
				t.Errorf("the latest is of %s, want %s", at, want)
			}
		}
		latest(time.Time{})
		f.receive(queued(1))
		latest(T0)
		d := queued(1) // changes nothing
		d.ID, d.ReceivedAt = "again", T0.Add(time.Minute)
		f.receive(d)
		latest(T0.Add(time.Minute))
		f.must(f.Settle(f.ctx(), 1, router.Ignored, "", "out of scope", decision(), T0.Add(time.Hour)))
		latest(T0.Add(time.Hour))
	}},
	{"the repositories of recent jobs are each there once", func(t *testing.T, f *fixture) {
		for i, repo := range []string{"web", "web", "Web", "api"} {
			d := queued(int64(i + 1))
			d.Job.Repo.Name = repo
			d.ReceivedAt = T0.Add(time.Duration(i) * time.Minute)
			f.receive(d)
		}
		repos := func(since time.Duration, limit int) []router.Repo {
			list, err := f.Repos(f.ctx(), T0.Add(since), limit)
			f.must(err)
			return list
		}
		if got := repos(0, 10); len(got) != 2 || got[0].FullName != "acme/api" || !strings.EqualFold(got[1].FullName, "acme/web") {
			t.Errorf("got %+v", got)
		}
		wantDiff(t, len(repos(3*time.Minute, 10)), 1)
		wantDiff(t, len(repos(0, 1)), 1)
	}},
	{"of the deliveries that are due, those come first by which a job ended or runs", func(t *testing.T, f *fixture) {
		h := router.HookSweep{Hook: router.Hook{Kind: router.HookRepository, ID: 7, Owner: "acme", Repo: "web"}}
		f.sawHook(h.Hook, T0)
		var missed []router.SentDelivery
		for i, action := range []string{"queued", "in_progress", "completed", "queued", "completed"} {
			missed = append(missed, router.SentDelivery{ID: int64(i + 1), GUID: fmt.Sprint(i + 1), At: T0.Add(time.Duration(i) * time.Second), Action: action})
		}
		f.must(f.Swept(f.ctx(), h, missed, T0))
		due := func(now time.Time) (ids []int64) {
			list, err := f.Redeliveries(f.ctx(), now, T0.Add(-time.Minute), 10)
			f.must(err)
			for _, r := range list {
				ids = append(ids, r.DeliveryID)
			}
			return ids
		}
		wantDiff(t, due(T0), []int64{3, 5, 2, 1, 4})
		f.must(f.Redelivered(f.ctx(), "3", T0.Add(time.Hour)))
		f.must(f.Redelivered(f.ctx(), "5", time.Time{}))
		wantDiff(t, due(T0), []int64{2, 1, 4})
		f.must(f.RedeliverNow(f.ctx(), T0))
		wantDiff(t, due(T0), []int64{3, 2, 1, 4})
		f.must(f.ForgetHook(f.ctx(), h.Hook))
		f.sawHook(h.Hook, T0)
		wantDiff(t, len(due(T0)), 0)
	}},
	{"a failed delivery is due until it is received, too old, or asked for often enough", func(t *testing.T, f *fixture) {
		h := router.HookSweep{Hook: router.Hook{Kind: router.HookRepository, ID: 7, Owner: "acme", Repo: "web"}}
		f.sawHook(h.Hook, T0)
		stored := queued(1)
		f.receive(stored)
		at := func(id int64, guid string, at time.Time) router.SentDelivery {
			return router.SentDelivery{ID: id, GUID: guid, At: at}
		}
		f.must(f.Swept(f.ctx(), h, []router.SentDelivery{at(3, "c", T0.Add(2)), at(2, "b", T0), at(1, stored.ID, T0), at(4, "old", T0.Add(-time.Hour))}, T0))
		f.must(f.Swept(f.ctx(), h, []router.SentDelivery{at(9, "b", T0.Add(time.Second))}, T0.Add(time.Hour))) // another attempt at it
		due := func(now time.Time, limit int) (list []router.Redelivery) {
			t.Helper()
			list, err := f.Redeliveries(f.ctx(), now, T0.Add(-time.Minute), limit)
			f.must(err)
			return list
		}
		b, c := router.Redelivery{GUID: "b", Hook: h.Hook, DeliveryID: 9}, router.Redelivery{GUID: "c", Hook: h.Hook, DeliveryID: 3}
		wantDiff(t, due(T0, 10), []router.Redelivery{c, b}[0:2:2])
		wantDiff(t, len(due(T0, 1)), 1)
		f.must(f.Redelivered(f.ctx(), "b", T0.Add(time.Minute)))
		f.must(f.Redelivered(f.ctx(), "c", time.Time{}))
		wantDiff(t, len(due(T0, 10)), 0)
		b.Tries = 1
		wantDiff(t, due(T0.Add(time.Minute), 10), []router.Redelivery{b})
		// One that is asked for no more stays so when it is seen again.
		f.must(f.Swept(f.ctx(), h, []router.SentDelivery{at(3, "c", T0)}, T0))
		wantDiff(t, due(T0.Add(time.Minute), 10), []router.Redelivery{b})
		d := queued(2)
		d.ID = "b"
		if !f.receive(d) {
			t.Error("a redelivery of what never arrived changed nothing")
		}
		wantDiff(t, len(due(T0.Add(time.Hour), 10)), 0)
	}},
	{"GitHub is asked about a job that is unserved at growing intervals", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		const step = 10 * time.Minute
		var asked []time.Duration
		for at := time.Duration(0); at <= 24*time.Hour; at += time.Minute {
			jobs, err := f.Stale(f.ctx(), T0.Add(at), step, 10)
			f.must(err)
			if len(jobs) == 1 {
				asked = append(asked, at/time.Minute)
				f.must(f.Asked(f.ctx(), 1, T0.Add(at)))
			}
		}
		// In minutes, up to six hours apart.
		wantDiff(t, asked, []time.Duration{10, 20, 30, 45, 68, 102, 153, 230, 345, 518, 777, 1137})
		if j := f.job(1); !j.AskedAt.Equal(T0.Add(1137 * time.Minute)) {
			t.Errorf("the job was asked about at %s", j.AskedAt)
		}
	}},
	{"GitHub is asked about a job that it holds at intervals that grow from a tenth", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		held := time.Hour // after it was heard of
		f.receive(answer(1, "waiting", held))
		var asked []time.Duration
		for at := time.Duration(0); at <= 24*time.Hour; at += time.Minute {
			jobs, err := f.Stale(f.ctx(), T0.Add(held+at), 10*time.Minute, 10)
			f.must(err)
			if len(jobs) == 1 {
				asked = append(asked, at/time.Minute)
				f.must(f.Asked(f.ctx(), 1, T0.Add(held+at)))
				f.receive(answer(1, "waiting", held+at))
			}
		}
		wantDiff(t, asked, []time.Duration{1, 2, 3, 5, 8, 12, 18, 27, 41, 62, 93, 140, 210, 315, 473, 710, 1065, 1425})
	}},
	{"GitHub is asked about jobs that wait, first those it was not asked about, and about running ones after long", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3, 4, 5, 6, 7)
		f.dispatch(2)
		f.receive(inProgress(3, "somebody's"))
		f.receive(completed(4, "", "cancelled"))
		f.must(f.Settle(f.ctx(), 5, router.Ignored, "", "out of scope", decision(), T0))
		f.receive(NewDelivery(8, "queued", "waiting"))
		f.must(f.Asked(f.ctx(), 1, T0.Add(time.Minute)))
		stale := func(at time.Duration, limit int) []int64 {
			return f.ids(f.Stale(f.ctx(), T0.Add(at), 10*time.Minute, limit))
		}
		wantDiff(t, stale(9*time.Minute, 10), []int64{8})
		wantDiff(t, stale(10*time.Minute, 10), []int64{2, 6, 7, 8})
		wantDiff(t, stale(11*time.Minute, 3), []int64{2, 6, 7})
		wantDiff(t, stale(11*time.Minute, 10), []int64{2, 6, 7, 8, 1})
		wantDiff(t, stale(time.Hour, 10), []int64{2, 3, 6, 7, 8, 1})
		open, err := f.Open(f.ctx(), 0, "Acme", "WEB")
		f.must(err)
		wantDiff(t, len(open), 6)
	}},
	{"a job that waits for a place under its limit waits on when GitHub says that it is queued", func(t *testing.T, f *fixture) {
		d := decision()
		d.Limit = &router.Limit{Key: "k", Running: 1}
		for id := int64(1); id <= 2; id++ {
			f.receive(queued(id))
			if _, err := f.Admit(f.ctx(), id, d, T0); err != nil {
				t.Fatal(err)
			}
		}
		again := queued(2)
		again.ID, again.Source = "", router.SourceGitHub
		if f.receive(again) {
			t.Error("what was known is taken for news")
		}
		f.wantState(2, router.Held)
	}},
	{"a job that GitHub does not know any more is completed", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		gone := completed(1, "", "")
		gone.ID, gone.Source, gone.Status = "", router.SourceGitHub, router.StatusGone
		f.receive(gone)
		if j := f.wantState(1, router.Completed); j.Reason != "GitHub no longer knows it" {
			t.Errorf("the reason is %q", j.Reason)
		}
	}},
}
