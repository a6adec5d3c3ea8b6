package web

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"switchyard/router/web/problem"
)

const (
	useFresh    = time.Minute            // how long counts are shown before they are made again,
	useShare    = 50                     // and for so many times as long as it took to make them
	useRetry    = 5 * time.Second        // from a failure to the next attempt
	usePatience = 100 * time.Millisecond // how long a page waits for counts that are being made
	useTimeout  = time.Minute
	useKeys     = 64 // counts that are kept
)

// counts keeps what it takes seconds to count, by key. That is done beside the pages, once
// for all readers: meanwhile there is what was counted before, or nothing.
type counts[T any] struct {
	what   string // is counted
	logger *slog.Logger
	now    func() time.Time

	mu    sync.Mutex
	byKey map[any]*countOf[T]
}

type countOf[T any] struct {
	value  *T // nil: not counted yet, or err
	err    error
	until  time.Time     // until then it is fresh
	making chan struct{} // closed when it is counted; nil: it is not being counted
}

// get returns what count returns, or what it returned before; nil: it is still being counted.
// The key is comparable. The value is not to be changed. It is safe for concurrent use.
func (c *counts[T]) get(ctx context.Context, key any, count func(context.Context) (*T, error)) (*T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.byKey[key]
	if of == nil {
		if c.byKey == nil || len(c.byKey) >= useKeys {
			c.byKey = map[any]*countOf[T]{}
		}
		of = &countOf[T]{}
		c.byKey[key] = of
	}
	if of.making == nil && !c.now().Before(of.until) {
		of.making = make(chan struct{})
		go c.make(context.WithoutCancel(ctx), count, of)
	}
	if making := of.making; making != nil && of.value == nil {
		c.mu.Unlock()
		patience := time.NewTimer(usePatience)
		select {
		case <-making:
		case <-patience.C:
		case <-ctx.Done():
		}
		patience.Stop()
		c.mu.Lock()
	}
	return of.value, of.err
}

func (c *counts[T]) make(ctx context.Context, count func(context.Context) (*T, error), of *countOf[T]) {
	ctx, cancel := context.WithTimeout(ctx, useTimeout)
	defer cancel()
	began := c.now()
	value, err := count(ctx)
	until := began.Add(max(useFresh, useShare*c.now().Sub(began)))
	p := problem.Of(err)
	switch {
	case p != nil && p.RetryAfter > 0: // it had no turn
		value, err, until = of.value, nil, c.now()
	case err != nil:
		until = c.now().Add(useRetry)
		c.logger.Error("cannot count "+c.what, "err", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	of.value, of.err, of.until = value, err, until
	close(of.making)
	of.making = nil
}
