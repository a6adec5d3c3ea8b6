package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"switchyard/router"
	"switchyard/rules"
)

// undecided records that a job could not be decided because its run could not be looked up.
// Its error is the store's.
func (di *Dispatcher) undecided(ctx context.Context, j router.Job, d router.Decision, cause error) error {
	if ctx.Err() != nil {
		return nil // cut off: the next process decides it
	}
	log := di.Log.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "run_id", j.RunID, "err", cause)
	at, again := di.Backoff.RetryGitHub(cause, j.Failures)
	if !again {
		log.Throttled(slog.LevelError, d.Rule, "github refuses to say what started a run")
		d.Outcome, d.Reason = rules.Unroutable, fmt.Sprintf("GitHub refuses to say what started the run: %v", cause)
		return di.settle(ctx, j.ID, router.Unroutable, "", d.Reason, &d)
	}
	if fix, ok := errors.AsType[*router.FixError](cause); ok {
		log.Throttled(slog.LevelError, d.Rule, "a job waits until somebody changes the configuration", "fix", fix.Fix, "again_at", at)
	} else {
		log.Throttled(slog.LevelWarn, d.Rule, "github did not say what started a run; the job will be retried", "again_at", at)
	}
	return di.retry(ctx, j.ID, githubCause(cause), at, fmt.Sprintf("GitHub has not said what started the run yet: %v", cause), nil)
}
