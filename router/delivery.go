package router

import (
	"encoding/hex"
	"time"
)

// A Delivery is one workflow_job webhook request from GitHub, checked and
// decoded.
type Delivery struct {
	ID         string        // X-GitHub-Delivery; the same when GitHub redelivers, but not signed. "": we asked GitHub, and it said so
	Digest     string        // the same for the same signed bytes, and for no others; "": not known
	Source     Source        // "": SourceWebhook
	Action     string        // queued, waiting, in_progress or completed
	Status     string        // workflow_job.status: "queued" means runnable, "waiting" that an approval is missing
	Job        Job           // GitHub's part of it; the router's own part is zero, RunnerName and Conclusion are as GitHub sent them
	RunnerID   int64         // GitHub's, of the runner that Job.RunnerName names; 0: GitHub did not say
	ReceivedAt time.Time     // of an answer: when GitHub was asked, as it may have changed its mind since
	RunsFor    time.Duration // of an answer that a job is in progress: for how long, by GitHub's own clock; 0: it does not say
	Hook       Hook          // by which it came
	CreatedAt  time.Time     // of the job, by GitHub's clock; zero: GitHub did not say
}

// Bound cuts GitHub's part of a delivery to what is kept of it, and drops what
// only a job that a runner has can have. The names of repository and owner are
// for the caller to check.
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
		for i := range l { // the first that is over stays over
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

// Late reports whether a delivery has a job queued that GitHub made longer ago
// than it delivers anything. That is news when the job waited for an approval for so
// long; else somebody who saw it once sends it again. GitHub knows.
func (d Delivery) Late() bool {
	return d.ID != "" && d.Action == "queued" && !d.CreatedAt.IsZero() && d.ReceivedAt.Sub(d.CreatedAt) > DeliveriesKept
}

// Waits reports whether GitHub says that the job must not start yet: it waits
// for an approval, or for others of its concurrency group or matrix.
func (d Delivery) Waits() bool {
	return d.Action == "waiting" || d.Action == "queued" && d.Status != "queued"
}

// StatusGone is the Status of a Delivery, from SourceGitHub and completed, of a
// job that GitHub does not know any more.
const StatusGone = "gone"

// DeliveriesKept is for how long GitHub keeps deliveries, at least:
// https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks (read 2026-11-24)
const DeliveriesKept = 3 * 24 * time.Hour

// What becomes of a request to the webhook, as the metric of deliveries has it.
const (
	DeliveryPing      = "ping"
	DeliveryIgnored   = "ignored"   // an event or action that the router has no use for
	DeliveryUnsigned  = "unsigned"  // the signature is missing or wrong
	DeliveryMalformed = "malformed" // it is not what GitHub sends
	DeliveryTooLarge  = "too_large"
	DeliveryKnown     = "known" // it was made before, or is overtaken
	DeliveryBusy      = "busy"  // its room was needed for others while it was read

	DeliveryStored    = "stored"       // and it was news
	DeliveryNotStored = "store_failed" // or the sender did not wait for it
)
