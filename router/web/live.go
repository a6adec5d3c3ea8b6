package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"switchyard/router"
)

const (
	liveEvery   = 500 * time.Millisecond // between two looks at the books, while anyone follows
	liveBeat    = 20 * time.Second       // so that proxies keep a quiet stream
	liveBuffer  = 256                    // changes that wait for a slow client; then it is told to begin anew
	liveBatch   = 1000
	liveClients = 500
)

// A Change is one of a job or runner, as the stream tells it.
type Change struct {
	ID    int64 `json:"id"`     // grows
	JobID int64 `json:"job_id"` // the job, or the one that the runner is meant for
	Event
}

// A hub looks at the books for all who follow them, once, and not at all while nobody does.
type hub struct {
	books Books

	mu      sync.Mutex
	clients map[chan router.Change]router.Scope
	stop    context.CancelFunc // of the loop; nil: it does not run
}

func newHub(books Books) *hub {
	return &hub{books: books, clients: map[chan router.Change]router.Scope{}}
}

// join adds a client, whose channel is closed when it was too slow; leave must be called.
func (h *hub) join(scope router.Scope) (events chan router.Change, leave func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.clients) >= liveClients {
		return nil, nil, false
	}
	events = make(chan router.Change, liveBuffer)
	h.clients[events] = scope
	if h.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		h.stop = stop
		go h.run(ctx)
	}
	return events, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.clients, events)
		if len(h.clients) == 0 && h.stop != nil {
			h.stop()
			h.stop = nil
		}
	}, true
}

func (h *hub) run(ctx context.Context) {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	after := int64(-1)
	for {
		if events, err := h.books.Changes(ctx, after, liveBatch); err == nil {
			if after < 0 {
				after = 0
			} else {
				h.send(events)
			}
			for _, e := range events {
				after = max(after, e.ID)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (h *hub) send(events []router.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for client, scope := range h.clients {
		for _, e := range events {
			if !scope.Has(e.Repo) {
				continue
			}
			select {
			case client <- e:
				continue
			default:
			}
			delete(h.clients, client)
			close(client)
			break
		}
	}
}

// stream answers GET /events with server-sent events, one for each change,
// until the client goes away, is too slow, or the server stops.
func (a *api) stream(w http.ResponseWriter, req *http.Request) {
	events, leave, ok := a.hub.join(who(req.Context()).Scope)
	if !ok {
		a.fail(w, req, refuse(http.StatusServiceUnavailable, "%d follow already", liveClients))
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	say := func(format string, args ...any) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(10 * time.Second)) // a recorder of a test has none
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && rc.Flush() == nil
	}
	if !say("retry: 2000\n\n") {
		return
	}
	beat := time.NewTicker(liveBeat)
	defer beat.Stop()
	for {
		select {
		case <-req.Context().Done():
			return
		case <-a.App.Stopping():
			return
		case <-beat.C:
			if !say(": still here\n\n") {
				return
			}
		case e, ok := <-events:
			if !ok {
				return // the client asks again
			}
			b, err := json.Marshal(Change{ID: e.ID, JobID: e.JobID, Event: Event{e.At, e.Source, e.RunnerID, e.State, e.What}})
			if err != nil {
				panic(err) // all of it can be JSON
			}
			if !say("id: %s\nevent: change\ndata: %s\n\n", strconv.FormatInt(e.ID, 10), b) {
				return
			}
		}
	}
}
