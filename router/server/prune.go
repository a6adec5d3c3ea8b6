package server

import (
	"context"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

const (
	pruneEvery     = time.Hour
	versionsEvery  = time.Minute
	prunePause     = 50 * time.Millisecond // between two steps, so that deliveries are not delayed
	leastKeep      = 3 * 24 * time.Hour    // GitHub may redeliver until then: https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks (read 2026-11-24)
	deliveriesKeep = 7 * 24 * time.Hour    // at most: they are kept to recognize repeated ones
	foreignKeep    = deliveriesKeep        // at most, of ignored and denied jobs: after that GitHub is asked about a late delivery
)

// A pruner deletes old history.
type pruner struct {
	store Store
	log   *telemetry.Log
	clock *router.Clock
	keep  time.Duration // as in Config
}

// prune deletes old history, step by step, until none is left.
func (p *pruner) prune(ctx context.Context) error {
	for rows := 0; ; {
		now := p.clock.Sure()
		storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		n, err := p.store.Prune(storeCtx, now.Add(-p.keep), now.Add(-min(p.keep, foreignKeep)), now.Add(-2*p.keep), now.Add(-min(p.keep, deliveriesKeep)))
		cancel()
		rows += n
		if err != nil || n == 0 {
			if rows > 0 {
				p.log.Info("old history deleted", "rows", rows, "keep", p.keep)
			}
			return err
		}
		if !router.Pause(ctx, prunePause) {
			return nil
		}
	}
}
