package web

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"switchyard/router"
)

const (
	oidcTimeout  = 10 * time.Second
	oidcPending  = 10 * time.Minute // for the log-in at the provider
	maxPending   = 10_000           // more than guesses let begin meanwhile
	maxGroups    = 1000
	oidcCallback = loginPath + "/callback"
	stateName    = "switchyard-login"
)

// logins are those under way at an OpenID Connect provider. The zero value is
// ready; it is safe for concurrent use.
type logins struct {
	mu       sync.Mutex
	pending  map[string]pendingLogin // by state
	provider *oidc.Provider          // nil: not asked yet
	of       string                  // its issuer
}

type pendingLogin struct {
	issuer                string
	nonce, verifier, next string
	begun                 time.Time
}

// config asks the provider, once, where to log in.
func (l *logins) config(ctx context.Context, o *OIDC) (*oidc.Provider, *oauth2.Config, error) {
	l.mu.Lock()
	provider := l.provider
	if l.of != o.Issuer {
		provider = nil
	}
	l.mu.Unlock()
	if provider == nil {
		// The provider keeps the client of this context for its keys, not its end.
		asked, err := oidc.NewProvider(oidc.ClientContext(ctx, &http.Client{Timeout: oidcTimeout}), o.Issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("ask the OpenID Connect provider %s: %w", o.Issuer, err)
		}
		l.mu.Lock()
		provider, l.provider, l.of = asked, asked, o.Issuer
		l.mu.Unlock()
	}
	secret := ""
	if o.ClientSecretFile != "" {
		b, err := os.ReadFile(o.ClientSecretFile)
		if err != nil {
			return nil, nil, fmt.Errorf("read the client secret: %w", err)
		}
		secret = strings.TrimSpace(string(b))
	}
	scopes := o.Scopes
	if scopes == nil {
		scopes = []string{"profile", "email", "groups"}
	}
	return provider, &oauth2.Config{
		ClientID: o.ClientID, ClientSecret: secret, Endpoint: provider.Endpoint(),
		RedirectURL: strings.TrimSuffix(o.URL, "/") + oidcCallback, Scopes: append([]string{oidc.ScopeOpenID}, scopes...),
	}, nil
}

// oidc is the provider that people log in by; a Problem when there is none.
func (a *api) oidc() (*OIDC, error) {
	if a.Access != nil {
		access, err := a.Access()
		if err != nil {
			return nil, err
		}
		if access.OIDC != nil {
			return access.OIDC, nil
		}
	}
	return nil, refuse(http.StatusNotFound, "there is no such page")
}

// goLogIn sends a browser to the provider.
func (a *api) goLogIn(w http.ResponseWriter, req *http.Request) {
	o, err := a.oidc()
	if err == nil {
		err = a.guesses.take(req) // each takes a place of those under way
	}
	if err != nil {
		a.fail(w, req, err)
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), oidcTimeout)
	defer cancel()
	_, config, err := a.logins.config(ctx, o)
	if err != nil {
		a.away(w, req, err)
		return
	}
	state, p := rand.Text(), pendingLogin{issuer: o.Issuer, nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), next: localPath(req.FormValue("next")), begun: a.Now()}
	if !a.logins.add(state, p) {
		a.fail(w, req, refuse(http.StatusServiceUnavailable, "too many log in at the moment; try again in some minutes"))
		return
	}
	// The cookie binds the answer to the browser that asked.
	http.SetCookie(w, newCookie(req, stateName, state, int(oidcPending/time.Second)))
	http.Redirect(w, req, config.AuthCodeURL(state, oidc.Nonce(p.nonce), oauth2.S256ChallengeOption(p.verifier)), http.StatusSeeOther)
}

func (l *logins) add(state string, p pendingLogin) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other, old := range l.pending {
		if p.begun.Sub(old.begun) > oidcPending {
			delete(l.pending, other)
		}
	}
	if len(l.pending) >= maxPending {
		return false
	}
	if l.pending == nil {
		l.pending = map[string]pendingLogin{}
	}
	l.pending[state] = p
	return true
}

// take ends a log-in that is under way: each state is good for one answer.
func (l *logins) take(state string, now time.Time) (pendingLogin, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.pending[state]
	delete(l.pending, state)
	return p, ok && now.Sub(p.begun) <= oidcPending
}

// away answers that the provider cannot be asked; the log has the words.
func (a *api) away(w http.ResponseWriter, req *http.Request, err error) {
	a.Logger.Error("nobody can log in by OpenID Connect", "err", err)
	a.login(w, req, http.StatusBadGateway, "The OpenID Connect provider did not answer as it should; the server's log says why. A token works.")
}

// cameBack begins a session of whoever the provider says has logged in.
func (a *api) cameBack(w http.ResponseWriter, req *http.Request) {
	o, err := a.oidc()
	if err != nil {
		a.fail(w, req, err)
		return
	}
	state := req.FormValue("state")
	cookie, err := req.Cookie(cookieName(req, stateName))
	bound := err == nil && subtle.ConstantTimeCompare([]byte(cookie.Value), []byte(state)) == 1
	p, ok := pendingLogin{}, false
	if bound { // who has not the cookie spends nothing
		p, ok = a.logins.take(state, a.Now())
	}
	ok = ok && p.issuer == o.Issuer
	http.SetCookie(w, newCookie(req, stateName, "", -1))
	if !ok {
		a.login(w, req, http.StatusBadRequest, "This log-in was not begun in this browser, or too long ago. Begin anew.")
		return
	}
	if said := req.FormValue("error"); said != "" {
		a.record(req, "somebody", "log in", "", "the provider said "+shown(said))
		a.login(w, req, http.StatusUnauthorized, "The OpenID Connect provider refused: "+shown(said)+".")
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), oidcTimeout)
	defer cancel()
	name, groups, err := a.logins.exchange(ctx, o, p, req.FormValue("code"))
	if err != nil {
		a.away(w, req, err)
		return
	}
	if o.principal(name, groups).Role == 0 {
		a.record(req, name, "log in", "", "none of the groups has a role")
		a.login(w, req, http.StatusForbidden, fmt.Sprintf("%s is in %d groups, none of which has a role here. The roles stand in the server's --access file.", name, len(groups)))
		return
	}
	a.sessions.begin(w, req, session{name: name, groups: groups, issuer: o.Issuer}, a.Now())
	a.record(req, name, "log in", "", resultOK)
	http.Redirect(w, req, p.next, http.StatusSeeOther)
}

// exchange turns the provider's code into who that is.
func (l *logins) exchange(ctx context.Context, o *OIDC, p pendingLogin, code string) (name string, groups []string, err error) {
	provider, config, err := l.config(ctx, o)
	if err != nil {
		return "", nil, err
	}
	answer, err := config.Exchange(ctx, code, oauth2.VerifierOption(p.verifier))
	if err != nil {
		return "", nil, fmt.Errorf("exchange the code of a log-in: %w", err)
	}
	raw, _ := answer.Extra("id_token").(string)
	token, err := provider.Verifier(&oidc.Config{ClientID: o.ClientID}).Verify(ctx, raw)
	if err != nil {
		return "", nil, fmt.Errorf("check the ID token of a log-in: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(p.nonce)) != 1 {
		return "", nil, fmt.Errorf("the ID token of a log-in has another nonce")
	}
	var claims map[string]json.RawMessage
	if err := token.Claims(&claims); err != nil {
		return "", nil, fmt.Errorf("read the ID token of a log-in: %w", err)
	}
	for _, claim := range []string{cmp.Or(o.NameClaim, "email"), "preferred_username", "sub"} {
		if json.Unmarshal(claims[claim], &name) == nil && name != "" {
			break
		}
	}
	if json.Unmarshal(claims[cmp.Or(o.GroupsClaim, "groups")], &groups) != nil {
		groups = nil // the token has none
	}
	return shown(name), groups[:min(len(groups), maxGroups)], nil
}

// principal is what somebody in these groups may; o may be nil.
func (o *OIDC) principal(name string, groups []string) Principal {
	p := Principal{Name: name}
	if o == nil {
		return p
	}
	for _, r := range o.Roles {
		switch {
		case !slices.Contains(groups, r.Group) || r.Role < p.Role:
		case r.Role > p.Role:
			p.Role, p.Scope = r.Role, r.Repos
		case r.Repos == nil:
			p.Scope = nil
		case p.Scope != nil:
			p.Scope = slices.Concat(p.Scope, r.Repos)
		}
	}
	return p
}

// shown makes a text of a stranger's fit for a log or a sentence.
func shown(s string) string {
	const most = 200
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return router.Printable(s)
}
