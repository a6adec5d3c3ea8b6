package web

import (
	"net/http"
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
	if err == nil {
		err = a.guesses.take(req)
	}
	if err != nil {
		a.fail(w, req, err)
		return
	}
	t := access.token(req.PostFormValue("token"))
	if t == nil {
		a.record(req, "somebody", "log in", "", "the token was wrong")
		a.login(w, req, http.StatusUnauthorized, "This token is not one of the server's.")
		return
	}
	a.sessions.begin(w, req, session{token: t.SHA256}, a.Now())
	a.record(req, t.Name, "log in", "", resultOK)
	http.Redirect(w, req, localPath(req.PostFormValue("next")), http.StatusSeeOther)
}

// logOut ends the session.
func (a *api) logOut(w http.ResponseWriter, req *http.Request) {
	a.sessions.end(w, req)
	a.record(req, who(req.Context()).Name, "log out", "", resultOK)
	http.Redirect(w, req, loginPath, http.StatusSeeOther)
}
