package server_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/rules"
)

// A claim is good only while Nomad starts the runner; a refused one spends no token.
func TestAClaimMustComeFromAStartingAllocation(t *testing.T) {
	t.Parallel()
	starting := router.Allocation{ID: "a", Status: "pending", Desired: "run", Node: "one", NodeAddr: "127.0.0.1"}
	with := func(change func(*router.Allocation)) router.Allocation {
		a := starting
		change(&a)
		return a
	}
	elsewhere := func(a *router.Allocation) { a.NodeAddr = "192.0.2.7" }
	for name, tc := range map[string]struct {
		is       router.Allocation
		err      error
		fromNode bool
		want     int
	}{
		"pending":                             {is: starting, want: 200},
		"running":                             {is: with(func(a *router.Allocation) { a.Status = "running" }), want: 200},
		"ended":                               {is: with(func(a *router.Allocation) { a.Status = "complete" }), want: 403},
		"failed":                              {is: with(func(a *router.Allocation) { a.Status = "failed" }), want: 403},
		"lost":                                {is: with(func(a *router.Allocation) { a.Status = "lost" }), want: 403},
		"stopped":                             {is: with(func(a *router.Allocation) { a.Desired = "stop" }), want: 403},
		"never there":                         {err: router.ErrNotFound, want: 403},
		"Nomad away":                          {err: errors.New("connection refused"), want: 503},
		"Nomad forbids to read it":            {err: &router.FixError{Fix: "give it read-job", Err: errors.New("denied")}, want: 503},
		"on another node, who cares":          {is: with(elsewhere), want: 200},
		"on another node":                     {is: with(elsewhere), fromNode: true, want: 403},
		"on this node":                        {is: starting, fromNode: true, want: 200},
		"on this node, by its mapped address": {is: with(func(a *router.Allocation) { a.NodeAddr = "::ffff:127.0.0.1" }), fromNode: true, want: 200},
		"on a node without an address":        {is: with(func(a *router.Allocation) { a.NodeAddr = "" }), fromNode: true, want: 503},
	} {
		virtual(t, name, func(t *testing.T) {
			answer := tc
			nomad := &cluster{placed: func(router.Runner) (router.Allocation, error) { return answer.is, answer.err }}
			r := start(t, openStore(t), nomad, &hub{}, func(c *server.Config) { c.ClaimFromNode = tc.fromNode })
			got := r.dispatch(1)
			status, body := r.Claim(got.ClaimToken)
			if status != tc.want || strings.Contains(body, "jit-") != (status == http.StatusOK) {
				t.Fatalf("claim = %d %q, want %d", status, body, tc.want)
			}
			if status == http.StatusOK {
				return
			}
			if n := len(r.hub.asked()); n != 0 {
				t.Errorf("GitHub was asked for %d configurations", n)
			}
			answer.is, answer.err = starting, nil
			time.Sleep(time.Second)
			if status, body := r.Claim(got.ClaimToken); status != http.StatusOK || body == "" {
				t.Errorf("claim when it starts = %d %q, want a configuration", status, body)
			}
		})
	}
}

// A node that keeps claiming with a token that is refused, or whoever read that token,
// costs one check a second and one line of the log a minute.
func TestARefusedTokenIsLookedAtOnceASecond(t *testing.T) {
	for name, tc := range map[string]struct {
		is     router.Allocation
		err    error
		status int
	}{
		"its allocation has ended": {is: router.Allocation{Status: "failed", Desired: "run"}, status: http.StatusForbidden},
		"Nomad is away":            {err: errors.New("connection refused"), status: http.StatusServiceUnavailable},
	} {
		virtual(t, name, func(t *testing.T) {
			var looks, asks atomic.Int64
			nomad := &cluster{placed: func(router.Runner) (router.Allocation, error) {
				looks.Add(1)
				time.Sleep(10 * time.Millisecond)
				return tc.is, tc.err
			}}
			h := &hub{job: func(int64) (router.Delivery, error) { asks.Add(1); return router.Delivery{}, errors.New("away") }}
			var log lines
			r := start(t, openStore(t), nomad, h, slow, func(c *server.Config) { c.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
			got := r.dispatch(1)
			for range 5 {
				var wg sync.WaitGroup
				for range 40 {
					wg.Go(func() {
						if status, _ := r.Claim(got.ClaimToken); status != tc.status {
							t.Errorf("claim = %d, want %d", status, tc.status)
						}
					})
				}
				wg.Wait()
				if status, _ := r.Claim(got.ClaimToken); status != tc.status {
					t.Errorf("claim = %d, want %d", status, tc.status)
				}
				time.Sleep(time.Second)
			}
			if n := looks.Load(); n != 5 {
				t.Errorf("Nomad was asked %d times for 205 claims in 5 s, want 5", n)
			}
			if n := asks.Load(); n != 0 {
				t.Errorf("GitHub was asked %d times about the job of a runner that is not starting, want never", n)
			}
			if n := len(log.about(t, "a claim was refused")); n != 1 {
				t.Errorf("the log has %d lines of it, want 1", n)
			}
			time.Sleep(time.Minute)
			r.Claim(got.ClaimToken)
			if said := log.about(t, "a claim was refused"); len(said) != 2 || said[1]["left_out"] != 204. {
				t.Errorf("after a minute the log has %v; want a second line with left_out=204", said)
			}
		})
	}
}

// A thousand jobs that Nomad does not take are a line a minute.
func TestAnOutageOfNomadIsALineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		nomad := &cluster{fail: func(int) error { return errors.New("connection refused") }}
		r := start(t, openStore(t), nomad, &hub{}, func(c *server.Config) { c.Logger, c.Tick = slog.New(slog.NewJSONHandler(&log, nil)), 5*time.Second })
		for id := range int64(20) {
			r.deliver(delivery(id+1, "queued", "self-hosted", "linux"))
		}
		time.Sleep(90 * time.Second)
		const line = "nomad could not take a job; it will be retried"
		if said := log.about(t, line); len(said) != 2 || said[1]["left_out"] == nil {
			t.Errorf("in 90 s the log has %v; want two lines, of which the second says how many were left out", said)
		}
	})
}

// about returns the lines with a message.
func (l *lines) about(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	for _, line := range l.all(t) {
		if line["msg"] == message {
			found = append(found, line)
		}
	}
	return found
}

func TestAClaimAsksGitHubWhetherTheJobIsStillQueued(t *testing.T) {
	says := func(action, runner string) func(int64) (router.Delivery, error) {
		return func(id int64) (router.Delivery, error) {
			d := taken(id, action, runner)
			d.ID, d.Source = "", router.SourceGitHub
			return d, nil
		}
	}
	fails := func(err error) func(int64) (router.Delivery, error) {
		return func(int64) (router.Delivery, error) { return router.Delivery{}, err }
	}
	for name, tc := range map[string]struct {
		job    func(int64) (router.Delivery, error)
		needed bool
		want   router.JobState
	}{
		"queued":                     {says("queued", ""), true, router.Dispatched},
		"runs elsewhere":             {says("in_progress", "another"), false, router.Running},
		"ended":                      {says("completed", ""), false, router.Completed},
		"gone":                       {fails(router.ErrNotFound), false, router.Completed},
		"not for us to see":          {fails(router.ErrNotFound), true, router.Dispatched},
		"GitHub fails":               {fails(errors.New("502 Bad Gateway")), true, router.Dispatched},
		"GitHub allows no more now":  {fails(&router.RetryAtError{At: time.Now().Add(time.Hour), Err: errors.New("rate limit")}), true, router.Dispatched},
		"the token may not see jobs": {fails(&router.FixError{Fix: "Actions: read", Err: errors.New("403")}), true, router.Dispatched},
	} {
		virtual(t, name, func(t *testing.T) {
			h := &hub{job: tc.job}
			h.hidden = map[string]bool{"acme/web": name == "not for us to see"}
			r := start(t, openStore(t), &cluster{}, h)
			got := r.dispatch(1)
			status, body := r.Claim(got.ClaimToken)
			if status != http.StatusOK || (body != "") != tc.needed {
				t.Errorf("claim = %d %q, want 200, with a configuration: %v", status, body, tc.needed)
			}
			if (len(r.hub.asked()) > 0) != tc.needed {
				t.Errorf("GitHub was asked for %d configurations", len(r.hub.asked()))
			}
			if j := r.await(1, in(tc.want)); name == "gone" && j.Reason != "GitHub no longer knows it" {
				t.Errorf("reason = %q", j.Reason)
			}
		})
	}
}

// What GitHub says frees the runner, and the next job in need gets it.
func TestAClaimServesTheJobThatNeedsItNow(t *testing.T) {
	bubble(t, testAClaimServesTheJobThatNeedsItNow)
}
func testAClaimServesTheJobThatNeedsItNow(t *testing.T) {
	nomad := &cluster{}
	h := &hub{job: func(id int64) (router.Delivery, error) {
		d := delivery(id, "queued", "self-hosted", "linux")
		if id != 3 {
			d = delivery(id, "completed", "self-hosted", "linux")
		}
		d.ID, d.Source = "", router.SourceGitHub
		return d, nil
	}}
	st := openStore(t)
	r := start(t, st, nomad, h, slow)
	for id := int64(1); id <= 3; id++ {
		r.dispatch(id)
	}
	first, _ := nomad.job("gha-1-1")
	if status, body := r.Claim(first.ClaimToken); status != http.StatusOK || body == "" {
		t.Fatalf("claim = %d %q, want a configuration", status, body)
	}
	r.await(1, in(router.Completed))
	r.await(2, in(router.Completed))
	if !runnerIn(t, st, 3, "gha-1-1", router.RunnerOnline)() {
		t.Error("the first runner is not online for job 3")
	}
	for _, id := range []string{"gha-2-1", "gha-3-1"} {
		eventually(t, id+" is stopped", func() bool { return nomad.ended(id) })
	}
}

// away is a Nomad that does not answer.
type away struct{ *cluster }

func (away) Allocation(ctx context.Context, _ router.Runner) (router.Allocation, error) {
	<-ctx.Done()
	return router.Allocation{}, ctx.Err()
}

func TestAClaimWhileNomadIsSilentEndsInTime(t *testing.T) {
	bubble(t, testAClaimWhileNomadIsSilentEndsInTime)
}
func testAClaimWhileNomadIsSilentEndsInTime(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) { c.Nomad = away{c.Nomad.(*cluster)} })
	got := r.dispatch(1)
	if status, body := r.Claim(got.ClaimToken); status != http.StatusServiceUnavailable || len(r.hub.asked()) != 0 {
		t.Errorf("claim = %d %q after %d configurations, want 503 after none", status, body, len(r.hub.asked()))
	}
}

// stuckStore is a database that spends no token.
type stuckStore struct{ Store }

func (stuckStore) Claim(ctx context.Context, _ [32]byte, _ time.Time) (router.Claimed, error) {
	<-ctx.Done()
	return router.Claimed{}, ctx.Err()
}

func TestAClaimThatTheDatabaseCannotRecordEndsInTime(t *testing.T) {
	bubble(t, testAClaimThatTheDatabaseCannotRecordEndsInTime)
}
func testAClaimThatTheDatabaseCannotRecordEndsInTime(t *testing.T) {
	r := start(t, stuckStore{openStore(t)}, &cluster{}, &hub{})
	token := r.dispatch(1).ClaimToken
	began := time.Now()
	if status, body := r.Claim(token); status != http.StatusServiceUnavailable || time.Since(began) > 9*time.Second {
		t.Errorf("claim = %d %q after %v, want 503 within 9 s", status, body, time.Since(began))
	}
}

// tokens is a GitHub that hands out registration tokens.
type tokens struct{ *hub }

func (tokens) RegistrationToken(_ context.Context, r router.ConfigRequest) (router.Registration, error) {
	return router.Registration{Token: "AABBCC", Group: "heavy metal"}, nil
}

func (tokens) Runner(_ context.Context, t router.Target, name string) (router.GitHubRunner, error) {
	if want := (router.Target{Owner: "acme"}); t != want || name != "gha-1-1" {
		return router.GitHubRunner{}, router.ErrNotFound
	}
	return router.GitHubRunner{ID: 41, Name: name, Online: true}, nil
}

func TestARunnerThatRegisteredItselfIsTakenOffGitHub(t *testing.T) {
	bubble(t, testARunnerThatRegisteredItselfIsTakenOffGitHub)
}
func testARunnerThatRegisteredItselfIsTakenOffGitHub(t *testing.T) {
	h := &hub{}
	r := start(t, openStore(t), &cluster{}, h, withTokens(t))
	got := r.dispatch(1)
	r.Claim(got.ClaimToken)
	r.deliver(taken(1, "in_progress", "another"))
	eventually(t, "its Nomad job is stopped", func() bool { return r.nomad.ended("gha-1-1") })
	if got := h.lost(); !slices.Equal(got, []int64{41}) {
		t.Errorf("GitHub lost the runners %v, want 41", got)
	}
}

func withTokens(t *testing.T) func(*server.Config) {
	return func(c *server.Config) {
		set, err := rules.Parse("rules.yaml", []byte(strings.Replace(testRules, "group: 7", "group: 7, registration: token", 1)))
		must(t, err)
		c.Rules, c.GitHub = set, tokens{c.GitHub.(*hub)}
	}
}

func TestAClaimByRegistrationToken(t *testing.T) { bubble(t, testAClaimByRegistrationToken) }
func testAClaimByRegistrationToken(t *testing.T) {
	st := openStore(t)
	r := start(t, st, &cluster{}, &hub{}, withTokens(t))
	got := r.dispatch(1)
	if status, body := r.Claim(got.ClaimToken); status != http.StatusOK || body != "AABBCC\nheavy metal\n" {
		t.Errorf("claim = %d %q, want the token and the group, a line each", status, body)
	}
	eventually(t, "it is online", runnerIn(t, st, 1, "gha-1-1", router.RunnerOnline))
	r.deliver(taken(1, "in_progress", "gha-1-1"))
	eventually(t, "it is busy", runnerIn(t, st, 1, "gha-1-1", router.RunnerBusy))
}

// unrecording is a database that does not record what GitHub answered.
type unrecording struct{ Store }

func (unrecording) Configured(context.Context, string, string, int64, router.Target, time.Time) error {
	return &router.FixError{Fix: "check that PostgreSQL runs", Err: errors.New("unexpected EOF")}
}

// What the database failed to record is not blamed on GitHub, whose refusals keep a job
// waiting for long.
func TestAConfigurationThatIsNotRecordedIsNotBlamedOnGitHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := unrecording{openStore(t)}
		r := start(t, st, &cluster{placed: func(router.Runner) (router.Allocation, error) {
			return router.Allocation{Status: "running", Desired: "run"}, nil
		}}, &hub{}, slow)
		got := r.dispatch(1)
		if status, body := r.Claim(got.ClaimToken); status != http.StatusServiceUnavailable {
			t.Errorf("claim = %d %q, want 503", status, body)
		}
		j, err := st.Job(t.Context(), 1)
		must(t, err)
		if j.State == router.Retrying && j.Cause != router.CauseRunner || time.Until(j.DueAt) > 10*time.Second {
			t.Errorf("the job is %s (%s, %q) and due in %v", j.State, j.Cause, j.Reason, time.Until(j.DueAt))
		}
	})
}
