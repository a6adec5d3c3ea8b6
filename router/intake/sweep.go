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
	sweepHooks     = 50               // read in one sweep, in turn: each costs a request at least
	sweepUnproved  = 10               // at most, of those that only unsigned headers have named
	sweepPages     = 100              // of a hundred deliveries each, at most, in one sweep of one hook
	redeliverBatch = 100              // read from the store at once
	redeliverTries = 5                // of one delivery
	redeliverFirst = 5 * time.Minute  // to the second try; doubled for each one after
	sweepOverlap   = 2 * time.Minute  // GitHub lists a delivery only when it knows the outcome
	firstSweep     = time.Hour        // how far back a new hook is swept
	maxHooks       = 10_000           // remembered
	heardEvery     = time.Hour        // between two records that a hook delivered
	forgottenFor   = time.Hour        // how long a hook that GitHub does not know is not recorded again
	sweepsToTell   = 12               // after this many, the unread hooks are synced, even if some may be read later
	recheckStore   = time.Second      // between two checks whether a store that failed works
	lateRefusal    = 20 * time.Second // GitHub waits 10 s for an answer, and lists the delivery then
)

// A SweepStore is what a Sweeper uses of the database.
type SweepStore interface {
	// RecordHook records that a delivery named a hook. If no hook of its kind and ID is
	// known it becomes known, with its owner and repository, as swept until then. It does not
	// while MaxUnprovedHooks of its repository or organization are not proved; with more
	// than MaxHooks, the one heard of longest ago is forgotten. known is false when the
	// store does not have the hook as it is in h.
	RecordHook(ctx context.Context, h router.Hook, swept, now time.Time) (known bool, err error)

	// ForgetHook forgets a hook and its redeliveries.
	ForgetHook(ctx context.Context, h router.Hook) error

	// Hooks returns the known hooks: first the App's, then those heard of most recently.
	Hooks(ctx context.Context) ([]router.HookSweep, error)

	// Swept records how far a hook was swept, whether it is proved, and the deliveries that
	// failed: those that were not received are due for redelivery.
	Swept(ctx context.Context, h router.HookSweep, missed []router.SentDelivery, now time.Time) error

	// RedeliverNow makes all redeliveries due at once.
	RedeliverNow(ctx context.Context, now time.Time) error

	// Redeliveries returns up to limit deliveries that are due, oldest first, except that
	// those which say that a job runs or has ended come before the others. It forgets those
	// that were received, or made before old.
	Redeliveries(ctx context.Context, now, old time.Time, limit int) ([]router.Redelivery, error)

	// Redelivered counts an attempt at a redelivery; it is due again at again, or, when that
	// is zero, never.
	Redelivered(ctx context.Context, guid string, again time.Time) error
}

// A Sweeper finds deliveries that got lost, in GitHub's lists for the webhooks that it has
// heard of, and has GitHub redeliver them. It is made by NewSweeper. Its methods are safe for
// concurrent use, except that Sweep runs once at a time.
type Sweeper struct {
	Store      SweepStore
	GitHub     router.GitHub
	Log        *telemetry.Log
	Now        func() time.Time
	StoreWorks func(context.Context) bool // whether the database takes writes now
	Polled     func(router.Hook) bool     // whether a Poller reads the deliveries of a hook, so that none gets lost; nil: none

	now       router.Hint // a sweep is due
	refused   router.Hint // the store failed to record a delivery
	recovered atomic.Bool // the store takes deliveries again

	mu        sync.Mutex
	heard     map[router.Hook]time.Time        // hooks in the store, and when that was recorded
	forgotten map[router.Hook]router.HookSweep // those that GitHub does not know; Heard is when it said so
	toldApp   bool                             // it was logged that an App's deliveries cannot be listed
	lost      int                              // deliveries that the last sweep to find any found
	lostAt    time.Time                        // when it did
	fresh     *rate.Limiter                    // of records of hooks that the store may not have; nil: made when it is needed

	// Used by Sweep only.
	sweep     int                    // counts
	turns     map[router.HookKey]int // how often each was swept
	compared  map[router.HookKey]comparison
	read      bool          // GitHub listed the deliveries of some hook, or a Poller has it list them
	unreached []router.Hook // hooks whose deliveries GitHub does not list

	latest   time.Time // when the store had last recorded anything, at the start; zero: never; guarded by mu
	compares bool      // the database is not new: at the start, what GitHub delivered is compared with it

	unread chan unread // size 1; sent once, when it is known
	told   bool        // it was sent; used by Sweep only
}

// NewSweeper returns a Sweeper that has heard of no hook.
func NewSweeper(store SweepStore, github router.GitHub, log *telemetry.Log, now func() time.Time, storeWorks func(context.Context) bool) *Sweeper {
	return &Sweeper{Store: store, GitHub: github, Log: log, Now: now, StoreWorks: storeWorks, now: router.NewHint(), refused: router.NewHint()}
}

// Lost returns how many deliveries the last sweep that found lost ones found, and when; 0: none did.
func (sw *Sweeper) Lost() (deliveries int, at time.Time) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return sw.lost, sw.lostAt
}

// Sooner returns a channel that receives when a sweep is due at once.
func (sw *Sweeper) Sooner() <-chan struct{} { return sw.now }

// Start says when the database last recorded anything (zero: never), and whether it must be
// compared with what GitHub delivered since, as it may be an old copy. It is called before
// the first Sweep of this process, and of each term that it leads; deliveries may come meanwhile.
func (sw *Sweeper) Start(latest time.Time, compares bool) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.latest, sw.compares, sw.unread = latest, compares, make(chan unread, 1)
	sw.sweep, sw.compared, sw.read, sw.unreached, sw.told = 0, nil, false, nil, false
}

// An unread says for which hooks the comparison at the start was not possible.
type unread struct {
	all   bool // it was for none: there may be hooks that are not known
	hooks []router.Hook
}

// A comparison is how far the comparison of a hook's deliveries with the store has come.
type comparison int

const (
	notCompared comparison = iota
	comparing              // the sweep is under way
	compared
)

// RecordHook records the hook that sent a delivery, as the delivery's headers name it.
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
	told := sw.toldApp
	sw.mu.Unlock()
	if h.Kind == router.HookApp && !slices.Contains(sw.GitHub.OwnHooks(), h) {
		if !told {
			sw.Log.Warn("deliveries come from the webhook of a github app; switchyard finds lost ones only if it logs in as that app")
		}
		sw.mu.Lock()
		sw.toldApp = true
		sw.mu.Unlock()
		return nil
	}
	// Its earlier deliveries were recorded, or this one would not be the first; but not in
	// a database that has nothing of the last days.
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

// hear notes that the store has a hook, and when it was heard of.
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

// turn returns the hooks whose turn it is: the App's; then those that had the fewest turns,
// and among these the ones heard of most recently. Hooks that are not proved take few of the
// places. all is true at the start and after an outage: all proved hooks then have a turn.
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

// Sweep reads the deliveries of each hook since the last sweep and has those redelivered
// that failed. If one hook cannot be read, the others still are.
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
	hooks = slices.DeleteFunc(hooks, func(h router.HookSweep) bool {
		polled := sw.Polled != nil && sw.Polled(h.Hook)
		sw.read = sw.read || polled
		return polled
	})
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
	result := sweepResult{hooks: len(hooks)}
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
		result.add(h.Hook, err, unknown)
	}
	if result.unknown > 0 {
		sw.Log.Info("forgot webhooks whose deliveries github does not show: they were deleted, somebody made them up, or the login may not see them",
			"webhooks", result.unknown, "such_as", result.which.String(), "err", result.why)
	}
	if sw.unread != nil && !sw.told && (!result.passing || sw.sweep > sweepsToTell) {
		sw.unread <- unread{all: !sw.read && !result.passing, hooks: sw.unreached}
		sw.told, sw.unreached = true, nil
	}
	return errors.Join(result.err(), sw.redeliver(ctx))
}

// A sweepResult sums up the errors of a sweep, so that it logs one line of each kind,
// however many webhooks fail.
type sweepResult struct {
	hooks, failed, unknown int
	first, why             error       // the first failure, and why a hook is unknown
	which                  router.Hook // that is unknown
	passing                bool        // some may be read at the next attempt
}

func (s *sweepResult) add(h router.Hook, err error, unknown bool) {
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

func (s *sweepResult) err() error {
	if s.failed > 1 {
		return fmt.Errorf("%d of %d webhooks, such as %w", s.failed, s.hooks, s.first)
	}
	return s.first
}

// lasting reports whether an error of GitHub's stays until somebody fixes its cause.
func lasting(err error) bool {
	return errors.Is(err, router.ErrNotFound) || errors.As(err, new(*router.GiveUpError)) || errors.As(err, new(*router.FixError))
}

// sweepHook reads a hook's deliveries from the newest back to where the last sweep began. It
// records what it read, and where to continue, page by page, so that a sweep that is cut off
// loses nothing.
//
// The first sweep after the start goes back to when the store last recorded anything, and
// takes whatever the store does not have as missed, even if it was answered: the database may
// be an older copy.
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
	failed := 0
	defer func() {
		if failed > 0 {
			sw.mu.Lock()
			sw.lost, sw.lostAt = failed, sw.Now()
			sw.mu.Unlock()
		}
	}()
	seen := map[string]bool{} // by GUID: later attempts, which are listed first, count
	for range sweepPages {
		var page []router.SentDelivery
		var next string
		err := persist(ctx, func(ctx context.Context) (err error) {
			page, next, err = sw.GitHub.Deliveries(ctx, h.Hook, h.Cursor)
			return err
		})
		if err != nil && h.Cursor != "" && lasting(err) {
			// The cursor has expired: start over. What is listed twice is kept once.
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
			case d.Event != "workflow_job" || !slices.Contains(knownActions, d.Action) || seen[d.GUID]:
			case d.OK && !compares:
				seen[d.GUID] = true
			default:
				seen[d.GUID] = compares
				missed = append(missed, d)
				if !d.OK {
					failed++
				}
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
	return nil // the next sweep continues
}

// persist makes a call up to three times while it fails in a way that may pass at once: a 5xx,
// or no answer. The rest of a sweep depends on it.
func persist(ctx context.Context, call func(context.Context) error) (err error) {
	for pause := time.Second; ; pause *= 2 {
		within, cancel := context.WithTimeout(ctx, router.LoginTimeout)
		err = call(within)
		cancel()
		if err == nil || pause > 2*time.Second || lasting(err) || errors.As(err, new(*router.RetryAtError)) {
			return err
		}
		if !router.Pause(ctx, pause) {
			return err
		}
	}
}

var knownActions = []string{"queued", "waiting", "in_progress", "completed"}

// StoreRefused says that the store failed to record a delivery.
func (sw *Sweeper) StoreRefused() {
	sw.refused.Give()
}

// Recover makes a sweep due as soon as a store that failed takes deliveries again, and once
// more for those that GitHub lists late, until ctx ends.
func (sw *Sweeper) Recover(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sw.refused:
		}
		for failed := true; failed; {
			if !router.Pause(ctx, recheckStore) { // so that the check is newer than the failure
				return nil
			}
			failed = !sw.StoreWorks(ctx)
		}
		for _, wait := range []time.Duration{0, lateRefusal} {
			if !router.Pause(ctx, wait) {
				return nil
			}
			sw.Again()
		}
	}
}

// Again makes a sweep due at once, which looks at all hooks and redelivers whatever is to be
// redelivered: the store takes deliveries again.
func (sw *Sweeper) Again() {
	sw.recovered.Store(true)
	sw.now.Give()
}

// redeliver asks GitHub to redeliver what is due. It ends when GitHub takes no more requests
// for now; what is left stays due.
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
				sw.Log.Throttled(slog.LevelWarn, "", "github does not redeliver a lost delivery", "delivery_id", r.GUID, "err", err)
			case err != nil:
				failing[r.Hook] = true // its other deliveries would fail, too: they stay due
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
			sw.Log.Info("github redelivers lost deliveries", "deliveries", done)
		}
		if len(due) < redeliverBatch {
			break
		}
	}
	return errors.Join(errs...)
}
