package web

import "github.com/gorilla/mux"

// Router is what Handler guards.
func Router(c Config) *mux.Router { return (&api{Config: c}).router() }
