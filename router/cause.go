package router

import "time"

// A Cause is why a job is in its state, in one word; its Reason says the same to
// people. "": the state, or the Reason, is all there is to say.
type Cause string

// The causes of jobs that wait.
const (
	CauseApproval      Cause = "approval"       // Held: GitHub waits for an approval, or for others of its concurrency group
	CauseLimit         Cause = "limit"          // Held: all places under its rule's limit are taken
	CauseSiblings      Cause = "siblings"       // Held: others of its run are to run or end first, as GitHub may hand them out one after another
	CauseVersion       Cause = "runner_version" // Held, or Retrying once: GitHub gives no jobs to its rule's runners, whose version is too old
	CauseQueued        Cause = "queued"         // Queued: the router decides it next
	CauseNomad         Cause = "nomad"          // Retrying: Nomad could not take its runner
	CauseSilent        Cause = "silent"         // Retrying: Nomad accepts requests for runners and does not answer them
	CauseRefused       Cause = "nomad_refused"  // Retrying: Nomad refuses its runner until a person acts; or Unroutable: because of what a label asks for
	CauseGitHub        Cause = "github"         // Retrying: GitHub did not answer as it should
	CauseGitHubRefused Cause = "github_refused" // Retrying: GitHub refuses to register its runner until a person acts
	CauseGitHubLimit   Cause = "github_limit"   // Retrying: GitHub takes no registrations for now
	CauseRunner        Cause = "runner"         // Retrying: its runner ended without a configuration
	CauseDied          Cause = "died"           // Retrying: its runner ended after it got its configuration
	CauseNoJob         Cause = "no_job"         // Retrying: GitHub left its runner idle
	CauseReplaced      Cause = "replaced"       // Retrying: its runner was stopped, serves another job, or makes room for a fallback
	CausePlacing       Cause = "placing"        // Dispatched: Nomad has its runner, and has not said more
	CauseNoNodeFree    Cause = "no_node_free"   // Dispatched: the nodes that could run its runner are busy
	CauseNoNodeFits    Cause = "no_node_fits"   // Dispatched: no node could ever run its runner
	CauseOutOfService  Cause = "out_of_service" // Dispatched: the nodes that could run its runner are out of service
	CauseStarting      Cause = "starting"       // Dispatched: its runner has a node
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
	case CauseRefused, CauseSilent:
		return CauseNomad
	case CauseGitHubRefused:
		return CauseGitHub
	case CauseDied, CauseNoJob, CauseReplaced:
		return CauseRunner
	case CauseOutOfService:
		return CauseNoNodeFits
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

// RepoJobs are the jobs of a repository that have not ended.
type RepoJobs struct {
	Repo                                Repo
	Waiting, Placing, Starting, Running int       // not on Nomad yet, without a node, with a node, on a runner
	Oldest                              time.Time // when the first of those that do not run was received; zero: all run
}

// A Demand counts the jobs that ask for the same labels.
type Demand struct {
	Labels []string // as they came
	Jobs   int
	Waits  []time.Duration // of those that a runner took, from when we heard of them
}
