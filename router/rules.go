package router

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"switchyard/rules"
)

// A RulesVersion identifies a version of the rules. Its JSON form is a contract.
type RulesVersion struct {
	Hash     string    `json:"hash"`      // hex SHA-256 of what they were loaded from; "": unknown
	LoadedAt time.Time `json:"loaded_at"` // when they came into force; the App sets it
	Origin   string    `json:"origin"`    // why they were loaded: "start", "file changed", "SIGHUP", "applied", "put back", LastGood
	Files    []string  `json:"files"`

	Who     string   `json:"who"`     // who applied it; "": the files were changed, or it is not known
	Changes []string `json:"changes"` // what differs from what was in force before, a line for each file and jobspec; never null
}

// RulesStatus says which rules are in force and whether newer ones were refused.
type RulesStatus struct {
	RulesVersion
	Rules int           `json:"rules"` // how many
	Error *RefusedRules `json:"error"` // nil: there are no newer ones

	Replicas []StatusReplica `json:"replicas,omitempty"` // as in Status; /readyz has them beside it
}

// Differ reports whether replicas have different rules or jobspecs in force. For a second or two
// after a change they do.
func (s RulesStatus) Differ() bool {
	return slices.ContainsFunc(s.Replicas, func(r StatusReplica) bool { return r.RulesHash != s.Replicas[0].RulesHash })
}

// Refused returns a sentence that says why newer rules were refused; "": they were not.
func (s RulesStatus) Refused() string {
	switch {
	case s.Error == nil:
		return ""
	case s.Origin == LastGood:
		return "the rules' files were bad at the start, so the last good rules in the database are in force: " + s.Error.Reason
	}
	return "newer rules were refused, and the old ones are in force: " + s.Error.Reason
}

// KeptRules is a version of the rules' files that is kept so that it can be put back.
// It may have had faults and never have been in force.
type KeptRules struct {
	ID     int64
	At     time.Time // when this version was first seen
	Hash   string    // hex SHA-256 of the names and contents of the files
	Who    string    // who applied it; "": the files were changed directly
	Origin string    // as in RulesVersion
	Note   string    // written by whoever applied it
	Files  []rules.File
}

// Applied reports whether an editor made this version, of the one before it.
func (v KeptRules) Applied() bool { return v.Origin == "applied" || v.Origin == "put back" }

// RefusedRules is a newer version that did not come into force.
type RefusedRules struct {
	Hash        string            `json:"hash"` // "" when they could not be read
	Origin      string            `json:"origin"`
	Since       time.Time         `json:"since"`       // since when newer versions are refused; the App sets it
	Reason      string            `json:"reason"`      // one sentence
	Diagnostics rules.Diagnostics `json:"diagnostics"` // empty when the reason says it all
}

// A RulesEdit replaces the contents of the rules' files.
type RulesEdit struct {
	Base   string       // the hash of the files that were edited
	Files  []rules.File // as many as there are, with the same names, without directories
	Who    string
	Note   string
	Origin string // of the RulesVersion: "applied" or "put back"
}

// A RulesCheck says what would happen if files were put in force. Its JSON form is a contract.
type RulesCheck struct {
	Good     bool              `json:"good"`     // the server would put them in force, if Nomad accepts their jobspecs
	Findings rules.Diagnostics `json:"findings"` // as `switchyard check --format json` prints them, and faults in tests; never null
	Tests    *rules.TestReport `json:"tests"`    // as `switchyard test --format json` prints it; null: not run because of faults
}

// ErrRulesChanged says that the files have changed since a RulesEdit was made from them.
var ErrRulesChanged = errors.New("the rules were changed meanwhile")

// A RulesRefusedError says that a RulesEdit has faults.
type RulesRefusedError struct{ Faults rules.Diagnostics }

func (e *RulesRefusedError) Error() string {
	if len(e.Faults) == 0 {
		return "the rules were refused"
	}
	return fmt.Sprintf("the rules were refused: %s", e.Faults[0])
}

// LastGood is the Origin of rules that a server takes from the database because the
// files were bad at the start.
const LastGood = "last good"

// RulesPath is where the API returns the RulesStatus.
const RulesPath = "/api/v1/rules"
