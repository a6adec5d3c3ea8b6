package dispatch

import (
	"context"
	"fmt"
	"log/slog"

	"switchyard/router"
	"switchyard/rules"
)

// holdOutdated records that a job waits because GitHub gives the runners of its rule no jobs:
// another would only be one more. Its error is the store's.
func (di *Dispatcher) holdOutdated(ctx context.Context, j router.Job, d *rules.Decision, old *router.OutdatedError) error {
	log := di.Log.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule)
	log.Throttled(slog.LevelError, d.Rule, "github gives the runners of a rule no jobs, so no more are started for it", "said", old.Said,
		"fix", "have the rule, its jobspec or the nodes start a newer runner, then retry one of its jobs; new rules and jobspecs are tried by themselves")
	reason := fmt.Sprintf("rule %s starts no more runners, as GitHub gave two of them no job: %s. Name a newer runner in the rule or its jobspec, and it goes on by itself; "+
		"if the runner was updated elsewhere, as on the nodes, say so with switchyard jobs retry %d", d.Rule, old.Said, j.ID)
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	if err := di.Store.HoldOutdated(ctx, j.ID, reason, d, di.Now()); err != nil {
		return fmt.Errorf("hold job %d: %w", j.ID, err)
	}
	di.Due.Give() // another job may have its place now
	return nil
}
