package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

const (
	syncCalls   = 2000             // of GitHub at most, for one repository
	syncTimeout = 15 * time.Minute // for one repository
	maxRepos    = 10_000           // of a full look
)

// Listed is how long before a start deliveries may have come that GitHub still lists.
const Listed = router.DeliveriesKept - sweepOverlap

// A SyncStore is what a Syncer uses of the database.
type SyncStore interface {
	Mark(ctx context.Context, name string) (string, error)

	SetMark(ctx context.Context, name, value string) error

	Counts(ctx context.Context) (map[router.JobState]int, error)

	// Open returns the jobs of a repository of an instance, in any spelling,
	// that are Held, Queued, Retrying, Dispatched or Running.
	Open(ctx context.Context, instance int64, owner, repo string) ([]router.Job, error)

	// Repos returns up to limit repositories of jobs that were received since,
	// with Host, Owner, Name and FullName.
	Repos(ctx context.Context, since time.Time, limit int) ([]router.Repo, error)
}

// A Syncer takes full looks at GitHub. Its exported fields are set before it is used,
// and required. It is safe for concurrent use.
type Syncer struct {
	Store   SyncStore
	Nomad   router.Nomad
	GitHub  router.GitHub
	Intake  *Intake
	Sweeper *Sweeper
	First   *FirstSync
	Log     *telemetry.Log
	Now     func() time.Time
	Compare router.TimeHint // given when the first look is over
}

// Sync takes a full look at a repository, owner/name, of the GitHub with this
// host, "" being the first: at all its runs that have not ended, and then at
// the jobs of it that the books have as waiting or running and that no such run
// has. It fails with a *RetryAtError when GitHub's rate limit is reached; what
// was looked at until then is kept. Safe for concurrent use.
func (sy *Syncer) Sync(ctx context.Context, host, repo string) (router.SyncReport, error) {
	in, known := router.InstanceAt(sy.GitHub, host)
	report := router.SyncReport{Host: in.Host, Repo: repo}
	if !known {
		return report, &router.GiveUpError{Err: fmt.Errorf("no GitHub with the host %q is configured", host)}
	}
	owner, name, ok := strings.Cut(repo, "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return report, &router.GiveUpError{Err: fmt.Errorf("%q is no repository: want owner/name", repo)}
	}
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	seen := map[int64]bool{}
	var err error
	report.Unfinished, err = sy.GitHub.Unfinished(ctx, router.Repo{Host: in.Host, Owner: owner, Name: name, FullName: repo}, syncCalls, func(d router.Delivery) error {
		seen[d.Job.ID] = true
		changed, err := sy.Intake.Learn(ctx, d)
		if changed {
			report.Changed++
		}
		return err
	})
	if err != nil {
		return report, fmt.Errorf("look at the runs of %s: %w", repo, err)
	}
	open, err := sy.Store.Open(ctx, in.Number, owner, name)
	if err != nil {
		return report, err
	}
	for _, j := range open {
		if seen[j.ID] {
			continue
		}
		if report.Calls >= syncCalls {
			report.Cut = true
			break
		}
		report.Calls++
		report.Jobs++
		changed, err := sy.Intake.Ask(ctx, j)
		if err != nil {
			return report, fmt.Errorf("look at job %d of %s: %w", j.ID, repo, err)
		}
		if changed {
			report.Changed++
		}
	}
	return report, nil
}

// FirstSyncMark is "begun" while the first look is taken, and "done" after.
const FirstSyncMark = "first look"

// FirstDue reports whether the first look is to be taken: the database is
// empty, as it is when it was deleted, or the last process did not end it.
func (sy *Syncer) FirstDue(ctx context.Context) (bool, error) {
	mark, err := sy.Store.Mark(ctx, FirstSyncMark)
	if err != nil || mark != "" {
		return mark == "begun", err
	}
	counts, err := sy.Store.Counts(ctx)
	if err != nil {
		return false, err
	}
	mark = "begun"
	if len(counts) > 0 {
		mark = "done"
	}
	return mark == "begun", sy.Store.SetMark(ctx, FirstSyncMark, mark)
}

// Full takes a first look, or one again.
func (sy *Syncer) Full(ctx context.Context, within func(router.Repo) bool) {
	defer sy.Compare.At(sy.Now())
	defer sy.First.End()
	if err := sy.all(ctx, within); err != nil && ctx.Err() == nil {
		sy.Log.Error("cannot take a full look at GitHub", "err", err, "fix", router.StoreFix(err))
	}
}

// SyncUnread takes a full look at the repositories of webhooks of which GitHub
// does not list the deliveries: what came since the database last recorded anything
// may have gone to another, of which this one is a copy.
func (sy *Syncer) SyncUnread(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case u := <-sy.Sweeper.unread:
		if !u.all && len(u.hooks) == 0 {
			return nil
		}
		sy.First.Begin(false)
		sy.Full(ctx, func(r router.Repo) bool {
			return u.all || slices.ContainsFunc(u.hooks, func(h router.Hook) bool { return sy.tellsOf(h, r) })
		})
	}
	return nil
}

// tellsOf reports whether a webhook tells of the jobs of a repository.
func (sy *Syncer) tellsOf(h router.Hook, r router.Repo) bool {
	if router.HostOf(sy.GitHub, h.ID) != r.Host {
		return false
	}
	return h.Kind == router.HookApp || strings.EqualFold(r.FullName, h.Owner+"/"+h.Repo) ||
		h.Kind == router.HookOrganization && strings.HasPrefix(strings.ToLower(r.FullName), strings.ToLower(h.Owner)+"/")
}

// all syncs every repository that is known of (within nil), or some: those
// that Nomad has runners for, those of recent jobs, and those that the App is
// installed for. It waits where GitHub's rate limit has it wait. Its error is the
// store's.
func (sy *Syncer) all(ctx context.Context, within func(router.Repo) bool) error {
	if err := sy.Store.SetMark(ctx, FirstSyncMark, "begun"); err != nil {
		return err
	}
	repos, err := sy.repositories(ctx)
	if within != nil {
		repos = slices.DeleteFunc(repos, func(r router.Repo) bool { return !within(r) })
	}
	if err != nil {
		sy.Log.Warn("not all repositories are known; jobs that wait in the others are found when GitHub tells of them", "err", err)
	}
	var total router.SyncReport
	for _, r := range repos {
		repo := r.FullName
		report, err := sy.Sync(ctx, r.Host, repo)
		var later *router.RetryAtError
		for errors.As(err, &later) {
			sy.Log.Info("the full look goes on when GitHub takes more requests", "host", r.Host, "repo", repo, "again_at", later.At)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(max(later.At.Sub(sy.Now()), time.Second)):
			}
			report, err = sy.Sync(ctx, r.Host, repo)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			sy.Log.Warn("cannot look at a repository; switchyard jobs sync tries again", "host", r.Host, "repo", repo, "err", err)
		}
		total.Jobs, total.Changed, total.Calls = total.Jobs+report.Jobs, total.Changed+report.Changed, total.Calls+report.Calls
	}
	sy.Log.Info("took a full look at GitHub, as the database was empty, or older than the deliveries that GitHub lists",
		"repositories", len(repos), "jobs", total.Jobs, "new", total.Changed, "calls", total.Calls)
	return sy.Store.SetMark(ctx, FirstSyncMark, "done")
}

// repositories are those of a first look, each once, also when it fails.
func (sy *Syncer) repositories(ctx context.Context) (repos []router.Repo, err error) {
	seen := map[string]bool{}
	add := func(host, repo string) error {
		key := host + "/" + strings.ToLower(repo)
		switch {
		case repo == "" || seen[key]:
		case len(repos) >= maxRepos:
			return fmt.Errorf("there are more than %d repositories", maxRepos)
		default:
			seen[key] = true
			repos = append(repos, router.Repo{Host: host, FullName: repo})
		}
		return nil
	}
	jobs, _, nomadErr := sy.Nomad.Jobs(ctx)
	var errs []error
	if nomadErr != nil {
		errs = append(errs, fmt.Errorf("list Nomad's runners: %w", nomadErr))
	}
	for _, j := range jobs { // first: their runners are waited for
		if j.Status != "dead" {
			id, _, _ := router.ParseRunnerID(j.RunnerID)
			errs = append(errs, add(router.HostOf(sy.GitHub, id), j.Repo))
		}
	}
	if !sy.Sweeper.latest.IsZero() {
		known, err := sy.Store.Repos(ctx, sy.Sweeper.latest.Add(-router.DeliveriesKept), maxRepos)
		errs = append(errs, err)
		for _, r := range known {
			errs = append(errs, add(r.Host, r.FullName))
		}
	}
	err = sy.GitHub.Repositories(ctx, func(r router.Repo) error { return add(r.Host, r.Owner+"/"+r.Name) })
	return repos, errors.Join(append(errs, err)...)
}
