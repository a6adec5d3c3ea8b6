package rules

import (
	"strings"
	"time"

	"switchyard/rules/internal/cond"
)

// A limitSpec is a rule's limit on the jobs that run at once; nil is none.
type limitSpec struct {
	running int
	per     string
}

// limitPer are the ways to count.
var limitPer = []string{"rule", "owner", "repo", "label"}

// of is the limit of one job.
func (l *limitSpec) of(ru *rule, meanings []meaning, env *cond.Env) *Limit {
	if l == nil {
		return nil
	}
	key := ru.name // has no "|" in it
	host := ""     // as owners elsewhere may have the same name
	if env.Repo.Host != DefaultHost {
		host = env.Repo.Host + "/"
	}
	switch l.per {
	case "owner":
		key += "|" + host + env.Repo.Owner
	case "repo":
		key += "|" + host + env.Repo.FullName
	case "label":
		// The labels that mean something, in the vocabulary's order. Those of a
		// pattern without a param are unique to a job: they count as the pattern.
		var names []string
		for _, m := range meanings {
			name := m.as
			if _, open := m.prefix(); open && m.param == nil {
				name = m.pattern
			}
			names = append(names, name)
		}
		key += "|" + strings.Join(names, ",")
	}
	return &Limit{Running: l.running, Per: l.per, Key: key}
}

// A fallback is what takes the place of a rule's own settings while Nomad
// cannot place the runner.
type fallback struct {
	at      cond.Spot
	from    string // "rule linux, fallback 1"
	after   time.Duration
	jobspec string // "": the rule's
	layer   layer

	jobspecAt cond.Spot
}

// without is the layer without the lists that over has, too: those of over take
// their place. Single values replace each other anyway.
func (l layer) without(over *layer) layer {
	if over.constraints != nil {
		l.constraints = nil
	}
	if over.affinities != nil {
		l.affinities = nil
	}
	if over.devices != nil {
		l.devices = nil
	}
	return l
}
