// Package router owns the domain: jobs, runners and deliveries with their states,
// and the interfaces to GitHub and Nomad. The packages below it work with these
// types; package server runs them as one process.
package router

import (
	"switchyard/rules"
)

// The types of package rules that the router's interfaces use, so that the packages
// below need not import rules for them.
type (
	Decision    = rules.Decision
	Placement   = rules.Placement
	Constraint  = rules.Constraint
	Affinity    = rules.Affinity
	Device      = rules.Device
	Repo        = rules.Repo
	Run         = rules.Run
	Limit       = rules.Limit
	Fallback    = rules.Fallback
	Duration    = rules.Duration
	Example     = rules.Example
	RunnerGroup = rules.RunnerGroup
)

// DefaultGroup is GitHub's runner group Default.
const DefaultGroup = rules.DefaultGroup
