package router

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// What callers branch on.
var (
	ErrNotFound   = errors.New("not found")
	ErrNotWaiting = errors.New("the job waits for no runner")    // Store.Prepare
	ErrClaimed    = errors.New("claimed already")                // Store.Claim: the token was used
	ErrBusy       = errors.New("the runner has a job")           // GitHub.RemoveRunner
	ErrNameTaken  = errors.New("a runner has this name already") // GitHub.RunnerConfig

	// GitHub.RunnerConfig, in a FixError: GitHub takes no more runners there.
	ErrRunnerLimit = errors.New("the runner group is full")
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

// StoreFix is what to do about an error of the store's.
func StoreFix(err error) string {
	if fix, ok := errors.AsType[*FixError](err); ok {
		return fix.Fix
	}
	return "see whether the store's disk is full or failing"
}

// A RetryAtError says when the other side will answer again, or is asked whether
// it does.
type RetryAtError struct {
	At  time.Time
	Err error

	// Line names what all wait for that have the same one, such as a login of
	// GitHub's: they come back one after the other. "": each by itself.
	Line string

	// Failing: the other side fails, or refuses, rather than keeps to a limit.
	Failing bool
}

func (e *RetryAtError) Error() string { return e.Err.Error() }
func (e *RetryAtError) Unwrap() error { return e.Err }

// An UnansweredError is of a request that may have been carried out all the
// same: there was no answer, a 5xx, or one that could not be read.
type UnansweredError struct{ Err error }

func (e *UnansweredError) Error() string { return e.Err.Error() }
func (e *UnansweredError) Unwrap() error { return e.Err }

// localAddress is this end of a connection, in the words of Go's net.
var localAddress = regexp.MustCompile(`\b((?:tcp|udp)[46]?) \S+->`)

// WithoutLocalPort returns err with a text that names only the other end of a
// connection. The port of this end is another one each time, and a job's reason
// that changes is one more line of its time line.
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

// A ConflictError says why what an operator asked for cannot be done to a job
// or runner as it is.
type ConflictError struct{ Reason string }

func (e *ConflictError) Error() string { return e.Reason }

// A JobspecError is a verdict on a jobspec: that, the job made of it or the job to
// dispatch is at fault.
type JobspecError struct{ Err error }

func (e *JobspecError) Error() string { return e.Err.Error() }
func (e *JobspecError) Unwrap() error { return e.Err }

// JobspecRefused is the code of a finding that there is no such jobspec, or that Nomad
// finds its job invalid.
const JobspecRefused = "jobspec-refused"
