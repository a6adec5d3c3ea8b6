package router

import (
	"context"
	"time"
)

// A Store is what the process and the console use of the database. Every method that changes something returns
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

// LostStore is the part of Store that keeps what got lost on the way from GitHub.
type LostStore interface {
	// SawHook notes that a delivery named a hook, and makes it known, swept until
	// then, unless one of its kind and ID is: that keeps its owner and repository.
	// It is not made known while MaxUnprovedHooks of its repository or organization are
	// not proved; with more than MaxHooks, the one heard of longest ago is forgotten.
	// known is false when the store does not have it as it is in h.
	SawHook(ctx context.Context, h Hook, swept, now time.Time) (known bool, err error)

	// ForgetHook forgets a hook and its redeliveries.
	ForgetHook(ctx context.Context, h Hook) error

	// Hooks returns the known hooks: the App's, then those heard of last.
	Hooks(ctx context.Context) ([]HookSweep, error)

	// Swept records how far a hook was swept, whether it is proved, and the
	// deliveries that are missed: those not received are due for redelivery.
	Swept(ctx context.Context, h HookSweep, missed []SentDelivery, now time.Time) error

	// RedeliverNow makes the redeliveries due that are so later.
	RedeliverNow(ctx context.Context, now time.Time) error

	// Redeliveries returns up to limit deliveries that are due, oldest first but
	// those that a job ended or runs before, and forgets those that were received, or made before old.
	Redeliveries(ctx context.Context, now, old time.Time, limit int) ([]Redelivery, error)

	// Redelivered counts a try of a redelivery; it is due at again, or, when
	// that is zero, never.
	Redelivered(ctx context.Context, guid string, again time.Time) error
}

// OperatorStore is the part of Store that operators see and change.
type OperatorStore interface {
	// FindJobs and FindRunners return those that a filter looks for, newest
	// first: by the job's ID, which grows, and the runner's try for it.
	FindJobs(ctx context.Context, f JobFilter) ([]Job, error)
	FindRunners(ctx context.Context, f RunnerFilter) ([]Runner, error)

	// Runner returns one runner.
	Runner(ctx context.Context, id string) (Runner, error)

	// Runners returns the runners that are or were meant for a job, by try.
	Runners(ctx context.Context, jobID int64) ([]Runner, error)

	// Redecide puts a job that was decided, waits for a place under a limit, or
	// is to be tried again, into Queued, due at once, with a try whose runner
	// never was; by says who has it so. It reports whether it did: the job may be
	// in another state.
	Redecide(ctx context.Context, jobID int64, by Source, reason string, now time.Time) (bool, error)

	// Cancel ends a job that has no runner of GitHub's as Denied. It reports
	// whether it did.
	Cancel(ctx context.Context, jobID int64, reason string, now time.Time) (bool, error)

	// Note gives a runner that has not ended a reason that an operator is the source of.
	Note(ctx context.Context, runnerID, reason string, now time.Time) error
}

// RecheckStore is the part of Store that says which jobs GitHub is to be asked about.
type RecheckStore interface {
	// Stale returns up to limit jobs that GitHub is to be asked about, those
	// first that were asked about longest ago: jobs that wait for a runner, if we
	// heard of them, and asked last, longer than unserved ago; running ones, after
	// six times as long; and those that are Held on GitHub, after a tenth of it. The
	// time between two questions about a job grows to half of its age, or of how
	// long it is Held there, and to 36 times unserved at most.
	Stale(ctx context.Context, now time.Time, unserved time.Duration, limit int) ([]Job, error)

	// Asked records that GitHub was asked about a job, whatever it said.
	Asked(ctx context.Context, jobID int64, now time.Time) error
}

// A SyncStore is the part of Store that a full look uses.
type SyncStore interface {
	// Open returns the jobs of a repository of an instance, in any spelling,
	// that are Held, Queued, Retrying, Dispatched or Running.
	Open(ctx context.Context, instance int64, owner, repo string) ([]Job, error)

	// Latest returns when anything was last recorded; zero: never.
	Latest(ctx context.Context) (time.Time, error)

	// Repos returns up to limit repositories of jobs that were received since,
	// with Host, Owner, Name and FullName.
	Repos(ctx context.Context, since time.Time, limit int) ([]Repo, error)
}

// PruneStore is the part of Store that forgets.
type PruneStore interface {
	// Prune deletes some hundred rows at most: of jobs that came into their
	// last state before ended, or became Ignored or Denied before foreign, with what
	// is known of them and of their runners, and deliveries received before
	// delivered. It returns how many; 0: there are no more. A job with a runner that may live is kept; one with a runner
	// whose Nomad job was not seen to end is, unless it is older than unseen.
	Prune(ctx context.Context, ended, foreign, unseen, delivered time.Time) (rows int, err error)
}

// FeedbackStore is the part of Store that knows what is said on commits, and
// which runs are to be cancelled.
type FeedbackStore interface {
	// Unsaid returns up to limit jobs of which something is to be said by now:
	// first those of which something was, and that have another state or reason
	// since; then, unless kind is "", those that were refused, or that wait, for
	// longer than after. Those that became known before since are left out.
	Unsaid(ctx context.Context, kind NoticeKind, after time.Duration, since, now time.Time, limit int) ([]Unsaid, error)

	// Saying records that something may be said of a job from now on.
	Saying(ctx context.Context, jobID int64, kind NoticeKind, now time.Time) error

	// Said records what GitHub was told of a job, and the ID of that. The next
	// may be said at again, or, when that is zero, never.
	Said(ctx context.Context, jobID, id int64, state JobState, reason string, again time.Time) error

	// Unsayable records that GitHub did not take it. It is tried again at
	// again, or, when that is zero, never.
	Unsayable(ctx context.Context, jobID int64, again time.Time) error

	// Unservable returns up to limit jobs that became Unroutable between the two
	// times, whose run was not cancelled and has no job that is Running, one of
	// each run.
	Unservable(ctx context.Context, old, since time.Time, limit int) ([]Job, error)

	// Cancelled records that a run was cancelled: why is added to the reason of
	// its jobs that are Unroutable.
	Cancelled(ctx context.Context, repo Repo, runID int64, why string, now time.Time) error

	// LeftAlone records that a job which is Unroutable is no cause to cancel its
	// run: why is added to its reason.
	LeftAlone(ctx context.Context, jobID int64, why string, now time.Time) error
}

// MetricsStore is the part of Store that counts.
type MetricsStore interface {
	// OpenJobs counts the jobs within a scope that wait or run.
	OpenJobs(ctx context.Context, within Scope) ([]OpenJobs, error)

	// LiveRunners returns how many of the runners that may be alive on Nomad are in each state.
	LiveRunners(ctx context.Context) (map[RunnerState]int, error)

	// Size returns the bytes of the database's file and of its write-ahead log.
	Size() (main, wal int64, err error)
}
