package web

import (
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/gorilla/mux"

	"switchyard/router"
	"switchyard/router/web/auth"
)

// Router is what Handler guards.
func Router(c Config) *mux.Router { return newConsole(c).router() }

// PagePaths are the paths of the console's pages.
func PagePaths(c Config) (paths []string) {
	for _, p := range newConsole(c).pages() {
		paths = append(paths, p.path)
	}
	return paths
}

// PageFor is a page as somebody sees it who may see the repositories of a scope.
func PageFor(c Config, path string, scope router.Scope) string {
	if c.Now == nil {
		c.Now = time.Now
	}
	req := httptest.NewRequest(http.MethodGet, path, nil)
	rec := httptest.NewRecorder()
	p := auth.Principal{Name: "a team", Role: auth.Viewer, Scope: scope}
	newConsole(c).router().ServeHTTP(rec, req.WithContext(auth.With(req.Context(), p)))
	return rec.Body.String()
}

// PlaygroundLabels are the labels that the playground reads in a text.
func PlaygroundLabels(text string) []string { return playForm{Labels: text}.labels() }

// WaitsFor returns how many sentences Now has for a cause.
func WaitsFor(cause router.Cause) (n int) {
	for _, w := range waits {
		if w.reason == cause {
			n++
		}
	}
	return n
}
