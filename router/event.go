package router

import "time"

// A Source says who told us of what stands on a time line.
type Source string

// The sources.
const (
	SourceWebhook  Source = "webhook"  // a delivery
	SourceGitHub   Source = "github"   // GitHub's answer when asked
	SourceNomad    Source = "nomad"    // Nomad's events, or its answer when asked
	SourceRunner   Source = "runner"   // a claim
	SourceRouter   Source = "router"   // the router's own work
	SourceOperator Source = "operator" // a person, through the API
)

// An Event is one line of a time line: a job or a runner came into a state, or
// has another reason to be in it.
type Event struct {
	At       time.Time
	JobID    int64  // 0 for a runner's
	RunnerID string // "" for a job's
	Source   Source
	State    string // the JobState or RunnerState
	What     string // the reason
}

// A Change is a line of some time line, with what a live view needs besides.
type Change struct {
	ID    int64 // grows
	Event       // JobID is that of a runner's, too: the job it is meant for
	Repo  Repo  // Host, Owner and Name of that job's
}
