// Package server owns the process as a value: it wires the rooms, opens the listeners, runs
// every loop until it is stopped, and reports its health. cmd/switchyard makes one App.
package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"switchyard/router"
	"switchyard/router/claim"
	"switchyard/router/decide"
	"switchyard/router/dispatch"
	"switchyard/router/feedback"
	"switchyard/router/health"
	"switchyard/router/intake"
	"switchyard/router/operate"
	"switchyard/router/overflow"
	"switchyard/router/rerun"
	"switchyard/router/runners"
	"switchyard/router/telemetry"
	"switchyard/router/warm"
	"switchyard/rules"
)

// A Config is what an App is made from.
type Config struct {
	Store Store // required; the caller closes it after Run

	// Replicas are the other processes that serve from Store. nil: there may be none.
	Replicas Replicas
	Name     string // of this process among them

	Nomad  router.Nomad  // required
	GitHub router.GitHub // required
	Rules  *rules.Set    // required; in force until Reload

	RulesVersion router.RulesVersion // of Rules; an empty Origin is "start"

	// RulesApplied is called when another replica says that rules were applied there; it
	// returns at once. nil: nobody wants to know.
	RulesApplied func()

	// Webhook makes the handler of POST /webhooks/github; it calls receive for
	// each delivery that is checked and decoded, and answers after it returns.
	// Required, unless there is a Poll; nil: deliveries are not received.
	Webhook func(receive func(context.Context, router.Delivery) error) (http.Handler, error)

	// Polls are the webhooks whose deliveries are read from GitHub, besides or in place of
	// receiving them.
	Polls []intake.Poll

	// Decode reads the body of a workflow_job delivery, and bounds what strangers wrote in it.
	// Required with Polls.
	Decode func(body []byte) (router.Delivery, error)

	// API makes the handler of the console and of the API, which is everything on
	// the operators' listener but /healthz, /readyz and /metrics. nil: there is none.
	API func(*App) http.Handler

	// Beside runs as long as the App, beside its own loops, and returns nil when ctx ends: what
	// reads Nomad's nodes for the Fleet page. nil: nothing does.
	Beside func(ctx context.Context) error

	Listen      string // address of the public listener: webhook and claim only. Required; port 0 takes a free one
	AdminListen string // address of the operators' listener, or unix:PATH of a socket that is made for this user alone. Required, likewise
	PublicURL   string // where runners reach the public listener: http(s)://host[:port][/path]. "" is http:// and the listener's address

	NetListen func(network, addr string) (net.Listener, error) // opens the listeners; nil: net.Listen

	LocalOnly bool // nobody logs in: /readyz and /metrics must be requested as localhost or by IP address, so that no web page reaches them under a name of its own

	Connections int // that each listener may have open; 0: 768, or a quarter of the files that the process may open if that is less

	Metrics *telemetry.Metrics   // shown on the operators' listener; nil: new ones
	Traces  trace.TracerProvider // of the traces of jobs, see telemetry.TraceIDs; nil: no traces

	Logger *slog.Logger     // nil: slog.Default
	Now    func() time.Time // nil: time.Now
	Rand   func() float64   // spreads retries; nil: math/rand

	Senders int // Nomad jobs registered at the same time, at most 64; 0: 16

	Tick  time.Duration // how often due jobs and leftover runners are read from the store though no hint came; 0: 5 s
	Grace time.Duration // how long a stop waits for work under way; 0: 20 s

	ClaimFromNode bool // a claim must come from the address that Nomad knows of the runner's node: not behind NAT or a proxy

	Sweep time.Duration // how often the database is compared with a listing of Nomad, besides its events; 0: 5 min
	Idle  time.Duration // how long a runner may wait for its configuration or a job, until GitHub is asked and it is replaced; 0: 10 min
	Keep  time.Duration // how long jobs are kept after their end, at least 72 h; 0: 30 days
	Doubt time.Duration // how long a runner that may have a job has to show itself, until its own is tried again; 0: 2 min

	Deliveries time.Duration // how often GitHub is asked for deliveries that got lost; 0: 5 min
	Feedback   time.Duration // how often notices on commits are updated, if the rules ask for them; 0: 5 s
	Recheck    time.Duration // after how long GitHub is asked about a job that nobody serves; 0: 10 min
}

// An App is the router as a process. It is made by New.
type App struct {
	public, admin *gate
	adminListen   string // as in Config
	localOnly     bool
	grace         time.Duration
	webhook, api  http.Handler // nil: there is none
	beside        func(ctx context.Context) error
	registry      *prometheus.Registry // of this App alone, beside Config.Metrics
	health        *health.Health
	stopping      chan struct{} // see Stopping
	replicas      Replicas      // nil: there may be none
	rulesApplied  func()        // as in Config
	replica       replica       // this process among them
	publicURL     string        // as in Config
	cluster       cluster       // Config.Nomad; nil: it does not say which it is
	limited       limited       // Config.GitHub; nil: it has no limits

	store   Store
	metrics *telemetry.Metrics
	log     *telemetry.Log
	now     func() time.Time
	doubt   time.Duration

	clock    *clock
	due      router.Hint
	leftover *router.JobHint
	compare  router.TimeHint
	limits   router.Hint
	newRules router.Hint
	warm     router.Hint

	decider    *decide.Decider
	first      *intake.FirstSync
	intake     *intake.Intake
	sweeper    *intake.Sweeper
	syncer     *intake.Syncer
	poller     *intake.Poller
	overflow   *overflow.Overflow
	runners    *runners.Runners
	dispatcher *dispatch.Dispatcher
	claims     *claim.Handler
	keeper     *warm.Keeper
	operator   *operate.Operator
	strays     *runners.Strays
	duties     []duty // of the leader
	ownDuties  []duty // of each replica
}

// A duty is done at intervals.
type duty struct {
	every  time.Duration
	do     func(context.Context) error
	cannot string          // what the log says when do fails
	sooner <-chan struct{} // it receives when the duty is due at once; nil: never
}

// New checks the configuration and opens the listeners, so that their
// addresses are known. The caller must call Run or Close.
func New(c Config) (*App, error) {
	if c.Store == nil || c.Nomad == nil || c.GitHub == nil || c.Rules == nil || c.Webhook == nil && len(c.Polls) == 0 {
		return nil, errors.New("server: Store, Nomad, GitHub, Rules, and Webhook or Polls are required")
	}
	if len(c.Polls) > 0 && c.Decode == nil {
		return nil, errors.New("server: Polls need Decode")
	}
	if c.Listen == "" || c.AdminListen == "" {
		return nil, errors.New("both listeners need an address, such as :8080 and 127.0.0.1:8081")
	}
	if c.Senders > dispatch.MaxSenders {
		return nil, fmt.Errorf("%d senders exceed the maximum of %d: Nomad allows 100 connections from one address", c.Senders, dispatch.MaxSenders)
	}
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Senders <= 0 {
		c.Senders = 16
	}
	if c.Connections <= 0 {
		c.Connections = max(min(maxConnections, openFiles()/4), leastConnections)
	}
	for field, usual := range map[*time.Duration]time.Duration{
		&c.Tick: 5 * time.Second, &c.Grace: 20 * time.Second,
		&c.Sweep: 5 * time.Minute, &c.Idle: 10 * time.Minute, &c.Keep: 30 * 24 * time.Hour,
		&c.Doubt:      2 * time.Minute, // GitHub gives an online runner its job in less than one
		&c.Deliveries: 5 * time.Minute, &c.Feedback: 5 * time.Second, &c.Recheck: 10 * time.Minute,
	} {
		if *field <= 0 {
			*field = usual
		}
	}
	if c.Keep < leastKeep {
		return nil, fmt.Errorf("keep history for %s: at least %s, as GitHub may redeliver until then", c.Keep, leastKeep)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.NetListen == nil {
		c.NetListen = net.Listen
	}
	c.Metrics = cmp.Or(c.Metrics, telemetry.NewMetrics())
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("public URL %q: want http(s)://host[:port], as the Nomad clients reach it", c.PublicURL)
		}
		c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	}
	v := c.RulesVersion
	v.Origin, v.Files = cmp.Or(v.Origin, "start"), append([]string{}, v.Files...)
	a := &App{
		adminListen: c.AdminListen, localOnly: c.LocalOnly, grace: c.Grace,
		registry: prometheus.NewRegistry(), stopping: make(chan struct{}),
		store: c.Store, metrics: c.Metrics, log: telemetry.NewLog(c.Logger, c.Now), now: c.Now, doubt: c.Doubt,
		replicas: c.Replicas, rulesApplied: c.RulesApplied, replica: replica{name: c.Name, began: c.Now(), led: c.Now()},
		due: router.NewHint(), leftover: router.NewJobHint(), compare: make(router.TimeHint, 1), limits: router.NewHint(), newRules: router.NewHint(), warm: router.NewHint(),
		decider: decide.New(c.GitHub, c.Now, c.Rules, v), first: intake.NewFirstSync(), beside: c.Beside,
	}
	var err error
	if c.Webhook != nil {
		if a.webhook, err = c.Webhook(a.receive); err != nil {
			return nil, err
		}
	}
	public, err := c.NetListen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("open the public listener: %w", err)
	}
	admin, err := listenAdmin(c.AdminListen, c.NetListen)
	if err != nil {
		_ = public.Close()
		return nil, fmt.Errorf("open the operators' listener: %w", err)
	}
	a.public, a.admin = newGate(public, "public", c.Connections, c.Logger), newGate(admin, "admin", c.Connections, c.Logger)
	if c.PublicURL == "" {
		c.PublicURL = "http://" + a.Addr()
	}
	a.publicURL = c.PublicURL
	a.cluster, _ = c.Nomad.(cluster)
	a.limited, _ = c.GitHub.(limited)
	a.wire(c)
	a.registry.MustRegister(a.decider.Metrics(), a.health, gateMetrics{a.public, a.admin}, replicaMetrics{&a.replica, c.Replicas == nil},
		telemetry.NewPoolMetrics(c.Store), ofLeader{telemetry.NewDatabaseMetrics(c.Store, func() []string { return a.Rules().Rules() }), func() bool { return c.Replicas == nil || a.replica.term() != 0 }})
	if github, ok := c.GitHub.(interface{ Budget() []router.Budget }); ok {
		a.registry.MustRegister(telemetry.NewGitHubMetrics(github))
	}
	a.registry.MustRegister(telemetry.NewPollMetrics(a.poller.Status))
	a.registry.MustRegister(telemetry.NewOverflowMetrics(a.overflowing, a.overflow.Status))
	if c.API != nil {
		a.api = c.API(a)
	}
	return a, nil
}

// wire makes the rooms from a complete Config.
func (a *App) wire(c Config) {
	due, leftover, inHand := a.due, a.leftover, &decide.InHand{}
	sure, backoff := router.NewClock(c.Now), &router.Backoff{Now: c.Now, Rand: c.Rand}
	var traces *telemetry.Traces
	if c.Traces != nil {
		traces = &telemetry.Traces{Provider: c.Traces, GitHub: c.GitHub, Now: c.Now}
	}
	a.sweeper = intake.NewSweeper(c.Store, c.GitHub, a.log, c.Now, func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		defer cancel()
		return c.Store.SetMark(ctx, health.Mark, c.Now().UTC().Format(time.RFC3339)) == nil
	})
	a.intake = intake.New(intake.Intake{
		Store: c.Store, GitHub: c.GitHub, Sweeper: a.sweeper, Log: a.log, Metrics: c.Metrics, Traces: traces,
		Clock: sure, Now: c.Now, Stale: c.Recheck, Due: due, Leftover: leftover,
	})
	a.syncer = &intake.Syncer{
		Store: c.Store, Nomad: c.Nomad, GitHub: c.GitHub, Intake: a.intake, Sweeper: a.sweeper, First: a.first,
		Log: a.log, Now: c.Now, Compare: a.compare,
	}
	a.poller = &intake.Poller{
		Polls: c.Polls, Store: c.Store, GitHub: c.GitHub, Intake: a.intake, Sweeper: a.sweeper, Log: a.log, Metrics: c.Metrics,
		Now: c.Now, Decode: c.Decode, Full: a.syncer.SyncHook,
	}
	a.sweeper.Polled = a.poller.Has
	versions := runners.NewVersions(&runners.Versions{Store: c.Store, GitHub: c.GitHub, Decider: a.decider, Now: c.Now})
	a.runners = runners.New(&runners.Runners{
		Store: c.Store, Nomad: c.Nomad, GitHub: c.GitHub, Intake: a.intake, Decider: a.decider, First: a.first, Versions: versions,
		Log: a.log, Metrics: c.Metrics, Backoff: backoff, Now: c.Now, Due: due, Leftover: leftover, Compare: a.compare, Warm: a.warm,
		MakeRoom:  func(ctx context.Context, j router.Job) { a.keeper.MakeRoom(ctx, j) },
		Listed:    func(ctx context.Context, jobs []router.NomadJob) { a.keeper.Listed(ctx, jobs) },
		PublicURL: c.PublicURL, Tick: c.Tick, Sweep: c.Sweep, Idle: c.Idle, Doubt: c.Doubt,
	})
	strays := runners.NewStrays(c.Store, a.runners)
	a.dispatcher = dispatch.New(&dispatch.Dispatcher{
		Store: c.Store, Nomad: c.Nomad, GitHub: c.GitHub, Intake: a.intake, Decider: a.decider, InHand: inHand,
		First: a.first, Runners: a.runners, Log: a.log, Metrics: c.Metrics, Traces: traces, Backoff: backoff,
		Now: c.Now, Rand: c.Rand, Due: due, Limits: a.limits, NewRules: a.newRules, Compare: a.compare, WarmTaken: a.warmTaken,
		PublicURL: c.PublicURL, Senders: c.Senders, Tick: c.Tick, Sweep: c.Sweep, Grace: c.Grace,
	})
	a.claims = claim.New(&claim.Handler{
		Store: c.Store, Nomad: c.Nomad, GitHub: c.GitHub, Intake: a.intake, Decider: a.decider, InHand: inHand,
		First: a.first, Runners: a.runners, Strays: strays, Log: a.log, Metrics: c.Metrics, Traces: traces,
		Backoff: backoff, Now: c.Now, Due: due, Leftover: leftover, FromNode: c.ClaimFromNode, Doubt: c.Doubt,
		WarmChanged: a.warm, Stopping: a.stopping, MaxWaiting: max(c.Connections/2, 1),
	})
	a.keeper = warm.New(&warm.Keeper{
		Store: c.Store, Nomad: c.Nomad, Decider: a.decider, Log: a.log, Metrics: c.Metrics, Now: c.Now, Changed: a.warm, Stopped: a.claims.Taken, Away: a.runners.Away,
		PublicURL: c.PublicURL, Tick: c.Tick,
	})
	commits := &feedback.Feedback{Store: c.Store, GitHub: c.GitHub, Intake: a.intake, Decider: a.decider, Log: a.log, Now: c.Now, Words: health.Words, Spare: c.Recheck}
	a.overflow = &overflow.Overflow{Store: c.Store, GitHub: c.GitHub, Decider: a.decider, Log: a.log, Metrics: c.Metrics, Now: c.Now, Last: a.last}
	lost := &rerun.Reruns{Store: c.Store, GitHub: c.GitHub, Log: a.log, Metrics: c.Metrics, Now: c.Now}
	a.operator = &operate.Operator{Store: c.Store, GitHub: c.GitHub, Runners: a.runners, Log: a.log, Now: c.Now, Due: due}
	a.clock = &clock{store: c.Store, log: a.log, now: c.Now, tick: c.Tick, setBack: func() {
		backoff.ClockSetBack()
		due.Give()
		leftover.Of(0)
		a.compare.At(c.Now())
	}}
	a.health = health.New(health.Config{
		Store: c.Store, Metrics: c.Metrics, Now: c.Now, Rules: a.decider.Status, FirstSync: a.first.UnderWay,
		Silent: a.silent, NotEvaluating: a.notEvaluating, Lost: a.lost, Polls: a.polls, Overflows: a.overflows, Warm: a.warmTroubles, Replicas: func(now time.Time) []router.Trouble {
			if c.Replicas == nil {
				return nil
			}
			return a.replica.troubles(now)
		},
	}, "Switchyard "+telemetry.ThisBuild().Version+" started")
	changed(a.health, c.RulesVersion, c.Now())
	history := &pruner{store: c.Store, log: a.log, clock: sure, keep: c.Keep}
	a.strays = strays
	a.duties = []duty{
		{c.Deliveries, a.sweeper.Sweep, "cannot ask github for lost deliveries", a.sweeper.Sooner()},
		{c.Recheck / 10, a.intake.Recheck, "cannot ask github about jobs that nobody serves", nil},
		{c.Feedback, lost.Ask, "cannot ask github to run jobs again that lost their runner", nil},
		{c.Recheck / 10, commits.CancelRuns, "cannot cancel runs that nothing can serve", nil},
		{c.Feedback, commits.Update, "cannot update notices on commits", nil},
		{versionsEvery, versions.Look, "cannot ask github for the versions of runners", nil},
		{c.Sweep, strays.Remove, "cannot remove dead runners from github", nil},
		{pruneEvery, history.prune, "cannot delete old history", nil},
	}
	if c.Replicas != nil { // one that ended may have left claims unanswered
		a.duties = append(a.duties, duty{recoverEvery, func(ctx context.Context) error { return a.recover(ctx, c.Now().Add(-claim.Longest)) }, "cannot recover interrupted claims", nil})
	}
	a.ownDuties = []duty{{claim.LostEvery, a.claims.RemoveLost, "cannot remove runners that github registered without saying so", nil}}
}

// Addr returns the address of the public listener.
func (a *App) Addr() string { return a.public.Addr().String() }

// AdminAddr returns the address of the operators' listener, as in Config.AdminListen.
func (a *App) AdminAddr() string {
	if at := a.admin.Addr(); at.Network() != "unix" {
		return at.String()
	}
	return a.adminListen
}

// Stopping returns a channel that is closed when Run begins to stop: streams end then.
func (a *App) Stopping() <-chan struct{} { return a.stopping }

// Close closes the listeners of an App that is not run.
func (a *App) Close() error { return errors.Join(a.public.Close(), a.admin.Close()) }

// Run serves until ctx ends, then stops within Grace, finishing what is under way. It returns
// nil in that case, and otherwise the error that ended it. It must be called once.
func (a *App) Run(ctx context.Context) error {
	lead := a.replicate
	if a.replicas == nil {
		taken, err := a.takeUp(ctx, a.now().Add(clockStep))
		if ctx.Err() != nil {
			return a.Close()
		}
		if err != nil {
			return errors.Join(err, a.Close())
		}
		lead = func(ctx context.Context) error { return a.lead(ctx, ctx, taken) }
	}
	defer a.health.Wait()
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { close(a.stopping) })()
	public := mux.NewRouter() // all that strangers can reach
	if a.webhook != nil {
		public.Handle("/webhooks/github", a.webhook).Methods(http.MethodPost)
	}
	public.Handle(router.ClaimPath, a.claims).Methods(http.MethodGet)
	public.HandleFunc(router.VerifyPath, a.claims.Verify).Methods(http.MethodPost)
	g.Go(func() error { return a.serve(ctx, a.public, public, publicHead) })
	g.Go(func() error { return a.serve(ctx, a.admin, a.adminHandler(), adminHead) })
	loops := []func(context.Context) error{lead, a.sweeper.Recover, a.intake.CheckWaiting, a.strays.MakeRoom, a.claims.Watch}
	if a.replicas != nil && a.cluster != nil {
		loops = append(loops, a.identify)
	}
	if a.beside != nil {
		loops = append(loops, a.beside)
	}
	a.start(ctx, g, loops, a.ownDuties)
	return g.Wait()
}

// start starts loops, and duties, in a group.
func (a *App) start(ctx context.Context, g *errgroup.Group, loops []func(context.Context) error, duties []duty) {
	for _, loop := range loops {
		g.Go(func() error { return loop(ctx) })
	}
	for _, d := range duties {
		g.Go(func() error { return a.do(ctx, d) })
	}
}

// lead does what one process must do alone, until ctx ends; stops ends when the process stops.
func (a *App) lead(ctx, stops context.Context, t taken) error {
	g, ctx := errgroup.WithContext(ctx)
	a.start(ctx, g, append(a.runners.Loops(), a.clock.watch,
		a.dispatcher.Run, a.dispatcher.Relimit, a.dispatcher.Redecide, a.dispatcher.WatchNomad, a.keeper.Run), a.duties)
	g.Go(func() error { return a.poller.Run(ctx, t.full) })
	g.Go(func() error { return a.overflow.Run(ctx, stops) })
	if t.full {
		g.Go(func() error {
			a.first.Wait(ctx)
			a.syncer.Full(ctx, nil)
			return nil
		})
	} else if t.compares && t.away >= syncAfter {
		g.Go(func() error { return a.syncer.SyncUnread(ctx) })
	}
	return g.Wait()
}

// taken is how the last process left the database.
type taken struct {
	full     bool          // a full sync is due
	compares bool          // the database is compared with what GitHub delivered
	away     time.Duration // for how long nothing has been recorded
}

// takeUp takes up the database as the last process left it, with the claims of until and before.
func (a *App) takeUp(ctx context.Context, until time.Time) (t taken, err error) {
	// Before anything is written.
	latest, err := a.store.Latest(ctx)
	if err != nil {
		return t, fmt.Errorf("read when the database last changed: %w", err)
	}
	if err := a.clock.before(ctx); err != nil {
		return t, fmt.Errorf("compare the clock with the database: %w", err)
	}
	if err := a.recover(ctx, until); err != nil {
		return t, fmt.Errorf("recover interrupted claims: %w", err)
	}
	if err := a.store.DoubtWarm(ctx); err != nil {
		return t, fmt.Errorf("take up the warm runners: %w", err)
	}
	if t.full, err = a.syncer.FirstDue(ctx); err != nil {
		return t, fmt.Errorf("read whether the database is empty: %w", err)
	}
	t.compares, t.away = !t.full && !latest.IsZero(), a.now().Sub(latest)
	a.sweeper.Start(latest, t.compares)
	t.full = t.full || t.compares && t.away > intake.Listed // GitHub no longer lists all deliveries since then
	if t.full {
		a.first.Begin()
	}
	return t, nil
}

// recover recovers the claims that were interrupted at until or before.
func (a *App) recover(ctx context.Context, until time.Time) error {
	n, err := a.store.Recover(ctx, until, a.now().Add(a.doubt), a.now())
	if n > 0 {
		a.log.Warn("runners were being configured by a process that ended; their jobs are retried", "runners", n)
	}
	return err
}

// syncAfter is for how long nothing must have been recorded for a start to sync what GitHub
// lists no deliveries of.
const syncAfter = 10 * time.Minute

// do does a duty at once, then at its intervals and whenever it is due sooner, until ctx ends.
// It logs errors, but none that is the same as the last one, and one a minute.
func (a *App) do(ctx context.Context, d duty) error {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	said := ""
	for {
		err := d.do(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			said = ""
		case errors.As(err, new(*router.RetryAtError)):
			a.log.Info(d.cannot, "err", err, "again_at", a.now().Add(d.every))
		case err.Error() != said && a.log.Allows(d.cannot):
			said = err.Error()
			a.log.Warn(d.cannot, "err", err, "again_at", a.now().Add(d.every))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-d.sooner:
		}
	}
}

// receive takes a delivery. If it is news the address that sent it is proven; somebody who
// repeats a delivery proves nothing.
func (a *App) receive(ctx context.Context, d router.Delivery) error {
	news, err := a.intake.Receive(ctx, d)
	if news {
		markProven(ctx)
	}
	return err
}

// changed records what differs from the rules and jobspecs that were in force before.
func changed(h *health.Health, v router.RulesVersion, at time.Time) {
	for _, what := range v.Changes {
		h.Changed(router.Changed{At: at, What: what, Who: v.Who})
	}
}

// Reload puts rules in force: jobs are decided by them from now on. A job in hand keeps its
// decision. Safe for concurrent use, as are the methods below.
func (a *App) Reload(set *rules.Set, v router.RulesVersion) {
	a.decider.Reload(set, v)
	changed(a.health, v, a.now())
	a.limits.Give()
	a.newRules.Give()
	a.warm.Give()
}

// warmTaken says that a warm runner was taken: its claim is to be answered, and another started.
func (a *App) warmTaken(w router.WarmRunner) {
	a.keeper.Took(w)
	a.claims.Taken()
	a.warm.Give()
	if a.replicas != nil {
		a.tell(context.Background(), hintTaken)
	}
}

// RefuseRules records that newer rules were refused; those in force stay.
func (a *App) RefuseRules(r router.RefusedRules) { a.decider.Refuse(r) }

// KeepRules records that the rules in force are the newest again.
func (a *App) KeepRules() { a.decider.Keep() }

// Status says whether all is well with what a scope may see, and with what all share.
func (a *App) Status(within router.Scope) router.Status {
	s := a.health.Status(within)
	s.Replicas = a.statusReplicas()
	return s
}

// RulesStatus returns which rules are in force. The result must not be changed.
func (a *App) RulesStatus() router.RulesStatus {
	s := a.decider.Status()
	s.Replicas = a.statusReplicas()
	return s
}

// Rules returns the rules in force.
func (a *App) Rules() *rules.Set { return a.decider.Rules() }

// Explain is decide.Decider.Explain.
func (a *App) Explain(j router.Job) router.Decision { return a.decider.Explain(j) }

// RetryJob is operate.Operator.RetryJob.
func (a *App) RetryJob(ctx context.Context, id int64) error { return a.operator.RetryJob(ctx, id) }

// CancelJob is operate.Operator.CancelJob.
func (a *App) CancelJob(ctx context.Context, id int64, run bool) error {
	return a.operator.CancelJob(ctx, id, run)
}

// StopRunner is operate.Operator.StopRunner.
func (a *App) StopRunner(ctx context.Context, id string, force bool) error {
	return a.operator.StopRunner(ctx, id, force)
}

// Sync is intake.Syncer.Sync.
func (a *App) Sync(ctx context.Context, host, repo string) (router.SyncReport, error) {
	return a.syncer.Sync(ctx, host, repo)
}

// Connections returns how many connections each listener may have open.
func (a *App) Connections() int { return a.public.most }

// adminHandler returns the handler for operators: /healthz says that the process runs, /readyz
// is a Readiness, /metrics is for Prometheus. Everything else is Config.API's.
func (a *App) adminHandler() http.Handler {
	r := mux.NewRouter()
	r.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"status": "ok"})
	}).Methods(http.MethodGet, http.MethodHead)
	r.Handle("/readyz", a.local(func(w http.ResponseWriter, req *http.Request) {
		r, status := readiness(a.health, a.decider.Status(), a.statusReplicas()), http.StatusOK
		if r.Status == "not ready" {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, r)
	})).Methods(http.MethodGet, http.MethodHead)
	r.Handle("/metrics", a.local(promhttp.HandlerFor(prometheus.Gatherers{a.metrics.Registry(), a.registry}, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, Registry: a.registry,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelError),
	}).ServeHTTP)).Methods(http.MethodGet)
	if a.api != nil {
		r.PathPrefix("/").Handler(a.api)
	}
	return r
}

// local refuses requests for other hosts while nobody logs in.
func (a *App) local(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if a.localOnly && !router.LocalHost(req.Host) {
			http.Error(w, fmt.Sprintf("403: without --access use localhost or an IP address, not %q", router.Cut(req.Host, maxHost)), http.StatusForbidden)
			return
		}
		next(w, req)
	})
}

const maxHost = 100 // characters of a Host header that are shown

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that went away needs no answer
}

// serve runs one HTTP server until ctx ends, then lets its requests finish
// for Grace.
func (a *App) serve(ctx context.Context, l *gate, h http.Handler, maxHead int) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       60 * time.Second, // 25 MiB at a slow 4 Mbit/s
		WriteTimeout:      75 * time.Second, // counts from the end of the header, so it includes reading
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	l.guard(srv)
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.grace)
		defer cancel()
		err := srv.Shutdown(grace)
		if err != nil {
			err = errors.Join(err, srv.Close())
		}
		stopped <- err
	})
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	if err := <-stopped; err != nil {
		a.log.Warn("requests were cut off at the end of the grace period", "addr", l.Addr().String(), "err", err)
	}
	return nil
}
