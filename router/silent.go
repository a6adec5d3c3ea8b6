package router

import (
	"time"

	"switchyard/rules"
)

const (
	// SilentAfter is for how long Nomad may leave everything that it is asked without
	// an answer, until it counts as silent. It answers in milliseconds, also with an
	// error; without a leader it takes 5.1 s for one (tried on v2.0.6-dev).
	SilentAfter = 5 * time.Second
)

// A SilentError says that Nomad was not asked, as it does not answer.
type SilentError struct{ For time.Duration }

func (e *SilentError) Error() string { return "it " + SaysSilent(e.For) }

// SaysSilent says for how long Nomad has been silent.
func SaysSilent(d time.Duration) string { return "has not answered for " + Coarse(d) }

// Coarse returns a duration in steps, so that a job's reason that has it changes, and the
// job's time line grows, ever less often.
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
