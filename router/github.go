package router

import (
	"context"
	"time"

	"switchyard/rules"
)

// GitHub is GitHub, as the rooms use it. *gh.Client is the implementation for one
// instance, and gh.Instances for several; see Instance. It keeps to GitHub's rate
// limits: a request that would exceed them is not made and fails with a
// *RetryAtError, see ForClaim.
type GitHub interface {
	// Instances returns the configured instances; nil: one, whose host is not known.
	Instances() []Instance

	// RunnerConfig registers a just-in-time runner and returns its configuration. It
	// fails with ErrNameTaken when a runner already has the name, and with an
	// *UnansweredError when a runner of that name may have been registered all the
	// same. Other errors are classified as for Nomad.Start, and are a *RetryAtError
	// besides when Admit refuses further runners for now. It never retries by itself.
	// Safe for concurrent use.
	RunnerConfig(ctx context.Context, r ConfigRequest) (RunnerConfig, error)

	// RegistrationToken returns what the runner of r needs to register itself. The
	// token is good for every runner of the target and is kept until some minutes
	// before it expires, so that many callers cost one request. Labels that config.sh
	// would misread are a GiveUpError; other errors are classified as for Nomad.Start.
	// Safe for concurrent use.
	RegistrationToken(ctx context.Context, r ConfigRequest) (Registration, error)

	// Run returns what the rules see of a workflow run; none of it changes when the
	// run is re-run. Fork is true when GitHub names another repository as the run's
	// head, or one that is deleted. It is false for a run of the repository's own
	// commit, whoever caused it, such as a run of issue_comment or workflow_run. An
	// answer that lacks any of this is an error. Errors are classified as for
	// Nomad.Start. It never retries by itself. Safe for concurrent use.
	Run(ctx context.Context, repo Repo, runID int64) (Run, error)

	// Admit is called before a runner is started on Nomad. It returns a *RetryAtError
	// while GitHub would not register the runner: a limit is reached, or, with Failing,
	// GitHub fails for the login that registers it or refuses registrations in that
	// place. One runner at a time is then let through, after growing waits. It returns
	// a *FixError when the GitHub is not configured. It makes a small request to see
	// whether GitHub works again, or when some runners were admitted since GitHub last
	// answered that login. Safe for concurrent use.
	Admit(ctx context.Context, a Admission) error

	// Job asks GitHub about a job and returns the answer as a Delivery without ID from
	// SourceGitHub; ErrNotFound when there is no such job, or when GitHub does not show
	// us its repository. Safe for concurrent use.
	Job(ctx context.Context, repo Repo, id int64) (Delivery, error)

	// Runner returns the registered runner with a name; ErrNotFound when there is none.
	// Safe for concurrent use.
	Runner(ctx context.Context, t Target, name string) (GitHubRunner, error)

	// Runners lists the runners registered in t, a hundred per request. As runners come
	// and go meanwhile, one may be missing or listed twice; Runner is exact. Safe for
	// concurrent use.
	Runners(ctx context.Context, t Target) ([]GitHubRunner, error)

	// GroupAccess returns what GitHub says about a runner group of an organization or an
	// enterprise, and the jobs of a repository. A group that does not exist is no error.
	// Errors are classified as for Nomad.Start. Safe for concurrent use.
	GroupAccess(ctx context.Context, t Target, group RunnerGroup, repo Repo) (GroupAccess, error)

	// VersionEnd returns when GitHub ends its support for a version of the runner;
	// ErrNotFound when it does not say, as for a version that was never released, in an
	// enterprise, and on Enterprise Servers. Errors are classified as for Nomad.Start. Safe
	// for concurrent use.
	VersionEnd(ctx context.Context, t Target, v RunnerVersion) (VersionEnd, error)

	// RemoveRunner removes a runner from GitHub. It fails with ErrBusy when the runner
	// has a job, and succeeds when there is none with this ID. Safe for concurrent use.
	RemoveRunner(ctx context.Context, t Target, id int64) error

	Webhooks
	Listings
	Notices
	Variables
	Reruns
}

// A ConfigRequest asks GitHub for a just-in-time runner configuration.
type ConfigRequest struct {
	Repo   Repo // Host, Owner and Name are used
	Runner rules.Runner
	Name   string   // the runner's name
	Labels []string // exactly Job.RunnerLabels
}

// A RunnerConfig is GitHub's answer: the configuration of one registered, single-use runner.
type RunnerConfig struct {
	GitHubID int64
	JIT      Secret // encoded_jit_config
}

// A Registration is what config.sh needs for a runner to register itself.
type Registration struct {
	Token   Secret
	URL     string    // of the target's page on GitHub
	Group   string    // the runner group's name; "": the default one
	Expires time.Time // when GitHub no longer accepts the token
}

// A GitHubRunner is a runner as GitHub knows it.
type GitHubRunner struct {
	ID      int64
	Name    string
	Online  bool
	Busy    bool
	Labels  []string      // as they were given
	Version RunnerVersion // "": it has not connected yet, or GitHub does not say
}

// A GroupAccess is what GitHub says about a runner group and a repository.
type GroupAccess struct {
	Group     string   // its name; "": there is no such group
	Refusal   string   // why its runners get no job of the repository, and what to do about it; "": they may
	Workflows []string // the only ones, by path and ref, whose jobs they get; nil: all
}

// Listings is the part of GitHub that lists jobs and repositories. Errors are
// classified as for Nomad.Start. Safe for concurrent use.
type Listings interface {
	// Sees reports whether GitHub shows us a repository's runs.
	Sees(ctx context.Context, repo Repo) (bool, error)

	// Unfinished calls each with every job of those runs of a repository that have
	// not ended, as a Delivery without ID from SourceGitHub. It makes up to calls
	// requests and reports how far it came, even when it fails.
	Unfinished(ctx context.Context, repo Repo, calls int, each func(Delivery) error) (Unfinished, error)

	// RunJobs calls each with every job of a run's last attempt, as Unfinished does but
	// without the sender. A run that is gone, or that we may not see, has no jobs.
	RunJobs(ctx context.Context, repo Repo, runID int64, each func(Delivery) error) error

	// Repositories calls each with every repository that the App is installed for; a
	// token has none. If one installation cannot be listed, the others still are.
	Repositories(ctx context.Context, each func(Repo) error) error
}

// An Unfinished says what Listings.Unfinished read.
type Unfinished struct {
	Runs  int  `json:"runs"`
	Jobs  int  `json:"jobs"`
	Calls int  `json:"calls"` // requests
	Cut   bool `json:"cut"`   // some were left out: calls was too small, or GitHub does not list more (1,000 runs of one status)
}
