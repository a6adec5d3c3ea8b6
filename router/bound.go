package router

import (
	"strings"
	"unicode/utf8"

	"switchyard/rules"
)

// MaxTokenLabels is how many bytes of labels a runner that registers itself can be given.
const MaxTokenLabels = rules.MaxTokenLabels

// How much of a stranger's strings is kept.
const (
	MaxText = 256  // characters of a name; more is cut off
	maxURL  = 2048 // bytes

	// One more than the rules accept, so that the decision still refuses what was cut
	// here, and says why.
	maxLabels      = rules.MaxLabels + 1
	maxLabelLength = rules.MaxLabelLength + 1

	// Bytes of all labels of a job together; they are kept for as long as the job. A
	// hundred labels of usual length take a quarter of that.
	maxLabelBytes = MaxTokenLabels
)

// tooLong reports whether labels were cut because they have too many bytes together.
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

// Shorten returns s with at most n characters, and … after them if it cut.
func Shorten(s string, n int) string {
	if cut := Cut(s, n); cut != s {
		return cut + "…"
	}
	return s
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
