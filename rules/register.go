package rules

import (
	"errors"
	"fmt"
	"strings"

	"switchyard/rules/internal/words"
)

// MaxTokenLabels is the most bytes of labels, with a comma between two, of a runner that registers
// itself: it gets them in its environment.
const MaxTokenLabels = 8 << 10

// registrable returns why GitHub would not register a runner for a job with these labels, as they
// came, or would give it no such job; nil when it may. A dispatched job brings its own
// registration.
func registrable(labels []string, p *Placement) error {
	r := p.Runner
	switch {
	case p.Dispatch != "":
		return nil
	case r.Scope == "repository" && r.Group != 1:
		return fmt.Errorf("runner group %d (%s) is one of an organization, and runners of a repository (runner.scope: %s) are in none: add scope: organization, or leave the group out", r.Group, p.From["runner.group"], p.From["runner.scope"])
	case r.Scope == "repository" && len(labels) == 0:
		return errors.New("a job without labels asks for a runner group alone, and runners of a repository are in none: give its rule runner: { scope: organization, group: ID }")
	case r.Registration == "token":
		return tokenLabels(labels)
	}
	return nil
}

// tokenLabels refuses labels that cannot be passed by config.sh --labels, which splits at commas,
// nor by job meta, in which Nomad interpolates ${…}.
func tokenLabels(labels []string) error {
	all := 0
	for _, l := range labels {
		if strings.Contains(l, ",") || strings.Contains(l, "${") || strings.TrimSpace(l) != l {
			return fmt.Errorf("label %s cannot be given to a runner that registers itself (registration: token), as config.sh splits labels at commas and Nomad interpolates ${…}: use registration: jit for it", words.Quote(l))
		}
		all += len(l) + 1
	}
	if all > MaxTokenLabels {
		return fmt.Errorf("the labels have %d bytes together, and a runner that registers itself (registration: token) can be given %d: use registration: jit", all, MaxTokenLabels)
	}
	return nil
}
