package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
)

const warmRegions = `
version: 1
labels: { self-hosted: {}, linux: {}, tokyo: {}, large: { resources: { memory: 7GiB } } }
defaults: { resources: { cpu: 500, memory: 2GiB } }
rules:
  - { name: tokyo, if: 'has("tokyo")', jobspec: docker-linux, region: tokyo, warm: { idle: 2 } }
  - { name: linux, if: 'has("linux")', jobspec: docker-linux, warm: { idle: 2 } }
`

// twoRegions is a world with one node of the same name in each of two regions, of which that in
// tokyo is larger.
func twoRegions(t *testing.T) (w *routertest.World, tokyo *nomadsim.Server) {
	node := func(memory int) []*api.Node {
		return []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: "one", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: memory})}
	}
	w = routertest.New(t, routertest.Config{Network: &network, Cluster: nomadsim.Config{Nodes: node(6 << 10)}, Rules: warmRegions})
	return w, w.Region(nomadsim.Config{Region: "tokyo", Nodes: node(8 << 10)})
}

// warmIn returns the warm runners that wait, by region.
func warmIn(w *routertest.World, n int) map[string][]router.WarmRunner {
	of := map[string][]router.WarmRunner{}
	for _, one := range awaitWarm(w, n) {
		of[one.NomadAt.Region] = append(of[one.NomadAt.Region], one)
	}
	return of
}

// ended reports whether the Nomad job of a warm runner has ended, in its region.
func ended(w *routertest.World, one router.WarmRunner) bool {
	j, _, err := w.API.Jobs().Info(one.ID, &api.QueryOptions{Region: one.NomadAt.Region})
	return err != nil || *j.Status == "dead"
}

// A job gets a warm runner of its region, and makes room there alone.
func TestWarmRunnersOfARegion(t *testing.T) { bubble(t, testWarmRunnersOfARegion) }
func testWarmRunnersOfARegion(t *testing.T) {
	w, _ := twoRegions(t)
	w.Start()
	of := warmIn(w, 4)
	if len(of[""]) != 2 || len(of["tokyo"]) != 2 {
		t.Fatalf("the warm runners are %+v", of)
	}
	id := w.Queue("self-hosted", "tokyo")
	w.Await(id, in(router.Completed))
	if r := w.Runners(id)[0]; !router.IsWarm(r.NomadJob) || r.NomadAt.Region != "tokyo" {
		t.Errorf("the job ran on %+v, want a warm runner in tokyo", r)
	}

	of = warmIn(w, 4)
	id = w.Queue("self-hosted", "tokyo", "large")
	w.Await(id, in(router.Running))
	for region, ready := range of {
		for _, one := range ready {
			if gone := ended(w, one); gone != (region == "tokyo") {
				t.Errorf("the warm runner %s in region %q is stopped: %t", one.ID, region, gone)
			}
		}
	}
}

// While a region answers nothing, the warm runners of others come and go as usual; its own are
// changed when it is back.
func TestWarmRunnersWhileARegionIsSilent(t *testing.T) {
	bubble(t, testWarmRunnersWhileARegionIsSilent)
}
func testWarmRunnersWhileARegionIsSilent(t *testing.T) {
	w, tokyo := twoRegions(t)
	w.Start()
	of := warmIn(w, 4)
	tokyo.SetFault(nomadsim.Silent, 0)
	names(t, w)
	time.Sleep(2 * time.Minute) // in which its stream of events is missed
	began := time.Now()
	w.App.Reload(routertest.Parse(t, strings.Replace(warmRegions, "2GiB", "1GiB", 1)), router.RulesVersion{Hash: "smaller"})
	eventually(t, "those of the region that answers are replaced", func() bool { return ended(w, of[""][0]) && ended(w, of[""][1]) })
	for _, one := range warmIn(w, 2)[""] {
		if one.Asked.MemoryMB != 1<<10 {
			t.Errorf("%+v waits", one)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	tokyo.SetFault(nomadsim.Healthy, 0)
	eventually(t, "the old ones in tokyo are gone", func() bool { return ended(w, of["tokyo"][0]) && ended(w, of["tokyo"][1]) })
	if again := warmIn(w, 4)["tokyo"]; len(again) != 2 || again[0].Asked.MemoryMB != 1<<10 || again[1].Asked.MemoryMB != 1<<10 {
		t.Errorf("in tokyo wait %+v", again)
	}
}
