package runners

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/router/decide"
)

// exitOutdated is the exit code of a runner whose version GitHub refuses, where its environment
// has ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1 (Constants.cs of actions/runner
// 2.336.0, read 2026-11-24). A script that fetches the configuration may exit with it, too, so
// it counts only once the runner has that.
const exitOutdated = 7

const (
	versionFresh = time.Hour           // for which the version of a rule's last runner counts
	versionAgain = 10 * time.Minute    // until GitHub is asked again about a rule's runners, if it did not say
	endFresh     = 24 * time.Hour      // for which GitHub's answer about a version counts
	endAgain     = time.Hour           // until it is asked again, whatever it answered
	mixedFor     = 24 * time.Hour      // of two versions that were seen within it, both are in use
	versionsKept = 30 * 24 * time.Hour // after they were seen
	maxVersions  = 500
	versionBatch = 20 // rules whose runners GitHub is asked about at once
)

// A VersionStore is what Versions use of the database.
type VersionStore interface {
	// Unversioned returns up to limit runners that are online or have a job and whose version
	// is not known, with their Rule, Rules, name and target: those that were started by these
	// rules, or that were adopted, except those of some rules by name.
	Unversioned(ctx context.Context, rules string, except []string, limit int) ([]router.Runner, error)

	SetRunnerVersion(ctx context.Context, runnerID string, v router.RunnerVersion) error

	// RunnerVersions returns which versions the runners of the rules have, by rule and version.
	RunnerVersions(ctx context.Context) ([]router.RuleVersion, error)

	SetRunnerVersions(ctx context.Context, all []router.RuleVersion) error
}

// Versions finds out which versions of GitHub's runner the rules start, and how long GitHub
// supports them. The version is the one that GitHub's own list has of a runner: GitHub goes by
// that one, while a claim comes before the runner runs, and a runner may replace the version
// that its jobspec names. One per database runs. It is made by NewVersions.
type Versions struct {
	Store   VersionStore
	GitHub  router.GitHub
	Decider *decide.Decider
	Now     func() time.Time

	mu    sync.Mutex              // held while the list in the database is changed
	asked map[string]time.Time    // by rule: until when GitHub is not asked about its runners
	tried map[versionAt]time.Time // until when it is not asked again about a version
}

// A versionAt is a version of the runner at a GitHub, whose host is "" if it is the only one.
type versionAt struct {
	host    string
	version router.RunnerVersion
}

func at(one router.RuleVersion) versionAt { return versionAt{one.Target.Host, one.Version} }

// NewVersions returns Versions that have asked nothing yet.
func NewVersions(v *Versions) *Versions {
	v.asked, v.tried = map[string]time.Time{}, map[versionAt]time.Time{}
	return v
}

// Look asks GitHub for the version of one runner of each rule that has one at work, once an
// hour and after a change of the rules, and once a day how long it supports those versions.
func (v *Versions) Look(ctx context.Context) error {
	list, err := v.Store.RunnerVersions(ctx)
	if err != nil {
		return err
	}
	now := v.Now()
	var known []string
	for _, one := range list {
		if one.Rules == v.Decider.Version() && now.Sub(one.Seen) < versionFresh {
			known = append(known, one.Rule)
		}
	}
	for rule, until := range v.asked {
		if now.Before(until) {
			known = append(known, rule)
		}
	}
	runners, err := v.Store.Unversioned(ctx, v.Decider.Version(), known, versionBatch)
	if err != nil {
		return err
	}
	var errs []error
	full := map[string]bool{} // hosts that take no more for now
	for _, r := range runners {
		if full[r.Target.Host] || now.Before(v.asked[r.Rule]) {
			continue
		}
		v.asked[r.Rule] = now.Add(versionAgain)
		found, err := v.runner(ctx, r)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, router.ErrNotFound): // it has ended
		case err != nil:
			full[r.Target.Host] = errors.As(err, new(*router.RetryAtError))
			errs = append(errs, fmt.Errorf("ask GitHub for the version of runner %s: %w", r.Name, err))
		case found.Version == "" && found.Busy: // an Enterprise Server, which does not say
			v.asked[r.Rule] = now.Add(endFresh)
		case found.Version != "":
			errs = append(errs, v.saw(ctx, r, found.Version))
		}
	}
	return errors.Join(append(errs, v.lookUp(ctx, full))...)
}

func (v *Versions) runner(ctx context.Context, r router.Runner) (router.GitHubRunner, error) {
	ctx, cancel := context.WithTimeout(ctx, router.GitHubTimeout)
	defer cancel()
	return v.GitHub.Runner(ctx, r.Target, r.Name)
}

// saw records that a runner has a version. Its error is the store's.
func (v *Versions) saw(ctx context.Context, r router.Runner, version router.RunnerVersion) error {
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	if err := v.Store.SetRunnerVersion(ctx, r.ID, version); err != nil {
		return fmt.Errorf("record the version of runner %s: %w", r.ID, err)
	}
	rules := v.Decider.Version()
	if r.Rules != "" && r.Rules != rules {
		return nil // the rules may name another by now
	}
	return v.change(ctx, func(list []router.RuleVersion) []router.RuleVersion {
		one := router.RuleVersion{Rule: r.Rule, Rules: rules, Version: version, Target: r.Target, Seen: v.Now()}
		for _, same := range list { // of another rule, too
			if at(same) == at(one) && !same.Asked.Before(one.Asked) {
				one.End, one.Asked, one.Silent = same.End, same.Asked, same.Silent
			}
		}
		return append(slices.DeleteFunc(list, func(o router.RuleVersion) bool { return o.Rule == one.Rule && (at(o) == at(one) || o.Rules != rules) }), one)
	})
}

// change changes the list in the database, and leaves out what is no longer in use.
func (v *Versions) change(ctx context.Context, f func([]router.RuleVersion) []router.RuleVersion) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	list, err := v.Store.RunnerVersions(ctx)
	if err != nil {
		return err
	}
	list = f(list)
	newest := map[string]time.Time{}
	for _, one := range list {
		if one.Seen.After(newest[one.Rule]) {
			newest[one.Rule] = one.Seen
		}
	}
	rules, now := v.Decider.Rules().Rules(), v.Now()
	list = slices.DeleteFunc(list, func(one router.RuleVersion) bool {
		return newest[one.Rule].Sub(one.Seen) > mixedFor || now.Sub(one.Seen) > versionsKept || !slices.Contains(rules, one.Rule)
	})
	slices.SortFunc(list, func(a, b router.RuleVersion) int { return b.Seen.Compare(a.Seen) })
	list = list[:min(len(list), maxVersions)]
	slices.SortFunc(list, func(a, b router.RuleVersion) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Target.Host, b.Target.Host))
	})
	return v.Store.SetRunnerVersions(ctx, list)
}

// lookUp asks GitHub how long it supports the versions in use of which it has not said so for
// a day, except at hosts that take no more for now.
func (v *Versions) lookUp(ctx context.Context, except map[string]bool) error {
	list, err := v.Store.RunnerVersions(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, one := range list {
		now := v.Now()
		v.mu.Lock()
		tried := now.Before(v.tried[at(one)]) // for another rule, too
		v.mu.Unlock()
		if except[one.Target.Host] || now.Sub(one.Asked) < endFresh || tried {
			continue
		}
		if _, err := v.end(ctx, one.Target, one.Version); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// end asks GitHub how long it supports a version, and records the answer.
func (v *Versions) end(ctx context.Context, t router.Target, version router.RunnerVersion) (end router.VersionEnd, err error) {
	v.mu.Lock()
	maps.DeleteFunc(v.tried, func(_ versionAt, until time.Time) bool { return !v.Now().Before(until) })
	v.tried[versionAt{t.Host, version}] = v.Now().Add(endAgain)
	v.mu.Unlock()
	githubCtx, cancel := context.WithTimeout(ctx, router.GitHubTimeout)
	defer cancel()
	end, err = v.GitHub.VersionEnd(githubCtx, t, version)
	if err != nil && !errors.Is(err, router.ErrNotFound) { // such as 403: the runners are served all the same
		return end, fmt.Errorf("ask GitHub how long it supports version %s of the runner: %w", version, err)
	}
	silent := err != nil
	storeCtx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	return end, v.change(storeCtx, func(list []router.RuleVersion) []router.RuleVersion {
		for i := range list {
			if at(list[i]) == (versionAt{t.Host, version}) {
				list[i].End, list[i].Asked, list[i].Silent = end, v.Now(), silent
			}
		}
		return list
	})
}

// outdated returns since when GitHub gives runners of a version no jobs, as GitHub said within
// the last hour or, if it does not answer now, before; false: it does, or does not say.
func (v *Versions) outdated(ctx context.Context, t router.Target, version router.RunnerVersion) (since time.Time, is bool) {
	if version == "" {
		return since, false
	}
	list, err := v.Store.RunnerVersions(ctx)
	i := slices.IndexFunc(list, func(one router.RuleVersion) bool { return at(one) == versionAt{t.Host, version} })
	if err != nil || i < 0 || v.Now().Sub(list[i].Asked) >= versionFresh {
		if end, err := v.end(ctx, t, version); err == nil {
			return end.Jobs, !end.Jobs.IsZero() && v.Now().After(end.Jobs)
		}
	}
	if err != nil || i < 0 {
		return since, false
	}
	since = list[i].End.Jobs
	return since, !since.IsZero() && v.Now().After(since)
}
