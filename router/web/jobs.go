package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

// A Job is one as the API shows it. Times are in UTC, null when it has not
// come to that.
type Job struct {
	ID           int64           `json:"id"`
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
		ID: j.ID, RunID: j.RunID, Attempt: j.Attempt, Repo: j.Repo, Name: j.Name, Workflow: j.Workflow, Branch: j.Branch, SHA: j.SHA, Sender: j.Sender,
		Labels: list(j.Labels), URL: j.URL, State: j.State, Reason: j.Reason, Try: j.Try, Fallback: j.Fallback, Failures: j.Failures,
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

// ListJobs answers GET /jobs with these parameters; an error may be a Problem.
func ListJobs(ctx context.Context, books Books, params url.Values) (JobList, error) {
	var f router.JobFilter
	p := parameters{Values: params}
	f.States = oneOf(&p, "state", router.JobStates...)
	f.Owner, f.Repo, f.Rule, f.Label = p.text("owner"), p.text("repo"), p.text("rule"), p.text("label")
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
	return ListJobs(ctx, a.Books, req.URL.Query())
}

// parameters are those of a query. Each is read once; end has the first fault,
// and refuses what was not read.
type parameters struct {
	url.Values
	read  []string
	fault error
}

func (p *parameters) refuse(format string, args ...any) {
	if p.fault == nil {
		p.fault = refuse(http.StatusBadRequest, format, args...)
	}
}

func (p *parameters) text(name string) string {
	p.read = append(p.read, name)
	v := p.Values[name]
	switch {
	case len(v) > 1:
		p.refuse("%s is given twice", name)
	case len(v) == 1 && len(v[0]) > maxParameter:
		p.refuse("%s is longer than %d bytes", name, maxParameter)
	case len(v) == 1:
		return v[0]
	}
	return ""
}

// oneOf reads a parameter that may be given several times, or hold several values with commas.
func oneOf[T ~string](p *parameters, name string, known ...T) (values []T) {
	p.read = append(p.read, name)
	for _, text := range strings.Split(strings.Join(p.Values[name], ","), ",") {
		if text == "" {
			continue
		}
		if !slices.Contains(known, T(text)) {
			p.refuse("%s %q: want one of %s", name, text, join(known))
			return nil
		}
		if !slices.Contains(values, T(text)) {
			values = append(values, T(text))
		}
	}
	return values
}

func join[T ~string](values []T) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, string(v))
	}
	return strings.Join(texts, ", ")
}

func (p *parameters) time(name string) time.Time {
	text := p.text(name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		p.refuse("%s %q: want a time such as 2026-11-01T08:00:00Z", name, text)
	}
	return t
}

func (p *parameters) number(name string, otherwise, least, most int64) int64 {
	text := p.text(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		p.refuse("%s %q: want a number from %d to %d", name, text, least, most)
	}
	return n
}

func (p *parameters) flag(name string) bool {
	switch text := p.text(name); text {
	case "", "false":
		return false
	case "true":
		return true
	default:
		p.refuse("%s %q: want true or false", name, text)
		return false
	}
}

func (p *parameters) end() error {
	for name := range p.Values {
		if !slices.Contains(p.read, name) {
			p.refuse("unknown parameter %q: want %s", name, strings.Join(p.read, ", "))
		}
	}
	return p.fault
}
