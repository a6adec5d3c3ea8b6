package router

import (
	"strings"

	"switchyard/rules"
)

// An Instance is one GitHub: github.com, a tenant of ghe.com or an Enterprise Server.
// Each has its own IDs of jobs, runs and webhooks, so an ID in the database is GitHub's
// in the low 48 bits and the instance's number above them. For the first instance, 0,
// the two are equal.
type Instance struct {
	Number int64  // up to MaxInstance; it never changes, as it is part of IDs
	Host   string // as in Repo.Host
}

const (
	idBits = 48

	// MaxGitHubID is the highest ID of a job, run or webhook that is accepted from GitHub.
	MaxGitHubID = 1<<idBits - 1

	// MaxInstance keeps IDs under 2^53, up to which every JSON parser is exact.
	MaxInstance = 1<<(53-idBits) - 1
)

// ID returns the ID in the database for one of GitHub's, which must not exceed MaxGitHubID.
func (in Instance) ID(gitHubID int64) int64 { return in.Number<<idBits | gitHubID }

// GitHubID returns GitHub's ID for one in the database.
func GitHubID(id int64) int64 { return id & MaxGitHubID }

// InstanceOf returns the number of the instance that an ID in the database belongs to.
func InstanceOf(id int64) int64 { return id >> idBits }

// FirstID returns the lowest ID that the instance can have which an ID in the database
// belongs to. It is 0 for the first instance.
func FirstID(id int64) int64 { return id &^ MaxGitHubID }

// An OwnerKey identifies an owner of repositories, who may have a namesake on another
// instance. It is comparable.
type OwnerKey struct{ Host, Owner string }

// OwnerOf returns the owner of a repository.
func OwnerOf(r Repo) OwnerKey { return OwnerKey{r.Host, strings.ToLower(r.Owner)} }

// Addressed returns a repository as the arguments of the command jobs sync.
func Addressed(r Repo) string {
	if r.Host == "" || r.Host == rules.DefaultHost {
		return r.FullName
	}
	return r.FullName + " --host " + r.Host
}

// HostOf returns the host of the instance that an ID in the database belongs to; "" when
// that is not configured, or is the only one and has no name.
func HostOf(github interface{ Instances() []Instance }, id int64) string {
	for _, in := range github.Instances() {
		if in.Number == InstanceOf(id) {
			return in.Host
		}
	}
	return ""
}

// InstanceAt returns the instance with a host; "" is the first one.
func InstanceAt(github interface{ Instances() []Instance }, host string) (in Instance, ok bool) {
	for _, in := range github.Instances() {
		if in.Host == host || host == "" && in.Number == 0 {
			return in, true
		}
	}
	return Instance{}, host == ""
}
