package githubsim

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// made posts a manifest as a browser does, and returns the answer.
func (s *sim) made(path, manifest string) *http.Response {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(url.Values{"manifest": {manifest}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

func TestAnAppIsMadeFromAManifestOnce(t *testing.T) {
	key := newRSAKey(t)
	s := newSim(t, Config{App: &App{ID: 17, Key: &key.PublicKey, Private: key}})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	s.Install("acme")
	const manifest = `{"name": "yard", "url": "https://example.com", "redirect_url": "http://127.0.0.1:1/x?y=z", "public": false, "default_events": ["workflow_job"],
		"default_permissions": {"actions": "read"}, "hook_attributes": {"url": "https://ci.example.com/webhooks/github", "active": true}}`
	for _, page := range []string{"/organizations/acme/settings/apps/new?state=s", "/settings/apps/new?state=s"} {
		resp := s.made(page, manifest)
		to, err := url.Parse(resp.Header.Get("Location"))
		if err != nil || resp.StatusCode != http.StatusFound || to.Host != "127.0.0.1:1" || to.Query().Get("state") != "s" || to.Query().Get("y") != "z" {
			t.Fatalf("%s sends the browser to %v with %s", page, to, resp.Status)
		}
		path := "/app-manifests/" + to.Query().Get("code") + "/conversions"
		status, answer := s.callAs("", "POST", path, "")
		app, _ := answer.(map[string]any)
		pemKey, _ := app["pem"].(string)
		block, _ := pem.Decode([]byte(pemKey))
		if status != http.StatusCreated || block == nil || app["id"] != float64(17) || app["webhook_secret"] == "" {
			t.Fatalf("%s = %d %v", path, status, app)
		}
		if got, err := x509.ParsePKCS1PrivateKey(block.Bytes); err != nil || !got.Equal(key) {
			t.Errorf("the App's key is %v, %v", got, err)
		}
		if d := cmp.Diff(map[string]any{"actions": "read", "metadata": "read"}, app["permissions"]); d != "" {
			t.Errorf("permissions (-want +got):\n%s", d)
		}
		if status, _ := s.callAs("", "POST", path, ""); status != http.StatusNotFound {
			t.Errorf("a second conversion = %d, want 404", status)
		}
	}
	if hook := s.Server.hook(); hook.HookURL != "https://ci.example.com/webhooks/github" || s.installedFor["acme"] != nil {
		t.Errorf("the webhook is %+v, and acme has installed the new App: %v", hook, s.installedFor["acme"])
	}
}

func TestAWrongManifestIsRefused(t *testing.T) {
	key := newRSAKey(t)
	s := newSim(t, Config{App: &App{ID: 17, Key: &key.PublicKey, Private: key}})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	const good = `{"name": "yard", "url": "https://example.com", "redirect_url": "http://127.0.0.1:1/", "default_events": ["workflow_job"],
		"default_permissions": {"actions": "read"}, "hook_attributes": {"url": "https://ci.example.com/"}}`
	for name, tt := range map[string]struct {
		page, old, by string
		want          int
	}{
		"it is good":                    {want: http.StatusFound},
		"nobody has that name":          {page: "/organizations/nobody/settings/apps/new", want: http.StatusNotFound},
		"the name is too long":          {old: `"yard"`, by: `"` + strings.Repeat("y", 35) + `"`, want: 422},
		"the event needs a permission":  {old: `"actions": "read"`, by: `"checks": "read"`, want: 422},
		"no such level":                 {old: `"actions": "read"`, by: `"actions": "admin"`, want: 422},
		"the webhook is not an address": {old: `https://ci.example.com/`, by: `ci.example.com`, want: 422},
		"GitHub knows no such key":      {old: `"name"`, by: `"nom"`, want: 422},
		"it is no JSON":                 {old: `{"name"`, by: `"name"`, want: 422},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.page == "" {
				tt.page = "/organizations/acme/settings/apps/new"
			}
			if resp := s.made(tt.page, strings.Replace(good, tt.old, tt.by, 1)); resp.StatusCode != tt.want {
				t.Errorf("answered %s, want %d", resp.Status, tt.want)
			}
		})
	}
}
