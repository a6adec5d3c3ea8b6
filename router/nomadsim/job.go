//lint:file-ignore ST1005 the errors are Nomad's own words

package nomadsim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/nomad/api"
)

const maxPayload = 16 << 10 // bytes of a dispatch, Nomad's own

// register answers the registration of a job.
func (s *Server) register(r *http.Request) (any, error) {
	var req api.JobRegisterRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if req.Job == nil {
		return nil, badRequest("Job must be specified")
	}
	if req.Job.ID == nil || *req.Job.ID == "" {
		return nil, badRequest("Job ID hasn't been provided")
	}
	j := s.canonical(r, req.Job)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("No cluster leader")
	}
	if err := s.admit(j); err != nil {
		return nil, err
	}
	k := key{*j.Namespace, *j.ID}
	old := s.jobs[k]
	if req.EnforceIndex {
		switch {
		case old != nil && req.JobModifyIndex == 0:
			return nil, errors.New("Enforcing job modify index 0: job already exists")
		case old != nil && req.JobModifyIndex != *old.JobModifyIndex:
			return nil, fmt.Errorf("Enforcing job modify index %d: job exists with conflicting job modify index: %d", req.JobModifyIndex, *old.JobModifyIndex)
		case old == nil && req.JobModifyIndex != 0:
			return nil, fmt.Errorf("Enforcing job modify index %d: job does not exist", req.JobModifyIndex)
		}
	}
	index := s.next()
	eval := s.put(k, j, index)
	resp := api.JobRegisterResponse{JobModifyIndex: index}
	if eval != nil {
		resp.EvalID, resp.EvalCreateIndex = eval.ID, index
	}
	return resp, nil
}

// canonical fills in what Nomad would.
func (s *Server) canonical(r *http.Request, j *api.Job) *api.Job {
	if j.Namespace == nil || *j.Namespace == "" {
		ns := namespaceOf(r)
		j.Namespace = &ns
	}
	none := j.Datacenters == nil
	j.Canonicalize()
	if *j.NodePool == "" {
		j.NodePool = ptr("default")
	}
	if none {
		j.Datacenters = []string{"*"}
	}
	for _, c := range constraintsOf(j) {
		c.Operand = cmp.Or(c.Operand, "=")
	}
	return j
}

func constraintsOf(j *api.Job) []*api.Constraint {
	all := slices.Clone(j.Constraints)
	for _, g := range j.TaskGroups {
		all = append(all, g.Constraints...)
		for _, t := range g.Tasks {
			all = append(all, t.Constraints...)
		}
	}
	return all
}

// put stores a job, new or changed, and has it scheduled. s.mu is held.
func (s *Server) put(k key, j *api.Job, index uint64) *api.Evaluation {
	old := s.jobs[k]
	kept := &job{}
	created, v := index, uint64(0)
	if old != nil {
		kept, created, v = old, *old.CreateIndex, *old.Version+1
		s.unblock(old)
	}
	now := s.cfg.Now().UnixNano()
	j.CreateIndex, j.ModifyIndex, j.JobModifyIndex, j.Version, j.SubmitTime = &created, &index, &index, &v, &now
	j.Status, j.StatusDescription, j.Stable, j.Stop = ptr("pending"), ptr(""), ptr(false), ptr(false)
	if j.IsParameterized() && !j.Dispatched {
		j.Status = ptr("running")
	}
	kept.Job = j
	s.jobs[k] = kept
	s.publish(index, event{topic: "Job", kind: "JobRegistered", key: k.id, namespace: k.namespace, name: "Job", payload: j})
	if j.IsParameterized() && !j.Dispatched || j.IsPeriodic() {
		return nil
	}
	return s.evaluate(kept, "job-register", index)
}

// setStatus changes a job's status on a copy, so that what was handed out
// stays as it was. s.mu is held.
func (j *job) setStatus(status string, index uint64) {
	changed := *j.Job
	changed.Status, changed.ModifyIndex = &status, &index
	j.Job = &changed
}

func ptr[T any](v T) *T { return &v }

// admit checks a job as Nomad does before it takes one. s.mu is held.
func (s *Server) admit(j *api.Job) error {
	if *j.Namespace != namespace && !slices.Contains(s.cfg.Namespaces, *j.Namespace) {
		return fmt.Errorf("job %q is in nonexistent namespace %q", *j.ID, *j.Namespace)
	}
	if *j.Region != region {
		return errors.New("No path to region")
	}
	if pool := *j.NodePool; pool != "default" && pool != "all" && !slices.ContainsFunc(s.nodes, func(n *node) bool { return n.NodePool == pool }) {
		return fmt.Errorf("job %q is in nonexistent node pool %q", *j.ID, pool)
	}
	return faultsOf(j)
}

// A faults is what Nomad's validation finds, in the form of its own list.
type faults []string

func (f faults) Error() string {
	if len(f) == 1 {
		return fmt.Sprintf("1 error occurred:\n\t* %s\n\n", f[0])
	}
	return fmt.Sprintf("%d errors occurred:\n\t* %s\n\n", len(f), strings.Join(f, "\n\t* "))
}

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

func (f faults) orNil() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// faultsOf is Nomad's validation, as far as a runner's job can fail it
// (nomad/structs, Nomad 2.0; the contract suite compares).
func faultsOf(j *api.Job) error {
	var f faults
	switch id := *j.ID; {
	case strings.Contains(id, " "):
		f.add("Job ID contains a space")
	case strings.Contains(id, "\x00"):
		f.add("Job ID contains a null character")
	}
	if strings.Contains(*j.Name, "\x00") {
		f.add("Job Name contains a null character")
	}
	if !slices.Contains([]string{"service", "batch", "system", "sysbatch"}, *j.Type) {
		f.add("Invalid job type: %q", *j.Type)
	}
	if *j.Priority < 1 || *j.Priority > 100 {
		f.add("Job priority must be between [1, 100]")
	}
	for _, dc := range j.Datacenters {
		if dc == "" {
			f.add("Job datacenter must be non-empty string")
		}
	}
	if len(j.TaskGroups) == 0 {
		f.add("Missing job task groups")
	}
	constraintFaults(&f, j.Constraints)
	affinityFaults(&f, j.Affinities)
	for _, g := range j.TaskGroups {
		if err := groupFaults(g); err != nil {
			f.add("Task group %s validation failed: %v", *g.Name, err)
		}
	}
	return f.orNil()
}

func groupFaults(g *api.TaskGroup) error {
	var f faults
	if len(g.Tasks) == 0 {
		f.add("Missing tasks for task group")
	}
	constraintFaults(&f, g.Constraints)
	affinityFaults(&f, g.Affinities)
	for _, t := range g.Tasks {
		if err := taskFaults(t); err != nil {
			f.add("Task %s validation failed: %v", t.Name, err)
		}
	}
	return f.orNil()
}

func taskFaults(t *api.Task) error {
	var f faults
	if t.Name == "" {
		f.add("Missing task name")
	}
	if t.Driver == "" {
		f.add("Missing task driver")
	}
	r := t.Resources
	cpu, cores, memory := *r.CPU, *r.Cores, *r.MemoryMB
	if cores > 0 && cpu > 0 {
		f.add("Task can only ask for 'cpu' or 'cores' resource, not both.")
	}
	if cpu < 1 && cores == 0 {
		f.add("minimum CPU value is 1; got %d", cpu)
	}
	if memory < 10 {
		f.add("minimum MemoryMB value is 10; got %d", memory)
	}
	if m := r.MemoryMaxMB; m != nil && *m != 0 && *m != -1 && *m < memory {
		f.add("MemoryMaxMB value (%d) should be larger than MemoryMB value (%d)", *m, memory)
	}
	constraintFaults(&f, t.Constraints)
	affinityFaults(&f, t.Affinities)
	return f.orNil()
}

func constraintFaults(f *faults, list []*api.Constraint) {
	for i, c := range list {
		if err := constraintFault(c.LTarget, c.Operand, c.RTarget); err != nil {
			f.add("Constraint %d validation failed: %s", i+1, err)
		}
	}
}

func constraintFault(left, operand, right string) error {
	var f faults
	needsLeft := true
	switch operand {
	case "":
		f.add("Missing constraint operand")
	case "distinct_hosts":
		needsLeft = false
	case "set_contains", "set_contains_all", "set_contains_any":
		if right == "" {
			f.add("Set contains constraint requires an RTarget")
		}
	case "regexp":
		if _, err := regexp.Compile(right); err != nil {
			f.add("Regular expression failed to compile: %v", err)
		}
	case "version":
		if _, err := version.NewConstraint(right); err != nil {
			f.add("Version constraint is invalid: %v", err)
		}
	case "semver":
		if _, err := version.NewConstraint(right); err != nil {
			f.add("Semver constraint is invalid: %v", err)
		}
	case "distinct_property":
		if right != "" {
			if n, err := strconv.ParseUint(right, 10, 64); err != nil {
				f.add("Failed to convert RTarget %q to uint64: %v", right, err)
			} else if n < 1 {
				f.add("Distinct Property must have an allowed count of 1 or greater: %d < 1", n)
			}
		}
	case "is_set", "is_not_set":
		if right != "" {
			f.add("Operator %q does not support an RTarget", operand)
		}
	case "=", "==", "is", "!=", "not", "<", "<=", ">", ">=":
		if right == "" {
			f.add("Operator %q requires an RTarget", operand)
		}
	default:
		f.add("Unknown constraint type %q", operand)
	}
	if needsLeft && left == "" {
		f.add("no attribute provided but is required by operator")
	} else if needsLeft && strings.HasPrefix(left, "${") && !supported(left) {
		f.add("unsupported attribute %q", left)
	}
	return f.orNil()
}

// supported reports whether a target is one that nodes can have.
func supported(target string) bool {
	name := strings.TrimSuffix(strings.TrimPrefix(target, "${"), "}")
	return strings.HasPrefix(name, "attr.") || strings.HasPrefix(name, "meta.") || strings.HasPrefix(name, "device.") ||
		slices.Contains([]string{"node.unique.id", "node.unique.name", "node.datacenter", "node.class", "node.pool"}, name)
}

func affinityFaults(f *faults, list []*api.Affinity) {
	for i, a := range list {
		var one faults
		switch a.Operand {
		case "":
			one.add("Missing affinity operand")
		case "=", "==", "is", "!=", "not", "<", "<=", ">", ">=":
			if a.RTarget == "" {
				one.add("Operator %q requires an RTarget", a.Operand)
			}
		case "set_contains", "set_contains_all", "set_contains_any":
			if a.RTarget == "" {
				one.add("Set contains operators require an RTarget")
			}
		case "regexp":
			if _, err := regexp.Compile(a.RTarget); err != nil {
				one.add("Regular expression failed to compile: %v", err)
			}
		case "version", "semver":
			if _, err := version.NewConstraint(a.RTarget); err != nil {
				one.add("%s affinity is invalid: %v", map[string]string{"version": "Version", "semver": "Semver"}[a.Operand], err)
			}
		default:
			one.add("Unknown affinity operator %q", a.Operand)
		}
		if a.LTarget == "" {
			one.add("No LTarget provided but is required")
		}
		switch w := a.Weight; {
		case w == nil || *w == 0:
			one.add("Affinity weight cannot be zero")
		case *w < -100 || *w > 100:
			one.add("Affinity weight must be within the range [-100,100]")
		}
		if err := one.orNil(); err != nil {
			f.add("Affinity %d validation failed: %s", i+1, err)
		}
	}
}

// validateJob answers the check of a job.
func (s *Server) validateJob(r *http.Request) (any, error) {
	var req api.JobValidateRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if req.Job == nil {
		return nil, badRequest("Job must be specified")
	}
	if req.Job.ID == nil {
		req.Job.ID = ptr("")
	}
	resp := api.JobValidateResponse{DriverConfigValidated: true}
	err := faultsOf(s.canonical(r, req.Job))
	if *req.Job.ID == "" {
		f, _ := err.(faults)
		err = append(faults{"Missing job ID"}, f...)
	}
	var f faults
	if errors.As(err, &f) {
		resp.Error, resp.ValidationErrors = f.Error(), f
	}
	return resp, nil
}

// lookup returns a job. s.mu is held.
func (s *Server) lookup(r *http.Request) (*job, error) {
	j := s.jobs[key{namespaceOf(r), pathID(r)}]
	if j == nil {
		return nil, notFound("job not found")
	}
	return j, nil
}

func (s *Server) getJob(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.lookup(r)
	if err != nil {
		return nil, err
	}
	return j.Job, nil
}

func (s *Server) listJobs(r *http.Request) (any, error) {
	q := r.URL.Query()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []*api.JobListStub{}
	for k, j := range s.jobs {
		if ns := namespaceOf(r); (ns != "*" && ns != k.namespace) || !strings.HasPrefix(k.id, q.Get("prefix")) {
			continue
		}
		stub := &api.JobListStub{
			ID: *j.ID, Name: *j.Name, Namespace: k.namespace, Datacenters: j.Datacenters, Type: *j.Type, Priority: *j.Priority,
			Status: *j.Status, Stop: *j.Stop, ParameterizedJob: j.IsParameterized(), JobSummary: s.summary(j),
			CreateIndex: *j.CreateIndex, ModifyIndex: *j.ModifyIndex, JobModifyIndex: *j.JobModifyIndex, SubmitTime: *j.SubmitTime,
		}
		if j.ParentID != nil {
			stub.ParentID = *j.ParentID
		}
		if q.Get("meta") == "true" {
			stub.Meta = j.Meta
		}
		list = append(list, stub)
	}
	slices.SortFunc(list, func(a, b *api.JobListStub) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// deregister answers the stop of a job, and forgets it when it is purged.
func (s *Server) deregister(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{namespaceOf(r), pathID(r)}
	j, err := s.lookup(r)
	if err != nil {
		return nil, err
	}
	index := s.next()
	s.unblock(j)
	stopped := *j.Job
	stopped.Stop = ptr(true)
	j.Job = &stopped
	for _, a := range j.allocs {
		a.cancel()
	}
	j.setStatus("dead", index)
	s.publish(index, event{topic: "Job", kind: "JobDeregistered", key: k.id, namespace: k.namespace, name: "Job", payload: j.Job})
	if r.URL.Query().Get("purge") == "true" {
		delete(s.jobs, k)
	}
	eval := s.addEval(j, "job-deregister", index)
	eval.Status = "complete"
	return api.JobDeregisterResponse{EvalID: eval.ID, EvalCreateIndex: index, JobModifyIndex: index}, nil
}

// dispatch answers the start of a child of a parameterized job.
func (s *Server) dispatch(r *http.Request) (any, error) {
	var req api.JobDispatchRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	token := cmp.Or(req.IdPrefixTemplate, "") // unused but for the ID
	idempotency := r.URL.Query().Get("idempotency_token")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("No cluster leader")
	}
	parentID, ns := pathID(r), namespaceOf(r)
	parent := s.jobs[key{ns, parentID}]
	switch {
	case parent == nil:
		return nil, errors.New("parameterized job not found")
	case !parent.IsParameterized() || parent.Dispatched:
		return nil, fmt.Errorf("Specified job %q is not a parameterized job", parentID)
	case *parent.Stop:
		return nil, fmt.Errorf("Specified job %q is stopped", parentID)
	}
	if err := dispatchFault(parent.ParameterizedJob, req); err != nil {
		return nil, err
	}
	if idempotency != "" {
		for k, j := range s.jobs {
			if k.namespace == ns && j.ParentID != nil && *j.ParentID == parentID && *j.DispatchIdempotencyToken == idempotency {
				return api.JobDispatchResponse{DispatchedJobID: k.id, JobCreateIndex: *j.CreateIndex}, nil
			}
		}
	}
	child := *parent.Job
	prefix := "dispatch-"
	if token != "" {
		prefix += token + "-"
	}
	id := fmt.Sprintf("%s/%s%d-%s", parentID, prefix, s.cfg.Now().Unix(), newID()[:8])
	child.ID, child.Name, child.ParentID, child.Dispatched = &id, &id, &parentID, true
	child.DispatchIdempotencyToken = &idempotency
	child.Payload = req.Payload
	child.Meta = maps.Clone(parent.Meta)
	if child.Meta == nil {
		child.Meta = map[string]string{}
	}
	maps.Copy(child.Meta, req.Meta)
	index := s.next()
	eval := s.put(key{ns, id}, &child, index)
	return api.JobDispatchResponse{DispatchedJobID: id, EvalID: eval.ID, EvalCreateIndex: index, JobCreateIndex: index}, nil
}

// dispatchFault is Nomad's check of a dispatch.
func dispatchFault(p *api.ParameterizedJobConfig, req api.JobDispatchRequest) error {
	switch {
	case p.Payload == "required" && len(req.Payload) == 0:
		return errors.New("Payload is not provided but required by parameterized job")
	case p.Payload == "forbidden" && len(req.Payload) > 0:
		return errors.New("Payload provided but forbidden by parameterized job")
	case len(req.Payload) > maxPayload:
		return fmt.Errorf("Payload exceeds maximum size; %d > %d", len(req.Payload), maxPayload)
	}
	var unpermitted, missing []string
	for k := range req.Meta {
		if !slices.Contains(p.MetaRequired, k) && !slices.Contains(p.MetaOptional, k) {
			unpermitted = append(unpermitted, k)
		}
	}
	for _, k := range p.MetaRequired {
		if _, ok := req.Meta[k]; !ok {
			missing = append(missing, k)
		}
	}
	switch {
	case unpermitted != nil:
		return fmt.Errorf("Dispatch request included unpermitted metadata keys: %v", unpermitted)
	case missing != nil:
		return fmt.Errorf("Dispatch did not provide required meta keys: %v", missing)
	}
	return nil
}

// summary counts a job's allocations by group. s.mu is held.
func (s *Server) summary(j *job) *api.JobSummary {
	sum := &api.JobSummary{
		JobID: *j.ID, Namespace: *j.Namespace, Summary: map[string]api.TaskGroupSummary{},
		CreateIndex: *j.CreateIndex, ModifyIndex: *j.ModifyIndex,
	}
	for _, g := range j.TaskGroups {
		t := api.TaskGroupSummary{Queued: j.unplaced[*g.Name]}
		for _, a := range j.allocs {
			if a.TaskGroup != *g.Name {
				continue
			}
			switch a.ClientStatus {
			case "pending":
				t.Starting++
			case "running":
				t.Running++
			case "complete":
				t.Complete++
			case "failed":
				t.Failed++
			}
		}
		sum.Summary[*g.Name] = t
	}
	return sum
}

func (s *Server) jobSummary(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.lookup(r)
	if err != nil {
		return nil, err
	}
	return s.summary(j), nil
}
