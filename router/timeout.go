package router

import (
	"context"
	"time"
)

// Timeouts of calls to the database, Nomad and GitHub.
const (
	StoreTimeout  = 10 * time.Second // of one write to the database
	NomadTimeout  = 30 * time.Second // of all calls to Nomad for one runner
	ListTimeout   = 60 * time.Second // of a listing with many pages, from Nomad or GitHub
	GitHubTimeout = 15 * time.Second // of one call to GitHub that nobody waits for
	LoginTimeout  = 30 * time.Second // of one call to GitHub, login included
)

// GoneAfter is the longest that GitHub keeps a job queued:
// https://docs.github.com/en/actions/reference/limits (read 2026-11-24).
const GoneAfter = 24 * time.Hour

// Pause waits for d, and reports whether it did to the end: false when ctx ended first.
func Pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
