package main

import (
	"context"
	"crypto/rsa"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/demo"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/intake"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/rulebook"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/telemetry"
)

//go:generate cp ../../rules.example.yaml demo.rules.yaml

// demoRules is rules.example.yaml, so that the demo needs no file beside the
// program; a test compares them.
//
//go:embed demo.rules.yaml
var demoRules []byte

func demoCommand() *cobra.Command {
	var once, poll, verbose bool
	cmd := &cobra.Command{
		Use:   "demo [--once] [--poll]",
		Short: "Watch the real server between a simulated GitHub and a simulated Nomad",
		Long: `Demo starts a simulated GitHub, a simulated Nomad with Linux, macOS and Windows
nodes, and the real server between them with rules.example.yaml. It prints each
job's progress and, without --once, the address of the console first. With
NOMAD_ADDR set, the jobs run on that Nomad instead.

Exit codes: 0, every job ended as its labels promise, or, on a real Nomad, waits
for a node that does not exist; 1, some job did not.`,
		Example: "  switchyard demo --once",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.DiscardHandler)
			if verbose {
				var err error
				if log, err = newLogger(cmd.ErrOrStderr(), "text", "info"); err != nil {
					return err
				}
			}
			err := demo.Run(cmd.Context(), demo.Config{Out: cmd.OutOrStdout(), Once: once, Poll: poll, Start: func(ctx context.Context, s demo.Setup) (demo.Server, error) {
				return startDemo(ctx, cmd.OutOrStdout(), log, s)
			}})
			if errors.Is(err, demo.ErrBroken) {
				return errNo // already printed
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "send each kind of job once, then print a summary and exit")
	cmd.Flags().BoolVar(&poll, "poll", false, "GitHub does not reach the server, which reads its deliveries as a GitHub App")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show the server's log on standard error")
	cmd.AddCommand(demoRunnerCommand())
	return cmd
}

// A demoServer is an App with its database.
type demoServer struct {
	*server.App
	*store.Store
}

func (s demoServer) Close() error { return s.Store.Close() } // App.Run closes its listeners

// startDemo wires the server of a demo.
func startDemo(ctx context.Context, out io.Writer, log *slog.Logger, s demo.Setup) (_ demo.Server, err error) {
	file := filepath.Join(s.Dir, "rules.example.yaml")
	if err := os.WriteFile(file, demoRules, 0o600); err != nil {
		return nil, err
	}
	metrics := telemetry.NewMetrics()
	cluster, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set), Logger: log, API: s.Nomad, Called: metrics.Nomad.Called, Calling: metrics.Nomad.Calling})
	if err != nil {
		return nil, err
	}
	login := gh.Config{BaseURL: s.GitHubURL, Called: metrics.GitHub.Called, Calling: metrics.GitHub.Calling}
	parts := appParts{allowEdit: !s.Real}
	if s.AppKey == nil {
		login.Token, parts.secrets = gh.StaticToken("demo"), []router.Secret{s.Secret}
	} else {
		login.App = &gh.App{ID: demo.AppID, Key: func() (*rsa.PrivateKey, error) { return s.AppKey, nil }}
		parts.polls = []intake.Poll{{Hook: router.Hook{Kind: router.HookApp}, Every: demo.PollEvery}}
	}
	client, err := gh.New(login)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, filepath.Join(s.Dir, "switchyard.db"))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.Close())
		}
	}()
	book := rulebook.New(rulebook.Config{Rules: file, JobspecDir: s.JobspecDir, Nomad: cluster, Logger: log, Keep: st.KeepRules})
	started, err := startRules(ctx, book, out)
	if err != nil {
		return nil, err
	}
	parts.rulebook, parts.store, parts.nomad, parts.github, parts.rules = editedRules{book, st}, st, capacity.New(cluster), client, started.Set
	app, err := newApp(parts, server.Config{
		Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Metrics: metrics, Logger: log, RulesVersion: started.Version,
	})
	if err != nil {
		return nil, err
	}
	book.Bind(app)
	return demoServer{app, st}, nil
}

// demoRunnerCommand returns the command that acts as a runner on a real Nomad.
func demoRunnerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "runner GITHUB FILE", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			jit, err := os.ReadFile(args[1])
			if err != nil {
				return err
			}
			if strings.TrimSpace(string(jit)) == "" {
				return nil // the runner is no longer needed
			}
			req, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, args[0]+githubsim.ConnectPath, strings.NewReader(string(jit)))
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("GitHub answered %s: %s", resp.Status, said)
			}
			return nil
		},
	}
}
