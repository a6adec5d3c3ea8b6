package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/store/postgrestest"
)

func cookieOf(name string) [32]byte { return sha256.Sum256([]byte(name)) }

// sessionsIn returns the sessions of two replicas, and the store of the first.
func sessionsIn(t *testing.T, url string) (st *Store, a, b *Sessions) {
	t.Helper()
	open := func() *Store {
		st, err := Open(t.Context(), url)
		must(t, err)
		t.Cleanup(func() { must(t, st.Close()) })
		return st
	}
	st = open()
	return st, st.Sessions(), open().Sessions()
}

func TestSessionsAreShared(t *testing.T) {
	ctx, now := t.Context(), time.UnixMilli(1_770_000_000_000).UTC()
	st, a, b := sessionsIn(t, postgrestest.URL(t))
	person := router.Session{Person: router.Person{Issuer: "https://login.example", Subject: "7", Email: "mona@acme.example", Name: "mona", Groups: []string{"a", "größe", `"`}}, Begun: now, Used: now}
	token := router.Session{Token: [32]byte{1, 0, 2}, Begun: now, Used: now}
	must(t, a.BeginSession(ctx, cookieOf("person"), person))
	must(t, a.BeginSession(ctx, cookieOf("token"), token))
	for name, want := range map[string]router.Session{"person": person, "token": token} {
		got, err := b.Session(ctx, cookieOf(name), now, false)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("session %s: %v\n%s", name, err, diff)
		}
	}
	must(t, b.EndSession(ctx, cookieOf("token")))
	if _, err := a.Session(ctx, cookieOf("token"), now, true); !errors.Is(err, router.ErrNotFound) {
		t.Errorf("a session that was ended elsewhere: %v", err)
	}

	written := 0
	must(t, st.writer.change(ctx, router.SourceOperator, func(tx *tx) error {
		tx.w.ran = func(query string) {
			if query == useSessionSQL {
				written++
			}
		}
		return nil
	}))
	used := func() time.Duration { // since it began, as the database has it
		must(t, st.SetMark(ctx, "settled", "")) // after what is recorded in the background
		one, err := b.Session(ctx, cookieOf("person"), now, false)
		must(t, err)
		return one.Used.Sub(now)
	}
	for _, c := range []struct {
		after, want time.Duration
		used        bool
	}{
		{59 * time.Second, 0, true}, {59 * time.Minute, 0, false}, {59 * time.Minute, 59 * time.Minute, true}, {59*time.Minute + 30*time.Second, 59 * time.Minute, true},
		{58 * time.Minute, 59 * time.Minute, true}, // the clock of another machine
	} {
		_, err := a.Session(ctx, cookieOf("person"), now.Add(c.after), c.used)
		if got := used(); err != nil || got != c.want {
			t.Errorf("a request after %v, use %v: %v; it was used after %v, want %v", c.after, c.used, err, got, c.want)
		}
	}
	if written != 1 {
		t.Errorf("the use of a session was written %d times, want 1", written)
	}
	for after, want := range map[time.Duration]error{119 * time.Minute: nil, 120 * time.Minute: router.ErrNotFound} {
		if _, err := a.Session(ctx, cookieOf("person"), now.Add(after), false); !errors.Is(err, want) {
			t.Errorf("a session after %v: %v, want %v", after, err, want)
		}
	}
	must(t, a.BeginSession(ctx, cookieOf("long"), router.Session{Begun: now, Used: now.Add(router.SessionLasts)}))
	for after, want := range map[time.Duration]error{0: nil, 1: router.ErrNotFound} {
		if _, err := a.Session(ctx, cookieOf("long"), now.Add(router.SessionLasts+after), true); !errors.Is(err, want) {
			t.Errorf("a session %v after the longest time: %v, want %v", after, err, want)
		}
	}
	var lines int
	must(t, st.querier(ctx)(into(&lines), "SELECT count(*) FROM events"))
	if lines != 0 {
		t.Errorf("timelines have %d events of sessions", lines)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	ctx, now := t.Context(), time.UnixMilli(1_770_000_000_000).UTC()
	st, s, _ := sessionsIn(t, postgrestest.URL(t))
	// The nth was used n ms after now.
	fill := func(from, to int, subject string) {
		t.Helper()
		_, err := st.write.ExecContext(ctx, `INSERT INTO sessions (cookie, token, issuer, subject, email, name, groups, begun, used)
SELECT sha256(convert_to(n::text, 'UTF8')), decode(repeat('00', 32), 'hex'), 'i', `+subject+`, '', '', '[]', 0, $1::bigint + n FROM generate_series($2::int, $3::int) n`, millis(now), from, to)
		must(t, err)
	}
	check := func(want int, kept, dropped string) {
		t.Helper()
		var n int
		must(t, st.querier(ctx)(into(&n), "SELECT count(*) FROM sessions"))
		if n != want {
			t.Errorf("there are %d sessions, want %d", n, want)
		}
		for name, want := range map[string]int{kept: 1, dropped: 0} {
			cookie := cookieOf(name)
			must(t, st.querier(ctx)(into(&n), "SELECT count(*) FROM sessions WHERE cookie = ?", cookie[:]))
			if n != want {
				t.Errorf("session %s is there %d times, want %d", name, n, want)
			}
		}
	}
	begin := func(cookie, subject string, at time.Time) {
		t.Helper()
		must(t, s.BeginSession(ctx, cookieOf(cookie), router.Session{Person: router.Person{Issuer: "i", Subject: subject}, Begun: at, Used: at}))
	}
	fill(1, 1000, "'mona'")
	fill(-5, -1, "'vera'")
	begin("x", "mona", now.Add(time.Minute))
	check(1005, "2", "1") // the oldest of the same person
	fill(1001, 9995, "n::text")
	begin("y", "other", now.Add(time.Minute))
	check(10_000, "-4", "-5") // the oldest of all
	begin("z", "other", now.Add(router.SessionIdle+9995*time.Millisecond))
	check(4, "9995", "9994") // those that are over go; x and y are there, too
}

func TestALoginIsFinishedOnceAndItsKeyStays(t *testing.T) {
	ctx, now := t.Context(), time.UnixMilli(1_770_000_000_000).UTC()
	st, a, b := sessionsIn(t, postgrestest.URL(t))
	finish := func(s *Sessions, state string, after time.Duration, want bool) {
		t.Helper()
		if first, err := s.FinishLogin(ctx, state, now.Add(after)); err != nil || first != want {
			t.Errorf("login %s is finished first: %v, %v, want %v", state, first, err, want)
		}
	}
	finish(a, "1", 0, true)
	finish(b, "1", 0, false)
	finish(a, "1", router.LoginPending, false)
	finish(a, "2", 3*router.LoginPending, true)
	var n int
	must(t, st.querier(ctx)(into(&n), "SELECT count(*) FROM finished_logins"))
	if n != 1 {
		t.Errorf("%d finished logins are remembered, want 1", n)
	}

	keys := make(chan []byte, 8)
	for range cap(keys) {
		go func() {
			key, err := b.LoginKey(ctx)
			if err != nil {
				t.Error(err)
			}
			keys <- key
		}()
	}
	first := <-keys
	for range cap(keys) - 1 {
		if key := <-keys; len(key) != 32 || !bytes.Equal(key, first) {
			t.Errorf("a login has the key %x, another %x", key, first)
		}
	}
}

func TestSessionsAreNotCopied(t *testing.T) {
	ctx, now := t.Context(), time.Now()
	url, dir := postgrestest.URL(t), t.TempDir()
	st, err := Open(ctx, url)
	must(t, err)
	must(t, st.Sessions().BeginSession(ctx, cookieOf("x"), router.Session{Begun: now, Used: now}))
	_, err = st.Sessions().LoginKey(ctx)
	must(t, err)
	_, err = st.Sessions().FinishLogin(ctx, "1", now)
	must(t, err)
	must(t, st.SetMark(ctx, "a", "1"))
	must(t, st.Close())
	if in, err := Inspect(ctx, url); err != nil || len(in.Wrong) > 0 {
		t.Errorf("the check of the database: %v, %v", in.Wrong, err)
	}
	file, again := filepath.Join(dir, "x.db"), postgrestest.URL(t)
	for _, c := range [][2]string{{url, file}, {file, again}} {
		if _, err := Copy(ctx, c[0], c[1], nil); err != nil {
			t.Fatal(err)
		}
	}
	st, s, _ := sessionsIn(t, again)
	if value, err := st.Mark(ctx, "a"); value != "1" || err != nil {
		t.Errorf("the mark is %q, %v", value, err)
	}
	if _, err := s.Session(ctx, cookieOf("x"), now, true); !errors.Is(err, router.ErrNotFound) {
		t.Errorf("a session was copied: %v", err)
	}
	if st, err := Open(ctx, file); err != nil || st.Sessions() != nil {
		t.Errorf("a file has sessions: %v", err)
	} else {
		must(t, st.Close())
	}
}

func TestTheUseOfASessionWaitsForNobody(t *testing.T) {
	ctx, now := t.Context(), time.UnixMilli(1_770_000_000_000).UTC()
	url := postgrestest.URL(t)
	st, s, _ := sessionsIn(t, url)
	must(t, s.BeginSession(ctx, cookieOf("x"), router.Session{Begun: now, Used: now}))
	conn, err := st.write.Conn(ctx) // another process, which makes a change
	must(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(ctx, fmt.Sprintf("SELECT pg_advisory_lock(%d, hashtext(current_schema()))", changesLock))
	must(t, err)
	for i := range 3 * maxBatch {
		if _, err := s.Session(ctx, cookieOf("x"), now.Add(time.Minute+time.Duration(i)*time.Millisecond), true); err != nil {
			t.Fatal(err)
		}
	}
	_, err = conn.ExecContext(ctx, fmt.Sprintf("SELECT pg_advisory_unlock(%d, hashtext(current_schema()))", changesLock))
	must(t, err)
	must(t, st.SetMark(ctx, "settled", ""))
	if one, err := s.Session(ctx, cookieOf("x"), now, false); err != nil || !one.Used.Equal(now.Add(time.Minute)) {
		t.Errorf("the session was used at %v, %v", one.Used, err)
	}
}
