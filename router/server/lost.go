package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"switchyard/router"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	sweepHooks     = 50               // looked at in one sweep, in turn: each is a request at least
	sweepUnproved  = 10               // of those: at most so many of which only unsigned headers tell
	sweepPages     = 100              // of a hundred deliveries, read at most in one sweep of one hook
	redeliverBatch = 100              // read from the store at once
	redeliverTries = 5                // of one delivery
	redeliverFirst = 5 * time.Minute  // to the second try; doubled for each one after
	sweepOverlap   = 2 * time.Minute  // GitHub lists a delivery when it knows how it went
	firstSweep     = time.Hour        // how far back a hook is swept that was not before
	maxHooks       = 10_000           // remembered
	heardEvery     = time.Hour        // so seldom is written that a hook is heard of
	forgottenFor   = time.Hour        // a hook that GitHub does not know is not taken up again
	sweepsToTell   = 12               // after so many it is told which hooks cannot be read, though some may be later
	lateRefusal    = 20 * time.Second // GitHub waits 10 s for an answer, and lists the delivery then
	hookTimeout    = 30 * time.Second // for one request to GitHub, with what it takes to log in
)

// sweeps is what a worker keeps of the webhooks. The zero value is ready.
type sweeps struct {
	now       chan struct{} // size 1; a hint that there is something to be swept
	refused   chan struct{} // size 1; a hint that the store took no delivery
	recovered atomic.Bool   // the store takes deliveries again

	mu        sync.Mutex
	heard     map[router.Hook]time.Time        // those in the store, and when that was noted
	forgotten map[router.Hook]router.HookSweep // those that GitHub does not know; Heard is when it said so
	warned    bool                             // that an App's deliveries cannot be seen
	fresh     *rate.Limiter                    // of those that the store may not have; nil: made when it is needed

	// Used by findLost only.
	sweep     int                    // counts
	turns     map[router.HookKey]int // how often each was looked at
	compared  map[router.HookKey]comparison
	read      bool          // GitHub listed the deliveries of some hook
	unreached []router.Hook // those whose deliveries GitHub does not list

	unread chan unread // size 1; sent once, when it is known
}

// An unread says of which hooks a comparison at the start could not be made.
type unread struct {
	all   bool // of none it could: there may be others that are not known
	hooks []router.Hook
}

// A comparison of a hook's deliveries with the store is made at the start.
type comparison int

const (
	notCompared comparison = iota
	comparing              // the sweep goes on
	compared
)

// sawHook notes the hook that a delivery came by, as its headers say.
func (w *worker) sawHook(ctx context.Context, h router.Hook) error {
	now := w.Now()
	if h.Kind == "" {
		return nil
	}
	s := &w.hooks
	s.mu.Lock()
	heard, known := s.heard[h]
	gone, was := s.forgotten[h]
	if s.fresh == nil {
		s.fresh = rate.NewLimiter(10, 100)
	}
	switch {
	case known && now.Sub(heard) < heardEvery,
		!known && was && now.Sub(gone.Heard) < forgottenFor,
		!known && h.Kind != router.HookApp && !s.fresh.AllowN(now, 1):
		s.mu.Unlock()
		return nil
	}
	warned := s.warned
	s.mu.Unlock()
	if h.Kind == router.HookApp && !slices.Contains(w.GitHub.OwnHooks(), h) {
		if !warned {
			w.Logger.Warn("deliveries come by the webhook of a GitHub App; those that get lost can only be found when Switchyard logs in as that App")
		}
		s.mu.Lock()
		s.warned = true
		s.mu.Unlock()
		return nil
	}
	// Those before now are not its first, or they would have been seen: but not in a
	// database that knows nothing of the last days.
	swept := now.Add(-firstSweep)
	if was {
		swept = gone.Swept
	}
	s.mu.Lock()
	latest := w.latest
	s.mu.Unlock()
	if at := latest.Add(-sweepOverlap); !latest.IsZero() && at.Before(swept) {
		swept = at
	}
	ok, err := w.Store.SawHook(ctx, h, swept, now)
	if err != nil {
		return fmt.Errorf("remember %s: %w", h, err)
	}
	if ok {
		s.hear(h, now)
	}
	return nil
}

// hear notes that the store has a hook, and that it was heard of.
func (s *sweeps) hear(h router.Hook, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard == nil || len(s.heard) >= maxHooks {
		s.heard = map[router.Hook]time.Time{}
	}
	if at.After(s.heard[h]) {
		s.heard[h] = at
	}
}

// forget notes that GitHub does not know a hook.
func (s *sweeps) forget(h router.HookSweep, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.heard, h.Hook)
	if s.forgotten == nil || len(s.forgotten) >= maxHooks {
		s.forgotten = map[router.Hook]router.HookSweep{}
	}
	h.Heard = now
	s.forgotten[h.Hook] = h
}

// turn returns the hooks whose turn it is: the App's; then those that had the
// fewest turns, and of these the ones heard of last. Hooks that are not proved
// take few of the places. all is for the start, and after an outage: all that are
// proved.
func (s *sweeps) turn(hooks []router.HookSweep, all bool) (turn []router.HookSweep) {
	least, turns := -1, map[router.HookKey]int{} // without those that are gone
	for _, h := range hooks {
		if n, had := s.turns[h.Key()]; had {
			turns[h.Key()] = n
			if least < 0 || n < least {
				least = n
			}
		}
	}
	for _, h := range hooks {
		if _, had := turns[h.Key()]; !had {
			turns[h.Key()] = max(least, 0)
		}
	}
	s.turns = turns
	hooks = slices.Clone(hooks)
	slices.SortStableFunc(hooks, func(a, b router.HookSweep) int { return cmp.Compare(turns[a.Key()], turns[b.Key()]) })
	places, unproved := sweepHooks, sweepUnproved
	if all {
		places = router.MaxHooks
	}
	for _, h := range hooks {
		switch {
		case h.Kind == router.HookApp:
			turn = append(turn, h)
		case places == 0, !h.Proved && unproved == 0:
		default:
			places--
			if !h.Proved {
				unproved--
			}
			turn = append(turn, h)
		}
	}
	return turn
}

// findLost looks through the deliveries of each hook since the last time and
// has those that failed made again. A hook that cannot be read keeps no other
// from being so.
func (w *worker) findLost(ctx context.Context) error {
	s := &w.hooks
	own := w.GitHub.OwnHooks()
	for _, h := range own {
		if err := w.sawHook(ctx, h); err != nil {
			return err
		}
	}
	hooks, err := w.Store.Hooks(ctx)
	if err != nil {
		return err
	}
	hooks = slices.DeleteFunc(hooks, func(h router.HookSweep) bool {
		return h.Kind == router.HookApp && !slices.Contains(own, h.Hook)
	})
	for _, h := range hooks {
		s.hear(h.Hook, h.Heard)
	}
	all := s.sweep == 0
	if s.recovered.Swap(false) {
		all = true
		if err := w.Store.RedeliverNow(ctx, w.Now()); err != nil {
			return err
		}
	}
	s.sweep++
	if s.compared == nil {
		s.compared = map[router.HookKey]comparison{}
	}
	said := sweepSays{hooks: len(hooks)}
	for _, h := range s.turn(hooks, all) {
		err := w.sweepHook(ctx, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.turns[h.Key()]++
		unknown := errors.Is(err, router.ErrNotFound) && h.Kind != router.HookApp
		if unknown {
			if err := w.Store.ForgetHook(ctx, h.Hook); err != nil {
				return err
			}
			s.forget(h, w.Now())
			delete(s.compared, h.Key())
		}
		if err != nil && lasting(err) && (h.Proved || !unknown) {
			s.unreached = append(s.unreached, h.Hook)
		}
		said.add(h.Hook, err, unknown)
	}
	if said.unknown > 0 {
		w.Logger.Info("webhooks whose deliveries GitHub does not show are forgotten: they are deleted, somebody made them up, or the login may not see them",
			"webhooks", said.unknown, "such_as", said.which.String(), "err", said.why)
	}
	if s.unread != nil && (!said.passing || s.sweep > sweepsToTell) {
		s.unread <- unread{all: !s.read && !said.passing, hooks: s.unreached}
		s.unread, s.unreached = nil, nil
	}
	return errors.Join(said.err(), w.redeliver(ctx))
}

// sweepSays is what a sweep has to say, however many webhooks fail: one of a kind.
type sweepSays struct {
	hooks, failed, unknown int
	first, why             error       // of those that failed, and that are unknown
	which                  router.Hook // that is unknown
	passing                bool        // some may be read when they are tried again
}

func (s *sweepSays) add(h router.Hook, err error, unknown bool) {
	switch {
	case err == nil:
		return
	case unknown:
		s.which, s.why = h, err
		s.unknown++
	default:
		if s.failed++; s.first == nil {
			s.first = fmt.Errorf("%s: %w", h, err)
		}
	}
	s.passing = s.passing || !lasting(err)
}

func (s *sweepSays) err() error {
	if s.failed > 1 {
		return fmt.Errorf("%d of %d webhooks, such as %w", s.failed, s.hooks, s.first)
	}
	return s.first
}

// lasting reports whether an error of GitHub's stays until somebody mends it.
func lasting(err error) bool {
	var giveUp *router.GiveUpError
	var fix *router.FixError
	return errors.Is(err, router.ErrNotFound) || errors.As(err, &giveUp) || errors.As(err, &fix)
}

// sweepHook reads a hook's deliveries from the newest back to where the last
// sweep began. What it read is kept with where it goes on, page by page, so
// that a sweep which is cut off loses nothing.
//
// The first sweep after the start goes back to the newest that the store knows
// of anything, and misses whatever the store does not have, also what was
// answered: the store may be a copy that was made before.
func (w *worker) sweepHook(ctx context.Context, h router.HookSweep) error {
	s := &w.hooks
	if s.compared[h.Key()] == notCompared && w.compares {
		s.compared[h.Key()] = comparing
		h.Cursor, h.Newest = "", time.Time{}
		if at := w.latest.Add(-sweepOverlap); at.Before(h.Swept) {
			h.Swept = at
		}
	}
	compares := s.compared[h.Key()] == comparing
	if oldest := w.Now().Add(-router.DeliveriesKept); h.Swept.Before(oldest) {
		h.Swept = oldest
	}
	seen := map[string]bool{} // and need not be missed: a later attempt is listed first
	for range sweepPages {
		var page []router.SentDelivery
		var next string
		err := persist(ctx, func(ctx context.Context) (err error) {
			page, next, err = w.GitHub.Deliveries(ctx, h.Hook, h.Cursor)
			return err
		})
		if err != nil && h.Cursor != "" && lasting(err) {
			// The place is good no more: begin anew. What is listed twice is
			// kept once.
			h.Cursor = ""
			return errors.Join(err, w.Store.Swept(ctx, h, nil, w.Now()))
		}
		if err != nil {
			return err
		}
		h.Proved, s.read = true, true
		var missed []router.SentDelivery
		for _, d := range page {
			if d.At.After(h.Newest) {
				h.Newest = d.At
			}
			if d.At.Before(h.Swept) {
				next = ""
				break
			}
			switch {
			case d.Event != "workflow_job" || !knownAction(d.Action) || seen[d.GUID]:
			case d.OK && !compares:
				seen[d.GUID] = true
			default:
				seen[d.GUID] = compares
				missed = append(missed, d)
			}
		}
		if h.Cursor = next; next == "" {
			if at := h.Newest.Add(-sweepOverlap); at.After(h.Swept) {
				h.Swept = at
			}
			h.Newest = time.Time{}
		}
		if err := w.Store.Swept(ctx, h, missed, w.Now()); err != nil {
			return err
		}
		if next == "" {
			s.compared[h.Key()] = compared
			return nil
		}
	}
	return nil // the next sweep goes on
}

// persist makes a call up to three times while it fails in a way that may pass
// at once: a 5xx, an answer that does not come. The rest of a sweep hangs on it.
func persist(ctx context.Context, call func(context.Context) error) (err error) {
	for pause := time.Second; ; pause *= 2 {
		within, cancel := context.WithTimeout(ctx, hookTimeout)
		err = call(within)
		cancel()
		var giveUp *router.GiveUpError
		var fix *router.FixError
		var later *router.RetryAtError
		if err == nil || pause > 2*time.Second || errors.Is(err, router.ErrNotFound) || errors.As(err, &giveUp) || errors.As(err, &fix) || errors.As(err, &later) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func knownAction(action string) bool {
	return action == "queued" || action == "waiting" || action == "in_progress" || action == "completed"
}

// storeRefused is told that the store did not take a delivery.
func (w *worker) storeRefused() {
	select {
	case w.hooks.refused <- struct{}{}:
	default:
	}
}

// recovers has what the store refused swept as soon as it takes deliveries
// again, and once more for those that GitHub lists late, until ctx ends.
func (a *App) recovers(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.hooks.refused:
		}
		for failed := true; failed; {
			if !pause(ctx, readyAge) { // so that what is known is younger than the refusal
				return nil
			}
			check, _ := a.probed.store(ctx, a.Store)
			failed = check.Status == "failed"
		}
		for _, wait := range []time.Duration{0, lateRefusal} {
			if !pause(ctx, wait) {
				return nil
			}
			a.hooks.recovered.Store(true)
			select {
			case a.hooks.now <- struct{}{}:
			default:
			}
		}
	}
}

// pause reports whether it was as long as it should be.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// redeliver has GitHub make the deliveries again that are due for it. It ends
// when GitHub takes no more for now; what is left stays due.
func (w *worker) redeliver(ctx context.Context) error {
	var errs []error
	failing := map[router.Hook]bool{}
	for len(errs) == 0 {
		due, err := w.Store.Redeliveries(ctx, w.Now(), w.Now().Add(-router.DeliveriesKept), redeliverBatch)
		if err != nil {
			return err
		}
		done := 0
		for _, r := range due {
			if failing[r.Hook] {
				continue
			}
			err := persist(ctx, func(ctx context.Context) error { return w.GitHub.Redeliver(ctx, r.Hook, r.DeliveryID) })
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var giveUp *router.GiveUpError
			switch {
			case errors.As(err, &giveUp):
				w.logThrottled(w.Logger, slog.LevelWarn, "", "github does not make a lost delivery again", "delivery_id", r.GUID, "err", err)
			case err != nil:
				failing[r.Hook] = true // so would its others: they stay due
				errs = append(errs, fmt.Errorf("%s: %w", r.Hook, err))
				continue
			}
			again := time.Time{}
			if r.Tries+1 < redeliverTries {
				again = w.Now().Add(redeliverFirst << r.Tries)
			}
			if err := w.Store.Redelivered(ctx, r.GUID, again); err != nil {
				return err
			}
			done++
		}
		if done > 0 {
			w.Logger.Info("lost deliveries are made again", "deliveries", done)
		}
		if len(due) < redeliverBatch {
			break
		}
	}
	return errors.Join(errs...)
}
