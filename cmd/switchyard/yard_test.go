package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomad/capacity"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/rulebook"
	"switchyard/router/server"
	"switchyard/router/testnet"
	"switchyard/router/web/auth"
)

// A yard is the real server, as serve wires it, between the simulators. Its
// rules are a copy of rules.example.yaml that the console may change.
type yard struct {
	*routertest.World
	console string // URL of the operators' listener
	rules   string // path of the rules file
}

type yardConfig struct {
	access func() (*auth.Access, error)
	log    *slog.Logger                    // nil: none
	front  func(http.Handler) http.Handler // what Nomad's clients meet
}

func newYard(t testing.TB, c yardConfig) *yard {
	t.Helper()
	y := &yard{rules: filepath.Join(t.TempDir(), "rules.yaml")}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	must(t, os.WriteFile(y.rules, demoRules, 0o600))
	y.World = routertest.New(t, routertest.Config{
		Rules: string(demoRules), Network: &testnet.Net{Loopback: true}, Logger: c.log, Hub: githubsim.Config{FirstID: 4001},
		Cluster: nomadsim.Config{Nodes: nomadsim.MixedFleet()}, Front: c.front,
		New: func(w *routertest.World, sc server.Config) (*server.App, error) {
			book := rulebook.New(rulebook.Config{Rules: y.rules, Nomad: w.Client, Logger: c.log, Keep: w.Store.KeepRules})
			started, err := startRules(t.Context(), book, os.Stderr)
			if err != nil {
				return nil, err
			}
			sc.Rules, sc.RulesVersion = started.Set, started.Version
			app, err := wired(appParts{rulebook: editedRules{book, w.Store}, allowEdit: true, access: c.access})(w, sc)
			if err == nil {
				book.Bind(app)
			}
			return app, err
		},
	})
	y.Start()
	y.console = "http://" + y.App.AdminAddr()
	return y
}

// wired returns how a world's router is wired as serve does it, of these parts and the world's own.
func wired(p appParts) func(*routertest.World, server.Config) (*server.App, error) {
	return func(w *routertest.World, c server.Config) (*server.App, error) {
		p.store, p.nomad, p.github, p.rules = w.Store, c.Nomad.(*capacity.Client), c.GitHub, c.Rules
		if p.polls == nil {
			p.secrets = []router.Secret{routertest.Secret}
		}
		c.Tick = 0 // serve's own
		return newApp(p, c)
	}
}

// queue has GitHub queue a job, and waits until it is in this state.
func (y *yard) queue(spec githubsim.JobSpec, want router.JobState) int64 {
	y.T.Helper()
	if spec.Owner == "" {
		spec.Owner, spec.Repo, spec.Private = "acme", "web", true
	}
	id := y.GitHub.Queue(y.T.Context(), spec)
	y.until(func() error {
		j, err := y.Store.Job(y.T.Context(), id)
		if err == nil && j.State != want {
			err = fmt.Errorf("job %d is %s (%s), want %s", id, j.State, j.Reason, want)
		}
		return err
	})
	return id
}

// until waits for a check to pass.
func (y *yard) until(check func() error) {
	y.T.Helper()
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			y.T.Fatal(err)
		}
	}
}

// busy gives the yard a job of each kind; waits is the one that no node fits.
func (y *yard) busy() (waits int64) {
	y.T.Helper()
	linux := func(labels ...string) []string { return append([]string{"self-hosted", "linux"}, labels...) }
	y.queue(githubsim.JobSpec{Name: "build", Labels: linux("x64")}, router.Completed)
	y.queue(githubsim.JobSpec{Name: "test (arm64)", Labels: linux("arm64"), Conclusion: "failure"}, router.Completed)
	y.queue(githubsim.JobSpec{Name: "integration", Labels: linux("x64"), Duration: time.Hour}, router.Running)
	y.queue(githubsim.JobSpec{Name: "docs", Labels: linux("linx")}, router.Unroutable)
	y.queue(githubsim.JobSpec{Owner: "acme", Repo: "website", Name: "deploy", Labels: linux()}, router.Denied)
	y.queue(githubsim.JobSpec{Name: "lint", Labels: []string{"ubuntu-latest"}}, router.Ignored)
	waits = y.queue(githubsim.JobSpec{Owner: "acme", Repo: "ml", Private: true, Name: "pretrain", Labels: linux("gpus=8")}, router.Dispatched)
	y.until(func() error {
		runners, err := y.Store.Runners(y.T.Context(), waits)
		if err == nil && (len(runners) == 0 || runners[0].Unplaced == nil) {
			err = fmt.Errorf("job %d: Nomad did not say why it has no node", waits)
		}
		return err
	})
	return waits
}

var (
	must    = routertest.Must
	write   = routertest.Write
	replace = routertest.Replace
	denyAll = routertest.DenyAll
)
