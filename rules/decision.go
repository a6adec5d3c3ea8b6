package rules

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"switchyard/rules/internal/cond"
)

// An Outcome is what the rules file says of one job.
type Outcome string

// The outcomes. Every job gets one of the first four in the end.
const (
	Routed     Outcome = "routed"     // a rule took the job; the decision holds its placement
	Ignored    Outcome = "ignored"    // out of scope: the job is someone else's
	Denied     Outcome = "denied"     // a deny rule took the job
	Unroutable Outcome = "unroutable" // in scope, but nothing can serve it; the reason says why

	// Undecided: a rule that is reached asks for run.…, and Facts.Run is nil.
	// Whoever decides looks the run up and decides again.
	Undecided Outcome = "undecided"
)

// Facts is what is known about a job when it is decided. Every string in it comes from a stranger;
// Decide bounds and checks it. Its JSON form is a contract: one recorded job.
type Facts struct {
	Labels []string `json:"labels"` // as the job's runs-on gave them, in any case
	Repo   Repo     `json:"repo"`
	Job    Job      `json:"job"`
	Run    *Run     `json:"run,omitempty"` // nil: not looked up
	Cut    bool     `json:"-"`             // there were more labels: they have too many bytes together, and the job is unroutable unless it is out of scope
}

// DefaultHost is the Host of a repository that names none, as in a history from before Switchyard
// knew others.
const DefaultHost = "github.com"

// What conditions see of a job. The JSON form of each is a contract.
type (
	Repo = cond.Repo // the repository that the job belongs to (repo.…)
	Job  = cond.Job  // the GitHub workflow job (job.…)
	Run  = cond.Run  // the workflow run (run.…)
)

// The bounds of a job's labels that Decide accepts.
const (
	MaxLabels      = cond.MaxLabels
	MaxLabelLength = cond.MaxLabelLength // characters
)

// A Decision is the outcome for one job. For a routed job the placement is
// filled in; otherwise it asks for nothing. Its JSON form is a contract.
type Decision struct {
	Outcome Outcome  `json:"outcome"`
	Rule    string   `json:"rule"`          // the rule that took or denied the job; "" when none did
	Reason  string   `json:"reason"`        // one sentence for people; never empty
	Labels  []string `json:"labels"`        // the labels the rules saw: lower case, without doubles, compound ones expanded
	Run     *Run     `json:"run,omitempty"` // what was known of the run: Facts.Run
	Placement
	Limit     *Limit     `json:"limit,omitempty"`      // nil: none
	Urgency   int        `json:"urgency,omitempty"`    // 0 to MaxUrgency: how urgent the job is among those that wait under a limit whose order is Priority
	TimeLimit Duration   `json:"time_limit,omitempty"` // the most that the job may run; 0: what GitHub and the workflow allow
	Rerun     *Rerun     `json:"rerun,omitempty"`      // nil: a job that fails is not run again
	Fallback  []Fallback `json:"fallback,omitempty"`   // in the order of After
	Trace     []Step     `json:"trace"`                // nil unless asked for
	Nearest   *Nearest   `json:"nearest,omitempty"`    // with a trace, when no rule took the job; nil when no rule could
}

// by reports whether a rule takes or denies the job, placed or not.
func (d *Decision) by(rule string) bool {
	return d.Rule == rule && d.Outcome != Undecided && !strings.HasPrefix(d.Reason, "rule error")
}

// Nearest is the rule that would take a job with the fewest changes.
type Nearest struct {
	Rule    string   `json:"rule"`
	Missing []string `json:"missing"` // what keeps it from taking the job, each the end of a sentence
}

// A Limit bounds how many jobs run at once.
type Limit struct {
	Running int    `json:"running"` // at least 1: the most jobs of one Key at once
	Per     string `json:"per"`     // rule, owner, repo or label
	Key     string `json:"key"`     // what this job is counted under: "linux", "linux|acme", "linux|acme/web", "linux|gpu,linux"

	// Order says who is next when a place is free. "": the oldest job of the repository that
	// has the fewest places. Priority: the most urgent, and of equally urgent ones as before.
	Order string `json:"order,omitempty"`
}

// Priority is the Order of a Limit that goes by urgency.
const Priority = "priority"

// MaxUrgency is the most urgent that a job can be.
const MaxUrgency = 100

// A Rerun says when a job that failed is run again: for what Nomad says became of its runner.
type Rerun struct {
	When  []string `json:"when"`  // any of node_lost, preempted and drained
	Times int      `json:"times"` // at least 1: how often at most, of the jobs of one name in a run
}

// A Fallback is the placement to try when Nomad has not placed the runner.
type Fallback struct {
	After     Duration `json:"after"` // since the job was first dispatched; each more than the one before
	Placement          // asks for nothing when Reason is set
	Reason    string   `json:"reason,omitempty"` // why it is left out for this job; "" when it can be used
}

// A Placement is what Nomad is asked for.
type Placement struct {
	Jobspec  string `json:"jobspec"`  // name of a jobspec; "" when Dispatch is set
	Dispatch string `json:"dispatch"` // ID of an existing parameterized Nomad job, run as it is; "" otherwise

	// DispatchMeta is what that job is given besides those of Switchyard's own keys
	// that it declares.
	DispatchMeta map[string]string `json:"dispatch_meta,omitempty"`

	Constraints []Constraint `json:"constraints"`
	Affinities  []Affinity   `json:"affinities"`
	Devices     []Device     `json:"devices"`
	Resources   Resources    `json:"resources"`
	NodePool    string       `json:"node_pool"`        // "": the jobspec's own
	Datacenters []string     `json:"datacenters"`      // empty: the jobspec's own
	Namespace   string       `json:"namespace"`        // "": the jobspec's own, then the Nomad client's
	Region      string       `json:"region,omitempty"` // "": the jobspec's own, then the Nomad client's
	Priority    int          `json:"priority"`         // 1 to 100; 0: the jobspec's own
	Task        Task         `json:"task"`
	Runner      Runner       `json:"runner"`
	Debug       Debug        `json:"debug,omitzero"`

	// From says where each single value came from ("label gpu", "rule linux",
	// "defaults", "built in"), by its JSON path: "resources.cpu", "node_pool",
	// "task.env.FOO". List entries carry theirs themselves. "time_limit" and "urgency"
	// of the decision are here, too.
	From map[string]string `json:"from,omitempty"`
}

// A Constraint is one Nomad constraint. Operator is in Nomad's own spelling,
// with "=" for "==" and "is" and "!=" for "not".
type Constraint struct {
	Attribute string `json:"attribute"` // "${attr.cpu.arch}"; "" for distinct_hosts
	Operator  string `json:"operator"`
	Value     string `json:"value"` // "" for is_set and is_not_set
	From      string `json:"from"`
}

// An Affinity is one Nomad affinity. Weight is -100 to 100, never 0.
type Affinity struct {
	Attribute string `json:"attribute"`
	Operator  string `json:"operator"`
	Value     string `json:"value"`
	Weight    int    `json:"weight"`
	From      string `json:"from"`
}

// A Device is one Nomad device request of the runner task.
type Device struct {
	Name        string       `json:"name"`  // "nvidia/gpu", "gpu", "nvidia/gpu/1080ti"
	Count       int          `json:"count"` // at least 1
	Constraints []Constraint `json:"constraints,omitempty"`
	From        string       `json:"from"`
}

// Resources are the sizes of the runner task. 0 leaves the jobspec's own.
// At most one of CPU and Cores is set: Nomad takes one of them.
type Resources struct {
	CPU         int `json:"cpu"`           // MHz
	Cores       int `json:"cores"`         // whole reserved cores
	MemoryMB    int `json:"memory_mb"`     // MiB, what Nomad calls MB
	MemoryMaxMB int `json:"memory_max_mb"` // MiB; the limit where the cluster allows oversubscription
	DiskMB      int `json:"disk_mb"`       // MiB of the group's ephemeral disk
}

// Task holds what is merged into the runner task.
type Task struct {
	Env    map[string]string `json:"env,omitempty"`
	Config map[string]any    `json:"config,omitempty"` // the driver's config; values are JSON values
}

// Runner says how the runner is registered on GitHub.
type Runner struct {
	Scope        string      `json:"scope"`                // repository, organization or enterprise
	Enterprise   string      `json:"enterprise,omitempty"` // its slug, as in GitHub's addresses; "" in the other scopes
	Group        RunnerGroup `json:"group"`                // DefaultGroup unless something names another
	Registration string      `json:"registration"`         // jit: a configuration for each runner; token: a registration token, shared until it ends; own: it brings its own, and never claims
	Verify       bool        `json:"verify,omitempty"`     // its runner asks, before the first step, whether the rule may serve the job
}

// Debug says what becomes of the runner of a job that failed.
type Debug struct {
	Keep string `json:"keep,omitempty"` // for how long it stays, as Duration writes it; "": it does not
}

// KeepFor returns for how long the runner of a failed job stays; 0: it does not.
func (d Debug) KeepFor() time.Duration {
	keep, _ := time.ParseDuration(d.Keep) // it was read before
	return keep
}

// A RunnerGroup is a runner group on GitHub by its ID, in digits, or else by its name. In JSON it
// is a number or a text, and "", no group, is 0.
type RunnerGroup string

// DefaultGroup is GitHub's group Default.
const DefaultGroup RunnerGroup = "1"

// ID returns the group's ID; 0: it is known by its name alone.
func (g RunnerGroup) ID() int64 {
	id, err := strconv.ParseInt(string(g), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// Open reports whether GitHub lets all repositories use the group until someone says otherwise.
func (g RunnerGroup) Open() bool { return g == DefaultGroup || strings.EqualFold(string(g), "Default") }

// MarshalJSON writes the ID, or else the name, UnmarshalJSON reads either.
func (g RunnerGroup) MarshalJSON() ([]byte, error) {
	if id := g.ID(); id != 0 || g == "" {
		return strconv.AppendInt(nil, id, 10), nil
	}
	return json.Marshal(string(g))
}
func (g *RunnerGroup) UnmarshalJSON(b []byte) error {
	var id int64
	if err := json.Unmarshal(b, &id); err != nil {
		return json.Unmarshal(b, (*string)(g))
	}
	if *g = ""; id != 0 {
		*g = RunnerGroup(strconv.FormatInt(id, 10))
	}
	return nil
}

// A Duration is written as in a rules file, in JSON as well: "5m".
type Duration time.Duration

// String writes 5m for 5m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes what String does, UnmarshalText what Go takes for a duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// A Step is one line of a trace: one rule, whether it held, and why.
type Step struct {
	Rule string `json:"rule"`
	Held bool   `json:"held"`
	Why  string `json:"why"`

	// Failed: it is not known, because the run is not or because the expression failed.
	Failed bool `json:"failed,omitempty"`
}
