package router

import (
	"context"
	"time"
)

const (
	pruneEvery     = time.Hour
	prunePause     = 50 * time.Millisecond // between two steps, so that deliveries come first
	leastKeep      = 3 * 24 * time.Hour    // GitHub may make deliveries again for so long: https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks (read 2026-11-24)
	deliveriesKeep = 7 * 24 * time.Hour    // at most: they are kept to tell doubles
	foreignKeep    = deliveriesKeep        // at most, of jobs that are not ours: after that GitHub is asked about a late delivery
)

// PruneStore is the part of Store that forgets.
type PruneStore interface {
	// Prune deletes some hundred rows at most: of jobs that came into their
	// last state before ended, or became Ignored or Denied before foreign, with what
	// is known of them and of their runners, and deliveries received before
	// delivered. It returns how many; 0: there are no more. A job with a runner that may live is kept; one with a runner
	// whose Nomad job was not seen to end is, unless it is older than unseen.
	Prune(ctx context.Context, ended, foreign, unseen, delivered time.Time) (rows int, err error)
}

// prune forgets old history, step by step, until there is none.
func (w *worker) prune(ctx context.Context) error {
	for rows := 0; ; {
		now := w.sureNow()
		storeCtx, cancel := context.WithTimeout(ctx, storeTimeout)
		n, err := w.Store.Prune(storeCtx, now.Add(-w.Keep), now.Add(-min(w.Keep, foreignKeep)), now.Add(-2*w.Keep), now.Add(-min(w.Keep, deliveriesKeep)))
		cancel()
		rows += n
		if err != nil || n == 0 {
			if rows > 0 {
				w.Logger.Info("old history deleted", "rows", rows, "keep", w.Keep)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(prunePause):
		}
	}
}
