package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"
)

// Errors that callers branch on.
var (
	ErrNotFound   = errors.New("not found")
	ErrNotWaiting = errors.New("the job waits for no runner")    // Store.Admit and Store.Prepare
	ErrClaimed    = errors.New("claimed already")                // Store.Claim: the token was used
	ErrBusy       = errors.New("the runner has a job")           // GitHub.RemoveRunner
	ErrNameTaken  = errors.New("a runner has this name already") // GitHub.RunnerConfig
	ErrRunning    = errors.New("the run has not completed")      // GitHub.RerunJob

	// ErrRunnerLimit is GitHub.RunnerConfig's, in a FixError: GitHub takes no more
	// runners there.
	ErrRunnerLimit = errors.New("the runner group is full")
)

// A GiveUpError is an error that no later attempt can fix: the job cannot be served.
type GiveUpError struct{ Err error }

func (e *GiveUpError) Error() string { return e.Err.Error() }
func (e *GiveUpError) Unwrap() error { return e.Err }

// A FixError is an error that goes away when an operator changes the configuration of
// Switchyard, Nomad or GitHub. The job waits for that.
type FixError struct {
	Fix string // what to do, as an instruction: "give the token submit-job on namespace ci"
	Err error
}

func (e *FixError) Error() string { return fmt.Sprintf("%v: %s", e.Err, e.Fix) }
func (e *FixError) Unwrap() error { return e.Err }

// An OutdatedError is Store.Prepare's: GitHub gave the runners that the job's rule started
// lately no jobs, as their version is too old.
type OutdatedError struct{ Said string } // why the last of them got none

func (e *OutdatedError) Error() string { return e.Said }

// StoreFix returns what to do about an error of the store.
func StoreFix(err error) string {
	if fix, ok := errors.AsType[*FixError](err); ok {
		return fix.Fix
	}
	return "check whether the database's disk is full or failing"
}

// A RetryAtError says when to try again: the other side takes requests again then, or
// is asked whether it does.
type RetryAtError struct {
	At  time.Time
	Err error

	// Line names a queue, such as that of one login to GitHub: attempts with the same
	// Line are retried one after the other. "": each on its own.
	Line string

	// Failing says that the other side fails or refuses, rather than enforces a limit.
	Failing bool
}

func (e *RetryAtError) Error() string { return e.Err.Error() }
func (e *RetryAtError) Unwrap() error { return e.Err }

// An UnansweredError says that a request may have been carried out although it failed:
// there was no answer, a 5xx, or one that could not be read.
type UnansweredError struct{ Err error }

func (e *UnansweredError) Error() string { return e.Err.Error() }
func (e *UnansweredError) Unwrap() error { return e.Err }

// StatusOf returns the status of a call that had no answer: TimedOut, or 0 when the other
// side was not reached or cut the connection.
func StatusOf(err error) int {
	var timeout interface{ Timeout() bool }
	op, dialled := errors.AsType[*net.OpError](err)
	if dialled = dialled && op.Op == "dial"; !dialled && (errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()) {
		return TimedOut
	}
	return 0
}

// localAddress matches this end of a connection in the errors of package net.
var localAddress = regexp.MustCompile(`\b((?:tcp|udp)[46]?) \S+->`)

// WithoutLocalPort returns err with a text that names only the remote end of a
// connection. The local port differs each time, and a job's timeline gets a line
// for each new reason.
func WithoutLocalPort(err error) error {
	if text := localAddress.ReplaceAllString(err.Error(), "$1 "); text != err.Error() {
		return &reworded{text, err}
	}
	return err
}

type reworded struct {
	text string
	err  error
}

func (e *reworded) Error() string { return e.text }
func (e *reworded) Unwrap() error { return e.err }

// A ConflictError says why an operator's request conflicts with the present state of a
// job, a runner or the rules.
type ConflictError struct{ Reason string }

func (e *ConflictError) Error() string { return e.Reason }

// A JobspecError says that the jobspec, the Nomad job rendered from it, or the
// parameterized job to dispatch is at fault.
type JobspecError struct{ Err error }

func (e *JobspecError) Error() string { return e.Err.Error() }
func (e *JobspecError) Unwrap() error { return e.Err }

// JobspecRefused is the code of the finding that a jobspec does not exist, or that
// Nomad finds its job invalid.
const JobspecRefused = "jobspec-refused"
