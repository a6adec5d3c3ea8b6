package router

import (
	"testing"
	"time"
)

func queued(n int, lasts, starts time.Duration) (l LimitQueue) {
	t0 := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for id := range int64(4) {
		l.Held = append(l.Held, HeldJob{ID: id + 1, Repo: RepoName{Name: "web"}, Urgency: NoUrgency, ReceivedAt: t0.Add(time.Duration(id) * time.Second)})
	}
	for range n {
		l.Ran = append(l.Ran, RanJob{Started: starts, Ended: lasts})
	}
	l.Placed = []PlacedJob{{Repo: RepoName{Name: "web"}, Since: t0}, {Repo: RepoName{Name: "web"}, Since: t0.Add(4 * time.Minute)}}
	return l
}

func TestAnEstimateIsExactIfAllJobsLastEquallyLong(t *testing.T) {
	l := queued(EstimateJobs, 10*time.Minute, time.Minute)
	now := l.Placed[1].Since.Add(time.Minute)
	for before, want := range []time.Duration{6 * time.Minute, 10 * time.Minute, 16 * time.Minute, 20 * time.Minute} {
		e, ok := l.Estimate(before, now)
		if at := now.Add(want); !ok || !e.Soonest.Equal(at) || !e.Likely.Equal(at) || !e.Latest.Equal(at) || e.Jobs != EstimateJobs {
			t.Errorf("after %d others: %+v, want %v", before, e, at)
		}
	}
}

func TestAnEstimateSaysHowFarItSpreads(t *testing.T) {
	l := queued(EstimateJobs, 10*time.Minute, time.Minute)
	for i := range l.Ran {
		l.Ran[i].Ended = time.Duration(i+2) * 10 * time.Minute
	}
	now := l.Placed[1].Since
	e, ok := l.Estimate(3, now)
	if !ok || !e.Soonest.After(now) || e.Likely.Sub(e.Soonest) < 10*time.Minute || e.Latest.Sub(e.Likely) < 10*time.Minute {
		t.Errorf("jobs that last from 20 minutes to 3 hours start at %+v", e)
	}
	if again, _ := l.Estimate(3, now); again != e {
		t.Errorf("the same queue is estimated as %+v, and then as %+v", e, again)
	}
	// A job that has run for longer than any before it says nothing of when it ends.
	l.Placed = l.Placed[:1]
	if e, _ := l.Estimate(0, now.Add(100*time.Hour)); !e.Likely.After(now.Add(100 * time.Hour)) {
		t.Errorf("after a job that does not end: %+v", e)
	}
}

func TestWithFewEndedJobsThereIsNoEstimate(t *testing.T) {
	l := queued(EstimateJobs-1, time.Minute, time.Second)
	if e, ok := l.Estimate(0, time.Now()); ok {
		t.Errorf("%d jobs are enough for %+v", len(l.Ran), e)
	}
}

func TestAPlaceThatTakesTooMuchWorkIsNotTold(t *testing.T) {
	var l LimitQueue
	for id := range int64(20_000) {
		l.Held = append(l.Held, HeldJob{ID: id, Repo: RepoName{Name: string(rune(id))}, Urgency: int(id % 101), ReceivedAt: time.UnixMilli(id)})
	}
	if n, ok := l.Before(100); !ok || n != 0 {
		t.Errorf("the most urgent job has %d before it, %t", n, ok)
	}
	if n, ok := l.Before(0); ok {
		t.Errorf("the last has %d before it, of 20,000 repositories", n)
	}
	l.More = true
	if _, ok := l.Before(100); ok {
		t.Error("a place among more jobs than were read is known")
	}
}
