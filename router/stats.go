package router

import (
	"time"
)

// A Start says that a runner took a job.
type Start struct {
	At     time.Time // when we heard of it
	Waited time.Duration
	Rule   string // that took the job; "": it was not decided
}
