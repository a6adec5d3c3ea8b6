package web

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"switchyard/router"
)

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
	}{{nil, 1}, {errors.New("the database is away"), 2}} {
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
