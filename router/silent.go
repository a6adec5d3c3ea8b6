package router

import (
	"time"

	"switchyard/rules"
)

// SilentAfter is how long Nomad may leave every request without an answer until it
// counts as silent. It answers in milliseconds, even with an error; without a leader
// an error takes 5.1 s (tried on v2.0.6-dev).
const SilentAfter = 5 * time.Second

// A SilentError says that Nomad was not asked because it does not answer.
type SilentError struct {
	For    time.Duration
	Region string // of Nomad; "": the client's own
}

func (e *SilentError) Error() string {
	if e.Region != "" {
		return "region " + e.Region + " " + SaysSilent(e.For)
	}
	return "it " + SaysSilent(e.For)
}

// SaysSilent returns the words that say how long Nomad has been silent.
func SaysSilent(d time.Duration) string { return "has not answered for " + Coarse(d) }

// Coarse returns a duration for people, rounded down to steps that grow with it. A job's
// reason that contains it changes less and less often, and its timeline stays short.
func Coarse(d time.Duration) string {
	step := SilentAfter
	for _, more := range []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute} {
		if d >= more {
			step = more
		}
	}
	if d >= time.Hour {
		step = d.Truncate(time.Hour)
	}
	return rules.Duration(step).String()
}

// An AwayError is the failure of a request for a runner while Nomad fails all of them. The
// job is retried when Nomad takes another, or after minutes.
type AwayError struct{ Err error }

func (e *AwayError) Error() string { return e.Err.Error() }

func (e *AwayError) Unwrap() error { return e.Err }
