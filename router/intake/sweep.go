package intake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"

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
	recheckStore   = time.Second      // between two questions whether a store that failed works
	lateRefusal    = 20 * time.Second // GitHub waits 10 s for an answer, and lists the delivery then
)

// A SweepStore is what a Sweeper uses of the database.
type SweepStore interface {
	// RecordHook notes that a delivery named a hook, and makes it known, swept until
	// then, unless one of its kind and ID is: that keeps its owner and repository.
	// It is not made known while MaxUnprovedHooks of its repository or organization are
	// not proved; with more than MaxHooks, the one heard of longest ago is forgotten.
	// known is false when the store does not have it as it is in h.
	RecordHook(ctx context.Context, h router.Hook, swept, now time.Time) (known bool, err error)

	// ForgetHook forgets a hook and its redeliveries.
	ForgetHook(ctx context.Context, h router.Hook) error

	// Hooks returns the known hooks: the App's, then those heard of last.
	Hooks(ctx context.Context) ([]router.HookSweep, error)

	// Swept records how far a hook was swept, whether it is proved, and the
	// deliveries that are missed: those not received are due for redelivery.
	Swept(ctx context.Context, h router.HookSweep, missed []router.SentDelivery, now time.Time) error

	// RedeliverNow makes the redeliveries due that are so later.
	RedeliverNow(ctx context.Context, now time.Time) error

	// Redeliveries returns up to limit deliveries that are due, oldest first but
	// those that a job ended or runs before, and forgets those that were received, or made before old.
	Redeliveries(ctx context.Context, now, old time.Time, limit int) ([]router.Redelivery, error)

	// Redelivered counts a try of a redelivery; it is due at again, or, when
	// that is zero, never.
	Redelivered(ctx context.Context, guid string, again time.Time) error
}

// A Sweeper finds the deliveries that got lost, by the webhooks that it saw, and has GitHub
// redeliver them. Its exported fields are set before it is used, and required. It is
// made by NewSweeper.
type Sweeper struct {
	Store      SweepStore
	GitHub     router.GitHub
	Log        *telemetry.Log
	Now        func() time.Time
	StoreWorks func(context.Context) bool // whether the database takes writes

	now       router.Hint // size 1; a hint that there is something to be swept
	refused   router.Hint // size 1; a hint that the store took no delivery
	recovered atomic.Bool // the store takes deliveries again

	mu        sync.Mutex
	heard     map[router.Hook]time.Time        // those in the store, and when that was noted
	forgotten map[router.Hook]router.HookSweep // those that GitHub does not know; Heard is when it said so
	warned    bool                             // that an App's deliveries cannot be seen
	fresh     *rate.Limiter                    // of those that the store may not have; nil: made when it is needed

	// Used by Sweep only.
	sweep     int                    // counts
	turns     map[router.HookKey]int // how often each was looked at
	compared  map[router.HookKey]comparison
	read      bool          // GitHub listed the deliveries of some hook
	unreached []router.Hook // those whose deliveries GitHub does not list

	latest   time.Time // when the store had last recorded anything, at the start; zero: never; guarded by mu
	compares bool      // what GitHub delivered is compared with the store at the start: it is not new

	unread chan Unread // size 1; sent once, when it is known
	told   bool        // it was sent; used by Sweep only
}

// NewSweeper returns one that has seen nothing.
func NewSweeper(store SweepStore, github router.GitHub, log *telemetry.Log, now func() time.Time, storeWorks func(context.Context) bool) *Sweeper {
	return &Sweeper{Store: store, GitHub: github, Log: log, Now: now, StoreWorks: storeWorks, now: router.NewHint(), refused: router.NewHint()}
}

// Sooner receives when there is something to be swept.
func (sw *Sweeper) Sooner() <-chan struct{} { return sw.now }

// Start says when the database had last recorded anything (zero: never), and whether
// what GitHub delivered since is compared with it, as it may be an old copy.
// It is called before Sweep, and may be while deliveries come.
func (sw *Sweeper) Start(latest time.Time, compares bool) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.latest, sw.compares, sw.unread = latest, compares, make(chan Unread, 1)
}

// An Unread says of which hooks a comparison at the start could not be made.
type Unread struct {
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

// RecordHook notes the hook that a delivery came by, as its headers say.
func (sw *Sweeper) RecordHook(ctx context.Context, h router.Hook) error {
	now := sw.Now()
	if h.Kind == "" {
		return nil
	}
	sw.mu.Lock()
	heard, known := sw.heard[h]
	gone, was := sw.forgotten[h]
	if sw.fresh == nil {
		sw.fresh = rate.NewLimiter(10, 100)
	}
	switch {
	case known && now.Sub(heard) < heardEvery,
		!known && was && now.Sub(gone.Heard) < forgottenFor,
		!known && h.Kind != router.HookApp && !sw.fresh.AllowN(now, 1):
		sw.mu.Unlock()
		return nil
	}
	warned := sw.warned
	sw.mu.Unlock()
	if h.Kind == router.HookApp && !slices.Contains(sw.GitHub.OwnHooks(), h) {
		if !warned {
			sw.Log.Warn("deliveries come by the webhook of a GitHub App; those that get lost can only be found when Switchyard logs in as that App")
		}
		sw.mu.Lock()
		sw.warned = true
		sw.mu.Unlock()
		return nil
	}
	// Those before now are not its first, or they would have been seen: but not in a
	// database that knows nothing of the last days.
	swept := now.Add(-firstSweep)
	if was {
		swept = gone.Swept
	}
	sw.mu.Lock()
	latest := sw.latest
	sw.mu.Unlock()
	if at := latest.Add(-sweepOverlap); !latest.IsZero() && at.Before(swept) {
		swept = at
	}
	ok, err := sw.Store.RecordHook(ctx, h, swept, now)
	if err != nil {
		return fmt.Errorf("remember %s: %w", h, err)
	}
	if ok {
		sw.hear(h, now)
	}
	return nil
}

// hear notes that the store has a hook, and that it was heard of.
func (sw *Sweeper) hear(h router.Hook, at time.Time) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.heard == nil || len(sw.heard) >= maxHooks {
		sw.heard = map[router.Hook]time.Time{}
	}
	if at.After(sw.heard[h]) {
		sw.heard[h] = at
	}
}

// forget notes that GitHub does not know a hook.
func (sw *Sweeper) forget(h router.HookSweep, now time.Time) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	delete(sw.heard, h.Hook)
	if sw.forgotten == nil || len(sw.forgotten) >= maxHooks {
		sw.forgotten = map[router.Hook]router.HookSweep{}
	}
	h.Heard = now
	sw.forgotten[h.Hook] = h
}

// turn returns the hooks whose turn it is: the App's; then those that had the
// fewest turns, and of these the ones heard of last. Hooks that are not proved
// take few of the places. all is for the start, and after an outage: all that are
// proved.
func (sw *Sweeper) turn(hooks []router.HookSweep, all bool) (turn []router.HookSweep) {
	least, turns := -1, map[router.HookKey]int{} // without those that are gone
	for _, h := range hooks {
		if n, had := sw.turns[h.Key()]; had {
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
	sw.turns = turns
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

// Sweep looks through the deliveries of each hook since the last time and
// has those that failed made again. A hook that cannot be read keeps no other
// from being so.
func (sw *Sweeper) Sweep(ctx context.Context) error {
	own := sw.GitHub.OwnHooks()
	for _, h := range own {
		if err := sw.RecordHook(ctx, h); err != nil {
			return err
		}
	}
	hooks, err := sw.Store.Hooks(ctx)
	if err != nil {
		return err
	}
	hooks = slices.DeleteFunc(hooks, func(h router.HookSweep) bool {
		return h.Kind == router.HookApp && !slices.Contains(own, h.Hook)
	})
	for _, h := range hooks {
		sw.hear(h.Hook, h.Heard)
	}
	all := sw.sweep == 0
	if sw.recovered.Swap(false) {
		all = true
		if err := sw.Store.RedeliverNow(ctx, sw.Now()); err != nil {
			return err
		}
	}
	sw.sweep++
	if sw.compared == nil {
		sw.compared = map[router.HookKey]comparison{}
	}
	said := sweepSays{hooks: len(hooks)}
	for _, h := range sw.turn(hooks, all) {
		err := sw.sweepHook(ctx, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		sw.turns[h.Key()]++
		unknown := errors.Is(err, router.ErrNotFound) && h.Kind != router.HookApp
		if unknown {
			if err := sw.Store.ForgetHook(ctx, h.Hook); err != nil {
				return err
			}
			sw.forget(h, sw.Now())
			delete(sw.compared, h.Key())
		}
		if err != nil && !sw.told && lasting(err) && (h.Proved || !unknown) {
			sw.unreached = append(sw.unreached, h.Hook)
		}
		said.add(h.Hook, err, unknown)
	}
	if said.unknown > 0 {
		sw.Log.Info("webhooks whose deliveries GitHub does not show are forgotten: they are deleted, somebody made them up, or the login may not see them",
			"webhooks", said.unknown, "such_as", said.which.String(), "err", said.why)
	}
	if sw.unread != nil && !sw.told && (!said.passing || sw.sweep > sweepsToTell) {
		sw.unread <- Unread{all: !sw.read && !said.passing, hooks: sw.unreached}
		sw.told, sw.unreached = true, nil
	}
	return errors.Join(said.err(), sw.redeliver(ctx))
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
	return errors.Is(err, router.ErrNotFound) || errors.As(err, new(*router.GiveUpError)) || errors.As(err, new(*router.FixError))
}

// sweepHook reads a hook's deliveries from the newest back to where the last
// sweep began. What it read is kept with where it goes on, page by page, so
// that a sweep which is cut off loses nothing.
//
// The first sweep after the start goes back to the newest that the store knows
// of anything, and misses whatever the store does not have, also what was
// answered: the store may be a copy that was made before.
func (sw *Sweeper) sweepHook(ctx context.Context, h router.HookSweep) error {
	if sw.compared[h.Key()] == notCompared && sw.compares {
		sw.compared[h.Key()] = comparing
		h.Cursor, h.Newest = "", time.Time{}
		if at := sw.latest.Add(-sweepOverlap); at.Before(h.Swept) {
			h.Swept = at
		}
	}
	compares := sw.compared[h.Key()] == comparing
	if oldest := sw.Now().Add(-router.DeliveriesKept); h.Swept.Before(oldest) {
		h.Swept = oldest
	}
	seen := map[string]bool{} // and need not be missed: a later attempt is listed first
	for range sweepPages {
		var page []router.SentDelivery
		var next string
		err := persist(ctx, func(ctx context.Context) (err error) {
			page, next, err = sw.GitHub.Deliveries(ctx, h.Hook, h.Cursor)
			return err
		})
		if err != nil && h.Cursor != "" && lasting(err) {
			// The place is good no more: begin anew. What is listed twice is
			// kept once.
			h.Cursor = ""
			return errors.Join(err, sw.Store.Swept(ctx, h, nil, sw.Now()))
		}
		if err != nil {
			return err
		}
		h.Proved, sw.read = true, true
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
		if err := sw.Store.Swept(ctx, h, missed, sw.Now()); err != nil {
			return err
		}
		if next == "" {
			sw.compared[h.Key()] = compared
			return nil
		}
	}
	return nil // the next sweep goes on
}

// persist makes a call up to three times while it fails in a way that may pass
// at once: a 5xx, an answer that does not come. The rest of a sweep hangs on it.
func persist(ctx context.Context, call func(context.Context) error) (err error) {
	for pause := time.Second; ; pause *= 2 {
		within, cancel := context.WithTimeout(ctx, router.LoginTimeout)
		err = call(within)
		cancel()
		if err == nil || pause > 2*time.Second || lasting(err) || errors.As(err, new(*router.RetryAtError)) {
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

// StoreRefused is told that the store did not take a delivery.
func (sw *Sweeper) StoreRefused() {
	sw.refused.Give()
}

// Recover has what the store refused swept as soon as it takes deliveries
// again, and once more for those that GitHub lists late, until ctx ends.
func (sw *Sweeper) Recover(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sw.refused:
		}
		for failed := true; failed; {
			if !pause(ctx, recheckStore) { // so that what is known is younger than the refusal
				return nil
			}
			failed = !sw.StoreWorks(ctx)
		}
		for _, wait := range []time.Duration{0, lateRefusal} {
			if !pause(ctx, wait) {
				return nil
			}
			sw.recovered.Store(true)
			sw.now.Give()
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
func (sw *Sweeper) redeliver(ctx context.Context) error {
	var errs []error
	failing := map[router.Hook]bool{}
	for len(errs) == 0 {
		due, err := sw.Store.Redeliveries(ctx, sw.Now(), sw.Now().Add(-router.DeliveriesKept), redeliverBatch)
		if err != nil {
			return err
		}
		done := 0
		for _, r := range due {
			if failing[r.Hook] {
				continue
			}
			err := persist(ctx, func(ctx context.Context) error { return sw.GitHub.Redeliver(ctx, r.Hook, r.DeliveryID) })
			if ctx.Err() != nil {
				return ctx.Err()
			}
			switch {
			case errors.As(err, new(*router.GiveUpError)):
				sw.Log.Throttled(slog.LevelWarn, "", "github does not make a lost delivery again", "delivery_id", r.GUID, "err", err)
			case err != nil:
				failing[r.Hook] = true // so would its others: they stay due
				errs = append(errs, fmt.Errorf("%s: %w", r.Hook, err))
				continue
			}
			again := time.Time{}
			if r.Tries+1 < redeliverTries {
				again = sw.Now().Add(redeliverFirst << r.Tries)
			}
			if err := sw.Store.Redelivered(ctx, r.GUID, again); err != nil {
				return err
			}
			done++
		}
		if done > 0 {
			sw.Log.Info("lost deliveries are made again", "deliveries", done)
		}
		if len(due) < redeliverBatch {
			break
		}
	}
	return errors.Join(errs...)
}
