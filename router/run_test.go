package router

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/rules"
)

func TestCallersThatWantOneRunShareACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known runs
		var calls atomic.Int32
		ask := func(context.Context) (rules.Run, error) {
			calls.Add(1)
			time.Sleep(time.Second)
			return rules.Run{Event: "push"}, nil
		}
		for range 20 {
			go func() {
				if run, err := known.get(t.Context(), 7, ask); err != nil || run.Event != "push" {
					t.Errorf("get = %+v, %v", run, err)
				}
			}()
		}
		time.Sleep(time.Minute)
		if _, err := known.get(t.Context(), 7, ask); err != nil || calls.Load() != 1 {
			t.Errorf("after %d calls, err %v, want 1", calls.Load(), err)
		}
		if _, err := known.get(t.Context(), 8, ask); err != nil || calls.Load() != 2 {
			t.Errorf("another run after %d calls, err %v, want one more", calls.Load(), err)
		}
	})
}

func TestAFailedLookUpIsMadeAgain(t *testing.T) {
	var known runs
	away := errors.New("502")
	for i, fails := range []error{away, context.DeadlineExceeded, nil} {
		run, err := known.get(t.Context(), 7, func(context.Context) (rules.Run, error) { return rules.Run{Fork: true}, fails })
		if !errors.Is(err, fails) || err == nil && !run.Fork {
			t.Errorf("get %d = %+v, %v, want %v", i, run, err, fails)
		}
	}
}

func TestACallerThatIsCutOffFailsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known runs
		var calls atomic.Int32
		ask := func(ctx context.Context) (rules.Run, error) {
			calls.Add(1)
			select {
			case <-ctx.Done():
				return rules.Run{}, ctx.Err()
			case <-time.After(2 * time.Second):
				return rules.Run{Event: "push"}, nil
			}
		}
		first, cut := context.WithCancel(t.Context())
		go func() {
			if _, err := known.get(first, 7, ask); !errors.Is(err, context.Canceled) {
				t.Errorf("the first caller got %v, want context canceled", err)
			}
		}()
		synctest.Wait()
		for range 5 {
			go func() {
				if run, err := known.get(t.Context(), 7, ask); err != nil || run.Event != "push" {
					t.Errorf("another caller got %+v, %v", run, err)
				}
			}()
		}
		synctest.Wait()
		cut()
		time.Sleep(time.Minute)
		if calls.Load() != 2 {
			t.Errorf("GitHub was asked %d times, want 2: the one cut off and the one after it", calls.Load())
		}
	})
}

func TestALookUpEndsWithTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known runs
		began := time.Now()
		_, err := known.get(t.Context(), 7, func(ctx context.Context) (rules.Run, error) {
			<-ctx.Done()
			return rules.Run{}, ctx.Err()
		})
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != runTimeout {
			t.Errorf("get = %v after %s, want deadline exceeded after %s", err, took, runTimeout)
		}
	})
}

func TestRunsAreForgottenBeforeTheyFillTheMemory(t *testing.T) {
	var known runs
	calls := 0
	get := func(id int64) {
		if _, err := known.get(t.Context(), id, func(context.Context) (rules.Run, error) { calls++; return rules.Run{}, nil }); err != nil {
			t.Fatal(err)
		}
	}
	for id := range int64(3 * maxRuns) {
		get(id)
	}
	if n := len(known.young) + len(known.old); n > maxRuns {
		t.Errorf("%d runs are remembered, want at most %d", n, maxRuns)
	}
	for id := int64(3*maxRuns - maxRuns/2); id < 3*maxRuns; id++ {
		get(id)
	}
	if calls != 3*maxRuns {
		t.Errorf("GitHub was asked %d times, want %d: the last runs are still known", calls, 3*maxRuns)
	}
}
