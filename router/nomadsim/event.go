package nomadsim

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// maxEvents is how many events are kept for streams that resume; Nomad keeps
// 100 batches unless it is told otherwise, which is no more.
const maxEvents = 10_000

// event is something that happened. Its payload is never changed afterwards.
type event struct {
	index     uint64
	topic     string // Job, Evaluation, Allocation or Node
	kind      string // JobRegistered and so on
	key       string
	namespace string
	filters   []string // further keys that a topic may ask for
	name      string   // of the payload's one field
	payload   any
}

// publish adds an event to the streams. s.mu is held, and index is the one
// that s.next gave.
func (s *Server) publish(index uint64, e event) {
	e.index = index
	if len(s.events) >= 2*maxEvents {
		s.dropped = s.events[len(s.events)-maxEvents-1].index
		s.events = slices.Clone(s.events[len(s.events)-maxEvents:])
	}
	s.events = append(s.events, e)
}

// stream answers the event stream: one JSON object a line for each index, {}
// when nothing happens for a while. index=N asks for what came after N.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
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
	var after uint64
	var err error
	s.mu.Lock()
	if i := q.Get("index"); i == "" || i == "0" {
		after = s.index
	} else if after, err = strconv.ParseUint(i, 10, 64); err != nil {
		s.mu.Unlock()
		http.Error(w, "Unable to parse index: "+err.Error(), http.StatusBadRequest)
		return
	} else {
		after-- // the event of this index comes, too
	}
	s.mu.Unlock()

	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	flush := http.NewResponseController(w).Flush
	heartbeat := time.NewTicker(s.cfg.Heartbeat)
	defer heartbeat.Stop()
	for {
		s.mu.Lock()
		changed := s.changed
		at, _ := slices.BinarySearchFunc(s.events, after+1, func(e event, index uint64) int {
			if e.index < index {
				return -1
			}
			return 1
		})
		fresh := slices.DeleteFunc(slices.Clone(s.events[at:]), func(e event) bool { return !wants(e) })
		if len(s.events) > 0 {
			after = max(after, s.events[len(s.events)-1].index)
		}
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
		select {
		case <-changed:
			continue
		case <-heartbeat.C:
			if _, err := w.Write([]byte("{}\n")); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

func writeEvents(w http.ResponseWriter, events []event) error {
	batch := struct {
		Index  uint64
		Events []api.Event
	}{Index: events[0].index}
	for _, e := range events {
		raw, err := json.Marshal(e.payload)
		if err != nil {
			return err
		}
		batch.Events = append(batch.Events, api.Event{
			Topic: api.Topic(e.topic), Type: e.kind, Key: e.key, FilterKeys: e.filters, Index: e.index,
			Payload: map[string]any{e.name: json.RawMessage(raw)},
		})
	}
	return json.NewEncoder(w).Encode(batch) // with a line break at its end
}
