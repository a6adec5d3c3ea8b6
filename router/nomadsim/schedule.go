package nomadsim

import (
	"cmp"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// addEval makes an evaluation of a job. s.mu is held.
func (s *Server) addEval(j *job, trigger string, index uint64) *api.Evaluation {
	now := s.cfg.Now().UnixNano()
	e := &api.Evaluation{
		ID: newID(), Namespace: *j.Namespace, Priority: *j.Priority, Type: *j.Type, TriggeredBy: trigger, JobID: *j.ID,
		JobModifyIndex: *j.JobModifyIndex, Status: "pending", CreateIndex: index, ModifyIndex: index, CreateTime: now, ModifyTime: now,
	}
	s.evals[e.ID] = e
	j.evals = append(j.evals, e)
	return e
}

func (s *Server) publishEval(e *api.Evaluation, index uint64) {
	s.publish(index, event{topic: "Evaluation", kind: "EvaluationUpdated", key: e.ID, namespace: e.Namespace, filters: []string{e.JobID}, name: "Evaluation", payload: ptr(*e)})
}

// evaluate places what a job asks for, and has the rest wait. s.mu is held.
func (s *Server) evaluate(j *job, trigger string, index uint64) *api.Evaluation {
	e := s.addEval(j, trigger, index)
	j.unplaced = map[string]int{}
	for _, g := range j.TaskGroups {
		for range *g.Count {
			j.unplaced[*g.Name]++
		}
	}
	s.schedule(j, e, s.nodes, index)
	return e
}

// schedule places a job's waiting allocations on some of the nodes, and
// completes the evaluation. s.mu is held.
func (s *Server) schedule(j *job, e *api.Evaluation, nodes []*node, index uint64) {
	e.QueuedAllocations = map[string]int{}
	left := 0
	for _, g := range j.TaskGroups {
		for j.unplaced[*g.Name] > 0 {
			n, m := pick(nodes, j.Job, g)
			if n == nil {
				if e.FailedTGAllocs == nil {
					e.FailedTGAllocs = map[string]*api.AllocationMetric{}
				}
				m.CoalescedFailures = j.unplaced[*g.Name] - 1
				e.FailedTGAllocs[*g.Name] = m
				break
			}
			j.unplaced[*g.Name]--
			s.place(j, g, n, m, e, index)
		}
		e.QueuedAllocations[*g.Name] = j.unplaced[*g.Name]
		left += j.unplaced[*g.Name]
	}
	e.Status = "complete"
	if left > 0 {
		b := s.addEval(j, "queued-allocs", index)
		b.Status, b.PreviousEval, b.StatusDescription = "blocked", e.ID, "created to place remaining allocations"
		e.BlockedEval = b.ID
		s.wait(j)
		s.publishEval(b, index)
	} else {
		s.unblock(j)
	}
	s.publishEval(e, index)
}

// wait puts a job among those that wait for a node. s.mu is held.
func (s *Server) wait(j *job) {
	if j.isBlocked {
		return
	}
	j.isBlocked = true
	at, _ := slices.BinarySearchFunc(s.blocked, j, func(a, b *job) int {
		return cmp.Or(cmp.Compare(*b.Priority, *a.Priority), cmp.Compare(*a.CreateIndex, *b.CreateIndex))
	})
	s.blocked = slices.Insert(s.blocked, at, j)
}

// unblock takes a job out of those that wait, and ends its blocked
// evaluation. s.mu is held.
func (s *Server) unblock(j *job) {
	if !j.isBlocked {
		return
	}
	j.isBlocked = false
	s.blocked = slices.DeleteFunc(s.blocked, func(b *job) bool { return b == j })
	for _, e := range j.evals {
		if e.Status == "blocked" {
			e.Status = "cancelled"
		}
	}
}

// freed offers a node on which something ended to the jobs that wait. s.mu is
// held.
func (s *Server) freed(n *node, index uint64) {
	if s.closed {
		return
	}
	for _, j := range slices.Clone(s.blocked) {
		for _, g := range j.TaskGroups {
			if j.unplaced[*g.Name] == 0 {
				continue
			}
			if _, why := n.check(j.Job, g); why.filtered != "" || why.exhausted != "" || !eligible(n, j.Job) {
				continue
			}
			e := s.addEval(j, "queued-allocs", index)
			s.schedule(j, e, []*node{n}, index)
		}
	}
}

// eligible reports whether a node is in the job's pool and datacenters.
func eligible(n *node, j *api.Job) bool {
	return (*j.NodePool == "all" || n.NodePool == *j.NodePool) && inDatacenters(n, j)
}

func inDatacenters(n *node, j *api.Job) bool {
	return slices.ContainsFunc(j.Datacenters, func(pattern string) bool {
		ok, err := path.Match(pattern, n.Datacenter)
		return ok && err == nil
	})
}

// pick returns the node that suits a group best, nil when none does, and how
// the choice went. s.mu is held.
func pick(nodes []*node, j *api.Job, g *api.TaskGroup) (best *node, m *api.AllocationMetric) {
	m = &api.AllocationMetric{
		NodesAvailable: map[string]int{}, ClassFiltered: map[string]int{}, ConstraintFiltered: map[string]int{},
		ClassExhausted: map[string]int{}, DimensionExhausted: map[string]int{},
	}
	top := 0.0
	for _, n := range nodes {
		if *j.NodePool != "all" && n.NodePool != *j.NodePool {
			continue
		}
		m.NodesInPool++
		if !inDatacenters(n, j) || n.Status != "ready" || n.SchedulingEligibility != "eligible" {
			continue
		}
		m.NodesAvailable[n.Datacenter]++
		m.NodesEvaluated++
		use, why := n.check(j, g)
		switch {
		case why.filtered != "":
			m.NodesFiltered++
			m.ConstraintFiltered[why.filtered]++
			if n.NodeClass != "" {
				m.ClassFiltered[n.NodeClass]++
			}
			continue
		case why.exhausted != "":
			m.NodesExhausted++
			m.DimensionExhausted[why.exhausted]++
			if n.NodeClass != "" {
				m.ClassExhausted[n.NodeClass]++
			}
			continue
		}
		if score := n.score(use, j, g); best == nil || score > top {
			best, top = n, score
		}
	}
	return best, m
}

// A refusal says why a node cannot take a group, in Nomad's words; the zero
// value is none.
type refusal struct{ filtered, exhausted string }

// use is what an allocation takes of a node.
type use struct {
	cpu, cores, memory, disk int
	devices                  []int // in the order of the node's
}

// check reports what a group would take of a node, or why it cannot.
func (n *node) check(j *api.Job, g *api.TaskGroup) (use, refusal) {
	constraints := func(list []*api.Constraint) string {
		for _, c := range list {
			l, lok := n.resolve(c.LTarget)
			r, rok := n.resolve(c.RTarget)
			if !holds(c.Operand, l, lok, r, rok) {
				return fmt.Sprintf("%s %s %s", c.LTarget, c.Operand, c.RTarget)
			}
		}
		return ""
	}
	var u use
	if f := constraints(j.Constraints); f != "" {
		return u, refusal{filtered: f}
	}
	for _, t := range g.Tasks {
		if d := n.Drivers[t.Driver]; d == nil || !d.Detected || !d.Healthy {
			return u, refusal{filtered: "missing drivers"}
		}
	}
	all := slices.Clone(g.Constraints)
	for _, t := range g.Tasks {
		all = append(all, t.Constraints...)
	}
	if f := constraints(all); f != "" {
		return u, refusal{filtered: f}
	}

	u.devices = make([]int, len(n.devices))
	have := n.NodeResources
	total := make([]int, len(n.devices)) // asked for, on an empty node
	for _, t := range g.Tasks {
		r := t.Resources
		u.cpu += *r.CPU
		if *r.Cores > 0 {
			u.cores += *r.Cores
			u.cpu += *r.Cores * int(have.Cpu.CpuShares) / max(int(have.Cpu.TotalCpuCores), 1)
		}
		u.memory += *r.MemoryMB
		for _, ask := range r.Devices {
			want := int(*ask.Count)
			fits := func(i int, taken []int, free int) bool {
				d := have.Devices[i]
				return matches(d, ask.Name) && deviceHolds(d, ask.Constraints) && free-taken[i] >= want
			}
			there, free := -1, -1
			for i := range have.Devices {
				if there < 0 && fits(i, total, healthy(have.Devices[i])) {
					there = i
				}
				if free < 0 && fits(i, u.devices, n.devices[i]) {
					free = i
				}
			}
			switch {
			case there < 0:
				return u, refusal{filtered: "missing devices"}
			case free < 0:
				return u, refusal{exhausted: "devices: no devices match request"}
			}
			total[there] += want
			u.devices[free] += want
		}
	}
	u.disk = *g.EphemeralDisk.SizeMB
	switch {
	case u.cores > n.cores:
		return u, refusal{exhausted: "cores"}
	case u.cpu > n.cpu:
		return u, refusal{exhausted: "cpu"}
	case u.memory > n.memory:
		return u, refusal{exhausted: "memory"}
	case u.disk > n.disk:
		return u, refusal{exhausted: "disk"}
	}
	return u, refusal{}
}

// score is higher for fuller nodes, so that large jobs find room, and for those
// that the affinities like.
func (n *node) score(u use, j *api.Job, g *api.TaskGroup) float64 {
	have := n.NodeResources
	full := func(total int64, left, take int) float64 {
		if total == 0 {
			return 0
		}
		return 1 - float64(left-take)/float64(total)
	}
	score := (full(have.Cpu.CpuShares, n.cpu, u.cpu) + full(have.Memory.MemoryMB, n.memory, u.memory)) / 2
	affinities := slices.Concat(j.Affinities, g.Affinities)
	for _, t := range g.Tasks {
		affinities = append(affinities, t.Affinities...)
	}
	sum, total := 0.0, 0.0
	for _, a := range affinities {
		l, lok := n.resolve(a.LTarget)
		r, rok := n.resolve(a.RTarget)
		w := float64(*a.Weight)
		total += max(w, -w)
		if holds(a.Operand, l, lok, r, rok) {
			sum += w
		}
	}
	if total > 0 && sum != 0 {
		score = (score + sum/total) / 2
	}
	return score
}

func (n *node) take(u use, sign int) {
	n.cpu -= sign * u.cpu
	n.cores -= sign * u.cores
	n.memory -= sign * u.memory
	n.disk -= sign * u.disk
	for i := range u.devices {
		n.devices[i] -= sign * u.devices[i]
	}
}

// plan answers what the registration of a job would come to. It leaves nothing
// behind.
func (s *Server) plan(r *http.Request) (any, error) {
	var req api.JobPlanRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if req.Job == nil || req.Job.ID == nil {
		return nil, badRequest("Job must be specified")
	}
	j := s.canonical(r, req.Job)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(j); err != nil {
		return nil, err
	}
	resp := api.JobPlanResponse{FailedTGAllocs: map[string]*api.AllocationMetric{}}
	if old := s.jobs[key{*j.Namespace, *j.ID}]; old != nil {
		resp.JobModifyIndex = *old.JobModifyIndex
	}
	for _, g := range j.TaskGroups {
		if n, m := pick(s.nodes, j, g); n == nil {
			m.CoalescedFailures = *g.Count - 1
			resp.FailedTGAllocs[*g.Name] = m
		}
	}
	return resp, nil
}

func (s *Server) jobEvaluations(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []api.Evaluation{}
	if j := s.jobs[key{namespaceOf(r), pathID(r)}]; j != nil {
		for i := len(j.evals) - 1; i >= 0; i-- { // newest first
			list = append(list, *j.evals[i])
		}
	}
	return list, nil
}

func (s *Server) getEvaluation(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.evals[pathID(r)]
	if e == nil {
		return nil, notFound("eval not found")
	}
	return *e, nil
}

func (s *Server) listEvaluations(r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []api.Evaluation{}
	for _, e := range s.evals {
		if ns := namespaceOf(r); (ns == "*" || ns == e.Namespace) && strings.HasPrefix(e.ID, r.URL.Query().Get("prefix")) {
			list = append(list, *e)
		}
	}
	slices.SortFunc(list, func(a, b api.Evaluation) int {
		return cmp.Or(cmp.Compare(a.CreateIndex, b.CreateIndex), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}
