package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/rules"
)

// wantConflict wants an error that says why it cannot be done.
func wantConflict(t *testing.T, err error, says string) {
	t.Helper()
	if c, ok := errors.AsType[*router.ConflictError](err); !ok || !strings.Contains(c.Reason, says) {
		t.Errorf("got %v, want a conflict that says %q", err, says)
	}
}

// told reports whether an operator is the source of a line of a job's timeline.
func (r *running) told(id int64, runner, says string) bool {
	r.T.Helper()
	events, err := r.store.Timeline(r.T.Context(), id)
	must(r.T, err)
	for _, e := range events {
		if e.Source == router.SourceOperator && e.RunnerID == runner && strings.Contains(e.What, says) {
			return true
		}
	}
	return false
}

func (r *running) runner(id string) router.Runner {
	r.T.Helper()
	v, err := r.store.Runner(r.T.Context(), id)
	must(r.T, err)
	return v
}

func TestAnOperatorHasAJobDecidedAgain(t *testing.T) {
	bubble(t, testAnOperatorHasAJobDecidedAgain)
}
func testAnOperatorHasAJobDecidedAgain(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	reload := func(hash, mac string) { // what is denied is not decided again when the rules change, unless an operator asks
		t.Helper()
		text := strings.Replace(testRules, "  linux: {}", "  linux: {}\n  mac: {}", 1) + "  - { name: mac, if: has(\"mac\"), " + mac + " }\n"
		set, err := rules.Parse("rules.yaml", []byte(text))
		must(t, err)
		r.App.Reload(set, router.RulesVersion{Hash: hash})
	}
	reload("2", "deny: not yet")
	r.deliver(delivery(1, "queued", "self-hosted", "mac"))
	r.await(1, in(router.Denied))
	reload("3", "jobspec: docker-linux")
	if j := r.await(1, in(router.Denied)); r.App.Explain(j).Outcome != rules.Routed || r.App.Explain(j).Rule != "mac" || r.App.Explain(j).Trace == nil {
		t.Errorf("the rules in force say %+v", r.App.Explain(j))
	}
	must(t, r.App.RetryJob(t.Context(), 1))
	if j := r.await(1, in(router.Dispatched)); j.Decision.Rule != "mac" || j.Try != 1 || !r.told(1, "", "decide it again") {
		t.Errorf("rule %q took it at try %d", j.Decision.Rule, j.Try)
	}

	// Its runner has not claimed: it gets another.
	must(t, r.App.RetryJob(t.Context(), 1))
	r.await(1, func(j router.Job) bool { return j.State == router.Dispatched && j.Try == 2 })
	if !r.nomad.ended("gha-1-1") || !r.told(1, "gha-1-1", "asked for a new one") || r.runner("gha-1-1").State != router.RunnerStopped {
		t.Errorf("the first runner is %+v", r.runner("gha-1-1"))
	}
	second, _ := r.nomad.job("gha-1-2")
	if status, body := r.Claim(second.ClaimToken); status != http.StatusOK || body == "" {
		t.Errorf("claim of the second = %d %q", status, body)
	}
	wantConflict(t, r.App.RetryJob(t.Context(), 1), "gha-1-2 of job 1 is already online")

	running := delivery(1, "in_progress", "self-hosted", "mac")
	r.deliver(running)
	wantConflict(t, r.App.RetryJob(t.Context(), 1), "job 1 runs on")
	r.deliver(delivery(1, "completed", "self-hosted", "mac"))
	wantConflict(t, r.App.RetryJob(t.Context(), 1), "job 1 has ended")
	if err := r.App.RetryJob(t.Context(), 2); !errors.Is(err, router.ErrNotFound) {
		t.Errorf("retry of an unknown job: %v", err)
	}
	waiting := delivery(3, "queued", "self-hosted", "linux")
	waiting.Status = "waiting"
	r.deliver(waiting)
	wantConflict(t, r.App.RetryJob(t.Context(), 3), "waits for an approval on GitHub")
}

// A job that waits for its next attempt is decided at once.
func TestAnOperatorShortensAWait(t *testing.T) { bubble(t, testAnOperatorShortensAWait) }
func testAnOperatorShortensAWait(t *testing.T) {
	var broken = true
	nomad := &cluster{}
	nomad.fail = func(int) error {
		if broken {
			return &router.RetryAtError{At: time.Now().Add(time.Hour), Err: errors.New("away")}
		}
		return nil
	}
	r := start(t, openStore(t), nomad, &hub{})
	r.deliver(delivery(1, "queued", "self-hosted", "linux"))
	r.await(1, in(router.Retrying))
	nomad.mu.Lock()
	broken = false
	nomad.mu.Unlock()
	must(t, r.App.RetryJob(t.Context(), 1))
	if j := r.await(1, in(router.Dispatched)); j.Try != 1 {
		t.Errorf("it is at try %d, want 1: Nomad never had it", j.Try)
	}
}

// deafHub is a GitHub that cancels no runs.
type deafHub struct{ *hub }

func (deafHub) CancelRun(context.Context, router.Repo, int64) error {
	return errors.New("GitHub answered 502")
}

func TestARunThatIsNotCancelledIsSaid(t *testing.T) {
	bubble(t, testARunThatIsNotCancelledIsSaid)
}
func testARunThatIsNotCancelledIsSaid(t *testing.T) {
	h := &hub{}
	r := start(t, openStore(t), &cluster{}, h, func(c *server.Config) { c.GitHub = deafHub{h} })
	r.dispatch(1)
	const want = "the job no longer gets a runner, but its run was not cancelled: GitHub answered 502"
	if err := r.App.CancelJob(t.Context(), 1, true); err == nil || err.Error() != want {
		t.Errorf("CancelJob = %v, want %s", err, want)
	}
	r.await(1, in(router.Denied))
}

// While Nomad does not stop the runner that gives way to a fallback, nobody
// starts another one.
func TestAnOperatorsRetryStartsNoSecondRunner(t *testing.T) {
	bubble(t, testAnOperatorsRetryStartsNoSecondRunner)
}
func testAnOperatorsRetryStartsNoSecondRunner(t *testing.T) {
	set, err := rules.Parse("rules.yaml", []byte(machine+fallbackRule))
	must(t, err)
	nomad := &cluster{placed: func(router.Runner) (router.Allocation, error) { return router.Allocation{}, router.ErrNotFound }}
	var halted atomic.Bool
	halted.Store(true)
	r := start(t, openStore(t), nomad, &hub{}, func(c *server.Config) {
		c.Rules = set
		c.Nomad = unstoppable{nomad, func() error {
			if halted.Load() {
				return errors.New("connection refused")
			}
			return nil
		}}
	})
	r.deliver(delivery(1, "queued", "self-hosted", "linux"))
	r.await(1, func(j router.Job) bool { return j.Fallback == 1 })
	wantConflict(t, r.App.RetryJob(t.Context(), 1), "as soon as Nomad has stopped gha-1-1")
	must(t, r.App.CancelJob(t.Context(), 1, false))
	if err := r.App.RetryJob(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("retry = %v, want Nomad's error", err)
	}
	if j := r.await(1, in(router.Denied)); nomad.count() != 1 {
		t.Errorf("Nomad has %d jobs, the job is %s", nomad.count(), j.State)
	}
	halted.Store(false)
	must(t, r.App.RetryJob(t.Context(), 1))
	if r.await(1, in(router.Dispatched)); !nomad.ended("gha-1-1") {
		t.Error("the first runner was not stopped")
	}
}

func TestAnOperatorCancelsAJob(t *testing.T) { bubble(t, testAnOperatorCancelsAJob) }
func testAnOperatorCancelsAJob(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	r.dispatch(1)
	for range 2 {
		must(t, r.App.CancelJob(t.Context(), 1, false))
	}
	j := r.await(1, in(router.Denied))
	if !r.nomad.ended("gha-1-1") || r.runner("gha-1-1").State != router.RunnerStopped || !r.told(1, "", "cancelled it") || !r.told(1, "gha-1-1", "cancelled its job") {
		t.Errorf("the job is at try %d (%s), its runner %+v", j.Try, j.Reason, r.runner("gha-1-1"))
	}
	got, _ := r.nomad.job("gha-1-1")
	if status, body := r.Claim(got.ClaimToken); status == http.StatusOK && body != "" || len(r.hub.asked()) != 0 {
		t.Errorf("claim = %d %q after %d questions to GitHub", status, body, len(r.hub.asked()))
	}

	// It may be taken up again, with a runner of its own.
	must(t, r.App.RetryJob(t.Context(), 1))
	r.await(1, func(j router.Job) bool { return j.State == router.Dispatched && j.Try == 2 })

	r.deliver(delivery(2, "queued", "ubuntu-latest"))
	r.await(2, in(router.Ignored))
	wantConflict(t, r.App.CancelJob(t.Context(), 2, true), "job 2 is ignored")
	running := delivery(3, "in_progress", "self-hosted", "linux")
	running.Job.RunnerName = "theirs"
	r.deliver(running)
	wantConflict(t, r.App.CancelJob(t.Context(), 3, false), "job 3 runs on theirs")
	if err := r.App.CancelJob(t.Context(), 4, false); !errors.Is(err, router.ErrNotFound) {
		t.Errorf("cancel of an unknown job: %v", err)
	}
}

// Of a running job GitHub tells the end, and not who wanted it.
func TestWhoCancelsARunIsSaid(t *testing.T) { bubble(t, testWhoCancelsARunIsSaid) }
func testWhoCancelsARunIsSaid(t *testing.T) {
	h := &hub{}
	r := start(t, openStore(t), &cluster{}, h)
	first := r.dispatch(1)
	r.Claim(first.ClaimToken)
	running := delivery(1, "in_progress", "self-hosted", "linux")
	running.Job.RunnerName = h.asked()[0].Name
	r.deliver(running)
	r.await(1, in(router.Running))
	must(t, r.App.CancelJob(router.ByOperator(t.Context(), "ada"), 1, true))
	if !r.told(1, "gha-1-1", "operator ada cancels the run of its job") {
		t.Errorf("the runner is %+v", r.runner("gha-1-1"))
	}
}

func TestAnOperatorStopsARunner(t *testing.T) { bubble(t, testAnOperatorStopsARunner) }
func testAnOperatorStopsARunner(t *testing.T) {
	h := &hub{}
	r := start(t, openStore(t), &cluster{}, h)
	r.dispatch(1)
	must(t, r.App.StopRunner(t.Context(), "gha-1-1", false))
	r.await(1, func(j router.Job) bool { return j.State == router.Dispatched && j.Try == 2 })
	if !r.nomad.ended("gha-1-1") || !r.told(1, "gha-1-1", "an operator stopped it") {
		t.Error("the first runner was not stopped")
	}

	// Online, and GitHub gives it a job: it is left alone, unless it must go.
	second, _ := r.nomad.job("gha-1-2")
	r.Claim(second.ClaimToken)
	running := delivery(1, "in_progress", "self-hosted", "linux")
	running.Job.RunnerName = h.asked()[0].Name
	r.deliver(running)
	wantConflict(t, r.App.StopRunner(t.Context(), "gha-1-2", false), "has a job; with force it is stopped")
	if r.nomad.ended("gha-1-2") {
		t.Error("a busy runner was stopped without force")
	}
	if err := r.App.StopRunner(t.Context(), "gha-1-2", true); err != nil || !r.nomad.ended("gha-1-2") {
		t.Errorf("a busy runner was not stopped with force: %v", err)
	}
	if v := r.runner("gha-1-2"); v.State != router.RunnerBusy || !r.told(1, "gha-1-2", "although it has a job") {
		t.Errorf("the runner is %s (%s); GitHub says when it ended", v.State, v.Reason)
	}
	if err := r.App.StopRunner(t.Context(), "gha-9-9", true); !errors.Is(err, router.ErrNotFound) {
		t.Errorf("stop of an unknown runner: %v", err)
	}
}

// busyHub lets no runner go.
type busyHub struct{ *hub }

func (busyHub) RemoveRunner(context.Context, router.Target, int64) error { return router.ErrBusy }

// GitHub gave it a job, and that is not known here yet.
func TestARunnerThatGitHubKeepsIsStoppedByForceOnly(t *testing.T) {
	bubble(t, testARunnerThatGitHubKeepsIsStoppedByForceOnly)
}
func testARunnerThatGitHubKeepsIsStoppedByForceOnly(t *testing.T) {
	h := &hub{}
	r := start(t, openStore(t), &cluster{}, h, func(c *server.Config) { c.GitHub = busyHub{h} })
	got := r.dispatch(1)
	r.Claim(got.ClaimToken)
	wantConflict(t, r.App.StopRunner(t.Context(), "gha-1-1", false), "has a job; with force it is stopped")
	if r.nomad.ended("gha-1-1") {
		t.Error("a busy runner was stopped without force")
	}
	if err := r.App.StopRunner(t.Context(), "gha-1-1", true); err != nil || !r.nomad.ended("gha-1-1") {
		t.Errorf("a busy runner was not stopped with force: %v", err)
	}
}

// The API is the App's own, on the operators' listener.
func TestTheAPIAnswersOnTheOperatorsListener(t *testing.T) {
	bubble(t, testTheAPIAnswersOnTheOperatorsListener)
}
func testTheAPIAnswersOnTheOperatorsListener(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	r.dispatch(1)
	resp, err := httpClient.Post("http://"+r.App.AdminAddr()+"/api/v1/jobs/1/cancel", "", nil)
	must(t, err)
	defer resp.Body.Close()
	var d struct {
		Job struct{ State string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&d); err != nil || resp.StatusCode != http.StatusOK || d.Job.State != "denied" {
		t.Errorf("cancel = %d, job %+v, err %v", resp.StatusCode, d, err)
	}
}
