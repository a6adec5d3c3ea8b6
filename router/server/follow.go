package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"switchyard/router"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	listTimeout  = 60 * time.Second // for Nomad's listing
	eventBatch   = 256              // events recorded in one transaction
	steady       = time.Minute      // following for so long is no failure any more
	whyPause     = 300 * time.Millisecond
	whyCallers   = 4   // of Nomad at the same time
	whyFits      = 200 // asked about in a pass
	whySpokesmen = 3   // of one fit, until Nomad says why one of them waits

	maxEnded = 1000        // runners whose end is to be seen to; a pass sees to those beyond
	endWaits = 3           // looks at a Nomad job whose allocation has ended
	endPause = time.Second // between them
)

// follow keeps the books in step with Nomad until ctx ends: it has a listing
// compared, then records events from there on, and begins again when it lost the
// thread.
func (w *worker) follow(ctx context.Context) error {
	for failures := 0; ; failures++ {
		began := w.Now()
		err := w.followOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if w.Now().Sub(began) > steady {
			failures = 0
		}
		at, ok := w.backoff().Retry(err, failures)
		if !ok {
			at = w.Now().Add(longestWait)
		}
		var fix *router.FixError
		if errors.As(err, &fix) {
			w.Logger.Error("nomad does not let its events be followed", "fix", fix.Fix, "err", err, "again_at", at)
		} else {
			w.Logger.Warn("lost the thread of Nomad's events; it is listed anew", "err", err, "again_at", at)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(at.Sub(w.Now())):
		}
	}
}

// followOnce returns when following fails; its error is never nil.
func (w *worker) followOnce(ctx context.Context) error {
	jobs, index, err := w.list(ctx)
	if err != nil {
		return err
	}
	if jobs == nil {
		jobs = []router.NomadJob{}
	}
	select { // the newest listing is what counts
	case <-w.listings:
	default:
	}
	w.listings <- jobs

	g, ctx := errgroup.WithContext(ctx)
	events := make(chan router.NomadEvent, 4*eventBatch)
	g.Go(func() error {
		return w.Nomad.Follow(ctx, index, func(e router.NomadEvent) error {
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
				if err := w.saw(ctx, gather(events, e)); err != nil {
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

func (w *worker) list(ctx context.Context) (jobs []router.NomadJob, index uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	return w.Nomad.Jobs(ctx)
}

// saw records events and does what they call for at once. Its errors are the store's.
func (w *worker) saw(ctx context.Context, events []router.NomadEvent) error {
	storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	seen, err := w.Store.NomadSaw(storeCtx, events, w.Now())
	if err != nil {
		return fmt.Errorf("record Nomad's events: %w", err)
	}
	if slices.ContainsFunc(events, func(e router.NomadEvent) bool { return e.Kind == router.NomadFollowed }) {
		w.lookAgain(w.Now()) // what happened since the listing was made may be lost
	}
	for _, s := range seen {
		if s.NomadJob == "" { // the event overtook the record of the registration
			s.NomadJob, s.NomadAt = s.Event.Job, s.Event.At
		}
		switch {
		case s.EndedAt.IsZero() && s.Event.Kind == router.NomadWaits && s.PlacedAt.IsZero() && s.State == router.RunnerDispatched:
			w.why.add(s.LiveRunner)
			continue
		case s.EndedAt.IsZero() && (s.Event.Kind != router.NomadStopped || s.State != router.RunnerDispatched):
			continue
		case s.Own || s.Needed && s.State == router.RunnerOnline:
			w.hasEnded(s.LiveRunner)
			continue
		}
		what, reason, again := w.mend(s.LiveRunner, &router.NomadJob{ID: s.Event.Job, At: s.Event.At, Status: "dead"}, s.Event.Text, w.Now())
		switch what {
		case loseRunner, goOn:
			if err := w.act(ctx, s.LiveRunner, what, reason); err != nil {
				return err
			}
		default: // a pass sees to it
			if !again.IsZero() {
				w.lookAgain(again)
			}
		}
	}
	return nil
}

// hasEnded has ends see to a runner.
func (w *worker) hasEnded(r router.LiveRunner) {
	select {
	case w.ended <- r:
	default:
		w.lookAgain(w.Now())
	}
}

// ends sees to runners whose allocation has ended, until ctx ends: others are
// asked about them, which Nomad's events do not wait for.
func (w *worker) ends(ctx context.Context) error {
	g := new(errgroup.Group)
	g.SetLimit(passCallers)
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case r := <-w.ended:
			g.Go(func() error {
				if err := w.seeEnd(ctx, r); err != nil && ctx.Err() == nil {
					w.logThrottled(w.Logger, slog.LevelWarn, "", "cannot see to a runner that has ended; the next sweep tries again", "job_id", r.JobID, "nomad_job", r.NomadJob, "err", err)
					w.lookAgain(w.Now())
				}
				return nil
			})
		}
	}
}

// seeEnd sees to a runner whose allocation has ended. Nomad takes a moment to
// say of its job that it is dead, or starts another allocation.
func (w *worker) seeEnd(ctx context.Context, r router.LiveRunner) error {
	if !r.Own { // it never starts again
		said := r.EndWords
		if said != "" {
			said = ": " + said
		}
		why := endedIdle(r, said)
		w.Logger.Warn("a runner ended with its configuration; GitHub is asked whether it had its job", "job_id", r.JobID, "nomad_job", r.NomadJob, "reason", why)
		w.lookAgain(r.EndedAt.Add(w.Doubt)) // if GitHub cannot say now, or has it busy
		return w.act(ctx, r, askLost, why)
	}
	for range endWaits {
		if ended, err := w.lookUp(ctx, r); err != nil || ended {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(endPause):
		}
	}
	w.lookAgain(w.Now())
	return nil
}

// lookAgain asks for a pass at a time. A hint that gets lost costs a sweep.
func (w *worker) lookAgain(at time.Time) {
	select {
	case w.again <- at:
	default:
	}
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
func (w *worker) explains(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.why.wake:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(whyPause):
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(whyCallers)
		for _, crowd := range w.why.take() {
			g.Go(func() error {
				if err := w.explain(ctx, crowd); err != nil && ctx.Err() == nil {
					w.logThrottled(w.Logger, slog.LevelWarn, "", "cannot tell why runners have no node; the next sweep tries again", "runners", len(crowd), "err", err)
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
func (w *worker) overlooks(ctx context.Context) error {
	tick := time.NewTicker(unseenTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		list, err := w.Store.Unseen(ctx, w.Now().Add(-unseenAfter), unseenBatch)
		if err == nil {
			err = w.overlooked(ctx, list)
		}
		if err != nil && ctx.Err() == nil {
			w.logThrottled(w.Logger, slog.LevelWarn, "", "cannot tell whether Nomad has looked at runners that wait; it is tried again", "runners", len(list), "err", err)
		}
	}
}

func (w *worker) overlooked(ctx context.Context, list []router.Runner) error {
	byFit := map[string][]router.Runner{}
	for _, r := range list {
		if byFit[r.Fit] != nil || len(byFit) < unseenFits {
			byFit[r.Fit] = append(byFit[r.Fit], r)
		}
	}
	for _, crowd := range byFit {
		j, err := w.Store.Job(ctx, crowd[0].JobID)
		if err != nil {
			return err
		}
		nomadCtx, cancel := context.WithTimeout(ctx, startTimeout)
		u, err := w.Nomad.Unplaced(nomadCtx, j, crowd[0])
		cancel()
		switch {
		case err != nil:
			return err
		case u == nil || !u.Pending:
			w.lookAgain(w.Now()) // it was looked at: what was missed a pass finds
			continue
		}
		w.unseen.Store(time.Now().UnixNano())
		ids := make([]string, len(crowd))
		for i := range crowd {
			ids[i] = crowd[i].ID
		}
		why := fmt.Sprintf("Nomad has not looked at it for %s: %s", coarse(max(w.Now().Sub(u.At), unseenAfter)), u.Text)
		w.logThrottled(w.Logger, slog.LevelError, "", "nomad does not look at jobs", "runners", len(ids), "reason", why)
		storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
		err = w.Store.Overlooked(storeCtx, ids, why, w.Now())
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// explain records why the runners of one fit have no node.
func (w *worker) explain(ctx context.Context, crowd map[string]router.LiveRunner) error {
	ids := slices.Sorted(maps.Keys(crowd))
	for _, id := range ids[:min(len(ids), whySpokesmen)] {
		j, err := w.Store.Job(ctx, crowd[id].JobID)
		if err != nil {
			return err
		}
		nomadCtx, cancel := context.WithTimeout(ctx, startTimeout)
		u, err := w.Nomad.Unplaced(nomadCtx, j, crowd[id].Runner)
		cancel()
		if err != nil {
			return err
		}
		if u == nil || u.Pending {
			continue // it has a node by now, or is being looked at; the next one may still wait
		}
		storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		return w.Store.Waits(storeCtx, ids, *u, w.Now())
	}
	return nil
}
