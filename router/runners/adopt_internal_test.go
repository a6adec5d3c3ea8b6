package runners

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"switchyard/router"
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
	rs.adopter.orphans.set(map[int64][]router.NomadJob{7: {{ID: "gha-7-2", RunnerID: "gha-7-2"}}})
	if j, err := rs.Adopt(t.Context(), router.Job{ID: 7, Try: 1}); j.ID != 7 || err == nil {
		t.Errorf("Adopt = job %d, %v; want job 7 and the error", j.ID, err)
	}
}
