package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
)

const (
	liveEvery   = 500 * time.Millisecond // between two reads of the database, while anyone follows
	liveBeat    = 20 * time.Second       // so that proxies keep a quiet stream open, and access is checked again
	liveBuffer  = 16                     // reads whose changes wait for a slow client; then its stream ends
	liveBatch   = 1000                   // changes of one read, and of what a client missed
	liveClients = 500
	liveShare   = 5                // a principal may have so small a part of them: a team that shares a token has a hundred
	liveRetry   = 30 * time.Second // when to try again for a stream
	liveWrite   = 10 * time.Second // for one write to a client
)

// A Change is one of a job or runner, as the stream tells it.
type Change struct {
	ID    int64 `json:"id"`     // grows
	JobID int64 `json:"job_id"` // the job, or the one that the runner is meant for
	Event
}

// A told change is one as all streams write it.
type told struct {
	id   int64
	text []byte
}

func tell(c router.Change) told {
	b, err := json.Marshal(Change{ID: c.ID, JobID: c.JobID, Event: Event{c.At, c.Source, c.RunnerID, c.State, c.What}})
	if err != nil {
		panic(err) // all of it can be JSON
	}
	return told{c.ID, fmt.Appendf(nil, "id: %d\nevent: change\ndata: %s\n\n", c.ID, router.PrintableJSON(b))}
}

// A hub reads what changed once for all who follow the stream, and not at all while
// nobody does.
type hub struct {
	config   Config
	database Database
	most     int // clients

	mu      sync.Mutex
	clients map[chan []told]follower
	loop    *loop // nil: nobody follows
	at      int64 // the last change that the loop knows
}

// A follower is who has a stream.
type follower struct {
	name  string // of the principal
	scope router.Scope
}

// A loop reads the changes.
type loop struct {
	stop  context.CancelFunc
	knows chan struct{} // closed when it knows the last change; it sends those that come after
	done  chan struct{} // closed when it has ended
}

func newHub(c Config, database Database) *hub {
	most := liveClients
	if c.Connections > 0 {
		most = max(min(most, c.Connections/2), liveShare)
	}
	return &hub{config: c, database: database, most: most, clients: map[chan []told]follower{}}
}

// join adds a client, to which all changes are sent after knows is closed. The channel is
// closed when the client is too slow, or when its place goes to another principal. leave
// must be called, unless there is an error: that there is no place.
func (h *hub) join(f follower) (events <-chan []told, knows <-chan struct{}, leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.makeRoom(f.name); err != nil {
		return nil, nil, nil, err
	}
	client := make(chan []told, liveBuffer)
	h.clients[client] = f
	if h.loop == nil {
		ctx, stop := context.WithCancel(context.Background())
		l := &loop{stop, make(chan struct{}), make(chan struct{})}
		h.loop = l
		go func() {
			defer close(l.done)
			h.run(ctx, l.knows)
		}()
	}
	return client, h.loop.knows, func() { h.leave(client) }, nil
}

// makeRoom returns nil if a principal may have one more stream. When all are taken, it
// ends one of the principal that has most, if those are more than this one would have.
func (h *hub) makeRoom(name string) error {
	of := map[string]int{}
	for _, f := range h.clients {
		of[f.name]++
	}
	if share := h.most / liveShare; of[name] >= share {
		return problem.Later(http.StatusTooManyRequests, liveRetry, "%s already has %d streams", name, share)
	}
	if len(h.clients) < h.most {
		return nil
	}
	var most chan []told
	for client, f := range h.clients {
		if most == nil || of[f.name] > of[h.clients[most].name] {
			most = client
		}
	}
	if of[h.clients[most].name] <= of[name]+1 {
		return problem.Later(http.StatusServiceUnavailable, liveRetry, "there are already %d streams", h.most)
	}
	delete(h.clients, most)
	close(most)
	return nil
}

// leave removes a client. The last one waits for the loop to end.
func (h *hub) leave(client chan []told) {
	h.mu.Lock()
	delete(h.clients, client)
	l := h.loop
	last := l != nil && len(h.clients) == 0
	if last {
		h.loop = nil
	}
	h.mu.Unlock()
	if last {
		l.stop()
		<-l.done
	}
}

func (h *hub) run(ctx context.Context, knows chan struct{}) {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	after := int64(-1)
	for {
		if changes, err := h.config.Database.Changes(ctx, after, liveBatch); err == nil && ctx.Err() == nil {
			first := after < 0
			after = max(after, 0)
			for _, c := range changes {
				after = max(after, c.ID)
			}
			h.mu.Lock()
			h.at = after
			h.mu.Unlock()
			if first {
				close(knows)
			} else {
				h.send(changes)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Position returns the last change that followers of the stream received, or are
// about to; false: nobody follows.
func (a *API) Position() (last int64, followed bool) {
	h := a.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.loop == nil {
		return 0, false
	}
	select {
	case <-h.loop.knows:
		return h.at, true
	default:
		return 0, false
	}
}

func (h *hub) send(changes []router.Change) {
	if len(changes) == 0 {
		return
	}
	all := make([]told, len(changes))
	for i, c := range changes {
		all[i] = tell(c)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for client, f := range h.clients {
		some, scope := all, f.scope
		if scope != nil {
			some = nil
			for i, c := range changes {
				if scope.Has(c.Repo) {
					some = append(some, all[i])
				}
			}
		}
		if some == nil {
			continue
		}
		select {
		case client <- some:
		default:
			delete(h.clients, client)
			close(client)
		}
	}
}

// stream answers GET /events with server-sent events, one for each change,
// until the client goes away, is too slow or may no longer see it, or the
// server stops. A client that comes back with the Last-Event-ID gets what it
// missed, or the event reset if that was too much.
func (h *hub) stream(w http.ResponseWriter, req *http.Request) {
	p := Parameters{Values: req.URL.Query()}
	last := int64(-1)
	if text := req.Header.Get("Last-Event-ID"); text != "" {
		var err error
		if last, err = strconv.ParseInt(text, 10, 64); err != nil || last < 0 {
			p.refuse("Last-Event-ID %q: want the id of an event", text)
		}
	}
	if err := p.End(); err != nil {
		h.config.Fail(w, req, err)
		return
	}
	ctx := req.Context()
	principal := auth.Who(ctx)
	scope := principal.Scope
	events, knows, leave, err := h.join(follower{principal.Name, scope})
	if err != nil {
		h.config.Fail(w, req, err)
		return
	}
	defer leave()
	select {
	case <-knows:
	case <-ctx.Done():
		return
	case <-h.config.App.Stopping():
		h.config.Fail(w, req, problem.New(http.StatusServiceUnavailable, "the server is stopping"))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	say := func(text []byte) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(liveWrite)) // a recorder of a test has none
		_, err := w.Write(text)
		return err == nil && rc.Flush() == nil
	}
	first := bytes.NewBufferString("retry: 2000\n\n")
	if last >= 0 {
		missed, err := h.database.Changes(ctx, last, liveBatch)
		if err != nil {
			return // the client asks again
		}
		if len(missed) == liveBatch {
			first.WriteString("event: reset\ndata: {}\n\n")
		}
		for _, c := range missed {
			last = max(last, c.ID)
			if len(missed) < liveBatch && scope.Has(c.Repo) {
				first.Write(tell(c).text)
			}
		}
	}
	if !say(first.Bytes()) {
		return
	}
	beat := time.NewTicker(cmp.Or(h.config.Heartbeat, liveBeat))
	defer beat.Stop()
	var b bytes.Buffer
	for {
		b.Reset()
		select {
		case <-ctx.Done():
			return
		case <-h.config.App.Stopping():
			return
		case <-beat.C:
			if !h.config.Guard.Unchanged(req, principal) {
				return // it may no longer see this; if it may see something, it asks again
			}
			b.WriteString(": still here\n\n")
		case changes, open := <-events:
			if !open {
				return // it was too slow, or has more than its share, and asks again
			}
			for _, c := range changes {
				if c.id > last {
					b.Write(c.text)
				}
			}
		}
		if b.Len() > 0 && !say(b.Bytes()) {
			return
		}
	}
}
