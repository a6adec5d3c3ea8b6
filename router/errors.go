package router

import (
	"errors"
	"fmt"
	"time"
)

// What callers branch on.
var (
	ErrNotFound   = errors.New("not found")
	ErrNotWaiting = errors.New("the job waits for no runner")    // Store.Prepare
	ErrClaimed    = errors.New("claimed already")                // Store.Claim: the token was used
	ErrBusy       = errors.New("the runner has a job")           // GitHub.RemoveRunner
	ErrNameTaken  = errors.New("a runner has this name already") // GitHub.RunnerConfig
)

// A GiveUpError is one that no later attempt mends: the job cannot be served.
type GiveUpError struct{ Err error }

func (e *GiveUpError) Error() string { return e.Err.Error() }
func (e *GiveUpError) Unwrap() error { return e.Err }

// A FixError is one that goes away when an operator changes the configuration
// of Switchyard, Nomad or GitHub. The job waits for it.
type FixError struct {
	Fix string // what to do, as an instruction: "give the token submit-job on namespace ci"
	Err error
}

func (e *FixError) Error() string { return fmt.Sprintf("%v: %s", e.Err, e.Fix) }
func (e *FixError) Unwrap() error { return e.Err }

// A RetryAtError says when the other side will answer again.
type RetryAtError struct {
	At  time.Time
	Err error
}

func (e *RetryAtError) Error() string { return e.Err.Error() }
func (e *RetryAtError) Unwrap() error { return e.Err }
