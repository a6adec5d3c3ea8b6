package router_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"switchyard/router"
)

func TestRetry(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later := now.Add(17 * time.Minute)
	plain := errors.New("connection refused")
	for _, tc := range []struct {
		name     string
		err      error
		failures int
		from, to time.Duration // after now
		never    bool
	}{
		{name: "a first failure is tried again soon", err: plain, from: 125 * time.Millisecond, to: 250 * time.Millisecond},
		{name: "the wait doubles", err: plain, failures: 3, from: time.Second, to: 2 * time.Second},
		{name: "the wait has an end", err: plain, failures: 1000, from: 15 * time.Second, to: 30 * time.Second},
		{name: "what waits for others to be taken waits for minutes", err: fmt.Errorf("x: %w", &router.AwayError{Err: plain}), from: 150 * time.Second, to: 300 * time.Second},
		{name: "a fault that an operator mends is looked at again", err: fmt.Errorf("x: %w", &router.FixError{Err: plain}), from: 15 * time.Second, to: 30 * time.Second},
		{name: "the other side's time is kept", err: fmt.Errorf("x: %w", &router.RetryAtError{At: later, Err: plain}), failures: 9, from: 17 * time.Minute, to: 17*time.Minute + time.Second},
		{name: "a refusal is final", err: fmt.Errorf("x: %w", &router.GiveUpError{Err: plain}), never: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, r := range []float64{0, 0.5, 0.999} {
				b := &router.Backoff{Now: func() time.Time { return now }, Rand: func() float64 { return r }}
				at, ok := b.Retry(tc.err, tc.failures)
				if ok == tc.never {
					t.Fatalf("Retry(%v, %d) ok = %v, want %v", tc.err, tc.failures, ok, !tc.never)
				}
				if wait := at.Sub(now); ok && (wait < tc.from || wait > tc.to) {
					t.Errorf("Retry(%v, %d) waits %v, want %v to %v", tc.err, tc.failures, wait, tc.from, tc.to)
				}
			}
		})
	}
}

func TestASecretDoesNotShow(t *testing.T) {
	s := router.Secret("hunter2")
	j, err := s.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{
		fmt.Sprint(s), fmt.Sprintf("%v %s %q %#v %+v", s, s, s, s, struct{ S router.Secret }{s}), string(j), s.LogValue().String(),
		fmt.Sprintf("%+v", router.StartRequest{ClaimToken: s}),
	} {
		if want := "hunter2"; strings.Contains(got, want) {
			t.Errorf("secret shows in %q", got)
		}
	}
}
