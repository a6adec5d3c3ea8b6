package decide

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
				if run, err := known.get(t.Context(), 7, time.Now, ask); err != nil || run.Event != "push" {
					t.Errorf("get = %+v, %v", run, err)
				}
			}()
		}
		time.Sleep(time.Minute)
		if _, err := known.get(t.Context(), 7, time.Now, ask); err != nil || calls.Load() != 1 {
			t.Errorf("after %d calls, err %v, want 1", calls.Load(), err)
		}
		if _, err := known.get(t.Context(), 8, time.Now, ask); err != nil || calls.Load() != 2 {
			t.Errorf("another run after %d calls, err %v, want one more", calls.Load(), err)
		}
	})
}

func TestAFailedLookUpIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known runs
		asked := 0
		get := func(answer error) error {
			run, err := known.get(t.Context(), 7, time.Now, func(context.Context) (rules.Run, error) { asked++; return rules.Run{Fork: true}, answer })
			if err == nil && !run.Fork {
				t.Errorf("get = %+v", run)
			}
			return err
		}
		away := errors.New("502")
		for i, pause := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second} {
			if err := get(away); !errors.Is(err, away) {
				t.Errorf("get = %v, want %v", err, away)
			}
			time.Sleep(pause - time.Millisecond)
			if err := get(nil); !errors.Is(err, away) || asked != i+1 {
				t.Errorf("%v after failure %d: %v, asked %d times", pause, i+1, err, asked)
			}
			time.Sleep(time.Millisecond)
		}
		if err := get(nil); err != nil || asked != 4 {
			t.Errorf("get = %v, asked %d times, want 4", err, asked)
		}
	})
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
			if _, err := known.get(first, 7, time.Now, ask); !errors.Is(err, context.Canceled) {
				t.Errorf("the first caller got %v, want context canceled", err)
			}
		}()
		synctest.Wait()
		for range 5 {
			go func() {
				if run, err := known.get(t.Context(), 7, time.Now, ask); err != nil || run.Event != "push" {
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
		_, err := known.get(t.Context(), 7, time.Now, func(ctx context.Context) (rules.Run, error) {
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
		if _, err := known.get(t.Context(), id, time.Now, func(context.Context) (rules.Run, error) { calls++; return rules.Run{}, nil }); err != nil {
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
