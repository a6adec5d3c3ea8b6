package gh_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/githubsim/githubtest"
)

func TestEachGitHubHasItsAPI(t *testing.T) {
	for site, want := range map[string]string{
		"https://github.com":          "https://api.github.com/",
		"https://github.com/":         "https://api.github.com/",
		"https://acme.ghe.com":        "https://api.acme.ghe.com/",
		"https://github.example.com":  "https://github.example.com/api/v3/",
		"http://127.0.0.1:8443":       "http://127.0.0.1:8443/api/v3/",
		"http://github.example.com":   "", // the secrets would go in clear
		"https://github.com/acme":     "",
		"github.com":                  "",
		"https://u:p@github.acme.com": "",
		"":                            "",
	} {
		if got, err := gh.APIOf(site); got != want || (err != nil) != (want == "") {
			t.Errorf("APIOf(%q) = %q, %v, want %q", site, got, err, want)
		}
	}
}

func TestAnAppIsMadeByItsCode(t *testing.T) {
	private, err := key()
	if err != nil {
		t.Fatal(err)
	}
	sim := githubsim.New(githubsim.Config{App: &githubsim.App{ID: 17, Key: &private.PublicKey, Private: private}})
	t.Cleanup(sim.Close)
	page := gh.NewAppPage("https://github.com/", "", "a&b")
	if want := "https://github.com/settings/apps/new?state=a%26b"; page != want {
		t.Errorf("NewAppPage = %s, want %s", page, want)
	}
	form := url.Values{"manifest": {`{"name": "yard", "url": "https://example.com", "redirect_url": "http://127.0.0.1:1/", "hook_attributes": {"url": "https://ci.example.com/"}}`}}
	r := httptest.NewRequest(http.MethodPost, page, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	sim.ServeHTTP(w, r)
	to, err := url.Parse(w.Header().Get("Location"))
	if err != nil || to.Query().Get("state") != "a&b" {
		t.Fatalf("%d, %v, %v", w.Code, to, err)
	}
	api := httptest.NewServer(githubtest.Contract(t, sim))
	t.Cleanup(api.Close)
	made, err := gh.MakeApp(t.Context(), api.URL+"/api/v3/", to.Query().Get("code"))
	if err != nil || made.ID != 17 || !strings.Contains(string(made.Key), "RSA PRIVATE KEY") || made.WebhookSecret == "" || made.Page != "https://github.com/apps/switchyard" {
		t.Errorf("MakeApp = %+v, %v", made, err)
	}
	if _, err := gh.MakeApp(t.Context(), api.URL+"/api/v3/", to.Query().Get("code")); err == nil || !strings.Contains(err.Error(), "make it once more") {
		t.Errorf("MakeApp again: %v", err)
	}
	for _, code := range []string{"", "a/b", "a?b", strings.Repeat("a", 300)} {
		if _, err := gh.MakeApp(t.Context(), api.URL, code); err == nil || !strings.Contains(err.Error(), "without the code") {
			t.Errorf("MakeApp(%q): %v", code, err)
		}
	}
}

func TestOddAnswersAboutANewAppAreErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"an outage":    {502, "<html>Unicorn!", "answered 502"},
		"a redirect":   {302, "", "answered 302"},
		"too much":     {429, `{"message": "slow down"}`, "answered 429"},
		"no JSON":      {201, "<html>", "read GitHub's answer"},
		"no key":       {201, `{"id": 1, "webhook_secret": "s"}`, "lacks its ID, key"},
		"no secret":    {201, `{"id": 1, "pem": "k", "webhook_secret": null}`, "lacks its ID, key"},
		"another code": {422, `{}`, "older than an hour"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				answer(w, tt.status, tt.body)
			}))
			t.Cleanup(s.Close)
			if _, err := gh.MakeApp(t.Context(), s.URL, "secretcode"); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secretcode") {
				t.Errorf("MakeApp: %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := gh.MakeApp(t.Context(), "http://127.0.0.1:1/", "secretcode"); err == nil || strings.Contains(err.Error(), "secretcode") {
		t.Errorf("MakeApp: %v", err)
	}
}
