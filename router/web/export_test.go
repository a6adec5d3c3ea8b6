package web

import "github.com/gorilla/mux"

// Router is what Handler guards.
func Router(c Config) *mux.Router { return (&api{Config: c}).router() }

// PagePaths are the paths of the console's pages.
func PagePaths(c Config) (paths []string) {
	for _, p := range (&api{Config: c}).pages() {
		paths = append(paths, p.path)
	}
	return paths
}
