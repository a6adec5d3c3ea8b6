package nomad

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// early is a simulated Nomad that checks EnforceIndex before it commits a job, and not
// as it does. A registration that has passed the check waits in passed.
func early(t *testing.T, passed func(jobID string)) target {
	t.Helper()
	return target{nomadtest.Simulated(t, nomadsim.Config{
		Release: "1.11.3", Registering: passed,
		Run: func(ctx context.Context, _ nomadsim.Task) int { <-ctx.Done(); return 0 },
	})}
}

// Each of eight Starts passes Nomad's check before any is committed.
func TestEightStartsAreTakenAtOnce(t *testing.T) {
	const senders = 8
	var all sync.WaitGroup
	all.Add(senders)
	on := early(t, func(string) { all.Done(); all.Wait() })
	client := newClient(t, on.Config)
	r := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
	tokens, created := race(t, senders, func(i int) (router.Started, error) { return client.Start(t.Context(), withToken(r, "token", i)) })
	if job := on.Job(t, r.Runner.ID); *job.Version != senders-1 {
		t.Fatalf("the job has version %d: the registrations did not race", *job.Version)
	}
	if created != 1 {
		t.Errorf("%d of %d Starts were told that they made the job, want 1", created, senders)
	}
	sent := map[string]bool{}
	for i := range senders {
		sent[string(withToken(r, "token", i).ClaimToken)] = true
	}
	for got := range tokens {
		if !sent[got] {
			t.Errorf("a Start returned the token %q, which nobody sent", got)
		}
	}
	on.agree(t, client, r)
}

// agree checks that whoever starts the runner again is told the token that Nomad has.
func (on target) agree(t *testing.T, client *Client, r router.StartRequest) {
	t.Helper()
	stored := on.Job(t, r.Runner.ID).Meta[MetaClaimToken]
	tokens, created := race(t, 8, func(i int) (router.Started, error) { return client.Start(t.Context(), withToken(r, "later", i)) })
	if created != 0 || len(tokens) != 1 || !tokens[stored] {
		t.Errorf("started again, %d made a job, with tokens %v; want none, and %s", created, tokens, stored)
	}
}

// A registration whose answer was lost is committed after its repeat.
func TestALostAnswerComesAfterItsRepeat(t *testing.T) {
	for _, c := range []struct {
		name, repeats string // the token
		allocs        int
	}{
		{"the same token leaves the runner alone", "the-token", 1},
		{"another one replaces it", "another-token", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			arrived, held := make(chan struct{}), make(chan struct{})
			hold := func() { close(arrived); <-held }
			var passed atomic.Int32
			on := early(t, func(string) {
				if passed.Add(1) == 1 {
					hold()
				}
			})
			release := sync.OnceFunc(func() { close(held) })
			t.Cleanup(release)
			client := newClient(t, on.Config)
			r := on.Fresh(t, router.Placement{Jobspec: "plain"})
			ctx, cancel := context.WithCancel(t.Context())
			lost := make(chan error, 1)
			go func() {
				_, err := client.Start(ctx, r)
				lost <- err
			}()
			<-arrived
			cancel()
			wantKind(t, <-lost, "retry", "context canceled")

			repeat := r
			repeat.ClaimToken = router.Secret(c.repeats)
			if got, err := client.Start(t.Context(), repeat); err != nil || got.Existed || got.ClaimToken != repeat.ClaimToken {
				t.Fatalf("the repeat: %+v, %v", got, err)
			}
			runs := on.running(t, r.Runner.ID)
			release()
			nomadtest.Await(t, "the registration that was on its way", func() bool { return *on.Job(t, r.Runner.ID).Version == 1 })
			if got := on.Job(t, r.Runner.ID).Meta[MetaClaimToken]; got != string(r.ClaimToken) {
				t.Errorf("Nomad has the token %q, want %q", got, r.ClaimToken)
			}
			if got := on.running(t, r.Runner.ID); (got == runs) != (c.allocs == 1) {
				t.Errorf("allocation %s ran, and then %s; want %d in all", runs, got, c.allocs)
			}
			if list, _, err := on.Nomad.Jobs().Allocations(r.Runner.ID, false, nil); err != nil || len(list) != c.allocs {
				t.Errorf("%d allocations, %v; want %d", len(list), err, c.allocs)
			}
			on.agree(t, client, r)
		})
	}
}

// running waits for one allocation of a job, of its last version, to run, and returns
// its ID.
func (on target) running(t *testing.T, jobID string) (id string) {
	t.Helper()
	nomadtest.Await(t, "a running allocation of "+jobID, func() bool {
		list, _, err := on.Nomad.Jobs().Allocations(jobID, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		id = ""
		for _, a := range list {
			if a.DesiredStatus == "run" && a.ClientStatus == "running" && a.JobVersion == *on.Job(t, jobID).Version {
				id = a.ID
			}
		}
		return id != ""
	})
	return id
}
