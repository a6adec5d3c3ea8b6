package router

import (
	"fmt"
	"time"
)

// A Status says whether Switchyard is well, what is wrong if not, what changed lately, and
// what has worked last. Its JSON form is a contract, and so are those of its parts.
type Status struct {
	Status   string    `json:"status"`   // ok, degraded or not ready
	At       time.Time `json:"at"`       // when this was found out
	Troubles []Trouble `json:"troubles"` // the worst first, then causes before what comes of them, then the newest; never null
	Changes  []Changed `json:"changes"`  // the newest first; never null
	Proof    []Proof   `json:"proof"`    // never null

	Replicas []StatusReplica `json:"replicas,omitempty"` // that serve from the database, the oldest first; none if only this process may
}

// A StatusReplica is a replica, as a Status and /readyz show it.
type StatusReplica struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	RulesHash string    `json:"rules_hash"` // of the rules in force there
	Leads     bool      `json:"leads"`
	Self      bool      `json:"self"` // it says this
}

// SaysReplicas names the replica that says so, and the one that leads; "": there are none.
func SaysReplicas(all []StatusReplica) string {
	self, leader := "", ""
	for _, r := range all {
		if r.Self {
			self = r.Name
		}
		if r.Leads {
			leader = r.Name
		}
	}
	switch {
	case len(all) == 0:
		return ""
	case leader == "":
		return self + "; no replica leads"
	case leader == self:
		return self + ", which leads"
	}
	return self + "; " + leader + " leads"
}

// Before returns what was changed last before a trouble began, if that was in the ten minutes
// before it: the first thing to look at.
func (s Status) Before(t Trouble) (c Changed, ok bool) {
	for _, c := range s.Changes {
		if ago := t.Since.Sub(c.At); ago >= -time.Second && ago < 10*time.Minute { // the clocks of both are read at different moments
			return c, true
		}
	}
	return Changed{}, false
}

// After says which change a trouble began after, and how long after it as took writes it;
// "": Before finds none.
func (s Status) After(t Trouble, took func(time.Duration) string) string {
	c, ok := s.Before(t)
	later := t.Since.Sub(c.At)
	switch {
	case !ok:
		return ""
	case later < time.Second:
		return "right after this change: " + c.Said()
	}
	return took(later) + " after this change: " + c.Said()
}

// A Severity is how much harm a trouble does.
type Severity string

// The severities, the worst first.
const (
	Critical Severity = "critical" // no job of some kind starts, or what happens is not recorded
	Warning  Severity = "warning"  // some jobs do not start, or soon will not
	Info     Severity = "info"     // some jobs wait for their own authors, or for each other
)

// A Trouble is something that is wrong. It lasts until its opposite was seen.
type Trouble struct {
	Cause    Cause     `json:"cause"`
	Severity Severity  `json:"severity"`
	Since    time.Time `json:"since"` // when it began
	What     string    `json:"what"`  // one sentence for people, which names no repository and no job
	Where    string    `json:"where"` // which jobs it hits, and what they ask for; "": not about single jobs
	Said     string    `json:"said"`  // what the other side, or the newest job's reason, says about it; "": nothing more
	Fix      string    `json:"fix"`   // what to do

	Jobs         int            `json:"jobs"`         // that it hits; 0: it is not about single jobs
	Rules        []string       `json:"rules"`        // of those jobs, at most TroubleNames, those with most jobs first; no list is ever null
	Repositories []string       `json:"repositories"` // likewise
	Labels       []string       `json:"labels"`       // of the newest of the jobs
	Groups       []TroubleGroup `json:"groups"`       // the same jobs by rule and repository, at most TroubleGroups, most jobs first
}

// How much a Trouble names.
const (
	TroubleNames  = 5
	TroubleGroups = 50
)

// A TroubleGroup is the jobs of one rule and repository that a trouble hits.
type TroubleGroup struct {
	Rule       string    `json:"rule"` // "": they were not decided, or by no rule
	Repository string    `json:"repository"`
	Jobs       int       `json:"jobs"`
	Since      time.Time `json:"since"`
	Labels     []string  `json:"labels"` // of the newest of them
	Said       string    `json:"said"`   // of that one
	Newest     int64     `json:"newest"` // its ID
}

// A Changed is something that was changed: a start, the rules or a jobspec.
type Changed struct {
	At   time.Time `json:"at"`
	What string    `json:"what"` // one line
	Who  string    `json:"who"`  // "": not known
}

// Said returns what was changed and, if that is known, who did.
func (c Changed) Said() string {
	if c.Who == "" {
		return c.What
	}
	return c.What + ", by " + c.Who
}

// A Proof says when something last worked.
type Proof struct {
	What string    `json:"what"`        // delivery, registration, claim or start
	At   time.Time `json:"at,omitzero"` // zero: not since the process started
}

// Causes of troubles that are not about single jobs, or that are found by looking at them.
const (
	CauseStore         Cause = "store"          // the database cannot be read or written
	CauseDisk          Cause = "disk"           // its disk is nearly full
	CauseNomadCalls    Cause = "nomad_calls"    // calls to Nomad fail
	CauseNomadDenies   Cause = "nomad_denies"   // Nomad does not let the token do something
	CauseNotEvaluated  Cause = "not_evaluated"  // Nomad accepts jobs and does not evaluate them
	CauseGitHubCalls   Cause = "github_calls"   // calls to GitHub fail
	CauseGitHubDenies  Cause = "github_denies"  // GitHub refuses the login, or does not let it do something
	CauseGitHubSilent  Cause = "github_silent"  // GitHub accepts requests and does not answer them
	CauseRules         Cause = "rules"          // newer rules were refused
	CauseFirstSync     Cause = "first_sync"     // not all jobs are known yet
	CauseUnsigned      Cause = "unsigned"       // requests to the webhook have no valid signature
	CauseNoDelivery    Cause = "no_delivery"    // no delivery arrives, although some should
	CauseLostDelivery  Cause = "lost_delivery"  // GitHub lists deliveries that failed
	CausePollLimit     Cause = "poll_limit"     // GitHub takes too few requests for all deliveries to be read
	CausePollFails     Cause = "poll_fails"     // GitHub does not list the deliveries that are to be read
	CauseVersionEnds   Cause = "version_ends"   // GitHub soon gives no jobs to runners of some versions, or no longer does
	CauseNothingStarts Cause = "nothing_starts" // jobs come, and none starts
	CauseClock         Cause = "clock"          // the clock of this replica is not that of the database
	CauseNoLeader      Cause = "no_leader"      // no replica leads, or this one does not know
	CauseRulesDiffer   Cause = "rules_differ"   // the replicas have different rules
	CauseOnline        Cause = "online"         // runners are online, and GitHub gives them no job
	CauseOverflow      Cause = "overflow"       // new jobs of a rule are sent elsewhere
	CauseOverflowLeft  Cause = "overflow_left"  // somebody has changed the variable by which they are
	CauseOverflowFails Cause = "overflow_fails" // it cannot be set, or not be set back
	CauseWarmFails     Cause = "warm_fails"     // warm runners of a rule keep failing, or cannot be started
	CauseWarmNoRoom    Cause = "warm_no_room"   // no node is free for them
	CauseUnroutable    Cause = "unroutable"     // nothing serves what jobs ask for
)

// OnlineAfter is how long a runner may be online without a job until that is a trouble: GitHub
// gives an online runner its job in seconds.
const OnlineAfter = 30 * time.Second

// A JobTrouble is the jobs of one rule and repository that have the same trouble.
type JobTrouble struct {
	Cause  Cause
	Rule   string // "": none
	Repo   Repo
	Jobs   int
	Since  time.Time // when the first of them got into it
	Newest int64     // the ID of the newest job
	Labels []string  // of that one; nil when it was not asked for
	Reason string    // likewise, why it is in trouble
}

// A LimitHolder is a repository that has places under a limit which jobs wait for.
type LimitHolder struct {
	Key     string // of the limit
	Repo    Repo
	Jobs    int // that have a place
	Waiting int // that wait for one
	Places  int // that all repositories have under it
}

// A Disk is what the database's files use, and what is left on their disk, in bytes.
type Disk struct {
	Path        string
	Used        int64
	Free, Total int64 // Total 0: not known
}

// Said returns the words for people; "" when nothing is known.
func (d Disk) Said() string {
	switch {
	case d.Path == "":
		return ""
	case d.Total == 0:
		return fmt.Sprintf(" (%s has %s)", d.Path, Bytes(d.Used))
	}
	return fmt.Sprintf(" (%s has %s; %s of %s are free)", d.Path, Bytes(d.Used), Bytes(d.Free), Bytes(d.Total))
}

// Bytes returns a number of bytes for people, such as 1.5 GiB.
func Bytes(n int64) string {
	size, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if size < 1024 {
			break
		}
		size, unit = size/1024, next
	}
	if size >= 100 || unit == "B" {
		return fmt.Sprintf("%.0f %s", size, unit)
	}
	return fmt.Sprintf("%.1f %s", size, unit)
}
