// Package api owns the JSON API under /api/v1, which openapi.json describes: what
// is asked of jobs, runners, rules, drafts of rules and nodes, the changes that
// operators make, and the stream of events. Package web serves it, and makes the
// console's pages of the same answers. How often and how much of it is read from the
// database at once is decided here, for both.
package api

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"switchyard/router"
	"switchyard/router/usage"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

// Prefix is the prefix of every path of the API.
const Prefix = "/api/v1"

// OpenAPI describes the API, as OpenAPI 3.
//
//go:embed openapi.json
var OpenAPI []byte

// A Config says what an API needs.
type Config struct {
	App      App        // required
	Database Database   // required
	Audit    AuditTrail // nil: there is none
	Rulebook Rulebook   // nil: there are no files of rules to read or try
	Cluster  Cluster    // nil: nothing is rendered, and no nodes are known

	Connections int           // that the listener may have open: streams have half of them, and 500 at the most; 0: 500
	Heartbeat   time.Duration // of streams; 0: 20 s

	Guard *auth.Guard                                               // required
	Fail  func(w http.ResponseWriter, req *http.Request, err error) // answers with an error; required

	Logger *slog.Logger     // required
	Now    func() time.Time // required
}

// An App decides jobs and makes changes; *server.App is one.
type App interface {
	// Status says whether all is well with what a scope may see, and with what all share.
	Status(within router.Scope) router.Status

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

// A Cluster answers what the API asks Nomad.
type Cluster interface {
	// Render returns the Nomad job that would be registered for a job with this
	// decision, without its claim token, as `nomad job run -json` takes it.
	Render(ctx context.Context, j router.Job, d router.Decision) (json.RawMessage, error)

	// Fleet describes the nodes and which of them could serve each example. It
	// does not fail, and what it returns is not to be changed.
	Fleet(ctx context.Context, examples []router.Example) router.Fleet
}

// A Database is what the API and the console read; *store.Store and *store.Reader are ones.
type Database interface {
	FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error)

	// SearchJobs finds the jobs of a filter with the highest IDs, and SearchRunners runners, without
	// looking at all that there are: if from is not 0, only those of jobs with the ID from and
	// higher ones were looked at.
	SearchJobs(ctx context.Context, f router.JobFilter) (jobs []router.Job, from int64, err error)
	SearchRunners(ctx context.Context, f router.RunnerFilter) (runners []router.Runner, from int64, err error)

	// WarmRunners returns the warm runners that no job has taken, the oldest first.
	WarmRunners(ctx context.Context) ([]router.WarmRunner, error)

	Job(ctx context.Context, id int64) (router.Job, error)
	Runner(ctx context.Context, id string) (router.Runner, error)
	Runners(ctx context.Context, jobID int64) ([]router.Runner, error)
	Timeline(ctx context.Context, jobID int64) ([]router.Event, error)
	Changes(ctx context.Context, after int64, limit int) ([]router.Change, error)
	OpenJobs(ctx context.Context, within router.Scope) ([]router.OpenJobs, error)

	// OpenRepos counts the jobs that have not ended, of the repositories with most of them
	// first, at most limit.
	OpenRepos(ctx context.Context, within router.Scope, limit int) ([]router.RepoJobs, error)

	Oldest(ctx context.Context, within router.Scope, limit int) ([]router.Job, error)
	Starts(ctx context.Context, within router.Scope, since time.Time) ([]router.Start, error)
	Demand(ctx context.Context, within router.Scope, since time.Time) ([]router.Demand, error)

	usage.Database

	// LimitQueue returns who has, and who waits for, a place under the limit with a key, and how
	// long the newest jobs of a rule ran.
	LimitQueue(ctx context.Context, key, rule string) (router.LimitQueue, error)

	// RunnerVersions returns which versions the runners of the rules have, by rule and version.
	RunnerVersions(ctx context.Context) ([]router.RuleVersion, error)
}

const (
	// ReadTimeout is for all that one answer reads from the database.
	ReadTimeout = 10 * time.Second

	workTimeout = 60 * time.Second // for one change, with GitHub and Nomad

	// MaxBody bounds the body of a request without a draft, in bytes.
	MaxBody = 64 << 10

	maxParameter = 1 << 10
)

// An API answers programs, and the console's pages. It is safe for concurrent use.
type API struct {
	Drafts *Drafts
	Turns  *Turns

	// Database is the configured one, each of whose questions waits for its turn.
	Database Database

	config    Config
	hub       *hub
	rules     rulesInfo
	explained explained
}

// New returns an API that has answered nothing yet.
func New(c Config) *API {
	a := &API{config: c, Turns: newTurns()}
	a.Database = inTurn{c.Database, a.Turns}
	a.hub = newHub(c, a.Database)
	a.Drafts = &Drafts{config: c, slots: &slots{free: make(chan struct{}, drafts), checking: make(chan struct{}, 1), own: map[string]*ownSlot{}}}
	return a
}

// Routes adds the paths of the API.
func (a *API) Routes(r *mux.Router) {
	for _, route := range a.routes() {
		if route.role > auth.Viewer && route.method != http.MethodGet {
			route.do = Audited(a.config.Guard, route.do)
		}
		handler := answer(a.config.Fail, route.do)
		if BodyLimit(Prefix+route.path) == MaxDraft {
			handler = a.Drafts.WithSlot(handler)
		}
		r.Handle(Prefix+route.path, a.config.Guard.Only(route.role, handler)).Methods(route.method)
	}
	r.Handle(Prefix+"/events", a.config.Guard.Only(auth.Viewer, http.HandlerFunc(a.hub.stream))).Methods(http.MethodGet)
}

// A route answers one kind of request with a value, which becomes JSON, for
// those who have at least the role.
type route struct {
	method, path string
	role         auth.Role
	do           func(*http.Request) (any, error)
}

func (a *API) routes() []route {
	return []route{
		{http.MethodGet, "/openapi.json", auth.Viewer, func(*http.Request) (any, error) { return json.RawMessage(OpenAPI), nil }},
		{http.MethodGet, "/status", auth.Viewer, func(req *http.Request) (any, error) { return a.Status(req.Context()), noParameters(req) }},
		{http.MethodGet, "/rules", auth.Viewer, func(*http.Request) (any, error) { return a.config.App.RulesStatus(), nil }},
		{http.MethodGet, "/rules/list", auth.Viewer, func(req *http.Request) (any, error) {
			_, list, _ := a.RulesInfo()
			return RuleList{list}, noParameters(req)
		}},
		{http.MethodGet, "/rules/schema", auth.Viewer, a.Drafts.completion},
		{http.MethodPost, "/check", auth.Viewer, a.Drafts.checkDraft},
		{http.MethodPost, "/diff", auth.Viewer, a.Drafts.diffDraft},
		{http.MethodGet, "/labels", auth.Viewer, func(req *http.Request) (any, error) {
			labels, _, _ := a.RulesInfo()
			return LabelList{labels}, noParameters(req)
		}},
		{http.MethodPost, "/explain", auth.Viewer, a.explain},
		{http.MethodGet, "/fleet", auth.Viewer, func(req *http.Request) (any, error) {
			if err := noParameters(req); err != nil {
				return nil, err
			}
			return a.Fleet(req.Context())
		}},
		{http.MethodGet, "/jobs", auth.Viewer, func(req *http.Request) (any, error) { return a.Jobs(req.Context(), req.URL.Query()) }},
		{http.MethodGet, "/jobs/{id}", auth.Viewer, a.showJob},
		{http.MethodPost, "/jobs/{id}/retry", auth.Operator, func(req *http.Request) (any, error) {
			return a.changeJob(req, &Parameters{Values: req.URL.Query()}, a.RetryJob)
		}},
		{http.MethodPost, "/jobs/{id}/cancel", auth.Operator, a.cancelJob},
		{http.MethodGet, "/runners", auth.Viewer, func(req *http.Request) (any, error) { return a.Runners(req.Context(), req.URL.Query()) }},
		{http.MethodPost, "/runners/{id}/stop", auth.Operator, a.stopRunner},
		{http.MethodGet, "/usage", auth.Viewer, func(req *http.Request) (any, error) { return a.Usage(req.Context(), req.URL.Query()) }},
		{http.MethodGet, "/audit", auth.Editor, a.Turns.Do(a.Audits)},
		{http.MethodPost, "/sync", auth.Operator, a.sync},
	}
}

// answer returns a handler of what a route does.
func answer(fail func(http.ResponseWriter, *http.Request, error), do func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		v, err := do(req)
		if err != nil {
			fail(w, req, err)
			return
		}
		WriteJSON(w, http.StatusOK, "application/json", v)
	})
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, contentType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // all that is answered can be JSON
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(router.PrintableJSON(b), '\n')) // a client that went away needs no answer
}

// Status says whether all is well, for whoever ctx is of.
func (a *API) Status(ctx context.Context) router.Status {
	return a.config.App.Status(auth.Who(ctx).Scope)
}

// VisibleJob returns a job that the principal of ctx may see.
func (a *API) VisibleJob(ctx context.Context, id int64) (router.Job, error) {
	j, err := a.Database.Job(ctx, id)
	if err == nil && !auth.Who(ctx).Scope.Has(j.Repo) {
		return router.Job{}, router.ErrNotFound
	}
	return j, err
}

// change makes a change to a job, or to a runner of it. It is finished even if the
// client goes away.
func (a *API) change(ctx context.Context, jobID int64, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	defer cancel()
	if _, err := a.VisibleJob(ctx, jobID); err != nil {
		return err
	}
	return changeError(do(ctx))
}

// changeError returns the error of a change that could not be made: of what is not ours
// it gives the words, so that an operator knows which side failed.
func changeError(err error) error {
	switch {
	case errors.As(err, new(*router.GiveUpError)):
		return problem.New(http.StatusConflict, "%v", err)
	case err == nil || errors.As(err, new(*router.ConflictError)) || errors.Is(err, router.ErrNotFound):
		return err
	}
	return problem.New(http.StatusServiceUnavailable, "it cannot be done now: %v", err)
}
