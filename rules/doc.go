// Package rules owns the rules file: it loads, checks and compiles it, and decides for each job
// which rule takes it and what Nomad is asked for. It is pure: no network, no clock, no logger.
//
// Every field of a placement is one entry of placementFields in fields.go: loading, merging,
// lint, tests, schema and reference follow it. To add one, add the entry, the field in Placement
// (decision.go), its effect on the Nomad job in overlayJob, overlayGroup or overlayTask of
// router/nomad/render.go, and run go test ./rules -update.
package rules
