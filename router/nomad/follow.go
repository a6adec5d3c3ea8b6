package nomad

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
)

// ours is what the ID of every runner's Nomad job has in it, dispatched ones
// included.
const ours = "gha-"

// runnerOf is the ID of the runner whose Nomad job has this ID: the ID itself,
// or, as of "parent/dispatch-gha-1-1-1700000000-0123abcd", what the dispatch
// was named after; "" when it is none of ours.
func runnerOf(nomadJob string) string {
	id := nomadJob
	if _, child, ok := strings.Cut(id, "/dispatch-"); ok {
		id = child
	}
	parts := strings.Split(id, "-")
	if len(parts) < 3 || parts[0] != "gha" || len(parts) > 3 && id == nomadJob {
		return ""
	}
	for _, digits := range parts[1:3] {
		if n, err := strconv.ParseInt(digits, 10, 64); err != nil || n <= 0 || digits[0] == '+' {
			return ""
		}
	}
	return strings.Join(parts[:3], "-")
}

// Stop implements router.Nomad. It needs submit-job.
func (c *Client) Stop(ctx context.Context, r router.Runner) error {
	if r.NomadJob == "" {
		return fmt.Errorf("runner %s is not registered", r.ID)
	}
	at := scope(r.NomadAt)
	_, _, err := c.api.Jobs().DeregisterOpts(r.NomadJob, &api.DeregisterOptions{}, at.write(ctx))
	if status(err) == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return call{what: "stop job " + r.NomadJob, at: at, capability: "submit-job"}.sorted(err)
	}
	return nil
}

// Jobs implements router.Nomad. It lists all namespaces that the token has
// list-jobs on.
func (c *Client) Jobs(ctx context.Context) ([]router.NomadJob, uint64, error) {
	at := scope{Namespace: api.AllNamespacesNamespace}
	q := at.read(ctx)
	q.Filter = fmt.Sprintf("ID matches %q", `(^|/dispatch-)gha-`)
	q.Params = map[string]string{"meta": "true"}
	list, meta, err := c.api.Jobs().List(q)
	if err != nil {
		return nil, 0, call{what: "list jobs", at: at, capability: "list-jobs"}.sorted(err)
	}
	var jobs []router.NomadJob
	for _, stub := range list {
		runner := runnerOf(stub.ID)
		if runner == "" {
			continue
		}
		j := router.NomadJob{
			ID: stub.ID, RunnerID: runner, At: router.NomadAt{Namespace: stub.Namespace},
			Status: stub.Status, Stopped: stub.Stop, Submitted: time.Unix(0, stub.SubmitTime),
			Repo: stub.Meta[metaRepository],
		}
		j.JobID, _ = strconv.ParseInt(stub.Meta[metaJobID], 10, 64)
		j.RunID, _ = strconv.ParseInt(stub.Meta[metaRunID], 10, 64)
		j.Attempt, _ = strconv.Atoi(stub.Meta[metaRunAttempt])
		if stub.JobSummary != nil {
			for _, group := range stub.JobSummary.Summary {
				j.Waiting = j.Waiting || stub.Status == "pending" && group.Queued > 0
			}
		}
		jobs = append(jobs, j)
	}
	return jobs, meta.LastIndex, nil
}

// Follow implements router.Nomad. Nomad answers a token that may not read with
// silence, so Jobs is what tells a missing capability.
func (c *Client) Follow(ctx context.Context, index uint64, each func(router.NomadEvent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	at := scope{Namespace: api.AllNamespacesNamespace}
	follow := call{what: "follow events", at: at, capability: "read-job"}
	topics := map[api.Topic][]string{api.TopicJob: {"*"}, api.TopicAllocation: {"*"}, api.TopicEvaluation: {"*"}}
	stream, err := c.api.EventStream().Stream(ctx, topics, index, at.read(ctx))
	if err != nil {
		return follow.sorted(err)
	}
	for batch := range stream {
		if batch.Err != nil {
			return follow.sorted(batch.Err)
		}
		for _, e := range batch.Events {
			event, ok, err := eventOf(e)
			if err != nil {
				return fmt.Errorf("%s: %w", follow, err)
			}
			if ok {
				if err := each(event); err != nil {
					return err
				}
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", follow, errors.New("Nomad ended the stream"))
}

// eventOf is what an event means for a runner; false when nothing.
func eventOf(e api.Event) (event router.NomadEvent, ok bool, err error) {
	event.Index = e.Index
	switch e.Topic {
	case api.TopicJob:
		if runnerOf(e.Key) == "" {
			return event, false, nil
		}
		j, err := e.Job()
		if err != nil || j == nil {
			return event, false, err
		}
		event.Job, event.At, event.Kind = *j.ID, router.NomadAt{Namespace: *j.Namespace}, router.NomadStopped
		return event, e.Type == "JobDeregistered", nil
	case api.TopicEvaluation:
		v, err := e.Evaluation()
		if err != nil || v == nil || runnerOf(v.JobID) == "" {
			return event, false, err
		}
		event.Job, event.At, event.Kind = v.JobID, router.NomadAt{Namespace: v.Namespace}, router.NomadWaits
		event.Time = time.Unix(0, v.ModifyTime)
		return event, v.Status == "complete" && len(v.FailedTGAllocs) > 0, nil
	case api.TopicAllocation:
		a, err := e.Allocation()
		if err != nil || a == nil || runnerOf(a.JobID) == "" {
			return event, false, err
		}
		event.Job, event.At, event.Node = a.JobID, router.NomadAt{Namespace: a.Namespace}, a.NodeName
		event.Time = time.Unix(0, a.ModifyTime)
		switch a.ClientStatus {
		case api.AllocClientStatusPending:
			event.Kind = router.NomadPlaced
		case api.AllocClientStatusRunning:
			event.Kind = router.NomadStarted
		case api.AllocClientStatusUnknown:
			return event, false, nil // its node is out of touch
		default:
			event.Kind, event.Text = router.NomadEnded, endOf(a)
		}
		return event, true, nil
	}
	return event, false, nil
}

// endOf says how an allocation ended: the words of the last event of its tasks.
func endOf(a *api.Allocation) string {
	text := a.ClientStatus
	var last int64
	for _, state := range a.TaskStates {
		for _, e := range state.Events {
			if e.Time >= last && e.DisplayMessage != "" && (e.FailsTask || e.Type == api.TaskTerminated) {
				last, text = e.Time, a.ClientStatus+": "+line(e.DisplayMessage)
			}
		}
	}
	return text
}

// Allocation implements router.Nomad. It needs read-job, and node read for the address.
func (c *Client) Allocation(ctx context.Context, r router.Runner) (router.Allocation, error) {
	at := scope(r.NomadAt)
	read := readJob(r.NomadJob, at)
	list, _, err := c.api.Jobs().Allocations(r.NomadJob, true, at.read(ctx))
	if status(err) == http.StatusNotFound || err == nil && len(list) == 0 {
		return router.Allocation{}, router.ErrNotFound
	}
	if err != nil {
		return router.Allocation{}, read.sorted(err)
	}
	newest := list[0]
	for _, a := range list[1:] {
		if a.CreateIndex > newest.CreateIndex {
			newest = a
		}
	}
	a := router.Allocation{
		ID: newest.ID, Status: newest.ClientStatus, Desired: newest.DesiredStatus,
		Node: newest.NodeName, NodeID: newest.NodeID, Created: time.Unix(0, newest.CreateTime),
	}
	node, _, err := c.api.Nodes().Info(newest.NodeID, scope{Region: at.Region}.read(ctx))
	if err == nil {
		a.NodeAddr = node.Attributes["unique.network.ip-address"]
	}
	return a, nil
}

// Unplaced implements router.Nomad.
func (c *Client) Unplaced(ctx context.Context, j router.Job, r router.Runner) (*router.Unplaced, error) {
	at := scope(r.NomadAt)
	evals, _, err := c.api.Jobs().Evaluations(r.NomadJob, at.read(ctx))
	if status(err) == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, readJob(r.NomadJob, at).sorted(err)
	}
	for _, e := range evals {
		if e.Status != "blocked" {
			continue
		}
		for _, m := range e.FailedTGAllocs {
			return &router.Unplaced{
				At: time.Unix(0, e.ModifyTime), Evaluated: m.NodesEvaluated, InPool: m.NodesInPool,
				Text: fmt.Sprintf("no node has room for it: Nomad looked at %d", m.NodesEvaluated),
			}, nil
		}
	}
	return nil, nil
}
