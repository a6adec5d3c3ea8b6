package router

import (
	"encoding/hex"
	"time"
)

// A Delivery is one workflow_job webhook request from GitHub, checked and
// decoded.
type Delivery struct {
	ID         string        // X-GitHub-Delivery; the same when GitHub redelivers, but not signed. "": this is GitHub's answer to a question
	Digest     string        // the same for the same signed bytes, and for no others; "": not known
	Source     Source        // "": SourceWebhook
	Action     string        // queued, waiting, in_progress or completed
	Status     string        // workflow_job.status: "queued" means that it may start, "waiting" that an approval is missing
	Job        Job           // what GitHub says about it; the fields that the router owns are zero, RunnerName and Conclusion are as GitHub sent them
	RunnerID   int64         // GitHub's ID of the runner that Job.RunnerName names; 0: GitHub did not say
	ReceivedAt time.Time     // of an answer: when GitHub was asked, as the job may have changed since
	RunsFor    time.Duration // of an answer that a job is in progress: for how long, by GitHub's clock; 0: it does not say
	Hook       Hook          // that sent it
	Deploys    bool          // the job deploys to an environment, which may want an approval
	CreatedAt  time.Time     // when GitHub created the job, by GitHub's clock; zero: GitHub did not say
}

// Bound cuts the strings of a delivery to the lengths that are kept, and clears the
// runner and the conclusion unless the action is one that can have them. It does not
// check the names of the repository and its owner: the caller does.
func (d *Delivery) Bound() {
	d.Status = Cut(d.Status, MaxText)
	j := &d.Job
	for _, s := range []*string{&j.Name, &j.Workflow, &j.Branch, &j.Sender, &j.RunnerName, &j.Conclusion} {
		*s = Cut(*s, MaxText)
	}
	if !harmlessURL(j.URL) {
		j.URL = ""
	}
	if _, err := hex.DecodeString(j.SHA); err != nil || len(j.SHA) != 40 && len(j.SHA) != 64 { // SHA-1 or SHA-256
		j.SHA = ""
	}
	labels, left := make([]string, 0, min(len(j.Labels), maxLabels)), maxLabelBytes
	for _, l := range j.Labels {
		if len(labels) == maxLabels || left < 0 {
			break
		}
		l = Cut(l, maxLabelLength)
		for i := range l { // cut at a character: the result is still too long, so the rules refuse it
			if i > left {
				l = l[:i]
				break
			}
		}
		labels, left = append(labels, l), left-len(l)
	}
	j.Labels = labels
	// GitHub's own example of a queued job has a runner.
	if d.Action != "in_progress" && d.Action != "completed" {
		j.RunnerName, d.RunnerID = "", 0
	}
	if d.Action != "completed" {
		j.Conclusion = ""
	}
}

// Late reports whether a delivery queues a job that GitHub created before the time for
// which it keeps deliveries. Either the job waited for an approval for that long, or
// somebody who has seen the delivery sends it again: ask GitHub.
func (d Delivery) Late() bool {
	return d.ID != "" && d.Action == "queued" && !d.CreatedAt.IsZero() && d.ReceivedAt.Sub(d.CreatedAt) > DeliveriesKept
}

// Waits reports whether GitHub says that the job must not start yet: it waits for an
// approval, or for other jobs of its concurrency group or matrix.
func (d Delivery) Waits() bool {
	return d.Action == "waiting" || d.Action == "queued" && d.Status != "queued"
}

// StatusGone is the Status of a completed Delivery from SourceGitHub when GitHub no
// longer knows the job.
const StatusGone = "gone"

// DeliveriesKept is how long GitHub keeps deliveries at least:
// https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks (read 2026-11-24)
const DeliveriesKept = 3 * 24 * time.Hour

// The outcomes of a request to the webhook, as the metric of deliveries counts them.
const (
	DeliveryPing      = "ping"
	DeliveryIgnored   = "ignored"   // an event or action that the router does not use
	DeliveryUnsigned  = "unsigned"  // the signature is missing or wrong
	DeliveryMalformed = "malformed" // not what GitHub sends
	DeliveryTooLarge  = "too_large"
	DeliveryKnown     = "known" // received before, or a later delivery of the job was
	DeliveryBusy      = "busy"  // dropped while it was read, to make room for others

	DeliveryStored    = "stored"       // stored, and it changed something
	DeliveryNotStored = "store_failed" // the store failed, or the sender did not wait for it
)
