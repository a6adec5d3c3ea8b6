package nomadsim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/hashicorp/nomad/api"

	"switchyard/router/feasible"
)

const maxArtifact = 16 << 20 // bytes

func newID() string { return uuid.NewString() }

// An alloc is an allocation, guarded by cluster.mu.
type alloc struct {
	*api.Allocation // replaced when it changes
	node            *node
	use             feasible.Amount
	lost            bool               // its node went down: its client no longer reports it
	cancel          context.CancelFunc // stops its tasks
}

// live reports whether an allocation runs or will run, and is wanted.
func (a *alloc) live() bool {
	return a.DesiredStatus == "run" && (a.ClientStatus == "pending" || a.ClientStatus == "running")
}

// place creates and starts an allocation on the chosen node. It replaces previous unless
// that is "".
func (c change) place(j *job, p placement, e *api.Evaluation, previous string) {
	nth := 0
	for _, a := range j.allocs {
		if a.TaskGroup == *p.group.Name && a.live() {
			nth++
		}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	a := &alloc{node: p.node, use: p.use, cancel: cancel, Allocation: &api.Allocation{
		ID: newID(), EvalID: e.ID, Namespace: *j.Namespace, Name: fmt.Sprintf("%s.%s[%d]", *j.ID, *p.group.Name, nth),
		NodeID: p.node.ID, NodeName: p.node.Name, JobID: *j.ID, Job: j.Job, TaskGroup: *p.group.Name, Metrics: p.metrics,
		DesiredStatus: "run", ClientStatus: "pending", CreateIndex: c.index, CreateTime: c.now, PreviousAllocation: previous,
	}}
	c.allocs[a.ID] = a
	j.allocs = append(j.allocs, a)
	c.update(a, func(*api.Allocation) {})
	s := c.cluster
	s.wg.Go(func() {
		defer cancel()
		s.run(ctx, j, p.group, a)
	})
}

// update replaces an allocation by a changed copy.
func (c change) update(a *alloc, to func(*api.Allocation)) {
	changed := *a.Allocation
	to(&changed)
	changed.ModifyIndex, changed.ModifyTime = c.index, c.now
	a.Allocation = &changed
	if c.allocs[a.ID] != a {
		return // it was purged
	}
	shown := changed
	shown.Job = nil // as Nomad's events do
	c.publish(event{topic: "Allocation", key: a.ID, namespace: a.Namespace, filters: []string{a.JobID, ""}, payload: map[string]any{"Allocation": &shown}})
}

// report records what a client reports about an allocation. The caller must not change
// states afterwards.
func (s *cluster) report(j *job, a *alloc, status, description string, states map[string]*api.TaskState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.lost {
		c := s.change("AllocationUpdated")
		s.ofNodes = c.index // and no node's own: it notes when each last reported (UpdateAllocsFromClient in nomad/state, v1.8.0 and v2.0.5, read 2026-11-30)
		c.update(a, func(a *api.Allocation) {
			a.ClientStatus, a.ClientDescription, a.TaskStates = status, description, states
		})
		c.settle(j)
	}
	if status != "pending" && status != "running" {
		a.node.left = a.node.left.Plus(1, a.use)
		s.freed(a.node)
	}
}

// run runs an allocation to its end. Like Nomad's client it reports in batches, when all
// tasks have changed.
func (s *cluster) run(ctx context.Context, j *job, g *api.TaskGroup, a *alloc) {
	tasks := make([]*task, len(g.Tasks))
	each := func(do func(*task)) {
		var wg sync.WaitGroup
		for _, t := range tasks {
			wg.Go(func() { do(t) })
		}
		wg.Wait()
	}
	report := func() {
		states, failed, running, ended := map[string]*api.TaskState{}, false, false, true
		for _, t := range tasks {
			states[t.spec.Name] = new(t.state)
			failed = failed || t.state.Failed
			running = running || t.state.State == "running"
			ended = ended && t.state.State == "dead"
		}
		switch {
		case ended && failed:
			s.report(j, a, "failed", "Failed tasks", states)
		case ended:
			s.report(j, a, "complete", "All tasks have completed", states)
		case running:
			s.report(j, a, "running", "Tasks are running", states)
		default:
			s.report(j, a, "pending", "No tasks have started", states)
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.mu.Lock()
	for i, spec := range g.Tasks {
		tasks[i] = newTask(s, a.Job, spec, a)
	}
	s.mu.Unlock()
	report()
	each(func(t *task) { t.prepare(ctx, stop) })
	if slices.ContainsFunc(tasks, func(t *task) bool { return t.state.State == "running" }) {
		report()
	}
	each(func(t *task) { t.run(ctx, stop) })
	report()
}

// A task is a task of an allocation, used by one goroutine at a time.
type task struct {
	Task
	s     *cluster
	spec  *api.Task
	state api.TaskState
}

func newTask(s *cluster, j *api.Job, spec *api.Task, a *alloc) *task {
	t := &task{s: s, spec: spec, state: api.TaskState{State: "pending"}, Task: Task{
		AllocID: a.ID, JobID: a.JobID, Name: spec.Name, Node: a.node.Node, Env: environment(j, spec, a), Artifacts: map[string]string{},
	}}
	t.event("Received", "Task received by client", nil)
	t.event("Task Setup", "Building Task Directory", map[string]string{"message": "Building Task Directory"})
	if len(spec.Artifacts) > 0 {
		t.event("Downloading Artifacts", "Client is downloading artifacts", nil)
	}
	return t
}

func (t *task) event(kind, text string, details map[string]string) {
	t.state.Events = append(slices.Clip(t.state.Events), &api.TaskEvent{
		Type: kind, DisplayMessage: text, Message: details["message"], Details: details, Time: t.s.cfg.Now().UnixNano(),
		DownloadError: details["download_error"],
	})
}

// end makes a task dead. A failed one stops the others of its group.
func (t *task) end(failed bool, stop context.CancelCauseFunc) {
	t.state.State, t.state.Failed, t.state.FinishedAt = "dead", failed, t.s.cfg.Now()
	if failed {
		t.event("Not Restarting", "Policy allows no restarts", map[string]string{"restart_reason": "Policy allows no restarts", "fails_task": "true"})
		stop(siblingError(t.Name))
	}
}

// A siblingError is the cause when a task is stopped because another one failed.
type siblingError string

func (e siblingError) Error() string { return fmt.Sprintf("Task's sibling %q failed", string(e)) }

// prepare fetches a task's artifacts. It is running afterwards, or dead.
func (t *task) prepare(ctx context.Context, stop context.CancelCauseFunc) {
	for _, a := range t.spec.Artifacts {
		body, err := t.fetch(ctx, a)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			text := fmt.Sprintf("failed to download artifact %q: getter subprocess failed: exit status 1: failed to download artifact: %v", *a.GetterSource, err)
			t.event("Failed Artifact Download", text, map[string]string{"download_error": text})
			t.end(true, stop)
			return
		}
		t.Artifacts[*a.RelativeDest] = body
	}
	if ctx.Err() != nil {
		t.killing(ctx)
		t.event("Killed", "Task successfully killed", nil)
		t.end(false, stop)
		return
	}
	if start := t.s.cfg.Start; start != nil {
		if err := start(ctx, t.Task); err != nil && ctx.Err() == nil {
			t.event("Driver Failure", err.Error(), map[string]string{"driver_error": err.Error()})
			t.end(true, stop)
			return
		}
	}
	t.state.State, t.state.StartedAt = "running", t.s.cfg.Now()
	t.event("Started", "Task started by client", nil)
}

// run runs a started task.
func (t *task) run(ctx context.Context, stop context.CancelCauseFunc) {
	if t.state.State != "running" {
		return
	}
	code := t.s.cfg.Run(ctx, t.Task)
	killed := ctx.Err() != nil
	if killed {
		t.killing(ctx)
	}
	t.event("Terminated", fmt.Sprintf("Exit Code: %d", code), map[string]string{"exit_code": fmt.Sprint(code), "signal": "0", "oom_killed": "false"})
	if killed {
		t.event("Killed", "Task successfully killed", nil)
	}
	t.end(code != 0 && !killed, stop)
}

func (t *task) killing(ctx context.Context) {
	if sibling, ok := errors.AsType[siblingError](context.Cause(ctx)); ok {
		t.event("Sibling Task Failed", sibling.Error(), map[string]string{"failed_sibling": string(sibling)})
	}
	t.event("Killing", fmt.Sprintf("Sent interrupt. Waiting %v before force killing", *t.spec.KillTimeout), map[string]string{"kill_timeout": t.spec.KillTimeout.String()})
}

// fetch gets an artifact by one GET.
func (t *task) fetch(ctx context.Context, a *api.TaskArtifact) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.interpolate(*a.GetterSource), nil)
	if err != nil {
		return "", err
	}
	for k, v := range a.GetterHeaders {
		req.Header.Set(k, t.interpolate(v))
	}
	resp, err := t.s.cfg.Client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxArtifact))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("bad response code: %d", resp.StatusCode)
	}
	return string(body), nil
}

// environment returns what Nomad puts into a task's environment, as far as runners
// use it. The directories are relative, as the destinations of artifacts are.
func environment(j *api.Job, t *api.Task, a *alloc) map[string]string {
	env := map[string]string{
		"NOMAD_ALLOC_ID": a.ID, "NOMAD_ALLOC_NAME": a.Name, "NOMAD_JOB_ID": a.JobID, "NOMAD_JOB_NAME": *j.Name, "NOMAD_GROUP_NAME": a.TaskGroup,
		"NOMAD_TASK_NAME": t.Name, "NOMAD_NAMESPACE": a.Namespace, "NOMAD_DC": a.node.Datacenter, "NOMAD_REGION": *j.Region,
		"NOMAD_TASK_DIR": "local", "NOMAD_SECRETS_DIR": "secrets", "NOMAD_ALLOC_DIR": "alloc",
	}
	// Values are interpolated once, with what was set before: env after meta.
	add := func(values map[string]string) {
		known := Task{Node: a.node.Node, Env: maps.Clone(env)}
		for k, v := range values {
			env[k] = known.interpolate(v)
		}
	}
	meta := map[string]string{}
	optional := map[string]string{} // "" unless a dispatch gave it
	if j.Dispatched {
		for _, k := range j.ParameterizedJob.MetaOptional {
			optional[k] = ""
		}
	}
	for _, level := range []map[string]string{optional, j.Meta, j.LookupTaskGroup(a.TaskGroup).Meta, t.Meta} {
		for k, v := range level {
			meta["NOMAD_META_"+k], meta["NOMAD_META_"+strings.ToUpper(k)] = v, v
		}
	}
	add(meta)
	add(t.Env)
	return env
}

// interpolate replaces ${NAME} by the environment's, ${attr.x}, ${meta.x} and
// ${node.x} by the node's. Unknown names stay.
func (t Task) interpolate(s string) string {
	var out strings.Builder
	for {
		before, after, ok := strings.Cut(s, "${")
		out.WriteString(before)
		name, rest, closed := strings.Cut(after, "}")
		if !ok || !closed {
			if ok {
				out.WriteString("${" + after)
			}
			return out.String()
		}
		target := "${" + name + "}"
		v, found := t.Env[name]
		if !found {
			v, found = feasible.Target(t.Node, target)
		}
		if !found {
			v = target
		}
		out.WriteString(v)
		s = rest
	}
}

func allocStub(a *alloc) *api.AllocationListStub {
	return &api.AllocationListStub{
		ID: a.ID, EvalID: a.EvalID, Name: a.Name, Namespace: a.Namespace, NodeID: a.NodeID, NodeName: a.NodeName,
		JobID: a.JobID, JobType: *a.Job.Type, JobVersion: *a.Job.Version, TaskGroup: a.TaskGroup,
		DesiredStatus: a.DesiredStatus, DesiredDescription: a.DesiredDescription,
		ClientStatus: a.ClientStatus, ClientDescription: a.ClientDescription, TaskStates: a.TaskStates,
		CreateIndex: a.CreateIndex, ModifyIndex: a.ModifyIndex, CreateTime: a.CreateTime, ModifyTime: a.ModifyTime,
	}
}

// resources returns what an allocation uses of its node. It names the first cores and
// device instances, as the simulator does not know which ones are used.
func (a *alloc) resources() *api.AllocatedResources {
	all := &api.AllocatedResources{Tasks: map[string]*api.AllocatedTaskResources{}}
	i := slices.IndexFunc(a.Job.TaskGroups, func(g *api.TaskGroup) bool { return *g.Name == a.TaskGroup })
	if i < 0 {
		return all
	}
	g, have := a.Job.TaskGroups[i], a.node.NodeResources
	all.Shared.DiskMB = int64(*g.EphemeralDisk.SizeMB)
	for _, t := range g.Tasks {
		r := t.Resources
		of := &api.AllocatedTaskResources{
			Cpu:    api.AllocatedCpuResources{CpuShares: int64(*r.CPU + *r.Cores*int(have.Cpu.CpuShares)/max(int(have.Cpu.TotalCpuCores), 1))},
			Memory: api.AllocatedMemoryResources{MemoryMB: int64(*r.MemoryMB)},
		}
		for core := range *r.Cores {
			of.Cpu.ReservedCores = append(of.Cpu.ReservedCores, uint16(core))
		}
		for _, ask := range r.Devices {
			for _, d := range have.Devices {
				if feasible.Suits(d, ask) {
					got := &api.AllocatedDeviceResource{Vendor: d.Vendor, Type: d.Type, Name: d.Name}
					for _, instance := range d.Instances[:min(int(*ask.Count), len(d.Instances))] {
						got.DeviceIDs = append(got.DeviceIDs, instance.ID)
					}
					of.Devices = append(of.Devices, got)
					break
				}
			}
		}
		all.Tasks[t.Name] = of
	}
	return all
}

// jobAllocations answers with the newest first.
func (s jobAPI) jobAllocations(_ http.Header, r *http.Request) (any, error) {
	list := []*api.AllocationListStub{}
	if j := s.jobs[key{namespaceOf(r), pathID(r)}]; j != nil {
		for _, a := range slices.Backward(j.allocs) {
			list = append(list, allocStub(a))
		}
	}
	return list, nil
}

func (s clusterAPI) listAllocations(h http.Header, r *http.Request) (any, error) {
	list := []*api.AllocationListStub{}
	for _, a := range s.allocs {
		if listed(r, a.Namespace, a.ID) {
			stub := allocStub(a)
			if r.URL.Query().Get("resources") == "true" {
				stub.AllocatedResources = a.resources()
			}
			list = append(list, stub)
		}
	}
	return page(r, h, list, func(a *api.AllocationListStub) string { return fmt.Sprintf("%012d.%s", a.CreateIndex, a.ID) })
}

// alloc returns the allocation in the request's path.
func (s clusterAPI) alloc(r *http.Request) (*alloc, error) {
	id := pathID(r)
	if err := checkID(id, "alloc"); err != nil {
		return nil, err
	}
	if a := s.allocs[id]; a != nil {
		return a, nil
	}
	return nil, notFound("alloc not found")
}

func (s clusterAPI) getAllocation(_ http.Header, r *http.Request) (any, error) {
	a, err := s.alloc(r)
	if err != nil {
		return nil, err
	}
	return a.Allocation, nil
}

const migrating = "alloc is being migrated"

// moving returns the allocations that are to be replaced.
func (j *job) moving() (list []*alloc) {
	for _, a := range j.allocs {
		replaced := func(b *alloc) bool { return b.PreviousAllocation == a.ID }
		if a.DesiredDescription == migrating && !slices.ContainsFunc(j.allocs, replaced) {
			list = append(list, a)
		}
	}
	return list
}

// stopAllocation stops an allocation and replaces it, as a drain of its node does.
func (s clusterAPI) stopAllocation(_ http.Header, r *http.Request) (any, error) {
	a, err := s.alloc(r)
	if err != nil {
		return nil, err
	}
	if !a.live() {
		return &api.AllocStopResponse{}, nil
	}
	e := s.migrate(a, "alloc-stop", api.DesiredTransition{Migrate: new(true), Reschedule: new(true), NoShutdownDelay: new(false)})
	return &api.AllocStopResponse{EvalID: e.ID}, nil
}

// migrate stops an allocation and replaces it. s.mu is held.
func (s *cluster) migrate(a *alloc, trigger string, how api.DesiredTransition) *api.Evaluation {
	s.change("AllocationUpdateDesiredStatus").update(a, func(a *api.Allocation) { a.DesiredTransition = how })
	s.change("PlanResult").update(a, func(a *api.Allocation) { a.DesiredStatus, a.DesiredDescription = "stop", migrating })
	a.cancel()
	j := s.jobs[key{a.Namespace, a.JobID}]
	return s.change("EvaluationUpdated").evaluate(j, trigger, *j.Type)
}

// DrainNode drains a node as nomad node drain does once its deadline has passed: it takes no
// new allocations, and its own are stopped and replaced elsewhere. It fails when there is
// no such node.
func (s *Server) DrainNode(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.turn(name, func(n *api.Node) { n.Drain, n.SchedulingEligibility = true, "ineligible" })
	if err != nil {
		return err
	}
	for _, a := range s.liveOn(n) {
		s.migrate(a, "node-drain", api.DesiredTransition{Migrate: new(true)})
	}
	return nil
}

// Preempt has the allocations of a job give way to another's, as Nomad has them when its
// configuration allows that, and replaces them. It fails when none runs.
func (s *Server) Preempt(jobID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		for _, a := range j.allocs {
			if *j.ID != jobID || !a.live() {
				continue
			}
			by := newID()
			s.change("PlanResult").update(a, func(a *api.Allocation) {
				a.DesiredStatus, a.PreemptedByAllocation, a.DesiredDescription = "evict", by, "Preempted by alloc ID "+by
			})
			a.cancel()
			s.change("EvaluationUpdated").evaluate(j, "preemption", *j.Type)
			return nil
		}
	}
	return fmt.Errorf("nomadsim: job %q has no allocation that runs", jobID)
}

// liveOn returns the live allocations of a node, oldest first. s.mu is held.
func (s *cluster) liveOn(n *node) []*alloc {
	var list []*alloc
	for _, a := range s.allocs {
		if a.node == n && a.live() {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *alloc) int {
		return cmp.Or(cmp.Compare(a.CreateIndex, b.CreateIndex), cmp.Compare(a.ID, b.ID))
	})
	return list
}
