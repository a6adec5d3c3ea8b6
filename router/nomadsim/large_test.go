package nomadsim

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

// What the fleet costs those who read it is what a real one costs: HashiCorp's own node
// simulator has 3.5 kB of each node in a listing with resources.
func TestALargeFleetSaysAsMuchAsRealNodes(t *testing.T) {
	const n = 1000
	s := New(Config{Nodes: LargeFleet(n)})
	defer s.Close()
	size := func(path string) (body []byte) {
		t.Helper()
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		return w.Body.Bytes()
	}
	all := size("/v1/nodes?resources=true")
	var list []struct {
		ID, NodePool, Datacenter, NodeClass, Status, SchedulingEligibility string
	}
	if err := json.Unmarshal(all, &list); err != nil || len(list) != n {
		t.Fatalf("%d nodes, %v", len(list), err)
	}
	if each := len(all) / n; each < 2500 || each > 4000 {
		t.Errorf("a node takes %d bytes of the listing, want about 3,400", each)
	}
	if one := len(size("/v1/node/" + list[0].ID)); one < 5000 || one > 9000 {
		t.Errorf("a node alone takes %d bytes, want about 7,000", one)
	}
	kinds := map[string]map[string]bool{"pools": {}, "datacenters": {}, "classes": {}, "states": {}}
	for _, node := range list {
		kinds["pools"][node.NodePool], kinds["datacenters"][node.Datacenter], kinds["classes"][node.NodeClass] = true, true, true
		kinds["states"][node.Status+node.SchedulingEligibility] = true
	}
	for what, want := range map[string]int{"pools": 4, "datacenters": 3, "classes": 6, "states": 3} {
		if got := len(kinds[what]); got != want {
			t.Errorf("%d %s, want %d", got, what, want)
		}
	}
}
