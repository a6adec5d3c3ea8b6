package gh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"switchyard/router"
)

const (
	maxManifestAnswer = 1 << 20 // bytes
	maxCode           = 200     // characters of the code of a new App
	manifestTimeout   = 30 * time.Second
)

// A Manifest describes a GitHub App, which GitHub makes from it:
// https://docs.github.com/en/apps/sharing-github-apps/registering-a-github-app-from-a-manifest (read 2026-11-30).
type Manifest struct {
	Name        string            `json:"name"` // at most 34 characters, and no other App's
	URL         string            `json:"url"`  // of its home page
	Hook        ManifestHook      `json:"hook_attributes"`
	RedirectURL string            `json:"redirect_url,omitempty"` // where the browser is sent with a code
	Public      bool              `json:"public"`                 // others than its owner may install it
	Permissions map[string]string `json:"default_permissions"`    // by GitHub's names: read or write
	Events      []string          `json:"default_events"`
}

// A ManifestHook is the webhook of an App.
type ManifestHook struct {
	URL    string `json:"url"`
	Active bool   `json:"active"`
}

// A MadeApp is an App that GitHub has just made.
type MadeApp struct {
	ID            int64
	Page          string        // on GitHub
	Key           router.Secret // PEM
	WebhookSecret router.Secret
}

// APIOf returns the root of the REST API of the GitHub whose pages are at site, such as
// https://github.com: Config.BaseURL.
func APIOf(site string) (string, error) {
	u, err := url.Parse(strings.TrimSuffix(site, "/"))
	switch {
	case err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q is not the address of a GitHub, such as https://github.com or https://github.example.com", site)
	case u.Host == "github.com":
		return "https://api.github.com/", nil
	case strings.HasSuffix(u.Host, ".ghe.com"):
		u.Host = "api." + strings.TrimPrefix(u.Host, "api.")
	default:
		u.Path = "/api/v3/"
	}
	api, err := baseURL(u.String())
	if err != nil {
		return "", err
	}
	return api.String(), nil
}

// ValidOwner reports whether s can be the name of a user or an organization.
func ValidOwner(s string) bool { return pathName(s) }

// NewAppPage returns the page to which a browser posts a manifest, as the form's value manifest:
// that of an organization or, without one, of who is logged in.
func NewAppPage(site, organization, state string) string {
	page := strings.TrimSuffix(site, "/")
	if organization != "" {
		page += "/organizations/" + organization
	}
	return page + "/settings/apps/new?" + url.Values{"state": {state}}.Encode()
}

// MakeApp completes an App, by the code that GitHub gave to the browser, once and within an hour.
// It needs no login. api is what APIOf returns. An error that says so is a *router.FixError.
func MakeApp(ctx context.Context, api, code string) (MadeApp, error) {
	if code == "" || len(code) > maxCode || strings.Trim(code, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return MadeApp{}, errors.New("GitHub sent the browser back without the code of an App")
	}
	base, err := baseURL(api)
	if err != nil {
		return MadeApp{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base.String()+"app-manifests/"+code+"/conversions", nil)
	if err != nil {
		return MadeApp{}, err
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("User-Agent", "switchyard")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return MadeApp{}, fmt.Errorf("complete the App: %w", withoutURL(err))
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusCreated:
	case http.StatusNotFound, http.StatusUnprocessableEntity:
		return MadeApp{}, &router.FixError{
			Fix: "make it once more, and delete the one that GitHub has by now",
			Err: fmt.Errorf("complete the App: GitHub answered %d: its code was used already, or is older than an hour", resp.StatusCode),
		}
	default:
		return MadeApp{}, fmt.Errorf("complete the App: GitHub answered %d", resp.StatusCode)
	}
	var made struct {
		ID            int64         `json:"id"`
		Page          string        `json:"html_url"`
		Key           router.Secret `json:"pem"`
		WebhookSecret router.Secret `json:"webhook_secret"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxManifestAnswer)).Decode(&made); err != nil {
		return MadeApp{}, fmt.Errorf("complete the App: read GitHub's answer: %w", err)
	}
	if made.ID <= 0 || made.Key == "" || made.WebhookSecret == "" {
		return MadeApp{}, errors.New("complete the App: GitHub's answer lacks its ID, key or webhook secret")
	}
	return MadeApp{ID: made.ID, Page: router.Shorten(router.OneLine(made.Page), maxHookURL), Key: made.Key, WebhookSecret: made.WebhookSecret}, nil
}

// withoutURL drops the URL from an error of a request, as the code in it is a secret.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return router.WithoutLocalPort(e.Err)
	}
	return err
}
