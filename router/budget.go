package router

import (
	"context"
	"time"
)

type (
	claimKey struct{}
	jobsKey  struct{}
)

// ForClaim returns a context that marks calls to GitHub as part of a claim: a runner
// that has started waits for the answer. Such calls may use up GitHub's limits, and
// wait for a few seconds if that is enough. All other calls leave a reserve for
// them and fail with a *RetryAtError when only the reserve is left. GitHub.Run leaves
// the smallest reserve, because a job waits for it. RunnerConfig and RegistrationToken
// need no mark.
func ForClaim(ctx context.Context) context.Context {
	return context.WithValue(ctx, claimKey{}, true)
}

// IsForClaim reports whether ctx was marked by ForClaim.
func IsForClaim(ctx context.Context) bool {
	marked, _ := ctx.Value(claimKey{}).(bool)
	return marked
}

// ForJobs returns a context that marks calls to GitHub as something that jobs wait for. Such
// calls leave as small a reserve as GitHub.Run does.
func ForJobs(ctx context.Context) context.Context {
	return context.WithValue(ctx, jobsKey{}, true)
}

// IsForJobs reports whether ctx was marked by ForJobs.
func IsForJobs(ctx context.Context) bool {
	marked, _ := ctx.Value(jobsKey{}).(bool)
	return marked
}

// A Budget says how many requests GitHub still takes from one login: a token, an App,
// or one of its installations.
type Budget struct {
	Login        string      `json:"login"`                  // who that is: "the GitHub token", "installation 7 of the GitHub App 17"
	InFlight     int         `json:"in_flight"`              // requests under way
	BlockedUntil time.Time   `json:"blocked_until,omitzero"` // GitHub asked for no requests until then; zero: it did not
	Limits       []RateLimit `json:"limits"`                 // what GitHub last said about its primary limits, by resource
}

// A RateLimit is one of GitHub's primary limits.
type RateLimit struct {
	Resource  string    `json:"resource"` // GitHub's word: "core"
	Limit     int       `json:"limit"`
	Remaining int       `json:"remaining"`
	Reset     time.Time `json:"reset"`
}
