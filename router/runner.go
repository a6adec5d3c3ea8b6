package router

import (
	"strconv"
	"strings"
	"time"

	"switchyard/rules"
)

// A RunnerState is the state of a runner. States only move forward.
type RunnerState string

// Final reports whether a runner in this state has nothing more to do.
func (s RunnerState) Final() bool {
	return s == RunnerFinished || s == RunnerLost || s == RunnerStopped
}

// The states of a runner.
const (
	RunnerDispatched RunnerState = "dispatched" // its Nomad job is registered, or about to be
	RunnerClaimed    RunnerState = "claimed"    // its allocation asked for its configuration
	RunnerOnline     RunnerState = "online"     // it was given its configuration, and waits for a job
	RunnerBusy       RunnerState = "busy"       // GitHub gave it a job
	RunnerFinished   RunnerState = "finished"   // that job ended
	RunnerLost       RunnerState = "lost"       // given up: it could not be configured, or ended without a job
	RunnerStopped    RunnerState = "stopped"    // nothing was left for it to do
)

// RunnerPrefix begins every runner's ID.
const RunnerPrefix = "gha-"

// A Runner is one registered Nomad job: one ephemeral GitHub runner.
type Runner struct {
	ID       string // Job.RunnerID: the ID of the Nomad job, or the idempotency token of a dispatch
	JobID    int64  // the job it was started for; GitHub may give it another
	Try      int
	State    RunnerState
	Name     string // the runner's name on GitHub; the ID until it is claimed
	GitHubID int64  // GitHub's runner ID; 0 until it is configured
	NomadJob string // ID of the Nomad job; differs from ID for a dispatched one; "" until registered
	NomadAt  NomadAt

	// Own: it brings its own registration. It never claims and may have any name on
	// GitHub, so only its Nomad job shows how it is, and once that runs nothing stops
	// it, as it may have a job. If it claims after all it is like any other runner.
	Own bool

	Reason    string    // why it is in State, for people; never empty
	StateAt   time.Time // since when it is in State
	CreatedAt time.Time
	Fit       string    // Job.Fit of the job it was started for
	Target    Target    // where it is registered; zero until it is configured
	PlacedAt  time.Time // when Nomad gave it a node; zero: not yet
	Node      string    // that node's name
	Unplaced  *Unplaced // why it has none; nil: nothing known, or it has one
	EndedAt   time.Time // when its Nomad job was seen to have ended; zero: not yet
	EndWords  string    // what Nomad said of how; "": nothing
	ExitCode  int       // of its task, if that failed; 0: it did not, or that is not known

	Rule    string        // the rule that it was started by; "": not known, as for one that was adopted
	Rules   string        // which rules and jobspecs were in force then; opaque, "" likewise
	Version RunnerVersion // as GitHub says; "": it has not been asked, or does not say

	Keep time.Duration // for how long it stays if its job fails; 0: it does not. A Store does not return it
}

// OnGitHub reports whether a runner was configured, so that GitHub may know it and have
// given it a job.
func (r Runner) OnGitHub() bool { return r.GitHubID != 0 || r.Target != (Target{}) }

// A LiveRunner is a runner that may be alive, as it is compared with Nomad: without its
// Reason, Node and Unplaced, but with the state of its job.
type LiveRunner struct {
	Runner
	Explained bool   // it is known why it has no node
	Refused   string // why its claim was refused; "": it was not

	JobState JobState // of the job that it was started for
	Needed   bool     // that job waits for it
	Failures int      // of that job

	Serves      int64         // the job that it runs, as GitHub says; 0: none, or not known
	ServesSince time.Time     // when we heard of that
	TimeLimit   time.Duration // of that job; 0: none
	KeptUntil   time.Time     // its job failed, and it stays until then; zero: it does not
	Seen        time.Duration // how long this process has seen it run that job, by the monotonic clock; 0: not yet
}

// A SeenRunner is a runner and the last event of it on Nomad.
type SeenRunner struct {
	LiveRunner
	Event NomadEvent
}

// A Claimed is a runner and its job, as a claim found them.
type Claimed struct {
	Runner Runner
	Job    Job  // the one that needs it; with its decision, unless it is not recorded yet
	Needed bool // false: no job needs the runner; Job is the one it was meant for
}

// A Verification is what a runner asks before the first step of the job that GitHub gave it,
// and the answer.
type Verification struct {
	Runner  Runner
	Asked   string // about which job; "": it has not been answered
	Refusal string // why the runner must not serve that; "": it may
}

// A Target is where a runner is registered on GitHub: in a repository, an
// organization or an enterprise.
type Target struct {
	Host       string `json:"host,omitempty"` // as Repo.Host
	Owner      string `json:"owner,omitempty"`
	Repo       string `json:"repo,omitempty"` // without the owner; "": the organization Owner
	Enterprise string `json:"enterprise,omitempty"`
}

// TargetOf returns where the runner for a job of repo is registered.
func TargetOf(repo Repo, r rules.Runner) Target {
	switch r.Scope {
	case "enterprise":
		return Target{Host: repo.Host, Enterprise: r.Enterprise}
	case "organization":
		return Target{Host: repo.Host, Owner: repo.Owner}
	default:
		return Target{Host: repo.Host, Owner: repo.Owner, Repo: repo.Name}
	}
}

// An Unplaced says why Nomad had no node for a runner at a certain time.
type Unplaced struct {
	At        time.Time  `json:"at"`
	Never     bool       `json:"never"`     // no node in service could ever run it; else they are busy
	Away      bool       `json:"away"`      // Never, and nodes that are out of service could
	Text      string     `json:"text"`      // one sentence for people
	Pool      string     `json:"pool"`      // the node pool
	InPool    int        `json:"in_pool"`   // nodes in it
	Evaluated int        `json:"evaluated"` // nodes that Nomad evaluated
	Filtered  []Shortage `json:"filtered"`  // what filtered them, most nodes first
	Exhausted []Shortage `json:"exhausted"` // what the others have too little of, most nodes first

	// Pending: Nomad has not evaluated the runner since At. Text says why, as far as that
	// is known; all other fields are empty.
	Pending bool `json:"-"`
}

// A Shortage says what some nodes lack.
type Shortage struct {
	What  string `json:"what"`           // a constraint, "missing devices", "missing drivers", or a size: "memory"
	From  string `json:"from,omitempty"` // the label or rule that asks for it; "": the jobspec, or unknown
	Nodes int    `json:"nodes"`
}

// NextFallback returns the number of the first usable fallback of a decision after the
// one in force (numbers start at 1; 0: none is in force), and how long after the job's
// first dispatch it is due; false when there is none.
func NextFallback(d *Decision, inForce int) (n int, after time.Duration, ok bool) {
	for n = inForce + 1; n <= len(d.Fallback); n++ {
		if f := d.Fallback[n-1]; f.Reason == "" {
			return n, time.Duration(f.After), true
		}
	}
	return 0, 0, false
}

// ParseRunnerID returns the parts of a runner's ID: gha-<job id>-<try>.
func ParseRunnerID(id string) (jobID int64, try int, ok bool) {
	job, number, _ := strings.Cut(strings.TrimPrefix(id, "gha-"), "-")
	jobID, err := strconv.ParseInt(job, 10, 64)
	try, tryErr := strconv.Atoi(number)
	return jobID, try, err == nil && tryErr == nil && jobID > 0 && try > 0 && id == Job{ID: jobID, Try: try}.RunnerID()
}

// NameSuffix is the length of the random suffix, after a hyphen, of the names under which
// runners are registered.
const NameSuffix = 6

// IsNameOf reports whether a name on GitHub is one that a claim of the runner gave it.
func IsNameOf(name, runnerID string) bool {
	return name == runnerID || strings.HasPrefix(name, runnerID+"-")
}

// RunnerNamed returns the ID of the runner that a name on GitHub is one of, as IsNameOf
// would report; "" if it is that of no runner of ours.
func RunnerNamed(name string) string {
	parts := strings.SplitN(name, "-", 4)
	id := strings.Join(parts[:min(len(parts), 3)], "-")
	if _, _, ok := ParseRunnerID(id); !ok {
		return ""
	}
	return id
}
