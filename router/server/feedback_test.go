package server_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/rules"
)

// board is where a GitHub shows notices. The zero board takes all.
type board struct {
	mu        sync.Mutex
	notices   []router.Notice
	ids       []int64                 // given with them; 0: a new one
	shown     map[int64]router.Notice // by GitHub's ID
	refuse    func(n int) error       // the nth notice
	lose      bool                    // the next one is made, but its answer lost
	cancelled []int64                 // runs
}

func (b *board) Notice(_ context.Context, n router.Notice, id int64) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notices, b.ids = append(b.notices, n), append(b.ids, id)
	if b.refuse != nil {
		if err := b.refuse(len(b.notices)); err != nil {
			return 0, err
		}
	}
	if b.shown == nil {
		b.shown = map[int64]router.Notice{}
	}
	if id == 0 {
		id = int64(len(b.shown) + 100)
	}
	b.shown[id] = n
	if b.lose {
		b.lose = false
		return 0, errors.New("502")
	}
	return id, nil
}

func (b *board) FindNotice(_ context.Context, n router.Notice) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, s := range b.shown {
		if s.JobID == n.JobID {
			return id, nil
		}
	}
	return 0, nil
}

func (b *board) CancelRun(_ context.Context, _ router.Repo, runID int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cancelled = append(b.cancelled, runID)
	return nil
}

func (b *board) RunState(context.Context, router.Repo, int64) (router.RunState, error) {
	return router.RunState{}, router.ErrNotFound
}

func (b *board) RerunJob(context.Context, router.Repo, int64) error { return router.ErrRunning }

// of returns what is shown of a job; the zero Notice: nothing.
func (b *board) of(jobID int64) (n router.Notice) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.shown {
		if s.JobID == jobID {
			n = s
		}
	}
	return n
}

func (b *board) tries() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.notices)
}

// A shift is a clock that a test moves. It begins after what the test's
// deliveries have as their time.
type shift struct {
	mu sync.Mutex
	at time.Time
}

func newShift() *shift { return &shift{at: time.Now().Add(10 * time.Minute)} }

func (s *shift) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

func (s *shift) forward(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = s.at.Add(by)
}

// noticing starts a router whose rules have these lines besides.
func noticing(t *testing.T, h *hub, lines string, clock *shift) *running {
	t.Helper()
	set, err := rules.Parse("rules.yaml", []byte(testRules+lines))
	must(t, err)
	return start(t, openStore(t), &cluster{}, h, func(c *server.Config) {
		c.Rules, c.Feedback, c.Recheck, c.Now = set, 5*time.Millisecond, 50*time.Millisecond, clock.now
	})
}

func committed(id int64, labels ...string) router.Delivery {
	d := delivery(id, "queued", labels...)
	d.Job.SHA = "ce587453ced02b1526dfb4cb910479d431683101"
	return d
}

func TestACommitSaysWhyAJobWaitsAndWhenItRuns(t *testing.T) {
	bubble(t, testACommitSaysWhyAJobWaitsAndWhenItRuns)
}
func testACommitSaysWhyAJobWaitsAndWhenItRuns(t *testing.T) {
	h, clock := &hub{}, newShift()
	h.lose = true // the first answer: its check run must be found again, not made twice
	r := noticing(t, h, "feedback: { kind: check_run, after: 30s }\n", clock)
	r.deliver(committed(1, "self-hosted", "linux"))
	r.deliver(committed(2, "ubuntu-latest"))
	r.await(1, in(router.Dispatched))
	r.await(2, in(router.Ignored))
	eventually(t, "a notice", func() bool { return h.board.of(1).State == router.NoticeWaits })
	clock.forward(20 * time.Second)
	run := delivery(1, "in_progress", "self-hosted", "linux")
	run.Job.RunnerName = "somebody's"
	r.deliver(run)
	eventually(t, "another", func() bool {
		clock.forward(time.Second)
		return h.board.of(1).State == router.NoticeOver
	})
	r.deliver(delivery(1, "completed", "self-hosted", "linux"))
	r.await(1, in(router.Completed))
	clock.forward(time.Hour)
	r.deliver(committed(3, "self-hosted", "linx"))
	eventually(t, "a refusal, at once", func() bool { return h.board.of(3).State == router.NoticeRefused })
	if title := h.board.of(3).Title; !strings.Contains(title, "did you mean linux") {
		t.Errorf("the nearest label is not in the title: %s", title)
	}
	h.board.mu.Lock()
	defer h.board.mu.Unlock()
	if len(h.shown) != 2 {
		t.Errorf("there are %d check runs, want one for each of two jobs: %+v", len(h.shown), h.shown)
	}
	for _, n := range h.notices {
		if n.Name != "switchyard / build" || n.Title == "" || n.Text == "" || n.Kind != router.NoticeCheckRun || n.SHA != committed(1).Job.SHA {
			t.Errorf("the notice is %+v", n)
		}
	}
}

// The people of a repository read the same as the operators.
func TestACommitSaysWhatTheStatusSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, clock := &hub{}, newShift()
		set, err := rules.Parse("rules.yaml", []byte(testRules+"feedback: { kind: check_run, after: 30s }\n"))
		must(t, err)
		nomad := &cluster{fail: func(int) error { return errors.New("connection refused") }}
		r := start(t, openStore(t), nomad, h, func(c *server.Config) { c.Rules, c.Feedback, c.Now = set, 5*time.Millisecond, clock.now })
		r.deliver(committed(1, "self-hosted", "linux"))
		r.await(1, in(router.Retrying))
		clock.forward(time.Minute)
		eventually(t, "a notice", func() bool { return h.board.of(1).State == router.NoticeWaits })
		n, list := h.board.of(1), r.App.Status(nil).Troubles
		if len(list) != 1 || list[0].Cause != router.CauseNomad {
			t.Fatalf("the troubles are %+v", list)
		}
		_, words, _ := strings.Cut(list[0].What, ": ")
		if !strings.Contains(n.Text, words) || !strings.Contains(n.Title, "connection refused") {
			t.Errorf("the status says %q, and the commit %q:\n%s", list[0].What, n.Title, n.Text)
		}
	})
}

func TestNothingIsSaidUnlessTheRulesHaveItSo(t *testing.T) {
	bubble(t, testNothingIsSaidUnlessTheRulesHaveItSo)
}
func testNothingIsSaidUnlessTheRulesHaveItSo(t *testing.T) {
	h, clock := &hub{}, newShift()
	r := noticing(t, h, "", clock)
	r.deliver(committed(1, "self-hosted", "linx"))
	r.await(1, in(router.Unroutable))
	clock.forward(2 * time.Hour)
	r.deliver(committed(2, "self-hosted", "linux"))
	r.await(2, in(router.Dispatched))
	time.Sleep(50 * time.Millisecond)
	r.Stop()
	if h.board.tries() != 0 || len(h.cancelled) != 0 {
		t.Errorf("%d notices, %d runs cancelled, want none", h.board.tries(), len(h.cancelled))
	}
}

func TestWhatGitHubDoesNotTakeIsTriedLater(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		wait time.Duration // 0: for ever
	}{
		{"a fault of ours", &router.GiveUpError{Err: errors.New("422")}, 0},
		{"a permission", &router.FixError{Fix: "give it", Err: errors.New("403")}, 10 * time.Minute},
		{"an outage", errors.New("502"), 15 * time.Second},
	} {
		virtual(t, tt.name, func(t *testing.T) {
			h, clock := &hub{}, newShift()
			h.board.refuse = func(n int) error {
				if n == 1 {
					return tt.err
				}
				return nil
			}
			r := noticing(t, h, "feedback: { kind: commit_status }\n", clock)
			r.deliver(committed(1, "self-hosted", "linx"))
			eventually(t, "a first try", func() bool { return h.board.tries() == 1 })
			if tt.wait == 0 {
				clock.forward(3 * time.Hour)
				r.deliver(committed(2, "self-hosted", "linx"))
				eventually(t, "another job's", func() bool { return h.board.of(2).State != "" })
				if h.board.of(1).State != "" {
					t.Error("it was tried again")
				}
				return
			}
			clock.forward(tt.wait - 5*time.Second)
			time.Sleep(50 * time.Millisecond)
			if n := h.board.tries(); n != 1 {
				t.Errorf("tried %d times before it was due", n)
			}
			clock.forward(6 * time.Second)
			eventually(t, "a second try", func() bool { return h.board.of(1).State == router.NoticeRefused })
		})
	}
}

func TestARunThatNothingCanServeIsCancelled(t *testing.T) {
	bubble(t, testARunThatNothingCanServeIsCancelled)
}
func testARunThatNothingCanServeIsCancelled(t *testing.T) {
	h, clock := &hub{}, newShift()
	answers := map[int64]router.Delivery{2: says(2, "in_progress"), 1: says(1, "queued"), 3: says(3, "queued")}
	h.job = func(id int64) (router.Delivery, error) { return answers[id], nil }
	h.index.jobs = map[int64][]router.Delivery{10: {answers[1]}, 20: {answers[2]}, 30: {answers[3]}}
	r := noticing(t, h, "unroutable: { after: 10m, action: cancel }\n", clock)
	r.deliver(delivery(1, "queued", "self-hosted"))
	r.deliver(delivery(2, "queued", "self-hosted")) // somebody's runner takes it, which we are not told
	fork := delivery(3, "queued", "self-hosted", "linux")
	fork.Job.Repo.Fork = true
	r.deliver(fork)
	r.await(1, in(router.Unroutable))
	r.await(3, in(router.Denied))
	clock.forward(9 * time.Minute)
	time.Sleep(30 * time.Millisecond)
	h.board.mu.Lock()
	if len(h.cancelled) != 0 {
		t.Errorf("cancelled %v before it was time", h.cancelled)
	}
	h.board.mu.Unlock()
	clock.forward(2 * time.Minute)
	j := r.await(1, func(j router.Job) bool { return strings.Contains(j.Reason, "cancelled") })
	if !strings.HasSuffix(j.Reason, "; its run is cancelled, after 10m") {
		t.Errorf("the reason is %q", j.Reason)
	}
	r.await(2, in(router.Running))
	clock.forward(time.Hour)
	time.Sleep(30 * time.Millisecond)
	h.board.mu.Lock()
	defer h.board.mu.Unlock()
	if len(h.cancelled) != 1 || h.cancelled[0] != 10 {
		t.Errorf("cancelled runs %v, want that of job 1, once", h.cancelled)
	}
}

// A run has jobs that are not ours: those on GitHub's own runners, which are
// ignored here, and those that we never heard of.
func TestARunWithAJobThatRunsOrMayIsNotCancelled(t *testing.T) {
	for name, other := range map[string]router.Delivery{
		"one that runs on somebody's runner, and is ignored here": says(2, "in_progress", "ubuntu-latest"),
		"one that waits for one":                                  says(2, "queued", "ubuntu-latest"),
		"one that other runners may serve":                        says(4, "queued", "self-hosted", "gitlab"),
		"one that is not known":                                   says(9, "queued", "self-hosted", "linux"),
		"one that waits for its runner":                           says(3, "queued", "self-hosted", "linux"),
	} {
		virtual(t, name, func(t *testing.T) {
			h, clock := &hub{}, newShift()
			of := func(d router.Delivery) router.Delivery { d.Job.RunID = 10; return d }
			h.index.jobs = map[int64][]router.Delivery{10: {of(says(1, "queued", "self-hosted")), of(other)}}
			r := noticing(t, h, "scope: '\"self-hosted\" in labels'\nunroutable: { after: 10m, action: cancel }\n", clock)
			r.deliver(of(delivery(1, "queued", "self-hosted")))
			r.deliver(of(delivery(2, "queued", "ubuntu-latest")))
			r.deliver(of(delivery(3, "queued", "self-hosted", "linux")))
			r.deliver(of(delivery(4, "queued", "self-hosted", "gitlab")))
			r.await(1, in(router.Unroutable))
			r.await(2, in(router.Ignored))
			r.await(3, in(router.Dispatched))
			r.await(4, in(router.Unroutable))
			clock.forward(11 * time.Minute)
			eventually(t, "GitHub is asked about the run", func() bool { h.index.mu.Lock(); defer h.index.mu.Unlock(); return h.index.asked > 0 })
			h.index.mu.Lock()
			h.index.jobs[10] = h.index.jobs[10][:1]
			h.index.mu.Unlock()
			if j := r.await(1, in(router.Unroutable)); strings.Contains(j.Reason, "cancelled") {
				t.Errorf("it was: %s", j.Reason)
			}
			r.await(1, func(j router.Job) bool {
				clock.forward(time.Second) // past the time for which it is left alone, whenever that began
				return strings.Contains(j.Reason, "its run is cancelled")
			})
		})
	}
}

// GitHub may hide a run for a while, or for good; what it has is not known then.
func TestARunOfWhichGitHubListsNoJobIsNotCancelled(t *testing.T) {
	bubble(t, testARunOfWhichGitHubListsNoJobIsNotCancelled)
}
func testARunOfWhichGitHubListsNoJobIsNotCancelled(t *testing.T) {
	h, clock := &hub{}, newShift()
	r := noticing(t, h, "unroutable: { after: 10m, action: cancel }\n", clock)
	r.deliver(delivery(1, "queued", "self-hosted"))
	r.await(1, in(router.Unroutable))
	clock.forward(11 * time.Minute)
	asked := func() int { h.index.mu.Lock(); defer h.index.mu.Unlock(); return h.index.asked }
	eventually(t, "GitHub is asked about the run, twice", func() bool {
		clock.forward(time.Second) // past the time for which it is left alone
		return asked() > 1
	})
	if j := r.await(1, in(router.Unroutable)); strings.Contains(j.Reason, "cancel") {
		t.Errorf("it was cancelled: %s", j.Reason)
	}
	h.index.mu.Lock()
	h.index.jobs = map[int64][]router.Delivery{10: {says(1, "queued", "self-hosted")}}
	h.index.mu.Unlock()
	r.await(1, func(j router.Job) bool {
		clock.forward(time.Second)
		return strings.Contains(j.Reason, "its run is cancelled")
	})
}

// In the usual scope are all self-hosted jobs of an organization, those that
// ask for runners of another stack among them.
func TestARunOfAnotherStackIsNotCancelled(t *testing.T) {
	bubble(t, testARunOfAnotherStackIsNotCancelled)
}
func testARunOfAnotherStackIsNotCancelled(t *testing.T) {
	h, clock := &hub{}, newShift()
	h.index.jobs = map[int64][]router.Delivery{}
	r := noticing(t, h, "unroutable: { after: 10m, action: cancel }\n", clock)
	others := [][]string{{"self-hosted", "arc-runner-set"}, {"self-hosted", "linux", "gitlab"}, {"self-hosted", "linx"}, {"self-hosted", "self-hosted, linux"}}
	for i, labels := range others {
		id := int64(i + 1)
		h.index.jobs[10*id] = []router.Delivery{says(id, "queued", labels...)}
		r.deliver(delivery(id, "queued", labels...))
		r.await(id, in(router.Unroutable))
	}
	ours := int64(len(others) + 1)
	h.index.mu.Lock()
	h.index.jobs[10*ours] = []router.Delivery{says(ours, "queued", "self-hosted")}
	h.index.mu.Unlock()
	r.deliver(delivery(ours, "queued", "self-hosted"))
	r.await(ours, in(router.Unroutable))
	clock.forward(11 * time.Minute)
	r.await(ours, func(j router.Job) bool { return strings.Contains(j.Reason, "its run is cancelled") })
	for i := range others {
		const why = "; its run is not cancelled, as other runners on GitHub may have its labels"
		j := r.await(int64(i+1), func(j router.Job) bool { return strings.Contains(j.Reason, "not cancelled") })
		if !strings.HasSuffix(j.Reason, why) || strings.Count(j.Reason, ";") != 1 {
			t.Errorf("%q: the reason is %q", others[i], j.Reason)
		}
	}
	clock.forward(time.Hour)
	h.board.mu.Lock()
	defer h.board.mu.Unlock()
	if len(h.cancelled) != 1 || h.cancelled[0] != 10*ours {
		t.Errorf("cancelled runs %v, want that of job %d alone", h.cancelled, ours)
	}
}
