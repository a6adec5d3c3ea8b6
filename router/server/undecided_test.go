package server_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/server"
	"switchyard/rules"
)

// forkRules asks for the run of a job that is not plain. Without it, a fork's
// job would be taken by the last rule.
func forkRules(t *testing.T) func(*server.Config) {
	t.Helper()
	set, err := rules.Parse("rules.yaml", []byte(`
version: 1
labels:
  self-hosted: {}
  plain: {}
  linux: {}
rules:
  - name: plain
    if: has("plain")
    jobspec: docker-linux
  - name: no-forks
    if: run.fork
    deny: a fork's code gets no runner
  - name: linux
    if: has("linux")
    jobspec: docker-linux
    runner: { scope: organization, group: 7 }
`))
	must(t, err)
	return func(c *server.Config) { c.Rules = set }
}

func ofRun(d router.Delivery, runID int64) router.Delivery {
	d.Job.RunID = runID
	return d
}

// forks is what GitHub says of runs: those with an even ID are a fork's.
func forks(_ int, id int64) (rules.Run, error) {
	return rules.Run{Event: "pull_request", Fork: id%2 == 0, Actor: "mona"}, nil
}

func TestARunIsLookedUpOnceForAllItsJobs(t *testing.T) {
	bubble(t, testARunIsLookedUpOnceForAllItsJobs)
}
func testARunIsLookedUpOnceForAllItsJobs(t *testing.T) {
	entered, leave := make(chan struct{}, 100), make(chan struct{})
	h := &hub{run: func(n int, id int64) (rules.Run, error) {
		entered <- struct{}{}
		<-leave
		return forks(n, id)
	}}
	r := start(t, openStore(t), &cluster{}, h, forkRules(t))
	for id := int64(1); id <= 20; id++ {
		r.deliver(ofRun(delivery(id, "queued", "self-hosted", "linux"), 7))
	}
	<-entered // some senders wait for the same answer now
	close(leave)
	for id := int64(1); id <= 20; id++ {
		if j := r.await(id, in(router.Dispatched)); j.Decision.Rule != "linux" {
			t.Errorf("job %d was taken by rule %q, want linux", id, j.Decision.Rule)
		}
	}
	if n := h.lookedUp(); n != 1 {
		t.Errorf("20 jobs of one run asked GitHub %d times, want once", n)
	}
	r.deliver(ofRun(delivery(21, "queued", "self-hosted", "linux"), 8))
	r.await(21, in(router.Denied))
	if n := h.lookedUp(); n != 2 {
		t.Errorf("another run asked GitHub %d times, want once", n-1)
	}
}

func TestARunIsLookedUpOnGitHub(t *testing.T) { bubble(t, testARunIsLookedUpOnGitHub) }
func testARunIsLookedUpOnGitHub(t *testing.T) {
	sim := githubsim.New(githubsim.Config{})
	t.Cleanup(sim.Close)
	client, err := gh.New(gh.Config{Token: gh.StaticToken("ghs_x"), BaseURL: network.Serve(t, sim), HTTPClient: network.Client()})
	must(t, err)
	st := openStore(t)
	if err := st.SetMark(t.Context(), "first look", "done"); err != nil { // GitHub has one job of each run
		t.Fatal(err)
	}
	r := start(t, st, &cluster{}, nil, forkRules(t), func(c *server.Config) { c.GitHub = client })
	for head, want := range map[string]router.JobState{"": router.Dispatched, "stranger": router.Denied} {
		first, _ := sim.Job(sim.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Event: "pull_request", Head: head}))
		for n := range int64(20) {
			r.deliver(ofRun(delivery(first.ID*100+n, "queued", "self-hosted", "linux"), first.RunID))
		}
		for n := range int64(20) {
			r.await(first.ID*100+n, in(want))
		}
		if n := sim.RunReads(first.RunID); n != 1 {
			t.Errorf("GitHub was asked %d times for a run of 20 jobs that are %s, want once", n, want)
		}
	}
}

func TestAJobThatReachesNoSuchRuleIsNotLookedUp(t *testing.T) {
	bubble(t, testAJobThatReachesNoSuchRuleIsNotLookedUp)
}
func testAJobThatReachesNoSuchRuleIsNotLookedUp(t *testing.T) {
	h := &hub{run: forks}
	r := start(t, openStore(t), &cluster{}, h, forkRules(t))
	for id, tc := range map[int64]struct {
		labels []string
		want   router.JobState
	}{
		1: {[]string{"self-hosted", "plain"}, router.Dispatched},
		2: {[]string{"ubuntu-latest"}, router.Ignored},
		3: {[]string{"self-hosted", "linx"}, router.Unroutable},
	} {
		r.deliver(delivery(id, "queued", tc.labels...))
		r.await(id, in(tc.want))
	}
	if n := h.lookedUp(); n != 0 {
		t.Errorf("GitHub was asked for runs %d times, want never", n)
	}
}

func TestAFailedLookUpDecidesNothing(t *testing.T) {
	for runID, want := range map[int64]router.JobState{7: router.Dispatched, 8: router.Denied} {
		virtual(t, fmt.Sprintf("the job is %s when it is known", want), func(t *testing.T) {
			h := &hub{run: func(n int, id int64) (rules.Run, error) {
				if n <= 2 {
					return rules.Run{}, errors.New("502 Bad Gateway")
				}
				return forks(n, id)
			}}
			nomad := &cluster{}
			r := start(t, openStore(t), nomad, h, forkRules(t))
			r.deliver(ofRun(delivery(1, "queued", "self-hosted", "linux"), runID))
			j := r.await(1, in(router.Retrying))
			if want := "GitHub has not said what started the run yet: 502 Bad Gateway"; j.Reason != want || j.Failures == 0 || j.DueAt.IsZero() || j.Decision != nil {
				t.Errorf("meanwhile: reason %q, %d failures, due %v, decision %v; want %q, a count, a time and no decision", j.Reason, j.Failures, j.DueAt, j.Decision, want)
			}
			r.await(1, in(want))
			if n := h.lookedUp(); n != 3 {
				t.Errorf("GitHub was asked %d times, want 3", n)
			}
			if n := nomad.count(); n != 0 && want == router.Denied {
				t.Errorf("Nomad has %d jobs, want none", n)
			}
		})
	}
}

func TestALookUpThatWaitsForAPersonIsMadeLater(t *testing.T) {
	bubble(t, testALookUpThatWaitsForAPersonIsMadeLater)
}
func testALookUpThatWaitsForAPersonIsMadeLater(t *testing.T) {
	h := &hub{run: func(int, int64) (rules.Run, error) {
		return rules.Run{}, &router.FixError{Fix: "give the token Actions (read)", Err: errors.New("404")}
	}}
	r := start(t, openStore(t), &cluster{}, h, forkRules(t))
	before := time.Now()
	r.deliver(delivery(1, "queued", "self-hosted", "linux"))
	j := r.await(1, in(router.Retrying))
	if wait := j.DueAt.Sub(before); !strings.Contains(j.Reason, "give the token Actions (read)") || wait < 30*time.Second || wait > 90*time.Second {
		t.Errorf("reason %q, due in %s; want what to do, and between 30 s and 90 s", j.Reason, wait)
	}
}

func TestALookUpThatALimitHoldsIsMadeAtItsEnd(t *testing.T) {
	bubble(t, testALookUpThatALimitHoldsIsMadeAtItsEnd)
}
func testALookUpThatALimitHoldsIsMadeAtItsEnd(t *testing.T) {
	until := time.Now().Add(20 * time.Second)
	h := &hub{run: func(n int, id int64) (rules.Run, error) {
		if n == 1 {
			return rules.Run{}, &router.RetryAtError{At: until, Err: errors.New("GitHub's rate limit is reached")}
		}
		return forks(n, id)
	}}
	r := start(t, openStore(t), &cluster{}, h, forkRules(t))
	r.deliver(ofRun(delivery(1, "queued", "self-hosted", "linux"), 7))
	if j := r.await(1, in(router.Retrying)); j.Cause != router.CauseGitHubLimit || j.DueAt.Sub(until).Abs() > time.Second {
		t.Errorf("it waits because of %q until %s, want %q until %s", j.Cause, j.DueAt, router.CauseGitHubLimit, until)
	}
	time.Sleep(time.Until(until))
	r.await(1, in(router.Dispatched))
}

func TestALookUpThatGitHubRefusesForGoodEndsTheJob(t *testing.T) {
	bubble(t, testALookUpThatGitHubRefusesForGoodEndsTheJob)
}
func testALookUpThatGitHubRefusesForGoodEndsTheJob(t *testing.T) {
	h := &hub{run: func(int, int64) (rules.Run, error) {
		return rules.Run{}, &router.GiveUpError{Err: errors.New("no such name")}
	}}
	r := start(t, openStore(t), &cluster{}, h, forkRules(t))
	r.deliver(delivery(1, "queued", "self-hosted", "linux"))
	j := r.await(1, in(router.Unroutable))
	if want := "GitHub refuses to say what started the run: no such name"; j.Reason != want || j.Decision == nil || j.Decision.Outcome != rules.Unroutable {
		t.Errorf("reason %q, decision %+v; want %q and the same outcome", j.Reason, j.Decision, want)
	}
}

func TestAnEarlyClaimKnowsTheRun(t *testing.T) { bubble(t, testAnEarlyClaimKnowsTheRun) }
func testAnEarlyClaimKnowsTheRun(t *testing.T) {
	var r *running
	var status int
	nomad := &cluster{within: func(req router.StartRequest) { status, _ = r.Claim(req.ClaimToken) }}
	h := &hub{run: forks}
	r = start(t, openStore(t), nomad, h, forkRules(t))
	r.deliver(ofRun(delivery(1, "queued", "self-hosted", "linux"), 7))
	r.await(1, in(router.Dispatched))
	asks := h.asked()
	if status != http.StatusOK || len(asks) != 1 || asks[0].Runner.Scope != "organization" {
		t.Errorf("early claim = %d after %+v, want 200 at the rule's scope", status, asks)
	}
	if n := h.lookedUp(); n != 1 {
		t.Errorf("GitHub was asked for the run %d times, want once", n)
	}
}
