package router

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
)

// A Variable names an Actions variable of a repository or, without Repo, of an organization.
// GitHub compares all of it without case.
type Variable struct {
	Host  string `json:"host"`
	Owner string `json:"owner"`
	Repo  string `json:"repo,omitempty"`
	Name  string `json:"name"`
}

// Whose names whose variable it is: organization acme, or acme/web.
func (v Variable) Whose() string {
	if v.Repo == "" {
		return "organization " + v.Owner
	}
	return v.Owner + "/" + v.Repo
}

func (v Variable) String() string { return fmt.Sprintf("variable %s of %s", v.Name, v.Whose()) }

// Same reports whether both name the same variable.
func (v Variable) Same(o Variable) bool {
	return strings.EqualFold(v.Host, o.Host) && strings.EqualFold(v.Owner, o.Owner) && strings.EqualFold(v.Repo, o.Repo) && strings.EqualFold(v.Name, o.Name)
}

// Variables is the part of GitHub that has Actions variables. Errors are classified as for
// Nomad.Start. Safe for concurrent use.
type Variables interface {
	// Variable returns the value of a variable; ErrNotFound when there is none, or GitHub shows
	// us none.
	Variable(ctx context.Context, v Variable) (value string, err error)

	// SetVariable sets a variable that exists; ErrNotFound when it does not. A failed call may
	// have set it all the same.
	SetVariable(ctx context.Context, v Variable, value string) error
}

// An OverflowState is how far Switchyard is with a variable.
type OverflowState string

// The states. The first three are those in which the variable may have the value To.
const (
	OverflowSetting OverflowState = "setting" // it is being set to To, and may be already
	OverflowSet     OverflowState = "set"     // Switchyard has set it to To
	OverflowUndoing OverflowState = "undoing" // it is being set to Back, and may be already
	OverflowLeft    OverflowState = "left"    // somebody has set it to another value: it is theirs until the overflow is over
	OverflowOver    OverflowState = "over"    // it was set to Back
)

// On reports whether the variable may have the value To.
func (s OverflowState) On() bool {
	return s == OverflowSetting || s == OverflowSet || s == OverflowUndoing
}

// An Overflow is a variable that Switchyard has set, or is about to, so that new jobs of a rule
// run elsewhere.
type Overflow struct {
	Variable
	Rule  string        `json:"rule"` // the first that needed it
	To    string        `json:"to"`
	Back  string        `json:"back"`
	State OverflowState `json:"state"` // "": there is no overflow
	Why   string        `json:"why"`   // one sentence, without a full stop
	Since time.Time     `json:"since"` // when it began
	At    time.Time     `json:"at"`    // since when it is in this state
	Calm  time.Duration `json:"calm"`  // for how long there must be room, until it is set back
}

// An OverflowStatus is an overflow for people, or what keeps one from beginning, or from ending.
type OverflowStatus struct {
	Overflow

	// Failing is why GitHub does not do what is asked, Fix what to do about that, and
	// FailingSince since when; "": it does.
	Failing      string    `json:"failing,omitempty"`
	Fix          string    `json:"fix,omitempty"`
	FailingSince time.Time `json:"failing_since,omitzero"`
}

// In reports whether somebody with a scope may see it: one who sees a repository of the owner sees
// the variables of its organization, as its workflows do.
func (o OverflowStatus) In(within Scope) bool {
	if o.Repo != "" || within == nil {
		return within.Has(Repo{Host: o.Host, Owner: o.Owner, Name: o.Repo})
	}
	for _, pattern := range within {
		if host, owner, _ := SplitScope(pattern); strings.EqualFold(cmp.Or(host, o.Host), o.Host) && strings.EqualFold(owner, o.Owner) {
			return true
		}
	}
	return false
}

// A RuleWait is how long the jobs of a rule in a repository wait for runners.
type RuleWait struct {
	Rule string
	Repo Repo // Host, Owner, Name and FullName

	// Oldest is since when the one waits that waits longest, of those that a node could serve;
	// zero: none does.
	Oldest time.Time
	// NoNode is since when a job waits that no node could ever serve, or none that is in service,
	// and Nomad since when one waits as Nomad takes no runners; zero: none does.
	NoNode, Nomad time.Time
	// Served is how many jobs run, or have runners that have a node, or would have one if it
	// were free.
	Served int
}
