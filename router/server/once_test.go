package server_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
)

// before201 is a release of Nomad that takes registrations of one job which overlap.
const before201 = "1.11.3"

// The registration of a process that has ended is on its way still, and is committed
// after that of the next process. Nomad has the first one's token then.
func TestARegistrationOutlivesItsProcess(t *testing.T) {
	bubble(t, testARegistrationOutlivesItsProcess)
}
func testARegistrationOutlivesItsProcess(t *testing.T) {
	w := newWorld(t, plainRule)
	arrived, held := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	var passed atomic.Int32
	w.NewNomad(nomadsim.Config{Release: before201, Registering: func(string) {
		if passed.Add(1) == 1 {
			close(arrived)
			<-held
		}
	}})
	t.Cleanup(release)
	if err := w.Nomad.FailNode("node-1"); err != nil { // so that nothing claims yet
		t.Fatal(err)
	}
	w.Start(func(c *server.Config) { c.Grace = time.Millisecond })
	id := w.Queue("self-hosted", "linux")
	<-arrived
	w.Stop()
	w.Start()
	w.Await(id, in(router.Dispatched))
	runner := w.Runners(id)[0].ID
	token := func() string {
		j, _, err := w.API.Jobs().Info(runner, nil)
		must(t, err)
		return j.Meta["SWITCHYARD_CLAIM_TOKEN"]
	}
	second := token()
	release()
	eventually(t, "the first registration is in force", func() bool { return token() != second })
	must(t, w.Nomad.RestoreNode("node-1"))
	if j := w.Await(id, in(router.Completed)); j.Try != 1 || j.Conclusion != "success" {
		t.Errorf("the job ended as %q at try %d, want success at the first", j.Conclusion, j.Try)
	}
	if got := w.Started(); len(got) != 1 || got[0] != runner {
		t.Errorf("started %v, want %s once", got, runner)
	}
}

// Eight processes with one database start one runner, and Nomad takes each
// registration. Whichever it has in the end, its token is good, once.
func TestEightProcessesStartOneRunner(t *testing.T) {
	bubble(t, testEightProcessesStartOneRunner)
}
func testEightProcessesStartOneRunner(t *testing.T) {
	const senders = 8
	w := newWorld(t, plainRule)
	var all sync.WaitGroup
	all.Add(senders)
	w.NewNomad(nomadsim.Config{Release: before201, Registering: func(string) { all.Done(); all.Wait() }})
	must(t, w.Nomad.FailNode("node-1"))
	st := openStore(t)
	now := time.Now()
	must(t, errOf(st.Receive(t.Context(), delivery(5, "queued", "self-hosted", "linux"))))
	job, err := st.Job(t.Context(), 5)
	must(t, err)
	r := router.Runner{ID: job.RunnerID(), JobID: job.ID, Try: job.Try, State: router.RunnerDispatched, Name: job.RunnerID()}
	var created atomic.Int32
	var group sync.WaitGroup
	for i := range senders {
		group.Go(func() {
			token := router.Secret(fmt.Sprintf("token-%d", i))
			if err := st.Prepare(t.Context(), r, sha256.Sum256([]byte(token)), now); err != nil {
				t.Error(err)
			}
			started, err := w.Client.Start(t.Context(), router.StartRequest{
				Runner: r, Job: job, Rule: "linux", Placement: router.Placement{Jobspec: "docker-linux"}, ClaimURL: "http://127.0.0.1:1", ClaimToken: token,
			})
			if err != nil {
				t.Error(err)
				return
			}
			if !started.Existed {
				created.Add(1)
			}
			r := r
			r.NomadJob, r.NomadAt = started.NomadJob, started.At
			if err := st.Dispatched(t.Context(), r, sha256.Sum256([]byte(started.ClaimToken)), nil, now); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := created.Load(); n != 1 {
		t.Errorf("%d of %d were told that they made the job, want 1", n, senders)
	}
	onNomad, _, err := w.API.Jobs().Info(r.ID, nil)
	if err != nil || *onNomad.Version != senders-1 {
		t.Fatalf("Nomad has %+v, %v; want version %d", onNomad, err, senders-1)
	}
	c, err := st.Claim(t.Context(), sha256.Sum256([]byte(onNomad.Meta["SWITCHYARD_CLAIM_TOKEN"])), now)
	if err != nil || !c.Needed || c.Runner.ID != r.ID {
		t.Errorf("the token that Nomad has: %+v, %v; want a claim for %s", c, err, r.ID)
	}
	for i := range senders {
		if _, err := st.Claim(t.Context(), sha256.Sum256(fmt.Appendf(nil, "token-%d", i)), now); !errors.Is(err, router.ErrClaimed) {
			t.Errorf("token-%d: %v after the claim, want %v", i, err, router.ErrClaimed)
		}
	}
}
