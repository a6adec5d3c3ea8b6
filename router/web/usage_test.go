package web_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/usage"
	"switchyard/router/web"
	"switchyard/router/web/api"
)

// used is a database in which jobs ended every hour, of which one in ten left an unused runner.
type used struct {
	api.Database
	mu     sync.Mutex
	within []router.Scope
}

func (*used) FirstEnded(context.Context) (time.Time, error) { return t0.AddDate(0, 0, -100), nil }

func (b *used) Usage(_ context.Context, f router.UsageFilter, each func(*router.Used) error) error {
	b.mu.Lock()
	b.within = append(b.within, f.Within)
	b.mu.Unlock()
	asked := &router.Asked{Labels: []string{"linux", "<b>"}, MilliCPU: 2000, MemoryMB: 4096}
	for at, n := f.From, 0; at.Before(f.Until); at, n = at.Add(time.Hour), n+1 {
		u := router.Used{Group: []string{"acme/web", "<i>x"}[n%2], EndedAt: at, Queued: time.Minute, Started: true, Held: 30 * time.Minute, Reserved: true, Asked: asked}
		if err := each(&u); err != nil {
			return err
		}
		if n%10 == 0 {
			if err := each(&router.Used{Unused: true, Group: u.Group, EndedAt: at, Held: 30 * time.Minute, Reserved: true, Asked: asked}); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestUsageIsAPageAndAnAnswer(t *testing.T) {
	db := &used{}
	s := serve(t, func(c *web.Config) {
		db.Database, c.Database = c.Database, db
		c.Now = func() time.Time { return t0 }
		c.App = ruled{&app{}, parse(t, "version: 1\nprices: { currency: EUR, cpu_hour: 0.5 }\nrules: [{ name: r, jobspec: docker-linux }]")}
	})
	page := s.counted("/usage?hours=48")
	wants(t, page, `<dt>Jobs</dt><dd>48<small>`, `<dt>Cost, EUR</dt><dd>24.00<small>2.50 wasted`, "&lt;i&gt;x", `<option value="48" selected>the last 48 hours`, "same against the period before",
		`viewBox="0 0 48 100"`, `class="band3"`, "<summary>The numbers</summary>", `<h2>Slowest queues</h2>`, `href="/api/v1/usage?by=repo&amp;since=`)
	if page := s.counted("/usage?by=label"); strings.Contains(page, "<b>linux") || !strings.Contains(page, "<bdi>&lt;b&gt;</bdi>") {
		t.Errorf("by label: %s", page)
	}
	r := decode[usage.Report](t, s.call("GET", "/usage?by=owner&since="+t0.Add(-48*time.Hour).Format(time.RFC3339), http.StatusOK))
	if r.Total.Jobs != 48 || r.Total.CPUHours.String() != "48" || r.Total.Cost.String() != "24" || r.Total.Wasted.Cost.String() != "2.5" || len(r.Rows) != 2 || r.Total.Before == nil || r.Total.Before.Cost.String() != "26.5" {
		b, _ := json.Marshal(r.Total)
		t.Errorf("%s", b)
	}
	for _, wrong := range []string{"by=team", "since=2026", "hours=1", "since=2020-01-01T00:00:00Z", "until=2020-01-01T00:00:00Z&since=2021-01-01T00:00:00Z"} {
		s.call("GET", "/usage?"+wrong, http.StatusBadRequest)
	}
	for _, wrong := range []string{"by=team", "hours=0", "hours=99999999", "q=x"} {
		s.get("/usage?"+wrong, http.StatusBadRequest)
	}
	var c web.Config
	serve(t, func(served *web.Config) { c = *served })
	c.Database = &used{Database: c.Database}
	web.PageFor(c, "/usage", router.Scope{"acme/web"})
	if got := c.Database.(*used).within; len(got) == 0 || len(got[0]) != 1 {
		t.Errorf("a team's usage was counted within %v", got)
	}
}

// countless is a database in which counting takes until nobody waits for it.
type countless struct {
	api.Database
	mu       sync.Mutex
	now, all int
}

// counts returns how many are counted now, and how many were at most.
func (b *countless) counts() (now, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now, b.all
}

func (*countless) FirstEnded(context.Context) (time.Time, error) { return time.Time{}, nil }

func (b *countless) Usage(ctx context.Context, _ router.UsageFilter, _ func(*router.Used) error) error {
	b.mu.Lock()
	b.now++
	b.all = max(b.all, b.now)
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now--
	return ctx.Err()
}

func TestUsageIsCountedForOneAfterTheOtherAndNoLongerThanTheyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &countless{}
		h := web.Handler(web.Config{App: &app{}, Database: db, Access: manyAndOne})
		ask := func(ctx context.Context, token string) int {
			req := httptest.NewRequest(http.MethodGet, "http://yard.example"+api.Prefix+"/usage", nil).WithContext(ctx)
			req.Header.Set("Authorization", "Bearer "+token)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, req)
			return rec.Code
		}
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { ask(ctx, "many questions") })
		synctest.Wait()
		if code := ask(t.Context(), "many questions"); code != http.StatusTooManyRequests {
			t.Errorf("another of the same principal is answered %d", code)
		}
		for range 20 {
			all.Go(func() { ask(ctx, "many questions") })
		}
		other := make(chan int, 1)
		all.Go(func() { other <- ask(t.Context(), "one question") })
		synctest.Wait()
		leave()
		synctest.Wait()
		if now, most := db.counts(); now != 1 || most != 1 {
			t.Errorf("%d are counted after a client left, and at most %d were; want the other principal's alone", now, most)
		}
		if code := <-other; code != http.StatusServiceUnavailable {
			t.Errorf("one that takes too long is answered %d", code)
		}
		all.Wait()
		if now, _ := db.counts(); now != 0 {
			t.Errorf("%d are still counted", now)
		}
	})
}
