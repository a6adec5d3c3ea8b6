package nomadsim

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/hashicorp/nomad/api"
)

const maxPayload = 16 << 10 // bytes of a dispatch, Nomad's own

// errClosed is returned by a closed Server to callers that start something.
var errClosed = failure("No cluster leader")

// A job is a Nomad job with its allocations, guarded by cluster.mu.
type job struct {
	*api.Job   // replaced when it changes
	allocs     []*alloc
	children   []*job            // of a parameterized job
	tokens     map[string]string // child by idempotency token
	blocked    string            // the evaluation that waits for a node; "": none
	shape      string            // of the queue it waits in
	evaluating bool
	purged     bool
}

// missing returns how many allocations of a group are still to be placed.
func (j *job) missing(g *api.TaskGroup) int {
	if *j.Stop || j.template() {
		return 0
	}
	n := *g.Count
	for _, a := range j.allocs {
		if a.TaskGroup == *g.Name && *a.Job.Version == *j.Version && a.DesiredStatus == "run" && !a.lost {
			n-- // a batch job's that ended was one of them
		}
	}
	return max(n, 0)
}

// spots returns where the job's live allocations are.
func (j *job) spots() (list []spot) {
	for _, a := range j.allocs {
		if a.live() && !a.lost {
			list = append(list, spot{a.node, a.TaskGroup})
		}
	}
	return list
}

// template reports whether only the job's children run.
func (j *job) template() bool { return j.IsParameterized() && !j.Dispatched || j.IsPeriodic() }

// status returns what Nomad makes of a job's allocations and evaluations.
func (j *job) status() string {
	switch {
	case j.template() && !*j.Stop:
		return "running"
	case slices.ContainsFunc(j.allocs, (*alloc).live):
		return "running"
	case j.evaluating || j.blocked != "":
		return "pending"
	}
	return "dead"
}

// register answers the registration of a job.
func (s jobAPI) register(_ http.Header, r *http.Request) (any, error) {
	var req api.JobRegisterRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Job == nil:
		return nil, badRequest("Job must be specified")
	case req.Job.ID == nil:
		return nil, badRequest("Job ID hasn't been provided")
	case pathID(r) != "" && pathID(r) != *req.Job.ID:
		return nil, badRequest("Job ID does not match name")
	case r.URL.Query().Get("region") == "" && req.Job.Region != nil && *req.Job.Region != "" && *req.Job.Region != s.cfg.Region:
		return nil, failure(noPath) // Nomad sends it there
	}
	j := s.canonical(r, req.Job)
	if s.closed {
		return nil, errClosed
	}
	warnings, err := s.admit(j)
	if err != nil {
		return nil, err
	}
	k := key{*j.Namespace, *j.ID}
	known := s.jobs[k]
	var old *api.Job
	if known != nil {
		old = known.Job
	}
	if req.EnforceIndex {
		if err := enforce(old, req.JobModifyIndex); err != nil {
			return nil, err
		}
	}
	if err := checkUpdate(old, j); err != nil {
		return nil, err
	}
	unchanged := old != nil && same(old, j)
	if s.cfg.Registering != nil {
		s.mu.Unlock()
		s.cfg.Registering(*j.ID)
		s.mu.Lock()
		if s.closed {
			return nil, errClosed
		}
		if known = s.jobs[k]; known != nil && s.once && req.EnforceIndex {
			if err := enforce(known.Job, req.JobModifyIndex); err != nil {
				return nil, err
			}
		}
	}
	c := s.change("JobRegistered")
	if known == nil || !unchanged {
		known = c.put(known, j)
	}
	resp := api.JobRegisterResponse{JobModifyIndex: *known.JobModifyIndex, Warnings: warnings}
	if known.template() {
		c.settle(known)
		return resp, nil
	}
	resp.EvalID, resp.EvalCreateIndex = c.evaluate(known, "job-register", *known.Type).ID, c.index
	return resp, nil
}

// enforce checks the index that a registration insists on.
func enforce(old *api.Job, index uint64) error {
	switch {
	case old == nil && index != 0:
		return failure("Enforcing job modify index %d: job does not exist", index)
	case old != nil && index == 0:
		return failure("Enforcing job modify index 0: job already exists")
	case old != nil && index != *old.JobModifyIndex:
		return failure("Enforcing job modify index %d: job exists with conflicting job modify index: %d", index, *old.JobModifyIndex)
	}
	return nil
}

// canonical fills in defaults as Nomad does. The query's namespace wins over the job's.
func (s *cluster) canonical(r *http.Request, j *api.Job) *api.Job {
	if ns := r.URL.Query().Get("namespace"); ns != "" {
		j.Namespace = &ns
	} else if j.Namespace != nil && *j.Namespace == "" {
		j.Namespace = nil
	}
	for _, empty := range []**string{&j.Name, &j.Region, &j.Type} {
		if *empty != nil && **empty == "" {
			*empty = nil
		}
	}
	if j.Priority != nil && *j.Priority == 0 {
		j.Priority = nil
	}
	j.Region = new(s.cfg.Region)
	j.Canonicalize()
	*j.NodePool = cmp.Or(*j.NodePool, "default")
	if len(j.Datacenters) == 0 {
		j.Datacenters = []string{"*"}
	}
	j.Dispatched, j.ParentID, j.DispatchIdempotencyToken = false, new(""), new("") // not for clients to say
	if p := j.ParameterizedJob; p != nil {
		p.Payload = cmp.Or(p.Payload, "optional")
	}
	return j
}

// put stores a job that is new or differs from the known one.
func (c change) put(known *job, j *api.Job) *job {
	j.CreateIndex, j.Status = &c.index, new("pending")
	if known == nil {
		known = &job{}
		c.jobs[key{*j.Namespace, *j.ID}] = known
	} else {
		j.CreateIndex, j.Version, j.Status = known.CreateIndex, new(*known.Version+1), known.Status
	}
	j.ModifyIndex, j.JobModifyIndex, j.SubmitTime = &c.index, &c.index, &c.now
	j.Stable, j.StatusDescription = new(false), new("")
	known.Job = j
	if known.template() {
		j.Status = new(known.status())
	}
	c.publishJob(known)
	return known
}

func (c change) publishJob(j *job) {
	payload := map[string]any{"Job": j.Job}
	if j.purged {
		payload["Deleted"] = true
	}
	c.publish(event{topic: "Job", key: *j.ID, namespace: *j.Namespace, payload: payload})
}

// settle brings a job's status up to date.
func (c change) settle(j *job) {
	status := j.status()
	if status == *j.Status || j.purged {
		return
	}
	changed := *j.Job
	changed.Status, changed.ModifyIndex = &status, &c.index
	j.Job = &changed
	c.publishJob(j)
}

// lookup returns the job in the request's path. s.mu is held.
func (s *cluster) lookup(r *http.Request) (*job, error) {
	j := s.jobs[key{namespaceOf(r), pathID(r)}]
	if j == nil {
		return nil, notFound("job not found")
	}
	return j, nil
}

func (s jobAPI) getJob(_ http.Header, r *http.Request) (any, error) {
	j, err := s.lookup(r)
	if err != nil {
		return nil, err
	}
	return j.Job, nil
}

func (s jobAPI) listJobs(h http.Header, r *http.Request) (any, error) {
	found := []*job{}
	for k, j := range s.jobs {
		if listed(r, k.namespace, k.id) {
			found = append(found, j)
		}
	}
	found, err := page(r, h, found, func(j *job) string { return *j.Namespace + "." + *j.ID })
	if err != nil {
		return nil, err
	}
	list := make([]*api.JobListStub, len(found))
	for i, j := range found {
		list[i] = &api.JobListStub{
			ID: *j.ID, ParentID: *j.ParentID, Name: *j.Name, Namespace: *j.Namespace, Datacenters: j.Datacenters, Type: *j.Type,
			Priority: *j.Priority, Status: *j.Status, Stop: *j.Stop, ParameterizedJob: j.IsParameterized() && !j.Dispatched,
			Periodic: j.IsPeriodic(), JobSummary: summary(j), CreateIndex: *j.CreateIndex, ModifyIndex: *j.ModifyIndex,
			JobModifyIndex: *j.JobModifyIndex, SubmitTime: *j.SubmitTime,
		}
		if r.URL.Query().Get("meta") == "true" {
			list[i].Meta = j.Meta
		}
	}
	return list, nil
}

// deregister answers the stop of a job, and removes a purged one. For an unknown job,
// Nomad's answer only lacks the evaluation.
func (s jobAPI) deregister(_ http.Header, r *http.Request) (any, error) {
	k := key{namespaceOf(r), pathID(r)}
	j := s.jobs[k]
	if j == nil {
		return api.JobDeregisterResponse{}, nil
	}
	c := s.change("JobDeregistered")
	stopped := *j.Job
	stopped.ModifyIndex, stopped.JobModifyIndex = &c.index, &c.index
	stopped.Stop, stopped.Version = new(true), new(*j.Version+1)
	j.Job = &stopped
	if r.URL.Query().Get("purge") == "true" {
		j.purged = true
		delete(s.jobs, k)
		for _, a := range j.allocs { // Nomad's clients stop what the servers no longer know
			delete(s.allocs, a.ID)
			a.cancel()
		}
		j.allocs = nil
	}
	c.publishJob(j)
	eval := c.evaluate(j, "job-deregister", "service") // whatever the job's type
	return api.JobDeregisterResponse{EvalID: eval.ID, EvalCreateIndex: c.index, JobModifyIndex: c.index}, nil
}

// dispatch answers the start of a child of a parameterized job.
func (s jobAPI) dispatch(_ http.Header, r *http.Request) (any, error) {
	var req api.JobDispatchRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	parentID := pathID(r)
	if req.JobID != "" && req.JobID != parentID {
		return nil, badRequest("Job ID does not match")
	}
	if s.closed {
		return nil, errClosed
	}
	parent := s.jobs[key{namespaceOf(r), parentID}]
	switch {
	case parent == nil:
		return nil, failure("parameterized job not found")
	case !parent.IsParameterized() || parent.Dispatched:
		return nil, failure("Specified job %q is not a parameterized job", parentID)
	case *parent.Stop:
		return nil, failure("Specified job %q is stopped", parentID)
	}
	if err := dispatchFault(parent.ParameterizedJob, req); err != nil {
		return nil, err
	}
	token := r.URL.Query().Get("idempotency_token")
	if earlier := s.jobs[key{*parent.Namespace, parent.tokens[token]}]; token != "" && earlier != nil {
		return api.JobDispatchResponse{DispatchedJobID: *earlier.ID, JobCreateIndex: *earlier.CreateIndex}, nil
	}

	spec := *parent.Job
	prefix := "dispatch-"
	if req.IdPrefixTemplate != "" {
		prefix += req.IdPrefixTemplate + "-"
	}
	id := fmt.Sprintf("%s/%s%d-%s", parentID, prefix, s.cfg.Now().Unix(), newID()[:8])
	spec.ID, spec.Name, spec.ParentID, spec.Dispatched, spec.Payload = &id, &id, &parentID, true, req.Payload
	spec.DispatchIdempotencyToken, spec.Version = &token, new(uint64(0))
	spec.Meta = maps.Clone(parent.Meta)
	if spec.Meta == nil {
		spec.Meta = map[string]string{}
	}
	maps.Copy(spec.Meta, req.Meta)
	c := s.change("JobRegistered")
	child := c.put(nil, &spec)
	parent.children = append(parent.children, child)
	if parent.tokens == nil {
		parent.tokens = map[string]string{}
	}
	parent.tokens[token] = id
	eval := c.evaluate(child, "job-register", *child.Type)
	return api.JobDispatchResponse{DispatchedJobID: id, EvalID: eval.ID, EvalCreateIndex: c.index, JobCreateIndex: c.index}, nil
}

// dispatchFault returns what Nomad finds wrong with a dispatch.
func dispatchFault(p *api.ParameterizedJobConfig, req api.JobDispatchRequest) error {
	switch {
	case p.Payload == "required" && len(req.Payload) == 0:
		return failure("Payload is not provided but required by parameterized job")
	case p.Payload == "forbidden" && len(req.Payload) > 0:
		return failure("Payload provided but forbidden by parameterized job")
	case len(req.Payload) > maxPayload:
		return failure("Payload exceeds maximum size; %d > %d", len(req.Payload), maxPayload)
	}
	var unpermitted, missing []string
	for _, k := range slices.Sorted(maps.Keys(req.Meta)) {
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
		return failure("Dispatch request included unpermitted metadata keys: %v", unpermitted)
	case missing != nil:
		return failure("Dispatch did not provide required meta keys: %v", missing)
	}
	return nil
}

// summary counts a job's allocations by group, and its children.
func summary(j *job) *api.JobSummary {
	sum := &api.JobSummary{
		JobID: *j.ID, Namespace: *j.Namespace, Summary: map[string]api.TaskGroupSummary{}, Children: &api.JobChildrenSummary{},
		CreateIndex: *j.CreateIndex, ModifyIndex: *j.ModifyIndex,
	}
	for _, child := range j.children {
		switch *child.Status {
		case "pending":
			sum.Children.Pending++
		case "running":
			sum.Children.Running++
		default:
			sum.Children.Dead++
		}
	}
	for _, g := range j.TaskGroups {
		t := api.TaskGroupSummary{Queued: j.missing(g)}
		counts := map[string]*int{"pending": &t.Starting, "running": &t.Running, "complete": &t.Complete, "failed": &t.Failed, "lost": &t.Lost}
		for _, a := range j.allocs {
			if a.TaskGroup != *g.Name {
				continue
			}
			if n := counts[a.ClientStatus]; n != nil {
				*n++
			}
		}
		sum.Summary[*g.Name] = t
	}
	return sum
}

func (s jobAPI) jobSummary(_ http.Header, r *http.Request) (any, error) {
	j, err := s.lookup(r)
	if err != nil {
		return nil, err
	}
	return summary(j), nil
}
