package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

const (
	redecideMost  = 2000 // the newest unroutable jobs of each GitHub, tried after the rules changed
	redecideBatch = 200  // read from the store at once

	// Between two times that Nomad is asked for a job which it refused: doubled each
	// time. An admin who has just allowed it need not wait long, and a job that is
	// queued for a day costs some 150 questions.
	firstRefusedWait   = 15 * time.Second
	longestRefusedWait = 10 * time.Minute
)

// refusedByNomad records that Nomad refuses a job. An operator may change the rule, the
// jobspec or what Nomad allows, so the job is retried; only if Nomad refuses what one of
// the job's own labels asks for is it Unroutable.
func (di *Dispatcher) refusedByNomad(ctx context.Context, j router.Job, r router.Runner, token router.Secret, d *rules.Decision, cause error) error {
	log := di.Log.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "nomad_job", r.ID, "err", cause)
	if label := ownFault(j.Placement(d), cause); label != "" {
		log.Info("job unroutable: nomad refuses what its label asks for", "label", label)
		return di.settle(ctx, j.ID, router.Unroutable, router.CauseRefused, fmt.Sprintf("Nomad refuses the job, for its label %s: %v", label, cause), d)
	}
	wait := min(firstRefusedWait<<min(max(j.Failures, 0), 10), longestRefusedWait)
	at := di.Now().Add(wait - time.Duration(di.Rand()*float64(wait)/4))
	log.Throttled(slog.LevelError, d.Rule, "nomad refuses a job: fix the rule, its jobspec or what Nomad allows", "again_at", at)
	di.tokens.keep(r.ID, token)
	return di.retry(ctx, j.ID, router.CauseRefused, at, fmt.Sprintf("Nomad refuses the job: %v; it is retried with growing waits, and as soon as the rules or jobspecs change", cause), d)
}

// ownFault returns the label of a job that asks for the value which Nomad's words mention;
// "": there is none.
func ownFault(p router.Placement, cause error) string {
	said := strings.ToLower(cause.Error())
	for _, c := range p.Constraints {
		label, ok := strings.CutPrefix(c.From, "label ")
		value := strings.ToLower(c.Value)
		if ok && value != "" && label != value && strings.HasSuffix(strings.ToLower(label), value) && strings.Contains(said, value) {
			return label
		}
	}
	return ""
}

// Redecide retries the jobs that Nomad refused, or whose runners GitHub left idle, and decides those again that nothing could
// serve and that the rules in force may route. It does so at once, as the rules may have
// changed while no process ran, and after each change of the rules, until ctx ends. So a
// mistake in the rules costs no job that GitHub still queues.
func (di *Dispatcher) Redecide(ctx context.Context) error {
	for {
		di.retryNow(ctx, router.AnyRegion, router.CauseRefused, -1)
		var again <-chan time.Time
		if err := di.redecide(ctx); err != nil && ctx.Err() == nil {
			di.Log.Warn("cannot decide unroutable jobs again after the rules changed; it will be retried", "err", err, "again_at", di.Now().Add(di.Sweep))
			again = time.After(di.Sweep)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-di.NewRules:
			di.retryNow(ctx, router.AnyRegion, router.CauseNoJob, -1) // they may name another runner group
		case <-again:
		}
	}
}

// redecide decides the newest Unroutable jobs of each GitHub again that may still be queued
// there. Its error is the store's.
func (di *Dispatcher) redecide(ctx context.Context) error {
	set, begun, asks := di.Decider.Rules(), 0, true
	f := router.JobFilter{States: []router.JobState{router.Unroutable}, Since: di.Now().Add(-router.GoneAfter), Limit: redecideBatch}
	seen := map[int64]int{} // by GitHub
	for more := true; more; {
		jobs, err := di.Store.FindJobs(ctx, f)
		if err != nil {
			return err
		}
		more = len(jobs) == redecideBatch
		for _, j := range jobs {
			in := router.InstanceOf(j.ID)
			if seen[in]++; seen[in] > redecideMost {
				f.Before = router.FirstID(j.ID)
				more = f.Before > 0
				break
			}
			if f.Before = j.ID; !mayServe(set, j) {
				continue
			}
			if asks { // whether the job still waits; if GitHub cannot say, the claim asks again
				_, err := di.Intake.Ask(ctx, j)
				asks = err == nil
			}
			done, err := di.Store.Redecide(ctx, j.ID, router.SourceRouter, "the rules have changed: it is decided again", di.Now())
			if err != nil {
				return err
			}
			if done {
				begun++
				di.Due.Give()
			}
		}
	}
	if begun > 0 {
		di.Log.Info("unroutable jobs are decided again, as the rules have changed", "jobs", begun)
	}
	return nil
}

// mayServe reports whether the rules may serve an Unroutable job: they decide it
// differently, or ask for something else than what Nomad or GitHub refused. What Nomad
// refused is tried again in any case, because the jobspec may have been fixed.
func mayServe(set *rules.Set, j router.Job) bool {
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
	return j.Cause == router.CauseRefused || j.Fit(was) != j.Fit(&d)
}
