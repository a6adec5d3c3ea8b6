package gh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"switchyard/router"
)

// Limits are the limits of GitHub whose use its answers do not report:
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits
// and https://docs.github.com/en/actions/reference/limits (read 2026-11-24).
// A zero field means GitHub's own limit, or none for an Enterprise Server, where they are
// off unless its operator turns them on, which its refusals then show. A negative field
// means none.
type Limits struct {
	Points        int // a minute, of a login and endpoint: 900. A GET costs 1, all else 5
	Concurrent    int // requests under way of a login: 100
	Registrations int // of runners in five minutes, of a target: 1,500
}

const (
	pointsSpan       = time.Minute
	registrationSpan = 5 * time.Minute

	patience       = 5 * time.Second        // of a claim; half the timeout of a request
	inFlightPause  = 100 * time.Millisecond // until a request under way may have ended
	inFlightLater  = time.Second            // the same, for callers that do not wait
	sameWindow     = time.Minute            // resets of one window differ, as GitHub has many clocks
	maxResources   = 16                     // of GitHub's words for them
	maxResourceLen = 64                     // bytes of one
	maxEndpoints   = 256                    // ours are about 20
)

func (l Limits) withDefaults(host string) Limits {
	most := Limits{Points: 900, Concurrent: 100, Registrations: 1500}
	if host != "api.github.com" && !strings.HasSuffix(host, ".ghe.com") {
		most = Limits{Points: -1, Concurrent: -1, Registrations: -1}
	}
	return Limits{
		Points:        cmp.Or(l.Points, most.Points),
		Concurrent:    cmp.Or(l.Concurrent, most.Concurrent),
		Registrations: cmp.Or(l.Registrations, most.Registrations),
	}
}

// A priority says how much of a limit a request may use.
type priority int

const (
	housekeeping priority = iota // sweeps and comparisons: it can wait
	routing                      // a job waits for it
	claim                        // a runner waits for it
)

// share returns the part of a limit, in percent, that requests of this priority leave to
// those above: of a primary limit, which lasts for an hour, and of limits that last for
// minutes.
func (p priority) share() (primary, secondary int) {
	switch p {
	case claim:
		return 0, 0
	case routing:
		return 5, 25
	}
	return 20, 50
}

// asked is what the budget must know about a request besides its method and path.
type asked struct {
	priority  priority
	registers *target // it registers a runner there
}

type askedKey struct{}

func withAsked(ctx context.Context, a asked) context.Context {
	switch {
	case router.IsForClaim(ctx):
		a.priority = claim
	case router.IsForJobs(ctx):
		a.priority = max(a.priority, routing)
	}
	return context.WithValue(ctx, askedKey{}, a)
}

// A budget counts how many requests one login may still make. Its zero value is not
// usable; see newBudget.
type budget struct {
	limits *sharedLimits
	blocks *blocks
	login  string // in blocks

	mu        sync.Mutex
	primary   map[string]*quota // by resource
	endpoints map[string]*spent // by endpoint
	inFlight  int               // requests
}

func newBudget(l *sharedLimits, b *blocks, login string) *budget {
	return &budget{limits: l, blocks: b, login: login, primary: map[string]*quota{}, endpoints: map[string]*spent{}}
}

// A quota is what GitHub last said about a primary limit.
type quota struct {
	limit, remaining int
	reset            time.Time
	inFlight         int // requests that GitHub had not counted then
}

// spent is what an endpoint cost, and which primary limit GitHub counts it for.
type spent struct {
	points   window
	resource string
}

// A request as the budget sees it.
type spending struct {
	endpoint string
	points   int
	priority priority
	counted  *quota // by admit
}

// admit takes what a request costs and returns "", or returns what is short, and until
// when.
func (b *budget) admit(s *spending, now time.Time) (at time.Time, short string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, short := b.short(s, now); short != "" {
		return at, short
	}
	e := b.endpoint(s.endpoint, now)
	e.points.spend(s.points, pointsSpan, now)
	b.inFlight++
	if s.counted = b.primary[e.resource]; s.counted != nil {
		s.counted.inFlight++
	}
	return time.Time{}, ""
}

// short returns what is short for a request, and until when. b.mu is held.
func (b *budget) short(s *spending, now time.Time) (at time.Time, short string) {
	keepPrimary, keepSecondary := s.priority.share()
	if until := b.blocks.until(b.login); now.Before(until) {
		return until, "GitHub's rate limit is reached"
	}
	e := b.endpoints[s.endpoint]
	resource := core
	if e != nil {
		resource = e.resource
	}
	if q := b.primary[resource]; q != nil && now.Before(q.reset) && q.remaining-q.inFlight <= q.limit*keepPrimary/100 {
		if q.remaining <= 0 {
			return q.reset, fmt.Sprintf("GitHub's rate limit (%s, %d an hour) is reached", resource, q.limit)
		}
		return q.reset, fmt.Sprintf("what is left of GitHub's rate limit (%s, %d of %d) is kept for claims", resource, q.remaining, q.limit)
	}
	if most := b.limits.part(b.limits.Points); most >= 0 && e != nil {
		if at := e.points.room(s.points, most-most*keepSecondary/100, pointsSpan, now); !at.IsZero() {
			return at, fmt.Sprintf("GitHub takes no more than %d points a minute at %s%s", b.limits.Points, s.endpoint, b.limits.divided(b.limits.Points))
		}
	}
	if most := b.limits.part(b.limits.Concurrent); most >= 0 && b.inFlight >= most-most*keepSecondary/100 {
		at := now.Add(inFlightLater)
		if s.priority == claim {
			at = now.Add(inFlightPause)
		}
		return at, "as many requests as GitHub takes are under way" + b.limits.divided(b.limits.Concurrent)
	}
	return time.Time{}, ""
}

// endpoint returns what an endpoint has used. b.mu is held.
func (b *budget) endpoint(name string, now time.Time) *spent {
	e := b.endpoints[name]
	if e == nil {
		if len(b.endpoints) >= maxEndpoints {
			maps.DeleteFunc(b.endpoints, func(_ string, e *spent) bool { return e.points.sum(pointsSpan, now) == 0 })
		}
		e = &spent{resource: core}
		b.endpoints[name] = e
	}
	return e
}

// core is GitHub's word for the primary limit of most endpoints.
const core = "core"

// done records that a request has ended.
func (b *budget) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
}

// answered reads the primary limits from GitHub's answer; h is nil when there was none.
func (b *budget) answered(s *spending, h http.Header, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.counted != nil {
		s.counted.inFlight--
	}
	limit, err1 := strconv.Atoi(h.Get("X-RateLimit-Limit"))
	remaining, err2 := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	seconds, err3 := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	reset := time.Unix(seconds, 0)
	if errors.Join(err1, err2, err3) != nil || limit <= 0 || remaining < 0 || remaining > limit || limit > 1<<30 || !reset.After(now) {
		return // there is none, as on an Enterprise Server, or it is unusable
	}
	if last := now.Add(mostPause); reset.After(last) {
		reset = last
	}
	resource := cmp.Or(h.Get("X-RateLimit-Resource"), core)
	if len(resource) > maxResourceLen || !printable(resource) {
		return
	}
	q := b.primary[resource]
	switch {
	case q == nil && len(b.primary) >= maxResources:
		return
	case q == nil:
		q = &quota{limit: limit, remaining: remaining, reset: reset}
		b.primary[resource] = q
	case !now.Before(q.reset) || reset.Sub(q.reset).Abs() > sameWindow:
		// Another window. One that ends sooner may be over: then it holds for no longer.
		q.limit, q.remaining, q.reset = limit, remaining, reset
	default:
		// Answers overtake each other.
		q.remaining = min(q.remaining, remaining)
	}
	b.endpoint(s.endpoint, now).resource = resource
}

// figures returns the current figures.
func (b *budget) figures(login string, now time.Time) router.Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := router.Budget{Login: login, InFlight: b.inFlight}
	if until := b.blocks.until(b.login); now.Before(until) {
		f.BlockedUntil = until
	}
	for _, name := range slices.Sorted(maps.Keys(b.primary)) {
		if q := b.primary[name]; now.Before(q.reset) {
			f.Limits = append(f.Limits, router.RateLimit{Resource: name, Limit: q.limit, Remaining: q.remaining, Reset: q.reset})
		}
	}
	return f
}

// limitOf returns the primary limit that GitHub counts an endpoint for; zero: not known.
func (b *budget) limitOf(endpoint string, now time.Time) router.RateLimit {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.endpoints[endpoint]
	if e == nil {
		return router.RateLimit{}
	}
	q := b.primary[e.resource]
	if q == nil || !now.Before(q.reset) {
		return router.RateLimit{}
	}
	return router.RateLimit{Resource: e.resource, Limit: q.limit, Remaining: max(q.remaining-q.inFlight, 0), Reset: q.reset}
}

// registered counts the registrations of runners by target.
type registered struct {
	limits *sharedLimits

	mu sync.Mutex
	by map[target]*window
}

// take counts one more runner in t if admit admits it, which may be nil. It
// returns as admit does.
func (r *registered) take(t target, now time.Time, admit func() (time.Time, string)) (at time.Time, short string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, short := r.short(t, now); short != "" {
		return at, short
	}
	if admit != nil {
		if at, short := admit(); short != "" {
			return at, short
		}
	}
	if r.limits.Registrations >= 0 {
		t = t.lower()
		if r.by[t] == nil {
			maps.DeleteFunc(r.by, func(_ target, w *window) bool { return w.sum(registrationSpan, now) == 0 })
			r.by[t] = &window{}
		}
		r.by[t].spend(1, registrationSpan, now)
	}
	return time.Time{}, ""
}

// short is "" when one more runner may be registered in t. r.mu is held.
func (r *registered) short(t target, now time.Time) (at time.Time, short string) {
	w := r.by[t.lower()]
	most := r.limits.part(r.limits.Registrations)
	if most < 0 || w == nil {
		return time.Time{}, ""
	}
	if at = w.room(1, most, registrationSpan, now); at.IsZero() {
		return at, ""
	}
	return at, fmt.Sprintf("GitHub takes no more than %d registrations of runners in 5 minutes in %s%s", r.limits.Registrations, t, r.limits.divided(r.limits.Registrations))
}

// later returns the error for what is short until at.
func later(at time.Time, short string) error {
	if short == "" {
		return nil
	}
	return &router.RetryAtError{At: at, Err: fmt.Errorf("%s: again at %s", short, at.UTC().Format(time.RFC3339))}
}

// variable matches the parts of a path that are IDs or versions.
var variable = regexp.MustCompile(`/([0-9]+(?:\.[0-9]+)*|[0-9a-f]{40}|[0-9a-f]{64})(/|$)`)

// endpoint returns what GitHub counts a request for: its method, and its path without
// names and IDs.
func (c *caller) endpoint(method, path string) string {
	path = strings.TrimPrefix(path, c.base.Path)
	parts := strings.SplitN(path, "/", 4)
	switch {
	case parts[0] == "repos" && len(parts) >= 3:
		path = strings.Join(append([]string{"repos/{owner}/{repo}"}, parts[3:]...), "/")
	case parts[0] == "repositories" && len(parts) >= 2: // where a renamed one is now
		path = strings.Join(append([]string{"repos/{owner}/{repo}"}, parts[2:]...), "/")
	case (parts[0] == "orgs" || parts[0] == "enterprises" || parts[0] == "users") && len(parts) >= 2:
		path = strings.Join(append([]string{parts[0] + "/{name}"}, parts[2:]...), "/")
	}
	if at, name, ok := strings.Cut(path, "/actions/variables/"); ok && name != "" {
		path = at + "/actions/variables/{variable}"
	}
	return method + " " + variable.ReplaceAllString(path, "/{id}$2")
}

// budgeted sends each request through next once b admits it.
func (c *caller) budgeted(b *budget, next http.RoundTripper) roundTrip {
	return func(req *http.Request) (*http.Response, error) {
		of, _ := req.Context().Value(askedKey{}).(asked)
		s := &spending{endpoint: c.endpoint(req.Method, req.URL.Path), points: cost(req.Method), priority: of.priority}
		err := c.wait(req.Context(), s.priority, func(now time.Time) (time.Time, string) {
			admit := func() (time.Time, string) { return b.admit(s, now) }
			if of.registers == nil {
				return admit()
			}
			return c.registered.take(*of.registers, now, admit)
		})
		if err != nil {
			if req.Body != nil {
				_ = req.Body.Close()
			}
			return nil, err
		}
		resp, err := next.RoundTrip(req)
		if err != nil {
			b.answered(s, nil, c.now())
			b.done()
			return nil, err
		}
		b.answered(s, resp.Header, c.now())
		resp.Body = &closing{resp.Body, sync.OnceFunc(b.done)}
		// Without it, go-github keeps requests back by its own idea of the limits.
		resp.Header.Set("X-From-Cache", "1")
		return resp, nil
	}
}

// cost is GitHub's price of a request, in points.
func cost(method string) int {
	if method == http.MethodGet || method == http.MethodHead {
		return 1
	}
	return 5
}

// wait calls try until nothing is short. Only a claim tries more than once, for a few
// seconds, if that is enough.
func (c *caller) wait(ctx context.Context, p priority, try func(now time.Time) (at time.Time, short string)) error {
	for left := patience; ; {
		now := c.now()
		at, short := try(now)
		if short == "" || p != claim || !pause(ctx, max(at.Sub(now), time.Millisecond), &left) {
			return later(at, short)
		}
	}
}

// pause takes d from left and waits for it; false: that is more than is left, or than
// ctx lasts.
func pause(ctx context.Context, d time.Duration, left *time.Duration) bool {
	end, ends := ctx.Deadline()
	if *left -= d; *left < 0 || ends && time.Until(end) <= d {
		return false
	}
	return router.Pause(ctx, d)
}

// room returns a *router.RetryAtError while GitHub's limits allow no registration in a
// target.
func (c *registrar) room(at target) error {
	now := c.now()
	c.registered.mu.Lock()
	until, short := c.registered.short(at, now)
	c.registered.mu.Unlock()
	if s := c.known(at); s != nil && short == "" {
		s.budget.mu.Lock()
		defer s.budget.mu.Unlock()
		until, short = s.budget.short(&spending{
			endpoint: c.endpoint(http.MethodPost, c.base.Path+at.path()+"/generate-jitconfig"), points: cost(http.MethodPost), priority: claim,
		}, now)
	}
	return later(until, short)
}

// known returns the session that serves t; nil when that must be looked up first.
func (c *caller) known(t target) *session {
	if c.app == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.cur
	}
	c.app.mu.Lock()
	defer c.app.mu.Unlock()
	if o := c.app.owners[strings.ToLower(t.owner)]; o != nil {
		if in := o.installation.Load(); in != nil {
			return in.session
		}
	}
	return nil
}

// Budget returns how many requests GitHub still takes, for each login that was used.
func (c *caller) Budget() []router.Budget {
	var all []*session
	if c.app == nil {
		if s := c.known(target{}); s != nil {
			all = append(all, s)
		}
	} else {
		c.app.mu.Lock()
		all = append(all, c.app.session)
		for _, id := range slices.Sorted(maps.Keys(c.app.installations)) {
			all = append(all, c.app.installations[id].session)
		}
		c.app.mu.Unlock()
	}
	now := c.now()
	figures := make([]router.Budget, len(all))
	for i, s := range all {
		figures[i] = s.budget.figures(s.login, now)
	}
	return figures
}

// closing is a body that reports when it is closed or read to its end: go-github v60 does
// not close the body of a refusal.
type closing struct {
	io.ReadCloser
	closed func()
}

func (c *closing) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil {
		c.closed()
	}
	return n, err
}

func (c *closing) Close() error {
	defer c.closed()
	return c.ReadCloser.Close()
}
