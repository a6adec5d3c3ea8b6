package capacity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// placed is a job whose decision has a placement.
func placed(r router.StartRequest, rule string) router.Job {
	j := r.Job
	j.Decision = &router.Decision{Rule: rule, Placement: r.Placement}
	return j
}

// unplacedNow waits until Nomad has found no node.
func unplacedNow(t *testing.T, client *Client, j router.Job, r router.Runner) *router.Unplaced {
	t.Helper()
	return unplaced(t, client, j, r, "a reason why "+r.ID+" has no node", func(u *router.Unplaced) bool { return u != nil })
}

// unplaced waits for an answer of Unplaced.
func unplaced(t *testing.T, client *Client, j router.Job, r router.Runner, what string, ok func(*router.Unplaced) bool) (u *router.Unplaced) {
	t.Helper()
	nomadtest.Await(t, what, func() bool {
		var err error
		if u, err = client.Unplaced(t.Context(), j, r); err != nil {
			t.Fatal(err)
		}
		return ok(u)
	})
	return u
}

func TestContractUnplaced(t *testing.T) {
	nomadtest.Targets(t, nomadsim.Config{}, func(t *testing.T, on nomadtest.Target) {
		client := newClient(t, on.Config)
		node := on.Node(t)
		memory := int(node.NodeResources.Memory.MemoryMB)
		most := router.Placement{Jobspec: "script"}
		most.Resources.MemoryMB = memory - memory/4
		most.From = map[string]string{"resources.memory_mb": "label large"}
		most.Task.Env = map[string]string{"WAIT": "60"}
		more := most
		more.Resources.MemoryMB = 10 * memory
		gpu := router.Placement{Jobspec: "plain", Devices: []router.Device{{Name: "nvidia/gpu", Count: 1, From: "label gpu"}}}
		vax := router.Placement{Jobspec: "plain", Constraints: []router.Constraint{
			{Attribute: "${meta.no_such}", Operator: "is_set", From: "label odd"},
		}}
		for _, c := range []struct {
			name      string
			first     *router.Placement // that runs before it is asked for
			placement router.Placement
			want      router.Unplaced
		}{
			{"no node is of the kind", nil, vax, router.Unplaced{
				Never: true, Filtered: []router.Shortage{{What: "${meta.no_such} is_set", From: "label odd", Nodes: 1}},
				Text: "of 1 node in service in pool \"default\", 1 lacks ${meta.no_such} is_set (label odd)",
			}},
			{"no node has the device", nil, gpu, router.Unplaced{
				Never: true, Filtered: []router.Shortage{{What: "missing devices", From: "label gpu", Nodes: 1}},
				Text: "1 lacks 1 nvidia/gpu (label gpu)",
			}},
			{"no node has the driver", nil, router.Placement{Jobspec: "docker"}, router.Unplaced{
				Never: true, Filtered: []router.Shortage{{What: "missing drivers", From: "jobspec docker", Nodes: 1}},
				Text: "1 lacks the driver ",
			}},
			{"no node is large enough", nil, more, router.Unplaced{
				Never: true, Exhausted: []router.Shortage{{What: "memory", From: "label large", Nodes: 1}},
				Text: "of memory (label large)",
			}},
			{"the nodes are full", &most, most, router.Unplaced{
				Exhausted: []router.Shortage{{What: "memory", From: "label large", Nodes: 1}},
				Text:      "1 node in pool default: 1 is full: memory",
			}},
		} {
			t.Run(c.name, func(t *testing.T) {
				if d := node.Drivers["docker"]; c.placement.Jobspec == "docker" && d != nil && d.Detected {
					t.Skip("it has")
				}
				if c.first != nil {
					first := on.Fresh(t, *c.first)
					on.Runs(t, client, on.Start(t, client, first))
				}
				request := on.Fresh(t, c.placement)
				r := on.Start(t, client, request)
				began := time.Now()
				got := unplacedNow(t, client, placed(request, "linux"), r)
				c.want.Pool, c.want.InPool, c.want.Evaluated = "default", 1, 1
				if diff := cmp.Diff(&c.want, got, cmpopts.IgnoreFields(router.Unplaced{}, "At", "Text"), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if !strings.Contains(got.Text, c.want.Text) || strings.ContainsAny(got.Text, "\n\t") || got.At.Before(began) {
					t.Errorf("at %v it says %q, want %q", got.At, got.Text, c.want.Text)
				}
				if err := client.Stop(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				unplaced(t, client, placed(request, "linux"), r, "the stopped one to wait no more", func(u *router.Unplaced) bool { return u == nil })
			})
		}
	})
}

// On a fleet of several kinds, each node is counted for what it lacks.
func TestUnplacedOnAMixedFleet(t *testing.T) {
	machine := func(name, arch, pool string) *api.Node {
		return nomadsim.NewNode(nomadsim.Machine{Name: name, Kernel: "linux", Arch: arch, Cores: 4, MemoryMB: 8 << 10, Pool: pool})
	}
	on := newCluster(t, nomadsim.Config{
		Run: until,
		Nodes: []*api.Node{
			machine("amd-1", "amd64", "ci"), machine("amd-2", "amd64", "ci"), machine("amd-3", "amd64", "ci"),
			machine("arm-1", "arm64", "ci"), machine("arm-2", "arm64", "ci"), machine("other", "arm64", "apps"),
		},
	})
	placement := router.Placement{
		Jobspec: "plain", NodePool: "ci", From: map[string]string{"resources.memory_mb": "rule linux"},
		Constraints: []router.Constraint{{Attribute: "${attr.cpu.arch}", Operator: "=", Value: "arm64", From: "label arm64"}},
	}
	placement.Resources.MemoryMB = 6 << 10
	for range 2 {
		on.Start(t, on.Client, on.Fresh(t, placement))
	}
	third := on.Fresh(t, placement)
	r := on.Start(t, on.Client, third)
	got, err := on.Unplaced(t.Context(), placed(third, "linux"), r)
	want := &router.Unplaced{
		Text: "5 nodes in pool ci: 3 lack ${attr.cpu.arch} = arm64 (label arm64); 2 are full: memory",
		Pool: "ci", InPool: 5, Evaluated: 5,
		Filtered:  []router.Shortage{{What: "${attr.cpu.arch} = arm64", From: "label arm64", Nodes: 3}},
		Exhausted: []router.Shortage{{What: "memory", From: "rule linux", Nodes: 2}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(router.Unplaced{}, "At")); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	// All who ask share one list of nodes while that is right.
	read := on.regions.of[""].last
	if _, err := on.Unplaced(t.Context(), placed(third, "linux"), r); err != nil || on.regions.of[""].last != read {
		t.Errorf("the nodes were listed again (%v)", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	on.regions.of[""].turn.TryAcquire(1) // somebody asks Nomad, for long
	if _, err := on.region(gone, "", func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("who went away waits for the nodes: %v", err)
	}
	on.regions.of[""].turn.Release(1)
	if err := on.Sim.SetEligible("other", false); err != nil {
		t.Fatal(err)
	}
	if _, err := on.Unplaced(t.Context(), placed(third, "linux"), r); err != nil || on.regions.of[""].last == read {
		t.Errorf("the nodes were not listed again when one had changed (%v)", err)
	}
	// Its event may come before the database has its Nomad job.
	early, err := on.Unplaced(t.Context(), placed(third, "linux"), third.Runner)
	if diff := cmp.Diff(want, early, cmpopts.IgnoreFields(router.Unplaced{}, "At")); err != nil || diff != "" {
		t.Errorf("early: %v (-want +got):\n%s", err, diff)
	}
	// The fallback in force is what it is told for.
	fallen := placed(third, "linux")
	fallen.Decision.Fallback, fallen.Fallback = slices.Grow(fallen.Decision.Fallback, 1)[:1], 1
	fallen.Decision.Fallback[0].Placement = placement
	fallen.Decision.Fallback[0].Constraints = []router.Constraint{{Attribute: "${attr.cpu.arch}", Operator: "=", Value: "arm64", From: "fallback 1"}}
	if got, err := on.Unplaced(t.Context(), fallen, r); err != nil || got.Filtered[0].From != "fallback 1" {
		t.Errorf("under a fallback it says %+v, %v", got, err)
	}
	// Without its decision, what is known is still told.
	if got, err := on.Unplaced(t.Context(), third.Job, r); err != nil || got.Filtered[0].From != "its jobspec" || got.Never {
		t.Errorf("without a decision it says %+v, %v", got, err)
	}
}

// While the evaluation broker is paused Nomad takes jobs and looks at none.
func TestContractUnplacedWhileNothingIsEvaluated(t *testing.T) {
	nomadtest.Targets(t, nomadsim.Config{}, func(t *testing.T, on nomadtest.Target) {
		client := newClient(t, on.Config)
		pause := func(pause bool) {
			t.Helper()
			now, _, err := on.Nomad.Operator().SchedulerGetConfiguration(nil)
			if err != nil {
				t.Fatal(err)
			}
			now.SchedulerConfig.PauseEvalBroker = pause
			if _, _, err := on.Nomad.Operator().SchedulerSetConfiguration(now.SchedulerConfig, nil); err != nil {
				t.Fatal(err)
			}
		}
		pause(true)
		t.Cleanup(func() { pause(false) })
		r := on.Start(t, client, on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable}))
		before := time.Now().Add(-time.Minute)
		u := unplacedNow(t, client, router.Job{}, r)
		if !u.Pending || !strings.HasPrefix(u.Text, "its evaluation broker is paused") || u.At.Before(before) {
			t.Fatalf("Unplaced = %+v", u)
		}
		pause(false)
		u = unplaced(t, client, router.Job{}, r, "the broker to go on", func(u *router.Unplaced) bool { return u != nil && !u.Pending })
		if u.Text == "" {
			t.Errorf("Unplaced = %+v", u)
		}
	})
}
