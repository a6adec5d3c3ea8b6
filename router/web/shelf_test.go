package web_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/web"
	"switchyard/router/web/api"
)

// counting is a database that counts searches for jobs.
type counting struct {
	*store.Store
	finds atomic.Int32
}

func (b *counting) SearchJobs(ctx context.Context, f router.JobFilter) ([]router.Job, int64, error) {
	b.finds.Add(1)
	return b.Store.SearchJobs(ctx, f)
}

// While clients follow the stream, all open pages are answered by one search of the
// database for each change, and never with what was before it.
func TestReadersOfTheSamePageShareASearch(t *testing.T) {
	synctest.Test(t, testReadersOfTheSamePageShareASearch)
}

func testReadersOfTheSamePageShareASearch(t *testing.T) {
	db, st := &counting{}, (*store.Store)(nil)
	s := serve(t, func(c *web.Config) {
		st = c.Database.(placeless).Store
		db.Store = st
		c.Database, c.Now = db, func() time.Time { return t0.Add(9 * time.Hour) }
	})
	url := network.Serve(t, s.handler)
	look := func(want string) {
		t.Helper()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if body := s.get("/jobs", http.StatusOK); !strings.Contains(body, want) || !strings.Contains(body, "<title>Jobs ") {
					t.Errorf("the page has no %q:\n%s", want, body)
				}
			})
		}
		all.Wait()
	}
	look("acme/web")
	if n := db.finds.Swap(0); n != 20 {
		t.Errorf("nobody follows, and 20 pages took %d looks", n)
	}
	f := follow(t, url+api.Prefix+"/events", "")
	look("acme/web")
	if n := db.finds.Swap(0); n != 1 {
		t.Errorf("20 pages took %d looks, want 1", n)
	}
	for _, reason := range []string{"the first reason", "the second reason"} {
		id := map[string]int64{"the first reason": 3, "the second reason": 4}[reason]
		must(t, st.Settle(t.Context(), id, router.Denied, "", reason, &router.Decision{Outcome: "denied", Rule: "no", Reason: reason}, t0))
		if f.next() == "" {
			t.Fatal("the stream has ended")
		}
		look(reason)
		if n := db.finds.Swap(0); n != 1 {
			t.Errorf("after a change 20 pages took %d looks, want 1", n)
		}
	}
	s.get("/jobs?state=queued", http.StatusOK)
	if n := db.finds.Load(); n != 1 {
		t.Errorf("another page took %d looks, want its own", n)
	}
}
