package server

import (
	"context"
	"time"

	"switchyard/router"
	"switchyard/router/claim"
	"switchyard/router/dispatch"
	"switchyard/router/feedback"
	"switchyard/router/intake"
	"switchyard/router/operate"
	"switchyard/router/runners"
	"switchyard/router/telemetry"
)

// A Store is the database, for all rooms. Every method that changes something returns
// after the change is durable, is one transaction, and is safe for concurrent
// use. An unknown job or runner is router.ErrNotFound.
type Store interface {
	dispatch.Store
	runners.Store
	runners.StrayStore
	claim.Store
	intake.Store
	intake.SweepStore
	intake.SyncStore
	feedback.Store
	operate.Store
	telemetry.Counter

	// Recover gives up, as Lost does, the runners that were claimed when the
	// last process ended, and returns how many. The job of one that GitHub had
	// not configured is due at once. That of one which may or may not have been
	// given its configuration is due at doubt: if the runner lives, GitHub will
	// have said by then that it took a job.
	Recover(ctx context.Context, now, doubt time.Time) (int, error)

	// Rewind takes times that lie after now back to now, as the clock was set back:
	// those of jobs and runners that have not ended, with what waits since then, and of
	// what is to be done again. What was due later by a clock that was ahead is due
	// now, or its wait begins anew. It returns of how many jobs and runners.
	Rewind(ctx context.Context, now time.Time) (int, error)

	// Changes returns up to limit changes after the one with the ID after, oldest
	// first. after < 0: only the newest of all, from which to go on.
	Changes(ctx context.Context, after int64, limit int) ([]router.Change, error)

	// Latest returns when anything was last recorded; zero: never.
	Latest(ctx context.Context) (time.Time, error)

	// Prune deletes some hundred rows at most: of jobs that came into their
	// last state before ended, or became Ignored or Denied before foreign, with what
	// is known of them and of their runners, and deliveries received before
	// delivered. It returns how many; 0: there are no more. A job with a runner that may live is kept; one with a runner
	// whose Nomad job was not seen to end is, unless it is older than unseen.
	Prune(ctx context.Context, ended, foreign, unseen, delivered time.Time) (rows int, err error)

	// Timeline returns what happened to a job and to the runners meant for it, oldest first.
	Timeline(ctx context.Context, jobID int64) ([]router.Event, error)

	FindRunners(ctx context.Context, f router.RunnerFilter) ([]router.Runner, error)

	// Demand returns what the jobs received since a time asked for, of those within
	// a scope, without those that are ignored: one for each list of labels.
	Demand(ctx context.Context, within router.Scope, since time.Time) ([]router.Demand, error)
}
