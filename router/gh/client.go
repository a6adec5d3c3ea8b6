// Package gh owns Switchyard's calls to GitHub's REST API. It keeps to GitHub's limits
// and classifies GitHub's answers by what to do about them; see router.GitHub. The rooms
// call it.
package gh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v60/github"
	"golang.org/x/sync/semaphore"

	"switchyard/router"
)

const (
	defaultTimeout = 10 * time.Second
	workFolder     = "_work"  // GitHub's own default, relative to the runner's directory
	maxAnswer      = 1 << 20  // bytes of one answer's body; a configuration has about 5 kB
	maxConfig      = 64 << 10 // bytes of one configuration
	maxTokenFile   = 4 << 10  // bytes
	maxRedirects   = 3
)

// Config says how GitHub is reached.
type Config struct {
	// Token returns the token for the next request. It is called for each one,
	// from several goroutines, so that a rotated token takes effect.
	Token func() (router.Secret, error)

	// App logs in as a GitHub App. Either it or Token is required.
	App *App

	// BaseURL is the root of the REST API: https://HOST/api/v3/ for GitHub
	// Enterprise Server, https://api.TENANT.ghe.com/ with data residency. Plain
	// http is accepted for loopback addresses only. "": https://api.github.com/.
	BaseURL string

	// Called, if not nil, is called for each request: with its method and path, without
	// names and IDs; the status of the answer, 0 if GitHub was not reached, and
	// router.TimedOut if it did not answer in time; and the time to its headers.
	Called func(call string, status int, took time.Duration)

	// Calling, if it and Called are not nil, is called when a request is sent; ended is called
	// when its headers came, or it failed.
	Calling func(call string) (ended func())

	HTTPClient *http.Client     // nil: one with http.DefaultTransport
	Timeout    time.Duration    // of one request; 0: 10 s
	Limits     Limits           // the zero value: GitHub's own
	Now        func() time.Time // nil: time.Now
}

// A Client implements router.GitHub for one GitHub. Its methods are safe for concurrent
// use.
type Client struct{ *registrar }

var _ router.GitHub = (*Client)(nil)

// A registrar registers runners, and keeps back those that GitHub would refuse.
type registrar struct {
	*caller
	registrations registrations
	groups        groupLists
	places        places
}

// A caller makes requests to one GitHub, within its limits and for as long as GitHub
// answers.
type caller struct {
	token   func() (router.Secret, error) // nil with app
	app     *app                          // nil with token
	base    *url.URL
	http    http.Client
	timeout time.Duration
	now     func() time.Time

	limits     sharedLimits
	registered registered
	blocks     blocks

	mu  sync.Mutex
	cur *session // for the last of token's tokens; nil at first
}

// A session belongs to one token, to an App, or to one of its installations: GitHub
// counts limits by these.
type session struct {
	login  string // its name, for people
	api    *github.Client
	budget *budget
	app    *app   // the session is of one of its installations; nil: of a token, or the App itself
	forget func() // makes the next caller look up the installation again; nil without app

	calls, registers breaker                     // of all its requests, and of registrations of runners
	probing          *semaphore.Weighted         // to find out whether GitHub answers
	probe            string                      // the path of the smallest request that it may make
	refresh          func(context.Context) error // gets a token if it has no good one; nil without app

	mu      sync.Mutex
	token   router.Secret
	expires time.Time         // with app
	granted map[string]string // what the installation may do; nil: not known
}

// fresh reports whether an installation's token is still good for a request.
func (s *session) fresh(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.expires.Add(-tokenMargin))
}

// New returns a client. It makes no request; it fails when cfg is wrong.
func New(cfg Config) (*Client, error) {
	if (cfg.Token == nil) == (cfg.App == nil) {
		return nil, errors.New("either a GitHub token or a GitHub App is required")
	}
	if cfg.App != nil && (cfg.App.ID <= 0 || cfg.App.Key == nil) {
		return nil, errors.New("a GitHub App needs its ID, over 0, and its private key")
	}
	cfg.BaseURL = cmp.Or(cfg.BaseURL, "https://api.github.com/")
	base, err := baseURL(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	c := &caller{
		token: cfg.Token, base: base, timeout: cmp.Or(cfg.Timeout, defaultTimeout), now: cfg.Now,
		limits: sharedLimits{Limits: cfg.Limits.withDefaults(base.Host)}, blocks: blocks{by: map[string]time.Time{}},
	}
	c.registered = registered{limits: &c.limits, by: map[target]*window{}}
	if cfg.HTTPClient != nil {
		c.http = *cfg.HTTPClient
	}
	if c.http.Transport == nil {
		c.http.Transport = http.DefaultTransport
	}
	if cfg.Called != nil {
		c.http.Transport = c.telling(c.http.Transport, cfg.Called, cfg.Calling)
	}
	c.http.CheckRedirect = c.redirect
	if c.now == nil {
		c.now = time.Now
	}
	if cfg.App != nil {
		c.app = newApp(*cfg.App, c)
	}
	return &Client{&registrar{caller: c}}, nil
}

// baseURL checks the root of the REST API and gives it the final slash that go-github needs.
func baseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("GitHub's base URL: %w", err)
	}
	switch {
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("GitHub's base URL %q must be https://HOST/…", u.Redacted())
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("GitHub's base URL %q must be scheme, host and path alone", u.Redacted())
	case strings.HasSuffix(u.Host, ".ghe.com") && !strings.HasPrefix(u.Host, "api."):
		return nil, fmt.Errorf("GitHub's base URL %q must be https://api.%s/", s, u.Host)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("GitHub's base URL %q would send the token in clear: use https", s)
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// redirect follows GitHub to the new place of a renamed repository. It neither sends
// the token elsewhere nor turns a POST into a GET.
func (c *caller) redirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects || req.Method != via[0].Method || req.URL.Scheme != c.base.Scheme || req.URL.Host != c.base.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// login returns the session for requests about t; a *router.RetryAtError while GitHub
// asked for no requests with it.
func (c *caller) login(ctx context.Context, t target) (*session, error) {
	if c.app != nil {
		if t.enterprise != "" {
			return nil, &router.FixError{
				Fix: "log in with a GitHub token that has the " + t.call().permission,
				Err: fmt.Errorf("%s cannot be asked about the runners of %s, as Apps are not installed for those", c.app, t),
			}
		}
		return c.app.login(ctx, t)
	}
	s, err := c.tokenSession()
	if err != nil {
		return nil, err
	}
	return s, c.ready(ctx, s)
}

// tokenSession returns the session of the current token.
func (c *caller) tokenSession() (*session, error) {
	token, err := c.token()
	if err == nil && token == "" {
		err = errors.New("the token is empty")
	}
	if err != nil {
		return nil, &router.FixError{Fix: "give Switchyard a GitHub token that it can read", Err: &loginError{fmt.Errorf("read the GitHub token: %w", err)}}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur == nil || c.cur.token != token {
		c.cur = c.newSession("the GitHub token", tokenLogin(token), nil)
		c.cur.token = token
	}
	return c.cur, nil
}

// newSession returns a session whose requests go through next, which adds the
// credentials; nil: they get the session's token. To people the login is name, and to
// other replicas id.
func (c *caller) newSession(name, id string, next http.RoundTripper) *session {
	s := &session{login: name, budget: newBudget(&c.limits, &c.blocks, c.Host()+"/"+id), probing: semaphore.NewWeighted(1), probe: "rate_limit"}
	if next == nil {
		next = roundTrip(func(req *http.Request) (*http.Response, error) {
			s.mu.Lock()
			token := s.token
			s.mu.Unlock()
			req = req.Clone(req.Context())
			req.Header.Set("Authorization", "Bearer "+string(token))
			return c.http.Transport.RoundTrip(req)
		})
	}
	client := c.http
	next = c.budgeted(s.budget, next)
	client.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err == nil {
			resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxAnswer}
		}
		return resp, err
	})
	s.api = github.NewClient(&client)
	s.api.BaseURL, s.api.UserAgent = c.base, "switchyard"
	return s
}

// roundTrip is an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// telling reports each request that goes through next, unless the caller went away.
func (c *caller) telling(next http.RoundTripper, called func(call string, status int, took time.Duration), calling func(call string) func()) http.RoundTripper {
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		call, began := c.endpoint(req.Method, req.URL.Path), time.Now()
		if calling != nil {
			defer calling(call)()
		}
		resp, err := next.RoundTrip(req)
		code := router.StatusOf(err)
		if err == nil {
			code = resp.StatusCode
		} else if errors.Is(req.Context().Err(), context.Canceled) {
			return nil, err
		}
		called(call, code, time.Since(began))
		return resp, err
	})
}

// boundedBody fails once more than left bytes were read.
type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		_ = b.Close() // go-github v60 does not close that of a refusal
		return 0, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	return n, err
}

// StaticToken is a token that never changes.
func StaticToken(token router.Secret) func() (router.Secret, error) {
	return func() (router.Secret, error) { return token, nil }
}

// TokenFile reads the token from a file, each time, by router.ReadSecret, without
// the white space around it.
func TokenFile(path string) func() (router.Secret, error) {
	return func() (router.Secret, error) {
		b, err := router.ReadSecret(path, maxTokenFile)
		if err != nil {
			return "", err
		}
		token := strings.TrimSpace(string(b))
		switch {
		case token == "":
			return "", fmt.Errorf("%s is empty", path)
		case !printable(token):
			return "", fmt.Errorf("%s must hold one token and nothing else", path)
		}
		return router.Secret(token), nil
	}
}

// printable reports whether s is of visible ASCII characters alone.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// RunnerConfig registers a just-in-time runner in the repository, the
// organization or the enterprise of r, as r.Runner says, with r's labels and no
// others.
func (c *registrar) RunnerConfig(ctx context.Context, r router.ConfigRequest) (router.RunnerConfig, error) {
	t, err := targetOf(r)
	if err != nil {
		return router.RunnerConfig{}, &router.GiveUpError{Err: err}
	}
	p := place{t.lower(), r.Runner.Group}
	group, err := c.groupID(router.ForClaim(ctx), t, r.Runner.Group)
	if err != nil {
		return router.RunnerConfig{}, c.registeredIn(p, err)
	}
	cfg, code, err := c.jitConfig(ctx, t, r, group)
	if (code == http.StatusNotFound || code == http.StatusUnprocessableEntity) && r.Runner.Group.ID() == 0 { // the group may be another by now
		c.groups.put(t, groupList{})
		switch again, gone := c.groupID(router.ForClaim(ctx), t, r.Runner.Group); {
		case gone != nil:
			err = gone
		case again != group:
			cfg, code, err = c.jitConfig(ctx, t, r, again)
		}
	}
	if code == http.StatusConflict {
		err = fmt.Errorf("%w (%w)", router.ErrNameTaken, err)
	}
	if err = c.registeredIn(p, err); err != nil {
		return router.RunnerConfig{}, err
	}
	return router.RunnerConfig{GitHubID: cfg.GetRunner().GetID(), JIT: router.Secret(cfg.GetEncodedJITConfig())}, nil
}

// jitConfig makes the request of RunnerConfig, and returns the status of the answer, too.
func (c *registrar) jitConfig(ctx context.Context, t target, r router.ConfigRequest, group int64) (cfg github.JITRunnerConfig, code int, err error) {
	lost := false
	of := t.call()
	of.asked, of.jobWaits = asked{priority: claim, registers: &t}, true
	err = c.ask(ctx, t, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		resp, err := send(ctx, api, http.MethodPost, t.path()+"/generate-jitconfig", &github.GenerateJITConfigRequest{
			Name: r.Name, RunnerGroupID: group, WorkFolder: github.String(workFolder), Labels: r.Labels,
		}, &cfg)
		if code = status(resp); err == nil {
			err = checkConfig(&cfg)
		}
		if err != nil && !errors.As(err, new(*router.RetryAtError)) && (code < http.StatusMultipleChoices || code >= http.StatusInternalServerError) {
			lost = true
		}
		return resp, err
	})
	if lost {
		err = &router.UnansweredError{Err: err}
	}
	return cfg, code, err
}

// Run returns what the rules see of a workflow run.
func (c *Client) Run(ctx context.Context, repo router.Repo, runID int64) (router.Run, error) {
	var run router.Run
	of := callIn(repo, fmt.Sprintf("read run %d of", runID), "Actions (read)", "the run exists")
	of.jobWaits, of.priority = true, routing
	err := c.askIn(ctx, repo, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		found, resp, err := api.Actions.GetWorkflowRunByID(ctx, repo.Owner, repo.Name, runID)
		if err == nil {
			run, err = runOf(found, runID)
		}
		return resp, err
	})
	return run, err
}

// runOf reads GitHub's answer. It refuses an incomplete one: a condition would then be
// false because something is not known.
//
// head_repository is null once that repository is deleted, which the
// description does not say:
// https://github.com/github/rest-api-description/issues/1586 (read 2026-11-24).
// The run's own repository is there, so a missing one is another.
func runOf(r *github.WorkflowRun, id int64) (router.Run, error) {
	own, head := r.GetRepository().GetID(), r.GetHeadRepository().GetID()
	switch {
	case r.GetID() != id:
		return router.Run{}, errors.New("GitHub's answer is about another run")
	case r.GetEvent() == "":
		return router.Run{}, errors.New("GitHub's answer does not say which event started the run")
	case r.GetActor().GetLogin() == "":
		return router.Run{}, errors.New("GitHub's answer does not say who started the run")
	case own == 0 || r.HeadRepository != nil && head == 0:
		return router.Run{}, errors.New("GitHub's answer does not say which repository the run's commit comes from")
	}
	return router.Run{Event: r.GetEvent(), Fork: head != own, Actor: r.GetActor().GetLogin()}, nil
}

// RunState implements router.Reruns.
func (c *Client) RunState(ctx context.Context, repo router.Repo, runID int64) (router.RunState, error) {
	var run router.RunState
	of := callIn(repo, fmt.Sprintf("read run %d of", runID), "Actions (read)", "the run exists")
	of.notFound = true
	err := c.askIn(ctx, repo, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		found, resp, err := api.Actions.GetWorkflowRunByID(ctx, repo.Owner, repo.Name, runID)
		if err == nil && (found.GetID() != runID || found.GetRunAttempt() < 1 || found.GetStatus() == "" || found.GetEvent() == "") {
			err = errors.New("GitHub's answer lacks the run's ID, attempt, status or event")
		}
		if err == nil {
			run = router.RunState{
				Attempt: found.GetRunAttempt(), Completed: found.GetStatus() == "completed", Conclusion: found.GetConclusion(),
				Event: found.GetEvent(), Open: len(found.PullRequests) > 0,
			}
		}
		return resp, err
	})
	return run, err
}

var (
	// GitHub's words for a run that has not completed: "The workflow run containing this job
	// is already running" (https://github.com/NVIDIA-NeMo/RL/pull/1193, read 2026-11-30).
	notCompleted = regexp.MustCompile(`(?i)\b(already running|in progress|not (yet )?completed?)\b`)

	// And for one that is too old, or not eligible: "This workflow run cannot be retried"
	// (https://github.com/metabase/metabase/pull/70916, read 2026-11-30).
	neverAgain = regexp.MustCompile(`(?i)\b(cannot|can't|unable to) be? ?re-?(tr|run)`)
)

// RerunJob implements router.Reruns. See
// https://docs.github.com/en/rest/actions/workflow-runs#re-run-a-job-from-a-workflow-run (read 2026-11-30).
func (c *Client) RerunJob(ctx context.Context, repo router.Repo, jobID int64) error {
	code, said := 0, ""
	of := callIn(repo, fmt.Sprintf("run job %d again of", jobID), "Actions (write)", "the job exists")
	of.mayBeGone = true
	err := c.askIn(ctx, repo, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		resp, err := api.Actions.RerunJobByID(ctx, repo.Owner, repo.Name, jobID)
		code, said = status(resp), words(err)
		return resp, err
	})
	switch {
	case err == nil, errors.As(err, new(*router.RetryAtError)):
	case code == http.StatusForbidden && notCompleted.MatchString(said):
		return fmt.Errorf("%w (%w)", router.ErrRunning, err)
	case code == http.StatusForbidden && neverAgain.MatchString(said):
		return &router.GiveUpError{Err: err}
	case code < http.StatusMultipleChoices || code >= http.StatusInternalServerError:
		return &router.UnansweredError{Err: err}
	}
	return err
}

// A target is where a runner is registered.
type target struct {
	owner, repo  string
	organization bool
	enterprise   string // neither of them then
}

func (t target) kind() string {
	switch {
	case t.enterprise != "":
		return "enterprise"
	case t.organization:
		return "organization"
	}
	return "repository"
}

func (t target) String() string {
	switch {
	case t.enterprise != "":
		return t.kind() + " " + t.enterprise
	case t.organization:
		return t.kind() + " " + t.owner
	case t.repo == "":
		return t.owner
	}
	return t.kind() + " " + t.owner + "/" + t.repo
}

// lower returns the target in lower case, as GitHub compares without case.
func (t target) lower() target {
	t.owner, t.repo, t.enterprise = strings.ToLower(t.owner), strings.ToLower(t.repo), strings.ToLower(t.enterprise)
	return t
}

// base returns the path of the target, without a slash at the start.
func (t target) base() string {
	switch {
	case t.enterprise != "":
		return "enterprises/" + t.enterprise
	case t.organization:
		return "orgs/" + t.owner
	}
	return "repos/" + t.owner + "/" + t.repo
}

// path returns the path of the runners in a target.
func (t target) path() string { return t.base() + "/actions/runners" }

// call describes the registration of a runner:
// https://docs.github.com/en/rest/actions/self-hosted-runners (read 2026-11-24).
func (t target) call() call {
	c := t.callFor("register a runner in ")
	c.exists = "this " + t.kind() + " and the rule's runner group exist"
	return c
}

// callFor describes a request about the runners of a target.
func (t target) callFor(doing string) call {
	c := call{doing: doing + t.String(), owner: t.owner, exists: "this " + t.kind() + " exists"}
	switch {
	case t.enterprise != "":
		c.permission = "scope manage_runners:enterprise, which an owner of the enterprise " + t.enterprise + " can give"
	case t.organization:
		c.permission = "organization permission Self-hosted runners (write) on " + t.owner
	default:
		c.permission = "repository permission Administration (write) on " + t.owner + "/" + t.repo
	}
	return c
}

// targetOf says where the runner of r is registered.
func targetOf(r router.ConfigRequest) (target, error) {
	switch r.Runner.Scope {
	case "repository", "organization", "enterprise":
	default:
		return target{}, fmt.Errorf("runner scope %q must be repository, organization or enterprise", r.Runner.Scope)
	}
	t, err := pathOf(router.TargetOf(r.Repo, r.Runner))
	if err == nil && t.kind() != r.Runner.Scope {
		err = fmt.Errorf("the runner's scope is %s, but its name is missing", r.Runner.Scope)
	}
	return t, err
}

// pathOf checks a target, whose names go into a URL as they are.
func pathOf(t router.Target) (target, error) {
	at := target{owner: t.Owner, repo: t.Repo, organization: t.Repo == "" && t.Enterprise == "", enterprise: t.Enterprise}
	switch {
	case at.enterprise != "":
		if !pathName(at.enterprise) {
			return at, fmt.Errorf("%q is not a valid enterprise name on GitHub", at.enterprise)
		}
	case !pathName(at.owner) || !at.organization && !pathName(at.repo):
		return at, fmt.Errorf("%q is not a valid repository name on GitHub", at.owner+"/"+at.repo)
	}
	return at, nil
}

// pathName reports whether s is one name of an owner or a repository.
func pathName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return s != "" && len(s) <= 100 && s != "." && s != ".." && strings.Trim(s, letters) == ""
}

// checkConfig refuses an answer that no runner could start with.
func checkConfig(cfg *github.JITRunnerConfig) error {
	jit := cfg.GetEncodedJITConfig()
	switch {
	case jit == "":
		return errors.New("GitHub's answer lacks the runner configuration")
	case len(jit) > maxConfig || !printable(jit):
		return errors.New("GitHub's answer has an unusable runner configuration")
	case cfg.GetRunner().GetID() <= 0:
		return errors.New("GitHub's answer lacks the runner ID")
	}
	return nil
}
