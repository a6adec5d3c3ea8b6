package claim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"switchyard/router"
)

const (
	LostEvery = 30 * time.Second // between two calls of RemoveLost
	lostAgain = 2 * time.Minute  // until the second and last search for one: GitHub may register it late
	maxLost   = 10_000           // remembered; Strays finds those beyond, and those of an earlier process
	lostBatch = 200              // searched for in one call
)

// lostAnswers remembers the runners that GitHub may have registered although it did not say
// so. Nobody has their configuration, so they stay there, offline, and count towards the
// group's limit. The zero value is ready; it is safe for concurrent use.
type lostAnswers struct {
	mu   sync.Mutex
	list []lostAnswer // the next to be searched for comes first
}

type lostAnswer struct {
	target router.Target
	name   string
	jobID  int64
	due    time.Time
	last   bool // this is the second search
}

func (l *lostAnswers) add(a ...lostAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, a...)
	if over := len(l.list) - maxLost; over > 0 {
		l.list = l.list[over:]
	}
}

// take removes and returns those that are due; the caller adds again what it cannot finish.
func (l *lostAnswers) take(now time.Time) (due []lostAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rest []lostAnswer
	for _, a := range l.list {
		if len(due) < lostBatch && !now.Before(a.due) {
			due = append(due, a)
		} else {
			rest = append(rest, a)
		}
	}
	l.list = rest
	return due
}

// RemoveLost searches GitHub for the runners of lost answers, by name, and removes them.
// Where GitHub cannot be asked it tries again at the next call.
func (h *Handler) RemoveLost(ctx context.Context) error {
	var errs []error
	failing := map[router.OwnerKey]bool{} // whose login fails
	due := h.lostAnswers.take(h.Now())
	for _, a := range due {
		owner := router.OwnerOf(router.Repo{Host: a.target.Host, Owner: a.target.Owner})
		if failing[owner] || ctx.Err() != nil {
			h.lostAnswers.add(a)
			continue
		}
		found, err := h.removeLostOne(ctx, a)
		switch {
		case errors.Is(err, router.ErrBusy): // somebody has its configuration after all
		case err != nil:
			failing[owner] = true
			errs = append(errs, err)
			h.lostAnswers.add(a)
		case !found && !a.last:
			a.due, a.last = h.Now().Add(lostAgain), true
			h.lostAnswers.add(a)
		}
	}
	return errors.Join(errs...)
}

func (h *Handler) removeLostOne(ctx context.Context, a lostAnswer) (found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, router.GitHubTimeout)
	defer cancel()
	g, err := h.GitHub.Runner(ctx, a.target, a.name)
	if errors.Is(err, router.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = h.GitHub.RemoveRunner(ctx, a.target, g.ID)
	}
	if err != nil {
		return false, fmt.Errorf("remove runner %s, which GitHub registered without saying so: %w", a.name, err)
	}
	h.Log.Throttled(slog.LevelInfo, "", "removed a runner that github had registered without saying so", "job_id", a.jobID, "runner", a.name)
	return true, nil
}
