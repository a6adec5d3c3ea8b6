package dispatch

import (
	"context"
	"fmt"

	"switchyard/router"
	"switchyard/rules"
)

// takeWarm gives a job a warm runner, if its rule keeps some and one is there, and reports whether
// it did. Its errors are those of Store.Prepare.
func (di *Dispatcher) takeWarm(ctx context.Context, j router.Job, r router.Runner, d *rules.Decision) (bool, error) {
	p := j.Placement(d)
	if r.Own || !di.Decider.Rules().HasWarm(d.Rule) {
		return false, nil
	}
	jobspec, ok := di.Nomad.Waits(p)
	if !ok {
		return false, nil
	}
	began := di.Now()
	w, err := di.Store.TakeWarm(ctx, r, router.WarmFit(p, jobspec), d, began)
	if err != nil {
		return false, fmt.Errorf("give job %d a warm runner: %w", j.ID, err)
	}
	di.Metrics.WarmJob(d.Rule, w.ID != "")
	if w.ID == "" {
		return false, nil
	}
	di.Metrics.WarmHeld(d.Rule, w.PlacedAt, di.Now())
	di.WarmTaken(w)
	if j.DispatchedAt.IsZero() {
		di.Metrics.Registered(j, d, di.Now())
	}
	di.Log.Info("job dispatched", "job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "nomad_job", w.ID, "warm", true, "took", di.Now().Sub(began))
	return true, nil
}
