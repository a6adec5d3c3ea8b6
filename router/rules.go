package router

import (
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

// LastGood is the Origin of rules that a server starts with because the files
// are bad: the last good ones, out of the database.
const LastGood = "last good"

// RulesPath is where operators ask which rules are in force: a RulesStatus.
const RulesPath = "/api/v1/rules"
