package server

import (
	"slices"
	"time"

	"switchyard/router"
	"switchyard/router/health"
)

// A Readiness is the answer of /readyz. Its JSON form is a contract.
//
// Only what keeps this process from doing its part makes it not ready, which is the store:
// without it no delivery can be taken. What all replicas would suffer from together, such as a
// Nomad that is down, makes it degraded: deliveries are still taken, and wait. To take it out of
// service would lose them.
type Readiness struct {
	Status string                  `json:"status"`           // ok, degraded or not ready
	Reason string                  `json:"reason,omitempty"` // of the first check that is not ok
	Checks []Check                 `json:"checks"`
	Jobs   map[router.JobState]int `json:"jobs,omitempty"` // how many are in each state; null when the store does not say
	Rules  router.RulesStatus      `json:"rules"`

	Replicas []router.StatusReplica `json:"replicas,omitempty"` // as in router.Status

	Troubles []router.Trouble `json:"troubles"` // as in router.Status, without what is about single jobs
}

// A Check is the state of one thing.
type Check struct {
	Name   string    `json:"name"`             // store, clock, leader, first_look, nomad, github, deliveries, disk, jobs or rules
	Status string    `json:"status"`           // ok, warning or failed
	Reason string    `json:"reason,omitempty"` // one sentence
	Since  time.Time `json:"since,omitzero"`
}

// readiness checks everything.
func readiness(h *health.Health, inForce router.RulesStatus, replicas []router.StatusReplica) Readiness {
	status := h.Status(nil)
	r := Readiness{Status: status.Status, Jobs: h.Counts(), Rules: inForce, Replicas: replicas, Troubles: slices.Clone(status.Troubles)}
	for i := range r.Troubles { // whoever may ask here may know nothing of single jobs
		t := &r.Troubles[i]
		t.Where, t.Repositories, t.Labels, t.Groups = "", []string{}, []string{}, []router.TroubleGroup{}
		if t.Jobs > 0 {
			t.Said = ""
		}
	}
	r.Rules.Who, r.Rules.Changes = "", []string{} // whoever may ask here may not read the rules
	for _, name := range []string{"store", "clock", "leader", "first_look", "nomad", "github", "deliveries", "disk", "jobs", "rules"} {
		check := Check{Name: name, Status: "ok"}
		for _, t := range status.Troubles { // the worst first
			if health.Check(t.Cause) != name || t.Severity == router.Info {
				continue
			}
			check.Status, check.Reason, check.Since = "warning", t.What, t.Since
			if name == "store" {
				check.Reason = t.Said
			}
			if name == "store" || name == "clock" {
				check.Status = "failed"
			}
			if r.Reason == "" || name == "store" {
				r.Reason = check.Reason
			}
			break
		}
		r.Checks = append(r.Checks, check)
	}
	return r
}
