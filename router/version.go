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

// A RuleVersion is a version that runners of a rule have.
type RuleVersion struct {
	Rule    string        `json:"rule"`
	Rules   string        `json:"rules"` // as in Runner
	Version RunnerVersion `json:"version"`
	Target  Target        `json:"target"`         // where the last of them was registered
	Seen    time.Time     `json:"seen"`           // when GitHub last said so of one
	End     VersionEnd    `json:"end"`            // of GitHub's support for it
	Asked   time.Time     `json:"asked,omitzero"` // when GitHub last answered; zero: not yet
	Silent  bool          `json:"silent"`         // it did not say, as an Enterprise Server
}

// EndsSoon is how long before GitHub ends its support for a version that is a trouble.
const EndsSoon = 14 * 24 * time.Hour

// DaysLeft returns how many days GitHub supports the version for; negative: it no longer does.
// It is false if there is no date.
func (v RuleVersion) DaysLeft(now time.Time) (days float64, ok bool) {
	end := v.End.First()
	return end.Sub(now).Hours() / 24, !end.IsZero()
}
