package auth

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
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
	maxOwn       = 1000 // sessions of one token or person, who so ends none of others'
	sessionName  = "switchyard"
)

// sessions are those who logged in with a browser. They end with the process.
// The zero value is ready; it is safe for concurrent use.
type sessions struct {
	mu sync.Mutex
	by map[[32]byte]*session // by the hash of what the cookie holds
}

type session struct {
	token       Hash   // with which somebody logged in
	person      person // who logged in by OpenID Connect
	begun, used time.Time
}

// sameHolder reports whether both are of the same token or person.
func (s *session) sameHolder(other *session) bool {
	return s.token == other.token && s.person.issuer == other.person.issuer && s.person.subject == other.person.subject
}

// principal returns whose session a request has, by what access says now. The
// session lasts longer for it if the request counts as use.
func (s *sessions) principal(req *http.Request, access *Access, now time.Time, used bool) Principal {
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
	if used {
		one.used = now
	}
	p := one.principal(access)
	p.In = p.Role != 0
	return p
}

func (s *session) principal(access *Access) Principal {
	if s.token == (Hash{}) {
		return access.person(s.person)
	}
	for _, t := range access.Tokens {
		if t.SHA256 == s.token {
			return t.principal()
		}
	}
	return Principal{} // its token is good no more
}

// begin logs somebody in, and ends the session that the browser had.
func (s *sessions) begin(w http.ResponseWriter, req *http.Request, one session, now time.Time) {
	s.end(w, req)
	id := rand.Text() + rand.Text() // 260 bits
	one.begun, one.used = now, now
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[[32]byte]*session{}
	}
	s.dropOldest(&one)
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

// dropOldest ends the session that the holder of a new one used longest ago, if
// they have many. mu is held.
func (s *sessions) dropOldest(one *session) {
	own, oldest := 0, [32]byte{}
	for key, other := range s.by {
		if !other.sameHolder(one) {
			continue
		}
		if own++; own == 1 || other.used.Before(s.by[oldest].used) {
			oldest = key
		}
	}
	if own >= maxOwn {
		delete(s.by, oldest)
	}
}

// end ends the session of a request.
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
