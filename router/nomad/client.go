// Package nomad owns the calls to Nomad: it parses jobspecs, lays placements
// over them, registers each runner once, and sorts Nomad's errors by what to
// do about them.
package nomad

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
)

// maxConns bounds the connections to Nomad, which refuses more than 100 from
// one address (429) and has others to serve at the same address. Calls beyond it wait.
const maxConns = 64

// Config is what a Client is made of.
type Config struct {
	Jobspecs *jobspecs.Set // required
	Logger   *slog.Logger  // nil: slog.Default

	// API says where Nomad is. nil: api.DefaultConfig, which reads NOMAD_ADDR
	// (http, https or unix), NOMAD_TOKEN, NOMAD_NAMESPACE, NOMAD_REGION and the
	// TLS variables. Its HttpClient is not used.
	API *api.Config

	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a net.Dialer's

	// Called is told of each request: what it asks for, in one of few words, the
	// status of the answer, 0 if there was none and router.Unreadable if it makes no
	// sense, and how long its head took. nil: nobody.
	Called func(call string, status int, took time.Duration)
}

// A Client implements router.Nomad. It is safe for concurrent use.
type Client struct {
	jobspecs atomic.Pointer[jobspecs.Set]
	*shared
}

// shared is what Clients with different jobspecs have in common.
type shared struct {
	api       *api.Client
	log       *slog.Logger
	namespace string        // where jobs go that name none
	silence   time.Duration // until a stream counts as dead
	opening   time.Duration // until it counts as refused
	hold      keyed         // one parse per jobspec, one dispatch per runner at a time

	nodes   nodeBook
	release atomic.Pointer[released]

	mu     sync.Mutex
	parsed map[string][]byte // what Nomad made of HCL: JSON by jobspec hash
}

// New checks the configuration. It calls nobody.
func New(c Config) (*Client, error) {
	if c.Jobspecs == nil {
		return nil, errors.New("nomad: Jobspecs is required")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.API == nil {
		c.API = api.DefaultConfig()
	}
	config := *c.API // NewClient writes to it
	addr, err := url.Parse(config.Address)
	if err != nil || (addr.Scheme != "http" && addr.Scheme != "https" && addr.Scheme != "unix") {
		return nil, fmt.Errorf("address %q of Nomad: want http(s)://host:port or unix:///path; is NOMAD_ADDR right?", config.Address)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxConnsPerHost, transport.MaxIdleConnsPerHost = maxConns, maxConns
	transport.ForceAttemptHTTP2 = false // Nomad speaks HTTP/1
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if addr.Scheme == "unix" {
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", addr.Path)
		}
	}
	if c.Dial != nil {
		transport.Proxy, transport.DialContext = nil, c.Dial
	}
	config.HttpClient = &http.Client{Transport: transport}
	if err := api.ConfigureTLS(config.HttpClient, config.TLSConfig); err != nil {
		return nil, fmt.Errorf("TLS to Nomad: %w; are NOMAD_CACERT, NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY right?", err)
	}
	config.HttpClient.Transport = noting{transport, c.Called}
	client, err := api.NewClient(&config)
	if err != nil {
		return nil, fmt.Errorf("make a Nomad client: %w", err)
	}
	if config.Namespace == "" {
		config.Namespace = api.DefaultNamespace
	}
	made := &Client{shared: &shared{
		api: client, log: c.Logger, namespace: config.Namespace, silence: silence, opening: opening, parsed: map[string][]byte{},
	}}
	made.Use(c.Jobspecs)
	return made, nil
}

// Address is where Nomad's API is, and its console.
func (c *Client) Address() string { return c.api.Address() }

// Use has the Client take other jobspecs from now on. A Start in hand may still
// take the old ones.
func (c *Client) Use(specs *jobspecs.Set) { c.jobspecs.Store(specs) }

// WithJobspecs returns a Client with other jobspecs that shares everything
// else with this one: its connections, and what Nomad parsed already.
func (c *Client) WithJobspecs(specs *jobspecs.Set) *Client {
	other := &Client{shared: c.shared}
	other.Use(specs)
	return other
}

// A scope is where a call goes. Nomad lets a query's namespace and region win
// over the job's own, so every call names them; no region is the client's.
type scope router.NomadAt

func (s scope) read(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{Namespace: s.Namespace, Region: s.Region}).WithContext(ctx)
}

func (s scope) write(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{Namespace: s.Namespace, Region: s.Region}).WithContext(ctx)
}

// scopeOf is where a rendered job goes. "global" is what a jobspec without a
// region is given when Nomad fills in its defaults.
func scopeOf(j *api.Job) scope {
	s := scope{Namespace: *j.Namespace}
	if j.Region != nil && *j.Region != api.GlobalRegion {
		s.Region = *j.Region
	}
	return s
}

// Start implements router.Nomad.
//
// A jobspec's job is registered on condition that Nomad has none with its ID. A
// stopped or dead one counts, until Nomad's garbage collection. From 2.0.1 on Nomad
// checks that as it commits: however many Starts race or are repeated, one makes the
// job, and the others find it as that one made it.
//
// Before 2.0.1 Nomad looks first and commits later, so that Starts that overlap may
// all be taken: there is one Nomad job still, but each makes a version of it, the last
// one is in force, and it replaces an allocation of an earlier version unless all that
// makes one is the same, meta and so the token included. Start reads the job back
// there, and returns the token that Nomad has by then; Existed is false for the one
// Start whose version was the first. A later version may come all the same, from a
// registration that is still on its way. So whoever calls Start must go on taking each
// token that it sent for the runner, and let one of them be used, once: then it has one
// runner whose token it holds, whatever Nomad does. A repeat should send the same
// token, which replaces nothing.
//
// A dispatch has no such condition, but an idempotency token. Starts of one runner are
// made one after another within a Client. Those of several processes that overlap agree
// on the child that was made first, and stop the others.
func (c *Client) Start(ctx context.Context, r router.StartRequest) (router.Started, error) {
	if r.Placement.Dispatch != "" {
		return c.dispatch(ctx, r)
	}
	job, err := c.Render(ctx, r)
	if err != nil {
		return router.Started{}, err
	}
	return c.register(ctx, r, job)
}

// Home implements router.Nomad.
func (c *Client) Home(ctx context.Context, p router.Placement) (router.NomadAt, error) {
	if p.Dispatch != "" {
		return router.NomadAt{Namespace: cmp.Or(p.Namespace, c.namespace)}, nil
	}
	job, err := c.Render(ctx, router.StartRequest{Placement: p})
	if err != nil {
		return router.NomadAt{}, err
	}
	return router.NomadAt(scopeOf(job)), nil
}

func (c *Client) register(ctx context.Context, r router.StartRequest, job *api.Job) (router.Started, error) {
	at := scopeOf(job)
	resp, _, err := c.api.Jobs().RegisterOpts(job, &api.RegisterOptions{EnforceIndex: true}, at.write(ctx))
	register := call{what: "register job " + *job.ID, at: at, capability: "submit-job"}
	if err == nil && resp.EvalID == "" && resp.JobModifyIndex == 0 {
		return router.Started{}, &router.FixError{Fix: "check that NOMAD_ADDR is the address of a Nomad agent", Err: fmt.Errorf("%s: the answer is not Nomad's", register)}
	}
	if err == nil {
		started := router.Started{NomadJob: *job.ID, At: router.NomadAt(at), ClaimToken: r.ClaimToken, Warnings: warnings(resp.Warnings)}
		if c.registersOnce(ctx) {
			return started, nil
		}
		return c.readBack(ctx, r, register, started, resp.JobModifyIndex)
	}
	sorted := register.sorted(err)
	if !unclear(err) {
		return router.Started{}, sorted
	}
	// Nomad answers 500 alike to "already exists", to a job it refuses and to
	// trouble of its own. Rather than match its words, ask it.
	existing, _, readErr := c.api.Jobs().Info(*job.ID, at.read(ctx))
	switch status(readErr) {
	case http.StatusOK:
		token, err := tokenOf(existing, r, register)
		if err != nil {
			return router.Started{}, err
		}
		return router.Started{NomadJob: *job.ID, At: router.NomadAt(at), ClaimToken: token, Existed: true}, nil
	case http.StatusNotFound:
		if status(err) == http.StatusBadRequest {
			return router.Started{}, register.refusal(words(err))
		}
		_, validateErr := c.validate(ctx, register, job)
		if refused(validateErr) {
			return router.Started{}, validateErr
		}
	case http.StatusForbidden:
		if fix := new(router.FixError); !errors.As(sorted, &fix) {
			sorted = &router.FixError{Fix: needs("read-job", at) + ", to see what that means", Err: sorted}
		}
	}
	return router.Started{}, sorted
}

// readBack completes what a registration was answered with by what Nomad has. Made is
// the index at which the registration was committed. A job that cannot be read is taken
// to be as it was registered.
func (c *Client) readBack(ctx context.Context, r router.StartRequest, register call, started router.Started, made uint64) (router.Started, error) {
	job, _, err := c.api.Jobs().Info(started.NomadJob, register.at.read(ctx))
	if err != nil || job.CreateIndex == nil || job.Version == nil {
		return started, nil
	}
	if started.ClaimToken, err = tokenOf(job, r, register); err != nil {
		return router.Started{}, err
	}
	if started.Existed = *job.CreateIndex != made; started.Existed || started.ClaimToken != r.ClaimToken {
		c.log.Info("nomad took several registrations of a job at once, as it may before 2.0.1; the last one is in force",
			"nomad_job", started.NomadJob, "versions", *job.Version+1, "first", !started.Existed)
	}
	return started, nil
}

// tokenOf is the claim token of the job that Nomad has for a runner.
func tokenOf(job *api.Job, r router.StartRequest, register call) (router.Secret, error) {
	token := job.Meta[metaClaimToken]
	if token == "" || job.Meta[metaJobID] != strconv.FormatInt(router.GitHubID(r.Job.ID), 10) {
		return "", &router.FixError{
			Fix: "purge it, or give Switchyard a namespace of its own",
			Err: fmt.Errorf("%s: Nomad has a job of this ID that Switchyard did not make", register),
		}
	}
	return router.Secret(token), nil
}

// Ended implements router.Nomad. It needs read-job.
func (c *Client) Ended(ctx context.Context, r router.Runner) (bool, error) {
	if r.NomadJob == "" {
		return false, fmt.Errorf("runner %s is not registered", r.ID)
	}
	at := scope(r.NomadAt)
	job, _, err := c.api.Jobs().Info(r.NomadJob, at.read(ctx))
	switch {
	case status(err) == http.StatusNotFound:
		return true, nil
	case err != nil:
		return false, readJob(r.NomadJob, at).sorted(err)
	}
	return job.Status != nil && *job.Status == "dead", nil
}

// validate asks Nomad what it thinks of a job, for a call that depends on it.
func (c *Client) validate(ctx context.Context, of call, job *api.Job) ([]string, error) {
	resp, _, err := c.api.Jobs().Validate(job, of.at.write(ctx))
	if err != nil {
		return nil, call{what: "validate job " + *job.ID, at: of.at, capability: "read-job"}.sorted(err)
	}
	if resp.Error != "" {
		return nil, of.refusal(resp.Error)
	}
	return warnings(resp.Warnings), nil
}

// ValidateWith is Validate for a jobspec of specs.
func (c *Client) ValidateWith(ctx context.Context, specs *jobspecs.Set, name string) ([]string, error) {
	return c.WithJobspecs(specs).Validate(ctx, name)
}

// Validate asks Nomad whether it takes a jobspec, with nothing laid over it,
// and returns Nomad's warnings. Errors are sorted as Start's; one that is a
// verdict on the jobspec, not trouble on the way to one, is a JobspecError too.
func (c *Client) Validate(ctx context.Context, name string) ([]string, error) {
	job, err := c.Render(ctx, router.StartRequest{
		Runner:    router.Runner{ID: "gha-0-1", Name: "gha-0-1"},
		Placement: router.Placement{Jobspec: name},
	})
	if err != nil {
		return nil, err
	}
	return c.validate(ctx, call{what: "validate jobspec " + name, at: scopeOf(job), capability: "read-job"}, job)
}
