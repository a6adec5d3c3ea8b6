package router

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// FirstSiblings is how many jobs of a matrix get a runner before GitHub has shown that it
// hands out as many at the same time.
const FirstSiblings = 3

// A Wary says what must be known of a job before it gets its first runner. The zero value:
// nothing.
type Wary int

const (
	WaryOfGitHub   Wary = 1 // GitHub is asked whether it may start
	WaryOfSiblings Wary = 2 // whether others of its run are to end first
)

// kindLen is the length of a hash that Job.Kind returns.
const kindLen = 32

// Matrix reports whether the job has a name as GitHub gives to the jobs of a matrix, such as
// "test (linux, 1.26)".
func (j Job) Matrix() bool { return strings.Contains(j.Name, " (") }

// Kind returns a hash of what makes the job the same job from run to run: its repository,
// workflow, labels, and name without the values of its matrix.
func (j Job) Kind() string {
	name, _, _ := strings.Cut(j.Name, " (")
	return j.kind(name)
}

// Crowd names the jobs of one attempt of a run that GitHub may hand out one after another:
// those of one matrix, or, as a matrix may have names of its own, all that ask for the same
// labels. It begins with what is the same from run to run: KindOf.
func (j Job) Crowd() string {
	kind := j.kind("")
	if j.Matrix() {
		kind = j.Kind()
	}
	return kind + "-" + strconv.FormatInt(j.RunID, 10) + "-" + strconv.Itoa(j.Attempt)
}

// KindOf returns what a Crowd has in common with those of other runs.
func KindOf(crowd string) string { return crowd[:min(kindLen, len(crowd))] }

func (j Job) kind(name string) string {
	run := strconv.FormatInt(GitHubID(j.RunID), 10)
	of := append([]string{j.Repo.Host, strings.ToLower(j.Repo.Owner), strings.ToLower(j.Repo.Name), j.Workflow, name}, j.Labels...)
	labels := of[5:]
	for i, l := range labels {
		labels[i] = strings.ToLower(l)
		if len(run) > 5 { // a compound label may have it, and a size is shorter
			labels[i] = strings.ReplaceAll(labels[i], run, "")
		}
	}
	slices.Sort(labels)
	b := make([]byte, 0, 256)
	for _, s := range of {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:kindLen/2])
}
