package auth

import (
	"errors"
	"testing"
	"time"

	"switchyard/router"
)

// Whoever logs in again and again ends sessions of their own.
func TestNobodyEndsTheSessionsOfOthers(t *testing.T) {
	const issuer = "https://login.example"
	m, now, n := newMemory(), time.Now(), 0
	begin := func(s router.Session) [32]byte {
		n++
		cookie := [32]byte{byte(n), byte(n >> 8)}
		s.Begun, s.Used = now, now
		if err := m.BeginSession(t.Context(), cookie, s); err != nil {
			t.Error(err)
		}
		return cookie
	}
	mona := router.Session{Person: router.Person{Issuer: issuer, Subject: "1"}}
	of := [][32]byte{begin(router.Session{Token: Hash{1}}), begin(router.Session{Person: router.Person{Issuer: issuer, Subject: "2"}})}
	first := begin(mona)
	for range router.MaxOwnSessions + 10 {
		now = now.Add(time.Second)
		begin(mona)
	}
	for _, cookie := range append(of, begin(mona)) {
		if _, err := m.Session(t.Context(), cookie, now, true); err != nil {
			t.Errorf("a session was ended by those of somebody else: %v", err)
		}
	}
	if _, err := m.Session(t.Context(), first, now, true); !errors.Is(err, router.ErrNotFound) || len(m.sessions) != router.MaxOwnSessions+2 {
		t.Errorf("the oldest of %d sessions: %v", len(m.sessions), err)
	}
}
