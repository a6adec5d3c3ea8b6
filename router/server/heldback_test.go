package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
)

// A matrixYard runs matrices, and counts the runners that live at the same time.
type matrixYard struct {
	*yard
	mu          sync.Mutex
	alive, most int
}

func newMatrixYard(t *testing.T) *matrixYard {
	c := &matrixYard{yard: newIdleYard(t, "")}
	c.Run = func(ctx context.Context, task nomadsim.Task) int {
		c.mu.Lock()
		c.alive++
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			c.alive--
			c.mu.Unlock()
		}()
		select {
		case <-ctx.Done(): // stopped as it started: GitHub gave its job to another runner meanwhile
		case <-time.After(time.Millisecond): // in which one ends whose end this one was started at
			c.mu.Lock()
			c.most = max(c.most, c.alive)
			c.mu.Unlock()
		}
		return c.Connect(ctx, task)
	}
	return c
}

// matrix queues a run of n jobs.
func (c *matrixYard) matrix(n int, spec githubsim.JobSpec) (ids []int64) {
	c.T.Helper()
	spec.Owner, spec.Repo, spec.Private, spec.Labels = "acme", "web", true, []string{"nomad"}
	for i := range n {
		spec.Name = fmt.Sprintf("test (linux, %d)", i)
		id := c.GitHub.Queue(c.T.Context(), spec)
		j, _ := c.GitHub.Job(id)
		spec.RunID = j.RunID
		ids = append(ids, id)
	}
	return ids
}

// served waits until all jobs have ended well.
func (c *matrixYard) served(ids []int64) {
	c.T.Helper()
	time.Sleep(time.Minute)
	for _, id := range ids {
		for range 100 * 60 {
			j, err := c.Store.Job(c.T.Context(), id)
			must(c.T, err)
			if j.State == router.Completed {
				if j.Conclusion != "success" {
					c.T.Errorf("job %d ended as %q", id, j.Conclusion)
				}
				break
			}
			time.Sleep(time.Minute)
		}
		if j, err := c.Store.Job(c.T.Context(), id); err != nil || j.State != router.Completed {
			c.T.Fatalf("job %d is %s: %s (%v)", id, j.State, j.Reason, err)
		}
	}
}

// GitHub calls all jobs of a matrix queued, and hands them out one after another.
func TestAMatrixWithMaxParallelGetsFewRunners(t *testing.T) {
	t.Parallel()
	for name, takes := range map[string]time.Duration{"short jobs": time.Minute, "long jobs": 15 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newMatrixYard(t)
				ids := c.matrix(20, githubsim.JobSpec{MaxParallel: 1, Duration: takes})
				time.Sleep(40 * time.Second)
				held, err := c.Store.FindJobs(t.Context(), router.JobFilter{States: []router.JobState{router.Held}, Limit: 100})
				must(t, err)
				if len(held) != 17 || held[0].Cause != router.CauseSiblings || !strings.Contains(held[0].Reason, "3 runners are enough for now") {
					t.Fatalf("%d jobs wait: %+v", len(held), held)
				}
				c.served(ids)
				if n := len(c.Started()); c.most > 3 || n > 25 {
					t.Errorf("%d runners lived at the same time, of %d; want 3 at most, of 25", c.most, n)
				}
				t.Logf("%d runners at most at the same time, of %d", c.most, len(c.Started()))
			})
		})
	}
}

// An ordinary matrix is not slowed down for long, and not at all the next time.
func TestAMatrixThatGitHubHandsOutAtOnceIsStartedQuickly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMatrixYard(t)
		for _, want := range []time.Duration{2 * time.Minute, 30 * time.Second} {
			began := time.Now()
			ids := c.matrix(50, githubsim.JobSpec{Duration: 30 * time.Minute})
			c.served(ids)
			for _, id := range ids {
				j, err := c.Store.Job(t.Context(), id)
				must(t, err)
				if d := j.RunningAt.Sub(began); d > want {
					t.Errorf("job %d began after %v, want %v", id, d, want)
				}
			}
		}
		if n := len(c.Started()); n != 100 {
			t.Errorf("%d runners for 100 jobs", n)
		}
	})
}

// GitHub says in no delivery that the jobs wait for an approval: it is asked before any of them
// gets a runner, for all of them at once.
func TestJobsBehindAnApprovalGetNoRunner(t *testing.T) {
	t.Parallel()
	const jobs = 100
	for name, spec := range map[string]githubsim.JobSpec{
		"their deliveries say so":             {Waiting: true},
		"a later delivery says so":            {Waiting: true, Unsaid: true, SaidLater: true},
		"only who asks GitHub is told":        {Waiting: true, Unsaid: true},
		"and GitHub does not answer at first": {Waiting: true, Unsaid: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newMatrixYard(t)
				if strings.HasPrefix(name, "and") {
					c.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: 502, Path: "/jobs"})
				}
				spec.Duration = time.Minute
				before := c.GitHub.Traffic().Requests
				ids := c.matrix(jobs, spec)
				time.Sleep(30 * time.Second)
				if n := c.GitHub.Traffic().Requests - before; n > 10 && !spec.SaidLater {
					t.Errorf("GitHub was asked %d times about %d jobs", n, jobs)
				}
				c.GitHub.SetFaults(githubsim.Faults{})
				time.Sleep(time.Hour)
				held, err := c.Store.FindJobs(t.Context(), router.JobFilter{States: []router.JobState{router.Held}, Limit: 200})
				must(t, err)
				if len(held) != jobs || len(c.Started()) != 0 {
					t.Fatalf("%d jobs are held, and %v started", len(held), c.Started())
				}
				for _, j := range held {
					if !waitsForApproval(j) {
						t.Fatalf("job %d waits for something else: %s", j.ID, j.Reason)
					}
				}
				for _, id := range ids {
					must(t, c.GitHub.Approve(id))
				}
				c.served(ids)
				if n := len(c.Started()); n != jobs {
					t.Errorf("%d runners for %d jobs", n, jobs)
				}
			})
		})
	}
}

// Of a group, GitHub lets one job run at a time, and calls all queued. That is known the next time.
func TestJobsOfAConcurrencyGroupGetNoRunnerTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMatrixYard(t)
		spec := githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"nomad"}, Name: "deploy", Concurrency: "production", Duration: time.Hour}
		for want, pending := range []string{"unknown", "known"} { // so many were started for nothing
			running := c.GitHub.Queue(t.Context(), spec)
			c.Await(running, in(router.Running))
			id := c.GitHub.Queue(t.Context(), spec)
			time.Sleep(time.Minute)
			j, err := c.Store.Job(t.Context(), id)
			must(t, err)
			if j.State != router.Held || j.Cause != router.CauseApproval || j.Reason != "waits on GitHub for others of its concurrency group or matrix" {
				t.Errorf("%s: job %d is %s (%s): %s", pending, id, j.State, j.Cause, j.Reason)
			}
			if n := len(c.Runners(id)); n != 1-want {
				t.Errorf("%s: %d runners for a job that GitHub holds back, want %d", pending, n, 1-want)
			}
			c.served([]int64{running, id})
		}
	})
}

// Whoever ends in between, the next one knows what waits.
func TestAMatrixGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMatrixYard(t)
		ids := c.matrix(20, githubsim.JobSpec{MaxParallel: 1, Duration: 20 * time.Minute})
		for range 10 {
			time.Sleep(17 * time.Minute)
			c.Stop()
			time.Sleep(4 * time.Minute)
			c.Start(hourly)
		}
		c.served(ids)
		if n := len(c.Started()); c.most > 3 || n > 25 {
			t.Errorf("%d runners lived at the same time, of %d; want 3 at most, of 25", c.most, n)
		}
	})
}

// GitHub gives runners as it likes: also to a job that was not to have one yet.
func TestAMatrixWhoseJobsTakeOneAnothersRunnersGetsFewRunners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMatrixYard(t)
		c.GitHub.SetDeliveryFaults(githubsim.DeliveryFaults{Late: 1, LateBy: 20 * time.Second, Doubled: 0.1, Seed: 3})
		ids := c.matrix(30, githubsim.JobSpec{MaxParallel: 2, Duration: 5 * time.Minute})
		c.served(ids)
		if n := len(c.Started()); c.most > 4 || n > 35 {
			t.Errorf("%d runners lived at the same time, of %d; want 4 at most, of 35", c.most, n)
		}
	})
}

// A limitedHub lists no jobs, as its rate limit is used up.
type limitedHub struct{ router.GitHub }

func (limitedHub) RunJobs(context.Context, router.Repo, int64, func(router.Delivery) error) error {
	return &router.RetryAtError{At: time.Now().Add(time.Hour), Err: errors.New("the limit is reached")}
}

// When GitHub's rate limit is used up, a job that GitHub was to be asked about goes on: its
// runner's claim asks, for which some of the limit is left.
func TestAJobGoesOnThoughGitHubMayNotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) { c.GitHub = limitedHub{c.GitHub} })
		d := delivery(1, "queued", "self-hosted", "linux")
		d.Deploys = true
		r.deliver(d)
		r.await(1, in(router.Dispatched))
	})
}
