package web

import (
	"time"

	"switchyard/router"
)

// staleAfter is the age from which the console says how old what it shows is.
const staleAfter = 30 * time.Second

// A bar stands on top of every page while something is wrong.
type bar struct {
	First router.Trouble // the worst, and of those the newest
	Since string         // for how long it has lasted
	More  int            // other troubles
	Stale string         // how old what the page shows is; "": it is not
}

// barOf returns nil when all is well.
func barOf(s router.Status, now time.Time) *bar {
	b := &bar{}
	for _, t := range s.Troubles {
		switch {
		case t.Severity == router.Info:
		case b.First.Cause == "":
			b.First, b.Since = t, took(now.Sub(t.Since))
		default:
			b.More++
		}
		if t.Cause == router.CauseStore && now.Sub(t.Since) >= staleAfter {
			b.Stale = took(now.Sub(t.Since))
		}
	}
	if age := now.Sub(s.At); age >= staleAfter {
		b.Stale = took(age)
	}
	if b.First.Cause == "" && b.Stale == "" {
		return nil
	}
	return b
}
