// Package router owns the domain: jobs, runners and deliveries with their
// states, the worker that turns decided jobs into Nomad jobs, the claim, and
// the App that runs them. Technology lives in the packages below it.
package router

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
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
	Fallback   = rules.Fallback
	Duration   = rules.Duration
	Example    = rules.Example
)

// A JobState is where a job stands. States only move forward, except that a
// job is retried while an outage lasts, when its runner was lost, and when
// another job took its runner; and that one which waits for a runner is Held
// when GitHub, asked, says that it must not start yet, until GitHub says that
// it is queued. GitHub has the last word: a job that was denied or unroutable is
// Running when a runner has it after all, and any but an ignored one is
// Completed when GitHub says so.
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
	ID       int64 // Instance.ID of GitHub's workflow_job.id; unique
	RunID    int64 // likewise
	Attempt  int   // run attempt, from 1
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

	SHA          string    // of the run's commit, hexadecimal; "" when GitHub did not say
	Fallback     int       // the decision's fallback in force, from 1; 0: its own placement
	DispatchedAt time.Time // when its first runner was registered; zero: not yet
	RunningAt    time.Time // when we heard that a runner took it; zero: not yet
	CompletedAt  time.Time // when we heard that it ended; zero: not yet
	AskedAt      time.Time // when GitHub was last asked about it; zero: never
}

// Facts is what the rules see of the job.
func (j Job) Facts() rules.Facts {
	return rules.Facts{
		Labels: j.Labels,
		Cut:    tooLong(j.Labels),
		Repo:   j.Repo,
		Job:    rules.Job{Name: j.Name, Workflow: j.Workflow, Branch: j.Branch, Attempt: j.Attempt, Sender: j.Sender},
	}
}

// Placement is what the job's next runner asks Nomad for: that of the decision,
// or of its fallback in force.
func (j Job) Placement(d *Decision) Placement {
	if j.Fallback > 0 && j.Fallback <= len(d.Fallback) {
		return d.Fallback[j.Fallback-1].Placement
	}
	return d.Placement
}

// Fit says what a runner for the job is good for: two jobs of equal fit are of
// one owner, or one repository if runners are registered there, and ask for
// the same labels and the same placement, so that either's runner can serve the
// other. It is a hash, never "".
func (j Job) Fit(d *Decision) string {
	p := j.Placement(d)
	p.From = nil
	labels := slices.Clone(j.Labels)
	for i := range labels {
		labels[i] = strings.ToLower(labels[i])
	}
	slices.Sort(labels)
	b, err := json.Marshal([]any{TargetOf(j.Repo, p.Runner), labels, p})
	if err != nil {
		panic(err) // what a placement holds was JSON or YAML
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// RunnerLabels are those that the job's runner is registered with: its own, as
// they came. A job without labels takes any runner of its group, and GitHub
// registers none without a label: its runner has one that no job asks for.
func (j Job) RunnerLabels() []string {
	if len(j.Labels) == 0 {
		return []string{j.RunnerID()}
	}
	return j.Labels
}

// RunnerID is the ID of the runner for the job's current try, which is also
// the ID of its Nomad job: gha-<job id>-<try>.
func (j Job) RunnerID() string { return fmt.Sprintf(runnerPrefix+"%d-%d", j.ID, j.Try) }

// SeenLabels are a job's labels as the rules see them, unless one is compound:
// in lower case, each once. A Decision's that are the same are kept with the job only.
func SeenLabels(asked []string) []string {
	seen := []string{}
	for _, l := range asked {
		if l = strings.ToLower(strings.TrimSpace(l)); !slices.Contains(seen, l) {
			seen = append(seen, l)
		}
	}
	return seen
}

const runnerPrefix = "gha-"

// A Delivery is one workflow_job webhook request from GitHub, checked and
// decoded.
type Delivery struct {
	ID         string        // X-GitHub-Delivery; the same when GitHub redelivers, but not signed. "": we asked GitHub, and it said so
	Digest     string        // the same for the same signed bytes, and for no others; "": not known
	Source     Source        // "": SourceWebhook
	Action     string        // queued, waiting, in_progress or completed
	Status     string        // workflow_job.status: "queued" means runnable, "waiting" that an approval is missing
	Job        Job           // GitHub's part of it; the router's own part is zero, RunnerName and Conclusion are as GitHub sent them
	RunnerID   int64         // GitHub's, of the runner that Job.RunnerName names; 0: GitHub did not say
	ReceivedAt time.Time     // of an answer: when GitHub was asked, as it may have changed its mind since
	RunsFor    time.Duration // of an answer that a job is in progress: for how long, by GitHub's own clock; 0: it does not say
	Hook       Hook          // by which it came
	CreatedAt  time.Time     // of the job, by GitHub's clock; zero: GitHub did not say
}

// Late reports whether a delivery has a job queued that GitHub made longer ago
// than it delivers anything. That is news when the job waited for an approval for so
// long; else somebody who saw it once sends it again. GitHub knows.
func (d Delivery) Late() bool {
	return d.ID != "" && d.Action == "queued" && !d.CreatedAt.IsZero() && d.ReceivedAt.Sub(d.CreatedAt) > deliveriesKept
}

// Waits reports whether GitHub says that the job must not start yet: it waits
// for an approval, or for others of its concurrency group or matrix.
func (d Delivery) Waits() bool {
	return d.Action == "waiting" || d.Action == "queued" && d.Status != "queued"
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

// Final reports whether a runner in this state has nothing more to do.
func (s RunnerState) Final() bool {
	return s == RunnerFinished || s == RunnerLost || s == RunnerStopped
}

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
	// GitHub, so it is followed by its Nomad job alone, and once that runs nothing
	// stops it: it may have a job. One that claims after all is as any other.
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
}

// A Target is where a runner is registered on GitHub: in a repository, an
// organization or an enterprise.
type Target struct {
	Host       string `json:"host,omitempty"` // as Repo.Host
	Owner      string `json:"owner,omitempty"`
	Repo       string `json:"repo,omitempty"` // without the owner; "": the organization Owner
	Enterprise string `json:"enterprise,omitempty"`
}

// TargetOf is where the runner for a job of repo is registered.
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

// An Unplaced says why Nomad has no node for a runner, at the time of At.
type Unplaced struct {
	At        time.Time  `json:"at"`
	Never     bool       `json:"never"`     // no node of the cluster as it is now could ever run it; else they are busy
	Text      string     `json:"text"`      // one sentence for people
	Pool      string     `json:"pool"`      // the node pool
	InPool    int        `json:"in_pool"`   // nodes in it
	Evaluated int        `json:"evaluated"` // nodes that Nomad looked at
	Filtered  []Shortage `json:"filtered"`  // what filtered them, most nodes first
	Exhausted []Shortage `json:"exhausted"` // what those left have not enough of, most nodes first

	// Pending: Nomad has not looked at it since At, and Text says why, as far as that is
	// known; all else is empty.
	Pending bool `json:"-"`
}

// A Shortage is what some nodes lack.
type Shortage struct {
	What  string `json:"what"`           // a constraint, "missing devices", "missing drivers", or a size: "memory"
	From  string `json:"from,omitempty"` // the label or rule that asks for it; "": the jobspec, or unknown
	Nodes int    `json:"nodes"`
}

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

// A Demand is the jobs that ask for the same labels.
type Demand struct {
	Labels []string // as they came
	Jobs   int
	Waits  []time.Duration // of those that a runner took, from when we heard of them
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
	Repo   Repo // Host, Owner and Name are used
	Runner rules.Runner
	Name   string   // the runner's name
	Labels []string // exactly Job.RunnerLabels
}

// An Admission is a runner that is about to be started on Nomad.
type Admission struct {
	Target Target
	Group  int64
	Own    bool // it brings its own registration
}

// A RunnerConfig is GitHub's answer: one registered, single-use runner.
type RunnerConfig struct {
	GitHubID int64
	JIT      Secret // encoded_jit_config
}

// A Registration lets runners register themselves: it is what config.sh needs.
type Registration struct {
	Token   Secret
	URL     string    // of the target's page on GitHub
	Group   string    // the runner group's name; "": the default one
	Expires time.Time // when GitHub takes the token no more
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

	// Stop stops the Nomad job of a runner; no error when it has ended or is
	// gone. It is kept, not purged, so that its ID stays taken. Safe for
	// concurrent use.
	Stop(ctx context.Context, r Runner) error

	// Jobs lists the Nomad jobs of all runners in the client's own region, ended
	// ones included as long as Nomad keeps them, in one request, and the index
	// from which Follow tells what comes after. Safe for concurrent use.
	Jobs(ctx context.Context) (jobs []NomadJob, index uint64, err error)

	// Follow calls each for what happens to the Nomad jobs of runners, from
	// index on, until ctx ends, each fails, or Nomad does: the error says so and
	// is never nil. It never calls each twice at a time. Events may be repeated.
	// Nomad keeps few, so those between index and NomadFollowed, which comes
	// first, may be lost, and so may those after an error: Jobs, called after
	// NomadFollowed came, tells what they came to.
	Follow(ctx context.Context, index uint64, each func(NomadEvent) error) error

	// Allocation returns the newest allocation of a runner; ErrNotFound when
	// it has none. Safe for concurrent use.
	Allocation(ctx context.Context, r Runner) (Allocation, error)

	// Home is where Start registers the runners of a placement. Errors are
	// sorted as Start's. Safe for concurrent use.
	Home(ctx context.Context, p Placement) (NomadAt, error)

	// Claims reports whether the runners of a placement fetch their configuration
	// by a claim; if not they bring their own registration. A jobspec that is not
	// known does. It asks nobody. Safe for concurrent use.
	Claims(p Placement) bool

	// ClaimOf returns the claim URL and token that Start put into the meta of a
	// runner's Nomad job, "" for what it has not, and whether its runner brings
	// its own registration; ErrNotFound when it is gone. Safe for concurrent use.
	ClaimOf(ctx context.Context, j NomadJob) (url string, token Secret, own bool, err error)

	// Unplaced says why Nomad has no node for a runner that waits for one, or that
	// Nomad has not looked at it yet; nil when it does not wait, or has one. Safe for
	// concurrent use.
	Unplaced(ctx context.Context, j Job, r Runner) (*Unplaced, error)
}

// A NomadJob is the Nomad job of a runner, as a listing has it. What comes from
// its meta is our own, but whoever may register jobs can write it too.
type NomadJob struct {
	ID       string
	At       NomadAt
	RunnerID string // from its ID, or that of its dispatch; never ""
	Status   string // pending, running or dead
	Stopped  bool   // somebody stopped it
	Waiting  bool   // pending, and an allocation waits for a node

	JobID, RunID int64  // GitHub's own; 0 when its meta has none
	Attempt      int    // likewise
	Repo         string // owner/name; "" likewise
	Submitted    time.Time
}

// A NomadEvent is what happened to the Nomad job of a runner.
type NomadEvent struct {
	Index uint64
	Job   string // ID of the Nomad job
	At    NomadAt
	Kind  NomadEventKind
	Time  time.Time // of Nomad's clock; zero when it does not say
	Node  string    // its name, for NomadPlaced and after
	Text  string    // for people: what failed, with which exit code; "" when there is nothing to add
	Again bool      // of an allocation in the place of another, which was lost with its node or drained
}

// A NomadEventKind is a kind of event.
type NomadEventKind string

// The kinds of events.
const (
	NomadFollowed NomadEventKind = "followed" // of no job: what happens from now on will be told
	NomadWaits    NomadEventKind = "waits"    // no node has room for it: ask Unplaced
	NomadPlaced   NomadEventKind = "placed"   // it has a node
	NomadStarted  NomadEventKind = "started"  // a task of it runs
	NomadEnded    NomadEventKind = "ended"    // its allocation ended; Text says how
	NomadUnknown  NomadEventKind = "unknown"  // its node is disconnected: nobody knows how it is
	NomadStopped  NomadEventKind = "stopped"  // somebody stopped or purged it
)

// An Allocation is Nomad's of a runner.
type Allocation struct {
	ID       string
	Status   string // pending, running, complete, failed, lost or unknown
	Desired  string // run, stop or evict
	Node     string // its name
	NodeID   string
	NodeAddr string    // its IP address, as Nomad knows it; "" when it does not say
	Created  time.Time // of Nomad's clock
}

// The GitHub side, as the worker and the claim use it. *gh.Client is the
// implementation for one, and gh.Instances for several; see Instance. It keeps
// to GitHub's rate limits: a request over them is not made and fails with a
// *RetryAtError, see ForClaim.
type GitHub interface {
	// Instances are those that are configured; nil: one, whose host is not known.
	Instances() []Instance

	// RunnerConfig registers a just-in-time runner and returns its
	// configuration. It fails with ErrNameTaken when a runner has the name
	// already, and with an *UnansweredError when there may be a runner of that
	// name all the same; errors are otherwise sorted as for Nomad.Start, and are
	// a *RetryAtError besides when Admit admits no other for now. It never
	// retries by itself. Safe for concurrent use.
	RunnerConfig(ctx context.Context, r ConfigRequest) (RunnerConfig, error)

	// RegistrationToken returns what the runner of r registers itself with. Its
	// token is good for every runner of the target and is kept until some
	// minutes before it expires, so that many callers cost one request. Labels
	// that config.sh would read otherwise are a GiveUpError; errors are
	// otherwise sorted as for Nomad.Start. Safe for concurrent use.
	RegistrationToken(ctx context.Context, r ConfigRequest) (Registration, error)

	// Run looks up what the rules see of a workflow run; none of it changes
	// when the run is run again. Fork is true when GitHub names another
	// repository as the run's head, or one that is deleted; it is false for a
	// run of the repository's own commit, whoever caused it, as those of
	// issue_comment and workflow_run are. An answer that leaves any of it open
	// is an error.
	// Errors are sorted as for Nomad.Start. It never retries by itself. Safe
	// for concurrent use.
	Run(ctx context.Context, repo Repo, runID int64) (Run, error)

	// Admit is asked before a runner is started on Nomad. It is a *RetryAtError
	// while GitHub would not register it: a limit is reached, or, Failing, GitHub
	// fails for the login that registers it, or refuses registrations in that
	// place; then one runner at a time is let through, after waits that grow. It
	// is a *FixError when the GitHub is not configured. It makes a small request
	// when GitHub is to show that it is back, or has not answered that login since
	// some runners were admitted. Safe for concurrent use.
	Admit(ctx context.Context, a Admission) error

	// Job asks what GitHub says of a job now, as a Delivery without ID from
	// SourceGitHub; ErrNotFound when there is none, or when GitHub does not let
	// us see its repository. Safe for concurrent use.
	Job(ctx context.Context, repo Repo, id int64) (Delivery, error)

	// Runner finds a registered runner by its name; ErrNotFound when there is
	// none. Safe for concurrent use.
	Runner(ctx context.Context, t Target, name string) (GitHubRunner, error)

	// Runners lists those registered in t, a hundred in a request. As others
	// come and go meanwhile, one may be missing or there twice: Runner tells.
	// Safe for concurrent use.
	Runners(ctx context.Context, t Target) ([]GitHubRunner, error)

	// RemoveRunner takes a runner off GitHub; ErrBusy when it has a job, no
	// error when there is none of this ID. Safe for concurrent use.
	RemoveRunner(ctx context.Context, t Target, id int64) error

	Webhooks
	Listings
	Notices
}

// A GitHubRunner is a runner as GitHub knows it.
type GitHubRunner struct {
	ID     int64
	Name   string
	Online bool
	Busy   bool
}

// The Store, as the App uses it. Every method that changes something returns
// after the change is durable, is one transaction, and is safe for concurrent
// use. An unknown job or runner is ErrNotFound.
type Store interface {
	// Receive records a delivery and what it says of its job, and reports
	// whether it changed anything: false for a delivery or a fact known
	// already. It takes deliveries in any order; a job's state only moves forward.
	// The same bytes are one delivery under whatever ID; some IDs of it are recorded,
	// and no more. A job that is not known and comes Late is Held until GitHub, asked,
	// says that it is queued.
	// But an answer of GitHub's, which is a Delivery without ID, that Waits makes
	// a job Held that is Queued, Retrying or Dispatched, unless a delivery since
	// GitHub was asked had it queued. A delivery that Waits does not, as it may
	// be an old one that comes late: ask GitHub then.
	Receive(ctx context.Context, d Delivery) (changed bool, err error)

	// Overruled returns what is said of a job that was Denied, Unroutable or
	// Ignored and that one of our runners took all the same; "" for any other.
	Overruled(ctx context.Context, jobID int64) (string, error)

	// Due returns up to limit jobs in Queued or Retrying whose DueAt has come, in
	// turn by owner, then by repository, longest due first of those of one. When
	// more are due, each owner has an equal part, whose turn it was last comes last,
	// and next is not after now; else next is when the next one falls due (zero: none known).
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

	// Prepare makes the runner known, before Nomad is asked for it, whether it
	// brings its own registration, and lets
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

	// Hasten has up to limit jobs, or all if it is negative, be due at once that are
	// Retrying, with a reason that begins so, and counts their failures anew; those
	// that were due first come first. It returns how many.
	Hasten(ctx context.Context, reason string, limit int, now time.Time) (int, error)

	// Rewind takes times that lie after now back to now, as the clock was set back:
	// those of jobs and runners that have not ended, with what waits since then, and of
	// what is to be done again. What was due later by a clock that was ahead is due
	// now, or its wait begins anew. It returns of how many jobs and runners.
	Rewind(ctx context.Context, now time.Time) (int, error)

	// Claimant says what Claim would find, and writes nothing.
	Claimant(ctx context.Context, tokenHash [32]byte) (Claimed, error)

	// Claim takes the one use of a token: the runner moves from Dispatched to
	// Claimed. It is meant for its own job if that waits, and from now on for
	// the job that needs it most if not: the oldest that waits and is of equal
	// fit, those that have no runner first, then those whose own has not
	// claimed, which is left over then. If there is none the runner moves to
	// Stopped instead and Needed is false. An unknown token is ErrNotFound, a
	// used one ErrClaimed, with the runner and its job.
	Claim(ctx context.Context, tokenHash [32]byte, now time.Time) (Claimed, error)

	// ClaimRefused records why the claim of a runner that is Dispatched was refused;
	// it is the reason of the job that waits for it, too.
	ClaimRefused(ctx context.Context, runnerID, why string, now time.Time) error

	// Configured records GitHub's answer to a claimed runner: its name there, its ID, and where it is registered.
	Configured(ctx context.Context, runnerID, name string, gitHubID int64, at Target, now time.Time) error

	// Online records that a configured runner was given its configuration: it
	// moves from Claimed to Online, and stays where it is if it went further.
	Online(ctx context.Context, runnerID string, now time.Time) error

	// Lost gives up a runner that has no job of GitHub's and puts its own job,
	// if that still waits, into Retrying with the next try, due at at. It
	// reports whether there was anything to give up.
	Lost(ctx context.Context, runnerID string, at time.Time, reason string, now time.Time) (lost bool, err error)

	// Leftovers returns the runners of a job, or of all jobs when it is 0, that
	// are Dispatched, Claimed or Online and that no job waits for.
	Leftovers(ctx context.Context, jobID int64) ([]Runner, error)

	// Reuse means a runner of those, if it is registered on Nomad, for the oldest
	// job that waits without a runner and is of equal fit, which moves to
	// Dispatched, and returns that job; 0 when there is none, or when the runner
	// is no leftover any more.
	Reuse(ctx context.Context, runnerID string, now time.Time) (jobID int64, err error)

	// Stopped moves a runner from the state in r, which is Dispatched, Claimed
	// or Online, to Stopped, and puts the job that waits for it, if any, into
	// Retrying with the next try, due at once. It reports whether it did: not
	// when the runner has left that state, or was registered, meanwhile.
	Stopped(ctx context.Context, r Runner, reason string, now time.Time) (stopped bool, err error)

	// Live returns all runners that may be alive on Nomad, or that the books do
	// not know the end of, in no order.
	Live(ctx context.Context) ([]LiveRunner, error)

	// NomadSaw records what Nomad's events say of runners: when one was placed and
	// where, when it ended and how, and what that means for the job that waits
	// for it. It returns those runners, as they are then, with the last event
	// of each. It takes events in any order, any number of times; those of
	// other Nomad jobs are left out.
	NomadSaw(ctx context.Context, events []NomadEvent, now time.Time) ([]SeenRunner, error)

	// Waits records why Nomad has no node for runners that wait for one; it is
	// the reason of the jobs that wait for them, too.
	Waits(ctx context.Context, runnerIDs []string, u Unplaced, now time.Time) error

	// Unseen returns up to limit runners that wait for a node, of which nothing was
	// heard since they were registered, or since before.
	Unseen(ctx context.Context, before time.Time, limit int) ([]Runner, error)

	// Overlooked records that Nomad has not looked at runners, as a reason of theirs and
	// of the jobs that wait for them.
	Overlooked(ctx context.Context, runnerIDs []string, why string, now time.Time) error

	// Ended records that the Nomad jobs of runners ended or are gone.
	Ended(ctx context.Context, runnerIDs []string, now time.Time) error

	// Strangers returns those of the runners that are not known.
	Strangers(ctx context.Context, runnerIDs []string) ([]string, error)

	// Revive takes back that these Nomad jobs of Finished, Lost or Stopped
	// runners ended, if that was recorded before, and returns how many did not.
	Revive(ctx context.Context, jobs []NomadJob, before, now time.Time) (int, error)

	// Adopt makes a runner known that runs for a known job on Nomad, in the state
	// in r, and the hash of its claim token; false when it is known already. A
	// job that waits takes it for its current try, unless it is past that.
	Adopt(ctx context.Context, r Runner, tokenHash [32]byte, now time.Time) (bool, error)

	// Found records that GitHub knows a runner that is Dispatched as far as the
	// books tell: its state in r, name, ID there and target.
	Found(ctx context.Context, r Runner, now time.Time) error

	// Targets returns where runners were registered on GitHub, of those of
	// which anything was recorded since.
	Targets(ctx context.Context, since time.Time) ([]Target, error)

	// RunnerNamed returns the runner with this name on GitHub.
	RunnerNamed(ctx context.Context, name string) (Runner, error)

	// FallbacksDue returns up to limit jobs that are Dispatched, whose runner
	// has no node, and whose next fallback is due; and when the next one after
	// those is due (zero: none known).
	FallbacksDue(ctx context.Context, now time.Time, limit int) (due []Claimed, next time.Time, err error)

	// FallBack stops a runner that has not claimed and has no node, and puts
	// the fallback with this number, from 1, in force for the job that waits
	// for it; false, and nothing is changed, when either went on meanwhile. The
	// job stays Dispatched until GoOn, so that no other runner starts before
	// this one's Nomad job is stopped.
	FallBack(ctx context.Context, runnerID string, fallback int, reason string, now time.Time) (bool, error)

	// GoOn puts the job that waits for a runner which is Finished, Lost or
	// Stopped into Retrying with the next try, due at once; false when none does.
	GoOn(ctx context.Context, runnerID, reason string, now time.Time) (bool, error)

	// Say gives a runner and the job that it runs another reason, a sentence,
	// for the state they are in.
	Say(ctx context.Context, runnerID, reason string, now time.Time) error

	// Recover gives up, as Lost does, the runners that were claimed when the
	// last process ended, and returns how many. The job of one that GitHub had
	// not configured is due at once. That of one which may or may not have been
	// given its configuration is due at doubt: if the runner lives, GitHub will
	// have said by then that it took a job.
	Recover(ctx context.Context, now, doubt time.Time) (int, error)

	// Job returns one job.
	Job(ctx context.Context, id int64) (Job, error)

	// Timeline returns what happened to a job and to the runners meant for it, oldest first.
	Timeline(ctx context.Context, jobID int64) ([]Event, error)

	// Changes returns up to limit changes after the one with the ID after, oldest
	// first. after < 0: only the newest of all, from which to go on.
	Changes(ctx context.Context, after int64, limit int) ([]Change, error)

	// Demand returns what the jobs received since a time asked for, of those within
	// a scope, without those that are ignored: one for each list of labels.
	Demand(ctx context.Context, within Scope, since time.Time) ([]Demand, error)

	// Mark returns the value that SetMark gave a name; "" when none did.
	Mark(ctx context.Context, name string) (string, error)
	SetMark(ctx context.Context, name, value string) error

	// Counts returns how many jobs are in each state.
	Counts(ctx context.Context) (map[JobState]int, error)

	LostStore
	OperatorStore
	AuditStore
	RecheckStore
	SyncStore
	PruneStore
	FeedbackStore
	MetricsStore
	StatisticsStore
}

// Claimed is a runner and its job, as a claim found them.
type Claimed struct {
	Runner Runner
	Job    Job  // the one that needs it; with its decision, unless it is not recorded yet
	Needed bool // false: no job needs the runner; Job is the one it was meant for
}
