package router

import (
	"context"
	"slices"
	"time"
)

// Nomad is Nomad, as the rooms use it. *nomad.Client is the implementation.
type Nomad interface {
	// Start registers the runner's Nomad job once: called again for the same runner, it
	// returns the job that the earlier call registered. Errors are classified as
	// GiveUpError, FixError and RetryAtError; any other is worth a retry. Safe for
	// concurrent use.
	Start(ctx context.Context, r StartRequest) (Started, error)

	// Ended reports whether the Nomad job of a registered runner has ended or
	// is gone. Safe for concurrent use.
	Ended(ctx context.Context, r Runner) (bool, error)

	// Stop stops the Nomad job of a runner. It succeeds when the job has ended or is
	// gone. The job is not purged, so that its ID stays taken. Safe for concurrent use.
	Stop(ctx context.Context, r Runner) error

	// Jobs lists, in one request, the Nomad jobs of all runners in a region, ended ones
	// included for as long as Nomad keeps them, and returns the index from which Follow
	// continues there. Safe for concurrent use.
	Jobs(ctx context.Context, region string) (jobs []NomadJob, index uint64, err error)

	// Follow calls each with every event of runners' Nomad jobs in a region, from index on, until
	// ctx ends, each fails, or Nomad does. The error says which and is never nil. There
	// is never more than one call of each at a time. Events may be repeated. The first
	// event is NomadFollowed. Nomad keeps few events, so those between index and
	// NomadFollowed may be lost, and so may those after an error: call Jobs after
	// NomadFollowed to see their outcome.
	Follow(ctx context.Context, region string, index uint64, each func(NomadEvent) error) error

	// Allocation returns the newest allocation of a runner; ErrNotFound when it has
	// none. Safe for concurrent use.
	Allocation(ctx context.Context, r Runner) (Allocation, error)

	// End returns how the first allocation of a runner ended, as the NomadEnded that Follow
	// reports of it; ErrNotFound when it has not, or when Nomad no longer knows it. Safe for
	// concurrent use.
	End(ctx context.Context, r Runner) (NomadEvent, error)

	// Home returns where Start registers the runners of a placement. Errors are
	// classified as for Start. Safe for concurrent use.
	Home(ctx context.Context, p Placement) (NomadAt, error)

	// Region returns the region of Home, as far as that is known without a request: it
	// makes none. Safe for concurrent use.
	Region(p Placement) string

	// Claims reports whether the runners of a placement fetch their configuration by a
	// claim; if not, they bring their own registration. It is true for an unknown
	// jobspec. It makes no request. Safe for concurrent use.
	Claims(p Placement) bool

	// Waits returns what identifies the text of a placement's jobspec, and whether its runners
	// can wait at the claim for a job. It makes no request. Safe for concurrent use.
	Waits(p Placement) (jobspec string, ok bool)

	// ClaimOf returns the claim URL and token that Start put into the meta of a runner's
	// Nomad job, "" for those that are missing, and whether its runner brings its own
	// registration; ErrNotFound when the job is gone. Safe for concurrent use.
	ClaimOf(ctx context.Context, j NomadJob) (url string, token Secret, own bool, err error)

	// Suits returns those of the nodes, by name, that could run a runner of a rule's placement if
	// nothing else ran there. Of many it may leave some out. Safe for concurrent use.
	Suits(ctx context.Context, rule string, p Placement, nodes []string) ([]string, error)

	// Unplaced returns why Nomad has no node for a runner, or that it has not evaluated
	// the runner yet; nil when the runner has a node, or does not wait for one. Safe for
	// concurrent use.
	Unplaced(ctx context.Context, j Job, r Runner) (*Unplaced, error)
}

// A NomadCluster identifies the region of a Nomad cluster whose agent answers, by the IDs
// of the keys that sign its workload identities. The zero value is not known.
type NomadCluster struct {
	Keys []string `json:"keys,omitempty"` // sorted
}

// Same reports whether two answers came from one region of one cluster, or may have: one
// that is not known may have come from any. As keys are replaced now and then, both must be
// recent, of the last few minutes; ask again before relying on false.
func (c NomadCluster) Same(other NomadCluster) bool {
	return len(c.Keys) == 0 || len(other.Keys) == 0 || slices.ContainsFunc(c.Keys, func(key string) bool { return slices.Contains(other.Keys, key) })
}

// AnyRegion stands for all regions of Nomad.
const AnyRegion = "*"

// NomadAt is where a Nomad job is.
type NomadAt struct {
	Namespace string // "" until the job is registered
	Region    string // "": that of Switchyard's Nomad client
}

// A StartRequest asks Nomad for one runner.
type StartRequest struct {
	Runner     Runner
	Job        Job
	Rule       string // name of the rule that took the job
	Placement  Placement
	ClaimURL   string
	ClaimToken Secret
	Warm       bool // it waits at the claim; there is no Job yet

	VerifyURL   string // "": the runner does not ask whether it may serve its job
	VerifyToken Secret
}

// Started says what Nomad has for a StartRequest.
type Started struct {
	NomadJob   string // ID of the Nomad job
	At         NomadAt
	ClaimToken Secret   // the token in that job's meta: an earlier attempt's when Existed
	Existed    bool     // an earlier attempt had registered it
	Warnings   []string // Nomad's own warnings, for the log
}

// A NomadJob is the Nomad job of a runner, as a listing has it. We wrote its meta, but
// anybody who may register jobs can write the same.
type NomadJob struct {
	ID       string
	At       NomadAt
	RunnerID string // from its ID, or that of its dispatch; never ""; of a warm runner, even once a job took it, its ID
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
	End   NomadEnd  // of NomadEnded
	Loss  Loss      // of NomadEnded and NomadUnknown: why it ended through nobody's fault; "": it did not, or Nomad did not say
	Text  string    // for people: what failed, with which exit code; "" when there is nothing to add
	Code  int       // the exit code of the task that failed; 0: none did, or Nomad does not say
	Again bool      // of an allocation in the place of another, which was lost with its node or drained
}

// A NomadEventKind says what a NomadEvent is.
type NomadEventKind string

// The kinds of events.
const (
	NomadFollowed NomadEventKind = "followed" // of no job: every event from now on will come
	NomadWaits    NomadEventKind = "waits"    // no node has room for it: ask Unplaced
	NomadPlaced   NomadEventKind = "placed"   // it has a node
	NomadStarted  NomadEventKind = "started"  // a task of it runs
	NomadEnded    NomadEventKind = "ended"    // its allocation ended; Text says how
	NomadUnknown  NomadEventKind = "unknown"  // its node is disconnected: nobody knows how it is
	NomadStopped  NomadEventKind = "stopped"  // somebody stopped or purged it
)

// A NomadEnd is how an allocation ended; "" when Nomad did not say.
type NomadEnd string

// The ways in which an allocation ends.
const (
	EndComplete NomadEnd = "complete" // by itself, and well
	EndFailed   NomadEnd = "failed"   // by itself, or it could not start
	EndLost     NomadEnd = "lost"     // with its node
	EndKilled   NomadEnd = "killed"   // it was stopped
)

// An Allocation is Nomad's allocation of a runner.
type Allocation struct {
	ID       string
	Status   string // pending, running, complete, failed, lost or unknown
	Desired  string // run, stop or evict
	Node     string // its name
	NodeID   string
	NodeAddr string    // its IP address, as Nomad knows it; "" when it does not say
	NodeOut  string    // why Nomad places nothing more on it: draining, ineligible, or its status; "": it does, or does not say
	Created  time.Time // of Nomad's clock
}

// An Admission describes a runner that is about to be started on Nomad.
type Admission struct {
	Target Target
	Group  RunnerGroup
	Own    bool // it brings its own registration
}

// Unreadable is the status of an answer that was empty, cut off, or not from the server
// that was asked.
const Unreadable = -1

// TimedOut is the status of a call that was accepted, or may have been, and not answered in time.
const TimedOut = -2
