package webhook

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"switchyard/router"
)

const maxRepo = 100 // characters of a repository's name, GitHub's own limit; its owner's is lower

// errUnknownAction is returned for an action that the router does not use: GitHub adds
// new ones from time to time.
var errUnknownAction = errors.New("unknown action")

// A payload has what is read of a workflow_job body. Fields without a comment
// are required: https://docs.github.com/en/webhooks/webhook-events-and-payloads#workflow_job (2026-11-24).
// Old GitHub Enterprise Servers send fewer.
type payload struct {
	Action string `json:"action"`
	Job    struct {
		ID         int64    `json:"id"`
		RunID      int64    `json:"run_id"`
		RunAttempt *int     `json:"run_attempt"` // not in old shapes
		Status     string   `json:"status"`
		Conclusion string   `json:"conclusion"` // null until completed
		Name       string   `json:"name"`
		Labels     []string `json:"labels"`        // may be empty
		RunnerName string   `json:"runner_name"`   // null until a runner has it; not in old shapes
		RunnerID   int64    `json:"runner_id"`     // likewise
		Workflow   string   `json:"workflow_name"` // may be null; not in old shapes
		Branch     string   `json:"head_branch"`   // may be null; not in old shapes
		HTMLURL    string   `json:"html_url"`      // for people only
		SHA        string   `json:"head_sha"`      // not in old shapes
		CreatedAt  string   `json:"created_at"`    // likewise
	} `json:"workflow_job"`
	Repository struct {
		Name  string `json:"name"`
		Owner struct {
			Login string `json:"login"`
		} `json:"owner"`
		Private    *bool  `json:"private"`
		Visibility string `json:"visibility"` // not in old shapes
		Fork       bool   `json:"fork"`
	} `json:"repository"`
	Sender struct {
		Login string `json:"login"` // for conditions only
	} `json:"sender"`
	Deployment *struct{} `json:"deployment"` // null unless the job deploys to an environment; not in old shapes
}

// Decode reads the body of a workflow_job delivery and bounds every string in it. ID and
// ReceivedAt, which are not in the body, stay zero. Errors are one sentence that names the
// field; unknown fields are accepted.
func Decode(body []byte) (router.Delivery, error) {
	var p payload
	if err := json.Unmarshal(body, &p); err != nil {
		return router.Delivery{}, sentence(err)
	}
	switch p.Action {
	case "queued", "waiting", "in_progress", "completed":
	case "":
		return router.Delivery{}, missing("action")
	default:
		return router.Delivery{}, fmt.Errorf("action %q: %w", router.Cut(p.Action, router.MaxText), errUnknownAction)
	}
	if err := p.check(); err != nil {
		return router.Delivery{}, err
	}

	d := router.Delivery{Action: p.Action, Status: p.Job.Status, RunnerID: p.Job.RunnerID, Deploys: p.Deployment != nil, Job: router.Job{
		ID: p.Job.ID, RunID: p.Job.RunID, Attempt: 1, Name: p.Job.Name, Workflow: p.Job.Workflow, Branch: p.Job.Branch,
		Sender: p.Sender.Login, Labels: p.Job.Labels, URL: p.Job.HTMLURL, SHA: p.Job.SHA,
		RunnerName: p.Job.RunnerName, Conclusion: p.Job.Conclusion,
	}}
	d.CreatedAt, _ = time.Parse(time.RFC3339, p.Job.CreatedAt) // a malformed time is ignored
	j := &d.Job
	if p.Job.RunAttempt != nil {
		j.Attempt = *p.Job.RunAttempt
	}
	j.Repo.Owner, j.Repo.Name = p.Repository.Owner.Login, p.Repository.Name
	j.Repo.FullName = j.Repo.Owner + "/" + j.Repo.Name
	j.Repo.Visibility, j.Repo.Fork = p.Repository.Visibility, p.Repository.Fork
	if p.Repository.Private != nil {
		j.Repo.Private = *p.Repository.Private
	} else {
		j.Repo.Private = j.Repo.Visibility == "private" || j.Repo.Visibility == "internal"
	}
	d.Bound()
	return d, nil
}

// check returns what is missing or out of range.
func (p *payload) check() error {
	if err := cmp.Or(checkID("workflow_job.id", p.Job.ID), checkID("workflow_job.run_id", p.Job.RunID)); err != nil {
		return err
	}
	switch {
	case p.Job.RunAttempt != nil && *p.Job.RunAttempt < 1:
		return errors.New("workflow_job.run_attempt must be positive")
	case p.Job.Status == "":
		return missing("workflow_job.status")
	case p.Job.Name == "":
		return missing("workflow_job.name")
	case p.Job.Labels == nil:
		return missing("workflow_job.labels")
	case p.Repository.Owner.Login == "":
		return missing("repository.owner.login")
	case !repoName(p.Repository.Owner.Login):
		return fmt.Errorf("repository.owner.login %q is not an owner's name on GitHub", router.Cut(p.Repository.Owner.Login, maxRepo))
	case p.Repository.Name == "":
		return missing("repository.name")
	case !repoName(p.Repository.Name):
		return fmt.Errorf("repository.name %q is not a repository's name on GitHub", router.Cut(p.Repository.Name, maxRepo))
	}
	switch p.Repository.Visibility {
	case "", "public", "private", "internal":
		return nil
	}
	return fmt.Errorf("repository.visibility %q must be public, private or internal", router.Cut(p.Repository.Visibility, maxRepo))
}

func checkID(field string, id int64) error {
	switch {
	case id == 0:
		return missing(field)
	case id < 0:
		return fmt.Errorf("%s must be positive", field)
	case id > router.MaxGitHubID:
		return fmt.Errorf("%s has more than 48 bits", field)
	}
	return nil
}

func missing(field string) error { return fmt.Errorf("%s is missing or empty", field) }

// repoName reports whether s can stand in the path of a repository: these
// names become parts of URLs and of texts for Nomad.
func repoName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return len(s) <= maxRepo && s != "." && s != ".." && strings.Trim(s, letters) == ""
}

// sentence returns what is wrong with a body, with the field's name as in the body.
func sentence(err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType):
		return fmt.Errorf("%s must be %s, not %s", cmp.Or(wrongType.Field, "the body"), kind(wrongType.Type), router.Cut(wrongType.Value, 40))
	case errors.As(err, &syntax):
		return fmt.Errorf("the body is not JSON: %w at byte %d", syntax, syntax.Offset)
	}
	return errors.New("the body is not JSON")
}

func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "an array"
	case reflect.Struct:
		return "an object"
	}
	return "a whole number"
}
