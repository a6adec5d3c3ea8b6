package gh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

const (
	deliveriesPage = 100 // GitHub's most
	maxCursor      = 512 // bytes
	maxGUID        = 128 // bytes, as in package webhook; GitHub's have 36
	maxSaid        = 100 // characters of GitHub's words about a delivery
)

// OwnHooks implements router.Webhooks.
func (c *Client) OwnHooks() []router.Hook {
	if c.app == nil {
		return nil
	}
	return []router.Hook{{Kind: router.HookApp}}
}

// Deliveries implements router.Webhooks.
func (c *Client) Deliveries(ctx context.Context, h router.Hook, cursor string) (page []router.SentDelivery, next string, err error) {
	var found []*github.HookDelivery
	gone := false
	err = c.askHook(ctx, h, "list the deliveries of "+h.String(), "read", func(ctx context.Context, api *github.Client) (*github.Response, error) {
		q := url.Values{"per_page": {strconv.Itoa(deliveriesPage)}}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		resp, err := send(ctx, api, http.MethodGet, deliveriesOf(h)+"?"+q.Encode(), nil, &found)
		gone = absent(err, resp)
		if err == nil && found == nil {
			err = errNothing
		}
		if err == nil {
			next = resp.Cursor
			page, err = sent(found)
		}
		if err == nil && (len(next) > maxCursor || next != "" && (!printable(next) || next == cursor)) {
			err = errors.New("GitHub's answer names no usable next page")
		}
		return resp, err
	})
	if gone && h.Kind != router.HookApp {
		err = fmt.Errorf("%w: %w", router.ErrNotFound, err)
	}
	if err != nil {
		return nil, "", err
	}
	return page, next, nil
}

// sent reads GitHub's answer. One malformed delivery fails the page, because skipping it
// could lose a job.
func sent(found []*github.HookDelivery) ([]router.SentDelivery, error) {
	if len(found) > deliveriesPage {
		return nil, fmt.Errorf("GitHub's answer lists %d deliveries, more than %d", len(found), deliveriesPage)
	}
	page := make([]router.SentDelivery, len(found))
	for i, d := range found {
		if d.GetID() <= 0 || d.GetGUID() == "" || len(d.GetGUID()) > maxGUID || !printable(d.GetGUID()) || d.GetDeliveredAt().IsZero() {
			return nil, errors.New("GitHub's answer lists a delivery without ID, GUID or time")
		}
		page[i] = router.SentDelivery{
			ID: d.GetID(), GUID: d.GetGUID(), At: d.GetDeliveredAt().Time, OK: d.GetStatus() == "OK", Said: router.Shorten(router.OneLine(d.GetStatus()), maxSaid), Event: d.GetEvent(), Action: d.GetAction(),
		}
	}
	return page, nil
}

// Delivery implements router.Webhooks. It fails with a *router.GiveUpError when GitHub no
// longer has the delivery.
func (c *Client) Delivery(ctx context.Context, h router.Hook, deliveryID int64) (body []byte, err error) {
	gone := false
	err = c.askHook(ctx, h, fmt.Sprintf("read delivery %d of %s", deliveryID, h), "read", func(ctx context.Context, api *github.Client) (*github.Response, error) {
		var found struct {
			ID      int64 `json:"id"`
			Request struct {
				Payload json.RawMessage `json:"payload"`
			} `json:"request"`
		}
		resp, err := send(ctx, api, http.MethodGet, fmt.Sprintf("%s/%d", deliveriesOf(h), deliveryID), nil, &found)
		gone = absent(err, resp)
		body = found.Request.Payload
		switch {
		case err != nil:
		case found.ID != deliveryID:
			err = errors.New("GitHub's answer is about another delivery")
		case len(body) == 0 || string(body) == "null":
			err = errors.New("GitHub's answer lacks the delivery's payload")
		}
		return resp, err
	})
	if gone {
		err = &router.GiveUpError{Err: err}
	}
	if err != nil {
		return nil, err
	}
	return body, nil
}

// DeliveryLimit implements router.Webhooks.
func (c *Client) DeliveryLimit(h router.Hook) (limit router.RateLimit, keptPercent int) {
	var s *session
	switch {
	case h.Kind != router.HookApp:
		s = c.known(target{owner: h.Owner, repo: h.Repo})
	case c.app != nil:
		s = c.app.session
	}
	keptPercent, _ = routing.share()
	if s == nil {
		return router.RateLimit{}, keptPercent
	}
	return s.budget.limitOf(c.endpoint(http.MethodGet, c.base.Path+deliveriesOf(h)), c.now()), keptPercent
}

// Redeliver implements router.Webhooks. It fails with a *router.GiveUpError when GitHub no
// longer has the delivery, or does not redeliver it.
func (c *Client) Redeliver(ctx context.Context, h router.Hook, deliveryID int64) error {
	gone := false
	err := c.askHook(ctx, h, fmt.Sprintf("redeliver %d of %s", deliveryID, h), "write", func(ctx context.Context, api *github.Client) (*github.Response, error) {
		var none map[string]any // whose body must be JSON all the same
		resp, err := send(ctx, api, http.MethodPost, fmt.Sprintf("%s/%d/attempts", deliveriesOf(h), deliveryID), nil, &none)
		gone = absent(err, resp)
		return resp, accepted(err)
	})
	if gone {
		err = &router.GiveUpError{Err: err}
	}
	return err
}

// deliveriesOf returns the path of a webhook's deliveries.
func deliveriesOf(h router.Hook) string {
	if h.Kind == router.HookApp {
		return "app/hook/deliveries"
	}
	at := target{owner: h.Owner, repo: h.Repo, organization: h.Kind == router.HookOrganization}
	return fmt.Sprintf("%s/hooks/%d/deliveries", at.base(), h.ID)
}

// accepted returns nil for a 202, which go-github returns as an error.
func accepted(err error) error {
	if _, ok := errors.AsType[*github.AcceptedError](err); ok {
		return nil
	}
	return err
}

// askHook makes one request about a webhook: as the App itself about its own, else as the
// installation or with the token. right is read or write.
func (c *Client) askHook(ctx context.Context, h router.Hook, doing, right string, do exchange) error {
	t := target{owner: h.Owner, repo: h.Repo, organization: h.Kind == router.HookOrganization}
	of := call{doing: doing, owner: h.Owner, exists: "the webhook exists", mayBeGone: true}
	switch h.Kind {
	case router.HookApp:
		return c.askAsApp(ctx, doing, do)
	case router.HookOrganization:
		of.permission = "organization permission Webhooks (" + right + ") on " + h.Owner + ", which a classic token calls admin:org_hook"
	case router.HookRepository:
		of.permission = "repository permission Webhooks (" + right + ") on " + h.Owner + "/" + h.Repo
	default:
		return &router.GiveUpError{Err: fmt.Errorf("%s: GitHub does not list the deliveries of a %q webhook", doing, h.Kind)}
	}
	if !pathName(t.owner) || !t.organization && !pathName(t.repo) {
		return &router.GiveUpError{Err: fmt.Errorf("%s: that is not a valid name on GitHub", doing)}
	}
	return c.ask(ctx, t, of, do)
}

// askAsApp makes one request as the App itself.
func (c *caller) askAsApp(ctx context.Context, doing string, do exchange) error {
	if c.app == nil {
		return &router.FixError{Fix: "log in as the GitHub App", Err: fmt.Errorf("%s: Switchyard is logged in with a token, not as an App", doing)}
	}
	if err := c.ready(ctx, c.app.session); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(withAsked(ctx, asked{}), c.timeout)
	defer cancel()
	resp, err := do(ctx, c.app.session.api)
	if err == nil {
		c.app.session.calls.passed(c.now())
		return nil
	}
	code, err := c.app.sorted(err, resp, doing)
	switch code {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return &router.GiveUpError{Err: err}
	}
	return err
}
