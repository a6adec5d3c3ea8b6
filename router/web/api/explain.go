package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"switchyard/router"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

// A Question describes a job that the rules in force are asked about: one that
// is known, by its ID, or one that may never be.
type Question struct {
	JobID int64 `json:"job_id,omitempty"` // 0: the job is the one that the fields below describe, up to All

	Repo       string      `json:"repo,omitempty"` // owner/name
	Host       string      `json:"host,omitempty"` // of its GitHub; "": github.com
	Visibility string      `json:"visibility,omitempty"`
	Fork       bool        `json:"fork,omitempty"` // the repository is one
	Labels     []string    `json:"labels"`
	Job        string      `json:"job,omitempty"`
	Workflow   string      `json:"workflow,omitempty"`
	Branch     string      `json:"branch,omitempty"`
	Sender     string      `json:"sender,omitempty"`
	Attempt    int         `json:"attempt,omitempty"` // of the run; 0: the first
	Run        *router.Run `json:"run,omitempty"`     // null: it is not known

	All    bool `json:"all,omitempty"`    // trace every rule, also those after the one that took the job
	Render bool `json:"render,omitempty"` // with the Nomad job
	Queue  bool `json:"queue,omitempty"`  // with how the job stands among those that wait for a place under its limit
}

// An Answer is what the rules in force decide for a Question.
type Answer struct {
	Decision    router.Decision `json:"decision"`     // as `switchyard explain --format json` prints it
	NomadJob    json.RawMessage `json:"nomad_job"`    // as `nomad job run -json` takes it, without the claim token; null: none was made
	NotRendered string          `json:"not_rendered"` // why there is no Nomad job though one was asked for; "" otherwise
	Warm        string          `json:"warm"`         // whether the job may take a warm runner of its rule, and why not; "": its rule keeps none
	Queue       *Queue          `json:"queue"`        // how the job stands, or would if it came now, if that was asked for; null: it does not wait for a place under a limit
}

// Described returns the job that the question describes, on its first try, or why it describes none.
func (q Question) Described() (router.Job, error) {
	owner, name, ok := strings.Cut(q.Repo, "/")
	switch {
	case !ok || owner == "" || name == "" || strings.Contains(name, "/"):
		return router.Job{}, problem.New(http.StatusBadRequest, "repo %q: want owner/name", q.Repo)
	case q.Host != "" && !rules.IsHost(q.Host):
		return router.Job{}, problem.New(http.StatusBadRequest, "host %q: want a host such as github.example.com, in lower case", q.Host)
	case q.Visibility != "" && !slices.Contains([]string{"private", "internal", "public"}, q.Visibility):
		return router.Job{}, problem.New(http.StatusBadRequest, "visibility %q: want private, internal or public", q.Visibility)
	case q.Labels == nil:
		return router.Job{}, problem.New(http.StatusBadRequest, "labels is missing: a list of the job's runs-on")
	}
	j := router.Job{
		Repo: router.Repo{
			Host: cmp.Or(q.Host, rules.DefaultHost), Owner: owner, Name: name, FullName: q.Repo,
			Private: q.Visibility != "public", Visibility: cmp.Or(q.Visibility, "private"), Fork: q.Fork,
		},
		Name: q.Job, Workflow: q.Workflow, Branch: q.Branch, Sender: q.Sender,
		Labels: q.Labels, Attempt: max(q.Attempt, 1), Try: 1,
	}
	if q.Run != nil {
		j.Decision = &router.Decision{Run: q.Run} // where the router keeps what it knows of a run
	}
	return j, nil
}

// Explain answers a question for the principal of ctx.
func (a *API) Explain(ctx context.Context, q Question) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, ReadTimeout)
	defer cancel()
	var j router.Job
	var err error
	if q.JobID == 0 {
		j, err = q.Described()
	} else {
		if rest := q; rest.Repo+rest.Host+rest.Visibility+rest.Job+rest.Workflow+rest.Branch+rest.Sender != "" || q.Labels != nil || q.Run != nil || q.Fork || q.Attempt != 0 {
			return Answer{}, problem.New(http.StatusBadRequest, "job_id already identifies the job: leave the other fields out")
		}
		j, err = a.VisibleJob(ctx, q.JobID)
	}
	if err != nil {
		return Answer{}, err
	}
	facts := j.Facts()
	if j.Decision != nil {
		facts.Run = j.Decision.Run
	}
	answer := Answer{Decision: Decide(a.config.App.Rules(), facts, q.All)}
	answer.Warm = a.warmPlan().Says(&answer.Decision, a.config.Now())
	if q.Queue {
		if answer.Queue, err = queueOf(ctx, a.Database, j, &answer.Decision, a.config.Now()); err != nil {
			return Answer{}, err
		}
	}
	if !q.Render {
		return answer, nil
	}
	switch {
	case answer.Decision.Outcome != rules.Routed:
		answer.NotRendered = "the job gets no runner"
	case a.config.Cluster == nil:
		answer.NotRendered = "this server does not render Nomad jobs"
	default:
		if answer.NomadJob, err = a.config.Cluster.Render(ctx, j, answer.Decision); err != nil {
			answer.NomadJob, answer.NotRendered = nil, err.Error()
		}
	}
	return answer, nil
}

// Decide decides a job, with a trace that is never nil: of every rule if all is set.
func Decide(set *rules.Set, facts rules.Facts, all bool) (d rules.Decision) {
	if all {
		d = set.Explain(facts)
	} else {
		d = set.Decide(facts, true)
	}
	d.Trace = list(d.Trace)
	return d
}

func (a *API) explain(req *http.Request) (any, error) {
	if err := noParameters(req); err != nil {
		return nil, err
	}
	var q Question
	if err := decodeBody(req, &q, `{"repo": "owner/name", "labels": ["self-hosted", "linux"]}`); err != nil {
		return nil, err
	}
	return a.Explain(req.Context(), q)
}

// decodeBody decodes a request's body, one JSON object like example.
func decodeBody(req *http.Request, v any, example string) error {
	dec := json.NewDecoder(req.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil && dec.More() {
		err = errors.New("there is more after it")
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return problem.New(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", large.Limit)
	case err != nil:
		return problem.New(http.StatusBadRequest, "the body is not a JSON object such as %s: %v", example, err)
	}
	return nil
}
