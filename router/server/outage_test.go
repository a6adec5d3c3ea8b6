package server_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/server"
)

// readStore counts the due jobs that are read.
type readStore struct {
	Store
	rows atomic.Int64
}

func (s *readStore) Due(ctx context.Context, now time.Time, except []int64, limit int) ([]router.Job, time.Time, error) {
	jobs, next, err := s.Store.Due(ctx, now, except, limit)
	s.rows.Add(int64(len(jobs)))
	return jobs, next, err
}

// While Nomad is away the jobs that wait cost nearly nothing. When it is back, each is
// sent once.
func TestAnOutageOfNomadCostsLittle(t *testing.T) { bubble(t, testAnOutageOfNomadCostsLittle) }
func testAnOutageOfNomadCostsLittle(t *testing.T) {
	const jobs = 100
	var down atomic.Bool
	down.Store(true)
	n := &cluster{fail: func(int) error {
		if down.Load() {
			return errors.New("connection refused")
		}
		return nil
	}}
	asked := func() int {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.starts
	}
	st := &readStore{Store: openStore(t)}
	r := start(t, st, n, &hub{}, func(c *server.Config) { c.Tick = 5 * time.Second })
	for id := int64(1); id <= jobs; id++ {
		r.deliver(delivery(id, "queued", "self-hosted", "linux"))
	}
	time.Sleep(time.Minute)
	for id := int64(1); id <= jobs; id++ {
		if j := r.await(id, in(router.Retrying)); j.Cause != router.CauseNomad || j.Reason != "Nomad could not take the job yet: connection refused" {
			t.Errorf("job %d: %s, %s", id, j.Cause, j.Reason)
		}
	}
	before, rows := asked(), st.rows.Load()
	time.Sleep(9 * time.Minute)
	if n := asked() - before; n < 9*60/15-2 || n > 9*60/15+2 {
		t.Errorf("in 9 minutes Nomad was asked %d times for %d jobs, want once each 15 s", n, jobs)
	}
	if n := st.rows.Load() - rows; n > 5*jobs {
		t.Errorf("in 9 minutes %d due jobs were read, of %d, want each once in some minutes", n, jobs)
	}
	if r, err := st.Timeline(t.Context(), 1); err != nil || len(r) > 10 {
		t.Errorf("the first job has %d events, %v", len(r), err)
	}
	r.deliver(delivery(jobs+1, "queued", "self-hosted", "linux"))
	synctest.Wait()
	r.await(jobs+1, in(router.Retrying)) // at once, with the reason

	down.Store(false)
	before, rows = asked(), st.rows.Load()
	back := time.Now()
	r.deliver(delivery(jobs+2, "queued", "self-hosted", "linux"))
	for id := int64(jobs + 2); id > 0; id-- { // the newest first
		r.await(id, in(router.Dispatched))
		if took := time.Since(back); took > 2*time.Second {
			t.Fatalf("job %d is dispatched after %s, want at once", id, took)
		}
	}
	if n := asked() - before; n != jobs+2 {
		t.Errorf("Nomad was asked for %d runners, want %d", n, jobs+2)
	}
	if n := st.rows.Load() - rows; n > 2*jobs {
		t.Errorf("%d due jobs were read to send %d", n, jobs+2)
	}
}

// A restarted router does not know that Nomad was away.
func TestJobsThatWaitedForNomadAreSentAfterARestart(t *testing.T) {
	bubble(t, testJobsThatWaitedForNomadAreSentAfterARestart)
}
func testJobsThatWaitedForNomadAreSentAfterARestart(t *testing.T) {
	const jobs = 10
	n, st := &cluster{fail: func(int) error { return errors.New("connection refused") }}, openStore(t)
	r := start(t, st, n, &hub{})
	for id := int64(1); id <= jobs; id++ {
		r.deliver(delivery(id, "queued", "self-hosted", "linux"))
	}
	time.Sleep(time.Minute)
	r.Stop()
	n.fail = nil
	began := time.Now()
	r = start(t, st, n, &hub{})
	for id := int64(1); id <= jobs; id++ {
		r.await(id, in(router.Dispatched))
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the jobs are sent %s after the start", took)
	}
}

// Jobs that Nomad always fails hold up no other, and are not asked for more often because
// others are accepted.
func TestJobsThatNomadFailsHoldUpNoOther(t *testing.T) {
	t.Parallel()
	for _, bad := range []int64{1, 5} {
		virtual(t, fmt.Sprint(bad), func(t *testing.T) {
			n := fussy{&cluster{}, bad, new(atomic.Int64)}
			r := start(t, openStore(t), n.cluster, &hub{}, func(c *server.Config) { c.Nomad, c.Tick = n, 5*time.Second })
			for id := int64(1); id <= bad; id++ {
				r.deliver(delivery(id, "queued", "self-hosted", "linux"))
			}
			for id := bad + 1; id <= bad+20; id++ {
				time.Sleep(30 * time.Second)
				began := time.Now()
				r.deliver(delivery(id, "queued", "self-hosted", "linux"))
				r.await(id, in(router.Dispatched))
				if took := time.Since(began); took > time.Second {
					t.Errorf("job %d is dispatched after %s", id, took)
				}
			}
			r.await(1, in(router.Retrying))
			if n := n.asked.Load(); n > bad*10*60/5 {
				t.Errorf("in 10 minutes Nomad was asked %d times for %d bad jobs", n, bad)
			}
		})
	}
}

// fussy is a Nomad that fails every request for the runners of the first jobs.
type fussy struct {
	*cluster
	bad   int64
	asked *atomic.Int64
}

func (f fussy) Start(ctx context.Context, r router.StartRequest) (router.Started, error) {
	if r.Job.ID <= f.bad {
		f.asked.Add(1)
		return router.Started{}, errors.New("register job: Nomad answered 500")
	}
	return f.cluster.Start(ctx, r)
}
