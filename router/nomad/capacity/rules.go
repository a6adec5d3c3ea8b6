package capacity

import (
	"context"
	"fmt"

	"switchyard/rules"
)

// CheckRules asks the cluster, as Survey does, about the placements that the rules can
// choose, and returns the findings at the lines of their rules. What only a label causes, so
// that no rule works with it, is a warning at the label; what is only a warning there is left
// out.
func (c *Client) CheckRules(ctx context.Context, set *rules.Set) (found rules.Diagnostics, err error) {
	examples := set.Examples()
	routes := make([]Route, len(examples))
	for i, e := range examples {
		routes[i] = Route{Rule: e.Rule, Labels: e.Labels, Placement: e.Placement}
	}
	said, err := c.Survey(ctx, routes)
	if err != nil {
		return nil, err
	}
	against := make([]*Finding, len(examples)) // what keeps a route from working
	for i := range said {
		f := &said[i]
		for _, r := range f.Routes { // a finding for each rule, at its line
			if !f.Warning {
				against[r] = f
			}
			if e := examples[r]; e.Label == "" {
				d := set.AtRule(e.Rule, "rule "+e.Rule+": "+f.Message+" (a job with "+rules.ShowLabels(e.Labels)+")")
				d.Code, d.Warning = f.Code, f.Warning
				found = append(found, d)
			}
		}
	}
	works, served := map[string]bool{}, map[string]bool{} // rules that do, by themselves or a fallback; labels that need no finding
	for i, e := range examples {
		works[e.Rule] = works[e.Rule] || e.Label == "" && against[i] == nil
		served[e.Label] = served[e.Label] || against[i] == nil
	}
	for i, e := range examples {
		if e.Label == "" || !works[e.Rule] || served[e.Label] {
			continue
		}
		served[e.Label] = true
		d := set.AtLabel(e.Label, fmt.Sprintf("label %s: %s (and so for every rule)", e.Label, against[i].Message))
		d.Code, d.Warning = against[i].Code, true
		found = append(found, d)
	}
	return found, nil
}
