package web_test

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
)

// slow is a database in which a search for jobs of the owner "slow" takes until its time is over.
type slow struct {
	api.Database
	mu       sync.Mutex
	now, all int // questions that are being answered, and the most at once
}

func (b *slow) SearchJobs(ctx context.Context, f router.JobFilter) ([]router.Job, int64, error) {
	if f.Owner != "slow" {
		return nil, 0, nil
	}
	b.mu.Lock()
	b.now++
	b.all = max(b.all, b.now)
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock()
	b.now--
	b.mu.Unlock()
	return nil, 0, ctx.Err()
}

// manyAndOne are two principals with a token each.
func manyAndOne() (*auth.Access, error) {
	return &auth.Access{Tokens: []auth.Token{
		{Name: "many", Role: auth.Viewer, SHA256: sha256.Sum256([]byte("many questions"))}, {Name: "one", Role: auth.Viewer, SHA256: sha256.Sum256([]byte("one question"))},
	}}, nil
}

func TestQuestionsWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &slow{}
		h := web.Handler(web.Config{App: &app{}, Database: db, Access: manyAndOne})
		ask := func(token, query string) *httptest.ResponseRecorder {
			req := httptest.NewRequest(http.MethodGet, "http://yard.example"+api.Prefix+"/jobs?"+query, nil).WithContext(t.Context())
			req.Header.Set("Authorization", "Bearer "+token)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, req)
			return rec
		}
		const flood = 300
		codes := map[int]int{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for range flood {
			all.Go(func() {
				rec := ask("many questions", "owner=slow")
				mu.Lock()
				defer mu.Unlock()
				codes[rec.Code]++
				if rec.Header().Get("Retry-After") != "5" || !strings.Contains(rec.Body.String(), `"status":`) {
					t.Errorf("answered %d %v %s; want Retry-After 5", rec.Code, rec.Header(), rec.Body)
				}
			})
		}
		synctest.Wait() // as many are asked as may be, the others wait or are refused
		began := time.Now()
		if rec := ask("one question", "owner=quick"); rec.Code != http.StatusOK {
			t.Errorf("another principal is answered %d %s beside a flood", rec.Code, rec.Body)
		}
		if waited := time.Since(began); waited > 2*time.Second {
			t.Errorf("another principal waits %v", waited)
		}
		all.Wait()
		if codes[http.StatusTooManyRequests] < flood-10 || codes[http.StatusServiceUnavailable] == 0 || codes[http.StatusTooManyRequests]+codes[http.StatusServiceUnavailable] != flood {
			t.Errorf("a flood is answered %v", codes)
		}
		if db.all > 4 {
			t.Errorf("%d questions were answered at once", db.all)
		}
		if rec := ask("many questions", "owner=quick"); rec.Code != http.StatusOK {
			t.Errorf("after the flood = %d %s", rec.Code, rec.Body)
		}
	})
}

// What keeps one principal from an answer is not shown to another who asks for the same page.
func TestARefusalIsOfOnePrincipal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &slow{}
		h := web.Handler(web.Config{App: &app{}, Database: quiet{db}, Access: manyAndOne})
		ask := func(ctx context.Context, token, path string) int {
			req := httptest.NewRequest(http.MethodGet, "http://yard.example"+path, nil).WithContext(ctx)
			req.Header.Set("Authorization", "Bearer "+token)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, req)
			return rec.Code
		}
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { ask(ctx, "one question", api.Prefix+"/events") })
		synctest.Wait()
		for range 8 { // not yet a crowd, but more than are answered in time
			all.Go(func() { ask(ctx, "many questions", api.Prefix+"/jobs?owner=slow") })
		}
		synctest.Wait()
		many := make(chan int, 1)
		all.Go(func() { many <- ask(ctx, "many questions", "/jobs") })
		synctest.Wait()
		if code := ask(ctx, "one question", "/jobs"); code != http.StatusOK {
			t.Errorf("another principal's page is answered %d", code)
		}
		if code := <-many; code != http.StatusTooManyRequests {
			t.Errorf("the page of the principal that asks too much is answered %d, want 429", code)
		}
		stop()
		all.Wait()
	})
}

// quiet is a database in which nothing happens.
type quiet struct{ *slow }

func (quiet) Changes(context.Context, int64, int) ([]router.Change, error) { return nil, nil }
