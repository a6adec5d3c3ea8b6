package server_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

// says reports whether a timeline says something of the job, or of a runner.
func said(line []router.Event, ofRunner bool, what string) bool {
	for _, e := range line {
		if (e.RunnerID != "") == ofRunner && strings.Contains(e.What, what) {
			return true
		}
	}
	return false
}

// A runner that is killed while it has a job: its job says so, also when it has failed.
func TestABusyRunnerThatIsKilledIsToldOf(t *testing.T) {
	for name, tc := range map[string]struct {
		kill func(w *routertest.World, id string) error
		why  string
	}{
		"by a drain":     {func(w *routertest.World, _ string) error { return w.Nomad.DrainNode("node-1") }, "killed: its node is drained (alloc is being migrated)"},
		"by another job": {func(w *routertest.World, id string) error { return w.Nomad.Preempt(id) }, "killed: Preempted by alloc ID "},
		"by a stop of its allocation": {func(w *routertest.World, id string) error {
			list, _, err := w.API.Jobs().Allocations(id, false, nil)
			if err == nil {
				_, err = w.API.Allocations().Stop(&api.Allocation{ID: list[0].ID}, nil)
			}
			return err
		}, "killed: somebody stopped its allocation"},
		"by somebody": {func(w *routertest.World, id string) error {
			_, _, err := w.API.Jobs().Deregister(id, false, nil)
			return err
		}, "killed: its Nomad job was stopped"},
		"with its node": {func(w *routertest.World, _ string) error { return w.Nomad.FailNode("node-1") }, "lost: alloc is lost since its node is down"},
	} {
		virtual(t, name, func(t *testing.T) {
			w := newWorld(t, plainRule)
			w.Start(slowly)
			id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Hour})
			w.Await(id, in(router.Running))
			must(t, tc.kill(w, w.Runners(id)[0].NomadJob))
			j := w.Await(id, func(j router.Job) bool { return j.State == router.Completed && strings.Contains(j.Reason, ";") })
			if want := "while it had the job, its runner ended on node node-1: " + tc.why; j.Conclusion == "success" || !strings.HasPrefix(j.Reason, "ended on GitHub: "+j.Conclusion+"; "+want) {
				t.Errorf("it ended as %s: %s; want %q", j.Conclusion, j.Reason, want)
			}
			if line, err := w.Store.Timeline(t.Context(), id); err != nil || !said(line, true, tc.why) || !said(line, false, tc.why) {
				t.Errorf("the timelines are %+v, %v", line, err)
			}
		})
	}
}

// unsure is a Nomad that cannot say at first whether a runner is starting.
type unsure struct {
	router.Nomad
	asked *atomic.Int64
}

func (n unsure) Allocation(ctx context.Context, r router.Runner) (router.Allocation, error) {
	if n.asked.Add(1) == 1 {
		return router.Allocation{}, errors.New("No cluster leader")
	}
	return n.Nomad.Allocation(ctx, r)
}

// A runner whose claim the router refused ended for that, and not as its node cannot
// reach the router.
func TestARefusedClaimIsToldOf(t *testing.T) { bubble(t, testARefusedClaimIsToldOf) }
func testARefusedClaimIsToldOf(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start(slowly, func(c *server.Config) { c.Nomad = unsure{c.Nomad, new(atomic.Int64)} })
	id := w.Queue("self-hosted", "linux")
	w.Await(id, in(router.Completed))
	line, err := w.Store.Timeline(t.Context(), id)
	must(t, err)
	const why = "its claim was refused: the router cannot ask Nomad now whether this runner is starting: No cluster leader"
	if said(line, false, "can its node reach") || !said(line, true, why) || !said(line, false, "ended, as "+why) {
		t.Errorf("the timelines are %+v", line)
	}
}
