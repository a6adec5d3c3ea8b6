package web

import (
	"fmt"
	"strconv"
	"strings"

	"switchyard/rules"
)

// PlacementRows describes the placement of a routed job, in the words of `switchyard explain`.
func PlacementRows(d rules.Decision) []rules.Row {
	rows := d.Rows()
	row := func(what, value, from string) { rows = append(rows, rules.Row{What: what, Value: value, From: from}) }
	if l := d.Limit; l != nil {
		order := ""
		if l.Order != "" {
			order = ", order " + l.Order
		}
		row("limit", fmt.Sprintf("%d running per %s%s, counted as %s", l.Running, l.Per, order, l.Key), "rule "+d.Rule)
	}
	if from := d.From["urgency"]; from != "" {
		row("urgency", strconv.Itoa(d.Urgency), from)
	}
	if d.TimeLimit != 0 {
		row("time limit", d.TimeLimit.String(), d.From["time_limit"])
	}
	if d.Rerun != nil {
		row("rerun", d.Rerun.String(), "rule "+d.Rule)
	}
	for i, f := range d.Fallback {
		said := "after " + f.After.String() + ": "
		if f.Reason != "" {
			row("fallback", said+"left out, "+f.Reason, fmt.Sprintf("rule %s, fallback %d", d.Rule, i+1))
			continue
		}
		row("fallback", said+strings.Join(d.Changes(f.Placement), ", "), fmt.Sprintf("rule %s, fallback %d", d.Rule, i+1))
	}
	return rows
}

// A TraceRow is what became of one rule.
type TraceRow struct {
	Held string // yes; no; too: it would have taken the job that an earlier one took; ?: it cannot be told
	Rule string
	Why  string
}

// TraceRows describes the trace of a decision.
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
