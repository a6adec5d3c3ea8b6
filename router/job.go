package router

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchyard/rules"
)

// A JobState is the state of a job. States only move forward, with two exceptions: a
// job is retried during an outage, when its runner was lost, and when another job took
// its runner; and a job that waits for a runner becomes Held when its rule's limit is
// reached, when others of its run are to end first, and when GitHub, asked, says that it
// must not start yet, until GitHub says that it is queued. GitHub has the last
// word: a denied or unroutable job is Running when a runner has it after all, and
// every job that is not ignored is Completed when GitHub says so.
type JobState string

// The states of a job. Held, Queued, Retrying and Dispatched lead to Running and
// Completed; Ignored, Denied and Unroutable are final decisions.
const (
	Held       JobState = "held"       // known, but must not start yet; the reason says what it waits for
	Queued     JobState = "queued"     // to be decided and dispatched
	Retrying   JobState = "retrying"   // as queued, after a failure; due again at DueAt
	Dispatched JobState = "dispatched" // its Nomad job is registered
	Running    JobState = "running"    // a runner has taken it
	Completed  JobState = "completed"  // GitHub says it ended; the conclusion says how
	Ignored    JobState = "ignored"    // out of scope
	Denied     JobState = "denied"     // a rule refused it
	Unroutable JobState = "unroutable" // nothing can serve it
)

// A Job is a GitHub workflow job. A job on Nomad is always called a Nomad job. The
// strings come from strangers; Delivery.Bound limits their length.
type Job struct {
	ID       int64 // Instance.ID of GitHub's workflow_job.id; unique
	RunID    int64 // Instance.ID of GitHub's workflow_job.run_id
	Attempt  int   // run attempt, from 1
	Repo     Repo
	Name     string
	Workflow string
	Branch   string
	Sender   string
	Labels   []string // as they came
	URL      string   // GitHub's page for the job; "" when GitHub did not say

	State      JobState
	Cause      Cause     // why it is in State, in one word
	Reason     string    // the same for people; never empty
	Decision   *Decision // nil until decided
	Try        int       // the number of its current runner, from 1
	Failures   int       // failed attempts in a row, for the back-off
	DueAt      time.Time // when dispatch may next take it, in Queued and Retrying
	ReceivedAt time.Time // when we first heard of it
	UpdatedAt  time.Time
	RunnerName string // the runner GitHub says took it; "" before
	Conclusion string // GitHub's conclusion; "" before Completed

	SHA          string    // of the run's commit, hexadecimal; "" when GitHub did not say
	Fallback     int       // the decision's fallback in force, from 1; 0: its own placement
	DispatchedAt time.Time // when its first runner was registered; zero: not yet
	RunningAt    time.Time // when we heard that a runner took it; zero: not yet
	CompletedAt  time.Time // when we heard that it ended; zero: not yet
	AskedAt      time.Time // when GitHub was last asked about it; zero: never
	Wary         Wary      // what comes before its first runner
}

// Facts returns what the rules see of the job.
func (j Job) Facts() rules.Facts {
	return rules.Facts{
		Labels: j.Labels,
		Cut:    tooLong(j.Labels),
		Repo:   j.Repo,
		Job:    rules.Job{Name: j.Name, Workflow: j.Workflow, Branch: j.Branch, Attempt: j.Attempt, Sender: j.Sender},
	}
}

// Placement returns what the job's next runner asks Nomad for: the decision's
// placement, or that of the fallback in force.
func (j Job) Placement(d *Decision) Placement {
	if j.Fallback > 0 && j.Fallback <= len(d.Fallback) {
		return d.Fallback[j.Fallback-1].Placement
	}
	return d.Placement
}

// Fit returns a hash of what a runner for the job can serve; it is never "". Two jobs of
// equal fit belong to one owner, or to one repository if runners are registered there,
// and ask for the same labels and the same placement, so that a runner for one can serve
// the other.
func (j Job) Fit(d *Decision) string {
	p := j.Placement(d)
	p.From = nil
	labels := slices.Clone(j.Labels)
	for i := range labels {
		labels[i] = strings.ToLower(labels[i])
	}
	slices.Sort(labels)
	return hash([]any{TargetOf(j.Repo, p.Runner), labels, p})
}

// Demand returns a hash of what decides which nodes could run a runner for the job, and of
// where that came from. Jobs of different fits may have the same.
func (j Job) Demand(d *Decision) string {
	p := j.Placement(d)
	p.Affinities, p.DispatchMeta, p.Task, p.Runner = nil, nil, rules.Task{}, rules.Runner{}
	return hash([]any{d.Rule, p})
}

func hash(of []any) string {
	b, err := json.Marshal(of)
	if err != nil {
		panic(err) // what a placement holds was JSON or YAML
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// RunnerLabels returns the labels that the job's runner is registered with: the job's
// own, as they came. A job without labels takes any runner of its group, but GitHub
// registers no runner without a label, so its runner gets one that no job asks for.
func (j Job) RunnerLabels() []string {
	if len(j.Labels) == 0 {
		return []string{j.RunnerID()}
	}
	return j.Labels
}

// RunnerID returns the ID of the runner for the job's current try, which is also the ID
// of its Nomad job: gha-<job id>-<try>.
func (j Job) RunnerID() string { return fmt.Sprintf(RunnerPrefix+"%d-%d", j.ID, j.Try) }

// SeenLabels returns a job's labels as the rules see them, unless one is compound: in
// lower case, each once. A decision with the same labels is stored without them.
func SeenLabels(asked []string) []string {
	seen := []string{}
	for _, l := range asked {
		if l = strings.ToLower(strings.TrimSpace(l)); !slices.Contains(seen, l) {
			seen = append(seen, l)
		}
	}
	return seen
}
