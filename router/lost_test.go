package router_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
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

// eventually polls until ok, ever less often.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	pause, deadline := 2*time.Millisecond, time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(pause)
		pause = min(pause*5/4, 50*time.Millisecond)
	}
}

func TestDeliveriesThatNeverArrivedAreMadeAgain(t *testing.T) {
	synctest.Test(t, testDeliveriesThatNeverArrivedAreMadeAgain)
}
func testDeliveriesThatNeverArrivedAreMadeAgain(t *testing.T) {
	now := time.Now()
	st := openStore(t)
	if _, err := st.Receive(t.Context(), delivery(5, "queued", "self-hosted", "linux")); err != nil {
		t.Fatal(err)
	}
	if err := st.SawHook(t.Context(), router.Hook{Kind: router.HookApp}, now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
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
	r := start(t, st, &cluster{}, h, func(c *router.Config) { c.Deliveries = 10 * time.Millisecond })
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
	r.stop()
}

func TestARedeliveryIsTriedSomeTimesWithABackOff(t *testing.T) {
	synctest.Test(t, testARedeliveryIsTriedSomeTimesWithABackOff)
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
	start(t, st, &cluster{}, h, func(c *router.Config) {
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
	synctest.Test(t, testAHookThatCannotBeReadKeepsNoOtherFromBeingSo)
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
	r := start(t, st, &cluster{}, h, func(c *router.Config) { c.Deliveries = 10 * time.Millisecond })
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

func TestManyHooksAreSweptInTurn(t *testing.T) { synctest.Test(t, testManyHooksAreSweptInTurn) }
func testManyHooksAreSweptInTurn(t *testing.T) {
	st := openStore(t)
	for id := int64(1); id <= 120; id++ {
		if err := st.SawHook(t.Context(), router.Hook{Kind: router.HookRepository, ID: id, Owner: "acme", Repo: fmt.Sprint("r", id)}, time.Now()); err != nil {
			t.Fatal(err)
		}
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
	r := start(t, st, &cluster{}, h, func(c *router.Config) { c.Deliveries = time.Hour })
	eventually(t, "a sweep of 50", func() bool { mu.Lock(); defer mu.Unlock(); return len(swept) == 50 })
	r.stop()
	clear(swept)
	r = start(t, st, &cluster{}, h, func(c *router.Config) { c.Deliveries = 5 * time.Millisecond })
	eventually(t, "sweeps of all", func() bool { mu.Lock(); defer mu.Unlock(); return len(swept) == 120 })
	r.stop()
	for id, n := range swept {
		if d := n - swept[1]; d < -1 || d > 1 {
			t.Errorf("webhook %d was swept %d times, the first one %d", id, n, swept[1])
		}
	}
}
