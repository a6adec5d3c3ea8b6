package claim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"switchyard/router"
)

const (
	waitFor   = 25 * time.Second // for a job, in one request; proxies often end a request after 60 s
	waitEvery = time.Second      // between two looks at the database for warm runners that were taken, though no hint came
	waitAgain = 5 * time.Second  // until a warm runner that found no room is to ask again
)

// waiters are the warm runners whose claims wait here. The zero value is ready; it is safe for
// concurrent use.
type waiters struct {
	look router.Hint // given when one of them may have been taken

	mu sync.Mutex
	by map[string]*waiter // by ID
}

// A waiter is one request of a warm runner.
type waiter struct {
	news     chan struct{} // size 1: something has changed
	replaced chan struct{} // closed when the runner asks again, as after its connection broke
}

// add adds a request, which replaces an earlier one of the same runner; nil: there are most
// already.
func (w *waiters) add(id string, most int) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.by[id]
	if before == nil && len(w.by) >= most {
		return nil
	}
	if before != nil {
		close(before.replaced)
	}
	if w.by == nil {
		w.by = map[string]*waiter{}
	}
	w.by[id] = &waiter{make(chan struct{}, 1), make(chan struct{})}
	return w.by[id]
}

func (w *waiters) remove(id string, one *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by[id] == one {
		delete(w.by, id)
	}
}

func (w *waiters) ids() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.by {
		ids = append(ids, id)
	}
	return ids
}

// tell has the requests of runners look at the database.
func (w *waiters) tell(ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if one := w.by[id]; one != nil {
			select {
			case one.news <- struct{}{}:
			default:
			}
		}
	}
}

// Taken says that a job may have taken a warm runner, or that one was stopped.
func (h *Handler) Taken() { h.waiters.look.Give() }

// Watch tells claims that wait here when their runners are taken or stopped, by whichever replica,
// until ctx ends. One query serves all of them.
func (h *Handler) Watch(ctx context.Context) error {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.waiters.look:
		case <-tick.C:
		}
		ids := h.waiters.ids()
		if len(ids) == 0 {
			continue
		}
		reading, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		changed, err := h.Store.NoLongerWarm(reading, ids)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				h.Log.Throttled(slog.LevelWarn, "", "cannot read which warm runners were taken", "err", err, "fix", router.StoreFix(err))
			}
			continue
		}
		h.waiters.tell(changed)
	}
}

// warm answers the claim of a warm runner that no job has taken, and reports whether it did; if not,
// a job has it now, or the token is nobody's. The answer is 200 and empty to one that is not
// needed any more, and to the artifact that every runner fetches; 202 when no job came while it
// waited: it is to ask again at once.
func (h *Handler) warm(rw http.ResponseWriter, req *http.Request, tokenHash [32]byte) (answered bool, err error) {
	ctx := req.Context()
	w, err := h.Store.WarmOf(ctx, tokenHash)
	switch {
	case errors.Is(err, router.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read the warm runner of a claim: %w", err)
	case w.State == router.WarmTaken:
		return false, nil
	}
	_, waits := req.URL.Query()["wait"]
	if !waits || w.State == router.WarmStopped || w.State == router.WarmEnded {
		rw.WriteHeader(http.StatusOK)
		return true, nil
	}
	one := h.waiters.add(w.ID, h.MaxWaiting)
	if one == nil {
		rw.Header().Set("Retry-After", fmt.Sprint(int(waitAgain.Seconds())))
		http.Error(rw, "too many warm runners wait here", http.StatusTooManyRequests)
		return true, nil
	}
	defer h.waiters.remove(w.ID, one)
	over := time.NewTimer(waitFor)
	defer over.Stop()
	for {
		if w, err = h.Store.WarmOf(ctx, tokenHash); err != nil {
			return false, fmt.Errorf("read the warm runner of a claim: %w", err)
		}
		switch {
		case w.State == router.WarmTaken:
			return false, nil
		case w.State != router.WarmStarting && w.State != router.WarmReady:
			rw.WriteHeader(http.StatusOK)
			return true, nil
		case w.State == router.WarmStarting || w.Doubted:
			if err := h.Store.WarmReady(ctx, w.ID, h.Now()); err != nil {
				return false, fmt.Errorf("record that a warm runner waits: %w", err)
			}
			h.WarmChanged.Give()
			continue // it may have been taken in the meantime
		}
		select {
		case <-one.news:
			continue
		case <-over.C:
		case <-one.replaced:
		case <-h.Stopping:
			rw.Header().Set("Connection", "close")
		case <-ctx.Done():
			return true, nil
		}
		http.Error(rw, "no job yet: ask again", http.StatusAccepted)
		return true, nil
	}
}
