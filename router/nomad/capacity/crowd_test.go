package capacity

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
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

// counted is a simulated Nomad whose requests are counted, and its client.
func counted(t *testing.T, nodes []*api.Node) (c *Client, sim *nomadsim.Server, asked func() string) {
	t.Helper()
	sim = nomadsim.New(nomadsim.Config{Nodes: nodes})
	t.Cleanup(sim.Close)
	var mu sync.Mutex
	var full, lists, checks, reads, plans int
	c = answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		switch {
		case r.URL.Path == "/v1/nodes" && r.URL.Query().Has("per_page"):
			checks++
		case r.URL.Path == "/v1/nodes" && r.URL.Query().Has("resources"):
			full++
		case r.URL.Path == "/v1/nodes":
			lists++
		case strings.HasPrefix(r.URL.Path, "/v1/node/"):
			reads++
		case strings.HasSuffix(r.URL.Path, "/plan"):
			plans++
		}
		mu.Unlock()
		sim.ServeHTTP(w, r)
	}))
	return c, sim, func() string {
		mu.Lock()
		defer mu.Unlock()
		said := fmt.Sprintf("%d full and %d short lists, %d checks, %d reads, %d plans", full, lists, checks, reads, plans)
		full, lists, checks, reads, plans = 0, 0, 0, 0, 0
		return said
	}
}

// Why a job can never have a node is found out once for all that ask the same, and again
// when the nodes have changed; then those that changed are read again, and no others.
func TestACrowdCostsOneListAndOnePlan(t *testing.T) {
	nodes := nomadsim.LargeFleet(300) // nine of them are out of service, five of those run Linux
	c, sim, asked := counted(t, nodes)
	explain := func(i int, parts ...any) *router.Unplaced {
		t.Helper()
		r := nomadtest.Request(ask("linux", parts...).Placement)
		r.Job.ID, r.Job.Try, r.Job.RunID = int64(i), 1, int64(i)
		r.Runner = router.Runner{ID: r.Job.RunnerID(), JobID: r.Job.ID, Try: 1, Name: r.Job.RunnerID()}
		r.ClaimToken = router.Secret(fmt.Sprint("token-", i))
		if _, err := c.Start(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		u, err := c.Unplaced(t.Context(), placed(r, "linux"), r.Runner)
		if err != nil || u == nil || !u.Never {
			t.Fatalf("job %d: %+v, %v, want a reason why it never has a node", i, u, err)
		}
		return u
	}
	crowd := []any{pool("all"), linux, router.Constraint{Attribute: "${meta.zone}", Operator: "=", Value: "nowhere", From: "rule linux"}}
	first := explain(1, crowd...)
	if got, want := asked(), "1 full and 0 short lists, 0 checks, 9 reads, 1 plans"; got != want {
		t.Errorf("the first one cost %s, want %s", got, want)
	}
	for i := range 10 {
		again := explain(2+i, crowd...)
		again.At = first.At
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("another one is told (-first +another):\n%s", diff)
		}
	}
	if got, want := asked(), "0 full and 0 short lists, 10 checks, 0 reads, 0 plans"; got != want {
		t.Errorf("ten more cost %s, want %s", got, want)
	}
	if other := explain(20, pool("all"), linux, coresOf(500)); strings.Contains(other.Text, "zone") {
		t.Errorf("one that asks for something else is told %q", other.Text)
	}
	if got, want := asked(), "0 full and 0 short lists, 1 checks, 0 reads, 1 plans"; got != want {
		t.Errorf("one that asks for something else cost %s, want %s", got, want)
	}
	runs := nomadtest.Request(ask("linux", pool("ci"), linux).Placement)
	runs.Runner.ID = "gha-99-1"
	ran, err := c.Start(t.Context(), runs)
	if err != nil {
		t.Fatal(err)
	}
	nomadtest.Await(t, "a job to have run", func() bool {
		list, _, err := c.API().Jobs().Allocations(ran.NomadJob, false, nil)
		return err == nil && len(list) == 1 && list[0].ClientStatus == "complete"
	})
	asked()
	busy := explain(22, crowd...)
	busy.At = first.At
	if diff := cmp.Diff(first, busy); diff != "" {
		t.Errorf("while others run one is told (-first +another):\n%s", diff)
	}
	if got, want := asked(), "0 full and 1 short lists, 1 checks, 0 reads, 0 plans"; got != want {
		t.Errorf("while others run one cost %s, want %s", got, want)
	}
	if err := sim.FailNode(nodes[0].Name); err != nil {
		t.Fatal(err)
	}
	if changed := explain(21, crowd...); changed.Evaluated != first.Evaluated-1 {
		t.Errorf("after a node failed %d nodes are left of %d", changed.Evaluated, first.Evaluated)
	}
	if got, want := asked(), "0 full and 1 short lists, 1 checks, 1 reads, 1 plans"; got != want {
		t.Errorf("after a node failed one cost %s, want %s", got, want)
	}
}

// A node that comes between a plan and the next list takes no part in what the plan said.
func TestNeverIsNotKeptForNodesThatThePlanDidNotSee(t *testing.T) {
	nodes := nomadsim.MixedFleet()
	nodes[2].SchedulingEligibility = "ineligible" // linux-arm-1
	sim := nomadsim.New(nomadsim.Config{Nodes: nodes})
	defer sim.Close()
	c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/evaluations") {
			fmt.Fprint(w, `[{"Status":"blocked"}]`)
			return
		}
		sim.ServeHTTP(w, r)
		if strings.HasSuffix(r.URL.Path, "/plan") {
			if err := sim.SetEligible("linux-arm-1", true); err != nil {
				t.Error(err)
			}
		}
	}))
	r := nomadtest.Request(ask("arm", linux, arm).Placement)
	if _, err := c.Start(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if u, err := c.Unplaced(t.Context(), placed(r, "arm"), r.Runner); err != nil || u == nil || !u.Never || !u.Away {
		t.Errorf("while the node is ineligible: %+v, %v, want that only it would do", u, err)
	}
	if u, err := c.Unplaced(t.Context(), placed(r, "arm"), r.Runner); err != nil || u != nil {
		t.Errorf("with the node: %+v, %v, want none", u, err)
	}
}

// A token that has lost node read still gets a reason.
func TestAReasonThatIsKnownNeedsNodeRead(t *testing.T) {
	sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
	defer sim.Close()
	var denied atomic.Bool
	c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if denied.Load() && strings.HasPrefix(r.URL.Path, "/v1/node") {
			http.Error(w, "Permission denied", http.StatusForbidden)
			return
		}
		sim.ServeHTTP(w, r)
	}))
	r := nomadtest.Request(ask("sun", equal("${attr.kernel.name}", "sunos", "rule sun")).Placement)
	if _, err := c.Start(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, without := range []bool{false, true} {
		denied.Store(without)
		if u, err := c.Unplaced(t.Context(), placed(r, "sun"), r.Runner); err != nil || u == nil || u.Never == without || u.Text == "" {
			t.Errorf("without node read %t: %+v, %v", without, u, err)
		}
	}
}

// Those who ask while the nodes are read share one more reading, which begins after they asked.
func TestWhoeverWaitsForTheNodesSharesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var index atomic.Int64
		c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			w.Header().Set("X-Nomad-Index", strconv.FormatInt(index.Add(1), 10))
			fmt.Fprint(w, `[]`)
		}))
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := c.region(t.Context(), "", func() {}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := index.Load(); n != 3 {
			t.Errorf("Nomad was asked %d times, want a list, and once more for its index and a list", n)
		}
	})
}

// A list that is read again has what changed, be it few nodes or many.
func TestNodesAreListedAgainAsTheyAre(t *testing.T) {
	nodes := nomadsim.LargeFleet(100)
	c, sim, asked := counted(t, nodes)
	check := func(want string) {
		t.Helper()
		got, err := c.region(t.Context(), "", func() {})
		if err != nil {
			t.Fatal(err)
		}
		if said := asked(); said != want {
			t.Errorf("it cost %s, want %s", said, want)
		}
		fresh, err := New(c.Client).region(t.Context(), "", func() {})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fresh.hosts, got.hosts, cmp.AllowUnexported(host{}, resources{}, amount{})); diff != "" {
			t.Errorf("the nodes differ (-as they are +as they are kept):\n%s", diff)
		}
		asked()
	}
	check("1 full and 0 short lists, 0 checks, 0 reads, 0 plans")
	check("0 full and 0 short lists, 1 checks, 0 reads, 0 plans")
	for _, few := range nodes[:3] {
		if err := sim.FailNode(few.Name); err != nil {
			t.Fatal(err)
		}
	}
	check("0 full and 1 short lists, 1 checks, 3 reads, 0 plans")
	for _, many := range nodes[20:80] {
		if err := sim.SetEligible(many.Name, false); err != nil {
			t.Fatal(err)
		}
	}
	check("1 full and 1 short lists, 1 checks, 0 reads, 0 plans")
	check("0 full and 0 short lists, 1 checks, 0 reads, 0 plans")
}

// Nodes that come or go between two lists, or between a list and the read of one, are the
// only ones that differ, and nothing is kept of those that went.
func TestNodesThatComeAndGo(t *testing.T) {
	all := nomadsim.MixedFleet()
	var there []*api.Node
	index, gone, full := 0, "", 0
	c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Nomad-Index", strconv.Itoa(index))
		var answer any = there
		if id, one := strings.CutPrefix(r.URL.Path, "/v1/node/"); one {
			i := slices.IndexFunc(there, func(n *api.Node) bool { return n.ID == id && id != gone })
			if i < 0 {
				http.Error(w, "node not found", http.StatusNotFound)
				return
			}
			answer = there[i]
		} else if r.URL.Query().Has("resources") {
			full++
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	for _, step := range []struct {
		there []*api.Node
		gone  string // when it is read
		want  string
	}{
		{all[:3], "", "linux-1 linux-2 linux-arm-1"},
		{all[1:4], "", "linux-2 linux-arm-1 linux-gpu-1"},
		{all[1:5], all[4].ID, "linux-2 linux-arm-1 linux-gpu-1"},
		{all[3:4], "", "linux-gpu-1"},
	} {
		there, gone = step.there, step.gone
		index++
		in, err := c.region(t.Context(), "", func() {})
		if err != nil {
			t.Fatal(err)
		}
		known, err := in.details.read(t.Context(), c, in.hosts, func(int) {})
		var names []string
		for _, h := range in.hosts {
			names = append(names, h.name)
		}
		if got := strings.Join(names, " "); err != nil || got != step.want || len(known) != len(in.hosts) || len(in.details.of) != len(in.hosts) {
			t.Errorf("it has %s, %d read and %d kept (%v), want %s", got, len(known), len(in.details.of), err, step.want)
		}
	}
	if full != 1 {
		t.Errorf("%d lists with resources, want 1", full)
	}
}

// Nodes are listed only to say why some route has none.
func TestASurveyListsNodesOnlyToExplain(t *testing.T) {
	c, _, asked := counted(t, nomadsim.LargeFleet(300))
	if got, err := c.Survey(t.Context(), []Route{ask("a", pool("ci")), ask("b", pool("ci"), arm)}); err != nil || got != nil {
		t.Fatalf("Survey = %v, %v", got, err)
	}
	if got, want := asked(), "0 full and 0 short lists, 1 checks, 0 reads, 2 plans"; got != want {
		t.Errorf("routes that all have nodes cost %s, want %s", got, want)
	}
	for _, routes := range [][]Route{{ask("a", in("osaka", "nowhere"), pool("ci"))}, {ask("a", pool("ci"), gpus(1))}} {
		if got, err := c.Survey(t.Context(), routes); err != nil || len(got) != 1 {
			t.Errorf("Survey = %v, %v, want one finding", got, err)
		}
	}
	if got, want := asked(), "1 full and 0 short lists, 3 checks, 0 reads, 2 plans"; got != want {
		t.Errorf("routes that do not cost %s, want %s", got, want)
	}
}

// Nodes that no constraint tells apart share what constraints see of them; what is unique to
// one stays its own.
func TestNodesAlikeShareWhatIsKeptOfThem(t *testing.T) {
	nodes := nomadsim.LargeFleet(12) // of which some are alike, such as the first three
	h, known := keep(t, nodes...)
	if n := len(known.kinds); n != 7 {
		t.Errorf("%d nodes are of %d kinds, want 7", len(nodes), n)
	}
	last := nodes[len(nodes)-1] // it has GPUs
	got := known.of[last.ID].node(h)
	for what, diff := range map[string]string{
		"attributes": cmp.Diff(last.Attributes, got.Attributes), "meta": cmp.Diff(last.Meta, got.Meta), "name": cmp.Diff(last.Name, got.Name),
		"devices": cmp.Diff(last.NodeResources.Devices, got.NodeResources.Devices),
	} {
		if diff != "" {
			t.Errorf("%s differ (-had +kept):\n%s", what, diff)
		}
	}
	known.forget([]*host{h})
	if len(known.of) != 1 || len(known.kinds) != 1 {
		t.Errorf("of one node that is left, %d and %d kinds are kept", len(known.of), len(known.kinds))
	}
}

func TestReasonsThatAreKeptAreNotTooMany(t *testing.T) {
	r := &region{never: map[[32]byte]*router.Unplaced{}}
	for i := range 3 * maxNever {
		r.keepNever([32]byte{byte(i), byte(i >> 8)}, &router.Unplaced{})
	}
	if n := len(r.never); n == 0 || n > maxNever {
		t.Errorf("%d reasons are kept, want at most %d", n, maxNever)
	}
}
