package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
)

// after returns a moment of the suite's stories.
func after(d time.Duration) time.Time { return T0.Add(d) }

// event returns what Nomad says of a runner that dispatch returned.
func event(r router.Runner, kind router.NomadEventKind, at time.Time, node, text string) router.NomadEvent {
	e := router.NomadEvent{Job: r.NomadJob, At: tokyo, Kind: kind, Time: at, Node: node, Text: text}
	if kind == router.NomadEnded {
		end, _, _ := strings.Cut(text, ":")
		e.End = router.NomadEnd(end)
	}
	return e
}

// saw records events, and returns how the runners are seen then.
func (f *fixture) saw(now time.Time, events ...router.NomadEvent) []router.SeenRunner {
	f.t.Helper()
	seen, err := f.RecordNomadEvents(f.ctx(), events, now)
	f.must(err)
	return seen
}

// live returns the live runners by ID.
func (f *fixture) live() map[string]router.LiveRunner {
	f.t.Helper()
	list, err := f.Live(f.ctx())
	f.must(err)
	byID := map[string]router.LiveRunner{}
	for _, r := range list {
		if _, twice := byID[r.ID]; twice {
			f.t.Fatalf("%s is live twice", r.ID)
		}
		byID[r.ID] = r
	}
	return byID
}

// dispatchWith is dispatch with another decision.
func (f *fixture) dispatchWith(jobID int64, d *router.Decision, now time.Time) router.Runner {
	f.t.Helper()
	r := f.newRunner(jobID)
	f.must(f.Prepare(f.ctx(), r, Token(r.ID), now))
	r.NomadJob, r.NomadAt = r.ID, tokyo
	f.must(f.Dispatched(f.ctx(), r, Token(r.ID), d, now))
	return r
}

var lifeTests = []test{
	{"what Nomad says of a runner is recorded", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		seen := f.saw(after(3*time.Second),
			event(r, router.NomadPlaced, after(time.Second), "node-1", ""),
			event(r, router.NomadStarted, after(2*time.Second), "node-1", ""))
		if len(seen) != 1 || seen[0].ID != r.ID || seen[0].Event.Kind != router.NomadStarted || !seen[0].Needed {
			t.Fatalf("saw %+v, want the runner once, needed, with its last event", seen)
		}
		got := f.wantRunner(1, r.ID, router.RunnerDispatched)
		if !got.PlacedAt.Equal(after(time.Second)) || got.Node != "node-1" || !strings.Contains(got.Reason, "runs on node node-1") {
			t.Errorf("placed at %v on %q: %s", got.PlacedAt, got.Node, got.Reason)
		}
		if j := f.job(1); !strings.Contains(j.Reason, "starts on node node-1") {
			t.Errorf("its job's reason is %q, want the node", j.Reason)
		}
		f.saw(after(4*time.Second), event(r, router.NomadEnded, after(4*time.Second), "node-1", "failed: exit code 7"))
		if got := f.wantRunner(1, r.ID, router.RunnerDispatched); !got.EndedAt.Equal(after(4*time.Second)) || !strings.Contains(got.Reason, "exit code 7") {
			t.Errorf("ended at %v: %s", got.EndedAt, got.Reason)
		}
	}},
	{"Nomad's events change nothing when they come again or late", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		ended := event(r, router.NomadEnded, after(2*time.Second), "node-1", "complete")
		f.saw(after(2*time.Second), ended)
		was := f.wantRunner(1, r.ID, router.RunnerDispatched)
		if was.Node != "node-1" {
			t.Errorf("one that ended on node-1 is on %q", was.Node)
		}
		f.saw(after(9*time.Second), ended, event(r, router.NomadPlaced, after(time.Second), "node-1", ""), event(r, router.NomadStarted, after(time.Second), "node-1", ""))
		if diff := cmp.Diff(was, f.wantRunner(1, r.ID, router.RunnerDispatched)); diff != "" {
			t.Errorf("late events changed it: %s", diff)
		}
	}},
	{"a node's clock that runs ahead places nothing in the future", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		f.saw(T0, event(r, router.NomadPlaced, after(time.Hour), "node-1", ""))
		if got := f.wantRunner(1, r.ID, router.RunnerDispatched); !got.PlacedAt.Equal(T0) {
			t.Errorf("placed at %v, want %v", got.PlacedAt, T0)
		}
	}},
	{"an event can overtake the record of the registration", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.prepare(1)
		if seen := f.saw(T0, router.NomadEvent{Job: r.ID, At: tokyo, Kind: router.NomadPlaced, Time: T0, Node: "node-1"}); len(seen) != 1 {
			t.Errorf("saw %+v, want the runner", seen)
		}
		r = f.dispatch(1) // which changes nothing of what is known already
		if j, r := f.job(1), f.wantRunner(1, r.ID, router.RunnerDispatched); j.Reason != "its runner gha-1-1 starts on node node-1" || r.Reason != "Nomad placed it on node node-1" {
			t.Errorf("the job says %q, the runner %q", j.Reason, r.Reason)
		}
	}},
	{"a node that is disconnected, and comes back, is reported on runner and job", func(t *testing.T, f *fixture) {
		says := func(id int64, runner, job string) {
			t.Helper()
			if r := f.runner(id); !strings.Contains(r.Reason, runner) {
				t.Errorf("the runner says %q, want %q", r.Reason, runner)
			}
			if j := f.job(id); !strings.Contains(j.Reason, job) {
				t.Errorf("the job says %q, want %q", j.Reason, job)
			}
		}
		f.queue(1, 2)
		starts := f.dispatch(1)
		runs, name := f.online(2)
		f.receive(inProgress(2, name))
		for _, r := range []router.Runner{starts, runs} {
			f.saw(T0, event(r, router.NomadStarted, T0, "node-1", ""), event(r, router.NomadUnknown, T0, "node-1", ""))
			says(r.JobID, "its node is disconnected from Nomad", "disconnected from Nomad")
			f.saw(T0, event(r, router.NomadStarted, T0, "node-1", ""))
			says(r.JobID, map[int64]string{1: "its task runs on node node-1", 2: "its node node-1 is connected again"}[r.JobID], map[int64]string{1: "is connected to Nomad again", 2: "runs on " + name}[r.JobID])
		}
	}},
	{"events of others are left out", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		elsewhere := event(r, router.NomadEnded, T0, "node-1", "")
		elsewhere.At.Namespace = "other"
		osaka := event(r, router.NomadEnded, T0, "node-1", "")
		osaka.At.Region = "osaka"
		f.receive(queued(2))
		overtakes := router.NomadEvent{Job: f.prepare(2).ID, At: osaka.At, Kind: router.NomadEnded}
		if seen := f.saw(T0, elsewhere, osaka, overtakes, router.NomadEvent{Job: "gha-9-9", Kind: router.NomadEnded}); len(seen) != 0 {
			t.Errorf("saw %+v, want nothing", seen)
		}
	}},
	{"a runner that was stopped before it had a node has ended", func(t *testing.T, f *fixture) {
		f.queue(1, 2)
		waits, starts := f.dispatch(1), f.dispatch(2)
		f.saw(T0, event(starts, router.NomadPlaced, T0, "node-1", ""), event(waits, router.NomadStopped, T0, "", "purged"), event(starts, router.NomadStopped, T0, "", "stopped"))
		if got := f.wantRunner(1, waits.ID, router.RunnerDispatched); got.EndedAt.IsZero() || got.Reason != "its Nomad job was purged" {
			t.Errorf("the one without a node ended at %v: %s", got.EndedAt, got.Reason)
		}
		if got := f.wantRunner(2, starts.ID, router.RunnerDispatched); !got.EndedAt.IsZero() || !strings.Contains(got.Reason, "stopped") {
			t.Errorf("the one with a node ended at %v (%s); want its allocation's end to be awaited", got.EndedAt, got.Reason)
		}
	}},
	{"a runner is live until it and its Nomad job have ended", func(t *testing.T, f *fixture) {
		r, name := f.onlineNew(1)
		if l := f.live()[r.ID]; !l.Needed || l.State != router.RunnerOnline || l.JobState != router.Dispatched || l.GitHubID != 99 || l.Target != target || l.Serves != 0 {
			t.Errorf("an online runner is live as %+v", l)
		}
		d := inProgress(1, name)
		d.ReceivedAt = after(time.Minute)
		f.receive(d)
		if l := f.live()[r.ID]; l.Needed || l.Serves != 1 || !l.ServesSince.Equal(after(time.Minute)) {
			t.Errorf("a busy runner is live as %+v", l)
		}
		f.saw(T0, event(r, router.NomadEnded, T0, "node-1", "complete"))
		if l, ok := f.live()[r.ID]; !ok || l.EndedAt.IsZero() {
			t.Errorf("a busy runner whose Nomad job ended is live as %+v, %v", l, ok)
		}
		f.receive(completed(1, name, "success"))
		if live := f.live(); len(live) != 0 {
			t.Errorf("nothing is left, but %+v", live)
		}
	}},
	{"a finished runner is live as long as its Nomad job", func(t *testing.T, f *fixture) {
		r, name := f.onlineNew(1)
		f.receive(completed(1, name, "success"))
		if l, ok := f.live()[r.ID]; !ok || l.State != router.RunnerFinished || l.Needed {
			t.Errorf("live as %+v, %v", l, ok)
		}
		f.must(f.Ended(f.ctx(), []string{r.ID, "gha-9-9"}, T0))
		if live := f.live(); len(live) != 0 {
			t.Errorf("nothing is left, but %+v", live)
		}
	}},
	{"what Nomad started again is live again, if it had ended before", func(t *testing.T, f *fixture) {
		r, name := f.onlineNew(1)
		on := []router.NomadJob{{ID: r.NomadJob, At: r.NomadAt, RunnerID: r.ID}, {ID: "gha-9-9", RunnerID: "gha-9-9"}}
		elsewhere := []router.NomadJob{{ID: r.NomadJob, At: router.NomadAt{Namespace: "elsewhere"}, RunnerID: r.ID}}
		revived := func(before time.Time, want int) {
			t.Helper()
			n, err := f.ClearEnded(f.ctx(), on, before, after(time.Minute))
			if _, live := f.live()[r.ID]; err != nil || n != want || live != (want > 0) {
				t.Errorf("revived %d, %v; want %d; live: %v", n, err, want, live)
			}
		}
		f.must(f.Ended(f.ctx(), []string{r.ID}, T0))
		if n, err := f.ClearEnded(f.ctx(), on, after(time.Minute), T0); n != 0 || err != nil {
			t.Errorf("one that is online was revived: %d, %v", n, err)
		}
		f.receive(completed(1, name, "success"))
		revived(T0, 0)
		if n, err := f.ClearEnded(f.ctx(), elsewhere, after(time.Second), T0); n != 0 || err != nil {
			t.Errorf("another's was revived: %d, %v", n, err)
		}
		revived(after(time.Second), 1)
		f.wantRunner(1, r.ID, router.RunnerFinished)
	}},
	{"a busy runner that ended, and whose job is not known to run, is finished", func(t *testing.T, f *fixture) {
		r, name := f.onlineNew(1)
		f.receive(completed(1, "", "success")) // GitHub named no runner,
		f.receive(inProgress(1, name))         // but in a delivery that came late
		f.wantRunner(1, r.ID, router.RunnerBusy)
		f.must(f.Ended(f.ctx(), []string{r.ID}, T0))
		f.wantRunner(1, r.ID, router.RunnerFinished)
	}},
	{"why runners have no node is the reason of their jobs", func(t *testing.T, f *fixture) {
		d := decision()
		d.Fallback = []router.Fallback{{After: router.Duration(5 * time.Minute)}}
		f.queue(1, 2, 3)
		falls, waits, placed := f.dispatchWith(1, d, T0), f.dispatch(2), f.dispatch(3)
		f.saw(T0, event(placed, router.NomadPlaced, T0, "node-1", ""))
		u := router.Unplaced{At: T0, Text: "8 nodes in pool ci: all are full: memory", Pool: "ci", InPool: 8}
		f.must(f.RecordUnplaced(f.ctx(), []string{falls.ID, waits.ID, placed.ID}, u, T0))
		for id, want := range map[int64]string{
			1: "Nomad has no node for its runner: " + u.Text + "; falls back at 2026-03-01T12:05:00Z",
			2: "Nomad has no node for its runner: " + u.Text,
			3: "its runner gha-3-1 starts on node node-1",
		} {
			if j := f.wantState(id, router.Dispatched); j.Reason != want {
				t.Errorf("job %d: %q, want %q", id, j.Reason, want)
			}
			if got := f.runner(id).Unplaced; (got != nil) != (id != 3) || got != nil && got.Text != u.Text {
				t.Errorf("runner of job %d has no node because of %+v", id, got)
			}
		}
		f.saw(T0, event(waits, router.NomadPlaced, T0, "node-1", ""))
		if r := f.runner(2); r.Unplaced != nil {
			t.Errorf("one with a node has none because of %+v", r.Unplaced)
		}
	}},
	{"why a runner has no node may be known before its registration is recorded", func(t *testing.T, f *fixture) {
		f.queue(1)
		r := f.prepare(1)
		f.must(f.RecordUnplaced(f.ctx(), []string{r.ID}, router.Unplaced{At: T0, Text: "all are full"}, T0))
		r.NomadJob, r.NomadAt = r.ID, tokyo
		f.must(f.Dispatched(f.ctx(), r, Token(r.ID), decision(), T0))
		if j := f.wantState(1, router.Dispatched); j.Cause != router.CauseNoNodeFree || j.Reason != "Nomad has no node for its runner: all are full" {
			t.Errorf("the job is %s: %s", j.Cause, j.Reason)
		}
		if r := f.runner(1); r.Reason != "Nomad has no node for it: all are full" {
			t.Errorf("the runner: %s", r.Reason)
		}
	}},
	{"fallbacks come due while a runner waits for a node", func(t *testing.T, f *fixture) {
		d := decision()
		d.Fallback = []router.Fallback{
			{After: router.Duration(time.Minute), Reason: "not for this job"},
			{After: router.Duration(2 * time.Minute)},
			{After: router.Duration(3 * time.Minute)},
		}
		f.queue(1, 2)
		r, placed := f.dispatchWith(1, d, T0), f.dispatchWith(2, d, T0)
		f.saw(T0, event(placed, router.NomadPlaced, T0, "node-1", ""))

		due, next, err := f.FallbacksDue(f.ctx(), after(time.Minute), 10)
		f.must(err)
		if len(due) != 0 || !next.Equal(after(2*time.Minute)) {
			t.Errorf("after a minute %+v are due, the next at %v", due, next)
		}
		due, _, err = f.FallbacksDue(f.ctx(), after(2*time.Minute), 10)
		f.must(err)
		if len(due) != 1 || due[0].Runner.ID != r.ID || due[0].Job.ID != 1 || due[0].Job.Decision == nil {
			t.Fatalf("after two minutes %+v are due, want the runner that waits", due)
		}

		ok, err := f.FallBack(f.ctx(), r.ID, 2, "falls back", after(2*time.Minute))
		if err != nil || !ok {
			t.Fatalf("FallBack = %v, %v", ok, err)
		}
		f.wantRunner(1, r.ID, router.RunnerStopped)
		if j := f.wantState(1, router.Dispatched); j.Fallback != 2 || j.Try != 1 {
			t.Errorf("the job has fallback %d, try %d; want 2, and no other try before Nomad stopped the first", j.Fallback, j.Try)
		}
		if _, err := f.Claim(f.ctx(), Token(r.ID), T0); err == nil {
			t.Error("the runner that gave way may still claim")
		}
		if l := f.live()[r.ID]; !l.Needed || l.State != router.RunnerStopped {
			t.Errorf("it is live as %+v, want it stopped, with a job that waits", l)
		}
		f.must(f.Ended(f.ctx(), []string{r.ID}, T0))
		if l := f.live()[r.ID]; !l.Needed {
			t.Errorf("it is live as %+v, want it so as long as its job waits", l)
		}
		if ok, err := f.Requeue(f.ctx(), r.ID, "is requeued", after(3*time.Minute)); err != nil || !ok {
			t.Fatalf("Requeue = %v, %v", ok, err)
		}
		if j := f.wantState(1, router.Retrying); j.Try != 2 || !j.DueAt.Equal(after(3*time.Minute)) {
			t.Errorf("the job is at try %d, due %v", j.Try, j.DueAt)
		}
		if ok, err := f.Requeue(f.ctx(), r.ID, "is requeued", after(3*time.Minute)); err != nil || ok {
			t.Errorf("Requeue again = %v, %v", ok, err)
		}
		// Counted from the job's first dispatch, as its reason says.
		f.dispatchWith(1, d, after(3*time.Minute))
		if due, _, err := f.FallbacksDue(f.ctx(), after(3*time.Minute), 10); err != nil || len(due) != 1 {
			t.Errorf("then %+v are due, %v; want the last fallback", due, err)
		}
	}},
	{"what went on does not fall back", func(t *testing.T, f *fixture) {
		for id, step := range []func(r router.Runner){
			func(r router.Runner) { f.claim(r) },
			func(r router.Runner) { f.saw(T0, event(r, router.NomadPlaced, T0, "node-1", "")) },
			func(r router.Runner) { f.receive(completed(r.JobID, "", "cancelled")) },
			func(r router.Runner) { f.lost(r.ID, T0, "x", T0) },
		} {
			jobID := int64(id + 1)
			f.receive(queued(jobID))
			r := f.dispatchWith(jobID, decision(), T0)
			step(r)
			was := f.job(jobID)
			if ok, err := f.FallBack(f.ctx(), r.ID, 1, "falls back", T0); err != nil || ok {
				t.Errorf("step %d: FallBack = %v, %v", id, ok, err)
			}
			wantDiff(t, f.job(jobID), was)
		}
		wantErr(t, errOf(f.FallBack(f.ctx(), "gha-9-9", 1, "x", T0)), router.ErrNotFound)
	}},
	{"only the job of a runner that ended is requeued", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		if ok, err := f.Requeue(f.ctx(), r.ID, "x", T0); err != nil || ok {
			t.Errorf("Requeue = %v, %v for a live runner", ok, err)
		}
		wantErr(t, errOf(f.Requeue(f.ctx(), "gha-9-9", "x", T0)), router.ErrNotFound)
	}},
	{"a job has the time limit of its decision", func(t *testing.T, f *fixture) {
		d := decision()
		d.TimeLimit = router.Duration(time.Hour)
		f.receive(queued(1))
		r := f.dispatchWith(1, d, T0)
		f.claim(r)
		f.must(f.Configured(f.ctx(), r.ID, "name", 7, target, T0))
		f.receive(inProgress(1, "name"))
		if l := f.live()[r.ID]; l.TimeLimit != time.Hour {
			t.Errorf("live as %+v", l)
		}
		f.must(f.SetReason(f.ctx(), r.ID, "too long", T0))
		if j, r := f.wantState(1, router.Running), f.wantRunner(1, r.ID, router.RunnerBusy); j.Reason != "too long" || r.Reason != "too long" {
			t.Errorf("job: %q, runner: %q", j.Reason, r.Reason)
		}
		wantErr(t, f.SetReason(f.ctx(), "gha-9-9", "x", T0), router.ErrNotFound)
	}},
	{"Nomad is the source of what it said", func(t *testing.T, f *fixture) {
		r := f.dispatchNew(1)
		f.saw(T0, event(r, router.NomadPlaced, T0, "node-1", ""))
		line, err := f.Timeline(f.ctx(), 1)
		f.must(err)
		last := line[len(line)-1]
		if last.Source != router.SourceNomad || !strings.Contains(fmt.Sprint(last.What), "node-1") {
			t.Errorf("the last of the timeline is %+v", last)
		}
	}},
	{"a runner of an earlier database is taken up", func(t *testing.T, f *fixture) {
		f.queue(1, 2, 3, 4)
		f.dispatch(2)
		f.receive(completed(3, "", "cancelled"))
		f.receive(inProgress(4, "gha-4-1-abc"))
		adopt := func(jobID int64, try int, state router.RunnerState, name string) router.Runner {
			r := router.Runner{JobID: jobID, Try: try, State: state, Name: name, NomadAt: tokyo}
			r.ID = router.Job{ID: jobID, Try: try}.RunnerID()
			if r.NomadJob = r.ID; name == "" {
				r.Name = r.ID
			}
			ok, err := f.Adopt(f.ctx(), r, Token(r.ID), T0)
			if err != nil || !ok {
				t.Fatalf("Adopt(%s) = %v, %v", r.ID, ok, err)
			}
			if ok, err := f.Adopt(f.ctx(), r, Token(r.ID), T0); err != nil || ok {
				t.Errorf("Adopt(%s) again = %v, %v", r.ID, ok, err)
			}
			return r
		}
		// One that waits takes it: its next runner is not another.
		waits := adopt(1, 3, router.RunnerDispatched, "")
		if j := f.wantState(1, router.Queued); j.Try != 3 {
			t.Errorf("the job is at try %d, want 3", j.Try)
		}
		if c := f.claim(waits); !c.Needed || c.Job.ID != 1 {
			t.Errorf("its claim got %+v", c)
		}
		// One that is past it, or has ended, does not.
		old := adopt(2, 2, router.RunnerDispatched, "")
		if j := f.job(2); j.Try != 2 {
			t.Errorf("the job is at try %d, want that of its newest runner", j.Try)
		}
		left := adopt(3, 1, router.RunnerOnline, "gha-3-1-abc")
		busy := adopt(4, 1, router.RunnerBusy, "gha-4-1-abc")
		if l := f.live()[busy.ID]; l.Serves != 4 {
			t.Errorf("the busy one is live as %+v", l)
		}
		list, err := f.Leftovers(f.ctx(), 0)
		f.must(err)
		got := map[string]bool{}
		for _, r := range list {
			got[r.ID] = true
		}
		if want := (map[string]bool{left.ID: true, "gha-2-1": true}); !cmp.Equal(got, want) {
			t.Errorf("left over are %v, want %v", got, want)
		}
		strangers, err := f.UnknownRunners(f.ctx(), []string{old.ID, "gha-9-1", busy.ID, "gha-1-9"})
		if f.must(err); !cmp.Equal(strangers, map[string]bool{"gha-9-1": false, "gha-1-9": true}) {
			t.Errorf("strangers are %v", strangers)
		}
		wantErr(t, errOf(f.Adopt(f.ctx(), router.Runner{ID: "gha-9-1", JobID: 9, Try: 1, State: router.RunnerDispatched, Name: "gha-9-1", NomadJob: "gha-9-1"}, Token("x"), T0)), router.ErrNotFound)
	}},
	{"one that is started again is found on GitHub", func(t *testing.T, f *fixture) {
		f.receive(queued(1))
		r := f.prepare(1)
		r.State, r.Name, r.GitHubID, r.Target = router.RunnerOnline, r.ID+"-abc", 7, target
		f.must(f.RecordRegistered(f.ctx(), r, T0))
		if got := f.wantRunner(1, r.ID, router.RunnerOnline); got.Name != r.Name || got.GitHubID != 7 || got.Target != target {
			t.Errorf("found as %+v", got)
		}
		f.receive(inProgress(1, r.Name))
		f.must(f.RecordRegistered(f.ctx(), r, T0)) // too late to say so
		f.wantRunner(1, r.ID, router.RunnerBusy)
		wantErr(t, f.RecordRegistered(f.ctx(), router.Runner{ID: "gha-9-9"}, T0), router.ErrNotFound)
	}},
}
