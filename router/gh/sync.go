package gh

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

// callRuns describes a request for the runs of a repository.
func callRuns(repo router.Repo) call {
	return callIn(repo, "list the runs of", "Actions (read)", "the repository exists")
}

// Sees implements router.Listings.
func (c *Client) Sees(ctx context.Context, repo router.Repo) (bool, error) {
	code := 0
	err := c.askIn(ctx, repo, callRuns(repo), func(ctx context.Context, api *github.Client) (*github.Response, error) {
		_, resp, err := api.Actions.ListRepositoryWorkflowRuns(ctx, repo.Owner, repo.Name, &github.ListWorkflowRunsOptions{
			ListOptions: github.ListOptions{PerPage: 1},
		})
		code = status(resp)
		return resp, err
	})
	if _, ok := errors.AsType[*router.FixError](err); ok && (code == http.StatusNotFound || code == http.StatusForbidden || code == 0) {
		return false, nil
	}
	return err == nil, err
}

const (
	// GitHub's run objects have over 10 kB, and an answer may have maxAnswer.
	syncPage    = 50
	mostRuns    = 1000 // that GitHub lists of one status
	mostRepos   = 10_000
	mostInstall = 10_000
)

// unfinished are the statuses of runs that may have unfinished jobs, in the order in which
// a run goes through them, so that a run that moves on meanwhile is not missed.
var unfinished = []string{"requested", "waiting", "pending", "queued", "in_progress"}

// Unfinished implements router.Listings.
func (c *Client) Unfinished(ctx context.Context, repo router.Repo, calls int, each func(router.Delivery) error) (did router.Unfinished, err error) {
	seen := map[int64]bool{}
	for _, of := range unfinished {
		listed := 0
		for page := 1; page > 0; {
			if did.Calls >= calls {
				did.Cut = true
				return did, nil
			}
			did.Calls++
			var runs *github.WorkflowRuns
			err := c.askIn(ctx, repo, callRuns(repo), func(ctx context.Context, api *github.Client) (resp *github.Response, err error) {
				runs, resp, err = api.Actions.ListRepositoryWorkflowRuns(ctx, repo.Owner, repo.Name, &github.ListWorkflowRunsOptions{
					Status: of, ExcludePullRequests: true, ListOptions: github.ListOptions{PerPage: syncPage, Page: page},
				})
				if err == nil && (runs == nil || runs.WorkflowRuns == nil) {
					err = errNothing
				}
				if err == nil {
					page, err = nextPage(resp, page, len(runs.WorkflowRuns))
				}
				return resp, err
			})
			if err != nil {
				return did, err
			}
			for _, run := range runs.WorkflowRuns {
				if seen[run.GetID()] {
					continue
				}
				seen[run.GetID()] = true
				did.Runs++
				of, err := repoOf(run.GetRepository())
				if err != nil {
					return did, fmt.Errorf("run %d: %w", run.GetID(), err)
				}
				err = c.runJobs(ctx, of, run.GetID(), calls, &did, func(d router.Delivery) error {
					d.Job.Sender = router.Cut(run.GetTriggeringActor().GetLogin(), router.MaxText)
					return each(d)
				})
				if err != nil || did.Cut && did.Calls >= calls {
					return did, err
				}
			}
			if listed += len(runs.WorkflowRuns); listed >= mostRuns {
				did.Cut = did.Cut || page > 0 || runs.GetTotalCount() > listed
				page = 0
			}
		}
	}
	return did, nil
}

// errNothing is the error for an answer of null, which leaves go-github's result nil.
var errNothing = errors.New("GitHub's answer is empty")

const jobsPages = 20 // of one run: a matrix has 256 jobs at most

// RunJobs implements router.Listings.
func (c *Client) RunJobs(ctx context.Context, repo router.Repo, runID int64, each func(router.Delivery) error) error {
	var did router.Unfinished
	err := c.runJobs(ctx, repo, runID, jobsPages, &did, each)
	if err == nil && did.Cut {
		err = fmt.Errorf("list the jobs of run %d: there are more than %d", runID, did.Jobs)
	}
	return err
}

// runJobs calls each for the jobs of a run's last attempt.
func (c *Client) runJobs(ctx context.Context, repo router.Repo, runID int64, calls int, did *router.Unfinished, each func(router.Delivery) error) error {
	says := callIn(repo, fmt.Sprintf("list the jobs of run %d of", runID), "Actions (read)", "the repository exists")
	says.notFound = true
	for page := 1; page > 0; {
		if did.Calls >= calls {
			did.Cut = true
			return nil
		}
		did.Calls++
		var jobs *github.Jobs
		asked := c.now()
		err := c.askIn(ctx, repo, says, func(ctx context.Context, api *github.Client) (resp *github.Response, err error) {
			jobs, resp, err = api.Actions.ListWorkflowJobs(ctx, repo.Owner, repo.Name, runID, &github.ListWorkflowJobsOptions{
				Filter: "latest", ListOptions: github.ListOptions{PerPage: syncPage, Page: page},
			})
			if err == nil && (jobs == nil || jobs.Jobs == nil) {
				err = errNothing
			}
			if err == nil {
				page, err = nextPage(resp, page, len(jobs.Jobs))
			}
			return resp, err
		})
		if errors.Is(err, router.ErrNotFound) {
			return nil // it was deleted since it was listed
		}
		if err != nil {
			return err
		}
		for _, j := range jobs.Jobs {
			if j.GetID() <= 0 || j.GetRunID() != runID {
				return fmt.Errorf("%s: GitHub's answer is about another run", says.doing)
			}
			d, err := deliveryOf(j, repo, asked)
			if err != nil {
				return fmt.Errorf("%s: %w", says.doing, err)
			}
			did.Jobs++
			if err := each(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextPage returns the page after one that lists n; 0: it was the last.
func nextPage(resp *github.Response, page, n int) (int, error) {
	next := resp.NextPage
	switch {
	case n > syncPage:
		return 0, fmt.Errorf("GitHub's answer lists %d items, more than the requested %d", n, syncPage)
	case next != 0 && next != page+1:
		return 0, errors.New("GitHub's answer names another page as the next")
	case n == 0:
		return 0, nil
	}
	return next, nil
}

// repoOf reads a repository. It fails when something is missing that rules use.
func repoOf(r *github.Repository) (router.Repo, error) {
	repo := router.Repo{Owner: r.GetOwner().GetLogin(), Name: r.GetName(), Private: r.GetPrivate(), Visibility: r.GetVisibility(), Fork: r.GetFork()}
	repo.FullName = repo.Owner + "/" + repo.Name
	switch {
	case r == nil || r.Private == nil || r.Fork == nil:
		return repo, errors.New("GitHub's answer does not say whether the repository is private, or a fork")
	case !pathName(repo.Owner) || !pathName(repo.Name):
		return repo, errors.New("GitHub's answer lacks the name of the repository")
	}
	switch repo.Visibility {
	case "", "public", "private", "internal":
		return repo, nil
	}
	return repo, errors.New("GitHub's answer has an unknown visibility of the repository")
}

// Repositories implements router.Listings.
func (c *Client) Repositories(ctx context.Context, each func(router.Repo) error) error {
	if c.app == nil {
		return nil
	}
	var owners []target
	all, err := c.installations(ctx)
	if err != nil {
		return err
	}
	for _, in := range all {
		if !in.Suspended && pathName(in.Owner) {
			owners = append(owners, target{owner: in.Owner, organization: in.Organization})
		}
	}
	var errs []error
	for _, t := range owners {
		if err := c.installed(ctx, t, each); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// installed calls each for the repositories of an owner's installation.
func (c *Client) installed(ctx context.Context, t target, each func(router.Repo) error) error {
	says := call{
		doing: "list the repositories of " + t.owner + " that " + c.app.String() + " is installed for", owner: t.owner,
		permission: "repository permission Metadata (read)", exists: "it is installed there",
	}
	for page := 1; page > 0; {
		var found *github.ListRepositories
		err := c.ask(ctx, t, says, func(ctx context.Context, api *github.Client) (resp *github.Response, err error) {
			found, resp, err = api.Apps.ListRepos(ctx, &github.ListOptions{PerPage: syncPage, Page: page})
			if err == nil && found == nil {
				err = errNothing
			}
			if err == nil {
				page, err = nextPage(resp, page, len(found.Repositories))
			}
			return resp, err
		})
		if err != nil {
			return err
		}
		if page > mostRepos/syncPage {
			return fmt.Errorf("%s: there are more than %d", says.doing, mostRepos)
		}
		for _, r := range found.Repositories {
			if r.GetArchived() || r.GetDisabled() {
				continue // runs nothing
			}
			repo, err := repoOf(r)
			if err == nil {
				err = each(repo)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", says.doing, err)
			}
		}
	}
	return nil
}
