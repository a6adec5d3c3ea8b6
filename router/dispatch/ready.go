package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

const claimWaits = 5 * time.Second // how long a claim waits for a limit of GitHub

// ready fails with a *RetryAtError when GitHub would not register a runner for the job
// if it started now, or when its GitHub is not configured. Runners that register
// themselves do not count against GitHub's limits.
func (di *Dispatcher) ready(ctx context.Context, j router.Job, r rules.Runner, own bool) error {
	t, now := router.TargetOf(j.Repo, r), di.Now()
	err := di.GitHub.Admit(ctx, router.Admission{Target: t, Group: r.Group, Own: own})
	var later *router.RetryAtError
	switch {
	case errors.As(err, &later) && !later.Failing && (r.Registration == "token" || later.At.Before(now.Add(claimWaits))):
		return nil
	case errors.As(err, &later):
		return &router.RetryAtError{At: di.Backoff.Place(cmp.Or(later.Line, fmt.Sprint(t)), later.At, now), Failing: later.Failing, Err: later.Err}
	case errors.As(err, new(*router.FixError)):
		return &router.RetryAtError{At: now.Add(router.GitHubFixWait), Failing: true, Err: err}
	}
	return nil // any other error shows at the claim
}
