package server

import (
	"context"
	"errors"
	"log/slog"
	"switchyard/router"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	leftoverCallers = 8    // of Nomad and GitHub at the same time
	maxLooks        = 1000 // jobs; beyond, all are looked at
)

// leftovers sees to the runners that no job waits for, until ctx ends: at once
// to those that look was told of, and each Tick to all. Each is used for
// another job, or retired.
func (w *worker) leftovers(ctx context.Context) error {
	tick := time.NewTicker(w.Tick)
	defer tick.Stop()
	later := map[string]time.Time{} // by runner ID: when those that could not be retired are tried again
	jobs := []int64{0}
	for {
		for id, at := range later {
			if now := w.Now(); !now.Before(at) || at.Sub(now) > max(w.Sweep, longestWait) { // or the clock was set back
				delete(later, id)
			}
		}
		if err := w.seeTo(ctx, jobs, later); err != nil && ctx.Err() == nil {
			w.logThrottled(w.Logger, slog.LevelError, "", "cannot see to the runners that no job waits for", "err", err, "fix", router.StoreFix(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.spare:
			jobs = w.looks()
		case <-tick.C:
			jobs = []int64{0}
		}
	}
}

// look makes leftovers look at the runners of a job; of all when it is 0.
func (w *worker) look(jobID int64) {
	w.mu.Lock()
	if len(w.looked) >= maxLooks {
		jobID = 0
	}
	w.looked[jobID] = true
	w.mu.Unlock()
	select {
	case w.spare <- struct{}{}:
	default:
	}
}

// looks takes the jobs that look was told of.
func (w *worker) looks() (jobs []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.looked {
		jobs = append(jobs, id)
	}
	if w.looked[0] {
		jobs = []int64{0}
	}
	clear(w.looked)
	return jobs
}

// seeTo sees to the leftovers of some jobs; its error is the store's.
func (w *worker) seeTo(ctx context.Context, jobs []int64, later map[string]time.Time) error {
	var list []router.Runner
	for _, id := range jobs {
		of, err := w.Store.Leftovers(ctx, id)
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
			again[i], err = w.seeToOne(ctx, r)
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

// seeToOne sees to one leftover; if it must be tried again, again says when.
func (w *worker) seeToOne(ctx context.Context, r router.Runner) (again time.Time, err error) {
	log := w.Logger.With("nomad_job", r.ID)
	storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	jobID, err := w.Store.Reuse(storeCtx, r.ID, w.Now())
	if err != nil {
		return time.Time{}, err
	}
	if jobID != 0 {
		log.Info("a runner that was left over serves another job", "job_id", jobID)
		return time.Time{}, nil
	}
	if r.State == router.RunnerClaimed || r.NomadJob == "" && w.beingStarted(r.ID) {
		return time.Time{}, nil // whoever has it in hand makes us look again
	}
	if r.NomadJob == "" { // it may have been registered since r was read
		if r, err = w.Store.Runner(storeCtx, r.ID); err != nil || r.State != router.RunnerDispatched {
			return time.Time{}, err
		}
	}
	err = w.retire(ctx, r, "no job needs it any more")
	switch {
	case err == nil || ctx.Err() != nil:
		return time.Time{}, nil
	case errors.Is(err, router.ErrBusy):
		return w.Now().Add(w.Sweep), nil // GitHub will say which job it has
	}
	again, ok := w.backoff().Retry(err, 7) // no sooner than half the longest wait
	if !ok {
		again = w.Now().Add(w.Sweep)
	}
	w.logThrottled(log, slog.LevelWarn, "", "cannot stop a runner that no job needs", "job_id", r.JobID, "err", err, "again_at", again)
	return again, nil
}
