package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

// A crashing process ends at its nth step, counted over the writes of the
// store and the calls that change something on Nomad and GitHub: before the step takes effect, or after it took
// effect but before anyone hears of it. From then on nothing of it works.
type crash struct {
	mu    sync.Mutex
	left  int
	after bool
	dead  bool
}

var errCrashed = errors.New("the process is gone")

func (c *crash) step(do func() error) error {
	c.mu.Lock()
	c.left--
	now := c.left == 0
	dead := c.dead
	c.dead = c.dead || now
	c.mu.Unlock()
	switch {
	case dead, now && !c.after:
		return errCrashed
	case now:
		_ = do()
		return errCrashed
	}
	return do()
}

type crashingStore struct {
	Store
	*crash
}

func (s crashingStore) Receive(ctx context.Context, d router.Delivery) (changed bool, err error) {
	if d.ID == "" && !s.gone() { // GitHub's answer to the first sync, which may come between any two steps
		return s.Store.Receive(ctx, d)
	}
	err = s.step(func() error { changed, err = s.Store.Receive(ctx, d); return err })
	return changed, err
}

func (s crashingStore) Prepare(ctx context.Context, r router.Runner, h [32]byte, now time.Time) error {
	return s.step(func() error { return s.Store.Prepare(ctx, r, h, now) })
}

func (s crashingStore) Dispatched(ctx context.Context, r router.Runner, h [32]byte, d *router.Decision, now time.Time) error {
	return s.step(func() error { return s.Store.Dispatched(ctx, r, h, d, now) })
}

func (s crashingStore) Retry(ctx context.Context, id int64, at time.Time, cause router.Cause, reason string, d *router.Decision, now time.Time) error {
	return s.step(func() error { return s.Store.Retry(ctx, id, at, cause, reason, d, now) })
}

func (s crashingStore) Claim(ctx context.Context, h [32]byte, now time.Time) (c router.Claimed, err error) {
	err = s.step(func() error { c, err = s.Store.Claim(ctx, h, now); return err })
	return c, err
}

func (s crashingStore) Configured(ctx context.Context, id, name string, gitHubID int64, at router.Target, now time.Time) error {
	return s.step(func() error { return s.Store.Configured(ctx, id, name, gitHubID, at, now) })
}

func (s crashingStore) Online(ctx context.Context, id string, now time.Time) error {
	return s.step(func() error { return s.Store.Online(ctx, id, now) })
}

func (s crashingStore) Lost(ctx context.Context, r router.Runner, at time.Time, cause router.Cause, reason string, now time.Time) (lost bool, err error) {
	err = s.step(func() error { lost, err = s.Store.Lost(ctx, r, at, cause, reason, now); return err })
	return lost, err
}

func (s crashingStore) Reuse(ctx context.Context, id string, now time.Time) (jobID int64, err error) {
	err = s.step(func() error { jobID, err = s.Store.Reuse(ctx, id, now); return err })
	return jobID, err
}

func (s crashingStore) Stopped(ctx context.Context, r router.Runner, reason string, now time.Time) (stopped bool, err error) {
	err = s.step(func() error { stopped, err = s.Store.Stopped(ctx, r, reason, now); return err })
	return stopped, err
}

type crashingHub struct {
	*hub
	*crash
}

func (h crashingHub) RunnerConfig(ctx context.Context, r router.ConfigRequest) (c router.RunnerConfig, err error) {
	err = h.step(func() error { c, err = h.hub.RunnerConfig(ctx, r); return err })
	return c, err
}

func (h crashingHub) RemoveRunner(ctx context.Context, t router.Target, id int64) error {
	return h.step(func() error { return h.hub.RemoveRunner(ctx, t, id) })
}

type crashingNomad struct {
	router.Nomad
	*crash
}

func (n crashingNomad) Start(ctx context.Context, r router.StartRequest) (s router.Started, err error) {
	err = n.step(func() error { s, err = n.Nomad.Start(ctx, r); return err })
	return s, err
}

func (n crashingNomad) Stop(ctx context.Context, r router.Runner) error {
	return n.step(func() error { return n.Nomad.Stop(ctx, r) })
}

// Wherever the process ends between a delivery and a running runner, the next
// one brings the job there, with one runner that holds a configuration.
func TestNoCrashLosesAJobOrStartsTwoRunners(t *testing.T) {
	t.Parallel()
	const claim, config, configured, online = 5, 6, 7, 8 // after receive, prepare, start and dispatched
	for n := 1; n <= online; n++ {
		for _, after := range []bool{false, true} {
			virtual(t, fmt.Sprintf("step %d, after=%v", n, after), func(t *testing.T) {
				st, nomad, h := openStore(t), &cluster{}, &hub{}
				d := delivery(1, "queued", "self-hosted", "linux")

				c := &crash{left: n, after: after}
				first := start(t, crashingStore{st, c}, nomad, h, func(cfg *server.Config) {
					cfg.Nomad, cfg.GitHub = crashingNomad{nomad, c}, crashingHub{h, c}
					cfg.Grace = time.Millisecond
				})
				acknowledged := first.Receive(t.Context(), d) == nil
				answered := false
				for deadline := time.Now().Add(time.Minute); !c.gone() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
					if r, ok := nomad.job("gha-1-1"); ok && !answered {
						status, body := first.Claim(r.ClaimToken)
						answered = status == http.StatusOK && body != ""
					}
				}
				if !c.gone() {
					t.Fatalf("the process never came to step %d", n)
				}
				first.Stop()

				second := start(t, st, nomad, h, func(cfg *server.Config) {
					cfg.Doubt = time.Millisecond // the runner does not show itself,
					if n == online {
						cfg.Doubt = time.Hour // or could still
					}
				})
				if !acknowledged { // GitHub shows it as failed; someone redelivers it
					second.deliver(d)
				}
				if !answered {
					// Either the runner that is there can still claim, or
					// there is a next one that can.
					deadline := time.Now().Add(time.Minute)
					for try := 1; !answered; {
						if time.Now().After(deadline) {
							j, _ := st.Job(t.Context(), 1)
							t.Fatalf("no runner was configured; job is %s, try %d: %s", j.State, j.Try, j.Reason)
						}
						r, ok := nomad.job(fmt.Sprintf("gha-1-%d", try))
						if !ok {
							time.Sleep(time.Millisecond)
							continue
						}
						status, body := second.Claim(r.ClaimToken)
						answered = status == http.StatusOK && body != ""
						if status == http.StatusGone {
							try++
						}
					}
				}
				routertest.AwaitJob(t, st, 1, func(j router.Job) bool { return j.State == router.Dispatched || j.State == router.Retrying })
				want := 1
				if n == config || n == configured || n == claim && after { // the token was spent: its runner is lost, and replaced
					want = 2
				}
				eventually(t, fmt.Sprintf("Nomad has %d jobs", want), func() bool { return nomad.count() >= want })
				time.Sleep(5 * time.Second) // of virtual time, in which another would be started
				if got := nomad.count(); got != want {
					t.Errorf("Nomad has %d jobs, want %d", got, want)
				}
			})
		}
	}
}

func (c *crash) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// Wherever the process ends between the news that no job needs a runner and its
// end, the next one ends it; or it serves the job that needs one.
func TestNoCrashLeavesARunnerIdle(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		online       bool // else its allocation waits
		needed       bool // another job waits without a runner
		steps        int
		wantNomadJob int
	}{
		{"one that has not claimed", false, false, 4, 1}, // receive, reuse, stopped, stop
		{"one that is online", true, false, 5, 1},        // receive, reuse, remove, stop, stopped
		{"one that can be used again", true, true, 2, 2}, // receive, reuse
	} {
		for n := 1; n <= tc.steps; n++ {
			for _, after := range []bool{false, true} {
				virtual(t, fmt.Sprintf("%s, step %d, after=%v", tc.name, n, after), func(t *testing.T) {
					st, nomad, h := openStore(t), &cluster{}, &hub{}
					before := start(t, st, nomad, h)
					if tc.online {
						before.online(1)
					} else {
						before.dispatch(1)
					}
					if tc.needed {
						before.dispatch(2)
					}
					before.Stop()
					if tc.needed {
						nomad.end("gha-2-1")
						must(t, errOf(st.Lost(t.Context(), router.Runner{ID: "gha-2-1"}, time.Now().Add(time.Hour), router.CauseRunner, "its node died", time.Now())))
					}

					c := &crash{left: n, after: after}
					first := start(t, crashingStore{st, c}, nomad, h, func(cfg *server.Config) {
						cfg.Nomad, cfg.GitHub = crashingNomad{nomad, c}, crashingHub{h, c}
						cfg.Grace = time.Millisecond
					})
					d := taken(1, "in_progress", "another")
					acknowledged := first.Receive(t.Context(), d) == nil
					eventually(t, fmt.Sprintf("step %d", n), c.gone)
					first.Stop()

					second := start(t, st, nomad, h, func(cfg *server.Config) { cfg.Doubt = time.Second }) // Nomad's word may come first
					if !acknowledged {
						second.deliver(d)
					}
					if tc.needed {
						second.await(2, in(router.Dispatched))
						if !runnerIn(t, st, 2, "gha-1-1", router.RunnerOnline)() || nomad.ended("gha-1-1") {
							t.Error("the runner is not online for job 2")
						}
					} else {
						eventually(t, "its Nomad job is stopped", func() bool { return nomad.ended("gha-1-1") })
						stopped, lost := runnerIn(t, st, 1, "gha-1-1", router.RunnerStopped), runnerIn(t, st, 1, "gha-1-1", router.RunnerLost)
						eventually(t, "the database has its end", func() bool { return stopped() || lost() }) // by Nomad's word, that is lost
					}
					if got := nomad.count(); got != tc.wantNomadJob {
						t.Errorf("Nomad has %d jobs, want %d", got, tc.wantNomadJob)
					}
					if tc.online && !tc.needed && len(h.lost()) == 0 {
						t.Error("GitHub still has the runner")
					}
				})
			}
		}
	}
}

// A runner that claims for another job than its own is that one's, wherever the
// process ends.
func TestNoCrashLosesAJobThatTookOverARunner(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 4; n++ { // claim, config, configured, online
		for _, after := range []bool{false, true} {
			virtual(t, fmt.Sprintf("step %d, after=%v", n, after), func(t *testing.T) {
				st, nomad, h := openStore(t), &cluster{}, &hub{}
				before := start(t, st, nomad, h)
				for id := int64(1); id <= 2; id++ {
					before.dispatch(id)
				}
				before.Stop()
				must(t, errOf(st.Receive(t.Context(), taken(1, "in_progress", "another"))))
				c := &crash{left: 1 << 30, after: after}
				first := start(t, claimsFirst{crashingStore{st, c}}, nomad, h, slow, func(cfg *server.Config) {
					cfg.Nomad, cfg.GitHub = crashingNomad{nomad, c}, crashingHub{h, c}
					cfg.Grace = time.Millisecond
				})
				c.in(n)
				got, _ := nomad.job("gha-1-1")
				first.Claim(got.ClaimToken)
				eventually(t, fmt.Sprintf("step %d", n), c.gone)
				first.Stop()

				second := start(t, st, nomad, h, func(cfg *server.Config) { cfg.Doubt = time.Millisecond })
				eventually(t, "job 2 has a runner that can serve it", func() bool {
					for try := 1; try <= 2; try++ {
						if r, ok := nomad.job(fmt.Sprintf("gha-2-%d", try)); ok && !nomad.ended(r.Runner.ID) {
							second.Claim(r.ClaimToken)
						}
					}
					j, err := st.Job(t.Context(), 2)
					must(t, err)
					list, err := st.Runners(t.Context(), 2)
					must(t, err)
					return slices.ContainsFunc(list, func(r router.Runner) bool {
						return r.Try == j.Try && r.State == router.RunnerOnline && j.State == router.Dispatched
					})
				})
			})
		}
	}
}

// claimsFirst does not see leftovers, so that the claim comes first.
type claimsFirst struct{ crashingStore }

func (claimsFirst) Leftovers(context.Context, int64) ([]router.Runner, error) { return nil, nil }

// in makes the process end at its nth step from now.
func (c *crash) in(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = n
}
