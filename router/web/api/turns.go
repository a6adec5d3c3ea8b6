package api

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"switchyard/router"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
)

const (
	// How long one query may take. With an index it takes milliseconds; one that
	// takes longer reads most of the history.
	queryTimeout = 2 * time.Second

	// How long one waits for its turn; a page makes several.
	turnTimeout = 5 * time.Second

	// How many of one principal may wait: a hundred browsers that share a token may
	// load a page at once, which makes one query after the other.
	maxQueries = 200

	// And this many of all principals.
	maxAllQueries = 1000

	turnRetry = 5 * time.Second // when to try again

	crowd = 8 // more queries of one principal than this are not those of a page or two
)

// Turns bound how many queries run on the database at the same time: they take
// processors that the router needs too. Each principal has a share of the places, so
// that nobody takes all of them, and those who wait have their turn one after the other.
type Turns struct {
	places *semaphore.Weighted
	each   int64               // places of one principal
	long   *semaphore.Weighted // the place of queries that read many jobs, whose results are kept for a while

	mu  sync.Mutex
	of  map[string]*principalTurns // principals with a query, by name
	all int                        // queries
}

type principalTurns struct {
	places  *semaphore.Weighted
	long    *semaphore.Weighted // one of its queries waits for, or has, the long place
	queries int
}

// newTurns leaves half of the processors to the router.
func newTurns() *Turns {
	places := int64(max(1, min(4, runtime.GOMAXPROCS(0)/2)))
	return &Turns{places: semaphore.NewWeighted(places), each: max(1, places/2), long: semaphore.NewWeighted(1), of: map[string]*principalTurns{}}
}

// Crowded reports whether many queries of a principal wait, so that nobody else
// should wait for its answers.
func (t *Turns) Crowded(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.of[name]
	return one != nil && one.queries > crowd
}

// take waits for a turn of the principal of ctx. done must be called afterwards.
func (t *Turns) take(ctx context.Context) (done func(), err error) {
	return t.takeOf(ctx, t.places, func(one *principalTurns) *semaphore.Weighted { return one.places })
}

// takeLong does the same for a query that reads many jobs.
func (t *Turns) takeLong(ctx context.Context) (done func(), err error) {
	return t.takeOf(ctx, t.long, func(one *principalTurns) *semaphore.Weighted { return one.long })
}

// takeOf waits for a place of the principal, and then for one of all.
func (t *Turns) takeOf(ctx context.Context, all *semaphore.Weighted, of func(*principalTurns) *semaphore.Weighted) (done func(), err error) {
	name := auth.Who(ctx).Name
	one, err := t.enter(name)
	if err != nil {
		return nil, err
	}
	own := of(one)
	wait, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	if own.Acquire(wait, 1) != nil {
		t.leave(name)
		return nil, busy(ctx, http.StatusTooManyRequests, "your other requests are being answered; try again in a moment")
	}
	if all.Acquire(wait, 1) != nil {
		own.Release(1)
		t.leave(name)
		return nil, busy(ctx, http.StatusServiceUnavailable, "other requests are being answered; try again in a moment")
	}
	return func() {
		all.Release(1)
		own.Release(1)
		t.leave(name)
	}, nil
}

// enter counts a query.
func (t *Turns) enter(name string) (*principalTurns, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.of[name]
	if one == nil {
		one = &principalTurns{places: semaphore.NewWeighted(t.each), long: semaphore.NewWeighted(1)}
	}
	switch {
	case one.queries >= maxQueries:
		return nil, problem.Later(http.StatusTooManyRequests, turnRetry, "%d of your requests are already waiting; try again in a moment", maxQueries)
	case t.all >= maxAllQueries:
		return nil, problem.Later(http.StatusServiceUnavailable, turnRetry, "%d requests are already waiting; try again in a moment", maxAllQueries)
	}
	one.queries++
	t.all++
	t.of[name] = one
	return one, nil
}

func (t *Turns) leave(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if one := t.of[name]; one.queries > 1 {
		one.queries--
	} else {
		delete(t.of, name)
	}
}

// busy returns the error of a query that had no turn: problem.Canceled when its client
// went away.
func busy(ctx context.Context, status int, text string) error {
	if problem.GaveUp(ctx) {
		return problem.Canceled()
	}
	return problem.Later(status, turnRetry, "%s", text)
}

// Do wraps what answers a request by reading something other than a Database, so
// that it waits for its turn.
func (t *Turns) Do(do func(*http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(req *http.Request) (any, error) {
		done, err := t.take(req.Context())
		if err != nil {
			return nil, err
		}
		defer done()
		return do(req)
	}
}

// inTurn is a Database each of whose queries waits for its turn and has queryTimeout.
type inTurn struct {
	database Database
	turns    *Turns
}

func ask[T any](ctx context.Context, b inTurn, read func(context.Context) (T, error)) (T, error) {
	var none T
	done, err := b.turns.take(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	within, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	v, err := read(within)
	switch {
	case err == nil:
		return v, nil
	case problem.GaveUp(ctx):
		return none, problem.Canceled()
	case within.Err() != nil:
		return none, problem.Later(http.StatusServiceUnavailable, turnRetry, "the search takes longer than %v: narrow it with since, repo or label", queryTimeout)
	}
	return none, err
}

func (b inTurn) FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.Job, error) { return b.database.FindJobs(ctx, f) })
}

// A searched is what a search found, and from which ID on it looked.
type searched[T any] struct {
	found []T
	from  int64
}

func (b inTurn) SearchJobs(ctx context.Context, f router.JobFilter) ([]router.Job, int64, error) {
	s, err := ask(ctx, b, func(ctx context.Context) (s searched[router.Job], err error) {
		s.found, s.from, err = b.database.SearchJobs(ctx, f)
		return s, err
	})
	return s.found, s.from, err
}

func (b inTurn) SearchRunners(ctx context.Context, f router.RunnerFilter) ([]router.Runner, int64, error) {
	s, err := ask(ctx, b, func(ctx context.Context) (s searched[router.Runner], err error) {
		s.found, s.from, err = b.database.SearchRunners(ctx, f)
		return s, err
	})
	return s.found, s.from, err
}

func (b inTurn) Job(ctx context.Context, id int64) (router.Job, error) {
	return ask(ctx, b, func(ctx context.Context) (router.Job, error) { return b.database.Job(ctx, id) })
}

func (b inTurn) Runner(ctx context.Context, id string) (router.Runner, error) {
	return ask(ctx, b, func(ctx context.Context) (router.Runner, error) { return b.database.Runner(ctx, id) })
}

func (b inTurn) Runners(ctx context.Context, jobID int64) ([]router.Runner, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.Runner, error) { return b.database.Runners(ctx, jobID) })
}

func (b inTurn) Timeline(ctx context.Context, jobID int64) ([]router.Event, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.Event, error) { return b.database.Timeline(ctx, jobID) })
}

func (b inTurn) Changes(ctx context.Context, after int64, limit int) ([]router.Change, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.Change, error) { return b.database.Changes(ctx, after, limit) })
}

func (b inTurn) OpenJobs(ctx context.Context, within router.Scope) ([]router.OpenJobs, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.OpenJobs, error) { return b.database.OpenJobs(ctx, within) })
}

func (b inTurn) OpenRepos(ctx context.Context, within router.Scope, limit int) ([]router.RepoJobs, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.RepoJobs, error) { return b.database.OpenRepos(ctx, within, limit) })
}

func (b inTurn) Oldest(ctx context.Context, within router.Scope, limit int) ([]router.Job, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.Job, error) { return b.database.Oldest(ctx, within, limit) })
}

func (b inTurn) LimitQueue(ctx context.Context, key, rule string) (router.LimitQueue, error) {
	return ask(ctx, b, func(ctx context.Context) (router.LimitQueue, error) { return b.database.LimitQueue(ctx, key, rule) })
}

func (b inTurn) RunnerVersions(ctx context.Context) ([]router.RuleVersion, error) {
	return ask(ctx, b, b.database.RunnerVersions)
}

func (b inTurn) WarmRunners(ctx context.Context) ([]router.WarmRunner, error) {
	return ask(ctx, b, b.database.WarmRunners)
}

// Starts and Demand read the jobs of a day and of a week. Their callers keep the
// results, so they run one after the other for as long as their context allows.
func (b inTurn) Starts(ctx context.Context, within router.Scope, since time.Time) ([]router.Start, error) {
	return count(ctx, b.turns, within, since, b.database.Starts)
}

// Demand behaves like Starts.
func (b inTurn) Demand(ctx context.Context, within router.Scope, since time.Time) ([]router.Demand, error) {
	return count(ctx, b.turns, within, since, b.database.Demand)
}

func count[T any](ctx context.Context, t *Turns, within router.Scope, since time.Time, read func(context.Context, router.Scope, time.Time) ([]T, error)) ([]T, error) {
	if err := t.long.Acquire(ctx, 1); err != nil {
		return nil, busy(ctx, http.StatusServiceUnavailable, "other jobs are being counted; try again in a moment")
	}
	defer t.long.Release(1)
	return read(ctx, within, since)
}
