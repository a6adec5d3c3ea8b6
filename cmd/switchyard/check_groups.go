package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/telemetry"
	"switchyard/rules"
)

// The codes of what GitHub says about the rules.
const (
	noSuchGroup  = "no-such-group"
	groupRefuses = "group-refuses"
)

const (
	maxGroupQuestions = 500 // that one check asks GitHub
	shownRepos        = 5   // of a finding
)

// loginFlags adds the flags of serve for the login to GitHub.
func (f *serveFlags) loginFlags(fl *pflag.FlagSet) {
	fl.StringVar(&f.githubTokenFile, "github-token-file", "", "`file` of the token with which GitHub is asked, or")
	fl.Int64Var(&f.githubAppID, "github-app-id", 0, "`ID` of the GitHub App, and")
	fl.StringVar(&f.githubAppKeyFile, "github-app-key-file", "", "`file` of its private key; each as for serve, or in its environment variables")
	fl.StringVar(&f.githubURL, "github-url", "", "`URL` of another GitHub than github.com, as for serve")
}

// hasLogin reports whether a login to GitHub is given.
func (f *serveFlags) hasLogin() bool {
	return f.githubTokenFile != "" || f.githubAppID != 0 || f.githubAppKeyFile != "" || os.Getenv(envName("github-token")) != ""
}

// A groupUse is what recorded jobs of a repository ask of a runner group.
type groupUse struct {
	groupOf
	repo router.Repo
}

// A groupOf is a runner group that a rule has.
type groupOf struct {
	rule  string
	at    router.Target
	group rules.RunnerGroup
}

// usesOf returns the runner groups in which the rules register the runners of recorded jobs,
// once for each repository, as the last of its jobs has that, and the versions of the runner
// that their images name. Runners of a repository have no group. Those that bring their own
// registration are left out.
func usesOf(set *rules.Set, specs *jobspecs.Set, history iter.Seq2[rules.Record, error]) (groups []groupUse, versions []versionUse, err error) {
	type key struct {
		groupOf
		repo string
	}
	uses, named := map[key]groupUse{}, map[versionUse]bool{}
	for job, err := range history {
		if err != nil {
			return nil, nil, err
		}
		d := set.Decide(job.Facts, false)
		if d.Outcome != rules.Routed {
			continue
		}
		placements := []rules.Placement{d.Placement}
		for _, f := range d.Fallback {
			if f.Reason == "" {
				placements = append(placements, f.Placement)
			}
		}
		for _, p := range placements {
			if p.Dispatch != "" || p.Runner.Registration == "own" {
				continue
			}
			if version := namedVersion(p, specs); version != "" {
				named[versionUse{d.Rule, router.TargetOf(job.Repo, p.Runner), version}] = true
			}
			if p.Runner.Scope != "repository" {
				of := groupOf{d.Rule, router.TargetOf(job.Repo, p.Runner), p.Runner.Group}
				uses[key{of, strings.ToLower(job.Repo.Owner + "/" + job.Repo.Name)}] = groupUse{of, job.Repo}
			}
		}
	}
	versions = slices.SortedFunc(maps.Keys(named), func(a, b versionUse) int {
		return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(fmt.Sprint(a.at), fmt.Sprint(b.at)), cmp.Compare(a.version, b.version))
	})
	return slices.SortedFunc(maps.Values(uses), func(a, b groupUse) int {
		return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(fmt.Sprint(a.at), fmt.Sprint(b.at)), cmp.Compare(a.group, b.group),
			cmp.Compare(a.repo.Owner, b.repo.Owner), cmp.Compare(a.repo.Name, b.repo.Name))
	}), versions, nil
}

// checkGitHub asks GitHub whether the runner groups of the rules exist, and allow the
// repositories of the history, and how long it supports the runner's versions. When there is no login, or nothing to ask about, it says so on
// stderr. Its error says what GitHub did not answer.
func (f *checkFlags) checkGitHub(ctx context.Context, stdin io.Reader, stderr io.Writer, set *rules.Set, specs *jobspecs.Set) (found rules.Diagnostics, err error) {
	switch {
	case !f.login.hasLogin() && f.history == "":
		return nil, nil
	case !f.login.hasLogin():
		fmt.Fprintln(stderr, "warning: GitHub was not asked about runner groups: give --github-token-file FILE, or --github-app-id ID and --github-app-key-file FILE")
		return nil, nil
	case f.history == "":
		fmt.Fprintln(stderr, "warning: GitHub was not asked about runner groups: --history FILE says whose repositories use them")
		return nil, nil
	}
	f.login.githubSide = telemetry.NewMetrics().GitHub
	client, err := f.login.github()
	if err != nil {
		return nil, err
	}
	uses, versions, err := usesOf(set, specs, readHistory(ctx, f.history, stdin))
	if err != nil {
		return nil, err
	}
	recorded, err := recordedVersions(ctx, f.history)
	if err != nil {
		return nil, err
	}
	found, err = checkVersions(ctx, client, set, append(versions, recorded...), time.Now())
	if more := len(uses) - maxGroupQuestions; more > 0 {
		fmt.Fprintf(stderr, "warning: GitHub was asked about the first %d uses of runner groups, and not about %d more\n", maxGroupQuestions, more)
		uses = uses[:maxGroupQuestions]
	}
	type finding struct {
		rule, code, says string
		repos            []string // others of which the same is true
	}
	var findings []*finding
	errs := []error{err}
	said, failed, elsewhere := map[groupOf]*finding{}, map[router.Target]bool{}, map[string]bool{}
	for _, use := range uses {
		if host := use.at.Host; host != "" && host != client.Host() {
			if !elsewhere[host] {
				fmt.Fprintf(stderr, "warning: %s was not asked about runner groups: --github-url says which GitHub is asked\n", host)
			}
			elsewhere[host] = true
			continue
		}
		if failed[use.at] {
			continue
		}
		access, err := client.GroupAccess(ctx, use.at, use.group, use.repo)
		switch before := said[use.groupOf]; {
		case err != nil:
			failed[use.at] = true // the next answer would be the same
			errs = append(errs, fmt.Errorf("ask GitHub about runner group %s: %w", use.group, err))
		case access.Refusal == "":
		case before != nil:
			before.repos = append(before.repos, use.repo.Owner+"/"+use.repo.Name)
		default:
			one := &finding{rule: use.rule, code: groupRefuses, says: access.Refusal}
			if access.Group == "" {
				one.code = noSuchGroup
			}
			said[use.groupOf] = one
			findings = append(findings, one)
		}
	}
	for _, one := range findings {
		if n := len(one.repos); n > 0 && one.code == groupRefuses {
			one.says += "; the same holds for " + strings.Join(one.repos[:min(n, shownRepos)], ", ")
			if n > shownRepos {
				one.says += fmt.Sprintf(" and %d more", n-shownRepos)
			}
		}
		d := set.AtRule(one.rule, "rule "+one.rule+": "+one.says)
		d.Code, d.Warning = one.code, one.code == groupRefuses
		found = append(found, d)
	}
	return found, errors.Join(errs...)
}
