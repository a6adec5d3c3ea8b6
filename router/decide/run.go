package decide

import (
	"context"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"switchyard/router"
	"switchyard/rules"
)

const (
	maxRuns    = 10_000           // remembered
	runTimeout = 15 * time.Second // of one request; under claimTimeout
	runPause   = 30 * time.Second // the longest pause before a run is asked about again; 500 ms after the first failure, then doubled
)

// Decide decides a job. If a rule that is reached needs to know the job's run, it asks GitHub;
// if that fails, the decision is Undecided and the error says why.
func (d *Decider) Decide(ctx context.Context, j router.Job) (router.Decision, error) {
	facts, set := j.Facts(), d.live.Load().set // one set, whatever is reloaded meanwhile
	decision := set.Decide(facts, false)
	if decision.Outcome != rules.Undecided {
		return decision, nil
	}
	run, err := d.runs.get(ctx, j.RunID, d.now, func(ctx context.Context) (router.Run, error) {
		return d.github.Run(ctx, j.Repo, j.RunID)
	})
	if err != nil {
		return decision, err
	}
	facts.Run = &run
	return set.Decide(facts, false), nil
}

// runs remembers what GitHub said about workflow runs, so that it is asked once for each. An
// error is remembered for up to runPause, so that the many jobs of one run do not use up
// GitHub's rate limit. The zero value is ready. It is safe for concurrent use.
type runs struct {
	group singleflight.Group

	mu         sync.Mutex
	young, old map[int64]router.Run // at most maxRuns/2 each: a full young becomes old
	failed     map[int64]failedRun
}

type failedRun struct {
	err   error
	again time.Time
	pause time.Duration
}

// get returns a run, and asks for it unless it is known. Callers that want the same run at the
// same time share one call, made by the first of them. If that one's ctx ends, the others ask
// again, so get may outlast ctx by up to runTimeout.
func (r *runs) get(ctx context.Context, id int64, now func() time.Time, ask func(context.Context) (router.Run, error)) (router.Run, error) {
	for {
		shared, err, _ := r.group.Do(strconv.FormatInt(id, 10), func() (any, error) {
			if run, ok := r.known(id); ok {
				return answer{run: run}, nil
			}
			if err := r.failure(id, now()); err != nil {
				return answer{}, err
			}
			within, cancel := context.WithTimeout(ctx, runTimeout)
			defer cancel()
			run, err := ask(within)
			if err == nil {
				r.remember(id, run)
			} else if ctx.Err() == nil {
				r.fail(id, err, now())
			}
			return answer{run: run, cut: ctx.Err() != nil}, err
		})
		a := shared.(answer)
		if err == nil || !a.cut || ctx.Err() != nil {
			return a.run, err
		}
	}
}

type answer struct {
	run router.Run
	cut bool // the ctx of the caller that asked has ended
}

func (r *runs) known(id int64) (router.Run, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run, ok := r.young[id]
	if !ok {
		run, ok = r.old[id]
	}
	return run, ok
}

func (r *runs) failure(id int64, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.failed[id]; now.Before(f.again) {
		return f.err
	}
	return nil
}

func (r *runs) fail(id int64, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil || len(r.failed) >= maxRuns {
		r.failed = map[int64]failedRun{}
	}
	pause := min(max(500*time.Millisecond, 2*r.failed[id].pause), runPause)
	r.failed[id] = failedRun{err, now.Add(pause), pause}
}

func (r *runs) remember(id int64, run router.Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young == nil || len(r.young) >= maxRuns/2 {
		r.young, r.old = map[int64]router.Run{}, r.young
	}
	r.young[id] = run
	delete(r.failed, id)
}
