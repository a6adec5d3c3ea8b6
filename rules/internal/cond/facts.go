package cond

// Repo is the repository the job belongs to, as conditions see it (repo.…).
type Repo struct {
	Host       string `expr:"host" json:"host,omitempty"`   // of its GitHub: github.com, TENANT.ghe.com or a server's
	Owner      string `expr:"owner" json:"owner"`           // organization or user
	Name       string `expr:"name" json:"name"`             // without the owner
	FullName   string `expr:"full_name" json:"full_name"`   // owner/name
	Private    bool   `expr:"private" json:"private"`       // true for private and internal repositories
	Visibility string `expr:"visibility" json:"visibility"` // public, private or internal; "" when GitHub did not say
	Fork       bool   `expr:"fork" json:"fork"`             // the repository itself is a fork
	URL        string `expr:"url" json:"-"`                 // of its page, as of Host and FullName: https://github.com/acme/web
}

// Job is the GitHub workflow job, as conditions see it (job.…).
type Job struct {
	Name     string `expr:"name" json:"name"`         // the job's name in the run, matrix values included
	Workflow string `expr:"workflow" json:"workflow"` // the workflow's name; "" when GitHub did not say
	Branch   string `expr:"branch" json:"branch"`     // head branch; "" when GitHub did not say
	Attempt  int    `expr:"attempt" json:"attempt"`   // run attempt, from 1
	Sender   string `expr:"sender" json:"sender"`     // login of whoever caused the delivery
}

// Run is the workflow run, as conditions see it (run.…). It costs a call to
// GitHub, so it is looked up only for jobs that reach a rule that asks for it.
type Run struct {
	Event string `expr:"event" json:"event"` // what started the run: push, pull_request, …
	Fork  bool   `expr:"fork" json:"fork"`   // the commit comes from another repository: a pull request of a fork
	Actor string `expr:"actor" json:"actor"` // login of whoever started the run first
}

// Env is what an expression sees: the README's table of variables is generated
// from its fields.
type Env struct {
	Labels []string       `expr:"labels"` // lower case, without doubles
	Param  map[string]any `expr:"param"`  // values of the parameter labels that the job has; nil for the others
	Repo   Repo           `expr:"repo"`
	Job    Job            `expr:"job"`
	Run    Run            `expr:"run"` // in a rule's if only

	RunKnown bool     `expr:"-"`
	Asked    []string `expr:"-"` // the job's labels as they came

	Spent, Limit    int `expr:"-"` // steps of work so far, and at most; 0: DecisionSteps
	text, allLabels int // bytes of the longest text, and of all labels; text 0: not counted yet
}

// The bounds of what Decide takes of a job's labels. GitHub registers a runner
// with at most 100 (its OpenAPI description, read 2026-11-24).
const (
	MaxLabels      = 100
	MaxLabelLength = 256 // characters
)

// A Spot is a place in a file.
type Spot struct {
	File         string
	Line, Column int
}
