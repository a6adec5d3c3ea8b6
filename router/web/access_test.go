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
	"switchyard/router/store/postgrestest"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/rules"
)

// tokenOf returns the token of this name.
func tokenOf(name string) string { return "token of " + name }

// staff are tokens by their names: one of each role, and a viewer and an
// operator of another team.
func staff() *auth.Access {
	acc := &auth.Access{}
	for name, t := range map[string]auth.Token{
		"viewer": {Role: auth.Viewer}, "operator": {Role: auth.Operator}, "editor": {Role: auth.Editor},
		"other viewer": {Role: auth.Viewer, Repos: router.Scope{"other/*"}}, "other operator": {Role: auth.Operator, Repos: router.Scope{"other/*"}},
	} {
		t.Name, t.SHA256 = name, sha256.Sum256([]byte(tokenOf(name)))
		acc.Tokens = append(acc.Tokens, t)
	}
	return acc
}

// guarded is a server that asks who somebody is.
func guarded(t *testing.T, change ...func(*web.Config)) *server {
	acc := staff()
	return serve(t, append([]func(*web.Config){func(c *web.Config) {
		c.Access = func() (*auth.Access, error) { return acc, nil }
		c.Audit = c.Database.(placeless).Store
	}}, change...)...)
}

// ask sends a request with the token of this name; "": without one.
func (s *server) ask(method, target, name string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	s.t.Helper()
	req := httptest.NewRequest(method, "http://yard.example"+target, strings.NewReader(""))
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", "http://yard.example")
	}
	if name != "" {
		as(name)(req)
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
		_, err := c.Database.(placeless).Receive(t.Context(), router.Delivery{ID: "6", Action: "queued", Status: "queued", ReceivedAt: time.Now(), Job: router.Job{
			ID: 6, RunID: 8, Attempt: 1, Name: "hush", Workflow: "hush", Labels: []string{"linux", "hush"},
			Repo: router.Repo{Owner: "hush", Name: "hush", FullName: "hush/hush", Private: true},
		}})
		must(t, err)
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
			isAPI := strings.HasPrefix(path, api.Prefix)
			want := http.StatusUnauthorized
			if !isAPI && method != http.MethodPost {
				want = http.StatusSeeOther
			}
			got := s.ask(method, target, "")
			if got.Code != want || want == http.StatusSeeOther && got.Header().Get("Location") != "/login?"+(url.Values{"next": {target}}).Encode() {
				t.Errorf("%s %s by nobody = %d to %q, want %d", method, path, got.Code, got.Header().Get("Location"), want)
			}
			if strings.HasSuffix(path, "/events") {
				continue // it streams
			}
			base := strings.TrimPrefix(path, api.Prefix)
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
	must(t, err)
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

// A profile is of all that the process does.
func TestAProfileIsForOperatorsWhoSeeAll(t *testing.T) {
	s := guarded(t)
	for name, want := range map[string]int{"viewer": http.StatusForbidden, "other operator": http.StatusForbidden, "operator": http.StatusOK, "editor": http.StatusOK} {
		for path, says := range map[string]string{"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile: total", "/debug/pprof/trace?seconds=0.01": "go 1."} {
			if got := s.ask("GET", path, name); got.Code != want || strings.Contains(got.Body.String(), says) != (want == http.StatusOK) {
				t.Errorf("GET %s by %s = %d, want %d: %.200s", path, name, got.Code, want, got.Body)
			}
		}
	}
	if got := s.ask("GET", "/debug/pprof/nothing", "operator"); got.Code != http.StatusNotFound {
		t.Errorf("a profile that there is not = %d", got.Code)
	}
}

// as adds the token of this name.
func as(name string) func(*http.Request) {
	return func(req *http.Request) { req.Header.Set("Authorization", "Bearer "+tokenOf(name)) }
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
	t.Run("in this process", func(t *testing.T) { logInLasts(t, nil, func() {}) })
	t.Run("in PostgreSQL", func(t *testing.T) {
		st := openPostgres(t, postgrestest.URL(t))
		logInLasts(t, st.Sessions(), func() { must(t, st.SetMark(t.Context(), "settled", "")) }) // after what was recorded in the background
	})
}

func logInLasts(t *testing.T, sessions auth.SessionStore, settle func()) {
	acc, now := staff(), t0
	s := guarded(t, func(c *web.Config) {
		c.Access = func() (*auth.Access, error) { return acc, nil }
		c.Now = func() time.Time { return now }
		c.Sessions = sessions
	})
	wrong := s.ask("POST", "/login", "", form("token", "nobody's", "next", "/jobs"))
	if wrong.Code != http.StatusUnauthorized || len(wrong.Result().Cookies()) != 0 || !strings.Contains(wrong.Body.String(), "not one of the server") {
		t.Errorf("a wrong token = %d %v %s", wrong.Code, wrong.Result().Cookies(), wrong.Body)
	}
	in := s.ask("POST", "/login", "", form("token", tokenOf("operator"), "next", "/jobs?state=running"))
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
		settle()
		return rec.Body.String()
	}
	if body := get(http.StatusOK); !strings.Contains(body, "Log out") {
		t.Errorf("the page offers no log-out: %s", body)
	}
	now = now.Add(59 * time.Minute)
	get(http.StatusOK)
	now = now.Add(61 * time.Minute)
	get(http.StatusSeeOther) // it was not used for an hour

	in = s.ask("POST", "/login", "", form("token", tokenOf("operator")))
	for range 12 {
		now = now.Add(59 * time.Minute)
		get(http.StatusOK)
	}
	now = now.Add(59 * time.Minute)
	get(http.StatusSeeOther) // it began twelve hours ago

	in = s.ask("POST", "/login", "", form("token", tokenOf("operator")))
	out := s.ask("POST", "/logout", "", form(), cookies(in))
	if out.Code != http.StatusSeeOther {
		t.Errorf("log out = %d", out.Code)
	}
	get(http.StatusSeeOther)

	in = s.ask("POST", "/login", "", form("token", tokenOf("operator")))
	get(http.StatusOK)
	acc = &auth.Access{Tokens: slices.DeleteFunc(staff().Tokens, func(t auth.Token) bool { return t.Name == "operator" })}
	get(http.StatusSeeOther) // its token is good no more
}

func TestTheCookieIsOfThisHostOverTLS(t *testing.T) {
	s := guarded(t)
	in := s.ask("POST", "/login", "", form("token", tokenOf("viewer")), func(req *http.Request) { req.Header.Set("X-Forwarded-Proto", "https") })
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
		if got := s.ask("POST", "/login", "", form("token", tokenOf("viewer"), "next", next)).Header().Get("Location"); got != want {
			t.Errorf("next=%q goes to %q, want %q", next, got, want)
		}
	}
}

func TestOtherSitesChangeNothing(t *testing.T) {
	s := guarded(t)
	in := s.ask("POST", "/login", "", form("token", tokenOf("editor")))
	for _, target := range []string{"/login", "/logout", "/jobs/1/retry", "/api/v1/jobs/1/retry"} {
		got := s.ask("POST", target, "", form("token", tokenOf("editor")), cookies(in), func(req *http.Request) { req.Header.Set("Origin", "https://evil.example") })
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
	got := s.ask("POST", "/login", "", form("token", "guess"))
	if got.Code != http.StatusTooManyRequests || got.Header().Get("Retry-After") != "6" {
		t.Errorf("after ten guesses = %d, Retry-After %q; want 429 and 6", got.Code, got.Header().Get("Retry-After"))
	}
	if got := s.ask("GET", "/api/v1/jobs", "guess"); got.Code != http.StatusTooManyRequests {
		t.Errorf("an eleventh guess by the API = %d, want 429", got.Code)
	}
	if got := s.ask("GET", "/api/v1/jobs", "viewer"); got.Code != http.StatusOK {
		t.Errorf("a right token = %d, want 200", got.Code)
	}
	if got := s.ask("POST", "/login", "", form("token", tokenOf("viewer"))); got.Code != http.StatusSeeOther {
		t.Errorf("a log-in by a right token = %d, want 303: %s", got.Code, got.Body)
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

// trail is the audit trail, the newest first, a line for each.
func (s *server) trail() (lines []string) {
	s.t.Helper()
	for cursor := ""; ; {
		page := decode[api.AuditList](s.t, s.call("GET", "/audit?limit=200"+cursor, http.StatusOK, as("editor")))
		for _, a := range page.Audits {
			lines = append(lines, strings.Join([]string{a.Who, a.By, a.From, a.Did, a.What, a.Result}, " | "))
		}
		if page.NextCursor == "" {
			return lines
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

func TestWhatIsDoneIsAudited(t *testing.T) {
	s := guarded(t)
	s.ask("POST", "/api/v1/jobs/1/retry", "operator")
	s.ask("POST", "/runners/gha-1-1/stop", "operator")
	s.ask("POST", "/runners/gha-1-1/stop", "", form("force", "true"), as("operator"))
	s.ask("POST", "/api/v1/runners/gha-1-1/stop?force=true", "operator", func(req *http.Request) { req.RemoteAddr = "[2001:db8::7]:1" })
	s.ask("POST", "/jobs/1/cancel", "", form("run", "true"), as("operator"))
	s.ask("POST", "/api/v1/jobs/1/cancel?run=true", "operator", func(req *http.Request) { req.Header.Set("X-Forwarded-For", "6.6.6.6, 198.51.100.7") })
	for _, body := range []string{`{"repo": "acme/app"}`, `{"repo": "acme/app", "host": "ghe.example"}`} {
		s.ask("POST", "/api/v1/sync", "", func(req *http.Request) {
			*req = *httptest.NewRequest("POST", "/api/v1/sync", strings.NewReader(body))
			as("editor")(req)
		})
	}
	s.app.fail = &router.ConflictError{Reason: "job 1 runs already"}
	s.ask("POST", "/api/v1/jobs/1/cancel", "editor")
	s.ask("POST", "/login", "", form("token", "guess"))
	if got := s.ask("GET", "/api/v1/audit", "operator"); got.Code != http.StatusForbidden {
		t.Errorf("the audit trail for an operator = %d, want 403", got.Code)
	}
	if page := decode[api.AuditList](t, s.call("GET", "/audit?limit=2", http.StatusOK, as("editor"))); len(page.Audits) != 2 || page.NextCursor == "" {
		t.Errorf("a page of two is %+v", page)
	}
	want := []string{
		"operator | token | 192.0.2.1 | refused | GET /api/v1/audit | 403: operator has the role operator; this needs the role editor",
		"somebody |  | 192.0.2.1 | log in |  | the token was wrong",
		"editor | token | 192.0.2.1 | cancel | jobs/1 | job 1 runs already",
		"editor | token | 192.0.2.1 | sync | ghe.example/acme/app | ok",
		"editor | token | 192.0.2.1 | sync | acme/app | ok",
		"operator | token | 192.0.2.1 for 198.51.100.7 | cancel | jobs/1, with its whole run on GitHub | ok",
		"operator | token | 192.0.2.1 | cancel | jobs/1, with its whole run on GitHub | ok",
		"operator | token | 2001:db8::7 | stop | runners/gha-1-1, by force | ok",
		"operator | token | 192.0.2.1 | stop | runners/gha-1-1, by force | ok",
		"operator | token | 192.0.2.1 | stop | runners/gha-1-1 | ok",
		"operator | token | 192.0.2.1 | retry | jobs/1 | ok",
	}
	if diff := cmp.Diff(want, s.trail()); diff != "" {
		t.Errorf("the audit trail (-want +got):\n%s", diff)
	}
	if page := s.ask("GET", "/audit", "editor").Body.String(); !strings.Contains(page, "acme/app") || !strings.Contains(page, "198.51.100.7") {
		t.Errorf("the page of the audit trail: %s", page)
	}
}

// Whoever has no right fills neither the database nor the log, and hides nothing
// of what others did: what was left out is counted.
func TestRefusalsAreRecordedWithinBounds(t *testing.T) {
	now := t0
	s := guarded(t, func(c *web.Config) { c.Now = func() time.Time { return now } })
	from := func(address string) func(*http.Request) {
		return func(req *http.Request) { req.RemoteAddr = address }
	}
	for range 1000 {
		s.ask("GET", "/api/v1/jobs", "guess")
		s.ask("POST", "/login", "", form("token", "guess"))
		s.ask("POST", "/api/v1/jobs/1/retry", "viewer")
	}
	s.ask("POST", "/api/v1/jobs/1/retry", "operator", from("192.0.2.1:1"))
	for i := range 1000 {
		s.ask("GET", "/api/v1/jobs", "guess", from(fmt.Sprintf("198.51.%d.%d:1", i/250, i%250)))
	}
	got := s.trail()
	if len(got) > 102 {
		t.Errorf("%d refusals in no time are %d records, want at most 101", 4000, len(got))
	}
	for _, want := range []string{
		"somebody |  | 192.0.2.1 | refused | GET /api/v1/jobs | 401: the token was wrong",
		"somebody |  | 192.0.2.1 | log in |  | the token was wrong",
		"viewer | token | 192.0.2.1 | refused | POST /api/v1/jobs/1/retry | 403: viewer has the role viewer",
		"operator | token | 192.0.2.1 | retry | jobs/1 | ok",
	} {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("the audit trail lacks %q:\n%s", want, strings.Join(got, "\n"))
		}
	}
	if lines := strings.Count(s.log.String(), "an operator did something, or was refused"); lines > 101 {
		t.Errorf("the log has %d lines of them", lines)
	}
	now = now.Add(time.Hour)
	s.ask("GET", "/api/v1/jobs", "guess")
	if got := s.trail()[0]; !strings.Contains(got, "before it were not recorded)") {
		t.Errorf("the next refusal does not say how many were left out: %s", got)
	}
	for range 20 {
		s.ask("GET", "/api/v1/jobs", "guess")
	}
	if got := strings.Join(s.trail(), "\n"); !strings.Contains(got, "429: too many wrong tokens") {
		t.Errorf("the audit trail has no 429:\n%s", got)
	}
}

func TestTheAccessFileSaysItsFaultsAtTheirPlaces(t *testing.T) {
	const good = "tokens:\n  - { name: a, sha256: 2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90, role: viewer, repos: [acme/*, ghe.example/acme/web] }\n"
	acc, err := auth.ParseAccess("access.yaml", []byte(good))
	if err != nil || acc.Tokens[0].Role != auth.Viewer || len(acc.Tokens[0].Repos) != 2 {
		t.Fatalf("ParseAccess = %+v, %v", acc, err)
	}
	for _, c := range []struct{ src, want string }{
		{"", "access.yaml:1:1: nobody may log in: want tokens or oidc"},
		{strings.TrimPrefix(good, "tokens:\n"), "access.yaml:1:3: the entries belong below a line tokens:, which is missing"},
		{"tokens: [{nam: a}]", `access.yaml:1:11: unknown field "nam"`},
		{"tokens:\n  - name: a\n    sha256: 12\n    role: viewer\n", "access.yaml:3:13: want the SHA-256"},
		{"tokens:\n  - name: a\n    role: admin\n", `access.yaml:3:11: role "admin": want viewer, operator or editor`},
		{strings.Replace(good, "acme/*", "acme", 1), `access.yaml:2:112: repository "acme": want owner/name`},
		{strings.Replace(good, "role: viewer", "role: editor", 1), "an editor changes the rules for all"},
		{good + strings.Split(good, "\n")[1] + "\n", "access.yaml:3:13: there are two tokens named a"},
		{good + strings.Replace(strings.Split(good, "\n")[1], "name: a", "name: b", 1) + "\n", "access.yaml:3:24: this is also the token of a"},
		{strings.Replace(good, "[acme/*, ghe.example/acme/web]", "[]", 1), "access.yaml:2:111: repos is empty: list the repositories, or write repos: all"},
		{strings.Replace(good, "[acme/*, ghe.example/acme/web]", "", 1), "repos is empty"},
		{strings.Replace(good, "[acme/*, ghe.example/acme/web]", "null", 1), "repos is empty"},
		{strings.Replace(good, "[acme/*, ghe.example/acme/web]", "ALL", 1), `access.yaml:2:111: repository "ALL": want owner/name`},
		{strings.Replace(good, "[acme/*, ghe.example/acme/web]", "{}", 1), `access.yaml:2:111: repository "{}": want owner/name`},
		{strings.Replace(good, "[acme/*, ghe.example/acme/web]", "[acme/*, all]", 1), `repository "all": want owner/name`},
		{strings.Replace(good, ", repos: [acme/*, ghe.example/acme/web]", "", 1), "access.yaml:2:5: repos is missing: list the repositories, or write repos: all"},
		{strings.Replace(good, "name: a", "name: ' a'", 1), "without blanks around it"},
		{strings.Replace(good, "name: a", "name: GitHub", 1), "access.yaml:2:13: the name GitHub is reserved in the audit trail"},
		{strings.Replace(good, "name: a", "name: Local", 1), "the name Local is reserved in the audit trail"},
		{strings.Replace(good, "name: a", "name: a (subject 7)", 1), "the name a (subject 7) is reserved in the audit trail"},
		{strings.Replace(good, "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", 1), "access.yaml:2:24: this is the hash of one or two characters"},
		{strings.Replace(good, "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90", "36a9e7f1c95b82ffb99743e0c5c4ce95d83c9a430aac59f84ef3cbfab6145068", 1), "this is the hash of one or two characters"},
		{"oidc:\n  issuer: https://login.example\n  client_id: x\n  url: https://yard.example\n  roles:\n    - group: a\n      role: operator\n", "access.yaml:6:12: repos is missing"},
		{strings.Replace(good, "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 1), "this is the hash of an empty token"},
		{"oidc:\n  issuer: http://login.example\n  client_id: x\n  url: https://yard.example\n  roles: [{group: a, role: viewer}]\n", "access.yaml:2:11: issuer"},
		{"oidc:\n  issuer: https://login.example\n  url: https://yard.example/path\n", "access.yaml:3:8: url"},
	} {
		_, err := auth.ParseAccess("access.yaml", []byte(c.src))
		if found, ok := err.(rules.Diagnostics); !ok || !strings.Contains(found.Error(), c.want) {
			t.Errorf("ParseAccess(%q) = %v, want %q", c.src, err, c.want)
		}
	}
}

// A file that is cut off, as while it is written, widens what nobody sees.
func TestAnAccessFileThatIsCutOffWidensNothing(t *testing.T) {
	hash := func(i int) string { return strings.Repeat(fmt.Sprintf("%02x", i), 32) }
	for end, cut := range map[string]bool{"acme/web": true, "[acme/web]": false, "all": false, "acme/web\n": false, "\n      - acme/web": true, "\n      - acme/web\n": false} {
		_, err := auth.ParseAccess("access.yaml", []byte("tokens:\n  - name: a\n    sha256: "+hash(1)+"\n    role: viewer\n    repos: "+end))
		if (err != nil) != cut || cut && !strings.Contains(err.Error(), "the file ends within a line") {
			t.Errorf("a file that ends in %q: %v", end, err)
		}
	}
	src := "oidc:\n  issuer: https://login.example\n  client_id: x\n  url: https://yard.example\n  roles:\n" +
		"    - group: web\n      role: operator\n      repos: [acme/web]\n    - { group: all, role: viewer, repos: all }\n    - { group: platform, role: editor }\n" +
		"tokens:\n  - name: a\n    sha256: " + hash(1) + "\n    role: viewer\n    repos:\n      - acme/web\n      - acme/app\n" +
		"  - { name: b, sha256: " + hash(2) + ", role: operator, repos: all }\n  - { name: c, sha256: " + hash(3) + ", role: viewer, repos: [acme/web] }\n"
	whole, err := auth.ParseAccess("access.yaml", []byte(src))
	must(t, err)
	if b := whole.Tokens[1]; b.Repos != nil || len(whole.Tokens[0].Repos) != 2 || whole.OIDC.Roles[1].Repos != nil {
		t.Errorf("the whole file is %+v", whole)
	}
	within := func(part, all router.Scope) bool {
		return all == nil || part != nil && !slices.ContainsFunc(part, func(r string) bool { return !slices.Contains(all, r) })
	}
	good := 0
	for n := range len(src) {
		acc, err := auth.ParseAccess("access.yaml", []byte(src[:n]))
		if err != nil {
			continue
		}
		good++
		for i, t1 := range acc.Tokens {
			if of := whole.Tokens[i]; t1.Role > of.Role || !within(t1.Repos, of.Repos) {
				t.Errorf("cut off after %q, %s has %v of %v, want %v of %v", src[max(0, n-20):n], t1.Name, t1.Role, t1.Repos, of.Role, of.Repos)
			}
		}
		if acc.OIDC != nil {
			for i, r := range acc.OIDC.Roles {
				if of := whole.OIDC.Roles[i]; r.Group != of.Group && r.Role == auth.Editor || r.Role > of.Role || !within(r.Repos, of.Repos) {
					t.Errorf("cut off after %q, the group %s has %v of %v, want %v of %v", src[max(0, n-20):n], r.Group, r.Role, r.Repos, of.Role, of.Repos)
				}
			}
		}
	}
	if good == 0 {
		t.Error("no file that is cut off can be read: the test proves nothing")
	}
}

func TestATokenThatIsEasilyGuessedIsNone(t *testing.T) {
	for _, token := range []string{"x", " ", "        ", "1234567"} {
		acc := &auth.Access{Tokens: []auth.Token{{Name: "short", SHA256: sha256.Sum256([]byte(token)), Role: auth.Editor}}}
		s := guarded(t, func(c *web.Config) { c.Access = func() (*auth.Access, error) { return acc, nil } })
		if got := s.ask("GET", "/api/v1/jobs", "", func(req *http.Request) { req.Header.Set("Authorization", "Bearer "+token) }); got.Code != http.StatusUnauthorized {
			t.Errorf("the token %q = %d", token, got.Code)
		}
		if got := s.ask("POST", "/login", "", form("token", token)); got.Code != http.StatusUnauthorized || !strings.Contains(got.Body.String(), "A token needs at least 8 characters") {
			t.Errorf("a log-in by the token %q = %d %s", token, got.Code, got.Body)
		}
	}
}

// What the README has for an access file is one.
func TestTheAccessFileOfTheREADME(t *testing.T) {
	src, err := os.ReadFile("README.md")
	must(t, err)
	_, block, _ := strings.Cut(string(src), "```yaml\noidc:")
	block, _, _ = strings.Cut(block, "```")
	acc, err := auth.ParseAccess("README.md", []byte("oidc:"+block))
	if err != nil || len(acc.Tokens) == 0 || acc.OIDC == nil {
		t.Errorf("ParseAccess = %+v, %v", acc, err)
	}
}

// Who sees some repositories is not told that there are no jobs.
func TestAnEmptyPageSaysOfWhoseRepositories(t *testing.T) {
	var c web.Config
	serve(t, func(served *web.Config) { c = *served })
	for path, want := range map[string]string{
		"/jobs":    "No job of the repositories that you may see was reported yet.",
		"/runners": "No runner was started yet for the repositories that you may see.",
	} {
		if body := web.PageFor(c, path, router.Scope{"beta/*"}); !strings.Contains(body, want) || strings.Contains(body, "webhook") {
			t.Errorf("%s has no %q: %s", path, want, body)
		}
		if body := web.PageFor(c, path, nil); strings.Contains(body, "that you may see") {
			t.Errorf("%s has a scope for who sees everything: %s", path, body)
		}
	}
}
