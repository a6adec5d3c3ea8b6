// Package router owns the domain: jobs, runners and deliveries with their
// states, and what the packages below it ask of each other. Package server runs
// them as a process; the other packages below are the technology.
package router

import (
	"switchyard/rules"
)

// The words of the rules file that cross the router's own interfaces, so that
// the packages below need not import rules for their names.
type (
	Decision   = rules.Decision
	Placement  = rules.Placement
	Constraint = rules.Constraint
	Affinity   = rules.Affinity
	Device     = rules.Device
	Repo       = rules.Repo
	Run        = rules.Run
	Limit      = rules.Limit
	Fallback   = rules.Fallback
	Duration   = rules.Duration
	Example    = rules.Example
)
