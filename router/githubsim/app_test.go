package githubsim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// signedJWT signs claims that differ by change from good ones.
func signedJWT(t *testing.T, key *rsa.PrivateKey, alg string, now time.Time, change func(claims object)) string {
	t.Helper()
	claims := object{"iss": "17", "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(9 * time.Minute).Unix()}
	if change != nil {
		change(claims)
	}
	part := func(v object) string { return base64.RawURLEncoding.EncodeToString(mustJSON(v)) }
	text := part(object{"alg": alg, "typ": "JWT"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func newRSAKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestOnlyAGoodJWTIsTheApp(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	key, other := newRSAKey(t), newRSAKey(t)
	s := newSim(t, Config{Token: "t", App: &App{ID: 17, Key: &key.PublicKey}, Now: func() time.Time { return now }})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	s.Install("acme")
	claim := func(name string, v any) func(object) { return func(c object) { c[name] = v } }
	for _, tt := range []struct {
		name, jwt string
		status    int
		says      string
	}{
		{"a good one", signedJWT(t, key, "RS256", now, nil), 200, ""},
		{"a number as issuer", signedJWT(t, key, "RS256", now, claim("iss", 17)), 200, ""},
		{"10 minutes", signedJWT(t, key, "RS256", now, claim("exp", now.Add(10*time.Minute).Unix())), 200, ""},
		{"another key", signedJWT(t, other, "RS256", now, nil), 401, "could not be decoded"},
		{"another algorithm", signedJWT(t, key, "HS256", now, nil), 401, "could not be decoded"},
		{"another App", signedJWT(t, key, "RS256", now, claim("iss", "18")), 404, "Integration not found"},
		{"no issuer", signedJWT(t, key, "RS256", now, func(c object) { delete(c, "iss") }), 404, "Integration not found"},
		{"over 10 minutes", signedJWT(t, key, "RS256", now, claim("exp", now.Add(601*time.Second).Unix())), 401, "too far"},
		{"an end that has come", signedJWT(t, key, "RS256", now, claim("exp", now.Unix())), 401, "'exp'"},
		{"no end", signedJWT(t, key, "RS256", now, func(c object) { delete(c, "exp") }), 401, "'exp'"},
		{"a start to come", signedJWT(t, key, "RS256", now, claim("iat", now.Unix()+1)), 401, "'iat'"},
		{"no start", signedJWT(t, key, "RS256", now, func(c object) { delete(c, "iat") }), 401, "'iat'"},
		{"a start with a fraction", signedJWT(t, key, "RS256", now, claim("iat", 1.5)), 401, "could not be decoded"},
		{"the token", "t", 401, "could not be decoded"},
		{"dots", "..", 401, "could not be decoded"},
		{"nothing", "", 401, "could not be decoded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"/repos/acme/web/installation", "/orgs/acme/installation", "/app/hook/deliveries"} {
				status, answer := s.callAs(tt.jwt, "GET", path, "")
				if status != tt.status || !strings.Contains(fmt.Sprint(answer), tt.says) {
					t.Errorf("GET %s = %d %v, want %d with %q", path, status, answer, tt.status, tt.says)
				}
			}
			if status, _ := s.callAs(tt.jwt, "GET", "/repos/acme/web/actions/runners", ""); status != 401 && tt.jwt != "t" {
				t.Errorf("list runners = %d, want 401: it is for installations", status)
			}
		})
	}
}

func TestAnInstallationsTokenSeesWhatItMay(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	key := newRSAKey(t)
	app := &App{ID: 17, Key: &key.PublicKey}
	s := newSim(t, Config{App: app, Now: func() time.Time { return now }, RateLimit: 20})
	for _, r := range []Repo{{Owner: "acme", Name: "web"}, {Owner: "acme", Name: "api"}, {Owner: "mona", Name: "dots", User: true}} {
		s.AddRepo(r)
	}
	j, _ := s.Job(s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web"}))
	job := fmt.Sprintf("/repos/acme/web/actions/jobs/%d", j.ID)

	asApp := func(method, path string) (int, map[string]any) {
		t.Helper()
		status, answer := s.callAs(signedJWT(t, key, "RS256", now, nil), method, path, "")
		object, _ := answer.(map[string]any)
		return status, object
	}
	if status, _ := asApp("GET", "/repos/acme/web/installation"); status != 404 {
		t.Errorf("the installation before it is there = %d, want 404", status)
	}
	id := s.Install("acme", "web")
	s.Install("mona")
	status, found := asApp("GET", "/orgs/acme/installation")
	if status != 200 || found["id"] != float64(id) || found["repository_selection"] != "selected" || found["suspended_at"] != nil {
		t.Errorf("the installation = %d %v, want %d", status, found, id)
	}
	for path, want := range map[string]int{
		"/repos/Acme/Web/installation": 200, "/repos/mona/dots/installation": 200,
		"/repos/acme/api/installation": 404, "/orgs/mona/installation": 404,
	} {
		if status, _ := asApp("GET", path); status != want {
			t.Errorf("GET %s = %d, want %d", path, status, want)
		}
	}
	tokens := fmt.Sprintf("/app/installations/%d/access_tokens", id)
	token := func() string {
		t.Helper()
		status, answer := asApp("POST", tokens)
		if status != 201 || answer["expires_at"] != stamp(now.Add(time.Hour)) || answer["permissions"] == nil {
			t.Fatalf("make a token = %d %v, want 201 for an hour", status, answer)
		}
		return answer["token"].(string)
	}
	one := token()
	want := func(token string, statuses map[string]int) {
		t.Helper()
		got := map[string]int{}
		for path := range statuses {
			got[path], _ = s.callAs(token, "GET", path, "")
		}
		if diff := cmp.Diff(statuses, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
	}
	want(one, map[string]int{
		"/repos/acme/web/actions/runners": 200, "/orgs/acme/actions/runners": 200, job: 200,
		"/repos/acme/api/actions/runners": 404, "/repos/mona/dots/actions/runners": 404, "/orgs/acme/installation": 401,
	})
	s.SetApp(func(a *AppSettings) { a.Permissions = map[string]string{"administration": "read"} })
	want(one, map[string]int{"/orgs/acme/actions/runners": 200}) // nobody has accepted it
	s.Accept("acme")
	want(one, map[string]int{"/repos/acme/web/actions/runners": 200, "/orgs/acme/actions/runners": 403, job: 403})
	if status, _ := s.callAs(one, "POST", "/repos/acme/web/actions/runners/generate-jitconfig", `{"name": "a", "runner_group_id": 1, "labels": ["x"]}`); status != 403 {
		t.Errorf("generate-jitconfig with administration: read = %d, want 403", status)
	}
	s.SetApp(func(a *AppSettings) { a.Permissions = app.permissions() })
	s.Accept("acme")

	now = now.Add(time.Hour)
	want(one, map[string]int{job: 401}) // expired
	two := token()
	s.Suspend("acme", true)
	want(two, map[string]int{job: 403})
	if status, answer := asApp("POST", tokens); status != 403 || !strings.Contains(fmt.Sprint(answer), "suspended") {
		t.Errorf("make a token of a suspended installation = %d %v, want 403", status, answer)
	}
	if _, found := asApp("GET", "/orgs/acme/installation"); found["suspended_at"] == nil {
		t.Error("a suspended installation does not say so")
	}
	s.Suspend("acme", false)
	want(two, map[string]int{job: 200})
	s.Uninstall("acme")
	want(two, map[string]int{job: 401})
	if status, _ := asApp("POST", tokens); status != 404 {
		t.Errorf("make a token of an ended installation = %d, want 404", status)
	}
	if again := s.Install("acme"); again == id {
		t.Error("a new installation has the ID of the old one")
	}
	want(two, map[string]int{job: 401})
}

func TestEachInstallationHasItsOwnLimit(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	key := newRSAKey(t)
	s := newSim(t, Config{App: &App{ID: 17, Key: &key.PublicKey}, Now: func() time.Time { return now }, RateLimit: 3})
	tokens := map[string]string{}
	for _, owner := range []string{"acme", "beta"} {
		s.AddRepo(Repo{Owner: owner, Name: "web"})
		tokens[owner] = s.tokenOf(signedJWT(t, key, "RS256", now, nil), s.Install(owner))
	}
	get := func(owner string) int {
		status, _ := s.callAs(tokens[owner], "GET", "/repos/"+owner+"/web/actions/runners", "")
		return status
	}
	got := []int{get("acme"), get("acme"), get("acme"), get("acme"), get("beta")}
	if diff := cmp.Diff([]int{200, 200, 200, 403, 200}, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}
