package storetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

// Lose has the runner of a job that is dispatched take it, be lost on Nomad, and GitHub say
// that the job failed.
func Lose(t testing.TB, s interface {
	Receive(ctx context.Context, d router.Delivery) (bool, error)
	RecordNomadEvents(ctx context.Context, events []router.NomadEvent, now time.Time) ([]router.SeenRunner, error)
	Job(ctx context.Context, id int64) (router.Job, error)
	Runners(ctx context.Context, jobID int64) ([]router.Runner, error)
}, id int64, loss router.Loss, now time.Time,
) {
	t.Helper()
	j, err := s.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Runners(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	at := list[len(list)-1].NomadAt
	for _, d := range []router.Delivery{inProgress(id, j.RunnerID()), completed(id, j.RunnerID(), "failure")} {
		if d.Job.RunID, d.ReceivedAt = j.RunID, now; d.Action == "completed" && loss != "" {
			end := router.NomadEvent{Job: j.RunnerID(), At: at, Kind: router.NomadEnded, Time: now, Node: "n1", End: router.EndKilled, Loss: loss, Text: "killed"}
			if _, err := s.RecordNomadEvents(t.Context(), []router.NomadEvent{end}, now); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Receive(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
}

// again is a job that is dispatched by a rule that has it run again.
func (f *fixture) again(id int64, times int, when ...string) router.Job {
	f.t.Helper()
	f.receive(queued(id))
	d := decision()
	d.Rerun = &rules.Rerun{When: when, Times: times}
	f.dispatchBy(id, d)
	return f.job(id)
}

func (f *fixture) reruns(now time.Time) (list []router.Rerun) {
	f.t.Helper()
	list, err := f.RerunsDue(f.ctx(), now, 10)
	f.must(err)
	return list
}

var tokyo = router.NomadAt{Namespace: "ci", Region: "tokyo"}

var rerunTests = []test{
	{"a job that failed as it lost its runner is run again when its rule wants that", func(t *testing.T, f *fixture) {
		for id, loss := range map[int64]router.Loss{1: router.LossDrained, 2: router.LossPreempted, 3: ""} {
			f.again(id, 3, "drained", "node_lost")
			Lose(t, f, id, loss, T0)
		}
		wantDiff(t, len(f.reruns(T0)), 0)
		due := f.reruns(T0.Add(time.Minute))
		if len(due) != 1 || due[0].Job.ID != 1 || due[0].Loss != router.LossDrained || due[0].State != router.RerunWaits || !due[0].Asked.IsZero() || due[0].Tries != 0 || due[0].Job.Decision == nil {
			t.Fatalf("due are %+v, want job 1", due)
		}
		wantDiff(t, strings.Count(f.job(1).Reason, "; run again: waits for its run to complete, as its runner's node was drained"), 1)
		for id := int64(2); id <= 3; id++ {
			if r := f.job(id).Reason; strings.Contains(r, "run again") {
				t.Errorf("the reason of job %d is %q", id, r)
			}
		}
		wantDiff(t, f.receive(completed(1, "gha-1-1", "failure")), false)
		wantDiff(t, len(f.reruns(T0.Add(time.Minute))), 1)
	}},

	{"a disconnected runner counts until it is connected again", func(t *testing.T, f *fixture) {
		for id := int64(1); id <= 2; id++ {
			j := f.again(id, 3, "node_lost")
			f.receive(inProgress(id, j.RunnerID()))
			kinds := []router.NomadEventKind{router.NomadStarted, router.NomadUnknown, router.NomadStarted}
			for _, kind := range kinds[:4-id] {
				e := router.NomadEvent{Job: j.RunnerID(), At: tokyo, Kind: kind, Node: "n1"}
				if kind == router.NomadUnknown {
					e.Loss = router.LossNode
				}
				_, err := f.RecordNomadEvents(f.ctx(), []router.NomadEvent{e}, T0)
				f.must(err)
			}
			f.receive(completed(id, j.RunnerID(), "failure"))
		}
		if due := f.reruns(T0.Add(time.Minute)); len(due) != 1 || due[0].Job.ID != 2 {
			t.Errorf("due are %+v, want job 2", due)
		}
	}},

	{"GitHub may say first that a job failed, and not a minute before", func(t *testing.T, f *fixture) {
		for id, late := range map[int64]time.Duration{1: 59 * time.Second, 2: 61 * time.Second} {
			j := f.again(id, 3, "drained")
			f.receive(inProgress(id, j.RunnerID()))
			f.receive(completed(id, j.RunnerID(), "failure"))
			_, err := f.RecordNomadEvents(f.ctx(), []router.NomadEvent{{Job: j.RunnerID(), At: tokyo, Kind: router.NomadEnded, Node: "n1", End: router.EndKilled, Loss: router.LossDrained, Time: T0.Add(late)}}, T0.Add(time.Hour))
			f.must(err)
		}
		if due := f.reruns(T0.Add(2 * time.Hour)); len(due) != 1 || due[0].Job.ID != 1 {
			t.Errorf("due are %+v, want job 1", due)
		}
	}},

	{"what becomes of a rerun is recorded, and said", func(t *testing.T, f *fixture) {
		f.again(1, 1, "drained")
		Lose(t, f, 1, router.LossDrained, T0)
		f.must(f.NoticeStarted(f.ctx(), 1, router.NoticeCheckRun, T0))
		f.must(f.NoticeSent(f.ctx(), 1, 7, router.Completed, f.job(1).Reason, time.Time{}))
		ok, err := f.AskRerun(f.ctx(), 1, "GitHub is asked", T0.Add(time.Hour), T0.Add(time.Minute))
		f.must(err)
		wantDiff(t, ok, true)
		wantDiff(t, len(f.reruns(T0.Add(59*time.Minute))), 0)
		due := f.reruns(T0.Add(time.Hour))
		if len(due) != 1 || due[0].State != router.RerunAsked || !due[0].Asked.Equal(T0.Add(time.Minute)) || due[0].Tries != 1 {
			t.Errorf("due are %+v", due)
		}
		said, err := f.NoticesDue(f.ctx(), "", 0, T0.Add(-time.Hour), T0.Add(time.Hour), 9)
		f.must(err)
		if len(said) != 1 || said[0].Rerun != router.RerunAsked || said[0].Said != "GitHub is asked" || said[0].ID != 7 {
			t.Errorf("the notices due are %+v", said)
		}
		f.must(f.SetRerun(f.ctx(), 1, router.RerunDone, "since attempt 3", time.Time{}, T0.Add(time.Hour)))
		ok, err = f.AskRerun(f.ctx(), 1, "GitHub is asked", T0, T0)
		f.must(err)
		wantDiff(t, ok, false)
		f.must(f.SetRerun(f.ctx(), 1, router.RerunWaits, "waits", T0, T0))
		wantDiff(t, len(f.reruns(T0.Add(24*time.Hour))), 0)
		if r := f.job(1).Reason; !strings.HasSuffix(r, "; run again: since attempt 3") || strings.Count(r, "run again") != 1 {
			t.Errorf("the reason is %q", r)
		}

		// The job of this name in the next attempt.
		f.again(2, 1, "drained")
		Lose(t, f, 2, router.LossDrained, T0)
		wantDiff(t, len(f.reruns(T0.Add(24*time.Hour))), 0)
		wantDiff(t, strings.Contains(f.job(2).Reason, "; run again: no, as it was before, and its rule allows 1"), true)
		fresh, err := f.NoticesDue(f.ctx(), router.NoticeCommitStatus, time.Minute, T0.Add(-time.Hour), T0, 9)
		f.must(err)
		wantDiff(t, len(fresh), 0) // their commit is not known
	}},

	{"the end of the last job of a run that is known hastens a rerun", func(t *testing.T, f *fixture) {
		f.again(1, 1, "drained")
		f.receive(queued(2))
		f.receive(queued(3))
		Lose(t, f, 1, router.LossDrained, T0)
		f.must(f.SetRerun(f.ctx(), 1, router.RerunWaits, "waits", T0.Add(time.Hour), T0))
		f.receive(completed(2, "", "success"))
		wantDiff(t, len(f.reruns(T0.Add(time.Minute))), 0)
		f.receive(completed(3, "", "success"))
		wantDiff(t, len(f.reruns(T0.Add(time.Minute))), 1)
	}},

	{"a clock that is set back leaves an answer its minute", func(t *testing.T, f *fixture) {
		f.again(1, 1, "drained")
		Lose(t, f, 1, router.LossDrained, T0)
		_, err := f.AskRerun(f.ctx(), 1, "GitHub is asked", T0.Add(time.Hour), T0)
		f.must(err)
		_, err = f.Rewind(f.ctx(), T0.Add(-time.Hour))
		f.must(err)
		wantDiff(t, len(f.reruns(T0.Add(-time.Hour))), 0)
		wantDiff(t, len(f.reruns(T0.Add(time.Minute-time.Hour))), 1)
	}},
}
