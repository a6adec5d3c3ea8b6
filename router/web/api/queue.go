package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

// A Queue says how a job stands among those that wait for a place under one limit.
type Queue struct {
	Limit      string           `json:"limit"`       // the limit's key
	Order      string           `json:"order"`       // fair or priority
	Urgency    int              `json:"urgency"`     // of the job; 0 if the order is fair
	Places     int              `json:"places"`      // that there are
	Taken      int              `json:"taken"`       // of these
	Waiting    int              `json:"waiting"`     // jobs that wait, with this one
	Place      int              `json:"place"`       // 1: it is next; 0: not known, as too many wait
	Estimate   *router.Estimate `json:"estimate"`    // when it starts; null: there is none
	NoEstimate string           `json:"no_estimate"` // why there is none; "" otherwise
}

// queueOf returns how a job stands that waits for a place under its limit, or, by its decision,
// one that is only described; nil: it waits for none.
func queueOf(ctx context.Context, database Database, j router.Job, d *rules.Decision, now time.Time) (*Queue, error) {
	described := j.ID == 0
	if d == nil || d.Limit == nil || !described && (j.State != router.Held || j.Cause != router.CauseLimit) {
		return nil, nil
	}
	l, err := database.LimitQueue(ctx, d.Limit.Key, d.Rule)
	if err != nil {
		return nil, err
	}
	q := &Queue{Limit: d.Limit.Key, Order: cmp.Or(d.Limit.Order, "fair"), Urgency: max(0, router.UrgencyOf(d)), Places: d.Limit.Running, Taken: len(l.Placed)}
	if described {
		if len(l.Held) == 0 && len(l.Placed) < d.Limit.Running {
			return nil, nil
		}
		l.Held = append(l.Held, router.HeldJob{Repo: router.RepoName{Host: j.Repo.Host, Owner: j.Repo.Owner, Name: j.Repo.Name}, Urgency: router.UrgencyOf(d), ReceivedAt: now})
	} else if !slices.ContainsFunc(l.Held, func(h router.HeldJob) bool { return h.ID == j.ID }) && !l.More {
		return nil, nil // it has got a place meanwhile
	}
	q.Waiting = len(l.Held)
	before, ok := l.Before(j.ID)
	if !ok {
		q.NoEstimate = "too many jobs wait to tell its place"
		return q, nil
	}
	q.Place = before + 1
	if e, ok := l.Estimate(before, now); ok {
		q.Estimate = &e
	} else {
		q.NoEstimate = fmt.Sprintf("only %s of rule %s ran here and ended, and %d are needed", router.Count(len(l.Ran), "job"), d.Rule, router.EstimateJobs)
	}
	return q, nil
}

// Standing says in words how the job stands.
func (q *Queue) Standing() string {
	place := fmt.Sprintf("%s wait", router.Count(q.Waiting, "job"))
	if q.Waiting == 1 {
		place = "1 job waits"
	}
	if q.Place > 0 {
		place = fmt.Sprintf("place %d of %d that wait", q.Place, q.Waiting)
	}
	order := ""
	if q.Order == rules.Priority {
		order = fmt.Sprintf(", with urgency %d", q.Urgency)
	}
	return fmt.Sprintf("%s under the limit %s%s; %d of %d places are taken", place, q.Limit, order, q.Taken, q.Places)
}

// Starts says in words when the job will probably start.
func (q *Queue) Starts(now time.Time) string {
	e := q.Estimate
	if e == nil {
		return "no estimate: " + q.NoEstimate
	}
	in := func(at time.Time) string { return rules.Duration(about(at.Sub(now))).String() }
	return fmt.Sprintf("in about %s, and in 8 of 10 cases in %s to %s, as the last %d jobs of its rule ran; later if others come that go before it",
		in(e.Likely), in(e.Soonest), in(e.Latest), e.Jobs)
}

// about rounds a duration as people say it.
func about(d time.Duration) time.Duration {
	switch d = max(d, time.Second); {
	case d < 2*time.Minute:
		return max(d.Round(5*time.Second), time.Second)
	case d < 2*time.Hour:
		return d.Round(time.Minute)
	}
	return d.Round(10 * time.Minute)
}
