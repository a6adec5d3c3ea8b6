package gh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

// ask makes one request, but for those of an App that logs in.
func (c *Client) ask(ctx context.Context, t target, of call, do func(context.Context, *github.Client) (*github.Response, error)) error {
	s, err := c.login(ctx, t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(withAsked(ctx, of.asked), c.timeout)
	defer cancel()
	resp, err := do(ctx, s.api)
	if err != nil {
		return s.sorted(err, resp, of, c.now())
	}
	return nil
}

// Job implements router.GitHub.
func (c *Client) Job(ctx context.Context, repo router.Repo, id int64) (router.Delivery, error) {
	if !pathName(repo.Owner) || !pathName(repo.Name) {
		return router.Delivery{}, &router.GiveUpError{Err: fmt.Errorf("%q is no name of a repository on GitHub", repo.Owner+"/"+repo.Name)}
	}
	var found *github.WorkflowJob
	gone := false
	err := c.ask(ctx, target{owner: repo.Owner, repo: repo.Name}, call{
		doing:      fmt.Sprintf("read job %d of %s/%s", id, repo.Owner, repo.Name),
		owner:      repo.Owner,
		permission: "repository permission Actions (read) on " + repo.Owner + "/" + repo.Name,
		exists:     "the job exists",
	}, func(ctx context.Context, api *github.Client) (resp *github.Response, err error) {
		found, resp, err = api.Actions.GetWorkflowJobByID(ctx, repo.Owner, repo.Name, id)
		gone = status(resp) == http.StatusNotFound
		if err == nil && found.GetID() != id {
			err = errors.New("GitHub's answer is about another job")
		}
		return resp, err
	})
	if gone {
		err = fmt.Errorf("%w: %w", router.ErrNotFound, err)
	}
	if err != nil {
		return router.Delivery{}, err
	}
	d := router.Delivery{
		Source: router.SourceGitHub, Action: found.GetStatus(), Status: found.GetStatus(), ReceivedAt: c.now(),
		Job: router.Job{
			ID: found.GetID(), RunID: found.GetRunID(), Attempt: max(int(found.GetRunAttempt()), 1), Repo: repo,
			Name: found.GetName(), Workflow: found.GetWorkflowName(), Branch: found.GetHeadBranch(), Labels: found.Labels,
			URL: found.GetHTMLURL(), SHA: found.GetHeadSHA(), RunnerName: found.GetRunnerName(), Conclusion: found.GetConclusion(),
		},
	}
	if d.Action != "in_progress" && d.Action != "completed" {
		d.Action = "queued"
	}
	d.Bound()
	return d, nil
}

// runners lists those with a name, or all when it is "": a page of a hundred a request.
func (c *Client) runners(ctx context.Context, t router.Target, name string) (list []router.GitHubRunner, err error) {
	at, err := pathOf(t)
	if err != nil {
		return nil, &router.GiveUpError{Err: err}
	}
	for page := 1; page > 0; {
		q := url.Values{"per_page": {"100"}, "page": {fmt.Sprint(page)}}
		if name != "" {
			q.Set("name", name)
		}
		err := c.ask(ctx, at, at.callFor("list the runners of "), func(ctx context.Context, api *github.Client) (*github.Response, error) {
			req, err := api.NewRequest(http.MethodGet, at.path()+"?"+q.Encode(), nil)
			if err != nil {
				return nil, err
			}
			var found github.Runners
			resp, err := api.Do(ctx, req, &found)
			if err == nil {
				page = resp.NextPage
			}
			for _, r := range found.Runners {
				list = append(list, router.GitHubRunner{ID: r.GetID(), Name: r.GetName(), Online: r.GetStatus() == "online", Busy: r.GetBusy()})
			}
			return resp, err
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Runner implements router.GitHub.
func (c *Client) Runner(ctx context.Context, t router.Target, name string) (router.GitHubRunner, error) {
	list, err := c.runners(ctx, t, name)
	if err != nil {
		return router.GitHubRunner{}, err
	}
	for _, r := range list {
		if r.Name == name {
			return r, nil
		}
	}
	return router.GitHubRunner{}, router.ErrNotFound
}

// Runners implements router.GitHub.
func (c *Client) Runners(ctx context.Context, t router.Target) ([]router.GitHubRunner, error) {
	return c.runners(ctx, t, "")
}

// RemoveRunner implements router.GitHub.
func (c *Client) RemoveRunner(ctx context.Context, t router.Target, id int64) error {
	at, err := pathOf(t)
	if err != nil {
		return &router.GiveUpError{Err: err}
	}
	code := 0
	err = c.ask(ctx, at, at.callFor(fmt.Sprintf("remove runner %d of ", id)), func(ctx context.Context, api *github.Client) (*github.Response, error) {
		req, err := api.NewRequest(http.MethodDelete, fmt.Sprintf("%s/%d", at.path(), id), nil)
		if err != nil {
			return nil, err
		}
		resp, err := api.Do(ctx, req, nil)
		code = status(resp)
		return resp, err
	})
	switch code {
	case http.StatusNotFound:
		return nil
	case http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", router.ErrBusy, err)
	}
	return err
}
