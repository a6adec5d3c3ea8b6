package web

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"switchyard/rules"
)

// A PlacementRow is one part of a placement for people. The texts may hold what a stranger wrote.
type PlacementRow struct {
	What  string // constraint, device, cpu, …; "": more about the row before
	Value string
	From  string // where it came from: rule linux, label gpu, defaults
}

// PlacementRows is the placement of a routed job, in the words of `switchyard explain`.
func PlacementRows(d rules.Decision) (rows []PlacementRow) {
	p := d.Placement
	row := func(what, value, from string) { rows = append(rows, PlacementRow{what, value, from}) }
	single := func(what, value, key string) {
		if value != "" && value != "0" {
			row(what, value, p.From[key])
		}
	}
	single("jobspec", p.Jobspec, "jobspec")
	single("dispatch", p.Dispatch, "dispatch")
	for _, k := range slices.Sorted(maps.Keys(p.DispatchMeta)) {
		row("meta", k+"="+p.DispatchMeta[k], p.From["dispatch_meta."+k])
	}
	for _, c := range p.Constraints {
		row("constraint", strings.TrimSpace(c.Attribute+" "+c.Operator+" "+c.Value), c.From)
	}
	for _, a := range p.Affinities {
		row("affinity", fmt.Sprintf("%s %s %s, weight %d", a.Attribute, a.Operator, a.Value, a.Weight), a.From)
	}
	for _, dev := range p.Devices {
		row("device", fmt.Sprintf("%d × %s", dev.Count, dev.Name), dev.From)
		for _, c := range dev.Constraints {
			row("", strings.TrimSpace(c.Attribute+" "+c.Operator+" "+c.Value), c.From)
		}
	}
	size := func(what string, n int, unit, key string) {
		if n != 0 {
			row(what, fmt.Sprintf("%d %s", n, unit), p.From["resources."+key])
		}
	}
	size("cpu", p.Resources.CPU, "MHz", "cpu")
	size("cores", p.Resources.Cores, "reserved", "cores")
	size("memory", p.Resources.MemoryMB, "MiB", "memory_mb")
	size("memory max", p.Resources.MemoryMaxMB, "MiB", "memory_max_mb")
	size("disk", p.Resources.DiskMB, "MiB", "disk_mb")
	single("node pool", p.NodePool, "node_pool")
	single("datacenters", strings.Join(p.Datacenters, ", "), "datacenters")
	single("namespace", p.Namespace, "namespace")
	single("priority", fmt.Sprint(p.Priority), "priority")
	for _, k := range slices.Sorted(maps.Keys(p.Task.Env)) {
		row("env", k+"="+p.Task.Env[k], p.From["task.env."+k])
	}
	for _, k := range slices.Sorted(maps.Keys(p.Task.Config)) {
		v, _ := json.Marshal(p.Task.Config[k]) // values are JSON values
		row("config", k+" = "+string(v), p.From["task.config."+k])
	}
	runner := fmt.Sprintf("%s scope, group %d", p.Runner.Scope, p.Runner.Group)
	if p.Runner.Scope == "enterprise" {
		runner = fmt.Sprintf("enterprise %s, group %d", p.Runner.Enterprise, p.Runner.Group)
	}
	row("runner", runner, p.From["runner.scope"])
	switch {
	case p.Dispatch != "":
		row("", "brings its own registration", p.From["dispatch"])
	case p.Runner.Registration == "own":
		row("", "brings its own registration", p.From["runner.registration"])
	case p.Runner.Registration == "token":
		row("", "registers itself by a token", p.From["runner.registration"])
	}
	if l := d.Limit; l != nil {
		row("limit", fmt.Sprintf("%d running per %s, counted as %s", l.Running, l.Per, l.Key), "rule "+d.Rule)
	}
	if d.TimeLimit != 0 {
		row("time limit", d.TimeLimit.String(), d.From["time_limit"])
	}
	for i, f := range d.Fallback {
		said := "after " + f.After.String() + ": "
		if f.Reason != "" {
			row("fallback", said+"left out, "+f.Reason, fmt.Sprintf("rule %s, fallback %d", d.Rule, i+1))
			continue
		}
		row("fallback", said+strings.Join(changes(d.Placement, f.Placement), ", "), fmt.Sprintf("rule %s, fallback %d", d.Rule, i+1))
	}
	return rows
}

// changes says in what a fallback differs from the placement.
func changes(before, after rules.Placement) []string {
	lines := func(p rules.Placement) (lines []string) {
		for _, r := range PlacementRows(rules.Decision{Placement: p}) {
			lines = append(lines, r.What+" "+r.Value)
		}
		return lines
	}
	was, is := lines(before), lines(after)
	var said []string
	for _, l := range is {
		if !slices.Contains(was, l) {
			said = append(said, l)
		}
	}
	for _, l := range was {
		what, _, _ := strings.Cut(l, " ")
		replaced := slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, what+" ") })
		if many := what == "constraint" || what == "affinity" || what == "device"; !slices.Contains(is, l) && (many || !replaced) {
			said = append(said, "without "+l)
		}
	}
	if said == nil {
		said = []string{"the same"}
	}
	return said
}

// A TraceRow is what became of one rule.
type TraceRow struct {
	Held string // yes; no; too: it would have taken the job that an earlier one took; ?: it cannot be told
	Rule string
	Why  string
}

// TraceRows is the trace of a decision.
func TraceRows(d rules.Decision) (rows []TraceRow) {
	after := false // the rule that ended the search
	for _, s := range d.Trace {
		held := "no"
		switch {
		case s.Held && after:
			held = "too"
		case s.Held:
			held = "yes"
		case s.Failed:
			held = "?"
		}
		after = after || s.Rule == d.Rule
		rows = append(rows, TraceRow{held, s.Rule, s.Why})
	}
	return rows
}
