package web

import (
	"strconv"
	"testing"
	"time"

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

func TestAShelfKeepsForASecond(t *testing.T) {
	var s shelf
	made := 0
	get := func(name string, at time.Duration) {
		s.get(name, time.Unix(0, 0).Add(at), func() content { made++; return content{} })
	}
	for _, step := range []struct {
		name string
		at   time.Duration
		want int
	}{{"a", 0, 1}, {"a", 900 * time.Millisecond, 1}, {"b", 900 * time.Millisecond, 2}, {"a", time.Second, 3}, {"a", 1900 * time.Millisecond, 3}} {
		if get(step.name, step.at); made != step.want {
			t.Errorf("%s at %v: made %d, want %d", step.name, step.at, made, step.want)
		}
	}
	s.clear() // something was changed
	if get("a", 1900*time.Millisecond); made != 4 {
		t.Error("what was made before a change is shown after it")
	}
	for i := range 1000 {
		get(strconv.Itoa(i), 2*time.Second)
	}
	if len(s.made) > maxShared {
		t.Errorf("%d are kept", len(s.made))
	}
}
