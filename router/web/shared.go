package web

import (
	"context"
	"fmt"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/router/web/problem"
)

const (
	sharedFresh = time.Second // how long all are shown the same, at least
	sharedKeys  = 100         // values that are kept
)

// shared keeps what is made once for all who ask for it under the same key. The
// zero value is ready.
type shared[T any] struct {
	mu    sync.Mutex
	byKey map[string]*sharedValue[T]
}

type sharedValue[T any] struct {
	making chan struct{} // size 1; holds one while it is made
	value  T
	err    error
	until  time.Time // zero: it was never made
}

// get returns what produce returns, or what it returned up to sharedFresh ago, or up to
// times as long ago as it took. The value must not be changed. produce goes on when the
// client that asked goes away, as others may wait for it.
func (s *shared[T]) get(ctx context.Context, key string, now func() time.Time, times int, produce func(context.Context) (T, error)) (T, error) {
	asked := now()
	v := s.of(key)
	select {
	case v.making <- struct{}{}:
	case <-ctx.Done():
		return *new(T), ctx.Err()
	}
	defer func() { <-v.making }()
	if asked.Before(v.until) {
		return v.value, v.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), api.ReadTimeout)
	defer cancel()
	began := now()
	v.value, v.err = produce(ctx)
	fresh := sharedFresh
	if p := problem.Of(v.err); p != nil && p.RetryAfter > 0 { // who asked had no turn: others may have theirs
		fresh = 0
	}
	if v.err == nil {
		fresh = max(fresh, time.Duration(times)*now().Sub(began))
	}
	v.until = began.Add(fresh)
	return v.value, v.err
}

func (s *shared[T]) of(key string) *sharedValue[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.byKey[key]
	if v == nil {
		if s.byKey == nil || len(s.byKey) >= sharedKeys {
			s.byKey = map[string]*sharedValue[T]{}
		}
		v = &sharedValue[T]{making: make(chan struct{}, 1)}
		s.byKey[key] = v
	}
	return v
}

// clear forgets all values.
func (s *shared[T]) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byKey = nil
}

// scopeKey differs for scopes that differ.
func scopeKey(s router.Scope) string { return fmt.Sprintf("%t %q", s == nil, s) }
