package api

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"time"

	"switchyard/router"
	"switchyard/router/usage"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

const (
	usageDays    = 30
	usageTimeout = 30 * time.Second // for counting a period and the one before: 1,000,000 jobs take some seconds
)

// Usage answers what jobs used that whoever ctx is of may see.
func (a *API) Usage(ctx context.Context, q url.Values) (usage.Report, error) {
	return CountUsage(ctx, a.Database, auth.Who(ctx).Scope, q, a.config.App.Rules().Prices(), a.config.Now())
}

// CountUsage answers what the API's parameters by, since and until ask of a database.
func CountUsage(ctx context.Context, b Database, within router.Scope, q url.Values, prices rules.Prices, now time.Time) (r usage.Report, err error) {
	p := Parameters{Values: q}
	f := router.UsageFilter{By: cmp.Or(router.UsageBy(p.Text("by")), router.ByRepo), From: p.time("since"), Until: p.time("until"), Within: within}
	if f.Until.IsZero() {
		f.Until = now
	}
	if f.From.IsZero() {
		f.From = f.Until.AddDate(0, 0, -usageDays)
	}
	if err := p.End(); err != nil {
		return r, err
	}
	if err := usage.Check(f); err != nil {
		return r, problem.New(http.StatusBadRequest, "%v", err)
	}
	return usage.Count(ctx, b, f, prices)
}

// Usage goes through the jobs of a long time, so one query after the other does, and of each
// principal one waits. It ends with ctx.
func (b inTurn) Usage(ctx context.Context, f router.UsageFilter, each func(*router.Used) error) error {
	done, err := b.turns.takeLong(ctx)
	if err != nil {
		return err
	}
	defer done()
	within, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	err = b.database.Usage(within, f, each)
	switch {
	case err == nil:
		return nil
	case problem.GaveUp(ctx):
		return problem.Canceled()
	case within.Err() != nil:
		return problem.New(http.StatusServiceUnavailable, "counting takes longer than %v: ask for less with since", usageTimeout)
	}
	return err
}

func (b inTurn) FirstEnded(ctx context.Context) (time.Time, error) {
	return ask(ctx, b, b.database.FirstEnded)
}
