package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/mux"

	"switchyard/router"
	"switchyard/router/web/auth"
)

// A Runner is one as the API shows it. Times are in UTC, null when it has not
// come to that.
type Runner struct {
	ID        string             `json:"id"`
	JobID     int64              `json:"job_id"` // the job that it is meant for
	Try       int                `json:"try"`
	State     router.RunnerState `json:"state"`
	StateAt   time.Time          `json:"state_at"`
	Reason    string             `json:"reason"`
	Name      string             `json:"name"`      // on GitHub
	GitHubID  int64              `json:"github_id"` // 0 until it is configured
	Target    router.Target      `json:"target"`    // where it is registered
	NomadJob  string             `json:"nomad_job"` // "" until it is registered, as are the next two
	Namespace string             `json:"namespace"`
	Region    string             `json:"region"`
	Node      string             `json:"node"`
	CreatedAt time.Time          `json:"created_at"`
	PlacedAt  *time.Time         `json:"placed_at"`
	EndedAt   *time.Time         `json:"ended_at"` // when its Nomad job was seen to have ended
	Unplaced  *router.Unplaced   `json:"unplaced"` // why it has no node; null: nothing known, or it has one
}

// Shown returns the runner's state for people. One that Nomad has not taken yet, as
// when it is away and the job is tried again, is not dispatched.
func (r Runner) Shown() string {
	if r.State == router.RunnerDispatched && r.NomadJob == "" {
		return "registering"
	}
	return string(r.State)
}

// Warm reports whether the runner was prepared before its job came.
func (r Runner) Warm() bool { return router.IsWarm(r.NomadJob) }

// A RunnerList is a page of runners, newest job first; of several GitHubs, those of
// one after the other.
type RunnerList struct {
	Runners    []Runner `json:"runners"`
	NextCursor string   `json:"next_cursor"` // cursor of the next page, however many runners this one has; "": this is the last
}

func runnerOf(r router.Runner) Runner {
	v := Runner{
		ID: r.ID, JobID: r.JobID, Try: r.Try, State: r.State, StateAt: r.StateAt, Reason: r.Reason, Name: r.Name, GitHubID: r.GitHubID, Target: r.Target,
		NomadJob: r.NomadJob, Namespace: r.NomadAt.Namespace, Region: r.NomadAt.Region, Node: r.Node,
		CreatedAt: r.CreatedAt, PlacedAt: orNull(r.PlacedAt), EndedAt: orNull(r.EndedAt),
	}
	if u := r.Unplaced; u != nil && r.PlacedAt.IsZero() {
		shown := *u
		shown.Filtered, shown.Exhausted = list(u.Filtered), list(u.Exhausted)
		v.Unplaced = &shown
	}
	return v
}

// ListRunners answers GET /runners of what is in scope with these parameters; an error may be problem.Details.
func ListRunners(ctx context.Context, database Database, scope router.Scope, params url.Values) (RunnerList, error) {
	p := Parameters{Values: params}
	f := router.RunnerFilter{Within: scope, States: oneOf(&p, "state", router.RunnerStates...)}
	if text := p.Text("cursor"); text != "" {
		if n, err := fmt.Sscanf(text, "%d-%d", &f.BeforeJob, &f.BeforeTry); n != 2 || err != nil || f.BeforeJob < 1 {
			p.refuse("cursor %q: want the next_cursor of the page before", text)
		}
	}
	f.Limit = int(p.Number("limit", 100, 1, 500)) + 1 // whether there is another page
	if err := p.End(); err != nil {
		return RunnerList{}, err
	}
	runners, from, err := database.SearchRunners(ctx, f)
	if err != nil {
		return RunnerList{}, err
	}
	shown, next := page(runners, f.Limit-1, runnerOf, func(r router.Runner) string { return fmt.Sprintf("%d-%d", r.JobID, r.Try) })
	if next == "" && from != 0 {
		next = fmt.Sprintf("%d-0", from)
	}
	return RunnerList{shown, next}, nil
}

// Runners answers GET /runners for the principal of ctx.
func (a *API) Runners(ctx context.Context, params url.Values) (RunnerList, error) {
	ctx, cancel := context.WithTimeout(ctx, ReadTimeout)
	defer cancel()
	return ListRunners(ctx, a.Database, auth.Who(ctx).Scope, params)
}

// StopRunner stops a runner, as App.StopRunner does, for the principal of ctx.
func (a *API) StopRunner(ctx context.Context, r router.Runner, force bool) error {
	return a.change(ctx, r.JobID, func(ctx context.Context) error { return a.config.App.StopRunner(ctx, r.ID, force) })
}

// ConcernsRunner notes for the audit trail when a stop is by force.
func ConcernsRunner(req *http.Request, force bool) {
	if force {
		concerns(req, "runners/"+mux.Vars(req)["id"]+", by force")
	}
}

func (a *API) stopRunner(req *http.Request) (any, error) {
	p := Parameters{Values: req.URL.Query()}
	force := p.Flag("force")
	ConcernsRunner(req, force)
	if err := p.End(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), workTimeout)
	defer cancel()
	r, err := a.Database.Runner(ctx, mux.Vars(req)["id"])
	if err != nil {
		return nil, err
	}
	if err := a.StopRunner(ctx, r, force); err != nil {
		return nil, err
	}
	if r, err = a.Database.Runner(ctx, r.ID); err != nil {
		return nil, err
	}
	return runnerOf(r), nil
}
