package web_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/mux"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/rules"
)

// staff are tokens by their own names: one of each role, and a viewer and an
// operator of another team.
func staff() *web.Access {
	acc := &web.Access{}
	for name, t := range map[string]web.Token{
		"viewer": {Role: web.Viewer}, "operator": {Role: web.Operator}, "editor": {Role: web.Editor},
		"other viewer": {Role: web.Viewer, Repos: router.Scope{"other/*"}}, "other operator": {Role: web.Operator, Repos: router.Scope{"other/*"}},
	} {
		t.Name, t.SHA256 = name, sha256.Sum256([]byte(name))
		acc.Tokens = append(acc.Tokens, t)
	}
	return acc
}

// guarded is a server that asks who somebody is.
func guarded(t *testing.T, change ...func(*web.Config)) *server {
	acc := staff()
	return serve(t, append([]func(*web.Config){func(c *web.Config) {
		c.Access = func() (*web.Access, error) { return acc, nil }
		c.Audit = c.Books.(placeless).Store
	}}, change...)...)
}

// ask sends a request of whoever has the token, "" for nobody.
func (s *server) ask(method, target, token string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	s.t.Helper()
	req := httptest.NewRequest(method, "http://yard.example"+target, strings.NewReader(""))
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", "http://yard.example")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for _, f := range change {
		f(req)
	}
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, req)
	return rec
}

// Every path that there is, with its method, asks who somebody is: a new one
// that forgets it fails here.
func TestEveryPathAsksWhoMayUseIt(t *testing.T) {
	open := []string{"/login", "/login/oidc", "/login/callback", "/assets/"}
	forAll := []string{"/explain", "/check", "/diff", "/logout", "/rules"} // POST for viewers; what /rules applies, its own test asks
	seen := false                                                          // whether anything shows what must not be seen
	book := newBook()
	s := guarded(t, func(c *web.Config) {
		c.Rulebook, c.AllowEdit = book, true
		_, err := c.Books.(placeless).Receive(t.Context(), router.Delivery{ID: "6", Action: "queued", Status: "queued", ReceivedAt: time.Now(), Job: router.Job{
			ID: 6, RunID: 8, Attempt: 1, Name: "hush", Workflow: "hush", Labels: []string{"linux", "hush"},
			Repo: router.Repo{Owner: "hush", Name: "hush", FullName: "hush/hush", Private: true},
		}})
		if err != nil {
			t.Fatal(err)
		}
	})
	err := web.Router(web.Config{Rulebook: book}).Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		methods, err := route.GetMethods()
		if err != nil {
			return err
		}
		if slices.Contains(open, path) {
			return nil
		}
		target := strings.NewReplacer("/jobs/{id}", "/jobs/1", "/runners/{id}", "/runners/gha-1-1", "{id}", "1", "{file}", "rules.yaml", "{name}", "rules.yaml").Replace(path)
		for _, method := range methods {
			api := strings.HasPrefix(path, web.Prefix)
			want := http.StatusUnauthorized
			if !api && method != http.MethodPost {
				want = http.StatusSeeOther
			}
			got := s.ask(method, target, "")
			if got.Code != want || want == http.StatusSeeOther && got.Header().Get("Location") != "/login?"+(url.Values{"next": {target}}).Encode() {
				t.Errorf("%s %s by nobody = %d to %q, want %d", method, path, got.Code, got.Header().Get("Location"), want)
			}
			if strings.HasSuffix(path, "/events") {
				continue // it streams
			}
			base := strings.TrimPrefix(path, web.Prefix)
			change := method == http.MethodPost && !slices.Contains(forAll, base)
			if change {
				if got := s.ask(method, target, "viewer"); got.Code != http.StatusForbidden {
					t.Errorf("%s %s by a viewer = %d, want 403", method, path, got.Code)
				}
				if got := s.ask(method, target, "other operator"); got.Code < 400 {
					t.Errorf("%s %s by an operator who does not see it = %d %s", method, path, got.Code, got.Body)
				}
			}
			if method != http.MethodGet {
				continue
			}
			got = s.ask(method, target, "other viewer")
			if (strings.Contains(path, "/jobs/{id}") || strings.Contains(path, "/runners/{id}")) && got.Code != http.StatusNotFound && got.Code != http.StatusForbidden {
				t.Errorf("%s %s by a viewer who does not see it = %d, want 404", method, path, got.Code)
			}
			if strings.Contains(got.Body.String(), "hush") {
				t.Errorf("%s %s shows hush/hush to a viewer of other/*: %s", method, path, got.Body)
			}
			seen = seen || strings.Contains(s.ask(method, target, "viewer").Body.String(), "hush")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !seen {
		t.Error("nobody sees hush/hush: the test proves nothing")
	}
	if s.app.did != nil {
		t.Errorf("somebody who may not had this done: %q", s.app.did)
	}
	for target, want := range map[string]int{"/nothing": http.StatusSeeOther, "/api/v1/nothing": http.StatusUnauthorized, "/assets/nothing": http.StatusNotFound} {
		if got := s.ask("GET", target, ""); got.Code != want {
			t.Errorf("GET %s by nobody = %d, want %d", target, got.Code, want)
		}
	}
}

// as sends a token.
func as(token string) func(*http.Request) {
	return func(req *http.Request) { req.Header.Set("Authorization", "Bearer "+token) }
}

// form is a body of a form.
func form(pairs ...string) func(*http.Request) {
	return func(req *http.Request) {
		v := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		*req = *httptest.NewRequest(req.Method, req.URL.String(), strings.NewReader(v.Encode())).WithContext(req.Context())
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", "http://yard.example")
	}
}

// cookies sends back what an answer set.
func cookies(from *httptest.ResponseRecorder) func(*http.Request) {
	return func(req *http.Request) {
		for _, c := range from.Result().Cookies() {
			if c.MaxAge >= 0 {
				req.AddCookie(c)
			}
		}
	}
}

func TestALogInLastsUntilItsEnd(t *testing.T) {
	acc, now := staff(), t0
	s := guarded(t, func(c *web.Config) {
		c.Access = func() (*web.Access, error) { return acc, nil }
		c.Now = func() time.Time { return now }
	})
	wrong := s.ask("POST", "/login", "", form("token", "nobody's", "next", "/jobs"))
	if wrong.Code != http.StatusUnauthorized || len(wrong.Result().Cookies()) != 0 || !strings.Contains(wrong.Body.String(), "not one of the server") {
		t.Errorf("a wrong token = %d %v %s", wrong.Code, wrong.Result().Cookies(), wrong.Body)
	}
	in := s.ask("POST", "/login", "", form("token", "operator", "next", "/jobs?state=running"))
	if in.Code != http.StatusSeeOther || in.Header().Get("Location") != "/jobs?state=running" {
		t.Fatalf("log in = %d to %q: %s", in.Code, in.Header().Get("Location"), in.Body)
	}
	c := in.Result().Cookies()[0]
	if c.Name != "switchyard" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" {
		t.Errorf("the cookie without TLS is %v", c)
	}
	get := func(want int) string {
		t.Helper()
		rec := s.ask("GET", "/", "", cookies(in))
		if rec.Code != want {
			t.Errorf("GET / = %d, want %d", rec.Code, want)
		}
		return rec.Body.String()
	}
	if body := get(http.StatusOK); !strings.Contains(body, "Log out") {
		t.Errorf("the page offers no log-out: %s", body)
	}
	now = now.Add(59 * time.Minute)
	get(http.StatusOK)
	now = now.Add(61 * time.Minute)
	get(http.StatusSeeOther) // it was not used for an hour

	in = s.ask("POST", "/login", "", form("token", "operator"))
	for range 12 {
		now = now.Add(59 * time.Minute)
		get(http.StatusOK)
	}
	now = now.Add(59 * time.Minute)
	get(http.StatusSeeOther) // it began twelve hours ago

	in = s.ask("POST", "/login", "", form("token", "operator"))
	out := s.ask("POST", "/logout", "", form(), cookies(in))
	if out.Code != http.StatusSeeOther {
		t.Errorf("log out = %d", out.Code)
	}
	get(http.StatusSeeOther)

	in = s.ask("POST", "/login", "", form("token", "operator"))
	get(http.StatusOK)
	acc = &web.Access{Tokens: slices.DeleteFunc(staff().Tokens, func(t web.Token) bool { return t.Name == "operator" })}
	get(http.StatusSeeOther) // its token is good no more
}

func TestTheCookieIsOfThisHostOverTLS(t *testing.T) {
	s := guarded(t)
	in := s.ask("POST", "/login", "", form("token", "viewer"), func(req *http.Request) { req.Header.Set("X-Forwarded-Proto", "https") })
	c := in.Result().Cookies()[0]
	if c.Name != "__Host-switchyard" || !c.Secure || in.Header().Get("Strict-Transport-Security") == "" {
		t.Errorf("the cookie is %v, the headers %v", c, in.Header())
	}
}

func TestTheLogInGoesToThisServerOnly(t *testing.T) {
	s := guarded(t)
	for next, want := range map[string]string{
		"https://evil.example/": "/", "//evil.example": "/", `/\evil.example`: "/", "/\t/evil.example": "/", "/\n/evil.example": "/",
		"/jobs?label=" + strings.Repeat("x", 3000): "/", "/jobs?label=%09a+b": "/jobs?label=%09a+b", "/login?next=/": "/", "": "/", "/jobs/1": "/jobs/1",
	} {
		if got := s.ask("POST", "/login", "", form("token", "viewer", "next", next)).Header().Get("Location"); got != want {
			t.Errorf("next=%q goes to %q, want %q", next, got, want)
		}
	}
}

func TestOtherSitesChangeNothing(t *testing.T) {
	s := guarded(t)
	in := s.ask("POST", "/login", "", form("token", "editor"))
	for _, target := range []string{"/login", "/logout", "/jobs/1/retry", "/api/v1/jobs/1/retry"} {
		got := s.ask("POST", target, "", form("token", "editor"), cookies(in), func(req *http.Request) { req.Header.Set("Origin", "https://evil.example") })
		if got.Code != http.StatusForbidden {
			t.Errorf("POST %s of another site = %d, want 403", target, got.Code)
		}
	}
	if s.app.did != nil {
		t.Errorf("another site had this done: %q", s.app.did)
	}
}

func TestGuessesAreLimited(t *testing.T) {
	s := guarded(t)
	for i := range 10 {
		if got := s.ask("POST", "/login", "", form("token", "guess")); got.Code != http.StatusUnauthorized {
			t.Fatalf("guess %d = %d, want 401", i+1, got.Code)
		}
	}
	got := s.ask("POST", "/login", "", form("token", "viewer"))
	if got.Code != http.StatusTooManyRequests || got.Header().Get("Retry-After") != "6" {
		t.Errorf("after ten guesses = %d, Retry-After %q; want 429 and 6", got.Code, got.Header().Get("Retry-After"))
	}
	if got := s.ask("GET", "/api/v1/jobs", "guess"); got.Code != http.StatusTooManyRequests {
		t.Errorf("an eleventh guess by the API = %d, want 429", got.Code)
	}
	if got := s.ask("GET", "/api/v1/jobs", "viewer"); got.Code != http.StatusOK {
		t.Errorf("a right token = %d, want 200", got.Code)
	}
}

// A machine has a whole network of IPv6 addresses, and its next address is no way around.
func TestGuessesFromOneNetworkAreLimitedTogether(t *testing.T) {
	s := guarded(t)
	from := func(address string) int {
		return s.ask("GET", "/api/v1/jobs", "guess", func(req *http.Request) { req.RemoteAddr = address }).Code
	}
	for i := range 10 {
		if got := from(fmt.Sprintf("[2001:db8::%x]:1", i)); got != http.StatusUnauthorized {
			t.Fatalf("guess %d = %d, want 401", i+1, got)
		}
	}
	if got := from("[2001:db8::ffff:1]:1"); got != http.StatusTooManyRequests {
		t.Errorf("from another address of the network = %d, want 429", got)
	}
	for _, other := range []string{"[2001:db8:0:1::1]:1", "[::ffff:192.0.2.9]:1"} {
		if got := from(other); got != http.StatusUnauthorized {
			t.Errorf("from %s = %d, want 401", other, got)
		}
	}
}

func TestWhatIsDoneIsAudited(t *testing.T) {
	s := guarded(t)
	s.ask("POST", "/api/v1/jobs/1/retry", "operator")
	s.ask("POST", "/runners/gha-1-1/stop", "operator")
	s.ask("POST", "/api/v1/sync", "editor", func(req *http.Request) {
		*req = *httptest.NewRequest("POST", "/api/v1/sync", strings.NewReader(`{"repo": "acme/app"}`))
		req.Header.Set("Authorization", "Bearer editor")
	})
	s.app.fail = &router.ConflictError{Reason: "job 1 runs already"}
	s.ask("POST", "/api/v1/jobs/1/cancel", "editor")
	s.ask("POST", "/login", "", form("token", "guess"))
	if got := s.ask("GET", "/api/v1/audit", "operator"); got.Code != http.StatusForbidden {
		t.Errorf("the audit trail for an operator = %d, want 403", got.Code)
	}
	var got []string
	first := decode[web.AuditList](t, s.call("GET", "/audit?limit=2", http.StatusOK, as("editor")))
	rest := decode[web.AuditList](t, s.call("GET", "/audit?cursor="+first.NextCursor, http.StatusOK, as("editor")))
	for _, a := range append(first.Audits, rest.Audits...) {
		got = append(got, strings.Join([]string{a.Who, a.Did, a.What, a.Result}, " | "))
	}
	want := []string{
		"somebody | log in |  | the token was wrong",
		"editor | cancel | jobs/1 | job 1 runs already",
		"editor | sync | acme/app | ok",
		"operator | stop | runners/gha-1-1 | ok",
		"operator | retry | jobs/1 | ok",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the audit trail (-want +got):\n%s", diff)
	}
	if page := s.ask("GET", "/audit", "editor").Body.String(); !strings.Contains(page, "acme/app") {
		t.Errorf("the page of the audit trail: %s", page)
	}
}

func TestTheAccessFileSaysItsFaultsAtTheirPlaces(t *testing.T) {
	const good = "tokens:\n  - { name: a, sha256: 2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90, role: viewer, repos: [acme/*, ghe.example/acme/web] }\n"
	acc, err := web.ParseAccess("access.yaml", []byte(good))
	if err != nil || acc.Tokens[0].Role != web.Viewer || len(acc.Tokens[0].Repos) != 2 {
		t.Fatalf("ParseAccess = %+v, %v", acc, err)
	}
	for _, c := range []struct{ src, want string }{
		{"", "access.yaml:1:1: nobody may log in: want tokens or oidc"},
		{strings.TrimPrefix(good, "tokens:\n"), "access.yaml:1:3: the entries of tokens stand below a line tokens:, which is missing"},
		{"tokens: [{nam: a}]", `access.yaml:1:11: unknown field "nam"`},
		{"tokens:\n  - name: a\n    sha256: 12\n    role: viewer\n", "access.yaml:3:13: want the SHA-256"},
		{"tokens:\n  - name: a\n    role: admin\n", `access.yaml:3:11: role "admin": want viewer, operator or editor`},
		{strings.Replace(good, "acme/*", "acme", 1), `access.yaml:2:112: repository "acme": want owner/name`},
		{strings.Replace(good, "role: viewer", "role: editor", 1), "an editor changes the rules for all"},
		{good + strings.Split(good, "\n")[1] + "\n", "access.yaml:3:13: there are two tokens named a"},
		{good + strings.Replace(strings.Split(good, "\n")[1], "name: a", "name: b", 1) + "\n", "access.yaml:3:24: this is the token of a too"},
		{strings.Replace(good, "[acme/*, ghe.example/acme/web]", "[]", 1), "repos is empty"},
		{strings.Replace(good, "[acme/*, ghe.example/acme/web]", "", 1), "repos is empty"},
		{strings.Replace(good, "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 1), "this is the hash of nothing"},
		{"oidc:\n  issuer: http://login.example\n  client_id: x\n  url: https://yard.example\n  roles: [{group: a, role: viewer}]\n", "access.yaml:2:11: issuer"},
		{"oidc:\n  issuer: https://login.example\n  url: https://yard.example/path\n", "access.yaml:3:8: url"},
	} {
		_, err := web.ParseAccess("access.yaml", []byte(c.src))
		if found, ok := err.(rules.Diagnostics); !ok || !strings.Contains(found.Error(), c.want) {
			t.Errorf("ParseAccess(%q) = %v, want %q", c.src, err, c.want)
		}
	}
}

// What the README has for an access file is one.
func TestTheAccessFileOfTheREADME(t *testing.T) {
	src, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(src), "```yaml\noidc:")
	block, _, _ = strings.Cut(block, "```")
	acc, err := web.ParseAccess("README.md", []byte("oidc:"+block))
	if err != nil || len(acc.Tokens) == 0 || acc.OIDC == nil {
		t.Errorf("ParseAccess = %+v, %v", acc, err)
	}
}
