package gh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

const maxHookURL = 2048 // bytes that are shown

// A Login is what GitHub says about the login of a Client.
type Login struct {
	Name  string        // for people: the GitHub token, or the GitHub App 17
	Ahead time.Duration // of this machine's clock before GitHub's, to about a second
	App   *AppState     // nil: a token
}

// An AppState is what GitHub says about a GitHub App.
type AppState struct {
	Page          string            // on GitHub
	Permissions   map[string]string // that it asks for, by GitHub's names: read, write or admin
	Events        []string
	HookURL       string // where its deliveries go; "": nowhere
	HookType      string // of their bodies: json or form
	Installations []Installation
}

// An Installation is an owner that has installed an App.
type Installation struct {
	Owner        string
	Organization bool
	Permissions  map[string]string // that the owner has accepted
	Events       []string          // likewise
	Suspended    bool
	Page         string // on GitHub
}

// Login asks GitHub about the login. With a token that is one request; with an App it is one
// about the App, one about its webhook, and one for each hundred installations, none of which
// needs a permission. Errors are classified as for router.GitHub.
func (c *Client) Login(ctx context.Context) (Login, error) {
	if c.app == nil {
		l := Login{Name: "the GitHub token"}
		err := c.ask(ctx, target{}, call{doing: "ask GitHub for the limits of the token"}, func(ctx context.Context, api *github.Client) (*github.Response, error) {
			resp, err := send(ctx, api, http.MethodGet, "rate_limit", nil, &struct{}{})
			l.Ahead = c.ahead(resp)
			return resp, err
		})
		return l, err
	}
	l, app := Login{Name: c.app.String()}, &AppState{}
	err := c.askAsApp(ctx, "ask GitHub about "+c.app.String(), func(ctx context.Context, api *github.Client) (*github.Response, error) {
		var found struct {
			ID          int64             `json:"id"`
			Page        string            `json:"html_url"`
			Permissions map[string]string `json:"permissions"`
			Events      []string          `json:"events"`
		}
		resp, err := send(ctx, api, http.MethodGet, "app", nil, &found)
		if err == nil && found.ID != c.app.ID {
			err = errors.New("GitHub's answer is about another App")
		}
		app.Page, app.Permissions, app.Events = found.Page, found.Permissions, found.Events
		l.Ahead = c.ahead(resp)
		return resp, err
	})
	if err == nil {
		err = c.askAsApp(ctx, "read where the deliveries of "+c.app.String()+" go", func(ctx context.Context, api *github.Client) (*github.Response, error) {
			found, resp, err := api.Apps.GetHookConfig(ctx)
			if status(resp) == http.StatusNotFound { // it has none
				return resp, nil
			}
			app.HookURL, app.HookType = router.Shorten(router.OneLine(found.GetURL()), maxHookURL), found.GetContentType()
			return resp, err
		})
	}
	if err == nil {
		app.Installations, err = c.installations(ctx)
	}
	l.App = app
	return l, err
}

// ahead returns how far this machine's clock is before that of an answer, which GitHub gives in
// whole seconds; 0 when it says nothing.
func (c *caller) ahead(resp *github.Response) time.Duration {
	if resp == nil {
		return 0
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0
	}
	return c.now().Sub(date)
}

// installations lists the installations of the App.
func (c *Client) installations(ctx context.Context) (all []Installation, err error) {
	for page := 1; page > 0; {
		err := c.askAsApp(ctx, "list the installations of "+c.app.String(), func(ctx context.Context, api *github.Client) (*github.Response, error) {
			var found []struct { // go-github v60 does not know all permissions
				Account struct {
					Login string `json:"login"`
					Type  string `json:"type"`
				} `json:"account"`
				Permissions map[string]string `json:"permissions"`
				Events      []string          `json:"events"`
				SuspendedAt *time.Time        `json:"suspended_at"`
				Page        string            `json:"html_url"`
			}
			resp, err := send(ctx, api, http.MethodGet, fmt.Sprintf("app/installations?per_page=%d&page=%d", syncPage, page), nil, &found)
			if err != nil {
				return resp, err
			}
			for _, in := range found {
				all = append(all, Installation{
					Owner: in.Account.Login, Organization: in.Account.Type == "Organization",
					Permissions: in.Permissions, Events: in.Events, Suspended: in.SuspendedAt != nil, Page: in.Page,
				})
			}
			page, err = nextPage(resp, page, len(found))
			return resp, err
		})
		if err != nil {
			return nil, err
		}
		if len(all) >= mostInstall {
			return nil, fmt.Errorf("%s has more than %d installations", c.app, mostInstall)
		}
	}
	return all, nil
}
