package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"switchyard/router"
)

var deliveryTests = []test{
	{"a queued job comes back as GitHub described it", func(t *testing.T, f *fixture) {
		d := queued(1)
		d.Job.Name = "build 'x' \"y\" \x00 ${z}\n日本 -- ;"
		d.Job.Labels = []string{"self-hosted", "a,b", "", "c d\u2028"}
		if !f.receive(d) {
			t.Error("the first delivery changed nothing")
		}
		want := d.Job
		want.State, want.Cause, want.Reason, want.Try = router.Queued, router.CauseQueued, f.job(1).Reason, 1
		want.DueAt, want.ReceivedAt, want.UpdatedAt = T0, T0, T0
		got := f.wantState(1, router.Queued)
		got.Name = strings.ReplaceAll(got.Name, "\ufffd", "\x00") // which PostgreSQL does not keep
		wantDiff(t, got, want)
	}},
	{"a job that waits for an approval is held until it is queued", func(t *testing.T, f *fixture) {
		f.receive(NewDelivery(1, "waiting", "waiting"))
		f.wantState(1, router.Held)
		f.receive(NewDelivery(1, "queued", "waiting")) // as GitHub announces a protected deployment
		f.wantState(1, router.Held)
		if due, _, _ := f.Due(f.ctx(), T0.Add(time.Hour), nil, 9); len(due) != 0 {
			t.Errorf("a held job is due: %+v", due)
		}
		d := queued(1)
		d.ReceivedAt = T0.Add(time.Minute)
		if !f.receive(d) {
			t.Error("queued changed nothing")
		}
		if j := f.wantState(1, router.Queued); !j.DueAt.Equal(d.ReceivedAt) || !j.ReceivedAt.Equal(T0) {
			t.Errorf("got due at %v, received at %v", j.DueAt, j.ReceivedAt)
		}
	}},
	{"queued with a status that is not queued is held", func(t *testing.T, f *fixture) {
		for i, status := range []string{"waiting", "pending", "requested", "who knows"} {
			f.receive(NewDelivery(int64(i+1), "queued", status))
			f.wantState(int64(i+1), router.Held)
		}
	}},
	{"a delivery that comes late holds no queued job back", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		if f.receive(NewDelivery(1, "waiting", "waiting")) {
			t.Error("waiting after queued changed something")
		}
		f.wantState(1, router.Queued)
	}},
	{"GitHub's answer that a job must wait holds it, until it is queued again", func(t *testing.T, f *fixture) {
		id := int64(0)
		for _, status := range []string{"waiting", "pending", "requested", "who knows"} {
			for what, to := range map[string]func(id int64){
				"queued":     func(int64) {},
				"retrying":   func(id int64) { f.must(f.Retry(f.ctx(), id, T0, router.CauseNomad, "Nomad is away", decision(), T0)) },
				"prepared":   func(id int64) { f.prepare(id) },
				"dispatched": func(id int64) { f.dispatch(id) },
				"claimed":    func(id int64) { f.claim(f.dispatch(id)) },
				"online":     func(id int64) { f.online(id) },
			} {
				id++
				f.receive(queued(id))
				to(id)
				first := f.job(id)
				if !f.receive(answer(id, status, time.Minute)) {
					t.Errorf("%s: %q changed nothing", what, status)
				}
				j := f.wantState(id, router.Held)
				if !strings.Contains(j.Reason, "on GitHub") || j.Decision != nil || j.Try != first.Try || !j.DispatchedAt.IsZero() {
					t.Errorf("%s: it is held at try %d with the decision %v: %s", what, j.Try, j.Decision, j.Reason)
				}
				if f.receive(answer(id, status, 2*time.Minute)) {
					t.Errorf("%s: the same answer is news", what)
				}
				list, err := f.Leftovers(f.ctx(), id)
				f.must(err)
				if hasRunner := what != "queued" && what != "retrying"; hasRunner != (len(list) == 1) {
					t.Errorf("%s: left over are %+v", what, list)
				}
				again := queued(id)
				again.ID, again.ReceivedAt = fmt.Sprint(id, "approved"), T0.Add(3*time.Minute)
				if !f.receive(again) {
					t.Errorf("%s: queued changed nothing", what)
				}
				j = f.wantState(id, router.Queued)
				if used := what == "dispatched" || what == "claimed" || what == "online"; (j.Try == first.Try) == used || !j.DueAt.Equal(again.ReceivedAt) {
					t.Errorf("%s: it is queued again at try %d, was at %d, due at %v", what, j.Try, first.Try, j.DueAt)
				}
				if r := f.newRunner(id); true {
					f.must(f.Prepare(f.ctx(), r, Token(r.ID, "again"), again.ReceivedAt))
				}
			}
		}
	}},
	{"the claim of a runner whose job is held finds nothing to do, or another job", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		f.receive(answer(1, "waiting", time.Minute))
		if c := f.claim(r); c.Needed {
			t.Errorf("it got %+v", c)
		}
		f.queue(2, 3)
		r = f.dispatch(2)
		gone := f.dispatch(3)
		f.lost(gone.ID, T0, "x", T0)
		f.receive(answer(2, "waiting", time.Minute))
		if c := f.claim(r); !c.Needed || c.Job.ID != 3 {
			t.Errorf("it got %+v", c)
		}
		f.receive(answer(2, "queued", 2*time.Minute))
		if j := f.wantState(2, router.Queued); j.Try != 2 {
			t.Errorf("it is at try %d", j.Try)
		}
	}},
	{"an answer holds no job that runs, ended or was decided, and none that was queued since", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3, 4, 5, 6, 7)
		f.receive(inProgress(1, "r"))
		f.receive(completed(2, "r", "success"))
		for id, state := range map[int64]router.JobState{3: router.Ignored, 4: router.Denied, 5: router.Unroutable} {
			f.must(f.Settle(f.ctx(), id, state, "", "no", decision(), T0))
		}
		f.dispatch(6)
		for id, d := range map[int64]router.Delivery{6: queued(6), 7: answer(7, "queued", 0)} {
			if d.ID != "" {
				d.ID = "approved"
			}
			d.ReceivedAt = T0.Add(2 * time.Minute)
			if f.receive(d) {
				t.Errorf("job %d: what was known is taken for news", id)
			}
		}
		for id, state := range map[int64]router.JobState{1: router.Running, 2: router.Completed, 3: router.Ignored, 4: router.Denied, 5: router.Unroutable, 6: router.Dispatched, 7: router.Queued} {
			if f.receive(answer(id, "waiting", time.Minute)) {
				t.Errorf("job %d: the answer changed something", id)
			}
			f.wantState(id, state)
		}
		f.receive(answer(6, "waiting", 3*time.Minute))
		f.wantState(6, router.Held)
	}},
	{"a job that GitHub holds leaves its place under a limit, and waits for none", func(t *testing.T, f *fixture) {
		d := decision()
		d.Limit = &router.Limit{Key: "k", Running: 1}
		for id := int64(1); id <= 3; id++ {
			f.receive(queued(id))
			if _, err := f.Admit(f.ctx(), id, d, T0); err != nil {
				t.Fatal(err)
			}
		}
		f.wantState(2, router.Held)
		f.receive(answer(2, "waiting", time.Minute))
		if j := f.wantState(2, router.Held); !strings.Contains(j.Reason, "approval") {
			t.Errorf("it waits for a place: %s", j.Reason)
		}
		f.receive(answer(1, "waiting", time.Minute))
		f.wantState(1, router.Held)
		f.wantState(2, router.Held)
		f.wantState(3, router.Queued) // the place is its
		f.receive(answer(2, "queued", 2*time.Minute))
		f.wantState(2, router.Queued)
	}},
	{"a second delivery of the same fact changes nothing", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		again := queued(1)
		again.ID = "from a second hook"
		if f.receive(queued(1)) {
			t.Error("the same delivery changed something")
		}
		if f.receive(again) {
			t.Error("the same fact under another ID changed something")
		}
	}},
	{"in_progress makes a job running and ends a row of failures", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		f.must(f.Retry(f.ctx(), 1, T0, router.CauseNomad, "Nomad is away", nil, T0))
		if !f.receive(inProgress(1, "somebody's runner")) {
			t.Error("in_progress changed nothing")
		}
		if j := f.wantState(1, router.Running); j.RunnerName != "somebody's runner" || j.Failures != 0 {
			t.Errorf("got runner %q, %d failures", j.RunnerName, j.Failures)
		}
	}},
	{"a second end of a job changes nothing", func(t *testing.T, f *fixture) {
		f.receive(completed(1, "r", "success"))
		again := completed(1, "another", "failure")
		again.ID = "from a second hook"
		if f.receive(again) {
			t.Error("it changed something")
		}
		if j := f.job(1); j.Conclusion != "success" || j.RunnerName != "r" {
			t.Errorf("got conclusion %q, runner %q", j.Conclusion, j.RunnerName)
		}
	}},
	{"completed before anything else leaves nothing to do", func(t *testing.T, f *fixture) {
		f.receive(completed(1, "", "cancelled"))
		if f.receive(queued(1)) || f.receive(inProgress(1, "r")) {
			t.Error("a delivery that came late changed something")
		}
		if j := f.wantState(1, router.Completed); j.Conclusion != "cancelled" {
			t.Errorf("got conclusion %q, want cancelled", j.Conclusion)
		}
	}},
	{"an ignored job stays ignored", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		f.must(f.Settle(f.ctx(), 1, router.Ignored, "", "out of scope", nil, T0))
		if f.receive(inProgress(1, "GitHub Actions 5")) || f.receive(completed(1, "GitHub Actions 5", "success")) {
			t.Error("a delivery changed an ignored job")
		}
		f.wantState(1, router.Ignored)
	}},
	{"a job that was refused here can still run elsewhere", func(t *testing.T, f *fixture) {
		for i, state := range []router.JobState{router.Denied, router.Unroutable} {
			id := int64(i + 1)
			f.receive(queued(id))
			f.must(f.Settle(f.ctx(), id, state, "", "no", decision(), T0))
			f.receive(inProgress(id, "elsewhere"))
			f.wantState(id, router.Running)
		}
	}},
	{"the same bytes are one delivery, whatever its ID", func(t *testing.T, f *fixture) {
		d := queued(1)
		d.Digest = "the same"
		if !f.receive(d) {
			t.Error("the first is none")
		}
		f.receive(NewDelivery(1, "completed", "completed"))
		f.must(errOf(f.RecordHook(f.ctx(), router.Hook{Kind: router.HookApp}, T0, T0)))
		for i := range 20 {
			d.ID = fmt.Sprint("another ", i)
			sent := []router.SentDelivery{{ID: int64(i), GUID: d.ID, At: T0}}
			f.must(f.Swept(f.ctx(), router.HookSweep{Hook: router.Hook{Kind: router.HookApp}}, sent, T0))
			if f.receive(d) {
				t.Errorf("%s is another", d.ID)
			}
		}
		due, err := f.Redeliveries(f.ctx(), T0.Add(time.Hour), T0, 9)
		f.must(err)
		if len(due) != 0 {
			t.Errorf("redeliveries are due of what arrived: %+v", due)
		}
		d.Digest, d.Job.ID = "another", 2
		if !f.receive(d) {
			t.Error("other bytes are the same")
		}
	}},
	{"a job that GitHub had queued longer ago than it delivers is held until GitHub is asked", func(t *testing.T, f *fixture) {
		for id, age := range map[int64]time.Duration{1: 71 * time.Hour, 2: 73 * time.Hour} {
			d := queued(id)
			d.CreatedAt = T0.Add(-age)
			if !f.receive(d) {
				t.Errorf("job %d is not new", id)
			}
		}
		f.wantState(1, router.Queued)
		if j := f.wantState(2, router.Held); !strings.Contains(j.Reason, "GitHub is asked whether it still queues it") {
			t.Errorf("the reason is %q", j.Reason)
		}
		if due, _, _ := f.Due(f.ctx(), T0.Add(time.Hour), nil, 9); len(due) != 1 {
			t.Errorf("%d jobs are due, want job 1 alone", len(due))
		}
		stale, err := f.Stale(f.ctx(), T0.Add(time.Minute), 10*time.Minute, 9)
		f.must(err)
		if len(stale) != 1 || stale[0].ID != 2 {
			t.Errorf("GitHub is to be asked about %+v, want job 2", stale)
		}
		f.receive(answer(2, "queued", time.Second))
		f.wantState(2, router.Queued)
	}},
	{"an action that nobody knows is an error and leaves no trace", func(t *testing.T, f *fixture) {
		d := NewDelivery(1, "exploded", "queued")
		if _, err := f.Receive(f.ctx(), d); err == nil {
			t.Error("no error")
		}
		wantErr(t, errOf(f.Job(f.ctx(), 1)), router.ErrNotFound)
		d.Action = "queued"
		if !f.receive(d) {
			t.Error("the delivery's ID was kept though it was refused")
		}
	}},
	{"100 senders of one delivery change a job once", func(t *testing.T, f *fixture) {
		var changes atomic.Int32
		atOnce(100, func(int) {
			changed, err := f.Receive(f.ctx(), queued(1))
			if err != nil {
				t.Error(err)
			}
			if changed {
				changes.Add(1)
			}
		})
		if n := changes.Load(); n != 1 {
			t.Errorf("%d deliveries changed something, want 1", n)
		}
	}},
	{"a change that fails spoils no other made at the same time", func(t *testing.T, f *fixture) {
		atOnce(100, func(i int) {
			d := queued(int64(i + 1))
			if i%2 == 1 {
				d.Action = "exploded"
			}
			if _, err := f.Receive(f.ctx(), d); (err == nil) != (i%2 == 0) {
				t.Errorf("job %d: got error %v", d.Job.ID, err)
			}
		})
		counts, err := f.Counts(f.ctx())
		f.must(err)
		wantDiff(t, counts, map[router.JobState]int{router.Queued: 50})
	}},
	{"a caller that has gone changes nothing", func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithCancel(f.ctx())
		cancel()
		wantErr(t, errOf(f.Receive(ctx, queued(1))), context.Canceled)
		wantErr(t, errOf(f.Job(f.ctx(), 1)), router.ErrNotFound)
	}},
	{"a caller that leaves in between is told the truth", func(t *testing.T, f *fixture) {
		atOnce(200, func(i int) {
			ctx, cancel := context.WithCancel(f.ctx())
			defer cancel()
			if i%2 == 0 {
				time.AfterFunc(time.Duration(i)*20*time.Microsecond, cancel)
			}
			_, err := f.Receive(ctx, queued(int64(i+1)))
			_, found := f.Job(f.ctx(), int64(i+1))
			if (err == nil) != (found == nil) {
				t.Errorf("job %d: Receive says %v, Job says %v", i+1, err, found)
			}
		})
	}},
}

// answer returns what GitHub says of a job that has not begun, asked so long after T0.
func answer(id int64, status string, after time.Duration) router.Delivery {
	d := NewDelivery(id, "queued", status)
	d.ID, d.Source, d.ReceivedAt = "", router.SourceGitHub, T0.Add(after)
	return d
}

// anyOrder checks that deliveries may come in any order and more than once.
func anyOrder(t *testing.T, open func(testing.TB) Store) {
	s := open(t)
	var id int64
	rapid.Check(t, func(rt *rapid.T) {
		f := &fixture{Store: s, t: rt}
		stories := [][]router.Delivery{
			{queued(0)},
			{NewDelivery(0, "waiting", "waiting"), NewDelivery(0, "queued", "waiting"), queued(0)},
			{queued(0), NewDelivery(0, "waiting", "waiting")},
			{queued(0), inProgress(0, "r")},
			{queued(0), completed(0, "", "cancelled")},
			{NewDelivery(0, "waiting", "waiting"), queued(0), inProgress(0, "r"), completed(0, "r", "success")},
		}
		story := rapid.SampledFrom(stories).Draw(rt, "story")
		again := rapid.SliceOfN(rapid.SampledFrom(story), 0, 4).Draw(rt, "sent again")
		order := rapid.Permutation(slices.Concat(story, again)).Draw(rt, "order")

		type end struct {
			State              router.JobState
			Runner, Conclusion string
			Due                bool
		}
		play := func(ds []router.Delivery) end {
			id++
			for _, d := range ds {
				d.Job.ID = id
				d.ID = fmt.Sprintf("%d %s", id, d.ID)
				f.receive(d)
			}
			j := f.job(id)
			due, _, err := f.Due(f.ctx(), T0, nil, 1<<20)
			f.must(err)
			return end{j.State, j.RunnerName, j.Conclusion, slices.ContainsFunc(due, func(j router.Job) bool { return j.ID == id })}
		}
		if got, want := play(order), play(story); got != want {
			rt.Fatalf("got %+v, want %+v", got, want)
		}
	})
}
