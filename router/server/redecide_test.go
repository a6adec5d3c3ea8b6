package server_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/rules"
)

const faultyRules = `
version: 1
labels: { self-hosted: {}, linux: {}, mac: {}, big: { resources: { memory: 64GiB } } }
defaults: { max: { memory: 32GiB } }
rules:
  - { name: no-forks, if: repo.fork, deny: forks get no runner }
  - { name: release, if: has("linux") and not has("big") and int(job.branch) > 3, jobspec: docker-linux }
  - { name: linux, if: has("linux"), jobspec: docker-linux }
`

// The same with what was wrong mended, but for jobs that ask for mac.
var mendedRules = strings.NewReplacer(
	`int(job.branch) > 3`, `job.branch == "release"`, "max: { memory: 32GiB }", "max: { memory: 64GiB }", "linux: {}", "linux: {}, gpu: {}",
).Replace(faultyRules)

func parsed(t *testing.T, text string) *rules.Set {
	t.Helper()
	set, err := rules.Parse("rules.yaml", []byte(text))
	must(t, err)
	return set
}

func TestJobsThatNothingCouldServeAreDecidedAgainWhenTheRulesChange(t *testing.T) {
	for name, change := range map[string]func(r *running, set *rules.Set) *running{
		"by a reload": func(r *running, set *rules.Set) *running {
			r.App.Reload(set, router.RulesVersion{Origin: "file changed"})
			return r
		},
		"while no process ran": func(r *running, set *rules.Set) *running {
			r.Stop()
			return start(r.T, r.store, r.nomad, r.hub, func(c *server.Config) { c.Rules = set })
		},
	} {
		virtual(t, name, func(t *testing.T) {
			var mu sync.Mutex
			asked := map[int64]int{}
			h := &hub{job: func(id int64) (router.Delivery, error) {
				mu.Lock()
				defer mu.Unlock()
				asked[id]++
				if id == 6 {
					return says(6, "completed"), nil
				}
				return says(id, "queued"), nil
			}}
			r := start(t, openStore(t), &cluster{}, h, func(c *server.Config) { c.Rules = parsed(t, faultyRules) })
			for id, labels := range map[int64]string{1: "linux", 2: "linux,gpu", 3: "linux,big", 4: "mac", 5: "linux", 6: "linux", 7: "linux"} {
				d := delivery(id, "queued", append([]string{"self-hosted"}, strings.Split(labels, ",")...)...)
				d.Job.Repo.Fork = id == 5
				if id == 7 {
					d.ReceivedAt = d.ReceivedAt.Add(-25 * time.Hour) // GitHub has given it up
				}
				r.deliver(d)
			}
			for id, why := range map[int64]string{1: "rule error: rule release", 2: "unknown label", 3: "memory", 4: "no rule", 6: "rule error", 7: "rule error"} {
				if j := r.await(id, in(router.Unroutable)); !strings.Contains(j.Reason, why) {
					t.Errorf("job %d is unroutable: %s; want %q", id, j.Reason, why)
				}
			}
			r.await(5, in(router.Denied))

			r = change(r, parsed(t, mendedRules))
			for id := int64(1); id <= 3; id++ {
				if j := r.await(id, in(router.Dispatched)); j.Decision.Rule != "linux" || j.Try != 1 {
					t.Errorf("job %d has rule %s at try %d", id, j.Decision.Rule, j.Try)
				}
			}
			r.await(6, in(router.Completed))
			synctest.Wait()
			r.await(4, in(router.Unroutable))
			r.await(5, in(router.Denied))
			r.await(7, in(router.Unroutable))
			mu.Lock()
			defer mu.Unlock()
			if asked[4]+asked[5] > 0 || asked[1] != 1 || r.nomad.count() != 3 {
				t.Errorf("GitHub was asked %v, Nomad has %d jobs; want to be asked once about each job that the rules mend", asked, r.nomad.count())
			}
			line, err := r.store.Timeline(t.Context(), 1)
			if err != nil || !containsEvent(line, router.SourceRouter, "the rules have changed: it is decided again") {
				t.Errorf("the timeline is %+v, %v", line, err)
			}
		})
	}
}

// unroutableStore has more unroutable jobs of GitHub 1 than are decided again.
type unroutableStore struct{ Store }

func (s unroutableStore) FindJobs(ctx context.Context, f router.JobFilter) (jobs []router.Job, err error) {
	in := router.Instance{Number: 1}
	if f.Before == 0 {
		f.Before = in.ID(1_000_000)
	}
	if !slices.Equal(f.States, []router.JobState{router.Unroutable}) || f.Before <= in.ID(0) {
		return s.Store.FindJobs(ctx, f)
	}
	for id := f.Before - 1; len(jobs) < f.Limit; id-- {
		jobs = append(jobs, router.Job{ID: id, Labels: []string{"self-hosted", "mac"}})
	}
	return jobs, nil
}

// However many jobs of one GitHub stay unroutable, those of another are decided again.
func TestUnroutableJobsOfEachGitHubAreDecidedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, unroutableStore{openStore(t)}, &cluster{}, &hub{}, func(c *server.Config) { c.Rules = parsed(t, faultyRules) })
		r.deliver(delivery(1, "queued", "self-hosted", "linux"))
		r.await(1, in(router.Unroutable))
		r.App.Reload(parsed(t, mendedRules), router.RulesVersion{Origin: "file changed"})
		r.await(1, in(router.Dispatched))
	})
}

func containsEvent(line []router.Event, from router.Source, what string) bool {
	for _, e := range line {
		if e.Source == from && e.What == what {
			return true
		}
	}
	return false
}

// What Nomad refuses may be allowed a moment later, or asked for in another way: it is
// asked again with growing waits, and at once when the rules or jobspecs change.
func TestWhatNomadRefusesIsAskedForAgain(t *testing.T) {
	t.Parallel()
	refuse := func(int) error {
		return &router.GiveUpError{Err: errors.New(`driver "raw_exec" is not allowed in namespace "ci"`)}
	}
	allow := func(n *cluster) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.fail = nil
	}
	virtual(t, "by itself", func(t *testing.T) {
		n := &cluster{fail: refuse}
		r := start(t, openStore(t), n, &hub{}, slowly)
		began := time.Now()
		for id := int64(1); id <= 3; id++ {
			r.deliver(delivery(id, "queued", "self-hosted", "linux"))
		}
		for id := int64(1); id <= 3; id++ {
			j := r.await(id, in(router.Retrying))
			if !strings.HasPrefix(j.Reason, "Nomad refuses the job: driver") || !strings.Contains(j.Reason, "retried with growing waits") || j.Decision == nil {
				t.Errorf("job %d: %q, decided %v", id, j.Reason, j.Decision)
			}
		}
		time.Sleep(time.Minute)
		allow(n)
		r.await(1, in(router.Dispatched))
		first := time.Since(began)
		for id := int64(2); id <= 3; id++ {
			r.await(id, in(router.Dispatched))
		}
		if all := time.Since(began); first > 2*time.Minute || all > 2*time.Minute+5*time.Second {
			t.Errorf("the first is on Nomad after %v, all of them after %v", first, all)
		}
	})
	virtual(t, "with growing waits", func(t *testing.T) {
		n := &cluster{fail: refuse}
		r := start(t, openStore(t), n, &hub{}, slowly)
		r.deliver(delivery(1, "queued", "self-hosted", "linux"))
		time.Sleep(time.Hour)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.starts < 8 || n.starts > 16 {
			t.Errorf("Nomad was asked %d times in an hour", n.starts)
		}
		if line, err := r.store.Timeline(t.Context(), 1); err != nil || len(line) > 4 {
			t.Errorf("the timeline is %+v, %v", line, err)
		}
	})
	virtual(t, "when the rules change", func(t *testing.T) {
		n := &cluster{fail: refuse}
		r := start(t, openStore(t), n, &hub{}, slowly)
		r.deliver(delivery(1, "queued", "self-hosted", "linux"))
		r.await(1, in(router.Retrying))
		time.Sleep(20 * time.Minute) // the next time is some minutes off
		allow(n)
		began := time.Now()
		r.App.Reload(parsed(t, testRules), router.RulesVersion{Origin: "file changed"})
		r.await(1, in(router.Dispatched))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it is on Nomad %v after the rules changed", took)
		}
	})
	virtual(t, "but not what the job itself asks for", func(t *testing.T) {
		n := &cluster{fail: func(int) error {
			return &router.GiveUpError{Err: errors.New("Constraint 1 validation failed: banana")}
		}}
		r := start(t, openStore(t), n, &hub{}, func(c *server.Config) {
			c.Rules = parsed(t, `
version: 1
labels:
  self-hosted: {}
  "os=*": { param: { name: os, type: string, pattern: '[a-z0-9.]+' }, constraints: ['${meta.os} = ${{ param.os }}'] }
  x64: { constraints: ['${attr.cpu.arch} = amd64'] }
rules: [{ name: all, jobspec: docker-linux }]
`)
		})
		r.deliver(delivery(1, "queued", "self-hosted", "os=banana"))
		r.deliver(delivery(2, "queued", "self-hosted", "x64"))
		if j := r.await(1, in(router.Unroutable)); !strings.HasPrefix(j.Reason, "Nomad refuses the job, for its label os=banana: Constraint 1") {
			t.Errorf("the reason is %q", j.Reason)
		}
		r.await(2, in(router.Retrying))
	})
}

// slowly has nothing done often, as an hour passes in the test.
func slowly(c *server.Config) { c.Tick, c.Feedback = 5*time.Second, time.Minute }

// What GitHub refused is asked for again when something else is asked for.
func TestWhatGitHubRefusedIsAskedForAgainWhenTheRulesChange(t *testing.T) {
	bubble(t, testWhatGitHubRefusedIsAskedForAgain)
}
func testWhatGitHubRefusedIsAskedForAgain(t *testing.T) {
	n, h := &cluster{}, &hub{fail: func(int) error { return &router.GiveUpError{Err: errors.New("422")} }}
	r := start(t, slowLostStore{openStore(t)}, n, h)
	r.dispatch(1)
	token, _ := n.job("gha-1-1")
	r.Claim(token.ClaimToken)
	if j := r.await(1, in(router.Unroutable)); !strings.HasPrefix(j.Reason, "GitHub refuses the runner") {
		t.Errorf("the reason is %q", j.Reason)
	}
	r.App.Reload(parsed(t, testRules), router.RulesVersion{Origin: "SIGHUP"}) // the same
	synctest.Wait()
	r.await(1, in(router.Unroutable))
	r.App.Reload(parsed(t, strings.Replace(testRules, "group: 7", "group: 8", 1)), router.RulesVersion{Origin: "file changed"})
	if j := r.await(1, in(router.Dispatched)); j.Decision.Runner.Group != "8" || j.Try != 2 {
		t.Errorf("it is dispatched for group %s at try %d", j.Decision.Runner.Group, j.Try)
	}
}

// A slowLostStore takes its time over a lost runner, in which its job would be
// dispatched again if it were due.
type slowLostStore struct{ Store }

func (s slowLostStore) Lost(ctx context.Context, r router.Runner, at time.Time, cause router.Cause, reason string, now time.Time) (bool, error) {
	lost, err := s.Store.Lost(ctx, r, at, cause, reason, now)
	time.Sleep(3 * time.Second) // some ticks
	return lost, err
}
