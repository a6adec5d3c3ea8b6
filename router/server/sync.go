package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"switchyard/router"
	"time"
)

const (
	syncCalls   = 2000             // of GitHub at most, for one repository
	syncTimeout = 15 * time.Minute // for one repository
	maxRepos    = 10_000           // of a full look
	lookAfter   = 10 * time.Minute // without any record, a start looks at what no list of deliveries tells of
)

// Sync takes a full look at a repository, owner/name, of the GitHub with this
// host, "" being the first: at all its runs that have not ended, and then at
// the jobs of it that the books have as waiting or running and that no such run
// has. It fails with a *RetryAtError when GitHub's rate limit is reached; what
// was looked at until then is kept. Safe for concurrent use.
func (a *App) Sync(ctx context.Context, host, repo string) (router.SyncReport, error) {
	in, known := a.instance(host)
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
	report.Unfinished, err = a.GitHub.Unfinished(ctx, router.Repo{Host: in.Host, Owner: owner, Name: name, FullName: repo}, syncCalls, func(d router.Delivery) error {
		seen[d.Job.ID] = true
		changed, err := a.learn(ctx, d)
		if changed {
			report.Changed++
		}
		return err
	})
	if err != nil {
		return report, fmt.Errorf("look at the runs of %s: %w", repo, err)
	}
	open, err := a.Store.Open(ctx, in.Number, owner, name)
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
		changed, err := a.ask(ctx, j)
		if err != nil {
			return report, fmt.Errorf("look at job %d of %s: %w", j.ID, repo, err)
		}
		if changed {
			report.Changed++
		}
	}
	return report, nil
}

// firstLookMark is "begun" while the first look is taken, and "done" after.
const firstLookMark = "first look"

// firstLookDue reports whether the first look is to be taken: the database is
// empty, as it is when it was deleted, or the last process did not end it.
func (a *App) firstLookDue(ctx context.Context) (bool, error) {
	mark, err := a.Store.Mark(ctx, firstLookMark)
	if err != nil || mark != "" {
		return mark == "begun", err
	}
	counts, err := a.Store.Counts(ctx)
	if err != nil {
		return false, err
	}
	mark = "begun"
	if len(counts) > 0 {
		mark = "done"
	}
	return mark == "begun", a.Store.SetMark(ctx, firstLookMark, mark)
}

// fullLook takes a first look, or one again.
func (a *App) fullLook(ctx context.Context, within func(router.Repo) bool) {
	defer a.lookAgain(a.Now())
	defer a.earlier.end()
	if err := a.firstLook(ctx, within); err != nil && ctx.Err() == nil {
		a.Logger.Error("cannot take a full look at GitHub", "err", err, "fix", router.StoreFix(err))
	}
}

// lookAtUnread takes a full look at the repositories of webhooks of which GitHub
// does not list the deliveries: what came since the database last recorded anything
// may have gone to another, of which this one is a copy.
func (a *App) lookAtUnread(ctx context.Context, known <-chan unread) error {
	select {
	case <-ctx.Done():
	case u := <-known:
		if !u.all && len(u.hooks) == 0 {
			return nil
		}
		a.earlier.begin(false)
		a.fullLook(ctx, func(r router.Repo) bool {
			return u.all || slices.ContainsFunc(u.hooks, func(h router.Hook) bool { return a.tellsOf(h, r) })
		})
	}
	return nil
}

// tellsOf reports whether a webhook tells of the jobs of a repository.
func (w *worker) tellsOf(h router.Hook, r router.Repo) bool {
	if w.hostOf(h.ID) != r.Host {
		return false
	}
	return h.Kind == router.HookApp || strings.EqualFold(r.FullName, h.Owner+"/"+h.Repo) ||
		h.Kind == router.HookOrganization && strings.HasPrefix(strings.ToLower(r.FullName), strings.ToLower(h.Owner)+"/")
}

// firstLook syncs every repository that is known of (within nil), or some: those
// that Nomad has runners for, those of recent jobs, and those that the App is
// installed for. It waits where GitHub's rate limit has it wait. Its error is the
// store's.
func (a *App) firstLook(ctx context.Context, within func(router.Repo) bool) error {
	if err := a.Store.SetMark(ctx, firstLookMark, "begun"); err != nil {
		return err
	}
	repos, err := a.repositories(ctx)
	if within != nil {
		repos = slices.DeleteFunc(repos, func(r router.Repo) bool { return !within(r) })
	}
	if err != nil {
		a.Logger.Warn("not all repositories are known; jobs that wait in the others are found when GitHub tells of them", "err", err)
	}
	var total router.SyncReport
	for _, r := range repos {
		repo := r.FullName
		report, err := a.Sync(ctx, r.Host, repo)
		var later *router.RetryAtError
		for errors.As(err, &later) {
			a.Logger.Info("the full look goes on when GitHub takes more requests", "host", r.Host, "repo", repo, "again_at", later.At)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(max(later.At.Sub(a.Now()), time.Second)):
			}
			report, err = a.Sync(ctx, r.Host, repo)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			a.Logger.Warn("cannot look at a repository; switchyard jobs sync tries again", "host", r.Host, "repo", repo, "err", err)
		}
		total.Jobs, total.Changed, total.Calls = total.Jobs+report.Jobs, total.Changed+report.Changed, total.Calls+report.Calls
	}
	a.Logger.Info("took a full look at GitHub, as the database was empty, or older than the deliveries that GitHub lists",
		"repositories", len(repos), "jobs", total.Jobs, "new", total.Changed, "calls", total.Calls)
	return a.Store.SetMark(ctx, firstLookMark, "done")
}

// repositories are those of a first look, each once, also when it fails.
func (a *App) repositories(ctx context.Context) (repos []router.Repo, err error) {
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
	jobs, _, nomadErr := a.Nomad.Jobs(ctx)
	var errs []error
	if nomadErr != nil {
		errs = append(errs, fmt.Errorf("list Nomad's runners: %w", nomadErr))
	}
	for _, j := range jobs { // first: their runners are waited for
		if j.Status != "dead" {
			id, _, _ := ofRunner(j.RunnerID)
			errs = append(errs, add(a.hostOf(id), j.Repo))
		}
	}
	if !a.latest.IsZero() {
		known, err := a.Store.Repos(ctx, a.latest.Add(-router.DeliveriesKept), maxRepos)
		errs = append(errs, err)
		for _, r := range known {
			errs = append(errs, add(r.Host, r.FullName))
		}
	}
	err = a.GitHub.Repositories(ctx, func(r router.Repo) error { return add(r.Host, r.Owner+"/"+r.Name) })
	return repos, errors.Join(append(errs, err)...)
}
