package main

import (
	"maps"
	"slices"
	"strings"

	"switchyard/rules"
)

// The event that a GitHub App delivers to Switchyard.
const jobEvent = "workflow_job"

// A permission is one of a GitHub App.
type permission struct {
	name  string // in GitHub's API
	level string // read or write
	title string // on GitHub's pages
	why   string
}

func (p permission) String() string { return p.title + ": " + levels[p.level] }

var levels = map[string]string{"read": "Read-only", "write": "Read and write"}

// permissionsFor returns the permissions that the rules need of a GitHub App, as in
// jobspecs/install.md, sorted by name. They are those of every GitHub that the rules serve.
func permissionsFor(set *rules.Set) []permission {
	needs := map[string]permission{}
	need := func(name, level, title, why string) {
		if needs[name].level != "write" {
			needs[name] = permission{name, level, title, why}
		}
	}
	need("actions", "read", "Repository: Actions", "the state of jobs and runs")
	if _, action := set.Unroutable(); action == "cancel" {
		need("actions", "write", "Repository: Actions", "unroutable: { action: cancel }")
	}
	if set.Reruns() {
		need("actions", "write", "Repository: Actions", "rerun")
	}
	for _, e := range set.Examples() {
		switch r := e.Placement.Runner; {
		case r.Registration == "own":
		case r.Scope == "organization":
			need("organization_self_hosted_runners", "write", "Organization: Self-hosted runners", "the runners of rule "+e.Rule)
		case r.Scope == "repository":
			need("administration", "write", "Repository: Administration", "the runners of rule "+e.Rule)
		}
	}
	switch kind, _ := set.Feedback(); kind {
	case "check_run":
		need("checks", "write", "Repository: Checks", "feedback: { kind: check_run }")
	case "commit_status":
		need("statuses", "write", "Repository: Commit statuses", "feedback: { kind: commit_status }")
	}
	for _, o := range set.Overflows() {
		if o.Scope == "organization" {
			need("organization_actions_variables", "write", "Organization: Variables", "overflow of rule "+o.Rule)
		} else {
			need("actions_variables", "write", "Repository: Variables", "overflow of rule "+o.Rule)
		}
	}
	return slices.SortedFunc(maps.Values(needs), func(a, b permission) int { return strings.Compare(a.name, b.name) })
}

// lacking returns those of the permissions that are not granted, by GitHub's names.
func lacking(needs []permission, granted map[string]string) (lack []permission) {
	for _, p := range needs {
		if has := granted[p.name]; has != p.level && has != "write" && has != "admin" {
			lack = append(lack, p)
		}
	}
	return lack
}

// named lists permissions for people.
func named(list []permission) string {
	var texts []string
	for _, p := range list {
		texts = append(texts, p.String()+" (for "+p.why+")")
	}
	return strings.Join(texts, ", ")
}
