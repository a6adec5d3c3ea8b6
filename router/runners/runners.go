// Package runners owns a runner's life after its registration on Nomad: it follows Nomad's
// events, compares the database with Nomad, adopts runners that only Nomad has, gives
// leftover runners another job or ends them, puts fallbacks in force, and removes dead
// runners from GitHub. Dispatch, claims and operators call it; it has intake ask GitHub
// about jobs.
package runners

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"switchyard/router"
	"switchyard/router/decide"
	"switchyard/router/intake"
	"switchyard/router/telemetry"
)

// A Store is what runners use of the database.
type Store interface {
	// Lost gives up a runner that has no job of GitHub's. If its own job still waits, that
	// becomes Retrying with the next try, due at at. It reports whether there was anything
	// to give up: not when the runner has left the state in r; "" is any.
	Lost(ctx context.Context, r router.Runner, at time.Time, cause router.Cause, reason string, now time.Time) (lost bool, err error)

	// IdleRunners returns how many runners of a job were Lost because GitHub gave them no job.
	IdleRunners(ctx context.Context, jobID int64) (int, error)

	// Leftovers returns the runners that are Dispatched, Claimed or Online and that no job
	// waits for: those of one job, or of all jobs when jobID is 0.
	Leftovers(ctx context.Context, jobID int64) ([]router.Runner, error)

	// Unkept returns the runners that were to stay if their job failed, when it has ended and
	// did not, and their Nomad job still runs.
	Unkept(ctx context.Context) ([]router.Runner, error)

	// Verifies is dispatch.Store's.
	Verifies(ctx context.Context, runnerID string, tokenHash [32]byte, now time.Time) error

	// Reuse gives a leftover runner that is registered on Nomad to the oldest job of equal
	// fit that waits without a runner. That job moves to Dispatched, and its ID is
	// returned; 0 when there is none, or when the runner is no longer a leftover.
	Reuse(ctx context.Context, runnerID string, now time.Time) (jobID int64, err error)

	// Stopped moves a runner from the state in r, which is Dispatched, Claimed or Online, to
	// Stopped. If a job waits for it, that becomes Retrying with the next try, due at once.
	// It reports whether it did so: not when the runner has left that state, or was
	// registered, in the meantime.
	Stopped(ctx context.Context, r router.Runner, reason string, now time.Time) (stopped bool, err error)

	// Live returns, in no order, all runners that may be alive on Nomad, or whose end is not
	// recorded.
	Live(ctx context.Context) ([]router.LiveRunner, error)

	// RecordNomadEvents records what Nomad's events say about runners: when one was placed
	// and where, when it ended and how, and what that means for the job that waits for it.
	// It returns those runners, as they are afterwards, with the last event of each. It
	// takes events in any order, any number of times; those of other Nomad jobs are ignored.
	RecordNomadEvents(ctx context.Context, events []router.NomadEvent, now time.Time) ([]router.SeenRunner, error)

	// RecordUnplaced records why Nomad has no node for runners that wait for one. It becomes
	// the reason of the jobs that wait for them, too.
	RecordUnplaced(ctx context.Context, runnerIDs []string, u router.Unplaced, now time.Time) error

	// Unevaluated returns up to limit runners that wait for a node and that Nomad has said
	// nothing about since they were registered, or since before.
	Unevaluated(ctx context.Context, before time.Time, limit int) ([]router.Runner, error)

	// RecordUnevaluated records that Nomad has not evaluated runners. It becomes their
	// reason, and that of the jobs that wait for them.
	RecordUnevaluated(ctx context.Context, runnerIDs []string, why string, now time.Time) error

	// Ended records that the Nomad jobs of runners ended or are gone.
	Ended(ctx context.Context, runnerIDs []string, now time.Time) error

	// UnknownRunners returns those of the runners that are not in the database, each with
	// whether its job is.
	UnknownRunners(ctx context.Context, runnerIDs []string) (jobKnown map[string]bool, err error)

	// ClearEnded takes back that the Nomad jobs of Finished, Lost or Stopped runners ended,
	// if that was recorded before the given time, and returns for how many it did.
	ClearEnded(ctx context.Context, jobs []router.NomadJob, before, now time.Time) (int, error)

	// Adopt records a runner that runs on Nomad for a known job, in the state in r, with the
	// hash of its claim token; false when the runner is known already. A job that waits
	// takes it for its current try, unless the job is past that try, and has the fit in r, if that has one.
	Adopt(ctx context.Context, r router.Runner, tokenHash [32]byte, now time.Time) (bool, error)

	// FallbacksDue returns up to limit Dispatched jobs whose runner has no node and whose
	// next fallback is due, and when the next one after those is due (zero: none known).
	FallbacksDue(ctx context.Context, now time.Time, limit int) (due []router.Claimed, next time.Time, err error)

	// FallBack stops a runner that has not claimed and has no node, and puts the fallback
	// with this number, from 1, in force for the job that waits for it. It returns false
	// and changes nothing when either has moved on. The job stays Dispatched until Requeue,
	// so that no other runner starts before this one's Nomad job is stopped.
	FallBack(ctx context.Context, runnerID string, fallback int, reason string, now time.Time) (bool, error)

	// Requeue moves the job that waits for a Finished, Lost or Stopped runner to Retrying
	// with the next try, due at once; false when no job does.
	Requeue(ctx context.Context, runnerID, reason string, now time.Time) (bool, error)

	// SetReason gives a runner and the job that it runs another reason for their present
	// state: a sentence.
	SetReason(ctx context.Context, runnerID, reason string, now time.Time) error

	Job(ctx context.Context, id int64) (router.Job, error)

	Mark(ctx context.Context, name string) (string, error)

	Runner(ctx context.Context, id string) (router.Runner, error)
}

// Runners looks after the runners. It is made by New and safe for concurrent use; its
// exported fields are set before, and are required.
type Runners struct {
	Store    Store
	Nomad    router.Nomad
	GitHub   router.GitHub
	Intake   *intake.Intake
	Decider  *decide.Decider
	First    *intake.FirstSync
	Log      *telemetry.Log
	Metrics  *telemetry.Metrics
	Backoff  *router.Backoff
	Now      func() time.Time
	Due      router.Hint // given when a job may be due
	Versions *Versions
	Leftover *router.JobHint                                   // received: jobs whose runners may be left over
	Compare  router.TimeHint                                   // received and given: when to compare with Nomad next
	MakeRoom func(ctx context.Context, j router.Job)           // called with a job that waits for a node, which is busy
	Listed   func(ctx context.Context, jobs []router.NomadJob) // called with each listing of Nomad
	Warm     router.Hint                                       // given when something has become of a warm runner on Nomad

	PublicURL string        // where runners claim
	Tick      time.Duration // how often left-over runners are read though no hint came
	Sweep     time.Duration // how often the database is compared with a listing of Nomad
	Idle      time.Duration // how long a runner may wait for its configuration or a job
	Doubt     time.Duration // how long a runner that may have a job has to show itself

	policy     policy
	follower   *follower
	reconciler *reconciler
	adopter    *adopter

	ended       chan router.LiveRunner      // size maxEnded; received by endLoop
	unevaluated atomic.Pointer[unevaluated] // when Nomad was last seen not to evaluate runners; nil: never

	mu      sync.Mutex
	started map[string]bool // runners that Nomad is being asked for; true: no job needs it any longer
	givenUp map[string]bool // runners that are being ended because GitHub gives them no job
}

// New returns Runners whose exported fields are those of rs.
func New(rs *Runners) *Runners {
	rs.policy = policy{doubt: rs.Doubt, idle: rs.Idle, sweep: rs.Sweep, publicURL: rs.PublicURL}
	rs.follower = &follower{r: rs, regions: newRegions(), why: asker{wake: router.NewHint()}}
	rs.reconciler = &reconciler{r: rs}
	rs.adopter = &adopter{r: rs, tried: map[int64]bool{}, foreign: map[nomadKey]bool{}}
	rs.ended = make(chan router.LiveRunner, maxEnded)
	rs.started, rs.givenUp = map[string]bool{}, map[string]bool{}
	return rs
}

// warnOf writes a warning about a runner, with its job's rule and repository, unless the
// same was written about that rule in the last minute.
func (rs *Runners) warnOf(ctx context.Context, r router.Runner, message string, args ...any) {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	rule, repo := "", ""
	if j, err := rs.Store.Job(ctx, r.JobID); err == nil {
		repo = j.Repo.FullName
		if j.Decision != nil {
			rule = j.Decision.Rule
		}
	}
	log := rs.Log.With("job_id", r.JobID, "repo", repo, "rule", rule, "nomad_job", r.NomadJob)
	log.Throttled(slog.LevelWarn, rule, message, args...)
}

// Loops returns what Runners does until their context ends. Each is to be run once.
func (rs *Runners) Loops() []func(context.Context) error {
	return []func(context.Context) error{
		rs.follower.follow, rs.reconciler.reconcile, rs.follower.explainLoop, rs.follower.endLoop, rs.fallbackLoop, rs.leftoverLoop, rs.follower.unevaluatedLoop,
	}
}

// Pass compares the database with Nomad once.
func (rs *Runners) Pass(ctx context.Context) error {
	var next time.Time
	return rs.reconciler.pass(ctx, nil, &next)
}

// Adopt adopts the runners that Nomad already has for a job, if there are any, before the job
// is given another, and returns the job as it is then. It fails when Nomad may have one of a
// later try that cannot be adopted yet: the job must get no other until it can. Then it returns
// j, and a *GitHubError if that is because of GitHub.
func (rs *Runners) Adopt(ctx context.Context, j router.Job) (router.Job, error) {
	return rs.adopter.Adopt(ctx, j)
}

// Adopted returns, once, what Nomad would answer if it were asked for a runner that was
// adopted just now; false when none was.
func (rs *Runners) Adopted(runnerID string) (router.Started, bool) {
	return rs.adopter.orphans.takeAdopted(runnerID)
}

// Recognize asks GitHub whether it knows a runner that the database does not, and sets its
// state: online or busy if so; else the runner has not claimed yet.
func (rs *Runners) Recognize(ctx context.Context, r *router.Runner, at router.Target) error {
	return rs.adopter.Recognize(ctx, r, at)
}

// An unevaluated is a region that was seen not to evaluate runners, by this machine's clock.
type unevaluated struct {
	region string
	at     time.Time
}

// fresh reports whether it may be so still.
func (u *unevaluated) fresh() bool { return u != nil && time.Since(u.at) < 2*unevaluatedAfter }

// notEvaluated notes that a region does not evaluate runners. Of several, the client's own is shown.
func (rs *Runners) notEvaluated(region string) {
	if now := rs.unevaluated.Load(); region == "" || !now.fresh() || now.region != "" {
		rs.unevaluated.Store(&unevaluated{region, time.Now()})
	}
}

// NotEvaluating returns for how long a region of Nomad has been seen not to evaluate runners, and
// which, "" for the client's own; 0: all do.
func (rs *Runners) NotEvaluating() (d time.Duration, region string) {
	if now := rs.unevaluated.Load(); now.fresh() {
		return max(time.Since(now.at), 1), now.region
	}
	return 0, ""
}
