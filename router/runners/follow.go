package runners

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"switchyard/router"

	"golang.org/x/sync/errgroup"
)

const (
	eventBatch = 256         // events recorded in one transaction
	steady     = time.Minute // after following for so long, failures are counted from zero
	whyPause   = 300 * time.Millisecond
	whyCallers = 4   // of Nomad at the same time
	whyFits    = 200 // fits asked about in one pass
	whySamples = 10  // runners that ask the same of Nomad asked about, until it says why one of them waits

	maxEnded = 1000        // ended runners in the queue of endLoop; a pass handles those beyond
	endTries = 3           // times that Nomad is asked whether a job ended with its allocation
	endPause = time.Second // between them
)

// A follower records Nomad's events.
type follower struct {
	r       *Runners
	regions *regions
	why     asker
}

// followRegion keeps the database in step with a region until ctx ends: it has a listing
// compared, then records the events after it, and starts over whenever the stream fails.
func (f *follower) followRegion(ctx context.Context, region string) error {
	for failures := 0; ; failures++ {
		began := f.r.Now()
		err := f.followOnce(ctx, region)
		if ctx.Err() != nil {
			return nil
		}
		if f.r.Now().Sub(began) > steady {
			failures = 0
		}
		at, ok := f.r.Backoff.Retry(err, failures)
		if !ok {
			at = f.r.Now().Add(router.LongestWait)
		}
		f.regions.fails(region, err)
		if fix, ok := errors.AsType[*router.FixError](err); ok {
			f.r.Log.Throttled(slog.LevelError, region, "nomad does not allow its events to be followed", "fix", fix.Fix, "err", err, "again_at", at)
		} else {
			f.r.Log.Throttled(slog.LevelWarn, region, "the stream of Nomad's events broke; its jobs are listed again", "err", err, "again_at", at)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(at.Sub(f.r.Now())):
		}
	}
}

// followOnce follows until something fails; its error is never nil.
func (f *follower) followOnce(ctx context.Context, region string) error {
	jobs, index, err := f.list(ctx, region)
	if err != nil {
		return err
	}
	f.regions.fails(region, nil)
	f.regions.listed(region, jobs)

	g, ctx := errgroup.WithContext(ctx)
	events := make(chan router.NomadEvent, 4*eventBatch)
	g.Go(func() error {
		return f.r.Nomad.Follow(ctx, region, index, func(e router.NomadEvent) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case e := <-events:
				if err := f.record(ctx, gather(events, e)); err != nil {
					return err
				}
			}
		}
	})
	return g.Wait()
}

// gather returns first and the events that already wait.
func gather(events <-chan router.NomadEvent, first router.NomadEvent) []router.NomadEvent {
	batch := []router.NomadEvent{first}
	for len(batch) < eventBatch {
		select {
		case e := <-events:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

func (f *follower) list(ctx context.Context, region string) (jobs []router.NomadJob, index uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, router.ListTimeout)
	defer cancel()
	return f.r.Nomad.Jobs(ctx, region)
}

// record records events and does what they call for at once. Its errors are the store's.
func (f *follower) record(ctx context.Context, events []router.NomadEvent) error {
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	seen, err := f.r.Store.RecordNomadEvents(storeCtx, events, f.r.Now())
	if err != nil {
		return fmt.Errorf("record Nomad's events: %w", err)
	}
	if slices.ContainsFunc(events, func(e router.NomadEvent) bool { return e.Kind == router.NomadFollowed }) {
		f.r.Compare.At(f.r.Now()) // what happened since the listing was made may be lost
	}
	if slices.ContainsFunc(events, func(e router.NomadEvent) bool { return router.IsWarm(e.Job) }) {
		f.r.Warm.Give()
	}
	for _, s := range seen {
		if s.NomadJob == "" { // the event overtook the record of the registration
			s.NomadJob, s.NomadAt = s.Event.Job, s.Event.At
		}
		switch {
		case s.EndedAt.IsZero() && s.Event.Kind == router.NomadWaits && s.PlacedAt.IsZero() && s.State == router.RunnerDispatched:
			f.why.add(s.LiveRunner)
			continue
		case s.EndedAt.IsZero() && (s.Event.Kind != router.NomadStopped || s.State != router.RunnerDispatched):
			continue
		case s.Own || s.Needed && s.State == router.RunnerOnline:
			f.r.HasEnded(s.LiveRunner)
			continue
		}
		what, reason, again := f.r.policy.mend(s.LiveRunner, &router.NomadJob{ID: s.Event.Job, At: s.Event.At, Status: "dead"}, s.Event.Text, f.r.Now())
		switch what {
		case loseRunner, requeueJob:
			if err := f.r.reconciler.act(ctx, s.LiveRunner, what, reason); err != nil {
				return err
			}
		default: // a pass handles it
			if !again.IsZero() {
				f.r.Compare.At(again)
			}
		}
	}
	return nil
}

// HasEnded hands a runner whose allocation has ended to endLoop.
func (rs *Runners) HasEnded(r router.LiveRunner) {
	select {
	case rs.ended <- r:
	default:
		rs.Compare.At(rs.Now())
	}
}

// Unhandled returns the queue of HasEnded, for whoever takes from it while endLoop does not run.
func (rs *Runners) Unhandled() <-chan router.LiveRunner { return rs.ended }

// endLoop handles runners whose allocation has ended, until ctx ends. It asks Nomad and
// GitHub about them, which the recording of events does not wait for.
func (f *follower) endLoop(ctx context.Context) error {
	g := new(errgroup.Group)
	g.SetLimit(passCallers)
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case r := <-f.r.ended:
			g.Go(func() error {
				if err := f.handleEnd(ctx, r); err != nil && ctx.Err() == nil {
					f.r.Log.Throttled(slog.LevelWarn, "", "cannot handle the end of a runner; the next sweep tries again", "job_id", r.JobID, "nomad_job", r.NomadJob, "err", err)
					f.r.Compare.At(f.r.Now())
				}
				return nil
			})
		}
	}
}

// handleEnd handles a runner whose allocation has ended. Nomad takes a moment to mark its
// job as dead, or starts another allocation.
func (f *follower) handleEnd(ctx context.Context, r router.LiveRunner) error {
	if f.r.isGivenUp(r.ID) {
		f.r.Compare.At(r.EndedAt.Add(f.r.Doubt)) // if that fails
		return nil
	}
	if !r.Own { // it never starts again
		said := r.EndWords
		if said != "" {
			said = ": " + said
		}
		why := endedIdle(r, said)
		f.r.warnOf(ctx, r.Runner, "a runner ended after it got its configuration; github is asked whether it had its job", "reason", why)
		f.r.Compare.At(r.EndedAt.Add(f.r.Doubt)) // if GitHub cannot say now, or has it busy
		return f.r.reconciler.act(ctx, r, askLost, why)
	}
	for range endTries {
		if ended, err := f.r.reconciler.confirm(ctx, r); err != nil || ended {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(endPause):
		}
	}
	f.r.Compare.At(f.r.Now())
	return nil
}

// An asker collects runners that wait for a node, by fit: those of one fit are asked about
// once.
type asker struct {
	wake chan struct{} // size 1

	mu    sync.Mutex
	byFit map[string]map[string]router.LiveRunner // by ID
}

func (a *asker) add(r router.LiveRunner) {
	fit := r.Fit
	if fit == "" {
		fit = r.ID
	}
	a.mu.Lock()
	if a.byFit == nil {
		a.byFit = map[string]map[string]router.LiveRunner{}
	}
	if a.byFit[fit] == nil {
		a.byFit[fit] = map[string]router.LiveRunner{}
	}
	a.byFit[fit][r.ID] = r
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *asker) take() map[string]map[string]router.LiveRunner {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.byFit
	a.byFit = nil
	return taken
}

// explainLoop asks Nomad why runners wait for a node, until ctx ends. It does so a moment
// after they began to wait, so that many of them cost few requests.
func (f *follower) explainLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.why.wake:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(whyPause):
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(whyCallers)
		for _, crowd := range f.alike(ctx, f.why.take()) {
			g.Go(func() error {
				if err := f.explain(ctx, crowd); err != nil && ctx.Err() == nil {
					f.r.Log.Throttled(slog.LevelWarn, "", "cannot find out why runners have no node; the next sweep tries again", "runners", len(crowd), "err", err)
				}
				return nil
			})
		}
		_ = g.Wait()
	}
}

// alike joins the runners of all fits that ask the same of Nomad: why one has no node is
// why none of them has.
func (f *follower) alike(ctx context.Context, byFit map[string]map[string]router.LiveRunner) map[string]map[string]router.LiveRunner {
	byDemand := map[string]map[string]router.LiveRunner{}
	for fit, crowd := range byFit {
		demand := fit
		one := slices.Min(slices.Collect(maps.Keys(crowd)))
		if j, err := f.r.Store.Job(ctx, crowd[one].JobID); err == nil && j.Decision != nil {
			demand = j.Demand(j.Decision)
		}
		if byDemand[demand] == nil {
			byDemand[demand] = crowd
			continue
		}
		maps.Copy(byDemand[demand], crowd)
	}
	return byDemand
}

const (
	unevaluatedAfter = 30 * time.Second // Nomad evaluates a job in milliseconds, or in a second or two when thousands come
	unevaluatedTick  = 10 * time.Second
	unevaluatedBatch = 1000
	unevaluatedFits  = 10 // fits asked about in a pass, three requests each: all have the same cause
)

// unevaluatedLoop looks for runners that Nomad has not evaluated for long, until ctx ends:
// its evaluation broker may be paused, or its servers too busy. No event says so.
func (f *follower) unevaluatedLoop(ctx context.Context) error {
	tick := time.NewTicker(unevaluatedTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		list, err := f.r.Store.Unevaluated(ctx, f.r.Now().Add(-unevaluatedAfter), unevaluatedBatch)
		if err == nil {
			err = f.recordUnevaluated(ctx, list)
		}
		if err != nil && ctx.Err() == nil {
			f.r.Log.Throttled(slog.LevelWarn, "", "cannot find out whether Nomad has evaluated runners that wait; it will be retried", "runners", len(list), "err", err)
		}
	}
}

// recordUnevaluated records which of the runners Nomad has not evaluated, and why.
func (f *follower) recordUnevaluated(ctx context.Context, list []router.Runner) error {
	byFit := map[string][]router.Runner{}
	for _, r := range list {
		if byFit[r.Fit] != nil || len(byFit) < unevaluatedFits {
			byFit[r.Fit] = append(byFit[r.Fit], r)
		}
	}
	var errs []error
	for _, crowd := range byFit {
		j, err := f.r.Store.Job(ctx, crowd[0].JobID)
		if err != nil {
			return err
		}
		nomadCtx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
		u, err := f.r.Nomad.Unplaced(nomadCtx, j, crowd[0])
		cancel()
		switch {
		case err != nil: // others may be in another region
			errs = append(errs, err)
			continue
		case u == nil || !u.Pending:
			f.r.Compare.At(f.r.Now()) // it was evaluated: a pass finds what was missed
			continue
		}
		f.r.notEvaluated(crowd[0].NomadAt.Region)
		ids := make([]string, len(crowd))
		for i := range crowd {
			ids[i] = crowd[i].ID
		}
		why := fmt.Sprintf("Nomad has not evaluated it for %s: %s", router.Coarse(max(f.r.Now().Sub(u.At), unevaluatedAfter)), u.Text)
		f.r.Log.Throttled(slog.LevelError, "", "nomad accepts jobs but does not evaluate them", "runners", len(ids), "reason", why)
		storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		err = f.r.Store.RecordUnevaluated(storeCtx, ids, why, f.r.Now())
		cancel()
		if err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// explain records why runners that ask the same of Nomad have no node.
func (f *follower) explain(ctx context.Context, crowd map[string]router.LiveRunner) error {
	ids := slices.Sorted(maps.Keys(crowd))
	slices.Reverse(ids) // the newest are least likely to have a node by now
	for _, id := range ids[:min(len(ids), whySamples)] {
		j, err := f.r.Store.Job(ctx, crowd[id].JobID)
		if err != nil {
			return err
		}
		nomadCtx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
		u, err := f.r.Nomad.Unplaced(nomadCtx, j, crowd[id].Runner)
		cancel()
		if err != nil {
			return err
		}
		if u == nil || u.Pending {
			continue // it has a node by now, or is being evaluated; the next one may still wait
		}
		storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		defer cancel()
		if err := f.r.Store.RecordUnplaced(storeCtx, ids, *u, f.r.Now()); err != nil || u.Never {
			return err
		}
		f.r.MakeRoom(ctx, j)
		return nil
	}
	return nil
}
