package gh

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

// maxVariable is the most bytes of a variable's value:
// https://docs.github.com/en/actions/reference/workflows-and-actions/variables (read 2026-11-30).
const maxVariable = 48 << 10

// Variable implements router.Variables.
func (c *Client) Variable(ctx context.Context, v router.Variable) (value string, err error) {
	err = c.askVariable(ctx, v, "read", "read", func(ctx context.Context, api *github.Client, path string) (*github.Response, error) {
		var found struct {
			Name  *string `json:"name"`
			Value *string `json:"value"`
		}
		resp, err := send(ctx, api, http.MethodGet, path, nil, &found)
		switch {
		case err != nil:
		case found.Name == nil || found.Value == nil || len(*found.Value) > maxVariable:
			err = errors.New("GitHub's answer is not a variable")
		default:
			value = *found.Value
		}
		return resp, err
	})
	return value, err
}

// SetVariable implements router.Variables. The variable's name and, in an organization, the
// repositories that see it stay as they are.
func (c *Client) SetVariable(ctx context.Context, v router.Variable, value string) error {
	return c.askVariable(ctx, v, "set", "write", func(ctx context.Context, api *github.Client, path string) (*github.Response, error) {
		return send(ctx, api, http.MethodPatch, path, map[string]string{"value": value}, nil)
	})
}

// askVariable makes one request about a variable:
// https://docs.github.com/en/rest/actions/variables (read 2026-11-30).
func (c *Client) askVariable(ctx context.Context, v router.Variable, doing, right string, do func(context.Context, *github.Client, string) (*github.Response, error)) error {
	t, err := pathOf(router.Target{Owner: v.Owner, Repo: v.Repo})
	if err != nil {
		return &router.GiveUpError{Err: err}
	}
	of := call{
		doing: doing + " " + v.String(), owner: v.Owner, exists: "it exists", notFound: true,
		permission: "repository permission Variables (" + right + ") on " + v.Whose(), asked: asked{priority: routing},
	}
	if t.organization {
		of.permission = "organization permission Variables (" + right + ") on " + v.Owner + ", which a classic token calls admin:org"
	}
	return c.ask(ctx, t, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		return do(ctx, api, t.base()+"/actions/variables/"+url.PathEscape(v.Name))
	})
}
