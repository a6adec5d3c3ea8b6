package nomadsim

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// maxEvents is how many events are kept, at least, for later streams; Nomad keeps 100
// batches of them by default.
const maxEvents = 1_000

// An event is something that happened. Its payload is never changed afterwards.
type event struct {
	index     uint64
	topic     string // Job, Evaluation, Allocation or Node
	kind      string // JobRegistered and so on
	key       string
	namespace string
	filters   []string // further keys that a topic may ask for
	payload   map[string]any
}

// A change is one step of the cluster's state, like an entry of Nomad's Raft log: what it
// changes gets its index, and its events are sent together. Whoever has one holds
// cluster.mu.
type change struct {
	*cluster
	index uint64
	kind  string // of its events
	now   int64
}

// change begins a change, and wakes those who wait for one. s.mu is held.
func (s *cluster) change(kind string) change {
	s.index++
	s.wake()
	return change{s, s.index, kind, s.cfg.Now().UnixNano()}
}

// publish sends an event of the change to the streams.
func (c change) publish(e event) {
	e.index, e.kind = c.index, c.kind
	if len(c.events) >= 2*maxEvents {
		c.events = slices.Clone(c.events[len(c.events)-maxEvents:])
	}
	c.events = append(c.events, e)
}

// stream answers the event stream: one JSON object a line for each change, and {} as a
// heartbeat. index=N asks for N and later; without it, for all that is kept.
func (s clusterAPI) stream(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	topics := map[string][]string{}
	for _, t := range q["topic"] {
		name, key, ok := strings.Cut(t, ":")
		if !ok || key == "" {
			key = "*"
		}
		topics[name] = append(topics[name], key)
	}
	if len(topics) == 0 {
		topics["*"] = []string{"*"}
	}
	wants := func(e event) bool {
		if ns := namespaceOf(r); e.namespace != "" && ns != "*" && ns != e.namespace {
			return false
		}
		for _, key := range slices.Concat(topics["*"], topics[e.topic]) {
			if key == "*" || key == e.key || slices.Contains(e.filters, key) {
				return true
			}
		}
		return false
	}
	var from uint64 // the index of the first event to send
	if i := q.Get("index"); i != "" {
		n, err := strconv.Atoi(i)
		if err != nil {
			refuse(w, http.StatusBadRequest, "Unable to parse index: "+err.Error())
			return
		}
		from = uint64(n)
	}

	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	if _, err := io.WriteString(w, "{}\n"); err != nil { // Nomad opens with a heartbeat
		return
	}
	flush := http.NewResponseController(w).Flush
	heartbeat := time.NewTicker(s.cfg.Heartbeat)
	defer heartbeat.Stop()
	s.mu.Lock()
	from = min(from, s.index+1) // Nomad does not wait for an index
	restarts := s.restarts
	s.mu.Unlock()
	for {
		s.mu.Lock()
		changed, fault, restarted := s.changed, s.fault, s.restarts != restarts
		if fault == Refusing || fault == Silent || restarted {
			s.mu.Unlock()
			switch {
			case fault == Refusing:
				panic(http.ErrAbortHandler)
			case restarted:
				return
			}
			if _, ok := s.await(r, changed, nil); !ok {
				return
			}
			continue
		}
		at, _ := slices.BinarySearchFunc(s.events, from, func(e event, index uint64) int { return cmp.Compare(e.index, index) })
		fresh := slices.DeleteFunc(slices.Clone(s.events[at:]), func(e event) bool { return !wants(e) })
		from = max(from, s.index+1)
		s.mu.Unlock()
		for len(fresh) > 0 {
			n := slices.IndexFunc(fresh, func(e event) bool { return e.index != fresh[0].index })
			if n < 0 {
				n = len(fresh)
			}
			if err := writeEvents(w, fresh[:n]); err != nil {
				return
			}
			fresh = fresh[n:]
		}
		if flush() != nil {
			return
		}
		quiet, ok := s.await(r, changed, heartbeat.C)
		if !ok {
			return
		}
		if quiet {
			if _, err := io.WriteString(w, "{}\n"); err != nil {
				return
			}
		}
	}
}

func writeEvents(w http.ResponseWriter, events []event) error {
	batch := struct {
		Index  uint64
		Events []api.Event
	}{Index: events[0].index}
	for _, e := range events {
		batch.Events = append(batch.Events, api.Event{
			Topic: api.Topic(e.topic), Type: e.kind, Key: e.key, FilterKeys: e.filters, Index: e.index, Payload: e.payload,
		})
	}
	return json.NewEncoder(w).Encode(batch) // with a line break at its end
}
