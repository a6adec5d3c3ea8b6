package server_test

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

const regionRules = `
rules:
  - { name: tokyo, if: 'has("tokyo")', jobspec: docker-linux, region: tokyo }
  - { name: linux, if: 'has("linux")', jobspec: docker-linux }
`

// A job of a rule with a region gets its runner there, which is followed there and ends.
func TestAJobOfAnotherRegion(t *testing.T) { bubble(t, testAJobOfAnotherRegion) }

func testAJobOfAnotherRegion(t *testing.T) {
	w := newWorld(t, regionRules)
	w.Region(nomadsim.Config{Region: "tokyo"})
	w.Start()
	there, here := w.Queue("self-hosted", "tokyo"), w.Queue("self-hosted", "linux")
	for id, region := range map[int64]string{there: "tokyo", here: ""} {
		w.Await(id, in(router.Completed))
		r := w.Runners(id)[0]
		if r.NomadAt != (router.NomadAt{Namespace: "default", Region: region}) || r.Node == "" {
			t.Errorf("the runner of job %d is in %+v on node %q", id, r.NomadAt, r.Node)
		}
		eventually(t, "its end is recorded", func() bool { return !w.Runners(id)[0].EndedAt.IsZero() })
	}
}

// While a region is away its jobs wait and say so, and others go on; then they are served.
func TestARegionThatIsAway(t *testing.T) { bubble(t, testARegionThatIsAway) }

func testARegionThatIsAway(t *testing.T) {
	w := newWorld(t, regionRules)
	tokyo := w.Region(nomadsim.Config{Region: "tokyo"})
	tokyo.SetFault(nomadsim.Refusing, 0)
	w.Start()
	there := w.Queue("self-hosted", "tokyo")
	w.Await(there, func(j router.Job) bool { return j.State == router.Retrying && j.Cause == router.CauseNomad })
	for range 20 {
		began := time.Now()
		w.Await(w.Queue("self-hosted", "linux"), in(router.Completed))
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a job of another region took %s", took)
		}
	}
	if j, err := w.Store.Job(t.Context(), there); err != nil || j.State != router.Retrying || !strings.Contains(j.Reason, "region tokyo: the region is away") {
		t.Errorf("the job of the region that is away is %s: %s, %v", j.State, j.Reason, err)
	}
	names(t, w)
	tokyo.SetFault(nomadsim.Healthy, 0)
	w.Await(there, in(router.Completed))
}

// names waits until /readyz says which region it is that fails.
func names(t *testing.T, w *routertest.World) {
	t.Helper()
	readyz(t, w.App, "a trouble names the region", func(code int, r server.Readiness) bool {
		return code == http.StatusOK && r.Status == "degraded" && slices.ContainsFunc(r.Troubles, func(t router.Trouble) bool { return strings.Contains(t.What, "region tokyo") })
	})
}

// While a region leaves every request without an answer, its jobs say so, and those of others
// do not wait for it.
func TestARegionThatIsSilent(t *testing.T) { bubble(t, testARegionThatIsSilent) }

func testARegionThatIsSilent(t *testing.T) {
	w := newWorld(t, regionRules)
	tokyo := w.Region(nomadsim.Config{Region: "tokyo"})
	w.Start()
	w.Await(w.Queue("self-hosted", "tokyo"), in(router.Completed))
	tokyo.SetFault(nomadsim.Silent, 0)
	var there []int64
	for range 40 { // more than there are senders
		there = append(there, w.Queue("self-hosted", "tokyo"))
	}
	time.Sleep(time.Second)
	for range 20 {
		began := time.Now()
		w.Await(w.Queue("self-hosted", "linux"), in(router.Completed))
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("a job of another region took %s", took)
		}
	}
	for _, id := range there {
		w.Await(id, func(j router.Job) bool {
			return j.Cause == router.CauseSilent && strings.Contains(j.Reason, "region tokyo has not answered")
		})
	}
	names(t, w)
	tokyo.SetFault(nomadsim.Healthy, 0)
	for _, id := range there {
		w.Await(id, in(router.Completed))
	}
	readyz(t, w.App, "all is well", func(_ int, r server.Readiness) bool { return r.Status == "ok" })
}

// After the database is lost, the runners of each region are taken up.
func TestRunnersOfEachRegionAreTakenUp(t *testing.T) {
	bubble(t, testRunnersOfEachRegionAreTakenUp)
}

func testRunnersOfEachRegionAreTakenUp(t *testing.T) {
	w := newWorld(t, regionRules)
	w.Region(nomadsim.Config{Region: "tokyo"})
	w.Start()
	long := func(label string) int64 {
		return w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", label}, Duration: time.Hour})
	}
	jobs := map[int64]string{long("tokyo"): "tokyo", long("linux"): ""}
	for id := range jobs {
		w.Await(id, in(router.Running))
	}
	w.Stop()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(w.Database + suffix)
	}
	w.Start()
	for id, region := range jobs {
		w.Await(id, in(router.Running))
		eventually(t, "its runner is taken up", func() bool {
			list := w.Runners(id)
			return len(list) == 1 && list[0].NomadAt.Region == region && list[0].State == router.RunnerBusy
		})
	}
}

// A runner that waits for a node in a region that is away is replaced by its rule's fallback.
func TestAFallbackFromARegionThatIsAway(t *testing.T) {
	bubble(t, testAFallbackFromARegionThatIsAway)
}

func testAFallbackFromARegionThatIsAway(t *testing.T) {
	w := newWorld(t, `
rules:
  - { name: tokyo, if: 'has("tokyo")', jobspec: docker-linux, region: tokyo, fallback: [{ after: 5m, region: global }] }
`)
	tokyo := w.Region(nomadsim.Config{Region: "tokyo", Nodes: []*api.Node{}})
	w.Start()
	id := w.Queue("self-hosted", "tokyo")
	w.Await(id, in(router.Dispatched))
	tokyo.SetFault(nomadsim.Refusing, 0)
	time.Sleep(5 * time.Minute)
	w.Await(id, in(router.Completed))
	if list := w.Runners(id); len(list) != 2 || list[0].NomadAt.Region != "tokyo" || list[0].State != router.RunnerStopped || list[1].NomadAt.Region != "" {
		t.Errorf("runners %+v, want a second one in the other region", list)
	}
	tokyo.SetFault(nomadsim.Healthy, 0)
	eventually(t, "the first is stopped", func() bool {
		j, _, err := w.API.Jobs().Info(w.Runners(id)[0].NomadJob, &api.QueryOptions{Region: "tokyo"})
		return err == nil && *j.Stop
	})
}
