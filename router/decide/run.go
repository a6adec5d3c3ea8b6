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
	runTimeout = 15 * time.Second // of one look-up; under claimTimeout
	runPause   = 30 * time.Second // at most, after failures, before any job of the run asks again; 500 ms after the first, then doubled
)

// Decide decides a job. Its run is looked up when a rule that is reached asks
// for it; if that fails, the decision is Undecided and the error says why.
func (de *Decider) Decide(ctx context.Context, j router.Job) (router.Decision, error) {
	facts, set := j.Facts(), de.live.Load().set // one set, whatever is reloaded meanwhile
	d := set.Decide(facts, false)
	if d.Outcome != rules.Undecided {
		return d, nil
	}
	run, err := de.runs.get(ctx, j.RunID, de.now, func(ctx context.Context) (router.Run, error) {
		return de.github.Run(ctx, j.Repo, j.RunID)
	})
	if err != nil {
		return d, err
	}
	facts.Run = &run
	return set.Decide(facts, false), nil
}

// runs remembers what GitHub said of workflow runs, so that it is asked once
// for each. An error is remembered for up to runPause, so that the many jobs of one
// run do not use up GitHub's rate limit. The zero value is ready. It is safe
// for concurrent use.
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

// get returns a run, and asks for it unless it is known. Callers that want the
// same one at the same time share one call, made by the first of them; if that
// one's ctx ends, the others ask again. So get may outlast ctx, by runTimeout
// at most.
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
	cut bool // the ctx of the caller that asked ended
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
