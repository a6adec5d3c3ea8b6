package router

import (
	"context"
	"time"
)

// StatisticsStore is the part of Store that the console counts and measures by.
type StatisticsStore interface {
	// Oldest returns up to limit jobs within a scope that have no runner of
	// GitHub's yet and may get one, those first that we heard of first.
	Oldest(ctx context.Context, within Scope, limit int) ([]Job, error)

	// Starts returns the jobs within a scope that runners took since a time, oldest first.
	Starts(ctx context.Context, within Scope, since time.Time) ([]Start, error)
}

// A Start is that a runner took a job.
type Start struct {
	At     time.Time // when we heard of it
	Waited time.Duration
	Rule   string // that took the job; "": it was not decided
}
