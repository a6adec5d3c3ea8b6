package web_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
	"switchyard/router/web"
)

// openPostgres opens a database in PostgreSQL, which others may have open.
func openPostgres(t *testing.T, url string) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { must(t, st.Close()) })
	return st
}

// replica is a console like another, with the sessions of a database.
func replica(t *testing.T, c web.Config, url string) *server {
	c.Sessions = openPostgres(t, url).Sessions()
	return &server{t: t, handler: web.Handler(c)}
}

func TestWhoLogsInAtOneReplicaIsInAtAll(t *testing.T) {
	db := postgrestest.URL(t)
	var c web.Config
	a := guarded(t, func(served *web.Config) { served.Sessions = openPostgres(t, db).Sessions(); c = *served })
	b := replica(t, c, db)
	in := a.ask("POST", "/login", "", form("token", tokenOf("operator"), "next", "/jobs"))
	for name, s := range map[string]*server{"another replica": b, "one that starts later": replica(t, c, db)} {
		if got := s.ask("GET", "/jobs", "", cookies(in)); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), "<span>operator</span>") {
			t.Errorf("at %s GET /jobs = %d %s", name, got.Code, got.Body)
		}
	}
	if got := b.ask("POST", "/logout", "", form(), cookies(in)); got.Code != http.StatusSeeOther {
		t.Errorf("log out = %d %s", got.Code, got.Body)
	}
	if got := a.ask("GET", "/jobs", "", cookies(in)); got.Code != http.StatusSeeOther {
		t.Errorf("after the log-out at another replica GET /jobs = %d, want the login", got.Code)
	}
}

func TestALogInByOpenIDConnectEndsAtAnyReplicaAndOnce(t *testing.T) {
	db := postgrestest.URL(t)
	var c web.Config
	p, a := withOIDC(t, func(served *web.Config) { served.Sessions = openPostgres(t, db).Sessions(); c = *served })
	b := replica(t, c, db)
	person := map[string]any{"email": "mona@acme.example", "email_verified": true, "groups": []string{"web", "größe"}}
	p.claims = person
	begun := a.ask("GET", "/login/oidc?next=/jobs", "")
	at, err := url.Parse(begun.Header().Get("Location"))
	must(t, err)
	back := func(s *server) *httptest.ResponseRecorder {
		p.codes["c"] = at.Query()
		return s.ask("GET", "/login/callback?"+url.Values{"state": {at.Query().Get("state")}, "code": {"c"}}.Encode(), "", cookies(begun))
	}
	in := back(b)
	if in.Code != http.StatusSeeOther || in.Header().Get("Location") != "/jobs" {
		t.Fatalf("the callback at another replica = %d to %q: %s", in.Code, in.Header().Get("Location"), in.Body)
	}
	if got := a.ask("GET", "/jobs", "", cookies(in)); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), "<span>mona@acme.example</span>") {
		t.Errorf("where the login began GET /jobs = %d %s", got.Code, got.Body)
	}
	if got := a.ask("POST", "/api/v1/jobs/1/retry", "", cookies(in)); got.Code != http.StatusOK {
		t.Errorf("where the login began a retry = %d %s", got.Code, got.Body)
	}
	for name, s := range map[string]*server{"the replica that began it": a, "the one that finished it": b, "a third": replica(t, c, db)} {
		if got := back(s); got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), "already finished") {
			t.Errorf("the same login again at %s = %d %s", name, got.Code, got.Body)
		}
	}
}

// faulty sessions have one, of the viewer; what has an error fails with that.
type faulty struct{ read, begin, end, finish, key error }

func (f *faulty) Session(context.Context, [32]byte, time.Time, bool) (router.Session, error) {
	return router.Session{Token: sha256.Sum256([]byte(tokenOf("viewer")))}, f.read
}
func (f *faulty) BeginSession(context.Context, [32]byte, router.Session) error { return f.begin }
func (f *faulty) EndSession(context.Context, [32]byte) error                   { return f.end }
func (f *faulty) FinishLogin(context.Context, string, time.Time) (bool, error) { return true, f.finish }
func (f *faulty) LoginKey(context.Context) ([]byte, error)                     { return make([]byte, 32), f.key }

// A database that fails logs nobody out, and says what to do.
func TestNobodyIsLoggedOutByADatabaseThatFails(t *testing.T) {
	f := &faulty{}
	p, s := withOIDC(t, func(c *web.Config) { c.Sessions = f })
	p.claims = map[string]any{"email": "mona@acme.example", "groups": []string{"all"}}
	with := func(req *http.Request) { req.AddCookie(&http.Cookie{Name: "switchyard", Value: "x"}) }
	away := &router.FixError{Fix: "check that PostgreSQL runs", Err: errors.New("dial 10.0.0.9: refused")}
	refused := func(what string, got *httptest.ResponseRecorder, says string) {
		t.Helper()
		body := got.Body.String()
		if got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") != "5" || !strings.Contains(body, says) || !strings.Contains(body, "To fix it: check that PostgreSQL runs") || strings.Contains(body, "10.0.0.9") {
			t.Errorf("%s = %d %v %s", what, got.Code, got.Header(), body)
		}
		for _, c := range got.Result().Cookies() {
			if c.Name == "switchyard" {
				t.Errorf("%s sets the cookie %v", what, c)
			}
		}
	}
	f.read = away
	for _, path := range []string{"/", "/jobs", "/api/v1/jobs", "/nowhere"} {
		refused("GET "+path, s.ask("GET", path, "", with), "you are not logged out")
	}
	refused("a log-out", s.ask("POST", "/logout", "", form(), with), "you are not logged out")
	if got := s.ask("GET", "/login", "", with); got.Code != http.StatusOK {
		t.Errorf("the login page = %d %s", got.Code, got.Body)
	}
	if got := s.ask("GET", "/api/v1/jobs", "viewer", with); got.Code != http.StatusOK {
		t.Errorf("a request with a token = %d %s", got.Code, got.Body)
	}
	if got := s.ask("GET", "/jobs", ""); got.Code != http.StatusSeeOther {
		t.Errorf("a request without a cookie = %d %s", got.Code, got.Body)
	}
	*f = faulty{begin: away}
	refused("a log-in", s.ask("POST", "/login", "", form("token", tokenOf("viewer"))), "you are not logged in")
	refused("one by OpenID Connect", p.loggedIn(s), "you are not logged in")
	*f = faulty{finish: away}
	refused("one whose end is not recorded", p.loggedIn(s), "you are not logged in")
	*f = faulty{end: away}
	refused("a log-out that is not recorded", s.ask("POST", "/logout", "", form(), with), "your session has not ended")
	*f = faulty{}
	begun := s.ask("GET", "/login/oidc", "")
	f.key = away
	refused("one by OpenID Connect that begins without a key", s.ask("GET", "/login/oidc", ""), "the login cannot begin")
	refused("one that ends without a key", s.ask("GET", "/login/callback?state=x", "", cookies(begun)), "the login cannot begin or end")
	if log := s.log.String(); strings.Count(log, "the sessions of the console cannot be read or changed") != 1 || !strings.Contains(log, "10.0.0.9") {
		t.Errorf("the log is %s", log)
	}
}
