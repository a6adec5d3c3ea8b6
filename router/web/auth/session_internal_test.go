package auth

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Whoever logs in again and again ends sessions of their own.
func TestNobodyEndsTheSessionsOfOthers(t *testing.T) {
	acc := &Access{
		Tokens: []Token{{Name: "a", SHA256: Hash{1}, Role: Viewer}},
		OIDC:   &OIDC{Issuer: "https://login.example", Roles: []GroupRole{{Group: "all", Role: Viewer}}},
	}
	mona := session{person: person{issuer: "https://login.example", subject: "1", groups: []string{"all"}}}
	other := session{person: person{issuer: "https://login.example", subject: "2", groups: []string{"all"}}}
	var s sessions
	begin := func(one session, at time.Time) *http.Request {
		rec := httptest.NewRecorder()
		s.begin(rec, httptest.NewRequest(http.MethodGet, "/", nil), one, at)
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.AddCookie(rec.Result().Cookies()[0])
		return req
	}
	now := time.Now()
	of := []*http.Request{begin(session{token: Hash{1}}, now), begin(other, now)}
	first := begin(mona, now)
	for range maxOwn + 10 {
		now = now.Add(time.Second)
		begin(mona, now)
	}
	last := begin(mona, now)
	for _, req := range append(of, last) {
		if p := s.principal(req, acc, now, true); p.Role != Viewer {
			t.Errorf("a session was ended by those of somebody else: %+v", p)
		}
	}
	if p := s.principal(first, acc, now, true); p.Role != 0 || len(s.by) != maxOwn+2 {
		t.Errorf("the oldest of %d sessions is %+v", len(s.by), p)
	}
}
