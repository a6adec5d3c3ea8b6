package api

import (
	"net/http"
	"strconv"
	"testing"

	"switchyard/router"
	"switchyard/router/web/problem"
)

// A client that takes nothing is let go when so much waits for it, and only it.
func TestWhatWaitsForAClientIsBounded(t *testing.T) {
	h := newHub(Config{Connections: 100}, nil)
	h.loop = &loop{}
	stuck, _, _, _ := h.join(follower{})
	other, _, _, _ := h.join(follower{scope: router.Scope{"acme/*"}})
	none, _, _, _ := h.join(follower{scope: router.Scope{}})
	for id := range int64(liveBuffer + 1) {
		h.send([]router.Change{{ID: id, Repo: router.Repo{Owner: "acme", Name: "web"}}, {ID: id, Repo: router.Repo{Owner: "beta", Name: "web"}}})
		if got := <-other; len(got) != 1 {
			t.Errorf("one of acme receives %d changes, want its own", len(got))
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

// No principal takes the others' streams: each has a share, and when all are
// taken, the principal with most makes room for one with fewer.
func TestEachPrincipalHasAShareOfTheStreams(t *testing.T) {
	h := newHub(Config{Connections: 100}, nil)
	h.loop = &loop{}
	join := func(name string) (<-chan []told, int) {
		events, _, _, err := h.join(follower{name: name})
		if l := problem.Of(err); l != nil {
			if l.RetryAfter <= 0 || l.Detail == "" {
				t.Errorf("%s is refused with %+v", name, l)
			}
			return nil, l.Status
		}
		return events, http.StatusOK
	}
	for range h.most / liveShare {
		if _, status := join("a"); status != http.StatusOK {
			t.Fatalf("within its share a is answered %d", status)
		}
	}
	if _, status := join("a"); status != http.StatusTooManyRequests {
		t.Errorf("over its share a is answered %d, want 429", status)
	}
	for i := range h.most - h.most/liveShare { // others take the rest
		if _, status := join(strconv.Itoa(i / (h.most / liveShare))); status != http.StatusOK {
			t.Fatalf("stream %d is answered %d", i, status)
		}
	}
	for i := range 2*liveShare + 3 { // and yet there is one for each who comes
		events, status := join("late" + strconv.Itoa(i))
		if status != http.StatusOK || len(h.clients) != h.most || h.most != 50 {
			t.Fatalf("newcomer %d is answered %d, and %d follow", i, status, len(h.clients))
		}
		select {
		case <-events:
			t.Fatalf("newcomer %d lost its stream", i)
		default:
		}
	}
	for i := range 3 * h.most {
		if _, status := join("many" + strconv.Itoa(i)); status == http.StatusServiceUnavailable {
			return // each has one
		}
	}
	t.Errorf("%d follow, and none is refused", len(h.clients))
}
