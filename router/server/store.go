package server

import (
	"context"
	"time"

	"switchyard/router"
	"switchyard/router/claim"
	"switchyard/router/dispatch"
	"switchyard/router/feedback"
	"switchyard/router/health"
	"switchyard/router/intake"
	"switchyard/router/operate"
	"switchyard/router/overflow"
	"switchyard/router/rerun"
	"switchyard/router/runners"
	"switchyard/router/telemetry"
	"switchyard/router/warm"
)

// A Store is the database, for all rooms. Every method that changes something is one
// transaction, returns after the change is durable, and is safe for concurrent use. An unknown
// job or runner is router.ErrNotFound.
type Store interface {
	dispatch.Store
	runners.Store
	runners.StrayStore
	runners.VersionStore
	claim.Store
	intake.Store
	intake.SweepStore
	intake.PollStore
	intake.SyncStore
	feedback.Store
	operate.Store
	overflow.Store
	rerun.Store
	warm.Store
	telemetry.Counter
	health.Store

	// Recover gives up, as Lost does, the runners that have been Claimed since until or
	// longer, as the process ended that answered them, and returns how many. A job whose
	// runner GitHub had not configured is due at once. A job whose runner may have been given
	// its configuration is due at doubt: if that runner lives, GitHub will have said by then
	// that it took a job.
	Recover(ctx context.Context, until, doubt, now time.Time) (int, error)

	// DoubtWarm makes the warm runners that no job has taken Doubted, until they come to the
	// claim again.
	DoubtWarm(ctx context.Context) error

	// Rewind sets times that lie after now to now, because the clock was set back: those of
	// jobs and runners that have not ended, with since when they wait, and of what is to be
	// repeated. What a clock that was ahead made due later is due now, or its wait starts
	// over. It returns how many jobs and runners it changed.
	Rewind(ctx context.Context, now time.Time) (int, error)

	// Changes returns up to limit changes after the one with the ID after, oldest first.
	// after < 0: only the newest of all, from which to continue.
	Changes(ctx context.Context, after int64, limit int) ([]router.Change, error)

	// Latest returns when anything was last recorded; zero: never.
	Latest(ctx context.Context) (time.Time, error)

	// Prune deletes a few hundred rows at most: of jobs that entered their last state before
	// ended, or became Ignored or Denied before foreign, with everything about them and their
	// runners, and deliveries received before delivered. It returns how many; 0: none are
	// left. A job with a runner that may be alive is kept. A job with a runner whose Nomad job
	// was not seen to end is kept, unless it is older than unseen.
	Prune(ctx context.Context, ended, foreign, unseen, delivered time.Time) (rows int, err error)
}
