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
	redecideMost  = 2000 // jobs looked at after the rules changed, the newest
	redecideBatch = 200  // read from the store at once

	// Between two times that Nomad is asked for a job which it refused: doubled each
	// time. An admin who has just allowed it need not wait long, and a job that is
	// queued for a day costs some 150 questions.
	firstRefusedWait   = 15 * time.Second
	longestRefusedWait = 10 * time.Minute
)

// refusedByNomad sees to a job that Nomad refuses. An operator may change what it
// refused, the rule, the jobspec or what Nomad allows, so it is asked again; only what
// the job itself asks for is refused for good.
func (di *Dispatcher) refusedByNomad(ctx context.Context, j router.Job, r router.Runner, token router.Secret, d *rules.Decision, cause error) error {
	log := di.Log.With("job_id", j.ID, "repo", j.Repo.FullName, "rule", d.Rule, "nomad_job", r.ID, "err", cause)
	if label := ownFault(j.Placement(d), cause); label != "" {
		log.Info("job unroutable: nomad refuses what its label asks for", "label", label)
		return di.settle(ctx, j.ID, router.Unroutable, router.CauseRefused, fmt.Sprintf("Nomad refuses the job, for its label %s: %v", label, cause), d)
	}
	wait := min(firstRefusedWait<<min(max(j.Failures, 0), 10), longestRefusedWait)
	at := di.Now().Add(wait - time.Duration(di.Rand()*float64(wait)/4))
	log.Throttled(slog.LevelError, d.Rule, "nomad refuses the job: mend the rule, its jobspec or what Nomad allows", "again_at", at)
	di.tokens.keep(r.ID, token)
	return di.retry(ctx, j.ID, router.CauseRefused, at, fmt.Sprintf("Nomad refuses the job: %v; it is asked again with growing waits, and as soon as the rules or jobspecs change", cause), d)
}

// ownFault is the label of a job that asks for the value which Nomad finds fault
// with, as far as Nomad's words have it; "": there is none.
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

// Redecide decides the jobs anew that Nomad refused, or that nothing could serve
// and that the rules in force may route: at once, as they may have changed while no process ran,
// and after each change, until ctx ends. So a mistake in the rules costs no job
// that GitHub still queues.
func (di *Dispatcher) Redecide(ctx context.Context) error {
	for {
		di.retryNow(ctx, router.CauseRefused, -1)
		if err := di.redecide(ctx); err != nil && ctx.Err() == nil {
			di.Log.Warn("cannot look at the jobs that nothing could serve; switchyard jobs retry decides one anew", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-di.NewRules:
		}
	}
}

// redecide looks at the newest jobs that are Unroutable and that GitHub may
// still queue. Its error is the store's.
func (di *Dispatcher) redecide(ctx context.Context) error {
	set, begun, asks := di.Decider.Rules(), 0, true
	f := router.JobFilter{States: []router.JobState{router.Unroutable}, Since: di.Now().Add(-router.GoneAfter), Limit: redecideBatch}
	for range redecideMost / redecideBatch {
		jobs, err := di.Store.FindJobs(ctx, f)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if f.Before = j.ID; !mends(set, j) {
				continue
			}
			if asks { // whether it waits still; if GitHub cannot say, the claim asks again
				_, err := di.Intake.Ask(ctx, j)
				asks = err == nil
			}
			done, err := di.Store.Redecide(ctx, j.ID, router.SourceRouter, "the rules have changed since: it is decided anew", di.Now())
			if err != nil {
				return err
			}
			if done {
				begun++
				di.Due.Give()
			}
		}
		if len(jobs) < redecideBatch {
			break
		}
	}
	if begun > 0 {
		di.Log.Info("jobs that nothing could serve are decided anew, as the rules have changed", "jobs", begun)
	}
	return nil
}

// mends reports whether the rules may serve a job that is Unroutable: they
// decide it otherwise, or ask for something else than what Nomad or GitHub
// refused. What Nomad refused is asked for again, as the jobspec may be mended.
func mends(set *rules.Set, j router.Job) bool {
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
