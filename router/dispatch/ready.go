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

const (
	soon = 5 * time.Second // a claim waits for so long
)

// ready fails with a *RetryAtError when a runner for the job could not be
// registered on GitHub if it started now, or its GitHub is not configured. Those
// that register themselves cost GitHub nothing that it counts.
func (di *Dispatcher) ready(ctx context.Context, j router.Job, r rules.Runner, own bool) error {
	t, now := router.TargetOf(j.Repo, r), di.Now()
	err := di.GitHub.Admit(ctx, router.Admission{Target: t, Group: r.Group, Own: own})
	var fix *router.FixError
	var later *router.RetryAtError
	switch {
	case errors.As(err, &later) && !later.Failing && (r.Registration == "token" || later.At.Before(now.Add(soon))):
		return nil
	case errors.As(err, &later):
		return &router.RetryAtError{At: di.Backoff.Place(cmp.Or(later.Line, fmt.Sprint(t)), later.At, now), Failing: later.Failing, Err: later.Err}
	case errors.As(err, &fix):
		return &router.RetryAtError{At: now.Add(router.GitHubFixWait), Failing: true, Err: err}
	}
	return nil // what else is wrong the claim says
}
