// Package web owns the console: its pages, their forms and scripts. Handler puts it
// beside the JSON API (package api) and behind a guard (package auth);
// cmd/switchyard serves that on --admin-listen.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/mux"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
)

// A Config says what the console and the API need.
type Config struct {
	App      api.App      // required
	Database api.Database // required

	// Access says who may use the console and the API. It is called for each
	// request, so it can change; what it returns must not be changed. nil:
	// everybody may do everything, but a request must name this machine as its
	// host, so that no web page reaches the API under a name of its own.
	Access func() (*auth.Access, error)

	Audit AuditTrail // nil: what people do is only logged

	Sessions auth.SessionStore // of those who log in; nil: they end with this process

	Rulebook  api.Rulebook // nil: there are no files of rules to read or try
	AllowEdit bool         // an editor may apply drafts

	Cluster api.Cluster // nil: nothing is rendered, and no nodes are known

	Simulator Simulator // nil: nothing is simulated

	Connections int           // that the listener may have open: streams have half of them, and 500 at the most; 0: 500
	Heartbeat   time.Duration // of streams; 0: 20 s

	NomadUI string // where Nomad's own console is, such as http://127.0.0.1:4646; "": pages have no links to it

	Logger *slog.Logger     // nil: slog.Default
	Now    func() time.Time // nil: time.Now
}

// An AuditTrail records who did what.
type AuditTrail interface {
	api.AuditTrail

	// Audit records a; its ID does not count.
	Audit(ctx context.Context, a router.Audit) error
}

// Handler answers the API under api.Prefix, whose errors are application/problem+json
// (RFC 9457), and the console on all other paths. Both end what streams when
// App.Stopping does.
func Handler(c Config) http.Handler {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return newConsole(c).handler()
}

// A console has the pages, and puts them beside the API.
type console struct {
	config    Config
	guard     *auth.Guard
	api       *api.API
	frame     frame
	now       nowPage
	rules     *rulesPages // nil: there are no files of rules
	labelUses labelUses
	usage     counts[usageReport]

	whatIf     counts[whatIfReport]
	simulating sync.Mutex // one simulation at a time
}

func newConsole(c Config) *console {
	s := &console{config: c}
	s.guard = auth.New(auth.Config{
		Access: c.Access, Audit: c.Audit, Sessions: c.Sessions, Background: background,
		Fail: s.fail, LoginPage: s.loginPage, Logger: c.Logger, Now: c.Now,
	})
	s.api = api.New(api.Config{
		App: c.App, Database: c.Database, Audit: c.Audit, Rulebook: c.Rulebook, Cluster: c.Cluster,
		Connections: c.Connections, Heartbeat: c.Heartbeat, Guard: s.guard, Fail: s.fail, Logger: c.Logger, Now: c.Now,
	})
	s.now = nowPage{api: s.api, clock: c.Now}
	if c.Rulebook != nil {
		s.rules = &rulesPages{console: s, drafts: s.api.Drafts, rulebook: c.Rulebook}
	}
	s.frame = frame{api: s.api, logger: c.Logger, now: c.Now, pages: s.pages()}
	s.labelUses = labelUses{s.api.Database.Demand, c.App, counts[labelUse]{what: "the labels that jobs asked for", logger: c.Logger, now: c.Now}}
	s.usage = counts[usageReport]{what: "what jobs used", logger: c.Logger, now: c.Now}
	s.whatIf = counts[whatIfReport]{what: "what would be", logger: c.Logger, now: c.Now}
	return s
}

// refreshHeader is set by the console's script on requests that nobody made by hand.
const refreshHeader = "X-Switchyard-Refresh"

// background reports whether an open page made a request by itself.
func background(req *http.Request) bool {
	return req.Header.Get(refreshHeader) != "" || req.URL.Path == api.Prefix+"/events"
}

// handler returns what answers all paths, with the headers that all answers have.
func (s *console) handler() http.Handler {
	next := s.guard.Identify(s.router())
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
		req.Body = http.MaxBytesReader(w, req.Body, api.BodyLimit(req.URL.Path))
		next.ServeHTTP(w, req)
	})
}

func (s *console) router() *mux.Router {
	r := mux.NewRouter()
	s.api.Routes(r)
	r.PathPrefix(assetPrefix).Handler(http.HandlerFunc(serveAsset)).Methods(http.MethodGet, http.MethodHead)
	for _, p := range s.frame.pages {
		r.Handle(p.path, s.guard.Only(p.role, s.page(p))).Methods(http.MethodGet, http.MethodHead)
	}
	for path, do := range map[string]func(*http.Request) (goTo string, err error){
		"/jobs/{id}/retry": s.retryForm, "/jobs/{id}/cancel": s.cancelForm, "/runners/{id}/stop": s.stopForm, "/unroutable/retry": s.retryUnroutableForm,
	} {
		r.Handle(path, s.guard.Only(auth.Operator, s.form(api.Audited(s.guard, do)))).Methods(http.MethodPost)
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/{name}"} {
		r.Handle(path, s.guard.Only(auth.Operator, http.HandlerFunc(s.profile))).Methods(http.MethodGet)
	}
	if s.rules != nil {
		s.rules.routes(r)
	}
	s.guard.Routes(r)
	unanswered := func(answer func(*http.Request) error) http.Handler {
		return s.guard.Only(auth.Viewer, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { s.fail(w, req, answer(req)) }))
	}
	r.NotFoundHandler = unanswered(func(req *http.Request) error {
		if isPage(req) {
			return problem.New(http.StatusNotFound, "there is no such page")
		}
		return problem.New(http.StatusNotFound, "there is no such path; GET %s/openapi.json lists all of them", api.Prefix)
	})
	r.MethodNotAllowedHandler = unanswered(func(req *http.Request) error {
		return problem.New(http.StatusMethodNotAllowed, "%s is not for this path", req.Method)
	})
	return r
}

// fail answers with an error. One with nothing to tell a client goes to the log.
func (s *console) fail(w http.ResponseWriter, req *http.Request, err error) {
	p := s.problemOf(req, err)
	s.guard.RecordRefusal(req, p)
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="switchyard"`)
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(p.RetryAfter.Seconds())))
	}
	on, ok := errors.AsType[*onPage](err)
	switch {
	case ok:
		s.frame.render(w, req, p.Status, on.page, on.data)
	case isPage(req):
		s.frame.render(w, req, p.Status, consolePage{template: "error", title: p.Title}, p)
	default:
		api.WriteJSON(w, p.Status, "application/problem+json", p)
	}
}

// problemOf returns how an error is answered, and logs one that a client is not told.
func (s *console) problemOf(req *http.Request, err error) *problem.Details {
	if p := problem.Of(err); p != nil {
		return p
	}
	s.config.Logger.Error("an operator's request failed", "method", req.Method, "path", req.URL.Path, "err", err)
	return problem.New(http.StatusInternalServerError, "this failed; the server's log says why")
}

// isPage reports whether a request is for the console.
func isPage(req *http.Request) bool { return !strings.HasPrefix(req.URL.Path, "/api/") }
