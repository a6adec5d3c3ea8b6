package router

import (
	"errors"
	"fmt"
	"time"

	"switchyard/rules"
)

// A RulesVersion says which rules these are. Its JSON form is a contract.
type RulesVersion struct {
	Hash     string    `json:"hash"`      // hex SHA-256 of what they were loaded from; "": unknown
	LoadedAt time.Time `json:"loaded_at"` // when they came into force; the App sets it
	Origin   string    `json:"origin"`    // what made them be loaded: "start", "file changed", "SIGHUP", "applied", "put back", LastGood
	Files    []string  `json:"files"`
}

// RulesStatus says which rules are in force and whether newer ones were refused.
type RulesStatus struct {
	RulesVersion
	Rules int           `json:"rules"` // how many
	Error *RefusedRules `json:"error"` // nil: there are no newer ones
}

// Refused says to people that what is newest was refused; "": it was not.
func (s RulesStatus) Refused() string {
	switch {
	case s.Error == nil:
		return ""
	case s.Origin == LastGood:
		return "the rules' files were bad at the start, so the last good rules in the database are in force: " + s.Error.Reason
	}
	return "newer rules were refused, and the old ones are in force: " + s.Error.Reason
}

// KeptRules are a version of the rules' files that is kept, so that it can be
// put back. It need not have been in force: it may have had faults.
type KeptRules struct {
	ID     int64
	At     time.Time // when it came
	Hash   string    // hex SHA-256 of the names and contents of the files
	Who    string    // who applied it; "": it came by the files
	Origin string    // as of a RulesVersion
	Note   string    // of who applied it
	Files  []rules.File
}

// RefusedRules are newer rules that did not come into force.
type RefusedRules struct {
	Hash        string            `json:"hash"` // "" when they could not be read
	Origin      string            `json:"origin"`
	Since       time.Time         `json:"since"`       // since when what was newest is refused; the App sets it
	Reason      string            `json:"reason"`      // one sentence
	Diagnostics rules.Diagnostics `json:"diagnostics"` // empty when the reason says it all
}

// A RulesEdit is files that are to be the rules.
type RulesEdit struct {
	Base   string       // the hash of the files that it was made from
	Files  []rules.File // as many, and with the same names; without directories
	Who    string
	Note   string
	Origin string // of the RulesVersion: "applied" or "put back"
}

// A RulesCheck says what putting files in force would mean. Its JSON form is a contract.
type RulesCheck struct {
	Good     bool              `json:"good"`     // the server would put them in force, if Nomad accepts their jobspecs
	Findings rules.Diagnostics `json:"findings"` // as `switchyard check --format json` has them, and faults in tests; never null
	Tests    *rules.TestReport `json:"tests"`    // as `switchyard test --format json` prints it; null: faults keep them from being run
}

// ErrRulesChanged says that the files are no longer those that a RulesEdit was made from.
var ErrRulesChanged = errors.New("the rules were changed meanwhile")

// A RulesRefusedError says that a RulesEdit has faults.
type RulesRefusedError struct{ Faults rules.Diagnostics }

func (e *RulesRefusedError) Error() string {
	if len(e.Faults) == 0 {
		return "the rules were refused"
	}
	return fmt.Sprintf("the rules were refused: %s", e.Faults[0])
}

// LastGood is the Origin of rules that a server starts with because the files
// are bad: the last good ones, out of the database.
const LastGood = "last good"

// RulesPath is where operators ask which rules are in force: a RulesStatus.
const RulesPath = "/api/v1/rules"
