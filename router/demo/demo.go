// Package demo owns the demonstration: a simulated GitHub, a simulated or a real Nomad, and jobs
// whose outcome their labels promise. cmd/switchyard starts the real server between the two.
package demo

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
)

//go:embed runner.nomad.hcl
var jobspec string // replaces the built-in ones on a real Nomad: its runner is this program, which needs neither Docker nor GitHub

const (
	pause        = 250 * time.Millisecond  // between two jobs
	patience     = 30 * time.Second        // until a job without a node is cancelled: time to look at it
	oncePatience = 1200 * time.Millisecond // with Once
	stuckAfter   = 30 * time.Second        // without a change, Once waits for nothing more
	updateEvery  = 40 * time.Millisecond   // between two updates of the jobs' states
)

// A Setup is what the server of a demo is started with.
type Setup struct {
	Dir        string      // for its files: removed when the demo ends
	JobspecDir string      // "": none but the built-in jobspecs
	Nomad      *api.Config // nil: the environment's
	Real       bool        // Nomad is a real one
	GitHubURL  string
	Secret     router.Secret // of the webhook

	AppKey *rsa.PrivateKey // logs in as the GitHub App with ID AppID, whose deliveries are read every PollEvery; nil: there is none, and deliveries are received
}

// AppID is the ID of the simulated GitHub's App, if there is one, and PollEvery how often its
// deliveries are listed, so that a demo is not slow.
const (
	AppID     = 17
	PollEvery = time.Second
)

// A Server is the real server between the simulators, with its database.
type Server interface {
	Addr() string      // of the webhook
	AdminAddr() string // of the console
	Run(ctx context.Context) error
	Close() error // called last

	Job(ctx context.Context, id int64) (router.Job, error)
	SearchRunners(ctx context.Context, f router.RunnerFilter) (runners []router.Runner, from int64, err error)
}

// A Config is what a demo is made from. Out and Start are required.
type Config struct {
	Out  io.Writer // shows each job as it moves
	Once bool      // each kind of job once; else jobs are sent until ctx ends
	Poll bool      // GitHub does not reach the server, which reads its deliveries

	Start func(context.Context, Setup) (Server, error)
}

// Run starts the real server between the simulators and sends it jobs until ctx ends or, with
// Once, all of them have ended.
func Run(ctx context.Context, c Config) (err error) {
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
		fmt.Fprintf(c.Out, "Nomad: %s. Its runners are this program.\n", router.Printable(addr))
		fleet.real = true
		firstID = freshID(time.Now())
		if err := writeJobspecs(dir, githubURL); err != nil {
			return err
		}
	} else {
		sim := nomadsim.New(nomadsim.Config{
			Nodes: nomadsim.MixedFleet(),
			Run: func(ctx context.Context, t nomadsim.Task) int {
				return github.RunTask(ctx, t.Artifacts["secrets/runner.jit"])
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
	setup := Setup{Dir: dir, JobspecDir: fleet.specDir, Nomad: fleet.config, Real: fleet.real, GitHubURL: githubURL, Secret: router.Secret(rand.Text())}
	hub := githubsim.Config{FirstID: firstID, Secret: string(setup.Secret)}
	if c.Poll {
		fmt.Fprintln(c.Out, "GitHub cannot reach the server: its deliveries fail, and are read from it.")
		if setup.AppKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return err
		}
		hub.App, hub.RateLimit = &githubsim.App{ID: AppID, Key: &setup.AppKey.PublicKey}, 100_000 // jobs come by the second
	}
	app, err := c.Start(ctx, setup)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, app.Close()) }()
	if !c.Poll {
		hub.WebhookURL = "http://" + app.Addr() + "/webhooks/github"
	}
	github = githubsim.New(hub)
	defer github.Close()
	if c.Poll {
		github.Install("acme")
	}
	serve(servers, githubListener, github)
	defer githubListener.Close()

	// The server outlives ctx, so that running jobs are shown to their end.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- app.Run(running) }()

	s := &stage{out: c.Out, github: github, store: app, fleet: &fleet, began: time.Now(), patience: patience}
	if c.Once {
		s.patience = oncePatience
		err = s.once(ctx)
	} else {
		fmt.Fprintf(c.Out, "Console: http://%s/ shows what waits and why, and of each job its way, its decision, and the nodes that do not fit it.\n\n", app.AdminAddr())
		err = s.forever(ctx)
	}
	github.Close()
	stop()
	err = errors.Join(err, <-done)
	// Only now: a server that runs gives a job whose runner is stopped another.
	fleet.clear(context.WithoutCancel(ctx), app)
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

// writeJobspecs writes the demo's jobspec under the name of each built-in one.
func writeJobspecs(dir, githubURL string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text := strings.NewReplacer("PROGRAM", hclString(self), "GITHUB", hclString(githubURL)).Replace(jobspec)
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

// where returns the node of a Nomad job's allocation, or else why it has none yet: "" when Nomad
// has not evaluated it.
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

// failure returns one line that says why Nomad placed nothing.
func failure(m *api.AllocationMetric) string {
	var why []string
	for c, n := range m.ConstraintFiltered {
		why = append(why, fmt.Sprintf("%s rules out %d", c, n))
	}
	for d, n := range m.DimensionExhausted {
		why = append(why, fmt.Sprintf("no %s left on %d", d, n))
	}
	if len(why) == 0 {
		why = append(why, fmt.Sprintf("%d nodes evaluated", m.NodesEvaluated))
	}
	slices.Sort(why)
	return strings.Join(why, ", ")
}

// freshID returns a first ID above those of earlier demos, whose jobs a real Nomad may still
// have, and below router.MaxGitHubID.
func freshID(now time.Time) int64 { return now.Unix() * 1e4 }

// clear removes what the demo left on a real Nomad.
func (f *fleet) clear(ctx context.Context, st Server) {
	if !f.real {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	runners, _, err := st.SearchRunners(ctx, router.RunnerFilter{Limit: 10_000})
	if err != nil {
		return // they are left over at worst
	}
	for _, r := range runners {
		_, _, _ = f.client.Jobs().Deregister(r.NomadJob, true, (&api.WriteOptions{}).WithContext(ctx))
	}
}
