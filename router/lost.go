package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	sweepHooks     = 50                 // looked at in one sweep, in turn: each is a request at least
	sweepPages     = 100                // of a hundred deliveries, read at most in one sweep of one hook
	redeliverBatch = 100                // read from the store at once
	redeliverTries = 5                  // of one delivery
	redeliverFirst = 5 * time.Minute    // to the second try; doubled for each one after
	deliveriesKept = 3 * 24 * time.Hour // by GitHub, at least: https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks (read 2026-11-24)
	sweepOverlap   = 2 * time.Minute    // GitHub lists a delivery when it knows how it went
	firstSweep     = time.Hour          // how far back a hook is swept that was not before
	maxHooks       = 10_000             // remembered
	hookTimeout    = 30 * time.Second   // for one request to GitHub, with what it takes to log in
)

// A HookKind says what a webhook on GitHub belongs to. It is the value of the
// header X-GitHub-Hook-Installation-Target-Type.
type HookKind string

// The kinds of webhooks whose deliveries GitHub shows.
const (
	HookApp          HookKind = "integration" // the App that Switchyard logs in as; it has one
	HookOrganization HookKind = "organization"
	HookRepository   HookKind = "repository"
)

// A Hook is a webhook on GitHub that sends its deliveries here.
type Hook struct {
	Kind  HookKind // "": unknown, or none that GitHub shows the deliveries of
	ID    int64    // Instance.ID of GitHub's, which is 0 for an App's
	Owner string   // "" for an App's
	Repo  string   // of a repository's, without the owner; else ""
}

func (h Hook) String() string {
	on := ""
	if n := InstanceOf(h.ID); n != 0 {
		on = fmt.Sprintf(" on GitHub %d", n)
	}
	switch h.Kind {
	case HookApp:
		return "the App's webhook" + on
	case HookOrganization:
		return fmt.Sprintf("webhook %d of organization %s%s", GitHubID(h.ID), h.Owner, on)
	}
	return fmt.Sprintf("webhook %d of repository %s/%s%s", GitHubID(h.ID), h.Owner, h.Repo, on)
}

// A SentDelivery is what GitHub says of a delivery that it made, or tried to.
type SentDelivery struct {
	ID     int64     // of this attempt
	GUID   string    // Delivery.ID, the same for all attempts
	At     time.Time // of GitHub's clock
	OK     bool      // it was answered with 2xx
	Event  string
	Action string // "" when the event has none
}

// Webhooks is the part of GitHub that says what became of deliveries. Errors
// are sorted as for Nomad.Start. Safe for concurrent use.
type Webhooks interface {
	// OwnHooks returns the webhooks of the Apps that Switchyard logs in as.
	OwnHooks() []Hook

	// Deliveries lists a page of a hook's deliveries, newest first: the first
	// page, or the one that next of an earlier call names. next is "" on the last.
	Deliveries(ctx context.Context, h Hook, cursor string) (page []SentDelivery, next string, err error)

	// Redeliver has GitHub make a delivery again, with the same GUID. It does
	// not wait for that.
	Redeliver(ctx context.Context, h Hook, deliveryID int64) error
}

// A HookSweep is a hook and how far its deliveries were looked through.
type HookSweep struct {
	Hook
	Swept  time.Time // those that were made before are done with
	Newest time.Time // of those that the sweep in hand has seen; zero: none
	Cursor string    // where that goes on; "": none is in hand
}

// A Redelivery is a delivery that never arrived.
type Redelivery struct {
	GUID       string
	Hook       Hook
	DeliveryID int64 // of its newest attempt that is known
	Tries      int   // how often it was asked for again
}

// LostStore is the part of Store that keeps what got lost on the way from GitHub.
type LostStore interface {
	// SawHook makes a hook known, swept until then, unless it is.
	SawHook(ctx context.Context, h Hook, swept time.Time) error

	// Hooks returns the known hooks.
	Hooks(ctx context.Context) ([]HookSweep, error)

	// Swept records how far a hook was swept, and the deliveries that failed:
	// those not received otherwise are due for redelivery.
	Swept(ctx context.Context, h HookSweep, failed []SentDelivery, now time.Time) error

	// Redeliveries returns up to limit deliveries that are due, oldest first,
	// and forgets those that were received, or made before old.
	Redeliveries(ctx context.Context, now, old time.Time, limit int) ([]Redelivery, error)

	// Redelivered counts a try of a redelivery; it is due at again, or, when
	// that is zero, never.
	Redelivered(ctx context.Context, guid string, again time.Time) error
}

// sawHook notes the hook that a delivery came by.
func (w *worker) sawHook(ctx context.Context, h Hook) error {
	if h.Kind == "" {
		return nil
	}
	w.mu.Lock()
	known := w.hooks[h]
	w.mu.Unlock()
	if known {
		return nil
	}
	if h.Kind == HookApp {
		if !slices.Contains(w.GitHub.OwnHooks(), h) {
			w.Logger.Warn("deliveries come by the webhook of a GitHub App; those that get lost can only be found when Switchyard logs in as that App")
			w.sawOnce(h)
			return nil
		}
	}
	// Those before now are not its first, or they would have been seen.
	if err := w.Store.SawHook(ctx, h, w.Now().Add(-firstSweep)); err != nil {
		return fmt.Errorf("remember %s: %w", h, err)
	}
	w.sawOnce(h)
	return nil
}

func (w *worker) sawOnce(h Hook) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hooks == nil || len(w.hooks) >= maxHooks {
		w.hooks = map[Hook]bool{}
	}
	w.hooks[h] = true
}

// findLost looks through the deliveries of each hook since the last time and
// has those that failed made again. A hook that cannot be read keeps no other
// from being so.
func (w *worker) findLost(ctx context.Context) error {
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
	hooks = slices.DeleteFunc(hooks, func(h HookSweep) bool {
		return h.Kind == HookApp && !slices.Contains(own, h.Hook)
	})
	var errs []error
	for range min(len(hooks), sweepHooks) {
		h := hooks[w.nextHook%len(hooks)]
		w.nextHook++
		if err := w.sweepHook(ctx, h); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", h.Hook, err))
		}
	}
	return errors.Join(append(errs, w.redeliver(ctx))...)
}

// sweepHook reads a hook's deliveries from the newest back to where the last
// sweep began. What it read is kept with where it goes on, page by page, so
// that a sweep which is cut off loses nothing.
func (w *worker) sweepHook(ctx context.Context, h HookSweep) error {
	if oldest := w.Now().Add(-deliveriesKept); h.Swept.Before(oldest) {
		h.Swept = oldest
	}
	arrived := map[string]bool{} // a later attempt, which is listed first
	for range sweepPages {
		var page []SentDelivery
		var next string
		err := persist(ctx, func(ctx context.Context) (err error) {
			page, next, err = w.GitHub.Deliveries(ctx, h.Hook, h.Cursor)
			return err
		})
		var gone *GiveUpError
		if errors.As(err, &gone) && h.Cursor != "" {
			// The place is good no more: begin anew. What is listed twice is
			// kept once.
			h.Cursor = ""
			return errors.Join(err, w.Store.Swept(ctx, h, nil, w.Now()))
		}
		if err != nil {
			return err
		}
		var failed []SentDelivery
		for _, d := range page {
			if d.At.After(h.Newest) {
				h.Newest = d.At
			}
			if d.At.Before(h.Swept) {
				next = ""
				break
			}
			switch {
			case d.Event != "workflow_job" || !knownAction(d.Action):
			case d.OK:
				arrived[d.GUID] = true
			case !arrived[d.GUID]:
				failed = append(failed, d)
			}
		}
		if h.Cursor = next; next == "" {
			if at := h.Newest.Add(-sweepOverlap); at.After(h.Swept) {
				h.Swept = at
			}
			h.Newest = time.Time{}
		}
		if err := w.Store.Swept(ctx, h, failed, w.Now()); err != nil || next == "" {
			return err
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
		var giveUp *GiveUpError
		var fix *FixError
		var later *RetryAtError
		if err == nil || pause > 2*time.Second || errors.As(err, &giveUp) || errors.As(err, &fix) || errors.As(err, &later) {
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

// redeliver has GitHub make the deliveries again that are due for it. It ends
// when GitHub takes no more for now; what is left stays due.
func (w *worker) redeliver(ctx context.Context) error {
	var errs []error
	failing := map[Hook]bool{}
	for len(errs) == 0 {
		due, err := w.Store.Redeliveries(ctx, w.Now(), w.Now().Add(-deliveriesKept), redeliverBatch)
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
			var giveUp *GiveUpError
			switch {
			case errors.As(err, &giveUp):
				w.Logger.Warn("github does not make a lost delivery again", "delivery_id", r.GUID, "err", err)
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
