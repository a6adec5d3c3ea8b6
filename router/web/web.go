// Package web owns what people ask over HTTP: the console, and the JSON API
// under /api/v1, which openapi.json describes.
package web

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"switchyard/router"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

// Prefix is that of every path of the API.
const Prefix = "/api/v1"

// OpenAPI describes the API, as OpenAPI 3.
//
//go:embed openapi.json
var OpenAPI []byte

// A Config is what the API and the console are made of.
type Config struct {
	App   App   // required
	Books Books // required

	// Access says who may use the console and the API. It is called for each
	// request, so it can change; what it returns is not to be changed. nil:
	// everybody may do everything, but a request must name this machine as its
	// host, so that no web page reaches the API under a name of its own.
	Access func() (*auth.Access, error)

	Audit AuditStore // nil: what people do is only logged

	Rulebook  Rulebook // nil: there are no files of rules to read or try
	AllowEdit bool     // an editor may apply drafts

	Cluster Cluster // nil: nothing is rendered, and no nodes are known

	Connections int // that the listener may have open: streams have half of them, and 500 at the most; 0: 500

	NomadUI string // where Nomad's own console is, such as http://127.0.0.1:4646; "": pages have no links to it

	Logger *slog.Logger     // nil: slog.Default
	Now    func() time.Time // nil: time.Now
}

// An App is what the API has done by the router; *server.App is one.
type App interface {
	RulesStatus() router.RulesStatus
	Rules() *rules.Set // in force
	Explain(j router.Job) router.Decision
	RetryJob(ctx context.Context, id int64) error
	CancelJob(ctx context.Context, id int64, run bool) error
	Sync(ctx context.Context, host, repo string) (router.SyncReport, error)
	StopRunner(ctx context.Context, id string, force bool) error

	// Stopping is closed when the server stops, so that streams end.
	Stopping() <-chan struct{}
}

// A Cluster is what the API asks Nomad.
type Cluster interface {
	// Render returns the Nomad job that would be registered for a job with this
	// decision, without its claim token, as `nomad job run -json` takes it.
	Render(ctx context.Context, j router.Job, d router.Decision) (json.RawMessage, error)

	// Fleet describes the nodes and which of them could serve each example. It
	// does not fail, and what it returns is not to be changed.
	Fleet(ctx context.Context, examples []router.Example) router.Fleet
}

// An AuditStore remembers who did what.
type AuditStore interface {
	// Audit records a; its ID does not count.
	Audit(ctx context.Context, a router.Audit) error

	// Audits returns up to limit records, newest first, with IDs under before (0: from the newest).
	Audits(ctx context.Context, before int64, limit int) ([]router.Audit, error)
}

// Books are what the API reads; *store.Store and *store.Reader are.
type Books interface {
	FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error)
	FindRunners(ctx context.Context, f router.RunnerFilter) ([]router.Runner, error)
	Job(ctx context.Context, id int64) (router.Job, error)
	Runner(ctx context.Context, id string) (router.Runner, error)
	Runners(ctx context.Context, jobID int64) ([]router.Runner, error)
	Timeline(ctx context.Context, jobID int64) ([]router.Event, error)
	Changes(ctx context.Context, after int64, limit int) ([]router.Change, error)
	OpenJobs(ctx context.Context, within router.Scope) ([]router.OpenJobs, error)
	Oldest(ctx context.Context, within router.Scope, limit int) ([]router.Job, error)
	Starts(ctx context.Context, within router.Scope, since time.Time) ([]router.Start, error)
	Demand(ctx context.Context, within router.Scope, since time.Time) ([]router.Demand, error)
}

const (
	readTimeout  = 10 * time.Second // of the books, for one answer
	workTimeout  = 60 * time.Second // for one change, with GitHub and Nomad
	maxBody      = 64 << 10
	maxParameter = 1 << 10
)

// Handler answers the API under Prefix, whose errors are application/problem+json
// (RFC 9457), and the console on all other paths. Both end what streams when
// App.Stopping does.
func Handler(c Config) http.Handler {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return newAPI(c).handler()
}

func newAPI(c Config) *api {
	a := &api{Config: c, hub: newHub(c), turns: newTurns(), places: newPlaces()}
	a.Books = inTurn{c.Books, a.turns}
	g := auth.Config{Access: c.Access, Background: background, Fail: a.fail, LoginPage: a.loginPage, Logger: c.Logger, Now: c.Now}
	if c.Audit != nil {
		g.Audit = c.Audit
	}
	a.guard = auth.New(g)
	return a
}

// refreshHeader is set by the console's script on what it asks by itself.
const refreshHeader = "X-Switchyard-Refresh"

// background reports whether an open page made a request by itself.
func background(req *http.Request) bool {
	return req.Header.Get(refreshHeader) != "" || req.URL.Path == Prefix+"/events"
}

// handler returns what answers all paths, with the headers that all answers have.
func (a *api) handler() http.Handler {
	next := a.guard.Identify(a.router())
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", policy)
		if auth.Secure(req) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		req.Body = http.MaxBytesReader(w, req.Body, bodyLimit(req.URL.Path))
		next.ServeHTTP(w, req)
	})
}

type api struct {
	Config
	guard     *auth.Guard
	hub       *hub
	turns     *turns
	said      described
	usage     usage
	day       shared[*lastDay]
	places    *places // for drafts
	explained explained
	shelf     shared[content]
}

func (a *api) router() *mux.Router {
	r := mux.NewRouter()
	for _, route := range a.routes() {
		if route.role > auth.Viewer && route.method != http.MethodGet {
			route.do = audited(a, route.do)
		}
		answer := a.answer(route.do)
		if bodyLimit(Prefix+route.path) == maxDraft {
			answer = a.drafted(answer)
		}
		r.Handle(Prefix+route.path, a.guard.Only(route.role, answer)).Methods(route.method)
	}
	r.Handle(Prefix+"/events", a.guard.Only(auth.Viewer, http.HandlerFunc(a.stream))).Methods(http.MethodGet)
	r.PathPrefix(assetPrefix).Handler(http.HandlerFunc(serveAsset)).Methods(http.MethodGet, http.MethodHead)
	for _, p := range a.pages() {
		r.Handle(p.path, a.guard.Only(p.role, a.page(p))).Methods(http.MethodGet, http.MethodHead)
	}
	a.routeRules(r)
	for _, f := range a.forms() {
		if f.role > auth.Viewer {
			f.do = audited(a, f.do)
		}
		r.Handle(f.path, a.guard.Only(f.role, a.form(f.do))).Methods(http.MethodPost)
	}
	a.guard.Routes(r)
	r.NotFoundHandler = a.guard.Only(auth.Viewer, a.answer(func(req *http.Request) (any, error) {
		if page(req) {
			return nil, problem.New(http.StatusNotFound, "there is no such page")
		}
		return nil, problem.New(http.StatusNotFound, "there is nothing here; GET %s/openapi.json describes what there is", Prefix)
	}))
	r.MethodNotAllowedHandler = a.guard.Only(auth.Viewer, a.answer(func(req *http.Request) (any, error) {
		return nil, problem.New(http.StatusMethodNotAllowed, "%s is not for this path", req.Method)
	}))
	return r
}

// A route answers one kind of request with a value, which becomes JSON, for
// those who have at least the role.
type route struct {
	method, path string
	role         auth.Role
	do           func(*http.Request) (any, error)
}

func (a *api) routes() []route {
	return []route{
		{http.MethodGet, "/openapi.json", auth.Viewer, func(*http.Request) (any, error) { return json.RawMessage(OpenAPI), nil }},
		{http.MethodGet, "/rules", auth.Viewer, func(*http.Request) (any, error) { return a.App.RulesStatus(), nil }},
		{http.MethodGet, "/rules/list", auth.Viewer, a.listRules},
		{http.MethodGet, "/rules/schema", auth.Viewer, a.completeRules},
		{http.MethodPost, "/check", auth.Viewer, a.checkDraft},
		{http.MethodPost, "/diff", auth.Viewer, a.diffDraft},
		{http.MethodGet, "/labels", auth.Viewer, a.listLabels},
		{http.MethodPost, "/explain", auth.Viewer, a.explain},
		{http.MethodGet, "/fleet", auth.Viewer, a.showFleet},
		{http.MethodGet, "/jobs", auth.Viewer, a.listJobs},
		{http.MethodGet, "/jobs/{id}", auth.Viewer, a.showJob},
		{http.MethodPost, "/jobs/{id}/retry", auth.Operator, a.retryJob},
		{http.MethodPost, "/jobs/{id}/cancel", auth.Operator, a.cancelJob},
		{http.MethodGet, "/runners", auth.Viewer, a.listRunners},
		{http.MethodPost, "/runners/{id}/stop", auth.Operator, a.stopRunner},
		{http.MethodGet, "/audit", auth.Editor, a.turned(a.listAudits)},
		{http.MethodPost, "/sync", auth.Operator, a.sync},
	}
}

// answer makes a handler of what a route does.
func (a *api) answer(do func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		v, err := do(req)
		if err != nil {
			a.fail(w, req, err)
			return
		}
		write(w, http.StatusOK, "application/json", v)
	})
}

func write(w http.ResponseWriter, status int, contentType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // all that is answered can be JSON
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(router.PrintableJSON(b), '\n')) // a client that went away needs no answer
}

// undone is the error of a change that could not be made: of what is not ours
// it gives the words, so that an operator knows which side to look at.
func undone(err error) error {
	var conflict *router.ConflictError
	var refused *router.GiveUpError
	if errors.As(err, &refused) {
		return problem.New(http.StatusConflict, "%v", err)
	}
	if err == nil || errors.As(err, &conflict) || errors.Is(err, router.ErrNotFound) {
		return err
	}
	return problem.New(http.StatusServiceUnavailable, "it could not be done now: %v", err)
}

// fail answers with an error. One with nothing to tell a client goes to the log.
func (a *api) fail(w http.ResponseWriter, req *http.Request, err error) {
	p := a.problemOf(req, err)
	a.guard.RecordRefusal(req, p)
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="switchyard"`)
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(p.RetryAfter.Seconds())))
	}
	on, ok := errors.AsType[*onPage](err)
	switch {
	case ok:
		a.render(w, req, p.Status, on.page, on.data)
	case page(req):
		a.failed(w, req, p)
	default:
		write(w, p.Status, "application/problem+json", p)
	}
}

// problemOf returns how an error is answered, and logs one that a client is not told.
func (a *api) problemOf(req *http.Request, err error) *problem.Details {
	if p := problem.Of(err); p != nil {
		return p
	}
	a.Logger.Error("a request of an operator failed", "method", req.Method, "path", req.URL.Path, "err", err)
	return problem.New(http.StatusInternalServerError, "this failed; the server's log says why")
}

// page reports whether a request is of the console.
func page(req *http.Request) bool { return !strings.HasPrefix(req.URL.Path, "/api/") }
