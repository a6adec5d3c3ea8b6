package web

import (
	"net/http"
	"net/http/pprof"

	"github.com/gorilla/mux"

	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
)

// profile answers with a profile of the process, as package net/http/pprof does. All
// repositories' jobs are in it, so it is for those who see them.
func (s *console) profile(w http.ResponseWriter, req *http.Request) {
	if auth.Who(req.Context()).Scope != nil {
		s.fail(w, req, problem.New(http.StatusForbidden, "a profile is of all repositories, and you see some of them"))
		return
	}
	switch mux.Vars(req)["name"] {
	case "profile":
		pprof.Profile(w, req)
	case "trace":
		pprof.Trace(w, req)
	default:
		pprof.Index(w, req)
	}
}
