package runners

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/intake"
	"switchyard/router/telemetry"
)

// adoptStore is a database whose jobs cannot be read.
type adoptStore struct{ Store }

func (adoptStore) Job(context.Context, int64) (router.Job, error) {
	return router.Job{}, errors.New("the disk fails")
}

// adoptNomad has no Nomad job any more.
type adoptNomad struct{ router.Nomad }

func (adoptNomad) ClaimOf(context.Context, router.NomadJob) (string, router.Secret, bool, error) {
	return "", "", false, router.ErrNotFound
}

// Dispatch records with the job that Adopt returns why that waits.
func TestAJobThatCannotBeReadAfterAnAdoptionIsReturned(t *testing.T) {
	rs := New(&Runners{Store: adoptStore{}, Nomad: adoptNomad{}, Log: telemetry.NewLog(slog.New(slog.DiscardHandler), time.Now)})
	rs.adopter.orphans.set(map[int64][]router.NomadJob{7: {{ID: "gha-7-2", RunnerID: "gha-7-2"}}}, map[string]bool{"": true})
	if j, err := rs.Adopt(t.Context(), router.Job{ID: 7, Try: 1}); j.ID != 7 || err == nil {
		t.Errorf("Adopt = job %d, %v; want job 7 and the error", j.ID, err)
	}
}

// manyStore has the jobs of all runners, and no runner.
type manyStore struct{ Store }

func (manyStore) Live(context.Context) ([]router.LiveRunner, error) { return nil, nil }
func (manyStore) Job(_ context.Context, id int64) (router.Job, error) {
	return router.Job{ID: id}, nil
}

func (manyStore) UnknownRunners(_ context.Context, ids []string) (map[string]bool, error) {
	unknown := map[string]bool{}
	for _, id := range ids {
		unknown[id] = true
	}
	return unknown, nil
}

// slowNomad takes its time to fail.
type slowNomad struct {
	router.Nomad
	mu    sync.Mutex
	asked map[string]int
}

func (n *slowNomad) ClaimOf(ctx context.Context, j router.NomadJob) (string, router.Secret, bool, error) {
	n.mu.Lock()
	n.asked[j.ID]++
	n.mu.Unlock()
	router.Pause(ctx, 10*time.Second)
	return "", "", false, errors.New("connection refused")
}

// However many runners the database lacks, a pass ends, and the next one goes on with those
// that it left, though none could be adopted. Only then may a claim be refused.
func TestManyRunnersAreAdoptedInSeveralPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const runners, sweep = 200, 5 * time.Minute
		nomad, first := &slowNomad{asked: map[string]int{}}, intake.NewFirstSync()
		first.Begin()
		first.End()
		rs := New(&Runners{Store: manyStore{}, Nomad: nomad, First: first, Listed: func(context.Context, []router.NomadJob) {}, Log: telemetry.NewLog(slog.New(slog.DiscardHandler), time.Now), Now: time.Now, Sweep: sweep, Doubt: 2 * time.Minute})
		var jobs []router.NomadJob
		for i := range runners {
			id := fmt.Sprintf("gha-%d-1", i+1)
			jobs = append(jobs, router.NomadJob{ID: id, RunnerID: id, Status: "running"})
		}
		passes := 0
		for ; first.Settling() && passes < 10; passes++ {
			began, next := time.Now(), time.Time{}
			if err := rs.reconciler.pass(t.Context(), &listing{map[string]bool{"": true}, jobs}, &next); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > sweep+20*time.Second {
				t.Errorf("a pass took %s, want little more than %s", took, sweep)
			}
			if soon := !next.After(time.Now()); soon != first.Settling() {
				t.Errorf("the next pass comes at once: %v, want %v", soon, first.Settling())
			}
		}
		if passes != 4 || len(nomad.asked) != runners {
			t.Errorf("%d passes asked Nomad about %d runners, want 4 and %d", passes, len(nomad.asked), runners)
		}
		for id, n := range nomad.asked {
			if n != 1 {
				t.Errorf("Nomad was asked about %s %d times before all others, want once", id, n)
			}
		}
	})
}
