package health

import (
	"fmt"
	"slices"
	"strings"

	"switchyard/router"
)

// warmTroubles returns the troubles of rules whose warm runners keep failing.
func warmTroubles(list []router.WarmTrouble) (all []router.Trouble) {
	for _, noRoom := range []bool{false, true} {
		t := router.Trouble{Cause: router.CauseWarmFails, Severity: router.Warning}
		if noRoom {
			t.Cause, t.Severity = router.CauseWarmNoRoom, router.Info
		}
		rules, said, fixes := []string{}, []string(nil), []string(nil)
		for _, w := range list {
			if w.NoRoom != noRoom {
				continue
			}
			if t.Since.IsZero() || w.Since.Before(t.Since) {
				t.Since = w.Since
			}
			if !slices.Contains(rules, w.Rule) {
				rules = append(rules, w.Rule)
			}
			if len(said) < router.TroubleNames {
				said = append(said, "rule "+w.Rule+": "+w.Why)
				if !slices.Contains(fixes, w.Fix) {
					fixes = append(fixes, w.Fix)
				}
			}
		}
		of := fmt.Sprintf("%d rules", len(rules))
		switch len(rules) {
		case 0:
			continue
		case 1:
			of = "rule " + rules[0]
		}
		t.What = "warm runners of " + of + " keep failing; jobs get runners of their own meanwhile"
		if noRoom {
			t.What = "no node is free for the warm runners of " + of
		}
		t.Rules = rules[:min(len(rules), router.TroubleNames)]
		t.Said, t.Fix = strings.Join(said, "; "), strings.Join(fixes, "; ")
		all = append(all, t)
	}
	return all
}
