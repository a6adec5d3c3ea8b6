package capacity

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"switchyard/router"
	"switchyard/router/feasible"

	"github.com/hashicorp/nomad/api"
)

// A shortage is why no node serves a demand: busy says it when nodes are full, say when none could ever.
type shortage struct {
	*demand
	nodes      int             // in service, in the job's pool and datacenters
	filtered   map[string]int  // of them, by what filtered them, in Nomad's words
	small      int             // of them, too small even when idle
	smallNodes []*host         // all those too small, filtered or not
	wouldDo    map[string]bool // nodes out of service that could run it, with why they are out
	aside      map[string]int  // the others out of service, by why they are
	unread     int             // of those, not looked at
}

// unplaced returns the problem of a group for which a plan found no node, if it can
// never have one.
func (s *survey) unplaced(ctx context.Context, r Route, in *region, job *api.Job, g *api.TaskGroup, m *api.AllocationMetric) ([]problem, error) {
	inPool := in.pool(job)
	if len(inPool) == 0 {
		return []problem{{code: EmptyPool, warning: true, say: func(r Route) string {
			return fmt.Sprintf("no node can serve it now: there is none%s%s; a pool that scales from zero may be empty", poolName(job), r.from("node_pool"))
		}}}, nil
	}
	short := shortage{
		demand: demandOf(job, g), nodes: m.NodesEvaluated, filtered: m.ConstraintFiltered,
		wouldDo: map[string]bool{}, aside: map[string]int{},
	}
	var out, large []*host
	there := false
	for _, h := range inPool {
		if !feasible.InDatacenters(datacentersOf(job), h.datacenter) {
			continue
		}
		there = true
		switch {
		case h.out != "":
			out = append(out, h)
		case fits(h, short.sizes):
			large = append(large, h)
		default:
			short.smallNodes = append(short.smallNodes, h)
		}
	}
	if !there {
		return nil, nil // unknownDatacenters has it
	}
	if m.NodesExhausted > 0 {
		// Some nodes passed every filter and are too small or full.
		if m.NodesExhausted > len(short.smallNodes) {
			return nil, nil // one of them is large enough
		}
		short.small = m.NodesExhausted
		if len(large) > 0 {
			// Perhaps all that passed are too small; ask about the others alone.
			only := api.NewConstraint(nodeID, "regexp", among(large, short.smallNodes))
			narrow := *job
			narrow.Constraints = slices.Concat([]*api.Constraint{only}, job.Constraints)
			plan, problems, err := s.plan(ctx, r, &narrow)
			if err != nil || problems != nil {
				return problems, err
			}
			m = plan.FailedTGAllocs[*g.Name]
			if m == nil || m.NodesExhausted > 0 {
				return nil, nil
			}
			small := fmt.Sprintf("%s %s %s", only.LTarget, only.Operand, only.RTarget)
			short.nodes, short.small, short.filtered = m.NodesEvaluated, m.ConstraintFiltered[small], maps.Clone(m.ConstraintFiltered)
			delete(short.filtered, small)
		}
	}
	for what := range short.filtered {
		if strings.HasPrefix(what, "CSI ") || what == noHostVolume && exclusive(g) {
			return nil, nil // volumes and their plugins come and go, and others hold them
		}
	}
	if short.small+len(short.filtered) == 0 && (short.nodes > 0 || len(large)+len(short.smallNodes) > 0) {
		return nil, nil // the nodes are not to blame, or have just come or gone
	}
	would, unread, err := in.wouldDo(ctx, s.Client, out, short.demand)
	if err != nil {
		return nil, err
	}
	for _, h := range out {
		if would[h] {
			short.wouldDo[fmt.Sprintf("%s (%s)", h.name, h.out)] = true
		} else {
			short.aside[h.out]++
		}
	}
	short.unread = unread
	p := problem{code: NoNode, away: len(short.wouldDo) > 0, again: unread > 0 || short.filtered[noHostVolume] > 0, say: short.say}
	if short.nodes == 0 {
		p.code, p.warning = EmptyPool, true
	}
	return []problem{p}, nil
}

// noHostVolume is what Nomad says of nodes without a host volume that a job asks for. Since
// 1.10 it also says so while such a volume is not ready, or is held by another allocation that
// has it for itself (HostVolumeChecker in scheduler/feasible, v1.10.5 and v2.0.5, read 2026-11-30).
const noHostVolume = "missing compatible host volumes"

// exclusive reports whether a group asks for a host volume for itself.
func exclusive(g *api.TaskGroup) bool {
	for _, v := range g.Volumes {
		if v.Type == "host" && v.AccessMode == "single-node-single-writer" {
			return true
		}
	}
	return false
}

// among returns a regular expression that matches the IDs of nodes, and none of the others,
// by the least that they begin with: there may be thousands of them.
func among(nodes, others []*host) string {
	var begin []string
	var add func(nodes, others []*host, n int)
	add = func(nodes, others []*host, n int) { // which begin with the same n characters
		if len(others) == 0 || n == len(nodes[0].id) {
			begin = append(begin, regexp.QuoteMeta(nodes[0].id[:n]))
			return
		}
		next := func(h *host) string { return h.id[:min(n+1, len(h.id))] }
		apart := map[string][2][]*host{}
		for i, hosts := range [][]*host{nodes, others} {
			for _, h := range hosts {
				both := apart[next(h)]
				both[i] = append(both[i], h)
				apart[next(h)] = both
			}
		}
		for _, key := range slices.Sorted(maps.Keys(apart)) {
			if both := apart[key]; len(both[0]) > 0 {
				add(both[0], both[1], n+1)
			}
		}
	}
	add(nodes, others, 0)
	return "^(" + strings.Join(begin, "|") + ")"
}

func (s *shortage) say(r Route) string {
	parts := s.filters(r)
	if s.small > 0 {
		parts = append(parts, s.tooSmall(r))
	}
	where := poolName(s.job)
	if d := datacentersOf(s.job); !slices.Contains(d, "*") {
		if where != "" {
			where += " and"
		}
		where += " in " + strings.Join(d, ", ")
	}
	text := fmt.Sprintf("no node can serve it: of %s in service%s, %s", router.Count(s.nodes, "node"), where, strings.Join(parts, "; "))
	if s.nodes == 0 {
		text = fmt.Sprintf("no node can serve it now: none%s is in service", where)
	}
	if len(s.wouldDo) > 0 {
		text += "; nodes out of service that could: " + names(s.wouldDo)
	} else if len(s.aside) > 0 {
		var aside []string
		for _, why := range slices.Sorted(maps.Keys(s.aside)) {
			aside = append(aside, fmt.Sprintf("%d %s", s.aside[why], why))
		}
		text += "; out of service: " + strings.Join(aside, ", ")
	}
	if s.unread > 0 {
		text += fmt.Sprintf("; %s out of service %s not looked at", router.Count(s.unread, "node"), verb(s.unread, "was", "were"))
	}
	return text
}

// filters says what filtered nodes, most of them first.
func (s *shortage) filters(r Route) (parts []string) {
	for _, what := range byCount(s.filtered) {
		n := s.filtered[what]
		parts = append(parts, fmt.Sprintf("%d %s %s", n, verb(n, "lacks", "lack"), s.lacks(r, what)))
	}
	return parts
}

func byCount(counts map[string]int) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
}

// verb returns the form of a word that goes with a number.
func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// tooSmall says how many nodes are too small, and for which sizes.
func (s *shortage) tooSmall(r Route) string {
	var have, over, apart []string
	for _, size := range s.sizes {
		asked, most, least := size.show(size.ask)+size.from(r), 0, math.MaxInt
		for _, h := range s.smallNodes {
			most, least = max(most, size.have(h)), min(least, size.have(h))
		}
		if most < size.ask {
			have, over = append(have, size.show(most)), append(over, asked)
		}
		if least < size.ask {
			apart = append(apart, asked)
		}
	}
	if have == nil { // some have the one, some the other
		return fmt.Sprintf("%d %s %s together, even when idle", s.small, verb(s.small, "lacks", "lack"), strings.Join(apart, " and "))
	}
	return fmt.Sprintf("%d %s too small even when idle: at most %s, and it asks for %s",
		s.small, verb(s.small, "is", "are"), strings.Join(have, " and "), strings.Join(over, " and "))
}
