package router

import (
	"strings"
	"time"
)

// A WarmState is the state of a warm runner. States only move forward.
type WarmState string

// The states of a warm runner.
const (
	WarmStarting WarmState = "starting" // its Nomad job is registered, or about to be, and prepares itself
	WarmReady    WarmState = "ready"    // it waits at the claim
	WarmTaken    WarmState = "taken"    // a job has it: it is one of that job's runners now
	WarmStopped  WarmState = "stopped"  // it is not wanted any more, or its allocation ended; its Nomad job may still be there
	WarmEnded    WarmState = "ended"    // its Nomad job is stopped
)

// WarmPrefix begins the ID of every warm runner, which is that of its Nomad job, too.
const WarmPrefix = "gha-warm-"

// IsWarm reports whether a Nomad job was started as a warm runner.
func IsWarm(nomadJob string) bool {
	rest, ok := strings.CutPrefix(nomadJob, WarmPrefix)
	return ok && rest != "" && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// A WarmRunner is a Nomad job that is prepared to be a runner, and waits at the claim for a job
// that takes it. GitHub knows nothing of it until then.
type WarmRunner struct {
	ID         string // of the Nomad job
	Rule       string
	Fit        string // WarmFit of its placement
	State      WarmState
	Reason     string // why it is in State, for people; never empty
	NomadAt    NomadAt
	Registered bool // Nomad has its job
	Node       string
	Asked      *Asked // what it reserves
	CreatedAt  time.Time
	PlacedAt   time.Time // when Nomad gave it a node; zero: not yet
	ReadyAt    time.Time // when it came to the claim first; zero: not yet
	EndedAt    time.Time // when a job took it, or it was stopped or ended; zero: not yet
	JobID      int64     // the job that took it; 0: none did

	// Doubted: the process that leads has taken up the database since the runner came to the
	// claim. It may have a job that the database, if it is a restored copy, knows nothing of, so it is
	// neither taken nor stopped before it comes to the claim again.
	Doubted bool
}

// Runner returns a warm runner as far as Nomad's calls use it.
func (w WarmRunner) Runner() Runner {
	return Runner{ID: w.ID, Name: w.ID, NomadJob: w.ID, NomadAt: w.NomadAt, State: RunnerDispatched}
}

// WarmNoNode is the reason of a warm runner that was stopped because Nomad had no node for it.
const WarmNoNode = "no node is free for it"

// A WarmTrouble is why a rule has no warm runners, or too few, though it keeps some. Its JSON form
// is kept in the database, where replicas of other versions read it.
type WarmTrouble struct {
	Rule   string    `json:"rule"`
	Since  time.Time `json:"since"`
	Why    string    `json:"why"`               // of the last that failed
	Fix    string    `json:"fix"`               // what to do
	NoRoom bool      `json:"no_room,omitempty"` // no more than that the nodes are busy
}

// WarmFit returns a hash of what a warm runner of a placement can serve: any job of the same
// placement, wherever it is registered on GitHub and with whatever labels. jobspec identifies the
// text of the placement's jobspec.
func WarmFit(p Placement, jobspec string) string {
	return hash([]any{p.ForWarm(), jobspec})
}
