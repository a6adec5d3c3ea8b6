package server_test

import (
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

// requests counts those that arrive, by method and the first parts of the path.
type requests struct {
	mu sync.Mutex
	of map[string]int
}

func (c *requests) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/v1/"), "/", 3)
		if len(parts) > 1 && parts[0] == "job" {
			parts[1] = "…"
		}
		c.mu.Lock()
		c.of[r.Method+" "+strings.Join(parts, "/")]++
		c.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

// take returns the counts, and begins anew.
func (c *requests) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.of
	c.of = map[string]int{}
	return of
}

// Many runners wait for nodes when the database is deleted, and jobs go on coming.
func TestWithTheDatabaseDeletedManyRunnersAreTakenUpInOneListing(t *testing.T) {
	bubble(t, testWithTheDatabaseDeletedManyRunnersAreTakenUpInOneListing)
}
func testWithTheDatabaseDeletedManyRunnersAreTakenUpInOneListing(t *testing.T) {
	const lost, later = 100, 10
	asked := &requests{of: map[string]int{}}
	w := routertest.New(t, routertest.Config{
		Rules: machine + "rules:\n  - name: linux\n    jobspec: docker-linux\n    resources: { memory: 1024GiB }\n", Front: asked.count,
	})
	slow := func(c *server.Config) { c.Tick = 5 * time.Second } // as minutes pass
	w.Start(slow)
	var ids []int64
	run := int64(0)
	for i := range lost {
		id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, RunID: run})
		if ids = append(ids, id); i == 0 { // of one run, so that GitHub is asked little
			j, _ := w.GitHub.Job(id)
			run = j.RunID
		}
	}
	for _, id := range ids {
		w.Await(id, in(router.Dispatched))
	}
	w.Stop()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(w.Database + suffix)
	}
	asked.take()

	w.Start(slow)
	for range later {
		ids = append(ids, w.Queue("self-hosted", "linux"))
	}
	for _, id := range ids {
		if j := w.Await(id, in(router.Dispatched)); j.Try != 1 {
			t.Errorf("job %d is at try %d", id, j.Try)
		}
	}
	got := asked.take()
	if got["GET jobs"] != 1 || got["POST jobs"]+got["PUT jobs"] != later || got["GET job/…"] > lost+20 {
		t.Errorf("Nomad was asked %v; want one listing, %d registrations, and each of %d jobs read once", got, later, lost)
	}
	time.Sleep(2 * time.Minute) // a comparison or two
	list, _, err := w.API.Jobs().List(nil)
	if must(t, err); len(list) != lost+later {
		t.Errorf("Nomad has %d jobs, want %d", len(list), lost+later)
	}
	for _, id := range ids {
		if list := w.Runners(id); len(list) != 1 || list[0].State != router.RunnerDispatched {
			t.Errorf("the runners of job %d are %+v", id, list)
		}
	}
	if got := asked.take(); got["POST jobs"]+got["PUT jobs"] != 0 || got["DELETE job/…"] != 0 {
		t.Errorf("afterwards Nomad was asked %v", slices.Sorted(maps.Keys(got)))
	}
}
