package nomad

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
)

const (
	runnerMark = "switchyard" // task meta that marks the runner task, with the value "runner"
	maxName    = 100          // characters of the job's name for people
)

// Render lays a placement over its jobspec and returns the Nomad job that Start would
// register. It asks Nomad only to parse a jobspec that comes without its parsed form,
// once. The caller owns the job, except for the values of Placement.Task.Config, which
// it shares. Errors are classified as for Start.
func (c *Client) Render(ctx context.Context, r router.StartRequest) (*api.Job, error) {
	p := r.Placement
	if p.Dispatch != "" {
		return nil, fmt.Errorf("rule %s dispatches the Nomad job %s as it is: there is nothing to render", r.Rule, p.Dispatch)
	}
	var job api.Job // decoded afresh, so that no two jobs share anything
	spec, err := c.decode(ctx, p, &job)
	if err != nil {
		return nil, err
	}
	group, task, err := runnerTask(&job)
	if err != nil {
		return nil, &router.FixError{
			Fix: `leave one group, and mark one of its tasks with meta { switchyard = "runner" } if it has several`,
			Err: &router.JobspecError{Err: fmt.Errorf("jobspec %s: %w", spec.Path, err)},
		}
	}
	overlayJob(&job, r)
	overlayGroup(group, r)
	overlayTask(task, r)
	job.Namespace = c.namespaceOf(p, job.Namespace)
	if region := c.regionOf(ctx, p, job.Region); region != "" {
		job.Region = &region
	} else {
		job.Region = nil // Nomad fills it in
	}
	meta := jobMeta(r)
	job.Meta = merged(job.Meta, meta)
	for key := range meta {
		delete(group.Meta, key) // meta nearer to the task would hide the job's
		delete(task.Meta, key)
	}
	return &job, nil
}

// decode decodes the parsed jobspec of a placement into job.
func (c *Client) decode(ctx context.Context, p router.Placement, job any) (jobspecs.Jobspec, error) {
	spec, ok := c.jobspecs.Load().Get(p.Jobspec)
	if !ok {
		return spec, &router.FixError{
			Fix: "add it to the jobspecs, or correct the rule",
			Err: &router.JobspecError{Err: fmt.Errorf("there is no jobspec %q", p.Jobspec)},
		}
	}
	parsed, err := c.parse(ctx, spec, cmp.Or(p.Namespace, c.namespace))
	if err != nil {
		return spec, err
	}
	if err := json.Unmarshal(parsed, job); err != nil {
		return spec, &router.FixError{Fix: "correct the file", Err: &router.JobspecError{Err: fmt.Errorf("jobspec %s is not a Nomad job: %w", spec.Path, err)}}
	}
	return spec, nil
}

// namespaceOf returns the namespace of the runners of a placement whose jobspec names one,
// or "" or nil.
func (c *Client) namespaceOf(p router.Placement, named *string) *string {
	if p.Namespace == "" && named != nil && *named != "" {
		return named
	}
	namespace := cmp.Or(p.Namespace, c.namespace)
	return &namespace
}

// runnerTask returns the group and the one task that runs the runner.
func runnerTask(job *api.Job) (*api.TaskGroup, *api.Task, error) {
	if len(job.TaskGroups) != 1 || job.TaskGroups[0] == nil {
		return nil, nil, fmt.Errorf("it has %d groups, want 1", len(job.TaskGroups))
	}
	group := job.TaskGroups[0]
	if len(group.Tasks) == 1 {
		return group, group.Tasks[0], nil
	}
	var found *api.Task
	for _, task := range group.Tasks {
		if task.Meta[runnerMark] != "runner" {
			continue
		}
		if found != nil {
			return nil, nil, errors.New("two tasks are marked as the runner")
		}
		found = task
	}
	if found == nil {
		return nil, nil, fmt.Errorf("it has %d tasks, and none is marked as the runner", len(group.Tasks))
	}
	return group, found, nil
}

func overlayJob(job *api.Job, r router.StartRequest) {
	p := r.Placement
	job.ID = new(r.Runner.ID)
	job.Name = new(jobName(r))
	job.Type = new(api.JobTypeBatch)
	// A batch job runs once; what makes another kind of job of it goes, and so
	// does the state that `nomad job inspect` prints.
	job.Periodic, job.ParameterizedJob, job.Multiregion = nil, nil, nil
	job.Update, job.Migrate, job.Reschedule = nil, nil, nil
	job.Stop, job.ParentID, job.Dispatched, job.DispatchIdempotencyToken, job.Payload = nil, nil, false, nil, nil

	for _, c := range constraints(p.Constraints) {
		if !slices.ContainsFunc(job.Constraints, func(own *api.Constraint) bool { return *own == *c }) {
			job.Constraints = append(job.Constraints, c)
		}
	}
	for _, a := range p.Affinities {
		job.Affinities = append(job.Affinities, api.NewAffinity(a.Attribute, a.Operator, a.Value, int8(a.Weight)))
	}
	if p.NodePool != "" {
		job.NodePool = new(p.NodePool)
	}
	if len(p.Datacenters) > 0 {
		job.Datacenters = slices.Clone(p.Datacenters)
	}
	if p.Priority != 0 {
		job.Priority = new(p.Priority)
	}
	if page, ok := jobPage(r.Job); ok {
		job.UI = cmp.Or(job.UI, &api.JobUIConfig{})
		job.UI.Links = append(job.UI.Links, &api.JobUILink{Label: "GitHub job", URL: page.String()})
	}
}

// overlayGroup lets the group start only once: a runner's configuration is good for
// one use.
func overlayGroup(group *api.TaskGroup, r router.StartRequest) {
	group.Count = new(1)
	group.RestartPolicy = &api.RestartPolicy{Attempts: new(0), Mode: new("fail")}
	group.ReschedulePolicy = &api.ReschedulePolicy{Attempts: new(0), Unlimited: new(false)}
	group.Update, group.Migrate, group.Scaling = nil, nil, nil
	if disk := r.Placement.Resources.DiskMB; disk != 0 {
		group.EphemeralDisk = cmp.Or(group.EphemeralDisk, &api.EphemeralDisk{})
		group.EphemeralDisk.SizeMB = new(disk)
	}
}

func overlayTask(task *api.Task, r router.StartRequest) {
	p := r.Placement
	task.RestartPolicy = nil // it would win over the group's
	task.Resources = cmp.Or(task.Resources, &api.Resources{})
	have := task.Resources
	switch { // Nomad takes one of the two
	case p.Resources.Cores != 0:
		have.Cores, have.CPU = new(p.Resources.Cores), nil
	case p.Resources.CPU != 0:
		have.CPU, have.Cores = new(p.Resources.CPU), nil
	}
	if p.Resources.MemoryMB != 0 {
		have.MemoryMB = new(p.Resources.MemoryMB)
		if own := have.MemoryMaxMB; own != nil && *own > 0 && *own < p.Resources.MemoryMB {
			have.MemoryMaxMB = new(p.Resources.MemoryMB) // Nomad refuses a limit below the reservation
		}
	}
	if p.Resources.MemoryMaxMB != 0 {
		have.MemoryMaxMB = new(p.Resources.MemoryMaxMB)
	}
	for _, d := range p.Devices {
		i := slices.IndexFunc(have.Devices, func(own *api.RequestedDevice) bool { return own.Name == d.Name })
		if i < 0 {
			i = len(have.Devices)
			have.Devices = append(have.Devices, &api.RequestedDevice{Name: d.Name})
		}
		have.Devices[i].Count = new(uint64(d.Count))
		have.Devices[i].Constraints = append(have.Devices[i].Constraints, constraints(d.Constraints)...)
	}
	task.Env = merged(task.Env, p.Task.Env)
	task.Config = merged(task.Config, p.Task.Config)
}

// merged adds entries to m, which may be nil.
func merged[V any](m, more map[string]V) map[string]V {
	if m == nil && len(more) > 0 {
		m = map[string]V{}
	}
	maps.Copy(m, more)
	return m
}

func constraints(list []router.Constraint) []*api.Constraint {
	var all []*api.Constraint
	for _, c := range list {
		all = append(all, api.NewConstraint(c.Attribute, c.Operator, c.Value))
	}
	return all
}
