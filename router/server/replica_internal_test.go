package server

import (
	"context"
	"slices"
	"testing"

	"switchyard/router"
)

// told are Replicas that note what they are told.
type told []string

func (*told) Join(context.Context, router.Member) error { return nil }

func (t *told) Tell(_ context.Context, hint string) error {
	*t = append(*t, hint)
	return nil
}

// All replicas take up what was applied on one, not only the leader.
func TestReplicasHearOfAppliedRules(t *testing.T) {
	var said told
	applying := &App{replicas: &said}
	applying.TellRules(t.Context())
	reads := 0
	other := &App{rulesApplied: func() { reads++ }}
	for _, hint := range slices.Concat(said, []string{hintDue, ""}) {
		other.hears(hint)
	}
	if len(said) != 1 || reads != 1 {
		t.Errorf("one told %q, and the other read the rules %d times", said, reads)
	}
	new(App).TellRules(t.Context()) // alone
}
