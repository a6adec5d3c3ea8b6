package main

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
	"time"

	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
)

// What router/store/README.md says of backups, word for word: each job that came after
// the copy was made is served.
func TestACopyOfTheDatabaseIsRestoredAsTheREADMESays(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are for a shell")
	}
	page, err := os.ReadFile("../../router/store/README.md")
	must(t, err)
	blocks := regexp.MustCompile("(?s)\n## Backup and restore\n.*?```sh\n(.*?)```.*?```sh\n(.*?)```").FindSubmatch(page)
	if blocks == nil {
		t.Fatal("router/store/README.md has no two blocks of commands under Backup and restore")
	}
	p := newProcess(t, "", "")
	sh := func(commands []byte) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", string(commands))
		cmd.Dir = filepath.Dir(p.db())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", commands, err, out)
		}
	}
	hub := githubsim.New(githubsim.Config{WebhookURL: p.url, Secret: testSecret, Hook: githubsim.OrganizationHook})
	t.Cleanup(hub.Close)
	github := httptest.NewServer(hub)
	t.Cleanup(github.Close)
	sim := nomadsim.New(nomadsim.Config{
		Nodes: nomadsim.MixedFleet(),
		Run: func(ctx context.Context, task nomadsim.Task) int {
			return hub.RunTask(ctx, task.Artifacts["secrets/runner.jit"])
		},
	})
	t.Cleanup(sim.Close)
	cluster := httptest.NewServer(sim)
	t.Cleanup(cluster.Close)
	p.env = append(p.env, "NOMAD_ADDR="+cluster.URL)
	p.args = append(p.args, "--github-url="+github.URL)
	queue := func(n int) (ids []int64) {
		for range n {
			ids = append(ids, hub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux", "x64"}}))
		}
		must(t, hub.Flush(t.Context()))
		return ids
	}
	served := func(ids []int64) {
		t.Helper()
		for _, id := range ids {
			for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
				if j, _ := hub.Job(id); j.Conclusion == "success" {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("job %d is not served; the log:\n%s", id, p.log.String())
				}
			}
		}
	}
	p.start()
	served(queue(1))
	sh(blocks[1])
	served(queue(3))
	sim.SetFault(nomadsim.NoLeader, 0)
	waiting := queue(10)
	p.kill()
	for _, d := range hub.Deliveries() {
		if d.Action == "queued" && d.Status != "OK" {
			t.Fatalf("GitHub has delivery %d as %q: the test shows nothing", d.ID, d.Status)
		}
	}
	sh(blocks[2])
	sim.SetFault(nomadsim.Healthy, 0)
	p.start()
	served(waiting)
	p.stop()
	runs := map[string]int{}
	for _, r := range hub.Runners() {
		runs[r.Name]++
	}
	if len(runs) > 14 {
		t.Errorf("%d runners for 14 jobs: %v", len(runs), runs)
	}
}
