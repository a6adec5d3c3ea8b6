package router

import (
	"strings"

	"switchyard/rules"
)

// An Instance is one GitHub: github.com, a tenant of ghe.com or an Enterprise
// Server. Each counts jobs, runs and webhooks by itself, so the books have
// GitHub's ID in the low 48 bits of theirs and the instance's number above:
// for the first instance, 0, they are the same.
type Instance struct {
	Number int64  // up to MaxInstance; it never changes, as it is part of IDs
	Host   string // as Repo.Host has it
}

const (
	idBits = 48

	// MaxGitHubID is the highest ID of a job, run or webhook that is taken of GitHub.
	MaxGitHubID = 1<<idBits - 1

	// MaxInstance keeps IDs under 2^53, which readers of JSON have exact.
	MaxInstance = 1<<(53-idBits) - 1
)

// ID is that of the books for one of GitHub's, which is not over MaxGitHubID.
func (in Instance) ID(gitHubID int64) int64 { return in.Number<<idBits | gitHubID }

// GitHubID is GitHub's own ID for one of the books.
func GitHubID(id int64) int64 { return id & MaxGitHubID }

// InstanceOf is the number of the instance that an ID is of.
func InstanceOf(id int64) int64 { return id >> idBits }

// An OwnerKey is an owner of repositories, who may have a namesake on another instance.
type OwnerKey struct{ Host, Owner string }

// OwnerOf returns the owner of a repository.
func OwnerOf(r Repo) OwnerKey { return OwnerKey{r.Host, strings.ToLower(r.Owner)} }

// Addressed is a repository as jobs sync takes it.
func Addressed(r Repo) string {
	if r.Host == "" || r.Host == rules.DefaultHost {
		return r.FullName
	}
	return r.FullName + " --host " + r.Host
}

// HostOf returns the host of the instance that an ID is of; "" when that is not
// configured, or is the only one and has no name.
func HostOf(github interface{ Instances() []Instance }, id int64) string {
	for _, in := range github.Instances() {
		if in.Number == InstanceOf(id) {
			return in.Host
		}
	}
	return ""
}

// InstanceAt finds an instance by its host; "" is the first.
func InstanceAt(github interface{ Instances() []Instance }, host string) (in Instance, ok bool) {
	for _, in := range github.Instances() {
		if in.Host == host || host == "" && in.Number == 0 {
			return in, true
		}
	}
	return Instance{}, host == ""
}
