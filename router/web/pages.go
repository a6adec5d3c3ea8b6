package web

import (
	"net/http"

	"switchyard/router"
)

type nowView struct{ Waiting, Running []Job }

func (a *api) nowPage(req *http.Request) (any, error) {
	scope := who(req.Context()).Scope
	var v nowView
	for to, states := range map[*[]Job][]router.JobState{
		&v.Waiting: {router.Held, router.Queued, router.Retrying, router.Dispatched},
		&v.Running: {router.Running},
	} {
		jobs, err := a.Books.FindJobs(req.Context(), router.JobFilter{States: states, Within: scope, Limit: 50})
		if err != nil {
			return nil, err
		}
		for _, j := range jobs {
			*to = append(*to, jobOf(j))
		}
	}
	return v, nil
}

func (a *api) jobsPage(req *http.Request) (any, error) {
	return ListJobs(req.Context(), a.Books, who(req.Context()).Scope, req.URL.Query())
}

// Title is that of the job's page.
func (d JobDetail) Title() string { return router.Printable(d.Job.Name) }

func (a *api) jobPage(req *http.Request) (any, error) {
	id, err := jobID(req)
	if err != nil {
		return nil, err
	}
	return a.job(req.Context(), id)
}
