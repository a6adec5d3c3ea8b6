package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"switchyard/router"
)

// A Role is what somebody may do. Each may do what those before it may.
type Role int

// The roles.
const (
	Viewer   Role = iota + 1 // look
	Operator                 // retry and cancel jobs, stop runners
	Editor                   // change the rules, and see who changed what
)

var roleNames = []string{"", "viewer", "operator", "editor"}

// String is the role's name in the access file.
func (r Role) String() string { return roleNames[r] }

// MarshalText writes the role's name, UnmarshalText reads it.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
func (r *Role) UnmarshalText(text []byte) error {
	i := slices.Index(roleNames, string(text))
	if i < int(Viewer) {
		return fmt.Errorf("role %q: want viewer, operator or editor", text)
	}
	*r = Role(i)
	return nil
}

// Who some are in the audit trail, besides tokens and people.
const (
	somebody     = "somebody" // nobody known
	loopbackName = "local"    // whoever is on this machine, of a server that asks for no token
	AdminToken   = "the admin token"
)

// A Principal is who makes a request. The zero value is somebody unknown, who
// may do nothing.
type Principal struct {
	Name  string // of a token or a person: none that a person can choose is a token's, or another person's
	By    string // how that is known: byToken, byMachine, or the issuer and subject of an ID token; "": it is not
	Role  Role
	Scope router.Scope // what is seen; nil: everything
	In    bool         // by a session, which can be ended
}

const (
	byToken   = "token"
	byMachine = "this machine"
)

type principalKey struct{}

// who is who makes the request that ctx is of.
func who(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// guard says who makes each request, and refuses those of other sites' pages.
// Bearers of a wrong token get no further.
func (a *api) guard(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", policy)
		if secure(req) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		req.Body = http.MaxBytesReader(w, req.Body, bodyLimit(req.URL.Path))
		p, err := a.allowed(req, !quiet(req))
		if err == nil && cross.Check(req) != nil {
			err = refuse(http.StatusForbidden, "this request comes from another site's page")
		}
		req = req.WithContext(context.WithValue(router.ByOperator(req.Context(), p.Name), principalKey{}, p))
		if err != nil {
			a.fail(w, req, err)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// only lets those through that have at least the role. Whoever is unknown is
// sent to the log-in page, if it is a page that they ask for.
func (a *api) only(role Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		p := who(req.Context())
		switch {
		case p.Role >= role:
			next.ServeHTTP(w, req)
		case p.Role != 0:
			a.fail(w, req, refuse(http.StatusForbidden, "%s has the role %s; this needs the role %s", p.Name, p.Role, role))
		case page(req) && req.Method != http.MethodPost:
			http.Redirect(w, req, loginPath+"?"+url.Values{"next": {req.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
		default:
			a.fail(w, req, anonymous())
		}
	})
}

// wrongToken returns err, or that too many wrong tokens came from where a request
// does. A right one is never held up by them: behind a proxy all have its address.
func (a *api) wrongToken(req *http.Request, err error) error {
	if !a.guesses.take(source(req.RemoteAddr), a.Now()) {
		return &limited{guessEvery}
	}
	return err
}

func anonymous() error {
	return refuse(http.StatusUnauthorized, "the API needs the header Authorization: Bearer with a token of the server's --access file, or its --admin-token-file")
}

// refreshHeader is set by the console's script on what it asks by itself.
const refreshHeader = "X-Switchyard-Refresh"

// quiet reports whether a request is the console's own doing, as that of a live
// page is: it keeps nobody logged in.
func quiet(req *http.Request) bool {
	return req.Header.Get(refreshHeader) != "" || req.URL.Path == Prefix+"/events"
}

// allowed says who makes a request: nobody known is no error, a wrong token is.
// used says that it counts as use of a session.
func (a *api) allowed(req *http.Request, used bool) (Principal, error) {
	if a.Access == nil {
		if !router.LocalHost(req.Host) {
			return Principal{}, refuse(http.StatusForbidden, "without a token the API is asked as localhost or by address, not as %q", req.Host)
		}
		return Principal{Name: loopbackName, By: byMachine, Role: Editor}, nil
	}
	access, err := a.Access()
	if err != nil {
		return Principal{}, fmt.Errorf("read who may use the API: %w", err)
	}
	header := req.Header.Get("Authorization")
	if header == "" {
		return a.sessions.principal(req, access, a.Now(), used), nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	t := access.token(token)
	if t == nil || !strings.EqualFold(scheme, "Bearer") {
		err := anonymous()
		if short := CheckToken(token); short != nil && token != "" {
			err = refuse(http.StatusUnauthorized, "%v", short)
		}
		return Principal{}, a.wrongToken(req, err)
	}
	return t.principal(), nil
}

// token is the one that somebody shows; nil: it is none of these. It compares
// with all of them, in the same time wherever the right one stands. One that is
// easily guessed is none, though its hash may stand in the file.
func (acc *Access) token(shown string) *Token {
	if CheckToken(shown) != nil {
		return nil
	}
	sum := sha256.Sum256([]byte(shown))
	var found *Token
	for i := range acc.Tokens {
		if subtle.ConstantTimeCompare(sum[:], acc.Tokens[i].SHA256[:]) == 1 {
			found = &acc.Tokens[i]
		}
	}
	return found
}

func (t *Token) principal() Principal {
	return Principal{Name: t.Name, By: byToken, Role: t.Role, Scope: t.Repos}
}

// secure reports whether a browser made the request over TLS, as far as the
// server or a proxy before it says. Who lies about it harms nobody else: it
// decides about the cookies and headers of the answer.
func secure(req *http.Request) bool {
	return req.TLS != nil || strings.EqualFold(req.Header.Get("X-Forwarded-Proto"), "https")
}
