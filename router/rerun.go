package router

import (
	"context"
	"time"
)

// A Loss is why a job lost its runner through nobody's fault: `when` in a rule's rerun.
type Loss string

// The losses.
const (
	LossNode      Loss = "node_lost" // its node went down, or is disconnected from Nomad
	LossPreempted Loss = "preempted" // Nomad gave its place to a job of higher priority
	LossDrained   Loss = "drained"   // its node was drained
)

// Words says what was lost, as the end of a sentence.
func (l Loss) Words() string {
	switch l {
	case LossNode:
		return "its runner's node was lost"
	case LossPreempted:
		return "its runner was preempted"
	case LossDrained:
		return "its runner's node was drained"
	}
	return string(l)
}

// A Rerun is a job that failed as it lost its runner, and that its rule wants run again.
type Rerun struct {
	Job   Job
	Loss  Loss
	State RerunState
	Asked time.Time // when GitHub was, or may have been, asked last to run it again; zero: never
	Tries int       // looks at its run since anything changed, for the wait before the next one
}

// A RerunState is what becomes of a Rerun.
type RerunState string

// The states of a Rerun. In the first two something is left to do.
const (
	RerunWaits   RerunState = "waits"   // for its run to complete
	RerunAsked   RerunState = "asked"   // GitHub was asked, or is about to be: its answer is not known
	RerunDone    RerunState = "done"    // it runs again
	RerunDropped RerunState = "dropped" // it is not run again; the job's reason says why
)

// Over reports whether nothing is left to do.
func (s RerunState) Over() bool { return s != RerunWaits && s != RerunAsked }

// A RunState is how a workflow run is.
type RunState struct {
	Attempt    int // the newest, from 1
	Completed  bool
	Conclusion string // of that attempt; "" unless Completed
	Event      string // what started the run
	Open       bool   // GitHub lists an open pull request for the run's branch or commit
}

// Reruns is the part of GitHub that runs jobs again. Errors are classified as for
// Nomad.Start. Safe for concurrent use.
type Reruns interface {
	// RunState returns how a run is; ErrNotFound when there is no such run, or when GitHub
	// does not show us its repository.
	RunState(ctx context.Context, repo Repo, runID int64) (RunState, error)

	// RerunJob asks GitHub to run a job, and those that need it, again, in a new attempt of
	// its run with new IDs. It fails with ErrRunning while the run has not completed, and
	// with an *UnansweredError when GitHub may do it all the same.
	RerunJob(ctx context.Context, repo Repo, jobID int64) error
}
