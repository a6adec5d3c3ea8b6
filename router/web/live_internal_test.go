package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/web/problem"
)

// A client that takes nothing is let go when so much waits for it, and only it.
func TestWhatWaitsForAClientIsBounded(t *testing.T) {
	h := newHub(Config{Connections: 100})
	h.loop = &loop{}
	stuck, _, _, _ := h.join(follower{})
	other, _, _, _ := h.join(follower{scope: router.Scope{"acme/*"}})
	none, _, _, _ := h.join(follower{scope: router.Scope{}})
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

// No principal takes the others' streams: each has a share, and when all are
// taken, whoever has most makes room for who has fewer.
func TestEachPrincipalHasAShareOfTheStreams(t *testing.T) {
	h := newHub(Config{Connections: 100})
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

func TestWhatIsSharedIsKeptForASecond(t *testing.T) {
	var s shared[int]
	made := 0
	get := func(key string, at time.Duration) {
		now := func() time.Time { return time.Unix(0, 0).Add(at) }
		if _, err := s.get(t.Context(), key, now, 0, func(context.Context) (int, error) { made++; return made, nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		key  string
		at   time.Duration
		want int
	}{{"a", 0, 1}, {"a", 900 * time.Millisecond, 1}, {"b", 900 * time.Millisecond, 2}, {"a", time.Second, 3}, {"a", 1900 * time.Millisecond, 3}} {
		if get(step.key, step.at); made != step.want {
			t.Errorf("%s at %v: made %d, want %d", step.key, step.at, made, step.want)
		}
	}
	s.clear() // something was changed
	if get("a", 1900*time.Millisecond); made != 4 {
		t.Error("what was made before a change is shown after it")
	}
	for i := range 1000 {
		get(strconv.Itoa(i), 2*time.Second)
	}
	if len(s.byKey) > sharedKeys {
		t.Errorf("%d are kept", len(s.byKey))
	}
}

// What is long to make is kept longer; that it could not be made is not.
func TestWhatIsSharedIsKeptAsLongAsItTook(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{{nil, 1}, {errors.New("the books are away"), 2}} {
		var s shared[int]
		at, made := time.Unix(0, 0), 0
		for range 3 { // at 0, 4 and 4 s
			_, err := s.get(t.Context(), "a", func() time.Time { return at }, 20, func(context.Context) (int, error) {
				made++
				at = at.Add(2 * time.Second * time.Duration(2-made)) // then 0
				return made, c.err
			})
			if err != c.err {
				t.Errorf("the error is %v, want %v", err, c.err)
			}
			if made == 1 {
				at = time.Unix(4, 0)
			}
		}
		if made != c.want {
			t.Errorf("with the error %v it was made %d times, want %d", c.err, made, c.want)
		}
	}
}

// Scopes that differ share nothing.
func TestScopesThatDifferHaveKeysThatDiffer(t *testing.T) {
	seen := map[string]router.Scope{}
	for _, s := range []router.Scope{nil, {}, {""}, {"a/b"}, {"a/b", "c/d"}, {"a/b c/d"}, {`a/b" "c/d`}, {"<nil>"}} {
		if other, ok := seen[scopeKey(s)]; ok {
			t.Errorf("%#v and %#v have the same key", s, other)
		}
		seen[scopeKey(s)] = s
	}
}
