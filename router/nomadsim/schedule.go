package nomadsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"switchyard/router/feasible"
)

// A queue has waiting jobs with the same demands: where the first does not fit, none
// does. It is in the order in which they are placed.
type queue struct{ jobs []*job }

func before(a, b *job) int {
	return cmp.Or(cmp.Compare(*b.Priority, *a.Priority), cmp.Compare(*a.CreateIndex, *b.CreateIndex))
}

// shape returns a job's demands as text. A job whose allocations depend on each other has
// a shape of its own.
func shape(j *api.Job) string {
	ask := []any{j.NodePool, j.Datacenters, j.Constraints}
	own := len(j.TaskGroups) != 1 || *j.TaskGroups[0].Count != 1 || distinct(j.Constraints)
	for _, g := range j.TaskGroups {
		own = own || distinct(g.Constraints)
		ask = append(ask, g.Constraints, g.EphemeralDisk.SizeMB)
		for _, t := range g.Tasks {
			ask = append(ask, t.Driver, t.Constraints, t.Resources)
		}
	}
	if own {
		ask = []any{*j.Namespace, *j.ID}
	}
	text, err := json.Marshal(ask)
	if err != nil {
		panic(err) // it came as JSON
	}
	return string(text)
}

func distinct(list []*api.Constraint) bool {
	return slices.ContainsFunc(list, func(c *api.Constraint) bool { return strings.HasPrefix(c.Operand, "distinct_") })
}

// enqueue adds a job to those that wait for a node. s.mu is held.
func (s *cluster) enqueue(j *job) {
	s.dequeue(j)
	j.shape = shape(j.Job)
	q := s.waiting[j.shape]
	if q == nil {
		q = &queue{}
		s.waiting[j.shape] = q
	}
	at, _ := slices.BinarySearchFunc(q.jobs, j, before)
	q.jobs = slices.Insert(q.jobs, at, j)
}

// dequeue undoes enqueue. s.mu is held.
func (s *cluster) dequeue(j *job) {
	q := s.waiting[j.shape]
	if q == nil {
		return
	}
	q.jobs = slices.DeleteFunc(q.jobs, func(w *job) bool { return w == j })
	if len(q.jobs) == 0 {
		delete(s.waiting, j.shape)
	}
}

// freed offers a node with freed resources to the waiting jobs. s.mu is held.
func (s *cluster) freed(n *node) {
	full := map[*queue]bool{} // whose jobs no longer fit
	for !s.closed && !s.paused && n.Status == "ready" && n.SchedulingEligibility == "eligible" {
		var next *job
		for _, q := range s.waiting {
			if full[q] || next != nil && before(next, q.jobs[0]) < 0 {
				continue
			}
			if full[q] = !s.fits(n, q.jobs[0]); !full[q] {
				next = q.jobs[0]
			}
		}
		if next == nil {
			return
		}
		s.schedule(next, s.evals[next.blocked])
	}
}

// fits reports whether something that the job waits for fits a node.
func (s *cluster) fits(n *node, j *job) bool {
	if !feasible.Candidate(n.Node, j.Job) {
		return false
	}
	return slices.ContainsFunc(j.TaskGroups, func(g *api.TaskGroup) bool {
		if j.missing(g) == 0 || distinctRefusal(n, j.Job, g, j.spots()) != "" {
			return false
		}
		_, why := n.check(j.Job, g)
		return why == refusal{}
	})
}

// evaluate schedules a job again because of a trigger, in the change c. s.mu is held.
func (c change) evaluate(j *job, trigger, kind string) *api.Evaluation {
	e := c.newEval(j, api.Evaluation{Type: kind, TriggeredBy: trigger, Status: "pending"})
	j.evaluating = true
	c.settle(j)
	if c.paused {
		c.cluster.pending = append(c.cluster.pending, pending{j, e})
		return e
	}
	c.schedule(j, e)
	return e
}

// A pending evaluation waits in the broker.
type pending struct {
	job  *job
	eval *api.Evaluation
}

func (s clusterAPI) getScheduler(http.Header, *http.Request) (any, error) {
	return &api.SchedulerConfigurationResponse{SchedulerConfig: &api.SchedulerConfiguration{
		SchedulerAlgorithm: api.SchedulerAlgorithmBinpack, PauseEvalBroker: s.paused,
	}}, nil
}

// setScheduler pauses or resumes the evaluation broker, and changes nothing else.
func (s clusterAPI) setScheduler(_ http.Header, r *http.Request) (any, error) {
	var to api.SchedulerConfiguration
	if err := decode(r, &to); err != nil {
		return nil, err
	}
	if s.paused = to.PauseEvalBroker; !s.paused {
		waiting := s.pending
		s.pending = nil
		for _, p := range waiting {
			s.schedule(p.job, p.eval)
		}
		for _, n := range s.nodes {
			s.freed(n)
		}
	}
	return &api.SchedulerSetConfigurationResponse{Updated: true}, nil
}

// schedule processes an evaluation: it stops unwanted allocations, places missing ones,
// and lets the job wait if some find no node. s.mu is held.
func (s *cluster) schedule(j *job, e *api.Evaluation) {
	why := "alloc is being updated due to job update"
	if *j.Stop {
		why = "alloc not needed due to job update"
	}
	var unwanted, lost, kept []*alloc
	for _, a := range j.allocs {
		switch {
		case !a.live():
		case a.lost:
			lost = append(lost, a)
		case *a.Job.Version != *j.Version && !*j.Stop && same(a.Job, j.Job):
			kept = append(kept, a) // Nomad updates it in place
		case *j.Stop || *a.Job.Version != *j.Version:
			unwanted = append(unwanted, a)
		}
	}
	if len(kept) > 0 {
		c := s.change("PlanResult")
		for _, a := range kept {
			c.update(a, func(a *api.Allocation) { a.Job = j.Job })
		}
	}
	placed, failed := s.choose(j.Job, j.spots(), j.missing)
	if len(unwanted)+len(lost)+len(placed) > 0 {
		c := s.change("PlanResult")
		c.publishEval(e)
		for _, a := range unwanted {
			c.update(a, func(a *api.Allocation) { a.DesiredStatus, a.DesiredDescription = "stop", why })
			a.cancel()
		}
		for i, p := range placed {
			previous := ""
			if replaced := slices.Concat(lost, j.moving()); i < len(replaced) {
				previous = replaced[i].ID
			}
			c.place(j, p, e, previous)
		}
		for _, a := range lost {
			c.update(a, func(a *api.Allocation) {
				a.ClientStatus, a.DesiredStatus, a.DesiredDescription = "lost", "stop", "alloc is lost since its node is down"
			})
		}
		c.settle(j)
	}

	blocked := s.evals[j.blocked]
	waits := len(failed) > 0
	if waits && e != blocked {
		c := s.change("EvaluationUpdated")
		if blocked != nil {
			c.cancel(blocked, fmt.Sprintf("existing blocked evaluation exists for job %q", *j.ID))
		}
		blocked = c.newEval(j, api.Evaluation{
			Type: *j.Type, TriggeredBy: "queued-allocs", Status: "blocked", StatusDescription: "created to place remaining allocations",
			PreviousEval: e.ID, FailedTGAllocs: failed,
		})
	}
	c := s.change("EvaluationUpdated")
	done := *e
	done.QueuedAllocations, done.FailedTGAllocs = map[string]int{}, failed
	for _, g := range j.TaskGroups {
		done.QueuedAllocations[*g.Name] = j.missing(g)
	}
	if waits {
		j.blocked = blocked.ID
		s.enqueue(j)
	} else {
		if blocked != nil && e != blocked {
			c.cancel(blocked, fmt.Sprintf("evaluation %q successful", e.ID))
		}
		j.blocked = ""
		s.dequeue(j)
	}
	if waits && e == blocked {
		done.StatusDescription = e.StatusDescription // it continues to wait
	} else {
		done.Status, done.StatusDescription = "complete", ""
		if waits {
			done.BlockedEval = blocked.ID
		}
	}
	j.evaluating = false
	c.putEval(&done)
	c.settle(j)
}

// newEval stores an evaluation of a job.
func (c change) newEval(j *job, e api.Evaluation) *api.Evaluation {
	e.ID, e.Namespace, e.JobID, e.Priority, e.JobModifyIndex = newID(), *j.Namespace, *j.ID, *j.Priority, *j.JobModifyIndex
	e.CreateIndex, e.CreateTime = c.index, c.now
	k := key{e.Namespace, e.JobID}
	c.evalsOf[k] = append(c.evalsOf[k], e.ID)
	return c.putEval(&e)
}

func (c change) putEval(e *api.Evaluation) *api.Evaluation {
	e.ModifyIndex, e.ModifyTime = c.index, c.now
	c.evals[e.ID] = e
	c.publishEval(e)
	return e
}

func (c change) cancel(e *api.Evaluation, why string) {
	canceled := *e
	canceled.Status, canceled.StatusDescription = "canceled", why
	c.putEval(&canceled)
}

func (c change) publishEval(e *api.Evaluation) {
	c.publish(event{topic: "Evaluation", key: e.ID, namespace: e.Namespace, filters: []string{e.JobID, ""}, payload: map[string]any{"Evaluation": e}})
}

// A spot is where an allocation of a job is.
type spot struct {
	node  *node
	group string
}

// A placement is a node that was chosen for an allocation; what it uses of the
// node is taken already.
type placement struct {
	group   *api.TaskGroup
	node    *node
	use     feasible.Amount
	metrics *api.AllocationMetric
}

// choose finds nodes for a job's missing allocations of each group, and returns the
// metrics of groups without one. s.mu is held.
func (s *cluster) choose(j *api.Job, have []spot, missing func(*api.TaskGroup) int) (placed []placement, failed map[string]*api.AllocationMetric) {
	ineligible := map[string]bool{}
	for _, g := range j.TaskGroups {
		for left := missing(g); left > 0; left-- {
			p, ok := s.pick(j, g, have, ineligible)
			if !ok {
				p.metrics.CoalescedFailures = left - 1
				exhaust(p.metrics, g, left)
				if failed == nil {
					failed = map[string]*api.AllocationMetric{}
				}
				failed[*g.Name] = p.metrics
				break
			}
			p.node.left = p.node.left.Plus(-1, p.use)
			placed = append(placed, p)
			have = append(have, spot{p.node, *g.Name})
		}
	}
	return placed, failed
}

// exhaust fills in how much the tasks asked for of the exhausted resources.
func exhaust(m *api.AllocationMetric, g *api.TaskGroup, times int) {
	if m.NodesExhausted == 0 {
		return
	}
	m.ResourcesExhausted = map[string]*api.Resources{}
	for _, t := range g.Tasks {
		r := &api.Resources{CPU: new(int), MemoryMB: new(int)}
		if m.DimensionExhausted["cpu"] > 0 {
			*r.CPU = *t.Resources.CPU * times
		}
		if m.DimensionExhausted["memory"] > 0 {
			*r.MemoryMB = *t.Resources.MemoryMB * times
		}
		m.ResourcesExhausted[t.Name] = r
	}
}

// pick returns the best node for a group. ineligible has the classes of nodes that are
// known to break a constraint of the job or of a group.
func (s *cluster) pick(j *api.Job, g *api.TaskGroup, have []spot, ineligible map[string]bool) (placement, bool) {
	m := &api.AllocationMetric{NodePool: *j.NodePool, NodesAvailable: map[string]int{}}
	count := func(counts *map[string]int, what string) {
		if what == "" {
			return
		}
		if *counts == nil {
			*counts = map[string]int{}
		}
		(*counts)[what]++
	}
	best, top := placement{group: g, metrics: m}, 0.0
	for _, n := range s.nodes {
		if !feasible.Candidate(n.Node, j) || n.Status != "ready" || n.SchedulingEligibility != "eligible" {
			continue
		}
		m.NodesInPool++
		m.NodesEvaluated++
		m.NodesAvailable[n.Datacenter]++
		u, why := n.checkClass(j, g, ineligible)
		if why.filtered == "" {
			if d := distinctRefusal(n, j, g, have); d != "" {
				why = refusal{filtered: d}
			}
		}
		switch {
		case why.filtered != "":
			m.NodesFiltered++
			count(&m.ConstraintFiltered, why.filtered)
			count(&m.ClassFiltered, n.NodeClass)
		case why.exhausted != "":
			m.NodesExhausted++
			count(&m.DimensionExhausted, why.exhausted)
			count(&m.ClassExhausted, n.NodeClass)
		default:
			if score := n.score(u, j, g, have); best.node == nil || score > top {
				best.node, best.use, top = n, u, score
			}
		}
	}
	return best, best.node != nil
}

// A refusal says why a node cannot take a group, in Nomad's words; the zero
// value is none.
type refusal struct{ filtered, exhausted string }

// checkClass is check, except that it refuses the nodes of a class that was filtered
// before, as Nomad does, unless a constraint is about what is unique to a node.
func (n *node) checkClass(j *api.Job, g *api.TaskGroup, ineligible map[string]bool) (feasible.Amount, refusal) {
	ofJob, ofGroup := n.class, *g.Name+"\x00"+n.class
	if ineligible[ofJob] || ineligible[ofGroup] {
		return feasible.Amount{}, refusal{filtered: "computed class ineligible"}
	}
	if why := feasible.Broken(n.Node, j.Constraints); why != "" {
		ineligible[ofJob] = !slices.ContainsFunc(j.Constraints, feasible.Unique)
		return feasible.Amount{}, refusal{filtered: why}
	}
	u, why := n.check(j, g)
	if why.filtered != "" {
		ineligible[ofGroup] = !slices.ContainsFunc(feasible.GroupConstraints(g), feasible.Unique)
	}
	return u, why
}

// check returns what a group would use of a node, or why it cannot run there.
func (n *node) check(j *api.Job, g *api.TaskGroup) (feasible.Amount, refusal) {
	if why := feasible.Filtered(n.Node, j, g); why != "" {
		return feasible.Amount{}, refusal{filtered: why}
	}
	use, why := feasible.Take(n.Node, n.left, g)
	return use, refusal{exhausted: why}
}

// distinctRefusal checks the constraints about a job's other allocations.
func distinctRefusal(n *node, j *api.Job, g *api.TaskGroup, have []spot) string {
	for level, list := range [][]*api.Constraint{j.Constraints, g.Constraints} {
		ofLevel := func(a spot) bool { return level == 0 || a.group == *g.Name }
		for _, c := range list {
			switch c.Operand {
			case "distinct_hosts":
				if on, err := strconv.ParseBool(c.RTarget); err == nil && !on {
					continue
				}
				if slices.ContainsFunc(have, func(a spot) bool { return a.node == n && ofLevel(a) }) {
					return "distinct_hosts"
				}
			case "distinct_property":
				value, ok := feasible.Target(n.Node, c.LTarget)
				if !ok {
					return fmt.Sprintf("missing property %q", c.LTarget)
				}
				allowed, used := 1, 0
				if c.RTarget != "" {
					allowed, _ = strconv.Atoi(c.RTarget) // admitted as a number
				}
				for _, a := range have {
					if v, ok := feasible.Target(a.node.Node, c.LTarget); ok && v == value && ofLevel(a) {
						used++
					}
				}
				if used >= allowed {
					return fmt.Sprintf("distinct_property: %s=%s used by %d allocs", c.LTarget, value, used)
				}
			}
		}
	}
	return ""
}

// score returns Nomad's score with its default algorithm: the mean of how full the node
// becomes, of a penalty for having the job already, and of the affinities.
func (n *node) score(use feasible.Amount, j *api.Job, g *api.TaskGroup, have []spot) float64 {
	sum, terms := feasible.BinPack(n.Node, n.left, use), 1.0

	same := 0
	for _, a := range have {
		if a.node == n && a.group == *g.Name {
			same++
		}
	}
	if same > 0 {
		sum -= float64(same+1) / float64(*g.Count)
		terms++
	}
	if likes := feasible.Likes(n.Node, j, g); likes != 0 {
		sum += likes
		terms++
	}
	return sum / terms
}

// plan answers what registering a job would do. It changes nothing.
func (s jobAPI) plan(_ http.Header, r *http.Request) (any, error) {
	var req api.JobPlanRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Job == nil:
		return nil, badRequest("Job must be specified")
	case req.Job.ID == nil || *req.Job.ID == "":
		return nil, badRequest("Job must have a valid ID")
	case *req.Job.ID != pathID(r):
		return nil, badRequest("Job ID does not match")
	}
	j := s.canonical(r, req.Job)
	warnings, err := s.admit(j)
	if err != nil {
		return nil, err
	}
	old := s.jobs[key{*j.Namespace, *j.ID}]
	resp := api.JobPlanResponse{Warnings: warnings, Annotations: &api.PlanAnnotations{DesiredTGUpdates: map[string]*api.DesiredUpdates{}}}
	missing := func(g *api.TaskGroup) int { return *g.Count }
	var have []spot
	if old != nil {
		if err := checkUpdate(old.Job, j); err != nil {
			return nil, err
		}
		resp.JobModifyIndex = *old.JobModifyIndex
		if same(old.Job, j) {
			missing, have = old.missing, old.spots()
		}
	}
	for _, g := range j.TaskGroups {
		resp.Annotations.DesiredTGUpdates[*g.Name] = &api.DesiredUpdates{Place: uint64(missing(g))}
	}
	placed, failed := s.choose(j, have, missing)
	for _, p := range placed {
		p.node.left = p.node.left.Plus(1, p.use)
	}
	if failed != nil {
		resp.FailedTGAllocs = failed
		resp.CreatedEvals = []*api.Evaluation{{
			ID: newID(), Namespace: *j.Namespace, JobID: *j.ID, Priority: *j.Priority, Type: *j.Type, TriggeredBy: "queued-allocs",
			Status: "blocked", StatusDescription: "created to place remaining allocations", FailedTGAllocs: failed,
		}}
	}
	return resp, nil
}

// jobEvaluations answers with the newest first, also for a purged job.
func (s jobAPI) jobEvaluations(_ http.Header, r *http.Request) (any, error) {
	list := []*api.Evaluation{}
	for _, id := range slices.Backward(s.evalsOf[key{namespaceOf(r), pathID(r)}]) {
		list = append(list, s.evals[id])
	}
	return list, nil
}

func (s clusterAPI) getEvaluation(_ http.Header, r *http.Request) (any, error) {
	id := pathID(r)
	if err := checkID(id, "failed to lookup eval: eval"); err != nil {
		return nil, err
	}
	if e := s.evals[id]; e != nil {
		return e, nil
	}
	return nil, notFound("eval not found")
}

// same reports whether a job that is registered again is unchanged.
func same(old, j *api.Job) bool {
	text := func(j *api.Job) string {
		spec := *j
		spec.Status, spec.StatusDescription, spec.Stable, spec.Version, spec.SubmitTime = nil, nil, nil, nil, nil
		spec.CreateIndex, spec.ModifyIndex, spec.JobModifyIndex = nil, nil, nil
		b, err := json.Marshal(spec)
		if err != nil {
			panic(err) // it came as JSON
		}
		return string(b)
	}
	return text(old) == text(j)
}
