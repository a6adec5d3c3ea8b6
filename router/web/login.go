package web

import (
	"net/http"
	"strings"
)

const loginPath = "/login"

type loginView struct {
	Next   string
	OIDC   bool
	Failed string // "": nobody tried yet
}

// loginPage shows how to log in.
func (a *api) loginPage(w http.ResponseWriter, req *http.Request) {
	a.login(w, req, http.StatusOK, "")
}

func (a *api) login(w http.ResponseWriter, req *http.Request, status int, failed string) {
	next := localPath(req.FormValue("next"))
	if a.Access == nil { // everybody is in
		http.Redirect(w, req, next, http.StatusSeeOther)
		return
	}
	access, err := a.Access()
	if err != nil {
		a.fail(w, req, err)
		return
	}
	a.render(w, req, status, consolePage{template: "login", title: "Log in"}, loginView{next, access.OIDC != nil, failed})
}

// logIn begins a session of whoever shows a token.
func (a *api) logIn(w http.ResponseWriter, req *http.Request) {
	if a.Access == nil {
		a.loginPage(w, req)
		return
	}
	access, err := a.Access()
	if err != nil {
		a.fail(w, req, err)
		return
	}
	token := req.PostFormValue("token")
	t := access.token(token)
	if t == nil {
		if err := a.wrongToken(req, nil); err != nil {
			a.fail(w, req, err)
			return
		}
		a.recordLogIn(req, Principal{}, "the token was wrong")
		failed := "This token is not one of the server's."
		if short := CheckToken(token); short != nil {
			failed += " " + strings.ToUpper(short.Error()[:1]) + short.Error()[1:] + "."
		}
		a.login(w, req, http.StatusUnauthorized, failed)
		return
	}
	a.sessions.begin(w, req, session{token: t.SHA256}, a.Now())
	a.recordLogIn(req, t.principal(), resultOK)
	http.Redirect(w, req, localPath(req.PostFormValue("next")), http.StatusSeeOther)
}

// logOut ends the session.
func (a *api) logOut(w http.ResponseWriter, req *http.Request) {
	a.sessions.end(w, req)
	a.recordWithin(a.visits, req, who(req.Context()), "log out", "", resultOK, "out")
	http.Redirect(w, req, loginPath, http.StatusSeeOther)
}
