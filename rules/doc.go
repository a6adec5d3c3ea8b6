// Package rules owns the rules file: it loads, checks and compiles it, and decides for each job
// which rule takes it and what Nomad is asked for. It is pure: no network, no clock, no logger.
package rules
