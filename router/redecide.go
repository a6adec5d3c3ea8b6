package router

import (
	"context"
	"strings"

	"switchyard/rules"
)

const (
	redecideMost  = 2000 // jobs looked at after the rules changed, the newest
	redecideBatch = 200  // read from the store at once
	saysRefused   = "Nomad refuses the job"
)

// redecisions decides the jobs anew that nothing could serve and that the rules
// in force may route: at once, as they may have changed while no process ran,
// and after each change, until ctx ends. So a mistake in the rules costs no job
// that GitHub still queues.
func (w *worker) redecisions(ctx context.Context) error {
	for {
		if err := w.redecide(ctx); err != nil && ctx.Err() == nil {
			w.Logger.Warn("cannot look at the jobs that nothing could serve; switchyard jobs retry decides one anew", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.anew:
		}
	}
}

// redecide looks at the newest jobs that are Unroutable and that GitHub may
// still queue. Its error is the store's.
func (w *worker) redecide(ctx context.Context) error {
	set, begun, asks := w.live.Load().set, 0, true
	f := JobFilter{States: []JobState{Unroutable}, Since: w.Now().Add(-goneAfter), Limit: redecideBatch}
	for range redecideMost / redecideBatch {
		jobs, err := w.Store.FindJobs(ctx, f)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if f.Before = j.ID; !mends(set, j) {
				continue
			}
			if asks { // whether it waits still; if GitHub cannot say, the claim asks again
				_, err := w.ask(ctx, j)
				asks = err == nil
			}
			done, err := w.Store.Redecide(ctx, j.ID, SourceRouter, "the rules have changed since: it is decided anew", w.Now())
			if err != nil {
				return err
			}
			if done {
				begun++
				w.nudge()
			}
		}
		if len(jobs) < redecideBatch {
			break
		}
	}
	if begun > 0 {
		w.Logger.Info("jobs that nothing could serve are decided anew, as the rules have changed", "jobs", begun)
	}
	return nil
}

// mends reports whether the rules may serve a job that is Unroutable: they
// decide it otherwise, or ask for something else than what Nomad or GitHub
// refused. What Nomad refused is asked for again, as the jobspec may be mended.
func mends(set *rules.Set, j Job) bool {
	facts, was := j.Facts(), j.Decision
	if was != nil {
		facts.Run = was.Run
	}
	d := set.Decide(facts, false)
	switch {
	case d.Outcome == rules.Unroutable:
		return false
	case was == nil || was.Outcome != d.Outcome:
		return true
	}
	return strings.HasPrefix(j.Reason, saysRefused) || j.Fit(was) != j.Fit(&d)
}
