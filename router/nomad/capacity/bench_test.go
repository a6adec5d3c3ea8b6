package capacity

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
)

// The first look reads every node, a later one the lists alone; each then
// holds the nodes against the rules.
func BenchmarkFleet(b *testing.B) {
	const nodes, rules = 2000, 100
	var machines []*api.Node
	for i := range nodes {
		machines = append(machines, nomadsim.NewNode(nomadsim.Machine{
			Name: fmt.Sprintf("node-%04d", i), Kernel: "linux", Arch: []string{"amd64", "arm64"}[i%2], Cores: 8 << (i % 3), MemoryMB: 32 << 10, Class: fmt.Sprintf("class-%d", i%10),
		}))
	}
	sim := nomadsim.New(nomadsim.Config{Nodes: machines})
	defer sim.Close()
	server := httptest.NewServer(sim)
	defer server.Close()
	var examples []router.Example
	for i := range rules {
		examples = append(examples, router.Example{Rule: fmt.Sprint(i), Placement: ask("r", router.Constraint{Attribute: "${node.class}", Operator: "=", Value: fmt.Sprintf("class-%d", i%12)}, coresOf(1+i%20)).Placement})
	}
	c := newClient(b, &api.Config{Address: server.URL})
	for _, look := range []string{"first", "later"} {
		b.Run(fmt.Sprintf("nodes=%d/rules=%d/%s", nodes, rules, look), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.nodes.asked = time.Time{}
				if look == "first" {
					c.nodes.read = nil
				}
				if f := c.Fleet(b.Context(), examples); f.Problem != nil || len(f.Nodes) != nodes {
					b.Fatalf("%d nodes, %+v", len(f.Nodes), f.Problem)
				}
			}
		})
	}
}
