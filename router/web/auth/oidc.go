package auth

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"switchyard/router"
)

const (
	oidcTimeout  = 10 * time.Second
	maxGroups    = 1000
	maxGroup     = 256      // bytes of a group's name
	maxSubject   = 255      // https://openid.net/specs/openid-connect-core-1_0.html#IDToken, read 2026-11
	maxPerson    = 100      // characters of a name that is no e-mail address
	maxSecret    = 64 << 10 // bytes of the client's secret
	oidcCallback = loginPath + "/callback"
	stateName    = "switchyard-login"
)

// logins are those at an OpenID Connect provider.
type logins struct {
	provider providerCache
	failures rate.Sometimes // how often the log says that somebody could not log in
}

// loginSeal returns what seals logins under way. One is kept by its browser, in a cookie that
// only those who share the SessionStore can make and read: somebody who begins many takes
// nothing from others.
func (g *Guard) loginSeal(req *http.Request) (cipher.AEAD, error) {
	ctx, cancel := context.WithTimeout(req.Context(), router.StoreTimeout)
	defer cancel()
	key, err := g.config.Sessions.LoginKey(ctx)
	if err != nil {
		return nil, g.sessionFailed(req, err, "the login cannot begin or end: its key is in the database, which does not answer")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// A pendingLogin is one under way, as its cookie holds it.
type pendingLogin struct {
	State    string    `json:"state"`
	Issuer   string    `json:"issuer"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Next     []byte    `json:"next"` // as bytes, of which JSON escapes none: a browser keeps 4 KiB
	Begun    time.Time `json:"begun"`
}

// cookie returns a login under way for a browser to keep.
func (p pendingLogin) cookie(seal cipher.AEAD) string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // all of it can be JSON
	}
	return base64.RawURLEncoding.EncodeToString(seal.Seal(nil, nil, text, nil))
}

// pending reads what cookie made, if it is of this state and not too old.
func pending(seal cipher.AEAD, cookie, state string, now time.Time) (p pendingLogin, ok bool) {
	sealed, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil {
		return p, false
	}
	text, err := seal.Open(nil, nil, sealed, nil)
	if err != nil || json.Unmarshal(text, &p) != nil {
		return p, false
	}
	return p, subtle.ConstantTimeCompare([]byte(p.State), []byte(state)) == 1 && now.Sub(p.Begun).Abs() <= router.LoginPending
}

// A providerCache keeps what the provider said of itself. The zero value is ready.
type providerCache struct {
	asking singleflight.Group

	mu     sync.Mutex
	issuer string
	known  *oidc.Provider // what the issuer said; nil: it was not asked yet
}

// discover asks the provider where to log in, until it has answered once. All
// who wait for that share one request.
func (c *providerCache) discover(ctx context.Context, issuer string) (*oidc.Provider, error) {
	c.mu.Lock()
	known := c.known
	if c.issuer != issuer {
		known = nil
	}
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	asked := c.asking.DoChan(issuer, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), oidcTimeout)
		defer cancel()
		// The provider keeps the client of this context for its keys, not its end.
		provider, err := oidc.NewProvider(oidc.ClientContext(ctx, &http.Client{Timeout: oidcTimeout}), issuer)
		if err != nil {
			return nil, fmt.Errorf("ask the OpenID Connect provider %s: %w", issuer, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.known, c.issuer = provider, issuer
		return provider, nil
	})
	select {
	case answer := <-asked:
		provider, _ := answer.Val.(*oidc.Provider)
		return provider, answer.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("ask the OpenID Connect provider %s: %w", issuer, ctx.Err())
	}
}

// config returns how to log in at the provider.
func (l *logins) config(ctx context.Context, o *OIDC) (*oidc.Provider, *oauth2.Config, error) {
	provider, err := l.provider.discover(ctx, o.Issuer)
	if err != nil {
		return nil, nil, err
	}
	secret := ""
	if o.ClientSecretFile != "" {
		b, err := router.ReadSecret(o.ClientSecretFile, maxSecret)
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

// exchange turns the provider's code into who that is.
func (l *logins) exchange(ctx context.Context, o *OIDC, p pendingLogin, code string) (is router.Person, err error) {
	provider, config, err := l.config(ctx, o)
	if err != nil {
		return is, err
	}
	answer, err := config.Exchange(ctx, code, oauth2.VerifierOption(p.Verifier))
	if err != nil {
		return is, fmt.Errorf("exchange the code of a login: %w", err)
	}
	raw, _ := answer.Extra("id_token").(string)
	token, err := provider.Verifier(&oidc.Config{ClientID: o.ClientID}).Verify(ctx, raw)
	if err != nil {
		return is, fmt.Errorf("check the ID token of a login: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(p.Nonce)) != 1 {
		return is, errors.New("the ID token of a login has another nonce")
	}
	var claims map[string]json.RawMessage
	if err := token.Claims(&claims); err != nil {
		return is, fmt.Errorf("read the ID token of a login: %w", err)
	}
	text := func(claim string) (s string) {
		_ = json.Unmarshal(claims[claim], &s) // what is no text is none
		return s
	}
	// https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation, read 2026-11
	if azp := text("azp"); azp != o.ClientID && (claims["azp"] != nil || len(token.Audience) > 1) {
		return is, fmt.Errorf("the ID token of a login was made for %q (azp), not for %q", printable(azp), o.ClientID)
	}
	if strings.TrimSpace(token.Subject) == "" || len(token.Subject) > maxSubject {
		return is, fmt.Errorf("the ID token of a login has no subject (sub) of at most %d bytes, so it does not say who that is", maxSubject)
	}
	is = router.Person{Issuer: o.Issuer, Subject: router.Printable(token.Subject)}
	named := cmp.Or(o.NameClaim, emailClaim)
	if named != emailClaim {
		is.Name = text(named)
	} else if email := text(emailClaim); verified(claims["email_verified"]) && plainEmail(email) {
		is.Email = email
	}
	is.Name = router.Printable(router.Shorten(strings.TrimSpace(cmp.Or(strings.TrimSpace(is.Name), text("preferred_username"))), maxPerson))
	if json.Unmarshal(claims[cmp.Or(o.GroupsClaim, "groups")], &is.Groups) != nil {
		is.Groups = nil // the token has none
	}
	is.Groups = slices.DeleteFunc(is.Groups, func(g string) bool { return len(g) > maxGroup }) // a session keeps them
	is.Groups = slices.Clip(is.Groups[:min(len(is.Groups), maxGroups)])
	return is, nil
}

const emailClaim = "email"

// verified reads email_verified, which some providers have as a text.
func verified(claim json.RawMessage) bool {
	return string(claim) == "true" || string(claim) == `"true"`
}

// plainEmail reports whether a text is an e-mail address and nothing else.
func plainEmail(s string) bool {
	at, err := mail.ParseAddress(s)
	return err == nil && at.Address == s && len(s) <= 254 && router.Printable(s) == s && !strings.ContainsAny(s, ` "()`)
}

// subjectMark stands in the name of a person who is not known by a verified
// e-mail address, and in no token's.
const subjectMark = "(subject "

// person returns the principal of a person, by what the file says now.
func (acc *Access) person(is router.Person) Principal {
	if acc.OIDC == nil || acc.OIDC.Issuer != is.Issuer {
		return Principal{} // groups of another provider mean nothing here
	}
	p := acc.OIDC.principal(is.Groups)
	p.By = is.Issuer + " " + is.Subject
	p.Name = is.Email
	token := func(t Token) bool { return strings.EqualFold(t.Name, is.Email) }
	if is.Email == "" || slices.ContainsFunc(acc.Tokens, token) {
		p.Name = strings.TrimSpace(cmp.Or(is.Email, is.Name) + " " + subjectMark + is.Subject + ")")
	}
	return p
}

// principal returns what somebody in these groups may do.
func (o *OIDC) principal(groups []string) (p Principal) {
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
