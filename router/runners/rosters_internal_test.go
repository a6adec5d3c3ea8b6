package runners

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
)

// GitHub's list of one owner's runners, which takes a while, holds up nobody who asks for
// another's, and is used from when it came. That it fails is remembered as well.
func TestAListOfRunnersIsAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes = 25 * time.Second
		var c rosters
		slow, other := router.Target{Owner: "acme"}, router.Target{Owner: "else"}
		asked := 0
		fails := error(nil)
		get := func() error {
			got, err := c.get(t.Context(), slow, func() ([]router.GitHubRunner, error) {
				asked++
				time.Sleep(takes)
				return []router.GitHubRunner{{ID: 7, Name: "gha-1-1-abcdef"}}, fails
			})
			if _, ok := got["gha-1-1"]; err == nil && !ok {
				t.Errorf("the list is %v, want gha-1-1", got)
			}
			return err
		}
		crowd := func() {
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					if err := get(); !errors.Is(err, fails) {
						t.Errorf("the error is %v, want %v", err, fails)
					}
				})
			}
			synctest.Wait()
			began := time.Now()
			if _, err := c.get(t.Context(), other, func() ([]router.GitHubRunner, error) { return nil, nil }); err != nil || time.Since(began) > 0 {
				t.Errorf("another's list took %s, %v", time.Since(began), err)
			}
			all.Wait()
		}
		crowd()
		time.Sleep(rosterKept - time.Second)
		if crowd(); asked != 1 {
			t.Errorf("GitHub was asked %d times within %s of its answer, want once", asked, rosterKept)
		}
		time.Sleep(time.Second)
		fails = errors.New("502 Bad Gateway")
		if crowd(); asked != 2 {
			t.Errorf("GitHub was asked %d times for a list that fails, want once", asked-1)
		}
		fails = nil
		time.Sleep(rosterErrorKept)
		if crowd(); asked != 3 {
			t.Errorf("after an error GitHub was asked %d times, want once", asked-2)
		}
	})
}

// Who asks for a list may be stopped: those that wait for it ask again, and nobody gets his
// error. Who waits for it may be stopped, too.
func TestAListOfRunnersOutlivesWhoAskedForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c rosters
		var all sync.WaitGroup
		asked := 0
		get := func(ctx context.Context, want error) {
			all.Go(func() {
				_, err := c.get(ctx, router.Target{Owner: "acme"}, func() ([]router.GitHubRunner, error) {
					asked++
					if !router.Pause(ctx, time.Minute) {
						return nil, ctx.Err()
					}
					return nil, nil
				})
				if !errors.Is(err, want) {
					t.Errorf("the error is %v, want %v", err, want)
				}
			})
			synctest.Wait()
		}
		asks, stopAsks := context.WithCancel(t.Context())
		waits, stopWaits := context.WithCancel(t.Context())
		began := time.Now()
		get(asks, context.Canceled)
		get(waits, context.Canceled)
		for range 16 {
			get(t.Context(), nil)
		}
		stopWaits()
		stopAsks()
		all.Wait()
		if took := time.Since(began); asked != 2 || took != time.Minute {
			t.Errorf("GitHub was asked %d times in %s, want twice in a minute", asked, took)
		}
	})
}
