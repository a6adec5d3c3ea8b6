package web

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/router/web/problem"
)

const pageRows = "50" // of jobs or runners, unless limit says otherwise

// An option is one of a choice in a form.
type option struct {
	Value, Name string
	Chosen      bool
}

// A problemView is the part of a page that says why it does not show, or why the server
// did not do, what was asked for.
type problemView struct{ Problem *problem.Details } // nil: nothing is wrong

// Status returns the status of the answer.
func (v problemView) Status() int {
	if v.Problem != nil {
		return v.Problem.Status
	}
	return http.StatusOK
}

// A listView is a page of jobs or of runners, with the form that filters them.
type listView struct {
	problemView
	Query  url.Values // as it was asked
	States []option
	Newest string   // where the first page is; "": this is it
	Older  string   // where the next page is; "": this is the last
	Partly bool     // the page has fewer than it may, as not all was searched
	Since  []option // links
	Any    bool     // something is filtered
	now    time.Time
}

// Q returns a parameter of the query.
func (v listView) Q(name string) string { return v.Query.Get(name) }

func newList[T ~string](path string, q url.Values, known []T, groups []option, next string, err error, now time.Time) (listView, error) {
	v := listView{Query: q, now: now}
	if p, wrong := errors.AsType[*problem.Details](err); wrong && p.RetryAfter == 0 {
		v.Problem = p
	} else if err != nil {
		return v, err
	}
	state := strings.Join(q["state"], ",")
	v.States = append([]option{{"", "any", false}}, groups...)
	for _, s := range known {
		v.States = append(v.States, option{string(s), string(s), false})
	}
	i := slices.IndexFunc(v.States, func(o option) bool { return o.Value == state })
	if i < 0 {
		i = len(v.States)
		v.States = append(v.States, option{state, state, false})
	}
	v.States[i].Chosen = true
	with := func(name, value string) string {
		to := maps.Clone(q)
		to.Del("cursor")
		for k := range to {
			if to.Get(k) == "" {
				to.Del(k)
			}
		}
		if name != "" {
			to.Set(name, value)
		}
		if len(to) == 0 {
			return path
		}
		return path + "?" + to.Encode()
	}
	for k := range q {
		v.Any = v.Any || k != "cursor" && k != "limit" && q.Get(k) != ""
	}
	if q.Get("cursor") != "" {
		v.Newest = with("", "")
	}
	if next != "" {
		v.Older = with("cursor", next)
	}
	for _, s := range []struct {
		name string
		ago  time.Duration
	}{{"the last hour", time.Hour}, {"the last day", 24 * time.Hour}, {"the last 7 days", 7 * 24 * time.Hour}} {
		v.Since = append(v.Since, option{Value: with("since", now.Add(-s.ago).UTC().Truncate(time.Second).Format(time.RFC3339)), Name: s.name})
	}
	return v, nil
}

func withLimit(q url.Values) url.Values {
	q = maps.Clone(q)
	if q.Get("limit") == "" {
		q.Set("limit", pageRows)
	}
	return q
}

// commas returns states as a query has them.
func commas[T ~string](states []T) string {
	texts := make([]string, len(states))
	for i, s := range states {
		texts[i] = string(s)
	}
	return strings.Join(texts, ",")
}

type jobsView struct {
	listView
	Jobs []api.Job
}

// Waited returns how long the job waited for a runner, or has waited so far; "": it gets none.
func (v listView) Waited(j api.Job) string {
	switch {
	case j.RunningAt != nil:
		return took(j.RunningAt.Sub(j.ReceivedAt))
	case slices.Contains([]router.JobState{router.Held, router.Queued, router.Retrying, router.Dispatched}, j.State):
		return took(v.now.Sub(j.ReceivedAt)) + " so far"
	}
	return ""
}

// Ran returns how long the job ran, or has run so far.
func (v listView) Ran(j api.Job) string {
	switch {
	case j.RunningAt == nil:
		return ""
	case j.CompletedAt != nil:
		return took(j.CompletedAt.Sub(*j.RunningAt))
	case j.State == router.Running:
		return took(v.now.Sub(*j.RunningAt)) + " so far"
	}
	return ""
}

// Ago returns how long ago t was.
func (v listView) Ago(t time.Time) string { return took(v.now.Sub(t)) }

func (s *console) jobsPage(req *http.Request) (any, error) {
	q := req.URL.Query()
	l, err := s.api.Jobs(req.Context(), withLimit(q))
	waiting := commas([]router.JobState{router.Held, router.Queued, router.Retrying, router.Dispatched})
	v, err := newList("/jobs", q, router.JobStates, []option{{waiting, "waiting", false}}, l.NextCursor, err, s.config.Now())
	v.Partly = v.Older != "" && strconv.Itoa(len(l.Jobs)) != withLimit(q).Get("limit")
	return jobsView{v, l.Jobs}, err
}

type runnersView struct {
	listView
	Runners []api.Runner
}

func (s *console) runnersPage(req *http.Request) (any, error) {
	q := req.URL.Query()
	l, err := s.api.Runners(req.Context(), withLimit(q))
	live := commas([]router.RunnerState{router.RunnerDispatched, router.RunnerClaimed, router.RunnerOnline, router.RunnerBusy})
	v, err := newList("/runners", q, router.RunnerStates, []option{{live, "live", false}}, l.NextCursor, err, s.config.Now())
	v.Partly = v.Older != "" && strconv.Itoa(len(l.Runners)) != withLimit(q).Get("limit")
	return runnersView{v, l.Runners}, err
}

// A jobView is what the page of a job shows.
type jobView struct {
	api.JobDetail
	problemView
	Next    string // what happens next; "": nothing
	GitHub  string // its page there; "": none
	NomadUI string
	Rows    []eventRow
	Phases  []phase
	Funnel  []funnelRow
	NoNode  *router.Unplaced // of the runner of its current try
	Same    bool             // the rules in force say what was decided
	Open    bool             // it has not ended
	now     time.Time
}

// Starts says when the job will probably start.
func (v jobView) Starts() string { return v.Queue.Starts(v.now) }

// Title returns the title of the job's page.
func (v jobView) Title() string { return router.Printable(v.Job.Name) }

// An eventRow is a line of a timeline.
type eventRow struct {
	api.Event
	After string // since the one before; "" for the first
}

// A phase is a part of a job's life.
type phase struct {
	Name     string
	Class    string
	From     time.Time
	Took     string
	Open     bool // it has not ended
	X, Width string
}

// A funnelRow is how many nodes are left, and after what.
type funnelRow struct {
	What, From string
	Left, Gone int
	Width      string // percent
}

// NomadJob returns where Nomad's UI shows the runner; "": nowhere.
func (v jobView) NomadJob(r api.Runner) string {
	if v.NomadUI == "" || r.NomadJob == "" {
		return ""
	}
	at := r.NomadJob
	if r.Namespace != "" {
		at += "@" + r.Namespace
	}
	page := v.NomadUI + "/ui/jobs/" + url.PathEscape(at)
	if r.Region != "" {
		page += "?region=" + url.QueryEscape(r.Region)
	}
	return page
}

// For returns how long the runner has been in its state.
func (v jobView) For(r api.Runner) string { return took(v.now.Sub(r.StateAt)) }

// Live reports whether the runner can be stopped.
func (v jobView) Live(r api.Runner) bool { return r.EndedAt == nil || !r.State.Final() }

func (s *console) jobPage(req *http.Request) (any, error) {
	id, err := api.JobID(req)
	if err != nil {
		return nil, err
	}
	return s.jobView(req.Context(), id)
}

func (s *console) jobView(ctx context.Context, id int64) (jobView, error) {
	d, j, err := s.api.Job(ctx, id)
	if err != nil {
		return jobView{}, err
	}
	v := jobView{JobDetail: d, NomadUI: s.config.NomadUI, now: s.config.Now(), Open: !slices.Contains([]router.JobState{router.Completed, router.Ignored, router.Denied, router.Unroutable}, j.State)}
	if u, err := url.Parse(j.URL); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		v.GitHub = j.URL
	}
	var current *router.Runner
	if i := slices.IndexFunc(d.Runners, func(r api.Runner) bool { return r.Try == j.Try }); i >= 0 {
		r := d.Runners[i]
		current = &router.Runner{State: r.State, Node: r.Node, Unplaced: r.Unplaced}
		if r.PlacedAt != nil {
			current.PlacedAt = *r.PlacedAt
		}
		if v.Open {
			v.NoNode, v.Funnel = r.Unplaced, funnel(r.Unplaced)
		}
	}
	v.Next = next(j, current, v.now)
	v.Phases = phases(d, v.Open, v.now)
	var before time.Time
	for _, e := range d.Timeline {
		row := eventRow{Event: e}
		if !before.IsZero() {
			row.After = took(e.At.Sub(before))
		}
		v.Rows, before = append(v.Rows, row), e.At
	}
	v.Decision, v.Same = d.Made()
	return v, nil
}

// phases returns the parts of a job's life until it ended, or until now.
func phases(d api.JobDetail, open bool, now time.Time) []phase {
	j := d.Job
	type point struct {
		name, class string
		at          *time.Time
	}
	points := []point{{"until its runner was on Nomad", "queued", &j.ReceivedAt}, {"until it had a node", "dispatched", j.DispatchedAt}}
	for _, r := range d.Runners {
		if r.Name != j.RunnerName && (j.RunnerName != "" || r.Try != j.Try) {
			continue
		}
		points = append(points, point{"until the runner asked for its configuration", "placed", r.PlacedAt})
		for _, e := range d.Timeline {
			if e.Runner == r.ID && e.State == string(router.RunnerClaimed) {
				points = append(points, point{"until GitHub gave it the job", "claimed", &e.At})
				break
			}
		}
	}
	points = append(points, point{"it ran", "running", j.RunningAt})
	points = slices.DeleteFunc(points, func(p point) bool { return p.at == nil || p.at.IsZero() })
	end := j.UpdatedAt
	switch {
	case open:
		end = now
	case j.CompletedAt != nil:
		end = *j.CompletedAt
	}
	var list []phase
	var lengths []float64
	var total float64
	for i, p := range points {
		until, last := end, i == len(points)-1
		if !last {
			until = *points[i+1].at
		}
		ph := phase{Name: p.name, Class: p.class, From: *p.at, Took: took(until.Sub(*p.at)), Open: last && open}
		switch {
		case ph.Open && p.class == "running":
			ph.Name = "it runs"
		case last && !open && p.class != "running": // what it waited for never came
			ph.Name = "until it was " + string(j.State)
		}
		list = append(list, ph)
		lengths = append(lengths, max(0, until.Sub(*p.at).Seconds()))
		total += lengths[i]
	}
	const least = .8 // percent, so that all are seen
	x := 0.0
	for i := range list {
		width := least
		if total > 0 {
			width += lengths[i] / total * (100 - least*float64(len(list)))
		}
		list[i].X, list[i].Width = fmt.Sprintf("%.2f", x), fmt.Sprintf("%.2f", width)
		x += width
	}
	return list
}

// funnel returns how many nodes are left for a runner after each thing it requires.
func funnel(u *router.Unplaced) []funnelRow {
	if u == nil || u.InPool == 0 {
		return nil
	}
	rows := []funnelRow{{What: "in node pool " + u.Pool, Left: u.InPool}}
	left := u.InPool
	after := func(what, from string, now int) {
		now = max(0, min(now, left))
		rows = append(rows, funnelRow{What: what, From: from, Left: now, Gone: left - now})
		left = now
	}
	if u.Evaluated < u.InPool {
		after("ready and in its datacenters", "", u.Evaluated)
	}
	for _, s := range u.Filtered {
		after("with "+s.What, s.From, left-s.Nodes)
	}
	for _, s := range u.Exhausted {
		after("with enough "+s.What+" free", s.From, left-s.Nodes)
	}
	for i := range rows {
		rows[i].Width = fmt.Sprintf("%.2f", 100*float64(rows[i].Left)/float64(u.InPool))
	}
	return rows
}

// A onPage is an error that is shown on the page it is about.
type onPage struct {
	problem *problem.Details
	page    consolePage
	data    any
}

func (e *onPage) Error() string { return e.problem.Error() }
func (e *onPage) Unwrap() error { return e.problem }

// jobForm makes a change to a job and returns the address of its page, which also shows
// why a change failed.
func (s *console) jobForm(req *http.Request, id int64, change func(context.Context) error) (string, error) {
	err := change(req.Context())
	if err == nil {
		return "/jobs/" + strconv.FormatInt(id, 10), nil
	}
	ctx := context.WithoutCancel(req.Context())
	v, gone := s.jobView(ctx, id)
	if gone != nil {
		return "", err
	}
	v.Problem = s.problemOf(req, err)
	return "", &onPage{v.Problem, consolePage{template: "job"}, v}
}

func (s *console) retryForm(req *http.Request) (string, error) {
	id, err := api.JobID(req)
	if err != nil {
		return "", err
	}
	return s.jobForm(req, id, func(ctx context.Context) error { return s.api.RetryJob(ctx, id) })
}

func (s *console) cancelForm(req *http.Request) (string, error) {
	id, err := api.JobID(req)
	if err != nil {
		return "", err
	}
	run := req.PostForm.Get("run") == "true"
	api.ConcernsJob(req, run)
	return s.jobForm(req, id, func(ctx context.Context) error { return s.api.CancelJob(ctx, id, run) })
}

func (s *console) stopForm(req *http.Request) (string, error) {
	id, force := mux.Vars(req)["id"], req.PostForm.Get("force") == "true"
	api.ConcernsRunner(req, force)
	r, err := s.api.Database.Runner(req.Context(), id)
	if err != nil {
		return "", err
	}
	return s.jobForm(req, r.JobID, func(ctx context.Context) error { return s.api.StopRunner(ctx, r, force) })
}
