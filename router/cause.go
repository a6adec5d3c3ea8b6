package router

import "time"

// A Cause is why a job is in its state, in one word; its Reason says the same to
// people. "": the state, or the Reason, is all there is to say.
type Cause string

// The causes of jobs that wait.
const (
	CauseApproval    Cause = "approval"      // Held: GitHub waits for an approval, or for others of its concurrency group
	CauseLimit       Cause = "limit"         // Held: all places under its rule's limit are taken
	CauseQueued      Cause = "queued"        // Queued: the router decides it next
	CauseNomad       Cause = "nomad"         // Retrying: Nomad could not take its runner
	CauseRefused     Cause = "nomad_refused" // Retrying: Nomad refuses its runner; or Unroutable: because of what a label asks for
	CauseGitHub      Cause = "github"        // Retrying: GitHub did not answer as it should
	CauseGitHubLimit Cause = "github_limit"  // Retrying: GitHub takes no registrations for now
	CauseRunner      Cause = "runner"        // Retrying: its runner was lost, stopped or given to another job
	CauseNoJob       Cause = "no_job"        // Retrying: GitHub left its runner idle
	CausePlacing     Cause = "placing"       // Dispatched: Nomad has its runner, and has not said more
	CauseNoNodeFree  Cause = "no_node_free"  // Dispatched: the nodes that could run its runner are busy
	CauseNoNodeFits  Cause = "no_node_fits"  // Dispatched: no node could ever run its runner
	CauseStarting    Cause = "starting"      // Dispatched: its runner has a node
)

// The causes of jobs that a runner took.
const (
	CauseRunning     Cause = "running"      // Running: a runner has it
	CauseRunnerEnded Cause = "runner_ended" // Running or Completed: its runner's allocation ended under it
)

// Label returns the cause by which metrics and the console count a job that
// waits: some causes are kinds of another.
func (c Cause) Label() Cause {
	switch c {
	case CauseRefused:
		return CauseNomad
	case CauseNoJob:
		return CauseRunner
	}
	return c
}

// OpenJobs are jobs that have all of this in common.
type OpenJobs struct {
	Rule  string   // of the decision; "": none yet
	State JobState // Held, Queued, Retrying, Dispatched or Running
	Cause Cause

	Jobs   int
	Oldest time.Time // when the first of them was received
}

// A Demand counts the jobs that ask for the same labels.
type Demand struct {
	Labels []string // as they came
	Jobs   int
	Waits  []time.Duration // of those that a runner took, from when we heard of them
}
