package web

import (
	"testing"

	"switchyard/router"
)

// A client that takes nothing is let go when so much waits for it, and only it.
func TestWhatWaitsForAClientIsBounded(t *testing.T) {
	h := &hub{clients: map[chan []told]router.Scope{}, loop: &loop{}}
	stuck, _, _, _ := h.join(nil)
	other, _, _, _ := h.join(router.Scope{"acme/*"})
	none, _, _, _ := h.join(router.Scope{})
	for id := range int64(liveBuffer + 1) {
		h.send([]router.Change{{ID: id, Repo: router.Repo{Owner: "acme", Name: "web"}}, {ID: id, Repo: router.Repo{Owner: "beta", Name: "web"}}})
		if got := <-other; len(got) != 1 {
			t.Errorf("one of acme is told of %d changes, want its own", len(got))
		}
	}
	for range liveBuffer {
		if got, open := <-stuck; !open || len(got) != 2 {
			t.Fatal("what was kept for it is lost")
		}
	}
	if _, open := <-stuck; open || len(h.clients) != 2 || len(none) != 0 {
		t.Errorf("it is kept: %d clients follow", len(h.clients))
	}
}
