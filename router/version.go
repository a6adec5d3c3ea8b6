package router

import (
	"regexp"
	"strings"
	"time"
)

// A RunnerVersion is a version of GitHub's runner, such as 2.336.0; "": not known.
type RunnerVersion string

var runnerVersion = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9}){1,3}$`)

// ParseRunnerVersion returns the version that a text is; "" if it is none.
func ParseRunnerVersion(s string) RunnerVersion {
	if s = strings.TrimPrefix(s, "v"); runnerVersion.MatchString(s) {
		return RunnerVersion(s)
	}
	return ""
}

// A VersionEnd is when GitHub ends its support for a version of the runner. The zero value:
// GitHub has set no date, as for the newest version.
type VersionEnd struct {
	Jobs         time.Time `json:"jobs,omitzero"`         // after it, GitHub gives its runners no jobs
	Registration time.Time `json:"registration,omitzero"` // after it, its runners cannot register
}

// First returns the earlier one of the dates; zero: there is none.
func (e VersionEnd) First() time.Time {
	if e.Jobs.IsZero() || !e.Registration.IsZero() && e.Registration.Before(e.Jobs) {
		return e.Registration
	}
	return e.Jobs
}
