package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/server"
)

// post is a GitHub's memory of the deliveries it made. The zero post has no App.
type post struct {
	mu    sync.Mutex
	app   bool
	sent  []router.SentDelivery // oldest first
	page  int                   // deliveries on a page; 0: 100
	lists int
	again []int64 // redelivered
	fail  func(h router.Hook, deliveryID int64) error
}

func (p *post) OwnHooks() []router.Hook {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.app {
		return nil
	}
	return []router.Hook{{Kind: router.HookApp}}
}

func (p *post) Deliveries(_ context.Context, h router.Hook, cursor string) (page []router.SentDelivery, next string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists++
	if p.fail != nil {
		if err := p.fail(h, 0); err != nil {
			return nil, "", err
		}
	}
	size := max(p.page, 1)
	if p.page == 0 {
		size = 100
	}
	end := len(p.sent)
	if cursor != "" {
		if _, err := fmt.Sscan(cursor, &end); err != nil {
			return nil, "", err
		}
	}
	from := max(end-size, 0)
	page = slices.Clone(p.sent[from:end])
	slices.Reverse(page)
	if from > 0 {
		next = fmt.Sprint(from)
	}
	return page, next, nil
}

func (p *post) Delivery(context.Context, router.Hook, int64) ([]byte, error) {
	return nil, errors.New("not needed")
}

func (p *post) DeliveryLimit(router.Hook) (router.RateLimit, int) { return router.RateLimit{}, 0 }

func (p *post) Redeliver(_ context.Context, h router.Hook, deliveryID int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		if err := p.fail(h, deliveryID); err != nil {
			return err
		}
	}
	p.again = append(p.again, deliveryID)
	return nil
}

func (p *post) redelivered() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(slices.Values(p.again))
}

func TestDeliveriesThatNeverArrivedAreMadeAgain(t *testing.T) {
	bubble(t, testDeliveriesThatNeverArrivedAreMadeAgain)
}
func testDeliveriesThatNeverArrivedAreMadeAgain(t *testing.T) {
	now := time.Now()
	st := openStore(t)
	must(t, errOf(st.Receive(t.Context(), delivery(5, "queued", "self-hosted", "linux"))))
	must(t, errOf(st.RecordHook(t.Context(), router.Hook{Kind: router.HookApp}, now.Add(-time.Hour), now)))
	// A new database is not compared with what GitHub delivered.
	must(t, st.SetMark(t.Context(), "first look", "begun"))
	h := &hub{}
	sent := func(id int64, guid, event, action string, ok bool, ago time.Duration) {
		h.post.sent = append(h.post.sent, router.SentDelivery{ID: id, GUID: guid, At: now.Add(-ago), OK: ok, Event: event, Action: action})
	}
	h.post.app, h.post.page = true, 2
	sent(1, "too-old", "workflow_job", "queued", false, 2*time.Hour)
	sent(2, "lost", "workflow_job", "queued", false, 50*time.Minute)
	sent(3, "fine", "workflow_job", "queued", true, 49*time.Minute)
	sent(4, "mended", "workflow_job", "completed", false, 48*time.Minute)
	sent(5, "other", "push", "", false, 47*time.Minute)
	sent(6, "new", "workflow_job", "paused", false, 46*time.Minute)
	sent(7, "mended", "workflow_job", "completed", true, 45*time.Minute)
	sent(8, "queued-5", "workflow_job", "queued", false, 44*time.Minute) // stored, but not answered in time
	sent(9, "lost-twice", "workflow_job", "in_progress", false, 43*time.Minute)
	sent(10, "lost-twice", "workflow_job", "in_progress", false, 42*time.Minute)
	r := start(t, st, &cluster{}, h, func(c *server.Config) { c.Deliveries = 10 * time.Millisecond })
	eventually(t, "redeliveries", func() bool { return len(h.post.redelivered()) >= 2 })
	eventually(t, "another sweep", func() bool {
		h.post.mu.Lock()
		defer h.post.mu.Unlock()
		return h.post.lists > 12
	})
	if got, want := h.post.redelivered(), []int64{2, 10}; !slices.Equal(got, want) {
		t.Errorf("redelivered %v, want %v, each once until its next try is due", got, want)
	}
	eventually(t, "the webhook is swept up to two minutes before the newest", func() bool {
		hooks, err := st.Hooks(t.Context())
		return err == nil && len(hooks) == 1 && hooks[0].Cursor == "" && hooks[0].Swept.Equal(now.Add(-44*time.Minute).Truncate(time.Millisecond).UTC())
	})
	r.Stop()
}

func TestARedeliveryIsTriedSomeTimesWithABackOff(t *testing.T) {
	bubble(t, testARedeliveryIsTriedSomeTimesWithABackOff)
}
func testARedeliveryIsTriedSomeTimesWithABackOff(t *testing.T) {
	st := openStore(t)
	h := &hub{}
	h.post.app = true
	begin := time.Now()
	h.post.sent = []router.SentDelivery{{ID: 1, GUID: "lost", At: begin, Event: "workflow_job", Action: "queued"}}
	var clock struct {
		sync.Mutex
		ahead time.Duration
	}
	start(t, st, &cluster{}, h, func(c *server.Config) {
		c.Deliveries = 5 * time.Millisecond
		c.Now = func() time.Time {
			clock.Lock()
			defer clock.Unlock()
			return begin.Add(clock.ahead)
		}
	})
	lists := func() int {
		h.post.mu.Lock()
		defer h.post.mu.Unlock()
		return h.post.lists
	}
	var at []time.Duration
	tries := 0
	for minute := time.Duration(0); minute < 200; minute += 5 {
		clock.Lock()
		clock.ahead = minute * time.Minute
		clock.Unlock()
		seen := lists()
		eventually(t, "two more sweeps", func() bool { return lists() > seen+2 })
		if n := len(h.post.redelivered()); n > tries {
			tries, at = n, append(at, minute)
		}
	}
	if want := []time.Duration{0, 5, 15, 35, 75}; !slices.Equal(at, want) || tries != 5 {
		t.Errorf("tried %d times, in minutes %v, want %v", tries, at, want)
	}
}

func TestAHookThatCannotBeReadKeepsNoOtherFromBeingSo(t *testing.T) {
	bubble(t, testAHookThatCannotBeReadKeepsNoOtherFromBeingSo)
}
func testAHookThatCannotBeReadKeepsNoOtherFromBeingSo(t *testing.T) {
	st := openStore(t)
	h := &hub{}
	bad := router.Hook{Kind: router.HookOrganization, ID: 1, Owner: "acme"}
	h.post.sent = []router.SentDelivery{{ID: 1, GUID: "lost", At: time.Now(), Event: "workflow_job", Action: "queued"}}
	h.post.fail = func(h router.Hook, _ int64) error {
		if h == bad {
			return &router.FixError{Fix: "give it", Err: errors.New("403")}
		}
		return nil
	}
	r := start(t, st, &cluster{}, h, func(c *server.Config) { c.Deliveries = 10 * time.Millisecond })
	for i, hook := range []router.Hook{bad, {Kind: router.HookRepository, ID: 2, Owner: "acme", Repo: "web"}, {Kind: router.HookApp}, {}} {
		d := delivery(int64(i+1), "queued", "ubuntu-latest")
		d.Hook = hook
		r.deliver(d)
	}
	eventually(t, "a redelivery", func() bool { return len(h.post.redelivered()) == 1 })
	hooks, err := st.Hooks(t.Context())
	if err != nil || len(hooks) != 2 {
		t.Errorf("hooks are %+v, err %v, want two: who has a token does not see an App's", hooks, err)
	}
}

// later has a router live so much later than the store was written.
func later(d time.Duration) func(*server.Config) {
	return func(c *server.Config) { c.Now = func() time.Time { return time.Now().Add(d) } }
}

// prove makes a hook known whose deliveries GitHub has listed.
func prove(t *testing.T, st Store, h router.Hook) {
	t.Helper()
	now := time.Now()
	if known, err := st.RecordHook(t.Context(), h, now, now.Add(time.Duration(h.ID)*time.Second)); !known || err != nil {
		t.Fatalf("RecordHook(%s) = %t, %v", h, known, err)
	}
	must(t, st.Swept(t.Context(), router.HookSweep{Hook: h, Swept: now, Proved: true}, nil, now))
}

func TestManyHooksAreSweptInTurn(t *testing.T) { bubble(t, testManyHooksAreSweptInTurn) }
func testManyHooksAreSweptInTurn(t *testing.T) {
	st := openStore(t)
	for id := int64(1); id <= 120; id++ {
		prove(t, st, router.Hook{Kind: router.HookRepository, ID: id, Owner: "acme", Repo: fmt.Sprint("r", id)})
	}
	var mu sync.Mutex
	swept := map[int64]int{}
	h := &hub{}
	h.post.fail = func(h router.Hook, _ int64) error {
		mu.Lock()
		defer mu.Unlock()
		swept[h.ID]++
		return nil
	}
	sweeps := func(n int) {
		r := start(t, st, &cluster{}, h, func(c *server.Config) { c.Deliveries = time.Second })
		time.Sleep(time.Duration(n)*time.Second - time.Second/2)
		r.Stop()
	}
	sweeps(1)
	if len(swept) != 120 {
		t.Errorf("%d webhooks were swept at the start, want all", len(swept))
	}
	clear(swept)
	sweeps(2)
	for id, n := range swept {
		if fiftieth := id > 70; n == 2 != fiftieth { // those heard of last
			t.Errorf("webhook %d was swept %d times", id, n)
		}
	}
	clear(swept)
	sweeps(20)
	for id, n := range swept {
		if d := n - swept[1]; d < -1 || d > 1 {
			t.Errorf("webhook %d was swept %d times, the first one %d", id, n, swept[1])
		}
	}
}

// Which webhook a delivery came by is in headers that nobody signed.
func TestHeadersThatNobodySignedChangeNoHook(t *testing.T) {
	bubble(t, testHeadersThatNobodySignedChangeNoHook)
}
func testHeadersThatNobodySignedChangeNoHook(t *testing.T) {
	st := openStore(t)
	web := router.Hook{Kind: router.HookRepository, ID: 42, Owner: "acme", Repo: "web"}
	prove(t, st, web)
	h := &hub{}
	h.post.app = true
	asked := map[router.Hook]int{}
	h.post.fail = func(h router.Hook, _ int64) error {
		asked[h]++
		if h.Kind == router.HookApp || h == web {
			return nil
		}
		return fmt.Errorf("%w: 404 Not Found", router.ErrNotFound)
	}
	var log strings.Builder
	r := start(t, st, &cluster{}, h, func(c *server.Config) {
		c.Deliveries, c.Logger = 10*time.Second, slog.New(slog.NewTextHandler(&log, nil))
	})
	time.Sleep(time.Second) // the sweep of the start
	synctest.Wait()
	clear(asked)
	// One who saw a delivery of acme/api sends it as if it came by webhooks of his choice.
	forge := func(from int64) {
		for id := from; id < from+300; id++ {
			d := delivery(1, "completed", "self-hosted", "linux")
			d.ID = fmt.Sprint("again-", id)
			d.Job.Repo.Name, d.Job.Repo.FullName = "api", "acme/api"
			d.Hook = router.Hook{Kind: router.HookRepository, ID: id, Owner: "acme", Repo: "api"}
			r.deliver(d)
			time.Sleep(10 * time.Millisecond)
		}
	}
	forge(1)
	hooks, err := st.Hooks(t.Context())
	if err != nil || len(hooks) != 2+router.MaxUnprovedHooks || !slices.ContainsFunc(hooks, func(h router.HookSweep) bool { return h.Hook == web && h.Proved }) {
		t.Fatalf("the store has %d webhooks: %+v, %v; want the App's, the one of acme/web, and few others", len(hooks), hooks, err)
	}
	time.Sleep(10 * time.Second) // a sweep
	forge(1)                     // the same again, within the hour
	time.Sleep(10 * time.Second)
	r.Stop()
	if asked[web] == 0 || asked[router.Hook{Kind: router.HookApp}] == 0 || len(asked) > 2+2*router.MaxUnprovedHooks {
		t.Errorf("GitHub was asked about %v, want the App's webhook, the one of acme/web, and few others", asked)
	}
	for h, n := range asked {
		if h.Kind == router.HookRepository && h != web && n > 1 {
			t.Errorf("GitHub was asked %d times about %s, which it does not know", n, h)
		}
	}
	if hooks, err := st.Hooks(t.Context()); err != nil || len(hooks) != 2 {
		t.Errorf("the store has %+v, %v; want the App's webhook and the one of acme/web", hooks, err)
	}
	if n := strings.Count(log.String(), "forgot webhooks"); n != 2 || len(log.String()) > 400_000 {
		t.Errorf("%d lines tell of webhooks that GitHub does not know, want one for each sweep that met some:\n%s", n, log.String())
	}
}

// What fails of many webhooks is one line, and no long one.
func TestTheLogOfASweepIsShort(t *testing.T) { bubble(t, testTheLogOfASweepIsShort) }
func testTheLogOfASweepIsShort(t *testing.T) {
	st := openStore(t)
	for id := int64(1); id <= 200; id++ {
		prove(t, st, router.Hook{Kind: router.HookRepository, ID: id, Owner: "acme", Repo: fmt.Sprint("r", id)})
	}
	h := &hub{}
	h.post.fail = func(h router.Hook, _ int64) error {
		return &router.FixError{Fix: "give it", Err: fmt.Errorf("list the deliveries of %s: %s", h, strings.Repeat("long ", 60))}
	}
	var log strings.Builder
	r := start(t, st, &cluster{}, h, func(c *server.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	time.Sleep(10 * time.Second)
	r.Stop()
	said := ""
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "cannot ask github for lost deliveries") {
			said += line
		}
	}
	if !strings.Contains(said, "200 of 200 webhooks, such as webhook 200 of repository acme/r200") || len(said) > 1000 {
		t.Errorf("the log says %d bytes: %s", len(said), said)
	}
}

// A copy of the database does not know what came after it was made, and GitHub
// has all of it as arrived.
func TestAtTheStartWhatTheDatabaseLacksIsDeliveredAgain(t *testing.T) {
	bubble(t, testAtTheStartWhatTheDatabaseLacksIsDeliveredAgain)
}
func testAtTheStartWhatTheDatabaseLacksIsDeliveredAgain(t *testing.T) {
	now := time.Now()
	st := openStore(t)
	if _, err := st.Receive(t.Context(), delivery(5, "queued", "self-hosted", "linux")); err != nil { // of now
		t.Fatal(err)
	}
	h := &hub{}
	h.post.app, h.post.page = true, 2
	sent := func(id int64, guid, action string, after time.Duration) {
		h.post.sent = append(h.post.sent, router.SentDelivery{ID: id, GUID: guid, At: now.Add(after), OK: true, Event: "workflow_job", Action: action})
	}
	sent(1, "before", "queued", -3*time.Hour) // the sweeps of then saw it
	sent(2, "queued-5", "queued", 0)
	sent(3, "later", "queued", time.Minute)
	sent(4, "later-ended", "completed", 2*time.Minute)
	sent(5, "later", "queued", 3*time.Minute) // another attempt
	sent(6, "last", "queued", 50*time.Minute)
	r := start(t, st, &cluster{}, h, later(time.Hour), func(c *server.Config) { c.Deliveries = 10 * time.Second })
	time.Sleep(5 * time.Second)
	if got, want := h.post.redelivered(), []int64{4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("redelivered %v, want %v", got, want)
	}
	h.post.mu.Lock()
	sent(7, "another's", "queued", time.Hour+10*time.Second) // answered, whoever did
	h.post.again = nil
	h.post.mu.Unlock()
	time.Sleep(10 * time.Second) // another sweep
	if got := h.post.redelivered(); len(got) > 0 {
		t.Errorf("redelivered %v after the start, though it was answered", got)
	}
	r.Stop()
}

// What no list of deliveries has is read from GitHub itself.
func TestAtTheStartAFullLookIsTakenWhereDeliveriesDoNotReach(t *testing.T) {
	forbidden := &router.FixError{Fix: "give it", Err: errors.New("403")}
	hook := func(repo string) router.Hook {
		return router.Hook{Kind: router.HookRepository, ID: int64(len(repo)), Owner: "acme", Repo: repo}
	}
	for _, tt := range []struct {
		name  string
		hooks []router.Hook
		fail  func(router.Hook) error
		away  time.Duration // since the last record
		want  []string
	}{
		{"all webhooks are read", []router.Hook{hook("web")}, func(router.Hook) error { return nil }, 2 * time.Hour, nil},
		{"GitHub does not list what is older", []router.Hook{hook("web")}, func(router.Hook) error { return nil }, 80 * time.Hour, []string{"acme/web"}},
		{"no webhook is known", nil, nil, 2 * time.Hour, []string{"acme/web"}},
		{"none is known, and it is a moment", nil, nil, time.Minute, nil},
		{"the webhook is not read", []router.Hook{hook("web")}, func(router.Hook) error { return forbidden }, 2 * time.Hour, []string{"acme/web"}},
		{"another's is not", []router.Hook{hook("web"), hook("other")}, func(h router.Hook) error {
			if h.Repo == "other" {
				return forbidden
			}
			return nil
		}, 2 * time.Hour, nil},
		{"GitHub is away", []router.Hook{hook("web")}, func(router.Hook) error { return errors.New("502") }, 2 * time.Hour, nil},
	} {
		virtual(t, tt.name, func(t *testing.T) {
			st := openStore(t)
			must(t, errOf(st.Receive(t.Context(), delivery(5, "queued", "self-hosted", "linux"))))
			for _, h := range tt.hooks {
				prove(t, st, h)
			}
			h := &hub{}
			h.index.runs = map[string][]router.Delivery{"acme/web": {says(9, "queued", "self-hosted", "linux")}}
			if tt.fail != nil {
				h.post.fail = func(h router.Hook, _ int64) error { return tt.fail(h) }
			}
			r := start(t, st, &cluster{}, h, later(tt.away))
			time.Sleep(10 * time.Second)
			if got := h.index.looked(); !slices.Equal(got, tt.want) {
				t.Errorf("synced %v, want %v", got, tt.want)
			}
			if _, err := st.Job(t.Context(), 9); (err == nil) != (tt.want != nil) {
				t.Errorf("the job that waits on GitHub: %v", err)
			}
			r.Stop()
		})
	}
}
