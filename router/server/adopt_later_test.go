package server_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/server"
)

// adoptCluster and adoptHub are asked about runners that only Nomad has.
type (
	adoptCluster struct {
		*cluster
		before func(context.Context) error // ClaimOf
		list   time.Duration               // that Jobs takes
	}
	adoptHub struct {
		*hub
		before func() error // Runners
	}
)

func (c adoptCluster) ClaimOf(ctx context.Context, j router.NomadJob) (string, router.Secret, bool, error) {
	if err := c.before(ctx); err != nil {
		return "", "", false, err
	}
	return c.cluster.ClaimOf(ctx, j)
}

func (c adoptCluster) Jobs(ctx context.Context, region string) ([]router.NomadJob, uint64, error) {
	router.Pause(ctx, c.list)
	return c.cluster.Jobs(ctx, region)
}

func (h adoptHub) Runners(context.Context, router.Target) ([]router.GitHubRunner, error) {
	return nil, h.before()
}

// The database is an earlier copy: it has jobs at their first try, and Nomad their second
// runners. However long those take to be adopted, no other is started.
func TestAJobWhoseRunnerIsOfALaterTryGetsNoOther(t *testing.T) {
	t.Parallel()
	const jobs, url = 10, "http://router.test"
	for name, tc := range map[string]struct {
		claimOf func(ctx context.Context, began time.Time) error
		runners func(began time.Time) error
		waits   string       // what each job's reason ends with in the meantime, if it waits for long
		cause   router.Cause // with waits
		due     bool         // the jobs are due when the process starts
		list    time.Duration
	}{
		"it is due before Nomad has listed its runners": {due: true, list: 3 * time.Second},
		"a comparison is adopting it when its job falls due": {
			claimOf: func(ctx context.Context, began time.Time) error {
				if time.Since(began) < time.Second {
					router.Pause(ctx, 25*time.Second)
				}
				return ctx.Err()
			},
		},
		"GitHub takes no requests when they are compared": {
			runners: func(began time.Time) error {
				if until := began.Add(10 * time.Second); time.Now().Before(until) {
					return &router.RetryAtError{At: until, Err: errors.New("the rate limit is reached")}
				}
				return nil
			},
		},
		"Nomad does not show it": {
			claimOf: func(_ context.Context, began time.Time) error {
				if time.Since(began) < 90*time.Second {
					return errors.New("connection refused")
				}
				return nil
			},
			waits: "connection refused",
			cause: router.CauseNomad,
		},
		"GitHub does not say whether it is registered": {
			runners: func(began time.Time) error {
				if time.Since(began) < 90*time.Second {
					return errors.New("502 Bad Gateway")
				}
				return nil
			},
			waits: "list the runners of acme on GitHub: 502 Bad Gateway",
			cause: router.CauseGitHub,
		},
	} {
		virtual(t, name, func(t *testing.T) {
			n, st := &cluster{}, openStore(t)
			public := func(c *server.Config) { c.Tick, c.PublicURL = 5*time.Second, url }
			limit := &router.RetryAtError{At: time.Now().Add(15 * time.Second), Err: errors.New("it takes no registrations")}
			r := start(t, st, n, &hub{ready: func(router.Target) error { return limit }}, public)
			for id := int64(1); id <= jobs; id++ {
				r.deliver(delivery(id, "queued", "self-hosted", "linux"))
			}
			n.jobs = map[string]router.StartRequest{}
			for id := int64(1); id <= jobs; id++ {
				j := r.await(id, in(router.Retrying))
				j.Try = 2
				n.jobs[j.RunnerID()] = router.StartRequest{Job: j, ClaimURL: url + router.ClaimPath, ClaimToken: router.Secret(j.RunnerID())}
			}
			r.Stop()
			if tc.due {
				time.Sleep(time.Until(limit.At))
			}

			began := time.Now()
			var started atomic.Int64
			n.fail = func(int) error { started.Add(1); return nil }
			nomad := adoptCluster{n, func(ctx context.Context) error {
				if tc.claimOf == nil {
					return nil
				}
				return tc.claimOf(ctx, began)
			}, tc.list}
			h := adoptHub{&hub{}, func() error {
				if tc.runners == nil {
					return nil
				}
				return tc.runners(began)
			}}
			r = start(t, st, n, h.hub, public, func(c *server.Config) { c.Nomad, c.GitHub = nomad, h })
			if tc.waits != "" {
				time.Sleep(time.Minute)
				for id := int64(1); id <= jobs; id++ {
					j := r.await(id, func(j router.Job) bool {
						return j.State == router.Retrying && j.Reason == "Nomad has a runner for it, which could not be adopted yet: "+tc.waits
					})
					if j.Cause != tc.cause {
						t.Errorf("job %d waits because of %q, want %q", id, j.Cause, tc.cause)
					}
				}
			}
			for id := int64(1); id <= jobs; id++ {
				if j := r.await(id, in(router.Dispatched)); j.Try != 2 {
					t.Errorf("job %d is at try %d, want 2", id, j.Try)
				}
			}
			if got := started.Load(); got != 0 || n.count() != jobs {
				t.Errorf("Nomad was asked for %d runners, and has %d for %d jobs", got, n.count(), jobs)
			}
		})
	}
}
