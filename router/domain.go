// Package router owns the domain: jobs, runners and deliveries with their
// states, the worker that turns decided jobs into Nomad jobs, the claim, and
// the App that runs them. Technology lives in the packages below it.
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
