package nomad

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"switchyard/router"
)

const (
	// silence is how long an event stream may send nothing before it counts as
	// dead. Nomad sends a heartbeat every 30 s
	// (nomad/event_endpoint.go, v2.0.6-dev, read 2026-11-25).
	silence = 70 * time.Second
	opening = 10 * time.Second // from Nomad's answer to its first heartbeat, which follows at once

	maxStreams = 20       // of events, where a token may not follow all namespaces at once
	maxBatch   = 64 << 20 // bytes of the events of one change
	maxStub    = 8 << 20  // bytes of one job; its meta may have megabytes
	maxEnd     = 300      // characters of how an allocation ended

	maxPreempted = 10_000 // jobs that a stream remembers
)

// ours finds the Nomad jobs of runners in a listing, dispatched ones included;
// runnerOf is more exact.
const ours = `ID matches "(^|/dispatch-)gha-([0-9]|warm-)"`

// runnerOf returns the ID of the runner that a Nomad job belongs to: the job's own ID,
// or what a dispatch was named after, as in "parent/dispatch-gha-1-1-1700000000-0123abcd";
// "" when it is not one of ours. That of a warm runner's job is the job's.
func runnerOf(id string) string {
	if router.IsWarm(id) {
		return id
	}
	if _, child, ok := strings.Cut(id, "/dispatch-"); ok {
		parts := strings.Split(child, "-")
		if len(parts) != 5 {
			return ""
		}
		id = strings.Join(parts[:3], "-")
	}
	if _, _, ok := router.ParseRunnerID(id); !ok {
		return ""
	}
	return id
}

// Stop implements router.Nomad. It needs submit-job.
func (c *Client) Stop(ctx context.Context, r router.Runner) error {
	if r.NomadJob == "" {
		return fmt.Errorf("runner %s is not registered", r.ID)
	}
	at := Scope(r.NomadAt)
	// Nomad answers 200 when there is no such job.
	if _, _, err := c.api.Jobs().DeregisterOpts(r.NomadJob, &api.DeregisterOptions{}, at.Write(ctx)); err != nil {
		return c.Classify(ctx, Call{What: "stop job " + r.NomadJob, At: at, Capability: "submit-job"}, err)
	}
	return nil
}

// Jobs implements router.Nomad. It lists the namespaces on which the token has list-jobs;
// it is a FixError if there are none.
func (c *Client) Jobs(ctx context.Context, region string) (jobs []router.NomadJob, index uint64, err error) {
	list := Call{What: "list jobs", At: Scope{api.AllNamespacesNamespace, region}, Capability: "list-jobs"}
	query := url.Values{"filter": {ours}, "meta": {"true"}}
	index, err = List(ctx, c, list, "/v1/jobs?"+query.Encode(), func(stub *jobStub) {
		if j, ok := stub.job(); ok {
			j.At.Region = region
			jobs = append(jobs, j)
		}
	})
	if err != nil {
		return nil, 0, err
	}
	return jobs, index, nil
}

// List calls each for the elements of a listing, one after another, as the whole is tens of
// megabytes on a large cluster. It returns Nomad's index of the listing. Path has its query;
// errors are classified for the call, and each may have been called before one.
func List[T any](ctx context.Context, c *Client, call Call, path string, each func(*T)) (index uint64, err error) {
	ctx = context.WithValue(ctx, indexKey{}, &index)
	body, err := c.api.Raw().Response(path, call.At.Read(ctx))
	if err != nil {
		return 0, c.Classify(ctx, call, err)
	}
	defer body.Close()
	in := &bounded{from: body, left: maxStub}
	decoder := json.NewDecoder(in)
	begin, err := decoder.Token()
	if err == nil && begin != json.Delim('[') {
		err = fmt.Errorf("it begins with %v, and is no list", begin)
	}
	if err == nil {
		for decoder.More() && err == nil {
			var stub T
			in.left = maxStub
			if err = decoder.Decode(&stub); err == nil {
				each(&stub)
			}
		}
	}
	if err == nil {
		_, err = decoder.Token() // the end of the list; without it some are missing
	}
	if err != nil {
		return 0, fmt.Errorf("%s: read Nomad's answer: %w", call, unfinished(err))
	}
	return index, nil
}

// A jobStub has what Jobs reads of a job in a listing.
type jobStub struct {
	ID, Namespace, Status string
	Stop                  bool
	SubmitTime            int64
	Meta                  struct { // of all keys, only those
		Repository string `json:"GH_REPOSITORY"`
		JobID      string `json:"GH_JOB_ID"`
		RunID      string `json:"GH_RUN_ID"`
		RunAttempt string `json:"GH_RUN_ATTEMPT"`
	}
	JobSummary struct {
		Summary map[string]struct{ Queued int }
	}
}

// job returns the Nomad job of a runner; false for any other job.
func (s *jobStub) job() (j router.NomadJob, ok bool) {
	j = router.NomadJob{
		ID: s.ID, RunnerID: runnerOf(s.ID), At: router.NomadAt{Namespace: s.Namespace},
		Status: s.Status, Stopped: s.Stop, Submitted: moment(s.SubmitTime), Repo: Printable(s.Meta.Repository, maxValue),
	}
	j.JobID, _ = strconv.ParseInt(s.Meta.JobID, 10, 64)
	j.RunID, _ = strconv.ParseInt(s.Meta.RunID, 10, 64)
	j.Attempt, _ = strconv.Atoi(s.Meta.RunAttempt)
	for _, group := range s.JobSummary.Summary {
		j.Waiting = j.Waiting || s.Status == "pending" && group.Queued > 0
	}
	return j, j.RunnerID != ""
}

// moment returns a time that Nomad gives in nanoseconds; 0 is none.
func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// indexKey is the key of a *uint64 in a context, which gets the index of Nomad's answer.
type indexKey struct{}

// An observed reports requests, and gives the index of an answer to callers with an indexKey:
// the API client does not return it with an answer that is not read yet.
type observed struct {
	*http.Transport
	home    string                                            // the client's own region, if it is configured
	called  func(call string, status int, took time.Duration) // nil: nobody
	calling func(call string) (ended func())                  // likewise
}

func (n observed) RoundTrip(r *http.Request) (*http.Response, error) {
	call, began := callName(r.Method, r.URL.Path), time.Now()
	told := call
	if region := r.URL.Query().Get("region"); region != "" && region != n.home {
		told += " of region " + region
	}
	if n.calling != nil && call != followEvents {
		defer n.calling(told)()
	}
	// Package api asks for compressed answers, and the transport would leave them so. For
	// each, Nomad makes a compressor of 800 kB, which costs it as much as a registration
	// (2.0.5, profiled 2026-11-29): long lists alone gain by it.
	r = r.Clone(r.Context())
	if r.Header.Del("Accept-Encoding"); !strings.HasPrefix(call, "list ") || r.URL.Query().Has("prefix") || r.URL.Query().Has("per_page") {
		r.Header.Set("Accept-Encoding", "identity")
	}
	resp, err := n.Transport.RoundTrip(r)
	took := time.Since(began)
	wanted := func() bool { return !errors.Is(r.Context().Err(), context.Canceled) }
	switch {
	case n.called == nil || !wanted(): // the caller went away
	case err != nil:
		n.called(told, router.StatusOf(err), took)
	case resp.StatusCode == http.StatusOK && call != followEvents:
		resp.Body = listen(told, resp, took, n.called, wanted)
	default:
		n.called(told, resp.StatusCode, took)
	}
	if date, ok := r.Context().Value(dateKey{}).(*string); ok && err == nil {
		*date = resp.Header.Get("Date")
	}
	if index, ok := r.Context().Value(indexKey{}).(*uint64); ok && err == nil {
		*index, _ = strconv.ParseUint(resp.Header.Get("X-Nomad-Index"), 10, 64)
	}
	return resp, err
}

// bounded fails when more than left is read.
type bounded struct {
	from io.Reader
	left int // bytes
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("it is too long")
	}
	n, err := b.from.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// unfinished returns the error for an answer that ended too early.
func unfinished(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// errSilent says why Follow gives up a stream.
var errSilent = fmt.Errorf("nothing came from Nomad for %v, not even a heartbeat", silence)

// errDenied is for a token that may not read: Nomad answers 200 and then nothing, or ends
// the stream (v2.0.6-dev, tried 2026-11-25); before 2.0 sometimes 403 (1.10.5, tried
// 2026-11-29).
var errDenied = errors.New("no stream began, as for a token that may not read")

// Follow implements router.Nomad. Nomad keeps the last 100 changes of a region, or its event_buffer_size, and silently starts a stream of an older index
// at the oldest of them: hence NomadFollowed. It needs read-job, on all namespaces or on
// those on which the token has any capability.
func (c *Client) Follow(ctx context.Context, region string, index uint64, each func(router.NomadEvent) error) error {
	err := c.stream(ctx, Scope{api.AllNamespacesNamespace, region}, index, each)
	if !errors.Is(err, errDenied) || ctx.Err() != nil {
		return err
	}
	list := Call{What: "list namespaces", At: Scope{Region: region}, Capability: "read-job on a namespace"}
	namespaces, _, listErr := c.api.Namespaces().List(list.At.Read(ctx))
	if listErr != nil {
		return c.Classify(ctx, list, listErr)
	}
	if len(namespaces) == 0 || len(namespaces) > maxStreams {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	wait, open := len(namespaces), 0
	begun := func(ok bool) error { // mu is held
		if wait--; ok {
			open++
		}
		switch {
		case wait > 0:
			return nil
		case open == 0:
			return err
		}
		return each(router.NomadEvent{Kind: router.NomadFollowed, Index: index})
	}
	for _, n := range namespaces {
		g.Go(func() error {
			err := c.stream(ctx, Scope{n.Name, region}, index, func(e router.NomadEvent) error {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == router.NomadFollowed {
					return begun(true)
				}
				return each(e)
			})
			if errors.Is(err, errDenied) && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				return begun(false)
			}
			return err
		})
	}
	return g.Wait()
}

// stream follows the events of a namespace, or of all.
func (c *Client) stream(ctx context.Context, at Scope, index uint64, each func(router.NomadEvent) error) error {
	follow := Call{What: "follow events", At: at, Capability: "read-job"}
	denied := &router.FixError{Fix: needs(follow.Capability, follow.At), Err: fmt.Errorf("%s: %w", follow, errDenied)}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(c.silence, func() { cancel(errSilent) })
	defer quiet.Stop()
	query := url.Values{"topic": {"Job", "Evaluation", "Allocation"}, "index": {strconv.FormatUint(index, 10)}}
	body, err := c.api.Raw().Response("/v1/event/stream?"+query.Encode(), follow.At.Read(ctx))
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return fmt.Errorf("%s: %w", follow, cause)
	case errors.Is(err, io.EOF), Status(err) == http.StatusForbidden:
		return denied
	case err != nil:
		return c.Classify(ctx, follow, err)
	}
	defer body.Close()
	late := time.AfterFunc(c.opening, func() { cancel(errDenied) })
	defer late.Stop()
	in := &bounded{from: body}
	decoder := json.NewDecoder(in)
	preempted := map[string]string{}
	for opened := false; ; {
		var batch struct {
			Index  uint64
			Events []streamed
		}
		in.left = maxBatch
		err := decoder.Decode(&batch)
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, errDenied), cause == nil && errors.Is(err, io.EOF) && !opened:
			return denied
		case cause != nil:
			return fmt.Errorf("%s: %w", follow, cause)
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%s: Nomad ended the stream", follow)
		case err != nil:
			return fmt.Errorf("%s: %w", follow, err)
		}
		quiet.Reset(c.silence)
		if !opened {
			if opened = true; !late.Stop() {
				return denied
			}
			if err := each(router.NomadEvent{Kind: router.NomadFollowed, Index: index}); err != nil {
				return err
			}
		}
		var told []router.NomadEvent
		for _, e := range batch.Events {
			event, ok, err := e.event(preempted)
			if err != nil {
				return fmt.Errorf("%s: event %d of %s %s: %w", follow, batch.Index, e.Topic, e.Key, err)
			}
			event.Index, event.At.Region = batch.Index, at.Region
			if ok {
				told = append(told, event)
			}
		}
		// Nomad reports an allocation before the lost one that it replaces.
		slices.SortStableFunc(told, func(a, b router.NomadEvent) int {
			return cmp.Compare(order[a.Kind], order[b.Kind])
		})
		for _, event := range told {
			if err := each(event); err != nil {
				return err
			}
		}
	}
}

// order sorts the events of one change.
var order = map[router.NomadEventKind]int{router.NomadStopped: 0, router.NomadEnded: 1, router.NomadPlaced: 2, router.NomadStarted: 3, router.NomadUnknown: 4, router.NomadWaits: 5}

// A streamed is an event as Nomad streams it.
type streamed struct {
	Topic, Type, Key string
	Index            uint64
	FilterKeys       []string // of an evaluation or allocation, its job's ID among them
	Payload          json.RawMessage
}

// event returns what an event means for a runner; false when nothing. It keeps the jobs of
// allocations that are preempted: of the next ones, which may end first, Nomad does not say
// that they are in their place.
func (s streamed) event(preempted map[string]string) (e router.NomadEvent, ok bool, err error) {
	if s.Type == "JobRegistered" && s.Topic == "Job" { // whoever registered it knows
		return e, false, nil
	}
	if !slices.ContainsFunc(append(s.FilterKeys, s.Key), func(id string) bool { return runnerOf(id) != "" }) {
		return e, false, nil
	}
	var p struct {
		Job struct {
			ID, Namespace string
			ModifyIndex   uint64
		}
		Deleted    bool // since 1.11.3
		Evaluation struct {
			JobID, Namespace, Status string
			ModifyTime               int64
		}
		Allocation allocation
	}
	if err := json.Unmarshal(s.Payload, &p); err != nil {
		return e, false, err
	}
	switch s.Topic {
	case "Job":
		if s.Type != "JobDeregistered" && !p.Deleted {
			return e, false, nil
		}
		e.Kind, e.Job, e.At.Namespace = router.NomadStopped, p.Job.ID, p.Job.Namespace
		// A job that is stopped is changed; one that is purged is reported as it was last.
		if e.Text = "stopped"; p.Deleted || p.Job.ModifyIndex < s.Index {
			e.Text = "purged"
		}
	case "Evaluation":
		if p.Evaluation.Status != "blocked" {
			return e, false, nil
		}
		e.Kind, e.Job, e.At.Namespace, e.Time = router.NomadWaits, p.Evaluation.JobID, p.Evaluation.Namespace, moment(p.Evaluation.ModifyTime)
	case "Allocation":
		a := &p.Allocation
		if a.PreemptedByAllocation != "" {
			if len(preempted) >= maxPreempted {
				clear(preempted)
			}
			preempted[a.JobID] = a.ID
		}
		if e, ok = a.event(); !ok {
			return e, false, nil // about to be stopped
		}
		if first := preempted[a.JobID]; first != "" && first != a.ID {
			e.Again = true
		}
	}
	return e, runnerOf(e.Job) != "", nil
}

// An allocation has what is read of one.
type allocation struct {
	ID, JobID, Namespace, NodeName    string
	ClientStatus, ClientDescription   string
	DesiredStatus, DesiredDescription string
	PreviousAllocation                string
	PreemptedByAllocation             string
	DesiredTransition                 struct{ Migrate, NoShutdownDelay *bool }
	ModifyTime                        int64
	TaskStates                        map[string]struct {
		Failed bool
		Events []struct {
			Type, DisplayMessage string
			Time                 int64
			Details              map[string]string
		}
	}
}

// event returns what the state of an allocation means for its runner; false when nothing.
func (a *allocation) event() (e router.NomadEvent, ok bool) {
	e.Job, e.At.Namespace, e.Node, e.Time, e.Again = a.JobID, a.Namespace, a.NodeName, moment(a.ModifyTime), a.PreviousAllocation != ""
	switch a.ClientStatus {
	case "pending":
		e.Kind, ok = router.NomadPlaced, a.DesiredStatus == "run"
	case "running":
		e.Kind, ok = router.NomadStarted, a.DesiredStatus == "run"
	case "complete", "failed", "lost":
		e.Kind, ok = router.NomadEnded, true
		if e.End, e.Text = a.end(); e.End == router.EndFailed {
			e.Code = a.exitCode()
		}
		e.Loss = a.loss()
	case "unknown":
		e.Kind, e.Loss, ok = router.NomadUnknown, router.LossNode, true
	}
	return e, ok
}

// progress has the task events that do not say why a task ended.
var progress = []string{
	"Received", "Task Setup", "Building Task Directory", "Downloading Artifacts", "Driver", "Started", "Running", "Killed", "Not Restarting",
	"Restarting", "Restart Signaled", "Signaling", "Sibling Task Failed", "Leader Task Dead", "Main Tasks Dead", "Task hook message",
	"Waiting for shutdown delay", "Skipping shutdown delay", "Reconnected",
}

// end returns how an allocation ended, and a sentence that says so and why.
func (a *allocation) end() (end router.NomadEnd, text string) {
	end, why := router.NomadEnd(a.ClientStatus), a.ClientDescription
	switch {
	case a.DesiredStatus != "run" && end == router.EndLost: // its node is down
		why = a.DesiredDescription
	case a.DesiredStatus != "run" && a.DesiredDescription != "": // it did not end by itself
		end, why = router.EndKilled, a.DesiredDescription
		if why == migrated && a.loss() == "" {
			why = fmt.Sprintf("somebody stopped its allocation (%s)", why)
		} else if meaning, ok := killedBy[why]; ok {
			why = fmt.Sprintf("%s (%s)", meaning, why)
		}
	case why == "" || why == "Failed tasks" || why == "All tasks have completed":
		why = a.lastWords()
	}
	if why == "" {
		return end, string(end)
	}
	return end, string(end) + ": " + Printable(Line(why), maxEnd)
}

// loss returns why an allocation was lost through nobody's fault. Both a drain and nomad
// alloc stop migrate an allocation, but only the latter says whether to skip the delay of
// its shutdown (2.0.5, tried 2026-11-30).
func (a *allocation) loss() router.Loss {
	switch t := a.DesiredTransition; {
	case a.ClientStatus == "lost", a.DesiredDescription == lostWithNode: // whose node may be back since
		return router.LossNode
	case a.PreemptedByAllocation != "":
		return router.LossPreempted
	case t.Migrate != nil && *t.Migrate && t.NoShutdownDelay == nil:
		return router.LossDrained
	}
	return ""
}

const (
	migrated     = "alloc is being migrated"
	lostWithNode = "alloc is lost since its node is down"
)

// killedBy says what Nomad's words mean for an allocation that it stops
// (scheduler/reconciler and scheduler/util.go, v2.0.6-dev).
var killedBy = map[string]string{
	migrated:                                   "its node is drained",
	"alloc not needed due to job update":       "its Nomad job was stopped",
	"alloc is being updated due to job update": "its Nomad job was registered again",
}

// exitCode returns the exit code of the task that failed last.
func (a *allocation) exitCode() (code int) {
	var last int64
	for _, task := range a.TaskStates {
		for _, e := range task.Events {
			if n, err := strconv.Atoi(e.Details["exit_code"]); err == nil && task.Failed && e.Type == "Terminated" && e.Time >= last {
				last, code = e.Time, n
			}
		}
	}
	return code
}

// lastWords returns Nomad's last event about the end of a task, of a failed one if there
// is one.
func (a *allocation) lastWords() (words string) {
	failed := false
	for _, task := range a.TaskStates {
		failed = failed || task.Failed
	}
	var last int64
	for name, task := range a.TaskStates {
		for _, e := range task.Events {
			interrupt := e.Type == "Killing" && strings.HasPrefix(e.DisplayMessage, "Sent interrupt")
			if task.Failed != failed || e.Time < last || e.DisplayMessage == "" || interrupt || slices.Contains(progress, e.Type) {
				continue
			}
			last, words = e.Time, e.DisplayMessage
			if e.Details["oom_killed"] == "true" {
				words = "out of memory: " + words
			}
			if len(a.TaskStates) > 1 {
				words = "task " + name + ": " + words
			}
		}
	}
	return words
}

// Allocation implements router.Nomad. It needs read-job, and node read for the
// address.
func (c *Client) Allocation(ctx context.Context, r router.Runner) (router.Allocation, error) {
	at := Scope(r.NomadAt)
	list, _, err := c.api.Jobs().Allocations(r.NomadJob, false, at.Read(ctx))
	if err != nil {
		return router.Allocation{}, c.Classify(ctx, ReadJob(r.NomadJob, at), err)
	}
	if len(list) == 0 { // as of a job that is not there
		return router.Allocation{}, router.ErrNotFound
	}
	newest := slices.MaxFunc(list, func(a, b *api.AllocationListStub) int { return cmp.Compare(a.CreateIndex, b.CreateIndex) })
	a := router.Allocation{
		ID: newest.ID, Status: newest.ClientStatus, Desired: newest.DesiredStatus,
		Node: newest.NodeName, NodeID: newest.NodeID, Created: moment(newest.CreateTime),
	}
	node, _, err := c.api.Nodes().Info(newest.NodeID, Scope{Region: at.Region}.Read(ctx))
	switch Status(err) {
	case http.StatusOK:
		a.NodeAddr = node.Attributes["unique.network.ip-address"]
		switch {
		case node.Status != api.NodeStatusReady:
			a.NodeOut = node.Status
		case node.Drain || node.DrainStrategy != nil:
			a.NodeOut = "draining"
		case node.SchedulingEligibility == api.NodeSchedulingIneligible:
			a.NodeOut = "ineligible"
		}
	case http.StatusForbidden, http.StatusNotFound: // the token may not read it, or it is gone
	default:
		return router.Allocation{}, c.Classify(ctx, Call{What: "read node " + newest.NodeName, At: Scope{Region: at.Region}, Capability: NodeRead}, err)
	}
	return a, nil
}

// End implements router.Nomad. It needs read-job.
func (c *Client) End(ctx context.Context, r router.Runner) (router.NomadEvent, error) {
	at := Scope(r.NomadAt)
	list, _, err := c.api.Jobs().Allocations(r.NomadJob, false, at.Read(ctx))
	if err != nil {
		return router.NomadEvent{}, c.Classify(ctx, ReadJob(r.NomadJob, at), err)
	}
	if len(list) == 0 {
		return router.NomadEvent{}, router.ErrNotFound
	}
	first := slices.MinFunc(list, func(a, b *api.AllocationListStub) int { return cmp.Compare(a.CreateIndex, b.CreateIndex) })
	read := Call{What: "read the allocation of " + r.NomadJob, At: at, Capability: "read-job"}
	body, err := c.api.Raw().Response("/v1/allocation/"+first.ID, at.Read(ctx))
	if Status(err) == http.StatusNotFound {
		return router.NomadEvent{}, router.ErrNotFound
	}
	if err != nil {
		return router.NomadEvent{}, c.Classify(ctx, read, err)
	}
	defer body.Close()
	var a allocation
	if err := json.NewDecoder(&bounded{from: body, left: maxStub}).Decode(&a); err != nil {
		return router.NomadEvent{}, fmt.Errorf("%s: read Nomad's answer: %w", read, unfinished(err))
	}
	e, _ := a.event()
	if e.Kind != router.NomadEnded {
		return router.NomadEvent{}, router.ErrNotFound
	}
	e.At = r.NomadAt
	return e, nil
}
