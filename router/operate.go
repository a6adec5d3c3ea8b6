package router

import "time"

// A JobFilter says which jobs are looked for; its zero value: all of them.
// Owner, Repo and Label are compared without case.
type JobFilter struct {
	States []JobState // any of them; none: in any state
	Owner  string     // "": any, as below
	Repo   string     // without the owner
	Rule   string     // that took or denied the job
	Label  string     // among those that the job asks for

	Since, Until time.Time // received from Since on and before Until; zero: no bound

	Before int64 // GitHub's ID is under it: the last of the page before; 0: the first page
	Limit  int   // at most this many; at least 1
}

// A RunnerFilter says which runners are looked for; its zero value: all of them.
type RunnerFilter struct {
	States []RunnerState // any of them; none: in any state

	// The last of the page before, by the job it is for and its try; 0: the first page.
	BeforeJob int64
	BeforeTry int

	Limit int // at most this many; at least 1
}

// JobStates and RunnerStates are all there are, in the order of a life.
var (
	JobStates    = []JobState{Held, Queued, Retrying, Dispatched, Running, Completed, Ignored, Denied, Unroutable}
	RunnerStates = []RunnerState{RunnerDispatched, RunnerClaimed, RunnerOnline, RunnerBusy, RunnerFinished, RunnerLost, RunnerStopped}
)
