package router

import "time"

// How long one of the others is waited for.
const (
	StoreTimeout  = 10 * time.Second // for one write to the database
	NomadTimeout  = 30 * time.Second // for one runner's whole talk with Nomad
	ListTimeout   = 60 * time.Second // for a listing of Nomad's or GitHub's, of many pages
	GitHubTimeout = 15 * time.Second // for one call that nobody waits for
	LoginTimeout  = 30 * time.Second // for one call to GitHub, with what it takes to log in
)

// GoneAfter is how long GitHub keeps a job queued at most:
// https://docs.github.com/en/actions/reference/limits (read 2026-11-24).
const GoneAfter = 24 * time.Hour
