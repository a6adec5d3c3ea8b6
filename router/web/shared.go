package web

import (
	"context"
	"fmt"
	"sync"
	"time"

	"switchyard/router"
)

const (
	sharedFresh  = 2 * time.Second // for so long at least all are shown the same
	sharedShare  = 20              // and for so many times as long as it took to make
	sharedScopes = 100             // as many are kept
)

// shared keeps what is worked out of the books for each scope, so that many
// who look cost one reading. The zero value is ready.
type shared[T any] struct {
	mu      sync.Mutex
	byScope map[string]*sharedValue[T]
}

type sharedValue[T any] struct {
	mu    sync.Mutex // held while it is made
	value T
	until time.Time // zero: it was never made
}

// get returns what make returns, or returned a while ago. It is not to be
// changed. make goes on when who asks goes away, as others may wait for it.
func (s *shared[T]) get(ctx context.Context, scope router.Scope, make func(context.Context) (T, error)) (T, error) {
	v := s.of(fmt.Sprintf("%t %q", scope == nil, scope))
	v.mu.Lock()
	defer v.mu.Unlock()
	began := time.Now()
	if began.Before(v.until) {
		return v.value, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	made, err := make(ctx)
	if err != nil {
		return made, err
	}
	now := time.Now()
	v.value, v.until = made, now.Add(max(sharedFresh, sharedShare*now.Sub(began)))
	return made, nil
}

func (s *shared[T]) of(key string) *sharedValue[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.byScope[key]
	if v == nil {
		if s.byScope == nil || len(s.byScope) >= sharedScopes {
			s.byScope = map[string]*sharedValue[T]{}
		}
		v = &sharedValue[T]{}
		s.byScope[key] = v
	}
	return v
}
