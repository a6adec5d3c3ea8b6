package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/nomad"
	"switchyard/router/nomadsim"
	"switchyard/router/rulebook"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/web/auth"
)

// A yard is the real server, as serve wires it, between the simulators. Its
// rules are a copy of rules.example.yaml that the console may change.
type yard struct {
	t        *testing.T
	console  string // URL of the operators' listener
	webhook  string // URL that GitHub sends its deliveries to
	rules    string // path of the rules file
	github   *githubsim.Server
	database string // path of the store's file
	nomad    *httptest.Server
	store    *store.Store
	log      *slog.Logger
}

type yardConfig struct {
	access func() (*auth.Access, error)
	log    *slog.Logger // nil: none
}

func newYard(t *testing.T, c yardConfig) *yard {
	t.Helper()
	y := &yard{t: t, rules: filepath.Join(t.TempDir(), "rules.yaml"), log: c.log}
	if y.log == nil {
		y.log = slog.New(slog.DiscardHandler)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(y.rules, demoRules, 0o600))
	sim := nomadsim.New(nomadsim.Config{
		Nodes: nomadsim.MixedFleet(),
		Run: func(ctx context.Context, task nomadsim.Task) int {
			return y.github.RunTask(ctx, task.Artifacts["secrets/runner.jit"])
		},
	})
	t.Cleanup(sim.Close)
	y.nomad = httptest.NewServer(sim)
	t.Cleanup(y.nomad.Close)
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { y.github.ServeHTTP(w, r) }))
	t.Cleanup(hub.Close)
	cluster, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set), Logger: y.log, API: &api.Config{Address: y.nomad.URL}})
	must(err)
	client, err := gh.New(gh.Config{Token: gh.StaticToken("t"), BaseURL: hub.URL})
	must(err)
	y.database = filepath.Join(t.TempDir(), "switchyard.db")
	y.store, err = store.Open(t.Context(), y.database)
	must(err)
	t.Cleanup(func() { _ = y.store.Close() })
	book := rulebook.New(rulebook.Config{Rules: y.rules, Nomad: cluster, Logger: y.log, Keep: y.store.KeepRules})
	started, err := startRules(t.Context(), book, os.Stderr)
	must(err)
	app, err := newApp(appParts{
		rulebook: editedRules{book, y.store}, allowEdit: true, store: y.store, nomad: cluster, github: client, rules: started.Set,
		secrets: []router.Secret{testSecret}, access: c.access,
	}, server.Config{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Logger: y.log, RulesVersion: started.Version})
	must(err)
	book.Bind(app)
	y.console = "http://" + app.AdminAddr()
	y.webhook = "http://" + app.Addr() + "/webhooks/github"
	y.github = githubsim.New(githubsim.Config{WebhookURL: y.webhook, Secret: testSecret, FirstID: 4001})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	t.Cleanup(func() {
		y.github.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return y
}

// queue has GitHub queue a job, and waits until it is in this state.
func (y *yard) queue(spec githubsim.JobSpec, want router.JobState) int64 {
	y.t.Helper()
	if spec.Owner == "" {
		spec.Owner, spec.Repo, spec.Private = "acme", "web", true
	}
	id := y.github.Queue(y.t.Context(), spec)
	y.until(func() error {
		j, err := y.store.Job(y.t.Context(), id)
		if err == nil && j.State != want {
			err = fmt.Errorf("job %d is %s (%s), want %s", id, j.State, j.Reason, want)
		}
		return err
	})
	return id
}

// until waits for a check to pass.
func (y *yard) until(check func() error) {
	y.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			y.t.Fatal(err)
		}
	}
}

// busy gives the yard a job of each kind; waits is the one that no node fits.
func (y *yard) busy() (waits int64) {
	y.t.Helper()
	linux := func(labels ...string) []string { return append([]string{"self-hosted", "linux"}, labels...) }
	y.queue(githubsim.JobSpec{Name: "build", Labels: linux("x64")}, router.Completed)
	y.queue(githubsim.JobSpec{Name: "test (arm64)", Labels: linux("arm64"), Conclusion: "failure"}, router.Completed)
	y.queue(githubsim.JobSpec{Name: "integration", Labels: linux("x64"), Duration: time.Hour}, router.Running)
	y.queue(githubsim.JobSpec{Name: "docs", Labels: linux("linx")}, router.Unroutable)
	y.queue(githubsim.JobSpec{Owner: "acme", Repo: "website", Name: "deploy", Labels: linux()}, router.Denied)
	y.queue(githubsim.JobSpec{Name: "lint", Labels: []string{"ubuntu-latest"}}, router.Ignored)
	waits = y.queue(githubsim.JobSpec{Owner: "acme", Repo: "ml", Private: true, Name: "pretrain", Labels: linux("gpus=8")}, router.Dispatched)
	y.until(func() error {
		runners, err := y.store.Runners(y.t.Context(), waits)
		if err == nil && (len(runners) == 0 || runners[0].Unplaced == nil) {
			err = fmt.Errorf("job %d: Nomad did not say why it has no node", waits)
		}
		return err
	})
	return waits
}
