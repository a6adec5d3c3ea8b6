package server

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
