package router

import (
	"context"
	"time"
)

type claimKey struct{}

// ForClaim marks what is asked of GitHub with ctx as a claim's: a runner that
// has started waits for the answer. Such calls may use up GitHub's limits, and
// wait a few seconds where that is all it takes. All others leave a reserve to
// them, and fail with a *RetryAtError when only that is left: least of it
// GitHub.Run, which a job waits for. RunnerConfig and RegistrationToken need no
// mark.
func ForClaim(ctx context.Context) context.Context {
	return context.WithValue(ctx, claimKey{}, true)
}

// IsForClaim reports whether ctx is marked by ForClaim.
func IsForClaim(ctx context.Context) bool {
	marked, _ := ctx.Value(claimKey{}).(bool)
	return marked
}

// A Budget is what may be asked of GitHub as one login: as a token, as an App,
// or as one of its installations.
type Budget struct {
	Login        string          `json:"login"`                  // who that is: "the GitHub token", "installation 7 of the GitHub App 17"
	InFlight     int             `json:"in_flight"`              // requests under way
	BlockedUntil time.Time       `json:"blocked_until,omitzero"` // GitHub asked for no requests before; zero: it did not
	Limits       []RateLimit     `json:"limits"`                 // what GitHub last said of its primary limits, by resource
	Points       []EndpointUsage `json:"points"`                 // spent in the last minute, by endpoint
}

// A RateLimit is one of GitHub's primary limits.
type RateLimit struct {
	Resource  string    `json:"resource"` // GitHub's word: "core"
	Limit     int       `json:"limit"`
	Remaining int       `json:"remaining"`
	Reset     time.Time `json:"reset"`
}

// An EndpointUsage is what was spent of GitHub's secondary limit of one endpoint.
type EndpointUsage struct {
	Endpoint string `json:"endpoint"` // "POST repos/{owner}/{repo}/actions/runners/generate-jitconfig"
	Points   int    `json:"points"`
}
