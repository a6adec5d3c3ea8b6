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
	eventBatch   = 256         // events recorded in one transaction
	steady       = time.Minute // following for so long is no failure any more
	whyPause     = 300 * time.Millisecond
	whyCallers   = 4   // of Nomad at the same time
	whyFits      = 200 // asked about in a pass
	whySpokesmen = 3   // of one fit, until Nomad says why one of them waits

	maxEnded = 1000        // runners whose end is to be seen to; a pass sees to those beyond
	endWaits = 3           // looks at a Nomad job whose allocation has ended
	endPause = time.Second // between them
)

// A follower records what Nomad's events tell.
type follower struct {
	r        *Runners
	listings chan []router.NomadJob // size 1; to be compared with the database
	why      asker
}

// follow keeps the books in step with Nomad until ctx ends: it has a listing
// compared, then records events from there on, and begins again when it lost the
// thread.
func (f *follower) follow(ctx context.Context) error {
	for failures := 0; ; failures++ {
		began := f.r.Now()
		err := f.followOnce(ctx)
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
		if fix, ok := errors.AsType[*router.FixError](err); ok {
			f.r.Log.Error("nomad does not let its events be followed", "fix", fix.Fix, "err", err, "again_at", at)
		} else {
			f.r.Log.Warn("lost the thread of Nomad's events; it is listed anew", "err", err, "again_at", at)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(at.Sub(f.r.Now())):
		}
	}
}

// followOnce returns when following fails; its error is never nil.
func (f *follower) followOnce(ctx context.Context) error {
	jobs, index, err := f.list(ctx)
	if err != nil {
		return err
	}
	if jobs == nil {
		jobs = []router.NomadJob{}
	}
	select { // the newest listing is what counts
	case <-f.listings:
	default:
	}
	f.listings <- jobs

	g, ctx := errgroup.WithContext(ctx)
	events := make(chan router.NomadEvent, 4*eventBatch)
	g.Go(func() error {
		return f.r.Nomad.Follow(ctx, index, func(e router.NomadEvent) error {
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
				if err := f.saw(ctx, gather(events, e)); err != nil {
					return err
				}
			}
		}
	})
	return g.Wait()
}

// gather adds the events that wait already.
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

func (f *follower) list(ctx context.Context) (jobs []router.NomadJob, index uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, router.ListTimeout)
	defer cancel()
	return f.r.Nomad.Jobs(ctx)
}

// saw records events and does what they call for at once. Its errors are the store's.
func (f *follower) saw(ctx context.Context, events []router.NomadEvent) error {
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	seen, err := f.r.Store.RecordNomadEvents(storeCtx, events, f.r.Now())
	if err != nil {
		return fmt.Errorf("record Nomad's events: %w", err)
	}
	if slices.ContainsFunc(events, func(e router.NomadEvent) bool { return e.Kind == router.NomadFollowed }) {
		f.r.Compare.At(f.r.Now()) // what happened since the listing was made may be lost
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
		case loseRunner, goOn:
			if err := f.r.reconciler.act(ctx, s.LiveRunner, what, reason); err != nil {
				return err
			}
		default: // a pass sees to it
			if !again.IsZero() {
				f.r.Compare.At(again)
			}
		}
	}
	return nil
}

// HasEnded has ends see to a runner.
func (rs *Runners) HasEnded(r router.LiveRunner) {
	select {
	case rs.ended <- r:
	default:
		rs.Compare.At(rs.Now())
	}
}

// ends sees to runners whose allocation has ended, until ctx ends: others are
// asked about them, which Nomad's events do not wait for.
func (f *follower) ends(ctx context.Context) error {
	g := new(errgroup.Group)
	g.SetLimit(passCallers)
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case r := <-f.r.ended:
			g.Go(func() error {
				if err := f.seeEnd(ctx, r); err != nil && ctx.Err() == nil {
					f.r.Log.Throttled(slog.LevelWarn, "", "cannot see to a runner that has ended; the next sweep tries again", "job_id", r.JobID, "nomad_job", r.NomadJob, "err", err)
					f.r.Compare.At(f.r.Now())
				}
				return nil
			})
		}
	}
}

// seeEnd sees to a runner whose allocation has ended. Nomad takes a moment to
// say of its job that it is dead, or starts another allocation.
func (f *follower) seeEnd(ctx context.Context, r router.LiveRunner) error {
	if !r.Own { // it never starts again
		said := r.EndWords
		if said != "" {
			said = ": " + said
		}
		why := endedIdle(r, said)
		f.r.Log.Warn("a runner ended with its configuration; GitHub is asked whether it had its job", "job_id", r.JobID, "nomad_job", r.NomadJob, "reason", why)
		f.r.Compare.At(r.EndedAt.Add(f.r.Doubt)) // if GitHub cannot say now, or has it busy
		return f.r.reconciler.act(ctx, r, askLost, why)
	}
	for range endWaits {
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

// An asker collects runners that wait for a node, by fit: what keeps one of
// them waiting keeps all of them.
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

// explains has Nomad say why runners wait, until ctx ends: soon after they
// began to, so that a crowd of them costs few questions.
func (f *follower) explains(ctx context.Context) error {
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
		for _, crowd := range f.why.take() {
			g.Go(func() error {
				if err := f.explain(ctx, crowd); err != nil && ctx.Err() == nil {
					f.r.Log.Throttled(slog.LevelWarn, "", "cannot tell why runners have no node; the next sweep tries again", "runners", len(crowd), "err", err)
				}
				return nil
			})
		}
		_ = g.Wait()
	}
}

const (
	unseenAfter = 30 * time.Second // Nomad looks at a job in milliseconds, in a second or two when thousands come
	unseenTick  = 10 * time.Second
	unseenBatch = 1000
	unseenFits  = 10 // asked about in a pass, three requests each: what keeps Nomad from one keeps it from all
)

// overlooks sees whether there are runners that Nomad has not looked at for long, until
// ctx ends: its evaluation broker may be paused, or its servers too busy. No event says so.
func (f *follower) overlooks(ctx context.Context) error {
	tick := time.NewTicker(unseenTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		list, err := f.r.Store.Unevaluated(ctx, f.r.Now().Add(-unseenAfter), unseenBatch)
		if err == nil {
			err = f.overlooked(ctx, list)
		}
		if err != nil && ctx.Err() == nil {
			f.r.Log.Throttled(slog.LevelWarn, "", "cannot tell whether Nomad has looked at runners that wait; it is tried again", "runners", len(list), "err", err)
		}
	}
}

func (f *follower) overlooked(ctx context.Context, list []router.Runner) error {
	byFit := map[string][]router.Runner{}
	for _, r := range list {
		if byFit[r.Fit] != nil || len(byFit) < unseenFits {
			byFit[r.Fit] = append(byFit[r.Fit], r)
		}
	}
	for _, crowd := range byFit {
		j, err := f.r.Store.Job(ctx, crowd[0].JobID)
		if err != nil {
			return err
		}
		nomadCtx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
		u, err := f.r.Nomad.Unplaced(nomadCtx, j, crowd[0])
		cancel()
		switch {
		case err != nil:
			return err
		case u == nil || !u.Pending:
			f.r.Compare.At(f.r.Now()) // it was looked at: what was missed a pass finds
			continue
		}
		f.r.unseen.Store(time.Now().UnixNano())
		ids := make([]string, len(crowd))
		for i := range crowd {
			ids[i] = crowd[i].ID
		}
		why := fmt.Sprintf("Nomad has not looked at it for %s: %s", router.Coarse(max(f.r.Now().Sub(u.At), unseenAfter)), u.Text)
		f.r.Log.Throttled(slog.LevelError, "", "nomad does not look at jobs", "runners", len(ids), "reason", why)
		storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		err = f.r.Store.RecordUnevaluated(storeCtx, ids, why, f.r.Now())
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// explain records why the runners of one fit have no node.
func (f *follower) explain(ctx context.Context, crowd map[string]router.LiveRunner) error {
	ids := slices.Sorted(maps.Keys(crowd))
	for _, id := range ids[:min(len(ids), whySpokesmen)] {
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
			continue // it has a node by now, or is being looked at; the next one may still wait
		}
		storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		defer cancel()
		return f.r.Store.RecordUnplaced(storeCtx, ids, *u, f.r.Now())
	}
	return nil
}
