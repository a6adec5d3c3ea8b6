package health

import (
	"fmt"
	"slices"

	"switchyard/router"
)

// overflows returns the troubles of the variables by which jobs overflow that a scope may see.
func overflows(status []router.OverflowStatus, within router.Scope) (all []router.Trouble) {
	named := map[router.Cause]int{}
	for _, s := range status {
		if !s.In(within) || s.Failing == "" && !s.State.On() && s.State != router.OverflowLeft {
			continue
		}
		t := router.Trouble{
			Cause: router.CauseOverflow, Severity: router.Info, Since: s.Since,
			What: fmt.Sprintf("new jobs of rule %s run elsewhere: %s is %s", s.Rule, s.Name, s.To),
			Said: s.Why, Fix: "nothing need be done: it is set back when there is room; add nodes if it is set often",
		}
		switch {
		case s.Failing != "" && s.State.On():
			t.Cause, t.Severity, t.Since, t.Said, t.Fix = router.CauseOverflowFails, router.Warning, s.FailingSince, s.Failing, s.Fix
			t.What = fmt.Sprintf("GitHub does not let %s be changed, by which jobs of rule %s overflow; it may be %s", s.Name, s.Rule, s.To)
		case s.Failing != "":
			t.Cause, t.Severity, t.Since, t.Said, t.Fix = router.CauseOverflowFails, router.Warning, s.FailingSince, s.Failing, s.Fix
			t.What = fmt.Sprintf("jobs of rule %s wait and cannot overflow, as %s cannot be set", s.Rule, s.Name)
		case s.State == router.OverflowLeft:
			t.Cause, t.Since, t.Fix = router.CauseOverflowLeft, s.At, s.Fix
			t.What = fmt.Sprintf("%s, by which jobs of rule %s overflow, is as somebody has set it", s.Name, s.Rule)
			if t.Fix == "" {
				t.Fix = "set it to " + s.Back + " when jobs are to run on your own nodes"
			}
		}
		said := s.Whose() + ": " + t.Said
		named[t.Cause]++
		i := slices.IndexFunc(all, func(o router.Trouble) bool { return o.Cause == t.Cause })
		if i < 0 {
			t.Said = said
			all = append(all, t)
			continue
		}
		of := &all[i]
		of.Since = earlier(of.Since, t.Since)
		if named[t.Cause] <= router.TroubleNames {
			of.Said += "; " + s.Name + " of " + said
		}
		of.What = map[router.Cause]string{
			router.CauseOverflow:      "several variables send new jobs elsewhere",
			router.CauseOverflowLeft:  "several variables by which jobs overflow are as somebody has set them",
			router.CauseOverflowFails: "several variables by which jobs overflow cannot be changed",
		}[t.Cause]
	}
	return all
}
