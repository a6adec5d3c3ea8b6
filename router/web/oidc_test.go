package web_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"switchyard/router"
	"switchyard/router/web"
)

// A provider is an OpenID Connect provider at which whoever comes is logged in
// with these claims.
type provider struct {
	*httptest.Server
	t      *testing.T
	key    *rsa.PrivateKey
	claims map[string]any        // besides those of the protocol
	change func(map[string]any)  // changes those; nil: nothing
	codes  map[string]url.Values // what was asked for, by code
}

func newProvider(t *testing.T) *provider {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{t: t, key: key, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, req *http.Request) {
		asked, ok := p.codes[req.FormValue("code")]
		delete(p.codes, req.FormValue("code"))
		challenge := sha256.Sum256([]byte(req.FormValue("code_verifier")))
		if !ok || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(challenge[:]) || asked.Get("redirect_uri") != req.FormValue("redirect_uri") {
			w.WriteHeader(http.StatusBadRequest)
			answer(w, map[string]any{"error": "invalid_grant"})
			return
		}
		answer(w, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": p.token(asked)})
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) token(asked url.Values) string {
	claims := map[string]any{
		"iss": p.URL, "aud": asked.Get("client_id"), "sub": "7", "nonce": asked.Get("nonce"),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}
	for k, v := range p.claims {
		claims[k] = v
	}
	if p.change != nil {
		p.change(claims)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: p.key, KeyID: "k"}}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	raw, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return raw
}

// loggedIn goes the way of a browser from /login/oidc to the answer of the callback.
func (p *provider) loggedIn(s *server, change ...func(url.Values)) *httptest.ResponseRecorder {
	s.t.Helper()
	begun := s.ask("GET", "/login/oidc?next=/jobs", "")
	at, err := url.Parse(begun.Header().Get("Location"))
	if err != nil || !strings.HasPrefix(at.String(), p.URL+"/authorize?") {
		s.t.Fatalf("the log-in goes to %v: %s", at, begun.Body)
	}
	q := at.Query()
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(q.Get(name)) < 20 {
			s.t.Errorf("the provider is asked with %s=%q", name, q.Get(name))
		}
	}
	p.codes["c"] = q
	back := url.Values{"state": {q.Get("state")}, "code": {"c"}}
	for _, f := range change {
		f(back)
	}
	return s.ask("GET", "/login/callback?"+back.Encode(), "", cookies(begun))
}

func withOIDC(t *testing.T, change ...func(*web.Config)) (*provider, *server) {
	p := newProvider(t)
	s := serve(t, append([]func(*web.Config){func(c *web.Config) {
		acc := &web.Access{OIDC: &web.OIDC{
			Issuer: p.URL, ClientID: "switchyard", URL: "http://yard.example",
			Roles: []web.GroupRole{
				{Group: "platform", Role: web.Editor}, {Group: "web", Role: web.Operator, Repos: router.Scope{"acme/web"}},
				{Group: "app", Role: web.Operator, Repos: router.Scope{"acme/app"}}, {Group: "all", Role: web.Viewer},
			},
		}}
		c.Access = func() (*web.Access, error) { return acc, nil }
		c.Audit = c.Books.(placeless).Store
	}}, change...)...)
	return p, s
}

func TestPeopleLogInByOpenIDConnect(t *testing.T) {
	p, s := withOIDC(t)
	if page := s.ask("GET", "/login", "").Body.String(); !strings.Contains(page, `href="/login/oidc?next=`) {
		t.Errorf("the log-in page does not offer it: %s", page)
	}
	p.claims = map[string]any{"email": "mona@acme.example", "groups": []string{"web", "all", "app"}}
	in := p.loggedIn(s)
	if in.Code != http.StatusSeeOther || in.Header().Get("Location") != "/jobs" {
		t.Fatalf("the callback = %d to %q: %s", in.Code, in.Header().Get("Location"), in.Body)
	}
	if page := s.ask("GET", "/", "", cookies(in)); page.Code != http.StatusOK || !strings.Contains(page.Body.String(), "mona@acme.example") {
		t.Errorf("GET / = %d %s", page.Code, page.Body)
	}
	retry := func(want int) {
		t.Helper()
		if got := s.ask("POST", "/api/v1/jobs/1/retry", "", cookies(in)); got.Code != want {
			t.Errorf("a retry = %d %s, want %d", got.Code, got.Body, want)
		}
	}
	retry(http.StatusOK)
	p.claims["groups"] = []string{"app", "all"} // all may look, but only app's are seen with the higher role
	in = p.loggedIn(s)
	retry(http.StatusNotFound)
	p.claims["groups"] = []string{"all"}
	in = p.loggedIn(s)
	retry(http.StatusForbidden)
	p.claims["groups"] = []string{"platform"}
	in = p.loggedIn(s)
	if got := s.ask("GET", "/api/v1/audit", "", cookies(in)); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), `"who":"mona@acme.example","did":"log in"`) {
		t.Errorf("the audit trail = %d %s", got.Code, got.Body)
	}
}

func TestALogInThatIsNotRightIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		claims map[string]any
		change func(map[string]any)
		back   func(url.Values)
	}{
		"no group with a role":         {status: http.StatusForbidden, claims: map[string]any{"groups": []string{"sales"}}},
		"groups that are no list":      {status: http.StatusForbidden, claims: map[string]any{"groups": "platform"}},
		"another nonce":                {status: http.StatusBadGateway, change: func(c map[string]any) { c["nonce"] = "other" }},
		"another audience":             {status: http.StatusBadGateway, change: func(c map[string]any) { c["aud"] = "other" }},
		"another issuer":               {status: http.StatusBadGateway, change: func(c map[string]any) { c["iss"] = "https://other.example" }},
		"a token that is over":         {status: http.StatusBadGateway, change: func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }},
		"another state":                {status: http.StatusBadRequest, back: func(v url.Values) { v.Set("state", "other") }},
		"a code that there is not":     {status: http.StatusBadGateway, back: func(v url.Values) { v.Set("code", "other") }},
		"a refusal with markup":        {status: http.StatusUnauthorized, back: func(v url.Values) { v.Set("error", "<script>access_denied") }},
		"a person without groups":      {status: http.StatusForbidden, claims: map[string]any{"groups": nil}},
		"groups in a list of no texts": {status: http.StatusForbidden, claims: map[string]any{"groups": []any{1, 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := withOIDC(t)
			p.claims = map[string]any{"email": "mona@acme.example", "groups": []string{"platform"}}
			for k, v := range c.claims {
				p.claims[k] = v
			}
			p.change = c.change
			var change []func(url.Values)
			if c.back != nil {
				change = append(change, c.back)
			}
			got := p.loggedIn(s, change...)
			if got.Code != c.status || strings.Contains(got.Body.String(), "<script>acc") {
				t.Errorf("the callback = %d, want %d: %s", got.Code, c.status, got.Body)
			}
			if page := s.ask("GET", "/jobs", "", cookies(got)); page.Code != http.StatusSeeOther {
				t.Errorf("GET /jobs = %d, want the log-in", page.Code)
			}
		})
	}
}

// The groups of one provider mean nothing at another, with whom the access file
// replaces it while people are in or on their way.
func TestALogInIsOfOneProvider(t *testing.T) {
	var acc *web.Access
	p, s := withOIDC(t, func(c *web.Config) {
		acc, _ = c.Access()
		c.Access = func() (*web.Access, error) { return acc, nil }
	})
	first, other := acc, *acc.OIDC
	other.Issuer = newProvider(t).URL
	p.claims = map[string]any{"email": "mona@acme.example", "groups": []string{"platform"}}
	in := p.loggedIn(s)
	late := p.loggedIn(s, func(url.Values) { acc = &web.Access{OIDC: &other} })
	if late.Code != http.StatusBadRequest {
		t.Errorf("an answer of the provider of before = %d, want 400", late.Code)
	}
	if got := s.ask("GET", "/api/v1/jobs", "", cookies(in)); got.Code != http.StatusUnauthorized {
		t.Errorf("a session of the provider of before = %d, want 401", got.Code)
	}
	acc = first
	if got := s.ask("GET", "/api/v1/jobs", "", cookies(in)); got.Code != http.StatusOK {
		t.Errorf("a session of the provider of now = %d, want 200", got.Code)
	}
}

func TestAnAnswerIsGoodOnceAndForOneBrowser(t *testing.T) {
	p, s := withOIDC(t)
	p.claims = map[string]any{"email": "mona@acme.example", "groups": []string{"platform"}}
	begun := s.ask("GET", "/login/oidc", "")
	at, _ := url.Parse(begun.Header().Get("Location"))
	back := "/login/callback?" + url.Values{"state": {at.Query().Get("state")}, "code": {"c"}}.Encode()
	p.codes["c"] = at.Query()
	if got := s.ask("GET", back, ""); got.Code != http.StatusBadRequest {
		t.Errorf("the answer in another browser = %d, want 400", got.Code)
	}
	if got := s.ask("GET", back, "", cookies(begun)); got.Code != http.StatusSeeOther {
		t.Errorf("the answer = %d, want the log-in", got.Code)
	}
	p.codes["c"] = at.Query()
	if got := s.ask("GET", back, "", cookies(begun)); got.Code != http.StatusBadRequest {
		t.Errorf("the answer again = %d, want 400", got.Code)
	}
}
