package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
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

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

// draftYard is a server on the tests' network that takes drafts of the staff.
func draftYard(t *testing.T, b *book) (send func(name string, body io.Reader, length int64) *http.Response) {
	acc := staff()
	url := network.Serve(t, web.Handler(web.Config{App: &app{}, Rulebook: b, Logger: slog.New(slog.DiscardHandler), Access: func() (*auth.Access, error) { return acc, nil }}))
	return func(name string, body io.Reader, length int64) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+api.Prefix+"/check", body)
		must(t, err)
		req.ContentLength = length
		req.Header.Set("Authorization", "Bearer "+tokenOf(name))
		resp, err := httpClient.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return &http.Response{Body: http.NoBody}
		}
		_ = resp.Body.Close()
		return resp
	}
}

const someDraft = `{"files": [{"name": "rules.yaml", "source": "version: 1\nlabels: { linux: {} }\nrules:\n  - { name: all, if: has(\"linux\"), deny: no }\n"}]}`

// stalled is a body that never comes to its end.
func stalled(t *testing.T) io.Reader {
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	return r
}

// One principal's drafts that do not arrive keep no other's from being checked.
func TestDraftsThatStallKeepNobodyOut(t *testing.T) {
	synctest.Test(t, testDraftsThatStallKeepNobodyOut)
}

func testDraftsThatStallKeepNobodyOut(t *testing.T) {
	b := newBook()
	send := draftYard(t, b)
	began := time.Now()
	var all sync.WaitGroup
	statuses := make(chan int, 300)
	for range 280 {
		all.Go(func() {
			resp := send("viewer", stalled(t), 1000)
			if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			statuses <- resp.StatusCode
		})
	}
	synctest.Wait()
	if n := len(statuses); n != 276 { // all but the one that is read, and three that wait
		t.Errorf("%d of 280 were refused at once, want 276", n)
	}
	if resp := send("editor", strings.NewReader(someDraft), int64(len(someDraft))); resp.StatusCode != http.StatusOK || time.Since(began) > 0 {
		t.Errorf("another's draft was answered %d after %v, want 200 at once", resp.StatusCode, time.Since(began))
	}
	// With a second one that stalls, both places are taken, for as long as a draft may take to arrive.
	all.Go(func() { statuses <- send("operator", stalled(t), 1000).StatusCode })
	synctest.Wait()
	time.Sleep(time.Second)
	if resp := send("editor", strings.NewReader(someDraft), int64(len(someDraft))); resp.StatusCode != http.StatusOK || time.Since(began) != 10*time.Second {
		t.Errorf("another's draft was answered %d after %v, want 200 after 10s", resp.StatusCode, time.Since(began))
	}
	all.Wait()
	close(statuses)
	count := map[int]int{}
	for status := range statuses {
		count[status]++
	}
	if count[http.StatusRequestTimeout] < 2 || count[http.StatusRequestTimeout]+count[http.StatusTooManyRequests] != 281 {
		t.Errorf("drafts that stalled were answered %v", count)
	}
	if n := b.checks.Load(); n != 2 {
		t.Errorf("%d drafts were checked, want 2", n)
	}
}

// Of one principal one draft is checked at a time, and of all: the next waits for its turn.
func TestOneDraftIsLookedAtAtATime(t *testing.T) { synctest.Test(t, testOneDraftIsLookedAtAtATime) }

func testOneDraftIsLookedAtAtATime(t *testing.T) {
	b := newBook()
	b.checking = make(chan struct{})
	send := draftYard(t, b)
	var all sync.WaitGroup
	var answered atomic.Int32
	for _, who := range []string{"viewer", "viewer", "editor"} {
		all.Go(func() {
			if resp := send(who, strings.NewReader(someDraft), int64(len(someDraft))); resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %s", who, resp.Status)
			}
			answered.Add(1)
		})
	}
	for i := range int32(3) {
		synctest.Wait()
		if looked := b.checks.Load(); looked != i+1 || answered.Load() != i {
			t.Errorf("%d drafts are checked, and %d answered; want %d and %d", looked, answered.Load(), i+1, i)
		}
		b.checking <- struct{}{}
	}
	all.Wait()
}

// A patient book checks a draft until its context ends.
type patient struct {
	*book
	jobs int // that it yields before it blocks
}

func (p patient) Check(ctx context.Context, files []rules.File) (router.RulesCheck, *rules.Set, error) {
	if p.jobs > 0 {
		return p.book.Check(ctx, files)
	}
	<-ctx.Done()
	return router.RulesCheck{}, nil, ctx.Err()
}

func (p patient) Recent(ctx context.Context, _ time.Time, _ router.Scope) iter.Seq2[rules.Record, error] {
	return func(yield func(rules.Record, error) bool) {
		for i := range p.jobs {
			if !yield(record(int64(i), "acme", "self-hosted", "linux"), nil) {
				return
			}
		}
		<-ctx.Done()
		yield(rules.Record{}, fmt.Errorf("read the jobs: %w", ctx.Err()))
	}
}

// A check that takes too long says so after 10 seconds, with what it found until then.
func TestACheckHasItsTime(t *testing.T) {
	virtual(t, "a check", func(t *testing.T) {
		s := serveBook(t, patient{book: newBook()})
		began := time.Now()
		c := decode[router.RulesCheck](t, s.call("POST", "/check", http.StatusOK, asJSON(drafted(goodRules))))
		if c.Good || len(c.Findings) != 1 || !strings.Contains(c.Findings[0].Message, "takes more than 10s: it was not fully checked") || time.Since(began) != 10*time.Second {
			t.Errorf("after %v: %+v", time.Since(began), c)
		}
	})
	virtual(t, "an impact", func(t *testing.T) {
		s := serveBook(t, patient{newBook(), 300})
		began := time.Now()
		i := decode[api.Impact](t, s.call("POST", "/diff", http.StatusOK, asJSON(drafted(goodRules))))
		if !i.Capped || i.Jobs == 0 || time.Since(began) != 10*time.Second {
			t.Errorf("after %v: %+v", time.Since(began), i)
		}
	})
	virtual(t, "an impact without a job", func(t *testing.T) {
		s := serveBook(t, patient{newBook(), 1})
		s.call("POST", "/diff", http.StatusServiceUnavailable, asJSON(drafted(goodRules)))
	})
	virtual(t, "an impact for which the check leaves no time", func(t *testing.T) {
		s := serveBook(t, patient{book: newBook()})
		p := decode[problem.Details](t, s.call("POST", "/diff", http.StatusServiceUnavailable, asJSON(drafted(goodRules))))
		if !strings.Contains(p.Detail, "used up its 10s, and no job was decided") {
			t.Errorf("the API says %s", p.Detail)
		}
		page, _ := s.submit("/rules", draft("impact", "hash1", goodRules), http.StatusOK)
		wants(t, page, "takes more than 10s: it was not fully checked", "Checking the draft took all its time, so no job was decided by it.")
	})
	virtual(t, "nobody waits", func(t *testing.T) {
		s := serveBook(t, patient{book: newBook()})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		s.call("POST", "/check", http.StatusServiceUnavailable, asJSON(drafted(goodRules)), func(req *http.Request) { *req = *req.WithContext(ctx) })
		if time.Since(began) != time.Second {
			t.Errorf("it was checked for %v", time.Since(began))
		}
	})
}

// A long book has jobs that take a while to read, and then ends with an error, if there is one.
type long struct {
	*book
	err error
}

func (l long) Recent(context.Context, time.Time, router.Scope) iter.Seq2[rules.Record, error] {
	return func(yield func(rules.Record, error) bool) {
		for i := range 5000 {
			time.Sleep(time.Millisecond)
			if !yield(record(int64(i), "acme", "self-hosted", "linux"), nil) {
				return
			}
		}
		if l.err != nil {
			yield(rules.Record{}, l.err)
		}
	}
}

// The page says how many jobs were looked at while they are, without a script.
func TestAnImpactShowsHowFarItIs(t *testing.T) {
	virtual(t, "it takes a while", func(t *testing.T) {
		s := serveBook(t, long{book: newBook()})
		page, _ := s.submit("/rules", draft("impact", "hash1", goodRules), http.StatusOK)
		wants(t, page, `<p class="small soft">Jobs looked at so far: <span>999</span> <span>1`+"\u202f"+`999</span>`, "</span></p>", "<strong>5000 of 5000 jobs</strong>", `id="versions"`, "</html>")
		if n := strings.Count(page, `id="impact"`); n != 1 || strings.Contains(page, "so many") {
			t.Errorf("%d impacts: %s", n, page)
		}
	})
	virtual(t, "each number is sent at once", func(t *testing.T) {
		s := serveBook(t, long{book: newBook()})
		client, server := io.Pipe()
		go func() {
			req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8081/rules", strings.NewReader(draft("impact", "hash1", goodRules).Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Sec-Fetch-Site", "same-origin")
			s.handler.ServeHTTP(piped{httptest.NewRecorder(), server}, req)
			_ = server.Close()
		}()
		began := time.Now()
		var at []string
		seen, buf := "", make([]byte, 1<<20)
		for {
			n, err := client.Read(buf)
			if seen += string(buf[:n]); strings.HasSuffix(seen, "9</span>") {
				at = append(at, time.Since(began).Round(time.Second).String())
			}
			if err != nil {
				break
			}
		}
		if got := strings.Join(at, " "); got != "1s 2s 3s 4s 5s" {
			t.Errorf("numbers came after %s", got)
		}
	})
	virtual(t, "it fails", func(t *testing.T) {
		s := serveBook(t, long{newBook(), errors.New("disk <failed>")})
		page, _ := s.submit("/rules", draft("impact", "hash1", goodRules), http.StatusOK)
		wants(t, page, "</span></p>", `<p class="state is-failure">`, "</html>")
		if strings.Contains(page, "disk") || !strings.Contains(s.log.String(), "disk <failed>") {
			t.Errorf("the log has %s", s.log.String())
		}
	})
}

// A client that does not read what it asked for takes its own time, not that of others.
func TestAViewerWhoReadsNothingHoldsUpNobody(t *testing.T) {
	virtual(t, "an editor applies meanwhile", func(t *testing.T) {
		acc := staff()
		handler := web.Handler(web.Config{
			App: &app{}, Rulebook: long{book: newBook()}, AllowEdit: true, Logger: slog.New(slog.DiscardHandler), Access: func() (*auth.Access, error) { return acc, nil },
		})
		ask := func(w http.ResponseWriter, name, do string) {
			req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8081/rules", strings.NewReader(draft(do, "hash1", goodRules).Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			as(name)(req)
			handler.ServeHTTP(w, req)
		}
		began := time.Now()
		var viewer time.Duration
		var wg sync.WaitGroup
		wg.Go(func() {
			ask(&unread{ResponseRecorder: httptest.NewRecorder()}, "viewer", "impact")
			viewer = time.Since(began)
		})
		time.Sleep(2 * time.Second)
		rec := httptest.NewRecorder()
		ask(rec, "editor", "apply")
		if took := time.Since(began); rec.Code != http.StatusSeeOther || took > 11*time.Second {
			t.Errorf("the editor is answered %d after %v", rec.Code, took)
		}
		if wg.Wait(); viewer > 21*time.Second {
			t.Errorf("the viewer is waited for for %v", viewer)
		}
	})
}

// The answers to checked and refused drafts are sent while they have their slots.
func TestAnswersThatNobodyReadsHoldUpNoDraft(t *testing.T) {
	virtual(t, "both slots are taken", func(t *testing.T) {
		acc := staff()
		handler := web.Handler(web.Config{App: &app{}, Rulebook: newBook(), Logger: slog.New(slog.DiscardHandler), Access: func() (*auth.Access, error) { return acc, nil }})
		ask := func(w http.ResponseWriter, name, path, content, body string) {
			req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8081"+path, strings.NewReader(body))
			req.Header.Set("Content-Type", content)
			as(name)(req)
			handler.ServeHTTP(w, req)
		}
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			ask(&unread{ResponseRecorder: httptest.NewRecorder()}, "viewer", "/rules", "application/x-www-form-urlencoded", draft("check", "hash1", goodRules).Encode())
		})
		wg.Go(func() {
			ask(&unread{ResponseRecorder: httptest.NewRecorder()}, "operator", api.Prefix+"/diff", "application/json", `{"files": [{"name": "rules.yaml", "source": "rules: 1"}]}`)
		})
		time.Sleep(time.Second)
		rec := httptest.NewRecorder()
		ask(rec, "editor", api.Prefix+"/check", "application/json", someDraft)
		if took := time.Since(began); rec.Code != http.StatusOK || took != 10*time.Second {
			t.Errorf("the editor is answered %d after %v, want 200 after 10s", rec.Code, took)
		}
		wg.Wait()
	})
}

// unread is a client that takes nothing until its write deadline.
type unread struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (u *unread) SetWriteDeadline(at time.Time) error {
	u.deadline = at
	return nil
}

func (u *unread) Write([]byte) (int, error) {
	if u.deadline.IsZero() {
		u.deadline = time.Now().Add(75 * time.Second) // the server's
	}
	time.Sleep(time.Until(u.deadline))
	return 0, os.ErrDeadlineExceeded
}

// piped answers what it is told to.
type piped struct {
	*httptest.ResponseRecorder
	to io.Writer
}

func (p piped) Write(b []byte) (int, error) { return p.to.Write(b) }

func serveBook(t *testing.T, b api.Rulebook) *server {
	s := &server{t: t, app: &app{}}
	s.handler = web.Handler(web.Config{App: s.app, Rulebook: b, Logger: slog.New(slog.NewTextHandler(&s.log, nil))})
	return s
}

// Of many tests those that failed are answered, and how many there were.
func TestManyTestsAreNotAllAnswered(t *testing.T) {
	s, _ := serveRules(t, false)
	var b strings.Builder
	b.WriteString(goodRules + "tests:\n")
	for i := range 700 {
		fmt.Fprintf(&b, "  - { name: t%d, labels: [self-hosted, linux], repo: acme/web, expect: { outcome: %s } }\n", i, []string{"denied", "routed"}[i%2])
	}
	c := decode[router.RulesCheck](t, s.call("POST", "/check", http.StatusOK, asJSON(drafted(b.String()))))
	if len(c.Tests.Tests) != 500 || c.Tests.Passed != 350 || c.Tests.Failed != 350 || c.Tests.Tests[349].Passed || !c.Tests.Tests[350].Passed {
		t.Errorf("%d tests, %d passed, %d failed", len(c.Tests.Tests), c.Tests.Passed, c.Tests.Failed)
	}
	page, _ := s.submit("/rules", draft("check", "hash1", b.String()), http.StatusOK)
	wants(t, page, "350 of 700 tests pass")
}
