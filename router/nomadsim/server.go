// Package nomadsim owns a simulated Nomad cluster: a server that speaks the
// part of Nomad's HTTP API that the router, the demo and their tests use, with
// nodes that exist in memory. It is for the demo, tests and what-if runs. One
// contract suite holds its answers against a real agent's.
//
// It differs from Nomad in this: it reads no HCL; it has no
// ACLs, volumes, networks, preemption by itself (see Preempt), spreads, periodic or system jobs;
// nothing restarts or is rescheduled, and the tasks of a group start together;
// a dispatch's idempotency token holds even in a race; evaluations are complete
// when a registration is answered; and nothing that ended is ever collected.
package nomadsim

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-bexpr"
	"github.com/hashicorp/go-version"
	"github.com/hashicorp/nomad/api"
)

const (
	maxBody   = 16 << 20        // bytes of a request's body
	maxWait   = 5 * time.Minute // of a blocking query, Nomad's default
	namespace = "default"
	release   = "2.0.5" // of Nomad, that it says it is

	onceSince = "2.0.1" // the first release of Nomad that checks EnforceIndex as it commits
)

// Config says what the simulated cluster is like.
type Config struct {
	// Nodes is the fleet; see MixedFleet and NewNode. With none, every Nomad
	// job waits. The Server takes them over.
	Nodes []*api.Node

	// Run does what a task does once its artifacts are there, and returns its
	// exit code. ctx ends when the task is stopped; Run should then return
	// soon, as nothing kills it. nil: it ends at once with 0.
	Run func(ctx context.Context, t Task) (exitCode int)

	// Release is the release of Nomad that it reports; "": 2.0.5. Like Nomad, one before
	// 2.0.1 checks EnforceIndex before it commits a job, and not as it does.
	Release string

	// Registering is called with the ID of a job that has passed the checks of its
	// registration and is about to be committed. nil: nothing is called.
	Registering func(jobID string)

	// Start is called when a task's driver starts, after the artifacts are fetched: an
	// error fails the allocation, like an image that cannot be pulled. nil: none fails.
	Start func(ctx context.Context, t Task) error

	// Region is the name of its region; "": global. See Server.Join.
	Region string

	Namespaces []string         // beside "default"
	Client     *http.Client     // fetches artifacts; nil: one of its own, closed by Close
	Heartbeat  time.Duration    // of event streams; 0: 10 s
	Now        func() time.Time // nil: time.Now
}

// A Task is a task of an allocation that was placed.
type Task struct {
	AllocID   string
	JobID     string
	Name      string
	Node      *api.Node
	Env       map[string]string // NOMAD_… and the task's own, interpolated
	Artifacts map[string]string // what was fetched, by destination as the job has it
}

// A Fault is a way in which Nomad fails.
type Fault string

// The faults, as clients meet them.
const (
	Healthy  Fault = ""
	Refusing Fault = "refusing"  // the connection is cut without an answer; event streams end
	Silent   Fault = "silent"    // no answer as long as it lasts; event streams send not even heartbeats
	NoLeader Fault = "no leader" // 500, as from a server without a leader
	Busy     Fault = "busy"      // 429, as for more connections than Nomad's limit
)

// A Server is a simulated Nomad cluster and the http.Handler of its API. It is
// safe for concurrent use.
type Server struct {
	*cluster
	handler http.Handler
	stop    context.CancelFunc
	others  *federation
}

// A federation has the servers of several regions, by region. It is safe for concurrent use.
type federation struct {
	mu sync.Mutex
	of map[string]*Server
}

// The handlers of the API: of one job, and of all else in the cluster.
type (
	jobAPI     struct{ *cluster }
	clusterAPI struct{ *cluster }
)

// A cluster is the state of the simulated Nomad, and what happens in it.
type cluster struct {
	cfg  Config
	once bool            // EnforceIndex is checked as a job is committed, too
	ctx  context.Context // of everything that runs; ends with Server.Close
	wg   sync.WaitGroup  // allocations at work

	mu       sync.Mutex
	closed   bool
	fault    Fault
	latency  time.Duration
	index    uint64
	changed  chan struct{} // closed and replaced when index grows or the fault changes
	restarts int           // of the servers
	jobs     map[key]*job
	evals    map[string]*api.Evaluation // replaced when they change
	evalsOf  map[key][]string           // by job, oldest first; outlives it
	allocs   map[string]*alloc
	nodes    []*node
	ofNodes  uint64 // index of the last change of the table of nodes
	pools    map[string]bool
	keys     []signingKey
	waiting  map[string]*queue // jobs that wait for a node, by what they ask for
	paused   bool              // nothing is evaluated
	pending  []pending         // evaluations that wait for that to end
	events   []event
}

type key struct{ namespace, id string }

// New returns a running Server, which Close ends. It panics when Config.Release
// is not a version.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 10*time.Second)
	if cfg.Client == nil {
		cfg.Client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: time.Minute}
	}
	if cfg.Run == nil {
		cfg.Run = func(context.Context, Task) int { return 0 }
	}
	cfg.Release = cmp.Or(cfg.Release, release)
	cfg.Region = cmp.Or(cfg.Region, api.GlobalRegion)
	s := &Server{cluster: &cluster{
		cfg: cfg, once: !version.Must(version.NewVersion(cfg.Release)).LessThan(version.Must(version.NewVersion(onceSince))), changed: make(chan struct{}),
		jobs: map[key]*job{}, evals: map[string]*api.Evaluation{}, evalsOf: map[key][]string{}, allocs: map[string]*alloc{},
		pools: map[string]bool{"all": true, "default": true}, waiting: map[string]*queue{},
	}}
	s.keys = []signingKey{newSigningKey()}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, n := range cfg.Nodes {
		s.addNode(n)
	}
	s.handler, s.others = s.routes(), &federation{of: map[string]*Server{cfg.Region: s}}
	return s
}

// Close ends every allocation, stream and blocking query, and waits for the
// allocations. Requests are still answered afterwards, but nothing is placed.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	s.cfg.Client.CloseIdleConnections()
}

// SetFault makes every later request fail in this way, or with Healthy succeed, each after
// latency. Allocations continue, and so do event streams unless the fault says otherwise;
// these catch up later.
func (s *Server) SetFault(f Fault, latency time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.latency = f, latency
	s.wake()
}

// Restart restarts Nomad's servers: event streams and blocking queries end, and earlier
// events are gone. Everything else continues, including indices.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = nil
	s.index += 10 // a new leader has entries of its own in the log
	s.restarts++
	s.wake()
}

// wake wakes those who wait for a change. s.mu is held.
func (s *cluster) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// ServeHTTP answers a request to the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	for s.fault == Silent && r.Context().Err() == nil && s.ctx.Err() == nil {
		changed := s.changed
		s.mu.Unlock()
		s.await(r, changed, nil)
		s.mu.Lock()
	}
	fault, latency := s.fault, s.latency
	s.mu.Unlock()
	if latency > 0 {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
	}
	_, remote := w.(forwarded)
	asked := r.URL.Query().Get("region")
	switch elsewhere := asked != "" && asked != s.cfg.Region && !local(r); {
	case fault == Refusing:
		panic(http.ErrAbortHandler)
	case fault == Busy && !remote:
		refuse(w, http.StatusTooManyRequests, "Your IP is issuing too many concurrent connections, please rate limit your calls\n")
		return
	case elsewhere:
		s.forward(w, r, asked)
		return
	case fault == NoLeader && remote:
		refuse(w, http.StatusInternalServerError, "rpc error: No cluster leader")
		return
	case fault == NoLeader:
		refuse(w, http.StatusInternalServerError, "No cluster leader")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.handler.ServeHTTP(w, r)
}

// refuse answers with an error in Nomad's form.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// A statusError is an error in Nomad's words, with its status.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

func notFound(text string) error { return &statusError{http.StatusNotFound, text} }

func failure(format string, args ...any) error {
	return &statusError{http.StatusInternalServerError, fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return &statusError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// An answerFunc returns what becomes the JSON body of an answer, and may add to its
// headers. Errors are answered as plain text, with 500 unless they are statusErrors, as
// Nomad does. mu is held, and the request's body is in memory.
type answerFunc func(h http.Header, r *http.Request) (any, error)

func (s *Server) routes() http.Handler {
	m := mux.NewRouter().UseEncodedPath()
	handle := func(path, methods string, f answerFunc) {
		m.Handle("/v1"+path, s.answer(f)).Methods(strings.Fields(methods)...)
	}
	jobs, all := jobAPI{s.cluster}, clusterAPI{s.cluster}
	handle("/jobs", "GET", jobs.listJobs)
	handle("/jobs", "PUT POST", jobs.register)
	handle("/jobs/parse", "PUT POST", func(http.Header, *http.Request) (any, error) {
		return nil, badRequest("Failed to parse job: this is a simulated Nomad, which reads no HCL: give it the job as JSON")
	})
	handle("/validate/job", "PUT POST", jobs.validateJob)
	handle("/job/{id}", "GET", jobs.getJob)
	handle("/job/{id}", "PUT POST", jobs.register)
	handle("/job/{id}", "DELETE", jobs.deregister)
	handle("/job/{id}/dispatch", "PUT POST", jobs.dispatch)
	handle("/job/{id}/plan", "PUT POST", jobs.plan)
	handle("/job/{id}/allocations", "GET", jobs.jobAllocations)
	handle("/job/{id}/evaluations", "GET", jobs.jobEvaluations)
	handle("/job/{id}/summary", "GET", jobs.jobSummary)
	handle("/allocations", "GET", all.listAllocations)
	handle("/allocation/{id}", "GET", all.getAllocation)
	handle("/allocation/{id}/stop", "PUT POST", all.stopAllocation)
	handle("/evaluation/{id}", "GET", all.getEvaluation)
	handle("/nodes", "GET", all.listNodes)
	handle("/node/pools", "GET", all.listPools)
	handle("/node/pools", "PUT POST", all.putPool)
	handle("/node/pool/{id}", "GET", all.getPool)
	handle("/node/{id}", "GET", all.getNode)
	handle("/namespaces", "GET", all.listNamespaces)
	handle("/namespace/{id}", "GET", all.getNamespace)
	handle("/operator/scheduler/configuration", "GET", all.getScheduler)
	handle("/operator/scheduler/configuration", "PUT POST", all.setScheduler)
	handle("/operator/keyring/rotate", "PUT POST", all.rotateKeys)
	m.Handle("/.well-known/jwks.json", s.answer(all.listKeys)).Methods(http.MethodGet)
	handle("/regions", "GET", func(http.Header, *http.Request) (any, error) { return s.reached(), nil })
	handle("/status/leader", "GET", func(http.Header, *http.Request) (any, error) { return "127.0.0.1:4647", nil })
	handle("/agent/self", "GET", func(http.Header, *http.Request) (any, error) {
		return map[string]any{
			"config": map[string]any{"Region": s.cfg.Region, "Datacenter": "dc1", "Version": map[string]any{"Version": s.cfg.Release}},
			"member": map[string]any{"Name": "nomadsim." + s.cfg.Region}, "stats": map[string]any{},
		}, nil
	})
	handle("/agent/members", "GET", func(http.Header, *http.Request) (any, error) {
		return &api.ServerMembers{ServerName: "nomadsim", ServerRegion: s.cfg.Region, ServerDC: "dc1", Members: s.members()}, nil
	})
	handle("/agent/health", "GET", func(http.Header, *http.Request) (any, error) {
		ok := map[string]any{"ok": true, "message": "ok"}
		return map[string]any{"client": ok, "server": ok}, nil
	})
	m.HandleFunc("/v1/event/stream", all.stream).Methods(http.MethodGet)
	m.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusMethodNotAllowed, "Invalid method")
	})
	m.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusNotFound, "") })
	return m
}

// zippers are used again: a new one takes 800 KB.
var zippers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func (s *Server) answer(f answerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, index, err := s.ask(f, w.Header(), r)
		var body []byte
		if err == nil {
			body, err = json.Marshal(v)
		}
		if err != nil {
			status := http.StatusInternalServerError
			if coded, ok := errors.AsType[*statusError](err); ok {
				status = coded.status
			}
			refuse(w, status, err.Error())
			return
		}
		if w.Header().Get("X-Nomad-Index") == "" {
			w.Header().Set("X-Nomad-Index", strconv.FormatUint(index, 10))
		}
		w.Header().Set("X-Nomad-KnownLeader", "true")
		w.Header().Set("X-Nomad-LastContact", "0")
		w.Header().Set("Content-Type", "application/json")
		var to io.Writer = w
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") { // as Nomad does for all answers (2.0.5, tried 2026-11-29)
			w.Header().Set("Content-Encoding", "gzip")
			z := zippers.Get().(*gzip.Writer)
			z.Reset(w)
			defer func() { z.Close(); zippers.Put(z) }()
			to = z
		}
		_, _ = to.Write(body) // a client that went away needs no answer
	})
}

// ask calls f, and returns the index of the state that it left.
func (s *cluster) ask(f answerFunc, h http.Header, r *http.Request) (v any, index uint64, err error) {
	if err := s.block(r); err != nil {
		return nil, 0, err
	}
	body, err := io.ReadAll(r.Body) // not under the lock
	if err != nil {
		return nil, 0, badRequest("%v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err = f(h, r)
	return v, s.index, err
}

// block holds a blocking query until something has changed since its index.
func (s *cluster) block(r *http.Request) error {
	q := r.URL.Query()
	if r.Method != http.MethodGet || q.Get("index") == "" {
		return nil
	}
	since, err := strconv.ParseUint(q.Get("index"), 10, 64)
	if err != nil {
		return badRequest("Invalid index")
	}
	wait := maxWait
	if w := q.Get("wait"); w != "" {
		if wait, err = time.ParseDuration(w); err != nil || wait < 0 {
			return badRequest("Invalid wait time")
		}
	}
	timer := time.NewTimer(min(wait, 2*maxWait))
	defer timer.Stop()
	s.mu.Lock()
	restarts := s.restarts
	s.mu.Unlock()
	for {
		s.mu.Lock()
		index, changed, restarted := s.index, s.changed, s.restarts != restarts
		s.mu.Unlock()
		if index > since || restarted {
			return nil
		}
		if timeout, ok := s.await(r, changed, timer.C); timeout || !ok {
			return nil
		}
	}
}

// await waits for a change or a timer; ok is false when the request or the cluster ended.
func (s *cluster) await(r *http.Request, changed <-chan struct{}, timer <-chan time.Time) (timeout, ok bool) {
	select {
	case <-changed:
		return false, true
	case <-timer:
		return true, true
	case <-r.Context().Done():
	case <-s.ctx.Done():
	}
	return false, false
}

// pathID returns the ID in the request's path.
func pathID(r *http.Request) string {
	id := mux.Vars(r)["id"]
	if raw, err := url.PathUnescape(id); err == nil {
		return raw
	}
	return id
}

// listed reports whether a request for a list asks for what has this ID in a namespace;
// "" is for what has no namespace.
func listed(r *http.Request, ns, id string) bool {
	asked := namespaceOf(r)
	return (ns == "" || asked == "*" || asked == ns) && strings.HasPrefix(id, r.URL.Query().Get("prefix"))
}

func namespaceOf(r *http.Request) string { return cmp.Or(r.URL.Query().Get("namespace"), namespace) }

// decode reads a JSON body.
func decode(r *http.Request, into any) error {
	switch err := json.NewDecoder(r.Body).Decode(into); err {
	case nil:
		return nil
	case io.EOF:
		return badRequest("Request body is empty")
	default:
		return badRequest("%v", err)
	}
}

// checkID refuses what is not an ID of an evaluation, an allocation or a node.
func checkID(id, lookup string) error {
	if len(id) != 36 {
		return failure("%s lookup failed: index error: UUID must be 36 characters", lookup)
	}
	return nil
}

// page sorts a list by its tokens, drops what the query's filter does not pass, cuts the
// list at its next_token and per_page, and sets the token of the next page.
func page[T any](r *http.Request, h http.Header, list []T, token func(T) string) ([]T, error) {
	q := r.URL.Query()
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(token(a), token(b)) })
	list, err := filter(q.Get("filter"), list)
	if err != nil {
		return nil, err
	}
	if from := q.Get("next_token"); from != "" {
		list = slices.DeleteFunc(list, func(v T) bool { return token(v) < from })
	}
	if q.Get("per_page") == "" {
		return list, nil
	}
	n, err := strconv.Atoi(q.Get("per_page"))
	if err != nil {
		return nil, badRequest("Expect a number for `per_page` query string parameter")
	}
	if n > 0 && n < len(list) {
		h.Set("X-Nomad-NextToken", token(list[n]))
		list = list[:n]
	}
	return list, nil
}

// filter returns what an expression passes. Nomad evaluates it on the whole job, not on
// what a listing shows.
func filter[T any](expression string, list []T) ([]T, error) {
	if expression == "" {
		return list, nil
	}
	e, err := bexpr.CreateEvaluator(expression)
	if err != nil {
		return nil, badRequest("failed to create result paginator: failed to read filter expression: %v", err)
	}
	passed := []T{} // Nomad answers no null
	for _, v := range list {
		var seen any = v
		if j, ok := seen.(*job); ok {
			seen = j.Job
		}
		pass, err := e.Evaluate(seen)
		if err != nil {
			return nil, badRequest("failed to read result page: %v", err)
		}
		if pass {
			passed = append(passed, v)
		}
	}
	return passed, nil
}

func (s clusterAPI) listNamespaces(http.Header, *http.Request) (any, error) {
	var list []*api.Namespace
	for _, name := range append([]string{namespace}, s.cfg.Namespaces...) {
		list = append(list, &api.Namespace{Name: name})
	}
	return list, nil
}

func (s clusterAPI) getNamespace(_ http.Header, r *http.Request) (any, error) {
	if name := pathID(r); s.hasNamespace(name) {
		return &api.Namespace{Name: name}, nil
	}
	return nil, notFound("Namespace not found")
}

func (s *cluster) hasNamespace(name string) bool {
	return name == namespace || slices.Contains(s.cfg.Namespaces, name)
}
