package web_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/testnet"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is where the servers of these tests listen; httpClient asks on it.
var (
	network    testnet.Net
	httpClient = &http.Client{Transport: &http.Transport{DialContext: network.Dial, DisableKeepAlives: true}}
)

// virtual runs a subtest on a clock of its own, which moves on when all it started waits.
func virtual(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// changing is a database of which only the changes matter. Only those of even jobs
// are of acme.
type changing struct {
	*store.Store
	looks atomic.Int32

	mu   sync.Mutex
	last int64
}

func (b *changing) change(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last += n
}

func (b *changing) Changes(_ context.Context, after int64, limit int) (list []router.Change, _ error) {
	b.looks.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if after < 0 {
		after = b.last - 1
	}
	for id := after + 1; id <= b.last && len(list) < limit; id++ {
		list = append(list, router.Change{
			ID: id, Event: router.Event{JobID: id, At: t0, Source: router.SourceRouter, State: "queued", What: "a\nb"},
			Repo: router.Repo{Owner: map[bool]string{true: "acme", false: "beta"}[id%2 == 0], Name: "web"},
		})
	}
	return list, nil
}

// stopping is an app that can stop.
type stopping struct {
	app
	stops chan struct{}
}

func (s *stopping) Stopping() <-chan struct{} { return s.stops }

// followed is a server, which change may give timeouts.
func followed(t *testing.T, change ...func(*http.Server)) (url string, db *changing, app *stopping) {
	t.Helper()
	db, app = &changing{last: 7}, &stopping{stops: make(chan struct{})}
	url = network.Serve(t, web.Handler(web.Config{App: app, Database: db}), change...)
	return url + api.Prefix + "/events", db, app
}

// A follower reads one stream.
type follower struct {
	*bufio.Reader
	io.Closer
	t *testing.T
}

func follow(t *testing.T, url, lastID string, token ...string) *follower {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	for _, secret := range token {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := httpClient.Do(req)
	must(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream is answered %s", resp.Status)
	}
	f := &follower{bufio.NewReader(resp.Body), resp.Body, t}
	if got := f.next(); got != "retry: 2000" {
		t.Fatalf("the stream begins with %q", got)
	}
	return f
}

// next is the next event, its lines in one; "" at the end.
func (f *follower) next() string {
	f.t.Helper()
	var lines []string
	for {
		line, err := f.ReadString('\n')
		if err != nil {
			return ""
		}
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			return strings.Join(lines, " | ")
		}
		lines = append(lines, line)
	}
}

func changed(id int64) string {
	return fmt.Sprintf(`id: %d | event: change | data: {"id":%d,"job_id":%d,"at":"2026-03-01T12:00:00Z","source":"router","runner":"","state":"queued","what":"a\nb"}`, id, id, id)
}

// All follow by one read at a time, for longer than a request may take, and
// end when the server stops, so that it is not kept.
func TestManyFollowByOneLook(t *testing.T) { synctest.Test(t, testManyFollowByOneLook) }

func testManyFollowByOneLook(t *testing.T) {
	const short = 300 * time.Millisecond
	url, db, app := followed(t, func(s *http.Server) { s.ReadTimeout, s.WriteTimeout = short, short })
	var all []*follower
	for range 100 {
		all = append(all, follow(t, url, ""))
	}
	began, before := time.Now(), db.looks.Load()
	var got sync.WaitGroup
	for round := int64(1); round <= 2; round++ {
		db.change(1)
		for _, f := range all {
			got.Go(func() {
				if line := f.next(); line != changed(7+round) {
					t.Errorf("told %q, want %q", line, changed(7+round))
				}
			})
		}
		got.Wait()
		time.Sleep(time.Until(began.Add(time.Duration(round) * 3 * short))) // quiet for longer than the server waits
	}
	if looks, most := db.looks.Load()-before, time.Since(began)/(400*time.Millisecond)+3; looks > int32(most) {
		t.Errorf("%d reads of the database for %d who follow in %v", looks, len(all), time.Since(began))
	}
	close(app.stops)
	for _, f := range all {
		if line := f.next(); line != "" {
			t.Errorf("told %q as the server stops, want the end", line)
		}
	}
}

func TestWhoComesBackIsToldWhatHeMissed(t *testing.T) {
	synctest.Test(t, testWhoComesBackIsToldWhatHeMissed)
}

func testWhoComesBackIsToldWhatHeMissed(t *testing.T) {
	url, db, _ := followed(t)
	f := follow(t, url, "5")
	for _, id := range []int64{6, 7} {
		if got := f.next(); got != changed(id) {
			t.Errorf("told %q, want %q", got, changed(id))
		}
	}
	db.change(1)
	if got := f.next(); got != changed(8) {
		t.Errorf("then told %q, want %q", got, changed(8))
	}
	db.change(5000)
	if got := follow(t, url, "8").next(); got != "event: reset | data: {}" {
		t.Errorf("a client that missed thousands receives %q", got)
	}
	for _, id := range []string{"x", "-1"} {
		req := httptest.NewRequest(http.MethodGet, url, nil)
		req.Header.Set("Last-Event-ID", id)
		rec := httptest.NewRecorder()
		web.Handler(web.Config{App: &app{}, Database: db}).ServeHTTP(rec, req)
		if rec.Code != http.StatusBadRequest {
			t.Errorf("Last-Event-ID %s is answered %d", id, rec.Code)
		}
	}
}

// Who does not read is let go, and keeps no one else.
func TestASlowClientIsLetGo(t *testing.T) { synctest.Test(t, testASlowClientIsLetGo) }

func testASlowClientIsLetGo(t *testing.T) {
	url, db, _ := followed(t)
	quick, slow := follow(t, url, ""), make(chan struct{})
	go func() { // a client with a body that is not read: its writes block once the network is full
		defer close(slow)
		web.Handler(web.Config{App: &app{}, Database: db}).ServeHTTP(&stuck{t: t}, httptest.NewRequest(http.MethodGet, url, nil).WithContext(t.Context()))
	}()
	want := int64(7)
	for over := false; !over; {
		db.change(100)
		for range 100 {
			want++
			if id := quick.id(); id != want {
				t.Fatalf("the quick one receives %d, want %d", id, want)
			}
		}
		select {
		case <-slow:
			over = true
		default:
		}
	}
}

// stuck is a client that takes the beginning of the stream, and then nothing
// until its write deadline.
type stuck struct {
	t        *testing.T
	header   http.Header
	deadline time.Time
	begun    bool
}

func (s *stuck) Header() http.Header {
	if s.header == nil {
		s.header = http.Header{}
	}
	return s.header
}
func (s *stuck) WriteHeader(int) {}
func (s *stuck) Flush()          {}
func (s *stuck) SetWriteDeadline(at time.Time) error {
	s.deadline = at
	return nil
}
func (s *stuck) Write(b []byte) (int, error) {
	if !s.begun {
		s.begun = true
		return len(b), nil
	}
	if s.deadline.IsZero() || time.Until(s.deadline) > time.Minute {
		s.t.Error("a write has no deadline of its own")
	}
	return 0, os.ErrDeadlineExceeded
}

func (f *follower) id() (id int64) {
	_, data, _ := strings.Cut(f.next(), "data: ")
	var c api.Change
	_ = json.Unmarshal([]byte(data), &c) // "" at the end
	return c.ID
}

// Whoever may not see it any more, or sees other repositories, follows no longer.
func TestAStreamEndsWithTheRightToIt(t *testing.T) {
	for name, change := range map[string]func(*auth.Access){
		"the token is taken away": func(acc *auth.Access) { acc.Tokens = nil },
		"the scope is another":    func(acc *auth.Access) { acc.Tokens[0].Repos = router.Scope{"acme/*"} },
	} {
		virtual(t, name, func(t *testing.T) {
			var access atomic.Pointer[auth.Access]
			tokens := func() *auth.Access {
				return &auth.Access{Tokens: []auth.Token{{Name: "team", Role: auth.Viewer, SHA256: sha256.Sum256([]byte("a secret"))}}}
			}
			access.Store(tokens())
			url := network.Serve(t, web.Handler(web.Config{
				App: &app{}, Database: &changing{}, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Access: func() (*auth.Access, error) { return access.Load(), nil },
				Heartbeat: time.Second,
			}))
			f := follow(t, url+api.Prefix+"/events", "", "a secret")
			for range 3 {
				if got := f.next(); got != ": still here" {
					t.Fatalf("told %q", got)
				}
			}
			less := tokens()
			change(less)
			access.Store(less)
			for f.next() != "" { // it ends
			}
		})
	}
}

// An open page asks for changes, and then for itself, for as long as it is open:
// that keeps nobody logged in.
func TestAnOpenPageKeepsNobodyLoggedIn(t *testing.T) {
	virtual(t, "the page of what happens now", func(t *testing.T) {
		acc := staff()
		db := &changing{}
		handler := web.Handler(web.Config{
			App: &app{}, Database: db, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Access: func() (*auth.Access, error) { return acc, nil },
		})
		s := &server{t: t, handler: handler}
		in := s.ask("POST", "/login", "", form("token", tokenOf("viewer")))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, network.Serve(t, handler)+api.Prefix+"/events", nil)
		must(t, err)
		cookies(in)(request)
		resp, err := httpClient.Do(request)
		must(t, err)
		defer resp.Body.Close()
		ended := make(chan time.Time, 1)
		began := time.Now()
		go func() {
			_, _ = io.Copy(io.Discard, resp.Body)
			ended <- time.Now()
		}()
		refresh := func() int {
			return s.ask("GET", "/api/v1/openapi.json", "", cookies(in), func(req *http.Request) { req.Header.Set("X-Switchyard-Refresh", "1") }).Code
		}
		for time.Since(began) < 59*time.Minute {
			time.Sleep(time.Minute)
			if got := refresh(); got != http.StatusOK {
				t.Fatalf("after %v = %d", time.Since(began), got)
			}
		}
		if open := (<-ended).Sub(began); open < time.Hour || open > time.Hour+time.Minute {
			t.Errorf("the stream ended after %v, want an hour without use", open)
		}
		if got := refresh(); got != http.StatusUnauthorized {
			t.Errorf("after an hour without use = %d, want 401", got)
		}
	})
}

func TestOneViewerDoesNotTakeAllStreams(t *testing.T) {
	synctest.Test(t, testOneViewerDoesNotTakeAllStreams)
}

func testOneViewerDoesNotTakeAllStreams(t *testing.T) {
	access := &auth.Access{}
	for i := range 6 {
		access.Tokens = append(access.Tokens, auth.Token{Name: fmt.Sprint("viewer", i), Role: auth.Viewer, SHA256: sha256.Sum256([]byte(fmt.Sprint("a secret", i)))})
	}
	db, app := &changing{last: 7}, &stopping{stops: make(chan struct{})}
	url := network.Serve(t, web.Handler(web.Config{App: app, Database: db, Access: func() (*auth.Access, error) { return access, nil }})) + api.Prefix + "/events"
	var all []*follower
	for range 100 {
		all = append(all, follow(t, url, "", "a secret0"))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer a secret0")
	resp, err := httpClient.Do(req)
	must(t, err)
	b, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(b), "viewer0 already has 100 streams") || resp.Header.Get("Retry-After") != "30" {
		t.Errorf("the 101st of a viewer is answered %s %s %v", resp.Status, b, resp.Header)
	}
	for i := range 401 { // the last one is of a viewer with none, and takes one from another
		all = append(all, follow(t, url, "", fmt.Sprint("a secret", 1+i/100)))
	}
	synctest.Wait()
	db.change(1)
	told := 0
	for _, f := range all {
		if f.next() != "" {
			told++
		}
	}
	if told != 500 {
		t.Errorf("%d receive a change, want 500", told)
	}
	close(app.stops)
	for _, f := range all {
		f.next()
	}
}
