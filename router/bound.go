package router

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"switchyard/rules"
)

// MaxTokenLabels is how many bytes of labels a runner can be given to register itself with.
const MaxTokenLabels = rules.MaxTokenLabels

// The bounds of what is kept of a stranger's strings.
const (
	MaxText = 256  // characters of a name; more is cut off
	maxURL  = 2048 // bytes

	// One more than the rules take, so that the decision refuses what was cut here
	// and says why.
	maxLabels      = rules.MaxLabels + 1
	maxLabelLength = rules.MaxLabelLength + 1

	// Bytes of all labels of a job together, which are kept as long as the job is. A
	// hundred of usual length have a fourth of that.
	maxLabelBytes = MaxTokenLabels
)

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

// tooLong reports whether labels were cut as they have too many bytes together.
func tooLong(labels []string) bool {
	size := 0
	for _, l := range labels {
		size += len(l)
	}
	return size > maxLabelBytes
}

// harmlessURL reports whether s may become a link.
func harmlessURL(s string) bool {
	if len(s) > maxURL || !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '"' || s[i] == '<' || s[i] == '>' || s[i] == '`' || s[i] == '\\' {
			return false
		}
	}
	return true
}

// Cut returns the first n characters of s.
func Cut(s string, n int) string {
	if len(s) <= n || utf8.RuneCountInString(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}
