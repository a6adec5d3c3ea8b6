package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/store"
	"switchyard/rules"
)

// runnerTooOld is the code of a version to which GitHub soon gives no jobs.
const runnerTooOld = "runner-too-old"

// oldBuild is the age from which a program is said to be old: its built-in jobspecs carry a
// runner of that time, and GitHub gives no jobs to runners that are about a month behind.
const oldBuild = 45 * 24 * time.Hour

// saysOldBuild warns that the program, of a certain date, is old, if rules start runners by a
// built-in jobspec that names their version. "": it is not, or the date is not known.
func saysOldBuild(built, now time.Time, set *rules.Set, specs *jobspecs.Set) string {
	names := set.Jobspecs()
	own := specs.Own()
	at := slices.IndexFunc(names, func(name string) bool {
		spec, _ := specs.Get(name)
		return imageVersion.Match(spec.Source) && !slices.ContainsFunc(own, func(s jobspecs.Jobspec) bool { return s.Name == name })
	})
	if built.IsZero() || now.Sub(built) < oldBuild || at < 0 {
		return ""
	}
	carries := names[at]
	return fmt.Sprintf("this Switchyard is of %s, %d days ago: its built-in jobspec %s carries version %s of the runner, and GitHub gives no jobs to runners that are about a month behind. "+
		"Take a newer Switchyard, or name a newer image in the rules", built.UTC().Format(time.DateOnly), int(now.Sub(built).Hours()/24), carries, jobspecs.RunnerVersion)
}

// A versionUse is a version of the runner that a rule starts.
type versionUse struct {
	rule    string
	at      router.Target
	version router.RunnerVersion
}

// imageVersion finds the version in the name of GitHub's image, or of a copy of it.
var imageVersion = regexp.MustCompile(`\bactions-runner:v?([0-9]+(?:\.[0-9]+){1,3})\b`)

// namedVersion returns the version that the image of a placement names; "": none.
func namedVersion(p rules.Placement, specs *jobspecs.Set) router.RunnerVersion {
	text, _ := p.Task.Config["image"].(string)
	if text == "" {
		spec, _ := specs.Get(p.Jobspec)
		text = string(spec.Source)
	}
	found := imageVersion.FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	return router.ParseRunnerVersion(found[1])
}

// recordedVersions returns the versions that runners had by GitHub's word, if the history is a
// database.
func recordedVersions(ctx context.Context, history string) (uses []versionUse, err error) {
	if !isDatabase(history) {
		return nil, nil
	}
	db, err := store.OpenReadOnly(ctx, history)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	list, err := db.RunnerVersions(ctx)
	for _, v := range list {
		uses = append(uses, versionUse{v.Rule, v.Target, v.Version})
	}
	return uses, err
}

// checkVersions asks GitHub how long it supports the versions of the runner that the rules
// start: once for each version. Its error says what GitHub did not answer.
func checkVersions(ctx context.Context, client *gh.Client, set *rules.Set, uses []versionUse, now time.Time) (found rules.Diagnostics, err error) {
	ends := map[router.RunnerVersion]router.VersionEnd{}
	asked := map[router.RunnerVersion]bool{}
	var errs []error
	// GitHub does not say it for an enterprise.
	slices.SortStableFunc(uses, func(a, b versionUse) int { return cmp.Compare(a.at.Enterprise, b.at.Enterprise) })
	for _, use := range uses {
		if asked[use.version] || use.at.Host != "" && use.at.Host != client.Host() {
			continue
		}
		end, err := client.VersionEnd(ctx, use.at, use.version)
		switch {
		case errors.Is(err, router.ErrNotFound):
		case err != nil:
			errs = append(errs, fmt.Errorf("ask GitHub how long it supports version %s of the runner: %w", use.version, err))
		default:
			ends[use.version] = end
		}
		asked[use.version] = err == nil || use.at.Enterprise == "" // another place may say
	}
	said := map[versionUse]rules.Diagnostic{}
	for _, use := range uses {
		end := ends[use.version].First()
		if end.IsZero() || end.Sub(now) >= router.EndsSoon {
			continue
		}
		text := fmt.Sprintf("rule %s: GitHub gives no jobs to runners of version %s from %s on", use.rule, use.version, end.Format(time.DateOnly))
		if now.After(end) {
			text = fmt.Sprintf("rule %s: GitHub has given no jobs to runners of version %s since %s", use.rule, use.version, end.Format(time.DateOnly))
		}
		d := set.AtRule(use.rule, text+": name a newer runner in the rule or its jobspec, or update it on the nodes")
		d.Code, d.Warning = runnerTooOld, true
		said[versionUse{rule: use.rule, version: use.version}] = d
	}
	for _, use := range slices.SortedFunc(maps.Keys(said), func(a, b versionUse) int {
		return cmp.Or(strings.Compare(a.rule, b.rule), cmp.Compare(a.version, b.version))
	}) {
		found = append(found, said[use])
	}
	return found, errors.Join(errs...)
}
