package router

import (
	"time"

	"switchyard/rules"
)

// A PastJob is a recorded job and when it ran. Its JSON form is a contract: it is a line of
// an export. The times are those at which Switchyard heard of it, in UTC; zero: it is not
// known, or has not been.
type PastJob struct {
	rules.Record
	RunID       int64     `json:"run_id"`
	ReceivedAt  time.Time `json:"received_at"`           // of its first delivery
	QueuedAt    time.Time `json:"queued_at,omitzero"`    // when GitHub let it start, if that was later
	PlacedAt    time.Time `json:"placed_at,omitzero"`    // when Nomad gave the runner that took it a node
	RunningAt   time.Time `json:"running_at,omitzero"`   // when that runner took it
	CompletedAt time.Time `json:"completed_at,omitzero"` // when it ended
	EndedAt     time.Time `json:"ended_at,omitzero"`     // when the Nomad job of that runner had ended
	Outcome     string    `json:"outcome"`               // of its decision; "" if it was never decided
}
