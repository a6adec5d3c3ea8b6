package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

const (
	syncCalls   = 2000             // requests at most, for one repository
	syncTimeout = 15 * time.Minute // for one repository
	fullTries   = 7                // of a repository in a full sync; they take an hour
	maxRepos    = 10_000           // of a full sync
)

// Listed is how long ago a delivery may have come that GitHub surely still lists.
const Listed = router.DeliveriesKept - sweepOverlap

// A SyncStore is what a Syncer uses of the database.
type SyncStore interface {
	Mark(ctx context.Context, name string) (string, error)

	SetMark(ctx context.Context, name, value string) error

	Counts(ctx context.Context) (map[router.JobState]int, error)

	// Open returns the jobs of a repository of an instance that are Held, Queued, Retrying,
	// Dispatched or Running. The repository's name is compared without case.
	Open(ctx context.Context, instance int64, owner, repo string) ([]router.Job, error)

	// Repos returns up to limit repositories of jobs received since then, those of the newest
	// jobs first, with Host, Owner, Name and FullName.
	Repos(ctx context.Context, since time.Time, limit int) ([]router.Repo, error)
}

// A Syncer syncs repositories with GitHub. It is safe for concurrent use; its fields are set
// before, and are required.
type Syncer struct {
	Store   SyncStore
	Nomad   router.Nomad
	GitHub  router.GitHub
	Intake  *Intake
	Sweeper *Sweeper
	First   *FirstSync
	Log     *telemetry.Log
	Now     func() time.Time
	Compare router.TimeHint // given when a full sync is over
}

// Sync brings the jobs of a repository, owner/name, in step with the GitHub of this host; ""
// is the first GitHub. It reads all runs that have not ended, then asks about each job of
// the repository that is open in the database and that no such run has. It fails with a
// *RetryAtError when GitHub's rate limit is reached; what was read until then is kept. Safe
// for concurrent use.
func (sy *Syncer) Sync(ctx context.Context, host, repo string) (router.SyncReport, error) {
	in, known := router.InstanceAt(sy.GitHub, host)
	report := router.SyncReport{Host: in.Host, Repo: repo}
	if !known {
		return report, &router.GiveUpError{Err: fmt.Errorf("no GitHub with host %q is configured", host)}
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
		began := time.Now()
		changed, err := sy.Intake.Learn(ctx, d)
		if changed {
			report.Changed++
			router.Pause(ctx, time.Since(began)) // new jobs come first: the more there are, the longer this took
		}
		return err
	})
	if err != nil {
		return report, fmt.Errorf("read the runs of %s: %w", repo, err)
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
			return report, fmt.Errorf("ask about job %d of %s: %w", j.ID, repo, err)
		}
		if changed {
			report.Changed++
		}
	}
	return report, nil
}

// FirstSyncMark is the name of a mark in the database: "begun" while the first sync is under
// way, and "done" after it.
const FirstSyncMark = "first look"

// FirstDue reports whether the first sync is due: the database is empty, as after it was
// deleted, or the last process did not finish the sync.
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

// Full syncs all known repositories, or those for which within is true if it is not nil.
// Those that fail are tried again afterwards, with growing waits.
func (sy *Syncer) Full(ctx context.Context, within func(router.Repo) bool) {
	failed, err := sy.all(ctx, within)
	sy.First.End()
	sy.Compare.At(sy.Now())
	for try := 1; err == nil && len(failed) > 0 && try < fullTries && router.Pause(ctx, time.Minute<<(try-1)); try++ {
		failed, err = sy.each(ctx, failed, try+1 == fullTries)
	}
	if err == nil && ctx.Err() == nil {
		err = sy.Store.SetMark(ctx, FirstSyncMark, "done")
		sy.Compare.At(sy.Now()) // runners on Nomad whose jobs are not known by now are those of jobs that ended
	}
	if err != nil && ctx.Err() == nil {
		sy.Log.Error("cannot sync with github", "err", err, "fix", router.StoreFix(err))
	}
}

// SyncUnread waits for the first sweep, then syncs the repositories of those webhooks whose
// deliveries GitHub does not list. What came after the database last recorded anything may
// have gone to another one, of which this is a copy.
func (sy *Syncer) SyncUnread(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case u := <-sy.Sweeper.unread:
		if !u.all && len(u.hooks) == 0 {
			return nil
		}
		sy.First.Begin()
		sy.Full(ctx, func(r router.Repo) bool {
			return u.all || slices.ContainsFunc(u.hooks, func(h router.Hook) bool { return sy.covers(h, r) })
		})
	}
	return nil
}

// SyncHook syncs the repositories of a webhook whose deliveries are not read.
func (sy *Syncer) SyncHook(ctx context.Context, h router.Hook) {
	sy.First.Begin()
	sy.Full(ctx, func(r router.Repo) bool { return sy.covers(h, r) })
}

// covers reports whether a webhook sends deliveries of a repository's jobs.
func (sy *Syncer) covers(h router.Hook, r router.Repo) bool {
	if router.HostOf(sy.GitHub, h.ID) != r.Host {
		return false
	}
	return h.Kind == router.HookApp || strings.EqualFold(r.FullName, h.Owner+"/"+h.Repo) ||
		h.Kind == router.HookOrganization && strings.HasPrefix(strings.ToLower(r.FullName), strings.ToLower(h.Owner)+"/")
}

// all syncs the repositories that Nomad has runners for, those of recent jobs, and those
// that the App is installed for. It returns those that failed. Its error is the store's.
func (sy *Syncer) all(ctx context.Context, within func(router.Repo) bool) (failed []router.Repo, err error) {
	if err := sy.Store.SetMark(ctx, FirstSyncMark, "begun"); err != nil {
		return nil, err
	}
	repos, err := sy.repositories(ctx)
	if within != nil {
		repos = slices.DeleteFunc(repos, func(r router.Repo) bool { return !within(r) })
	}
	if err != nil {
		sy.Log.Warn("cannot list all repositories; jobs that wait in the others become known by their next deliveries", "err", err)
	}
	return sy.each(ctx, repos, false)
}

// each syncs repositories, and returns those that failed. It waits whenever GitHub's rate
// limit is reached. last says that they are not tried again. Its error is that of ctx.
func (sy *Syncer) each(ctx context.Context, repos []router.Repo, last bool) (failed []router.Repo, err error) {
	var total router.SyncReport
	synced := 0
	for _, r := range repos {
		repo := r.FullName
		report, err := sy.Sync(ctx, r.Host, repo)
		var later *router.RetryAtError
		for errors.As(err, &later) {
			sy.Log.Info("the sync continues when github takes more requests", "host", r.Host, "repo", repo, "again_at", later.At)
			if !router.Pause(ctx, max(later.At.Sub(sy.Now()), time.Second)) {
				return nil, ctx.Err()
			}
			report, err = sy.Sync(ctx, r.Host, repo)
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			synced++
		case last || errors.As(err, new(*router.GiveUpError)):
			sy.Log.Throttled(slog.LevelWarn, "", "cannot sync a repository; to try again, use switchyard jobs sync", "host", r.Host, "repo", repo, "err", err)
		default:
			sy.Log.Throttled(slog.LevelWarn, "", "cannot sync a repository; it is tried again", "host", r.Host, "repo", repo, "err", err)
			failed = append(failed, r)
		}
		total.Jobs, total.Changed, total.Calls = total.Jobs+report.Jobs, total.Changed+report.Changed, total.Calls+report.Calls
	}
	sy.Log.Info("synced with github, as the database was empty, or older than the deliveries that github lists",
		"repositories", synced, "failed", len(repos)-synced, "jobs", total.Jobs, "new", total.Changed, "calls", total.Calls)
	return failed, nil
}

// repositories returns the repositories of a full sync, each once, even when it fails.
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
	var errs []error
	jobs := sy.First.Jobs(ctx)
	if jobs == nil {
		var err error
		if jobs, _, err = sy.Nomad.Jobs(ctx, ""); err != nil {
			errs = append(errs, fmt.Errorf("list Nomad's runners: %w", err))
		}
	}
	for _, j := range jobs { // first, because jobs wait for their runners
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
