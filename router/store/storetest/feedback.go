package storetest

import (
	"testing"
	"time"

	"switchyard/router"
)

var feedbackTests = []test{
	{"what is said of a job follows its state and reason until it is over", func(t *testing.T, f *fixture) {
		told := func(id int64, state string) router.Delivery {
			d := NewDelivery(id, "queued", state)
			d.Job.SHA = "ce587453ced02b1526dfb4cb910479d431683101"
			return d
		}
		for id := int64(1); id <= 6; id++ {
			f.receive(told(id, "queued"))
		}
		f.receive(told(7, "waiting")) // not decided, as job 6
		noCommit := queued(8)
		f.receive(noCommit)
		for _, id := range []int64{1, 5, 8} {
			f.dispatch(id)
		}
		f.must(f.Settle(f.ctx(), 2, router.Unroutable, "", "no rule", decision(), T0))
		f.must(f.Settle(f.ctx(), 3, router.Ignored, "", "out of scope", decision(), T0))
		f.must(f.Settle(f.ctx(), 4, router.Denied, "", "a fork", decision(), T0))
		f.receive(inProgress(5, "somebody's"))

		type line struct {
			ID    int64
			Begun bool
			Kind  router.NoticeKind
			Check int64
		}
		unsaid := func(kind router.NoticeKind, now time.Time, limit int) (lines []line) {
			t.Helper()
			list, err := f.NoticesDue(f.ctx(), kind, 30*time.Second, T0.Add(-time.Hour), now, limit)
			f.must(err)
			for _, u := range list {
				lines = append(lines, line{u.Job.ID, u.Begun, u.Kind, u.ID})
			}
			return lines
		}
		const check = router.NoticeCheckRun
		wantDiff(t, unsaid(check, T0.Add(29*time.Second), 9), []line{{2, false, check, 0}, {4, false, check, 0}})
		now := T0.Add(30 * time.Second)
		wantDiff(t, unsaid(check, now, 9), []line{{1, false, check, 0}, {2, false, check, 0}, {4, false, check, 0}})
		wantDiff(t, len(unsaid("", now, 9)), 0)
		wantDiff(t, len(unsaid(check, now.Add(2*time.Hour), 2)), 2)

		f.must(f.NoticeStarted(f.ctx(), 1, check, now))
		wantDiff(t, unsaid("", now, 9), []line{{1, true, check, 0}})
		j := f.job(1)
		f.must(f.NoticeSent(f.ctx(), 1, 77, j.State, j.Reason, now.Add(15*time.Second)))
		f.must(f.NoticeStarted(f.ctx(), 1, check, now)) // is no more than known
		wantDiff(t, len(unsaid("", now.Add(time.Minute), 9)), 0)
		run := inProgress(1, "somebody's")
		f.receive(run)
		wantDiff(t, len(unsaid("", now.Add(14*time.Second), 9)), 0)
		wantDiff(t, unsaid(router.NoticeCommitStatus, now.Add(15*time.Second), 1), []line{{1, true, check, 77}})
		f.must(f.NoticeRejected(f.ctx(), 1, now.Add(time.Minute)))
		wantDiff(t, len(unsaid("", now.Add(59*time.Second), 9)), 0)
		wantDiff(t, len(unsaid("", now.Add(time.Minute), 9)), 1)
		f.must(f.NoticeSent(f.ctx(), 1, 77, router.Running, f.job(1).Reason, time.Time{}))
		f.receive(completed(1, "somebody's", "success"))
		wantDiff(t, len(unsaid("", now.Add(time.Hour), 9)), 0)
		f.must(f.NoticeStarted(f.ctx(), 2, check, now))
		f.must(f.NoticeRejected(f.ctx(), 2, time.Time{}))
		wantDiff(t, len(unsaid("", now.Add(time.Hour), 9)), 0)
		list, err := f.NoticesDue(f.ctx(), check, 0, T0.Add(time.Second), now, 9) // received before feedback came
		f.must(err)
		wantDiff(t, len(list), 0)
	}},
	{"a run that nothing can serve is cancelled once, when none of its jobs runs", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 4; id++ {
			d := queued(id)
			d.Job.RunID = 7
			if id == 4 {
				d.Job.RunID = 8
			}
			f.receive(d)
		}
		f.must(f.Settle(f.ctx(), 1, router.Unroutable, "", "no rule", decision(), T0))
		f.must(f.Settle(f.ctx(), 2, router.Unroutable, "", "no rule", decision(), T0))
		f.must(f.Settle(f.ctx(), 4, router.Denied, "", "a fork", decision(), T0))
		ids := func(old, since time.Time) []int64 { return f.ids(f.RunsToCancel(f.ctx(), old, since, 9)) }
		wantDiff(t, ids(T0.Add(-time.Hour), T0.Add(-time.Second)), []int64(nil))
		wantDiff(t, ids(T0.Add(time.Second), T0.Add(time.Hour)), []int64(nil))
		wantDiff(t, ids(T0, T0), []int64{1})
		f.receive(inProgress(3, "somebody's"))
		wantDiff(t, ids(T0, T0), []int64(nil))
		f.receive(completed(3, "somebody's", "success"))
		wantDiff(t, ids(T0, T0), []int64{1})
		f.must(f.RunCancelled(f.ctx(), f.job(1).Repo, 7, "its run is cancelled", T0.Add(time.Minute)))
		wantDiff(t, ids(T0, T0.Add(time.Hour)), []int64(nil))
		for _, id := range []int64{1, 2} {
			if j := f.wantState(id, router.Unroutable); j.Reason != "no rule; its run is cancelled" {
				t.Errorf("job %d has the reason %q", id, j.Reason)
			}
		}
	}},
	{"a job that is no cause to cancel its run is left alone, until it is decided again", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 2; id++ {
			f.receive(queued(id)) // of one run
			f.must(f.Settle(f.ctx(), id, router.Unroutable, "", "unknown label", decision(), T0))
		}
		ids := func() []int64 { return f.ids(f.RunsToCancel(f.ctx(), T0, T0, 9)) }
		wantDiff(t, ids(), []int64{1})
		f.must(f.RunNotCancelled(f.ctx(), 1, "it is somebody else's", T0))
		f.must(f.RunNotCancelled(f.ctx(), 1, "it is somebody else's", T0))
		wantDiff(t, ids(), []int64{2})
		if j := f.wantState(1, router.Unroutable); j.Reason != "unknown label; it is somebody else's" {
			t.Errorf("the reason is %q", j.Reason)
		}
		if done, err := f.Redecide(f.ctx(), 1, router.SourceOperator, "again", T0); !done || err != nil {
			t.Errorf("it is not decided again: %v", err)
		}
		f.must(f.Settle(f.ctx(), 1, router.Unroutable, "", "no rule", decision(), T0))
		wantDiff(t, ids(), []int64{1})
	}},
}
