package web

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

// A JobList is a page of jobs, newest first.
type JobList struct {
	Jobs       []Job  `json:"jobs"`
	NextCursor string `json:"next_cursor"` // cursor of the next page; "": this is the last
}

func jobOf(j router.Job) Job {
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

// list is l, which is no null in JSON.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// ListJobs answers GET /jobs of what is in scope with these parameters; an error may be problem.Details.
func ListJobs(ctx context.Context, books Books, scope router.Scope, params url.Values) (JobList, error) {
	f := router.JobFilter{Within: scope}
	p := parameters{Values: params}
	f.States = oneOf(&p, "state", router.JobStates...)
	f.Owner, f.Host, f.Repo, f.Rule, f.Label = p.text("owner"), p.text("host"), p.text("repo"), p.text("rule"), p.text("label")
	if owner, name, ok := strings.Cut(f.Repo, "/"); ok {
		if f.Owner != "" && !strings.EqualFold(f.Owner, owner) {
			p.refuse("owner=%s and repo=%s name two owners", f.Owner, f.Repo)
		}
		f.Owner, f.Repo = owner, name
	}
	f.Since, f.Until = p.time("since"), p.time("until")
	f.Before = p.number("cursor", 0, 1, 1<<62)
	f.Limit = int(p.number("limit", 100, 1, 500)) + 1 // whether there is another page
	if err := p.end(); err != nil {
		return JobList{}, err
	}
	jobs, err := books.FindJobs(ctx, f)
	if err != nil {
		return JobList{}, err
	}
	l := JobList{Jobs: []Job{}}
	for i, j := range jobs {
		if i == f.Limit-1 {
			l.NextCursor = strconv.FormatInt(jobs[i-1].ID, 10)
			break
		}
		l.Jobs = append(l.Jobs, jobOf(j))
	}
	return l, nil
}

func (a *api) listJobs(req *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(req.Context(), readTimeout)
	defer cancel()
	return ListJobs(ctx, a.Books, auth.Who(ctx).Scope, req.URL.Query())
}

// A JobDetail is all that is known of a job.
type JobDetail struct {
	Job         Job             `json:"job"`
	Decision    *rules.Decision `json:"decision"`    // by which it goes; null until there is one
	Explanation *rules.Decision `json:"explanation"` // what the rules in force say, with the trace: made once for all who look; null when it was read from a file
	Runners     []Runner        `json:"runners"`     // by try
	Timeline    []Event         `json:"timeline"`    // oldest first
}

// An Event is one line of a time line.
type Event struct {
	At     time.Time     `json:"at"`
	Source router.Source `json:"source"`
	Runner string        `json:"runner"` // its ID; "": it is about the job
	State  string        `json:"state"`
	What   string        `json:"what"`
}

// ShowJob answers GET /jobs/{id}, without the explanation.
func ShowJob(ctx context.Context, books Books, id int64) (JobDetail, error) {
	d, _, err := showJob(ctx, books, id)
	return d, err
}

func showJob(ctx context.Context, books Books, id int64) (JobDetail, router.Job, error) {
	j, err := books.Job(ctx, id)
	if err != nil {
		return JobDetail{}, j, err
	}
	runners, err := books.Runners(ctx, id)
	if err != nil {
		return JobDetail{}, j, err
	}
	events, err := books.Timeline(ctx, id)
	if err != nil {
		return JobDetail{}, j, err
	}
	d := JobDetail{Job: jobOf(j), Decision: j.Decision, Runners: []Runner{}, Timeline: []Event{}}
	for _, r := range runners {
		d.Runners = append(d.Runners, runnerOf(r))
	}
	for _, e := range events {
		d.Timeline = append(d.Timeline, Event{e.At, e.Source, e.RunnerID, e.State, e.What})
	}
	return d, j, nil
}

func (a *api) showJob(req *http.Request) (any, error) {
	id, err := jobID(req)
	if err != nil {
		return nil, err
	}
	p := parameters{Values: req.URL.Query()}
	if err := p.end(); err != nil {
		return nil, err
	}
	return a.job(req.Context(), id)
}

func (a *api) job(ctx context.Context, id int64) (any, error) {
	d, _, err := a.detail(ctx, id)
	return d, err
}

// detail is all that is known of a job, if it is in the scope of who ctx is of.
func (a *api) detail(ctx context.Context, id int64) (JobDetail, router.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	d, j, err := showJob(ctx, a.Books, id)
	if err == nil && !auth.Who(ctx).Scope.Has(j.Repo) {
		err = router.ErrNotFound
	}
	if err != nil {
		return JobDetail{}, router.Job{}, err
	}
	d.Explanation = a.explained.of(a.App, j)
	return d, j, nil
}

// explained keeps what the rules in force say of the jobs that were looked at
// last, so that no look at a job decides it once more. The zero value is ready.
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

func (a *api) retryJob(req *http.Request) (any, error) {
	return a.changeJob(req, &parameters{Values: req.URL.Query()}, a.App.RetryJob)
}

func (a *api) cancelJob(req *http.Request) (any, error) {
	p := parameters{Values: req.URL.Query()}
	run := p.flag("run")
	concernsJob(req, run)
	return a.changeJob(req, &p, func(ctx context.Context, id int64) error { return a.App.CancelJob(ctx, id, run) })
}

// concernsJob says in the audit trail when a cancel is of the whole run.
func concernsJob(req *http.Request, run bool) {
	if run {
		concerns(req, "jobs/"+mux.Vars(req)["id"]+", with its whole run on GitHub")
	}
}

// changeJob makes a change, which is finished even if the client goes away, and
// answers with the job as it is then.
func (a *api) changeJob(req *http.Request, p *parameters, change func(context.Context, int64) error) (any, error) {
	id, err := jobID(req)
	if err != nil {
		return nil, err
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), workTimeout)
	defer cancel()
	if _, err := a.job(ctx, id); err != nil { // it may be out of scope
		return nil, err
	}
	if err := change(ctx, id); err != nil {
		return nil, undone(err)
	}
	return a.job(ctx, id)
}

func jobID(req *http.Request) (int64, error) {
	text := mux.Vars(req)["id"]
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, problem.New(http.StatusBadRequest, "job %q: want GitHub's ID of a job, a number", text)
	}
	return id, nil
}

// sync has a full look taken at a repository, which the body names.
func (a *api) sync(req *http.Request) (any, error) {
	p := parameters{Values: req.URL.Query()}
	if err := p.end(); err != nil {
		return nil, err
	}
	var body struct {
		Host string `json:"host"`
		Repo string `json:"repo"`
	}
	if err := decodeBody(req, &body, `{"repo": "owner/name"}`); err != nil {
		return nil, err
	}
	if owner, name, ok := strings.Cut(body.Repo, "/"); !ok || owner == "" || name == "" || strings.Contains(name, "/") || len(body.Host)+len(body.Repo) > maxParameter {
		return nil, problem.New(http.StatusBadRequest, "repo %q: want owner/name", body.Repo)
	}
	owner, name, _ := strings.Cut(body.Repo, "/")
	if !auth.Who(req.Context()).Scope.Has(router.Repo{Host: body.Host, Owner: owner, Name: name}) {
		return nil, router.ErrNotFound
	}
	concerns(req, path.Join(body.Host, body.Repo))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), workTimeout)
	defer cancel()
	report, err := a.App.Sync(ctx, body.Host, body.Repo)
	concerns(req, path.Join(cmp.Or(report.Host, body.Host), body.Repo))
	return report, undone(err)
}
