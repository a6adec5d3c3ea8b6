// Package web owns what operators ask over HTTP: the JSON API under /api/v1,
// which openapi.json describes.
package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"switchyard/router"
)

// Prefix is that of every path of the API.
const Prefix = "/api/v1"

// OpenAPI describes the API, as OpenAPI 3.
//
//go:embed openapi.json
var OpenAPI []byte

// A Config is what the API is made of.
type Config struct {
	App   App   // required
	Books Books // required

	// Token returns the SHA-256 of the bearer token that every request must
	// have. It is called for each, so it can change. nil: none is asked for, but
	// a request must name this machine as its host, so that no web page reaches
	// the API under a name of its own.
	Token func() ([32]byte, error)

	Logger *slog.Logger     // nil: slog.Default
	Now    func() time.Time // nil: time.Now
}

// An App is what the API has done by the router; *router.App is one.
type App interface {
	RulesStatus() router.RulesStatus
	Explain(j router.Job) router.Decision
	RetryJob(ctx context.Context, id int64) error
	CancelJob(ctx context.Context, id int64, run bool) error
	Sync(ctx context.Context, host, repo string) (router.SyncReport, error)
	StopRunner(ctx context.Context, id string, force bool) error
}

// Books are what the API reads; *store.Store and *store.Reader are.
type Books interface {
	FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error)
	FindRunners(ctx context.Context, f router.RunnerFilter) ([]router.Runner, error)
	Job(ctx context.Context, id int64) (router.Job, error)
	Runner(ctx context.Context, id string) (router.Runner, error)
	Runners(ctx context.Context, jobID int64) ([]router.Runner, error)
	Timeline(ctx context.Context, jobID int64) ([]router.Event, error)
}

const (
	readTimeout  = 10 * time.Second // of the books, for one answer
	workTimeout  = 60 * time.Second // for one change, with GitHub and Nomad
	maxBody      = 64 << 10
	maxParameter = 1 << 10
)

// Handler answers everything under Prefix. Errors are application/problem+json
// (RFC 9457).
func Handler(c Config) http.Handler {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	a := &api{c}
	return a.guard(a.router())
}

type api struct{ Config }

func (a *api) router() *mux.Router {
	r := mux.NewRouter()
	r.NotFoundHandler = a.answer(func(*http.Request) (any, error) {
		return nil, refuse(http.StatusNotFound, "there is nothing here; GET %s/openapi.json describes what there is", Prefix)
	})
	r.MethodNotAllowedHandler = a.answer(func(req *http.Request) (any, error) {
		return nil, refuse(http.StatusMethodNotAllowed, "%s is not for this path", req.Method)
	})
	for _, route := range a.routes() {
		r.Handle(Prefix+route.path, a.answer(route.do)).Methods(route.method)
	}
	return r
}

// A route answers one kind of request with a value, which becomes JSON.
type route struct {
	method, path string
	do           func(*http.Request) (any, error)
}

func (a *api) routes() []route {
	return []route{
		{http.MethodGet, "/openapi.json", func(*http.Request) (any, error) { return json.RawMessage(OpenAPI), nil }},
		{http.MethodGet, "/rules", func(*http.Request) (any, error) { return a.App.RulesStatus(), nil }},
		{http.MethodGet, "/jobs", a.listJobs},
		{http.MethodGet, "/jobs/{id}", a.showJob},
		{http.MethodPost, "/jobs/{id}/retry", a.retryJob},
		{http.MethodPost, "/jobs/{id}/cancel", a.cancelJob},
		{http.MethodGet, "/runners", a.listRunners},
		{http.MethodPost, "/runners/{id}/stop", a.stopRunner},
		{http.MethodPost, "/sync", a.sync},
	}
}

// guard lets only those requests through that may ask.
func (a *api) guard(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		req.Body = http.MaxBytesReader(w, req.Body, maxBody)
		err := a.allowed(req)
		if err == nil && cross.Check(req) != nil {
			err = refuse(http.StatusForbidden, "this request comes from another site's page")
		}
		if err != nil {
			a.fail(w, req, err)
			return
		}
		next.ServeHTTP(w, req)
	})
}

func (a *api) allowed(req *http.Request) error {
	if a.Token == nil {
		if !local(req.Host) {
			return refuse(http.StatusForbidden, "without a token the API is asked as localhost or by address, not as %q", req.Host)
		}
		return nil
	}
	want, err := a.Token()
	if err != nil {
		return fmt.Errorf("read the operators' token: %w", err)
	}
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(token))
	if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return refuse(http.StatusUnauthorized, "the API needs the header Authorization: Bearer with the server's --admin-token-file")
	}
	return nil
}

// local reports whether a Host header is one that no other site's name can be.
func local(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
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
	_, _ = w.Write(append(b, '\n')) // a client that went away needs no answer
}

// A Problem is the answer to a request that failed (RFC 9457).
type Problem struct {
	Type   string `json:"type"` // always about:blank
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"` // one sentence
}

// Error makes a Problem an error; it is a client's, too.
func (p *Problem) Error() string { return p.Detail }

// refuse makes the error that a request is answered with.
func refuse(status int, format string, args ...any) error { return problem(status, format, args...) }

func problem(status int, format string, args ...any) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// undone is the error of a change that could not be made: of what is not ours
// it gives the words, so that an operator knows which side to look at.
func undone(err error) error {
	var conflict *router.ConflictError
	var refused *router.GiveUpError
	if errors.As(err, &refused) {
		return refuse(http.StatusConflict, "%v", err)
	}
	if err == nil || errors.As(err, &conflict) || errors.Is(err, router.ErrNotFound) {
		return err
	}
	return refuse(http.StatusServiceUnavailable, "it could not be done now: %v", err)
}

// fail answers with an error: one of ours as it is, any other without its
// words, which are for the log.
func (a *api) fail(w http.ResponseWriter, req *http.Request, err error) {
	var p *Problem
	var conflict *router.ConflictError
	switch {
	case errors.As(err, &p):
	case errors.As(err, &conflict):
		p = problem(http.StatusConflict, "%s", conflict.Reason)
	case errors.Is(err, router.ErrNotFound):
		p = problem(http.StatusNotFound, "it is not known here, or no more")
	default:
		a.Logger.Error("a request of an operator failed", "method", req.Method, "path", req.URL.Path, "err", err)
		p = problem(http.StatusInternalServerError, "this failed; the server's log says why")
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="switchyard"`)
	}
	write(w, p.Status, "application/problem+json", p)
}
