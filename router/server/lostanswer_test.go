package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/server"
)

// forgetful is a GitHub that registers runners and loses its answers, or takes
// no more runners.
type forgetful struct {
	*hub
	mu      sync.Mutex
	full    bool
	away    bool             // its lists, too
	runners map[string]int64 // by name
}

func (f *forgetful) RunnerConfig(ctx context.Context, r router.ConfigRequest) (router.RunnerConfig, error) {
	c, err := f.hub.RunnerConfig(ctx, r)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full {
		return router.RunnerConfig{}, &router.FixError{Fix: "make room", Err: fmt.Errorf("%w: 422", router.ErrRunnerLimit)}
	}
	f.runners[r.Name] = c.GitHubID
	if err == nil && len(f.runners) == 1 {
		err = &router.UnansweredError{Err: errors.New("GitHub answered 502")}
	}
	return c, err
}

func (f *forgetful) Runner(_ context.Context, _ router.Target, name string) (router.GitHubRunner, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return router.GitHubRunner{}, errors.New("GitHub answered 502")
	}
	if id := f.runners[name]; id != 0 {
		return router.GitHubRunner{ID: id, Name: name}, nil
	}
	return router.GitHubRunner{}, router.ErrNotFound
}

func (f *forgetful) Runners(context.Context, router.Target) (list []router.GitHubRunner, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, id := range f.runners {
		list = append(list, router.GitHubRunner{ID: id, Name: name})
	}
	return list, nil
}

// GitHub answers 502, and has registered the runner: it is removed by its name,
// as soon as GitHub can be asked.
func TestARunnerOfALostAnswerIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &forgetful{hub: &hub{}, runners: map[string]int64{}, away: true}
		r := start(t, openStore(t), &cluster{}, f.hub, func(c *server.Config) { c.GitHub = f })
		first := r.dispatch(1)
		if status, _ := r.Claim(first.ClaimToken); status != http.StatusServiceUnavailable {
			t.Fatalf("claim = %d, want 503", status)
		}
		time.Sleep(3 * time.Minute)
		if got := f.lost(); len(got) != 0 {
			t.Errorf("GitHub lost the runners %v while it could not be asked", got)
		}
		f.mu.Lock()
		f.away = false
		f.mu.Unlock()
		time.Sleep(time.Minute)
		if got := f.lost(); !slices.Equal(got, []int64{1}) {
			t.Errorf("GitHub lost the runners %v, want the one whose answer was lost", got)
		}
	})
}

// A full runner group is waited for, and runners of ours that ended make room at once.
func TestAFullRunnerGroupIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &forgetful{hub: &hub{}, runners: map[string]int64{"gha-1-1-aaaaaa": 99, "somebody-else": 98}}
		r := start(t, openStore(t), &cluster{}, f.hub, func(c *server.Config) { c.GitHub = f })
		f.mu.Lock()
		f.full = true
		f.mu.Unlock()
		got := r.dispatch(1)
		r.Claim(got.ClaimToken)
		j := r.await(1, in(router.Retrying))
		if !strings.Contains(j.Reason, "the runner group is full") || !strings.Contains(j.Reason, "make room") || time.Until(j.DueAt) < 30*time.Second {
			t.Errorf("it is due at %s: %s; want it held for a while, with what to do", j.DueAt, j.Reason)
		}
		eventually(t, "its own runner makes room", func() bool { return slices.Equal(f.lost(), []int64{99}) })
	})
}
