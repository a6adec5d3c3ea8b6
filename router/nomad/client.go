// Package nomad owns the calls to Nomad about runners: it parses jobspecs, lays
// placements over them, registers each runner once, follows what becomes of it, and
// classifies Nomad's errors by what to do about them. Package capacity answers for the
// nodes; cmd/switchyard gives both to the rooms, as router.Nomad.
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

// maxConns bounds the connections to Nomad, which refuses more than 100 from one
// address (429), other clients on this host included. Calls beyond it wait.
const maxConns = 64

// Config says what a Client needs.
type Config struct {
	Jobspecs *jobspecs.Set // required
	Logger   *slog.Logger  // nil: slog.Default

	// API says where Nomad is. nil: api.DefaultConfig, which reads NOMAD_ADDR
	// (http, https or unix), NOMAD_TOKEN, NOMAD_NAMESPACE, NOMAD_REGION and the
	// TLS variables. Its HttpClient is not used.
	API *api.Config

	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a net.Dialer's

	// Called, if not nil, is called for each request: with what it asks for, as one of
	// a few phrases; the status of the answer, 0 if Nomad was not reached, router.TimedOut
	// if it did not answer in time, and router.Unreadable if it cannot be read; and the time
	// to its headers. What is asked of another region than the client's own is named with
	// that: "list jobs of region tokyo".
	Called func(call string, status int, took time.Duration)

	// Calling, if not nil, is called when a request is sent, other than for the stream of
	// events; ended is called when its headers came, or it failed.
	Calling func(call string) (ended func())
}

// A Client implements router.Nomad, except Unplaced, which package capacity adds. It is
// safe for concurrent use.
type Client struct {
	jobspecs atomic.Pointer[jobspecs.Set]
	*shared
}

// shared has what Clients with different jobspecs have in common.
type shared struct {
	api       *api.Client
	log       *slog.Logger
	plain     api.Config    // without an HTTP client
	namespace string        // of jobs that name none
	home      home          // the client's own region
	silence   time.Duration // until a stream counts as dead
	opening   time.Duration // until it counts as refused
	hold      keyed         // one parse per jobspec, one dispatch per runner at a time
	release   atomic.Pointer[released]

	mu      sync.Mutex
	parsed  map[string][]byte // HCL as parsed by Nomad: JSON by jobspec hash
	regions map[string]string // that a jobspec names, by its hash
}

// New checks the configuration and returns a Client. It makes no request.
func New(c Config) (*Client, error) {
	if c.Jobspecs == nil {
		return nil, errors.New("nomad: Jobspecs is required")
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
	plain := config
	plain.HttpClient = nil
	config.HttpClient = &http.Client{Transport: transport}
	if err := api.ConfigureTLS(config.HttpClient, config.TLSConfig); err != nil {
		return nil, fmt.Errorf("TLS to Nomad: %w; are NOMAD_CACERT, NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY right?", err)
	}
	config.HttpClient.Transport = observed{transport, config.Region, c.Called, c.Calling}
	client, err := api.NewClient(&config)
	if err != nil {
		return nil, fmt.Errorf("make a Nomad client: %w", err)
	}
	made := &Client{shared: &shared{
		api: client, plain: plain, log: cmp.Or(c.Logger, slog.Default()), namespace: cmp.Or(config.Namespace, api.DefaultNamespace), home: home{name: config.Region},
		silence: silence, opening: opening, parsed: map[string][]byte{}, regions: map[string]string{},
	}}
	made.Use(c.Jobspecs)
	return made, nil
}

// API returns the client for Nomad's HTTP API, for calls that are not about runners.
func (c *Client) API() *api.Client { return c.api }

// Namespace returns the namespace of jobs that name none.
func (c *Client) Namespace() string { return c.namespace }

// Use makes the Client use other jobspecs from now on. A Start in progress may still
// use the old ones.
func (c *Client) Use(specs *jobspecs.Set) { c.jobspecs.Store(specs) }

// A Scope is where a call goes. Nomad lets a query's namespace and region win
// over the job's own, so every call names them; without a region it is the client's.
type Scope router.NomadAt

// Read returns the options of a query.
func (s Scope) Read(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{Namespace: s.Namespace, Region: s.Region}).WithContext(ctx)
}

// Write returns the options of a request that changes something.
func (s Scope) Write(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{Namespace: s.Namespace, Region: s.Region}).WithContext(ctx)
}

// ScopeOf returns where a rendered job goes.
func ScopeOf(j *api.Job) Scope {
	s := Scope{Namespace: *j.Namespace}
	if j.Region != nil {
		s.Region = *j.Region
	}
	return s
}

// Start implements router.Nomad.
//
// A jobspec's job is registered on condition that Nomad has none with its ID, which a
// stopped or dead job keeps until Nomad's garbage collection. Since 2.0.1 Nomad checks that
// as it commits: one of several Starts creates the job, and the others find it. Earlier
// releases may accept several that overlap, as versions of one job of which the last is in
// force (see README.md). There, Start reads the job back and returns the token that Nomad
// has by then; Existed is false for the one Start whose version was the first. As a later
// version may still follow, the caller must accept each token that it sent for the runner,
// and let one of them be used, once. A repeated Start should send the same token, which
// replaces nothing.
//
// A dispatch has an idempotency token instead. The Starts of one runner in a Client run one
// after another; those of several processes agree on the first child and stop the others.
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
		return router.NomadAt(c.parentAt(ctx, p)), nil
	}
	var job struct{ Namespace, Region *string } // of the whole jobspec, only that
	if _, err := c.decode(ctx, p, &job); err != nil {
		return router.NomadAt{}, err
	}
	return router.NomadAt{Namespace: *c.namespaceOf(p, job.Namespace), Region: c.regionOf(ctx, p, job.Region)}, nil
}

func (c *Client) register(ctx context.Context, r router.StartRequest, job *api.Job) (router.Started, error) {
	at := ScopeOf(job)
	resp, _, err := c.api.Jobs().RegisterOpts(job, &api.RegisterOptions{EnforceIndex: true}, at.Write(ctx))
	register := Call{What: "register job " + *job.ID, At: at, Capability: "submit-job"}
	if err == nil && resp.EvalID == "" && resp.JobModifyIndex == 0 {
		return router.Started{}, &router.FixError{Fix: "check that NOMAD_ADDR is the address of a Nomad agent", Err: fmt.Errorf("%s: the answer is not Nomad's", register)}
	}
	if err == nil {
		started := router.Started{NomadJob: *job.ID, At: router.NomadAt(at), ClaimToken: r.ClaimToken, Warnings: Warnings(resp.Warnings)}
		if c.registersOnce(ctx) {
			return started, nil
		}
		return c.readBack(ctx, r, register, started, resp.JobModifyIndex)
	}
	classified := c.Classify(ctx, register, err)
	if !Unclear(err) || NoRegion(err) {
		return router.Started{}, classified
	}
	// Nomad answers 500 to "already exists", to a job that it refuses and to failures
	// of its own. Rather than matching its words, ask it.
	existing, _, readErr := c.api.Jobs().Info(*job.ID, at.Read(ctx))
	switch Status(readErr) {
	case http.StatusOK:
		token, err := tokenOf(existing, r, register)
		if err != nil {
			return router.Started{}, err
		}
		return router.Started{NomadJob: *job.ID, At: router.NomadAt(at), ClaimToken: token, Existed: true}, nil
	case http.StatusNotFound:
		if Status(err) == http.StatusBadRequest {
			return router.Started{}, register.refusal(words(err))
		}
		_, validateErr := c.validate(ctx, register, job)
		if refused(validateErr) {
			return router.Started{}, validateErr
		}
	case http.StatusForbidden:
		if !errors.As(classified, new(*router.FixError)) {
			classified = &router.FixError{Fix: needs("read-job", at) + ", to see what that means", Err: classified}
		}
	}
	return router.Started{}, classified
}

// readBack completes the answer to a registration with what Nomad has. Made is the
// index at which the registration was committed. A job that cannot be read is taken to
// be as it was registered.
func (c *Client) readBack(ctx context.Context, r router.StartRequest, register Call, started router.Started, made uint64) (router.Started, error) {
	job, _, err := c.api.Jobs().Info(started.NomadJob, register.At.Read(ctx))
	if err != nil || job.CreateIndex == nil || job.Version == nil {
		return started, nil
	}
	if started.ClaimToken, err = tokenOf(job, r, register); err != nil {
		return router.Started{}, err
	}
	if started.Existed = *job.CreateIndex != made; started.Existed || started.ClaimToken != r.ClaimToken {
		c.log.Info("nomad accepted several registrations of one job, as it can before 2.0.1; the last one is in force",
			"nomad_job", started.NomadJob, "versions", *job.Version+1, "first", !started.Existed)
	}
	return started, nil
}

// tokenOf returns the claim token of the job that Nomad has for a runner.
func tokenOf(job *api.Job, r router.StartRequest, register Call) (router.Secret, error) {
	token := job.Meta[MetaClaimToken]
	if token == "" || job.Meta[metaJobID] != strconv.FormatInt(router.GitHubID(r.Job.ID), 10) {
		return "", &router.FixError{
			Fix: "purge it, or give Switchyard a namespace of its own",
			Err: fmt.Errorf("%s: Nomad has a job with this ID that Switchyard did not make", register),
		}
	}
	return router.Secret(token), nil
}

// Ended implements router.Nomad. It needs read-job.
func (c *Client) Ended(ctx context.Context, r router.Runner) (bool, error) {
	if r.NomadJob == "" {
		return false, fmt.Errorf("runner %s is not registered", r.ID)
	}
	at := Scope(r.NomadAt)
	job, _, err := c.api.Jobs().Info(r.NomadJob, at.Read(ctx))
	switch {
	case Status(err) == http.StatusNotFound:
		return true, nil
	case err != nil:
		return false, c.Classify(ctx, ReadJob(r.NomadJob, at), err)
	}
	return job.Status != nil && *job.Status == "dead", nil
}

// validate asks Nomad whether a job is valid, for a call that depends on it.
func (c *Client) validate(ctx context.Context, of Call, job *api.Job) ([]string, error) {
	resp, _, err := c.api.Jobs().Validate(job, of.At.Write(ctx))
	if err != nil {
		return nil, c.Classify(ctx, Call{What: "validate job " + *job.ID, At: of.At, Capability: "read-job"}, err)
	}
	if resp.Error != "" {
		return nil, of.refusal(resp.Error)
	}
	return Warnings(resp.Warnings), nil
}

// Validate asks Nomad whether it accepts a jobspec, with nothing laid over it, and
// returns Nomad's warnings. Errors are classified as for Start; a verdict on the jobspec,
// unlike a failure to get one, is a JobspecError too.
func (c *Client) Validate(ctx context.Context, name string) ([]string, error) {
	job, err := c.Render(ctx, router.StartRequest{
		Runner:    router.Runner{ID: "gha-0-1", Name: "gha-0-1"},
		Placement: router.Placement{Jobspec: name},
	})
	if err != nil {
		return nil, err
	}
	return c.validate(ctx, Call{What: "validate jobspec " + name, At: ScopeOf(job), Capability: "read-job"}, job)
}

// ValidateWith is Validate for a jobspec of specs, which need not be in use.
func (c *Client) ValidateWith(ctx context.Context, specs *jobspecs.Set, name string) ([]string, error) {
	other := &Client{shared: c.shared}
	other.Use(specs)
	return other.Validate(ctx, name)
}
