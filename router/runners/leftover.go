package runners

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"switchyard/router"

	"golang.org/x/sync/errgroup"
)

const (
	leftoverCallers = 8 // of Nomad and GitHub at the same time
)

// leftoverLoop handles the runners that no job waits for, until ctx ends: those of the jobs
// that a hint names at once, and all of them each Tick. Each is used for another job, or
// retired.
func (rs *Runners) leftoverLoop(ctx context.Context) error {
	tick := time.NewTicker(rs.Tick)
	defer tick.Stop()
	later := map[string]time.Time{} // by runner ID: when those that could not be retired are tried again
	jobs := []int64{0}
	for {
		for id, at := range later {
			if now := rs.Now(); !now.Before(at) || at.Sub(now) > max(rs.Sweep, router.LongestWait) { // or the clock was set back
				delete(later, id)
			}
		}
		err := rs.handleLeftovers(ctx, jobs, later)
		if err == nil {
			err = rs.stopUnkept(ctx)
		}
		if err != nil && ctx.Err() == nil {
			rs.Log.Throttled(slog.LevelError, "", "cannot read the runners that no job needs, or give them another job", "err", err, "fix", router.StoreFix(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-rs.Leftover.C:
			jobs = rs.Leftover.Take()
		case <-tick.C:
			jobs = []int64{0}
		}
	}
}

// handleLeftovers handles the leftover runners of some jobs; its error is the store's.
func (rs *Runners) handleLeftovers(ctx context.Context, jobs []int64, later map[string]time.Time) error {
	var list []router.Runner
	for _, id := range jobs {
		of, err := rs.Store.Leftovers(ctx, id)
		if err != nil {
			return err
		}
		for _, r := range of {
			if _, wait := later[r.ID]; !wait {
				list = append(list, r)
			}
		}
	}
	again := make([]time.Time, len(list))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(leftoverCallers)
	for i, r := range list {
		g.Go(func() (err error) {
			again[i], err = rs.handleLeftover(ctx, r)
			return err
		})
	}
	err := g.Wait()
	for i, at := range again {
		if !at.IsZero() {
			later[list[i].ID] = at
		}
	}
	return err
}

// stopUnkept stops the runners that stay only for a job that fails, whose job did not; its
// error is the store's. Those that Nomad does not stop now are tried again with the next.
func (rs *Runners) stopUnkept(ctx context.Context) error {
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	list, err := rs.Store.Unkept(storeCtx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(leftoverCallers)
	for _, r := range list {
		g.Go(func() error {
			if err := rs.StopJob(ctx, r); err != nil && ctx.Err() == nil {
				rs.Log.Throttled(slog.LevelWarn, "", "cannot stop a runner whose job did not fail", "nomad_job", r.NomadJob, "err", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// handleLeftover gives a leftover runner another job, or retires it. again is when to try
// again; zero: there is no need to.
func (rs *Runners) handleLeftover(ctx context.Context, r router.Runner) (again time.Time, err error) {
	log := rs.Log.With("nomad_job", r.ID)
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	jobID, err := rs.Store.Reuse(storeCtx, r.ID, rs.Now())
	if err != nil {
		return time.Time{}, err
	}
	if jobID != 0 {
		log.Info("a leftover runner serves another job", "job_id", jobID)
		return time.Time{}, nil
	}
	if r.State == router.RunnerClaimed || r.NomadJob == "" && rs.beingStarted(r.ID) {
		return time.Time{}, nil // whoever works on it gives the hint again
	}
	if r.NomadJob == "" { // it may have been registered since r was read
		if r, err = rs.Store.Runner(storeCtx, r.ID); err != nil || r.State != router.RunnerDispatched {
			return time.Time{}, err
		}
	}
	err = rs.Retire(ctx, r, "no job needs it")
	switch {
	case err == nil || ctx.Err() != nil:
		return time.Time{}, nil
	case errors.Is(err, router.ErrBusy):
		return rs.Now().Add(rs.Sweep), nil // GitHub will say which job it has
	}
	again, ok := rs.Backoff.Retry(err, 7) // no sooner than half the longest wait
	if !ok {
		again = rs.Now().Add(rs.Sweep)
	}
	log.Throttled(slog.LevelWarn, "", "cannot stop a runner that no job needs", "job_id", r.JobID, "err", err, "again_at", again)
	return again, nil
}
