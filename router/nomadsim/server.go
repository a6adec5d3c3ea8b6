//lint:file-ignore ST1005 the errors are Nomad's own words

// Package nomadsim owns a simulated Nomad cluster: a server that speaks the
// part of Nomad's HTTP API that the router, the demo and their tests use, with
// nodes that exist in memory. It is for the demo, tests and what-if runs. One
// contract suite holds its answers against a real agent's.
//
// It differs from Nomad in this: it reads no HCL, has one region, no ACLs and
// no volumes or networks, never reschedules or restarts, and never forgets a
// job that ended. Each node that a constraint rules out is counted under that
// constraint, where Nomad counts the second of a class of equal nodes under
// "computed class ineligible".
package nomadsim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"
	"github.com/hashicorp/nomad/api"
)

const (
	maxBody   = 16 << 20        // bytes of a request's body
	maxWait   = 5 * time.Minute // of a blocking query, Nomad's default
	region    = "global"
	namespace = "default"
)

// Config says what the simulated cluster is like.
type Config struct {
	// Nodes is the fleet; see MixedFleet. With none, every Nomad job waits.
	Nodes []*api.Node

	// Run does what a task does once its artifacts are there, and returns its
	// exit code. ctx ends when the task is stopped. nil: it ends at once with 0.
	Run func(ctx context.Context, t Task) (exitCode int)

	Namespaces []string         // beside "default"
	Client     *http.Client     // fetches artifacts; nil: one of its own, closed by Close
	Heartbeat  time.Duration    // of event streams; 0: 10 s, Nomad's own
	Now        func() time.Time // nil: time.Now
}

// A Task is a task of an allocation that was placed.
type Task struct {
	AllocID   string
	JobID     string
	Name      string
	Node      *api.Node
	Env       map[string]string // NOMAD_… and the task's own, interpolated
	Artifacts map[string]string // what was fetched, by destination
}

// A Server is a simulated Nomad cluster and the http.Handler of its API. It is
// safe for concurrent use. It takes over the nodes it is given.
type Server struct {
	cfg     Config
	handler http.Handler
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup // allocations at work

	mu      sync.Mutex
	closed  bool
	index   uint64
	changed chan struct{} // closed, and made anew, when index grows
	jobs    map[key]*job
	evals   map[string]*api.Evaluation
	allocs  map[string]*alloc
	nodes   []*node
	blocked []*job // that wait for a node; by priority, then age
	events  []event
	dropped uint64 // index of the last event that is kept no more
}

type key struct{ namespace, id string }

// job is a Nomad job and what came of it, guarded by Server.mu.
type job struct {
	*api.Job  // never changed but for status and stop, on a copy
	evals     []*api.Evaluation
	allocs    []*alloc
	isBlocked bool
	unplaced  map[string]int // by group: how many allocations wait
}

// New returns a running Server, which Close ends.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 10 * time.Second
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: time.Minute}
	}
	if cfg.Run == nil {
		cfg.Run = func(context.Context, Task) int { return 0 }
	}
	s := &Server{
		cfg: cfg, index: 1, changed: make(chan struct{}),
		jobs: map[key]*job{}, evals: map[string]*api.Evaluation{}, allocs: map[string]*alloc{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, n := range cfg.Nodes {
		s.addNode(n)
	}
	s.handler = s.routes()
	return s
}

// Close ends every allocation, stream and blocking query, and waits for the
// allocations. Requests are still answered afterwards, but nothing starts.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	s.cfg.Client.CloseIdleConnections()
}

// ServeHTTP answers a request to the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.handler.ServeHTTP(w, r)
}

// A statusError is an answer that is none of Nomad's 500s.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

func notFound(format string, args ...any) error {
	return &statusError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return &statusError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// An answerFunc answers a request with what becomes its JSON body. Errors are
// answered as plain text, with 500 unless they are statusErrors, as Nomad does.
type answerFunc func(r *http.Request) (any, error)

func (s *Server) routes() http.Handler {
	m := mux.NewRouter().UseEncodedPath()
	m.StrictSlash(false)
	handle := func(path, methods string, f answerFunc) {
		m.Handle("/v1"+path, s.answer(f)).Methods(strings.Fields(methods)...)
	}
	handle("/jobs", "GET", s.listJobs)
	handle("/jobs", "PUT POST", s.register)
	handle("/jobs/parse", "PUT POST", func(*http.Request) (any, error) {
		return nil, badRequest("Failed to parse job: this simulated Nomad reads no HCL; give it a job as JSON")
	})
	handle("/validate/job", "PUT POST", s.validateJob)
	handle("/job/{id}", "GET", s.getJob)
	handle("/job/{id}", "PUT POST", s.register)
	handle("/job/{id}", "DELETE", s.deregister)
	handle("/job/{id}/dispatch", "PUT POST", s.dispatch)
	handle("/job/{id}/plan", "PUT POST", s.plan)
	handle("/job/{id}/allocations", "GET", s.jobAllocations)
	handle("/job/{id}/evaluations", "GET", s.jobEvaluations)
	handle("/job/{id}/summary", "GET", s.jobSummary)
	handle("/allocations", "GET", s.listAllocations)
	handle("/allocation/{id}", "GET", s.getAllocation)
	handle("/evaluations", "GET", s.listEvaluations)
	handle("/evaluation/{id}", "GET", s.getEvaluation)
	handle("/nodes", "GET", s.listNodes)
	handle("/node/pools", "GET", s.listPools)
	handle("/node/{id}", "GET", s.getNode)
	handle("/namespaces", "GET", s.listNamespaces)
	handle("/regions", "GET", func(*http.Request) (any, error) { return []string{region}, nil })
	handle("/status/leader", "GET", func(*http.Request) (any, error) { return "127.0.0.1:4647", nil })
	handle("/agent/self", "GET", func(*http.Request) (any, error) {
		return map[string]any{
			"config": map[string]any{"Region": region, "Datacenter": "dc1", "Version": map[string]any{"Version": "2.0.0"}},
			"member": map[string]any{"Name": "nomadsim.global"}, "stats": map[string]any{},
		}, nil
	})
	handle("/agent/health", "GET", func(*http.Request) (any, error) {
		ok := map[string]any{"ok": true, "message": "ok"}
		return map[string]any{"client": ok, "server": ok}, nil
	})
	m.HandleFunc("/v1/event/stream", s.stream).Methods(http.MethodGet)
	m.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Invalid method", http.StatusMethodNotAllowed)
	})
	return m
}

func (s *Server) answer(f answerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.block(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		v, err := f(r)
		var body []byte
		if err == nil {
			body, err = json.Marshal(v)
		}
		if err != nil {
			status := http.StatusInternalServerError
			var coded *statusError
			if errors.As(err, &coded) {
				status = coded.status
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, err.Error())
			return
		}
		s.mu.Lock()
		index := s.index
		s.mu.Unlock()
		w.Header().Set("X-Nomad-Index", strconv.FormatUint(index, 10))
		w.Header().Set("X-Nomad-KnownLeader", "true")
		w.Header().Set("X-Nomad-LastContact", "0")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // a client that went away needs no answer
	})
}

// block holds a blocking query until something has changed since its index.
func (s *Server) block(r *http.Request) error {
	q := r.URL.Query()
	if r.Method != http.MethodGet || q.Get("index") == "" {
		return nil
	}
	since, err := strconv.ParseUint(q.Get("index"), 10, 64)
	if err != nil {
		return errors.New("Invalid index")
	}
	wait := maxWait
	if w := q.Get("wait"); w != "" {
		if wait, err = time.ParseDuration(w); err != nil || wait < 0 {
			return errors.New("Invalid wait time")
		}
	}
	timer := time.NewTimer(min(wait, 2*maxWait))
	defer timer.Stop()
	for {
		s.mu.Lock()
		index, changed := s.index, s.changed
		s.mu.Unlock()
		if index > since {
			return nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil
		case <-r.Context().Done():
			return nil
		case <-s.ctx.Done():
			return nil
		}
	}
}

// next starts a change: everything that it makes has the index. s.mu is held.
func (s *Server) next() uint64 {
	s.index++
	close(s.changed)
	s.changed = make(chan struct{})
	return s.index
}

// pathID is the ID in the request's path.
func pathID(r *http.Request) string {
	id := mux.Vars(r)["id"]
	if raw, err := url.PathUnescape(id); err == nil {
		return raw
	}
	return id
}

func namespaceOf(r *http.Request) string { return cmp.Or(r.URL.Query().Get("namespace"), namespace) }

// decode reads a JSON body.
func decode(r *http.Request, into any) error {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		return badRequest("%v", err)
	}
	return nil
}

func newID() string { return uuid.NewString() }

func (s *Server) listNamespaces(*http.Request) (any, error) {
	var list []*api.Namespace
	for _, name := range append([]string{namespace}, s.cfg.Namespaces...) {
		list = append(list, &api.Namespace{Name: name})
	}
	return list, nil
}
