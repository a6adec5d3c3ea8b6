package web

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	sessionLasts = 12 * time.Hour
	sessionIdle  = time.Hour
	maxSessions  = 10_000
	sessionName  = "switchyard"
)

// sessions are those who logged in with a browser. They end with the process.
// The zero value is ready; it is safe for concurrent use.
type sessions struct {
	mu sync.Mutex
	by map[[32]byte]*session // by the hash of what the cookie holds
}

type session struct {
	name        string
	token       Hash     // of who logged in by a token
	groups      []string // of who logged in by OpenID Connect
	issuer      string   // of the provider that says so
	begun, used time.Time
}

// principal is who the session of a request is of, by what access says now.
func (s *sessions) principal(req *http.Request, access *Access, now time.Time) Principal {
	cookie, err := req.Cookie(cookieName(req, sessionName))
	if err != nil {
		return Principal{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sha256.Sum256([]byte(cookie.Value))
	one := s.by[key]
	if one == nil {
		return Principal{}
	}
	if now.Sub(one.begun) > sessionLasts || now.Sub(one.used) > sessionIdle {
		delete(s.by, key)
		return Principal{}
	}
	one.used = now
	p := one.principal(access)
	p.In = p.Role != 0
	return p
}

func (s *session) principal(access *Access) Principal {
	if s.token == (Hash{}) {
		if access.OIDC == nil || access.OIDC.Issuer != s.issuer {
			return Principal{} // groups of another provider mean nothing here
		}
		return access.OIDC.principal(s.name, s.groups)
	}
	for _, t := range access.Tokens {
		if t.SHA256 == s.token {
			return t.principal()
		}
	}
	return Principal{} // its token is good no more
}

// begin logs somebody in, in place of whoever was.
func (s *sessions) begin(w http.ResponseWriter, req *http.Request, one session, now time.Time) {
	s.end(w, req)
	id := rand.Text() + rand.Text() // 260 bits
	one.begun, one.used = now, now
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[[32]byte]*session{}
	}
	if len(s.by) >= maxSessions { // the ones that were used longest ago go
		used := make([]time.Time, 0, len(s.by))
		for _, other := range s.by {
			used = append(used, other.used)
		}
		slices.SortFunc(used, time.Time.Compare)
		for key, other := range s.by {
			if !other.used.After(used[len(used)/10]) {
				delete(s.by, key)
			}
		}
	}
	s.by[sha256.Sum256([]byte(id))] = &one
	http.SetCookie(w, newCookie(req, sessionName, id, 0))
}

// end logs out whoever a request is of.
func (s *sessions) end(w http.ResponseWriter, req *http.Request) {
	if cookie, err := req.Cookie(cookieName(req, sessionName)); err == nil {
		s.mu.Lock()
		delete(s.by, sha256.Sum256([]byte(cookie.Value)))
		s.mu.Unlock()
		http.SetCookie(w, newCookie(req, sessionName, "", -1))
	}
}

// cookieName has the prefix by which a browser takes the cookie from no other
// host and no page without TLS.
func cookieName(req *http.Request, name string) string {
	if secure(req) {
		return "__Host-" + name
	}
	return name
}

func newCookie(req *http.Request, name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName(req, name), Value: value, Path: "/", MaxAge: maxAge,
		Secure: secure(req), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// guesses bounds how often tokens may be wrong. The zero value is ready; it is
// safe for concurrent use.
type guesses struct {
	mu   sync.Mutex
	from map[string]*rate.Limiter // by address
	all  *rate.Limiter
}

const (
	guessEvery    = 6 * time.Second // from one address
	guessBurst    = 10
	guessAllEvery = 100 * time.Millisecond // from all
	guessAllBurst = 200
	maxGuessers   = 10_000
)

// take uses up one guess of the address that a request comes from; the error
// says when there is another.
func (g *guesses) take(req *http.Request) error {
	host := source(req.RemoteAddr)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == nil || len(g.from) >= maxGuessers {
		g.from = map[string]*rate.Limiter{}
		g.all = cmp.Or(g.all, rate.NewLimiter(rate.Every(guessAllEvery), guessAllBurst))
	}
	one := g.from[host]
	if one == nil {
		one = rate.NewLimiter(rate.Every(guessEvery), guessBurst)
		g.from[host] = one
	}
	if !one.Allow() || !g.all.Allow() {
		return &limited{guessEvery}
	}
	return nil
}

// source is the address that a request comes from; of IPv6, the network of it,
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

// limited is that somebody has to wait.
type limited struct{ wait time.Duration }

func (l *limited) Error() string {
	return fmt.Sprintf("too many wrong tokens or log-ins came from here; try again in %s", took(l.wait))
}

const maxNext = 2 << 10 // a log-in under way keeps where to go then

// localPath is where to go after the log-in: a path of this server, or the
// first page. Browsers drop tabs and line breaks from a URL, and read \ as /.
func localPath(next string) string {
	odd := func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f }
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsFunc(next, odd) || strings.HasPrefix(next, loginPath) || len(next) > maxNext {
		return "/"
	}
	return next
}
