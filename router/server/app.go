// Package server runs the router as a process: the listeners, the worker that
// turns decided jobs into Nomad jobs and follows their runners, and the claim.
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
	"switchyard/rules"
)

// Config is what an App is made of.
type Config struct {
	Store  router.Store  // required; the caller closes it after Run
	Nomad  router.Nomad  // required
	GitHub router.GitHub // required
	Rules  *rules.Set    // required; those in force until Reload

	RulesVersion router.RulesVersion // of Rules; no Origin: "start"

	// Webhook makes the handler of POST /webhooks/github; it calls receive for
	// each delivery that is checked and decoded, and answers after it returns.
	// Required.
	Webhook func(receive func(context.Context, router.Delivery) error) (http.Handler, error)

	// API makes the handler of the console and of the API, which is everything on
	// the operators' listener but /healthz, /readyz and /metrics. nil: there is none.
	API func(*App) http.Handler

	Listen      string // address of the public listener: webhook and claim only. Required; port 0 takes a free one
	AdminListen string // address of the operators' listener, or unix:PATH of a socket that is made for this user alone. Required, likewise
	PublicURL   string // where runners reach the public listener: http(s)://host[:port][/path]. "" is http:// and the listener's address

	NetListen func(network, addr string) (net.Listener, error) // opens the listeners; nil: net.Listen

	LocalOnly bool // nobody logs in: /readyz and /metrics are asked as localhost or by address, so that no web page reaches them under a name of its own

	Connections int // that each listener has open at the most; 0: 768, or a quarter of the files that the process may open

	Metrics *Metrics             // shown on the operators' listener; nil: new ones
	Traces  trace.TracerProvider // of what follows each job, see TraceIDs; nil: nobody follows

	Logger *slog.Logger     // nil: slog.Default
	Now    func() time.Time // nil: time.Now
	Rand   func() float64   // spreads retries; nil: math/rand

	Senders int // Nomad jobs registered at the same time, at most 64; 0: 16

	Tick  time.Duration // how often due jobs and leftover runners are read from the store though nothing woke the worker; 0: 5 s
	Grace time.Duration // how long a stop waits for work in hand; 0: 20 s

	ClaimFromNode bool // a claim must come from the address that Nomad knows of the runner's node: not behind NAT or a proxy

	Sweep time.Duration // how often the books are compared with a listing of Nomad, beside its events; 0: 5 min
	Idle  time.Duration // how long a runner may wait for its configuration or a job, until GitHub is asked and it is replaced; 0: 10 min
	Keep  time.Duration // how long jobs are remembered after their end, at least 72 h; 0: 30 days
	Doubt time.Duration // how long a runner that may have a job has to show itself, until its own is tried again; 0: 2 min

	Deliveries time.Duration // how often GitHub is asked for deliveries that got lost; 0: 5 min
	Feedback   time.Duration // how often commits are told what changed, if the rules have it so; 0: 5 s
	Recheck    time.Duration // after how long GitHub is asked about a job that nobody serves; 0: 10 min
}

func (c *Config) backoff() backoff { return backoff{now: c.Now, rand: c.Rand} }

// An App is the router as a process: two listeners and the worker.
type App struct {
	worker
	public, admin *gate
	webhook       http.Handler
	metrics       *prometheus.Registry // of this App alone, beside Config.Metrics
	probed        readiness
	stopping      chan struct{} // see Stopping
}

// New checks the configuration and opens the listeners, so that their
// addresses are known. The caller must call Run or Close.
func New(c Config) (*App, error) {
	if c.Store == nil || c.Nomad == nil || c.GitHub == nil || c.Rules == nil || c.Webhook == nil {
		return nil, errors.New("router: Store, Nomad, GitHub, Rules and Webhook are required")
	}
	if c.Listen == "" || c.AdminListen == "" {
		return nil, errors.New("both listeners need an address, such as :8080 and 127.0.0.1:8081")
	}
	if c.Senders > maxSenders {
		return nil, fmt.Errorf("%d senders: at most %d, as Nomad allows one address 100 connections", c.Senders, maxSenders)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
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
		return nil, fmt.Errorf("keep history for %s: at least %s, as GitHub may make deliveries again for so long", c.Keep, leastKeep)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.NetListen == nil {
		c.NetListen = net.Listen
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
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
	a := &App{metrics: prometheus.NewRegistry(), stopping: make(chan struct{}), worker: worker{
		Config: &c, wake: make(chan struct{}, 1), relimit: make(chan struct{}, 1), anew: make(chan struct{}, 1), jobs: make(chan router.Job), decided: make(chan sending, maxDecided), sending: map[int64]sending{},
		listings: make(chan []router.NomadJob, 1), again: make(chan time.Time, 1), foreign: map[nomadKey]bool{}, why: asker{wake: make(chan struct{}, 1)},
		ended:  make(chan router.LiveRunner, maxEnded),
		hooks:  sweeps{now: make(chan struct{}, 1), refused: make(chan struct{}, 1)},
		inHand: map[int64]*router.Decision{}, tokens: map[string]router.Secret{},
		spare: make(chan struct{}, 1), doubted: make(chan doubt, maxDoubted), looked: map[int64]bool{}, started: map[string]bool{}, spared: map[int64]time.Time{},
		full: make(chan router.Target, maxFull), strayTurn: strayEvery, // at the start, too
	}}
	a.beganAt, a.began = c.Now().Round(0), time.Now()
	v := c.RulesVersion
	v.Origin, v.LoadedAt, v.Files = cmp.Or(v.Origin, "start"), c.Now(), append([]string{}, v.Files...)
	a.live.Store(&liveRules{set: c.Rules, status: router.RulesStatus{RulesVersion: v, Rules: len(c.Rules.Rules())}})
	a.metrics.MustRegister(rulesMetrics{a}, &booksMetrics{App: a})
	if github, ok := a.GitHub.(interface{ Budget() []router.Budget }); ok {
		a.metrics.MustRegister(githubMetrics{github})
	}
	var err error
	if a.webhook, err = c.Webhook(a.receive); err != nil {
		return nil, err
	}
	public, err := c.NetListen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("open the public listener: %w", err)
	}
	admin, err := c.listenAdmin()
	if err != nil {
		_ = public.Close()
		return nil, fmt.Errorf("open the operators' listener: %w", err)
	}
	a.public, a.admin = newGate(public, "public", c.Connections, c.Logger), newGate(admin, "admin", c.Connections, c.Logger)
	a.metrics.MustRegister(gateMetrics{a.public, a.admin})
	if c.PublicURL == "" {
		c.PublicURL = "http://" + a.Addr()
	}
	return a, nil
}

// Addr is the address of the public listener.
func (a *App) Addr() string { return a.public.Addr().String() }

// AdminAddr is the address of the operators' listener, as in Config.AdminListen.
func (a *App) AdminAddr() string {
	if at := a.admin.Addr(); at.Network() != "unix" {
		return at.String()
	}
	return a.AdminListen
}

// Stopping is closed when Run begins to stop, for what would stream on.
func (a *App) Stopping() <-chan struct{} { return a.stopping }

// Close closes the listeners of an App that is not run.
func (a *App) Close() error { return errors.Join(a.public.Close(), a.admin.Close()) }

// Run serves until ctx ends, then stops within Grace, finishing what is in
// hand. It returns nil then, and otherwise the error that ended it. It is
// called once.
func (a *App) Run(ctx context.Context) error {
	// Before anything is written.
	latest, err := a.Store.Latest(ctx)
	if ctx.Err() != nil {
		return a.Close()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("see how old the database is: %w", err), a.Close())
	}
	if err := a.clockBefore(ctx); err != nil && ctx.Err() == nil {
		return errors.Join(fmt.Errorf("see when the database was last written: %w", err), a.Close())
	}
	n, err := a.Store.Recover(ctx, a.Now(), a.Now().Add(a.Doubt))
	if ctx.Err() != nil {
		return a.Close()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("recover interrupted claims: %w", err), a.Close())
	}
	if n > 0 {
		a.Logger.Warn("runners were being configured when the last process ended; their jobs are tried again", "runners", n)
	}
	look, err := a.firstLookDue(ctx)
	if ctx.Err() != nil {
		return a.Close()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("see whether the database is empty: %w", err), a.Close())
	}
	a.hooks.mu.Lock() // a delivery may be here already
	a.latest = latest
	a.hooks.mu.Unlock()
	a.compares = !look && !latest.IsZero()
	unread := make(chan unread, 1)
	a.hooks.unread = unread
	away := a.Now().Sub(latest)
	look = look || a.compares && away > router.DeliveriesKept-sweepOverlap // GitHub does not list all that happened since
	if look {
		a.earlier.begin(true)
	}
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { close(a.stopping) })()
	g.Go(func() error { return a.serve(ctx, a.public, a.publicHandler(), publicHead) })
	g.Go(func() error { return a.serve(ctx, a.admin, a.adminHandler(), adminHead) })
	for _, loop := range []func(context.Context) error{
		a.run, a.recovers, a.follow, a.reconcile, a.explains, a.ends, a.fallbacks, a.relimits, a.redecisions, a.leftovers, a.doubts, a.makeRoom, a.silences, a.overlooks, a.clock,
	} {
		g.Go(func() error { return loop(ctx) })
	}
	for _, duty := range []struct {
		every  time.Duration
		do     func(context.Context) error
		cannot string // what the log says when do fails
		sooner <-chan struct{}
	}{
		{a.Deliveries, a.findLost, "cannot ask GitHub for lost deliveries", a.hooks.now},
		{a.Recheck / 10, a.recheck, "cannot ask GitHub about jobs that nobody serves", nil},
		{a.Recheck / 10, a.cancels, "cannot cancel runs that nothing can serve", nil},
		{a.Feedback, a.feedback, "cannot say on commits what becomes of jobs", nil},
		{lostEvery, a.removeLost, "cannot remove runners that GitHub registered without telling", nil},
		{a.Sweep, a.strays, "cannot look for dead runners on GitHub", nil},
		{pruneEvery, a.prune, "cannot delete old history", nil},
	} {
		g.Go(func() error { return a.every(ctx, duty.every, duty.sooner, duty.cannot, duty.do) })
	}
	if look {
		g.Go(func() error {
			a.earlier.wait(ctx)
			a.fullLook(ctx, nil)
			return nil
		})
	} else if a.compares && away >= lookAfter {
		g.Go(func() error { return a.lookAtUnread(ctx, unread) })
	}
	return g.Wait()
}

// every calls do at once, then each interval and when sooner says so, until ctx
// ends. Errors are logged as what could not be done.
func (w *worker) every(ctx context.Context, interval time.Duration, sooner <-chan struct{}, cannot string, do func(context.Context) error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	said := ""
	for {
		err := do(ctx)
		var later *router.RetryAtError
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			said = ""
		case errors.As(err, &later):
			w.Logger.Info(cannot, "err", err, "again_at", w.Now().Add(interval))
		case err.Error() != said:
			said = err.Error()
			w.Logger.Warn(cannot, "err", err, "again_at", w.Now().Add(interval))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-sooner:
		}
	}
}

// learn stores what GitHub says of a job and wakes the worker if it is news.
func (w *worker) learn(ctx context.Context, d router.Delivery) (changed bool, err error) {
	changed, err = w.record(ctx, d)
	if changed {
		w.nudge()
		w.look(d.Job.ID)
	}
	return changed, err
}

// record stores what GitHub says of a job.
func (w *worker) record(ctx context.Context, d router.Delivery) (changed bool, err error) {
	runner, refused := w.ourRunner(ctx, d), w.refused(ctx, d)
	changed, err = w.Store.Receive(ctx, d)
	if changed {
		w.begun(ctx, d, runner)
		w.overruled(ctx, d, refused)
	}
	if w.Traces != nil {
		w.traceDelivery(ctx, d, err)
		if changed && d.Action == "completed" {
			w.traceEnd(ctx, d.Job.ID)
		}
	}
	return changed, err
}

// receive takes a delivery.
func (a *App) receive(ctx context.Context, d router.Delivery) error {
	proves(ctx)
	changed, err := a.learn(ctx, d)
	switch {
	case err != nil:
		a.Metrics.Delivered(router.DeliveryNotStored)
		a.storeRefused()
		return fmt.Errorf("store delivery %s: %w", d.ID, err)
	case changed:
		a.Metrics.Delivered(router.DeliveryStored)
	default:
		a.Metrics.Delivered(router.DeliveryKnown)
	}
	if d.Late() || d.Waits() && !changed {
		a.mayWait(doubt{d.Job.ID, d.Late()})
	}
	if err := a.sawHook(ctx, d.Hook); err != nil {
		a.Logger.Warn("cannot remember a webhook; its next delivery tries again", "err", err)
	}
	return nil
}

// publicHandler is everything that strangers reach.
func (a *App) publicHandler() http.Handler {
	r := mux.NewRouter()
	r.Handle("/webhooks/github", a.webhook).Methods(http.MethodPost)
	r.HandleFunc(ClaimPath, a.claim).Methods(http.MethodGet)
	return r
}

// adminHandler is for operators: /healthz says that the process lives,
// /readyz is a Readiness, /metrics is for Prometheus. All else is Config.API's.
func (a *App) adminHandler() http.Handler {
	r := mux.NewRouter()
	r.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"status": "ok"})
	}).Methods(http.MethodGet, http.MethodHead)
	r.Handle("/readyz", a.local(func(w http.ResponseWriter, req *http.Request) {
		r, status := a.Readiness(req.Context()), http.StatusOK
		if r.Status == "not ready" {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, r)
	})).Methods(http.MethodGet, http.MethodHead)
	r.Handle("/metrics", a.local(promhttp.HandlerFor(prometheus.Gatherers{a.Metrics.registry, a.metrics}, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, Registry: a.metrics,
		ErrorLog: slog.NewLogLogger(a.Logger.Handler(), slog.LevelError),
	}).ServeHTTP)).Methods(http.MethodGet)
	if a.API != nil {
		r.PathPrefix("/").Handler(a.API(a))
	}
	return r
}

// local refuses requests for other hosts while nobody logs in.
func (a *App) local(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if a.LocalOnly && !router.LocalHost(req.Host) {
			http.Error(w, fmt.Sprintf("403: without --access this is asked as localhost or by address, not as %q", router.Cut(req.Host, maxHost)), http.StatusForbidden)
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
		ErrorLog:          slog.NewLogLogger(a.Logger.Handler(), slog.LevelDebug),
	}
	l.guard(srv)
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.Grace)
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
		a.Logger.Warn("requests were cut off at the end of the grace period", "addr", l.Addr().String(), "err", err)
	}
	return nil
}
