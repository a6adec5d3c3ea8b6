package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
)

// A delivery to the real program becomes a runner that its installation of a
// GitHub App registered; what has no installation says so and stops no other.
func TestAGitHubAppServesWhoInstalledIt(t *testing.T) {
	t.Parallel()
	t.Run("deliveries are received", func(t *testing.T) { testAGitHubAppServesWhoInstalledIt(t, "webhook") })
	t.Run("deliveries are read", func(t *testing.T) { testAGitHubAppServesWhoInstalledIt(t, "poll") })
}
func testAGitHubAppServesWhoInstalledIt(t *testing.T, intake string) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the stop at the end is a signal that Windows does not have")
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	keyFile := filepath.Join(t.TempDir(), "app.pem")
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(block), 0o600))
	p := newProcess(t, "", "")
	hub := githubsim.Config{App: &githubsim.App{ID: 17, Key: &key.PublicKey}, Secret: testSecret}
	if intake == "webhook" {
		hub.WebhookURL = p.url
	}
	github := githubsim.New(hub)
	t.Cleanup(github.Close)
	api := httptest.NewServer(github)
	t.Cleanup(api.Close)
	sim := nomadsim.New(nomadsim.Config{
		Nodes: nomadsim.MixedFleet(),
		Run: func(ctx context.Context, task nomadsim.Task) int {
			return github.RunTask(ctx, task.Artifacts["secrets/runner.jit"])
		},
	})
	t.Cleanup(sim.Close)
	cluster := httptest.NewServer(sim)
	t.Cleanup(cluster.Close)
	p.env = append(p.env, "NOMAD_ADDR="+cluster.URL)
	p.args = append(p.args, "--github-token-file=", "--github-app-id=17", "--github-app-key-file="+keyFile, "--github-url="+api.URL+"/api/v3/", "--github-intake="+intake)
	p.start()

	github.Install("acme")
	github.Install("beta", "web")
	ids := map[string]int64{}
	for _, owner := range []string{"gamma", "acme", "beta"} {
		ids[owner] = github.Queue(t.Context(), githubsim.JobSpec{
			Owner: owner, Repo: "web", Private: true, Labels: []string{"self-hosted", "linux", "x64"},
		})
	}
	const missing = "the GitHub App 17 is not installed for repository gamma/web"
	done := func() bool {
		acme, _ := github.Job(ids["acme"])
		beta, _ := github.Job(ids["beta"])
		return acme.Conclusion == "success" && beta.Conclusion == "success" && strings.Contains(p.log.String(), missing)
	}
	for deadline := time.Now().Add(5 * time.Minute); !done() && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	p.stop()
	if log := p.log.String(); !done() || strings.Contains(log, "ghs_") {
		t.Errorf("the jobs of acme and beta are done, and the log says %q: %t; the log, which should have no token:\n%s", missing, done(), log)
	}
	if gamma, _ := github.Job(ids["gamma"]); gamma.Status != "queued" {
		t.Errorf("the job of gamma is %s, want queued", gamma.Status)
	}
}
