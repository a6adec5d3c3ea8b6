package nomadsim

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"
)

const maxArtifact = 1 << 20 // bytes

// alloc is an allocation, guarded by Server.mu.
type alloc struct {
	*api.Allocation // replaced by a changed copy, never changed
	node            *node
	use             use
	cancel          context.CancelFunc // stops its tasks
}

// place puts one allocation of a group on a node and starts it. s.mu is held.
func (s *Server) place(j *job, g *api.TaskGroup, n *node, m *api.AllocationMetric, e *api.Evaluation, index uint64) {
	u, _ := n.check(j.Job, g)
	n.take(u, 1)
	nth := 0
	for _, a := range j.allocs {
		if a.TaskGroup == *g.Name {
			nth++
		}
	}
	now := s.cfg.Now().UnixNano()
	ctx, cancel := context.WithCancel(s.ctx)
	a := &alloc{node: n, use: u, cancel: cancel, Allocation: &api.Allocation{
		ID: newID(), EvalID: e.ID, Namespace: *j.Namespace, Name: fmt.Sprintf("%s.%s[%d]", *j.ID, *g.Name, nth),
		NodeID: n.ID, NodeName: n.Name, JobID: *j.ID, Job: j.Job, TaskGroup: *g.Name, Metrics: m,
		DesiredStatus: "run", ClientStatus: "pending", TaskStates: map[string]*api.TaskState{},
		CreateIndex: index, ModifyIndex: index, CreateTime: now, ModifyTime: now,
	}}
	s.allocs[a.ID] = a
	j.allocs = append(j.allocs, a)
	s.publishAlloc(a, "PlanResult", index)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer cancel()
		s.run(ctx, j, g, a)
	}()
}

func (s *Server) publishAlloc(a *alloc, kind string, index uint64) {
	s.publish(index, event{topic: "Allocation", kind: kind, key: a.ID, namespace: a.Namespace, filters: []string{a.JobID, a.NodeID}, name: "Allocation", payload: a.Allocation})
}

// change replaces an allocation by a changed copy.
func (s *Server) change(a *alloc, to func(*api.Allocation)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changeLocked(a, to)
}

func (s *Server) changeLocked(a *alloc, to func(*api.Allocation)) {
	index := s.next()
	changed := *a.Allocation
	changed.TaskStates = maps.Clone(changed.TaskStates)
	to(&changed)
	changed.ModifyIndex, changed.ModifyTime = index, s.cfg.Now().UnixNano()
	a.Allocation = &changed
	s.publishAlloc(a, "AllocationUpdated", index)
}

// run carries an allocation through its life.
func (s *Server) run(ctx context.Context, j *job, g *api.TaskGroup, a *alloc) {
	s.mu.Lock()
	s.setJobStatus(j, "running")
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, t := range g.Tasks {
		wg.Go(func() { s.runTask(ctx, j.Job, t, a) })
	}
	wg.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	s.changeLocked(a, func(c *api.Allocation) {
		c.ClientStatus = "complete"
		for _, t := range c.TaskStates {
			if t.Failed {
				c.ClientStatus = "failed"
			}
		}
		if *j.Stop {
			c.DesiredStatus = "stop"
		}
	})
	a.node.take(a.use, -1)
	if !slices.ContainsFunc(j.allocs, func(a *alloc) bool { return a.ClientStatus == "pending" || a.ClientStatus == "running" }) && !j.isBlocked {
		s.setJobStatus(j, "dead")
	}
	s.freed(a.node, s.index)
}

// setJobStatus changes a job's status, if it is another. s.mu is held.
func (s *Server) setJobStatus(j *job, status string) {
	if *j.Status == status || *j.Status == "dead" && status == "running" {
		return
	}
	index := s.next()
	j.setStatus(status, index)
	s.publish(index, event{topic: "Job", kind: "JobUpdated", key: *j.ID, namespace: *j.Namespace, name: "Job", payload: j.Job})
}

// runTask fetches a task's artifacts, then runs it. It never restarts.
func (s *Server) runTask(ctx context.Context, j *api.Job, t *api.Task, a *alloc) {
	state := func(to func(*api.TaskState), kind, message string, details map[string]string) {
		s.change(a, func(c *api.Allocation) {
			old := c.TaskStates[t.Name]
			st := api.TaskState{State: "pending"}
			if old != nil {
				st = *old
			}
			now := s.cfg.Now()
			st.Events = append(slices.Clip(st.Events), &api.TaskEvent{Type: kind, Time: now.UnixNano(), DisplayMessage: message, Message: message, Details: details})
			to(&st)
			c.TaskStates[t.Name] = &st
			if c.ClientStatus == "pending" && st.State == "running" {
				c.ClientStatus = "running"
			}
		})
	}
	none := func(*api.TaskState) {}
	failed := func(st *api.TaskState) {
		st.State, st.Failed, st.FinishedAt = "dead", true, s.cfg.Now()
	}
	state(none, "Received", "Task received by client", nil)
	state(none, "Task Setup", "Building Task Directory", nil)
	task := Task{AllocID: a.ID, JobID: a.JobID, Name: t.Name, Node: a.node.Node, Env: environment(j, t, a), Artifacts: map[string]string{}}
	if len(t.Artifacts) > 0 {
		state(none, "Downloading Artifacts", "Client is downloading artifacts", nil)
	}
	for _, art := range t.Artifacts {
		body, err := s.fetch(ctx, art, task)
		if err != nil {
			state(none, "Failed Artifact Download", fmt.Sprintf("failed to download artifact %q: %v", task.interpolate(*art.GetterSource), err), map[string]string{"fails_task": "true"})
			state(failed, "Not Restarting", "Policy allows no restarts", map[string]string{"fails_task": "true"})
			return
		}
		task.Artifacts[*art.RelativeDest] = body
	}
	if ctx.Err() != nil {
		state(func(st *api.TaskState) { st.State, st.FinishedAt = "dead", s.cfg.Now() }, "Killed", "Task successfully killed", nil)
		return
	}
	state(func(st *api.TaskState) { st.State, st.StartedAt = "running", s.cfg.Now() }, "Started", "Task started by client", nil)
	code := s.cfg.Run(ctx, task)
	ended := func(st *api.TaskState) {
		st.State, st.Failed, st.FinishedAt = "dead", code != 0 && ctx.Err() == nil, s.cfg.Now()
	}
	state(ended, "Terminated", fmt.Sprintf("Exit Code: %d", code), map[string]string{"exit_code": fmt.Sprint(code)})
	if code != 0 && ctx.Err() == nil {
		state(none, "Not Restarting", "Policy allows no restarts", nil)
	}
}

// fetch gets an artifact by one GET.
func (s *Server) fetch(ctx context.Context, a *api.TaskArtifact, t Task) (string, error) {
	source := t.interpolate(*a.GetterSource)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return "", err
	}
	for k, v := range a.GetterHeaders {
		req.Header.Set(k, t.interpolate(v))
	}
	resp, err := s.cfg.Client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxArtifact))
	if err != nil {
		return "", err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return "", fmt.Errorf("bad response code: %d", resp.StatusCode)
	}
	return string(body), nil
}

// environment is what Nomad puts into a task's environment, as far as runners
// use it.
func environment(j *api.Job, t *api.Task, a *alloc) map[string]string {
	env := map[string]string{
		"NOMAD_ALLOC_ID": a.ID, "NOMAD_ALLOC_NAME": a.Name, "NOMAD_JOB_ID": a.JobID, "NOMAD_JOB_NAME": *j.Name, "NOMAD_GROUP_NAME": a.TaskGroup,
		"NOMAD_TASK_NAME": t.Name, "NOMAD_NAMESPACE": a.Namespace, "NOMAD_DC": a.node.Datacenter, "NOMAD_REGION": region,
		"NOMAD_TASK_DIR": "local", "NOMAD_SECRETS_DIR": "secrets", "NOMAD_ALLOC_DIR": "alloc",
	}
	group := j.LookupTaskGroup(a.TaskGroup)
	for _, meta := range []map[string]string{j.Meta, group.Meta, t.Meta} {
		for k, v := range meta {
			env["NOMAD_META_"+k], env["NOMAD_META_"+strings.ToUpper(k)] = v, v
		}
	}
	task := Task{Node: a.node.Node, Env: maps.Clone(env)}
	for k, v := range t.Env {
		env[k] = task.interpolate(v)
	}
	return env
}

// interpolate replaces ${NAME} by the environment's, ${attr.x}, ${meta.x} and
// ${node.x} by the node's. What it does not know stays.
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
			v, found = (&node{Node: t.Node}).resolve(target)
		}
		if !found {
			v = target
		}
		out.WriteString(v)
		s = rest
	}
}

func allocStub(a *alloc) *api.AllocationListStub {
	stub := &api.AllocationListStub{
		ID: a.ID, EvalID: a.EvalID, Name: a.Name, Namespace: a.Namespace, NodeID: a.NodeID, NodeName: a.NodeName,
		JobID: a.JobID, JobType: *a.Job.Type, JobVersion: *a.Job.Version, TaskGroup: a.TaskGroup,
		DesiredStatus: a.DesiredStatus, ClientStatus: a.ClientStatus, TaskStates: a.TaskStates,
		CreateIndex: a.CreateIndex, ModifyIndex: a.ModifyIndex, CreateTime: a.CreateTime, ModifyTime: a.ModifyTime,
	}
	return stub
}

func (s *Server) jobAllocations(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []*api.AllocationListStub{}
	if j := s.jobs[key{namespaceOf(r), pathID(r)}]; j != nil {
		for i := len(j.allocs) - 1; i >= 0; i-- { // newest first
			list = append(list, allocStub(j.allocs[i]))
		}
	}
	return list, nil
}

func (s *Server) listAllocations(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []*api.AllocationListStub{}
	for _, a := range s.allocs {
		if ns := namespaceOf(r); (ns == "*" || ns == a.Namespace) && strings.HasPrefix(a.ID, r.URL.Query().Get("prefix")) {
			list = append(list, allocStub(a))
		}
	}
	slices.SortFunc(list, func(a, b *api.AllocationListStub) int {
		return cmp.Or(cmp.Compare(a.CreateIndex, b.CreateIndex), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

func (s *Server) getAllocation(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.allocs[pathID(r)]
	if a == nil {
		return nil, notFound("alloc not found")
	}
	return a.Allocation, nil
}
