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
	// One question may take so long. What has an index takes milliseconds; one that
	// takes longer looks through most of the history.
	questionTimeout = 2 * time.Second

	// So long one waits for its turn; a page asks several.
	turnTimeout = 5 * time.Second

	// As many of one principal's wait: a hundred browsers that share a token may all
	// load a page at once, which asks one question after the other.
	maxQuestions = 200

	// And as many of all.
	maxAllQuestions = 1000

	turnAgain = 5 * time.Second // when to ask again

	crowd = 8 // more questions of one principal are no longer those of a page or two
)

// Turns bound what is asked of the database at the same time: that takes processors,
// which the router needs, too. Each principal has a part of the places, so that
// nobody takes all of them, and those who wait have their turn one after the other.
type Turns struct {
	places *semaphore.Weighted
	each   int64               // places of one principal
	long   *semaphore.Weighted // the place of those that go through many jobs, whose answers are kept for a while

	mu  sync.Mutex
	of  map[string]*ofOne // principals with a question, by name
	all int               // questions
}

type ofOne struct {
	places    *semaphore.Weighted
	questions int
}

// newTurns leaves half of the processors to the router.
func newTurns() *Turns {
	places := int64(max(1, min(4, runtime.GOMAXPROCS(0)/2)))
	return &Turns{places: semaphore.NewWeighted(places), each: max(1, places/2), long: semaphore.NewWeighted(1), of: map[string]*ofOne{}}
}

// Crowded reports whether many questions of a principal wait, so that nobody
// else should wait for an answer that it gets.
func (t *Turns) Crowded(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.of[name]
	return one != nil && one.questions > crowd
}

// take waits for a turn of who ctx is of. done must be called after.
func (t *Turns) take(ctx context.Context) (done func(), err error) {
	name := auth.Who(ctx).Name
	one, err := t.enter(name)
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	if one.places.Acquire(wait, 1) != nil {
		t.leave(name)
		return nil, busy(ctx, http.StatusTooManyRequests, "your other requests are being answered; try again in a moment")
	}
	if t.places.Acquire(wait, 1) != nil {
		one.places.Release(1)
		t.leave(name)
		return nil, busy(ctx, http.StatusServiceUnavailable, "other requests are being answered; try again in a moment")
	}
	return func() {
		t.places.Release(1)
		one.places.Release(1)
		t.leave(name)
	}, nil
}

// enter counts a question.
func (t *Turns) enter(name string) (*ofOne, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.of[name]
	if one == nil {
		one = &ofOne{places: semaphore.NewWeighted(t.each)}
	}
	switch {
	case one.questions >= maxQuestions:
		return nil, problem.Later(http.StatusTooManyRequests, turnAgain, "%d of your requests are already waiting; try again in a moment", maxQuestions)
	case t.all >= maxAllQuestions:
		return nil, problem.Later(http.StatusServiceUnavailable, turnAgain, "%d requests are already waiting; try again in a moment", maxAllQuestions)
	}
	one.questions++
	t.all++
	t.of[name] = one
	return one, nil
}

func (t *Turns) leave(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if one := t.of[name]; one.questions > 1 {
		one.questions--
	} else {
		delete(t.of, name)
	}
}

// busy is the error of a question that had no turn: that it was not asked any
// more is no fault.
func busy(ctx context.Context, status int, text string) error {
	if problem.GaveUp(ctx) {
		return problem.Canceled()
	}
	return problem.Later(status, turnAgain, "%s", text)
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

// inTurn is a Database of which each question waits for its turn, and has questionTimeout.
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
	within, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	v, err := read(within)
	switch {
	case err == nil:
		return v, nil
	case problem.GaveUp(ctx):
		return none, problem.Canceled()
	case within.Err() != nil:
		return none, problem.Later(http.StatusServiceUnavailable, turnAgain, "the search takes longer than %v: narrow it with since, repo or label", questionTimeout)
	}
	return none, err
}

func (b inTurn) FindJobs(ctx context.Context, f router.JobFilter) ([]router.Job, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.Job, error) { return b.database.FindJobs(ctx, f) })
}

func (b inTurn) FindRunners(ctx context.Context, f router.RunnerFilter) ([]router.Runner, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.Runner, error) { return b.database.FindRunners(ctx, f) })
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

func (b inTurn) Oldest(ctx context.Context, within router.Scope, limit int) ([]router.Job, error) {
	return ask(ctx, b, func(ctx context.Context) ([]router.Job, error) { return b.database.Oldest(ctx, within, limit) })
}

// Starts and Demand go through the jobs of a day and of a week: what they return
// is kept by who asks, and they take as long as that allows, one after the other.
func (b inTurn) Starts(ctx context.Context, within router.Scope, since time.Time) ([]router.Start, error) {
	if err := b.turns.long.Acquire(ctx, 1); err != nil {
		return nil, busy(ctx, http.StatusServiceUnavailable, "other jobs are being counted; try again in a moment")
	}
	defer b.turns.long.Release(1)
	return b.database.Starts(ctx, within, since)
}

// Demand is as Starts.
func (b inTurn) Demand(ctx context.Context, within router.Scope, since time.Time) ([]router.Demand, error) {
	if err := b.turns.long.Acquire(ctx, 1); err != nil {
		return nil, busy(ctx, http.StatusServiceUnavailable, "other jobs are being counted; try again in a moment")
	}
	defer b.turns.long.Release(1)
	return b.database.Demand(ctx, within, since)
}
