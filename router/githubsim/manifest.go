package githubsim

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const maxAppName = 34 // characters

// eventNeeds is the permission without which GitHub offers no App an event.
var eventNeeds = map[string]string{"workflow_job": "actions", "workflow_run": "actions", "check_run": "checks", "push": "contents"}

// newApp makes the App from a manifest, as the page does on which a person confirms it, and
// sends the browser on with a code:
// https://docs.github.com/en/apps/sharing-github-apps/registering-a-github-app-from-a-manifest (read 2026-11-30).
func (s *apps) newApp(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	var m struct {
		Name        string            `json:"name"`
		URL         string            `json:"url"`
		Redirect    string            `json:"redirect_url"`
		Public      bool              `json:"public"`
		Permissions map[string]string `json:"default_permissions"`
		Events      []string          `json:"default_events"`
		Hook        struct {
			URL    string `json:"url"`
			Active *bool  `json:"active"`
		} `json:"hook_attributes"`
	}
	dec := json.NewDecoder(strings.NewReader(r.PostFormValue("manifest")))
	dec.DisallowUnknownFields()
	var faults []string
	if err := dec.Decode(&m); err != nil {
		faults = append(faults, "the manifest is not one: "+err.Error())
	}
	absolute := func(name, s string) {
		if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			faults = append(faults, name+" must be a valid URL")
		}
	}
	absolute("Url", m.URL)
	absolute("Redirect url", m.Redirect)
	absolute("Hook url", m.Hook.URL)
	if m.Name == "" || len([]rune(m.Name)) > maxAppName {
		faults = append(faults, fmt.Sprintf("Name is too long (maximum is %d characters), or missing", maxAppName))
	}
	for name, level := range m.Permissions {
		if level != "read" && level != "write" || name == "metadata" && level != "read" {
			faults = append(faults, fmt.Sprintf("Default permission %s is not %s", name, level))
		}
	}
	for _, event := range m.Events {
		if needs, known := eventNeeds[event]; !known || m.Permissions[needs] == "" {
			faults = append(faults, "Default events unsupported: "+event)
		}
	}
	org := r.PathValue("owner")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cfg.App == nil || s.cfg.App.Private == nil, org != "" && !s.orgs[strings.ToLower(org)]:
		sorry(w, http.StatusNotFound, "Page not found")
		return
	case len(faults) > 0:
		slices.Sort(faults)
		sorry(w, http.StatusUnprocessableEntity, "Invalid GitHub App configuration: "+strings.Join(faults, "; "))
		return
	}
	made := AppSettings{Permissions: maps.Clone(m.Permissions), Events: append([]string{}, m.Events...), HookURL: m.Hook.URL, Secret: fmt.Sprintf("%x", s.secret(20)), ContentType: "json"}
	if made.Permissions == nil {
		made.Permissions = map[string]string{}
	}
	if made.Permissions["metadata"] == "" && len(made.Permissions) > 0 {
		made.Permissions["metadata"] = "read" // GitHub adds it
	}
	code := fmt.Sprintf("%x", s.secret(20))
	s.madeApps[code] = made
	to, _ := url.Parse(m.Redirect)
	q := to.Query()
	q.Set("code", code)
	if state := r.URL.Query().Get("state"); state != "" {
		q.Set("state", state)
	}
	to.RawQuery = q.Encode()
	http.Redirect(w, r, to.String(), http.StatusFound)
}

func sorry(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<!DOCTYPE html><title>GitHub</title><p>"+html.EscapeString(text))
}

// convertManifest completes the App, once: from now on the Server's App is this one, installed
// for nobody.
func (s *apps) convertManifest(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	made, ok := s.madeApps[r.PathValue("code")]
	if !ok {
		notFound(w)
		return
	}
	delete(s.madeApps, r.PathValue("code"))
	s.settings = made
	clear(s.installedFor)
	app := s.appObject()
	app["client_id"], app["client_secret"], app["webhook_secret"] = fmt.Sprintf("Iv1.%x", s.secret(8)), fmt.Sprintf("%x", s.secret(20)), made.Secret
	app["pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(s.cfg.App.Private)}))
	answer(w, http.StatusCreated, app)
}
