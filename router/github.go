package router

import (
	"context"
	"time"

	"switchyard/rules"
)

// GitHub is the GitHub side, as the rooms use it. *gh.Client is the
// implementation for one, and gh.Instances for several; see Instance. It keeps
// to GitHub's rate limits: a request over them is not made and fails with a
// *RetryAtError, see ForClaim.
type GitHub interface {
	// Instances are those that are configured; nil: one, whose host is not known.
	Instances() []Instance

	// RunnerConfig registers a just-in-time runner and returns its
	// configuration. It fails with ErrNameTaken when a runner has the name
	// already, and with an *UnansweredError when there may be a runner of that
	// name all the same; errors are otherwise sorted as for Nomad.Start, and are
	// a *RetryAtError besides when Admit admits no other for now. It never
	// retries by itself. Safe for concurrent use.
	RunnerConfig(ctx context.Context, r ConfigRequest) (RunnerConfig, error)

	// RegistrationToken returns what the runner of r registers itself with. Its
	// token is good for every runner of the target and is kept until some
	// minutes before it expires, so that many callers cost one request. Labels
	// that config.sh would read otherwise are a GiveUpError; errors are
	// otherwise sorted as for Nomad.Start. Safe for concurrent use.
	RegistrationToken(ctx context.Context, r ConfigRequest) (Registration, error)

	// Run looks up what the rules see of a workflow run; none of it changes
	// when the run is run again. Fork is true when GitHub names another
	// repository as the run's head, or one that is deleted; it is false for a
	// run of the repository's own commit, whoever caused it, as those of
	// issue_comment and workflow_run are. An answer that leaves any of it open
	// is an error.
	// Errors are sorted as for Nomad.Start. It never retries by itself. Safe
	// for concurrent use.
	Run(ctx context.Context, repo Repo, runID int64) (Run, error)

	// Admit is asked before a runner is started on Nomad. It is a *RetryAtError
	// while GitHub would not register it: a limit is reached, or, Failing, GitHub
	// fails for the login that registers it, or refuses registrations in that
	// place; then one runner at a time is let through, after waits that grow. It
	// is a *FixError when the GitHub is not configured. It makes a small request
	// when GitHub is to show that it is back, or has not answered that login since
	// some runners were admitted. Safe for concurrent use.
	Admit(ctx context.Context, a Admission) error

	// Job asks what GitHub says of a job now, as a Delivery without ID from
	// SourceGitHub; ErrNotFound when there is none, or when GitHub does not let
	// us see its repository. Safe for concurrent use.
	Job(ctx context.Context, repo Repo, id int64) (Delivery, error)

	// Runner finds a registered runner by its name; ErrNotFound when there is
	// none. Safe for concurrent use.
	Runner(ctx context.Context, t Target, name string) (GitHubRunner, error)

	// Runners lists those registered in t, a hundred in a request. As others
	// come and go meanwhile, one may be missing or there twice: Runner tells.
	// Safe for concurrent use.
	Runners(ctx context.Context, t Target) ([]GitHubRunner, error)

	// RemoveRunner takes a runner off GitHub; ErrBusy when it has a job, no
	// error when there is none of this ID. Safe for concurrent use.
	RemoveRunner(ctx context.Context, t Target, id int64) error

	Webhooks
	Listings
	Notices
}

// A ConfigRequest asks GitHub for a just-in-time runner configuration.
type ConfigRequest struct {
	Repo   Repo // Host, Owner and Name are used
	Runner rules.Runner
	Name   string   // the runner's name
	Labels []string // exactly Job.RunnerLabels
}

// A RunnerConfig is GitHub's answer: one registered, single-use runner.
type RunnerConfig struct {
	GitHubID int64
	JIT      Secret // encoded_jit_config
}

// A Registration lets runners register themselves: it is what config.sh needs.
type Registration struct {
	Token   Secret
	URL     string    // of the target's page on GitHub
	Group   string    // the runner group's name; "": the default one
	Expires time.Time // when GitHub takes the token no more
}

// A GitHubRunner is a runner as GitHub knows it.
type GitHubRunner struct {
	ID     int64
	Name   string
	Online bool
	Busy   bool
}

// Listings is the part of GitHub that lists what there is. Errors are sorted
// as for Nomad.Start. Safe for concurrent use.
type Listings interface {
	// Sees reports whether GitHub shows us a repository's runs.
	Sees(ctx context.Context, repo Repo) (bool, error)

	// Unfinished calls each for every job of those runs of a repository that
	// have not ended, as a Delivery without ID from SourceGitHub. It makes up to
	// calls requests and says how far it came, also when it fails.
	Unfinished(ctx context.Context, repo Repo, calls int, each func(Delivery) error) (Unfinished, error)

	// RunJobs calls each for every job of a run's last attempt, likewise, but for
	// its sender; a run that is gone, or that we may not see, has none.
	RunJobs(ctx context.Context, repo Repo, runID int64, each func(Delivery) error) error

	// Repositories calls each for every repository that the App is installed
	// for; a token has none. What one installation does not show keeps it from
	// no other.
	Repositories(ctx context.Context, each func(Repo) error) error
}

// Unfinished says what Listings.Unfinished looked at.
type Unfinished struct {
	Runs  int  `json:"runs"`
	Jobs  int  `json:"jobs"`
	Calls int  `json:"calls"` // requests
	Cut   bool `json:"cut"`   // there is more than calls, or than GitHub lists (1,000 runs of one status)
}
