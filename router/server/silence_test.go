package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
)

const denyingRules = `
rules:
  - { name: nobody, if: job.name == "nobody", deny: nobody gets this }
  - { name: linux, jobspec: docker-linux }
`

// A Nomad that takes connections and answers nothing keeps nobody waiting who does
// not need it; the others say why they wait, and go on as soon as it answers.
func TestANomadThatHangs(t *testing.T) { bubble(t, testANomadThatHangs) }
func testANomadThatHangs(t *testing.T) {
	w := newWorld(t, denyingRules)
	w.Start(func(c *server.Config) { c.Tick = 5 * time.Second })
	readyz(t, w.App, "all is well", func(_ int, r server.Readiness) bool { return r.Status == "ok" })
	w.Nomad.SetFault(nomadsim.Silent, 0)
	began := time.Now()
	var waiting []int64
	for range 20 {
		waiting = append(waiting, w.Queue("self-hosted", "linux"))
	}
	denied := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Name: "nobody", Labels: []string{"self-hosted", "linux"}})
	w.Await(denied, in(router.Denied))
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a denied job has its answer after %v, as others wait for Nomad", took)
	}
	silent := func(j router.Job) bool {
		return j.State == router.Retrying && strings.Contains(j.Reason, "Nomad could not take the job yet: it has not answered for ")
	}
	for _, id := range waiting {
		w.Await(id, silent)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the jobs that wait say so after %v", took)
	}
	got := readyz(t, w.App, "Nomad is silent", func(code int, r server.Readiness) bool { return code == http.StatusOK && r.Status == "degraded" })
	if c := is(t, got, "nomad"); c.Status != "warning" || !strings.HasPrefix(c.Reason, "Nomad has not answered for ") || time.Since(began)-time.Since(c.Since) > 2*time.Second {
		t.Errorf("/readyz says %+v", c)
	}
	late := w.Queue("self-hosted", "linux") // nobody waits for its time-out
	queued := time.Now()
	w.Await(late, silent)
	if took := time.Since(queued); took > 3*time.Second {
		t.Errorf("a job that comes later says why it waits after %v", took)
	}
	time.Sleep(100*time.Second - time.Since(began))
	if j := w.Await(late, silent); !strings.Contains(j.Reason, "1m") {
		t.Errorf("after a minute, the reason is %q", j.Reason)
	}

	w.Nomad.SetFault(nomadsim.Healthy, 0)
	healed := time.Now()
	for _, id := range append(waiting, late) {
		w.Await(id, in(router.Completed))
	}
	if took := time.Since(healed); took > 20*time.Second {
		t.Errorf("the jobs are served %v after Nomad answers again", took)
	}
	readyz(t, w.App, "all is well again", func(_ int, r server.Readiness) bool { return r.Status == "ok" })
}

// hanging is a Nomad that takes Starts, and answers none until they run out of time.
type hanging struct {
	*cluster
	asked chan context.Context
}

func (h hanging) Start(ctx context.Context, r router.StartRequest) (router.Started, error) {
	select {
	case h.asked <- ctx:
	default:
	}
	<-ctx.Done()
	return router.Started{}, fmt.Errorf("register job %s: %w", r.Runner.ID, ctx.Err())
}

// A Nomad that does not answer is asked for one runner at a time.
func TestASilentNomadIsAskedForOneRunnerAtATime(t *testing.T) {
	bubble(t, testASilentNomadIsAskedForOneRunnerAtATime)
}
func testASilentNomadIsAskedForOneRunnerAtATime(t *testing.T) {
	n := hanging{&cluster{}, make(chan context.Context, 1000)}
	r := start(t, openStore(t), n.cluster, &hub{}, func(c *server.Config) { c.Nomad, c.Tick = n, 5*time.Second })
	for id := int64(1); id <= 20; id++ {
		r.deliver(delivery(id, "queued", "self-hosted", "linux"))
	}
	time.Sleep(35 * time.Second) // those in hand have run out of time
	synctest.Wait()
	if first := len(n.asked); first != 16+1 {
		t.Errorf("Nomad was asked %d times before anybody knew, want once for each sender, and then again", first)
	}
	time.Sleep(3 * time.Minute)
	synctest.Wait()
	if all := len(n.asked); all > 16+3*60/10+4 || all < 16+3*60/30 {
		t.Errorf("Nomad was asked %d times in 3 minutes", all)
	}
	for id := int64(1); id <= 20; id++ {
		if j := r.await(id, in(router.Retrying)); !strings.Contains(j.Reason, "has not answered for 2m") {
			t.Errorf("job %d: %s", id, j.Reason)
			break
		}
		line, err := r.store.Timeline(t.Context(), id)
		if err != nil || len(line) > 10 {
			t.Errorf("job %d has %d events, %v", id, len(line), err)
		}
	}
}

// While Nomad is silent nothing else asks GitHub, so each GitHub is asked about a job.
func TestEachGitHubIsAskedWhileNomadIsSilent(t *testing.T) {
	bubble(t, testEachGitHubIsAskedWhileNomadIsSilent)
}
func testEachGitHubIsAskedWhileNomadIsSilent(t *testing.T) {
	var mu sync.Mutex
	asked := map[int64]bool{} // by GitHub
	h := &hub{job: func(id int64) (router.Delivery, error) {
		mu.Lock()
		defer mu.Unlock()
		asked[router.InstanceOf(id)] = true
		return router.Delivery{}, errors.New("502 Bad Gateway")
	}}
	n := hanging{&cluster{}, make(chan context.Context, 1000)}
	r := start(t, openStore(t), n.cluster, h, func(c *server.Config) { c.Nomad, c.Tick = n, 5*time.Second })
	for number := range int64(3) {
		for id := int64(1); id <= 2; id++ {
			r.deliver(delivery(router.Instance{Number: number}.ID(id), "queued", "self-hosted", "linux"))
		}
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 3 {
		t.Errorf("of 3 GitHubs these were asked: %v", asked)
	}
}
