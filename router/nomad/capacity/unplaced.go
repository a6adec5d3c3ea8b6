package capacity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomad"
)

const (
	maxWhy = 1000 // characters of the sentence that says why a runner has no node

	// pendingAfter is how long an evaluation may wait before that is reported. Nomad
	// usually takes milliseconds.
	pendingAfter = 2 * time.Second
)

// Unplaced implements router.Nomad. It asks for a plan of the job as it is
// registered, so that the answer is current and counts each node: the blocked
// evaluation has counted nodes that are like an earlier one as "computed class
// ineligible". It needs read-job and submit-job, and node read for Never.
func (c *Client) Unplaced(ctx context.Context, j router.Job, r router.Runner) (*router.Unplaced, error) {
	var route Route
	if j.Decision != nil {
		route = Route{Rule: j.Decision.Rule, Placement: j.Placement(j.Decision)}
	}
	id, at := r.NomadJob, nomad.Scope(r.NomadAt)
	if id == "" { // Nomad has the job, and the database does not say so yet
		id, at = r.ID, nomad.Scope{Namespace: cmp.Or(route.Placement.Namespace, c.Namespace()), Region: c.Region(route.Placement)}
	}
	evals, _, err := c.API().Jobs().Evaluations(id, at.Read(ctx))
	switch {
	case nomad.Status(err) == http.StatusNotFound:
		return nil, nil
	case err != nil:
		return nil, c.Classify(ctx, nomad.Call{What: "read evaluations of job " + id, At: at, Capability: "read-job"}, err)
	}
	if !slices.ContainsFunc(evals, func(e *api.Evaluation) bool { return e.Status == "blocked" }) {
		late := func(e *api.Evaluation) bool {
			return e.Status == "pending" && time.Since(time.Unix(0, e.CreateTime)) > pendingAfter
		}
		if i := slices.IndexFunc(evals, late); i >= 0 {
			return &router.Unplaced{At: time.Unix(0, evals[i].CreateTime), Text: c.whyPending(ctx, at), Pending: true}, nil
		}
		return nil, nil
	}
	job, _, err := c.API().Jobs().Info(id, at.Read(ctx))
	switch {
	case nomad.Status(err) == http.StatusNotFound:
		return nil, nil
	case err != nil:
		return nil, c.Classify(ctx, nomad.ReadJob(id, at), err)
	}
	job.ID, job.ParentID, job.ParameterizedJob, job.Dispatched = new(surveyID), nil, nil, false
	job.Version, job.CreateIndex, job.JobModifyIndex, job.Stop = nil, nil, nil, nil
	if at.Region == "" {
		job.Region = nil // it is in the client's own, whose name Nomad has filled in
	}
	apart(job)

	s := &survey{Client: c, regions: map[string]*region{}}
	in, err := s.region(ctx, at.Region) // before the plan, whose answer is kept while these are the nodes
	if err != nil && !errors.As(err, new(*router.FixError)) {
		return nil, err
	}
	asked := question(j, job)
	if u := in.knownNever(asked); u != nil {
		return u, nil
	}
	plan, problems, err := s.plan(ctx, route, job)
	if err != nil {
		return nil, err
	}
	u := &router.Unplaced{At: time.Now(), Pool: nomad.Printable(poolOf(job), router.MaxText), Filtered: []router.Shortage{}, Exhausted: []router.Shortage{}}
	if problems != nil { // its node pool or namespace is gone
		u.Never, u.Text = true, nomad.Printable(problems[0].say(route), maxWhy)
		return u, nil
	}
	for group, m := range failed(job, plan) {
		u.InPool, u.Evaluated = m.NodesInPool, m.NodesEvaluated
		short := &shortage{demand: demandOf(job, group), filtered: m.ConstraintFiltered}
		u.Filtered = shortages(m.ConstraintFiltered, func(what string) string { return short.from(route, what) })
		u.Exhausted = shortages(m.DimensionExhausted, func(what string) string { return sizeFrom(route, group, what) })
		u.Text = nomad.Printable(short.busy(route, u), maxWhy)
		if in != nil {
			never := slices.DeleteFunc(in.unknownDatacenters(job), func(p problem) bool { return p.warning })
			more, err := s.unplaced(ctx, route, in, job, group, m)
			if err != nil {
				return nil, err
			}
			if never = append(never, more...); len(never) > 0 {
				u.Never, u.Away, u.Text = true, never[0].away, nomad.Printable(never[0].say(route), maxWhy)
				if !never[0].again {
					in.keepNever(asked, u)
				}
			}
		}
		return u, nil
	}
	return nil, nil // there is room for it now
}

// knownNever returns why a job that asks the same can never have one of the nodes; nil when
// that is not known. What they run has no part in it. r is nil when the nodes are unknown.
func (r *region) knownNever(question [sha256.Size]byte) *router.Unplaced {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.never[question]
	if known == nil {
		return nil
	}
	u := *known
	u.At = time.Now()
	return &u
}

func (r *region) keepNever(question [sha256.Size]byte, u *router.Unplaced) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.never) >= maxNever {
		clear(r.never)
	}
	r.never[question] = u
}

// question returns the same hash for jobs that ask the same of nodes, and whose rules say so in
// the same words.
func question(j router.Job, job *api.Job) [sha256.Size]byte {
	one := *job
	one.Name, one.Meta, one.Payload, one.Status, one.SubmitTime, one.ModifyIndex, one.DispatchIdempotencyToken = nil, nil, nil, nil, nil, nil, nil
	one.TaskGroups = slices.Clone(one.TaskGroups)
	for i, g := range one.TaskGroups {
		group := *g
		group.Meta, group.Tasks = nil, slices.Clone(g.Tasks)
		for k, t := range group.Tasks {
			task := *t
			task.Config, task.Env, task.Meta, task.Artifacts, task.Templates = nil, nil, nil, nil, nil
			group.Tasks[k] = &task
		}
		one.TaskGroups[i] = &group
	}
	text, err := json.Marshal(one)
	if err != nil {
		panic(err) // it came as JSON
	}
	if j.Decision != nil {
		text = append(text, j.Demand(j.Decision)...)
	}
	return sha256.Sum256(text)
}

// whyPending says why Nomad does not process evaluations, as far as the token may know:
// that needs operator read.
func (c *Client) whyPending(ctx context.Context, at nomad.Scope) string {
	config, _, err := c.API().Operator().SchedulerGetConfiguration(nomad.Scope{Region: at.Region}.Read(ctx))
	switch {
	case err != nil || config.SchedulerConfig == nil:
		return "its servers are busy, or its evaluation broker is paused (nomad operator scheduler get-config)"
	case config.SchedulerConfig.PauseEvalBroker:
		return "its evaluation broker is paused (nomad operator scheduler set-config -pause-eval-broker=false resumes it)"
	}
	return "its servers are too busy to evaluate jobs"
}

// apart makes Nomad count each node by itself in a plan. A constraint that always
// holds, but is about what is unique to a node, keeps Nomad from counting nodes that are
// like an earlier one as "computed class ineligible" (scheduler/feasible, v2.0.6-dev,
// read 2026-11-24), which says nothing, and is wrong for nodes with more devices.
func apart(job *api.Job) {
	job.Constrain(api.NewConstraint(nodeID, "is_set", ""))
	for _, g := range job.TaskGroups {
		g.Constrain(api.NewConstraint(nodeID, "is_set", ""))
	}
}

// shortages returns what Nomad counted, most nodes first.
func shortages(counts map[string]int, from func(what string) string) []router.Shortage {
	list := []router.Shortage{}
	for _, what := range byCount(counts) {
		list = append(list, router.Shortage{What: nomad.Line(what), From: nomad.Printable(from(what), router.MaxText), Nodes: counts[what]})
	}
	return list
}

// from returns the origin of what filtered nodes; "" when it is not known.
func (s *shortage) from(r Route, what string) string {
	switch what {
	case "missing drivers":
		return r.source()
	case "missing devices":
		return devicesFrom(r, s.group)
	}
	return s.origins(r, what)
}

// sizeFrom returns the origin of a size, which is in Nomad's words; "" when it is not known.
func sizeFrom(r Route, g *api.TaskGroup, what string) string {
	path := map[string]string{"cpu": "resources.cpu", "cores": "resources.cores", "memory": "resources.memory_mb", "disk": "resources.disk_mb"}[what]
	switch {
	case path != "":
		return cmp.Or(r.Placement.From[path], r.source())
	case strings.HasPrefix(what, "devices"):
		return devicesFrom(r, g)
	}
	return ""
}

func devicesFrom(r Route, g *api.TaskGroup) string {
	var all []string
	for _, d := range devicesOf(g) {
		if origin := strings.Trim(r.deviceFrom(d.Name), " ()"); !slices.Contains(all, origin) {
			all = append(all, origin)
		}
	}
	return strings.Join(all, ", ")
}

// busy says why a runner has no node that could run it if some nodes were not full.
func (s *shortage) busy(r Route, u *router.Unplaced) string {
	parts := s.filters(r)
	if full, what := 0, []string{}; len(u.Exhausted) > 0 {
		for _, e := range u.Exhausted {
			full += e.Nodes
			what = append(what, strings.TrimSuffix(e.What, ": no devices match request"))
		}
		parts = append(parts, fmt.Sprintf("%d %s full: %s", full, verb(full, "is", "are"), strings.Join(what, ", ")))
	}
	if parts == nil {
		parts = []string{"none is in service"}
	}
	return fmt.Sprintf("%s%s: %s", router.Count(u.Evaluated, "node"), strings.ReplaceAll(poolName(s.job), `"`, ""), strings.Join(parts, "; "))
}
