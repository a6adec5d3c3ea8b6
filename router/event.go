package router

import "time"

// A Source says where an event of a timeline comes from.
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

// An Event is one line of a timeline: a job or a runner entered a state, or the reason
// for its state changed.
type Event struct {
	At       time.Time
	JobID    int64  // 0 for an event of a runner
	RunnerID string // "" for an event of a job
	Source   Source
	State    string // the JobState or RunnerState
	What     string // the reason
}

// A Change is an Event with what a live view needs besides.
type Change struct {
	ID    int64 // grows
	Event       // JobID is set for events of runners, too: the job that the runner is meant for
	Repo  Repo  // of that job; Host, Owner and Name only
}
