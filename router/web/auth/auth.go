// Package auth owns who may do what over HTTP: access tokens and the access
// file, sessions, logging in by token or OpenID Connect, and what of it the audit
// trail records. Package web puts a Guard before the console and the API; their
// handlers ask Who makes a request.
package auth

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"golang.org/x/time/rate"

	"switchyard/router"
	"switchyard/router/web/problem"
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

// String returns the role's name in the access file.
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

// The names in the audit trail of those who are neither a token nor a person.
const (
	somebody     = "somebody" // nobody known
	loopbackName = "local"    // anyone on this machine, when the server asks for no token
	AdminToken   = "the admin token"
)

// A Principal is who makes a request. The zero value is somebody unknown, who
// may do nothing.
type Principal struct {
	Name  string // of a token or a person; nobody can choose a token's or another person's name
	By    string // how the name is known: byToken, byMachine, or the issuer and subject of an ID token; "": it is not
	Role  Role
	Scope router.Scope // the repositories they see; nil: all
	In    bool         // they are logged in with a session, which can be ended

	unread error // what a request that needs a role is answered with: nobody knows who makes it
}

const (
	byToken   = "token"
	byMachine = "this machine"
)

type principalKey struct{}

// Who returns who makes the request of ctx.
func Who(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// With returns a context of a request that p makes.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// A Config says what a Guard needs.
type Config struct {
	// Access says who may do what. It is called for each request, so it can
	// change; what it returns must not be changed. nil: everybody may do
	// everything, but a request must name this machine as its host, so that no
	// web page reaches the server under a name of its own.
	Access func() (*Access, error)

	Audit interface { // nil: what people do is only logged
		Audit(ctx context.Context, a router.Audit) error
	}

	Sessions SessionStore // nil: of this process

	// Background reports whether an open page made the request by itself, so
	// that it keeps nobody logged in. Required.
	Background func(*http.Request) bool

	Fail      func(w http.ResponseWriter, req *http.Request, err error)              // answers with an error; required
	LoginPage func(w http.ResponseWriter, req *http.Request, status int, form Login) // answers with the login page; required

	Logger *slog.Logger     // required
	Now    func() time.Time // required
}

// A Guard decides who makes each request and whether they may. It is safe for
// concurrent use.
type Guard struct {
	config          Config
	logins          logins
	sessionFailures rate.Sometimes // how often the log says that the SessionStore fails
	wrongTokens     *budget
	refusalQuota    *quota
	sessionQuota    *quota
}

// New returns a Guard.
func New(c Config) *Guard {
	if c.Sessions == nil {
		c.Sessions = newMemory()
	}
	return &Guard{
		config: c, logins: logins{failures: rate.Sometimes{Interval: time.Minute}}, sessionFailures: rate.Sometimes{Interval: time.Minute},
		wrongTokens: &budget{every: wrongTokenEvery, burst: 10, allEvery: 100 * time.Millisecond, allBurst: 200}, // by address
		// Of strangers, at most 8,640 a day are recorded.
		refusalQuota: &quota{budget: &budget{every: time.Minute, burst: 10, allEvery: 10 * time.Second, allBurst: 100}},
		// Many people may have one token, and all come in the morning.
		sessionQuota: &quota{budget: &budget{every: 10 * time.Second, burst: 100, allEvery: time.Second, allBurst: 1000}},
	}
}

// Identify wraps the whole server: it finds out who makes each request, and
// refuses requests that other sites' pages make and those with a wrong token.
func (g *Guard) Identify(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		p, err := g.identify(req, !g.config.Background(req))
		if err == nil && cross.Check(req) != nil {
			err = problem.New(http.StatusForbidden, "this request comes from another site's page")
		}
		req = req.WithContext(With(router.ByOperator(req.Context(), p.Name), p))
		if err != nil {
			g.config.Fail(w, req, err)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// Only lets those through that have at least the role. Others are refused; if
// they are unknown and ask for a page, they are sent to the login page.
func (g *Guard) Only(role Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		p := Who(req.Context())
		switch {
		case p.unread != nil:
			g.config.Fail(w, req, p.unread)
		case p.Role >= role:
			next.ServeHTTP(w, req)
		case p.Role != 0:
			g.config.Fail(w, req, p.Need(role))
		case !strings.HasPrefix(req.URL.Path, "/api/") && req.Method != http.MethodPost:
			http.Redirect(w, req, loginPath+"?"+url.Values{"next": {req.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
		default:
			g.config.Fail(w, req, noToken())
		}
	})
}

// Need returns the error that p lacks the role; nil: p has it.
func (p Principal) Need(role Role) error {
	if p.Role >= role {
		return nil
	}
	return problem.New(http.StatusForbidden, "%s has the role %s; this needs the role %s", p.Name, p.Role, role)
}

// Unchanged reports whether the principal of a long request still may see what p may.
func (g *Guard) Unchanged(req *http.Request, p Principal) bool {
	now, err := g.identify(req, false)
	return err == nil && now.Role >= Viewer && (now.Scope == nil) == (p.Scope == nil) && slices.Equal(now.Scope, p.Scope)
}

func noToken() error {
	return problem.New(http.StatusUnauthorized, "the API needs the header Authorization: Bearer with a token of the server's --access file, or its --admin-token-file")
}

// identify returns who makes a request. Nobody known is no error; a wrong token
// is. used says that the request counts as use of its session.
func (g *Guard) identify(req *http.Request, used bool) (Principal, error) {
	if g.config.Access == nil {
		if !router.LocalHost(req.Host) {
			return Principal{}, problem.New(http.StatusForbidden, "without a token, use localhost or an IP address as the host, not %q", req.Host)
		}
		return Principal{Name: loopbackName, By: byMachine, Role: Editor}, nil
	}
	access, err := g.config.Access()
	if err != nil {
		return Principal{}, fmt.Errorf("read who may use the API: %w", err)
	}
	header := req.Header.Get("Authorization")
	if header == "" {
		return g.session(req, access, used), nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	t := access.token(token)
	if t == nil || !strings.EqualFold(scheme, "Bearer") {
		err := noToken()
		if short := CheckToken(token); short != nil && token != "" {
			err = problem.New(http.StatusUnauthorized, "%v", short)
		}
		if late := g.limitWrongTokens(req); late != nil {
			err = late
		}
		return Principal{}, err
	}
	return t.principal(), nil
}

// limitWrongTokens returns an error when too many wrong tokens came from a
// request's address. It never holds up a right one: behind a proxy all requests
// have its address.
func (g *Guard) limitWrongTokens(req *http.Request) error {
	if g.wrongTokens.take(source(req.RemoteAddr), g.config.Now()) {
		return nil
	}
	return problem.Later(http.StatusTooManyRequests, wrongTokenEvery, "too many wrong tokens came from here; try again in %v", wrongTokenEvery)
}

// Routes adds the pages that log people in and out. They are open to everybody.
func (g *Guard) Routes(r *mux.Router) {
	for path, do := range map[string]http.HandlerFunc{loginPath: g.loginForm, loginPath + "/oidc": g.startOIDC, oidcCallback: g.oidcCallback} {
		r.Handle(path, do).Methods(http.MethodGet, http.MethodHead)
	}
	r.HandleFunc(loginPath, g.logIn).Methods(http.MethodPost)
	r.Handle("/logout", g.Only(Viewer, http.HandlerFunc(g.logOut))).Methods(http.MethodPost)
}

// Secure reports whether a browser made the request over TLS, as far as the
// server or a proxy before it says. A client that lies about it harms only
// itself: it decides about the cookies and headers of the answer.
func Secure(req *http.Request) bool {
	return req.TLS != nil || strings.EqualFold(req.Header.Get("X-Forwarded-Proto"), "https")
}
