package server_test

import (
	"context"
	"fmt"
	"net/http"
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

// listedNomad counts listings.
type listedNomad struct {
	router.Nomad
	lists atomic.Int32
}

func (n *listedNomad) Jobs(ctx context.Context, region string) ([]router.NomadJob, uint64, error) {
	defer n.lists.Add(1)
	return n.Nomad.Jobs(ctx, region)
}

// Whoever may register jobs in some other namespace can name one as a runner is
// named, and write what they like into its meta. They get no configuration for it.
func TestAForgedRunnerIsNotTakenUp(t *testing.T) { bubble(t, testAForgedRunnerIsNotTakenUp) }
func testAForgedRunnerIsNotTakenUp(t *testing.T) {
	w := newWorld(t, onlyOneRule)
	n := &listedNomad{Nomad: w.Client}
	w.Start(func(c *server.Config) { c.Sweep, c.Nomad = 50*time.Millisecond, n })
	runs := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Hour})
	w.Await(runs, in(router.Running))
	waits := w.Queue("self-hosted", "linux")
	w.Await(waits, func(j router.Job) bool { return strings.Contains(j.Reason, "no node") })

	const token = "known-to-an-attacker"
	next := fmt.Sprintf("gha-%d-2", waits)
	forge(w, next, "elsewhere", waits, token)
	eventually(t, "some passes have seen it", func() func() bool {
		begun := n.lists.Load()
		return func() bool { return n.lists.Load() > begun+3 }
	}())
	if j := w.Await(waits, in(router.Dispatched)); j.Try != 1 || len(w.Runners(waits)) != 1 {
		t.Errorf("the job is at try %d and has %d runners, want its own only", j.Try, len(w.Runners(waits)))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.Addr+router.ClaimPath, nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := httpClient.Do(req)
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("its claim is answered %d, want 401", resp.StatusCode)
	}
	forge(w, next, "default", waits, "ours") // as one of this router's in an earlier life
	eventually(t, "one where the rules start runners is taken up", func() bool { return len(w.Runners(waits)) == 2 })
}

// forge registers a Nomad job that looks like a runner.
func forge(w *routertest.World, id, namespace string, jobID int64, token string) {
	w.T.Helper()
	job := api.NewBatchJob(id, id, "global", 50).AddDatacenter("*")
	job.Namespace = &namespace
	job.Meta = map[string]string{
		"SWITCHYARD_CLAIM_URL": "http://" + w.Addr + router.ClaimPath, "SWITCHYARD_CLAIM_TOKEN": token,
		"GH_REPOSITORY": "acme/web", "GH_JOB_ID": fmt.Sprint(jobID), "GH_RUN_ID": "1", "GH_RUN_ATTEMPT": "1",
	}
	task := api.NewTask("main", "raw_exec").SetConfig("command", "/bin/true")
	job.AddTaskGroup(api.NewTaskGroup("main", 1).AddTask(task))
	if _, _, err := w.API.Jobs().Register(job, &api.WriteOptions{Namespace: namespace}); err != nil {
		w.T.Fatal(err)
	}
}
