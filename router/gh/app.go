package gh

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradleyfalzon/ghinstallation/v2"
	"github.com/google/go-github/v60/github"
	"golang.org/x/sync/semaphore"

	"switchyard/router"
)

const (
	tokenMargin  = 2 * time.Minute  // how long before it expires a token is replaced, as clocks differ
	refusalPause = 30 * time.Second // after a refusal that needs an operator, before GitHub is asked again
	clockMargin  = 30 * time.Second // how far back ghinstallation dates its JWTs
	maxKeyFile   = 64 << 10         // bytes
)

// An App is the GitHub App that Switchyard logs in as.
type App struct {
	ID int64 // as on the App's settings page

	// Key returns one of the App's private keys. It is called for each request
	// of the App itself, one or two an hour and installation, from several
	// goroutines, so that a rotated key takes effect.
	Key func() (*rsa.PrivateKey, error)
}

// KeyFile reads an App's private key from a PEM file (PKCS #1, as GitHub
// makes them, or PKCS #8), each time, by router.ReadSecret.
func KeyFile(path string) func() (*rsa.PrivateKey, error) {
	return func() (*rsa.PrivateKey, error) {
		b, err := router.ReadSecret(path, maxKeyFile)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(b)
		if block == nil {
			return nil, fmt.Errorf("%s is not a PEM file; download a private key on the GitHub App's settings page", path)
		}
		var key any
		switch block.Type {
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		default:
			err = fmt.Errorf("its first block is %.40q", block.Type)
		}
		if rsaKey, ok := key.(*rsa.PrivateKey); ok && err == nil {
			return rsaKey, nil
		}
		if err == nil {
			err = errors.New("it is a different kind of key")
		}
		return nil, fmt.Errorf("%s holds no RSA private key without a passphrase: %w", path, err)
	}
}

// An app logs in as the installations of an App. Limits are counted by
// installation, so each has a session of its own, which outlives its tokens.
type app struct {
	App
	client  *caller
	session *session // of the App itself, which finds installations and fetches their tokens

	mu            sync.Mutex
	owners        map[string]*owner // by lower-case name
	installations map[int64]*installation
}

// An owner is an organization or user that the App may be installed for.
type owner struct {
	installation atomic.Pointer[installation] // nil: not known
	turn         *semaphore.Weighted          // to look it up; guards refusals
	refusals     map[string]refusal           // by target, as one repository may be left out of an installation
}

type installation struct {
	id      int64
	session *session
	turn    *semaphore.Weighted // to fetch a token; guards refusal
	refusal refusal             // of a token
}

// A refusal is an error that is returned again until a time.
type refusal struct {
	err   error
	until time.Time
}

// A loginError says that GitHub rejects Switchyard's credentials, or that they cannot be
// read. The breaker of the login keeps its requests back.
type loginError struct{ err error }

func (e *loginError) Error() string { return e.err.Error() }
func (e *loginError) Unwrap() error { return e.err }

// refused returns the refusal of err if an operator must act: asking again at once, for
// each of many waiting runners, would use up the App's own limit.
func refused(err error, now time.Time) refusal {
	if _, ok := errors.AsType[*router.FixError](err); ok && !errors.As(err, new(*loginError)) && !errors.As(err, new(*router.RetryAtError)) {
		return refusal{err, now.Add(refusalPause)}
	}
	return refusal{}
}

func (r refusal) stands(now time.Time) bool { return now.Before(r.until) }

func newApp(cfg App, c *caller) *app {
	a := &app{App: cfg, client: c, owners: map[string]*owner{}, installations: map[int64]*installation{}}
	a.session = c.newSession(a.String(), appLogin(a.ID), roundTrip(func(req *http.Request) (*http.Response, error) {
		key, err := a.Key()
		if err != nil {
			return nil, &router.FixError{Fix: "give Switchyard a private key of " + a.String() + " that it can read", Err: &loginError{fmt.Errorf("read the key of %s: %w", a, err)}}
		}
		// It signs the JWT. Its transport for installations is not used: a caller would
		// wait for the others' refresh however short its own context is, and a refusal
		// would leak the connection and hide GitHub's message.
		signed := ghinstallation.NewAppsTransportFromPrivateKey(c.http.Transport, a.ID, key)
		return signed.RoundTrip(req.Clone(req.Context()))
	}))
	a.session.probe = "app"
	return a
}

func (a *app) String() string { return fmt.Sprintf("the GitHub App %d", a.ID) }

// login returns the session of the installation that serves t.
func (a *app) login(ctx context.Context, t target) (*session, error) {
	// A claim will also need the installation and its token.
	ctx, cancel := context.WithTimeout(withAsked(ctx, asked{priority: claim}), a.client.timeout)
	defer cancel()
	in, err := a.installation(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := a.client.ready(ctx, in.session); err != nil {
		return nil, err // without a token for it
	}
	return in.session, a.refresh(ctx, in, t.owner)
}

// installation returns the installation that serves t. GitHub is asked once per owner.
func (a *app) installation(ctx context.Context, t target) (*installation, error) {
	a.mu.Lock()
	name := strings.ToLower(t.owner)
	o := a.owners[name]
	if o == nil {
		o = &owner{turn: semaphore.NewWeighted(1), refusals: map[string]refusal{}}
		a.owners[name] = o
	}
	a.mu.Unlock()
	if in := o.installation.Load(); in != nil {
		return in, nil
	}
	if err := o.turn.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("wait for the installation of %s for %s: %w", a, t, err)
	}
	defer o.turn.Release(1)
	if in := o.installation.Load(); in != nil {
		return in, nil
	}
	now := a.client.now()
	maps.DeleteFunc(o.refusals, func(_ string, r refusal) bool { return !r.stands(now) })
	if r, ok := o.refusals[t.String()]; ok {
		return nil, r.err
	}
	in, err := a.lookUp(ctx, t)
	if err != nil {
		o.refusals[t.String()] = refused(err, a.client.now())
		return nil, err
	}
	o.installation.Store(in)
	return in, nil
}

// lookUp requests the installation that serves t:
// https://docs.github.com/en/rest/apps/apps#get-a-repository-installation-for-the-authenticated-app (read 2026-11-24).
func (a *app) lookUp(ctx context.Context, t target) (*installation, error) {
	if err := a.client.ready(ctx, a.session); err != nil {
		return nil, err
	}
	path := t.base()
	if !t.organization && t.repo == "" {
		path = "users/" + t.owner
	}
	var found github.Installation
	resp, err := send(ctx, a.session.api, http.MethodGet, path+"/installation", nil, &found)
	if err == nil && found.GetID() <= 0 {
		err = errors.New("GitHub's answer lacks the installation")
	}
	if err != nil {
		code, err := a.sorted(err, resp, fmt.Sprintf("find the installation of %s for %s", a, t))
		if code == http.StatusNotFound {
			fix := "install it for " + t.owner + ", on the App's settings page"
			if !t.organization && t.repo != "" {
				fix += ", with this repository"
			}
			return nil, &router.FixError{Fix: fix, Err: fmt.Errorf("%s is not installed for %s", a, t)}
		}
		return nil, err
	}
	a.session.calls.passed(a.client.now())
	a.mu.Lock()
	defer a.mu.Unlock()
	in := a.installations[found.GetID()]
	if in == nil {
		in = &installation{id: found.GetID(), turn: semaphore.NewWeighted(1)}
		in.session = a.client.newSession(fmt.Sprintf("installation %d of %s", in.id, a), installationLogin(a.ID, in.id), nil)
		in.session.app, in.session.forget = a, func() { a.forget(in) }
		in.session.refresh = func(ctx context.Context) error { return a.refresh(ctx, in, t.owner) }
		a.installations[in.id] = in
	}
	return in, nil
}

// forget makes the next caller look up the installation again: it may be gone, and
// there may be another. Its session stays, as GitHub still counts requests for it.
func (a *app) forget(in *installation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.owners {
		o.installation.CompareAndSwap(in, nil)
	}
}

// refresh gets a token for the installation unless it has a good one. One caller asks,
// with one request; the others wait.
func (a *app) refresh(ctx context.Context, in *installation, owner string) error {
	s := in.session
	if s.fresh(a.client.now()) {
		return nil
	}
	doing := fmt.Sprintf("get a token of %s for its installation for %s", a, owner)
	if err := in.turn.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer in.turn.Release(1)
	now := a.client.now()
	switch {
	case s.fresh(now):
		return nil
	case in.refusal.stands(now):
		return in.refusal.err
	}
	if err := a.client.ready(ctx, a.session); err != nil {
		return err
	}
	token, resp, err := a.session.api.Apps.CreateInstallationToken(ctx, in.id, &github.InstallationTokenOptions{})
	if err == nil && (!printable(token.GetToken()) || token.GetToken() == "" || token.ExpiresAt == nil) {
		err = errors.New("GitHub's answer lacks the token")
	}
	if err != nil {
		code, err := a.sorted(err, resp, doing)
		switch code {
		case http.StatusNotFound:
			a.forget(in)
		case http.StatusForbidden:
			err = &router.FixError{Fix: a.unsuspend(owner), Err: err}
		}
		in.refusal = refused(err, a.client.now())
		return err
	}
	a.session.calls.passed(a.client.now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.expires, s.granted = router.Secret(token.GetToken()), token.GetExpiresAt().Time, grantedTo(token.Permissions)
	return nil
}

func (a *app) unsuspend(owner string) string {
	return "unsuspend the installation of " + a.String() + " in the settings of " + owner
}

// sorted is session.sorted for requests of the App itself. The status is 0 when the
// error needs no further classification.
func (a *app) sorted(err error, resp *github.Response, doing string) (code int, sorted error) {
	now := a.client.now()
	defer func() { a.session.heard(sorted, resp, now) }()
	code, err = a.session.refused(err, resp, doing, now)
	switch {
	case code == http.StatusUnauthorized:
		fix := "check that " + a.String() + " is yours and that its settings page lists the private key, and set this machine's clock"
		if date, dateErr := http.ParseTime(resp.Header.Get("Date")); dateErr == nil {
			if off := now.Sub(date); off.Abs() > clockMargin {
				fix = fmt.Sprintf("set this machine's clock: it differs from GitHub's by %s", off.Round(time.Second))
			}
		}
		return 0, &router.FixError{Fix: fix, Err: &loginError{err}}
	case code == http.StatusNotFound && strings.Contains(err.Error(), "Integration not found"):
		return 0, &router.FixError{Fix: fmt.Sprintf("check the App's ID, %d: %s knows none with it", a.ID, a.client.base.Host), Err: &loginError{err}}
	}
	return code, err
}
