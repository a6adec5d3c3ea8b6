package auth

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"switchyard/router"
	"switchyard/router/web/problem"
)

const loginPath = "/login"

// A Login is what the login page shows.
type Login struct {
	Next   string // the path to go to afterwards
	OIDC   bool   // there is an OpenID Connect provider
	Failed string // why the last login failed; "": there was none
}

// loginForm answers GET /login.
func (g *Guard) loginForm(w http.ResponseWriter, req *http.Request) {
	g.showLogin(w, req, http.StatusOK, "")
}

func (g *Guard) showLogin(w http.ResponseWriter, req *http.Request, status int, failed string) {
	next := localPath(req.FormValue("next"))
	if g.config.Access == nil { // everybody is in
		http.Redirect(w, req, next, http.StatusSeeOther)
		return
	}
	access, err := g.config.Access()
	if err != nil {
		g.config.Fail(w, req, err)
		return
	}
	g.config.LoginPage(w, req, status, Login{next, access.OIDC != nil, failed})
}

// logIn begins a session for a valid token.
func (g *Guard) logIn(w http.ResponseWriter, req *http.Request) {
	if g.config.Access == nil {
		g.loginForm(w, req)
		return
	}
	access, err := g.config.Access()
	if err != nil {
		g.config.Fail(w, req, err)
		return
	}
	token := req.PostFormValue("token")
	t := access.token(token)
	if t == nil {
		if err := g.limitWrongTokens(req); err != nil {
			g.config.Fail(w, req, err)
			return
		}
		g.recordLogIn(req, Principal{}, "the token was wrong")
		failed := "This token is not one of the server's."
		if short := CheckToken(token); short != nil {
			failed += " " + strings.ToUpper(short.Error()[:1]) + short.Error()[1:] + "."
		}
		g.showLogin(w, req, http.StatusUnauthorized, failed)
		return
	}
	g.begin(w, req, router.Session{Token: t.SHA256}, t.principal(), localPath(req.PostFormValue("next")))
}

// begin logs p in and sends the browser on.
func (g *Guard) begin(w http.ResponseWriter, req *http.Request, s router.Session, p Principal, next string) {
	if err := g.beginSession(w, req, s); err != nil {
		g.config.Fail(w, req, err)
		return
	}
	g.recordLogIn(req, p, ResultOK)
	http.Redirect(w, req, next, http.StatusSeeOther)
}

// logOut ends the session.
func (g *Guard) logOut(w http.ResponseWriter, req *http.Request) {
	if err := g.endSession(w, req); err != nil {
		g.config.Fail(w, req, err)
		return
	}
	g.recordWithin(g.sessionQuota, req, Who(req.Context()), "log out", "", ResultOK, "out")
	http.Redirect(w, req, loginPath, http.StatusSeeOther)
}

// provider returns the OpenID Connect provider of the access file. Without one,
// its paths are unknown.
func (g *Guard) provider() (*OIDC, error) {
	if g.config.Access != nil {
		access, err := g.config.Access()
		if err != nil {
			return nil, err
		}
		if access.OIDC != nil {
			return access.OIDC, nil
		}
	}
	return nil, problem.New(http.StatusNotFound, "there is no such page")
}

// startOIDC sends a browser to the provider, unless another site's page had it ask:
// that would take the place of a login that the browser has under way.
func (g *Guard) startOIDC(w http.ResponseWriter, req *http.Request) {
	o, err := g.provider()
	if err != nil {
		g.config.Fail(w, req, err)
		return
	}
	if site := req.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		g.recordLogIn(req, Principal{}, "another site's page began it")
		g.showLogin(w, req, http.StatusForbidden, "Another site's page started this login. Start it here.")
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), oidcTimeout)
	defer cancel()
	_, config, err := g.logins.config(ctx, o)
	if err != nil {
		g.providerFailed(w, req, err)
		return
	}
	p := pendingLogin{State: rand.Text(), Issuer: o.Issuer, Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: []byte(localPath(req.FormValue("next"))), Begun: g.config.Now()}
	seal, err := g.loginSeal(req)
	if err != nil {
		g.config.Fail(w, req, err)
		return
	}
	// The cookie binds the answer to the browser that asked.
	http.SetCookie(w, newCookie(req, stateName, p.cookie(seal), int(router.LoginPending/time.Second)))
	http.Redirect(w, req, config.AuthCodeURL(p.State, oidc.Nonce(p.Nonce), oauth2.S256ChallengeOption(p.Verifier)), http.StatusSeeOther)
}

// providerFailed answers that the provider does not work; the log says why.
func (g *Guard) providerFailed(w http.ResponseWriter, req *http.Request, err error) {
	g.logins.failures.Do(func() {
		g.config.Logger.Error("OpenID Connect login failed; logged at most once a minute", "err", err)
	})
	g.showLogin(w, req, http.StatusBadGateway, "The OpenID Connect provider did not respond correctly; the server's log says why. A token still works.")
}

// oidcCallback begins a session of the person whom the provider names.
func (g *Guard) oidcCallback(w http.ResponseWriter, req *http.Request) {
	o, err := g.provider()
	if err != nil {
		g.config.Fail(w, req, err)
		return
	}
	cookie, err := req.Cookie(cookieName(req, stateName))
	p, ok := pendingLogin{}, false
	if err == nil {
		seal, err := g.loginSeal(req)
		if err != nil {
			g.config.Fail(w, req, err)
			return
		}
		p, ok = pending(seal, cookie.Value, req.FormValue("state"), g.config.Now())
	}
	ok = ok && p.Issuer == o.Issuer
	http.SetCookie(w, newCookie(req, stateName, "", -1))
	if !ok {
		g.showLogin(w, req, http.StatusBadRequest, "This login was not started in this browser, or too long ago. Start again.")
		return
	}
	if refused := req.FormValue("error"); refused != "" {
		g.recordLogIn(req, Principal{}, "the provider said "+printable(refused))
		g.showLogin(w, req, http.StatusUnauthorized, "The OpenID Connect provider refused: "+printable(refused)+".")
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), oidcTimeout)
	defer cancel()
	who, err := g.logins.exchange(ctx, o, p, req.FormValue("code"))
	if err != nil {
		g.recordLogIn(req, Principal{}, err.Error())
		g.providerFailed(w, req, err)
		return
	}
	storeCtx, cancelStore := context.WithTimeout(req.Context(), router.StoreTimeout)
	defer cancelStore()
	first, err := g.config.Sessions.FinishLogin(storeCtx, p.State, g.config.Now())
	if err != nil {
		g.config.Fail(w, req, g.sessionFailed(req, err, notLoggedIn))
		return
	}
	if !first {
		g.showLogin(w, req, http.StatusBadRequest, "This login is already finished. Start again.")
		return
	}
	access, err := g.config.Access()
	if err != nil {
		g.config.Fail(w, req, err)
		return
	}
	is := access.person(who)
	if is.Role == 0 {
		g.recordLogIn(req, is, "none of the groups has a role")
		g.showLogin(w, req, http.StatusForbidden, fmt.Sprintf("%s is in %d groups, none of which has a role here. Roles are set in the server's --access file.", is.Name, len(who.Groups)))
		return
	}
	g.begin(w, req, router.Session{Person: who}, is, string(p.Next))
}
