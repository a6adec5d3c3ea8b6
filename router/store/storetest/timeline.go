package storetest

import (
	"testing"
	"time"

	"switchyard/router"
)

var timelineTests = []test{
	{"a job's timeline has each change of it and of its runner, with its source", func(t *testing.T, f *fixture) {
		r, name := f.onlineNew(1)
		busy := inProgress(1, name)
		busy.ReceivedAt = T0.Add(time.Second)
		f.receive(busy)
		done := completed(1, name, "success")
		done.ID, done.Source, done.ReceivedAt = "", router.SourceGitHub, T0.Add(time.Minute)
		f.receive(done)
		f.receive(done) // GitHub says the same again

		type line struct{ Runner, Source, State string }
		var got []line
		events, err := f.Timeline(f.ctx(), 1)
		f.must(err)
		for _, e := range events {
			if e.What == "" {
				t.Errorf("%+v says nothing", e)
			}
			got = append(got, line{e.RunnerID, string(e.Source), e.State})
		}
		wantDiff(t, got, []line{
			{"", "webhook", "queued"},
			{r.ID, "router", "dispatched"},
			{r.ID, "router", "dispatched"}, // Nomad has it
			{"", "router", "dispatched"},
			{r.ID, "runner", "claimed"},
			{r.ID, "router", "claimed"}, // GitHub knows it
			{"", "router", "dispatched"},
			{r.ID, "router", "online"},
			{"", "webhook", "running"},
			{r.ID, "webhook", "busy"},
			{"", "github", "completed"},
			{r.ID, "github", "finished"},
		})
		j := f.job(1)
		wantDiff(t, []time.Time{j.DispatchedAt, j.RunningAt, j.CompletedAt}, []time.Time{T0, T0.Add(time.Second), T0.Add(time.Minute)})
		if r := f.wantRunner(1, r.ID, router.RunnerFinished); !r.StateAt.Equal(T0.Add(time.Minute)) || !r.CreatedAt.Equal(T0) {
			t.Errorf("the runner has its state since %s and was made at %s", r.StateAt, r.CreatedAt)
		}
	}},
	{"a mark keeps its last value", func(t *testing.T, f *fixture) {
		for _, want := range []string{"", "12", "13"} {
			if want != "" {
				f.must(f.SetMark(f.ctx(), "nomad", want))
			}
			got, err := f.Mark(f.ctx(), "nomad")
			f.must(err)
			wantDiff(t, got, want)
		}
	}},
}
