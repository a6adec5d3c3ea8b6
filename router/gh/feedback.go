package gh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

// Notice implements router.Notices. See
// https://docs.github.com/en/rest/checks/runs and https://docs.github.com/en/rest/commits/statuses (read 2026-11-24).
func (c *Client) Notice(ctx context.Context, n router.Notice, id int64) (int64, error) {
	if err := checkNotice(n); err != nil {
		return 0, err
	}
	if n.Kind == router.NoticeCommitStatus {
		return 0, c.askAbout(ctx, n, func(ctx context.Context, api *github.Client) (*github.Response, error) {
			_, resp, err := api.Repositories.CreateStatus(ctx, n.Repo.Owner, n.Repo.Name, n.SHA, &github.RepoStatus{
				State: github.String(commitStatus[n.State]), Context: &n.Name, Description: &n.Title, TargetURL: orNil(n.URL),
			})
			return resp, err
		})
	}
	output := &github.CheckRunOutput{Title: &n.Title, Summary: &n.Text}
	status, conclusion := checkRun(n.State)
	var made *github.CheckRun
	err := c.askAbout(ctx, n, func(ctx context.Context, api *github.Client) (resp *github.Response, err error) {
		if id == 0 {
			made, resp, err = api.Checks.CreateCheckRun(ctx, n.Repo.Owner, n.Repo.Name, github.CreateCheckRunOptions{
				Name: n.Name, HeadSHA: n.SHA, DetailsURL: orNil(n.URL), ExternalID: externalID(n),
				Status: status, Conclusion: conclusion, Output: output,
			})
		} else {
			made, resp, err = api.Checks.UpdateCheckRun(ctx, n.Repo.Owner, n.Repo.Name, id, github.UpdateCheckRunOptions{
				Name: n.Name, DetailsURL: orNil(n.URL), ExternalID: externalID(n), Status: status, Conclusion: conclusion, Output: output,
			})
		}
		if err == nil && (made.GetID() <= 0 || id != 0 && made.GetID() != id) {
			err = errors.New("GitHub's answer lacks the ID of the check run")
		}
		return resp, err
	})
	return made.GetID(), err
}

// FindNotice implements router.Notices.
func (c *Client) FindNotice(ctx context.Context, n router.Notice) (id int64, err error) {
	if err := checkNotice(n); err != nil || n.Kind == router.NoticeCommitStatus {
		return 0, err
	}
	err = c.askAbout(ctx, n, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		found, resp, err := api.Checks.ListCheckRunsForRef(ctx, n.Repo.Owner, n.Repo.Name, n.SHA, &github.ListCheckRunsOptions{
			CheckName: &n.Name, Filter: github.String("all"), ListOptions: github.ListOptions{PerPage: syncPage},
		})
		if err == nil && found == nil {
			err = errNothing
		}
		if err != nil {
			return resp, err
		}
		for _, r := range found.CheckRuns {
			// Anyone with permission for checks can choose an external ID, but an
			// App can change only its own check runs.
			if r.GetExternalID() == *externalID(n) && r.GetName() == n.Name && (c.app == nil || r.GetApp().GetID() == c.app.ID) {
				id = r.GetID()
			}
		}
		return resp, nil
	})
	return id, err
}

func externalID(n router.Notice) *string { return github.String(strconv.FormatInt(n.JobID, 10)) }

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// commitStatus and checkRun translate the states of notices.
var commitStatus = map[router.NoticeState]string{
	router.NoticeWaits: "pending", router.NoticeRefused: "failure", router.NoticeOver: "success",
}

func checkRun(s router.NoticeState) (status, conclusion *string) {
	switch s {
	case router.NoticeRefused:
		return github.String("completed"), github.String("action_required")
	case router.NoticeOver:
		return github.String("completed"), github.String("neutral")
	}
	return github.String("queued"), nil
}

// checkNotice checks the commit, which go-github puts into a URL unescaped.
func checkNotice(n router.Notice) error {
	if strings.Trim(n.SHA, "0123456789abcdefABCDEF") != "" {
		return &router.GiveUpError{Err: fmt.Errorf("%q is not a commit", n.SHA)}
	}
	if n.SHA == "" {
		return &router.GiveUpError{Err: errors.New("the commit is unknown")}
	}
	return nil
}

// askAbout makes one request for a notice.
func (c *Client) askAbout(ctx context.Context, n router.Notice, do exchange) error {
	doing := fmt.Sprintf("report job %d on commit %.12s of", n.JobID, n.SHA)
	of := callIn(n.Repo, doing, "Checks (write)", "the commit exists")
	switch {
	case n.Kind == router.NoticeCommitStatus:
		of = callIn(n.Repo, doing, "Commit statuses (write)", "the commit exists")
	case n.Kind != router.NoticeCheckRun:
		return &router.GiveUpError{Err: fmt.Errorf("%s: GitHub has no %q", of.doing, n.Kind)}
	case c.app == nil:
		return &router.FixError{
			Fix: "log in as a GitHub App, or set feedback to commit_status in the rules",
			Err: fmt.Errorf("%s: only an App can create check runs", of.doing),
		}
	}
	return c.askIn(ctx, n.Repo, of, do)
}

// CancelRun implements router.Notices.
func (c *Client) CancelRun(ctx context.Context, repo router.Repo, runID int64) error {
	ended := false
	of := callIn(repo, fmt.Sprintf("cancel run %d of", runID), "Actions (write)", "the run exists")
	err := c.askIn(ctx, repo, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		resp, err := api.Actions.CancelWorkflowRunByID(ctx, repo.Owner, repo.Name, runID)
		ended = status(resp) == http.StatusConflict
		return resp, accepted(err)
	})
	if ended {
		return nil
	}
	return err
}
