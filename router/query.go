package router

import "time"

// A JobFilter selects jobs; the zero value of a field selects all. Owner, Repo and
// Label are compared without case.
type JobFilter struct {
	States []JobState // any of them; none: in any state
	Causes []Cause    // any of them; none: of any cause, and of none
	Host   string     // of its GitHub
	Owner  string
	Repo   string // without the owner
	Rule   string // that took or denied the job
	Label  string // among those that the job asks for
	Within Scope

	Since, Until time.Time // received from Since on and before Until

	Before int64 // only lower IDs: the last one of the previous page; 0: the first page
	Limit  int   // at most this many; at least 1, required
}

// A RunnerFilter selects runners; the zero value of a field selects all.
type RunnerFilter struct {
	States []RunnerState // any of them; none: in any state
	Within Scope         // of the jobs that they are for

	// Only runners before this one: the last of the previous page, by the job it is for
	// and its try; 0: the first page.
	BeforeJob int64
	BeforeTry int

	Limit int // at most this many; at least 1, required
}

// JobStates and RunnerStates are all states, in the order in which they are reached.
var (
	JobStates    = []JobState{Held, Queued, Retrying, Dispatched, Running, Completed, Ignored, Denied, Unroutable}
	RunnerStates = []RunnerState{RunnerDispatched, RunnerClaimed, RunnerOnline, RunnerBusy, RunnerFinished, RunnerLost, RunnerStopped}
)

// Causes are all causes of jobs.
var Causes = []Cause{CauseApproval, CauseLimit, CauseSiblings, CauseVersion, CauseQueued, CauseNomad, CauseSilent, CauseRefused, CauseGitHub, CauseGitHubRefused, CauseGitHubLimit, CauseRunner, CauseDied,
	CauseNoJob, CauseReplaced, CausePlacing, CauseNoNodeFree, CauseNoNodeFits, CauseOutOfService, CauseStarting, CauseRunning, CauseRunnerEnded}

// A SyncReport says what the sync of a repository found. Its JSON form is a contract.
type SyncReport struct {
	Host string `json:"host,omitempty"` // of the repository's GitHub; "": the only one
	Repo string `json:"repo"`           // owner/name
	Unfinished
	Changed int `json:"changed"` // jobs of which something was new
}
