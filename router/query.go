package router

import "time"

// A JobFilter says which jobs are looked for; its zero value: all of them.
// Owner, Repo and Label are compared without case.
type JobFilter struct {
	States []JobState // any of them; none: in any state
	Host   string     // of its GitHub; "": any, as below
	Owner  string
	Repo   string // without the owner
	Rule   string // that took or denied the job
	Label  string // among those that the job asks for
	Within Scope

	Since, Until time.Time // received from Since on and before Until; zero: no bound

	Before int64 // its ID is under it: the last of the page before; 0: the first page
	Limit  int   // at most this many; at least 1
}

// A RunnerFilter says which runners are looked for; its zero value: all of them.
type RunnerFilter struct {
	States []RunnerState // any of them; none: in any state
	Within Scope         // of the jobs that they are for

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

// A SyncReport says what a full look at a repository found. Its JSON form is a contract.
type SyncReport struct {
	Host string `json:"host,omitempty"` // of the repository's GitHub; "": the only one
	Repo string `json:"repo"`           // owner/name
	Unfinished
	Changed int `json:"changed"` // jobs of which something was not known
}
