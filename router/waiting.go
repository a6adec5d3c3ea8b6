package router

import (
	"strings"
	"time"
)

// OpenJobs are jobs that have all of this in common.
type OpenJobs struct {
	Rule      string      // of the decision; "": none yet
	State     JobState    // Held, Queued, Retrying, Dispatched or Running
	Limited   bool        // in Held: by a rule's limit, not by GitHub
	Reason    string      // in Retrying: its reason's first 48 characters
	Runner    RunnerState // of the current try; "": none
	Placed    bool        // that one has a node
	Explained bool        // Nomad said why it has none
	Never     bool        // and that none could ever run it

	Jobs   int
	Oldest time.Time // when the first of them was received
}

// Cause says why these jobs wait; "" for those that run.
func (o OpenJobs) Cause() Cause {
	switch o.State {
	case Held:
		if o.Limited {
			return WaitsLimit
		}
		return WaitsApproval
	case Queued:
		return WaitsQueued
	case Retrying:
		for reason, begins := range map[Cause][]string{
			WaitsNomad: {SaysNomad, SaysRefused}, WaitsGitHubLimit: {SaysGitHubLimit}, WaitsGitHub: {SaysNoRunner, SaysNoRun, saysNoConfig, SaysUnknown},
		} {
			for _, b := range begins {
				if strings.HasPrefix(o.Reason, b) {
					return reason
				}
			}
		}
		return WaitsRunner
	case Dispatched:
		switch {
		case o.Placed || o.Runner != RunnerDispatched:
			return WaitsStarting
		case o.Never:
			return WaitsNever
		case o.Explained:
			return WaitsBusy
		}
		return WaitsPlacing
	}
	return ""
}

// A Cause is why a job waits, as metrics have it.
type Cause string

// The reasons.
const (
	WaitsApproval    Cause = "approval"     // on GitHub: for an approval, or others of its concurrency group
	WaitsLimit       Cause = "limit"        // for a place under its rule's limit
	WaitsQueued      Cause = "queued"       // for the router
	WaitsNomad       Cause = "nomad"        // Nomad could not take its runner, or refused it
	WaitsGitHub      Cause = "github"       // GitHub did not answer as it should
	WaitsGitHubLimit Cause = "github_limit" // GitHub takes no registrations for now
	WaitsRunner      Cause = "runner"       // its runner was lost, and it is tried again
	WaitsPlacing     Cause = "placing"      // Nomad has its runner, and has not said more
	WaitsBusy        Cause = "no_node_free" // nodes that could run its runner are busy
	WaitsNever       Cause = "no_node_fits" // no node could ever run its runner
	WaitsStarting    Cause = "starting"     // its runner has a node
)

// How the reasons of jobs begin that are tried again; under 48 characters, as
// OpenJobs.Reason has no more.
const (
	SaysNomad       = "Nomad could not take the job yet"
	SaysRefused     = "Nomad refuses the job"
	SaysGitHubLimit = "GitHub takes no runner for it now"
	SaysNoRunner    = "no runner is started for it now"
	SaysNoRun       = "GitHub did not say what started the run yet"
	saysNoConfig    = "ask GitHub "
	SaysUnknown     = "Nomad has its runner"
)

// A Demand is the jobs that ask for the same labels.
type Demand struct {
	Labels []string // as they came
	Jobs   int
	Waits  []time.Duration // of those that a runner took, from when we heard of them
}
