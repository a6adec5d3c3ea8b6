package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/intake"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/rulebook"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/telemetry"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/router/webhook"
	"switchyard/rules"
)

type serveFlags struct {
	rules, specDir                 string
	allowEdit                      bool
	listen, adminListen, publicURL string
	db                             string
	checkDB                        bool
	webhookSecretFiles             []string
	githubTokenFile, githubURL     string
	githubAppID                    int64
	githubAppKeyFile               string
	githubInstances                string
	intake                         intakeForm
	logFormat, logLevel            string
	senders                        int
	grace                          time.Duration
	claimFromNode                  bool
	adminTokenFile, access         string
	keep                           time.Duration

	githubSide *telemetry.Side // required by githubs
}

func serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve --rules PATH --public-url URL --webhook-secret-file FILE (--github-app-id ID --github-app-key-file FILE | --github-token-file FILE)",
		Short: "Receive webhooks and start runners on Nomad",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flagsFromEnv(cmd.Flags()); err != nil {
				return err
			}
			return f.serve(cmd.Context(), cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.rules, "rules", "", "")
	fl.StringVar(&f.specDir, "jobspecs", "", "")
	fl.BoolVar(&f.allowEdit, "allow-edit", false, "")
	fl.StringVar(&f.listen, "listen", ":8080", "")
	fl.StringVar(&f.adminListen, "admin-listen", "127.0.0.1:8081", "")
	fl.StringVar(&f.adminTokenFile, "admin-token-file", "", "")
	fl.StringVar(&f.access, "access", "", "")
	fl.StringVar(&f.publicURL, "public-url", "", "")
	fl.StringVar(&f.db, "db", "switchyard.db", "")
	fl.BoolVar(&f.checkDB, "check-db", false, "")
	fl.StringSliceVar(&f.webhookSecretFiles, "webhook-secret-file", nil, "")
	fl.StringVar(&f.githubTokenFile, "github-token-file", "", "")
	fl.Int64Var(&f.githubAppID, "github-app-id", 0, "")
	fl.StringVar(&f.githubAppKeyFile, "github-app-key-file", "", "")
	fl.StringVar(&f.githubURL, "github-url", "", "")
	fl.StringVar(&f.githubInstances, "github-instances", "", "")
	fl.StringVar(&f.intake.Intake, "github-intake", intakeWebhook, "")
	fl.DurationVar(&f.intake.PollEvery, "github-poll-every", intake.PollEvery, "")
	fl.StringSliceVar(&f.intake.PollHooks, "github-poll-hook", nil, "")
	fl.DurationVar(&f.keep, "keep", 30*24*time.Hour, "")
	fl.StringVar(&f.logFormat, "log-format", "json", "")
	fl.StringVar(&f.logLevel, "log-level", "info", "")
	fl.IntVar(&f.senders, "senders", 16, "")
	fl.DurationVar(&f.grace, "grace", 20*time.Second, "")
	fl.BoolVar(&f.claimFromNode, "claim-from-node", false, "")
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), serveHelp) })
	return cmd
}

// serveHelp is written by hand to group the flags; a test compares it with the flags.
const serveHelp = `Receive GitHub's workflow_job webhooks and start runners on Nomad.

Each flag can be set in the environment: --public-url as SWITCHYARD_PUBLIC_URL.

Routing
  --rules PATH                  rules file, or directory of them (required)
  --jobspecs DIR                your own jobspecs; both are reloaded on change
  --allow-edit                  let editors change the rules; needs --access
GitHub (files are reloaded on change)
  --webhook-secret-file FILE    the webhook's; or SWITCHYARD_WEBHOOK_SECRET
  --github-app-id ID            GitHub App that registers the runners, and
  --github-app-key-file FILE    its private key
  --github-token-file FILE      or a token; or SWITCHYARD_GITHUB_TOKEN
  --github-url URL              https://HOST/api/v3/, or of a tenant of ghe.com
  --github-instances FILE       more GitHubs, besides this one
  --github-intake HOW           webhook; poll: GitHub needs no access; or both
  --github-poll-every DURATION  while jobs come, less often otherwise (5s)
  --github-poll-hook HOOK       OWNER/ID or OWNER/REPO/ID, besides the App's
Nomad
  NOMAD_ADDR, NOMAD_TOKEN, NOMAD_CACERT, … work as for the nomad command
  --senders N                   Nomad jobs registered at once, up to 64 (16)
Listening
  --listen ADDR                 webhook and claim (:8080)
  --admin-listen ADDR           console and API (127.0.0.1:8081), or unix:PATH
  --access FILE                 who may use them: tokens, OpenID Connect, roles;
  --admin-token-file FILE       or one token for all. Without either: everybody
  --public-url URL              where runners reach --listen (required)
  --claim-from-node             claims only from the runner's node (no NAT)
State, logs, and traces (to OTEL_EXPORTER_OTLP_ENDPOINT)
  --db DATABASE                 SQLite file (switchyard.db), or postgres://…
  --check-db                    check all of it for damage before serving
  --keep DURATION               keep ended jobs this long, at least 72h (720h)
  --grace DURATION              time to finish work at a stop (20s)
  --log-format json|text        (json)
  --log-level LEVEL             debug, info, warn or error (info)

Example
  switchyard serve --rules rules.example.yaml \
    --public-url http://10.0.0.5:8080 --webhook-secret-file webhook.secret \
    --github-app-id 123456 --github-app-key-file app.pem
`

const envPrefix = "SWITCHYARD_"

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// flagsFromEnv sets each flag that is not on the command line from its
// SWITCHYARD_ variable.
func flagsFromEnv(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		v, ok := os.LookupEnv(envName(f.Name))
		if !ok || f.Changed {
			return
		}
		if err := flags.Set(f.Name, v); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", envName(f.Name), err))
		}
	})
	return errors.Join(errs...)
}

// tune changes the configuration of the server; only tests set it.
var tune = func(*server.Config) {}

func (f *serveFlags) serve(ctx context.Context, stderr io.Writer) error {
	logger, err := newLogger(stderr, f.logFormat, f.logLevel)
	if err != nil {
		return err
	}
	limitMemory(logger)
	if f.rules == "" {
		return errors.New("--rules PATH is missing; see switchyard serve --help")
	}
	if f.publicURL == "" {
		return errors.New("--public-url URL is missing: the address at which runners on Nomad's clients reach --listen, such as http://10.0.0.5:8080")
	}
	var secrets []router.Secret
	var reread func() ([]router.Secret, error)
	if f.intake.receives() {
		if secrets, reread, err = f.webhookSecrets(); err != nil {
			return err
		}
	}
	metrics := telemetry.NewMetrics()
	f.githubSide = metrics.GitHub
	github, more, polls, err := f.githubs()
	if err != nil {
		return err
	}
	access, err := f.accessSource(router.Secret(os.Getenv(envName("admin-token"))), logger)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // Windows has the name, but never sends it
	defer signal.Stop(hup)
	traces, err := newTraces(ctx, logger)
	if err != nil {
		return err
	}
	if traces != nil {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracesTimeout)
			defer cancel()
			if err := traces.Shutdown(ctx); err != nil {
				logger.Warn("the last traces were not sent", "err", err)
			}
		}()
	}
	client, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set), Logger: logger, Called: metrics.Nomad.Called, Calling: metrics.Nomad.Calling})
	if err != nil {
		return err
	}
	var options []store.Option
	if f.checkDB {
		options = append(options, store.CheckAll)
	}
	st, err := store.Open(ctx, f.db, options...)
	if err != nil {
		return err
	}
	if !st.Whole() {
		logger.Warn("the database is too large to be checked completely for damage in time; --check-db checks all of it", "db", f.db)
	}
	defer func() {
		if err := st.Close(); err != nil {
			logger.Error("cannot close the database", "err", err)
		}
	}()
	instances := github.Instances()
	if err := st.KeepNumbers(ctx, instances); err != nil {
		return fmt.Errorf("--github-instances: %w", err)
	}
	files := rulebook.Config{Rules: f.rules, JobspecDir: f.specDir, Nomad: client, Logger: logger, Keep: st.KeepRules, Marks: st}
	if st.Shared() {
		files.Keep, files.Shared = nil, st
	}
	book := rulebook.New(files)
	started, err := startRules(ctx, book, stderr)
	if err != nil {
		return err
	}
	parts := appParts{rulebook: editedRules{book, st}, allowEdit: f.allowEdit, store: st, nomad: capacity.New(client), github: github, rules: started.Set, secrets: secrets, reread: reread, host: instances[0].Host, more: more, polls: polls, access: access}
	config := server.Config{
		Listen: f.listen, AdminListen: f.adminListen, PublicURL: f.publicURL,
		Metrics: metrics, Logger: logger, Senders: f.senders, Grace: f.grace, Keep: f.keep, ClaimFromNode: f.claimFromNode,
		RulesVersion: started.Version, RulesApplied: book.Reread,
	}
	if traces != nil { // a nil pointer would be a non-nil interface
		config.Traces = traces
	}
	tune(&config)
	app, err := newApp(parts, config)
	if err != nil {
		return err
	}
	book.Bind(app)
	logger.Info("serving", "addr", app.Addr(), "admin_addr", app.AdminAddr(), "public_url", f.publicURL, "rules", len(started.Set.Rules()), "hash", started.Version.Hash)
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	background.Go(func() { logRelease(ctx, logger, client) })
	background.Go(func() {
		rulebook.LogLint(ctx, logger, started.Set, started.Jobspecs)
		book.Run(ctx, hup)
	})
	if err := app.Run(ctx); err != nil {
		return err
	}
	logger.Info("stopped")
	return nil
}

const releaseTimeout = 30 * time.Second // for Nomad to report its release

// logRelease logs Nomad's release, and warns if Switchyard was not tested with it.
func logRelease(ctx context.Context, logger *slog.Logger, client *nomad.Client) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	switch r, err := client.Releases(ctx); {
	case errors.Is(err, context.Canceled):
	case err != nil:
		logger.Info("nomad did not report its release", "err", err)
	case r.Untried() != "":
		logger.Warn("this Switchyard was not tested with this release of Nomad", "nomad", r.String(), "reason", r.Untried())
	default:
		logger.Info("this Switchyard was tested with this release of Nomad", "nomad", r.String())
	}
}

// appParts are the parts that newApp wires into an App.
type appParts struct {
	store   *store.Store
	nomad   *capacity.Client
	github  router.GitHub
	rules   *rules.Set
	secrets []router.Secret
	reread  func() ([]router.Secret, error) // see webhook.Config
	host    string                          // of the GitHub with these secrets
	more    []webhook.Instance              // the other GitHubs whose deliveries are received
	polls   []intake.Poll                   // see server.Config
	access  func() (*auth.Access, error)    // see web.Config

	rulebook  api.Rulebook // see web.Config
	allowEdit bool         // see web.Config
}

// newApp wires an App; demo and tests use it too.
func newApp(p appParts, c server.Config) (*server.App, error) {
	c.Store, c.Nomad, c.GitHub, c.Rules = p.store, p.nomad, p.github, p.rules
	c.LocalOnly = p.access == nil
	c.Beside = p.nomad.RefreshFleet
	if p.store.Shared() {
		c.Replicas, c.Name = p.store, replicaName()
	}
	if c.Metrics == nil {
		c.Metrics = telemetry.NewMetrics()
	}
	p.store.OnCommit(c.Metrics.Committed)
	c.Polls, c.Decode = p.polls, webhook.Decode
	receives := len(p.secrets)+len(p.more) > 0 || len(p.polls) == 0
	c.Webhook = func(receive func(context.Context, router.Delivery) error) (http.Handler, error) {
		return webhook.Handler(webhook.Config{Secrets: p.secrets, Reread: p.reread, Host: p.host, More: p.more, Logger: c.Logger, Counted: c.Metrics.Delivered}, receive)
	}
	if !receives {
		c.Webhook = nil
	}
	if c.Traces != nil {
		c.Logger = telemetry.TraceLogs(c.Logger, p.github)
	}
	c.API = func(app *server.App) http.Handler {
		w := web.Config{App: app, Database: p.store.Reader(), Rulebook: p.rulebook, AllowEdit: p.allowEdit, Access: p.access, Audit: p.store, Connections: app.Connections(), Logger: c.Logger, Now: c.Now}
		if shared := p.store.Sessions(); shared != nil { // a nil pointer would be a non-nil interface
			w.Sessions = shared
		}
		if at := p.nomad.API().Address(); strings.HasPrefix(at, "http") {
			w.NomadUI = strings.TrimSuffix(at, "/")
		}
		w.Simulator = simulator{p.store, p.nomad}
		w.Cluster = clusterAdapter{p.nomad, cmp.Or(c.PublicURL, "http://"+app.Addr())}
		return web.Handler(w)
	}
	return server.New(c)
}

// replicaName returns a name of this process that no other replica has.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "replica"
	}
	return host + "/" + cmp.Or(os.Getenv("NOMAD_SHORT_ALLOC_ID"), strconv.Itoa(os.Getpid()))
}

// webhookSecrets returns the secrets of the flags' GitHub, and a function that reads
// them again.
func (f *serveFlags) webhookSecrets() ([]router.Secret, func() ([]router.Secret, error), error) {
	fixed := router.Secret(os.Getenv(envPrefix + "WEBHOOK_SECRET"))
	if len(f.webhookSecretFiles) == 0 && fixed == "" {
		return nil, nil, errors.New("--webhook-secret-file FILE is missing: the secret of the webhook on GitHub, without which anybody could start runners")
	}
	return readSecrets(f.webhookSecretFiles, fixed)
}

// readSecrets returns the webhook secrets in files, one per line, and a function
// that reads them again; nil if a file is not a regular one, such as a pipe. It adds
// fixed unless that is "".
func readSecrets(files []string, fixed router.Secret) ([]router.Secret, func() ([]router.Secret, error), error) {
	read := func() (secrets []router.Secret, err error) {
		for _, file := range files {
			all, err := readSecret(file)
			if err != nil {
				return nil, fmt.Errorf("webhook secret: %w", err)
			}
			for line := range strings.Lines(string(all)) {
				if line = strings.TrimRight(line, "\r\n"); line != "" {
					secrets = append(secrets, router.Secret(line))
				}
			}
		}
		if fixed != "" {
			secrets = append(secrets, fixed)
		}
		return secrets, nil
	}
	secrets, err := read()
	for _, file := range files {
		if info, gone := os.Stat(file); gone == nil && !info.Mode().IsRegular() {
			return secrets, nil, err
		}
	}
	return secrets, read, err
}

// github returns a client for the App or the token in the flags. Exactly one of
// them must be given.
func (f *serveFlags) github() (*gh.Client, error) {
	cfg := gh.Config{BaseURL: f.githubURL, Called: f.githubSide.Called, Calling: f.githubSide.Calling}
	token := os.Getenv(envPrefix + "GITHUB_TOKEN")
	app := f.githubAppID != 0 || f.githubAppKeyFile != ""
	switch {
	case app && (f.githubTokenFile != "" || token != ""):
		return nil, errors.New("a GitHub App and a GitHub token exclude each other: leave one out")
	case app && (f.githubAppID <= 0 || f.githubAppKeyFile == ""):
		return nil, errors.New("a GitHub App needs both --github-app-id ID and --github-app-key-file FILE; its settings page has them")
	case app:
		cfg.App = &gh.App{ID: f.githubAppID, Key: gh.KeyFile(f.githubAppKeyFile)}
		if _, err := cfg.App.Key(); err != nil {
			return nil, fmt.Errorf("GitHub App's key: %w", err)
		}
	case f.githubTokenFile != "":
		cfg.Token = gh.TokenFile(f.githubTokenFile)
		if _, err := cfg.Token(); err != nil {
			return nil, fmt.Errorf("GitHub token: %w", err)
		}
	case token != "":
		cfg.Token = gh.StaticToken(router.Secret(token))
	default:
		return nil, errors.New("give --github-app-id ID and --github-app-key-file FILE, or --github-token-file FILE: the login that registers runners (repository Administration: write)")
	}
	return gh.New(cfg)
}

// loopback reports whether a listener's address can only be reached from this machine.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // listening there will fail
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

const maxSecretFile = 64 << 10 // bytes

func readSecret(file string) (router.Secret, error) {
	b, err := router.ReadSecret(file, maxSecretFile)
	if err != nil {
		return "", err
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return "", fmt.Errorf("%s is empty", file)
	}
	return router.Secret(b), nil
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l, ReplaceAttr: withUnit}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(printable{w}, opts)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want json or text", format)
}

// withUnit writes a duration with its unit, where JSON would have nanoseconds.
func withUnit(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// A printable writes JSON that is harmless on a terminal.
type printable struct{ io.Writer }

func (p printable) Write(b []byte) (int, error) {
	if _, err := p.Writer.Write(router.PrintableJSON(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}
