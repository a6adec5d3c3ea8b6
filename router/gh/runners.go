package gh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

// An exchange makes one request and reads its answer.
type exchange func(context.Context, *github.Client) (*github.Response, error)

// ask makes one request, besides those of an App's login.
func (c *caller) ask(ctx context.Context, t target, of call, do exchange) error {
	if of.priority == claim {
		ctx = router.ForClaim(ctx)
	}
	s, err := c.login(ctx, t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(withAsked(ctx, of.asked), c.timeout)
	defer cancel()
	resp, err := do(ctx, s.api)
	if err != nil {
		gone := of.notFound && absent(err, resp)
		if err = s.sorted(err, resp, of, c.now()); gone {
			err = fmt.Errorf("%w: %w", router.ErrNotFound, err)
		}
		return err
	}
	s.calls.passed(c.now())
	return nil
}

// callIn describes a request about a repository, for which a login needs a permission
// there, such as "Actions (read)".
func callIn(repo router.Repo, doing, permission, exists string) call {
	full := repo.Owner + "/" + repo.Name
	return call{doing: doing + " " + full, owner: repo.Owner, permission: "repository permission " + permission + " on " + full, exists: exists}
}

// askIn makes one request about a repository.
func (c *caller) askIn(ctx context.Context, repo router.Repo, of call, do exchange) error {
	if !pathName(repo.Owner) || !pathName(repo.Name) {
		return &router.GiveUpError{Err: fmt.Errorf("%q is not a valid repository name on GitHub", repo.Owner+"/"+repo.Name)}
	}
	return c.ask(ctx, target{owner: repo.Owner, repo: repo.Name}, of, do)
}

// Job implements router.GitHub.
func (c *Client) Job(ctx context.Context, repo router.Repo, id int64) (router.Delivery, error) {
	var d router.Delivery
	asked := c.now()
	of := callIn(repo, fmt.Sprintf("read job %d of", id), "Actions (read)", "the job exists")
	of.notFound = true
	err := c.askIn(ctx, repo, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		found, resp, err := api.Actions.GetWorkflowJobByID(ctx, repo.Owner, repo.Name, id)
		if err == nil && found.GetID() != id {
			err = errors.New("GitHub's answer is about another job")
		}
		if err == nil {
			d, err = deliveryOf(found, repo, asked)
		}
		if at, dateErr := http.ParseTime(date(resp)); err == nil && dateErr == nil && d.Action == "in_progress" && found.StartedAt != nil {
			d.RunsFor = max(at.Sub(found.StartedAt.Time), 0)
		}
		return resp, err
	})
	return d, err
}

// date returns when an answer was given, by the server's clock.
func date(resp *github.Response) string {
	if resp == nil {
		return ""
	}
	return resp.Header.Get("Date")
}

// absent reports whether GitHub itself said 404: a 404 in HTML comes from something else.
func absent(err error, resp *github.Response) bool {
	var said *github.ErrorResponse
	return status(resp) == http.StatusNotFound && errors.As(err, &said) && said.Message != ""
}

// deliveryOf returns GitHub's answer about a job in the form of a delivery.
func deliveryOf(found *github.WorkflowJob, repo router.Repo, now time.Time) (router.Delivery, error) {
	if max(found.GetID(), found.GetRunID()) > router.MaxGitHubID {
		return router.Delivery{}, errors.New("GitHub's answer has an ID of more than 48 bits")
	}
	if found.GetRunID() <= 0 || found.GetStatus() == "" || found.GetName() == "" || found.Labels == nil {
		return router.Delivery{}, errors.New("GitHub's answer lacks the job's run, status, name or labels")
	}
	d := router.Delivery{
		Source: router.SourceGitHub, Action: found.GetStatus(), Status: found.GetStatus(), RunnerID: found.GetRunnerID(), ReceivedAt: now,
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

const (
	runnersPage = 100 // GitHub's most
	mostRunners = 100_000
)

// runners calls each for the runners with a name, or for all when it is "", until each
// returns false. It makes one request per page.
func (c *Client) runners(ctx context.Context, t router.Target, name string, each func(router.GitHubRunner) (more bool)) error {
	at, err := pathOf(t)
	if err != nil {
		return &router.GiveUpError{Err: err}
	}
	for page := 1; page > 0; {
		if page > mostRunners/runnersPage {
			return fmt.Errorf("list the runners of %s: GitHub lists more than %d", at, mostRunners)
		}
		q := url.Values{"per_page": {strconv.Itoa(runnersPage)}, "page": {strconv.Itoa(page)}}
		if name != "" {
			q.Set("name", name) // not known to old Enterprise Servers, which list all
		}
		var found struct {
			Runners []*listedRunner `json:"runners"`
		}
		err := c.ask(ctx, at, at.callFor("list the runners of "), func(ctx context.Context, api *github.Client) (*github.Response, error) {
			resp, err := send(ctx, api, http.MethodGet, at.path()+"?"+q.Encode(), nil, &found)
			if err == nil {
				page, err = nextRunners(resp, page, found.Runners)
			}
			return resp, err
		})
		if err != nil {
			return err
		}
		for _, r := range found.Runners {
			one := router.GitHubRunner{ID: r.GetID(), Name: r.GetName(), Online: r.GetStatus() == "online", Busy: r.GetBusy(), Version: router.ParseRunnerVersion(r.Version)}
			for _, l := range r.Labels {
				one.Labels = append(one.Labels, l.GetName())
			}
			if !each(one) {
				return nil
			}
		}
	}
	return nil
}

// A listedRunner is a runner with what go-github v60 leaves out of it.
type listedRunner struct {
	github.Runner
	Version string `json:"version"`
}

// nextRunners returns the page after one with these runners; 0: it was the last. It
// fails for a malformed runner: a runner that is skipped could be stopped while it works.
func nextRunners(resp *github.Response, page int, found []*listedRunner) (int, error) {
	if found == nil || len(found) > runnersPage || resp.NextPage != 0 && resp.NextPage != page+1 {
		return 0, errors.New("GitHub's answer is not a page of runners")
	}
	for _, r := range found {
		if r.GetID() <= 0 || r.GetName() == "" || router.Cut(r.GetName(), router.MaxText) != r.GetName() || r.Busy == nil || r.Status == nil {
			return 0, errors.New("GitHub's answer lists a runner without ID, name or state")
		}
	}
	return resp.NextPage, nil
}

// Runner implements router.GitHub.
func (c *Client) Runner(ctx context.Context, t router.Target, name string) (found router.GitHubRunner, err error) {
	if name == "" {
		return found, router.ErrNotFound
	}
	err = c.runners(ctx, t, name, func(r router.GitHubRunner) bool {
		if strings.EqualFold(r.Name, name) {
			found = r
		}
		return found.ID == 0
	})
	if err == nil && found.ID == 0 {
		err = router.ErrNotFound
	}
	return found, err
}

// Runners implements router.GitHub.
func (c *Client) Runners(ctx context.Context, t router.Target) (list []router.GitHubRunner, err error) {
	err = c.runners(ctx, t, "", func(r router.GitHubRunner) bool {
		list = append(list, r)
		return true
	})
	if err != nil {
		return nil, err // a part of them would say that the others are gone
	}
	return list, nil
}

// VersionEnd implements router.GitHub. It makes one request.
func (c *Client) VersionEnd(ctx context.Context, t router.Target, v router.RunnerVersion) (end router.VersionEnd, err error) {
	at, err := pathOf(t)
	if err == nil && (v == "" || router.ParseRunnerVersion(string(v)) != v) {
		err = fmt.Errorf("%q is not a version of the runner", v)
	}
	if err != nil {
		return end, &router.GiveUpError{Err: err}
	}
	// https://docs.github.com/en/rest/actions/self-hosted-runners (read 2026-11-30). What has no
	// date is null or missing.
	var found struct {
		Version      string     `json:"runner_version"`
		Jobs         *time.Time `json:"runtime_deprecates_at"`
		Registration *time.Time `json:"registration_deprecates_at"`
	}
	of := at.callFor(fmt.Sprintf("read how long version %s of the runner is supported in ", v))
	of.notFound = true
	err = c.ask(ctx, at, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		resp, err := send(ctx, api, http.MethodGet, at.path()+"/deprecations/"+string(v), nil, &found)
		if err == nil && found.Version != string(v) {
			err = errors.New("GitHub's answer is about another version of the runner")
		}
		return resp, err
	})
	if err != nil {
		return end, err
	}
	if found.Jobs != nil {
		end.Jobs = found.Jobs.UTC()
	}
	if found.Registration != nil {
		end.Registration = found.Registration.UTC()
	}
	return end, nil
}

// RemoveRunner implements router.GitHub. It makes one request, and another
// when GitHub answers 404.
func (c *Client) RemoveRunner(ctx context.Context, t router.Target, id int64) error {
	at, err := pathOf(t)
	if err != nil {
		return &router.GiveUpError{Err: err}
	}
	code := 0
	of := at.callFor(fmt.Sprintf("remove runner %d of ", id))
	of.mayBeGone = true
	err = c.ask(ctx, at, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		resp, err := send(ctx, api, http.MethodDelete, fmt.Sprintf("%s/%d", at.path(), id), nil, nil)
		code = status(resp)
		return resp, err
	})
	switch code {
	case http.StatusNotFound:
		// It is the same when we may not see the runners at all.
		return c.ask(ctx, at, at.callFor("list the runners of "), func(ctx context.Context, api *github.Client) (*github.Response, error) {
			return send(ctx, api, http.MethodGet, at.path()+"?per_page=1", nil, nil)
		})
	case http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", router.ErrBusy, err)
	}
	return err
}
