package router

import (
	"context"
	"errors"
	"time"
)

// A Replica is one of the processes that serve from the same database, as the others see it.
// Its JSON form is kept in the database, where processes of other versions read it.
type Replica struct {
	Name      string    `json:"name"` // of the machine, and what tells it from others there
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	PublicURL string    `json:"public_url"` // where runners reach it, by a load balancer or not: the same for all
	RulesHash string    `json:"rules_hash"` // of the rules in force there

	Worked  map[string]time.Time `json:"worked"`            // when something worked last, as in Proof
	Nomad   NomadCluster         `json:"nomad"`             // that it starts runners on
	Blocked map[string]time.Time `json:"blocked,omitempty"` // until when GitHub asked for no requests, by login
	Leads   bool                 `json:"-"`                 // it is the leader
	Self    bool                 `json:"-"`                 // it is this process

	Ahead time.Duration `json:"-"` // by how much this process\'s clock is ahead of the database\'s; 0 for the others

	Leading *Leading `json:"leading,omitempty"` // what only the leader knows; nil: it does not lead, or has just begun
}

// Leading is what the leader knows and the other replicas show, too.
type Leading struct {
	Epoch             int64            `json:"epoch"`                        // the number of its term
	SilentSince       time.Time        `json:"silent_since,omitzero"`        // since when Nomad has answered no request for a runner; zero: it answers
	SilentRegion      string           `json:"silent_region,omitempty"`      // which region of Nomad that is; "": the client's own
	NotEvaluatedSince time.Time        `json:"not_evaluated_since,omitzero"` // since when Nomad evaluates no jobs; zero: it does
	NotEvaluated      string           `json:"not_evaluated,omitempty"`      // which region of Nomad that is; "": the client's own
	Lost              int              `json:"lost,omitempty"`               // deliveries that the last sweep to find any found to have failed
	LostAt            time.Time        `json:"lost_at,omitzero"`             // when it did
	Polls             []Polling        `json:"polls,omitempty"`              // how deliveries are read, if they are
	Overflows         []OverflowStatus `json:"overflows,omitempty"`          // variables by which jobs overflow
	Warm              []WarmTrouble    `json:"warm,omitempty"`               // rules whose warm runners keep failing
	Syncing           bool             `json:"syncing,omitempty"`            // the first sync is under way
	Settling          bool             `json:"settling,omitempty"`           // runners may become known soon
}

// A Member is how a process takes part among the replicas. All of it is required; the
// functions must be safe for concurrent use, and all but Lead return soon.
type Member struct {
	Now   func() time.Time    // this process's clock
	Facts func() Replica      // what the others are to know of it; called about once a second
	Seen  func(all []Replica) // called about once a second with all that are there, the oldest first
	Hear  func(hint string)   // called with what another told; "": nothing
	Lost  func(err error)     // called when this process is cut off from the others, or could not lead; it tries again

	// Lead does what one replica must do alone. It is called whenever this one becomes the
	// leader, and not again before it has returned. Its ctx ends when another may lead, and
	// carries the term, without which the database would take changes of two leaders.
	Lead func(ctx context.Context) error
}

// MostAhead is by how much the clock of a replica may differ from the database's: what one
// replica records as due, another takes up.
const MostAhead = 5 * time.Second

// ErrNotLeader says that a change was refused because another replica leads since.
var ErrNotLeader = errors.New("another replica leads now")

type termKey struct{}

// WithTerm returns a context whose changes of the database are refused with ErrNotLeader once
// the leader's term with this number is over.
func WithTerm(ctx context.Context, epoch int64) context.Context {
	return context.WithValue(ctx, termKey{}, epoch)
}

// Term returns what WithTerm added; 0: nothing.
func Term(ctx context.Context) int64 {
	epoch, _ := ctx.Value(termKey{}).(int64)
	return epoch
}
