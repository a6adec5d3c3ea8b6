// Package router owns the domain: jobs, runners and deliveries with their
// states, the worker that turns decided jobs into Nomad jobs, the claim, and
// the App that runs them. Technology lives in the packages below it.
package router

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"switchyard/rules"
)

// The words of the rules file that cross the router's own interfaces, so that
// the packages below need not import rules for their names.
type (
	Decision   = rules.Decision
	Placement  = rules.Placement
	Constraint = rules.Constraint
	Affinity   = rules.Affinity
	Device     = rules.Device
	Repo       = rules.Repo
	Run        = rules.Run
	Limit      = rules.Limit
)

// A JobState is where a job stands. States only move forward, except that a
// job is retried while an outage lasts, when its runner was lost, and when
// another job took its runner. GitHub has the last word: a job that was denied
// or unroutable is Running when a runner has it after all, and any but an
// ignored one is Completed when GitHub says so.
type JobState string

// The states of a job. Held, Queued, Retrying and Dispatched lead to Running
// and Completed; Ignored, Denied and Unroutable are decided ends.
const (
	Held       JobState = "held"       // known, but must not start yet; the reason says what it waits for
	Queued     JobState = "queued"     // to be decided and dispatched
	Retrying   JobState = "retrying"   // as queued, after a failure; due again at DueAt
	Dispatched JobState = "dispatched" // its Nomad job is registered
	Running    JobState = "running"    // a runner has taken it
	Completed  JobState = "completed"  // GitHub says it ended; the conclusion says how
	Ignored    JobState = "ignored"    // out of scope
	Denied     JobState = "denied"     // a rule refused it
	Unroutable JobState = "unroutable" // nothing can serve it
)

// A Job is a GitHub workflow job that GitHub told us of. A job on Nomad is
// always called a Nomad job. The strings are a stranger's, bounded by the
// webhook.
type Job struct {
	ID       int64 // GitHub's workflow_job.id; unique
	RunID    int64
	Attempt  int // run attempt, from 1
	Repo     Repo
	Name     string
	Workflow string
	Branch   string
	Sender   string
	Labels   []string // as they came
	URL      string   // GitHub's page for the job; "" when GitHub did not say

	State      JobState
	Reason     string    // why it is in State, for people; never empty
	Decision   *Decision // nil until decided
	Try        int       // the number of its current runner, from 1
	Failures   int       // failed attempts in a row, for the back-off
	DueAt      time.Time // when the worker may next take it, in Queued and Retrying
	ReceivedAt time.Time // when we first heard of it
	UpdatedAt  time.Time
	RunnerName string // the runner GitHub says took it; "" before
	Conclusion string // GitHub's conclusion; "" before Completed
}

// Facts is what the rules see of the job.
func (j Job) Facts() rules.Facts {
	return rules.Facts{
		Labels: j.Labels,
		Repo:   j.Repo,
		Job:    rules.Job{Name: j.Name, Workflow: j.Workflow, Branch: j.Branch, Attempt: j.Attempt, Sender: j.Sender},
	}
}

// RunnerID is the ID of the runner for the job's current try, which is also
// the ID of its Nomad job: gha-<job id>-<try>.
func (j Job) RunnerID() string { return fmt.Sprintf("gha-%d-%d", j.ID, j.Try) }

// A Delivery is one workflow_job webhook request from GitHub, checked and
// decoded.
type Delivery struct {
	ID         string // X-GitHub-Delivery; the same when GitHub redelivers
	Action     string // queued, waiting, in_progress or completed
	Status     string // workflow_job.status: "queued" means runnable, "waiting" that an approval is missing
	Job        Job    // GitHub's part of it; the router's own part is zero, RunnerName and Conclusion are as GitHub sent them
	ReceivedAt time.Time
}

// A RunnerState is where a runner stands. States only move forward.
type RunnerState string

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
}

// NomadAt is where a Nomad job is.
type NomadAt struct {
	Namespace string // "" until the job is registered
	Region    string // "": that of Switchyard's Nomad client
}

// A Secret is a string that never shows itself in logs, errors or JSON.
type Secret string

const redacted = "[redacted]"

// String, GoString, LogValue and MarshalJSON hide the secret; string(s) is the way to it.
func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// A StartRequest asks Nomad for one runner.
type StartRequest struct {
	Runner     Runner
	Job        Job
	Rule       string // name of the rule that took the job
	Placement  Placement
	ClaimURL   string
	ClaimToken Secret
}

// Started says what Nomad has for a StartRequest.
type Started struct {
	NomadJob   string // ID of the Nomad job
	At         NomadAt
	ClaimToken Secret   // the token in that job's meta: an earlier attempt's when Existed
	Existed    bool     // an earlier attempt had registered it
	Warnings   []string // Nomad's own warnings, for the log
}

// A ConfigRequest asks GitHub for a just-in-time runner configuration.
type ConfigRequest struct {
	Repo   Repo // Owner and Name are used
	Runner rules.Runner
	Name   string   // the runner's name
	Labels []string // exactly the job's labels
}

// A RunnerConfig is GitHub's answer: one registered, single-use runner.
type RunnerConfig struct {
	GitHubID int64
	JIT      Secret // encoded_jit_config
}

// The Nomad side, as the worker uses it. *nomad.Client is the implementation.
type Nomad interface {
	// Start registers the runner's Nomad job once: called again for the same
	// runner it finds what the earlier call made. Errors are sorted by
	// GiveUpError, FixError and RetryAtError; any other is worth a retry.
	// Safe for concurrent use.
	Start(ctx context.Context, r StartRequest) (Started, error)

	// Ended reports whether the Nomad job of a registered runner has ended or
	// is gone. Safe for concurrent use.
	Ended(ctx context.Context, r Runner) (bool, error)
}

// The GitHub side, as the worker and the claim use it. *gh.Client is the implementation.
type GitHub interface {
	// RunnerConfig registers a just-in-time runner and returns its
	// configuration. It fails with ErrNameTaken when a runner has the name
	// already; errors are otherwise sorted as for Nomad.Start. It never
	// retries by itself. Safe for concurrent use.
	RunnerConfig(ctx context.Context, r ConfigRequest) (RunnerConfig, error)

	// Run looks up what the rules see of a workflow run; none of it changes
	// when the run is run again. Fork is true when GitHub names another
	// repository as the run's head, or one that is deleted; it is false for a
	// run of the repository's own commit, whoever caused it, as those of
	// issue_comment and workflow_run are. An answer that leaves any of it open
	// is an error.
	// Errors are sorted as for Nomad.Start. It never retries by itself. Safe
	// for concurrent use.
	Run(ctx context.Context, repo Repo, runID int64) (Run, error)
}

// The Store, as the App uses it. Every method that changes something returns
// after the change is durable, is one transaction, and is safe for concurrent
// use. An unknown job or runner is ErrNotFound.
type Store interface {
	// Receive records a delivery and what it says of its job, and reports
	// whether it changed anything: false for a delivery or a fact known
	// already. It takes deliveries in any order; a job's state only moves forward.
	Receive(ctx context.Context, d Delivery) (changed bool, err error)

	// Due returns up to limit jobs in Queued or Retrying whose DueAt has come,
	// longest due first, and when the next one after those falls due (zero: none known).
	Due(ctx context.Context, now time.Time, limit int) (jobs []Job, next time.Time, err error)

	// Settle ends a job that is still Queued or Retrying as Ignored, Denied or Unroutable.
	Settle(ctx context.Context, jobID int64, to JobState, reason string, d *Decision, now time.Time) error

	// Admit gives a job that is Queued or Retrying a place under its decision's
	// limit, which must not be nil. It keeps the place until it ends. If none
	// is free the job becomes Held, until a place is: the oldest job of the
	// repository with the fewest places gets it. A job that is no longer Queued
	// or Retrying is ErrNotWaiting.
	Admit(ctx context.Context, jobID int64, d *Decision, now time.Time) (admitted bool, err error)

	// Reconsider puts the jobs that wait for a place into Queued, due at once,
	// and returns how many: the limits may have changed.
	Reconsider(ctx context.Context, now time.Time) (int, error)

	// Prepare makes the runner known, before Nomad is asked for it, and lets
	// the holder of the token with this SHA-256 hash claim it. Preparing again,
	// with the same hash or another, is no error: all of them are good until
	// Dispatched. A job that is no longer Queued or Retrying, or not due, is
	// ErrNotWaiting.
	Prepare(ctx context.Context, r Runner, tokenHash [32]byte, now time.Time) error

	// Dispatched records that Nomad has the runner, whose token has this hash;
	// other hashes of the runner stop being good. The job moves on from Queued
	// or Retrying; if it went further meanwhile it stays there.
	Dispatched(ctx context.Context, r Runner, tokenHash [32]byte, d *Decision, now time.Time) error

	// Retry puts a job that is still Queued or Retrying into Retrying, due at at.
	// d may be nil: the decision is then left as it is.
	Retry(ctx context.Context, jobID int64, at time.Time, reason string, d *Decision, now time.Time) error

	// Claim takes the one use of a token: the runner moves from Dispatched to
	// Claimed. If its job needs no runner any more it moves to Stopped
	// instead and Needed is false. An unknown token is ErrNotFound (and writes
	// nothing), a used one ErrClaimed.
	Claim(ctx context.Context, tokenHash [32]byte, now time.Time) (Claimed, error)

	// Configured records GitHub's answer to a claimed runner: its name there and its ID.
	Configured(ctx context.Context, runnerID, name string, gitHubID int64, now time.Time) error

	// Online records that a configured runner was given its configuration: it
	// moves from Claimed to Online, and stays where it is if it went further.
	Online(ctx context.Context, runnerID string, now time.Time) error

	// Lost gives up a runner that has no job of GitHub's and puts its own job,
	// if that still waits, into Retrying with the next try, due at at. It
	// reports whether there was anything to give up.
	Lost(ctx context.Context, runnerID string, at time.Time, reason string, now time.Time) (lost bool, err error)

	// Unserved returns up to limit jobs that are Dispatched, with an ID over
	// after and by that ID, and their runners: registered on Nomad, Dispatched
	// or Online, and without a job of GitHub's.
	Unserved(ctx context.Context, after int64, limit int) ([]Claimed, error)

	// Recover gives up, as Lost does, the runners that were claimed when the
	// last process ended, and returns how many. The job of one that GitHub had
	// not configured is due at once. That of one which may or may not have been
	// given its configuration is due at doubt: if the runner lives, GitHub will
	// have said by then that it took a job.
	Recover(ctx context.Context, now, doubt time.Time) (int, error)

	// Job returns one job.
	Job(ctx context.Context, id int64) (Job, error)

	// Counts returns how many jobs are in each state.
	Counts(ctx context.Context) (map[JobState]int, error)
}

// Claimed is a runner and its job, as a claim found them.
type Claimed struct {
	Runner Runner
	Job    Job  // with its decision
	Needed bool // false: the job needs no runner any more
}
