package api

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/mux"

	"switchyard/router"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

// A Job is one as the API shows it. Times are in UTC, null when it has not
// come to that.
type Job struct {
	ID           int64           `json:"id"`        // router.Job's
	GitHubID     int64           `json:"github_id"` // GitHub's own; so is RunID
	RunID        int64           `json:"run_id"`
	Attempt      int             `json:"attempt"`
	Repo         rules.Repo      `json:"repo"`
	Name         string          `json:"name"`
	Workflow     string          `json:"workflow"`
	Branch       string          `json:"branch"`
	SHA          string          `json:"sha"`
	Sender       string          `json:"sender"`
	Labels       []string        `json:"labels"`
	URL          string          `json:"url"`
	State        router.JobState `json:"state"`
	Cause        router.Cause    `json:"cause"`
	Reason       string          `json:"reason"`
	Rule         string          `json:"rule"` // "" when none took or denied it
	Try          int             `json:"try"`
	Fallback     int             `json:"fallback"`
	Failures     int             `json:"failures"`
	RunnerName   string          `json:"runner_name"`
	Conclusion   string          `json:"conclusion"`
	ReceivedAt   time.Time       `json:"received_at"`
	UpdatedAt    time.Time       `json:"updated_at"`
	DueAt        *time.Time      `json:"due_at"` // in queued and retrying only
	DispatchedAt *time.Time      `json:"dispatched_at"`
	RunningAt    *time.Time      `json:"running_at"`
	CompletedAt  *time.Time      `json:"completed_at"`
}

// A JobList is a page of jobs, newest first; of several GitHubs, those of one after the other.
type JobList struct {
	Jobs       []Job  `json:"jobs"`
	NextCursor string `json:"next_cursor"` // cursor of the next page, however many jobs this one has; "": this is the last
}

// JobOf returns a job as the API shows it.
func JobOf(j router.Job) Job {
	v := Job{
		ID: j.ID, GitHubID: router.GitHubID(j.ID), RunID: router.GitHubID(j.RunID), Attempt: j.Attempt, Repo: j.Repo, Name: j.Name, Workflow: j.Workflow, Branch: j.Branch, SHA: j.SHA, Sender: j.Sender,
		Labels: list(j.Labels), URL: j.URL, State: j.State, Cause: j.Cause, Reason: j.Reason, Try: j.Try, Fallback: j.Fallback, Failures: j.Failures,
		RunnerName: j.RunnerName, Conclusion: j.Conclusion, ReceivedAt: j.ReceivedAt, UpdatedAt: j.UpdatedAt,
		DispatchedAt: orNull(j.DispatchedAt), RunningAt: orNull(j.RunningAt), CompletedAt: orNull(j.CompletedAt),
	}
	if j.Decision != nil {
		v.Rule = j.Decision.Rule
	}
	if j.State == router.Queued || j.State == router.Retrying {
		v.DueAt = orNull(j.DueAt)
	}
	return v
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// list returns l so that it is never null in JSON.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// ListJobs answers GET /jobs of what is in scope with these parameters; an error may be problem.Details.
func ListJobs(ctx context.Context, database Database, scope router.Scope, params url.Values) (JobList, error) {
	f := router.JobFilter{Within: scope}
	p := Parameters{Values: params}
	f.States, f.Causes = oneOf(&p, "state", router.JobStates...), oneOf(&p, "cause", router.Causes...)
	f.Owner, f.Host, f.Repo, f.Rule, f.Label = p.Text("owner"), p.Text("host"), p.Text("repo"), p.Text("rule"), p.Text("label")
	if owner, name, ok := strings.Cut(f.Repo, "/"); ok {
		if f.Owner != "" && !strings.EqualFold(f.Owner, owner) {
			p.refuse("owner=%s and repo=%s name two owners", f.Owner, f.Repo)
		}
		f.Owner, f.Repo = owner, name
	}
	f.Since, f.Until = p.time("since"), p.time("until")
	f.Before = p.Number("cursor", 0, 1, 1<<62)
	f.Limit = int(p.Number("limit", 100, 1, 500)) + 1 // whether there is another page
	if err := p.End(); err != nil {
		return JobList{}, err
	}
	jobs, from, err := database.SearchJobs(ctx, f)
	if err != nil {
		return JobList{}, err
	}
	shown, next := page(jobs, f.Limit-1, JobOf, func(j router.Job) string { return strconv.FormatInt(j.ID, 10) })
	if next == "" && from != 0 {
		next = strconv.FormatInt(from, 10)
	}
	return JobList{shown, next}, nil
}

// page returns as the API shows them the first of what was found, at most limit, and the
// cursor of the last of them if there are more.
func page[T, V any](found []T, limit int, show func(T) V, cursor func(T) string) (shown []V, next string) {
	if len(found) > limit {
		found, next = found[:limit], cursor(found[limit-1])
	}
	shown = []V{}
	for _, one := range found {
		shown = append(shown, show(one))
	}
	return shown, next
}

// Jobs answers GET /jobs for the principal of ctx.
func (a *API) Jobs(ctx context.Context, params url.Values) (JobList, error) {
	ctx, cancel := context.WithTimeout(ctx, ReadTimeout)
	defer cancel()
	return ListJobs(ctx, a.Database, auth.Who(ctx).Scope, params)
}

// A JobDetail is all that is known of a job.
type JobDetail struct {
	Job         Job             `json:"job"`
	Decision    *rules.Decision `json:"decision"`    // by which it goes; null until there is one
	Explanation *rules.Decision `json:"explanation"` // what the rules in force say, with the trace: made once for all readers; null when it was read from a file
	Queue       *Queue          `json:"queue"`       // how it stands among those that wait for a place under its limit; null: it does not wait for one
	Runners     []Runner        `json:"runners"`     // by try
	Timeline    []Event         `json:"timeline"`    // oldest first
}

// Made returns the decision by which the job goes, or nil. same reports whether the rules
// in force decide the same; then the decision has their trace.
func (d JobDetail) Made() (made *rules.Decision, same bool) {
	made, now := d.Decision, d.Explanation
	if made == nil || now == nil || made.Outcome != now.Outcome || made.Rule != now.Rule {
		return made, false
	}
	traced := *made
	traced.Trace, traced.Nearest = now.Trace, now.Nearest
	return &traced, true
}

// An Event is one line of a timeline.
type Event struct {
	At     time.Time     `json:"at"`
	Source router.Source `json:"source"`
	Runner string        `json:"runner"` // its ID; "": it is about the job
	State  string        `json:"state"`
	What   string        `json:"what"`
}

// ShowJob answers GET /jobs/{id}, without the explanation.
func ShowJob(ctx context.Context, database Database, id int64, now time.Time) (JobDetail, router.Job, error) {
	j, err := database.Job(ctx, id)
	if err != nil {
		return JobDetail{}, j, err
	}
	runners, err := database.Runners(ctx, id)
	if err != nil {
		return JobDetail{}, j, err
	}
	events, err := database.Timeline(ctx, id)
	if err != nil {
		return JobDetail{}, j, err
	}
	d := JobDetail{Job: JobOf(j), Decision: j.Decision}
	if d.Queue, err = queueOf(ctx, database, j, j.Decision, now); err != nil {
		return JobDetail{}, j, err
	}
	d.Runners, _ = page(runners, len(runners), runnerOf, nil)
	d.Timeline, _ = page(events, len(events), func(e router.Event) Event { return Event{e.At, e.Source, e.RunnerID, e.State, e.What} }, nil)
	return d, j, nil
}

func (a *API) showJob(req *http.Request) (any, error) {
	id, err := JobID(req)
	if err != nil {
		return nil, err
	}
	if err := noParameters(req); err != nil {
		return nil, err
	}
	d, _, err := a.Job(req.Context(), id)
	return d, err
}

// Job returns all that is known of a job that the principal of ctx may see.
func (a *API) Job(ctx context.Context, id int64) (JobDetail, router.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, ReadTimeout)
	defer cancel()
	d, j, err := ShowJob(ctx, a.Database, id, a.config.Now())
	if err == nil && !auth.Who(ctx).Scope.Has(j.Repo) {
		err = router.ErrNotFound
	}
	if err != nil {
		return JobDetail{}, router.Job{}, err
	}
	d.Explanation = a.explained.of(a.config.App, j)
	return d, j, nil
}

// explained keeps what the rules in force say of the jobs shown
// last, so that showing a job does not decide it again. The zero value is ready.
type explained struct {
	mu    sync.Mutex
	by    *rules.Set
	jobs  map[explainedJob]*router.Decision
	steps int // of all traces
}

// An explainedJob is one as the rules see it: what else they see never changes.
type explainedJob struct {
	id  int64
	run bool // it is known what started the run
}

// maxExplained bounds the steps of the traces that are kept, each a few hundred bytes.
const maxExplained = 50_000

// of returns what App.Explain does. It is not to be changed.
func (e *explained) of(app App, j router.Job) *router.Decision {
	set, key := app.Rules(), explainedJob{j.ID, j.Decision != nil && j.Decision.Run != nil}
	e.mu.Lock()
	known := e.jobs[key]
	if e.by != set {
		known = nil
	}
	e.mu.Unlock()
	if known != nil {
		return known
	}
	d := app.Explain(j)
	e.mu.Lock()
	defer e.mu.Unlock()
	steps := 10 + len(d.Trace)
	if e.jobs == nil || e.by != set || e.steps+steps > maxExplained {
		e.by, e.jobs, e.steps = set, map[explainedJob]*router.Decision{}, 0
	}
	if _, there := e.jobs[key]; !there && app.Rules() == set {
		e.jobs[key] = &d
		e.steps += steps
	}
	return &d
}

// RetryJob has a job decided again, as App.RetryJob does, for the principal of ctx.
func (a *API) RetryJob(ctx context.Context, id int64) error {
	return a.change(ctx, id, func(ctx context.Context) error { return a.config.App.RetryJob(ctx, id) })
}

// CancelJob cancels a job, as App.CancelJob does, for the principal of ctx.
func (a *API) CancelJob(ctx context.Context, id int64, run bool) error {
	return a.change(ctx, id, func(ctx context.Context) error { return a.config.App.CancelJob(ctx, id, run) })
}

func (a *API) cancelJob(req *http.Request) (any, error) {
	p := Parameters{Values: req.URL.Query()}
	run := p.Flag("run")
	ConcernsJob(req, run)
	return a.changeJob(req, &p, func(ctx context.Context, id int64) error { return a.CancelJob(ctx, id, run) })
}

// ConcernsJob notes for the audit trail when a cancel is of the whole run.
func ConcernsJob(req *http.Request, run bool) {
	if run {
		concerns(req, "jobs/"+mux.Vars(req)["id"]+", with its whole run on GitHub")
	}
}

// changeJob makes a change and answers with the job as it is then.
func (a *API) changeJob(req *http.Request, p *Parameters, change func(context.Context, int64) error) (any, error) {
	id, err := JobID(req)
	if err != nil {
		return nil, err
	}
	if err := p.End(); err != nil {
		return nil, err
	}
	if err := change(req.Context(), id); err != nil {
		return nil, err
	}
	d, _, err := a.Job(context.WithoutCancel(req.Context()), id)
	return d, err
}

// JobID returns the job that a request's path names.
func JobID(req *http.Request) (int64, error) {
	text := mux.Vars(req)["id"]
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, problem.New(http.StatusBadRequest, "job %q: want GitHub's ID of a job, a number", text)
	}
	return id, nil
}

// sync reads the unfinished runs of a repository, which the body names.
func (a *API) sync(req *http.Request) (any, error) {
	if err := noParameters(req); err != nil {
		return nil, err
	}
	var body struct {
		Host string `json:"host"`
		Repo string `json:"repo"`
	}
	if err := decodeBody(req, &body, `{"repo": "owner/name"}`); err != nil {
		return nil, err
	}
	owner, name, ok := strings.Cut(body.Repo, "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") || len(body.Host)+len(body.Repo) > maxParameter {
		return nil, problem.New(http.StatusBadRequest, "repo %q: want owner/name", body.Repo)
	}
	if !auth.Who(req.Context()).Scope.Has(router.Repo{Host: body.Host, Owner: owner, Name: name}) {
		return nil, router.ErrNotFound
	}
	concerns(req, path.Join(body.Host, body.Repo))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), workTimeout)
	defer cancel()
	report, err := a.config.App.Sync(ctx, body.Host, body.Repo)
	concerns(req, path.Join(cmp.Or(report.Host, body.Host), body.Repo))
	return report, changeError(err)
}
