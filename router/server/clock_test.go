package server_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/server"
)

// A wallClock is one that people set. Like the machine's, its differences are those of
// what it shows, as it has no reading of the time that passes.
type wallClock struct{ ahead atomic.Int64 }

func (c *wallClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())).Round(0) }

func (c *wallClock) set(by time.Duration) { c.ahead.Add(int64(by)) }

// A running job is not stopped at its time limit because the clock was set: GitHub's
// own must say that it ran for so long.
func TestAClockThatIsSetStopsNoJob(t *testing.T) { bubble(t, testAClockThatIsSetStopsNoJob) }
func testAClockThatIsSetStopsNoJob(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		w := newWorld(t, limitRule)
		var clock wallClock
		w.Start(slowly, func(c *server.Config) { c.Now, c.Sweep, c.Doubt = clock.now, 5*time.Second, 4*time.Second })
		id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: 24 * time.Hour})
		w.Await(id, in(router.Running))
		began := time.Now()
		clock.set(by)
		time.Sleep(45 * time.Second)
		w.Await(id, in(router.Running))
		if w.Gone(w.Runners(id)[0].NomadJob) {
			t.Errorf("the clock was set by %v, and the job's runner was stopped after %v of a minute", by, time.Since(began))
		}
		w.Await(id, in(router.Completed))
		if ran := time.Since(began); ran > 80*time.Second { // GitHub notices by itself
			t.Errorf("the clock was set by %v, and the job's time limit of a minute took effect after %v", by, ran)
		}
		w.Stop()
	}
}

// When GitHub cannot say, the time counts that this process has seen the job run.
func TestATimeLimitWithoutGitHub(t *testing.T) { bubble(t, testATimeLimitWithoutGitHub) }
func testATimeLimitWithoutGitHub(t *testing.T) {
	w := newWorld(t, limitRule)
	var clock wallClock
	w.Start(slowly, func(c *server.Config) { c.Now, c.Sweep, c.Doubt = clock.now, 5*time.Second, 4*time.Second })
	id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: 24 * time.Hour})
	w.Await(id, in(router.Running))
	w.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1})
	clock.set(time.Hour)
	time.Sleep(45 * time.Second)
	nomadJob := w.Runners(id)[0].NomadJob
	if w.Gone(nomadJob) {
		t.Error("it was stopped before its time")
	}
	eventually(t, "it is stopped", func() bool { return w.Gone(nomadJob) })
	w.GitHub.SetFaults(githubsim.Faults{})
	w.Await(id, in(router.Completed))
}

// What waits by a clock that was ahead does not wait for it to come round again.
func TestAClockThatIsSetBackDelaysNothing(t *testing.T) {
	for _, restart := range []bool{false, true} {
		virtual(t, map[bool]string{false: "under a process", true: "while no process ran"}[restart], func(t *testing.T) {
			clock := &wallClock{}
			clock.set(time.Hour)
			var fails atomic.Bool
			fails.Store(true)
			n := &cluster{fail: func(int) error {
				if fails.Load() {
					return errors.New("connection refused")
				}
				return nil
			}}
			st := openStore(t)
			with := func(c *server.Config) { slowly(c); c.Now = clock.now; c.Recheck = time.Minute }
			r := start(t, st, n, &hub{}, with)
			r.deliver(delivery(1, "queued", "self-hosted", "linux"))
			r.await(1, func(j router.Job) bool { return j.State == router.Retrying && j.Failures > 5 })
			if restart {
				r.Stop()
			}
			clock.set(-time.Hour)
			fails.Store(false)
			if restart {
				r = start(t, st, n, &hub{}, with)
			}
			began := time.Now()
			j := r.await(1, in(router.Dispatched))
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it is tried again %v after the clock was set back", took)
			}
			if j.UpdatedAt.After(clock.now()) || j.ReceivedAt.After(clock.now()) {
				t.Errorf("its times lie ahead: %v and %v, at %v", j.ReceivedAt, j.UpdatedAt, clock.now())
			}
			req, _ := n.job("gha-1-1")
			if status, body := r.Claim(req.ClaimToken); status != http.StatusOK || !strings.HasPrefix(body, "jit-for-") {
				t.Errorf("its runner's claim is answered %d %s", status, body)
			}
		})
	}
}

// Nor is history forgotten.
func TestAClockThatIsSetForwardForgetsNothing(t *testing.T) {
	bubble(t, testAClockThatIsSetForwardForgetsNothing)
}
func testAClockThatIsSetForwardForgetsNothing(t *testing.T) {
	clock := &wallClock{}
	r := start(t, openStore(t), &cluster{}, &hub{}, slowly, func(c *server.Config) { c.Now = clock.now })
	r.deliver(delivery(1, "queued", "self-hosted", "linux"))
	r.deliver(delivery(1, "completed", "self-hosted", "linux"))
	r.await(1, in(router.Completed))
	clock.set(10 * 365 * 24 * time.Hour)
	time.Sleep(time.Hour + time.Minute) // it is pruned each hour
	r.await(1, in(router.Completed))
}
