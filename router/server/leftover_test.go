package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/router/store"
)

func runnerIn(t *testing.T, st *store.Store, jobID int64, id string, state router.RunnerState) func() bool {
	return func() bool {
		list, err := st.Runners(t.Context(), jobID)
		must(t, err)
		return slices.ContainsFunc(list, func(r router.Runner) bool { return r.ID == id && r.State == state })
	}
}

func taken(id int64, action, by string) router.Delivery {
	d := delivery(id, action, "self-hosted", "linux")
	d.Job.RunnerName = by
	return d
}

// online takes a job to a runner that has its configuration, and returns the runner's name.
func (r *running) online(id int64) (name string) {
	r.T.Helper()
	r.dispatch(id)
	got, _ := r.nomad.job(fmt.Sprintf("gha-%d-1", id))
	if status, body := r.Claim(got.ClaimToken); status != http.StatusOK || body == "" {
		r.T.Fatalf("claim = %d %q, want a configuration", status, body)
	}
	asks := r.hub.asked()
	return asks[len(asks)-1].Name
}

func slow(c *server.Config) { c.Tick = time.Hour } // what follows is not found by looking again

func TestLeftoverRunners(t *testing.T) {
	virtual(t, "one whose job is cancelled before it claims is stopped, and GitHub never hears of it", func(t *testing.T) {
		st, nomad := openStore(t), &cluster{}
		r := start(t, st, nomad, &hub{}, slow)
		r.dispatch(1)
		r.deliver(delivery(1, "completed", "self-hosted", "linux"))
		eventually(t, "its Nomad job is stopped", func() bool { return nomad.ended("gha-1-1") })
		eventually(t, "the database has its end", runnerIn(t, st, 1, "gha-1-1", router.RunnerStopped))
		got, _ := nomad.job("gha-1-1")
		if status, body := r.Claim(got.ClaimToken); status == http.StatusOK && body != "" {
			t.Errorf("claim = %d %q, want no configuration", status, body)
		}
		if len(r.hub.asked()) != 0 || len(r.hub.lost()) != 0 {
			t.Error("GitHub was asked for something")
		}
	})
	virtual(t, "an idle one is taken off GitHub, then off Nomad", func(t *testing.T) {
		st, nomad, h := openStore(t), &cluster{}, &hub{}
		r := start(t, st, nomad, h, slow)
		r.online(1)
		r.deliver(taken(1, "in_progress", "another"))
		eventually(t, "its Nomad job is stopped", func() bool { return nomad.ended("gha-1-1") })
		eventually(t, "the database has its end", runnerIn(t, st, 1, "gha-1-1", router.RunnerStopped))
		if got := h.lost(); !slices.Equal(got, []int64{1}) {
			t.Errorf("GitHub lost the runners %v, want its", got)
		}
	})
	virtual(t, "one that GitHub calls busy is left", func(t *testing.T) {
		st, nomad, h := openStore(t), &cluster{}, &hub{busy: map[int64]bool{1: true}}
		r := start(t, st, nomad, h, slow)
		name := r.online(1)
		r.online(2)
		r.deliver(taken(1, "in_progress", "another"))
		r.deliver(taken(2, "in_progress", "still another"))
		eventually(t, "the other is stopped", func() bool { return nomad.ended("gha-2-1") })
		if nomad.ended("gha-1-1") {
			t.Error("a runner that has a job was stopped")
		}
		r.deliver(taken(3, "in_progress", name))
		eventually(t, "the database knows", runnerIn(t, st, 1, "gha-1-1", router.RunnerBusy))
	})
	virtual(t, "one serves the job whose runner was taken", func(t *testing.T) {
		st, nomad, h := openStore(t), &cluster{}, &hub{}
		r := start(t, st, nomad, h)
		first := r.online(1)
		r.dispatch(2)
		r.deliver(taken(2, "in_progress", first))
		if j := r.await(1, in(router.Dispatched)); j.Try != 1 {
			t.Errorf("job 1 is at try %d, want no new one", j.Try)
		}
		got, _ := nomad.job("gha-2-1")
		if status, body := r.Claim(got.ClaimToken); status != http.StatusOK || body == "" {
			t.Errorf("claim = %d %q, want a configuration, for job 1", status, body)
		}
		if n := nomad.count(); n != 2 {
			t.Errorf("Nomad has %d jobs, want 2", n)
		}
	})
	virtual(t, "one serves a job that Nomad could not take yet", func(t *testing.T) {
		st, nomad := openStore(t), &cluster{}
		r := start(t, st, nomad, &hub{})
		r.online(1)
		r.online(2)
		lost, err := st.Lost(t.Context(), router.Runner{ID: "gha-2-1"}, time.Now().Add(time.Hour), router.CauseRunner, "its node died", time.Now())
		if err != nil || !lost {
			t.Fatal(lost, err)
		}
		r.deliver(taken(1, "in_progress", "another"))
		r.await(2, in(router.Dispatched))
		if nomad.ended("gha-1-1") || nomad.count() != 2 {
			t.Errorf("Nomad has %d jobs, and lost the runner: %v", nomad.count(), nomad.ended("gha-1-1"))
		}
	})
	virtual(t, "one that is cancelled while it is registered is stopped after that", func(t *testing.T) {
		entered, leave := make(chan struct{}), make(chan struct{})
		st, nomad := openStore(t), &cluster{within: func(router.StartRequest) { close(entered); <-leave }}
		read := make(chan struct{}, 100)
		r := start(t, leftoversRead{st, read}, nomad, &hub{}, slow)
		<-read // at the start
		r.deliver(delivery(1, "queued", "self-hosted", "linux"))
		<-entered
		r.deliver(delivery(1, "completed", "self-hosted", "linux"))
		for range 2 { // after each delivery, if not after both
			select {
			case <-read:
			case <-time.After(100 * time.Millisecond):
			}
		}
		close(leave)
		eventually(t, "its Nomad job is stopped", func() bool { return nomad.ended("gha-1-1") })
	})
	virtual(t, "what a process that ended left is found by the next", func(t *testing.T) {
		st, nomad, h := openStore(t), &cluster{}, &hub{}
		r := start(t, st, nomad, h)
		r.online(1)
		r.Stop()
		must(t, errOf(st.Receive(t.Context(), taken(1, "in_progress", "another"))))
		start(t, st, nomad, h, slow)
		eventually(t, "its Nomad job is stopped", func() bool { return nomad.ended("gha-1-1") })
	})
	virtual(t, "one that cannot be stopped is tried again", func(t *testing.T) {
		st, nomad, h := openStore(t), &cluster{}, &hub{}
		var n, seconds atomic.Int64
		r := start(t, st, nomad, h, func(c *server.Config) {
			c.Nomad = unstoppable{nomad, func() error {
				if n.Add(1) < 2 {
					return errors.New("connection refused")
				}
				return nil
			}}
			c.Now = func() time.Time { return time.Now().Add(time.Duration(seconds.Add(1)) * time.Second) }
		})
		r.online(1)
		r.deliver(taken(1, "in_progress", "another"))
		eventually(t, "its Nomad job is stopped", func() bool { return nomad.ended("gha-1-1") })
		eventually(t, "the database has its end", runnerIn(t, st, 1, "gha-1-1", router.RunnerStopped))
	})
}

type leftoversRead struct {
	Store
	read chan struct{}
}

func (s leftoversRead) Leftovers(ctx context.Context, jobID int64) ([]router.Runner, error) {
	defer func() {
		select {
		case s.read <- struct{}{}:
		default:
		}
	}()
	return s.Store.Leftovers(ctx, jobID)
}

type unstoppable struct {
	*cluster
	before func() error
}

func (u unstoppable) Stop(ctx context.Context, r router.Runner) error {
	if err := u.before(); err != nil {
		return err
	}
	return u.cluster.Stop(ctx, r)
}
