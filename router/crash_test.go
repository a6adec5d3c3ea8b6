package router_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"switchyard/router"
)

// A crashing process ends at its nth step, counted over the writes of the
// store and the calls to Nomad: before the step takes effect, or after it took
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
	router.Store
	*crash
}

func (s crashingStore) Receive(ctx context.Context, d router.Delivery) (changed bool, err error) {
	err = s.step(func() error { changed, err = s.Store.Receive(ctx, d); return err })
	return changed, err
}

func (s crashingStore) Prepare(ctx context.Context, r router.Runner, h [32]byte, now time.Time) error {
	return s.step(func() error { return s.Store.Prepare(ctx, r, h, now) })
}

func (s crashingStore) Dispatched(ctx context.Context, r router.Runner, h [32]byte, d *router.Decision, now time.Time) error {
	return s.step(func() error { return s.Store.Dispatched(ctx, r, h, d, now) })
}

func (s crashingStore) Retry(ctx context.Context, id int64, at time.Time, reason string, d *router.Decision, now time.Time) error {
	return s.step(func() error { return s.Store.Retry(ctx, id, at, reason, d, now) })
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

func (s crashingStore) Lost(ctx context.Context, id string, at time.Time, reason string, now time.Time) (lost bool, err error) {
	err = s.step(func() error { lost, err = s.Store.Lost(ctx, id, at, reason, now); return err })
	return lost, err
}

type crashingNomad struct {
	router.Nomad
	*crash
}

func (n crashingNomad) Start(ctx context.Context, r router.StartRequest) (s router.Started, err error) {
	err = n.step(func() error { s, err = n.Nomad.Start(ctx, r); return err })
	return s, err
}

// Wherever the process ends between a delivery and a running runner, the next
// one brings the job there, with one runner that holds a configuration.
func TestNoCrashLosesAJobOrStartsTwoRunners(t *testing.T) {
	const claim, configured, online = 5, 6, 7 // after receive, prepare, start and dispatched
	for n := 1; n <= online; n++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("step %d, after=%v", n, after), func(t *testing.T) {
				t.Parallel()
				st, nomad, h := openStore(t), &cluster{}, &hub{}
				d := delivery(1, "queued", "self-hosted", "linux")

				c := &crash{left: n, after: after}
				first := start(t, crashingStore{st, c}, nomad, h, func(cfg *router.Config) {
					cfg.Nomad = crashingNomad{nomad, c}
					cfg.Grace = time.Millisecond
				})
				acknowledged := first.receive(t.Context(), d) == nil
				answered := false
				for deadline := time.Now().Add(10 * time.Second); !c.gone() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
					if r, ok := nomad.job("gha-1-1"); ok && !answered {
						status, body := first.claim(r.ClaimToken)
						answered = status == http.StatusOK && body != ""
					}
				}
				if !c.gone() {
					t.Fatalf("the process never came to step %d", n)
				}
				first.stop()

				second := start(t, st, nomad, h, func(cfg *router.Config) {
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
					deadline := time.Now().Add(10 * time.Second)
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
						status, body := second.claim(r.ClaimToken)
						answered = status == http.StatusOK && body != ""
						if status == http.StatusGone {
							try++
						}
					}
				}
				awaitJob(t, st, 1, func(j router.Job) bool { return j.State == router.Dispatched || j.State == router.Retrying })
				want := 1
				if n == configured || n == claim && after { // the token was spent: its runner is lost, and replaced
					want = 2
				}
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
