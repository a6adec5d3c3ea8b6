package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"switchyard/router"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

const (
	// MaxRetried is how many unroutable jobs are counted, or retried at once.
	MaxRetried = 200

	maxUnroutable = 20 // groups of them
)

// An UnroutableGroup is the unroutable jobs of a repository that ask for the same labels.
type UnroutableGroup struct {
	Newest router.Job
	Since  time.Time // when the first of them was found to be unroutable
	Jobs   int
	Routed bool // by the rules in force, the newest of them
}

// Unroutable returns the newest unroutable jobs that the principal of ctx may see and that
// GitHub may still queue, by repository and labels, the group with the newest job first:
// the first groups of the newest MaxRetried jobs. more reports whether there are others.
func (a *API) Unroutable(ctx context.Context) (groups []UnroutableGroup, more bool, err error) {
	jobs, more, err := a.unroutable(ctx)
	if err != nil {
		return nil, false, err
	}
	for _, j := range jobs { // the newest first
		i := slices.IndexFunc(groups, func(g UnroutableGroup) bool { return alike(g.Newest, j) })
		switch {
		case i < 0 && len(groups) == maxUnroutable:
			more = true
			continue
		case i < 0:
			i = len(groups)
			groups = append(groups, UnroutableGroup{Newest: j, Since: j.UpdatedAt, Routed: wouldRoute(j, a.explained.of(a.config.App, j))})
		}
		groups[i].Jobs++
		if j.UpdatedAt.Before(groups[i].Since) {
			groups[i].Since = j.UpdatedAt
		}
	}
	return groups, more, nil
}

// unroutable returns the newest unroutable jobs of Unroutable.
func (a *API) unroutable(ctx context.Context) (jobs []router.Job, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, ReadTimeout)
	defer cancel()
	f := router.JobFilter{
		States: []router.JobState{router.Unroutable}, Within: auth.Who(ctx).Scope, Since: a.config.Now().Add(-router.GoneAfter), Limit: MaxRetried + 1,
	}
	for other := true; other; other = f.Before > 0 { // each GitHub, as their IDs do not compare
		found, err := a.Database.FindJobs(ctx, f)
		if err != nil {
			return nil, false, err
		}
		f.Before = 0
		if len(found) > 0 {
			f.Before = router.FirstID(found[0].ID)
		}
		jobs = append(jobs, slices.DeleteFunc(found, func(j router.Job) bool { return j.ID < f.Before })...)
	}
	slices.SortStableFunc(jobs, func(a, b router.Job) int { return b.ReceivedAt.Compare(a.ReceivedAt) })
	return jobs[:min(len(jobs), MaxRetried)], len(jobs) > MaxRetried, nil
}

func alike(a, b router.Job) bool {
	return a.Repo.Host == b.Repo.Host && a.Repo.FullName == b.Repo.FullName && slices.Equal(a.Labels, b.Labels)
}

// wouldRoute reports whether a decision of the rules in force routes an unroutable job,
// otherwise than as it was refused.
func wouldRoute(j router.Job, d *router.Decision) bool {
	was := j.Decision
	return d.Outcome == rules.Routed && (was == nil || was.Outcome != rules.Routed || j.Fit(was) != j.Fit(d))
}

// RetryUnroutable retries unroutable jobs for the principal of a request: those like one
// job, or, if like is 0, those that the rules in force would route. At most MaxRetried.
func (a *API) RetryUnroutable(req *http.Request, like int64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), workTimeout)
	defer cancel()
	what := "those that the rules in force would route"
	var one router.Job
	if like != 0 {
		var err error
		if one, err = a.VisibleJob(ctx, like); err != nil {
			return err
		}
		what = fmt.Sprintf("those like jobs/%d of %s", like, one.Repo.FullName)
	}
	concerns(req, "unroutable jobs: "+what)
	jobs, _, err := a.unroutable(ctx)
	if err != nil {
		return err
	}
	retried := 0
	for _, j := range jobs {
		if like != 0 && !alike(one, j) {
			continue
		}
		if like == 0 {
			if d := a.config.App.Explain(j); !wouldRoute(j, &d) {
				continue
			}
		}
		if err = a.RetryJob(ctx, j.ID); err == nil {
			retried++
			continue
		}
		if p := problem.Of(err); p == nil || p.Status >= http.StatusInternalServerError {
			break
		} // otherwise it has changed, or is gone
		err = nil
	}
	concerns(req, fmt.Sprintf("unroutable jobs: %s; %s retried", what, router.Count(retried, "job")))
	if err == nil && retried == 0 {
		return problem.New(http.StatusConflict, "no job was retried (%s): none is unroutable any more, or all have changed", what)
	}
	return err
}
