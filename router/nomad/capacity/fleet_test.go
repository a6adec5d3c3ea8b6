package capacity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// shapes are placements of the jobspec plain that nodes fit or do not, for
// every operator and every size.
func shapes() []router.Example {
	var list []router.Example
	add := func(name string, parts ...any) {
		list = append(list, router.Example{Rule: name, Placement: ask(name, parts...).Placement})
	}
	add("plain")
	for _, c := range [][3]string{
		{"${attr.kernel.name}", "=", "linux"}, {"${attr.kernel.name}", "!=", "linux"}, {"${attr.kernel.name}", "=", "darwin"},
		{"${attr.cpu.arch}", "=", "arm64"}, {"${attr.cpu.arch}", "regexp", "^(amd|arm)64$"}, {"${attr.cpu.arch}", "regexp", "^no"},
		{"${attr.cpu.numcores}", ">", "1"}, {"${attr.cpu.numcores}", ">=", "16"}, {"${attr.cpu.numcores}", "<", "9"}, {"${attr.cpu.numcores}", "<=", "1000"},
		{"${attr.nomad.version}", "version", ">= 1.6, < 9"}, {"${attr.nomad.version}", "version", "< 1.0"}, {"${attr.nomad.version}", "semver", ">= 1.6.0"},
		{"${attr.os.signals}", "set_contains", "SIGKILL,SIGTERM"}, {"${attr.os.signals}", "set_contains_all", "SIGKILL,SIGNONE"},
		{"${attr.os.signals}", "set_contains_any", "SIGNONE,SIGTERM"}, {"${attr.os.signals}", "set_contains_any", "SIGNONE"},
		{"${meta.no_such}", "is_set", ""}, {"${meta.no_such}", "is_not_set", ""}, {"${meta.no_such}", "!=", "x"}, {"${meta.no_such}", "=", "x"},
		{"${node.class}", "=", "gpu"}, {"${node.datacenter}", "=", "dc1"}, {"${node.pool}", "=", "default"},
		{"${node.unique.name}", "regexp", "1$"}, {"${attr.unique.hostname}", "is_set", ""}, {"${meta.zone}", "=", "tokyo-a"},
		{"", "distinct_hosts", "true"}, {"${node.datacenter}", "distinct_property", "2"}, {"${meta.zone}", "distinct_property", ""},
	} {
		add(strings.Join(c[:], " "), router.Constraint{Attribute: c[0], Operator: c[1], Value: c[2]})
	}
	for _, n := range []int{1, 2, 8, 16, 64} {
		add(fmt.Sprintf("%d cores", n), coresOf(n))
	}
	for _, mhz := range []int{100, 4000, 20_000, 1_000_000} {
		add(fmt.Sprintf("%d MHz", mhz), func(p *router.Placement) { p.Resources.CPU = mhz })
	}
	for _, mib := range []int{512, 16 << 10, 48 << 10, 64 << 10, 900_000} {
		add(fmt.Sprintf("%d MiB", mib), memoryOf(mib))
	}
	for _, mib := range []int{400, 90_000_000} {
		add(fmt.Sprintf("%d MiB of disk", mib), func(p *router.Placement) { p.Resources.DiskMB = mib })
	}
	for _, n := range []int{1, 2, 3} {
		add(fmt.Sprintf("%d GPUs", n), gpus(n))
	}
	large := func(op, value string) router.Device {
		return router.Device{Name: "gpu", Count: 1, Constraints: []router.Constraint{{Attribute: "${device.attr.memory}", Operator: op, Value: value}}}
	}
	add("a large GPU", large(">=", "20 GiB"))
	add("too large a GPU", large(">", "24 GiB"))
	add("the datacenter dc1", in("dc1"))
	add("datacenters d*", in("x", "d*"))
	add("no datacenter", in("nowhere"))
	add("the pool default", pool("default"))
	add("the pool all", pool("all"))
	return list
}

// What is said of each node and shape is what a plan says of them.
func TestFitsAreWhatNomadPlans(t *testing.T) {
	nomadtest.Targets(t, nomadsim.Config{}, func(t *testing.T, on nomadtest.Target) { comparePlans(t, newClient(t, on.Config), on.Nomad, on.Real) })
	t.Run("mixed", func(t *testing.T) {
		nodes := nomadsim.MixedFleet()
		nodes[1].SchedulingEligibility = "ineligible"
		nodes[2].ReservedResources.Memory.MemoryMB = 1 << 10
		nodes[3].NodeResources.Devices[0].Instances[1].Healthy = false
		nodes[4].Drivers["raw_exec"].Healthy = false
		nodes = append(nodes,
			nomadsim.NewNode(nomadsim.Machine{Name: "ci-1", Kernel: "linux", Arch: "amd64", Cores: 8, MemoryMB: 16 << 10, Pool: "ci", Datacenter: "tokyo", GPUs: 2}))
		on := newCluster(t, nomadsim.Config{Nodes: nodes, Run: until})
		j := api.NewBatchJob("hog", "hog", "global", 50).Constrain(api.NewConstraint("${node.unique.name}", "regexp", "^(linux-1|linux-gpu-1)$"))
		hog := api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true")
		hog.Require(&api.Resources{Cores: new(9), MemoryMB: new(40 << 10)})
		j.AddTaskGroup(api.NewTaskGroup("g", 2).AddTask(hog))
		j.Constrain(api.NewConstraint("", "distinct_hosts", "true"))
		on.Register(t, j)
		nomadtest.Await(t, "both allocations", func() bool {
			list, _, err := on.Nomad.Allocations().List(nil)
			return err == nil && len(list) == 2
		})
		comparePlans(t, on.Client, on.Nomad, false)
	})
}

func comparePlans(t *testing.T, c *Client, nomad *api.Client, realOne bool) {
	examples := shapes()
	c.Fleet(gone(t), examples)
	c.refreshFleet(t.Context())
	fleet := c.Fleet(t.Context(), examples)
	if fleet.Problem != nil || len(fleet.Nodes) == 0 || len(fleet.Rules) != len(examples) {
		t.Fatalf("the fleet is %+v, %+v", fleet, fleet.Problem)
	}
	known := c.fleet.known
	seen := map[verdict]int{}
	for i, e := range examples {
		if p := fleet.Rules[i].Problem; p != "" {
			t.Errorf("%s: %s", e.Rule, p)
			continue
		}
		r := Route{Rule: e.Rule, Placement: e.Placement}
		job, _, err := (&survey{Client: c}).job(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		f := newFitting(r, job)
		var sum router.NodeCounts
		for _, m := range known.list {
			got, why := f.of(m)
			seen[got]++
			got.count(&sum)
			one := *job
			one.Constraints = append(slices.Clone(job.Constraints), api.NewConstraint(nodeID, "=", m.id))
			plan, _, err := nomad.Jobs().Plan(&one, false, nil)
			if err != nil {
				t.Fatalf("%s: plan: %v", e.Rule, err)
			}
			metric := plan.FailedTGAllocs[*job.TaskGroups[0].Name]
			if (got == fitsNow) != (metric == nil) || (why == "") != (got == fitsNow) {
				t.Errorf("%s on %s: verdict %d, %q; Nomad's plan says %+v", e.Rule, m.name, got, why, metric)
			}
			// Nomad filters what could never do, and finds full what has no room.
			if got == fitsIdle && metric != nil && metric.NodesExhausted == 0 {
				t.Errorf("%s on %s: has no room, but Nomad's plan filters it: %+v", e.Rule, m.name, metric)
			}
		}
		if diff := cmp.Diff(sum, fleet.Rules[i].NodeCounts); diff != "" {
			t.Errorf("%s: the sum differs (-nodes +rule):\n%s", e.Rule, diff)
		}
	}
	if seen[fitsNow] == 0 || seen[fitsNever] == 0 || !realOne && len(known.list) > 1 && (seen[fitsIdle] == 0 || seen[fitsAway] == 0) {
		t.Errorf("verdicts %v: some was never given", seen)
	}
}

// The description of the fleet, with the reasons and where they come from.
func TestTheFleetIsDescribed(t *testing.T) {
	nodes := []*api.Node{
		nomadsim.NewNode(nomadsim.Machine{Name: "a-1", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 8 << 10, Class: "small"}),
		nomadsim.NewNode(nomadsim.Machine{Name: "a-2", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 8 << 10, Class: "small"}),
		nomadsim.NewNode(nomadsim.Machine{Name: "b-1", Kernel: "linux", Arch: "arm64", Cores: 8, MemoryMB: 4 << 10, Pool: "ci", GPUs: 1}),
		nomadsim.NewNode(nomadsim.Machine{Name: "mac-1", Kernel: "darwin", Arch: "arm64", Cores: 8, MemoryMB: 32 << 10}),
	}
	nodes[3].Status = "down"
	on := newCluster(t, nomadsim.Config{Nodes: nodes, Run: until})
	j := api.NewBatchJob("hog", "hog", "global", 50).Constrain(api.NewConstraint("${node.unique.name}", "=", "a-2"))
	hog := api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true")
	on.Register(t, j.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(hog.Require(&api.Resources{CPU: new(1000), MemoryMB: new(6 << 10)}))))
	nomadtest.Await(t, "the allocation", func() bool {
		list, _, err := on.Nomad.Allocations().List(nil)
		return err == nil && len(list) == 1
	})
	examples := []router.Example{
		{Rule: "any", Labels: []string{"linux"}, Placement: ask("any", memoryOf(4<<10), pool("all")).Placement},
		{Rule: "arm", Placement: ask("arm", arm, pool("ci"), memoryOf(5<<10)).Placement},
		{Rule: "lost", Placement: router.Placement{Jobspec: "no-such"}},
	}
	on.Fleet(gone(t), examples)
	on.refreshFleet(t.Context())
	got := on.Fleet(t.Context(), examples)
	if got.At == nil || time.Since(*got.At) > time.Minute || got.Problem != nil || got.More != 0 {
		t.Errorf("got at %v, problem %v, %d more", got.At, got.Problem, got.More)
	}
	small := router.NodeSize{CPU: 10_000, Cores: 4, MemoryMB: 8 << 10, DiskMB: 500_000}
	wantGroups := []router.NodeGroup{
		{OS: "darwin", Arch: "arm64", Pool: "default", Nodes: 1},
		{
			OS: "linux", Arch: "amd64", Class: "small", Pool: "default", Nodes: 2, Ready: 2,
			Total: router.NodeSize{CPU: 20_000, Cores: 8, MemoryMB: 16 << 10, DiskMB: 1_000_000}, Used: router.NodeSize{CPU: 1000, MemoryMB: 6 << 10, DiskMB: 300},
		},
		{OS: "linux", Arch: "arm64", Pool: "ci", Nodes: 1, Ready: 1, Total: router.NodeSize{CPU: 20_000, Cores: 8, MemoryMB: 4 << 10, DiskMB: 500_000}},
	}
	if diff := cmp.Diff(wantGroups, got.Groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	var names []string
	for _, n := range got.Nodes {
		names = append(names, fmt.Sprintf("%s %s %d", n.Name, n.State, n.Running))
	}
	if diff := cmp.Diff([]string{"b-1 ready 0", "a-1 ready 0", "a-2 ready 1", "mac-1 down 0"}, names); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if n := got.Nodes[2]; n.Total != small || n.Used.MemoryMB != 6<<10 || !slices.Equal(n.Drivers, []string{"docker", "raw_exec"}) || n.Group != 1 {
		t.Errorf("node %+v", n)
	}
	if d := got.Nodes[0].Devices; len(d) != 1 || d[0] != (router.NodeDevice{Name: "nvidia/gpu/L4", Total: 1}) {
		t.Errorf("devices %+v", d)
	}
	because := func(n int, text string) []router.FleetReason { return []router.FleetReason{{Text: text, Nodes: n}} }
	wantRules := []router.RuleFleet{
		{Rule: "any", RunsOn: []string{"linux"}, NodeCounts: router.NodeCounts{Now: 2, Idle: 1, Away: 1}, Cells: []router.FleetCell{
			{NodeCounts: router.NodeCounts{Away: 1}, Why: because(1, "is down")},
			{NodeCounts: router.NodeCounts{Now: 1, Idle: 1}, Why: because(1, "has no room now for 4 GiB of memory (defaults)")},
			{NodeCounts: router.NodeCounts{Now: 1}, Why: []router.FleetReason{}},
		}},
		{Rule: "arm", NodeCounts: router.NodeCounts{Never: 4}, Cells: []router.FleetCell{
			{NodeCounts: router.NodeCounts{Never: 1}, Why: because(1, "is in another pool than ci (defaults)")},
			{NodeCounts: router.NodeCounts{Never: 2}, Why: because(2, "is in another pool than ci (defaults)")},
			{NodeCounts: router.NodeCounts{Never: 1}, Why: because(1, "is too small for 5 GiB of memory (defaults)")},
		}},
		{Rule: "lost", Problem: `there is no jobspec "no-such": add it to the jobspecs, or correct the rule`, Cells: []router.FleetCell{}},
	}
	if diff := cmp.Diff(wantRules, got.Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if again := on.Fleet(t.Context(), examples); again.At != got.At || &again.Rules[0] != &got.Rules[0] {
		t.Error("within seconds it was found out again")
	}
}

// Nomad is asked by one at a time; away, the last answer stands, with since
// when and why; back, it is asked for what changed alone.
func TestTheFleetOutlivesNomad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
		defer sim.Close()
		var away atomic.Bool
		var lists, infos atomic.Int32
		c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case away.Load():
				http.Error(w, "No cluster leader", http.StatusInternalServerError)
				return
			case r.URL.Path == "/v1/nodes" && !r.URL.Query().Has("per_page"):
				lists.Add(1)
			case strings.HasPrefix(r.URL.Path, "/v1/node/"):
				infos.Add(1)
			}
			sim.ServeHTTP(w, r)
		}))
		refreshing(t, c)
		examples := []router.Example{{Rule: "r", Placement: ask("r").Placement}}

		away.Store(true)
		first := c.Fleet(t.Context(), examples)
		if first.At != nil || first.Problem == nil || !strings.Contains(first.Problem.Reason, "No cluster leader") || first.Nodes == nil || first.Rules == nil {
			t.Errorf("without an answer ever: %+v", first)
		}
		away.Store(false)
		if still := c.Fleet(t.Context(), examples); still.At != nil || lists.Load() != 0 {
			t.Error("Nomad was asked again at once")
		}
		var all sync.WaitGroup
		renewed := renew(c)
		for range 20 {
			all.Go(func() { c.Fleet(t.Context(), examples) })
		}
		all.Wait()
		<-renewed
		if now := c.Fleet(t.Context(), examples); len(now.Nodes) != 8 || now.Problem != nil || now.Rules[0].Now == 0 {
			t.Errorf("with an answer: %+v", now)
		}
		if lists.Load() != 1 || infos.Load() != 8 {
			t.Errorf("%d lists and %d nodes were asked for, want 1 and 8", lists.Load(), infos.Load())
		}
		<-renew(c)
		if lists.Load() != 1 || infos.Load() != 8 {
			t.Errorf("%d lists and %d nodes were asked for when nothing had changed, want 1 and 8", lists.Load(), infos.Load())
		}
		if err := sim.FailNode("mac-1"); err != nil {
			t.Fatal(err)
		}
		<-renew(c)
		if now := c.Fleet(t.Context(), examples); infos.Load() != 9 || !slices.ContainsFunc(now.Nodes, func(n router.Node) bool { return n.Name == "mac-1" && n.State == "down" }) {
			t.Errorf("%d nodes were read, %+v", infos.Load(), now.Nodes)
		}
		fits := c.Fleet(t.Context(), examples).Rules
		away.Store(true)
		before := time.Now()
		<-renew(c)
		last := c.Fleet(t.Context(), examples)
		if len(last.Nodes) != 8 || last.Problem == nil || last.Problem.Since.Before(before) || &last.Rules[0] != &fits[0] {
			t.Errorf("away again: %+v", last)
		}
		time.Sleep(time.Second)
		<-renew(c)
		if later := c.Fleet(t.Context(), examples); later.Problem == nil || !later.Problem.Since.Equal(last.Problem.Since) {
			t.Errorf("away for longer: %+v, want the same time", later.Problem)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("the page was left"))
		renew(c)
		if left := c.Fleet(ctx, examples); len(left.Nodes) != 8 {
			t.Errorf("for one who left: %+v", left)
		}
	})
}

// renew makes what is known of the fleet too old, and has Nomad asked; what it returns is
// closed when Nomad has answered.
func renew(c *Client) <-chan struct{} {
	c.fleet.mu.Lock()
	defer c.fleet.mu.Unlock()
	c.fleet.asked = time.Time{}
	select {
	case c.fleet.wake <- struct{}{}:
	default:
	}
	return c.fleet.done
}

// refreshing runs RefreshFleet until the test ends.
func refreshing(t testing.TB, c *Client) {
	ctx, cancel := context.WithCancel(t.Context())
	var runs sync.WaitGroup
	runs.Go(func() {
		if err := c.RefreshFleet(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); runs.Wait() })
}

// While nodes are read, whoever asks gets what is known, and how far it is.
func TestTheFleetIsReadBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := nomadsim.MixedFleet()
		sim := nomadsim.New(nomadsim.Config{Nodes: nodes})
		defer sim.Close()
		var slow atomic.Int64 // so long takes the read of mac-1
		c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/node/"+nodes[4].ID {
				select {
				case <-time.After(time.Duration(slow.Load())):
				case <-r.Context().Done():
				}
			}
			sim.ServeHTTP(w, r)
		}))
		refreshing(t, c)
		slow.Store(int64(3 * time.Second))
		began := time.Now()
		first := c.Fleet(t.Context(), nil)
		if took := time.Since(began); took != firstWait || first.At != nil || first.Problem != nil {
			t.Errorf("the first answer came after %v: %+v", took, first)
		}
		if diff := cmp.Diff(&router.FleetReading{Read: 7, Nodes: 8}, first.Reading); diff != "" {
			t.Errorf("how far it is (-want +got):\n%s", diff)
		}
		if again := c.Fleet(t.Context(), nil); time.Since(began) != 3*time.Second || again.At == nil || again.Reading != nil || len(again.Nodes) != 8 {
			t.Errorf("the second one came after %v: %+v", time.Since(began), again)
		}
		time.Sleep(time.Hour)
		if err := sim.FailNode("mac-1"); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		old := c.Fleet(t.Context(), nil)
		if took := time.Since(began); took != fleetWait || len(old.Nodes) != 8 || time.Since(*old.At) < time.Hour {
			t.Errorf("an old answer came after %v: %+v", took, old)
		}
		if diff := cmp.Diff(&router.FleetReading{}, old.Reading); diff != "" {
			t.Errorf("how far it is, as the list is read again (-want +got):\n%s", diff)
		}
		time.Sleep(3 * time.Second)
		if now := c.Fleet(t.Context(), nil); now.Reading != nil || time.Since(*now.At) > 4*time.Second {
			t.Errorf("later: %+v", now)
		}

		slow.Store(int64(time.Minute)) // longer than anybody waits
		time.Sleep(time.Hour)
		if err := sim.RestoreNode("mac-1"); err != nil {
			t.Fatal(err)
		}
		c.Fleet(t.Context(), nil)
		time.Sleep(fleetTimeout)
		if now := c.Fleet(t.Context(), nil); now.Problem == nil || now.Problem.Reason != "no answer came from Nomad for 10s" || len(now.Nodes) != 8 {
			t.Errorf("a Nomad that does not answer: %+v", now.Problem)
		}
	})
}

// A rule that cannot be compared costs itself alone: not the nodes that were read, not those
// who ask, and not more than once.
func TestARuleThatCannotBeReadCostsOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
		defer sim.Close()
		var lists, reads atomic.Int32
		c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/job/silent":
				reads.Add(1)
				<-r.Context().Done()
				return
			case "/v1/nodes":
				lists.Add(1)
			}
			sim.ServeHTTP(w, r)
		}))
		refreshing(t, c)
		examples := []router.Example{{Rule: "plain", Placement: ask("plain").Placement}, {Rule: "silent", Placement: router.Placement{Dispatch: "silent"}}}
		began := time.Now()
		fleet := c.Fleet(t.Context(), examples)
		for fleet.Reading != nil && time.Since(began) < time.Minute {
			fleet = c.Fleet(t.Context(), examples)
		}
		if took := time.Since(began); took != fleetTimeout || fleet.Problem != nil || len(fleet.Nodes) != 8 {
			t.Fatalf("after %v: %+v, %+v", took, fleet, fleet.Problem)
		}
		if r := fleet.Rules; len(r) != 2 || r[0].Now == 0 || !strings.Contains(r[1].Problem, "read job silent") {
			t.Errorf("the rules are %+v", r)
		}
		began = time.Now()
		again := c.Fleet(t.Context(), examples)
		if &again.Rules[0] != &fleet.Rules[0] || !time.Now().Equal(began) || reads.Load() != 1 {
			t.Errorf("it took %v and %d reads to tell it again", time.Since(began), reads.Load())
		}
		other := c.Fleet(t.Context(), examples[:1])
		if len(other.Rules) != 1 || other.Rules[0].Now == 0 || other.Reading != nil || lists.Load() != 1 {
			t.Errorf("for other rules it is %+v with %d lists, want one", other.Rules, lists.Load())
		}
	})
}

// The time for one answer of Nomad's is not that of several, nor that of a wait for others.
func TestEachAnswerAboutTheFleetHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
		defer sim.Close()
		c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(fleetTimeout - time.Second)
			sim.ServeHTTP(w, r)
		}))
		for range 2 {
			kept := c.keptRegion("")
			kept.turn.TryAcquire(1)
			time.AfterFunc(fleetTimeout-time.Second, func() { kept.turn.Release(1) })
			c.refreshFleet(t.Context())
			if f := c.Fleet(gone(t), nil); f.Problem != nil || len(f.Nodes) != 8 {
				t.Errorf("of %d nodes: %+v", len(f.Nodes), f.Problem)
			}
			time.Sleep(time.Hour)
			if err := errors.Join(sim.FailNode("mac-1"), sim.FailNode("mac-2")); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A node without a driver that works has an empty list of them.
func TestANodeWithoutDriversHasNone(t *testing.T) {
	nodes := nomadsim.MixedFleet()[:1]
	nodes[0].Drivers = nil
	on := newCluster(t, nomadsim.Config{Nodes: nodes})
	on.refreshFleet(t.Context())
	if f := on.Fleet(t.Context(), nil); len(f.Nodes) != 1 || f.Nodes[0].Drivers == nil {
		t.Errorf("%+v", f.Nodes)
	}
}

// Nodes alike but for the IDs of their devices are told apart by a rule that names one.
func TestDevicesAreToldApartByTheirIDs(t *testing.T) {
	gpu := func(name string) *api.Node {
		return nomadsim.NewNode(nomadsim.Machine{Name: name, Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 8 << 10, GPUs: 1})
	}
	on := newCluster(t, nomadsim.Config{Nodes: []*api.Node{gpu("a"), gpu("b")}})
	id := router.Device{Name: "gpu", Count: 1, Constraints: []router.Constraint{{Attribute: "${device.ids}", Operator: "set_contains", Value: "b-gpu-0"}}}
	examples := []router.Example{{Rule: "r", Placement: ask("r", id).Placement}}
	on.Fleet(gone(t), examples)
	on.refreshFleet(t.Context())
	if r := on.Fleet(t.Context(), examples).Rules[0]; r.Now != 1 || r.Never != 1 {
		t.Errorf("%+v, want one of two nodes", r)
	}
}

// The nodes of each region that the rules name are read there; one that is away costs only its own.
func TestTheFleetOfSeveralRegions(t *testing.T) {
	config := func(region, node string) nomadsim.Config {
		return nomadsim.Config{Region: region, Nodes: []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: node, Kernel: "linux", Arch: "amd64", Cores: 2, MemoryMB: 4096})}}
	}
	on, tokyo := nomadtest.Simulated(t, config("osaka", "o-1")), nomadtest.Simulated(t, config("tokyo", "t-1"))
	on.Sim.Join(tokyo.Sim)
	c := answered(t, on.Sim)
	example := func(region string) router.Example {
		return router.Example{Rule: "in " + region, Placement: ask(region, func(p *router.Placement) { p.Region = region }).Placement}
	}
	examples := []router.Example{example(""), example("tokyo"), example("osaka")}
	read := func() router.Fleet {
		c.Fleet(gone(t), examples)
		c.refreshFleet(t.Context())
		return c.Fleet(gone(t), examples)
	}
	c.Home(t.Context(), examples[2].Placement) // so that the name of its own is known
	f := read()
	if len(f.Nodes) != 2 || f.Nodes[0].Name != "o-1" || f.Nodes[0].Region != "" || f.Nodes[1].Name != "t-1" || f.Nodes[1].Region != "tokyo" || len(f.Groups) != 2 || f.Groups[1].Region != "tokyo" {
		t.Errorf("nodes %+v in groups %+v", f.Nodes, f.Groups)
	}
	for i, group := range []int{0, 1, 0} {
		if r := f.Rules[i]; r.Problem != "" || r.Now != 1 || r.Never != 0 || r.Cells[group].Now != 1 {
			t.Errorf("rule %s: %+v, want its node in group %d", r.Rule, r, group)
		}
	}
	tokyo.Sim.SetFault(nomadsim.Refusing, 0)
	c.fleet.asked = time.Time{}
	f = read()
	if len(f.Nodes) != 1 || f.Problem != nil || f.Rules[0].Now != 1 || !strings.Contains(f.Rules[1].Problem, "of region tokyo: the region is away") {
		t.Errorf("nodes %+v, problem %v, rules %+v", f.Nodes, f.Problem, f.Rules)
	}
}
