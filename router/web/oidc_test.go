package web_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/auth"
)

// A provider is an OpenID Connect provider at which everybody is logged in
// with these claims.
type provider struct {
	*httptest.Server
	t      *testing.T
	key    *rsa.PrivateKey
	claims map[string]any        // besides those of the protocol
	change func(map[string]any)  // changes those; nil: nothing
	codes  map[string]url.Values // what was asked for, by code
}

// keys are that of every provider and that of somebody else: making one takes a while.
var keys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

func newProvider(t *testing.T) *provider {
	key := keys()[0]
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
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { // those of the beginning
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
	maps.Copy(claims, p.claims)
	if p.change != nil {
		p.change(claims)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: p.key, KeyID: "k"}}, nil)
	must(p.t, err)
	raw, err := jwt.Signed(signer).Claims(claims).Serialize()
	must(p.t, err)
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
		acc := &auth.Access{Tokens: staff().Tokens, OIDC: &auth.OIDC{
			Issuer: p.URL, ClientID: "switchyard", URL: "http://yard.example",
			Roles: []auth.GroupRole{
				{Group: "platform", Role: auth.Editor}, {Group: "web", Role: auth.Operator, Repos: router.Scope{"acme/web"}},
				{Group: "app", Role: auth.Operator, Repos: router.Scope{"acme/app"}}, {Group: "all", Role: auth.Viewer},
			},
		}}
		c.Access = func() (*auth.Access, error) { return acc, nil }
		c.Audit = c.Database.(placeless).Store
	}}, change...)...)
	return p, s
}

func TestPeopleLogInByOpenIDConnect(t *testing.T) {
	p, s := withOIDC(t)
	if page := s.ask("GET", "/login", "").Body.String(); !strings.Contains(page, `href="/login/oidc?next=`) {
		t.Errorf("the log-in page does not offer it: %s", page)
	}
	p.claims = map[string]any{"email": "mona@acme.example", "email_verified": true, "groups": []string{"web", "all", "app"}}
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
	p.claims["groups"] = []string{"app", "all"} // all are viewers, but only app's are seen with the higher role
	in = p.loggedIn(s)
	retry(http.StatusNotFound)
	p.claims["groups"] = []string{"all"}
	in = p.loggedIn(s)
	retry(http.StatusForbidden)
	p.claims["groups"] = []string{"platform"}
	in = p.loggedIn(s)
	if got := s.ask("GET", "/api/v1/audit", "", cookies(in)); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), `"who":"mona@acme.example","by":"`+p.URL+` 7","from":"192.0.2.1","did":"log in"`) {
		t.Errorf("the audit trail = %d %s", got.Code, got.Body)
	}
}

func TestALogInThatIsNotRightIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		claims map[string]any
		change func(map[string]any)
		back   func(url.Values)
		key    bool
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
		"no subject":                   {status: http.StatusBadGateway, change: func(c map[string]any) { delete(c, "sub") }},
		"a blank subject":              {status: http.StatusBadGateway, change: func(c map[string]any) { c["sub"] = " " }},
		"a subject that is a list":     {status: http.StatusBadGateway, change: func(c map[string]any) { c["sub"] = []string{"7"} }},
		"a subject without end":        {status: http.StatusBadGateway, change: func(c map[string]any) { c["sub"] = strings.Repeat("7", 256) }},
		"made for another client":      {status: http.StatusBadGateway, change: func(c map[string]any) { c["azp"] = "other" }},
		"made for no client":           {status: http.StatusBadGateway, change: func(c map[string]any) { c["azp"] = "" }},
		"made for a list of clients":   {status: http.StatusBadGateway, change: func(c map[string]any) { c["azp"] = []string{"switchyard"} }},
		"two audiences, and for whom":  {status: http.StatusBadGateway, change: func(c map[string]any) { c["aud"] = []string{"switchyard", "other"} }},
		"a key of somebody else":       {status: http.StatusBadGateway, key: true},
		"groups in a list of no texts": {status: http.StatusForbidden, claims: map[string]any{"groups": []any{1, 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := withOIDC(t)
			p.claims = map[string]any{"email": "mona@acme.example", "groups": []string{"platform"}}
			maps.Copy(p.claims, c.claims)
			p.change = c.change
			if c.key {
				p.key = keys()[1]
			}
			var change []func(url.Values)
			if c.back != nil {
				change = append(change, c.back)
			}
			got := p.loggedIn(s, change...)
			if got.Code != c.status || strings.Contains(got.Body.String(), "<script>acc") {
				t.Errorf("the callback = %d, want %d: %s", got.Code, c.status, got.Body)
			}
			if trail := s.trail(); c.status != http.StatusBadRequest && (len(trail) != 1 || !strings.Contains(trail[0], " | 192.0.2.1 | log in |  | ") || strings.HasPrefix(trail[0], " |")) {
				t.Errorf("the audit trail is %q", trail)
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
	var acc *auth.Access
	p, s := withOIDC(t, func(c *web.Config) {
		acc, _ = c.Access()
		c.Access = func() (*auth.Access, error) { return acc, nil }
	})
	first, other := acc, *acc.OIDC
	other.Issuer = newProvider(t).URL
	p.claims = map[string]any{"email": "mona@acme.example", "groups": []string{"platform"}}
	in := p.loggedIn(s)
	late := p.loggedIn(s, func(url.Values) { acc = &auth.Access{OIDC: &other} })
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

// What somebody may choose at the provider makes nobody another person, or a token.
func TestNobodyIsNamedAsAnother(t *testing.T) {
	acc := func(p *provider, nameClaim string, tokens ...string) *auth.Access {
		a := &auth.Access{Tokens: staff().Tokens, OIDC: &auth.OIDC{
			Issuer: p.URL, ClientID: "switchyard", URL: "http://yard.example", NameClaim: nameClaim, Roles: []auth.GroupRole{{Group: "platform", Role: auth.Operator}},
		}}
		for _, name := range tokens {
			a.Tokens = append(a.Tokens, auth.Token{Name: name, SHA256: sha256.Sum256([]byte(name)), Role: auth.Viewer})
		}
		return a
	}
	var access *auth.Access
	p, s := withOIDC(t, func(c *web.Config) { c.Access = func() (*auth.Access, error) { return access, nil } })
	for name, c := range map[string]struct {
		nameClaim string
		claims    map[string]any
		want      string
	}{
		"a verified address":              {"", map[string]any{"email": "mona@acme.example", "email_verified": true}, "mona@acme.example"},
		"verified as a text":              {"email", map[string]any{"email": "mona@acme.example", "email_verified": "true"}, "mona@acme.example"},
		"an address that is not verified": {"", map[string]any{"email": "boss@acme.example"}, "(subject 7)"},
		"verified as false":               {"", map[string]any{"email": "boss@acme.example", "email_verified": false, "preferred_username": "mona"}, "mona (subject 7)"},
		"verified as a list":              {"", map[string]any{"email": "boss@acme.example", "email_verified": []bool{true}}, "(subject 7)"},
		"a username like an address":      {"", map[string]any{"preferred_username": "boss@acme.example"}, "boss@acme.example (subject 7)"},
		"a username like a token's name":  {"", map[string]any{"preferred_username": "operator"}, "operator (subject 7)"},
		"an address like a token's name":  {"", map[string]any{"email": "Grafana@acme.example", "email_verified": true}, "Grafana@acme.example (subject 7)"},
		"a username that says a subject":  {"", map[string]any{"preferred_username": "boss (subject 1)"}, "boss (subject 1) (subject 7)"},
		"a name of blanks":                {"", map[string]any{"preferred_username": "\t ", "email": " ", "email_verified": true}, "(subject 7)"},
		"an address and words":            {"", map[string]any{"email": "Boss <boss@acme.example>", "email_verified": true}, "(subject 7)"},
		"another claim":                   {"nickname", map[string]any{"nickname": "GitHub", "email": "mona@acme.example", "email_verified": true}, "GitHub (subject 7)"},
		"another claim that is empty":     {"nickname", map[string]any{"nickname": "", "preferred_username": "local"}, "local (subject 7)"},
		"marks that turn the writing":     {"nickname", map[string]any{"nickname": "\u202eboss"}, `\u202eboss (subject 7)`},
		"a name without end":              {"nickname", map[string]any{"nickname": strings.Repeat("x", 5000)}, strings.Repeat("x", 100) + "… (subject 7)"},
	} {
		t.Run(name, func(t *testing.T) {
			access = acc(p, c.nameClaim, "grafana@acme.example")
			p.claims = c.claims
			p.claims["groups"] = []string{"platform"}
			in := p.loggedIn(s)
			s.ask("POST", "/api/v1/jobs/1/retry", "", cookies(in))
			trail := s.trail()
			for i, did := range []string{"retry | jobs/1 | ok", "log in |  | ok"} {
				if want := c.want + " | " + p.URL + " 7 | 192.0.2.1 | " + did; trail[i] != want {
					t.Errorf("the audit trail has %q, want %q", trail[i], want)
				}
			}
		})
	}
}

// Nobody takes the log-in from others: not by many that begin it, end it wrongly,
// or guess tokens, though behind a proxy all have one address.
func TestNobodyRefusesTheLogInToOthers(t *testing.T) {
	p, s := withOIDC(t)
	p.claims = map[string]any{"email": "mona@acme.example", "email_verified": true, "groups": []string{"platform"}}
	begun := s.ask("GET", "/login/oidc?next=/jobs", "")
	for range 10_001 {
		s.ask("GET", "/login/oidc", "")
	}
	for range 300 {
		s.ask("POST", "/login", "", form("token", "a guess of many"))
		s.ask("GET", "/login/callback?state=x&code=x", "", cookies(begun))
	}
	if got := s.ask("POST", "/login", "", form("token", "a guess of many")); got.Code != http.StatusTooManyRequests {
		t.Errorf("a wrong token after many = %d, want 429", got.Code)
	}
	if in := p.loggedIn(s); in.Code != http.StatusSeeOther {
		t.Errorf("a log-in = %d: %s", in.Code, in.Body)
	}
	at, _ := url.Parse(begun.Header().Get("Location"))
	p.codes["c"] = at.Query()
	if in := s.ask("GET", "/login/callback?"+url.Values{"state": {at.Query().Get("state")}, "code": {"c"}}.Encode(), "", cookies(begun)); in.Code != http.StatusSeeOther || in.Header().Get("Location") != "/jobs" {
		t.Errorf("the log-in that began before = %d to %q: %s", in.Code, in.Header().Get("Location"), in.Body)
	}
	if in := s.ask("POST", "/login", "", form("token", tokenOf("viewer"))); in.Code != http.StatusSeeOther {
		t.Errorf("a log-in by a token = %d: %s", in.Code, in.Body)
	}
}

func TestAnotherSiteBeginsNoLogIn(t *testing.T) {
	_, s := withOIDC(t)
	for site, want := range map[string]int{"": http.StatusSeeOther, "none": http.StatusSeeOther, "same-origin": http.StatusSeeOther, "same-site": http.StatusForbidden, "cross-site": http.StatusForbidden} {
		got := s.ask("GET", "/login/oidc?next=/jobs", "", func(req *http.Request) {
			if site != "" {
				req.Header.Set("Sec-Fetch-Site", site)
			}
		})
		if got.Code != want || (len(got.Result().Cookies()) > 0) != (want == http.StatusSeeOther) {
			t.Errorf("from %q: %d, cookies %v; want %d", site, got.Code, got.Result().Cookies(), want)
		}
		if want == http.StatusForbidden && !strings.Contains(got.Body.String(), `href="/login/oidc?next=%2fjobs"`) {
			t.Errorf("from %q: the page does not offer to log in here: %s", site, got.Body)
		}
	}
	// A link on another site to a page leads there by the log-in all the same.
	got := s.ask("GET", "/jobs", "", func(req *http.Request) { req.Header.Set("Sec-Fetch-Site", "cross-site") })
	if got.Code != http.StatusSeeOther {
		t.Errorf("a link to /jobs = %d", got.Code)
	}
	if trail := s.trail(); len(trail) != 2 || !strings.Contains(trail[0], "log in |  | another site's page began it") {
		t.Errorf("the audit trail is %q", trail)
	}
}

// A browser keeps cookies of up to 4,096 bytes.
func TestTheCookieOfALogInIsSmall(t *testing.T) {
	_, s := withOIDC(t)
	for _, next := range []string{"/jobs?label=" + strings.Repeat("&", 1000), "/jobs?label=" + strings.Repeat("\xff", 1000)} {
		got := s.ask("GET", "/login/oidc?"+url.Values{"next": {next}}.Encode(), "")
		if c := got.Result().Cookies(); len(c) != 1 || len(c[0].Name)+len(c[0].Value) > 4000 {
			t.Errorf("next=%.20q: %d cookies of %d bytes", next, len(c), len(c[0].Value))
		}
	}
}

// Whoever begins log-ins while the provider is ill does not fill the log.
func TestAProviderThatIsIllIsSaidOnceAMinute(t *testing.T) {
	ill := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }))
	defer ill.Close()
	_, s := withOIDC(t, func(c *web.Config) {
		acc, _ := c.Access()
		acc.OIDC.Issuer = ill.URL
	})
	for range 20 {
		if got := s.ask("GET", "/login/oidc", ""); got.Code != http.StatusBadGateway {
			t.Errorf("a log-in = %d", got.Code)
		}
	}
	if n := strings.Count(s.log.String(), "OpenID Connect login failed"); n != 1 {
		t.Errorf("the log has %d lines of it, want 1", n)
	}
}
