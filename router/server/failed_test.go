package server_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
)

const claimingRules = "version: 1\nscope: has(\"nomad\")\nrules:\n  - { name: linux, jobspec: docker-linux }\n"

// What fails after the claim, as an image that cannot be pulled does.
func TestAFailureAfterTheClaimIsSaidAndTriedAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts atomic.Int64
		y := newYard(t, routertest.Config{Rules: claimingRules, Cluster: nomadsim.Config{Start: func(context.Context, nomadsim.Task) error {
			if starts.Add(1) <= 4 {
				return errors.New("Failed to pull `registry.example/runner:9`: manifest unknown")
			}
			return nil
		}}})
		id := y.queue(time.Minute)
		time.Sleep(20 * time.Second) // the waits are of 250 ms to 2 s
		j := routertest.AwaitJob(t, y.Store, id, in(router.Running))
		list := y.Runners(id)
		if j.Try != 5 || len(list) != 5 {
			t.Fatalf("it runs at try %d, with %+v; want the fifth", j.Try, list)
		}
		for _, r := range list[:4] {
			if r.State != router.RunnerLost || !strings.Contains(r.Reason, "manifest unknown") {
				t.Errorf("runner %s is %s: %s; want it lost, with Nomad's words", r.ID, r.State, r.Reason)
			}
		}
		line, err := y.Store.Timeline(t.Context(), id)
		must(t, err)
		for _, state := range []router.JobState{router.Dispatched, router.Retrying} {
			if !slices.ContainsFunc(line, func(e router.Event) bool {
				return e.JobID == id && e.State == string(state) && strings.Contains(e.What, "manifest unknown")
			}) {
				t.Errorf("no reason of the %s job has Nomad's words: %+v", state, line)
			}
		}
		for _, r := range y.GitHub.Runners() {
			if r.Name != list[4].Name {
				t.Errorf("GitHub has runner %s still", r.Name)
			}
		}
		time.Sleep(2 * time.Minute)
		routertest.AwaitJob(t, y.Store, id, in(router.Completed))
	})
}

// A runner that did its job and ended, while what GitHub sends is late, is no
// failure.
func TestARunnerThatDidItsJobIsNoFailureHoweverLateGitHubIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, routertest.Config{Rules: claimingRules})
		y.GitHub.SetDeliveryFaults(githubsim.DeliveryFaults{Late: 1, LateBy: time.Minute, Seed: 1})
		id := y.queue(2 * time.Second)
		time.Sleep(5 * time.Minute)
		j := routertest.AwaitJob(t, y.Store, id, in(router.Completed))
		if list := y.Runners(id); j.Try != 1 || len(list) != 1 || list[0].State != router.RunnerFinished {
			t.Errorf("it ended at try %d, with %+v; want the one runner, finished", j.Try, list)
		}
	})
}

// GitHub has the job queued, and gives it to none of its runners.
func TestAJobThatGitHubGivesToNoRunnerIsTriedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newVirtualYard(t, "version: 1\nscope: has(\"nomad\")\nrules:\n  - { name: linux, jobspec: docker-linux, runner: { scope: organization, group: 1 } }\n", "",
			func(ctx context.Context, y *yard, task nomadsim.Task) int { return y.Connect(ctx, task) })
		y.GitHub.SetGroup(1, githubsim.Group{Name: "Default", Selected: []string{"acme/api"}})
		id := y.queue(time.Minute)
		time.Sleep(11 * time.Minute)
		j, err := y.Store.Job(t.Context(), id)
		must(t, err)
		for _, want := range []string{"GitHub gave its runner no job in 10m", "runner group Default of organization acme does not allow acme/web: allow it on GitHub", "it gets another at 2000-01-01T00:20:"} {
			if j.State != router.Retrying || !strings.Contains(j.Reason, want) {
				t.Errorf("it is %s: %s; want %q", j.State, j.Reason, want)
			}
		}
		time.Sleep(14 * time.Minute)
		if j, err = y.Store.Job(t.Context(), id); err != nil || j.State != router.Dispatched || !strings.Contains(j.Reason, "runner group Default of organization acme does not allow") {
			t.Errorf("with the second runner it is %s: %s (%v); want the cause still", j.State, j.Reason, err)
		}
		time.Sleep(12 * time.Hour)
		list := y.Runners(id)
		if n := len(list); n < 8 || n > 10 { // of 70, if one came every 10 minutes
			t.Errorf("%d runners in 12 hours, want one every two hours in the end", n)
		}
		var waits []time.Duration
		for i := 1; i < len(list); i++ {
			if list[i-1].EndedAt.IsZero() || list[i-1].State != router.RunnerLost {
				t.Errorf("runner %s is %s, and ended at %v", list[i-1].ID, list[i-1].State, list[i-1].EndedAt)
			}
			waits = append(waits, list[i].CreatedAt.Sub(list[i-1].EndedAt).Round(time.Minute))
		}
		if !slices.IsSorted(waits) || !slices.Equal(waits[:5], []time.Duration{10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute, 120 * time.Minute}) || waits[len(waits)-1] != 2*time.Hour {
			t.Errorf("the waits were %v", waits)
		}
		if got := len(y.GitHub.Runners()); got > 1 {
			t.Errorf("GitHub has %d runners", got)
		}
	})
}
