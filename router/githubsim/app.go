package githubsim

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	longestJWT    = 10 * time.Minute
	tokenLifetime = time.Hour
)

// An App is the GitHub App that the Server knows.
type App struct {
	ID  int64
	Key *rsa.PublicKey

	// Permissions are those of every installation; nil: administration and
	// organization_self_hosted_runners to write, actions and metadata to read.
	Permissions map[string]string

	// Private is what GitHub gives to who makes the App from a manifest; nil: nobody can.
	Private *rsa.PrivateKey
}

// AppSettings is what the App's page on GitHub has, or that of another webhook.
type AppSettings struct {
	Permissions     map[string]string // by GitHub's names: read or write
	Events          []string
	HookURL, Secret string
	ContentType     string // json or form
}

// An installed App is what one owner has. Guarded by state.mu.
type installed struct {
	id    int64
	owner string

	permissions map[string]string // that the owner has accepted
	events      []string

	repos     []string // nil: all of the owner's
	since     time.Time
	suspended time.Time // zero: it is not
}

type appToken struct {
	of      *installed
	expires time.Time
}

// A caller is who sent a request. The zero caller has Config.Token, or needs none.
type caller struct {
	app       bool       // the App itself
	installed *installed // an installation
}

type callerKey struct{}

func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// account returns what rate limits are counted by.
func (c caller) account() int64 {
	switch {
	case c.app:
		return -1
	case c.installed != nil:
		return c.installed.id
	}
	return 0
}

// Install installs the App for an owner, for the named repositories or, without any, for
// all, and returns the installation's ID. It is new each time; the first is the one in
// payloads. The owner's earlier installation ends.
func (s *apps) Install(owner string, repos ...string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := installation(owner)
	for s.installations[id] != nil {
		id++
	}
	s.uninstall(owner)
	s.installations[id] = &installed{id: id, owner: owner, repos: repos, since: s.cfg.Now(), permissions: s.settings.Permissions, events: s.settings.Events}
	s.installedFor[strings.ToLower(owner)] = s.installations[id]
	return id
}

// SetApp changes what the App's page has. Installations keep the permissions and events that
// they have until they are made anew, as their owners must accept others.
func (s *apps) SetApp(change func(*AppSettings)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings.Permissions = maps.Clone(s.settings.Permissions) // which installations have, too
	change(&s.settings)
}

// Accept has the owner of an installation accept the permissions and events of the App's page.
func (s *apps) Accept(owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.installedFor[strings.ToLower(owner)]; in != nil {
		in.permissions, in.events = s.settings.Permissions, s.settings.Events
	}
}

// hook returns the settings of the webhook.
func (s *state) hook() AppSettings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// Uninstall ends the owner's installation and its tokens.
func (s *apps) Uninstall(owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uninstall(owner)
}

func (s *apps) uninstall(owner string) { delete(s.installedFor, strings.ToLower(owner)) }

// Suspend suspends the owner's installation, or resumes it.
func (s *apps) Suspend(owner string, suspended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.installedFor[strings.ToLower(owner)]; in != nil {
		in.suspended = time.Time{}
		if suspended {
			in.suspended = s.cfg.Now()
		}
	}
}

// caller returns who sent a request; status is 0 when it is let in.
func (s *gate) caller(r *http.Request) (c caller, status int, message string) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "token") {
		token = ""
	}
	path := r.URL.Path
	if s.cfg.App != nil && (path == "/app" || strings.HasPrefix(path, "/app/") || strings.HasSuffix(path, "/installation")) {
		status, message := s.cfg.App.verify(token, s.cfg.Now())
		return caller{app: true}, status, message
	}
	switch {
	case strings.HasPrefix(path, "/app-manifests/"), s.cfg.Token == "" && s.cfg.App == nil, token == s.cfg.Token && token != "":
		return caller{}, 0, ""
	case token == "":
		return caller{}, http.StatusUnauthorized, "Requires authentication"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.appTokens[token]
	switch {
	case !ok, !s.cfg.Now().Before(t.expires), s.installedFor[strings.ToLower(t.of.owner)] != t.of:
		return caller{}, http.StatusUnauthorized, "Bad credentials"
	case !t.of.suspended.IsZero():
		return caller{}, http.StatusForbidden, "This installation has been suspended"
	}
	return caller{installed: t.of}, 0, ""
}

// verify checks a JWT by GitHub's rules; status is 0 when it is valid:
// https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app (read 2026-11-24).
func (a *App) verify(token string, now time.Time) (status int, message string) {
	const undecodable = "A JSON web token could not be decoded"
	var claims struct {
		Iss any    `json:"iss"`
		Iat *int64 `json:"iat"`
		Exp *int64 `json:"exp"`
	}
	signed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err == nil {
		err = signed.Claims(a.Key, &claims)
	}
	iss := fmt.Sprint(claims.Iss)
	if n, ok := claims.Iss.(float64); ok {
		iss = strconv.FormatInt(int64(n), 10)
	}
	switch {
	case err != nil:
		return http.StatusUnauthorized, undecodable
	case iss != strconv.FormatInt(a.ID, 10):
		return http.StatusNotFound, "Integration not found"
	case claims.Exp == nil || *claims.Exp <= now.Unix():
		return http.StatusUnauthorized, "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
	case *claims.Exp > now.Add(longestJWT).Unix():
		return http.StatusUnauthorized, "'Expiration time' claim ('exp') is too far in the future"
	case claims.Iat == nil || *claims.Iat > now.Unix():
		return http.StatusUnauthorized, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
	}
	return 0, ""
}

func withCaller(r *http.Request, c caller) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
}

// permissions of every installation.
func (a *App) permissions() map[string]string {
	if a.Permissions != nil {
		return a.Permissions
	}
	return map[string]string{
		"administration": "write", "organization_self_hosted_runners": "write", "actions": "read", "metadata": "read",
	}
}

// allows reports whether an installation with these permissions may do this.
func allows(permissions map[string]string, permission, method string) bool {
	has := permissions[permission]
	return has == "write" || has == "read" && method == http.MethodGet
}

// sees reports whether the installation covers a repository or an organization.
func (in *installed) sees(sc scope) bool {
	return sc.enterprise == "" && strings.EqualFold(in.owner, sc.owner) && (sc.repo == "" || in.repos == nil ||
		slices.ContainsFunc(in.repos, func(name string) bool { return strings.EqualFold(name, sc.repo) }))
}

func (s *apps) getApp(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer(w, http.StatusOK, s.appObject())
}

func (s *apps) getHookConfig(w http.ResponseWriter, _ *http.Request) {
	hook := s.hook()
	answer(w, http.StatusOK, object{"url": hook.HookURL, "content_type": hook.ContentType, "insecure_ssl": "0", "secret": "********"})
}

// appObject shows the App. s.mu is held.
func (s *state) appObject() object {
	a, made := s.cfg.App, stamp(time.Unix(0, 0))
	return object{
		"id": a.ID, "slug": "switchyard", "node_id": nodeID("App", a.ID), "owner": user("mona", "User"),
		"name": "Switchyard", "description": nil, "external_url": webURL, "html_url": webURL + "/apps/switchyard",
		"created_at": made, "updated_at": made, "permissions": s.settings.Permissions, "events": s.settings.Events,
	}
}

func (s *apps) getInstallation(w http.ResponseWriter, _ *http.Request, sc scope) {
	in := s.installedFor[strings.ToLower(sc.owner)]
	if in == nil || !in.sees(sc) {
		notFound(w)
		return
	}
	answer(w, http.StatusOK, s.installationObject(in))
}

func (s *apps) createToken(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.installations[pathID(r)]
	switch {
	case in == nil || s.installedFor[strings.ToLower(in.owner)] != in:
		notFound(w)
		return
	case !in.suspended.IsZero():
		fault(w, http.StatusForbidden, "This installation has been suspended")
		return
	}
	// The shape of a token since April 2026.
	token := fmt.Sprintf("ghs_%d_%s", s.cfg.App.ID, base64.RawURLEncoding.EncodeToString(s.secret(192)))
	expires := s.cfg.Now().Add(tokenLifetime).Truncate(time.Second)
	s.appTokens[token] = appToken{in, expires}
	answer(w, http.StatusCreated, object{
		"token": token, "expires_at": stamp(expires), "permissions": in.permissions, "repository_selection": in.selection(),
	})
}

func (in *installed) selection() string {
	if in.repos == nil {
		return "all"
	}
	return "selected"
}

func (s *apps) installationObject(in *installed) object {
	kind, pages := "User", webURL+"/settings/installations/"
	if s.orgs[strings.ToLower(in.owner)] {
		kind, pages = "Organization", webURL+"/organizations/"+in.owner+"/settings/installations/"
	}
	account := user(in.owner, kind)
	api := fmt.Sprintf("%s/app/installations/%d/access_tokens", apiURL, in.id)
	var by, at any
	if !in.suspended.IsZero() {
		by, at = account, stamp(in.suspended)
	}
	return object{
		"id": in.id, "account": account, "repository_selection": in.selection(), "access_tokens_url": api,
		"repositories_url": apiURL + "/installation/repositories", "html_url": pages + strconv.FormatInt(in.id, 10),
		"app_id": s.cfg.App.ID, "app_slug": "switchyard", "target_id": account["id"], "target_type": kind,
		"permissions": in.permissions, "events": in.events, "single_file_name": nil,
		"created_at": stamp(in.since), "updated_at": stamp(in.since), "suspended_by": by, "suspended_at": at,
	}
}
