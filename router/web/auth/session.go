package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"switchyard/router"
	"switchyard/router/web/problem"
)

const sessionName = "switchyard" // of the cookie

// A SessionStore keeps who is logged in, for one process or for several that share it. A
// session is known by the SHA-256 of what its cookie holds. It is safe for concurrent use.
type SessionStore interface {
	// Session returns a session; router.ErrNotFound when there is none or it is over. If the
	// request counts as use, the session lasts longer; that may be recorded a minute late.
	Session(ctx context.Context, cookie [32]byte, now time.Time, used bool) (router.Session, error)

	// BeginSession keeps a new session. If there are router.MaxSessions already, or
	// router.MaxOwnSessions of its holder, the ones that were used longest ago go.
	BeginSession(ctx context.Context, cookie [32]byte, s router.Session) error

	// EndSession ends a session, if there is one.
	EndSession(ctx context.Context, cookie [32]byte) error

	// FinishLogin records that the provider confirmed the login with this state, and reports
	// whether it had not before, within router.LoginPending.
	FinishLogin(ctx context.Context, state string, now time.Time) (first bool, err error)

	// LoginKey returns the key of the cookies of logins under way: 32 bytes, always the same.
	LoginKey(ctx context.Context) ([]byte, error)
}

// A memory is the SessionStore of one process. Everybody is logged out when that ends.
type memory struct {
	key []byte

	mu       sync.Mutex
	sessions map[[32]byte]*router.Session
	finished map[string]time.Time // by state
}

func newMemory() *memory {
	m := &memory{key: make([]byte, 32), sessions: map[[32]byte]*router.Session{}, finished: map[string]time.Time{}}
	_, _ = rand.Read(m.key) // it never fails: https://pkg.go.dev/crypto/rand#Read
	return m
}

func (m *memory) LoginKey(context.Context) ([]byte, error) { return m.key, nil }

func (m *memory) Session(_ context.Context, cookie [32]byte, now time.Time, used bool) (router.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.sessions[cookie]
	if one == nil || one.Over(now) {
		delete(m.sessions, cookie)
		return router.Session{}, router.ErrNotFound
	}
	if used {
		one.Used = now
	}
	return *one, nil
}

func (m *memory) BeginSession(_ context.Context, cookie [32]byte, s router.Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropOldest(&s)
	if len(m.sessions) >= router.MaxSessions {
		used := make([]time.Time, 0, len(m.sessions))
		for _, other := range m.sessions {
			used = append(used, other.Used)
		}
		slices.SortFunc(used, time.Time.Compare)
		for key, other := range m.sessions {
			if !other.Used.After(used[len(used)/10]) {
				delete(m.sessions, key)
			}
		}
	}
	m.sessions[cookie] = &s
	return nil
}

// dropOldest ends the session that the holder of a new one used longest ago, if
// they have many. mu is held.
func (m *memory) dropOldest(one *router.Session) {
	own, oldest := 0, [32]byte{}
	for key, other := range m.sessions {
		if !other.SameHolder(one) {
			continue
		}
		if own++; own == 1 || other.Used.Before(m.sessions[oldest].Used) {
			oldest = key
		}
	}
	if own >= router.MaxOwnSessions {
		delete(m.sessions, oldest)
	}
}

func (m *memory) EndSession(_ context.Context, cookie [32]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, cookie)
	return nil
}

const maxFinished = 10_000 // logins that are remembered

func (m *memory) FinishLogin(_ context.Context, state string, now time.Time) (first bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, again := m.finished[state]; again {
		return false, nil
	}
	if len(m.finished) >= maxFinished {
		maps.DeleteFunc(m.finished, func(_ string, at time.Time) bool { return now.Sub(at) > router.LoginPending })
	}
	if len(m.finished) >= maxFinished {
		clear(m.finished) // the provider, too, takes each code once
	}
	m.finished[state] = now
	return true, nil
}

// session returns whose session a request has, by what access says now. The
// session lasts longer for it if the request counts as use.
func (g *Guard) session(req *http.Request, access *Access, used bool) Principal {
	cookie, err := req.Cookie(cookieName(req, sessionName))
	if err != nil {
		return Principal{}
	}
	ctx, cancel := context.WithTimeout(req.Context(), router.StoreTimeout)
	defer cancel()
	s, err := g.config.Sessions.Session(ctx, sha256.Sum256([]byte(cookie.Value)), g.config.Now(), used)
	switch {
	case errors.Is(err, router.ErrNotFound):
		return Principal{}
	case err != nil:
		return Principal{unread: g.sessionFailed(req, err, "your session is in the database, which does not answer; you are not logged out")}
	}
	p := access.holder(s)
	p.In = p.Role != 0
	return p
}

// holder returns the principal of a session, by what the file says now.
func (acc *Access) holder(s router.Session) Principal {
	if s.Token == (Hash{}) {
		return acc.person(s.Person)
	}
	for _, t := range acc.Tokens {
		if t.SHA256 == s.Token {
			return t.principal()
		}
	}
	return Principal{} // its token is good no more
}

// beginSession logs somebody in, and ends the session that the browser had.
func (g *Guard) beginSession(w http.ResponseWriter, req *http.Request, s router.Session) error {
	if err := g.endSession(w, req); err != nil {
		return err
	}
	id := rand.Text() + rand.Text() // 260 bits
	s.Begun = g.config.Now()
	s.Used = s.Begun
	ctx, cancel := context.WithTimeout(req.Context(), router.StoreTimeout)
	defer cancel()
	if err := g.config.Sessions.BeginSession(ctx, sha256.Sum256([]byte(id)), s); err != nil {
		return g.sessionFailed(req, err, notLoggedIn)
	}
	http.SetCookie(w, newCookie(req, sessionName, id, 0))
	return nil
}

// endSession ends the session of a request.
func (g *Guard) endSession(w http.ResponseWriter, req *http.Request) error {
	cookie, err := req.Cookie(cookieName(req, sessionName))
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(req.Context(), router.StoreTimeout)
	defer cancel()
	if err := g.config.Sessions.EndSession(ctx, sha256.Sum256([]byte(cookie.Value))); err != nil {
		return g.sessionFailed(req, err, "your session has not ended: the database cannot record it")
	}
	http.SetCookie(w, newCookie(req, sessionName, "", -1))
	return nil
}

const (
	sessionRetry = 5 * time.Second
	notLoggedIn  = "you are not logged in: the database cannot record it"
)

// sessionFailed returns how a request is answered for which the SessionStore failed; the log
// says why.
func (g *Guard) sessionFailed(req *http.Request, err error, what string) error {
	if problem.GaveUp(req.Context()) {
		return problem.Canceled()
	}
	fix := router.StoreFix(err)
	g.sessionFailures.Do(func() {
		g.config.Logger.Error("the sessions of the console cannot be read or changed; logged at most once a minute", "err", err, "fix", fix)
	})
	return problem.Later(http.StatusServiceUnavailable, sessionRetry, "%s. To fix it: %s", what, fix)
}

// cookieName has the prefix by which a browser takes the cookie from no other
// host and no page without TLS.
func cookieName(req *http.Request, name string) string {
	if Secure(req) {
		return "__Host-" + name
	}
	return name
}

func newCookie(req *http.Request, name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName(req, name), Value: value, Path: "/", MaxAge: maxAge,
		Secure: Secure(req), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// A budget bounds how often something is done, for each of many and for all
// together. It is safe for concurrent use.
type budget struct {
	every, allEvery time.Duration // one each, for one of them and for all
	burst, allBurst int           // at once

	mu  sync.Mutex
	of  map[string]*rate.Limiter
	all *rate.Limiter
}

const maxBudgets = 10_000 // of one kind; then all start again

const wrongTokenEvery = 6 * time.Second

// take uses up one of those that somebody has, if there is one.
func (b *budget) take(whose string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil || len(b.of) >= maxBudgets {
		b.of = map[string]*rate.Limiter{}
		b.all = cmp.Or(b.all, rate.NewLimiter(rate.Every(b.allEvery), b.allBurst))
	}
	one := b.of[whose]
	if one == nil {
		one = rate.NewLimiter(rate.Every(b.every), b.burst)
		b.of[whose] = one
	}
	return one.AllowN(now, 1) && b.all.AllowN(now, 1)
}

// source returns the address that a request comes from; of IPv6, the network of it,
// within which one machine has as many addresses as it likes.
func source(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	addr := at.Addr().Unmap()
	if addr.Is6() {
		if network, err := addr.Prefix(64); err == nil {
			return network.String()
		}
	}
	return addr.String()
}

const maxNext = 1 << 10 // a login under way keeps where to go then, in a cookie

// localPath returns where to go after the login: a path of this server, or the
// first page. Browsers drop tabs and line breaks from a URL, and read \ as /.
func localPath(next string) string {
	odd := func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f }
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsFunc(next, odd) || strings.HasPrefix(next, loginPath) || len(next) > maxNext {
		return "/"
	}
	return next
}
