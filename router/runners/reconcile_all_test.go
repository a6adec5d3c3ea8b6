package runners

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/intake"
	"switchyard/router/telemetry"
)

// What act needs of the three sides, where GitHub says that every runner it
// knows is busy; or, in allWaiting, idle, as each job waits for an approval.
type (
	allStore struct{ server }
	server   interface {
		Store
		intake.Store
	}
	allNomad struct {
		router.Nomad
		stopped int
		alloc   string // the status of the runner's allocation; "": it has none
	}
	allBusy    struct{ router.GitHub }
	allWaiting struct{ allBusy }
)

func (allStore) Stopped(context.Context, router.Runner, string, time.Time) (bool, error) {
	return true, nil
}
func (allStore) Lost(context.Context, router.Runner, time.Time, router.Cause, string, time.Time) (bool, error) {
	return true, nil
}
func (allStore) Requeue(context.Context, string, string, time.Time) (bool, error) { return true, nil }
func (allStore) Ended(context.Context, []string, time.Time) error                 { return nil }
func (allStore) Job(_ context.Context, id int64) (router.Job, error)              { return router.Job{ID: id}, nil }
func (allStore) Asked(context.Context, int64, time.Time) error                    { return nil }
func (allStore) Receive(_ context.Context, d router.Delivery) (bool, error)       { return d.Waits(), nil }
func (allStore) RecordNomadEvents(context.Context, []router.NomadEvent, time.Time) ([]router.SeenRunner, error) {
	return nil, nil
}
func (allStore) SetReason(context.Context, string, string, time.Time) error { return nil }

func (n *allNomad) Stop(context.Context, router.Runner) error          { n.stopped++; return nil }
func (n *allNomad) Ended(context.Context, router.Runner) (bool, error) { return true, nil }
func (n *allNomad) End(context.Context, router.Runner) (router.NomadEvent, error) {
	return router.NomadEvent{}, router.ErrNotFound
}
func (n *allNomad) Allocation(context.Context, router.Runner) (router.Allocation, error) {
	if n.alloc == "" {
		return router.Allocation{}, router.ErrNotFound
	}
	return router.Allocation{Status: n.alloc, Desired: "run"}, nil
}

func (allBusy) RemoveRunner(context.Context, router.Target, int64) error { return router.ErrBusy }
func (allBusy) Runner(_ context.Context, _ router.Target, name string) (router.GitHubRunner, error) {
	return router.GitHubRunner{ID: 7, Name: name, Online: true, Busy: true}, nil
}
func (allBusy) Job(_ context.Context, repo router.Repo, id int64) (router.Delivery, error) {
	return router.Delivery{Action: "queued", Status: "queued", Job: router.Job{ID: id, Repo: repo}}, nil
}

func (allWaiting) Runner(_ context.Context, _ router.Target, name string) (router.GitHubRunner, error) {
	return router.GitHubRunner{ID: 7, Name: name, Online: true}, nil
}
func (allWaiting) Job(_ context.Context, repo router.Repo, id int64) (router.Delivery, error) {
	return router.Delivery{Action: "queued", Status: "waiting", Job: router.Job{ID: id, Repo: repo}}, nil
}

// In all ways in which a runner, its job, its Nomad job and GitHub can stand to
// each other: one that GitHub calls busy, or that brings its own registration and
// runs, is stopped at its time limit only, one whose job GitHub has waiting is
// left over and its job gets no other, and none is left where it is for ever.
func TestEveryCombination(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	nomad := &allNomad{}
	log, clock := telemetry.NewLog(slog.New(slog.DiscardHandler), func() time.Time { return now }), func() time.Time { return now }
	metrics, due, leftover := telemetry.NewMetrics(), router.NewHint(), router.NewJobHint()
	asker := intake.New(intake.Intake{Store: allStore{}, GitHub: allBusy{}, Log: log, Metrics: metrics, Clock: router.NewClock(clock), Now: clock, Due: due, Leftover: leftover})
	rs := New(&Runners{
		Store: allStore{}, Nomad: nomad, GitHub: allBusy{}, Intake: asker, Log: log, Metrics: metrics,
		Backoff: &router.Backoff{Now: clock, Rand: func() float64 { return 0 }}, Now: clock, Due: due, Leftover: leftover, Compare: make(router.TimeHint, 1),
		Idle: 10 * time.Minute, Doubt: 2 * time.Minute, Sweep: 5 * time.Minute,
	})
	longest := 10 * time.Hour // of the time limits below
	n := 0
	each := func(r router.LiveRunner, on *router.NomadJob) {
		n++
		as := func() string { return fmt.Sprintf("%+v on %+v", r, on) }
		what, why, again := rs.policy.mend(r, on, "", now)
		registered, known := r.NomadJob != "" || on != nil, r.OnGitHub() || r.State == router.RunnerBusy
		ended := !r.EndedAt.IsZero() || on != nil && on.Status == "dead"
		if r.Own && on != nil {
			ended = on.Status == "dead" // else Nomad starts another allocation
		}

		nomad.alloc = ""
		if r.Own && on != nil && on.Status == "running" {
			nomad.alloc = "running"
		}
		if what == askRunner || what == askLost {
			rs.GitHub, asker.GitHub, nomad.stopped = allWaiting{}, allWaiting{}, 0
			leftover.Take()
			err := rs.reconciler.act(t.Context(), r, what, why)
			left := leftover.Take()
			if asked := r.Needed && (what == askLost || r.Target != router.Target{}); asked && (err != nil || nomad.stopped > 0 || !slices.Contains(left, r.JobID)) {
				t.Fatalf("%q of one whose job waits for an approval = %v, stopped %d, left over %v: %s", what, err, nomad.stopped, left, as())
			}
			rs.GitHub, asker.GitHub = allBusy{}, allBusy{}
		}
		nomad.stopped = 0
		_ = rs.reconciler.act(t.Context(), r, what, why)
		if late := what == stopRunner; nomad.stopped > 0 && known && !late {
			t.Fatalf("a busy runner is stopped by %q: %s", what, as())
		} else if nomad.stopped > 0 && nomad.alloc == "running" && !late {
			t.Fatalf("a runner that may have a job is stopped by %q: %s", what, as())
		} else if late && (r.State != router.RunnerBusy || r.Serves == 0 || r.TimeLimit == 0 || now.Sub(r.ServesSince) < r.TimeLimit || ended) {
			t.Fatalf("a runner is stopped that is not past a limit: %s", as())
		}

		if what != nothing {
			return
		}
		for waits := 0; !again.IsZero(); waits++ {
			when := again
			if what, _, again = rs.policy.mend(r, on, "", when); what != nothing {
				return
			}
			if waits == 3 || when.After(now.Add(longest)) {
				t.Fatalf("at %v there is nothing to do still: %s", when, as())
			}
		}
		switch {
		case r.State == router.RunnerDispatched && (!registered || !r.Needed): // the worker's, or leftovers'
		case r.State == router.RunnerBusy && !ended: // GitHub's word ends it
		case r.Own && !r.State.Final() && (!registered || on != nil && on.Status != "dead"): // the worker's, or Nomad's word ends it
		case r.Own && (r.State == router.RunnerFinished || r.State == router.RunnerLost) && on != nil && on.Status != "dead": // likewise
		case r.State.Final() && !r.EndedAt.IsZero() && !(r.Needed && r.JobState == router.Dispatched): // done with
		default:
			t.Fatalf("it is left for ever: %s", as())
		}
	}

	jobs := []*router.NomadJob{nil, {Status: "pending", Waiting: true}, {Status: "pending"}, {Status: "running"}, {Status: "dead"}}
	ago := []time.Duration{0, time.Second, 90 * time.Second, time.Hour}
	at := func(d time.Duration) time.Time {
		if d == 0 {
			return time.Time{}
		}
		return now.Add(-d)
	}
	for _, state := range router.RunnerStates {
		for _, on := range jobs {
			for _, nomadJob := range []string{"", "gha-1-1"} {
				for _, since := range ago[1:] {
					for _, placed := range ago {
						for _, end := range ago {
							for _, needed := range []bool{false, true} {
								for _, jobState := range []router.JobState{router.Queued, router.Dispatched} {
									for _, github := range []router.Runner{{}, {GitHubID: 7, Target: router.Target{Owner: "acme"}}, {Target: router.Target{Owner: "acme"}}} {
										for _, serves := range []time.Duration{-1, 0, time.Minute, longest} {
											r := router.LiveRunner{Runner: router.Runner{
												ID: "gha-1-1", JobID: 1, Try: 1, Name: "gha-1-1", State: state, NomadJob: nomadJob,
												StateAt: at(since), PlacedAt: at(placed), EndedAt: at(end), GitHubID: github.GitHubID, Target: github.Target,
											}, Needed: needed, JobState: jobState}
											if serves >= 0 {
												r.Serves, r.ServesSince, r.TimeLimit = 1, at(since), serves
											}
											if state != router.RunnerBusy && serves >= 0 {
												continue // it serves none
											}
											each(r, on)
											if r.Own = true; github == (router.Runner{}) { // it never claims
												each(r, on)
											}
										}
									}
								}
							}
						}
					}
				}
			}
		}
	}
	t.Log(n, "combinations")
}

type noneKnown struct{ router.GitHub }

func (noneKnown) Runner(context.Context, router.Target, string) (router.GitHubRunner, error) {
	return router.GitHubRunner{}, router.ErrNotFound
}

// One that is being given its configuration, or registers itself by a token,
// can have a job a moment after GitHub does not know it yet.
func TestARunnerThatMayBeAboutToRegisterIsNotStoppedYet(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, r := range []router.Runner{
		{ID: "gha-1-1", NomadJob: "gha-1-1", State: router.RunnerClaimed, StateAt: now},
		{ID: "gha-1-1", NomadJob: "gha-1-1", State: router.RunnerOnline, StateAt: now, Target: router.Target{Owner: "acme"}},
	} {
		nomad, at := &allNomad{}, now.Add(time.Minute)
		clock := func() time.Time { return at }
		rs := New(&Runners{
			Store: allStore{}, Nomad: nomad, GitHub: noneKnown{}, Log: telemetry.NewLog(slog.New(slog.DiscardHandler), clock),
			Now: clock, Due: router.NewHint(), Doubt: 2 * time.Minute,
		})
		var later *router.RetryAtError
		if err := rs.Retire(t.Context(), r, "x"); !errors.As(err, &later) || !later.At.Equal(now.Add(2*time.Minute)) || nomad.stopped != 0 {
			t.Errorf("Retire of one that is %s = %v, stopped %d; want it tried again", r.State, err, nomad.stopped)
		}
		at = now.Add(2 * time.Minute)
		if err := rs.Retire(t.Context(), r, "x"); err != nil || nomad.stopped != 1 {
			t.Errorf("Retire of one that is %s later = %v, stopped %d; want it stopped", r.State, err, nomad.stopped)
		}
	}
}

// Whoever calls a Nomad job as ours is called, elsewhere, hides nothing of ours.
func TestAListingIsReadByNamespaceAndRegion(t *testing.T) {
	c := &policy{doubt: 2 * time.Minute}
	r := router.LiveRunner{Runner: router.Runner{ID: "gha-1-1", NomadJob: "gha-1-1", NomadAt: router.NomadAt{Namespace: "ci"}, State: router.RunnerBusy}}
	ours := router.NomadJob{ID: "gha-1-1", RunnerID: "gha-1-1", At: router.NomadAt{Namespace: "ci"}, Status: "dead"}
	other := router.NomadJob{ID: "gha-1-1", RunnerID: "gha-1-1", At: router.NomadAt{Namespace: "elsewhere"}, Status: "running"}
	third := router.NomadJob{ID: "gha-1-1", RunnerID: "gha-1-1", At: router.NomadAt{Namespace: "ci", Region: "tokyo"}, Status: "running"}
	for _, list := range [][]router.NomadJob{{ours, other, third}, {third, other, ours}} {
		todo, _ := c.compare([]router.LiveRunner{r}, &listing{map[string]bool{"": true, "tokyo": true}, list}, time.Now())
		if len(todo) != 1 || todo[0].what != recordEnd {
			t.Errorf("compare says %+v, want that its end is recorded", todo)
		}
	}
}

// Nothing is done about a runner in a region that could not be listed.
func TestARunnerWhoseRegionIsNotListedIsLeftAlone(t *testing.T) {
	c := &policy{doubt: 2 * time.Minute}
	r := router.LiveRunner{Runner: router.Runner{ID: "gha-1-1", NomadJob: "gha-1-1", NomadAt: router.NomadAt{Namespace: "ci", Region: "tokyo"}, State: router.RunnerBusy}}
	if todo, _ := c.compare([]router.LiveRunner{r}, &listing{regions: map[string]bool{"": true}}, time.Now()); len(todo) != 0 {
		t.Errorf("compare says %+v, want nothing", todo)
	}
	if todo, _ := c.compare([]router.LiveRunner{r}, &listing{regions: map[string]bool{"": true, "tokyo": true}}, time.Now()); len(todo) != 1 || todo[0].what != confirmEnd {
		t.Errorf("compare says %+v, want that Nomad is asked about it", todo)
	}
}

// Orphans stay known while their region cannot be listed.
func TestAListingReplacesTheOrphansOfItsRegions(t *testing.T) {
	var o orphans
	in := func(region string) router.NomadJob {
		return router.NomadJob{ID: "gha-7-2", At: router.NomadAt{Region: region}}
	}
	o.set(map[int64][]router.NomadJob{7: {in("")}, 8: {in("tokyo")}}, map[string]bool{"": true, "tokyo": true})
	o.set(map[int64][]router.NomadJob{9: {in("")}}, map[string]bool{"": true})
	if len(o.jobs) != 2 || o.jobs[8] == nil || o.jobs[9] == nil {
		t.Errorf("orphans of %v, want those of 8 and 9", o.jobs)
	}
}
