package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

const (
	readyAge  = time.Second // how long the store's answer is shown again
	readyMark = "ready"     // the name of the mark that tests whether the store can be written
)

// A Readiness is the answer of /readyz. Its JSON form is a contract.
//
// Only what keeps this process from doing its part makes it not ready, which is the store:
// without it no delivery can be taken. What all replicas would suffer from together, such as a
// Nomad that is down, makes it degraded: deliveries are still taken, and wait. To take it out of
// service would lose them.
type Readiness struct {
	Status string                  `json:"status"`           // ok, degraded or not ready
	Reason string                  `json:"reason,omitempty"` // of the first check that is not ok
	Checks []Check                 `json:"checks"`
	Jobs   map[router.JobState]int `json:"jobs,omitempty"` // how many are in each state; null when the store does not say
	Rules  router.RulesStatus      `json:"rules"`
}

// A Check is the state of one thing.
type Check struct {
	Name   string    `json:"name"`             // store, first_look, nomad, github or rules
	Status string    `json:"status"`           // ok, warning or failed
	Reason string    `json:"reason,omitempty"` // one sentence
	Since  time.Time `json:"since,omitzero"`
}

// readiness remembers what the store answered, so that it is asked at most once a second,
// however many clients ask.
type readiness struct {
	mu     sync.Mutex // held while the store is asked
	at     time.Time
	failed time.Time // since when the store fails; zero: it does not
	reason string
	counts map[router.JobState]int
}

// store checks that the store can be read and written.
func (r *readiness) store(ctx context.Context, s Store) (Check, map[router.JobState]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.at) >= readyAge {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), router.StoreTimeout)
		defer cancel()
		counts, err := s.Counts(ctx)
		reason := ""
		if err != nil {
			reason = "the database does not answer: " + err.Error()
		} else if err = s.SetMark(ctx, readyMark, now.UTC().Format(time.RFC3339)); err != nil {
			reason = "the database cannot be written: check whether its disk is full: " + err.Error()
		}
		if fix, ok := errors.AsType[*router.FixError](err); ok { // says by itself what to do
			reason = "the database failed: " + fix.Error()
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

// Readiness checks everything.
func (a *App) Readiness(ctx context.Context) Readiness {
	r := Readiness{Status: "ok", Rules: a.decider.Status()}
	store, counts := a.probed.store(ctx, a.store)
	r.Jobs = counts
	first := Check{Name: "first_look", Status: "ok"}
	if a.first.UnderWay() {
		first = Check{Name: "first_look", Status: "warning", Reason: "the first sync with GitHub is under way, as the database is new, or older than the deliveries that GitHub lists: not all jobs are known yet"}
	}
	loaded := Check{Name: "rules", Status: "ok"}
	if refused := r.Rules.Refused(); refused != "" {
		loaded = Check{"rules", "warning", refused, r.Rules.Error.Since}
	}
	r.Checks = []Check{store, first, a.nomadCheck(), sideCheck("github", "GitHub", a.metrics.GitHub()), loaded}
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

// nomadCheck says whether Nomad answers, by its last answers.
func (a *App) nomadCheck() Check {
	if d := a.dispatcher.SilentFor(); d > 0 {
		return Check{"nomad", "warning", "Nomad " + router.SaysSilent(d), a.now().Add(-d)}
	}
	check := sideCheck("nomad", "Nomad", a.metrics.Nomad())
	if d := a.runners.NotEvaluating(); check.Status == "ok" && d > 0 {
		return Check{"nomad", "warning", "Nomad accepts jobs but does not evaluate them: check whether its evaluation broker is paused, or its servers are too busy", a.now().Add(-d)}
	}
	return check
}

// sideCheck says what is wrong with Nomad or GitHub, by its last answers.
func sideCheck(name, who string, bad telemetry.SideState) Check {
	var reason string
	switch {
	case bad.Since.IsZero():
		return Check{Name: name, Status: "ok"}
	case bad.Status == 0:
		reason = who + " cannot be reached"
	case bad.Status == router.Unreadable:
		reason = who + "'s answers cannot be read, as they are empty, cut off or not its own: check its address, and any proxy on the way"
	case bad.Status == http.StatusUnauthorized:
		reason = who + " refuses the login: check the token, or the App's key"
	case bad.Status == http.StatusForbidden:
		reason = who + " does not let the login do what is needed; the jobs that wait for it say what is missing"
	case bad.Status == http.StatusTooManyRequests:
		reason = who + " takes no more requests for now"
	default:
		reason = fmt.Sprintf("%s answers %d", who, bad.Status)
	}
	return Check{name, "warning", reason, bad.Since}
}
