package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"switchyard/router"
	"sync"
	"time"
)

const (
	readyAge  = time.Second // for so long what the store answered is shown again
	readyMark = "ready"     // written to see that the store can be
)

// A Readiness is what /readyz answers. Its JSON form is a contract.
//
// Only what keeps this process from doing its part makes it not ready, which
// is the store: without it a delivery cannot be taken. What all replicas would
// suffer together, as that Nomad is away, makes it degraded: deliveries are taken
// all the same, and wait. To take it out of service would lose them.
type Readiness struct {
	Status string                  `json:"status"`           // ok, degraded or not ready
	Reason string                  `json:"reason,omitempty"` // of the first check that is not ok
	Checks []Check                 `json:"checks"`
	Jobs   map[router.JobState]int `json:"jobs,omitempty"` // how many are in each state; null when the store does not say
	Rules  router.RulesStatus      `json:"rules"`
}

// A Check is one thing that was looked at.
type Check struct {
	Name   string    `json:"name"`             // store, first_look, nomad, github or rules
	Status string    `json:"status"`           // ok, warning or failed
	Reason string    `json:"reason,omitempty"` // one sentence
	Since  time.Time `json:"since,omitzero"`
}

// readiness is asked of the store at most once in a while, however many ask.
type readiness struct {
	mu     sync.Mutex // held while the store is asked
	at     time.Time
	failed time.Time // since when the store fails; zero: it does not
	reason string
	counts map[router.JobState]int
}

// store writes to the store and reads from it.
func (r *readiness) store(ctx context.Context, s router.Store) (Check, map[router.JobState]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.at) >= readyAge {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		counts, err := s.Counts(ctx)
		reason := ""
		var fix *router.FixError // says by itself what to do
		if err != nil {
			reason = "the store does not answer: " + err.Error()
		} else if err = s.SetMark(ctx, readyMark, now.UTC().Format(time.RFC3339)); err != nil {
			reason = "the store cannot be written; is its disk full? " + err.Error()
		}
		if errors.As(err, &fix) {
			reason = "the store failed: " + fix.Error()
		}
		switch {
		case err == nil:
			r.failed = time.Time{}
		case r.failed.IsZero():
			r.failed = now
		}
		r.at, r.reason, r.counts = now, reason, counts
	}
	if r.reason != "" {
		return Check{"store", "failed", r.reason, r.failed}, r.counts
	}
	return Check{Name: "store", Status: "ok"}, r.counts
}

// Readiness looks at everything.
func (a *App) Readiness(ctx context.Context) Readiness {
	r := Readiness{Status: "ok", Rules: a.RulesStatus()}
	store, counts := a.probed.store(ctx, a.Store)
	r.Jobs = counts
	look := Check{Name: "first_look", Status: "ok"}
	if a.earlier.underWay() {
		look = Check{Name: "first_look", Status: "warning", Reason: "a full look at GitHub is under way, as the database is new, or older than GitHub's deliveries tell of: not all jobs are known"}
	}
	loaded := Check{Name: "rules", Status: "ok"}
	if refused := r.Rules.Refused(); refused != "" {
		loaded = Check{"rules", "warning", refused, r.Rules.Error.Since}
	}
	r.Checks = []Check{store, look, a.nomadCheck(), a.Metrics.github.check("github", "GitHub"), loaded}
	for _, c := range r.Checks {
		switch {
		case c.Status == "failed":
			r.Status = "not ready"
		case c.Status == "warning" && r.Status == "ok":
			r.Status = "degraded"
		default:
			continue
		}
		if r.Reason == "" {
			r.Reason = c.Reason
		}
	}
	return r
}

// nomadCheck says what Nomad's last answers tell, or that it gives none.
func (a *App) nomadCheck() Check {
	if d, _ := a.silence.length(); d > 0 {
		return Check{"nomad", "warning", "Nomad " + saysSilent(d), a.Now().Add(-d)}
	}
	check := a.Metrics.nomad.check("nomad", "Nomad")
	if at := a.unseen.Load(); check.Status == "ok" && at != 0 && time.Since(time.Unix(0, at)) < 2*unseenAfter {
		return Check{"nomad", "warning", "Nomad takes jobs and does not look at them: is its evaluation broker paused, or are its servers too busy?", a.Now().Add(-time.Since(time.Unix(0, at)))}
	}
	return check
}

// check says what the last answers tell of a side.
func (s *side) check(name, who string) Check {
	bad := s.state()
	reason := ""
	switch {
	case bad.since.IsZero():
		return Check{Name: name, Status: "ok"}
	case bad.status == 0:
		reason = who + " cannot be reached"
	case bad.status == router.Unreadable:
		reason = who + "'s answers cannot be read, as they are empty, cut off or somebody else's: is its address right, and what stands between?"
	case bad.status == http.StatusUnauthorized:
		reason = who + " refuses the login: is the token, or the App's key, good?"
	case bad.status == http.StatusForbidden:
		reason = who + " does not let the login do what it must; jobs that wait for it say what is missing"
	case bad.status == http.StatusTooManyRequests:
		reason = who + " takes no more requests for now"
	default:
		reason = fmt.Sprintf("%s answers %d", who, bad.status)
	}
	return Check{name, "warning", reason, bad.since}
}
