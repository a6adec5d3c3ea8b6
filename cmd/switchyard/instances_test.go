package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
)

// The real program serves the GitHub of its flags and one of its file.
func TestOtherGitHubsAreServedToo(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the stop at the end is a signal that Windows does not have")
	}
	p := newProcess(t, "", "")
	const secret = "the other webhook's secret"
	var hubs [2]*githubsim.Server
	var urls [2]string
	for i, secret := range []string{testSecret, secret} {
		hubs[i] = githubsim.New(githubsim.Config{WebhookURL: p.url, Secret: secret, RandSeed: uint64(i)})
		t.Cleanup(hubs[i].Close)
		server := httptest.NewServer(hubs[i])
		t.Cleanup(server.Close)
		urls[i] = server.URL + "/api/v3/"
	}
	sim := nomadsim.New(nomadsim.Config{
		Nodes: nomadsim.MixedFleet(),
		Run: func(ctx context.Context, task nomadsim.Task) int {
			on := hubs[0]
			if !strings.HasPrefix(task.JobID, "gha-2-") {
				on = hubs[1]
			}
			return on.RunTask(ctx, task.Artifacts["secrets/runner.jit"])
		},
	})
	t.Cleanup(sim.Close)
	cluster := httptest.NewServer(sim)
	t.Cleanup(cluster.Close)
	dir := t.TempDir()
	secretFile, tokenFile, file := filepath.Join(dir, "secret"), filepath.Join(dir, "token"), filepath.Join(dir, "githubs.yaml")
	write(t, secretFile, secret)
	write(t, tokenFile, "ghp_other")
	write(t, file, fmt.Sprintf("- { number: 31, url: %q, token_file: %q, webhook_secret_files: [%q] }\n", urls[1], tokenFile, secretFile))
	p.env = append(p.env, "NOMAD_ADDR="+cluster.URL)
	p.args = append(p.args, "--github-url="+urls[0], "--github-instances="+file)
	p.start()
	var ids [2]int64
	for i := range hubs {
		ids[i] = hubs[i].Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux", "x64"}})
	}
	done := func() bool {
		first, _ := hubs[0].Job(ids[0])
		second, _ := hubs[1].Job(ids[1])
		return first.Conclusion == "success" && second.Conclusion == "success"
	}
	for deadline := time.Now().Add(5 * time.Minute); !done() && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	second, _ := hubs[1].Job(ids[1])
	p.stop()
	if want := fmt.Sprintf("gha-%d-1", int64(31)<<48|ids[1]); !done() || !strings.HasPrefix(second.RunnerName, want) || ids[0] != ids[1] {
		t.Errorf("the jobs %v are done: %t; the other GitHub's ran on %q, want %q; the log:\n%s", ids, done(), second.RunnerName, want, p.log.String())
	}
}
