package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/nomad"
	"switchyard/router/nomadsim"
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

// demoJobspec stands in for the built-in jobspecs on a real Nomad: its runner
// is this program, which needs neither Docker nor GitHub.
//
//go:embed demo.nomad.hcl
var demoJobspec string

const (
	demoPause        = 250 * time.Millisecond  // between two jobs
	demoPatience     = 30 * time.Second        // of who cancels a job that has no node: time to look at it
	demoOncePatience = 1200 * time.Millisecond // with --once
	demoTimeout      = 15 * time.Second        // for the jobs of --once
	demoLook         = 40 * time.Millisecond   // between two looks at where the jobs are
)

func demoCommand() *cobra.Command {
	var once, verbose bool
	cmd := &cobra.Command{
		Use:   "demo [--once]",
		Short: "Watch the real server between a simulated GitHub and a simulated fleet",
		Long: `Demo starts a simulated GitHub, a simulated Nomad with Linux, macOS and Windows
nodes, and the real server between them with rules.example.yaml. It shows each
job as it moves, and first, without --once, the address of the console. With
NOMAD_ADDR set, the jobs run on that Nomad instead.

Exit code 0: every job ended as its labels promise; on a real Nomad one may also
wait for a node that is not there. 1: one did not.`,
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
			return demo(cmd.Context(), cmd.OutOrStdout(), log, once)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "send each kind of job once, then end with a summary")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show the server's log on standard error")
	cmd.AddCommand(demoRunnerCommand())
	return cmd
}

// demo wires the real server between the simulators and sends it jobs until
// ctx ends or, with once, all of them ended.
func demo(ctx context.Context, out io.Writer, log *slog.Logger, once bool) (err error) {
	dir, err := os.MkdirTemp("", "switchyard-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	servers, serving := errgroup.WithContext(context.WithoutCancel(ctx))
	stopServers := context.AfterFunc(serving, func() { cancel(context.Cause(serving)) })
	defer stopServers()

	// Both sides need each other's address, so GitHub listens first and serves last.
	githubListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	githubURL := "http://" + githubListener.Addr().String()
	var github *githubsim.Server

	firstID := int64(4001)
	fleet := fleet{specDir: dir}
	if addr := os.Getenv("NOMAD_ADDR"); addr != "" {
		fmt.Fprintf(out, "Nomad: %s. Its runners are this program.\n", router.Printable(addr))
		fleet.real = true
		firstID = freshID(time.Now())
		if err := writeDemoJobspecs(dir, githubURL); err != nil {
			return err
		}
	} else {
		sim := nomadsim.New(nomadsim.Config{
			Nodes: nomadsim.MixedFleet(),
			Run: func(ctx context.Context, t nomadsim.Task) int {
				return demoRun(ctx, github, t.Artifacts["secrets/runner.jit"])
			},
		})
		defer sim.Close()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		serve(servers, l, sim)
		defer l.Close()
		fleet.config = &api.Config{Address: "http://" + l.Addr().String()}
		fleet.specDir = ""
	}
	if err := fleet.connect(ctx); err != nil {
		return err
	}
	file := filepath.Join(dir, "rules.example.yaml")
	if err := os.WriteFile(file, demoRules, 0o600); err != nil {
		return err
	}
	metrics := telemetry.NewMetrics()
	cluster, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set), Logger: log, API: fleet.config, Called: metrics.NomadCalled})
	if err != nil {
		return err
	}
	client, err := gh.New(gh.Config{Token: gh.StaticToken("demo"), BaseURL: githubURL, Called: metrics.GitHubCalled})
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, filepath.Join(dir, "switchyard.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	secret := router.Secret(rand.Text())
	book := rulebook.New(rulebook.Config{Rules: file, JobspecDir: fleet.specDir, Nomad: cluster, Logger: log, Keep: st.KeepRules})
	started, err := startRules(ctx, book, out)
	if err != nil {
		return err
	}
	app, err := newApp(appParts{rulebook: editedRules{book, st}, allowEdit: !fleet.real, store: st, nomad: cluster, github: client, rules: started.Set, secrets: []router.Secret{secret}}, server.Config{
		Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Metrics: metrics, Logger: log, RulesVersion: started.Version,
	})
	if err != nil {
		return err
	}
	book.Bind(app)
	github = githubsim.New(githubsim.Config{
		WebhookURL: "http://" + app.Addr() + "/webhooks/github", Secret: string(secret),
		FirstID: firstID,
	})
	defer github.Close()
	serve(servers, githubListener, github)
	defer githubListener.Close()

	// The server outlives ctx, so that the jobs in hand can be shown to their end.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- app.Run(running) }()

	s := &stage{out: out, github: github, store: st, fleet: &fleet, began: time.Now(), patience: demoPatience}
	if once {
		s.patience = demoOncePatience
		err = s.once(ctx)
	} else {
		fmt.Fprintf(out, "Console: http://%s/ shows what waits and why; of a job: its way, its decision, and the nodes that do not fit it.\n\n", app.AdminAddr())
		err = s.forever(ctx)
	}
	github.Close()
	stop()
	err = errors.Join(err, <-done)
	// Only now: a server that runs gives a job whose runner is stopped another.
	fleet.clear(context.WithoutCancel(ctx), st)
	return err
}

// serve serves h on l until l is closed.
func serve(g *errgroup.Group, l net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
}

// demoRun is what a runner does with its configuration.
func demoRun(ctx context.Context, github *githubsim.Server, jit string) int {
	if strings.TrimSpace(jit) == "" {
		return 0 // nobody needs it any more
	}
	if err := github.Connect(ctx, jit); err != nil {
		return 1
	}
	return 0
}

// writeDemoJobspecs puts the demo's jobspec in the place of each built-in one.
func writeDemoJobspecs(dir, githubURL string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text := strings.NewReplacer("PROGRAM", hclString(self), "GITHUB", hclString(githubURL)).Replace(demoJobspec)
	for _, name := range []string{"docker-linux", "raw-exec-macos", "raw-exec-windows"} {
		if err := os.WriteFile(filepath.Join(dir, name+".nomad.hcl"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func hclString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", "$${", "%{", "%%{").Replace(s) + `"`
}

// demoRunnerCommand is the runner of the demo on a real Nomad.
func demoRunnerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "runner GITHUB FILE", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			jit, err := os.ReadFile(args[1])
			if err != nil {
				return err
			}
			if strings.TrimSpace(string(jit)) == "" {
				return nil // nobody needs it any more
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

// A fleet is the Nomad that the demo's jobs run on.
type fleet struct {
	config  *api.Config // nil: the environment's
	specDir string
	real    bool
	client  *api.Client
	nodes   map[string]*api.Node // by ID
}

// connect reads which nodes there are.
func (f *fleet) connect(ctx context.Context) (err error) {
	cfg := f.config
	if cfg == nil {
		cfg = api.DefaultConfig()
	}
	if f.client, err = api.NewClient(cfg); err != nil {
		return fmt.Errorf("NOMAD_ADDR: %w", err)
	}
	q := (&api.QueryOptions{}).WithContext(ctx)
	list, _, err := f.client.Nodes().List(q)
	if err != nil {
		return fmt.Errorf("list the nodes of the Nomad at %s: %w", f.client.Address(), err)
	}
	f.nodes = map[string]*api.Node{}
	for _, stub := range list {
		node, _, err := f.client.Nodes().Info(stub.ID, q)
		if err != nil {
			return fmt.Errorf("read node %s: %w", stub.Name, err)
		}
		f.nodes[node.ID] = node
	}
	return nil
}

// where returns the node of a Nomad job's allocation, or else why it has none
// yet: "" when Nomad has not looked.
func (f *fleet) where(ctx context.Context, nomadJob string) (node *api.Node, waits string) {
	q := (&api.QueryOptions{}).WithContext(ctx)
	allocs, _, err := f.client.Jobs().Allocations(nomadJob, false, q)
	if err == nil && len(allocs) > 0 {
		return f.nodes[allocs[0].NodeID], ""
	}
	evals, _, err := f.client.Jobs().Evaluations(nomadJob, q)
	if err != nil {
		return nil, ""
	}
	for _, e := range evals {
		for _, m := range e.FailedTGAllocs {
			return nil, failure(m)
		}
	}
	return nil, ""
}

// failure says in one line why Nomad placed nothing.
func failure(m *api.AllocationMetric) string {
	var why []string
	for c, n := range m.ConstraintFiltered {
		why = append(why, fmt.Sprintf("%s rules out %d", c, n))
	}
	for d, n := range m.DimensionExhausted {
		why = append(why, fmt.Sprintf("no %s left on %d", d, n))
	}
	if len(why) == 0 {
		why = append(why, count(m.NodesEvaluated, "node")+" looked at")
	}
	slices.Sort(why)
	return strings.Join(why, ", ")
}

// freshID is a first ID past those of earlier demos, whose jobs a real Nomad may
// remember, and under router.MaxGitHubID.
func freshID(now time.Time) int64 { return now.Unix() * 1e4 }

// clear removes what the demo left on a real Nomad.
func (f *fleet) clear(ctx context.Context, st *store.Store) {
	if !f.real {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	runners, err := st.FindRunners(ctx, router.RunnerFilter{Limit: 10_000})
	if err != nil {
		return // they are left over at worst
	}
	for _, r := range runners {
		_, _, _ = f.client.Jobs().Deregister(r.NomadJob, true, (&api.WriteOptions{}).WithContext(ctx))
	}
}
