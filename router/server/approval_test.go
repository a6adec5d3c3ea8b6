package server_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
)

const nowhereRule = `
rules:
  - name: linux
    jobspec: docker-linux
    constraints: ['${meta.zone} = nowhere']
`

func waitsForApproval(j router.Job) bool {
	return j.State == router.Held && j.Reason == "waits for an approval on GitHub"
}

// gatedNomad registers nothing until it is open.
type gatedNomad struct {
	router.Nomad
	asked, open chan struct{}
}

func (n *gatedNomad) Start(ctx context.Context, r router.StartRequest) (router.Started, error) {
	select {
	case n.asked <- struct{}{}:
	default:
	}
	select {
	case <-n.open:
	case <-ctx.Done():
		return router.Started{}, ctx.Err()
	}
	return n.Nomad.Start(ctx, r)
}

// The delivery that says so got lost: the claim hears of it, and gets nothing.
func TestAClaimForAJobBehindAnApprovalGetsNothing(t *testing.T) {
	bubble(t, testAClaimForAJobBehindAnApprovalGetsNothing)
}
func testAClaimForAJobBehindAnApprovalGetsNothing(t *testing.T) {
	for _, lost := range []bool{true, false} {
		w := newWorld(t, plainRule)
		n := &gatedNomad{Nomad: w.Client, asked: make(chan struct{}, 1), open: make(chan struct{})}
		w.Start(func(c *server.Config) { c.Nomad = n })
		id := w.Queue("self-hosted", "linux")
		<-n.asked
		w.Deliveries(!lost)
		must(t, w.GitHub.Protect(id))
		if !lost {
			w.Await(id, waitsForApproval)
		}
		close(n.open)
		w.Await(id, waitsForApproval)
		eventually(t, "its runner is stopped and ended", func() bool {
			list := w.Runners(id)
			return len(list) == 1 && list[0].State == router.RunnerStopped && w.Gone(list[0].ID)
		})
		if all := w.GitHub.Runners(); len(all) != 0 {
			t.Errorf("waiting lost %v: GitHub has the runners %+v, want none", lost, all)
		}
		w.Deliveries(true)
		must(t, w.GitHub.Approve(id))
		if j := w.Await(id, in(router.Completed)); j.Try != 2 || j.Conclusion != "success" {
			t.Errorf("waiting lost %v: it ended as %q at try %d, want success at the second", lost, j.Conclusion, j.Try)
		}
	}
}

func TestARunnerOfAJobBehindAnApprovalIsStoppedBeforeItClaims(t *testing.T) {
	bubble(t, testARunnerOfAJobBehindAnApprovalIsStoppedBeforeItClaims)
}
func testARunnerOfAJobBehindAnApprovalIsStoppedBeforeItClaims(t *testing.T) {
	w := newWorld(t, nowhereRule)
	w.Start()
	id := w.Queue("self-hosted", "linux")
	w.Await(id, in(router.Dispatched))
	must(t, w.GitHub.Protect(id))
	w.Await(id, waitsForApproval)
	eventually(t, "its runner is stopped, on Nomad too", func() bool {
		r := w.Runners(id)[0]
		return r.State == router.RunnerStopped && w.Gone(r.ID)
	})
	must(t, w.GitHub.Approve(id))
	if j := w.Await(id, in(router.Dispatched)); j.Try != 2 {
		t.Errorf("it is dispatched at try %d, want the second", j.Try)
	}
}

// What GitHub announces at once: queued with the status waiting, waiting, and
// queued when somebody has approved, which gets lost.
func TestAnApprovalThatGotLostIsAskedFor(t *testing.T) {
	bubble(t, testAnApprovalThatGotLostIsAskedFor)
}
func testAnApprovalThatGotLostIsAskedFor(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start(func(c *server.Config) { c.Recheck = 100 * time.Millisecond })
	id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Waiting: true})
	w.Await(id, waitsForApproval)
	w.Deliveries(false)
	must(t, w.GitHub.Approve(id))
	if j := w.Await(id, in(router.Completed)); j.Try != 1 || len(w.Started()) != 1 {
		t.Errorf("it ended at try %d after %v, want the first runner alone", j.Try, w.Started())
	}
}

// Its runner was configured before GitHub had the job wait.
func TestAnIdleRunnerOfAJobBehindAnApprovalIsRemoved(t *testing.T) {
	bubble(t, testAnIdleRunnerOfAJobBehindAnApprovalIsRemoved)
}
func testAnIdleRunnerOfAJobBehindAnApprovalIsRemoved(t *testing.T) {
	w := newWorld(t, plainRule)
	connect := make(chan struct{})
	w.Run = func(ctx context.Context, task nomadsim.Task) int {
		select {
		case <-connect:
		case <-ctx.Done():
			return 1
		}
		return w.Connect(ctx, task)
	}
	w.Start(quick)
	id := w.Queue("self-hosted", "linux")
	awaitOnline(w, id)
	w.Deliveries(false)
	must(t, w.GitHub.Protect(id))
	w.Await(id, waitsForApproval)
	eventually(t, "the runner is stopped, on Nomad and GitHub too", func() bool {
		r := w.Runners(id)[0]
		return r.State == router.RunnerStopped && w.Gone(r.NomadJob) && len(w.GitHub.Runners()) == 0
	})
	if list := w.Runners(id); len(list) != 1 {
		t.Errorf("runners %+v, want one", list)
	}
	close(connect)
	w.Deliveries(true)
	must(t, w.GitHub.Approve(id))
	w.Await(id, in(router.Completed))
}

// The deliveries of a protected job come late: before the one that had it queued
// they were sent, and after it they arrive.
func TestADeliveryThatComesLateHoldsNoJobBack(t *testing.T) {
	bubble(t, testADeliveryThatComesLateHoldsNoJobBack)
}
func testADeliveryThatComesLateHoldsNoJobBack(t *testing.T) {
	asked := make(chan struct{}, 10)
	h := &hub{job: func(id int64) (router.Delivery, error) {
		asked <- struct{}{}
		return says(id, "queued", "self-hosted", "linux"), nil
	}}
	r := start(t, openStore(t), &cluster{}, h)
	r.dispatch(1)
	for _, action := range []string{"queued", "waiting"} {
		late := delivery(1, action, "self-hosted", "linux")
		late.ID, late.Status = action+" late", "waiting"
		r.deliver(late)
		<-asked
	}
	if j := r.await(1, func(j router.Job) bool { return !j.AskedAt.IsZero() }); j.State != router.Dispatched || j.Try != 1 {
		t.Errorf("it is %s at try %d: %s", j.State, j.Try, j.Reason)
	}
	token, _ := r.nomad.job("gha-1-1")
	if status, body := r.Claim(token.ClaimToken); status != 200 || !strings.HasPrefix(body, "jit-for-gha-1-1") {
		t.Errorf("the claim = %d %q, want a configuration", status, body)
	}
}
